"""Planes written as OME-TIFF read back with their places, names and pixel size."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import tifffile

from image_files import TCYX, every_plane
from napari_milcnn.errors import OutputError
from napari_milcnn.images.open import open_image
from napari_milcnn.images.stack import PlaneIndex
from napari_milcnn.images.write import Pages, write_ome_tiff

PLANES = tuple(PlaneIndex(p, t, z) for p in range(2) for t in range(3) for z in range(2))
PIXELS = np.random.default_rng(4).integers(0, 60000, (12, 2, 20, 30), dtype=np.uint16)


def notes_of(path: Path) -> dict[str | None, str | None]:
    """Return the facts of our own in the first series of a file."""
    with tifffile.TiffFile(path) as tif:
        root = ElementTree.fromstring(tif.ome_metadata or "")
    return {pair.get("K"): pair.text for pair in root.findall(".//{*}MapAnnotation")[0].findall(".//{*}M")}


def test_positions_times_and_depths_read_back(tmp_path: Path) -> None:
    """Every plane stands at its place; facts of our own are text."""
    path = tmp_path / "a.ome.tif"
    write_ome_tiff(path, PLANES, PIXELS, ("GFP", "RFP"), 0.25, {"kind": "test", "count": 3})
    with open_image(path) as image:
        assert (image.axes, image.planes) == ("PTZCYX", PLANES)
        assert (image.channels, image.pixel_size, image.dtype) == (("GFP", "RFP"), 0.25, np.uint16)
        np.testing.assert_array_equal(every_plane(image), PIXELS)
    assert notes_of(path) == {"kind": "test", "count": "3"}


def test_a_single_plane_without_facts(tmp_path: Path) -> None:
    """No pixel size and no annotation are made up."""
    path = tmp_path / "a.ome.tif"
    write_ome_tiff(path, PLANES[:1], PIXELS[:1], ("GFP", "RFP"), None, {})
    with open_image(path) as image:
        assert (image.axes, image.pixel_size) == ("CYX", None)
        np.testing.assert_array_equal(image.plane(0), PIXELS[0])
    with tifffile.TiffFile(path) as tif:
        assert "MapAnnotation" not in (tif.ome_metadata or "")


def test_planes_may_be_made_while_they_are_written(tmp_path: Path) -> None:
    """Each page is asked for once, in order."""
    asked = []

    def pages():
        for i, plane in enumerate(TCYX):
            asked.append(i)
            yield plane.astype(np.uint32)

    path = tmp_path / "a.ome.tif"
    planes = [PlaneIndex(0, t, 0) for t in range(3)]
    write_ome_tiff(path, planes, Pages(pages(), 2, (40, 50), np.uint32), ("a", "b"), None, {})
    assert asked == [0, 1, 2]
    with open_image(path) as image:
        np.testing.assert_array_equal(every_plane(image), TCYX)


def test_a_plane_that_cannot_be_made_leaves_the_old_file(tmp_path: Path) -> None:
    """The error of whoever makes the planes comes through; a full disk is an OutputError."""
    path = tmp_path / "a.ome.tif"
    write_ome_tiff(path, PLANES[:1], PIXELS[:1], ("GFP", "RFP"), None, {})
    before = path.read_bytes()
    for raised, expected in ((ZeroDivisionError(), ZeroDivisionError), (OSError(28, "No space left"), OutputError)):

        def pages(error: Exception = raised):
            yield np.zeros((2, 20, 30), np.uint32)
            raise error

        with pytest.raises(expected):
            write_ome_tiff(path, PLANES[:3], Pages(pages(), 2, (20, 30), np.uint32), ("a", "b"), None, {})
    assert path.read_bytes() == before
    assert [one.name for one in tmp_path.iterdir()] == ["a.ome.tif"]
