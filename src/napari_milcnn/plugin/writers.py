"""Napari's writers of one labels layer: OME-TIFF and OME-Zarr that keep pixel size, classes, colours and the table.

Decisions:

- Both files hold the label numbers as uint32, one plane after another, so that a layer may be larger than memory. The
  axes stand in the order of the format, whatever their order in the layer; axes C and P of length 1 are left out. Axes
  without a name are Z; T and Z; T, C and Z, as many as there are.
- Lengths are written in µm and times in seconds. A scale whose unit is not known is written without one.
- OME-TIFF: one MapAnnotation of namespace `napari-milcnn` names each class (`class_1` as in the label images of the
  command line), its colour (`class_1_colour`) and its objects (`class_1_objects`: "1-12 15"); the whole table of
  features stands as CSV text in one CommentAnnotation of namespace `napari-milcnn/features`. No second file is written,
  so that saving `cells.ome.tif` never touches a `cells.csv`. OME-TIFF has no place for the layer's translation.
- OME-Zarr: version 0.5, nearest-neighbour pyramid. Colours and table are the `colors` and `properties` of its
  `image-label`; classes and model stand beside the OME metadata under `napari-milcnn`. What is no label image is never
  replaced: the image that the labels were drawn on may have the same name.
- Rotation and shear of a layer are not written.
"""

from __future__ import annotations

import json
import math
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, product
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from napari_milcnn.atomic_write import replacing, replacing_folder
from napari_milcnn.errors import LabelsError, OutputError
from napari_milcnn.figures.palette import class_colours
from napari_milcnn.images.units import MICROMETRES

_LETTERS: Final = {
    **dict.fromkeys(("p", "position"), "P"),
    **dict.fromkeys(("t", "time", "frame"), "T"),
    **dict.fromkeys(("c", "channel"), "C"),
    **dict.fromkeys(("z", "depth", "slice"), "Z"),
    **dict.fromkeys(("y", "row"), "Y"),
    **dict.fromkeys(("x", "column"), "X"),
}
_UNNAMED: Final = "ZTCP"
"""Letters that axes without a name get, the likeliest first."""
_SECONDS: Final = {
    **dict.fromkeys(("s", "sec", "second"), 1.0),
    **dict.fromkeys(("ms", "millisecond"), 1e-3),
    **dict.fromkeys(("min", "minute"), 60.0),
    **dict.fromkeys(("h", "hour"), 3600.0),
}
_TYPES: Final = {"T": "time", "C": "channel", "Z": "space", "Y": "space", "X": "space"}
_LARGEST_LABEL: Final = 2**32 - 1
_CHUNK: Final = 1024
_SMALLEST_LEVEL: Final = 512
"""Side, in px, at which a pyramid ends."""
_NAMESPACE: Final = "napari-milcnn"


@dataclass(frozen=True, eq=False)
class _Axis:
    """One axis of a layer.

    Attributes
    ----------
    length
        In pixels.
    scale, first
        Size of a pixel, and where the first one stands, in `unit`.
    unit
        micrometer, second, or empty where it is not known.
    """

    length: int
    scale: float
    first: float
    unit: str


@dataclass(frozen=True, eq=False)
class _Layer:
    """What is written of a labels layer.

    Attributes
    ----------
    data
        Label numbers; read plane by plane.
    axes
        Letter out of P T C Z Y X -> axis, in the order of `data`.
    classes
        Class -> colour as (red, green, blue, alpha) from 0 to 255.
    features
        One row per object with its label number in the column `index`; empty where the layer has no table.
    colours
        Label number -> colour, where the layer has its own.
    model
        Facts about the model that made the layer, if one did.
    """

    name: str
    data: Any
    axes: dict[str, _Axis]
    classes: dict[str, tuple[int, ...]]
    features: pd.DataFrame
    colours: dict[int, tuple[int, ...]]
    model: dict[str, Any]

    def lengths(self, letters: str) -> tuple[int, ...]:
        """Length of each of some axes, 1 where there is none."""
        return tuple(self.axes[letter].length if letter in self.axes else 1 for letter in letters)

    def planes(self, order: str) -> Iterator[tuple[tuple[int, ...], np.ndarray]]:
        """Read one plane after another, uint32 (Y, X), with its place along the axes `order`, the last one fastest."""
        for at in product(*(range(n) for n in self.lengths(order))):
            places = dict(zip(order, at, strict=True))
            key = tuple(slice(None) if letter in "YX" else places[letter] for letter in self.axes)
            plane = np.asarray(self.data[key])
            upright = [letter for letter in self.axes if letter in "YX"] == ["Y", "X"]
            yield at, _numbers(plane if upright else plane.T, self.name)


