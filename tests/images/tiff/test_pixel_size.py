"""Pixel sizes in the metadata of many programs: each is found, and what is not understood is said."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from napari_milcnn.images.open import open_image
from napari_milcnn.images.stack import ImageStack

PIXELS = np.zeros((32, 32), np.uint16)
IMAGEJ = "ImageJ=1.54f\n"


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, logger="tifffile")


def opened(folder: Path, pixels: np.ndarray = PIXELS, **options: Any) -> ImageStack:
    """Write a TIFF without tifffile's own metadata and open it."""
    if isinstance(options.get("description"), str):
        options["description"] = options["description"].encode()
    tifffile.imwrite(folder / "a.tif", pixels, metadata=None, **options)
    return open_image(folder / "a.tif")


def check(image: ImageStack, size: float | None, word: str) -> None:
    """Compare the size, and the sentence of which `word` is a part; no sentence where it is empty."""
    assert image.pixel_size == (size and pytest.approx(size, rel=1e-4))
    assert word in " ".join(image.warnings)
    assert bool(image.warnings) == bool(word)


@pytest.mark.parametrize(
    ("text", "x", "y", "unit", "size", "word"),
    [
        ("unit=micrometers\n", 2, 2, 1, 0.5, ""),
        ("unit=\\u00B5m\n", 2, 2, 1, 0.5, ""),
        ("unit=nanometers\n", 0.002, 0.002, 1, 0.5, ""),
        ("unit=um\n", 2, 2, 2, 0.5, ""),  # tifffile of old wrote inch
        ("unit=um\n", 20000, 20000, 3, 0.5, ""),  # Micro-Manager writes pixels per centimetre
        ("unit=um\n", 2, 1.25, 1, 0.65, "not square"),
        ("unit=um\nyunit=sec\n", 2, 5, 1, None, "0.2 sec x 0.5 um"),
        ("unit=furlong\n", 2, 2, 1, None, "0.5 furlong"),
        ("unit=pixel\n", 2, 2, 1, None, ""),
        ("unit=inch\n", 72, 72, 2, None, ""),
        (
            "unit=inch\n",
            26,
            20,
            2,
            None,
            "20 x 26 pixels per inch, so a pixel of 1270 x 976.92 µm, which no microscope",
        ),
        ("unit=m\n", 10, 10, 1, None, "10 pixels per m, so a pixel of 1e+05 µm, which no microscope"),
        ("", 20000, 20000, 3, 0.5, ""),
        ("", 2, 2, 1, None, "2 pixels per unit of length, but not the unit"),
        ("", 1, 1, 1, None, ""),
        ("", 96, 96, 1, None, ""),
    ],
)
def test_imagej(tmp_path: Path, text: str, x: float, y: float, unit: int, size: float | None, word: str) -> None:
    """The unit of the description, or of the tags where it alone makes sense."""
    image = opened(tmp_path, resolution=(x, y), resolutionunit=unit, description=IMAGEJ + text)
    check(image, size, word)


@pytest.mark.parametrize("encoding", ["latin-1", "utf-8"])
def test_micro_sign_in_any_encoding(tmp_path: Path, encoding: str) -> None:
    """ImageJ of old wrote Latin-1."""
    image = opened(tmp_path, resolution=(2, 2), resolutionunit=1, description=f"{IMAGEJ}unit=µm\n".encode(encoding))
    check(image, 0.5, "")


METASERIES = (
    '<MetaData><PlaneInfo><prop id="spatial-calibration-state" type="bool" value="{0}"/>'
    '<prop id="spatial-calibration-x" type="float" value="{1}"/><prop id="spatial-calibration-y" type="float" '
    'value="{1}"/><prop id="spatial-calibration-units" type="string" value="{2}"/></PlaneInfo></MetaData>'
)


