"""How well evidence finds the cells that show an image's phenotype, scored against known cells.

Truth images are uint8 (Y, X) or (planes, Y, X): 0 background, 1 another cell, 2 a cell of the image's own phenotype.
Touching cells of one number count as one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
from scipy import ndimage
from skimage.measure import label as components
from sklearn.metrics import average_precision_score

from napari_milcnn.errors import ComputeError, LabelsError
from napari_milcnn.images.open import open_image
from napari_milcnn.images.paths import image_name
from napari_milcnn.images.stack import ImageStack
from napari_milcnn.inference.cells import checked_labels
from napari_milcnn.inference.pipeline import PlaneResult

OTHER, OWN = 1, 2
_LEVELS = 60
"""Thresholds tried for the best Dice."""


@dataclass(frozen=True)
class LocalisationScores:
    """How well one map of evidence finds the cells of a phenotype; NaN where it cannot be measured.

    Attributes
    ----------
    pixel_ap : float
        Average precision of the evidence over all pixels, positive where the truth is 2.
    cell_ap : float
        The same over cells, each with the mean of the evidence inside it; NaN unless there are cells of both kinds.
    dice : float
        Overlap of the mask that `segment` makes of the evidence with the cells of truth 2.
    best_dice : float
        The same at the threshold that suits this map best.
    pointing : float
        The pointing game: 1 where the strongest evidence lies in a cell of truth 2, 0 where not; where many pixels are
        the strongest, the share of them that does. Averaged over planes and images.
    """

    pixel_ap: float
    cell_ap: float
    dice: float
    best_dice: float
    pointing: float


def score_field(evidence: np.ndarray, mask: np.ndarray, truth: np.ndarray) -> LocalisationScores:
    """Score evidence (Y, X) and the mask (Y, X) made of it against a truth (Y, X)."""
    own = truth == OWN
    if not own.any():
        return LocalisationScores(math.nan, math.nan, dice(mask, own), math.nan, math.nan)
    levels = np.unique(np.quantile(evidence, np.linspace(0.5, 0.999, _LEVELS)))
    return LocalisationScores(
        pixel_ap=float(average_precision_score(own.ravel(), evidence.ravel())),
        cell_ap=_cell_ap(evidence, truth),
        dice=dice(mask, own),
        best_dice=max(dice(evidence > level, own) for level in levels),
        pointing=float(own[evidence == evidence.max()].mean()),
    )


def _cell_ap(evidence: np.ndarray, truth: np.ndarray) -> float:
    others, own = components(truth == OTHER), components(truth == OWN)
    cells = np.where(own > 0, own + others.max(), others)
    shows = np.arange(1, cells.max() + 1) > others.max()
    if shows.all():
        return math.nan
    means = ndimage.mean(evidence, cells, np.arange(1, cells.max() + 1))
    return float(average_precision_score(shows, means))


def dice(mask: np.ndarray, truth: np.ndarray) -> float:
    """Overlap of two masks (Y, X); 1 where both are empty."""
    total = mask.sum() + truth.sum()
    return 1.0 if total == 0 else float(2 * (mask & truth).sum() / total)


def mean_scores(scores: list[LocalisationScores]) -> LocalisationScores:
    """Average each score over those that could be measured; NaN where none could."""
    rows = {field.name: [getattr(one, field.name) for one in scores] for field in fields(LocalisationScores)}
    measured = {name: [value for value in values if not math.isnan(value)] for name, values in rows.items()}
    return LocalisationScores(**{name: float(np.mean(v)) if v else math.nan for name, v in measured.items()})


def score_plane(result: PlaneResult, truth: np.ndarray) -> LocalisationScores:
    """Score the evidence for one class in a plane against a truth (planes, Y, X) of the whole image.

    Raises
    ------
    ComputeError
        If the plane has no masks; the sentence says why.
    """
    if result.evidence is None or result.masks is None:
        raise ComputeError(result.problem)
    return score_field(result.evidence.maps[0], result.masks.labels > 0, truth[result.plane])


def truth_file(folder: Path, file: Path) -> Path | None:
    """Return the truth image of an image; None where the folder has none.

    Its file has the image's name, with or without `.ome`, or that name as .tif or .png.
    """
    names = (file.name, *(f"{image_name(file)}{end}" for end in (file.suffix, ".tif", ".ome.tif", ".png")))
    return next((folder / name for name in names if (folder / name).is_file()), None)


def read_truth(path: Path, image: ImageStack) -> np.ndarray:
    """Read the truth of an image, int32 (planes, Y, X).

    Raises
    ------
    LabelsError
        If it does not fit the image, or holds anything but 0, 1 and 2.
    """
    with replace(open_image(path), only=image.only) as opened:
        truth = checked_labels(np.stack([opened.plane(i, (0,))[0] for i in range(len(opened.planes))]), image)
    values = np.unique(truth)
    if not np.isin(values, (0, OTHER, OWN)).all():
        found = ", ".join(map(str, values[:5])) + ", …" * (len(values) > 5)
        raise LabelsError(
            f"{path} holds {found}; expected a truth image: 0 background, 1 another cell, 2 a cell of the image's own "
            "phenotype"
        )
    return truth
