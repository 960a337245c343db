"""What is missing or damaged in a TIFF, found before its pixels are used.

Decisions:

- A file that holds less than its header says is refused when it is opened: pages, strips and tiles that lie behind its
  end, lists of them that are too short, byte counts that are 0, and sizes that the bytes cannot hold.
- A strip or tile of which both offset and byte count are 0 is declared empty, as writers of sparse TIFF (GDAL,
  Bio-Formats) do. Such pieces are filled, and a sentence counts them.
- What a decoder would fill up in silence, such as JPEG without its end, is an error when it is read.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from xml.etree import ElementTree

import numpy as np

from napari_milcnn.errors import ImageError
from napari_milcnn.images.declared_size import check_declared, is_cut_jpeg, stored_size

if TYPE_CHECKING:
    from tifffile import TiffFile, TiffPage, TiffPageSeries

MOST_PAGES: Final = 1 << 22
"""Pages in one file at most, as tifffile reads them."""
_JPEG: Final = frozenset({6, 7, 34892, 33007})
_JPEG_XR: Final = frozenset({22610, 34934})
_CODECS: Final = {
    5: "lzw", 8: "deflate", 32946: "deflate", 32773: "packbits", 50000: "zstd", 34926: "zstd", 34925: "lzma",
    34933: "deflate", **dict.fromkeys(_JPEG, "jpeg"),
}  # fmt: skip
"""Number of a compression -> codec in `MOST_EXPANDED`; 34933 is PNG."""


class Gaps(NamedTuple):
    """How many of all pages are missing, how many of all strips or tiles are declared empty, and what fills those."""

    missing: int
    pages: int
    empty: int
    pieces: int
    filled: float = 0

    def notes(self) -> list[str]:
        """Say so in sentences for `warnings`."""
        notes = []
        if self.missing:
            notes.append(f"{self.missing} of {self.pages} pages are missing: reading them is an error.")
        if self.empty:
            read = "reading them is an error" if self.missing else f"they read as {self.filled:g}"
            notes.append(f"{self.empty} of {self.pieces} strips or tiles are declared empty: {read}.")
        return notes


def check_plane_count(path: Path, tif: TiffFile) -> None:
    """Refuse OME-XML with more planes than a file can have, before anything of that length is made."""
    if not tif.is_ome or not tif.ome_metadata:
        return
    for pixels in ElementTree.fromstring(tif.ome_metadata).iterfind(".//{*}Pixels"):
        sizes = [int(pixels.get(f"Size{axis}", 1)) for axis in "TZC"]
        if math.prod(sizes) > MOST_PAGES:
            raise ImageError(
                f"{path} is damaged: its OME-XML declares {math.prod(sizes)} planes, at most {MOST_PAGES} are "
                "possible; export it again"
            )


def check_header(path: Path, tif: TiffFile, every: Sequence[TiffPageSeries]) -> None:
    """Refuse a file whose header describes more than the file holds."""
    if not every or every[0].kind not in ("shaped", "ome", "imagej", "uniform", "generic"):
        return  # formats with their own rules for pages
    if every[0].kind in ("uniform", "generic") and _promised(tif) > len(tif.pages) * tif.pages.first.size:
        raise ImageError(f"{path} is truncated or damaged: its header describes more data than there is; copy it again")
    kind, file = tif.tiff, tif.filehandle
    file.seek(tif.pages[-1].offset)
    (tags,) = struct.unpack(kind.tagnoformat, file.read(kind.tagnosize))
    file.seek(tags * kind.tagsize, 1)
    (following,) = struct.unpack(kind.offsetformat, file.read(kind.offsetsize))
    if following:
        raise ImageError(
            f"{path} is truncated or damaged: after {len(tif.pages)} pages the next one cannot be read; copy it again"
        )


def _promised(tif: TiffFile) -> int:
    """Return how many values the header describes; 0 where it does not say."""
    if tif.is_shaped and tif.shaped_metadata:
        return math.prod(tif.shaped_metadata[0]["shape"])
    if tif.is_imagej and tif.imagej_metadata:
        images = math.prod(int(tif.imagej_metadata.get(each, 1)) for each in ("frames", "slices", "channels"))
        return images * math.prod(tif.pages.first.shape[:2])
    return 0


def check_data(path: Path, series: TiffPageSeries) -> Gaps:
    """Refuse a file that does not hold its pixels; count the pages, strips and tiles that are not there."""
    page = series.keyframe
    if series.dataoffset:
        _check_end(path, series.dataoffset + series.nbytes, page.parent.filehandle.size)
        if len(page.databytecounts) == 1 and page.databytecounts[0] < page.nbytes and not (page.is_stk or page.is_lsm):
            raise ImageError(
                f"{path} is damaged: its only strip or tile has {page.databytecounts[0]} bytes, but the pixels need "
                f"{page.nbytes}; copy or export it again"
            )
        return Gaps(0, len(series), 0, 1)
    missing = empty = total = 0
    decoded: dict[int, np.ndarray] = {}
    for each in series:
        if each is None:
            missing += 1
            continue
        _check_lists(path, each)
        key = id(each.keyframe)
        if key not in decoded:
            decoded[key] = _decoded_bytes(each.keyframe)
        empty += _check_pieces(path, each, decoded[key])
        total += len(decoded[key])
    if empty >= total:
        raise ImageError(f"{path} holds no pixels: all its strips or tiles are empty; copy or export it again")
    return Gaps(missing, len(series), empty, total, float(page.nodata))


def _check_end(path: Path, end: int, size: int) -> None:
    if end > size:
        raise ImageError(f"{path} is truncated: its pixels need {end} bytes, the file has {size}; copy it again")


def _check_lists(path: Path, page: Any) -> None:
    """Check that a page has an offset and a byte count for each of its strips or tiles."""
    kind, pieces = _kind(page), math.prod(page.chunked)
    for name, values in (("offsets", page.dataoffsets), ("byte counts", page.databytecounts)):
        if len(values) < pieces:
            raise ImageError(
                f"{path} is damaged: its list of {kind} {name} has {len(values)} entries, but an image of this size "
                f"has {pieces} {kind}s; copy or export it again"
            )


def _kind(page: Any) -> str:
    return "tile" if page.keyframe.is_tiled else "strip"


def _check_pieces(path: Path, page: Any, decoded: np.ndarray) -> int:
    """Check the strips or tiles of a page, of which these are the decoded bytes; count those declared empty."""
    kind = _kind(page)
    offsets, counts = (
        np.asarray(values[: len(decoded)], np.int64) for values in (page.dataoffsets, page.databytecounts)
    )
    half = np.flatnonzero((offsets == 0) != (counts == 0))
    if half.size:
        raise ImageError(
            f"{path} is damaged: {kind} {half[0]} of {len(decoded)} has the offset {offsets[half[0]]} and "
            f"{counts[half[0]]} bytes; copy or export it again"
        )
    _check_end(path, int((offsets + counts).max()), page.parent.filehandle.size)
    codec = _CODECS.get(int(page.keyframe.compression), "")
    most = np.argmax(np.where(counts > 0, decoded / np.maximum(counts, 1), 0))
    if not counts[most]:
        return len(decoded)
    check_declared(f"{path}: {kind} {most} of {len(decoded)}", int(decoded[most]), int(counts[most]), codec)
    return int((offsets == 0).sum())


def _decoded_bytes(page: Any) -> np.ndarray:
    """Return the size of each strip or tile when it is decoded, in bytes (pieces,)."""
    pieces = math.prod(page.chunked)
    depth = page.dtype.itemsize if page.dtype is not None else 1
    bits = page.bitspersample if isinstance(page.bitspersample, int) else 8 * depth
    size = math.prod(page.chunks) * bits / 8
    sizes = np.full(pieces, math.ceil(size), np.int64)
    if not page.is_tiled and 0 < page.rowsperstrip < page.imagelength:
        across = math.ceil(page.imagelength / page.rowsperstrip)
        last = page.imagelength - (across - 1) * page.rowsperstrip
        sizes[across - 1 :: across] = math.ceil(size * last / page.rowsperstrip)
    return sizes


def guard_decoding(series: TiffPageSeries) -> None:
    """Let the pages of an image check each strip or tile before it is decoded."""
    keyframes: dict[int, Any] = {id(page.keyframe): page.keyframe for page in series if page is not None}
    for keyframe in keyframes.values():
        keyframe.decode = _guarded(keyframe.decode, keyframe)  # the property keeps what is set, as its own value


def _guarded(decode: Callable[..., Any], page: TiffPage) -> Callable[..., Any]:
    compression = int(page.compression)
    tall, wide = page.chunks[-2:] if page.axes[-1:] != "S" else page.chunks[-3:-1]

    def guarded(data: bytes | None, index: int, /, **options: Any) -> Any:
        if data is not None and compression != 1:
            if compression in _JPEG and is_cut_jpeg(data):
                raise ValueError("a strip or tile of JPEG lacks its end")
            if compression in _JPEG_XR and _is_cut_jpeg_xr(data):
                raise ValueError("a strip or tile of JPEG XR lacks its end")
            size = stored_size(data)
            if size is not None and (size[0] > _room(tall) or size[1] > _room(wide)):
                raise ValueError(f"a strip or tile holds {size[0]} x {size[1]} px, expected at most {tall} x {wide}")
        return decode(data, index, **options)

    return guarded


def _room(side: int) -> int:
    """Return the longest side that is accepted: some writers fill the last blocks, or the last strip."""
    return 2 * side + 64


def _is_cut_jpeg_xr(data: bytes) -> bool:
    """Whether JPEG XR bytes are fewer than their own table says."""
    if not data.startswith(b"II\xbc") or len(data) < 8:
        return False
    (table,) = struct.unpack_from("<I", data, 4)
    if table + 2 > len(data):
        return True
    (count,) = struct.unpack_from("<H", data, table)
    entries = [
        struct.unpack_from("<HHII", data, at)
        for at in range(table + 2, min(len(data) - 12, table + 2 + 12 * count), 12)
    ]
    facts = {tag: value & 0xFFFF if kind == 3 else value for tag, kind, _, value in entries}
    return bool(facts.get(0xBCC0, 0) + facts.get(0xBCC1, 0) > len(data))
