"""The commands cells, next and check give what the Python functions of the same names give."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import tifffile
from typer.testing import CliRunner

import napari_milcnn as mil
from conftest import delta_model, write_plate
from napari_milcnn.cli.app import app


@pytest.fixture
def run():
    """Call the command line in this process."""
    return lambda *arguments: CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def model(tmp_path):
    """Save a model whose class c0 is a bright channel c0, and c1 a bright channel c1."""
    return delta_model(2).save(tmp_path / "model.zip")


def write(path, bright):
    """Write an image of 80 px with a bright square in one of two channels, or in none."""
    pixels = np.zeros((2, 80, 80), np.uint8)
    if bright is not None:
        pixels[bright, 30:50, 30:50] = 3
    tifffile.imwrite(path, pixels, ome=True, metadata={"axes": "CYX", "Channel": {"Name": ["c0", "c1"]}})
    return path


@pytest.fixture
def folder(tmp_path):
    """Five images, two of them labelled in labels.csv, one of these wrongly."""
    (tmp_path / "images").mkdir()
    for name, bright in (("a", 0), ("b", 1), ("c", 1), ("d", None), ("e", 0)):
        write(tmp_path / "images" / f"{name}.ome.tif", bright)
    (tmp_path / "images" / "labels.csv").write_text("file,label\na.ome.tif,c0\nb.ome.tif,c0\n")
    return tmp_path / "images"


def test_cells(run, model, folder, tmp_path):
    """One row a cell, equal to `classify_cells`; with --json a summary and nothing else."""
    labels = np.zeros((80, 80), np.uint16)
    labels[32:48, 32:48], labels[5:10, 60:70] = 7, 9
    tifffile.imwrite(tmp_path / "cells.tif", labels)
    image, out = folder / "a.ome.tif", tmp_path / "cells.csv"
    done = run("cells", image, "--objects", tmp_path / "cells.tif", "--model", model, "--out", out, "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["cells"] == 2
    table = pd.read_csv(out)
    assert table["file"].tolist() == [str(image)] * 2
    expected = mil.classify_cells(mil.load_model(model), image, labels)
    pd.testing.assert_frame_equal(table.drop(columns="file"), expected, check_dtype=False, rtol=1e-4)


def test_cells_of_another_image_are_refused(run, model, folder, tmp_path):
    tifffile.imwrite(tmp_path / "cells.tif", np.ones((50, 50), np.uint16))
    done = run("cells", folder / "a.ome.tif", "--objects", tmp_path / "cells.tif", "--model", model, "--out", "c.csv")
    assert done.exit_code == 2
    assert "the labels of cells.tif are 50 x 50 px" in done.output


def test_next(run, model, folder, tmp_path):
    """Images without a label, in the order of `rank_images`; the one that cannot be read stands last."""
    (folder / "e.ome.tif").write_bytes(b"no image")
    out = tmp_path / "next.csv"
    done = run("next", folder, "--model", model, "--out", out)
    assert done.exit_code == 1
    table = pd.read_csv(out, keep_default_na=False)
    names = [path.rpartition("/")[2] for path in table["file"].str.replace("\\", "/")]
    assert sorted(names[:2]) == ["c.ome.tif", "d.ome.tif"]
    assert names[2] == "e.ome.tif"
    assert "e.ome.tif" in table["error"][2]
    assert table["rank"].tolist() == [1, 2, 3]
    rows = mil.read_labels(folder / "labels.csv")
    assert len(rows.images) == 2  # what is looked at is not written
    printed = json.loads(run("next", folder, "--model", model, "--json").stdout)
    assert [row["file"] for row in printed] == table["file"].tolist()


def test_next_of_a_folder_that_is_not_there(run, model, tmp_path):
    done = run("next", tmp_path / "none", "--model", model)
    assert done.exit_code == 2
    assert "does not exist; expected a folder of images" in done.output


def test_check(run, model, folder, tmp_path):
    """The wrong label is found, as `check_labels` finds it."""
    out = tmp_path / "check.csv"
    done = run("check", folder / "labels.csv", "--model", model, "--out", out)
    assert done.exit_code == 0, done.output
    table = pd.read_csv(out)
    *_, last = mil.check_labels(mil.read_labels(folder / "labels.csv"), mil.load_model(model))
    assert table["finding"].tolist() == [one.sentence for one in last.result]
    assert table.loc[table["kind"] == "mislabel", "files"].tolist() == ["b.ome.tif"]


def test_nothing_to_find(run, folder):
    """Without a model the message names the limits of the check."""
    (folder / "labels.csv").write_text("file,label\na.ome.tif,c0\nb.ome.tif,c1\n")
    done = run("check", folder / "labels.csv")
    assert done.exit_code == 0
    assert "no problems found" in done.stderr
    assert "without --model, only identical images and groups were checked" in done.stderr


def test_check_names_what_the_model_could_not_compare(run, model, folder):
    """An image that cannot be read, and a label that the model does not know."""
    (folder / "labels.csv").write_text("file,label\na.ome.tif,c0\nb.ome.tif,c1\nc.ome.tif,other\n")
    (folder / "b.ome.tif").write_bytes(b"no image")
    done = run("check", folder / "labels.csv", "--model", model, "--json")
    assert [one["kind"] for one in json.loads(done.stdout)] == ["unread"]
    assert "1 of 3 images were not compared with the model" in done.stderr


@pytest.mark.parametrize("name", ["labels.csv", "a.ome.tif", "table.xlsx", ""])
def test_tables_are_not_written_over_what_is_read(run, model, folder, name):
    """The table of labels, an image and a folder stay as they are, and nothing is computed."""
    (folder / "cells.tif").write_bytes(b"no image")
    before = {path: path.read_bytes() for path in folder.iterdir()}
    out = folder / name
    calls = [("next", folder, "--model", model), ("check", folder / "labels.csv")]
    if name != "labels.csv":
        calls.append(("cells", folder / "a.ome.tif", "--objects", folder / "cells.tif", "--model", model))
    for call in calls:
        done = run(*call, "--out", out)
        assert done.exit_code == 2
        assert f"--out is {out}" in done.stderr
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_next_on_a_plate_names_the_fields_and_the_failures(run, model, tmp_path):
    """Fields of several wells have the same file names, so they are named with their wells."""
    wells = {well: np.full((1, 80, 80), i, np.uint16) for i, well in enumerate(("A/01", "B/02"))}
    plate = write_plate(tmp_path / "p.ome.zarr", wells)
    done = run("next", plate, "--model", delta_model(1).save(tmp_path / "one.zip"), "--channels", "c0")
    assert done.exit_code == 0, done.output
    assert "p.ome.zarr/A/01/0" in done.stdout
    assert "p.ome.zarr/B/02/0" in done.stdout
    done = run("next", plate, "--model", model, "--channels", "c0")
    assert done.exit_code == 1
    assert done.stderr.count("but the model needs c0, c1") == 2
    assert "nan" not in done.stdout


def test_next_of_labelled_images(run, model, folder):
    (folder / "labels.csv").write_text("file,label\n" + "".join(f"{name}.ome.tif,c0\n" for name in "abcde"))
    done = run("next", folder, "--model", model)
    assert (done.exit_code, done.stdout) == (0, "")
    assert "every image has a label" in done.stderr


@pytest.mark.parametrize("labels", [
    np.full((80, 80), 0.5, np.float32), -np.ones((80, 80), np.int16),
    np.full((80, 80), 2**25, np.uint32),
])  # fmt: skip
def test_cells_that_are_not_labels_are_refused(run, model, folder, tmp_path, labels):
    tifffile.imwrite(tmp_path / "cells.tif", labels)
    done = run(
        "cells", folder / "a.ome.tif", "--objects", tmp_path / "cells.tif", "-m", model, "-o", tmp_path / "c.csv"
    )
    assert done.exit_code == 2
    assert "cells.tif has" in done.stderr
    assert not (tmp_path / "c.csv").exists()


def test_no_cells(run, model, folder, tmp_path):
    """A label image without objects gives a table without rows, with all its columns."""
    tifffile.imwrite(tmp_path / "cells.tif", np.zeros((80, 80), np.uint16))
    done = run(
        "cells", folder / "a.ome.tif", "--objects", tmp_path / "cells.tif", "-m", model, "-o", tmp_path / "c.csv"
    )
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("0 cells; written to")
    assert list(pd.read_csv(tmp_path / "c.csv")) == [
        "file",
        "plane",
        "label",
        "y",
        "x",
        "area_px",
        "top",
        "p c0",
        "p c1",
    ]


def test_version(run):
    assert run("--version").stdout.strip() == mil.__version__
