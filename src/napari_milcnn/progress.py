"""How far a long job has come: the one record that every generator of reports yields."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

Result = TypeVar("Result", covariant=True)


@dataclass(frozen=True)
class Progress(Generic[Result]):
    """How far a job over several items (images, tiles, epochs) has come.

    Attributes
    ----------
    number : int
        Items that are finished, which is also the number of the item under way, from 0.
    total : int
        Items in all.
    doing : str
        What is under way, such as the name of an image.
    share : float
        How much of the item under way is done, from 0 to 1.
    result : object or None
        What was finished with this step.
    """

    number: int
    total: int
    doing: str = ""
    share: float = 0.0
    result: Result | None = None

    @property
    def fraction(self) -> float:
        """How much of the whole job is done, from 0 to 1."""
        return min((self.number + self.share) / self.total, 1.0) if self.total else 1.0
