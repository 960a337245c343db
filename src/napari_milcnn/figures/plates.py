"""Plates drawn as heat maps: what stands where (`PlateMap`), in what colour (`ColourScale`), and the picture as SVG.

The page of a screen and the Results dock show the same pictures.

Decisions:

- The picture is SVG that is written here, and not a figure of matplotlib: a report has a hundred of them, each takes a
  millisecond, stays sharp on paper, and says the name and the value of a well under the mouse without any script.
- What has no value says why by a mark of its own (`Blank`): it failed, shows nothing, was not looked for, is not
  classified yet, or has no image. None of them has a colour of a scale, and a place that the screen does not use is a
  dot. So no colour, nor the white in the middle of a scale, ever stands for something that was not measured.
- A well that shows nothing to classify has no class, score or z to be seen, although the network gives it numbers.
- Colours are safe for colour-blind readers: viridis for values of one direction, PuOr for those with a middle.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from html import escape
from itertools import chain
from typing import Final, Literal

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.colors import to_hex

from napari_milcnn.figures.palette import CHOSEN, NO_VALUE, class_colours
from napari_milcnn.images.instruments import Well, parse_well, plate_shape
from napari_milcnn.schema import (
    CELLS,
    CONTROL,
    EMPTY_FIELDS,
    FAILED_FIELDS,
    FIELDS_OF_WELL,
    PLATE,
    TOP,
    UNLIKE,
    WELL,
    score_column,
    share_column,
    z_column,
)
from napari_milcnn.untrusted import visible

CONTROL_MARKS: Final = {"negative": "circle", "positive": "triangle", "empty": "square"}
"""Kind of control -> the mark in its wells."""
_SIDES: Final = ((12, 26.0), (24, 19.0), (48, 11.0))
"""Most columns of a plate -> side of a well in the picture, in px."""
_EDGE_ROOM: Final = 24
"""Room for the letters of the rows and the numbers of the columns, in px."""
_STOPS: Final = 11
"""Number of colours in the bar of a scale."""
_SEQUENTIAL, _DIVERGING = "viridis", "PuOr_r"
_BLANK_MARK, _EDGE, _WHITE = "#3d4550", "#1c2128", "#ffffff"
"""Colours of the mark in a well without a value, and of the edge of a well."""
_LINE, _LETTER, _ICON = 17.0, 5.9, 11.0
"""Height of a line of the legend, width of a letter in it, side of a mark in it, in px."""
_LONGEST_ENTRY: Final = 30
_LARGEST_Z: Final = 10.0
"""Robust z at which a scale ends at the latest; of a strong class it may be over a hundred."""


class Blank(Enum):
    """Why a well of the screen has no value, in words."""

    FAILED = "no result"
    EMPTY = "empty well"
    UNKNOWN = "not looked for"
    PENDING = "not classified yet"
    MISSING = "no image"


@dataclass(frozen=True)
class WellValue:
    """A value of wells that plates show.

    Attributes
    ----------
    label : str
        What it is, in words.
    column : str
        The column of the table of wells that holds it.
    kind : str
        class: one of `classes`; share: 0 to 1; z: 0 is in the middle; limit: above 1 is too much; count: from 0 on.
    classes : tuple of str
        For `class`: the names that the column may hold.
    of_cells : bool
        Whether it says something of cells, which a well that shows nothing to classify does not have.
    unknown : str
        Why a well may have none, although it was classified.
    """

    label: str
    column: str
    kind: Literal["class", "share", "z", "limit", "count"]
    classes: tuple[str, ...] = ()
    of_cells: bool = True
    unknown: str = Blank.UNKNOWN.value


def well_values(wells: pd.DataFrame, classes: Sequence[str], drawn: Sequence[str] | None = None) -> list[WellValue]:
    """List what plates can show of a table of wells, the most telling first.

    Parameters
    ----------
    wells : DataFrame
        One row a well, as of `well_table`.
    classes : sequence of str
        The classes of the model.
    drawn : sequence of str, optional
        Classes whose scores, z and shares are listed; by default all.
    """
    names = classes if drawn is None else drawn
    every = [
        *([WellValue("top class", TOP, "class", tuple(classes))] if len(classes) > 1 else []),
        *(WellValue(f"score of {name}", score_column(name), "share") for name in names),
        *(WellValue(f"robust z of {name}", z_column(name), "z", unknown="not compared with controls")
          for name in names),
        *(WellValue(f"share of {name} in the cells", share_column(name), "share") for name in names),
        WellValue("cells", CELLS, "count", of_cells=False, unknown="not counted"),
        WellValue("unlike the training images (above 1)", UNLIKE, "limit", of_cells=False, unknown="not known"),
    ]  # fmt: skip
    return [one for one in every if one.column in wells]


@dataclass(frozen=True, eq=False)
class PlateMap:
    """One value of each well of a plate.

    Attributes
    ----------
    name : str
        The name of the plate; may be empty.
    values : ndarray
        float64 (rows, columns); NaN where there is no value.
    blanks : mapping
        Row and column, from 0, of each well of the screen without a value -> why. A place that has neither a value nor
        a reason is not used.
    controls : mapping
        Row and column of each control well -> what it controls: negative, positive, empty.
    words : mapping
        Row and column -> further words about the well, such as its treatment.
    """

    name: str
    values: np.ndarray
    blanks: Mapping[Well, Blank] = field(default_factory=dict)
    controls: Mapping[Well, str] = field(default_factory=dict)
    words: Mapping[Well, str] = field(default_factory=dict)

    def is_used(self, well: Well) -> bool:
        """Whether a place of the plate is a well of the screen."""
        return well in self.blanks or not math.isnan(self.values[well])


@dataclass(frozen=True)
class ColourScale:
    """Colours of the values of wells.

    Attributes
    ----------
    value : WellValue
        What is shown.
    low, high : float
        Values of the first and the last colour; a value beyond them has the colour of the nearer end.
    """

    value: WellValue
    low: float = 0.0
    high: float = 1.0

    def colours(self, values: np.ndarray) -> list[str]:
        """Return the colour of each value (wells,), as #rrggbb; of classes the values are their numbers, from 0."""
        if self.value.classes:
            of_class = list(class_colours(self.value.classes).values())
            return [of_class[int(value)] for value in values]
        share = (np.asarray(values, float) - self.low) / (self.high - self.low)
        return [to_hex(colour) for colour in colormaps[_DIVERGING if self.value.kind == "z" else _SEQUENTIAL](share)]

    def words(self, value: float) -> str:
        """Say a value in words."""
        if self.value.classes:
            return self.value.classes[int(value)]
        return f"{self.value.label} {value:.3g}"


