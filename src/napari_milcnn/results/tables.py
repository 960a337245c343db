"""Tables made of opened results, for figures: confusion, reliability, ranks, wells and doses.

If an evaluation wrote such a table, it is returned as it stands. Otherwise the same functions as in an evaluation
compute it.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import pandas as pd

from napari_milcnn.errors import ResultsError
from napari_milcnn.metrics.calibration import Reliability, answers, reliability_curve
from napari_milcnn.metrics.classification import answered, confusion_table, weighted_figures
from napari_milcnn.results.opened import MEASURED, OpenedResults, label_set
from napari_milcnn.schema import CELLS, cells_column, is_count, is_pooled, is_score, score_column

_DOSES = ("dose", "conc")
"""Words in the names of columns of doses; columns with such a name are offered first."""


def accuracy(found: OpenedResults) -> tuple[float, tuple[float, float] | None] | None:
    """Return the accuracy and its 95 % interval, which only an evaluation has; None without labels."""
    if found.metrics is not None:
        value = found.metrics.figures.get("accuracy")
        low, high = found.metrics.intervals.get("accuracy") or (None, None)
        return None if value is None else (value, None if low is None or high is None else (low, high))
    if not len(found.labelled):
        return None
    scores = found.labelled[found.columns].to_numpy(float)
    ones = np.ones((1, len(scores)))
    return float(weighted_figures(ones, scores, found.targets(), found.single_label)["accuracy"][0]), None


def confusion(found: OpenedResults) -> pd.DataFrame | None:
    """Return counts of images: label against top class, or yes and no of each class; None without labels."""
    if found.written_confusion is not None:
        return found.written_confusion
    if not len(found.labelled):
        return None
    scores = found.labelled[found.columns].to_numpy(float)
    return confusion_table(scores, found.targets(), found.classes, found.single_label)


def confused(found: OpenedResults, row: str, column: str) -> list[str]:
    """Return the files of the images that one cell of the confusion counts."""
    images = found.labelled
    if found.single_label:
        return list(images["file"][(images["label"].str.strip() == row) & (images["top"] == column)])
    number = found.classes.index(row)
    yes = answered(images[found.columns].to_numpy(float), single_label=False)[:, number] > 0
    shown = found.targets()[:, number] > 0
    right, answer = column.split()
    return list(images["file"][(yes == (answer == "yes")) & ((yes == shown) == (right == "rightly"))])


def reliability(found: OpenedResults) -> Reliability | None:
    """Return how often answers of each confidence are right; None without labels."""
    if found.metrics is not None:
        curve = found.metrics.reliability
        return Reliability(np.array(curve.confidence, float), np.array(curve.observed, float), np.array(curve.count))
    if not len(found.labelled):
        return None
    scores = found.labelled[found.columns].to_numpy(float)
    return reliability_curve(*answers(scores, found.targets(), found.single_label))


def histogram(found: OpenedResults) -> tuple[dict[str, int], dict[str, int] | None]:
    """Return the number of rows of each class in the predictions and in the labels (None without labels)."""
    rows = found.table[found.table["error"] == ""]
    if found.single_label:
        predicted = rows["top"].value_counts().to_dict()
    else:
        yes = answered(rows[found.columns].to_numpy(float), single_label=False)
        predicted = dict(zip(found.classes, yes.sum(0).astype(int).tolist(), strict=True))
    labels = Counter(name for text in rows["label"] for name in label_set(text)) if len(found.labelled) else None
    counts = {name: int(predicted.get(name, 0)) for name in found.classes}
    return counts, None if labels is None else {name: labels[name] for name in found.classes}


def ranked(found: OpenedResults, class_name: str | None) -> np.ndarray:
    """Return the numbers of the rows, sorted by falling score of a class; without a class, the least sure row first."""
    values = -found.scores[:, found.classes.index(class_name)] if class_name else uncertainty_margins(found)
    values = np.where((found.table["error"] == "").to_numpy(), values, np.nan)
    order = np.argsort(values, kind="stable")
    return np.asarray(order[~np.isnan(values[order])])


def uncertainty_margins(found: OpenedResults) -> np.ndarray:
    """Return how sure the model is of each row.

    With one label per image this is the difference between the two highest scores; with several labels it is the
    smallest distance of a score from one half.
    """
    if found.single_label:
        return np.asarray(found.table["margin"], float)
    return np.asarray(np.abs(found.scores - 0.5).min(1))


def dose_columns(found: OpenedResults) -> list[str]:
    """Return the columns that may hold doses: numbers that the results do not compute, those named dose first."""
    names = [str(name) for name in found.table if found.table[name].dtype.kind in "iuf" and name not in MEASURED
             and not is_score(name) and not is_pooled(name) and not is_count(name)]  # fmt: skip
    return sorted(names, key=lambda name: not any(word in name.lower() for word in _DOSES))


SHARE, SCORE = "share of objects", "score"
"""Values that can be plotted against dose."""


def dose_points(found: OpenedResults, dose: str, class_name: str, what: str = SCORE) -> pd.DataFrame:
    """Return one row per compound, dose and group of images: compound, dose, group, mean value and number of images.

    The group is the column group if there is one, else the well, else the image.

    Raises
    ------
    ResultsError
        If no image has both a dose and a value.
    """
    images = found.images
    group = images["group"] if "group" in images else _well_names(found)
    values = images[score_column(class_name)] if what == SCORE else _shares(found, class_name)
    points = pd.DataFrame({
        "compound": images["compound"] if "compound" in images else "", "dose": images[dose].to_numpy(float),
        "group": group, "value": values.to_numpy(float),
    }).dropna(subset=["dose", "value"])  # fmt: skip
    if not len(points):
        raise ResultsError(f"no image has both a number in {dose} and a {what}; choose another column or value")
    grouped = points.groupby(["compound", "dose", "group"])["value"]
    return grouped.agg(value="mean", images="size").reset_index()


def _well_names(found: OpenedResults) -> list[str]:
    names = zip(found.wells, found.images["file"], strict=True)
    return [well.name if well is not None else file for well, file in names]


def _shares(found: OpenedResults, class_name: str) -> pd.Series:
    """Return the share of a class in the cells of each image; NaN without cells, or where the class is not counted."""
    if cells_column(class_name) in found.table:
        planes = found.table.groupby("file")
        counted, cells = (
            planes[name].agg(lambda one: one.sum(skipna=False)) for name in (cells_column(class_name), CELLS)
        )
        return found.images["file"].map(counted / cells.where(cells > 0))
    if found.objects is None:
        raise ResultsError("the run wrote no objects.csv; classify again with masks to count objects")
    own = (found.objects["class"] == class_name).groupby(found.objects["file"]).mean()
    return found.images["file"].map(own)


def dose_curve(points: pd.DataFrame) -> pd.DataFrame:
    """Return one row per compound and dose: mean over groups, standard deviation (NaN for one), number of groups."""
    grouped = points.groupby(["compound", "dose"])["value"]
    return grouped.agg(mean="mean", spread="std", groups="size").reset_index()
