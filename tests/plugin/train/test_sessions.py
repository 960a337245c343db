"""The sessions of the Train dock, without a display: what the user does, what jobs report, and what then holds."""

from __future__ import annotations

import inspect
import shutil
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile

from conftest import lively_model
from napari_milcnn.errors import OutputError
from napari_milcnn.labels.labelling import open_labelling
from napari_milcnn.labels.ranking import Ranking
from napari_milcnn.model.package_read import load_model
from napari_milcnn.options import InputOptions, NetworkOptions, TrainOptions
from napari_milcnn.plugin.current_model import current
from napari_milcnn.plugin.qt.notices import Level
from napari_milcnn.plugin.train import choices as choices_module
from napari_milcnn.plugin.train import label_session, session
from napari_milcnn.plugin.train.choices import Choices, missing_labels, usual_path
from napari_milcnn.plugin.train.jobs import (
    Begun,
    CannotResume,
    Epoch,
    EstimateRequest,
    EvaluateRequest,
    Measured,
    Outcome,
    Share,
    TrainRequest,
    ValidateRequest,
)
from napari_milcnn.plugin.train.label_session import (
    LabelSession,
    LabelState,
    LayersRequest,
    OpenRequest,
    PracticeRequest,
)
from napari_milcnn.plugin.train.session import TrainSession, TrainState
from napari_milcnn.progress import Progress
from napari_milcnn.training.plan import TrainingPlan
from napari_milcnn.training.record import TrainingState, save_record

pytest.importorskip("psygnal")


@pytest.fixture
def folder(tmp_path):
    """Return a folder of six small images."""
    for i in range(6):
        tifffile.imwrite(tmp_path / f"{i}.tif", np.full((8, 8), i, np.uint16))
    return tmp_path


@pytest.fixture
def labels(folder):
    """Return a session with the images open, and the classes a and b."""
    made = LabelSession()
    made.open(OpenRequest((folder,)))
    made.take(None, open_labelling(folder))
    made.end(None)
    for name in "ab":
        made.change_classes(lambda it, name=name: it.add_class(name))
    return made


@pytest.fixture
def training(labels):
    """Return a session with three images of each class, its requests, its progress, and a clock set by hand."""
    for row in range(6):
        labels.select([row])
        labels.press(1 + row % 2)
    clock = SimpleNamespace(now=0.0)
    made = TrainSession(labels, lambda: clock.now)
    made.clock, made.asked, made.seen = clock, [], []
    made.requested.connect(made.asked.append)
    made.progressed.connect(lambda share, text: made.seen.append((share, text)))
    labels.labels_changed.emit()
    return made


def rows(count: int) -> tuple[dict[str, object], ...]:
    """Make the rows of some epochs."""
    return tuple({"epoch": number, "device": "cpu"} for number in range(1, count + 1))


def trained(training, *, epochs: int = 1) -> None:
    """Let a training come to its end."""
    training.start()
    model = lively_model(classes=("a", "b"), channels=("channel 0",))
    training.take(None, Epoch(rows(epochs), 16, model))
    training.take(None, Outcome(model, None))
    training.end(None)


# What the issue names


def test_the_first_epoch_of_16_is_the_first_of_16_and_the_time_left_is_that_of_all(training):
    training.start()
    assert isinstance(training.asked[-1], TrainRequest)
    training.take(None, Share(0, 10, "batches"))
    training.clock.now = 4.0
    training.take(None, Share(5, 10, "batches"))
    assert training.seen[-1] == (0.5 / 16, "epoch 1 of 16 · 2 min left")
    training.take(None, Epoch(rows(1), 16, lively_model()))
    training.take(None, Share(0, 10, "batches"))
    assert training.seen[-1][1].startswith("epoch 2 of 16")


