"""What the Train dock does beside the window: generators of reports for jobs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import pandas as pd

    from napari_milcnn.evaluation.report import EvaluationReport
    from napari_milcnn.labels.table import LabelTable
    from napari_milcnn.model.trained_model import TrainedModel
    from napari_milcnn.training.plan import TrainingPlan
    from napari_milcnn.training.preview import PreviewImage
    from napari_milcnn.training.trainer import EpochReport, TrainingEstimate

Passes = Callable[["Share"], bool]
_PREVIEWED = 4
"""Images shown after every epoch."""


@dataclass(frozen=True)
class Share:
    """How far a step has come: what is done, of how many, in words; and whether that is all there is to do."""

    done: int
    total: int
    doing: str
    of_all: bool = False


@dataclass(frozen=True)
class Begun:
    """What a training starts from, in words, and what should be known of the images."""

    kept: str = ""
    warning: str = ""


@dataclass(frozen=True)
class Epoch:
    """An epoch that is done: the rows of all, of how many, and the best model so far."""

    rows: tuple[dict[str, Any], ...]
    epochs: int
    best: TrainedModel


@dataclass(frozen=True)
class Looks:
    """Where the network of the latest epoch looks, and its classes."""

    previews: tuple[PreviewImage, ...]
    classes: tuple[str, ...]


@dataclass(frozen=True)
class Outcome:
    """What came of it: the model, and how it does on images kept aside; None where there are none."""

    model: TrainedModel
    report: EvaluationReport | None


@dataclass(frozen=True)
class Measured:
    """How much of the scores hangs on the masks (`Faithfulness.table`), and why images were left out."""

    table: pd.DataFrame
    problems: tuple[str, ...]


@dataclass(frozen=True)
class Devices:
    """Where a training would run by default, in words, and how many GPUs there are."""

    text: str
    count: int


def devices() -> Iterator[Devices]:
    """Look at the devices, and load what a training needs: seconds of Python, better now than while one watches.

    Writing a model needs the first of these, the first step of an optimiser the last.
    """
    import bioimageio.spec  # noqa: F401
    import torch
    import torch._dynamo

    from napari_milcnn.inference.devices import choose_device, free_memory

    choice = choose_device()
    text = f"{choice} · {free_memory(choice.device) / 1e9:.1f} GB free"
    yield Devices(text, torch.cuda.device_count())


def kept(plan: TrainingPlan, table: LabelTable) -> Iterator[Begun]:
    """Say what a training of this plan would start from, with labels that may not be on disk yet."""
    yield Begun(plan.initial_model(table).summary)


def estimated(plan: TrainingPlan) -> Iterator[TrainingEstimate]:
    """Try a few batches."""
    from napari_milcnn.training.trainer import estimate

    table = plan.table()
    yield estimate(plan.initial_model(table).model, table, **plan.train_options().model_dump())


def training(plan: TrainingPlan, passes: Passes, *, resume: bool) -> Iterator[Begun | Epoch | Looks | Outcome]:
    """Train in this process: as `napari-milcnn train` does, with pictures between the epochs."""
    from napari_milcnn.model.package_read import load_model
    from napari_milcnn.training.preview import choose_images, preview_images
    from napari_milcnn.training.run import epoch_row, run_training

    options = plan.train_options()
    table = plan.table()
    start = plan.start(table)
    table = table.with_split(options.validation, options.seed)
    chosen = choose_images(table, _PREVIEWED)
    warnings: list[str] = []
    yield Begun(start.summary)
    rows: tuple[dict[str, Any], ...] = ()
    best: TrainedModel | None = None
    reports = run_training(
        plan, table, start.model, resume=resume, on_warning=warnings.append,
        on_image=lambda done, total: passes(Share(done, total, "reading images")),
        on_batch=lambda done, total: passes(Share(done, total, "batches")),
    )  # fmt: skip
    for report in _in_words_of_the_dock(reports):
        rows = rows or tuple(row.model_dump() for row in report.last.card.training.curve[:-1])
        rows = (*rows, epoch_row(report))
        best = report.best
        yield from (Begun(warning=warning) for warning in warnings)
        warnings.clear()
        yield Epoch(rows, report.epochs, best)
        yield Looks(tuple(preview_images(report.last, table, chosen, options.device)), best.classes)
    if passes(Share(0, 1, "validation")):
        yield from outcome(plan, best or load_model(plan.out), table)


def _in_words_of_the_dock(reports: Iterator[EpochReport]) -> Iterator[EpochReport]:
    from napari_milcnn.errors import OptionsError, ResumeError

    try:
        yield from reports
    except ResumeError as error:
        raise OptionsError(
            "Labels or images changed since that training was stopped, so it cannot go on. Start begins anew with the "
            "labels as they are now."
        ) from error


def following(plan: TrainingPlan, processes: int, *, resume: bool) -> Iterator[Begun | Epoch | Outcome | None]:
    """Train on several devices: by the command line, in processes of their own."""
    from napari_milcnn.model.package_read import load_model
    from napari_milcnn.training.run import follow_training

    rows: tuple[dict[str, Any], ...] = ()
    yield Begun(plan.start(plan.table()).summary)
    for row in follow_training(plan, processes, resume=resume):
        if row is None:
            yield None
            continue
        rows = (*rows, row)
        yield Epoch(rows, plan.train_options().epochs, load_model(plan.out))
    yield from outcome(plan, load_model(plan.out))


def outcome(plan: TrainingPlan, model: TrainedModel, table: LabelTable | None = None) -> Iterator[Outcome]:
    """Measure a trained model on its validation images; of the plan's table, read again where it is not given."""
    from napari_milcnn.evaluation.evaluate import evaluate
    from napari_milcnn.inference.devices import cpu_threads

    options = plan.train_options()
    table, held = _held(plan, table)
    if not table.part(held).images:
        yield Outcome(model, None)
        return
    with cpu_threads(options.threads):
        yield Outcome(model, evaluate(model, table, split=held, device=options.device))


