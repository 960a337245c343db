"""Turn evidence into masks, and masks into objects and their table.

If several classes claim a pixel or an object, the class with the strongest evidence gets it. The paper states no rule
for the threshold. Ours is Otsu on the logarithm of the evidence, whose values span decades, unless the model's card has
a threshold.

With object evidence every object has a class, by one rule for masks, tables and shares. The classes that the plane
shows come first: an object belongs to the one with the strongest evidence above its threshold. What none of them claims
goes to the strongest of the other classes above theirs, and the rest to the reference class, if the model has one and
its own threshold does not forbid it. The masks show the objects of the classes that the plane shows. A class that the
plane does not show, and whose threshold would have to come from the plane itself, claims nothing, and is not counted.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

import numpy as np
import pandas as pd
from scipy import ndimage

from napari_milcnn.errors import OptionsError
from napari_milcnn.inference.evidence import Evidence, PlaneEvidence
from napari_milcnn.inference.predict import Prediction
from napari_milcnn.inference.strips.components import components, split_components
from napari_milcnn.inference.strips.holes import fill_holes
from napari_milcnn.inference.strips.regions import Regions, looked_up, measured, measured_with_means
from napari_milcnn.inference.strips.rows import LookedUp, RowPlane, Scratch, ScratchPlane, strips
from napari_milcnn.inference.strips.statistics import otsu, quantiles
from napari_milcnn.options import MaskOptions, make_options
from napari_milcnn.schema import CELLS, OBJECT_COLUMNS, cells_column, evidence_column, share_column

_DECADES = 3
"""Otsu on the logarithm leaves out evidence that is this many decades weaker than the strongest of the plane."""
_CONSTANT = 1e-6
"""Spread of the logarithm below which a map counts as constant."""


@dataclass(frozen=True)
class PlaneMasks:
    """Masks of one plane.

    Attributes
    ----------
    labels : ndarray
        Objects, int32 (Y, X); 0 is background. Those of a plane that was cut in strips are read from disk where they
        are sliced (`LookedUp`).
    objects : DataFrame
        One row per object, with the columns of `Masks.objects`.
    thresholds : dict
        Class -> threshold, for the classes that have masks in this plane.
    counts : dict
        Number of cells (foreground objects), and number and share of those of each class, by the names of the columns
        in predictions.csv. NaN for a class that was not looked for; empty for evidence without objects.
    """

    labels: np.ndarray
    objects: pd.DataFrame
    thresholds: dict[str, float]
    counts: dict[str, float] = field(default_factory=dict)

    @property
    def shown(self) -> pd.DataFrame:
        """The objects in the masks."""
        return self.objects[self.objects["shown"]]


@dataclass(frozen=True)
class Masks:
    """Masks of every plane of an image.

    Attributes
    ----------
    labels : ndarray
        Objects, int32 (planes, Y, X), numbered from 1 in each plane; 0 is background.
    objects : DataFrame
        One row per object: plane, label, class, shown, area_px, area_um2, y, x (centroid, px), mean_evidence, score
        (the plane's score of that class). With object evidence every foreground object has a row, the ones in the masks
        are marked in `shown`, and further columns hold the evidence for each class; an object of no class has the class
        "".
    classes : tuple of str
        The classes of the evidence.
    thresholds : tuple of dict
        For each plane, class -> threshold.
    counts : tuple of dict
        For each plane, the counts of cells, as in `PlaneMasks`.
    """

    labels: np.ndarray
    objects: pd.DataFrame
    classes: tuple[str, ...]
    thresholds: tuple[dict[str, float], ...]
    counts: tuple[dict[str, float], ...] = ()

    @property
    def class_image(self) -> np.ndarray:
        """The class of each pixel, uint16 (planes, Y, X): 1 for the first of `classes`, 0 for background."""
        return np.stack([
            class_image(plane, self.objects[self.objects["shown"] & (self.objects["plane"] == i)], self.classes)
            for i, plane in enumerate(self.labels)
        ])  # fmt: skip


def segment(evidence: Evidence, **options: object) -> Masks:
    """Turn evidence into masks and objects.

    Parameters
    ----------
    evidence : Evidence
        Evidence of any kind.
    **options
        Fields of `MaskOptions`: threshold, class_thresholds, present, smooth, min_size, fill_holes, split.

    Returns
    -------
    Masks
        Labels (planes, Y, X) and the table of objects.

    Raises
    ------
    OptionsError
        If an option is unknown or has an impossible value, or the model does not know a class in `class_thresholds`.
    """
    chosen = checked_mask_options(options, evidence.prediction.classes)
    planes = [
        segment_plane(
            PlaneEvidence(
                i,
                maps,
                None if evidence.objects is None else evidence.objects[i],
                evidence.classes,
                None if evidence.values is None else evidence.values[i],
                evidence.reference,
            ),
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
        counts=tuple(plane.counts for plane in planes),
    )


def checked_mask_options(values: Mapping[str, object], classes: Sequence[str]) -> MaskOptions:
    """Build mask options for a model with these classes.

    Raises
    ------
    OptionsError
        If an option is unknown or has an impossible value, or the model does not know a class in `class_thresholds`.
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
    """Turn the evidence of one plane into masks.

    Parameters
    ----------
    plane : PlaneEvidence
        Evidence (classes, Y, X).
    prediction : Prediction
        The prediction from which the evidence was made.
    names : sequence of str
        The classes of the evidence.
    options : MaskOptions
        How masks are made.
    pixel_size : float, optional
        µm per pixel; without it, areas in µm² are NaN.
    thresholds : mapping, optional
        Class -> threshold from the model's card.
    """
    shown = present_classes(prediction, plane.plane, names, options)
    scores = dict(zip(prediction.classes, prediction.scores[plane.plane].tolist(), strict=True))
    if plane.objects is not None:
        return _masks_of_objects(plane, shown, scores, options, pixel_size, thresholds or {})
    if not shown:
        return no_masks((plane.maps.shape[-2], plane.maps.shape[-1]))
    return _masks_of_maps(
        plane,
        [plane.maps[list(names).index(name)] for name in shown],
        shown,
        scores,
        options,
        pixel_size,
        thresholds or {},
    )


def _masks_of_maps(
    plane: PlaneEvidence,
    maps: Sequence[np.ndarray | RowPlane],
    shown: Sequence[str],
    scores: Mapping[str, float],
    options: MaskOptions,
    pixel_size: float | None,
    thresholds: Mapping[str, float],
) -> PlaneMasks:
    """Cut objects from the maps (Y, X) of the classes that the plane shows, strip by strip."""
    in_memory = isinstance(plane.maps, np.ndarray)
    scratch = Scratch(np.inf if in_memory else None)
    if options.smooth > 0:
        maps = [_smoothed_map(one, options.smooth, scratch) for one in maps]
    used = {name: _threshold(one, name, options, thresholds) for name, one in zip(shown, maps, strict=True)}
    found, classes = _labelled_objects(maps, list(used.values()), options, scratch)
    labels = np.asarray(found) if in_memory else cast("np.ndarray", found)
    regions, means = measured_with_means(labels, lambda strip: (one[strip.rows] for one in maps), len(maps))
    table = _table(regions, classes, shown, means, scores, pixel_size)
    return PlaneMasks(labels, table.assign(plane=plane.plane, shown=True)[["plane", *OBJECT_COLUMNS]], used)


def _masks_of_objects(
    plane: PlaneEvidence,
    shown: Sequence[str],
    scores: Mapping[str, float],
    options: MaskOptions,
    pixel_size: float | None,
    thresholds: Mapping[str, float],
) -> PlaneMasks:
    """Give every foreground object its class, by the rule above."""
    assert plane.objects is not None
    names, regions = list(scores), plane.regions
    values = plane.values
    if values is None:  # evidence from elsewhere, of the shown classes alone
        values = np.zeros((len(names), len(regions.area)), np.float32)
        maps = plane.maps[[plane.classes.index(name) for name in shown]]
        values[[names.index(name) for name in shown]] = _value_in_each(maps, plane.objects)
    used: dict[str, float] = {}
    for i, name in enumerate(names):
        if name in shown:
            rest = name == plane.reference and _from_plane(name, options, thresholds, usual_only=True)
            used[name] = 0.0 if rest else _threshold(values[i], name, options, thresholds, regions.area)
        elif plane.values is not None and not _from_plane(name, options, thresholds):
            used[name] = _threshold(values[i], name, options, thresholds, regions.area)
        elif name == plane.reference and _from_plane(name, options, thresholds, usual_only=True):
            used[name] = 0.0
    classes = _class_of_each(values, names, shown, plane.reference, used)
    table = _table(regions, classes, names, values, scores, pixel_size)
    in_masks = np.isin(classes, [names.index(name) for name in shown])
    in_masks[0] = False
    numbers = table["label"].to_numpy(int)
    evidence = pd.DataFrame(values[:, numbers].T, columns=[evidence_column(name) for name in names])
    table = table.assign(plane=plane.plane, shown=in_masks[numbers])[["plane", *OBJECT_COLUMNS]].join(evidence)
    labels = looked_up(plane.objects, np.where(in_masks, np.arange(len(in_masks)), 0).astype(np.int32))
    return PlaneMasks(labels, table, {name: used[name] for name in shown}, _counts(table, names, used))


def _class_of_each(
    values: np.ndarray, names: list[str], shown: Sequence[str], reference: str | None, used: Mapping[str, float]
) -> np.ndarray:
    """Return the index of the class of each label, from evidence (classes, labels) and thresholds; -1 for none."""
    classes = np.full(values.shape[1], -1)
    others = [name for name in used if name not in shown]
    tiers = [[name for name in tier if name != reference] for tier in (shown, others)]
    if reference is not None and reference in used:
        tiers.append([reference])
    for tier in tiers:
        if tier:
            rows = [names.index(name) for name in tier]
            found = _strongest(values[rows], [used[name] for name in tier])
            classes = np.where(classes < 0, np.array([-1, *rows])[found], classes)
    return classes


def _from_plane(name: str, options: MaskOptions, own: Mapping[str, float], *, usual_only: bool = False) -> bool:
    """Whether the threshold of a class is measured on the plane; with `usual_only`, because nobody asked for another.

    `own` has the thresholds of the model's card.
    """
    rule = options.class_thresholds.get(name, options.threshold)
    if rule == "auto":
        return name not in own
    return isinstance(rule, str) and not usual_only


def _counts(table: pd.DataFrame, names: Sequence[str], used: Mapping[str, float]) -> dict[str, float]:
    """Count the objects of a plane, and those of each class, NaN for a class that was not looked for among objects.

    Where there are no objects, none is of any class.
    """
    total = len(table)
    looked_for = set(used) if total else set(names)
    each = {name: float((table["class"] == name).sum()) if name in looked_for else np.nan for name in names}
    return {
        CELLS: total,
        **{cells_column(name): count for name, count in each.items()},
        **{share_column(name): count / total if total else np.nan for name, count in each.items()},
    }


def present_classes(prediction: Prediction, row: int, names: Sequence[str], options: MaskOptions) -> tuple[str, ...]:
    """Return the classes that get masks in one plane: those whose score reaches `options.present`, and the top class.

    A plane that shows nothing to classify gets none.

    Parameters
    ----------
    prediction : Prediction
        Scores of the image.
    row : int
        Index of the plane in `prediction.planes`.
    names : sequence of str
        The classes to choose from.
    options : MaskOptions
        With the lowest score, `present`.
    """
    if not prediction.has_structure[row]:
        return ()
    scores = dict(zip(prediction.classes, prediction.scores[row].tolist(), strict=True))
    least = min(options.present, max(scores.values()))
    return tuple(name for name in names if scores[name] >= least)


def no_masks(shape: tuple[int, int]) -> PlaneMasks:
    """Return empty masks (Y, X), for a plane that shows none of the classes or was not classified."""
    nothing = np.broadcast_to(np.int32(0), shape)  # no memory, however large
    table = _table(measured(nothing), np.zeros(1, int), (), np.zeros((1, 1), np.float32), {}, None)
    return PlaneMasks(nothing, table.assign(plane=0, shown=True)[["plane", *OBJECT_COLUMNS]], {})


def _strongest(maps: np.ndarray, thresholds: Sequence[float]) -> np.ndarray:
    """Return the number of the strongest map (classes, ...) above its threshold: 1 for the first map, 0 for none."""
    numbers: np.ndarray = np.asarray(maps[0] > max(thresholds[0], 0), np.uint16)
    highest = np.where(numbers, maps[0], 0) if len(maps) > 1 else maps[0]
    for number, (one, least) in enumerate(zip(maps[1:], thresholds[1:], strict=True), start=2):
        claimed = (one > least) & (one > highest)
        numbers[claimed] = number
        np.copyto(highest, one, where=claimed)
    return numbers


def _threshold(
    one: np.ndarray | RowPlane,
    name: str,
    options: MaskOptions,
    own: Mapping[str, float],
    counts: np.ndarray | None = None,
) -> float:
    """Return the threshold of one class.

    `own` has the thresholds of the model's card. `one` is its map (Y, X), or, with `counts`, the values of the map and
    how many pixels have each of them.
    """
    rule = options.class_thresholds.get(name, options.threshold)
    if rule == "auto":
        rule = own.get(name, "otsu")
    if isinstance(rule, str) and rule.startswith("q"):
        return quantile(one, float(rule[1:]), counts)
    return otsu_of_logarithm(one, counts) if rule == "otsu" else float(rule)


def quantile(one: np.ndarray | RowPlane, share: float, counts: np.ndarray | None = None) -> float:
    """Return a quantile of a map (Y, X), or of values of which there are as many as `counts` says, as numpy does."""
    if counts is None:
        return quantiles(lambda: _parts(one), math.prod(one.shape), [share])[0]
    values = np.asarray(one)
    order = np.argsort(values, kind="stable")
    ends = np.cumsum(counts[order])
    place = share * (ends[-1] - 1)
    low, high = (values[order[np.searchsorted(ends, rank, side="right")]] for rank in (np.floor(place), np.ceil(place)))
    return float(np.quantile([low, high], place - np.floor(place)))


def otsu_of_logarithm(one: np.ndarray | RowPlane, counts: np.ndarray | None = None) -> float:
    """Return Otsu's threshold on the logarithm of the positive evidence; half the maximum if the map is constant.

    `one` is a map (Y, X); with `counts`, there are as many of each of its values.
    """

    def parts() -> Iterator[np.ndarray]:
        return _parts(one) if counts is None else iter([np.asarray(one)[counts > 0]])

    peak = max(0.0, *(float(part.max(initial=0)) for part in parts()))
    least = peak * 10.0**-_DECADES
    lowest = min(float(part[part > least].min(initial=np.inf)) for part in parts())
    low, high = np.log([lowest, peak]) if 0 < lowest <= peak else np.zeros(2)
    if high - low < _CONSTANT:
        return peak / 2

    def logarithms() -> Iterator[np.ndarray]:
        return (np.clip(np.log(part[part > least], dtype=np.float64), low, high) for part in parts())

    weights = None if counts is None else counts[(counts > 0) & (np.asarray(one) > least)]
    return float(np.exp(otsu(logarithms, low, high, weights)))


def _parts(one: np.ndarray | RowPlane) -> Iterator[np.ndarray]:
    """Read a map (Y, X) strip after strip."""
    return (one[strip.rows] for strip in strips(one.shape))


def _smoothed_map(one: np.ndarray | RowPlane, sigma: float, scratch: Scratch) -> RowPlane:
    """Smooth a map (Y, X): each strip with as many rows around it as the filter reaches."""
    reach, found = int(4 * sigma + 0.5), scratch.plane((one.shape[0], one.shape[1]), np.float32)
    for top, bottom in strips(one.shape):
        first = max(top - reach, 0)
        own = ndimage.gaussian_filter(one[first : min(bottom + reach, one.shape[0])], sigma)
        found.write(top, own[top - first : bottom - first])
    return found


def _labelled_objects(
    maps: Sequence[np.ndarray | RowPlane], thresholds: Sequence[float], options: MaskOptions, scratch: Scratch
) -> tuple[RowPlane, np.ndarray]:
    """Label the objects of maps (Y, X): each pixel belongs to the strongest class above its threshold.

    Returns
    -------
    labels : RowPlane
        int32 (Y, X), class after class.
    classes : ndarray
        Index of the class of each label (labels,); the first entry, of label 0, has no meaning.
    """
    shape = (maps[0].shape[0], maps[0].shape[1])
    parts, strongest, pieces = strips(shape), scratch.plane(shape, np.uint16), scratch.plane(shape, np.int32)
    for strip in parts:
        strongest.write(strip.top, _strongest(np.stack([one[strip.rows] for one in maps]), thresholds))
    areas, classes, numbers = np.zeros(1, np.int64), np.zeros(1, int), np.zeros(1, int)
    for index in range(len(maps)):
        found = _objects_of_class(strongest, index + 1, options, Scratch(scratch.in_memory))
        counts = np.zeros(len(found.values), np.int64)
        for strip, labels in found.labels.over(parts):
            counts += np.bincount(labels[labels > 0], minlength=len(counts))
            if index:
                rows = pieces.read(*strip)
                labels = np.add(labels, len(numbers) - 1, out=rows, where=labels > 0)
            pieces.write(strip.top, labels)
        own = np.bincount(found.values[1:], counts[1:], minlength=1)[1:]
        numbers = np.append(numbers, found.values[1:] + (len(areas) - 1))
        areas, classes = np.append(areas, own), np.append(classes, np.full(len(own), index))
    keep = areas >= max(options.min_size, 1)
    keep[0] = False
    kept = (np.cumsum(keep) * keep).astype(np.int32)
    return LookedUp(pieces, kept[numbers]), classes[np.append(0, np.flatnonzero(keep))]


def _objects_of_class(strongest: ScratchPlane, number: int, options: MaskOptions, scratch: Scratch) -> LookedUp:
    """Label the objects of one class, int32 (Y, X), in a plane that holds the number of each pixel's class."""
    parts, mask = strips(strongest.shape), scratch.plane(strongest.shape, np.bool_)
    for strip, classes in strongest.over(parts):
        mask.write(strip.top, classes == number)
    if options.fill_holes:
        fill_holes(mask, parts, scratch)
        for strip, filled in mask.over(parts):
            classes = strongest.read(*strip)
            mask.write(strip.top, filled & ((classes == 0) | (classes == number)))
    found = components(mask.over(parts), mask.shape, scratch)
    return split_components(found, options.split, scratch)


def _value_in_each(maps: np.ndarray, objects: np.ndarray) -> np.ndarray:
    """Return the value of each map (classes, Y, X) in each object, beginning with label 0: (classes, labels).

    All pixels of an object have the same value. The value of the background, and of numbers without an object, is 0.
    """
    values = np.zeros((len(maps), int(objects.max(initial=0)) + 1), maps.dtype)
    inside = np.flatnonzero(objects)
    for row, one in zip(values, maps, strict=True):
        row[objects.ravel()[inside]] = one.ravel()[inside]
    return values


def _table(
    regions: Regions,
    classes: np.ndarray,
    names: Sequence[str],
    values: np.ndarray,
    scores: Mapping[str, float],
    pixel_size: float | None,
) -> pd.DataFrame:
    """Make the table of the objects.

    `classes` (labels,) has the index of each label's class in `names`, -1 for none, and `values` (classes, labels) its
    evidence.
    """
    numbers = np.flatnonzero(regions.area[1:]) + 1
    y, x = regions.sums[:, numbers] / regions.area[numbers]
    own, area = classes[numbers], regions.area[numbers].astype(float)
    of_class = own >= 0
    return pd.DataFrame({
        "label": numbers,
        "class": pd.Series([names[i] if i >= 0 else "" for i in own], dtype="str"),
        "area_px": area,
        "area_um2": area * (np.nan if pixel_size is None else pixel_size**2),
        "y": y,
        "x": x,
        "mean_evidence": np.where(of_class, values[own, numbers], np.nan),
        "score": [scores[names[i]] if i >= 0 else np.nan for i in own],
    })  # fmt: skip


def class_image(labels: np.ndarray, objects: pd.DataFrame, classes: tuple[str, ...]) -> np.ndarray:
    """Return the class of each pixel of one plane, uint16 (Y, X): 1 for the first class, 0 for background."""
    return np.asarray(class_of_each(objects, classes, int(labels.max(initial=0)))[labels])


def class_of_each(objects: pd.DataFrame, classes: tuple[str, ...], largest: int = 0) -> np.ndarray:
    """Return the class of each label, at least up to `largest`, uint16 (labels,): 1 for the first class, 0 for none."""
    numbers = objects["label"].to_numpy(int)
    found = np.zeros(numbers.max(initial=largest) + 1, np.uint16)
    found[numbers] = [classes.index(name) + 1 for name in objects["class"]]
    return found
