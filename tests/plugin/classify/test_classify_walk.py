# ruff: noqa: D102 - each action is named after what it does
"""A random walk: whatever a user does, in whatever order, ends in a sentence and never in an exception."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import tifffile
from qtpy.QtCore import Qt, QThreadPool
from qtpy.QtWidgets import QApplication

import napari_milcnn as mil
from conftest import PATIENCE, lively_model, noise
from napari_milcnn.plugin.classify import model_box
from napari_milcnn.plugin.current_model import current
from qt_actions import RandomWalk, drop, open_dock, windows

napari_layers = pytest.importorskip("napari.layers")
ACTIONS, SEEDS = 200, (0,)
AXES = ("CYX", "TYX", "ZYX", "YX", "TCYX", "zcyx", "PCYX", "XY", "TTYX", "Q", "", "TZCYX", "CXY")


def write_files(folder: Path) -> None:
    """Write images of many kinds, two of one name, a broken one, and two models."""
    for name, axes, shape in (
        ("pair", "CYX", (2, 128, 128)), ("again/pair", "CYX", (2, 128, 112)), ("movie", "TCYX", (4, 2, 128, 128)),
        ("stack", "ZCYX", (3, 2, 96, 128)), ("one", "YX", (128, 128)), ("screen/A1", "CYX", (2, 128, 128)),
        ("screen/A2", "TCYX", (2, 2, 128, 96)),
    ):  # fmt: skip
        path = folder / f"{name}.ome.tif"
        path.parent.mkdir(exist_ok=True)
        facts = {"axes": axes, "PhysicalSizeX": 0.2, "PhysicalSizeXUnit": "µm"}
        names = {"Channel": {"Name": ["GFP", "RFP"]}} if "C" in axes else {}
        tifffile.imwrite(path, noise(*shape, seed=len(name)), metadata=facts | names)
    tifffile.imwrite(folder / "plain.tif", noise(2, 128, 128, seed=5))
    tifffile.imwrite(folder / "colours.tif", noise(64, 96, 3, seed=6).astype(np.uint8), photometric="rgb")
    whole = (folder / "movie.ome.tif").read_bytes()
    (folder / "screen" / "cut.ome.tif").write_bytes(whole[: len(whole) // 2])
    (folder / "screen" / "broken.tif").write_bytes(b"II*\0 and nothing else")
    (folder / "empty").mkdir()
    (folder / "bad.zip").write_bytes(b"nothing")
    lively_model().with_card(name="lively").save(folder / "lively.zip")
    lively_model(classes=("b", "d"), channels=("GFP",)).with_card(name="other").save(folder / "other.zip")


def images_of(dock) -> list:
    """Return the images of a dock's session."""
    return list(dock.session.images.records.values())


