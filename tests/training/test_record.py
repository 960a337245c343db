"""The record of a training beside its model."""

from __future__ import annotations

import json

import pytest

from napari_milcnn.images.open import ImageReading
from napari_milcnn.training.plan import TrainingPlan
from napari_milcnn.training.record import TrainingState, read_record, save_record, stopped_training
from napari_milcnn.training.run import run_training

FAST = {"epochs": 2, "epoch_steps": 1, "batch_size": 4, "patch": 80, "device": "cpu", "precision": "float32"}


def plan_for(folder, **changes):
    """Plan a quick training of the table of `conftest`."""
    return TrainingPlan(**{"labels": folder / "labels.csv", "out": folder / "m.zip", "options": FAST, **changes})


def test_a_stopped_training_is_found_again(table, tmp_path):
    """Its plan comes back from the record, with the folder wherever it was moved; one that came to its end does not."""
    plan = plan_for(tmp_path, reading=ImageReading(channels=("c",)), facts={"authors": ("A",)})
    labels = plan.table()
    reports = run_training(plan, labels, plan.start(labels).model)
    next(reports)
    next(reports)
    reports.close()
    save_record(plan, 1, TrainingState.STOPPED)  # as a kill in the second epoch leaves it
    found = stopped_training(tmp_path)
    assert (found.plan, found.epochs_done) == (plan, 1)
    moved = tmp_path.rename(tmp_path.with_name("moved"))
    again = stopped_training(moved)
    assert (again.plan.labels, again.plan.out) == (moved / "labels.csv", moved / "m.zip")
    labels = again.plan.table()
    assert len(list(run_training(again.plan, labels, again.plan.start(labels).model, resume=True))) == 1
    assert stopped_training(tmp_path) is None  # nothing is left of it there
    assert stopped_training(moved) is None
    assert read_record(moved / "m.training.json").state is TrainingState.ENDED
    assert json.loads((moved / "m.training.json").read_text())["command"].startswith("napari-milcnn train ")


def test_a_stopped_training_without_its_checkpoint_cannot_go_on(tmp_path):
    """Unless no epoch is done, so that it begins again anyway."""
    plan = plan_for(tmp_path)
    save_record(plan, 1, TrainingState.STOPPED)
    assert stopped_training(tmp_path) is None
    save_record(plan, 0, TrainingState.STOPPED)
    assert stopped_training(tmp_path).epochs_done == 0


def test_a_record_that_knows_more_or_less_is_read(tmp_path):
    """One of another version: a fact that is new, and a way of reading images that was not there yet."""
    plan = {"labels": "labels.csv", "out": "m.zip", "layout": None, "init": None, "preset": None, "network": {},
            "foreground": {}, "options": {"epochs": 3, "turns": False}, "colour": "red",
            "facts": {"authors": ["A", "B"]},
            "reading": {"axes": None, "channels": ["c"], "pixel_size": 0.5, "series": None}}  # fmt: skip
    record = {"epochs_done": 0, "state": "stopped", "plan": plan, "mood": "good"}
    (tmp_path / "m.training.json").write_text(json.dumps(record))
    found = read_record(tmp_path / "m.training.json").plan
    assert (found.labels, found.out) == (tmp_path / "labels.csv", tmp_path / "m.zip")
    assert (found.train_options().epochs, found.train_options().flip_rotate) == (3, False)
    assert "--no-flip-rotate" in found.command()
    assert found.facts == {"authors": ("A", "B")}
    assert found.reading == ImageReading(channels=("c",), pixel_size=0.5)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"epochs_done": 1, "state": "asleep", "plan": {}}'])
def test_a_damaged_record_is_none(tmp_path, text):
    """There is nothing to go on from, and the labels beside it can still be opened."""
    (tmp_path / "m.training.json").write_text(text)
    assert read_record(tmp_path / "m.training.json") is None
    assert stopped_training(tmp_path) is None
