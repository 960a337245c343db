"""Results read back: what is in them, where the images lie, layouts, and refusals in words."""

from __future__ import annotations

import json
import os
import time
import unicodedata
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import tifffile
from pyarrow import parquet

import napari_milcnn as mil
from conftest import SHARED, lively_model
from napari_milcnn.errors import ResultsError
from napari_milcnn.evaluation.evaluate import measure, uncertain_images
from napari_milcnn.evaluation.report import ImageOutcome, results_of
from napari_milcnn.figures.thumbnails import Overlay, map_placement, thumbnail
from napari_milcnn.images.instruments import plate_shape
from napari_milcnn.labels.table import LabelledImage, LabelTable
from napari_milcnn.options import EvaluateOptions
from napari_milcnn.results.folder import classify_files
from napari_milcnn.results.layout import with_layout
from napari_milcnn.results.moved_images import with_images
from napari_milcnn.results.opened import read_parquet
from napari_milcnn.results.read import read_results
from napari_milcnn.results.tables import (
    SHARE,
    accuracy,
    confused,
    confusion,
    dose_columns,
    dose_curve,
    dose_points,
    histogram,
    ranked,
    reliability,
)

HEAD = "file,name,position,t,z,top,margin,score a,score b,warnings,error"
NAMES = ("A01_s1", "A01_s2", "B02_s1", "C03_s1")


