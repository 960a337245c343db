"""Cells found in an image: one threshold, local thresholds, splitting, and images without any."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from skimage.measure import label as components

from napari_milcnn.inference.foreground import (
    METHODS,
    agreement,
    drop_small,
    find_objects,
    is_known,
    measure_foreground,
    object_size,
    split_at_size,
    split_touching,
    typical_size,
)
from napari_milcnn.options import ForegroundOptions
from napari_milcnn.simulation.microscope import simulate_field
from napari_milcnn.simulation.options import SimulationOptions


def discs(shape: tuple[int, int], centres: list[tuple[int, int]], radius: int) -> np.ndarray:
    """Draw discs, bool (Y, X)."""
    y, x = np.indices(shape)
    found = [(y - cy) ** 2 + (x - cx) ** 2 <= radius**2 for cy, cx in centres]
    return np.any(found, axis=0)


def found_at(labels: np.ndarray) -> list[tuple[float, float]]:
    """List the centroids of a label image, sorted."""
    return sorted(tuple(map(float, c)) for c in ndimage.center_of_mass(labels > 0, labels, range(1, labels.max() + 1)))


CENTRES = [(20, 25), (30, 100), (70, 60), (85, 130)]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, np.float64])
def test_otsu_finds_the_discs(dtype: type) -> None:
    """Four discs in noise: four objects, their centres within half a pixel and their area within a tenth."""
    rng = np.random.default_rng(0)
    truth = discs((110, 150), CENTRES, 9)
    image = (60 + 120 * truth + rng.normal(0, 8, truth.shape)).astype(dtype)
    labels = find_objects(image, ForegroundOptions())
    assert labels.dtype == np.int32
    assert labels.max() == 4
    np.testing.assert_allclose(found_at(labels), CENTRES, atol=0.5)
    for number in range(1, 5):
        assert (labels == number).sum() == pytest.approx(253, rel=0.1)  # points of a disc of radius 9


def uneven() -> tuple[np.ndarray, np.ndarray]:
    """Draw spots of height 60 on a slope from 0 to 200."""
    truth = discs((110, 150), CENTRES, 4)
    slope = np.linspace(0, 200, 150)[None] * np.ones((110, 1))
    return (100 + slope + 60 * truth).astype(np.uint16), truth


def test_local_finds_spots_on_an_uneven_background() -> None:
    """The local threshold finds all four spots; one threshold for the plane finds the bright half instead."""
    image, truth = uneven()
    local = find_objects(image, ForegroundOptions(method="local", min_size=10))
    np.testing.assert_allclose(found_at(local), CENTRES, atol=1)
    assert (local > 0).sum() == pytest.approx(truth.sum(), rel=0.5)
    single = find_objects(image, ForegroundOptions(method="otsu", min_size=10))
    assert (single > 0).sum() > 10 * truth.sum()


@pytest.mark.parametrize("method", ["otsu", "local"])
@pytest.mark.parametrize("smooth", [0, 1.5])
@pytest.mark.parametrize("value", [0, 255, 1000.1, 1e-4])
def test_a_constant_image_has_no_objects(value: float, smooth: float, method: str) -> None:
    """A constant image has no objects, whatever its value."""
    for dtype in (np.uint16, np.float32):
        image = np.full((40, 50), value, dtype)
        labels = find_objects(image, ForegroundOptions(method=method, smooth=smooth))
        assert labels.dtype == np.int32
        assert labels.shape == (40, 50)
        assert labels.max() == 0


def test_faint_discs_on_a_bright_ground() -> None:
    """A rise by 2 on 60,000 fills few steps of float32, and is found all the same."""
    image = 60000 + 2 * discs((110, 150), CENTRES, 9).astype(np.float32)
    np.testing.assert_allclose(found_at(find_objects(image, ForegroundOptions())), CENTRES, atol=0.1)
    faint = 60000 + image / 100  # a rise by .02: five steps of float32
    assert find_objects(faint.astype(np.float32), ForegroundOptions()).shape == (110, 150)


def test_the_image_is_not_changed() -> None:
    """Finding objects leaves the channel as it was."""
    image = uneven()[0].astype(np.float32)
    before = image.copy()
    for method in ("otsu", "local"):
        find_objects(image, ForegroundOptions(method=method, smooth=0))
    assert (image == before).all()


def test_holes_are_filled_and_small_objects_dropped() -> None:
    """A ring becomes a disc; a speck of 4 px is kept only where min_size allows it."""
    image = np.zeros((60, 60), np.uint8)
    image[10:31, 10:31] = 200
    image[15:26, 15:26] = 0
    image[50:52, 50:52] = 200
    assert (find_objects(image, ForegroundOptions(smooth=0)) > 0).sum() == 21 * 21
    every = find_objects(image, ForegroundOptions(smooth=0, min_size=4))
    assert sorted(np.bincount(every.ravel())[1:]) == [4, 21 * 21]
    assert find_objects(image, ForegroundOptions(smooth=0, min_size=5)).max() == 1


# Splitting


@pytest.mark.parametrize(("distance", "count"), [(0, 1), (6, 2), (12, 2), (40, 1)])
def test_touching_discs_are_split(distance: float, count: int) -> None:
    """Two discs of radius 10, 18 px apart, are one object unless split; not where centres must lie 40 px apart."""
    mask = discs((60, 80), [(30, 30), (30, 48)], 10)
    labels = split_touching(mask, distance)
    assert labels.dtype == np.int32
    assert labels.max() == count
    assert ((labels > 0) == mask).all()
    if count == 2:
        np.testing.assert_allclose(found_at(labels), [(30, 29.7), (30, 48.3)], atol=0.6)
        assert (labels[:, :39] != labels[30, 48]).all()


def test_find_objects_splits_by_its_option() -> None:
    """The option `split` of `find_objects` decides whether touching discs are split."""
    image = 200 * discs((60, 80), [(30, 30), (30, 48)], 10).astype(np.uint8)
    assert find_objects(image, ForegroundOptions()).max() == 2
    assert find_objects(image, ForegroundOptions(split=0)).max() == 1


def test_parts_that_touch_by_a_corner_are_kept() -> None:
    """Squares of 10 and 15 px that share a corner are one object to begin with; none of their pixels is lost."""
    mask = np.zeros((40, 40), bool)
    mask[5:15, 5:15] = mask[15:30, 15:30] = True
    assert np.bincount(split_touching(mask, 0).ravel()).tolist() == [1275, 325]
    assert sorted(np.bincount(split_touching(mask, 6).ravel())) == [100, 225, 1275]
    assert np.bincount(split_touching(mask, 30).ravel()).tolist() == [1275, 325]


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 1000),
    blur=st.sampled_from([0.0, 0.7, 2.0]),
    share=st.sampled_from([0.02, 0.1, 0.5, 0.95, 1.0]),
    distance=st.sampled_from([0, 1, 4.4, 12]),
)
def test_splitting_loses_and_invents_nothing(seed: int, blur: float, share: float, distance: float) -> None:
    """Any mask keeps its pixels, and no object reaches over two of its components."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).random((50, 60)), blur)
    mask = noise >= np.quantile(noise, 1 - share)
    labels = split_touching(mask, distance)
    assert ((labels > 0) == mask).all()
    assert (np.unique(labels) == np.arange(labels.max() + 1))[1:].all()
    joined = components(mask)
    for number in range(1, labels.max() + 1):
        assert len(np.unique(joined[labels == number])) == 1


