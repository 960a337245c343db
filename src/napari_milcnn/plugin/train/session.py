"""What the Train dock knows and does: the choices for a training, the job that runs, and every result so far.

A session knows neither Qt nor napari. The dock tells it what the user did, draws what it holds whenever it says that
something changed, and carries out the frozen requests that it emits; their reports come back through `take`, and
how they ended through `end`.

Decisions:

- A message answers the last thing that the user did, and goes with the next. What stays true, such as a training that
  can be resumed, is worked out anew each time.
- A result, of a training or of a cross-validation, stays until napari is closed. Only a training that writes the same
  model file takes the place of the result before, after a question.
- The number of epochs comes from the plan, and those that are done from the record of a training that is resumed, so
  that the first epoch is not taken for the only one.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psygnal import Signal

from napari_milcnn.errors import MilcnnError
from napari_milcnn.options import TrainOptions
from napari_milcnn.plugin.current_model import current
from napari_milcnn.plugin.qt.notices import Level, Notice, Question
from napari_milcnn.plugin.train.choices import Choices, missing_for_training
from napari_milcnn.plugin.train.jobs import (
    BESIDE,
    Begun,
    CannotResume,
    Devices,
    Epoch,
    EstimateRequest,
    EvaluateRequest,
    FaithfulnessRequest,
    Looks,
    Measured,
    Outcome,
    Share,
    StartRequest,
    TrainJob,
    TrainRequest,
    ValidateRequest,
)
from napari_milcnn.plugin.train.label_session import LabelSession
from napari_milcnn.progress import TimeLeft, duration

if TYPE_CHECKING:
    from napari_milcnn.evaluation.report import EvaluationReport
    from napari_milcnn.model.trained_model import TrainedModel
    from napari_milcnn.training.plan import TrainingPlan
    from napari_milcnn.training.preview import PreviewImage
    from napari_milcnn.training.record import RunRecord
    from napari_milcnn.training.trainer import TrainingEstimate


class TrainState(Enum):
    """The job that runs."""

    IDLE = "nothing runs"
    ESTIMATING = "time and memory are estimated"
    TRAINING = "a network is trained"
    EVALUATING = "the model of a stopped training is evaluated"
    CROSS_VALIDATING = "networks are trained on the folds"
    MEASURING = "faithfulness is measured"


@dataclass(frozen=True)
class Learning:
    """A training as far as it has come: what it started from, its epochs, and where its network looks.

    Attributes
    ----------
    plan : TrainingPlan
        What is trained.
    epochs, done : int
        Number of epochs, and how many are done, those before a training was resumed among them.
    kept : str
        What it started from, in words.
    rows : tuple of dict
        One row for each epoch, as on the model's card.
    best : TrainedModel or None
        The best model so far.
    previews : tuple of PreviewImage
        Where the network of the last epoch looks.
    """

    plan: TrainingPlan
    epochs: int
    done: int = 0
    kept: str = ""
    rows: tuple[dict[str, Any], ...] = ()
    best: TrainedModel | None = None
    previews: tuple[PreviewImage, ...] = ()


@dataclass(frozen=True, eq=False)
class TrainResult:
    """A trained model with its measurements, or a cross-validation; `why` says why there are no measurements."""

    name: str
    plan: TrainingPlan
    model: TrainedModel | None
    report: EvaluationReport | None
    why: str = ""

    @property
    def command(self) -> str:
        """The command that repeats the training."""
        return shlex.join(["napari-milcnn", *self.plan.command()])


class TrainingProgress:
    """Says how far a job has come and how long it still takes, judging by the time since its first report."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._time: TimeLeft | None = None

    def restart(self) -> None:
        """Begin to measure the time anew, as after a pause."""
        self._time = None

    def at(self, step: Share, learning: Learning | None) -> tuple[float, str]:
        """Return the share that is done, of a training that of all its epochs, and a few words with the time left."""
        inside = step.done / max(step.total, 1)
        if step.doing == "batches" and learning is not None:
            share = (learning.done + inside) / learning.epochs
            return share, f"epoch {learning.done + 1} of {learning.epochs}{self._left(share)}"
        if step.of_all:
            return inside, f"{step.doing}{self._left(inside)}"
        return inside, f"{step.doing} · {step.done} of {step.total}"

    def _left(self, share: float) -> str:
        self._time = self._time or TimeLeft(share, self._clock)
        left = self._time.left(share)
        return "" if left is None else f" · {duration(left)} left"


