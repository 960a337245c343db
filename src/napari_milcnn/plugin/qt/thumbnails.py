"""Small pictures of images, made beside the window, those in view first."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from qtpy.QtCore import QObject, Signal
from qtpy.QtGui import QIcon, QImage, QPixmap

from napari_milcnn.errors import MilcnnError
from napari_milcnn.plugin.qt.job import Ending, Job

if TYPE_CHECKING:
    from napari_milcnn.labels.table import LabelledImage, LabelTable

SIDE = 40
"""Longest side of a picture, in px."""
_BATCH = 12
"""Pictures made before it is asked anew which ones are in view."""
_KEPT = 20_000
"""Pictures in memory, about 5 kB each; beyond that all are made anew."""


class Thumbnails(QObject):
    """Pictures of the images of a table, by row.

    Signals
    -------
    made : int
        The picture of a row is there, or why there is none.
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
        """Whether pictures are being made."""
        return self._job is not None

    def show_table(self, table: LabelTable | None) -> None:
        """Forget all pictures: the rows are those of another table now."""
        self._table, self._wanted, self._pictures, self.errors = table, {}, {}, {}
        if self._job is not None:
            self._job.stop()

    def picture(self, row: int) -> QIcon | None:
        """Return the picture of a row; None where it is not there yet, which asks for it."""
        found = self._pictures.get(row)
        if found is None and row not in self.errors:
            self._wanted.pop(row, None)
            self._wanted[row] = None  # the last asked for is made first: what is in view now
            self._start()
        return found

    def _start(self) -> None:
        table = self._table
        if self._job is not None or table is None or not self._wanted:
            return
        rows = list(reversed(self._wanted))[:_BATCH]
        if len(self._pictures) > _KEPT:
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
            self._pictures[row] = _icon(made)
        self.made.emit(row)

    def _on_end(self, ending: Ending) -> None:
        self._job = None
        if ending.error:  # a fault: not tried again and again
            self._wanted.clear()
        self._start()


def _pictures(table: LabelTable, images: list[tuple[int, LabelledImage]]) -> Iterator[tuple[int, np.ndarray | str]]:
    from napari_milcnn.figures.thumbnails import thumbnail

    for row, image in images:
        try:
            with table.open(image) as opened:
                yield row, thumbnail(opened, len(opened.planes) // 2, side=SIDE)
        except (MilcnnError, OSError) as error:
            yield row, str(error)


def _icon(pixels: np.ndarray) -> QIcon:
    height, width = pixels.shape[:2]
    image = QImage(np.ascontiguousarray(pixels).tobytes(), width, height, 3 * width, QImage.Format.Format_RGB888)
    return plain_icon(QPixmap.fromImage(image))


def plain_icon(pixmap: QPixmap) -> QIcon:
    """Return an icon that keeps its colours where its row is selected."""
    icon = QIcon(pixmap)
    icon.addPixmap(pixmap, QIcon.Mode.Selected)
    return icon
