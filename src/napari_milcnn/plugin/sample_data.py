"""Sample data for napari's menu File > Open Sample."""

from __future__ import annotations

from napari_milcnn.images.open import open_image
from napari_milcnn.model.shipped import sample_folder
from napari_milcnn.plugin.results_to_layers import LayerData, image_layers


def yeast_field() -> list[LayerData]:
    """Open a simulated field of yeast, GFP and RFP, as image layers."""
    return _layers("yeast-mitochondria.ome.tif")


def yeast_two_labels() -> list[LayerData]:
    """Open a simulated field in which some cells show the vacuole and some the cell periphery, as image layers."""
    return _layers("yeast-two-labels.ome.tif")


def yeast_timelapse() -> list[LayerData]:
    """Open a simulated time-lapse in which a protein moves into the nucleus, as image layers."""
    return _layers("yeast-timelapse.ome.tif")


def _layers(name: str) -> list[LayerData]:
    return image_layers(open_image(sample_folder() / name))
