"""Planes written as OME-TIFF."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from napari_milcnn.atomic_write import replacing
from napari_milcnn.images.stack import PlaneIndex


class Pages:
    """Planes (channels, Y, X) that are made one after another while they are written."""

    dtype = np.dtype(np.uint32)

    def __init__(self, pages: Iterator[np.ndarray], plane_shape: tuple[int, int]) -> None:
        self.pages = pages
        self.shape = (-1, 2, *plane_shape)

    def __iter__(self) -> Iterator[np.ndarray]:
        return self.pages


def write_ome_tiff(
    path: Path,
    planes: Sequence[PlaneIndex],
    data: np.ndarray | Pages,
    channels: Sequence[str],
    pixel_size: float | None,
    notes: dict[str, Any],
) -> None:
    """Write planes (planes, channels, Y, X) as one OME-TIFF, a series for each position."""
    count = len({plane.position for plane in planes})
    times, depths = len({plane.t for plane in planes}), len({plane.z for plane in planes})
    pages = (channel for plane in data for channel in plane)
    facts: dict[str, Any] = {
        "axes": "TZCYX",
        "Channel": {"Name": list(channels)},
        "MapAnnotation": {"Namespace": "napari-milcnn", **{key: str(value) for key, value in notes.items()}},
    }
    if pixel_size is not None:
        facts |= {"PhysicalSizeX": pixel_size, "PhysicalSizeY": pixel_size}
        facts |= {"PhysicalSizeXUnit": "µm", "PhysicalSizeYUnit": "µm"}
    shape = (times, depths, len(channels), *data.shape[-2:])
    size = int(np.prod(shape)) * data.dtype.itemsize * count
    with replacing(path) as draft, tifffile.TiffWriter(draft, ome=True, bigtiff=size > 2**31) as tiff:
        for _ in range(count):
            part = _first(pages, times * depths * len(channels))
            tiff.write(
                part, shape=shape, dtype=data.dtype, compression="zlib", photometric="minisblack", metadata=facts
            )


def _first(pages: Iterator[np.ndarray], count: int) -> Iterator[np.ndarray]:
    for _ in range(count):
        yield np.ascontiguousarray(next(pages))
