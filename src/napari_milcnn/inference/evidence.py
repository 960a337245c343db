"""Evidence shows where in an image a class is found. There are four kinds, all with one value per image pixel.

* `object`: the class map, averaged inside each object (cell) of the image's foreground. The network finds *which* cell
  shows the class, and the foreground gives the outline of the cell. If the model names a reference class (control, wild
  type), the class is compared with it: the map is the logistic function of the difference of both logits instead of p.
  Class maps that were learned from whole images have no common scale: in a field with few affected cells, an affected
  cell may have a p of .3 and still be ten times likelier than not. The comparison removes the scale, so one half is a
  meaningful threshold.
* `class_map`: the instance probabilities p laid over the image; coarse, one value per stride. With `detail` 2 or 4 the
  network also runs on the shifted image, and the maps are interleaved to a half or a quarter of the stride.
* `class_map_image`: the class map times the brightness of the image, its mean over the model's channels, each scaled to
  its own darkest percent and brightest thousandth. For images without objects (tissue, lawns, texture) whose structures
  are brighter than their background: the class map says where, and the image gives the outline.
* `jacobian`: the paper's section 2.5. Evidence starts at the MIL layer as P_i p_ij on class i's map and is propagated
  back through every layer, a(l-1) = f((dz(l)/dz(l-1))^T a(l)), with f = ReLU (`guided`) or identity (`plain`). Because
  z(l) depends on z(l-1) through a ReLU, f = ReLU means the forward ReLU's mask, and a ReLU on the backward signal at
  every hidden pre-activation and at the input. The result is summed over the input channels.

Guided propagation can look sharp although it ignores the class (Adebayo et al. 2018). benchmarks/ scores every kind
against known cells, and against a network whose last layers were randomised.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar, cast

import numpy as np
import torch
from scipy import ndimage

from napari_milcnn.errors import ComputeError, ImageError, OptionsError
from napari_milcnn.images.open import open_image
from napari_milcnn.images.stack import ImageStack, Window
from napari_milcnn.inference.cells import LabelSource, as_label_image
from napari_milcnn.inference.class_maps import MapPlacement, laid_rows, mean_brightness, relative_to_reference
from napari_milcnn.inference.devices import free_memory, is_out_of_memory
from napari_milcnn.inference.foreground import are_consistent, find_objects, scaled
from napari_milcnn.inference.jacobian import jacobian_maps
from napari_milcnn.inference.model_input import ModelInput, model_input
from napari_milcnn.inference.predict import Classifier, ImageSource, Prediction, joined
from napari_milcnn.inference.strips.objects import objects_in_strips
from napari_milcnn.inference.strips.regions import Regions, looked_up, means_in_strips, measured
from napari_milcnn.inference.strips.room import (
    COARSE_BYTES,
    LABEL_BYTES,
    bytes_a_pixel,
    expected_bytes,
    sample_windows,
)
from napari_milcnn.inference.strips.rows import LARGEST_AT_ONCE, Computed, MapsByRows, RowPlane, Scratch, ScratchPlane
from napari_milcnn.inference.tiling import Tile, finer_shape, image_window, instances_of, windows
from napari_milcnn.model.card import OwnEvidence
from napari_milcnn.model.trained_model import TrainedModel, check_finite
from napari_milcnn.options import DETAILS, ComputeOptions, EvidenceOptions, ForegroundOptions, make_options

_WORK_MEMORY = 50
"""Bytes a pixel for objects, masks and files beside the maps of classes: an upper estimate. A plane of 7000 x 7000 px
that showed two classes took 51 with their maps, and less than 30 without (benchmarks/speed/any_size.py)."""
_LARGEST_BAND = 1024
"""Side of the parts of Jacobian maps of a plane that is cut in strips, in px: a row of them is in memory."""
_PLANES_OF_MASKS, _PLANES_OF_CLASS = 2, 4
"""Planes of labels in temporary files while masks are cut of maps: of all classes together, and of each."""
_EVERY_FOR_JACOBIAN = 4
"""Of nine windows, those on the diagonal: for each, the network runs forwards and back."""
_STRIP_MEMORY = 1.5e9
"""Bytes that the work on strips takes, whatever the size of the plane."""
_CORNER = 64
"""Side of what is read of an image to see whether it can be read, in px."""
_Made = TypeVar("_Made")


@dataclass(frozen=True)
class PlaneEvidence:
    """Evidence of one plane.

    Attributes
    ----------
    plane : int
        Index into the prediction's planes.
    maps : ndarray
        Evidence, float32 (classes, Y, X), of the image's size. Where a plane is cut in strips, the map of each class is
        computed, or read from disk, where it is sliced (`MapsByRows`), and `objects` is a `ScratchPlane`.
    objects : ndarray or None
        Foreground objects of object evidence, int32 (Y, X); None for the other kinds.
    classes : tuple of str
        The classes, in the order of `maps`.
    values : ndarray or None
        Object evidence of every class of the model in each object, float32 (classes, labels), beginning with label 0;
        None for the other kinds.
    reference : str or None
        Class that object evidence is compared with, if there is one.
    """

    plane: int
    maps: np.ndarray
    objects: np.ndarray | None
    classes: tuple[str, ...]
    values: np.ndarray | None = None
    reference: str | None = None

    @cached_property
    def regions(self) -> Regions:
        """What is measured of the objects, once for all masks that are made from this evidence."""
        assert self.objects is not None
        return measured(self.objects)


@dataclass(frozen=True)
class Evidence:
    """Evidence of every plane of an image.

    Attributes
    ----------
    classes : tuple of str
        The requested classes, in the order of `maps`.
    kind : str
        object, class_map, class_map_image or jacobian.
    maps : ndarray
        Evidence, float32 (planes, classes, Y, X).
    objects : ndarray or None
        Foreground objects of object evidence, int32 (planes, Y, X); None for the other kinds.
    prediction : Prediction
        The model's prediction for the image.
    pixel_size : float or None
        µm per image pixel.
    thresholds : dict
        Class -> threshold from the model's card, for the classes that have one for this kind.
    values : tuple of ndarray or None
        For each plane, the object evidence of every class of the model, float32 (classes, labels).
    reference : str or None
        Class that object evidence is compared with, if there is one.
    """

    classes: tuple[str, ...]
    kind: str
    maps: np.ndarray
    objects: np.ndarray | None
    prediction: Prediction
    pixel_size: float | None
    thresholds: dict[str, float]
    values: tuple[np.ndarray, ...] | None = None
    reference: str | None = None


class EvidenceMaker:
    """A model that is ready on a device to make evidence for many images, a plane at a time.

    Parameters
    ----------
    model : TrainedModel
        The model to apply.
    **options
        Fields of `EvidenceOptions`.
    """

    def __init__(self, model: TrainedModel, **options: object) -> None:
        self.model = model
        self.options = _resolved(make_options(EvidenceOptions, options), model.card.evidence)
        shared = {name: getattr(self.options, name) for name in ComputeOptions.model_fields}
        self.classifier = Classifier(model, **shared)
        self.keep_runs(True)

    def keep_runs(self, wanted: bool) -> None:
        """Say whether evidence will be made of what is classified: Jacobian maps then go back from its forward run."""
        self.classifier.inference.keeps_run = wanted and self.options.kind == "jacobian"

    @property
    def uses_network(self) -> bool:
        """Whether evidence is more than a reading of the class maps: the network is used again."""
        return self.options.kind == "jacobian" or (self.options.kind != "object" and (self.options.detail or 1) > 1)

    def planes(
        self,
        image: ImageStack | ModelInput,
        prediction: Prediction,
        classes: Sequence[str] | None = None,
        foreground: np.ndarray | None = None,
        smooth: float = 0.0,
    ) -> Iterator[PlaneEvidence]:
        """Make evidence for each plane of a prediction.

        Parameters
        ----------
        image : ImageStack or ModelInput
            The image of the prediction.
        prediction : Prediction
            Prediction for all planes of the image, or for some.
        classes : sequence of str, optional
            The classes; all by default.
        foreground : ndarray of int, optional
            A label image of your own for object evidence, (planes, Y, X), with all planes of the image. Without it, a
            plane that shows nothing to classify has no objects: what stands out of its noise are no cells.
        smooth : float
            Sigma, in px, by which masks will smooth the evidence: smoothed maps of a large plane need room on the disk.

        Yields
        ------
        PlaneEvidence
            Evidence of one plane.
        """
        chosen = class_indices(self.model, classes)
        names = tuple(self.model.classes[index] for index in chosen)
        model_input = self.classifier.model_input(image).scaled_as(prediction.plate)
        _check_prediction(model_input, prediction)
        self.check_memory(model_input, len(chosen), 1)
        for row, place in enumerate(prediction.planes):
            plane, maps = model_input.image.planes.index(place), prediction.class_maps[row]
            has_work = self.options.kind != "object" or bool(prediction.has_structure[row])
            if self._in_strips(model_input) and foreground is None and has_work:
                Scratch().check_room(self.room(model_input, prediction.only(row), plane, chosen, smooth))
            if self.options.kind == "object":
                own = None if foreground is None else foreground[plane]
                objects = self._objects(model_input, plane, own, is_empty=not prediction.has_structure[row])
                values = self._values(model_input, maps, objects)
                laid = looked_up(objects, values[chosen])
                yield PlaneEvidence(row, laid, objects, names, values, self.model.card.reference)
            else:
                yield PlaneEvidence(row, self._maps(model_input, prediction.only(row), plane, chosen), None, names)

    def takes(self, image: ImageStack, *, foreground: bool) -> ModelInput:
        """Return an image as the input of the model, after it was checked as far as that is quick.

        Parameters
        ----------
        image : ImageStack
            The image.
        foreground : bool
            Whether its objects are to be found, too.

        Raises
        ------
        ImageError
            If it has not the channels that are needed, its pixel size cannot be true, or the corner of its first plane
            cannot be read.
        """
        options = self.classifier.options
        found = model_input(
            self.model, image, match_pixel_size=options.match_pixel_size, relative_size=options.relative_size
        )
        if foreground and self.options.kind == "object":
            self._foreground_index(found)
        height, width = image.plane_shape
        image.plane(0, found.channels, Window(0, min(height, _CORNER), 0, min(width, _CORNER)))
        return found

    def foreground(self, image: ImageStack | ModelInput, plane: int) -> np.ndarray:
        """Find the objects of one plane, int32 (Y, X), as the options or the model's card say."""
        model_input = self.classifier.model_input(image)
        channel = self.foreground_channel(model_input, plane)
        return find_objects(channel, scaled(self._foreground_options, 1 / model_input.zoom))

    def _objects(self, model_input: ModelInput, plane: int, own: np.ndarray | None, *, is_empty: bool) -> np.ndarray:
        """Return the objects of one plane, int32 (Y, X), for a large plane as a `ScratchPlane`: `own`, or found."""
        options, image = scaled(self._foreground_options, 1 / model_input.zoom), model_input.image
        if not self._in_strips(model_input):
            nothing = np.zeros(image.plane_shape, np.int32)
            return own if own is not None else nothing if is_empty else self.foreground(model_input, plane)
        if own is not None:
            return cast("np.ndarray", ScratchPlane(own, Scratch()))
        if is_empty:
            return cast("np.ndarray", Scratch().plane(image.plane_shape, np.int32))
        rows = _channel(image, plane, self._foreground_index(model_input)).read
        return cast("np.ndarray", objects_in_strips(rows, image.plane_shape, options, Scratch()))

    def foreground_channel(self, image: ImageStack | ModelInput, plane: int) -> np.ndarray:
        """Return the channel of one plane in which objects are found, (Y, X)."""
        model_input = self.classifier.model_input(image)
        channel: np.ndarray = model_input.image.plane(plane, (self._foreground_index(model_input),))[0]
        return channel

    @property
    def _foreground_options(self) -> ForegroundOptions:
        return (self.options.foreground or ForegroundOptions()).over(self.model.card.foreground)

    def _foreground_index(self, model_input: ModelInput) -> int:
        channels, image, options = model_input.channels, model_input.image, self._foreground_options
        if options.channel is None:
            return channels[0]
        if options.channel in self.model.channels:
            return channels[self.model.channels.index(options.channel)]
        if options.channel in image.channels:
            return image.channels.index(options.channel)
        raise ImageError(
            f"the foreground channel {options.channel!r} is neither in the model ({', '.join(self.model.channels)}) "
            f"nor in {image.name} ({', '.join(image.channels)}); choose one of these channels"
        )

    def _values(self, model_input: ModelInput, maps: np.ndarray, objects: np.ndarray) -> np.ndarray:
        """Return the evidence of every class in each object (Y, X), float32 (classes, labels)."""
        if self.model.card.reference is not None:
            maps = relative_to_reference(maps, self.model.classes.index(self.model.card.reference))
        laid = [_laid(one, model_input.placement, model_input.image.plane_shape) for one in maps]
        return means_in_strips(objects, lambda strip: (one.read(*strip) for one in laid), len(maps))

    def _maps(self, model_input: ModelInput, found: Prediction, plane: int, chosen: list[int]) -> np.ndarray:
        """Return the evidence of some classes in a plane, (classes, Y, X), for a large plane as `MapsByRows`."""
        in_strips = self._in_strips(model_input)
        scratch = Scratch(None if in_strips else np.inf)
        if self.options.kind == "jacobian":
            maps = [
                _at_image_pixels(one, model_input) for one in self._jacobian(model_input, found, plane, chosen, scratch)
            ]
        else:
            maps = self._class_maps(model_input, found, plane, chosen, scratch)
        if self.options.kind == "class_map_image":
            channels = [_channel(model_input.image, plane, channel) for channel in model_input.channels]
            bright = mean_brightness(channels, scratch)
            maps = [_product(one, bright) for one in maps]
        laid = MapsByRows(maps)
        return cast("np.ndarray", laid) if in_strips else np.asarray(laid)

    def _class_maps(
        self, model_input: ModelInput, found: Prediction, plane: int, chosen: list[int], scratch: Scratch
    ) -> list[RowPlane]:
        """Return class maps at the step that is asked for, laid over the image: (Y, X) each."""
        maps: Sequence[np.ndarray | RowPlane] = found.class_maps[0][chosen]
        placement, detail = model_input.placement, self.options.detail or 1
        if detail > 1:
            fine, top = [scratch.plane(finer_shape(model_input, detail), np.float32) for _ in chosen], 0
            for rows in self.classifier.inference.finer_maps(model_input, plane, np.stack(maps), chosen, detail):
                for one, own in zip(fine, rows, strict=True):
                    one.write(top, own)
                top += rows.shape[1]
            maps, placement = fine, placement._replace(stride=placement.stride / detail)
        return [_laid(one, placement, model_input.image.plane_shape) for one in maps]

    def _jacobian(
        self, model_input: ModelInput, found: Prediction, plane: int, chosen: list[int], scratch: Scratch
    ) -> list[ScratchPlane]:
        """Propagate evidence back to the pixels of a plane, a map (Y, X) in model pixels for each class.

        In parts, if the plane does not fit into memory in one piece; when memory runs out, in parts half as large, and
        in the end on the CPU.
        """
        maps = [scratch.plane(model_input.shape, np.float32) for _ in chosen]
        height, width = model_input.shape

        def make(side: int) -> list[ScratchPlane]:
            for top in range(0, height, side):
                band = Window(top, min(top + side, height), 0, width)
                rows = self._jacobian_of(model_input, found, plane, chosen, band, side)
                check_finite(self.model.card.name, "Jacobian maps", rows)
                for one, own in zip(maps, rows, strict=True):
                    one.write(top, own)
            return maps

        return self._in_smaller_parts(model_input, make)

    def _in_smaller_parts(self, model_input: ModelInput, make: Callable[[int], _Made]) -> _Made:
        """Call a function with the side of the parts in which Jacobian maps are made, in px, until memory suffices."""
        inference = self.classifier.inference
        side = inference.traced_side(model_input.shape)
        if self._in_strips(model_input):
            side = min(side, _LARGEST_BAND)
        while True:
            try:
                return make(side)
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise ComputeError(f"{inference.choice} failed while propagating evidence: {error}") from error
            if side >= 2 * self.model.network.placement.stride:
                side = min(side, max(model_input.shape)) // 2
                inference.warn(f"out of memory on {inference.choice.device}: Jacobian maps were made in smaller parts")
            else:
                inference.move_to_cpu()
                side = inference.traced_side(model_input.shape)

    def _jacobian_of(
        self, model_input: ModelInput, found: Prediction, plane: int, chosen: list[int], window: Window, side: int
    ) -> np.ndarray:
        """Compute a window of Jacobian maps, in model pixels, in parts of a side: (classes, Y, X).

        Each part is computed from all instances that see it, so that parts are exact.
        """
        top, bottom, left, right = window
        whole = np.zeros((len(chosen), bottom - top, right - left), np.float32)
        for own in windows(whole.shape[1:], (side, side)):
            part = Window(own.y0 + top, own.y1 + top, own.x0 + left, own.x1 + left)
            maps = self._jacobian_part(model_input, found, plane, chosen, part)
            whole[:, own.y0 : own.y0 + maps.shape[1], own.x0 : own.x0 + maps.shape[2]] = maps
        return whole

    def _jacobian_part(
        self, model_input: ModelInput, found: Prediction, plane: int, chosen: list[int], part: Window
    ) -> np.ndarray:
        """Compute a window of Jacobian maps, in model pixels: (classes, Y, X)."""
        inference, pooled = self.classifier.inference, torch.from_numpy(found.probabilities)
        seen = image_window(Tile(plane, instances_of(part, model_input)), model_input)
        run = inference.trace(model_input.read(plane, seen)[None])
        maps: np.ndarray = jacobian_maps(run, chosen, self.options.rule, inference.choice, pooled)[0]
        return maps[:, part.y0 - seen.y0 : part.y1 - seen.y0, part.x0 - seen.x0 : part.x1 - seen.x0]

    def room(self, model_input: ModelInput, found: Prediction, plane: int, chosen: list[int], smooth: float) -> float:
        """Estimate about how many bytes of temporary files a plane takes that is cut in strips, from windows of it.

        `smooth` is the sigma, in px, by which masks will smooth the evidence.
        """
        shape, kind = model_input.image.plane_shape, self.options.kind
        if kind == "object":
            return (self._bytes_of_objects(model_input, plane) + COARSE_BYTES) * math.prod(shape)
        kept_shape = model_input.shape if kind == "jacobian" else shape
        chosen_windows = sample_windows(kept_shape)[:: _EVERY_FOR_JACOBIAN if kind == "jacobian" else 1]
        samples = [self._sample(model_input, found, plane, chosen, one) for one in chosen_windows]
        kept = bytes_a_pixel([planes for planes, _ in samples]) * math.prod(kept_shape)
        if (self.options.detail or 1) > 1 and kind != "jacobian":
            kept += 4 * len(chosen) * math.prod(finer_shape(model_input, self.options.detail or 1))
        smoothed = [[ndimage.gaussian_filter(one, smooth) for one in maps] for _, maps in samples] if smooth else []
        labels = LABEL_BYTES * (_PLANES_OF_MASKS + _PLANES_OF_CLASS * len(chosen))
        return kept + (bytes_a_pixel(smoothed) + labels + COARSE_BYTES * (1 + len(chosen))) * math.prod(shape)

    def _bytes_of_objects(self, model_input: ModelInput, plane: int) -> float:
        """Find objects in a few windows of a plane, and return the bytes a pixel of all that lies on the disk then."""
        image, options = model_input.image, scaled(self._foreground_options, 1 / model_input.zoom)
        scratch, pixels = Scratch(0), 0
        for window in sample_windows(image.plane_shape):
            channel = image.plane(plane, (self._foreground_index(model_input),), window)[0]
            objects_in_strips(ScratchPlane(channel, scratch).read, channel.shape, options, scratch, scratch)
            pixels += channel.size
        return expected_bytes(scratch, pixels)

    def _sample(
        self, model_input: ModelInput, found: Prediction, plane: int, chosen: list[int], window: Window
    ) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Make what lies on the disk of a window of a plane, and the evidence that masks may smooth: (Y, X) each."""
        image = model_input.image
        if self.options.kind == "jacobian":
            maps = list(
                self._in_smaller_parts(
                    model_input, lambda side: self._jacobian_of(model_input, found, plane, chosen, window, side)
                )
            )
            return maps, maps
        laid = [_laid(one, model_input.placement, image.plane_shape) for one in found.class_maps[0][chosen]]
        maps = [one.read(window.y0, window.y1)[:, window.x0 : window.x1] for one in laid]
        if self.options.kind == "class_map":
            return [], maps
        pixels = image.plane(plane, model_input.channels, window)
        in_memory = Scratch(np.inf)
        bright = np.asarray(mean_brightness([ScratchPlane(one, in_memory) for one in pixels], in_memory))
        return [bright], [one * bright for one in maps]

    def check_memory(self, model_input: ModelInput, classes: int, planes: int, *, in_strips: bool = True) -> None:
        """Check that the maps of this number of planes, and making masks of one of them, fit into memory.

        Without `in_strips`, all of it is to be in memory at once.

        Raises
        ------
        ComputeError
            If they do not fit. The message says how much would.
        """
        free = free_memory(torch.device("cpu"))
        height, width = model_input.image.plane_shape
        if in_strips and self._in_strips(model_input):
            band = _LARGEST_BAND * width if self.options.kind == "jacobian" else 0
            needed = _STRIP_MEMORY + 8 * classes * band
            if free < needed:
                raise ComputeError(
                    f"masks of a plane of {height} x {width} px need {needed / 1e9:.1f} GB, but "
                    f"{free / 1e9:.1f} GB are free; close other programs"
                )
            return
        needed = height * width * (4 * classes * (planes + 2) + _WORK_MEMORY)
        if needed > free:
            raise ComputeError(
                f"evidence for {classes} classes in {planes} plane(s) of {height} x {width} px needs "
                f"{needed / 1e9:.1f} GB, but {free / 1e9:.1f} GB are free; "
                "choose fewer classes, fewer planes, or a crop of the image"
            )

    def _in_strips(self, model_input: ModelInput) -> bool:
        """Whether evidence and objects of a plane are made in strips, so that they need not fit into memory."""
        return math.prod(model_input.image.plane_shape) > LARGEST_AT_ONCE


def suited_evidence(model: TrainedModel, images: Sequence[Callable[[], ImageStack]]) -> OwnEvidence:
    """Choose the kind of evidence that suits a model's images, by whether its foreground finds consistent objects.

    Objects, if most of the images have them (`are_consistent`); otherwise the class map times the image, at a quarter
    of the network's step. The choice needs no annotation, and no figure of the model's enters it.

    Parameters
    ----------
    model : TrainedModel
        The model, with its foreground.
    images : sequence of callable
        Functions that open the images, at best images of which the model has learned nothing; of each, the middle plane
        counts.
    """
    maker, count = EvidenceMaker(model, kind="object", device="cpu", precision="float32"), 0
    for opened in images:
        with opened() as image:
            count += are_consistent(maker.foreground(image, len(image.planes) // 2))
    found = f"{count} of {len(images)} images have several objects of one size"
    if 2 * count > len(images):
        return OwnEvidence(kind="object", reason=found)
    return OwnEvidence(kind="class_map_image", detail=DETAILS[-1], reason=f"only {found}")


def evidence(
    model: TrainedModel,
    image: ImageSource,
    classes: Sequence[str] | None = None,
    *,
    foreground: LabelSource | ForegroundOptions | None = None,
    prediction: Prediction | None = None,
    **options: object,
) -> Evidence:
    """Show where in an image each class is found.

    Parameters
    ----------
    model : TrainedModel
        The model to apply.
    image : path, array or ImageStack
        Anything `open_image` takes.
    classes : sequence of str, optional
        The classes; all by default.
    foreground : ndarray, path, LabelImage or ForegroundOptions, optional
        For object evidence: a label image of your own, (planes, Y, X) or (Y, X), from any segmentation program, or its
        file; or how to find the objects; by default as the model's card says. With a label image, the kind is object by
        default.
    prediction : Prediction, optional
        Result of `classify` for the same image, if you have it; then the image is not classified again.
    **options
        Fields of `EvidenceOptions`: kind, detail, rule, and those of `classify`.

    Returns
    -------
    Evidence
        Maps (planes, classes, Y, X).

    Raises
    ------
    ImageError
        If the image cannot be read, or does not have the model's channels or the foreground channel.
    OptionsError
        If a class or option is unknown, or the prediction was made for another image.
    LabelsError
        If the label image does not fit the image.
    ComputeError
        If the evidence does not fit into memory. The message says how much would.
    """
    foreground_options = foreground if isinstance(foreground, ForegroundOptions) else None
    has_labels = foreground is not None and foreground_options is None
    options |= {"kind": "object"} if has_labels and options.get("kind") is None else {}
    maker = EvidenceMaker(model, foreground=foreground_options, **options)
    stack = open_image(image)
    labels = (
        None if foreground is None or isinstance(foreground, ForegroundOptions) else as_label_image(foreground, stack)
    )
    model_input = maker.classifier.model_input(stack)
    count = len(stack.planes if prediction is None else prediction.planes)
    maker.check_memory(model_input, len(class_indices(model, classes)), count, in_strips=False)
    parts: list[Prediction] = []
    planes: list[PlaneEvidence] = []
    for part in maker.classifier.parts(model_input) if prediction is None else [prediction]:
        parts.append(part)
        planes += maker.planes(model_input, part, classes, None if labels is None else labels.numbers)
    prediction = (prediction or joined(parts)).with_notes(() if labels is None else labels.warnings)
    objects = [np.asarray(plane.objects) for plane in planes if plane.objects is not None]  # of all planes, or of none
    chosen = tuple(model.classes[i] for i in class_indices(model, classes))
    return Evidence(
        classes=chosen,
        kind=str(maker.options.kind),
        maps=np.stack([np.asarray(plane.maps) for plane in planes]),
        objects=np.stack(objects) if objects else None,
        prediction=prediction,
        pixel_size=stack.pixel_size,
        thresholds=model.card.thresholds_for(str(maker.options.kind)),
        values=tuple(plane.values for plane in planes if plane.values is not None) or None,
        reference=model.card.reference,
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
            f"the prediction has {len(prediction.planes)} planes with class maps of {found}, but this image gives "
            f"{len(image.planes)} planes with class maps of {wanted}; the prediction was made with another image, "
            "model or pixel size: classify this image again"
        )


def class_indices(model: TrainedModel, classes: Sequence[str] | None) -> list[int]:
    """Return the indices of some classes of a model; None stands for all classes.

    Raises
    ------
    OptionsError
        If a class is unknown or named twice, or no class is named.
    """
    if classes is None:
        return list(range(len(model.classes)))
    if isinstance(classes, str):
        raise OptionsError(f"classes is {classes!r}; expected a list of names, such as {[classes]}")
    unknown = [name for name in classes if name not in model.classes]
    if unknown:
        raise OptionsError(
            f"the model does not know the class {', '.join(unknown)}; its classes: {', '.join(model.classes)}"
        )
    if not classes or len(set(classes)) < len(classes):
        raise OptionsError(
            f"classes is {list(classes)}; expected one or more different names out of: {', '.join(model.classes)}"
        )
    return [model.classes.index(name) for name in classes]


def _laid(one: np.ndarray | RowPlane, placement: MapPlacement, shape: tuple[int, int]) -> RowPlane:
    """Lay a map (Y, X) over an image of a shape; rows are computed where they are read."""
    return Computed(
        shape, lambda top, bottom: laid_rows(lambda y0, y1: one[y0:y1], one.shape, placement, (top, bottom), shape[1])
    )


def _at_image_pixels(one: ScratchPlane, model_input: ModelInput) -> RowPlane:
    """Remove the margins of a map in model pixels (Y, X), and resample it to image pixels."""
    (top, left), (height, width) = model_input.margin, model_input.scaled_shape
    inner: RowPlane = one
    if (height, width) != one.shape:
        inner = Computed((height, width), lambda y0, y1: one.read(top + y0, top + y1)[:, left : left + width])
    if model_input.zoom == 1:
        return inner
    offset = 0.5 / model_input.zoom - 0.5
    return _laid(inner, MapPlacement(1 / model_input.zoom, offset, offset), model_input.image.plane_shape)


def _channel(image: ImageStack, plane: int, channel: int) -> RowPlane:
    """Return one channel of a plane (Y, X), of which only the rows that are needed are read."""
    width = image.plane_shape[1]
    return Computed(
        image.plane_shape,
        lambda top, bottom: np.asarray(image.plane(plane, (channel,), Window(top, bottom, 0, width))[0]),
    )


def _product(one: RowPlane, other: RowPlane) -> RowPlane:
    return Computed(one.shape, lambda top, bottom: one.read(top, bottom) * other.read(top, bottom))


def _resolved(options: EvidenceOptions, own: OwnEvidence | None) -> EvidenceOptions:
    """Fill in kind and detail from the model's card where they are not given."""
    own = own or OwnEvidence(kind="object")
    kind = options.kind or own.kind
    detail = options.detail or (own.detail if options.kind is None else 1)
    return options.model_copy(update={"kind": kind, "detail": detail})
