"""How good a model is, on images whose labels are known.

An image's scores are the mean over its planes; a group's (well, strain) the median over its images. The top class is
the answer where each image shows one class; with several labels every class with a score above one half is a yes.

Why intervals draw whole groups: images of one well or strain resemble each other, so that drawing images would promise
more than the data hold. A figure that the images cannot give (no image of a class) is NaN, and a warning says so.

Why cross-validation starts from fresh weights: those of a trained model may have seen the images that are held out.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import precision_recall_fscore_support

from napari_milcnn.errors import LabelsError, OptionsError
from napari_milcnn.evaluation.localisation import LocalisationScores, mean_scores, read_truth, score_plane, truth_file
from napari_milcnn.evaluation.report import EvaluationReport, ImageOutcome
from napari_milcnn.images.stack import ImageStack
from napari_milcnn.inference.evidence import EvidenceMaker
from napari_milcnn.inference.pipeline import ImageEnd, ImageOpened, ImageRequest, PlaneResult, analyse, failures_of
from napari_milcnn.labels.mislabels import suspected_mislabels, with_planes
from napari_milcnn.labels.table import LabelledImage, LabelTable
from napari_milcnn.metrics.calibration import answers, fit_temperature, logits_of, reliability_curve
from napari_milcnn.metrics.classification import answered, confusion_table, ranking_figures, weighted_figures
from napari_milcnn.model.trained_model import TrainedModel, new_model
from napari_milcnn.options import EvaluateOptions, EvidenceOptions, MaskOptions, TrainOptions, make_options
from napari_milcnn.progress import Progress
from napari_milcnn.schema import score_column
from napari_milcnn.training.trainer import train

FEWEST_GROUPS = 5
"""With fewer groups no interval is given."""
_DRAWS_AT_ONCE = 100
_LISTED = 50
"""Uncertain images that are listed."""


def evaluate(
    model: TrainedModel,
    labels: LabelTable,
    *,
    truth: str | Path | None = None,
    folds: int | None = None,
    train_options: dict[str, Any] | None = None,
    **options: Any,
) -> EvaluationReport:
    """Measure a model on labelled images.

    Parameters
    ----------
    model : TrainedModel
        What to measure; with `folds`, what to train anew in each fold, from a random start.
    labels : LabelTable
        Images and their labels.
    truth : path, optional
        Folder of truth images: uint8, 0 background, 1 another cell, 2 a cell of the image's own phenotype.
    folds : int, optional
        Cross-validate over so many folds, whole groups each: train on the rest, predict the images held out.
    train_options : dict, optional
        Fields of `TrainOptions`, for cross-validation.
    **options
        Fields of `EvaluateOptions`: split, draws, seed, kind, and those of `ComputeOptions`.

    Returns
    -------
    EvaluationReport
        .accuracy, .mean_average_precision, .confusion, .groups and more; .save(DIR) writes tables and report.html.

    Raises
    ------
    LabelsError
        If the labels do not fit the model, or no image could be classified.
    OptionsError
        If an option is unknown or impossible.
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
    train_options: dict[str, Any] | None = None,
    **options: Any,
) -> Iterator[Progress[ImageOutcome | EvaluationReport]]:
    """Measure a model, an image or an epoch at a time; see `evaluate`. Cancel between steps by leaving the loop.

    Yields
    ------
    Progress
        Over images, and in cross-validation epochs. Its result is the `ImageOutcome` of an image that was evaluated; on
        the last step it is the `EvaluationReport`.
    """
    chosen = make_options(EvaluateOptions, options)
    model = model if folds is None else _fresh(model, labels.single_label, chosen.seed)
    table = _chosen_images(model, labels, chosen)
    folder = None if truth is None else _truth_folder(truth)
    if folds is None:
        if train_options:
            raise OptionsError(f"options of training, {', '.join(train_options)}, need folds (--folds K)")
        work = _predict(model, table, chosen, folder)
    else:
        work = _cross_validate(model, table, folds, chosen, folder, make_options(TrainOptions, train_options or {}))
    outcomes: list[ImageOutcome] = []
    total = 0
    for step in work:
        total = step.total
        outcomes += [step.result] if step.result is not None else []
        yield step
    yield Progress(total, total, "report", result=measure(model, table, outcomes, chosen))


def _chosen_images(model: TrainedModel, labels: LabelTable, options: EvaluateOptions) -> LabelTable:
    table = labels.part(options.split) if options.split else labels
    if not table.images:
        raise LabelsError(f"no image of the table is marked {options.split}; mark some, or leave out split (--split)")
    unknown = sorted(set(table.classes) - set(model.classes))
    if unknown:
        raise LabelsError(
            f"the table has the label {', '.join(unknown)}, which the model has not; its classes: "
            f"{', '.join(model.classes)}; mend the table, or take the model that knows them"
        )
    several = [image for image in table.images if len(image.labels) > 1]
    if model.card.single_label and several:
        first = f"{several[0].name} ({'|'.join(several[0].labels)})"
        raise LabelsError(
            f"{len(several)} images have several labels, the first of them {first}, and the model gives one class to "
            "an image; keep one label in each row"
        )
    return table


