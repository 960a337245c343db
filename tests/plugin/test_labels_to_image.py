"""A labels layer on an image: pixel by pixel in one place, resampled at another scale, refused elsewhere."""

from __future__ import annotations

import numpy as np
import pytest
from napari.layers import Image, Labels

from napari_milcnn.errors import LabelsError
from napari_milcnn.plugin.labels_to_image import labels_on
from napari_milcnn.plugin.layers_to_image import open_layers, suggest

CELLS = np.zeros((60, 80), np.int32)
CELLS[5:20, 5:20], CELLS[30:50, 40:70] = 3, 8
PIXELS = np.random.default_rng(0).integers(0, 99, CELLS.shape).astype(np.uint8)
MICROMETRES = {"units": ("um", "um")}


def read(labels, data=PIXELS, **place):
    """Read a labels layer on an image layer that lies in some place."""
    layers = [Image(data, name="field", **place)]
    labels.name = "mine"
    source = open_layers(layers, suggest(layers))
    return labels_on(source, labels).read(source.image)


@pytest.mark.parametrize(
    "place",
    [
        {},
        {"scale": (0.5, 0.5), "translate": (3, 4), "rotate": 30.0},
        {"affine": np.array([[0.2, 0.1, 5], [0, 0.2, 7], [0, 0, 1]])},
        {"scale": (0.5, 0.5), **MICROMETRES},
    ],
)
def test_labels_of_the_same_place_are_read_pixel_by_pixel(place):
    found = read(Labels(CELLS, **place), **place)
    np.testing.assert_array_equal(found.numbers[0], CELLS)
    assert found.warnings == ()


def test_scale_and_affine_that_amount_to_the_same_place_agree():
    found = read(Labels(CELLS, scale=(500, 500), units=("nm", "nm")), affine=np.diag([0.5, 0.5, 1]), **MICROMETRES)
    np.testing.assert_array_equal(found.numbers[0], CELLS)
    assert found.warnings == ()


def test_labels_without_a_place_are_read_pixel_by_pixel_and_said():
    found = read(Labels(CELLS), scale=(0.5, 0.5))
    np.testing.assert_array_equal(found.numbers[0], CELLS)
    assert "no place of its own" in found.warnings[0]


def test_an_image_without_a_place_takes_labels_with_a_scale_pixel_by_pixel():
    found = read(Labels(CELLS, scale=(0.2, 0.2)))
    np.testing.assert_array_equal(found.numbers[0], CELLS)
    assert "the image has no place of its own" in found.warnings[0]


@pytest.mark.parametrize(("scale", "place"), [((1, 1), {"scale": (0.5, 0.5)}), ((2, 2), {})])
def test_labels_of_coarser_pixels_are_resampled(scale, place):
    found = read(Labels(CELLS[::2, ::2], scale=scale, translate=np.array(scale) / 4), **place)
    assert np.mean(found.numbers[0] == CELLS) > 0.98  # cells begin on odd rows
    assert found.warnings == ("the layer mine has other pixels than the image and was resampled to them",)


def test_labels_of_a_part_are_put_in_their_place_and_the_share_is_said():
    found = read(Labels(CELLS[30:, 40:], scale=(0.5, 0.5), translate=(15, 20)), scale=(0.5, 0.5))
    np.testing.assert_array_equal(found.numbers[0] == 8, CELLS == 8)
    assert np.unique(found.numbers).tolist() == [0, 8]
    assert "it covers 25% of the image" in found.warnings[0]


@pytest.mark.parametrize(
    ("labels", "place", "said"),
    [
        (Labels(CELLS, scale=(0.5, 0.5), translate=(0, 40)), {"scale": (0.5, 0.5)}, "lies elsewhere"),
        (Labels(CELLS), {"translate": (0, 400)}, "lies elsewhere"),
        (Labels(CELLS, scale=(0.5, 0.5), translate=(5, 0)), {}, "lies elsewhere"),
        (Labels(CELLS[:50], scale=(2, 2)), {}, "50 x 80 px, but the image is 60 x 80 px"),
        (Labels(CELLS), {"rotate": 90.0}, "lies elsewhere.*rotated"),
        (Labels(CELLS[:30]), {"scale": (0.5, 0.5)}, "30 x 80 px, but the image is 60 x 80 px"),
        (Labels(CELLS, scale=(1, 1.5), translate=(500, 0)), {"scale": (2, 2)}, "does not overlap"),
    ],
)
def test_labels_of_another_place_are_refused(labels, place, said):
    with pytest.raises(LabelsError, match=f"the layer mine cannot be the cells of field: .*{said}"):
        read(labels, **place)


def test_labels_of_other_time_points_are_refused():
    stack = np.stack([PIXELS] * 3)
    place = {"scale": (2, 1, 1), "axis_labels": ("t", "y", "x")}
    assert read(Labels(np.stack([CELLS] * 3), **place), stack, **place).numbers.shape == (3, 60, 80)
    with pytest.raises(LabelsError, match="elsewhere along T"):
        read(Labels(np.stack([CELLS] * 3), **place, translate=(6, 0, 0)), stack, **place)


def test_a_mask_painted_as_a_layer_becomes_its_pieces():
    found = read(Labels((CELLS > 0).astype(np.uint8)))
    assert found.numbers.max() == 2
    assert "2 separate pieces" in found.warnings[0]
