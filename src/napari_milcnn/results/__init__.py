"""Results on disk: written, read back, and run again."""
