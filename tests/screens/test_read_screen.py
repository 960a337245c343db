"""A screen read back while it runs and when it is finished: what is there, what waits, and the masks of each field."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from screen_plates import CHANNELS, plate_pixels, write_layout, write_named, write_series, write_zarr_plate
from typer.testing import CliRunner

from napari_milcnn.cli.app import app
from napari_milcnn.errors import ResultsError
from napari_milcnn.figures.plates import Blank
from napari_milcnn.images.open import ImageReading, open_image
from napari_milcnn.output_lock import locked_folder
from napari_milcnn.results.layout import with_layout
from napari_milcnn.results.moved_images import with_images
from napari_milcnn.screens import features, record
from napari_milcnn.screens.likeness import wells_like
from napari_milcnn.screens.opened_wells import wells_of_results
from napari_milcnn.screens.parts import part_folder, wells_of_steps
from napari_milcnn.screens.read import OpenedScreen, growth_of, open_results, read_screen
from napari_milcnn.screens.run import screen

NAMES = "plate_{well}_s{site}_w{channel}.tif"
PIXELS = plate_pixels(72)
READING = ImageReading(channels=CHANNELS)
CPU = {"device": "cpu", "precision": "float32"}


@pytest.fixture(scope="module")
def model(saved_model):
    return saved_model


@pytest.fixture(scope="module")
def finished(model, tmp_path_factory):
    """Run a screen of four wells of two sites, with a layout; return its folder."""
    folder = tmp_path_factory.mktemp("screen")
    source = write_named(folder / "plate", PIXELS, NAMES)
    layout = write_layout(folder / "layout.csv")
    with layout.open("a") as file:
        file.write("C01,drug,1,\n")  # a well without an image
    wells_of_steps(screen(model, source, folder / "out", layout=layout, reading=READING, **CPU))
    return folder / "out"


@pytest.fixture
def running(finished, tmp_path):
    """Copy the screen as it was after two of its four wells."""
    out = tmp_path / "out"
    shutil.copytree(finished, out)
    record = json.loads((out / "run.json").read_text())
    (out / "run.json").write_text(json.dumps(record | {"finished": False}))
    (tmp_path / "later").mkdir()
    for well in ("B01", "B02"):
        shutil.move(part_folder(out, "plate", well), tmp_path / "later" / well)
    for name in ("predictions.csv", "predictions.parquet", "wells.parquet", "features.parquet"):
        (out / name).unlink()
    return out


def comes_in(out, well):
    """Put a well to those that are done."""
    shutil.move(out.parent / "later" / well, part_folder(out, "plate", well))


def test_a_finished_screen_has_all_its_wells_and_those_without_an_image(finished):
    found = open_results(finished)
    assert isinstance(found, OpenedScreen)
    assert (found.growth.finished, found.growth.done, found.growth.total) == (True, 4, 4)
    assert len(found.table) == 8
    assert list(found.features["well"]) == ["A01", "A02", "B01", "B02"]
    assert {why: list(wells["well"]) for why, wells in found.absent.items()} == {Blank.MISSING: ["C01"]}
    assert {str(found.table[name].dtype) for name in (*found.columns, "margin", "unlike")} == {"float64"}
    wells = wells_of_results(found)
    assert {"treatment", "dose", "control", "z a", "quality", "empty fields"} <= set(wells)
    assert list(wells["fields"]) == [2, 2, 2, 2]
    assert not any("so far" in text for text in found.warnings)
    assert isinstance(open_results(finished / "predictions.csv"), OpenedScreen)


def test_a_running_screen_shows_the_wells_that_are_done_and_says_so(running):
    found = open_results(running)
    assert sorted(set(found.table["well"])) == ["A01", "A02"]
    assert found.growth.words == "2 of 4 wells so far"
    assert not found.growth.finished
    assert found.warnings[0].startswith("2 of 4 wells so far; nobody is at work on the others")
    assert sorted(found.absent[Blank.PENDING]["well"]) == ["A01", "A02", "B01", "B02"]
    wells = wells_of_results(found)
    assert list(wells["well"]) == ["A01", "A02"]
    assert wells["z a"].isna().all()  # one negative control is too few
    assert "hit a" not in wells
    assert list(found.features["well"]) == ["A01", "A02"]
    with locked_folder(running):
        assert "is at work" in read_screen(running).warnings[0]
        assert growth_of(running).holder


def test_tables_that_were_written_meanwhile_are_not_those_of_the_screen(running, finished):
    """`--summarise` writes tables of the wells that are done; more are done since."""
    for name in ("predictions.csv", "predictions.parquet", "wells.parquet"):
        shutil.copyfile(finished / name, running / name)
    found = open_results(running)
    assert not found.growth.finished
    assert sorted(set(found.table["well"])) == ["A01", "A02"]


def test_it_is_read_on_without_reading_again_what_is_there(running, monkeypatch):
    before = read_screen(running)
    read = []
    whole = features.read_parquet

    def counted(path, *rest, **more):
        read.append(path.parent.name)
        return whole(path, *rest, **more)

    for module in (features, record):
        monkeypatch.setattr(module, "read_parquet", counted)
    comes_in(running, "B02")
    after = read_screen(running, before)
    assert sorted(set(after.table["well"])) == ["A01", "A02", "B02"]
    assert sorted(read) == ["B02", "B02", "out"]  # its predictions, its features, and the table of fields


@pytest.mark.parametrize("name", ["fields", "predictions", "wells", "features"])
def test_damaged_or_foreign_tables_are_refused_in_words(finished, tmp_path, name):
    folder = shutil.copytree(finished, tmp_path / "out")
    pd.DataFrame({"x": [1]}).to_parquet(folder / f"{name}.parquet")
    with pytest.raises(ResultsError, match=r"has no column 'plate' .*; (write the tables again: .* --summarise|go on)"):
        open_results(folder)
    (folder / f"{name}.parquet").write_bytes(b"PAR1")
    with pytest.raises(ResultsError, match=r"parquet is damaged, .*; (write the tables again|go on with resume)"):
        open_results(folder)


def test_a_running_screen_of_which_nothing_is_done_says_so(running):
    shutil.rmtree(running / "parts")
    with pytest.raises(ResultsError, match=r"is classified yet \(0 of 4 wells so far\)"):
        open_results(running)


def test_wells_are_listed_on_the_command_line(finished, running, tmp_path):
    like = CliRunner().invoke(app, ["wells", str(finished), "--like", "b1", "--out", str(tmp_path / "like.csv")])
    assert like.exit_code == 0
    table = pd.read_csv(tmp_path / "like.csv")
    expected = wells_like(read_screen(finished).features, "plate", "B01")
    assert list(table["well"]) == list(expected["well"])
    every = CliRunner().invoke(app, ["wells", str(finished), "--json"])
    assert {row["well"] for row in json.loads(every.stdout)} == {"A01", "A02", "B01", "B02"}
    comes_in(running, "B01")
    some = CliRunner().invoke(app, ["wells", str(running)])
    assert "3 of 4 wells so far" in some.stderr
    wrong = {
        ("--like", "H12"): "no results of the well 'H12'",
        ("--like", "A01", "--plate", "x"): "on the plate 'x'",
        ("--plate", "plate"): "give --like, too",
        ("--out", str(finished / "wells.csv")): "would overwrite; choose another name",
        ("--out", str(finished / "likeness.csv")): "would overwrite; choose another name",
    }
    for options, words in wrong.items():
        refused = CliRunner().invoke(app, ["wells", str(finished), *options])
        assert refused.exit_code == 2
        assert words in refused.stderr
    refused = CliRunner().invoke(app, ["wells", str(tmp_path)])
    assert refused.exit_code == 2
    assert "holds no screen" in " ".join(refused.stderr.split())


def masked(found, row):
    """Return the numbers in the masks of a row, and those in the list of its objects."""
    _, path = found.names_of(row)
    objects = found.objects_of(row)
    if path is None:
        return set(), set() if objects is None else set(objects["label"])
    with open_image(path) as image:
        return set(np.unique(image.plane(0, (0,))).tolist()) - {0}, set(objects["label"])


def assert_fields_open(found, pixels):
    """Each row opens its own field, with its own masks."""
    seen = 0
    for row in range(len(found.table)):
        image, plane = found.open(row)
        with image:
            place = found.table["well"].iat[row], int(found.table["site"].iat[row])
            np.testing.assert_array_equal(image.plane(plane), pixels[place])
            numbers, listed = masked(found, row)
            assert listed <= numbers
            seen += len(listed)
    assert seen


def test_a_row_opens_its_field_with_its_masks(finished):
    assert_fields_open(open_results(finished), PIXELS)


def test_a_field_of_a_file_of_several_is_opened_and_not_the_first(model, tmp_path):
    """All fields are in one OME-TIFF; they are images of their own, also after the file was moved."""
    source = write_series(tmp_path / "plate.ome.tif", PIXELS)
    out = tmp_path / "out"
    wells_of_steps(screen(model, source, out, **CPU))
    found = open_results(out)
    assert len(found.files) == len(found.images) == 8
    assert_fields_open(found, PIXELS)
    (tmp_path / "elsewhere").mkdir()
    shutil.move(source, tmp_path / "elsewhere" / source.name)
    moved = open_results(out)
    assert len(moved.missing) == 8
    assert_fields_open(with_images(moved, tmp_path / "elsewhere"), PIXELS)


def test_masks_inside_a_plate_are_found(model, tmp_path):
    source = write_zarr_plate(tmp_path / "plate.ome.zarr", PIXELS, "0.5")
    wells_of_steps(screen(model, source, tmp_path / "out", masks="inside", **CPU))
    assert_fields_open(open_results(tmp_path / "out"), PIXELS)


def test_a_time_that_the_name_says_is_not_looked_for_in_the_file(model, tmp_path):
    for site, t in ((1, 3), (2, 7)):
        pixels = {("A01", site): PIXELS["A01", site]}
        write_named(tmp_path / "plate", pixels, "plate_{well}_s{site}_t" + str(t) + "_w{channel}.tif")
    wells_of_steps(screen(model, tmp_path / "plate", tmp_path / "out", reading=READING, **CPU))
    found = open_results(tmp_path / "out")
    assert list(found.table["t"]) == [3, 7]
    assert_fields_open(found, PIXELS)


def test_a_layout_can_be_joined_to_a_screen(finished, tmp_path):
    (tmp_path / "layout.csv").write_text("well,donor\nA01,x\nB02,y\n")
    found = with_layout(open_results(finished), tmp_path / "layout.csv")
    assert isinstance(found, OpenedScreen)
    assert "donor" in found.table
    assert {"x", "y"} <= set(wells_of_results(found)["donor"])


def test_times_that_are_series_of_one_file_have_their_own_cells(model, tmp_path):
    write_series(tmp_path / "a.ome.tif", dict(list(PIXELS.items())[:2]))
    (tmp_path / "images.csv").write_text("file,series,well,site,t\na.ome.tif,0,A01,1,3\na.ome.tif,1,A01,1,7\n")
    wells_of_steps(screen(model, tmp_path / "images.csv", tmp_path / "out", reading=READING, **CPU))
    found = open_results(tmp_path / "out")
    cells = pd.read_parquet(tmp_path / "out" / "cells.parquet")
    assert list(found.table["t"]) == [3, 7]
    for row, time in enumerate((3, 7)):
        own = found.objects_of(row)
        assert len(own) == (cells["shown"] & (cells["t"] == time)).sum() > 0
        assert set(own["t"]) == {0}
