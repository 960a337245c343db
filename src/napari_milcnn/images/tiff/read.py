"""TIFF, OME-TIFF, ImageJ TIFF and their relatives, read through tifffile.

Decisions:

- Pixels that lie in one uncompressed run are memory-mapped, so that reading a window costs a window. All others are
  read strip by strip or tile by tile through the zarr store of tifffile.
- That store returns zeros for data that is not there. Here a missing page is an error when it is read, and a damaged
  file is an error when it is opened (`damage`).
- ImageJ stores signed 16 bit as unsigned, with a straight line as its calibration function that takes 32768 away; the
  signed values are read. Any other calibration function is named in a sentence, and the stored values are used.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final
from xml.etree import ElementTree

import numpy as np

from napari_milcnn.errors import ImageError
from napari_milcnn.images.lazy_array import Array, ArrayLike
from napari_milcnn.images.stack import FoundImage
from napari_milcnn.images.tiff.damage import Gaps, check_data, check_header, check_plane_count, guard_decoding
from napari_milcnn.images.tiff.links import check_links
from napari_milcnn.images.tiff.ndtiff import read_acquisition
from napari_milcnn.images.tiff.pixel_size import tiff_pixel_size
from napari_milcnn.images.units import number_or_none, pixel_size_from_sides
from napari_milcnn.untrusted import short

if TYPE_CHECKING:
    from tifffile import TiffFile, TiffPageSeries
    from zarr.abc.store import ByteRequest, Store
    from zarr.core.buffer import Buffer, BufferPrototype
    from zarr.storage import WrapperStore

_STRAIGHT_LINE, _NO_FUNCTION = 0, 20
"""Numbers of ImageJ's calibration functions."""
TIFF_MAGIC: Final = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
"""First bytes of TIFF and BigTIFF, in either byte order."""


def open_tiff(path: Path, series: int | None) -> FoundImage:
    """Open a TIFF of any kind; `series` is the number of one image, or None for all where they are alike."""
    from tifffile import TiffFile

    with ExitStack() as stack:
        tif = stack.enter_context(TiffFile(path))
        check_links(path, tif)
        check_plane_count(path, tif)
        every = tif.series
        check_header(path, tif, every)
        chosen = _choose(path, every, series)
        gaps = [check_data(path, one) for one in chosen]
        parts: tuple[ArrayLike, ...] = tuple(_tiff_part(one, gap, stack) for one, gap in zip(chosen, gaps, strict=True))
        mapped = all(isinstance(part, np.memmap) for part in parts)
        first = chosen[0]
        names, size, more = _tiff_facts(tif, first, every)
        axes = first.axes.replace("R", "P") if first.kind == "mmstack" else first.axes
        positions = _unique_names(chosen)
        if first.kind == "ndtiff":
            parts, axes, names, positions, notes = read_acquisition(tif, first, parts[0])
            more += notes
        parts, more = _calibrated(parts, tif, more)
        page = first.keyframe
        return FoundImage(
            parts=parts,
            axes=axes,
            channels=names,
            pixel_size=size,
            positions=positions,
            warnings=(*(note for gap in gaps for note in gap.notes()), *more),
            colour=int(page.photometric) in (2, 6),
            alpha=any(int(extra) in (1, 2) for extra in page.extrasamples),
            close=None if mapped else stack.pop_all().close,
        )


def _choose(path: Path, every: Sequence[TiffPageSeries], series: int | None) -> list[TiffPageSeries]:
    """Return the image that was asked for, or all images where they are alike."""
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


def _tiff_part(series: TiffPageSeries, gaps: Gaps, stack: ExitStack) -> ArrayLike:
    """Return a memory map where the file allows one, else a zarr array that decodes strips or tiles as it is read."""
    page = series.keyframe
    if series.dataoffset and page.is_memmappable and series.transform is None and not series.is_multifile:
        dtype = np.dtype(page.parent.byteorder + series.dtype.char)
        file = page.parent.filehandle.path  # of a set of files, not always the one that was opened
        return np.memmap(file, dtype=dtype, mode="r", offset=series.dataoffset, shape=series.shape)
    import zarr

    guard_decoding(series)
    store: Store = series.aszarr(level=0)
    stack.callback(store.close)
    if gaps.missing or not gaps.empty:
        store = _strict_store()(store)
    return zarr.open_array(store, mode="r")  # tifffile's stores have format 2, and from 2026.5.2 on format 3


@cache
def _strict_store() -> type[WrapperStore[Store]]:
    """Return the class of a store that raises where zarr would fill in zeros."""
    from zarr.storage import WrapperStore

    class StrictStore(WrapperStore["Store"]):
        async def get(
            self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
        ) -> Buffer | None:
            value = await self._store.get(key, prototype, byte_range)
            if value is None and re.search(r"\d$", key):  # a chunk, not metadata
                raise ValueError("the page, strip or tile is missing from the file")
            return value

    return StrictStore


