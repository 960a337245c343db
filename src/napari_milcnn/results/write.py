"""Tables, label images, class maps and the run record on disk.

Each file is written under a temporary name and then moved into place, so a crash leaves the old file or the new one.
Only the tables of a classification grow row by row (`GrowingTable`).

Why the tables of a screen are written twice (`write_tables`): the CSV is for people and spreadsheets, and rounds to six
digits; the Parquet file is for programs, and keeps types, gaps and every digit. pyarrow, which writes it, is required
and not optional: results that differ from one installation to the next would be a trap.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow import parquet

from napari_milcnn.atomic_write import cannot_write, replacing
from napari_milcnn.errors import LabelsError, OutputError
from napari_milcnn.figures.palette import class_colours
from napari_milcnn.images.lazy_array import ArrayLike
from napari_milcnn.images.paths import printable
from napari_milcnn.images.stack import ImageStack, PlaneIndex
from napari_milcnn.images.write import LabelsAxis, LabelsImage, Pages, write_labels_ome_zarr, write_ome_tiff
from napari_milcnn.inference.masks import PlaneMasks, class_image, class_of_each
from napari_milcnn.inference.predict import Prediction
from napari_milcnn.inference.strips.rows import LookedUp
from napari_milcnn.options import MasksAs
from napari_milcnn.schema import OBJECT_COLUMNS, PLANE_COLUMNS, is_evidence, is_pooled, is_score
from napari_milcnn.untrusted import (
    LARGEST_JSON,
    check_regular,
    guarded_cell,
    parse_json,
    read_regular,
    unguarded_cell,
)

_FLOAT_FORMAT = "%.6g"
_ROW_GROUP = 1 << 16
"""Least number of rows that are written to a Parquet file at once; a reader loads so many at least."""
_MOST_DESCRIBED = 100_000
"""Objects above which an OME-Zarr label image holds no table: readers load all of it, as JSON, with the image."""
OBJECT_ROW = ["file", *PLANE_COLUMNS, *OBJECT_COLUMNS]
"""Columns of objects.csv, before those with the evidence for each class."""


class ImageFiles(NamedTuple):
    """Paths of the files that are written for one image; `labels` is None if it gets no label image."""

    labels: Path | None
    evidence: Path
    maps: Path
    overview: Path


def image_files(out: Path, name: str, masks_as: MasksAs | None) -> ImageFiles:
    """Return the paths of the files of one image in the folder `out`, without a label image if `masks_as` is None."""
    ending = {"tiff": ".ome.tif", "zarr": ".ome.zarr"}
    labels = out / f"{name}_labels{ending[masks_as]}" if masks_as is not None else None
    evidence, maps = (out / f"{name}_{part}.ome.tif" for part in ("evidence", "maps"))
    return ImageFiles(labels, evidence, maps, out / f"{name}_overview.png")


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a table as CSV; if this fails, a file that was there stays as it was.

    No spreadsheet runs a text in it as a formula: see `untrusted.guarded_cell`.
    """
    with replacing(path) as draft:
        with_each_text(table, guarded_cell).to_csv(draft, index=False, float_format=_FLOAT_FORMAT)


Pieces = Callable[[], Iterable[pd.DataFrame]]
"""Function that gives a large table piece by piece, from the beginning each time that it is called."""


