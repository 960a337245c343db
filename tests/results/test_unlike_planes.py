"""What tables, records and opened results say of planes that are unlike the training images or show nothing."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import tifffile

import napari_milcnn as mil
from napari_milcnn.errors import ResultsError
from napari_milcnn.images.open import open_image
from napari_milcnn.inference.predict import classify
from napari_milcnn.results.folder import classify_files
from napari_milcnn.results.read import read_results
from napari_milcnn.results.tables import histogram
from napari_milcnn.results.write import GrowingTable, prediction_rows
from tests.conftest import blob, lively_model

EXACT = {"device": "cpu", "precision": "float32"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Classify a black image and one of a bright disc with a model that does not know its training images."""
    place = tmp_path_factory.mktemp("unlike")
    disc = np.stack([100 + 500 * blob((99, 99), (50, 50), 6)] * 2)
    for name, pixels in (("black", np.zeros((2, 99, 99))), ("disc", disc)):
        file = place / f"{name}.ome.tif"
        facts = {"axes": "CYX", "Channel": {"Name": ["GFP", "RFP"]}}
        tifffile.imwrite(file, pixels.astype(np.uint16), ome=True, metadata=facts)
    files = [place / "black.ome.tif", place / "disc.ome.tif"]
    results = [step.result for step in classify_files(lively_model(), files, place / "out", **EXACT) if step.result]
    assert [result.error for result in results] == ["", ""]
    return place / "out"


def test_a_black_image_has_no_class_in_tables_and_record(folder):
    table = pd.read_csv(folder / "predictions.csv", keep_default_na=False)
    assert list(table["top"] == "") == [True, False]
    assert list(table["unlike"]) == ["", ""]
    assert list(table["unlike reason"]) == ["nothing to classify: no structure above the noise", ""]
    record = json.loads((folder / "run.json").read_text("utf-8"))
    assert record["knows_training_images"] is False
    assert [image["unlike"] for image in record["images"]] == [[None], [None]]
    assert record["images"][0]["unlike_reasons"] == ["nothing to classify: no structure above the noise"]


def test_results_with_an_empty_class_are_read(folder):
    found = read_results(folder)
    assert list(found.images["top"] == "") == [True, False]
    assert sum(histogram(found)[0].values()) == 1


def test_a_row_without_class_and_reason_is_half_written(folder, tmp_path):
    table = pd.read_csv(folder / "predictions.csv", keep_default_na=False)
    table.loc[1, "top"] = ""
    table.to_csv(tmp_path / "predictions.csv", index=False)
    with pytest.raises(ResultsError, match="line 3 ends early"):
        read_results(tmp_path)


def test_a_table_of_an_earlier_version_gains_the_columns(tmp_path):
    """Rows that were written before keep empty cells."""
    image = open_image(np.stack([100 + 500 * blob((99, 99), (50, 50), 6)] * 2).astype(np.uint16), axes="CYX")
    known = classify(lively_model(), image, **EXACT)
    known = replace(known, unlike=np.array([1.5], np.float32), unlike_reasons=("too dark",))
    old = prediction_rows("old.tif", "old", known, [{}]).drop(columns=["unlike", "unlike reason"])
    old.to_csv(tmp_path / "predictions.csv", index=False)
    table = GrowingTable(tmp_path / "predictions.csv", ["file", "name", "error"])
    table.append(prediction_rows("new.tif", "new", known, [{}]))
    found = read_results(tmp_path).table.set_index("name")
    assert np.isnan(found.at["old", "unlike"])
    assert (found.at["new", "unlike"], found.at["new", "unlike reason"]) == (1.5, "too dark")
    assert known.unlike_sentences() == ("unlike the training images (1.5): too dark",)


def test_noise_has_no_cells_unless_they_are_the_users_own():
    pixels = np.random.default_rng(3).normal(100, 5, (2, 99, 99)).astype(np.float32)
    image = open_image(pixels, axes="CYX", channels=["GFP", "RFP"])
    assert not mil.classify(lively_model(), image, **EXACT).has_structure.any()
    found = mil.segment(mil.evidence(lively_model(), image, kind="object", **EXACT))
    assert (found.counts[0]["cells"], len(found.objects)) == (0, 0)
    own = np.zeros((99, 99), np.int32)
    own[20:40, 20:40] = 7
    assert mil.segment(mil.evidence(lively_model(), image, foreground=own, **EXACT)).counts[0]["cells"] == 1


def test_warnings_hold_what_is_unlike_and_tables_and_records_say_it_once(folder):
    """`warnings` is for who asks once; tables and records have a column for it, and the notes beside it."""
    found = classify(lively_model(), open_image(np.zeros((2, 99, 99), np.uint16), axes="CYX"), **EXACT)
    assert found.warnings == (*found.notes, "nothing to classify: no structure above the noise")
    assert "nothing to classify" not in " ".join(found.notes)
    table = pd.read_csv(folder / "predictions.csv", keep_default_na=False)
    record = json.loads((folder / "run.json").read_text("utf-8"))
    assert not any("nothing to classify" in text for text in table["warnings"])
    assert not any("nothing to classify" in text for each in record["images"] for text in each["warnings"])
