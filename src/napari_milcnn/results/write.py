"""Tables, label images, class maps and the run record on disk.

Every file is written beside its name and moved into place, so that a crash leaves the old one or the new one.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from napari_milcnn.atomic_write import replacing
from napari_milcnn.errors import OutputError
from napari_milcnn.figures.palette import class_colours
from napari_milcnn.images.lazy_array import scratch_array
from napari_milcnn.images.stack import ImageStack, PlaneIndex
from napari_milcnn.images.write import LabelsAxis, LabelsImage, Pages, write_labels_ome_zarr, write_ome_tiff
from napari_milcnn.inference.masks import PlaneMasks, class_image
from napari_milcnn.inference.predict import Prediction
from napari_milcnn.options import MasksAs
from napari_milcnn.schema import OBJECT_COLUMNS, PLANE_COLUMNS

_FIGURES = "%.6g"
_ELSEWHERE = "choose another folder"
OBJECT_ROW = ["file", *PLANE_COLUMNS, *OBJECT_COLUMNS]
"""Columns of objects.csv."""


class ImageFiles(NamedTuple):
    """Names of the files that one image gives; None where one was not asked for."""

    labels: Path | None
    maps: Path
    overview: Path


def image_files(out: Path, name: str, masks_as: MasksAs | None) -> ImageFiles:
    """Name the files of one image in the folder `out`; no label image for None."""
    ending = {"tiff": ".ome.tif", "zarr": ".ome.zarr"}
    labels = out / f"{name}_labels{ending[masks_as]}" if masks_as is not None else None
    return ImageFiles(labels, out / f"{name}_maps.ome.tif", out / f"{name}_overview.png")


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a table as CSV, whole or not at all."""
    with replacing(path) as draft:
        table.to_csv(draft, index=False, float_format=_FIGURES)


class ResultTables:
    """predictions.csv and objects.csv of a folder: rows of images that are classified again are replaced, others stay.

    Parameters
    ----------
    out : Path
        The folder.
    masks : bool
        Whether there are objects to write; objects.csv is left as it is otherwise.

    Raises
    ------
    OutputError
        If the folder has other tables of these names.
    """

    def __init__(self, out: Path, masks: bool) -> None:
        self._predictions, self._objects = out / "predictions.csv", out / "objects.csv"
        self._before = _read_table(self._predictions, "name")
        self._objects_before = _read_table(self._objects, "class")
        self._masks = masks
        self._images: dict[str, tuple[str, pd.DataFrame, pd.DataFrame]] = {}

    @property
    def names(self) -> frozenset[str]:
        """Names of the images whose rows were taken."""
        return frozenset(self._images)

    def put(self, file: str, name: str, rows: pd.DataFrame, objects: pd.DataFrame) -> None:
        """Take the rows of one image, in place of those that the folder has of its name.

        Where it failed altogether, what the folder has of it stays beside the row that says so.
        """
        self._images[name] = (file, rows, objects)  # one step: whenever the run is interrupted, tables agree

    def write(self) -> list[Path]:
        """Write both tables, and return their paths."""
        classified = {name: file for name, (file, rows, _) in self._images.items() if "top" in rows}
        rows = [one for _, one, _ in self._images.values()] or [pd.DataFrame(columns=["file", "name", "error"])]
        _write_behind(self._predictions, self._before[~self._replaced(classified)], rows)
        if not self._masks:
            return [self._predictions]
        files = {*classified.values(), *self._before["file"][self._before["name"].isin(classified)]}
        kept = self._objects_before[~self._objects_before["file"].isin(files)]
        objects = [one for _, _, one in self._images.values()] or [pd.DataFrame(columns=OBJECT_ROW)]
        _write_behind(self._objects, kept, objects)
        return [self._predictions, self._objects]

    def _replaced(self, classified: Collection[str]) -> pd.Series:
        """Tell which rows of the folder go: those of images classified now, and old failures of those that failed."""
        failed = self._before["name"].isin(self.names)
        failed &= self._before["error"] != "" if "error" in self._before else False
        return self._before["name"].isin(classified) | failed


def _read_table(path: Path, column: str) -> pd.DataFrame:
    """Read a table with the columns file and `column` as text, cell for cell; an empty one where there is none."""
    if not path.exists():
        return pd.DataFrame(columns=["file", column])
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise OutputError(f"{path} cannot be read ({error}), and would be overwritten; {_ELSEWHERE}") from error
    missing = [repr(name) for name in ("file", column) if name not in table]
    if missing:
        raise OutputError(
            f"{path} has no column {' and '.join(missing)}: it is another table, which would be overwritten; "
            f"{_ELSEWHERE}"
        )
    return table


def _write_behind(path: Path, kept: pd.DataFrame, tables: Sequence[pd.DataFrame]) -> None:
    """Write tables behind the rows that are kept of the one there; what a row lacks stays empty."""
    widest = max((list(table) for table in tables), key=len)
    new = pd.DataFrame([row for table in tables for row in table.to_dict("records")], columns=widest)
    if len(kept):
        text = new.to_csv(index=False, float_format=_FIGURES)
        new = pd.concat([kept, pd.read_csv(StringIO(text), dtype=str, keep_default_na=False)], ignore_index=True)
        new = new.fillna("")
        widest = list(dict.fromkeys([*widest, *new]))
    last = [name for name in ("warnings", "error") if name in widest]
    write_table(path, new[[name for name in widest if name not in last] + last])


