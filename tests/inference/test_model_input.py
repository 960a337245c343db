"""The input of a model: channels, resampling, margins, and the place of a class map."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import blob, centroid, delta_model, lively_model, noise
from napari_milcnn.errors import ImageError
from napari_milcnn.images.open import open_image
from napari_milcnn.images.stack import ImageStack, Window
from napari_milcnn.inference.cells import classify_cells
from napari_milcnn.inference.class_maps import MapPlacement, lay_over
from napari_milcnn.inference.model_input import model_input
from napari_milcnn.inference.predict import classify
from napari_milcnn.model.trained_model import TrainedModel, new_model

EXACT = {"device": "cpu", "precision": "float32"}
AT_ONE = lively_model(pixel_size=1.0)
FIELD = 67


def stack(*shape: int, pixel_size: float | None = None, seed: int = 0) -> ImageStack:
    """Open noise of the channels GFP and RFP."""
    return open_image(noise(2, *shape, seed=seed), axes="CYX", channels=["GFP", "RFP"], pixel_size=pixel_size)


def one_channel(pixels: np.ndarray, pixel_size: float | None = None) -> ImageStack:
    """Open (Y, X) as the channel c0."""
    return open_image(pixels[None], axes="CYX", channels=["c0"], pixel_size=pixel_size)


def shifted_model(pixel_size: float | None = None, scale: float = 1.0) -> TrainedModel:
    """Return the hand-made model, its logit 8 v - 4 so that a blob of height 1 spans p = .018 to .982."""
    model = delta_model(pixel_size=pixel_size, scale=scale)
    model.network.maps.weight.data.fill_(8.0)
    model.network.maps.bias.data.fill_(-4.0)
    return model


# Channels


def test_channels_are_found_by_name_in_the_models_order() -> None:
    """Channels in another order, with one more between them, are sorted and normalised: (raw - mean) / std."""
    pixels = np.stack([np.full((70, 80), value, np.uint16) for value in (1, 2, 3)])
    image = open_image(pixels, axes="CYX", channels=["RFP", "DAPI", "GFP"])
    model = lively_model(classes=("a", "b")).with_card(mean=(1.0, 5.0), std=(4.0, 2.0))
    found = model_input(model, image)
    assert found.channels == (2, 0)
    assert found.warnings == ()
    assert found.read_raw(0)[:, 0, 0].tolist() == [3, 1]
    normalised = found.read(0)
    assert normalised.dtype == np.float32
    assert normalised.shape == (2, 70, 80)
    assert normalised[:, 69, 79].tolist() == [0.5, -2.0]


def test_channels_by_order_give_a_warning(compact: TrainedModel) -> None:
    """Unnamed channels are taken by their order, and a warning of the prediction says so."""
    prediction = classify(compact, open_image(noise(2, 70, 80), axes="CYX"), **EXACT)
    assert any("by their order" in text and "GFP = channel 0" in text for text in prediction.warnings)


def test_missing_channels_are_refused(compact: TrainedModel) -> None:
    """An image with one of two channels is refused; the message names both channels."""
    with pytest.raises(ImageError, match=r"the channels GFP, but the model needs GFP, RFP"):
        model_input(compact, open_image(noise(1, 70, 80), axes="CYX", channels=["GFP"]))


# Intensities

BY_IMAGE = lively_model(normalise="image")


@pytest.mark.parametrize("change", [lambda v: v * 257, lambda v: v / np.float32(255), lambda v: v * 0.5 + 20.0])
def test_scores_do_not_depend_on_lamp_and_format(change: Callable[[np.ndarray], np.ndarray]) -> None:
    """With `image`, another gain, offset and type of number give the scores of the image as it was."""
    pixels = noise(2, 150, 160)
    expected = classify(BY_IMAGE, open_image(pixels, axes="CYX", channels=["GFP", "RFP"]), **EXACT)
    other = open_image(change(pixels.astype(np.uint32)), axes="CYX", channels=["GFP", "RFP"])
    np.testing.assert_allclose(classify(BY_IMAGE, other, **EXACT).scores, expected.scores, atol=1e-4)


@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_a_tile_is_scaled_as_its_plane(scale: float) -> None:
    """A window has the numbers of the whole plane, resampled or not, so tiles give the class maps of the plane."""
    model = lively_model(normalise="image", scale=scale)
    pixels = noise(2, 300, 320)
    pixels[:, 200:, 200:] *= 5
    image = open_image(pixels, axes="CYX", channels=["GFP", "RFP"])
    found = model_input(model, image)
    cut = found.read(0, Window(3, 70, 10, 50))
    np.testing.assert_allclose(cut, found.read(0)[:, 3:70, 10:50], rtol=1e-5, atol=1e-6)
    whole, tiled = classify(model, image, **EXACT), classify(model, image, tile=67, **EXACT)
    np.testing.assert_allclose(tiled.class_maps, whole.class_maps, atol=1e-5)


def test_each_plane_of_a_stack_is_scaled_by_itself() -> None:
    """A time-lapse that fades gives the same input at every time, and a blank plane gives zeros."""
    first = noise(1, 100, 120).astype(np.float32)
    found = model_input(
        new_model(["a"], ["c"], widths=(2,) * 6),
        open_image(np.stack([first, 0.25 * first + 7, 0 * first]), axes="TCYX", channels=["c"]),
    )
    np.testing.assert_allclose(found.read(1), found.read(0), atol=1e-4)
    assert (found.read(2) == 0).all()


def test_single_cells_are_scaled_by_their_plane() -> None:
    """Two identical crops on planes of other brightness differ: the plane counts, not the crop."""
    pixels = noise(2, 200, 200)
    labels = np.zeros((200, 200), np.int32)
    labels[80:120, 80:120] = 1
    bright = pixels.copy()
    bright[:, :40] *= 8
    rows = [classify_cells(BY_IMAGE, open_image(v, axes="CYX", channels=["GFP", "RFP"]), labels, **EXACT)
            for v in (pixels, bright, 2 * pixels)]  # fmt: skip
    one, other, twice = (row.filter(like="p ").to_numpy() for row in rows)
    np.testing.assert_allclose(twice, one, atol=1e-5)
    assert abs(other - one).max() > 1e-3


# Resampling


@pytest.mark.parametrize(("size", "zoom"), [(None, 0.5), (1.0, 0.5), (1.05, 0.5), (0.4, 0.2)])
def test_the_scale_of_the_model_combines_with_the_pixel_size(size: float | None, zoom: float) -> None:
    """A model of scale 1/2 halves its training images, and an image of another pixel size so that both agree."""
    model = lively_model(pixel_size=1.0, scale=0.5)
    found = model_input(model, stack(200, 400, pixel_size=size))
    assert (found.zoom, found.shape) == (pytest.approx(zoom), (max(FIELD, 200 * zoom), max(FIELD, 400 * zoom)))
    assert any("resampled" in text for text in found.warnings) is (size == 0.4)
    assert model_input(model, stack(200, 400, pixel_size=size), match_pixel_size=False).zoom == 0.5
    assert model.card.network_pixel_size == 2.0


def test_objects_keep_their_place_at_half_the_size() -> None:
    """A blob lies where it lies in the image whatever the scale of the model."""
    image = one_channel(blob((400, 480), (183.3, 267.8), 40))
    prediction = classify(shifted_model(scale=0.5), image, **EXACT)
    y, x = centroid(lay_over(prediction.class_maps[0, 0], prediction.placement, (400, 480)))
    assert (y, x) == (pytest.approx(183.3, abs=1.5), pytest.approx(267.8, abs=1.5))


@settings(deadline=None, max_examples=60)
@given(
    zoom=st.floats(0.3, 3).filter(lambda zoom: abs(zoom - 1) > 0.11),
    corners=st.tuples(*[st.floats(0, 1)] * 4),
)
def test_a_window_is_that_window_of_the_whole_plane(zoom: float, corners: tuple[float, ...]) -> None:
    """Any window, read by itself, is the same numbers as that window cut from the resampled plane."""
    found = model_input(AT_ONE, stack(240, 300, pixel_size=zoom))
    assert found.zoom == pytest.approx(zoom)
    assert found.shape == (round(240 * zoom), round(300 * zoom))
    (y0, y1), (x0, x1) = (
        sorted(int(share * (n - 1)) for share in pair)
        for pair, n in ((corners[:2], found.shape[0]), (corners[2:], found.shape[1]))
    )
    window = Window(y0, y1 + 1, x0, x1 + 1)
    cut = found.read_raw(0)[:, y0 : y1 + 1, x0 : x1 + 1]
    read = found.read_raw(0, window)
    assert read.shape == (2, y1 + 1 - y0, x1 + 1 - x0)
    np.testing.assert_allclose(read, cut, rtol=1e-4)


@pytest.mark.parametrize("zoom", [0.3, 0.5, 0.73, 1.5, 2.0, 2.9])
def test_a_spot_lands_where_it_should(zoom: float) -> None:
    """A spot at y lands at (y + 1/2) zoom - 1/2, with zoom^2 of its mass, and a ramp keeps its slope."""
    model = delta_model(pixel_size=1.0)
    spot = model_input(model, one_channel(1000 * blob((240, 300), (100.3, 170.6), 6), zoom)).read_raw(0)[0]
    y, x = centroid(spot)
    assert y == pytest.approx(100.8 * zoom - 0.5, abs=0.02)
    assert x == pytest.approx(171.1 * zoom - 0.5, abs=0.02)
    assert spot.sum() == pytest.approx(1000 * 2 * np.pi * 36 * zoom**2, rel=0.01)
    rows, columns = np.indices((240, 300))
    ramp = model_input(model, one_channel((2 * rows + 3 * columns).astype(np.float32), zoom)).read_raw(0)[0]
    i, j = (round(n * zoom / 2) for n in (240, 300))
    assert ramp[i, j] == pytest.approx(2 * ((i + 0.5) / zoom - 0.5) + 3 * ((j + 0.5) / zoom - 0.5), abs=0.01)


def test_finer_detail_than_the_model_sees_does_not_alias() -> None:
    """Stripes of 2 px, halved in size, become their mean rather than stripes or a constant extreme."""
    stripes = np.tile(np.array([0.0, 100.0], np.float32), (200, 100))
    resampled = model_input(delta_model(pixel_size=1.0), one_channel(stripes, 0.4)).read_raw(0)[0]
    inner = resampled[:, 5:-5]
    assert abs(inner - 50).max() < 10


@pytest.mark.parametrize(
    ("size", "resampled"), [(0.95, False), (1.05, False), (1.09, False), (0.85, True), (1.15, True)]
)
def test_only_beyond_ten_percent_is_resampled(size: float, resampled: bool) -> None:
    """A difference of up to 10 % changes nothing and gives no warning; a larger one gives a warning."""
    found = model_input(AT_ONE, stack(100, 120, pixel_size=size))
    assert (found.zoom != 1) is resampled
    if resampled:
        assert found.shape == (round(100 * size), round(120 * size))
        assert f"resampled from {size:g} to the model's 1 µm per pixel" in found.warnings[0]
        assert "switch off match_pixel_size" in found.warnings[0]
    else:
        assert found.warnings == ()
        assert (found.read_raw(0) == noise(2, 100, 120)).all()


def test_resampling_can_be_switched_off() -> None:
    """With match_pixel_size=False nothing is resampled, and even an absurd pixel size is accepted."""
    for size in (0.5, 300.0):
        found = model_input(AT_ONE, stack(100, 120, pixel_size=size), match_pixel_size=False)
        assert (found.zoom, found.shape, found.warnings) == (1, (100, 120), ())
    prediction = classify(AT_ONE, stack(200, 220, pixel_size=0.5), match_pixel_size=False, **EXACT)
    assert prediction.class_maps.shape == (1, 3, 9, 10)  # (200 - 67) // 16 + 1, (220 - 67) // 16 + 1
    assert prediction.warnings == ()


@pytest.mark.parametrize("sizes", [(None, None), (None, 0.5), (1.0, None)])
def test_a_relative_size_counts_where_pixel_sizes_are_unknown(sizes: tuple[float | None, float | None]) -> None:
    """Objects of twice the size are shown at half the size, on top of the model's own scale, and this is said."""
    model = lively_model(pixel_size=sizes[0], scale=0.5)
    found = model_input(model, stack(400, 480, pixel_size=sizes[1]), relative_size=2.0)
    assert (found.zoom, found.shape, found.relative_size) == (0.25, (100, 120), 2)
    assert found.warnings == ("the image was resampled by 0.5, because relative_size says that its objects are 2 "
                              "times as large as in the training images",)  # fmt: skip
    assert model_input(model, stack(400, 480, pixel_size=sizes[1]), relative_size=1.0).warnings == ()


