"""The Label tab, used as a user does: files are dropped, classes typed, keys pressed, rows clicked."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import tifffile
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication, QColorDialog, QFileDialog, QLineEdit

from conftest import PATIENCE, lively_model, noise
from napari_milcnn.images.open import open_image
from napari_milcnn.labels.labelling import open_labelling
from napari_milcnn.labels.table import read_labels
from napari_milcnn.plugin.current_model import current
from qt_actions import drop

pytest.importorskip("napari")
from napari.components import ViewerModel
from npe2 import PluginManager

from napari_milcnn.plugin.train.label_box import LabelBox
from napari_milcnn.plugin.train.label_table import GROUP, SPLIT

SHIFT, CONTROL = Qt.KeyboardModifier.ShiftModifier, Qt.KeyboardModifier.ControlModifier


@pytest.fixture
def folder(tmp_path):
    """Return a folder of eight images of two channels."""
    for i in range(8):
        facts = {"axes": "CYX", "Channel": {"Name": ["GFP", "RFP"]}}
        tifffile.imwrite(tmp_path / f"{i}.ome.tif", noise(2, 96, 96, seed=i), metadata=facts)
    return tmp_path


@pytest.fixture
def viewer():
    """Return a viewer without a window, which is enough for the tab."""
    return ViewerModel()


@pytest.fixture
def box(viewer, qtbot):
    """Return the tab in a window of its own."""
    box = LabelBox(viewer)  # not given to qtbot, which would close it before its jobs have ended
    shown(box, box, qtbot)
    yield box
    settled(box, qtbot)
    box.close()
    box.deleteLater()


def shown(box, window, qtbot) -> None:
    """Show a window, and let it have the focus."""
    box.resize(330, 900)
    window.show()
    window.activateWindow()
    qtbot.waitUntil(lambda: QApplication.activeWindow() is window)


def settled(box, qtbot) -> None:
    """Wait until no job runs."""
    qtbot.waitUntil(lambda: not box.busy and not box.images.pictures.busy, timeout=PATIENCE)


def dropped(box, qtbot, *paths: Path) -> None:
    """Drop files and wait until they are open."""
    with qtbot.waitSignal(box.changed, timeout=PATIENCE):
        drop(box, *paths)
    settled(box, qtbot)


def type_class(*names: str, box) -> None:
    """Type the name of a class and press Enter."""
    for name in names:
        QTest.keyClicks(box.class_box.new, name)
        QTest.keyClick(box.class_box.new, Qt.Key.Key_Return)


def press(widget, digit: int, modifier=Qt.KeyboardModifier.NoModifier) -> None:
    """Press a number key in a widget."""
    widget.setFocus()
    QTest.keyClick(widget, Qt.Key(Qt.Key.Key_0 + digit), modifier)


def labels(box) -> list[tuple[str, ...]]:
    """Return the labels of each image."""
    return [image.labels for image in box.labelling.images]


def click(box, row: int, modifier=Qt.KeyboardModifier.NoModifier) -> None:
    """Click a row of the table."""
    box.table.scrollTo(box.table.view_index(row))
    at = box.table.visualRect(box.table.view_index(row)).center()
    QTest.mouseClick(box.table.viewport(), Qt.MouseButton.LeftButton, modifier, at)


def test_the_empty_tab_says_what_to_do_first_and_then_the_next_things(box, qtbot, folder):
    assert box.hint.text().startswith("Open images to label, or drop them here")
    assert not box.table.isVisible()
    dropped(box, qtbot, folder)
    assert "Add a class for each phenotype" in box.hint.text()
    assert box.count.text() == "0 of 8 labelled"
    type_class("a", "b", box=box)
    assert "press the number of its class" in box.hint.text()
    press(box.table, 1)
    assert not box.hint.isVisible()
    assert "Only a has labelled images" in box.class_box.warnings.text()


def test_number_keys_label_and_the_next_image_opens_by_itself(box, viewer, qtbot, folder):
    dropped(box, qtbot, folder)
    type_class("a", "b", box=box)
    names = []
    for digit in (1, 2, 2):
        settled(box, qtbot)
        names.append([layer.name for layer in viewer.layers])
        press(box.table, digit)
    settled(box, qtbot)
    assert labels(box)[:4] == [("a",), ("b",), ("b",), ()]
    assert names == [["0 GFP", "0 RFP"], ["1 GFP", "1 RFP"], ["2 GFP", "2 RFP"]]
    assert [layer.name for layer in viewer.layers] == ["3 GFP", "3 RFP"]
    np.testing.assert_array_equal(np.asarray(viewer.layers[0].data), noise(2, 96, 96, seed=3)[0])
    assert read_labels(folder / "labels.csv").counts() == {"a": 1, "b": 2}
    assert [box.class_box.counts[name].text() for name in "ab"] == ["1", "2"]


def test_shift_adds_and_removes_a_further_label_and_0_clears_all(box, qtbot, folder):
    dropped(box, qtbot, folder)
    type_class("a", "b", box=box)
    box.open_next.click()
    press(box.table, 1)
    press(box.table, 2, SHIFT)
    assert labels(box)[0] == ("a", "b")
    press(box.table, 1, SHIFT)
    assert labels(box)[0] == ("b",)
    press(box.table, 0)
    assert labels(box)[0] == ()
    press(box.table, 7)
    assert box.message.text() == "There is no class 7 yet."


def test_digits_typed_in_a_field_are_text(box, qtbot, folder):
    dropped(box, qtbot, folder)
    type_class("a", box=box)
    for field in (box.filter, box.class_box.new):
        press(field, 1)
        assert field.text() == "1"
    assert labels(box) == [()] * 8


def test_undo_and_redo_by_keys_and_buttons(box, qtbot, folder):
    dropped(box, qtbot, folder)
    type_class("a", box=box)
    press(box.table, 1)
    QTest.keyClick(box.table, Qt.Key.Key_Z, CONTROL)
    assert labels(box)[0] == ()
    QTest.keyClick(box.table, Qt.Key.Key_Z, CONTROL | SHIFT)
    assert labels(box)[0] == ("a",)
    box.undo_button.click()
    box.undo_button.click()
    assert (box.labelling.classes, box.undo_button.isEnabled()) == ((), False)
    box.redo_button.click()
    box.redo_button.click()
    assert (labels(box)[0], box.redo_button.isEnabled()) == (("a",), False)


def test_keys_label_in_the_canvas_only_while_the_button_says_so(make_napari_viewer, qtbot, folder):
    """Number keys and Ctrl+Z belong to napari's layers in the image, and to the labels on the tab."""
    viewer = make_napari_viewer()
    box = LabelBox(viewer)
    viewer.window.add_dock_widget(box, name="Train")
    shown(box, viewer.window._qt_window, qtbot)
    dropped(box, qtbot, folder)
    type_class("a", "b", box=box)
    canvas = viewer.window._qt_viewer.canvas.native
    press(box.table, 2)
    press(canvas, 1)
    QTest.keyClick(canvas, Qt.Key.Key_Z, CONTROL)
    assert labels(box)[:2] == [("b",), ()]
    box.keys_button.click()
    assert box.keys_button.text() == "Keys in the image label: on"
    press(canvas, 1)
    press(canvas, 2, SHIFT)
    assert labels(box)[:3] == [("b",), ("a",), ("b",)]
    QTest.keyClick(canvas, Qt.Key.Key_Z, CONTROL)
    assert labels(box)[2] == ()
    box.hide()
    press(canvas, 1)
    assert labels(box)[1:3] == [("a",), ()]
    assert not box.keys_button.isChecked()
    settled(box, qtbot)


