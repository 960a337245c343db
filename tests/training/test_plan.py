"""A plan of a training: what it starts from, the command that repeats it, and a training in a process of its own."""

from __future__ import annotations

import json
import math
import os
import shlex
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch

import napari_milcnn as mil
from conftest import SMALL, lively_model
from napari_milcnn.errors import ComputeError, ModelError, OptionsError, OutputError
from napari_milcnn.images.open import ImageReading
from napari_milcnn.training.plan import TrainingPlan
from napari_milcnn.training.run import epoch_row, follow_training, json_line, run_training
from napari_milcnn.training.trainer import estimate

FAST = {"epochs": 2, "epoch_steps": 1, "batch_size": 4, "patch": 80, "device": "cpu", "precision": "float32"}


def plan_for(folder, **changes):
    """Plan a quick training of the table of `conftest`."""
    return TrainingPlan(**{"labels": folder / "labels.csv", "out": folder / "m.zip", "options": FAST, **changes})


def renamed(table, classes):
    """Give the images of a table other labels."""
    names = dict(zip(table.classes, classes, strict=True))
    return tuple(replace(image, labels=tuple(names[one] for one in image.labels)) for image in table.images)


def run(plan, **options):
    """Carry a plan out."""
    table = plan.table()
    return list(run_training(plan, table, plan.start(table).model, **options))


def test_best_and_last_model_and_state_are_on_disk(table, tmp_path):
    plan = plan_for(tmp_path)
    *_, last = run(plan)
    assert mil.load_model(plan.out).digest == mil.load_model(last.best.save(tmp_path / "again.zip")).digest
    assert plan.checkpoint.exists()
    assert plan.last.exists() != last.is_best
    assert run(plan, resume=True) == []


def test_a_run_that_is_left_keeps_its_epochs(table, tmp_path):
    plan = plan_for(tmp_path)
    labels = plan.table()
    reports = run_training(plan, labels, plan.start(labels).model)
    first = next(reports)
    reports.close()
    assert mil.load_model(plan.out).card.training.epoch == first.epoch == 1


def test_time_that_is_up_ends_it_after_the_epoch(table, tmp_path):
    reports = run(plan_for(tmp_path, options={**FAST, "max_minutes": 1e-6}))
    assert [report.epoch for report in reports] == [1]


def test_a_plan_says_what_it_starts_from(table, tmp_path):
    known = lively_model(channels=("channel 0",)).with_card(name="abc", training={"epoch": 3})
    known.save(tmp_path / "abc.zip")
    plan = plan_for(tmp_path, init=str(tmp_path / "abc.zip"))
    assert plan.start(plan.table()).summary == (
        "the encoder of abc and a new head: 2 classes (none, spots; abc has a, b, c)"
    )
    fresh = plan_for(tmp_path).start(plan.table())
    assert fresh.summary == "a new network (compact): 2 classes, channel 0"
    assert fresh.model.card.name == "m"
    with pytest.raises(OptionsError, match=r"saved as one \.zip file, found .*m\.pt"):
        plan_for(tmp_path, out=tmp_path / "m.pt").start(plan.table())
    with pytest.raises(OptionsError, match=r"abc\.zip is the model to start from and would be overwritten"):
        plan_for(tmp_path, init=str(tmp_path / "abc.zip"), out=tmp_path / "abc.zip").start(plan.table())
    lively_model(classes=("none", "other", "spots"), channels=("channel 0",)).save(tmp_path / "abc.zip")
    assert "a new head: 2 classes (none, spots; MIL-CNN has none, other, spots)" in plan.start(plan.table()).summary


def test_the_input_is_chosen_for_new_networks_and_kept_by_trained_ones(table, tmp_path):
    new = plan_for(tmp_path, seen={"normalise": "training", "scale": 0.9})
    model = new.start(table).model
    assert (model.card.normalise, model.card.scale) == ("training", 0.9)
    assert "--normalise training --scale 0.9" in shlex.join(new.command())
    parent = model.with_card(training={"epoch": 3}).save(tmp_path / "parent.zip")
    for name in (["none", "spots"], ["none", "dots"]):
        child = plan_for(tmp_path, init=str(parent)).start(replace(table, images=renamed(table, name))).model
        assert (child.card.normalise, child.card.scale) == ("training", 0.9)
    assert plan_for(tmp_path, init=str(parent), seen={"scale": 0.9}).start(table).model.card.scale == 0.9
    with pytest.raises(OptionsError, match=r"option 'normalise' is image, but m, .* learned with training; leave"):
        plan_for(tmp_path, init=str(parent), seen={"normalise": "image"}).start(table)
    with pytest.raises(OptionsError, match="a network of its own; leave out option 'widths', option 'preset'"):
        plan_for(tmp_path, init=str(parent), preset="paper", network={"widths": (4, 4)}).start(table)


