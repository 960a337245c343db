"""Find the foreground of an image: cells, or bright structures, as objects of a label image.

The scale of everything, smoothing, splitting and the smallest object, is the size of a typical object. It is measured
on the training images, by the scale at which the Laplacian of a Gaussian answers most (Lindeberg 1998), and stands on
the model's card. So is the method: it is the one whose objects agree best with each other.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree
from skimage.filters import threshold_otsu
from skimage.measure import label
from skimage.segmentation import expand_labels

from napari_milcnn.inference.strips.components import components, split_components
from napari_milcnn.inference.strips.rows import Scratch, strips
from napari_milcnn.options import FORMER_FOREGROUND, ForegroundOptions, make_options

_NEIGHBOURHOOD = 6
"""Sigma of the neighbourhood that `local` compares with, and the distance by which `half_maximum` may move an edge
outwards, as a multiple of the smoothing."""
_SMOOTH, _SPLIT, _LEAST_AREA = 0.05, 0.36, 0.06
"""Sigma before the threshold and sigma at which objects are split, as shares of the typical diameter, and area of the
smallest object, as a share of a typical disc. Chosen on fields of training plates: with a smaller sigma a nucleus of
two lobes is cut, with a larger one cells that touch become one."""
_SMOOTH_EDGE = 0.025
"""Sigma of `half_maximum`, as a share of the typical diameter: the height of a whole object places its edge, so that a
rough surface does not cut it in pieces, and half the sigma keeps small and bent objects in their shape. Chosen on
fields of training plates, noisy ones too."""
_NEAR, _WHOLE = 0.95, 2.4
"""Parts are one object where their centres are nearer than this share of the typical diameter, and their areas together
are no more than this many typical discs."""
_ROOTS = 4
"""Square roots of the intensities, one of another, in the image whose hills are objects; with fewer, bright objects
swallow dim ones."""
_SIZES = 2.0 ** np.arange(2, 8, 0.25)
"""Diameters, in px, from which the typical one is taken."""
_FINEST = 3.0
"""Sigma, in px, above which an image is reduced before it is smoothed."""
_BETTER = 1.05
"""How many times better the objects must agree than those of `otsu`, the plainest method, for another to be taken, and
than those of a larger size for a smaller one."""
_FACTORS = (1.0, 0.8, 0.64, 0.51, 0.41)
"""Multiples of the typical size that are tried."""
METHODS = ("otsu", "local", "half_maximum")

_SEVERAL = 3
"""Fewest objects whose sizes can be compared."""
_ALIKE = 0.75
"""Least share of the area in objects of one size."""


def find_objects(channel: np.ndarray, options: ForegroundOptions) -> np.ndarray:
    """Find bright objects in one channel.

    `otsu` uses one threshold for the plane. `local` first subtracts a wider neighbourhood, for spots and for uneven
    light. `half_maximum` begins like `otsu` and then puts the edge of each object halfway between the background and
    the object's own mean, so that dim cells do not shrink and bright cells do not grow. Objects are split, and their
    parts joined, at the scale of a typical object (`split_at_size`); where a distance is given, touching objects are
    split by a watershed on the distance to the background instead.

    Parameters
    ----------
    channel : ndarray
        Intensities (Y, X).
    options : ForegroundOptions
        Method, typical size, smoothing, splitting and smallest size, in px of this channel.

    Returns
    -------
    ndarray
        Label image, int32 (Y, X), 0 for background.
    """
    options = resolved(options)
    assert options.min_size is not None
    smooth = _smoothed_channel(channel, options)
    if smooth.max() == 0:
        return np.zeros(channel.shape, np.int32)
    # On the square root, which evens out the noise of photons, a few very bright objects do not hide the others.
    threshold = threshold_otsu(smooth) if options.size is None else threshold_otsu(np.sqrt(smooth)) ** 2
    mask = without_holes(smooth > threshold)
    if options.split is None:
        assert options.size is not None
        objects = split_at_size(mask, smooth, options.size)
    else:
        objects = split_touching(mask, options.split)
    if options.method == "half_maximum":
        objects = _to_half_maximum(objects, smooth, smoothing_reach(options))
    return drop_small(objects, options.min_size)


def _smoothed_channel(channel: np.ndarray, options: ForegroundOptions) -> np.ndarray:
    """Smooth a channel (Y, X), less its smallest value, float32: what the threshold of `resolved` options cuts."""
    assert options.smooth is not None
    raw = channel.astype(np.float32)
    smooth = ndimage.gaussian_filter(raw, options.smooth)
    if options.method == "local":
        width = smoothing_reach(options)
        wide = ndimage.gaussian_filter(raw, width) if options.size is None else blurred(raw, options.size)
        smooth = np.maximum(smooth - wide, 0)
    return np.asarray(smooth - smooth.min())  # Otsu's histogram loses faint structure on a bright background


def smoothing_reach(options: ForegroundOptions) -> float:
    """Return the sigma of the neighbourhood of `local`, and how far `half_maximum` may move an edge, in px."""
    return max(options.smooth or 0, 1) * _NEIGHBOURHOOD


def resolved(options: ForegroundOptions) -> ForegroundOptions:
    """Return options in which what was left out follows from the typical size.

    Without a size it is as in early versions. `split` stays None where objects are split at the scale of the size.
    """
    if options.size is None:
        return options.over(make_options(ForegroundOptions, FORMER_FOREGROUND))
    disc = np.pi / 4 * options.size**2
    smooth = _SMOOTH_EDGE if options.method == "half_maximum" else _SMOOTH
    usual = {"method": "otsu", "smooth": smooth * options.size, "min_size": round(_LEAST_AREA * disc)}
    return make_options(ForegroundOptions, usual | {name: value for name, value in options if value is not None})


def scaled(options: ForegroundOptions, factor: float) -> ForegroundOptions:
    """Convert options in model pixels to image pixels; a model pixel is `factor` image pixels wide."""
    lengths = {"size": options.size, "smooth": options.smooth, "split": options.split}
    changed: dict[str, object] = {name: value * factor for name, value in lengths.items() if value is not None}
    if options.min_size is not None:
        changed["min_size"] = round(options.min_size * factor**2)
    return options.model_copy(update=changed)


def _to_half_maximum(objects: np.ndarray, smooth: np.ndarray, reach: float) -> np.ndarray:
    """Move the edge of each object (Y, X) to half its height above the background, at most `reach` px outwards."""
    background = float(np.median(smooth[objects == 0])) if (objects == 0).any() else 0.0
    height = ndimage.mean(smooth, objects, np.arange(objects.max() + 1)) - background
    expanded = expand_labels(objects, reach)
    mask = (expanded > 0) & (smooth - background > height[expanded] / 2)
    return np.where(without_holes(mask), expanded, 0)


def without_holes(mask: np.ndarray) -> np.ndarray:
    """Fill the holes of a mask (Y, X): the components of its background that do not reach the edge.

    It gives what scipy's `binary_fill_holes` gives, in a tenth of the time.
    """
    background = label(~mask, connectivity=1)
    filled = np.ones(background.max() + 1, bool)  # label 0, the mask, is filled
    for edge in (background[0], background[-1], background[:, 0], background[:, -1]):
        filled[edge[edge > 0]] = False
    return np.asarray(filled.take(background))


def are_consistent(objects: np.ndarray) -> bool:
    """Tell whether the objects (Y, X) look like cells: at least three, most of whose area is in objects of one size.

    Of one size are areas within a factor of three of the median. On yeast and nuclei .9 to 1 of the area is in such
    objects; the threshold cuts smooth noise and textures into pieces of all sizes, with .3 to .6.
    """
    areas = np.bincount(objects.ravel())[1:]
    areas = areas[areas > 0]
    if len(areas) < _SEVERAL:
        return False
    alike = (areas > np.median(areas) / 3) & (areas < np.median(areas) * 3)
    return bool(areas[alike].sum() > _ALIKE * areas.sum())


def split_at_size(mask: np.ndarray, intensities: np.ndarray, size: float) -> np.ndarray:
    """Label the objects of a mask (Y, X), split and joined at the scale of a typical object.

    The mask is smoothed until each object is a hill, or a few, such as the lobes of one nucleus. It is weighted by a
    low power of the intensities above the background: where cells fill the plane their brightness tells them apart, and
    a dim cell is not swallowed by a bright neighbour. Each pixel belongs to the hill that steepest ascent leads to: the
    watershed of the smoothed image without its queue of pixels, several times quicker. Parts that are near each other
    and together no larger than a large object are then joined.

    Parameters
    ----------
    mask : ndarray of bool
        The foreground (Y, X).
    intensities : ndarray
        Intensities (Y, X).
    size : float
        Diameter of a typical object, in px.

    Returns
    -------
    ndarray
        Label image, int32 (Y, X), 0 for background.
    """
    if not mask.any():
        return np.zeros(mask.shape, np.int32)
    background = float(np.median(intensities[~mask])) if not mask.all() else float(intensities.min())
    step, sigma = split_scale(size)
    inside = reduced(mask.astype(np.float32), step) > 0
    hills = ndimage.gaussian_filter(reduced(split_weight(mask, intensities, background), step), sigma)
    labels = _joined(_hills(hills, inside), size / step)
    rows, columns = (np.arange(length) // step for length in mask.shape)
    return np.where(mask, labels[rows][:, columns], 0).astype(np.int32)


def split_scale(size: float) -> tuple[int, float]:
    """Return by which step an image is reduced to be split at the scale of a size, and the sigma after that."""
    step = reduction(_SPLIT * size)
    return step, _SPLIT * size / step


def split_weight(mask: np.ndarray, intensities: np.ndarray, background: float) -> np.ndarray:
    """Return what is smoothed into hills: a low power of the intensities above the background; 0 outside the mask."""
    weight = np.zeros(mask.shape, np.float32)
    own = np.maximum(intensities[mask] - background, 0)
    for _ in range(_ROOTS):
        own = np.sqrt(own)
    weight[mask] = own
    return weight


def _hills(height: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Label each pixel inside by the peak that steepest ascent over its eight neighbours leads to: int32 (Y, X)."""
    flat = peaks_reached(steepest_neighbours(height, inside))
    is_peak = (flat == np.arange(flat.size)) & inside.ravel()
    numbers = np.cumsum(is_peak, dtype=np.int32)
    return np.where(inside, numbers[flat].reshape(inside.shape), 0)