def write_run(folder: Path, rows: list[str], head: str = HEAD, **files: str) -> Path:
    """Write predictions.csv, and other files by their names with _ for the dot."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "predictions.csv").write_text("\n".join([head, *rows]))
    (folder / "run.json").write_text('{"files": [], "unfinished": []}')
    for name, text in files.items():
        (folder / name.replace("_", ".")).write_text(text)
    return folder


def row(name: str, a: float, t: int = 0) -> str:
    """One row of a plane with the scores a and 1 - a."""
    top, margin = ("a" if a >= 0.5 else "b"), abs(2 * a - 1)
    return f"images/{name}.tif,{name},0,{t},0,{top},{margin:.6g},{a:.6g},{1 - a:.6g},,"


@pytest.fixture
def run(tmp_path):
    """Four images in three wells, with a layout above them; the second has two planes."""
    (tmp_path / "images").mkdir()
    for name in NAMES:
        (tmp_path / "images" / f"{name}.tif").write_bytes(b"not read")
    rows = [row("A01_s1", 0.9), row("A01_s2", 0.2, 0), row("A01_s2", 0.4, 1), row("B02_s1", 0.6), row("C03_s1", 0.1)]
    (tmp_path / "labels.csv").write_text(
        "file,label,group,dose\nimages/A01_s1.tif,a,A01,0\nimages/A01_s2.tif,a,A01,0\nimages/B02_s1.tif,b,B02,1\n"
        "images/C03_s1.tif,mid,C03,10\n"
    )
    return write_run(tmp_path / "out", rows)


def made_up(single: bool = True, **options):
    """Report on made-up scores of seven images, each a group."""
    model = lively_model(classes=("a", "b", "NA")).with_card(single_label=single)
    scores = np.random.default_rng(0).dirichlet((1, 1, 1), 7) if single else np.random.default_rng(0).random((7, 3))
    images = [LabelledImage(Path(f"images/{i}.tif"), (("a", "b", "NA")[i % 3],), f"g{i}") for i in range(7)]
    outcomes = [ImageOutcome(image, 1, one) for image, one in zip(images, scores, strict=True)]
    outcomes[3] = ImageOutcome(images[3], error="it is broken")
    return measure(model, LabelTable(tuple(images)), outcomes, EvaluateOptions(**options))


@pytest.mark.parametrize("single", [True, False])
@pytest.mark.parametrize("metrics", [True, False])
def test_an_opened_evaluation_says_what_the_report_says(tmp_path, single, metrics):
    """The same holds if predictions.csv is there alone; a class called NA is not a gap."""
    report = made_up(single)
    folder = report.save(tmp_path / "out")
    if not metrics:
        (folder / "metrics.json").unlink()
    found = read_results(folder)
    assert found.classes == ("a", "b", "NA")
    assert found.single_label is single or not metrics
    pd.testing.assert_frame_equal(confusion(found), report.confusion, check_names=False)
    value, ends = accuracy(found)
    assert value == pytest.approx(report.accuracy)
    assert ends == (pytest.approx(report.intervals["accuracy"]) if metrics else None)
    np.testing.assert_array_equal(reliability(found).count, report.reliability.count)
    np.testing.assert_allclose(reliability(found).observed, report.reliability.observed, atol=1e-5)
    assert found.warnings[-1] == "1 of 7 images failed; the column error says why"
    for label in report.confusion.index:
        for answer in report.confusion:
            assert len(confused(found, label, answer)) == report.confusion.loc[label, answer]


@pytest.mark.parametrize("single", [True, False])
def test_a_report_in_hand_is_opened_like_its_folder(tmp_path, single):
    report = made_up(single)
    mine, theirs = results_of(report), read_results(report.save(tmp_path))
    pd.testing.assert_frame_equal(mine.table[["file", "top"]], theirs.table[["file", "top"]])
    np.testing.assert_allclose(mine.scores, theirs.scores, atol=1e-5)
    assert accuracy(mine) == accuracy(theirs)
    assert histogram(mine) == histogram(theirs)
    unsure = uncertain_images(
        [o for o in report.outcomes if not o.error], np.delete(mine.scores, 3, 0), report.model.classes, single
    )
    assert list(mine.table["file"].iloc[ranked(mine, None)]) == list(unsure["file"])


def test_figures_of_two_evaluations_are_not_mixed(tmp_path):
    folder = made_up().save(tmp_path)
    table = (folder / "predictions.csv").read_text().splitlines()
    (folder / "predictions.csv").write_text("\n".join(table[:3]))
    found = read_results(folder)
    assert found.metrics is None
    assert "metrics.json is of 6 images, but predictions.csv is of 2" in found.warnings[0]


def test_a_damaged_evaluation_is_refused_in_words(tmp_path):
    folder = made_up().save(tmp_path)
    (folder / "confusion.csv").write_text("label,a,b\na,1,2\n")
    with pytest.raises(ResultsError, match="does not hold the counts of a, b, NA; evaluate again"):
        read_results(folder)
    (folder / "confusion.csv").unlink()
    written = json.loads((folder / "metrics.json").read_text())
    (folder / "metrics.json").write_text(json.dumps(written | {"reliability": {"count": ["many"]}}))
    with pytest.raises(ResultsError, match=r"metrics\.json is damaged: reliability\.confidence: Field required"):
        read_results(folder)
    (folder / "metrics.json").write_text(json.dumps(written | {"figures": {"accuracy": None}}))
    assert accuracy(read_results(folder)) is None  # it could not be measured
    (folder / "metrics.json").write_text('{"images": 6, "figures": {}}')
    with pytest.raises(ResultsError, match="has no intervals and no reliability; evaluate again"):
        read_results(folder)


def test_a_layout_beside_the_images_is_joined_by_itself(run):
    found = read_results(run)
    assert found.layout == run.parent / "labels.csv"
    assert found.added == ("label", "group", "dose")
    assert found.missing == []
    assert list(found.table["dose"]) == [0, 0, 0, 1, 10]
    assert found.warnings == ("1 of 4 images have no label that can be compared (not in the model: mid)",)


def test_an_image_gets_the_mean_over_its_planes(run):
    found = read_results(run)
    assert list(found.images["score a"]) == pytest.approx([0.9, 0.3, 0.6, 0.1])
    assert list(found.images["top"]) == ["a", "b", "a", "b"]
    assert confusion(found).to_numpy().tolist() == [[1, 1], [1, 0]]
    assert accuracy(found) == (pytest.approx(1 / 3), None)
    assert confused(found, "a", "b") == ["images/A01_s2.tif"]
    assert histogram(found) == ({"a": 2, "b": 3}, {"a": 3, "b": 1})
    assert found.unit == "planes"


def test_ranks(run):
    found = read_results(run)
    assert list(ranked(found, "a")) == [0, 3, 2, 1, 4]
    assert list(ranked(found, None)) == [2, 3, 1, 0, 4]


def test_dose_response_by_hand(run):
    found = read_results(run)
    assert dose_columns(found) == ["dose"]
    points = dose_points(found, "dose", "a")
    assert points["value"].tolist() == pytest.approx([0.6, 0.6, 0.1])
    assert points["group"].tolist() == ["A01", "B02", "C03"]
    curve = dose_curve(pd.concat([points, points.assign(value=points["value"] + 0.2)]))
    assert curve["mean"].tolist() == pytest.approx([0.7, 0.7, 0.2])
    assert curve["spread"].tolist() == pytest.approx([0.2 / 2**0.5] * 3)
    assert curve["groups"].tolist() == [2, 2, 2]
    with pytest.raises(ResultsError, match="no image has both a number in dose and a score"):
        dose_points(replace(found, table=found.table.assign(dose=np.nan)), "dose", "a")
    with pytest.raises(ResultsError, match=r"wrote no objects\.csv; classify again with masks"):
        dose_points(found, "dose", "a", SHARE)


def test_the_share_of_objects_by_hand(run):
    rows = [f"images/{name}.tif,0,0,0,{i},{kind}" for i, (name, kind) in enumerate(
        [("A01_s1", "a"), ("A01_s1", "b"), ("B02_s1", "a"), ("C03_s1", "b")])]  # fmt: skip
    (run / "objects.csv").write_text("\n".join(["file,position,t,z,label,class", *rows]))
    points = dose_points(read_results(run), "dose", "a", SHARE)
    assert points["value"].tolist() == [0.5, 1, 0]


def test_the_share_of_cells_by_hand(run):
    """Counts of cells in predictions.csv come first: they tell a class without cells from one that is not counted."""
    found = read_results(run)
    each = {"images/A01_s1.tif": 2.0, "images/B02_s1.tif": np.nan}
    table = found.table.assign(cells=4.0, **{"cells a": found.table["file"].map(each).fillna(0)})
    table.loc[table["file"] == "images/B02_s1.tif", "cells a"] = np.nan
    points = dose_points(replace(found, table=table), "dose", "a", SHARE)
    assert points["value"].tolist()[0] == 0.25  # the mean over two images of the well, one of them without
    assert "B02" not in set(points["group"])


def test_a_layout_by_well(run, tmp_path):
    (tmp_path / "plate.csv").write_text("Well;Compound;conc\nA1;none;0\nb02;water;3,5\n")
    found = with_layout(read_results(run), tmp_path / "plate.csv")
    assert found.added == ("compound", "conc")
    assert list(found.table["compound"]) == ["none", "none", "none", "water", ""]
    assert "label" not in found.table
    assert confusion(found) is None
    (tmp_path / "plate.csv").write_text("well\tfile\tdose\nA01\tof another run.tif\t2\n")
    again = with_layout(found, tmp_path / "plate.csv")
    assert again.added == ("dose",)
    assert again.table["dose"].tolist()[:3] == [2, 2, 2]


def test_a_layout_may_be_a_parquet_file(run, tmp_path):
    """It is read as a CSV of the same cells is, gaps and numbers included."""
    pd.DataFrame({"Well": ["A1", "B02"], "Compound": [None, "water"], "conc": [0.0, 3.5]}).to_parquet(tmp_path / "l.pq")
    found = with_layout(read_results(run), tmp_path / "l.pq")
    assert list(found.table["compound"]) == ["", "", "", "water", ""]
    assert list(found.table["conc"].fillna(-1)) == [0, 0, 0, 3.5, -1]
    (tmp_path / "l.pq").write_bytes(b"no table")
    with pytest.raises(ResultsError, match="is damaged, or is not Parquet"):
        with_layout(found, tmp_path / "l.pq")


def test_layouts_that_fit_nothing_are_refused(run, tmp_path):
    found = read_results(run)
    for text, message in (
        ("file,label\nelsewhere.tif,a\n", "fits none of the images: its first file is 'elsewhere.tif'"),
        ("name,label\nx,a\n", 'has neither a column "file" nor a column "well"; found name, label'),
        ("file,label\n", "has no rows"),
        ("file,name\nA01_s1.tif,x\n", "adds nothing: the results already have the columns file, name"),
        ("plate,well,dose\n1,A01,1\n2,A1,2\n", "lists the well A01 more than once; wells of several plates need"),
    ):
        (tmp_path / "other.csv").write_text(text)
        with pytest.raises(ResultsError, match=message):
            with_layout(found, tmp_path / "other.csv")


def test_a_layout_may_have_decimal_commas(run, tmp_path):
    """As spreadsheets of many countries write them, with their line that names the separator."""
    (tmp_path / "layout.csv").write_text("sep=;\nwell;dose;note\nA01;0,5;1,2,3\nB02;10;x\nC03;1,25;\n")
    found = with_layout(read_results(run), tmp_path / "layout.csv")
    assert found.table["dose"].tolist() == [0.5, 0.5, 0.5, 10, 1.25]
    assert found.table["note"].tolist()[0] == "1,2,3"


@pytest.mark.parametrize(("recorded", "on_disk"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_images_are_found_whatever_the_form_of_their_accents(tmp_path, recorded, on_disk):
    """A Mac takes a name apart; results and layout may have it composed."""
    name = "Größe/é.tif"
    there, written = (unicodedata.normalize(form, name) for form in (on_disk, recorded))
    (tmp_path / there).parent.mkdir()
    (tmp_path / there).write_bytes(b"1")
    head = "file,top,score a,position,t,z,error"
    (tmp_path / "predictions.csv").write_text(f"{head}\n{written},a,1.0,0,0,0,\n", encoding="utf-8")
    (tmp_path / "labels.csv").write_text(f"file,label\n{there},a\n", encoding="utf-8")
    found = read_results(tmp_path)
    assert list(found.files.values()) == [tmp_path / there]
    assert list(found.table["label"]) == ["a"]


def test_images_that_were_moved_are_found_beside_the_table_or_where_one_says(run, tmp_path):
    (tmp_path / "images").rename(tmp_path / "moved")
    found = read_results(run)
    assert len(found.missing) == 4
    assert found.layout == tmp_path / "labels.csv"  # it lies beside the folder of results
    again = with_images(found, tmp_path / "moved")
    assert again.missing == []
    assert again.files["images/C03_s1.tif"] == tmp_path / "moved" / "C03_s1.tif"
    with pytest.raises(ResultsError, match=r"holds none of the 4 images, such as images/A01_s1\.tif and 3 more"):
        with_images(found, run)


def test_images_are_found_where_the_record_says(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "x.tif").write_bytes(b"")
    folder = write_run(tmp_path / "out", [row("x", 0.9).replace("images/", "")])
    (folder / "run.json").write_text(json.dumps({"files": [str(tmp_path / "there" / "x.tif")]}))
    assert read_results(folder).files == {"x.tif": tmp_path / "there" / "x.tif"}


def test_a_path_of_windows_is_found_beside_the_table(tmp_path):
    folder = write_run(tmp_path / "out", [row("x", 0.9).replace("images/", r"C:\data\plate 1\images" + "\\")])
    (folder / "images").mkdir()
    (folder / "images" / "x.tif").write_bytes(b"")
    assert list(read_results(folder).files.values()) == [folder / "images" / "x.tif"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("file,name,top,margin,score a,P a,warnings,error\n", "has columns but no rows"),
        ("a,b\n1,2\n", "has no columns 'file' and 'error'; found a, b; expected the predictions.csv of a"),
        (f"{HEAD}\nx.tif,x,0,0,0,a,0.8,0.9,0.1,,\ny.tif,y,0,0,0,b,0.", "line 3 ends early"),
        (f"{HEAD}\nx.tif,x,0,0,0,a,0.8,much,0.1,,\n", "the column score a holds 'much'; expected numbers"),
        (f"{HEAD.replace('z,', '')}\nx.tif,x,0,0,a,0.8,0.9,0.1,,\n", "has no column 'z'"),
        (f"{HEAD}\nx.tif,x,0,,0,a,0.8,0.9,0.1,,\n", "line 2 does not say position, t and z of its plane"),
        (f"{HEAD}\nx.tif,x,0,1e30,0,a,0.8,0.9,0.1,,\n", "line 2 does not say position, t and z"),
        (f"{HEAD}\nx.tif,x,0,0,0,c,0.8,0.9,0.1,,\n", "the top class c has no column"),
        ("file,name,error\nx.tif,x,it is broken\n", "all 1 images of .* failed; the first: it is broken"),
        ("file,name,error\n", "has no rows: nothing was classified"),
        (f"{HEAD}\nx.tif,x,0,0,0,a,0.8,0.9,0.1,,,,,,\ny,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16", "damaged or half-"),
    ],
)
def test_foreign_or_half_written_tables_are_refused(tmp_path, text, message):
    folder = write_run(tmp_path, [])
    (folder / "predictions.csv").write_text(text)
    with pytest.raises(ResultsError, match=message):
        read_results(folder)


def test_a_folder_without_results_is_refused(tmp_path):
    with pytest.raises(ResultsError, match=r"has no predictions.csv \(it is not a results folder\)"):
        read_results(tmp_path)
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(ResultsError, match=r"it has run\.json, so the run was stopped early"):
        read_results(tmp_path)
    write_run(tmp_path, [row("x", 0.9)])
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(ResultsError, match="cannot be read as JSON"):
        read_results(tmp_path / "run.json")
    for text in ('{"files": 3}', '{"options": {"reading": {"pixel_size": -1}}}', '{"unfinished": [1]}'):
        (tmp_path / "run.json").write_text(text)
        with pytest.raises(ResultsError, match=r"run\.json is not the record of a classification: "):
            read_results(tmp_path)
    (tmp_path / "run.json").unlink()
    assert "run.json is missing" in read_results(tmp_path).warnings[0]
    with pytest.raises(ResultsError, match="does not exist"):
        read_results(tmp_path / "nowhere")


def test_thirty_thousand_rows_are_opened_in_seconds(tmp_path):
    rows = [row(f"{'ABCDEFGH'[i % 8]}{i // 8 % 12 + 1:02}_s{i}", i % 100 / 100) for i in range(30_000)]
    folder = write_run(tmp_path, rows)
    (folder / "labels.csv").write_text("well,label\n" + "".join(f"{r}{c:02},a\n" for r in "ABCD" for c in range(1, 13)))
    began = time.process_time()
    found = read_results(folder)
    assert len({*found.wells}) == 96
    assert confusion(found) is not None
    assert time.process_time() - began < 30


def test_a_real_run_is_opened_with_its_maps_and_masks(tmp_path):
    """Its scores are the prediction's; a thumbnail with evidence differs from the image alone where the map is high."""
    model = lively_model()
    tifffile.imwrite(tmp_path / "x.ome.tif", np.random.default_rng(0).integers(0, 900, (3, 2, 200, 180), np.uint16),
                     metadata={"axes": "TCYX", "Channel": {"Name": ["GFP", "RFP"]}})  # fmt: skip
    list(classify_files(model, [tmp_path / "x.ome.tif"], tmp_path / "out"))
    found = read_results(tmp_path / "out")
    prediction = mil.classify(model, tmp_path / "x.ome.tif")
    np.testing.assert_allclose(found.scores, prediction.scores, atol=1e-5)
    assert [found.plane_of(i) for i in range(3)] == list(prediction.planes)
    maps, labels = found.names_of(1)
    assert map_placement(maps) == prediction.placement
    with found.reading.open(found.files[found.table["file"].iat[1]]) as image:
        plain = thumbnail(image, 1)
        laid = Overlay(maps, labels, "b").over(plain, image, 1)
    assert plain.shape == laid.shape == (100, 90, 3)
    assert plain.dtype == laid.dtype == np.uint8
    assert (plain != laid).any()


