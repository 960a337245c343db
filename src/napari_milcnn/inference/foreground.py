"""Find the foreground of an image: cells, or bright structures, as objects of a label image."""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from skimage.feature import peak_local_max
from skimage.filters import threshold_otsu
from skimage.measure import label as components
from skimage.segmentation import expand_labels, watershed

from napari_milcnn.options import ForegroundOptions

_NEIGHBOURHOOD = 6
"""Sigma of the neighbourhood that `local` compares with, and the distance by which `half_maximum` may move an edge
outwards, as a multiple of the smoothing."""

_SEVERAL = 3
"""Fewest objects whose sizes can be compared."""
_ALIKE = 0.75
"""Least share of the area in objects of one size."""


def find_objects(channel: np.ndarray, options: ForegroundOptions) -> np.ndarray:
    """Find bright objects in one channel.

    `otsu` uses one threshold for the plane. `local` first subtracts a wider neighbourhood, for spots and for uneven
    light. `half_maximum` begins like `otsu` and then puts the edge of each object halfway between the background and
    the object's own mean, so that dim cells do not shrink and bright cells do not grow. Touching objects are split by a
    watershed on the distance to the background.

    Parameters
    ----------
    channel : ndarray
        Intensities (Y, X).
    options : ForegroundOptions
        Method, smoothing, splitting and smallest size, in px of this channel.

    Returns
    -------
    ndarray
        Label image, int32 (Y, X), 0 for background.
    """
    width = max(options.smooth, 1) * _NEIGHBOURHOOD
    smooth = ndimage.gaussian_filter(channel.astype(np.float32), options.smooth)
    if options.method == "local":
        smooth = np.maximum(smooth - ndimage.gaussian_filter(channel.astype(np.float32), width), 0)
    smooth -= smooth.min()  # Otsu's histogram loses faint structure on a bright background
    if smooth.max() == 0:
        return np.zeros(channel.shape, np.int32)
    mask = ndimage.binary_fill_holes(smooth > threshold_otsu(smooth))
    objects = split_touching(mask, options.split)
    if options.method == "half_maximum":
        objects = _to_half_maximum(objects, smooth, width)
    return drop_small(objects, options.min_size)


def _to_half_maximum(objects: np.ndarray, smooth: np.ndarray, reach: float) -> np.ndarray:
    """Move the edge of each object (Y, X) to half its height above the background, at most `reach` px outwards."""
    background = float(np.median(smooth[objects == 0])) if (objects == 0).any() else 0.0
    height = ndimage.mean(smooth, objects, np.arange(objects.max() + 1)) - background
    expanded = expand_labels(objects, reach)
    mask = (expanded > 0) & (smooth - background > height[expanded] / 2)
    return np.where(ndimage.binary_fill_holes(mask), expanded, 0)


def are_consistent(objects: np.ndarray) -> bool:
    """Tell whether the objects (Y, X) look like cells: at least three, most of whose area is in objects of one size.

    Of one size are areas within a factor of three of the median. On yeast and nuclei .9 to 1 of the area is in such
    objects; the threshold cuts smooth noise and textures into pieces of all sizes, with .3 to .6.
    """
    areas = np.bincount(objects.ravel())[1:]
    areas = areas[areas > 0]
    if len(areas) < _SEVERAL:
        return False
    alike = (areas > np.median(areas) / 3) & (areas < np.median(areas) * 3)
    return bool(areas[alike].sum() > _ALIKE * areas.sum())


def scaled(options: ForegroundOptions, factor: float) -> ForegroundOptions:
    """Convert options in model pixels to image pixels; a model pixel is `factor` image pixels wide."""
    return options.model_copy(
        update={
            "smooth": options.smooth * factor,
            "split": options.split * factor,
            "min_size": round(options.min_size * factor**2),
        }
    )


def split_touching(mask: np.ndarray, distance: float) -> np.ndarray:
    """Label the objects of a mask (Y, X), and split those whose centres are at least `distance` px apart.

    Returns int32 (Y, X), 0 for background. A distance of 0 splits nothing.
    """
    connected: np.ndarray = components(mask)
    if distance <= 0 or connected.max() == 0:
        return connected.astype(np.int32)
    depth = ndimage.gaussian_filter(ndimage.distance_transform_edt(mask), 1.0)
    peaks = peak_local_max(depth, min_distance=max(1, round(distance)), labels=connected, exclude_border=False)
    seeds = np.zeros(mask.shape, np.int32)
    seeds[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    return np.asarray(watershed(-depth, seeds, mask=mask, connectivity=2), np.int32)


def drop_small(labels: np.ndarray, size: int) -> np.ndarray:
    """Remove objects smaller than `size` px from a label image (Y, X), and number the others from 1."""
    counts = np.bincount(labels.ravel())
    keep = counts >= max(size, 1)
    keep[0] = False
    numbers = np.cumsum(keep) * keep
    return np.asarray(numbers[labels], np.int32)