def test_a_model_that_could_not_be_saved_is_refused_before_training(table, tmp_path):
    """A licence that does not exist, and a folder that is a file; nothing is left behind."""
    before = sorted(tmp_path.iterdir())
    with pytest.raises(ModelError, match="its license is 'as you like'; Input should be"):
        plan_for(tmp_path, facts={"license": "as you like"}).start(table)
    with pytest.raises(OutputError, match=r"m\.zip cannot be written"):
        plan_for(tmp_path, out=tmp_path / "labels.csv" / "m.zip").start(table)
    plan_for(tmp_path, facts={"license": "CC-BY-4.0"}).start(table)
    assert sorted(tmp_path.iterdir()) == before


def test_two_may_begin_at_once(table, tmp_path):
    """As where it is being said what a training would start from, and it is started."""
    plan = plan_for(tmp_path)
    labels = plan.table()
    with ThreadPoolExecutor(4) as pool:
        begun = list(pool.map(lambda _: plan.start(labels), range(4)))
    assert len({one.model.digest for one in begun}) == 1
    assert not list(tmp_path.glob(".*"))


def test_the_command_says_what_differs_from_the_defaults(tmp_path):
    plan = TrainingPlan(
        tmp_path / "labels.csv", tmp_path / "m.zip", preset="paper",
        options={"epochs": 3, "flip_rotate": False, "seed": 0},
        foreground={"smooth": 2.0}, facts={"name": "my cells", "authors": ("A", "B"), "license": ""},
        reading=ImageReading(channels=("GFP", "RFP"), pixel_size=0.3),
    )  # fmt: skip
    assert shlex.join(plan.command(resume=True)) == (
        f"train {tmp_path}/labels.csv --out {tmp_path}/m.zip --preset paper --epochs 3 --no-flip-rotate "
        "--foreground-smooth 2.0 --name 'my cells' --author A --author B --channels GFP,RFP --pixel-size 0.3 --resume"
    )


def test_the_command_says_a_default_that_the_preset_has_not(tmp_path):
    """The paper's batches are of 16: to train with the usual 8 beside them has to be said."""
    plan = TrainingPlan(tmp_path / "l.csv", tmp_path / "m.zip", preset="paper", options={"batch_size": 8, "patch": 900})
    assert plan.train_options().batch_size == 8
    assert shlex.join(plan.command()).endswith("--preset paper --batch-size 8")


def test_a_line_of_json_has_no_number_that_json_does_not_know(tmp_path):
    line = json_line({"loss": math.nan, "model": tmp_path / "m.zip", "learned_b": [0.5, math.inf]})
    assert json.loads(line) == {"loss": None, "model": str(tmp_path / "m.zip"), "learned_b": [0.5, None]}
    assert "\n" not in line


@pytest.mark.slow
def test_a_process_of_its_own_trains_the_same_model(table, tmp_path, monkeypatch):
    """With as many threads the very same; the Train dock's tests have two processes."""
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    monkeypatch.setenv("OMP_NUM_THREADS", str(torch.get_num_threads()))
    options = {"network": {"b": 0.3}, "options": {**FAST, "epochs": 1}}
    told = [row for row in follow_training(plan_for(tmp_path, out=tmp_path / "f.zip", **options), 1) if row]
    own = [epoch_row(report) for report in run(plan_for(tmp_path, **options))]
    assert [row["loss"] for row in told] == [row["loss"] for row in own]
    there, here = (mil.load_model(tmp_path / name).network.state_dict() for name in ("f.zip", "m.zip"))
    assert all(torch.equal(there[name], here[name]) for name in here)


@pytest.mark.slow
def test_what_a_process_failed_of_is_said(table, tmp_path):
    plan = plan_for(tmp_path, labels=tmp_path / "nothing.csv")
    with pytest.raises(ComputeError, match=r"nothing\.csv does not exist"):
        list(follow_training(plan, 1))


def test_an_estimate_is_of_the_training_that_follows(table):
    """Its counts are right; its memory holds at least what the largest layer of a batch puts out, twice."""
    model = mil.new_model(table.classes, ["c"], **SMALL)
    found = estimate(model, table, **FAST)
    assert (found.batches, found.images, found.validation_images) == (3, 12, 4)
    assert found.seconds > 0
    assert found.memory > 2 * 4 * 6 * 80 * 80 * 4  # (batch, channels of the first layer, Y, X) in float32
    assert "cpu" in found.device
    assert os.listdir(table.images[0].file.parent).count("m.zip") == 0


def test_the_confusion_of_validation_stands_on_the_card(table, tmp_path):
    *_, last = run(plan_for(tmp_path))
    counts = last.best.card.training.confusion
    assert [sum(row) for row in counts] == [2, 2]
    right = sum(counts[i][i] for i in range(2)) / 4
    assert right == last.best.card.metrics["validation accuracy"]
    assert 0 <= last.validation.mean_average_precision <= 1
