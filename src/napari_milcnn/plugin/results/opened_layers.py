"""An image of opened results in the viewer, with the masks that the run wrote: one at a time."""

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
from napari_milcnn.plugin.classify.layer_writer import Picture
from napari_milcnn.plugin.results_to_layers import label_numbers, limits_of, mask_layer

if TYPE_CHECKING:
    from napari.viewer import Viewer

    from napari_milcnn.images.stack import ImageStack
    from napari_milcnn.results.opened import OpenedResults

_FACTS = ("class", "area_px", "area_um2", "mean_evidence", "score")


@dataclass(frozen=True)
class OpenStep:
    """How far an image is opened: the image first, then its masks.

    Attributes
    ----------
    path : Path
        The image.
    plane : int
        The number of the plane to go to.
    image : ImageStack or None
        The image, on the first step.
    limits : tuple or None
        Intensities that each channel is shown between.
    labels : ndarray or None
        Masks, int32 (planes, Y, X), numbered so that a number says the class.
    objects : DataFrame or None
        Their table; `index` is the number in `labels`.
    """

    path: Path
    plane: int
    image: ImageStack | None = None
    limits: tuple[tuple[float, float], ...] | None = None
    labels: np.ndarray | None = None
    objects: pd.DataFrame | None = None


def opening(found: OpenedResults, row: int) -> Iterator[OpenStep]:
    """Open the image of a row, then read its masks.

    Raises
    ------
    ResultsError
        If the image was not found, or is another one than was classified.
    ImageError
        If it cannot be read.
    """
    file = str(found.table["file"].iat[row])
    path = found.files[file]
    if path is None:
        raise ResultsError(f"{file} was not found; choose the folder of the images (Images…)")
    image = found.reading.open(path)
    at = found.plane_of(row)
    if at is not None and at not in image.planes:
        raise ResultsError(f"{path} has no plane {' '.join(map(str, at))}; it is another image than was classified")
    plane = len(image.planes) // 2 if at is None else image.planes.index(at)
    yield OpenStep(path, plane, image, limits_of(image))
    _, masks = found.names_of(row)
    if masks is not None and found.objects is not None:
        yield from _masks(found, file, masks, image, OpenStep(path, plane))


def _masks(found: OpenedResults, file: str, masks: Path, image: ImageStack, step: OpenStep) -> Iterator[OpenStep]:
    from napari_milcnn.images.open import open_image

    assert found.objects is not None
    rows = found.objects[found.objects["file"] == file]
    tables, start = [], 0
    with open_image(masks) as stored:
        if stored.plane_shape != image.plane_shape or len(stored.planes) != len(image.planes):
            raise ResultsError(f"{masks.name} is of another size than {step.path.name}; it belongs to another image")
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
    shown = ["index", "plane", "label", *(name for name in _FACTS if name in objects)]
    yield OpenStep(step.path, step.plane, labels=labels, objects=objects[shown])


class OpenedPicture:
    """What the viewer shows of opened results.

    Parameters
    ----------
    viewer : Viewer
        Touched in its own thread only.
    """

    def __init__(self, viewer: Viewer) -> None:
        self.picture = Picture(viewer)
        self._entry: ImageState | None = None

    def shows(self, path: Path) -> bool:
        """Whether the layers of an image are there."""
        entry, layers = self._entry, self.picture.viewer.layers
        return entry is not None and entry.path == path and all(layer in layers for layer in entry.layers)

    def go_to(self, plane: int) -> None:
        """Show a plane of the image that is there."""
        assert self._entry is not None
        self.picture.go_to(self._entry, plane)

    def planes(self) -> tuple[Any, ...]:
        """Return the planes of the image that is there."""
        assert self._entry is not None
        assert self._entry.source is not None
        return self._entry.source.image.planes

    def take(self, step: OpenStep, classes: tuple[str, ...]) -> None:
        """Show what was opened; an image takes the place of the one before."""
        if step.image is not None:
            self.clear()
            self._entry = ImageState(step.image.name, path=step.path)
            self.picture.open(self._entry, step.image, step.limits)
            self.picture.go_to(self._entry, step.plane)
        if step.labels is not None and step.objects is not None and self.shows(step.path):
            assert self._entry is not None
            assert self._entry.source is not None
            data = mask_layer(self._entry.source, step.labels, step.objects, classes)
            self._entry.labels = step.labels
            self.picture.put(self._entry, data)

    def clear(self) -> None:
        """Take away the layers of the image that was opened last."""
        if self._entry is None:
            return
        layers = self.picture.viewer.layers
        for layer in (self.picture.masks_of(self._entry), *self._entry.layers):
            if layer is not None and layer in layers:
                layers.remove(layer)
        self.picture.let_go(self._entry)
        self._entry = None
