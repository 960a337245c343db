"""Whole images of any size, time and z, through a trained model.

A plane is run in one piece where it fits into memory, else in tiles. Tiles are exact: no layer is padded and every
tile begins at a multiple of the stride, so the class map put together from tiles is the class map of the plane (up to
the rounding of the convolutions), and pooling sees it whole.

Which figure decides: the network's last layer, y, over the temperature on the model's card, read as a softmax where
each image shows one class and as sigmoids where it may show several (`Prediction.scores`). P, the pooled probability of
each class alone (`Prediction.probabilities`), says how much of the image shows that class, whatever else it shows.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch

from napari_milcnn.errors import ImageError
from napari_milcnn.images.open import open_image
from napari_milcnn.images.stack import ImageStack, PlaneIndex
from napari_milcnn.inference.class_maps import MapPlacement
from napari_milcnn.inference.model_input import ModelInput, model_input
from napari_milcnn.inference.tiling import Tile, TiledInference, map_windows
from napari_milcnn.model.trained_model import TrainedModel
from napari_milcnn.options import ComputeOptions, make_options
from napari_milcnn.progress import Progress
from napari_milcnn.schema import pooled_column, score_column


@dataclass(frozen=True)
class Prediction:
    """What a model says of an image.

    Attributes
    ----------
    classes : tuple of str
        Names, in the order of every `classes` axis.
    probabilities : ndarray
        P, the pooled image-level probability of each class, float32 (planes, classes).
    scores : ndarray
        Probabilities after the last layer, float32 (planes, classes): these decide.
    class_maps : ndarray
        Instance probabilities p, float32 (planes, classes, Y, X), one value per instance.
    planes : tuple of PlaneIndex
        Position, time and z of each plane.
    placement : MapPlacement
        Where the class maps lie on the image, in image pixels.
    name : str
        The image's name.
    warnings : tuple of str
        What was done to the image or the device, in sentences.
    device : str
        Where it was computed, in which precision, and why.
    seconds : float
        Time taken, reading included.
    """

    classes: tuple[str, ...]
    probabilities: np.ndarray
    scores: np.ndarray
    class_maps: np.ndarray
    planes: tuple[PlaneIndex, ...]
    placement: MapPlacement
    name: str
    warnings: tuple[str, ...]
    device: str
    seconds: float

    def plane_name(self, index: int) -> str:
        """Name a plane by the axes along which the image has several, such as 't 3 z 0'; empty for a single plane."""
        varying = [i for i, values in enumerate(zip(*self.planes, strict=True)) if len(set(values)) > 1]
        plane = self.planes[index]
        return " ".join(f"{plane._fields[i]} {plane[i]}" for i in varying)

    def only(self, row: int) -> Prediction:
        """Return what is said of one plane, by its place in `planes`."""
        one = slice(row, row + 1)
        return replace(self, probabilities=self.probabilities[one], scores=self.scores[one],
                       class_maps=self.class_maps[one], planes=self.planes[one])  # fmt: skip

    def without_maps(self) -> Prediction:
        """Return the same prediction without its class maps, to be kept by the thousand."""
        return replace(self, class_maps=self.class_maps[:, :, :0, :0].copy())

    @property
    def top(self) -> tuple[str, ...]:
        """The class with the highest score, one for each plane."""
        return tuple(self.classes[i] for i in self.scores.argmax(1))

    @property
    def margin(self) -> np.ndarray:
        """Distance from the highest score to the next, float32 (planes,); 1 for a single class."""
        ordered = np.sort(self.scores, 1)
        return ordered[:, -1] - ordered[:, -2] if len(self.classes) > 1 else np.ones(len(ordered), np.float32)

    def table(self) -> pd.DataFrame:
        """One row per plane: position, t, z, top class, margin, then score and P of each class."""
        rows = pd.DataFrame(self.planes, columns=PlaneIndex._fields)
        rows["top"], rows["margin"] = self.top, self.margin
        for column, values in ((score_column, self.scores), (pooled_column, self.probabilities)):
            rows = rows.join(pd.DataFrame(values, columns=[column(name) for name in self.classes]))
        return rows


def joined(parts: Sequence[Prediction]) -> Prediction:
    """Put parts of one image together, in the order of its planes; of a plane that stands in several, the last wins."""
    rows = {plane: (part, i) for part in parts for i, plane in enumerate(part.planes)}
    chosen = [rows[plane] for plane in sorted(rows)]
    return replace(
        parts[-1],
        probabilities=np.stack([part.probabilities[i] for part, i in chosen]),
        scores=np.stack([part.scores[i] for part, i in chosen]),
        class_maps=np.stack([part.class_maps[i] for part, i in chosen]),
        planes=tuple(sorted(rows)),
        warnings=tuple(dict.fromkeys(said for part in parts for said in part.warnings)),
        seconds=sum(part.seconds for part in parts),
    )


class Classifier:
    """A model made ready on a device, for many images.

    Parameters
    ----------
    model : TrainedModel
        What to apply.
    **options
        Fields of `ComputeOptions`: tile, device, precision, engine, batch_size, match_pixel_size.
    """

    def __init__(self, model: TrainedModel, **options: Any) -> None:
        self.model = model
        self.options = make_options(ComputeOptions, options)
        self.runner = TiledInference(model, self.options)

    def model_input(self, image: Any) -> ModelInput:
        """Open an image as the model takes it; one that is a `ModelInput` already is returned as it is."""
        if isinstance(image, ModelInput):
            return image
        return model_input(self.model, open_image(image), match_pixel_size=self.options.match_pixel_size)

    def classify(self, image: Any, planes: Sequence[int] | None = None) -> Prediction:
        """Classify every plane of an image, or some of them; see `classify`."""
        return joined([step.result for step in self.steps(image, planes) if step.result is not None])

    def steps(self, image: Any, planes: Sequence[int] | None = None) -> Iterator[Progress[Prediction]]:
        """Classify every plane, or those of some numbers, a batch at a time: cancel between steps by leaving the loop.

        Yields
        ------
        Progress
            After each tile; its result is the prediction of the planes that were finished with it.

        Raises
        ------
        ImageError
            If the image has not the model's channels, cannot be read, or lacks a plane that is asked for.
        """
        self.runner.warnings.clear()
        seen = self.model_input(image)
        numbers = _plane_numbers(seen.image, planes)
        tile = self.runner.tile(seen.shape)
        tiles = map_windows(seen.map_shape, tile, self.model.network.placement)
        size = self.runner.batch_that_fits(tile)
        total, done = len(numbers) * len(tiles), 0
        for start in range(0, len(numbers), size):
            batch, began = numbers[start : start + size], time.perf_counter()
            logits = np.empty((len(batch), len(self.model.classes), *seen.map_shape), np.float32)
            for window in tiles:
                y0, y1, x0, x1 = window
                logits[:, :, y0:y1, x0:x1] = self.runner.run(seen, [Tile(plane, window) for plane in batch])
                done += len(batch)
                if window is not tiles[-1]:
                    yield Progress(done, total, seen.image.name)
            part = self._prediction(seen, batch, logits, time.perf_counter() - began)
            yield Progress(done, total, seen.image.name, result=part)

    def _prediction(self, seen: ModelInput, planes: Sequence[int], logits: np.ndarray, seconds: float) -> Prediction:
        output = self.runner.read_maps(logits)
        return Prediction(
            classes=self.model.classes,
            probabilities=output.probabilities.numpy(),
            scores=scores_from_logits(self.model, output.scores).numpy(),
            class_maps=torch.from_numpy(logits).sigmoid().numpy(),
            planes=tuple(seen.image.planes[plane] for plane in planes),
            placement=seen.placement,
            name=seen.image.name,
            warnings=(*seen.warnings, *self.runner.warnings),
            device=str(self.runner.choice),
            seconds=seconds,
        )


def scores_from_logits(model: TrainedModel, y: torch.Tensor) -> torch.Tensor:
    """Read the last layer's y (planes, classes) as the scores that decide."""
    y = y / model.card.temperature
    return y.softmax(1) if model.card.single_label else y.sigmoid()


def _plane_numbers(image: ImageStack, planes: Sequence[int] | None) -> list[int]:
    count = len(image.planes)
    wanted = sorted(set(range(count) if planes is None else planes))
    if not wanted or not all(0 <= plane < count for plane in wanted):
        raise ImageError(f"planes {wanted} were asked for, but the {count} planes of {image.name} count from 0")
    return wanted


def classify(model: TrainedModel, image: Any, planes: Sequence[int] | None = None, **options: Any) -> Prediction:
    """Classify every plane (position, t, z) of an image, or some of them.

    Parameters
    ----------
    model : TrainedModel
        What to apply.
    image : path, array or ImageStack
        Anything `open_image` takes.
    planes : sequence of int, optional
        Numbers of the planes, in the order of `ImageStack.planes`; all by default.
    **options
        Fields of `ComputeOptions`: tile, device, precision, engine, batch_size, match_pixel_size.

    Returns
    -------
    Prediction
        Scores and P (planes, classes), class maps (planes, classes, Y, X).

    Raises
    ------
    ImageError
        If the image cannot be read or has not the model's channels.
    OptionsError
        If an option is unknown or impossible.
    ComputeError
        If the device fails where no smaller step is left.
    """
    return Classifier(model, **options).classify(image, planes)
