"""Open an image of any usual kind without reading its pixels; project its Z stacks.

Decisions:

- What cannot be known is asked for, never guessed: a stack of unnamed pages may be channels, time or depth.
- The first bytes of a file choose its reader, not its name: a PNG that is called .tif opens.
- Images of equal axes, shape and type in one file are positions of one `ImageStack`. Where they differ, the caller
  chooses one by `series`.
- A maximum projection reads nothing before one of its planes is read, and then only the Z stack of that plane.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path
from typing import Final, cast, get_args

import numpy as np
from numpy.typing import DTypeLike

from napari_milcnn.errors import ImageError, OptionsError
from napari_milcnn.images.channels import COLOURS, as_names, channel_names, given_names, is_grey
from napari_milcnn.images.instruments import channel_in
from napari_milcnn.images.lazy_array import ORDER, Array, ArrayLike, LazyArray, axis_sizes, do_nothing, in_memory
from napari_milcnn.images.ome_zarr import found_array, open_zarr
from napari_milcnn.images.other_formats import RASTER_MAGIC, open_other, open_raster
from napari_milcnn.images.paths import (
    RASTER_SUFFIXES,
    TIFF_INSIDE,
    TIFF_SUFFIXES,
    as_on_disk,
    files_of,
    has_zarr_metadata,
    image_name,
    is_ndtiff,
    is_zipped_zarr,
    joined_path,
    what_differs,
)
from napari_milcnn.images.stack import FoundImage, ImageStack, StoredAxes, reason, translated
from napari_milcnn.images.tiff.ndtiff import first_tiff
from napari_milcnn.images.tiff.read import TIFF_MAGIC, open_tiff
from napari_milcnn.images.units import POSSIBLE, is_possible_size
from napari_milcnn.options import ZReading
from napari_milcnn.untrusted import check_regular, short

AXES_HELP: Final = "one letter per axis out of P (position), T, Z, C, Y, X and S (colour samples)"
_MOST: Final = {"channels": 65_536, "planes": 16_777_216}
"""Channels and planes of an image at most: each has a name or a row, and metadata can say any number."""


def open_image(
    source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | ArrayLike | ImageStack,
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
        Path of a TIFF, OME-TIFF, NDTiff, OME-Zarr (a folder or one zip file), zarr, PNG, JPEG, BMP or GIF image, or
        of any format that an installed bioio reader knows; or a numpy, dask or zarr array; or an `ImageStack`. A list
        of paths, one for each channel, is one image, and so is their common path with braces: plate_B03_s1_{w1,w2}.tif.
    axes
        One letter per axis of the array or file, in its own order: P (position) T Z C Y X, and S for colour samples.
        They replace the axes in the file, and are needed where it names none, unless there are only Y and X.
    channels
        One name per channel; they replace the names in the file. Or texts that name only some channels, such as
        "DNA=DAPI": the channel DAPI of the file is called DNA. "DNA=grey" makes one channel of a colour picture, the
        mean of red, green and blue.
    pixel_size
        Side of a pixel along Y and X in µm; it replaces the size in the file.
    series
        Number of the image to open, from 0, where a file holds several. By default images of equal axes, shape and
        type are the positions of one `ImageStack`.

    Returns
    -------
    ImageStack
        The image. It is a context manager, and closes its file when it is no longer used.

    Raises
    ------
    ImageError
        The image does not exist, is damaged or of an unknown kind, its axes are not known, or a parameter does not
        fit the image.
    """
    if isinstance(source, ImageStack):
        return _adapted(source, axes, channels, pixel_size, series)
    if isinstance(source, list | tuple) and source and all(isinstance(one, str | os.PathLike) for one in source):
        source = joined_path([Path(one) for one in source])
    files = files_of(Path(source)) if isinstance(source, str | os.PathLike) else ()
    if len(files) > 1:
        assert isinstance(source, str | os.PathLike)
        return _open_field(Path(source), files, axes, channels, pixel_size, series)
    if not isinstance(source, str | os.PathLike):
        found, path = found_array(cast("ArrayLike", source), series), None
    else:
        path = existing_path(source)
        with translated(f"{path} cannot be opened as an image", "copy or export it again"):
            found = _reader(path)(path, series)
    with ExitStack() as stack:
        stack.callback(found.close or do_nothing)
        image = _assemble(found, path, axes, channels, pixel_size)
        stack.pop_all()
    return image