def _held(plan: TrainingPlan, table: LabelTable | None) -> tuple[LabelTable, Literal["test", "validation"]]:
    """Split a plan's table as its training did -> the table, and the split on which the model is measured."""
    options = plan.train_options()
    table = (table or plan.table()).with_split(options.validation, options.seed)
    return table, "test" if table.part("test").images else "validation"


def faithfulness_of(plan: TrainingPlan, model: TrainedModel, passes: Passes) -> Iterator[Measured]:
    """Measure how much of a trained model's scores hangs on its masks, on the images that `outcome` measures it on."""
    from napari_milcnn.evaluation.faithfulness import faithfulness_steps
    from napari_milcnn.inference.devices import cpu_threads

    options = plan.train_options()
    table, held = _held(plan, None)
    with cpu_threads(options.threads):
        for step in faithfulness_steps(model, table.part(held), options.seed, {"device": options.device}):
            if step.result is not None:
                yield Measured(step.result.table, step.result.problems)
            elif not passes(Share(step.number, step.total, step.doing, of_all=True)):
                return


def cross_validation(plan: TrainingPlan, folds: int, passes: Passes) -> Iterator[Outcome]:
    """Train anew for each fold of whole groups, and measure on the images held out; pauses between epochs."""
    from napari_milcnn.evaluation.evaluate import evaluation_steps
    from napari_milcnn.evaluation.report import EvaluationReport

    table = plan.table()
    start = plan.initial_model(table)
    options = plan.train_options()
    steps = evaluation_steps(start.model, table, folds=folds, train_options=options.model_dump(), device=options.device)
    trained = 0
    for step in steps:
        trained += step.result is None
        if not passes(Share(trained, folds * options.epochs, step.doing, of_all=True)):
            return
        if isinstance(step.result, EvaluationReport):
            yield Outcome(start.model, step.result)
