"""The foreground of a plane of any size, found in strips: the same objects as `foreground.find_objects` finds at once.

Nothing is approximated: filters see as far above and below a strip as they reach, thresholds and medians come from all
pixels, and holes and objects are followed across the borders of strips.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy import ndimage
from skimage.segmentation import expand_labels

from napari_milcnn.inference.foreground import blurred, reduction, resolved, smoothing_reach
from napari_milcnn.inference.strips.components import components, split_components
from napari_milcnn.inference.strips.hills import split_in_strips
from napari_milcnn.inference.strips.holes import fill_holes
from napari_milcnn.inference.strips.rows import ReadRows, RowPlane, Scratch, ScratchPlane, Strip, strips
from napari_milcnn.inference.strips.statistics import median, otsu
from napari_milcnn.options import ForegroundOptions


def objects_in_strips(
    read: ReadRows,
    shape: tuple[int, int],
    options: ForegroundOptions,
    scratch: Scratch,
    work: Scratch | None = None,
) -> ScratchPlane:
    """Find bright objects in one channel of a plane that may be larger than memory.

    Parameters
    ----------
    read : callable
        Reads rows of the channel.
    shape : tuple of int
        Shape (Y, X) of the plane.
    options : ForegroundOptions
        As for `find_objects`.
    scratch : Scratch
        Where the result lies.
    work : Scratch, optional
        Where planes lie that are needed meanwhile; by default elsewhere, and they are gone afterwards.

    Returns
    -------
    ScratchPlane
        Label image, int32 (Y, X), 0 for background.
    """
    options = resolved(options)
    parts, found, work = strips(shape), scratch.plane(shape, np.int32), work or Scratch()
    smooth, high = _smoothed(read, shape, options, work, parts)
    if high == 0:
        return found
    if options.size is None:
        threshold = otsu(lambda: (rows for _, rows in smooth.over(parts)), np.float32(0), high)
    else:
        threshold = otsu(lambda: (np.sqrt(rows) for _, rows in smooth.over(parts)), np.float32(0), np.sqrt(high)) ** 2
    mask = work.plane(shape, np.bool_)
    for strip, rows in smooth.over(parts):
        mask.write(strip.top, rows > threshold)
    fill_holes(mask, parts, work)
    background = _median_outside(mask, smooth, parts)
    labels: RowPlane
    if options.split is None:
        assert options.size is not None
        labels = split_in_strips(mask, smooth, background or 0.0, options.size, work)
    else:
        labels = split_components(components(mask.over(parts), shape, work), options.split, work)
    if options.method == "half_maximum":
        labels = _to_half_maximum_in_strips(labels, smooth, background or 0.0, smoothing_reach(options), work)
    _drop_small_in_strips(labels, found, parts, options.min_size or 0)
    return found


def _smoothed(
    read: ReadRows, shape: tuple[int, int], options: ForegroundOptions, scratch: Scratch, parts: Sequence[Strip]
) -> tuple[ScratchPlane, np.float32]:
    """Smooth a channel, less its smallest value: float32 (Y, X), and the largest value."""
    assert options.smooth is not None
    found = scratch.plane(shape, np.float32)
    local = options.method == "local"
    reach = int(4 * options.smooth + 0.5)
    low, high = np.float32(np.inf), np.float32(-np.inf)
    for strip in parts:
        top, bottom = max(strip.top - reach, 0), min(strip.bottom + reach, shape[0])
        rows = read(top, bottom).astype(np.float32)
        own = ndimage.gaussian_filter(rows, options.smooth)[strip.top - top : strip.bottom - top]
        if local:
            own = np.maximum(own - _wide(read, shape, options, strip), 0)
        low, high = min(low, own.min()), max(high, own.max())
        found.write(strip.top, own)
    if low != 0:
        for strip, rows in found.over(parts):
            found.write(strip.top, rows - low)
    return found, high - low


def _wide(read: ReadRows, shape: tuple[int, int], options: ForegroundOptions, strip: Strip) -> np.ndarray:
    """Smooth a wide neighbourhood of the rows of a strip, at a reduced size where the typical size is known."""
    sigma = smoothing_reach(options) if options.size is None else options.size
    step = 1 if options.size is None else reduction(sigma)
    reach = (int(4 * sigma / step + 0.5) + 2) * step
    top = max(strip.top // step * step - reach, 0)
    bottom = min(-(-strip.bottom // step) * step + reach, shape[0])
    rows = read(top, bottom).astype(np.float32)
    wide = ndimage.gaussian_filter(rows, sigma) if options.size is None else blurred(rows, sigma)
    return np.asarray(wide)[strip.top - top : strip.bottom - top]


def _median_outside(mask: ScratchPlane, smooth: ScratchPlane, parts: Sequence[Strip]) -> float | None:
    """Return the median of the intensities outside a mask; None if there is no outside."""
    count = sum(int(np.count_nonzero(~inside)) for _, inside in mask.over(parts))
    if count == 0:
        return None
    return median(lambda: (rows[~mask.read(*strip)] for strip, rows in smooth.over(parts)), count)


def _to_half_maximum_in_strips(
    objects: RowPlane, smooth: ScratchPlane, background: float, reach: float, scratch: Scratch
) -> ScratchPlane:
    """Move the edge of each object (Y, X) to half its height above the background, at most `reach` px outwards."""
    parts, shape = strips(objects.shape), objects.shape
    sums, areas = np.zeros(0), np.zeros(0)
    for strip, labels in objects.over(parts):
        sums = _added(sums, np.bincount(labels.ravel(), smooth.read(*strip).ravel()))
        areas = _added(areas, np.bincount(labels.ravel()))
    height = sums / np.maximum(areas, 1) - background
    expanded, mask = scratch.plane(shape, np.int32), scratch.plane(shape, np.bool_)
    beyond = math.ceil(reach) + 1
    for strip in parts:
        top, bottom = max(strip.top - beyond, 0), min(strip.bottom + beyond, shape[0])
        wide = expand_labels(objects.read(top, bottom), reach)[strip.top - top : strip.bottom - top]
        expanded.write(strip.top, wide)
        mask.write(strip.top, (wide > 0) & (smooth.read(*strip) - background > height[wide] / 2))
    fill_holes(mask, parts, scratch)
    for strip, wide in expanded.over(parts):
        expanded.write(strip.top, np.where(mask.read(*strip), wide, 0))
    return expanded


def _added(total: np.ndarray, more: np.ndarray) -> np.ndarray:
    """Add sums by label to others; both begin with label 0, and either may be longer."""
    longer, shorter = (total.astype(float), more) if len(total) >= len(more) else (more.astype(float), total)
    longer[: len(shorter)] += shorter
    return longer


def _drop_small_in_strips(labels: RowPlane, found: ScratchPlane, parts: Sequence[Strip], size: int) -> None:
    """Write labels without objects smaller than `size` px into another plane, and number the others from 1."""
    counts = np.zeros(1)
    for _, rows in labels.over(parts):
        counts = _added(counts, np.bincount(rows.ravel()))
    keep = counts >= max(size, 1)
    keep[0] = False
    numbers = (np.cumsum(keep) * keep).astype(np.int32)
    for strip, rows in labels.over(parts):
        found.write(strip.top, numbers[rows])
