"""Planes on disk, written and read by rows, and the strips in which they are processed.

A strip is a range of whole rows, so that what is cut by a border is cut above or below, never beside. The arrays lie in
a temporary folder as compressed zarr: a memory map would count as memory until the system takes its pages back.
"""

from __future__ import annotations

import math
import shutil
import tempfile
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import DTypeLike

from napari_milcnn.errors import ComputeError
from napari_milcnn.images.lazy_array import ArrayLike, scratch_array, thinned

LARGEST_AT_ONCE = 2**25
"""Pixels of the largest plane whose objects are found in one piece, with about 2 GB, and that a window shows at one
size; larger ones are cut in strips, and shown in several sizes."""
STRIP_PIXELS = 2**22
"""Pixels of a strip: about 40 bytes a pixel are needed at a time."""
_CHUNK_PIXELS = 2**20
IN_MEMORY = 2**24
"""Bytes up to which a temporary plane lies in memory."""
_FIRST_STEP, _SCREEN = 4, 1024
"""Step, in px, of the finest of the coarse levels of a plane, and side of the last of them."""
_LEVEL_IN_MEMORY = 2**26
"""Bytes up to which such a level lies in memory."""
_TAKEN_PIXELS = 2**16
"""Labels that are looked up at once: what that needs stays in the processor's cache."""
ReadRows: TypeAlias = Callable[[int, int], np.ndarray]
"""Reads the rows from the first number to the second, which is not included, of a plane: (rows, X)."""


class Strip(NamedTuple):
    """Rows `top` to `bottom` of a plane; `bottom` is not included."""

    top: int
    bottom: int

    @property
    def rows(self) -> slice:
        """The rows as a slice."""
        return slice(self.top, self.bottom)


