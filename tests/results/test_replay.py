"""A recorded classification run again: the same numbers, or a sentence that says why not."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
from typer.testing import CliRunner

import napari_milcnn as mil
from conftest import SMALL, noise
from napari_milcnn.cli.app import app
from napari_milcnn.errors import ImageError, ModelError, OptionsError, OutputError, ResumeError
from napari_milcnn.images.open import ImageReading
from napari_milcnn.inference.evidence import EvidenceMaker
from napari_milcnn.options import MaskOptions
from napari_milcnn.results.folder import classify_files
from napari_milcnn.results.read import read_results
from napari_milcnn.results.record import classification_record, versions
from napari_milcnn.results.replay import replay, resume_run
from napari_milcnn.results.write import write_json

TABLES = ("predictions.csv", "objects.csv")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Save an untrained model of the classes round and long, and return its path."""
    model = mil.new_model(["round", "long"], ["DNA"], **SMALL).with_card(
        normalise="training", mean=(100.0,), std=(30.0,)
    )
    return model.save(tmp_path_factory.mktemp("model") / "m.zip")


@pytest.fixture
def model(saved, tmp_path):
    """Load that model from a file of its own."""
    return mil.load_model(shutil.copy(saved, tmp_path))


@pytest.fixture
def stack(tmp_path):
    """Write noise as a Z stack of three planes whose file does not say so."""
    tifffile.imwrite(tmp_path / "a.tif", noise(3, 90, 100), photometric="minisblack", metadata=None)
    return tmp_path / "a.tif"


@pytest.fixture
def record(model, stack, tmp_path):
    """Classify with every kind of option changed and return the record."""
    reading = ImageReading(axes="ZYX", channels=("DNA",), pixel_size=0.5, z="maximum")
    masks = {"threshold": "q0.5", "class_thresholds": {"long": 0.4}, "present": 0, "min_size": 3}
    options = {"foreground": {"method": "local", "split": 0.0}, "device": "cpu", "match_pixel_size": False}
    list(
        classify_files(model, [stack], tmp_path / "out", reading=reading, mask_options=masks, kind="object", **options)
    )
    return tmp_path / "out" / "run.json"


@pytest.fixture
def planned(model, stack, tmp_path):
    """Write the record of a classification that was never run, and return its path."""
    record = classification_record(
        EvidenceMaker(model, device="cpu"), [stack], classes=["long"], reading=ImageReading("ZYX"),
        mask_options=MaskOptions(),
    )  # fmt: skip
    write_json(tmp_path / "planned" / "run.json", record)
    return tmp_path / "planned" / "run.json"


@pytest.fixture
def run():
    """Call the command line in this process."""
    return lambda *arguments: CliRunner().invoke(app, [str(argument) for argument in arguments])


def changed(record, **changes):
    """Write a record with some of its entries changed, beside it, and return its path."""
    path = record.with_name("changed.json")
    write_json(path, json.loads(record.read_text()) | changes)
    return path


def assert_equal_results(one: Path, other: Path):
    """Compare folders: the same files, with equal tables, labels and class maps."""
    assert {path.name for path in one.iterdir()} == {path.name for path in other.iterdir()}
    for name in TABLES:
        assert (one / name).read_bytes() == (other / name).read_bytes()
    for name in ("a_labels.ome.tif", "a_maps.ome.tif"):
        np.testing.assert_array_equal(tifffile.imread(one / name), tifffile.imread(other / name))


def test_a_replay_gives_the_same_numbers(record, tmp_path):
    """Tables, labels and maps, and the replay of the replay; the record says the same but for what is new in it."""
    steps = list(replay(record, tmp_path / "again"))
    assert steps[-1].result.error == ""
    assert_equal_results(record.parent, tmp_path / "again")
    list(replay(tmp_path / "again" / "run.json", tmp_path / "third"))
    assert_equal_results(record.parent, tmp_path / "third")
    assert len(pd.read_csv(tmp_path / "third" / "objects.csv")) > 0
    first, third = (json.loads((path / "run.json").read_text()) for path in (record.parent, tmp_path / "third"))
    same = ("format", "model", "options", "versions", "device", "files", "unfinished")
    assert {key: first[key] for key in same} == {key: third[key] for key in same}


