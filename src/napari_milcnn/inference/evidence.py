"""Where in an image a class was seen: three kinds of evidence, all laid over the image pixel by pixel.

* `object`: the class map read through the image's own foreground. Each object (cell) carries the mean of the class
  map inside it. The network knows *which* cell, the foreground knows where the cell ends. Where the model names a
  reference class (control, wild type), the map is not p of the class but p against the reference, the logistic function
  of the difference of both logits: the network's own scale drops out, which class maps learned from whole images do not
  share (in a field where few cells are affected, an affected cell may carry a p of .3 and yet be ten times likelier
  than not), and one half is a threshold with a meaning.
* `class_map`: the instance probabilities p laid over the image; coarse, one value per stride.
* `jacobian`: the paper's section 2.5. Evidence starts at the MIL layer as P_i p_ij on class i's map and is propagated
  back through every layer, a(l-1) = f((dz(l)/dz(l-1))^T a(l)), with f = ReLU (`guided`) or identity (`plain`). Because
  z(l) depends on z(l-1) through a ReLU, f = ReLU is the forward ReLU's mask and a ReLU on the backward signal at every
  hidden pre-activation and at the input. Summed over input channels.

Guided propagation can look sharp while it ignores the class (Adebayo et al. 2018); benchmarks/ scores every kind
against known cells and against a network whose last layers were randomised.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from napari_milcnn.errors import ComputeError, ImageError, OptionsError
from napari_milcnn.images.open import open_image
from napari_milcnn.images.stack import ImageStack
from napari_milcnn.inference.cells import checked_labels
from napari_milcnn.inference.class_maps import MapPlacement, lay_over, mean_inside, relative_to_reference
from napari_milcnn.inference.devices import DeviceChoice, free_memory, is_out_of_memory
from napari_milcnn.inference.foreground import find_objects, scaled
from napari_milcnn.inference.jacobian import jacobian_maps
from napari_milcnn.inference.model_input import ModelInput
from napari_milcnn.inference.predict import Classifier, Prediction
from napari_milcnn.inference.tiling import bytes_per_pixel
from napari_milcnn.model.trained_model import TrainedModel
from napari_milcnn.options import ComputeOptions, EvidenceOptions, ForegroundOptions, make_options

_JACOBIAN_MEMORY = 4
"""Times the memory of a forward run that going back through every layer takes."""


@dataclass(frozen=True)
class PlaneEvidence:
    """Evidence of one plane.

    Attributes
    ----------
    plane : int
        Index into the prediction's planes.
    maps : ndarray
        Evidence, float32 (classes, Y, X), of the image's own size.
    objects : ndarray or None
        Foreground objects the evidence was read through, int32 (Y, X); None for the other kinds.
    """

    plane: int
    maps: np.ndarray
    objects: np.ndarray | None


@dataclass(frozen=True)
class Evidence:
    """Evidence of every plane of an image.

    Attributes
    ----------
    classes : tuple of str
        The classes asked for, in the order of `maps`.
    kind : str
        object, class_map or jacobian.
    maps : ndarray
        float32 (planes, classes, Y, X).
    objects : ndarray or None
        Foreground objects, int32 (planes, Y, X), for object evidence.
    prediction : Prediction
        What the model said of the image.
    pixel_size : float or None
        µm per image pixel.
    thresholds : dict
        Class -> threshold, where the model's card has them for this kind.
    """

    classes: tuple[str, ...]
    kind: str
    maps: np.ndarray
    objects: np.ndarray | None
    prediction: Prediction
    pixel_size: float | None
    thresholds: dict[str, float]


class EvidenceMaker:
    """Evidence for one image after another, a plane at a time.

    Parameters
    ----------
    model : TrainedModel
        What to ask.
    **options
        Fields of `EvidenceOptions`.
    """

    def __init__(self, model: TrainedModel, **options: Any) -> None:
        self.model = model
        self.options = make_options(EvidenceOptions, options)
        shared = {name: getattr(self.options, name) for name in ComputeOptions.model_fields}
        self.classifier = Classifier(model, **shared)

    def planes(
        self,
        image: ImageStack | ModelInput,
        prediction: Prediction,
        classes: Sequence[str] | None = None,
        foreground: np.ndarray | None = None,
    ) -> Iterator[PlaneEvidence]:
        """Evidence of each plane of a prediction already made of the same image.

        `foreground`, a label image of your own (planes, Y, X), has all planes of the image.
        """
        chosen = class_indices(self.model, classes)
        model_input = self.classifier.model_input(image)
        self.check_memory(model_input, len(chosen), 1)
        for row, at in enumerate(prediction.planes):
            plane, objects = model_input.image.planes.index(at), None
            if self.options.kind == "object":
                objects = foreground[plane] if foreground is not None else self.foreground(model_input, plane)
            maps = self._maps(model_input, prediction.class_maps[row], plane, chosen, objects)
            yield PlaneEvidence(row, maps, objects)

    def foreground(self, image: ImageStack | ModelInput, plane: int) -> np.ndarray:
        """Objects of one plane, int32 (Y, X), found as the options or the model's card say."""
        options = self.options.foreground or self.model.card.foreground
        model_input = self.classifier.model_input(image)
        channel = model_input.image.plane(plane, (self._foreground_channel(model_input, options),))[0]
        return find_objects(channel, scaled(options, 1 / model_input.zoom))

    def _foreground_channel(self, model_input: ModelInput, options: ForegroundOptions) -> int:
        channels, image = model_input.channels, model_input.image
        if options.channel is None:
            return channels[0]
        if options.channel in self.model.channels:
            return channels[self.model.channels.index(options.channel)]
        if options.channel in image.channels:
            return image.channels.index(options.channel)
        raise ImageError(
            f"foreground channel {options.channel!r} is neither in the model ({', '.join(self.model.channels)}) nor in "
            f"{image.name} ({', '.join(image.channels)}); name one of these"
        )

    def _maps(
        self, model_input: ModelInput, maps: np.ndarray, plane: int, chosen: list[int], objects: np.ndarray | None
    ) -> np.ndarray:
        if self.options.kind == "jacobian":
            pixels = torch.from_numpy(model_input.read(plane))[None]
            return _back_on_image(self._jacobian(pixels, chosen)[0], model_input)
        if objects is not None and self.model.card.reference is not None:
            maps = relative_to_reference(maps, self.model.classes.index(self.model.card.reference))
        laid = lay_over(maps[chosen], model_input.placement, model_input.image.plane_shape)
        return laid if objects is None else mean_inside(laid, objects)

    def _jacobian(self, pixels: Tensor, chosen: list[int]) -> np.ndarray:
        choice = self.classifier.runner.choice
        try:
            return jacobian_maps(self.model.network, pixels, chosen, self.options.rule, choice)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise ComputeError(f"{choice} failed while propagating evidence: {error}") from error
            raise ComputeError(_too_large(self.model, (pixels.shape[-2], pixels.shape[-1]), choice)) from error

    def check_memory(self, model_input: ModelInput, classes: int, planes: int) -> None:
        """Refuse what would not fit: maps of so many planes kept together, or a Jacobian map of one plane."""
        free = free_memory(torch.device("cpu"))
        height, width = model_input.image.plane_shape
        needed = 4 * height * width * classes * (planes + 2)
        if needed > free:
            raise ComputeError(
                f"evidence for {classes} classes in {planes} plane(s) of {height} x {width} px needs "
                f"{needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free; "
                "ask for fewer classes, or give fewer planes or a crop at a time"
            )
        choice = self.classifier.runner.choice
        if self.options.kind == "jacobian":
            needed = (
                _JACOBIAN_MEMORY * bytes_per_pixel(self.model.network) * model_input.shape[0] * model_input.shape[1]
            )
            if needed > free_memory(choice.device):
                raise ComputeError(_too_large(self.model, model_input.shape, choice))


