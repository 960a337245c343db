"""Values of wells compared with the negative controls of their own plate: robust z and p-value.

Robust z is the distance from the median of the negative controls of the plate in units of their spread, 1.4826 times
the median absolute deviation (Malo et al. 2006, Nat Biotechnol 24:167; Zhang 2011, J Biomol Screen 16:775).

The p-value is one-sided, that a well as inactive as the negative controls scores as high. Decisions:

- It comes from Student's t and not from ranks among the controls: a plate has 8 to 32 of them, so that no rank says
  less than about .03, which among 300 wells is never a discovery.
- It comes from t and not from the normal distribution, because median and spread of few controls are uncertain
  themselves. The relative variance of the spread is 1.36 / n (Rousseeuw & Croux 1993, J Am Stat Assoc 88:1273), as that
  of a standard deviation with 0.37 n degrees of freedom; that of the median adds pi / 2n.
- Where the controls of a plate have tails wider than those of the normal distribution, so that nine in ten of them lie
  further out than the spread says, p is that of z over so many times the spread (`tail`): without it, bag scores of
  few cells give false hits (benchmarks/screens/hits.py). z itself stays as it is.
- Scores and P are compared as log-odds: near 0 and 1, where most scores of controls lie, the scores themselves are far
  from symmetric.
- Nothing is guessed. Without `FEWEST_CONTROLS` negative controls with a value on the plate, or where half of them have
  the same value, there is no z, and a sentence says so.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import stats
from scipy.special import logit

from napari_milcnn.screens.features import SIGMA_OF_MAD

FEWEST_CONTROLS = 4
"""Negative controls of a plate that are needed for z and p."""
_JUDGED_SHARE = 0.9
"""Share of the controls by whose distance from the median the tails are judged."""
_LEAST_SCORE = 1e-6
"""Scores nearer to 0 or 1 are clipped: they are float32, so the rest is rounding."""
_DEGREES_PER_CONTROL = 0.3675
"""Degrees of freedom of 1.4826 MAD for each value: 1 / (2 * 1.36)."""


@dataclass(frozen=True)
class ControlScale:
    """Centre and spread of the negative controls of a plate.

    Attributes
    ----------
    median, spread : float
        Median, and 1.4826 times the median absolute deviation; NaN where there is a problem.
    count : int
        Number of negative controls with a value.
    problem : str
        Why nothing can be compared with them; empty if it can.
    tail : float
        By how much the nearest nine in ten reach further out than the spread says; 1 at least.
    """

    median: float
    spread: float
    count: int
    problem: str = ""
    tail: float = 1.0


def log_odds(scores: np.ndarray) -> np.ndarray:
    """Return log(s / (1 - s)) of scores from 0 to 1, finite at both ends; NaN stays NaN."""
    clipped: np.ndarray = logit(np.clip(np.asarray(scores, float), _LEAST_SCORE, 1 - _LEAST_SCORE))
    return clipped


def control_scale(values: np.ndarray) -> ControlScale:
    """Measure the negative controls of a plate.

    Parameters
    ----------
    values : ndarray
        Their values, float (controls,); NaN for controls that failed.
    """
    known = np.asarray(values, float)
    known = known[np.isfinite(known)]
    if len(known) < FEWEST_CONTROLS:
        failed = len(values) - len(known)
        without = f" ({failed} more failed)" if failed else ""
        found = "no negative control" if not len(values) else f"{len(known)} negative control{'s'[: len(known) != 1]}"
        return ControlScale(math.nan, math.nan, len(known), f"{found}{without}; expected at least {FEWEST_CONTROLS}")
    median = float(np.median(known))
    spread = SIGMA_OF_MAD * float(np.median(np.abs(known - median)))
    if spread <= 1e-9 * max(1.0, abs(median)):
        return ControlScale(
            math.nan, math.nan, len(known), "at least half of the negative controls have the same value"
        )
    reach = float(np.quantile(np.abs(known - median), _JUDGED_SHARE)) / float(stats.norm.ppf((1 + _JUDGED_SHARE) / 2))
    return ControlScale(median, spread, len(known), tail=max(1.0, reach / spread))


def robust_z(values: np.ndarray, scale: ControlScale) -> np.ndarray:
    """Return (value - median) / spread of values (wells,); NaN where the controls cannot be compared with."""
    return (np.asarray(values, float) - scale.median) / scale.spread


def p_values(z: np.ndarray, controls: int, wells: int = 1, tail: float = 1.0) -> np.ndarray:
    """Return one-sided p-values, from t.

    Parameters
    ----------
    z : ndarray
        Robust z of wells, or medians of robust z over the wells of each treatment on one plate, (tests,).
    controls : int
        Number of negative controls that z was measured by.
    wells : int
        Number of wells whose median each z is; the median of three and more varies more than their mean.
    tail : float
        `ControlScale.tail` of these controls.
    """
    if controls < FEWEST_CONTROLS:
        return np.full(np.shape(z), math.nan)
    widening = tail * math.sqrt((1 if wells < 3 else math.pi / 2) / wells + math.pi / 2 / controls)
    found: np.ndarray = stats.t.sf(np.asarray(z, float) / widening, _DEGREES_PER_CONTROL * controls)
    return found
