"""TIFF of every kind written, opened, and compared with the numbers that were written."""

from __future__ import annotations

import logging
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from image_files import RGB, TCYX, bytes_read, every_plane, write_tiff
from napari_milcnn.errors import ImageError
from napari_milcnn.images.open import open_image
from napari_milcnn.images.stack import PlaneIndex

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


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, logger="tifffile")


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
        f"{path}: shape (3, 40, 50) with the axes IYX does not tell which axis is which; name the axes, one letter per "
        "axis out of P (position), T, Z, C, Y, X and S (colour samples): for example "
        'axes="CYX" or axes="TYX"'
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


def test_a_resolution_that_no_microscope_has_is_said(tmp_path: Path) -> None:
    """Some programs write one by themselves, such as 26 x 20 pixels per inch; it was dropped without a word."""
    path = write_tiff(tmp_path / "a.tif", TCYX[0, 0], resolution=(50, 50), resolutionunit="centimeter")
    with open_image(path) as image:
        assert image.pixel_size is None
        assert image.warnings == (
            "The file gives a resolution of 50 pixels per cm, so a pixel of 200 µm, which no microscope has; it is not "
            "used. If you know the pixel size, give it in µm.",
        )


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


@pytest.mark.parametrize(("bigtiff", "back_to"), [(False, 0), (True, 0), (False, 1)])
def test_pages_that_lead_in_a_circle_are_refused(tmp_path: Path, bigtiff: bool, back_to: int) -> None:
    """The last page names an earlier one, or itself, as the next: tifffile alone would go on for ever."""
    path = tmp_path / "circle.tif"
    with tifffile.TiffWriter(path, bigtiff=bigtiff) as writer:
        for i in range(2):
            writer.write(np.full((8, 9), i, np.uint8), metadata=None)
    with tifffile.TiffFile(path) as tif:
        kind, places = tif.tiff, [page.offset for page in tif.pages]
        count = len(tif.pages[1].tags)
    content = bytearray(path.read_bytes())
    at = places[1] + kind.tagnosize + count * kind.tagsize
    content[at : at + kind.offsetsize] = places[back_to].to_bytes(kind.offsetsize, "little")
    path.write_bytes(content)
    with pytest.raises(ImageError, match="after 2 pages it leads back to an earlier one"):
        open_image(path)


@pytest.mark.parametrize(("colours", "said"), [
    ([1, 1, 1], False), ([0, 1, 1], True), ([-1, -1, -1], True),
])  # fmt: skip
def test_indices_into_a_palette_are_said_unless_it_is_a_ramp_of_greys(tmp_path, colours, said):
    """Many cameras write a ramp of greys, in which the indices are what one sees; not so in one that falls."""
    ramp = np.arange(256, dtype=np.int64) * 256
    palette = np.stack([ramp if way > 0 else ramp[::-1] if way < 0 else 0 * ramp for way in colours]).astype(np.uint16)
    write_tiff(tmp_path / "a.tif", TCYX[0, 0].astype(np.uint8), photometric="palette", colormap=palette)
    with open_image(tmp_path / "a.tif") as image:
        np.testing.assert_array_equal(image.plane(0)[0], TCYX[0, 0].astype(np.uint8))
        assert ("indices into a palette" in " ".join(image.warnings)) == said