def test_bbbc016_has_wells_and_doses(tmp_path):
    """The real layout: 24 wells of a plate of 384, doses 0 to 100."""
    data = SHARED / "data" / "bbbc016"
    if not data.is_dir():
        pytest.skip("the fields of BBBC016 are not beside this project (../shared/data/bbbc016)")
    layout = pd.read_csv(data / "labels.csv")
    rows = [row("x", dose / 100).replace("images/x.tif,x", f"{data / file},{Path(file).stem}")
            for file, dose in zip(layout["file"], layout["dose"], strict=True)]  # fmt: skip
    found = read_results(write_run(tmp_path, rows))
    assert found.layout == data / "labels.csv"
    wells = {well for well in found.wells if well is not None}
    assert (len(wells), plate_shape(list(wells))) == (24, (16, 24))
    curve = dose_curve(dose_points(found, dose_columns(found)[0], "a"))
    np.testing.assert_allclose(curve["mean"], curve["dose"] / 100)


def test_pipes_and_records_that_are_nested_deeply_are_refused(tmp_path):
    """Nothing hangs, and no error of Python's comes out."""
    folder = write_run(tmp_path / "out", [row("x", 0.9)])
    (folder / "run.json").write_text("[" * 100_000)
    with pytest.raises(ResultsError, match="it is nested too deeply"):
        read_results(folder)
    for name in ("run.json", "objects.csv", "predictions.csv"):
        (folder / name).unlink(missing_ok=True)
        os.mkfifo(folder / name)
        with pytest.raises(ResultsError, match="it is a pipe or a device"):
            read_results(folder)


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        (
            {"well": pa.DictionaryArray.from_arrays(pa.array([0] * 1_000_000), ["x" * 5000])},
            "have more than 1073741824",
        ),
        ({f"c{number}": pa.nulls(1_000_000) for number in range(101)}, "1000000 rows of 101 columns"),
        ({"file": [1]}, "no column 'well'"),
    ],
)
def test_parquet_that_grows_when_it_is_read_is_refused(tmp_path, columns, said):
    parquet.write_table(pa.table(columns), tmp_path / "t.parquet", store_schema=False)
    assert (tmp_path / "t.parquet").stat().st_size < 200_000
    with pytest.raises(ResultsError, match=said):
        read_parquet(tmp_path / "t.parquet", ["well"])


def test_images_in_folders_that_are_gone_are_not_looked_up_one_by_one(tmp_path, monkeypatch):
    """A thousand wells of a plate that is gone take a few looks at the disk; the one that was moved is still found."""
    rows = [row(f"s1-{well}", 0.6).replace("images", f"/gone/plate/w{well}", 1) for well in range(1000)]
    write_run(tmp_path / "run", rows)
    moved = tmp_path / "w7" / "s1-7.tif"
    moved.parent.mkdir()
    moved.touch()
    looks, listdir, lexists = [], os.listdir, os.path.lexists
    monkeypatch.setattr(os, "listdir", lambda path: (looks.append(path), listdir(path))[1])
    monkeypatch.setattr(os.path, "lexists", lambda path: (looks.append(path), lexists(path))[1])
    found = read_results(tmp_path / "run")
    assert found.files["/gone/plate/w7/s1-7.tif"] == moved
    assert len(found.missing) == 999
    assert len(looks) < 40