def test_without_masks_as_it_was(model, stack, tmp_path):
    """What made no masks makes none again."""
    list(classify_files(model, [stack], tmp_path / "out", reading=ImageReading("ZYX"), masks=False, kind="class_map"))
    list(replay(tmp_path / "out" / "run.json", tmp_path / "again"))
    assert not (tmp_path / "again" / "objects.csv").exists()
    assert (tmp_path / "out" / TABLES[0]).read_bytes() == (tmp_path / "again" / TABLES[0]).read_bytes()


def test_some_planes_are_run_again_alone(model, stack, tmp_path):
    """The second of three: one row, maps and masks of three planes of which two are empty, and the record says so."""
    planes = {stack: [1]}
    list(classify_files(model, [stack], tmp_path / "out", reading=ImageReading("ZYX"), planes=planes,
                mask_options={"threshold": "q0.5", "present": 0}))  # fmt: skip
    assert json.loads((tmp_path / "out" / "run.json").read_text())["planes"] == [[1]]
    list(replay(tmp_path / "out" / "run.json", tmp_path / "again"))
    assert_equal_results(tmp_path / "out", tmp_path / "again")
    assert pd.read_csv(tmp_path / "again" / "predictions.csv")["z"].tolist() == [1]
    assert set(pd.read_csv(tmp_path / "again" / "objects.csv")["z"]) == {1}
    labels = tifffile.imread(tmp_path / "again" / "a_labels.ome.tif")
    assert labels.any((1, 2, 3)).tolist() == [False, True, False]
    (whole,) = [step.result for step in classify_files(model, [stack], tmp_path / "all", reading=ImageReading("ZYX"))
                if step.result]  # fmt: skip
    (some,) = [step.result for step in replay(tmp_path / "out" / "run.json", tmp_path / "again") if step.result]
    np.testing.assert_allclose(some.prediction.scores, whole.prediction.scores[[1]], atol=1e-6)


def test_a_record_of_all_planes_of_an_older_version(planned, tmp_path):
    """A record of format 1 names no planes: all of them are run."""
    record = json.loads(planned.read_text())
    del record["planes"], record["names"]
    write_json(planned, record | {"format": 1})
    (result,) = [step.result for step in replay(planned, tmp_path / "again") if step.result]
    assert len(result.prediction.planes) == 3
    with pytest.raises(OptionsError, match=r"lists planes for 2 images but has 1 images; expected the run\.json"):
        list(replay(changed(planned, planes=[None, [1]]), tmp_path / "again"))


def test_own_objects_and_one_class_are_recorded(model, stack, tmp_path, monkeypatch):
    """Typed relative to another folder, the image, the model, the label image and the class are found again."""
    tifffile.imwrite(
        tmp_path / "own.tif", np.repeat(np.arange(3, dtype=np.uint8), 30)[:, None] * np.ones(100, np.uint8)
    )
    monkeypatch.chdir(tmp_path)
    loaded = mil.load_model("m.zip")
    reading = ImageReading("ZYX", z="maximum")
    list(classify_files(loaded, [Path("a.tif")], Path("out"), reading=reading, objects=Path("own.tif"),
                        classes=["long"], mask_options={"threshold": 0.0, "present": 0.0}))  # fmt: skip
    monkeypatch.chdir("/")
    list(replay(tmp_path / "out" / "run.json", tmp_path / "again"))
    tables = [pd.read_csv(tmp_path / folder / "objects.csv") for folder in ("out", "again")]
    assert tables[0]["area_px"].tolist() == [3000, 3000]
    assert set(tables[0]["class"]) == {"long"}
    pd.testing.assert_frame_equal(tables[0].drop(columns="file"), tables[1].drop(columns="file"))


def test_the_chosen_precision_is_recorded(model):
    """For auto, the record says float32 or bfloat16: timing decides, and may decide differently next time."""
    maker = EvidenceMaker(model, device="cpu")
    record = classification_record(maker, [], classes=model.classes)
    assert maker.options.precision == "auto"
    assert record["options"]["evidence"]["precision"] == str(maker.classifier.inference.choice.precision)[6:]


def test_a_missing_image_is_a_failed_row(planned, stack, tmp_path):
    """As in any classification."""
    stack.unlink()
    (result,) = [step.result for step in replay(planned, tmp_path / "again") if step.result]
    assert "there is no such file" in result.error
    assert "a.tif" in pd.read_csv(tmp_path / "again" / "predictions.csv").loc[0, "error"]