def test_a_class_is_clicked_renamed_recoloured_and_removed_after_a_question(box, qtbot, folder, monkeypatch):
    dropped(box, qtbot, folder)
    type_class("a", "b", box=box)
    box.class_box.buttons["b"].click()
    assert labels(box)[0] == ("b",)
    QTest.mouseDClick(box.class_box.names["b"], Qt.MouseButton.LeftButton)
    QTest.keyClicks(box.class_box.renaming, "new")
    QTest.keyClick(box.class_box.renaming, Qt.Key.Key_Return)
    assert labels(box)[0] == ("new",)
    QTest.mouseDClick(box.class_box.names["new"], Qt.MouseButton.LeftButton)
    QTest.keyClicks(box.class_box.renaming, "A")
    QTest.keyClick(box.class_box.renaming, Qt.Key.Key_Return)
    assert "differs from 'a' only in case" in box.message.text()
    monkeypatch.setattr(QColorDialog, "getColor", lambda colour, *_: type(colour)("#123456"))
    box.class_box.swatches["new"].click()
    assert box.labelling.classes[1].colour == "#123456"
    box.class_box.removers["new"].click()
    assert box.class_box.question.text() == "1 image has the label new. Remove the class and this label?"
    box.class_box.keep.click()
    assert len(box.labelling.classes) == 2
    box.class_box.removers["new"].click()
    box.class_box.remove.click()
    assert (labels(box)[0], [each.name for each in box.labelling.classes]) == ((), ["a"])
    box.class_box.removers["a"].click()  # no image has this label, so no question is asked
    assert box.labelling.classes == ()


