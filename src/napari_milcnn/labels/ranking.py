"""Which unlabelled images to label next: those of which the model is unsure, and which differ from what is known.

Uncertainty alone offers twenty images that are unsure for one and the same reason. So each image also has a place, its
embedding, and the next one offered is always the one with the largest product of its uncertainty and its squared
distance to the nearest image that is labelled or offered before it. This is the greedy covering of Sener & Savarese
2018 ("Active learning for convolutional neural networks: a core-set approach"), weighted by uncertainty as the
gradient embedding of BADGE does (Ash et al. 2020, "Deep batch active learning by diverse, uncertain gradient lower
bounds"). BADGE draws at random where this takes the largest: the same table then always gives the same order.

Why the embedding is the mean of the encoder's last feature maps: it is what the model sees of the image before the
classes are read from it, for an image of any size, and it costs nothing. The map layer of a copy of the network is
widened by one row of the identity for each feature, so that one pass over the image, tile by tile and through the same
model input as in classification, gives class maps and features at once.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from napari_milcnn.images.stack import ImageStack
from napari_milcnn.inference.model_input import model_input
from napari_milcnn.inference.pipeline import ImageEnd, ImageRequest, each_image
from napari_milcnn.inference.predict import scores_from_logits
from napari_milcnn.inference.tiling import Tile, TiledInference, map_windows
from napari_milcnn.labels.table import LabelTable
from napari_milcnn.model.trained_model import TrainedModel
from napari_milcnn.options import ComputeOptions, make_options
from napari_milcnn.progress import Progress

_SPREAD = 500
"""Images that are spread out one by one; those behind them follow by uncertainty and distance to what is known by then:
nobody labels so many without training again."""
_LEAST = 0.01
"""Uncertainty of an image that the model is sure of: among such images distance decides."""


@dataclass(frozen=True)
class Ranking:
    """Which images to label next.

    Attributes
    ----------
    order : tuple of int
        The rows, what to label next first and what could not be looked at last.
    scores : ndarray
        Score of each class for each row of `order`, the mean over planes, float64 (rows, classes); NaN where the image
        could not be looked at.
    uncertainty : ndarray
        How unsure the model is of each row of `order`, from 0 to 1, float64 (rows,); NaN likewise.
    errors : dict
        Row -> why its image could not be looked at.
    """

    order: tuple[int, ...]
    scores: np.ndarray
    uncertainty: np.ndarray
    errors: Mapping[int, str]


class Embedded(NamedTuple):
    """What a model sees of an image."""

    scores: np.ndarray
    """Score of each class, the mean over planes, float64 (classes,)."""
    embedding: np.ndarray
    """Mean of each feature over the map and the planes, float64 (features,)."""


def rank_images(
    model: TrainedModel, table: LabelTable, rows: Sequence[int], *, known: Sequence[int] = (), **options: Any
) -> Iterator[Progress[Ranking]]:
    """Rank images by what labelling them would teach, an image at a time; cancel between steps by leaving the loop.

    Parameters
    ----------
    model : TrainedModel
        The current model.
    table : LabelTable
        All images.
    rows : sequence of int
        Places in `table.images` of those to rank.
    known : sequence of int
        Places of those that are labelled already: what resembles them comes late.
    **options
        Fields of `ComputeOptions`: tile, device, precision, engine, batch_size, match_pixel_size.

    Yields
    ------
    Progress
        After each image, and for large ones after each tile; the result of the last step is the `Ranking`.

    Raises
    ------
    OptionsError
        If an option is unknown or impossible.
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
    seen = [row for row in rows if row in found]
    scores = np.full((len(rows), len(model.classes)), np.nan)
    unsure = np.full(len(rows), np.nan)
    order = np.arange(0)
    if seen:
        scores[: len(seen)] = [found[row].scores for row in seen]
        unsure[: len(seen)] = uncertainty(scores[: len(seen)], model.card.single_label)
        places = np.stack([found[row].embedding for row in seen])
        around = [found[row].embedding for row in known if row in found]
        order = spread_out(places, unsure[: len(seen)], np.reshape(around, (len(around), places.shape[1])))
    unread = np.arange(len(seen), len(rows))
    order = np.concatenate([order, unread])
    names = [*seen, *(row for row in rows if row not in found)]
    return Ranking(tuple(names[i] for i in order), scores[order], unsure[order], dict(errors))