def test_a_resumed_training_counts_the_epochs_before(training, folder):
    plan = TrainingPlan(folder / "labels.csv", folder / "model.zip", options={"epochs": 10})
    save_record(plan, 4, TrainingState.STOPPED)
    plan.checkpoint.write_bytes(b"")
    training.labels.labelling.path = folder / "labels.csv"
    training._labels_path = None
    training.labels.labels_changed.emit()
    assert training.can_resume == ("A training stopped after epoch 4 of 10; 4 epochs saved. Press Resume to continue.")
    assert training.choices.options["epochs"] == 10
    training.resume()
    assert training.asked[-1].resume
    assert training.can_resume == ""
    training.take(None, Share(1, 10, "batches"))
    assert training.seen[-1][1].startswith("epoch 5 of 10")


def test_a_pause_does_not_count_for_the_time_left(training):
    training.start()
    training.take(None, Share(0, 10, "batches"))
    training.pause()
    assert training.paused
    training.clock.now = 1000.0
    training.take(None, Share(1, 10, "batches"))
    training.pause()
    training.take(None, Share(1, 10, "batches"))
    assert "left" not in training.seen[-1][1]
    training.clock.now = 1003.0
    training.take(None, Share(4, 10, "batches"))
    assert training.seen[-1][1] == "epoch 1 of 16 · 3 min left"


def test_no_message_outlives_its_cause(training):
    training.start()
    training.end(None, "the disk is full")
    assert (training.message.text, training.message.level) == ("the disk is full", Level.ERROR)
    training.choose(Choices(options={"epochs": 3}))
    assert training.message.text == ""
    training.choose(Choices(options={"patch": -1}))
    assert "'patch' is -1" in training.needs
    training.choose(Choices())
    assert training.needs == ""
    training.try_batches()
    training.end(None, stopped=True)
    assert training.message.text == "Stopped."
    training.labels.undo()
    assert training.message.text == ""


def test_no_message_about_labels_outlives_its_cause(labels):
    labels.press(7)
    assert labels.message.text == "There is no class 7 yet."
    labels.select([2])
    assert labels.message.text == ""
    labels.image.end(None)
    labels.image.end(None, "2.tif cannot be read")
    assert labels.message.text == "2.tif cannot be read"
    labels.select([3])
    assert labels.message.text == ""


def test_use_it_now_sets_the_current_model_of_all_docks(training, folder):
    trained(training)
    shown = training.results.shown
    used = []
    training.results.used.connect(lambda: used.append(current.model))
    training.results.use()
    assert used == [current.model]
    assert current.model.path == folder / "model.zip" == shown.plan.out
    assert current.model.classes == ("a", "b")
    current.clear()


def test_images_are_told_apart_by_request_and_not_by_row_or_name(labels, folder):
    """What an earlier request opens is not shown, even if it is the same row or an image of the same name."""
    shown, asked = [], []
    labels.image.ready.connect(shown.append)
    labels.image.requested.connect(asked.append)
    labels.image.take(None, ("first", ()))
    labels.image.end(None)
    labels.select([1])
    labels.select([2])
    labels.select([1])
    assert len(asked) == 1
    labels.image.take(None, ("row 1, asked for first", ()))
    assert [found[0] for found in shown] == ["first"]
    labels.image.end(None)
    labels.image.take(None, ("row 1", ()))
    assert [found[0] for found in shown] == ["first", "row 1"]


def test_layers_of_one_name_and_files_that_are_there_are_not_overwritten(folder):
    image = SimpleNamespace(name="0", planes=(0,), plane_name=lambda _plane: "")
    written = []
    request = LayersRequest((SimpleNamespace(image=image),) * 2, (None, None), folder)
    (folder / "0.ome.tif").write_bytes(b"mine")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("napari_milcnn.results.write.write_plane", lambda path, *_: written.append(path) or path.touch())
        next(steps := request.steps()), next(steps)
    assert [path.name for path in written] == ["0-2.ome.tif", "0-3.ome.tif"]
    assert (folder / "0.ome.tif").read_bytes() == b"mine"


# The hand


