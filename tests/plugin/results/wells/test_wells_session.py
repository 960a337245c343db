"""What the Results dock knows of the wells of a screen, without a window: while it runs, and which wells are chosen."""

from __future__ import annotations

import json
import shutil

import pytest
import tifffile
from qtpy.QtCore import QEvent, QPoint, QPointF, Qt
from qtpy.QtGui import QMouseEvent
from qtpy.QtWidgets import QApplication

import napari_milcnn as mil
from conftest import PATIENCE, lively_model, noise
from napari_milcnn.figures.plates import Blank
from napari_milcnn.images.instruments import Well
from napari_milcnn.images.open import ImageReading
from napari_milcnn.plugin.results.session import ResultsSession
from napari_milcnn.plugin.results.wells.labels_session import WellLabelsSession
from napari_milcnn.plugin.results.wells.running_session import RunningSession
from napari_milcnn.plugin.results.wells.wells_session import WellsSession
from napari_milcnn.screens.parts import part_folder
from qt_actions import SessionWorker, drop, open_dock

components = pytest.importorskip("napari.components")
PLACES = ("A01", "A02", "A03", "B01", "B02", "B03")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Classify a plate of six wells, three of them controls, two fields in each; return the folder of the screen."""
    folder = tmp_path_factory.mktemp("screen")
    (folder / "plate").mkdir()
    for i, well in enumerate(PLACES):
        for site in (1, 2):
            for channel, plane in enumerate(noise(2, 72, 72, seed=9 * i + site), start=1):
                tifffile.imwrite(folder / "plate" / f"plate_{well}_s{site}_w{channel}.tif", plane)
    rows = [f"{well},{'negative' if well < 'B' else ''},{10**i}" for i, well in enumerate(PLACES)]
    (folder / "layout.csv").write_text("\n".join(["well,control,dose", *rows]))
    model = lively_model()
    model.save(folder / "m.zip")
    steps = mil.screen(mil.load_model(folder / "m.zip"), folder / "plate", folder / "out", device="cpu",
                       layout=folder / "layout.csv", reading=ImageReading(channels=("GFP", "RFP")))  # fmt: skip
    list(steps)
    return folder / "out"


@pytest.fixture
def running(finished, tmp_path):
    """Copy the screen as it was after three of its six wells."""
    out = tmp_path / "out"
    shutil.copytree(finished, out)
    record = json.loads((out / "run.json").read_text())
    (out / "run.json").write_text(json.dumps(record | {"finished": False}))
    (out.parent / "later").mkdir()
    for well in PLACES[3:]:
        shutil.move(part_folder(out, "plate", well), out.parent / "later" / well)
    return out


def comes_in(out, well):
    """Put a well to those that are done."""
    shutil.move(out.parent / "later" / well, part_folder(out, "plate", well))


@pytest.fixture
def results():
    return ResultsSession(components.ViewerModel())


@pytest.fixture
def worker(results):
    return SessionWorker(results)


def opened(results, worker, folder):
    results.open(folder)
    worker.work()
    assert results.message.text == ""


def test_a_running_screen_says_what_is_shown_and_what_is_done_since(results, worker, running):
    session = RunningSession(results)
    looks = SessionWorker(session)
    session.look()
    assert not looks.waiting  # nothing is open
    opened(results, worker, running)
    assert "3 of 6 wells so far" in results.opened.facts
    assert results.opened.warnings[0].startswith("3 of 6 wells so far; nobody is at work")
    session.look()
    looks.work()
    assert (session.has_news, session.words) == (False, "")
    comes_in(running, "B01")
    session.look()
    looks.work()
    assert session.words == "3 of 6 wells so far are shown; 4 are done by now."
    results.refresh()
    worker.work()
    assert (session.has_news, session.words) == (False, "")
    assert "4 of 6 wells so far" in results.opened.facts


def test_the_end_of_a_running_screen_is_noticed(results, worker, running, finished):
    session = RunningSession(results)
    looks = SessionWorker(session)
    opened(results, worker, running)
    shutil.rmtree(running)
    shutil.copytree(finished, running)
    session.look()
    looks.work()
    assert session.words == "3 of 6 wells so far are shown; the screen is finished now."
    results.refresh()
    worker.work()
    assert session.shown is None
    assert "6 wells · 12 fields" in results.opened.facts
    assert not any("so far" in text for text in results.opened.warnings)


def test_what_the_user_looks_at_stays_when_a_screen_is_read_on(results, worker, running):
    """B01 comes in before B02, of which the user looks at the second field, with its masks."""
    wells = WellsSession(results)
    comes_in(running, "B02")
    opened(results, worker, running)
    table = results.found.table
    row = int(((table["well"] == "B02") & (table["site"] == "2")).to_numpy().argmax())
    wells.choose([("plate", "B02")])
    results.open_image(row)
    worker.work()
    layers = list(results._layers._viewer.layers)
    comes_in(running, "B01")
    results.refresh()
    assert results.message.text == ""  # it is no work that the user waits for
    worker.work()
    table = results.found.table
    assert len(table) == 10
    assert (table["well"].iat[results.row], table["site"].iat[results.row]) == ("B02", "2")
    assert wells.chosen == (("plate", "B02"),)
    results.move_sliders()
    assert (table["well"].iat[results.row], table["site"].iat[results.row]) == ("B02", "2")
    results.open_image(results.row)
    assert not worker.waiting  # it is in view already
    assert list(results._layers._viewer.layers) == layers


def test_an_image_that_is_opened_while_a_screen_is_read_on_keeps_its_rows(results, worker, running):
    comes_in(running, "B02")
    opened(results, worker, running)
    row = int((results.found.table["well"] == "B02").to_numpy().argmax())
    results.open_image(row)
    opening = worker.waiting.pop()
    comes_in(running, "B01")
    results.refresh()
    worker.work()
    worker.finish(opening)
    results.move_sliders()
    assert results.found.table["well"].iat[results.row] == "B02"


def test_what_is_asked_of_a_well_stays_when_a_screen_is_read_on(results, worker, running):
    labels = WellLabelsSession(WellsSession(results))
    writer = SessionWorker(labels)
    opened(results, worker, running)
    labels.wells.choose([("plate", "A01")])
    for label in ("a", "b"):
        labels.label(label)
        writer.work()
    asked = labels.question
    comes_in(running, "B01")
    results.refresh()
    worker.work()
    assert asked is not None
    assert labels.question == asked
    labels.answer(True)
    writer.work()
    assert "2 images labelled b" in labels.message.text


def test_other_results_are_not_read_on(results, worker, finished):
    opened(results, worker, finished)
    results.refresh()
    results.refresh()
    assert len(worker.waiting) == 1
    worker.work()
    assert "6 wells" in results.opened.facts


def test_plates_show_what_is_known_and_what_waits(results, worker, running):
    wells = WellsSession(results)
    plates = SessionWorker(wells)
    opened(results, worker, running)
    wells.show()
    plates.work()
    (plate,) = wells.plates.maps
    assert {place: why for place, why in plate.blanks.items() if why is not Blank.EMPTY} == {
        Well(1, 0): Blank.PENDING, Well(1, 1): Blank.PENDING, Well(1, 2): Blank.PENDING}  # fmt: skip
    assert "dose 10" in plate.words[Well(0, 1)]
    kept = next(one for one in results.opened.values if one.column == "score b")
    wells.show_value(kept)
    plates.work()
    comes_in(running, "B01")
    results.refresh()
    worker.work()
    wells.show()
    plates.work()
    assert wells.value.column == "score b"
    assert list(wells.plates.maps[0].blanks.values()).count(Blank.PENDING) == 2


def test_values_of_a_finished_screen_have_z_and_quality(results, worker, finished):
    opened(results, worker, finished)
    columns = [value.column for value in results.opened.values]
    for name in ("top", "score a", "share a", "unlike", "quality", "cells"):
        assert name in columns
    assert "z a" in columns


def test_wells_are_chosen_added_and_let_go(results, worker, finished):
    wells = WellsSession(results)
    opened(results, worker, finished)
    wells.choose([("plate", "A01")])
    assert results.chosen.words == "A01 of plate: 2 images"
    wells.choose([("plate", "B02")], more=True)
    assert results.chosen.words == "2 wells: 4 images"
    assert {results.found.table.set_index("file")["well"][file] for file in results.chosen.files} == {"A01", "B02"}
    wells.choose([("plate", "A01")], more=True)
    assert wells.chosen == (("plate", "B02"),)
    results.choose(None)
    assert wells.chosen == ()
    wells.open(("plate", "A03"))
    worker.work()
    assert results.found.table["well"].iat[results.row] == "A03"


def test_a_running_screen_fills_the_plate_in_the_dock(make_napari_viewer, qtbot, running):
    """Its line says what is done by now; the plate view reads on by itself, other views at a click on Refresh."""
    _, dock = open_dock(make_napari_viewer(), "Results")

    def rest():
        qtbot.waitUntil(lambda: not dock.busy, timeout=PATIENCE)

    assert not dock.running_box.isVisibleTo(dock)
    drop(dock, running)
    rest()
    assert dock.running_box.isVisibleTo(dock)
    assert "3 of 6 wells so far" in dock.facts.text()
    comes_in(running, "B01")
    dock.running_box.timer.timeout.emit()
    rest()
    assert dock.running_box.note.text() == "3 of 6 wells so far are shown; 4 are done by now."
    dock.show_view(dock.views.index(dock.plate))
    rest()
    assert dock.plate.picture.svg.count("not classified yet</title>") == 3
    dock.running_box.timer.timeout.emit()
    qtbot.waitUntil(lambda: "4 of 6" in dock.facts.text(), timeout=PATIENCE)
    rest()
    assert dock.plate.picture.svg.count("not classified yet</title>") == 2
    dock.show_view(0)
    comes_in(running, "B02")
    dock.running_box.button.click()
    rest()
    assert "5 of 6 wells so far" in dock.facts.text()
    dock.gallery_session.stop()
    rest()


@pytest.mark.slow
def test_a_user_finds_wells_like_one_in_the_dock(make_napari_viewer, qtbot, finished):
    """Clicks a well on the plate, asks for wells like it, opens one of the list, and draws a line on the map."""
    _, dock = open_dock(make_napari_viewer(), "Results")

    def rest():
        qtbot.waitUntil(lambda: not dock.busy, timeout=PATIENCE)

    drop(dock, finished)
    rest()
    assert not dock.chosen_box.isVisibleTo(dock)
    dock.show_view(dock.views.index(dock.plate))
    rest()
    dock.plate.list.activated.emit(1 + PLACES.index("B02"))
    rest()
    assert dock.chosen_box.section.button.text() == "Well B02 of plate"
    dock.chosen_box.like_button.click()
    rest()
    assert dock.view() is dock.alike
    table = dock.alike.table
    assert dock.alike.words.text() == "Wells like B02 of plate"
    assert table.proxy.rowCount() == 5
    first = str(table.proxy.index(0, list(dock.alike.model.frame.columns).index("well")).data())
    table.clicked.emit(table.proxy.index(0, 0))
    rest()
    assert dock.wells_session.chosen == (("plate", first),)
    figure, picture = dock.alike.figure, dock.alike.box.picture
    box, ratio = figure.axes[0].bbox, dock.devicePixelRatioF()
    corners = [(box.x0, box.y0), (box.x0, box.y1), (box.x1, box.y1), (box.x1, box.y0)]
    places = [QPoint(round(x / ratio), round((figure.bbox.height - y) / ratio)) for x, y in corners]
    qtbot.mousePress(picture, Qt.MouseButton.LeftButton, pos=places[0])
    for place in places[1:]:
        held = Qt.MouseButton.NoButton, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier
        move = QMouseEvent(QEvent.Type.MouseMove, QPointF(place), picture.mapToGlobal(QPointF(place)), *held)
        QApplication.sendEvent(picture, move)
    qtbot.mouseRelease(picture, Qt.MouseButton.LeftButton, pos=places[-1])
    rest()
    assert len(dock.wells_session.chosen) == 6
    assert dock.alike.words.text() == "6 wells inside the line"
    dock.alike.colour.activated.emit(dock.alike.colour.findText("dose"))
    rest()
    assert [axes.get_xlabel() for axes in dock.alike.figure.axes] == ["main direction 1", "dose"]
