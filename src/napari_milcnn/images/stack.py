"""An opened image: lazy pixels with axes, channel names and pixel size; one plane is read at a time.

Decisions:

- The axes of an `ImageStack` always stand in the order P (position) T Z C Y X, whatever the order on disk. Axes that
  the image does not have are left out.
- A value that is NaN or infinite is an error where it is read: no later step has to look for it.
- A file stays open as long as the `data` of its image lives, or until `close()` is called.
- What readers and decoders raise at broken data becomes an `ImageError` in this room, with the path in its message.
"""

from __future__ import annotations

import lzma
import operator
import re
import struct
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise, product
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, Self

import numpy as np

from napari_milcnn.errors import ImageError
from napari_milcnn.images.lazy_array import Array, ArrayLike, LazyArray, as_slice, in_memory

if TYPE_CHECKING:
    from napari_milcnn.images.intensity import Plates

FOREIGN: Final = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    ImportError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    SyntaxError,  # XML that does not parse
    TypeError,
    ValueError,
    lzma.LZMAError,
    struct.error,
    zlib.error,
)
"""What readers and decoders raise at broken data; `translated` turns all of these into an `ImageError`."""


class Window(NamedTuple):
    """Rows y0 to y1 and columns x0 to x1 of a plane in px; y1 and x1 are not included."""

    y0: int
    y1: int
    x0: int
    x1: int


class PlaneIndex(NamedTuple):
    """The place of a plane along the axes P, T and Z; 0 along an axis that the image does not have."""

    position: int
    t: int
    z: int


class PlaneChoice(NamedTuple):
    """A choice of planes: their numbers along the axes P, T and Z, or None for every number along an axis."""

    position: int | None = None
    t: int | None = None
    z: int | None = None

    @classmethod
    def read(cls, name: str) -> PlaneChoice:
        """Read a name such as "P0", "T3" or "P0 T3 Z1"; an empty name means every plane.

        Raises
        ------
        ImageError
            The text is not such a name.
        """
        numbers = {part[:1].upper(): part[1:] for part in name.split()}
        known = all(axis in "PTZ" and re.fullmatch("[0-9]{1,9}", number) for axis, number in numbers.items())
        if not known or len(numbers) < len(name.split()):
            raise ImageError(f"the plane {name!r} is not understood; expected a name such as P0, T3 or P0 T3 Z1")
        return cls(*(int(numbers[axis]) if axis in numbers else None for axis in "PTZ"))

    @property
    def name(self) -> str:
        """The name of the choice, as `ImageStack.plane_name` writes it."""
        return " ".join(f"{axis}{number}" for axis, number in zip("PTZ", self, strict=True) if number is not None)


EVERY_PLANE: Final = PlaneChoice()


class StoredAxes(NamedTuple):
    """The axes as they stand on disk.

    Attributes
    ----------
    letters
        One letter per axis; "-" for an axis of length 1 that is left out.
    shape
        Length of each axis in px, or in planes.
    images
        How many images of these axes the file holds; each is a position.
    """

    letters: str
    shape: tuple[int, ...]
    images: int


