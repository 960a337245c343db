"""The image of one row of opened results in the viewer, with the masks that the run wrote."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pandas as pd

from napari_milcnn.errors import ResultsError
from napari_milcnn.images.lazy_array import scratch_array
from napari_milcnn.images.stack import Window, translated
from napari_milcnn.inference.strips.levels import Levels, as_dask, has_levels, stacked_sizes
from napari_milcnn.inference.strips.rows import strips
from napari_milcnn.plugin.layers_to_image import SourceReading, open_layers
from napari_milcnn.plugin.results_to_layers import (
    Limits,
    add_layer,
    image_layers,
    label_numbers,
    mask_layer,
    ready_to_show,
    remove,
    show_plane,
)

if TYPE_CHECKING:
    import dask.array as da
    from napari.components import ViewerModel
    from napari.layers import Image, Layer

    from napari_milcnn.images.stack import ImageStack, PlaneIndex
    from napari_milcnn.plugin.layers_to_image import LayerImage
    from napari_milcnn.results.opened import OpenedResults

_STORED_TILE = (1024, 1024)
"""Shape (Y, X) of what is read at once of a label image that is stored in several sizes, in px."""
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
    levels : Levels or None
        The image in several sizes, if it is large.
    labels : ndarray, list of dask array, or None
        Masks, int32 (planes, Y, X), in the last step; each number encodes the class as in `label_numbers`. Those of a
        large image are a list of several sizes, the full one first.
    objects : DataFrame or None
        The table of the objects; its column `index` is the number in `labels`.
    """

    path: Path
    plane: int
    image: ImageStack | None = None
    limits: Limits | None = None
    levels: Levels | None = None
    labels: np.ndarray | list[da.Array] | None = None
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
    yield OpenStep(path, plane, image, *ready_to_show(image, plane))
    _, masks = found.names_of(row)
    objects = None if masks is None else found.objects_of(row)
    if masks is not None and objects is not None:
        stored = _opened_masks(masks, image, path)
        read = _masks_in_sizes if has_levels(image.plane_shape) else _masks
        yield from read(objects, found.classes, stored, image, OpenStep(path, plane))


def _opened_masks(masks: Path, image: ImageStack, path: Path) -> ImageStack:
    """Open a label image of an image."""
    from napari_milcnn.images.open import open_image

    stored = open_image(masks)
    if stored.plane_shape != image.plane_shape or len(stored.planes) != len(image.planes):
        stored.close()
        raise ResultsError(
            f"{masks.name} has {_size_text(stored)}, but {path.name} has {_size_text(image)}; choose the folder of "
            "the images from which these results were made"
        )
    return stored


def _masks(
    rows: pd.DataFrame, classes: Sequence[str], stored: ImageStack, image: ImageStack, step: OpenStep
) -> Iterator[OpenStep]:
    """Read the masks of all planes, each object with the number that encodes its class."""
    tables, start = [], 0
    with stored:
        labels = scratch_array((len(image.planes), *image.plane_shape), np.int32)
        for number in range(len(image.planes)):
            parts, count = strips(image.plane_shape), 0
            for top, bottom in parts:
                found = stored.plane(number, (0,), Window(top, bottom, 0, image.plane_shape[1]))[0]
                labels[number, top:bottom], count = found, max(count, int(found.max(initial=0)))
            numbers, table = _numbered(rows, classes, image, number, start, count)
            for strip in parts:
                labels[number, strip.rows] = numbers[labels[number, strip.rows]]
            tables.append(table)
            start += count
            yield OpenStep(step.path, step.plane)
    yield OpenStep(step.path, step.plane, labels=labels, objects=_objects_shown(tables))


def _masks_in_sizes(
    rows: pd.DataFrame, classes: Sequence[str], stored: ImageStack, image: ImageStack, step: OpenStep
) -> Iterator[OpenStep]:
    """Read the masks of large planes in several sizes; each object gets its number where it is shown."""
    with ExitStack() as on_error:
        on_error.callback(stored.close)
        with translated(f"{stored.path}: the masks cannot be read"):
            sizes = _sizes_of(stored, step.plane)
        on_error.pop_all()
    planes, tables, start = [], [], 0
    for number in range(len(image.planes)):
        numbers, table = _numbered(rows, classes, image, number, start)
        planes.append([one[number].map_blocks(_looked_up, numbers, dtype=np.int32) for one in sizes])
        tables.append(table)
        start += len(numbers) - 1
    labels = stacked_sizes(planes)
    yield OpenStep(step.path, step.plane, labels=labels, objects=_objects_shown(tables))


def _sizes_of(stored: ImageStack, plane: int) -> list[da.Array]:
    """Return the first channel of a label image in several sizes, (planes, Y, X): as they are stored, or made."""
    import dask.array as da

    from napari_milcnn.images.open import open_image

    if stored.path is not None and (stored.path / "1").is_dir():  # a pyramid, as `write_labels_ome_zarr` writes it
        smaller = itertools.takewhile(Path.is_dir, (stored.path / str(number) for number in itertools.count(1)))
        kept = [stored, *(open_image(path) for path in smaller)]
        chunks = (*(1 for _ in stored.shape[:-2]), *_STORED_TILE)
        sizes = [as_dask(one.data, chunks) for one in kept]
    else:
        levels = Levels(stored.data)
        at = tuple(number for axis, number in zip("PTZ", stored.planes[plane], strict=True) if axis in stored.axes)
        levels.coarse((*at, 0) if "C" in stored.axes else at)
        sizes = levels.arrays()
    if "C" in stored.axes:
        sizes = [da.take(one, 0, stored.axes.index("C")) for one in sizes]
    return [one.reshape((-1, *one.shape[-2:])) for one in sizes]


def _looked_up(labels: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Return the number of each label; 0 for those that the table does not list."""
    return np.where(labels < len(numbers), numbers.take(labels, mode="clip"), 0)


def _numbered(
    rows: pd.DataFrame, classes: Sequence[str], image: ImageStack, plane: int, start: int, largest: int | None = None
) -> tuple[np.ndarray, pd.DataFrame]:
    """Return the number of each label of a plane (labels,), and the table of its objects with these numbers.

    `largest` is the largest label of the plane; by default that of the table.
    """
    at = image.planes[plane]
    own = rows[(rows["position"] == at.position) & (rows["t"] == at.t) & (rows["z"] == at.z)]
    largest = int(own["label"].max()) if largest is None and len(own) else largest or 0
    table = own[own["label"] <= largest]
    numbers = np.zeros(largest + 1, np.int32)
    index = label_numbers(table["label"].to_numpy(), list(table["class"]), classes, start)
    numbers[table["label"]] = index
    return numbers, table.assign(index=index, plane=plane)


def _objects_shown(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Return the table of all objects as a layer of masks takes it."""
    objects = pd.concat(tables, ignore_index=True)
    return objects[["index", "plane", "label", *(name for name in _OBJECT_COLUMNS if name in objects)]]


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

    def show_image(self, image: ImageStack, limits: Limits | None, levels: Levels | None, plane: int) -> None:
        """Add an image, one layer for each channel, and show one of its planes; see `OpenStep`."""
        added = [cast("Image", add_layer(self._viewer, data)) for data in image_layers(image, limits, levels)]
        reading = SourceReading(
            image.axes.replace("C", ""), tuple(image.channels), image.pixel_size, named=image.channels_named
        )
        self._images, self._source = tuple(added), open_layers(added, reading)
        show_plane(self._viewer, self._source, plane)

    def show_masks(self, labels: np.ndarray | list[da.Array], objects: pd.DataFrame, classes: tuple[str, ...]) -> None:
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
