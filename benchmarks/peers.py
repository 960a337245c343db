"""The peer: features of segmented objects, made by hand, and a random forest.

What a lab does without a network: objects by Otsu, for each its size, shape, intensity and texture (scikit-image's
`regionprops`), an image described by the mean, the spread and the extremes of its objects' features.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from skimage.measure import regionprops
from sklearn.ensemble import RandomForestClassifier

from napari_milcnn.inference.foreground import find_objects
from napari_milcnn.labels.table import LabelTable
from napari_milcnn.options import ForegroundOptions

_SHAPES = ("area", "eccentricity", "solidity", "extent", "perimeter", "axis_major_length", "axis_minor_length")
_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def image_features(channel: np.ndarray, options: ForegroundOptions | None = None) -> np.ndarray:
    """Describe one channel (Y, X) by its objects, (features,)."""
    channel = channel.astype(np.float32)
    objects = find_objects(channel, options or ForegroundOptions())
    edges = ndimage.gaussian_gradient_magnitude(channel, 1.0)
    spots = -ndimage.gaussian_laplace(channel, 2.0)
    rows = [_object_features(region, edges, spots) for region in regionprops(objects, channel)]
    rows = np.array(rows or [np.zeros(len(_SHAPES) + 8)])
    spread = np.quantile(rows, _QUANTILES, axis=0).ravel()
    return np.concatenate([[len(rows)], rows.mean(0), rows.std(0), spread])


def _object_features(region, edges: np.ndarray, spots: np.ndarray) -> list[float]:
    inside = region.image_intensity[region.image]
    gradient, rise = edges[region.slice][region.image], spots[region.slice][region.image]
    shape = [float(getattr(region, name)) for name in _SHAPES]
    texture = [gradient.mean(), gradient.std(), rise.mean(), rise.std()]
    return [*shape, inside.mean(), inside.std(), inside.max(), inside.std() / max(inside.mean(), 1e-6), *texture]


def table_features(table: LabelTable) -> np.ndarray:
    """Features of the first channel of every image of a table, (images, features)."""
    rows = []
    for row in table.images:
        with table.open(row) as image:
            rows.append(image_features(image.plane(0, (0,))[0]))
    return np.array(rows)


def forest(features: np.ndarray, labels: list[str]) -> RandomForestClassifier:
    """Fit the forest."""
    return RandomForestClassifier(500, random_state=0, n_jobs=-1, class_weight="balanced").fit(features, labels)
