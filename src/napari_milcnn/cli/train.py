"""The commands `train` and `calibrate`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import Progress, TaskID

from napari_milcnn.cli.interrupt import interrupt_between_steps
from napari_milcnn.cli.option_flags import MODEL, Layout, given_options, options_of, reading_of, reading_options
from napari_milcnn.cli.progress import error_sentence, exit_status, messages, output, progress_bar, warn
from napari_milcnn.errors import MilcnnError
from napari_milcnn.options import (
    DEVICE_HELP,
    PRESETS,
    ForegroundOptions,
    InputOptions,
    NetworkOptions,
    TrainOptions,
)  # fmt: skip
from napari_milcnn.output_lock import locked

if TYPE_CHECKING:
    from napari_milcnn.training.plan import TrainingPlan
    from napari_milcnn.training.trainer import EpochReport


@options_of(TrainOptions, optional=True)
@options_of(InputOptions, optional=True)
@options_of(NetworkOptions, skip=("channels", "classes"), optional=True, default_text="as in the preset")
@options_of(ForegroundOptions, prefix="foreground_", optional=True)
@reading_options
def train_command(
    labels: Annotated[
        Path,
        typer.Argument(
            help="Table with the columns file, label and, if known, group, split, plate and control; or a folder of "
            "one folder of images per class.",
            metavar="LABELS.csv",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Model .zip to write.")],
    *,
    layout: Layout = None,
    init: Annotated[
        str | None,
        typer.Option(
            help="Model to start from; a new network by default. If its classes differ, only its encoder is used."
        ),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            help=f"Preset of a new network and of how it learns: {', '.join(PRESETS)}; compact by default. "
            "Other options override it."
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option(help="Go on with a training that was stopped; from the start if none was.")
    ] = False,
    reference: Annotated[
        str | None,
        typer.Option(
            help="Class whose images show no other class (control, wild type); evidence for other classes is "
            "relative to it."
        ),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Card: name of the model.")] = None,
    description: Annotated[str, typer.Option(help="Card: one or two sentences on the model.")] = "",
    trained_on: Annotated[str, typer.Option(help="Card: what it was trained on, and what it is good for.")] = "",
    author: Annotated[list[str] | None, typer.Option(help="Card: an author; may be repeated.")] = None,
    license_: Annotated[
        str, typer.Option("--license", help="Card: licence as an SPDX identifier, such as CC-BY-4.0.")
    ] = "",
    credit: Annotated[str, typer.Option(help="Card: owner and licence of the data.")] = "",
    as_json: Annotated[
        bool,
        typer.Option(
            "--json",
            help="Print one JSON object a line and nothing else on standard output: one for each epoch as it ends, the "
            "last one with the model's path or the error.",
        ),
    ] = False,
    **options: Any,
) -> None:
    """Train a model on image-level labels.

    After every epoch the best model so far is saved as M.zip, and the state that --resume goes on from as M.checkpoint.
    If the model of the last epoch is not the best, it is saved as M-last.zip. For several GPUs or machines: accelerate
    launch -m napari_milcnn train ...
    """
    from napari_milcnn.inference.devices import keep_freed_memory
    from napari_milcnn.training.plan import TrainingPlan

    with exit_status(), _error_as_json(as_json):
        keep_freed_memory()
        network, seen = given_options(NetworkOptions, options), given_options(InputOptions, options)
        foreground = given_options(ForegroundOptions, options, "foreground_")
        facts = {"name": name, "description": description, "trained_on": trained_on, "credit": credit,
                 "authors": tuple(author or ()), "license": license_, "reference": reference}  # fmt: skip
        plan = TrainingPlan(
            labels, out, init=init, preset=preset, network=network, seen=seen, foreground=foreground,
            options=given_options(TrainOptions, options), facts=facts, reading=reading_of(options), layout=layout,
        )  # fmt: skip
        _train(plan, resume=resume, as_json=as_json)


@reading_options
def calibrate_command(
    labels: Annotated[
        Path, typer.Argument(help="Table of images that the model did not train on.", metavar="LABELS.csv")
    ],
    model: Annotated[str, MODEL],
    out: Annotated[Path, typer.Option("--out", "-o", help="Model .zip to write.")],
    *,
    layout: Layout = None,
    device: Annotated[str, typer.Option(help=DEVICE_HELP)] = "auto",
    **options: Any,
) -> None:
    """Calibrate a model, and the balance between its classes, on images that it did not train on."""
    from napari_milcnn.labels.table import read_labels
    from napari_milcnn.model.package_read import load_model
    from napari_milcnn.training.validation import calibrate

    with exit_status(), locked(out) as lock:
        table = read_labels(labels, reading_of(options), layout)
        result = calibrate(load_model(model), table, device=device)
        result.save(out, lock=lock)
        output.print(f"temperature {result.card.temperature:.2f}; written to {out}")


def _train(plan: TrainingPlan, *, resume: bool, as_json: bool) -> None:
    """Train as a plan says, and show each epoch."""
    from napari_milcnn.training.run import is_leading_process, run_training

    table = plan.table()
    start = plan.start(table)
    leading = is_leading_process()
    if leading:
        messages.print(start.summary)
    epochs = 0
    with progress_bar() if leading else nullcontext() as progress, interrupt_between_steps() as stop_if_interrupted:
        show = _TrainingProgress(progress, plan.train_options().epochs, stop_if_interrupted)
        for report in run_training(plan, table, start.model, resume=resume, on_warning=show.warning,
                                   on_image=show.image, on_batch=show.batch):  # fmt: skip
            if as_json and leading:
                _print_rows(report, earlier=epochs == 0)
            show.epoch(report, quiet=as_json)
            epochs += 1
    if epochs == 0:
        messages.print(f"{plan.checkpoint} belongs to a training that is done; {plan.out} is its model")
    if as_json and leading:
        _print_json({"model": plan.out})


def _print_rows(report: EpochReport, *, earlier: bool) -> None:
    """Print an epoch as a line of JSON, after those of a training that is resumed, if `earlier`."""
    from napari_milcnn.training.run import epoch_row

    if earlier:
        for row in report.last.card.training.curve[:-1]:
            _print_json(row.model_dump())
    _print_json(epoch_row(report))


def _print_json(facts: dict[str, Any]) -> None:
    from napari_milcnn.training.run import json_line

    print(json_line(facts), flush=True)  # noqa: T201


@contextmanager
def _error_as_json(as_json: bool) -> Iterator[None]:
    """Print an error as the last line of JSON, where lines of JSON are printed, and pass it on."""
    try:
        yield
    except (MilcnnError, OSError) as error:
        if as_json:
            _print_json({"error": error_sentence(error)})
        raise


class _TrainingProgress:
    """Shows how far a training is: a bar over the images that are read, then over all batches."""

    def __init__(self, progress: Progress | None, epochs: int, stop_if_interrupted: Callable[[], None]) -> None:
        self.progress = progress
        self.stop_if_interrupted = stop_if_interrupted
        self.epochs = epochs
        self.done = 0
        self.task = TaskID(0) if progress is None else progress.add_task("reading", total=None)

    def warning(self, sentence: str) -> None:
        if self.progress is not None:
            warn(sentence)

    def image(self, done: int, total: int) -> bool:
        self.stop_if_interrupted()
        if self.progress is not None:
            self.progress.update(self.task, completed=done, total=total, description="reading images")
        return True

    def batch(self, done: int, total: int) -> bool:
        self.stop_if_interrupted()
        if self.progress is not None:
            self.progress.update(self.task, completed=self.done * total + done, total=total * self.epochs,
                                 description=f"epoch {self.done + 1}")  # fmt: skip
        return True

    def epoch(self, report: EpochReport, quiet: bool) -> None:
        self.done = report.epoch
        if not quiet and self.progress is not None:
            (self.progress.console if output.is_terminal else output).print(_epoch_text(report))


def _epoch_text(report: EpochReport) -> str:
    validation = report.validation
    result = (
        "no validation"
        if validation is None
        else f"validation accuracy {validation.accuracy:.3f}, loss {validation.loss:.3f}"
    )
    best = "  saved" if report.is_best else ""
    time = f"{report.seconds:.0f} s ({report.waiting:.0%} waiting for images)"
    return f"epoch {report.epoch:>3}/{report.epochs}  loss {report.loss:.3f}  {result}  {time}{best}"
