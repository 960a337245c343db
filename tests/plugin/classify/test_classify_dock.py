"""The Classify dock as a user has it: opened by the viewer, fed by opened and dropped files, clicked."""

from __future__ import annotations

import shutil
import threading
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
from qtpy.QtCore import Qt, QThreadPool, QTimer
from qtpy.QtWidgets import QApplication
from skimage.measure import label as components

import napari_milcnn as mil
from conftest import PATIENCE, SHARED, lively_model
from napari_milcnn.errors import OutputError
from napari_milcnn.inference import masks
from napari_milcnn.plugin.classify.records import ImageState
from napari_milcnn.plugin.current_model import current
from napari_milcnn.results.folder import classify_files
from qt_actions import drop, open_dock

pytest.importorskip("napari")
SAMPLES = mil.sample_folder()
FIELD = SAMPLES / "training" / "images" / "nucleus-01_1.ome.tif"
TIMELAPSE = SAMPLES / "yeast-timelapse.ome.tif"


@pytest.fixture
def model():
    """Return the shipped yeast model as the current one."""
    current.set(mil.load_model("yeast-sim"))
    yield current.model
    current.clear()


@pytest.fixture
def viewer(make_napari_viewer):
    """Return a viewer with a screen to draw on."""
    return make_napari_viewer()


@pytest.fixture
def dock(viewer, qtbot, model):
    """Return the dock, opened as the Plugins menu opens it."""
    _, dock = open_dock(viewer, "Classify")
    yield dock
    dock.cancel()
    qtbot.waitUntil(lambda: not dock.busy and not dock.session.preview.busy, timeout=PATIENCE)


def images_of(dock) -> list:
    """Return the images of a dock's session."""
    return list(dock.session.images.records.values())


def finished(dock, qtbot, images: int = 1) -> None:
    """Wait until so many images are through, and the mask bench is ready."""
    qtbot.waitUntil(
        lambda: not dock.busy and len(images_of(dock)) >= images and not dock.session.preview.busy
        and all(entry.state.value in ("done", "failed", "stopped") for entry in images_of(dock)), timeout=PATIENCE,
    )  # fmt: skip


def classified(dock, viewer, qtbot, path: Path = FIELD) -> None:
    """Open an image and click Classify."""
    viewer.open(path)
    dock.run_button.click()
    finished(dock, qtbot)


def take_channels_in_order(dock):
    """Answer which channels of a stack without names are those of the model: in their order."""
    for number, combo in enumerate(dock.image_box._combos()):
        combo.setCurrentIndex(combo.findData(number))
        combo.activated.emit(combo.currentIndex())


def test_what_is_chosen_is_read_from_the_file_behind_the_layer(dock, viewer):
    viewer.open(TIMELAPSE)
    reading = dock.image_box.reading()
    assert (reading.axes, reading.channels, reading.pixel_size) == ("TCYX", ("GFP", "RFP"), 0.16)
    assert dock.image_box.facts.text() == "T 8 · C 2 · 256 × 256 px"
    assert dock.run_button.isEnabled()


def test_masks_lie_on_the_cells_that_show_the_class(dock, viewer, qtbot):
    classified(dock, viewer, qtbot)
    layer = viewer.layers["nucleus-01_1 masks"]
    truth = tifffile.imread(SAMPLES / "training" / "truth" / "nucleus-01_1.tif")
    cells = truth if truth.ndim == 2 else truth[0]
    mask = np.asarray(layer.data).reshape(cells.shape) > 0
    assert (cells[mask] > 0).mean() > 0.8
    found = np.unique(cells[mask & (cells > 0)])
    assert len(found) > 0.3 * len(np.unique(cells[cells > 0]))


