"""The benchmarks of other microscopes: what each change does to an image, by numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest


@pytest.fixture
def image() -> np.ndarray:
    """Return a ramp of 64 x 64 px from 0 to 200."""
    return np.linspace(0, 200, 4096).reshape(64, 64).astype(np.uint8)


def test_changes_of_intensity_clip_as_a_camera_does(image):
    """Half, double and saturated above 127, shifted, and the same pixels in other types."""
    from benchmarks.acquisition.changes import changed

    assert changed(image, "none", 0) is image
    np.testing.assert_array_equal(changed(image, "gain x2", 0), np.minimum(2 * image.astype(int), 255))
    np.testing.assert_array_equal(changed(image, "+20 grey levels", 0), image + 20)
    np.testing.assert_array_equal(changed(image, "darker background, -6 grey levels", 0), image.clip(6) - 6)
    sixteen, twelve, unit = (changed(image, name, 0) for name in ("16 bit (x257)", "12 bit", "float 0-1"))
    assert (sixteen.dtype, twelve.dtype, unit.dtype) == (np.uint16, np.uint16, np.float32)
    assert (sixteen[-1, -1], twelve[-1, -1], unit[-1, -1]) == (51400, 3212, np.float32(200 / 255))
    both = changed(image, "+20 grey levels, then 16 bit", 0)
    np.testing.assert_array_equal(both, (image.astype(np.uint16) + 20) * 257)


def test_changes_of_noise_size_and_light(image):
    """Noise of its sigma, the same for the same field; sizes of .8 and 1.25; .6 of the light in the corner."""
    from benchmarks.acquisition.changes import CHANGES, changed

    flat = np.full((64, 64), 100, np.uint8)
    noisy = changed(flat, "noise, sigma 10", 1)
    assert noisy.std() == pytest.approx(10, rel=0.1)
    np.testing.assert_array_equal(noisy, changed(flat, "noise, sigma 10", 1))
    assert (noisy != changed(flat, "noise, sigma 10", 2)).any()
    assert changed(image, "size x0.8", 0).shape == (51, 51)
    assert changed(image, "size x1.25", 0).shape == (80, 80)
    uneven = changed(flat, "light falls to 0.6 in the corners", 0)
    assert (uneven[0, 0], uneven[32, 32]) == (60, 100)
    assert changed(image, "blur, sigma 1 px", 0)[0, 0] > image[0, 0]
    assert all(changed(image, name, 0).ndim == 2 for name in CHANGES)


def test_standardised_takes_off_gain_and_offset(image):
    """A field and the same field at half the gain look alike to the standardised peer."""
    from benchmarks.acquisition.shifts import standardised

    np.testing.assert_allclose(standardised(image), standardised(image.astype(np.float32) * 0.5 + 7), atol=1e-5)
    assert np.median(standardised(image)) == 0
    assert not standardised(np.full((8, 8), 9, np.uint8)).any()