def test_names_that_are_refused_stay_in_the_field(box, qtbot, folder):
    dropped(box, qtbot, folder)
    type_class("a", "a|b", box=box)
    assert "'a|b' cannot name a class" in box.message.text()
    assert box.class_box.new.text() == "a|b"


def test_group_and_split_are_edited_in_place_for_all_selected_rows(box, qtbot, folder):
    dropped(box, qtbot, folder)
    click(box, 1)
    click(box, 3, SHIFT)
    box.images.setData(box.images.index(2, GROUP), "w1")
    assert [image.group for image in box.labelling.images[:5]] == ["0.ome.tif", "w1", "w1", "w1", "4.ome.tif"]
    box.images.setData(box.images.index(0, SPLIT), "train")
    assert [image.split for image in box.labelling.images[:2]] == ["train", None]
    click(box, 4)
    box.table.setCurrentIndex(box.table.view_index(4).siblingAtColumn(GROUP))
    QTest.keyClick(box.table, Qt.Key.Key_F2)
    (editor,) = box.table.findChildren(QLineEdit)
    QTest.keyClicks(editor, "2")
    QTest.keyClick(editor, Qt.Key.Key_Return)
    qtbot.waitUntil(lambda: box.labelling.images[4].group == "2")


def test_the_table_is_filtered_by_text_and_label_and_the_order_in_view_is_followed(box, viewer, qtbot, folder):
    dropped(box, qtbot, folder)
    type_class("a", box=box)
    box.filter.setText("3")
    assert box.table.proxy.rowCount() == 1
    box.filter.clear()
    box.shown.setCurrentIndex(1)
    box.shown.activated.emit(1)
    click(box, 5)
    press(box.table, 1)
    assert box.table.proxy.rowCount() == 7
    assert box.table.rows() == [6]
    box.open_next.click()
    press(box.table, 1)
    assert box.table.rows() == []  # the filter now hides the labelled image, and nothing is selected in its place
    press(box.table, 1)
    assert box.message.text() == "Select an image in the table first."
    box.shown.setCurrentIndex(2)
    box.shown.activated.emit(2)
    assert [box.table.proxy.index(r, 0).data() for r in range(2)] == ["5", "6"]
    box.shown.setCurrentIndex(0)
    box.shown.activated.emit(0)
    box.open_next.click()
    box.table.sortByColumn(0, Qt.SortOrder.DescendingOrder)
    click(box, 7)
    press(box.table, 1)
    assert box.table.rows() == [4]  # 6 and 5 are labelled already


def test_thumbnails_are_made_and_an_image_that_fails_shows_its_error(box, qtbot, folder):
    (folder / "3.ome.tif").write_bytes(b"II*\0 and nothing else")
    dropped(box, qtbot, folder)
    box.table.scrollTo(box.table.view_index(3))
    qtbot.waitUntil(lambda: 3 in box.images.pictures.errors and 2 in box.images.pictures._pictures, timeout=PATIENCE)
    index = box.images.index(3, 0)
    assert "3.ome.tif" in index.data(Qt.ItemDataRole.ToolTipRole)
    assert len(index.data(Qt.ItemDataRole.ToolTipRole)) > len("3.ome.tif")
    assert box.images.pictures._pictures[2].availableSizes()[0].width() <= 40
    click(box, 3)
    settled(box, qtbot)
    assert "3.ome.tif" in box.message.text()


def test_layers_of_the_user_stay_and_our_layers_keep_their_display_settings(box, viewer, qtbot, folder):
    mine = viewer.add_image(np.zeros((8, 8)), name="mine")
    dropped(box, qtbot, folder)
    assert [layer.name for layer in viewer.layers] == ["mine", "0 GFP", "0 RFP"]
    box.image_layers.layers[1].visible = False
    click(box, 4)
    settled(box, qtbot)
    assert [layer.name for layer in viewer.layers] == ["mine", "4 GFP", "4 RFP"]
    assert not viewer.layers["4 RFP"].visible
    assert mine.name == "mine"
    viewer.layers.remove("4 GFP")
    click(box, 5)
    settled(box, qtbot)
    assert [layer.name for layer in viewer.layers] == ["mine", "5 GFP", "5 RFP"]


