"""Classify whole images of any size with a trained model, plane by plane.

A plane is computed in one piece if it fits into memory, and otherwise in tiles. Tiles are exact: no layer is padded and
every tile begins at a multiple of the stride. The class map put together from tiles is therefore the class map of the
plane (up to the rounding of the convolutions), and pooling works on the whole map.

The scores decide which class an image shows (`Prediction.scores`). They are the network's last layer, y, divided by the
temperature on the model's card, then a softmax if each image shows one class, or sigmoids if an image may show several.
P, the pooled probability of each class alone (`Prediction.probabilities`), says how much of the image shows that class,
whatever else it shows.

Planes of one or many images, such as all fields of a well, can be one bag (`classify_group`): the instances of all of
them are pooled together. `Prediction.bags` has all that it takes, a few numbers a plane, so that class maps need not be
kept. A larger field then counts for more, and a field that shows nothing counts as one without the phenotype.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from typing import TypeAlias

import numpy as np
import pandas as pd
import torch

from napari_milcnn.errors import ImageError
from napari_milcnn.images.intensity import Plates, PlateScale
from napari_milcnn.images.lazy_array import ArrayLike
from napari_milcnn.images.open import open_image
from napari_milcnn.images.stack import ImageStack, PlaneIndex, Window
from napari_milcnn.inference.class_maps import MapPlacement
from napari_milcnn.inference.model_input import ModelInput, model_input
from napari_milcnn.inference.tiling import Tile, TiledInference, TileMaps, map_windows
from napari_milcnn.inference.unlike import (
    PlaneLook,
    feature_vectors,
    on_object_sizes,
    plane_look,
    shows_something,
    unlike,
)
from napari_milcnn.model.trained_model import TrainedModel, check_finite
from napari_milcnn.options import ComputeOptions, make_options
from napari_milcnn.progress import Progress, Steps
from napari_milcnn.schema import (
    NO_CLASS,
    UNLIKE,
    UNLIKE_REASON,
    pooled_column,
    score_column,
    unlike_sentence,
)

ImageSource: TypeAlias = str | os.PathLike[str] | ArrayLike | ImageStack
"""Everything that `open_image` takes."""


@dataclass(frozen=True)
class Bags:
    """What the instances of each plane come to, from which planes of any images can be pooled into one bag.

    Attributes
    ----------
    instances : ndarray
        Number of instances of each plane, int64 (planes,).
    summaries : ndarray
        Summary of each plane and class by the pooling (`MilPooling.summary`), float32 (planes, classes).
    features : ndarray
        Mean, then standard deviation, over the instances, of the encoder's features, float32 (planes, 2 * features);
        (planes, 0) where they are not kept.
    """

    instances: np.ndarray
    summaries: np.ndarray
    features: np.ndarray

    def only(self, rows: slice | Sequence[int]) -> Bags:
        """Return some planes."""
        return Bags(self.instances[rows], self.summaries[rows], self.features[rows])

    @staticmethod
    def joined(parts: Sequence[Bags]) -> Bags:
        """Put the planes of several images one after another."""
        return Bags(*(np.concatenate([getattr(part, one.name) for part in parts]) for one in fields(Bags)))


@dataclass(frozen=True)
class Prediction:
    """The result of applying a model to an image.

    Attributes
    ----------
    classes : tuple of str
        Names, in the order of every `classes` axis.
    probabilities : ndarray
        P, the pooled image-level probability of each class, float32 (planes, classes).
    scores : ndarray
        Probabilities after the last layer, float32 (planes, classes). They decide which class an image shows.
    class_maps : ndarray
        Instance probabilities p, float32 (planes, classes, Y, X), one value per instance.
    planes : tuple of PlaneIndex
        Position, time and z of each plane.
    placement : MapPlacement
        The place of the class maps on the image, in image pixels.
    name : str
        The image's name.
    notes : tuple of str
        Sentences about what is not known of the image, about what was done to it, and about the device. `warnings` has
        them, too.
    device : str
        The device and the precision of the computation, and why they were chosen.
    seconds : float
        Time for reading and computing.
    unlike : ndarray
        At most 1 for planes that resemble the training images, above 1 for others, float32 (planes,). NaN if the model
        does not know its training images.
    unlike_reasons : tuple of str
        For each plane, what differs from the training images, or that there is nothing to classify; else empty.
    has_structure : ndarray
        Whether a plane shows more than noise, bool (planes,); where training images show no more, True. A plane that
        does not has no top class.
    bags : Bags
        What it takes to pool planes, of this image and others, into one bag.
    plate : PlateScale or None
        What the intensities were scaled by, where the model scales them by plate or batch.
    looks : tuple of PlaneLook
        What the pixels of each plane look like: sharpness, saturation and the like.
    """

    classes: tuple[str, ...]
    probabilities: np.ndarray
    scores: np.ndarray
    class_maps: np.ndarray
    planes: tuple[PlaneIndex, ...]
    placement: MapPlacement
    name: str
    notes: tuple[str, ...]
    device: str
    seconds: float
    unlike: np.ndarray
    unlike_reasons: tuple[str, ...]
    has_structure: np.ndarray
    bags: Bags
    plate: PlateScale | None = None
    looks: tuple[PlaneLook, ...] = ()

    def plane_name(self, index: int) -> str:
        """Name a plane by its place along the axes that vary, such as 't 3 z 0'; empty for a single plane."""
        varying = [i for i, values in enumerate(zip(*self.planes, strict=True)) if len(set(values)) > 1]
        plane = self.planes[index]
        return " ".join(f"{plane._fields[i]} {plane[i]}" for i in varying)

    def only(self, row: int) -> Prediction:
        """Return the prediction of one plane; `row` is its index in `planes`."""
        one = slice(row, row + 1)
        return replace(self, probabilities=self.probabilities[one], scores=self.scores[one],
                       class_maps=self.class_maps[one], planes=self.planes[one], unlike=self.unlike[one],
                       unlike_reasons=self.unlike_reasons[one], has_structure=self.has_structure[one],
                       bags=self.bags.only(one), looks=self.looks[one])  # fmt: skip

    def without_maps(self) -> Prediction:
        """Return the same prediction without its class maps and features, so that thousands of them fit into memory."""
        bags = replace(self.bags, features=self.bags.features[:, :0].copy())
        return replace(self, class_maps=self.class_maps[:, :, :0, :0].copy(), bags=bags)

    @property
    def top(self) -> tuple[str, ...]:
        """The class with the highest score, one for each plane; `NO_CLASS` where there is nothing to classify."""
        best = (self.classes[i] for i in self.scores.argmax(1))
        return tuple(name if known else NO_CLASS for name, known in zip(best, self.has_structure, strict=True))

    @property
    def is_unlike(self) -> np.ndarray:
        """Whether a plane is unlike the training images or shows nothing, bool (planes,)."""
        return np.asarray((self.unlike > 1) | ~self.has_structure)  # NaN is not above 1

    @property
    def margin(self) -> np.ndarray:
        """Difference between the highest score and the next, float32 (planes,); 1 for a single class."""
        ordered = np.sort(self.scores, 1)
        return ordered[:, -1] - ordered[:, -2] if len(self.classes) > 1 else np.ones(len(ordered), np.float32)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Everything to know before the result is trusted: `notes`, then `unlike_sentences`."""
        return (*self.notes, *self.unlike_sentences())

    def unlike_sentences(self) -> tuple[str, ...]:
        """Say of each plane that is unlike the training images, or shows nothing, in what; its name first."""
        found = []
        for row in np.flatnonzero(self.is_unlike):
            ahead = f"{name}: " if (name := self.plane_name(int(row))) else ""
            found.append(ahead + unlike_sentence(self.unlike[row], self.unlike_reasons[row], self.has_structure[row]))
        return tuple(found)

    def with_notes(self, sentences: Sequence[str]) -> Prediction:
        """Return the same prediction with further notes, each once."""
        return replace(self, notes=tuple(dict.fromkeys((*self.notes, *sentences)))) if sentences else self

    def table(self) -> pd.DataFrame:
        """Return a table with one row per plane: position, t, z, top, margin, unlike, its reason, scores and P."""
        columns: dict[str, object] = dict(zip(PlaneIndex._fields, np.array(self.planes).T, strict=True))
        columns |= {"top": self.top, "margin": self.margin, UNLIKE: self.unlike, UNLIKE_REASON: self.unlike_reasons}
        for column, values in ((score_column, self.scores), (pooled_column, self.probabilities)):
            columns |= {column(name): own for name, own in zip(self.classes, values.T, strict=True)}
        return pd.DataFrame(columns)


