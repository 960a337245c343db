"""A run that is killed says so, loses at most the image that it was busy with, and is gone on with to the same end."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest
import tifffile

from conftest import lively_model, noise
from napari_milcnn.errors import OutputError, ResultsError, ResumeError
from napari_milcnn.results import unfinished
from napari_milcnn.results.folder import classify_files
from napari_milcnn.results.read import read_results
from napari_milcnn.results.unfinished import JOURNAL, RunInProgress, fingerprint, settle
from napari_milcnn.results.write import whole_rows

NAMES = "abcd"
TABLES = ("predictions.csv", "objects.csv")


class KillError(BaseException):
    """Stands for kill -9: nothing of the program runs after it."""


@pytest.fixture(scope="module")
def models():
    """Two models of the same classes."""
    return [lively_model(), lively_model().with_card(mean=(80.0, 120.0), name="second")]


@pytest.fixture
def files(tmp_path):
    """Three images, and one in the middle that is none."""
    (tmp_path / "images").mkdir()
    found = [tmp_path / "images" / f"{name}.ome.tif" for name in NAMES]
    for i, file in enumerate(found):
        facts = {"axes": "CYX", "Channel": {"Name": ["GFP", "RFP"]}}
        tifffile.imwrite(file, noise(2, 80, 90, seed=i), metadata=facts)
    found[2].write_bytes(b"II*\0 this is no image")
    return found


@pytest.fixture
def classify(files, tmp_path, monkeypatch):
    """Return a function that classifies the images into a folder, and is killed after some of them, if so wanted."""
    monkeypatch.setattr("napari_milcnn.results.findings.write_overview", lambda path, *_: path.touch())  # slow

    def run(model, out="out", killed_after=None, **options):
        steps = classify_files(model, files, tmp_path / out, **{"mask_options": {"present": 0}, **options})
        done = []
        with monkeypatch.context() as patch:
            for step in steps:
                done += [step.result] if step.result else []
                if len(done) == killed_after:
                    patch.setattr(RunInProgress, "end", lambda *_, **__: None)
                    steps.close()
                    break
        return done

    return run


def contents(folder):
    """Return what is in the files of a folder, hidden ones, too; not of the records, whose times differ."""
    return {
        path.name: tifffile.imread(path).tobytes() if path.suffix == ".tif" else path.read_bytes()
        for path in folder.iterdir()
        if not path.name.startswith("run")
    }


def record(folder):
    """Read the record."""
    return json.loads((folder / "run.json").read_text())


def names(folder):
    """Return the names in predictions.csv."""
    return [line.split(",")[1] for line in (folder / "predictions.csv").read_text().splitlines()[1:]]


@pytest.mark.parametrize("count", [1, 3])
def test_a_killed_run_is_gone_on_with_to_the_same_end(classify, models, files, tmp_path, count):
    """Its record says that it is unfinished, its tables have what is done, and half a row is mended."""
    classify(models[0], "whole")
    classify(models[0], killed_after=count)
    out = tmp_path / "out"
    assert record(out)["finished"] is False
    assert len(record(out)["unfinished"]) == 4
    assert names(out) == list(NAMES[:count])
    for name, half in (*((name, 'half,"a row\n') for name in TABLES), (JOURNAL, '{"name": ')):
        with (out / name).open("a") as file:
            file.write(half)
    told = []
    again = classify(models[0], resume=True, on_warning=told.append)
    done = [name for name in NAMES[:count] if name != "c"]
    assert [one.name for one in again] == [name for name in NAMES if name not in done]  # c failed: it is tried again
    assert told == [f"{len(done)} of 4 images are done already and are left as they are"]
    assert contents(out) == contents(tmp_path / "whole")
    assert record(out)["finished"] is True
    facts, whole = ([{**one, "files": 0, "seconds": 0, "when": 0} for one in record(folder)["images"]]
                    for folder in (out, tmp_path / "whole"))  # fmt: skip
    assert facts == whole
    assert [one.name for one in classify(models[0], resume=True)] == ["c"]
    assert contents(out) == contents(tmp_path / "whole")


def test_a_stopped_run_is_gone_on_with(classify, models, files, tmp_path):
    """Ctrl-C leaves no journal; without an earlier run, resume begins."""
    classify(models[0], "whole", resume=True)
    steps = classify_files(models[0], files, tmp_path / "out", mask_options={"present": 0})
    next(step for step in steps if step.result)
    steps.close()
    assert not (tmp_path / "out" / JOURNAL).exists()
    assert (record(tmp_path / "out")["finished"], len(record(tmp_path / "out")["unfinished"])) == (False, 3)
    assert [one.name for one in classify(models[0], resume=True)] == ["b", "c", "d"]
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


@pytest.mark.parametrize("resumed", [True, False])
def test_a_killed_second_run_mixes_no_two_models(classify, models, tmp_path, resumed):
    """The tables have rows of the second model alone, those of the first wait aside; the end is the same."""
    classify(models[0], "whole")
    classify(models[1], "whole")
    classify(models[0])
    before = contents(tmp_path / "out")
    classify(models[1], killed_after=1)
    out = tmp_path / "out"
    assert names(out) == ["a"]
    assert (out / "predictions.earlier.csv").read_bytes() == before["predictions.csv"]
    assert (out / "objects.earlier.csv").read_bytes() == before["objects.csv"]
    classify(models[1], resume=resumed)
    assert contents(out) == contents(tmp_path / "whole")
    assert [path.name for path in out.glob("run*")] == [path.name for path in (tmp_path / "whole").glob("run*")]
    assert record(out)["model"]["name"] == "second"


def test_rows_come_back_for_images_that_a_stopped_second_run_did_not_reach(classify, models, files, tmp_path):
    """And each record lists the images whose rows are its own, besides those that its run has yet to do."""
    classify(models[0])
    steps = classify_files(models[1], files, tmp_path / "out", mask_options={"present": 0})
    next(step for step in steps if step.result)
    steps.close()
    assert names(tmp_path / "out") == ["b", "c", "d", "a"]
    runs = [json.loads(path.read_text()) for path in sorted((tmp_path / "out").glob("run*.json"))]
    assert {run["model"]["name"]: [one["name"] for one in run["images"]] for run in runs} == {
        models[0].card.name: ["b", "c", "d"], "second": ["a"],
    }  # fmt: skip


@pytest.mark.parametrize("step", range(9))
def test_a_kill_while_tables_are_completed_does_no_harm(classify, models, tmp_path, monkeypatch, step):
    """A kill at any step of `settle`: done again, it comes to the same end."""
    out = tmp_path / "out"
    classify(models[0])
    classify(models[1], killed_after=3)
    shutil.copytree(out, tmp_path / "whole")
    settle(tmp_path / "whole")
    left = step

    def counted(function):
        def call(*arguments, **options):
            nonlocal left
            left -= 1
            if left == -1:
                raise KillError
            return function(*arguments, **options)

        return call

    with monkeypatch.context() as patch:
        for name in ("write_table", "write_record", "replacing"):
            patch.setattr(unfinished, name, counted(getattr(unfinished, name)))
        patch.setattr("pathlib.Path.unlink", counted(unfinished.Path.unlink))
        try:
            settle(out)
        except KillError:
            settle(out)
    assert {name: text for name, text in contents(out).items() if ".draft-" not in name} == contents(tmp_path / "whole")
    assert sorted(path.name for path in out.glob("run*")) == sorted(p.name for p in (tmp_path / "whole").glob("run*"))


def test_a_run_that_was_killed_before_it_began_leaves_the_tables(classify, models, tmp_path, monkeypatch):
    """The copies that were made for it are the tables."""
    classify(models[0])
    before = contents(tmp_path / "out")

    def killed(*_, **__):
        raise KillError

    with monkeypatch.context() as patch:
        patch.setattr(unfinished, "GrowingTable", killed)
        with pytest.raises(KillError):
            classify(models[1])
    settle(tmp_path / "out")
    assert contents(tmp_path / "out") == before


def test_another_model_or_option_is_refused(classify, models, tmp_path):
    """The message names each difference; nothing is written."""
    classify(models[0], killed_after=2)
    settle(tmp_path / "out")
    before = contents(tmp_path / "out")
    with pytest.raises(
        ResumeError, match=r"run\.json is the record of another run, which differs in model \(was .*, is"
    ):
        classify(models[1], resume=True)
    with pytest.raises(ResumeError, match=r"differs in masks present \(was 0\.0, is 0\.5\); masks min_size \(was"):
        classify(models[0], resume=True, mask_options={"present": 0.5, "min_size": 7})
    assert contents(tmp_path / "out") == before


def test_images_that_changed_are_refused_or_done_again(classify, models, files, tmp_path):
    """Of two that are done, one has other pixels, and files of the other were removed."""
    classify(models[0], killed_after=2)
    shutil.copyfile(files[3], files[0])
    with pytest.raises(
        ResumeError, match=r"1 image has changed since it was classified, such as .*a\.ome\.tif; .*redo"
    ):
        classify(models[0], resume=True)
    (tmp_path / "out" / "b_maps.ome.tif").unlink()
    assert [one.name for one in classify(models[0], resume=True, redo_changed=True)] == list(NAMES)
    classify(models[0], "whole")
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_results_say_that_they_are_unfinished(classify, models, files, tmp_path):
    """Going on, killed in the middle of a row, stopped, finished; with rows of another model waiting aside."""
    classify(models[0])
    assert read_results(tmp_path / "out").warnings == ("1 of 4 images failed; the column error says why",)
    steps = classify_files(models[1], files, tmp_path / "out", mask_options={"present": 0})
    next(step for step in steps if step.result)
    with (tmp_path / "out" / "predictions.csv").open("a") as file:
        file.write(f"{files[1]},b,0,")
    going_on, aside = read_results(tmp_path / "out").warnings
    assert re.search(r"process \d+ on .* is writing to this folder: 3 of its images are not classified yet", going_on)
    assert aside.startswith("rows of earlier results that this run classifies again are in the tables *.earlier.csv")
    shutil.copytree(tmp_path / "out", tmp_path / "killed")
    found = read_results(tmp_path / "killed")
    assert found.warnings[0].startswith(
        "the run was killed before 3 of its images were classified; classify with --res"
    )
    assert found.table["name"].tolist() == ["a"]
    steps.close()
    found = read_results(tmp_path / "out").warnings
    assert found[1] == "the run was stopped before 3 of its images were classified; classify with --resume to go on"
    assert found[2] == (
        "this folder holds results of 2 models, MIL-CNN (3 images) and second (1 image): do not compare images of one "
        "with those of another"
    )
    classify(models[1])
    assert len(read_results(tmp_path / "out").warnings) == 1
    classify_files_of_b = classify_files(models[1], files[1:2], tmp_path / "out", mask_options={"present": 0.5})
    list(classify_files_of_b)
    assert "classified with different options" in read_results(tmp_path / "out").warnings[-1]


def test_models_of_other_classes_in_one_folder_are_said(classify, models, files, tmp_path):
    """Their rows have no scores for the classes of the other: that is not half a table."""
    classify(models[0])
    other = lively_model(classes=("x", "y"))
    list(classify_files(other, files[:1], tmp_path / "out"))
    with pytest.raises(ResultsError, match="several models whose classes differ; classify into one folder for each"):
        read_results(tmp_path / "out")


def test_damaged_journals_are_said(classify, models, tmp_path):
    classify(models[0], killed_after=1)
    for text in ("{}\n", "3\n", "\n", "", "[" * 100_000 + "\n", "\0\n"):
        (tmp_path / "out" / JOURNAL).write_text(text)
        with pytest.raises(OutputError, match=r"unfinished\.jsonl is not the journal of a classification"):
            classify(models[0], resume=True)
        with pytest.raises(ResultsError, match=r"unfinished\.jsonl is not the journal of a classification"):
            read_results(tmp_path / "out")


def test_a_last_row_that_was_cut_is_found():
    """A line break between quotes ends no row."""
    whole = b'a,b\n1,"two\nlines"\n'
    for cut in range(len(whole) + 1):
        assert whole_rows(whole[:cut]) == (whole if cut == len(whole) else b"a,b\n" if cut > 3 else b"")
    assert whole_rows(b"a\r\nb\r\nc") == b"a\r\nb\r\n"


def test_fingerprints(tmp_path):
    """The bytes count, not the time; of a folder every file."""
    (tmp_path / "a.zarr" / "0").mkdir(parents=True)
    (tmp_path / "a.zarr" / "0" / "chunk").write_bytes(b"1")
    found = {fingerprint(tmp_path / "a.zarr")}
    (tmp_path / "a.zarr" / "0" / "chunk").touch()
    assert found == {fingerprint(tmp_path / "a.zarr")}
    (tmp_path / "a.zarr" / "0" / "chunk").write_bytes(b"2")
    found.add(fingerprint(tmp_path / "a.zarr"))
    (tmp_path / "a.zarr" / "more").touch()
    found.add(fingerprint(tmp_path / "a.zarr"))
    assert len(found) == 3
    assert fingerprint(tmp_path / "missing") == ""
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "endless.tif")
        assert fingerprint(tmp_path / "endless.tif") == ""


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL")
@pytest.mark.slow
def test_kill_9_of_the_command_line(models, files, tmp_path):
    """The tables are behind the files by one image at most, no lock is left that blocks, and the end is the same."""
    shutil.copyfile(files[3], files[2])
    model, copies = models[0].save(tmp_path / "m.zip"), []
    for i in range(24):
        copies.append(tmp_path / f"{i:02}.ome.tif")
        shutil.copyfile(files[i % 4], copies[-1])
    call = [sys.executable, "-m", "napari_milcnn", "classify", *map(str, copies), "-m", str(model), "--present", "0",
            "--device", "cpu"]  # fmt: skip
    out = tmp_path / "out"
    with subprocess.Popen([*call, "-o", str(out)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None and len(list(out.glob("*_overview.png"))) < 3:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    whole = whole_rows((out / "predictions.csv").read_bytes()).count(b"\n") - 1
    assert 0 <= len(list(out.glob("*_overview.png"))) - whole <= 1
    for folder in (out, tmp_path / "whole"):
        list(classify_files(models[0], copies, folder, mask_options={"present": 0}, device="cpu", resume=True))
    assert contents(out) == contents(tmp_path / "whole")


def test_a_large_image_is_told_by_its_first_bytes_sizes_and_times(tmp_path, monkeypatch):
    """However many small files it has, not all of them are read."""
    monkeypatch.setattr("napari_milcnn.results.unfinished._LARGE", 3 << 20)
    for i in range(8):
        (tmp_path / f"{i}").write_bytes(bytes(1 << 19))
    before, when = fingerprint(tmp_path), (tmp_path / "7").stat()
    (tmp_path / "7").write_bytes(bytes([1]) * (1 << 19))
    os.utime(tmp_path / "7", ns=(when.st_atime_ns, when.st_mtime_ns))
    assert fingerprint(tmp_path) == before
    os.utime(tmp_path / "7", ns=(when.st_atime_ns, when.st_mtime_ns + 1))
    assert fingerprint(tmp_path) != before


def test_the_hash_in_the_record_is_that_of_the_file_whose_pixels_were_read(tmp_path):
    """The image is replaced while it is classified: a run that goes on notices that it has changed."""
    image, other = tmp_path / "a.ome.tif", tmp_path / "other.tif"
    facts = {"axes": "CYX", "Channel": {"Name": ["GFP", "RFP"]}}
    for file, seed in ((image, 1), (other, 2)):
        tifffile.imwrite(file, noise(2, 100, 100, seed=seed), ome=True, metadata=facts)
    was = fingerprint(image)
    for step in classify_files(lively_model(), [image], tmp_path / "out", device="cpu"):
        if step.share > 0 and other.exists():
            other.replace(image)
    record = json.loads((tmp_path / "out" / "run.json").read_text("utf-8"))
    assert record["images"][0]["sha256"] == was != fingerprint(image)
