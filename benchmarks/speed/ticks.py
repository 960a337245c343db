"""How long napari's window does not answer: the gaps between two ticks of a fast timer in its thread.

This module imports nothing that the docks import, so that a benchmark of their opening can use it.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from types import FrameType
from typing import NamedTuple

import numpy as np
from qtpy.QtCore import Qt, QTimer

TICK, LONG = 5, 200
"""Milliseconds between two ticks, and what a user feels as a stall."""
_SEEN = 100
"""Milliseconds after which what the window's thread does is looked at, and again every fifth of them."""
_OWN = "/src/napari_milcnn/"


class Gap(NamedTuple):
    """The time between two ticks.

    Attributes
    ----------
    ms : float
        How long it was.
    cpu_ms : float
        For how long of it the window's thread computed: on a machine that does other work, too, the rest is waiting.
    doing : str
        What was done last.
    """

    ms: float
    cpu_ms: float
    doing: str


class Ticks:
    """The gaps between two ticks, each with what was done last, as `doing` says."""

    def __init__(self) -> None:
        self.gaps: list[Gap] = []
        self.doing = ""
        self.last = self._cpu = 0.0
        self._timer = QTimer()
        self._timer.setTimerType(Qt.TimerType.PreciseTimer)
        self._timer.timeout.connect(self._tick)

    def start(self) -> None:
        """Begin to measure anew."""
        self.gaps = []
        self.pass_over()
        self._timer.start(TICK)

    def during(self, work: Callable[[], None]) -> np.ndarray:
        """Return the gaps in ms while something is done."""
        self.start()
        work()
        self._timer.stop()
        return np.array([gap.ms for gap in self.gaps])

    def pass_over(self) -> None:
        """Leave out the time since the last tick, which the benchmark took to look around."""
        self.last, self._cpu = time.perf_counter(), time.thread_time()

    def _tick(self) -> None:
        last, cpu = self.last, self._cpu
        self.pass_over()
        self.gaps.append(Gap(1000 * (self.last - last), 1000 * (self._cpu - cpu), self.doing))


class Causes(threading.Thread):
    """Looks at what the window's thread does in long gaps: by the start of the gap, which functions it was in."""

    def __init__(self, ticks: Ticks) -> None:
        super().__init__(daemon=True)
        self._ticks, self._window = ticks, threading.get_ident()
        self.seen: dict[str, Counter[str]] = {}
        self.over = threading.Event()

    def run(self) -> None:
        """Look on until it is over."""
        own = sys.getswitchinterval()
        while not self.over.wait(_SEEN / 5000):
            if time.perf_counter() - self._ticks.last > _SEEN / 1000:
                sys.setswitchinterval(60)  # Python 3.11 crashes if the other thread leaves a frame that is looked at
                time.sleep(0)
                place = place_of(sys._current_frames().get(self._window))
                sys.setswitchinterval(own)
                self.seen.setdefault(self._ticks.doing, Counter())[place] += 1

    def of(self, doing: str) -> str:
        """Say where most of the long gaps of an action passed; empty if it had none."""
        return self.seen[doing].most_common(1)[0][0] if doing in self.seen else ""


def place_of(frame: FrameType | None) -> str:
    """Name the innermost function of this package, and the innermost of all; of napari the outermost that it calls."""
    names = [name for name in _names(frame) if "/benchmarks/" not in name]
    own = next((name for name in names if _OWN in name), "")
    inside = names[: names.index(own)] if own else names
    napari = next((name for name in reversed(inside) if "/napari/" in name), "")
    parts = [own, napari, inside[0] if inside else ""]
    return " > ".join(dict.fromkeys(name.split("site-packages/")[-1].split(_OWN)[-1] for name in parts if name))


def _names(frame: FrameType | None) -> Iterator[str]:
    while frame is not None:
        yield f"{frame.f_code.co_filename} {frame.f_code.co_name}"
        frame = frame.f_back
