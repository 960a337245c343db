"""Planes in several sizes, so that a window can show a large one: each level has every second pixel of the one before.

The two finest levels are read where they are shown. The others, of every fourth pixel and fewer, are made of a plane in
one pass over its rows, when they are first wanted: together they have a twelfth of its pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import DTypeLike

from napari_milcnn.images.lazy_array import ArrayLike, in_memory
from napari_milcnn.inference.strips.rows import LookedUp, RowPlane, coarse_levels, coarse_steps

if TYPE_CHECKING:
    import dask.array as da

LARGEST_AT_ONE_SIZE = 2**25
"""Pixels of the largest plane that a window shows without levels."""
_READ_SIDE = 1024
"""Side of what is read at once, in px; of a plane that is read by rows, as many pixels in whole rows."""


def has_levels(shape: Sequence[int]) -> bool:
    """Whether planes (Y, X) of a shape are so large that they are shown in several sizes."""
    return math.prod(shape[-2:]) > LARGEST_AT_ONE_SIZE


class Levels:
    """An array (..., Y, X), such as that of an image, in several sizes.

    Parameters
    ----------
    array : ArrayLike
        The array at its full size.
    """

    def __init__(self, array: ArrayLike) -> None:
        self.array = array
        self._made: dict[tuple[int, ...], tuple[np.ndarray, ...]] = {}
        self._lock = Lock()

    def coarse(self, plane: tuple[int, ...] = ()) -> tuple[np.ndarray, ...]:
        """Return the levels that are made of one plane, given by its place along the other axes: (Y, X) each."""
        height, width = self.array.shape[-2:]

        def read(top: int, bottom: int) -> np.ndarray:
            return in_memory(self.array[(*plane, slice(top, bottom), slice(0, width))])

        with self._lock:
            if plane not in self._made:
                self._made[plane] = coarse_levels(read, (height, width), self.array.dtype)
            return self._made[plane]

    def arrays(self) -> list[da.Array]:
        """Return all levels as lazy arrays (..., Y, X), the full size first."""
        outer, shape = tuple(self.array.shape[:-2]), self.array.shape[-2:]
        chunks = (*(1 for _ in outer), _READ_SIDE, _READ_SIDE)
        return _with_coarse(_lazy(self.array, chunks), lambda plane, number: self.coarse(plane)[number], outer, shape)


def sizes_of(plane: RowPlane) -> list[da.Array]:
    """Return a plane (Y, X) in several sizes, as lazy arrays, the full size first; its `coarse` levels are used."""
    if isinstance(plane, LookedUp):
        return [one.map_blocks(plane.values.take, dtype=plane.dtype) for one in sizes_of(plane.labels)]
    whole = _lazy(plane, (max(1, _READ_SIDE**2 // plane.shape[1]), plane.shape[1]))
    return _with_coarse(whole, lambda _, number: plane.coarse[number], (), plane.shape)


def empty_sizes(shape: Sequence[int], dtype: DTypeLike) -> list[da.Array]:
    """Return a plane (Y, X) of zeros in several sizes."""
    import dask.array as da

    sizes = [[-(-side // step) for side in shape] for step in (1, 2, *coarse_steps(shape))]
    return [da.zeros(size, dtype, chunks=_READ_SIDE) for size in sizes]


def stacked_sizes(planes: Sequence[Sequence[da.Array]]) -> list[da.Array]:
    """Return planes, each in several sizes, as one array (planes, Y, X) in these sizes."""
    import dask.array as da

    return [da.stack(one) for one in zip(*planes, strict=True)]


def make_sizes(plane: RowPlane) -> None:
    """Make the levels that `sizes_of` uses, in one pass over a plane: it then takes no longer for a larger one."""
    if isinstance(plane, LookedUp):
        make_sizes(plane.labels)
    else:
        assert plane.coarse


def _lazy(array: ArrayLike, chunks: tuple[int, ...]) -> da.Array:
    import dask.array as da

    return da.from_array(array, chunks=chunks, name=False, meta=np.empty((0,) * len(chunks), array.dtype))


def _with_coarse(
    whole: da.Array,
    level: Callable[[tuple[int, ...], int], np.ndarray],
    outer: tuple[int, ...],
    shape: Sequence[int],
) -> list[da.Array]:
    """Return the full size, every second pixel of it, and the levels that a function gives of a plane, by number."""
    import dask.array as da
    from dask import delayed

    found = [whole, whole[..., ::2, ::2]]
    for number, step in enumerate(coarse_steps(shape)):
        size = (-(-shape[0] // step), -(-shape[1] // step))
        planes = [
            da.from_delayed(delayed(level, pure=False)(plane, number), size, whole.dtype) for plane in np.ndindex(outer)
        ]
        found.append(da.stack(planes).reshape((*outer, *size)))
    return found
