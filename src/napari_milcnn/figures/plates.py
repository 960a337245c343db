"""Plates drawn as heat maps: what stands where (`PlateMap`), in what colour (`ColourScale`), and the picture as SVG.

Decisions:

- A `PlateMap` and a `ColourScale` hold plain arrays and colours, so that a window can draw them by its own means.
- The picture is SVG that is written here, and not a figure of matplotlib: a report has a hundred of them, each takes a
  millisecond, stays sharp on paper, and says the name and the value of a well under the mouse without any script.
- A well that was expected and has no value is hatched. A place of the plate that the screen does not use is empty. So
  no colour of the scale ever stands for something that was not measured.
- Colours are safe for colour-blind readers: viridis for values of one direction, PuOr for those with a middle.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Final

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.colors import to_hex

from napari_milcnn.figures.palette import class_colours
from napari_milcnn.images.instruments import Well, parse_well, plate_shape
from napari_milcnn.images.paths import printable
from napari_milcnn.schema import CONTROL, PLATE, WELL

CONTROL_MARKS: Final = {"negative": "circle", "positive": "triangle", "empty": "square"}
"""Kind of control -> the mark in its wells."""
_SIDES: Final = ((12, 26), (24, 19), (48, 11))
"""Most columns of a plate -> side of a well in the picture, in px."""
_EDGE_ROOM: Final = 24
"""Room for the letters of the rows and the numbers of the columns, in px."""
_STOPS: Final = 11
"""Number of colours from which a reader of a page makes the bar of a scale."""
_SEQUENTIAL, _DIVERGING = "viridis", "PuOr_r"


@dataclass(frozen=True, eq=False)
class PlateMap:
    """One value of each well of a plate.

    Attributes
    ----------
    name : str
        The name of the plate; may be empty.
    values : ndarray
        float64 (rows, columns); NaN where there is no value.
    used : ndarray
        Whether a place of the plate is a well of the screen, bool (rows, columns).
    controls : mapping
        Row and column, from 0, of each control well -> what it controls: negative, positive, empty.
    words : mapping
        Row and column -> further words about the well, such as its treatment.
    """

    name: str
    values: np.ndarray
    used: np.ndarray
    controls: Mapping[tuple[int, int], str] = field(default_factory=dict)
    words: Mapping[tuple[int, int], str] = field(default_factory=dict)

    @property
    def missing(self) -> np.ndarray:
        """Whether a well of the screen has no value, bool (rows, columns)."""
        return np.asarray(self.used & np.isnan(self.values))

    @property
    def kinds(self) -> list[str]:
        """The kinds of control on the plate, in the order of `CONTROL_MARKS`."""
        return [kind for kind in CONTROL_MARKS if kind in self.controls.values()]


@dataclass(frozen=True)
class ColourScale:
    """Colours of the values of wells.

    Attributes
    ----------
    label : str
        What is shown, with its unit.
    low, high : float
        Values of the first and the last colour; a value beyond them has the colour of the nearer end.
    has_middle : bool
        Whether the scale has a middle of its own, as one of z scores has at 0.
    classes : tuple of str
        For values that are numbers of classes, from 0: the classes, each with its own colour. Else empty.
    """

    label: str
    low: float = 0.0
    high: float = 1.0
    has_middle: bool = False
    classes: tuple[str, ...] = ()

    def colours(self, values: np.ndarray) -> list[str]:
        """Return the colour of each value (wells,), as #rrggbb."""
        if self.classes:
            of_class = list(class_colours(self.classes).values())
            return [of_class[int(value)] for value in values]
        share = (np.asarray(values, float) - self.low) / (self.high - self.low)
        return [to_hex(colour) for colour in colormaps[_DIVERGING if self.has_middle else _SEQUENTIAL](share)]

    @property
    def stops(self) -> list[str]:
        """Colours that are evenly spread from the lowest value to the highest; of classes, the colour of each."""
        count = len(self.classes) or _STOPS
        return self.colours(np.arange(count) if self.classes else np.linspace(self.low, self.high, count))


