"""Images of every kind written, opened, and compared with the numbers that were written."""

from __future__ import annotations

import gc
import logging
import os
import struct
import subprocess
import sys
import threading
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import dask.array
import imageio.v3 as iio
import numpy as np
import pytest
import tifffile
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from imagecodecs import png_encode
from PIL import Image

from conftest import SHARED
from napari_milcnn.errors import ImageError, OptionsError
from napari_milcnn.images.channels import match_channels
from napari_milcnn.images.lazy_array import LazyArray
from napari_milcnn.images.ome_zarr import plate_wells
from napari_milcnn.images.open import ImageReading, maximum_projection, open_image
from napari_milcnn.images.stack import ImageStack, PlaneIndex, only_planes

REAL = SHARED / "data" / "bbbc016" / "images"
TCYX = np.random.default_rng(0).integers(0, 60000, (3, 2, 40, 50), dtype=np.uint16)
RGB = np.random.default_rng(1).integers(0, 255, (20, 30, 3), dtype=np.uint8)


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, logger="tifffile")


def write_tiff(path: Path, array: np.ndarray, axes: str | None = None, **options: Any) -> Path:
    """Write with tifffile and return the path."""
    metadata = {**options.pop("metadata", {}), **({"axes": axes} if axes else {})}
    options.setdefault("photometric", "minisblack")
    tifffile.imwrite(path, array, metadata=metadata or None, **options)
    return path


def every_plane(image: ImageStack) -> np.ndarray:
    """Read all planes: (planes, channels, Y, X)."""
    return np.stack([image.plane(i) for i in range(len(image.planes))])  # (planes, channels, Y, X)


def bytes_read() -> int:
    """Count the bytes that this process has read by system calls."""
    return int(Path("/proc/self/io").read_text().split()[1])


# TIFF

TIFFS = {
    "ome": {"ome": True},
    "ome tiled": {"ome": True, "tile": (16, 16), "compression": "lzw", "predictor": True},
    "ome strips": {"ome": True, "rowsperstrip": 7, "compression": "zlib"},
    "imagej": {"imagej": True},
    "imagej compressed": {"imagej": True, "compression": "zlib"},
    "imagej big-endian": {"imagej": True, "byteorder": ">"},
    "shaped": {},
    "shaped compressed": {"compression": "zstd"},
    "shaped tiled": {"tile": (32, 16)},
    "big-endian": {"byteorder": ">", "compression": "zlib"},
    "bigtiff": {"bigtiff": True},
}


@pytest.mark.parametrize("kind", TIFFS)
def test_tiff_reads_back(tmp_path: Path, kind: str) -> None:
    """Every layout of TIFF gives back the numbers, axes and planes that were written."""
    path = write_tiff(tmp_path / "a.ome.tif", TCYX, "TCYX", **TIFFS[kind])
    with open_image(path) as image:
        assert (image.name, image.path, image.axes, image.shape) == ("a", path, "TCYX", TCYX.shape)
        assert image.dtype == np.uint16
        assert image.planes == (PlaneIndex(0, 0, 0), PlaneIndex(0, 1, 0), PlaneIndex(0, 2, 0))
        assert [image.plane_name(i) for i in range(3)] == ["T0", "T1", "T2"]
        assert image.plane_shape == (40, 50)
        assert image.channels == ("channel 0", "channel 1")
        assert not image.channels_named
        np.testing.assert_array_equal(every_plane(image), TCYX)
        np.testing.assert_array_equal(np.asarray(image.data), TCYX)
        part = image.plane(-1, channels=[1, 0], window=(3, 9, 20, 44))
        np.testing.assert_array_equal(part, TCYX[2, [1, 0], 3:9, 20:44])
        assert part.dtype == np.uint16
        assert part.dtype.isnative
        assert part.flags.c_contiguous
        part[:] = 0
    with open_image(path) as image:
        np.testing.assert_array_equal(image.plane(2), TCYX[2])


@pytest.mark.parametrize(
    "dtype", ["u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8", "?"], ids=lambda name: name
)
def test_tiff_types(tmp_path: Path, dtype: str) -> None:
    """Every plain type of pixel is kept, mapped or decoded."""
    array = TCYX[0, 0].astype(dtype) if dtype != "?" else TCYX[0, 0] > 30000
    array[np.isinf(array.astype(float))] = 0
    for options in ({}, {"compression": "zlib"}):
        with open_image(write_tiff(tmp_path / "a.tif", array, **options)) as image:
            assert image.dtype == np.dtype(dtype)
            np.testing.assert_array_equal(image.plane(0), array[None])


def test_tiff_other_type_is_refused(tmp_path: Path) -> None:
    """Complex pixels are no image."""
    path = write_tiff(tmp_path / "a.tif", np.ones((8, 8), np.complex64))
    with pytest.raises(ImageError, match=r"a\.tif: the pixels are of type complex64; expected whole numbers"):
        open_image(path)


@pytest.mark.parametrize("options", [{}, {"compression": "zlib"}, {"tile": (16, 16)}], ids=str)
@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_tiff_rgb(tmp_path: Path, options: dict[str, Any], planar: str) -> None:
    """Colour samples become three named channels, whether they lie together or apart."""
    array = RGB if planar == "contig" else np.moveaxis(RGB, -1, 0)
    path = write_tiff(tmp_path / "a.tif", array, photometric="rgb", planarconfig=planar, **options)
    with open_image(path) as image:
        assert (image.axes, image.shape) == ("CYX", (3, 20, 30))
        assert image.channels == ("red", "green", "blue")
        assert image.channels_named
        np.testing.assert_array_equal(image.plane(0), np.moveaxis(RGB, -1, 0))
        np.testing.assert_array_equal(image.plane(0, [2, 0], (1, 5, 2, 9)), np.moveaxis(RGB, -1, 0)[[2, 0], 1:5, 2:9])


def test_tiff_alpha_is_left_out(tmp_path: Path) -> None:
    """Alpha is no channel, unless the caller names it."""
    array = np.dstack([RGB, np.full(RGB.shape[:2], 255, np.uint8)])
    path = write_tiff(tmp_path / "a.tif", array, photometric="rgb", extrasamples=["unassalpha"])
    with open_image(path) as image:
        assert image.shape == (3, 20, 30)
        assert image.warnings == ("The alpha sample is left out.",)
        np.testing.assert_array_equal(image.plane(0), np.moveaxis(RGB, -1, 0))
    with open_image(path, channels=["a", "b", "c", "d"]) as image:
        assert image.channels == ("a", "b", "c", "d")
        assert image.plane(0)[3].min() == 255


def test_samples_that_are_no_colours(tmp_path: Path) -> None:
    """Five samples without colour are five channels without names."""
    array = np.dstack([RGB, RGB])[..., :5]
    path = write_tiff(tmp_path / "a.tif", array, planarconfig="contig")
    with open_image(path) as image:
        assert image.channels == tuple(f"channel {i}" for i in range(5))
        np.testing.assert_array_equal(image.plane(0), np.moveaxis(array, -1, 0))


