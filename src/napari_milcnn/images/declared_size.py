"""Whether the bytes of an image file can hold the size that its header declares.

A header of a few bytes can declare an image of terabytes; a decoder would believe it, and fill memory, or fill what is
missing with zeros or grey. So the size is compared with the bytes before anything is decoded.

Decisions:

- Of most codecs it is known how much one byte can hold at most (`MOST_EXPANDED`). A flat image comes close to it, and
  is read.
- What is decoded in one piece, a strip, a tile, or a whole PNG, JPEG, BMP or GIF, has at most `LARGEST_PIECE` bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Final

from napari_milcnn.errors import ImageError

LARGEST_PIECE: Final = 1 << 29
"""Bytes that are decoded in one piece at most."""
MOST_EXPANDED: Final[Mapping[str, int]] = {
    "deflate": 1040, "lzw": 2800, "packbits": 64, "jpeg": 4096, "zstd": 45_000, "lzma": 20_000,
}  # fmt: skip
"""Codec -> how many bytes one stored byte can hold. JPEG: 512 pixels of several colours, in a progressive scan."""
_SLACK: Final = 4096
"""Bytes that are never too many: headers may pack a small image more densely."""
_FRAMES: Final = frozenset({0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF})
"""Markers of JPEG that give the size."""


def check_declared(what: str, decoded: int, stored: int, codec: str) -> None:
    """Check that stored bytes can hold decoded ones.

    Parameters
    ----------
    what
        The file, and the piece of it: the beginning of the message.
    decoded, stored
        Bytes.
    codec
        A key of `MOST_EXPANDED`, or any other text for a codec without a limit.

    Raises
    ------
    ImageError
        They cannot, or the piece is too large.
    """
    if codec in MOST_EXPANDED and decoded > MOST_EXPANDED[codec] * stored + _SLACK:
        raise ImageError(
            f"{what} is damaged: the header declares {decoded} bytes of pixels, more than the {stored} bytes that are "
            "stored can hold; copy or export it again"
        )
    if decoded > LARGEST_PIECE:
        raise ImageError(
            f"{what} is too large to decode in one piece: {decoded} bytes, at most {LARGEST_PIECE} are read; save it "
            "as a tiled TIFF or OME-Zarr"
        )


def stored_size(data: bytes) -> tuple[int, int] | None:
    """Return height and width in px as PNG, JPEG or JPEG 2000 bytes declare them; None where they do not say."""
    if data.startswith(b"\x89PNG") and len(data) >= 24:
        width, height = struct.unpack_from(">II", data, 16)
        return height, width
    if data.startswith(b"\xff\xd8"):
        return _jpeg_size(data)
    at = data[:4096].find(b"\xff\x4f\xff\x51")  # the first markers of JPEG 2000
    if at >= 0 and len(data) >= at + 24:
        right, bottom, left, top = struct.unpack_from(">IIII", data, at + 8)
        return bottom - top, right - left
    return None


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF or 0xD0 <= marker <= 0xD8:  # padding, and markers without a length
            at += 1 if marker == 0xFF else 2
            continue
        if marker in _FRAMES and at + 9 <= len(data):
            height, width = struct.unpack_from(">HH", data, at + 5)
            return height, width
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None


def is_cut_jpeg(data: bytes) -> bool:
    """Whether JPEG bytes lack their end: a decoder would fill the rest with grey and say nothing."""
    return data.startswith(b"\xff\xd8") and data.rfind(b"\xff\xd9") < data.rfind(b"\xff\xda")
