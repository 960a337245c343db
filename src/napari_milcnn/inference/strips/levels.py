"""Planes in several sizes, so that a window can show a large one: each level has every second pixel of the one before.

The two finest levels are read where they are shown. The others, of every fourth pixel and fewer, are made of a plane in
one pass over its rows, when they are first wanted: together they have a twelfth of its pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import count
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import DTypeLike

from napari_milcnn.images.lazy_array import ArrayLike, in_memory
from napari_milcnn.inference.strips.rows import LARGEST_AT_ONCE, LookedUp, RowPlane, coarse_levels, coarse_steps

if TYPE_CHECKING:
    import dask.array as da

_READ_SIDE = 1024
"""Side of what is read at once, in px; of a plane that is read by rows, as many pixels in whole rows."""
_PLANES_KEPT = 16
"""Planes of an array whose coarse levels are kept, each channel by itself: those that were shown last."""
_COUNT = count()


def has_levels(shape: Sequence[int]) -> bool:
    """Whether planes (Y, X) of a shape are so large that they are shown in several sizes."""
    return math.prod(shape[-2:]) > LARGEST_AT_ONCE


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
            found = self._made.pop(plane, None) or coarse_levels(read, (height, width), self.array.dtype)
            self._made[plane] = found  # the last one
            for oldest in list(self._made)[:-_PLANES_KEPT]:
                del self._made[oldest]
            return found

    def arrays(self) -> list[da.Array]:
        """Return all levels as lazy arrays (..., Y, X), the full size first."""
        outer, shape = tuple(self.array.shape[:-2]), self.array.shape[-2:]
        chunks = (*(1 for _ in outer), _READ_SIDE, _READ_SIDE)
        return _with_coarse(as_dask(self.array, chunks), lambda plane, number: self.coarse(plane)[number], outer, shape)


def sizes_of(plane: RowPlane) -> list[da.Array]:
    """Return a plane (Y, X) in several sizes, as lazy arrays, the full size first; its `coarse` levels are used."""
    if isinstance(plane, LookedUp):
        return [one.map_blocks(plane.values.take, dtype=plane.dtype) for one in sizes_of(plane.labels)]
    whole = as_dask(plane, (max(1, _READ_SIDE**2 // plane.shape[1] // 2) * 2, plane.shape[1]))
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


def as_dask(array: ArrayLike, chunks: tuple[int, ...]) -> da.Array:
    """Return an array of which napari reads what is in view, in chunks; it is told by identity, not by its values."""
    import dask.array as da

    return da.from_array(array, chunks=chunks, name=False, meta=np.empty((0,) * len(chunks), array.dtype))


def _with_coarse(
    whole: da.Array,
    level: Callable[[tuple[int, ...], int], np.ndarray],
    outer: tuple[int, ...],
    shape: Sequence[int],
) -> list[da.Array]:
    """Return the full size, every second pixel of it, and the levels that a function gives of a plane, by number.

    The chunks of the full size have even sides. Making the arrays takes no longer for more planes.
    """
    import dask.array as da

    halves = [tuple(-(-side // 2) for side in sides) for sides in whole.chunks[-2:]]
    found = [whole, whole.map_blocks(_every_second, dtype=whole.dtype, chunks=(*whole.chunks[:-2], *halves))]
    for number, step in enumerate(coarse_steps(shape)):

        def of_plane(block_id: tuple[int, ...], number: int = number) -> np.ndarray:
            return level(block_id[:-2], number)[(None,) * len(outer)]

        size = ((-(-shape[0] // step),), (-(-shape[1] // step),))
        chunks = (*((1,) * length for length in outer), *size)
        empty = np.empty((0,) * len(chunks), whole.dtype)
        found.append(
            da.map_blocks(of_plane, name=f"level-{next(_COUNT)}", chunks=chunks, dtype=empty.dtype, meta=empty)
        )
    return found


def _every_second(pixels: np.ndarray) -> np.ndarray:
    return pixels[..., ::2, ::2]