@pytest.mark.skipif(os.name == "nt", reason="file names are text there")
def test_undecodable_file_names_are_kept(planned, stack, tmp_path):
    """Bytes that are not UTF-8 in an image's name."""
    name = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.tif"))
    stack.rename(name)
    (result,) = [r for s in replay(changed(planned, files=[str(name)]), tmp_path / "again") if (r := s.result)]
    assert result.error == ""
    name.unlink()
    (result,) = [r for s in replay(changed(planned, files=[str(name)]), tmp_path / "third") if (r := s.result)]
    assert "_ff.tif: there is no such file" in pd.read_csv(tmp_path / "third" / "predictions.csv").loc[0, "error"]


def test_an_image_that_was_not_a_file_is_refused(model, tmp_path):
    """A record of a layer in memory is written, and says why it cannot be run again."""
    record = classification_record(
        EvidenceMaker(model, device="cpu"), [None], classes=["long"], mask_options=MaskOptions()
    )
    assert record["files"] == [None]
    write_json(tmp_path / "run.json", record)
    with pytest.raises(ImageError, match="an image in it was a layer in memory, not a file; save the image"):
        list(replay(tmp_path / "run.json", tmp_path / "again"))


def test_a_changed_model_is_refused(record, model, tmp_path):
    """The file was written again with another card: the message names both digests and --model."""
    other = mil.load_model(model.with_card(description="another").save(model.path))
    with pytest.raises(ModelError) as caught:
        list(replay(record, tmp_path / "again"))
    assert other.digest in str(caught.value)
    assert model.digest in str(caught.value)
    assert "(command line: --model)" in str(caught.value)
    list(replay(record, tmp_path / "again", model))
    assert_equal_results(record.parent, tmp_path / "again")


def test_a_model_that_is_gone(record, model, tmp_path):
    """It can be named elsewhere; a model that was never saved cannot be found by the record."""
    model.path.rename(tmp_path / "moved.zip")
    with pytest.raises(ModelError, match=r"needs the model .*m.zip, which is missing; give its file by model= "):
        list(replay(record, tmp_path / "again"))
    list(replay(record, tmp_path / "again", mil.load_model(tmp_path / "moved.zip")))
    unsaved = changed(record, model=json.loads(record.read_text())["model"] | {"path": None})
    with pytest.raises(ModelError, match="needs a model that was never saved; give its file"):
        list(replay(unsaved, tmp_path / "again"))


def test_a_shipped_model_is_found_by_its_name(planned, tmp_path):
    """Wherever the installation has moved to."""
    shipped = mil.load_model("nuclei")
    found = {"path": "/elsewhere/nuclei.zip", "name": "nuclei", "sha256": shipped.digest}
    options = json.loads(planned.read_text())["options"]
    options |= {"classes": shipped.classes[:1], "masks": None}
    options["reading"] |= {"channels": list(shipped.channels), "pixel_size": shipped.pixel_size}
    steps = list(replay(changed(planned, model=found, options=options), tmp_path / "again"))
    assert steps[-1].result.error == ""


def test_other_versions_give_a_warning(planned, stack, tmp_path):
    """One sentence names all of them; equal versions give no warning."""
    stack.unlink()
    warnings: list[str] = []
    list(replay(planned, tmp_path / "again", on_warning=warnings.append))
    assert warnings == []
    older = changed(planned, versions=versions() | {"torch": "0.1", "gone": "2"})
    list(replay(older, tmp_path / "again", on_warning=warnings.append))
    (sentence,) = warnings
    assert f"torch 0.1 (here {versions()['torch']}), gone 2 (here not installed); numbers may differ" in sentence


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            b"",
            r"run.json is not a JSON record \(Expecting value.*\); expected the run.json that a classification wrote",
        ),
        (b"{'format': 1}", "is not a JSON record"),
        (b"\xff\xfe", "is not a JSON record"),
        (b"[" * 100_000, r"is not a JSON record \(it is nested too deeply\)"),
        (b"[]", r"is not a JSON record \(it is not a JSON object\)"),
        (b'{"epochs": 3}', "has no format number; expected the run.json that a classification wrote"),
        (b'{"format": 3}', "is a record of format 3, but this version reads formats up to 2; update napari-milcnn"),
        (b'{"format": 1}', "cannot be run again: option 'model' is missing; option 'options' is missing; .*unchanged"),
    ],
)
def test_files_that_are_not_records(tmp_path, text, message):
    """What was found, and what was expected."""
    (tmp_path / "run.json").write_bytes(text)
    with pytest.raises(OptionsError, match=message):
        list(replay(tmp_path / "run.json", tmp_path / "again"))
    assert not (tmp_path / "again").exists()


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        ("evidence", {"kind": "hunch"}, "option 'options.evidence.kind' is 'hunch'"),
        ("evidence", {"wavelength": 5}, "there is no option 'options.evidence.wavelength'"),
        ("masks", {"threshold": "high"}, "option 'options.masks.threshold' is 'high': expected auto, otsu"),
        (
            "masks",
            {"class_thresholds": {"flat": 0.5}},
            "a threshold is given for 'flat', which the model does not know",
        ),
        ("reading", {"pixel_size": -1}, "pixel_size is -1.0; expected µm per pixel"),
        ("reading", {"z": "mean"}, "option 'options.reading.z' is 'mean'"),
        ("reading", {"colour": "red"}, "option 'options.reading.colour' is 'red': Unexpected"),
    ],
)
def test_edited_records_are_refused(planned, tmp_path, part, change, message):
    """Each impossible or unknown value with its name."""
    options = json.loads(planned.read_text())["options"]
    options[part] |= change
    with pytest.raises(OptionsError, match=message):
        list(replay(changed(planned, options=options), tmp_path / "again"))


