"""How well evidence finds the cells that show a field's phenotype, scored against known cells.

Truth images are uint8 (Y, X): 0 background, 1 another cell, 2 a cell of the field's own phenotype. Scores of a field:

* pixel AP: average precision of the evidence over all pixels, positive where truth is 2
* cell AP: the same over cells, each with the mean of the evidence inside it
* Dice: overlap of the mask that `segment` makes of the evidence with the cells of truth 2
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile
from scipy import ndimage
from skimage.measure import label as components
from sklearn.metrics import average_precision_score

import napari_milcnn as mil
from napari_milcnn.core.dataset import LabelTable
from napari_milcnn.core.model import TrainedModel


@dataclass(frozen=True)
class Scores:
    """Scores of one kind of evidence, averaged over fields."""

    pixel_ap: float
    cell_ap: float
    dice: float
    best_dice: float


def score_field(evidence: np.ndarray, mask: np.ndarray, truth: np.ndarray) -> tuple[float, float, float, float]:
    """Pixel AP, cell AP, Dice, and Dice at its best threshold, of one evidence map (Y, X)."""
    cells = np.where(truth == 1, components(truth == 1), 0)
    cells = np.where(truth == 2, cells.max() + components(truth == 2), cells)
    numbers = np.arange(1, cells.max() + 1)
    shows = ndimage.maximum(truth, cells, numbers) == 2
    pixel = average_precision_score((truth == 2).ravel(), evidence.ravel())
    cell = average_precision_score(shows, ndimage.mean(evidence, cells, numbers))
    levels = np.unique(np.quantile(evidence, np.linspace(0.5, 0.999, 60)))
    return pixel, cell, dice(mask, truth == 2), max(dice(evidence > level, truth == 2) for level in levels)


def dice(mask: np.ndarray, truth: np.ndarray) -> float:
    """Overlap of two masks (Y, X); 1 where both are empty."""
    total = mask.sum() + truth.sum()
    return 1.0 if total == 0 else float(2 * (mask & truth).sum() / total)


def score_kind(
    model: TrainedModel, table: LabelTable, background: str, kind: str, smooth: float = 0.0, **options
) -> Scores:
    """Scores of one kind of evidence over the fields that show anything but the background class."""
    rows = []
    for row in table.images:
        if row.labels == (background,):
            continue
        truth = tifffile.imread(Path(row.file).parent.parent / "truth" / Path(row.file).name)
        found = mil.evidence(model, row.file, [row.labels[0]], kind=kind, **options)
        masks = mil.segment(found, smooth=smooth, present=0.0)
        map_ = ndimage.gaussian_filter(found.maps[0, 0], smooth) if smooth else found.maps[0, 0]
        rows.append(score_field(map_, masks.labels[0] > 0, truth))
    return Scores(*np.mean(rows, 0).tolist())


def accuracy(model: TrainedModel, table: LabelTable) -> float:
    """Share of fields whose top class is their label."""
    from napari_milcnn.core.classify import Classifier

    classifier = Classifier(model)
    return float(np.mean([classifier.classify(row.file).top[0] in row.labels for row in table.images]))
