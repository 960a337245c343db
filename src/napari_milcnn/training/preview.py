"""Small pictures of the class maps of a few images, made between the epochs of a training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.colors import to_rgb

from napari_milcnn.figures.palette import class_colours
from napari_milcnn.figures.thumbnails import thumbnail
from napari_milcnn.inference.class_maps import MapPlacement, lay_over
from napari_milcnn.inference.predict import Classifier
from napari_milcnn.labels.table import LabelledImage, LabelTable
from napari_milcnn.model.trained_model import TrainedModel

_STRONGEST_TINT = 0.75
"""Share of the class's colour in the picture where its class map is 1."""


@dataclass(frozen=True)
class PreviewImage:
    """One image with the class map of its label laid over it.

    Attributes
    ----------
    image : LabelledImage
        The image.
    label : str
        Its first label: the class whose map is shown.
    score : float
        Score of that class.
    top : str
        Class with the highest score.
    rgb : ndarray
        The picture, uint8 (Y, X, 3).
    """

    image: LabelledImage
    label: str
    score: float
    top: str
    rgb: np.ndarray


def choose_images(table: LabelTable, count: int) -> tuple[LabelledImage, ...]:
    """Choose images to preview: validation images where there are any, one of each class in turn."""
    candidates = table.part("validation").images or table.images
    by_class = {name: [image for image in candidates if image.labels[0] == name] for name in table.classes}
    rounds = max(map(len, by_class.values()), default=0)
    return tuple(images[i] for i in range(rounds) for images in by_class.values() if i < len(images))[:count]


def preview_images(
    model: TrainedModel, table: LabelTable, images: Sequence[LabelledImage], device: str
) -> Iterator[PreviewImage]:
    """Classify the first plane of some images of a table and draw the class map of their label.

    Raises
    ------
    MilcnnError
        If one cannot be read or computed.
    """
    classifier = Classifier(model, device=device)
    for row in images:
        with table.open(row) as image:
            found = classifier.classify(image, [0])
            picture = thumbnail(image, 0, classifier.model_input(image).channels)
            step = -(-image.plane_shape[0] // len(picture))
        index = model.classes.index(row.labels[0])
        placement = MapPlacement(*(one / step for one in found.placement))
        over = lay_over(found.class_maps[0, index], placement, picture.shape[:2])
        rgb = _tinted(picture, over, class_colours(model.classes)[row.labels[0]])
        yield PreviewImage(row, row.labels[0], float(found.scores[0, index]), found.top[0], rgb)


def _tinted(rgb: np.ndarray, share: np.ndarray, colour: str) -> np.ndarray:
    """Mix a colour into uint8 (Y, X, 3) where a map (Y, X), 0 to 1, is high."""
    strength = _STRONGEST_TINT * share[..., None]
    mixed = rgb * (1 - strength) + 255 * np.array(to_rgb(colour)) * strength
    return np.asarray(mixed.round().astype(np.uint8))