def test_a_record_that_is_not_there(tmp_path):
    """No file, and a folder."""
    for path in (tmp_path / "run.json", tmp_path):
        with pytest.raises(OptionsError, match=r"cannot be read \(.*\); expected the run.json that a classification"):
            list(replay(path, tmp_path / "again"))


def test_command_line(run, record, model, tmp_path):
    """Results go beside the record's folder, or where --out says; --device and --json go with it."""
    done = run("classify", "--replay", record)
    assert done.exit_code == 0, done.output
    assert_equal_results(record.parent, tmp_path / "out-replay")
    model.path.rename(tmp_path / "moved.zip")
    call = ("classify", "--replay", record, "-o", tmp_path / "b", "--device", "cpu")
    assert run(*call).exit_code == 2
    done = run(*call, "-m", tmp_path / "moved.zip", "--json")
    assert json.loads(done.stdout)["model"]["sha256"] == model.digest
    assert_equal_results(record.parent, tmp_path / "b")
    assert "--device is 'tpu'" in run(*call[:-1], "tpu", "-m", tmp_path / "moved.zip").stderr
    assert "has the digest" in run(*call, "-m", "nuclei").stderr


def test_command_line_warns_and_fails_as_ever(run, planned, stack):
    """Other versions are one warning; an image that is gone gives status 1."""
    stack.unlink()
    done = run("classify", "--replay", changed(planned, versions={"torch": "0.1"}))
    assert done.exit_code == 1
    assert "warning: " in done.stderr
    assert "torch 0.1 (here" in done.stderr


@pytest.mark.parametrize(
    ("more", "named"),
    [
        (("a.tif",), "IMAGE"),
        (("--threshold", "otsu", "--class", "long"), "--class, --threshold"),
        (("--no-masks",), "--masks"),
        (("--axes", "YX"), "--axes"),
        (("--precision", "auto"), "--precision"),
        (("--class-threshold", "a=1"), "--class-threshold"),
    ],
)
def test_options_of_the_record_are_refused_beside_it(run, more, named):
    """Images and options beside --replay are refused, also where they are the defaults."""
    done = run("classify", *more, "--replay", "run.json")
    assert done.exit_code == 2
    assert f"leave out {named}: only --out, --model, --device and --json can be given with it" in done.stderr


def test_without_replay_image_model_and_out_are_needed(run, stack, model, tmp_path):
    """Each missing one gives the same sentence."""
    whole = {"image": (stack,), "model": ("-m", model.path), "out": ("-o", tmp_path / "o")}
    for missing in whole:
        done = run("classify", *(part for name, given in whole.items() if name != missing for part in given))
        assert done.exit_code == 2
        assert "to classify, give IMAGE..., --model and --out, or --replay with a run.json" in done.stderr


def write_fields(folder, channels=("1", "2")):
    """Write two fields of one file per channel as ImageXpress names them; the second lacks a channel."""
    folder.mkdir()
    for site, channel in (("s1", "1"), ("s1", "2"), ("s2", "1")):
        tifffile.imwrite(folder / f"p_B03_{site}_w{channel}.tif", noise(90, 100, seed=int(channel)))
    return folder


