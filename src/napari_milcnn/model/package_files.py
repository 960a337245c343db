"""The files of a model, which lie in a zip or, where somebody unpacked it, in a folder.

Decisions:

- Names and sizes are checked before anything is unpacked. Only files that the description names are read, and each is
  read up to a limit that its reader states.
- The limits fit real models: about ten files, of which the weights are the largest by far (`LARGEST_NETWORK`).
- A zip that was unpacked and packed again often holds everything in one folder: that folder is then the model. What
  macOS adds (`__MACOSX`, `.DS_Store`) is left out.
"""

from __future__ import annotations

import hashlib
import io
import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from napari_milcnn.errors import ModelError
from napari_milcnn.untrusted import short

LARGEST_MODEL = 1 << 30
"""Bytes; a model whose files have more in all is refused."""
MOST_FILES = 256
DESCRIPTIONS = ("rdf.yaml", "bioimageio.yaml")
"""Names of the file that describes a model."""
_LARGEST_DIRECTORY = 1 << 16
"""Bytes of the list of files in a zip, at most: room for `MOST_FILES` long names."""
_PACKED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ENCRYPTED = 1
"""Flag of a file in a zip that a password locks."""
_PIECE = 1 << 20
_DAMAGED_ZIP = (
    zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, ValueError, LookupError, OverflowError,
    RuntimeError,
)  # fmt: skip
"""What `zipfile` raises where bytes are wrong."""