def _truth_folder(truth: str | Path) -> Path:
    if not Path(truth).is_dir():
        raise OptionsError(f"{truth} is no folder; expected the folder of the truth images")
    return Path(truth)


def _predict(
    model: TrainedModel, table: LabelTable, options: EvaluateOptions, truth: Path | None, fold: int | None = None
) -> Iterator[Progress[ImageOutcome]]:
    shared = {name: getattr(options, name) for name in EvidenceOptions.model_fields}
    truths = [_truth_of(row, truth) for row in table.images]
    requests = [_request(table, row, path) for row, path in zip(table.images, truths, strict=True)]
    outcome: _Outcome | None = None
    for step in analyse(EvidenceMaker(model, **shared), requests):
        row, event = table.images[step.number], step.result
        if isinstance(event, ImageOpened):
            outcome = _Outcome(event.image, truths[step.number])
        elif isinstance(event, PlaneResult) and outcome is not None:
            outcome.take(event)
        elif isinstance(event, ImageEnd):
            ended = ImageOutcome(row, error=event.failure) if event.failure or outcome is None else outcome.of(row)
            outcome = None
            yield Progress(step.number + 1, step.total, row.name, result=replace(ended, fold=fold))


def _truth_of(row: LabelledImage, folder: Path | None) -> Path | None:
    """Name the truth image of an image with one label, if there is one."""
    return None if folder is None or len(row.labels) > 1 else truth_file(folder, row.file)


def _request(table: LabelTable, row: LabelledImage, truth: Path | None) -> ImageRequest:
    """Ask for the scores of an image, and for the evidence of its own class where it has a truth."""
    masks = None if truth is None else MaskOptions(present=0.0)
    return ImageRequest(str(row.file), partial(table.open, row), masks=masks, classes=row.labels if masks else None)


class _Outcome:
    """Collects what came of one image; its class maps are not kept."""

    def __init__(self, image: ImageStack, truth: Path | None) -> None:
        self.scores: list[np.ndarray] = []
        self.localisation: list[LocalisationScores] = []
        self.warnings: dict[str, None] = {}
        self.truth: np.ndarray | None = None
        if truth is not None:
            with failures_of(str(truth)) as reasons:
                self.truth = read_truth(truth, image)
            self._not_localised(reasons)

    def take(self, result: PlaneResult) -> None:
        self.scores.append(result.prediction.scores[0])
        self.warnings |= dict.fromkeys(result.prediction.warnings)
        if self.truth is None:
            return
        with failures_of("the evidence") as reasons:
            self.localisation.append(score_plane(result, self.truth))
        self._not_localised(reasons)

    def _not_localised(self, reasons: Sequence[str]) -> None:
        self.warnings |= {f"its evidence was not scored: {reason}": None for reason in reasons}

    def of(self, row: LabelledImage) -> ImageOutcome:
        found = mean_scores(self.localisation) if self.localisation else None
        scores = np.stack(self.scores).mean(0, dtype=float)
        return ImageOutcome(row, len(self.scores), scores, warnings=tuple(self.warnings), localisation=found)


def _cross_validate(
    model: TrainedModel,
    table: LabelTable,
    folds: int,
    options: EvaluateOptions,
    truth: Path | None,
    training: TrainOptions,
) -> Iterator[Progress[ImageOutcome]]:
    """Train on the other folds, predict the one held out; checkpoints are chosen on images cut from the others."""
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


def _fresh(model: TrainedModel, single_label: bool, seed: int) -> TrainedModel:
    """Return a model like this one with random weights, that was never trained."""
    card = model.card
    network = card.network.model_dump(exclude={"channels", "classes"})
    fresh = new_model(card.classes, card.channels, "paper", seed=seed, **network)
    kept = {"pixel_size": card.pixel_size, "foreground": card.foreground, "reference": card.reference}
    return fresh.with_card(name=card.name, single_label=single_label, **kept)


