"""Tables that people write: CSV with any usual separator, read as text.

Decisions:

- The text is UTF-8, with or without a byte order mark. Other encodings and spreadsheets are refused, never guessed.
- The separator is the comma, semicolon or tab that divides the first line into the most cells.
- Lines without any text are left out, and spaces around a cell are dropped. Names of columns keep their case.
- What is wrong with a table is a `ValueError` of one sentence, and a file that cannot be read an `OSError`: the caller
  says whose table it is, in an error of its own.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

ENCODING = "utf-8-sig"
"""UTF-8 with or without a byte order mark, as Python calls it."""
TABLE_SUFFIXES = (".csv", ".tsv", ".txt")
"""Endings of the names of such tables."""
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_SEPARATORS = (",", ";", "\t")
_FOREIGN = ((b"PK", "a spreadsheet"), (b"\xd0\xcf\x11\xe0", "a spreadsheet"),
            (b"\xff\xfe", "UTF-16 text"), (b"\xfe\xff", "UTF-16 text"))  # fmt: skip
"""First bytes of files that people take for a CSV, and what these are."""
_SAVE_AS = "save it as 'CSV UTF-8'"


@dataclass(frozen=True)
class DelimitedTable:
    """A table as text.

    Attributes
    ----------
    columns : tuple of str
        Names of the columns, as they are written.
    rows : tuple of tuple of str
        The cells of each row that holds any text, one for each column.
    lines : tuple of int
        Number of the line of each row, from 1.
    separator : str
        The comma, semicolon or tab between two cells.
    encoding : str
        "utf-8-sig" with a byte order mark, "utf-8" without.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    lines: tuple[int, ...]
    separator: str
    encoding: str


def read_delimited(path: Path) -> DelimitedTable:
    """Read a table.

    Raises
    ------
    OSError
        The file cannot be read.
    ValueError
        As `parse_delimited` does.
    """
    return parse_delimited(path.read_bytes())


def parse_delimited(content: bytes) -> DelimitedTable:
    """Read a table from the bytes of its file.

    Raises
    ------
    ValueError
        The bytes are not UTF-8 text, the quotes of a cell do not end, there is no line with text, or a row has more
        cells than there are columns.
    """
    text = _text_of(content)
    separator = _separator(text.split("\n", 1)[0])
    (_, columns), *rows = _cells(text, separator) or [(0, ())]
    if not columns:
        raise ValueError("it is empty; expected a first line with the names of the columns")
    long = next((line for line, cells in rows if any(cells[len(columns) :])), None)
    if long is not None:
        raise ValueError(
            f"line {long} has more cells than the {len(columns)} columns; "
            f"a cell with a {separator!r} in it needs quotes"
        )
    gaps = ("",) * len(columns)
    return DelimitedTable(
        columns=columns,
        rows=tuple((*cells, *gaps)[: len(columns)] for _, cells in rows),
        lines=tuple(line for line, _ in rows),
        separator=separator,
        encoding=ENCODING if content.startswith(_BYTE_ORDER_MARK) else "utf-8",
    )


def column_names(path: Path) -> tuple[str, ...]:
    """Return the names of the columns of any text file that may be a table; only its first line is read."""
    with path.open(encoding=ENCODING, errors="replace") as lines:
        first = lines.readline()
    return tuple(cell.strip() for cell in _split(first, _separator(first)))


def split_labels(cell: str) -> tuple[str, ...]:
    """Return the labels of one cell, which stand between bars, each once: ("a", "b") for "a| b|a"."""
    return tuple(dict.fromkeys(name.strip() for name in cell.split("|") if name.strip()))


def _text_of(content: bytes) -> str:
    """Return the text with line ends of one kind, and without NUL, which no cell can hold."""
    for begin, kind in _FOREIGN:
        if content.startswith(begin):
            raise ValueError(f"it is {kind}; {_SAVE_AS}")
    try:
        return content.decode(ENCODING).replace("\r\n", "\n").replace("\r", "\n").replace("\0", "")
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not UTF-8 text ({error.reason} at byte {error.start}); {_SAVE_AS}") from error


def _separator(first_line: str) -> str:
    return max(_SEPARATORS, key=lambda separator: len(_split(first_line, separator)))


def _split(line: str, separator: str) -> list[str]:
    try:
        return next(csv.reader([line], delimiter=separator), [])
    except csv.Error:  # longer than any cell may be: no table
        return [line]


def _cells(text: str, separator: str) -> list[tuple[int, tuple[str, ...]]]:
    """Return number and cells of each line that holds any text."""
    reader = csv.reader(StringIO(text), delimiter=separator, strict=True)
    try:
        lines = [(reader.line_num, tuple(cell.strip() for cell in cells)) for cells in reader]
    except csv.Error as error:
        raise ValueError(f"{error} in line {reader.line_num}; check the quotes there") from error
    return [(number, cells) for number, cells in lines if any(cells)]
