"""Progress of a long job: the record that every generator of reports yields; and a generator that runs ahead."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeAlias, TypeVar

Yielded = TypeVar("Yielded")
Result = TypeVar("Result", covariant=True)
_TELLING_SHARE = 0.01
"""Share of a job that has to be done before the time for the rest can be told."""


@dataclass(frozen=True)
class Progress(Generic[Result]):
    """Progress of a job over several items, such as images, tiles or epochs.

    Attributes
    ----------
    number : int
        Number of finished items, which is also the index of the current item, from 0.
    total : int
        Number of all items.
    doing : str
        The current item, such as the name of an image.
    share : float
        Finished share of the current item, from 0 to 1.
    result : object or None
        The result that this step finished; None if it finished none.
    """

    number: int
    total: int
    doing: str = ""
    share: float = 0.0
    result: Result | None = None

    @property
    def fraction(self) -> float:
        """Finished share of the whole job, from 0 to 1."""
        return min((self.number + self.share) / self.total, 1.0) if self.total else 1.0


Steps: TypeAlias = Generator[Progress[Result], None, None]
"""A job that is done step by step as it is iterated over; closing it stops it and keeps what is finished."""


def run_ahead(items: Generator[Yielded, None, None], count: int) -> Generator[Yielded, None, None]:
    """Run a generator in a thread of its own, up to `count` items ahead of whoever takes them.

    The items keep their order, an error is raised where its item would have come, and closing closes the generator.
    """
    with ThreadPoolExecutor(1, "run_ahead") as pool:  # one thread, so that the items are made one after another
        waiting: deque[Future[Yielded]] = deque(pool.submit(next, items) for _ in range(count))
        try:
            while True:
                try:
                    item = waiting.popleft().result()
                except StopIteration:
                    return
                waiting.append(pool.submit(next, items))
                yield item
        finally:
            for future in waiting:
                future.cancel()
            pool.submit(items.close).result()


class TimeLeft:
    """How long the rest of a job will take, judging by what it has done since this was made.

    Parameters
    ----------
    share : float
        How much of the job was done then, from 0 to 1.
    clock : callable
        Returns the time in seconds.
    """

    def __init__(self, share: float = 0.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._share, self._began = clock, share, clock()

    @property
    def spent(self) -> float:
        """Seconds since this was made."""
        return self._clock() - self._began

    def left(self, share: float) -> float | None:
        """Return the seconds that the rest will take; None while too little is done to tell."""
        done = share - self._share
        return self.spent / done * (1 - share) if done > _TELLING_SHARE else None


def duration(seconds: float) -> str:
    """Write a time in seconds, or in minutes if it is 90 s or longer."""
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