@dataclass(frozen=True, eq=False, repr=False)
class ImageStack:
    """An opened image: lazy pixels and what is known about them.

    Attributes
    ----------
    data
        The pixels, with the axes of `axes`: a numpy, dask or zarr array or a `LazyArray`. Slicing reads only the slice.
    axes
        One letter per axis of `data`, always in the order P (position) T Z C Y X; absent axes are left out.
    name
        The file's stem, or "image".
    path
        The file or folder, or None for an array.
    channels
        One name per channel; "channel 0", "channel 1", ... where no name is known.
    pixel_size
        Side of a pixel along Y and X in µm; None where it is not known.
    position_names
        One name per position along P; empty where the image has no axis P.
    warnings
        Sentences that say what had to be assumed or was left out.
    channels_named
        Whether `channels` are real names rather than numbers.
    stored
        The axes in the order of the file or array itself, as other programs show them.
    only
        The planes that `planes` lists; `data` and `axes` are always those of the whole image.
    plates
        What is known of the image's plate or batch, for models that scale intensities by it; None where nothing is.
    """

    data: ArrayLike
    axes: str
    name: str
    path: Path | None
    channels: tuple[str, ...]
    pixel_size: float | None = None
    position_names: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    channels_named: bool = field(default=False)
    stored: StoredAxes | None = None
    only: PlaneChoice = EVERY_PLANE
    plates: Plates | None = field(default=None, repr=False, compare=False)

    def __repr__(self) -> str:
        shape = "x".join(str(n) for n in self.shape)
        return f"<ImageStack {self.name!r} {self.axes} {shape} {self.dtype} {self.channels}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def shape(self) -> tuple[int, ...]:
        """Length of each axis of `axes`."""
        return tuple(int(n) for n in self.data.shape)

    @property
    def dtype(self) -> np.dtype[np.generic]:
        """Type of a pixel, in the byte order of this machine."""
        return np.dtype(self.data.dtype).newbyteorder("=")

    @property
    def sizes(self) -> dict[str, int]:
        """Letter of an axis -> its length."""
        return dict(zip(self.axes, self.shape, strict=True))

    @property
    def plane_shape(self) -> tuple[int, int]:
        """Height and width of a plane, (Y, X), in px."""
        return self.shape[-2], self.shape[-1]

    @property
    def is_picture(self) -> bool:
        """Whether the image is a colour picture: its channels are samples of a screen, not those of a microscope."""
        return self.stored is not None and dict(zip(*self.stored[:2], strict=True)).get("S", 1) > 2

    @cached_property
    def planes(self) -> tuple[PlaneIndex, ...]:
        """Every combination of P, T and Z that `only` allows, in this order, with Z running fastest."""
        sizes = (self.sizes.get(axis, 1) for axis in "PTZ")
        numbers = (range(n) if one is None else (one,) for n, one in zip(sizes, self.only, strict=True))
        return tuple(PlaneIndex(*at) for at in product(*numbers))

    def plane_name(self, i: int) -> str:
        """Return a name such as "P0 T3 Z1" with the axes that the image has; empty for an image of one plane."""
        at = self._index(i)
        return " ".join(f"{axis}{number}" for axis, number in zip("PTZ", at, strict=True) if axis in self.axes)

    def plane(self, i: int, channels: Sequence[int] | None = None, window: Window | None = None) -> Array:
        """Read one plane, or a window of it; nothing else is read.

        Parameters
        ----------
        i
            Number of the plane in `planes`.
        channels
            Numbers of the channels to read, in the order wanted; all by default.
        window
            Rows and columns (y0, y1, x0, x1) in px, y1 and x1 not included; the whole plane by default.

        Returns
        -------
        numpy.ndarray
            A new array (channels, Y, X) of the type of the image, in the byte order of this machine.

        Raises
        ------
        ImageError
            The plane, a channel or the window does not exist, the pixels cannot be read, or some of them are NaN
            or infinite.
        """
        at = self._index(i)
        numbers = self._channel_numbers(channels)
        y0, y1, x0, x1 = self._inside(window)
        key: dict[str, int | slice] = {"P": at.position, "T": at.t, "Z": at.z, "Y": slice(y0, y1), "X": slice(x0, x1)}
        advice = "" if self.path is None else "copy the file again, or export it as an uncompressed TIFF"
        with translated(f"{self._where(i)}: the pixels cannot be read", advice):
            block = self._read(key, numbers)
        self._check_finite(block, i)
        return block

    def close(self) -> None:
        """Close the file; its planes can then no longer be read. An array that the caller gave is left as it is."""
        if self.path is not None and isinstance(self.data, LazyArray):
            self.data.close()

    def _read(self, key: Mapping[str, int | slice], channels: Sequence[int]) -> Array:
        """Read some channels at a key with one entry per axis: (channels, Y, X)."""
        blocks = []
        for some in _ranges_to_read(channels):
            at = tuple(as_slice(some) if axis == "C" else key[axis] for axis in self.axes)
            block = in_memory(self.data[at])
            blocks.append(block if "C" in self.axes else block[np.newaxis])
        return np.concatenate(blocks, dtype=self.dtype)

    def _index(self, i: int) -> PlaneIndex:
        try:
            return self.planes[operator.index(i)]
        except IndexError:
            message = (
                f"{self.path or self.name}: plane {i} was asked for, but its {len(self.planes)} planes count from 0"
            )
            raise ImageError(message) from None

    def _channel_numbers(self, channels: Sequence[int] | None) -> tuple[int, ...]:
        if channels is None:
            return tuple(range(len(self.channels)))
        numbers = tuple(operator.index(channel) for channel in channels)
        if not numbers or not all(0 <= number < len(self.channels) for number in numbers):
            raise ImageError(
                f"{self.path or self.name}: channels {list(numbers)} were asked for, "
                f"but its {len(self.channels)} channels count from 0"
            )
        return numbers

    def _inside(self, window: Window | None) -> Window:
        height, width = self.plane_shape
        y0, y1, x0, x1 = (0, height, 0, width) if window is None else (operator.index(edge) for edge in window)
        if not (0 <= y0 < y1 <= height and 0 <= x0 < x1 <= width):
            raise ImageError(
                f"{self.path or self.name}: window (y0, y1, x0, x1) = {(y0, y1, x0, x1)} "
                f"is not inside the plane of {height} rows and {width} columns"
            )
        return Window(y0, y1, x0, x1)

    def _where(self, i: int) -> str:
        return ", ".join(str(part) for part in (self.path or self.name, self.plane_name(i)) if part)

    def _check_finite(self, block: Array, i: int) -> None:
        if block.dtype.kind != "f":
            return
        bad = block.size - np.count_nonzero(np.isfinite(block))
        if bad:
            raise ImageError(
                f"{self._where(i)}: {bad} of {block.size} values are NaN or infinite, but all must be finite; "
                "replace them first, for example with numpy.nan_to_num"
            )