def test_each_plane_is_shown_alone(box, viewer, qtbot, tmp_path):
    movie = noise(3, 2, 64, 64, seed=1)
    tifffile.imwrite(tmp_path / "movie.ome.tif", movie, metadata={"axes": "TCYX", "Channel": {"Name": ["GFP", "RFP"]}})
    box.open_box.planes.setChecked(True)
    dropped(box, qtbot, tmp_path / "movie.ome.tif")
    click(box, 2)
    settled(box, qtbot)
    assert [layer.name for layer in viewer.layers] == ["movie GFP T2", "movie RFP T2"]
    np.testing.assert_array_equal(np.asarray(viewer.layers[1].data), movie[2, 1])


def test_layers_with_a_file_are_read_from_it_and_others_are_saved_first(box, viewer, qtbot, folder, tmp_path_factory,
                                                                        monkeypatch):  # fmt: skip
    box.open_box.layers_button.click()
    assert "Select one or more image layers" in box.message.text()
    PluginManager.instance().discover()  # a viewer without a window does not look for readers
    viewer.open(folder / "2.ome.tif")
    for layer in viewer.layers:
        viewer.layers.selection.add(layer)
    with qtbot.waitSignal(box.changed, timeout=PATIENCE):
        box.open_box.layers_button.click()
    settled(box, qtbot)
    assert [image.file for image in box.labelling.images] == [folder / "2.ome.tif"]
    out = tmp_path_factory.mktemp("written")
    stack = noise(3, 64, 64, seed=4)
    layer = viewer.add_image(stack, name="in memory", axis_labels=("t", "y", "x"), scale=(1, 0.5, 0.5),
                             units=("pixel", "um", "um"))  # fmt: skip
    viewer.layers.selection = {layer}
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_: str(out))
    with qtbot.waitSignal(box.changed, timeout=PATIENCE):
        box.open_box.layers_button.click()
    settled(box, qtbot)
    assert [image.file.name for image in box.labelling.images] == [f"in_memory_T{t}.ome.tif" for t in range(3)]
    with open_image(out / "in_memory_T1.ome.tif") as image:
        np.testing.assert_array_equal(image.plane(0)[0], stack[1])
        assert image.pixel_size == 0.5


def test_a_damaged_table_gives_a_message(box, qtbot, folder):
    (folder / "labels.csv").write_text("file,label\nnot-there.tif,a\n", encoding="utf-8")
    drop(box, folder)
    qtbot.waitUntil(lambda: "files that are not in" in box.message.text(), timeout=PATIENCE)
    assert box.labelling is None


def test_a_change_that_cannot_be_saved_stays_and_is_not_lost_without_a_question(box, qtbot, folder):
    dropped(box, qtbot, folder)
    type_class("a", box=box)
    (folder / "labels.csv").write_text("file,label\n1.ome.tif,z\n", encoding="utf-8")
    press(box.table, 1)
    box.table.select([4])
    assert "changed by another program" in box.warning.text()
    assert labels(box)[0] == ("a",)
    assert (folder / "labels.csv").read_text(encoding="utf-8").endswith("z\n")
    drop(box, folder)
    assert "the changes that were not written are lost" in box.question.text.text()
    box.question.no.click()
    assert not box.question.isVisible()
    assert labels(box)[0] == ("a",)
    drop(box, folder)
    box.question.yes.click()
    settled(box, qtbot)
    assert labels(box)[:2] == [(), ("z",)]


def test_what_next_sorts_by_the_models_order_and_opens_the_first(box, viewer, qtbot, folder):
    dropped(box, qtbot, folder)
    type_class("a", "b", box=box)
    press(box.table, 1)
    box.next_button.click()
    assert "What next needs a model" in box.message.text()
    current.set(lively_model())
    box.next_button.click()
    settled(box, qtbot)
    current.clear()
    shown = [box.table.source_row(box.table.proxy.index(r, 0)) for r in range(8)]
    assert shown[-1] == 0
    assert sorted(shown) == list(range(8))
    assert box.table.rows() == shown[:1]
    assert viewer.layers[-1].name.startswith(f"{shown[0]} ")
    press(box.table, 2)
    assert box.table.rows() == shown[1:2]


def test_what_next_can_be_cancelled(box, qtbot, folder):
    dropped(box, qtbot, folder)
    current.set(lively_model())
    box.next_button.click()
    box.cancel_button.click()
    settled(box, qtbot)
    current.clear()
    assert box.message.text() == "Stopped."
    assert box.next_button.isEnabled()