def strips(shape: Sequence[int], multiple: int = 1, pixels: int | None = None) -> list[Strip]:
    """Cut a plane (Y, X) into strips of about `pixels` px, by default `STRIP_PIXELS`, each but the last a multiple."""
    height, width = shape
    rows = max(multiple, (pixels or STRIP_PIXELS) // width // multiple * multiple)
    return [Strip(top, min(top + rows, height)) for top in range(0, height, rows)]


def coarse_steps(shape: Sequence[int]) -> list[int]:
    """Return the step of each coarse level of a plane (Y, X), in px: 4, 8, ..., until it fits on a screen."""
    count = max(1, math.ceil(math.log2(max(shape) / _SCREEN / _FIRST_STEP)) + 1)
    return [_FIRST_STEP * 2**i for i in range(count)]


def coarse_levels(read: ReadRows, shape: tuple[int, int], dtype: DTypeLike) -> tuple[np.ndarray, ...]:
    """Read a plane (Y, X) once, and keep every fourth, eighth, ... row and column of it: (Y, X) for each step."""
    steps = coarse_steps(shape)
    found = [scratch_array((-(-shape[0] // step), -(-shape[1] // step)), np.dtype(dtype).type, _LEVEL_IN_MEMORY)
             for step in steps]  # fmt: skip
    for top, bottom in strips(shape):
        rows = read(top, bottom)
        for step, level in zip(steps, found, strict=True):
            first, own = thinned(rows, top, step)
            level[first : first + len(own)] = own
    return tuple(found)


class Scratch:
    """A folder of temporary planes, removed when the object that holds it is closed or no longer referenced.

    Parameters
    ----------
    in_memory : float, optional
        Bytes up to which a plane lies in memory; by default `IN_MEMORY`.
    """

    def __init__(self, in_memory: float | None = None) -> None:
        self.in_memory = IN_MEMORY if in_memory is None else in_memory
        self._count = 0

    @cached_property
    def _folder(self) -> Path:
        folder = Path(tempfile.mkdtemp(prefix="milcnn-"))
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        return folder

    @property
    def free(self) -> int:
        """Bytes that are free on its disk."""
        return shutil.disk_usage(tempfile.gettempdir()).free

    @property
    def used(self) -> int:
        """Bytes of its planes on disk."""
        return sum(path.stat().st_size for path in self._folder.rglob("*") if path.is_file())

    def check_room(self, needed: float) -> None:
        """Refuse what does not fit on the disk.

        Raises
        ------
        ComputeError
            If fewer bytes than needed are free.
        """
        if needed > self.free:
            raise ComputeError(
                f"masks of this plane need about {needed / 1e9:.1f} GB for temporary files, and {self.free / 1e9:.1f} "
                "GB are free; free some space in the folder for temporary files, set the variable TMPDIR to a folder "
                "on another disk, or crop the image"
            )

    def plane(self, shape: tuple[int, int], dtype: type[np.generic]) -> ScratchPlane:
        """Make a plane of zeros (Y, X) to write rows into."""
        if np.dtype(dtype).itemsize * shape[0] * shape[1] <= self.in_memory:
            return ScratchPlane(np.zeros(shape, dtype), self)
        import zarr
        from zarr.codecs import BloscCodec

        self._count += 1
        rows = min(shape[0], max(1, _CHUNK_PIXELS // shape[1]))
        array = zarr.create_array(
            str(self._folder / str(self._count)), shape=shape, chunks=(rows, shape[1]), dtype=np.dtype(dtype),
            compressors=BloscCodec(cname="lz4", clevel=1, shuffle="shuffle"),
        )  # fmt: skip
        return ScratchPlane(array, self)


class RowPlane(ABC):
    """A plane (Y, X) that need not lie in memory: what is sliced is read by rows.

    Attributes
    ----------
    shape, dtype, ndim
        As of an array.
    """

    ndim = 2

    def __init__(self, shape: tuple[int, int], dtype: DTypeLike) -> None:
        self.shape, self.dtype = shape, np.dtype(dtype)

    @abstractmethod
    def read(self, top: int, bottom: int) -> np.ndarray:
        """Read some rows, (rows, X)."""

    def over(self, parts: Sequence[Strip]) -> Iterator[tuple[Strip, np.ndarray]]:
        """Read strip after strip."""
        for strip in parts:
            yield strip, self.read(*strip)

    def in_strips(self) -> Iterator[np.ndarray]:
        """Read all rows, strip after strip."""
        return (rows for _, rows in self.over(strips(self.shape)))

    @cached_property
    def coarse(self) -> tuple[np.ndarray, ...]:
        """Its coarse levels, as `coarse_levels` has them, once nothing is written into it any more."""
        return coarse_levels(self.read, self.shape, self.dtype)

    def max(self) -> float:
        """Return the largest value."""
        return max(float(rows.max()) for rows in self.in_strips())

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: object) -> np.ndarray:
        rows, *others = key if isinstance(key, tuple) else (key,)
        if isinstance(rows, slice):
            top, bottom, step = rows.indices(self.shape[0])
            found = self.read(top, bottom)[::step]
        else:
            found = self.read(int(rows), int(rows) + 1)[0]
            return np.asarray(found[tuple(others)] if others else found)
        return found[(slice(None), *others)] if others else found

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self.read(0, self.shape[0]), dtype)


class ScratchPlane(RowPlane):
    """A plane (Y, X) of a `Scratch`; it is written by rows, too, and keeps its folder alive."""

    def __init__(self, array: ArrayLike, home: Scratch) -> None:
        super().__init__((int(array.shape[0]), int(array.shape[1])), array.dtype)
        self._array, self._home = array, home

    def read(self, top: int, bottom: int) -> np.ndarray:
        """Read some rows, (rows, X)."""
        return np.asarray(self._array[top:bottom, :])

    def write(self, top: int, rows: np.ndarray) -> None:
        """Write some rows, (rows, X)."""
        self._array[top : top + len(rows), :] = rows  # type: ignore[index]


def copy_rows(source: np.ndarray | RowPlane, target: np.ndarray) -> None:
    """Copy a plane (Y, X) into an array, strip by strip."""
    for strip in strips(source.shape):
        target[strip.rows] = source[strip.rows]


def values_of(values: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the value of each label (Y, X), in a third of the time of `values.take`: some rows at once.

    Each label must have a value: labels are not checked, and beyond the last value have the last.
    """
    found = np.empty(labels.shape, values.dtype)
    rows = max(1, _TAKEN_PIXELS // max(1, labels.shape[1]))
    for top in range(0, len(labels), rows):
        values.take(labels[top : top + rows], out=found[top : top + rows], mode="clip")
    return found


class LookedUp(RowPlane):
    """A plane (Y, X) whose values are looked up by the labels of another plane, where and when it is read.

    Attributes
    ----------
    labels : RowPlane
        The other plane.
    values : ndarray
        The value of each label (labels,).
    """

    def __init__(self, labels: RowPlane, values: np.ndarray) -> None:
        super().__init__(labels.shape, values.dtype)
        self.labels, self.values = labels, values

    @property
    def largest(self) -> int:
        """The largest value that a label has."""
        return int(self.values.max(initial=0))

    def read(self, top: int, bottom: int) -> np.ndarray:
        """Read some rows, (rows, X)."""
        return values_of(self.values, self.labels.read(top, bottom))

    def mapped(self, values: np.ndarray) -> LookedUp:
        """Return the plane in which each value is replaced by that of `values` (old values,)."""
        return LookedUp(self.labels, values[self.values])


class Computed(RowPlane):
    """A plane (Y, X) of float32 whose rows are computed where and when they are read."""

    def __init__(self, shape: tuple[int, int], read: ReadRows) -> None:
        super().__init__(shape, np.float32)
        self._read = read

    def read(self, top: int, bottom: int) -> np.ndarray:
        """Compute some rows, (rows, X)."""
        return self._read(top, bottom)


class MapsByRows:
    """Maps (classes, Y, X) of which each is read by rows.

    Attributes
    ----------
    shape, dtype, ndim
        As of an array.
    """

    ndim = 3

    def __init__(self, maps: Sequence[RowPlane]) -> None:
        self._maps = tuple(maps)
        self.shape, self.dtype = (len(maps), *maps[0].shape), maps[0].dtype

    def __len__(self) -> int:
        return len(self._maps)

    def __iter__(self) -> Iterator[RowPlane]:
        return iter(self._maps)

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> np.ndarray:
        return np.stack([np.asarray(one, dtype) for one in self._maps])

    def __getitem__(self, number: int) -> RowPlane:
        return self._maps[number]
