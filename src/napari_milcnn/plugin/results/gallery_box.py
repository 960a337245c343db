"""The gallery of the Results dock, drawn: thumbnails that a click opens."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtCore import QSize, Qt
from qtpy.QtGui import QIcon, QPainter, QPixmap
from qtpy.QtWidgets import QCheckBox, QListView, QListWidget, QListWidgetItem, QPushButton, QWidget

from napari_milcnn.plugin.qt.forms import NarrowComboBox, Note, plain_text, row, there, vertical_layout
from napari_milcnn.plugin.qt.icons import array_pixmap
from napari_milcnn.plugin.results.gallery import GallerySession
from napari_milcnn.plugin.results.plot_box import View

if TYPE_CHECKING:
    from napari_milcnn.figures.plots import FigureStyle
    from napari_milcnn.plugin.results.reading import ReadResults

_THUMBNAIL_SIDE, _CAPTION_HEIGHT = 84, 32
_ROW_ROLE = Qt.ItemDataRole.UserRole
_RANK_HELP = (
    "Order of the thumbnails: by the score of a class, highest first, or by uncertainty, the rows between whose two "
    "best classes the model could hardly decide first"
)
_EVIDENCE_HELP = "Show the class map over the image, and the outlines of the objects"


class GalleryView(View):
    """Draws a `GallerySession`, and tells it what the user did."""

    title = "Gallery"

    def __init__(self, session: GallerySession) -> None:
        super().__init__()
        self.session = session
        self.rank, self.evidence = NarrowComboBox(), QCheckBox("evidence")
        self.rank.setAccessibleName("Order of the gallery")
        self.rank.setToolTip(_RANK_HELP)
        self.evidence.setToolTip(_EVIDENCE_HELP)
        self.list = QListWidget()
        self.more, self.note = QPushButton("Show more"), Note()
        self.more.setToolTip("Show the next thumbnails of this order")
        self._lay_out()
        self.rank.activated.connect(lambda number: session.rank_by(self.rank.itemData(number)))
        self.evidence.clicked.connect(session.show_evidence)
        self.more.clicked.connect(session.show_more)
        self.list.itemClicked.connect(self._on_item)
        self.list.itemActivated.connect(self._on_item)
        session.order_changed.connect(self._on_order)
        session.page_added.connect(self._on_page)
        session.thumb_made.connect(self._on_thumb)
        session.changed.connect(self._on_change)

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
        self.list.setToolTip("Click a thumbnail, or press Enter on it, to open its image")
        layout = vertical_layout(self)
        bar = QWidget()
        bar.setLayout(row(self.rank, self.evidence, stretch=0))
        layout.addWidget(bar)
        layout.addWidget(self.note)
        layout.addWidget(self.list, 1)
        layout.addWidget(self.more)

    def show_results(self, opened: ReadResults, _style: FigureStyle) -> None:
        """Show the gallery of other results."""
        self.session.show(opened)

    def _on_order(self) -> None:
        """Offer the orders of these results, and start again with an empty list."""
        session = self.session
        assert session.opened is not None
        self.rank.clear()
        for name in session.opened.found.classes:
            self.rank.addItem(f"score of {name}", name)
        self.rank.addItem("uncertainty", None)
        self.rank.setCurrentIndex(self.rank.findData(session.class_name))
        self.evidence.setEnabled(session.has_evidence)
        self.evidence.setToolTip(
            _EVIDENCE_HELP if session.has_evidence else "These results contain neither class maps nor masks"
        )
        self.evidence.setChecked(session.evidence)
        self.list.clear()
        self._on_change()

    def _on_page(self) -> None:
        """Add the rows that are shown now."""
        found = self.session.opened
        assert found is not None
        for number in self.session.rows[self.list.count() :]:
            item = QListWidgetItem(QIcon(_empty_square()), self.session.caption(number))
            item.setData(_ROW_ROLE, number)
            item.setToolTip(plain_text(str(found.found.table["file"].iat[number])))
            item.setSizeHint(QSize(_THUMBNAIL_SIDE + 6, _THUMBNAIL_SIDE + _CAPTION_HEIGHT))
            self.list.addItem(item)
        self.more.setVisible(self.session.left > 0)
        self.more.setText(f"Show more ({self.session.left:,} left)")

    def _on_thumb(self, number: int) -> None:
        item = there(self.list.item(self.session.rows.index(number)))
        picture = self.session.pictures.get(number)
        if picture is None:
            item.setToolTip(plain_text(self.session.errors[number]))
        else:
            item.setIcon(QIcon(_on_square(array_pixmap(picture))))

    def _on_change(self) -> None:
        self.note.say(self.session.note)

    def _on_item(self, item: QListWidgetItem) -> None:
        self.row_picked.emit(int(item.data(_ROW_ROLE)))

    @property
    def can_save(self) -> bool:
        """Whether there are thumbnails to save."""
        return bool(self.session.pictures)

    def save(self, path: Path) -> None:
        """Save the thumbnails made so far, with their captions, on white ground."""
        from napari_milcnn.figures.plots import PAPER, gallery_figure, save_figure

        shown = [number for number in self.session.rows if number in self.session.pictures]
        pictures = [self.session.pictures[number] for number in shown]
        save_figure(gallery_figure(pictures, [self.session.caption(number) for number in shown], PAPER), path)


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
