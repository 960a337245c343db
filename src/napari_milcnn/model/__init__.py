"""A trained model: its network, its card, and the one file it is kept in."""
