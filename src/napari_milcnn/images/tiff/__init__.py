"""Images of any usual kind, opened lazily and read one plane or window at a time."""
