"""The tables of an evaluation report: one row per class, group, uncertain image, and fold.

A number that the images cannot give, such as the recall of a class that no image shows, is NaN.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from sklearn.metrics import precision_recall_fscore_support

from napari_milcnn.evaluation.localisation import mean_scores
from napari_milcnn.evaluation.report import ImageOutcome
from napari_milcnn.labels.mislabels import with_planes
from napari_milcnn.metrics.classification import answered, ranking_figures, weighted_figures
from napari_milcnn.model.trained_model import TrainedModel
from napari_milcnn.schema import BAG_ANSWER, BAG_RIGHT, bag_score_column, score_column

_LISTED = 50
"""Number of uncertain images in the table."""


def headline_metrics(scores: np.ndarray, targets: np.ndarray, single: bool) -> dict[str, float]:
    """Return the headline metrics of scores and targets (images, classes)."""
    metrics = weighted_figures(np.ones((1, len(scores))), scores, targets, single)
    return {name: float(values[0]) for name, values in metrics.items()}


def class_table(model: TrainedModel, scores: np.ndarray, targets: np.ndarray) -> pd.DataFrame:
    """Make a table with one row per class; `EvaluationReport.classes` explains its columns."""
    yes = answered(scores, model.card.single_label)
    precision, recall, f1, support = precision_recall_fscore_support(targets, yes, average=None, zero_division=np.nan)
    ones = np.ones((1, len(scores)))
    ranked = [ranking_figures(ones, s, t) for s, t in zip(scores.T, targets.T, strict=True)]
    return pd.DataFrame({
        "class": model.classes,
        "images": np.asarray(support, int),
        "said": yes.sum(0).astype(int),
        "precision": precision,
        "recall": recall,
        "F1": np.where(np.asarray(support) > 0, f1, np.nan),
        "average precision": [float(ap[0]) for ap, _ in ranked],
        "ROC AUC": [float(auc[0]) for _, auc in ranked],
        "learned b": (model.card.training.has_learned and model.network.learned_b) or [math.nan] * len(model.classes),
    })  # fmt: skip


def group_table(
    outcomes: Sequence[ImageOutcome],
    scores: np.ndarray,
    targets: np.ndarray,
    classes: Sequence[str],
    single_label: bool,
    bags: Mapping[str, np.ndarray] | None = None,
) -> pd.DataFrame:
    """Make a table with one row per group, the worst first.

    The answer of a group comes from the median score of its images. A group whose images have different labels has no
    label of its own, so `right` is NaN. `bags` has the scores (classes,) of groups that were classified as one bag,
    too: that answer, whether it is right, and its scores are beside it.
    """
    yes = answered(scores, single_label)
    exact = (yes == targets).all(1)
    rows = []
    for name, part in pd.Series(range(len(outcomes))).groupby([o.image.group for o in outcomes], sort=False):
        index = part.to_numpy()
        median = np.median(scores[index], 0)
        answer = answered(median[None], single_label)[0]
        one_label = (targets[index] == targets[index[0]]).all()
        labels = targets[index[0]] if one_label else targets[index].max(0)
        rows.append({
            "group": name, "label": _class_names(labels, classes), "images": len(index),
            "answer": _class_names(answer, classes),
            "right": float((answer == labels).all()) if one_label else math.nan,
            "image accuracy": float(exact[index].mean()),
            "own score": float(median[labels > 0].mean()) if one_label else math.nan,
            **{score_column(c): float(s) for c, s in zip(classes, median, strict=True)},
            **_bag_columns((bags or {}).get(str(name)), labels if one_label else None, classes, single_label),
        })  # fmt: skip
    return pd.DataFrame(rows).sort_values(["right", "own score"], kind="stable", ignore_index=True)


def _bag_columns(
    scores: np.ndarray | None, labels: np.ndarray | None, classes: Sequence[str], single_label: bool
) -> dict[str, object]:
    """Return the answer and the scores of a group as one bag; nothing where it was not classified so."""
    if scores is None:
        return {}
    answer = answered(scores[None], single_label)[0]
    right = math.nan if labels is None else float((answer == labels).all())
    by_class = {bag_score_column(name): float(score) for name, score in zip(classes, scores, strict=True)}
    return {BAG_ANSWER: _class_names(answer, classes), BAG_RIGHT: right} | by_class


def _class_names(answer: np.ndarray, classes: Sequence[str]) -> str:
    """Join the names of the classes (classes,) that are not 0."""
    return "|".join(name for name, value in zip(classes, answer, strict=True) if value > 0)


def uncertain_images(
    outcomes: Sequence[ImageOutcome], scores: np.ndarray, classes: Sequence[str], single_label: bool
) -> pd.DataFrame:
    """List the images of which the model is least sure.

    The margin is the difference between the two highest scores or, with several labels, between one half and the score
    that is closest to it.
    """
    ordered = np.sort(scores, 1)
    margin = ordered[:, -1] - ordered[:, -2:-1].sum(1) if single_label else np.abs(scores - 0.5).min(1)
    second = scores.argsort(1)[:, -2] if len(classes) > 1 else scores.argmax(1)
    table = pd.DataFrame({
        "file": [str(outcome.image.file) for outcome in outcomes],
        "plane": [outcome.image.plane for outcome in outcomes],
        "group": [outcome.image.group for outcome in outcomes],
        "label": ["|".join(outcome.image.labels) for outcome in outcomes],
        "top": [classes[i] for i in scores.argmax(1)],
        "next": [classes[i] for i in second],
        "margin": margin,
    })  # fmt: skip
    return with_planes(table).sort_values("margin", kind="stable", ignore_index=True).head(_LISTED)


def localisation_table(outcomes: Sequence[ImageOutcome]) -> pd.DataFrame | None:
    """Average the localisation scores for each class and over all images; None if no image has a truth image."""
    scored = [outcome for outcome in outcomes if outcome.localisation is not None]
    if not scored:
        return None
    names = list(dict.fromkeys(outcome.image.labels[0] for outcome in scored))
    rows = []
    for name in [*sorted(names), None]:
        part = [one.localisation for one in scored if one.localisation and name in (None, one.image.labels[0])]
        rows.append({"class": name or "all", "images": len(part), **vars(mean_scores(part))})
    return pd.DataFrame(rows).rename(columns=lambda name: name.replace("_", " ").replace(" ap", " AP"))


def unlike_table(
    outcomes: Sequence[ImageOutcome], scores: np.ndarray, targets: np.ndarray, single: bool
) -> pd.DataFrame | None:
    """Make a table of how often answers are right within and outside the range of the training images.

    None if the model does not know its training images.
    """
    values = np.array([outcome.unlike for outcome in outcomes])
    if np.isnan(values).all():
        return None
    right = (answered(scores, single) == targets).mean(1) if not single else scores.argmax(1) == targets.argmax(1)
    confidence = scores.max(1) if single else np.maximum(scores, 1 - scores).mean(1)
    rows = []
    for name, part in (("at most 1", values <= 1), ("above 1", values > 1)):
        figures = (right[part].mean(), confidence[part].mean()) if part.any() else (math.nan, math.nan)
        rows.append({"unlike": name, "images": int(part.sum()), "accuracy": float(figures[0]),
                     "mean confidence": float(figures[1])})  # fmt: skip
    return pd.DataFrame(rows)


def fold_table(
    outcomes: Sequence[ImageOutcome], scores: np.ndarray, targets: np.ndarray, single: bool
) -> pd.DataFrame | None:
    """Make a table of the headline metrics of each fold; None without cross-validation."""
    folds = np.array([outcome.fold or 0 for outcome in outcomes])
    if not folds.any():
        return None
    rows = []
    for fold in np.unique(folds):
        part = folds == fold
        groups = {outcome.image.group for outcome, in_fold in zip(outcomes, part, strict=True) if in_fold}
        rows.append({"fold": fold, "images": int(part.sum()), "groups": len(groups),
                     **headline_metrics(scores[part], targets[part], single)})  # fmt: skip
    return pd.DataFrame(rows)
