"""What is measured of the objects of a label image strip by strip: areas, centres and means of maps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, cast

import numpy as np

from napari_milcnn.inference.strips.rows import LookedUp, MapsByRows, RowPlane, Strip, strips


class Regions(NamedTuple):
    """Sums over the pixels of each label, beginning with label 0.

    Attributes
    ----------
    area : ndarray
        Number of pixels, int64 (labels,).
    sums : ndarray
        Sum of the row numbers, then of the column numbers, of all pixels, float64 (2, labels).
    """

    area: np.ndarray
    sums: np.ndarray


def measured(labels: np.ndarray | RowPlane) -> Regions:
    """Measure the objects of a label image (Y, X)."""
    area, sums = np.zeros(1, np.int64), np.zeros((2, 1))
    for strip, own in _over(labels):
        columns = np.broadcast_to(np.arange(own.shape[1], dtype=float), own.shape)
        inside = own > 0
        flat = own[inside]
        rows = np.repeat(np.arange(*strip, dtype=float), np.count_nonzero(inside, 1))
        counts = np.bincount(flat)
        area, sums = _as_long_as(area, len(counts)), _as_long_as(sums, len(counts))
        area[: len(counts)] += counts
        area[0] += own.size - len(flat)
        sums[0, : len(counts)] += np.bincount(flat, rows)
        sums[1, : len(counts)] += np.bincount(flat, columns[inside])
    return Regions(area, sums)


def means_in_strips(
    labels: np.ndarray | RowPlane, maps: Callable[[Strip], Iterable[np.ndarray]], classes: int
) -> np.ndarray:
    """Return the mean of each map in each object: float32 (classes, labels), 0 for label 0.

    Parameters
    ----------
    labels : ndarray or RowPlane
        Label image (Y, X).
    maps : callable
        Returns the maps of a strip, one after another, (rows, X).
    classes : int
        Number of maps.
    """
    sums, area = np.zeros((classes, 1)), np.zeros(1, np.int64)
    for strip, own in _over(labels):
        inside = np.flatnonzero(own)
        flat = own.ravel()[inside].astype(np.intp)
        counts = np.bincount(flat)
        area, sums = _as_long_as(area, len(counts)), _as_long_as(sums, len(counts))
        area[: len(counts)] += counts
        for total, one in zip(sums, maps(strip), strict=True):
            total[: len(counts)] += np.bincount(flat, one.ravel()[inside])
    return (sums / np.maximum(area, 1)).astype(np.float32)


def looked_up(labels: np.ndarray | RowPlane, values: np.ndarray) -> np.ndarray:
    """Return the value of each pixel's label: at once, or, of a plane read by rows, where it is read (`LookedUp`).

    `values` is (labels,) and gives (Y, X), or (classes, labels) and gives (classes, Y, X).
    """
    if isinstance(labels, np.ndarray):
        return values.take(labels, -1)
    if values.ndim == 1:
        return cast("np.ndarray", LookedUp(labels, values))
    return cast("np.ndarray", MapsByRows([LookedUp(labels, one) for one in values]))


def _over(labels: np.ndarray | RowPlane) -> Iterator[tuple[Strip, np.ndarray]]:
    parts = strips(labels.shape)
    if isinstance(labels, RowPlane):
        yield from labels.over(parts)
        return
    for strip in parts:
        yield strip, labels[strip.rows]


def _as_long_as(values: np.ndarray, count: int) -> np.ndarray:
    """Return values (..., labels) with zeros for further labels, up to a number of them."""
    missing = count - values.shape[-1]
    return (
        values if missing <= 0 else np.concatenate([values, np.zeros((*values.shape[:-1], missing), values.dtype)], -1)
    )