def joined(parts: Sequence[Prediction]) -> Prediction:
    """Join predictions of one image in the order of its planes; if several have the same plane, the last one counts."""
    rows = {plane: (part, i) for part in parts for i, plane in enumerate(part.planes)}
    chosen = [rows[plane] for plane in sorted(rows)]
    return replace(
        parts[-1],
        probabilities=np.stack([part.probabilities[i] for part, i in chosen]),
        scores=np.stack([part.scores[i] for part, i in chosen]),
        class_maps=np.stack([part.class_maps[i] for part, i in chosen]),
        planes=tuple(sorted(rows)),
        unlike=np.stack([part.unlike[i] for part, i in chosen]),
        unlike_reasons=tuple(part.unlike_reasons[i] for part, i in chosen),
        has_structure=np.stack([part.has_structure[i] for part, i in chosen]),
        bags=Bags.joined([part.bags.only([i]) for part, i in chosen]),
        looks=tuple(look for part, i in chosen for look in part.looks[i : i + 1]),
        notes=tuple(dict.fromkeys(note for part in parts for note in part.notes)),
        seconds=sum(part.seconds for part in parts),
    )


class Classifier:
    """A model that is ready on a device to classify many images.

    Parameters
    ----------
    model : TrainedModel
        The model to apply.
    **options
        Fields of `ComputeOptions`: tile, device, precision, engine, batch_size, match_pixel_size, relative_size.
    """

    def __init__(self, model: TrainedModel, **options: object) -> None:
        self.model = model
        self.options = make_options(ComputeOptions, options)
        self.inference = TiledInference(model, self.options)
        self._plates = Plates()

    def model_input(self, image: ImageSource | ModelInput) -> ModelInput:
        """Open an image as the input of the model; a `ModelInput` is returned unchanged.

        For a model that scales intensities by plate, an image of which nothing is known but its file is taken to share
        its plate with the images of its folder, as in `Plates`.
        """
        if isinstance(image, ModelInput):
            return image
        opened = open_image(image)
        opened = self._plates.open(opened) if opened.plates is None else opened
        options = self.options
        return model_input(
            self.model, opened, match_pixel_size=options.match_pixel_size, relative_size=options.relative_size
        )

    def classify(self, image: ImageSource | ModelInput, planes: Sequence[int] | None = None) -> Prediction:
        """Classify every plane of an image, or some planes; see the function `classify`."""
        return joined([*self.parts(image, planes)])

    def parts(self, image: ImageSource | ModelInput, planes: Sequence[int] | None = None) -> Iterator[Prediction]:
        """Classify every plane of an image, or some planes: the predictions of one batch after another."""
        return (step.result for step in self.steps(image, planes) if step.result is not None)

    def steps(self, image: ImageSource | ModelInput, planes: Sequence[int] | None = None) -> Steps[Prediction]:
        """Classify every plane of an image, or some planes, a batch at a time. To cancel, leave the loop.

        Parameters
        ----------
        image : path, array, ImageStack or ModelInput
            The image.
        planes : sequence of int, optional
            Indices of the planes; all by default.

        Yields
        ------
        Progress
            After each tile. Its result is the prediction of the planes that are complete with this tile, or None.

        Raises
        ------
        ImageError
            If the image does not have the model's channels or one of the planes, or cannot be read.
        """
        self.inference.forget_warnings()
        model_input = self.model_input(image)
        numbers = _plane_numbers(model_input.image, planes)
        tile = self.inference.tile(model_input.shape)
        tiles = map_windows(model_input.map_shape, tile, self.model.network.placement)
        size = self.inference.batch_that_fits(tile)
        total, done, on_sizes = len(numbers) * len(tiles), 0, ""
        with ThreadPoolExecutor(
            1, "plane_look"
        ) as beside:  # statistics of the pixels need one core, beside the network
            for start in range(0, len(numbers), size):
                batch, started = numbers[start : start + size], time.perf_counter()
                for plane in batch:
                    model_input.intensity(plane)  # both need it
                looks = [beside.submit(plane_look, model_input, plane) for plane in batch]
                maps = _PlaneMaps.empty(model_input, len(batch))
                for window in tiles:
                    maps.put(window, self.inference.encode(model_input, [Tile(plane, window) for plane in batch]))
                    done += len(batch)
                    if window is not tiles[-1]:
                        yield Progress(done, total, model_input.image.name)
                part = self._prediction(model_input, batch, maps, [look.result() for look in looks], started)
                if not on_sizes:  # one number for an image: that of the first planes that differ
                    on_sizes = on_object_sizes(model_input, part.looks)
                    part = part.with_notes([on_sizes] if on_sizes else [])
                yield Progress(done, total, model_input.image.name, result=part)

    def vectors(self, image: ImageSource | ModelInput, planes: Sequence[int]) -> tuple[np.ndarray, list[PlaneLook]]:
        """Measure what `training_look` learns from: features (planes, values), and the look of each plane."""
        model_input = self.model_input(image)
        tiles = map_windows(model_input.map_shape, self.inference.tile(model_input.shape), self.model.network.placement)
        moments = np.zeros((len(planes), 2, self.model.network.maps.in_channels))
        for row, plane in enumerate(planes):
            for window in tiles:
                moments[row] += self.inference.encode(model_input, [Tile(plane, window)])[0].moments
        looks = [plane_look(model_input, plane) for plane in planes]
        return feature_vectors(moments, math.prod(model_input.map_shape)), looks

    def _prediction(
        self,
        model_input: ModelInput,
        planes: Sequence[int],
        maps: _PlaneMaps,
        looks: Sequence[PlaneLook],
        started: float,
    ) -> Prediction:
        """Pool the class maps, logits (planes, classes, Y, X), of some planes."""
        output, plate = self.inference.read_maps(maps.logits), model_input.plate_scale
        values, reasons = unlike(self.model, maps.features, looks)
        return Prediction(
            classes=self.model.classes,
            probabilities=output.probabilities,
            scores=scores_from_logits(self.model, output.scores).numpy(),
            class_maps=torch.from_numpy(maps.logits).sigmoid_().numpy(),  # in place: nothing needs the logits any more
            planes=tuple(model_input.image.planes[plane] for plane in planes),
            placement=model_input.placement,
            name=model_input.image.name,
            notes=(
                *model_input.warnings,
                *([plate.doubt] if plate and plate.doubt else []),
                *self.inference.warnings,
            ),
            device=str(self.inference.choice),
            seconds=time.perf_counter() - started,
            unlike=values,
            unlike_reasons=reasons,
            has_structure=np.array([shows_something(self.model, look) for look in looks]),
            bags=Bags(np.full(len(planes), maps.instances), output.summaries, maps.features.astype(np.float32)),
            plate=plate,
            looks=tuple(looks),
        )


