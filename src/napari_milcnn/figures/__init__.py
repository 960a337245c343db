"""Everything that is drawn without a window."""
