"""Measure how good a model is on images whose labels are known.

The scores of an image are the mean over its planes, and the scores of a group (well, strain) are the median over its
images. If each image shows one class, the top class is the answer. With several labels, the answer is yes for every
class with a score above one half.

With `bag="group"`, all images of a group are one bag, too, and both answers stand side by side.

Why intervals draw whole groups: images of one well or strain resemble each other, so intervals from drawing single
images would be too narrow. A metric that the images cannot give (no image of a class) is NaN, and a warning says so.

Why cross-validation starts from random weights: the model may have been trained on the images that are held out.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from napari_milcnn.errors import LabelsError, OptionsError
from napari_milcnn.evaluation.faithfulness import Faithfulness, faithfulness_steps
from napari_milcnn.evaluation.localisation import LocalisationScores, mean_scores, read_truth, score_plane, truth_file
from napari_milcnn.evaluation.report import EvaluationReport, ImageOutcome
from napari_milcnn.evaluation.tables import (
    class_table,
    fold_table,
    group_table,
    headline_metrics,
    localisation_table,
    uncertain_images,
    unlike_table,
)
from napari_milcnn.images.stack import ImageStack
from napari_milcnn.inference.evidence import EvidenceMaker
from napari_milcnn.inference.pipeline import ImageEnd, ImageOpened, ImageRequest, PlaneResult, analyse, failures_of
from napari_milcnn.inference.predict import Bags, pool_bags
from napari_milcnn.inference.unlike import UNKNOWN_LOOK
from napari_milcnn.labels.mislabels import suspected_mislabels
from napari_milcnn.labels.table import LabelledImage, LabelTable
from napari_milcnn.metrics.calibration import answers, fit_temperature, logits_of, reliability_curve
from napari_milcnn.metrics.classification import confusion_table, weighted_figures
from napari_milcnn.model.trained_model import TrainedModel, new_model
from napari_milcnn.options import EvaluateOptions, EvidenceOptions, MaskOptions, TrainOptions, make_options
from napari_milcnn.progress import Progress, Steps
from napari_milcnn.schema import BAG_RIGHT
from napari_milcnn.training.trainer import train

FEWEST_GROUPS = 5
"""Smallest number of groups for which intervals are given."""
_DRAWS_AT_ONCE = 100


def evaluate(
    model: TrainedModel,
    labels: LabelTable,
    *,
    truth: str | Path | None = None,
    folds: int | None = None,
    train_options: Mapping[str, object] | None = None,
    **options: object,
) -> EvaluationReport:
    """Measure a model on labelled images.

    Parameters
    ----------
    model : TrainedModel
        The model to measure. With `folds`, a model like this one is trained from random weights in each fold.
    labels : LabelTable
        Images and their labels.
    truth : path, optional
        Folder of truth images: uint8, 0 background, 1 another cell, 2 a cell of the image's own phenotype.
    folds : int, optional
        Number of folds of a cross-validation. Each fold holds out whole groups: a model is trained on the other groups
        and predicts the images of the groups that are held out.
    train_options : mapping, optional
        Fields of `TrainOptions`, for cross-validation.
    **options
        Fields of `EvaluateOptions`: split, draws, seed, faithfulness, kind, and those of `ComputeOptions`.

    Returns
    -------
    EvaluationReport
        .accuracy, .mean_average_precision, .confusion, .groups and more; .save(DIR) writes tables and report.html.

    Raises
    ------
    LabelsError
        If the labels do not fit the model, or no image could be classified.
    OptionsError
        If an option is unknown or has an impossible value, or `truth` is not a folder.
    """
    steps = evaluation_steps(model, labels, truth=truth, folds=folds, train_options=train_options, **options)
    *_, last = steps
    assert isinstance(last.result, EvaluationReport)
    return last.result


def evaluation_steps(
    model: TrainedModel,
    labels: LabelTable,
    *,
    truth: str | Path | None = None,
    folds: int | None = None,
    train_options: Mapping[str, object] | None = None,
    **options: object,
) -> Steps[ImageOutcome | EvaluationReport]:
    """Measure a model, an image or an epoch at a time; see `evaluate`. To cancel, leave the loop.

    Yields
    ------
    Progress
        After each image and, in cross-validation, each epoch. Its result is the `ImageOutcome` of an image; on the last
        step it is the `EvaluationReport`.
    """
    chosen = make_options(EvaluateOptions, options)
    if folds is not None and chosen.faithfulness:
        raise OptionsError(
            "faithfulness is measured for one trained model, but a cross-validation trains a model for each fold; "
            "leave out one of the two"
        )
    model = model if folds is None else _untrained(model, labels.single_label, chosen.seed)
    table = _chosen_images(model, labels, chosen)
    folder = None if truth is None else _truth_folder(truth)
    if folds is None:
        if train_options:
            raise OptionsError(
                f"options of training ({', '.join(train_options)}) are used in cross-validation only; give a number of "
                "folds, or leave these options out"
            )
        steps = _predict(model, table, chosen, folder)
    else:
        steps = _cross_validate(model, table, folds, chosen, folder, make_options(TrainOptions, train_options or {}))
    outcomes: list[ImageOutcome] = []
    total = 0
    for step in steps:
        total = step.total
        outcomes += [step.result] if step.result is not None else []
        yield step
    report = measure(model, table, outcomes, chosen)
    if chosen.faithfulness:
        for part in faithfulness_steps(model, table, chosen.seed, _evidence_options(chosen)):
            if part.result is None:
                yield Progress(total, total, f"faithfulness, {part.doing}")
            else:
                report = _with_faithfulness(report, part.result)
    yield Progress(total, total, "report", result=report)


def _with_faithfulness(report: EvaluationReport, found: Faithfulness) -> EvaluationReport:
    failed = [f"faithfulness leaves out {len(found.problems)} images: {found.problems[0]}"] if found.problems else []
    return replace(report, faithfulness=found.table, warnings=(*report.warnings, *failed))


def _chosen_images(model: TrainedModel, labels: LabelTable, options: EvaluateOptions) -> LabelTable:
    table = labels.part(options.split) if options.split else labels
    if not table.images:
        raise LabelsError(
            f"no image of the table has the split {options.split}; write {options.split} into the column split for "
            "some images, or evaluate all images"
        )
    unknown = sorted(set(table.classes) - set(model.classes))
    if unknown:
        raise LabelsError(
            f"the table has the label {', '.join(unknown)}, which the model does not know; its classes: "
            f"{', '.join(model.classes)}; correct the table, or choose a model with these labels"
        )
    several = [image for image in table.images if len(image.labels) > 1]
    if model.card.single_label and several:
        first = f"{several[0].name} ({'|'.join(several[0].labels)})"
        raise LabelsError(
            f"{len(several)} images have several labels, the first of them {first}, but the model gives each image one "
            "class; keep one label in each row"
        )
    return table


def _truth_folder(truth: str | Path) -> Path:
    if not Path(truth).is_dir():
        raise OptionsError(f"{truth} is not a folder; expected the folder of the truth images")
    return Path(truth)


def _predict(
    model: TrainedModel, table: LabelTable, options: EvaluateOptions, truth: Path | None, fold: int | None = None
) -> Steps[ImageOutcome]:
    truths = [_truth_of(row, truth) for row in table.images]
    requests = [_request(table, row, path) for row, path in zip(table.images, truths, strict=True)]
    collector: _OutcomeCollector | None = None
    groups = _GroupBags(model, table) if options.bag == "group" else None
    for step in analyse(EvidenceMaker(model, **_evidence_options(options)), requests):
        row, event = table.images[step.number], step.result
        if isinstance(event, ImageOpened):
            collector = _OutcomeCollector(event.image, truths[step.number])
        elif isinstance(event, PlaneResult) and collector is not None:
            collector.add(event)
        elif isinstance(event, ImageEnd):
            if event.failure or collector is None:
                outcome = ImageOutcome(row, error=event.failure)
            else:
                outcome = collector.outcome(row)
            if groups is not None:
                outcome = replace(outcome, bag_scores=groups.add(row, collector))
            collector = None
            yield Progress(step.number + 1, step.total, row.name, result=replace(outcome, fold=fold))


def _evidence_options(options: EvaluateOptions) -> dict[str, object]:
    return {name: getattr(options, name) for name in EvidenceOptions.model_fields}


def _truth_of(row: LabelledImage, folder: Path | None) -> Path | None:
    """Return the file of the truth image; None if there is none, or the image has several labels."""
    return None if folder is None or len(row.labels) > 1 else truth_file(folder, row.file)


def _request(table: LabelTable, row: LabelledImage, truth: Path | None) -> ImageRequest:
    """Request the scores of an image and, if it has a truth image, the masks of its own class."""
    masks = None if truth is None else MaskOptions(present=0.0)
    return ImageRequest(str(row.file), partial(table.open, row), masks=masks, classes=row.labels if masks else None)


class _GroupBags:
    """Pools the images of each group into one bag, once the last of them is classified."""

    def __init__(self, model: TrainedModel, table: LabelTable) -> None:
        self.model = model
        self.left = Counter(image.group for image in table.images)
        self.bags: dict[str, list[Bags]] = {}

    def add(self, row: LabelledImage, found: _OutcomeCollector | None) -> np.ndarray | None:
        """Add an image, which may have failed; returns the scores (classes,) of its group if it is complete."""
        own = self.bags.setdefault(row.group, [])
        own += [] if found is None else found.bags
        self.left[row.group] -= 1
        if self.left[row.group]:
            return None
        del self.bags[row.group]
        return pool_bags(self.model, Bags.joined(own)).scores if own else None


class _OutcomeCollector:
    """Collects the scores of the planes of one image; class maps are not kept."""

    def __init__(self, image: ImageStack, truth: Path | None) -> None:
        self.scores: list[np.ndarray] = []
        self.bags: list[Bags] = []
        self.unlike: list[tuple[float, str]] = []
        self.has_structure = False
        self.localisation: list[LocalisationScores] = []
        self.warnings: dict[str, None] = {}
        self.truth: np.ndarray | None = None
        if truth is not None:
            with failures_of(str(truth)) as reasons:
                self.truth = read_truth(truth, image)
            self._not_localised(reasons)

    def add(self, result: PlaneResult) -> None:
        """Add the scores of a plane and, if the image has a truth image, of its evidence."""
        prediction = result.prediction
        self.scores.append(prediction.scores[0])
        self.bags.append(prediction.without_maps().bags)
        self.unlike.append((float(prediction.unlike[0]), prediction.unlike_reasons[0]))
        self.has_structure |= bool(prediction.has_structure[0])
        plate = result.prediction.plate
        self.warnings |= dict.fromkeys((*result.prediction.notes, *([plate.sentence] if plate is not None else [])))
        if self.truth is None:
            return
        with failures_of("the evidence") as reasons:
            self.localisation.append(score_plane(result, self.truth))
        self._not_localised(reasons)

    def _not_localised(self, reasons: Sequence[str]) -> None:
        self.warnings |= {f"its evidence was not compared with the truth image: {reason}": None for reason in reasons}

    def outcome(self, row: LabelledImage) -> ImageOutcome:
        """Average the scores over the planes."""
        localisation = mean_scores(self.localisation) if self.localisation else None
        scores = np.stack(self.scores).mean(0, dtype=float)
        unlike, reason = max(self.unlike)  # if the model knows its training images no plane is NaN, else all are
        return ImageOutcome(
            row, len(self.scores), scores, warnings=tuple(self.warnings), localisation=localisation, unlike=unlike,
            unlike_reason=reason, has_structure=self.has_structure,
        )  # fmt: skip


def _cross_validate(
    model: TrainedModel,
    table: LabelTable,
    folds: int,
    options: EvaluateOptions,
    truth: Path | None,
    training: TrainOptions,
) -> Steps[ImageOutcome]:
    """Train on all folds but one and predict the one held out, for each fold.

    The validation images that choose the best epoch come from the folds that are trained on.
    """
    parts = table.folds(folds, options.seed)
    total, done = folds * training.epochs + len(table.images), 0
    for number, part in enumerate(parts, start=1):
        rest = part.part("train")
        rest = replace(rest, images=tuple(replace(image, split=None) for image in rest.images))
        best = model
        for report in train(model, rest, **training.model_dump()):
            best, done = report.best, done + 1
            yield Progress(done, total, f"fold {number} of {folds}, epoch {report.epoch}")
        for step in _predict(best, part.part("validation"), options, truth, number):
            done += 1
            yield replace(step, number=done, total=total)


def _untrained(model: TrainedModel, single_label: bool, seed: int) -> TrainedModel:
    """Return a model like this one, but with random weights."""
    card = model.card
    network = card.network.model_dump(exclude={"channels", "classes"})
    untrained = new_model(card.classes, card.channels, "paper", seed=seed, **network)
    return untrained.with_card(
        name=card.name,
        single_label=single_label,
        pixel_size=card.pixel_size,
        normalise=card.normalise,
        scale=card.scale,
        foreground=card.foreground,
        reference=card.reference,
    )


def measure(
    model: TrainedModel, table: LabelTable, outcomes: Sequence[ImageOutcome], options: EvaluateOptions
) -> EvaluationReport:
    """Turn the outcomes of the images into the metrics and tables of a report.

    Parameters
    ----------
    model : TrainedModel
        The model that was measured.
    table : LabelTable
        The images and their labels.
    outcomes : sequence of ImageOutcome
        The result of each image, including those that failed.
    options : EvaluateOptions
        How the model was measured.

    Raises
    ------
    LabelsError
        If no image could be classified.
    """
    measured = [outcome for outcome in outcomes if outcome.scores is not None]
    if not measured:
        raise LabelsError(
            f"none of the {len(outcomes)} images could be classified; the first of them failed: {outcomes[0].error}"
        )
    single = model.card.single_label
    scores = np.stack([outcome.scores for outcome in measured if outcome.scores is not None])  # (images, classes)
    targets = replace(table, images=tuple(o.image for o in measured)).targets(model.classes).astype(float)
    bags = {outcome.image.group: outcome.bag_scores for outcome in outcomes if outcome.bag_scores is not None}
    groups = group_table(measured, scores, targets, model.classes, single, bags)
    reliability = reliability_curve(*answers(scores, targets, single))
    figures = headline_metrics(scores, targets, single) | {
        "group accuracy": _mean(groups["right"]),
        "single-location accuracy": single_location_accuracy(scores, targets),
        "expected calibration error": reliability.error,
        "further temperature": fit_temperature(logits_of(scores, single), targets, single),
    }  # fmt: skip
    if BAG_RIGHT in groups:
        figures["bag accuracy"] = _mean(groups[BAG_RIGHT])
    names = [outcome.image.group for outcome in measured]
    intervals, interval_warnings = _intervals(scores, targets, single, names, groups, options)
    return EvaluationReport(
        model=model,
        table=table,
        options=options,
        outcomes=tuple(outcomes),
        figures=figures,
        intervals=intervals,
        classes=class_table(model, scores, targets),
        confusion=confusion_table(scores, targets, model.classes, single),
        reliability=reliability,
        groups=groups,
        mislabels=suspected_mislabels(
            [outcome.image for outcome in measured], scores, targets, model.classes, single
        ).reset_index(drop=True),
        uncertain=uncertain_images(measured, scores, model.classes, single),
        localisation=localisation_table(measured),
        unlike=unlike_table(measured, scores, targets, single),
        folds=fold_table(measured, scores, targets, single),
        warnings=(*interval_warnings, *table.warnings, *_warnings(model, table, outcomes, targets, groups)),
    )


def _mean(values: Iterable[float]) -> float:
    """Average the numbers that are not NaN; NaN if there are none."""
    known = [float(value) for value in values if not math.isnan(value)]
    return float(np.mean(known)) if known else math.nan


def single_location_accuracy(scores: np.ndarray, targets: np.ndarray) -> float:
    """Return the share of the images with exactly one label whose top class is that label; NaN if there are none."""
    one = targets.sum(1) == 1
    return float((scores.argmax(1) == targets.argmax(1))[one].mean()) if one.any() else math.nan


def _intervals(
    scores: np.ndarray,
    targets: np.ndarray,
    single: bool,
    names: Sequence[str],
    groups: pd.DataFrame,
    options: EvaluateOptions,
) -> tuple[dict[str, tuple[float, float]], list[str]]:
    """Return the 95 % intervals of the headline metrics from drawing whole groups, and warnings if there are none."""
    count = len(groups)
    if options.draws == 0:
        return {}, []
    if count < FEWEST_GROUPS:
        return {}, [
            f"there are no intervals: the images have {count} group{'s'[: count > 1]}, but intervals need at least "
            f"{FEWEST_GROUPS}"
        ]
    members = (groups["group"].to_numpy()[:, None] == np.asarray(names)).astype(float)  # (groups, images)
    rng = np.random.default_rng(options.seed)
    shares = {"group accuracy": "right", "bag accuracy": BAG_RIGHT}
    answers_of = {name: groups[column] for name, column in shares.items() if column in groups}
    parts = []
    for start in range(0, options.draws, _DRAWS_AT_ONCE):
        drawn = rng.multinomial(count, np.full(count, 1 / count), min(_DRAWS_AT_ONCE, options.draws - start))
        part = weighted_figures(drawn @ members, scores, targets, single)
        with np.errstate(invalid="ignore"):
            parts.append(part | {
                name: (drawn @ right.fillna(0)) / (drawn @ right.notna()) for name, right in answers_of.items()
            })  # fmt: skip
    draws = pd.concat([pd.DataFrame(part) for part in parts])
    low, high = draws.quantile(0.025), draws.quantile(0.975)
    return {name: (float(low[name]), float(high[name])) for name in parts[0] if draws[name].notna().any()}, []


def _warnings(
    model: TrainedModel,
    table: LabelTable,
    outcomes: Sequence[ImageOutcome],
    targets: np.ndarray,
    groups: pd.DataFrame,
) -> Iterator[str]:
    failed = [outcome for outcome in outcomes if outcome.error]
    if failed:
        yield f"the results leave out {len(failed)} of {len(outcomes)} images, which failed"
    learned = [image for image in table.images if image.split == "train"]
    if learned and all(outcome.fold is None for outcome in outcomes):
        yield (
            f"{len(learned)} of {len(table.images)} images have the split train; results on images that a model was "
            "trained on are too good, so choose another split"
        )
    absent = [name for name, count in zip(model.classes, targets.sum(0), strict=True) if count == 0]
    if absent:
        yield f"no image shows {', '.join(absent)}, so averages over classes leave it out"
    mixed = int(groups["right"].isna().sum())
    if mixed:
        yield f"{mixed} of {len(groups)} groups have images with different labels, so group accuracy leaves them out"
    empty = sum(not outcome.has_structure for outcome in outcomes)
    if empty:
        yield f"{empty} images show nothing to classify; figures count the class of their highest score"
    if model.card.training.look is None and all(outcome.fold is None for outcome in outcomes):
        yield UNKNOWN_LOOK
    scored = sum(outcome.localisation is not None for outcome in outcomes)
    if 0 < scored < len(outcomes):
        yield f"localisation is measured on {scored} of {len(outcomes)} images, which have a truth image and one label"
    for warning, count in Counter(warning for outcome in outcomes for warning in outcome.warnings).most_common():
        yield f"{count} image{'s'[: count > 1]}: {warning}"
