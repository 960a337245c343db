"""Open an image of any usual kind lazily, with its axes, channel names and pixel size; read one plane at a time.

Decisions:

- The axes of an `ImageStack` always stand in the order P (position) T Z C Y X, whatever the order on disk. Colour
  samples (S) become channels; where both exist, every channel has its samples: "GFP red", "GFP green", ...
- What cannot be known is asked for, never guessed: a stack of unnamed pages may be channels, time or depth.
- TIFF pixels in one uncompressed run are memory-mapped, so that a window costs a window; all others are read strip by
  strip or tile by tile through tifffile's zarr store. That store returns zeros for data that is not there. Here a
  missing page is an error when it is read; a truncated file is an error when it is opened. Tiles that the file itself
  declares empty (offset or byte count 0, as sparse TIFF writers do) read as 0 and are counted in `warnings`.
- A missing chunk of a zarr array is its fill value: the zarr specification says so, and nothing tells it from loss.
- A resolution in inches or centimetres is a pixel size only where it is plausible for a microscope and no usual
  printing resolution: 300 dpi says what a program had by default, not how large a cell is.
- OME-Zarr metadata is read as plain JSON: files that break a rule of the specification elsewhere still open.
- PNG, JPEG, BMP and GIF cannot be read in part: they are decoded when opened.
- A file stays open as long as its image's `data` lives, or until `close()`.
"""

from __future__ import annotations

import lzma
import math
import operator
import os
import re
import struct
import sys
import unicodedata
import weakref
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import cache, cached_property, reduce
from importlib import import_module
from itertools import pairwise, product
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, Self, TypeAlias, get_args
from xml.etree import ElementTree

import numpy as np

from napari_milcnn.errors import ImageError, OptionsError

if TYPE_CHECKING:
    from tifffile import TiffFile, TiffPageSeries
    from zarr.abc.store import ByteRequest, Store
    from zarr.core.buffer import Buffer, BufferPrototype
    from zarr.storage import WrapperStore

__all__ = [
    "ImageReading",
    "ImageStack",
    "LazyArray",
    "PlaneChoice",
    "PlaneIndex",
    "StoredAxes",
    "ZReading",
    "match_channels",
    "maximum_projection",
    "only_planes",
    "open_image",
    "plate_wells",
]

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]
ArrayLike: TypeAlias = Any  # has shape, ndim, dtype and lazy slicing: numpy, zarr, dask, LazyArray
Window: TypeAlias = tuple[int, int, int, int]
ZReading: TypeAlias = Literal["planes", "maximum"]

ORDER: Final = "PTZCYX"
COLOURS: Final = ("red", "green", "blue")
AXES_HELP: Final = "one letter per axis out of P (position), T, Z, C, Y, X and S (colour samples)"

# What readers and decoders raise at data that is broken: translated where it enters, never let through.
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

MICROMETRES: Final = {  # keys after NFKC and lower(): the micro sign is then the Greek letter
    **dict.fromkeys(("m", "meter", "metre"), 1e6),
    **dict.fromkeys(("cm", "centimeter", "centimetre"), 1e4),
    **dict.fromkeys(("mm", "millimeter", "millimetre"), 1e3),
    **dict.fromkeys(("μm", "um", "μ", "micron", "microns", "micrometer", "micrometre"), 1.0),
    **dict.fromkeys(("nm", "nanometer", "nanometre"), 1e-3),
    **dict.fromkeys(("å", "angstrom"), 1e-4),
    **dict.fromkeys(("pm", "picometer", "picometre"), 1e-6),
    **dict.fromkeys(("in", "inch", "inches", '"'), 25400.0),
}
PRINTING_DPI: Final = (72, 75, 90, 96, 100, 120, 144, 150, 180, 200, 240, 300, 350, 360, 400, 600, 720, 800, 1200, 1440)

TIFF_MAGIC: Final = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
TIFF_SUFFIXES: Final = (".tif", ".tiff", ".btf", ".tf8")
RASTER_MAGIC: Final = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8")
RASTER_SUFFIXES: Final = (".png", ".jpg", ".jpeg", ".bmp", ".gif")


class PlaneIndex(NamedTuple):
    """Where a plane stands along the axes P, T and Z; 0 along an axis that the image does not have."""

    position: int
    t: int
    z: int


class PlaneChoice(NamedTuple):
    """Planes that are meant: those at these numbers along the axes P, T and Z, at every number where there is None."""

    position: int | None = None
    t: int | None = None
    z: int | None = None

    @classmethod
    def read(cls, name: str) -> PlaneChoice:
        """Read a name such as "P0", "T3" or "P0 T3 Z1"; an empty one means every plane.

        Raises
        ------
        ImageError
            It is no such name.
        """
        numbers = {part[:1].upper(): part[1:] for part in name.split()}
        known = all(axis in "PTZ" and re.fullmatch("[0-9]{1,9}", number) for axis, number in numbers.items())
        if not known or len(numbers) < len(name.split()):
            raise ImageError(f"the plane {name!r} is not understood; expected a name such as P0, T3 or P0 T3 Z1")
        return cls(*(int(numbers[axis]) if axis in numbers else None for axis in "PTZ"))

    @property
    def name(self) -> str:
        """The name, as `ImageStack.plane_name` writes it."""
        return " ".join(f"{axis}{number}" for axis, number in zip("PTZ", self, strict=True) if number is not None)


EVERY_PLANE: Final = PlaneChoice()


class StoredAxes(NamedTuple):
    """Axes as they stand on disk: one letter each ("-" to leave out), their lengths, and how many images are alike."""

    letters: str
    shape: tuple[int, ...]
    images: int


