"""The command evaluate."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from napari_milcnn.cli.option_flags import (
    MODEL,
    OUT,
    AsJson,
    Layout,
    evidence_of,
    given_options,
    loaded,
    options_of,
    reading_of,
    reading_options,
)
from napari_milcnn.cli.progress import exit_status, messages, output, print_failure, print_json, shown
from napari_milcnn.errors import OptionsError
from napari_milcnn.options import EvaluateOptions, ForegroundOptions, TrainOptions
from napari_milcnn.output_lock import locked, locked_folder

if TYPE_CHECKING:
    from napari_milcnn.evaluation.report import EvaluationReport, ImageOutcome
    from napari_milcnn.progress import Steps


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
        typer.Option(help="Cross-validate: train a new model, from a random start, for each fold of whole groups."),
    ] = None,
    card_out: Annotated[
        Path | None,
        typer.Option(help="With --faithfulness: write the model with these figures on its card to this .zip."),
    ] = None,
    as_json: AsJson = False,
    **options: object,
) -> None:
    """Measure a model on labelled images: figures, confusion, groups, suspected mislabels, report.html."""
    from napari_milcnn.evaluation.evaluate import evaluation_steps
    from napari_milcnn.evaluation.faithfulness import with_faithfulness
    from napari_milcnn.inference.devices import keep_freed_memory
    from napari_milcnn.labels.table import read_labels

    with exit_status():
        keep_freed_memory()
        table = read_labels(labels, reading_of(options), layout)
        trained = loaded(model)
        steps = evaluation_steps(
            trained, table, truth=truth, folds=folds, train_options=given_options(TrainOptions, options, "train_"),
            **evidence_of(options, trained, EvaluateOptions),
        )  # fmt: skip
        if card_out is not None and not options["faithfulness"]:
            raise OptionsError("--card-out writes the faithfulness on the model's card; give --faithfulness, too")
        with locked_folder(out) as lock, nullcontext() if card_out is None else locked(card_out) as card_lock:
            report = _report_of(steps)
            report.save(out, lock=lock)
            if card_out is not None and report.faithfulness is not None:
                with_faithfulness(trained, report.faithfulness).save(card_out, lock=card_lock)
        if as_json:
            print_json(report.document())
        else:
            output.print(_figures_table(report))
            for sentence in report.faithfulness_sentences:
                output.print(sentence)
            output.print(f"results in {out}; look at {out / 'report.html'}")
        for sentence in report.warnings:
            messages.print(sentence, style="yellow")
        if report.failed:
            raise typer.Exit(1)


def _report_of(steps: Steps[ImageOutcome | EvaluationReport]) -> EvaluationReport:
    """Evaluate, show the progress and each image that fails, and return the report."""
    from napari_milcnn.evaluation.report import EvaluationReport, ImageOutcome

    for step in shown(steps, "evaluate"):
        if isinstance(step.result, ImageOutcome) and step.result.error:
            print_failure(step.result.error)
    assert isinstance(step.result, EvaluationReport)
    return step.result


def _figures_table(report: EvaluationReport) -> Table:
    table = Table("figure", "value", "95 % interval", box=None, pad_edge=False)
    for name in report.headlines:
        low, high = report.intervals.get(name, (None, None))
        table.add_row(name, f"{report.figures[name]:.3f}", "" if low is None else f"{low:.3f} to {high:.3f}")
    return table
