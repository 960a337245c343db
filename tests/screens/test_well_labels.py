"""Labels of wells: a table that a training reads, in which nothing is overwritten unless it is asked for."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from screen_plates import CHANNELS, plate_pixels, write_named, write_series, write_zarr_plate
from typer.testing import CliRunner

from napari_milcnn.cli.app import app
from napari_milcnn.errors import LabelsError
from napari_milcnn.images.open import ImageReading
from napari_milcnn.labels.labelling import open_labelling
from napari_milcnn.labels.table import check_images, read_labels
from napari_milcnn.results.folder import classify_files
from napari_milcnn.screens.parts import wells_of_steps
from napari_milcnn.screens.read import open_results
from napari_milcnn.screens.run import screen
from napari_milcnn.screens.well_labels import label_wells, labels_of_wells, well_named

PIXELS = plate_pixels(72)
CPU = {"device": "cpu", "precision": "float32"}


@pytest.fixture(scope="module")
def model(saved_model):
    return saved_model


@pytest.fixture(scope="module")
def out(model, tmp_path_factory):
    """Run a screen of four wells of two sites, a file for each channel."""
    folder = tmp_path_factory.mktemp("screen")
    source = write_named(folder / "plate", PIXELS, "plate_{well}_s{site}_w{channel}.tif")
    reading = ImageReading(channels=CHANNELS, pixel_size=0.5)
    wells_of_steps(screen(model, source, folder / "out", reading=reading, **CPU))
    return folder / "out"


@pytest.fixture
def found(out):
    """Open the screen, without labels."""
    for name in ("corrected_labels.csv", "corrected_labels.json"):
        (out / name).unlink(missing_ok=True)
    return open_results(out)


def test_a_table_is_made_that_a_training_reads(found, out):
    said = label_wells(found, [("plate", "A01"), ("plate", "B02")], ["new kind"])
    label_wells(found, [("plate", "A02")], ["a"])
    assert said.startswith(f"4 images labelled new kind in {out / 'corrected_labels.csv'}, which has now: new kind 4.")
    assert said.endswith("These images were opened with pixel_size 0.5: give that to the training, too.")
    table = read_labels(out / "corrected_labels.csv")
    assert table.counts() == {"new kind": 4, "a": 2}
    assert table.reading.channels == CHANNELS  # the columns of the table name them
    assert {image.group for image in table.images} == {"plate A01", "plate A02", "plate B02"}
    check_images(table)
    with table.open(table.images[0]) as image:
        np.testing.assert_array_equal(image.plane(0), PIXELS["A01", 1])
    assert open_labelling(out / "corrected_labels.csv").counts() == {"new kind": 4, "a": 2}


def test_other_labels_are_replaced_only_where_that_is_asked_for(found, out):
    label_wells(found, [("plate", "A01")], ["a"])
    before = (out / "corrected_labels.csv").read_bytes()
    with pytest.raises(LabelsError, match=r"2 images have another label in .*A01_s1.*: a; nothing was changed"):
        label_wells(found, [("plate", "A01"), ("plate", "A02")], ["b"])
    assert (out / "corrected_labels.csv").read_bytes() == before
    assert label_wells(found, [("plate", "A01")], ["a"]).startswith("2 images labelled a")  # the same again
    label_wells(found, [("plate", "A01"), ("plate", "A02")], ["b", "c"], replace=True)
    assert read_labels(out / "corrected_labels.csv").counts() == {"b": 4, "c": 4}


def test_rows_are_added_to_a_table_that_is_there_and_its_columns_and_splits_stay(found, out, tmp_path):
    """The table has a column of the user and a split for each row; new wells go to train."""
    folder = out.parent / "plate"
    rows = [f'"{folder}/plate_B01_s{site}_w{{1,2}}.tif",{label},train,me' for site, label in ((1, "a"), (2, "b"))]
    (tmp_path / "mine.csv").write_text("\n".join(["file,label,split,who", *rows]))
    label_wells(found, [("plate", "A01")], ["a"], tmp_path / "mine.csv")
    table = pd.read_csv(tmp_path / "mine.csv")
    assert list(table["who"].fillna("")) == ["me", "me", "", ""]
    assert list(table["split"]) == ["train"] * 4
    assert list(table["label"]) == ["a", "b", "a", "a"]
    assert (tmp_path / "mine.csv.bak").exists()
    assert read_labels(tmp_path / "mine.csv").counts() == {"a": 3, "b": 1}
    plan = labels_of_wells(found, [("plate", "B01")], ["b"], tmp_path / "mine.csv")
    assert list(plan.in_the_way.values()) == ["a"]  # one of the two images has another label


@pytest.mark.slow
def test_fields_of_a_zarr_plate_and_of_one_file_are_labelled_one_by_one(model, tmp_path):
    write_zarr_plate(tmp_path / "p.ome.zarr", PIXELS, "0.5")
    write_series(tmp_path / "s.ome.tif", PIXELS)
    for source in ("p.ome.zarr", "s.ome.tif"):
        wells_of_steps(screen(model, tmp_path / source, tmp_path / f"{source} out", **CPU))
        found = open_results(tmp_path / f"{source} out")
        for well, label in (("B01", "b"), ("A02", "a")):
            label_wells(found, [well_named(found, well)], [label])
        table = read_labels(found.folder / "corrected_labels.csv")
        assert table.counts() == {"a": 2, "b": 2}
        for image in table.images:
            well = "B01" if image.labels == ("b",) else "A02"
            with table.open(image) as opened:
                assert any(np.array_equal(opened.plane(0), PIXELS[well, site]) for site in (1, 2)), image.name


@pytest.mark.slow
def test_a_whole_file_and_a_plane_of_it_are_not_labelled_in_one_table(model, tmp_path):
    """A table in which both have labels could not be read again."""
    write_series(tmp_path / "s.ome.tif", PIXELS)
    wells_of_steps(screen(model, tmp_path / "s.ome.tif", tmp_path / "out", **CPU))
    (tmp_path / "labels.csv").write_text("file,label\ns.ome.tif,a\n")
    found = open_results(tmp_path / "out")
    with pytest.raises(LabelsError, match=r"has labels of .*s\.ome\.tif with other planes \(all\)"):
        label_wells(found, [well_named(found, "A01")], ["b"], tmp_path / "labels.csv")


def test_wells_of_a_classification_are_labelled_too(model, tmp_path):
    source = write_named(tmp_path / "plate", PIXELS, "plate_{well}_s{site}_w{channel}.tif")
    list(classify_files(model, [source], tmp_path / "out", reading=ImageReading(channels=CHANNELS), device="cpu"))
    found = open_results(tmp_path / "out")
    label_wells(found, [well_named(found, "b2")], ["a"])
    assert [image.group for image in read_labels(tmp_path / "out" / "corrected_labels.csv").images] == ["B02", "B02"]


def test_images_that_failed_are_left_out_and_said(model, tmp_path):
    source = write_named(tmp_path / "plate", PIXELS, "plate_{well}_s{site}_w{channel}.tif")
    (source / "plate_A01_s1_w1.tif").write_bytes(b"broken")
    wells_of_steps(screen(model, source, tmp_path / "out", reading=ImageReading(channels=CHANNELS), **CPU))
    found = open_results(tmp_path / "out")
    said = label_wells(found, [("plate", "A01")], ["a"])
    assert said.startswith("1 image labelled a")
    assert "1 that failed is left out" in said


@pytest.mark.parametrize(
    ("well", "plate", "words"),
    [("H12", None, "no results of the well 'H12'; the first is plate A01"), ("A01", "x", "on the plate 'x'")],
)
def test_a_well_that_is_not_there_is_refused(found, well, plate, words):
    with pytest.raises(LabelsError, match=words):
        well_named(found, well, plate)


@pytest.mark.parametrize("name", ["predictions.csv", "fields.csv"])
def test_labels_are_not_written_to_a_table_of_the_results(found, out, name):
    """Those of a screen with labels in its layout have the columns file and label, too."""
    with pytest.raises(LabelsError, match=f"{name} is a table of results"):
        label_wells(found, [("plate", "A01")], ["a"], out / name)


def test_a_label_that_cannot_be_a_class_changes_nothing(found, out):
    label_wells(found, [("plate", "A01")], ["WT"])
    before = (out / "corrected_labels.csv").read_bytes()
    for label, words in (("wt", "differs from 'WT' only in case"), (" ", "no label is given")):
        with pytest.raises(LabelsError, match=words):
            label_wells(found, [("plate", "A02")], [label])
    assert (out / "corrected_labels.csv").read_bytes() == before
    assert [one["name"] for one in json.loads((out / "corrected_labels.json").read_text())["classes"]] == ["WT"]


def test_wells_are_labelled_on_the_command_line(found, out, tmp_path):
    table = str(tmp_path / "mine.csv")
    done = CliRunner().invoke(
        app, ["label", str(out), "--well", "A1", "--well", "b02", "--label", "a", "--table", table]
    )
    assert done.exit_code == 0
    assert read_labels(table).counts() == {"a": 4}
    refused = CliRunner().invoke(app, ["label", str(out), "--well", "A01", "--label", "b", "--table", table])
    assert refused.exit_code == 2
    assert "--replace" in refused.stderr
    done = CliRunner().invoke(app, ["label", str(out), "--well", "A01", "--label", "b", "--table", table, "--replace"])
    assert done.exit_code == 0
    assert read_labels(table).counts() == {"a": 2, "b": 2}
