"""How long napari's window does not answer: the gaps between two ticks of a fast timer in its thread.

This module imports nothing that the docks import, so that a benchmark of their opening can use it.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from qtpy.QtCore import Qt, QTimer

TICK, LONG = 5, 200
"""Milliseconds between two ticks, and what a user feels as a stall."""


class Ticks:
    """The gaps between two ticks, in ms, each with what was done last, as `doing` says."""

    def __init__(self) -> None:
        self.gaps: list[tuple[float, str]] = []
        self.doing = ""
        self._last = 0.0
        self._timer = QTimer()
        self._timer.setTimerType(Qt.TimerType.PreciseTimer)
        self._timer.timeout.connect(self._tick)

    def start(self) -> None:
        """Begin to measure anew."""
        self.gaps, self._last = [], time.perf_counter()
        self._timer.start(TICK)

    def during(self, work: Callable[[], None]) -> np.ndarray:
        """Return the gaps while something is done."""
        self.start()
        work()
        self._timer.stop()
        return np.array([gap for gap, _ in self.gaps])

    def pass_over(self) -> None:
        """Leave out the time since the last tick, which the benchmark took to look around."""
        self._last = time.perf_counter()

    def _tick(self) -> None:
        now = time.perf_counter()
        self.gaps.append((1000 * (now - self._last), self.doing))
        self._last = now