def test_small_objects_are_dropped_and_the_others_renumbered() -> None:
    """Objects 2, 5 and 9 of 3, 1 and 2 px: at 2 px and more 2 and 9 remain, as 1 and 2."""
    labels = np.array([[2, 2, 2, 0], [0, 5, 0, 0], [9, 9, 0, 0]])
    assert drop_small(labels, 2).tolist() == [[1, 1, 1, 0], [0, 0, 0, 0], [2, 2, 0, 0]]
    assert drop_small(labels, 0).tolist() == [[1, 1, 1, 0], [0, 2, 0, 0], [3, 3, 0, 0]]
    assert drop_small(labels, 4).max() == 0
    assert drop_small(np.zeros((3, 3), int), 0).max() == 0


def test_half_maximum_puts_each_edge_at_half_its_own_height() -> None:
    """Two blurred discs of one size, one half as bright: with Otsu the dim one shrinks and the bright one grows."""
    y, x = np.ogrid[:80, :160]
    discs = [np.hypot(y - 40, x - centre) <= 10 for centre in (40, 120)]
    image = ndimage.gaussian_filter(160.0 * discs[0] + 300.0 * discs[1], 3)
    true = int(discs[0].sum())
    areas = {}
    for method in ("otsu", "half_maximum"):
        found = find_objects(image, ForegroundOptions(method=method, smooth=1, split=0, min_size=0))
        areas[method] = [int((found[:, :80] > 0).sum()), int((found[:, 80:] > 0).sum())]
    assert areas["half_maximum"] == pytest.approx([true, true], rel=0.2)
    assert areas["otsu"][0] < 0.86 * true
    assert areas["otsu"][1] > 1.2 * true


# The scale comes from the images

LOBES = [(40, 40), (40, 58), (40, 100), (100, 40), (112, 54), (100, 100)]
"""Two cells of two lobes, 18 px apart, and two of one lobe; cells are 44 px and more apart."""


