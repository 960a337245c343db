"""What opened results say: confusion, calibration, ranks, wells and doses, as tables for pictures.

What an evaluation wrote is given as it stands; else the same functions compute it that an evaluation uses.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import pandas as pd

from napari_milcnn.errors import ResultsError
from napari_milcnn.images.wells import Well
from napari_milcnn.metrics.calibration import Reliability, answers, reliability_curve
from napari_milcnn.metrics.classification import answered, confusion_table, weighted_figures
from napari_milcnn.results.opened import MEASURED, OpenedResults, label_set
from napari_milcnn.schema import is_pooled, is_score, score_column

_DOSES = ("dose", "conc")
"""Words that the column of doses has in its name; such columns are offered first."""


def accuracy(found: OpenedResults) -> tuple[float, tuple[float, float] | None] | None:
    """Return the accuracy and its interval, as the evaluation says or as it would; None without labels."""
    if found.metrics is not None:
        value = found.metrics["figures"]["accuracy"]
        ends = found.metrics["intervals"].get("accuracy")
        return float(value), (float(ends[0]), float(ends[1])) if ends else None
    if not len(found.labelled):
        return None
    scores = found.labelled[found.columns].to_numpy(float)
    ones = np.ones((1, len(scores)))
    return float(weighted_figures(ones, scores, found.targets(), found.single_label)["accuracy"][0]), None


def confusion(found: OpenedResults) -> pd.DataFrame | None:
    """Label against top class, or yes and no of each class, in images; None without labels."""
    if found.written_confusion is not None:
        return found.written_confusion
    if not len(found.labelled):
        return None
    scores = found.labelled[found.columns].to_numpy(float)
    return confusion_table(scores, found.targets(), found.classes, found.single_label)


def confused(found: OpenedResults, row: str, column: str) -> list[str]:
    """Files of the images that one cell of the confusion counts."""
    images = found.labelled
    if found.single_label:
        return list(images["file"][(images["label"].str.strip() == row) & (images["top"] == column)])
    number = found.classes.index(row)
    yes = answered(images[found.columns].to_numpy(float), single_label=False)[:, number] > 0
    shown = found.targets()[:, number] > 0
    right, said = column.split()
    return list(images["file"][(yes == (said == "yes")) & ((yes == shown) == (right == "rightly"))])


def reliability(found: OpenedResults) -> Reliability | None:
    """How often answers of a confidence are right; None without labels."""
    if found.metrics is not None:
        said = found.metrics["reliability"]
        means, shares = (np.array(said[name], float) for name in ("confidence", "observed"))
        return Reliability(means, shares, np.array(said["count"]))
    if not len(found.labelled):
        return None
    scores = found.labelled[found.columns].to_numpy(float)
    return reliability_curve(*answers(scores, found.targets(), found.single_label))


def histogram(found: OpenedResults) -> tuple[dict[str, int], dict[str, int] | None]:
    """Class -> rows that the model gives it, and class -> rows that carry it as a label (None without labels)."""
    rows = found.table[found.table["error"] == ""]
    if found.single_label:
        said = rows["top"].value_counts().to_dict()
    else:
        yes = answered(rows[found.columns].to_numpy(float), single_label=False)
        said = dict(zip(found.classes, yes.sum(0).astype(int).tolist(), strict=True))
    known = Counter(name for text in rows["label"] for name in label_set(text)) if len(found.labelled) else None
    order = {name: int(said.get(name, 0)) for name in found.classes}
    return order, None if known is None else {name: known[name] for name in found.classes}


def ranked(found: OpenedResults, class_name: str | None) -> np.ndarray:
    """Return the numbers of the rows: the highest score of a class first, or without a class the least sure."""
    values = -found.scores[:, found.classes.index(class_name)] if class_name else uncertainty_margins(found)
    values = np.where((found.table["error"] == "").to_numpy(), values, np.nan)
    order = np.argsort(values, kind="stable")
    return np.asarray(order[~np.isnan(values[order])])


def uncertainty_margins(found: OpenedResults) -> np.ndarray:
    """Distance to the next class or, with several labels, of the nearest score to one half: small where unsure."""
    if found.single_label:
        return np.asarray(found.table["margin"], float)
    return np.asarray(np.abs(found.scores - 0.5).min(1))


def plate_table(found: OpenedResults) -> pd.DataFrame:
    """One row per well: plate, well, row, column, top, images, file of the first image, and mean score of each class.

    Empty where no well is known.
    """
    images = found.images
    wells = found.wells
    plates = images["plate"] if "plate" in images else ""
    kept = images.assign(_well=pd.Series(wells, images.index, object), plate=plates)[[w is not None for w in wells]]
    if not len(kept):
        return pd.DataFrame(columns=["plate", "well", "row", "column", "top", "images", "file", *found.columns])
    grouped = kept.groupby(["plate", "_well"], sort=False)
    rows = grouped[found.columns].mean().reset_index()
    tops = [found.classes[i] for i in rows[found.columns].to_numpy(float).argmax(1)]
    own: list[Well] = list(map(Well._make, rows.pop("_well")))
    return rows.assign(
        well=[w.name for w in own], row=[w.row for w in own], column=[w.column for w in own], top=tops,
        images=grouped.size().to_numpy(), file=grouped["file"].first().to_numpy(),
    )  # fmt: skip


def dose_columns(found: OpenedResults) -> list[str]:
    """Return the columns that may hold doses: numbers that no run measured, those called dose first."""
    names = [str(name) for name in found.table if found.table[name].dtype.kind in "iuf" and name not in MEASURED
             and not is_score(name) and not is_pooled(name)]  # fmt: skip
    return sorted(names, key=lambda name: not any(word in name.lower() for word in _DOSES))


SHARE, SCORE = "share of objects", "score"
"""What may be drawn against dose."""


def dose_points(found: OpenedResults, dose: str, class_name: str, what: str = SCORE) -> pd.DataFrame:
    """One row per compound, dose and group of images: compound, dose, group, images, and the mean value of its images.

    The group is that of the table, else the well, else the image.

    Raises
    ------
    ResultsError
        If no image has a dose and a value.
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
    """Return the share of each image's objects that are of a class; NaN for an image without objects."""
    if found.objects is None:
        raise ResultsError("the run wrote no objects.csv; classify with masks to count objects")
    own = (found.objects["class"] == class_name).groupby(found.objects["file"]).mean()
    return found.images["file"].map(own)


def dose_curve(points: pd.DataFrame) -> pd.DataFrame:
    """One row per compound and dose: mean over groups, their standard deviation (NaN for one group), their number."""
    grouped = points.groupby(["compound", "dose"])["value"]
    return grouped.agg(mean="mean", spread="std", groups="size").reset_index()
