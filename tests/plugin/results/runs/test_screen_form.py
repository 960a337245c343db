"""Screens from the Results dock: the same table as by Python; cancelled, gone on with, and refused in words."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import pytest
import tifffile
from qtpy.QtCore import Qt

import napari_milcnn as mil
from conftest import PATIENCE, noise
from napari_milcnn.images.open import ImageReading
from napari_milcnn.options import MaskOptions, ScreenOptions, make_options
from napari_milcnn.plugin.current_model import current
from napari_milcnn.plugin.qt.notices import Level
from napari_milcnn.plugin.results.runs.screen_session import ScreenChoices, ScreenSession
from qt_actions import SessionWorker, next_by_tab, open_dock

pytest.importorskip("napari")
READING = {"channels": ("GFP", "RFP")}
CPU = {"device": "cpu", "precision": "float32"}
CELLS = {"classes": ("b",), "masks": {"present": 0.0, "class_thresholds": {"b": 0.25}}}
"""Which cells are looked for."""
SCORES = ["plate", "well", "site", "top"]


@pytest.fixture
def source(tmp_path):
    """Write three wells of one field, a file for each channel."""
    folder = tmp_path / "plate"
    folder.mkdir()
    for i, well in enumerate(("A01", "A02", "B01")):
        for channel, plane in enumerate(noise(2, 72, 72, seed=i), start=1):
            tifffile.imwrite(folder / f"plate_{well}_s1_w{channel}.tif", plane)
    return folder


@pytest.fixture
def session(saved_model, source, tmp_path):
    session = ScreenSession()
    session.use(saved_model)
    session.choose(ScreenChoices(source=source, out=tmp_path / "out", reading=READING, evidence=CPU, **CELLS))
    return session


def test_a_screen_writes_what_python_writes_and_opens(session, saved_model, source, tmp_path):
    opened, shares = [], []
    session.written.connect(opened.append)
    session.changed.connect(lambda: shares.append(session.share))
    worker = SessionWorker(session)
    session.start()
    worker.work()
    assert not session.is_busy
    assert shares == sorted(shares)
    assert len(set(shares)) > 2
    list(mil.screen(saved_model, source, tmp_path / "python", reading=ImageReading(**READING),
                    classes=CELLS["classes"], mask_options=CELLS["masks"], **CPU))  # fmt: skip
    for table, columns in (("predictions.csv", SCORES), ("cells.csv", ["well", "class", "area_px"])):
        tables = [pd.read_csv(tmp_path / name / table) for name in ("out", "python")]
        pd.testing.assert_frame_equal(*(one[columns] for one in tables))
    assert set(tables[0]["class"].dropna()) == {"b"}
    assert len(opened[0].found.table) == 3
    assert session.report == tmp_path / "out" / "report.html"
    assert session.message.text.startswith("3 wells, 3 fields, 0 of them failed.")


def test_a_screen_that_is_cancelled_keeps_its_wells_and_goes_on(session, tmp_path):
    worker = SessionWorker(session)
    session.start()
    (request,) = worker.waiting
    steps = request.steps()
    for step in steps:
        session.take(request, step)
        if getattr(step, "result", None) is not None:
            break
    session.stop()
    assert session.is_stopping
    steps.close()
    worker.waiting.clear()
    session.end(request, stopped=True)
    assert "Wells that are done are kept" in session.message.text
    assert session.resumes
    session.start()
    worker.work()
    assert any("1 of 3 wells are done already" in note for note in session.notes)
    assert len(pd.read_csv(tmp_path / "out" / "predictions.csv")) == 3


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"source": None}, "Choose the images of the screen"),
        ({"source": "nowhere"}, "nowhere does not exist"),
        ({"layout": "nowhere.csv"}, "nowhere.csv is not a file"),
        ({"out": "full"}, "full holds other results"),
        ({"options": {"shard": "5/2"}}, "expected i/n"),
        ({"masks": {"class_thresholds": "b"}}, "found 'b', expected CLASS=NUMBER"),
        ({"options": {"workers": 2, "scheduler": "tcp://a:1"}}, "leave out workers, or scheduler"),
        ({}, ""),
    ],
)
def test_what_cannot_start_says_why(session, tmp_path, changes, problem):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "metrics.json").write_text("{}")
    paths = {name: tmp_path / value for name, value in changes.items() if isinstance(value, str)}
    session.choose(replace(session.choices, **changes | paths))
    assert problem in session.problem
    assert bool(session.problem) == bool(problem)


def test_a_source_without_images_is_refused_in_words(session, tmp_path):
    (tmp_path / "empty").mkdir()
    session.choose(replace(session.choices, source=tmp_path / "empty"))
    worker = SessionWorker(session)
    session.start()
    worker.work()
    assert "empty" in session.message.text
    assert session.message.level is Level.ERROR


def test_what_was_found_in_the_source_stays_where_its_images_are_refused(session):
    session.choose(replace(session.choices, reading={"channels": ("GFP", "blue")}))
    worker = SessionWorker(session)
    session.start()
    worker.work()
    assert "no field of the screen can be classified" in session.message.text
    assert any("3 wells" in note for note in session.notes)


def test_a_screen_stopped_before_its_folder_is_taken_keeps_nothing(session):
    session.requested.connect(lambda request: session.end(request, stopped=True))
    session.start()
    assert session.message.text == "Stopped at reading the source. Nothing was written."


def test_a_user_screens_a_plate_in_the_dock(make_napari_viewer, qtbot, saved_model, source, tmp_path):
    _, dock = open_dock(make_napari_viewer(), "Results")
    box = dock.screen_box
    box.section.fold(is_open=True)
    assert box.problem.text() == "Choose a model."
    assert box.isAncestorOf(next_by_tab(box.section.button))  # fields that are made later do not come last
    current.set(saved_model)
    box.source.line.setText(str(source))
    box.reading.channels.setText("GFP, RFP")
    assert set(box.choices().options) == set(ScreenOptions.model_fields)
    box.classes.setText("b|a")
    box.masks["class_thresholds"].value = "b=0.25|a=0.5"
    box.foreground["size"].value = 30
    assert box.choices().classes == ("b", "a")
    assert make_options(MaskOptions, box.choices().masks).class_thresholds == {"b": 0.25, "a": 0.5}
    assert box.choices().evidence["foreground"] == {"size": 30}
    assert box.start_button.text() == "Start screen"
    qtbot.mouseClick(box.start_button, Qt.MouseButton.LeftButton)
    assert not box.start_button.isEnabled()
    qtbot.waitUntil(lambda: not dock.busy, timeout=PATIENCE)
    assert dock.view() is dock.rows
    assert len(dock.found.table) == 3
    assert box.last_button.isVisibleTo(box)
    box.out.line.setText(str(tmp_path / "plate screen"))
    assert box.start_button.text() == "Resume screen"
    current.clear()