def colour_scale(label: str, maps: Iterable[PlateMap], *, has_middle: bool = False, share: bool = False) -> ColourScale:
    """Choose the scale for the values of some plates, the same for all of them.

    Parameters
    ----------
    label : str
        What is shown, with its unit.
    maps : iterable of PlateMap
        The plates. One well in a hundred may lie beyond each end of the scale: a single outlier hides no pattern.
    has_middle : bool
        Whether 0 is the middle of the values, as of z scores.
    share : bool
        Whether the values are shares or scores, whose scale is always 0 to 1.
    """
    if share:
        return ColourScale(label)
    found = np.concatenate([plate.values[np.isfinite(plate.values)] for plate in maps] or [np.zeros(0)])
    if not len(found):
        return ColourScale(label, -1.0 if has_middle else 0.0, 1.0, has_middle)
    low, high = (float(value) for value in np.percentile(found, (1, 99)))
    if has_middle:
        end = max(abs(low), abs(high), 3.0)
        return ColourScale(label, -end, end, True)
    low = min(low, 0.0) if low < high / 2 else low
    return ColourScale(label, low, high if high > low else low + 1.0)


def plate_maps(
    wells: pd.DataFrame, value: str, *, classes: Sequence[str] = (), words: Sequence[str] = ()
) -> list[PlateMap]:
    """Put a column of a table of wells into the places of the wells on their plates.

    Parameters
    ----------
    wells : DataFrame
        One row a well, with its name in the column `well`; `plate` and `control` where known. Rows whose well is not
        the name of a place on a plate (B03, r02c03) are left out.
    value : str
        The column with the values: numbers, or with `classes` the name of one of them.
    classes : sequence of str
        Classes whose numbers become the values.
    words : sequence of str
        Columns that are told of each well.

    Returns
    -------
    list of PlateMap
        In the order in which the plates stand in the table. All have the shape of the smallest plate that holds all
        wells.
    """
    places = [parse_well(str(name)) for name in wells[WELL]]
    known = wells[[place is not None for place in places]]
    placed = [place for place in places if place is not None]
    if not placed:
        return []
    shape = plate_shape(placed)
    values = _well_values(known[value], classes)
    names = known[PLATE].fillna("").astype(str) if PLATE in known else pd.Series("", known.index)
    return [
        _plate_map(name, shape, [placed[i] for i in rows], values[rows], known.iloc[rows], words)
        for name, rows in names.reset_index(drop=True).groupby(names.to_numpy(), sort=False).indices.items()
    ]


def _well_values(column: pd.Series, classes: Sequence[str]) -> np.ndarray:
    if not classes:
        return pd.to_numeric(column, errors="coerce").to_numpy(float, na_value=np.nan)
    numbers = {name: float(number) for number, name in enumerate(classes)}
    return np.array([numbers.get(str(name), np.nan) for name in column])


def _plate_map(
    name: object, shape: tuple[int, int], places: Sequence[Well], values: np.ndarray, rows: pd.DataFrame,
    words: Sequence[str],
) -> PlateMap:  # fmt: skip
    grid, used = np.full(shape, np.nan), np.zeros(shape, bool)
    for place, value in zip(places, values, strict=True):
        used[place] = True
        grid[place] = value
    kinds = rows[CONTROL].fillna("").astype(str).str.lower() if CONTROL in rows else pd.Series("", rows.index)
    told = rows[[column for column in words if column in rows]].to_dict("records")
    sentences = [", ".join(f"{key} {_word(one)}" for key, one in row.items() if _word(one)) for row in told]
    return PlateMap(
        printable(name), grid, used,
        {(place.row, place.column): kind for place, kind in zip(places, kinds, strict=True) if kind in CONTROL_MARKS},
        {(place.row, place.column): text for place, text in zip(places, sentences, strict=True) if text},
    )  # fmt: skip


