"""The docks: each is a form, a thread and a layer; what they do, `core` does."""