def test_known_pixel_sizes_come_before_a_relative_size() -> None:
    """It is not used, and said so, unless pixel sizes are not to be matched."""
    found = model_input(AT_ONE, stack(100, 120, pixel_size=1.0), relative_size=2.0)
    assert found.zoom == 1
    assert "relative_size 2 was not used" in found.warnings[0]
    assert model_input(AT_ONE, stack(200, 240, pixel_size=1.0), match_pixel_size=False, relative_size=2.0).zoom == 0.5


def test_a_class_map_at_a_relative_size_lies_on_the_image() -> None:
    """A blob lies where it lies in the image, in tiles, too."""
    image = one_channel(blob((400, 480), (183.3, 267.8), 40))
    for tile in (None, 100):
        prediction = classify(shifted_model(), image, relative_size=2.0, tile=tile, **EXACT)
        y, x = centroid(lay_over(prediction.class_maps[0, 0], prediction.placement, (400, 480)))
        assert (y, x) == (pytest.approx(183.3, abs=1.5), pytest.approx(267.8, abs=1.5))
    assert "resampled by 0.5" in prediction.warnings[0]


@pytest.mark.parametrize("sizes", [(None, 1.0), (0.5, None)])
def test_an_unknown_pixel_size_is_not_guessed(sizes: tuple[float | None, float | None]) -> None:
    """If either pixel size is unknown, nothing is resampled."""
    assert model_input(lively_model(pixel_size=sizes[0]), stack(100, 120, pixel_size=sizes[1])).zoom == 1