class LazyArray:
    """Read-only array in the order P T Z C Y X over arrays that are read only where they are sliced.

    Parameters
    ----------
    parts
        One array per position, all of the same shape and type; one array with or without an axis P.
    letters
        One letter per axis of a part: P T Z C Y X, S for colour samples, "-" for an axis of length 1 to leave out.
    samples
        How many colour samples are used (the alpha sample stands last and is left out).
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
        sizes = _sizes(letters, self._parts[0].shape)
        if "S" in letters:
            sizes["C"] = sizes.get("C", 1) * self._samples
        if len(self._parts) > 1:
            sizes["P"] = len(self._parts)
        self.axes: str = "".join(axis for axis in ORDER if axis in sizes)
        self.shape: tuple[int, ...] = tuple(sizes[axis] for axis in self.axes)
        self.dtype: np.dtype[Any] = np.dtype(self._parts[0].dtype)
        self._finalizer = weakref.finalize(self, close or _nothing)

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of values."""
        return math.prod(self.shape)

    def close(self) -> None:
        """Close what the array reads from; safe to call twice."""
        self._finalizer()

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f"<LazyArray {self.axes} {self.shape} {self.dtype}>"

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        if copy is False:
            raise ValueError("a LazyArray cannot become a numpy array without reading a copy")
        return np.asarray(self[...], dtype=dtype)

    def __getitem__(self, key: Any) -> Array:
        if not self._finalizer.alive:
            raise ValueError("it has been closed; open the image again")
        wanted, dropped = self._ranges(key)
        positions = wanted["P"] if len(self._parts) > 1 else range(1)
        blocks = [self._block(self._parts[p], wanted) for p in positions]
        block = np.concatenate(blocks) if blocks else self._block(self._parts[0], wanted)[:0]  # (P, T, Z, C, Y, X)
        return block[tuple(0 if axis in dropped or axis not in self.axes else slice(None) for axis in ORDER)]

    def _ranges(self, key: Any) -> tuple[dict[str, range], set[str]]:
        """Return the numbers wanted along each axis, and the axes that an integer removes."""
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
            else:
                number = range(length)[operator.index(one)]
                wanted[axis] = range(number, number + 1)
                dropped.add(axis)
        if any(numbers.step < 0 for numbers in wanted.values()):
            raise IndexError("steps backwards are not supported")
        return wanted, dropped

    def _block(self, part: ArrayLike, wanted: Mapping[str, range]) -> Array:
        """Read from one part; axes absent from it have length 1: (P, T, Z, C, Y, X)."""
        channels = wanted.get("C", range(1))
        first, last = (channels[0], channels[-1]) if channels else (0, 0)
        both = "C" in self._letters and "S" in self._letters
        steps = dict(wanted)
        if both:
            steps["C"] = range(first // self._samples, last // self._samples + 1)
            steps["S"] = range(self._samples)
        elif "S" in self._letters:
            steps["S"] = channels
        key = tuple(0 if letter == "-" else _slice(steps[letter]) for letter in self._letters)
        block = _in_order(np.asarray(part[key]), self._letters.replace("-", ""), "PTZCSYX")
        block = block.reshape(*block.shape[:3], block.shape[3] * block.shape[4], *block.shape[5:])
        if both:  # whole channels were read: keep the samples that were asked for
            block = block[:, :, :, [channel - steps["C"][0] * self._samples for channel in channels]]
        return block


@dataclass(frozen=True, eq=False, repr=False)
class ImageStack:
    """An opened image: lazy pixels, and what is known about them.

    Attributes
    ----------
    data
        The pixels, axes as in `axes`: numpy, dask or zarr array or `LazyArray`; slicing reads only the slice.
    axes
        One letter per axis of `data`, always in the order P (position) T Z C Y X, absent ones left out.
    name
        The file's stem, or "image".
    path
        The file or folder, or None for an array.
    channels
        One name per channel; "channel 0", ... where none is known.
    pixel_size
        Side of a pixel along Y and X in µm, or None where it is not known.
    position_names
        One name per position along P; empty without that axis.
    warnings
        What had to be assumed or left out, in sentences.
    channels_named
        Whether `channels` are real names, not numbers.
    stored
        The axes in the order of the file or array itself, as other programs read it.
    only
        What `planes` is limited to; `data` and `axes` are always those of the whole image.
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

    def __repr__(self) -> str:
        shape = "x".join(str(n) for n in self.shape)
        return f"<ImageStack {self.name!r} {self.axes} {shape} {self.dtype} {self.channels}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths of the axes in `axes`."""
        return tuple(int(n) for n in self.data.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the pixels, in the byte order of this machine."""
        native: np.dtype[Any] = np.dtype(self.data.dtype).newbyteorder("=")
        return native

    @property
    def sizes(self) -> dict[str, int]:
        """Length of each axis in `axes`."""
        return dict(zip(self.axes, self.shape, strict=True))

    @property
    def plane_shape(self) -> tuple[int, int]:
        """Height and width of a plane: (Y, X)."""
        return self.shape[-2], self.shape[-1]

    @cached_property
    def planes(self) -> tuple[PlaneIndex, ...]:
        """Every combination of P, T and Z, in this order, Z running fastest; those of `only`, where it says any."""
        sizes = (self.sizes.get(axis, 1) for axis in "PTZ")
        numbers = (range(n) if one is None else (one,) for n, one in zip(sizes, self.only, strict=True))
        return tuple(PlaneIndex(*at) for at in product(*numbers))

    def plane_name(self, i: int) -> str:
        """Return a name such as "P0 T3 Z1" with the axes that the image has; empty where it has none of them."""
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
            Rows and columns (y0, y1, x0, x1), the ends not included; the whole plane by default.

        Returns
        -------
        numpy.ndarray
            A new array (channels, Y, X) of the image's own type in native byte order.

        Raises
        ------
        ImageError
            The plane, a channel or the window does not exist, the pixels cannot be read, or some of them are NaN
            or infinite.
        """
        at = self._index(i)
        numbers = self._channel_numbers(channels)
        y0, y1, x0, x1 = self._inside(window)
        key: dict[str, Any] = {"P": at.position, "T": at.t, "Z": at.z, "Y": slice(y0, y1), "X": slice(x0, x1)}
        with _translated(f"{self._where(i)}: the pixels cannot be read"):
            block = self._read(key, numbers)
        self._check_finite(block, i)
        return block

    def close(self) -> None:
        """Close the file; its planes cannot be read any more. Arrays given by the caller are left as they are."""
        if self.path is not None and isinstance(self.data, LazyArray):
            self.data.close()

    def _read(self, key: Mapping[str, Any], channels: Sequence[int]) -> Array:
        """Read channels at a key of one entry per axis: (channels, Y, X)."""
        blocks = []
        for some in _runs(channels):
            at = tuple(_slice(some) if axis == "C" else key[axis] for axis in self.axes)
            block = np.asarray(self.data[at])
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
        return y0, y1, x0, x1

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
class _Found:
    """What a reader found, before the caller's wishes are looked at."""

    parts: tuple[ArrayLike, ...]  # one per position
    axes: str | None  # one letter per axis of a part, in its own order; None where nothing is known
    channels: tuple[str, ...] = ()
    pixel_size: float | None = None
    positions: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    colour: bool = True  # whether three samples are red, green and blue
    alpha: bool | None = False  # whether the last sample is alpha; None: where there are four
    close: Callable[[], None] | None = None


def open_image(
    source: Any,
    *,
    axes: str | None = None,
    channels: Sequence[str] | None = None,
    pixel_size: float | None = None,
    series: int | None = None,
) -> ImageStack:
    """Open an image without reading its pixels.

    Parameters
    ----------
    source
        Path of a TIFF, OME-TIFF, OME-Zarr, zarr, PNG, JPEG, BMP or GIF image, or of any format that an installed
        bioio reader knows; or a numpy, dask or zarr array; or an `ImageStack`.
    axes
        One letter per axis of the array or file, in its own order: P (position) T Z C Y X, S for colour samples.
        Wins over what the file says; needed where nothing does, unless there are just the axes Y and X.
    channels
        One name per channel; wins over the file's names.
    pixel_size
        Side of a pixel along Y and X in µm; wins over the file's.
    series
        Which image to open, from 0, where a file holds several. By default images of equal axes, shape and type are
        the positions of one `ImageStack`.

    Returns
    -------
    ImageStack
        The image; it is a context manager and closes its file when no longer used.

    Raises
    ------
    ImageError
        The image does not exist, is damaged or of an unknown kind, its axes are not known, or a parameter does not
        fit it.
    """
    if isinstance(source, ImageStack):
        return _adapted(source, axes, channels, pixel_size, series)
    if not isinstance(source, str | os.PathLike):
        found, path = _from_array(source, series), None
    else:
        path = _existing(source)
        with _translated(f"{path} cannot be opened as an image"):
            found = _reader(path)(path, series)
    with ExitStack() as stack:
        stack.callback(found.close or _nothing)
        image = _assemble(found, path, axes, channels, pixel_size)
        stack.pop_all()
    return image


@dataclass(frozen=True)
class ImageReading:
    """How files are opened that do not say it themselves: the keywords of `open_image`, for many files.

    With `z` "maximum" each Z stack is one plane, its maximum projection; with "planes" each of its planes stands alone.
    """

    axes: str | None = None
    channels: tuple[str, ...] | None = None
    pixel_size: float | None = None
    series: int | None = None
    z: ZReading = "planes"

    def __post_init__(self) -> None:
        if self.pixel_size is not None and not 0 < self.pixel_size < math.inf:
            raise OptionsError(f"pixel_size is {self.pixel_size}; expected µm per pixel, a number above 0")
        if self.series is not None and self.series < 0:
            raise OptionsError(f"series is {self.series}; expected 0 or more")
        if self.z not in get_args(ZReading):
            raise OptionsError(f"z is {self.z!r}; expected one of {_listed(get_args(ZReading))}")

    def open(self, path: Path) -> ImageStack:
        """Open one image."""
        image = open_image(path, axes=self.axes, channels=self.channels, pixel_size=self.pixel_size, series=self.series)
        return maximum_projection(image) if self.z == "maximum" else image


AS_THEY_SAY: Final = ImageReading()
"""Files say themselves how they are to be read."""


def maximum_projection(image: ImageStack) -> ImageStack:
    """Project an image along Z: each pixel is the largest of its Z stack.

    Nothing is read before a plane is: then its own Z stack alone, or the same window of it, one Z after another.

    Parameters
    ----------
    image
        Any image; closing its projection closes it.

    Returns
    -------
    ImageStack
        The same image without the axis Z; the image itself where it has none.
    """
    if "Z" not in image.axes:
        return image
    only = image.only._replace(z=None)
    return replace(image, data=_Projected(image), axes=image.axes.replace("Z", ""), only=only)


def only_planes(image: ImageStack, name: str) -> ImageStack:
    """Limit an image to some of its planes; nothing is read, and the planes keep their numbers and names.

    Parameters
    ----------
    image
        Any image; closing what is returned closes it.
    name
        A name such as "P0 T3" as `ImageStack.plane_name` writes it; one that names fewer axes means every plane there
        ("P3": all T and Z of position 3), an empty one all planes.

    Returns
    -------
    ImageStack
        The same image with these planes.

    Raises
    ------
    ImageError
        The name is not understood, or there is no such plane.
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
    """Say which planes there are, along each of P, T and Z."""
    last = {axis: image.sizes[axis] - 1 for axis in "PTZ" if axis in image.axes}
    own = dict(zip("PTZ", image.only, strict=True))
    ranges = [f"{axis}{own[axis]}" if own[axis] is not None else f"{axis}0" + f" to {axis}{n}" * (n > 0)
              for axis, n in last.items()]  # fmt: skip
    return f"there are {_listed(ranges)}" if ranges else "it is a single plane: name none"


def match_channels(wanted: Sequence[str], image: ImageStack) -> tuple[tuple[int, ...], str | None]:
    """Find a model's channels in an image.

    Names are compared without regard to case, spaces, hyphens and underscores. If they do not all occur but the counts
    are equal, channels are taken by order, unless that would contradict a name that does occur.

    Parameters
    ----------
    wanted
        Names of the model's channels.
    image
        The image.

    Returns
    -------
    numbers
        For each wanted channel, its number in the image.
    warning
        A sentence that shows the mapping where it rests on order alone, else None.

    Raises
    ------
    ImageError
        The channels do not match.
    """
    plain = [_plain(name) for name in wanted]
    there = [_plain(name) for name in image.channels]
    unique = all(count == 1 for count in Counter(plain).values())
    named = image.channels_named or len(plain) == len(there)
    if named and unique and all(there.count(name) == 1 for name in plain):
        return tuple(there.index(name) for name in plain), None
    crossed = any(a != b and a in there for a, b in zip(plain, there, strict=False))
    if len(plain) != len(there) or (unique and crossed):
        raise ImageError(
            f"{image.path or image.name} has the channels {_listed(image.channels)}, but the model needs "
            f"{_listed(wanted)}; name the image's channels in their order, with the model's names where they are "
            'the same, by channels=["..."] (command line: --channels)'
        )
    numbers = tuple(range(len(plain)))
    if len(plain) == 1 and not image.channels_named:
        return numbers, None
    mapping = ", ".join(f"{a} = {b}" for a, b in zip(wanted, image.channels, strict=True))
    return numbers, (
        f"{image.path or image.name}: the channels are taken by their order, not by name "
        f"(model = image: {mapping}); name them by channels= (command line: --channels) if this is wrong."
    )


class _Projected(LazyArray):
    """The maximum along Z of an image's data."""

    def __init__(self, image: ImageStack) -> None:
        super().__init__([_AlongZ(image)], image.axes.replace("Z", ""))
        self._image = image

    def close(self) -> None:
        super().close()
        self._image.close()


class _AlongZ:
    """One part of a `LazyArray`, whose keys have an entry for every axis but Z."""

    def __init__(self, image: ImageStack) -> None:
        self._data, self._depth, self._at = image.data, image.sizes["Z"], image.axes.index("Z")
        self.shape = (*image.shape[: self._at], *image.shape[self._at + 1 :])
        self.dtype = image.dtype

    def __getitem__(self, key: tuple[Any, ...]) -> Array:
        before, behind = key[: self._at], key[self._at :]
        return reduce(np.maximum, (np.asarray(self._data[(*before, z, *behind)]) for z in range(self._depth)))


# From what was found and what is wanted to an ImageStack.


def _assemble(
    found: _Found,
    path: Path | None,
    axes: str | None,
    channels: Sequence[str] | None,
    pixel_size: float | None,
) -> ImageStack:
    who = str(path or "the array")
    shape = tuple(int(n) for n in found.parts[0].shape)
    _check_pixels(found.parts[0].dtype, shape, who)
    letters = _resolve_axes(found.axes, shape, axes, who)
    if len(found.parts) > 1 and "P" in letters:
        raise ImageError(f"{who}: holds {len(found.parts)} images with an axis P each; choose one by series=0, ...")
    sizes = _sizes(letters, shape)
    all_samples = sizes.get("S", 1)
    keep_alpha = channels is not None and len(_as_names(channels)) == sizes.get("C", 1) * all_samples
    drop = (all_samples == 4 if found.alpha is None else found.alpha and all_samples > 1) and not keep_alpha
    samples = all_samples - drop
    names, named = _channel_names(found, sizes, samples, axes is not None)
    if channels is not None:
        names, named = _given_names(channels, len(names), who), True
    data, out_axes = _arranged(found, letters, samples)
    notes = (*found.warnings, *(["The alpha sample is left out."] if drop else []))
    return ImageStack(
        data=data,
        axes=out_axes,
        name=_name(path),
        path=path,
        channels=names,
        pixel_size=found.pixel_size if pixel_size is None else _given_size(pixel_size),
        position_names=_position_names(found, dict(zip(out_axes, data.shape, strict=True))),
        warnings=notes,
        channels_named=named,
        stored=StoredAxes(letters, shape, len(found.parts)),
    )


def _arranged(found: _Found, letters: str, samples: int) -> tuple[ArrayLike, str]:
    """Return the array in the house's order, and its axes; nothing is read."""
    array = found.parts[0]
    movable = isinstance(array, np.ndarray) or type(array).__module__.startswith("dask.")
    if len(found.parts) == 1 and letters == "".join(axis for axis in ORDER if axis in letters) and not found.close:
        return array, letters
    if len(found.parts) > 1 or not movable or ("C" in letters and "S" in letters):
        lazy = LazyArray(found.parts, letters, samples, found.close)
        return lazy, lazy.axes
    key = tuple({"-": 0, "S": slice(0, samples)}.get(letter, slice(None)) for letter in letters)
    kept = letters.replace("-", "").replace("S", "C")
    out = "".join(axis for axis in ORDER if axis in kept)
    return array[key].transpose([kept.index(axis) for axis in out]), out


def _adapted(
    image: ImageStack,
    axes: str | None,
    channels: Sequence[str] | None,
    pixel_size: float | None,
    series: int | None,
) -> ImageStack:
    """Return an opened image as it is, but for the names and the pixel size given."""
    if axes is not None or series is not None:
        raise ImageError(f"{image.name} is already opened; give axes= and series= where it is opened first")
    if channels is not None:
        names = _given_names(channels, len(image.channels), image.name)
        image = replace(image, channels=names, channels_named=True)
    return image if pixel_size is None else replace(image, pixel_size=_given_size(pixel_size))


def _check_pixels(dtype: Any, shape: tuple[int, ...], who: str) -> None:
    try:
        kind = np.dtype(dtype)
    except TypeError:
        kind = np.dtype(object)
    if kind.kind not in "buif" or kind.itemsize > 8:
        raise ImageError(
            f"{who}: the pixels are of type {dtype}; expected whole numbers, float16/32/64 or bool; convert them first "
            "(for complex data, for example, take numpy.abs)"
        )
    if 0 in shape:
        raise ImageError(f"{who}: shape {shape} holds no pixels; every axis must have at least length 1")


def _resolve_axes(found: str | None, shape: tuple[int, ...], asked: str | None, who: str) -> str:
    """Return one letter per axis, "-" for an axis of length 1 to leave out.

    Parameters
    ----------
    found
        One letter per axis out of the file's metadata, or None.
    shape
        Lengths of the axes.
    asked
        What the caller says, or None.
    who
        Whose axes they are, for messages.

    Raises
    ------
    ImageError
        The caller's axes do not fit, or the axes cannot be known.
    """
    if len(shape) < 2:
        raise ImageError(f"{who}: shape {shape} is no image; expected at least the axes Y and X")
    if asked is not None:
        return _checked_axes(asked, shape, who)
    letters = found.upper() if found else "?" * (len(shape) - 2) + "YX"
    letters = "".join(_known_letter(letter, n) for letter, n in zip(letters, shape, strict=True))
    if "?" in letters or not {"Y", "X"} <= set(letters) or _repeats(letters):
        said = f" with the axes {found}" if found else ""
        examples = " or ".join(f'axes="{example}"' for example in _examples(letters, shape))
        first = _examples(letters, shape)[0]
        raise ImageError(
            f"{who}: shape {shape}{said} does not tell which axis is which; say it, {AXES_HELP}: "
            f"for example {examples} (command line: --axes {first})"
        )
    return letters


def _known_letter(letter: str, length: int) -> str:
    if length == 1 and letter not in ORDER:
        return "-"
    return letter if letter in ORDER + "S" else "?"


def _checked_axes(asked: str, shape: tuple[int, ...], who: str) -> str:
    letters = asked.upper()
    if len(letters) != len(shape):
        raise ImageError(
            f'{who}: axes="{asked}" names {len(letters)} axes, but there are {len(shape)}, of shape {shape}; '
            f"give {AXES_HELP}"
        )
    if set(letters) - set(ORDER + "S") or not {"Y", "X"} <= set(letters) or _repeats(letters):
        raise ImageError(f'{who}: axes="{asked}" is not understood; give {AXES_HELP}, each once, Y and X among them')
    return letters


def _repeats(letters: str) -> bool:
    named = letters.replace("-", "").replace("?", "")
    return len(set(named)) < len(named)


def _examples(letters: str, shape: tuple[int, ...]) -> list[str]:
    """Return one or two axes strings that would fit."""
    if not {"Y", "X"} <= set(letters) or _repeats(letters):
        letters = "?" * (len(shape) - 2) + "YX"
    gaps = [i for i, letter in enumerate(letters) if letter in "?-"]
    examples = ["YXS"] if len(shape) == 3 and shape[-1] in (3, 4) else []
    for pool in ("PTZC", "PZT" if len(gaps) == 1 else "PTC"):
        free = [letter for letter in pool if letter not in letters][-len(gaps) :]
        if len(free) == len(gaps):
            filled = dict(zip(gaps, free, strict=True))
            examples.append("".join(filled.get(i, letter) for i, letter in enumerate(letters)))
    return examples[:2] or ["PTZCYX"]


def _channel_names(found: _Found, sizes: Mapping[str, int], samples: int, asked: bool) -> tuple[tuple[str, ...], bool]:
    """Return one name per channel and whether they are real names."""
    count = sizes.get("C", 1)
    total = count * samples
    known = found.channels if len(found.channels) in (count, total) and any(found.channels) else ()
    if "S" in sizes and samples > 1:
        colour = samples == 3 and (found.colour or asked)
        parts = COLOURS if colour else tuple(f"sample {i}" for i in range(samples))
        if count > 1 and len(known) == count:
            return tuple(f"{name or f'channel {i}'} {part}" for i, name in enumerate(known) for part in parts), True
        if count > 1 and colour and not known:
            return tuple(f"channel {i} {part}" for i in range(count) for part in parts), False
        if count == 1 and colour:
            return COLOURS, True
    if len(known) == total:
        return tuple(name or f"channel {i}" for i, name in enumerate(known)), any(map(_is_name, known))
    return tuple(f"channel {i}" for i in range(total)), False


def _is_name(name: str) -> bool:
    """Whether a channel name says more than a number, such as "0", "Ch1" or "Channel:0:1"."""
    return bool(name) and re.fullmatch(r"(channel|chan|ch|c)?[ _#:-]*\d+([ _:/-]\d+)*", name.casefold()) is None


def _as_names(channels: Sequence[str]) -> tuple[str, ...]:
    return (channels,) if isinstance(channels, str) else tuple(str(name) for name in channels)


def _given_names(channels: Sequence[str], count: int, who: str) -> tuple[str, ...]:
    names = _as_names(channels)
    if len(names) != count:
        plural = "channel" if count == 1 else "channels"
        raise ImageError(f"{who} has {count} {plural}, but channels= names {len(names)}: {_listed(names)}; name each")
    return names


def _given_size(pixel_size: float) -> float:
    if not 0 < pixel_size < math.inf:
        raise ImageError(f"pixel_size={pixel_size} is no size; give the side of a pixel in µm, for example 0.65")
    return float(pixel_size)


def _position_names(found: _Found, sizes: Mapping[str, int]) -> tuple[str, ...]:
    names = tuple(f"position {i}" for i in range(sizes.get("P", 0)))
    return found.positions if len(found.positions) == len(names) else names


def _name(path: Path | None) -> str:
    """Return the stem of a file, without ".ome" too; an image inside a zarr is named after both."""
    if path is None:
        return "image"
    inside: list[str] = []
    outer = path
    while outer.is_dir() and outer.suffix not in (".zarr", ".ngff") and outer.parent != outer:
        inside.insert(0, outer.name)
        outer = outer.parent
    if outer.suffix not in (".zarr", ".ngff"):
        outer, inside = path, []
    return "_".join([outer.stem.removesuffix(".ome"), *inside])


# Readers: each returns what it found.


def _from_array(array: ArrayLike, series: int | None) -> _Found:
    if not all(hasattr(array, need) for need in ("shape", "ndim", "dtype", "__getitem__")):
        raise ImageError(f"an image is a path or a numpy, dask or zarr array; found {type(array).__name__}")
    if series is not None:
        raise ImageError(f"series={series} was asked for, but an array is one image; leave series= out")
    axes = _zarr_dims(array)
    return _Found((array,), axes or _only_plane(array.shape), alpha=None)


def _only_plane(shape: Sequence[int]) -> str | None:
    """Return the axes of an array that holds a single plane, else None."""
    return "-" * (len(shape) - 2) + "YX" if len(shape) >= 2 and all(n == 1 for n in shape[:-2]) else None


def _existing(source: str | os.PathLike[str]) -> Path:
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", str(source)):
        raise ImageError(
            f"{source} is a remote address; only local files are opened: download it first, or open it with zarr or "
            "dask and pass the array"
        )
    try:
        path = Path(source).expanduser()
        status = path.stat()
    except (OSError, RuntimeError, ValueError) as exc:
        raise ImageError(f"{source}: there is no such file or folder that can be read ({_reason(exc)})") from exc
    if not path.is_dir() and status.st_size == 0:
        raise ImageError(f"{path} is empty (0 bytes); expected an image; copy or export it again")
    return path


def _reader(path: Path) -> Callable[[Path, int | None], _Found]:
    """Choose by the first bytes of a file, not by its name; its name where they say nothing."""
    if path.is_dir():
        return _open_zarr
    with path.open("rb") as file:
        head = file.read(4)
    suffix = path.suffix.lower()
    if head in TIFF_MAGIC:
        return _open_tiff
    if head.startswith(RASTER_MAGIC) or (suffix == ".bmp" and head.startswith(b"BM")):
        return _open_raster
    if suffix in TIFF_SUFFIXES + RASTER_SUFFIXES:
        raise ImageError(
            f"{path} is not an image: its name ends in {suffix}, but its content is none of TIFF, PNG, JPEG, BMP and "
            "GIF; copy or export it again"
        )
    return _open_other


# TIFF


class _Gaps(NamedTuple):
    """How many pages are missing of all, and how many strips or tiles the file declares empty."""

    missing: int
    pages: int
    empty: int
    pieces: int

    def notes(self) -> list[str]:
        notes = []
        if self.missing:
            notes.append(f"{self.missing} of {self.pages} pages are missing: reading them is an error.")
        if self.empty:
            notes.append(f"{self.empty} of {self.pieces} strips or tiles are declared empty: they read as 0.")
        return notes


def _open_tiff(path: Path, series: int | None) -> _Found:
    from tifffile import TiffFile

    with ExitStack() as stack:
        tif = stack.enter_context(TiffFile(path))
        every = tif.series
        _check_header(path, tif, every)
        chosen = _choose(path, every, series)
        gaps = [_check_data(path, one) for one in chosen]
        parts = tuple(_tiff_part(one, gap, stack) for one, gap in zip(chosen, gaps, strict=True))
        first = chosen[0]
        names, size, more = _tiff_facts(tif, first, every)
        mapped = all(isinstance(part, np.memmap) for part in parts)
        page = first.keyframe
        return _Found(
            parts=parts,
            axes=first.axes.replace("R", "P") if first.kind in ("mmstack", "ndtiff") else first.axes,
            channels=names,
            pixel_size=size,
            positions=_unique_names(chosen),
            warnings=(*(note for gap in gaps for note in gap.notes()), *more),
            colour=int(page.photometric) in (2, 6),
            alpha=any(int(extra) in (1, 2) for extra in page.extrasamples),
            close=None if mapped else stack.pop_all().close,
        )


def _choose(path: Path, every: Sequence[TiffPageSeries], series: int | None) -> list[TiffPageSeries]:
    """Return the image asked for, or all of them where they are alike."""
    if not every:
        raise ImageError(f"{path} holds no image; expected at least one page with pixels; copy or export it again")
    listed = "; ".join(f"{i}: {one.name!r} {one.axes} {one.shape}" for i, one in enumerate(every))
    if series is not None:
        if not 0 <= series < len(every):
            raise ImageError(f"{path}: series={series} does not exist; choose one of {listed}")
        return [every[series]]
    if len({(one.axes, one.shape, one.dtype) for one in every}) > 1:
        raise ImageError(f"{path} holds {len(every)} images that differ; choose one by series=0, ...: {listed}")
    return list(every)


def _unique_names(chosen: Sequence[TiffPageSeries]) -> tuple[str, ...]:
    names = tuple(one.name for one in chosen)
    return names if all(names) and len(set(names)) == len(names) else ()


def _check_header(path: Path, tif: TiffFile, every: Sequence[TiffPageSeries]) -> None:
    """Refuse a file whose header promises more than the file holds."""
    if not every or every[0].kind not in ("shaped", "ome", "imagej", "uniform", "generic"):
        return  # formats with their own rules for pages
    if every[0].kind in ("uniform", "generic") and _promised(tif) > len(tif.pages) * tif.pages.first.size:
        raise ImageError(f"{path} is truncated or damaged: its header describes more data than there is; copy it again")
    kind, file = tif.tiff, tif.filehandle
    file.seek(tif.pages[-1].offset)
    (tags,) = struct.unpack(kind.tagnoformat, file.read(kind.tagnosize))
    file.seek(tags * kind.tagsize, 1)
    (following,) = struct.unpack(kind.offsetformat, file.read(kind.offsetsize))
    if following:
        raise ImageError(
            f"{path} is truncated or damaged: after {len(tif.pages)} pages the next one cannot be read; copy it again"
        )


def _promised(tif: TiffFile) -> int:
    """Return how many values the header describes, 0 where it does not say."""
    if tif.is_shaped and tif.shaped_metadata:
        return math.prod(tif.shaped_metadata[0]["shape"])
    if tif.is_imagej and tif.imagej_metadata:
        images = math.prod(int(tif.imagej_metadata.get(each, 1)) for each in ("frames", "slices", "channels"))
        return images * math.prod(tif.pages.first.shape[:2])
    return 0


def _check_data(path: Path, series: TiffPageSeries) -> _Gaps:
    """Refuse a file that ends before its pixels do; count what is not there."""
    if series.dataoffset:
        _check_end(path, series.dataoffset + series.nbytes, series.keyframe.parent.filehandle.size)
        return _Gaps(0, len(series), 0, 1)
    missing = empty = total = 0
    for page in series:
        if page is None:
            missing += 1
            continue
        pieces = list(zip(page.dataoffsets, page.databytecounts, strict=False))
        _check_end(path, max((a + b for a, b in pieces), default=0), page.parent.filehandle.size)
        expected = math.prod(page.chunked)
        total += expected
        empty += expected - sum(1 for a, b in pieces if a and b)
    if empty >= total:
        raise ImageError(f"{path} holds no pixels: all its strips or tiles are empty; copy or export it again")
    return _Gaps(missing, len(series), empty, total)


def _check_end(path: Path, end: int, size: int) -> None:
    if end > size:
        raise ImageError(f"{path} is truncated: its pixels need {end} bytes, the file has {size}; copy it again")


def _tiff_part(series: TiffPageSeries, gaps: _Gaps, stack: ExitStack) -> ArrayLike:
    """Return a memory map where the file allows one, else a zarr array that decodes strips and tiles when read."""
    page = series.keyframe
    if series.dataoffset and page.is_memmappable and series.transform is None and not series.is_multifile:
        dtype = np.dtype(page.parent.byteorder + series.dtype.char)
        file = page.parent.filehandle.path  # in a set of files not always the one that was opened
        return np.memmap(file, dtype=dtype, mode="r", offset=series.dataoffset, shape=series.shape)
    import zarr

    store: Store = series.aszarr(level=0)
    stack.callback(store.close)
    if gaps.missing or not gaps.empty:
        store = _strict_store()(store)
    return zarr.open_array(store, mode="r", zarr_format=2)


@cache
def _strict_store() -> type[WrapperStore[Store]]:
    """Return a store that raises where another would let zarr put zeros."""
    from zarr.storage import WrapperStore

    class StrictStore(WrapperStore["Store"]):
        async def get(
            self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
        ) -> Buffer | None:
            value = await self._store.get(key, prototype, byte_range)
            if value is None and key[:1].isdigit():  # a chunk, not metadata
                raise ValueError("the page, strip or tile is missing from the file")
            return value

    return StrictStore


def _tiff_facts(
    tif: TiffFile, series: TiffPageSeries, every: Sequence[TiffPageSeries]
) -> tuple[tuple[str, ...], float | None, list[str]]:
    """Return channel names, pixel size in µm, and notes."""
    names: tuple[str, ...] = ()
    size, note = None, None
    if tif.is_ome and tif.ome_metadata:
        names, size, note = _ome_facts(tif.ome_metadata, series, every)
    elif tif.is_imagej and tif.imagej_metadata:
        names = _imagej_names(tif.imagej_metadata.get("Labels"), series)
        size, note = _resolution(series, str(tif.imagej_metadata.get("unit", "")))
    else:
        unit = series.keyframe.tags.valueof(296)
        size, note = _resolution(series, {2: "inch", 3: "cm"}.get(int(unit or 0), ""))
    notes = [note] if note else []
    photometric = int(series.keyframe.photometric)
    if photometric == 3:
        notes.append("The pixels are indices into a palette of colours; the indices are used.")
    if photometric == 0:
        notes.append("The file shows 0 as white; the values are used as they are stored.")
    return names, size, notes


def _ome_facts(
    xml: str, series: TiffPageSeries, every: Sequence[TiffPageSeries]
) -> tuple[tuple[str, ...], float | None, str | None]:
    root = ElementTree.fromstring(xml)
    binary = root.find("{*}BinaryOnly")
    if binary is not None:
        other = binary.get("MetadataFile", "another file")
        return (), None, f"This is one part of a set of files that {other} describes; its own metadata is incomplete."
    images = root.findall("{*}Image")
    alike = [image for image in images if image.get("Name") == series.name] or images
    if len(images) == len(every):
        alike = [images[every.index(series)]]
    pixels = alike[0].find("{*}Pixels") if alike else None
    if pixels is None:
        return (), None, None
    names = tuple(each.get("Name") or each.get("Fluor") or "" for each in pixels.findall("{*}Channel"))
    sides = [_float(pixels.get(f"PhysicalSize{axis}")) for axis in "YX"]
    units = [pixels.get(f"PhysicalSize{axis}Unit", "µm") for axis in "YX"]
    return names, *_pixel_size(sides, units)


def _imagej_names(labels: Any, series: TiffPageSeries) -> tuple[str, ...]:
    """Return slice labels where there is one per channel and they look like names, not like files or counts."""
    channels = dict(zip(series.axes, series.shape, strict=True)).get("C", 1)
    names = tuple(str(label).strip() for label in labels) if isinstance(labels, list | tuple) else ()
    odd = re.compile(r"[\n\t]|\.\w{3,4}\b|[czt]:\s*\d+/\d+|^$|^.{61}", re.IGNORECASE)
    if len(names) != channels or len(set(names)) < channels or any(odd.search(name) for name in names):
        return ()
    return names


def _resolution(series: TiffPageSeries, unit: str) -> tuple[float | None, str | None]:
    """Return the pixel size in µm out of the tags that hold pixels per unit."""
    per_unit = [_ratio(series.keyframe.tags.valueof(code)) for code in (283, 282)]
    micrometres = _unit(unit)
    if micrometres is None or not any(per_unit):
        return None, None
    if micrometres >= 1e4:  # inch and centimetre: often a default for printing
        dpi = next(each for each in per_unit if each) * 25400 / micrometres
        size = 25400 / dpi
        if not 0.001 < size < 100 or any(abs(dpi / usual - 1) < 1e-3 for usual in PRINTING_DPI):
            return None, None
    return _pixel_size([1 / each if each else None for each in per_unit], [unit, unit])


def _ratio(value: Any) -> float | None:
    """Return a TIFF rational (numerator, denominator) as a number, None where it is none or 0."""
    if not isinstance(value, tuple) or len(value) != 2 or not all(value):
        return None
    return float(value[0] / value[1])


# Units


def _unit(unit: str) -> float | None:
    """Return the length of a unit in µm, None for one that is no length."""
    text = unit.replace("\\u00B5", "µ").replace("\\u00b5", "µ")
    return MICROMETRES.get(unicodedata.normalize("NFKC", text).strip().lower())


def _float(text: Any) -> float | None:
    try:
        return float(text)
    except (TypeError, ValueError):
        return None


def _pixel_size(sides: Sequence[float | None], units: Sequence[str]) -> tuple[float | None, str | None]:
    """Return the side of a pixel in µm from its sides along Y and X, and a note where they differ."""
    known = []
    for side, unit in zip(sides, units, strict=True):
        micrometres = _unit(unit)
        if side is not None and micrometres is not None and 0 < side < math.inf:
            known.append(side * micrometres)
    if not known:
        return None, None
    mean = sum(known) / len(known)
    if max(known) - min(known) > 0.01 * mean:
        y, x = known
        return mean, f"The pixels are not square (Y {y:g} µm, X {x:g} µm); the mean, {mean:g} µm, is used."
    return (known[-1] if len(known) == 2 else mean), None


# Zarr and OME-Zarr


def _open_zarr(path: Path, series: int | None) -> _Found:
    if not any((path / name).is_file() for name in ("zarr.json", ".zgroup", ".zarray")):
        raise ImageError(
            f"{path} is a folder, but no OME-Zarr or zarr image (no zarr.json, .zgroup or .zarray in it); "
            "give one image, or on the command line the folder to napari-milcnn classify"
        )
    import zarr

    node: Any = zarr.open(str(path), mode="r")
    if isinstance(node, zarr.Array):
        if series is not None:
            raise ImageError(f"{path}: series={series} was asked for, but this is a single array; leave series= out")
        return _from_array(node, None)
    attributes = dict(node.attrs)
    ome: Any = attributes.get("ome", attributes)  # 0.5 and later, 0.4 and before
    if "multiscales" in ome:
        if series not in (None, 0):
            raise ImageError(f"{path}: series={series} was asked for, but this is a single image; leave series= out")
        return _ome_zarr(path, node, ome)
    if "bioformats2raw.layout" in ome:
        return _open_zarr(path / _only_image(path, node, series), None)
    raise ImageError(f"{path} is {_what_group(path, node, ome)}")


def _only_image(path: Path, node: Any, series: int | None) -> str:
    images = sorted((key for key in node.group_keys() if key.isdigit()), key=int)
    wanted = str(series) if series is not None else images[0] if len(images) == 1 else ""
    if wanted not in images:
        raise ImageError(f"{path} holds {len(images)} images; choose one by series=0, ... out of {', '.join(images)}")
    return wanted


def _what_group(path: Path, node: Any, ome: Mapping[str, Any]) -> str:
    """Say what a group without an image is, and what to open."""
    if "plate" in ome:
        wells = ome["plate"].get("wells", [])
        example = f", for example {path / wells[0]['path'] / '0'}" if wells else ""
        return f"an OME-Zarr plate of {len(wells)} wells; open one field{example}"
    if "well" in ome:
        fields = [str(each.get("path")) for each in ome["well"].get("images", [])]
        return f"a well of an OME-Zarr plate; open one of its fields: {_listed(fields)}"
    if "labels" in ome:
        return f"the group of labels of an OME-Zarr image; open the image {path.parent}, or one of {ome['labels']}"
    inside = _listed(sorted(node.keys())) or "nothing"
    return f"a zarr group without the metadata of an OME-Zarr image; open an array in it (it holds {inside})"


def plate_wells(path: Path) -> dict[str, tuple[Path, ...]] | None:
    """List the fields of an OME-Zarr plate.

    Parameters
    ----------
    path
        Any file or folder.

    Returns
    -------
    dict or None
        Path of a well in the plate, such as "B/03" -> the folders of its fields, each an image to open; None where
        `path` is no plate.

    Raises
    ------
    ImageError
        A well that the plate names cannot be read.
    """
    if not any((path / name).is_file() for name in ("zarr.json", ".zgroup")):
        return None
    plate = _ome_attributes(path).get("plate")
    if plate is None:
        return None
    with _translated(f"{path} cannot be read as an OME-Zarr plate"):
        names = [str(well["path"]) for well in plate["wells"]]
    return {name: _fields(path / name) for name in names}


def _fields(well: Path) -> tuple[Path, ...]:
    with _translated(f"{well} cannot be read as a well of an OME-Zarr plate"):
        return tuple(well / str(each["path"]) for each in _ome_attributes(well)["well"]["images"])


def _ome_attributes(path: Path) -> dict[str, Any]:
    import zarr

    with _translated(f"{path} cannot be read as OME-Zarr"):
        attributes = dict(zarr.open(str(path), mode="r").attrs)
    found: Any = attributes.get("ome", attributes)
    return dict(found) if isinstance(found, Mapping) else {}


def _ome_zarr(path: Path, node: Any, ome: Mapping[str, Any]) -> _Found:
    import zarr

    scales = ome["multiscales"][0]
    level = scales["datasets"][0]
    array = node[level["path"]]
    if not isinstance(array, zarr.Array):
        raise ImageError(f"{path}: the metadata names {level['path']} as the image, but that is no array; export again")
    axes = [each if isinstance(each, dict) else {"name": each} for each in scales.get("axes", [])]
    if not axes and array.ndim == 5:  # versions before 0.3 know no other order
        axes = [{"name": name} for name in "tczyx"]
    letters = "".join(_axis_letter(each) for each in axes) if len(axes) == array.ndim else None
    labels = [str(each.get("label") or "") for each in (ome.get("omero") or {}).get("channels") or []]
    size, note = _zarr_pixel_size(axes, [level, scales])
    notes = [note] if note else []
    if "image-label" in ome:
        notes.append("This is a label image: its values are numbers of objects, not intensities.")
    return _Found((array,), letters, channels=tuple(labels), pixel_size=size, warnings=tuple(notes))


def _axis_letter(axis: Mapping[str, Any]) -> str:
    name = str(axis.get("name", "?")).upper()
    return name if len(name) == 1 else {"channel": "C", "time": "T"}.get(str(axis.get("type")), "?")


def _zarr_pixel_size(
    axes: Sequence[Mapping[str, Any]], levels: Sequence[Mapping[str, Any]]
) -> tuple[float | None, str | None]:
    """Multiply the scales of the level and of the whole image; without a unit nothing is known."""
    scale = np.ones(len(axes))
    transforms = [each for one in levels for each in one.get("coordinateTransformations") or []]
    for each in transforms:
        if each.get("type") == "scale" and len(each.get("scale", [])) == len(axes):
            scale *= np.asarray(each["scale"], dtype=float)
    sides, units = [], []
    for axis, side in zip(axes, scale, strict=True):
        if _axis_letter(axis) in "YX" and transforms:
            sides.append(float(side))
            units.append(str(axis.get("unit") or ""))
    if sides and not any(units) and sides != [1.0, 1.0]:
        return None, f"The scale {sides[-1]:g} has no unit; if it is in µm, give pixel_size={sides[-1]:g}."
    return _pixel_size(sides, units)


def _zarr_dims(array: ArrayLike) -> str | None:
    """Return the axes that a zarr array names itself (zarr v3 dimension_names, or xarray's attribute), else None."""
    metadata = getattr(array, "metadata", None)
    names = getattr(metadata, "dimension_names", None)
    if names is None and metadata is not None:
        names = dict(getattr(array, "attrs", {})).get("_ARRAY_DIMENSIONS")
    if not names or len(names) != array.ndim or None in names:
        return None
    return "".join(_axis_letter({"name": name, "type": str(name).lower()}) for name in names)


# PNG, JPEG, BMP, GIF


def _open_raster(path: Path, series: int | None) -> _Found:
    if series not in (None, 0):
        raise ImageError(f"{path}: series={series} was asked for, but such a file is one image; leave series= out")
    from PIL.Image import DecompressionBombError

    try:
        pixels, alpha = _decoded(path)
    except DecompressionBombError as exc:
        raise ImageError(f"{path} is too large for its format; save it as a tiled TIFF or OME-Zarr") from exc
    return _Found((pixels,), "YX" if pixels.ndim == 2 else "YXS", alpha=alpha)


def _decoded(path: Path) -> tuple[Array, bool]:
    """Return the pixels (Y, X) or (Y, X, samples), and whether the last sample is alpha."""
    if _is_deep_png(path):  # Pillow would cut colours of 16 bits down to 8
        from imagecodecs import png_decode

        pixels = np.asarray(png_decode(path.read_bytes()))
        return pixels, pixels.ndim == 3 and pixels.shape[-1] in (2, 4)
    import imageio.v3 as iio

    with iio.imopen(path, "r", plugin="pillow") as file:
        frames = sum(1 for _ in file.iter()) if path.suffix.lower() == ".gif" else 1
        if frames > 1:
            raise ImageError(f"{path} holds {frames} frames; only single images are read: save them as TIFF")
        mode = file.metadata(index=0).get("mode", "")
        pixels = np.asarray(file.read(index=0, **({"mode": "RGB"} if mode in ("CMYK", "YCCK") else {})))
    alpha = pixels.ndim == 3 and pixels.shape[-1] in (2, 4)
    if mode == "P" and pixels.ndim == 3 and all(np.array_equal(pixels[..., 0], pixels[..., i]) for i in (1, 2)):
        return pixels[..., 0], False  # a palette of greys
    return pixels, alpha


def _is_deep_png(path: Path) -> bool:
    """Whether a PNG has more than one sample of 16 bits (bytes 24 and 25 of its header)."""
    with path.open("rb") as file:
        head = file.read(26)
    return head.startswith(b"\x89PNG") and len(head) == 26 and head[24] == 16 and head[25] != 0


# Everything else: bioio


def _open_other(path: Path, series: int | None) -> _Found:
    suffix = path.suffix or "this file"
    advice = (
        f'for {suffix} run: pip install "napari-milcnn[bioio]", and install the bioio reader of the format '
        "(for example bioio-nd2, bioio-czi or bioio-lif), or export the image as OME-TIFF"
    )
    try:
        bioio, errors = import_module("bioio"), import_module("bioio_base.exceptions")
    except ImportError as exc:
        raise ImageError(f"{path} is none of TIFF, OME-Zarr, PNG, JPEG, BMP and GIF; {advice}") from exc
    try:
        image = bioio.BioImage(path)
    except errors.UnsupportedFileFormatError as exc:
        raise ImageError(f"{path}: no installed bioio reader knows it; {advice}") from exc
    return _from_bioio(path, image, series)


def _from_bioio(path: Path, image: Any, series: int | None) -> _Found:
    scenes = tuple(str(scene) for scene in image.scenes)
    if series is not None and not 0 <= series < len(scenes):
        raise ImageError(f"{path}: series={series} does not exist; there are {len(scenes)}: {_listed(scenes)}")
    numbers = range(len(scenes)) if series is None else [series]
    parts = []
    for number in numbers:
        image.set_scene(number)
        parts.append(image.dask_data)
    if len({(part.shape, part.dtype) for part in parts}) > 1:
        listed = "; ".join(f"{i}: {scenes[i]!r} {part.shape}" for i, part in zip(numbers, parts, strict=True))
        raise ImageError(f"{path} holds {len(parts)} images that differ; choose one by series=0, ...: {listed}")
    size, note = _pixel_size([image.physical_pixel_sizes.Y, image.physical_pixel_sizes.X], ["µm", "µm"])
    names = tuple(str(name) for name in image.channel_names or ())
    notes = (note,) if note else ()
    positions = tuple(scenes[i] for i in numbers)
    return _Found(tuple(parts), str(image.dims.order), names, size, positions, notes)


# Small things


@contextmanager
def _translated(message: str) -> Iterator[None]:
    """Turn what readers and decoders raise into an ImageError of one sentence."""
    try:
        yield
    except _foreign() as exc:
        raise ImageError(f"{message}: {_reason(exc)}") from exc


def _foreign() -> tuple[type[Exception], ...]:
    """Return the errors to translate; tifffile's own is a ValueError in its newer versions only."""
    tifffile = sys.modules.get("tifffile")
    return FOREIGN if tifffile is None else (*FOREIGN, tifffile.TiffFileError)


def _reason(exc: BaseException) -> str:
    lines = str(exc).strip().splitlines()
    return lines[0][:200] if lines and lines[0] else type(exc).__name__


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names)


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]", "", name.casefold())


def _nothing() -> None:
    return None


def _sizes(letters: str, shape: Sequence[int]) -> dict[str, int]:
    """Return the length of each named axis."""
    return {letter: int(n) for letter, n in zip(letters, shape, strict=True) if letter != "-"}


def _slice(numbers: range) -> slice:
    return slice(numbers.start, numbers.stop, numbers.step)


def _runs(channels: Sequence[int]) -> list[range]:
    """Return channels as ranges to read at once: one where they are evenly spaced and rise, else one each."""
    steps = {b - a for a, b in pairwise(channels)} or {1}
    if len(steps) == 1 and min(steps) > 0:
        return [range(channels[0], channels[-1] + 1, min(steps))]
    return [range(channel, channel + 1) for channel in channels]


def _in_order(block: Array, letters: str, order: str) -> Array:
    """Move axes into an order; those that are absent get length 1."""
    absent = "".join(axis for axis in order if axis not in letters)
    block = block.reshape(block.shape + (1,) * len(absent))
    return block.transpose([(letters + absent).index(axis) for axis in order])
