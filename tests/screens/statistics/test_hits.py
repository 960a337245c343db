"""Hits: which wells are tested together, Benjamini-Hochberg by hand, the share of false hits on simulated plates."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from napari_milcnn.errors import OptionsError
from napari_milcnn.options import StatisticsOptions
from napari_milcnn.screens.statistics.analyse import analyse_wells, edge_sentences
from napari_milcnn.screens.statistics.hits import adjusted, combined, doses_together, treatment_keys

NAMES = [f"{row}{column:02}" for row in "ABCDEFGHIJKLMNOP" for column in range(1, 25)]


def plates(count: int = 2, seed: int = 0, **changes: object) -> pd.DataFrame:
    """Plates of 384 wells: 24 negative and 12 positive controls, 30 of 174 treatments active, each in two wells."""
    rng = np.random.default_rng(seed)
    found = []
    for plate in range(count):
        kinds = np.array(["negative"] * 24 + ["positive"] * 12 + [""] * 348)
        treatments = np.array([""] * 36 + [f"c{i // 2}" for i in range(348)])
        order = rng.permutation(384)
        kinds, treatments = kinds[order], treatments[order]
        active = np.isin(treatments, [f"c{i}" for i in range(30)]) | (kinds == "positive")
        odds = rng.normal(-4, 0.5, 384) + 4 * active + 3 * plate
        found.append(pd.DataFrame({
            "plate": f"P{plate}", "well": NAMES, "control": kinds, "treatment": treatments,
            "score x": 1 / (1 + np.exp(-odds)), "mean score x": 0.5, "active": active,
        }))  # fmt: skip
    return pd.concat(found, ignore_index=True).assign(**changes)


def test_benjamini_hochberg_by_hand():
    assert adjusted(np.array([0.01, 0.04, 0.03, 0.5])) == pytest.approx([0.04, 0.16 / 3, 0.16 / 3, 0.5])
    assert len(adjusted(np.array([]))) == 0


def test_stouffer():
    expected = stats.norm.sf(2 * stats.norm.isf(0.1) / np.sqrt(2))
    assert combined(np.array([0.1, 0.1, np.nan])) == pytest.approx(expected)
    assert combined(np.array([0.2])) == 0.2
    assert np.isnan(combined(np.array([np.nan])))
    assert 0 < combined(np.array([0.0, 0.0])) < 1e-100


def test_what_is_tested_together():
    """Wells agree in treatment, dose and strain; a dose alone is no treatment; controls are not tested."""
    wells = pd.DataFrame({
        "plate": "P", "well": ["A01", "A02", "A03", "A04", "A05", "A06"],
        "treatment": ["a", "a", "a", "", "", "b"], "dose": [1.0, 1.0, 2.0, 1.0, np.nan, 1.0],
        "control": ["", "", "", "", "", "negative"],
    })  # fmt: skip
    keys = list(treatment_keys(wells))
    assert keys[0] == keys[1] != keys[2]
    assert keys[3:] == ["P A04", "P A05", ""]


def test_hits_are_found_in_spite_of_differences_between_plates():
    """At 5 % few hits are false, and nearly all active treatments are found, although plate P1 is far brighter."""
    found = analyse_wells(plates(), StatisticsOptions())
    hits = found.treatments[found.treatments["hit"]]
    true = hits["treatment"].isin([f"c{i}" for i in range(30)])
    assert true.sum() == 30
    assert (~true).sum() <= 4
    assert list(found.treatments["wells"].unique()) == [4]
    wells = found.wells[found.wells["control"] == ""]
    assert wells.groupby("treatment")["hit x"].nunique().eq(1).all()
    assert not found.wells.loc[found.wells["control"] != "", "hit x"].any()
    good = found.plates
    assert (good["Z'"] < 1).all()
    assert good["SSMD"].between(4, 8).all()
    assert list(good["negative controls"]) == [24, 24]
    assert not found.notes


def test_inactive_screens_have_hardly_any_hit():
    found = [analyse_wells(plates(1, seed).query("control != 'positive' and not active"), StatisticsOptions())
             for seed in range(5)]  # fmt: skip
    assert np.mean([one.treatments["hit"].any() for one in found]) <= 0.2


def test_a_plate_without_controls_is_said_and_has_no_hits():
    table = plates()
    table.loc[table["plate"] == "P1", "control"] = ""
    found = analyse_wells(table, StatisticsOptions())
    assert found.notes == (
        "There are no z scores, p-values or hits on 1 of 2 plates, such as P1: no negative control; "
        "expected at least 4",
    )
    assert found.wells.loc[found.wells["plate"] == "P1", "z x"].isna().all()
    assert found.treatments["hit"].sum() > 20  # from the other plate


def test_a_screen_without_a_layout_or_with_one_well():
    """One well and no layout: no z, no hit, no error, and a sentence; another if its features were to be sphered."""
    wells = pd.DataFrame({"plate": [""], "well": ["A01"], "score x": [0.3]})
    found = analyse_wells(wells, StatisticsOptions())
    assert np.isnan(found.wells["z x"].iloc[0])
    assert not found.wells["hit x"].iloc[0]
    assert not found.treatments["hit"].any()
    assert len(found.notes) == 1
    told = analyse_wells(wells, StatisticsOptions(sphere_features=True)).notes
    assert "not sphered: the screen has 0 negative controls; expected at least 10" in told[-1]
    assert not len(found.doses)


def test_wells_of_no_known_place_are_compared_all_the_same():
    table = plates(1).assign(well=[f"spot {i}" for i in range(384)])
    found = analyse_wells(table, StatisticsOptions(remove_plate_effects=True))
    assert found.treatments["hit"].sum() >= 28


def test_a_score_that_is_not_there_is_refused():
    with pytest.raises(OptionsError, match="well_score is 'bag', but the wells have no column 'bag score x'"):
        analyse_wells(plates(1), StatisticsOptions(well_score="bag"))


def test_positive_controls_of_a_class_are_those_with_its_label():
    """Two classes: only the positive controls that are labelled y count for y."""
    table = plates(1).assign(**{"score y": 0.4})
    table["label"] = np.where(table["control"] == "positive", "x", "")
    table.loc[table.index[table["control"] == "positive"][:5], "label"] = "y"
    found = analyse_wells(table, StatisticsOptions()).plates.set_index("class")
    assert found["positive controls"].to_dict() == {"x": 7, "y": 5}


def test_an_edge_effect_is_said_and_removed_where_asked_for():
    """Wells of row A and of column 1 score higher by their place alone; after polishing they do not."""
    table = plates(1, seed=3).query("not active").copy()
    odds = np.log(table["score x"] / (1 - table["score x"]))
    raised = odds + 3 * (table["well"].str[0] == "A") + 3 * (table["well"].str[1:] == "01")
    table["score x"] = 1 / (1 + np.exp(-raised))
    shown, removed = (analyse_wells(table, StatisticsOptions(remove_plate_effects=one)) for one in (False, True))
    assert "edge score higher for x" in edge_sentences(shown.plates)[0]
    at_edge = shown.wells["well"].str[0] == "A"
    assert shown.wells.loc[at_edge, "z x"].median() > 4
    assert abs(removed.wells.loc[at_edge, "z x"].median()) < 1


def test_the_doses_of_a_treatment_are_one_row_and_wells_without_treatment_stay_apart():
    hits = pd.DataFrame({
        "treatment": ["taxol", "DMSO", "taxol", np.nan, np.nan], "dose": [10.0, np.nan, 0.1, np.nan, np.nan],
        "class": "x", "q value": [0.001, 0.002, 0.003, 0.004, 0.005],
    })  # fmt: skip
    found = doses_together(hits)
    assert list(found["hit at doses"]) == ["2: 0.1 to 10", "", "", ""]
    assert list(found["q value"]) == [0.001, 0.002, 0.004, 0.005]
    assert list(doses_together(hits.assign(dose=np.nan))) == list(hits)
