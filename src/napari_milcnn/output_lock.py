"""One run at a time writes a file or a folder: a second one is refused, and is told who writes there.

The lock is one of the operating system on a hidden file: `.milcnn.lock` in a folder, `.M.zip.lock` beside a file M.zip.
It goes with the process that holds it, however that ends, so a killed run never blocks the next one. The file itself
says who holds the lock, and is removed when the lock is let go.

Locks work on network folders whose server supports them (NFS 4, SMB), between computers, too. Where the file system has
no locks at all, the run goes on without one and a warning is logged: nobody can then be refused.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Final

from filelock import FileLock, Timeout
from pydantic import BaseModel, ValidationError

from napari_milcnn.atomic_write import cannot_write, shortened, sweep_drafts
from napari_milcnn.errors import OutputError

log = logging.getLogger(__name__)

_NO_LOCKS: Final = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP}
"""Errors of a file system that has no locks."""
_LONGEST_LOCKED: Final = 200
"""Bytes of the name of a file that stand in the name of its lock."""
_IN_A_FOLDER: Final = ".milcnn.lock"
_RETRY: Final = 0.3
"""Seconds after which a lock that is being let go is no longer waited for."""


class _Holder(BaseModel, frozen=True):
    """Who holds a lock."""

    program: str
    process: int
    computer: str
    since: datetime

    def __str__(self) -> str:
        since = self.since.astimezone().strftime("%Y-%m-%d %H:%M:%S")
        return f"{self.program} (process {self.process} on {self.computer}) since {since}"


class OutputLock:
    """A file or folder to which nobody else writes; made by `locked` and `locked_folder`.

    Attributes
    ----------
    path : Path
        The file or folder.
    """

    def __init__(self, path: Path, file: Path | None) -> None:
        self.path, self._file = path, file
        self._made = None if file is None else _identity(file)

    def check(self) -> None:
        """Make sure that the folder is still the one in which the lock was taken.

        Raises
        ------
        OutputError
            If it was deleted, moved, or replaced by another one.
        """
        if self._file is not None and _identity(self._file) != self._made:
            raise OutputError(
                f"{self.path} was deleted or moved while it was written, and what was written is gone with it; leave "
                "the folder in its place and run again"
            )


@contextmanager
def locked(path: Path, *, patience: float = _RETRY) -> Iterator[OutputLock]:
    """Hold the lock of a file, such as a model or a table, while it is written.

    Parameters
    ----------
    path : Path
        The file. Its folder is made if it does not exist, and removed again if nothing was written to it.
    patience : float
        Seconds to wait for another run that holds the lock; below 0, for as long as it takes.

    Raises
    ------
    OutputError
        If another run writes the file, or if no file can be made beside it.
    """
    with _taken(path, _lock_beside(path), patience) as lock:
        yield lock


@contextmanager
def locked_folder(path: Path, *, patience: float = _RETRY) -> Iterator[OutputLock]:
    """Hold the lock of a folder while results are written to it; drafts of killed runs in it are removed.

    Parameters
    ----------
    path : Path
        The folder. It is made if it does not exist, and removed again if nothing was written to it.
    patience : float
        As for `locked`.

    Raises
    ------
    OutputError
        If another run writes to the folder, or if it cannot be made or written.
    """
    try:
        is_file = path.exists() and not path.is_dir()
    except OSError as error:
        raise cannot_write(path, error) from error
    if is_file:
        raise OutputError(f"{path} is a file; expected a folder for the results")
    with _taken(path, path / _IN_A_FOLDER, patience) as lock:
        sweep_drafts(path)
        yield lock


def holder_of(folder: Path) -> str:
    """Say who writes to a folder, as in a refusal; "" if nobody does."""
    return _holder_of_lock(folder / _IN_A_FOLDER)


def holder_of_file(path: Path) -> str:
    """Say who writes a file, as in a refusal; "" if nobody does."""
    return _holder_of_lock(_lock_beside(path))


def _lock_beside(path: Path) -> Path:
    return path.with_name(f".{shortened(path.name, _LONGEST_LOCKED)}.lock")


def _holder_of_lock(file: Path) -> str:
    if not file.exists():
        return ""
    lock = FileLock(file, blocking=False, thread_local=False, fallback_to_soft=False)
    try:
        lock.acquire()
    except Timeout:
        return _name_of_holder(file)
    except OSError:  # a folder that may only be read, or a disk without locks
        return ""
    lock.release()
    return ""


@contextmanager
def _taken(path: Path, file: Path, patience: float) -> Iterator[OutputLock]:
    new = not file.parent.exists()
    lock = FileLock(file, timeout=patience, thread_local=False, fallback_to_soft=False)
    held = True
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        if file.exists():
            raise _refusal(path, file) from None
        raise cannot_write(path, FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))) from None
    except ValueError as error:  # NUL in the name
        raise OutputError(f"{path} cannot be written: {error}; choose another name") from error
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise cannot_write(path, error) from error
        log.warning("%s lies on a disk without locks: a second run into it would not be noticed", path)
        held = False
    try:
        if held:
            _sign(file)
        yield OutputLock(path, file if held else None)
    finally:
        if os.name != "nt":  # while it is held: whoever waits for it notices that the file is gone
            file.unlink(missing_ok=True)
        lock.release()
        if os.name == "nt":
            with suppress(OSError):  # another run holds it already
                file.unlink(missing_ok=True)
        if new:
            with suppress(OSError):  # it holds results
                file.parent.rmdir()


def _sign(file: Path) -> None:
    """Write into the lock who holds it; a full disk does not keep anyone from holding it."""
    words = [Path(word).name for word in sys.argv[:2]]  # the program and its command
    program = " ".join(words).replace("__main__.py", "napari-milcnn")
    holder = _Holder(
        program=program, process=os.getpid(), computer=socket.gethostname(), since=datetime.now().astimezone()
    )
    with suppress(OSError):
        file.write_text(holder.model_dump_json(), encoding="utf-8")


def _name_of_holder(file: Path) -> str:
    try:
        return str(_Holder.model_validate(json.loads(file.read_text(encoding="utf-8"))))
    except (OSError, ValueError, ValidationError):
        return "another run of this program"


def _refusal(path: Path, file: Path) -> OutputError:
    return OutputError(
        f"{path} is being written by {_name_of_holder(file)}; wait until it ends, stop it, or choose another place for "
        "these results"
    )


def _identity(file: Path) -> tuple[int, int] | None:
    """Return what tells a file from another one that has taken its name; None for a file that is not there."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
