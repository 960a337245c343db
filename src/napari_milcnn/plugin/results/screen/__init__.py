"""The form "Whole screen" of the Results dock: it starts a screen, goes on with one, and opens what it wrote."""
