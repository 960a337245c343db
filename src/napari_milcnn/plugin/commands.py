"""Commands of the Layers menu: open the Classify dock and classify the selected image."""

from __future__ import annotations

from napari.viewer import Viewer


def classify_layer(viewer: Viewer) -> None:
    """Open the Classify dock and, if a model is chosen, classify the selected image."""
    _, page = viewer.window.add_plugin_dock_widget("napari-milcnn", "Classify")
    page.when_open(lambda dock: dock.classify())
