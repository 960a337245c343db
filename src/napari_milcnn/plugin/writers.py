"""Napari's writers of one labels layer: the attributes that napari gives, as the record that `images` writes.

Decisions:

- Axes without a name are Z; T and Z; T, C and Z, as many as there are.
- A class has the colour of its first object in the layer, else its own.
- Rotation and shear of a layer are not written.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import pandas as pd

from napari_milcnn.errors import LabelsError, OutputError
from napari_milcnn.figures.palette import class_colours
from napari_milcnn.images.units import MICROMETRES
from napari_milcnn.images.write import (
    Colour,
    LabelsAxis,
    LabelsImage,
    write_labels_ome_tiff,
    write_labels_ome_zarr,
)

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


def save_ome_tiff(path: str, data: Any, meta: Mapping[str, Any]) -> list[str]:
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
    target = _target(path, (".tif", ".tiff"), ".ome.tif")
    write_labels_ome_tiff(target, _labels_image(data, meta))
    return [str(target)]


def save_ome_zarr(path: str, data: Any, meta: Mapping[str, Any]) -> list[str]:
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
        If the folder cannot be written, or holds something other than a label image; it is left as it is.
    """
    target = _target(path, (".zarr",), ".ome.zarr")
    write_labels_ome_zarr(target, _labels_image(data, meta))
    return [str(target)]


def _target(path: str, endings: tuple[str, ...], wanted: str) -> Path:
    """Return the path to write, with its ending added where the user typed none."""
    if path.lower().endswith(endings):
        return Path(path)
    target = Path(path + wanted)
    if target.exists():
        raise OutputError(f"{target} exists already; give the whole name, {target.name}, to replace it")
    return target


def _labels_image(data: Any, meta: Mapping[str, Any]) -> LabelsImage:
    """Return a layer as what is written of it."""
    level = data[0] if meta.get("multiscale") else data
    own = (meta.get("metadata") or {}).get("napari_milcnn") or {}
    features = _features(meta.get("features"))
    colours = _object_colours(meta.get("colormap"))
    name = str(meta.get("name") or "labels")
    return LabelsImage(
        name=name,
        data=level,
        axes=_axes(level.shape, meta, name),
        classes=_colours_of_classes(own.get("classes") or (), features, colours),
        features=features,
        colours=colours,
        model=own.get("model") or {},
    )


def _axes(shape: Sequence[int], meta: Mapping[str, Any], name: str) -> dict[str, LabelsAxis]:
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
    """Return one letter per axis: that of its label; else Y and X for the last two and the likeliest for the others."""
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


def _axis(letter: str, length: int, scale: float, first: float, unit: str) -> LabelsAxis:
    """Turn lengths into µm and times into seconds where the unit is known."""
    said = unicodedata.normalize("NFKC", unit).strip().lower()
    known, name = {"T": (_SECONDS, "second"), "C": ({}, ""), "P": ({}, "")}.get(letter, (MICROMETRES, "micrometer"))
    factor = known.get(said)
    if factor is None:
        return LabelsAxis(int(length), float(scale), float(first))
    return LabelsAxis(int(length), float(scale) * factor, float(first) * factor, name)


def _features(given: Any) -> pd.DataFrame:
    """Return the table with a column `index`; rows without one belong to the labels 0, 1, ..., as in napari."""
    table = pd.DataFrame(given).reset_index(drop=True)
    if table.empty:
        return pd.DataFrame({"index": []})
    return table if "index" in table else table.assign(index=range(len(table)))


def _object_colours(colormap: Any) -> dict[int, Colour]:
    """Return label number -> colour of a napari DirectLabelColormap; other colormaps give none."""
    table = getattr(colormap, "color_dict", {})
    return {int(label): _as_bytes(colour) for label, colour in table.items() if label is not None}


def _as_bytes(colour: Any) -> Colour:
    """Return a colour of parts from 0 to 1 in parts from 0 to 255."""
    return tuple(round(255 * float(part)) for part in colour)


def _colours_of_classes(
    named: Iterable[str], features: pd.DataFrame, colours: Mapping[int, Colour]
) -> dict[str, Colour]:
    """Return class -> colour: that of its first object in the layer, else its own."""
    said = features["class"].dropna().astype(str) if "class" in features else pd.Series(dtype=str)
    classes: dict[str, Colour] = {}
    for name, usual in class_colours([*dict.fromkeys([*named, *said])]).items():
        shown = (colours.get(int(index)) for index in features["index"][said.index[said == name]])
        classes[name] = next((one for one in shown if one), (*bytes.fromhex(usual[1:]), 255))
    return classes
