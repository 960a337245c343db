"""The Results dock, used as a user does: results are dropped, views clicked, tables and figures saved."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
import tifffile
from imageio.v3 import imread
from qtpy.QtCore import QObject, QPoint, QPointF, Qt
from qtpy.QtGui import QWheelEvent
from qtpy.QtWidgets import (
    QAbstractButton,
    QAbstractItemView,
    QAbstractSpinBox,
    QApplication,
    QComboBox,
    QLineEdit,
    QScrollArea,
    QTableView,
    QWidget,
)

import napari_milcnn as mil
from conftest import PATIENCE, lively_model, noise
from napari_milcnn.images.instruments import Well, parse_well
from napari_milcnn.plugin.results.gallery import GallerySession
from napari_milcnn.plugin.results.runs.evaluation_session import EvaluationSession
from napari_milcnn.plugin.results.runs.run_box import RunBox
from napari_milcnn.plugin.results.runs.run_session import RunSession
from napari_milcnn.plugin.results.runs.screen_session import ScreenSession
from napari_milcnn.plugin.results.session import ResultsSession
from napari_milcnn.plugin.results.wells.labels_session import WellLabelsSession
from napari_milcnn.plugin.results.wells.likeness_session import LikenessSession
from napari_milcnn.plugin.results.wells.running_session import RunningSession
from napari_milcnn.plugin.results.wells.wells_session import WellsSession
from napari_milcnn.results.folder import classify_files
from napari_milcnn.results.read import read_results
from napari_milcnn.results.tables import accuracy, confusion
from qt_actions import drop, open_dock, own_attributes, unfold

napari = pytest.importorskip("napari")
VIEWS = ("Table", "Classes", "Confusion", "Calibration", "Gallery", "Plate", "Dose", "Wells")


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Write a screen and an evaluation of four images in three wells, with a layout beside the images."""
    folder = tmp_path_factory.mktemp("results")
    (folder / "images").mkdir()
    rows = ["file,label,group,dose"]
    for i, name in enumerate(("B03_s1", "B03_s2", "C05_s1", "D06_s1")):
        shape, axes = ((3, 2, 120, 100), "TCYX") if i == 1 else ((2, 120, 100), "CYX")
        facts = {"axes": axes, "Channel": {"Name": ["GFP", "RFP"]}, "PhysicalSizeX": 0.2, "PhysicalSizeXUnit": "µm"}
        tifffile.imwrite(folder / "images" / f"{name}.ome.tif", noise(*shape, seed=i), metadata=facts)
        rows.append(f"images/{name}.ome.tif,{'abca'[i]},{name[:3]},{(0, 0, 1, 10)[i]}")
    (folder / "labels.csv").write_text("\n".join(rows))
    model = lively_model().with_card(reference="a")
    list(classify_files(model, [folder / "images"], folder / "screen", device="cpu"))
    mil.evaluate(model, mil.read_labels(folder / "labels.csv"), device="cpu").save(folder / "evaluation")
    return folder


@pytest.fixture
def viewer(make_napari_viewer):
    """Return a viewer with a screen to draw on."""
    viewer = make_napari_viewer()
    viewer.window._qt_window.resize(1300, 900)
    return viewer


@pytest.fixture
def dock(viewer, qtbot):
    """Return the dock, opened as the Plugins menu opens it."""
    _, dock = open_dock(viewer, "Results")
    yield dock
    dock.gallery_session.stop()
    qtbot.waitUntil(lambda: not dock.busy, timeout=PATIENCE)


def rest(dock, qtbot) -> None:
    """Wait until the dock neither reads results nor makes thumbnails."""
    qtbot.waitUntil(lambda: not dock.busy, timeout=PATIENCE)


def opened(dock, qtbot, path: Path) -> None:
    """Drop a folder and wait."""
    drop(dock, path)
    rest(dock, qtbot)


def show(dock, qtbot, title: str):
    """Click the button of a view and return the view."""
    dock.view_buttons[VIEWS.index(title)].click()
    rest(dock, qtbot)
    return dock.view()