@pytest.mark.parametrize("size", [0.04, 25.0, 650.0])
def test_pixel_sizes_out_of_all_proportion_are_refused(size: float) -> None:
    """A factor of more than 20 is a mistake in the file; the message has both sizes and says what to do."""
    with pytest.raises(
        ImageError, match=rf"image has {size:g} µm per pixel and the model has 1; .*factor of 20; .*true pixel size"
    ):
        model_input(AT_ONE, stack(100, 120, pixel_size=size))


# Small images


def test_small_images_are_reflected_with_a_warning(compact: TrainedModel) -> None:
    """Three columns 10, 20, 30 become 67, mirrored about the image's edges, and the sentence gives both sizes."""
    pixels = np.broadcast_to(np.array([10, 20, 30], np.uint16), (2, 80, 3))
    found = model_input(compact, open_image(pixels, axes="CYX", channels=["GFP", "RFP"]))
    assert (found.margin, found.shape, found.scaled_shape) == ((0, 32), (80, FIELD), (80, 3))
    row = found.read_raw(0)[1, 5]
    assert row[28:41].tolist() == [30, 30, 20, 10, 10, 20, 30, 30, 20, 10, 10, 20, 30]  # 32 to 34 are the image
    assert found.warnings == (
        "the image, 80 x 3 px, is smaller than the network's receptive field of 67 px; it was extended by reflection",
    )
    window = Window(3, 70, 10, 50)
    assert (found.read_raw(0, window) == found.read_raw(0)[:, 3:70, 10:50]).all()