def test_practice_images_are_copied_to_a_new_folder_each_time(folder, monkeypatch, tmp_path_factory):
    samples = tmp_path_factory.mktemp("samples")
    (samples / "training").mkdir()
    shutil.copytree(folder, samples / "training" / "images")
    monkeypatch.setattr("napari_milcnn.model.shipped.sample_folder", lambda: samples)
    made = LabelSession()
    for name in ("practice", "practice-2"):
        request = PracticeRequest(folder)
        made.open(request)
        made.take(None, next(iter(request.steps())))
        made.end(None)
        assert made.labelling.path == folder / name / "labels.csv"
        assert len(made.labelling.images) == 6
        assert made.message.text.startswith("Each of these files is named after what it shows")
    made.open(OpenRequest((folder,)))
    made.take(None, open_labelling(folder / "practice"))
    assert made.message.text.startswith("Labels are saved")
    with pytest.raises(OutputError, match="choose another folder"):
        next(iter(PracticeRequest(folder / "0.tif").steps()))


def test_with_two_images_a_training_is_refused_with_the_reason(labels):
    assert missing_labels(None, 0.2) == "Open images in the Label tab first."
    assert missing_labels(labels.labelling, 0.2) == "Label a few images of each class first."
    labels.select([0])
    labels.press(1)
    assert "Also label images of another class" in missing_labels(labels.labelling, 0.2)
    labels.select([1])
    labels.press(2)
    assert missing_labels(labels.labelling, 0.2).startswith("2 labelled images are too few to keep one for validation")
    assert missing_labels(labels.labelling, 0) == ""
    labels.set_split([0, 1], "train")
    assert missing_labels(labels.labelling, 0.2) == ""
    labels.undo()
    labels.select([2])
    labels.press(2)
    assert missing_labels(labels.labelling, 0.2) == ""
    labels.set_group([1, 2], "well")
    assert missing_labels(labels.labelling, 0.2).startswith("There are too few images to keep one")


def test_a_model_is_not_replaced_without_a_question(training, folder):
    (folder / "mine.zip").write_bytes(b"")
    training.choose(Choices(out="mine.zip"))
    training.start()
    assert "mine.zip exists already" in training.question.text
    assert not training.busy
    training.answer(False)
    assert (training.question, training.asked) == (None, [])
    training.start()
    training.answer(True)
    assert training.asked[-1].plan.out == folder / "mine.zip"


def test_results_stay_and_can_be_looked_at_again(training, folder):
    trained(training)
    first = training.results.shown
    training.results.use()
    training.cross_validate(3)
    assert isinstance(training.asked[-1], ValidateRequest)
    training.take(None, Outcome(None, SimpleNamespace(folds=())))
    training.end(None)
    assert [one.name for one in training.results.all] == ["model.zip", "cross-validation, 3 folds"]
    training.start()
    assert training.asked[-1].plan.out == folder / "model-2.zip"
    training.end(None, "it failed")
    assert training.results.shown.name == "cross-validation, 3 folds"
    assert training.learning.rows == rows(1)
    training.results.show(first)
    assert training.results.shown is first
    current.clear()


def test_a_name_that_is_refused_leaves_the_reason_why_labels_were_not_written(labels, folder):
    (folder / "labels.csv").write_text("file,label\n1.tif,z\n", encoding="utf-8")
    labels.press(1)
    reason = labels.warning
    assert "changed by another program" in reason
    assert not labels.change_classes(lambda it: it.add_class("a|b"))
    assert labels.warning == reason
    assert "cannot name a class" in labels.message.text


def test_only_a_training_is_said_to_be_resumed(training):
    training.cross_validate(2)
    assert "Resume" not in training.question_before_closing
    assert training.question_before_closing.startswith("Networks are trained on the folds.")
    training.stop()
    training.end(None, stopped=True)
    training.start()
    assert "press Resume" in training.question_before_closing


def test_a_card_saved_while_faithfulness_is_measured_keeps_the_measurement(training, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "napari_milcnn.evaluation.faithfulness.with_faithfulness", lambda model, _table: model.with_card(credit="x")
    )
    results, plan = training.results, training.plan()
    results.put_unmeasured(plan, lively_model(), "")
    training.measure_faithfulness()
    assert results.save_card({"license": "CC0-1.0"})
    training.take(None, Measured(None, ()))
    assert (results.shown.model.card.credit, results.shown.model.card.license) == ("x", "CC0-1.0")


