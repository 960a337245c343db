"""Plates as heat maps: what stands where, in what colour, why a well has none, and what the picture says."""

from __future__ import annotations

from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest

from napari_milcnn.figures.palette import class_colours
from napari_milcnn.figures.plates import (
    Blank,
    ColourScale,
    WellValue,
    colour_scale,
    legend_svg,
    plate_maps,
    plate_svg,
    well_at,
    well_values,
    well_words,
)
from napari_milcnn.images.instruments import Well

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
SCORE = WellValue("score of a", "score a", "share")
TOP = WellValue("top class", "top", "class", ("a", "b"))


def test_values_stand_in_their_places_and_a_well_without_one_is_blank():
    first, second = plate_maps(WELLS, SCORE, words=["treatment", "dose", "nothing"])
    assert (first.name, second.name, first.values.shape) == ("P1", "P2", (8, 12))
    assert first.values[0, 0] == 0
    assert first.values[1, 2] == 1
    assert first.blanks == {(7, 11): Blank.FAILED}
    assert [well for well in np.ndindex(8, 12) if first.is_used(Well(*well))] == [(0, 0), (1, 2), (7, 11)]
    assert first.controls == {(0, 0): "negative"}
    assert second.controls == {(0, 0): "positive"}
    assert first.words == {(0, 0): "treatment DMSO, dose 0.1", (1, 2): "treatment <b>x</b>, dose 3"}


STATES = pd.DataFrame({
    "well": ["A01", "A02", "A03", "A04"], "top": ["a", "", "", "a"], "score a": [0.9, 0.8, np.nan, 0.1],
    "z a": [5.0, 4.0, np.nan, np.nan], "share a": [0.5, np.nan, np.nan, np.nan], "cells": [9, 0, np.nan, 7],
    "unlike": [0.4, 3.0, np.nan, np.nan],
    "fields": [2, 2, 2, 2], "failed fields": [1, 1, 2, 0], "empty fields": [0, 1, 0, 1],
})  # fmt: skip


def test_a_well_says_why_it_has_no_value():
    """A02 shows nothing, though the network gives it a score and a z; A03 failed; of A04 the cells were not sorted."""
    others = {Blank.PENDING: pd.DataFrame({"well": ["A01", "A02", "A03", "A04", "A05"]})}
    found = {}
    for value in well_values(STATES, ("a", "b"), ("a",)):
        (plate,) = plate_maps(STATES, value, others=others)
        found[value.column] = [plate.blanks.get(Well(0, column)) for column in range(5)]
        (finished,) = plate_maps(STATES, value)
        assert not finished.is_used(Well(0, 4))
    empty, failed, unknown, waits = Blank.EMPTY, Blank.FAILED, Blank.UNKNOWN, Blank.PENDING
    assert found == {
        "top": [None, empty, failed, None, waits],
        "score a": [None, empty, failed, None, waits],
        "z a": [None, empty, failed, unknown, waits],
        "share a": [None, empty, failed, unknown, waits],
        "cells": [None, None, failed, None, waits],
        "unlike": [None, None, failed, unknown, waits],
    }


def marks_of(well: str) -> str:
    """Draw the states at their wells and return what is drawn between the box of a well and the next one."""
    others = {Blank.PENDING: pd.DataFrame({"well": ["A01", "A02", "A03", "A04", "A05"]})}
    (plate,) = plate_maps(STATES, WellValue("z", "z a", "z"), others=others)
    scale = colour_scale(WellValue("z", "z a", "z"), [plate])
    parts = plate_svg(plate, scale).split("<rect ")
    return next(
        part.split(">", 1)[1] + part.split('fill="')[1].split('"')[0] for part in parts if f"<title>{well}" in part
    )


