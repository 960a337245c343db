"""A lazy array slices as numpy does."""

from __future__ import annotations

import dask.array
import dask.callbacks
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from image_files import TCYX
from napari_milcnn.images.lazy_array import LazyArray, in_memory, let_go, scratch_array
from napari_milcnn.images.open import open_image


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_lazy_array_slices_like_numpy(data: st.DataObject) -> None:
    """Any axes in any order, any basic slice: as numpy would on the array in the house's order."""
    letters = "".join(data.draw(st.permutations("TZCSYX")))
    source = np.arange(2 * 3 * 2 * 3 * 4 * 5).reshape(
        [{"T": 2, "Z": 3, "C": 2, "S": 3, "Y": 4, "X": 5}[letter] for letter in letters]
    )
    lazy = LazyArray([source, source + 1000], letters, samples=2)
    order = source.transpose([letters.index(letter) for letter in "TZCSYX"])[:, :, :, :2].reshape(2, 3, 4, 4, 5)
    expected = np.stack([order, order + 1000])
    assert (lazy.axes, lazy.shape) == ("PTZCYX", expected.shape)
    one = [
        st.one_of(st.integers(-n, n - 1), st.slices(n).filter(lambda s: s.step is None or s.step > 0))
        for n in lazy.shape
    ]
    key = tuple(data.draw(each) for each in one[: data.draw(st.integers(0, 6))])
    np.testing.assert_array_equal(lazy[key], expected[key])
    np.testing.assert_array_equal(lazy[..., 1, 2:], expected[..., 1, 2:])


def test_lazy_array_refuses_what_it_cannot() -> None:
    """Only basic forward slices."""
    lazy = LazyArray([TCYX], "TCYX")
    assert (len(lazy), lazy.ndim, lazy.size) == (3, 4, TCYX.size)
    for key in (slice(None, None, -1), (0, 0, 0, 0, 0), 3, (..., 0, ...)):
        with pytest.raises(IndexError):
            lazy[key]
    with pytest.raises(TypeError):
        lazy["a"]


def test_dask_is_read_without_the_callbacks_of_other_threads():
    """Napari's cache is such a callback; it would fail over what another thread computes at the same time."""
    started = []
    pixels = dask.array.from_array(np.arange(24, dtype=np.uint8).reshape(2, 3, 4), chunks=(1, 3, 4))
    with dask.callbacks.Callback(start=started.append):
        np.testing.assert_array_equal(open_image(pixels, axes="ZYX").plane(1)[0], np.arange(12, 24).reshape(3, 4))
        np.testing.assert_array_equal(in_memory(pixels[0]), np.arange(12).reshape(3, 4))
        assert started == []
        pixels.compute()
        assert len(started) == 1


def test_a_scratch_array_on_disk_keeps_what_it_let_go() -> None:
    """Its values are there again when they are read, and an array in memory is left alone."""
    for most in (0, 10**6):
        array = scratch_array((3, 40, 50), np.int32, most)
        assert isinstance(array, np.memmap) == (most == 0)
        array[1] = 7
        let_go(array)
        assert array.sum() == 7 * 2000