def test_a_plane_that_is_cut_in_strips_is_shown_like_any_other(dock, viewer, qtbot, monkeypatch):
    """Its masks and its evidence lie on disk, and become layers; without room for these, the dock says so."""
    monkeypatch.setattr("napari_milcnn.inference.evidence.LARGEST_AT_ONCE", 0)
    classified(dock, viewer, qtbot)
    (masks,) = dock.session.in_view.masks.values()
    assert not isinstance(masks.labels, np.ndarray)
    layer = viewer.layers["nucleus-01_1 masks"]
    np.testing.assert_array_equal(np.squeeze(layer.data) > 0, np.asarray(masks.labels) > 0)
    dock.layers.put_evidence("nucleus")
    qtbot.waitUntil(lambda: any("evidence" in layer.name for layer in viewer.layers), timeout=PATIENCE)
    (evidence,) = [layer for layer in viewer.layers if "evidence" in layer.name]
    assert evidence.data.max() > 0

    def no_room(*_arguments):
        raise OutputError("a temporary file cannot be made")

    monkeypatch.setattr("napari_milcnn.plugin.layer_writer.scratch_array", no_room)
    key = dock.session.in_view.key
    dock.writer.remove(key)
    dock.session.images.plane_changed.emit((key, 0))
    assert "a temporary file cannot be made" in dock.notices.text()


def test_a_large_plane_is_shown_in_several_sizes(dock, viewer, qtbot, monkeypatch):
    """The slider changes its masks, and its evidence is a layer, all read where they lie, and let go when removed."""
    monkeypatch.setattr("napari_milcnn.inference.evidence.LARGEST_AT_ONCE", 0)
    monkeypatch.setattr("napari_milcnn.inference.strips.levels.LARGEST_AT_ONCE", 0)
    classified(dock, viewer, qtbot)
    layer = viewer.layers["nucleus-01_1 masks"]
    assert layer.multiscale
    before = np.squeeze(np.asarray(layer.data[0]))
    np.testing.assert_array_equal(before > 0, np.asarray(dock.session.in_view.masks[0].labels) > 0)
    np.testing.assert_array_equal(np.squeeze(np.asarray(layer.data[2])), before[::4, ::4])
    dock.mask_box.threshold.setValue(0.99 * dock.mask_box.threshold.maximum())
    qtbot.waitUntil(lambda: not dock.session.preview.busy, timeout=PATIENCE)
    assert viewer.layers["nucleus-01_1 masks"] is layer
    dock.layers.draw()
    after = np.squeeze(np.asarray(layer.data[0]))
    assert 0 < (after > 0).sum() < (before > 0).sum()
    np.testing.assert_array_equal(np.squeeze(np.asarray(layer.data[2])), after[::4, ::4])
    dock.layers.put_evidence("nucleus")
    qtbot.waitUntil(lambda: any("evidence" in layer.name for layer in viewer.layers), timeout=PATIENCE)
    (evidence,) = [layer for layer in viewer.layers if "evidence" in layer.name]
    assert evidence.multiscale
    assert np.asarray(evidence.data[0]).max() > 0
    assert dock.writer._maps
    viewer.layers.remove(evidence)
    assert not dock.writer._maps


def test_the_table_the_bars_and_the_layer_tell_the_same(dock, viewer, qtbot):
    classified(dock, viewer, qtbot)
    features = viewer.layers["nucleus-01_1 masks"].features
    objects = dock.results_box.objects.frame
    assert list(features["index"]) == list(objects.loc[objects["shown"], "index"])
    assert len(objects) == dock.session.in_view.masks[0].counts["cells"]
    assert set(features["class"]) == {"nucleus"}
    table = dock.results_box.plane_table
    assert table.proxy.index(0, 2).data() == "nucleus"
    values = np.unique(viewer.layers["nucleus-01_1 masks"].data)
    assert set(values) - {0} == set(features["index"])