class TrainResults:
    """Every result so far, and the one that is shown.

    Attributes
    ----------
    all, shown : tuple of TrainResult, TrainResult or None
        The results, and the one that is shown.
    message : Notice
        What came of the last thing that the user did with a result.
    changed : Signal
        One of the above changed.
    used : Signal
        A trained model has become the current one of all docks.
    """

    changed = Signal()
    used = Signal()

    def __init__(self) -> None:
        self.all: tuple[TrainResult, ...] = ()
        self.shown: TrainResult | None = None
        self.message = Notice("results", "")

    def show(self, result: TrainResult) -> None:
        """Look at another result."""
        if result is not self.shown:
            self.shown = result
            self._say("")

    def put(self, result: TrainResult) -> None:
        """Add a result and show it; it takes the place of the model that its file held before."""
        before = None if result.model is None else self._of(result.plan)
        self._replace(before, result)
        self._say("")

    def put_unmeasured(self, plan: TrainingPlan, model: TrainedModel, error: str) -> None:
        """Add a model that was not evaluated, unless its evaluation is there; `error` says why, if it failed."""
        there = self._of(plan)
        if there is None or there.model is not model:
            why = f"The model could not be evaluated: {error}" if error else "The model was not evaluated."
            self.put(TrainResult(plan.out.name, plan, model, None, why))

    def measured(self, plan: TrainingPlan, found: Measured) -> None:
        """Write on the card of a plan's model how much of its scores hangs on its masks."""
        from napari_milcnn.evaluation.faithfulness import with_faithfulness

        result = self._of(plan)
        if result is None or result.model is None:
            return
        self._replace(result, replace(result, model=with_faithfulness(result.model, found.table)))
        self._save(f"Left out: {'; '.join(found.problems)}. " if found.problems else "")

    def save_card(self, facts: dict[str, Any]) -> bool:
        """Write name, authors, licence and description into the model file; return whether that was possible."""
        shown = self.shown
        if shown is None or shown.model is None:
            return False
        try:
            model = shown.model.with_card(**facts)
        except MilcnnError as error:
            self._say(str(error), Level.ERROR)
            return False
        plan = replace(shown.plan, facts={**shown.plan.facts, **facts})
        self._replace(shown, replace(shown, plan=plan, model=model))
        return self._save()

    def use(self) -> None:
        """Make the model that is shown the current one of all docks."""
        from napari_milcnn.model.package_read import load_model

        shown = self.shown
        if shown is None or shown.model is None:
            return
        try:
            if not shown.plan.out.exists():
                shown.model.save(shown.plan.out)
            current.set(load_model(shown.plan.out))
        except MilcnnError as error:
            self._say(str(error), Level.ERROR)
            return
        self._say("")
        self.used.emit()

    def _of(self, plan: TrainingPlan) -> TrainResult | None:
        """Return the result whose model has the model file of a plan."""
        return next((one for one in self.all if one.model is not None and one.plan.out == plan.out), None)

    def _replace(self, before: TrainResult | None, result: TrainResult) -> None:
        self.all = tuple(result if one is before else one for one in self.all) + ((result,) if before is None else ())
        self.shown = result

    def _save(self, left_out: str = "") -> bool:
        """Save the model that is shown, and say where."""
        shown = self.shown
        if shown is None or shown.model is None:
            return False
        try:
            shown.model.save(shown.plan.out)
        except MilcnnError as error:
            self._say(f"{left_out}{error}", Level.ERROR)
            return False
        self._say(f"{left_out}Saved {shown.plan.out}", Level.WARNING if left_out else Level.NOTE)
        return True

    def _say(self, text: str, level: Level = Level.NOTE) -> None:
        self.message = Notice("results", text, level)
        self.changed.emit()


