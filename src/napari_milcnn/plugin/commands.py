"""Commands of the Layers menu: open the Classify dock and classify the selected image."""

from __future__ import annotations

from napari.viewer import Viewer

from napari_milcnn.plugin.docks import ClassifyPage, open_page


def classify_layer(viewer: Viewer) -> None:
    """Open the Classify dock and, if a model is chosen, classify the selected image."""
    open_page(viewer, ClassifyPage).when_open(lambda dock: dock.classify())
