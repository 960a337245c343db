"""Plates as heat maps: what stands where, in what colour, and what the picture says."""

from __future__ import annotations

from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest

from napari_milcnn.figures.palette import class_colours
from napari_milcnn.figures.plates import ColourScale, colour_scale, plate_maps, plate_svg

SVG = "{http://www.w3.org/2000/svg}"
WELLS = pd.DataFrame({
    "plate": ["P1", "P1", "P1", "P2"],
    "well": ["A01", "b3", "H12", "A1"],
    "score a": [0.0, 1.0, np.nan, 0.5],
    "top": ["a", "b", "", "a"],
    "control": ["negative", "", None, "Positive"],
    "dose": [0.1, 3.0, np.nan, np.nan],
    "treatment": ["DMSO", "<b>x</b>", None, ""],
})  # fmt: skip


def test_values_stand_in_their_places_and_a_well_without_one_is_missing():
    first, second = plate_maps(WELLS, "score a", words=["treatment", "dose", "nothing"])
    assert (first.name, second.name, first.values.shape) == ("P1", "P2", (8, 12))
    assert first.values[0, 0] == 0
    assert first.values[1, 2] == 1
    assert np.isnan(first.values[7, 11])
    assert np.argwhere(first.missing).tolist() == [[7, 11]]
    assert first.used.sum() == 3
    assert first.controls == {(0, 0): "negative"}
    assert second.controls == {(0, 0): "positive"}
    assert first.words == {(0, 0): "treatment DMSO, dose 0.1", (1, 2): "treatment <b>x</b>, dose 3"}


@pytest.mark.parametrize(("well", "shape"), [("D6", (4, 6)), ("H12", (8, 12)), ("P24", (16, 24)), ("AF48", (32, 48))])
def test_the_plate_is_the_smallest_that_holds_all_wells(well, shape):
    (plate,) = plate_maps(pd.DataFrame({"well": ["A01", well], "x": [1, 2]}), "x")
    assert plate.values.shape == shape
    letters = [
        node.text for node in ElementTree.fromstring(plate_svg(plate, ColourScale("x", 0, 2))).iter(f"{SVG}text")
    ]
    assert "A" in letters
    assert "1" in letters


def test_wells_that_are_not_places_on_a_plate_make_no_map():
    assert plate_maps(pd.DataFrame({"well": ["YAL001C", ""], "x": [1, 2]}), "x") == []
    assert plate_maps(WELLS.iloc[:0], "score a") == []


def test_the_picture_has_one_box_a_place_hatches_the_missing_and_says_what_is_in_a_well():
    plate, _ = plate_maps(WELLS, "score a", words=["treatment"])
    root = ElementTree.fromstring(plate_svg(plate, ColourScale("score of a")))
    boxes = root.findall(f"{SVG}rect")
    assert len(boxes) == 96
    assert [node.get("fill") for node in boxes].count("url(#hatch)") == 1
    assert [node.get("fill") for node in boxes].count("none") == 93
    titles = [node.text for node in root.iter(f"{SVG}title")]
    assert titles == ["A01 · score of a 0 · negative control · treatment DMSO",
                      "B03 · score of a 1 · treatment <b>x</b>", "H12 · no value"]  # fmt: skip
    assert len(root.findall(f"{SVG}circle")) == 1
    assert root.get("aria-label") == "score of a on plate P1: 2 wells with a value, 1 without"


def test_classes_have_the_colours_that_they_have_everywhere():
    plate, _ = plate_maps(WELLS, "top", classes=("a", "b"))
    scale = ColourScale("top class", classes=("a", "b"))
    root = ElementTree.fromstring(plate_svg(plate, scale))
    fills = [node.get("fill") for node in root.findall(f"{SVG}rect")]
    colours = class_colours(("a", "b"))
    assert fills[0] == colours["a"]
    assert fills[14] == colours["b"]
    assert scale.stops == list(colours.values())


def of_values(values):
    wells = [f"{letter}{number:02}" for letter in "ABCDEFGH" for number in range(1, 13)]
    return plate_maps(pd.DataFrame({"well": wells[: len(values)], "x": values}), "x")


def test_a_scale_is_not_stretched_by_an_outlier_and_z_scores_have_zero_in_the_middle():
    values = np.linspace(-2, 4, 96)
    scale = colour_scale("z", of_values(values), has_middle=True)
    assert -scale.low == scale.high == pytest.approx(np.percentile(values, 99))
    assert scale.colours(np.array([0.0]))[0].startswith("#f")  # nearly white
    counts = np.arange(96.0)
    counts[5] = 1e6
    assert colour_scale("cells", of_values(counts)).low == 0
    assert colour_scale("cells", of_values(counts)).high < 1e6
    assert (colour_scale("s", of_values(values), share=True).low, colour_scale("s", [], share=True).high) == (0, 1)


def test_plates_without_values_or_with_one_value_still_have_a_scale():
    for values in ([np.nan, np.nan], [2.0, 2.0], [0.0, 0.0]):
        scale = colour_scale("x", of_values(values))
        assert scale.high > scale.low
        assert plate_svg(of_values(values)[0], scale)
