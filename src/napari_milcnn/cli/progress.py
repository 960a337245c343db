"""What the command line prints: messages and progress to standard error, tables and JSON to standard output."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from napari_milcnn.errors import MilcnnError

messages = Console(stderr=True, highlight=False, soft_wrap=True)


class Output(Console):
    """Standard output whose reader may go away, as in `| head`: the work goes on without it."""

    def on_broken_pipe(self) -> None:
        """Go on without a reader."""
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


output = Output(highlight=False, soft_wrap=True)


@contextmanager
def exit_status(code: int = 2) -> Iterator[None]:
    """Turn our errors into one message and an exit status, and Ctrl-C into 130."""
    try:
        yield
    except (MilcnnError, OSError) as error:
        messages.print(f"error: {error}", style="red", markup=False)
        raise typer.Exit(code) from None
    except KeyboardInterrupt:
        messages.print("interrupted: what was finished is kept", style="yellow")
        raise typer.Exit(130) from None


def progress_bar() -> Progress:
    """Return a bar that shows images done, their number, and the time left."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    return Progress(*columns, console=messages, transient=False)


def warn(sentence: str) -> None:
    """Print a warning to standard error."""
    messages.print(f"warning: {sentence}", style="yellow", markup=False)
