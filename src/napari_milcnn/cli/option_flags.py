"""Command-line options made of the option models: each is written down once, in `options`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_origin

import typer
from pydantic.fields import FieldInfo

from napari_milcnn.errors import OptionsError
from napari_milcnn.images.open import ImageReading, ZReading
from napari_milcnn.options import (
    ForegroundOptions,
    Options,
    flag_name,
    make_options,
)  # fmt: skip

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


def options_of(
    *kinds: type[Options], prefix: str = "", skip: tuple[str, ...] = (), optional: bool = False,
    default_text: str | None = None,
) -> Callable[[Command], Command]:  # fmt: skip
    """Add every field of some option models to a command that takes **options, under --prefix-name.

    With `optional` an option that is not given is None rather than its default. `default_text` is shown for all
    defaults, where they are not those of the models.
    """
    fields = {prefix + n: f for kind in kinds for n, f in kind.model_fields.items() if n not in skip}
    return _adding([_parameter(name, field, optional, default_text) for name, field in fields.items()])


def reading_options(command: Command) -> Command:
    """Add the fields of an `ImageReading` to a command that takes **options, where they begin with reading_."""
    return _adding([_reading_parameter(name, *field) for name, field in READING.items()])(command)


def _reading_parameter(name: str, kind: Any, said: str) -> inspect.Parameter:
    shown = Annotated[kind | None, typer.Option(flag_name(name), help=said)]
    return inspect.Parameter(f"reading_{name}", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=shown)


def _adding(added: list[inspect.Parameter]) -> Callable[[Command], Command]:
    def add(command: Command) -> Command:
        own = [p for p in inspect.signature(command, eval_str=True).parameters.values() if p.kind is not p.VAR_KEYWORD]
        command.__signature__ = inspect.Signature([*own, *added])  # type: ignore[attr-defined]
        return command

    return add


def _parameter(name: str, field: FieldInfo, optional: bool, default_text: str | None) -> inspect.Parameter:
    is_text = field.annotation == float | str or get_origin(field.annotation) is tuple
    kind: Any = str if is_text else field.annotation
    kind, default = (kind | None, None) if optional else (kind, field.default)
    usual = default_text or (str(field.default) if optional and isinstance(field.default, str | int | float) else True)
    flags = f"{flag_name(name)}/{flag_name(f'no_{name}')}" if field.annotation is bool else flag_name(name)
    shown = Annotated[kind, typer.Option(flags, help=field.description, show_default=usual)]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=shown)


def given_options(kind: type[Options], options: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return what was given for the fields of one option model."""
    return {name: options[prefix + name] for name in kind.model_fields if options.get(prefix + name) is not None}


def class_thresholds(texts: Sequence[str]) -> dict[str, float]:
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


def reading_of(options: dict[str, Any]) -> ImageReading:
    """Return how images are read, of the options given."""
    given = {name: value for name in READING if (value := options[f"reading_{name}"]) is not None}
    if "channels" in given:
        given["channels"] = tuple(name.strip() for name in given["channels"].split(","))
    return ImageReading(**given)


def foreground_of(options: dict[str, Any], base: ForegroundOptions) -> ForegroundOptions:
    """Return `base` with the foreground options that were given changed."""
    return make_options(ForegroundOptions, base.model_dump() | given_options(ForegroundOptions, options, "foreground_"))


def device_beside_replay(ctx: typer.Context) -> str | None:
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
