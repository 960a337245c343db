"""Splits of labelled images by group: no group on both sides, every class on either where it has the groups for it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold

_SEEDS = 16
"""Shuffles among which the most even split is chosen."""
_MANY = 500
"""With more groups than this one shuffle is even enough, and no single group is moved."""


def held_out(groups: Sequence[str], targets: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Choose about a share of the images, by whole groups, for validation.

    Parameters
    ----------
    groups : sequence of str
        Group of each image.
    targets : ndarray
        Multi-hot (images, classes).
    share : float
        Of the images.
    seed : int
        Same seed, same split.

    Returns
    -------
    ndarray
        bool (images,). Of a class with two groups or more both sides have one, where the other classes let them.
    """
    count = len(set(groups))
    commonest = int(np.bincount(_strata(targets)).max())
    splits = max(2, min(count, round(1 / share), commonest))
    shuffles = _SEEDS if count <= _MANY else 1
    candidates = [held for n in range(shuffles) for held in grouped_folds(groups, targets, splits, seed * _SEEDS + n)]
    if share > 0.5:
        candidates = [~held for held in candidates] if count > 2 else candidates
    costs = [_cost(held, targets, share) for held in candidates]
    return _repaired(candidates[int(np.argmin(costs))], np.asarray(groups), targets, share)


def grouped_folds(groups: Sequence[str], targets: np.ndarray, splits: int, seed: int) -> Iterator[np.ndarray]:
    """Yield the held images of each fold, bool (images,); an image counts for the rarest class that it shows."""
    strata = _strata(targets)
    if np.bincount(strata).max() < splits:  # too few of each to spread
        strata = np.zeros_like(strata)
    folds = StratifiedGroupKFold(splits, shuffle=True, random_state=seed % 2**32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a class with fewer images than folds: we say so ourselves
        for _, held in folds.split(targets, strata, groups):
            yield np.isin(np.arange(len(targets)), held)


def _strata(targets: np.ndarray) -> np.ndarray:
    """Rarest class that each image shows, (images,)."""
    return np.asarray(np.where(targets > 0, targets.sum(0), np.inf).argmin(1))


def _cost(held: np.ndarray, targets: np.ndarray, share: float) -> float:
    """How far from even a split is: classes without training image weigh most, then those without validation."""
    total, kept = targets.sum(0), targets[held].sum(0)
    return float(100 * (kept == total).sum() + 10 * (kept == 0).sum() + np.std(kept / total)
                 + abs(held.mean() - share))  # fmt: skip


def _repaired(held: np.ndarray, groups: np.ndarray, targets: np.ndarray, share: float) -> np.ndarray:
    """Move single groups to the other side while that makes the split better."""
    names = np.unique(groups)
    if len(names) > _MANY:
        return held
    for _ in range(len(names)):
        moved = [np.where(groups == name, ~held, held) for name in names]
        moved = [one for one in moved if one.any() and not one.all()]
        costs = [_cost(one, targets, share) for one in moved]
        if not costs or min(costs) >= _cost(held, targets, share) - 5:  # for missing classes only, not for evenness
            return held
        held = moved[int(np.argmin(costs))]
    return held
