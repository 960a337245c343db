"""The one loop over images: it opens each image, classifies it plane by plane, and makes masks.

The command line, the docks, evaluation and localisation all process images with `analyse`. They write the results that
it yields to disk, or show them as layers and figures.

Only this module decides what happens after a failure:

- An impossible option, or a place to which results cannot be written, ends the run.
- Any other failure ends its image: the `ImageEnd` gives the reason, and the next image follows. Planes that were
  finished before have already been yielded and are kept.
- If masks cannot be made, the classification is kept: the plane has its scores, no masks, and the reason.

The classification runs in a thread of its own, somewhat ahead: while masks are made and files are written, which keeps
one core busy, the network works on the next planes, of the same image or of the next. Evidence that needs the network
again (Jacobian maps, finer class maps) waits for it instead.

Why only the classes that a plane shows get evidence: the maps of two classes may fit into memory when the maps of all
classes of the model do not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from operator import attrgetter
from typing import TypeVar

from napari_milcnn.errors import MilcnnError, OptionsError, OutputError
from napari_milcnn.images.paths import printable
from napari_milcnn.images.stack import ImageStack
from napari_milcnn.inference.cells import LabelImage
from napari_milcnn.inference.evidence import EvidenceMaker, PlaneEvidence, class_indices
from napari_milcnn.inference.masks import PlaneMasks, no_masks, present_classes, segment_plane
from napari_milcnn.inference.model_input import ModelInput
from napari_milcnn.inference.predict import Prediction
from napari_milcnn.options import MaskOptions
from napari_milcnn.progress import Progress, Steps, run_ahead

Found = TypeVar("Found")
_AHEAD = 3
"""Steps by which the classification may be ahead of masks and files: the end of an image, and the next one's first."""


@dataclass(frozen=True)
class ImageRequest:
    """An image to process, and what to do with it.

    Attributes
    ----------
    name : str
        Name of the image in messages: its path, or the name of a layer.
    open : callable
        Function that opens the image.
    planes : sequence of int or None
        Indices of the planes to process; None for all.
    masks : MaskOptions or None
        How evidence becomes masks; None for neither evidence nor masks.
    classes : sequence of str or None
        Classes that get masks; None for all.
    objects : callable or None
        Function that returns the user's own label image of an image for object evidence.
    prediction : Prediction or None
        An earlier prediction. Its planes get masks and are not classified again.
    keep_open : bool
        Whether the image stays open after its last step.
    """

    name: str
    open: Callable[[], ImageStack]
    planes: Sequence[int] | None = None
    masks: MaskOptions | None = None
    classes: Sequence[str] | None = None
    objects: Callable[[ImageStack], LabelImage] | None = None
    prediction: Prediction | None = None
    keep_open: bool = False


@dataclass(frozen=True)
class ImageOpened:
    """An image was opened; it stays open until its `ImageEnd`."""

    image: ImageStack


@dataclass(frozen=True)
class PlaneResult:
    """The result for one plane.

    Attributes
    ----------
    plane : int
        Index of the plane in the image's `planes`.
    prediction : Prediction
        Prediction of this plane alone.
    channels : tuple of int
        For each channel of the model, the index of the image's channel.
    evidence : PlaneEvidence or None
        Evidence for the classes that have masks; None without masks.
    masks : PlaneMasks or None
        Objects of the plane; None if they were not requested or could not be made.
    problem : str
        Why requested masks could not be made; otherwise empty.
    """

    plane: int
    prediction: Prediction
    channels: tuple[int, ...]
    evidence: PlaneEvidence | None = None
    masks: PlaneMasks | None = None
    problem: str = ""


@dataclass(frozen=True)
class ImageEnd:
    """An image is finished: all of it was processed, or `failure` says why not."""

    failure: str = ""


ImageEvent = ImageOpened | PlaneResult | ImageEnd


def analyse(maker: EvidenceMaker, requests: Sequence[ImageRequest]) -> Steps[ImageEvent]:
    """Classify images and make their masks, a plane at a time. To cancel, leave the loop.

    Parameters
    ----------
    maker : EvidenceMaker
        The model that is ready on a device, with the kind of evidence.
    requests : sequence of ImageRequest
        The images.

    Yields
    ------
    Progress
        Its result is an `ImageOpened`, a `PlaneResult`, an `ImageEnd` or None, and its `number` is the index of the
        request. Every image has exactly one `ImageEnd`.

    Raises
    ------
    OptionsError
        If the model does not know a class of a request.
    """
    for request in requests:
        class_indices(maker.model, request.classes)
    makes_evidence = maker.uses_network and any(request.masks is not None for request in requests)
    maker.keep_runs(makes_evidence)
    images: dict[int, ImageStack] = {}
    classified = each_image([_kept_open(one, images, i) for i, one in enumerate(requests)], partial(_classified, maker))
    steps = classified if makes_evidence else run_ahead(classified, _AHEAD)
    try:
        for number, of_image in groupby(steps, key=attrgetter("number")):
            yield from _with_masks(maker, requests[number], of_image)
            _close(requests[number], images.pop(number, None))
    finally:
        steps.close()  # no thread reads any more
        for number, image in images.items():
            _close(requests[number], image)


def _kept_open(request: ImageRequest, images: dict[int, ImageStack], number: int) -> ImageRequest:
    """Return the request with its image left open, to be found in `images`: masks are made after the classification."""

    def opened() -> ImageStack:
        images[number] = request.open()
        return images[number]

    return replace(request, open=opened, keep_open=True)


def _close(request: ImageRequest, image: ImageStack | None) -> None:
    if image is not None and not request.keep_open:
        image.close()


