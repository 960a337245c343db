"""Pictures of images and results, drawn without a window."""
