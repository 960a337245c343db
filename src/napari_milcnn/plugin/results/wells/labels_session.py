"""What the Results dock knows of labels of wells: which table they go to, and what came of the last one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from psygnal import Signal

from napari_milcnn.errors import LabelsError
from napari_milcnn.plugin.qt.notices import Level, Notice, Question
from napari_milcnn.plugin.results.wells.wells_session import WellKey, wells_in_words
from napari_milcnn.screens.well_labels import in_the_way_in_words, labels_of_wells, labels_table

if TYPE_CHECKING:
    from napari_milcnn.plugin.results.wells.wells_session import WellsSession
    from napari_milcnn.results.opened import OpenedResults

NOTHING_SAID = Notice("", "")


@dataclass(frozen=True)
class InTheWay:
    """Images have other labels already: which, in words."""

    words: str


@dataclass(frozen=True, eq=False)
class LabelRequest:
    """Write the label of some wells to a table; other labels are replaced only with `replace`."""

    found: OpenedResults
    wells: tuple[WellKey, ...]
    labels: tuple[str, ...]
    table: Path
    replace: bool = False

    def steps(self) -> Iterator[str | InTheWay]:
        """Yield what was done, or what is in the way."""
        plan = labels_of_wells(self.found, self.wells, self.labels, self.table)
        if plan.in_the_way and not self.replace:
            yield InTheWay(in_the_way_in_words(plan))
        else:
            yield plan.write()


class WellLabelsSession:
    """Labels that the user gives the wells at hand.

    Parameters
    ----------
    wells : WellsSession
        Which wells are at hand.

    Attributes
    ----------
    message : Notice
        What came of the last label.
    question : Question or None
        Whether labels that are in the way are replaced.
    changed : Signal
        Any of these, the table, or the wells at hand changed.
    requested, withdrawn : Signal
        As of `ResultsSession`.
    """

    changed = Signal()
    requested = Signal(object)
    withdrawn = Signal(object)

    def __init__(self, wells: WellsSession) -> None:
        self.wells = wells
        self.message = NOTHING_SAID
        self.question: Question | None = None
        self._chosen_table: Path | None = None
        self._writing: LabelRequest | None = None
        self._asked: LabelRequest | None = None
        self._about = wells.at_hand
        wells.at_hand_changed.connect(self._on_wells)

    @property
    def is_busy(self) -> bool:
        """Whether labels are being written."""
        return self._writing is not None

    @property
    def table(self) -> Path | None:
        """The table that labels go to: the chosen one, or corrected_labels.csv in the folder of the results."""
        found = self.wells.results.found
        if self._chosen_table is not None or found is None:
            return self._chosen_table
        try:
            return labels_table(found)
        except LabelsError:
            return None

    @property
    def can_train(self) -> bool:
        """Whether there is a table to train from."""
        return self.table is not None and self.table.is_file()

    @property
    def classes(self) -> tuple[str, ...]:
        """Labels to choose from: the classes of the results."""
        found = self.wells.results.found
        return () if found is None else found.classes

    def choose_table(self, path: str | Path) -> None:
        """Write labels to another table, which may exist already."""
        self._chosen_table = Path(path)
        self.changed.emit()

    def label(self, text: str) -> None:
        """Label the wells at hand; several labels of one image are separated by |."""
        found, table = self.wells.results.found, self.table
        labels = tuple(name.strip() for name in text.split("|") if name.strip())
        self.question, self._asked = None, None
        if self._writing is not None or found is None or not self.wells.at_hand:
            return
        if not labels or table is None:
            missing = "Choose a label, or type a new one." if table is not None else "Choose a table for the labels."
            self._say(Notice("labels", missing, Level.WARNING))
            return
        self._write(LabelRequest(found, self.wells.at_hand, labels, table))

    def answer(self, yes: bool) -> None:
        """Answer the question whether labels that are in the way are replaced."""
        asked, self._asked, self.question = self._asked, None, None
        if yes and asked is not None:
            self._write(LabelRequest(asked.found, asked.wells, asked.labels, asked.table, replace=True))
        else:
            self._say(Notice("labels", "Nothing was changed."))

    def take(self, request: object, step: str | InTheWay) -> None:
        """Take what was done, or what is in the way."""
        if request is not self._writing or self._writing is None:
            return
        if isinstance(step, InTheWay):
            self._asked = self._writing
            new = f"Label {wells_in_words(self._writing.wells)} {'|'.join(self._writing.labels)}"
            self.question = Question(f"{step.words}. {new} in place of that?", "Replace labels", "Keep labels")
            self.changed.emit()
        else:
            self._say(Notice("labels", step))

    def end(self, request: object, error: str = "", *, stopped: bool = False) -> None:
        """Notice that a request has ended; `error` says why it failed."""
        if request is self._writing:
            self._writing = None
            if error:
                self.message = Notice("labels", f"{error}.", Level.ERROR)
            self.changed.emit()

    def _write(self, request: LabelRequest) -> None:
        self._say(NOTHING_SAID)
        self._writing = request
        self.changed.emit()
        self.requested.emit(request)

    def _say(self, message: Notice) -> None:
        self.message = message
        self.changed.emit()

    def _on_wells(self) -> None:
        """Forget what was said and asked of the wells before; it stays while a screen is read on."""
        if self.wells.at_hand != self._about:
            self._about = self.wells.at_hand
            self.message, self.question, self._asked = NOTHING_SAID, None, None
        self.changed.emit()