class TrainSession:
    """The choices for a training, the job that runs, and the results.

    Attributes
    ----------
    labels : LabelSession
        The labels to train on.
    state, paused : TrainState, bool
        The job that runs, and whether it waits.
    choices : Choices
        What the user chose.
    stopped : RunRecord or None
        A training in the folder of the labels that can be resumed.
    learning : Learning or None
        The training that runs or ran last.
    results : TrainResults
        Every result so far.
    kept, estimate, device, warnings
        What a training would start from; what it would take; where it runs; what should be known of the images.
    question : Question or None
        What the user has to answer before a model is replaced.
    changed, progressed, learned : Signal
        Something of the above changed; the share that is done (0 to 1) and what is done, in words; `learning` changed.
    choices_changed : Signal
        The choices of another training take the place of those in the form.
    ended : Signal
        A training or a cross-validation has come to its end.
    requested, withdrawn : Signal
        A request is to be carried out: a long job (`TrainJob`), or one beside it; nobody waits for it any more.
    stop_requested, pause_requested : Signal
        The job (`TrainJob`) has to stop; it has to wait, or to go on.
    """

    changed = Signal()
    progressed = Signal(float, str)
    learned = Signal()
    choices_changed = Signal()
    ended = Signal()
    requested = Signal(object)
    withdrawn = Signal(object)
    stop_requested = Signal(object)
    pause_requested = Signal(object, bool)

    def __init__(self, labels: LabelSession | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self.labels = labels or LabelSession()
        self.state, self.paused = TrainState.IDLE, False
        self.choices = Choices()
        self.stopped: RunRecord | None = None
        self.learning: Learning | None = None
        self.results = TrainResults()
        self.kept = Notice("start", "")
        self.estimate, self.device = "", ""
        self.warnings: tuple[str, ...] = ()
        self.message = Notice("training", "")
        self.question: Question | None = None
        self.gpus = 0
        self._on_yes: Callable[[], None] | None = None
        self._progress = TrainingProgress(clock)
        self._labels_path: Path | None = None
        self._job: TrainJob | None = None
        self._start: StartRequest | None = None
        self._learning_before: Learning | None = None
        self._refused = ""
        self._needs: str | None = None
        self.labels.labels_changed.connect(self._on_labels)

    # State

    @property
    def busy(self) -> bool:
        """Whether a long job runs."""
        return self.state is not TrainState.IDLE

    @property
    def can_pause(self) -> bool:
        """Whether the job that runs can wait: a training in this process, or a cross-validation."""
        several = isinstance(self._job, TrainRequest) and self._job.processes > 1
        return self.state in (TrainState.TRAINING, TrainState.CROSS_VALIDATING) and not several

    @property
    def needs(self) -> str:
        """Return what is missing before a training can start; "" if nothing is."""
        if self._needs is None:
            self._needs = missing_for_training(self.labels.labelling, self.choices)
        return self._needs

    @property
    def can_resume(self) -> str:
        """Return how far a training came that can be resumed; "" if there is none."""
        if self.stopped is None or self.busy:
            return ""
        done, epochs = self.stopped.epochs_done, self.stopped.plan.train_options().epochs
        if not done:
            return "A training was stopped in its first epoch. Press Resume to begin it again."
        return f"A training stopped after epoch {done} of {epochs}; {_epochs(done)} saved. Press Resume to continue."

    @property
    def question_before_closing(self) -> str:
        """Return what is lost when the dock is closed now; "" if nothing is."""
        if self.state is TrainState.TRAINING:
            return (
                "A training is running. Closing the dock stops it. Finished epochs are saved: press Resume to continue."
            )
        if self.busy:
            return f"{self.state.value.capitalize()}. Closing the dock stops that, and nothing of it is kept."
        return f"{self.labels.warning.rstrip('.')}. These changes are lost." if self.labels.warning else ""

    def plan(self) -> TrainingPlan | None:
        """Return the plan that the choices give; None if there is none, and `needs` says why."""
        labelling = self.labels.labelling
        return None if labelling is None or self.needs else self.choices.plan(labelling.path, labelling.reading)

    # What the user does

    def choose(self, choices: Choices) -> None:
        """Choose other settings."""
        if choices != self.choices:
            self.choices, self.estimate, self._needs = choices, "", None
            self._say("")

    def describe_start(self) -> None:
        """Find out what a training would start from."""
        labelling, plan = self.labels.labelling, self.plan()
        if self.busy:
            return
        self.kept = Notice("start", "")
        self.changed.emit()
        if self._start is not None:
            self.withdrawn.emit(self._start)
        self._start = None
        if plan is not None and labelling is not None:
            self._start = StartRequest(plan, labelling.table())
            self.requested.emit(self._start)

    def try_batches(self) -> None:
        """Estimate the time of an epoch and the memory from a few batches."""
        plan = self._saved_plan()
        if plan is not None:
            self.estimate = ""
            self._begin(TrainState.ESTIMATING, EstimateRequest(plan))

    def start(self) -> None:
        """Train; asks first if the model file is there already."""
        plan = self._saved_plan()
        if plan is None:
            return
        if plan.out.exists():
            self.question = Question(f"{plan.out} exists already. Replace this model?", "Replace it", "Keep it")
            self._on_yes = lambda: self._train(plan, resume=False)
            self.changed.emit()
        else:
            self._train(plan, resume=False)

    def resume(self) -> None:
        """Go on with the training that was stopped, with its own settings."""
        if self.stopped is not None and not self.busy:
            self._train(self.stopped.plan, resume=self.stopped.epochs_done > 0, done=self.stopped.epochs_done)

    def cross_validate(self, folds: int) -> None:
        """Measure how well such a training does on groups that are left out of it."""
        plan = self._saved_plan()
        if plan is not None:
            self._begin(TrainState.CROSS_VALIDATING, ValidateRequest(plan, folds))

    def answer(self, yes: bool) -> None:
        """Answer the question."""
        then, self._on_yes, self.question = self._on_yes, None, None
        if yes and then is not None:
            then()
        self.changed.emit()

    def pause(self) -> None:
        """Let the job wait between two batches, or go on."""
        if self.can_pause:
            self.paused = not self.paused
            self._progress.restart()
            self.pause_requested.emit(self._job, self.paused)
            self.changed.emit()

    def stop(self) -> None:
        """Stop the job; finished epochs of a training are saved."""
        if self.busy:
            self._say("Stopping…")
            self.stop_requested.emit(self._job)

    def measure_faithfulness(self) -> None:
        """Measure how much of the shown model's scores hangs on its masks, and write it on its card."""
        shown = self.results.shown
        if shown is not None and shown.model is not None and not self.busy:
            self._begin(TrainState.MEASURING, FaithfulnessRequest(shown.plan, shown.model))

    # Jobs

    def take(self, request: object, report: Any) -> None:
        """Take what a job has to report."""
        if isinstance(request, StartRequest):
            self._describe(request, report.kept)
            return
        match report:
            case Share():
                if not self.paused:
                    self.progressed.emit(*self._progress.at(report, self.learning))
                return
            case Begun():
                self._take_begun(report)
            case Epoch():
                self._learn(
                    done=int(report.rows[-1]["epoch"]), epochs=report.epochs, rows=report.rows, best=report.best
                )
                self.device = str(report.rows[-1]["device"])
            case Looks():
                self._learn(previews=report.previews)
            case Outcome():
                self._take_outcome(report)
            case Measured():
                if isinstance(self._job, FaithfulnessRequest):
                    self.results.measured(self._job.plan, report)
            case CannotResume():
                self._refused = report.why
            case Devices():
                several = f" · device 'auto' uses all {report.count} GPUs" if report.count > 1 else ""
                self.gpus, self.device = report.count, f"{report.text}{several}"
            case None:
                return
            case _:
                if isinstance(self._job, EstimateRequest):
                    self.estimate = _estimate_sentence(report, self._job.plan.train_options())
        self.changed.emit()

    def end(self, request: object, error: str = "", *, stopped: bool = False) -> None:
        """Learn that a job has ended, and why if it failed."""
        if isinstance(request, StartRequest) and error:
            self._describe(request, error=error)
        if isinstance(request, BESIDE):
            return
        job, self._job = self._job, None
        self.state, self.paused, self._needs = TrainState.IDLE, False, None
        self.labels.lock(False)
        if isinstance(job, TrainRequest):
            self._end_training(job.plan, error or self._refused, stopped)
        elif isinstance(job, EvaluateRequest):
            self.results.put_unmeasured(job.plan, job.model, error)
            self._say(f"The training was stopped. {error}".strip(), Level.ERROR if error else Level.WARNING)
        elif error or stopped:
            self._say(error or "Stopped.", Level.ERROR if error else Level.WARNING)
        elif isinstance(job, ValidateRequest):
            self._say("Done.")
            self.ended.emit()
        self.changed.emit()

    # Inside

    def _describe(self, request: StartRequest, kept: str = "", error: str = "") -> None:
        """Take what a training would start from, unless the choices or the labels have changed meanwhile."""
        if request.plan == self.plan():
            self.kept = Notice("start", error or kept, Level.ERROR if error else Level.NOTE)
            self.changed.emit()

    def _say(self, text: str, level: Level = Level.NOTE) -> None:
        self.message = Notice("training", text, level)
        self.changed.emit()

    def _on_labels(self) -> None:
        """Notice other labels; in their folder, look for a training that can be resumed."""
        labelling, self._needs = self.labels.labelling, None
        if labelling is None or self.busy:
            return
        self.estimate = ""
        self._say("")
        if self._labels_path != labelling.path:
            first, self._labels_path = self._labels_path is None, labelling.path
            self._find_stopped(labelling.path.parent)
            if self.stopped is not None:
                self.choices = Choices.of(self.stopped.plan)
            elif not first:
                self.choices = replace(self.choices, out="", facts={}, reference="")
            self.choices_changed.emit()
        self.changed.emit()

    def _find_stopped(self, folder: Path) -> None:
        from napari_milcnn.training.record import stopped_training

        self.stopped = stopped_training(folder)

    def _saved_plan(self) -> TrainingPlan | None:
        """Return the plan after saving the labels, because a training reads them from disk; None while a job runs."""
        labelling, plan = self.labels.labelling, self.plan()
        if labelling is None or plan is None or self.busy:
            return None
        self._say("")
        try:
            if labelling.must_be_saved:
                labelling.save()
        except MilcnnError as error:
            self._say(str(error), Level.ERROR)
            return None
        return plan

    def _begin(self, state: TrainState, job: TrainJob) -> None:
        """Start a long job; labels stay as they are while it runs."""
        self.state, self._job, self.warnings = state, job, ()
        self._progress.restart()
        self.labels.lock(state is not TrainState.ESTIMATING and state is not TrainState.MEASURING)
        self._say("")
        self.progressed.emit(0.0, "starting…")
        self.requested.emit(job)

    def _train(self, plan: TrainingPlan, *, resume: bool, done: int = 0) -> None:
        several = self.gpus > 1 and plan.train_options().device == "auto"
        self._learning_before, self._refused = self.learning, ""
        self.learning = Learning(plan, plan.train_options().epochs, done)
        self.stopped = None
        self._begin(TrainState.TRAINING, TrainRequest(plan, resume, self.gpus if several else 1))
        self.learned.emit()

    def _learn(self, **found: Any) -> None:
        if self.learning is not None:
            self.learning = replace(self.learning, **found)
            self.learned.emit()

    def _take_begun(self, begun: Begun) -> None:
        if begun.kept:
            self._learn(kept=begun.kept)
        if begun.warning:
            self.warnings = (*self.warnings, f"{begun.warning}.")

    def _take_outcome(self, found: Outcome) -> None:
        if isinstance(self._job, ValidateRequest):
            name = f"cross-validation, {self._job.folds} folds"
            self.results.put(TrainResult(name, self._job.plan, None, found.report))
        elif self._job is not None:
            plan = self._job.plan
            self.results.put(TrainResult(plan.out.name, plan, found.model, found.report))

    def _end_training(self, plan: TrainingPlan, error: str, stopped: bool) -> None:
        """Say how a training ended; the model of one that was stopped is evaluated, too."""
        best = self.learning.best if self.learning is not None else None
        self._find_stopped(plan.out.parent)
        nothing_done = best is None and self.stopped is not None and not self.stopped.epochs_done
        if self._refused or (error and nothing_done):
            self.stopped = None
        if best is None:
            self.learning = self._learning_before
            self.learned.emit()
        self._say(
            error or ("Stopped." if stopped else "Done."),
            Level.ERROR if error else Level.WARNING if stopped else Level.NOTE,
        )
        if best is not None and error:
            self.results.put_unmeasured(plan, best, error)
        elif best is not None and stopped:
            self._begin(TrainState.EVALUATING, EvaluateRequest(plan, best))
        elif not error and not stopped:
            self.ended.emit()


def _epochs(number: int) -> str:
    return f"{number} epoch{'s'[: number != 1]}"


def _estimate_sentence(found: TrainingEstimate, options: TrainOptions) -> str:
    """Say what a training takes."""
    epochs = options.epochs
    often = f", {found.passes} times each," if found.passes > 1 else ""
    text = (f"{duration(found.seconds)} per epoch: {found.images} images{often} in {found.batches} batches, "
            f"{found.validation_images} for validation. {_epochs(epochs)} take{'s'[: epochs == 1]} about "
            f"{duration(found.seconds * epochs)}. Memory: {found.memory / 1e9:.1f} GB on {found.device}.")  # fmt: skip
    if options.max_minutes:
        allowed = int(60 * options.max_minutes / max(found.seconds, 1e-9))
        text += f" The limit of {options.max_minutes:g} min allows {_epochs(allowed)}."
    return text
