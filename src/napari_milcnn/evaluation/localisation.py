"""Measure how well evidence finds the cells that show an image's phenotype, by comparison with truth images.

Truth images are uint8 (Y, X) or (planes, Y, X): 0 background, 1 another cell, 2 a cell of the image's own phenotype.
Touching cells with the same number count as one cell.
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
from napari_milcnn.inference.cells import checked_numbers
from napari_milcnn.inference.pipeline import PlaneResult

OTHER, OWN = 1, 2
_LEVELS = 60
"""Number of thresholds that are tried for the best Dice coefficient."""


@dataclass(frozen=True)
class LocalisationScores:
    """How well evidence finds the cells of a phenotype; a score that cannot be measured is NaN.

    Attributes
    ----------
    pixel_ap : float
        Average precision of the evidence over all pixels; pixels with the truth 2 are positive.
    cell_ap : float
        Average precision over cells, each with the mean of the evidence inside it; NaN unless there are cells with the
        truth 1 and cells with the truth 2.
    dice : float
        Dice coefficient of the mask that `segment` makes from the evidence and the cells with the truth 2.
    best_dice : float
        Dice coefficient at the threshold that suits this map best.
    pointing : float
        The pointing game: the share of the pixels with the strongest evidence that lie in a cell with the truth 2; 0 or
        1 for a single strongest pixel. It is averaged over planes and images.
    """

    pixel_ap: float
    cell_ap: float
    dice: float
    best_dice: float
    pointing: float


def score_field(evidence: np.ndarray, mask: np.ndarray, truth: np.ndarray) -> LocalisationScores:
    """Score evidence (Y, X), and the mask (Y, X) that was made from it, against a truth image (Y, X)."""
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
    """Return the Dice coefficient of two masks (Y, X); 1 if both are empty."""
    total = mask.sum() + truth.sum()
    return 1.0 if total == 0 else float(2 * (mask & truth).sum() / total)


def mean_scores(scores: list[LocalisationScores]) -> LocalisationScores:
    """Average each score, leaving out NaN; NaN if there is no other value."""
    rows = {field.name: [getattr(one, field.name) for one in scores] for field in fields(LocalisationScores)}
    measured = {name: [value for value in values if not math.isnan(value)] for name, values in rows.items()}
    return LocalisationScores(**{name: float(np.mean(v)) if v else math.nan for name, v in measured.items()})


def score_plane(result: PlaneResult, truth: np.ndarray) -> LocalisationScores:
    """Score the evidence for one class in a plane against the truth (planes, Y, X) of the whole image.

    Raises
    ------
    ComputeError
        If the plane has no masks. The message says why.
    """
    if result.evidence is None or result.masks is None:
        raise ComputeError(result.problem)
    return score_field(np.asarray(result.evidence.maps[0]), np.asarray(result.masks.labels) > 0, truth[result.plane])


def truth_file(folder: Path, file: Path) -> Path | None:
    """Return the file of the truth image of an image; None if the folder has none.

    The file has the name of the image, with or without `.ome`, and the suffix of the image, .tif or .png.
    """
    names = (file.name, *(f"{image_name(file)}{end}" for end in (file.suffix, ".tif", ".ome.tif", ".png")))
    return next((folder / name for name in names if (folder / name).is_file()), None)


def read_truth(path: Path, image: ImageStack) -> np.ndarray:
    """Read the truth image of an image, int32 (planes, Y, X).

    Raises
    ------
    ImageError
        If the file cannot be read.
    LabelsError
        If the truth image does not fit the image, or has numbers other than 0, 1 and 2.
    """
    with replace(open_image(path), only=image.only) as opened:
        pixels = np.stack([opened.plane(i, (0,))[0] for i in range(len(opened.planes))])
    truth = checked_numbers(pixels, image, path.name)
    values = np.unique(truth)
    if not np.isin(values, (0, OTHER, OWN)).all():
        found = ", ".join(map(str, values[:5])) + ", …" * (len(values) > 5)
        raise LabelsError(
            f"{path} has the numbers {found}; expected a truth image with 0 for background, 1 for another cell and 2 "
            "for a cell of the image's own phenotype"
        )
    return truth
