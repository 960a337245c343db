"""The command line: thin, one function a command. What it does, the Python functions of the same names do.

Options come from the pydantic models of `core.options`, so each is written down once. Tables and JSON go to standard
output, progress and messages to standard error. Exit status: 0 all done; 1 some images failed, the rest is written and
each failure has its row; 2 the call itself is wrong; 130 interrupted, what was finished is kept.
"""

from __future__ import annotations

import inspect
import io
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from pydantic.fields import FieldInfo
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from napari_milcnn.errors import MilcnnError, OptionsError
from napari_milcnn.images.stack import ImageReading, ZReading
from napari_milcnn.options import (
    PRESETS,
    EvaluateOptions,
    EvidenceOptions,
    ForegroundOptions,
    MaskOptions,
    NetworkOptions,
    Options,
    TrainOptions,
    make_options,
)  # fmt: skip

if TYPE_CHECKING:
    from napari_milcnn.evaluation.report import EvaluationReport, ImageOutcome
    from napari_milcnn.labels.table import LabelTable
    from napari_milcnn.model.trained_model import TrainedModel
    from napari_milcnn.results.folder import ImageResult, ScreenStep
    from napari_milcnn.training.plan import TrainingPlan
    from napari_milcnn.training.trainer import EpochReport

app = typer.Typer(
    name="napari-milcnn",
    help="Which cells show a phenotype, and where, learned from image-level labels alone.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
messages = Console(stderr=True, highlight=False, soft_wrap=True)


class _Output(Console):
    """Standard output whose reader may go away, as in `| head`: the work goes on without it."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


output = _Output(highlight=False, soft_wrap=True)
Command = TypeVar("Command", bound=Callable[..., None])

MODEL = typer.Option("--model", "-m", help="Model .zip, or a shipped model: yeast-sim, nuclei.")
OUT = typer.Option("--out", "-o", help="Folder for the results.")
BESIDE_REPLAY = ("replay", "out", "model", "device", "as_json")
READING: dict[str, tuple[Any, str]] = {
    "axes": (str, "Axes of the files where they do not say, such as TCYX."),
    "channels": (str, "Channel names in the order of the files, such as GFP,RFP."),
    "pixel_size": (float, "µm per pixel where the files do not say."),
    "series": (int, "Which series of files that hold several."),
    "z": (ZReading, "Each plane of a Z stack, as by default, or its maximum projection."),
}
Layout = Annotated[
    Path | None,
    typer.Option(
        help="For an OME-Zarr plate in place of LABELS.csv: a table of its wells, with the columns well (such as B03) "
        "and label, if known group and split.",
        metavar="LAYOUT.csv",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else on standard output.")]


def main() -> None:
    """Run the command line."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(130)


def options_of(
    *kinds: type[Options], prefix: str = "", skip: tuple[str, ...] = (), optional: bool = False
) -> Callable[[Command], Command]:
    """Add every field of some option models to a command that takes **options, under --prefix-name.

    With `optional` an option that is not given is None rather than its default.
    """
    fields = {prefix + n: f for kind in kinds for n, f in kind.model_fields.items() if n not in skip}
    return _adding([_parameter(name, field, optional) for name, field in fields.items()])


def reading_options(command: Command) -> Command:
    """Add the fields of an `ImageReading` to a command that takes **options, where they begin with reading_."""
    return _adding([_reading_parameter(name, *field) for name, field in READING.items()])(command)


def _reading_parameter(name: str, kind: Any, said: str) -> inspect.Parameter:
    shown = Annotated[kind | None, typer.Option(f"--{name.replace('_', '-')}", help=said)]
    return inspect.Parameter(f"reading_{name}", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=shown)


def _adding(added: list[inspect.Parameter]) -> Callable[[Command], Command]:
    def add(command: Command) -> Command:
        own = [p for p in inspect.signature(command, eval_str=True).parameters.values() if p.kind is not p.VAR_KEYWORD]
        command.__signature__ = inspect.Signature([*own, *added])  # type: ignore[attr-defined]
        return command

    return add


def _parameter(name: str, field: FieldInfo, optional: bool) -> inspect.Parameter:
    kind: Any = str if field.annotation == float | str else field.annotation
    kind, default = (kind | None, None) if optional else (kind, field.default)
    usual = str(field.default) if optional and isinstance(field.default, str | int | float) else True
    shown = Annotated[kind, typer.Option(help=field.description, show_default=usual)]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=shown)


