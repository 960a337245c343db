"""Images that the tests of `images` write and read back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import zarr

from napari_milcnn.images.stack import ImageStack

TCYX = np.random.default_rng(0).integers(0, 60000, (3, 2, 40, 50), dtype=np.uint16)
RGB = np.random.default_rng(1).integers(0, 255, (20, 30, 3), dtype=np.uint8)


def write_tiff(path: Path, array: np.ndarray, axes: str | None = None, **options: Any) -> Path:
    """Write with tifffile and return the path."""
    metadata = {**options.pop("metadata", {}), **({"axes": axes} if axes else {})}
    options.setdefault("photometric", "minisblack")
    tifffile.imwrite(path, array, metadata=metadata or None, **options)
    return path


def every_plane(image: ImageStack) -> np.ndarray:
    """Read all planes: (planes, channels, Y, X)."""
    return np.stack([image.plane(i) for i in range(len(image.planes))])


def bytes_read() -> int:
    """Count the bytes that this process has read by system calls."""
    return int(Path("/proc/self/io").read_text().split()[1])


def write_ome_zarr(path: Path, array: np.ndarray, version: int, **extra: Any) -> Path:
    """Write two levels, the second of half size."""
    zarr_format = 2 if version == 4 else 3
    group = zarr.open_group(path, mode="w", zarr_format=zarr_format)
    for level, data in enumerate((array, array[..., ::2, ::2])):
        chunks = (1,) * (array.ndim - 2) + (16, 16)
        zarr.create_array(path / str(level), data=data, chunks=chunks, zarr_format=zarr_format)
    kinds = {"t": "time", "c": "channel"}
    names = extra.pop("axes", "tczyx"[-array.ndim :])
    axes = [{"name": name, "type": kinds.get(name, "space")} for name in names]
    for axis in axes:
        if axis["type"] == "space" and extra.get("unit", "nanometer"):
            axis["unit"] = extra.get("unit", "nanometer")
    scale = [325.0 if name in "yx" else 1.0 for name in names]
    datasets = [
        {"path": str(i), "coordinateTransformations": [{"type": "scale", "scale": [s * f for s in scale]}]}
        for i, f in enumerate((1, 2))
    ]
    whole = [{"type": "scale", "scale": [2.0 if name in "yx" else 1.0 for name in names]}]
    labels = extra.get("labels", ["GFP", "RFP"])
    ome = {
        "multiscales": [{"axes": axes, "datasets": datasets, "coordinateTransformations": whole}],
        "omero": {"channels": [{"label": label, "color": "FF0000"} for label in labels]},
    }
    group.attrs.update({"ome": {"version": "0.5", **ome}} if version == 5 else ome)
    return path


class Watched:
    """An array of zeros that notes what is read of it."""

    shape, ndim, dtype = (2, 3, 8, 8), 4, np.dtype(np.uint8)

    def __init__(self) -> None:
        self.keys: list[Any] = []

    def __getitem__(self, key: Any) -> np.ndarray:
        self.keys.append(key)
        return np.zeros(self.shape, self.dtype)[key]
