"""The image of one row of opened results in the viewer, with the masks that the run wrote."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from napari_milcnn.errors import ResultsError
from napari_milcnn.images.lazy_array import scratch_array
from napari_milcnn.plugin.classify.image_state import ImageState
from napari_milcnn.plugin.classify.layer_writer import LayerWriter
from napari_milcnn.plugin.results_to_layers import label_numbers, limits_of, mask_layer

if TYPE_CHECKING:
    from napari.viewer import Viewer

    from napari_milcnn.images.stack import ImageStack, PlaneIndex
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
    file = str(found.table["file"].iat[row])
    path = found.files[file]
    if path is None:
        raise ResultsError(f"{file} was not found; click Images… to choose the folder of the images")
    image = found.reading.open(path)
    at = found.plane_of(row)
    if at is not None and at not in image.planes:
        raise ResultsError(f"{path} has no plane {' '.join(map(str, at))}; it is not the image that was classified")
    plane = len(image.planes) // 2 if at is None else image.planes.index(at)
    yield OpenStep(path, plane, image, limits_of(image))
    _, masks = found.names_of(row)
    if masks is not None and found.objects is not None:
        yield from _masks(found, file, masks, image, OpenStep(path, plane))


def _masks(found: OpenedResults, file: str, masks: Path, image: ImageStack, step: OpenStep) -> Iterator[OpenStep]:
    from napari_milcnn.images.open import open_image

    assert found.objects is not None
    rows = found.objects[(found.objects["file"] == file) & found.objects["shown"]]
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
            plane = stored.plane(number, (0,))[0]
            count = int(plane.max(initial=0))
            numbers = np.zeros(count + 1, labels.dtype)
            table = own[own["label"] <= count]
            index = label_numbers(table["label"].to_numpy(), list(table["class"]), found.classes, start)
            numbers[table["label"]] = index
            labels[number] = numbers[plane]
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

    Parameters
    ----------
    viewer : Viewer
        Used only in the window's thread.
    """

    def __init__(self, viewer: Viewer) -> None:
        self.writer = LayerWriter(viewer)
        self._entry: ImageState | None = None

    def shows(self, path: Path) -> bool:
        """Whether the viewer shows the image of this path."""
        entry, layers = self._entry, self.writer.viewer.layers
        return entry is not None and entry.path == path and all(layer in layers for layer in entry.layers)

    def go_to(self, plane: int) -> None:
        """Show a plane of the opened image."""
        assert self._entry is not None
        self.writer.go_to(self._entry, plane)

    def planes(self) -> tuple[Any, ...]:
        """Return the planes of the opened image."""
        assert self._entry is not None
        assert self._entry.source is not None
        return self._entry.source.image.planes

    def plane_in_view(self) -> PlaneIndex | None:
        """Return the plane of the opened image at the sliders; None if no image is shown, or nothing of it there."""
        entry, dims = self._entry, self.writer.viewer.dims
        if entry is None or entry.source is None or entry.path is None or not self.shows(entry.path):
            return None
        number = entry.source.plane_at(dims.point, getattr(dims, "units", None))
        return None if number is None else entry.source.image.planes[number]

    def take(self, step: OpenStep, classes: tuple[str, ...]) -> None:
        """Show the result of a step; an image replaces the image before."""
        if step.image is not None:
            self.clear()
            self._entry = ImageState(step.image.name, path=step.path)
            self.writer.open(self._entry, step.image, step.limits)
            self.writer.go_to(self._entry, step.plane)
        if step.labels is not None and step.objects is not None and self.shows(step.path):
            assert self._entry is not None
            assert self._entry.source is not None
            data = mask_layer(self._entry.source, step.labels, step.objects, classes)
            self._entry.labels = step.labels
            self.writer.put(self._entry, data)

    def clear(self) -> None:
        """Remove the layers of the image that was opened last."""
        if self._entry is None:
            return
        layers = self.writer.viewer.layers
        for layer in (self.writer.masks_of(self._entry), *self._entry.layers):
            if layer is not None and layer in layers:
                layers.remove(layer)
        self.writer.let_go(self._entry)
        self._entry = None