@dataclass(frozen=True)
class _PlaneMaps:
    """What the network made of whole planes: class-map logits (planes, classes, Y, X), and moments of its features."""

    logits: np.ndarray
    moments: np.ndarray

    @staticmethod
    def empty(model_input: ModelInput, planes: int) -> _PlaneMaps:
        network = model_input.model.network
        logits = np.empty((planes, network.maps.out_channels, *model_input.map_shape), np.float32)
        return _PlaneMaps(logits, np.zeros((planes, 2, network.maps.in_channels)))

    def put(self, window: Window, tiles: Sequence[TileMaps]) -> None:
        """Put in the tiles of all planes at one window of the map."""
        y0, y1, x0, x1 = window
        for logits, moments, tile in zip(self.logits, self.moments, tiles, strict=True):
            logits[:, y0:y1, x0:x1] = tile.logits
            moments += tile.moments

    @property
    def instances(self) -> int:
        """Number of instances of a plane."""
        return math.prod(self.logits.shape[2:])

    @property
    def features(self) -> np.ndarray:
        """Mean, then standard deviation, of each feature over the map: (planes, 2 * features)."""
        return feature_vectors(self.moments, self.instances)


def scores_from_logits(model: TrainedModel, y: torch.Tensor) -> torch.Tensor:
    """Turn the last layer's y (planes, classes) into scores: divide by the temperature, then softmax or sigmoids."""
    y = y / model.card.temperature
    scores = y.softmax(1) if model.card.single_label else y.sigmoid()
    check_finite(model.card.name, "scores", scores)
    return scores


