"""A ring around the control that the keys reach.

napari's style draws no focus, neither in its dark nor in its light theme: who walks through a dock with the Tab key
would not see where a key goes.
"""

from __future__ import annotations

from typing import Any

from qtpy.QtCore import QEvent, QObject, QRectF, Qt
from qtpy.QtGui import QColor, QPainter, QPen
from qtpy.QtWidgets import QApplication, QWidget

_RING, _WIDTH = "#3b94ff", 2
"""A colour that is seen on the grounds of both themes, and pixels."""


class FocusRings(QObject):
    """Puts a ring on the control of a dock that has the focus, where the Tab key brought it."""

    def __init__(self, dock: QWidget) -> None:
        super().__init__(dock)
        self._dock = dock
        app = QApplication.instance()
        assert isinstance(app, QApplication)
        app.focusChanged.connect(self._on_focus)

    def _on_focus(self, before: QWidget | None, now: QWidget | None) -> None:
        ring = before.findChild(FocusRing) if before is not None else None
        if ring is not None:
            ring.hide()
            ring.deleteLater()
        if now is not None and self._dock.isAncestorOf(now) and _by_key(now):
            FocusRing(now).show()


class FocusRing(QWidget):
    """The ring, which goes with its control."""

    def __init__(self, control: QWidget) -> None:
        super().__init__(control)
        self.setAttribute(Qt.WidgetAttribute.WA_TransparentForMouseEvents)
        self.resize(control.size())
        control.installEventFilter(self)

    def eventFilter(self, watched: Any, event: Any) -> bool:
        """Be as large as the control."""
        if event.type() == QEvent.Type.Resize and watched is self.parentWidget():
            self.resize(event.size())
        return False

    def paintEvent(self, _event: Any) -> None:
        """Draw the ring."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(QPen(QColor(_RING), _WIDTH))
        inset = _WIDTH / 2
        painter.drawRoundedRect(QRectF(self.rect()).adjusted(inset, inset, -inset, -inset), _WIDTH, _WIDTH)
        painter.end()


def _by_key(control: QWidget) -> bool:
    window = control.window()
    return window is not None and window.testAttribute(Qt.WidgetAttribute.WA_KeyboardFocusChange)
