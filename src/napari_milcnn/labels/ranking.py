"""Rank unlabelled images: first those that the model is unsure of and that differ from the labelled images.

Uncertainty alone can put twenty images first that are uncertain for the same reason. So each image also has an
embedding, a vector of features. The next image is always the one with the largest product of its uncertainty and its
squared distance to the nearest image that is labelled or ranked before it. This is the greedy covering of Sener &
Savarese 2018 ("Active learning for convolutional neural networks: a core-set approach"), weighted by uncertainty as in
the gradient embedding of BADGE (Ash et al. 2020, "Deep batch active learning by diverse, uncertain gradient lower
bounds"). BADGE draws the next image at random; here it is the largest, so the same table always gives the same order.

Why the embedding is the mean of the encoder's last feature maps: it describes the image before the classes are read
from it, works for an image of any size, and needs no second pass: one pass over the image gives class maps and the
moments of the features, tile by tile and from the same model input as in a classification.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import torch

from napari_milcnn.images.stack import ImageStack
from napari_milcnn.inference.model_input import model_input
from napari_milcnn.inference.pipeline import ImageEnd, ImageRequest, each_image
from napari_milcnn.inference.predict import scores_from_logits
from napari_milcnn.inference.tiling import Tile, TiledInference, map_windows
from napari_milcnn.labels.table import LabelTable
from napari_milcnn.model.trained_model import TrainedModel
from napari_milcnn.options import ComputeOptions, make_options
from napari_milcnn.progress import Progress, Steps

_SPREAD = 500
"""Number of images that are ranked one by one. The images after them are sorted once, by uncertainty and distance to
those, because nobody labels so many images without training again."""
_LEAST = 0.01
"""Least uncertainty of an image, so that distance decides between images that the model is sure of."""


@dataclass(frozen=True)
class Ranking:
    """The order in which to label images.

    Attributes
    ----------
    order : tuple of int
        The rows; the one to label next is first, and rows of images that failed are last.
    scores : ndarray
        Score of each class for each row of `order`, mean over planes, float64 (rows, classes); NaN if the image failed.
    uncertainty : ndarray
        Uncertainty of the model for each row of `order`, from 0 to 1, float64 (rows,); NaN if the image failed.
    errors : mapping
        Row -> why its image failed.
    """

    order: tuple[int, ...]
    scores: np.ndarray
    uncertainty: np.ndarray
    errors: Mapping[int, str]


class Embedded(NamedTuple):
    """Scores and embedding of an image."""

    scores: np.ndarray
    """Score of each class, mean over planes, float64 (classes,)."""
    embedding: np.ndarray
    """Mean of each feature over the map and over the planes, float64 (features,)."""


def rank_images(
    model: TrainedModel, table: LabelTable, rows: Sequence[int], *, known: Sequence[int] = (), **options: object
) -> Steps[Ranking]:
    """Rank images by how much their labels would teach, one image at a time; leave the loop between steps to cancel.

    Parameters
    ----------
    model : TrainedModel
        The model to improve.
    table : LabelTable
        All images.
    rows : sequence of int
        Indices in `table.images` of the images to rank.
    known : sequence of int
        Indices of the images that are already labelled: images that resemble them are ranked late.
    **options
        Fields of `ComputeOptions`: tile, device, precision, engine, batch_size, match_pixel_size, relative_size.

    Yields
    ------
    Progress
        After each image, and in large images after each tile; the result of the last step is the `Ranking`.

    Raises
    ------
    OptionsError
        If an option is unknown or has an impossible value.
    """
    embedder = Embedder(model, **options)
    found: dict[int, Embedded] = {}
    errors: dict[int, str] = {}
    wanted = list(dict.fromkeys([*known, *rows]))
    requests = [ImageRequest(str(table.images[row].file), partial(table.open, table.images[row])) for row in wanted]
    for step in each_image(requests, lambda _request, image: embedder.steps(image)):
        row, event = wanted[step.number], step.result
        if isinstance(event, Embedded):
            found[row] = event
        elif isinstance(event, ImageEnd) and event.failure:
            errors[row] = event.failure
        yield Progress(step.number, step.total, table.images[row].name, step.share)
    ranking = _ranked(model, found, errors, list(dict.fromkeys(rows)), known)
    yield Progress(len(wanted), len(wanted), result=ranking)


def _ranked(
    model: TrainedModel,
    found: Mapping[int, Embedded],
    errors: Mapping[int, str],
    rows: Sequence[int],
    known: Sequence[int],
) -> Ranking:
    """Order the rows that were embedded, and put the others after them."""
    embedded = [row for row in rows if row in found]
    count = len(embedded)
    scores = np.full((len(rows), len(model.classes)), np.nan)
    uncertainties = np.full(len(rows), np.nan)
    order = np.arange(0)
    if embedded:
        scores[:count] = [found[row].scores for row in embedded]
        uncertainties[:count] = uncertainty(scores[:count], model.card.single_label)
        embeddings = np.stack([found[row].embedding for row in embedded])
        labelled = [found[row].embedding for row in known if row in found]
        order = spread_out(
            embeddings, uncertainties[:count], np.reshape(labelled, (len(labelled), embeddings.shape[1]))
        )
    order = np.concatenate([order, np.arange(count, len(rows))])
    all_rows = [*embedded, *(row for row in rows if row not in found)]
    return Ranking(tuple(all_rows[i] for i in order), scores[order], uncertainties[order], dict(errors))


def uncertainty(scores: np.ndarray, single_label: bool) -> np.ndarray:
    """Return the uncertainty of scores (images, classes), from 0 to 1, (images,).

    With one label per image this is 1 minus the difference between the two highest scores. With several labels it is 1
    if a score is one half, and falls to 0 as the score that is nearest to one half goes to 0 or 1.
    """
    if not single_label:
        return np.asarray(1 - 2 * np.abs(scores - 0.5).min(1))
    ordered = np.sort(scores, 1)
    return np.asarray(1 - ordered[:, -1] + ordered[:, -2:-1].sum(1))


def spread_out(embeddings: np.ndarray, weights: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Order images so that each has a large weight and is far from the images before it.

    Parameters
    ----------
    embeddings : ndarray
        Embeddings of the images, (images, features).
    weights : ndarray
        Weights from 0 to 1, (images,).
    known : ndarray
        Embeddings of images that come before all others, (known, features); there may be none.

    Returns
    -------
    ndarray of int
        Indices of the images in their new order.
    """
    weights = np.maximum(weights, _LEAST)
    distance = np.full(len(embeddings), np.inf)
    for embedding in known:
        distance = np.minimum(distance, _squared_distances(embeddings, embedding))
    left, chosen = np.ones(len(embeddings), bool), []
    for _ in range(min(_SPREAD, len(embeddings))):
        value = weights * np.where(np.isinf(distance), 1, distance)
        best = int(np.where(left, value, -1).argmax())
        chosen.append(best)
        left[best] = False
        distance = np.minimum(distance, _squared_distances(embeddings, embeddings[best]))
    rest = np.flatnonzero(left)
    return np.concatenate([chosen, rest[np.argsort(-(weights * distance)[rest], kind="stable")]]).astype(int)