def measure(
    model: TrainedModel, table: LabelTable, outcomes: Sequence[ImageOutcome], options: EvaluateOptions
) -> EvaluationReport:
    """Turn what came of each image into figures.

    Raises
    ------
    LabelsError
        If no image could be classified.
    """
    kept = [outcome for outcome in outcomes if outcome.scores is not None]
    if not kept:
        raise LabelsError(f"none of {len(outcomes)} images could be classified; the first: {outcomes[0].error}")
    single = model.card.single_label
    scores = np.stack([outcome.scores for outcome in kept if outcome.scores is not None])  # (images, classes)
    targets = replace(table, images=tuple(o.image for o in kept)).targets(model.classes).astype(float)
    groups = group_table(kept, scores, targets, model.classes, single)
    sure, right = answers(scores, targets, single)
    reliability = reliability_curve(sure, right)
    figures = _point(scores, targets, single) | {
        "group accuracy": _mean(groups["right"]),
        "single-location accuracy": single_location_accuracy(scores, targets),
        "expected calibration error": reliability.error,
        "further temperature": fit_temperature(logits_of(scores, single), targets, single),
    }  # fmt: skip
    names = [outcome.image.group for outcome in kept]
    intervals, said = _intervals(scores, targets, single, names, groups, options)
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
            [outcome.image for outcome in kept], scores, targets, model.classes, single
        ).reset_index(drop=True),
        uncertain=uncertain_images(kept, scores, model.classes, single),
        localisation=_localisation_table(kept),
        folds=_fold_table(kept, scores, targets, single),
        warnings=(*said, *table.warnings, *_warnings(model, table, outcomes, targets, groups)),
    )


def _point(scores: np.ndarray, targets: np.ndarray, single: bool) -> dict[str, float]:
    return {
        name: float(v[0]) for name, v in weighted_figures(np.ones((1, len(scores))), scores, targets, single).items()
    }


def _mean(values: Any) -> float:
    """Mean of the numbers that are known; NaN where none is."""
    known = [float(value) for value in values if not math.isnan(value)]
    return float(np.mean(known)) if known else math.nan


def single_location_accuracy(scores: np.ndarray, targets: np.ndarray) -> float:
    """Share of the images with exactly one label whose top class is that label; NaN where there is none."""
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
    """95 % intervals of the headline figures by drawing whole groups, or the reason why there are none."""
    count = len(groups)
    if options.draws == 0:
        return {}, []
    if count < FEWEST_GROUPS:
        return {}, [f"no intervals: {count} group{'s'[: count > 1]} of images, at least {FEWEST_GROUPS} are needed"]
    members = (groups["group"].to_numpy()[:, None] == np.asarray(names)).astype(float)  # (groups, images)
    rng = np.random.default_rng(options.seed)
    known = groups["right"].notna().to_numpy(float)
    right = groups["right"].fillna(0).to_numpy(float)
    parts = []
    for start in range(0, options.draws, _DRAWS_AT_ONCE):
        drawn = rng.multinomial(count, np.full(count, 1 / count), min(_DRAWS_AT_ONCE, options.draws - start))
        part = weighted_figures(drawn @ members, scores, targets, single)
        with np.errstate(invalid="ignore"):
            parts.append(part | {"group accuracy": (drawn @ right) / (drawn @ known)})
    draws = pd.concat([pd.DataFrame(part) for part in parts])
    low, high = draws.quantile(0.025), draws.quantile(0.975)
    return {name: (float(low[name]), float(high[name])) for name in parts[0] if draws[name].notna().any()}, []


def class_table(model: TrainedModel, scores: np.ndarray, targets: np.ndarray) -> pd.DataFrame:
    """One row per class: images, said, precision, recall, F1, average precision, ROC AUC, learned b."""
    yes = answered(scores, model.card.single_label)
    precision, recall, f1, support = precision_recall_fscore_support(targets, yes, average=None, zero_division=np.nan)
    ones = np.ones((1, len(scores)))
    ranked = [ranking_figures(ones, s, t) for s, t in zip(scores.T, targets.T, strict=True)]
    return pd.DataFrame({
        "class": model.classes,
        "images": np.asarray(support, int),
        "said": yes.sum(0).astype(int),
        "precision": precision,
        "recall": recall,
        "F1": np.where(np.asarray(support) > 0, f1, np.nan),
        "average precision": [float(ap[0]) for ap, _ in ranked],
        "ROC AUC": [float(auc[0]) for _, auc in ranked],
        "learned b": (model.card.training.has_learned and model.network.learned_b) or [math.nan] * len(model.classes),
    })  # fmt: skip


