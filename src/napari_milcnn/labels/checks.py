"""Find labels that may be wrong; each finding is a sentence that says what was found and what to do.

Three kinds of problems are searched: a label that the model contradicts with confidence (confident learning, Northcutt
et al. 2021; `labels.mislabels`); the same image under two names; and groups that mislead. A group on both sides of the
split makes the model look better than it is. If all images of a class come from one group, the model may learn the
group in place of the class.

Why the sentence says that the model learned from an image: a model can memorise a wrong label, so it finds few mistakes
in its own training images, and a mistake that it does find there is more likely a real one. The model does not store
its training images. They are found from its record instead: the same split of this table must give the same counts.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import numpy as np

from napari_milcnn.errors import LabelsError
from napari_milcnn.inference.evidence import EvidenceMaker
from napari_milcnn.inference.pipeline import ImageEnd, ImageRequest, PlaneResult, analyse
from napari_milcnn.labels.image_checks import CheckedRow, same_content
from napari_milcnn.labels.mislabels import suspected_mislabels
from napari_milcnn.labels.table import LabelledImage, LabelTable
from napari_milcnn.model.trained_model import TrainedModel
from napari_milcnn.options import ComputeOptions, make_options
from napari_milcnn.progress import Progress, Steps


@dataclass(frozen=True)
class Finding:
    """A possible problem with labels.

    Attributes
    ----------
    kind : str
        mislabel, duplicate, group, or unread for an image that could not be compared with the model.
    rows : tuple of int
        Indices in `table.images` of the images with the problem.
    sentence : str
        What was found and what to do.
    """

    kind: Literal["mislabel", "duplicate", "group", "unread"]
    rows: tuple[int, ...]
    sentence: str


def check_labels(table: LabelTable, model: TrainedModel | None = None, **options: object) -> Steps[tuple[Finding, ...]]:
    """Look for labels that may be wrong, one image at a time; leave the loop between two steps to cancel.

    Parameters
    ----------
    table : LabelTable
        Images and their labels. Images without a label are only compared with the other images.
    model : TrainedModel, optional
        Model whose scores are compared with the labels of the images in `comparable_rows`.
    **options
        Fields of `ComputeOptions`: tile, device, precision, engine, batch_size, match_pixel_size, relative_size.

    Yields
    ------
    Progress
        After the images were compared with each other, and after each image that was classified. The result of the last
        step holds all findings: duplicates, groups, mislabels with the widest gap first, and images that failed.

    Raises
    ------
    OptionsError
        If an option is unknown or has an impossible value.
    """
    chosen = make_options(ComputeOptions, options)
    found = [*_duplicates(table), *_split_groups(table), *_lone_groups(table)]
    rows = [] if model is None else comparable_rows(model, table)
    yield Progress(0, len(rows))
    scores: dict[int, np.ndarray] = {}
    unread: list[Finding] = []
    if model is not None and rows:
        for step in _scored(EvidenceMaker(model, **chosen.model_dump()), table, rows):
            if isinstance(step.result, Finding):
                unread.append(step.result)
            else:
                scores |= step.result or {}
            yield Progress(step.number, step.total, step.doing, step.share)
        found += [*_mislabels(model, table, scores), *unread]
    yield Progress(len(rows), len(rows), result=tuple(found))


def _scored(maker: EvidenceMaker, table: LabelTable, rows: Sequence[int]) -> Steps[dict[int, np.ndarray] | Finding]:
    """Classify the images of some rows; each step gives the row and its mean scores (classes,), or why it failed."""
    requests = [ImageRequest(str(table.images[row].file), partial(table.open, table.images[row])) for row in rows]
    planes: list[np.ndarray] = []
    for step in analyse(maker, requests):
        if isinstance(step.result, PlaneResult):
            planes.append(step.result.prediction.scores[0])
        if isinstance(step.result, ImageEnd):
            row = rows[step.number]
            name, failure = table.images[row].name, step.result.failure
            found = {row: np.stack(planes).mean(0, dtype=float)} if planes else {}
            unread = (
                Finding("unread", (row,), f"{name} was not compared with the model: {failure}") if failure else None
            )
            planes = []
            yield Progress(step.number + 1, step.total, name, result=unread or found)


def comparable_rows(model: TrainedModel, table: LabelTable) -> list[int]:
    """Return the rows whose labels can be compared with the scores of a model.

    These are the labelled images whose labels are all classes of the model, and which have one label if the model gives
    one class per image.
    """
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
    answers = zip(found.index, found["model says"], found["score"], found["score of label"], strict=True)
    for place, answer, score, label_score in answers:
        row = rows[place]
        yield Finding("mislabel", (row,), _contradiction(table.images[row], answer, score, label_score, row in learned))


def _contradiction(image: LabelledImage, answer: str, score: float, label_score: float, learned: bool) -> str:
    against = "" if np.isnan(label_score) else f" against {label_score:.2f} for its label"
    training = ", although it was trained with this label" if learned else ""
    return (
        f"{image.name} is labelled {'|'.join(image.labels)}, but the model says {answer} (score "
        f"{score:.2f}{against}){training}; look at the image and correct the label if it is wrong"
    )


def _learned_from(model: TrainedModel, table: LabelTable) -> frozenset[int]:
    """Return the rows that the model was trained on, as far as its record and the table show."""
    labelled = [row for row, image in enumerate(table.images) if image.labels]
    part = replace(table, images=tuple(table.images[row] for row in labelled))
    record = model.card.training
    chosen = record.options
    try:
        split = part.with_split(chosen.get("validation", 0), chosen.get("seed", 0))
    except LabelsError:  # a table with one group is not the one that the model was trained on
        return frozenset()
    if split.part("train").counts() != record.images:
        return frozenset()
    return frozenset(row for row, image in zip(labelled, split.images, strict=True) if image.split == "train")


def _duplicates(table: LabelTable) -> Iterator[Finding]:
    """Yield pairs of files with the same content, each with the rows of all planes of both files."""
    rows = defaultdict(list)
    for row, image in enumerate(table.images):
        rows[image.file].append(row)
    firsts = [table.images[first] for first, *_ in rows.values()]
    files = [CheckedRow(image.line, image.file, image.labels, "", replace(image, plane="").name) for image in firsts]
    for one, other in same_content(files):
        both = rows[one.file], rows[other.file]
        labels = [[table.images[row].labels for row in part] for part in both]
        yield Finding("duplicate", (*both[0], *both[1]), _copy(one, other, labels))


def _copy(one: CheckedRow, other: CheckedRow, labels: list[list[tuple[str, ...]]]) -> str:
    names = f"{one.name} and {other.name} are the same image"
    texts = [" / ".join("|".join(sorted(each)) for each in part if each) for part in labels]
    if all(texts) and texts[0] != texts[1]:
        return f"{names}, labelled {texts[0]} and {texts[1]}; correct the wrong label, or remove one of them"
    return f"{names}, so it counts twice; remove one of them"


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
                f"group {group} is in {counts}: images of one group resemble each other, so accuracy is overestimated; "
                "put the whole group on one side",
            )  # fmt: skip


def _lone_groups(table: LabelTable) -> Iterator[Finding]:
    """Yield the classes whose images, two or more, all come from one group."""
    for name in table.classes:
        rows = [row for row, image in enumerate(table.images) if name in image.labels]
        groups = {table.images[row].group for row in rows}
        if len(rows) > 1 and len(groups) == 1:
            yield Finding(
                "group", tuple(rows),
                f"all {len(rows)} images of {name} come from one group, {groups.pop()}: a model may learn the group "
                f"instead of {name}, and no other group is left for validation; label images of {name} from another "
                "group",
            )  # fmt: skip
