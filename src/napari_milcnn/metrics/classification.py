"""Figures of merit from scores and labels: accuracy, precision, ranks, confusion.

The top class is the answer where each image shows one class; with several labels every class with a score above one
half is a yes. A figure that the images cannot give (no image of a class) is NaN.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from sklearn.metrics import confusion_matrix


def weighted_figures(
    weights: np.ndarray, scores: np.ndarray, targets: np.ndarray, single_label: bool
) -> dict[str, np.ndarray]:
    """Compute the main figures of many draws of images at once.

    Parameters
    ----------
    weights : ndarray
        How often each image is in each draw, (draws, images).
    scores, targets : ndarray
        (images, classes).
    single_label : bool
        Whether the answer is the top class, or else every class with a score above one half.

    Returns
    -------
    dict
        Figure -> (draws,); NaN where a draw cannot give it.
    """
    yes = answered(scores, single_label)
    total = weights.sum(1, keepdims=True)
    hits, shown, predicted = (weights @ values for values in (yes * targets, targets, yes))  # (draws, classes)
    with np.errstate(invalid="ignore"):
        recall = hits / shown
        f1 = np.where(shown > 0, 2 * hits / (shown + predicted), np.nan)
        rejected = (total - shown - predicted + hits) / (total - shown)
        share = hits.sum(1) / total[:, 0]
    ranked = [ranking_figures(weights, s, t) for s, t in zip(scores.T, targets.T, strict=True)]
    ap, auc = (np.stack(one, 1) for one in zip(*ranked, strict=True))  # (draws, classes)
    agreed = (weights @ (yes == targets)).mean(1) / total[:, 0]
    return {
        "accuracy": share if single_label else agreed,
        "balanced accuracy": _mean_of_classes(recall if single_label else (recall + rejected) / 2),
        "mean average precision": _mean_of_classes(ap),
        "mean ROC AUC": _mean_of_classes(auc),
        "mean F1": _mean_of_classes(f1),
    }


def answered(scores: np.ndarray, single_label: bool) -> np.ndarray:
    """Return 1 for each class that is the answer, else 0, (images, classes)."""
    if single_label:
        return np.asarray(np.eye(scores.shape[1])[scores.argmax(1)])
    return (scores > 0.5).astype(float)


def ranking_figures(weights: np.ndarray, scores: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Average precision and ROC AUC of one class for each draw, (draws,); NaN unless it has images of both kinds.

    Scores and targets (images,), weights (draws, images). All draws at once: scikit-learn's own, which the tests
    compare with, would take a thousand calls for each class.
    """
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.diff(scores[order]) != 0, True)  # equal scores are taken together
    hits = np.cumsum(weights[:, order] * targets[order], 1)[:, last]
    taken = np.cumsum(weights[:, order], 1)[:, last]
    more_hits, more_misses = np.diff(hits, axis=1, prepend=0), np.diff(taken - hits, axis=1, prepend=0)
    shown, others = hits[:, -1], (taken - hits)[:, -1]
    with np.errstate(invalid="ignore"):
        precision = np.where(taken > 0, hits / taken, 0)
        ap = (more_hits * precision).sum(1) / shown
        auc = (more_misses * (hits - more_hits / 2)).sum(1) / (shown * others)
    both = (shown > 0) & (others > 0)
    return np.where(both, ap, np.nan), np.where(both, auc, np.nan)


def _mean_of_classes(values: np.ndarray) -> np.ndarray:
    """Mean over the classes that could be measured, (draws, classes) -> (draws,); NaN where none could."""
    known = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(known, values, 0).sum(1) / known.sum(1))


def confusion_table(
    scores: np.ndarray, targets: np.ndarray, classes: Sequence[str], single_label: bool
) -> pd.DataFrame:
    """Count images: label (rows) against top class; with several labels, one row of 2 x 2 per class."""
    if single_label:
        counts = confusion_matrix(targets.argmax(1), scores.argmax(1), labels=range(len(classes)))
        return pd.DataFrame(counts, index=pd.Index(classes, name="label"), columns=list(classes))
    yes = answered(scores, single_label=False)
    counts = [(yes * targets), (yes * (1 - targets)), ((1 - yes) * targets), ((1 - yes) * (1 - targets))]
    columns = ["rightly yes", "wrongly yes", "wrongly no", "rightly no"]
    table = np.stack([count.sum(0) for count in counts], 1).astype(int)
    return pd.DataFrame(table, index=pd.Index(classes, name="class"), columns=columns)


def mean_average_precision(scores: np.ndarray, targets: np.ndarray) -> float:
    """Average precision, averaged over the classes that have images of both kinds; NaN where none has.

    Scores and 0 or 1 targets (images, classes).
    """
    ones = np.ones((1, len(scores)))
    ranked = [ranking_figures(ones, s, t)[0] for s, t in zip(scores.T, targets.T, strict=True)]
    return float(_mean_of_classes(np.stack(ranked, 1))[0])
