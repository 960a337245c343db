"""Whether an image resembles the images that a model was trained on; if not, in what; and whether it shows anything.

A network gives an answer, and is mostly sure of it, for an image of any kind. So a model carries what its training
images look like (`TrainingLook` on its card), and each plane is compared with it in two ways: by the mean and the
standard deviation, over the map, of the encoder's features, which a classification computes anyway, and by plain
statistics of what the network sees (`STATISTICS`). Both are Mahalanobis distances with the shrunk covariance of Ledoit
and Wolf (2004), divided by a limit: the 99th percentile of images that were kept out of the training, or where these
are few the bound for the next one (`_limit`). The larger of the two is `unlike`. The plain statistics also give the
reason. Where they come near their limit the size of the objects has a say, too: cells that are alike in all else may be
larger or smaller than phenotypes explain (`_ALIKE_SIZE`).

What it cannot find: a phenotype that is new to the model among cells, light and focus as in training. Single cells
betray it more often (`benchmarks/acquisition/phenotypes.py`: measurements of each object, compared with those of the
class that it is taken for), but the known classes of a plate that nobody has seen differ from those of training nearly
as much: where 3 % of their fields may be flagged, most unseen phenotypes are missed. So it is not built in.

Why the structure of a plane is judged without any model: the means of blocks of white noise vary, over the area of a
block, as its single pixels do; objects and textures of cells make them vary far more. Second differences leave uneven
light out. The pixels are the image's own, because resampling would make noise look like structure.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import stdtrit

from napari_milcnn.errors import ImageError, ModelError
from napari_milcnn.images.stack import ImageStack, Window
from napari_milcnn.inference.foreground import object_size, reduced
from napari_milcnn.inference.model_input import LARGEST_ZOOM, ModelInput, has_both_pixel_sizes, model_input
from napari_milcnn.inference.tiling import windows
from napari_milcnn.model.card import Cloud, TrainingLook
from napari_milcnn.model.trained_model import TrainedModel

STATISTICS = ("dark", "median", "range", "spread", "detail", "noise", "scale", "saturated", "covered")
"""Statistics of a channel, in this order: level of the 1st percentile and of the median (inverse hyperbolic sine),
logarithm of the range from the 1st percentile to the 99.9th and of the standard deviation, of the share of the variance
that differences of neighbouring pixels hold, of the noise over the range, the typical size of structures (powers of two
px), logarithm of the share of pixels at the maximum, and of the share in the upper three quarters of the range."""
UNKNOWN_LOOK = (
    "this model does not know what its training images look like, so it cannot say which images are unlike them; "
    "calibrate gives it that knowledge"
)
NO_STRUCTURE = "nothing to classify: no structure above the noise"
NEW_FEATURES = "features never seen in the training images"
FEWEST_LOOKS = 4
"""Fewest images from which anything is learned."""
_SIDE = 2048
"""Side of the windows in which a plane is read, px."""
_SAMPLE = 1 << 20
"""Pixels of a channel, about, from which percentiles are taken."""
_OCTAVES = 6
"""Sizes of blocks: 1, 2, 4 ... 32 px."""
_BLOCKS = (4, 8, 16)
"""Sizes of blocks, px, whose means are compared with single pixels."""
_AXES = 48
"""Most directions of a cloud."""
_TINY = 1e-6
_KEPT_SHARE = 1e-3
"""Added to a share before its logarithm."""
_LEAST_SPREADS = (0.05, 0.05, 0.05, 0.05, 0.05, 0.05, 0.05, 0.2, 0.05)
"""Least standard deviation of each statistic: training images of one camera may have the same darkest grey level."""
_SHRINKAGES = (0.3, 0.01)
"""Least shrinkage of the covariance of features and of statistics. A network has learned its training images, so that
its features of other images spread more than theirs."""
_PLATES_MARGIN = 1.25
"""Factor on the limit of the features: those of plates that nobody has seen differ a little more than in training."""
_LEARNED_MARGIN = 2.0
"""Further factor on the limit of the features where no image was kept out of the training, for the same reason."""
_BIT_DEPTH = 6.0
"""Factor between intensities that no exposure explains."""
_NAMED = 2.0
"""Standard deviations from which a statistic is named."""
_MOST_NAMED = 3
_SIZED_SIDE = 1024
"""Side, px, of the middle of a plane in which the size of objects is measured."""
_SIZED_PLANES = 4
"""Most planes of an image that are measured."""
_ALIKE_SIZE = 1.2
"""Factor up to which phenotypes alone are taken to change the size of the objects of an image."""
_SIZED_FROM = 0.75
"""Share of their limit below which statistics settle the matter: the size of objects, which takes longer, is then not
measured."""
_OTHER_SIZES = ("larger objects", "smaller objects")
LEAST_SATURATED = 0.002
"""Share of pixels at the maximum below which they are bright objects."""


@dataclass(frozen=True)
class PlaneLook:
    """What one plane looks like to a model.

    Attributes
    ----------
    statistics : ndarray
        `STATISTICS` of each channel of the model, float64 (channels, statistics).
    has_structure : bool
        Whether any channel shows more than noise.
    fine_detail : ndarray
        Of the variance of each channel that is not noise, the share in structures of 2 to 4 px, which a blurred image
        loses, float64 (channels,). It depends on what is shown, so it compares images of one kind only.
    object_size : float or None
        Diameter of the typical object, in px of the network's input, where the statistics leave a doubt.
    """

    statistics: np.ndarray
    has_structure: bool
    fine_detail: np.ndarray
    object_size: float | None = None

    @property
    def saturated(self) -> np.ndarray:
        """Share of the pixels of each channel at the maximum, float64 (channels,)."""
        return np.asarray(np.exp(self.statistics[:, STATISTICS.index("saturated")]) - _KEPT_SHARE)


def plane_look(model_input: ModelInput, plane: int) -> PlaneLook:
    """Measure a plane, a window at a time.

    Raises
    ------
    ImageError
        If the plane cannot be read.
    """
    sampled = [_Sampler(model_input.shape) for _ in model_input.channels]
    for window in windows(model_input.shape, (_SIDE, _SIDE)):
        for sampler, channel in zip(sampled, model_input.read(plane, window), strict=True):
            sampler.add(channel)
    found = PlaneLook(
        np.stack([one.statistics() for one in sampled]),
        has_structure(model_input, plane),
        np.array([one.fine_detail() for one in sampled]),
    )
    known = model_input.model.card.training.look
    if known is None or known.object_sizes is None or not found.has_structure:
        return found
    if known.statistics.distances(_statistics_of([found]))[0] < _SIZED_FROM:
        return found
    return replace(found, object_size=_object_size(model_input, plane))


def has_structure(model_input: ModelInput, plane: int) -> bool:
    """Whether any channel of a plane shows more than noise.

    Raises
    ------
    ImageError
        If the plane cannot be read.
    """
    image = model_input.image
    tests = [_StructureTest() for _ in model_input.channels]
    for window in windows(image.plane_shape, (_SIDE, _SIDE)):
        for test, channel in zip(tests, image.plane(plane, model_input.channels, window), strict=True):
            test.add(channel)
    return any(test.is_positive for test in tests)


def feature_vectors(moments: np.ndarray, places: int) -> np.ndarray:
    """Turn moments (planes, 2, features) over a number of places into mean and standard deviation: (planes, 2 f)."""
    mean = moments[:, 0] / places
    return np.concatenate([mean, np.sqrt(np.maximum(moments[:, 1] / places - mean**2, 0))], 1)


class _Sampler:
    """Collects what the statistics of one channel need."""

    def __init__(self, shape: tuple[int, int]) -> None:
        self.step = max(1, math.ceil(math.sqrt(shape[0] * shape[1] / _SAMPLE)))
        self.pixels: list[np.ndarray] = []
        self.noise: list[np.ndarray] = []
        self.sums = np.zeros(3)
        self.top, self.at_top = -math.inf, 0
        self.energy, self.count = np.zeros(_OCTAVES), np.zeros(_OCTAVES)

    def add(self, channel: np.ndarray) -> None:
        """Add a window (Y, X)."""
        values = channel.astype(float)
        self.pixels.append(values[:: self.step, :: self.step].ravel())
        self.sums += (values.size, values.sum(), (values**2).sum())
        top = values.max()
        self.at_top = (self.at_top if top <= self.top else 0) + int((values == max(top, self.top)).sum())
        self.top = max(top, self.top)
        self._add_bands(values)

    def _add_bands(self, values: np.ndarray) -> None:
        """Add up the variance that is lost from blocks of each size to blocks of twice that size."""
        blocks = values
        for level in range(_OCTAVES):
            if min(blocks.shape) < 2:
                return
            parts = _quarters(blocks)
            blocks = parts.mean(0)
            if level == 0:
                diagonal = ((parts[0] - parts[1] - parts[2] + parts[3]) / 2)[:: self.step, :: self.step]
                self.noise.append(np.stack([blocks[:: self.step, :: self.step].ravel(), diagonal.ravel()]))
            parts -= blocks
            self.energy[level] += np.vdot(parts, parts) / 4
            self.count[level] += blocks.size

    def statistics(self) -> np.ndarray:
        """Return `STATISTICS` (statistics,)."""
        pixels = np.concatenate(self.pixels)
        dark, median, bright = np.percentile(pixels, (1, 50, 99.9))
        span = bright - dark
        count, total, squares = self.sums
        spread = math.sqrt(max(squares / count - (total / count) ** 2, 0))
        energy = self.energy / np.maximum(self.count, 1) + _TINY**2
        sizes = np.arange(_OCTAVES)
        noise = self._noise()
        return np.array([
            math.asinh(dark), math.asinh(median), math.log(span + _TINY), math.log(spread + _TINY),
            math.log(energy[0] / energy.sum()), math.log(noise / (span + _TINY) + _KEPT_SHARE),
            float((sizes[2:] * energy[2:]).sum() / energy[2:].sum()), math.log(self.at_top / count + _KEPT_SHARE),
            math.log(float((pixels > dark + span / 4).mean()) + _KEPT_SHARE),
        ])  # fmt: skip

    def _noise(self) -> float:
        """Return the standard deviation of the noise of a pixel, from the darker half of the plane."""
        levels, diagonal = np.concatenate(self.noise, 1)
        return float(np.median(np.abs(diagonal[levels <= np.median(levels)]))) / 0.6745

    def fine_detail(self) -> float:
        """Return `PlaneLook.fine_detail` of the channel; 0 where all of it is noise.

        The means of blocks of 2^n px have a 4^n-th of the variance of the noise, of which a step between two sizes of
        blocks loses three quarters.
        """
        noise = 0.75 * self._noise() ** 2 / 4.0 ** np.arange(_OCTAVES)
        energy = np.maximum(self.energy / np.maximum(self.count, 1) - noise, 0)
        return float(energy[1] / (energy.sum() + _TINY**2))


def _quarters(blocks: np.ndarray) -> np.ndarray:
    """Return the four pixels of each block of 2 x 2: (4, Y / 2, X / 2)."""
    y, x = (side // 2 * 2 for side in blocks.shape)
    return np.stack([blocks[i:y:2, j:x:2] for i in (0, 1) for j in (0, 1)])


class _StructureTest:
    """Tells whether one channel of a plane shows more than white noise."""

    def __init__(self) -> None:
        self.squares = dict.fromkeys((1, *_BLOCKS), 0.0)
        self.count = dict.fromkeys((1, *_BLOCKS), 0)

    def add(self, channel: np.ndarray) -> None:
        """Add a window (Y, X)."""
        values = channel.astype(float)
        for size in self.squares:
            y, x = (side // size * size for side in values.shape)
            means = reduced(values[:y, :x], size)
            for axis in (0, 1):
                curved = np.diff(means, 2, axis)
                self.squares[size] += float((curved**2).sum())
                self.count[size] += curved.size

    @property
    def is_positive(self) -> bool:
        """Whether block means vary more than twice as much as noise, and more than noise does by chance."""
        pixel = self.squares[1] / max(self.count[1], 1)
        if pixel == 0:
            return False
        blocks = [size for size in _BLOCKS if self.count[size]]
        ratios = (self.squares[size] / self.count[size] * size**2 / pixel for size in blocks)
        chance = (1 + max(1.0, 8 * math.sqrt(2 / self.count[size])) for size in blocks)
        return any(ratio > most for ratio, most in zip(ratios, chance, strict=True))


def training_look(
    features: np.ndarray,
    looks: Sequence[PlaneLook],
    held_features: np.ndarray,
    held_looks: Sequence[PlaneLook],
    sizes: Sequence[float] = (),
) -> TrainingLook:
    """Describe training images by their vectors.

    Parameters
    ----------
    features : ndarray
        Of the training images, (images, 2 * features), as of `feature_vectors`.
    looks : sequence of PlaneLook
        Of the training images.
    held_features, held_looks
        The same of images that were kept out of the training; there may be none.
    sizes : sequence of float
        Size of the objects of training images, as of `plane_object_size`.

    Raises
    ------
    ModelError
        If there are too few training images.
    """
    if len(features) < FEWEST_LOOKS:
        raise ModelError(
            f"{len(features)} training images are too few to know what they look like; give at least {FEWEST_LOOKS}"
        )
    statistics, held_statistics = _statistics_of(looks), _statistics_of(held_looks)
    least = np.tile(_LEAST_SPREADS, statistics.shape[1] // len(STATISTICS))
    held = len(held_features) if len(held_features) >= FEWEST_LOOKS else 0
    learned = _PLATES_MARGIN if held else _PLATES_MARGIN * _LEARNED_MARGIN
    return TrainingLook(
        images=len(features), held=held,
        features=_cloud(features, held_features[:held], np.zeros(1), _SHRINKAGES[0], learned),
        statistics=_cloud(statistics, held_statistics[:held], least, _SHRINKAGES[1], 1.0),
        **({"object_sizes": (min(sizes), float(np.median(sizes)), max(sizes))} if len(sizes) else {}),
    )  # fmt: skip


def _statistics_of(looks: Sequence[PlaneLook]) -> np.ndarray:
    """Return the statistics of planes as vectors, (planes, channels * statistics)."""
    return np.array([look.statistics.ravel() for look in looks])


def _cloud(known: np.ndarray, held: np.ndarray, least: np.ndarray, shrinkage: float, margin: float) -> Cloud:
    """Fit a cloud to vectors (images, values); without held ones its limit comes from halves of the known ones."""
    cloud = _fitted(known, least, shrinkage)
    if len(held):
        distances = cloud.distances(held)
    else:
        halves = (known[::2], known[1::2])
        pairs = (halves, halves[::-1])
        distances = np.concatenate([_fitted(a, least, shrinkage).distances(b) for a, b in pairs])
    return cloud.model_copy(update={"limit": margin * _limit(distances)})


def _limit(distances: np.ndarray) -> float:
    """Return the 99th percentile, or the bound below which the next of few images lies with a probability of .99."""
    logs = np.log(np.maximum(distances, 1e-6))
    bound = logs.mean() + stdtrit(len(logs) - 1, 0.99) * logs.std(ddof=1) * math.sqrt(1 + 1 / len(logs))
    return math.exp(max(float(np.percentile(logs, 99)), float(bound)))


def _fitted(vectors: np.ndarray, least: np.ndarray, least_shrinkage: float) -> Cloud:
    """Fit mean and shrunk covariance to vectors (images, values), as a cloud of limit 1.

    The covariance of few images has few directions: along those that are kept it is exact, beside them it is what the
    shrinkage, and the mean of the directions that were dropped, make of it.
    """
    from sklearn.covariance import ledoit_wolf_shrinkage

    centre, spread = vectors.mean(0), vectors.std(0)
    scale = np.maximum(spread, np.maximum(least, max(0.1 * float(np.median(spread)), _TINY)))
    x = (vectors - centre) / scale
    shrinkage = max(float(ledoit_wolf_shrinkage(x, assume_centered=True)), least_shrinkage)
    count, size = x.shape
    _, singular, axes = np.linalg.svd(x, full_matrices=False)
    own = singular**2 / count
    kept = min(_AXES, count - 1, size)
    floor = max(shrinkage * float(own.sum()) / size, _TINY)
    rest = floor + (1 - shrinkage) * float(own[kept:].sum()) / max(size - kept, 1)
    return Cloud.of_arrays(centre, scale, axes[:kept], floor + (1 - shrinkage) * own[:kept], rest, 1.0)


def shows_something(model: TrainedModel, look: PlaneLook) -> bool:
    """Whether a plane can have a class: it has structure, or there are training images that have none either."""
    return look.has_structure or bool(model.card.training.structureless)


def unlike(model: TrainedModel, features: np.ndarray, looks: Sequence[PlaneLook]) -> tuple[np.ndarray, tuple[str, ...]]:
    """Compare planes with the training images of a model.

    Parameters
    ----------
    model : TrainedModel
        The model.
    features : ndarray
        Of the planes, (planes, 2 * features), as of `feature_vectors`.
    looks : sequence of PlaneLook
        Of the same planes.

    Returns
    -------
    unlike : ndarray
        At most 1 within the range of the training images, above 1 outside; float32 (planes,). NaN if the model does not
        know its training images.
    reasons : tuple of str
        For each plane what differs, if it is above 1 or has no structure; else empty.
    """
    look = model.card.training.look
    if look is None:
        return np.full(len(looks), np.nan, np.float32), tuple("" if x.has_structure else NO_STRUCTURE for x in looks)
    sizes = np.array([_size_distance(look, one) for one in looks])
    distances = look.features.distances(features), look.statistics.distances(_statistics_of(looks)), sizes
    values = np.stack(distances).max(0)
    reasons = []
    for value, one in zip(values, looks, strict=True):
        if not shows_something(model, one):
            reasons.append(NO_STRUCTURE)
        else:
            reasons.append(_reason(model, look, one) if value > 1 else "")
    return values.astype(np.float32), tuple(reasons)


def pixels_unlike(model_input: ModelInput, plane: int) -> tuple[str, str]:
    """Say in what the pixels of a plane are unlike those of the training images, without running the network.

    Returns
    -------
    str, str
        In what, and what `on_object_sizes` says; "" if they are alike, or the model does not know its training images.

    Raises
    ------
    ImageError
        If the plane cannot be read.
    """
    known = model_input.model.card.training.look
    if known is None:
        return "", ""
    looks = [plane_look(model_input, plane)]
    reasons = unlike(model_input.model, known.features.middle[None], looks)[1]
    return reasons[0], on_object_sizes(model_input, looks)


def _size_distance(look: TrainingLook, one: PlaneLook) -> float:
    """Return by what part of its limit the size of the objects of a plane differs; 0 where it was not measured."""
    if look.object_sizes is None or one.object_size is None:
        return 0.0
    smallest, typical, largest = look.object_sizes
    is_larger = one.object_size > typical
    limit = max(largest, typical * _ALIKE_SIZE) if is_larger else min(smallest, typical / _ALIKE_SIZE)
    return math.log(one.object_size / typical) / math.log(limit / typical)


def _reason(model: TrainedModel, look: TrainingLook, one: PlaneLook) -> str:
    """Say in what a plane differs, the most striking difference first."""
    known = look.statistics.middle.reshape(one.statistics.shape)
    z = look.statistics.standardised(one.statistics.reshape(1, -1)).reshape(one.statistics.shape)
    sees_brightness = model.card.normalise != "image"
    named: list[tuple[float, str, str]] = []
    for channel, *rows in zip(model.channels, z, one.statistics, known, strict=True):
        own, found, typical = (dict(zip(STATISTICS, row.tolist(), strict=True)) for row in rows)
        ratio = math.exp(found["range"] - typical["range"])
        differences = [*(_light(own, ratio) if sees_brightness else _contrast(own)), *_shape(own, found)]
        named += [(strength, text, channel) for strength, text in differences]
    if (by_size := _size_distance(look, one)) > 1 and one.object_size is not None and look.object_sizes is not None:
        text, channel = _OTHER_SIZES[one.object_size < look.object_sizes[1]], model.channels[_sized_channel(model)]
        named = [*(item for item in named if item[1] not in _OTHER_SIZES), (_NAMED * by_size, text, channel)]
    named.sort(key=lambda item: -item[0])
    if named[0][0] < _NAMED and look.statistics.distances(_statistics_of([one]))[0] > 1:
        return named[0][1]
    channels: dict[str, list[str]] = {}
    for strength, text, channel in named:
        if strength >= _NAMED:
            channels.setdefault(text, []).append(channel)
    several = len(model.channels) > 1
    texts = [f"{', '.join(names)}: {text}" if several else text for text, names in channels.items()]
    return "; ".join(texts[:_MOST_NAMED]) or NEW_FEATURES


def _light(z: dict[str, float], ratio: float) -> Iterator[tuple[float, str]]:
    """Yield how strikingly the intensities of a channel differ, and the words for it."""
    strength = max(map(abs, (z["dark"], z["median"], z["range"], z["spread"])))
    if not 1 / _BIT_DEPTH < ratio < _BIT_DEPTH:
        yield strength, f"another bit depth: its range of intensities is {ratio:.2g} times that of the training images"
    elif max(abs(z["range"]), abs(z["spread"])) >= _NAMED:
        brighter = z["median"] + z["dark"] + z["range"] + z["spread"] > 0
        yield strength, "too bright" if brighter else "too dark"
    else:
        yield strength, "its background is too bright" if z["median"] + z["dark"] > 0 else "its background is too dark"


def _contrast(z: dict[str, float]) -> Iterator[tuple[float, str]]:
    """Yield the same for a channel that is scaled by its own intensities, whose brightness the network does not see."""
    yield (
        abs(z["range"]),
        "its brightest pixels stand out more" if z["range"] > 0 else "its brightest pixels stand out less",
    )
    darker = z["dark"] < 0 and abs(z["dark"]) > abs(z["median"])
    text = "structures darker than its bright background" if darker else "another background"
    yield max(abs(z["dark"]), abs(z["median"])), text


def _shape(z: dict[str, float], found: dict[str, float]) -> Iterator[tuple[float, str]]:
    """Yield how strikingly focus, noise, sizes and saturation of a channel differ, and the words for it."""
    sharper = max(z["detail"], z["noise"], key=abs)
    if sharper < 0:
        yield -sharper, "blurred: less fine detail"
    elif z["noise"] >= _NAMED:
        yield sharper, "noisier"
    else:
        yield sharper, "more fine detail"
    yield abs(z["scale"]), _OTHER_SIZES[z["scale"] < 0]
    yield abs(z["covered"]), "structures cover more of it" if z["covered"] > 0 else "almost empty"
    share = math.exp(found["saturated"]) - _KEPT_SHARE
    if share >= LEAST_SATURATED:
        yield z["saturated"] * 10, f"saturated: {100 * share:.2g} % of its pixels are at the maximum"


def plane_object_size(model_input: ModelInput, plane: int) -> float | None:
    """Measure the objects in the middle of a plane, in px of the network's input; None if it has no structure.

    They are those of the channel in which the model finds its objects.

    Raises
    ------
    ImageError
        If the plane cannot be read.
    """
    return _object_size(model_input, plane) if has_structure(model_input, plane) else None


def _object_size(model_input: ModelInput, plane: int) -> float:
    (y, height), (x, width) = (
        (max(0, (size - _SIZED_SIDE) // 2), min(size, _SIZED_SIDE)) for size in model_input.shape
    )
    channel = _sized_channel(model_input.model)
    return object_size(model_input.read_raw(plane, Window(y, y + height, x, x + width))[channel])


def _sized_channel(model: TrainedModel) -> int:
    name = model.card.foreground.channel
    return model.channels.index(name) if name in model.channels else 0


def relative_size(model: TrainedModel, images: Iterable[ImageStack]) -> float:
    """Measure how large the objects of images are, relative to those of a model's training images.

    Give it as the option `relative_size` where another magnification is the reason. Phenotypes change the size of
    objects, too: measure many images, most of them controls, of one magnification together.

    Parameters
    ----------
    model : TrainedModel
        The model.
    images : iterable of ImageStack
        The images; of each up to four planes are measured. Their pixel sizes are not looked at.

    Returns
    -------
    float
        1.5 where they are half as large again: the median over the planes that show anything.

    Raises
    ------
    ModelError
        If the model does not know how large the objects of its training images are.
    ImageError
        If an image cannot be read or does not have the model's channels, or none shows anything.
    """
    look = model.card.training.look
    if look is None or look.object_sizes is None:
        raise ModelError(
            f"{model.card.name} does not know how large the objects of its training images are, because it was made "
            "before this was measured; give relative_size as a number, or train the model anew"
        )
    sizes: list[float] = []
    for image in images:
        seen = model_input(model, image, match_pixel_size=False)
        planes = range(0, len(image.planes), math.ceil(len(image.planes) / _SIZED_PLANES))
        sizes += [size for plane in planes if (size := plane_object_size(seen, plane)) is not None]
    if not sizes:
        raise ImageError("no image shows anything above its noise, so the size of objects cannot be measured")
    return float(np.median(sizes)) / look.object_sizes[1]


def on_object_sizes(seen: ModelInput, looks: Sequence[PlaneLook]) -> str:
    """Say how much larger or smaller the objects of planes are, beyond what phenotypes explain; else empty.

    It is said only where pixel sizes do not settle it.

    Parameters
    ----------
    seen : ModelInput
        The image, at the size at which it was classified.
    looks : sequence of PlaneLook
        Of its planes.
    """
    known = seen.model.card.training.look
    if known is None or known.object_sizes is None or has_both_pixel_sizes(seen.model, seen.image):
        return ""
    sizes = [one.object_size for one in looks if one.object_size is not None and _size_distance(known, one) > 1]
    factor = float(np.median(sizes)) / known.object_sizes[1] if sizes else 1.0
    ratio, model_size = factor * seen.relative_size, seen.model.pixel_size
    if not sizes or not 1 / LARGEST_ZOOM <= ratio <= LARGEST_ZOOM:
        return ""
    resampled = "" if seen.relative_size == 1 else "after resampling, "
    pixel_size = "" if model_size is None else f"the pixel size of the image, about {model_size / ratio:.2g} µm, or "
    return (
        f"{resampled}its objects are about {factor:.2g} times as large as those of the training images; if another "
        f"magnification is the reason, give {pixel_size}relative_size {ratio:.2g}"
    )