def _plane_numbers(image: ImageStack, planes: Sequence[int] | None) -> list[int]:
    count = len(image.planes)
    wanted = sorted(set(range(count) if planes is None else planes))
    if not wanted or not all(0 <= plane < count for plane in wanted):
        raise ImageError(
            f"planes {wanted} cannot be classified: {image.name} has {count} planes; expected one or more numbers from "
            f"0 to {count - 1}"
        )
    return wanted


def classify(
    model: TrainedModel, image: ImageSource | ModelInput, planes: Sequence[int] | None = None, **options: object
) -> Prediction:
    """Classify every plane (position, t, z) of an image, or some planes.

    Parameters
    ----------
    model : TrainedModel
        The model to apply.
    image : path, array or ImageStack
        Anything `open_image` takes. For a model that scales intensities by plate or batch, an image that
        `mil.Plates(...)` opened; the plate of a path alone is its folder.
    planes : sequence of int, optional
        Indices of the planes in `ImageStack.planes`; all by default.
    **options
        Fields of `ComputeOptions`: tile, device, precision, engine, batch_size, match_pixel_size, relative_size.

    Returns
    -------
    Prediction
        Scores and P (planes, classes), and class maps (planes, classes, Y, X).

    Raises
    ------
    ImageError
        If the image cannot be read, or does not have the model's channels or one of the planes.
    OptionsError
        If an option is unknown or has an impossible value.
    ComputeError
        If the device fails, or not even one receptive field fits into memory.
    ModelError
        If the network's answer is NaN or infinite.
    """
    return Classifier(model, **options).classify(image, planes)