def colour_scale(value: WellValue, maps: Iterable[PlateMap]) -> ColourScale:
    """Choose the scale for the values of some plates, the same for all of them.

    One well in a hundred may lie beyond each end of the scale, and z beyond `_LARGEST_Z`: a few strong wells do not
    make all others look alike.
    """
    if value.kind in ("class", "share"):
        return ColourScale(value)
    found = np.concatenate([plate.values[np.isfinite(plate.values)] for plate in maps] or [np.zeros(0)])
    low, high = (float(one) for one in np.percentile(found, (1, 99))) if len(found) else (0.0, 0.0)
    if value.kind == "z":
        end = min(max(abs(low), abs(high), 3.0), _LARGEST_Z)
        return ColourScale(value, -end, end)
    if value.kind == "limit":
        return ColourScale(value, 0.0, max(1.0, high))
    low = min(low, 0.0) if low < high / 2 else low
    return ColourScale(value, low, high if high > low else low + 1.0)


def plate_maps(
    wells: pd.DataFrame, value: WellValue, *, words: Sequence[str] = (),
    others: Mapping[Blank, pd.DataFrame] | None = None,
) -> list[PlateMap]:  # fmt: skip
    """Put a value of wells into their places on their plates.

    Parameters
    ----------
    wells : DataFrame
        One row a well, with its name in the column `well`; `plate`, `control` and the numbers of fields where known.
        Rows whose well is not the name of a place on a plate (B03, r02c03) are left out.
    value : WellValue
        The value.
    words : sequence of str
        Columns that are told of each well.
    others : mapping, optional
        Why wells of the screen have no row -> plate and well of these: such as PENDING -> every well of a screen that
        is not finished. A well that has a row counts as that row says.

    Returns
    -------
    list of PlateMap
        In the order in which the plates stand in the tables. All have the shape of the smallest plate that holds all
        wells.
    """
    known = _placed(wells)
    reasons = [_placed(one) for one in (others or {}).values()]
    whys = [why for why, one in zip(others or (), reasons, strict=True) for _ in range(len(one))]
    absent = pd.concat([known.iloc[:0], *reasons]).assign(_why=pd.array(whys, "object"))
    if not len(known) and not len(absent):
        return []
    shape = plate_shape([*known["_place"], *absent["_place"]])
    of_plate = [{str(plate): rows for plate, rows in one.groupby("_plate", sort=False)} for one in (absent, known)]
    plates = dict.fromkeys([*of_plate[0], *of_plate[1]])
    return [
        _plate_map(plate, shape, of_plate[1].get(plate, known.iloc[:0]), value, words,
                   _why_absent(of_plate[0].get(plate, absent.iloc[:0])))
        for plate in plates
    ]  # fmt: skip


