"""Command-line options made from the option models, so that each option is written down only in `options`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_origin

import typer
from pydantic.fields import FieldInfo

from napari_milcnn.errors import OptionsError, OutputError
from napari_milcnn.options import (
    EvidenceOptions,
    ForegroundOptions,
    MaskOptions,
    Options,
    ZReading,
    class_thresholds_of,
    flag_name,
    make_options,
)
from napari_milcnn.output_lock import locked

if TYPE_CHECKING:
    from typer.models import OptionInfo

    from napari_milcnn.images.open import ImageReading
    from napari_milcnn.model.trained_model import TrainedModel

Command = TypeVar("Command", bound=Callable[..., None])
MODEL = typer.Option("--model", "-m", help="Model .zip, or a shipped model: yeast-sim, nuclei.")
OUT = typer.Option("--out", "-o", help="Folder for the results.")
TABLE_OUT = typer.Option("--out", "-o", help="Table to write, a .csv file.")
BESIDE_REPLAY = ("replay", "out", "model", "device", "as_json")
READING: dict[str, tuple[object, str]] = {
    "axes": (str | None, "Axes of files that do not say them, such as TCYX."),
    "channels": (
        str | None,
        "Channel names in the order of the files, such as GFP,RFP, or which is which, such as DNA=Phase.",
    ),
    "pixel_size": (float | None, "Pixel size in µm of files that do not say it."),
    "series": (int | None, "Number of the series to open, from 0, in files that hold several."),
    "z": (ZReading | None, "Use each plane of a Z stack (default), or its maximum projection."),
    "pattern": (
        str | None,
        "For one file per channel: the form of the names, such as {plate}_{well}_{site}_w{channel}.tif; the forms of "
        "usual instruments are known. off: each file is an image.",
    ),
    "plates": (
        Path | None,
        "For models that scale intensities by plate (--normalise group): a table with the columns file, plate and "
        "control (yes for control images). Default: a table of labels that has these columns, else images of one "
        "folder share a plate.",
    ),
}
Layout = Annotated[
    Path | None,
    typer.Option(
        help="For an OME-Zarr plate in place of LABELS.csv: a table of its wells with the columns well (such as B03) "
        "and label and, if known, group and split.",
        metavar="LAYOUT.csv",
    ),
]
ClassNames = Annotated[
    list[str] | None, typer.Option("--class", help="Look for cells of this class only, and make its masks; repeatable.")
]
ClassThresholds = Annotated[
    list[str] | None,
    typer.Option(
        "--class-threshold",
        help="CLASS=NUMBER, such as nucleus=0.42: used in place of --threshold for that class; repeatable.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else on standard output.")]


def options_of(
    *kinds: type[Options], prefix: str = "", skip: tuple[str, ...] = (), optional: bool = False,
    default_text: str | None = None,
) -> Callable[[Command], Command]:  # fmt: skip
    """Return a decorator that adds the fields of option models to a command with **options, as flags --prefix-name.

    If `optional` is true, an option that is not given is None instead of its default. `default_text` is shown for all
    defaults, where they are not those of the models.
    """
    fields = {prefix + n: f for kind in kinds for n, f in kind.model_fields.items() if n not in skip}
    return _adding([_field_parameter(name, field, optional, default_text) for name, field in fields.items()])


def reading_options(command: Command, without: Collection[str] = ()) -> Command:
    """Add the fields of an `ImageReading` to a command with **options, in which their names begin with reading_."""
    return _adding([
        _parameter(f"reading_{name}", kind, None, typer.Option(flag_name(name), help=text))
        for name, (kind, text) in READING.items() if name not in without
    ])(command)  # fmt: skip


def _adding(added: list[inspect.Parameter]) -> Callable[[Command], Command]:
    def add(command: Command) -> Command:
        own = [p for p in inspect.signature(command, eval_str=True).parameters.values() if p.kind is not p.VAR_KEYWORD]
        command.__signature__ = inspect.Signature([*own, *added])  # type: ignore[attr-defined]
        return command

    return add


def _field_parameter(name: str, field: FieldInfo, optional: bool, default_text: str | None) -> inspect.Parameter:
    is_text = field.annotation == float | str or get_origin(field.annotation) is tuple
    kind: Any = str if is_text else field.annotation
    flags = f"{flag_name(name)}/{flag_name(f'no_{name}')}" if field.annotation is bool else flag_name(name)
    usual = str(field.default) if optional and isinstance(field.default, str | int | float) else True
    option = typer.Option(flags, help=field.description, show_default=default_text or usual)
    return _parameter(name, kind | None if optional else kind, None if optional else field.default, option)


def _parameter(name: str, kind: Any, default: object, option: OptionInfo) -> inspect.Parameter:
    annotation = Annotated[kind, option]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def given_options(kind: type[Options], options: Mapping[str, object], prefix: str = "") -> dict[str, Any]:
    """Return the options that were given for the fields of one option model.

    Raises
    ------
    OptionsError
        If one of them has an impossible value. The message calls it by its flag.
    """
    given = {name: options[prefix + name] for name in kind.model_fields if options.get(prefix + name) is not None}
    needed = {name: 1 for name, field in kind.model_fields.items() if field.is_required()}  # known only later
    make_options(kind, needed | given, called=lambda name: flag_name(prefix + name))
    return given


def loaded(model: str) -> TrainedModel:
    """Load the model that --model names; torch is imported only now, so that --help answers at once."""
    from napari_milcnn.model.package_read import load_model

    return load_model(model)


@contextmanager
def table_lock(out: Path | None, *inputs: Path | None) -> Iterator[None]:
    """Check, before any work is done, that --out names a table that can be written, and hold its lock.

    Raises
    ------
    OutputError
        If it does not end in .csv, is a folder, or is one of the tables that the command reads; or if another run
        writes it.
    """
    if out is None:
        yield
        return
    if out.suffix.lower() != ".csv" or out.is_dir():
        raise OutputError(f"--out is {out}; expected the name of a table that ends in .csv")
    if out.resolve() in {path.resolve() for path in inputs if path is not None}:
        raise OutputError(f"--out is {out}, which the command reads and would overwrite; choose another name")
    with locked(out):
        yield


def mask_options_of(options: Mapping[str, object], thresholds: Sequence[str] | None) -> dict[str, Any]:
    """Return the options of masks that were given, with the thresholds of `ClassThresholds`.

    Raises
    ------
    OptionsError
        As `given_options` does, or if a threshold is not understood.
    """
    try:
        of_classes = class_thresholds_of(thresholds or ())
    except ValueError as error:
        raise OptionsError(f"--class-threshold: {error}") from None
    return given_options(MaskOptions, options) | {"class_thresholds": of_classes}


def reading_of(options: Mapping[str, Any]) -> ImageReading:
    """Return how images are opened, from the options of `reading_options`.

    Raises
    ------
    OptionsError
        If one of them has an impossible value.
    """
    from napari_milcnn.images.open import ImageReading

    given = {name: value for name in READING if (value := options.get(f"reading_{name}")) is not None}
    if "channels" in given:
        given["channels"] = tuple(name.strip() for name in given["channels"].split(","))
    return ImageReading(**given)


def evidence_of(
    options: Mapping[str, object], model: TrainedModel, kind: type[EvidenceOptions] = EvidenceOptions
) -> dict[str, Any]:
    """Return the options of the evidence that were given; the foreground is that of the model's card but for those.

    Raises
    ------
    OptionsError
        As `given_options` does.
    """
    foreground = make_options(ForegroundOptions, given_options(ForegroundOptions, options, "foreground_"))
    return {"foreground": foreground.over(model.card.foreground), **given_options(kind, options)}


def device_beside_replay(ctx: typer.Context) -> str | None:
    """Return the device given together with --replay, or None; refuse options that the record already sets."""
    given = {name: p for p in ctx.command.params if (name := p.name) and _is_typed(ctx, name)}
    refused = [p for name, p in given.items() if name not in BESIDE_REPLAY]
    if refused:
        names = ", ".join("IMAGE" if p.param_type_name == "argument" else p.opts[0] for p in refused)
        raise OptionsError(
            f"--replay takes images and options from the record; leave out {names}: only --out, --model, --device and "
            "--json can be given with it"
        )
    return str(ctx.params["device"]) if "device" in given else None


def _is_typed(ctx: typer.Context, name: str) -> bool:
    source = ctx.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"
