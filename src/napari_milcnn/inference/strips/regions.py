"""What is measured of the objects of a label image strip by strip: areas, centres and means of maps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, cast

import numpy as np

from napari_milcnn.inference.strips.rows import LookedUp, MapsByRows, RowPlane, Strip, strips, values_of


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
    return measured_with_means(labels, lambda _: (), 0)[0]


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
    return measured_with_means(labels, maps, classes)[1]


def measured_with_means(
    labels: np.ndarray | RowPlane, maps: Callable[[Strip], Iterable[np.ndarray]], classes: int
) -> tuple[Regions, np.ndarray]:
    """Measure the objects of a label image (Y, X), and return the mean of each map in each, as `means_in_strips`."""
    area, sums, totals = np.zeros(1, np.int64), np.zeros((2, 1)), np.zeros((classes, 1))
    for strip, own in _over(labels):
        inside = np.flatnonzero(own != 0)  # three times as quick as without the comparison
        flat = own.ravel()[inside].astype(np.intp)
        counts = np.bincount(flat)
        area, sums, totals = (_as_long_as(one, len(counts)) for one in (area, sums, totals))
        area[: len(counts)] += counts
        area[0] += own.size - len(flat)
        rows = np.bincount(flat, np.repeat(np.arange(len(own)), np.count_nonzero(own, 1)))
        sums[0, : len(counts)] += rows + strip.top * counts
        sums[1, : len(counts)] += np.bincount(flat, inside) - rows * own.shape[1]
        for total, one in zip(totals, maps(strip), strict=True):
            total[: len(counts)] += np.bincount(flat, one.ravel()[inside])
    means = totals / np.maximum(np.append(0, area[1:]), 1)
    return Regions(area, sums), means.astype(np.float32)


def looked_up(labels: np.ndarray | RowPlane, values: np.ndarray) -> np.ndarray:
    """Return the value of each pixel's label: at once, or, of a plane read by rows, where it is read (`LookedUp`).

    `values` is (labels,) and gives (Y, X), or (classes, labels) and gives (classes, Y, X).
    """
    if not isinstance(labels, np.ndarray):
        several = values.ndim > 1
        found = MapsByRows([LookedUp(labels, one) for one in values]) if several else LookedUp(labels, values)
        return cast("np.ndarray", found)
    if values.ndim == 1:
        return values_of(values, labels)
    maps = np.empty((len(values), *labels.shape), values.dtype)
    for one, laid in zip(values, maps, strict=True):
        laid[...] = values_of(one, labels)
    return maps


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
