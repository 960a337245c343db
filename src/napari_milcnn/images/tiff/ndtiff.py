"""NDTiff, the format of Micro-Manager 2 and pycro-manager: what its index file says of channels, positions and tiles.

The folder of an acquisition holds one or several TIFFs and the file NDTiff.index, which gives the place of each plane
along axes with names. tifffile reads the pixels; the names of channels and positions stand in the index only.

Decision: the tiles of a grid are positions, one after another, row by row; they are not stitched, and a sentence says
so. Tiles without any plane are left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from napari_milcnn.errors import ImageError
from napari_milcnn.images.lazy_array import ArrayLike, in_memory
from napari_milcnn.images.paths import NDTIFF_INDEX

if TYPE_CHECKING:
    from tifffile import TiffFile, TiffPageSeries

_PLACES = {"R": "position", "K": "row", "J": "column"}
"""Letter of an axis in tifffile that tells where an image was taken -> its name in the index."""


class NDTiffImage(NamedTuple):
    """What an index adds to the pixels.

    Attributes
    ----------
    parts
        One array per position, or one array that has them as an axis.
    axes
        One letter per axis of a part.
    channels, positions
        Their names; empty where the index gives numbers only.
    notes
        Sentences for `warnings`.
    """

    parts: tuple[ArrayLike, ...]
    axes: str
    channels: tuple[str, ...]
    positions: tuple[str, ...]
    notes: tuple[str, ...] = ()


def first_tiff(folder: Path) -> Path:
    """Return the first TIFF of an acquisition; tifffile finds the others from it.

    Raises
    ------
    ImageError
        The index names none, or the file is not there.
    """
    from tifffile import read_ndtiff_index

    entry = next(iter(read_ndtiff_index(folder / NDTIFF_INDEX)), None)
    if entry is None:
        raise ImageError(f"{folder / NDTIFF_INDEX} lists no image; the acquisition is damaged or was never begun")
    path = folder / Path(entry[1]).name
    if not path.is_file():
        raise ImageError(
            f"{folder} has no file {path.name}, which its {NDTIFF_INDEX} names; copy the whole folder again"
        )
    return path


def read_acquisition(tif: TiffFile, series: TiffPageSeries, array: ArrayLike) -> NDTiffImage:
    """Read the names of channels and positions, and take the tiles of a grid apart."""
    from tifffile import read_ndtiff_index

    named: dict[str, dict[str, None]] = {}
    for axes, *_ in read_ndtiff_index(Path(tif.filehandle.dirname) / NDTIFF_INDEX):
        for axis, value in axes.items():
            if isinstance(value, str):
                named.setdefault(axis, {})[value] = None
    summary = (tif.micromanager_metadata or {}).get("Summary")
    listed = summary.get("ChNames") if isinstance(summary, Mapping) else None
    channels = tuple(named.get("channel", ())) or tuple(map(str, listed if isinstance(listed, list) else ()))
    if not {"K", "J"} & set(series.axes):
        return NDTiffImage((array,), series.axes.replace("R", "P"), channels, tuple(named.get("position", ())))
    return _tiles(series, array, channels, summary if isinstance(summary, Mapping) else {})


def _tiles(
    series: TiffPageSeries, array: ArrayLike, channels: tuple[str, ...], summary: Mapping[str, object]
) -> NDTiffImage:
    letters = series.axes
    places = [i for i, letter in enumerate(letters) if letter in _PLACES]
    outer = series.shape[: len(letters) - len(series.keyframe.axes)]
    there = np.array([page is not None for page in series]).reshape(outer)
    by_tile = there.transpose([*places, *(i for i in range(len(outer)) if i not in places)])
    kept = [at for at in np.ndindex(*(outer[i] for i in places)) if by_tile[at].any()]
    names = tuple(" ".join(f"{_PLACES[letters[i]]} {n}" for i, n in zip(places, at, strict=True)) for at in kept)
    overlap = [summary.get(f"GridPixelOverlap{side}") for side in "YX"]
    said = f", which overlap by {overlap[0]} and {overlap[1]} px along Y and X," if any(overlap) else ""
    return NDTiffImage(
        tuple(_Tile(array, dict(zip(places, at, strict=True))) for at in kept),
        "".join(letter for letter in letters if letter not in _PLACES),
        channels,
        names,
        (f"The {len(kept)} tiles of a grid{said} are positions; they are not stitched.",),
    )


class _Tile:
    """An array of which some axes are fixed."""

    def __init__(self, array: ArrayLike, fixed: Mapping[int, int]) -> None:
        self._array, self._fixed = array, fixed
        self.shape = tuple(length for i, length in enumerate(array.shape) if i not in fixed)
        self.ndim = len(self.shape)
        self.dtype = array.dtype

    def __getitem__(self, key: tuple[int | slice, ...]) -> np.ndarray:
        rest = iter(key)
        whole = (self._fixed[i] if i in self._fixed else next(rest) for i in range(self._array.ndim))
        return in_memory(self._array[tuple(whole)])
