"""The section of the Train dock that shows a few images with the class map of the network as it is now."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QGridLayout, QLabel, QWidget

from napari_milcnn.figures.palette import class_colours
from napari_milcnn.plugin.qt.forms import chip, heading, plain_text, vertical_layout
from napari_milcnn.plugin.qt.icons import array_pixmap
from napari_milcnn.schema import NOTHING

if TYPE_CHECKING:
    from napari_milcnn.training.preview import PreviewImage

_MOST_PREVIEWS = 4
_PREVIEW_WIDTH = 132


class PreviewBox(QWidget):
    """Thumbnails in two columns, each with its label, its score and, if the network is wrong, the predicted class."""

    def __init__(self) -> None:
        super().__init__()
        self.pictures = [QLabel() for _ in range(_MOST_PREVIEWS)]
        self.captions = [QLabel() for _ in range(_MOST_PREVIEWS)]
        grid = QGridLayout()
        grid.setContentsMargins(0, 0, 0, 0)
        for number, (picture, caption) in enumerate(zip(self.pictures, self.captions, strict=True)):
            caption.setWordWrap(True)
            caption.setTextFormat(Qt.TextFormat.RichText)
            grid.addWidget(picture, 2 * (number // 2), number % 2)
            grid.addWidget(caption, 2 * (number // 2) + 1, number % 2)
        layout = vertical_layout(self)
        title = heading("Where the network looks")
        title.setToolTip("The class map of each image's label, in the colour of the class; updated after each epoch")
        layout.addWidget(title)
        layout.addLayout(grid)
        self.hide()

    def show_previews(self, previews: Sequence[PreviewImage], classes: Sequence[str]) -> None:
        """Show these previews in place of the last ones."""
        self.setVisible(bool(previews))
        colours = class_colours(tuple(classes))
        for number, (picture, caption) in enumerate(zip(self.pictures, self.captions, strict=True)):
            there = number < len(previews)
            picture.setVisible(there)
            caption.setVisible(there)
            if there:
                preview = previews[number]
                pixmap = array_pixmap(preview.rgb)
                picture.setPixmap(pixmap.scaledToWidth(_PREVIEW_WIDTH, Qt.TransformationMode.SmoothTransformation))
                picture.setToolTip(plain_text(str(preview.image.file)))
                wrong = "" if preview.top == preview.label else f", predicted {escape(preview.top) or NOTHING}"
                caption.setText(f"{chip(colours[preview.label], preview.label)} {preview.score:.2f}{wrong}")
