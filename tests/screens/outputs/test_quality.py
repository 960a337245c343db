"""Quality control: what is wrong with fields and plates, from what a classification measures."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import ndimage

from napari_milcnn.inference.predict import Classifier
from napari_milcnn.model.trained_model import new_model
from napari_milcnn.screens.outputs.quality import (
    BLURRED,
    EMPTY,
    FAILED,
    PROBLEMS,
    SATURATED,
    UNLIKE_TRAINING,
    problems_of_fields,
    quality_columns,
    quality_of_plates,
)


def cells(seed, blur=0.0, gain=1.0, cells=30, top=4095):
    """Make a field with round cells that have fine spots, blurred as the lens would, then noise."""
    rng = np.random.default_rng(seed)
    rows, columns = np.ogrid[:256, :256]
    image = np.full((256, 256), 200.0)
    for y, x in rng.uniform(15, 241, (cells, 2)):
        image += 700 * np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / 60)
    for y, x in rng.uniform(0, 256, (5 * cells, 2)):
        image += 500 * np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / 3)
    image = ndimage.gaussian_filter(image, blur) * gain
    return (image + rng.normal(0, 12, image.shape)).clip(0, top).astype(np.uint16)


def table_of(images):
    classifier = Classifier(new_model(("a", "b"), ("DNA",), seed=0), device="cpu")
    rows = []
    for image in images:
        found = classifier.classify(image)
        rows.append(found.table().join(quality_columns(found, ("DNA",))))
    table = pd.concat(rows, ignore_index=True)
    return table.assign(plate="P1", well=[f"A{i + 1:02}" for i in range(len(table))], error="")


@pytest.mark.slow
def test_blurred_saturated_and_empty_fields_are_found_and_the_others_are_not():
    images = [cells(seed) for seed in range(12)]
    images += [cells(20, blur=3), cells(21, gain=6.0), cells(22, cells=0)]
    found = problems_of_fields(table_of(images))
    assert found[BLURRED].to_numpy().nonzero()[0].tolist() == [12]
    assert found[SATURATED].to_numpy().nonzero()[0].tolist() == [13]
    assert found[EMPTY].to_numpy().nonzero()[0].tolist() == [14]
    assert "less fine detail" in found["reason"][12]
    assert "% of its pixels are at the maximum" in found["reason"][13]
    assert "no structure" in found["reason"][14]
    assert (found["reason"][:12] == "").all()


FIELDS = pd.DataFrame({
    "plate": ["P1"] * 3 + ["P2"] * 2,
    "well": ["A01", "A01", "A02", "A01", "B01"],
    "top": ["a", "", "b", None, "a"],
    "error": ["", "", "", "it is damaged", None],
    "unlike": [0.5, 0.7, 2.5, np.nan, np.nan],
    "unlike reason": ["", "nothing to classify", "too dark", "", ""],
    "cells": [5, 0, 3, np.nan, 0],
})  # fmt: skip


def test_every_problem_has_its_reason_and_a_failed_field_is_nothing_else():
    found = problems_of_fields(FIELDS)
    assert found[FAILED].tolist() == [False, False, False, True, False]
    assert found[EMPTY].tolist() == [False, True, False, False, True]
    assert found[UNLIKE_TRAINING].tolist() == [False, False, True, False, False]
    assert found["reason"].tolist() == ["", "nothing to classify", "too dark", "it is damaged", "no cells found"]
    assert not found[[BLURRED, SATURATED]].to_numpy().any()  # never measured, never told


def test_plates_count_fields_problems_and_what_is_missing():
    missing = pd.DataFrame({"plate": ["P2", "P3"], "well": ["A02", "A01"]})
    found = quality_of_plates(FIELDS, missing).set_index("plate")
    assert list(found) == ["wells", "fields", "missing", *PROBLEMS]
    assert found.loc["P1"].tolist() == [2, 3, 0, 0, 1, 0, 0, 1]
    assert found.loc["P2"].tolist() == [2, 2, 1, 1, 1, 0, 0, 0]
    assert found.loc["P3"].tolist() == [0, 0, 1, 0, 0, 0, 0, 0]
    assert quality_of_plates(FIELDS)["missing"].sum() == 0


def test_a_few_even_fields_are_not_out_of_focus():
    few = pd.DataFrame({"top": "a", "error": "", "focus DNA": [0.5] * 4 + [0.01], "plate": "P", "well": "A01"})
    assert not problems_of_fields(few)[BLURRED].any()
    many = pd.DataFrame({"top": "a", "error": "", "focus DNA": [0.5] * 9 + [0.3, 0.01], "plate": "P", "well": "A01"})
    assert problems_of_fields(many)[BLURRED].tolist() == [False] * 10 + [True]
    assert quality_of_plates(many.iloc[:0]).empty
