"""Evaluating and calibrating from the Results dock: the same results as by Python, and nothing overwritten."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import tifffile
from qtpy.QtCore import Qt

import napari_milcnn as mil
from conftest import PATIENCE, noise
from napari_milcnn.options import EvaluateOptions, ForegroundOptions
from napari_milcnn.plugin.current_model import current
from napari_milcnn.plugin.qt.notices import Level
from napari_milcnn.plugin.results.runs.evaluation_session import EvaluationChoices, EvaluationSession
from qt_actions import SessionWorker, open_dock

pytest.importorskip("napari")
CPU = {"device": "cpu", "draws": 0}


@pytest.fixture
def labels(tmp_path):
    """Write a table of four images of three classes."""
    rows = ["file,label,group"]
    for i, label in enumerate("abca"):
        tifffile.imwrite(tmp_path / f"{i}.tif", noise(2, 100, 90, seed=i), metadata={"axes": "CYX"})
        rows.append(f"{i}.tif,{label},g{i}")
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    return tmp_path / "labels.csv"


@pytest.fixture
def session(saved_model):
    """Return a session with the model as the current one."""
    session = EvaluationSession()
    session.use(saved_model)
    return session


READING = {"channels": ("GFP", "RFP")}


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"labels": None}, "Choose a table of labels"),
        ({"labels": "nowhere.csv"}, "nowhere.csv does not exist"),
        ({"out": "full"}, "full holds results already; choose another folder"),
        ({"truth": "nowhere"}, "nowhere is not a folder"),
        ({"card_out": "card.zip"}, "needs faithfulness to be measured"),
        ({"card_out": "there.zip", "options": {"faithfulness": True}}, "there.zip exists already"),
        ({"folds": 3, "options": {"faithfulness": True}}, "leave out one of the two"),
        ({"options": {"draws": -1}}, "option 'draws' is -1"),
        ({"foreground": {"size": -1.0}}, "option 'size' is -1.0"),
        ({"training": {"epochs": 0}}, "option 'epochs' is 0"),
        ({"reading": {"series": -2}}, "series is -2"),
        ({"calibrate": True, "out": "there.zip"}, "there.zip exists already"),
        ({"calibrate": True, "out": "model"}, "choose a name that ends in .zip"),
        ({}, ""),
    ],
)
def test_what_cannot_start_says_why(session, labels, tmp_path, changes, problem):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "metrics.json").write_text("{}")
    (tmp_path / "there.zip").write_bytes(b"")
    paths = {name: tmp_path / value for name, value in changes.items() if isinstance(value, str)}
    session.choose(EvaluationChoices(labels=labels))
    session.choose(replace(session.choices, **changes | paths))
    assert problem in session.problem
    assert bool(session.problem) == bool(problem)
    worker = SessionWorker(session)
    session.start()
    assert bool(worker.waiting) != bool(problem)


def test_without_a_model_it_asks_for_one(labels):
    session = EvaluationSession()
    session.choose(EvaluationChoices(labels=labels))
    assert session.problem == "Choose a model."


def test_results_go_to_a_name_that_is_free(session, labels, tmp_path):
    session.choose(EvaluationChoices(labels=labels))
    assert session.out == tmp_path / "labels evaluation"
    (tmp_path / "labels evaluation").mkdir()
    assert session.out == tmp_path / "labels evaluation 2"
    session.choose(EvaluationChoices(labels=labels, calibrate=True))
    assert session.out.suffix == ".zip"


@pytest.mark.parametrize("options", [{}, {"kind": "class_map", "foreground": ForegroundOptions(size=12)}])
def test_an_evaluation_writes_what_python_writes(session, saved_model, labels, tmp_path, options):
    given = CPU | {name: value for name, value in options.items() if name != "foreground"}
    foreground = {"size": 12.0} if options else {}
    session.choose(EvaluationChoices(labels=labels, reading=READING, options=given, foreground=foreground))
    opened = []
    session.written.connect(opened.append)
    worker, out = SessionWorker(session), session.out
    session.start()
    assert session.is_busy
    worker.work()
    assert not session.is_busy
    table = mil.read_labels(labels, _reading())
    report = mil.evaluate(
        saved_model, table, **given, foreground=ForegroundOptions(**foreground).over(saved_model.card.foreground)
    )
    report.save(tmp_path / "python")
    for name in ("predictions.csv", "confusion.csv", "groups.csv", "metrics.json"):
        assert (out / name).read_text() == (tmp_path / "python" / name).read_text()
    assert opened[0].report == out / "report.html"
    assert f"accuracy {report.accuracy:.3f}" in opened[0].facts
    assert f"mean average precision {report.mean_average_precision:.3f}" in opened[0].facts


def _reading():
    from napari_milcnn.images.open import ImageReading

    return ImageReading(**READING)


def test_an_image_that_fails_has_its_reason_and_the_others_are_measured(session, labels, tmp_path):
    (tmp_path / "1.tif").write_bytes(b"broken")
    session.choose(EvaluationChoices(labels=labels, reading=READING, options=CPU))
    opened = []
    session.written.connect(opened.append)
    worker = SessionWorker(session)
    session.start()
    worker.work()
    assert len(session.failures) == 1
    assert "1.tif" in session.failures[0]
    assert list(opened[0].found.table["error"] != "") == [False, True, False, False]
    assert session.message.text.startswith("Measured on 3 images, 1 failed.")


def test_a_calibrated_model_is_that_of_python_and_used_only_when_the_user_says_so(
    session, saved_model, labels, tmp_path
):
    session.choose(EvaluationChoices(calibrate=True, labels=labels, reading=READING, options={"device": "cpu"}))
    worker, out = SessionWorker(session), session.out
    session.start()
    worker.work()
    expected = mil.calibrate(saved_model, mil.read_labels(labels, _reading()), device="cpu")
    assert session.calibrated.path == out
    assert session.calibrated.model.digest == expected.digest
    assert saved_model.card.temperature == 1.0
    assert "Temperature" in session.message.text
    session.choose(replace(session.choices, out=out))
    assert "exists already" in session.problem


def test_a_run_that_is_stopped_writes_nothing(session, labels, tmp_path):
    before = set(tmp_path.iterdir())
    session.choose(EvaluationChoices(labels=labels, reading=READING, options=CPU))
    worker, stopped = SessionWorker(session), []
    session.stop_requested.connect(stopped.append)
    session.start()
    (request,) = worker.waiting
    session.take(request, next(request.steps()))
    session.stop()
    assert session.is_stopping
    assert stopped == [request]
    session.end(request, stopped=True)
    assert set(tmp_path.iterdir()) == before
    assert session.message.text.startswith("Stopped at 1 of 4")
    assert session.message.level is Level.WARNING


def test_a_table_of_other_classes_is_refused_in_words(session, labels):
    labels.write_text(labels.read_text().replace(",b,", ",nucleus,"))
    session.choose(EvaluationChoices(labels=labels, reading=READING, options=CPU))
    worker = SessionWorker(session)
    session.start()
    worker.work()
    assert "the label nucleus, which the model does not know" in session.message.text
    assert session.message.level is Level.ERROR


def test_a_user_evaluates_a_model_in_the_dock(make_napari_viewer, qtbot, saved_model, labels, tmp_path):
    viewer = make_napari_viewer()
    _, dock = open_dock(viewer, "Results")
    box = dock.evaluation_box
    assert not box.is_made
    box.section.fold(is_open=True)
    assert not box.start_button.isEnabled()
    assert box.problem.text() == "Choose a model."
    current.set(saved_model)
    assert box.model.itemText(0) == f"current model ({saved_model.card.name})"
    box.labels.line.setText(str(labels))
    box.reading.channels.setText("GFP, RFP")
    assert set(box.choices().options) == set(EvaluateOptions.model_fields) - {"foreground"}
    box.folds.setValue(3)
    assert (box.choices().folds, box.choices().training, box.choices().foreground) == (3, {}, {})  # all are defaults
    box.foreground["split"].value, box.training["epochs"].value = 0, 5
    assert (box.choices().training, box.choices().foreground) == ({"epochs": 5}, {"split": 0.0})
    box.folds.setValue(0)
    assert box.choices().training == {}
    box.foreground["split"].value = box.foreground["split"].min
    assert [box.forms[("split", "bag", "faithfulness")]["split"].native.itemText(i) for i in range(4)] == [
        "all images", "only train", "only validation", "only test",
    ]  # fmt: skip
    assert box.out.line.placeholderText() == "labels evaluation (new)"
    qtbot.mouseClick(box.start_button, Qt.MouseButton.LeftButton)
    assert not box.start_button.isEnabled()
    qtbot.waitUntil(lambda: not dock.busy, timeout=PATIENCE)
    assert dock.view() is dock.confusion
    assert dock.confusion.figure is not None
    metrics = json.loads((tmp_path / "labels evaluation" / "metrics.json").read_text())
    assert f"accuracy {metrics['figures']['accuracy']:.3f}" in dock.facts.text()
    assert dock.report_button.isVisibleTo(dock)
    box.task.setCurrentIndex(1)
    assert box.start_button.text() == "Calibrate"
    qtbot.mouseClick(box.start_button, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: not dock.busy, timeout=PATIENCE)
    assert current.model is saved_model
    qtbot.mouseClick(box.last_button, Qt.MouseButton.LeftButton)
    assert current.model.card.temperature != saved_model.card.temperature
    current.clear()
