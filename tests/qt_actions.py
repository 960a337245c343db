"""What a user does with the mouse that Qt's own test functions lack."""

from __future__ import annotations

import warnings
from pathlib import Path

from qtpy.QtCore import QMimeData, QPoint, QPointF, Qt, QUrl
from qtpy.QtGui import QDragEnterEvent, QDropEvent
from qtpy.QtWidgets import QApplication


def drop(widget, *paths: Path) -> None:
    """Drop files on a widget, as a file manager does."""
    mime = QMimeData()
    mime.setUrls([QUrl.fromLocalFile(str(path)) for path in paths])
    how = (Qt.DropAction.CopyAction, mime, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # PySide6 would have a QPointF, which PyQt6 refuses
        enter = QDragEnterEvent(QPoint(5, 5), *how)
    QApplication.sendEvent(widget, enter)  # Qt drops on what took the drag
    QApplication.sendEvent(widget, QDropEvent(QPointF(5, 5), *how))
