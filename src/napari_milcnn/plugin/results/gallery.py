"""What the gallery of the Results dock knows: the order of its rows, how many it shows, and their thumbnails."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from psygnal import Signal

from napari_milcnn.errors import MilcnnError
from napari_milcnn.schema import NOTHING

if TYPE_CHECKING:
    from napari_milcnn.plugin.results.reading import ReadResults
    from napari_milcnn.results.opened import OpenedResults

_PAGE = 24
"""Thumbnails that are added at a time."""


@dataclass(frozen=True)
class Thumb:
    """The thumbnail of a row, uint8 (Y, X, 3), or the reason why there is none."""

    row: int
    picture: np.ndarray | None = None
    error: str = ""


@dataclass(frozen=True, eq=False)
class ThumbsRequest:
    """Make the thumbnails of some rows; with evidence, that of a class, or of each row's top class for None."""

    found: OpenedResults
    rows: tuple[int, ...]
    class_name: str | None
    evidence: bool

    def steps(self) -> Iterator[Thumb]:
        """Yield the thumbnails in turn; one that cannot be made has its reason."""
        for row in self.rows:
            try:
                yield self._thumb(row)
            except (MilcnnError, OSError) as error:
                yield Thumb(row, error=str(error))

    def _thumb(self, row: int) -> Thumb:
        from napari_milcnn.figures.thumbnails import Overlay, thumbnail

        found = self.found
        image, plane = found.open(row)
        with image:
            picture = thumbnail(image, plane)
            shown = self.class_name or str(found.table["top"].iat[row])
            if self.evidence and shown:
                picture = Overlay(*found.names_of(row), shown).over(picture, image, plane)
        return Thumb(row, picture)


class GallerySession:
    """The rows of the open results as thumbnails, ranked by the score of a class or by the model's uncertainty.

    Attributes
    ----------
    class_name : str or None
        The class by whose score the rows are ranked; None ranks them by uncertainty.
    order_changed, page_added, changed : Signal
        Other results or another order are shown; more rows are shown; thumbnails begin or end to be made.
    thumb_made : Signal
        The thumbnail of this row is ready, or its reason in `errors`.
    requested, withdrawn : Signal
        As of `ResultsSession`.
    """

    order_changed = Signal()
    page_added = Signal()
    changed = Signal()
    thumb_made = Signal(int)
    requested = Signal(object)
    withdrawn = Signal(object)

    def __init__(self) -> None:
        self.opened: ReadResults | None = None
        self.class_name: str | None = None
        self.evidence = False
        self.error = ""
        self.pictures: dict[int, np.ndarray] = {}
        self.errors: dict[int, str] = {}
        self._is_chosen = False
        self._values = np.zeros(0)
        self._order: tuple[int, ...] = ()
        self._shown = 0
        self._making: ThumbsRequest | None = None

    @property
    def is_busy(self) -> bool:
        """Whether thumbnails are being made."""
        return self._making is not None

    @property
    def rows(self) -> tuple[int, ...]:
        """The rows that are shown, in their order."""
        return self._order[: self._shown]

    @property
    def left(self) -> int:
        """Number of rows that are not shown yet."""
        return len(self._order) - self._shown

    @property
    def has_evidence(self) -> bool:
        """Whether the results contain class maps or masks that could be laid over the thumbnails."""
        return self.opened is not None and bool(self._order) and any(self.opened.found.names_of(self._order[0]))

    @property
    def note(self) -> str:
        """Why there are no thumbnails; empty if there are some, or some are being made."""
        if self.opened is not None and not any(self.opened.found.files.values()):
            return "The images were not found. Click Images… to choose their folder."
        return self.error

    def show(self, opened: ReadResults) -> None:
        """Show results in the order that the user chose, if they know it; else by their most frequent class."""
        if opened is self.opened:
            return
        self.opened = opened
        if not self._is_chosen or self.class_name not in (None, *opened.found.classes):
            self.class_name = max(opened.predicted, key=lambda name: opened.predicted[name])
            self._is_chosen = False
        self._refill()

    def rank_by(self, class_name: str | None) -> None:
        """Rank by the score of a class, or by uncertainty for None."""
        self.class_name, self._is_chosen = class_name, True
        self._refill()

    def show_evidence(self, evidence: bool) -> None:
        """Lay the class map over the thumbnails, and outline the objects."""
        self.evidence = evidence
        self._refill()

    def show_more(self) -> None:
        """Show the next rows of the order, and make their thumbnails."""
        self._shown = min(self._shown + _PAGE, len(self._order))
        self.page_added.emit()
        self._make()

    def caption(self, row: int) -> str:
        """Return the name of a row's image and the value by which it is ranked, in two lines."""
        assert self.opened is not None
        table = self.opened.found.table
        value = f"{self._values[row]:.3f}"
        if self.class_name is None:
            value = f"{str(table['top'].iat[row]) or NOTHING}, margin {self._values[row]:.2f}"
        return f"{table['name'].iat[row]!s}\n{value}"

    def stop(self) -> None:
        """Stop making thumbnails."""
        if self._making is not None:
            before, self._making = self._making, None
            self.withdrawn.emit(before)
            self.changed.emit()

    def take(self, request: object, thumb: Thumb) -> None:
        """Take the thumbnail of a row."""
        if request is not self._making:
            return
        if thumb.picture is None:
            self.errors[thumb.row] = thumb.error
        else:
            self.pictures[thumb.row] = thumb.picture
        self.thumb_made.emit(thumb.row)

    def end(self, request: object, error: str = "", *, stopped: bool = False) -> None:
        """Notice that a request has ended."""
        if request is self._making:
            self._making, self.error = None, error
            self.changed.emit()

    def _refill(self) -> None:
        from napari_milcnn.results.tables import ranked, uncertainty_margins

        assert self.opened is not None
        self.stop()
        found, name = self.opened.found, self.class_name
        self._values = uncertainty_margins(found) if name is None else found.scores[:, found.classes.index(name)]
        self._order, self._shown = tuple(ranked(found, name).tolist()), 0
        self.pictures, self.errors, self.error = {}, {}, ""
        self.evidence = self.evidence and self.has_evidence
        self.order_changed.emit()
        self.show_more()

    def _make(self) -> None:
        assert self.opened is not None
        self.stop()
        wanted = tuple(row for row in self.rows if row not in self.pictures and row not in self.errors)
        if wanted and any(self.opened.found.files.values()):
            self._making = ThumbsRequest(self.opened.found, wanted, self.class_name, self.evidence)
            self.changed.emit()
            self.requested.emit(self._making)
