"""Labels that are given to wells in the Results dock: by its session, and as a user does it."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
from qtpy.QtCore import Qt

from conftest import PATIENCE, lively_model, noise
from napari_milcnn.labels.table import read_labels
from napari_milcnn.plugin.qt.notices import Level
from napari_milcnn.plugin.results.session import ResultsSession
from napari_milcnn.plugin.results.wells.labels_session import WellLabelsSession
from napari_milcnn.plugin.results.wells.wells_session import WellsSession
from napari_milcnn.results.folder import classify_files
from napari_milcnn.screens.read import open_results
from qt_actions import SessionWorker, drop, open_dock

components = pytest.importorskip("napari.components")


@pytest.fixture
def run(tmp_path):
    """Classify three wells of one image each; return the folder of the results."""
    (tmp_path / "images").mkdir()
    for i, well in enumerate(("A01", "A02", "B01")):
        facts = {"axes": "CYX", "Channel": {"Name": ["GFP", "RFP"]}}
        tifffile.imwrite(tmp_path / "images" / f"{well}.ome.tif", noise(2, 72, 72, seed=i), metadata=facts)
    list(classify_files(lively_model(), [tmp_path / "images"], tmp_path / "out", device="cpu"))
    return tmp_path / "out"


@pytest.fixture
def session(run):
    results = ResultsSession(components.ViewerModel())
    reader = SessionWorker(results)
    session = WellLabelsSession(WellsSession(results))
    session.worker = SessionWorker(session)
    results.open(run)
    reader.work()
    reader.waiting = []
    return session


def test_the_wells_at_hand_get_the_label(session, run):
    assert session.table == run / "corrected_labels.csv"
    assert not session.can_train
    session.label("a")
    assert not session.worker.waiting  # no well is at hand
    session.wells.choose([("", "A01"), ("", "B01")])
    session.label("odd | a")
    session.worker.work()
    assert session.message.text.startswith(f"2 images labelled odd|a in {run / 'corrected_labels.csv'}")
    assert session.can_train
    assert read_labels(run / "corrected_labels.csv").counts() == {"odd": 2, "a": 2}
    session.wells.choose([("", "A02")])
    assert session.message.text == ""  # it was about other wells


def test_corrections_are_not_taken_for_labels_of_all_images(session, run):
    """An accuracy over wells that were corrected, since the model was wrong on them, would be none."""
    session.wells.choose([("", "A01")])
    session.label("b")
    session.worker.work()
    assert "label" not in open_results(run).table


def test_a_label_in_the_way_is_replaced_only_after_a_yes(session, run):
    session.wells.choose([("", "A01")])
    session.label("a")
    session.worker.work()
    session.label("b")
    session.worker.work()
    assert "1 image has another label" in session.question.text
    assert "Label A01 b in place of that?" in session.question.text
    session.answer(False)
    assert (session.question, session.message.text) == (None, "Nothing was changed.")
    assert read_labels(run / "corrected_labels.csv").counts() == {"a": 1}
    session.label("b")
    session.worker.work()
    session.answer(True)
    session.worker.work()
    assert read_labels(run / "corrected_labels.csv").counts() == {"b": 1}
    session.answer(True)  # nothing was asked
    assert not session.worker.waiting


def test_a_question_goes_with_its_wells(session, run):
    session.wells.choose([("", "A01")])
    session.label("a")
    session.worker.work()
    session.label("b")
    session.worker.work()
    session.wells.choose([("", "A02")])
    assert session.question is None
    session.answer(True)
    assert not session.worker.waiting
    assert read_labels(run / "corrected_labels.csv").counts() == {"a": 1}


def test_another_table_is_written_and_what_is_wrong_is_said(session, run, tmp_path):
    session.wells.choose([("", "A01")])
    session.label(" ")
    assert session.message.level is Level.WARNING
    session.choose_table(tmp_path / "mine.csv")
    session.label("a")
    session.worker.work()
    assert read_labels(tmp_path / "mine.csv").counts() == {"a": 1}
    assert not (run / "corrected_labels.csv").exists()
    (tmp_path / "mine.csv").write_text("no,table\n1,2\n")
    session.label("a")
    session.worker.work()
    assert session.message.level is Level.ERROR
    assert (tmp_path / "mine.csv").read_text() == "no,table\n1,2\n"


@pytest.mark.slow
def test_a_user_labels_a_well_and_opens_the_table_in_the_train_dock(make_napari_viewer, qtbot, run):
    viewer = make_napari_viewer()
    _, dock = open_dock(viewer, "Results")
    drop(dock, run)
    qtbot.waitUntil(lambda: not dock.busy, timeout=PATIENCE)
    box = dock.chosen_box
    dock.rows.table.clicked.emit(dock.rows.table.proxy.index(1, 0))  # the image of A02
    qtbot.waitUntil(lambda: not dock.busy, timeout=PATIENCE)
    assert box.section.button.text() == "Well A02"
    assert not box.like_button.isVisibleTo(box)
    for label in ("a", "new kind"):
        box.label.setEditText(label)
        qtbot.mouseClick(box.label_button, Qt.MouseButton.LeftButton)
        qtbot.waitUntil(lambda: not dock.busy, timeout=PATIENCE)
    assert "another label" in box.question.text.text()
    assert box.label.currentText() == "new kind"
    qtbot.mouseClick(box.question.yes, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: not dock.busy, timeout=PATIENCE)
    assert "labelled new kind" in box.message.text()
    qtbot.mouseClick(box.train_button, Qt.MouseButton.LeftButton)
    _, train = open_dock(viewer, "Train")
    labels = train.session.labels
    qtbot.waitUntil(lambda: labels.labelling is not None and not labels.busy and not train.waits, timeout=PATIENCE)
    assert labels.labelling.path == run / "corrected_labels.csv"
    assert labels.labelling.counts() == {"new kind": 1, "a": 0} | {"a": 0}
    assert np.all([image.group == "A02" for image in labels.labelling.images])
