"""Random patches of labelled images, changed at random and read ahead by threads, and the images' statistics.

Planes are read when they are needed. A cache of a given size holds those that were used last. Of a plane that is too
large for the cache only the windows of the patches are read, so a training set may be far larger than memory.
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

import numpy as np
from scipy import ndimage
from skimage.filters import threshold_otsu

from napari_milcnn.errors import ImageError, OptionsError
from napari_milcnn.images.intensity import IntensityScale
from napari_milcnn.images.stack import Window
from napari_milcnn.inference.model_input import LARGEST_ZOOM, ModelInput, model_input
from napari_milcnn.labels.groups import images_of_bags, targets_of_bags
from napari_milcnn.labels.image_checks import OnImage
from napari_milcnn.labels.table import LabelTable
from napari_milcnn.model.trained_model import TrainedModel
from napari_milcnn.options import TrainOptions
from napari_milcnn.training.augment import draw_zoom, flip_rotate, resized, vary_acquisition
from napari_milcnn.training.distributed import Processes
from napari_milcnn.training.losses import balance_of, image_weights

_BATCHES_AHEAD = 2
"""Batches read ahead of the one that is computed."""
_DRAWS = 4
"""Windows drawn for a patch before the fullest of them is taken."""
_STRIP = 2**24
"""Pixels of a plane that are measured at a time."""
_MEASURED_SIDE = 1024
"""Side, in px, of the middle of an image on which the size of its objects is measured."""
_SAMPLED_PIXELS = 2**18
"""Pixels of a plane, about, from which its foreground is estimated."""

OBJECT_SIZE = 25.0
"""Diameter of an object, px, at the scale that is measured."""
_WORTH_RESIZING = 0.85
"""Largest measured scale at which images are resized: above it the time saved is not worth the blur."""
_IMAGES_WITH_OBJECTS = 24
"""Images, at most, in which objects are measured."""
_WINDOW_OF_OBJECTS = 1024
_FEWEST_OBJECTS, _SMALLEST_OBJECT, _MOST_FOREGROUND = 3, 20, 0.5
"""An image has clear objects if it has as many of at least 20 px, on at most half of its area."""

Item = TypeVar("Item")
Made = TypeVar("Made")


class Foreground(NamedTuple):
    """The part of a plane that is bright enough to be cells.

    Attributes
    ----------
    threshold : float
        Otsu's threshold of the channel that the model finds its objects in.
    share : float
        Share of the pixels above it.
    """

    threshold: float
    share: float


@dataclass(frozen=True)
class IntensityStatistics:
    """Mean and standard deviation of raw intensities over a set of images, one number for each channel."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass
class _Facts:
    """What is known of an image once it was opened: planes, (Y, X), and whether its planes fit into the cache.

    What was measured of a plane is kept under its number.
    """

    planes: int
    shape: tuple[int, int]
    whole: bool
    foreground: dict[int, Foreground] = field(default_factory=dict)
    intensity: dict[int, IntensityScale] = field(default_factory=dict)


