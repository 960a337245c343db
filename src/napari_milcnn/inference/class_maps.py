"""Class maps: laid over their image, compared with a reference class, averaged inside objects, times brightness."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from napari_milcnn.inference.strips.rows import RowPlane, Scratch, ScratchPlane, strips
from napari_milcnn.inference.strips.statistics import quantiles

_DARK, _BRIGHT = 0.01, 0.999
"""Quantiles of an image's intensities between which its brightness is scaled."""


class MapPlacement(NamedTuple):
    """The place of a class map on its image: the centre of map pixel (i, j) is (y + stride * i, x + stride * j), in px.

    Pixel centres are whole numbers, as in napari. A map pixel covers half a stride to either side of its centre.
    """

    stride: float
    y: float
    x: float


def lay_over(class_map: np.ndarray, placement: MapPlacement, shape: Sequence[int]) -> np.ndarray:
    """Lay class maps over their image: linear between the centres of map pixels, constant beyond them.

    Parameters
    ----------
    class_map : ndarray
        Class maps (..., Y, X).
    placement : MapPlacement
        The place of the maps on the image.
    shape : sequence of int
        Shape (Y, X) of the image.

    Returns
    -------
    ndarray
        float32 (..., Y, X) of the image's shape.
    """
    maps = np.asarray(class_map, np.float32)
    return laid_rows(lambda top, bottom: maps[..., top:bottom, :], maps.shape[-2:], placement, (0, shape[0]), shape[1])


def laid_rows(
    read: Callable[[int, int], np.ndarray],
    map_shape: Sequence[int],
    placement: MapPlacement,
    rows: tuple[int, int],
    width: int,
) -> np.ndarray:
    """Lay maps over some rows of their image: the rows of `lay_over`.

    Parameters
    ----------
    read : callable
        Reads the rows of the maps from the first number to the second, which is not included: float32 (..., rows, X).
    map_shape : sequence of int
        Shape (Y, X) of a map.
    placement : MapPlacement
        The place of the maps on the image.
    rows : tuple of int
        First row of the image, and the row after the last.
    width : int
        Columns of the image.

    Returns
    -------
    ndarray
        float32 (..., rows, X).
    """
    low, high, share = _interpolation_weights(map_shape[0], placement.y, placement.stride, np.arange(*rows))
    columns = _interpolation_weights(map_shape[1], placement.x, placement.stride, np.arange(width))
    across = _interpolated(read(int(low[0]), int(high[-1]) + 1), columns, -1)
    return _interpolated(across, (low - low[0], high - low[0], share), -2)


def _interpolation_weights(
    count: int, offset: float, stride: float, pixels: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return, for image pixels along an axis, the map pixels before and behind each and the share of the second."""
    place = np.clip((pixels - offset) / stride, 0, count - 1)
    low = np.floor(place).astype(int)
    return low, np.minimum(low + 1, count - 1), (place - low).astype(np.float32)


def _interpolated(values: np.ndarray, weights: tuple[np.ndarray, np.ndarray, np.ndarray], axis: int) -> np.ndarray:
    low, high, share = weights
    share = share if axis == -1 else share[:, None]
    before, found = values.take(low, axis), values.take(high, axis)
    found -= before
    found *= share
    found += before
    return found


def relative_to_reference(class_maps: np.ndarray, reference: int) -> np.ndarray:
    """Compare each class map with that of a reference class: logistic(z - z of the reference).

    Parameters
    ----------
    class_maps : ndarray
        Instance probabilities p (classes, Y, X).
    reference : int
        Index of the reference class.

    Returns
    -------
    ndarray
        float32 (classes, Y, X). The map of the reference class itself stays p.
    """
    p = np.clip(class_maps, 1e-7, 1 - 1e-7, dtype=np.float64)
    odds = p / (1 - p)
    compared = odds / (odds + odds[reference])
    compared[reference] = class_maps[reference]
    return np.asarray(compared, np.float32)


def mean_brightness(channels: Sequence[RowPlane], scratch: Scratch) -> ScratchPlane:
    """Return the brightness of a plane, the mean over its channels (Y, X), float32; a flat channel counts as 0.

    Each channel is scaled to 0 at its darkest percent and 1 at its brightest thousandth: percentiles, so that a few hot
    or dead pixels change nothing.
    """
    shape = channels[0].shape
    parts, total = strips(shape), scratch.plane(shape, np.float32)
    for channel in channels:
        low, high = quantiles(channel.in_strips, math.prod(shape), (_DARK, _BRIGHT))
        if high > low:
            for strip, rows in channel.over(parts):
                own = np.clip((rows.astype(np.float32) - np.float32(low)) / np.float32(high - low), 0, 1)
                total.write(strip.top, total.read(*strip) + own / len(channels))
    return total