def lobed_cells() -> np.ndarray:
    """Two cells of two lobes and two of one, of about 28 px, uint8 (150, 150)."""
    lobes = discs((150, 150), LOBES, 10) | discs((150, 150), [LOBES[2], LOBES[5]], 14)
    return (20 + 150 * lobes).astype(np.uint8)


def test_lobes_of_one_cell_stay_together() -> None:
    """At the size of a cell, 28 px, there are four cells; by a distance of 6 px the lobes come apart."""
    assert find_objects(lobed_cells(), ForegroundOptions(size=28)).max() == 4
    assert find_objects(lobed_cells(), ForegroundOptions(size=28, split=6)).max() == 6


def test_touching_cells_are_split_at_their_size() -> None:
    """Nine discs that touch are nine objects, in whole pixels of the mask, also where one row is dim."""
    mask = discs((120, 120), [(y, x) for y in (30, 60, 90) for x in (30, 60, 90)], 15)
    bright = np.where(np.arange(120)[:, None] < 45, 80.0, 160.0) * mask
    labels = split_at_size(mask, bright, 30)
    assert labels.max() == 9
    assert ((labels > 0) == mask).all()
    assert len({int(labels[y, x]) for y in (30, 60, 90) for x in (30, 60, 90)}) == 9
    assert split_at_size(np.zeros((5, 5), bool), np.zeros((5, 5)), 30).max() == 0


@pytest.mark.parametrize("radius", [5, 10, 20])
def test_the_typical_size_is_measured(radius: int) -> None:
    """Discs far apart: their diameter within a fifth, whatever the gain."""
    image = discs((240, 240), [(60, 60), (60, 180), (180, 60), (180, 180)], radius).astype(np.float32)
    assert typical_size(image) == pytest.approx(2 * radius, rel=0.2)
    assert typical_size(100 + 3 * image) == pytest.approx(typical_size(image), rel=1e-3)


def test_the_size_of_objects_compares_images() -> None:
    """Twice as large is twice as large; exposure, offset and one object ten times as bright change little."""
    rng = np.random.default_rng(0)
    places = [(y, x) for y in range(30, 300, 60) for x in range(30, 300, 60)]
    y, x = np.mgrid[:300, :300]
    light = sum(((y - cy) ** 2 + (x - cx) ** 2 < 12**2) for cy, cx in places) * 100.0
    image = 20 + light + rng.normal(0, 2, light.shape)
    bright = np.where((y - 30) ** 2 + (x - 30) ** 2 < 16**2, 1000.0, image)
    size = object_size(image)
    assert object_size(ndimage.zoom(image, 2, order=1)) == pytest.approx(2 * size, rel=0.05)
    assert object_size(100 + 3 * image) == pytest.approx(size, rel=0.02)
    assert object_size(bright) == pytest.approx(size, rel=0.1)
    assert typical_size(bright) > object_size(bright)


def test_what_is_given_is_not_measured() -> None:
    """Size and method are measured, what was given stays, and images without structure tell nothing."""
    found = measure_foreground([lobed_cells(), np.zeros((50, 50))], ForegroundOptions(min_size=7))
    assert found.size == pytest.approx(26, abs=5)
    assert (found.method, found.min_size, found.split) == ("otsu", 7, None)
    assert is_known(found)
    assert not is_known(ForegroundOptions(method="local", size=None))
    assert measure_foreground([np.zeros((50, 50))]) == ForegroundOptions()
    assert measure_foreground([lobed_cells()], ForegroundOptions(size=40, method="local")).size == 40
    sigmas = [measure_foreground([lobed_cells()], ForegroundOptions(size=40, method=m)).smooth for m in METHODS]
    assert sigmas == [2, 2, 1]  # edges at half their height need half the smoothing


def test_discs_of_one_size_agree_best() -> None:
    """Equal discs have an agreement of one; bars, and discs of two sizes, have less; two objects say nothing."""
    equal, _ = ndimage.label(discs((110, 150), CENTRES, 9))
    uneven, _ = ndimage.label(discs((110, 150), CENTRES[:2], 9) | discs((110, 150), CENTRES[2:], 3))
    assert agreement(equal) == pytest.approx(1, abs=0.05)
    assert agreement(uneven) < 0.7
    assert agreement(np.minimum(equal, 2)) == 0


def test_clusters_are_parted_by_a_smaller_size():
    """Yeast in clusters looks like larger objects until it is parted."""
    options = SimulationOptions(size=(448, 448), cells=(45, 50))
    fields = [simulate_field(["cytoplasm"], options, rng=seed) for seed in (2, 3)]
    images = [field.image[1].astype(np.float32) for field in fields]
    found = measure_foreground(images)
    assert found.size < 0.8 * min(map(typical_size, images))
    for field, image in zip(fields, images, strict=True):
        assert find_objects(image, found).max() == pytest.approx(field.cells.max(), rel=0.2)
