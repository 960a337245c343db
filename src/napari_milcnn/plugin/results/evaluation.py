"""What the form "Evaluate a model" of the Results dock knows: what is chosen, what runs, and what came of it.

The jobs are those of the commands `evaluate` and `calibrate`, with the same options and the same results.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psygnal import Signal

from napari_milcnn.errors import MilcnnError
from napari_milcnn.options import EvaluateOptions, ForegroundOptions, TrainOptions, make_options
from napari_milcnn.plugin.qt.notices import Level, Notice
from napari_milcnn.plugin.results.reading import ReadResults, shown_results
from napari_milcnn.plugin.results.session import NOTHING_TO_SAY
from napari_milcnn.progress import Progress, TimeLeft

if TYPE_CHECKING:
    from napari_milcnn.evaluation.report import EvaluationReport
    from napari_milcnn.images.open import ImageReading
    from napari_milcnn.model.trained_model import TrainedModel


class EvaluationState(Enum):
    """Whether an evaluation or a calibration runs."""

    READY = "nothing runs"
    RUNNING = "it runs"
    STOPPING = "it ends at its next step"


@dataclass(frozen=True)
class EvaluationChoices:
    """What the user chose in the form; None and an empty mapping leave everything to the defaults.

    Attributes
    ----------
    calibrate : bool
        Calibrate the model, in place of measuring it.
    model : Path or None
        The file of the model; None for the current one.
    labels, layout : Path or None
        The table of labels; the layout of the wells if it is an OME-Zarr plate.
    out : Path or None
        The folder for the results, or the file of the calibrated model; None for a new one beside the table.
    truth : Path or None
        The folder of the truth images.
    folds : int or None
        Number of folds of a cross-validation.
    card_out : Path or None
        Write the model with its faithfulness on the card to this file.
    options, foreground, training : mapping
        Fields of `EvaluateOptions`, `ForegroundOptions` and `TrainOptions`.
    reading : mapping
        Fields of `ImageReading`.
    """

    calibrate: bool = False
    model: Path | None = None
    labels: Path | None = None
    layout: Path | None = None
    out: Path | None = None
    truth: Path | None = None
    folds: int | None = None
    card_out: Path | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    foreground: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    reading: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Evaluated:
    """The results that an evaluation wrote, read back, and what it says of itself."""

    results: ReadResults
    words: str


@dataclass(frozen=True)
class Calibrated:
    """A calibrated model, read back from its file."""

    model: TrainedModel
    path: Path


@dataclass(frozen=True, eq=False)
class TableRequest:
    """Do something with a model and a table of labels.

    Attributes
    ----------
    model : TrainedModel or Path
        The model, or its file.
    labels, out : Path
        The table of labels, and where the results go.
    choices : EvaluationChoices
        All else that was chosen.
    """

    model: TrainedModel | Path
    labels: Path
    out: Path
    choices: EvaluationChoices

    def _loaded(self) -> TrainedModel:
        from napari_milcnn.model.package_read import load_model

        return load_model(self.model) if isinstance(self.model, Path) else self.model


class EvaluationRequest(TableRequest):
    """Measure a model on a table, as the command `evaluate` does."""

    def steps(self) -> Iterator[Progress[Any] | Evaluated]:
        """Yield the progress, with the `ImageOutcome` of each image, and at last what was written."""
        from napari_milcnn.evaluation.evaluate import evaluation_steps
        from napari_milcnn.evaluation.faithfulness import with_faithfulness
        from napari_milcnn.evaluation.report import EvaluationReport
        from napari_milcnn.labels.table import read_labels
        from napari_milcnn.results.read import read_results

        chosen, model = self.choices, self._loaded()
        foreground = make_options(ForegroundOptions, chosen.foreground).over(model.card.foreground)
        table = read_labels(self.labels, reading_of_choices(chosen), chosen.layout)
        report: EvaluationReport | None = None
        for step in evaluation_steps(
            model, table, truth=chosen.truth, folds=chosen.folds, train_options=dict(chosen.training),
            foreground=foreground, **chosen.options,
        ):  # fmt: skip
            if isinstance(step.result, EvaluationReport):
                report = step.result
            else:
                yield step
        assert report is not None
        report.save(self.out)
        if chosen.card_out is not None and report.faithfulness is not None:
            with_faithfulness(model, report.faithfulness).save(chosen.card_out)
        yield Evaluated(shown_results(read_results(self.out)), _words_of(report, self.out, chosen.card_out))


class CalibrationRequest(TableRequest):
    """Calibrate a model on a table, as the command `calibrate` does."""

    def steps(self) -> Iterator[Progress[Any] | Calibrated]:
        """Yield the progress, and at last the calibrated model."""
        from napari_milcnn.labels.table import read_labels
        from napari_milcnn.model.package_read import load_model
        from napari_milcnn.training.validation import calibration_steps

        chosen, model = self.choices, self._loaded()
        table = read_labels(self.labels, reading_of_choices(chosen), chosen.layout)
        for step in calibration_steps(model, table, device=chosen.options.get("device", "auto")):
            if step.result is None:
                yield step
            else:
                step.result.save(self.out)
        yield Calibrated(load_model(self.out), self.out)


def reading_of_choices(choices: EvaluationChoices) -> ImageReading:
    """Return how images are opened."""
    from napari_milcnn.images.open import ImageReading

    return ImageReading(**choices.reading)


def _words_of(report: EvaluationReport, out: Path, card_out: Path | None) -> str:
    """Say on how many images a model was measured, and where the results are."""
    measured = len(report.outcomes) - len(report.failed)
    failed = f", {len(report.failed)} failed" if report.failed else ""
    card = f" The model with these figures on its card is {card_out}." if card_out is not None else ""
    return " ".join(
        [f"Measured on {measured} images{failed}. The results are in {out}.{card}", *report.faithfulness_sentences]
    )


class EvaluationSession:
    """The form "Evaluate a model": what is chosen, what runs, and what came of it.

    Attributes
    ----------
    choices : EvaluationChoices
        What the user chose.
    share : float
        How much is done, from 0 to 1.
    doing : str
        What is being done, in words.
    failures : tuple of str
        Images that failed so far, each with its reason.
    message : Notice
        What came of the last run.
    calibrated : Calibrated or None
        The model that the last run calibrated.
    changed, evaluated : Signal
        Anything of these changed; these results were written.
    requested, withdrawn : Signal
        As of `ResultsSession`.
    stop_requested : Signal
        End this request at its next step.
    """

    changed = Signal()
    evaluated = Signal(object)
    requested = Signal(object)
    withdrawn = Signal(object)
    stop_requested = Signal(object)

    def __init__(self) -> None:
        self.choices = EvaluationChoices()
        self.share, self.doing = 0.0, ""
        self.failures: tuple[str, ...] = ()
        self.message = NOTHING_TO_SAY
        self.calibrated: Calibrated | None = None
        self._current: TrainedModel | None = None
        self._running: TableRequest | None = None
        self._stopping = False
        self._time = TimeLeft()

    @property
    def state(self) -> EvaluationState:
        """Whether something runs."""
        if self._running is None:
            return EvaluationState.READY
        return EvaluationState.STOPPING if self._stopping else EvaluationState.RUNNING

    @property
    def is_busy(self) -> bool:
        """Whether something runs."""
        return self._running is not None

    @property
    def seconds_left(self) -> float | None:
        """How long the rest will take; None while too little is done to tell."""
        return None if self._running is None else self._time.left(self.share)

    @property
    def notices(self) -> tuple[Notice, ...]:
        """What came of the last run, and the images that failed so far."""
        many, first = len(self.failures), self.failures[:1]
        failed = f"{many} image{'s'[: many != 1]} failed, such as: {first[0]}" if first else ""
        both = (self.message, Notice("run", failed, Level.WARNING))
        return tuple(one for one in both if one.text)

    @property
    def out(self) -> Path | None:
        """Where the results go: where the user said, or to a name beside the table that is free."""
        labels = self.choices.labels
        if self.choices.out is not None or labels is None:
            return self.choices.out
        if self.choices.calibrate:
            name = self._model_name()
            return free_path(labels.parent, f"{name} calibrated", ".zip")
        return free_path(labels.parent, f"{labels.stem} evaluation", "")

    @property
    def problem(self) -> str:
        """Why it cannot start, as a sentence that says what to do; empty if it can."""
        chosen, labels, out = self.choices, self.choices.labels, self.out
        if chosen.model is None and self._current is None:
            return "Choose a model."
        if labels is None or out is None:
            return "Choose a table of labels: a CSV with the columns file and label."
        if not labels.exists():
            return f"{labels} does not exist; choose the table of labels."
        if chosen.calibrate:
            return _problem_of_file(out)
        if out.is_file() or holds_results(out):
            return f"{out} holds results already; choose another folder, so that they are kept."
        if chosen.card_out is not None:
            if not chosen.options.get("faithfulness"):
                return "The file for the model with its card needs faithfulness to be measured; tick it, too."
            if problem := _problem_of_file(chosen.card_out):
                return problem
        return _problem_of_options(chosen)

    # What the user does

    def choose(self, choices: EvaluationChoices) -> None:
        """Choose what is measured, and how."""
        if choices != self.choices:
            self.choices = choices
            self.changed.emit()

    def use(self, model: TrainedModel | None) -> None:
        """Notice which model all docks share now."""
        self._current = model
        self.changed.emit()

    def start(self) -> None:
        """Evaluate or calibrate as chosen."""
        labels, out = self.choices.labels, self.out
        model = self.choices.model or self._current
        if self._running is not None or self.problem or labels is None or out is None or model is None:
            return
        kind = CalibrationRequest if self.choices.calibrate else EvaluationRequest
        self.share, self.doing, self.failures, self._stopping = 0.0, "reading the table", (), False
        self.message, self.calibrated = NOTHING_TO_SAY, None
        self._time = TimeLeft()
        self._running = kind(model, labels, out, self.choices)
        self.changed.emit()
        self.requested.emit(self._running)

    def stop(self) -> None:
        """End what runs at its next step; nothing is written."""
        if self._running is not None and not self._stopping:
            self._stopping = True
            self.stop_requested.emit(self._running)
            self.changed.emit()

    # What came of it

    def take(self, request: object, step: Progress[Any] | Evaluated | Calibrated) -> None:
        """Take the progress, or what was written."""
        if request is not self._running:
            return
        if isinstance(step, Evaluated):
            self.share, self.message = 1.0, Notice("run", step.words)
            self.evaluated.emit(step.results)
        elif isinstance(step, Calibrated):
            self.share, self.calibrated = 1.0, step
            self.message = Notice("run", f"Temperature {step.model.card.temperature:.2f}; written to {step.path}.")
        else:
            self.share, self.doing = step.fraction, f"{min(step.number, step.total)} of {step.total} · {step.doing}"
            error = getattr(step.result, "error", "")
            self.failures = (*self.failures, error) if error else self.failures
        self.changed.emit()

    def end(self, request: object, error: str = "", *, stopped: bool = False) -> None:
        """Notice that a request has ended."""
        if request is not self._running:
            return
        if error:
            self.message = Notice("run", error, Level.ERROR)
        elif stopped and not self.message.text:
            self.message = Notice("run", f"Stopped at {self.doing}. Nothing was written.", Level.WARNING)
        self._running, self._stopping, self.doing = None, False, ""
        self.changed.emit()

    def _model_name(self) -> str:
        if self.choices.model is not None:
            return self.choices.model.stem
        return "model" if self._current is None else self._current.card.name


def free_path(folder: Path, name: str, suffix: str) -> Path:
    """Return a path in a folder that does not exist yet."""
    plain = "".join("_" if letter in '<>:"/\\|?*' else letter for letter in name)
    numbered = (f"{plain}{'' if n == 1 else f' {n}'}{suffix}" for n in range(1, 1000))
    return next((folder / one for one in numbered if not (folder / one).exists()), folder / f"{plain}{suffix}")


def holds_results(folder: Path) -> bool:
    """Whether a folder holds results of any kind."""
    from napari_milcnn.results.opened import WRITTEN_FILES

    return any((folder / name).exists() for name in WRITTEN_FILES)


def _problem_of_file(path: Path) -> str:
    """Say why a model cannot be written to a file; empty if it can."""
    if path.suffix.lower() != ".zip":
        return f"The model is written to {path}; choose a name that ends in .zip."
    return f"{path} exists already; choose another name, so that this model is kept." if path.exists() else ""


def _problem_of_options(chosen: EvaluationChoices) -> str:
    """Say which options cannot be; empty if all can."""
    if chosen.folds is not None and chosen.options.get("faithfulness"):
        return (
            "Faithfulness is measured for one trained model, but a cross-validation trains a model for each fold; "
            "leave out one of the two."
        )
    if chosen.truth is not None and not chosen.truth.is_dir():
        return f"{chosen.truth} is not a folder; choose the folder of the truth images."
    try:
        make_options(EvaluateOptions, chosen.options)
        make_options(ForegroundOptions, chosen.foreground)
        make_options(TrainOptions, chosen.training)
        reading_of_choices(chosen)
    except MilcnnError as error:
        return f"{error}."
    return ""
