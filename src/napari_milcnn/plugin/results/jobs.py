"""Works off in threads what a session asks for, and hands the session what came of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

from psygnal import SignalInstance
from qtpy.QtCore import QObject

from napari_milcnn.plugin.qt.job import Ending, Job


class JobRequest(Protocol):
    """A frozen request: what a job needs to know, and its steps, which run in a thread."""

    def steps(self) -> Iterator[Any]:
        """Yield what comes of the request."""


class AskingSession(Protocol):
    """A session that asks for jobs: it is handed what each request yields, and then how it ended."""

    @property
    def requested(self) -> SignalInstance:
        """A request is to be worked off."""

    @property
    def withdrawn(self) -> SignalInstance:
        """Nobody waits for a request any more."""

    def take(self, request: Any, step: Any) -> None:
        """Take what a request yielded."""

    def end(self, request: Any, error: str = "", *, stopped: bool = False) -> None:
        """Notice that a request has ended."""


class SessionJobs(QObject):
    """The jobs of one session."""

    def __init__(self, session: AskingSession, parent: QObject) -> None:
        super().__init__(parent)
        self._session = session
        self._running: dict[int, Job] = {}
        session.requested.connect(self._start)
        session.withdrawn.connect(self._abandon)

    def stop(self, request: JobRequest) -> None:
        """End a job at its next step; the session is told when it has ended."""
        if id(request) in self._running:
            self._running[id(request)].stop()

    def _start(self, request: JobRequest) -> None:
        def on_end(ending: Ending) -> None:
            self._running.pop(id(request), None)
            self._session.end(request, ending.error, stopped=ending.stopped)

        def on_step(step: Any) -> None:
            self._session.take(request, step)

        self._running[id(request)] = Job(request.steps, self, on_step, on_end)

    def _abandon(self, request: JobRequest) -> None:
        job = self._running.pop(id(request), None)
        if job is not None:
            job.abandon()
