"""Damaged and hostile TIFFs: an error that says what is wrong, and never numbers that are not in the file."""

from __future__ import annotations

import logging
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile

from napari_milcnn.errors import ImageError
from napari_milcnn.images.open import open_image
from napari_milcnn.images.stack import Window

ROWS = np.arange(64, dtype=np.uint8)[None].repeat(32, 0)
STRIP = zlib.compress(ROWS[:8].tobytes())


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, logger="tifffile")


def tiff(data: bytes, *pages: dict[int, list[int] | bytes], loop: int | None = None) -> bytes:
    """Write a TIFF by hand: the data at byte 8, then pages of tags; `loop` is the page that follows the last one."""
    out = bytearray(b"II*\0\0\0\0\0" + data + b"\0" * (len(data) % 2))
    link, begins = 4, []
    for tags in pages:
        begins.append(len(out))
        struct.pack_into("<I", out, link, len(out))
        link = len(out) + 2 + 12 * len(tags)
        behind, entries = b"", b""
        for code, value in sorted(tags.items()):
            raw = value if isinstance(value, bytes) else struct.pack(f"<{len(value)}I", *value)
            place = raw.ljust(4, b"\0") if len(raw) <= 4 else struct.pack("<I", link + 4 + len(behind))
            behind += raw + b"\0" * (len(raw) % 2) if len(raw) > 4 else b""
            entries += struct.pack("<HHI", code, 2 if isinstance(value, bytes) else 4, len(value)) + place
        out += struct.pack("<H", len(tags)) + entries + struct.pack("<I", 0) + behind
    if loop is not None:
        struct.pack_into("<I", out, link, begins[loop])
    return bytes(out)


def strips(offsets: list[int], counts: list[int], size: tuple[int, int] = (32, 64), **more: int) -> dict[int, Any]:
    """Return the tags of a grey page; by default it has strips of 8 rows and is compressed with deflate."""
    page = {256: [size[1]], 257: [size[0]], 258: [8], 259: [8], 262: [1], 273: offsets, 277: [1], 278: [8], 279: counts}
    return page | {int(code[1:]): [value] for code, value in more.items()}


def tiles(offsets: list[int], counts: list[int], side: int, tile: int) -> dict[int, Any]:
    """Return the tags of a grey page of compressed tiles."""
    page = {256: [side], 257: [side], 258: [8], 259: [8], 262: [1], 277: [1]}
    return page | {322: [tile], 323: [tile], 324: offsets, 325: counts}


GOOD, N = [8] * 4, [len(STRIP)] * 4
RAW = {"t259": 1, "t278": 32}