def _word(value: object) -> str:
    """Return a cell of a table as a word; empty for a gap."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return f"{value:g}" if isinstance(value, float) else printable(value)


def plate_svg(plate: PlateMap, scale: ColourScale) -> str:
    """Draw a plate as SVG text, to stand in a page or in a file.

    Each well says its name, its value and what it is under the mouse. The colours of lines and letters follow the
    colour of the text around the picture.
    """
    rows, columns = plate.values.shape
    side = next(side for most, side in _SIDES if columns <= most)
    width, height = _EDGE_ROOM + columns * side + 1, _EDGE_ROOM + rows * side + 1
    title = f"{scale.label}{f' on plate {plate.name}' if plate.name else ''}"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'role="img" aria-label="{escape(_summary(plate, title))}" font-family="sans-serif" font-size="10">',
        '<defs><pattern id="hatch" width="5" height="5" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
        '<rect width="5" height="5" fill="#fff"/><rect width="1.5" height="5" fill="#6b7480"/></pattern></defs>',
        *_row_and_column_names(rows, columns, side),
        *_wells(plate, scale, side),
        "</svg>",
    ]
    return "".join(parts)


def _summary(plate: PlateMap, title: str) -> str:
    """Say in a sentence what a picture shows, for those who do not see it."""
    found = plate.values[np.isfinite(plate.values)]
    missing = int(plate.missing.sum())
    text = f"{title}: {len(found)} wells with a value"
    return f"{text}, {missing} without" if missing else text


def _row_and_column_names(rows: int, columns: int, side: int) -> list[str]:
    """Write the letters of the rows and the numbers of the columns, as many as there is room for."""
    step = 1 if side > 14 else 2
    across = [(_EDGE_ROOM + (c + 0.5) * side, 15.0, "middle", str(c + 1)) for c in range(0, columns, step)]
    down = [
        (_EDGE_ROOM - 6.0, _EDGE_ROOM + (r + 0.5) * side + 3.5, "end", Well(r, 0).name[:-2])
        for r in range(0, rows, step)
    ]
    return [
        f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" fill="currentColor" opacity=".75">{text}</text>'
        for x, y, anchor, text in across + down
    ]


def _wells(plate: PlateMap, scale: ColourScale, side: int) -> list[str]:
    """Draw every place of a plate, row by row, the marks of controls last."""
    known = np.isfinite(plate.values)
    colours = iter(scale.colours(plate.values[known]))
    drawn, marks = [], []
    for row, column in np.ndindex(plate.values.shape):
        x, y = _EDGE_ROOM + column * side + 0.5, _EDGE_ROOM + row * side + 0.5
        if not plate.used[row, column]:
            fill = 'fill="none" stroke="currentColor" stroke-opacity=".13"'
        else:
            colour = next(colours) if known[row, column] else "url(#hatch)"
            fill = f'fill="{colour}" stroke="#1c2128" stroke-opacity=".28"'
        box = f'<rect x="{x:g}" y="{y:g}" width="{side - 1}" height="{side - 1}" rx="{side / 8:.1f}" {fill}'
        told = f"><title>{escape(_told(plate, scale, row, column))}</title></rect>" if plate.used[row, column] else "/>"
        drawn.append(box + told)
        if (row, column) in plate.controls:
            centre = x + (side - 1) / 2, y + (side - 1) / 2
            marks.append(control_mark(plate.controls[row, column], *centre, side * 0.2))
    return drawn + marks


def control_mark(kind: str, x: float, y: float, radius: float) -> str:
    """Draw the mark of a control around a point, white with a dark edge, as SVG text without events of its own."""
    style = 'fill="#fff" stroke="#1c2128" stroke-width="1.1" pointer-events="none"'
    if CONTROL_MARKS[kind] == "circle":
        return f'<circle cx="{x:g}" cy="{y:g}" r="{radius:g}" {style}/>'
    corners = [(-1.0, 0.9), (1.0, 0.9), (0.0, -1.1)] if CONTROL_MARKS[kind] == "triangle" else [
        (-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)]  # fmt: skip
    points = " ".join(f"{x + radius * dx:.1f},{y + radius * dy:.1f}" for dx, dy in corners)
    return f'<polygon points="{points}" {style}/>'


def _told(plate: PlateMap, scale: ColourScale, row: int, column: int) -> str:
    value = plate.values[row, column]
    if math.isnan(value):
        shown = "no value"
    else:
        shown = scale.classes[int(value)] if scale.classes else f"{scale.label} {value:.3g}"
    control = plate.controls.get((row, column))
    texts = [Well(row, column).name, shown, f"{control} control" if control else "", plate.words.get((row, column), "")]
    return " · ".join(printable(text) for text in texts if text)
