"""The one loop over images: each is opened, classified plane after plane, and masked.

The command line, the docks, evaluation and localisation all look at images through `analyse`; what goes to disk, into
layers or into figures is made of the results that it yields.

What happens when something fails is decided here alone:

- An impossible option, or a place that results cannot be written to, ends the run.
- Whatever else goes wrong in an image ends that image: its `ImageEnd` says why, and the next image follows. The planes
  that were finished before were yielded already and stay.
- Masks that cannot be made never take the classification with them: the plane has its scores, no masks, and the reason.

Why masks are made of the classes that a plane shows, before memory is counted: maps of all classes of a model may not
fit where those of the two that are shown do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from napari_milcnn.errors import MilcnnError, OptionsError, OutputError
from napari_milcnn.images.paths import printable
from napari_milcnn.images.stack import ImageStack
from napari_milcnn.inference.evidence import EvidenceMaker, PlaneEvidence, class_indices
from napari_milcnn.inference.masks import PlaneMasks, no_masks, present_classes, segment_plane
from napari_milcnn.inference.model_input import ModelInput
from napari_milcnn.inference.predict import Prediction
from napari_milcnn.options import MaskOptions
from napari_milcnn.progress import Progress

Found = TypeVar("Found")


@dataclass(frozen=True)
class ImageRequest:
    """An image to look at, and what to find in it.

    Attributes
    ----------
    name : str
        What it is called in messages: its path, or the name of a layer.
    open : callable
        Opens it.
    planes : sequence of int or None
        Numbers of the planes to look at; all for None.
    masks : MaskOptions or None
        How evidence becomes masks; no evidence and no masks are made for None.
    classes : sequence of str or None
        Classes whose masks are made; all for None.
    objects : callable or None
        Returns a label image of the user's own, int32 (planes, Y, X), for object evidence.
    prediction : Prediction or None
        What was found before: its planes are masked anew, and not classified again.
    keep_open : bool
        Whether the image stays open behind its last step.
    """

    name: str
    open: Callable[[], ImageStack]
    planes: Sequence[int] | None = None
    masks: MaskOptions | None = None
    classes: Sequence[str] | None = None
    objects: Callable[[ImageStack], np.ndarray] | None = None
    prediction: Prediction | None = None
    keep_open: bool = False


@dataclass(frozen=True)
class ImageOpened:
    """An image was opened; it is open until its `ImageEnd`."""

    image: ImageStack


@dataclass(frozen=True)
class PlaneResult:
    """What was found in one plane.

    Attributes
    ----------
    plane : int
        Its number in the image's `planes`.
    prediction : Prediction
        Of this plane alone.
    channels : tuple of int
        The image's channel for each channel of the model.
    evidence : PlaneEvidence or None
        Evidence for the classes that `classes` names, where masks were made.
    masks : PlaneMasks or None
        Its objects, where they were asked for and could be made.
    problem : str
        Why there are no masks although they were asked for.
    """

    plane: int
    prediction: Prediction
    channels: tuple[int, ...]
    evidence: PlaneEvidence | None = None
    masks: PlaneMasks | None = None
    problem: str = ""


@dataclass(frozen=True)
class ImageEnd:
    """An image is done with: all of it was looked at, or `failure` says why not."""

    failure: str = ""


ImageEvent = ImageOpened | PlaneResult | ImageEnd


def analyse(maker: EvidenceMaker, requests: Sequence[ImageRequest]) -> Iterator[Progress[ImageEvent]]:
    """Classify images and make their masks, a plane at a time: cancel between steps by leaving the loop.

    Parameters
    ----------
    maker : EvidenceMaker
        The model, made ready, with the kind of evidence.
    requests : sequence of ImageRequest
        The images.

    Yields
    ------
    Progress
        Whose result is an `ImageOpened`, a `PlaneResult` or an `ImageEnd`; `number` says of which request. Every image
        has exactly one `ImageEnd`.

    Raises
    ------
    OptionsError
        If a class is not the model's.
    """
    for request in requests:
        class_indices(maker.model, request.classes)
    yield from each_image(requests, lambda request, image: _planes(maker, request, image))


def each_image(
    requests: Sequence[ImageRequest], look: Callable[[ImageRequest, ImageStack], Iterator[tuple[float, Found | None]]]
) -> Iterator[Progress[ImageOpened | Found | ImageEnd]]:
    """Open images one after another and look at each; one that fails says why, and the others go on.

    Parameters
    ----------
    requests : sequence of ImageRequest
        The images.
    look : callable
        Called with a request and its opened image; yields how much of the image is done, and what was found.
    """
    total = len(requests)
    for number, request in enumerate(requests):
        yield Progress(number, total, request.name)
        for share, event in _one_image(request, look):
            yield Progress(number, total, request.name, share, event)


def _one_image(
    request: ImageRequest, look: Callable[[ImageRequest, ImageStack], Iterator[tuple[float, Found | None]]]
) -> Iterator[tuple[float, ImageOpened | Found | ImageEnd | None]]:
    image: ImageStack | None = None
    try:
        with failures_of(request.name) as reasons:
            image = request.open()
            yield 0.0, ImageOpened(image)
            yield from look(request, image)
        yield 1.0, ImageEnd("".join(reasons))
    finally:
        if image is not None and not request.keep_open:
            image.close()


@contextmanager
def failures_of(name: str) -> Iterator[list[str]]:
    """Give a list that holds the reason once the block failed; an error that ends the whole run is let through."""
    reasons: list[str] = []
    try:
        yield reasons
    except (OptionsError, OutputError):
        raise
    except MilcnnError as error:
        reasons.append(str(error))
    except MemoryError:
        reasons.append(f"{printable(name)} does not fit into memory; crop it or close programs")
    except Exception as error:  # noqa: BLE001 - one image of thousands must not end the run: it says what it was
        reasons.append(f"{printable(name)} failed: {type(error).__name__}: {error}")


def _planes(
    maker: EvidenceMaker, request: ImageRequest, image: ImageStack
) -> Iterator[tuple[float, PlaneResult | None]]:
    """Classify the planes of one image, a batch at a time, and mask each as soon as it is classified."""
    model_input = maker.classifier.model_input(image)
    masker = _Masker(maker, request, model_input)
    done, wanted = 0, len(image.planes if request.planes is None else set(request.planes))
    for classified, part in _predictions(maker, request, model_input):
        if part is None:
            yield (classified + done / wanted) / 2, None
            continue
        for row in range(len(part.planes)):
            done += 1
            yield (classified + done / wanted) / 2, masker.result(part.only(row))


def _predictions(
    maker: EvidenceMaker, request: ImageRequest, model_input: ModelInput
) -> Iterator[tuple[float, Prediction | None]]:
    """Return what was found before, else what is found now, with the share of the planes that are classified."""
    if request.prediction is not None:
        yield 1.0, request.prediction
        return
    for step in maker.classifier.steps(model_input, request.planes):
        yield step.fraction, step.result


class _Masker:
    """Makes the masks of one image, a plane at a time."""

    def __init__(self, maker: EvidenceMaker, request: ImageRequest, model_input: ModelInput) -> None:
        self.maker, self.request, self.model_input = maker, request, model_input
        self.names = tuple(request.classes or maker.model.classes)
        self.thresholds = maker.model.card.thresholds_for(maker.options.kind)
        self.objects: np.ndarray | None = None
        self.problem = ""
        if request.masks is not None and request.objects is not None:
            with failures_of(request.name) as reasons:
                self.objects = request.objects(model_input.image)
            self.problem = _missing_masks(reasons)

    def result(self, prediction: Prediction) -> PlaneResult:
        """Return what was found in a plane that is classified."""
        plane = self.model_input.image.planes.index(prediction.planes[0])
        found: dict[str, Any] = {"problem": self.problem}
        if self.request.masks is not None and not self.problem:
            with failures_of(self.request.name) as reasons:
                found["evidence"], found["masks"] = self._masks(prediction, self.request.masks)
            found["problem"] = _missing_masks(reasons)
        return PlaneResult(plane, prediction, self.model_input.channels, **found)

    def _masks(self, prediction: Prediction, options: MaskOptions) -> tuple[PlaneEvidence | None, PlaneMasks]:
        image = self.model_input.image
        shown = present_classes(prediction, 0, self.names, options)
        if not shown:
            return None, no_masks(image.plane_shape)
        (evidence,) = self.maker.planes(self.model_input, prediction, shown, self.objects)
        return evidence, segment_plane(evidence, prediction, shown, options, image.pixel_size, self.thresholds)


def _missing_masks(reasons: Sequence[str]) -> str:
    return "".join(f"masks are missing: {reason}" for reason in reasons)
