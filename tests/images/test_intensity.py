"""Background and spread of a plane: the same for few and many cells, and for every way to record them."""

from __future__ import annotations

import numpy as np
import pytest

from napari_milcnn.images import intensity
from napari_milcnn.images.intensity import IntensitySample, IntensityScale, intensity_scale, sample_plane
from napari_milcnn.images.open import open_image


def field(cells: int, *, noise: float = 3.0, background: float = 20.0, brightness: float = 60.0) -> np.ndarray:
    """Draw discs of 24 px across on a field of 320 x 320 px with read noise, uint8 (Y, X)."""
    rng = np.random.default_rng(cells)
    image = np.full((320, 320), background)
    y, x = np.mgrid[:320, :320]
    for place in rng.permutation(100)[:cells]:
        away = np.hypot(y - 16 - 32 * (place // 10), x - 16 - 32 * (place % 10))
        image += brightness * np.clip(12.5 - away, 0, 1)
    return np.clip(image + rng.normal(0, noise, image.shape), 0, 255).round().astype(np.uint8)


def scale_of(pixels: np.ndarray) -> IntensityScale:
    """Measure the one channel of (Y, X)."""
    return intensity_scale([sample_plane(open_image(pixels[None], axes="CYX"), 0, (0,))])


def scaled(pixels: np.ndarray) -> np.ndarray:
    """Scale (Y, X) by its own background and spread."""
    return scale_of(pixels).apply(pixels[None])[0]


@pytest.mark.parametrize("cells", [1, 5, 80, 99])
@pytest.mark.parametrize("noise", [1.0, 5.0])
def test_one_cell_and_a_full_field_have_the_same_scale(cells: int, noise: float) -> None:
    """Background 20 and cells 60 above it are found within 3 grey levels from 1 to 99 cells on places for 100."""
    found = scale_of(field(cells, noise=noise))
    assert found.background[0] == pytest.approx(20, abs=3)
    assert found.spread[0] == pytest.approx(60, abs=3)


def test_another_lamp_camera_and_format_change_nothing() -> None:
    """Gain, offset, 16 bit and float of the same pixels give the same normalised image."""
    pixels = field(20)
    expected = scaled(pixels)
    assert (expected.mean(), expected.max()) == (pytest.approx(0.09, abs=0.01), pytest.approx(1.2, abs=0.1))
    others = [0.5 * pixels, 2.0 * pixels, pixels + 20.0, pixels.astype(np.uint16) * 257, pixels / np.float32(255)]
    for other in others:
        np.testing.assert_allclose(scaled(other), expected, atol=1e-4)


def test_a_blank_plane_stays_blank() -> None:
    """One value throughout gives zeros, a single other pixel no more than a fifth of full contrast."""
    blank = np.full((70, 80), 7, np.uint8)
    assert scale_of(blank) == IntensityScale((7.0,), (0.0,))
    assert (scaled(blank) == 0).all()
    blank[3, 4] = 255
    assert scaled(blank).max() <= 0.4


def test_noise_is_not_blown_up() -> None:
    """Noise alone, fine or of single grey levels, is scaled to a fifth of the contrast of cells."""
    rng = np.random.default_rng(0)
    assert scaled(rng.normal(1000, 50, (200, 200))).std() == pytest.approx(0.2, abs=0.01)
    assert scaled(100 + (rng.random((200, 200)) < 0.02).astype(np.uint8)).max() <= 0.4


def test_a_hot_pixel_and_a_speck_change_next_to_nothing() -> None:
    """One pixel of the highest value, and a speck of 10 x 10 px ten times as bright as the cells."""
    pixels = field(10).astype(np.uint16)
    expected = scaled(pixels)
    for size in (1, 10):
        spoilt = pixels.copy()
        spoilt[310 : 310 + size, 310 : 310 + size] = 65_535 if size == 1 else 620
        rest = spoilt == pixels
        np.testing.assert_allclose(scaled(spoilt)[rest], expected[rest], atol=0.02)


def test_dark_cells_on_a_bright_background() -> None:
    """Brightfield: the background is the bright one, and cells are as far below it as fluorescent ones above."""
    found = scale_of(200 - field(20))
    assert (found.background[0], found.spread[0]) == (pytest.approx(180, abs=3), pytest.approx(60, abs=3))


def test_channels_are_measured_apart_and_planes_together() -> None:
    """Two channels keep their own scale; the samples of two planes count as one."""
    one, two = (IntensitySample(np.array(v, float), np.array(s, float)) for v, s in (
        ([[0] * 50 + [1] + [10] * 20, [5] * 71], [[0] * 71] * 2),
        ([[0] * 50 + [30] * 40, [5] * 90], [[0] * 90] * 2),
    ))  # fmt: skip
    assert intensity_scale([one]) == IntensityScale((0.0, 5.0), (10.0, 0.0))
    assert intensity_scale([one, two]) == IntensityScale((0.0, 5.0), (30.0, 0.0))


def test_a_large_plane_is_read_strip_by_strip(monkeypatch: pytest.MonkeyPatch) -> None:
    """Strips and a coarser grid give the numbers of the whole plane, and cover all of it."""
    pixels = field(30)
    image = open_image(pixels[None], axes="CYX")
    whole = sample_plane(image, 0, (0,))
    assert whole.values.shape == (1, 320 * 320)
    monkeypatch.setattr(intensity, "_STRIP_PIXELS", 320 * 7)
    np.testing.assert_array_equal(sample_plane(image, 0, (0,)).values, whole.values)
    thinned = sample_plane(image, 0, (0,), 320 * 320 // 9)
    np.testing.assert_array_equal(thinned.values[0], pixels[::3, ::3].ravel())
    np.testing.assert_allclose(intensity_scale([thinned]).spread, intensity_scale([whole]).spread, rtol=0.03)
