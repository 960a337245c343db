"""Ctrl-C between two steps of a job, where nothing is half done."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def interrupt_between_steps() -> Iterator[Callable[[], None]]:
    """Hold Ctrl-C back until the function that this yields is called, which then raises `KeyboardInterrupt`.

    A second Ctrl-C takes effect at once. Without this, the exception may be raised anywhere: between two tables that
    belong together, or in a destructor or the callback of a weak reference, where Python prints and drops it, so that
    the job goes on (docs.python.org/3/library/signal.html, "Note on Signal Handlers and Exceptions").
    """
    usual = signal.getsignal(signal.SIGINT)
    if usual is not signal.default_int_handler or threading.current_thread() is not threading.main_thread():
        yield lambda: None  # someone else decides what Ctrl-C does here
        return
    pressed = False

    def hold(_signal: int, _frame: FrameType | None) -> None:
        nonlocal pressed
        pressed = True
        signal.signal(signal.SIGINT, usual)
        os.write(2, b"\nstopping after this step; press Ctrl-C again to stop at once\n")  # print() may be interrupted

    def check() -> None:
        if pressed:
            raise KeyboardInterrupt

    signal.signal(signal.SIGINT, hold)
    try:
        yield check
    finally:
        signal.signal(signal.SIGINT, usual)