@pytest.mark.parametrize("shape", [(1, 1), (200, 1), (1, 90), (20, 26)])
@pytest.mark.parametrize("size", [None, 0.3, 2.5])
def test_any_small_image_is_classified(shape: tuple[int, int], size: float | None) -> None:
    """Down to a single pixel, resampled or not, an image gives finite numbers."""
    prediction = classify(AT_ONE, stack(*shape, pixel_size=size), **EXACT)
    assert np.isfinite(prediction.class_maps).all()
    assert np.isfinite(prediction.scores).all()
    assert sum("smaller than the network's receptive field" in text for text in prediction.warnings) == 1


def test_an_image_as_large_as_the_field_has_no_margin(compact: TrainedModel) -> None:
    """67 px are enough: one instance, no warning."""
    found = model_input(compact, stack(FIELD, FIELD))
    assert (found.margin, found.map_shape, found.warnings) == ((0, 0), (1, 1), ())


# Placement


def test_the_placement_in_numbers(compact: TrainedModel, paper: TrainedModel) -> None:
    """Field 67: map pixel 0 is centred on pixel 33; field 135: on 67; with zoom 1/2 all doubles about pixel edges."""
    assert model_input(compact, stack(200, 200)).placement == MapPlacement(16, 33, 33)
    assert model_input(paper, stack(200, 200)).placement == MapPlacement(32, 67, 67)
    assert model_input(AT_ONE, stack(200, 200, pixel_size=0.5)).placement == MapPlacement(32, 66.5, 66.5)