def test_labels_that_were_not_written_are_not_left_without_a_question(labels, folder):
    (folder / "labels.csv").write_text("file,label\n1.tif,z\n", encoding="utf-8")
    asked = []
    labels.requested.connect(asked.append)
    labels.press(1)
    labels.select([3])
    assert "changed by another program" in labels.warning
    assert TrainSession(labels).question_before_closing.endswith("These changes are lost.")
    labels.open(OpenRequest((folder,)))
    assert "are lost" in labels.question.text
    assert labels.state is LabelState.READY
    labels.answer(True)
    assert labels.state is LabelState.OPENING
    assert len(asked) == 1


def test_every_change_of_labels_is_undone_and_redone(labels):
    steps = [
        lambda: labels.press(1), lambda: labels.press(2, add=True), lambda: labels.press(0),
        lambda: labels.set_group([0], "w"), lambda: labels.set_split([0], "train"),
        lambda: labels.change_classes(lambda it: it.recolour_class("a", "#010203")),
        lambda: labels.change_classes(lambda it: it.move_class("b", 0)),
        lambda: labels.change_classes(lambda it: it.remove_class("b")),
    ]  # fmt: skip
    labels.go_on = False
    states = []
    for step in steps:
        states.append((labels.labelling.classes, labels.labelling.images))
        step()
    last = labels.labelling.classes, labels.labelling.images
    for before in reversed(states):
        labels.undo()
        assert (labels.labelling.classes, labels.labelling.images) == before
    for _ in steps:
        labels.redo()
    assert (labels.labelling.classes, labels.labelling.images) == last


def test_labels_are_locked_while_a_network_learns(training):
    training.start()
    training.labels.press(1)
    assert training.labels.message.text == "Labels cannot be changed while a training runs."
    training.end(None, stopped=True)
    training.labels.press(2)
    assert training.labels.message.text == "Every image has a label."


# Jobs


def test_a_stopped_training_is_evaluated_and_can_be_resumed(training, folder):
    training.start()
    plan = training.asked[-1].plan
    training.take(None, Begun("a new network", "one image is blank"))
    assert (training.learning.kept, training.warnings) == ("a new network", ("one image is blank.",))
    model = lively_model(classes=("a", "b"), channels=("channel 0",))
    training.take(None, Epoch(rows(2), 16, model))
    save_record(plan, 2, TrainingState.STOPPED)
    plan.checkpoint.write_bytes(b"")
    training.stop()
    training.end(None, stopped=True)
    assert isinstance(training.asked[-1], EvaluateRequest)
    assert training.state is TrainState.EVALUATING
    training.end(None, stopped=True)
    assert training.results.shown.why == "The model was not evaluated."
    assert "2 epochs saved. Press Resume to continue." in training.can_resume


def test_a_training_that_cannot_be_resumed_does_not_offer_it_again(training, folder):
    plan = TrainingPlan(folder / "labels.csv", folder / "model.zip")
    save_record(plan, 4, TrainingState.STOPPED)
    plan.checkpoint.write_bytes(b"")
    training._find_stopped(folder)
    training.resume()
    training.take(None, CannotResume("Labels changed."))
    training.end(None)
    assert (training.message.text, training.can_resume, training.needs) == ("Labels changed.", "", "")


def test_an_estimate_says_what_a_training_takes_until_the_choices_change(training):
    training.choose(Choices(options={"epochs": 1, "max_minutes": 2.0}))
    training.try_batches()
    assert isinstance(training.asked[-1], EstimateRequest)
    training.take(None, SimpleNamespace(seconds=30.0, images=4, passes=1, batches=2, validation_images=2, memory=1e9,
                                  device="cpu"))  # fmt: skip
    training.end(None)
    assert training.estimate == (
        "30 s per epoch: 4 images in 2 batches, 2 for validation. 1 epoch takes about 30 s. Memory: 1.0 GB on cpu. "
        "The limit of 2 min allows 4 epochs."
    )
    training.choose(Choices())
    assert training.estimate == ""


