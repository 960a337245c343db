"""From evidence to masks, and from masks to objects and their table.

Where several classes claim a pixel or an object, the strongest evidence wins. The threshold rule is ours (the paper
states none): Otsu on the logarithm of the evidence, whose values span decades, unless the model's card brings its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import ndimage
from skimage.filters import threshold_otsu
from skimage.measure import regionprops_table

from napari_milcnn.core.classify import Prediction
from napari_milcnn.core.errors import OptionsError
from napari_milcnn.core.evidence import Evidence, PlaneEvidence
from napari_milcnn.core.foreground import drop_small, split_touching
from napari_milcnn.core.options import MaskOptions, make_options

_DECADES = 3
"""Evidence this many decades under the plane's strongest counts as none when Otsu looks at its logarithm."""


@dataclass(frozen=True)
class PlaneMasks:
    """Masks of one plane: objects int32 (Y, X), their table, and the threshold of each class used."""

    labels: np.ndarray
    objects: pd.DataFrame
    thresholds: dict[str, float]


@dataclass(frozen=True)
class Masks:
    """Masks of every plane of an image.

    Attributes
    ----------
    labels : ndarray
        Objects, int32 (planes, Y, X), numbered from 1 in each plane; 0 is background.
    objects : DataFrame
        One row per object: plane, label, class, area_px, area_um2, y, x (centroid, px), mean_evidence, score (the
        image's score of that class).
    classes : tuple of str
        The classes looked for.
    thresholds : tuple of dict
        For each plane, class -> threshold used.
    """

    labels: np.ndarray
    objects: pd.DataFrame
    classes: tuple[str, ...]
    thresholds: tuple[dict[str, float], ...]

    @property
    def class_image(self) -> np.ndarray:
        """Class of each pixel, uint16 (planes, Y, X): 1 for the first of `classes`, 0 for background."""
        return np.stack([
            class_image(plane, self.objects[self.objects["plane"] == i], self.classes)
            for i, plane in enumerate(self.labels)
        ])  # fmt: skip


def segment(evidence: Evidence, **options: Any) -> Masks:
    """Turn evidence into masks and objects.

    Parameters
    ----------
    evidence : Evidence
        Of any kind.
    **options
        Fields of `MaskOptions`: threshold, class_thresholds, present, smooth, min_size, fill_holes, split.

    Returns
    -------
    Masks
        Labels (planes, Y, X) and the table of objects.

    Raises
    ------
    OptionsError
        If an option is unknown or impossible, or a class with a threshold of its own is not the model's.
    """
    chosen = checked_mask_options(options, evidence.prediction.classes)
    planes = [
        segment_plane(
            PlaneEvidence(i, maps, None if evidence.objects is None else evidence.objects[i]),
            evidence.prediction,
            evidence.classes,
            chosen,
            evidence.pixel_size,
            evidence.thresholds,
        )
        for i, maps in enumerate(evidence.maps)
    ]
    return Masks(
        labels=np.stack([plane.labels for plane in planes]),
        objects=pd.concat([plane.objects for plane in planes], ignore_index=True),
        classes=evidence.classes,
        thresholds=tuple(plane.thresholds for plane in planes),
    )


def checked_mask_options(values: dict[str, Any], classes: Sequence[str]) -> MaskOptions:
    """Build mask options for a model with some classes.

    Raises
    ------
    OptionsError
        If an option is unknown or impossible, or a class with a threshold of its own is not among the classes.
    """
    options = make_options(MaskOptions, values)
    unknown = [name for name in options.class_thresholds if name not in classes]
    if unknown:
        raise OptionsError(
            f"a threshold is given for {', '.join(map(repr, unknown))}, which the model does not know; its classes: "
            f"{', '.join(classes)}"
        )
    return options