def _open_field(
    path: Path,
    files: Sequence[Path],
    axes: str | None,
    channels: Sequence[str] | None,
    pixel_size: float | None,
    series: int | None,
) -> ImageStack:
    """Open the files of a field, one for each channel, as one image."""
    missing = [file for file in map(as_on_disk, files) if not file.exists()]
    if missing:
        raise ImageError(
            f"{path}: {', '.join(file.name for file in missing)} {'is' if len(missing) == 1 else 'are'} missing; "
            f"expected one file for each of {len(files)} channels: {', '.join(file.name for file in files)}"
        )
    with ExitStack() as stack:
        parts = [stack.enter_context(open_image(file, axes=axes, series=series)) for file in files]
        _check_field(path, parts)
        sizes = dict.fromkeys(part.pixel_size for part in parts)
        notes = [note for part in parts for note in part.warnings]
        if len(sizes) > 1:
            listed = ", ".join("unknown" if size is None else f"{size:.4g} µm" for size in sizes)
            notes.append(f"The files of the channels state different pixel sizes ({listed}); the first one is used.")
        found = FoundImage(
            (_ChannelFiles(parts),), "C" + parts[0].axes.replace("C", ""), channels=_names_of_files(parts),
            pixel_size=next((size for size in sizes if size is not None), None),
            positions=parts[0].position_names, warnings=tuple(dict.fromkeys(notes)),
        )  # fmt: skip
        kept = stack.pop_all()
    try:
        image = _assemble(replace(found, close=kept.close), path, None, channels, pixel_size)
    except ImageError:
        kept.close()
        raise
    return image


def _check_field(path: Path, parts: Sequence[ImageStack]) -> None:
    for part in parts:
        if len(part.channels) != 1:
            what = "is a colour picture" if part.is_picture else f"has {len(part.channels)} channels"
            raise ImageError(f"{path}: {part.path} {what}; expected one channel in each file of the field")
        alike = [(one.axes.replace("C", ""), one.plane_shape, len(one.planes)) for one in (part, parts[0])]
        if alike[0] != alike[1]:
            raise ImageError(
                f"{path}: the files of the channels differ: {parts[0].path} has {len(parts[0].planes)} planes of "
                f"{' x '.join(map(str, parts[0].plane_shape))} px ({parts[0].axes}), and {part.path} has "
                f"{len(part.planes)} of {' x '.join(map(str, part.plane_shape))} px ({part.axes}); expected equal ones"
            )


def _names_of_files(parts: Sequence[ImageStack]) -> tuple[str, ...]:
    """Name channels as their files do, where all of them have names, else by the names of the files."""
    own = [part.channels[0] for part in parts]
    if all(part.channels_named for part in parts) and len(set(own)) == len(own):
        return tuple(own)
    names = [channel_in(part.path.name) if part.path else "" for part in parts]
    if not all(names) or len(set(names)) < len(names):
        names = list(what_differs([part.path for part in parts if part.path is not None]))
    return tuple(names)


class _ChannelFiles:
    """The data of images with one channel each, (channels, ...); slicing reads only the files that it needs."""

    def __init__(self, parts: Sequence[ImageStack]) -> None:
        self._parts = parts
        first = parts[0]
        self.shape = (len(parts), *(n for axis, n in first.sizes.items() if axis != "C"))
        self.dtype = np.result_type(*(part.dtype for part in parts))
        self.ndim = len(self.shape)

    def __getitem__(self, key: tuple[int | slice, ...]) -> Array:
        which, *rest = key
        numbers = range(len(self._parts))[which] if isinstance(which, slice) else [which]
        blocks = []
        for number in numbers:
            part, own = self._parts[number], list(rest)
            if "C" in part.axes:
                own.insert(part.axes.index("C"), 0)
            blocks.append(in_memory(part.data[tuple(own)]))
        return np.stack(blocks) if isinstance(which, slice) else blocks[0]