def test_the_placement_with_margins() -> None:
    """The only map row of an image smaller than the field lies at its middle, within half a pixel of the model."""
    assert model_input(AT_ONE, stack(40, 400)).placement == MapPlacement(
        16, 20, 33
    )  # the middle is 19.5; 13 rows above
    assert model_input(AT_ONE, stack(41, 400)).placement == MapPlacement(16, 20, 33)  # the middle is 20
    assert model_input(AT_ONE, stack(60, 600, pixel_size=0.5)).placement == MapPlacement(
        32, 30.5, 66.5
    )  # 18 rows above


@pytest.mark.parametrize("size", [None, 0.4, 0.7, 1.6])
def test_a_blob_is_seen_where_it_lies(size: float | None) -> None:
    """The class map of a network set by hand, laid over the image, has its centre of mass at the blob."""
    scale = 1 / (size or 1)  # image px per model px
    shape, centre = (round(400 * scale), round(480 * scale)), (183.3 * scale, 267.8 * scale)
    model = shifted_model(pixel_size=1.0)
    prediction = classify(model, one_channel(blob(shape, centre, 40 * scale), size), **EXACT)
    laid = lay_over(prediction.class_maps[0, 0], prediction.placement, shape)
    y, x = centroid(laid)
    assert y == pytest.approx(centre[0], abs=0.6 * scale)
    assert x == pytest.approx(centre[1], abs=0.6 * scale)
    assert laid.max() == pytest.approx(0.982, abs=0.002)


def test_a_blob_is_seen_where_it_lies_in_a_narrow_image() -> None:
    """With reflected margins above and below, the place along X is still right."""
    prediction = classify(shifted_model(), one_channel(blob((40, 480), (20, 267.8), 40)), **EXACT)
    assert prediction.class_maps.shape == (1, 1, 1, 26)
    laid = lay_over(prediction.class_maps[0, 0], prediction.placement, (40, 480))
    assert laid.shape == (40, 480)
    assert centroid(laid)[1] == pytest.approx(267.8, abs=0.6)


# Laying over


def test_lay_over_is_linear_between_centres_and_constant_beyond() -> None:
    """Rows 0 and 8 of values 0 and 8 centred on pixels 2 and 10 of 14 give 0 0 0 1 2 ... 8 8 8 8."""
    class_map = np.array([[0.0], [8.0]])
    laid = lay_over(class_map, MapPlacement(8, 2, 5), (14, 3))
    assert laid.dtype == np.float32
    assert laid[:, 0].tolist() == [0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 8, 8, 8]
    assert (laid == laid[:, :1]).all()


def test_lay_over_between_pixels() -> None:
    """A centre between two pixels: offset 1.5, stride 2, so that pixel 2 is a quarter of the way."""
    laid = lay_over(np.array([[0.0, 4.0]]), MapPlacement(2, 0, 1.5), (1, 6))
    assert laid[0].tolist() == [0, 0, 1, 3, 4, 4]


@settings(deadline=None, max_examples=50)
@given(
    rows=st.integers(1, 6),
    columns=st.integers(1, 6),
    stride=st.floats(0.3, 40),
    y=st.floats(-20, 40),
    x=st.floats(-20, 40),
    seed=st.integers(0, 9),
)
def test_lay_over_is_numpys_interpolation(
    rows: int, columns: int, stride: float, y: float, x: float, seed: int
) -> None:
    """Along each axis it is `numpy.interp` between the centres, for any number of leading axes."""
    maps = np.random.default_rng(seed).random((2, 3, rows, columns))
    laid = lay_over(maps, MapPlacement(stride, y, x), (37, 53))
    assert laid.shape == (2, 3, 37, 53)
    across = np.apply_along_axis(lambda v: np.interp(np.arange(53), x + stride * np.arange(columns), v), -1, maps)
    expected = np.apply_along_axis(lambda v: np.interp(np.arange(37), y + stride * np.arange(rows), v), -2, across)
    np.testing.assert_allclose(laid, expected, atol=1e-5)
