"""Files that have an end: a pipe, a device or an endless file that is given in place of a table or an image is refused.

Decisions:

- What a path is, is asked before it is opened: opening a named pipe that nobody writes to waits for ever.
- A file is read up to a limit, whatever size it states: the files of /proc state 0 bytes and may never end.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

_KINDS = ((stat.S_ISFIFO, "a named pipe"), (stat.S_ISSOCK, "a socket"),
          (stat.S_ISCHR, "a device"), (stat.S_ISBLK, "a device"), (stat.S_ISDIR, "a folder"))  # fmt: skip


def other_than_file(path: str | os.PathLike[str]) -> str | None:
    """Say what a path is if it is not a file: "a folder", "a named pipe", "a socket" or "a device"; None for a file.

    Raises
    ------
    OSError
        There is nothing at the path, or it cannot be looked at.
    ValueError
        The path is not one that a file can have.
    """
    mode = os.stat(path).st_mode
    return next((kind for is_kind, kind in _KINDS if is_kind(mode)), None)


def read_whole(path: Path, limit: int) -> bytes:
    """Read a whole file of at most `limit` bytes.

    Raises
    ------
    OSError
        The file cannot be read.
    ValueError
        It is not a file, or it is larger.
    """
    kind = other_than_file(path)
    if kind is not None:
        raise ValueError(f"it is {kind}, not a file")
    with path.open("rb") as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise ValueError(f"it is larger than {limit // 2**20} MiB")
    return content
