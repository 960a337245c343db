"""The Results dock."""
