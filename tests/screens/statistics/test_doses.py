"""Dose responses: known curves are found again, with intervals that hold the truth; a flat line is no response."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from napari_milcnn.options import StatisticsOptions
from napari_milcnn.screens.outputs.dose_pictures import dose_pictures, doses_in_words
from napari_milcnn.screens.statistics.analyse import dose_table
from napari_milcnn.screens.statistics.doses import NO_RESPONSE, STEEPEST, fit_doses, hill

DOSES = np.repeat(np.geomspace(0.01, 100, 12), 3)


def test_hill_by_hand():
    """At the EC50 half of the way; at dose 0 the bottom; with slope 1 at three times the EC50 three quarters."""
    found = hill(np.array([0, 2.0, 6.0]), 0.1, 0.9, math.log10(2), 1)
    assert found == pytest.approx([0.1, 0.5, 0.7])


@pytest.mark.parametrize(("bottom", "top"), [(0.05, 0.9), (0.9, 0.1)])
def test_a_known_curve_is_found_again(bottom, top):
    """Rising and falling; the intervals over wells hold the true values and are not the whole range."""
    rng = np.random.default_rng(3)
    value = hill(DOSES, bottom, top, math.log10(1.5), 1.6) + rng.normal(0, 0.03, len(DOSES))
    curve = fit_doses(DOSES, value, limits=(0, 1), draws=60)
    assert curve.has_response
    assert curve.ec50 == pytest.approx(1.5, rel=0.15)
    assert (curve.bottom, curve.top) == pytest.approx((bottom, top), abs=0.04)
    assert curve.slope == pytest.approx(1.6, rel=0.25)
    low, high = curve.ec50_interval
    assert low < 1.5 < high < 3 * low
    assert curve.top_interval[0] < top < curve.top_interval[1]
    assert curve.at(np.array([0.0])) == pytest.approx([curve.bottom])
    assert (curve.wells, curve.doses, curve.problem) == (36, 12, "")


def test_flat_lines_are_no_response():
    """Of 20 flat lines about one in twenty passes for a response at a level of 5 %."""
    rng = np.random.default_rng(0)
    curves = [fit_doses(DOSES, rng.normal(0.3, 0.05, len(DOSES)), draws=0) for _ in range(20)]
    assert sum(curve.has_response for curve in curves) <= 4
    flat = next(curve for curve in curves if not curve.has_response)
    assert flat.problem == NO_RESPONSE
    assert math.isnan(flat.ec50)
    assert fit_doses(DOSES, np.full(len(DOSES), 0.5)).problem == NO_RESPONSE


def test_a_response_that_only_begins_is_a_limit():
    """Doses up to the EC50, and up to a tenth of it: what the curve says beyond them is said to be extrapolated."""
    noise = np.random.default_rng(1).normal(0, 0.002, len(DOSES))
    for ec50 in (100, 1000):
        curve = fit_doses(DOSES, hill(DOSES, 0, 1, math.log10(ec50), 1.5) + noise, draws=0)
        assert "EC50" in curve.problem
        assert "extrapolated" in curve.problem or "at or beyond the highest dose" in curve.problem


def test_a_step_has_the_steepest_slope_and_no_interval_without_replicates():
    dose = np.geomspace(0.1, 100, 10)
    curve = fit_doses(dose, (dose > 3).astype(float), limits=(0, 1))
    assert curve.slope == pytest.approx(STEEPEST, rel=0.01)
    assert math.isnan(curve.ec50_interval[0])
    assert curve.problem == "no interval: 0 of 10 doses have a second well; expected at least 4"
    controls = fit_doses(np.r_[dose, 0, 0], np.r_[(dose > 3).astype(float), 0, 0])
    assert controls.problem == "no interval: 1 of 11 doses have a second well; expected at least 4"


def test_a_change_that_means_nothing_is_no_response():
    """However sure it is: it has no EC50, and its size is said. What counts is the change up to the highest dose."""
    noise = np.random.default_rng(5).normal(0, 0.001, len(DOSES))
    small = fit_doses(DOSES, hill(DOSES, 0.01, 0.03, 0, 1.5) + noise, limits=(0, 1), least_change=0.05, draws=0)
    assert small.p_value < 1e-6
    assert small.problem == "no response: it changes by 0.02, which is less than 0.05"
    assert not small.has_response
    begins = hill(DOSES, 0.01, 0.5, math.log10(2000), 1.5) + noise
    assert not fit_doses(DOSES, begins, limits=(0, 1), least_change=0.05, draws=0).has_response
    assert fit_doses(DOSES, begins, limits=(0, 1), draws=0).has_response


def test_too_few_doses_are_said():
    curve = fit_doses(np.array([0, 0, 1, 1, 2, 2, 3.0]), np.arange(7.0))
    assert curve.problem == "3 doses in 7 wells; expected at least 4 doses above 0 and 5 wells"
    assert fit_doses(np.array([]), np.array([])).wells == 0
    assert fit_doses(DOSES, np.full(len(DOSES), np.nan)).wells == 0


def test_table_of_doses_and_its_pictures():
    """Two compounds: one rises, one does nothing. Negative controls of the plate are dose 0."""
    rng = np.random.default_rng(4)
    value = np.concatenate([hill(DOSES, 0.05, 0.9, 0, 1.5), np.full(len(DOSES), 0.05), np.full(8, 0.05)])
    wells = pd.DataFrame({
        "plate": "P", "treatment": ["up"] * 36 + ["idle"] * 36 + [""] * 8, "dose": [*DOSES, *DOSES, *[np.nan] * 8],
        "control": [""] * 72 + ["negative"] * 8, "score x": (value + rng.normal(0, 0.02, 80)).clip(0, 1),
    })  # fmt: skip
    table = dose_table(wells, ["x"], StatisticsOptions()).set_index("treatment")
    assert list(table["wells"]) == [44, 44]
    assert table.loc["up", "EC50"] == pytest.approx(1, rel=0.1)
    assert table.loc["up", "EC50 low"] < table.loc["up", "EC50"] < table.loc["up", "EC50 high"]
    assert table.loc["idle", "note"] == NO_RESPONSE
    ((heading, picture),) = dose_pictures(wells, table.reset_index())
    assert heading.startswith("up, x: EC50 ")
    assert picture.startswith("data:image/svg+xml")
    (sentence,) = doses_in_words(table.reset_index())
    assert sentence == "No response for any class: 1 of 2 treatments (idle). doses.csv says why."
    assert not len(dose_table(wells.drop(columns="dose"), ["x"], StatisticsOptions()))
    assert doses_in_words(dose_table(wells.drop(columns="dose"), ["x"], StatisticsOptions())) == []


def test_why_there_is_no_interval_is_said_once_for_all_pictures():
    """One well a dose: each picture says that there is none, the sentence above them why, and the table both."""
    dose = np.geomspace(0.1, 150, 10)
    wells = pd.DataFrame({
        "plate": "P", "treatment": np.repeat(["a", "b"], 10), "dose": np.tile(dose, 2), "control": "",
        "score x": np.tile(hill(dose, 0.1, 0.9, 0.3, 2), 2) + np.random.default_rng(1).normal(0, 0.01, 20),
    })  # fmt: skip
    table = dose_table(wells, ["x"], StatisticsOptions())
    headings = [heading for heading, _ in dose_pictures(wells, table)]
    assert [heading.rpartition("; ")[2] for heading in headings] == ["no interval"] * 2
    assert doses_in_words(table) == [
        "No interval: 0 of 10 doses have a second well; expected at least 4 (2 responses)."
    ]
    assert table["note"].str.endswith("0 of 10 doses have a second well; expected at least 4").all()


def test_of_many_curves_of_noise_hardly_any_is_a_response():
    """Each has a chance of 5 % by itself; together they are held to the false-discovery rate. None has an EC50."""
    rng = np.random.default_rng(2)
    wells = pd.DataFrame({
        "plate": "P", "treatment": np.repeat([f"t{number}" for number in range(40)], 12),
        "dose": np.tile(np.geomspace(0.01, 100, 12), 40), "control": "", "score x": rng.uniform(0.1, 0.6, 480),
    })  # fmt: skip
    table = dose_table(wells, ["x"], StatisticsOptions())
    assert (table["p value"] < 0.05).any()
    assert table["EC50"].isna().all()
    assert (table["note"] == NO_RESPONSE).all()
    assert not list(dose_pictures(wells, table))
