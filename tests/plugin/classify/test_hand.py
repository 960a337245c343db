"""What a hand does to the Classify dock, and what it must not lose."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("napari")
from qtpy.QtCore import Qt
from qtpy.QtGui import QShortcut
from qtpy.QtTest import QTest

import napari_milcnn as mil
from conftest import PATIENCE, lively_model, noise
from napari_milcnn.model.card import ModelCard
from napari_milcnn.plugin.classify.model_box import card_sentence
from napari_milcnn.plugin.current_model import current
from qt_actions import open_dock


@pytest.fixture
def viewer(make_napari_viewer):
    return make_napari_viewer()


@pytest.fixture
def dock(viewer, qtbot):
    """Return the dock with a small model."""
    current.set(lively_model(channels=("GFP",)).with_card(name="lively"))
    _, dock = open_dock(viewer, "Classify")
    yield dock
    dock.cancel()
    qtbot.waitUntil(lambda: not dock.busy and not dock.session.preview.busy, timeout=PATIENCE)
    current.clear()


def add(viewer, name: str, seed: int = 0):
    """Add an image of one channel, and select it."""
    layer = viewer.add_image(noise(96, 96, seed=seed), name=name)
    viewer.layers.selection = {layer}
    return next(one for one in viewer.layers if one == layer)


def classify(dock, qtbot) -> None:
    dock.run_button.click()
    qtbot.waitUntil(lambda: not dock.busy and not dock.session.preview.busy, timeout=PATIENCE)


def test_a_dock_that_opens_takes_the_selected_layer_and_not_the_last(viewer):
    current.set(lively_model(channels=("GFP",)))
    first = add(viewer, "mine")
    add(viewer, "last")
    viewer.layers.selection = {first}
    _, dock = open_dock(viewer, "Classify")
    assert dock.image_box.chosen() == (first,)
    current.clear()


def test_a_renamed_layer_has_its_new_name_everywhere_and_keeps_its_results(viewer, dock, qtbot):
    layer = add(viewer, "mine")
    cells = viewer.add_labels(np.zeros((96, 96), int), name="cells")
    viewer.layers.selection = {layer}
    classify(dock, qtbot)
    layer.name = "yours"
    cells.name = "nuclei"
    assert dock.image_box.layers.currentText() == "yours"
    assert dock.results_box.plane_table.proxy.index(0, 0).data() == "yours"
    assert dock.cells_box.layers.currentText() == "nuclei"
    assert "nuclei" in [dock.adds_box.cells.itemText(i) for i in range(dock.adds_box.cells.count())]
    assert dock.session.in_view.planes


def test_masks_that_were_edited_by_hand_stay_and_a_rerun_gets_a_layer_of_its_own(viewer, dock, qtbot):
    add(viewer, "mine")
    classify(dock, qtbot)
    mine = viewer.layers["mine masks"]
    mine.paint((5, 5), 7)
    edited = np.array(mine.data)
    classify(dock, qtbot)
    assert mine.name == "mine masks (edited by hand)"
    np.testing.assert_array_equal(mine.data, edited)
    assert viewer.layers["mine masks"].data[5, 5] != 7 or not np.array_equal(viewer.layers["mine masks"].data, edited)
    assert "stay in the layer mine masks (edited by hand)" in dock.notices.text()


def test_removed_results_take_their_layer_and_come_back_with_it(viewer, dock, qtbot):
    add(viewer, "mine")
    classify(dock, qtbot)
    masks = np.array(viewer.layers["mine masks"].data)
    dock.results_box.plane_table.selectRow(0)
    dock.results_box.remove_button.click()
    assert "mine masks" not in viewer.layers
    assert dock.results_box.planes.rowCount() == 0
    assert dock.results_box.undo_button.toolTip() == "Undo the removal of mine (Ctrl+Z)"
    dock.results_box.undo_button.click()
    np.testing.assert_array_equal(viewer.layers["mine masks"].data, masks)
    assert dock.results_box.planes.rowCount() == 1


def test_results_of_another_model_say_whose_they_are(viewer, dock, qtbot):
    add(viewer, "mine")
    classify(dock, qtbot)
    current.set(lively_model(classes=("x", "y"), channels=("GFP",)).with_card(name="other"))
    assert dock.results_box.planes.rowCount() == 1
    assert dock.results_box.model.text() == "Found by lively, which is not the current model."
    assert dock.mask_section.isHidden()
    classify(dock, qtbot)
    assert [dock.results_box.plane_table.proxy.index(row, 6).data() for row in range(2)] == ["lively", "other"]
    before, after = (dock.writer.masks_of(one) for one in dock.session.images.records.values())
    assert (before.visible, after.visible) == (False, True)
    dock.results_box.plane_table.clicked.emit(dock.results_box.plane_table.proxy.index(0, 0))
    assert (before.visible, after.visible) == (True, False)
    assert dock.results_box.model.text().startswith("Found by lively")


def test_keys_show_and_hide_masks_and_outlines_and_go_from_image_to_image(viewer, dock, qtbot):
    for number, name in enumerate(("mine", "yours")):
        add(viewer, name, seed=3 * number)
        classify(dock, qtbot)
    keys = {one.key().toString(): one for one in dock.findChildren(QShortcut)}
    assert keys.keys() == {"Alt+Left", "Alt+Right", "Alt+M", "Alt+O", "Ctrl+Z", "Ctrl+Shift+Z"}
    layer = dock.writer.masks_of(dock.session.in_view)
    keys["Alt+M"].activated.emit()
    keys["Alt+O"].activated.emit()
    assert (layer.visible, layer.contour > 0) == (False, True)
    keys["Alt+M"].activated.emit()
    keys["Alt+O"].activated.emit()
    assert (layer.visible, layer.contour) == (True, 0)
    names = []
    for key in ("Alt+Right", "Alt+Left", "Alt+Left"):
        keys[key].activated.emit()
        names.append(dock.session.in_view.name)
    assert names == ["mine", "yours", "mine"]
    dock.results_box.remove_requested.emit([dock.session.in_view.key])
    keys["Ctrl+Z"].activated.emit()
    assert len(dock.session.images.records) == 2
    results, masks = dock.results_box, dock.mask_box
    buttons = (results.undo_button, results.next_button, results.previous_button, masks.hide_button,
               masks.outline_button)  # fmt: skip
    assert all(any(key in button.toolTip() for button in buttons) for key in keys)  # that of Redo, after an undo


def test_sections_fold_after_a_run_and_unfold_by_key_and_click(viewer, dock, qtbot):
    add(viewer, "mine")
    dock.image_box.pixel_size.setValue(0.2)
    classify(dock, qtbot)
    assert not dock.model_section.is_open
    assert dock.result_section.is_open
    assert "choose a model" in dock.model_section.button.text() or "Model: " in dock.model_section.button.text()
    QTest.keyClick(dock.model_section.button, Qt.Key.Key_Space)
    assert dock.model_section.is_open
    QTest.mouseClick(dock.model_section.button, Qt.MouseButton.LeftButton)
    assert not dock.model_section.is_open


def test_without_a_model_the_dock_leads_to_practice_and_to_training(viewer, qtbot):
    current.clear()
    _, dock = open_dock(viewer, "Classify")
    assert "shipped models are to practise with" in dock.model_box.card.text()
    assert not dock.model_box.train_button.isHidden()
    dock.model_box.practice_button.click()
    qtbot.waitUntil(lambda: current.model is not None, timeout=PATIENCE)
    assert dock.run_button.isEnabled()
    assert dock.image_box.message.text() == ""
    assert dock.model_box.practice_button.isHidden()
    assert "train a model for your own images" in dock.model_box.card.text()
    assert not dock.model_box.train_button.isHidden()
    current.set(lively_model())
    assert dock.model_box.train_button.isHidden()
    current.clear()


@pytest.mark.parametrize(
    ("metrics", "trained_on", "said"),
    [
        ({}, "", ""),
        ({"accuracy, none, validation plates": 1.0}, "fields, of which 5-80 % show the phenotype",
         "Right on 100 of 100 unseen images with 5–80 % affected cells."),
        ({"validation accuracy": 0.9996}, "", "Right on 99 of 100 unseen images."),
        ({"validation accuracy, yes or no for each class": 0.99}, "",
         "In unseen images, it was right in 99 of 100 answers, one for each class and image."),
        ({"accuracy": 0.5}, "", "Right on 50 of 100 images."),
        ({"validation loss": 0.5}, "", ""),
    ],
)  # fmt: skip
def test_a_card_says_how_often_a_model_was_right(metrics, trained_on, said):
    card: ModelCard = lively_model().card.model_copy(update={"metrics": metrics, "trained_on": trained_on})
    assert card_sentence(card) == said


def test_the_shipped_models_say_how_often_they_were_right():
    cards = [mil.load_model(name).card for name in ("yeast-sim", "nuclei")]
    assert ["unseen images with" in card_sentence(card) for card in cards] == [True, True]


def test_rare_options_reach_a_run_and_its_masks(viewer, dock, qtbot):
    """A way to find cells that only the form of the option model has, and a quantile as the threshold."""
    add(viewer, "mine")
    classify(dock, qtbot)
    before = len(dock.session.in_view.masks[0].objects)
    dock.options_box.foreground["size"].value = 30.0
    qtbot.waitUntil(lambda: len(dock.session.in_view.masks[0].objects) != before, timeout=PATIENCE)
    made = dock.session.in_view.planes[0].made_with.settings
    assert made.evidence["foreground"] == {"size": 30.0}
    shown = len(dock.session.in_view.masks[0].shown)
    dock.mask_box.more["threshold"].value = "q1"
    qtbot.waitUntil(lambda: len(dock.session.in_view.masks[0].shown) < shown, timeout=PATIENCE)
    dock.mask_box.more["threshold"].value = "q7"
    assert "expected a quantile between q0 and q1" in dock.notices.text()
    dock.mask_box.more["threshold"].value = "auto"
    assert "quantile" not in dock.notices.text()


def test_why_nothing_can_run_is_in_sight_and_in_the_tooltip_of_the_button(viewer, dock, qtbot):
    add(viewer, "mine")
    classify(dock, qtbot)
    dock.image_section.fold()
    current.set(lively_model())  # of two channels
    assert not dock.run_button.isEnabled()
    assert dock.image_section.is_open
    assert "the model needs 2 channels (GFP, RFP) and the image has 1" in dock.run_button.toolTip()
    current.clear()
    assert dock.run_button.toolTip() == "Choose a model first."


def test_planes_of_an_image_without_layers_have_short_names(dock, qtbot, viewer):
    layer = viewer.add_image(noise(3, 96, 96), name="movie", axis_labels=("t", "y", "x"))
    viewer.layers.selection = {layer}
    classify(dock, qtbot)
    names = [dock.results_box.plane_table.proxy.index(row, 1).data() for row in range(3)]
    viewer.layers.clear()
    assert names == ["T0", "T1", "T2"]
    assert [dock.results_box.plane_table.proxy.index(row, 1).data() for row in range(3)] == names


def test_what_says_most_is_in_sight(viewer, dock, qtbot):
    axes = dock.image_box.axes
    assert axes.width() > axes.fontMetrics().horizontalAdvance("TCYX")
    add(viewer, "mine")
    classify(dock, qtbot)
    assert dock.results_box.plane_table.textElideMode() == Qt.TextElideMode.ElideMiddle
    assert dock.results_box.objects.titles()[:3] == ("class", "area_px", "mean_evidence")