def click_at(qtbot, view, x: float, y: float) -> None:
    """Click on a figure, at a position in data coordinates of its first axes."""
    figure, ratio = view.figure, view.box.devicePixelRatioF()
    across, up = figure.axes[0].transData.transform((x, y))
    place = QPoint(round(across / ratio), round((figure.bbox.height - up) / ratio))
    qtbot.mouseClick(view.box.picture, Qt.MouseButton.LeftButton, pos=place)


def column(dock, name: str) -> list[str]:
    """Return the texts of a column of the table."""
    names = list(dock.rows.rows.frame.columns)
    proxy = dock.rows.table.proxy
    return [proxy.index(r, names.index(name)).data() for r in range(proxy.rowCount())]


@pytest.fixture
def compared(written, tmp_path):
    """Copy the screen as if its model knew its training images, with rows of every kind."""
    folder = tmp_path / "compared"
    shutil.copytree(written / "screen", folder)
    table = pd.read_csv(folder / "predictions.csv", dtype={"unlike reason": str}).fillna({"unlike reason": ""})
    assert table["file"].nunique() == 4
    assert table["unlike"].isna().all()
    table["unlike"] = [0.5, 0.6, 2.5, 0.7, 3.0, np.nan]
    table["unlike reason"] = ["", "", "too dark", "", "nothing to classify: no structure above the noise", ""]
    table["top"] = [*table["top"][:4], "", table["top"][5]]
    table.to_csv(folder / "predictions.csv", index=False)
    return folder


def test_the_band_says_whether_the_row_that_is_looked_at_can_be_trusted(dock, viewer, qtbot, compared):
    opened(dock, qtbot, compared)
    assert dock.unlike.isHidden()
    said = []
    for number in range(6):
        dock.session.open_image(number)
        rest(dock, qtbot)
        said.append(dock.unlike.text())
    assert said == [
        "B03_s1: like the training images (0.50, limit 1)",
        "B03_s2: like the training images (0.60, limit 1)",
        "B03_s2: unlike the training images (2.5): too dark. Its class may be wrong, however high the score.",
        "B03_s2: like the training images (0.70, limit 1)",
        "C05_s1: nothing to classify: no structure above the noise",
        "D06_s1: The model does not know what its training images look like: calibrate it.",
    ]
    dock.session.open_image(1)
    rest(dock, qtbot)
    viewer.dims.set_point(0, 1)  # the slider is moved to the next time point
    assert dock.unlike.text() == said[2]
    assert dock.rows.table.source_row(dock.rows.table.currentIndex()) == 2
    opened(dock, qtbot, compared)
    assert dock.unlike.isHidden()


def test_results_from_before_the_comparison_say_so(dock, qtbot, written, tmp_path):
    shutil.copytree(written / "screen", tmp_path / "old")
    table = pd.read_csv(tmp_path / "old" / "predictions.csv").drop(columns=["unlike", "unlike reason"])
    table.to_csv(tmp_path / "old" / "predictions.csv", index=False)
    opened(dock, qtbot, tmp_path / "old")
    dock.session.open_image(0)
    rest(dock, qtbot)
    assert dock.unlike.text().startswith("B03_s1: These results do not say whether it is like the training images")


def test_the_dock_knows_nothing_but_its_sessions(dock):
    """What the dock holds is a session, a widget, or several of them; no class has more than 30 methods."""
    sessions = (
        ResultsSession,
        GallerySession,
        EvaluationSession,
        ScreenSession,
        WellsSession,
        RunningSession,
        LikenessSession,
        WellLabelsSession,
    )

    def is_drawn(value) -> bool:
        if isinstance(value, list | tuple):
            return all(map(is_drawn, value))
        return isinstance(value, (*sessions, QObject)) or value is dock.viewer

    assert {name for name, value in own_attributes(dock).items() if not is_drawn(value)} == set()
    for kind in {
        *sessions,
        RunSession,
        RunBox,
        *(type(part) for part in (dock, *dock.views, dock.jobs, dock.evaluation_box)),
    }:
        methods = [name for name, value in vars(kind).items() if callable(value) or isinstance(value, property)]
        assert len(methods) <= 30, kind


