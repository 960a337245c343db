"""Tables, label images, class maps and the run record on disk.

Every file is written beside its name and moved into place, so that a crash leaves the old one or the new one.
"""

from __future__ import annotations

import json
import platform
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from io import StringIO
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import tifffile

from napari_milcnn.atomic_write import replacing
from napari_milcnn.errors import OutputError
from napari_milcnn.images.stack import AS_THEY_SAY, ImageReading, ImageStack, PlaneIndex
from napari_milcnn.inference.evidence import EvidenceMaker
from napari_milcnn.inference.masks import COLUMNS, PlaneMasks, class_image
from napari_milcnn.inference.predict import Prediction
from napari_milcnn.options import MaskOptions

RECORD_FORMAT = 2
"""Of run.json; raised by one when a program that reads the old one would run something else."""
_FIGURES = "%.6g"
_ELSEWHERE = "choose another folder"
_LONGEST_NAME = 150
"""Characters of an image's name that its files keep; file systems end at 255 with our suffixes."""
_PACKAGES = ("napari-milcnn", "torch", "numpy", "scikit-image", "tifffile", "zarr")


class ImageFiles(NamedTuple):
    """Names of the files that one image gives; None where one was not asked for."""

    labels: Path | None
    maps: Path
    overview: Path


def image_files(out: Path, name: str, masks: bool) -> ImageFiles:
    """Name the files of one image in the folder `out`."""
    labels = out / f"{name}_labels.ome.tif" if masks else None
    return ImageFiles(labels, out / f"{name}_maps.ome.tif", out / f"{name}_overview.png")


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a table as CSV, whole or not at all."""
    with replacing(path) as draft:
        table.to_csv(draft, index=False, float_format=_FIGURES)


def read_table(path: Path, column: str) -> pd.DataFrame:
    """Read a table with the columns file and `column` as text, cell for cell; an empty one where there is none.

    Raises
    ------
    OutputError
        If it is no such table.
    """
    if not path.exists():
        return pd.DataFrame(columns=["file", column])
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise OutputError(f"{path} cannot be read ({error}), and would be overwritten; {_ELSEWHERE}") from error
    if not {"file", column} <= set(table):
        raise OutputError(
            f"{path} lacks the column file or {column}: it is another table, which would be overwritten; {_ELSEWHERE}"
        )
    return table


def write_beside(path: Path, kept: pd.DataFrame, table: pd.DataFrame) -> None:
    """Write a table behind the rows that are kept of the one there; what a row lacks stays empty."""
    new = pd.read_csv(StringIO(table.to_csv(index=False, float_format=_FIGURES)), dtype=str, keep_default_na=False)
    both = pd.concat([kept, new], ignore_index=True).fillna("")
    last = [name for name in ("warnings", "error") if name in both]
    columns = dict.fromkeys([*new, *both])
    write_table(path, both[[name for name in columns if name not in last] + last])


OBJECT_COLUMNS = [
    "file", "position", "t", "z", "label", "class", "area_px", "area_um2", "y", "x", "mean_evidence", "score",
]  # fmt: skip
"""Of objects.csv."""


def prediction_rows(file: str, name: str, prediction: Prediction) -> pd.DataFrame:
    """Rows of predictions.csv: one for each plane that was classified."""
    rows = prediction.table()
    rows.insert(0, "file", file)
    rows.insert(1, "name", name)
    return rows.assign(warnings="; ".join(prediction.warnings), error="")


def object_rows(file: str, objects: pd.DataFrame, planes: Sequence[PlaneIndex]) -> pd.DataFrame:
    """Rows of objects.csv: the number of the plane is replaced by file, position, t and z."""
    indices = pd.DataFrame(planes, columns=["position", "t", "z"])
    return objects.join(indices, on="plane").assign(file=file)[OBJECT_COLUMNS]


OUTPUTS = ("_labels.ome.tif", "_maps.ome.tif", "_overview.png")
"""Ends of the names of our own files, passed over in folders of images."""


def no_masks(image: ImageStack) -> PlaneMasks:
    """Return the masks of a plane that was not looked at."""
    return PlaneMasks(np.zeros(image.plane_shape, np.int32), pd.DataFrame(columns=[*COLUMNS]), {})


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
    _write_ome(path, prediction.planes, prediction.class_maps, prediction.classes, size, notes)


def write_labels(
    path: Path, image: ImageStack, classes: Sequence[str], planes: Iterable[PlaneMasks]
) -> list[pd.DataFrame]:
    """Write masks as OME-TIFF, uint32, a plane at a time, and return the tables of objects.

    Channel `objects` numbers the objects of a plane as objects.csv does; channel `classes` holds the class of each
    pixel, whose names stand in the OME annotations: class_1 is the first.
    """
    tables: list[pd.DataFrame] = []

    def pages() -> Iterator[np.ndarray]:
        for plane in planes:
            tables.append(plane.objects)
            yield np.stack([plane.labels, class_image(plane.labels, plane.objects, tuple(classes))]).astype(np.uint32)

    notes = {f"class_{i}": name for i, name in enumerate(classes, start=1)}
    _write_ome(path, image.planes, _Pages(pages(), image.plane_shape), ("objects", "classes"), image.pixel_size, notes)
    return tables


def write_plane(path: Path, image: ImageStack, plane: int) -> None:
    """Write one plane of an image as OME-TIFF, with its channels and its pixel size."""
    pixels = image.plane(plane)[np.newaxis]  # (1, channels, Y, X)
    _write_ome(path, image.planes[:1], pixels, image.channels, image.pixel_size, {})


class _Pages:
    """Planes (channels, Y, X) that are made one after another while they are written."""

    dtype = np.dtype(np.uint32)

    def __init__(self, pages: Iterator[np.ndarray], plane_shape: tuple[int, int]) -> None:
        self.pages = pages
        self.shape = (-1, 2, *plane_shape)

    def __iter__(self) -> Iterator[np.ndarray]:
        return self.pages


def _write_ome(
    path: Path,
    planes: Sequence[PlaneIndex],
    data: np.ndarray | _Pages,
    channels: Sequence[str],
    pixel_size: float | None,
    notes: dict[str, Any],
) -> None:
    """Write planes (planes, channels, Y, X) as one OME-TIFF, a series for each position."""
    count = len({plane.position for plane in planes})
    times, depths = len({plane.t for plane in planes}), len({plane.z for plane in planes})
    pages = (channel for plane in data for channel in plane)
    facts: dict[str, Any] = {
        "axes": "TZCYX",
        "Channel": {"Name": list(channels)},
        "MapAnnotation": {"Namespace": "napari-milcnn", **{key: str(value) for key, value in notes.items()}},
    }
    if pixel_size is not None:
        facts |= {"PhysicalSizeX": pixel_size, "PhysicalSizeY": pixel_size}
        facts |= {"PhysicalSizeXUnit": "µm", "PhysicalSizeYUnit": "µm"}
    shape = (times, depths, len(channels), *data.shape[-2:])
    size = int(np.prod(shape)) * data.dtype.itemsize * count
    with replacing(path) as draft, tifffile.TiffWriter(draft, ome=True, bigtiff=size > 2**31) as tiff:
        for _ in range(count):
            part = _first(pages, times * depths * len(channels))
            tiff.write(
                part, shape=shape, dtype=data.dtype, compression="zlib", photometric="minisblack", metadata=facts
            )


def _first(pages: Iterator[np.ndarray], count: int) -> Iterator[np.ndarray]:
    for _ in range(count):
        yield np.ascontiguousarray(next(pages))


def screen_record(
    maker: EvidenceMaker,
    files: Sequence[Path | None],
    *,
    classes: Sequence[str],
    objects: Path | None = None,
    reading: ImageReading = AS_THEY_SAY,
    mask_options: MaskOptions | None = None,
    planes: Sequence[Sequence[int] | None] | None = None,
    names: Sequence[str] | None = None,
    command: Sequence[str] = (),
) -> dict[str, Any]:
    """Return all that `replay` needs to classify the same images again with the same numbers.

    Parameters
    ----------
    maker : EvidenceMaker
        What classified: its model, its options, and the precision that it came to.
    files : sequence of Path or None
        The images; None for one that was no file, which makes a record that cannot be run again.
    classes : sequence of str
        Classes whose masks were made.
    objects : Path, optional
        Label images of the user's own: one file, or a folder of them.
    reading : ImageReading
        How the files were opened.
    mask_options : MaskOptions, optional
        How masks were made; None where none were.
    planes : sequence, optional
        For each image the numbers of its planes that were classified, None where all were.
    names : sequence of str, optional
        What the files of each image are called; as `output_names` has it by default.
    command : sequence of str
        What was typed, if anything was.
    """
    model, choice = maker.model, maker.classifier.runner.choice
    precision = str(choice.precision).removeprefix("torch.")  # "auto" may come to another one the next time
    options = {
        "evidence": maker.options.model_dump() | {"precision": precision},
        "masks": None if mask_options is None else mask_options.model_dump(),
        "classes": list(classes),
        "objects": _absolute(objects),
        "reading": vars(reading),
    }
    return {
        "format": RECORD_FORMAT,
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": list(command),
        "model": {"path": _absolute(model.path), "name": model.card.name, "sha256": model.digest},
        "options": options,
        "versions": versions(),
        "device": str(choice),
        "files": [_absolute(file) for file in files],
        "names": output_names([file or Path("image") for file in files]) if names is None else list(names),
        "planes": [None if some is None else list(some) for some in planes or [None] * len(files)],
    }


def _absolute(path: Path | None) -> str | None:
    return None if path is None else str(path.absolute())


def versions() -> dict[str, str]:
    """Version of Python and of each package that a result depends on."""
    return {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}}


def write_json(path: Path, record: Any) -> None:
    """Write a JSON document, whole or not at all."""
    with replacing(path) as draft:
        draft.write_text(json.dumps(record, indent=1, default=str), encoding="utf-8")


def output_names(paths: Sequence[Path]) -> list[str]:
    """One name for each path: its own, with the folder's before it where two are alike, and a number if need be."""
    stems = [_stem(path) for path in paths]
    doubled = {stem for stem, count in Counter(stems).items() if count > 1}
    names: dict[str, None] = {}
    for path, stem in zip(paths, stems, strict=True):
        wanted = f"{path.parent.name}_{stem}".lstrip("_") if stem in doubled else stem
        tries = (wanted if number == 1 else f"{wanted}_{number}" for number in count(1))
        names[next(name for name in tries if name not in names)] = None
    return list(names)


def _stem(path: Path) -> str:
    """Name of a file without .ome.tif, .ome.zarr or its one suffix: dots before that are part of the name."""
    return printable(re.sub(r"\.ome$", "", path.stem, flags=re.IGNORECASE))[:_LONGEST_NAME]


def printable(text: object) -> str:
    """Return text whose undecodable bytes, as in file names of other systems, are written out."""
    return str(text).encode("utf-8", "backslashreplace").decode("utf-8").replace("\\udc", "_")