@pytest.mark.slow
def test_numbers_equal_those_of_the_command_line_and_of_python(dock, viewer, qtbot, model, tmp_path):
    classified(dock, viewer, qtbot, TIMELAPSE)
    dock.export_box.folder.setText(str(tmp_path / "dock"))
    dock.export_box.button.click()
    qtbot.waitUntil(lambda: not dock.busy and (tmp_path / "dock" / "run.json").exists(), timeout=PATIENCE)
    list(classify_files(model, [TIMELAPSE], tmp_path / "screen"))
    mine, theirs = (pd.read_csv(tmp_path / where / "predictions.csv") for where in ("dock", "screen"))
    scores = [column for column in theirs if column.startswith(("score", "P "))]
    np.testing.assert_allclose(mine[scores], theirs[scores], atol=1e-5)
    np.testing.assert_allclose(mil.classify(model, TIMELAPSE).scores, mine[scores[: len(model.classes)]], atol=1e-5)
    np.testing.assert_array_equal(
        *(tifffile.imread(next((tmp_path / where).glob("*_labels.ome.tif"))) for where in ("dock", "screen"))
    )


@pytest.mark.slow
def test_the_record_runs_again_to_the_same_numbers(dock, viewer, qtbot, tmp_path):
    from napari_milcnn.results.replay import replay

    classified(dock, viewer, qtbot, TIMELAPSE)
    dock.mask_box.threshold.setValue(0.4)
    dock.mask_box.apply.click()
    finished(dock, qtbot)
    dock.export_box.folder.setText(str(tmp_path / "dock"))
    dock.export_box.button.click()
    qtbot.waitUntil(lambda: not dock.busy and (tmp_path / "dock" / "run.json").exists(), timeout=PATIENCE)
    list(replay(tmp_path / "dock" / "run.json", tmp_path / "again"))
    np.testing.assert_array_equal(
        *(tifffile.imread(next((tmp_path / where).glob("*_labels.ome.tif"))) for where in ("dock", "again"))
    )


def exported(dock, qtbot, folder: Path) -> None:
    """Export the chosen image to a folder."""
    dock.export_box.folder.setText(str(folder))
    dock.export_box.button.click()
    qtbot.waitUntil(lambda: not dock.busy, timeout=PATIENCE)


@pytest.mark.slow
def test_this_plane_alone_is_recorded_and_run_again_by_the_command_line(dock, viewer, qtbot, tmp_path):
    from typer.testing import CliRunner

    from napari_milcnn.cli.app import app

    viewer.open(TIMELAPSE)
    viewer.dims.set_point(0, 5)
    dock.image_box.this_plane.click()
    dock.run_button.click()
    finished(dock, qtbot)
    exported(dock, qtbot, tmp_path / "dock")
    call = ["classify", "--replay", str(tmp_path / "dock" / "run.json"), "-o", str(tmp_path / "again")]
    assert CliRunner().invoke(app, call).exit_code == 0
    for table in ("predictions.csv", "objects.csv"):
        mine, theirs = (pd.read_csv(tmp_path / where / table) for where in ("dock", "again"))
        assert set(mine["t"]) == {5}
        pd.testing.assert_frame_equal(mine, theirs, rtol=1e-4)
    np.testing.assert_array_equal(
        *(tifffile.imread(next((tmp_path / where).glob("*_labels.ome.tif"))) for where in ("dock", "again"))
    )


@pytest.mark.slow
def test_two_images_exported_to_one_folder_are_both_kept(dock, viewer, qtbot, tmp_path):
    from napari_milcnn.results.replay import replay

    drop(dock, FIELD, SAMPLES / "training" / "images" / "mitochondria-01_1.ome.tif")
    finished(dock, qtbot, 2)
    table = dock.results_box.plane_table
    for name in ("mitochondria-01_1", "nucleus-01_1"):
        (row,) = [r for r in range(2) if table.proxy.index(r, 0).data() == name]
        table.clicked.emit(table.proxy.index(row, 0))
        finished(dock, qtbot, 2)
        exported(dock, qtbot, tmp_path / "out")
    assert list(pd.read_csv(tmp_path / "out" / "predictions.csv")["name"]) == ["mitochondria-01_1", "nucleus-01_1"]
    (results,) = [[s.result for s in replay(tmp_path / "out" / "run.json", tmp_path / "again") if s.result]]
    assert [result.name for result in results] == ["mitochondria-01_1", "nucleus-01_1"]
    mine, theirs = (pd.read_csv(tmp_path / where / "objects.csv") for where in ("out", "again"))
    pd.testing.assert_frame_equal(mine, theirs, rtol=1e-4)