def segment_plane(
    plane: PlaneEvidence,
    prediction: Prediction,
    names: Sequence[str],
    options: MaskOptions,
    pixel_size: float | None = None,
    thresholds: Mapping[str, float] | None = None,
) -> PlaneMasks:
    """Turn one plane's evidence (classes, Y, X), whose classes are `names`, into masks."""
    scores = dict(zip(prediction.classes, prediction.scores[plane.plane].tolist(), strict=True))
    maps = plane.maps
    if options.smooth > 0 and plane.objects is None:
        maps = np.stack([ndimage.gaussian_filter(one, options.smooth) for one in maps])
    wanted = [name for name in names if scores[name] >= min(options.present, max(scores.values()))]
    used = {name: _threshold(maps[list(names).index(name)], name, options, thresholds or {}) for name in wanted}
    claims = np.stack(
        [np.where(m > used[n], m, 0) if n in used else np.zeros_like(m) for n, m in zip(names, maps, strict=True)]
    )
    winner = np.where(claims.max(0) > 0, claims.argmax(0) + 1, 0)  # (Y, X): 0 for none
    labels, classes = _objects(winner, plane.objects, options)
    table = _table(labels, classes, names, maps, scores, pixel_size)
    return PlaneMasks(labels, table.assign(plane=plane.plane)[_COLUMNS], used)


_COLUMNS = ["plane", "label", "class", "area_px", "area_um2", "y", "x", "mean_evidence", "score"]


def _threshold(one: np.ndarray, name: str, options: MaskOptions, own: Mapping[str, float]) -> float:
    """Threshold of one map (Y, X)."""
    rule = options.class_thresholds.get(name, options.threshold)
    if rule == "auto":
        rule = own.get(name, "otsu")
    if isinstance(rule, str) and rule.startswith("q"):
        return float(np.quantile(one, float(rule[1:])))
    return otsu_of_logarithm(one) if rule == "otsu" else float(rule)


def otsu_of_logarithm(one: np.ndarray) -> float:
    """Otsu's threshold on the logarithm of the positive evidence of a map; half its maximum where it is constant."""
    peak = float(one.max(initial=0))
    values = np.log(one[one > peak * 10.0**-_DECADES], dtype=np.float64)
    if values.size == 0 or np.ptp(values) < 1e-6:
        return peak / 2
    return float(np.exp(threshold_otsu(values)))


def _objects(winner: np.ndarray, objects: np.ndarray | None, options: MaskOptions) -> tuple[np.ndarray, np.ndarray]:
    """Objects of a class image (Y, X) -> labels int32 (Y, X), and the class index of each label from 1 on."""
    if objects is not None:
        labels = np.where(winner > 0, objects, 0)  # numbers are kept: they may be the user's own
        return labels, _class_of_each(labels, winner)
    labels, classes, count = np.zeros(winner.shape, np.int32), [np.zeros(1, int)], 0
    for index in np.unique(winner[winner > 0]):
        mask = winner == index
        mask = ndimage.binary_fill_holes(mask) & ((winner == 0) | mask) if options.fill_holes else mask
        found = drop_small(split_touching(mask, options.split), options.min_size)
        labels = np.where(found > 0, found + count, labels).astype(np.int32)
        classes.append(np.full(found.max(), index - 1))
        count += int(found.max())
    return labels, np.concatenate(classes)


def _class_of_each(labels: np.ndarray, winner: np.ndarray) -> np.ndarray:
    numbers = np.arange(labels.max() + 1)
    return np.asarray(np.nan_to_num(ndimage.maximum(winner, labels, numbers))).astype(int) - 1


def _table(
    labels: np.ndarray,
    classes: np.ndarray,
    names: Sequence[str],
    maps: np.ndarray,
    scores: Mapping[str, float],
    pixel_size: float | None,
) -> pd.DataFrame:
    measured = regionprops_table(labels, properties=("label", "area", "centroid"))
    table = pd.DataFrame(measured).rename(columns={"area": "area_px", "centroid-0": "y", "centroid-1": "x"})
    numbers = table["label"].to_numpy(int)
    means = (
        np.stack([np.asarray(ndimage.mean(one, labels, numbers)) for one in maps])
        if len(numbers)
        else np.empty((len(names), 0))
    )
    own = classes[numbers]
    table["class"] = pd.Series([names[i] for i in own], dtype="str")
    table["area_um2"] = table["area_px"] * (np.nan if pixel_size is None else pixel_size**2)
    table["mean_evidence"] = means[own, np.arange(len(numbers))]
    table["score"] = [scores[names[i]] for i in own]
    return table


def class_image(labels: np.ndarray, objects: pd.DataFrame, classes: tuple[str, ...]) -> np.ndarray:
    """Class of each pixel of one plane, uint16 (Y, X): 1 for the first class, 0 for background."""
    of_label = np.zeros(labels.max(initial=0) + 1, np.uint16)
    of_label[objects["label"].to_numpy(int)] = [classes.index(name) + 1 for name in objects["class"]]
    return np.asarray(of_label[labels])
