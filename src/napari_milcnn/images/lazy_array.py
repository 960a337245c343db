"""An array in the order P T Z C Y X over arrays that are read only where they are sliced.

Decisions:

- Colour samples (S) become channels. Where an image has both channels and samples, each channel is followed by its own
  samples: channel 0 red, channel 0 green, channel 0 blue, channel 1 red, ...
- Slices are basic and go forwards: integers, ranges with a positive step, and an ellipsis.
"""

from __future__ import annotations

import math
import mmap
import operator
import os
import tempfile
import weakref
from collections.abc import Callable, Mapping, Sequence
from types import EllipsisType
from typing import Final, Protocol, SupportsIndex, TypeAlias

import numpy as np
from numpy.typing import DTypeLike

from napari_milcnn.errors import OutputError

Array: TypeAlias = np.ndarray
AxisKey: TypeAlias = SupportsIndex | slice | EllipsisType
"""What a key of a slice says of one axis."""
ORDER: Final = "PTZCYX"
"""The axes of an image in their order: position, time, depth, channel, rows and columns."""


class ArrayLike(Protocol):
    """An array of which only what is sliced is read: numpy, dask, zarr, or a `LazyArray`."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Length of each axis."""

    @property
    def ndim(self) -> int:
        """Number of axes."""

    @property
    def dtype(self) -> np.dtype[np.generic]:
        """Type of a value."""

    def __getitem__(self, key: tuple[int | slice, ...], /) -> object: ...


LARGEST_IN_MEMORY: Final = 1 << 30
"""Bytes; larger arrays that are written into lie in a temporary file."""


