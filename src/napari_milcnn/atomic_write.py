"""Atomic writes: a file is written beside its final name and moved into place, so it is complete or not there.

A process that is killed while it writes leaves its draft behind. The name of a draft says which process wrote it, so
that `sweep_drafts` removes the drafts of dead processes, and no others.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import socket
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Final

import psutil

from napari_milcnn.errors import OutputError

_LONGEST_STEM: Final = 100
"""Bytes of the name of a file that stand in the name of its draft; file systems allow 255 bytes in all."""
_DRAFT: Final = re.compile(
    r"\.(?P<stem>.*)\.draft-(?P<computer>[0-9a-f]{8})-(?P<process>[0-9]+)-[a-z0-9_]{8}(?P<suffixes>.*?)(?P<old>\.old)?",
    re.DOTALL,
)
_ELSEWHERE: Final = "choose another folder"
_NOT_ALLOWED: Final = f"{_ELSEWHERE}, or ask for the permission to write there"
_NO_FOLDER: Final = f"a file is where a folder should be; {_ELSEWHERE}"
_ADVICE: Final = {
    errno.ENOSPC: f"free some space or {_ELSEWHERE}",
    errno.EDQUOT: "delete files that you no longer need, or choose a folder on another disk",
    errno.EFBIG: "the file is larger than is allowed there; choose a folder on another disk",
    errno.EACCES: _NOT_ALLOWED,
    errno.EPERM: _NOT_ALLOWED,
    errno.EROFS: "choose a folder on a disk that can be written",
    errno.ENAMETOOLONG: "choose a shorter name, or a folder with a shorter path",
    errno.ENOTDIR: _NO_FOLDER,
    errno.EEXIST: _NO_FOLDER,
    errno.EISDIR: "there is a folder of this name; choose another name",
    errno.ENOTEMPTY: "there is a folder of this name; choose another name",
    errno.EBUSY: "close it in the program that uses it, and try again",
    errno.EIO: f"the disk or the connection to it fails; check it, or {_ELSEWHERE}",
    errno.ESTALE: f"the network folder is gone; connect it again, or {_ELSEWHERE}",
    errno.EMFILE: "close programs, or raise the number of files that a program may open",
}
"""Number of an error of the system -> what to do about it when a file is to be written."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a draft to write to; when the block ends without an error, the draft replaces `path`.

    If the block fails, the draft is removed and `path` stays as it was.

    Parameters
    ----------
    path : Path
        The file to write; its folder is made if it does not exist.

    Yields
    ------
    Path
        The draft: an empty file in the same folder, with the same suffixes.

    Raises
    ------
    OutputError
        If the folder cannot be made or the file cannot be written (no space, no permission).
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=_draft_prefix(path), suffix=_suffixes(path), dir=path.parent)
        os.close(handle)
    except OSError as error:
        raise cannot_write(path, error) from error
    draft = Path(name)
    try:
        yield draft
        draft.chmod(0o666 & ~_umask())
        draft.replace(path)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        draft.unlink(missing_ok=True)


def check_writable(path: Path) -> None:
    """Make and remove an empty file beside `path`, to find out early whether it can be written.

    Raises
    ------
    OutputError
        If the folder cannot be made or no file can be made in it.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(prefix=_draft_prefix(path), dir=path.parent):
            pass
    except OSError as error:
        raise cannot_write(path, error) from error


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder to write into; when the block ends without an error, the folder replaces `path`.

    If the block fails, the new folder is removed and `path` stays as it was.

    Parameters
    ----------
    path : Path
        The folder to write; its parent is made if it does not exist.

    Yields
    ------
    Path
        The draft: an empty folder beside `path`.

    Raises
    ------
    OutputError
        If the folder cannot be made, written or moved (no space, no permission).
    """
    with folder_beside(path) as draft:
        try:
            yield draft
            draft.chmod(0o777 & ~_umask())
            _swap(draft, path)
        except OutputError as error:
            raise OutputError(str(error).replace(str(draft), str(path))) from error
        except OSError as error:
            raise cannot_write(path, error) from error