def uncertainty(scores: np.ndarray, single_label: bool) -> np.ndarray:
    """How unsure scores (images, classes) are, from 0 to 1, (images,).

    With one label an image 1 less the margin from the top class to the next; with several, how near one half the class
    lies that is nearest to it.
    """
    if not single_label:
        return np.asarray(1 - 2 * np.abs(scores - 0.5).min(1))
    ordered = np.sort(scores, 1)
    return np.asarray(1 - ordered[:, -1] + ordered[:, -2:-1].sum(1))


def spread_out(embeddings: np.ndarray, weights: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Order images so that each is heavy and far from those before it.

    Parameters
    ----------
    embeddings : ndarray
        Places, (images, features).
    weights : ndarray
        From 0 to 1, (images,).
    known : ndarray
        Places before all others, (known, features); there may be none.

    Returns
    -------
    ndarray of int
        Numbers of the images, the first first.
    """
    weights = np.maximum(weights, _LEAST)
    distance = np.full(len(embeddings), np.inf)
    for place in known:
        distance = np.minimum(distance, _squared(embeddings, place))
    left, chosen = np.ones(len(embeddings), bool), []
    for _ in range(min(_SPREAD, len(embeddings))):
        worth = weights * np.where(np.isinf(distance), 1, distance)
        best = int(np.where(left, worth, -1).argmax())
        chosen.append(best)
        left[best] = False
        distance = np.minimum(distance, _squared(embeddings, embeddings[best]))
    rest = np.flatnonzero(left)
    return np.concatenate([chosen, rest[np.argsort(-(weights * distance)[rest], kind="stable")]]).astype(int)


def _squared(embeddings: np.ndarray, place: np.ndarray) -> np.ndarray:
    return np.asarray(((embeddings - place) ** 2).sum(1))


class Embedder:
    """A model made ready on a device to see scores and embeddings of many images.

    Parameters
    ----------
    model : TrainedModel
        It is not changed.
    **options
        Fields of `ComputeOptions`.
    """

    def __init__(self, model: TrainedModel, **options: Any) -> None:
        self.model = model
        self.options = make_options(ComputeOptions, options)
        self.runner = TiledInference(_widened(model), self.options)

    def steps(self, image: ImageStack) -> Iterator[tuple[float, Embedded | None]]:
        """Look at every plane of an image: the share done after each tile, and at the end what was seen.

        Raises
        ------
        ImageError
            If the image has not the model's channels or cannot be read.
        """
        seen = model_input(self.model, image, match_pixel_size=self.options.match_pixel_size)
        tiles = map_windows(seen.map_shape, self.runner.tile(seen.shape), self.model.network.placement)
        count, planes = len(self.model.classes), range(len(image.planes))
        scores, features = np.zeros(count), np.zeros(self.model.network.maps.in_channels)
        done, total = 0, len(tiles) * len(planes)
        for plane in planes:
            logits = np.empty((1, count, *seen.map_shape), np.float32)
            for window in tiles:
                y0, y1, x0, x1 = window
                part = self.runner.run(seen, [Tile(plane, window)])[0]
                logits[0, :, y0:y1, x0:x1] = part[:count]
                features += part[count:].sum((1, 2), dtype=float)
                done += 1
                yield done / total, None
            scores += self._scores(logits)
        places = len(planes) * seen.map_shape[0] * seen.map_shape[1]
        yield 1.0, Embedded(scores / len(planes), features / places)

    def _scores(self, logits: np.ndarray) -> np.ndarray:
        """Pool the class maps of one plane, (1, classes, Y, X), and decide -> (classes,)."""
        with torch.inference_mode():
            output = self.model.network.read_maps(torch.from_numpy(logits))
            return scores_from_logits(self.model, output.scores)[0].numpy()


def _widened(model: TrainedModel) -> TrainedModel:
    """Return a model whose map layer passes the encoder's features on, behind the classes."""
    network = copy.deepcopy(model.network)
    count, features = network.maps.out_channels, network.maps.in_channels
    maps = nn.Conv2d(features, count + features, 1)
    with torch.no_grad():
        maps.weight.copy_(torch.cat([network.maps.weight, torch.eye(features)[..., None, None]]))
        maps.bias.copy_(torch.cat([network.maps.bias, torch.zeros(features)]))  # type: ignore[union-attr,list-item]
    network.maps = maps
    names = (*model.classes, *(f"feature {i} of the encoder" for i in range(features)))
    options = model.card.network.model_copy(update={"classes": len(names)})
    return replace(model, network=network, card=model.card.model_copy(update={"classes": names, "network": options}))
