"""Results lie where the image lies, at every position of every slider, in the colours of their classes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from napari.components import ViewerModel
from napari.layers import Image, Labels, Layer
from napari.utils.colormaps import ensure_colormap

from napari_milcnn.figures.palette import class_colours
from napari_milcnn.images.open import open_image
from napari_milcnn.inference.class_maps import MapPlacement
from napari_milcnn.plugin.layers_to_image import LayerImage, SourceReading, open_layers
from napari_milcnn.plugin.results_to_layers import (
    add_layer,
    cell_features,
    cells_layer,
    class_colormap,
    class_map_layer,
    evidence_layer,
    features,
    image_layers,
    label_numbers,
    mask_layer,
    remove,
    select,
    show_or_hide,
)

CLASSES = ("actin", "nucleus", "vacuole")
LENGTHS = {"T": 2, "C": 3, "Z": 4, "Y": 5, "X": 6}
TURNED = np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0.6, -0.8], [0, 0, 0.8, 0.6]])
PLACES: dict[str, dict[str, Any]] = {
    "plain": {},
    "scale": {"scale": (2, 3, 0.5, 0.5), "translate": (10, -6, 1, 0)},
    "rotate": {
        "scale": (2, 3, 0.5, 0.5),
        "rotate": TURNED,
    },
    "flipped": {"scale": (2, -3, 0.5, -0.5)},
    "affine": {
        "scale": (2, 3, 0.5, 1),
        "affine": [[1, 0, 0, 0, 7], [0, 2, 0, 0, 0], [0, 0, 3, 1, 9], [0, 0, 0, 4, 0], [0, 0, 0, 0, 1]],
    },
}
"""Transforms of a layer with the axes C Z Y X."""


def source_of(axes: str, z: str = "planes", **place: Any) -> tuple[Image, LayerImage]:
    """Open a layer with 2 times, 3 channels and 4 depths of 5 × 6 px as an image."""
    shape = [LENGTHS[axis] for axis in axes]
    layer = Image(np.arange(np.prod(shape)).reshape(shape), name="cells", **place)
    channels = CLASSES if "C" in axes else ("GFP",)
    return layer, open_layers([layer], SourceReading(axes, channels, None), z=z)


def made(data: tuple[Any, dict[str, Any], str]) -> Layer:
    """Make a layer from a layer tuple as napari does."""
    return Layer.create(*data)


def objects(*rows: tuple[int, str]) -> pd.DataFrame:
    """Make a table of objects from pairs (index, class)."""
    return pd.DataFrame({"index": [i for i, _ in rows], "class": [name for _, name in rows]})


# Places


@pytest.mark.parametrize("z", ["planes", "maximum"])
@pytest.mark.parametrize("place", PLACES)
def test_results_show_at_every_position_of_every_slider(place, z):
    """Pixel (1, 2) of each plane is the number of the plane + 1, at every channel and at every z of a projection."""
    image, source = source_of("CZYX", z, **PLACES[place])
    labels = np.zeros((len(source.image.planes), 5, 6), int)
    labels[:, 1, 2] = 1 + np.arange(len(labels))
    layer = made(mask_layer(source, labels, objects(), CLASSES))
    viewer = ViewerModel()
    viewer.add_layer(image)
    viewer.add_layer(layer)
    assert layer.data.shape == (1, 4 if z == "planes" else 1, 5, 6)
    for c in range(3):
        for depth in range(4):
            point = image.data_to_world((c, depth, 1, 2))
            viewer.dims.point = point
            wanted = depth + 1 if z == "planes" else 1
            assert layer.get_value(point, world=True) == wanted
            assert layer.get_value(image.data_to_world((c, depth, 2, 2)), world=True) == 0


def test_results_do_not_reach_beyond_the_image():
    """The sliders have as many steps as the image has, with and without results."""
    image, source = source_of("CZYX", "maximum", **PLACES["scale"])
    viewer = ViewerModel()
    viewer.add_layer(image)
    before = viewer.dims.range
    viewer.add_layer(made(mask_layer(source, np.ones((1, 5, 6), int), objects(), CLASSES)))
    assert viewer.dims.range == before
    assert viewer.dims.nsteps[:2] == (3, 4)


@pytest.mark.parametrize("place", PLACES)
def test_pixels_of_a_class_map_lie_at_their_instances(place):
    """Map pixel (i, j) lies at image pixel (y + stride * i, x + stride * j)."""
    image, source = source_of("CZYX", **PLACES[place])
    maps = np.zeros((4, 2, 3), np.float32)
    layer = made(class_map_layer(source, maps, "nucleus", "#56b4e9", MapPlacement(2.5, 0.75, -1)))
    for i, j in ((0, 0), (1, 2), (0.5, -0.5)):
        np.testing.assert_allclose(
            layer.data_to_world((0, 3, i, j)), image.data_to_world((1, 3, 0.75 + 2.5 * i, -1 + 2.5 * j)), atol=1e-9
        )


def test_class_map_by_hand():
    """At 0.5 µm per pixel from (10, 20) µm, a stride of 16 px is 8 µm and an offset of 33 px is 16.5 µm."""
    _, source = source_of("YX", scale=(0.5, 0.5), translate=(10, 20), units=("um", "um"), axis_labels=("y", "x"))
    layer = made(class_map_layer(source, np.zeros((1, 2, 2)), "nucleus", "#56b4e9", MapPlacement(16, 33, 33)))
    assert layer.scale.tolist() == [8, 8]
    assert layer.translate.tolist() == [26.5, 36.5]
    assert (tuple(map(str, layer.units)), layer.axis_labels) == (("micrometer", "micrometer"), ("y", "x"))
    assert layer.name == "cells class map nucleus"


@pytest.mark.parametrize("axes", ["TYX", "TCZYX", "ZTYX"])
def test_masks_are_a_view_of_their_planes(axes):
    """Values written to a plane later appear in the layer."""
    _, source = source_of(axes)
    labels = np.zeros((len(source.image.planes), 5, 6), np.int32)
    layer = made(mask_layer(source, labels, objects(), CLASSES))
    labels[1, 2, 3] = 7
    assert layer.data[source.plane_key(1)][2, 3] == 7
    assert (layer.data == 7).sum() == 1


# Images opened here


def test_image_layers_have_the_place_and_names_of_the_image():
    """Each channel is a layer with all axes except C, in µm."""
    pixels = np.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5)
    image = open_image(pixels, axes="ZCYX", channels=["GFP", "RFP", "DAPI"], pixel_size=0.65)
    layers = [made(data) for data in image_layers(image, [(0, 9), (0, 8), (0, 7)])]
    assert [layer.name for layer in layers] == ["image GFP", "image RFP", "image DAPI"]
    for i, layer in enumerate(layers):
        np.testing.assert_array_equal(layer.data, pixels[:, i])
        assert layer.scale.tolist() == [1, 0.65, 0.65]
        assert tuple(map(str, layer.units)) == ("pixel", "micrometer", "micrometer")
        assert (layer.axis_labels, layer.contrast_limits) == (("z", "y", "x"), [0, 9 - i])


def test_image_of_one_channel_is_grey():
    """The layer has the name of the file, without a channel."""
    (layer,) = (made(data) for data in image_layers(open_image(np.ones((4, 5)))))
    assert (layer.name, layer.colormap.name, layer.scale.tolist()) == ("image", "gray", [1, 1])


# Colours and numbers


def test_label_numbers_by_hand():
    """With three classes and 10 objects before: 3 × (10 + 0) + 2 + 1 and 3 × (10 + 1) + 0 + 1."""
    assert label_numbers(np.array([1, 2]), ["vacuole", "actin"], CLASSES, start=10).tolist() == [33, 34]
    assert label_numbers(np.array([1, 2]), ["actin", "actin"], CLASSES).tolist() == [1, 4]
    assert label_numbers(np.array([], int), [], CLASSES).tolist() == []


@pytest.mark.parametrize("count", [1, 2, 3, 17, 25])
@pytest.mark.parametrize("start", [0, 1, 70_000])
def test_every_number_has_the_colour_of_its_class(count, start):
    """The layer shows the colour through napari's own colormap, for small and large numbers; 0 is transparent."""
    classes = [f"class {i}" for i in range(count)]
    names = classes * 3
    colours = class_colours(classes)
    given = label_numbers(np.arange(1, len(names) + 1), names, classes, start)
    assert len(set(given)) == len(names)
    layer = Labels(np.append(0, given)[None].astype(np.int32), colormap=class_colormap(classes))
    shown = layer.colormap.map(np.append(0, given).astype(np.int32))
    assert shown[0, 3] == 0
    wanted = [[int(colours[name][k : k + 2], 16) / 255 for k in (1, 3, 5)] + [1] for name in names]
    np.testing.assert_allclose(shown[1:], wanted, atol=1e-6)
    np.testing.assert_allclose([layer.get_color(int(number)) for number in given], wanted, atol=1e-6)


