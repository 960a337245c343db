"""Output of the command line: messages and progress on standard error, tables and JSON on standard output."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from contextvars import ContextVar
from typing import Any, Final

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as ProgressBar
from rich.text import Text

from napari_milcnn.cli.interrupt import interrupt_between_steps
from napari_milcnn.errors import MilcnnError
from napari_milcnn.options import flag_name
from napari_milcnn.progress import Result, Steps
from napari_milcnn.untrusted import visible

FLAGS: Final[ContextVar[tuple[str, ...]]] = ContextVar("FLAGS", default=())
"""The flags of the running command."""
_CALLED_AS_IN_PYTHON: Final = re.compile(
    r"(?<!\S)(?<!leave )(?<!leave the )(?P<bracket>\(?)"
    r"(?:(?:the )?option (?P<quote>'?)(?P<option>[a-z_]+)(?P=quote)(?!\w)(?:: |=)?"
    r"|(?P<keyword>[a-z_]+)=|(?P<give>give )(?P<name>[a-z]+_[a-z_]+))"
    r"(?P<value>\"[^\"]*\"|(?<=[=:\s])\d+(?:\.\d+)?|(?<==)off)?(?=[\s,;:)]|\.?$|\.\s)"
)
"""An option as sentences call it, such as (option channels), pattern=off or axes="CYX", and a value behind it."""


class PlainConsole(Console):
    """A console that shows texts as they are: brackets mark up nothing, and hidden characters appear as escapes.

    Names of classes and files come from strangers, and would otherwise colour, move or end the output.
    """

    def __init__(self, *, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, highlight=False, soft_wrap=True, markup=False, emoji=False)

    def render_str(self, text: str, **options: Any) -> Text:
        """Make what is printed of a text."""
        return super().render_str(visible(text, kept="\n"), **options)


messages = PlainConsole(stderr=True)


class Output(PlainConsole):
    """Standard output whose reader may close it, as in `| head`; the command goes on without a reader."""

    def on_broken_pipe(self) -> None:
        """Go on without a reader."""
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


output = Output()


@contextmanager
def exit_status(code: int = 2) -> Iterator[None]:
    """Turn an error of this program into one message and an exit status, and Ctrl-C into exit status 130."""
    try:
        yield
    except (MilcnnError, OSError) as error:
        messages.print(f"error: {error_sentence(error)}", style="red")
        raise typer.Exit(code) from None
    except KeyboardInterrupt:
        messages.print("interrupted; all finished results are kept", style="yellow")
        raise typer.Exit(130) from None


def with_flags(sentence: str) -> str:
    """Call the options in a sentence as one types them for the running command, such as --pixel-size for pixel_size."""

    def typed(found: re.Match[str]) -> str:
        value = (found["value"] or "").strip('"')
        flag = _flag_of(found["option"] or found["keyword"] or found["name"])
        return f"{found['bracket']}{found['give'] or ''}{flag}{' ' if value else ''}{value}" if flag else found[0]

    return _CALLED_AS_IN_PYTHON.sub(typed, sentence)


def _flag_of(name: str) -> str | None:
    """Return the flag that an option has in the running command: its name, or a prefix of the command and its name."""
    flag, known = flag_name(name), FLAGS.get()
    ends = [one for one in known if one.endswith(flag[1:])]
    return flag if flag in known else ends[0] if len(ends) == 1 else None


def error_sentence(error: MilcnnError | OSError) -> str:
    """Return what an error says; of an error of the system, the file and what the system said of it."""
    if isinstance(error, MilcnnError) or error.strerror is None:
        return with_flags(str(error))
    return f"{error.filename}: {error.strerror}" if error.filename is not None else error.strerror


def progress_bar() -> ProgressBar:
    """Return a bar that shows the number of finished items, the number of all items, and the time left."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    return ProgressBar(*columns, console=messages, transient=False)


def shown(steps: Steps[Result], name: str) -> Steps[Result]:
    """Yield the steps of a job, and show a bar with its progress."""
    with closing(steps), progress_bar() as bar, interrupt_between_steps() as stop_if_interrupted:
        task = None  # a call that is wrong ends without a bar
        for step in steps:
            task = bar.add_task(name) if task is None else task
            bar.update(task, completed=step.fraction * step.total, total=step.total,
                       description=visible((step.doing or name)[-30:]))  # fmt: skip
            yield step
            stop_if_interrupted()


def last_result(steps: Steps[Result], name: str) -> Result:
    """Run a job to its end, show its progress, and return the result of its last step."""
    *_, last = shown(steps, name)
    assert last.result is not None
    return last.result


def print_json(document: object) -> None:
    """Print one JSON document to standard output."""
    print(json.dumps(document, default=str))  # noqa: T201


def say(sentence: str) -> None:
    """Print a sentence about what a command found to standard error."""
    messages.print(with_flags(sentence))


def warn(sentence: str) -> None:
    """Print a warning to standard error."""
    messages.print(f"warning: {with_flags(sentence)}", style="yellow")


def print_failure(reason: str) -> None:
    """Print to standard error why an image failed."""
    messages.print(f"failed: {with_flags(reason)}", style="red")
