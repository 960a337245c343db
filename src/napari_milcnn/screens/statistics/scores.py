"""How well a plate separates positive from negative controls: Z'-factor and strictly standardised mean difference.

Sources: Zhang, Chung & Oldenburg 1999, J Biomol Screen 4:67 (Z'); Zhang 2007, Genomics 89:552, and 2011, J Biomol
Screen 16:775 (SSMD).
"""

from __future__ import annotations

import math

import numpy as np

FEWEST = 2
"""Values of each group that a standard deviation needs."""


def z_prime(positive: np.ndarray, negative: np.ndarray) -> float:
    """Return 1 - 3 (sd of positive + sd of negative) / |difference of their means|.

    1 is ideal, above .5 an excellent assay, below 0 the controls overlap.

    Parameters
    ----------
    positive, negative : ndarray
        Values of the controls, float (wells,); NaN is left out.

    Returns
    -------
    float
        NaN with fewer than two values in a group; minus infinity if the means are equal.
    """
    high, low = _known(positive), _known(negative)
    if min(len(high), len(low)) < FEWEST:
        return math.nan
    apart = abs(high.mean() - low.mean())
    return 1 - 3 * (high.std(ddof=1) + low.std(ddof=1)) / apart if apart > 0 else -math.inf


def ssmd(positive: np.ndarray, negative: np.ndarray) -> float:
    """Return the difference of the means over the square root of the sum of the variances (method of moments).

    Parameters
    ----------
    positive, negative : ndarray
        Values of two groups of wells, float (wells,); NaN is left out.

    Returns
    -------
    float
        NaN with fewer than two values in a group, or where none of them differ.
    """
    high, low = _known(positive), _known(negative)
    if min(len(high), len(low)) < FEWEST:
        return math.nan
    spread = math.sqrt(high.var(ddof=1) + low.var(ddof=1))
    return float((high.mean() - low.mean()) / spread) if spread > 0 else math.nan


def ssmd_of_treatment(z: np.ndarray) -> float:
    """Return the SSMD of a treatment from robust z of its wells (wells,); the spread of the controls is 1.

    With one well its spread is taken to be that of the controls, as for screens without replicates.
    """
    known = _known(z)
    if not len(known):
        return math.nan
    variance = known.var(ddof=1) if len(known) >= FEWEST else 1.0
    return float(known.mean() / math.sqrt(1 + variance))


def _known(values: np.ndarray) -> np.ndarray:
    found = np.asarray(values, float)
    known: np.ndarray = found[np.isfinite(found)]
    return known
