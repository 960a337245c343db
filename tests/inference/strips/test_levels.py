"""Planes in several sizes: every level is the plane at its steps, and nothing else is read of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from napari_milcnn.inference.strips import rows as in_strips
from napari_milcnn.inference.strips.levels import Levels, empty_sizes, has_levels, make_sizes, sizes_of, stacked_sizes
from napari_milcnn.inference.strips.rows import Computed, LookedUp, Scratch, coarse_steps


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let small planes have many strips and levels."""
    monkeypatch.setattr(in_strips, "STRIP_PIXELS", 1000)
    monkeypatch.setattr(in_strips, "_SCREEN", 16)
    monkeypatch.setattr("napari_milcnn.inference.strips.levels._READ_SIDE", 32)


class Counted:
    """An array that counts the pixels that are read of it."""

    def __init__(self, array: np.ndarray) -> None:
        self.array, self.shape, self.ndim, self.dtype, self.pixels = array, array.shape, array.ndim, array.dtype, 0

    def __getitem__(self, key: Any) -> np.ndarray:
        found = self.array[key]
        self.pixels += found.size
        return found


def test_steps_end_where_a_plane_fits_on_a_screen() -> None:
    assert coarse_steps((250, 131)) == [4, 8, 16]
    assert coarse_steps((10, 10)) == [4]


def test_only_planes_above_a_size_have_levels() -> None:
    assert has_levels((3, 5793, 5793))
    assert not has_levels((100, 5792, 5792))


def test_each_level_of_an_image_is_the_image_at_its_steps() -> None:
    image = np.random.default_rng(0).integers(0, 99, (2, 3, 250, 131)).astype(np.uint16)
    found = Levels(image).arrays()
    assert len(found) == 5
    for one, step in zip(found, (1, 2, 4, 8, 16), strict=True):
        np.testing.assert_array_equal(one, image[..., ::step, ::step])


def test_a_view_of_a_large_image_reads_what_it_shows() -> None:
    """Coarse levels are made in one pass over one plane; a window of the full size reads the tiles that it lies in."""
    image = Counted(np.random.default_rng(0).integers(0, 99, (2, 256, 128)).astype(np.uint16))
    levels = Levels(image)
    levels.coarse((1,))
    assert image.pixels == 256 * 128
    found = levels.arrays()
    np.testing.assert_array_equal(found[3][1], image.array[1, ::8, ::8])
    np.testing.assert_array_equal(found[0][1, 40:50, 40:60], image.array[1, 40:50, 40:60])
    assert image.pixels <= 256 * 128 + 2 * 32 * 32


def test_levels_of_a_long_stack_are_described_as_quickly_as_those_of_one_plane() -> None:
    """No level lists its blocks: with a thousand planes the window would wait for seconds."""
    stack = Counted(np.broadcast_to(np.zeros((), np.uint16), (1000, 3, 250, 131)))
    for one in Levels(stack).arrays():
        assert sum(len(layer) for layer in one.dask.layers.values() if layer.is_materialized()) <= 1


def test_the_levels_of_the_planes_that_were_shown_last_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("napari_milcnn.inference.strips.levels._PLANES_KEPT", 2)
    image = Counted(np.zeros((3, 64, 64), np.uint8))
    levels = Levels(image)
    for plane in (0, 1, 0, 2, 0):
        levels.coarse((plane,))
    assert image.pixels == 3 * 64 * 64
    levels.coarse((1,))
    assert image.pixels == 4 * 64 * 64


@pytest.mark.parametrize("in_memory", [0, np.inf])
def test_labels_and_maps_read_by_rows_have_levels(in_memory: float) -> None:
    labels = np.random.default_rng(0).integers(0, 9, (250, 131)).astype(np.int32)
    plane = Scratch(in_memory).plane(labels.shape, np.int32)
    plane.write(0, labels)
    values = np.arange(9, dtype=np.int32)[::-1].copy()
    looked_up, computed = LookedUp(plane, values), Computed(labels.shape, lambda a, b: labels[a:b] / np.float32(2))
    make_sizes(looked_up)
    assert "coarse" in vars(plane)
    for found, whole in ((looked_up, values[labels]), (computed, labels / np.float32(2))):
        for one, step in zip(sizes_of(found), (1, 2, 4, 8, 16), strict=True):
            np.testing.assert_array_equal(one, whole[::step, ::step])


def test_planes_are_stacked_with_empty_ones() -> None:
    ones = Computed((250, 131), lambda top, bottom: np.ones((bottom - top, 131), np.float32))
    found = stacked_sizes([sizes_of(ones), empty_sizes((250, 131), np.float32)])
    assert [one.shape for one in found] == [(2, -(-250 // step), -(-131 // step)) for step in (1, 2, 4, 8, 16)]
    assert all(float(one[0].min()) == 1 and float(one[1].max()) == 0 for one in found)