def write_ome_tiff(path: str, data: Any, meta: Mapping[str, Any]) -> list[str]:
    """Write a labels layer as OME-TIFF.

    Parameters
    ----------
    path : str
        Ends in .tif or .tiff; else .ome.tif is added.
    data : array
        Label numbers, two to six axes: numpy, dask, zarr, or the levels of a pyramid.
    meta : mapping
        The layer's attributes as napari gives them; scale, units, axis_labels, features, colormap and metadata are
        used where they are there.

    Returns
    -------
    list of str
        The file written.

    Raises
    ------
    LabelsError
        If the layer's axes or numbers cannot be written.
    OutputError
        If the file cannot be written; one that was there before is left as it is.
    """
    import tifffile

    target = _target(path, (".tif", ".tiff"), ".ome.tif")
    layer = _understood(data, meta)
    positions, *others = layer.lengths("PTZC")
    shape = (*others, *layer.lengths("YX"))
    pages = (plane for _, plane in layer.planes("PTZC"))
    facts = _ome_facts(layer)
    large = positions * math.prod(shape) * 4 > 2**31
    with replacing(target) as draft, tifffile.TiffWriter(draft, ome=True, bigtiff=large) as tiff:
        for _ in range(positions):
            part = islice(pages, math.prod(others))
            tiff.write(part, shape=shape, dtype=np.uint32, compression="zlib", photometric="minisblack", metadata=facts)
    return [str(target)]


def write_ome_zarr(path: str, data: Any, meta: Mapping[str, Any]) -> list[str]:
    """Write a labels layer as an OME-Zarr label image.

    Parameters
    ----------
    path : str
        Ends in .zarr; else .ome.zarr is added.
    data : array
        Label numbers, two to five axes: numpy, dask, zarr, or the levels of a pyramid.
    meta : mapping
        The layer's attributes as napari gives them; scale, translate, units, axis_labels, features, colormap and
        metadata are used where they are there.

    Returns
    -------
    list of str
        The folder written.

    Raises
    ------
    LabelsError
        If the layer's axes or numbers cannot be written.
    OutputError
        If the folder cannot be written, or holds something else than a label image; it is left as it is.
    """
    target = _target(path, (".zarr",), ".ome.zarr")
    _check_replaceable(target)
    layer = _understood(data, meta)
    if layer.lengths("P") != (1,):
        raise LabelsError(f"{layer.name} has {layer.axes['P'].length} positions, which OME-Zarr has no axis for; "
                          "save it as .ome.tif, or one position at a time")  # fmt: skip
    with replacing_folder(target) as draft:
        _write_pyramid(draft, layer)
    return [str(target)]


def _target(path: str, endings: tuple[str, ...], wanted: str) -> Path:
    """Return the path to write, its ending added where the user typed none."""
    if path.lower().endswith(endings):
        return Path(path)
    target = Path(path + wanted)
    if target.exists():
        raise OutputError(f"{target} exists already; give the whole name, {target.name}, to replace it")
    return target


# From what napari gives to what is written.


def _understood(data: Any, meta: Mapping[str, Any]) -> _Layer:
    level = data[0] if meta.get("multiscale") else data
    own = (meta.get("metadata") or {}).get("napari_milcnn") or {}
    features = _features(meta.get("features"))
    colours = _colours(meta.get("colormap"))
    name = str(meta.get("name") or "labels")
    return _Layer(
        name=name,
        data=level,
        axes=_axes(level.shape, meta, name),
        classes=_classes(own.get("classes") or (), features, colours),
        features=features,
        colours=colours,
        model=own.get("model") or {},
    )


def _axes(shape: Sequence[int], meta: Mapping[str, Any], name: str) -> dict[str, _Axis]:
    if 0 in shape:
        raise LabelsError(f"{name}: shape {tuple(shape)} holds no pixels; every axis must have at least length 1")
    given = {key: list(_or(meta.get(key), [])) for key in ("axis_labels", "scale", "translate", "units")}
    letters = _letters(given["axis_labels"], len(shape), name)
    scale, first = given["scale"] or [1.0] * len(shape), given["translate"] or [0.0] * len(shape)
    units = given["units"] or [""] * len(shape)
    each = zip(letters, shape, scale, first, units, strict=True)
    return {letter: _axis(letter, length, step, start, str(unit)) for letter, length, step, start, unit in each}


def _or(value: Any, default: Any) -> Any:
    return default if value is None else value


