"""PNG, JPEG, BMP and GIF read back, and other formats through bioio."""

from __future__ import annotations

import struct
import sys
import zlib
from pathlib import Path
from types import ModuleType, SimpleNamespace

import dask.array
import imageio.v3 as iio
import numpy as np
import pytest
from imagecodecs import png_encode
from PIL import Image

from image_files import RGB, TCYX
from napari_milcnn.errors import ImageError
from napari_milcnn.images.open import open_image


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


def png_header(width: int, height: int, bits: int, colour: int) -> bytes:
    """Return a PNG that is little more than its header."""
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)), (b"IDAT", zlib.compress(b"")),
              (b"IEND", b"")]  # fmt: skip
    parts = (struct.pack(">I", len(b)) + a + b + struct.pack(">I", zlib.crc32(a + b)) for a, b in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize("head", [(30_000, 30_000, 16, 2), (12_000, 12_000, 8, 2), (30_000, 30_000, 16, 0)], ids=str)
def test_png_that_declares_more_than_it_holds(tmp_path: Path, head: tuple[int, int, int, int]) -> None:
    """A gigapixel in 65 bytes is refused before it is decoded."""
    (tmp_path / "a.png").write_bytes(png_header(*head))
    with pytest.raises(ImageError, match="more than the 65 bytes that are stored can hold"):
        open_image(tmp_path / "a.png")


def test_pictures_that_are_too_large(tmp_path: Path) -> None:
    """JPEG, GIF and BMP declare sizes, too; and a PNG that holds its gigabyte is not decoded at once."""
    for suffix, place, layout in ((".jpg", 5, ">HH"), (".gif", 6, "<HH"), (".bmp", 18, "<II")):
        Image.fromarray(RGB[..., 0]).save(tmp_path / f"a{suffix}")
        raw = bytearray((tmp_path / f"a{suffix}").read_bytes())
        struct.pack_into(layout, raw, place + (raw.find(b"\xff\xc0") if suffix == ".jpg" else 0), 60_000, 60_000)
        (tmp_path / f"a{suffix}").write_bytes(raw)
        with pytest.raises(ImageError, match=r"stored can hold|too large to decode"):
            open_image(tmp_path / f"a{suffix}")
    (tmp_path / "a.png").write_bytes(png_header(12_000, 12_000, 16, 2) + bytes(1 << 20))
    with pytest.raises(ImageError, match="864000000 bytes, at most 536870912 are read"):
        open_image(tmp_path / "a.png")


@pytest.mark.parametrize(("dpi", "size", "said"), [
    (50_800, 0.5, ""), (300, None, ""), (72, None, ""),
    (26, None, "26.01 pixels per inch, so a pixel of 976.56 µm, which"),
])  # fmt: skip
def test_resolution_of_a_png(tmp_path: Path, dpi: int, size: float | None, said: str) -> None:
    """A resolution for printing is no pixel size; one that no microscope has is said."""
    Image.fromarray(RGB).save(tmp_path / "a.png", dpi=(dpi, dpi))
    with open_image(tmp_path / "a.png") as image:
        assert image.pixel_size == (size and pytest.approx(size, rel=1e-4))
        assert said in " ".join(image.warnings)
        assert bool(image.warnings) == bool(said)


def test_ome_xml_with_its_pixels_as_text_is_no_companion_file(tmp_path: Path) -> None:
    """It has pixels, and no TIFFs; nor is every file that OME-XML names a TIFF."""
    (tmp_path / "a.ome").write_text('<OME><Pixels><Bin:BinData Length="4">/wA=</Bin:BinData></Pixels></OME>')
    with pytest.raises(ImageError, match="OME-XML that holds its pixels as text, which is not read; save it as OME-T"):
        open_image(tmp_path / "a.ome")
    (tmp_path / "b.ome").write_text('<OME><Pixels><TiffData/></Pixels><OTF FileName="lens.otf"/></OME>')
    with pytest.raises(ImageError, match=r"open one of its TIFFs$"):
        open_image(tmp_path / "b.ome")


def test_other_formats_need_bioio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A format of a vendor names what to install."""
    (tmp_path / "a.czi").write_bytes(b"ZISRAWFILE")
    monkeypatch.setitem(sys.modules, "bioio", None)
    with pytest.raises(ImageError, match=r'for \.czi run: pip install "napari-milcnn\[bioio\]", and'):
        open_image(tmp_path / "a.czi")


@pytest.mark.parametrize(("name", "reader"), [
    ("a.CZI", "bioio-czi;"), ("a.lif", "bioio-lif;"), ("a.r3d", "bioio-dv;"), ("a.sldy", "bioio-sldy;"),
    ("a.vsi", "bioio-bioformats, which needs Java;"), ("a.nd2", r'"napari-milcnn\[bioio\]";'),
])  # fmt: skip
def test_the_reader_of_a_format_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, reader: str
) -> None:
    """Each by its own package."""
    (tmp_path / name).write_bytes(b"1234")
    monkeypatch.setitem(sys.modules, "bioio", None)
    with pytest.raises(ImageError, match=f"{reader} or export the image"):
        open_image(tmp_path / name)


@pytest.mark.parametrize(("name", "said"), [
    ("x.companion.ome", r"companion file of a set of TIFFs, .*; open one of its TIFFs, for example p0\.ome\.tif$"),
    ("x.ome.xml", "open one of its TIFFs"), ("zarr.json", "the metadata of a zarr; open its folder"),
    (".zattrs", "the metadata of a zarr"), ("a.npy", "read it in Python and pass the array"),
    ("Index.idx.xml", "a text and no image"), ("a.mp4", "BMP or GIF image; export the image as OME-TIFF or OME-Zarr$"),
    ("a", "BMP or GIF image; export the image"),
])  # fmt: skip
def test_bioio_is_not_advised_for_what_it_cannot_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, said: str
) -> None:
    """The message says what to open in its place."""
    (tmp_path / name).write_text('<OME><TiffData><UUID FileName="p0.ome.tif"/></TiffData></OME>')
    monkeypatch.setitem(sys.modules, "bioio", None)
    with pytest.raises(ImageError, match=said) as error:
        open_image(tmp_path / name)
    assert "pip install" not in str(error.value)


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
            if path.suffix in (".xyz", ".lif"):
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
    (tmp_path / "a.lif").write_bytes(b"1234")
    monkeypatch.setattr("napari_milcnn.images.other_formats.find_spec", lambda name: name == "bioio_lif" or None)
    with pytest.raises(ImageError, match="bioio-lif is installed and does not know it, so it may be damaged"):
        open_image(tmp_path / "a.lif")
