"""The docks as napari's Plugins menu opens them: drawn at once, then filled.

What the docks need, torch above all, takes seconds to load. A module that is imported while the menu waits would
freeze the window for that time, so each dock is first a page that says what it waits for. A thread imports the
modules; then the page makes the dock and shows it. This file therefore imports no other part of the plugin that does.

A window has one dock of each kind. napari tells docks apart by their titles, and a dock that its menu opens has another
title than one that is opened by `add_plugin_dock_widget`, so that it would show two.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import import_module
from itertools import count
from typing import Any
from weakref import WeakValueDictionary

from napari.viewer import Viewer
from qtpy.QtCore import QEvent, QTimer
from qtpy.QtWidgets import QDockWidget, QMainWindow, QProgressBar, QSizePolicy, QWidget

from napari_milcnn.plugin.qt.focus_ring import FocusRings
from napari_milcnn.plugin.qt.forms import (
    ERROR,
    DeletedWhenClosed,
    Note,
    connect_while_alive,
    page_layout,
    there,
    vertical_layout,
)
from napari_milcnn.plugin.qt.garbage import resting, short_collections
from napari_milcnn.plugin.qt.job import Ending, Job

_PLUGIN = "MIL-CNN phenotyping"
"""Name of the plugin in napari's menus and in the titles of its docks."""
_NUMBERS = count()
_PAGES: WeakValueDictionary[int, OpeningDock] = WeakValueDictionary()
"""The pages there are; to look for them among all widgets of the window would freeze it for a moment."""


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

    name: str
    """Name of the dock in the menu."""
    home: tuple[str, str]
    """Module and class of the dock."""
    needs: tuple[str, ...] = ()
    """Modules that the dock imports when it is used."""

    def __init__(self, napari_viewer: Viewer) -> None:
        super().__init__()
        self.dock: Any = None
        self.viewer = getattr(napari_viewer, "__wrapped__", napari_viewer)
        self._number = number = next(_NUMBERS)
        _PAGES[number] = self
        self.destroyed.connect(lambda *_: _PAGES.pop(number, None))
        self._waiting: list[Callable[[Any], None]] = []
        DeletedWhenClosed(self)
        FocusRings(self)
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

    def event(self, event: Any) -> bool:
        """Join the other docks of this plugin when napari puts this one into its window."""
        if event.type() == QEvent.Type.ParentChange:
            QTimer.singleShot(0, self._join_tabs)
        return bool(super().event(event))

    def show_dock(self) -> None:
        """Bring the dock to the front, also if it was hidden."""
        holder = _holder(self)
        if holder is not None:
            holder.show()
            holder.raise_()

    def _older(self) -> OpeningDock | None:
        """Return the page of the same kind that the window had before; None if this is the only one."""
        found = _page_of(self.viewer, type(self))
        return found if found is not None and found._number < self._number else None

    def _load(self) -> Iterator[str]:
        with short_collections():
            for name in (*self.needs, self.home[0]):
                yield name.split(".")[0]
                import_module(name)

    def _on_end(self, ending: Ending) -> None:
        if ending.error:
            self._page.failed(ending.error)
        elif not ending.stopped and self._older() is None:
            try:
                self.dock = getattr(import_module(self.home[0]), self.home[1])(self.viewer)
            except Exception as error:
                self._page.failed(f"{type(error).__name__}: {error}. Please report this.")
                raise
            there(self.layout()).replaceWidget(self._page, self.dock)
            self._page.deleteLater()
            self._leave_out()
            for action in self._waiting:
                action(self.dock)

    def _leave_out(self) -> None:
        """Leave what has been loaded out of collections of garbage until this page is gone."""
        dock = id(self)
        resting.dock_opened(dock, self.viewer)
        self.destroyed.connect(lambda *_: resting.dock_closed(dock))
        connect_while_alive(self.viewer.layers.events.removing, self._on_removing, self)

    def _on_removing(self, event: Any) -> None:
        resting.layer_goes(self.viewer.layers[event.index])

    def _join_tabs(self) -> None:
        """Become a tab beside the docks of this plugin that are open in the same area, in front of them."""
        holder, window, older = _holder(self), self.window(), self._older()
        if holder is None or not isinstance(window, QMainWindow):
            return
        if older is not None:
            for action in self._waiting:
                older.when_open(action)
            self.viewer.window.remove_dock_widget(holder)
            older.show_dock()
            return
        area = window.dockWidgetArea(holder)
        others = [one for page in pages_of(self.viewer) if (one := _holder(page)) not in (None, holder)]
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


def open_page(viewer: Viewer, kind: type[OpeningDock]) -> OpeningDock:
    """Show a dock: the one that is open, or a new one under the title that the menu would give it."""
    page = _page_of(viewer, kind)
    if page is None:
        page = kind(viewer)
        viewer.window.add_dock_widget(page, name=f"{kind.name} ({_PLUGIN})")
    page.show_dock()
    return page


def _page_of(viewer: Viewer, kind: type[OpeningDock]) -> OpeningDock | None:
    """Return the page of a viewer's dock, the first if there are two; None if the dock is not open."""
    return next((one for one in pages_of(viewer) if isinstance(one, kind)), None)


def pages_of(viewer: Viewer) -> list[OpeningDock]:
    """Return the pages of the docks that are open in a viewer, the oldest first."""
    viewer = getattr(viewer, "__wrapped__", viewer)
    found = [one for one in _PAGES.values() if one.viewer is viewer and _holder(one) is not None]
    return sorted(found, key=lambda one: one._number)


def _holder(page: QWidget) -> QDockWidget | None:
    """Return the dock of napari's window that holds a page."""
    above = page.parentWidget()
    while above is not None and not isinstance(above, QDockWidget):
        above = above.parentWidget()
    return above


class ClassifyPage(OpeningDock):
    """The Classify dock."""

    name = "Classify"
    home = ("napari_milcnn.plugin.classify.dock", "ClassifyDock")
    needs = ("torch", "pandas", "zarr", "dask.array", "napari_milcnn.inference.pipeline")


class TrainPage(OpeningDock):
    """The Train dock."""

    name = "Train"
    home = ("napari_milcnn.plugin.train.dock", "TrainDock")
    needs = ("torch", "pandas", "zarr", "dask.array", "pyqtgraph", "matplotlib.figure")


class ResultsPage(OpeningDock):
    """The Results dock."""

    name = "Results"
    home = ("napari_milcnn.plugin.results.dock", "ResultsDock")
    needs = (
        "torch", "pandas", "zarr", "dask.array", "matplotlib.backends.backend_agg", "napari_milcnn.figures.plots",
        "napari_milcnn.results.read",
    )  # fmt: skip
