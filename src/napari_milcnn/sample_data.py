"""Sample data for napari's menu File > Open Sample."""

from __future__ import annotations

from typing import Any

from napari_milcnn.core.images import open_image
from napari_milcnn.core.samples import sample_folder

_COLOURMAPS = {"GFP": "green", "RFP": "magenta"}


def yeast_field() -> list[tuple[Any, dict[str, Any], str]]:
    """Open a simulated field of yeast, GFP and RFP, as image layers."""
    return _layers("yeast-mitochondria.ome.tif")


def yeast_two_labels() -> list[tuple[Any, dict[str, Any], str]]:
    """Open a simulated field in which some cells show the vacuole and some the cell periphery, as image layers."""
    return _layers("yeast-two-labels.ome.tif")


def yeast_timelapse() -> list[tuple[Any, dict[str, Any], str]]:
    """Open a simulated time-lapse in which a protein moves into the nucleus, as image layers."""
    return _layers("yeast-timelapse.ome.tif")


def _layers(name: str) -> list[tuple[Any, dict[str, Any], str]]:
    with open_image(sample_folder() / name) as image:
        data = image.data[...]
        channel = image.axes.index("C")
        axes = image.axes.replace("C", "")
        scale = [image.pixel_size if axis in "YX" else 1.0 for axis in axes]
        units = ["um" if axis in "YX" else "pixel" for axis in axes]
    return [
        (
            data.take(i, channel),
            {"name": f"{image.name} {one}", "scale": scale, "units": units, "axis_labels": tuple(axes),
             "blending": "additive", "colormap": _COLOURMAPS.get(one, "gray")},
            "image",
        )
        for i, one in enumerate(image.channels)
    ]  # fmt: skip
