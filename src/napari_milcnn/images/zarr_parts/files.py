"""The files of a zarr, in a folder or in a zip file, and a store that takes no damage for a missing chunk."""

from __future__ import annotations

import os
import stat
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from napari_milcnn.errors import ImageError
from napari_milcnn.images.paths import ZARR_METADATA, has_zarr_metadata
from napari_milcnn.images.stack import reason, translated
from napari_milcnn.untrusted import parse_json

if TYPE_CHECKING:
    import zarr
    from zarr.abc.store import ByteRequest, Store
    from zarr.core.buffer import Buffer, BufferPrototype

_DOCUMENTS: Final = (*ZARR_METADATA, ".zattrs", ".zmetadata")
"""Files of a zarr that hold JSON."""
_LARGEST_DOCUMENT: Final = 64 << 20
"""Bytes of the largest metadata file."""
LARGEST_CHUNK: Final = 2 << 30
"""Bytes of the largest chunk; it is decoded as a whole. Blosc, the usual compressor, cannot hold more."""


@dataclass(frozen=True)
class ZarrFiles:
    """The files of a zarr: those of a folder, or of a zip file.

    Attributes
    ----------
    path : Path
        The folder or the zip file.
    sizes : dict or None
        Name in the zip file -> bytes; None for a folder.
    inside : str
        Path of the zarr in the zip file; empty where it is the whole zip file, or a folder.
    """

    path: Path
    sizes: Mapping[str, int] | None = None
    inside: str = ""

    @classmethod
    def at(cls, path: Path) -> ZarrFiles:
        """Find the zarr that a folder or a zip file is.

        Raises
        ------
        ImageError
            It is neither.
        """
        if os.path.isdir(path):
            if has_zarr_metadata(path):
                return cls(path)
            raise ImageError(
                f"{path} is a folder, but not an OME-Zarr or zarr image: it holds none of {', '.join(ZARR_METADATA)}; "
                "give one image, or on the command line the folder to napari-milcnn classify"
            )
        try:
            with zipfile.ZipFile(path) as archive:
                sizes = {each.filename: each.file_size for each in archive.infolist()}
        except (zipfile.BadZipFile, NotImplementedError) as error:
            raise ImageError(f"{path} is not a whole zip file ({reason(error)}); copy or export it again") from error
        roots = {name.rpartition("/")[0] for name in sizes if name.rpartition("/")[2] in ZARR_METADATA}
        tops = {name for name in roots if name.count("/") == 0}
        if "" in tops or len(tops) == 1:
            return cls(path, sizes, "" if "" in tops else tops.pop())
        raise ImageError(
            f"{path} is a zip file, but not a zipped OME-Zarr image: it has none of {', '.join(ZARR_METADATA)} at its "
            "top; unpack it and open the image in it"
        )

    def node(self) -> zarr.Group | zarr.Array[Any]:
        """Open the zarr itself, a group or an array; the metadata of what lies in it is not read."""
        import zarr

        with translated(f"{self.path} cannot be opened as an image"):
            try:
                return zarr.open(self.store(), path=self.inside, mode="r")
            except KeyError as error:
                raise ValueError(f"{error} is missing in it") from error

    def array(self, key: str) -> zarr.Array[Any]:
        """Open an array in the zarr."""
        import zarr

        store = self.store()
        array = zarr.open_array(store, path=f"{self.inside}/{key}".strip("/"), mode="r")
        compressors = () if getattr(array, "shards", None) else array.compressors
        store.holds_blosc = any("blosc" in type(each).__name__.lower() for each in compressors)  # type: ignore[attr-defined]
        return array

    def store(self) -> Store:
        """Return a store that reads the files, and refuses what cannot be a file of a zarr."""
        from zarr.storage import LocalStore, ZipStore

        if self.sizes is None:
            return _checked_store()(LocalStore(self.path, read_only=True))
        return _checked_store()(ZipStore(self.path, mode="r"), self.sizes)

    def children(self) -> list[str]:
        """List the groups and arrays that lie in the zarr itself, sorted."""
        if self.sizes is None:
            return sorted(each.name for each in self.path.iterdir() if has_zarr_metadata(each))
        begin = f"{self.inside}/" if self.inside else ""
        names = (name.removeprefix(begin).split("/") for name in self.sizes if name.startswith(begin))
        return sorted({parts[0] for parts in names if len(parts) == 2 and parts[1] in ZARR_METADATA})

    def child(self, key: str) -> ZarrFiles:
        """Return a group or an array in the zarr."""
        if self.sizes is None:
            return ZarrFiles(self.path / key)
        return ZarrFiles(self.path, self.sizes, f"{self.inside}/{key}".strip("/"))

    def count_chunks(self, key: str, most: int) -> int:
        """Count the files of an array that are no metadata, up to `most`."""
        begin = f"{self.inside}/{key}".strip("/")
        names: Iterable[str]
        if self.sizes is None:
            names = (name for _, _, files in os.walk(self.path / key) for name in files)
        else:
            names = (name for name in self.sizes if name.startswith(f"{begin}/" if begin else "") and name[-1:] != "/")
        return sum(1 for _ in islice((name for name in names if name.rpartition("/")[2][:1].isalnum()
                                      and name.rpartition("/")[2] not in _DOCUMENTS), most))  # fmt: skip


