"""Docks as the menu opens them: drawn at once, filled when what they need is loaded, tabs of each other."""

import gc
import subprocess
import sys
import weakref
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile
from npe2 import PluginManifest
from qtpy.QtCore import QCoreApplication, QEvent

from conftest import PATIENCE, freeze_again
from napari_milcnn.plugin import docks
from napari_milcnn.plugin.classify.dock import ClassifyDock
from napari_milcnn.plugin.docks import ClassifyPage, OpeningDock, ResultsPage, TrainPage, open_page
from napari_milcnn.plugin.qt.garbage import RestingObjects, resting
from qt_actions import open_dock, windows


def test_the_menu_imports_nothing_heavy():
    heavy = {"torch", "pandas", "matplotlib", "pyqtgraph", "sklearn", "skimage", "napari_milcnn.plugin.classify"}
    # napari itself imports some of these: what counts is what comes with the docks
    napari = "import sys, napari.viewer, napari.qt, napari.layers; before = set(sys.modules); "
    code = f"{napari}import napari_milcnn.plugin.docks; print(*sorted({heavy!r} & (set(sys.modules) - before)))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == []


@pytest.mark.slow
def test_what_showing_an_image_needs_is_loaded_with_the_dock(tmp_path):
    """The window's thread shows images, and would stand still while it imports a library."""
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((64, 64), np.uint16), compression="zlib")
    code = (
        "import sys; from importlib import import_module; from napari_milcnn.plugin.docks import ClassifyPage as page\n"
        "for name in (*page.needs, page.home[0]): import_module(name)\n"
        "from napari_milcnn.images.open import open_image; from napari_milcnn.plugin.results_to_layers import *\n"
        f"before = set(sys.modules); image = open_image({str(tmp_path / 'a.tif')!r})\n"
        "image_layers(image, limits_of(image)); print(*{'zarr', 'dask', 'dask.array'} & set(sys.modules) - before)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == []


def test_every_dock_of_the_manifest_is_a_page():
    manifest = PluginManifest.from_distribution("napari-milcnn")
    homes = {command.id: command.python_name for command in manifest.contributions.commands}
    pages = [homes[widget.command].split(":") for widget in manifest.contributions.widgets]
    assert [getattr(docks, name) for _, name in pages] == [ClassifyPage, TrainPage, ResultsPage]


def test_a_dock_says_what_it_waits_for_then_is_there(make_napari_viewer, qtbot):
    viewer = make_napari_viewer()
    _, page = viewer.window.add_plugin_dock_widget("napari-milcnn", "Classify")
    opened = []
    page.when_open(opened.append)
    assert page.dock is None
    assert page._page._note.text().startswith("Loading what this dock needs")
    qtbot.waitUntil(lambda: page.dock is not None, timeout=PATIENCE)
    assert isinstance(page.dock, ClassifyDock)
    page.when_open(opened.append)
    assert opened == [page.dock, page.dock]


def test_pixels_of_a_layer_removed_after_a_dock_was_opened_are_freed(make_napari_viewer, qtbot):
    """Cycles hold a removed layer until the next collection, which must therefore see it."""
    gc.unfreeze()
    freeze_again()
    viewer = make_napari_viewer()
    gone = weakref.ref(viewer.add_image(np.zeros((8, 8))))
    _, page = viewer.window.add_plugin_dock_widget("napari-milcnn", "Train")
    qtbot.waitUntil(lambda: page.dock is not None, timeout=PATIENCE)
    qtbot.waitUntil(lambda: gc.get_freeze_count() > 0, timeout=PATIENCE)
    later = weakref.ref(viewer.add_image(np.zeros((8, 8))))
    viewer.layers.remove(later())

    def freed(layer):
        gc.collect()
        return layer() is None

    qtbot.waitUntil(lambda: freed(later), timeout=PATIENCE)
    assert gc.get_freeze_count() > 0  # napari's collections stay short
    viewer.layers.clear()
    qtbot.waitUntil(lambda: gc.get_freeze_count() > 0, timeout=PATIENCE)
    QCoreApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)  # its controls are gone when the timer ends
    resting._on_time()  # as its timer does
    qtbot.waitUntil(lambda: freed(gone), timeout=PATIENCE)
    viewer.window.remove_dock_widget("all")
    qtbot.waitUntil(lambda: gc.get_freeze_count() == 0, timeout=PATIENCE)


class LayerInACycle:
    """What only a collection of garbage frees, as layers are."""

    def __init__(self, pixels):
        self.data, self.me = np.broadcast_to(np.int32(0), pixels), self


@pytest.mark.parametrize(("pixels", "at_once"), [((8, 8), False), ((3000, 40_000), True)])
def test_a_large_layer_that_goes_is_freed_at_once_and_a_small_one_later(qtbot, pixels, at_once):
    """To look through all that is left out takes longest of all that a removal takes."""
    gc.unfreeze()
    freeze_again()
    viewer, objects = SimpleNamespace(layers=[LayerInACycle(pixels)]), RestingObjects()
    gone = weakref.ref(viewer.layers[0])
    objects.dock_opened(1, viewer)
    try:
        objects.layer_goes(viewer.layers.pop())
        gc.collect()  # as napari does now
        assert (gone() is None) is at_once
        qtbot.waitUntil(lambda: gc.get_freeze_count() > 0, timeout=PATIENCE)
        objects._on_time()  # as its timer does within a minute
        assert gone() is None
        assert gc.get_freeze_count() > 0
    finally:
        objects.dock_closed(1)
    assert gc.get_freeze_count() == 0


