"""The overview picture of images of any shape, with many classes, long names and nothing in them."""

from __future__ import annotations

from dataclasses import replace

import imageio.v3 as imageio
import numpy as np
import pandas as pd
import pytest

import napari_milcnn as mil
from conftest import lively_model, noise
from napari_milcnn.figures.overview import ShownPlane, composite, write_overview
from napari_milcnn.figures.palette import class_colours
from napari_milcnn.inference.masks import PlaneMasks

NAMES = [f"class {i}" for i in range(20)]


def prediction_of(pixels: np.ndarray, **options):
    """Classify pixels (C, Y, X) with an untrained model."""
    return mil.classify(lively_model(**options), mil.open_image(pixels, axes="CYX"), device="cpu")


def drawn(path, prediction, plane: ShownPlane, pixel_size: float | None = 0.2) -> np.ndarray:
    """Write the picture and read it back."""
    write_overview(path, prediction, [plane], pixel_size)
    return imageio.imread(path)


@pytest.mark.parametrize("shape", [(2, 100, 100), (2, 90, 700), (2, 700, 90)])
def test_planes_of_any_shape_fit(tmp_path, shape):
    pixels = noise(*shape)
    picture = drawn(tmp_path / "a.png", prediction_of(pixels), ShownPlane(0, composite(pixels), 1, None))
    assert picture.dtype == np.uint8
    assert picture.shape[1] < 1400
    assert picture.shape[0] < 700


def test_every_class_has_its_bar_and_long_names_are_cut(tmp_path):
    pixels = noise(2, 100, 100)
    names = [*NAMES[:-1], "a very long name of a class, longer than the panel " * 3]
    prediction = prediction_of(pixels, classes=names)
    prediction = replace(prediction, name="name " * 100, scores=np.full((1, 20), 0.5, np.float32))
    picture = drawn(tmp_path / "a.png", prediction, ShownPlane(0, composite(pixels), 1, None))
    colours = {tuple(colour) for colour in picture.reshape(-1, 3)}
    for colour in set(class_colours(names).values()):
        assert tuple(bytes.fromhex(colour[1:])) in colours


def test_objects_are_outlined_in_the_colour_of_their_class_where_they_are(tmp_path):
    labels = np.zeros((200, 100), np.int32)
    labels[150:180, 20:60] = 7
    objects = pd.DataFrame({"label": [7], "class": ["b"], "shown": [True]})
    prediction = prediction_of(noise(2, 200, 100))
    plane = ShownPlane(0, np.zeros((200, 100, 3)), 1, PlaneMasks(labels, objects, {}))
    picture = drawn(tmp_path / "a.png", prediction, plane, None)
    colour = tuple(bytes.fromhex(class_colours(prediction.classes)["b"][1:]))
    y, x = np.nonzero((picture == colour).all(2)[:, :240])  # the picture of the image is at the left, 230 px wide
    zoom, top = 460 / 200, picture.shape[0] - 14 - 460
    y, x = y[y < top + 400], x[y < top + 400]  # below are the scale and the legend
    assert y.min() == pytest.approx(top + 150 * zoom, abs=3)
    assert (x.min(), x.max()) == pytest.approx((14 + 20 * zoom, 14 + 60 * zoom), abs=3)


def test_a_plane_without_structure_is_shown_grey(tmp_path):
    pixels = np.full((2, 100, 100), 7, np.uint16)
    prediction = prediction_of(pixels)
    assert not prediction.has_structure[0]
    picture = drawn(tmp_path / "a.png", prediction, ShownPlane(0, np.full((100, 100, 3), 0.5), 1, None))
    beside = picture[100:400, 490:900].astype(int)
    assert (np.ptp(beside, axis=2) == 0).all()