def _tiff_facts(
    tif: TiffFile, series: TiffPageSeries, every: Sequence[TiffPageSeries]
) -> tuple[tuple[str, ...], float | None, list[str]]:
    """Return channel names, pixel size in µm, and sentences for `warnings`."""
    names: tuple[str, ...] = ()
    size, note = None, None
    if tif.is_ome and tif.ome_metadata:
        names, size, note = _facts_from_ome_xml(tif.ome_metadata, series, every)
    elif tif.is_imagej and tif.imagej_metadata:
        names = _imagej_names(tif.imagej_metadata.get("Labels"), series)
    notes = [note] if note else []
    if size is None and not note:
        size, notes = tiff_pixel_size(tif, series, every)
    notes += _pages_left_out(tif, every)
    photometric = int(series.keyframe.photometric)
    if photometric == 3 and not _is_grey_ramp(series.keyframe.tags.valueof(320)):
        notes.append("The pixels are indices into a palette of colours; the indices are used.")
    if series.keyframe.tags.valueof(274) in range(2, 9):
        notes.append("The file asks viewers to turn or mirror it; the pixels are used as they are stored.")
    if photometric == 0:
        notes.append("The file shows 0 as white; the values are used as they are stored.")
    return names, size, notes


def _is_grey_ramp(palette: object) -> bool:
    """Whether a palette shows higher indices as brighter greys, so that the indices are what one sees."""
    values = np.asarray(palette).ravel()
    if values.dtype.kind not in "iu" or values.size % 3:
        return False
    red, green, blue = np.split(values.astype(np.int64), 3)
    return bool(np.array_equal(red, green) and np.array_equal(red, blue) and (np.diff(red) >= 0).all())


def _pages_left_out(tif: TiffFile, every: Sequence[TiffPageSeries]) -> list[str]:
    """Say that OME-XML describes fewer pages than the file has."""
    if every[0].kind != "ome" or any(one.is_multifile for one in every):
        return []
    described = sum(page is not None for one in every for page in one)
    if described >= len(tif.pages):
        return []
    return [f"The file has {len(tif.pages)} pages, its OME-XML describes {described}; the others are left out."]


class _Signed:
    """Unsigned whole numbers of which half of their range is taken away: what ImageJ means by them."""

    def __init__(self, stored: ArrayLike) -> None:
        self._stored = stored
        self._bits = 8 * np.dtype(stored.dtype).itemsize
        self.shape, self.ndim = stored.shape, stored.ndim
        self.dtype: np.dtype[np.generic] = np.dtype(f"int{self._bits}")

    def __getitem__(self, key: tuple[int | slice, ...], /) -> Array:
        stored = np.asarray(self._stored[key]).astype(f"uint{self._bits}")
        return (stored ^ (1 << (self._bits - 1))).view(self.dtype)


def _calibrated(
    parts: tuple[ArrayLike, ...], tif: TiffFile, notes: list[str]
) -> tuple[tuple[ArrayLike, ...], list[str]]:
    """Apply ImageJ's calibration function if it stands for signed numbers; else add to the notes that there is one."""
    facts = (tif.is_imagej and tif.imagej_metadata) or {}
    function = facts.get("cf", _NO_FUNCTION)
    coefficients = [number_or_none(facts.get(f"c{i}", default)) for i, default in enumerate((0, 1))]
    if function == _NO_FUNCTION or (function == _STRAIGHT_LINE and coefficients == [0, 1]):
        return parts, notes
    dtype = np.dtype(parts[0].dtype)
    if function == _STRAIGHT_LINE and dtype.kind == "u" and coefficients == [-(2 ** (8 * dtype.itemsize - 1)), 1]:
        return tuple(map(_Signed, parts)), notes
    numbers = ", ".join(f"c{i}={short(str(facts[f'c{i}']), 20)}" for i in range(6) if f"c{i}" in facts)
    unit = f" into {short(str(facts['vunit']), 40)}" if facts.get("vunit") else ""
    return parts, [
        *notes,
        f"The file has an ImageJ calibration function (cf={short(str(function), 20)}; {numbers}) that converts its "
        f"values{unit}; the values are used as they are stored.",
    ]


def _facts_from_ome_xml(
    xml: str, series: TiffPageSeries, every: Sequence[TiffPageSeries]
) -> tuple[tuple[str, ...], float | None, str | None]:
    """Return channel names, pixel size in µm, and a sentence where something is unusual, from OME-XML."""
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
    sides = [pixels.get(f"PhysicalSize{axis}") for axis in "YX"]
    units = [pixels.get(f"PhysicalSize{axis}Unit", "µm") for axis in "YX"]
    return names, *pixel_size_from_sides(sides, units)


def _imagej_names(labels: object, series: TiffPageSeries) -> tuple[str, ...]:
    """Return slice labels if there is one per channel and they look like names, not like files or counts."""
    channels = dict(zip(series.axes, series.shape, strict=True)).get("C", 1)
    names = tuple(str(label).strip() for label in labels) if isinstance(labels, list | tuple) else ()
    odd = re.compile(r"[\n\t]|\.\w{3,4}\b|[czt]:\s*\d+/\d+|^$|^.{61}", re.IGNORECASE)
    if len(names) != channels or len(set(names)) < channels or any(odd.search(name) for name in names):
        return ()
    return names
