"""The gallery of the Results dock: thumbnails ranked by the score of a class or by the model's uncertainty."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from qtpy.QtCore import QSize, Qt
from qtpy.QtGui import QIcon, QPainter, QPixmap
from qtpy.QtWidgets import QCheckBox, QListView, QListWidget, QListWidgetItem, QPushButton, QWidget

from napari_milcnn.errors import MilcnnError
from napari_milcnn.figures.plots import PAPER, FigureStyle, gallery_figure, save_figure
from napari_milcnn.plugin.qt.forms import NarrowComboBox, Note, row, vertical_layout
from napari_milcnn.plugin.qt.icons import array_pixmap
from napari_milcnn.plugin.qt.job import Ending, Job
from napari_milcnn.plugin.results.plot_box import View
from napari_milcnn.results.tables import histogram, ranked, uncertainty_margins
from napari_milcnn.schema import NOTHING

if TYPE_CHECKING:
    from napari_milcnn.results.opened import OpenedResults

_PAGE = 24
"""Thumbnails that are added at a time."""
_THUMBNAIL_SIDE, _CAPTION_HEIGHT = 84, 32
_ROW_ROLE = Qt.ItemDataRole.UserRole


@dataclass(frozen=True)
class Thumb:
    """The thumbnail of a row, uint8 (Y, X, 3), or the reason why there is none."""

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
        self.rank.setToolTip("Order of the thumbnails")
        self.list = QListWidget()
        self.more, self.note = QPushButton("Show more"), Note()
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
        self.list.setIconSize(QSize(_THUMBNAIL_SIDE, _THUMBNAIL_SIDE))
        self.list.setGridSize(QSize(_THUMBNAIL_SIDE + 6, _THUMBNAIL_SIDE + _CAPTION_HEIGHT + 6))
        self.list.setMinimumHeight(2 * (_THUMBNAIL_SIDE + _CAPTION_HEIGHT + 12))
        self.list.setAccessibleName("Thumbnails")
        layout = vertical_layout(self)
        bar = QWidget()
        bar.setLayout(row(self.rank, self.evidence, stretch=0))
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
        counts, _ = histogram(found)
        self.rank.setCurrentIndex(found.classes.index(max(counts, key=lambda name: counts[name])))
        drawable = any(any(found.names_of(number)) for number in ranked(found, None)[:1])
        self.evidence.setEnabled(drawable)
        self.evidence.setToolTip(
            "Show the class map over the image, and the outlines of the objects"
            if drawable
            else "These results contain neither class maps nor masks"
        )
        if not drawable:
            self.evidence.setChecked(False)
        self.refill()

    def class_name(self) -> str | None:
        """Return the class whose score the gallery is sorted by; None for uncertainty."""
        assert self.found is not None
        number = self.rank.currentIndex()
        return self.found.classes[number] if number < len(self.found.classes) else None

    def refill(self) -> None:
        """Start again with the first images of the order."""
        self.list.clear()
        self._pictures = {}
        if self.found is not None:
            self._order = ranked(self.found, self.class_name())
            gone = not any(self.found.files.values())
            self.note.say("The images were not found. Click Images… to choose their folder." if gone else "")
            self._add_page()

    def _add_page(self) -> None:
        """Add the next images of the order, and make their thumbnails."""
        begin = self.list.count()
        for number in self._order[begin : begin + _PAGE].tolist():
            item = QListWidgetItem(QIcon(_empty_square()), self._caption(number))
            item.setData(_ROW_ROLE, number)
            item.setToolTip(str(self._file(number)))
            item.setSizeHint(QSize(_THUMBNAIL_SIDE + 6, _THUMBNAIL_SIDE + _CAPTION_HEIGHT))
            self.list.addItem(item)
        left = len(self._order) - self.list.count()
        self.more.setVisible(left > 0)
        self.more.setText(f"Show more ({left:,} left)")
        self._make_pictures()

    def _file(self, number: int) -> str:
        assert self.found is not None
        return str(self.found.table["file"].iat[number])

    def _caption(self, number: int) -> str:
        assert self.found is not None
        name = self.class_name()
        top = str(self.found.table["top"].iat[number]) or NOTHING
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
        """Stop making thumbnails."""
        if self._job is not None:
            self._job.abandon()
            self._job = None

    @property
    def busy(self) -> bool:
        """Whether thumbnails are being made."""
        return self._job is not None

    def _row_of(self, place: int) -> int:
        return int(self.list.item(place).data(_ROW_ROLE))

    def _on_thumb(self, thumb: Thumb) -> None:
        items = [self.list.item(i) for i in range(self.list.count()) if self._row_of(i) == thumb.row]
        for item in items:
            if thumb.picture is None:
                item.setToolTip(thumb.error)
                continue
            self._pictures[thumb.row] = thumb.picture
            item.setIcon(QIcon(_on_square(array_pixmap(thumb.picture))))

    def _on_end(self, ending: Ending) -> None:
        self._job = None
        self.note.say(ending.error)

    def _on_item(self, item: QListWidgetItem) -> None:
        self.row_picked.emit(int(item.data(_ROW_ROLE)))

    @property
    def can_save(self) -> bool:
        """Whether there are thumbnails to save."""
        return bool(self._pictures)

    def save(self, path: Path) -> None:
        """Save the thumbnails made so far, with their captions, on white ground."""
        shown = [i for i in range(self.list.count()) if self._row_of(i) in self._pictures]
        pictures = [self._pictures[self._row_of(i)] for i in shown]
        save_figure(gallery_figure(pictures, [self.list.item(i).text() for i in shown], PAPER), path)


def thumbs(found: OpenedResults, rows: list[int], class_name: str | None, evidence: bool) -> Iterator[Thumb]:
    """Yield the thumbnails of some rows in turn; one that cannot be made has its reason."""
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
                    shown = class_name or str(found.table["top"].iat[number])
                    picture = (
                        picture if not shown else Overlay(*found.names_of(number), shown).over(picture, image, plane)
                    )
            yield Thumb(number, picture)
        except (MilcnnError, OSError) as error:
            yield Thumb(number, error=str(error))
        except ValueError:
            yield Thumb(number, error=f"{file} lacks the plane of this row; it is not the image that was classified")


def _on_square(pixmap: QPixmap) -> QPixmap:
    """Scale a thumbnail and centre it on a transparent square, so that all thumbnails line up."""
    square, side = _empty_square(), _THUMBNAIL_SIDE
    small = pixmap.scaled(side, side, Qt.AspectRatioMode.KeepAspectRatio, Qt.TransformationMode.SmoothTransformation)
    painter = QPainter(square)
    painter.drawPixmap((side - small.width()) // 2, (side - small.height()) // 2, small)
    painter.end()
    return square


def _empty_square() -> QPixmap:
    square = QPixmap(_THUMBNAIL_SIDE, _THUMBNAIL_SIDE)
    square.fill(Qt.GlobalColor.transparent)
    return square
