"""Names of wells as people and microscopes write them: B03, B3, r02c03, B/3."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

PLATES = {24: (4, 6), 96: (8, 12), 384: (16, 24), 1536: (32, 48)}
"""Number of wells of a plate -> its rows and columns."""
_PATTERNS = tuple(map(re.compile, (
    r"(?i)(?<![a-z0-9])r(?P<r>\d{1,2})c(?P<c>\d{1,2})(?!\d)",
    r"(?<![A-Za-z0-9])(?P<r>[A-P])-?(?P<c>\d\d)(?!\d)",
    r"(?<![A-Za-z0-9])(?P<r>[A-P])/(?P<c>\d{1,2})(?=/|$|_)",
    r"(?<![A-Za-z0-9])(?P<r>[A-P])-?(?P<c>\d)(?!\d)",
    r"(?<![A-Za-z0-9])(?P<r>[A-Z]|A[A-F])-?(?P<c>\d\d)(?!\d)",
)))  # fmt: skip
"""Tried in turn; letters beyond P, of plates of 1536 wells, come last, since T01, S01 and Z01 mostly number something
else."""
_TRIED = 500
"""Texts, evenly spread, by which the way of writing is chosen."""
_ALONE = re.compile(r"(?i)\s*(?:r(?P<r>\d{1,2})c(?P<c>\d{1,2})|(?P<letters>[A-Z]|A[A-F])[-_/ ]?(?P<number>\d{1,2}))\s*")


class Well(NamedTuple):
    """A well by its row and column, from 0."""

    row: int
    column: int

    @property
    def name(self) -> str:
        """Its name, such as B03."""
        letters = chr(65 + self.row) if self.row < 26 else f"A{chr(65 + self.row - 26)}"
        return f"{letters}{self.column + 1:02}"


def parse_well(text: str) -> Well | None:
    """Read a text that is the name of a well and nothing else; None where it is not."""
    found = _ALONE.fullmatch(text)
    if found is None:
        return None
    return _well(found["r"] or found["letters"].upper(), found["c"] or found["number"])


def wells_in(texts: Sequence[str]) -> list[Well | None]:
    """Find the well in each of some names of files; all None where they are not named by wells.

    The first way to write a well that more than half of the texts follow is taken for all of them.
    """
    some = texts[:: -(-len(texts) // _TRIED)] if texts else []
    for pattern in _PATTERNS:
        if sum(_first(pattern, text) is not None for text in some) > len(some) / 2:
            return [_first(pattern, text) for text in texts]
    return [None] * len(texts)


def _first(pattern: re.Pattern[str], text: str) -> Well | None:
    return next((well for match in pattern.finditer(text) if (well := _well(match["r"], match["c"]))), None)


def _well(row: str, column: str) -> Well | None:
    """Make a well of its row, as letters or a number from 1, and its column; None where no plate has it."""
    place = int(row) - 1 if row.isdigit() else ord(row[-1]) - 65 + 26 * (len(row) - 1)
    rows, columns = PLATES[1536]
    return Well(place, int(column) - 1) if 0 <= place < rows and 0 < int(column) <= columns else None


def plate_shape(wells: Sequence[Well]) -> tuple[int, int]:
    """Return rows and columns of the smallest plate that has all of these wells."""
    shapes = (shape for shape in PLATES.values() if all(w.row < shape[0] and w.column < shape[1] for w in wells))
    return next(shapes)
