"""What is an image, what is a zarr, and what an image is called."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image

from napari_milcnn.errors import ImageError
from napari_milcnn.images.open import open_image
from napari_milcnn.images.paths import (
    IMAGE_SUFFIXES,
    OUTPUT_ENDS,
    find_images,
    image_name,
    is_image,
    is_plain_folder,
    is_zarr,
    output_names,
    shown_name,
)


def touched(folder: Path, *names: str) -> None:
    """Make empty files."""
    for name in names:
        (folder / name).touch()


def test_folders_give_their_images_sorted(tmp_path: Path) -> None:
    """A folder stands for the images in it; hidden files, tables, documents and plain folders are passed over."""
    touched(tmp_path, "b.tif", "a.PNG", ".c.tif", "labels.csv", "notes.docx", "Thumbs.db", "noext", "d.czi")
    (tmp_path / "more").mkdir()
    touched(tmp_path / "more", "e.tif")
    assert [path.name for path in find_images([tmp_path])] == ["a.PNG", "b.tif", "d.czi"]


def test_a_folder_of_bmp_is_a_folder_of_images(tmp_path: Path) -> None:
    """Every kind that `open_image` reads without further packages is found, and opens."""
    pixels = np.arange(48, dtype=np.uint8).reshape(6, 8)
    for ending in ("bmp", "gif", "jpeg", "jpg", "png"):
        Image.fromarray(pixels).save(tmp_path / f"a.{ending}")
    for ending in ("tif", "tiff", "btf", "tf8", "lsm", "stk"):
        tifffile.imwrite(tmp_path / f"a.{ending}", pixels)
    zarr.save_array(str(tmp_path / "a.zarr"), pixels)
    found = find_images([tmp_path])
    assert len(found) == 12
    for path in found:
        with open_image(path) as image:
            assert image.plane(0).shape == (1, 6, 8)


@pytest.mark.parametrize("end", OUTPUT_ENDS)
def test_own_outputs_are_passed_over_in_folders_and_taken_where_they_are_named(tmp_path: Path, end: str) -> None:
    """A folder of images may hold the results of an earlier run; a file that is named itself is taken."""
    touched(tmp_path, "a.tif", f"a{end}")
    assert find_images([tmp_path]) == [tmp_path / "a.tif"]
    assert find_images([tmp_path / f"a{end}", tmp_path / "notes.docx"]) == [
        tmp_path / f"a{end}", tmp_path / "notes.docx"
    ]  # fmt: skip


def test_folders_without_an_image_and_no_source(tmp_path: Path) -> None:
    """The message lists what is looked for."""
    touched(tmp_path, "labels.csv")
    with pytest.raises(ImageError, match=r"holds no image; expected OME-Zarr folders, or files that end in one of"):
        find_images([tmp_path])
    with pytest.raises(ImageError, match="no image was named"):
        find_images([])


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("name", ["a.zarr", "a.NGFF", "plain"])
def test_a_zarr_is_known_by_its_name_or_its_metadata(tmp_path: Path, version: int, name: str) -> None:
    """Arrays and groups of both versions, in a folder of any name; an empty folder only by its name."""
    zarr.save_array(str(tmp_path / "array" / name), np.zeros((2, 2)), zarr_format=version)
    zarr.open_group(str(tmp_path / "group" / name), mode="w", zarr_format=version)
    for kind in ("array", "group"):
        assert is_zarr(tmp_path / kind / name)
        assert is_image(tmp_path / kind / name)
        assert not is_plain_folder(tmp_path / kind / name)
        assert find_images([tmp_path / kind]) == find_images([tmp_path / kind / name]) == [tmp_path / kind / name]
    (tmp_path / name).mkdir()
    assert is_zarr(tmp_path / name) == (name != "plain")
    assert is_plain_folder(tmp_path / name) == (name == "plain")


def test_a_file_called_zarr_is_no_image(tmp_path: Path) -> None:
    """Only a folder is a zarr, and a path that does not exist is neither."""
    touched(tmp_path, "a.zarr")
    for name in ("a.zarr", "gone.zarr"):
        assert not is_zarr(tmp_path / name)
        assert not is_image(tmp_path / name)
        assert not is_plain_folder(tmp_path / name)


def test_suffixes_are_spelled_as_they_are_compared() -> None:
    """In lower case, with a dot, each once."""
    assert all(suffix == suffix.lower() and suffix[0] == "." for suffix in IMAGE_SUFFIXES)
    assert len(set(IMAGE_SUFFIXES)) == len(IMAGE_SUFFIXES)


@pytest.mark.parametrize(("path", "name"), [
    ("a.tif", "a"),
    ("folder/a.ome.tif", "a"),
    ("a.OME.TIFF", "a"),
    ("0.5uM.ome.tif", "0.5uM"),
    ("a.ome.zarr", "a"),
    ("folder/plate.ome.zarr/B/03/0", "plate_B_03_0"),
    ("outer.zarr/inner.zarr/0", "inner_0"),
    (None, "image"),
])  # fmt: skip
def test_names_of_images(path: str | None, name: str) -> None:
    """The file name without suffix and .ome; in a zarr with the path inside it."""
    assert image_name(path and Path(path)) == name


def test_names_stay_apart() -> None:
    """Files of one name in two folders take the name of the folder; the same file twice takes a number."""
    paths = [Path("p1/a.tif"), Path("p2/a.tif"), Path("p2/b.tif"), Path("p1/a.tif")]
    assert output_names(paths) == ["p1_a", "p2_a", "b", "p1_a_2"]
    assert output_names([Path("0.1uM.tif"), Path("0.5uM.ome.tif")]) == ["0.1uM", "0.5uM"]
    assert output_names([Path("x/a.tif"), Path("x/a.png"), Path("x/x_a_2.tif")]) == ["x_a", "x_a_2", "x_a_2_2"]
    fields = [Path(f"p.zarr/{well}/{field}") for well in ("B/03", "C/03") for field in (0, 1)]
    assert output_names(fields) == ["p_B_03_0", "p_B_03_1", "p_C_03_0", "p_C_03_1"]
    assert output_names([Path("x/p.zarr/B/03/0"), Path("y/p.zarr/B/03/0")]) == ["x_p_B_03_0", "y_p_B_03_0"]
    assert len(output_names([Path(f"{'n' * 300}.tif")])[0]) == 150
    assert output_names([Path("p/Cell.tif"), Path("q/cell.tif")]) == ["p_Cell", "q_cell"]  # one file under Windows
    assert output_names([Path("p/\u00e9.tif"), Path("p/e\u0301.tif")]) == ["p_\u00e9", "p_e\u0301_2"]  # and macOS


@pytest.mark.parametrize("letter", ["ж", "字", "🔬", "é"])
def test_names_are_cut_by_bytes(letter):
    """150 characters may be 600 bytes; names that become equal get a number, and the folder may be as long."""
    long = letter * (250 // len(letter.encode()))
    names = output_names([Path(f"{long[:-1]}{end}.tif") for end in "abc"] + [Path(long) / "x.tif", Path("y/x.tif")])
    assert len(set(names)) == 5
    assert all(len(name.encode()) <= 150 for name in names)
    assert all(name.startswith(letter * 30) for name in names[:4])


@pytest.mark.parametrize("plate", ["plate.ome.zarr", "plate"])
def test_a_field_of_a_plate_is_called_by_plate_well_and_field(tmp_path, plate):
    """The last part of its path, 0, is that of a field in every well; the plate may say what it is by metadata only."""
    field = tmp_path / plate / "B" / "03" / "0"
    field.mkdir(parents=True)
    for folder in (field, *field.parents[:3]):
        (folder / "zarr.json").write_text("{}")
    assert shown_name(field) == f"{plate}/B/03/0"
    assert shown_name(tmp_path / plate) == plate
    assert shown_name(tmp_path / "image.tif") == "image.tif"
