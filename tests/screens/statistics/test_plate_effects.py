"""Median polish by hand and effects of places; rows that hold controls only are left as they are."""

from __future__ import annotations

import numpy as np
import pytest

from napari_milcnn.screens.statistics.plate_effects import place_effects, polished_effects

NAN = float("nan")


def test_an_additive_plate_is_polished_flat():
    """Rows that differ by 0, 1, 2, 3 and columns by 0, 10, ... are all effect: what is left is one number."""
    grid = np.arange(4.0)[:, None] + 10 * np.arange(5.0)
    left = grid - polished_effects(grid)
    assert left == pytest.approx(np.full((4, 5), np.median(grid)))


def test_a_hit_survives_the_polish():
    rng = np.random.default_rng(0)
    grid = rng.normal(0, 0.1, (8, 12)) + np.linspace(0, 3, 12)
    grid[3, 4] += 5
    left = grid - polished_effects(grid)
    assert left[3, 4] - np.median(left) > 4.5
    assert np.delete(left.ravel(), 3 * 12 + 4).std() < 0.3


def test_a_column_with_few_wells_keeps_its_values():
    """Of column 0 only three wells are measured: they may be high because of what they hold."""
    grid = np.zeros((8, 12))
    grid[:, 0] = NAN
    grid[:3, 0] = 9
    assert polished_effects(grid)[:, 0] == pytest.approx(np.zeros(8))
    assert not polished_effects(np.full((8, 12), NAN)).any()


def test_edge_rows_and_columns_are_measured():
    rng = np.random.default_rng(1)
    grid = rng.normal(0, 1, (16, 24))
    flat = place_effects(grid)
    assert min(flat.edge_p, flat.row_p, flat.column_p) > 0.01
    grid[0] += 4
    grid[:, -1] += 4
    found = place_effects(grid)
    assert found.edge > 1
    assert max(found.edge_p, found.row_p, found.column_p) < 1e-3
    assert found.row_spread == pytest.approx(1, abs=0.3)  # one median of 16 is raised by 4


def test_a_plate_of_one_well_or_of_equal_wells_has_no_effect():
    one = place_effects(np.array([[0.5]]))
    assert np.isnan([*one]).all()
    equal = place_effects(np.full((8, 12), 0.5))
    assert (equal.edge, equal.row_spread, equal.column_spread) == (0, 0, 0)
    assert (equal.row_p, equal.column_p) == (1, 1)
