"""The command line: what is typed, what is printed, how it ends."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
from typer.main import get_command
from typer.testing import CliRunner

import napari_milcnn as mil
from conftest import write_plate
from napari_milcnn.cli.app import app, flags_of
from napari_milcnn.cli.progress import FLAGS, with_flags
from napari_milcnn.options import flag_name
from napari_milcnn.output_lock import locked, locked_folder

CPU = ("--device", "cpu", "--precision", "float32")
PROGRAM = [sys.executable, "-c", "from napari_milcnn.cli.app import main; main()"]


@pytest.fixture
def run():
    """Call the command line in this process."""
    runner = CliRunner()
    return lambda *arguments: runner.invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def model(tmp_path):
    """Save an untrained model."""
    model = mil.new_model(["round", "long"], ["DNA"], widths=(4, 4, 4, 8, 8, 8)).with_card(
        normalise="training", mean=(100.0,), std=(30.0,)
    )
    return model.save(tmp_path / "m.zip")


@pytest.fixture
def image(tmp_path):
    """Write a noisy image with one bright square."""
    pixels = np.random.default_rng(0).normal(100, 5, (100, 110))
    pixels[40:60, 40:60] += 200
    tifffile.imwrite(tmp_path / "a.tif", pixels.astype(np.uint16))
    return tmp_path / "a.tif"


def test_an_empty_image_is_said_once(run, model, tmp_path):
    """Among the messages, and in JSON in the rows of its planes; so is a pixel size that is not known."""
    tifffile.imwrite(tmp_path / "black.tif", np.zeros((100, 110), np.uint16))
    sized = mil.load_model(model).with_card(pixel_size=0.65).save(tmp_path / "sized.zip")
    result = run("classify", tmp_path / "black.tif", "-m", sized, "-o", tmp_path / "o", "--no-masks", "--json", *CPU)
    assert result.exit_code == 0, result.output
    said = " ".join(result.stderr.split())
    assert said.count("no structure above the noise") == 1
    assert said.count("does not say its pixel size") == 1
    printed = json.loads(result.stdout)["images"][0]
    assert ["pixel size" in text for text in printed["warnings"]] == [True]
    assert printed["planes"][0]["unlike reason"] == "nothing to classify: no structure above the noise"


@pytest.mark.slow
def test_classify_prints_a_table_and_writes_files(run, model, image, tmp_path):
    """The table names image and class; the folder holds what the design promises."""
    result = run("classify", image, "-m", model, "-o", tmp_path / "out", *CPU)
    assert result.exit_code == 0, result.output
    assert "a.tif" in result.stdout
    assert mil.classify(mil.load_model(model), image, device="cpu").top[0] in result.stdout
    assert {p.name for p in (tmp_path / "out").iterdir()} == {
        "predictions.csv", "objects.csv", "run.json", "a_labels.ome.tif", "a_maps.ome.tif", "a_overview.png",
    }  # fmt: skip


@pytest.mark.parametrize("names", [("[/]", "[red]long"), ("[link=x]", ":smile:")])
def test_names_are_printed_as_they_are(run, image, tmp_path, names):
    """Nothing in a name of a class or a file colours, moves or ends the output, also that of info and a failure."""
    model = mil.new_model(names, ["DNA"], widths=(4, 4, 4, 8, 8, 8)).save(tmp_path / "m.zip")
    named = image.rename(tmp_path / "a[red]\x1b[2J.tif")
    (tmp_path / "b[red]\x1b[2J.tif").write_bytes(b"II*\0")
    result = run("classify", named, tmp_path / "b[red]\x1b[2J.tif", "-m", model, "-o", tmp_path / "out", *CPU)
    assert result.exit_code == 1, result.output
    assert "\x1b" not in result.output
    assert r"a[red]\x1b[2J.tif" in result.stdout
    assert any(name in result.stdout for name in names)
    assert f"{names[0]}, {names[1]}" in run("info", model).stdout


def test_command_line_and_python_agree(run, model, image, tmp_path):
    """The same options give the same numbers and the same masks both ways."""
    loaded = mil.load_model(model)
    run("classify", image, "-m", model, "-o", tmp_path / "out", *CPU, "--kind", "class_map", "--present", 0,
        "--class-threshold", "round=0.4")  # fmt: skip
    table = pd.read_csv(tmp_path / "out" / "predictions.csv")
    prediction = mil.classify(loaded, image, device="cpu", precision="float32")
    np.testing.assert_allclose(table[["score round", "score long"]].to_numpy(), prediction.scores, rtol=1e-4)
    evidence = mil.evidence(loaded, image, kind="class_map", device="cpu", precision="float32")
    masks = mil.segment(evidence, present=0.0, class_thresholds={"round": 0.4})
    with mil.open_image(tmp_path / "out" / "a_labels.ome.tif") as labels:
        np.testing.assert_array_equal(labels.plane(0)[0], masks.labels[0])


def test_evidence_is_saved(run, model, image, tmp_path):
    """A finer class map in the file is that of Python."""
    kind = ("--kind", "class_map_image", "--detail", 2)
    result = run("classify", image, "-m", model, "-o", tmp_path / "out", *CPU, *kind, "--save-evidence", "--present", 0)
    assert result.exit_code == 0, result.output
    options = {"kind": "class_map_image", "detail": 2, "device": "cpu", "precision": "float32"}
    expected = mil.evidence(mil.load_model(model), image, **options).maps[0]
    with mil.open_image(tmp_path / "out" / "a_evidence.ome.tif") as found:
        assert found.channels == ("round", "long")
        np.testing.assert_allclose(found.plane(0), expected, atol=1e-6)


def test_faithfulness_goes_to_the_report_and_a_card(run, model, image, tmp_path):
    """The model that is written has the figures; without --faithfulness there are none to write."""
    (tmp_path / "labels.csv").write_text("file,label\na.tif,round\n")
    call = ("evaluate", tmp_path / "labels.csv", "-m", model, "-o", tmp_path / "out", *CPU, "--draws", 0)
    refused = run(*call, "--card-out", tmp_path / "n.zip")
    assert refused.exit_code == 2
    assert "give --faithfulness, too" in refused.stderr
    done = run(*call, "--card-out", tmp_path / "n.zip", "--faithfulness")
    assert done.exit_code == 0, done.output
    assert {one.evidence for one in mil.load_model(tmp_path / "n.zip").card.faithfulness} >= {"object"}
    assert (tmp_path / "out" / "faithfulness.csv").exists()


def test_a_run_is_gone_on_with(run, model, image, tmp_path):
    """What is done is left; another option and an image that changed are refused, the latter is done again if asked."""
    call = ("classify", image, "-m", model, "-o", tmp_path / "out", "--no-masks", *CPU)
    assert run(*call).exit_code == 0
    table = (tmp_path / "out" / "predictions.csv").read_bytes()
    done = run(*call, "--resume")
    assert done.exit_code == 0, done.output
    assert "1 of 1 images are done already and are left as they are" in done.stderr
    assert (tmp_path / "out" / "predictions.csv").read_bytes() == table
    refused = run(*call, "--resume", "--tile", 96)
    assert refused.exit_code == 2
    assert "evidence tile (was" in refused.stderr
    tifffile.imwrite(image, np.zeros((100, 110), np.uint16))
    refused = run(*call, "--resume")
    assert refused.exit_code == 2
    assert "1 image has changed since it was classified" in refused.stderr
    assert run(*call, "--resume", "--redo-changed").exit_code == 0
    assert (tmp_path / "out" / "predictions.csv").read_bytes() != table
    assert "give resume, too" in run(*call, "--redo-changed").stderr


@pytest.mark.parametrize(
    "command", ["classify", "train", "evaluate", "calibrate", "simulate", "cells", "next", "check"]
)
def test_a_second_run_into_the_same_output_is_refused(run, model, image, tmp_path, command):
    """Every command that writes: nothing is written, and the message says who writes there."""
    (tmp_path / "labels.csv").write_text("file,label\na.tif,round\n")
    labels, outputs = tmp_path / "labels.csv", tmp_path / "outputs"
    call, out = {
        "classify": ((image, "-m", model), outputs),
        "train": ((labels,), outputs / "x.zip"),
        "evaluate": ((labels, "-m", model), outputs),
        "calibrate": ((labels, "-m", model), outputs / "x.zip"),
        "simulate": ((), outputs),
        "cells": ((image, "--objects", image, "-m", model), outputs / "x.csv"),
        "next": ((tmp_path, "-m", model), outputs / "x.csv"),
        "check": ((labels,), outputs / "x.csv"),
    }[command]
    with locked_folder(out) if out == outputs else locked(out):
        there = sorted(outputs.iterdir())
        result = run(command, *call, *(["-o"] if command != "simulate" else []), out)
        assert result.exit_code == 2
        assert re.search(r"is being written by .* \(process \d+ on .* since .*wait until it ends", result.stderr)
        assert sorted(outputs.iterdir()) == there


@pytest.mark.slow
def test_json_is_the_only_thing_on_standard_output(model, image, tmp_path):
    """A real process: standard output is one JSON document, progress is on standard error."""
    call = [*PROGRAM, "classify", str(image), "-m", str(model), "-o", str(tmp_path / "out"), "--json", *CPU]
    done = subprocess.run(call, capture_output=True, text=True, check=True)
    document = json.loads(done.stdout)
    assert document["images"][0]["planes"][0]["top"] in ("round", "long")
    assert document["images"][0]["error"] is None
    assert "classify" in done.stderr or "a.tif" in done.stderr


def test_exit_status_1_where_an_image_fails(run, model, image, tmp_path):
    """One bad image of two: status 1, the good one written, the bad one named with its reason."""
    (tmp_path / "bad.tif").write_bytes(b"no image")
    result = run("classify", image, tmp_path / "bad.tif", "-m", model, "-o", tmp_path / "out", *CPU)
    assert result.exit_code == 1
    assert "bad.tif" in result.stderr
    assert (tmp_path / "out" / "a_overview.png").exists()
    assert pd.read_csv(tmp_path / "out" / "predictions.csv")["error"].notna().tolist() == [False, True]


def test_a_wrong_option_of_a_training_is_called_by_its_flag(run, model, image, tmp_path):
    """Options of one command that are those of another have a prefix, which its message has, too."""
    (tmp_path / "labels.csv").write_text(f"file,label\n{image.name},round\n")
    for call, flag in ((("evaluate", tmp_path / "labels.csv", "-m", model, "--train-epochs", 0), "--train-epochs"),
                       (("train", tmp_path / "labels.csv", "--epochs", 0), "--epochs"),
                       (("train", tmp_path / "labels.csv", "--widths", "1,2,3,4,5"), "--widths.5")):  # fmt: skip
        result = run(*call, "-o", tmp_path / "out.zip")
        assert result.exit_code == 2
        assert f"error: {flag} is" in result.stderr
        assert not (tmp_path / "out.zip").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--model", "nowhere.zip"), "nowhere.zip does not exist"),
        (("--threshold", "high"), "expected auto, otsu, a number such as 0.4"),
        (("--tile", "20"), "expected at least the receptive field, 67 px"),
        (("--device", "tpu"), "--device is 'tpu': expected auto, cpu, cuda, xpu, mps, or cuda:1 for the second GPU"),
        (("--foreground-size", "-3"), "--foreground-size is -3.0: Input should be greater than 0"),
        (("--detail", "3"), "--detail is 3: expected 1, 2 or 4"),
        (("--class", "flat"), "the model does not know the class flat; its classes: round, long"),
        (("--kind", "hunch"), "hunch"),
        (("--class-threshold", "round"), "--class-threshold: found 'round', expected CLASS=NUMBER, such as nucleus"),
        (("--class-threshold", "round=q0.9"), "expected CLASS=NUMBER"),
        (("--class-threshold", "=0.5"), "expected CLASS=NUMBER"),
        (("--class-threshold", "flat=0.5"), "a threshold is given for 'flat', which the model does not know"),
    ],
)
def test_exit_status_2_where_the_call_is_wrong(run, model, image, tmp_path, arguments, message):
    """Each wrong call ends with 2 and a sentence, and writes no table."""
    call = ("classify", image, "-m", model, "-o", tmp_path / "out", *arguments)
    result = run(*call)
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.split())
    assert "Traceback" not in result.output
    assert not (tmp_path / "out" / "predictions.csv").exists()


def test_info(run, model):
    """Without a model: device and versions; with one: its card, as text and as JSON."""
    assert "torch" in run("info").stdout
    assert set(json.loads(run("info", "--json").stdout)) >= {"device", "torch", "napari-milcnn"}
    text = run("info", model).stdout
    assert "round, long" in text
    assert "receptive field 67 px" in text
    card = json.loads(run("info", model, "--json").stdout)
    assert card["classes"] == ["round", "long"]
    assert card["sha256"] == mil.load_model(model).digest
    assert run("info", "nowhere.zip").exit_code == 2


@pytest.mark.slow
def test_simulate_then_train_then_classify(run, tmp_path):
    """The three commands after one another, on three small fields a class; the model names what it learned from."""
    screen = tmp_path / "screen"
    assert run("simulate", screen, "--fields", 2, "--size", 128, "--seed", 1, "--plates-alike").exit_code == 0
    table = pd.read_csv(screen / "labels.csv")
    assert len(table) == 16
    result = run(
        "train", screen / "labels.csv", "-o", tmp_path / "y.zip", "--epochs", 1, "--patch", 128, "--device", "cpu",
        "--epoch-steps", 1, "--validation", 0, "--foreground-channel", "RFP", "--b", 0.2, "--name", "tiny yeast",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "no validation" in result.stdout
    model = mil.load_model(tmp_path / "y.zip")
    assert (model.channels, model.pixel_size) == (("GFP", "RFP"), pytest.approx(0.16))
    assert model.card.name == "tiny yeast"
    assert model.card.network.b == 0.2
    assert model.card.foreground.channel == "RFP"
    again = run("train", screen / "labels.csv", "-o", tmp_path / "z.zip", "--init", tmp_path / "y.zip", "--epochs", 1,
                "--epoch-steps", 1, "--patch", 128, "--validation", 0, "--device", "cpu", "--json")  # fmt: skip
    first, last = map(json.loads, again.stdout.splitlines())
    assert (first["epoch"], last) == (1, {"model": str(tmp_path / "z.zip")})
    result = run("classify", screen / "images", "-m", tmp_path / "z.zip", "-o", tmp_path / "out", "--no-masks", *CPU)
    assert result.exit_code == 0, result.output
    assert len(pd.read_csv(tmp_path / "out" / "predictions.csv")) == 16


SHORT = ("--epoch-steps", 1, "--patch", 80, "--batch-size", 4, *CPU)


def test_training_resumes_and_fine_tunes(run, table, tmp_path):
    """Two epochs, taken up again: nothing is left to do. Then on to other classes, in one folder a class."""
    call = ("train", tmp_path / "labels.csv", "-o", tmp_path / "m.zip", "--epochs", 2, *SHORT)
    first = run(*call, "--json")
    assert first.exit_code == 0, first.output
    *epochs, last = map(json.loads, first.stdout.splitlines())
    assert last == {"model": str(tmp_path / "m.zip")}
    assert [epoch["epoch"] for epoch in epochs] == [1, 2]
    assert all(0 <= epoch["waiting"] <= 1 for epoch in epochs)
    assert (tmp_path / "m-last.zip").exists() == (not epochs[-1]["is_best"])
    again = run(*call, "--resume")
    assert "belongs to a training that is done" in again.stderr
    assert "differs in --epochs (was 2, is 3)" in run(*call[:5], 3, *SHORT, "--resume").stderr
    for image in table.images:
        folder = tmp_path / "classes" / f"new {image.labels[0]}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / image.file.name).write_bytes(image.file.read_bytes())
    tuned = run("train", tmp_path / "classes", "-o", tmp_path / "n.zip", "--init", tmp_path / "m.zip", "--epochs", 1,
                "--encoder-rate", 0, *SHORT)  # fmt: skip
    assert "the encoder of m and a new head: 2 classes (new none, new spots; m has none, spots)" in tuned.stderr
    assert mil.load_model(tmp_path / "n.zip").classes == ("new none", "new spots")


def test_calibrate_writes_a_model(run, table, tmp_path):
    """A temperature is fitted, and the model written."""
    model = mil.new_model(table.classes, ["c"], widths=(4, 4, 4, 8, 8, 8)).with_card(
        normalise="training", mean=(100.0,), std=(30.0,)
    )
    model.save(tmp_path / "m.zip")
    done = run(
        "calibrate", tmp_path / "labels.csv", "-m", tmp_path / "m.zip", "-o", tmp_path / "c.zip", "--device", "cpu"
    )
    assert done.exit_code == 0, done.output
    assert mil.load_model(tmp_path / "c.zip").card.temperature != 1


def test_a_damaged_first_image_is_in_the_list(run, table, tmp_path):
    """A new model takes its channels from the first image, and still all problems are listed at once."""
    for image in table.images[:2]:
        image.file.write_bytes(b"no image")
    message = run("train", tmp_path / "labels.csv", "-o", tmp_path / "m.zip").stderr
    assert "2 problems" in message
    assert "line 2 '0.tif'" in message
    assert "line 3 '1.tif'" in message


def test_train_says_at_once_what_would_fail_at_the_end(run, tmp_path, image):
    """A name that is no .zip, and options that --init makes meaningless, are refused before any training."""
    tifffile.imwrite(tmp_path / "b.tif", np.eye(100, dtype=np.uint16))
    (tmp_path / "labels.csv").write_text("file,label\na.tif,x\nb.tif,y\n")
    call = ("train", tmp_path / "labels.csv", "--validation", 0)
    assert "a model is saved as one .zip file" in run(*call, "-o", tmp_path / "mine").stderr
    refused = run(*call, "-o", tmp_path / "n.zip", "--init", "nuclei", "--b", 0.2, "--json")
    assert "leave out --b" in refused.stderr
    assert "leave out --b" in json.loads(refused.stdout)["error"]
    assert not list(tmp_path.glob("*.zip"))


def test_files_that_do_not_say_their_axes(run, tmp_path):
    """Plain two-page TIFFs are trained on and classified once --axes and --channels say what the pages are."""
    rng = np.random.default_rng(0)
    for name in "ab":
        tifffile.imwrite(tmp_path / f"{name}.tif", rng.integers(0, 99, (2, 80, 80)).astype(np.uint16))
    (tmp_path / "labels.csv").write_text("file,label\na.tif,x\nb.tif,y\n")
    how = ("--axes", "CYX", "--channels", "GFP,RFP", "--pixel-size", 0.3)
    short = ("--validation", 0, "--epochs", 1, "--epoch-steps", 1, "--patch", 0)
    call = ("train", tmp_path / "labels.csv", "-o", tmp_path / "n.zip", *short)
    assert "--axes CYX" in run(*call).stderr
    assert run(*call, *how).exit_code == 0
    model = mil.load_model(tmp_path / "n.zip")
    assert (model.channels, model.pixel_size) == (("GFP", "RFP"), 0.3)
    assert run("classify", tmp_path / "a.tif", "-m", tmp_path / "n.zip", "-o", tmp_path / "o", *how).exit_code == 0
    assert run(*call, *how, "--foreground-channel", "DAPI").exit_code == 2


@pytest.mark.skipif(os.name == "nt", reason="POSIX shell")
@pytest.mark.slow
def test_work_goes_on_when_the_reader_of_the_output_leaves(model, image, tmp_path):
    """`classify … | true` writes everything and ends well."""
    call = " ".join(
        [f"'{part}'" for part in PROGRAM] + ["classify", str(image), "-m", str(model), "-o", str(tmp_path / "o")]
    )
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {call} | true"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "o" / "run.json").exists()


def test_simulating_into_a_used_folder_is_refused(run, tmp_path):
    """A screen is not mixed with another."""
    (tmp_path / "labels.csv").touch()
    result = run("simulate", tmp_path)
    assert result.exit_code == 2
    assert "already holds a screen" in result.stderr


@pytest.mark.parametrize(("call", "message"), [
    (("--size", 20000), "'--size': Input should be less than or equal to 16384"),
    (("--multi-label", 2), "--multi-label is 2.0: Input should be less than or equal to 1"),
    (("--size", 64, "--fields", 1, "--read-noise", -1), "--read-noise is -1.0"),
    (("--plate", "--wells", 48), "error: --wells is 48: expected 24, 96 or 384"),
    (("--plate", "--wells", 24, "--doses", 20), "error: --doses is 20: expected at most 18 on a plate of 24 wells"),
])  # fmt: skip
def test_impossible_simulations_end_with_a_sentence(run, tmp_path, call, message):
    """Exit status 2 and nothing written; every option of a simulation has a flag."""
    result = run("simulate", tmp_path / "out", *call)
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr
    assert not (tmp_path / "out").exists()


@pytest.fixture
def heard():
    """Ctrl-C reaches the processes started here, even where the tests run in the background, which ignores it."""
    usual = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, usual)


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
@pytest.mark.usefixtures("heard")
@pytest.mark.slow
def test_interrupt_leaves_whole_files(model, image, tmp_path):
    """Ctrl-C among many images: exit 130, every file that is there is whole, and the record names the rest."""
    out = tmp_path / "out"
    call = [*PROGRAM, "classify", *[str(image)] * 400, "-m", str(model), "-o", str(out), *CPU]
    with subprocess.Popen(call, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        limit = time.monotonic() + 120
        while len(list(out.glob("*_overview.png"))) < 2 and time.monotonic() < limit:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        try:
            message = process.communicate(timeout=240)[1]
        finally:
            process.kill()
    assert process.returncode == 130, message
    assert "all finished results are kept" in message
    table = pd.read_csv(out / "predictions.csv")
    record = json.loads((out / "run.json").read_text())
    assert len(table) + len(record["unfinished"]) == 400
    assert 0 < len(table) < 400
    assert not list(out.glob(".*"))
    for file in out.glob("*.tif"):
        with mil.open_image(file) as whole:
            whole.plane(0)


def test_z_stacks_are_projected(run, model, tmp_path):
    """Two time points of three Z give six rows, and two of their maxima with --z maximum."""
    stack = np.random.default_rng(0).integers(90, 110, (2, 3, 80, 80)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "s.tif", stack, imagej=True, metadata={"axes": "TZYX"})
    call = ("classify", tmp_path / "s.tif", "-m", model, "-o", tmp_path / "out", "--no-masks", *CPU)
    for more, rows in (((), 6), (("--z", "maximum"), 2)):
        done = run(*call, *more)
        assert done.exit_code == 0
        assert "unlike" in done.stdout
        assert "objects" not in done.stdout  # no masks, no count
        table = pd.read_csv(tmp_path / "out" / "predictions.csv")
        assert len(table) == rows
    flat = mil.classify(mil.load_model(model), mil.open_image(stack.max(1), axes="TYX"), device="cpu")
    np.testing.assert_allclose(table[["score round", "score long"]], flat.scores, rtol=1e-4)
    assert run(*call, "--z", "mean").exit_code == 2


@pytest.mark.slow
def test_demo(run, tmp_path):
    """The demo classifies every shipped image with the shipped model."""
    if not (mil.sample_folder() / "models" / "yeast-sim.zip").exists():
        pytest.fail("sample_data/models/yeast-sim.zip is missing: run tools/make_samples.py yeast")
    result = run("demo", "-o", tmp_path / "demo")
    assert result.exit_code == 0, result.output
    shipped = {path.name.split(".")[0] for path in mil.sample_folder().glob("*.ome.tif")}
    assert {p.name.removesuffix("_overview.png") for p in Path(tmp_path / "demo").glob("*_overview.png")} == shipped


def test_a_plate_is_trained_calibrated_and_evaluated_by_its_layout(run, tmp_path):
    """Four wells of two fields: the model knows the layout's classes, and each field has its row."""
    rng = np.random.default_rng(0)
    wells = {well: rng.normal(100, 5, (2, 96, 96)).astype(np.uint16) for well in ("A/01", "A/02", "B/01", "B/02")}
    plate, layout = write_plate(tmp_path / "p.ome.zarr", wells), tmp_path / "layout.csv"
    layout.write_text("well,label\nA1,control\nA2,drug\nB1,control\nB2,drug\n")
    made, tuned = tmp_path / "m.zip", tmp_path / "t.zip"
    short = ("--epochs", 1, "--epoch-steps", 1, "--patch", 0, "--batch-size", 4, "--b", 0.3)
    done = run("train", plate, "--layout", layout, "-o", made, *short, *CPU)
    assert done.exit_code == 0, done.output
    assert mil.load_model(made).classes == ("control", "drug")
    assert run("calibrate", plate, "--layout", layout, "-m", made, "-o", tuned, "--device", "cpu").exit_code == 0
    done = run("evaluate", plate, "--layout", layout, "-m", tuned, "-o", tmp_path / "out", *CPU)
    assert done.exit_code == 0, done.output
    rows = pd.read_csv(tmp_path / "out" / "predictions.csv")
    assert [Path(file).relative_to(plate).as_posix() for file in rows["file"]] == [
        f"{well}/{field}" for well in wells for field in range(2)
    ]
    assert rows["group"].tolist() == ["A01", "A01", "A02", "A02", "B01", "B01", "B02", "B02"]
    refused = run("train", plate, "-o", made, *short, *CPU)
    assert refused.exit_code == 2
    assert "(--layout)" in refused.output