def _letters(labels: Sequence[Any], ndim: int, name: str) -> list[str]:
    """One letter per axis: what the labels say; where they do not, Y and X for the last two, else the likeliest."""
    if not 2 <= ndim <= 6:
        raise LabelsError(f"{name} has {ndim} axes; expected two to six: P, T, C, Z, Y and X")
    letters = [_LETTERS.get(str(label).strip().lower(), "") for label in labels] or [""] * ndim
    said = [letter for letter in letters if letter]
    if not {"Y", "X"} <= set(said) or len(set(said)) < len(said):
        letters = [*("" if letter in "YX" or said.count(letter) > 1 else letter for letter in letters[:-2]), "Y", "X"]
    free = [letter for letter in _UNNAMED if letter not in letters][: letters.count("")]
    if len(free) < letters.count(""):
        raise LabelsError(f"{name} has the axes {', '.join(map(str, labels))}; name them P, T, C, Z, Y or X")
    chosen = iter(sorted(free, key="PTCZ".index))
    return [letter or next(chosen) for letter in letters]


def _axis(letter: str, length: int, scale: float, first: float, unit: str) -> _Axis:
    """Turn lengths to µm and times to seconds where the unit is known."""
    said = unicodedata.normalize("NFKC", unit).strip().lower()
    known, name = {"T": (_SECONDS, "second"), "C": ({}, ""), "P": ({}, "")}.get(letter, (MICROMETRES, "micrometer"))
    factor = known.get(said)
    if factor is None:
        return _Axis(int(length), float(scale), float(first), "")
    return _Axis(int(length), float(scale) * factor, float(first) * factor, name)


def _features(given: Any) -> pd.DataFrame:
    """Return the table with a column `index`: rows without one belong to the labels 0, 1, ... as napari has it."""
    table = pd.DataFrame(given).reset_index(drop=True)
    if table.empty:
        return pd.DataFrame({"index": []})
    return table if "index" in table else table.assign(index=range(len(table)))


def _colours(colormap: Any) -> dict[int, tuple[int, ...]]:
    """Label number -> colour of a napari DirectLabelColormap; of other colormaps none."""
    table = getattr(colormap, "color_dict", {})
    return {int(label): _rgba(colour) for label, colour in table.items() if label is not None}


def _rgba(colour: Any) -> tuple[int, ...]:
    return tuple(round(255 * float(part)) for part in colour)


def _classes(
    named: Iterable[str], features: pd.DataFrame, colours: Mapping[int, tuple[int, ...]]
) -> dict[str, tuple[int, ...]]:
    """Class -> colour: that of its first object in the layer, else its own."""
    said = features["class"].dropna().astype(str) if "class" in features else pd.Series(dtype=str)
    classes: dict[str, tuple[int, ...]] = {}
    for name, usual in class_colours([*dict.fromkeys([*named, *said])]).items():
        shown = (colours.get(int(index)) for index in features["index"][said.index[said == name]])
        classes[name] = next((one for one in shown if one), (*bytes.fromhex(usual[1:]), 255))
    return classes


def _numbers(plane: np.ndarray, name: str) -> np.ndarray:
    """Return a plane as uint32 in one block of memory."""
    if plane.dtype.kind not in "bui":
        raise LabelsError(f"{name} holds {plane.dtype} values; label numbers are whole numbers: convert them first")
    low, high = int(plane.min()), int(plane.max())
    if low < 0 or high > _LARGEST_LABEL:
        wrong = low if low < 0 else high
        raise LabelsError(f"{name} holds the label {wrong}; expected 0 to {_LARGEST_LABEL}: number the objects anew, "
                          "for example with skimage.segmentation.relabel_sequential")  # fmt: skip
    return np.ascontiguousarray(plane, np.uint32)


# OME-TIFF


def _ome_facts(layer: _Layer) -> dict[str, Any]:
    """Return tifffile's metadata of one series."""
    channels = layer.lengths("C")[0]
    facts: dict[str, Any] = {
        "axes": "TZCYX",
        "Name": layer.name,
        "Channel": {"Name": ["labels"] if channels == 1 else [f"labels {i}" for i in range(channels)]},
        "MapAnnotation": {"Namespace": _NAMESPACE, **_notes(layer)},
    }
    if not layer.features.empty:
        table = layer.features.to_csv(index=False, lineterminator="\n")
        facts["CommentAnnotation"] = {"Namespace": f"{_NAMESPACE}/features", "Value": table}
    for letter in "ZYX":
        if letter in layer.axes:
            axis = layer.axes[letter]
            unit = "µm" if axis.unit else "pixel"
            facts |= {f"PhysicalSize{letter}": abs(axis.scale), f"PhysicalSize{letter}Unit": unit}
    if "T" in layer.axes and layer.axes["T"].unit:
        facts |= {"TimeIncrement": layer.axes["T"].scale, "TimeIncrementUnit": "s"}
    return facts


