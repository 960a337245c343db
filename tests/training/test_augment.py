"""Random changes of patches: each does to known pixels what it says, and none is applied that is switched off."""

from __future__ import annotations

import numpy as np
import pytest

from napari_milcnn.images.open import open_image
from napari_milcnn.inference.model_input import model_input
from napari_milcnn.model.trained_model import new_model
from napari_milcnn.options import TRAIN_PRESETS, TrainOptions
from napari_milcnn.training.augment import (
    draw_zoom,
    flip_rotate,
    half_as_strong,
    resized,
    varied_image,
    vary_acquisition,
)

OFF = {"vary_intensity": 0, "vary_offset": 0, "vary_noise": 0, "vary_saturation": 0, "vary_blur": 0, "vary_size": 1,
       "vary_share": 1}  # fmt: skip


def only(**strengths):
    """Apply these changes to every patch, and no others."""
    return TrainOptions(**OFF | strengths)


@pytest.fixture
def patch():
    """Two channels of background 0 with a square of 1 in the first and of 2 in the second."""
    pixels = np.zeros((2, 64, 64), np.float32)
    pixels[0, 24:40, 24:40] = 1
    pixels[1, 24:40, 24:40] = 2
    return pixels


def test_the_eight_turns_are_different_and_exact():
    """Eight rotations and reflections of a 2 x 2 image without symmetry."""
    image = np.arange(4).reshape(1, 2, 2)
    seen = {flip_rotate(image, which).tobytes() for which in range(8)}
    assert len(seen) == 8
    np.testing.assert_array_equal(flip_rotate(image, 0), image)


@pytest.mark.parametrize("options", [only(), TrainOptions(vary_share=0), TrainOptions(**TRAIN_PRESETS["paper"])])
def test_nothing_is_changed_where_all_is_off(patch, options):
    """By strength, by share, and in the paper's training."""
    np.testing.assert_array_equal(vary_acquisition(patch, options, np.random.default_rng(0)), patch)
    assert draw_zoom(options, np.random.default_rng(0)) == 1


def test_intensity_multiplies_what_lies_above_the_background(patch):
    """Each channel by a factor of its own; the background stays, wherever it lies."""
    out = vary_acquisition(patch + 5, only(vary_intensity=0.5), np.random.default_rng(0)) - 5
    factors = [float(channel.max()) / level for channel, level in zip(out, (1, 2), strict=True)]
    assert out.min() == pytest.approx(0, abs=1e-6)
    assert factors[0] != pytest.approx(factors[1], abs=0.01)
    assert set(np.round(np.unique(out[1]), 5)) == {0, np.round(np.float32(2 * factors[1]), 5)}
    drawn = [vary_acquisition(patch, only(vary_intensity=0.35), np.random.default_rng(i))[0].max() for i in range(400)]
    assert np.log(drawn).std() == pytest.approx(0.35, abs=0.05)


def test_offset_moves_a_channel_as_a_whole(patch):
    """By at most its share of the spread, up or down."""
    shifts = [vary_acquisition(patch, only(vary_offset=0.2), np.random.default_rng(i)) - patch for i in range(100)]
    assert max(float(np.ptp(shift[0])) for shift in shifts) == pytest.approx(0, abs=1e-6)
    assert -0.2 <= min(shift.min() for shift in shifts) < -0.15 < 0.15 < max(shift.max() for shift in shifts) <= 0.2


def test_noise_grows_with_the_signal_at_most_to_its_share():
    """On the background read noise alone; on a bright half shot noise besides. 0.1 is the most at a signal of 1."""
    halves = np.zeros((1, 64, 64), np.float32)
    halves[0, :, 32:] = 1
    spreads = []
    for seed in range(100):
        noise = (vary_acquisition(halves, only(vary_noise=0.1), np.random.default_rng(seed)) - halves)[0]
        spreads.append((noise[:, :32].std(), noise[:, 32:].std()))
    dark, bright = np.array(spreads).T
    assert bright.max() == pytest.approx(0.1, abs=0.005)
    assert dark.mean() < 0.8 * bright.mean()