def test_a_well_that_has_no_image_is_not_one_that_waits():
    others = {Blank.MISSING: pd.DataFrame({"plate": ["P1", "P9"], "well": ["A02", "A01"]})}
    maps = plate_maps(WELLS, SCORE, others=others | {Blank.PENDING: WELLS})
    assert [plate.name for plate in maps] == ["P1", "P9", "P2"]
    assert maps[0].blanks == {(0, 1): Blank.MISSING, (7, 11): Blank.FAILED}
    assert well_words(maps[1], ColourScale(SCORE), Well(0, 0)) == "A01 · no image"


def test_blanks_differ_from_each_other_and_from_every_colour_of_a_scale():
    """Each has a mark of its own; none has a colour that a scale has, least of all the white in its middle."""
    shown = {well: marks_of(well).split("</title>")[1] for well in ("A01", "A02", "A03", "A04", "A05")}
    shapes = {well: ["".join(sign for sign in text if sign.isalpha()), text.count("M")] for well, text in shown.items()}
    assert len({str(shape) for shape in shapes.values()}) == 5
    scales = [ColourScale(WellValue("", "", kind), low, 1) for kind, low in (("z", -1), ("share", 0))]
    colours = {colour for scale in scales for colour in scale.colours(np.linspace(-1, 1, 500))}
    for well in ("A02", "A03", "A04"):
        assert "#a3abb5" in shown[well]
    grey = np.array([0xA3, 0xAB, 0xB5])
    others = np.array([[int(colour[i : i + 2], 16) for i in (1, 3, 5)] for colour in {*colours, "#ffffff", "#f7f7f7"}])
    assert np.abs(others - grey).max(1).min() > 15


def test_the_legend_names_what_is_there_and_nothing_else():
    others = {Blank.PENDING: pd.DataFrame({"well": ["A01", "A02", "A03", "A04", "A05"]})}
    z = next(one for one in well_values(STATES, ("a", "b")) if one.column == "z a")
    maps = plate_maps(STATES, z, others=others)

    def texts(picture: str) -> list[str]:
        return [str(node.text) for node in ElementTree.fromstring(picture).iter(f"{SVG}text")]

    said = ["no result", "empty well", "not compared with controls", "not classified yet", "not used"]
    assert texts(legend_svg(colour_scale(z, maps), maps)) == ["≤ -5", "≥ 5", *said]
    assert texts(plate_svg(maps[0], colour_scale(z, maps), legend=True))[-5:] == said
    maps = plate_maps(WELLS, TOP)
    words = texts(legend_svg(colour_scale(TOP, maps), maps))
    assert words == ["a", "b", "no result", "negative control", "positive control", "not used"]


@pytest.mark.parametrize(("well", "shape"), [("D6", (4, 6)), ("H12", (8, 12)), ("P24", (16, 24)), ("AF48", (32, 48))])
def test_the_plate_is_the_smallest_that_holds_all_wells(well, shape):
    (plate,) = plate_maps(pd.DataFrame({"well": ["A01", well], "x": [1, 2]}), WellValue("x", "x", "count"))
    assert plate.values.shape == shape
    scale = ColourScale(WellValue("x", "x", "count"), 0, 2)
    letters = [node.text for node in ElementTree.fromstring(plate_svg(plate, scale)).iter(f"{SVG}text")]
    assert "A" in letters
    assert "1" in letters


@pytest.mark.parametrize("width", [None, 300.0, 900.0])
def test_the_well_under_a_place_of_the_picture_is_the_one_that_is_drawn_there(width):
    plate, _ = plate_maps(WELLS, SCORE)
    root = ElementTree.fromstring(plate_svg(plate, ColourScale(SCORE), width=width))
    boxes = [box for box in root.findall(f"{SVG}rect") if box.find(f"{SVG}title") is not None]
    for box in boxes:
        x, y, side = (float(box.get(name)) for name in ("x", "y", "width"))
        well = well_at(plate, x + side / 2, y + side / 2, width)
        assert box.find(f"{SVG}title").text == well_words(plate, ColourScale(SCORE), well)
    assert len(boxes) == 3
    assert well_at(plate, 3, 3, width) is None
    assert well_at(plate, 5000, 30, width) is None