@dataclass(frozen=True)
class ImageReading:
    """The keywords of `open_image` for many files: how to open those that do not say it themselves.

    Attributes
    ----------
    axes, channels, pixel_size, series
        As in `open_image`; None leaves it to the files.
    plates
        Table that says which images share a plate or batch, and which are controls (`images.intensity.Plates`).
    pattern
        Form of the names of files that hold one channel of a field each, such as
        "{plate}_{well}_{site}_w{channel}.tif" (`images.instruments`), or "off"; by default the forms of instruments.
    z
        "planes": each plane of a Z stack is looked at alone. "maximum": each Z stack becomes one plane, its maximum
        projection.

    Raises
    ------
    OptionsError
        The pixel size, the series or `z` has an impossible value.
    """

    axes: str | None = None
    channels: tuple[str, ...] | None = None
    pixel_size: float | None = None
    series: int | None = None
    z: ZReading = "planes"
    plates: Path | None = None
    pattern: str | None = None

    def __post_init__(self) -> None:
        if self.pixel_size is not None and not is_possible_size(self.pixel_size):
            raise OptionsError(f"pixel_size is {self.pixel_size!r}; expected µm per pixel, a number from "
                               f"{POSSIBLE[0]:g} to {POSSIBLE[1]:g}")  # fmt: skip
        if self.series is not None and self.series < 0:
            raise OptionsError(f"series is {self.series}; expected 0 or more")
        if self.z not in get_args(ZReading):
            raise OptionsError(f"z is {self.z!r}; expected one of {', '.join(get_args(ZReading))}")

    def open(self, path: Path) -> ImageStack:
        """Open one image.

        Raises
        ------
        ImageError
            As `open_image` does.
        """
        image = open_image(path, axes=self.axes, channels=self.channels, pixel_size=self.pixel_size, series=self.series)
        return maximum_projection(image) if self.z == "maximum" else image


AS_THEY_SAY: Final = ImageReading()
"""The reading that leaves everything to the files."""


def maximum_projection(image: ImageStack) -> ImageStack:
    """Project an image along Z: each pixel is the largest of its Z stack.

    Nothing is read before a plane is read. Then its own Z stack is read, or the same window of it, one Z after another.

    Parameters
    ----------
    image
        Any image. Closing the projection closes this image.

    Returns
    -------
    ImageStack
        The same image without the axis Z; the image itself where it has no axis Z.
    """
    if "Z" not in image.axes:
        return image
    only = image.only._replace(z=None)
    return replace(image, data=ReducedArray(image, "Z", _largest), axes=image.axes.replace("Z", ""), only=only)


class ReducedArray(LazyArray):
    """The data of an image, reduced along one of its axes to one value for each pixel."""

    def __init__(self, image: ImageStack, axis: str, reduced: Callable[[Iterator[Array]], Array]) -> None:
        super().__init__([_Along(image, axis, reduced)], image.axes.replace(axis, ""))
        self._image = image

    def close(self) -> None:
        """Close the image that the array reads from."""
        super().close()
        self._image.close()


class _Along:
    """The only part of a `ReducedArray`: its keys have an entry for every axis but the one that is reduced."""

    def __init__(self, image: ImageStack, axis: str, reduced: Callable[[Iterator[Array]], Array]) -> None:
        self._data, self._length, self._at = image.data, image.sizes[axis], image.axes.index(axis)
        self._reduced = reduced
        self.shape = (*image.shape[: self._at], *image.shape[self._at + 1 :])
        self.ndim = len(self.shape)
        self.dtype = image.dtype

    def __getitem__(self, key: tuple[int | slice, ...]) -> Array:
        before, behind = key[: self._at], key[self._at :]
        reduced = self._reduced(in_memory(self._data[(*before, one, *behind)]) for one in range(self._length))
        whole = reduced.dtype.kind == "f" and self.dtype.kind != "f"
        return (np.rint(reduced) if whole else reduced).astype(self.dtype, copy=False)


def _largest(slices: Iterator[Array]) -> Array:
    return reduce(np.maximum, slices)


def _mean_of_colours(colours: Iterator[Array]) -> Array:
    mean: Array = reduce(np.add, (one.astype(float) for one in colours)) / len(COLOURS)
    return mean


def _check_counts(name: str, sizes: Mapping[str, int]) -> None:
    """Refuse an image that says it has more channels or planes than anything in memory could list."""
    counts = {"channels": sizes.get("C", 1) * sizes.get("S", 1)}
    counts["planes"] = math.prod(sizes.get(axis, 1) for axis in "PTZ")
    for what, count in counts.items():
        if count > _MOST[what]:
            raise ImageError(
                f"{name}: says that it has {count:,} {what}, expected at most {_MOST[what]:,}; if an axis has the "
                f"wrong name, give the axes, such as CYX or TYX; otherwise its metadata are damaged"
            )