@dataclass(frozen=True)
class _Classified:
    """Predictions for some planes of an image."""

    model_input: ModelInput
    prediction: Prediction


def _classified(
    maker: EvidenceMaker, request: ImageRequest, image: ImageStack
) -> Iterator[tuple[float, _Classified | None]]:
    """Classify an image, a batch of planes at a time, or return its earlier prediction."""
    model_input = maker.classifier.model_input(image)
    if request.prediction is not None:
        yield 1.0, _Classified(model_input, request.prediction)
        return
    for _ in model_input.measuring_plate():
        yield 0.0, None
    for step in maker.classifier.steps(model_input, request.planes):
        yield step.fraction, None if step.result is None else _Classified(model_input, step.result)


def _with_masks(
    maker: EvidenceMaker, request: ImageRequest, steps: Iterator[Progress[ImageOpened | _Classified | ImageEnd]]
) -> Steps[ImageEvent]:
    """Make the masks of each plane of one image; planes and their masks are half of its progress each."""
    masker: _Masker | None = None
    done, wanted = 0, 1

    def progress(event: ImageEvent | None) -> Progress[ImageEvent]:
        share = step.share if isinstance(event, ImageEnd) else (step.share + done / wanted) / 2
        return Progress(step.number, step.total, step.doing, share, event)

    for step in steps:
        event = step.result
        if isinstance(event, _Classified):
            masker = masker or _Masker(maker, request, event.model_input)
            for row in range(len(event.prediction.planes)):
                done += 1
                yield progress(masker.result(event.prediction.only(row)))
            continue
        if isinstance(event, ImageOpened):
            wanted = len(event.image.planes if request.planes is None else set(request.planes))
        yield progress(event)


def each_image(
    requests: Sequence[ImageRequest],
    process: Callable[[ImageRequest, ImageStack], Iterator[tuple[float, Found | None]]],
) -> Steps[ImageOpened | Found | ImageEnd]:
    """Open and process images one after another; if one fails, its `ImageEnd` has the reason, and the next follows.

    Parameters
    ----------
    requests : sequence of ImageRequest
        The images.
    process : callable
        Function of a request and its opened image. It yields the share of the image that is done, and a result or None.
    """
    total = len(requests)
    for number, request in enumerate(requests):
        yield Progress(number, total, request.name)
        for share, event in _one_image(request, process):
            yield Progress(number, total, request.name, share, event)


def _one_image(
    request: ImageRequest, process: Callable[[ImageRequest, ImageStack], Iterator[tuple[float, Found | None]]]
) -> Iterator[tuple[float, ImageOpened | Found | ImageEnd | None]]:
    image: ImageStack | None = None
    try:
        with failures_of(request.name) as reasons:
            image = request.open()
            yield 0.0, ImageOpened(image)
            yield from process(request, image)
        yield 1.0, ImageEnd("".join(reasons))
    finally:
        if image is not None and not request.keep_open:
            image.close()


@contextmanager
def failures_of(name: str) -> Iterator[list[str]]:
    """Yield a list to which the reason is added if the block fails. Errors that end the whole run are raised again."""
    reasons: list[str] = []
    try:
        yield reasons
    except (OptionsError, OutputError):
        raise
    except MilcnnError as error:
        reasons.append(str(error))
    except MemoryError:
        reasons.append(f"{printable(name)} does not fit into memory; crop it or close programs")
    except Exception as error:  # noqa: BLE001 - one image of thousands must not end the run
        reasons.append(f"{printable(name)} failed: {type(error).__name__}: {error}")


class _Masker:
    """Makes the masks of one image, a plane at a time."""

    def __init__(self, maker: EvidenceMaker, request: ImageRequest, model_input: ModelInput) -> None:
        self.maker, self.request, self.model_input = maker, request, model_input
        self.names = tuple(request.classes or maker.model.classes)
        self.thresholds = maker.model.card.thresholds_for(str(maker.options.kind))
        self.objects: LabelImage | None = None
        self.problem = ""
        if request.masks is not None and request.objects is not None:
            with failures_of(request.name) as reasons:
                self.objects = request.objects(model_input.image)
            self.problem = _missing_masks(reasons)

    def result(self, prediction: Prediction) -> PlaneResult:
        """Return the result of a plane, given its prediction."""
        plane = self.model_input.image.planes.index(prediction.planes[0])
        prediction = prediction.with_notes(() if self.objects is None else self.objects.warnings)
        result = PlaneResult(plane, prediction, self.model_input.channels, problem=self.problem)
        if self.request.masks is None or self.problem:
            return result
        with failures_of(self.request.name) as reasons:
            evidence, masks = self._masks(prediction, self.request.masks)
            return replace(result, evidence=evidence, masks=masks)
        return replace(result, problem=_missing_masks(reasons))

    def _masks(self, prediction: Prediction, options: MaskOptions) -> tuple[PlaneEvidence | None, PlaneMasks]:
        image = self.model_input.image
        shown = present_classes(prediction, 0, self.names, options)
        if not shown and self.maker.options.kind != "object":
            return None, no_masks(image.plane_shape)
        names = shown or self.names  # cells are counted where none of the classes is shown, too
        (evidence,) = self.maker.planes(
            self.model_input, prediction, names, None if self.objects is None else self.objects.numbers, options.smooth
        )
        masks = segment_plane(evidence, prediction, names, options, image.pixel_size, self.thresholds)
        return evidence if shown else None, masks


def _missing_masks(reasons: Sequence[str]) -> str:
    return "".join(f"masks are missing: {reason}" for reason in reasons)
