"""Tables that people write: CSV with any usual separator, read as text.

Decisions:

- The text is UTF-8, with or without a byte order mark. Other encodings and spreadsheets are refused, never guessed.
- The separator is the comma, semicolon or tab that divides the first line into the most cells. A first line such as
  `sep=;`, which Excel writes and reads, names it instead, and may name any other sign.
- Lines without any text are left out, and spaces around a cell are dropped. Names of columns keep their case.
- A table larger than 256 MiB is no table that people write; neither is a pipe or a device.
- Labels are compared in the composed form of Unicode (NFC): a name with an accent from a Mac is the same label.
- What is wrong with a table is a `ValueError` of one sentence, and a file that cannot be read an `OSError`. Who needs
  the table turns them into an error of its own (`table_of`).
"""

from __future__ import annotations

import csv
import re
import unicodedata
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

from napari_milcnn.errors import MilcnnError
from napari_milcnn.untrusted import read_regular, unguarded_cell

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
_NAMED_SEPARATOR = re.compile(r"\"?sep=(.?)\"?[,; \t]*", re.IGNORECASE)
"""A first line that names the separator, with what a program may have added to it, or taken away."""
_LARGEST = 256 * 2**20
"""Bytes of the largest table; a million images have 200 MB."""
_LONGEST_LINE = 2**20
"""Bytes of the longest line of names of columns."""


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
        The comma, semicolon, tab or other sign between two cells.
    encoding : str
        "utf-8-sig" with a byte order mark, "utf-8" without.
    names_separator : bool
        Whether the first line names the separator, as in `sep=;`.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    lines: tuple[int, ...]
    separator: str
    encoding: str
    names_separator: bool = False


def read_delimited(path: Path) -> DelimitedTable:
    """Read a table.

    Raises
    ------
    OSError
        The file cannot be read, is a pipe or a device, or is too large.
    ValueError
        As `parse_delimited` does.
    """
    return parse_delimited(read_regular(path, _LARGEST))


def table_of(path: Path, expected: str, error: type[MilcnnError]) -> DelimitedTable:
    """Read a table, and say what is wrong with it in an error of a kind.

    Parameters
    ----------
    path : Path
        The table.
    expected : str
        What it should be, such as "a CSV with the columns file and label".
    error : type
        The kind of error that is raised if it is not there, cannot be read, or is no table.
    """
    try:
        return read_delimited(path)
    except FileNotFoundError as found:
        raise error(f"{path} does not exist; expected {expected}") from found
    except OSError as found:
        raise error(f"{path} cannot be read ({found.strerror or found}); expected {expected}") from found
    except ValueError as found:
        raise error(f"{path} cannot be read as a CSV: {found}; expected {expected}") from found


def parse_delimited(content: bytes) -> DelimitedTable:
    """Read a table from the bytes of its file.

    Raises
    ------
    ValueError
        The bytes are not UTF-8 text, the quotes of a cell do not end, there is no line with text, or a row has more
        cells than there are columns.
    """
    text = _text_of(content)
    first, _, rest = text.partition("\n")
    named = _NAMED_SEPARATOR.fullmatch(first)
    header = rest.split("\n", 1)[0] if named else first
    separator = (named[1] if named else "") or _separator(header)
    cells = _cells(rest, separator, lines_before=1) if named else _cells(text, separator)
    (_, columns), *rows = cells or [(0, ())]
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
        names_separator=named is not None,
    )


def column_names(path: Path) -> tuple[str, ...]:
    """Return the names of the columns of any file that may be a table; only its first line or two are read.

    What is not a file has no columns.

    Raises
    ------
    OSError
        The file cannot be read.
    """
    if not path.is_file():
        return ()
    with path.open(encoding=ENCODING, errors="replace") as lines:
        first = lines.readline(_LONGEST_LINE)
        named = _NAMED_SEPARATOR.fullmatch(first.rstrip("\n"))
        first = lines.readline(_LONGEST_LINE) if named else first
    return tuple(
        unguarded_cell(cell.strip()) for cell in _split(first, (named[1] if named else "") or _separator(first))
    )


def split_labels(cell: str) -> tuple[str, ...]:
    """Return the labels of one cell, which stand between bars, each once: ("a", "b") for "a| b|a"."""
    composed = unicodedata.normalize("NFC", cell)
    return tuple(dict.fromkeys(name.strip() for name in composed.split("|") if name.strip()))


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


def _cells(text: str, separator: str, lines_before: int = 0) -> list[tuple[int, tuple[str, ...]]]:
    """Return number and cells of each line that holds any text."""
    reader = csv.reader(StringIO(text), delimiter=separator, strict=True)
    try:
        lines = [
            (lines_before + reader.line_num, tuple(unguarded_cell(cell.strip()) for cell in cells)) for cells in reader
        ]
    except csv.Error as error:
        raise ValueError(f"{error} in line {lines_before + reader.line_num}; check the quotes there") from error
    return [(number, cells) for number, cells in lines if any(cells)]