@pytest.mark.parametrize(
    ("pages", "word"),
    [
        ([strips(GOOD[:2], N[:2])], "list of strip offsets has 2 entries, but an image of this size has 4 strips"),
        ([strips(GOOD, N[:3])], "list of strip byte counts has 3 entries"),
        ([strips(GOOD, N, (1 << 27, 64), t278=1)], "an image of this size has 134217728 strips"),
        ([tiles(GOOD[:3], N[:3], 64, 32)], "list of tile offsets has 3 entries"),
        ([strips(GOOD, [N[0], 0, N[0], N[0]])], "strip 1 of 4 has the offset 8 and 0 bytes"),
        ([strips([8, 0, 8, 8], N)], f"strip 1 of 4 has the offset 0 and {N[0]} bytes"),
        ([strips([8, 8, 8, 9999], N)], "is truncated: its pixels need"),
        ([strips([8], [100], **RAW)], "its only strip or tile has 100 bytes, but the pixels need 2048"),
        ([strips([8], [N[0]], (100_000, 100_000), t278=100_000)], "declares 10000000000 bytes of pixels, more than"),
        ([strips([8], [N[0]], (40_000, 40_000), t278=40_000, t259=34712)], "too large to decode in one piece"),
        ([tiles([8] * 64, [N[0]] * 64, 1 << 17, 1 << 14)], "declares 268435456 bytes of pixels, more than"),
        ([strips(GOOD, N)] * 3, "after 3 pages it leads back to an earlier one"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_in_the_file(tmp_path: Path, pages: list[dict[int, Any]], word: str) -> None:
    """It is refused when it is opened, before any memory is taken."""
    path = tmp_path / "a.tif"
    path.write_bytes(tiff(STRIP + bytes(4000), *pages, loop=0 if len(pages) > 1 else None))
    with pytest.raises(ImageError, match=r"a\.tif") as caught:
        open_image(path)
    assert word in str(caught.value)


def test_the_files_by_hand_are_read_where_they_are_whole(tmp_path: Path) -> None:
    """So the refusals are of the damage. Strips that are declared empty read as 0, or as what GDAL says."""
    path = tmp_path / "a.tif"
    path.write_bytes(tiff(STRIP, strips(GOOD, N)))
    assert np.array_equal(open_image(path).plane(0)[0], ROWS)
    path.write_bytes(tiff(STRIP, strips([8, 0, 8, 0], [N[0], 0, N[0], 0])))
    image = open_image(path)
    assert image.warnings == ("2 of 4 strips or tiles are declared empty: they read as 0.",)
    assert np.array_equal(image.plane(0)[0, 8:16], ROWS[:8] * 0)
    path.write_bytes(tiff(STRIP, strips([8, 0, 8, 8], [N[0], 0, N[0], N[0]]) | {42113: b"255\0"}))
    image = open_image(path)
    assert image.warnings == ("1 of 4 strips or tiles are declared empty: they read as 255.",)
    assert np.array_equal(image.plane(0)[0, 8:16], ROWS[:8] * 0 + 255)
    path.write_bytes(tiff(STRIP, strips([0] * 4, [0] * 4)))
    with pytest.raises(ImageError, match="holds no pixels"):
        open_image(path)


def test_flat_images_are_read(tmp_path: Path) -> None:
    """The limits let the emptiest of images through, whatever compresses it."""
    for compression in ("zlib", "lzw", "packbits", "zstd", "lzma", "jpeg", "png"):
        options: dict[str, Any] = {"compression": compression, "tile": (1024, 1024)}
        tifffile.imwrite(tmp_path / "a.tif", np.zeros((2048, 2048), np.uint8), **options)
        assert not open_image(tmp_path / "a.tif").plane(0).any(), compression


def test_plane_counts_that_no_file_has(tmp_path: Path) -> None:
    """OME-XML may declare anything; nothing of that length is made."""
    xml = (
        b'<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0">'
        b'<Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint8" SizeX="64" SizeY="32" SizeC="1" SizeZ="1" '
        b'SizeT="2000000000"><TiffData/></Pixels></Image></OME>\0'
    )
    (tmp_path / "a.ome.tif").write_bytes(tiff(STRIP, strips(GOOD, N) | {270: xml}))
    with pytest.raises(ImageError, match="declares 2000000000 planes"):
        open_image(tmp_path / "a.ome.tif")


def test_pages_that_ome_xml_does_not_describe_are_said(tmp_path: Path) -> None:
    """They are not dropped in silence; and what a program wrote of an image is never shown raw."""
    xml = (
        b'<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0">'
        b'<Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint8" SizeX="64" SizeY="32" SizeC="1" SizeZ="1" '
        b'SizeT="1"><TiffData/></Pixels></Image></OME>\0'
    )
    (tmp_path / "a.ome.tif").write_bytes(tiff(STRIP, strips(GOOD, N) | {270: xml}, strips(GOOD, N)))
    assert open_image(tmp_path / "a.ome.tif").warnings == (
        "The file has 2 pages, its OME-XML describes 1; the others are left out.",
    )
    text = b"ImageJ=1.54f\ncf=0\nc0=1\nvunit=\x1b[31m" + b"x" * 99 + b"\n\0"
    (tmp_path / "b.tif").write_bytes(tiff(STRIP, strips(GOOD, N) | {270: text}))
    (said,) = open_image(tmp_path / "b.tif").warnings
    assert "into \\x1b[31mxx" in said
    assert len(said) < 250


def _cut(data: bytes) -> bytes:
    return data[: len(data) * 2 // 3]


def _huge(data: bytes) -> bytes:
    at = data.find(b"\xff\xc0")
    return data[: at + 5] + struct.pack(">HH", 65000, 65000) + data[at + 9 :]


@pytest.mark.parametrize(
    ("compression", "encode", "damage", "word"),
    [
        (7, imagecodecs.jpeg8_encode, _cut, "JPEG lacks its end"),
        (7, imagecodecs.jpeg8_encode, _huge, "holds 65000 x 65000 px, expected at most 32 x 64"),
        (34934, imagecodecs.jpegxr_encode, _cut, "JPEG XR lacks its end"),
        (34712, imagecodecs.jpeg2k_encode, _cut, "cannot be read"),
        (8, lambda pixels: zlib.compress(pixels.tobytes()), _cut, "cannot be read"),
        (5, lambda pixels: imagecodecs.lzw_encode(pixels.tobytes()), _cut, "cannot be read"),
        (32773, lambda pixels: imagecodecs.packbits_encode(pixels.tobytes()), _cut, "cannot be read"),
        (50000, lambda pixels: imagecodecs.zstd_encode(pixels.tobytes()), _cut, "cannot be read"),
        (34925, lambda pixels: imagecodecs.lzma_encode(pixels.tobytes()), _cut, "cannot be read"),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_a_strip_that_is_cut_short(
    tmp_path: Path, compression: int, encode: Callable[[np.ndarray], bytes], damage: Callable[[bytes], bytes], word: str
) -> None:
    """It is an error, and is not filled up; whole, it is read."""
    noise = np.random.default_rng(0).integers(0, 255, (32, 64), dtype=np.uint8)
    path = tmp_path / "a.tif"
    for change, wanted in ((bytes, ""), (damage, word)):
        data = change(encode(noise))
        path.write_bytes(tiff(data, strips([8], [len(data)], t259=compression, t278=32)))
        with open_image(path) as image:
            if not wanted:
                assert image.plane(0).std() > 1
                continue
            with pytest.raises(ImageError, match="copy the file again, or export it") as caught:
                image.plane(0, window=Window(0, 8, 0, 8))
            assert wanted in str(caught.value)
