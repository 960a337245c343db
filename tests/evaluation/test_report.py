"""The files of an evaluation: complete, self-contained, escaped, and the same from the command line."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile

from napari_milcnn import evaluate, new_model, read_labels
from napari_milcnn.errors import OutputError
from napari_milcnn.evaluation.evaluate import measure
from napari_milcnn.evaluation.report import ImageOutcome, html
from napari_milcnn.labels.table import LabelledImage, LabelTable
from napari_milcnn.options import EvaluateOptions

FILES = {"metrics.json", "confusion.csv", "predictions.csv", "groups.csv", "mislabels.csv", "report.html"}
PROGRAM = [sys.executable, "-c", "from napari_milcnn.cli.app import main; main()"]
CPU = ("--device", "cpu", "--precision", "float32")


@pytest.fixture
def folder(tmp_path):
    """Six small images of two classes in six groups, and a model that knows them."""
    rng = np.random.default_rng(0)
    rows = ["file,label,group"]
    for i in range(6):
        tifffile.imwrite(tmp_path / f"{i}.tif", rng.normal(100, 5, (96, 96)).astype(np.uint16))
        rows.append(f"{i}.tif,{('long', 'round')[i % 2]},well{i}")
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    model = new_model(["long", "round"], ["DNA"], widths=(4, 4, 4, 8, 8, 8)).with_card(
        normalise="training", mean=(100.0,), std=(5.0,)
    )
    model.save(tmp_path / "m.zip")
    return tmp_path


def made_up(single=True, name="m", label="a", files=()):
    """Report on made-up scores in which the second image is contradicted with confidence."""
    model = new_model([label, "b$x$"], ["c"], widths=(4,) * 6).with_card(single_label=single, name=name)
    rows = [(label, (0.9, 0.1)), (label, (0.02, 0.98)), ("b$x$", (0.1, 0.9)), (label, (0.95, 0.05))]
    paths = [*files, *(Path(f"{i}.tif") for i in range(len(files), len(rows)))]
    images = [LabelledImage(path, (row[0],), "g") for path, row in zip(paths, rows, strict=True)]
    outcomes = [ImageOutcome(image, 1, np.array(row[1])) for image, row in zip(images, rows, strict=True)]
    return measure(model, LabelTable(tuple(images)), outcomes, EvaluateOptions())


def test_save_writes_every_file(folder):
    """The folder has the promised files and no other, with the numbers of the report."""
    report = evaluate(new_model(["long", "round"], ["DNA"], widths=(4,) * 6), read_labels(folder / "labels.csv"))
    out = report.save(folder / "out")
    assert {path.name for path in out.iterdir()} == FILES
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["figures"]["accuracy"] == report.accuracy
    assert metrics["intervals"]["accuracy"] == list(report.intervals["accuracy"])
    assert metrics["classes"][0]["learned b"] is None
    assert len(pd.read_csv(out / "predictions.csv")) == 6
    assert pd.read_csv(out / "confusion.csv").columns.tolist() == ["label", "long", "round"]
    with pytest.raises(OutputError, match="is a file; expected a folder"):
        report.save(folder / "labels.csv")


def test_nan_is_null():
    """A number that cannot be measured is null in JSON, which every reader knows."""
    document = made_up().document()
    assert document["figures"]["group accuracy"] is None
    json.loads(json.dumps(document, allow_nan=False))


@pytest.mark.parametrize("single", [True, False])
def test_the_page_needs_no_other_file(single):
    """The page has no script, link or address; pictures are inside it."""
    page = html(made_up(single))
    assert not re.search(r"<script|<link|https?://|@import|url\(|src=\"(?!data:)", page)
    assert page.count("<table>") == page.count("</table>")
    assert "Labels to look at again" in page
    assert ("Confusion matrix" in page) is single


def test_what_a_user_typed_is_escaped():
    """Names of models and classes are text and never markup, and a dollar sign starts no formula."""
    page = html(made_up(name="<script>alert(1)</script>", label="<b>bold</b> & more"))
    assert "<script" not in page
    assert "<b>bold" not in page
    assert "&lt;b&gt;bold&lt;/b&gt; &amp; more" in page
    assert "b$x$" in page


def test_suspected_mislabels_have_pictures(tmp_path):
    """The page shows the image if it can be read, and otherwise says that there is no picture."""
    for i in range(2):
        tifffile.imwrite(tmp_path / f"{i}.tif", np.arange(4096, dtype=np.uint16).reshape(64, 64))
    assert "data:image/png;base64," in html(made_up(files=[tmp_path / "0.tif", tmp_path / "1.tif"]))
    assert "no picture" in html(made_up())


@pytest.mark.slow
def test_command_line(folder):
    """A real process prints one JSON document, which equals metrics.json, and a broken image gives status 1."""
    call = [
        *PROGRAM,
        "evaluate",
        str(folder / "labels.csv"),
        "-m",
        str(folder / "m.zip"),
        "-o",
        str(folder / "out"),
        *CPU,
    ]
    (folder / "5.tif").write_bytes(b"broken")
    done = subprocess.run([*call, "--json"], capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    document = json.loads(done.stdout)
    assert document == json.loads((folder / "out" / "metrics.json").read_text())
    assert [Path(failure["file"]).name for failure in document["failures"]] == ["5.tif"]
    assert "failed: " in done.stderr
    assert {path.name for path in (folder / "out").iterdir()} == FILES


def test_command_line_folds_and_refusals(folder):
    """Folds train with the options under --train-; training options without folds end with status 2."""
    from typer.testing import CliRunner

    from napari_milcnn.cli.app import app

    call = ["evaluate", str(folder / "labels.csv"), "-m", str(folder / "m.zip"), "-o", str(folder / "out"), *CPU]
    train = ["--train-epochs", "1", "--train-epoch-steps", "1", "--train-patch", "0", "--train-device", "cpu"]
    done = CliRunner().invoke(app, [*call, "--folds", "2", *train])
    assert done.exit_code == 0, done.output
    assert "balanced accuracy" in done.stdout
    assert len(json.loads((folder / "out" / "metrics.json").read_text())["folds"]) == 2
    wrong = CliRunner().invoke(app, [*call, *train])
    assert wrong.exit_code == 2
    assert "give a number of folds" in wrong.stderr


def test_accuracy_is_given_within_and_outside_the_range_of_the_training_images():
    """Two images within, one of them right; two outside, both right; without the knowledge there is no table."""
    report = made_up()
    assert report.unlike is None
    assert any("does not know what its training images look like" in text for text in report.warnings)
    values = (0.5, 1.0, 1.5, 9.0)
    outcomes = [replace(one, unlike=value) for one, value in zip(report.outcomes, values, strict=True)]
    known = measure(report.model, report.table, outcomes, EvaluateOptions())
    assert known.unlike["images"].tolist() == [2, 2]
    assert known.unlike["accuracy"].tolist() == [0.5, 1.0]
    assert known.predictions["unlike"].tolist() == [*values]
    assert "Images that are unlike the training images" in html(known)