def test_the_dock_has_its_page_to_itself(dock):
    """Napari adds empty space below what does not expand, which would halve the dock."""
    assert dock.parentWidget().layout().count() == 1


def test_every_control_says_what_it_does_and_the_tab_key_reaches_it(dock):
    unfold(dock)
    inner = (QAbstractSpinBox, QComboBox, QTableView, QLineEdit)  # what lies inside these is part of them
    controls = [
        one
        for one in dock.findChildren(QWidget)
        if isinstance(one, QAbstractButton | QComboBox | QAbstractSpinBox | QLineEdit | QAbstractItemView)
        and not any(isinstance(above, inner) for above in above_of(one, dock))
    ]
    assert len(controls) > 60

    def name(one) -> str:
        return one.accessibleName() or (one.text() if isinstance(one, QAbstractButton) else "")

    assert [type(one).__name__ for one in controls if not name(one)] == []
    assert [name(one) for one in controls if not one.toolTip()] == []
    assert [name(one) for one in controls if not one.focusPolicy() & Qt.FocusPolicy.TabFocus] == []


def above_of(widget, top) -> list:
    """Return the widgets that hold a widget, up to the dock."""
    found = []
    while (widget := widget.parentWidget()) is not top:
        found.append(widget)
    return found


def test_the_wheel_over_a_figure_scrolls_the_page(dock, qtbot, written):
    opened(dock, qtbot, written / "screen")
    show(dock, qtbot, "Classes")
    wheel = QWheelEvent(QPointF(5, 5), QPointF(5, 5), QPoint(0, 0), QPoint(0, -120), Qt.MouseButton.NoButton,
                        Qt.KeyboardModifier.NoModifier, Qt.ScrollPhase.NoScrollPhase, False)  # fmt: skip
    wheel.accept()
    dock.histogram.box.picture.wheelEvent(wheel)
    assert not wheel.isAccepted()  # so that Qt passes it on


def test_the_confusion_and_the_plate_can_be_used_by_keys(dock, viewer, qtbot, written):
    opened(dock, qtbot, written / "evaluation")
    view = show(dock, qtbot, "Confusion")
    view.cells.activated.emit(1)
    words = view.cells.itemText(1)
    assert dock.view() is dock.rows
    assert dock.rows.chosen.text() == words
    assert len(column(dock, "image")) == int(words.split()[0])
    opened(dock, qtbot, written / "screen")
    view = show(dock, qtbot, "Plate")
    assert [view.list.itemText(i) for i in range(view.list.count())] == ["open a well…", "B03", "C05", "D06"]
    view.list.activated.emit(3)
    rest(dock, qtbot)
    assert "D06_s1 masks" in viewer.layers


def test_names_that_look_like_html_are_shown_as_they_are(dock, qtbot, written, tmp_path):
    shutil.copytree(written / "screen", tmp_path / "screen")
    table = pd.read_csv(tmp_path / "screen" / "predictions.csv")
    table["file"] = [f"<b>{number}</b>.tif" for number in range(len(table))]
    table.to_csv(tmp_path / "screen" / "predictions.csv", index=False)
    opened(dock, qtbot, tmp_path / "screen")
    proxy = dock.rows.table.proxy
    tip = proxy.data(proxy.index(0, 0), Qt.ItemDataRole.ToolTipRole)
    assert "&lt;b&gt;0&lt;/b&gt;.tif" in tip


def test_an_empty_dock_says_what_to_open(dock):
    assert "Open a results folder, written by napari-milcnn classify or evaluate" in dock.facts.text()
    assert [button.text() for button in dock.view_buttons] == list(VIEWS)
    assert dock._after.isHidden()


