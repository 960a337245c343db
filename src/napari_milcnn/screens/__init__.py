"""Whole screens: many plates, many workers, one table."""
