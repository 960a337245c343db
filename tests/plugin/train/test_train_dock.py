"""The Train dock, used as a user does: images are dropped, labelled with keys, trained on, and the model is used."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
import torch
from qtpy.QtCore import QSettings, Qt
from qtpy.QtGui import QGuiApplication
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication, QDockWidget, QMessageBox, QPushButton
from typer.testing import CliRunner

import napari_milcnn as mil
from conftest import PATIENCE, lively_model
from napari_milcnn.cli.app import app
from napari_milcnn.model.faithfulness_words import faithfulness_sentences
from napari_milcnn.options import POOLINGS, TrainOptions, make_options
from napari_milcnn.plugin.current_model import current
from napari_milcnn.plugin.qt.forms import LatePart, Section
from napari_milcnn.plugin.train.choices import Choices
from napari_milcnn.plugin.train.plan_box import PlanBox
from napari_milcnn.simulation.microscope import simulate_field
from napari_milcnn.simulation.options import SimulationOptions
from napari_milcnn.training.plan import TrainingPlan
from napari_milcnn.training.record import TrainingState, save_record
from napari_milcnn.training.run import run_training
from qt_actions import drop, open_dock

pytest.importorskip("napari")
FAST = {"epochs": 2, "epoch_steps": 1, "patch": 80, "batch_size": 4, "device": "cpu", "precision": "float32"}
FIELDS = SimulationOptions(
    size=(128, 128), cells=(5, 8), penetrance=(0.8, 1.0), strain_spread=0.1, weak=(0.1, 0.15), multi_label=0.0
)
CLASSES = ("nucleus", "cell periphery")


@pytest.fixture(autouse=True)
def own_settings(tmp_path_factory, monkeypatch):
    """Give the tests settings of their own, so that they neither read nor change those of the user."""
    QSettings.setPath(
        QSettings.Format.NativeFormat, QSettings.Scope.UserScope, str(tmp_path_factory.mktemp("settings"))
    )
    QSettings("napari-milcnn", "napari-milcnn").remove("last_labels")
    yield
    QSettings("napari-milcnn", "napari-milcnn").remove("last_labels")


@pytest.fixture
def viewer(make_napari_viewer, qtbot):
    """Return a viewer whose window has the focus, so that keys reach it."""
    viewer = make_napari_viewer(show=True)
    viewer.window._qt_window.activateWindow()
    qtbot.waitUntil(lambda: QApplication.activeWindow() is viewer.window._qt_window)
    return viewer


@pytest.fixture
def dock(viewer, qtbot):
    """Return the dock, opened as the Plugins menu opens it."""
    _, dock = open_dock(viewer, "Train")
    qtbot.waitUntil(lambda: bool(dock.device.text()), timeout=PATIENCE)
    yield dock
    dock.stop()
    settled(dock, qtbot)
    current.clear()


def settled(dock, qtbot) -> None:
    """Wait until no job runs."""
    box = dock.label_box
    qtbot.waitUntil(
        lambda: not dock.busy and not dock.waits and not box.busy and not box.images.pictures.busy,
        timeout=PATIENCE,
    )


def opened(dock, qtbot, *paths: Path) -> None:
    """Drop images on the first tab, and wait until they are open."""
    with qtbot.waitSignal(dock.label_box.changed, timeout=PATIENCE):
        drop(dock.label_box, *paths)
    settled(dock, qtbot)


def show_first_result(dock) -> None:
    """Choose the first of the results in the list."""
    dock.outcome_box.choice.setCurrentIndex(0)
    dock.outcome_box.choice.activated.emit(0)


def choose(dock, **options) -> None:
    """Set options in the forms."""
    for name, value in options.items():
        form = dock.plan_box.options if name in [one.name for one in dock.plan_box.options] else dock.plan_box.more
        form[name].value = value


def epochs_done(dock) -> int:
    """Return how many epochs are done."""
    return dock.session.learning.done if dock.session.learning is not None else 0


def report_of(dock):
    """Return the report that the dock shows."""
    shown = dock.session.results.shown
    return None if shown is None else shown.report


def trained(dock, qtbot, **options) -> None:
    """Click Start, and wait for the end."""
    choose(dock, **{**FAST, **options})
    QTest.mouseClick(dock.start_button, Qt.MouseButton.LeftButton)
    assert dock.busy
    settled(dock, qtbot)


def simulated(folder: Path, count: int, seed: int) -> dict[str, str]:
    """Simulate fields with a protein in one of two places; return file name -> place."""
    folder.mkdir()
    truth = {}
    for i in range(count):
        name, shown = f"field{i:02d}.ome.tif", CLASSES[i % 2]
        facts = {"axes": "CYX", "Channel": {"Name": ["GFP", "RFP"]}}
        tifffile.imwrite(folder / name, simulate_field([shown], FIELDS, seed + i).image, metadata=facts)
        truth[name] = shown
    return truth


def test_a_long_name_of_the_last_folder_fits_its_button(viewer, qtbot, tmp_path):
    """It has dots in its middle; the tooltip has all of it."""
    last = tmp_path / f"plate 12{' of the second repeat' * 5}, fixed" / "labels.csv"
    last.parent.mkdir()
    QSettings("napari-milcnn", "napari-milcnn").setValue("last_labels", str(last))
    _, dock = open_dock(viewer, "Train")
    qtbot.waitUntil(lambda: bool(dock.device.text()), timeout=PATIENCE)
    button = dock.continue_button
    assert button.text().startswith("Continue with plate 12")
    assert button.text().endswith("fixed")
    assert "…" in button.text()
    assert button.fontMetrics().horizontalAdvance(button.text()) < 300
    assert last.parent.name in button.toolTip()


@pytest.mark.slow
def test_from_images_to_masks_by_hand(dock, viewer, qtbot, tmp_path):
    """Label 24 images with keys and train on them; at least 12 of 16 other images are right, where chance gives 8.

    The model is then used: the image in the viewer is classified, and its cells are masked.
    """
    truth = simulated(tmp_path / "screen", 24, seed=100)
    held = simulated(tmp_path / "held", 16, seed=500)
    box = dock.label_box
    opened(dock, qtbot, tmp_path / "screen")
    for name in CLASSES:
        QTest.keyClicks(box.class_box.new, name)
        QTest.keyClick(box.class_box.new, Qt.Key.Key_Return)
    box.table.setFocus()
    for _ in range(24):
        shown = truth[box.labelling.images[box.table.current_row()].file.name]
        QTest.keyClick(box.table, Qt.Key(Qt.Key.Key_1 + CLASSES.index(shown)))
    settled(dock, qtbot)
    written = pd.read_csv(tmp_path / "screen" / "labels.csv").set_index("file")["label"].to_dict()
    assert written == truth
    dock.tabs.setCurrentIndex(1)
    trained(dock, qtbot, epochs=10, patch=128, validation=0.25)
    assert dock.message.text() == "Done."
    assert dock.tabs.currentIndex() == 2
    assert "held out for validation" in dock.outcome_box.notes.text()
    QTest.mouseClick(dock.outcome_box.use_button, Qt.MouseButton.LeftButton)
    assert current.model.classes == tuple(sorted(CLASSES))
    _, classifier = open_dock(viewer, "Classify")
    drop(classifier, tmp_path / "held")
    images = classifier.session.images.records
    qtbot.waitUntil(
        lambda: len(images) == 16 and not classifier.busy and not classifier.session.preview.busy
        and all(entry.state.value == "done" for entry in images.values()), timeout=PATIENCE,
    )  # fmt: skip
    right = [entry.prediction.top[0] == held[entry.path.name] for entry in images.values()]
    assert np.sum(right) >= 12
    assert classifier.writer.masks_of(classifier.session.in_view).data.any()


@pytest.mark.slow
def test_the_window_and_the_command_line_train_the_same_model(dock, qtbot, table, tmp_path):
    """The command that the dock copies writes the same weights."""
    opened(dock, qtbot, tmp_path / "labels.csv")
    trained(dock, qtbot, seed=3)
    QTest.mouseClick(dock.outcome_box.copy_button, Qt.MouseButton.LeftButton)
    words = shlex.split(QGuiApplication.clipboard().text())
    assert words[:2] == ["napari-milcnn", "train"]
    words[words.index("--out") + 1] = str(tmp_path / "again.zip")
    assert CliRunner().invoke(app, words[1:]).exit_code == 0
    ours, theirs = (mil.load_model(tmp_path / name) for name in ("model.zip", "again.zip"))
    assert ours.card.training.curve == theirs.card.training.curve
    weights = theirs.network.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in ours.network.state_dict().items())


def test_the_dock_names_what_is_missing(dock, qtbot, tmp_path, table):
    assert "Open images in the Label tab first." in dock.needs.text()
    assert not dock.start_button.isEnabled()
    (tmp_path / "labels.csv").write_text("file,label\n0.tif,none\n2.tif,none\n")
    opened(dock, qtbot, tmp_path / "labels.csv")
    assert "All labelled images have the label none." in dock.needs.text()
    assert not dock.start_button.isEnabled()


def test_an_impossible_training_gives_its_reason(dock, qtbot, table, tmp_path):
    """A patch is smaller than the receptive field; a model file does not end in .zip."""
    opened(dock, qtbot, tmp_path / "labels.csv")
    trained(dock, qtbot, patch=30)
    assert "'patch' is 30; expected 0 or at least the receptive field, 67 px" in dock.message.text()
    dock.plan_box.out.setText("model.pt")
    assert dock.message.text() == ""
    assert "a model is saved as one .zip file" in dock.needs.text()
    assert not dock.start_button.isEnabled()
    dock.plan_box.out.setText("model")
    dock.plan_box.out.setText("mine.zip")
    assert not dock.needs.isVisible()
    assert dock.start_button.isEnabled()


@pytest.mark.slow
def test_pause_stop_and_resume(dock, qtbot, table, tmp_path):
    """A paused training waits; a stopped one saves its epochs and is evaluated; a resumed one continues."""
    opened(dock, qtbot, tmp_path / "labels.csv")
    choose(dock, **{**FAST, "epochs": 60})
    dock.start_button.click()
    qtbot.waitUntil(lambda: epochs_done(dock) >= 1, timeout=PATIENCE)
    dock.pause_button.click()
    assert dock.pause_button.text() == "Continue"
    there, before = (0, 0), None
    for _ in range(20):  # an epoch whose batches are done still has its validation
        there, before = (epochs_done(dock), dock.progress.value()), there
        if there == before:
            break
        qtbot.wait(1500)
    assert there == before
    dock.pause_button.click()
    qtbot.waitUntil(lambda: epochs_done(dock) > there[0], timeout=PATIENCE)
    dock.stop_button.click()
    settled(dock, qtbot)
    done = dock.session.stopped.epochs_done
    assert there[0] < done < 60
    assert report_of(dock) is not None
    dock.plan_box.options["epochs"].value = 3  # Resume ignores the form: it continues the training with its own options
    assert not dock.resume_button.isHidden()
    dock.resume_button.click()
    qtbot.waitUntil(lambda: epochs_done(dock) > done, timeout=PATIENCE)
    dock.stop_button.click()
    settled(dock, qtbot)
    assert mil.load_model(tmp_path / "model.zip").card.training.options["epochs"] == 60


def test_without_validation_the_dock_shows_no_metrics(dock, qtbot, table, tmp_path):
    rows = (tmp_path / "labels.csv").read_text().splitlines()
    (tmp_path / "labels.csv").write_text("\n".join(",".join(row.split(",")[:2]) for row in rows))
    opened(dock, qtbot, tmp_path / "labels.csv")
    trained(dock, qtbot, epochs=1, validation=0.0)
    assert dock.learning_box.curves.none.text().startswith("No validation")
    assert not dock.learning_box.curves.validation.isVisibleTo(dock.learning_box)
    assert dock.outcome_box.figures.text().startswith("No validation")
    assert report_of(dock) is None


@pytest.mark.slow
def test_estimate_and_cross_validation(dock, qtbot, table, tmp_path):
    opened(dock, qtbot, tmp_path / "labels.csv")
    choose(dock, **{**FAST, "epochs": 1})
    dock.estimate_button.click()
    settled(dock, qtbot)
    assert "12 images in 3 batches, 4 for validation" in dock.estimate.text()
    assert not (tmp_path / "model.zip").exists()
    dock.plan_box.folds.setValue(2)
    dock.validate_button.click()
    settled(dock, qtbot)
    notes = dock.outcome_box.notes.text()
    assert "Cross-validation on 16 images from 16 groups" in notes
    assert "each image was predicted by a network that was not trained on its group." in notes
    assert len(report_of(dock).folds) == 2
    assert dock.outcome_box.results_button.isVisibleTo(dock)
    assert not dock.outcome_box.card.isVisibleTo(dock)


@pytest.mark.slow
def test_a_cross_validation_pauses_and_stops(dock, qtbot, table, tmp_path):
    """A paused one waits; a stopped one gives no metrics; a model that was trained before can still be used."""
    opened(dock, qtbot, tmp_path / "labels.csv")
    trained(dock, qtbot, epochs=1)
    choose(dock, epochs=60)
    dock.plan_box.folds.setValue(2)
    dock.validate_button.click()
    qtbot.waitUntil(lambda: "fold 1 of 2, epoch" in dock.progress.format(), timeout=PATIENCE)
    dock.pause_button.click()
    qtbot.wait(1000)
    there = dock.progress.value()
    qtbot.wait(1000)
    assert dock.busy
    assert dock.progress.value() == there
    dock.stop_button.click()
    settled(dock, qtbot)
    assert dock.message.text() == "Stopped."
    assert report_of(dock).folds is None
    choose(dock, epochs=1)
    dock.validate_button.click()
    settled(dock, qtbot)
    assert len(report_of(dock).folds) == 2
    show_first_result(dock)
    assert dock.outcome_box.use_button.isVisibleTo(dock)


@pytest.mark.slow
def test_the_card_is_filled_in_and_the_authors_are_remembered(dock, qtbot, table, tmp_path):
    opened(dock, qtbot, tmp_path / "labels.csv")
    trained(dock, qtbot, epochs=1)
    dock.outcome_box.fields["authors"].setText("Ada L., Alan T.")
    dock.outcome_box.fields["license"].setText("CC-BY-4.0")
    dock.outcome_box.save_button.click()
    card = mil.load_model(tmp_path / "model.zip").card
    assert (card.authors, card.license) == (("Ada L.", "Alan T."), "CC-BY-4.0")
    assert card.trained_on == "16 labelled images: none 8, spots 8"
    assert "validation accuracy" in card.metrics
    assert type(dock.outcome_box)().fields["authors"].text() == "Ada L., Alan T."
    box = dock.outcome_box.faithfulness
    assert box.sentences.text().startswith("Not measured yet.")
    for click, measured in ((box.stop_button.click, False), (lambda: None, True)):
        box.measure_button.click()
        assert box.progress.isVisibleTo(box)
        click()
        settled(dock, qtbot)
        assert bool(mil.load_model(tmp_path / "model.zip").card.faithfulness) == measured
        assert box.measure_button.isVisibleTo(box) != measured
    card = mil.load_model(tmp_path / "model.zip").card
    assert card.authors == ("Ada L.", "Alan T.")
    assert dock.outcome_box.message.text() == f"Saved {tmp_path / 'model.zip'}"
    assert "held out for validation" in dock.outcome_box.notes.text()
    assert box.sentences.text().split("\n\n") == faithfulness_sentences(card.faithfulness)
    assert all(name in box.table.text() for name in ("none", "spots", "class map × image"))


def test_closing_asks_while_a_training_runs(dock, viewer, qtbot, table, tmp_path, monkeypatch):
    opened(dock, qtbot, tmp_path / "labels.csv")
    choose(dock, **{**FAST, "epochs": 60})
    dock.start_button.click()
    questions = []
    answer = QMessageBox.StandardButton.No
    monkeypatch.setattr(QMessageBox, "question", lambda *words: questions.append(words[2]) or answer)
    window = next(w for w in viewer.window._qt_window.findChildren(QDockWidget) if w.isAncestorOf(dock))
    QTest.mouseClick(window.findChild(QPushButton, "QTitleBarCloseButton"), Qt.MouseButton.LeftButton)
    assert "A training is running" in questions[0]
    assert dock.busy
    assert window.isVisible()
    dock.stop_button.click()
    settled(dock, qtbot)


SEES_TESTS = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
KILLED = """
import sys, time
import napari
from pathlib import Path
from qt_actions import open_dock
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication
viewer = napari.Viewer()
viewer.window._qt_window.activateWindow()
_, dock = open_dock(viewer, "Train")
box = dock.label_box

