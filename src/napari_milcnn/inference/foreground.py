"""The foreground of an image: cells, or bright structures, as objects of a label image."""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from skimage.feature import peak_local_max
from skimage.filters import threshold_otsu
from skimage.measure import label as components
from skimage.segmentation import expand_labels, watershed

from napari_milcnn.options import ForegroundOptions

_NEIGHBOURHOOD = 6
"""Sigma of the neighbourhood that `local` compares with, and how far `half_maximum` moves an edge outwards, in units of
the smoothing."""


def find_objects(channel: np.ndarray, options: ForegroundOptions) -> np.ndarray:
    """Find bright objects in one channel (Y, X) -> label image, int32 (Y, X), 0 for background.

    `otsu` takes one threshold for the plane. `local` takes Otsu's threshold of what rises above a wider neighbourhood,
    for spots and for uneven light. Touching objects are split by a watershed on the distance to the background.
    `half_maximum` begins as `otsu` does and then puts each object's edge halfway between the background and that
    object's own mean, so that a dim cell is not eaten away and a bright one not swollen.
    """
    width = max(options.smooth, 1) * _NEIGHBOURHOOD
    smooth = ndimage.gaussian_filter(channel.astype(np.float32), options.smooth)
    if options.method == "local":
        smooth = np.maximum(smooth - ndimage.gaussian_filter(channel.astype(np.float32), width), 0)
    smooth -= smooth.min()  # faint structure on a bright ground: Otsu's histogram needs the digits
    if smooth.max() == 0:
        return np.zeros(channel.shape, np.int32)
    mask = ndimage.binary_fill_holes(smooth > threshold_otsu(smooth))
    objects = split_touching(mask, options.split)
    if options.method == "half_maximum":
        objects = _to_half_maximum(objects, smooth, width)
    return drop_small(objects, options.min_size)


def _to_half_maximum(objects: np.ndarray, smooth: np.ndarray, reach: float) -> np.ndarray:
    """Move the edge of each object (Y, X) to half its height, at most `reach` px outwards."""
    ground = float(np.median(smooth[objects == 0])) if (objects == 0).any() else 0.0
    height = ndimage.mean(smooth, objects, np.arange(objects.max() + 1)) - ground
    around = expand_labels(objects, reach)
    mask = (around > 0) & (smooth - ground > height[around] / 2)
    return np.where(ndimage.binary_fill_holes(mask), around, 0)


def scaled(options: ForegroundOptions, factor: float) -> ForegroundOptions:
    """Return options stated in model pixels for an image whose pixels are `factor` times as many a side."""
    return options.model_copy(
        update={
            "smooth": options.smooth * factor,
            "split": options.split * factor,
            "min_size": round(options.min_size * factor**2),
        }
    )


def split_touching(mask: np.ndarray, distance: float) -> np.ndarray:
    """Label the objects of a mask (Y, X), split where centres lie at least `distance` px apart; 0 splits nothing."""
    joined: np.ndarray = components(mask)
    if distance <= 0 or joined.max() == 0:
        return joined.astype(np.int32)
    depth = ndimage.gaussian_filter(ndimage.distance_transform_edt(mask), 1.0)
    peaks = peak_local_max(depth, min_distance=max(1, round(distance)), labels=joined, exclude_border=False)
    seeds = np.zeros(mask.shape, np.int32)
    seeds[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    return np.asarray(watershed(-depth, seeds, mask=mask, connectivity=2), np.int32)


def drop_small(labels: np.ndarray, size: int) -> np.ndarray:
    """Remove objects smaller than `size` px and number the others from 1."""
    counts = np.bincount(labels.ravel())
    keep = counts >= max(size, 1)
    keep[0] = False
    numbers = np.cumsum(keep) * keep
    return np.asarray(numbers[labels], np.int32)
