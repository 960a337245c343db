"""Images and label images written to disk: OME-TIFF, and OME-Zarr for labels.

Decisions on planes of pixels:

- Every position is a series of its own, with the axes T Z C Y X. Pixels are compressed with zlib, losslessly.
- A file above 2 GiB is a BigTIFF.
- Facts of our own stand in a MapAnnotation of the namespace `napari-milcnn`, which other programs ignore.

Decisions on label images with classes, colours and a table of objects:

- Both files hold the label numbers as uint32, one plane after another, so that a label image may be larger than memory.
  The axes stand in the order of the format, whatever their order in the array; axes C and P of length 1 are left out.
- Lengths are written in µm and times in seconds. A scale whose unit is not known is written without one.
- OME-TIFF: one MapAnnotation of the namespace `napari-milcnn` names each class (`class_1` as in the label images of the
  command line), its colour (`class_1_colour`) and its objects (`class_1_objects`: "1-12 15"). The whole table of
  objects stands as CSV text in one CommentAnnotation of the namespace `napari-milcnn/features`. No second file is
  written, so that saving `cells.ome.tif` never touches a `cells.csv`. OME-TIFF cannot say where the first pixel stands.
- OME-Zarr: version 0.5 with a nearest-neighbour pyramid. Colours and table are the `colors` and `properties` of its
  `image-label`; classes and model stand beside the OME metadata under `napari-milcnn`. A folder that is not a label
  image is never replaced: the image that the labels were drawn on may have the same name.
- Labels inside an OME-Zarr image (`write_labels_into`) have the version of the image, 0.4 or 0.5. They are written
  whole before `labels` lists them, so that a reader sees all of them or none.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice, product
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import numpy as np
import pandas as pd
import tifffile

from napari_milcnn.atomic_write import cannot_write, replacing, replacing_folder
from napari_milcnn.errors import LabelsError, OutputError
from napari_milcnn.images.lazy_array import Array, ArrayLike, in_memory, thinned
from napari_milcnn.images.stack import PlaneIndex

NAMESPACE: Final = "napari-milcnn"
"""Name under which facts of our own stand in files."""
_LARGEST_PAGE: Final = 2**25
"""Pixels of a page above which it is written as tiles."""
_TILE: Final = 512
_LARGEST_TIFF: Final = 2**31
"""Bytes of pixels above which a file is a BigTIFF."""


class Pages:
    """Planes of one data type that are made one after another while they are written, each a page for each channel."""

    def __init__(
        self, pages: Iterator[Sequence[ArrayLike]], channels: int, plane_shape: tuple[int, int], dtype: type
    ) -> None:
        self.pages = pages
        self.dtype = np.dtype(dtype)
        self.shape = (-1, channels, *plane_shape)

    def __iter__(self) -> Iterator[Sequence[ArrayLike]]:
        return self.pages


def write_ome_tiff(
    path: Path,
    planes: Sequence[PlaneIndex],
    data: Array | Pages,
    channels: Sequence[str],
    pixel_size: float | None,
    notes: Mapping[str, object],
) -> None:
    """Write planes as one OME-TIFF, with a series for each position.

    Parameters
    ----------
    path
        The file; it is replaced once the new one is whole.
    planes
        Places of the planes: every combination of P, T and Z, with Z running fastest.
    data
        The pixels, (planes, channels, Y, X).
    channels
        One name per channel.
    pixel_size
        Side of a pixel along Y and X in µm; None where it is not known.
    notes
        Facts of our own, written as text.

    Raises
    ------
    OutputError
        The file cannot be written; one that was there before is left as it is.
    """
    positions, times, depths = (len(set(numbers)) for numbers in zip(*planes, strict=True))
    facts: dict[str, object] = {"Channel": {"Name": list(channels)}}
    if notes:
        facts["MapAnnotation"] = {"Namespace": NAMESPACE, **{key: str(value) for key, value in notes.items()}}
    if pixel_size is not None:
        facts |= {"PhysicalSizeX": pixel_size, "PhysicalSizeY": pixel_size}
        facts |= {"PhysicalSizeXUnit": "µm", "PhysicalSizeYUnit": "µm"}
    pages = (channel for plane in data for channel in plane)
    write_series(path, pages, (positions, times, depths, len(channels), *data.shape[-2:]), data.dtype, facts)


def write_series(
    path: Path,
    pages: Iterable[ArrayLike],
    shape: tuple[int, ...],
    dtype: np.dtype[np.generic],
    facts: Mapping[str, object],
) -> None:
    """Write pages one after another as an OME-TIFF, with a series for each position.

    Parameters
    ----------
    path
        The file; it is replaced once the new one is whole.
    pages
        Pages (Y, X): every combination of P, T, Z and C, with C running fastest. Large ones are read by rows and
        written as tiles, so that they may be larger than memory.
    shape
        Lengths of the axes (P, T, Z, C, Y, X).
    dtype
        Type of a pixel.
    facts
        Metadata of each series, as tifffile takes them.

    Raises
    ------
    OutputError
        The file cannot be written; one that was there before is left as it is.
    """
    positions, series = shape[0], shape[1:]
    large = math.prod(shape) * dtype.itemsize > _LARGEST_TIFF
    is_large = shape[-1] * shape[-2] > _LARGEST_PAGE
    per_page = math.prod(-(-side // _TILE) for side in shape[-2:]) if is_large else 1
    left = _tiles_of_pages(pages, dtype) if is_large else (np.ascontiguousarray(page[:, :], dtype) for page in pages)
    with replacing(path) as draft, tifffile.TiffWriter(draft, ome=True, bigtiff=large) as tiff:
        for _ in range(positions):
            tiff.write(
                islice(left, math.prod(series[:-2]) * per_page),
                shape=series,
                dtype=dtype,
                tile=(_TILE, _TILE) if is_large else None,
                compression="zlib",
                photometric="minisblack",
                metadata={"axes": "TZCYX", **facts},
            )


def _tiles_of_pages(pages: Iterable[ArrayLike], dtype: np.dtype[np.generic]) -> Iterator[Array]:
    """Cut pages (Y, X) into tiles, row by row; those at the ends may be smaller."""
    for page in pages:
        for top in range(0, page.shape[0], _TILE):
            rows = np.asarray(in_memory(page[top : top + _TILE, :]), dtype)
            for left in range(0, rows.shape[1], _TILE):
                yield np.ascontiguousarray(rows[:, left : left + _TILE])


Colour: TypeAlias = tuple[int, ...]
"""Red, green, blue and alpha, each from 0 to 255."""
_AXIS_TYPES: Final = {"T": "time", "C": "channel", "Z": "space", "Y": "space", "X": "space"}
_LARGEST_LABEL: Final = 2**32 - 1
_CHUNK: Final = 1024
"""Side of a chunk of OME-Zarr, in px."""
_SMALLEST_LEVEL: Final = 512
"""Side, in px, at which a pyramid ends."""


@dataclass(frozen=True)
class LabelsAxis:
    """One axis of a label image.

    Attributes
    ----------
    length
        In pixels, planes or channels.
    scale
        Size of a pixel, or step between two planes, in `unit`.
    first
        Where the first pixel stands, in `unit`.
    unit
        "micrometer", "second", or empty where it is not known.
    """

    length: int
    scale: float = 1.0
    first: float = 0.0
    unit: str = ""


@dataclass(frozen=True, eq=False)
class LabelsImage:
    """A label image and all that is written with it.

    Attributes
    ----------
    name
        What the image is called in the file.
    data
        Label numbers, 0 for background: a numpy, dask or zarr array, or another that is sliced. It is read plane by
        plane, by rows where it becomes OME-Zarr.
    axes
        Letter out of P T C Z Y X -> axis, in the order of `data`.
    classes
        Class -> its colour.
    features
        One row per object, with its label number in the column `index` and its class, where known, in the column
        `class`; empty where there is no table.
    colours
        Label number -> its colour, where objects have colours of their own.
    model
        Facts about the model that the labels come from; empty where none did.
    """

    name: str
    data: ArrayLike
    axes: Mapping[str, LabelsAxis]
    classes: Mapping[str, Colour] = field(default_factory=dict)
    features: pd.DataFrame = field(default_factory=lambda: pd.DataFrame({"index": []}))
    colours: Mapping[int, Colour] = field(default_factory=dict)
    model: Mapping[str, object] = field(default_factory=dict)

    def lengths(self, letters: str) -> tuple[int, ...]:
        """Return the length of each of some axes, 1 where the image does not have the axis."""
        return tuple(self.axes[letter].length if letter in self.axes else 1 for letter in letters)

    def planes(self, order: str) -> Iterator[tuple[tuple[int, ...], Array]]:
        """Read one plane after another.

        Parameters
        ----------
        order
            Axes other than Y and X; the last one runs fastest.

        Yields
        ------
        tuple
            The place of the plane along these axes, and its label numbers, uint32 (Y, X).

        Raises
        ------
        LabelsError
            The plane holds values that are not label numbers.
        """
        for at, _, plane in self.strips(order, self.lengths("Y")[0]):
            yield at, plane

    def strips(self, order: str, rows: int) -> Iterator[tuple[tuple[int, ...], int, Array]]:
        """Read some rows of a plane at a time, plane after plane.

        Yields
        ------
        tuple
            The place of the plane along the axes of `order`, the first row, and the label numbers, uint32 (rows, X).

        Raises
        ------
        LabelsError
            As `planes`.
        """
        upright = [letter for letter in self.axes if letter in "YX"] == ["Y", "X"]
        (height,) = self.lengths("Y")
        for at in product(*(range(length) for length in self.lengths(order))):
            for top in range(0, height, rows):
                places: dict[str, int | slice] = {"X": slice(None), "Y": slice(top, min(top + rows, height))}
                places |= dict(zip(order, at, strict=True))
                found = in_memory(self.data[tuple(places[letter] for letter in self.axes)])
                yield at, top, _label_numbers(found if upright else found.T, self.name)


def _label_numbers(plane: Array, name: str) -> Array:
    """Return a plane as uint32 in one block of memory; refuse values that are not label numbers."""
    if plane.dtype.kind not in "bui":
        raise LabelsError(f"{name} holds {plane.dtype} values; label numbers are whole numbers: convert them first")
    low, high = int(plane.min()), int(plane.max())
    if low < 0 or high > _LARGEST_LABEL:
        wrong = low if low < 0 else high
        raise LabelsError(f"{name} holds the label {wrong}; expected 0 to {_LARGEST_LABEL}: number the objects anew, "
                          "for example with skimage.segmentation.relabel_sequential")  # fmt: skip
    return np.ascontiguousarray(plane, np.uint32)


def write_labels_ome_tiff(path: Path, labels: LabelsImage) -> None:
    """Write a label image as OME-TIFF.

    Raises
    ------
    LabelsError
        A value is not a label number.
    OutputError
        The file cannot be written; one that was there before is left as it is.
    """
    pages = (plane for _, plane in labels.planes("PTZC"))
    write_series(path, pages, labels.lengths("PTZCYX"), np.dtype(np.uint32), _series_facts(labels))


def _series_facts(labels: LabelsImage) -> dict[str, object]:
    """Return the metadata of one series, as tifffile takes them."""
    (channels,) = labels.lengths("C")
    facts: dict[str, object] = {
        "Name": labels.name,
        "Channel": {"Name": ["labels"] if channels == 1 else [f"labels {i}" for i in range(channels)]},
        "MapAnnotation": {"Namespace": NAMESPACE, **_class_notes(labels)},
    }
    if not labels.features.empty:
        table = labels.features.to_csv(index=False, lineterminator="\n")
        facts["CommentAnnotation"] = {"Namespace": f"{NAMESPACE}/features", "Value": table}
    for letter in "ZYX":
        if letter in labels.axes:
            axis = labels.axes[letter]
            unit = "µm" if axis.unit else "pixel"
            facts |= {f"PhysicalSize{letter}": abs(axis.scale), f"PhysicalSize{letter}Unit": unit}
    if "T" in labels.axes and labels.axes["T"].unit:
        facts |= {"TimeIncrement": labels.axes["T"].scale, "TimeIncrementUnit": "s"}
    return facts


def _class_notes(labels: LabelsImage) -> dict[str, str]:
    """Return each class with its colour and its objects, and the model."""
    notes: dict[str, str] = {"kind": "labels"}
    for i, (name, colour) in enumerate(labels.classes.items(), start=1):
        notes |= {f"class_{i}": name, f"class_{i}_colour": f"#{bytes(colour[:3]).hex()}"}
        if "class" in labels.features:
            objects = labels.features["index"][labels.features["class"].astype(str) == name]
            notes[f"class_{i}_objects"] = number_ranges(objects.astype(int))
    if labels.model:
        notes["model"] = json.dumps(labels.model, default=str)
    return notes


def number_ranges(numbers: Iterable[int]) -> str:
    """Write whole numbers in short: "1-12 15"."""
    runs: list[list[int]] = []
    for number in sorted(set(numbers)):
        if runs and number == runs[-1][-1] + 1:
            runs[-1][1:] = [number]
        else:
            runs.append([number])
    return " ".join("-".join(map(str, run)) for run in runs)


ZarrVersion: TypeAlias = Literal["0.4", "0.5"]
"""Versions of OME-Zarr that are written."""


def write_labels_ome_zarr(path: Path, labels: LabelsImage, version: ZarrVersion = "0.5") -> None:
    """Write a label image as OME-Zarr.

    Raises
    ------
    LabelsError
        A value is not a label number, or the image has several positions, for which OME-Zarr has no axis.
    OutputError
        The folder cannot be written, or holds something other than a label image; it is left as it is.
    """
    _check_replaceable(path)
    (positions,) = labels.lengths("P")
    if positions != 1:
        raise LabelsError(f"{labels.name} has {positions} positions, which OME-Zarr has no axis for; save it as "
                          ".ome.tif, or one position at a time")  # fmt: skip
    with replacing_folder(path) as draft:
        _write_pyramid(draft, labels, version)


def write_labels_into(image: Path, labels: LabelsImage) -> Path:
    """Write a label image into an OME-Zarr image, as one of its labels, and return its folder.

    Labels of the same name that this program wrote before are replaced; other labels stay as they are.

    Raises
    ------
    LabelsError
        A value is not a label number, or the image has several positions.
    OutputError
        The image is not a folder of version 0.4 or 0.5, cannot be written, or has other labels of this name.
    """
    import zarr

    version = labels_version(image)
    if version is None:
        raise OutputError(f"{image} takes no labels: expected an OME-Zarr image of version 0.4 or 0.5 in a folder")
    path = image / "labels" / labels.name
    if path.exists() and NAMESPACE not in _attributes_on_disk(path):
        raise OutputError(f"{path} holds labels of another program; rename or remove them first")
    write_labels_ome_zarr(path, labels, version)
    try:
        group = zarr.open_group(image / "labels", mode="a", zarr_format=2 if version == "0.4" else 3)
        ome: Any = dict(group.attrs) if version == "0.4" else dict(_ome_part(dict(group.attrs)))
        listed = [*(name for name in ome.get("labels", []) if name != labels.name), labels.name]
        found = ome | {"labels": listed}
        group.attrs.update(found if version == "0.4" else {"ome": found | {"version": version}})
    except OSError as error:
        raise cannot_write(path, error) from error
    return path


def labels_version(image: Path) -> ZarrVersion | None:
    """Return the version in which labels can be written into an OME-Zarr image; None where they cannot."""
    attributes = _attributes_on_disk(image)
    if "multiscales" in attributes:
        return "0.4"
    return "0.5" if str(_ome_part(attributes).get("version")) == "0.5" else None


def _attributes_on_disk(path: Path) -> dict[str, object]:
    """Return the attributes of a zarr group in a folder; none where it is not one."""
    try:
        found = json.loads((path / "zarr.json").read_text(encoding="utf-8"))["attributes"]
    except FileNotFoundError:
        try:
            found = json.loads((path / ".zattrs").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
    except (OSError, ValueError, LookupError, TypeError):
        return {}
    return found if isinstance(found, dict) else {}


def _ome_part(attributes: Mapping[str, object]) -> Mapping[str, object]:
    """Return what stands under "ome", as from version 0.5."""
    ome = attributes.get("ome")
    return ome if isinstance(ome, Mapping) else {}


def _check_replaceable(path: Path) -> None:
    if not path.exists():
        return
    attributes = _attributes_on_disk(path)
    if "image-label" not in attributes and "image-label" not in _ome_part(attributes):
        raise OutputError(f"{path} exists already and is not a label image; choose another name, or remove it first")


def _write_pyramid(folder: Path, labels: LabelsImage, version: ZarrVersion) -> None:
    import zarr

    letters = "".join(each for each in "TCZYX" if each in labels.axes and (each != "C" or labels.lengths("C") != (1,)))
    height, width = labels.lengths("YX")
    factors = [2**i for i in range(1 + max(0, math.ceil(math.log2(max(height, width) / _SMALLEST_LEVEL))))]
    attributes = _group_attributes(labels, letters, factors, version)
    own: Any = (
        {"dimension_names": list(letters.lower())} if version == "0.5"
        else {"chunk_key_encoding": {"name": "v2", "separator": "/"}}
    )  # fmt: skip
    group = zarr.create_group(str(folder), zarr_format=3 if version == "0.5" else 2, attributes=attributes)
    outer = letters[:-2]
    levels = [
        group.create_array(
            str(i),
            shape=(*labels.lengths(outer), -(-height // factor), -(-width // factor)),
            chunks=(*(1 for _ in outer), *(min(_CHUNK, -(-side // factor)) for side in (height, width))),
            dtype=np.uint32,
            **own,
        )
        for i, factor in enumerate(factors)
    ]
    for at, top, rows in labels.strips("PTCZ", _CHUNK):
        place: tuple[int, ...] = tuple(number for letter, number in zip("PTCZ", at, strict=True) if letter in outer)
        for level, factor in zip(levels, factors, strict=True):
            first, own = thinned(rows, top, factor)
            key: tuple[int | slice, ...] = (*place, slice(first, first + len(own)))
            level[key] = own


def _group_attributes(
    labels: LabelsImage, letters: str, factors: Sequence[int], version: ZarrVersion
) -> dict[str, object]:
    axes = [{"name": letter.lower(), "type": _AXIS_TYPES[letter]} for letter in letters]
    for letter, axis in zip(letters, axes, strict=True):
        axis |= {"unit": labels.axes[letter].unit} if labels.axes[letter].unit else {}
    levels = list(_level_attributes(labels, letters, factors))
    scales = {"name": labels.name, "axes": axes, "datasets": levels, "type": "nearest"}
    own = {NAMESPACE: {"classes": list(labels.classes), "model": json.loads(json.dumps(labels.model, default=str))}}
    if version == "0.4":
        label: dict[str, object] = {"version": version, **_image_label(labels)}
        return {"multiscales": [{"version": version, **scales}], "image-label": label, **own}
    return {"ome": {"version": version, "multiscales": [scales], "image-label": _image_label(labels)}, **own}


def _level_attributes(labels: LabelsImage, letters: str, factors: Sequence[int]) -> Iterator[dict[str, object]]:
    """Describe each level: it begins with the first pixel of the image and holds every second, fourth, ... one."""
    for i, factor in enumerate(factors):
        scale = [labels.axes[letter].scale * (factor if letter in "YX" else 1) for letter in letters]
        transforms: list[dict[str, object]] = [{"type": "scale", "scale": scale}]
        first = [labels.axes[letter].first for letter in letters]
        if any(first):
            transforms.append({"type": "translation", "translation": first})
        yield {"path": str(i), "coordinateTransformations": transforms}


def _image_label(labels: LabelsImage) -> dict[str, object]:
    """Return colours and properties of the objects; napari-ome-zarr makes `label-value` the column `index` again."""
    colours = {number: colour for number, colour in labels.colours.items() if number >= 0}
    if not colours and "class" in labels.features:
        rows = zip(labels.features["index"], labels.features["class"].astype(str), strict=True)
        colours = {int(number): labels.classes[name] for number, name in rows if name in labels.classes}
    found: dict[str, object] = {}
    if colours:
        found["colors"] = [{"label-value": number, "rgba": list(colour)} for number, colour in colours.items()]
    if not labels.features.empty:
        rows = json.loads(labels.features.to_json(orient="records", double_precision=15))
        found["properties"] = [{"label-value": int(row.pop("index")), **row} for row in rows]
    return found
