"""Atomic writes: a file is written beside its final name and moved into place, so it is complete or not there."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from napari_milcnn.errors import OutputError


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
        handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix="".join(path.suffixes), dir=path.parent)
        os.close(handle)
    except OSError as error:
        raise _cannot_write(path, error) from error
    draft = Path(name)
    try:
        yield draft
        draft.chmod(0o666 & ~_umask())
        draft.replace(path)
    except OSError as error:
        raise _cannot_write(path, error) from error
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
        with tempfile.NamedTemporaryFile(prefix=f".{path.stem}-", dir=path.parent):
            pass
    except OSError as error:
        raise _cannot_write(path, error) from error


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
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{path.stem}-", suffix="".join(path.suffixes), dir=path.parent))
    except OSError as error:
        raise _cannot_write(path, error) from error
    try:
        yield draft
        draft.chmod(0o777 & ~_umask())
        _swap(draft, path)
    except OSError as error:
        raise _cannot_write(path, error) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


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


def _cannot_write(path: Path, error: OSError) -> OutputError:
    return OutputError(f"{path} cannot be written: {error.strerror or error}; free some space or choose another folder")


def sha256(data: bytes) -> str:
    """Return the SHA-256 of some bytes in hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()
