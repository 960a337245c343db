"""Planes in strips: objects, statistics and holes are those of the plane in one piece, however it is cut."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from skimage.filters import threshold_otsu
from skimage.measure import label

from conftest import lively_model
from napari_milcnn.errors import ComputeError
from napari_milcnn.images.open import open_image
from napari_milcnn.inference.evidence import EvidenceMaker
from napari_milcnn.inference.foreground import find_objects, without_holes
from napari_milcnn.inference.masks import segment_plane
from napari_milcnn.inference.strips import rows as in_strips
from napari_milcnn.inference.strips.components import components, split_components
from napari_milcnn.inference.strips.holes import fill_holes
from napari_milcnn.inference.strips.objects import objects_in_strips
from napari_milcnn.inference.strips.rows import LookedUp, MapsByRows, Scratch, Strip, strips
from napari_milcnn.inference.strips.statistics import median, order_statistics, otsu
from napari_milcnn.options import ForegroundOptions, MaskOptions

QUICK = settings(max_examples=60, deadline=None, derandomize=True, database=None)


def cells(shape: tuple[int, int], size: float, seed: int) -> np.ndarray:
    """Draw discs and rings of about a size on a noisy background, uint16 (Y, X)."""
    rng = np.random.default_rng(seed)
    image = rng.normal(100, 5, shape)
    y, x = np.ogrid[: shape[0], : shape[1]]
    for _ in range(rng.integers(0, 15)):
        square = (y - rng.uniform(0, shape[0])) ** 2 + (x - rng.uniform(0, shape[1])) ** 2
        radius = size * rng.uniform(0.2, 0.6)
        image += rng.uniform(20, 300) * ((square < radius**2) & (square > (radius * rng.choice([0, 0.6])) ** 2))
    return np.clip(image, 0, 65535).astype(np.uint16)


@pytest.mark.slow
@QUICK
@given(
    st.tuples(st.integers(20, 130), st.integers(20, 130)), st.floats(4, 40), st.integers(0, 2**16),
    st.integers(1, 40), st.sampled_from(["otsu", "local", "half_maximum"]), st.booleans(),
    st.sampled_from([None, None, 0, 3, 9]),
)  # fmt: skip
def test_objects_found_in_strips_are_those_of_one_piece(
    shape: tuple[int, int], size: float, seed: int, rows: int, method: str, sized: bool, split: float | None
) -> None:
    """The same pixels have the same numbers, for strips of any height, with and without a typical size."""
    image = cells(shape, size, seed)
    options = ForegroundOptions(method=method, size=size if sized else None, split=split)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(in_strips, "STRIP_PIXELS", rows * shape[1])
        found = objects_in_strips(lambda top, bottom: image[top:bottom], shape, options, Scratch())
    np.testing.assert_array_equal(found.read(0, shape[0]), find_objects(image, options))


def test_large_planes_lie_on_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same objects come from planes on disk as from those in memory."""
    image, options = cells((150, 120), 20, 3), ForegroundOptions(method="half_maximum", size=20)
    monkeypatch.setattr(in_strips, "STRIP_PIXELS", 40 * 120)
    monkeypatch.setattr(in_strips, "IN_MEMORY", 0)
    scratch = Scratch()
    found = objects_in_strips(lambda top, bottom: image[top:bottom], (150, 120), options, scratch)
    assert len(list(scratch._folder.iterdir())) == 1  # what was needed meanwhile is given back
    np.testing.assert_array_equal(found.read(0, 150), find_objects(image, options))


@QUICK
@given(st.tuples(st.integers(1, 30), st.integers(1, 30)), st.floats(0.2, 0.9), st.integers(1, 9), st.integers(0, 999))
def test_holes_are_filled_across_strips(shape: tuple[int, int], share: float, rows: int, seed: int) -> None:
    """A hole that a border cuts is filled, and a bay that winds to the edge of the plane is none."""
    mask = np.random.default_rng(seed).random(shape) < share
    plane = Scratch().plane(shape, np.bool_)
    plane.write(0, mask)
    fill_holes(plane, strips(shape, pixels=rows * shape[1]), Scratch())
    np.testing.assert_array_equal(plane.read(0, shape[0]), ndimage.binary_fill_holes(mask))
    np.testing.assert_array_equal(without_holes(mask), ndimage.binary_fill_holes(mask))


