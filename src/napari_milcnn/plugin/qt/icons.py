"""Pixmaps and icons: arrays as pixmaps, squares in class colours, and icons that a selection does not tint."""

from __future__ import annotations

import numpy as np
from qtpy.QtCore import Qt
from qtpy.QtGui import QColor, QIcon, QImage, QPainter, QPixmap

DARK_GROUND = "#262930"
"""Ground behind class colours: white and yellow stay visible on it in every theme."""
_SQUARE, _MARGIN = 8, 2
"""Side of a colour square and the ground around it, in px."""


def array_pixmap(pixels: np.ndarray, ratio: float = 1.0) -> QPixmap:
    """Return an array as a pixmap.

    Parameters
    ----------
    pixels : ndarray
        uint8 (Y, X, 3) for RGB or (Y, X, 4) for RGBA.
    ratio : float
        Pixels of the array per pixel of the window, on a screen with a high resolution.
    """
    height, width, samples = pixels.shape
    kind = QImage.Format.Format_RGB888 if samples == 3 else QImage.Format.Format_RGBA8888
    data = np.ascontiguousarray(pixels).tobytes()  # QImage reads these bytes until the copy below is made
    pixmap = QPixmap.fromImage(QImage(data, width, height, samples * width, kind).copy())
    pixmap.setDevicePixelRatio(ratio)
    return pixmap


def plain_icon(pixmap: QPixmap) -> QIcon:
    """Return an icon that keeps its colours when its row is selected."""
    icon = QIcon(pixmap)
    icon.addPixmap(pixmap, QIcon.Mode.Selected)
    return icon


def swatch(*colours: str) -> QIcon:
    """Return one small square for each colour, side by side on a dark ground."""
    step = _SQUARE + _MARGIN
    pixmap = QPixmap(step * len(colours) + _MARGIN, step + _MARGIN)
    pixmap.fill(QColor(DARK_GROUND))
    painter = QPainter(pixmap)
    for i, colour in enumerate(colours):
        painter.fillRect(step * i + _MARGIN, _MARGIN, _SQUARE, _SQUARE, QColor(colour))
    painter.end()
    return plain_icon(pixmap)


def placeholder_icon(side: int, sign: str = "", colour: str = "") -> QIcon:
    """Return a dark square that holds the place of a picture, with a sign in a colour where one is given."""
    pixmap = QPixmap(side, side)
    pixmap.fill(QColor(DARK_GROUND))
    if sign:
        painter = QPainter(pixmap)
        painter.setPen(QColor(colour))
        painter.drawText(pixmap.rect(), Qt.AlignmentFlag.AlignCenter, sign)
        painter.end()
    return plain_icon(pixmap)
