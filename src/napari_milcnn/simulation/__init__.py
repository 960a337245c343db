"""Simulated yeast screens with their truth."""