def write_tables(stem: Path, table: pd.DataFrame | Pieces) -> tuple[Path, Path]:
    """Write a table twice, as STEM.csv and STEM.parquet; if this fails, files that were there stay as they were.

    Parameters
    ----------
    stem : Path
        Path of both files without their suffix.
    table : DataFrame or callable
        The table; its index is left out. A function that gives it piece by piece, twice, for a table that is larger
        than memory: pieces may lack columns, which then have gaps.

    Returns
    -------
    csv, parquet : Path
        The CSV, written as `write_table` does, and the Parquet file. In it a column holds whole numbers, numbers, True
        and False, times or text: text if its values are of several kinds.

    Raises
    ------
    OutputError
        If a file cannot be written.
    """
    pieces: Pieces = (lambda: (table,)) if isinstance(table, pd.DataFrame) else table
    schema = _common_schema(pieces())
    csv_path, parquet_path = (stem.with_name(f"{stem.name}.{kind}") for kind in ("csv", "parquet"))
    with replacing(csv_path) as csv_draft, replacing(parquet_path) as parquet_draft:
        with csv_draft.open("w", encoding="utf-8", newline="") as text:
            grouped = _row_groups(_written_as_csv(pieces(), schema, text), schema)
            with parquet.ParquetWriter(parquet_draft, schema, compression="zstd") as writer:
                for group in grouped:
                    writer.write_table(group)
    return csv_path, parquet_path


def _common_schema(pieces: Iterable[pd.DataFrame]) -> pa.Schema:
    """Return names and types of the columns of all pieces."""
    kinds: dict[str, set[pa.DataType]] = {}
    for piece in pieces:
        for name in piece:
            kinds.setdefault(str(name), set()).add(_arrow_kind(piece[name]))
    return pa.schema([(name, _common_kind(kinds[name])) for name in _once_each(kinds)])


def _arrow_kind(column: pd.Series) -> pa.DataType:
    """Return the type of a column; null where it holds nothing, and text where values are of several kinds."""
    try:
        kind = pa.Array.from_pandas(column).type
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return pa.string()
    simple = pa.types.is_primitive(kind) or pa.types.is_null(kind)
    return kind if simple else pa.string()


def _common_kind(kinds: set[pa.DataType]) -> pa.DataType:
    """Return the type that holds the values of columns of these types."""
    known = {kind for kind in kinds if not pa.types.is_null(kind)}
    if len(known) == 1:
        return next(iter(known))
    if known and all(pa.types.is_integer(kind) for kind in known):
        return pa.int64()
    if known and all(pa.types.is_integer(kind) or pa.types.is_floating(kind) for kind in known):
        return pa.float64()
    return pa.string()


def _written_as_csv(pieces: Iterable[pd.DataFrame], schema: pa.Schema, text: IO[str]) -> Iterator[pd.DataFrame]:
    """Write each piece as CSV with all columns, and pass it on."""
    empty = pd.DataFrame(columns=schema.names)
    with_each_text(empty, guarded_cell).to_csv(text, index=False)
    for piece in pieces:
        rows = with_each_text(piece.reindex(columns=schema.names), guarded_cell)
        rows.to_csv(text, index=False, header=False, float_format=_FLOAT_FORMAT)
        yield piece


def _row_groups(pieces: Iterable[pd.DataFrame], schema: pa.Schema) -> Iterator[pa.Table]:
    """Join pieces to groups of so many rows that the file can be read quickly."""
    waiting: list[pa.Table] = []
    for piece in pieces:
        waiting.append(_as_arrow(piece, schema))
        if sum(len(one) for one in waiting) >= _ROW_GROUP:
            yield pa.concat_tables(waiting)
            waiting = []
    if waiting:
        yield pa.concat_tables(waiting)


