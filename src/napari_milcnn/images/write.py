"""Planes written as OME-TIFF.

Decisions:

- Every position is a series of its own, with the axes T Z C Y X. Pixels are compressed with zlib, losslessly.
- A file above 2 GiB is a BigTIFF.
- Facts of our own stand in a MapAnnotation of the namespace `napari-milcnn`, which other programs ignore.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Final

import numpy as np
import tifffile

from napari_milcnn.atomic_write import replacing
from napari_milcnn.images.lazy_array import Array
from napari_milcnn.images.stack import PlaneIndex

NAMESPACE: Final = "napari-milcnn"
"""Name under which facts of our own stand in files."""
_LARGEST_TIFF: Final = 2**31
"""Bytes of pixels above which a file is a BigTIFF."""


class Pages:
    """Planes (channels, Y, X) of uint32 that are made one after another while they are written."""

    dtype = np.dtype(np.uint32)

    def __init__(self, pages: Iterator[Array], plane_shape: tuple[int, int]) -> None:
        self.pages = pages
        self.shape = (-1, 2, *plane_shape)

    def __iter__(self) -> Iterator[Array]:
        return self.pages


def write_ome_tiff(
    path: Path,
    planes: Sequence[PlaneIndex],
    data: Array | Pages,
    channels: Sequence[str],
    pixel_size: float | None,
    notes: Mapping[str, object],
) -> None:
    """Write planes as one OME-TIFF, with a series for each position.

    Parameters
    ----------
    path
        The file; it is replaced once the new one is whole.
    planes
        Places of the planes: every combination of P, T and Z, with Z running fastest.
    data
        The pixels, (planes, channels, Y, X).
    channels
        One name per channel.
    pixel_size
        Side of a pixel along Y and X in µm; None where it is not known.
    notes
        Facts of our own, written as text.

    Raises
    ------
    OutputError
        The file cannot be written; one that was there before is left as it is.
    """
    positions, times, depths = (len(set(numbers)) for numbers in zip(*planes, strict=True))
    facts: dict[str, object] = {"Channel": {"Name": list(channels)}}
    if notes:
        facts["MapAnnotation"] = {"Namespace": NAMESPACE, **{key: str(value) for key, value in notes.items()}}
    if pixel_size is not None:
        facts |= {"PhysicalSizeX": pixel_size, "PhysicalSizeY": pixel_size}
        facts |= {"PhysicalSizeXUnit": "µm", "PhysicalSizeYUnit": "µm"}
    pages = (channel for plane in data for channel in plane)
    write_series(path, pages, (positions, times, depths, len(channels), *data.shape[-2:]), data.dtype, facts)


def write_series(
    path: Path,
    pages: Iterable[Array],
    shape: tuple[int, ...],
    dtype: np.dtype[np.generic],
    facts: Mapping[str, object],
) -> None:
    """Write pages one after another as an OME-TIFF, with a series for each position.

    Parameters
    ----------
    path
        The file; it is replaced once the new one is whole.
    pages
        Pages (Y, X): every combination of P, T, Z and C, with C running fastest.
    shape
        Lengths of the axes (P, T, Z, C, Y, X).
    dtype
        Type of a pixel.
    facts
        Metadata of each series, as tifffile takes them.

    Raises
    ------
    OutputError
        The file cannot be written; one that was there before is left as it is.
    """
    positions, series = shape[0], shape[1:]
    large = math.prod(shape) * dtype.itemsize > _LARGEST_TIFF
    left = map(np.ascontiguousarray, pages)
    with replacing(path) as draft, tifffile.TiffWriter(draft, ome=True, bigtiff=large) as tiff:
        for _ in range(positions):
            tiff.write(
                islice(left, math.prod(series[:-2])),
                shape=series,
                dtype=dtype,
                compression="zlib",
                photometric="minisblack",
                metadata={"axes": "TZCYX", **facts},
            )
