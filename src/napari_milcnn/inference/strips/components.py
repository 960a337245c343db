"""Components of a mask, whole where strips cut them, and their parts where objects touch.

A component is found in pieces, strip by strip; pieces that meet at a border are one. Each component is split by itself,
from its own pixels alone, so that what lies around it, and where the plane is cut, change nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from scipy import ndimage
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from skimage.feature import peak_local_max
from skimage.measure import label
from skimage.segmentation import watershed

from napari_milcnn.errors import ComputeError
from napari_milcnn.images.stack import Window
from napari_milcnn.inference.strips.rows import LookedUp, RowPlane, Scratch, ScratchPlane, Strip, strips

_DEPTH_SIGMA, _AROUND = 1.0, 5
"""Sigma by which the distance to the background is smoothed, and what lies around a component that it reaches, px."""
LARGEST_SPLIT = 2**25
"""Pixels of the largest box whose component is split; it takes about 2 GB."""
_BAND_PIXELS = 2**25
"""Pixels of a band of rows that is read to split the components that end in it."""


def components(
    parts: Iterable[tuple[Strip, np.ndarray]], shape: tuple[int, int], scratch: Scratch, *, corners: bool = True
) -> LookedUp:
    """Label the components of a mask, given strip by strip, in the order of their first pixels.

    Parameters
    ----------
    parts : iterable
        Strips from the first row to the last, and the mask in them, bool (rows, X).
    shape : tuple of int
        Shape (Y, X) of the plane.
    scratch : Scratch
        Where the pieces lie.
    corners : bool
        Whether pixels touch by their corners, too, not by their sides alone.

    Returns
    -------
    LookedUp
        int32 (Y, X), 0 outside the mask. Its own labels are pieces, numbered strip after strip.
    """
    found, count = scratch.plane(shape, np.int32), 1
    joined, above = [np.zeros((2, 0), np.int64)], np.zeros(shape[1], np.int32)
    for strip, inside in parts:
        pieces = np.asarray(label(inside, connectivity=1 + corners), np.int32)
        if count > 1:
            np.add(pieces, count - 1, out=pieces, where=pieces > 0)
        joined.append(_meeting(above, pieces[0], corners))
        found.write(strip.top, pieces)
        above, count = pieces[-1].copy(), max(count, int(pieces.max()) + 1)
    pairs = np.concatenate(joined, 1)
    graph = coo_matrix((np.ones(pairs.shape[1], bool), (pairs[0], pairs[1])), shape=(count, count))
    return LookedUp(found, connected_components(graph, directed=False)[1].astype(np.int32))


def _meeting(above: np.ndarray, below: np.ndarray, corners: bool) -> np.ndarray:
    """Return the numbers, each pair once, that touch where one row lies above another (X,): (2, pairs)."""
    pairs = []
    for shift in (-1, 0, 1) if corners else (0,):
        one = above[max(shift, 0) : len(above) + min(shift, 0)]
        other = below[max(-shift, 0) : len(below) + min(-shift, 0)]
        both = (one > 0) & (other > 0)
        pairs.append(np.stack([one[both], other[both]]))
    return np.unique(np.concatenate(pairs, 1), axis=1).astype(np.int64)


def split_components(found: LookedUp, distance: float, scratch: Scratch) -> LookedUp:
    """Split the components whose parts have centres that are at least `distance` px apart.

    Returns
    -------
    LookedUp
        Labels of the parts, int32 (Y, X), component after component, 0 for background. A distance of 0 splits nothing.

    Raises
    ------
    ComputeError
        If a component is too large to be split.
    """
    if distance <= 0:
        return found
    boxes = _boxes(found)
    heights, widths = (boxes[:, 2:] - boxes[:, :2]).T
    if (heights * widths).max(initial=0) > LARGEST_SPLIT:
        worst = int((heights * widths).argmax())
        raise ComputeError(
            f"objects that touch cannot be split here: one reaches over {heights[worst]} x {widths[worst]} px, more "
            f"than memory allows for; choose a higher threshold, do not split them (split 0), or crop the image"
        )
    parts, owners = scratch.plane(found.shape, np.int32), [np.zeros(1, np.int64)]
    count = 0
    for window, numbers in _groups(boxes, found.shape):
        labels, own = _read_window(found, window), _read_window(parts, window)
        for number in numbers:
            y0, y1, x0, x1 = _with_margin(boxes[number - 1], found.shape)
            place = np.s_[y0 - window.y0 : y1 - window.y0, x0 - window.x0 : x1 - window.x0]
            inside = labels[place] == number
            made = _split_one(inside, distance)
            own[place][inside] = made[inside] + count
            count += int(made.max())
            owners.append(np.full(int(made.max()), number))
        _write_window(parts, window, own)
    order = np.argsort(np.concatenate(owners), kind="stable")
    numbers_of = np.empty(count + 1, np.int32)
    numbers_of[order] = np.arange(count + 1)
    return LookedUp(parts, numbers_of)


def _boxes(found: LookedUp) -> np.ndarray:
    """Return the first row and column of each component, and the row and column after its last: (components, 4)."""
    boxes = np.full((int(found.values.max()), 4), [*found.shape, 0, 0])
    for strip, pieces in found.labels.over(strips(found.shape)):
        first = int(pieces.min(initial=len(found.values), where=pieces > 0))
        for number, place in enumerate(ndimage.find_objects(np.maximum(pieces - (first - 1), 0)), first):
            if place is not None:
                rows, columns = place
                y0, x0, y1, x1 = boxes[found.values[number] - 1]
                boxes[found.values[number] - 1] = (
                    min(y0, strip.top + rows.start), min(x0, columns.start),
                    max(y1, strip.top + rows.stop), max(x1, columns.stop),
                )  # fmt: skip
    return boxes


def _groups(boxes: np.ndarray, shape: tuple[int, int]) -> Iterator[tuple[Window, list[int]]]:
    """Yield windows of the plane, and the numbers of the components that are split in them.

    They are bands of rows with all components that end there, and the box of each component higher than a band.
    """
    tops, _, ends, _ = boxes.T
    for band in strips(shape, pixels=_BAND_PIXELS):
        here = (ends > band.top) & (ends <= band.bottom)
        is_high = ends - tops > band.bottom - band.top
        for number in np.flatnonzero(here & is_high) + 1:
            yield _with_margin(boxes[number - 1], shape), [int(number)]
        numbers = np.flatnonzero(here & ~is_high) + 1
        if len(numbers):
            top, bottom = int(tops[numbers - 1].min()), band.bottom
            yield Window(max(top - _AROUND, 0), min(bottom + _AROUND, shape[0]), 0, shape[1]), numbers.tolist()


def _with_margin(box: np.ndarray, shape: Sequence[int]) -> Window:
    y0, x0, y1, x1 = box.tolist()
    return Window(max(y0 - _AROUND, 0), min(y1 + _AROUND, shape[0]), max(x0 - _AROUND, 0), min(x1 + _AROUND, shape[1]))


def _read_window(plane: RowPlane, window: Window) -> np.ndarray:
    """Read a copy of a window of a plane, strip by strip."""
    found = np.empty((window.y1 - window.y0, window.x1 - window.x0), plane.dtype)
    for top, bottom in strips((len(found), plane.shape[1])):
        found[top:bottom] = plane.read(window.y0 + top, window.y0 + bottom)[:, window.x0 : window.x1]
    return found


def _write_window(plane: ScratchPlane, window: Window, values: np.ndarray) -> None:
    """Write a window of a plane, strip by strip."""
    for top, bottom in strips((len(values), plane.shape[1])):
        rows = plane.read(window.y0 + top, window.y0 + bottom).copy()
        rows[:, window.x0 : window.x1] = values[top:bottom]
        plane.write(window.y0 + top, rows)


def _split_one(inside: np.ndarray, distance: float) -> np.ndarray:
    """Split one component, bool (Y, X), by a watershed on the distance to the background: int32 (Y, X)."""
    apart = max(1, round(distance))
    rows, columns = (np.flatnonzero(inside.any(axis)) for axis in (1, 0))
    if apart > 1 and max(np.ptp(rows), np.ptp(columns)) <= apart:  # no room for two centres
        return inside.astype(np.int32)
    depth = ndimage.gaussian_filter(ndimage.distance_transform_edt(inside), _DEPTH_SIGMA)
    peaks = peak_local_max(depth, min_distance=apart, labels=inside.astype(np.uint8), exclude_border=False)
    seeds = np.zeros(inside.shape, np.int32)
    seeds[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    return np.asarray(watershed(-depth, seeds, mask=inside, connectivity=2), np.int32)