def test_saturation_cuts_off_the_brightest_of_each_channel():
    """A ramp keeps its lower part as it is, above an offset of 3; the level is at least half of the top."""
    ramp = np.linspace(0, 1, 64 * 64, dtype=np.float32).reshape(1, 64, 64) * np.float32([[[1]], [[2]]]) + 3
    levels = []
    for seed in range(100):
        cut = vary_acquisition(ramp, only(vary_saturation=0.5), np.random.default_rng(seed))
        level = cut.max((1, 2))
        np.testing.assert_allclose(cut, np.minimum(ramp, level[:, None, None]), atol=1e-6)
        levels.append((level - 3) / (1, 2))
    assert 0.5 <= np.min(levels) < 0.55
    assert 0.95 < np.max(levels) <= 1
    assert not np.allclose(*np.transpose(levels), atol=0.01)


def test_half_as_strong_halves_strengths_and_not_how_often():
    """A factor of size is halved on its logarithmic scale."""
    half = half_as_strong(TrainOptions(vary_blur=1.5, vary_saturation=0.5, vary_size=1.44, vary_share=0.6))
    assert (half.vary_blur, half.vary_saturation, half.vary_share) == (0.75, 0.25, 0.6)
    assert half.vary_size == pytest.approx(1.2)


def test_blur_is_at_most_its_sigma(patch):
    """A step of 1 has the slope 1 / (sigma * sqrt(2 pi)) at its middle; both channels have the same focus."""
    step = np.zeros((2, 32, 32), np.float32)
    step[:, :, 16:] = 1
    slopes = [np.diff(vary_acquisition(step, only(vary_blur=1.5), np.random.default_rng(i))[:, 16], axis=1)[:, 15]
              for i in range(50)]  # fmt: skip
    assert all(slope[0] == slope[1] for slope in slopes)
    assert 0.25 < min(slope[0] for slope in slopes) < 0.3 < 0.9 < max(slope[0] for slope in slopes)
    assert vary_acquisition(patch, only(vary_blur=1.5), np.random.default_rng(0)).sum() == pytest.approx(patch.sum())


def test_size_is_drawn_as_often_larger_as_smaller():
    """Between 1/1.33 and 1.33, evenly on a logarithmic scale; a share of patches keeps its size."""
    options = TrainOptions(vary_size=1.33, vary_share=0.5)
    zooms = np.array([draw_zoom(options, np.random.default_rng(i)) for i in range(400)])
    assert 1 / 1.33 <= zooms.min() < 0.8 < 1.25 < zooms.max() <= 1.33
    assert (zooms == 1).mean() == pytest.approx(0.5, abs=0.1)
    assert (zooms > 1).mean() == pytest.approx((zooms < 1).mean(), abs=0.1)


def test_resizing_keeps_brightness_and_place(patch):
    """A square of 16 px in the middle becomes one of 32 px, as bright, in the middle."""
    large = resized(patch, (128, 128))
    assert large.shape == (2, 128, 128)
    assert (large[0] > 0.5).sum() == 32 * 32
    assert np.argwhere(large[0] > 0.5).mean() == pytest.approx(63.5)
    assert large.max() == pytest.approx(2)
    assert resized(patch, (64, 64)) is patch


@pytest.mark.parametrize("normalise", ["training", "image"])
def test_a_plane_is_varied_in_its_own_intensities(normalise):
    """Off, it stays as it is; larger, it has more pixels, and keeps its levels."""
    raw = np.full((1, 80, 96), 200, np.uint16)
    raw[0, 20:60, 20:60] = 1200
    raw[0, ::2] += 1
    model = new_model(["a", "b"], ["DNA"], normalise=normalise).with_card(mean=(300.0,), std=(400.0,))
    seen = model_input(model, open_image(raw, axes="CYX"))
    rng = np.random.default_rng(0)
    same = varied_image(seen, 0, only(), rng)
    np.testing.assert_allclose(same.plane(0), raw, rtol=1e-5)
    larger = varied_image(seen, 0, only(vary_size=2), rng).plane(0)
    assert larger.shape != raw.shape
    assert larger.shape[1] / 80 == pytest.approx(larger.shape[2] / 96, abs=0.02)
    assert (larger.min(), larger.max()) == pytest.approx((200, 1201), rel=0.01)
