"""Pictures of the strongest and of typical cells of each class, or of fields where a screen lists no cells.

Decisions:

- The cells are chosen from the table of all cells, which is read a piece at a time; only the few images that are shown
  are opened again, a window of each. Pictures that every well would write beforehand would need gigabytes in a large
  screen, for the few dozen that a page shows.
- The strongest cells of a class have the highest mean evidence; a well gives two of them at most, so that one well does
  not fill the page. Typical cells lie nearest to the median evidence of the class in a random sample of its cells.
- A picture shows the cell in the middle. Its contrast is that of its surroundings, so a bright neighbour cannot make it
  black, nor noise look like a cell.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd

from napari_milcnn.errors import MilcnnError
from napari_milcnn.figures.overview import CHANNEL_COLOURS, composite
from napari_milcnn.figures.thumbnails import thumbnail
from napari_milcnn.images.stack import ImageStack, PlaneIndex, Window
from napari_milcnn.schema import FIELD_COLUMNS, PLANE_COLUMNS, PLATE, WELL, score_column

STRONGEST, TYPICAL = "strongest", "typical"
KINDS: Final = (STRONGEST, TYPICAL)
_MOST_OF_A_WELL: Final = 2
_SPARE: Final = 6
"""Candidates for each place among the strongest, since a well gives few of them."""
_SAMPLED_CELLS: Final = 4000
"""Cells of each class from which typical ones are chosen."""
_CELL_SIDES: Final = 2.6
"""Side of a picture in diameters of a cell."""
_LEAST_SIDE, _MOST_SIDE, _SURROUNDINGS = 48, 320, 256
"""Least and most side of the picture of a cell, and room around it from which the contrast is taken, in px."""


@dataclass(frozen=True)
class ShownCell:
    """A cell, or a whole field, that a gallery shows.

    Attributes
    ----------
    class_name : str
        The class that it shows.
    kind : str
        From `KINDS`.
    value : float
        Its mean evidence, or the score of the field.
    row : mapping
        Its row in the table of cells, or of predictions.
    side : int
        Side of its picture in px; 0 for a whole field.
    picture : ndarray or None
        RGB, uint8 (Y, X, 3); None if its image could not be read.
    """

    class_name: str
    kind: str
    value: float
    row: Mapping[str, object]
    side: int = 0
    picture: np.ndarray | None = None

    def place(self, with_plate: bool) -> str:
        """Return plate, well and site, as far as they are known; the plate only where there are several."""
        plate, well, site = (str(self.row.get(name, "") or "") for name in FIELD_COLUMNS)
        return ", ".join(filter(None, [plate if with_plate else "", well, site and f"site\N{NO-BREAK SPACE}{site}"]))


class _OfClass:
    """Collects candidates of one class from pieces of a table."""

    def __init__(self, seed: int) -> None:
        self.strongest: list[tuple[float, int, dict[str, object]]] = []
        self.sample: list[pd.DataFrame] = []
        self._rng = np.random.default_rng(seed)
        self._number = 0

    def add(self, rows: pd.DataFrame, values: np.ndarray, count: int) -> None:
        most = count * _SPARE
        for at in np.argsort(-values, kind="stable")[:most]:
            self._number += 1
            heapq.heappush(self.strongest, (float(values[at]), -self._number, rows.iloc[at].to_dict()))
            if len(self.strongest) > most:
                heapq.heappop(self.strongest)
        self.sample.append(rows.assign(_value=values, _key=self._rng.random(len(rows))))
        if sum(map(len, self.sample)) > 2 * _SAMPLED_CELLS:
            self.sample = [pd.concat(self.sample).nsmallest(_SAMPLED_CELLS, "_key")]

    def chosen(self, name: str, count: int, side: int) -> list[ShownCell]:
        found: list[ShownCell] = []
        wells: Counter[tuple[object, object]] = Counter()
        for value, _, row in sorted(self.strongest, key=lambda one: (-one[0], -one[1])):
            well = row.get(PLATE), row.get(WELL)
            if wells[well] < _MOST_OF_A_WELL and len(found) < count:
                wells[well] += 1
                found.append(ShownCell(name, STRONGEST, value, row, side))
        if not self.sample:
            return found
        sample = pd.concat(self.sample).nsmallest(_SAMPLED_CELLS, "_key")
        distance = (sample["_value"] - sample["_value"].median()).abs()
        nearest = sample.iloc[distance.to_numpy().argsort(kind="stable")[:count]]
        rows = [_named(row) for row in nearest.drop(columns=["_value", "_key"]).to_dict("records")]
        typical = zip(nearest["_value"].tolist(), rows, strict=True)
        return found + [ShownCell(name, TYPICAL, float(value), row, side) for value, row in typical]


def _named(row: Mapping[object, object]) -> dict[str, object]:
    return {str(name): value for name, value in row.items()}


def choose_cells(pieces: Iterable[pd.DataFrame], classes: Sequence[str], count: int = 6) -> list[ShownCell]:
    """Choose the cells that a gallery shows.

    Parameters
    ----------
    pieces : iterable of DataFrame
        The table of cells, piece by piece: plate, well, class, shown, mean_evidence, area_px, y, x and what leads to
        the image.
    classes : sequence of str
        Classes to show, in this order.
    count : int
        Number of cells of each kind, for each class.
    """
    collected = {name: _OfClass(seed) for seed, name in enumerate(classes)}
    areas: list[float] = []
    for piece in pieces:
        shown = piece[piece["shown"].astype(bool) & piece["mean_evidence"].notna()]
        areas += shown["area_px"].head(1000).astype(float).tolist()
        for name, rows in shown.groupby("class", sort=False):
            if name in collected:
                collected[str(name)].add(rows, rows["mean_evidence"].to_numpy(float), count)
    diameter = 2 * np.sqrt(np.median(areas) / np.pi) if areas else 0.0
    side = int(np.clip(_CELL_SIDES * diameter, _LEAST_SIDE, _MOST_SIDE))
    return [one for name, found in collected.items() for one in found.chosen(name, count, side)]


def choose_fields(predictions: pd.DataFrame, classes: Sequence[str], count: int = 6) -> list[ShownCell]:
    """Choose the fields that a gallery shows where no cells are known: by their score of each class."""
    found: list[ShownCell] = []
    for seed, name in enumerate(classes):
        own = _OfClass(seed)
        rows = predictions[(predictions["top"] == name) & predictions[score_column(name)].notna()]
        if len(rows):
            own.add(rows, rows[score_column(name)].to_numpy(float), count)
        found += own.chosen(name, count, 0)
    return found


def with_picture(
    cell: ShownCell,
    opened: Callable[[Mapping[str, object]], ImageStack],
    channels: Callable[[ImageStack], Sequence[int]],
) -> ShownCell:
    """Return a cell with its picture; without one if its image cannot be read any more.

    Parameters
    ----------
    cell : ShownCell
        The cell.
    opened : callable
        Function that opens the image of a row.
    channels : callable
        Function that gives the numbers of the channels to show of an image.
    """
    try:
        with opened(cell.row) as image:
            place = PlaneIndex(*(_whole(cell.row.get(name)) for name in PLANE_COLUMNS))
            plane = image.planes.index(place) if place in image.planes else 0
            picture = _picture(cell, image, plane, tuple(channels(image)))
    except (MilcnnError, OSError):
        return cell
    return ShownCell(cell.class_name, cell.kind, cell.value, cell.row, cell.side, picture)


def _whole(value: object) -> int:
    try:
        return int(float(str(value)))
    except ValueError:
        return 0


def _picture(cell: ShownCell, image: ImageStack, plane: int, channels: tuple[int, ...]) -> np.ndarray:
    if not cell.side:
        return thumbnail(image, plane, channels)
    y, x = (round(float(str(cell.row[name]))) for name in ("y", "x"))
    height, width = image.plane_shape
    side = min(cell.side, height, width)
    top, left = (int(np.clip(at - side // 2, 0, length - side)) for at, length in ((y, height), (x, width)))
    y0, x0 = max(0, top - _SURROUNDINGS), max(0, left - _SURROUNDINGS)
    y1, x1 = min(height, top + side + _SURROUNDINGS), min(width, left + side + _SURROUNDINGS)
    raw = image.plane(plane, channels[: len(CHANNEL_COLOURS)], Window(y0, y1, x0, x1)).astype(np.float32)
    picture = composite(raw)[top - y0 : top - y0 + side, left - x0 : left - x0 + side]
    return np.asarray((255 * picture).round().astype(np.uint8))
