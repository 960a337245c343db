"""What the Layers menu does: open the dock and run it on the selected image."""

from __future__ import annotations

from napari.viewer import Viewer


def classify_layer(viewer: Viewer) -> None:
    """Open the Classify dock and, where a model is chosen, classify the selected image."""
    _, dock = viewer.window.add_plugin_dock_widget("napari-milcnn", "Classify")
    dock.classify()