def evidence(
    model: TrainedModel,
    image: Any,
    classes: Sequence[str] | None = None,
    *,
    foreground: np.ndarray | ForegroundOptions | None = None,
    prediction: Prediction | None = None,
    **options: Any,
) -> Evidence:
    """Show where each class was seen.

    Parameters
    ----------
    model : TrainedModel
        What to ask.
    image : path, array or ImageStack
        Anything `open_image` takes.
    classes : sequence of str, optional
        Which classes; all by default.
    foreground : ndarray of int, or ForegroundOptions, optional
        Object evidence: a label image of your own, (planes, Y, X) or (Y, X), from any segmentation program; or how to
        find the objects. By default as the model's card says.
    prediction : Prediction, optional
        What `classify` said of the same image, so as not to run it twice.
    **options
        Fields of `EvidenceOptions`: kind, rule, and those of `classify`.

    Returns
    -------
    Evidence
        Maps (planes, classes, Y, X).

    Raises
    ------
    OptionsError
        If a class, channel or option is unknown.
    LabelsError
        If the label image does not fit the image.
    ComputeError
        If a Jacobian map of this size does not fit into memory; the sentence names the size that does.
    """
    how = foreground if isinstance(foreground, ForegroundOptions) else None
    maker = EvidenceMaker(model, foreground=how, **options)
    stack = open_image(image)
    labels = None if foreground is None or how else checked_labels(np.asarray(foreground), stack)
    model_input = maker.classifier.model_input(stack)
    prediction = prediction or maker.classifier.classify(model_input)
    _check_prediction(model_input, prediction)
    maker.check_memory(model_input, len(class_indices(model, classes)), len(prediction.planes))
    planes = list(maker.planes(model_input, prediction, classes, labels))
    chosen = tuple(model.classes[i] for i in class_indices(model, classes))
    return Evidence(
        classes=chosen,
        kind=maker.options.kind,
        maps=np.stack([plane.maps for plane in planes]),
        objects=np.stack([plane.objects for plane in planes]) if planes[0].objects is not None else None,  # type: ignore[misc]
        prediction=prediction,
        pixel_size=stack.pixel_size,
        thresholds=model.card.thresholds_for(maker.options.kind),
    )


