"""Holes of a mask on disk: parts of its background that do not reach the edge of the plane, wherever it is cut."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from napari_milcnn.inference.strips.components import components
from napari_milcnn.inference.strips.rows import Scratch, ScratchPlane, Strip


def fill_holes(mask: ScratchPlane, parts: Sequence[Strip], scratch: Scratch) -> None:
    """Fill the holes of a mask (Y, X), in place; background touches by its sides, as in scipy's `binary_fill_holes`.

    What is needed meanwhile lies in `scratch`.
    """
    background = components(
        ((strip, ~inside) for strip, inside in mask.over(parts)), mask.shape, scratch, corners=False
    )
    is_filled = np.ones(background.largest + 1, bool)  # number 0 is the mask
    for strip, pieces in background.labels.over(parts):
        edges = [pieces[:, 0], pieces[:, -1]]
        edges += [pieces[0]] if strip.top == 0 else []
        edges += [pieces[-1]] if strip.bottom == mask.shape[0] else []
        is_filled[background.values[np.concatenate(edges)]] = False
    is_filled[0] = True
    for strip, filled in background.mapped(is_filled).over(parts):
        mask.write(strip.top, filled)