def test_the_table_of_objects_is_put_together_once_for_each_change(dock, viewer, qtbot):
    classified(dock, viewer, qtbot)
    entry = dock.session.in_view
    before = dock.writer.objects_of(entry)
    dock._refresh()
    assert dock.writer.objects_of(entry) is before
    dock.mask_box.threshold.setValue(0.95)
    qtbot.waitUntil(lambda: not dock.session.preview.busy)
    assert dock.writer.objects_of(entry)["shown"].sum() < before["shown"].sum()
    assert len(dock.results_box.objects.frame) == len(dock.writer.objects_of(entry))


def test_a_rerun_changes_layers_and_adds_none(dock, viewer, qtbot):
    classified(dock, viewer, qtbot)
    before = [layer.name for layer in viewer.layers]
    dock.run_button.click()
    finished(dock, qtbot)
    assert [layer.name for layer in viewer.layers] == before
    assert dock.results_box.planes.rowCount() == 1


def test_this_plane_alone_then_all(dock, viewer, qtbot):
    viewer.open(TIMELAPSE)
    viewer.dims.set_point(0, 5)
    dock.image_box.this_plane.click()
    dock.run_button.click()
    finished(dock, qtbot)
    assert [dock.results_box.plane_table.proxy.index(0, c).data() for c in (1, 2)] == ["T5", "nucleus"]
    dock.image_box.all_planes.click()
    dock.run_button.click()
    finished(dock, qtbot)
    assert dock.results_box.planes.rowCount() == 8


def test_a_cancelled_run_keeps_what_was_finished_and_says_so(dock, viewer, qtbot):
    viewer.add_image(np.concatenate([tifffile.imread(TIMELAPSE)] * 12), name="long", axis_labels=("t", "c", "y", "x"))
    take_channels_in_order(dock)
    dock.options_box.compute["batch_size"].value = 1
    dock.run_button.click()
    qtbot.waitUntil(lambda: dock.results_box.planes.rowCount() > 2, timeout=PATIENCE)
    dock.cancel_button.click()
    finished(dock, qtbot)
    (entry,) = images_of(dock)
    assert entry.state is ImageState.STOPPED
    assert 2 < len(entry.planes) < 96
    assert "of long classified; finished planes are kept." in dock.notices.text()
    assert "long masks" in viewer.layers


def test_tiffs_and_a_folder_dropped_on_the_dock_are_classified_in_turn(dock, viewer, qtbot, tmp_path):
    folder = tmp_path / "fields"
    folder.mkdir()
    for name in ("nucleus-01_1", "mitochondria-01_1"):
        shutil.copy(SAMPLES / "training" / "images" / f"{name}.ome.tif", folder)
    (folder / "broken.tif").write_bytes(b"II*\0 and nothing else")
    drop(dock, folder, FIELD)
    finished(dock, qtbot, 4)
    states = {entry.name: entry.state.value for entry in images_of(dock)}
    assert states == {"broken": "failed", "mitochondria-01_1": "done", "nucleus-01_1": "done"}
    table = dock.results_box.plane_table
    tops = {table.proxy.index(r, 0).data(): table.proxy.index(r, 2).data() for r in range(table.proxy.rowCount())}
    assert tops["mitochondria-01_1"] == "mitochondria"
    assert tops["nucleus-01_1"] == "nucleus"
    assert tops["broken"] == "failed"
    tips = [table.proxy.index(r, 2).data(Qt.ItemDataRole.ToolTipRole) for r in range(table.proxy.rowCount())]
    assert sum("broken.tif" in tip for tip in tips) == 1, tips
    assert len(viewer.layers) == 3  # the first that could be opened: its two channels and its masks