class PatchReader:
    """Reads patches of the images of a table as input of a model; threads may share one reader.

    Parameters
    ----------
    model : TrainedModel
        Model whose channels and pixel size the patches have, whose foreground channel shows the cells, and which says
        how intensities are scaled. Once mean and standard deviation of the training images are known, set the model
        that has them.
    table : LabelTable
        Images. Every plane of an image has the image's labels.
    cache : float
        Memory, in GiB, for planes that were already read.
    """

    def __init__(self, model: TrainedModel, table: LabelTable, cache: float = 1.0) -> None:
        self.model = model
        self.table = table
        self._cache_bytes = int(cache * 2**30)
        self._cached: OrderedDict[tuple[int, int], np.ndarray] = OrderedDict()
        self._facts: dict[int, _Facts] = {}
        self._lock = threading.Lock()
        named = model.card.foreground.channel
        self._channel = 0 if named is None else model.channels.index(named)

    def planes(self, index: int) -> int:
        """Return the number of planes of an image."""
        return self._known(index).planes

    def shape(self, index: int) -> tuple[int, int]:
        """Return (Y, X) of an image at the pixel size of the model."""
        return self._known(index).shape

    def patch(self, index: int, side: int, rng: np.random.Generator) -> np.ndarray:
        """Cut a random patch, (channels, side, side), from a random plane, scaled as the model scales it.

        The whole plane is taken for side 0.

        The window is drawn evenly over the plane. Where it holds less than half of the plane's own share of foreground
        it is drawn again, four times at most, and the one with most foreground is taken: a corner without cells does
        not show what the image's label says. An image smaller than the patch is reflected outwards to its size.
        """
        facts = self._known(index)
        plane = int(rng.integers(facts.planes))
        if side == 0 or min(facts.shape) <= side:
            raw = _cut(self._plane(index, plane), (side, side) if side else facts.shape, rng)
            return self.intensity(index, plane).apply(raw)
        best, most = None, -1.0
        wanted = self.foreground(index, plane)
        for _ in range(_DRAWS):
            y, x = (int(rng.integers(size - side + 1)) for size in facts.shape)
            window = self._window(index, plane, Window(y, y + side, x, x + side))
            share = float((window[self._channel] > wanted.threshold).mean())
            if share > most:
                best, most = window, share
            if share >= wanted.share / 2:
                break
        assert best is not None
        return self.intensity(index, plane).apply(best)

    def intensity(self, index: int, plane: int) -> IntensityScale:
        """Return what the intensities of a plane are scaled by, as `ModelInput.intensity` does."""
        fixed = self.model.fixed_intensity
        if fixed is not None:
            return fixed
        known = self._known(index).intensity
        if plane not in known:
            with self.table.open(self.table.images[index]) as image:
                known[plane] = model_input(self.model, image).intensity(plane)
        return known[plane]

    def foreground(self, index: int, plane: int) -> Foreground:
        """Estimate the part of a plane that is bright enough to be cells, from a sample of its pixels."""
        facts = self._known(index)
        if plane not in facts.foreground:
            channel = self._sample(index, plane, facts)[self._channel]
            flat = channel.min() == channel.max()
            threshold = float(channel.max() if flat else threshold_otsu(channel))
            facts.foreground[plane] = Foreground(threshold, float((channel > threshold).mean()))
        return facts.foreground[plane]

    def object_mask(self, index: int) -> np.ndarray:
        """Find what reaches half of the foreground channel's spread in the middle of a first plane, bool (Y, X)."""
        facts = self._known(index)
        y, x = (max(0, (size - _WINDOW_OF_OBJECTS) // 2) for size in facts.shape)
        height, width = (min(size, _WINDOW_OF_OBJECTS) for size in facts.shape)
        raw = self._window(index, 0, Window(y, y + height, x, x + width))
        channel = self.intensity(index, 0).apply(raw)[self._channel]
        return np.asarray(ndimage.binary_fill_holes(ndimage.gaussian_filter(channel, 1) > 0.5))

    def object_channel(self, index: int) -> np.ndarray:
        """Return the channel in which objects are found, (Y, X), of the middle of an image's middle plane."""
        facts = self._known(index)
        (y, x), side = ((size - min(size, _MEASURED_SIDE)) // 2 for size in facts.shape), _MEASURED_SIDE
        window = Window(y, min(y + side, facts.shape[0]), x, min(x + side, facts.shape[1]))
        return np.asarray(self._window(index, facts.planes // 2, window)[self._channel])

    def sums(self, index: int) -> np.ndarray:
        """Return count, sum and sum of squares of raw intensities over all planes, float64 (3, channels)."""
        facts = self._known(index)
        total = np.zeros((3, len(self.model.channels)))
        rows = max(1, _STRIP // facts.shape[1])
        for plane in range(facts.planes):
            for y in range(0, facts.shape[0], rows):
                strip = Window(y, min(y + rows, facts.shape[0]), 0, facts.shape[1])
                raw = self._window(index, plane, strip).astype(np.float64)
                total += [np.full(len(raw), raw[0].size), raw.sum((1, 2)), (raw**2).sum((1, 2))]
        return total

    def _known(self, index: int) -> _Facts:
        if index not in self._facts:
            with self.table.open(self.table.images[index]) as image:
                seen = model_input(self.model, image)
                size = len(seen.channels) * seen.shape[0] * seen.shape[1] * image.dtype.itemsize
                self._facts[index] = _Facts(len(image.planes), seen.shape, size <= self._cache_bytes // 4)
        return self._facts[index]

    def _plane(self, index: int, plane: int) -> np.ndarray:
        """Raw intensities of one plane, (channels, Y, X), from the cache where it is there."""
        with self._lock:
            if (index, plane) in self._cached:
                self._cached.move_to_end((index, plane))
                return self._cached[index, plane]
        raw = self._read(index, plane, None)
        with self._lock:
            self._cached[index, plane] = raw
            while len(self._cached) > 1 and sum(plane.nbytes for plane in self._cached.values()) > self._cache_bytes:
                self._cached.popitem(last=False)
        return raw

    def _window(self, index: int, plane: int, window: Window) -> np.ndarray:
        if self._known(index).whole:
            return self._plane(index, plane)[:, window.y0 : window.y1, window.x0 : window.x1]
        return self._read(index, plane, window)

    def _read(self, index: int, plane: int, window: Window | None) -> np.ndarray:
        with self.table.open(self.table.images[index]) as image:
            seen: ModelInput = model_input(self.model, image)
            return seen.read_raw(plane, window)

    def _sample(self, index: int, plane: int, facts: _Facts) -> np.ndarray:
        """Read about `_SAMPLED_PIXELS` pixels of a plane, (channels, Y, X): a grid, or windows of a plane too large."""
        if facts.whole:
            step = max(1, int((facts.shape[0] * facts.shape[1] / _SAMPLED_PIXELS) ** 0.5))
            return self._plane(index, plane)[:, ::step, ::step]
        side = min(256, *facts.shape)
        places = [(int(y * (facts.shape[0] - side)), int(x * (facts.shape[1] - side))) for y in (0.3, 0.7)
                  for x in (0.3, 0.7)]  # fmt: skip
        windows = [self._window(index, plane, Window(y, y + side, x, x + side)) for y, x in places]
        return np.concatenate(windows, axis=1)


def _cut(image: np.ndarray, shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Cut a random window of a shape (Y, X) from an image (channels, Y, X), reflected outwards where it is smaller."""
    if image.shape[1:] == shape:
        return image
    short = [max(0, wanted - size) for wanted, size in zip(shape, image.shape[1:], strict=True)]
    image = np.pad(image, ((0, 0), *((s // 2, s - s // 2) for s in short)), mode="symmetric")
    y, x = (int(rng.integers(size - wanted + 1)) for size, wanted in zip(image.shape[1:], shape, strict=True))
    return image[:, y : y + shape[0], x : x + shape[1]]


class Batch(NamedTuple):
    """A batch of patches, or this process's share of it.

    Attributes
    ----------
    images : ndarray
        Normalised patches, float32 (batch * fields, channels, Y, X); those of one bag follow each other.
    targets : ndarray
        1 where a bag shows a class, else 0, float32 (batch, classes).
    weights : ndarray or None
        How much each bag counts, float32 (batch,); None where all count the same.
    size : int
        Number of bags in the whole batch, over all processes.
    fields : int
        Number of patches of a bag.
    """

    images: np.ndarray
    targets: np.ndarray
    weights: np.ndarray | None
    size: int
    fields: int = 1


class TrainingBatches:
    """The batches of a training: random patches of all its bags, in another order in every epoch.

    Attributes
    ----------
    passes : int
        Number of times that an epoch goes through the table, so that it has `epoch_steps` batches at least.
    count : int
        Batches of an epoch.
    balance : str
        How classes are balanced: none, weights or sampling.

    Parameters
    ----------
    reader : PatchReader
        Reads the training images.
    options : TrainOptions
        Size of patches and batches, how patches are changed, how classes are balanced.
    processes : Processes
        Processes that share every batch.

    Raises
    ------
    OptionsError
        If the batches are too small to be shared.
    """

    def __init__(self, reader: PatchReader, options: TrainOptions, processes: Processes) -> None:
        self.reader = reader
        self._bags = images_of_bags(reader.table, options.bag)
        self.targets = targets_of_bags(reader.table, self._bags, reader.model.classes)
        size = max(1, options.batch_size // options.patches_of_bag)
        batches = _count_batches(len(self.targets), size, processes.count)
        self.passes = math.ceil(options.epoch_steps / batches)
        self.count = self.passes * batches
        self.balance = balance_of(self.targets) if options.balance == "auto" else options.balance
        self._weights = image_weights(self.targets)
        self._options = options
        self._processes = processes

    def order(self, rng: np.random.Generator) -> np.ndarray:
        """Draw the bags of an epoch, (bags * passes,), in order; balanced sampling draws them by their weights."""
        bags = len(self.targets)
        if self.balance == "sampling":
            return rng.choice(bags, bags * self.passes, p=self._weights / self._weights.sum())
        return np.concatenate([rng.permutation(bags) for _ in range(self.passes)])

    def of_epoch(self, order: np.ndarray, epoch: int) -> Generator[Batch, None, None]:
        """Yield this process's share of every batch of an epoch, read ahead by threads."""
        places = [part.tolist() for part in np.array_split(np.arange(len(order)), self.count)]

        def read(part: list[int]) -> Batch:
            return self.read(order, part, epoch)

        return read_ahead(read, places, self._options.num_workers, _BATCHES_AHEAD)

    def read(self, order: np.ndarray, places: Sequence[int], epoch: int) -> Batch:
        """Read this process's share of the batch of the bags at some places in the order of an epoch."""
        mine = list(self._processes.share(places))
        rngs = [np.random.default_rng([self._options.seed, epoch, place + 1]) for place in mine]
        chosen = order[mine]
        drawn = [(one, rng) for i, rng in zip(chosen, rngs, strict=True) for one in self._drawn(int(i), rng)]
        patches = [self._patch(one, rng) for one, rng in drawn]
        if len({patch.shape for patch in patches}) > 1:
            raise OptionsError("the training images differ in size, so they cannot be taken whole; give 'patch' a size")
        patches = [self._changed(patch, rng) for patch, (_, rng) in zip(patches, drawn, strict=True)]
        weights = self._weights[chosen] if self.balance == "weights" else None
        return Batch(np.stack(patches), self.targets[chosen], weights, len(places), self._options.patches_of_bag)

    def _drawn(self, bag: int, rng: np.random.Generator) -> list[int]:
        """Draw the images of a bag whose patches stand for it; none twice before all of them were drawn once."""
        images, count = self._bags[bag], self._options.patches_of_bag
        if self._options.bag == "image":
            return images
        rounds = math.ceil(count / len(images))
        drawn = np.concatenate([rng.permutation(images) for _ in range(rounds)])[:count]
        return [int(number) for number in drawn]

    def _patch(self, index: int, rng: np.random.Generator) -> np.ndarray:
        """Read a random patch of an image, normalised (channels, Y, X), at a random magnification."""
        zoom, side = draw_zoom(self._options, rng), self._options.patch
        patch = self.reader.patch(index, round(side / zoom), rng)
        shape = (side, side) if side else (patch.shape[1], patch.shape[2])
        if side == 0:  # a whole image keeps its shape: what is too much is cut off, what is missing is reflected
            patch = _cut(patch, (round(shape[0] / zoom), round(shape[1] / zoom)), rng)
        return resized(patch, shape)

    def _changed(self, patch: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Change a normalised patch (channels, Y, X) in ways that leave its label as it is."""
        step = 1 if patch.shape[1] == patch.shape[2] else 2  # a quarter turn would change an oblong's shape
        if self._options.flip_rotate:
            patch = flip_rotate(patch, int(rng.integers(0, 8)) // step * step)
        return vary_acquisition(patch, self._options, rng)


def _count_batches(images: int, size: int, processes: int) -> int:
    """Count the batches of a pass, of nearly equal size, so that none has a single image: batch norm needs more."""
    batches = max(1, math.ceil(images / size))
    smallest = images // batches
    if smallest < processes:
        raise OptionsError(
            f"a batch of {smallest} cannot be shared by {processes} processes; make batch_size larger, or start fewer"
        )
    return batches


def intensity_statistics(
    reader: PatchReader, threads: int = 1, on_image: OnImage | None = None
) -> IntensityStatistics | None:
    """Measure mean and standard deviation of raw intensities over the images of a table, for each channel.

    They are taken over the whole set (paper, section 3.1): scaling each image by itself would remove the effect of a
    dose on brightness. None where `on_image` stopped the measurement.

    Raises
    ------
    ImageError
        If a channel has one value throughout.
    """
    images = len(reader.table.images)
    sums = np.zeros((3, len(reader.model.channels)))
    with closing(read_ahead(reader.sums, range(images), threads, 2 * threads)) as measured:
        for done, part in enumerate(measured, start=1):
            sums += part
            if on_image is not None and not on_image(done, images):
                return None
    count, total, squares = sums
    mean = total / count
    std = np.sqrt(np.maximum(squares / count - mean**2, 0))
    _refuse_flat(reader, std)
    return IntensityStatistics(tuple(mean.tolist()), tuple(std.tolist()))


def measured_scale(model: TrainedModel, table: LabelTable) -> float:
    """Measure the scale at which the typical object of the training images is `OBJECT_SIZE` px across.

    Returns 1 where objects are smaller, or cannot be measured (`typical_diameter`), and where it would be nearly 1.
    """
    diameter = typical_diameter(model, table)
    scale = 1.0 if diameter is None else round(OBJECT_SIZE / diameter, 2)
    return max(scale, 1 / LARGEST_ZOOM) if scale <= _WORTH_RESIZING else 1.0


def typical_diameter(model: TrainedModel, table: LabelTable) -> float | None:
    """Measure the diameter of the objects of a table's images, in px of these images; None where they do not agree.

    Objects are what reaches half of the spread of the channel in which the model finds its foreground. Over a disc, the
    distance to its edge is on average a sixth of its diameter, and discs that touch hardly change that; so six times
    the mean distance to the edge is the diameter, without a need to part the objects. An image counts if it has enough
    objects, and background between them. Half of the images have to count, and the middle half of their diameters to
    agree within a third.
    """
    reader = PatchReader(model.with_card(scale=1.0, normalise="image"), table)
    images = len(table.images)
    chosen = range(0, images, math.ceil(images / _IMAGES_WITH_OBJECTS))
    found = [diameter for index in chosen if (diameter := _diameter_of_objects(reader, index)) is not None]
    if 2 * len(found) < len(chosen):
        return None
    low, middle, high = np.quantile(found, (0.25, 0.5, 0.75))
    return float(middle) if high - low <= middle / 3 else None


def _diameter_of_objects(reader: PatchReader, index: int) -> float | None:
    """Measure the diameter of the objects in the middle of an image's first plane; None without clear objects."""
    mask = reader.object_mask(index)
    parts, _ = ndimage.label(mask)
    objects = np.count_nonzero(np.bincount(parts.ravel())[1:] >= _SMALLEST_OBJECT)
    if objects < _FEWEST_OBJECTS or mask.mean() > _MOST_FOREGROUND:
        return None
    return 6 * float(ndimage.distance_transform_edt(mask)[mask].mean())


def measure_planes(reader: PatchReader, threads: int = 1, on_image: OnImage | None = None) -> bool:
    """Measure background and spread of every plane of a table, which the reader keeps; False where it was stopped.

    Raises
    ------
    ImageError
        If a channel has one value in each plane.
    """
    images = len(reader.table.images)

    def widest_of(index: int) -> np.ndarray:
        spreads = [reader.intensity(index, plane).spread for plane in range(reader.planes(index))]
        return np.asarray(np.max(spreads, 0))

    widest = np.zeros(len(reader.model.channels))
    with closing(read_ahead(widest_of, range(images), threads, 2 * threads)) as measured:
        for done, part in enumerate(measured, start=1):
            widest = np.maximum(widest, part)
            if on_image is not None and not on_image(done, images):
                return False
    _refuse_flat(reader, widest)
    return True


def _refuse_flat(reader: PatchReader, spread: np.ndarray) -> None:
    """Refuse images of which a channel has no spread, (channels,)."""
    flat = [name for name, s in zip(reader.model.channels, spread, strict=True) if s == 0]
    if flat:
        raise ImageError(f"channel {', '.join(flat)} has one value in all training images; check the files")


def read_ahead(
    make: Callable[[Item], Made], items: Iterable[Item], threads: int, depth: int
) -> Generator[Made, None, None]:
    """Yield `make(item)` for each item in turn, made by threads up to `depth` items ahead."""
    waiting = deque()  # type: ignore[var-annotated]
    pool = ThreadPoolExecutor(threads, thread_name_prefix="read-ahead")
    try:
        for item in items:
            waiting.append(pool.submit(make, item))
            if len(waiting) > depth:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