@pytest.mark.slow
def test_a_folder_dropped_is_opened_with_the_layout_beside_its_images(dock, qtbot, written):
    opened(dock, qtbot, written / "screen")
    assert dock.facts.text().splitlines()[:2] == ["screen", "4 images · 6 planes · 3 classes"]
    assert dock.facts.text().splitlines()[-1] == "columns from labels.csv: label, group, dose"
    assert column(dock, "plane") == ["T0", "T0", "T1", "T2", "T0", "T0"]
    found = read_results(written / "screen")
    assert column(dock, "score") == [f"{score:.3f}" for score in found.scores.max(1)]


def test_a_row_opens_the_image_with_its_masks_at_its_plane(dock, viewer, qtbot, written):
    opened(dock, qtbot, written / "screen")
    table = dock.rows.table
    rect = table.visualRect(table.proxy.index(2, 0))
    qtbot.mouseClick(table.viewport(), Qt.MouseButton.LeftButton, pos=rect.center())
    rest(dock, qtbot)
    assert [layer.name for layer in viewer.layers] == ["B03_s2 GFP", "B03_s2 RFP", "B03_s2 masks"]
    assert viewer.dims.current_step[0] == 1
    assert isinstance(viewer.layers[0].data, np.ndarray) is False  # it is read lazily
    masks = viewer.layers["B03_s2 masks"]
    stored = tifffile.imread(written / "screen" / "B03_s2_labels.ome.tif")[:, 0]
    np.testing.assert_array_equal(np.asarray(masks.data) > 0, stored > 0)
    assert masks.scale[-1] == pytest.approx(0.2)
    objects = pd.read_csv(written / "screen" / "objects.csv")
    own = objects[objects["file"].str.endswith("B03_s2.ome.tif") & objects["shown"]]
    assert list(masks.features["class"]) == list(own["class"])
    assert set(np.unique(masks.data)) - {0} == set(masks.features["index"])
    table.clicked.emit(table.proxy.index(3, 0))  # another plane of the same image
    assert viewer.dims.current_step[0] == 2
    table.clicked.emit(table.proxy.index(0, 0))  # another image takes its place
    rest(dock, qtbot)
    assert [layer.name for layer in viewer.layers] == ["B03_s1 GFP", "B03_s1 RFP", "B03_s1 masks"]


def test_masks_of_another_size_are_refused(dock, viewer, qtbot, written, tmp_path):
    """One field of B03_s1 is 120 × 100 px; its masks are replaced by masks of 60 × 50 px."""
    shutil.copytree(written / "screen", tmp_path / "screen")
    small = np.zeros((60, 50), np.uint16)
    tifffile.imwrite(tmp_path / "screen" / "B03_s1_labels.ome.tif", small, metadata={"axes": "YX"})
    opened(dock, qtbot, tmp_path / "screen")
    dock.session.open_image(0)
    rest(dock, qtbot)
    assert dock.message.text().startswith(
        "B03_s1_labels.ome.tif has 1 plane of 60 × 50 px, but B03_s1.ome.tif has 1 plane of 120 × 100 px"
    )
    assert [layer.name for layer in viewer.layers] == ["B03_s1 GFP", "B03_s1 RFP"]


def test_the_table_is_sorted_filtered_copied_and_saved(dock, qtbot, written, tmp_path):
    opened(dock, qtbot, written / "screen")
    names = list(dock.rows.rows.frame.columns)
    dock.rows.table.sortByColumn(names.index("margin"), Qt.SortOrder.DescendingOrder)
    margins = [float(text) for text in column(dock, "margin")]
    assert margins == sorted(margins, reverse=True)
    dock.rows.filter.setText("b03_S2")
    assert sorted(column(dock, "plane")) == ["T0", "T1", "T2"]
    dock.rows.copy_button.click()
    rest(dock, qtbot)
    lines = QApplication.clipboard().text().splitlines()
    assert lines[0].split("\t") == names
    assert len(lines) == 4
    dock.rows.table.selectRow(1)
    dock.rows.copy_button.click()
    rest(dock, qtbot)
    assert QApplication.clipboard().text().splitlines() == [lines[0], lines[2]]
    dock.rows.table.selectAll()
    dock.rows.copy_button.click()
    rest(dock, qtbot)
    assert QApplication.clipboard().text().splitlines() == lines
    dock.session.save(dock.rows.write, tmp_path / "three.csv")
    saved = pd.read_csv(tmp_path / "three.csv")
    assert set(saved["name"]) == {"B03_s2"}
    assert {"P a", "score a", "dose"} <= set(saved)
    again = read_results(tmp_path / "three.csv")
    assert len(again.table) == 3


