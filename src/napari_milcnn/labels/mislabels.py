"""Images whose label a model contradicts with confidence (confident learning, Northcutt et al. 2021)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from napari_milcnn.labels.table import LabelledImage

_MISLABELS = ["file", "plane", "group", "label", "model says", "score", "score of label", "gap"]


def with_planes(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table of images without its column `plane` where no row names any."""
    return table if table["plane"].any() else table.drop(columns="plane")


def suspected_mislabels(
    images: Sequence[LabelledImage],
    scores: np.ndarray,
    targets: np.ndarray,
    classes: Sequence[str],
    single_label: bool,
) -> pd.DataFrame:
    """List the images whose label the model contradicts with confidence, the widest gap first.

    Confident means that the class the model sees scores at least as high as it scores on average in the images that
    carry its label (confident learning, Northcutt et al. 2021). With several labels, a missing class likewise scores at
    most as high as it does on average in the images without it. The index of the table is the place of the image.

    Parameters
    ----------
    images : sequence of LabelledImage
        The images.
    scores, targets : ndarray
        Score of each class, and 1 for each class that the image is labelled with, (images, classes).
    classes : sequence of str
        Their names.
    single_label : bool
        Whether each image shows one class.
    """
    usual = _means_where(scores, targets)
    rows, places = [], []
    for place, (image, seen, own) in enumerate(zip(images, scores, targets, strict=True)):
        facts = {"file": str(image.file), "plane": image.plane, "group": image.group, "label": "|".join(image.labels)}
        if single_label:
            top, label = int(seen.argmax()), int(own.argmax())
            if top != label and seen[top] >= usual[top]:
                answer = {"model says": classes[top], "score": seen[top], "score of label": seen[label]}
                rows.append({**facts, **answer, "gap": seen[top] - seen[label]})
                places.append(place)
            continue
        elsewhere = _means_where(scores, 1 - targets)
        for i, name in enumerate(classes):
            if own[i] == 0 and seen[i] >= max(usual[i], 0.5):
                rows.append({**facts, "model says": name, "score": seen[i], "gap": seen[i]})
                places.append(place)
            if own[i] == 1 and seen[i] <= min(elsewhere[i], 0.5):
                rows.append({**facts, "model says": f"not {name}", "score": seen[i], "gap": 1 - seen[i]})
                places.append(place)
    table = with_planes(pd.DataFrame(rows, places, _MISLABELS))
    return table.sort_values("gap", ascending=False, kind="stable")


def _means_where(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Mean score of each class over the images where its target is 1; one half where there is none."""
    count = targets.sum(0)
    return np.where(count > 0, (scores * targets).sum(0) / np.maximum(count, 1), 0.5)
