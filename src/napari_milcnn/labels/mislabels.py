"""Images whose label a model contradicts with confidence (confident learning, Northcutt et al. 2021)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from napari_milcnn.labels.table import LabelledImage

_MISLABELS = ["file", "plane", "group", "label", "model says", "score", "score of label", "gap"]


def with_planes(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table of images without its column `plane` if this column is empty."""
    return table if table["plane"].any() else table.drop(columns="plane")


def suspected_mislabels(
    images: Sequence[LabelledImage],
    scores: np.ndarray,
    targets: np.ndarray,
    classes: Sequence[str],
    single_label: bool,
) -> pd.DataFrame:
    """Return the images whose label the model contradicts with confidence, the widest gap first.

    Confident means that the class that the model predicts has at least the mean score of this class in the images with
    its label (confident learning, Northcutt et al. 2021). With several labels, a class that the model misses has at
    most the mean score of this class in the images without its label. The index of the table is that of the image.

    Parameters
    ----------
    images : sequence of LabelledImage
        The images.
    scores, targets : ndarray
        Score of each class, and 1 for each class that the image is labelled with, (images, classes).
    classes : sequence of str
        Names of the classes.
    single_label : bool
        Whether each image has one class.
    """
    means_with_label = _means_where(scores, targets)
    rows, places = [], []
    for place, (image, image_scores, target) in enumerate(zip(images, scores, targets, strict=True)):
        facts = {"file": str(image.file), "plane": image.plane, "group": image.group, "label": "|".join(image.labels)}
        if single_label:
            top, label = int(image_scores.argmax()), int(target.argmax())
            score, label_score = image_scores[top], image_scores[label]
            if top != label and score >= means_with_label[top]:
                answer = {"model says": classes[top], "score": score, "score of label": label_score}
                rows.append({**facts, **answer, "gap": score - label_score})
                places.append(place)
            continue
        means_without_label = _means_where(scores, 1 - targets)
        for i, name in enumerate(classes):
            score = image_scores[i]
            if target[i] == 0 and score >= max(means_with_label[i], 0.5):
                rows.append({**facts, "model says": name, "score": score, "gap": score})
                places.append(place)
            if target[i] == 1 and score <= min(means_without_label[i], 0.5):
                rows.append({**facts, "model says": f"not {name}", "score": score, "gap": 1 - score})
                places.append(place)
    table = with_planes(pd.DataFrame(rows, places, _MISLABELS))
    return table.sort_values("gap", ascending=False, kind="stable")


def _means_where(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return the mean score of each class over the images whose target is 1; one half if there is no such image."""
    count = targets.sum(0)
    return np.where(count > 0, (scores * targets).sum(0) / np.maximum(count, 1), 0.5)
