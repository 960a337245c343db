"""Split the objects of a mask on disk at the scale of a typical object, as `foreground.split_at_size` does in memory.

Each pixel follows the steepest ascent within its strip, to a peak or out of the strip. Where it leaves, it ends in the
first or last row of a strip, and these rows alone are followed further, from strip to strip.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from napari_milcnn.inference.foreground import (
    joined_parts,
    peaks_reached,
    reduced,
    split_scale,
    split_weight,
    steepest_neighbours,
)
from napari_milcnn.inference.strips.rows import Scratch, ScratchPlane, Strip, strips


def split_in_strips(
    mask: ScratchPlane, intensities: ScratchPlane, background: float, size: float, scratch: Scratch
) -> ScratchPlane:
    """Label the objects of a mask (Y, X), split and joined at the scale of a typical object: int32 (Y, X).

    Parameters
    ----------
    mask : ScratchPlane
        The foreground, bool.
    intensities : ScratchPlane
        Intensities, float32.
    background : float
        The median of the intensities outside the mask.
    size : float
        Diameter of a typical object, in px.
    scratch : Scratch
        Where the labels lie.
    """
    step, sigma = split_scale(size)
    height, width = (-(-side // step) for side in mask.shape)
    parts = [Strip(part.top // step, -(-part.bottom // step)) for part in strips(mask.shape, step)]
    ends, climbs = scratch.plane((height, width), np.int32), []
    for part in parts:
        height_map, inside = _hills_of(part, (mask, intensities), background, step, sigma)
        climb, places = _climbed(part, height, height_map, inside)
        climbs.append(climb)
        ends.write(part.top, places)
    first_of_each = np.cumsum([1, *(len(one.peaks) for one in climbs)])
    leaving = _followed(climbs, first_of_each, width)
    areas, sums = np.zeros(first_of_each[-1], np.int64), np.zeros((2, first_of_each[-1]))
    for climb, first in zip(climbs, first_of_each, strict=False):
        numbers = _numbers_of_places(climb, first, leaving, width)
        labels = _labels_of(climb, ends, numbers)
        _add_up(labels, climb.strip.top, areas, sums)
    whole = joined_parts(areas, (sums[:, 1:] / areas[1:]).T, size / step)
    found = scratch.plane(mask.shape, np.int32)
    for climb, first in zip(climbs, first_of_each, strict=False):
        numbers = _numbers_of_places(climb, first, leaving, width)
        labels = whole[_labels_of(climb, ends, numbers)]
        top = climb.strip.top * step
        bottom = min(climb.strip.bottom * step, mask.shape[0])
        large = labels[(np.arange(top, bottom) - top) // step][:, np.arange(mask.shape[1]) // step]
        large[~mask.read(top, bottom)] = 0
        found.write(top, large)
    return found


def _hills_of(
    part: Strip, planes: tuple[ScratchPlane, ScratchPlane], background: float, step: int, sigma: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return the hills of some reduced rows, and of one row above and below, and what lies inside the mask."""
    mask, intensities = planes
    height = mask.shape[0]
    rows = -(-height // step)
    reach = int(4 * sigma + 0.5) + 1
    top, bottom = max(part.top - reach, 0), min(part.bottom + reach, rows)
    read = (top * step, min(bottom * step, height))
    own = mask.read(*read)
    weight = reduced(split_weight(own, intensities.read(*read), background), step)
    kept = slice(max(part.top - 1, 0) - top, min(part.bottom + 1, rows) - top)
    hills = ndimage.gaussian_filter(weight, sigma)[kept]
    return hills, reduced(own.astype(np.float32), step)[kept] > 0


@dataclass(frozen=True)
class _Climb:
    """Where the steepest ascent leads from the pixels of a strip.

    Attributes
    ----------
    strip : Strip
        The rows, reduced.
    first : int
        The first row that the places count from: the strip's own, or the one above it.
    size : int
        Number of places: pixels of the strip, and of the rows above and below it.
    peaks : ndarray
        Places of the peaks in the strip.
    edge : ndarray
        For each pixel of its first and last row, the place that it leads to, in the flat plane; -1 outside the mask.
    """

    strip: Strip
    first: int
    size: int
    peaks: np.ndarray
    edge: np.ndarray


def _climbed(part: Strip, rows: int, height: np.ndarray, inside: np.ndarray) -> tuple[_Climb, np.ndarray]:
    """Follow the steepest ascent in a strip: what is known of it, and the place that each pixel leads to, or -1."""
    first, width = max(part.top - 1, 0), height.shape[1]
    target = steepest_neighbours(height, inside)
    above, below = part.top - first, min(part.bottom + 1, rows) - part.bottom
    here = np.arange(target.size).reshape(target.shape)
    own = slice(above, len(target) - below)
    outside = np.ones(target.shape, bool)
    outside[own] = False
    target[outside] = here[outside]
    flat = peaks_reached(target)
    peaks = np.flatnonzero((flat == here.ravel()) & inside.ravel() & ~outside.ravel())
    places = np.where(inside, flat.reshape(target.shape), -1)[own].astype(np.int32)
    edge = np.stack([places[0], places[-1]]).astype(np.int64)
    edge[edge >= 0] += first * width
    return _Climb(part, first, target.size, peaks, edge), places


def _followed(climbs: Sequence[_Climb], first_of_each: np.ndarray, width: int) -> dict[int, np.ndarray]:
    """Follow the rows at the borders of strips to their peaks.

    Returns
    -------
    dict
        Row of the reduced plane -> the number of the peak that each of its pixels leads to (X,); 0 outside the mask.
    """
    rows = [row for climb in climbs for row in (climb.strip.top, climb.strip.bottom - 1)]
    places = (np.array(rows)[:, None] * width + np.arange(width)).ravel()
    leads = np.concatenate([climb.edge.ravel() for climb in climbs])
    order = np.unique(places, return_index=True)[1]
    places, leads = places[order], leads[order]
    peaks = np.concatenate([climb.peaks + climb.first * width for climb in climbs])
    index = np.minimum(np.searchsorted(places, leads), len(places) - 1)
    goes_on = (leads >= 0) & (places[index] == leads)
    index = peaks_reached(np.where(goes_on, index, np.arange(len(places))))
    leads = leads[index]
    numbers = np.where(leads >= 0, np.searchsorted(peaks, leads) + first_of_each[0], 0)
    return {int(row): numbers[i * width : (i + 1) * width] for i, row in enumerate(np.unique(rows))}


def _numbers_of_places(climb: _Climb, first: int, leaving: dict[int, np.ndarray], width: int) -> np.ndarray:
    """Return the number of the peak at each place of a strip (places,), or of that to which it leads on."""
    numbers = np.zeros(climb.size + 1, np.int32)  # the last place, -1, is outside the mask
    numbers[climb.peaks] = np.arange(first, first + len(climb.peaks))
    for row in {climb.first, climb.first + climb.size // width - 1} - set(range(*climb.strip)):
        at = (row - climb.first) * width
        numbers[at : at + width] = leaving[row]
    return numbers


def _labels_of(climb: _Climb, ends: ScratchPlane, numbers: np.ndarray) -> np.ndarray:
    return np.asarray(numbers[ends.read(*climb.strip)])


def _add_up(labels: np.ndarray, top: int, areas: np.ndarray, sums: np.ndarray) -> None:
    """Add the pixels of a strip to the areas and to the sums of rows and columns of their labels."""
    flat = labels.ravel()
    rows, columns = np.arange(top, top + len(labels))[:, None], np.arange(labels.shape[1])
    counts = np.bincount(flat)
    areas[: len(counts)] += counts
    for one, at in zip(sums, (rows, columns), strict=True):
        one[: len(counts)] += np.bincount(flat, np.broadcast_to(at, labels.shape).ravel())