@pytest.mark.slow
def test_a_row_of_a_dropped_image_opens_it_with_its_masks(dock, viewer, qtbot):
    drop(dock, FIELD, SAMPLES / "training" / "images" / "mitochondria-01_1.ome.tif")
    finished(dock, qtbot, 2)
    table = dock.results_box.plane_table
    (row,) = [r for r in range(2) if table.proxy.index(r, 0).data() == "mitochondria-01_1"]
    table.clicked.emit(table.proxy.index(row, 0))
    finished(dock, qtbot, 2)
    assert "mitochondria-01_1 masks" in viewer.layers
    assert dock.session.in_view.name == "mitochondria-01_1"
    assert {layer.name for layer in viewer.layers.selection} == {layer.name for layer in dock.session.in_view.layers}
    assert dock.image_box.facts.text().endswith("px")
    mine = viewer.add_image(np.zeros((20, 20)), name="of the user")
    for name in ("mitochondria-01_1", "nucleus-01_1", "mitochondria-01_1"):
        of_image = {layer.name for layer in viewer.layers if layer.visible and layer is not mine}
        assert of_image == {f"{name} {what}" for what in ("GFP", "RFP", "masks")}  # one image is seen at a time
        dock.results_box.next_button.click()
    assert mine.visible


def test_a_tiff_dropped_on_the_canvas_is_classified_as_it_opens(dock, viewer, qtbot):
    dock.auto.setChecked(True)
    drop(viewer.window._qt_viewer, FIELD)
    finished(dock, qtbot)
    assert "nucleus-01_1 masks" in viewer.layers
    assert images_of(dock)[0].prediction.top == ("nucleus",)


def test_a_model_dropped_on_napari_becomes_the_current_one(dock, viewer, qtbot, tmp_path):
    path = lively_model().with_card(name="lively").save(tmp_path / "lively.zip")
    drop(viewer.window._qt_viewer, path)
    qtbot.waitUntil(lambda: current.model is not None and current.model.card.name == "lively", timeout=PATIENCE)
    assert len(viewer.layers) == 0
    assert dock.mask_box.classes.count() == 3
    dock.model_box.unload_button.click()
    assert current.model is None
    assert not dock.run_button.isEnabled()


def test_a_file_that_is_no_model_is_refused_in_words(dock, qtbot, tmp_path):
    (tmp_path / "bad.zip").write_bytes(b"nothing")
    dock.model_box.load(tmp_path / "bad.zip")
    qtbot.waitUntil(lambda: "is not a zip file; expected a model" in dock.model_box.card.text(), timeout=PATIENCE)
    assert current.model is not None


def test_the_wrong_count_of_channels_is_refused_before_anything_runs(dock, viewer):
    viewer.add_image(np.zeros((64, 64), np.uint16), name="one")
    assert "The model needs 2 channels (GFP, RFP) and the image has 1 (one)" in dock.image_box.message.text()
    assert not dock.run_button.isEnabled()


def test_layers_selected_together_are_channels(dock, viewer, qtbot):
    red, green = (tifffile.imread(FIELD)[i] for i in (1, 0))
    first, second = viewer.add_image(red, name="RFP"), viewer.add_image(green, name="GFP")
    viewer.layers.selection = {first, second}
    assert dock.image_box.reading().channels == ("RFP", "GFP")
    dock.image_box.pixel_size.setValue(0.16)
    dock.run_button.click()
    finished(dock, qtbot)
    assert images_of(dock)[0].prediction.top == ("nucleus",)


def test_a_moved_slider_cuts_the_plane_in_view_alone(dock, viewer, qtbot, monkeypatch):
    classified(dock, viewer, qtbot, TIMELAPSE)
    entry, plane = dock.session.in_view, dock.session.plane
    before = {number: len(masks.shown) for number, masks in entry.masks.items()}
    dock.mask_box.threshold.setValue(0.95)
    qtbot.waitUntil(lambda: not dock.session.preview.busy)
    after = {number: len(masks.shown) for number, masks in dock.session.in_view.masks.items()}
    assert after[plane] < before[plane]
    assert {n: c for n, c in after.items() if n != plane} == {n: c for n, c in before.items() if n != plane}
    assert dock.mask_box.count.text().startswith(f"{after[plane]} object")
    dock.mask_box.apply.click()
    finished(dock, qtbot)
    assert sum(len(masks.shown) for masks in dock.session.in_view.masks.values()) < sum(before.values())
    draw, drawn = dock.writer.refresh_masks, []
    monkeypatch.setattr(dock.writer, "refresh_masks", lambda image: drawn.append(draw(image)))
    dock.results_box.undo_button.click()
    dock.results_box.undo_button.click()
    qtbot.waitUntil(lambda: not dock.layers._draw_soon.isActive())
    assert 0 < len(drawn) < 6  # two a click, and not one for each of the eight planes
    labels = np.asarray(viewer.layers["yeast-timelapse masks"].data)
    assert [len(np.unique(one)) - 1 for one in labels.reshape(8, 256, 256)] == [before[n] for n in range(8)]
    assert {number: len(masks.shown) for number, masks in dock.session.in_view.masks.items()} == before
    assert dock.mask_box.options()["class_thresholds"] == {}
    qtbot.waitUntil(lambda: dock.mask_box.threshold.value() < 0.95, timeout=PATIENCE)