def prediction_rows(file: str, name: str, prediction: Prediction) -> pd.DataFrame:
    """Rows of predictions.csv: one for each plane that was classified."""
    rows = prediction.table()
    rows.insert(0, "file", file)
    rows.insert(1, "name", name)
    return rows.assign(warnings="; ".join(prediction.warnings), error="")


def object_rows(file: str, objects: pd.DataFrame, planes: Sequence[PlaneIndex]) -> pd.DataFrame:
    """Rows of objects.csv: the number of the plane is replaced by file, position, t and z."""
    indices = pd.DataFrame(planes, columns=list(PLANE_COLUMNS))
    return objects.join(indices, on="plane").assign(file=file)[OBJECT_ROW]


def every_plane(prediction: Prediction, image: ImageStack) -> Prediction:
    """Spread class maps over all planes of the image, NaN where there are none."""
    if prediction.planes == image.planes:
        return prediction
    maps = np.full((len(image.planes), *prediction.class_maps.shape[1:]), np.nan, np.float32)
    maps[[image.planes.index(plane) for plane in prediction.planes]] = prediction.class_maps
    return replace(prediction, class_maps=maps, planes=image.planes)


def write_maps(path: Path, prediction: Prediction, pixel_size: float | None) -> None:
    """Write class maps as OME-TIFF, float32: one channel a class, one pixel an instance.

    The placement on the image, in image pixels, stands in the OME annotations.
    """
    placement = prediction.placement
    notes = {"stride_px": placement.stride, "first_y_px": placement.y, "first_x_px": placement.x}
    size = None if pixel_size is None else pixel_size * placement.stride
    write_ome_tiff(path, prediction.planes, prediction.class_maps, prediction.classes, size, notes)


def write_labels(path: Path, image: ImageStack, classes: Sequence[str], masks: Mapping[int, PlaneMasks]) -> None:
    """Write masks, by number of the plane, as OME-TIFF, uint32; planes without masks are empty.

    Channel `objects` numbers the objects of a plane as objects.csv does; channel `classes` holds the class of each
    pixel, whose names stand in the OME annotations: class_1 is the first.
    """
    nothing = np.zeros((2, *image.plane_shape), np.uint32)

    def pages() -> Iterator[np.ndarray]:
        for plane in range(len(image.planes)):
            found = masks.get(plane)
            if found is None:
                yield nothing
                continue
            shown = class_image(found.labels, found.objects, tuple(classes))
            yield np.stack([found.labels, shown]).astype(np.uint32)

    notes = {f"class_{i}": name for i, name in enumerate(classes, start=1)}
    write_ome_tiff(
        path, image.planes, Pages(pages(), image.plane_shape), ("objects", "classes"), image.pixel_size, notes
    )


def write_labels_zarr(path: Path, image: ImageStack, classes: Sequence[str], masks: Mapping[int, PlaneMasks]) -> None:
    """Write masks, by number of the plane, as an OME-Zarr label image; planes without masks are empty.

    The objects of each plane have their numbers of objects.csv. Their colours and their table are written with an image
    of one plane; of several planes the numbers repeat, and objects.csv alone tells which object is which.

    Raises
    ------
    LabelsError
        If the image has several positions, for which OME-Zarr has no axis.
    """
    letters = [axis for axis in image.axes if axis != "C"]
    unit = "" if image.pixel_size is None else "micrometer"
    axes = {axis: LabelsAxis(image.sizes[axis]) for axis in letters}
    axes |= {axis: LabelsAxis(image.sizes[axis], image.pixel_size or 1.0, unit=unit) for axis in "YX"}
    labels = scratch_array((len(image.planes), *image.plane_shape), np.int32)
    for plane, found in masks.items():
        labels[plane] = found.labels
    tables = [one.objects for one in masks.values()] if len(image.planes) == 1 else []
    table = pd.concat(tables) if tables else pd.DataFrame({"label": [], "plane": []})
    colours = {name: (*bytes.fromhex(colour[1:]), 255) for name, colour in class_colours(classes).items()}
    write_labels_ome_zarr(path, LabelsImage(
        name=path.name.removesuffix(".ome.zarr"), data=labels.reshape([axes[axis].length for axis in letters]),
        axes=axes, classes=colours, features=table.drop(columns="plane").rename(columns={"label": "index"}),
    ))  # fmt: skip


def write_plane(path: Path, image: ImageStack, plane: int) -> None:
    """Write one plane of an image as OME-TIFF, with its channels and its pixel size."""
    pixels = image.plane(plane)[np.newaxis]  # (1, channels, Y, X)
    write_ome_tiff(path, image.planes[:1], pixels, image.channels, image.pixel_size, {})


def write_json(path: Path, record: Any) -> None:
    """Write a JSON document, whole or not at all."""
    with replacing(path) as draft:
        draft.write_text(json.dumps(record, indent=1, default=str), encoding="utf-8")
