"""The line of the Results dock about a screen that is still running: how far it is, and a button that reads on."""

from __future__ import annotations

from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QPushButton, QWidget

from napari_milcnn.plugin.qt.forms import WARNING, Note, vertical_layout
from napari_milcnn.plugin.results.wells.running_session import RunningSession

_COUNT_AGAIN = 4000
"""Time after which the wells that are done are counted again, in ms; it grows with the screen."""
_FOR_EACH_WELL = 2


class RunningBox(QWidget):
    """Draws a `RunningSession`, and lets it look again from time to time."""

    def __init__(self, session: RunningSession) -> None:
        super().__init__()
        self.session = session
        self.note, self.button = Note(), QPushButton("Refresh")
        self.button.setToolTip("Read the wells that are done by now; the plate view does so by itself")
        layout = vertical_layout(self)
        layout.addWidget(self.note)
        layout.addWidget(self.button)
        self.timer = QTimer(self)
        self.timer.timeout.connect(session.look)
        self.button.clicked.connect(session.results.refresh)
        session.changed.connect(self._draw)
        self._draw()

    def _draw(self) -> None:
        shown = self.session.shown
        runs = shown is not None
        self.timer.setInterval(max(_COUNT_AGAIN, 0 if shown is None else _FOR_EACH_WELL * shown.total))
        self.note.say(self.session.words, WARNING)
        self.setVisible(runs)
        if runs and not self.timer.isActive():
            self.timer.start()
        elif not runs:
            self.timer.stop()