def _why_absent(absent: pd.DataFrame) -> dict[Well, Blank]:
    return dict(zip(absent["_place"], absent["_why"], strict=True)) if len(absent) else {}


def _placed(wells: pd.DataFrame) -> pd.DataFrame:
    """Return the wells that are named by a place, with their plate and place."""
    places = [parse_well(str(name)) for name in wells[WELL]]
    known = wells[[place is not None for place in places]]
    plates = known[PLATE].fillna("").astype(str) if PLATE in known else pd.Series("", known.index)
    at = pd.Series([place for place in places if place is not None], known.index, object)
    return known.assign(_plate=plates, _place=at)


def _plate_map(
    name: str, shape: tuple[int, int], rows: pd.DataFrame, value: WellValue, words: Sequence[str],
    others: Mapping[Well, Blank],
) -> PlateMap:  # fmt: skip
    grid, places = np.full(shape, np.nan), list(rows["_place"])
    blanks = dict(others)
    for place, number, why in zip(places, _value_numbers(rows, value), _why_blank(rows, value), strict=True):
        grid[place] = number if why is None else np.nan
        blanks.pop(place, None)
        if math.isnan(grid[place]):
            blanks[place] = why or Blank.UNKNOWN
    kinds = rows[CONTROL].fillna("").astype(str).str.lower() if CONTROL in rows else pd.Series("", rows.index)
    told = rows[[column for column in words if column in rows]].to_dict("records")
    sentences = [", ".join(f"{key} {_word(one)}" for key, one in row.items() if _word(one)) for row in told]
    return PlateMap(
        str(name), grid, blanks,
        {place: kind for place, kind in zip(places, kinds, strict=True) if kind in CONTROL_MARKS},
        {place: text for place, text in zip(places, sentences, strict=True) if text},
    )  # fmt: skip


def _value_numbers(rows: pd.DataFrame, value: WellValue) -> np.ndarray:
    column = rows[value.column]
    if not value.classes:
        return pd.to_numeric(column, errors="coerce").to_numpy(float, na_value=np.nan)
    numbers = {name: float(number) for number, name in enumerate(value.classes)}
    return np.array([numbers.get(str(name), np.nan) for name in column])


def _why_blank(rows: pd.DataFrame, value: WellValue) -> list[Blank | None]:
    """Say which wells have no value whatever their column holds: their fields failed, or show nothing to classify."""
    count = {name: pd.to_numeric(rows[name]).to_numpy(float) if name in rows else np.zeros(len(rows))
             for name in (FIELDS_OF_WELL, FAILED_FIELDS, EMPTY_FIELDS)}  # fmt: skip
    fields, failed = count[FIELDS_OF_WELL], count[FAILED_FIELDS]
    no_result = failed >= fields if FIELDS_OF_WELL in rows else np.isnan(_value_numbers(rows, value))
    empty = (count[EMPTY_FIELDS] > 0) & (count[EMPTY_FIELDS] + failed >= fields)
    if CELLS in rows:
        empty |= (pd.to_numeric(rows[CELLS], errors="coerce") == 0).to_numpy() & np.isnan(_value_numbers(rows, value))
    return [Blank.FAILED if gone else Blank.EMPTY if nothing and value.of_cells else None
            for gone, nothing in zip(no_result, empty, strict=True)]  # fmt: skip


