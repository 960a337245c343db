"""Progress of a long job: the record that every generator of reports yields."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Generic, TypeAlias, TypeVar

Result = TypeVar("Result", covariant=True)


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