def _assemble(
    found: FoundImage,
    path: Path | None,
    axes: str | None,
    channels: Sequence[str] | None,
    pixel_size: float | None,
) -> ImageStack:
    name = str(path or "the array")
    shape = tuple(int(n) for n in found.parts[0].shape)
    _check_pixels(found.parts[0].dtype, shape, name)
    letters = _resolve_axes(found.axes, shape, axes, name)
    if len(found.parts) > 1 and "P" in letters:
        raise ImageError(f"{name}: holds {len(found.parts)} images with an axis P each; choose one by series=0, ...")
    sizes = axis_sizes(letters, shape)
    _check_counts(name, sizes)
    all_samples = sizes.get("S", 1)
    keep_alpha = channels is not None and len(as_names(channels)) == sizes.get("C", 1) * all_samples
    drop = (all_samples == 4 if found.alpha is None else found.alpha and all_samples > 1) and not keep_alpha
    samples = all_samples - drop
    names, named = channel_names(found, sizes, samples, axes is not None)
    names = tuple(map(short, names))
    data, out_axes = _arranged(found, letters, samples)
    notes = (*found.warnings, *(["The alpha sample is left out."] if drop else []))
    image = ImageStack(
        data=data,
        axes=out_axes,
        name=image_name(path),
        path=path,
        channels=names,
        pixel_size=found.pixel_size if pixel_size is None else _given_size(pixel_size),
        position_names=_position_names(found, dict(zip(out_axes, data.shape, strict=True))),
        warnings=notes,
        channels_named=named,
        stored=StoredAxes(letters, shape, len(found.parts)),
    )
    return image if channels is None else _with_channels(image, channels, name)


def _with_channels(image: ImageStack, channels: Sequence[str], name: str) -> ImageStack:
    """Return an image with the names of channels that the caller gave, or the grey of a colour picture."""
    names = as_names(channels)
    if not (is_grey(names) and image.is_picture):
        return replace(image, channels=given_names(names, image.channels, name), channels_named=True)
    if len(image.channels) != len(COLOURS):
        raise ImageError(
            f"{name} has the channels {', '.join(image.channels)}; grey is the mean of red, green and blue"
        )
    grey = ReducedArray(image, "C", _mean_of_colours)
    return replace(
        image, data=grey, axes=grey.axes, channels=(names[0].partition("=")[0].strip(),), channels_named=True
    )


def _arranged(found: FoundImage, letters: str, samples: int) -> tuple[ArrayLike, str]:
    """Return the array with its axes in the order P T Z C Y X, and those axes; nothing is read."""
    array = found.parts[0]
    movable = isinstance(array, np.ndarray) or type(array).__module__.startswith("dask.")
    if len(found.parts) == 1 and letters == "".join(axis for axis in ORDER if axis in letters) and not found.close:
        return array, letters
    if len(found.parts) > 1 or not movable or ("C" in letters and "S" in letters):
        lazy = LazyArray(found.parts, letters, samples, found.close)
        return lazy, lazy.axes
    entries: dict[str, int | slice] = {"-": 0, "S": slice(0, samples)}
    taken = cast("Array", array[tuple(entries.get(letter, slice(None)) for letter in letters)])  # numpy or dask
    kept = letters.replace("-", "").replace("S", "C")
    out = "".join(axis for axis in ORDER if axis in kept)
    return taken.transpose([kept.index(axis) for axis in out]), out


def _adapted(
    image: ImageStack,
    axes: str | None,
    channels: Sequence[str] | None,
    pixel_size: float | None,
    series: int | None,
) -> ImageStack:
    """Return an opened image with the channel names and the pixel size that were given."""
    if axes is not None or series is not None:
        raise ImageError(f"{image.name} is already opened; give axes= and series= where it is opened first")
    if channels is not None:
        image = _with_channels(image, channels, image.name)
    return image if pixel_size is None else replace(image, pixel_size=_given_size(pixel_size))


def _check_pixels(dtype: DTypeLike, shape: tuple[int, ...], name: str) -> None:
    try:
        kind = np.dtype(dtype)
    except TypeError:
        kind = np.dtype(object)
    if kind.kind not in "buif" or kind.itemsize > 8:
        raise ImageError(
            f"{name}: the pixels are of type {dtype}; expected whole numbers, float16/32/64 or bool; convert them "
            "first (for complex data, for example, take numpy.abs)"
        )
    if 0 in shape:
        raise ImageError(f"{name}: shape {shape} holds no pixels; every axis must have at least length 1")


