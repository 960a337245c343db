r"""What comes from files of strangers: names and texts that are shown, cells of tables, and files of any size.

Decisions:

- One rule for names of classes, channels, groups and wells (`name_fault`): a name is one line of visible text of at
  most `LONGEST_NAME` letters. Control characters, half surrogates, and characters that reverse the direction of the
  text or cannot be seen are refused, except the two joiners that some scripts need.
- Text that is only shown, such as the name of a file or a warning, is never refused. `visible` writes the same
  characters as escapes, such as \x1b.
- A spreadsheet runs a cell that begins with =, +, -, @ or a tab. Tables that we write have an apostrophe before such a
  text (`guarded_cell`), and our readers take it away again (`unguarded_cell`), so the text that is read is the same.
- A file is read whole only if it is a regular file below a limit: a pipe or a device may have no end.
"""

from __future__ import annotations

import json
import os
import re
import stat
import unicodedata
from pathlib import Path

LONGEST_NAME = 200
"""Most letters in the name of a class, a channel, a group or a well."""
LARGEST_JSON = 64 << 20
"""Bytes; a larger record is refused. That of 100,000 images has about 30 MB."""
_JOINERS = "\u200c\u200d"
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Categories of Unicode: control and format characters, surrogates, and separators of lines and paragraphs."""
_RUN_BY_SPREADSHEETS = re.compile(r"'*(?:[=@\t\r]|[+\-].)", re.DOTALL)


def is_hidden(letter: str) -> bool:
    """Whether a character cannot be seen, controls a terminal, or changes the direction of a text."""
    return unicodedata.category(letter) in _HIDDEN and letter not in _JOINERS


def name_fault(name: str) -> str | None:
    """Say in a few words why a text cannot be a name; None if it can."""
    if not name.strip():
        return "it is empty; expected some letters"
    if len(name) > LONGEST_NAME:
        return f"it has {len(name)} letters; expected at most {LONGEST_NAME}"
    hidden = next((letter for letter in name if is_hidden(letter)), None)
    if hidden is not None:
        return f"it holds the character {visible(hidden)}, which cannot be shown; expected one line of plain text"
    return None


def visible(text: str, kept: str = "") -> str:
    r"""Return a text in which hidden characters are written as escapes, such as \x1b; those in `kept` stay."""
    if text.isprintable():
        return text
    return "".join(f"{_escaped(one)}" if is_hidden(one) and one not in kept else one for one in text)


def short(text: str, most: int = LONGEST_NAME) -> str:
    """Return a text for a message: hidden characters as escapes, and what is over `most` letters cut off."""
    return visible(text if len(text) <= most else f"{text[: most - 1]}…")


def _escaped(letter: str) -> str:
    code = ord(letter)
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" if code < 65536 else f"\\U{code:08x}"


def guarded_cell(text: str) -> str:
    """Return a text as a cell of a CSV that no spreadsheet runs as a formula; numbers stay as they are."""
    return f"'{text}" if _RUN_BY_SPREADSHEETS.match(text) and not _is_number(text) else text


def unguarded_cell(cell: str) -> str:
    """Return the text of a cell that `guarded_cell` wrote; other cells stay as they are."""
    return cell[1:] if cell.startswith("'") and _RUN_BY_SPREADSHEETS.match(cell) else cell


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def check_regular(path: Path, most: int | None = None) -> None:
    """Check that a path is a file that ends, and of at most `most` bytes.

    Raises
    ------
    OSError
        It is a pipe, a device or a socket, or larger; its `strerror` says so in a few words. Or it is not there.
    """
    status = path.stat()
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(21, "it is a folder, expected a file", str(path))
    if not stat.S_ISREG(status.st_mode):
        raise OSError(22, "it is a pipe or a device, expected a file", str(path))
    if most is not None and status.st_size > most:
        raise OSError(27, f"it has {status.st_size} bytes, expected at most {most}", str(path))


def read_regular(path: Path, most: int) -> bytes:
    """Read a file whole.

    Raises
    ------
    OSError
        As `check_regular` does, or the file cannot be read.
    """
    check_regular(path, most)
    with path.open("rb") as file:
        content = file.read(most + 1)
    if len(content) > most:  # it grew, or lies about its size, as files in /proc do
        raise OSError(27, f"it has more than {most} bytes", os.fspath(path))
    return content


def parse_json(content: bytes) -> object:
    """Parse a JSON document.

    Raises
    ------
    ValueError
        If it is not UTF-8 text, not JSON, nested too deeply, or holds a whole number of thousands of digits.
    """
    try:
        return json.loads(content.decode("utf-8"))
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
