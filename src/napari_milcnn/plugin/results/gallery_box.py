"""Thumbnails of images, ranked by the score of a class or by how unsure the model is; made beside the window."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from qtpy.QtCore import QSize, Qt
from qtpy.QtGui import QIcon, QImage, QPixmap
from qtpy.QtWidgets import QCheckBox, QListView, QListWidget, QListWidgetItem, QPushButton, QVBoxLayout, QWidget

from napari_milcnn.errors import MilcnnError
from napari_milcnn.figures.plots import PAPER, FigureStyle, gallery_figure, save_figure
from napari_milcnn.plugin.qt.forms import NarrowComboBox, Note, row
from napari_milcnn.plugin.qt.job import Ending, Job
from napari_milcnn.plugin.results.plot_box import View
from napari_milcnn.results.tables import histogram, ranked, uncertainty_margins

if TYPE_CHECKING:
    from napari_milcnn.results.opened import OpenedResults

_PAGE = 24
_SIDE, _CAPTION = 84, 32
_EVIDENCE = "Lay the class map over the image, and draw the edges of the objects"
_ROW = Qt.ItemDataRole.UserRole


@dataclass(frozen=True)
class Thumb:
    """The picture of a row, uint8 (Y, X, 3), or why there is none."""

    row: int
    picture: np.ndarray | None = None
    error: str = ""


class GalleryView(View):
    """Ranked thumbnails; a click opens the image."""

    title = "Gallery"

    def __init__(self) -> None:
        super().__init__()
        self.found: OpenedResults | None = None
        self._job: Job | None = None
        self._pictures: dict[int, np.ndarray] = {}
        self._order = np.arange(0)
        self.rank, self.evidence = NarrowComboBox(), QCheckBox("evidence")
        self.rank.setAccessibleName("Order of the gallery")
        self.list = QListWidget()
        self.more, self.note = QPushButton("More"), Note()
        self._lay_out()
        self.rank.activated.connect(self.refill)
        self.evidence.toggled.connect(self.refill)
        self.more.clicked.connect(self._add_page)
        self.list.itemClicked.connect(self._on_item)
        self.list.itemActivated.connect(self._on_item)

    def _lay_out(self) -> None:
        self.list.setViewMode(QListView.ViewMode.IconMode)
        self.list.setResizeMode(QListView.ResizeMode.Adjust)
        self.list.setMovement(QListView.Movement.Static)
        self.list.setUniformItemSizes(True)
        self.list.setWordWrap(False)
        self.list.setTextElideMode(Qt.TextElideMode.ElideMiddle)
        self.list.setIconSize(QSize(_SIDE, _SIDE))
        self.list.setGridSize(QSize(_SIDE + 6, _SIDE + _CAPTION + 6))
        self.list.setMinimumHeight(2 * (_SIDE + _CAPTION + 12))
        self.list.setAccessibleName("Thumbnails")
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        bar = QWidget()
        bar.setLayout(row("by", self.rank, self.evidence, stretch=1))
        layout.addWidget(bar)
        layout.addWidget(self.note)
        layout.addWidget(self.list, 1)
        layout.addWidget(self.more)

    def show_results(self, found: OpenedResults, _style: FigureStyle) -> None:
        """Show the gallery of other results."""
        if found is self.found:
            return
        self.found = found
        self.rank.clear()
        self.rank.addItems([*(f"score of {name}" for name in found.classes), "uncertainty"])
        said, _ = histogram(found)
        self.rank.setCurrentIndex(found.classes.index(max(said, key=lambda name: said[name])))
        drawn = any(any(found.names_of(number)) for number in ranked(found, None)[:1])
        self.evidence.setEnabled(drawn)
        self.evidence.setToolTip(_EVIDENCE if drawn else "No class maps and no masks lie beside these results")
        if not drawn:
            self.evidence.setChecked(False)
        self.refill()

    def class_name(self) -> str | None:
        """Return the class that the gallery is ranked by; None for uncertainty."""
        assert self.found is not None
        number = self.rank.currentIndex()
        return self.found.classes[number] if number < len(self.found.classes) else None

    def refill(self) -> None:
        """Begin anew with the first of the ranks."""
        self.list.clear()
        self._pictures = {}
        if self.found is not None:
            self._order = ranked(self.found, self.class_name())
            gone = not any(self.found.files.values())
            self.note.say("The images were not found: choose where they are (Images…)." if gone else "")
            self._add_page()

    def _add_page(self) -> None:
        """Add the next of the ranks, and make their pictures."""
        begin = self.list.count()
        for number in self._order[begin : begin + _PAGE].tolist():
            item = QListWidgetItem(_blank(), self._caption(number))
            item.setData(_ROW, number)
            item.setToolTip(str(self._file(number)))
            item.setSizeHint(QSize(_SIDE + 6, _SIDE + _CAPTION))
            self.list.addItem(item)
        left = len(self._order) - self.list.count()
        self.more.setVisible(left > 0)
        self.more.setText(f"More ({left:,} left)")
        self._make_pictures()

    def _file(self, number: int) -> str:
        assert self.found is not None
        return str(self.found.table["file"].iat[number])

    def _caption(self, number: int) -> str:
        assert self.found is not None
        name = self.class_name()
        top = str(self.found.table["top"].iat[number])
        if name is None:
            value = f"{top}, margin {uncertainty_margins(self.found)[number]:.2f}"
        else:
            value = f"{self.found.scores[number, self.found.classes.index(name)]:.3f}"
        return f"{self.found.table['name'].iat[number]}\n{value}"

    def _make_pictures(self) -> None:
        self.stop()
        wanted = [self._row_of(i) for i in range(self.list.count()) if self._row_of(i) not in self._pictures]
        found, name = self.found, self.class_name()
        if found is None or not any(found.files.values()):
            return
        evidence = self.evidence.isChecked()
        self._job = Job(lambda: thumbs(found, wanted, name, evidence), self, self._on_thumb, self._on_end)

    def stop(self) -> None:
        """Make no more pictures."""
        if self._job is not None:
            self._job.stop()
            self._job.stepped.disconnect()
            self._job.ended.disconnect()
            self._job = None

    @property
    def busy(self) -> bool:
        """Whether pictures are being made."""
        return self._job is not None

    def _row_of(self, place: int) -> int:
        return int(self.list.item(place).data(_ROW))

    def _on_thumb(self, thumb: Thumb) -> None:
        items = [self.list.item(i) for i in range(self.list.count()) if self._row_of(i) == thumb.row]
        for item in items:
            if thumb.picture is None:
                item.setToolTip(thumb.error)
                continue
            self._pictures[thumb.row] = thumb.picture
            item.setIcon(QIcon(_pixmap(thumb.picture)))

    def _on_end(self, ending: Ending) -> None:
        self._job = None
        self.note.say(ending.error)

    def _on_item(self, item: QListWidgetItem) -> None:
        self.row_picked.emit(int(item.data(_ROW)))

    @property
    def can_save(self) -> bool:
        """Whether there is a picture to save."""
        return bool(self._pictures)

    def save(self, path: Path) -> None:
        """Save the thumbnails that were made, with their captions, on white."""
        shown = [i for i in range(self.list.count()) if self._row_of(i) in self._pictures]
        pictures = [self._pictures[self._row_of(i)] for i in shown]
        save_figure(gallery_figure(pictures, [self.list.item(i).text() for i in shown], PAPER), path)


def thumbs(found: OpenedResults, rows: list[int], class_name: str | None, evidence: bool) -> Iterator[Thumb]:
    """Make the pictures of some rows, in turn; one that cannot be made says why."""
    from napari_milcnn.figures.thumbnails import Overlay, thumbnail

    for number in rows:
        file = str(found.table["file"].iat[number])
        path, at = found.files[file], found.plane_of(number)
        if path is None:
            yield Thumb(number, error=f"{file} was not found")
            continue
        try:
            with found.reading.open(path) as image:
                plane = len(image.planes) // 2 if at is None else image.planes.index(at)
                picture = thumbnail(image, plane)
                if evidence:
                    seen = class_name or str(found.table["top"].iat[number])
                    picture = Overlay(*found.names_of(number), seen).over(picture, image, plane)
            yield Thumb(number, picture)
        except (MilcnnError, OSError) as error:
            yield Thumb(number, error=str(error))
        except ValueError:
            yield Thumb(number, error=f"{file} has no such plane: it is another image than the one classified")


def _pixmap(picture: np.ndarray) -> QPixmap:
    """Return a thumbnail in the middle of a square, so that all of them line up."""
    height, width = picture.shape[:2]
    data = np.ascontiguousarray(picture).tobytes()  # which the image below does not keep alive
    image = QImage(data, width, height, 3 * width, QImage.Format.Format_RGB888)
    return _squared(QPixmap.fromImage(image.copy()))


def _squared(pixmap: QPixmap) -> QPixmap:
    from qtpy.QtGui import QPainter

    square = _empty()
    small = pixmap.scaled(_SIDE, _SIDE, Qt.AspectRatioMode.KeepAspectRatio, Qt.TransformationMode.SmoothTransformation)
    painter = QPainter(square)
    painter.drawPixmap((_SIDE - small.width()) // 2, (_SIDE - small.height()) // 2, small)
    painter.end()
    return square


def _empty() -> QPixmap:
    square = QPixmap(_SIDE, _SIDE)
    square.fill(Qt.GlobalColor.transparent)
    return square


def _blank() -> QIcon:
    return QIcon(_empty())