@dataclass(frozen=True)
class GroupPrediction:
    """The result of pooling all planes of a group of images, such as the fields of a well, into one bag.

    Attributes
    ----------
    classes : tuple of str
        Names, in the order of every `classes` axis.
    probabilities : ndarray
        P of the instances of all planes together, float32 (classes,).
    scores : ndarray
        Scores of the bag, float32 (classes,). They decide which class the group shows.
    instances, planes : int
        Number of instances in the bag, and of planes that they come from.
    has_structure : bool
        Whether any plane shows more than noise; where none does the group has no top class.
    images : tuple of Prediction
        Prediction of each image by itself, without class maps and features.
    """

    classes: tuple[str, ...]
    probabilities: np.ndarray
    scores: np.ndarray
    instances: int
    planes: int
    has_structure: bool = True
    images: tuple[Prediction, ...] = ()

    @property
    def top(self) -> str:
        """The class with the highest score; `NO_CLASS` where there is nothing to classify."""
        return self.classes[int(self.scores.argmax())] if self.has_structure else NO_CLASS

    @property
    def median_scores(self) -> np.ndarray:
        """Median, over the images, of their mean scores over planes, (classes,): the group without one bag."""
        return np.asarray(np.median([image.scores.mean(0) for image in self.images], 0))


def classify_group(model: TrainedModel, images: Iterable[ImageSource], **options: object) -> GroupPrediction:
    """Classify a group of images, such as the fields of a well, as one bag.

    The instances of all planes of all images are pooled together, as if they were one large image.

    Parameters
    ----------
    model : TrainedModel
        The model to apply.
    images : iterable of path, array or ImageStack
        The images, of any sizes; they are opened and classified one after another.
    **options
        Fields of `ComputeOptions`.

    Returns
    -------
    GroupPrediction
        P and scores of the whole group, (classes,), and the prediction of each image beside them.

    Raises
    ------
    ImageError
        If there is no image, or one cannot be read or does not have the model's channels.
    MilcnnError
        As `classify`.
    """
    classifier = Classifier(model, **options)
    found = tuple(classifier.classify(image).without_maps() for image in images)
    if not found:
        raise ImageError("the group has no images; give the fields of a well, for example")
    pooled = pool_bags(model, Bags.joined([one.bags for one in found]))
    return replace(pooled, has_structure=any(one.has_structure.any() for one in found), images=found)


def pool_bags(model: TrainedModel, bags: Bags) -> GroupPrediction:
    """Pool the instances of planes into one bag, and apply the last layer.

    Parameters
    ----------
    model : TrainedModel
        The model by which the planes were classified.
    bags : Bags
        At least one plane.
    """
    pooling, summaries = model.network.pooling, torch.from_numpy(bags.summaries)
    with torch.inference_mode():
        joined_summary = pooling.join(summaries, torch.from_numpy(bags.instances))
        probabilities, y = model.network.read_summaries(joined_summary[None])
    scores = scores_from_logits(model, y)[0].numpy()
    return GroupPrediction(model.classes, probabilities[0].numpy(), scores, int(bags.instances.sum()),
                           len(bags.instances))  # fmt: skip
