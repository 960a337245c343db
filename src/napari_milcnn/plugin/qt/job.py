"""Long jobs beside the window: the only file of the plugin that knows threads.

A job is a generator of reports. It runs in a thread of superqt's pool. Each report reaches the window's thread as one
signal, so that only that thread touches layers and widgets. Cancelling takes effect at the next report; everything
reported until then is kept. If the reports of a job lie minutes apart, as epochs do, the job passes a gate after each
small step: there it reports its progress, waits while it is paused, and learns that it has to stop.

superqt's generator worker ends silently after a `RuntimeError`, which torch raises for most of its failures. Such
errors are therefore translated inside the generator.

A computation that uses every core must not starve the window. The thread of a job therefore gets a lower priority, as
do the threads that torch starts from it. Only Linux can lower the priority of a single thread.
"""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol
from weakref import WeakSet

from psygnal import SignalInstance
from qtpy.QtCore import QObject, QThreadPool, Signal
from superqt.utils import create_worker

from napari_milcnn.errors import ComputeError, MilcnnError
from napari_milcnn.plugin.qt.forms import there

logger = logging.getLogger(__name__)
_REPORT_INTERVAL = 0.1
"""Shortest time between two reports at a gate, in s."""
_NICENESS = 5
"""Added to the nice value of the process for a job's thread."""
_LAST_WAIT = 10_000
"""Longest time, in ms, that Python waits at its end for the threads of jobs: what they use must outlive them."""
_GATES: WeakSet[Gate] = WeakSet()
"""The gates of all jobs, to be stopped when Python ends."""


@dataclass(frozen=True)
class Ending:
    """How a job ended.

    Attributes
    ----------
    error : str
        A sentence that says why the job failed; empty if it did not.
    stopped : bool
        Whether the user stopped the job.
    """

    error: str = ""
    stopped: bool = False


class Gate(QObject):
    """Where a job reports its progress, waits while it is paused, and learns that it has to stop.

    The window makes the gate; the job passes it in its own thread.
    """

    reported = Signal(object)

    def __init__(self) -> None:
        super().__init__()
        self._open = threading.Event()
        self._open.set()
        self._stopped = False
        self._next_report = 0.0

    def passes(self, report: Any) -> bool:
        """Report progress, but only a few times a second; wait while paused; return whether to continue."""
        if time.monotonic() > self._next_report:
            self.reported.emit(report)
            self._next_report = time.monotonic() + _REPORT_INTERVAL
        self._open.wait()
        return not self._stopped

    @property
    def paused(self) -> bool:
        """Whether the job waits at the gate, or will wait at its next step."""
        return not self._open.is_set()

    @property
    def stopped(self) -> bool:
        """Whether the job has to end."""
        return self._stopped

    def pause(self) -> None:
        """Make the job wait at its next step."""
        self._open.clear()

    def resume(self) -> None:
        """Let a paused job continue."""
        self._open.set()

    def stop(self) -> None:
        """Make the job end at its next step, even if it is paused."""
        self._stopped = True
        self._open.set()