def test_overlays_run_from_black_to_the_colour_of_the_class():
    """They are added to the layers below."""
    _, source = source_of("YX")
    layer = made(evidence_layer(source, np.full((1, 5, 6), 4.0), "nucleus", "#56b4e9", "object", 4.0))
    ends = ensure_colormap(layer.colormap).map(np.array([0.0, 1.0]))
    np.testing.assert_allclose(ends * 255, [[0, 0, 0, 255], [0x56, 0xB4, 0xE9, 255]], atol=0.5)
    assert (layer.blending, layer.contrast_limits) == ("additive", [0, 4])


# What shows under the pointer


def status(layer: Labels, point: tuple[float, ...]) -> str:
    """Return the text that napari shows for a world point."""
    return str(layer.get_status(point, view_direction=None, dims_displayed=[0, 1], world=True))


def test_features_of_an_object_show_under_the_pointer():
    """The column `index` finds the row in any order; values are rounded, and the position of the object is left out."""
    _, source = source_of("YX")
    labels = np.zeros((1, 5, 6), int)
    labels[0, 1, 1], labels[0, 3, 3] = 2, 6
    table = objects((6, "vacuole"), (2, "nucleus")).assign(score=np.float32([0.12345, 0.5]), y=1.0, x=2.0)
    layer = made(mask_layer(source, labels, table, CLASSES))
    assert layer.features["score"].tolist() == [0.123, 0.5]
    assert "class: nucleus" in status(layer, (1, 1))
    assert "class: vacuole, score: 0.123" in status(layer, (3, 3))
    assert "class" not in status(layer, (0, 0))
    assert "x: " not in status(layer, (3, 3))


