"""The docks as napari's Plugins menu opens them: drawn at once, then filled.

What the docks need, torch above all, takes seconds to load. A module that is imported while the menu waits would
freeze the window for that time, so each dock is first a page that says what it waits for. A thread imports the
modules; then the page makes the dock and shows it. This file therefore imports no other part of the plugin that does.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

from napari.viewer import Viewer
from qtpy.QtCore import QEvent, QTimer
from qtpy.QtWidgets import QDockWidget, QMainWindow, QProgressBar, QSizePolicy, QWidget

from napari_milcnn.plugin.qt.forms import ERROR, DeletedWhenClosed, Note, page_layout, vertical_layout
from napari_milcnn.plugin.qt.job import Ending, Job


class OpeningDock(QWidget):
    """The page of a dock: it loads what the dock needs, then holds the dock.

    A subclass says which dock it is, and which modules the dock imports later, when the user is already working.

    Parameters
    ----------
    napari_viewer : Viewer
        Given by napari.

    Attributes
    ----------
    dock : QWidget or None
        The dock; None until it has been loaded.
    """

    home: tuple[str, str]
    """Module and class of the dock."""
    needs: tuple[str, ...] = ()
    """Modules that the dock imports when it is used."""

    def __init__(self, napari_viewer: Viewer) -> None:
        super().__init__()
        self.dock: Any = None
        self._viewer = napari_viewer
        self._waiting: list[Callable[[Any], None]] = []
        DeletedWhenClosed(self)
        # what does not expand gets empty space below it from napari, half of the height of the dock
        self.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Expanding)
        self._page = _LoadingPage()
        vertical_layout(self).addWidget(self._page)
        self._job = Job(self._load, self, self._page.says, self._on_end)

    def when_open(self, action: Callable[[Any], None]) -> None:
        """Call a function with the dock: now, or as soon as it has been loaded."""
        if self.dock is None:
            self._waiting.append(action)
        else:
            action(self.dock)

    def event(self, event: QEvent) -> bool:
        """Join the other docks of this plugin when napari puts this one into its window."""
        if event.type() == QEvent.Type.ParentChange:
            QTimer.singleShot(0, self._join_tabs)
        return bool(super().event(event))

    def _load(self) -> Iterator[str]:
        for name in (*self.needs, self.home[0]):
            yield name.split(".")[0]
            import_module(name)
        gc.freeze()  # what modules hold never goes; collecting garbage would look through it for a second each time

    def _on_end(self, ending: Ending) -> None:
        if ending.error:
            self._page.failed(ending.error)
        elif not ending.stopped:
            try:
                self.dock = getattr(import_module(self.home[0]), self.home[1])(self._viewer)
            except Exception as error:
                self._page.failed(f"{type(error).__name__}: {error}. Please report this.")
                raise
            self.layout().replaceWidget(self._page, self.dock)
            self._page.deleteLater()
            for action in self._waiting:
                action(self.dock)

    def _join_tabs(self) -> None:
        """Become a tab beside the docks of this plugin that are open in the same area, in front of them."""
        holder, window = _holder(self), self.window()
        if holder is None or not isinstance(window, QMainWindow):
            return
        area = window.dockWidgetArea(holder)
        others = [one for page in window.findChildren(OpeningDock) if (one := _holder(page)) not in (None, holder)]
        beside = [one for one in others if window.dockWidgetArea(one) == area and not one.isFloating()]
        if beside and holder not in window.tabifiedDockWidgets(beside[0]):
            window.tabifyDockWidget(beside[0], holder)
            QTimer.singleShot(0, holder.raise_)


class _LoadingPage(QWidget):
    """What is seen of a dock until it has been loaded."""

    def __init__(self) -> None:
        super().__init__()
        self._note, self._bar = Note(), QProgressBar()
        self._bar.setRange(0, 0)
        self._bar.setAccessibleName("loading")
        layout = page_layout(self)
        layout.addWidget(self._note)
        layout.addWidget(self._bar)
        layout.addStretch(1)
        self.says("")

    def says(self, library: str) -> None:
        """Name the library that is being loaded."""
        what = "" if library in ("", "napari_milcnn") else f" ({library})"
        self._note.say(f"Loading what this dock needs{what}. The first time this takes some seconds.")

    def failed(self, error: str) -> None:
        """Say why there is no dock."""
        self._bar.hide()
        self._note.say(f"This dock cannot open: {error}", ERROR)


def _holder(page: QWidget) -> QDockWidget | None:
    """Return the dock of napari's window that holds a page."""
    above = page.parentWidget()
    while above is not None and not isinstance(above, QDockWidget):
        above = above.parentWidget()
    return above


class ClassifyPage(OpeningDock):
    """The Classify dock."""

    home = ("napari_milcnn.plugin.classify.dock", "ClassifyDock")
    needs = ("torch", "pandas", "napari_milcnn.inference.pipeline")


class TrainPage(OpeningDock):
    """The Train dock."""

    home = ("napari_milcnn.plugin.train.dock", "TrainDock")
    needs = ("torch", "pandas", "pyqtgraph", "matplotlib.figure")


class ResultsPage(OpeningDock):
    """The Results dock."""

    home = ("napari_milcnn.plugin.results.dock", "ResultsDock")
    needs = (
        "torch", "pandas", "dask.array", "matplotlib.backends.backend_agg", "napari_milcnn.figures.plots",
        "napari_milcnn.results.read",
    )  # fmt: skip
