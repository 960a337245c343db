"""Class maps: laid over their image, compared with a reference class, averaged inside objects, times brightness."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

_DARK, _BRIGHT = 1.0, 99.9
"""Percentiles of an image's intensities between which its brightness is scaled."""


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
    rows = _interpolation_weights(class_map.shape[-2], placement.y, placement.stride, shape[0])
    columns = _interpolation_weights(class_map.shape[-1], placement.x, placement.stride, shape[1])
    across = _interpolated(np.asarray(class_map, np.float32), columns, -1)
    return _interpolated(across, rows, -2)


def _interpolation_weights(
    count: int, offset: float, stride: float, pixels: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return, for each image pixel along an axis, the map pixels before and behind it and the share of the second."""
    place = np.clip((np.arange(pixels) - offset) / stride, 0, count - 1)
    low = np.floor(place).astype(int)
    return low, np.minimum(low + 1, count - 1), (place - low).astype(np.float32)


def _interpolated(values: np.ndarray, weights: tuple[np.ndarray, np.ndarray, np.ndarray], axis: int) -> np.ndarray:
    low, high, share = weights
    share = share if axis == -1 else share[:, None]
    return np.asarray(values.take(low, axis) * (1 - share) + values.take(high, axis) * share)


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


def brightness(channel: np.ndarray) -> np.ndarray:
    """Scale a channel (Y, X) to 0 at its darkest percent and 1 at its brightest thousandth, float32; 0 if it is flat.

    Percentiles, so that a few hot or dead pixels change nothing.
    """
    low, high = np.percentile(channel, (_DARK, _BRIGHT))
    if high <= low:
        return np.zeros(channel.shape, np.float32)
    return np.asarray(np.clip((channel.astype(np.float32) - low) / (high - low), 0, 1), np.float32)