def test_features_do_not_change_the_table():
    """Only the copy for display is rounded."""
    table = objects((1, "actin")).assign(score=0.123456)
    assert features(table)["score"].tolist() == [0.123]
    assert table["score"].tolist() == [0.123456]


# Cells of a user


CELLS = np.zeros((2, 5, 6), np.int32)
CELLS[0, 0, 0], CELLS[0, 4, :], CELLS[1, 2, 2:4] = 5, 200, 5
TABLE = pd.DataFrame(
    {
        "plane": [0, 0, 1], "label": [5, 200, 5], "y": [0.0, 4, 2], "x": [0, 2.5, 2.5], "area_px": [1, 6, 2],
        "top": ["vacuole", "actin", "nucleus"], "p nucleus": [0.1, 0.2, 0.9],
    }
)  # fmt: skip
"""Number 5 is one cell in plane 0, and another in plane 1."""


def test_cells_layer_keeps_every_cell():
    """Each cell of each plane keeps its outline and gets a number of its own and the colour of its class."""
    _, source = source_of("TYX")
    layer = made(cells_layer(source, CELLS, TABLE, CLASSES, "mine classified"))
    np.testing.assert_array_equal(layer.data > 0, CELLS > 0)
    given = [layer.data[0, 0, 0], layer.data[0, 4, 0], layer.data[1, 2, 2]]
    assert len(set(given)) == len(np.unique(layer.data[layer.data > 0])) == 3
    assert layer.features["index"].tolist() == given
    for number, name in zip(given, TABLE["top"], strict=True):
        colour = class_colours(CLASSES)[name]
        np.testing.assert_allclose(layer.get_color(number)[:3], [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)])
    assert layer.name == "mine classified"