def _word(value: object) -> str:
    """Return a cell of a table as a word; empty for a gap."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return f"{value:g}" if isinstance(value, float) else str(value)


def plate_svg(
    plate: PlateMap, scale: ColourScale, *, width: float | None = None, ink: str = "currentColor",
    chosen: Collection[Well] = (), legend: bool = False, ground: str = "",
) -> str:  # fmt: skip
    """Draw a plate as SVG text, to stand in a page, in a window or in a file.

    Each well says its name, its value and what it is under the mouse.

    Parameters
    ----------
    plate, scale : PlateMap, ColourScale
        What is drawn, and in what colours.
    width : float, optional
        Width of the picture in px; by default that of a page.
    ink : str
        Colour of lines and letters; by default that of the text around the picture.
    chosen : collection of Well
        Wells to draw a frame around.
    legend : bool
        Whether the names of plate and value and the legend are drawn below.
    ground : str
        Colour of the ground; by default there is none.
    """
    rows, columns = plate.values.shape
    side = _side(columns, width)
    size = _EDGE_ROOM + columns * side + 1, _EDGE_ROOM + rows * side + 1
    wide = max(size[0], 200.0) if legend else size[0]
    title = f"{scale.value.label}{f' on plate {plate.name}' if plate.name else ''}"
    parts = [*_row_and_column_names(rows, columns, side, ink), *_wells(plate, scale, side, ink)]
    parts += [_frame(well, side) for well in chosen if well.row < rows and well.column < columns]
    high = size[1]
    if legend:
        below, more = _legend(scale, [plate], wide, size[1] + 8 + _LINE, ink)
        parts += [_svg_text(0, size[1] + 8 + 9.5, _fitting(title, wide), ink, opacity="1"), *below]
        high += 8 + _LINE + more
    return _svg_picture(parts, (wide, high), _summary(plate, title), ground)


def legend_svg(scale: ColourScale, maps: Sequence[PlateMap], width: float = 620, ink: str = "currentColor") -> str:
    """Draw the legend of some plates alone: colours, why wells have none, and the marks of controls."""
    parts, height = _legend(scale, maps, width, 0.0, ink)
    return _svg_picture(parts, (width, height), f"legend of {scale.value.label}")


def well_at(plate: PlateMap, x: float, y: float, width: float | None = None) -> Well | None:
    """Return the well at a place of the picture of `plate_svg` of this width, in px; None beside the wells."""
    rows, columns = plate.values.shape
    side = _side(columns, width)
    well = Well(math.floor((y - _EDGE_ROOM) / side), math.floor((x - _EDGE_ROOM) / side))
    return well if 0 <= well.row < rows and 0 <= well.column < columns else None


def _side(columns: int, width: float | None) -> float:
    """Return the side of a well in the picture, in px."""
    if width is None:
        return next(side for most, side in _SIDES if columns <= most)
    return min(max((width - _EDGE_ROOM - 1) / columns, 3.0), 40.0)


def _svg_picture(parts: Iterable[str], size: tuple[float, float], summary: str, ground: str = "") -> str:
    width, height = (f"{one:g}" for one in size)
    below = f'<path d="M0 0H{width}V{height}H0Z" fill="{ground}"/>' if ground else ""
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'role="img" aria-label="{escape(visible(summary))}" font-family="sans-serif" font-size="10">'
    )
    return "".join([head, below, *parts, "</svg>"])


def _summary(plate: PlateMap, title: str) -> str:
    """Say in a sentence what a picture shows, for those who do not see it."""
    reasons = list(plate.blanks.values())
    counts = [f"{reasons.count(one)} {one.value}" for one in Blank if one in reasons]
    return ", ".join([f"{title}: {int(np.isfinite(plate.values).sum())} wells with a value", *counts])


def _svg_text(x: float, y: float, text: str, ink: str, anchor: str = "start", opacity: str = ".75") -> str:
    where = f'x="{x:g}" y="{y:g}" text-anchor="{anchor}"'
    return f'<text {where} fill="{ink}" fill-opacity="{opacity}">{escape(visible(text))}</text>'


def _row_and_column_names(rows: int, columns: int, side: float, ink: str) -> list[str]:
    """Write the letters of the rows and the numbers of the columns, as many as there is room for."""
    step = next(step for step in (1, 2, 4, 8) if side * step > 14 or step == 8)
    across = [
        _svg_text(_EDGE_ROOM + (c + 0.5) * side, 15.0, str(c + 1), ink, "middle") for c in range(0, columns, step)
    ]
    down = [_svg_text(_EDGE_ROOM - 6.0, _EDGE_ROOM + (r + 0.5) * side + 3.5, Well(r, 0).name[:-2], ink, "end")
            for r in range(0, rows, step)]  # fmt: skip
    return across + down


def _corner(well: Well, side: float) -> tuple[float, float]:
    return _EDGE_ROOM + well.column * side + 0.5, _EDGE_ROOM + well.row * side + 0.5


def _wells(plate: PlateMap, scale: ColourScale, side: float, ink: str) -> list[str]:
    """Draw every place of a plate, row by row, the marks of controls last."""
    known = np.isfinite(plate.values)
    colours = iter(scale.colours(plate.values[known]))
    drawn, marks = [], []
    for well in map(Well._make, np.ndindex(plate.values.shape)):
        x, y = _corner(well, side)
        if not plate.is_used(well):
            drawn.append(_dot(x + side / 2, y + side / 2, ink))
            continue
        told = f"<title>{escape(well_words(plate, scale, well))}</title>"
        if known[well]:
            drawn.append(f"{_box(x, y, side - 1, next(colours))}{told}</rect>")
        else:
            drawn.append(_blank_mark(plate.blanks[well], x, y, side - 1, told, ink))
        if well in plate.controls:
            marks.append(control_mark(plate.controls[well], x + (side - 1) / 2, y + (side - 1) / 2, side * 0.2))
    return drawn + marks


def _box(x: float, y: float, side: float, fill: str, edge: str = _EDGE) -> str:
    """Begin a rectangle, which the caller ends; a white one, as of a class, has a clear edge."""
    where = f'x="{x:g}" y="{y:g}" width="{side:g}" height="{side:g}" rx="{side / 8:.1f}"'
    return f'<rect {where} fill="{fill}" stroke="{edge}" stroke-opacity="{".8" if fill == _WHITE else ".35"}">'


def _dot(x: float, y: float, ink: str) -> str:
    return f'<circle cx="{x:g}" cy="{y:g}" r="0.9" fill="{ink}" fill-opacity=".4"/>'


def _blank_mark(why: Blank, x: float, y: float, side: float, told: str, ink: str) -> str:
    """Draw a well without a value: a cross for no result, a dash for empty, stripes for unknown.

    Boxes without a ground, which hold nothing: dots for pending, one stroke for a missing image.
    """
    if why is Blank.PENDING:
        dots = [f'<circle cx="{x + side * at:g}" cy="{y + side / 2:g}" r="{max(0.7, side / 18):.2g}" fill="{ink}" '
                f'fill-opacity=".7" pointer-events="none"/>' for at in (0.28, 0.5, 0.72)]  # fmt: skip
        return f"{_box(x, y, side, 'none', ink)}{told}</rect>{''.join(dots)}"
    lines = {
        Blank.FAILED: ((0.25, 0.25, 0.75, 0.75), (0.25, 0.75, 0.75, 0.25)),
        Blank.EMPTY: ((0.25, 0.5, 0.75, 0.5),),
        Blank.MISSING: ((0.1, 0.9, 0.9, 0.1),),
        Blank.UNKNOWN: ((0.08, 0.42, 0.42, 0.08), (0.08, 0.92, 0.92, 0.08), (0.58, 0.92, 0.92, 0.58)),
    }[why]
    path = " ".join(f"M{x + side * a:.2f} {y + side * b:.2f}L{x + side * c:.2f} {y + side * d:.2f}"
                    for a, b, c, d in lines)  # fmt: skip
    ground, edge, ink = ("none", ink, ink) if why is Blank.MISSING else (NO_VALUE, _EDGE, _BLANK_MARK)
    look = f'fill="none" stroke="{ink}" stroke-width="{max(0.8, side / 14):.2g}" pointer-events="none"'
    return f'{_box(x, y, side, ground, edge)}{told}</rect><path d="{path}" {look}/>'


def _frame(well: Well, side: float) -> str:
    """Draw a frame around a chosen well."""
    x, y = _corner(well, side)
    where = f'x="{x - 0.5:g}" y="{y - 0.5:g}" width="{side:g}" height="{side:g}"'
    return f'<rect {where} fill="none" stroke="{CHOSEN}" stroke-width="2" pointer-events="none"/>'


def control_mark(kind: str, x: float, y: float, radius: float) -> str:
    """Draw the mark of a control around a point, white with a dark edge, as SVG text without events of its own."""
    style = 'fill="#fff" stroke="#1c2128" stroke-width="1.1" pointer-events="none"'
    if CONTROL_MARKS[kind] == "circle":
        return f'<circle cx="{x:g}" cy="{y:g}" r="{radius:g}" {style}/>'
    corners = [(-1.0, 0.9), (1.0, 0.9), (0.0, -1.1)] if CONTROL_MARKS[kind] == "triangle" else [
        (-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)]  # fmt: skip
    points = " ".join(f"{x + radius * dx:.1f},{y + radius * dy:.1f}" for dx, dy in corners)
    return f'<polygon points="{points}" {style}/>'


def well_words(plate: PlateMap, scale: ColourScale, well: Well) -> str:
    """Say name, value and what is known of a well of the screen."""
    value, control = plate.values[well], plate.controls.get(well)
    shown = _blank_words(plate.blanks[well], scale) if math.isnan(value) else scale.words(value)
    texts = [well.name, shown, f"{control} control" if control else "", plate.words.get(well, "")]
    return visible(" · ".join(text for text in texts if text))


def _blank_words(why: Blank, scale: ColourScale) -> str:
    return scale.value.unknown if why is Blank.UNKNOWN else why.value


def _legend(
    scale: ColourScale, maps: Sequence[PlateMap], width: float, top: float, ink: str
) -> tuple[list[str], float]:  # fmt: skip
    """Draw what the colours and marks of some plates mean; return the parts and their height."""
    entries = [
        *_colour_entries(scale, maps),
        *((_blank_icon(why, ink), _blank_words(why, scale)) for why in Blank
          if any(why in plate.blanks.values() for plate in maps)),
        *((control_mark(kind, _ICON / 2, _ICON / 2, _ICON * 0.36), f"{kind} control") for kind in CONTROL_MARKS
          if any(kind in plate.controls.values() for plate in maps)),
        *([(_dot(_ICON / 2, _ICON / 2, ink), "not used")]
          if any(not plate.is_used(Well(r, c)) for plate in maps for r, c in np.ndindex(plate.values.shape)) else []),
    ]  # fmt: skip
    parts, y = ([], top) if scale.value.classes else (_scale_bar(scale, width, top, ink), top + _LINE)
    x = 0.0
    for icon, text in entries:
        shown = _fitting(text, _LETTER * _LONGEST_ENTRY)
        room = _ICON + 5 + _LETTER * len(shown) + 12
        if x and x + room > width:
            x, y = 0.0, y + _LINE
        parts.append(
            f'<g transform="translate({x:g} {y:g})">{icon}{_svg_text(_ICON + 5, 9.5, shown, ink, "start", "1")}</g>'
        )
        x += room
    return parts, y + _LINE - top


def _colour_entries(scale: ColourScale, maps: Sequence[PlateMap]) -> list[tuple[str, str]]:
    """Return colour and name of each class that is there."""
    classes = scale.value.classes
    there = set(chain.from_iterable(plate.values[np.isfinite(plate.values)].tolist() for plate in maps))
    colours = scale.colours(np.arange(len(classes))) if classes else []
    return [(f"{_box(0.5, 0.5, _ICON - 1, colour)}</rect>", name)
            for number, (name, colour) in enumerate(zip(classes, colours, strict=True)) if number in there]  # fmt: skip


def _blank_icon(why: Blank, ink: str) -> str:
    return _blank_mark(why, 0.5, 0.5, _ICON - 1, "", ink)


def _scale_bar(scale: ColourScale, width: float, top: float, ink: str) -> list[str]:
    """Draw the bar of a scale with the values of both ends."""
    colours = scale.colours(np.linspace(scale.low, scale.high, _STOPS))
    long = min(width - 94, 150.0)
    step, left = long / _STOPS, 46.0 if scale.value.kind == "z" else 34.0
    boxes = [
        f'<rect x="{left + n * step:.2f}" y="{top:g}" width="{step + 0.3:.2f}" height="11" fill="{one}"/>'
        for n, one in enumerate(colours)
    ]
    beyond = ("≤ ", "≥ ") if scale.value.kind == "z" else ("", "")
    ends = (
        (left - 4, f"{beyond[0]}{scale.low:.3g}", "end"),
        (left + long + 4, f"{beyond[1]}{scale.high:.3g}", "start"),
    )
    return [*boxes, *(_svg_text(x, top + 9.5, text, ink, anchor, "1") for x, text, anchor in ends)]


def _fitting(text: str, width: float) -> str:
    """Shorten a text to a width in px, about."""
    most = max(4, int(width / _LETTER))
    return text if len(text) <= most else f"{text[: most - 1]}…"
