"""The image that is being labelled, in the viewer: one image at a time, always in the same layers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari.layers import Layer

from napari_milcnn.plugin.results_to_layers import image_layers

if TYPE_CHECKING:
    from napari.viewer import Viewer

    from napari_milcnn.images.stack import ImageStack
    from napari_milcnn.plugin.results_to_layers import LayerData

Limits = tuple[tuple[float, float], ...]


class ImageLayers:
    """The layers of the image that is being labelled; all other layers belong to the user.

    Parameters
    ----------
    viewer : Viewer
        Used only in the window's thread.
    """

    def __init__(self, viewer: Viewer) -> None:
        self.viewer = viewer
        self.layers: tuple[Layer, ...] = ()

    def show(self, image: ImageStack, plane: str, limits: Limits) -> None:
        """Show another image, if possible in the layers of the image before, so that their display settings stay."""
        wanted = [_of_planes(data, image, plane) for data in image_layers(image, limits)]
        there = tuple(layer for layer in self.layers if layer in self.viewer.layers)
        if len(there) == len(wanted) and all(
            layer.ndim == each[0].ndim for layer, each in zip(there, wanted, strict=True)
        ):
            self.layers = there
            same = there[0].data.shape == wanted[0][0].shape
            for layer, each in zip(there, wanted, strict=True):
                _change(layer, *each[:2])
            if not same:
                self.viewer.reset_view()
        else:
            self.clear()
            self.layers = tuple(self._add(each) for each in wanted)

    def clear(self) -> None:
        """Remove the layers."""
        for layer in self.layers:
            if layer in self.viewer.layers:
                self.viewer.layers.remove(layer)
        self.layers = ()

    def _add(self, data: LayerData) -> Layer:
        """Add a layer without changing which layers of the user are selected."""
        selected = set(self.viewer.layers.selection)
        layer = Layer.create(*data)
        self.viewer.add_layer(layer)
        if selected:
            self.viewer.layers.selection = selected
        return layer


def _change(layer: Any, data: Any, facts: dict[str, Any]) -> None:
    layer.data = data
    for name in ("name", "scale", "units", "axis_labels", "metadata", "contrast_limits"):
        setattr(layer, name, facts[name])


def _of_planes(data: LayerData, image: ImageStack, plane: str) -> LayerData:
    """Leave out the axes along which a single plane is labelled, so that only what is labelled is shown."""
    array, facts, kind = data
    facts = {**facts, "name": f"{facts['name']} {plane}".rstrip()}
    axes = image.axes.replace("C", "")
    only = dict(zip("PTZ", image.only, strict=True))
    shown = [i for i, axis in enumerate(axes) if only.get(axis) is None]
    key = tuple(slice(None) if i in shown else only[axis] for i, axis in enumerate(axes))
    along = {name: [facts[name][i] for i in shown] for name in ("scale", "units", "axis_labels")}
    return array[key], facts | along, kind