def test_channels_with_samples_fold(tmp_path: Path) -> None:
    """Where there are channels of samples, each sample is a channel."""
    array = np.stack([RGB, RGB // 2])  # (C, Y, X, S)
    folded = np.moveaxis(array, -1, 1).reshape(6, 20, 30)
    names = ("GFP red", "GFP green", "GFP blue", "RFP red", "RFP green", "RFP blue")
    metadata = {"Channel": {"Name": ["GFP", "RFP"]}}
    path = write_tiff(tmp_path / "a.ome.tif", array, "CYXS", ome=True, photometric="rgb", metadata=metadata)
    with open_image(path) as image:
        assert (image.axes, image.shape, image.channels) == ("CYX", (6, 20, 30), names)
        np.testing.assert_array_equal(image.plane(0), folded)
        np.testing.assert_array_equal(image.plane(0, [1, 4]), folded[[1, 4]])
        np.testing.assert_array_equal(image.plane(0, [5, 2]), folded[[5, 2]])
        np.testing.assert_array_equal(image.data[2:5, 3, ::2], folded[2:5, 3, ::2])
    image = open_image(array, axes="CYXS")
    assert image.channels[3:] == ("channel 1 red", "channel 1 green", "channel 1 blue")
    np.testing.assert_array_equal(image.plane(0), folded)


def test_plain_pages_are_asked_about(tmp_path: Path) -> None:
    """Pages without metadata are never guessed to be channels or time."""
    path = write_tiff(tmp_path / "a.tif", TCYX[:, 0])
    with pytest.raises(ImageError) as caught:
        open_image(path)
    assert str(caught.value) == (
        f"{path}: shape (3, 40, 50) with the axes IYX does not tell which axis is which; say it, one letter per axis "
        "out of P (position), T, Z, C, Y, X and S (colour samples): for example "
        'axes="CYX" or axes="TYX" (command line: --axes CYX)'
    )
    with open_image(path, axes="tyx") as image:
        np.testing.assert_array_equal(every_plane(image)[:, 0], TCYX[:, 0])
    with open_image(path, axes="CYX") as image:
        np.testing.assert_array_equal(image.plane(0), TCYX[:, 0])


def test_tiff_axes_in_another_order(tmp_path: Path) -> None:
    """Axes come out in the house's order, whatever their order on disk."""
    path = write_tiff(tmp_path / "a.tif", TCYX, "ZTYX", compression="zlib")
    with open_image(path) as image:
        assert (image.axes, image.shape) == ("TZYX", (2, 3, 40, 50))
        assert image.plane_name(4) == "T1 Z1"
        np.testing.assert_array_equal(image.plane(4), TCYX[1, 1][None])
    with open_image(path, axes="YXCZ") as image:
        assert image.shape == (50, 40, 3, 2)
        np.testing.assert_array_equal(image.plane(7), TCYX[..., 7].transpose(2, 0, 1))


def test_axes_of_length_1_with_other_letters_go(tmp_path: Path) -> None:
    """An unknown axis of length 1 is dropped, a longer one is asked about."""
    path = write_tiff(tmp_path / "a.tif", TCYX[:1], "HCYX")
    with open_image(path) as image:
        assert (image.axes, image.shape) == ("CYX", (2, 40, 50))
    with pytest.raises(ImageError, match=r"with the axes HCYX does not tell .* axes=\"ZCYX\" or axes=\"TCYX\""):
        open_image(write_tiff(tmp_path / "b.tif", TCYX, "HCYX"))


@pytest.mark.parametrize("subifds", [0, 2])
@pytest.mark.parametrize("ome", [False, True])
def test_pyramid_opens_at_full_size(tmp_path: Path, subifds: int, ome: bool) -> None:
    """Of a pyramid the full size is opened."""
    array = np.random.default_rng(3).integers(0, 255, (2, 128, 96), dtype=np.uint8)
    path = tmp_path / "a.ome.tif"
    with tifffile.TiffWriter(path, ome=ome) as tif:
        options = {"photometric": "minisblack", "tile": (32, 32), "compression": "zlib"}
        tif.write(array, subifds=subifds, metadata={"axes": "CYX"}, **options)
        for step in (2, 4)[:subifds]:
            tif.write(array[:, ::step, ::step], subfiletype=1, metadata={"axes": "CYX"}, **options)
    with open_image(path) as image:
        assert image.shape == array.shape
        np.testing.assert_array_equal(image.plane(0), array)


def test_pyramid_without_axes_is_asked_about(tmp_path: Path) -> None:
    """A pyramid whose metadata is broken still opens, with the caller's axes."""
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as tif:
        tif.write(TCYX[0], subifds=1, metadata={"axes": "CYX"}, photometric="minisblack")
        tif.write(TCYX[0, :, ::2, ::2], subfiletype=1, metadata=None, photometric="minisblack")
    with pytest.raises(ImageError, match="with the axes IYX does not tell"):
        open_image(path)
    np.testing.assert_array_equal(open_image(path, axes="CYX").plane(0), TCYX[0])


def test_alike_series_are_positions(tmp_path: Path) -> None:
    """Images alike in one file are positions; series= picks one."""
    path = tmp_path / "a.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as tif:
        for name, compression in (("left", None), ("right", "zlib")):
            metadata = {"axes": "CYX", "Name": name, "Channel": {"Name": ["GFP", "RFP"]}}
            scale = 1 if name == "left" else 2
            tif.write(TCYX[0] // scale, metadata=metadata, photometric="minisblack", compression=compression)
    with open_image(path) as image:
        assert (image.axes, image.shape) == ("PCYX", (2, 2, 40, 50))
        assert image.position_names == ("left", "right")
        assert image.channels == ("GFP", "RFP")
        assert image.plane_name(1) == "P1"
        np.testing.assert_array_equal(image.plane(1), TCYX[0] // 2)
        np.testing.assert_array_equal(image.data[:, 1, 4:6], np.stack([TCYX[0, 1, 4:6], TCYX[0, 1, 4:6] // 2]))
    with open_image(path, series=1) as image:
        assert image.axes == "CYX"
        np.testing.assert_array_equal(image.plane(0), TCYX[0] // 2)


def test_series_that_differ_are_listed(tmp_path: Path) -> None:
    """Images that differ are listed, and one has to be chosen."""
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as tif:
        tif.write(TCYX[0, 0], metadata={"axes": "YX"})
        tif.write(RGB, photometric="rgb")
    with pytest.raises(ImageError, match=r"holds 2 images that differ; choose one by series=0.*YX \(40, 50\); 1:"):
        open_image(path)
    with pytest.raises(ImageError, match="series=2 does not exist"):
        open_image(path, series=2)
    with open_image(path, series=1) as image:
        np.testing.assert_array_equal(image.plane(0), np.moveaxis(RGB, -1, 0))


def write_ome_set(folder: Path) -> Path:
    """Write two files, one channel each, that describe each other."""
    names, data = ("a.ome.tif", "b.ome.tif"), "".join
    tiffdata = data(
        f'<TiffData FirstC="{i}" IFD="0" PlaneCount="1"><UUID FileName="{name}">urn:uuid:{i}</UUID></TiffData>'
        for i, name in enumerate(names)
    )
    for i, name in enumerate(names):
        xml = (
            f'<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:{i}">'
            '<Image ID="Image:0" Name="set"><Pixels DimensionOrder="XYCZT" ID="Pixels:0" SizeC="2" SizeT="1" SizeX="50"'
            ' SizeY="40" SizeZ="1" Type="uint16" PhysicalSizeX="65" PhysicalSizeXUnit="nm" PhysicalSizeY="0.065">'
            '<Channel ID="Channel:0:0" Name="GFP"/><Channel ID="Channel:0:1" Fluor="RFP"/>'
            f"{tiffdata}</Pixels></Image></OME>"
        )
        tifffile.imwrite(folder / name, TCYX[0, i], description=xml, metadata=None, compression="zlib")
    return folder / names[0]


def test_set_of_ome_files(tmp_path: Path) -> None:
    """Channels in files of their own come together."""
    with open_image(write_ome_set(tmp_path)) as image:
        assert (image.axes, image.channels, image.channels_named) == ("CYX", ("GFP", "RFP"), True)
        assert image.pixel_size == pytest.approx(0.065)
        np.testing.assert_array_equal(image.plane(0), TCYX[0])


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_set_of_ome_files_with_a_position_each(tmp_path: Path, compression: str | None) -> None:
    """Positions in files of their own are read from their own files, whichever is opened."""
    images = "".join(
        f'<Image ID="Image:{i}" Name="p{i}"><Pixels DimensionOrder="XYCZT" ID="Pixels:{i}" SizeC="1" SizeT="1" '
        f'SizeX="50" SizeY="40" SizeZ="1" Type="uint16"><Channel ID="Channel:{i}:0" Name="GFP"/>'
        f'<TiffData IFD="0" PlaneCount="1"><UUID FileName="p{i}.ome.tif">urn:uuid:{i}</UUID></TiffData>'
        "</Pixels></Image>"
        for i in range(2)
    )
    for i in range(2):
        xml = (
            '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" '
            f'UUID="urn:uuid:{i}">{images}</OME>'
        )
        options: dict[str, Any] = {"metadata": None, "compression": compression}
        tifffile.imwrite(tmp_path / f"p{i}.ome.tif", TCYX[0, i], description=xml, **options)
    for i in range(2):
        with open_image(tmp_path / f"p{i}.ome.tif") as image:
            assert (image.axes, image.position_names, image.channels) == ("PYX", ("p0", "p1"), ("GFP",))
            np.testing.assert_array_equal(every_plane(image)[:, 0], TCYX[0])


def test_missing_file_of_a_set_is_no_zeros(tmp_path: Path) -> None:
    """What lies in a missing file is an error, the rest is read."""
    path = write_ome_set(tmp_path)
    (tmp_path / "b.ome.tif").unlink()
    with open_image(path) as image:
        assert image.warnings == ("1 of 2 pages are missing: reading them is an error.",)
        np.testing.assert_array_equal(image.plane(0, [0]), TCYX[0, :1])
        with pytest.raises(ImageError, match=r"a\.ome\.tif: the pixels cannot be read: the page, strip or tile is mis"):
            image.plane(0)


@pytest.mark.parametrize("kind", [*TIFFS, "plain", "plain strips", "plain tiled"])
def test_truncated_tiff_is_an_error_or_whole(tmp_path: Path, kind: str) -> None:
    """A file cut anywhere is refused in one sentence, or none of its pixels was lost."""
    plain = kind.startswith("plain")
    options = {**TIFFS, "plain strips": {"rowsperstrip": 9}, "plain tiled": {"tile": (16, 16)}}.get(kind, {})
    array = TCYX[:, 0] if plain else TCYX
    raw = write_tiff(tmp_path / "a.tif", array, None if plain else "TCYX", **options).read_bytes()
    expected = TCYX[:, :1] if plain else TCYX
    path = tmp_path / "b.tif"
    messages = []
    for cut in sorted({*range(3, len(raw), len(raw) // 25), *range(len(raw) - 20, len(raw))}):
        path.write_bytes(raw[:cut])
        try:
            with open_image(path, axes="TYX" if plain else None) as image:
                np.testing.assert_array_equal(every_plane(image), expected)
        except ImageError as error:
            messages.append(str(error))
    assert len(messages) > 20
    assert all(str(path) in message and "\n" not in message for message in messages)


def test_damaged_tiff_raises_nothing_else(tmp_path: Path) -> None:
    """Random damage in the header never raises a foreign error."""
    rng = np.random.default_rng(5)
    for options in (TIFFS["ome tiled"], TIFFS["imagej"], TIFFS["shaped compressed"]):
        raw = write_tiff(tmp_path / "a.tif", TCYX, "TCYX", **options).read_bytes()
        for _ in range(25):
            damaged = bytearray(raw)
            for at in rng.integers(4, 1200, 3):
                damaged[at] = rng.integers(0, 256)
            (tmp_path / "b.tif").write_bytes(damaged)
            try:
                with open_image(tmp_path / "b.tif") as image:
                    image.plane(0, window=(0, 1, 0, 1))
            except ImageError:
                pass


def test_damaged_strip_names_the_plane(tmp_path: Path) -> None:
    """A damaged strip spoils its own plane and channel only."""
    path = write_tiff(tmp_path / "a.tif", TCYX, "TCYX", compression="zlib")
    with tifffile.TiffFile(path) as tif:
        start, count = tif.pages[3].dataoffsets[0], tif.pages[3].databytecounts[0]
    with path.open("r+b") as file:
        file.seek(start)
        file.write(b"\0" * count)
    with open_image(path) as image:
        np.testing.assert_array_equal(image.plane(0), TCYX[0])
        with pytest.raises(ImageError, match=r"a\.tif, T1: the pixels cannot be read: "):
            image.plane(1)
        np.testing.assert_array_equal(image.plane(1, [0]), TCYX[1, :1])


def set_tile(path: Path, tile: int, offset: int, count: int) -> None:
    """Overwrite where the file says that a tile is."""
    with tifffile.TiffFile(path) as tif:
        tags = tif.pages[0].tags
        places = [(tags[324], offset), (tags[325], count)]
    for tag, value in places:
        width = {3: 2, 4: 4, 16: 8}[int(tag.dtype)]
        with path.open("r+b") as file:
            file.seek(tag.valueoffset + tile * width)
            file.write(value.to_bytes(width, "little"))


def test_tiles_declared_empty_read_as_0(tmp_path: Path) -> None:
    """Sparse tiles read as 0 with a note; tiles past the end of the file are an error."""
    array = TCYX[0, 0, :32, :32]
    path = write_tiff(tmp_path / "a.tif", array, tile=(16, 16))
    set_tile(path, 1, 0, 0)
    with open_image(path) as image:
        assert image.warnings == ("1 of 4 strips or tiles are declared empty: they read as 0.",)
        expected = array.copy()
        expected[:16, 16:] = 0
        np.testing.assert_array_equal(image.plane(0)[0], expected)
    set_tile(path, 1, 10**6, 100)
    with pytest.raises(ImageError, match=r"a\.tif is truncated: its pixels need 1000100 bytes, the file has"):
        open_image(path)
    for tile in range(4):
        set_tile(path, tile, 0, 0)
    with pytest.raises(ImageError, match="holds no pixels: all its strips or tiles are empty"):
        open_image(path)


def write_huge_tiff(path: Path, side: int, tile: int, rows: int, columns: int, value: int) -> None:
    """Write a sparse tiled BigTIFF of `side` squared uint16 pixels; only one tile takes space on the disk."""
    across = -(-side // tile)
    nbytes = tile * tile * 2
    count = across * across
    tail = 16 + count * nbytes  # offsets, byte counts, then the page
    tags = [
        (256, 4, 1, side),
        (257, 4, 1, side),
        (258, 3, 1, 16),
        (259, 3, 1, 1),
        (262, 3, 1, 1),
        (277, 3, 1, 1),
        (322, 4, 1, tile),
        (323, 4, 1, tile),
        (324, 16, count, tail),
        (325, 16, count, tail + 8 * count),
    ]
    with path.open("wb") as file:
        file.write(struct.pack("<2sHHHQ", b"II", 43, 8, 0, tail + 16 * count))
        file.seek(16 + (rows // tile * across + columns // tile) * nbytes)
        file.write(np.full(nbytes // 2, value, "<u2").tobytes())
        file.seek(tail)
        file.write((16 + np.arange(count, dtype="<u8") * nbytes).tobytes())
        file.write(np.full(count, nbytes, "<u8").tobytes())
        file.write(struct.pack("<Q", len(tags)) + b"".join(struct.pack("<HHQQ", *tag) for tag in tags) + bytes(8))


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="the bytes read are counted by Linux")
def test_window_of_a_20_gb_tiff_reads_little(tmp_path: Path) -> None:
    """Opening 20 GB and reading a window costs a few tiles."""
    path = tmp_path / "huge.tif"
    write_huge_tiff(path, 100_352, 512, 70_000, 30_000, 7)
    assert path.stat().st_size > 20e9
    open_image(write_tiff(tmp_path / "small.tif", TCYX[0, 0], tile=(16, 16), compression="zlib")).plane(0)  # imports
    before = bytes_read()
    with open_image(path) as image:
        assert image.shape == (100_352, 100_352)
        opened = bytes_read()
        assert opened - before < 2e6
        window = image.plane(0, window=(70_000, 70_010, 30_000, 30_020))
        assert bytes_read() - opened < 1.1e6  # one tile of 512 KiB, buffered
        assert window.shape == (1, 10, 20)
        assert (window == 7).all()


def test_uncompressed_run_is_memory_mapped(tmp_path: Path) -> None:
    """Pixels in one uncompressed run are mapped; a plane is still a copy."""
    path = tmp_path / "flat.tif"
    tifffile.imwrite(path, TCYX[0, 0], metadata=None)
    with open_image(path) as image:
        assert isinstance(image.data, np.memmap)
        assert not isinstance(image.plane(0), np.memmap)
        assert not np.shares_memory(image.plane(0), image.data)


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="the bytes read are counted by Linux")
def test_only_the_plane_and_channels_wanted_are_read(tmp_path: Path) -> None:
    """One channel of one plane costs its own strips."""
    array = np.random.default_rng(7).integers(0, 65535, (20, 3, 128, 128), dtype=np.uint16)
    path = write_tiff(tmp_path / "a.ome.tif", array, "TCYX", ome=True, compression="zlib")
    with open_image(path) as image:
        image.plane(0, [0])
        before = bytes_read()
        image.plane(13, [1])
        assert bytes_read() - before < 2 * 128 * 128 * 2


# Names and sizes in TIFF


@pytest.mark.parametrize(
    ("size", "unit", "expected"),
    [
        (0.65, "µm", 0.65),
        (650, "nm", 0.65),
        (0.00065, "mm", 0.65),
        (6.5e-5, "cm", 0.65),
        (6500, "Å", 0.65),
        (6.5e-7, "m", 0.65),
        (650000, "pm", 0.65),
        (2.559055118e-05, "in", 0.65),
        (0.65, "pixel", None),
        (0.65, "reference frame", None),
    ],
)
def test_ome_pixel_size(tmp_path: Path, size: float, unit: str, expected: float | None) -> None:
    """Every unit of length comes out in µm; what is no length is not known."""
    metadata = {f"PhysicalSize{axis}": size for axis in "XY"} | {f"PhysicalSize{axis}Unit": unit for axis in "XY"}
    path = write_tiff(tmp_path / "a.ome.tif", TCYX[0], "CYX", ome=True, metadata=metadata)
    assert open_image(path).pixel_size == (expected and pytest.approx(expected))
    assert open_image(path, pixel_size=0.3).pixel_size == 0.3


def test_ome_pixels_that_are_not_square(tmp_path: Path) -> None:
    """The mean of two sides is used, and said."""
    metadata = {"PhysicalSizeX": 0.6, "PhysicalSizeY": 0.8}
    image = open_image(write_tiff(tmp_path / "a.ome.tif", TCYX[0], "CYX", ome=True, metadata=metadata))
    assert image.pixel_size == pytest.approx(0.7)
    assert image.warnings == ("The pixels are not square (Y 0.8 µm, X 0.6 µm); the mean, 0.7 µm, is used.",)


@pytest.mark.parametrize(
    ("unit", "per_unit", "expected"),
    [
        ("micron", 2.0, 0.5),
        ("\\u00B5m", 4.0, 0.25),
        ("um", 2.0, 0.5),
        ("nm", 0.002, 0.5),
        ("mm", 2000.0, 0.5),
        ("cm", 20000.0, 0.5),
        ("inch", 50800.0, 0.5),
        ("inch", 72.0, None),
        ("inch", 300.0, None),
        ("pixel", 2.0, None),
        ("", 2.0, None),
    ],
)
def test_imagej_pixel_size(tmp_path: Path, unit: str, per_unit: float, expected: float | None) -> None:
    """ImageJ writes pixels per unit."""
    options = {"imagej": True, "resolution": (per_unit, per_unit), "metadata": {"unit": unit} if unit else {}}
    path = write_tiff(tmp_path / "a.tif", TCYX[0], "CYX", **options)
    assert open_image(path).pixel_size == (expected and pytest.approx(expected, rel=1e-4))


@pytest.mark.parametrize(
    ("unit", "per_unit", "expected"),
    [
        ("centimeter", 20000, 0.5),
        ("centimeter", 118.11, None),
        ("centimeter", 28.3465, None),
        ("centimeter", 50, None),
        ("inch", 72, None),
        ("inch", 96, None),
        ("inch", 300, None),
        ("inch", 1200, None),
        ("inch", 50800, 0.5),
        ("none", 2, None),
    ],
)
def test_plain_tiff_pixel_size(tmp_path: Path, unit: str, per_unit: float, expected: float | None) -> None:
    """A printing resolution is no pixel size."""
    path = write_tiff(tmp_path / "a.tif", TCYX[0, 0], resolution=(per_unit, per_unit), resolutionunit=unit)
    assert open_image(path).pixel_size == (expected and pytest.approx(expected, rel=1e-4))


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (["GFP", "RFP"], ("GFP", "RFP")),
        (["c:1/2 - field", "c:2/2 - field"], None),
        (["a.tif", "b.tif"], None),
        (["same", "same"], None),
        (["one"], None),
    ],
)
def test_imagej_labels(tmp_path: Path, labels: list[str], expected: tuple[str, ...] | None) -> None:
    """Slice labels are channel names only where they look like names."""
    path = write_tiff(tmp_path / "a.tif", TCYX[0], "CYX", imagej=True, metadata={"Labels": labels})
    with open_image(path) as image:
        assert image.channels == (expected or ("channel 0", "channel 1"))
        assert image.channels_named == (expected is not None)


def test_numbers_are_no_channel_names(tmp_path: Path) -> None:
    """Names that are just numbers are kept, but count as unnamed."""
    metadata = {"Channel": {"Name": ["Channel:0:0", "Channel:0:1"]}}
    image = open_image(write_tiff(tmp_path / "a.ome.tif", TCYX[0], "CYX", ome=True, metadata=metadata))
    assert image.channels == ("Channel:0:0", "Channel:0:1")
    assert not image.channels_named


# OME-Zarr and zarr


def write_ome_zarr(path: Path, array: np.ndarray, version: int, **extra: Any) -> Path:
    """Write two levels, the second of half size."""
    zarr_format = 2 if version == 4 else 3
    group = zarr.open_group(path, mode="w", zarr_format=zarr_format)
    for level, data in enumerate((array, array[..., ::2, ::2])):
        chunks = (1,) * (array.ndim - 2) + (16, 16)
        zarr.create_array(path / str(level), data=data, chunks=chunks, zarr_format=zarr_format)
    kinds = {"t": "time", "c": "channel"}
    names = extra.pop("axes", "tczyx"[-array.ndim :])
    axes = [{"name": name, "type": kinds.get(name, "space")} for name in names]
    for axis in axes:
        if axis["type"] == "space" and extra.get("unit", "nanometer"):
            axis["unit"] = extra.get("unit", "nanometer")
    scale = [325.0 if name in "yx" else 1.0 for name in names]
    datasets = [
        {"path": str(i), "coordinateTransformations": [{"type": "scale", "scale": [s * f for s in scale]}]}
        for i, f in enumerate((1, 2))
    ]
    whole = [{"type": "scale", "scale": [2.0 if name in "yx" else 1.0 for name in names]}]
    labels = extra.get("labels", ["GFP", "RFP"])
    ome = {
        "multiscales": [{"axes": axes, "datasets": datasets, "coordinateTransformations": whole}],
        "omero": {"channels": [{"label": label, "color": "FF0000"} for label in labels]},
    }
    group.attrs.update({"ome": {"version": "0.5", **ome}} if version == 5 else ome)
    return path


@pytest.mark.parametrize("version", [4, 5])
def test_ome_zarr_reads_back(tmp_path: Path, version: int) -> None:
    """OME-Zarr 0.4 and 0.5: level 0, its axes, names and pixel size."""
    array = TCYX[:, :, None]  # (T, C, Z, Y, X)
    with open_image(str(write_ome_zarr(tmp_path / "a.ome.zarr", array, version))) as image:
        assert (image.name, image.axes, image.shape) == ("a", "TZCYX", (3, 1, 2, 40, 50))
        assert image.channels == ("GFP", "RFP")
        assert image.pixel_size == pytest.approx(0.65)
        assert image.plane_name(2) == "T2 Z0"
        np.testing.assert_array_equal(every_plane(image), TCYX)
        np.testing.assert_array_equal(image.plane(1, [1], (3, 20, 7, 31)), TCYX[1, 1:, 3:20, 7:31])
        np.testing.assert_array_equal(np.asarray(image.data), array.swapaxes(1, 2))


def test_ome_zarr_reads_only_the_chunks_it_needs(tmp_path: Path) -> None:
    """All chunks but one are spoilt, and a window in that one is read."""
    path = write_ome_zarr(tmp_path / "a.zarr", TCYX, 5, axes="tcyx")
    chunks = [each for each in (path / "0").rglob("*") if each.is_file() and each.name != "zarr.json"]
    needed = path / "0" / "c" / "1" / "0" / "1" / "2"
    for chunk in set(chunks) - {needed}:
        chunk.write_bytes(b"not a chunk")
    with open_image(path) as image:
        np.testing.assert_array_equal(image.plane(1, [0], (20, 30, 35, 45)), TCYX[1, :1, 20:30, 35:45])
        with pytest.raises(ImageError, match=r"a\.zarr, T0: the pixels cannot be read: "):
            image.plane(0)


def test_ome_zarr_scale_without_unit_is_not_taken(tmp_path: Path) -> None:
    """A scale without unit is no pixel size, and said."""
    image = open_image(write_ome_zarr(tmp_path / "a.zarr", TCYX[0], 5, axes="cyx", unit=None))
    assert image.pixel_size is None
    assert image.warnings == ("The scale 650 has no unit; if it is in µm, give pixel_size=650.",)


def test_ome_zarr_labels_of_a_wrong_count_are_not_names(tmp_path: Path) -> None:
    """One label for two channels names neither."""
    image = open_image(write_ome_zarr(tmp_path / "a.zarr", TCYX[0], 4, axes="cyx", labels=["one"]))
    assert image.channels == ("channel 0", "channel 1")


@pytest.mark.parametrize("version", [2, 3])
def test_groups_that_are_no_image(tmp_path: Path, version: int) -> None:
    """Plates, wells, labels and plain groups say what they are and what to open."""

    def group(name: str, attributes: dict[str, Any]) -> Path:
        made = zarr.open_group(tmp_path / name, mode="w", zarr_format=version)
        made.attrs.update({"ome": attributes} if version == 3 else attributes)
        return tmp_path / name

    plate = group("plate.zarr", {"plate": {"wells": [{"path": "B/3"}]}})
    with pytest.raises(ImageError, match=r"an OME-Zarr plate of 1 wells; open one field, for example .*B.3.0"):
        open_image(plate)
    with pytest.raises(ImageError, match="a well of an OME-Zarr plate; open one of its fields: 0, 1"):
        open_image(group("well.zarr", {"well": {"images": [{"path": "0"}, {"path": "1"}]}}))
    with pytest.raises(ImageError, match="the group of labels of an OME-Zarr image; open the image"):
        open_image(group("labels", {"labels": ["cells"]}))
    zarr.save_array(str(group("plain.zarr", {}) / "pixels"), TCYX, zarr_format=version)
    with pytest.raises(ImageError, match=r"without the metadata of an OME-Zarr image; .*\(it holds pixels\)"):
        open_image(tmp_path / "plain.zarr")


def test_bioformats2raw_layout(tmp_path: Path) -> None:
    """A folder of numbered images opens its only one, or the one asked for."""
    path = tmp_path / "a.zarr"
    zarr.open_group(path, mode="w", zarr_format=2).attrs["bioformats2raw.layout"] = 3
    write_ome_zarr(path / "0", TCYX[0], 4, axes="cyx")
    assert open_image(path).name == "a"
    assert open_image(path / "0").name == "a_0"
    write_ome_zarr(path / "1", TCYX[1], 4, axes="cyx")
    with pytest.raises(ImageError, match=r"holds 2 images; choose one by series=0, \.\.\. out of 0, 1"):
        open_image(path)
    np.testing.assert_array_equal(open_image(path, series=1).plane(0), TCYX[1])


def test_plain_zarr_array(tmp_path: Path) -> None:
    """A zarr array opens with the caller's axes or its own dimension names."""
    zarr.save_array(str(tmp_path / "a.zarr"), TCYX[0], zarr_format=2)
    with pytest.raises(ImageError, match=r'a\.zarr: shape \(2, 40, 50\) does not tell .* axes="CYX" or axes="TYX"'):
        open_image(tmp_path / "a.zarr")
    np.testing.assert_array_equal(open_image(tmp_path / "a.zarr", axes="CYX").plane(0), TCYX[0])
    named = zarr.create_array(tmp_path / "b.zarr", data=TCYX, dimension_names=["time", "channel", "y", "x"])
    assert open_image(tmp_path / "b.zarr").axes == "TCYX"
    assert open_image(named).axes == "TCYX"


def test_folder_that_is_no_zarr(tmp_path: Path) -> None:
    """A plain folder is refused with what to do."""
    with pytest.raises(ImageError, match=r"is a folder, but no OME-Zarr or zarr image .*; give one image, or on"):
        open_image(tmp_path)


def test_damaged_zarr(tmp_path: Path) -> None:
    """Broken metadata is one sentence."""
    path = write_ome_zarr(tmp_path / "a.zarr", TCYX, 5, axes="tcyx")
    (path / "zarr.json").write_text("{")
    with pytest.raises(ImageError, match=r"a\.zarr cannot be opened as an image: "):
        open_image(path)


# PNG, JPEG, BMP, GIF


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".jpg", ".gif"])
def test_raster_grey_and_colour(tmp_path: Path, suffix: str) -> None:
    """Grey is one channel without a name, colour three with names."""
    grey = np.repeat(np.arange(20, dtype=np.uint8)[:, None] * 10, 30, axis=1)
    Image.fromarray(grey).save(tmp_path / f"grey{suffix}")
    image = open_image(tmp_path / f"grey{suffix}")
    assert (image.axes, image.channels, image.name) == ("YX", ("channel 0",), "grey")
    np.testing.assert_allclose(image.plane(0)[0].astype(float), grey, atol=3 if suffix == ".jpg" else 0)
    if suffix == ".gif":
        return
    Image.fromarray(RGB).save(tmp_path / f"colour{suffix}")
    image = open_image(tmp_path / f"colour{suffix}")
    assert (image.axes, image.channels) == ("CYX", ("red", "green", "blue"))
    if suffix != ".jpg":
        np.testing.assert_array_equal(image.plane(0), np.moveaxis(RGB, -1, 0))


def test_png_of_16_bits(tmp_path: Path) -> None:
    """16 bits are kept, in grey and in colour."""
    iio.imwrite(tmp_path / "grey.png", TCYX[0, 0])
    image = open_image(tmp_path / "grey.png")
    assert image.dtype == np.uint16
    np.testing.assert_array_equal(image.plane(0)[0], TCYX[0, 0])
    colour = np.dstack([TCYX[0, 0], TCYX[0, 1], TCYX[1, 0]])
    (tmp_path / "colour.png").write_bytes(png_encode(colour))
    np.testing.assert_array_equal(open_image(tmp_path / "colour.png").plane(0), np.moveaxis(colour, -1, 0))


def test_png_alpha_palette_and_cmyk(tmp_path: Path) -> None:
    """Alpha goes, palettes and CMYK become colours, bits stay bits."""
    Image.fromarray(np.dstack([RGB, RGB[..., 0]])).save(tmp_path / "alpha.png")
    image = open_image(tmp_path / "alpha.png")
    assert image.warnings == ("The alpha sample is left out.",)
    np.testing.assert_array_equal(image.plane(0), np.moveaxis(RGB, -1, 0))
    Image.fromarray(np.dstack([RGB[..., 0], RGB[..., 1]])).save(tmp_path / "grey alpha.png")
    np.testing.assert_array_equal(open_image(tmp_path / "grey alpha.png").plane(0), RGB[None, ..., 0])
    Image.fromarray(RGB).convert("P").save(tmp_path / "palette.png")
    assert open_image(tmp_path / "palette.png").channels == ("red", "green", "blue")
    Image.fromarray(RGB).convert("CMYK").save(tmp_path / "cmyk.jpg")
    assert open_image(tmp_path / "cmyk.jpg").shape == (3, 20, 30)
    Image.fromarray(RGB[..., 0] > 99).save(tmp_path / "bits.png")
    assert open_image(tmp_path / "bits.png").dtype == np.bool_


def test_animation_is_refused(tmp_path: Path) -> None:
    """Frames are not dropped in silence."""
    iio.imwrite(tmp_path / "a.gif", np.stack([RGB, 255 - RGB, RGB]))
    with pytest.raises(ImageError, match=r"a\.gif holds 3 frames; only single images are read: save them as TIFF"):
        open_image(tmp_path / "a.gif")


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".gif"])
def test_truncated_raster(tmp_path: Path, suffix: str) -> None:
    """A picture cut short is refused."""
    Image.fromarray(RGB).save(tmp_path / f"a{suffix}")
    raw = (tmp_path / f"a{suffix}").read_bytes()
    for share in (0.02, 0.3, 0.6):
        (tmp_path / f"b{suffix}").write_bytes(raw[: int(len(raw) * share)])
        with pytest.raises(ImageError, match=rf"b{suffix}"):
            open_image(tmp_path / f"b{suffix}")


# What is no image


def test_missing_empty_and_foreign_files(tmp_path: Path) -> None:
    """Each kind of bad file has its sentence."""
    with pytest.raises(ImageError, match=r"none\.tif: there is no such file or folder"):
        open_image(tmp_path / "none.tif")
    (tmp_path / "empty.tif").touch()
    with pytest.raises(ImageError, match=r"empty\.tif is empty \(0 bytes\); expected an image"):
        open_image(tmp_path / "empty.tif")
    (tmp_path / "text.tif").write_text("no image at all")
    with pytest.raises(ImageError, match=r"text\.tif is not an image: its name ends in \.tif, but its content is none"):
        open_image(tmp_path / "text.tif")
    (tmp_path / "short.tif").write_bytes(b"II*\0")
    with pytest.raises(ImageError, match=r"short\.tif cannot be opened as an image: "):
        open_image(tmp_path / "short.tif")


def test_content_counts_more_than_the_name(tmp_path: Path) -> None:
    """A PNG named .tif opens."""
    Image.fromarray(RGB).save(tmp_path / "a.png")
    np.testing.assert_array_equal(
        open_image((tmp_path / "a.png").rename(tmp_path / "a.tif")).plane(0), np.moveaxis(RGB, -1, 0)
    )


@pytest.mark.parametrize("source", ["https://host/a.tif", "s3://bucket/a.zarr", Path("https://host/a.tif")])
def test_remote_address_is_refused(source: str | Path) -> None:
    """Addresses are refused before anything is looked up."""
    with pytest.raises(ImageError, match="is a remote address; only local files are opened: download it first"):
        open_image(source)


def test_other_formats_need_bioio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A format of a vendor names what to install."""
    (tmp_path / "a.czi").write_bytes(b"ZISRAWFILE")
    monkeypatch.setitem(sys.modules, "bioio", None)
    with pytest.raises(ImageError, match=r'for \.czi run: pip install "napari-milcnn\[bioio\]", and'):
        open_image(tmp_path / "a.czi")


def test_bioio_scenes_become_positions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through a stand-in for bioio: scenes, names, sizes, unknown formats."""

    class Unsupported(Exception):
        pass

    class BioImage:
        scenes = ("s1", "s2")
        channel_names = ("GFP", "RFP")
        physical_pixel_sizes = SimpleNamespace(Z=None, Y=0.65, X=0.65)
        dims = SimpleNamespace(order="TCZYX")

        def __init__(self, path: Path) -> None:
            if path.suffix == ".xyz":
                raise Unsupported

        def set_scene(self, number: int) -> None:
            self.dask_data = dask.array.from_array(TCYX[:, :, None] // (number + 1))

    for name, content in (
        ("bioio", {"BioImage": BioImage}),
        ("bioio_base.exceptions", {"UnsupportedFileFormatError": Unsupported}),
    ):
        module = ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
    for name in ("a.czi", "a.xyz"):
        (tmp_path / name).write_bytes(b"1234")
    image = open_image(tmp_path / "a.czi")
    assert (image.axes, image.shape, image.position_names) == ("PTZCYX", (2, 3, 1, 2, 40, 50), ("s1", "s2"))
    assert (image.channels, image.pixel_size) == (("GFP", "RFP"), 0.65)
    np.testing.assert_array_equal(image.plane(4), TCYX[1] // 2)
    with pytest.raises(ImageError, match="no installed bioio reader knows it"):
        open_image(tmp_path / "a.xyz")


# Arrays


@pytest.mark.parametrize("make", [np.asarray, dask.array.from_array, zarr.array], ids=["numpy", "dask", "zarr"])
def test_arrays(make: Any) -> None:
    """Arrays are taken as they are, or moved without reading them."""
    source = make(TCYX)
    image = open_image(source, axes="TCYX", channels=["GFP", "RFP"], pixel_size=0.65)
    assert image.data is source
    assert (image.name, image.path, image.channels, image.pixel_size) == ("image", None, ("GFP", "RFP"), 0.65)
    np.testing.assert_array_equal(every_plane(image), TCYX)
    moved = open_image(source, axes="YTXC")
    assert (moved.axes, moved.shape) == ("TCYX", (2, 50, 3, 40))
    np.testing.assert_array_equal(every_plane(moved), TCYX.transpose(1, 3, 0, 2))
    np.testing.assert_array_equal(np.asarray(moved.data), TCYX.transpose(1, 3, 0, 2))
    for each in (image, moved):
        each.close()
        each.plane(0)


def test_plane_is_a_copy_in_native_order() -> None:
    """Whoever changes a plane does not change the image."""
    source = TCYX[0].astype(">u2")
    image = open_image(source, axes="CYX")
    assert image.dtype.isnative
    plane = image.plane(0)
    assert plane.dtype.isnative
    plane[:] = 0
    np.testing.assert_array_equal(source, TCYX[0])


def test_axes_of_arrays() -> None:
    """Two axes are Y and X; more are asked for, with examples that fit."""
    assert open_image(TCYX[0, 0]).axes == "YX"
    assert open_image(TCYX[:1, :1]).axes == "YX"
    assert open_image(TCYX[0, 0]).plane_name(0) == ""
    with pytest.raises(ImageError, match=r'the array: shape \(2, 40, 50\) does not tell .*axes="CYX" or axes="TYX"'):
        open_image(TCYX[0])
    with pytest.raises(ImageError, match=r'for example axes="YXS" or axes="CYX"'):
        open_image(RGB)
    with pytest.raises(ImageError, match=r'for example axes="TZCYX" or axes="PTCYX"'):
        open_image(TCYX[None])
    with pytest.raises(ImageError, match=r'axes="CYX" names 3 axes, but there are 4, of shape \(3, 2, 40, 50\)'):
        open_image(TCYX, axes="CYX")
    for wrong in ("TCYY", "TCYQ", "TCZX"):
        with pytest.raises(ImageError, match=f'axes="{wrong}" is not understood; give one letter per axis'):
            open_image(TCYX, axes=wrong)
    with pytest.raises(ImageError, match=r"shape \(40,\) is no image"):
        open_image(TCYX[0, 0, :, 0])
    with pytest.raises(ImageError, match="holds no pixels"):
        open_image(TCYX[:0], axes="TCYX")


def test_sources_and_parameters_that_are_wrong() -> None:
    """Each wrong parameter has its sentence."""
    with pytest.raises(ImageError, match="an image is a path or a numpy, dask or zarr array; found list"):
        open_image([[1, 2]])
    with pytest.raises(ImageError, match="the pixels are of type complex128"):
        open_image(np.ones((4, 4), complex))
    with pytest.raises(ImageError, match="series=0 was asked for, but an array is one image"):
        open_image(TCYX, axes="TCYX", series=0)
    with pytest.raises(ImageError, match="has 2 channels, but channels= names 1: GFP"):
        open_image(TCYX, axes="TCYX", channels=["GFP"])
    for size in (0, -1, float("nan"), float("inf")):
        with pytest.raises(ImageError, match="give the side of a pixel in µm"):
            open_image(TCYX, axes="TCYX", pixel_size=size)


def test_samples_in_arrays() -> None:
    """Four samples are taken as colours and alpha, unless all four are named."""
    rgba = np.dstack([RGB, RGB[..., 0]])
    for array, axes in ((rgba, "YXS"), (np.moveaxis(rgba, -1, 0), "SYX")):
        image = open_image(array, axes=axes)
        assert (image.channels, image.warnings) == (("red", "green", "blue"), ("The alpha sample is left out.",))
        np.testing.assert_array_equal(image.plane(0), np.moveaxis(RGB, -1, 0))
        assert open_image(array, axes=axes, channels=list("abcd")).shape == (4, 20, 30)
    image = open_image(np.zeros((3, 20, 4)), axes="SYX")
    assert (image.channels, image.plane_shape) == (("red", "green", "blue"), (20, 4))
    assert open_image(RGB, axes="YXC").channels == ("channel 0", "channel 1", "channel 2")


def test_positions_in_an_array() -> None:
    """An axis P gives numbered positions."""
    image = open_image(TCYX, axes="PCYX")
    assert image.position_names == ("position 0", "position 1", "position 2")
    assert image.planes[2] == PlaneIndex(2, 0, 0)
    assert image.plane_name(2) == "P2"


def test_opened_image_is_returned() -> None:
    """An opened image passes through; names and pixel size can be replaced."""
    image = open_image(TCYX[0], axes="CYX")
    assert open_image(image) is image
    named = open_image(image, channels=["GFP", "RFP"], pixel_size=0.5)
    assert (named.channels, named.channels_named, named.pixel_size) == (("GFP", "RFP"), True, 0.5)
    assert image.channels == ("channel 0", "channel 1")
    with pytest.raises(ImageError, match="is already opened"):
        open_image(image, axes="ZYX")


def test_planes_windows_and_channels_that_do_not_exist() -> None:
    """What does not exist is refused with what does."""
    image = open_image(TCYX, axes="TCYX")
    with pytest.raises(ImageError, match="plane 3 was asked for, but its 3 planes count from 0"):
        image.plane(3)
    for channels in ([2], [-1], []):
        with pytest.raises(ImageError, match=r"channels .* were asked for, but its 2 channels count from 0"):
            image.plane(0, channels)
    for window in ((0, 41, 0, 5), (-1, 5, 0, 5), (5, 5, 0, 5), (0, 5, 9, 8)):
        with pytest.raises(ImageError, match="is not inside the plane of 40 rows and 50 columns"):
            image.plane(0, window=window)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite(bad: float) -> None:
    """NaN and infinity are refused where they are read, with their number and plane."""
    array = np.ones((2, 8, 8), np.float32)
    array[1, 2, 3:6] = bad
    image = open_image(array, axes="ZYX")
    assert image.plane(0).all()
    assert image.plane(1, window=(4, 8, 0, 8)).all()
    with pytest.raises(ImageError, match=r"image, Z1: 3 of 64 values are NaN or infinite, .* numpy\.nan_to_num"):
        image.plane(1)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_lazy_array_slices_like_numpy(data: st.DataObject) -> None:
    """Any axes in any order, any basic slice: as numpy would on the array in the house's order."""
    letters = "".join(data.draw(st.permutations("TZCSYX")))
    source = np.arange(2 * 3 * 2 * 3 * 4 * 5).reshape(
        [{"T": 2, "Z": 3, "C": 2, "S": 3, "Y": 4, "X": 5}[letter] for letter in letters]
    )
    lazy = LazyArray([source, source + 1000], letters, samples=2)
    order = source.transpose([letters.index(letter) for letter in "TZCSYX"])[:, :, :, :2].reshape(2, 3, 4, 4, 5)
    expected = np.stack([order, order + 1000])
    assert (lazy.axes, lazy.shape) == ("PTZCYX", expected.shape)
    one = [
        st.one_of(st.integers(-n, n - 1), st.slices(n).filter(lambda s: s.step is None or s.step > 0))
        for n in lazy.shape
    ]
    key = tuple(data.draw(each) for each in one[: data.draw(st.integers(0, 6))])
    np.testing.assert_array_equal(lazy[key], expected[key])
    np.testing.assert_array_equal(lazy[..., 1, 2:], expected[..., 1, 2:])


def test_lazy_array_refuses_what_it_cannot() -> None:
    """Only basic forward slices."""
    lazy = LazyArray([TCYX], "TCYX")
    assert (len(lazy), lazy.ndim, lazy.size) == (3, 4, TCYX.size)
    for key in (slice(None, None, -1), (0, 0, 0, 0, 0), 3):
        with pytest.raises(IndexError):
            lazy[key]
    with pytest.raises(TypeError):
        lazy["a"]


# Life time and threads


def test_closed_image_says_so(tmp_path: Path) -> None:
    """Closing twice is fine; reading afterwards is an error."""
    path = write_tiff(tmp_path / "a.tif", TCYX, "TCYX", compression="zlib")
    image = open_image(path)
    image.close()
    image.close()
    with pytest.raises(ImageError, match=r"T0: the pixels cannot be read: it has been closed; open the image again"):
        image.plane(0)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="open files are listed by Linux")
def test_file_lives_as_long_as_its_data(tmp_path: Path) -> None:
    """The file is open while its data is used, and closed after it, also on errors."""

    def is_open() -> bool:
        return any(os.path.realpath(each) == str(path) for each in Path("/proc/self/fd").iterdir())

    path = (write_tiff(tmp_path / "a.tif", TCYX, "TCYX", compression="zlib")).resolve()
    data = open_image(path).data
    gc.collect()
    np.testing.assert_array_equal(data[0], TCYX[0])
    assert is_open()
    del data
    gc.collect()
    assert not is_open()
    write_tiff(path, TCYX, "HCYX", compression="zlib")
    with pytest.raises(ImageError, match="does not tell"):
        open_image(path)
    assert not is_open()


def test_threads_read_at_once(tmp_path: Path) -> None:
    """Four threads read the same image."""
    path = write_tiff(tmp_path / "a.ome.tif", TCYX, "TCYX", ome=True, tile=(16, 16), compression="zlib")
    wrong: list[int] = []
    with open_image(path) as image:

        def read(start: int) -> None:
            for i in range(start, start + 12):
                if not np.array_equal(image.plane(i % 3), TCYX[i % 3]):
                    wrong.append(i)

        threads = [threading.Thread(target=read, args=(start,)) for start in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not wrong


def test_import_is_light() -> None:
    """Importing the file imports none of the readers."""
    code = (
        "import sys, napari_milcnn.images.stack; "
        "print([m for m in ('torch', 'napari', 'zarr', 'imageio', 'dask', 'tifffile') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# Channels of a model


def named(*channels: str) -> ImageStack:
    """Return an image with these channels."""
    return open_image(np.zeros((len(channels), 4, 4), np.uint8), axes="CYX", channels=channels)


def test_channels_match_by_name() -> None:
    """Case, spaces, hyphens and underscores do not count; other channels are left."""
    assert match_channels(["GFP", "nuclear marker"], named("Nuclear_Marker", "BF", "gfp")) == ((2, 0), None)
    assert match_channels(["gfp"], named("G-F-P")) == ((0,), None)


def test_channels_match_by_order_with_a_warning() -> None:
    """Equal counts match by order, and the mapping is shown."""
    numbers, warning = match_channels(["GFP", "RFP"], named("EGFP", "mCherry"))
    assert numbers == (0, 1)
    assert warning == (
        "image: the channels are taken by their order, not by name (model = image: GFP = EGFP, RFP = mCherry); "
        "name them by channels= (command line: --channels) if this is wrong."
    )
    unnamed = open_image(TCYX, axes="TCYX")
    assert match_channels(["GFP", "RFP"], unnamed)[1] is not None
    assert match_channels(["GFP"], open_image(TCYX[0, 0])) == ((0,), None)
    assert match_channels(["GFP"], named("RFP"))[1] is not None
    assert match_channels(["GFP", "RFP"], named("GFP", "mCherry"))[0] == (0, 1)
    assert match_channels(["GFP", "GFP"], named("GFP", "mCherry"))[0] == (0, 1)


def test_channels_that_do_not_match() -> None:
    """Other counts, or names at other places, are refused with both lists."""
    with pytest.raises(ImageError, match=r"image has the channels GFP, RFP, DAPI, but the model needs GFP, Cy5; name"):
        match_channels(["GFP", "Cy5"], named("GFP", "RFP", "DAPI"))
    with pytest.raises(ImageError, match=r"has the channels RFP, Cy5, but the model needs GFP, RFP"):
        match_channels(["GFP", "RFP"], named("RFP", "Cy5"))
    with pytest.raises(ImageError, match="--channels"):
        match_channels(["GFP", "RFP"], open_image(TCYX[0, 0]))


# Real files


@pytest.mark.skipif(not REAL.is_dir(), reason="the BBBC016 images are not on this machine")
def test_real_images() -> None:
    """The first images of BBBC016."""
    for path in sorted(REAL.glob("*.tif"))[:6]:
        with open_image(path) as image:
            assert (image.axes, image.shape, image.dtype) == ("YX", (512, 512), np.uint8)
            assert image.pixel_size is None
            np.testing.assert_array_equal(image.plane(0)[0], tifffile.imread(path))


# Maximum projection


def test_the_projection_is_numpys_maximum_along_z(tmp_path: Path) -> None:
    """Whole planes, windows and chosen channels of a T Z C Y X file; all that is known of it stays."""
    pixels = np.random.default_rng(2).integers(0, 60000, (2, 3, 2, 40, 50), dtype=np.uint16)
    names = {"Channel": {"Name": ["GFP", "RFP"]}}
    path = write_tiff(tmp_path / "a.ome.tif", pixels, "TZCYX", ome=True, compression="zlib", metadata=names)
    with open_image(path, pixel_size=0.5) as image, maximum_projection(image) as flat:
        assert (flat.axes, flat.shape, flat.planes) == ("TCYX", (2, 2, 40, 50), ((0, 0, 0), (0, 1, 0)))
        assert (flat.name, flat.path, flat.channels, flat.pixel_size) == ("a", path, ("GFP", "RFP"), 0.5)
        assert (flat.dtype, flat.plane_name(1)) == (np.uint16, "T1")
        np.testing.assert_array_equal(every_plane(flat), pixels.max(1))
        np.testing.assert_array_equal(flat.plane(1, [1], (3, 9, 4, 8)), pixels.max(1)[1, 1:, 3:9, 4:8])
        np.testing.assert_array_equal(np.asarray(flat.data[..., 7]), pixels.max(1)[..., 7])
    with pytest.raises(ImageError, match="closed"):
        image.plane(0)


@pytest.mark.parametrize("make", [np.asarray, dask.array.from_array, zarr.array])
def test_arrays_are_projected(make: Any) -> None:
    """A bare Z stack becomes one plane, whatever holds it; dropping the projection leaves the array open."""
    pixels = np.random.default_rng(3).random((4, 20, 30))
    image = open_image(make(pixels), axes="ZYX")
    np.testing.assert_array_equal(every_plane(maximum_projection(image))[0, 0], pixels.max(0))
    np.testing.assert_array_equal(image.plane(2)[0], pixels[2])


class _Watched:
    """An array of zeros that notes what is read of it."""

    shape, ndim, dtype = (2, 3, 8, 8), 4, np.dtype(np.uint8)

    def __init__(self) -> None:
        self.keys: list[Any] = []

    def __getitem__(self, key: Any) -> np.ndarray:
        self.keys.append(key)
        return np.zeros(self.shape, self.dtype)[key]


def test_a_projected_plane_reads_its_own_stack_one_z_at_a_time() -> None:
    """The second time point of three Z: three reads of one window each, none before."""
    watched = _Watched()
    flat = maximum_projection(open_image(watched, axes="TZYX"))
    assert watched.keys == []
    flat.plane(1, window=(2, 4, 0, 8))
    assert watched.keys == [(slice(1, 2, 1), z, slice(2, 4, 1), slice(0, 8, 1)) for z in range(3)]


def test_without_z_nothing_is_projected() -> None:
    """The image is returned as it is."""
    image = open_image(TCYX, axes="TCYX")
    assert maximum_projection(image) is image


def test_nan_in_a_stack_is_not_projected_away() -> None:
    """The plane is refused as one with NaN is."""
    pixels = np.zeros((2, 5, 5))
    pixels[0, 2, 2] = np.nan
    with pytest.raises(ImageError, match="1 of 25 values are NaN or infinite"):
        maximum_projection(open_image(pixels, axes="ZYX")).plane(0)


def test_reading_says_what_becomes_of_z(tmp_path: Path) -> None:
    """By default each plane stands alone; with maximum a stack is one; anything else is refused."""
    path = write_tiff(tmp_path / "a.tif", TCYX[:, 0], "ZYX", imagej=True)
    with ImageReading().open(path) as planes, ImageReading(z="maximum").open(path) as one:
        assert (len(planes.planes), len(one.planes)) == (3, 1)
        np.testing.assert_array_equal(one.plane(0)[0], TCYX[:, 0].max(0))
    with pytest.raises(OptionsError, match="z is 'mean'; expected one of planes, maximum"):
        ImageReading(z="mean")


# Some of the planes


@pytest.mark.parametrize(("name", "planes"), [
    ("P1", [(1, 0, 0), (1, 0, 1), (1, 1, 0), (1, 1, 1)]),
    ("T1 P0", [(0, 1, 0), (0, 1, 1)]),
    ("p1 t0 z1", [(1, 0, 1)]),
    ("Z1", [(0, 0, 1), (0, 1, 1), (1, 0, 1), (1, 1, 1)]),
    ("", [(p, t, z) for p in range(2) for t in range(2) for z in range(2)]),
])  # fmt: skip
def test_a_name_picks_planes(name: str, planes: list[tuple[int, int, int]]) -> None:
    """Those at the numbers that it names, with the numbers and names that they have in the whole image."""
    pixels = np.arange(8).reshape(2, 2, 2, 1, 1) * np.ones((5, 6), int)
    image = only_planes(open_image(pixels, axes="PTZYX", channels=["GFP"], pixel_size=0.5), name)
    assert list(image.planes) == planes
    np.testing.assert_array_equal(every_plane(image)[:, 0, 0, 0], [4 * p + 2 * t + z for p, t, z in planes])
    assert [image.plane_name(i) for i in range(len(planes))] == [f"P{p} T{t} Z{z}" for p, t, z in planes]
    assert (image.channels, image.pixel_size, image.position_names) == (("GFP",), 0.5, ("position 0", "position 1"))


def test_picked_planes_are_picked_from_again_and_projected() -> None:
    """A position, then its second time point; its projection is that of the whole Z stack."""
    pixels = np.arange(8).reshape(2, 2, 2, 1, 1) * np.ones((5, 6), int)
    image = only_planes(only_planes(open_image(pixels, axes="PTZYX"), "P1"), "T1")
    assert image.planes == ((1, 1, 0), (1, 1, 1))
    assert maximum_projection(image).plane(0)[0, 0, 0] == 7
    assert maximum_projection(only_planes(image, "Z0")).plane(0)[0, 0, 0] == 7
    with pytest.raises(ImageError, match="has no plane P0; there are P1, T1, Z0 to Z1"):
        only_planes(image, "P0 Z1")


def test_picking_planes_reads_nothing_and_closing_closes_the_file(tmp_path: Path) -> None:
    """A plane is read when it is asked for; an error names it as the whole file would."""
    watched = _Watched()
    image = only_planes(open_image(watched, axes="TZYX"), "T1 Z2")
    assert watched.keys == []
    image.plane(0)
    assert watched.keys == [(1, 2, slice(0, 8), slice(0, 8))]
    whole = open_image(write_tiff(tmp_path / "a.tif", TCYX[:, 0], "ZYX", imagej=True, compression="zlib"))
    only_planes(whole, "Z1").close()
    with pytest.raises(ImageError, match=r"a\.tif, Z0: the pixels cannot be read: it has been closed"):
        whole.plane(0)


@pytest.mark.parametrize(("axes", "name", "said"), [
    ("TYX", "T3", "image has no plane T3; there are T0 to T2"),
    ("TYX", "T0 Z1", "image has no plane Z1; there are T0 to T2"),
    ("CYX", "P0", "image has no plane P0; it is a single plane: name none"),
    ("TYX", "3", "the plane '3' is not understood; expected a name such as P0, T3 or P0 T3 Z1"),
    ("TYX", "T1 T2", "is not understood"),
    ("TYX", "T-1", "is not understood"),
    ("TYX", "Y1", "is not understood"),
])  # fmt: skip
def test_planes_that_are_not_there(axes: str, name: str, said: str) -> None:
    """The message says which there are."""
    with pytest.raises(ImageError, match=said):
        only_planes(open_image(TCYX[:, 0], axes=axes), name)


@pytest.mark.parametrize("version", [4, 5])
def test_plates_list_their_fields(tmp_path: Path, version: int) -> None:
    """Each well with the folders of its fields, which open as images; what is no plate gives none."""
    zarr_format = 2 if version == 4 else 3

    def describe(path: str, ome: dict[str, Any]) -> None:
        group = zarr.open_group(tmp_path / "p.zarr" / path, mode="a", zarr_format=zarr_format)
        group.attrs.update({"ome": ome} if version == 5 else ome)

    describe("", {"plate": {"wells": [{"path": "B/03"}]}})
    describe("B/03", {"well": {"images": [{"path": "0"}, {"path": "1"}]}})
    field = write_ome_zarr(tmp_path / "p.zarr" / "B" / "03" / "0", TCYX[0], version, axes="cyx")
    assert plate_wells(tmp_path / "p.zarr") == {"B/03": (field, field.with_name("1"))}
    assert open_image(field).channels == ("GFP", "RFP")
    assert plate_wells(field) is None
    assert plate_wells(tmp_path) is None
    describe("", {"plate": {"wells": [{"path": "B/03"}, {"path": "B/04"}]}})
    with pytest.raises(ImageError, match=r"B.04 cannot be read"):
        plate_wells(tmp_path / "p.zarr")
