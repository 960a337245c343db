"""What the Results dock knows of wells that are alike: the map of all wells, and a list of those like one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from psygnal import Signal

from napari_milcnn.plugin.results.wells.wells_session import WellKey, wells_in_words
from napari_milcnn.schema import CONTROL, PLATE, TOP, TREATMENT_COLUMNS, WELL
from napari_milcnn.screens.likeness import (
    CLUSTER,
    LIKENESS,
    MAP_COLUMNS,
    UNEXPLAINED,
    map_of_wells,
    unexplained_wells,
    wells_like,
)
from napari_milcnn.screens.read import OpenedScreen

if TYPE_CHECKING:
    from napari_milcnn.plugin.results.reading import ReadResults
    from napari_milcnn.plugin.results.wells.wells_session import WellsSession

NEEDS_FEATURES = (
    "Needs the features of wells, which napari-milcnn screen writes. Open the folder of a screen with three wells or "
    "more."
)
_MOST_KINDS = 60
"""Most different texts of a column that a map is coloured by."""


@dataclass(frozen=True, eq=False)
class WellMap:
    """All wells on a map.

    Attributes
    ----------
    table : DataFrame
        One row a well: plate, well, top, and the columns of the layout.
    points : ndarray
        Their places, float64 (wells, 2).
    colours : tuple of str
        Columns of the table by which the map can be coloured.
    """

    table: pd.DataFrame
    points: np.ndarray
    colours: tuple[str, ...]

    @property
    def keys(self) -> list[WellKey]:
        """Plate and name of each well."""
        return list(zip(self.table[PLATE], self.table[WELL], strict=True))


@dataclass(frozen=True, eq=False)
class WellList:
    """Wells in an order, and what order that is, in words."""

    words: str
    table: pd.DataFrame


@dataclass(frozen=True, eq=False)
class MapRequest:
    """Lay out all wells."""

    opened: ReadResults

    def steps(self) -> Iterator[WellMap]:
        """Yield the map."""
        table = map_of_wells(_features_of(self.opened))
        points = table[list(MAP_COLUMNS)].to_numpy(float)
        table = _with_tops(table, self.opened)
        names = [TOP, PLATE, *TREATMENT_COLUMNS, CONTROL, "label"]
        known = [name for name in names if name in table and 1 <= table[name].nunique() <= _MOST_KINDS]
        colours = [name for name in known if name != PLATE or table[PLATE].nunique() > 1]
        yield WellMap(table, points, tuple(colours))


@dataclass(frozen=True, eq=False)
class LikeRequest:
    """List the wells that are most like one well; without a well, those that no class explains."""

    opened: ReadResults
    well: WellKey | None

    def steps(self) -> Iterator[WellList]:
        """Yield the list."""
        features = _features_of(self.opened)
        if self.well is None:
            found, words = unexplained_wells(features), "Wells like nothing known come first"
            front = [UNEXPLAINED, CLUSTER]
        else:
            found, words = wells_like(features, *self.well), f"Wells like {wells_in_words([self.well])}"
            front = [LIKENESS]
        yield WellList(words, _shown_columns(_with_tops(found, self.opened), front))


def _features_of(opened: ReadResults) -> pd.DataFrame:
    found = opened.found
    assert isinstance(found, OpenedScreen)
    assert found.features is not None
    return found.features


def _with_tops(table: pd.DataFrame, opened: ReadResults) -> pd.DataFrame:
    return table.drop(columns=TOP, errors="ignore").merge(
        opened.wells[[PLATE, WELL, TOP]], on=[PLATE, WELL], how="left"
    )


def _shown_columns(table: pd.DataFrame, front: Sequence[str]) -> pd.DataFrame:
    """Return the columns of wells that a list shows."""
    plate = [PLATE] if table[PLATE].nunique() > 1 else []
    layout = [name for name in (*TREATMENT_COLUMNS, CONTROL, "label") if name in table]
    rest = [name for name in layout if table[name].notna().any() and (table[name].astype(str) != "").any()]
    return table[[*plate, WELL, *front, TOP, *rest, *([] if plate else [PLATE])]].rename(columns={TOP: "class"})


class LikenessSession:
    """The map of the wells of the open results, and a list of some of them.

    Parameters
    ----------
    wells : WellsSession
        The wells, and which of them are chosen.

    Attributes
    ----------
    colour : str
        The column by which the map is coloured.
    map : WellMap or None
        All wells; None until the map is made, or where it cannot be.
    listed : WellList or None
        The wells that are listed.
    error : str
        Why there is no map or list.
    map_changed, list_changed : Signal
        The map, its colour, or the list changed.
    list_asked : Signal
        The user wants to see a list.
    requested, withdrawn : Signal
        As of `ResultsSession`.
    """

    map_changed = Signal()
    list_changed = Signal()
    list_asked = Signal()
    requested = Signal(object)
    withdrawn = Signal(object)

    def __init__(self, wells: WellsSession) -> None:
        self.wells = wells
        self.colour = TOP
        self.map: WellMap | None = None
        self.listed: WellList | None = None
        self.error = ""
        self._shown: ReadResults | None = None
        self._mapping: MapRequest | None = None
        self._listing: LikeRequest | None = None
        wells.results.results_changed.connect(self._forget)

    @property
    def is_busy(self) -> bool:
        """Whether a map or a list is being made."""
        return self._mapping is not None or self._listing is not None

    @property
    def can_list(self) -> bool:
        """Whether the open results have features of wells."""
        found = self.wells.results.found
        return isinstance(found, OpenedScreen) and found.features is not None and len(found.features) > 2

    @property
    def note(self) -> str:
        """Why there is nothing to see; empty if there is."""
        return self.error if self.can_list else NEEDS_FEATURES

    def show(self) -> None:
        """Have the map made of the results that are open now."""
        opened = self.wells.results.opened
        if opened is not None and opened is not self._shown and self.can_list:
            self._shown, self._mapping, self.error = opened, MapRequest(opened), ""
            self.requested.emit(self._mapping)

    def colour_by(self, column: str) -> None:
        """Colour the map by another column."""
        self.colour = column
        self.map_changed.emit()

    def list_like(self) -> None:
        """List the wells that are most like the one at hand."""
        if len(self.wells.at_hand) == 1:
            self._list(self.wells.at_hand[0])

    def list_unexplained(self) -> None:
        """List the wells that no class explains first."""
        self._list(None)

    def told(self, well: WellKey) -> str:
        """Say what a well is: its name, and what is known of it."""
        if self.map is None:
            return ""
        row = self.map.table.iloc[self.map.keys.index(well)]
        known = [
            f"{name} {row[name]}" for name in self.map.colours if name != PLATE and str(row[name]) not in ("", "nan")
        ]
        return " · ".join([wells_in_words([well]), *(text.removeprefix(f"{TOP} ") for text in known)])

    def choose_inside(self, outline: np.ndarray) -> None:
        """Choose and list the wells inside an outline on the map, float (corners, 2)."""
        from matplotlib.path import Path as Outline

        if self.map is None or len(outline) < 3:
            return
        inside = Outline(outline).contains_points(self.map.points)
        keys = [key for key, is_in in zip(self.map.keys, inside, strict=True) if is_in]
        self.listed = WellList(f"{len(keys)} wells inside the line", _shown_columns(self.map.table[inside], []))
        self.wells.choose(keys)
        self.list_changed.emit()

    def take(self, request: object, step: WellMap | WellList) -> None:
        """Take a map or a list."""
        if request is self._mapping and isinstance(step, WellMap):
            self.map = step
            if self.colour not in step.colours:
                self.colour = TOP
            self.map_changed.emit()
        elif request is self._listing and isinstance(step, WellList):
            self.listed = step
            self.list_changed.emit()

    def end(self, request: object, error: str = "", *, stopped: bool = False) -> None:
        """Notice that a request has ended; `error` says why it failed."""
        if request is self._mapping:
            self._mapping = None
        elif request is self._listing:
            self._listing = None
        else:
            return
        self.error = error
        self.map_changed.emit()

    def _list(self, well: WellKey | None) -> None:
        opened = self.wells.results.opened
        if opened is None or not self.can_list:
            return
        self._withdraw(self._listing)
        self._listing = LikeRequest(opened, well)
        self.list_asked.emit()
        self.requested.emit(self._listing)

    def _withdraw(self, request: object) -> None:
        if request is not None:
            self.withdrawn.emit(request)

    def _forget(self) -> None:
        """Drop what was said of other results."""
        self._withdraw(self._mapping)
        self._withdraw(self._listing)
        self._shown = self._mapping = self._listing = self.map = self.listed = None
        self.error = ""
        self.map_changed.emit()
        self.list_changed.emit()
