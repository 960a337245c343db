"""The command line: one short function per command, which calls the Python function of the same name.

Options come from the pydantic models of `options`, so each is written down once. Tables and JSON go to standard
output, progress and messages to standard error. Exit status: 0 if all is done; 1 if some images failed, in which case
the other results are written and each failure has its row; 2 if the call itself is wrong; 130 if it was interrupted, in
which case all finished results are kept.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from importlib.metadata import version
from typing import Annotated

import typer
from typer.core import TyperGroup

from napari_milcnn.cli.cells import cells_command
from napari_milcnn.cli.classify import classify_command, demo
from napari_milcnn.cli.evaluate import evaluate_command
from napari_milcnn.cli.export import export_command
from napari_milcnn.cli.info import info, simulate
from napari_milcnn.cli.labels import check_command, next_command
from napari_milcnn.cli.progress import FLAGS, output
from napari_milcnn.cli.screen import label_command, screen_command, wells_command
from napari_milcnn.cli.train import calibrate_command, train_command


def _print_version(wanted: bool) -> None:
    if wanted:
        output.print(version("napari-milcnn"))
        raise typer.Exit


app = typer.Typer(
    name="napari-milcnn",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
COMMANDS: dict[str, Callable[..., None]] = {
    "classify": classify_command,
    "screen": screen_command,
    "wells": wells_command,
    "label": label_command,
    "train": train_command,
    "evaluate": evaluate_command,
    "calibrate": calibrate_command,
    "cells": cells_command,
    "next": next_command,
    "check": check_command,
    "export": export_command,
    "info": info,
    "simulate": simulate,
    "demo": demo,
}
for name, command in COMMANDS.items():
    app.command(name)(command)


@app.callback()
def options_before_the_command(
    context: typer.Context,
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Learn from image-level labels alone which cells show a phenotype, and where."""
    if isinstance(context.command, TyperGroup) and context.invoked_subcommand:
        FLAGS.set(flags_of(context.command.commands[context.invoked_subcommand]))


def flags_of(command: object) -> tuple[str, ...]:
    """Return the flags of a command."""
    return tuple(flag for one in getattr(command, "params", ()) for flag in one.opts)


def main() -> None:
    """Run the command line."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(130)