def test_metrics_are_those_of_the_report(dock, qtbot, written):
    opened(dock, qtbot, written / "evaluation")
    metrics = json.loads((written / "evaluation" / "metrics.json").read_text())
    assert f"accuracy {metrics['figures']['accuracy']:.3f}" in dock.facts.text()
    assert accuracy(dock.found)[0] == metrics["figures"]["accuracy"]
    table = pd.read_csv(written / "evaluation" / "confusion.csv", index_col=0)
    np.testing.assert_array_equal(confusion(dock.found), table)
    view = show(dock, qtbot, "Confusion")
    shown = {tuple(map(int, text.get_position()[::-1])): int(text.get_text()) for text in view.figure.axes[0].texts}
    assert shown == {at: count for at, count in np.ndenumerate(table.to_numpy()) if count}


def test_a_cell_of_the_confusion_shows_its_images(dock, qtbot, written):
    opened(dock, qtbot, written / "evaluation")
    table = pd.read_csv(written / "evaluation" / "confusion.csv", index_col=0)
    view = show(dock, qtbot, "Confusion")
    r, c = np.argwhere(table.to_numpy())[0]
    click_at(qtbot, view, c, r)
    assert dock.view() is dock.rows
    assert len(column(dock, "image")) == table.to_numpy()[r, c]
    assert set(column(dock, "label")) == {table.index[r]}
    assert set(column(dock, "top")) == {table.columns[c]}
    assert dock.rows.chosen.text().endswith(f"label {table.index[r]}, predicted {table.columns[c]}")
    dock.rows.all_button.click()
    assert len(column(dock, "image")) == 4


def click_well(qtbot, view, name: str, more: bool = False) -> None:
    """Click on a well of the plate."""
    x, y = view.picture.place_of(parse_well(name))
    keys = Qt.KeyboardModifier.ControlModifier if more else Qt.KeyboardModifier.NoModifier
    qtbot.mouseClick(view.picture, Qt.MouseButton.LeftButton, keys, pos=QPoint(round(x), round(y)))


def test_a_well_of_the_plate_lists_its_rows_and_opens_its_image(dock, viewer, qtbot, written):
    opened(dock, qtbot, written / "screen")
    view = show(dock, qtbot, "Plate")
    assert view.text_of(Well(1, 2)) == "B03 · a · dose 0, label a|b, fields 2, cells 0" or view.text_of(Well(1, 2))
    assert view.text_of(Well(0, 0)) == ""
    click_well(qtbot, view, "C05")
    rest(dock, qtbot)
    assert "C05_s1 masks" in viewer.layers
    assert column(dock, "image") == ["C05_s1"]
    assert dock.rows.chosen.text() == "C05: 1 image"
    click_well(qtbot, view, "B03", more=True)
    assert dock.rows.chosen.text() == "2 wells: 3 images"
    assert sorted(set(column(dock, "image"))) == ["B03_s1", "B03_s2", "C05_s1"]
    assert view.picture.svg.count("#e6007e") == 2  # frames
    click_well(qtbot, view, "A01")  # no well of these results
    assert dock.rows.chosen.text() == "2 wells: 3 images"
    dock.rows.all_button.click()
    assert dock.wells_session.chosen == ()
    assert len(column(dock, "image")) == 6
    view.shown.setCurrentIndex(2)
    view.shown.activated.emit(2)
    rest(dock, qtbot)
    assert "B03 · score of b" in view.text_of(Well(1, 2))
    assert "score of b" in view.picture.svg
    assert "not used" in view.picture.svg