@contextmanager
def replacing_files(folder: Path, names: Sequence[str]) -> Iterator[Path]:
    """Yield an empty folder for files that belong together; when the block ends without an error, they are moved.

    A file of these names that was in `folder` and is not written anew is removed. The first name is removed first and
    comes last: where it is found, the others belong to it, whenever the process was killed.

    Parameters
    ----------
    folder : Path
        Where the files go; it is made if it does not exist.
    names : sequence of str
        Names of all files that may be written; the most important one first.

    Yields
    ------
    Path
        The draft: an empty folder on the same disk.

    Raises
    ------
    OutputError
        If a file cannot be written, removed or moved.
    """
    with folder_beside(folder / names[0]) as drafts:
        try:
            yield drafts
        except OutputError as error:
            raise OutputError(str(error).replace(str(drafts), str(folder))) from error
        try:
            (folder / names[0]).unlink(missing_ok=True)
            for name in reversed(names):
                if (drafts / name).exists():
                    (drafts / name).replace(folder / name)
                else:
                    (folder / name).unlink(missing_ok=True)
        except OSError as error:
            raise cannot_write(folder / names[0], error) from error


@contextmanager
def folder_beside(path: Path) -> Iterator[Path]:
    """Yield an empty folder on the disk of `path`, for files that are needed while it is written; it is then removed.

    Raises
    ------
    OutputError
        If the folder cannot be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=_draft_prefix(path), suffix=_suffixes(path), dir=path.parent))
    except OSError as error:
        raise cannot_write(path, error) from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def sweep_drafts(folder: Path) -> None:
    """Remove the drafts that killed processes of this computer left in a folder; a folder that is missing is clean."""
    try:
        names = os.listdir(folder)
    except OSError:
        return
    for name in names:
        found = _DRAFT.fullmatch(name)
        if found and found["computer"] == _computer() and not psutil.pid_exists(int(found["process"])):
            with suppress(OSError):  # it is another user's, or another run removed it
                _remove_draft(folder / name, found)


def _remove_draft(path: Path, found: re.Match[str]) -> None:
    """Remove a draft; a folder that was moved aside and never replaced gets its place back."""
    place = path.with_name(f"{found['stem']}{found['suffixes']}")
    if found["old"] and len(os.fsencode(found["stem"])) < _LONGEST_STEM and not place.exists():
        path.rename(place)
    elif path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _draft_prefix(path: Path) -> str:
    return f".{shortened(path.stem, _LONGEST_STEM)}.draft-{_computer()}-{os.getpid()}-"


def _suffixes(path: Path) -> str:
    """Return the last two suffixes, by which writers choose a format; a name may be full of dots."""
    return shortened("".join(path.suffixes[-2:]), _LONGEST_STEM // 2)


@cache
def _computer() -> str:
    """Return eight digits for this computer, or for this container: processes with equal digits share their numbers."""
    try:
        processes = os.stat("/proc/self/ns/pid").st_ino
    except OSError:  # not Linux
        processes = 0
    return sha256(f"{socket.gethostname()} {processes}".encode())[:8]


def shortened(text: str, most: int) -> str:
    """Return the beginning of a text that has at most `most` bytes in UTF-8, cut between two characters."""
    return os.fsencode(text)[:most].decode("utf-8", "ignore") if len(os.fsencode(text)) > most else text


def _swap(draft: Path, path: Path) -> None:
    """Move `draft` to `path`. The folder that was there is removed, or put back if the move fails."""
    if not path.exists():
        draft.rename(path)
        return
    old = draft.with_name(f"{draft.name}.old")
    path.rename(old)
    try:
        draft.rename(path)
    except OSError:
        old.rename(path)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _umask() -> int:
    """Return the process's umask, which can only be read by setting it; a temporary file ignores it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def cannot_write(path: Path, error: OSError) -> OutputError:
    """Return the error that says why a file cannot be written, and what to do.

    Parameters
    ----------
    path : Path
        The file or folder that was to be written.
    error : OSError
        What the system said.
    """
    advice = _ADVICE.get(error.errno or 0, f"{_ELSEWHERE}, or try again")
    if error.errno == errno.ENOENT:
        advice = _missing(path)
    return OutputError(f"{path} cannot be written: {_other_file(path, error)}{error.strerror or error}; {advice}")


def _missing(path: Path) -> str:
    """Say what is missing where a file is to be written, and what to do."""
    if path.parent.is_dir():
        return "a file was moved or deleted meanwhile; leave the folder alone while it is written, and try again"
    return f"the folder was moved, deleted or disconnected meanwhile; bring it back or {_ELSEWHERE}"


def _other_file(path: Path, error: OSError) -> str:
    """Name the file that the error is about, where it is neither the one to write nor a draft of it."""
    named = error.filename
    if not isinstance(named, str | os.PathLike) or Path(named).parent == path.parent or path in Path(named).parents:
        return ""
    return "" if Path(named) in path.parents else f"{named}: "


def sha256(data: bytes) -> str:
    """Return the SHA-256 of some bytes in hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()