def test_masks_are_cut_in_another_thread_and_come_to_nothing_without_their_layer(dock, viewer, qtbot, monkeypatch):
    classified(dock, viewer, qtbot)
    cut, threads = masks.segment_plane, []

    def noted(*given):
        threads.append(threading.current_thread())
        return cut(*given)

    monkeypatch.setattr(masks, "segment_plane", noted)
    dock.mask_box.threshold.setValue(0.95)
    qtbot.waitUntil(lambda: not dock.session.preview.busy, timeout=PATIENCE)
    assert threads
    assert threading.main_thread() not in threads
    assert dock.mask_box.threshold.value() == 0.95
    dock.mask_box.threshold.setValue(0.5)
    assert dock.session.preview.busy
    viewer.layers.clear()
    assert not dock.session.preview.busy
    qtbot.waitUntil(lambda: QThreadPool.globalInstance().activeThreadCount() == 0, timeout=PATIENCE)
    (image,) = images_of(dock)
    assert set(image.masks[0].thresholds.values()) == {0.95}


def test_what_a_run_adds_is_chosen_before_it(dock, viewer, qtbot, model):
    """Class maps of the top class, and masks from the class map times the image at half the step."""
    dock.adds_box.choose("class_map_image", 2)
    dock.adds_box.maps.setCurrentText("top class")
    classified(dock, viewer, qtbot)
    (entry,) = images_of(dock)
    top = entry.prediction.top[0]
    assert f"nucleus-01_1 class map {top}" in viewer.layers
    found = mil.evidence(model, FIELD, [top], kind="class_map_image", detail=2)
    held = dock.session.preview.held
    assert (held.options["kind"], held.options["detail"]) == ("class_map_image", 2)
    np.testing.assert_allclose(held.evidence.maps[held.names.index(top)], found.maps[0, 0], atol=1e-3)
    current.set(model.with_card(evidence={"kind": "class_map", "detail": 4, "reason": ""}))
    assert dock.adds_box.options() == {"kind": "class_map", "detail": 4}


@pytest.mark.parametrize("kind", ["class_map", "jacobian"])
@pytest.mark.slow
def test_other_evidence_gives_other_masks(dock, viewer, qtbot, kind):
    classified(dock, viewer, qtbot)
    before = np.array(viewer.layers["nucleus-01_1 masks"].data)
    dock.adds_box.choose(kind)
    qtbot.waitUntil(
        lambda: not dock.session.preview.busy and (viewer.layers[-1].data != before).any(), timeout=PATIENCE
    )
    assert dock.mask_box.smooth.isEnabled()
    dock.mask_box.show_evidence.click()
    dock.mask_box.show_map.click()
    qtbot.waitUntil(lambda: f"nucleus-01_1 evidence nucleus ({kind})" in viewer.layers, timeout=PATIENCE)
    assert "nucleus-01_1 class map nucleus" in viewer.layers


