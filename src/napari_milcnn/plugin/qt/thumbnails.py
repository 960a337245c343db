"""Thumbnails of the images of a table, made beside the window; those in view come first."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from qtpy.QtCore import QObject, Signal
from qtpy.QtGui import QIcon

from napari_milcnn.errors import MilcnnError
from napari_milcnn.plugin.qt.icons import array_pixmap, plain_icon
from napari_milcnn.plugin.qt.job import Ending, Job

if TYPE_CHECKING:
    from napari_milcnn.labels.table import LabelledImage, LabelTable

ICON_SIDE = 40
"""Longest side of a thumbnail, in px."""
_BATCH = 12
"""Thumbnails made in one job; the next job begins with the rows that are in view by then."""
_MOST_IN_MEMORY = 20_000
"""Thumbnails in memory, about 5 kB each; beyond that all are dropped and made again when they are needed."""


class Thumbnails(QObject):
    """Thumbnails of the images of a table, by row.

    Signals
    -------
    made : int
        The thumbnail of this row is ready, or `errors` says why there is none.
    """

    made = Signal(int)

    def __init__(self, parent: QObject) -> None:
        super().__init__(parent)
        self.errors: dict[int, str] = {}
        self._table: LabelTable | None = None
        self._pictures: dict[int, QIcon] = {}
        self._wanted: dict[int, None] = {}
        self._job: Job | None = None

    @property
    def busy(self) -> bool:
        """Whether thumbnails are being made."""
        return self._job is not None

    def show_table(self, table: LabelTable | None) -> None:
        """Drop all thumbnails, because the rows now belong to another table."""
        self._table, self._wanted, self._pictures, self.errors = table, {}, {}, {}
        if self._job is not None:
            self._job.stop()

    def picture(self, row: int) -> QIcon | None:
        """Return the thumbnail of a row; if there is none yet, have it made and return None."""
        found = self._pictures.get(row)
        if found is None and row not in self.errors:
            self._wanted.pop(row, None)
            self._wanted[row] = None  # the latest request comes first: its row is in view now
            self._start()
        return found

    def _start(self) -> None:
        table = self._table
        if self._job is not None or table is None or not self._wanted:
            return
        rows = list(reversed(self._wanted))[:_BATCH]
        if len(self._pictures) > _MOST_IN_MEMORY:
            self._pictures.clear()

        def take(step: tuple[int, np.ndarray | str]) -> None:
            if self._table is table:
                self._take(*step)

        images = [(row, table.images[row]) for row in rows]
        self._job = Job(lambda: _pictures(table, images), self, take, self._on_end)

    def _take(self, row: int, made: np.ndarray | str) -> None:
        self._wanted.pop(row, None)
        if isinstance(made, str):
            self.errors[row] = made
        else:
            self._pictures[row] = plain_icon(array_pixmap(made))
        self.made.emit(row)

    def _on_end(self, ending: Ending) -> None:
        self._job = None
        if ending.error:  # a bug; the same rows would fail again
            self._wanted.clear()
        self._start()


def _pictures(table: LabelTable, images: list[tuple[int, LabelledImage]]) -> Iterator[tuple[int, np.ndarray | str]]:
    """Yield (row, uint8 (Y, X, 3)) of each image, or (row, why there is no thumbnail)."""
    from napari_milcnn.figures.thumbnails import thumbnail

    for row, image in images:
        try:
            with table.open(image) as opened:
                yield row, thumbnail(opened, len(opened.planes) // 2, side=ICON_SIDE)
        except (MilcnnError, OSError) as error:
            yield row, str(error)
