"""What a user does that Qt's own test functions lack, and what is left when it is done."""

from __future__ import annotations

import gc
import logging
import random
import time
import traceback
import warnings
from pathlib import Path
from typing import Any

from qtpy.QtCore import QEvent, QMimeData, QPoint, QPointF, Qt, QTimer, QUrl
from qtpy.QtGui import QDragEnterEvent, QDropEvent
from qtpy.QtWidgets import QApplication, QDockWidget

from conftest import PATIENCE
from napari_milcnn.errors import MilcnnError
from napari_milcnn.plugin.docks import OpeningDock
from napari_milcnn.plugin.qt.forms import Section

_SIGNAL = type(QTimer().timeout)
"""What a signal of an object is, for the binding of Qt in use."""


def own_attributes(held: object) -> dict[str, Any]:
    """Return what an object holds, without the signals that PySide keeps in its objects."""
    return {name: one for name, one in vars(held).items() if name != "__METAOBJECT__" and not isinstance(one, _SIGNAL)}


def open_dock(viewer, name: str) -> tuple[Any, Any]:
    """Open a dock as the Plugins menu does, and return napari's dock and ours, which is there once it has loaded.

    Where the window has a dock of this kind already, that one is shown in place of a second.
    """
    viewer.window.add_plugin_dock_widget("napari-milcnn", name)
    end = time.monotonic() + PATIENCE / 1000
    while True:
        pages = [one for one in viewer.window._qt_window.findChildren(OpeningDock) if one.name == name]
        if len(pages) == 1 and pages[0].dock is not None:
            break
        assert time.monotonic() < end, f"the {name} dock did not open"
        QApplication.processEvents()
        time.sleep(0.005)
    holder = pages[0].parentWidget()
    while not isinstance(holder, QDockWidget):
        holder = holder.parentWidget()
    return holder, pages[0].dock


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


def unfold(part) -> None:
    """Unfold every section of a dock or of a part of it, also those that come to light by that."""
    while folded := [one for one in part.findChildren(Section) if not one.is_open]:
        for one in folded:
            one.fold(is_open=True)


def next_by_tab(one):
    """Return the widget that the Tab key goes to."""
    while (one := one.nextInFocusChain()).focusProxy() or not one.focusPolicy() & Qt.FocusPolicy.TabFocus:
        pass
    return one


class RandomWalk:
    """A user who does one thing after another: each method `do_…` of a subclass is one of them.

    A subclass has `perform`, which does an action and lets the window work, and `rest`, which waits until all is done.
    """

    def __init__(self, viewer, folder: Path, seed: int) -> None:
        self.viewer, self.folder, self.random = viewer, folder, random.Random(seed)
        self.log, self.faults = [], []
        self.actions = [getattr(self, name) for name in dir(self) if name.startswith("do_")]

    def step(self) -> None:
        """Do something; what it raises is kept for the end of the walk."""
        action = self.random.choice(self.actions)
        self.log.append(action.__name__[3:])
        try:
            self.perform(action)
        except Exception:  # noqa: BLE001 - `assert_no_faults` reports all of them
            self.faults.append((len(self.log), traceback.format_exc()))

    def go(self, qtbot, actions: int, last=lambda: None) -> None:
        """Do many actions, rest, do the last one and rest; what was raised inside Qt is kept with the action."""
        with qtbot.captureExceptions() as raised:
            for act in (*[self.step] * actions, lambda: self.rest(qtbot), last, lambda: self.rest(qtbot)):
                act()
                self.faults += [(len(self.log), "".join(traceback.format_exception(*one))) for one in raised]
                raised.clear()

    def assert_no_faults(self, caplog) -> None:
        """Nothing was raised, and no thread logged an error."""
        report = "\n".join(f"after {self.log[max(0, at - 6) : at]}:\n{text}" for at, text in self.faults)
        assert not self.faults, report
        logged = [one for one in caplog.records if one.levelno >= logging.ERROR and "_worker" in one.name]
        assert not logged, [caplog.handler.format(one) for one in logged]


class SessionWorker:
    """Works off what a session asks for, without threads, when the test says so."""

    def __init__(self, session) -> None:
        self.session, self.waiting = session, []
        session.requested.connect(self.waiting.append)
        session.withdrawn.connect(self.waiting.remove)

    def work(self) -> None:
        """Work off all that waits."""
        while self.waiting:
            self.finish(self.waiting.pop(0))

    def finish(self, request) -> None:
        """Work off a request, also one that was withdrawn."""
        error = ""
        try:
            for step in request.steps():
                self.session.take(request, step)
        except MilcnnError as failure:
            error = str(failure)
        self.session.end(request, error)