@pytest.mark.parametrize(
    ("state", "side", "unit", "size", "word"),
    [
        ("on", "0.65", "um", 0.65, ""),
        ("on", "650", "nanometers", 0.65, ""),
        ("on", "0,65", "microns", 0.65, ""),
        ("off", "1", "pixel", None, ""),
        ("off", "0.65", "um", None, "switched off"),
        ("on", "0.65", "", None, "0.65 (no unit)"),
    ],
)
@pytest.mark.parametrize("software", ["MetaSeries", "MetaXpress"])
def test_metaseries(
    tmp_path: Path, software: str, state: str, side: str, unit: str, size: float | None, word: str
) -> None:
    """The XML of ImageXpress counts, not the 72 dpi beside it."""
    text = METASERIES.format(state, side, unit)
    check(opened(tmp_path, description=text, software=software, resolution=(72, 72), resolutionunit=2), size, word)


@pytest.mark.parametrize(
    ("sides", "size", "word"),
    [
        ('PhysicalSizeX="0,325" PhysicalSizeY="0,325"', 0.325, ""),
        ('PhysicalSizeX="325" PhysicalSizeXUnit="nm" PhysicalSizeY="0.325"', 0.325, ""),
        ('PhysicalSizeX="many" PhysicalSizeY="many"', None, "many µm"),
        ('PhysicalSizeX="2" PhysicalSizeXUnit="reference frame"', None, "2 reference frame"),
        ("", 0.5, ""),
    ],
)
def test_ome_xml(tmp_path: Path, sides: str, size: float | None, word: str) -> None:
    """OME-XML, and the resolution tags where it says nothing."""
    text = (
        '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0">'
        '<Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint16" SizeX="32" SizeY="32" SizeC="1" SizeZ="1" '
        f'SizeT="1" {sides}><TiffData/></Pixels></Image></OME>'
    )
    check(opened(tmp_path, description=text, resolution=(20000, 20000), resolutionunit=3), size, word)