class Job(QObject):
    """A generator of reports that runs in a thread.

    Parameters
    ----------
    steps : callable
        Returns the generator; called in the thread.
    parent : QObject
        The job stops when its parent is destroyed.
    on_step, on_end : callable
        Called in the window's thread: `on_step` with each report, `on_end` once with the `Ending`.
    gate : Gate, optional
        The gate that the generator passes between its reports. What it reports there also goes to `on_step`.
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
        _GATES.add(self._gate)
        self._error, self._stopped = "", False
        self.stepped.connect(on_step)
        self.ended.connect(on_end)
        self._worker = create_worker(_translated_steps, steps, self._gate, _start_thread=False, _ignore_errors=True)
        self._worker.yielded.connect(self._on_step)
        self._worker.errored.connect(self._on_error)
        self._worker.finished.connect(self._on_finish)
        parent.destroyed.connect(self._gate.stop)
        self._worker.start()

    def stop(self) -> None:
        """End the job at its next report."""
        self._stopped = True
        self._gate.stop()

    def pause(self, paused: bool) -> None:
        """Let the job wait at its next step, or go on."""
        if paused:
            self._gate.pause()
        else:
            self._gate.resume()

    def abandon(self) -> None:
        """Stop the job and call neither `on_step` nor `on_end` any more: nobody waits for its result."""
        self.stop()
        self.stepped.disconnect()
        self.ended.disconnect()

    def _on_step(self, report: Any) -> None:
        self.stepped.emit(report)

    def _on_error(self, error: BaseException) -> None:
        self._error = _error_text(error)

    def _on_finish(self, _nothing: None = None) -> None:
        self.ended.emit(Ending(self._error, self._stopped))
        self.deleteLater()


class JobRequest(Protocol):
    """A frozen request: what a job needs to know, and its steps, which run in a thread.

    If reports lie minutes apart, it has `gated_steps(passes)` in place of `steps()`, and calls `passes` as
    `Gate.passes` between them.
    """

    def steps(self) -> Iterator[Any]:
        """Yield what comes of the request."""


class AskingSession(Protocol):
    """A session that asks for jobs: it is handed what each request yields, and then how it ended.

    Where it has them, its signals `withdrawn` and `stop_requested` (a request) and `pause_requested` (a request, and
    whether it is to wait) are followed.
    """

    @property
    def requested(self) -> SignalInstance:
        """A request is to be worked off."""

    def take(self, request: Any, step: Any) -> None:
        """Take what a request yielded."""

    def end(self, request: Any, error: str = "", *, stopped: bool = False) -> None:
        """Notice that a request has ended."""


class SessionJobs(QObject):
    """Works off in threads what a session asks for, and hands the session what came of it.

    Signals
    -------
    ended : JobRequest
        A request has ended, and the session knows.
    """

    ended = Signal(object)

    def __init__(self, session: AskingSession, parent: QObject) -> None:
        super().__init__(parent)
        self._session = session
        self._running: dict[int, tuple[Any, Job]] = {}
        session.requested.connect(self._start)
        for name, slot in (
            ("withdrawn", self._abandon), ("stop_requested", self._stop), ("pause_requested", self._pause),
        ):  # fmt: skip
            if hasattr(session, name):
                getattr(session, name).connect(slot)

    @property
    def requests(self) -> tuple[Any, ...]:
        """The requests under way."""
        return tuple(request for request, _ in self._running.values())

    def _start(self, request: Any) -> None:
        def on_step(step: Any) -> None:
            self._session.take(request, step)

        def on_end(ending: Ending) -> None:
            self._running.pop(id(request), None)
            self._session.end(request, ending.error, stopped=ending.stopped)
            self.ended.emit(request)

        gate = Gate()
        gated = getattr(request, "gated_steps", None)
        steps = request.steps if gated is None else partial(gated, gate.passes)
        self._running[id(request)] = request, Job(steps, self, on_step, on_end, gate)

    def _abandon(self, request: Any) -> None:
        if id(request) in self._running:
            self._running.pop(id(request))[1].abandon()

    def _stop(self, request: Any) -> None:
        if id(request) in self._running:
            self._running[id(request)][1].stop()

    def _pause(self, request: Any, paused: bool) -> None:
        if id(request) in self._running:
            self._running[id(request)][1].pause(paused)


def _translated_steps(steps: Callable[[], Iterator[Any]], gate: Gate) -> Iterator[Any]:
    """Pass the reports on until the gate is stopped, translate errors, and close the generator in this thread."""
    _lower_priority()
    generator = steps()
    try:
        for report in generator:
            yield report
            if gate.stopped:
                return
    except MemoryError as error:
        raise ComputeError(
            "memory ran out; close other programs, or choose a smaller tile, patch or batch size in the options"
        ) from error
    except RuntimeError as error:
        raise ComputeError(
            f"computing failed: {error}; choose the device 'cpu' in the options and try again"
        ) from error
    finally:
        if isinstance(generator, Generator):
            generator.close()


@atexit.register
def _end_jobs() -> None:
    """Stop the jobs that are left when Python ends, and wait for their threads."""
    for gate in list(_GATES):
        gate.stop()
    there(QThreadPool.globalInstance()).waitForDone(_LAST_WAIT)


def _lower_priority() -> None:
    """Let the window's thread run before this one."""
    if sys.platform == "linux":
        own = os.getpriority(os.PRIO_PROCESS, os.getpid())
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), min(own + _NICENESS, 19))


def _error_text(error: BaseException) -> str:
    """Return an error as a sentence for the user; an unexpected one is logged with its traceback."""
    if isinstance(error, MilcnnError):
        return str(error)
    if isinstance(error, OSError):
        return f"{error.filename or 'a file'}: {error.strerror or error}"
    logger.error("a job failed", exc_info=error)
    return (
        f"{type(error).__name__}: {error}. This is a bug in the plugin: please report it with the details in the log."
    )
