"""The headless core: no napari, no Qt. Each file imports only from the floors below it (see CONTRIBUTING.md)."""
