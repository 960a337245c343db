"""Engines that run the encoder of a network on a CPU in place of torch, and the choice between them."""
