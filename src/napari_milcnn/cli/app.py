"""The command line: thin, one function a command. What it does, the Python functions of the same names do.

Options come from the pydantic models of `options`, so each is written down once. Tables and JSON go to standard
output, progress and messages to standard error. Exit status: 0 all done; 1 some images failed, the rest is written and
each failure has its row; 2 the call itself is wrong; 130 interrupted, what was finished is kept.
"""

from __future__ import annotations

import io
import sys

import typer

from napari_milcnn.cli.classify import classify, demo
from napari_milcnn.cli.evaluate import evaluate
from napari_milcnn.cli.info import info, simulate
from napari_milcnn.cli.train import calibrate_command, train_command

app = typer.Typer(
    name="napari-milcnn",
    help="Which cells show a phenotype, and where, learned from image-level labels alone.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.command("classify")(classify)
app.command("train")(train_command)
app.command("calibrate")(calibrate_command)
app.command("evaluate")(evaluate)
app.command("info")(info)
app.command("simulate")(simulate)
app.command("demo")(demo)


def main() -> None:
    """Run the command line."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(130)