def steepest_neighbours(height: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Return the place of the highest of each pixel (Y, X) and its eight neighbours inside, in the flat image."""
    ringed = np.pad(np.where(inside, height, -np.inf), 1, constant_values=-np.inf)
    rows, columns = height.shape
    best, target = ringed[1:-1, 1:-1].copy(), np.arange(height.size).reshape(height.shape)
    here = target.copy()
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            neighbour = ringed[1 + dy : 1 + dy + rows, 1 + dx : 1 + dx + columns]
            higher = neighbour > best
            best[higher] = neighbour[higher]
            target[higher] = here[higher] + dy * columns + dx
    return target


def peaks_reached(target: np.ndarray) -> np.ndarray:
    """Follow each pixel to its neighbour, from there to the next, and so on: the place where it ends, flat."""
    flat = target.ravel()
    while not np.array_equal(following := flat[flat], flat):
        flat = following
    return flat


def _joined(labels: np.ndarray, size: float) -> np.ndarray:
    """Join parts (Y, X) that are one object."""
    areas = np.bincount(labels.ravel())
    rows, columns = (np.arange(length) for length in labels.shape)
    sums = [np.bincount(labels.ravel(), np.broadcast_to(at, labels.shape).ravel()) for at in (rows[:, None], columns)]
    centres = np.stack(sums, 1)[1:] / areas[1:, None]
    return np.asarray(joined_parts(areas, centres, size)[labels])


def joined_parts(areas: np.ndarray, centres: np.ndarray, size: float) -> np.ndarray:
    """Join parts that are one object by their distance and their area together, the nearest first.

    Parameters
    ----------
    areas : ndarray
        Pixels of each part, beginning with those of the background, which do not count (1 + parts,).
    centres : ndarray
        Centre of mass of each part (parts, 2).
    size : float
        Diameter of a typical object.

    Returns
    -------
    ndarray
        For each part, beginning with the background, the number of its object, int32 (1 + parts,).
    """
    pairs = cKDTree(centres).query_pairs(_NEAR * size, output_type="ndarray")
    lengths = np.hypot(*(centres[pairs[:, 0]] - centres[pairs[:, 1]]).T)
    most = _WHOLE * np.pi / 4 * size**2
    joined_area, whole = areas.tolist(), list(range(len(areas)))

    def object_of(part: int) -> int:
        while whole[part] != part:
            whole[part] = part = whole[whole[part]]
        return part

    for one, other in (pairs[np.argsort(lengths, kind="stable")] + 1).tolist():
        first, second = sorted((object_of(one), object_of(other)))
        if first != second and joined_area[first] + joined_area[second] <= most:
            joined_area[first] += joined_area[second]
            whole[second] = first
    found = peaks_reached(np.array(whole))
    numbers = np.cumsum(found == np.arange(len(found)), dtype=np.int32) - 1
    return np.asarray(numbers[found])


def reduction(sigma: float) -> int:
    """Return the step by which an image is reduced before it is smoothed by a wide sigma, in px."""
    return max(1, int(sigma / _FINEST))


def reduced(image: np.ndarray, step: int) -> np.ndarray:
    """Average blocks of `step` x `step` px of an image (Y, X); blocks at its ends are filled up by its edge."""
    if step == 1:
        return image
    if any(length % step for length in image.shape):
        image = np.pad(image, [(0, -length % step) for length in image.shape], mode="edge")
    rows = image.reshape(image.shape[0] // step, step, image.shape[1]).sum(
        1
    )  # rows first: numpy adds up short rows slowly
    return np.asarray(sum(rows[:, column::step] for column in range(step)) / rows.dtype.type(step**2))


def blurred(image: np.ndarray, sigma: float) -> np.ndarray:
    """Smooth an image (Y, X) by a Gaussian, at a reduced size where sigma is wide."""
    step = reduction(sigma)
    small = ndimage.gaussian_filter(reduced(image, step), sigma / step)
    if step == 1:
        return np.asarray(small)
    places = [(np.arange(length) + 0.5) / step - 0.5 for length in image.shape]
    return np.asarray(ndimage.map_coordinates(small, np.meshgrid(*places, indexing="ij"), order=1, mode="nearest"))


def split_touching(mask: np.ndarray, distance: float) -> np.ndarray:
    """Label the objects of a mask (Y, X), and split those whose centres are at least `distance` px apart.

    Returns int32 (Y, X), 0 for background. A distance of 0 splits nothing.
    """
    scratch = Scratch(np.inf)
    whole = components(((strip, mask[strip.rows]) for strip in strips(mask.shape)), mask.shape, scratch)
    return np.asarray(split_components(whole, distance, scratch))


def drop_small(labels: np.ndarray, size: int) -> np.ndarray:
    """Remove objects smaller than `size` px from a label image (Y, X), and number the others from 1."""
    counts = np.bincount(labels.ravel())
    keep = counts >= max(size, 1)
    keep[0] = False
    numbers = np.cumsum(keep) * keep
    return np.asarray(numbers.astype(np.int32).take(labels))


def is_known(options: ForegroundOptions) -> bool:
    """Whether nothing is left to be measured on images."""
    lengths = (options.smooth, options.split, options.min_size)
    return options.method is not None and (options.size is not None or None not in lengths)


def measure_foreground(images: Sequence[np.ndarray], given: ForegroundOptions | None = None) -> ForegroundOptions:
    """Measure how objects are found in images: the size of a typical object, and the method.

    Parameters
    ----------
    images : sequence of ndarray
        The channel that shows the objects, (Y, X) each, from a sample of the training images, in px of the model.
    given : ForegroundOptions, optional
        What is known already; only what was left out is measured.

    Returns
    -------
    ForegroundOptions
        The options for the model's card. If no image has any structure, `given` is returned as it is.
    """
    given = given or ForegroundOptions()
    images = [image.astype(np.float32) for image in images if np.ptp(image) > 0]
    if not images:
        return given
    size = given.size or _size_that_parts(images, float(np.median([typical_size(image) for image in images])), given)
    known = given.model_copy(update={"size": size})
    if known.method is None:
        tried = [known.model_copy(update={"method": method}) for method in METHODS]
        agreements = np.array([_mean_agreement(images, one) for one in tried])
        agreements[0] *= _BETTER
        known = tried[int(agreements.argmax())]
    whole = resolved(known)
    return whole.model_copy(update={"size": round(size, 1), "smooth": round(whole.smooth or 0, 2)})


def _size_that_parts(images: Sequence[np.ndarray], size: float, given: ForegroundOptions) -> float:
    """Return the largest of a typical size and smaller ones whose objects agree with each other as well as any.

    Clusters of cells answer to the Laplacian as larger objects do, and stay whole at the size that they suggest.
    """
    tried = [given.model_copy(update={"size": size * factor}) for factor in _FACTORS]
    agreements = np.array([_mean_agreement(images, one) for one in tried])
    return size * _FACTORS[int(np.argmax(_BETTER * agreements >= agreements.max()))]


def _mean_agreement(images: Sequence[np.ndarray], options: ForegroundOptions) -> float:
    return float(np.mean([agreement(find_objects(image, options)) for image in images]))


def typical_size(channel: np.ndarray) -> float:
    """Return the diameter, in px, of the discs to which the bright structures of a channel (Y, X) come closest.

    It is the scale at which the root mean square of the scale-normalised Laplacian of a Gaussian is largest.
    """
    image = channel.astype(np.float32)
    image = image - image.mean()  # a truncated filter answers to a constant a little, too
    sizes = _SIZES[_SIZES <= max(min(image.shape) / 2, _SIZES[0])]
    answers = np.array([_answer(image, size / 8**0.5) for size in sizes])
    best = int(answers.argmax())
    if best in {0, len(sizes) - 1}:
        return float(sizes[best])
    low, middle, high = answers[best - 1 : best + 2]
    return float(sizes[best] * 2 ** (0.25 * 0.5 * (low - high) / (low - 2 * middle + high)))


def object_size(channel: np.ndarray) -> float:
    """Return the diameter, in px, of the typical object of a channel (Y, X), for comparison with other images.

    It is the typical size of the square root of the intensities, so that a few bright objects do not decide it.
    The median diameter of segmented objects varies more with phenotypes: fragments and lobes count as objects.
    """
    return typical_size(np.sqrt(np.maximum(channel - np.percentile(channel, 1), 0)))


def _answer(image: np.ndarray, sigma: float) -> float:
    """Root mean square of the Laplacian of a Gaussian of an image (Y, X), times sigma squared."""
    step = reduction(sigma)
    sigma /= step
    return float(sigma**2 * np.sqrt(np.mean(ndimage.gaussian_laplace(reduced(image, step), sigma) ** 2)))


def agreement(objects: np.ndarray) -> float:
    """Return how well objects (Y, X) agree with each other, from 0 to about 1.

    It is their median compactness, the area as a share of the ellipse of the same second moments, divided by one plus
    the spread of the logarithm of their areas (half the distance between the 16th and the 84th percentile).
    """
    rows, columns = np.nonzero(objects)
    flat = objects[rows, columns]
    area = np.bincount(flat).astype(float)
    numbers = np.flatnonzero(area)
    if len(numbers) < 3:
        return 0.0
    area = area[numbers]
    y, x, yy, xx, yx = (
        np.bincount(flat, weights)[numbers] / area
        for weights in (
            rows,
            columns,
            rows.astype(float) ** 2,
            columns.astype(float) ** 2,
            rows * columns.astype(float),
        )
    )
    spread_of_pixel = 1 / 12
    determinant = (yy - y**2 + spread_of_pixel) * (xx - x**2 + spread_of_pixel) - (yx - y * x) ** 2
    compactness = area / (4 * np.pi * np.sqrt(determinant))
    low, high = np.quantile(np.log(area), (0.16, 0.84))
    return float(np.median(compactness) / (1 + (high - low) / 2))