@QUICK
@given(st.integers(1, 300), st.integers(1, 50), st.floats(1e-3, 1e5), st.integers(0, 999))
def test_statistics_of_parts_are_exact(count: int, part: int, scale: float, seed: int) -> None:
    """Order statistics, median and Otsu's threshold do not depend on the parts in which values come."""
    rng = np.random.default_rng(seed)
    values = (scale * rng.choice([rng.normal(0, 1, count), rng.integers(-3, 3, count)])).astype(np.float32)

    def parts() -> list[np.ndarray]:
        return [values[i : i + part] for i in range(0, count, part)]

    ranks = sorted({0, count // 3, count - 1})
    np.testing.assert_array_equal(order_statistics(parts, ranks), np.sort(values)[ranks])
    assert median(parts, count) == np.median(values)
    if np.ptp(values) > 0:
        assert otsu(parts, values.min(), values.max()) == threshold_otsu(values)


@pytest.mark.parametrize(
    ("kind", "threshold", "pixel_size"),
    [
        *[("object", threshold, 1.0) for threshold in ("auto", "otsu", "q0.9", 0.4)],
        *[("class_map", threshold, 1.3) for threshold in ("otsu", "q0.9")],
        ("class_map_image", "otsu", 1.0),
        ("jacobian", "otsu", 0.8),
    ],
)
def test_masks_of_a_plane_in_strips_are_those_of_one_piece(
    kind: str, threshold: str | float, pixel_size: float, monkeypatch: Any
) -> None:
    """Evidence, labels, table, thresholds and counts are the same; only P and p need the network."""
    model = lively_model(reference="a", pixel_size=1.0).with_card(foreground=ForegroundOptions(method="otsu", size=14))
    pixels = np.stack([cells((200, 150), 14, 5)] * 2)
    image = open_image(pixels, axes="CYX", channels=model.channels, pixel_size=pixel_size)
    detail = 2 if kind.startswith("class_map") else 1
    maker = EvidenceMaker(model, kind=kind, detail=detail, device="cpu", precision="float32")
    prediction = maker.classifier.classify(image)
    made = []
    for most in (10**9, 0):
        monkeypatch.setattr("napari_milcnn.inference.evidence.LARGEST_AT_ONCE", most)
        monkeypatch.setattr(in_strips, "STRIP_PIXELS", 1000 if most == 0 else 10**9)
        plane = next(maker.planes(image, prediction))
        options = MaskOptions(threshold=threshold, smooth=1.0, split=10, present=0)
        made.append((plane, segment_plane(plane, prediction, model.classes, options)))
    (whole, masks), (strips_of_it, same) = made
    assert isinstance(strips_of_it.maps, MapsByRows)
    assert len(masks.objects) > 3
    np.testing.assert_array_equal(np.asarray(same.labels), masks.labels)
    for one, other in zip(strips_of_it.maps, whole.maps, strict=True):
        np.testing.assert_allclose(np.asarray(one), other, rtol=1e-5)
    pd.testing.assert_frame_equal(same.objects, masks.objects, rtol=1e-5)
    assert same.thresholds == pytest.approx(masks.thresholds, rel=1e-5)
    assert same.counts == pytest.approx(masks.counts, nan_ok=True)


@QUICK
@given(
    st.tuples(st.integers(1, 60), st.integers(1, 60)),
    st.integers(1, 20),
    st.sampled_from([0, 4, 9]),
    st.integers(0, 999),
)
def test_components_and_their_parts_are_whole_across_strips(
    shape: tuple[int, int], rows: int, distance: float, seed: int
) -> None:
    """Pixels have the same numbers wherever the plane is cut, and without splitting those of skimage."""
    mask = ndimage.gaussian_filter(np.random.default_rng(seed).normal(0, 1, shape), 1 + seed % 3) > 0
    found = []
    for pixels in (rows * shape[1], 10**9):
        parts = [(strip, mask[strip.rows]) for strip in strips(shape, pixels=pixels)]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("napari_milcnn.inference.strips.components._BAND_PIXELS", pixels)
            scratch = Scratch()
            found.append(np.asarray(split_components(components(parts, shape, scratch), distance, scratch)))
    np.testing.assert_array_equal(found[0], found[1])
    if distance == 0:
        np.testing.assert_array_equal(found[0], label(mask))


def test_a_component_too_large_to_be_split_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """It says so; unsplit it has any size."""
    monkeypatch.setattr("napari_milcnn.inference.strips.components.LARGEST_SPLIT", 400)
    scratch, mask = Scratch(), np.ones((30, 40), bool)
    found = components([(Strip(0, 30), mask)], (30, 40), scratch)
    assert np.asarray(split_components(found, 0, scratch)).min() == 1
    with pytest.raises(ComputeError, match=r"reaches over 30 x 40 px.*do not split them"):
        split_components(found, 8, scratch)


def test_a_plane_that_is_looked_up_reads_like_an_array() -> None:
    """Rows, windows and single pixels are those of the array that it stands for."""
    labels = np.random.default_rng(0).integers(0, 5, (20, 30)).astype(np.int32)
    plane, values = Scratch().plane((20, 30), np.int32), np.array([0, 2, 4, 6, 9], np.float32)
    plane.write(0, labels)
    found = LookedUp(plane, values)
    assert found.shape == (20, 30)
    assert found.dtype == np.float32
    for key in (slice(3, 9), slice(None, None, 4), 7, (slice(1, 5), slice(2, 20, 3)), (4, 6), (slice(None), 3)):
        np.testing.assert_array_equal(found[key], values[labels][key])
    np.testing.assert_array_equal(np.asarray(found), values[labels])


def test_temporary_planes_go_when_nothing_needs_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder is removed with the last plane in it, and a plane that the disk cannot hold is refused."""
    monkeypatch.setattr(in_strips, "IN_MEMORY", 0)
    scratch = Scratch()
    folder, plane = scratch._folder, scratch.plane((4, 4), np.int32)
    with pytest.raises(ComputeError, match=r"temporary files, and .* GB are free"):
        scratch.check_room(1e18)
    del scratch
    assert folder.is_dir()
    assert plane.read(0, 4).sum() == 0
    del plane
    assert not folder.exists()


def test_strips_begin_at_multiples() -> None:
    """Strips cover the plane, and each but the first begins where a block of rows does."""
    assert strips((10, 4), multiple=3, pixels=20) == [Strip(0, 3), Strip(3, 6), Strip(6, 9), Strip(9, 10)]
