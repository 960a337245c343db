"""Random patches of the images that a table of labels names, and their statistics.

Planes are read when they are needed; a cache of a given size keeps the last ones.
"""

from __future__ import annotations

from collections import OrderedDict

import numpy as np

from napari_milcnn.core.dataset import LabelTable
from napari_milcnn.core.errors import ImageError
from napari_milcnn.core.model import TrainedModel
from napari_milcnn.core.view import view


class PatchReader:
    """Reads patches of the images of a table through a model's eyes.

    Parameters
    ----------
    model : TrainedModel
        Gives channels and pixel size.
    table : LabelTable
        Which images. Every plane of an image carries the image's labels.
    cache : float
        GiB of images kept in memory once read.
    """

    def __init__(self, model: TrainedModel, table: LabelTable, cache: float = 1.0) -> None:
        self.model = model
        self.table = table
        self._room = int(cache * 2**30)
        self._kept: OrderedDict[tuple[int, int], np.ndarray] = OrderedDict()
        self._planes: dict[int, int] = {}

    def plane(self, index: int, plane: int) -> np.ndarray:
        """Raw intensities of one plane, (channels, Y, X), as the model sees them."""
        if (index, plane) not in self._kept:
            with self.table.reading.open(self.table.images[index].file) as image:
                self._keep((index, plane), view(self.model, image).read_raw(plane))
        self._kept.move_to_end((index, plane))
        return self._kept[index, plane]

    def planes(self, index: int) -> int:
        """Count the planes of an image."""
        if index not in self._planes:
            with self.table.reading.open(self.table.images[index].file) as image:
                self._planes[index] = len(image.planes)
        return self._planes[index]

    def patch(self, index: int, side: int, rng: np.random.Generator) -> np.ndarray:
        """Raw intensities of a random patch, (channels, side, side), of a random plane; whole for side 0.

        An image smaller than the patch is reflected outwards to its size.
        """
        raw = self.plane(index, int(rng.integers(self.planes(index))))
        if side == 0:
            return raw
        short = [max(0, side - size) for size in raw.shape[1:]]
        if any(short):
            raw = np.pad(raw, ((0, 0), *((s // 2, s - s // 2) for s in short)), mode="symmetric")
        y, x = (int(rng.integers(size - side + 1)) for size in raw.shape[1:])
        return raw[:, y : y + side, x : x + side]

    def _keep(self, key: tuple[int, int], raw: np.ndarray) -> None:
        self._kept[key] = raw
        while len(self._kept) > 1 and sum(kept.nbytes for kept in self._kept.values()) > self._room:
            self._kept.popitem(last=False)


def intensity_statistics(reader: PatchReader) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of raw intensities over a table's images, one number per channel.

    On raw intensities and over the whole set (paper, section 3.1): scaling each image by itself would remove the
    signal of a dose.

    Raises
    ------
    ImageError
        If a channel has one value throughout.
    """
    count, total, squares = 0, 0.0, 0.0
    for index in range(len(reader.table.images)):
        for plane in range(reader.planes(index)):
            raw = reader.plane(index, plane).astype(np.float64)
            count += raw[0].size
            total = total + raw.sum((1, 2))
            squares = squares + (raw**2).sum((1, 2))
    mean = np.asarray(total / count)
    std = np.sqrt(np.maximum(squares / count - mean**2, 0))
    flat = [name for name, s in zip(reader.model.channels, std, strict=True) if s == 0]
    if flat:
        raise ImageError(f"channel {', '.join(flat)} has one value in all training images; check the files")
    return tuple(mean.tolist()), tuple(std.tolist())
