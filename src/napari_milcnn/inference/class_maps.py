"""Class maps and where they lie: over their image, against a reference class, inside objects."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class MapPlacement(NamedTuple):
    """Where a class map lies on its image: map pixel (i, j) is centred at (y + stride * i, x + stride * j), in px.

    Pixel centres are whole numbers, as in napari: a map pixel covers half a stride to either side of its centre.
    """

    stride: float
    y: float
    x: float


def lay_over(class_map: np.ndarray, placement: MapPlacement, shape: Sequence[int]) -> np.ndarray:
    """Lay class maps (..., Y, X) over their image: linear between the centres of map pixels, constant beyond them.

    Returns float32 (..., Y, X) of the image's shape.
    """
    rows = _weights(class_map.shape[-2], placement.y, placement.stride, shape[0])
    columns = _weights(class_map.shape[-1], placement.x, placement.stride, shape[1])
    across = _between(np.asarray(class_map, np.float32), columns, -1)
    return _between(across, rows, -2)


def _weights(count: int, offset: float, stride: float, pixels: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    place = np.clip((np.arange(pixels) - offset) / stride, 0, count - 1)
    low = np.floor(place).astype(int)
    return low, np.minimum(low + 1, count - 1), (place - low).astype(np.float32)


def _between(values: np.ndarray, weights: tuple[np.ndarray, np.ndarray, np.ndarray], axis: int) -> np.ndarray:
    low, high, share = weights
    share = share if axis == -1 else share[:, None]
    return np.asarray(values.take(low, axis) * (1 - share) + values.take(high, axis) * share)


def relative_to_reference(class_maps: np.ndarray, reference: int) -> np.ndarray:
    """Class maps p (classes, Y, X) -> p relative_to_reference the reference class: logistic(z - z of the reference).

    The map of the reference itself stays p.
    """
    p = np.clip(class_maps, 1e-7, 1 - 1e-7, dtype=np.float64)
    odds = p / (1 - p)
    compared = odds / (odds + odds[reference])
    compared[reference] = class_maps[reference]
    return np.asarray(compared, np.float32)


def mean_inside(maps: np.ndarray, objects: np.ndarray) -> np.ndarray:
    """Give each object the mean of each map (classes, Y, X) inside it; 0 outside objects (Y, X)."""
    flat = objects.ravel()
    sizes = np.maximum(np.bincount(flat), 1)
    values = np.stack([np.bincount(flat, one.ravel()) / sizes for one in maps])  # (classes, labels)
    values[:, 0] = 0
    return np.asarray(values[:, objects], np.float32)
