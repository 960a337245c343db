"""Effects of the place of a well on its plate: edges, rows and columns, shown and, where asked for, removed.

What is shown for each plate: the difference between the outermost wells and the others, with the p-value of a
Mann-Whitney test, and the spread of rows and of columns, with the p-values of Kruskal-Wallis tests.

What is removed: row and column effects by Tukey's median polish (Tukey 1977; as in the B score, Brideau et al. 2003, J
Biomol Screen 8:634). The median of the plate stays as it is.

Decisions:

- Effects are measured on wells that are neither controls nor empty, since most of these do nothing and controls often
  fill whole columns: the difference between a column of positive controls and the others is no effect of its place.
- Nothing is removed from a row or column with fewer than `FEWEST_IN_LINE` such wells: its effect cannot be told from
  that of what it holds.
- A plate on which half of a row or more are hits loses some of their height with the row: hence only where asked for.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import stats

FEWEST_IN_LINE = 4
"""Wells of a row or column from which its effect is measured."""
_MOST_ROUNDS = 20
_TOLERANCE = 1e-6


class PlaceEffects(NamedTuple):
    """Effects of places on one plate, in the unit of the values; NaN where too few wells are there.

    Attributes
    ----------
    edge, edge_p : float
        Median of the outermost wells less that of the others, and the p-value that they do not differ.
    row_spread, row_p : float
        Standard deviation of the medians of rows, and the p-value that rows do not differ.
    column_spread, column_p : float
        The same for columns.
    """

    edge: float
    edge_p: float
    row_spread: float
    row_p: float
    column_spread: float
    column_p: float


def place_effects(grid: np.ndarray) -> PlaceEffects:
    """Measure the effects of places on a plate.

    Parameters
    ----------
    grid : ndarray
        Values of the wells that are measured, float (rows, columns); NaN elsewhere.
    """
    inner = grid[1:-1, 1:-1]
    border = np.ones(grid.shape, bool)
    border[1:-1, 1:-1] = False
    outer, inner = grid[border & np.isfinite(grid)], inner[np.isfinite(inner)]
    edge = edge_p = float("nan")
    if min(len(outer), len(inner)) >= FEWEST_IN_LINE:
        edge = float(np.median(outer) - np.median(inner))
        edge_p = float(stats.mannwhitneyu(outer, inner).pvalue)
    return PlaceEffects(edge, edge_p, *_line_effects(list(grid)), *_line_effects(list(grid.T)))


def _line_effects(lines: list[np.ndarray]) -> tuple[float, float]:
    """Return the spread of the medians of rows or columns, and the p-value that they do not differ."""
    known = [line[np.isfinite(line)] for line in lines]
    known = [line for line in known if len(line) >= FEWEST_IN_LINE]
    if len(known) < 2:
        return float("nan"), float("nan")
    medians = [float(np.median(line)) for line in known]
    every = np.concatenate(known)
    p = 1.0 if (every == every[0]).all() else float(stats.kruskal(*known).pvalue)
    return float(np.std(medians, ddof=1)), p


def polished_effects(grid: np.ndarray) -> np.ndarray:
    """Return the effect of row and column on each place by median polish, (rows, columns); their medians are 0.

    Parameters
    ----------
    grid : ndarray
        Values of the wells that are measured, float (rows, columns); NaN elsewhere. A row or column with few of them
        has the effect 0.
    """
    rows, columns = np.zeros(grid.shape[0]), np.zeros(grid.shape[1])
    known = np.isfinite(grid)
    use_row, use_column = known.sum(1) >= FEWEST_IN_LINE, known.sum(0) >= FEWEST_IN_LINE
    if not known.any():
        return np.zeros(grid.shape)
    rest = grid - np.median(grid[known])
    for _ in range(_MOST_ROUNDS):
        step = _medians(rest, use_row)
        rows, rest = rows + step, rest - step[:, None]
        across = _medians(rest.T, use_column)
        columns, rest = columns + across, rest - across
        if max(np.abs(step).max(), np.abs(across).max()) < _TOLERANCE:
            break
    effects = rows[:, None] + columns
    centred: np.ndarray = effects - np.median(effects[known])
    return centred


def _medians(lines: np.ndarray, used: np.ndarray) -> np.ndarray:
    found = np.zeros(len(lines))
    for i in np.flatnonzero(used):
        found[i] = np.nanmedian(lines[i])
    return found
