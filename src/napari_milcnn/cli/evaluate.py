"""The command evaluate."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from napari_milcnn.cli.option_flags import (
    MODEL,
    OUT,
    AsJson,
    Layout,
    foreground_of,
    given_options,
    options_of,
    reading_of,
    reading_options,
)
from napari_milcnn.cli.progress import exit_status, messages, output, print_json, shown
from napari_milcnn.options import (
    EvaluateOptions,
    ForegroundOptions,
    TrainOptions,
)  # fmt: skip

if TYPE_CHECKING:
    from napari_milcnn.evaluation.report import EvaluationReport, ImageOutcome
    from napari_milcnn.labels.table import LabelTable
    from napari_milcnn.model.trained_model import TrainedModel


@options_of(TrainOptions, prefix="train_", optional=True)
@options_of(ForegroundOptions, prefix="foreground_", optional=True)
@options_of(EvaluateOptions, skip=("foreground",))
@reading_options
def evaluate_command(
    labels: Annotated[
        Path, typer.Argument(help="Table with the columns file, label and, if known, group.", metavar="LABELS.csv")
    ],
    model: Annotated[str, MODEL],
    out: Annotated[Path, OUT],
    *,
    layout: Layout = None,
    truth: Annotated[
        Path | None,
        typer.Option(help="Folder of truth images: 0 background, 1 another cell, 2 a cell of the image's phenotype."),
    ] = None,
    folds: Annotated[
        int | None,
        typer.Option(help="Cross-validate: train the model anew, from a random start, for each fold of whole groups."),
    ] = None,
    as_json: AsJson = False,
    **options: Any,
) -> None:
    """Measure a model on labelled images: figures, confusion, groups, suspected mislabels, report.html."""
    from napari_milcnn.inference.devices import keep_freed_memory
    from napari_milcnn.labels.table import read_labels
    from napari_milcnn.model.package_read import load_model

    with exit_status():
        keep_freed_memory()
        table = read_labels(labels, reading_of(options), layout)
        loaded = load_model(model)
        report = _evaluate(
            loaded, table, truth=truth, folds=folds, train_options=given_options(TrainOptions, options, "train_"),
            foreground=foreground_of(options, loaded.card.foreground), **given_options(EvaluateOptions, options),
        )  # fmt: skip
        report.save(out)
        if as_json:
            print_json(report.document())
        else:
            output.print(_figures_table(report))
            output.print(f"results in {out}; look at {out / 'report.html'}", markup=False)
        for sentence in report.warnings:
            messages.print(sentence, style="yellow", markup=False)
        if report.failed:
            raise typer.Exit(1)


def _evaluate(model: TrainedModel, table: LabelTable, **options: Any) -> EvaluationReport:
    """Evaluate, showing how far it has come and each image that fails."""
    from napari_milcnn.evaluation.evaluate import evaluation_steps
    from napari_milcnn.evaluation.report import EvaluationReport, ImageOutcome

    for step in shown(evaluation_steps(model, table, **options), "evaluate"):
        if isinstance(step.result, ImageOutcome):
            _print_failure(step.result)
    assert isinstance(step.result, EvaluationReport)
    return step.result


def _print_failure(outcome: ImageOutcome) -> None:
    if outcome.error:
        messages.print(f"failed: {outcome.error}", style="red", markup=False)


def _figures_table(report: EvaluationReport) -> Table:
    from napari_milcnn.evaluation.report import HEADLINES

    table = Table("figure", "value", "95 % interval", box=None, pad_edge=False)
    for name in HEADLINES:
        low, high = report.intervals.get(name, (None, None))
        table.add_row(name, f"{report.figures[name]:.3f}", "" if low is None else f"{low:.3f} to {high:.3f}")
    return table