def _taken(kind: type[Options], options: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return what was given for the fields of one option model."""
    return {name: options[prefix + name] for name in kind.model_fields if options.get(prefix + name) is not None}


def _class_thresholds(texts: Sequence[str]) -> dict[str, float]:
    """Read 'nucleus=0.42'; a class may have an = in its name."""
    found: dict[str, float] = {}
    for text in texts:
        name, _, number = text.rpartition("=")
        try:
            found[name] = float(number)
        except ValueError:
            name = ""
        if not name:
            raise OptionsError(f"--class-threshold is {text!r}; expected CLASS=NUMBER, such as nucleus=0.42")
    return found


def _reading(options: dict[str, Any]) -> ImageReading:
    """Return how images are read, of the options given."""
    given = {name: value for name in READING if (value := options[f"reading_{name}"]) is not None}
    if "channels" in given:
        given["channels"] = tuple(name.strip() for name in given["channels"].split(","))
    return ImageReading(**given)


@contextmanager
def _status(code: int = 2) -> Iterator[None]:
    """Turn our errors into one message and an exit status, and Ctrl-C into 130."""
    try:
        yield
    except (MilcnnError, OSError) as error:
        messages.print(f"error: {error}", style="red", markup=False)
        raise typer.Exit(code) from None
    except KeyboardInterrupt:
        messages.print("interrupted: what was finished is kept", style="yellow")
        raise typer.Exit(130) from None


def _progress() -> Progress:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    return Progress(*columns, console=messages, transient=False)


def _foreground(options: dict[str, Any], base: ForegroundOptions) -> ForegroundOptions:
    """Return `base` with the foreground options that were given changed."""
    return make_options(ForegroundOptions, base.model_dump() | _taken(ForegroundOptions, options, "foreground_"))


@app.command()
@options_of(ForegroundOptions, prefix="foreground_", optional=True)
@options_of(EvidenceOptions, MaskOptions, skip=("foreground", "class_thresholds"))
@reading_options
def classify(
    ctx: typer.Context,
    images: Annotated[list[Path] | None, typer.Argument(help="Images, or folders of images.", metavar="IMAGE")] = None,
    model: Annotated[str | None, MODEL] = None,
    out: Annotated[Path | None, OUT] = None,
    *,
    replay: Annotated[
        Path | None,
        typer.Option(
            help="Run a classification again, with the same numbers: its run.json says all but --out, which is by "
            "default that one's folder with -replay added, and --device.",
            metavar="run.json",
        ),
    ] = None,
    classes: Annotated[
        list[str] | None, typer.Option("--class", help="Make masks of this class only; repeatable.")
    ] = None,
    class_threshold: Annotated[
        list[str] | None,
        typer.Option(help="CLASS=NUMBER, such as nucleus=0.42: wins over --threshold for that class; repeatable."),
    ] = None,
    masks: Annotated[bool, typer.Option(help="Make masks and objects.")] = True,
    objects: Annotated[
        Path | None, typer.Option(help="Your own label image of the cells, or a folder of them.")
    ] = None,
    as_json: AsJson = False,
    **options: Any,
) -> None:
    """Classify images: a table, class maps, masks, an overview picture and the run record.

    All that is needed is IMAGE..., --model and --out; or --replay.
    """
    from napari_milcnn.model.trained_model import load_model
    from napari_milcnn.results.folder import screen

    with _status():
        if replay is not None:
            _replay(replay, out, model, _device_beside_replay(ctx), as_json)
            return
        if not images or model is None or out is None:
            raise OptionsError("to classify, name IMAGE..., --model and --out; or --replay with a run.json")
        loaded = load_model(model)
        steps = screen(
            loaded, images, out, command=sys.argv, classes=classes, masks=masks, objects=objects,
            mask_options=_taken(MaskOptions, options) | {"class_thresholds": _class_thresholds(class_threshold or ())},
            reading=_reading(options), foreground=_foreground(options, loaded.card.foreground),
            **_taken(EvidenceOptions, options),
        )  # fmt: skip
        _show(steps, loaded, out, as_json)


def _device_beside_replay(ctx: typer.Context) -> str | None:
    """Return the device given beside --replay, if one was; refuse what the record says itself."""
    given = {name: p for p in ctx.command.params if (name := p.name) and _is_typed(ctx, name)}
    refused = [p for name, p in given.items() if name not in BESIDE_REPLAY]
    if refused:
        names = ", ".join("IMAGE" if p.param_type_name == "argument" else p.opts[0] for p in refused)
        raise OptionsError(
            f"--replay takes images and options from the record; leave out {names}: only --out, --model, --device and "
            "--json go with it"
        )
    return str(ctx.params["device"]) if "device" in given else None


def _is_typed(ctx: typer.Context, name: str) -> bool:
    source = ctx.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _replay(record: Path, out: Path | None, model: str | None, device: str | None, as_json: bool) -> None:
    """Run a recorded classification again and show it."""
    from napari_milcnn.model.trained_model import load_model
    from napari_milcnn.results.replay import recorded_model, replay

    loaded = recorded_model(record) if model is None else load_model(model)
    out = out or Path(f"{record.absolute().parent}-replay")
    steps = replay(record, out, loaded, device, command=sys.argv, on_warning=_warn)
    _show(steps, loaded, out, as_json)


def _warn(sentence: str) -> None:
    messages.print(f"warning: {sentence}", style="yellow", markup=False)


def _show(steps: Iterator[ScreenStep], model: TrainedModel, out: Path, as_json: bool) -> None:
    """Run a screen, show it, and exit with 1 if an image failed."""
    from napari_milcnn.inference.devices import keep_freed_memory

    keep_freed_memory()
    results: list[ImageResult] = []
    with _progress() as progress:
        task: TaskID | None = None
        for step in steps:
            task = progress.add_task("classify", total=step.total) if task is None else task
            progress.update(task, completed=min(step.done + (step.share if step.result is None else 0), step.total),
                            description=escape(step.file.name[-30:]))  # fmt: skip
            if step.result is not None:
                results.append(step.result)
                _say(step.result)
    if as_json:
        print(json.dumps(_document(model, out, results), default=str))  # noqa: T201
    else:
        output.print(_results_table(results))
        output.print(f"results in {out}", markup=False)
    if any(result.error for result in results):
        raise typer.Exit(1)


def _say(result: ImageResult) -> None:
    if result.error:
        messages.print(f"failed: {result.error}", style="red", markup=False)
    for warning in result.warnings:
        messages.print(f"{result.file.name}: {warning}", style="yellow", markup=False)


def _results_table(results: list[ImageResult]) -> Table:
    table = Table("image", "plane", "top class", "score", "margin", "objects", box=None, pad_edge=False)
    for result in results:
        if result.prediction is None:
            table.add_row(escape(result.file.name), "", "failed", style="red")
            continue
        prediction = result.prediction
        for i, (top, score, margin) in enumerate(
            zip(prediction.top, prediction.scores.max(1), prediction.margin, strict=True)
        ):
            objects = str(result.objects) if i == 0 else ""
            table.add_row(
                escape(result.file.name),
                prediction.plane_name(i),
                top,
                f"{score:.3f}",
                f"{margin:.3f}",
                objects,
            )
    return table


def _document(model: TrainedModel, out: Path, results: list[ImageResult]) -> dict[str, Any]:
    return {
        "model": {"name": model.card.name, "sha256": model.digest, "classes": model.classes},
        "out": out,
        "images": [_image_document(result) for result in results],
    }


def _image_document(result: ImageResult) -> dict[str, Any]:
    planes = [] if result.prediction is None else result.prediction.table().to_dict("records")
    return {"file": result.file, "error": result.error or None, "warnings": result.warnings, "objects": result.objects,
            "files": result.files, "planes": planes}  # fmt: skip


@app.command()
@options_of(TrainOptions, optional=True)
@options_of(NetworkOptions, skip=("channels", "classes", "widths"), optional=True)
@options_of(ForegroundOptions, prefix="foreground_", optional=True)
@reading_options
def train(
    labels: Annotated[
        Path,
        typer.Argument(
            help="Table with the columns file, label and, if known, group and split; or a folder of one folder of "
            "images per class.",
            metavar="LABELS.csv",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Model .zip to write.")],
    *,
    layout: Layout = None,
    init: Annotated[
        str | None,
        typer.Option(
            help="Model to start from, a new one by default. Of a model of other classes the encoder is kept."
        ),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            help=f"Network of a new model and how it learns: {', '.join(PRESETS)}; compact by default. "
            "Options given beside it win."
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option(help="Go on with a training that was stopped or killed; from the start if it never began.")
    ] = False,
    reference: Annotated[
        str | None,
        typer.Option(
            help="Class whose images show no other class (control, wild type): evidence for the "
            "others is read against it."
        ),
    ] = None,
    name: Annotated[str | None, typer.Option(help="What the model is called on its card.")] = None,
    description: Annotated[str, typer.Option(help="For the card.")] = "",
    trained_on: Annotated[str, typer.Option(help="For the card: what it was trained on, what it is good for.")] = "",
    author: Annotated[list[str] | None, typer.Option(help="For the card: who made it; repeatable.")] = None,
    license_: Annotated[str, typer.Option("--license", help="For the card: SPDX identifier, such as CC-BY-4.0.")] = "",
    credit: Annotated[str, typer.Option(help="For the card: whose data, under which licence.")] = "",
    as_json: AsJson = False,
    **options: Any,
) -> None:
    """Train a model on image-level labels.

    After every epoch the best model so far is on disk as M.zip, and the state to --resume from as M.checkpoint. Where
    the last epoch's model is not the best it is kept as M-last.zip. For several GPUs or machines: accelerate launch -m
    napari_milcnn train ...
    """
    from napari_milcnn.inference.devices import keep_freed_memory
    from napari_milcnn.training.plan import TrainingPlan

    with _status():
        keep_freed_memory()
        network, foreground = _taken(NetworkOptions, options), _taken(ForegroundOptions, options, "foreground_")
        ignored = [f"--{key.replace('_', '-')}" for key in network]
        if init and (ignored or preset):
            raise OptionsError(f"--init brings its own network: leave out {', '.join(ignored or ['--preset'])}")
        facts = {"name": name, "description": description, "trained_on": trained_on, "credit": credit,
                 "authors": tuple(author or ()), "license": license_, "reference": reference}  # fmt: skip
        plan = TrainingPlan(
            labels, out, init=init, preset=preset, network=network, foreground=foreground,
            options=_taken(TrainOptions, options), facts=facts, reading=_reading(options), layout=layout,
        )  # fmt: skip
        _train(plan, resume=resume, as_json=as_json)


@app.command()
@reading_options
def calibrate(
    labels: Annotated[
        Path, typer.Argument(help="Table of images that the model did not train on.", metavar="LABELS.csv")
    ],
    model: Annotated[str, MODEL],
    out: Annotated[Path, typer.Option("--out", "-o", help="Model .zip to write.")],
    *,
    layout: Layout = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps or xpu.")] = "auto",
    **options: Any,
) -> None:
    """Set how sure a model is, and the balance between its classes, by images it did not train on."""
    from napari_milcnn.labels.table import read_labels
    from napari_milcnn.model.trained_model import load_model
    from napari_milcnn.training.trainer import calibrate as calibrated

    with _status():
        table = read_labels(labels, _reading(options), layout)
        result = calibrated(load_model(model), table, device=device)
        result.save(out)
        output.print(f"temperature {result.card.temperature:.2f}; written to {out}", markup=False)


def _train(plan: TrainingPlan, *, resume: bool, as_json: bool) -> None:
    """Train as a plan says, showing each epoch."""
    from napari_milcnn.training.plan import EpochPrinter, epoch_row, leads, run_training

    table = plan.table()
    start = plan.start(table)
    if leads():
        messages.print(start.kept, markup=False)
    printer = EpochPrinter(_written if as_json and leads() else lambda _text: None)
    rows: list[dict[str, Any]] = []
    try:
        with _progress() if leads() else nullcontext() as progress:
            show = _Shown(progress, plan.train_options().epochs)
            for report in run_training(plan, table, start.model, resume=resume, on_warning=show.warning,
                                       on_image=show.image, on_batch=show.batch):  # fmt: skip
                before = [] if rows else report.last.card.training["curve"][:-1]
                rows += [*before, epoch_row(report)]
                for row in rows[-1 - len(before) :]:
                    printer.epoch(row)
                show.epoch(report, quiet=as_json)
    except MilcnnError as error:
        printer.end(error=str(error))
        raise
    if not rows:
        done = f"{plan.checkpoint} is that of a training that is done: {plan.out} is as it left it"
        messages.print(done, markup=False)
    printer.end(model=plan.out)


def _written(text: str) -> None:
    print(text, end="", flush=True)  # noqa: T201


class _Shown:
    """Progress of a training: a bar over the images measured, then over all batches."""

    def __init__(self, progress: Progress | None, epochs: int) -> None:
        self.progress = progress
        self.epochs = epochs
        self.done = 0
        self.task = TaskID(0) if progress is None else progress.add_task("reading", total=None)

    def warning(self, sentence: str) -> None:
        if self.progress is not None:
            _warn(sentence)

    def image(self, done: int, total: int) -> bool:
        if self.progress is not None:
            self.progress.update(self.task, completed=done, total=total, description="reading images")
        return True

    def batch(self, done: int, total: int) -> bool:
        if self.progress is not None:
            self.progress.update(self.task, completed=self.done * total + done, total=total * self.epochs,
                                 description=f"epoch {self.done + 1}")  # fmt: skip
        return True

    def epoch(self, report: EpochReport, quiet: bool) -> None:
        self.done = report.epoch
        if not quiet and self.progress is not None:
            (self.progress.console if output.is_terminal else output).print(_epoch_text(report), markup=False)


def _epoch_text(report: EpochReport) -> str:
    validation = report.validation
    said = (
        "no validation"
        if validation is None
        else f"validation accuracy {validation.accuracy:.3f}, loss {validation.loss:.3f}"
    )
    best = "  saved" if report.is_best else ""
    took = f"{report.seconds:.0f} s ({report.waiting:.0%} waiting for images)"
    return f"epoch {report.epoch:>3}/{report.epochs}  loss {report.loss:.3f}  {said}  {took}{best}"


@app.command()
@options_of(TrainOptions, prefix="train_", optional=True)
@options_of(ForegroundOptions, prefix="foreground_", optional=True)
@options_of(EvaluateOptions, skip=("foreground",))
@reading_options
def evaluate(
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
    from napari_milcnn.model.trained_model import load_model

    with _status():
        keep_freed_memory()
        table = read_labels(labels, _reading(options), layout)
        loaded = load_model(model)
        report = _evaluate(
            loaded, table, truth=truth, folds=folds, train_options=_taken(TrainOptions, options, "train_"),
            foreground=_foreground(options, loaded.card.foreground), **_taken(EvaluateOptions, options),
        )  # fmt: skip
        report.save(out)
        if as_json:
            print(json.dumps(report.document(), default=str))  # noqa: T201
        else:
            output.print(_figures_table(report))
            output.print(f"results in {out}; look at {out / 'report.html'}", markup=False)
        for said in report.warnings:
            messages.print(said, style="yellow", markup=False)
        if report.failed:
            raise typer.Exit(1)


def _evaluate(model: TrainedModel, table: LabelTable, **options: Any) -> EvaluationReport:
    """Evaluate, showing how far it has come and each image that fails."""
    from napari_milcnn.evaluation.evaluate import evaluation_steps

    with _progress() as progress:
        task = progress.add_task("evaluate", total=None)
        for step in evaluation_steps(model, table, **options):
            progress.update(task, completed=step.done, total=step.total, description=escape(step.doing[-30:]))
            if step.outcome is not None:
                _say_failure(step.outcome)
    assert step.report is not None
    return step.report


def _say_failure(outcome: ImageOutcome) -> None:
    if outcome.error:
        messages.print(f"failed: {outcome.error}", style="red", markup=False)


def _figures_table(report: EvaluationReport) -> Table:
    from napari_milcnn.evaluation.report import HEADLINES

    table = Table("figure", "value", "95 % interval", box=None, pad_edge=False)
    for name in HEADLINES:
        low, high = report.intervals.get(name, (None, None))
        table.add_row(name, f"{report.figures[name]:.3f}", "" if low is None else f"{low:.3f} to {high:.3f}")
    return table


@app.command()
def info(
    model: Annotated[str | None, typer.Argument(help="Model .zip, or a shipped model.", metavar="[M.zip]")] = None,
    as_json: AsJson = False,
) -> None:
    """Show devices and versions, or a model's card."""
    from napari_milcnn.model.trained_model import card_json, card_text, load_model

    with _status():
        if model is None:
            _system(as_json)
        else:
            loaded = load_model(model)
            text = json.dumps(card_json(loaded)) if as_json else card_text(loaded)
            print(text)  # noqa: T201


def _system(as_json: bool) -> None:
    import torch

    from napari_milcnn.inference.devices import choose_device, free_memory
    from napari_milcnn.model.shipped import shipped_models
    from napari_milcnn.results.write import versions

    choice = choose_device()
    facts = {
        "device": str(choice), "free memory": f"{free_memory(choice.device) / 1e9:.1f} GB",
        "threads": str(torch.get_num_threads()), "shipped models": ", ".join(shipped_models()), **versions(),
    }  # fmt: skip
    print(json.dumps(facts) if as_json else "\n".join(f"{key:<16}{value}" for key, value in facts.items()))  # noqa: T201


@app.command()
def simulate(
    out: Annotated[Path, typer.Argument(help="Folder to write the screen to.", metavar="OUT")],
    *,
    fields: Annotated[int, typer.Option(min=1, help="Fields of view for each localisation.")] = 10,
    size: Annotated[int, typer.Option(min=64, help="Side of a field, in px.")] = 512,
    multi_label: Annotated[float, typer.Option(min=0, max=1, help="Share of strains with two localisations.")] = 0.15,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same screen.")] = 0,
) -> None:
    """Simulate a yeast localisation screen: two-channel fields, image-level labels, and the truth for each cell."""
    from napari_milcnn.simulation.screen import LOCALISATIONS, SimulationOptions, simulate_screen

    with _status(), _progress() as progress:
        cells = tuple(max(1, round(count * (size / 512) ** 2)) for count in (45, 75))
        chosen = SimulationOptions(size=(size, size), cells=cells, multi_label=multi_label)
        steps = simulate_screen(out, fields_per_class=fields, seed=seed, options=chosen)
        task = progress.add_task("simulate", total=fields * len(LOCALISATIONS))
        try:
            for _ in steps:
                progress.advance(task)
        finally:
            steps.close()
    output.print(f"images, truth and labels.csv in {out}", markup=False)


@app.command()
def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the results.")] = Path("milcnn-demo"),
    as_json: AsJson = False,
) -> None:
    """Classify the shipped sample with the shipped model."""
    from napari_milcnn.model.shipped import sample_folder
    from napari_milcnn.model.trained_model import load_model
    from napari_milcnn.results.folder import screen

    with _status():
        samples = sorted(sample_folder().glob("*.ome.tif"))
        model = load_model("yeast-sim")
        _show(screen(model, samples, out, command=sys.argv), model, out, as_json)
