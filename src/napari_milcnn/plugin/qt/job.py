"""Long jobs beside the window: the one file that knows threads.

A job is a generator of reports. It runs in a thread of superqt's pool; its reports arrive in the window's thread, one
signal each, so that layers and widgets are touched there alone. Cancelling takes effect at the next report, and what
was reported until then is kept. A job whose reports lie minutes apart, as epochs do, has a gate between its small
steps: there it says how far it is, waits while it is paused, and learns that it is to stop.

superqt's generator worker ends without a word on a `RuntimeError`, which torch raises for most of its failures: they
are translated inside the generator.

Where the computing takes every core, the window has to go first: a job's thread is made nicer, and with it those that
torch starts from it. Only Linux lets a thread be nicer than its process.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Any

from qtpy.QtCore import QObject, Signal
from superqt.utils import create_worker

from napari_milcnn.errors import ComputeError, MilcnnError

logger = logging.getLogger(__name__)
_OFTEN = 0.1
"""Seconds between two reports at a gate."""
_NICER = 5


@dataclass(frozen=True)
class Ending:
    """How a job ended: with an error in words, or stopped by the user, or neither: all done."""

    error: str = ""
    stopped: bool = False


class Gate(QObject):
    """What a job passes at every small step; made by the window, passed in the thread."""

    reported = Signal(object)

    def __init__(self) -> None:
        super().__init__()
        self._open = threading.Event()
        self._open.set()
        self._stopped = False
        self._due = 0.0

    def passes(self, report: Any) -> bool:
        """Report, a few times a second at most; wait while paused; return whether to go on."""
        if time.monotonic() > self._due:
            self.reported.emit(report)
            self._due = time.monotonic() + _OFTEN
        self._open.wait()
        return not self._stopped

    @property
    def paused(self) -> bool:
        """Whether the job waits here, or will at its next step."""
        return not self._open.is_set()

    @property
    def stopped(self) -> bool:
        """Whether the job is to end."""
        return self._stopped

    def pause(self) -> None:
        """Let the job wait at its next step."""
        self._open.clear()

    def go_on(self) -> None:
        """Let a paused job go on."""
        self._open.set()

    def stop(self) -> None:
        """Let the job end at its next step, also a paused one."""
        self._stopped = True
        self._open.set()


class Job(QObject):
    """A generator of reports at work in a thread.

    Parameters
    ----------
    steps : callable
        Makes the generator; called in the thread.
    parent : QObject
        When it is destroyed the job is stopped.
    on_step, on_end : callable
        Called in the window's thread with each report, and once with the `Ending`.
    gate : Gate, optional
        What the generator passes between its reports; what it reports there goes to `on_step` as well.
    """

    stepped = Signal(object)
    ended = Signal(object)

    def __init__(
        self,
        steps: Callable[[], Iterator[Any]],
        parent: QObject,
        on_step: Callable[[Any], None],
        on_end: Callable[[Ending], None],
        gate: Gate | None = None,
    ) -> None:
        super().__init__(parent)
        self._gate = gate or Gate()
        self._gate.reported.connect(self._on_step)
        self._error, self._stopped = "", False
        self.stepped.connect(on_step)
        self.ended.connect(on_end)
        self._worker = create_worker(_translated, steps, self._gate, _start_thread=False, _ignore_errors=True)
        self._worker.yielded.connect(self._on_step)
        self._worker.errored.connect(self._on_error)
        self._worker.finished.connect(self._on_finish)
        parent.destroyed.connect(self._gate.stop)
        self._worker.start()

    def stop(self) -> None:
        """Leave the job at its next report."""
        self._stopped = True
        self._gate.stop()

    def _on_step(self, report: Any) -> None:
        self.stepped.emit(report)

    def _on_error(self, error: BaseException) -> None:
        self._error = _in_words(error)

    def _on_finish(self) -> None:
        self.ended.emit(Ending(self._error, self._stopped))
        self.deleteLater()


def _translated(steps: Callable[[], Iterator[Any]], gate: Gate) -> Iterator[Any]:
    """Pass the reports on until the gate is stopped; the generator is then closed here, in its thread."""
    _be_nice()
    generator = steps()
    try:
        for report in generator:
            yield report
            if gate.stopped:
                return
    except MemoryError as error:
        raise ComputeError(
            "memory ran out; close other programs, or choose a smaller tile, patch or batch under Options"
        ) from error
    except RuntimeError as error:
        raise ComputeError(f"computing failed: {error}; choose the device 'cpu' under Options and try again") from error
    finally:
        if isinstance(generator, Generator):
            generator.close()


def _be_nice() -> None:
    """Let the window's thread go before this one."""
    if sys.platform == "linux":
        own = os.getpriority(os.PRIO_PROCESS, os.getpid())
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), min(own + _NICER, 19))


def _in_words(error: BaseException) -> str:
    if isinstance(error, MilcnnError):
        return str(error)
    if isinstance(error, OSError):
        return f"{error.filename or 'a file'}: {error.strerror or error}"
    logger.error("a job failed", exc_info=error)
    return f"{type(error).__name__}: {error}. This is a fault of the plugin; the log has the details: please report it."
