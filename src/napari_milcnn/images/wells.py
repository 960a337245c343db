"""Names of wells as people and microscopes write them: B03, B3, r02c03, B/3.

Decisions:

- One list of ways to write a well serves two questions: which well a cell of a table names, and which well the name of
  a file has in it.
- A text that is nothing but a well may be in lower case, and may have a space or an underscore after its row.
- In the name of a file, rows Q to Z are tried last and need two digits, since T01, S01 and Z01 mostly number something
  else: a time, a site, a plane.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

PLATES = {24: (4, 6), 96: (8, 12), 384: (16, 24), 1536: (32, 48)}
"""Number of wells of a plate -> its rows and columns."""
_WAYS = (
    r"[rR](?P<row>\d{1,2})[cC](?P<column>\d{1,2})",  # r02c03
    r"(?P<row>[A-P])-?(?P<column>\d\d)",  # B03, B-03
    r"(?P<row>[A-P]|A[A-F])/(?P<column>\d{1,2})(?=/|$|_)",  # B/3, as in a path
    r"(?P<row>[A-P])-?(?P<column>\d)",  # B3
    r"(?P<row>[A-Z]|A[A-F])-?(?P<column>\d\d)",  # T01 and AA01, of plates of 1536 wells
)
"""Ways to write a well, in the order in which they are tried."""
_WHOLE_TEXT = tuple(map(re.compile, (*_WAYS, r"(?P<row>[A-Z]|A[A-F])[-/]?(?P<column>\d{1,2})")))
"""The ways for a text that is nothing but a well; the last one, such as T1, says too little inside a name."""
_IN_NAME = tuple(re.compile(rf"(?<![A-Za-z0-9]){way}(?!\d)") for way in _WAYS)
"""The ways inside the name of a file."""
_SAMPLE_SIZE = 500
"""Texts, evenly spread, by which the way of writing is chosen."""


class Well(NamedTuple):
    """A well by its row and column, from 0."""

    row: int
    column: int

    @property
    def name(self) -> str:
        """The name of the well, such as B03."""
        letters = chr(65 + self.row) if self.row < 26 else f"A{chr(65 + self.row - 26)}"
        return f"{letters}{self.column + 1:02}"


def parse_well(text: str) -> Well | None:
    """Read a text that is the name of a well and nothing else; None where it is not."""
    plain = re.sub(r"[\s_]", "-", text.strip().upper())
    return next((well for way in _WHOLE_TEXT if (found := way.fullmatch(plain)) and (well := _well(found))), None)


def well_name(text: str) -> str:
    """Return "B03" for "B03", "b3", "B/03" or "r02c03"; a text that is not a well stays as it is."""
    well = parse_well(text)
    return text if well is None else well.name


def wells_in(texts: Sequence[str]) -> list[Well | None]:
    """Find the well in each of some names of files; all are None where the files are not named by wells.

    The first way to write a well that more than half of the names follow is taken for all of them.
    """
    sample = texts[:: -(-len(texts) // _SAMPLE_SIZE)] if texts else []
    for way in range(len(_WAYS)):
        if sum(_inside(way, text) is not None for text in sample) > len(sample) / 2:
            return [_inside(way, text) for text in texts]
    return [None] * len(texts)


def _inside(way: int, text: str) -> Well | None:
    """Find the first well that is written in one way in a text, or the well that the whole text is."""
    found = next((well for match in _IN_NAME[way].finditer(text) if (well := _well(match))), None)
    if found is not None or way == len(_WAYS) - 1:
        return found
    whole = _WHOLE_TEXT[way].fullmatch(text.strip().upper())
    return None if whole is None else _well(whole)


def _well(found: re.Match[str]) -> Well | None:
    """Make a well of its row, as letters or a number from 1, and its column; None where no plate has such a well."""
    row, column = found["row"], int(found["column"])
    place = int(row) - 1 if row.isdigit() else ord(row[-1]) - 65 + 26 * (len(row) - 1)
    rows, columns = PLATES[1536]
    return Well(place, column - 1) if 0 <= place < rows and 0 < column <= columns else None


def plate_shape(wells: Sequence[Well]) -> tuple[int, int]:
    """Return rows and columns of the smallest plate that has all of these wells."""
    shapes = (shape for shape in PLATES.values() if all(w.row < shape[0] and w.column < shape[1] for w in wells))
    return next(shapes)
