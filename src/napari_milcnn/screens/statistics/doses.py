"""Dose response: a four-parameter logistic curve, with intervals over wells, or no response.

Response = bottom + (top - bottom) / (1 + (EC50 / dose)^slope), with bottom at dose 0 and top at a dose without end; top
may lie below bottom. Decisions:

- There is a response only if the curve fits better than a flat line, by the F test of the extra sum of squares at 5 %
  (Motulsky & Christopoulos 2004, Fitting models to biological data, ch. 22), and if it changes by `least_change` or
  more from dose 0 to the highest dose: with many wells, a change that means nothing is sure, too.
- Intervals come from a bootstrap that draws wells within each dose (Efron & Tibshirani 1993): fields of a well, and
  cells, are not independent. An interval of doses without a second well would be one of the residuals only, so that
  no interval is given unless four doses have one, and it is said why.
- EC50 is looked for between the lowest and the highest dose above 0. One at either end is not an EC50 but a limit.
- Slopes are limited to `STEEPEST`: steps of dose of two and more cannot tell a steeper curve from it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy import stats
from scipy.optimize import curve_fit

FEWEST_DOSES = 4
"""Doses above 0 that a curve needs, and one value more than it has parameters."""
FLATTEST, STEEPEST = 0.2, 8.0
"""Range of the Hill slope."""
LEVEL = 0.05
"""Level of the F test against a flat line."""
NO_RESPONSE = "no response: a flat line fits as well"
NO_INTERVAL = "no interval"
"""How a sentence begins that says why there is none."""
_PARAMETERS = 4
_AT_LIMIT, _REACHED = 1e-2, 0.8
_GRID = 200, 12
"""Number of EC50 and of slopes that are tried: over four decades, EC50 in steps of 5 %."""


@dataclass(frozen=True)
class DoseCurve:
    """A dose response, or why there is none.

    Attributes
    ----------
    bottom, top, ec50, slope : float
        The curve; NaN where there is none.
    p_value : float
        That a flat line fits as well; NaN where it was not tested.
    ec50_interval, top_interval : tuple of float
        95 % interval over wells; NaN where there is none.
    wells, doses : int
        Number of wells with a value, and of doses above 0.
    problem : str
        Why there is no curve or no interval, or in what the curve is a limit only; empty if all is well.
    """

    bottom: float = math.nan
    top: float = math.nan
    ec50: float = math.nan
    slope: float = math.nan
    p_value: float = math.nan
    ec50_interval: tuple[float, float] = (math.nan, math.nan)
    top_interval: tuple[float, float] = (math.nan, math.nan)
    wells: int = 0
    doses: int = 0
    problem: str = ""

    @property
    def has_response(self) -> bool:
        """Whether there is a curve."""
        return math.isfinite(self.ec50)

    def without_response(self, problem: str) -> DoseCurve:
        """Return the same without a curve, for a reason."""
        return DoseCurve(p_value=self.p_value, wells=self.wells, doses=self.doses, problem=problem)

    def at(self, dose: np.ndarray) -> np.ndarray:
        """Return the response at some doses (doses,)."""
        return hill(dose, self.bottom, self.top, math.log10(self.ec50), self.slope)


def hill(dose: np.ndarray, bottom: float, top: float, log_ec50: float, slope: float) -> np.ndarray:
    """Return bottom + (top - bottom) / (1 + (EC50 / dose)^slope), with log_ec50 = log10(EC50); bottom at dose 0."""
    dose = np.asarray(dose, float)
    share = np.zeros_like(dose)
    above = dose > 0
    share[above] = 1 / (1 + 10 ** np.clip(slope * (log_ec50 - np.log10(dose[above])), -300, 300))
    return bottom + (top - bottom) * share


def fit_doses(
    dose: np.ndarray, value: np.ndarray, *, limits: tuple[float, float] = (-np.inf, np.inf), least_change: float = 0.0,
    draws: int = 500, seed: int = 0,
) -> DoseCurve:  # fmt: skip
    """Fit a dose response to wells.

    Parameters
    ----------
    dose, value : ndarray
        Dose and value of each well, float (wells,); wells with NaN in either are left out.
    limits : tuple of float
        Lowest and highest response that is possible, such as (0, 1) for shares.
    least_change : float
        Least change from dose 0 to the highest dose that is a response.
    draws : int
        Number of draws of wells for the intervals; 0 for none.
    seed : int
        Random seed of the draws.
    """
    dose, value = np.asarray(dose, float), np.asarray(value, float)
    known = np.isfinite(dose) & np.isfinite(value) & (dose >= 0)
    dose, value = dose[known], value[known]
    doses = len(np.unique(dose[dose > 0]))
    count: dict[str, Any] = {"wells": len(dose), "doses": doses}
    if doses < FEWEST_DOSES or len(dose) <= _PARAMETERS:
        return DoseCurve(**count, problem=f"{doses} doses in {len(dose)} wells; expected at least {FEWEST_DOSES} doses "
                                          f"above 0 and {_PARAMETERS + 1} wells")  # fmt: skip
    fit = _fit(dose, value, limits)
    bottom, top, log_ec50, slope = fit.tolist()
    curve = DoseCurve(bottom, top, 10**log_ec50, slope, _flat_p(value, value - hill(dose, *fit)), **count)
    if not curve.p_value < LEVEL:
        return curve.without_response(NO_RESPONSE)
    change = abs(float(curve.at(dose.max())) - bottom)
    if change < least_change:
        return curve.without_response(f"no response: it changes by {change:.2g}, which is less than {least_change:g}")
    ec50_interval, top_interval = _intervals_over_wells(dose, value, limits, draws, seed)
    problem = "; ".join(filter(None, [_limit_of(dose, log_ec50, slope), _why_no_interval(dose) if draws else ""]))
    return replace(curve, ec50_interval=ec50_interval, top_interval=top_interval, problem=problem)


def _why_no_interval(dose: np.ndarray) -> str:
    """Say why there are no intervals over wells; empty where there are."""
    counts = np.unique(dose, return_counts=True)[1]
    several = int((counts > 1).sum())
    if several >= FEWEST_DOSES:
        return ""
    return f"{NO_INTERVAL}: {several} of {len(counts)} doses have a second well; expected at least {FEWEST_DOSES}"


def _limit_of(dose: np.ndarray, log_ec50: float, slope: float) -> str:
    """Say where a curve is a limit only: the doses do not reach far enough; empty where they do."""
    low, high = np.log10(dose[dose > 0].min()), np.log10(dose.max())
    if min(log_ec50 - low, high - log_ec50) < _AT_LIMIT * max(high - low, 1):
        return f"EC50 is at or beyond the {'highest' if high - log_ec50 < log_ec50 - low else 'lowest'} dose"
    reached = float(hill(np.array([dose.max()]), 0, 1, log_ec50, slope)[0])
    if reached < _REACHED:
        return f"the highest dose reaches {reached:.0%} of the change: EC50 and top are extrapolated"
    return ""


def _fit(dose: np.ndarray, value: np.ndarray, limits: tuple[float, float]) -> np.ndarray:
    """Return bottom, top, log10 EC50 and slope of the best curve: the best of a grid, refined."""
    reach = max(float(np.ptp(value)), 1e-9)
    low, high = max(limits[0], float(value.min()) - reach), min(limits[1], float(value.max()) + reach)
    least, most = np.log10(dose[dose > 0].min()), np.log10(dose.max())
    low_ends, high_ends = np.array([low, low, least, FLATTEST]), np.array([high, high, most, STEEPEST])
    start: np.ndarray = _grid_fits(dose, value, np.ones((len(dose), 1)), limits)[0]
    inside = start.clip(low_ends + 1e-6 * (high_ends - low_ends), high_ends - 1e-6 * (high_ends - low_ends))
    try:
        found: np.ndarray = curve_fit(hill, dose, value, inside, bounds=(low_ends, high_ends), max_nfev=500)[0]
    except RuntimeError:  # no convergence: the best of the grid stands
        return start
    better = ((value - hill(dose, *found)) ** 2).sum() <= ((value - hill(dose, *start)) ** 2).sum()
    return found if better else start


def _grid_fits(dose: np.ndarray, value: np.ndarray, weights: np.ndarray, limits: tuple[float, float]) -> np.ndarray:
    """Return the best curve of a grid of EC50 and slope for several weights of the wells.

    For one EC50 and slope the curve is linear in bottom and top, which are then found by weighted least squares.

    Parameters
    ----------
    dose, value : ndarray
        Wells, float (wells,).
    weights : ndarray
        How often each well counts, (wells, draws).
    limits : tuple of float
        Lowest and highest response.

    Returns
    -------
    ndarray
        bottom, top, log10 EC50 and slope, (draws, 4).
    """
    least, most = np.log10(dose[dose > 0].min()), np.log10(dose.max())
    ec50, slope = (axis.ravel() for axis in np.meshgrid(
        np.linspace(least, most, _GRID[0]), np.geomspace(FLATTEST, STEEPEST, _GRID[1])))  # fmt: skip
    share = np.stack([hill(dose, 0, 1, *one) for one in zip(ec50, slope, strict=True)])
    n, y, yy = weights.sum(0), weights.T @ value, weights.T @ value**2
    x, xx, xy = share @ weights, share**2 @ weights, (share * value) @ weights
    change = (n * xy - x * y) / np.maximum(n * xx - x**2, 1e-12)
    bottom = ((y - change * x) / n).clip(*limits)
    top = (bottom + change).clip(*limits)
    change = top - bottom
    cost = yy - 2 * bottom * y - 2 * change * xy + bottom**2 * n + 2 * bottom * change * x + change**2 * xx
    best = cost.argmin(0)
    draws = np.arange(weights.shape[1])
    return np.stack([bottom[best, draws], top[best, draws], ec50[best], slope[best]], axis=1)


def _flat_p(value: np.ndarray, rest: np.ndarray) -> float:
    """Return the p-value of the F test of a curve, with residuals `rest`, against the mean of the values (wells,)."""
    flat, curve = float(((value - value.mean()) ** 2).sum()), float((rest**2).sum())
    free = len(value) - _PARAMETERS
    if flat <= 1e-12 * max(1.0, float((value**2).sum())):
        return 1.0
    if curve <= 1e-12 * flat:
        return 0.0
    return float(stats.f.sf((flat - curve) / (_PARAMETERS - 1) / (curve / free), _PARAMETERS - 1, free))


def _intervals_over_wells(
    dose: np.ndarray, value: np.ndarray, limits: tuple[float, float], draws: int, seed: int
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return the 95 % intervals of EC50 and top over draws of wells within each dose."""
    nothing = (math.nan, math.nan)
    groups = [np.flatnonzero(dose == one) for one in np.unique(dose)]
    if draws < 1 or _why_no_interval(dose):
        return nothing, nothing
    rng = np.random.default_rng(seed)
    weights = np.zeros((len(dose), draws))
    for group in groups:
        weights[group] = rng.multinomial(len(group), np.full(len(group), 1 / len(group)), draws).T
    found = _grid_fits(dose, value, weights, limits)
    (low, high), (top_low, top_high) = np.quantile(found[:, [2, 1]], (0.025, 0.975), axis=0).T.tolist()
    return (10**low, 10**high), (top_low, top_high)