def test_fields_of_one_file_per_channel_have_one_row_and_run_again(model, tmp_path):
    folder, said = write_fields(tmp_path / "plate"), []
    reading = ImageReading(channels=("other", "DNA"))
    results = [step.result for step in classify_files(model, [folder], tmp_path / "out", reading=reading,
                                                      on_warning=said.append) if step.result]  # fmt: skip
    assert "one file per channel" in said[0]
    assert "p_B03_s2_w2.tif is missing" in results[1].error
    table = pd.read_csv(tmp_path / "out" / "predictions.csv")
    assert table["file"].tolist() == [str(folder / f"p_B03_s{i}_{{w1,w2}}.tif") for i in (1, 2)]
    assert table["name"].tolist() == ["p_B03_s1", "p_B03_s2"]
    whole = mil.open_image([folder / "p_B03_s1_w1.tif", folder / "p_B03_s1_w2.tif"], channels=["other", "DNA"])
    expected = mil.classify(model, whole).scores[0]
    np.testing.assert_allclose(table.loc[0, ["score round", "score long"]].to_numpy(float), expected, atol=1e-4)
    list(replay(tmp_path / "out" / "run.json", tmp_path / "again"))
    again = pd.read_csv(tmp_path / "again" / "predictions.csv")
    pd.testing.assert_frame_equal(again.drop(columns="error"), table.drop(columns="error"))
    found = read_results(tmp_path / "out")
    assert found.files[table.loc[0, "file"]] == Path(table.loc[0, "file"])


def test_a_pattern_is_kept_in_the_record(model, tmp_path):
    folder = write_fields(tmp_path / "plate")
    for name, pattern, rows in (("off", "off", 3), ("sites", "p_B03_s{channel}_w{wave}.tif", 2)):
        reading = ImageReading(channels=None if rows == 3 else ("DNA=s1",), pattern=pattern)
        list(classify_files(model, [folder], tmp_path / name, reading=reading))
        record = json.loads((tmp_path / name / "run.json").read_text())
        assert (record["options"]["reading"]["pattern"], len(record["files"])) == (pattern, rows)
        list(replay(tmp_path / name / "run.json", tmp_path / f"{name} again"))
        assert len(pd.read_csv(tmp_path / f"{name} again" / "predictions.csv")) == rows


def test_a_run_that_was_stopped_goes_on_as_its_record_says(model, tmp_path):
    """The folder alone says with which model, images and options; the tables are those of a run in one go."""
    (tmp_path / "images").mkdir()
    for number in range(3):
        tifffile.imwrite(tmp_path / "images" / f"{number}.tif", noise(90, 100, seed=number))
    options = {"mask_options": {"present": 0}, "kind": "object", "device": "cpu"}
    list(classify_files(model, [tmp_path / "images"], tmp_path / "whole", **options))
    steps = classify_files(model, [tmp_path / "images"], tmp_path / "out", **options)
    next(step for step in steps if step.result is not None)
    steps.close()
    assert read_results(tmp_path / "out").unfinished == 2
    done = [step.result.name for step in resume_run(tmp_path / "out") if step.result is not None]
    assert done == ["1", "2"]
    for name in TABLES:
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert read_results(tmp_path / "out").unfinished == 0
    with pytest.raises(ResumeError, match="all of its images are classified"):
        next(resume_run(tmp_path / "out"))


def test_of_several_runs_that_were_stopped_one_that_can_goes_on(model, tmp_path):
    """The last of them needs a model that is gone, which is said; a record that is damaged is named."""
    (tmp_path / "images").mkdir()
    for number in range(2):
        tifffile.imwrite(tmp_path / "images" / f"{number}.tif", noise(90, 100, seed=number))
    out = tmp_path / "out"
    steps = classify_files(model, [tmp_path / "images"], out, masks=False, device="cpu")
    next(step for step in steps if step.result is not None)
    steps.close()
    record = json.loads((out / "run.json").read_text())
    record["model"] |= {"path": str(tmp_path / "gone.zip"), "name": "gone", "sha256": "0" * 64}
    (out / "run-later.json").write_text(json.dumps(record))
    said = []
    assert [step.result.name for step in resume_run(out, said.append) if step.result is not None] == ["1"]
    assert any("gone.zip, which is missing" in sentence for sentence in said)
    (out / "run-later.json").write_text(json.dumps(record))
    with pytest.raises(ModelError, match=r"gone\.zip, which is missing"):
        next(resume_run(out))
    (out / "run-later.json").write_text("{")
    with pytest.raises(OutputError, match=r"run-later\.json"):
        next(resume_run(out))
