"""What may be wrong with labels, as sentences that each say what was found and what to do.

Three things are looked for. A label that the model contradicts with confidence (confident learning, Northcutt et al.
2021; `labels.mislabels`). The same image under two names. Groups: one on both sides of the split, whose
images make a model look better than it is, and a class all of whose images come from one group, which a model may learn
in place of the class.

Why a training image is named as such: a model may learn a wrong label by heart, so that it finds few mistakes among the
images that it learned from; those that it does find there it contradicts although it was told otherwise. Which ones
those are, the model does not keep; it is told from its record: the same split of this table, and the same counts.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import numpy as np

from napari_milcnn.errors import LabelsError
from napari_milcnn.inference.evidence import EvidenceMaker
from napari_milcnn.inference.pipeline import ImageEnd, ImageRequest, PlaneResult, analyse
from napari_milcnn.labels.image_checks import CheckedRow, same_content
from napari_milcnn.labels.mislabels import suspected_mislabels
from napari_milcnn.labels.table import LabelledImage, LabelTable
from napari_milcnn.model.trained_model import TrainedModel
from napari_milcnn.options import ComputeOptions, make_options
from napari_milcnn.progress import Progress


@dataclass(frozen=True)
class Finding:
    """Something that may be wrong.

    Attributes
    ----------
    kind : str
        mislabel, duplicate or group.
    rows : tuple of int
        Places in `table.images` of the images that it is about.
    sentence : str
        What was found, and what to do.
    """

    kind: Literal["mislabel", "duplicate", "group"]
    rows: tuple[int, ...]
    sentence: str


def check_labels(
    table: LabelTable, model: TrainedModel | None = None, **options: Any
) -> Iterator[Progress[tuple[Finding, ...]]]:
    """Look for labels that may be wrong, an image at a time; cancel between steps by leaving the loop.

    Parameters
    ----------
    table : LabelTable
        Images and their labels; those without a label are compared with the others, no more.
    model : TrainedModel, optional
        Its scores are compared with the labels. Images with a label that it does not know are left out, and so are, for
        a model that gives one class to an image, those with several; and images that cannot be read.
    **options
        Fields of `ComputeOptions`: tile, device, precision, engine, batch_size, match_pixel_size.

    Yields
    ------
    Progress
        After the images were compared, and after each that was classified. The result of the last step is everything
        that was found: duplicates, then groups, then mislabels, the widest gap first.

    Raises
    ------
    OptionsError
        If an option is unknown or impossible.
    """
    chosen = make_options(ComputeOptions, options)
    found = [*_duplicates(table), *_split_groups(table), *_lone_groups(table)]
    rows = [] if model is None else _judged(model, table)
    yield Progress(0, len(rows))
    scores: dict[int, np.ndarray] = {}
    if model is not None and rows:
        for step in _scored(EvidenceMaker(model, **chosen.model_dump()), table, rows):
            scores |= step.result or {}
            yield Progress(step.number, step.total, step.doing, step.share)
        found += _mislabels(model, table, scores)
    yield Progress(len(rows), len(rows), result=tuple(found))


def _scored(maker: EvidenceMaker, table: LabelTable, rows: Sequence[int]) -> Iterator[Progress[dict[int, np.ndarray]]]:
    """Classify the images of some rows: row -> score of each class, the mean over planes; none for one that failed."""
    requests = [ImageRequest(str(table.images[row].file), partial(table.open, table.images[row])) for row in rows]
    planes: list[np.ndarray] = []
    for step in analyse(maker, requests):
        if isinstance(step.result, PlaneResult):
            planes.append(step.result.prediction.scores[0])
        if isinstance(step.result, ImageEnd):
            row, done = rows[step.number], planes if not step.result.failure else []
            found = {row: np.stack(done).mean(0, dtype=float)} if done else {}
            planes = []
            yield Progress(step.number + 1, step.total, table.images[row].name, result=found)


def _judged(model: TrainedModel, table: LabelTable) -> list[int]:
    """Rows whose labels the model can be asked about."""
    most = 1 if model.card.single_label else len(model.classes)
    return [row for row, image in enumerate(table.images)
            if 0 < len(image.labels) <= most and set(image.labels) <= set(model.classes)]  # fmt: skip


def _mislabels(model: TrainedModel, table: LabelTable, scores: Mapping[int, np.ndarray]) -> Iterator[Finding]:
    if not scores:
        return
    rows = list(scores)
    part = replace(table, images=tuple(table.images[row] for row in rows))
    targets, single = part.targets(model.classes), model.card.single_label
    found = suspected_mislabels(part.images, np.stack(list(scores.values())), targets, model.classes, single)
    learned = _learned_from(model, table)
    for place, seen in found.iterrows():
        row = rows[int(str(place))]
        yield Finding("mislabel", (row,), _contradiction(dict(seen), table.images[row], row in learned))


def _contradiction(seen: dict[str, Any], image: LabelledImage, learned: bool) -> str:
    against = "" if np.isnan(seen["score of label"]) else f" against {seen['score of label']:.2f} for its label"
    own = ", although it learned from this very image" if learned else ""
    return (
        f"{image.file.name} is labelled {'|'.join(image.labels)}, but the model says {seen['model says']} (score "
        f"{seen['score']:.2f}{against}){own}; look at it, and correct the label or leave it"
    )


def _learned_from(model: TrainedModel, table: LabelTable) -> frozenset[int]:
    """Rows that the model learned from, as far as its record and the table say."""
    labelled = [row for row, image in enumerate(table.images) if image.labels]
    part = replace(table, images=tuple(table.images[row] for row in labelled))
    record = model.card.training
    chosen = record.options
    try:
        split = part.with_split(chosen.get("validation", 0), chosen.get("seed", 0))
    except LabelsError:  # one group only: not the table that it was trained on
        return frozenset()
    if split.part("train").counts() != record.images:
        return frozenset()
    return frozenset(row for row, image in zip(labelled, split.images, strict=True) if image.split == "train")


def _duplicates(table: LabelTable) -> Iterator[Finding]:
    """Files with the very same content; of a file whose planes are labelled apart, all rows are named."""
    rows = defaultdict(list)
    for row, image in enumerate(table.images):
        rows[image.file].append(row)
    firsts = [table.images[first] for first, *_ in rows.values()]
    files = [CheckedRow(image.line, image.file, image.labels, "", image.file.name) for image in firsts]
    for one, other in same_content(files):
        both = rows[one.file], rows[other.file]
        labels = [[table.images[row].labels for row in part] for part in both]
        yield Finding("duplicate", (*both[0], *both[1]), _copy(one, other, labels))


def _copy(one: CheckedRow, other: CheckedRow, labels: list[list[tuple[str, ...]]]) -> str:
    names = f"{one.file.name} and {other.file.name} are the same image"
    said = [" / ".join("|".join(sorted(each)) for each in part if each) for part in labels]
    if all(said) and said[0] != said[1]:
        return f"{names}, labelled {said[0]} and {said[1]}; give both the right label, or remove one of them"
    return f"{names} under two names, which counts it twice; remove one of them"


def _split_groups(table: LabelTable) -> Iterator[Finding]:
    sides: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for row, image in enumerate(table.images):
        if image.labels and image.split:
            sides[image.group][image.split].append(row)
    for group, parts in sides.items():
        if len(parts) > 1:
            counts = " and ".join(f"{name} ({len(rows)} image{'s'[: len(rows) > 1]})" for name, rows in parts.items())
            yield Finding(
                "group", tuple(sorted(row for rows in parts.values() for row in rows)),
                f"group {group} stands in {counts}: images of one group resemble each other, so figures would flatter "
                "the model; put the whole group on one side",
            )  # fmt: skip


def _lone_groups(table: LabelTable) -> Iterator[Finding]:
    """Classes with several images, all of one group."""
    for name in table.classes:
        rows = [row for row, image in enumerate(table.images) if name in image.labels]
        groups = {table.images[row].group for row in rows}
        if len(rows) > 1 and len(groups) == 1:
            yield Finding(
                "group", tuple(rows),
                f"all {len(rows)} images of {name} are of one group, {groups.pop()}: a model may learn the group in "
                f"place of {name}, and none can be kept for validation; label images of {name} from another group",
            )  # fmt: skip