def _resolve_axes(found: str | None, shape: tuple[int, ...], given: str | None, name: str) -> str:
    """Return one letter per axis, "-" for an axis of length 1 to leave out.

    Parameters
    ----------
    found
        One letter per axis from the metadata of the file, or None.
    shape
        Length of each axis.
    given
        The axes that the caller gave, or None.
    name
        The image, for messages.

    Raises
    ------
    ImageError
        The axes of the caller do not fit the image, or the axes cannot be known.
    """
    if len(shape) < 2:
        raise ImageError(f"{name}: shape {shape} is not an image; expected at least the axes Y and X")
    if given is not None:
        return _checked_axes(given, shape, name)
    letters = found.upper() if found else "?" * (len(shape) - 2) + "YX"
    letters = "".join(_known_letter(letter, n) for letter, n in zip(letters, shape, strict=True))
    if "?" in letters or not {"Y", "X"} <= set(letters) or _repeats(letters):
        of_axes = f" with the axes {found}" if found else ""
        examples = " or ".join(f'axes="{example}"' for example in _examples(letters, shape))
        raise ImageError(
            f"{name}: shape {shape}{of_axes} does not tell which axis is which; name the axes, {AXES_HELP}: "
            f"for example {examples}"
        )
    return letters


def _known_letter(letter: str, length: int) -> str:
    if length == 1 and letter not in ORDER:
        return "-"
    return letter if letter in ORDER + "S" else "?"


def _checked_axes(given: str, shape: tuple[int, ...], name: str) -> str:
    letters = given.upper()
    if len(letters) != len(shape):
        raise ImageError(
            f'{name}: axes="{given}" names {len(letters)} axes, but there are {len(shape)}, of shape {shape}; '
            f"give {AXES_HELP}"
        )
    if set(letters) - set(ORDER + "S") or not {"Y", "X"} <= set(letters) or _repeats(letters):
        raise ImageError(f'{name}: axes="{given}" is not understood; give {AXES_HELP}, each once, Y and X among them')
    return letters


def _repeats(letters: str) -> bool:
    named = letters.replace("-", "").replace("?", "")
    return len(set(named)) < len(named)


def _examples(letters: str, shape: tuple[int, ...]) -> list[str]:
    """Return one or two texts for `axes` that would fit the shape."""
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


def _given_size(pixel_size: float) -> float:
    if not is_possible_size(pixel_size):
        raise ImageError(f"pixel_size={pixel_size!r} is not a size; give the side of a pixel in µm, for example 0.65; "
                         f"it can be {POSSIBLE[0]:g} to {POSSIBLE[1]:g}")  # fmt: skip
    return float(pixel_size)


def _position_names(found: FoundImage, sizes: Mapping[str, int]) -> tuple[str, ...]:
    names = tuple(f"position {i}" for i in range(sizes.get("P", 0)))
    return tuple(map(short, found.positions)) if len(found.positions) == len(names) else names


def existing_path(source: str | os.PathLike[str]) -> Path:
    """Return the path of a file or folder that is there, with ~ and the form of its accents resolved.

    Raises
    ------
    ImageError
        It is not there, or is a remote address.
    """
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", str(source)):
        raise ImageError(
            f"{source} is a remote address; only local files are opened: download it first, or open it with zarr or "
            "dask and pass the array"
        )
    try:
        path = as_on_disk(Path(source).expanduser())
        status = path.stat()
    except (OSError, RuntimeError, ValueError) as exc:
        raise ImageError(f"{source}: there is no such file or folder that can be read ({reason(exc)})") from exc
    if path.is_dir():
        return path
    try:
        check_regular(path)
    except OSError as exc:
        raise ImageError(f"{path} cannot be opened: {exc.strerror}") from exc
    if status.st_size == 0:
        raise ImageError(f"{path} is empty (0 bytes); expected an image; copy or export it again")
    return path


def _reader(path: Path) -> Callable[[Path, int | None], FoundImage]:
    """Choose the reader by the first bytes of a file, and by its name where these bytes say nothing."""
    if path.is_dir():
        return _open_acquisition if is_ndtiff(path) and not has_zarr_metadata(path) else open_zarr
    with path.open("rb") as file:
        head = file.read(4)
    suffix = path.suffix.lower()
    if head in TIFF_MAGIC:
        return open_tiff
    if head.startswith(b"PK\3\4") or is_zipped_zarr(path):
        return open_zarr
    if head.startswith(RASTER_MAGIC) or (suffix == ".bmp" and head.startswith(b"BM")):
        return open_raster
    if suffix in TIFF_SUFFIXES + TIFF_INSIDE + RASTER_SUFFIXES:
        raise ImageError(
            f"{path} is not an image: its name ends in {suffix}, but its content is not TIFF, PNG, JPEG, BMP or GIF; "
            "copy or export it again"
        )
    return open_other


def _open_acquisition(path: Path, series: int | None) -> FoundImage:
    return open_tiff(first_tiff(path), series)