def _check_prediction(model_input: ModelInput, prediction: Prediction) -> None:
    image = model_input.image
    found, wanted = prediction.class_maps.shape[1:], (len(model_input.model.classes), *model_input.map_shape)
    if (
        found != wanted
        or prediction.placement != model_input.placement
        or not set(prediction.planes) <= set(image.planes)
    ):
        raise OptionsError(
            f"the prediction has {len(prediction.planes)} planes of class maps {found} and this image gives "
            f"{len(image.planes)} of {wanted}; "
            "it was made of another image, model or pixel size: make it again"
        )


def class_indices(model: TrainedModel, classes: Sequence[str] | None) -> list[int]:
    """Return the indices of named classes; of all for None.

    Raises
    ------
    OptionsError
        If a name is not among the model's classes or stands there twice, or no class is named.
    """
    if classes is None:
        return list(range(len(model.classes)))
    unknown = [name for name in classes if name not in model.classes]
    if unknown or isinstance(classes, str):
        raise OptionsError(f"class {unknown or classes!r} is not in the model; its classes: {', '.join(model.classes)}")
    if not classes or len(set(classes)) < len(classes):
        raise OptionsError(f"classes is {list(classes)}; expected different names out of: {', '.join(model.classes)}")
    return [model.classes.index(name) for name in classes]


def _back_on_image(maps: np.ndarray, model_input: ModelInput) -> np.ndarray:
    """Undo margins and resampling of maps in model pixels (classes, Y, X)."""
    (top, left), (height, width) = model_input.margin, model_input.scaled_shape
    inner = maps[:, top : top + height, left : left + width]
    if model_input.zoom == 1:
        return inner
    offset = 0.5 / model_input.zoom - 0.5
    return lay_over(inner, MapPlacement(1 / model_input.zoom, offset, offset), model_input.image.plane_shape)


def _too_large(model: TrainedModel, shape: tuple[int, int], choice: DeviceChoice) -> str:
    side = int((free_memory(choice.device) / (_JACOBIAN_MEMORY * bytes_per_pixel(model.network))) ** 0.5)
    return (
        f"a Jacobian map of {shape[0]} x {shape[1]} px does not fit into the memory of {choice.device}; about "
        f"{side} x {side} px do: crop the image, or use kind='object' or 'class_map', which run in tiles"
    )