class ShortDirectory(io.FileIO):
    """A file for `zipfile`, which reads the list of files in one piece: a piece that is too large is refused."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._most: int | None = _LARGEST_DIRECTORY

    def read(self, size: int | None = -1, /) -> bytes:
        """Read up to `size` bytes."""
        if self._most is not None and size is not None and size > self._most:
            raise ModelError(
                f"{self.name} is refused: its list of files has {size} bytes, more than {self._most}; a model has "
                "about 10 files"
            )
        return super().read(-1 if size is None else size) or b""

    def lift_limit(self) -> None:
        """Read pieces of any size from now on."""
        self._most = None


@dataclass(frozen=True, eq=False)
class ModelFiles:
    """The files of a model, opened one at a time.

    Attributes
    ----------
    path : Path
        The zip or the folder.
    sizes : dict
        Name of a file, as the description writes it -> its size in bytes.
    """

    path: Path
    sizes: dict[str, int]
    _top: str
    _archive: zipfile.ZipFile | None = None

    def read(self, name: str, most: int, what: str) -> bytes:
        """Read a file.

        Raises
        ------
        ModelError
            If it has more than `most` bytes, or cannot be read. The message calls the file `what`.
        """
        if self.sizes[name] > most:
            raise ModelError(f"{self.path} is refused: {what} has {self.sizes[name]} bytes, more than {most}")
        return b"".join(self._chunks(name))

    def sha256(self, name: str) -> str:
        """Return the SHA-256 of a file in hexadecimal digits, without holding the file in memory."""
        found = hashlib.sha256()
        for chunk in self._chunks(name):
            found.update(chunk)
        return found.hexdigest()

    def _chunks(self, name: str) -> Iterator[bytes]:
        """Yield no more than the size that was checked: a zip may hold more than it states."""
        try:
            with self._open(name) as file:
                left = self.sizes[name]
                while left > 0 and (chunk := file.read(min(left, _PIECE))):
                    left -= len(chunk)
                    yield chunk
        except _DAMAGED_ZIP as error:
            kind = "zip file" if self._archive is not None else "model"
            raise ModelError(f"{self.path} is not a whole {kind} ({error}); copy or download it again") from error

    def _open(self, name: str) -> IO[bytes]:
        return (self.path / self._top / name).open("rb") if self._archive is None else \
            self._archive.open(self._top + name)  # fmt: skip


@contextmanager
def model_files(path: Path) -> Iterator[ModelFiles]:
    """Open a model zip, or the folder that it was unpacked into.

    Raises
    ------
    ModelError
        If it is damaged, has too many or too large files, holds no description of a model or several, or if a name in
        a zip leads out of it.
    """
    with ExitStack() as opened:
        yield _within_limits(path, _sizes_in_folder(path)) if path.is_dir() else _files_in_zip(path, opened)


def _files_in_zip(path: Path, opened: ExitStack) -> ModelFiles:
    try:
        file = opened.enter_context(ShortDirectory(path))
        archive = opened.enter_context(zipfile.ZipFile(file))
        file.lift_limit()
        entries = [entry for entry in archive.infolist() if not entry.is_dir()]
    except _DAMAGED_ZIP as error:
        with path.open("rb") as content:
            if content.read(2) not in (b"", b"PK"):
                raise ModelError(
                    f"{path} is not a zip file; expected a model .zip that napari-milcnn wrote; models of other kinds, "
                    "such as ONNX and OpenVINO, are not read"
                ) from error
        raise ModelError(f"{path} is not a whole zip file ({error}); copy or download it again") from error
    for problem in _unsafe(entries):
        raise ModelError(f"{path} is refused: {problem}; get the model from its source again")
    return _within_limits(path, {entry.filename: entry.file_size for entry in entries}, archive)


def _within_limits(path: Path, sizes: dict[str, int], archive: zipfile.ZipFile | None = None) -> ModelFiles:
    total = sum(sizes.values())
    if len(sizes) > MOST_FILES:
        raise ModelError(
            f"{path} is refused: it holds {len(sizes)} files, more than {MOST_FILES}; a model has about 10"
        )
    if total > LARGEST_MODEL:
        raise ModelError(
            f"{path} is refused: it unpacks to {total / 1e9:.1f} GB, more than {LARGEST_MODEL / 1e9:.1f} GB; get the "
            "model from its source again"
        )
    top = _folder_of_the_model(path, list(sizes))
    return ModelFiles(path, {name[len(top) :]: n for name, n in sizes.items() if name.startswith(top)}, top, archive)


def _folder_of_the_model(path: Path, names: Sequence[str]) -> str:
    """Return the folder in a zip or folder that holds the description, with a slash at its end; empty for the top."""
    folders = {name[: -len(PurePosixPath(name).name)] for name in names if PurePosixPath(name).name in DESCRIPTIONS}
    if "" in folders:
        return ""
    found = sorted(folder for folder in folders if folder.count("/") == 1 and not folder.startswith("__MACOSX"))
    if not found:
        there = [short(name, 60) for name in sorted(names)[:5]]
        raise ModelError(f"{path} holds no rdf.yaml, so it is not a bioimage.io model; found {there}")
    if len(found) > 1:
        which = ", ".join(short(folder.rstrip("/"), 60) for folder in found[:5])
        raise ModelError(f"{path} holds {len(found)} models, in {which}; give each of them as a file of its own")
    return found[0]


def _sizes_in_folder(path: Path) -> dict[str, int]:
    """Return the name and size of each regular file in a folder and in the folders in it; links are left out."""
    found: dict[str, int] = {}
    try:
        for folder in (path, *(Path(entry) for entry in os.scandir(path) if entry.is_dir(follow_symlinks=False))):
            for entry in os.scandir(folder):
                if len(found) > MOST_FILES:
                    return found
                status = entry.stat(follow_symlinks=False)
                if stat.S_ISREG(status.st_mode):
                    found[Path(entry).relative_to(path).as_posix()] = status.st_size
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}") from error
    return found


def _unsafe(entries: Sequence[zipfile.ZipInfo]) -> Iterator[str]:
    names = [entry.filename for entry in entries]
    for entry in entries:
        parts, name = PurePosixPath(entry.filename).parts, f"'{short(entry.filename, 60)}'"
        if ".." in parts or entry.filename.startswith("/") or "\\" in entry.filename or ":" in entry.filename:
            yield f"the name {name} leads out of the zip"
        if entry.flag_bits & _ENCRYPTED:
            yield f"{name} is locked with a password"
        if entry.external_attr >> 16 & 0o170000 == 0o120000:
            yield f"{name} is a link"
        if entry.compress_type not in _PACKED:
            yield f"{name} is packed in a way that bioimage.io models are not"
    if len(set(names)) < len(names):
        yield "a name stands in it twice"