class Walk(RandomWalk):
    """A user of the Classify dock."""

    def __init__(self, viewer, folder: Path, seed: int) -> None:
        super().__init__(viewer, folder, seed)
        self.images = [*sorted(folder.glob("*.tif")), folder / "again" / "pair.ome.tif"]
        self.images += [folder / "movie.ome.tif", folder / "pair.ome.tif"] * 2
        self.stall, self.planes = 0.0, set()
        self.open_dock()

    def open_dock(self) -> None:
        """Open the dock as the Plugins menu opens it."""
        self.holder, self.dock = open_dock(self.viewer, "Classify")
        self.dock.options_box.compute["device"].value = "cpu"

    def perform(self, action) -> None:
        """Do an action, then let the window work for a while."""
        action()
        self.breathe(self.random.choice((0, 0.01, 0.03, 0.1)))
        self.planes |= {(key, plane) for key, one in self.dock.session.images.records.items() for plane in one.planes}

    def breathe(self, seconds: float) -> None:
        """Process events, and keep the longest time that one round took while a job ran."""
        end = time.perf_counter() + seconds
        while True:
            began, busy = time.perf_counter(), self.dock.busy
            QApplication.processEvents()
            now = time.perf_counter()
            if busy:
                self.stall = max(self.stall, now - began)
            if now >= end:
                return
            time.sleep(0.001)  # whatever else computes gets on meanwhile

    def breathe_while_busy(self) -> None:
        """Let a job come to its end, or most of the way."""
        end = time.perf_counter() + 1
        while self.dock.busy and time.perf_counter() < end:
            self.breathe(0.01)

    def rest(self, qtbot) -> None:
        """Stop everything and wait until nothing is left to do."""
        dock = self.dock
        dock.cancel()
        qtbot.waitUntil(lambda: not dock.busy and not dock.session.preview.busy, timeout=PATIENCE)
        qtbot.waitUntil(lambda: QThreadPool.globalInstance().activeThreadCount() == 0, timeout=PATIENCE)
        self.breathe(0.3)

    def click(self, button) -> None:
        """Click what can be clicked."""
        if button.isVisibleTo(self.dock):
            button.click()

    def any_layer(self):
        return self.random.choice(list(self.viewer.layers)) if self.viewer.layers else None

    def choose(self, combo) -> None:
        if combo.count() and combo.isVisibleTo(self.dock):
            combo.setCurrentIndex(self.random.randrange(combo.count()))
            combo.activated.emit(combo.currentIndex())

    # Images and layers

    def do_open(self):
        self.viewer.open(self.random.choice(self.images))

    def do_add_image(self):
        shape = self.random.choice(((128, 128), (2, 128, 128), (2, 3, 64, 64), (30, 30), (1, 1, 1, 1, 1, 2, 128, 128)))
        data = self.random.choice((noise(*shape), noise(*shape) > 100, np.full(shape, np.nan)))
        self.viewer.add_image(data, name=self.random.choice(("pair", "x", "movie")))

    def do_add_colours(self):
        self.viewer.add_image(noise(96, 96, 3).astype(np.uint8), rgb=True, name="colours")

    def do_drop_on_dock(self):
        drop(self.dock, *self.random.sample(self.images, self.random.choice((1, 1, 3))))

    def do_drop_folder(self):
        drop(self.dock, self.folder / self.random.choice(("screen", "empty", "absent")))

    def do_drop_broken(self):
        drop(self.dock, self.folder / self.random.choice(("bad.zip", "screen/broken.tif")))

    def do_drop_model(self):
        zips = [self.folder / name for name in ("lively.zip", "lively.zip", "other.zip")]
        drop(self.random.choice((self.dock, self.viewer.window._qt_viewer)), self.random.choice(zips))

    def do_drop_on_canvas(self):
        drop(self.viewer.window._qt_viewer, self.random.choice(self.images))

    def do_remove_layer(self):
        layer = self.any_layer()
        if layer is not None:
            self.viewer.layers.remove(layer)

    def do_remove_masks(self):
        for layer in [one for one in self.viewer.layers if isinstance(one, napari_layers.Labels)]:
            self.viewer.layers.remove(layer)

    def do_remove_chosen_image(self):
        for layer in self.dock.image_box.chosen():
            if layer in self.viewer.layers:
                self.viewer.layers.remove(layer)

    def do_remove_many(self):
        if len(self.viewer.layers) > 8:
            self.viewer.layers.clear()

    def do_rename_layer(self):
        layer = self.any_layer()
        if layer is not None:
            layer.name = self.random.choice(("renamed", "pair masks", "movie", "x masks"))

    def do_select_layers(self):
        layers = list(self.viewer.layers)
        self.viewer.layers.selection = set(self.random.sample(layers, min(len(layers), self.random.choice((0, 1, 2)))))

    def do_move_layer(self):
        if len(self.viewer.layers) > 1:
            self.viewer.layers.move(0, len(self.viewer.layers))

    def do_rescale_layer(self):
        layer = self.any_layer()
        if layer is not None:
            layer.scale = [self.random.choice((1.0, 0.5))] * layer.ndim

    def do_move_dims(self):
        dims = self.viewer.dims
        axis = self.random.randrange(dims.ndim)
        dims.set_current_step(axis, self.random.randrange(max(1, dims.nsteps[axis])))

    def do_show_3d(self):
        self.viewer.dims.ndisplay = self.random.choice((2, 2, 2, 3))

    def do_roll_axes(self):
        self.viewer.dims.roll()
        self.viewer.dims.roll()

    def do_paint(self):
        labels = [one for one in self.viewer.layers if isinstance(one, napari_layers.Labels)]
        if labels:
            layer = self.random.choice(labels)
            layer.paint([n // 2 for n in layer.data.shape], self.random.choice((0, 1, 5)))
            layer.selected_label = self.random.choice((0, 1, 2, 1000))
            layer.undo()
            layer.undo()

    # The dock

    def do_axes(self):
        self.dock.image_box.axes.setText(self.random.choice(AXES))
        self.dock.image_box.axes.editingFinished.emit()

    def do_pixel_size(self):
        self.dock.image_box.pixel_size.setValue(self.random.choice((0, 0.001, 0.1, 0.2, 5000)))
        self.dock.image_box.pixel_size.editingFinished.emit()

    def do_channel(self):
        for combo in self.dock.image_box._combos():
            self.choose(combo)

    def do_planes(self):
        self.click(self.random.choice((self.dock.image_box.this_plane, self.dock.image_box.all_planes)))

    def do_z(self):
        self.choose(self.dock.image_box.z)

    def do_choose_image(self):
        self.choose(self.dock.image_box.layers)

    def do_choose_model(self):
        if self.random.random() < 0.3:
            self.choose(self.dock.model_box.models)

    def do_unload(self):
        if self.random.random() < 0.3:
            self.click(self.dock.model_box.unload_button)

    def do_lively(self):
        drop(self.dock, self.folder / "lively.zip")
        self.breathe(0.3)

    def do_classify(self):
        self.click(self.dock.run_button)

    def do_look(self):
        fitting = [i for i, group in enumerate(self.dock.image_box._groups) if "movie" in group[0].name or i == 0]
        if fitting and current.model is not None:
            self.dock.image_box.layers.setCurrentIndex(fitting[-1])
            self.click(self.dock.run_button)
            self.breathe_while_busy()

    do_look_again = do_look_once_more = do_look
    do_classify_too = do_classify_again = do_classify

    def do_classify_and_wait(self):
        self.click(self.dock.run_button)
        self.breathe_while_busy()

    def do_wait(self):
        self.breathe(0.3)

    def do_cancel(self):
        self.click(self.dock.cancel_button)

    def do_auto(self):
        self.click(self.dock.auto)

    def do_options(self):
        self.dock.options_box.compute["batch_size"].value = self.random.choice((1, 8))
        self.dock.options_box.compute["tile"].value = self.random.choice((0, 1, 100, 512))
        self.dock.options_box.compute["match_pixel_size"].value = self.random.random() < 0.5

    def do_threshold(self):
        self.dock.mask_box.threshold.setValue(self.random.random())

    def do_auto_threshold(self):
        self.click(self.dock.mask_box.auto)

    def do_smooth(self):
        self.dock.mask_box.smooth.setValue(self.random.randrange(6))

    def do_min_size(self):
        self.dock.mask_box.min_size.setValue(self.random.randrange(300))

    def do_kind(self):
        self.choose(self.dock.adds_box.kind)

    def do_detail(self):
        self.choose(self.dock.adds_box.detail)

    def do_maps(self):
        self.choose(self.dock.adds_box.maps)

    def do_mask_class(self):
        self.choose(self.dock.mask_box.classes)

    def do_more_about_masks(self):
        self.dock.mask_box.more["present"].value = self.random.choice((0, 0.5))
        self.dock.mask_box.more["threshold"].value = self.random.choice(("auto", "otsu", "q0.9", "0.4", "q7", ""))
        self.dock.mask_box.more["fill_holes"].value = self.random.random() < 0.5

    def do_foreground(self):
        form = self.dock.options_box.foreground
        form["method"].value = self.random.choice((None, "otsu", "local"))
        form["size"].value = self.random.choice((form["size"].min, 12.0, 30.0))

    def do_apply(self):
        self.click(self.dock.mask_box.apply)

    def do_show_map(self):
        self.click(self.dock.mask_box.show_map)

    def do_show_evidence(self):
        self.click(self.dock.mask_box.show_evidence)

    def do_table_row(self):
        box = self.dock.results_box
        table = self.random.choice((box.plane_table, box.object_table))
        if table.proxy.rowCount():
            table.clicked.emit(table.proxy.index(self.random.randrange(table.proxy.rowCount()), 0))

    do_another_row = do_table_row

    def do_filter(self):
        self.dock.results_box.filter.setText(self.random.choice(("", "", "pair", "a", "(")))

    def do_sort(self):
        box = self.dock.results_box
        table = self.random.choice((box.plane_table, box.object_table))
        table.sortByColumn(self.random.randrange(5), self.random.choice(list(Qt.SortOrder)))

    def do_copy(self):
        self.dock.results_box.tabs.setCurrentIndex(self.random.randrange(2))
        self.click(self.dock.results_box.copy_button)

    def do_save(self):
        name = self.random.choice(("predictions.csv", "objects.csv", "absent/predictions.csv"))
        if self.dock.results_box.isVisibleTo(self.dock):
            self.dock.results_box.save_requested.emit(str(self.folder / "empty" / name))

    def do_cells(self):
        shape = self.random.choice(((128, 128), (4, 128, 128), (1, 128, 128), (2, 96, 128), (50, 50), (64, 64)))
        self.viewer.add_labels(np.random.default_rng(1).integers(0, 5, shape), name="cells")
        self.click(self.dock.cells_box.button)

    def do_cells_again(self):
        self.choose(self.dock.cells_box.layers)
        self.click(self.dock.cells_box.button)

    def do_export(self):
        box = self.dock.export_box
        self.click(self.random.choice(list(box.parts.values())))
        box.folder.setText(str(self.folder / self.random.choice(("out", "out2", "bad.zip"))))
        self.click(box.button)

    def do_reopen_dock(self):
        if self.random.random() < 0.3:
            self.holder.destroyOnClose()
            self.breathe(0.05)
            self.open_dock()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Write the files of the walk, and keep the models it opens out of the user's settings."""
    write_files(tmp_path)
    monkeypatch.setattr(model_box, "remember_model", lambda path: None)
    monkeypatch.setattr(model_box, "recent_models", lambda: [tmp_path / "lively.zip", tmp_path / "other.zip"])
    current.set(mil.load_model(tmp_path / "lively.zip"))
    yield tmp_path
    current.clear()


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.slow
def test_whatever_a_user_does_nothing_raises(make_napari_viewer, qtbot, folder, caplog, record_property, seed):
    walk = Walk(make_napari_viewer(), folder, seed)
    before = windows()
    walk.go(qtbot, ACTIONS)
    stall = f"{1000 * walk.stall:.0f} ms, {len(walk.planes)} planes"
    record_property(f"longest stall of the window in a random walk, seed {seed}", stall)
    walk.assert_no_faults(caplog)
    assert windows() <= before
    assert len(walk.planes) > 5


@pytest.mark.slow
def test_two_images_of_one_name_have_masks_of_their_own(make_napari_viewer, qtbot, folder):
    walk = Walk(make_napari_viewer(), folder, 0)
    for place in (".", "again"):
        walk.viewer.open(folder / place / "pair.ome.tif")
        walk.dock.run_button.click()
        qtbot.waitUntil(lambda: not walk.dock.busy and not walk.dock.session.preview.busy, timeout=PATIENCE)
    shapes = {layer.name: layer.data.shape[-2:] for layer in walk.viewer.layers if "masks" in layer.name}
    assert shapes == {"pair masks": (128, 128), "pair [1] masks": (128, 112)}
    walk.rest(qtbot)


@pytest.mark.slow
def test_what_was_found_stays_when_the_layers_are_removed_and_a_row_opens_the_file_again(
    make_napari_viewer, qtbot, folder
):
    walk = Walk(make_napari_viewer(), folder, 0)
    drop(walk.dock, folder / "pair.ome.tif")
    qtbot.waitUntil(lambda: not walk.dock.busy and bool(images_of(walk.dock)[0].planes), timeout=PATIENCE)
    walk.viewer.open(folder / "movie.ome.tif")
    walk.dock.run_button.click()
    qtbot.waitUntil(lambda: not walk.dock.busy and not walk.dock.session.preview.busy, timeout=PATIENCE)
    assert walk.dock.results_box.planes.rowCount() == 5
    walk.viewer.layers.clear()
    assert [(one.name, bool(one.layers), one.can_open) for one in images_of(walk.dock)] == [
        ("pair", False, True), ("movie", False, True),
    ]  # fmt: skip
    assert walk.dock.results_box.planes.rowCount() == 5
    walk.dock.results_box.plane_table.clicked.emit(walk.dock.results_box.plane_table.proxy.index(2, 0))
    qtbot.waitUntil(lambda: not walk.dock.busy and not walk.dock.session.preview.busy, timeout=PATIENCE)
    assert walk.dock.session.in_view.name == "movie"
    assert "movie masks" in walk.viewer.layers
    walk.rest(qtbot)


@pytest.mark.slow
def test_images_dropped_without_a_model_wait_for_one(make_napari_viewer, qtbot, folder):
    walk = Walk(make_napari_viewer(), folder, 0)
    model = current.model
    current.clear()
    drop(walk.dock, folder / "pair.ome.tif")
    assert walk.dock.notices.text() == "Choose a model first, or train one; the images wait."
    current.set(model)
    qtbot.waitUntil(lambda: not walk.dock.busy and bool(images_of(walk.dock)[0].planes), timeout=PATIENCE)
    walk.rest(qtbot)
