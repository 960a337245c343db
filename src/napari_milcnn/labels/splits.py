"""Splits of labelled images by group.

Decisions:

- A group is never on both sides. Each side has images of every class that has the groups for it.
- Among several shuffles the most even split is taken, and single groups then move while that helps a missing class.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold

_SEEDS = 16
"""Number of shuffles among which the most even split is chosen."""
_MANY = 500
"""With more groups than this, one shuffle is even enough and no single group is moved."""


def held_out(groups: Sequence[str], targets: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Choose about a share of the images for validation, by whole groups.

    Parameters
    ----------
    groups : sequence of str
        Group of each image.
    targets : ndarray
        Multi-hot (images, classes).
    share : float
        Share of the images to hold out, between 0 and 1.
    seed : int
        The same seed gives the same split.

    Returns
    -------
    ndarray
        Whether an image is held out, bool (images,). Both sides have a group of each class with two groups or more,
        where the other classes allow it.
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
    """Yield which images each fold holds out, bool (images,).

    Folds are even in the classes; an image counts for the rarest class that it shows.
    """
    strata = _strata(targets)
    if np.bincount(strata).max() < splits:  # too few images of each class to spread over the folds
        strata = np.zeros_like(strata)
    folds = StratifiedGroupKFold(splits, shuffle=True, random_state=seed % 2**32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a class with fewer images than folds: split_warnings says so
        for _, held in folds.split(targets, strata, groups):
            yield np.isin(np.arange(len(targets)), held)


def _strata(targets: np.ndarray) -> np.ndarray:
    """Return the rarest class that each image shows, int (images,)."""
    return np.asarray(np.where(targets > 0, targets.sum(0), np.inf).argmin(1))


def _cost(held: np.ndarray, targets: np.ndarray, share: float) -> float:
    """Return how uneven a split is: classes without a training image weigh most, then those without validation."""
    total, inside = targets.sum(0), targets[held].sum(0)
    return float(100 * (inside == total).sum() + 10 * (inside == 0).sum() + np.std(inside / total)
                 + abs(held.mean() - share))  # fmt: skip


def _repaired(held: np.ndarray, groups: np.ndarray, targets: np.ndarray, share: float) -> np.ndarray:
    """Move single groups to the other side while that makes the split much better."""
    names = np.unique(groups)
    if len(names) > _MANY:
        return held
    for _ in range(len(names)):
        moved = [np.where(groups == name, ~held, held) for name in names]
        moved = [one for one in moved if one.any() and not one.all()]
        costs = [_cost(one, targets, share) for one in moved]
        if (
            not costs or min(costs) >= _cost(held, targets, share) - 5
        ):  # groups move for missing classes only, not for evenness
            return held
        held = moved[int(np.argmin(costs))]
    return held
