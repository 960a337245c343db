"""The page of a screen: what it tells, in every case that a screen may be in."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from napari_milcnn.screens.outputs.galleries import ShownCell, choose_cells, choose_fields
from napari_milcnn.screens.outputs.report import ScreenReport, screen_html
from napari_milcnn.screens.wells import well_table

RECORD = {"source": "/data/plate<i>1", "model": {"name": "nuclei", "path": "/m.zip"}, "fields": 8,
          "began": "2026-01-01T00:00:00+00:00", "command": ["napari-milcnn", "screen"], "versions": {"torch": "2"},
          "knows_training_images": True}  # fmt: skip


def fields_of(wells=("A01", "A02", "B01", "B02"), sites=2, plates=("P1",)):
    rows = [
        {"plate": plate, "well": well, "site": str(site), "name": f"{plate}{well}{site}", "file": f"{well}.tif",
         "top": "a" if number % 2 else "b", "unlike": 0.5, "unlike reason": "", "score a": 0.8 if number % 2 else 0.1,
         "score b": 0.2 if number % 2 else 0.9, "cells": 10, "error": ""}
        for plate in plates for number, well in enumerate(wells) for site in range(sites)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def wells_of(table):
    return table.drop_duplicates(["plate", "well"])[["plate", "well", "top", "score a", "score b", "cells", "unlike"]]


class _Text(HTMLParser):
    """Collects the tags, the links and the text of a page."""

    def __init__(self):
        super().__init__()
        self.tags, self.links, self.words, self.alts = [], [], [], []

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.tags.append(tag)
        self.links += [found[name] for name in ("src", "href") if name in found]
        self.alts += [found.get("alt")] if tag == "img" else []

    def handle_data(self, data):
        self.words.append(data)


def read(report):
    page = _Text()
    page.feed(screen_html(report))
    return page, re.sub(r"\s+", " ", " ".join(page.words))


def test_the_page_tells_numbers_plates_and_what_was_run_and_needs_no_other_file():
    table = fields_of(plates=("P1", "P2"))
    page, text = read(ScreenReport(RECORD, table, wells_of(table)))
    assert "script" not in page.tags
    assert all(link.startswith("data:") for link in page.links)
    assert "http" not in text
    assert "i" not in page.tags[page.tags.index("h1") :][:2]
    assert "Screen data/plate<i>1" in text
    assert (
        page.tags.count("svg") == 3 * 4
    )  # 2 plates and a legend: top class, score of one of two classes, cells, unlike
    for words in ("plates 2", "wells 8", "fields 16", "cells 160", "failed 0", "napari-milcnn screen", "torch 2"):
        assert words in text, words
    assert "No well is marked as a negative control" in text
    assert "No field has a problem" in text


def test_wells_like_nothing_known_are_listed_with_what_the_list_means():
    """The first ten with their place, treatment and number; without controls and of too few wells, why."""
    table = fields_of()
    listed = pd.DataFrame({"plate": "P1", "well": [f"A{n:02}" for n in range(1, 13)], "treatment": "drug 7",
                           "dose": [0.25, *[np.nan] * 11], "label": "", "like nothing known": np.linspace(7.126, 1, 12),
                           "cluster": [1] * 4 + [0] * 8, "map x": 0.5})  # fmt: skip
    controlled = wells_of(table).assign(control=["negative", "", "", ""])
    _, text = read(ScreenReport(RECORD, table, controlled, likeness=listed))
    assert "These are the first 10 wells" in text
    assert "P1 A01 drug 7 0.25 7.13 1 P1 A02 drug 7 –" in text
    assert "A11" not in text
    assert "Number of wells in each cluster: 4." in text
    assert "the commonest class stand" not in text
    _, text = read(ScreenReport(RECORD, table, wells_of(table), likeness=listed.assign(cluster=0)))
    assert "No group of wells stands out" in text
    assert "the wells of the commonest class stand for them" in text
    assert "At least three classified wells are needed" in read(ScreenReport(RECORD, table, wells_of(table)))[1]


def test_hits_and_controls_are_told_where_there_are_controls():
    table = fields_of()
    wells = wells_of(table).assign(control=["negative", "", "positive", ""])
    none = ScreenReport(RECORD, table, wells, hits=pd.DataFrame({"plate": [], "well": [], "q": []}))
    _, text = read(none)
    assert "No well differs from the negative controls" in text
    assert "negative control" in text
    assert "positive control" in text
    assert "No well is marked" not in text
    hits = pd.DataFrame({"treatment": [f"drug {i // 2}" for i in range(80)], "dose": [0.25, 2.0] * 40, "class": "a",
                         "p value": 1.5e-6})  # fmt: skip
    _, text = read(ScreenReport(RECORD, table, wells, hits=hits))
    assert "first 25 of 40; hits.csv lists all, 80 with each dose by itself" in text
    assert "hits 40 " in text
    assert "drug 1 a 2: 0.25 to 2 1.5e-06" in text
    assert text.index("first 25 of 40") < text.index("Each square is a well")


def test_what_is_hidden_in_names_is_shown_everywhere_on_the_page():
    odd = "P\x1b[2J\u202e<img src=x>"
    table = fields_of(plates=(odd, "P2"))
    table.loc[0, "error"] = f"{odd} is gone"
    html = screen_html(ScreenReport(RECORD | {"source": odd}, table, wells_of(table).assign(treatment=odd)))
    assert html.count("P\\x1b[2J\\u202e&lt;img src=x&gt;") > 20
    assert not re.search(r"[\x1b\u202e]|<img src=x", html)


def test_failed_and_missing_fields_have_their_reasons():
    table = fields_of()
    table.loc[0, ["top", "score a", "score b", "unlike", "error"]] = [
        "",
        np.nan,
        np.nan,
        np.nan,
        "it is <b>damaged</b>",
    ]
    missing = pd.DataFrame({"plate": ["P1"], "well": ["C01"], "site": [""], "reason": ["it has no image"]})
    page, text = read(ScreenReport(RECORD | {"fields": 9}, table, wells_of(table), missing))
    assert "it is <b>damaged</b>" in text
    assert "b" not in page.tags or "it is damaged" not in text
    assert "C01 it has no image" in text
    assert "The screen is not finished: 8 of 9 fields are done" in text
    assert "C01 · no image" in text
    assert "not classified yet" not in text
    planned = pd.DataFrame({"plate": ["P1", "P1"], "well": ["A01", "D04"]})
    _, text = read(ScreenReport(RECORD | {"fields": 9}, table, wells_of(table), missing, planned=planned))
    assert "D04 · not classified yet" in text
    assert "A01 · not classified yet" not in text


def test_a_well_without_a_value_says_why():
    """A class that was not looked for is not a failure, and neither of them is 0."""
    table = fields_of(sites=1).assign(**{"cells b": [2.0, np.nan, np.nan, 0.0]})
    table.loc[2, ["cells", "score a", "score b", "error", "top"]] = [np.nan, np.nan, np.nan, "damaged", ""]
    page = screen_html(ScreenReport(RECORD, table, well_table(table)))
    shares = page[page.index("Share of b in the cells") :]
    assert "A02 · not looked for" in shares
    assert "B01 · no result" in shares
    assert "B02 · share of b in the cells 0" in shares
    assert "In no field were looked for: b in 1 of 4 wells." in page


@pytest.mark.parametrize(
    "table",
    [
        fields_of(wells=("A01",), sites=1),
        fields_of(wells=("YAL001C", "YBR002W")),
        fields_of().drop(columns=["unlike", "unlike reason", "cells"]),
        fields_of().assign(plate=""),
        pd.DataFrame({"plate": "P1", "well": ["A01", "A02"], "site": "1", "name": ["x", "y"], "error": "gone"}),
        fields_of(
            wells=[f"{a}{b:02}" for a in "ABCDEFGHIJKLMNOP" for b in range(1, 25)], sites=1, plates="123456789ABCDEF"
        ),
    ],
    ids=["one well", "names of strains", "little known", "no plate", "all failed", "many plates"],
)
def test_a_screen_of_any_kind_has_a_page(table):
    wells = table.drop_duplicates(["plate", "well"])
    page, text = read(ScreenReport(RECORD, table, wells))
    assert page.tags.count("rect") < 40_000
    assert "nan" not in text.lower().split()
    if len(wells) == 15 * 384:
        assert "wells.csv has all" in text


def test_labels_of_the_layout_are_compared_with_the_answers():
    table = fields_of().assign(label=["a", "a", "a", "a", "b", "b", "", ""])
    _, text = read(ScreenReport(RECORD, table, wells_of(table)))
    assert "6 fields have a label that the model knows" in text
    assert "66.7 %" in text  # of a a a a b b the answers are b b a a b b
    _, text = read(ScreenReport(RECORD, table.assign(label="other"), wells_of(table)))
    assert "Compared with the labels" not in text


def cells_of(count=60):
    number = np.arange(count)
    return pd.DataFrame({
        "plate": "P1", "well": [f"A{n // 10 + 1:02}" for n in number], "site": "1", "file": "x.tif", "position": 0,
        "t": 0, "z": 0, "class": np.where(number % 2, "a", "b"), "shown": True, "area_px": 100, "y": 5.0, "x": 5.0,
        "mean_evidence": number / count,
    })  # fmt: skip


def test_the_strongest_cells_are_of_several_wells_and_typical_ones_lie_at_the_median():
    table = cells_of()
    chosen = choose_cells([table.iloc[:25], table.iloc[25:]], ("a", "b", "none"), count=4)
    strongest = [one for one in chosen if one.class_name == "a" and one.kind == "strongest"]
    assert [round(60 * one.value) for one in strongest] == [59, 57, 49, 47]
    typical = [60 * one.value for one in chosen if one.class_name == "b" and one.kind == "typical"]
    assert len(typical) == 4
    assert all(abs(value - 29) <= 3 for value in typical)
    assert {one.side for one in chosen} == {48}
    assert not [one for one in chosen if one.class_name == "none"]
    assert choose_cells([table.assign(shown=False)], ("a",)) == []


def test_fields_are_shown_where_no_cells_are_known_and_a_picture_that_is_gone_is_said():
    table = fields_of()
    chosen = choose_fields(table, ("a", "b"), count=2)
    assert [(one.class_name, one.kind) for one in chosen] == [
        ("a", "strongest"), ("a", "strongest"), ("a", "typical"), ("a", "typical"),
        ("b", "strongest"), ("b", "strongest"), ("b", "typical"), ("b", "typical")]  # fmt: skip
    seen = [
        ShownCell("a", "strongest", 0.9, {"plate": "P1", "well": "A01"}, 48, np.zeros((8, 8, 3), np.uint8)),
        *chosen,
    ]
    page, text = read(ScreenReport(RECORD, table, wells_of(table), cells=seen))
    assert text.count("no picture") == 8
    assert page.alts == ["a, A01"]
