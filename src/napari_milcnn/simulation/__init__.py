"""Simulated yeast screens with the truth for every cell."""