def wait(done):
    while not done():
        QApplication.processEvents()
        time.sleep(0.01)

box.open([Path(sys.argv[1])])
wait(lambda: box.labelling is not None and not box.busy)
for name in ("none", "spots"):
    QTest.keyClicks(box.class_box.new, name)
    QTest.keyClick(box.class_box.new, Qt.Key.Key_Return)
box.table.setFocus()
for _ in range(int(sys.argv[2])):
    number = int(box.labelling.images[box.table.current_row()].file.stem)
    QTest.keyClick(box.table, Qt.Key(Qt.Key.Key_1 + number % 2))
    print("labelled", flush=True)
for name, value in dict(epochs=60, patch=80).items():
    dock.plan_box.options[name].value = value
dock.plan_box.more["batch_size"].value = 4
dock.plan_box.more["epoch_steps"].value = 1
dock.start_button.click()
wait(lambda: dock.session.learning.done >= 2)
print("trained", flush=True)
wait(lambda: False)
"""


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
@pytest.mark.slow
def test_nothing_is_lost_when_the_viewer_is_killed(dock, qtbot, table, tmp_path):
    """Killing napari during a training on some of the images loses no label and at most one epoch."""
    (tmp_path / "labels.csv").unlink()
    given = 12
    call = [sys.executable, "-c", KILLED, str(tmp_path), str(given)]
    environment = {**SEES_TESTS, "XDG_CONFIG_HOME": str(tmp_path / "settings")}  # not those of the user
    with subprocess.Popen(call, stdout=subprocess.PIPE, text=True, env=environment) as process:
        for _ in range(given + 1):
            assert process.stdout.readline()
        process.send_signal(signal.SIGKILL)
    opened(dock, qtbot, tmp_path)
    labelled = [image for image in dock.label_box.labelling.images if image.labels]
    assert len(labelled) == given
    assert all(image.labels == (("none", "spots")[int(image.file.stem) % 2],) for image in labelled)
    assert len(dock.label_box.labelling.images) == 16
    assert dock.session.stopped.epochs_done >= 2
    assert not dock.resume_button.isHidden()
    dock.resume_button.click()
    qtbot.waitUntil(lambda: epochs_done(dock) > 0, timeout=PATIENCE)
    first = epochs_done(dock)
    dock.stop_button.click()
    settled(dock, qtbot)
    assert first >= 2  # epoch 2 itself is lost if its state was still being written


@pytest.mark.slow
def test_training_on_a_folder_for_each_class(dock, qtbot, table, tmp_path):
    """Opening writes nothing; the training writes the table that it reads."""
    for image in table.images:
        folder = tmp_path / "screen" / image.labels[0]
        folder.mkdir(parents=True, exist_ok=True)
        image.file.rename(folder / image.file.name)
    opened(dock, qtbot, tmp_path / "screen")
    assert dock.plan_box.kept.text() == "a new network (compact): 2 classes, channel 0"
    assert not list((tmp_path / "screen").glob("labels.csv"))
    trained(dock, qtbot, epochs=1)
    assert dock.message.text() == "Done."
    assert mil.load_model(tmp_path / "screen" / "model.zip").classes == ("none", "spots")


@pytest.mark.slow
def test_several_devices_train_in_processes_that_the_dock_follows(dock, qtbot, table, tmp_path, monkeypatch):
    """Two processes on the CPU stand in for two GPUs: curves and metrics arrive as from a training in this process."""
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    dock.session.gpus = 2
    opened(dock, qtbot, tmp_path / "labels.csv")
    trained(dock, qtbot, epochs=2, device="auto")
    assert dock.message.text() == "Done."
    assert (dock.session.learning.done, dock.session.learning.epochs) == (2, 2)
    assert report_of(dock) is not None
    assert mil.load_model(tmp_path / "model.zip").card.training.device.endswith("(2 processes)")


def test_a_stopped_training_is_announced_once_and_leaves_the_form_alone(dock, qtbot, table, tmp_path):
    """Labelling can continue beside a stopped training; the model of another folder is saved in that folder."""
    plan = TrainingPlan(tmp_path / "labels.csv", tmp_path / "model.zip", facts={"name": "first"})
    save_record(plan, 0, TrainingState.STOPPED)
    opened(dock, qtbot, tmp_path / "labels.csv")
    assert dock.session.stopped is not None
    assert dock.tabs.currentIndex() == 1
    dock.tabs.setCurrentIndex(0)
    choose(dock, epochs=7)
    dock.label_box.table.select([0])
    dock.label_box.press(2)
    settled(dock, qtbot)
    assert dock.tabs.currentIndex() == 0
    assert dock.plan_box.values()["epochs"] == 7
    other = tmp_path / "other"
    other.mkdir()
    for path in tmp_path.glob("?.tif"):
        tifffile.imwrite(other / path.name, tifffile.imread(path))
    (other / "labels.csv").write_text("file,label\n0.tif,none\n1.tif,spots\n2.tif,none\n")
    opened(dock, qtbot, other / "labels.csv")
    assert dock.session.stopped is None
    assert (dock.session.plan().out, dock.session.plan().facts) == (other / "model.zip", {})


def test_what_is_trained_does_not_depend_on_the_sections_that_are_open(qtbot):
    """A plan may have options that the form does not offer, such as a second GPU or a time of less than a second."""
    unusual = {"device": "cuda:1", "seed": 3, "learning_rate": 0.00012345, "max_minutes": 0.000123, "num_workers": 3}
    box = PlanBox()
    qtbot.addWidget(box)
    box.show_choices(Choices(options=make_options(TrainOptions, {**unusual, "threads": 1}).model_dump()))
    before = box.choices()
    assert unusual.items() <= before.options.items()
    for section in box.findChildren(Section):
        section.fold(is_open=True)
    assert all(part.is_made for part in box.findChildren(LatePart))
    assert box.choices() == before


@pytest.mark.slow
def test_resume_is_refused_with_a_message_after_labels_changed(dock, qtbot, table, tmp_path):
    """The model of the stopped training stays; the message does not offer the button that was refused."""
    plan = TrainingPlan(tmp_path / "labels.csv", tmp_path / "model.zip", options=FAST)
    read = plan.table()
    reports = run_training(plan, read, plan.start(read).model)
    next(reports), next(reports)  # the checkpoint of the first epoch is written when the second is requested
    reports.close()
    save_record(plan, 1, TrainingState.STOPPED)
    opened(dock, qtbot, tmp_path / "labels.csv")
    before = plan.out.read_bytes()
    dock.label_box.table.select([0])
    dock.label_box.press(2)
    dock.resume_button.click()
    settled(dock, qtbot)
    assert dock.message.text().startswith("Labels or images changed since that training was stopped")
    assert "Start begins anew" in dock.message.text()
    assert "Resume" not in dock.message.text()
    assert dock.start_button.isEnabled()
    assert plan.out.read_bytes() == before


def test_a_model_that_is_trained_further_is_not_overwritten(dock, qtbot, table, tmp_path):
    """A training that starts from the current model saves the new model under another name."""
    lively_model(classes=("none", "spots"), channels=("channel 0",)).save(tmp_path / "model.zip")
    current.set(mil.load_model(tmp_path / "model.zip"))
    opened(dock, qtbot, tmp_path / "labels.csv")
    start = dock.plan_box.start
    start.setCurrentIndex(next(i for i in range(start.count()) if start.itemText(i).endswith("(current)")))
    start.activated.emit(start.currentIndex())
    settled(dock, qtbot)
    assert dock.session.plan().out == tmp_path / "model-2.zip"
    assert dock.plan_box.out.placeholderText() == "model-2.zip"
    dock.plan_box.out.setText("model.zip")
    assert "model.zip is the model to start from and would be overwritten" in dock.needs.text()
    assert not dock.start_button.isEnabled()


def test_the_pooling_of_a_new_network_is_chosen(dock, qtbot, table, tmp_path):
    """The sentence of the pooling stands below it, and the plan has it; a model to start from has its own."""
    opened(dock, qtbot, tmp_path / "labels.csv")
    box = dock.plan_box
    assert box.when.text() == POOLINGS["noisy_and"]
    assert dock.session.plan().network == {}
    box.pooling.setCurrentText("average")
    assert box.when.text() == POOLINGS["average"]
    plan = dock.session.plan()
    assert plan.network == {"pooling": "average"}
    assert "--pooling average" in " ".join(plan.command())
    box.pooling.setCurrentText("max")
    box.show_choices(Choices.of(plan))
    assert box.pooling.currentText() == "average"
    lively_model(classes=("none", "spots"), channels=("channel 0",)).save(tmp_path / "model.zip")
    current.set(mil.load_model(tmp_path / "model.zip"))
    box.start.setCurrentIndex(next(i for i in range(box.start.count()) if box.start.itemText(i).endswith("(current)")))
    box.start.activated.emit(box.start.currentIndex())
    assert not box.pooling.isVisibleTo(box)
    assert dock.session.plan().network == {}


@pytest.mark.slow
def test_a_trained_model_can_be_used_whatever_comes_after(dock, qtbot, table, tmp_path):
    """Use the model after a cross-validation and after its file was deleted; Stop works again after an estimate."""
    opened(dock, qtbot, tmp_path / "labels.csv")
    trained(dock, qtbot, epochs=1)
    dock.plan_box.folds.setValue(2)
    dock.validate_button.click()
    assert not dock.pause_button.isVisibleTo(dock)
    settled(dock, qtbot)
    show_first_result(dock)
    assert dock.outcome_box.use_button.isVisibleTo(dock.outcome_box)
    (tmp_path / "model.zip").unlink()
    dock.outcome_box.use_button.click()
    assert current.model.path == tmp_path / "model.zip"
    dock.estimate_button.click()
    dock.stop_button.click()
    settled(dock, qtbot)
    assert dock.stop_button.isEnabled()