def test_cells_layer_of_no_cells():
    """Without cells the layer is empty, and there is no error."""
    _, source = source_of("TYX")
    layer = made(cells_layer(source, np.zeros_like(CELLS), TABLE[:0], CLASSES, "mine classified"))
    assert layer.data.max() == 0


def test_cell_features_show_in_the_layer_of_the_user():
    """A number that appears in two planes has one row, that of the first plane."""
    layer = Labels(CELLS[0], features=cell_features(TABLE))
    assert layer.features["index"].tolist() == [5, 200]
    assert "class: vacuole" in status(layer, (0, 0))
    assert "class: actin" in status(layer, (4, 3))


def viewer_of(*names: str) -> ViewerModel:
    """Return a viewer with an image of each name."""
    viewer = ViewerModel()
    for name in names:
        viewer.add_image(np.zeros((4, 4)), name=name)
    return viewer


@pytest.mark.parametrize("selected", [["a"], ["a", "b"]])
@pytest.mark.parametrize("kind", ["image", "labels"])
def test_a_layer_that_is_added_leaves_the_selection_and_says_nothing_of_it(selected, kind):
    viewer, said = viewer_of("a", "b"), []
    viewer.layers.selection = {viewer.layers[name] for name in selected}
    before, active = set(viewer.layers.selection), viewer.layers.selection.active
    for event in (viewer.layers.selection.events.changed, viewer.layers.selection.events.active):
        event.connect(said.append)
    layer = add_layer(viewer, (np.zeros((4, 4), np.int32), {"name": "new"}, kind))
    assert viewer.layers[-1] is layer
    assert (set(viewer.layers.selection), viewer.layers.selection.active) == (before, active)
    assert said == []


def test_a_layer_that_is_added_where_none_is_selected_is_selected():
    viewer = viewer_of("a")
    viewer.layers.selection.clear()
    layer = add_layer(viewer, (np.zeros((4, 4)), {}, "image"))
    assert viewer.layers.selection == {layer}
    assert viewer.layers.selection.active is layer


def test_layers_are_selected_by_one_event():
    viewer, said = viewer_of("a", "b", "c"), []
    a, b, c = viewer.layers
    viewer.layers.selection.events.changed.connect(said.append)
    select(viewer.layers, {a, b})
    assert (set(viewer.layers.selection), viewer.layers.selection.active) == ({a, b}, None)
    assert [(event.added, event.removed) for event in said] == [({a, b}, {c})]
    select(viewer.layers, {b, a})
    assert len(said) == 1
    select(viewer.layers, {b})
    assert viewer.layers.selection.active is b


def test_only_layers_that_are_to_change_are_shown_or_hidden():
    viewer, said = viewer_of("a", "b", "c"), []
    a, b, c = viewer.layers
    b.visible = False
    for layer in viewer.layers:
        layer.events.visible.connect(lambda event: said.append(event.source))
    show_or_hide({a: False, b: True, c: True})
    assert [layer.visible for layer in viewer.layers] == [False, True, True]
    assert said == [a, b]


def test_layers_that_are_there_are_removed_and_the_others_stay():
    viewer = viewer_of("a", "b", "c")
    a, b, c = viewer.layers
    viewer.layers.remove(a)
    remove(viewer.layers, [a, b])
    assert list(viewer.layers) == [c]
    remove(viewer.layers, [])
    assert list(viewer.layers) == [c]
