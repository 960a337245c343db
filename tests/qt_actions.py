"""What a user does with the mouse that Qt's own test functions lack, and what is left when it is done."""

from __future__ import annotations

import gc
import warnings
from pathlib import Path

from qtpy.QtCore import QEvent, QMimeData, QPoint, QPointF, Qt, QUrl
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


def windows() -> set[str]:
    """Name the windows there are, once what is to be deleted is gone."""
    gc.collect()
    for _ in range(3):
        QApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)
        QApplication.processEvents()
    return {f"{type(one).__name__} {one.objectName()} {one.windowTitle()}" for one in QApplication.topLevelWidgets()}