def group_table(
    outcomes: Sequence[ImageOutcome],
    scores: np.ndarray,
    targets: np.ndarray,
    classes: Sequence[str],
    single_label: bool,
) -> pd.DataFrame:
    """One row per group, the worst first: labels, images, answer of the median score, whether right, image accuracy.

    `right` is NaN for a group whose images differ in their labels: it has no label of its own.
    """
    yes = answered(scores, single_label)
    exact = (yes == targets).all(1)
    rows = []
    for name, part in pd.Series(range(len(outcomes))).groupby([o.image.group for o in outcomes], sort=False):
        index = part.to_numpy()
        median = np.median(scores[index], 0)
        answer = answered(median[None], single_label)[0]
        same = (targets[index] == targets[index[0]]).all()
        own = targets[index[0]] if same else targets[index].max(0)
        rows.append({
            "group": name, "label": _joined(own, classes), "images": len(index), "answer": _joined(answer, classes),
            "right": float((answer == own).all()) if same else math.nan, "image accuracy": float(exact[index].mean()),
            "own score": float(median[own > 0].mean()) if same else math.nan,
            **{score_column(c): float(s) for c, s in zip(classes, median, strict=True)},
        })  # fmt: skip
    return pd.DataFrame(rows).sort_values(["right", "own score"], kind="stable", ignore_index=True)


def _joined(shown: np.ndarray, classes: Sequence[str]) -> str:
    return "|".join(name for name, there in zip(classes, shown, strict=True) if there > 0)


def uncertain_images(
    outcomes: Sequence[ImageOutcome], scores: np.ndarray, classes: Sequence[str], single_label: bool
) -> pd.DataFrame:
    """List the images that the model is least sure of: the smallest distance to the next class, or to one half."""
    ordered = np.sort(scores, 1)
    distance = np.abs(scores - 0.5).min(1) if not single_label else ordered[:, -1] - (ordered[:, -2:-1].sum(1))
    second = scores.argsort(1)[:, -2] if len(classes) > 1 else scores.argmax(1)
    table = pd.DataFrame({
        "file": [str(outcome.image.file) for outcome in outcomes],
        "plane": [outcome.image.plane for outcome in outcomes],
        "group": [outcome.image.group for outcome in outcomes],
        "label": ["|".join(outcome.image.labels) for outcome in outcomes],
        "top": [classes[i] for i in scores.argmax(1)],
        "next": [classes[i] for i in second],
        "margin": distance,
    })  # fmt: skip
    return with_planes(table).sort_values("margin", kind="stable", ignore_index=True).head(_LISTED)


def _localisation_table(outcomes: Sequence[ImageOutcome]) -> pd.DataFrame | None:
    """Mean scores of each class and of all scored images; None where no image has a truth."""
    scored = [outcome for outcome in outcomes if outcome.localisation is not None]
    if not scored:
        return None
    names = list(dict.fromkeys(outcome.image.labels[0] for outcome in scored))
    rows = []
    for name in [*sorted(names), None]:
        part = [o.localisation for o in scored if o.localisation and name in (None, o.image.labels[0])]
        rows.append({"class": name or "all", "images": len(part), **vars(mean_scores(part))})
    return pd.DataFrame(rows).rename(columns=lambda name: name.replace("_", " ").replace(" ap", " AP"))


def _fold_table(
    outcomes: Sequence[ImageOutcome], scores: np.ndarray, targets: np.ndarray, single: bool
) -> pd.DataFrame | None:
    """Headline figures of each fold; None without cross-validation."""
    folds = np.array([outcome.fold or 0 for outcome in outcomes])
    if not folds.any():
        return None
    rows = []
    for fold in np.unique(folds):
        part = folds == fold
        groups = {outcome.image.group for outcome, there in zip(outcomes, part, strict=True) if there}
        rows.append({"fold": fold, "images": int(part.sum()), "groups": len(groups),
                     **_point(scores[part], targets[part], single)})  # fmt: skip
    return pd.DataFrame(rows)


def _warnings(
    model: TrainedModel,
    table: LabelTable,
    outcomes: Sequence[ImageOutcome],
    targets: np.ndarray,
    groups: pd.DataFrame,
) -> Iterator[str]:
    failed = [outcome for outcome in outcomes if outcome.error]
    if failed:
        yield f"left out of the figures: {len(failed)} of {len(outcomes)} images, which failed"
    learned = [image for image in table.images if image.split == "train"]
    if learned and all(outcome.fold is None for outcome in outcomes):
        yield (
            f"{len(learned)} of {len(table.images)} images are marked train: figures on images that a model learned "
            "from flatter it; choose a split (--split) that it has not seen"
        )
    absent = [name for name, count in zip(model.classes, targets.sum(0), strict=True) if count == 0]
    if absent:
        yield f"no image shows {', '.join(absent)}, so nothing of it is measured, and means leave it out"
    mixed = int(groups["right"].isna().sum())
    if mixed:
        yield f"{mixed} of {len(groups)} groups hold images of different labels, so group accuracy leaves them out"
    scored = sum(outcome.localisation is not None for outcome in outcomes)
    if 0 < scored < len(outcomes):
        yield f"{scored} of {len(outcomes)} images have a truth image and one label; localisation is of these"
    for said, count in Counter(said for outcome in outcomes for said in outcome.warnings).most_common():
        yield f"{count} image{'s'[: count > 1]}: {said}"