def _notes(layer: _Layer) -> dict[str, str]:
    """Return each class with its colour and its objects, and the model."""
    notes: dict[str, str] = {"kind": "labels"}
    for i, (name, colour) in enumerate(layer.classes.items(), start=1):
        notes |= {f"class_{i}": name, f"class_{i}_colour": f"#{bytes(colour[:3]).hex()}"}
        if "class" in layer.features:
            objects = layer.features["index"][layer.features["class"].astype(str) == name]
            notes[f"class_{i}_objects"] = _ranges(objects.astype(int))
    if layer.model:
        notes["model"] = json.dumps(layer.model, default=str)
    return notes


def _ranges(numbers: Iterable[int]) -> str:
    """Write whole numbers in short: "1-12 15"."""
    runs: list[list[int]] = []
    for number in sorted(set(numbers)):
        if runs and number == runs[-1][-1] + 1:
            runs[-1][1:] = [number]
        else:
            runs.append([number])
    return " ".join("-".join(map(str, run)) for run in runs)


# OME-Zarr


def _check_replaceable(target: Path) -> None:
    if not target.exists():
        return
    try:
        attributes = json.loads((target / "zarr.json").read_text(encoding="utf-8"))["attributes"]
        replaceable = "image-label" in attributes["ome"]
    except (OSError, ValueError, LookupError, TypeError):
        replaceable = False
    if not replaceable:
        raise OutputError(f"{target} is there already and is no label image; choose another name, or remove it first")


def _write_pyramid(folder: Path, layer: _Layer) -> None:
    import zarr

    letters = "".join(each for each in "TCZYX" if each in layer.axes and (each != "C" or layer.lengths("C") != (1,)))
    height, width = layer.lengths("YX")
    factors = [2**i for i in range(1 + max(0, math.ceil(math.log2(max(height, width) / _SMALLEST_LEVEL))))]
    group = zarr.create_group(str(folder), zarr_format=3, attributes=_zarr_facts(layer, letters, factors))
    outer = letters[:-2]
    levels = [
        group.create_array(
            str(i),
            shape=(*layer.lengths(outer), -(-height // factor), -(-width // factor)),
            chunks=(*(1 for _ in outer), *(min(_CHUNK, -(-side // factor)) for side in (height, width))),
            dtype=np.uint32,
            dimension_names=list(letters.lower()),
        )
        for i, factor in enumerate(factors)
    ]
    for at, plane in layer.planes("PTCZ"):
        place: tuple[Any, ...] = tuple(number for letter, number in zip("PTCZ", at, strict=True) if letter in outer)
        for level, factor in zip(levels, factors, strict=True):
            level[(*place, ...)] = plane[::factor, ::factor]


def _zarr_facts(layer: _Layer, letters: str, factors: Sequence[int]) -> dict[str, Any]:
    """Return the attributes of the group."""
    axes = [{"name": letter.lower(), "type": _TYPES[letter]} for letter in letters]
    for letter, axis in zip(letters, axes, strict=True):
        axis |= {"unit": layer.axes[letter].unit} if layer.axes[letter].unit else {}
    scales = {"name": layer.name, "axes": axes, "datasets": list(_levels(layer, letters, factors)), "type": "nearest"}
    own = {"classes": list(layer.classes), "model": json.loads(json.dumps(layer.model, default=str))}
    return {
        "ome": {"version": "0.5", "multiscales": [scales], "image-label": _image_label(layer)},
        _NAMESPACE: own,
    }


def _levels(layer: _Layer, letters: str, factors: Sequence[int]) -> Iterator[dict[str, Any]]:
    """Describe each level: its first pixel is that of the layer, its others are every second, fourth, ... one."""
    for i, factor in enumerate(factors):
        scale = [layer.axes[letter].scale * (factor if letter in "YX" else 1) for letter in letters]
        transforms: list[dict[str, Any]] = [{"type": "scale", "scale": scale}]
        first = [layer.axes[letter].first for letter in letters]
        if any(first):
            transforms.append({"type": "translation", "translation": first})
        yield {"path": str(i), "coordinateTransformations": transforms}


def _image_label(layer: _Layer) -> dict[str, Any]:
    """Return colours and properties of the objects; napari-ome-zarr makes `label-value` the column `index` again."""
    colours = {label: colour for label, colour in layer.colours.items() if label >= 0}
    if not colours and "class" in layer.features:
        rows = zip(layer.features["index"], layer.features["class"].astype(str), strict=True)
        colours = {int(label): layer.classes[name] for label, name in rows if name in layer.classes}
    label: dict[str, Any] = {}
    if colours:
        label["colors"] = [{"label-value": number, "rgba": list(colour)} for number, colour in colours.items()]
    if not layer.features.empty:
        rows = json.loads(layer.features.to_json(orient="records", double_precision=15))
        label["properties"] = [{"label-value": int(row.pop("index")), **row} for row in rows]
    return label