def test_wells_that_are_not_places_on_a_plate_make_no_map():
    assert plate_maps(pd.DataFrame({"well": ["YAL001C", ""], "x": [1, 2]}), WellValue("x", "x", "count")) == []
    assert plate_maps(WELLS.iloc[:0], SCORE) == []


def test_the_picture_says_what_is_in_a_well_and_frames_the_chosen_ones():
    plate, _ = plate_maps(WELLS, SCORE, words=["treatment"])
    root = ElementTree.fromstring(plate_svg(plate, ColourScale(SCORE), ink="#ffffff", chosen=[Well(1, 2)]))
    assert len(root.findall(f"{SVG}circle")) == 93 + 1  # places without a well are dots, and one control
    titles = [node.text for node in root.iter(f"{SVG}title")]
    assert titles == ["A01 · score of a 0 · negative control · treatment DMSO",
                      "B03 · score of a 1 · treatment <b>x</b>", "H12 · no result"]  # fmt: skip
    assert root.get("aria-label") == "score of a on plate P1: 2 wells with a value, 1 no result"
    frames = [box for box in root.findall(f"{SVG}rect") if box.get("fill") == "none"]
    assert [(box.get("x"), box.get("y")) for box in frames] == [("76", "50")]
    assert {node.get("fill") for node in root.findall(f"{SVG}text")} == {"#ffffff"}


def test_classes_have_the_colours_that_they_have_everywhere():
    plate, _ = plate_maps(WELLS, TOP)
    root = ElementTree.fromstring(plate_svg(plate, ColourScale(TOP)))
    fills = [node.get("fill") for node in root.findall(f"{SVG}rect")]
    assert fills[:2] == list(class_colours(("a", "b")).values())


def test_a_white_class_has_a_clear_edge_on_a_white_page():
    value = WellValue("top class", "top", "class", tuple("ghijklab"))
    plate, _ = plate_maps(WELLS, value)
    wells = ElementTree.fromstring(plate_svg(plate, ColourScale(value))).findall(f"{SVG}rect")
    edges = {one.get("fill"): float(one.get("stroke-opacity", 1)) for one in wells}
    assert edges["#ffffff"] > 2 * edges[class_colours(value.classes)["a"]]


def of_values(values, kind):
    wells = [f"{letter}{number:02}" for letter in "ABCDEFGH" for number in range(1, 13)]
    value = WellValue("x", "x", kind)
    return value, plate_maps(pd.DataFrame({"well": wells[: len(values)], "x": values}), value)


def test_a_scale_is_not_stretched_by_an_outlier_and_z_scores_have_zero_in_the_middle():
    values = np.linspace(-2, 4, 96)
    scale = colour_scale(*of_values(values, "z"))
    assert -scale.low == scale.high == pytest.approx(np.percentile(values, 99))
    assert scale.colours(np.array([0.0]))[0].startswith("#f")  # nearly white
    assert colour_scale(*of_values(values * 40, "z")).high == 10  # beside z over 100, one of 10 can still be seen
    counts = np.arange(96.0)
    counts[5] = 1e6
    scale = colour_scale(*of_values(counts, "count"))
    assert scale.low == 0
    assert scale.high < 1e6
    scale = colour_scale(*of_values(values, "share"))
    assert (scale.low, scale.high) == (0, 1)
    assert colour_scale(*of_values(values / 100, "limit")).high == 1


@pytest.mark.parametrize("kind", ["z", "count", "limit", "share"])
def test_plates_without_values_or_with_one_value_still_have_a_scale(kind):
    for values in ([np.nan, np.nan], [2.0, 2.0], [0.0, 0.0]):
        value, maps = of_values(values, kind)
        scale = colour_scale(value, maps)
        assert scale.high > scale.low
        assert plate_svg(maps[0], scale, legend=True)
