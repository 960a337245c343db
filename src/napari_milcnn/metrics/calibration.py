"""Calibration: whether answers with a score of .8 are right in eight of ten images, and how to make it so.

Temperature scaling (Guo et al. 2017) divides the last layer's y by one number T before softmax or sigmoid. Ranks and
top classes stay as they are; only the confidence changes.

Offsets besides T (`fit_offsets`) change the balance between classes. A model that learned from fields full of a
phenotype takes a field with few affected cells for one with none, although its class maps show them; a number added for
each class corrects that. Because top classes change, offsets are fitted on images that neither trained the model nor
evaluate it.

T stays 1 where every answer is right: the likelihood then rises without end as T falls, and the T found would depend on
the limits of the search only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize, minimize_scalar
from scipy.special import log_expit, log_softmax

BINS = 15
FEWEST_IMAGES = 20
"""With fewer images no temperature is fitted."""
COLDEST, HOTTEST = 0.05, 20.0
_PENALTY = 1e-3
"""Weight of the squares of log T and of the offsets in the cost."""
_SMALLEST = 1e-7
"""Scores nearer than this to 0 or 1 are clipped: they are float32, so the rest is rounding."""


@dataclass(frozen=True)
class Reliability:
    """How often answers are right, for each bin of confidence.

    Attributes
    ----------
    confidence : ndarray
        Mean confidence of each bin, float64 (bins,); NaN for an empty one.
    observed : ndarray
        Share of right answers in each bin, float64 (bins,); NaN for an empty one.
    count : ndarray
        Number of answers in each bin, int (bins,).
    """

    confidence: np.ndarray
    observed: np.ndarray
    count: np.ndarray

    @property
    def error(self) -> float:
        """Expected calibration error: the gap between the two, averaged over answers; NaN without answers."""
        filled = self.count > 0
        gaps = np.abs(self.confidence - self.observed)[filled]
        return float(np.average(gaps, weights=self.count[filled])) if filled.any() else math.nan


def reliability_curve(confidence: np.ndarray, right: np.ndarray, bins: int = BINS) -> Reliability:
    """Sort answers (answers,) by confidence into bins of equal width from 0 to 1."""
    place = np.clip((confidence * bins).astype(int), 0, bins - 1)
    count = np.bincount(place, minlength=bins)
    with np.errstate(invalid="ignore"):
        means, observed = (np.bincount(place, values, minlength=bins) / count for values in (confidence, right))
    return Reliability(means, observed, count)


def answers(scores: np.ndarray, targets: np.ndarray, single_label: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return the confidence of each answer and whether it is right, 1 or 0, both float64 (answers,).

    With one label per image each image gives one answer, its top class. With several each image and class gives one:
    that the image shows the class.
    """
    if not single_label:
        return scores.ravel().astype(float), targets.ravel().astype(float)
    top = scores.argmax(1)
    return scores.max(1).astype(float), targets[np.arange(len(top)), top].astype(float)


def fit_temperature(logits: np.ndarray, targets: np.ndarray, single_label: bool) -> float:
    """Find the T for which softmax(logits / T), or sigmoid(logits / T), is the likeliest.

    Parameters
    ----------
    logits : ndarray
        The last layer's y, (images, classes).
    targets : ndarray
        1 where an image shows a class, else 0, (images, classes).
    single_label : bool
        Softmax, for one label per image; else sigmoids.

    Returns
    -------
    float
        T, from .05 to 20; 1 with fewer than 20 images, or where every answer is right.
    """
    logits, targets = np.asarray(logits, float), np.asarray(targets, float)
    if len(logits) < FEWEST_IMAGES or _all_right(logits, targets, single_label):
        return 1.0
    bounds = (math.log(COLDEST), math.log(HOTTEST))
    found = minimize_scalar(
        lambda log_t: _loss(logits / math.exp(log_t), targets, single_label), bounds=bounds, method="bounded"
    )
    return float(math.exp(found.x))


def fit_offsets(logits: np.ndarray, targets: np.ndarray, single_label: bool) -> tuple[float, np.ndarray]:
    """Find the T and the offset of each class for which logits / T + offsets are the likeliest.

    Parameters
    ----------
    logits : ndarray
        The last layer's y, (images, classes).
    targets : ndarray
        1 where an image shows a class, else 0, (images, classes).
    single_label : bool
        Softmax, for one label per image; else sigmoids.

    Returns
    -------
    temperature : float
    offsets : ndarray
        (classes,), with mean 0 for a softmax. A small penalty keeps them near 0 where images are few.
    """
    logits, targets = np.asarray(logits, float), np.asarray(targets, float)

    def cost(x: np.ndarray) -> float:
        return _loss(logits * math.exp(-x[0]) + x[1:], targets, single_label) + _PENALTY * float((x**2).sum())

    found = minimize(cost, np.zeros(1 + logits.shape[1]), method="L-BFGS-B").x
    offsets = found[1:] - (found[1:].mean() if single_label else 0)
    return float(math.exp(found[0])), offsets


def _all_right(logits: np.ndarray, targets: np.ndarray, single_label: bool) -> bool:
    if single_label:
        return bool((logits.argmax(1) == targets.argmax(1)).all())
    return bool(((logits > 0) == (targets > 0)).all())


def _loss(logits: np.ndarray, targets: np.ndarray, single_label: bool) -> float:
    """Negative log-likelihood, averaged over images."""
    if single_label:
        return float(-(targets * log_softmax(logits, 1)).sum(1).mean())
    return float(-(targets * log_expit(logits) + (1 - targets) * log_expit(-logits)).sum(1).mean())


def logits_of(scores: np.ndarray, single_label: bool) -> np.ndarray:
    """Return logits of scores (images, classes); for a softmax up to a constant for each image."""
    bounded = np.clip(scores.astype(float), _SMALLEST, 1 - _SMALLEST)
    return np.asarray(np.log(bounded) if single_label else np.log(bounded) - np.log1p(-bounded))
