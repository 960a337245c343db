"""Measure without annotation how much of a class's score hangs on the pixels of its mask.

For images that show a class, the mask of that class is made from each kind of evidence. The image is then classified
four times more: without the pixels of the mask, with these pixels alone, and both for the same mask moved to a random
place. The pixels that are taken out get the image's own background: pixels drawn from outside the foreground.

What the numbers mean, and what not. A mask on whose pixels the score hangs takes more of the score away than an equal
area elsewhere, and keeps more of it alone. That does not make it the right mask: holes in the shape of cells are
themselves unlike anything that the model has learned, and on fields with known cells such numbers rank kinds of
evidence only roughly as the truth does. They are therefore reported, and nothing is chosen by them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import get_args

import numpy as np
import pandas as pd

from napari_milcnn.images.intensity import with_plate_scale
from napari_milcnn.images.open import open_image
from napari_milcnn.images.stack import ImageStack
from napari_milcnn.inference.evidence import EvidenceMaker
from napari_milcnn.inference.masks import segment_plane
from napari_milcnn.inference.pipeline import failures_of
from napari_milcnn.labels.table import LabelledImage, LabelTable
from napari_milcnn.model.card import MaskFaithfulness
from napari_milcnn.model.trained_model import TrainedModel
from napari_milcnn.options import EvidenceKind, MaskOptions, make_options
from napari_milcnn.progress import Progress, Steps

_IMAGES_PER_CLASS = 8
"""Largest number of images that are measured for a class, evenly spaced in the table."""
_LEAST_BACKGROUND = 0.05
"""Share of the plane outside the foreground below which the darker half of the plane is the background."""
_SCORES = {
    "score": "score", "without the mask": "without_mask", "without as much elsewhere": "without_elsewhere",
    "the mask alone": "mask_alone", "as much elsewhere alone": "elsewhere_alone",
}  # fmt: skip
"""Column of the table -> field of `MaskFaithfulness`, in the order in which the images are classified."""
_ALL = "all"
"""Class of the rows over all classes."""


@dataclass(frozen=True)
class Faithfulness:
    """How much of a class's score hangs on the pixels of its mask.

    Attributes
    ----------
    table : DataFrame
        One row per class and kind of evidence, and one over all classes (class `all`): class, evidence, images (with a
        mask), area (share of the plane in the mask), score (of the whole image), and the score that is left without the
        mask, without as much elsewhere, with the mask alone, and with as much elsewhere alone; means over the images.
    problems : tuple of str
        Why images could not be measured.
    """

    table: pd.DataFrame
    problems: tuple[str, ...]


def faithfulness(model: TrainedModel, labels: LabelTable, *, seed: int = 0, **options: object) -> Faithfulness:
    """Measure how much of each class's score hangs on the pixels of its mask, for each kind of evidence.

    Parameters
    ----------
    model : TrainedModel
        The model.
    labels : LabelTable
        Images and their labels; up to eight images of each class are measured, of each the middle plane.
    seed : int
        Random seed of the places and of the background.
    **options
        Fields of `EvidenceOptions` other than kind.

    Raises
    ------
    OptionsError
        If the model does not know a label, or an option is unknown or has an impossible value.
    """
    *_, last = faithfulness_steps(model, labels, seed, options)
    assert last.result is not None
    return last.result


def with_faithfulness(model: TrainedModel, table: pd.DataFrame) -> TrainedModel:
    """Write on a model's card how much of the scores hangs on the masks, for each kind of evidence and each class.

    Parameters
    ----------
    model : TrainedModel
        The model that was measured.
    table : DataFrame
        `Faithfulness.table`.
    """
    return model.with_card(faithfulness=[one.model_dump() for one in faithfulness_records(table)])


def faithfulness_records(table: pd.DataFrame) -> tuple[MaskFaithfulness, ...]:
    """Turn `Faithfulness.table` into the records of a card."""
    rows = table.rename(columns={"class": "class_name", **_SCORES}).to_dict("records")
    over_all = [{**row, "class_name": None} for row in rows[len(rows) - table["evidence"].nunique() :]]
    return tuple(
        make_options(MaskFaithfulness, {str(name): value for name, value in row.items()})
        for row in [*rows[: len(rows) - len(over_all)], *over_all]
    )


def faithfulness_steps(
    model: TrainedModel, labels: LabelTable, seed: int, options: Mapping[str, object]
) -> Steps[Faithfulness]:
    """Measure an image at a time; see `faithfulness`. To cancel, leave the loop.

    Yields
    ------
    Progress
        Before each image; the result is the `Faithfulness` on the last step.
    """
    makers = {kind: EvidenceMaker(model, **{**options, "kind": kind}) for kind in get_args(EvidenceKind)}
    chosen, rng = _spaced(labels), np.random.default_rng(seed)
    rows: list[dict[str, object]] = []
    problems: list[str] = []
    for number, row in enumerate(chosen):
        yield Progress(number, len(chosen), row.name)
        with failures_of(row.name) as reasons, labels.open(row) as image:
            rows += _measured(makers, image, row, rng)
        problems += reasons
    yield Progress(len(chosen), len(chosen), "faithfulness", result=Faithfulness(_averages(rows), tuple(problems)))


def _spaced(labels: LabelTable) -> list[LabelledImage]:
    """Return up to a number of images of each class, evenly spaced, in the order of the table."""
    chosen: set[int] = set()
    for name in labels.classes:
        places = [i for i, row in enumerate(labels.images) if name in row.labels]
        count = min(_IMAGES_PER_CLASS, len(places))
        chosen |= {places[i * len(places) // count] for i in range(count)}
    return [labels.images[i] for i in sorted(chosen)]


def _measured(
    makers: Mapping[str, EvidenceMaker], image: ImageStack, row: LabelledImage, rng: np.random.Generator
) -> Iterator[dict[str, object]]:
    """Measure each kind of evidence for each label of an image, in its middle plane."""
    first, plane = next(iter(makers.values())), len(image.planes) // 2
    given = first.classifier.model_input(image)
    prediction = first.classifier.classify(given, [plane])
    raw = image.plane(plane, given.channels)
    filled = _background(raw, first.foreground(given, plane), rng)
    for kind, maker in makers.items():
        thresholds = maker.model.card.thresholds_for(kind)
        for name in row.labels:
            (evidence,) = maker.planes(given, prediction, [name])
            options = MaskOptions(present=0.0)
            masks = segment_plane(evidence, prediction, (name,), options, image.pixel_size, thresholds)
            mask = np.asarray(masks.labels) > 0
            if not mask.any():
                continue
            elsewhere = np.roll(mask, [int(rng.integers(side)) for side in mask.shape], (0, 1))
            cuts = np.stack([np.where(cut, filled, raw) for cut in (mask, elsewhere, ~mask, ~elsewhere)])
            cut = open_image(cuts, axes="TCYX", channels=maker.model.channels, pixel_size=image.pixel_size)
            changed = with_plate_scale(cut, prediction.plate)
            index = maker.model.classes.index(name)
            scores = [prediction.scores[0, index], *maker.classifier.classify(changed).scores[:, index]]
            found = dict(zip(_SCORES, map(float, scores), strict=True))
            yield {"class": name, "evidence": kind, "area": float(mask.mean()), **found}


def _background(raw: np.ndarray, objects: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Make a plane (channels, Y, X) of pixels that are drawn from the background of a plane."""
    outside = objects == 0
    if outside.mean() < _LEAST_BACKGROUND or outside.all():
        brightness = raw.mean(0)
        outside = brightness <= np.median(brightness)
    places = rng.choice(np.flatnonzero(outside), outside.size)
    return raw.reshape(len(raw), -1)[:, places].reshape(raw.shape)


def _averages(rows: list[dict[str, object]]) -> pd.DataFrame:
    """Average over the images of each class and kind of evidence, and of each kind."""
    columns = ["class", "evidence", "images", "area", *_SCORES]
    table = pd.DataFrame(rows, columns=[name for name in columns if name != "images"])
    parts = []
    for part in (table, table.assign(**{"class": _ALL})):
        groups = part.groupby(["class", "evidence"], sort=False)
        parts.append(groups.mean().assign(images=groups.size()).reset_index())
    return pd.concat(parts, ignore_index=True)[columns]
