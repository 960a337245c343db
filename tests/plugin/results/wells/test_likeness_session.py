"""Wells that are alike, without a window: the map, the list, and wells inside a line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from napari_milcnn.plugin.results.reading import shown_results
from napari_milcnn.plugin.results.session import ResultsSession
from napari_milcnn.plugin.results.wells.likeness_session import NEEDS_FEATURES, LikenessSession
from napari_milcnn.plugin.results.wells.wells_session import WellsSession
from napari_milcnn.screens.likeness import map_of_wells, unexplained_wells, wells_like
from napari_milcnn.screens.read import OpenedScreen
from qt_actions import SessionWorker

components = pytest.importorskip("napari.components")
WELLS = [f"{letter}{number:02}" for letter in "ABCD" for number in range(1, 7)]


def screen_of(features: pd.DataFrame | None = None) -> OpenedScreen:
    """Make a screen of 24 wells, of which A and B show class a and C and D class b."""
    rng = np.random.default_rng(0)
    kinds = np.array([well[0] in "CD" for well in WELLS], int)
    values = rng.normal(0, 0.3, (24, 12)) + 3 * kinds[:, None] * np.linspace(-1, 1, 12) + np.linspace(1, -1, 12)
    table = pd.DataFrame({
        "plate": "P", "well": WELLS, "site": "1", "file": [f"/nowhere/{well}.tif" for well in WELLS], "name": WELLS,
        "position": 0, "t": 0, "z": 0, "top": np.where(kinds, "b", "a"), "margin": 0.8, "score a": 0.9 - 0.8 * kinds,
        "score b": 0.1 + 0.8 * kinds, "error": "", "dose": np.arange(24.0),
    })  # fmt: skip
    bags = {f"bag {what} {name}": table[f"score {name}"] for what in ("score", "P") for name in "ab"}
    own = table[["plate", "well", "dose"]].assign(**bags)
    made = own.join(pd.DataFrame(values, columns=[f"feature_{i:03}" for i in range(12)]))
    fields = table[["plate", "well", "site", "file", "name", "dose"]].assign(t="", z="", series="")
    return OpenedScreen(
        Path("/nowhere/predictions.csv"), table, ("a", "b"), True, dict.fromkeys(table["file"]),
        features=made if features is None else features, fields=fields,
    )  # fmt: skip


@pytest.fixture
def session():
    results = ResultsSession(components.ViewerModel())
    session = LikenessSession(WellsSession(results))
    session.worker = SessionWorker(session)
    results.show_results(shown_results(screen_of()))
    return session


def test_the_map_is_that_of_python(session):
    session.show()
    session.worker.work()
    expected = map_of_wells(session.wells.results.found.features)
    np.testing.assert_array_equal(session.map.points, expected[["map x", "map y"]])
    assert session.map.colours == ("top", "dose")
    assert session.told(("P", "A02")) == "A02 of P · a · dose 1.0"
    session.show()
    assert not session.worker.waiting  # it is there already


def test_wells_like_the_one_at_hand_are_listed_as_python_lists_them(session):
    asked = []
    session.list_asked.connect(lambda: asked.append(True))
    session.list_like()
    assert not session.worker.waiting  # no well is at hand
    session.wells.choose([("P", "C03")])
    session.list_like()
    session.worker.work()
    expected = wells_like(session.wells.results.found.features, "P", "C03")
    assert list(session.listed.table["well"]) == list(expected["well"])
    assert list(session.listed.table["well"].head(11).str[0].unique()) in (["C", "D"], ["D", "C"])
    assert list(session.listed.table)[:3] == ["well", "likeness", "class"]
    assert session.listed.words == "Wells like C03 of P"
    assert asked == [True]


def test_the_well_of_the_image_that_is_looked_at_is_at_hand(session):
    session.wells.results.open_image(7)
    assert session.wells.at_hand == (("P", "B02"),)
    session.wells.choose([("P", "A01"), ("P", "A02")])
    assert session.wells.at_hand == (("P", "A01"), ("P", "A02"))
    session.list_like()
    assert not session.worker.waiting  # of two wells it is not known which


def test_wells_that_no_class_explains_are_listed_as_python_lists_them(session):
    session.list_unexplained()
    session.worker.work()
    expected = unexplained_wells(session.wells.results.found.features)
    assert list(session.listed.table["well"]) == list(expected["well"])
    assert list(session.listed.table)[:4] == ["well", "like nothing known", "cluster", "class"]


def test_wells_inside_a_line_are_chosen_and_listed(session):
    session.show()
    session.worker.work()
    points = session.map.points
    of_b = points[12:]
    low, high = of_b.min(0) - 0.1, of_b.max(0) + 0.1
    session.choose_inside(np.array([low, (low[0], high[1]), high, (high[0], low[1])]))
    assert [well for _, well in session.wells.chosen] == WELLS[12:]
    assert list(session.listed.table["well"]) == WELLS[12:]
    assert session.wells.results.chosen.words == "12 wells: 12 images"
    session.choose_inside(np.array([[900.0, 900], [901, 900], [901, 901]]))
    assert session.wells.chosen == ()
    assert session.listed.words == "0 wells inside the line"


def test_what_is_said_of_other_results_goes(session):
    session.list_unexplained()
    waiting = session.worker.waiting[0]
    session.wells.results.show_results(shown_results(screen_of()))
    assert not session.worker.waiting
    session.worker.finish(waiting)
    assert session.listed is None


def test_results_without_features_say_what_they_lack(session):
    few = screen_of().features.head(2)
    session.wells.results.show_results(shown_results(screen_of(few)))
    session.show()
    assert session.note == NEEDS_FEATURES
    assert not session.worker.waiting