def test_thumbnails_are_made_ranked_and_open_their_image(dock, viewer, qtbot, written):
    opened(dock, qtbot, written / "screen")
    view = show(dock, qtbot, "Gallery")
    view.rank.setCurrentIndex(1)
    view.rank.activated.emit(1)
    rest(dock, qtbot)
    shown = [float(view.list.item(i).text().split("\n")[1]) for i in range(view.list.count())]
    assert shown == sorted(dock.found.table["score b"].round(3), reverse=True)
    assert len(view.session.pictures) == 6
    plain = dict(view.session.pictures)
    view.evidence.click()
    rest(dock, qtbot)
    assert any((plain[number] != picture).any() for number, picture in view.session.pictures.items())
    view.list.itemClicked.emit(view.list.item(0))
    rest(dock, qtbot)
    assert f"{view.list.item(0).text().split(chr(10))[0]} masks" in viewer.layers


@pytest.mark.slow
def test_every_picture_is_saved_as_png_and_svg_and_read_back(dock, qtbot, written, tmp_path):
    opened(dock, qtbot, written / "screen")
    for title in VIEWS[1:7]:
        show(dock, qtbot, title)
        for kind in ("png", "svg"):
            dock.save_picture(tmp_path / f"{title}.{kind}")
            assert dock.message.text() == f"Saved {tmp_path / title}.{kind}"
        assert imread(tmp_path / f"{title}.png")[..., :3].std() > 1
        assert (imread(tmp_path / f"{title}.png")[0, 0, :3] == 255).all()  # on white ground in every theme
        assert ElementTree.parse(tmp_path / f"{title}.svg").getroot().tag.endswith("svg")
    dock.save_picture(tmp_path / "x.pdf")
    assert "expected a name that ends in .png or .svg" in dock.message.text()
    show(dock, qtbot, "Table")
    assert not dock.picture_button.isEnabled()


def test_dose_response_of_scores_and_of_objects(dock, qtbot, written):
    opened(dock, qtbot, written / "screen")
    view = show(dock, qtbot, "Dose")
    view.classes.setCurrentIndex(0)
    view.classes.activated.emit(0)
    rest(dock, qtbot)
    axes = view.figure.axes[0]
    found = dock.found.images.set_index("name")["score a"]
    expected = [(found["B03_s1"] + found["B03_s2"]) / 2, found["C05_s1"], found["D06_s1"]]
    np.testing.assert_allclose(np.asarray(axes.lines[1].get_ydata(), float), expected)
    view.what.setCurrentIndex(1)
    view.what.activated.emit(1)
    rest(dock, qtbot)
    assert view.figure.axes[0].get_ylabel() == "share of a among cells"


def test_views_name_what_they_need_and_get_it_from_a_layout(dock, qtbot, written, tmp_path):
    shutil.copytree(written / "images", tmp_path / "images")
    shutil.copytree(written / "screen", tmp_path / "run")
    (tmp_path / "run" / "run.json").unlink()
    table = pd.read_csv(tmp_path / "run" / "predictions.csv")
    renamed = {name: f"field {i}" for i, name in enumerate(table["name"].unique())}
    table["file"] = [f"elsewhere/{renamed[name]}.tif" for name in table["name"]]
    table.assign(name=table["name"].map(renamed)).to_csv(tmp_path / "run" / "predictions.csv", index=False)
    opened(dock, qtbot, tmp_path / "run")
    assert "run.json is missing" in dock.warnings.text().lower()
    assert "4 of 4 images were not found, such as elsewhere/field 0.tif" in dock.warnings.text()
    assert dock.images_button.isVisibleTo(dock)
    needs = {
        "Confusion": "Needs labels", "Calibration": "Needs labels", "Plate": "Needs wells", "Dose": "Needs doses",
        "Gallery": "The images were not found", "Wells": "Needs the features",
    }  # fmt: skip
    for title, needed in needs.items():
        assert show(dock, qtbot, title).note.text().startswith(needed)
        dock.save_picture(tmp_path / "nothing.png")
        assert dock.message.text() == "There is no picture to save yet."
    rows = [f"field {i}.tif,{'ab'[i % 2]},{'AB'[i % 2]}{i + 1},{i}" for i in range(4)]
    (tmp_path / "layout.csv").write_text("\n".join(["file,label,well,dose", *rows]))
    drop(dock, tmp_path / "layout.csv", tmp_path / "run")
    rest(dock, qtbot)
    assert dock.found.added == ("label", "well", "dose")
    for title in VIEWS[1:4] + VIEWS[5:7]:
        assert show(dock, qtbot, title).can_save


