"""OME-Zarr and zarr written, opened, and compared with the numbers that were written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from image_files import TCYX, every_plane, write_ome_zarr
from napari_milcnn.errors import ImageError
from napari_milcnn.images.ome_zarr import plate_wells
from napari_milcnn.images.open import open_image


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
    with pytest.raises(ImageError, match=r"is a folder, but not an OME-Zarr or zarr image: .*; give one image, or on"):
        open_image(tmp_path)


def test_damaged_zarr(tmp_path: Path) -> None:
    """Broken metadata is one sentence."""
    path = write_ome_zarr(tmp_path / "a.zarr", TCYX, 5, axes="tcyx")
    (path / "zarr.json").write_text("{")
    with pytest.raises(ImageError, match=r"a\.zarr cannot be opened as an image: "):
        open_image(path)


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
