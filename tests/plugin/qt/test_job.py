"""Jobs report, fail, stop and close in the way that docks rely on."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
import time

import pytest
from psygnal import Signal
from qtpy.QtCore import QObject

from napari_milcnn.errors import ImageError
from napari_milcnn.plugin.qt.job import Ending, Job, SessionJobs

pytest.importorskip("napari")


def ending_of(qtbot, steps) -> tuple[list, Ending]:
    """Run a job to its end; return its reports and its ending."""
    reports, endings, parent = [], [], QObject()
    Job(steps, parent, reports.append, endings.append)
    qtbot.waitUntil(lambda: bool(endings))
    (ending,) = endings
    return reports, ending


def test_reports_are_made_in_a_thread_and_arrive_in_the_window(qtbot):
    """The generator runs in another thread; `on_step` runs in this one."""
    parent, threads, done = QObject(), [], []

    def steps():
        yield threading.get_ident()

    Job(steps, parent, lambda made_in: threads.append((made_in, threading.get_ident())), done.append)
    qtbot.waitUntil(lambda: bool(done))
    ((made_in, arrived_in),) = threads
    assert arrived_in == threading.get_ident() != made_in
    assert done == [Ending()]


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ImageError("a.tif is empty"), "a.tif is empty"),
        (MemoryError(), "memory ran out; close other programs, or choose a smaller tile"),
        (RuntimeError("no kernel"), "computing failed: no kernel; choose the device 'cpu'"),
        (FileNotFoundError(2, "No such file", "b.tif"), "b.tif: No such file"),
        (KeyError("x"), "KeyError: 'x'. This is a bug in the plugin: please report it"),
    ],
)
def test_errors_end_as_sentences_after_what_was_reported(qtbot, caplog, error, message):
    """What was reported before an error stays; only an unexpected error is logged."""

    def steps():
        yield 1
        raise error

    with caplog.at_level(logging.ERROR):
        reports, ending = ending_of(qtbot, steps)
    assert reports == [1]
    assert ending.error.startswith(message)
    assert not ending.stopped
    assert bool(caplog.records) == isinstance(error, KeyError)


def test_a_job_that_is_stopped_is_closed_before_it_ends(qtbot):
    """The job closes its files and processes in its own thread, before `on_end` is called."""
    events = []

    def steps():
        try:
            while True:
                yield 1
        finally:
            events.append("closed")

    parent = QObject()
    job = Job(steps, parent, lambda _: job.stop(), lambda ending: events.append(ending.stopped))
    qtbot.waitUntil(lambda: len(events) == 2)
    assert events == ["closed", True]


def test_an_abandoned_job_closes_and_calls_nobody(qtbot):
    """After `abandon` the generator is closed, and neither a report nor the end arrives."""
    closed, calls, parent = threading.Event(), [], QObject()
    reached = threading.Event()

    def steps():
        try:
            while True:
                reached.set()
                yield 1
        finally:
            closed.set()

    job = Job(steps, parent, calls.append, calls.append)
    assert reached.wait(30)  # no event was processed yet, so no report has arrived
    job.abandon()
    qtbot.waitUntil(closed.is_set)
    qtbot.wait(200)
    assert calls == []


ENDS = """
import time
from qtpy.QtCore import QObject
from qtpy.QtWidgets import QApplication
from napari_milcnn.plugin.qt.job import Job
application, parent = QApplication([]), QObject()

def steps():
    while True:
        yield
        time.sleep(0.01)

Job(steps, parent, print, print)
time.sleep(0.1)
"""


def test_python_ends_quietly_while_a_job_runs():
    ran = subprocess.run([sys.executable, "-c", ENDS], capture_output=True, text=True, check=True)
    assert ran.stderr == ""


class Asking:
    """A session that asks for jobs, and keeps what it hears of them."""

    requested, withdrawn = Signal(object), Signal(object)
    stop_requested, pause_requested = Signal(object), Signal(object, bool)

    def __init__(self) -> None:
        self.steps, self.ends = [], []

    def take(self, request, step) -> None:
        """Keep a step."""
        self.steps.append((request, step))

    def end(self, request, error="", *, stopped=False) -> None:
        """Keep an end."""
        self.ends.append((request, error, stopped))


class Counting:
    """A request that yields numbers until it is stopped; `gated` passes the gate between them."""

    def __init__(self, most: int) -> None:
        self.most, self.count = most, 0

    def steps(self):
        """Yield the numbers."""
        while self.count < self.most:
            self.count += 1
            yield self.count
            time.sleep(0.001)


class Gated(Counting):
    """Counts, and says so at a gate."""

    def gated_steps(self, passes):
        """Yield the last number."""
        while self.count < self.most:
            self.count += 1
            time.sleep(0.001)
            if not passes(f"at {self.count}"):
                return
        yield self.count


def test_a_session_hears_of_each_of_its_requests(qtbot):
    session, parent = Asking(), QObject()
    jobs, ended = SessionJobs(session, parent), []
    jobs.ended.connect(ended.append)
    short, endless, withdrawn = Counting(2), Counting(10**6), Counting(10**6)
    for request in (short, endless, withdrawn):
        session.requested.emit(request)
    assert jobs.requests == (short, endless, withdrawn)
    session.withdrawn.emit(withdrawn)
    qtbot.waitUntil(lambda: (short, "", False) in session.ends and endless.count > 2)
    assert [step for request, step in session.steps if request is short] == [1, 2]
    session.stop_requested.emit(endless)
    session.stop_requested.emit(short)  # which has ended
    qtbot.waitUntil(lambda: len(session.ends) == 2)
    assert session.ends[-1] == (endless, "", True)
    assert ended == [short, endless]
    assert jobs.requests == ()


def test_a_request_with_a_gate_reports_there_waits_and_stops(qtbot):
    session, parent, request = Asking(), QObject(), Gated(10**6)
    jobs = SessionJobs(session, parent)
    session.requested.emit(request)
    qtbot.waitUntil(lambda: bool(session.steps))
    assert session.steps[0][1].startswith("at ")
    session.pause_requested.emit(request, True)
    qtbot.wait(50)
    before = request.count
    qtbot.wait(50)
    assert request.count == before
    session.pause_requested.emit(request, False)
    qtbot.waitUntil(lambda: request.count > before)
    session.stop_requested.emit(request)
    qtbot.waitUntil(lambda: session.ends == [(request, "", True)])
    assert jobs.requests == ()
