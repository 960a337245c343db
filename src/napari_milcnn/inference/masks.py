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
from skimage.measure import label as components

from napari_milcnn.errors import OptionsError
from napari_milcnn.inference.evidence import Evidence, PlaneEvidence
from napari_milcnn.inference.foreground import drop_small, split_touching
from napari_milcnn.inference.predict import Prediction
from napari_milcnn.options import MaskOptions, make_options
from napari_milcnn.schema import OBJECT_COLUMNS

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
    wanted = present_classes(prediction, plane.plane, names, options)
    if not wanted:
        return no_masks((plane.maps.shape[-2], plane.maps.shape[-1]))
    scores = dict(zip(prediction.classes, prediction.scores[plane.plane].tolist(), strict=True))
    maps = plane.maps[[list(names).index(name) for name in wanted]]  # (wanted classes, Y, X)
    if options.smooth > 0 and plane.objects is None:
        maps = np.stack([ndimage.gaussian_filter(one, options.smooth) for one in maps])
    used = {name: _threshold(one, name, options, thresholds or {}) for name, one in zip(wanted, maps, strict=True)}
    if plane.objects is None:
        labels, classes = _objects(_winner(maps, list(used.values())), options)
        values = _means(maps, labels)
    else:
        values = _of_each(maps, plane.objects)
        classes = _winner(values, list(used.values())) - 1
        labels = np.where(classes >= 0, np.arange(len(classes)), 0).astype(np.int32)[plane.objects]
    table = _table(labels, classes, wanted, values, scores, pixel_size)
    return PlaneMasks(labels, table.assign(plane=plane.plane)[["plane", *OBJECT_COLUMNS]], used)


def present_classes(prediction: Prediction, row: int, names: Sequence[str], options: MaskOptions) -> tuple[str, ...]:
    """Return those of some classes that give masks in one plane of a prediction, by its place in `planes`.

    They are the classes whose score reaches `options.present`, and the top class.
    """
    scores = dict(zip(prediction.classes, prediction.scores[row].tolist(), strict=True))
    least = min(options.present, max(scores.values()))
    return tuple(name for name in names if scores[name] >= least)


def no_masks(shape: tuple[int, int]) -> PlaneMasks:
    """Return the masks (Y, X) of a plane that shows none of the classes, or that was not classified."""
    nothing = np.zeros(shape, np.int32)
    table = _table(nothing, np.zeros(1, int), (), np.zeros((1, 1), np.float32), {}, None)
    return PlaneMasks(nothing, table.assign(plane=0)[["plane", *OBJECT_COLUMNS]], {})


def _winner(maps: np.ndarray, thresholds: Sequence[float]) -> np.ndarray:
    """Which of the maps (classes, ...) is strongest of those over their threshold: 1 for the first, 0 for none."""
    claims = np.stack([np.where(one > least, one, 0) for one, least in zip(maps, thresholds, strict=True)])
    return np.where(claims.max(0) > 0, claims.argmax(0) + 1, 0)


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


def _objects(winner: np.ndarray, options: MaskOptions) -> tuple[np.ndarray, np.ndarray]:
    """Objects of a class image (Y, X) -> labels int32 (Y, X), and the class index of each label from 1 on."""
    labels, classes, count = np.zeros(winner.shape, np.int32), [np.zeros(1, int)], 0
    for index in np.unique(winner[winner > 0]):
        mask = winner == index
        mask = mask | (_holes(mask) & (winner == 0)) if options.fill_holes else mask
        found = drop_small(split_touching(mask, options.split), options.min_size)
        labels = np.where(found > 0, found + count, labels).astype(np.int32)
        classes.append(np.full(found.max(), index - 1))
        count += int(found.max())
    return labels, np.concatenate(classes)


def _holes(mask: np.ndarray) -> np.ndarray:
    """Background (Y, X) that the objects of a mask enclose: its components that do not reach the edge."""
    ground = components(~mask, connectivity=1)
    hole = np.ones(ground.max() + 1, bool)
    hole[0] = False
    for edge in (ground[0], ground[-1], ground[:, 0], ground[:, -1]):
        hole[edge] = False
    return np.asarray(hole[ground])


def _means(maps: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Mean of each map (classes, Y, X) over each label from 0 on, (classes, labels)."""
    sizes = np.maximum(np.bincount(labels.ravel()), 1)
    return np.stack([np.bincount(labels.ravel(), one.ravel()) / sizes for one in maps])


def _of_each(maps: np.ndarray, objects: np.ndarray) -> np.ndarray:
    """Value of each map (classes, Y, X) in each object from 0 on, all of whose pixels have the same: (classes, labels).

    0 outside objects, and for numbers that no object has.
    """
    values = np.zeros((len(maps), int(objects.max(initial=0)) + 1), maps.dtype)
    inside = np.flatnonzero(objects)
    for row, one in zip(values, maps, strict=True):
        row[objects.ravel()[inside]] = one.ravel()[inside]
    return values


def _table(
    labels: np.ndarray,
    classes: np.ndarray,
    names: Sequence[str],
    values: np.ndarray,
    scores: Mapping[str, float],
    pixel_size: float | None,
) -> pd.DataFrame:
    """Table of the objects: `values` (classes, labels) is each object's evidence, `classes` (labels,) its own class."""
    rows, columns = np.nonzero(labels)
    flat = labels[rows, columns]
    sizes = np.bincount(flat)
    numbers = np.flatnonzero(sizes)
    own, area = classes[numbers], sizes[numbers].astype(float)
    return pd.DataFrame({
        "label": numbers,
        "class": pd.Series([names[i] for i in own], dtype="str"),
        "area_px": area,
        "area_um2": area * (np.nan if pixel_size is None else pixel_size**2),
        "y": np.bincount(flat, rows)[numbers] / area,
        "x": np.bincount(flat, columns)[numbers] / area,
        "mean_evidence": values[own, numbers],
        "score": [scores[names[i]] for i in own],
    })  # fmt: skip


def class_image(labels: np.ndarray, objects: pd.DataFrame, classes: tuple[str, ...]) -> np.ndarray:
    """Class of each pixel of one plane, uint16 (Y, X): 1 for the first class, 0 for background."""
    of_label = np.zeros(labels.max(initial=0) + 1, np.uint16)
    of_label[objects["label"].to_numpy(int)] = [classes.index(name) + 1 for name in objects["class"]]
    return np.asarray(of_label[labels])