def test_the_check_lists_what_it_found_and_a_click_selects_the_images(box, qtbot, folder):
    (folder / "5.ome.tif").write_bytes((folder / "2.ome.tif").read_bytes())
    dropped(box, qtbot, folder)
    type_class("a", "b", box=box)
    for digit in (1, 2, 1, 2, 1, 2):
        press(box.table, digit)
    box.check_button.click()
    settled(box, qtbot)
    assert box.check_result.text().startswith("1 possible problem; click one to select its images.")
    item = box.list.item(0)
    assert "2.ome.tif and 5.ome.tif are the same image, labelled a and b" in item.text()
    box.list.itemClicked.emit(item)
    assert box.table.rows() == [2, 5]


def test_during_a_training_images_can_be_shown_and_labels_cannot_be_changed(box, viewer, qtbot, folder):
    dropped(box, qtbot, folder)
    type_class("a", box=box)
    box.session.lock(True)
    click(box, 3)
    press(box.table, 1)
    settled(box, qtbot)
    assert viewer.layers[0].name == "3 GFP"
    assert "Labels cannot be changed while a training runs." in box.message.text()
    assert labels(box) == [()] * 8
    box.session.lock(False)
    press(box.table, 1)
    assert labels(box)[3] == ("a",)


def test_a_folder_opened_again_has_all_its_labels(box, viewer, qtbot, folder):
    dropped(box, qtbot, folder)
    type_class("a", "b", box=box)
    for digit in (1, 2, 1):
        press(box.table, digit)
    other = LabelBox(viewer)
    qtbot.addWidget(other)
    dropped(other, qtbot, folder)
    assert (other.labelling.images, other.labelling.classes) == (box.labelling.images, box.labelling.classes)
    assert other.table.rows() == [3]


def test_thousands_of_images_stay_quick(box, qtbot, tmp_path):
    for i in range(3000):
        (tmp_path / f"{i:04}.tif").write_bytes(b"II*\0x")
    open_labelling(tmp_path).add_class("a")
    with qtbot.waitSignal(box.changed, timeout=PATIENCE):
        drop(box, tmp_path)
    box.images.pictures.show_table(None)
    began = time.thread_time()
    for _ in range(5):
        press(box.table, 1)
    assert (time.thread_time() - began) / 5 < 0.4
    assert len(box.labelling.labelled()) == 5


def test_axes_can_be_typed_for_files_that_do_not_state_them(box, viewer, qtbot, tmp_path):
    tifffile.imwrite(tmp_path / "plain.tif", noise(3, 2, 64, 64, seed=1))
    dropped(box, qtbot, tmp_path)
    assert "axes" in box.message.text()
    assert len(viewer.layers) == 0
    QTest.keyClicks(box.open_box.axes, "tcyx")
    QTest.keyClick(box.open_box.axes, Qt.Key.Key_Return)
    settled(box, qtbot)
    assert [(layer.name, layer.data.shape) for layer in viewer.layers] == [
        ("plain channel 0", (3, 64, 64)), ("plain channel 1", (3, 64, 64)),
    ]  # fmt: skip


def test_folder_table_images_and_plate_are_opened_from_the_menu(box, qtbot, folder, monkeypatch):
    opened = []
    monkeypatch.setattr(box.open_box, "open", lambda paths, layout=None: opened.append((paths, layout)))
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_: str(folder))
    monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *_: (str(folder / "labels.csv"), ""))
    monkeypatch.setattr(QFileDialog, "getOpenFileNames", lambda *_: ([str(folder / "1.ome.tif")], ""))
    for action in box.open_box.open_actions.values():
        action.trigger()
    (folder / "plate.zarr").mkdir()
    drop(box, folder / "layout.csv", folder / "plate.zarr")
    assert opened == [
        ([folder], None), ([folder / "labels.csv"], None), ([folder / "1.ome.tif"], None),
        ([folder], folder / "labels.csv"), ([folder / "plate.zarr"], folder / "layout.csv"),
    ]  # fmt: skip


def test_a_folder_with_its_table_in_columns_of_the_user(box, qtbot, folder):
    (folder / "labels.csv").write_text("file,label,dose\n2.ome.tif,low,0.5\n3.ome.tif,high,8\n", encoding="utf-8")
    dropped(box, qtbot, folder)
    assert [each.name for each in box.labelling.classes] == ["high", "low"]
    press(box.table, 1)
    assert (folder / "labels.csv").read_text(encoding="utf-8").splitlines() == [
        "file,label,dose", "2.ome.tif,low,0.5", "3.ome.tif,high,8", "0.ome.tif,high,",
    ]  # fmt: skip