def test_a_dock_that_cannot_be_loaded_says_why(make_napari_viewer, qtbot):
    class Broken(OpeningDock):
        home = ("napari_milcnn.plugin.not_there", "Dock")

    page = Broken(make_napari_viewer())
    qtbot.addWidget(page)
    qtbot.waitUntil(lambda: "cannot open" in page._page._note.text(), timeout=PATIENCE)
    assert "not_there" in page._page._note.text()
    assert page.dock is None


def test_a_dock_closed_while_it_loads_leaves_nothing(make_napari_viewer, qtbot):
    viewer = make_napari_viewer()
    holder, page = viewer.window.add_plugin_dock_widget("napari-milcnn", "Results")
    before = windows()
    gone = []
    page.destroyed.connect(lambda: gone.append(True))
    holder.destroyOnClose()
    del page
    qtbot.waitUntil(lambda: bool(gone), timeout=PATIENCE)
    assert windows() <= before


@pytest.mark.parametrize("last", ["Train", "Results"])
def test_docks_are_tabs_of_each_other(make_napari_viewer, qtbot, last):
    viewer = make_napari_viewer()
    first, _ = open_dock(viewer, "Classify")
    second, _ = open_dock(viewer, last)
    window = viewer.window._qt_window
    qtbot.waitUntil(lambda: window.tabifiedDockWidgets(first) == [second], timeout=PATIENCE)


def test_a_dock_that_floats_is_left_alone(make_napari_viewer, qtbot):
    viewer = make_napari_viewer()
    first, _ = open_dock(viewer, "Classify")
    first.setFloating(True)
    second, _ = open_dock(viewer, "Train")
    qtbot.wait(50)
    assert viewer.window._qt_window.tabifiedDockWidgets(first) == []
    assert not second.isFloating()


def test_a_dock_that_cannot_be_made_says_why(make_napari_viewer, qtbot, monkeypatch):
    def fails(_viewer):
        raise AttributeError("no such event")

    monkeypatch.setattr("napari_milcnn.plugin.classify.dock.ClassifyDock", fails)
    with qtbot.captureExceptions() as raised:
        _, page = make_napari_viewer().window.add_plugin_dock_widget("napari-milcnn", "Classify")
        qtbot.waitUntil(lambda: "cannot open" in page._page._note.text(), timeout=PATIENCE)
    assert "AttributeError: no such event" in page._page._note.text()
    assert [kind for kind, _, _ in raised] == [AttributeError]


@pytest.mark.parametrize("menu_first", [True, False])
def test_a_window_has_one_dock_of_each_kind(make_napari_viewer, qtbot, menu_first):
    """The Plugins menu gives a dock another title than `add_plugin_dock_widget` does, which `napari --with` calls."""
    viewer = make_napari_viewer()
    ways = [lambda: from_menu(viewer, "Train"), lambda: open_dock(viewer, "Train")]
    ways[not menu_first]()
    qtbot.waitUntil(lambda: pages(viewer, TrainPage) != [], timeout=PATIENCE)
    first = pages(viewer, TrainPage)[0]
    qtbot.waitUntil(lambda: first.dock is not None, timeout=PATIENCE)
    if menu_first:
        _, second = viewer.window.add_plugin_dock_widget("napari-milcnn", "Train")
    else:
        from_menu(viewer, "Train")
        second = pages(viewer, TrainPage)[-1]
    asked = []
    second.when_open(asked.append)
    qtbot.waitUntil(lambda: pages(viewer, TrainPage) == [first], timeout=PATIENCE)
    assert asked == [first.dock]
    assert open_page(viewer, TrainPage) is first
    assert first.isVisibleTo(viewer.window._qt_window)


def test_a_dock_that_another_dock_opens_has_the_title_of_the_menu(make_napari_viewer, qtbot):
    viewer = make_napari_viewer()
    page = open_page(viewer, TrainPage)
    qtbot.waitUntil(lambda: page.dock is not None, timeout=PATIENCE)
    manifest = PluginManifest.from_distribution("napari-milcnn")
    assert page.parentWidget().windowTitle() == f"Train ({manifest.display_name})"
    assert [page.name for page in (ClassifyPage, TrainPage, ResultsPage)] == [
        widget.display_name for widget in manifest.contributions.widgets
    ]


def from_menu(viewer, name: str) -> None:
    """Choose a dock in the Plugins menu."""
    menu = viewer.window.plugins_menu
    menu.aboutToShow.emit()  # napari fills it then
    inside = [action for entry in menu.actions() if entry.menu() is not None for action in entry.menu().actions()]
    next(one for one in inside if one.text().startswith(name)).trigger()


def pages(viewer, kind):
    """Return the pages of a kind that the window has, the first first."""
    found = viewer.window._qt_window.findChildren(kind)
    return sorted(found, key=lambda page: page._number)