@dataclass(frozen=True)
class FoundImage:
    """What a reader found in a file or an array, before the axes, names and sizes of the caller are applied.

    Attributes
    ----------
    parts
        One array per position.
    axes
        One letter per axis of a part, in its own order; None where nothing is known.
    channels, pixel_size, positions, warnings
        As in `ImageStack`; empty or None where the file does not say.
    colour
        Whether three samples are red, green and blue.
    alpha
        Whether the last sample is alpha; None: it is where there are four samples.
    close
        Closes the file; None where there is nothing to close.
    """

    parts: tuple[ArrayLike, ...]
    axes: str | None
    channels: tuple[str, ...] = ()
    pixel_size: float | None = None
    positions: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    colour: bool = True
    alpha: bool | None = False
    close: Callable[[], None] | None = None


def only_planes(image: ImageStack, name: str) -> ImageStack:
    """Limit an image to some of its planes; nothing is read, and the planes keep their numbers and names.

    Parameters
    ----------
    image
        Any image. Closing the image that is returned closes this one.
    name
        A name such as "P0 T3", as `ImageStack.plane_name` writes it. "P3" means all T and Z of position 3, and an empty
        name means all planes.

    Returns
    -------
    ImageStack
        The same image, limited to these planes.

    Raises
    ------
    ImageError
        The name is not understood, or the image has no such plane.
    """
    only = PlaneChoice.read(name)
    missing = [
        f"{axis}{number}"
        for axis, number, own in zip("PTZ", only, image.only, strict=True)
        if number is not None and not (own in (None, number) and axis in image.axes and number < image.sizes[axis])
    ]
    if missing:
        raise ImageError(f"{image.path or image.name} has no plane {' '.join(missing)}; {_which_planes(image)}")
    both = (own if number is None else number for number, own in zip(only, image.only, strict=True))
    return replace(image, only=PlaneChoice(*both))


def _which_planes(image: ImageStack) -> str:
    """Say which planes the image has along each of P, T and Z."""
    last = {axis: image.sizes[axis] - 1 for axis in "PTZ" if axis in image.axes}
    own = dict(zip("PTZ", image.only, strict=True))
    ranges = [f"{axis}{own[axis]}" if own[axis] is not None else f"{axis}0" + f" to {axis}{n}" * (n > 0)
              for axis, n in last.items()]  # fmt: skip
    return f"there are {', '.join(ranges)}" if ranges else "it is a single plane: name none"


@contextmanager
def translated(message: str, advice: str = "") -> Iterator[None]:
    """Turn what readers and decoders raise into an `ImageError`: `message`, the reason, and what to do."""
    try:
        yield
    except MemoryError as exc:
        raise ImageError(f"{message}: there is too little memory for it; close other programs, or give a smaller "
                         "image") from exc  # fmt: skip
    except foreign_errors() as exc:
        raise ImageError("; ".join([f"{message}: {reason(exc)}", *([advice] if advice else [])])) from exc


def foreign_errors() -> tuple[type[Exception], ...]:
    """Return the errors to translate; older versions of tifffile have one that is not a ValueError."""
    tifffile = sys.modules.get("tifffile")
    return FOREIGN if tifffile is None else (*FOREIGN, tifffile.TiffFileError)


def reason(exc: BaseException) -> str:
    """Return the first line of an error, or the name of its class where it has no text."""
    lines = str(exc).strip().splitlines()
    return lines[0][:200] if lines and lines[0] else type(exc).__name__


def _ranges_to_read(channels: Sequence[int]) -> list[range]:
    """Group channels into ranges to read at once: one range if they rise in even steps, else one for each channel."""
    steps = {b - a for a, b in pairwise(channels)} or {1}
    if len(steps) == 1 and min(steps) > 0:
        return [range(channels[0], channels[-1] + 1, min(steps))]
    return [range(channel, channel + 1) for channel in channels]
