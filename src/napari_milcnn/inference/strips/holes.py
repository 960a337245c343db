"""Holes of a mask on disk: parts of its background that do not reach the edge of the plane, wherever it is cut."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from skimage.measure import label

from napari_milcnn.inference.strips.rows import ScratchPlane, Strip


def fill_holes(mask: ScratchPlane, parts: Sequence[Strip]) -> None:
    """Fill the holes of a mask (Y, X), in place; background touches by its sides, as in scipy's `binary_fill_holes`."""
    firsts, outside, joined = [1], [], []
    above: np.ndarray | None = None
    for strip, inside in mask.over(parts):
        pieces = _background_parts(inside, firsts[-1])
        edges = [pieces[:, 0], pieces[:, -1]]
        edges += [pieces[0]] if strip.top == 0 else []
        edges += [pieces[-1]] if strip.bottom == mask.shape[0] else []
        outside.append(np.unique(np.concatenate(edges)))
        if above is not None:
            both = (above > 0) & (pieces[0] > 0)
            joined.append(np.unique(np.stack([above[both], pieces[0][both]]), axis=1))
        above = pieces[-1].copy()
        firsts.append(max(firsts[-1], int(pieces.max()) + 1))
    is_hole = _which_are_holes(firsts[-1], outside, joined)
    for (strip, inside), first in zip(mask.over(parts), firsts, strict=False):
        mask.write(strip.top, inside | is_hole[_background_parts(inside, first)])


def _background_parts(inside: np.ndarray, first: int) -> np.ndarray:
    """Return the number, from `first`, of the part of the background that a pixel lies in; 0 inside the mask."""
    pieces = label(~inside, connectivity=1).astype(np.int64)
    return np.where(pieces > 0, pieces + (first - 1), 0)


def _which_are_holes(count: int, outside: Sequence[np.ndarray], joined: Sequence[np.ndarray]) -> np.ndarray:
    """Return for each number whether its part is a hole: not joined, over any way, with one that reaches the edge."""
    pairs = np.concatenate([np.zeros((2, 0), np.int64), *joined], axis=1)
    graph = coo_matrix((np.ones(pairs.shape[1], bool), (pairs[0], pairs[1])), shape=(count, count))
    _, whole = connected_components(graph, directed=False)
    reaches = np.zeros(count, bool)
    reaches[whole[np.concatenate(outside)]] = True
    is_hole = ~reaches[whole]
    is_hole[0] = False
    return np.asarray(is_hole)
