"""The network, from the pixels to the score of each class."""