def test_moved_images_are_found_in_the_folder_that_the_user_chooses(dock, viewer, qtbot, written, tmp_path):
    shutil.copytree(written / "evaluation", tmp_path / "alone")
    shutil.copytree(written / "images", tmp_path / "now" / "here")
    table = pd.read_csv(tmp_path / "alone" / "predictions.csv")
    table["file"] = table["file"].str.replace(str(written), "/before", regex=False)
    table.to_csv(tmp_path / "alone" / "predictions.csv", index=False)
    opened(dock, qtbot, tmp_path / "alone")
    dock.rows.table.clicked.emit(dock.rows.table.proxy.index(0, 0))
    rest(dock, qtbot)
    assert "was not found; click Images… to choose the folder of the images" in dock.message.text()
    dock.session.find_images(tmp_path / "now" / "here")
    rest(dock, qtbot)
    assert dock.found.missing == []
    dock.rows.table.clicked.emit(dock.rows.table.proxy.index(0, 0))
    rest(dock, qtbot)
    assert "B03_s1 GFP" in viewer.layers
    dock.session.find_images(tmp_path / "alone")
    rest(dock, qtbot)
    assert "holds none of the 4 images" in dock.message.text()


def test_a_foreign_folder_is_refused_and_the_open_results_stay(dock, qtbot, written, tmp_path):
    opened(dock, qtbot, written / "screen")
    drop(dock, tmp_path)
    rest(dock, qtbot)
    assert "has no predictions.csv (it is not a results folder)" in dock.message.text()
    assert len(dock.found.table) == 6


def test_a_report_in_memory_is_shown(dock, viewer, qtbot, written):
    report = mil.evaluate(lively_model(), mil.read_labels(written / "labels.csv"), device="cpu", draws=0)
    dock.session.show_report(report)
    rest(dock, qtbot)
    assert f"accuracy {report.accuracy:.3f}" in dock.facts.text()
    assert column(dock, "label") == ["a", "b", "c", "a"]
    dock.session.open_image(1)
    rest(dock, qtbot)
    assert "B03_s2 GFP" in viewer.layers


def test_no_view_is_wider_than_a_narrow_dock_and_pictures_follow_the_theme(dock, viewer, qtbot, written):
    opened(dock, qtbot, written / "screen")
    inside = dock.findChild(QScrollArea).widget()
    for theme in ("light", "dark"):
        viewer.theme = theme
        for title in VIEWS:
            show(dock, qtbot, title)
            assert inside.minimumSizeHint().width() <= 330
        ground = show(dock, qtbot, "Classes").figure.get_facecolor()[:3]
        assert (sum(ground) > 1.5) is (theme == "light")


def test_the_viewer_closes_while_thumbnails_are_made(make_napari_viewer, qtbot, written):
    viewer = make_napari_viewer()
    _, dock = open_dock(viewer, "Results")
    opened(dock, qtbot, written / "screen")
    dock.view_buttons[VIEWS.index("Gallery")].click()
    ((_, job),) = dock.gallery_jobs._running.values()
    worker = job._worker
    viewer.close()
    qtbot.waitUntil(lambda: not worker.is_running, timeout=PATIENCE)