@pytest.mark.parametrize(
    ("facts", "value", "size"),
    [
        ("stk_metadata", {"XCalibration": 0.65, "YCalibration": 0.65, "CalibrationUnits": "um"}, 0.65),
        ("stk_metadata", {"XCalibration": 650, "YCalibration": 650, "CalibrationUnits": "nm"}, 0.65),
        ("lsm_metadata", {"VoxelSizeX": 6.5e-7, "VoxelSizeY": 6.5e-7}, 0.65),
        ("fei_metadata", {"Scan": {"PixelWidth": 2e-9, "PixelHeight": 2e-9}}, 0.002),
        ("fluoview_metadata", {"Dimensions": [["X", 32, 0.0, 0.2, "um"], ["Y", 32, 0.0, 0.2, "um"]]}, 0.2),
        ("sis_metadata", {"pixelsizex": 3e-7, "pixelsizey": 3e-7}, 0.3),
        ("tvips_metadata", {"PixelSizeX": 2.0, "PixelSizeY": 2.0}, 0.002),
        ("nih_metadata", {"XScale": 2.0, "XUnit": b"um"}, 0.5),
        ("scanimage_metadata", {"FrameData": {
            "SI.hRoiManager.imagingFovUm": [[-8, -8], [8, -8], [8, 8], [-8, 8]],
            "SI.hRoiManager.pixelsPerLine": 32, "SI.hRoiManager.linesPerFrame": 32}}, 0.5),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, facts: str, value: Any, size: float) -> None:
    """What tifffile reads of the metadata of a program."""
    monkeypatch.setattr(tifffile.TiffFile, facts, value)
    check(opened(tmp_path, resolution=(72, 72), resolutionunit=2), size, "")


def test_damaged_metadata_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The image opens, and the size is not made up."""
    monkeypatch.setattr(tifffile.TiffFile, "fluoview_metadata", {"Dimensions": [["X"]]})
    check(opened(tmp_path), None, "What FluoView wrote about the size of a pixel cannot be read")
    check(opened(tmp_path, description="<MetaData><PlaneInfo>"), None, "What MetaSeries wrote")


@pytest.mark.parametrize(
    ("tag", "text", "size"),
    [
        (270, "Aperio Image Library v12\n32x32 JPEG|AppMag = 20|MPP = 0.4990", 0.499),
        (270, '<DataObject><Attribute Name="DICOM_PIXEL_SPACING" Group="0x1">"0.00025" "0.00025"</Attribute>', 0.25),
        (270, "<PerkinElmer-QPI-ImageDescription><PixelSizeMicrons>0.5</PixelSizeMicrons>", 0.5),
        (700, '<iScan ScanRes="0.25" Magnification="40"/>', 0.25),
        (65200, '<Flex><ImageResolutionX Unit="m">6.45E-07</ImageResolutionX></Flex>', 0.645),
        (51123, '{"PixelSizeUm": 0.65, "Binning": "1"}', 0.65),
        (34118, "DP_X\nAP_IMAGE_PIXEL_SIZE\nImage Pixel Size = 3.5 nm\n", 0.0035),
    ],
)
def test_texts_in_tags(tmp_path: Path, tag: int, text: str, size: float) -> None:
    """What stands as text in a tag of a program's own."""
    if tag == 270:
        image = opened(tmp_path, description=text)
    else:
        image = opened(tmp_path, extratags=[(tag, 2, len(text) + 1, text, True)])
    check(image, size, "")


def test_digital_micrograph(tmp_path: Path) -> None:
    """Scale and unit stand in four tags of Gatan's own."""
    tags = [(code, 2, 3, "nm", True) for code in (65003, 65004)] + [
        (code, 12, 1, 650.0, True) for code in (65009, 65010)
    ]
    check(opened(tmp_path, extratags=tags, resolution=(72, 72), resolutionunit=2), 0.65, "")


def test_an_orientation_is_said(tmp_path: Path) -> None:
    """The pixels are those that masks and tables are about, however a viewer turns them."""
    check(opened(tmp_path, extratags=[(274, 3, 1, 3, True)]), None, "turn or mirror")
    check(opened(tmp_path, extratags=[(274, 3, 1, 1, True)]), None, "")


def test_a_thumbnail_has_not_the_size_of_its_image(tmp_path: Path) -> None:
    """The metadata of a program describe the first image of a file."""
    text = "Aperio Image Library v12\n32x32 JPEG|AppMag = 20|MPP = 0.4990"
    with tifffile.TiffWriter(tmp_path / "a.tif") as tif:
        tif.write(np.zeros((256, 256), np.uint8), tile=(128, 128), description=text, metadata=None)
        tif.write(np.zeros((32, 32), np.uint8), description=text, metadata=None)
    assert open_image(tmp_path / "a.tif", series=0).pixel_size == 0.499
    assert open_image(tmp_path / "a.tif", series=1).pixel_size is None


@pytest.mark.parametrize("dtype", ["<u2", ">u2", "u1"])
@pytest.mark.parametrize("options", [{}, {"compression": "zlib"}], ids=str)
def test_signed_pixels_of_imagej(tmp_path: Path, dtype: str, options: dict[str, Any]) -> None:
    """ImageJ stores signed numbers with an offset and says so in its calibration function."""
    bits = np.dtype(dtype).itemsize * 8
    signed = np.arange(-50, 50).reshape(10, 10)
    text = f"{IMAGEJ}cf=0\nc0=-{2 ** (bits - 1)}.0\nc1=1.0\nvunit=Gray Value\n"
    order = ">" if dtype[0] == ">" else "<"
    image = opened(tmp_path, (signed + 2 ** (bits - 1)).astype(dtype), description=text, byteorder=order, **options)
    assert image.dtype == f"int{bits}"
    assert np.array_equal(image.plane(0)[0], signed)
    assert np.array_equal(image.plane(0, window=(2, 5, 3, 7))[0], signed[2:5, 3:7])
    assert image.warnings == ()


@pytest.mark.parametrize(
    ("text", "said"),
    [("cf=0\nc0=-10\nc1=2.5\nvunit=Ca\n", True), ("cf=4\nc0=3\nc1=1\n", True), ("cf=0\nc0=-100\nc1=1\n", True),
     ("cf=0\nc0=0.0\nc1=1.0\n", False), ("cf=20\n", False)],
)  # fmt: skip
def test_other_calibrations_of_imagej_are_said(tmp_path: Path, text: str, said: bool) -> None:
    """The values stay as they are stored."""
    image = opened(tmp_path, PIXELS + 5, description=IMAGEJ + text)
    assert image.plane(0).max() == 5
    assert ["calibration function" in warning for warning in image.warnings] == [True] * said
