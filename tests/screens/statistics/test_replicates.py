"""Mean average precision against scikit-learn, and replicates that are alike or random."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from napari_milcnn.screens.statistics.replicates import average_precision, replicate_table


def test_average_precision_by_hand_and_by_scikit_learn():
    """Matches at the ranks 1 and 3: (1/1 + 2/3) / 2."""
    assert average_precision(np.array([True, False, True])) == pytest.approx(5 / 6)
    rng = np.random.default_rng(0)
    match = rng.random((20, 30)) < 0.3
    expected = [average_precision_score(row, -np.arange(30)) for row in match]
    assert average_precision(match) == pytest.approx(expected)


def wells(shift: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Profiles of 12 features: 20 controls, ten treatments of 4 wells, of which the first is shifted."""
    rng = np.random.default_rng(2)
    keys = np.array([""] * 20 + [f"t{i}" for i in range(10) for _ in range(4)], object)
    profiles = rng.normal(size=(60, 12))
    profiles[keys == "t0"] += shift * np.array([1, -1, 0, 1] * 3)
    return profiles, keys, keys == ""


def test_replicates_that_look_alike_are_found():
    found = replicate_table(*wells(4.0)).set_index("key")
    assert found.loc["t0", "mAP"] > 0.95
    assert found.loc["t0", "mAP q value"] < 0.02
    assert found.loc["t0", "replicate correlation"] > 0.7
    assert (found.drop("t0")["mAP p value"] < 0.05).sum() <= 2
    assert list(found["replicates"].unique()) == [4]


def test_random_rankings_have_uniform_p_values():
    """Under no effect the p-values spread evenly from 0 to 1."""
    rng = np.random.default_rng(5)
    keys = np.array([""] * 15 + [f"t{i}" for i in range(80) for _ in range(3)], object)
    p = replicate_table(rng.normal(size=(255, 6)), keys, keys == "")["mAP p value"]
    assert p.mean() == pytest.approx(0.5, abs=0.1)
    assert (p <= 0.1).mean() < 0.25


def test_what_cannot_be_ranked_has_gaps():
    """No controls: no precision. One well of a treatment: no row. Two features: no table. NaN: the well is left out."""
    profiles, keys, controls = wells(4.0)
    found = replicate_table(profiles, keys, np.zeros(60, bool))
    assert found["mAP"].isna().all()
    assert found["replicate correlation"].notna().all()
    single = keys.copy()
    single[keys == "t1"] = ["t1", "u", "v", "w"]
    assert "u" not in set(replicate_table(profiles, single, controls)["key"])
    assert not len(replicate_table(profiles[:, :2], keys, controls))
    profiles[20] = np.nan
    assert replicate_table(profiles, keys, controls).set_index("key").loc["t0", "replicates"] == 3
