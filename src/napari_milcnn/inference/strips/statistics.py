"""Exact statistics of values that come strip by strip: order statistics by their bits, Otsu's threshold by counts."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import cast

import numpy as np
from skimage.filters import threshold_otsu

_HALF, _BINS = 16, 256
Values = Callable[[], Iterable[np.ndarray]]
"""Gives all values, float32, in parts of any size; each call begins anew."""


def order_statistics(values: Values, ranks: Sequence[int]) -> np.ndarray:
    """Return the values of some ranks, 0 for the smallest, float32 (ranks,), in two passes over all values.

    The bits of a float32 are sorted like a whole number once its sign is taken care of: the first pass counts the upper
    half of the bits, and the second the lower half of those that lie where a rank falls.
    """
    wanted = np.asarray(ranks, np.int64)
    upper = np.zeros(1 << _HALF, np.int64)
    for part in values():
        upper += np.bincount(_sortable(part) >> _HALF, minlength=len(upper))
    ends = np.cumsum(upper)
    bins = np.searchsorted(ends, wanted, side="right")
    lower = {int(one): np.zeros(1 << _HALF, np.int64) for one in np.unique(bins)}
    for part in values():
        bits = _sortable(part)
        for one, counts in lower.items():
            counts += np.bincount(bits[bits >> _HALF == one] & 0xFFFF, minlength=len(counts))
    inside = [
        int(np.searchsorted(np.cumsum(lower[int(one)]), rank - (ends[one] - upper[one]), side="right"))
        for one, rank in zip(bins, wanted, strict=True)
    ]
    return _from_sortable((bins.astype(np.uint32) << _HALF) | np.asarray(inside, np.uint32))


def median(values: Values, count: int) -> float:
    """Return the median of `count` values, as numpy's."""
    return float(np.median(order_statistics(values, [(count - 1) // 2, count // 2])))


def quantiles(values: Values, count: int, shares: Sequence[float]) -> list[float]:
    """Return quantiles of `count` values, interpolated as in numpy."""
    places = [share * (count - 1) for share in shares]
    ranks = [rank for place in places for rank in (math.floor(place), math.ceil(place))]
    ends = order_statistics(values, ranks).astype(float).reshape(-1, 2)
    return [float(low + (high - low) * (place % 1)) for (low, high), place in zip(ends, places, strict=True)]


def otsu(values: Values, low: np.floating, high: np.floating, weights: np.ndarray | None = None) -> float:
    """Return Otsu's threshold of values between `low` and `high`, as skimage's.

    With `weights`, values come in one part, and there are as many of each.
    """
    counts, ends = np.zeros(_BINS), cast("tuple[float, float]", (low, high))  # float32, as in one piece
    edges = np.histogram_bin_edges(np.array(ends), _BINS, ends)
    for part in values():
        counts += np.histogram(part, _BINS, ends, weights=weights)[0]
    return float(threshold_otsu(hist=(counts, (edges[:-1] + edges[1:]) / 2)))


def _sortable(values: np.ndarray) -> np.ndarray:
    bits = np.ascontiguousarray(values, np.float32).ravel().view(np.uint32)
    return np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31))


def _from_sortable(bits: np.ndarray) -> np.ndarray:
    return np.where(bits >> 31, bits ^ np.uint32(1 << 31), ~bits).astype(np.uint32).view(np.float32)
