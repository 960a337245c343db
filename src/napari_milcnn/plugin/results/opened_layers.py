"""The image of one row of opened results in the viewer, with the masks that the run wrote."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pandas as pd

from napari_milcnn.errors import ResultsError
from napari_milcnn.images.lazy_array import scratch_array
from napari_milcnn.images.stack import Window
from napari_milcnn.inference.strips.rows import strips
from napari_milcnn.plugin.layers_to_image import SourceReading, open_layers
from napari_milcnn.plugin.results_to_layers import (
    add_layer,
    image_layers,
    label_numbers,
    limits_of,
    mask_layer,
    remove,
    show_plane,
)

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image, Layer

    from napari_milcnn.images.stack import ImageStack, PlaneIndex
    from napari_milcnn.plugin.layers_to_image import LayerImage
    from napari_milcnn.results.opened import OpenedResults

_OBJECT_COLUMNS = ("class", "area_px", "area_um2", "mean_evidence", "score")


@dataclass(frozen=True)
class OpenStep:
    """A step of opening an image: first the image, then its masks.

    Attributes
    ----------
    path : Path
        The image.
    plane : int
        Number of the plane to show.
    image : ImageStack or None
        The image, in the first step.
    limits : tuple or None
        Contrast limits (low, high) of each channel.
    labels : ndarray or None
        Masks, int32 (planes, Y, X), in the last step; each number encodes the class as in `label_numbers`.
    objects : DataFrame or None
        The table of the objects; its column `index` is the number in `labels`.
    """

    path: Path
    plane: int
    image: ImageStack | None = None
    limits: tuple[tuple[float, float], ...] | None = None
    labels: np.ndarray | None = None
    objects: pd.DataFrame | None = None


def open_row(found: OpenedResults, row: int) -> Iterator[OpenStep]:
    """Open the image of a row, then read its masks.

    Raises
    ------
    ResultsError
        If the image was not found, or is not the image that was classified.
    ImageError
        If it cannot be read.
    """
    image, plane = found.open(row)
    path = image.path or Path(image.name)
    yield OpenStep(path, plane, image, limits_of(image))
    _, masks = found.names_of(row)
    objects = None if masks is None else found.objects_of(row)
    if masks is not None and objects is not None:
        yield from _masks(objects, found.classes, masks, image, OpenStep(path, plane))


def _masks(
    rows: pd.DataFrame, classes: Sequence[str], masks: Path, image: ImageStack, step: OpenStep
) -> Iterator[OpenStep]:
    from napari_milcnn.images.open import open_image

    tables, start = [], 0
    with open_image(masks) as stored:
        if stored.plane_shape != image.plane_shape or len(stored.planes) != len(image.planes):
            raise ResultsError(
                f"{masks.name} has {_size_text(stored)}, but {step.path.name} has {_size_text(image)}; choose the "
                "folder of the images from which these results were made"
            )
        labels = scratch_array((len(image.planes), *image.plane_shape), np.int32)
        for number, at in enumerate(image.planes):
            own = rows[(rows["position"] == at.position) & (rows["t"] == at.t) & (rows["z"] == at.z)]
            parts, count = strips(image.plane_shape), 0
            for top, bottom in parts:
                found = stored.plane(number, (0,), Window(top, bottom, 0, image.plane_shape[1]))[0]
                labels[number, top:bottom], count = found, max(count, int(found.max(initial=0)))
            numbers = np.zeros(count + 1, labels.dtype)
            table = own[own["label"] <= count]
            index = label_numbers(table["label"].to_numpy(), list(table["class"]), classes, start)
            numbers[table["label"]] = index
            for strip in parts:
                labels[number, strip.rows] = numbers[labels[number, strip.rows]]
            tables.append(table.assign(index=index, plane=number))
            start += count
            yield OpenStep(step.path, step.plane)
    objects = pd.concat(tables, ignore_index=True)
    shown = ["index", "plane", "label", *(name for name in _OBJECT_COLUMNS if name in objects)]
    yield OpenStep(step.path, step.plane, labels=labels, objects=objects[shown])


def _size_text(image: ImageStack) -> str:
    height, width = image.plane_shape
    return f"{len(image.planes)} plane{'s'[: len(image.planes) != 1]} of {height} × {width} px"


class OpenedLayers:
    """The layers of the image that was opened last from the results.

    They are found again as the objects that they are: a layer keeps its place here when the user renames it, and a
    layer of the same name that is somebody else's is never touched.

    Parameters
    ----------
    viewer : ViewerModel
        Used only in the window's thread.
    """

    def __init__(self, viewer: ViewerModel) -> None:
        self._viewer = viewer
        self._source: LayerImage | None = None
        self._images: tuple[Layer, ...] = ()
        self._masks: Layer | None = None
        self._edited = False

    @property
    def planes(self) -> tuple[PlaneIndex, ...]:
        """The planes of the opened image; none if no image is open."""
        return () if self._source is None else self._source.image.planes

    @property
    def are_whole(self) -> bool:
        """Whether the viewer shows every layer that was added for the opened image."""
        return bool(self._images) and all(layer in self._viewer.layers for layer in self._all())

    def _all(self) -> tuple[Layer, ...]:
        return self._images if self._masks is None else (*self._images, self._masks)

    def go_to(self, plane: PlaneIndex) -> None:
        """Show a plane of the opened image."""
        assert self._source is not None
        show_plane(self._viewer, self._source, self.planes.index(plane))

    def plane_in_view(self) -> PlaneIndex | None:
        """Return the plane of the opened image at the sliders; None if no image is shown, or nothing of it there."""
        dims = self._viewer.dims
        if self._source is None or not all(layer in self._viewer.layers for layer in self._images):
            return None
        number = self._source.plane_at(dims.point, getattr(dims, "units", None))
        return None if number is None else self.planes[number]

    def show_image(self, image: ImageStack, limits: Sequence[tuple[float, float]] | None, plane: int) -> None:
        """Add an image, one layer for each channel, and show one of its planes."""
        added = [cast("Image", add_layer(self._viewer, data)) for data in image_layers(image, limits)]
        reading = SourceReading(
            image.axes.replace("C", ""), tuple(image.channels), image.pixel_size, named=image.channels_named
        )
        self._images, self._source = tuple(added), open_layers(added, reading)
        show_plane(self._viewer, self._source, plane)

    def show_masks(self, labels: np.ndarray, objects: pd.DataFrame, classes: tuple[str, ...]) -> None:
        """Add the masks of the opened image, as `OpenStep` has them."""
        assert self._source is not None
        self._masks = add_layer(self._viewer, mask_layer(self._source, labels, objects, classes))
        for event in (self._masks.events.paint, self._masks.events.data):
            event.connect(self._on_edit)

    def _on_edit(self, _event: Any = None) -> None:
        self._edited = True

    def leave(self) -> str:
        """Remove the layers of the opened image; masks that the user edited stay in the viewer, with their image.

        Returns
        -------
        str
            The name of the layer of edited masks that stays; empty if nothing stays.
        """
        masks, stays = self._masks, ""
        if masks is not None and self._edited and masks in self._viewer.layers:
            stays = str(masks.name)
        else:
            remove(self._viewer.layers, self._all())
        if masks is not None:
            for event in (masks.events.paint, masks.events.data):
                event.disconnect(self._on_edit)
        self._source, self._images, self._masks, self._edited = None, (), None, False
        return stays
