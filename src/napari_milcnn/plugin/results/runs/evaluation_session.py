"""What the form "Evaluate a model" of the Results dock knows: what is chosen, what runs, and what came of it.

The jobs are those of the commands `evaluate` and `calibrate`, with the same options and the same results.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_milcnn.options import EvaluateOptions, ForegroundOptions, TrainOptions, make_options
from napari_milcnn.plugin.qt.notices import Notice
from napari_milcnn.plugin.results.reading import shown_results
from napari_milcnn.plugin.results.runs.run_session import RunChoices, RunSession, Written, free_path, holds_results
from napari_milcnn.progress import Progress

if TYPE_CHECKING:
    from napari_milcnn.evaluation.report import EvaluationReport
    from napari_milcnn.model.trained_model import TrainedModel


@dataclass(frozen=True, kw_only=True)
class EvaluationChoices(RunChoices):
    """What the user chose in the form; `out` is a folder for the results, or the file of the calibrated model.

    Attributes
    ----------
    calibrate : bool
        Calibrate the model, in place of measuring it.
    labels, layout : Path or None
        The table of labels; the layout of the wells if it is an OME-Zarr plate.
    truth : Path or None
        The folder of the truth images.
    folds : int or None
        Number of folds of a cross-validation.
    card_out : Path or None
        Write the model with its faithfulness on the card to this file.
    options, foreground, training : mapping
        Fields of `EvaluateOptions`, `ForegroundOptions` and `TrainOptions`.
    """

    calibrate: bool = False
    labels: Path | None = None
    layout: Path | None = None
    truth: Path | None = None
    folds: int | None = None
    card_out: Path | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    foreground: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Calibrated:
    """A calibrated model, read back from its file."""

    model: TrainedModel
    path: Path


@dataclass(frozen=True, eq=False)
class TableRequest(ABC):
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

    @abstractmethod
    def steps(self) -> Iterator[Progress[Any] | Written | Calibrated]:
        """Yield the progress, and at last what was written."""

    def _loaded(self) -> TrainedModel:
        from napari_milcnn.model.package_read import load_model

        return load_model(self.model) if isinstance(self.model, Path) else self.model


class EvaluationRequest(TableRequest):
    """Measure a model on a table, as the command `evaluate` does."""

    def steps(self) -> Iterator[Progress[Any] | Written]:
        """Yield the progress, with the `ImageOutcome` of each image, and at last what was written."""
        from napari_milcnn.evaluation.evaluate import evaluation_steps
        from napari_milcnn.evaluation.faithfulness import with_faithfulness
        from napari_milcnn.evaluation.report import EvaluationReport
        from napari_milcnn.labels.table import read_labels
        from napari_milcnn.results.read import read_results

        chosen, model = self.choices, self._loaded()
        foreground = make_options(ForegroundOptions, chosen.foreground).over(model.card.foreground)
        table = read_labels(self.labels, chosen.image_reading(), chosen.layout)
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
        yield Written(shown_results(read_results(self.out)), _words_of(report, self.out, chosen.card_out))


class CalibrationRequest(TableRequest):
    """Calibrate a model on a table, as the command `calibrate` does."""

    def steps(self) -> Iterator[Progress[Any] | Calibrated]:
        """Yield the progress, and at last the calibrated model."""
        from napari_milcnn.labels.table import read_labels
        from napari_milcnn.model.package_read import load_model
        from napari_milcnn.training.validation import calibration_steps

        chosen, model = self.choices, self._loaded()
        table = read_labels(self.labels, chosen.image_reading(), chosen.layout)
        for step in calibration_steps(model, table, device=chosen.options.get("device", "auto")):
            if step.result is None:
                yield step
            else:
                step.result.save(self.out)
        yield Calibrated(load_model(self.out), self.out)


def _words_of(report: EvaluationReport, out: Path, card_out: Path | None) -> str:
    """Say on how many images a model was measured, and where the results are."""
    measured = len(report.outcomes) - len(report.failed)
    failed = f", {len(report.failed)} failed" if report.failed else ""
    card = f" The model with these figures on its card is {card_out}." if card_out is not None else ""
    return " ".join(
        [f"Measured on {measured} images{failed}. The results are in {out}.{card}", *report.faithfulness_sentences]
    )


class EvaluationSession(RunSession[EvaluationChoices]):
    """The form "Evaluate a model".

    Attributes
    ----------
    calibrated : Calibrated or None
        The model that the last run calibrated.
    """

    first_words, one_of_many = "reading the table", "image"

    def __init__(self) -> None:
        super().__init__(EvaluationChoices())
        self.calibrated: Calibrated | None = None

    @property
    def out(self) -> Path | None:
        """Where the results go: where the user said, or to a name beside the table that is free."""
        labels = self.choices.labels
        if self.choices.out is not None or labels is None:
            return self.choices.out
        if self.choices.calibrate:
            return free_path(labels.parent, f"{self._model_name()} calibrated", ".zip")
        return free_path(labels.parent, f"{labels.stem} evaluation")

    def _problem(self) -> str:
        chosen, labels, out = self.choices, self.choices.labels, self.out
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

    def _request(self, model: TrainedModel | Path) -> TableRequest:
        assert self.choices.labels is not None
        assert self.out is not None
        self.calibrated = None
        kind = CalibrationRequest if self.choices.calibrate else EvaluationRequest
        return kind(model, self.choices.labels, self.out, self.choices)

    def _kept(self, request: TableRequest) -> str:
        return "Nothing was written."

    def _take_result(self, result: Any) -> None:
        error = getattr(result, "error", "")
        self.failures = (*self.failures, error) if error else self.failures

    def _take_other(self, step: Calibrated) -> None:
        self.share, self.calibrated = 1.0, step
        self.message = Notice("run", f"Temperature {step.model.card.temperature:.2f}; written to {step.path}.")

    def _model_name(self) -> str:
        if self.choices.model is not None:
            return self.choices.model.stem
        return "model" if self._current is None else self._current.card.name


def _problem_of_file(path: Path) -> str:
    """Say why a model cannot be written to a file; empty if it can."""
    if path.suffix.lower() != ".zip":
        return f"The model is written to {path}; choose a name that ends in .zip."
    return f"{path} exists already; choose another name, so that this model is kept." if path.exists() else ""


def _problem_of_options(chosen: EvaluationChoices) -> str:
    """Say which options do not go together; empty if all do.

    Raises
    ------
    OptionsError
        If an option has an impossible value.
    """
    if chosen.folds is not None and chosen.options.get("faithfulness"):
        return (
            "Faithfulness is measured for one trained model, but a cross-validation trains a model for each fold; "
            "leave out one of the two."
        )
    if chosen.truth is not None and not chosen.truth.is_dir():
        return f"{chosen.truth} is not a folder; choose the folder of the truth images."
    make_options(EvaluateOptions, chosen.options)
    make_options(ForegroundOptions, chosen.foreground)
    make_options(TrainOptions, chosen.training)
    chosen.image_reading()
    return ""
