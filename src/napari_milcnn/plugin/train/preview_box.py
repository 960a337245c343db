"""A few images with what the model sees in them now: one watches it learn where to look."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from qtpy.QtCore import Qt
from qtpy.QtGui import QImage, QPixmap
from qtpy.QtWidgets import QGridLayout, QLabel, QVBoxLayout, QWidget

from napari_milcnn.figures.palette import class_colours
from napari_milcnn.plugin.qt.forms import chip, heading

if TYPE_CHECKING:
    from napari_milcnn.training.preview import PreviewImage

SHOWN = 4
_WIDTH = 132


class GlanceBox(QWidget):
    """Thumbnails in two columns, each with its label, score and, where it is another, the answer."""

    def __init__(self) -> None:
        super().__init__()
        self.pictures = [QLabel() for _ in range(SHOWN)]
        self.captions = [QLabel() for _ in range(SHOWN)]
        grid = QGridLayout()
        grid.setContentsMargins(0, 0, 0, 0)
        for number, (picture, caption) in enumerate(zip(self.pictures, self.captions, strict=True)):
            caption.setWordWrap(True)
            caption.setTextFormat(Qt.TextFormat.RichText)
            grid.addWidget(picture, 2 * (number // 2), number % 2)
            grid.addWidget(caption, 2 * (number // 2) + 1, number % 2)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        title = heading("Where it looks")
        title.setToolTip("The class map of each image's label, in the class's colour; refreshed after each epoch")
        layout.addWidget(title)
        layout.addLayout(grid)
        self.hide()

    def show_glances(self, found: Sequence[PreviewImage], classes: Sequence[str]) -> None:
        """Show these pictures in place of the last ones."""
        self.setVisible(bool(found))
        colours = class_colours(tuple(classes))
        for number, (picture, caption) in enumerate(zip(self.pictures, self.captions, strict=True)):
            there = number < len(found)
            picture.setVisible(there)
            caption.setVisible(there)
            if there:
                glance = found[number]
                picture.setPixmap(_pixmap(glance))
                picture.setToolTip(str(glance.image.file))
                said = "" if glance.top == glance.label else f", says {glance.top}"
                caption.setText(f"{chip(colours[glance.label], glance.label)} {glance.score:.2f}{said}")


def _pixmap(glance: PreviewImage) -> QPixmap:
    height, width, _ = glance.rgb.shape
    picture = QImage(glance.rgb.tobytes(), width, height, 3 * width, QImage.Format.Format_RGB888)
    return QPixmap.fromImage(picture.copy()).scaledToWidth(_WIDTH, Qt.TransformationMode.SmoothTransformation)
