"""Axes, units and pixel size of an OME-Zarr image, from its plain JSON; which rules hold says `images.ome_zarr`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any, Final, TypeAlias

import numpy as np

from napari_milcnn.images.units import micrometres_per, pixel_size_from_sides

Attributes: TypeAlias = Mapping[str, Any]
"""Metadata as plain JSON."""
_TYPES: Final = {"T": "time", "C": "channel", "Z": "space", "Y": "space", "X": "space"}
"""Letter of an axis -> its type in OME-Zarr."""
_ONE_MICROMETRE: Final = (
    "The file says that a pixel is 1 µm, which programs also write where they do not know its size; give pixel_size if "
    "it is another."
)


def json_objects(holder: object, key: str) -> list[Attributes]:
    """Return the JSON objects of a list in a JSON object; none where there is no such list."""
    found = holder.get(key) if isinstance(holder, Mapping) else None
    return [each for each in found if isinstance(each, Mapping)] if isinstance(found, list) else []


@dataclass(frozen=True)
class LevelSpace:
    """The coordinate system in which a level stands, and the way from its pixels to it.

    Attributes
    ----------
    axes : tuple of dict
        Name, type and unit of each axis.
    steps : tuple of dict
        Transformations that are applied one after another; none where the size of the pixels is not stated.
    name : str
        The name of the coordinate system, from version 0.6 on.
    further : tuple of (dict, tuple of dict, str)
        From version 0.6 on, transformations that lead from here to another coordinate system, with the axes and the
        name of the latter.
    """

    axes: tuple[Attributes, ...]
    steps: tuple[Attributes, ...]
    name: str = ""
    further: tuple[tuple[Attributes, tuple[Attributes, ...], str], ...] = ()

    @classmethod
    def of(cls, scales: Attributes, level: Attributes) -> LevelSpace:
        """Read the coordinate system of a level of any version."""
        own, common = (json_objects(each, "coordinateTransformations") for each in (level, scales))
        systems = {str(each.get("name")): _axes_of(each) for each in json_objects(scales, "coordinateSystems")}
        if not systems:  # up to version 0.5 all transformations of both lists follow each other
            return cls(_axes_of(scales), (*own, *common))
        steps = next((each for each in own if _end(each, "output") in systems), own[0] if own else None)
        name = _end(steps, "output") if steps is not None else ""
        if name not in systems:
            name = next(iter(systems))
        further = tuple(
            (step, systems[other], other)
            for each in common
            for step, other in [(each, _end(each, "output")) if _end(each, "input") == name else _backwards(each, name)]
            if other in systems and other != name
        )
        found = cls(systems[name], () if steps is None else (steps,), name, further)
        return found.with_named_axes()

    def with_named_axes(self) -> LevelSpace:
        """Return the coordinate system that names the axes, where this one only numbers them and a scale leads on."""
        if "?" not in map(axis_letter, self.axes):
            return self
        for step, axes, name in self.further:
            steps = (*self.steps, step)
            if len(axes) == len(self.axes) and not isinstance(product_of(steps, len(axes)), str):
                return LevelSpace(axes, steps, name)
        return self


def _backwards(step: Attributes, name: str) -> tuple[Attributes, str]:
    """Turn a transformation round that leads to the coordinate system `name`; give what it leads to then."""
    if _end(step, "output") != name:
        return step, ""
    other = _end(step, "input")
    values = step.get("scale")
    if (
        step.get("type") == "scale"
        and isinstance(values, list)
        and all(isinstance(n, int | float) and n for n in values)
    ):
        return {"type": "scale", "scale": [1 / n for n in values]}, other
    known = step.get("type") in ("identity", "translation")
    return step if known else {"type": f"the inverse of {step.get('type')}"}, other


def _axes_of(holder: Attributes) -> tuple[Attributes, ...]:
    axes = holder.get("axes")
    return (
        tuple(each if isinstance(each, Mapping) else {"name": each} for each in axes) if isinstance(axes, list) else ()
    )


def _end(transform: Attributes, side: str) -> str:
    """Return the coordinate system at one side of a transformation; drafts of version 0.6 name it as plain text."""
    end = transform.get(side)
    return str(end.get("name") or "") if isinstance(end, Mapping) else str(end or "")


def axis_letter(axis: Attributes) -> str:
    """Return the letter of an axis, T, C, Z, Y or X, by its name and type; "?" where they disagree or say nothing."""
    name, kind = str(axis.get("name", "?")).upper(), str(axis.get("type") or "")
    letter = name if len(name) == 1 else {"channel": "C", "time": "T"}.get(kind, "?")
    known = kind not in _TYPES.values() or letter not in _TYPES or _TYPES[letter] == kind
    return letter if known else "?"


def pixel_size_of(axes: Sequence[Attributes], letters: str, space: LevelSpace) -> tuple[float | None, list[str]]:
    """Return the pixel size in µm, and sentences on what was not understood, or has no unit."""
    if sorted(each for each in letters if each in "YX") != ["X", "Y"]:
        return None, []
    places = [letters.index(each) for each in "YX"]
    size, notes = _size_along(axes, places, space.steps) if space.steps else (None, [])
    says_nothing = size is None or notes == [_ONE_MICROMETRE]
    strange = False
    for step, others, name in space.further:
        if step.get("type") in ("identity", "translation"):
            continue
        steps = (*space.steps, step)
        other, said = _size_along(others, places, steps) if len(others) == len(axes) else (None, [])
        if other is None:
            strange = True
            notes.append(f"A transformation of the type {step.get('type')!r} to the coordinate system {name!r} is not "
                         "used, and no pixel size is taken of it.")  # fmt: skip
        elif says_nothing:
            return other, [f"The pixel size is that of the coordinate system {name!r}.", *said]
        elif size is not None and abs(other / size - 1) > 0.01:
            notes.append(f"The pixel size is that of {space.name!r}, {size:g} µm; in the coordinate system {name!r} "
                         f"it is {other:g} µm: give pixel_size if that is meant.")  # fmt: skip
    if strange and says_nothing:  # the step that is not understood may be the one that tells the size
        return None, [note for note in notes if note != _ONE_MICROMETRE]
    return size, notes


def _size_along(
    axes: Sequence[Attributes], places: Sequence[int], steps: Sequence[Attributes]
) -> tuple[float | None, list[str]]:
    """Return the pixel size in the unit of some axes, in µm, and sentences on what is not understood or has no unit."""
    scale = product_of(steps, len(axes))
    if isinstance(scale, str):
        return None, [f"The pixel size is not known: {scale}; give pixel_size if you know it."]
    sides = [float(scale[place]) for place in places]
    units = [str(axes[place].get("unit") or "") for place in places]
    if not all(isfinite(side) and side > 0 for side in sides):
        return None, [f"The pixel size is not known: the scale along Y and X is {sides[0]:g}, {sides[1]:g}."]
    if not any(units):
        if sides == [1.0, 1.0]:
            return None, []
        return None, [f"The scale {sides[1]:g} has no unit; if it is in µm, give pixel_size={sides[1]:g}."]
    unknown = [unit for unit in units if micrometres_per(unit) is None]
    if unknown:
        which = (
            f"the unit {unknown[0]!r} is no length that is understood"
            if unknown[0]
            else "only one of Y and X has a unit"
        )
        return None, [f"The pixel size is not known: {which}; give pixel_size if you know it."]
    size, note = pixel_size_from_sides(sides, units)
    one = sides == [1.0, 1.0] and size == 1.0
    return size, [*([note] if note else []), *([_ONE_MICROMETRE] if one else [])]


def product_of(steps: Sequence[Attributes], axes: int) -> np.ndarray | str:
    """Multiply the scales of transformations, float64 (axes,); or say which of them is not understood."""
    scale = np.ones(axes)
    for step in steps:
        factor = _factor(step, axes)
        if isinstance(factor, str):
            return factor
        scale = scale * factor
    return scale


def _factor(step: Attributes, axes: int) -> np.ndarray | str:
    """Return by how much a transformation stretches each axis; or say why that is not understood."""
    kind = step.get("type")
    if kind in ("identity", "translation"):
        return np.ones(axes)
    if kind == "sequence":
        return product_of(json_objects(step, "transformations"), axes)
    if kind != "scale":
        return f"its transformation is of the type {kind!r}, of which no pixel size is taken"
    values = step.get("scale")
    if values is None and "path" in step:
        return f"its scale is stored in the array {step['path']!r}, which is not read"
    if not isinstance(values, list) or len(values) != axes:
        return f"its scale is {values!r}; expected {axes} numbers, one for each axis"
    if not all(isinstance(each, int | float) and not isinstance(each, bool) for each in values):
        return f"its scale is {values!r}; expected numbers"
    return np.asarray(values, dtype=float)
