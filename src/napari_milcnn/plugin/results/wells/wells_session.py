"""What the Results dock knows of wells: what the plates show, and which wells are chosen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from psygnal import Signal

from napari_milcnn.figures.plates import ColourScale, PlateMap, WellValue, colour_scale, plate_maps
from napari_milcnn.images.instruments import Well, parse_well
from napari_milcnn.plugin.results.session import Chosen
from napari_milcnn.schema import PLATE, WELL
from napari_milcnn.screens.opened_wells import WELL_WORDS
from napari_milcnn.screens.read import OpenedScreen

if TYPE_CHECKING:
    from napari_milcnn.plugin.results.reading import ReadResults
    from napari_milcnn.plugin.results.session import ResultsSession

WellKey = tuple[str, str]
"""Plate and name of a well."""


@dataclass(frozen=True, eq=False)
class ShownPlates:
    """The plates of the open results as one value shows them, and which well of the results is at each place."""

    maps: tuple[PlateMap, ...]
    scale: ColourScale
    keys: dict[tuple[str, Well], WellKey]


@dataclass(frozen=True, eq=False)
class PlatesRequest:
    """Put a value of all wells into their places."""

    opened: ReadResults
    value: WellValue

    def steps(self) -> Iterator[ShownPlates]:
        """Yield the plates."""
        wells, found = self.opened.wells, self.opened.found
        others = found.absent if isinstance(found, OpenedScreen) else {}
        maps = plate_maps(wells, self.value, words=WELL_WORDS, others=others)
        places = zip(wells[PLATE].astype(str), wells[WELL].astype(str), strict=True)
        keys = {(key[0], place): key for key in places if (place := parse_well(key[1])) is not None}
        yield ShownPlates(tuple(maps), colour_scale(self.value, maps), keys)


class WellsSession:
    """The wells of the results that are open, and those that the user chose among them.

    Parameters
    ----------
    results : ResultsSession
        What is open, and which images are listed: those of chosen wells.

    Attributes
    ----------
    value : WellValue or None
        What the plates show.
    plates : ShownPlates or None
        The plates; None until they are made.
    values_changed, plates_changed, chosen_changed : Signal
        ShownPlates can show other values; they show something else; other wells are chosen.
    requested, withdrawn : Signal
        As of `ResultsSession`.
    """

    values_changed = Signal()
    plates_changed = Signal()
    chosen_changed = Signal()
    at_hand_changed = Signal()
    requested = Signal(object)
    withdrawn = Signal(object)

    def __init__(self, results: ResultsSession) -> None:
        self.results = results
        self.value: WellValue | None = None
        self.plates: ShownPlates | None = None
        self._shown: ReadResults | None = None
        self._making: PlatesRequest | None = None
        results.chosen_changed.connect(self.chosen_changed.emit)
        for signal in (results.chosen_changed, results.row_changed, results.results_changed):
            signal.connect(self.at_hand_changed.emit)

    @property
    def is_busy(self) -> bool:
        """Whether plates are being made."""
        return self._making is not None

    @property
    def chosen(self) -> tuple[WellKey, ...]:
        """Plate and name of the chosen wells."""
        return () if self.results.chosen is None else self.results.chosen.wells

    @property
    def at_hand(self) -> tuple[WellKey, ...]:
        """The chosen wells; where none is chosen, that of the image that the user looks at."""
        opened, row = self.results.opened, self.results.row
        if self.chosen or opened is None or row is None:
            return self.chosen
        plate, well = opened.places.iloc[row]
        return ((str(plate), str(well)),) if well else ()

    def show(self) -> None:
        """Show the wells of the results that are open now; a value that these have, too, stays chosen."""
        opened = self.results.opened
        if opened is None or opened is self._shown:
            return
        self._shown = opened
        column = None if self.value is None else self.value.column
        value = next((one for one in opened.values if one.column == column), next(iter(opened.values), None))
        self.values_changed.emit()
        self.show_value(value)

    def show_value(self, value: WellValue | None) -> None:
        """Colour the wells by another value; None where there is none."""
        self.value = value
        if self._making is not None:
            before, self._making = self._making, None
            self.withdrawn.emit(before)
        if value is None or self._shown is None:
            self.plates = None
            self.plates_changed.emit()
        else:
            self._making = PlatesRequest(self._shown, value)
            self.requested.emit(self._making)

    def choose(self, wells: Sequence[WellKey], *, more: bool = False) -> None:
        """Choose wells, whose images are then listed.

        With `more` they are chosen beside the others, or no longer where all of them are chosen already.
        """
        opened, new = self.results.opened, tuple(dict.fromkeys(wells))
        if more and set(new) <= set(self.chosen):
            new = tuple(one for one in self.chosen if one not in new)
        elif more:
            new = tuple(dict.fromkeys((*self.chosen, *new)))
        if opened is None or new == self.chosen:
            return
        files = opened.found.table["file"].iloc[opened.rows_of(new)].unique()
        words = f"{wells_in_words(new)}: {len(files)} image{'s'[: len(files) != 1]}"
        self.results.choose(Chosen(tuple(files), words, new) if new else None)

    def open(self, well: WellKey) -> None:
        """Choose a well, and open its first image."""
        opened = self.results.opened
        rows = [] if opened is None else opened.rows_of([well]).tolist()
        self.choose([well])
        if rows:
            self.results.open_image(rows[0])

    def take(self, request: object, step: ShownPlates) -> None:
        """Take the plates."""
        if request is self._making:
            self.plates = step
            self.plates_changed.emit()

    def end(self, request: object, error: str = "", *, stopped: bool = False) -> None:
        """Notice that a request has ended."""
        if request is self._making:
            self._making = None


def wells_in_words(wells: Sequence[WellKey]) -> str:
    """Name a well, with its plate where it has one, or count several."""
    if len(wells) != 1:
        return f"{len(wells)} wells"
    plate, name = wells[0]
    return f"{name} of {plate}" if plate else name