def test_a_table_of_plates_that_is_not_there_is_refused_also_where_none_is_needed(run, model, tmp_path):
    found = run("classify", tmp_path, "-m", model, "--plates", tmp_path / "plates.csv", "-o", tmp_path / "out")
    assert found.exit_code == 2
    assert "--plates is " in found.output
    assert "plates.csv, which is no file; expected a table with the columns file" in found.output
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("command", "sentence", "shown"), [
    ("train", "name them (option channels)", "name them (--channels)"),
    ("train", "or keep none (option validation: 0)", "or keep none (--validation 0)"),
    ("evaluate", "or keep none (option validation: 0)", "or keep none (--train-validation 0)"),
    ("screen", "with the option pattern=off each file is an image", "with --pattern off each file is an image"),
    ("classify", "option 'tile' is 10, which is too small", "--tile is 10, which is too small"),
    ("classify", 'for example axes="CYX" or axes="TYX"', "for example --axes CYX or --axes TYX"),
    ("classify", "choose one by series=0, ...", "choose one by --series 0, ..."),
    ("classify", "give pixel_size=0.325.", "give --pixel-size 0.325."),
    ("classify", "give pixel_size if you know it.", "give --pixel-size if you know it."),
    ("classify", "/a/series=3.tif and series=3.tif: an option that is not there", None),
    ("classify", "a column pixel_size, which is empty; leave the option out, or set plates", None),
    ("info", "name them (option channels)", None),
])  # fmt: skip
def test_messages_call_options_as_one_types_them(command, sentence, shown):
    before = FLAGS.set(flags_of(get_command(app).commands[command]))
    assert with_flags(sentence) == (shown or sentence)
    FLAGS.reset(before)


def test_every_option_that_a_sentence_names_is_a_flag_of_a_command():
    texts = " ".join(path.read_text("utf-8") for path in Path(mil.__file__).parent.rglob("*.py"))
    named = set(re.findall(r"\(option ([a-z_]+)", texts))
    flags = {flag for command in get_command(app).commands.values() for flag in flags_of(command)}
    assert {"channels", "pattern", "plates"} <= named
    assert {name for name in named if flag_name(name) not in flags} == set()