def _squared_distances(embeddings: np.ndarray, embedding: np.ndarray) -> np.ndarray:
    return np.asarray(((embeddings - embedding) ** 2).sum(1))


class Embedder:
    """Computes scores and embeddings of many images with one model.

    Parameters
    ----------
    model : TrainedModel
        The model; it is not changed.
    **options
        Fields of `ComputeOptions`.
    """

    def __init__(self, model: TrainedModel, **options: object) -> None:
        self.model = model
        self.options = make_options(ComputeOptions, options)
        self.runner = TiledInference(model, self.options)

    def steps(self, image: ImageStack) -> Iterator[tuple[float, Embedded | None]]:
        """Embed all planes of an image; yield the finished share after each tile, and the result at the end.

        Raises
        ------
        ImageError
            If the image does not have the model's channels or cannot be read.
        """
        prepared = model_input(
            self.model, image, match_pixel_size=self.options.match_pixel_size, relative_size=self.options.relative_size
        )
        tiles = map_windows(prepared.map_shape, self.runner.tile(prepared.shape), self.model.network.placement)
        count, planes = len(self.model.classes), range(len(image.planes))
        scores, features = np.zeros(count), np.zeros(self.model.network.maps.in_channels)
        done, total = 0, len(tiles) * len(planes)
        for plane in planes:
            logits = np.empty((1, count, *prepared.map_shape), np.float32)
            for window in tiles:
                y0, y1, x0, x1 = window
                part = self.runner.encode(prepared, [Tile(plane, window)])[0]
                logits[0, :, y0:y1, x0:x1] = part.logits
                features += part.moments[0]
                done += 1
                yield done / total, None
            scores += self._scores(logits)
        places = len(planes) * prepared.map_shape[0] * prepared.map_shape[1]
        yield 1.0, Embedded(scores / len(planes), features / places)

    def _scores(self, logits: np.ndarray) -> np.ndarray:
        """Return the scores (classes,) of the class maps of one plane (1, classes, Y, X)."""
        with torch.inference_mode():
            output = self.model.network.read_maps(torch.from_numpy(logits))
            return scores_from_logits(self.model, output.scores)[0].numpy()