def _as_arrow(piece: pd.DataFrame, schema: pa.Schema) -> pa.Table:
    columns = [
        _arrow_column(piece[field.name], field.type) if field.name in piece else pa.nulls(len(piece), field.type)
        for field in schema
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def _arrow_column(column: pd.Series, kind: pa.DataType) -> pa.Array:
    if kind == pa.string() and not pd.api.types.is_string_dtype(column.dtype):
        values = [None if pd.isna(value) else str(value) for value in column]
        return pa.array(values, kind)
    return pa.Array.from_pandas(column, type=kind)


def with_each_text(table: pd.DataFrame, change: Callable[[str], str]) -> pd.DataFrame:
    """Return a table in which each text, and each name of a column, is changed; numbers and gaps stay."""
    columns: dict[str, pd.Series] = {}
    for name, kind in table.dtypes.items():
        if kind.kind not in "biufM":
            texts = [value for value in table[name].unique() if isinstance(value, str)]
            changes = {text: changed for text in texts if (changed := change(text)) != text}
            if changes:
                columns[str(name)] = table[name].map(lambda value, known=changes: known.get(value, value))
    return table.assign(**columns).rename(columns=lambda name: change(str(name)))


def whole_rows(content: bytes) -> bytes:
    """Return a CSV without what follows its last whole row, which a killed process may have left behind."""
    end = len(content)
    while end and (content[end - 1 : end] != b"\n" or content.count(b'"', 0, end) % 2):
        end = content.rfind(b"\n", 0, end - 1) + 1
    return content[:end]


class GrowingTable:
    """A CSV to which rows are appended; nothing that is there is written again, so each append is quick.

    Parameters
    ----------
    path : Path
        The CSV. It is made with the names of its columns if it does not exist.
    columns : sequence of str
        Columns of a new table. Rows with further columns add these, which writes the table anew.

    Raises
    ------
    OutputError
        If there is another table of this name, or if it cannot be read or written.
    """

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        self.path = path
        if not path.exists():
            write_table(path, pd.DataFrame(columns=list(columns)))
        self._columns = [str(name) for name in read_rows(path, columns[:1], rows=0)]

    def append(self, rows: pd.DataFrame) -> None:
        """Append some rows; if this fails, none of them is left in the table."""
        if rows.empty:
            return
        if not set(rows) <= set(self._columns):
            self._columns = _once_each([*map(str, rows), *self._columns])
            write_table(self.path, read_rows(self.path).reindex(columns=self._columns, fill_value=""))
        guarded = with_each_text(rows.reindex(columns=self._columns), guarded_cell)
        text = guarded.to_csv(index=False, header=False, float_format=_FLOAT_FORMAT)
        append_text(self.path, text)


def append_text(path: Path, text: str) -> None:
    """Append to a file; if this fails, nothing of the text is left in it.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    try:
        with path.open("r+b", buffering=0) as file:
            before = file.seek(0, os.SEEK_END)
            left = memoryview(text.encode())
            try:
                while left:
                    left = left[file.write(left) :]
            except OSError:
                file.truncate(before)
                raise
    except OSError as error:
        raise cannot_write(path, error) from error


def _once_each(columns: Iterable[str]) -> list[str]:
    """Return each column once, the warnings and the error last."""
    once = list(dict.fromkeys(columns))
    last = [name for name in ("warnings", "error") if name in once]
    return [name for name in once if name not in last] + last


def read_rows(path: Path, needed: Collection[str] = (), *, rows: int | None = None) -> pd.DataFrame:
    """Read a table of results that is to be changed, all cells as text; without a file, the table is empty.

    Raises
    ------
    OutputError
        If it cannot be read, or lacks a needed column: it would be overwritten.
    """
    if not path.exists():
        return pd.DataFrame(columns=list(needed))
    try:
        check_regular(path)
        found = pd.read_csv(path, dtype=str, keep_default_na=False, nrows=rows)
    except (OSError, ValueError) as error:
        raise OutputError(f"{path} cannot be read ({error}) and would be overwritten; choose another folder") from error
    table = with_each_text(found, unguarded_cell)
    missing = [repr(name) for name in needed if name not in table]
    if missing:
        raise OutputError(
            f"{path} has no column {' and no column '.join(missing)}: it is another table, which would be overwritten; "
            "choose another folder"
        )
    return table


def joined_rows(others: pd.DataFrame, new: pd.DataFrame) -> pd.DataFrame:
    """Return rows of text after other rows; columns of classes that have no value any more are left out."""
    every = pd.concat([others, new], ignore_index=True).fillna("")
    empty = [name for name in every if (is_score(name) or is_pooled(name) or is_evidence(name))
             and len(every) and (every[name] == "").all()]  # fmt: skip
    return every[[name for name in _once_each(map(str, [*new, *others])) if name not in empty]]


def prediction_rows(
    file: str, name: str, prediction: Prediction, counts: Sequence[Mapping[str, float]]
) -> pd.DataFrame:
    """Return the rows of predictions.csv for one image: one for each plane that was classified.

    `counts` has the counts of cells of each plane (`PlaneMasks.counts`).
    """
    warnings = printable("; ".join(prediction.notes))
    return pd.DataFrame({"file": file, "name": name, **prediction.table(), **pd.DataFrame(counts),
                         "warnings": warnings, "error": ""})  # fmt: skip


def object_rows(file: str, objects: pd.DataFrame, planes: Sequence[PlaneIndex]) -> pd.DataFrame:
    """Return the rows of objects.csv for one image: file, position, t and z replace the number of the plane."""
    indices = pd.DataFrame(planes, columns=list(PLANE_COLUMNS))
    others = [name for name in objects if name not in {"plane", *OBJECT_COLUMNS}]
    return objects.join(indices, on="plane").assign(file=file)[[*OBJECT_ROW, *others]]


def write_maps(path: Path, image: ImageStack, prediction: Prediction) -> None:
    """Write class maps as OME-TIFF, float32, with one channel per class and one pixel per instance.

    Planes that were not classified are NaN. The OME annotations hold the placement of the maps on the image, in image
    pixels.
    """
    placement, pixel_size = prediction.placement, image.pixel_size
    maps = dict(zip(prediction.planes, prediction.class_maps, strict=True))
    _, count, height, width = prediction.class_maps.shape
    nothing = np.broadcast_to(np.float32(np.nan), (count, height, width))
    pages = (maps.get(plane, nothing) for plane in image.planes)
    notes = {"stride_px": placement.stride, "first_y_px": placement.y, "first_x_px": placement.x}
    size = None if pixel_size is None else pixel_size * placement.stride
    data = Pages(pages, count, (height, width), np.float32)
    write_ome_tiff(path, image.planes, data, prediction.classes, size, notes)


def write_labels(path: Path, image: ImageStack, classes: Sequence[str], masks: Mapping[int, PlaneMasks]) -> None:
    """Write masks, by number of the plane, as OME-TIFF, uint32; planes without masks are empty.

    Channel `objects` holds the numbers that the objects of a plane have in objects.csv; channel `classes` holds the
    number of each pixel's class. The OME annotations hold the names of the classes; class_1 is the first.
    """
    nothing = [np.broadcast_to(np.uint32(0), image.plane_shape)] * 2

    def pages() -> Iterator[Sequence[ArrayLike]]:
        for plane in range(len(image.planes)):
            found = masks.get(plane)
            if found is None:
                yield nothing
            elif isinstance(found.labels, LookedUp):
                of_label = class_of_each(found.shown, tuple(classes), found.labels.largest)
                yield [found.labels, found.labels.mapped(of_label)]
            else:
                yield [found.labels, class_image(found.labels, found.shown, tuple(classes))]

    notes = {f"class_{i}": name for i, name in enumerate(classes, start=1)}
    write_ome_tiff(
        path,
        image.planes,
        Pages(pages(), 2, image.plane_shape, np.uint32),
        ("objects", "classes"),
        image.pixel_size,
        notes,
    )


def write_evidence(path: Path, image: ImageStack, evidence: Mapping[str, np.ndarray], notes: Mapping[str, str]) -> None:
    """Write evidence, class -> (planes, Y, X), as OME-TIFF, float32, with one channel per class.

    A class has NaN in the planes in which no evidence was made for it. `notes` stand in the OME annotations: the kind
    of evidence, and what else it depends on.
    """
    count = len(evidence)
    pages = ([maps[plane] for maps in evidence.values()] for plane in range(len(image.planes)))
    planes = Pages(pages, count, image.plane_shape, np.float32)
    write_ome_tiff(path, image.planes, planes, tuple(evidence), image.pixel_size, dict(notes))


def write_labels_zarr(path: Path, image: ImageStack, classes: Sequence[str], masks: Mapping[int, PlaneMasks]) -> None:
    """Write masks, by number of the plane, as an OME-Zarr label image; planes without masks are empty.

    The objects of each plane have the same numbers as in objects.csv. Only an image of one plane, of no more than
    `_MOST_DESCRIBED` objects, gets their colours and their table: in several planes the numbers repeat, and only
    objects.csv tells which object is which.

    Raises
    ------
    LabelsError
        If the image has several positions, for which OME-Zarr has no axis.
    """
    write_labels_ome_zarr(path, labels_of_masks(path.name.removesuffix(".ome.zarr"), image, classes, masks))


def labels_of_masks(
    name: str, image: ImageStack, classes: Sequence[str], masks: Mapping[int, PlaneMasks]
) -> LabelsImage:
    """Return masks, by number of the plane, as a label image; see `write_labels_zarr`.

    Raises
    ------
    LabelsError
        If the image has several positions, for which OME-Zarr has no axis.
    """
    if "P" in image.axes:
        raise LabelsError(
            f"the masks of {image.name} cannot be written as OME-Zarr, which has no axis for its "
            f"{image.sizes['P']} positions; choose OME-TIFF masks"
        )
    letters = [axis for axis in image.axes if axis != "C"]
    unit = "" if image.pixel_size is None else "micrometer"
    axes = {axis: LabelsAxis(image.sizes[axis]) for axis in letters}
    axes |= {axis: LabelsAxis(image.sizes[axis], image.pixel_size or 1.0, unit=unit) for axis in "YX"}
    tables = [one.shown.drop(columns="shown") for one in masks.values()] if len(image.planes) == 1 else []
    tables = tables if sum(map(len, tables)) <= _MOST_DESCRIBED else []
    table = pd.concat(tables) if tables else pd.DataFrame({"label": [], "plane": []})
    colours = {name: (*bytes.fromhex(colour[1:]), 255) for name, colour in class_colours(classes).items()}
    return LabelsImage(
        name=name, data=_LabelsOfPlanes([axes[axis].length for axis in letters], masks), axes=axes, classes=colours,
        features=table.drop(columns="plane").rename(columns={"label": "index"}),
    )  # fmt: skip


class _LabelsOfPlanes:
    """The labels of masks as one array (..., Y, X); planes without masks are empty, and only what is sliced is read."""

    def __init__(self, shape: Sequence[int], masks: Mapping[int, PlaneMasks]) -> None:
        self.shape, self.ndim, self.dtype = tuple(shape), len(shape), np.dtype(np.int32)
        self._masks = masks

    def __getitem__(self, key: tuple[int | slice, ...], /) -> np.ndarray:
        outer, window = [at for at in key[:-2] if not isinstance(at, slice)], key[-2:]
        plane = int(np.ravel_multi_index(outer, self.shape[:-2])) if outer else 0
        if plane not in self._masks:
            return np.broadcast_to(np.int32(0), self.shape[-2:])[window]
        return np.asarray(self._masks[plane].labels[window])


def write_plane(path: Path, image: ImageStack, plane: int) -> None:
    """Write one plane of an image as OME-TIFF with its channels and its pixel size."""
    pixels = image.plane(plane)[np.newaxis]  # (1, channels, Y, X)
    write_ome_tiff(path, image.planes[:1], pixels, image.channels, image.pixel_size, {})


def write_json(path: Path, document: object) -> None:
    """Write a JSON document; if this fails, a file that was there stays as it was."""
    with replacing(path) as draft:
        draft.write_text(json.dumps(document, indent=1, default=str), encoding="utf-8")


def read_json(path: Path) -> dict[str, object]:
    """Read a JSON object, such as a run record.

    Raises
    ------
    OSError
        If the file cannot be read, is too large, or is a pipe or a device.
    ValueError
        If it is not UTF-8 text, not JSON, or not a JSON object.
    """
    found = parse_json(read_regular(path, LARGEST_JSON))
    if not isinstance(found, dict):
        raise ValueError("it is not a JSON object")
    return found
