"""Planes larger than memory, processed in strips of whole rows with the same result as in one piece."""