class LazyArray:
    """A read-only array in the order P T Z C Y X over arrays that are read only where they are sliced.

    Parameters
    ----------
    parts
        One array per position, all of the same shape and type; one array with or without an axis P.
    letters
        One letter per axis of a part: P T Z C Y X, S for colour samples, "-" for an axis of length 1 that is left out.
    samples
        How many colour samples are used; the alpha sample is the last one and may be left out.
    close
        Called once, when the array is closed or no longer referenced.
    """

    def __init__(
        self,
        parts: Sequence[ArrayLike],
        letters: str,
        samples: int = 1,
        close: Callable[[], None] | None = None,
    ) -> None:
        self._parts = tuple(parts)
        self._letters = letters
        self._samples = samples if "S" in letters else 1
        sizes = axis_sizes(letters, self._parts[0].shape)
        if "S" in letters:
            sizes["C"] = sizes.get("C", 1) * self._samples
        if len(self._parts) > 1:
            sizes["P"] = len(self._parts)
        self.axes: str = "".join(axis for axis in ORDER if axis in sizes)
        self.shape: tuple[int, ...] = tuple(sizes[axis] for axis in self.axes)
        self.dtype: np.dtype[np.generic] = np.dtype(self._parts[0].dtype)
        self._finalizer = weakref.finalize(self, close or do_nothing)

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of values."""
        return math.prod(self.shape)

    def close(self) -> None:
        """Close what the array reads from; a second call does nothing."""
        self._finalizer()

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f"<LazyArray {self.axes} {self.shape} {self.dtype}>"

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> Array:
        if copy is False:
            raise ValueError("a LazyArray cannot become a numpy array without reading a copy")
        return np.asarray(self[...], dtype=dtype)

    def __getitem__(self, key: AxisKey | tuple[AxisKey, ...]) -> Array:
        if not self._finalizer.alive:
            raise ValueError("it has been closed; open the image again")
        wanted, dropped = self._ranges(key)
        positions = wanted["P"] if len(self._parts) > 1 else range(1)
        blocks = [self._block(self._parts[p], wanted) for p in positions]
        block = np.concatenate(blocks) if blocks else self._block(self._parts[0], wanted)[:0]  # (P, T, Z, C, Y, X)
        return block[tuple(0 if axis in dropped or axis not in self.axes else slice(None) for axis in ORDER)]

    def _ranges(self, key: AxisKey | tuple[AxisKey, ...]) -> tuple[dict[str, range], set[str]]:
        """Return the wanted numbers along each axis, and the axes that an integer removes."""
        keys = list(key) if isinstance(key, tuple) else [key]
        if Ellipsis in keys:
            at = keys.index(Ellipsis)
            keys[at : at + 1] = [slice(None)] * (self.ndim - len(keys) + 1)
        if len(keys) > self.ndim:
            raise IndexError(f"{len(keys)} indices for the {self.ndim} axes {self.axes}")
        keys += [slice(None)] * (self.ndim - len(keys))
        wanted, dropped = {}, set()
        for axis, length, one in zip(self.axes, self.shape, keys, strict=True):
            if isinstance(one, slice):
                wanted[axis] = range(length)[one]
            elif isinstance(one, EllipsisType):
                raise IndexError("a key holds one ellipsis at most")
            else:
                number = range(length)[operator.index(one)]
                wanted[axis] = range(number, number + 1)
                dropped.add(axis)
        if any(numbers.step < 0 for numbers in wanted.values()):
            raise IndexError("steps backwards are not supported")
        return wanted, dropped

    def _block(self, part: ArrayLike, wanted: Mapping[str, range]) -> Array:
        """Read from one part: (P, T, Z, C, Y, X), with length 1 along axes that the part does not have."""
        channels = wanted.get("C", range(1))
        first, last = (channels[0], channels[-1]) if channels else (0, 0)
        both = "C" in self._letters and "S" in self._letters
        steps = dict(wanted)
        if both:
            steps["C"] = range(first // self._samples, last // self._samples + 1)
            steps["S"] = range(self._samples)
        elif "S" in self._letters:
            steps["S"] = channels
        key = tuple(0 if letter == "-" else as_slice(steps[letter]) for letter in self._letters)
        block = in_order(in_memory(part[key]), self._letters.replace("-", ""), "PTZCSYX")
        block = block.reshape(*block.shape[:3], block.shape[3] * block.shape[4], *block.shape[5:])
        if both:  # whole channels were read: keep the samples that were asked for
            block = block[:, :, :, [channel - steps["C"][0] * self._samples for channel in channels]]
        return block


def in_memory(pixels: object) -> Array:
    """Return the pixels of a slice in memory; those of a dask array are computed without dask's global callbacks.

    napari's cache is such a callback while the window slices a dask array. It would record what another thread
    computes at the same time, and either of them would then fail over records that the other has cleared.
    """
    compute = getattr(pixels, "compute", None)
    return np.asarray(pixels if compute is None else compute(callbacks=()))


def thinned(rows: Array, top: int, step: int) -> tuple[int, Array]:
    """Take every `step`-th row and column of rows (..., rows, X) that begin at row `top` of a plane.

    Returns
    -------
    int, ndarray
        The row of the thinned plane at which they stand, and the pixels.
    """
    first = -(-top // step)
    return first, rows[..., first * step - top :: step, ::step]


def do_nothing() -> None:
    """Close something that needs no closing."""


def axis_sizes(letters: str, shape: Sequence[int]) -> dict[str, int]:
    """Return the letter of each axis -> its length; axes that are left out are not in it."""
    return {letter: int(n) for letter, n in zip(letters, shape, strict=True) if letter != "-"}


def as_slice(numbers: range) -> slice:
    """Return the slice that takes the numbers of a range."""
    return slice(numbers.start, numbers.stop, numbers.step)


def in_order(block: Array, letters: str, order: str) -> Array:
    """Move the axes `letters` of a block into an order; absent axes get length 1."""
    absent = "".join(axis for axis in order if axis not in letters)
    block = block.reshape(block.shape + (1,) * len(absent))
    return block.transpose([(letters + absent).index(axis) for axis in order])


def scratch_array(shape: tuple[int, ...], dtype: type[np.generic], in_memory: int = LARGEST_IN_MEMORY) -> Array:
    """Make an array of zeros to write into: in memory, or in a temporary file where it has more bytes than `in_memory`.

    Raises
    ------
    OutputError
        If the disk of the temporary file has no room for it.
    """
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if size <= in_memory:
        return np.zeros(shape, dtype)
    try:
        with tempfile.TemporaryFile() as file:  # the array has a handle of its own
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)  # a disk that fills up later would end the process
            return np.memmap(file, dtype, "w+", shape=shape)
    except OSError as error:
        raise OutputError(
            f"a temporary file of {size / 1e9:.1f} GB cannot be made: {error.strerror or error}; free some space in "
            "the folder for temporary files, or set the variable TMPDIR to a folder on another disk"
        ) from error


def let_go(array: Array) -> None:
    """Give back the memory of what was written into a `scratch_array` in a temporary file; its values stay there."""
    mapped = getattr(array, "_mmap", None)
    if mapped is not None and hasattr(mmap, "MADV_DONTNEED"):
        mapped.madvise(mmap.MADV_DONTNEED)