def test_a_row_of_the_objects_shows_the_cell_and_a_cell_shows_its_row(dock, viewer, qtbot):
    classified(dock, viewer, qtbot)
    objects, table = dock.results_box.objects.frame, dock.results_box.object_table
    first, second = np.flatnonzero(objects["shown"])[[2, 4]].tolist()
    table.clicked.emit(table.proxy.index(first, 0))
    layer = viewer.layers["nucleus-01_1 masks"]
    assert layer.selected_label == objects["index"][first]
    centre = np.array(getattr(viewer, "scene", viewer).camera.center[-2:]) / layer.scale[-2:]
    np.testing.assert_allclose(centre, objects.loc[first, ["y", "x"]].astype(float), atol=0.6)
    layer.selected_label = int(objects["index"][second])
    assert table.source_row(table.selectedIndexes()[0]) == second


def test_cells_of_a_labels_layer_get_classes_and_a_coloured_copy(dock, viewer, qtbot, model):
    viewer.open(FIELD)
    truth = tifffile.imread(SAMPLES / "training" / "truth" / "nucleus-01_1.tif")
    cells = components((truth if truth.ndim == 2 else truth[0]) > 0)
    mine = viewer.add_labels(cells, name="mine")
    dock.cells_box.button.click()
    qtbot.waitUntil(lambda: not dock.busy, timeout=PATIENCE)
    expected = mil.classify_cells(model, FIELD, cells)
    assert list(mine.features["index"]) == list(expected["label"])
    assert list(mine.features["class"]) == list(expected["top"])
    np.testing.assert_array_equal(np.squeeze(viewer.layers["mine classified"].data) > 0, cells > 0)


