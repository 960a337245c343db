"""What the Train dock does beside the window: frozen requests, and the reports that each of them yields.

A request holds all that its job needs, and nothing that the window changes meanwhile. `steps` runs in a thread.
"""

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
    from napari_milcnn.training.trainer import TrainingEstimate

Passes = Callable[["Share"], bool]
"""Reports progress, waits while the job is paused, and returns whether to go on."""
_PREVIEWED = 4
"""Images shown after every epoch."""
_CANNOT_RESUME = (
    "Labels or images changed since that training was stopped, so it cannot go on. Start begins anew with the labels "
    "as they are now."
)


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
    """Where the network of the latest epoch looks."""

    previews: tuple[PreviewImage, ...]


@dataclass(frozen=True)
class Outcome:
    """What came of it: the model, if one was kept, and how it does on images kept aside, if there are any."""

    model: TrainedModel | None
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


@dataclass(frozen=True)
class CannotResume:
    """Why a training that was stopped cannot go on."""

    why: str


@dataclass(frozen=True, eq=False)
class DevicesRequest:
    """Look at the devices, and load what a training needs: seconds of Python, better now than while one watches."""

    def steps(self) -> Iterator[Devices]:
        """Yield the devices. Writing a model needs bioimageio.spec, the first step of an optimiser torch._dynamo."""
        import bioimageio.spec  # noqa: F401
        import torch
        import torch._dynamo

        from napari_milcnn.inference.devices import choose_device, free_memory

        choice = choose_device()
        text = f"{choice} · {free_memory(choice.device) / 1e9:.1f} GB free"
        yield Devices(text, torch.cuda.device_count())


@dataclass(frozen=True, eq=False)
class StartRequest:
    """Say what a training of a plan would start from, with labels that may not be on disk yet."""

    plan: TrainingPlan
    table: LabelTable

    def steps(self) -> Iterator[Begun]:
        """Yield it."""
        yield Begun(self.plan.initial_model(self.table).summary)


BESIDE = (DevicesRequest, StartRequest)
"""Requests that are worked off beside the long job."""


@dataclass(frozen=True, eq=False)
class EstimateRequest:
    """Try a few batches."""

    plan: TrainingPlan

    def steps(self) -> Iterator[TrainingEstimate]:
        """Yield the time and the memory that they took."""
        from napari_milcnn.training.trainer import estimate

        table = self.plan.table()
        yield estimate(self.plan.initial_model(table).model, table, **self.plan.train_options().model_dump())


@dataclass(frozen=True, eq=False)
class TrainRequest:
    """Train: in this process, or by the command line in several processes, which cannot be paused."""

    plan: TrainingPlan
    resume: bool = False
    processes: int = 1

    def gated_steps(self, passes: Passes) -> Iterator[Begun | Epoch | Looks | Outcome | CannotResume | None]:
        """Yield what happens, and last the outcome."""
        if self.processes > 1:
            yield from _following(self.plan, self.processes, resume=self.resume)
        else:
            yield from _training(self.plan, passes, resume=self.resume)


@dataclass(frozen=True, eq=False)
class EvaluateRequest:
    """Measure a model on the images that its training held out."""

    plan: TrainingPlan
    model: TrainedModel

    def steps(self) -> Iterator[Outcome]:
        """Yield the outcome."""
        yield from _outcome(self.plan, self.model)


@dataclass(frozen=True, eq=False)
class ValidateRequest:
    """Train anew for each fold of whole groups, and measure on the images held out; pauses between epochs."""

    plan: TrainingPlan
    folds: int

    def gated_steps(self, passes: Passes) -> Iterator[Outcome]:
        """Yield the outcome."""
        from napari_milcnn.evaluation.evaluate import evaluation_steps
        from napari_milcnn.evaluation.report import EvaluationReport

        table, options = self.plan.table(), self.plan.train_options()
        start = self.plan.initial_model(table)
        steps = evaluation_steps(start.model, table, folds=self.folds, train_options=options.model_dump(),
                                 device=options.device)  # fmt: skip
        trained = 0
        for step in steps:
            trained += step.result is None
            if not passes(Share(trained, self.folds * options.epochs, step.doing, of_all=True)):
                return
            if isinstance(step.result, EvaluationReport):
                yield Outcome(None, step.result)


@dataclass(frozen=True, eq=False)
class FaithfulnessRequest:
    """Measure how much of a model's scores hangs on its masks, on the images on which it was measured."""

    plan: TrainingPlan
    model: TrainedModel

    def gated_steps(self, passes: Passes) -> Iterator[Measured]:
        """Yield what was measured."""
        from napari_milcnn.evaluation.faithfulness import faithfulness_steps
        from napari_milcnn.inference.devices import cpu_threads

        options = self.plan.train_options()
        table, held = _held(self.plan, None)
        with cpu_threads(options.threads):
            for step in faithfulness_steps(self.model, table.part(held), options.seed, {"device": options.device}):
                if step.result is not None:
                    yield Measured(step.result.table, step.result.problems)
                elif not passes(Share(step.number, step.total, step.doing, of_all=True)):
                    return


TrainJob = EstimateRequest | TrainRequest | EvaluateRequest | ValidateRequest | FaithfulnessRequest
"""The long jobs, of which one runs at a time."""


def _training(plan: TrainingPlan, passes: Passes, *, resume: bool) -> Iterator[Any]:
    """Train in this process: as `napari-milcnn train` does, with pictures between the epochs."""
    from napari_milcnn.errors import ResumeError
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
    try:
        for report in reports:
            rows = rows or tuple(row.model_dump() for row in report.last.card.training.curve[:-1])
            rows = (*rows, epoch_row(report))
            best = report.best
            yield from (Begun(warning=warning) for warning in warnings)
            warnings.clear()
            yield Epoch(rows, report.epochs, best)
            yield Looks(tuple(preview_images(report.last, table, chosen, options.device)))
    except ResumeError:
        yield CannotResume(_CANNOT_RESUME)
        return
    if passes(Share(0, 1, "validation")):
        yield from _outcome(plan, best or load_model(plan.out), table)


def _following(plan: TrainingPlan, processes: int, *, resume: bool) -> Iterator[Begun | Epoch | Outcome | None]:
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
    yield from _outcome(plan, load_model(plan.out))


def _outcome(plan: TrainingPlan, model: TrainedModel, table: LabelTable | None = None) -> Iterator[Outcome]:
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
