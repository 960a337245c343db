"""Dose response: a four-parameter logistic curve, with intervals over wells, or no response.

Response = bottom + (top - bottom) / (1 + (EC50 / dose)^slope), with bottom at dose 0 and top at a dose without end; top
may lie below bottom. Decisions:

- There is a response only if the curve fits better than a flat line, by the F test of the extra sum of squares at 5 %
  (Motulsky & Christopoulos 2004, Fitting models to biological data, ch. 22).
- Intervals come from a bootstrap that draws wells within each dose (Efron & Tibshirani 1993): fields of a well, and
  cells, are not independent. An interval of doses without a second well would be one of the residuals only, so that
  without any replicate no interval is given.
- EC50 is looked for between the lowest and the highest dose above 0. One at either end is not an EC50 but a limit.
- Slopes are limited to `STEEPEST`: steps of dose of two and more cannot tell a steeper curve from it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import stats
from scipy.optimize import curve_fit

FEWEST_DOSES = 4
"""Doses above 0 that a curve needs, and one value more than it has parameters."""
FLATTEST, STEEPEST = 0.2, 8.0
"""Range of the Hill slope."""
LEVEL = 0.05
"""Level of the F test against a flat line."""
NO_RESPONSE = "no dose response: a flat line fits as well"
_PARAMETERS = 4
_AT_LIMIT = 1e-3


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
        Why there is no curve, or in what it is a limit only; empty if all is well.
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
    dose: np.ndarray, value: np.ndarray, *, limits: tuple[float, float] = (-np.inf, np.inf), draws: int = 200,
    seed: int = 0,
) -> DoseCurve:  # fmt: skip
    """Fit a dose response to wells.

    Parameters
    ----------
    dose, value : ndarray
        Dose and value of each well, float (wells,); wells with NaN in either are left out.
    limits : tuple of float
        Lowest and highest response that is possible, such as (0, 1) for shares.
    draws : int
        Number of draws of wells for the intervals; 0 for none.
    seed : int
        Random seed of the draws.
    """
    dose, value = np.asarray(dose, float), np.asarray(value, float)
    known = np.isfinite(dose) & np.isfinite(value) & (dose >= 0)
    dose, value = dose[known], value[known]
    doses = len(np.unique(dose[dose > 0]))
    count = {"wells": len(dose), "doses": doses}
    if doses < FEWEST_DOSES or len(dose) <= _PARAMETERS:
        return DoseCurve(**count, problem=f"{doses} doses in {len(dose)} wells; expected at least {FEWEST_DOSES} doses "
                                          f"above 0 and {_PARAMETERS + 1} wells")  # fmt: skip
    fit = _fit(dose, value, limits)
    p = _flat_p(value, value - hill(dose, *fit))
    if not p < LEVEL:
        return DoseCurve(p_value=p, **count, problem=NO_RESPONSE)
    bottom, top, log_ec50, slope = fit.tolist()
    low, high = np.log10(dose[dose > 0].min()), np.log10(dose.max())
    problem = ""
    if min(log_ec50 - low, high - log_ec50) < _AT_LIMIT * max(high - low, 1):
        at = "highest" if high - log_ec50 < log_ec50 - low else "lowest"
        problem = f"EC50 is at or beyond the {at} dose"
    ec50_interval, top_interval = _intervals(dose, value, limits, draws, seed)
    return DoseCurve(bottom, top, 10**log_ec50, slope, p, ec50_interval, top_interval, **count, problem=problem)


def _fit(dose: np.ndarray, value: np.ndarray, limits: tuple[float, float]) -> np.ndarray:
    """Return bottom, top, log10 EC50 and slope of the best of several starts."""
    reach = max(float(np.ptp(value)), 1e-9)
    low, high = max(limits[0], float(value.min()) - reach), min(limits[1], float(value.max()) + reach)
    least, most = np.log10(dose[dose > 0].min()), np.log10(dose.max())
    bounds = ([low, low, least, FLATTEST], [high, high, most, STEEPEST])
    nearest = value[dose <= np.quantile(dose, 0.25)].mean(), value[dose >= np.quantile(dose, 0.75)].mean()
    ends = np.clip(nearest, low + 1e-6 * reach, high - 1e-6 * reach)
    best, cost = np.array([value.mean(), value.mean(), (least + most) / 2, 1.0]), math.inf
    for log_ec50 in np.linspace(least, most, 5)[1:-1]:
        try:
            found = curve_fit(hill, dose, value, [*ends, log_ec50, 1.5], bounds=bounds, max_nfev=2000)[0]
        except RuntimeError:  # no convergence from this start
            continue
        new = float(((value - hill(dose, *found)) ** 2).sum())
        if new < cost:
            best, cost = found, new
    return best


def _flat_p(value: np.ndarray, rest: np.ndarray) -> float:
    """Return the p-value of the F test of a curve, with residuals `rest`, against the mean of the values (wells,)."""
    flat, curve = float(((value - value.mean()) ** 2).sum()), float((rest**2).sum())
    free = len(value) - _PARAMETERS
    if flat <= 1e-12 * max(1.0, float((value**2).sum())):
        return 1.0
    if curve <= 1e-12 * flat:
        return 0.0
    return float(stats.f.sf((flat - curve) / (_PARAMETERS - 1) / (curve / free), _PARAMETERS - 1, free))


def _intervals(
    dose: np.ndarray, value: np.ndarray, limits: tuple[float, float], draws: int, seed: int
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return the 95 % intervals of EC50 and top over draws of wells within each dose."""
    nothing = (math.nan, math.nan)
    groups = [np.flatnonzero(dose == one) for one in np.unique(dose)]
    if draws < 1 or sum(len(group) > 1 for group in groups) < FEWEST_DOSES:
        return nothing, nothing
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(draws):
        rows = np.concatenate([rng.choice(group, len(group)) for group in groups])
        _, top, log_ec50, _ = _fit(dose[rows], value[rows], limits)
        found.append((10**log_ec50, top))
    (ec50_low, top_low), (ec50_high, top_high) = np.quantile(found, (0.025, 0.975), axis=0).tolist()
    return (ec50_low, ec50_high), (top_low, top_high)