def test_z_as_a_maximum_projection(dock, viewer, qtbot):
    flat = tifffile.imread(FIELD)
    stack = np.stack([flat // 2, flat, flat // 3])  # Z C Y X
    viewer.add_image(stack, name="stack", axis_labels=("z", "c", "y", "x"))
    dock.image_box.z.setCurrentIndex(1)
    dock.image_box.z.activated.emit(1)
    dock.image_box.pixel_size.setValue(0.16)
    assert not dock.run_button.isEnabled()  # the stack does not say which channel is which
    take_channels_in_order(dock)
    dock.run_button.click()
    finished(dock, qtbot)
    (entry,) = images_of(dock)
    np.testing.assert_allclose(entry.prediction.scores, mil.classify(current.model, FIELD).scores, atol=1e-5)
    layer, y, x = viewer.layers["stack masks"], *np.argwhere(np.squeeze(viewer.layers["stack masks"].data))[0]
    for z in range(3):
        assert layer.get_value((z, 1, y, x), world=True) > 0


def test_tables_are_copied_saved_sorted_and_filtered(dock, viewer, qtbot, tmp_path):
    classified(dock, viewer, qtbot, TIMELAPSE)
    table = dock.results_box.plane_table
    dock.results_box.copy_button.click()
    lines = QApplication.clipboard().text().splitlines()
    assert lines[0].split("\t") == ["image", "plane", "top class", "score", "unlike", "margin", "model"]
    assert len(lines) == 9
    dock.results_box.filter.setText("cytoplasm")
    assert 0 < table.proxy.rowCount() < 8
    dock.results_box.filter.clear()
    table.sortByColumn(3, Qt.SortOrder.DescendingOrder)
    scores = [float(table.proxy.index(r, 3).data()) for r in range(8)]
    assert scores == sorted(scores, reverse=True)
    dock.results_box.save_requested.emit(str(tmp_path / "predictions.csv"))
    assert len(pd.read_csv(tmp_path / "predictions.csv")) == 8


def test_masks_saved_from_the_layer_list_keep_scale_and_classes(dock, viewer, qtbot, tmp_path):
    classified(dock, viewer, qtbot)
    layer = viewer.layers["nucleus-01_1 masks"]
    layer.save(str(tmp_path / "m.ome.tif"), plugin="napari-milcnn")
    layer.save(str(tmp_path / "m.ome.zarr"), plugin="napari-milcnn")
    for name in ("m.ome.tif", "m.ome.zarr"):
        with mil.open_image(tmp_path / name) as saved:
            np.testing.assert_array_equal(np.squeeze(saved.data[...]), np.squeeze(layer.data))


def test_a_real_field_dropped_classified_exported_and_opened_again(viewer, qtbot, tmp_path):
    real = SHARED / "data" / "bbbc016" / "images"
    if not real.is_dir():
        pytest.skip("the fields of BBBC016 are not beside this project (../shared/data/bbbc016)")
    current.set(lively_model(classes=("basal", "stimulated"), channels=("GFP",)))
    _, dock = open_dock(viewer, "Classify")
    dock.auto.setChecked(True)
    field = sorted(real.glob("*.tif"))[0]
    drop(viewer.window._qt_viewer, field)
    finished(dock, qtbot)
    layer = next(layer for layer in viewer.layers if layer.name.endswith(" masks"))
    assert layer.data.shape == viewer.layers[0].data.shape
    layer.save(str(tmp_path / "mask.ome.tif"), plugin="napari-milcnn")
    (again,) = viewer.open(tmp_path / "mask.ome.tif", layer_type="labels", plugin="napari")
    np.testing.assert_array_equal(np.squeeze(again.data), np.squeeze(layer.data))
    assert set(np.unique(again.data)) - {0} == set(layer.features["index"])
    current.clear()


def test_the_viewer_closes_in_the_middle_of_a_run(make_napari_viewer, qtbot, model):
    viewer = make_napari_viewer()
    _, dock = open_dock(viewer, "Classify")
    viewer.add_image(np.concatenate([tifffile.imread(TIMELAPSE)] * 6), name="long", axis_labels=("t", "c", "y", "x"))
    take_channels_in_order(dock)
    dock.options_box.compute["batch_size"].value = 1
    dock.run_button.click()
    qtbot.waitUntil(lambda: dock.results_box.planes.rowCount() > 1, timeout=PATIENCE)
    worker = dock.session.job._running._worker
    viewer.close()
    qtbot.waitUntil(lambda: not worker.is_running, timeout=PATIENCE)


@pytest.mark.slow
def test_the_longest_stall_of_the_window_during_a_run_is_printed(dock, viewer, qtbot, record_property):
    classified(dock, viewer, qtbot, FIELD)  # the first labels layer compiles napari's shaders
    viewer.add_image(np.concatenate([tifffile.imread(TIMELAPSE)] * 6), name="long", axis_labels=("t", "c", "y", "x"))
    take_channels_in_order(dock)
    ticks: list[float] = []
    clock = QTimer(dock)
    clock.timeout.connect(lambda: ticks.append(time.perf_counter()))
    clock.start(5)
    dock.run_button.click()
    finished(dock, qtbot)
    clock.stop()
    longest = max(later - before for before, later in pairwise(ticks))
    record_property("longest stall of the window during a classification", f"{1000 * longest:.0f} ms")
    assert len(dock.session.in_view.planes) == 48


@pytest.mark.slow
def test_a_model_that_scales_by_plate_goes_by_the_images_that_are_open(dock, viewer, qtbot, tmp_path):
    """One image alone is doubted in words; with a second one open both share a scale, which the record keeps."""
    from napari_milcnn.results.replay import replay

    current.set(mil.load_model("yeast-sim").with_card(normalise="group"))
    classified(dock, viewer, qtbot)
    assert "Intensities are scaled by the one image of this viewer" in dock.notices.text()
    assert "Only one image of this viewer is known" in dock.notices.text()
    other = viewer.open(FIELD.with_name("nucleus-02_1.ome.tif"), layer_type="image")
    viewer.layers.selection = set(other)
    dock.run_button.click()
    finished(dock, qtbot, 2)
    plates = [entry.prediction.plate for entry in images_of(dock)]
    assert [plate.measured for plate in plates] == [1, 2]
    assert "by the 2 images of this viewer, none of which is marked as a control." in dock.notices.text()
    exported(dock, qtbot, tmp_path / "dock")
    *_, last = replay(tmp_path / "dock" / "run.json", tmp_path / "again", current.model)
    assert last.result.prediction.plate == plates[1]
    np.testing.assert_array_equal(last.result.prediction.scores, images_of(dock)[1].prediction.scores)
