"""Acquisitions of Micro-Manager in the format NDTiff, written as its library writes them."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest

from napari_milcnn.errors import ImageError
from napari_milcnn.images.open import open_image
from napari_milcnn.images.paths import images_in

Place = dict[str, int | str]
PAGE = np.arange(20, dtype=np.uint16).reshape(4, 5)


def written(folder: Path, places: list[Place], summary: dict[str, object] | None = None) -> Path:
    """Write an acquisition; the page at places[i] is PAGE + i."""
    folder.mkdir()
    text = json.dumps(summary or {}).encode()
    text += b" " * (len(text) % 2)
    facts = json.dumps({"PixelSizeUm": 0.325}).encode() + b"\0"
    content = struct.pack("<2sHIIIIII", b"II", 42, 28 + len(text), 483729, 3, 3, 2355492, len(text)) + text
    index = b""
    for i, place in enumerate(places):
        start = len(content)
        tags = [(254, 4, 1, 0), (256, 4, 1, 5), (257, 4, 1, 4), (258, 3, 1, 16), (259, 3, 1, 1), (262, 3, 1, 1),
                (273, 4, 1, 0), (277, 3, 1, 1), (278, 4, 1, 4), (279, 4, 1, 40), (51123, 2, len(facts), 0)]  # fmt: skip
        pixels = start + 2 + 12 * len(tags) + 4
        metadata = pixels + 40
        following = metadata + len(facts) + len(facts) % 2
        offsets = {273: pixels, 51123: metadata}
        content += struct.pack("<H", len(tags))
        content += b"".join(struct.pack("<HHII", *tag[:3], offsets.get(tag[0], tag[3])) for tag in tags)
        content += struct.pack("<I", following if i + 1 < len(places) else 0)
        content += (PAGE + i).tobytes() + facts + b"\0" * (len(facts) % 2)
        axes, name = json.dumps(place).encode(), b"a_NDTiffStack.tif"
        index += struct.pack("<I", len(axes)) + axes + struct.pack("<I", len(name)) + name
        index += struct.pack("<IiiiiIii", pixels, 5, 4, 1, 0, metadata, len(facts) - 1, 0)
    (folder / "a_NDTiffStack.tif").write_bytes(content)
    (folder / "NDTiff.index").write_bytes(index)
    return folder


def test_names_stand_in_the_index(tmp_path: Path) -> None:
    """Channels and positions have names; the folder is one image, and so is its TIFF."""
    places: list[Place] = [{"position": p, "channel": c} for p in ("A1", "B2") for c in ("GFP", "DAPI")]
    folder = written(tmp_path / "run_1", places)
    assert images_in(tmp_path) == [folder]
    for path, name in ((folder, "run_1"), (folder / "a_NDTiffStack.tif", "a_NDTiffStack")):
        image = open_image(path)
        assert (image.name, image.axes, image.shape, image.pixel_size) == (name, "PCYX", (2, 2, 4, 5), 0.325)
        assert (image.channels, image.position_names, image.warnings) == (("GFP", "DAPI"), ("A1", "B2"), ())
        np.testing.assert_array_equal(image.plane(1), [PAGE + 2, PAGE + 3])


def test_channels_with_numbers_have_the_names_of_the_summary(tmp_path: Path) -> None:
    """As older programs write them."""
    folder = written(
        tmp_path / "a", [{"time": t, "channel": c} for t in (0, 1) for c in (0, 1)], {"ChNames": ["x", "y"]}
    )
    assert (open_image(folder).axes, open_image(folder).channels) == ("TCYX", ("x", "y"))


def test_the_tiles_of_a_grid_are_positions(tmp_path: Path) -> None:
    """Row by row and said; never time; a tile that was not taken is left out."""
    places: list[Place] = [{"row": r, "column": c, "z": z} for r in (0, 1) for c in (0, 1, 2) for z in (0, 1)]
    del places[4:6]  # row 0 column 2
    image = open_image(written(tmp_path / "a", places, {"GridPixelOverlapX": 2, "GridPixelOverlapY": 1}))
    assert (image.axes, image.shape) == ("PZYX", (5, 2, 4, 5))
    assert image.position_names[1:3] == ("row 0 column 1", "row 1 column 0")
    assert image.warnings[-1] == (
        "The 5 tiles of a grid, which overlap by 1 and 2 px along Y and X, are positions; they are not stitched."
    )
    for i in range(10):
        np.testing.assert_array_equal(image.plane(i)[0], PAGE + i)
    np.testing.assert_array_equal(image.plane(7, window=(1, 3, 2, 4))[0], PAGE[1:3, 2:4] + 7)


def test_an_index_without_images(tmp_path: Path) -> None:
    """Empty, or of a TIFF that is not there; the index itself is no image."""
    folder = written(tmp_path / "a", [{"time": 0}])
    with pytest.raises(ImageError, match="the index of an acquisition of Micro-Manager; open its folder"):
        open_image(folder / "NDTiff.index")
    (folder / "a_NDTiffStack.tif").rename(tmp_path / "b.tif")
    with pytest.raises(ImageError, match=r"has no file a_NDTiffStack\.tif, which its NDTiff\.index names"):
        open_image(folder)
    (folder / "NDTiff.index").write_bytes(b"\1")
    with pytest.raises(ImageError, match="lists no image; the acquisition is damaged"):
        open_image(folder)