def test_what_a_training_starts_from_is_that_of_the_present_choices(training):
    asked = []
    training.requested.connect(asked.append)
    training.describe_start()
    training.choose(Choices(preset="paper"))
    training.take(asked[0], Begun("a new network (compact)"))
    assert training.kept.text == ""
    training.describe_start()
    training.take(asked[1], Begun("a new network (paper)"))
    assert training.kept.text == "a new network (paper)"


def test_ranked_images_come_in_their_order_and_the_first_is_chosen(labels):
    order = []
    labels.ranked.connect(order.append)
    labels.rank(None)
    assert "What next needs a model" in labels.message.text
    labels.rank(lively_model())
    assert labels.state is LabelState.RANKING
    found = Ranking((4, 1), np.zeros((2, 3)), np.zeros(2), {1: "1.tif is damaged"})
    labels.take(None, Progress(1, 1, result=found))
    labels.end(None)
    assert (order, labels.rows) == ([(4, 1)], (4,))
    assert labels.message.text == (
        "Images are sorted: label those at the top next. 1 could not be read and come last: 1.tif is damaged"
    )


# Choices


def test_choices_become_a_plan_and_come_back(folder, labels):
    reading = labels.labelling.reading
    chosen = Choices(
        preset="paper", network={"pooling": "max", "widths": "8,8,8,8,8,8"}, seen={"normalise": "group"},
        foreground={"method": "local", "size": None}, options={"epochs": 3, "vary_blur": 0.0}, out="own.zip",
        reference="a", plates="plates.csv",
    )  # fmt: skip
    plan = chosen.plan(folder / "labels.csv", reading)
    assert plan.network == {"pooling": "max", "widths": (8,) * 6}
    assert plan.seen == {"normalise": "group"}
    assert plan.foreground == {"method": "local"}
    assert plan.options == {"epochs": 3, "vary_blur": 0.0}
    assert (plan.out, plan.facts) == (folder / "own.zip", {"reference": "a"})
    assert str(plan.reading.plates) == "plates.csv"
    assert Choices.of(plan).plan(folder / "labels.csv", reading) == plan
    assert Choices().plan(folder / "labels.csv", reading) == TrainingPlan(folder / "labels.csv", folder / "model.zip")


def test_a_model_to_start_from_keeps_its_network(folder, labels):
    lively_model().save(folder / "start.zip")
    model = load_model(folder / "start.zip")
    chosen = Choices(init=str(model.path), network={"pooling": "max"}, seen={"scale": 0.5})
    plan = chosen.plan(folder / "labels.csv", labels.labelling.reading)
    assert (plan.init, plan.network, plan.seen, plan.preset) == (str(model.path), {}, {}, None)


def test_the_usual_model_file_is_free(tmp_path):
    assert usual_path(tmp_path).name == "model.zip"
    (tmp_path / "model.zip").touch()
    assert usual_path(tmp_path).name == "model-2.zip"


# The house


def test_sessions_know_no_window():
    code = "import sys; import napari_milcnn.plugin.train.session; print([m for m in sys.modules if m.split('.')[0] in ('qtpy', 'PyQt6', 'PySide6', 'napari', 'torch')])"  # noqa: E501
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )


def test_no_class_of_the_sessions_has_over_30_methods():
    for module in (session, label_session, choices_module):
        for name, kind in inspect.getmembers(module, inspect.isclass):
            if kind.__module__ == module.__name__:
                made = [one for one in vars(kind).values() if inspect.isfunction(one) or isinstance(one, property)]
                assert len(made) <= 30, name


def test_defaults_of_the_choices_are_those_of_the_options(folder, labels):
    """Every value of every option can stand in the choices without changing the plan."""
    everything = Choices(
        network=NetworkOptions(channels=1, classes=1).model_dump(), seen=InputOptions().model_dump(),
        options=TrainOptions().model_dump(), preset="paper",
    )  # fmt: skip
    plan = everything.plan(folder / "labels.csv", labels.labelling.reading)
    assert plan.network == {}
    assert plan.options["epochs"] == TrainOptions().epochs
