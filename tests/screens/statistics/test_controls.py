"""Robust z and p against the controls of a plate, Z' and SSMD: worked numbers, and what cannot be computed is said."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from napari_milcnn.screens.statistics.controls import control_scale, log_odds, p_values, robust_z
from napari_milcnn.screens.statistics.scores import ssmd, ssmd_of_treatment, z_prime

NAN = math.nan


def test_robust_z_by_hand():
    """Median 3, absolute deviations 2 1 0 1 97: their median is 1, whatever the outlier is."""
    scale = control_scale(np.array([1.0, 2, 3, 4, 100]))
    assert (scale.median, scale.spread, scale.problem) == (3, 1.4826, "")
    assert robust_z(np.array([3, 3 + 1.4826, NAN]), scale)[:2] == pytest.approx([0, 1])
    spread = stats.median_abs_deviation([1.0, 2, 3, 4, 100], scale=1 / 1.4826)
    assert scale.spread == pytest.approx(spread)


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ([], "no negative control; expected at least 4"),
        ([1.0], "1 negative control; expected at least 4"),
        ([1.0, 2.0, 3.0, NAN], "3 negative controls (1 more failed); expected at least 4"),
        ([1.0, 1.0, 1.0, 5.0], "at least half of the negative controls have the same value"),
        ([0.0] * 8, "at least half of the negative controls have the same value"),
    ],
)
def test_what_cannot_be_compared_is_said(values, problem):
    scale = control_scale(np.array(values))
    assert scale.problem == problem
    assert np.isnan(robust_z(np.array([1.0, 2.0]), scale)).all()


@pytest.mark.parametrize("controls", [4, 8, 32])
def test_p_values_of_inactive_wells_are_not_too_small(controls):
    """Of inactive wells 5 % have a p of at most .05, and no more than .5 % one of .005, with few controls, too."""
    rng = np.random.default_rng(0)
    p = []
    for _ in range(800):
        scale = control_scale(rng.normal(7, 3, controls))
        p.append(p_values(robust_z(rng.normal(7, 3, 40), scale), scale.count))
    p = np.concatenate(p)
    assert (p <= 0.05).mean() == pytest.approx(0.05, rel=0.15)
    assert (p <= 0.005).mean() < 0.006


def test_controls_with_wide_tails_make_no_small_p_values_of_inactive_wells():
    """Of Cauchy-like values a tenth lies far out; z does not know, p does. Gaussian controls keep their p."""
    rng = np.random.default_rng(0)
    small = {True: 0.0, False: 0.0}
    for _ in range(300):
        values = rng.standard_t(1.5, 64)
        scale = control_scale(values[:24])
        z = robust_z(values[24:], scale)
        small[True] += (p_values(z, scale.count, tail=scale.tail) <= 0.01).mean() / 300
        small[False] += (p_values(z, scale.count) <= 0.01).mean() / 300
    assert small[True] < 0.035
    assert small[False] > 1.5 * small[True]
    assert control_scale(np.linspace(-1, 1, 25)).tail == 1


def test_p_value_of_many_controls_is_that_of_the_normal_distribution():
    assert p_values(np.array([1.645]), 100_000)[0] == pytest.approx(0.05, rel=0.01)
    assert np.isnan(p_values(np.array([3.0]), 3)[0])


def test_log_odds_are_finite_and_symmetric():
    found = log_odds(np.array([0.0, 0.2, 0.8, 1.0, NAN]))
    assert found[1] == pytest.approx(math.log(0.25))
    assert found[:4] == pytest.approx(-found[3::-1])
    assert np.isfinite(found[:4]).all()
    assert np.isnan(found[4])


def test_z_prime_and_ssmd_by_hand():
    """Means 10 and 0, both with a standard deviation of 1: Z' = 1 - 6/10, SSMD = 10 / sqrt(2)."""
    high, low = np.array([9.0, 10, 11]), np.array([-1.0, 0, 1, NAN])
    assert z_prime(high, low) == pytest.approx(0.4)
    assert z_prime(low, high) == pytest.approx(0.4)
    assert ssmd(high, low) == pytest.approx(10 / math.sqrt(2))
    assert ssmd(low, high) == pytest.approx(-10 / math.sqrt(2))


def test_one_well_or_equal_wells_have_no_spread():
    assert math.isnan(z_prime(np.array([1.0]), np.array([0.0, 1, 2])))
    assert math.isnan(ssmd(np.array([1.0, 1.0]), np.array([1.0, 1.0])))
    assert z_prime(np.array([0.0, 2]), np.array([0.0, 2])) == -math.inf


def test_ssmd_of_a_treatment():
    """One well of z = 3 has 3 / sqrt(2); wells of 2 and 4 have a variance of 2: 3 / sqrt(3)."""
    assert ssmd_of_treatment(np.array([3.0])) == pytest.approx(3 / math.sqrt(2))
    assert ssmd_of_treatment(np.array([2.0, 4.0, NAN])) == pytest.approx(3 / math.sqrt(3))
    assert math.isnan(ssmd_of_treatment(np.array([NAN])))
