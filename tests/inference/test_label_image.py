"""The one rule for label images: what is taken, what is made of a mask, and what is refused with a way out."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
from PIL import Image

import napari_milcnn as mil
from conftest import delta_model
from napari_milcnn.errors import ImageError, LabelsError
from napari_milcnn.images.open import open_image
from napari_milcnn.inference.cells import as_label_image, label_file, read_label_image

CELLS = np.zeros((80, 80), np.uint16)
CELLS[5:20, 5:20], CELLS[5:20, 40:55], CELLS[50:70, 30:60] = 1, 2, 7
RNG = np.random.default_rng(3)
PICTURE = RNG.integers(5, 40, CELLS.shape).astype(np.uint8) + np.uint8(90) * (CELLS > 0)


@pytest.fixture
def image():
    return open_image(PICTURE)


def test_whole_numbers_are_taken_whatever_type_they_are_stored_in(image):
    for kind in (np.uint8, np.int64, np.float16, np.float32, np.float64):
        found = as_label_image(CELLS.astype(kind), image)
        np.testing.assert_array_equal(found.numbers[0], CELLS)
        assert found.numbers.dtype == np.int32
        assert found.warnings == ()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: np.where(c == 2, np.nan, c), "225 pixels that are NaN"),
        (lambda c: np.where(c == 2, 2.5, c), "225 pixels with fractions, such as 2.5"),
        (lambda c: c - 1.0, "numbers from -1 to 6"),
        (lambda c: c * 2.0**23, "numbers from 0 to 58720256"),
        (lambda c: (c * 500.0).astype(np.float16), "16-bit floats up to 3500"),
        (lambda c: c[:50], "50 x 80 px, but the image is 80 x 80 px"),
        (lambda c: c * 1j, "the type complex128"),
    ],
)
def test_numbers_that_objects_cannot_have_are_refused_with_a_way_out(image, change, said):
    with pytest.raises(LabelsError, match=r"cells\.tif.*" + said) as refused:
        as_label_image(change(CELLS.astype(float)), image, "cells.tif")
    assert ";" in str(refused.value)


@pytest.mark.parametrize("value", [1, 255, True])
def test_the_pieces_of_a_mask_are_objects_and_a_sentence_says_so(image, value):
    found = as_label_image((CELLS > 0) * np.array(value), image)
    assert np.unique(found.numbers).tolist() == [0, 1, 2, 3]
    assert "each of its 3 separate pieces" in found.warnings[0].lower()
    with pytest.warns(UserWarning, match="3 separate pieces"):
        assert len(mil.classify_cells(delta_model(), image, (CELLS > 0) * np.array(value))) == 3


def test_one_object_alone_keeps_its_number(image):
    found = as_label_image(np.where(CELLS == 7, 7, 0), image)
    assert np.unique(found.numbers).tolist() == [0, 7]
    assert found.warnings == ()


def test_one_cell_on_each_plane_of_a_time_lapse_is_no_mask():
    planes = np.zeros((3, 40, 40), np.uint8)
    for i, plane in enumerate(planes):
        plane[5 + 8 * i : 12 + 8 * i, 5:12] = 1
    assert as_label_image(planes, open_image(np.zeros((3, 40, 40)), axes="TYX")).warnings == ()


def test_classes_of_pixels_keep_their_numbers_and_are_said(image):
    classes = np.where(CELLS == 7, 2, CELLS)
    classes[75:78, 5:8] = 1
    found = as_label_image(classes, image)
    np.testing.assert_array_equal(found.numbers[0], classes)
    assert "2 numbers (1, 2) in 4 separate pieces" in found.warnings[0]


def test_a_background_with_a_number_is_said(image):
    """As the simple segmentation of ilastik has it, and an inverted mask."""
    found = as_label_image((CELLS > 0) + np.uint8(1), image)
    assert "the object 1 covers 84% of the image; if that is the background" in found.warnings[0]
    assert "2 numbers (1, 2) in 4 separate pieces" in found.warnings[1]
    (said,) = as_label_image(np.where(CELLS > 0, 0, 255).astype(np.uint8), image).warnings
    assert "the object 255 covers" in said


def test_small_cells_beside_a_large_one_are_pieces_of_a_mask_too(image):
    mask = (CELLS == 7).astype(np.uint8)
    mask[5:8, 5:8] = 1
    assert as_label_image(mask * 255, image).numbers.max() == 2


def test_fragments_of_few_cells_are_not_mentioned(image):
    labels = CELLS.copy()
    labels[30, 30] = 2
    assert as_label_image(labels, image).warnings == ()


def test_the_image_itself_and_other_pictures_are_refused(image, tmp_path):
    with pytest.raises(LabelsError, match="picture of intensities"):
        as_label_image(PICTURE, image)
    with pytest.raises(LabelsError, match="picture of intensities"):
        as_label_image(RNG.integers(0, 60_000, CELLS.shape).astype(np.uint16), image)
    flat = open_image((CELLS > 0).astype(np.uint8) * 150)
    with pytest.raises(LabelsError, match="same pixels as image: it is the image itself"):
        as_label_image(flat.plane(0)[0], flat)
    tifffile.imwrite(tmp_path / "a.tif", PICTURE)
    with pytest.raises(LabelsError, match="is the image itself"):
        read_label_image(tmp_path / "a.tif", open_image(tmp_path / "a.tif"))


def test_spots_of_one_pixel_are_objects(image):
    spots = np.zeros_like(CELLS)
    spots[2::9, 2::9] = np.arange(1, 82).reshape(9, 9)
    assert as_label_image(spots, image).numbers.max() == 81


def test_colour_pictures_of_labels_and_several_channels_are_refused(image, tmp_path):
    Image.fromarray(np.stack([CELLS.astype(np.uint8) * 30] * 3, -1)).save(tmp_path / "cells.png")
    with pytest.raises(LabelsError, match="colour picture, in which the numbers of the cells are lost"):
        read_label_image(tmp_path / "cells.png", image)
    tifffile.imwrite(tmp_path / "two.ome.tif", np.stack([CELLS, CELLS]), metadata={"axes": "CYX"})
    with pytest.raises(LabelsError, match="has 2 channels"):
        read_label_image(tmp_path / "two.ome.tif", image)


def test_a_file_with_nan_is_named(image, tmp_path):
    tifffile.imwrite(tmp_path / "cells.tif", np.where(CELLS == 1, np.nan, CELLS).astype(np.float32))
    with pytest.raises((ImageError, LabelsError), match=r"cells\.tif"):
        read_label_image(tmp_path / "cells.tif", image)


def write(path, pixels, size=None):
    """Write an OME-TIFF with a pixel size in µm."""
    sizes = {} if size is None else dict.fromkeys(("PhysicalSizeX", "PhysicalSizeY"), size)
    tifffile.imwrite(path, pixels, metadata={"axes": "YX", **sizes})
    return path


def test_labels_of_other_pixels_of_the_same_field_are_resampled(tmp_path):
    image = open_image(write(tmp_path / "a.ome.tif", PICTURE, 0.5))
    found = read_label_image(write(tmp_path / "half.ome.tif", CELLS[::2, ::2], 1.0), image)
    assert np.mean(found.numbers[0] == CELLS) > 0.97
    assert "40 x 40 px of 1 µm and was resampled to the 80 x 80 px" in found.warnings[0]
    for name, size in (("part", 0.5), ("unknown", None)):
        with pytest.raises(LabelsError, match="40 x 40 px, but the image is 80 x 80 px"):
            read_label_image(write(tmp_path / f"{name}.ome.tif", CELLS[::2, ::2], size), image)
    found = read_label_image(write(tmp_path / "other.ome.tif", CELLS, 0.25), image)
    assert "says 0.25 µm per pixel, and the image has 0.5" in found.warnings[0]


@pytest.mark.parametrize(
    "name",
    ["a.tif", "a.ome.tif", "a_cp_masks.png", "a_masks.tif", "a_labels.tiff", "a-labels.tif", "a_seg.tif",
     "a.labels.tif", "A_Labels.TIF", "a_mask.png"],
)  # fmt: skip
def test_usual_names_of_label_images_are_found(tmp_path, name):
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks" / name).touch()
    (tmp_path / "masks" / "ab_labels.tif").touch()
    assert label_file(tmp_path / "masks", tmp_path / "a.ome.tif").name == name


def test_labels_beside_the_images_are_found_and_doubles_are_asked_for(tmp_path):
    for name in ("a.tif", "a_cp_masks.tif", "b.tif"):
        write(tmp_path / name, CELLS)
    assert label_file(tmp_path, tmp_path / "a.tif").name == "a_cp_masks.tif"
    with pytest.raises(LabelsError, match=r"b\.tif is the image itself"):
        label_file(tmp_path, tmp_path / "b.tif")
    write(tmp_path / "a_labels.tif", CELLS)
    with pytest.raises(LabelsError, match=r"several label images of a: a_labels\.tif, a_cp_masks\.tif"):
        label_file(tmp_path, tmp_path / "a.tif")
    with pytest.raises(LabelsError, match=r"no label image of c; expected a file such as c\.tif, c_labels\.tif"):
        label_file(tmp_path, tmp_path / "c.tif")
