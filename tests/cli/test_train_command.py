"""The command that a training says repeats it."""

from __future__ import annotations

import torch
from typer.main import get_command
from typer.testing import CliRunner

import napari_milcnn as mil
from napari_milcnn.cli.app import app
from napari_milcnn.images.open import ImageReading
from napari_milcnn.options import ForegroundOptions, NetworkOptions, TrainOptions
from napari_milcnn.training.plan import TrainingPlan
from napari_milcnn.training.run import run_training

FAST = {"epochs": 1, "epoch_steps": 1, "batch_size": 4, "patch": 80, "device": "cpu", "precision": "float32"}
WIDTHS = (8, 8, 8, 16, 16, 16)


def parsed(words: list[str]) -> dict[str, object]:
    """Return what the command line reads of some words."""
    command = get_command(app).commands[words[0]]
    return command.make_context(words[0], words[1:]).params


def test_the_command_of_a_plan_gives_the_same_weights(table, tmp_path):
    """Also with a network of its own widths, which are a list."""
    plan = TrainingPlan(
        tmp_path / "labels.csv", tmp_path / "plan.zip", preset="compact",
        network={"widths": WIDTHS, "b": 0.3, "dropout": 0.1, "batch_norm": False},
        options={**FAST, "flip_rotate": False}, facts={"name": "-5 degrees", "authors": ("A", "B")},
    )  # fmt: skip
    labels = plan.table()
    assert len(list(run_training(plan, labels, plan.start(labels).model))) == 1
    command = [str(tmp_path / "again.zip") if word == str(plan.out) else word for word in plan.command()]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    first, again = (mil.load_model(tmp_path / name) for name in ("plan.zip", "again.zip"))
    assert first.card.network.widths == WIDTHS
    assert (again.card.name, again.card.authors) == ("-5 degrees", ("A", "B"))
    weights, others = first.network.state_dict(), again.network.state_dict()
    assert all(torch.equal(weights[name], others[name]) for name in weights)


def test_every_option_of_a_plan_is_an_option_of_the_command(tmp_path):
    """None is misspelt, and each arrives with its value."""
    network = {"pooling": "lse", "a": 5.0, "r": 3.0, "b": 0.1, "first_pool": False, "batch_norm": True,
               "widths": WIDTHS, "dropout": 0.1, "dropout_last": 0.3}  # fmt: skip
    options = {
        "epochs": 3, "batch_size": 2, "patch": 0, "learning_rate": 1e-5, "schedule": "cosine", "head_rate": 2.0,
        "encoder_rate": 0.0, "balance": "weights", "flip_rotate": False, "patience": 4,
        "epoch_steps": 9, "average": 0.5, "vary_intensity": 0.2, "vary_offset": 0.3, "vary_noise": 0.0,
        "vary_saturation": 0.1, "vary_blur": 2.0, "vary_size": 1.5, "vary_share": 0.7, "max_minutes": 1.5,
        "precision": "float32", "device": "cpu", "validation": 0.0, "seed": 7, "threads": 1,
        "cache": 0.5, "num_workers": 3, "bag": "group", "bag_fields": 2,
    }  # fmt: skip
    foreground = {"channel": "GFP", "method": "local", "size": 30.0, "smooth": 0.0, "split": 3.0, "min_size": 5}
    facts = {"name": "n", "description": "d", "trained_on": "t", "credit": "c", "authors": ("A", "B"), "license": "MIT",
             "reference": "-"}  # fmt: skip
    reading = ImageReading(axes="CYX", channels=("GFP", "RFP"), pixel_size=0.3, series=1, z="maximum")
    plan = TrainingPlan(
        tmp_path / "labels.csv", tmp_path / "m.zip", layout=tmp_path / "layout.csv", init="nuclei", preset="paper",
        network=network, options=options, foreground=foreground, facts=facts, reading=reading,
    )  # fmt: skip
    found = parsed(plan.command(resume=True))
    assert (found["labels"], found["out"], found["layout"]) == (plan.labels, plan.out, plan.layout)
    assert (found["init"], found["preset"], found["resume"]) == ("nuclei", "paper", True)
    wanted = {**network, "widths": "8,8,8,16,16,16", **options}
    wanted |= {f"foreground_{name}": value for name, value in foreground.items()}
    wanted |= {f"reading_{name}": value for name, value in vars(reading).items()} | {"reading_channels": "GFP,RFP"}
    assert {name: found[name] for name in wanted} == wanted
    own_names = {"authors": "author", "license": "license_"}
    assert {name: found[own_names.get(name, name)] for name in facts} == {**facts, "authors": ["A", "B"]}
    assert set(network) | {"channels", "classes"} == set(NetworkOptions.model_fields)
    assert set(options) == set(TrainOptions.model_fields)
    assert set(foreground) == set(ForegroundOptions.model_fields)
