"""What a dock has to say: each notice belongs to its cause, and goes when the cause is done again or is gone."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from psygnal import Signal


class Level(Enum):
    """How serious a notice is."""

    NOTE = "note"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True)
class Notice:
    """A sentence for the user.

    Attributes
    ----------
    cause : str
        What it comes from, such as "run" or "export".
    text : str
        One line.
    level : Level
        How serious it is.
    about : int or None
        Number of the image that it is about; None if it is about no image, or about several.
    """

    cause: str
    text: str
    level: Level = Level.NOTE
    about: int | None = None


@dataclass(frozen=True)
class Question:
    """What is asked before something is lost, and the words of the two answers."""

    text: str
    yes: str
    no: str


class Notices:
    """The notices that hold now, in the order in which they came.

    Attributes
    ----------
    changed : Signal
        Emitted after each change.
    """

    changed = Signal()

    def __init__(self) -> None:
        self.all: tuple[Notice, ...] = ()

    def say(self, cause: str, text: str, level: Level = Level.NOTE, about: int | None = None) -> None:
        """Add a notice, unless it holds already."""
        notice = Notice(cause, text, level, about)
        if text and notice not in self.all:
            self.all = (*self.all, notice)
            self.changed.emit()

    def clear(self, *causes: str) -> None:
        """Drop the notices of some causes."""
        self._keep(tuple(one for one in self.all if one.cause not in causes))

    def forget(self, about: int) -> None:
        """Drop the notices about an image that is gone."""
        self._keep(tuple(one for one in self.all if one.about != about))

    def of(self, cause: str) -> list[str]:
        """Return the sentences of a cause."""
        return [one.text for one in self.all if one.cause == cause]

    def _keep(self, kept: tuple[Notice, ...]) -> None:
        if kept != self.all:
            self.all = kept
            self.changed.emit()


def as_sentence(text: str, where: str = "") -> str:
    """Write a fact with a capital and a full stop."""
    return f"{text[0].upper()}{text[1:].rstrip('.')}{where}."