@cache
def _checked_store() -> Callable[..., Store]:
    """Return the class of a store that raises where zarr would take damage for a missing chunk, or wait for ever."""
    from zarr.abc.store import RangeByteRequest, SuffixByteRequest
    from zarr.storage import WrapperStore

    class CheckedStore(WrapperStore["Store"]):
        holds_blosc = False

        def __init__(self, store: Store, sizes: Mapping[str, int] | None = None) -> None:
            super().__init__(store)
            self._sizes = sizes

        async def get(
            self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
        ) -> Buffer | None:
            is_document = key.rpartition("/")[2] in _DOCUMENTS
            size = _file_size(self._store.root / key) if self._sizes is None else self._sizes.get(key)  # type: ignore[attr-defined]
            if size is None:
                return None
            if size > (_LARGEST_DOCUMENT if is_document else LARGEST_CHUNK):
                raise ValueError(f"{key} has {size} bytes; no file of an image is as large")
            try:
                value = await self._store.get(key, prototype, byte_range)
            except zipfile.BadZipFile as error:  # no ValueError
                raise ValueError(str(error)) from error
            if value is None:
                raise ValueError(f"{key} cannot be read")
            wanted = 1
            if isinstance(byte_range, RangeByteRequest):
                wanted = byte_range.end - byte_range.start
            elif isinstance(byte_range, SuffixByteRequest):
                wanted = byte_range.suffix
            if len(value) < wanted:
                raise ValueError(f"{key} is {'cut short' if len(value) else 'empty'}; copy or export the image again")
            if is_document and byte_range is None:
                _check_document(key, value.to_bytes())
            elif self.holds_blosc and byte_range is None:
                _check_blosc(key, len(value), value[:16].to_bytes())
            return value

    return CheckedStore


def _check_blosc(key: str, length: int, header: bytes) -> None:
    """Refuse a chunk whose header states another length: Blosc would read on in memory, and return what is there."""
    packed, unpacked = (int.from_bytes(header[at : at + 4], "little") for at in (12, 4))
    if length < max(16, packed):
        raise ValueError(f"{key} is cut short; copy or export the image again")
    if unpacked > LARGEST_CHUNK:
        raise ValueError(f"{key} states {unpacked} bytes; no chunk of an image is as large")


def _file_size(path: Path) -> int | None:
    """Return the bytes of a file of a zarr; None where there is none. Raise where something else has its name."""
    try:
        status = path.stat()
    except FileNotFoundError:
        if path.is_symlink():
            raise ValueError(f"{path.name} is a link to a file that is not there; fetch the files first") from None
        return None
    except NotADirectoryError as error:
        raise ValueError(f"there is a file where {path.name} needs a folder") from error
    if not stat.S_ISREG(status.st_mode):
        kind = "a folder" if stat.S_ISDIR(status.st_mode) else "a pipe or a device"
        raise ValueError(f"{path.name} is {kind}, expected a file")
    return status.st_size


def _check_document(key: str, content: bytes) -> None:
    try:
        found = parse_json(content)
    except ValueError as error:
        raise ValueError(f"{key} is not JSON ({reason(error)})") from error
    if not isinstance(found, dict):
        raise ValueError(f"{key} is not a JSON object")
