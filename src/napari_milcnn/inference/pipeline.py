"""One image, plane after plane: what it shows, and where; each plane told as soon as it is done."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from napari_milcnn.images.stack import ImageStack
from napari_milcnn.inference.evidence import EvidenceMaker
from napari_milcnn.inference.masks import PlaneMasks, segment_plane
from napari_milcnn.inference.predict import Prediction
from napari_milcnn.options import MaskOptions


@dataclass(frozen=True)
class PlaneResult:
    """What was found in one plane.

    Attributes
    ----------
    plane : int
        Its number in the image's `planes`.
    prediction : Prediction
        Of this plane alone.
    masks : PlaneMasks or None
        Its objects, where they were asked for.
    """

    plane: int
    prediction: Prediction
    masks: PlaneMasks | None


@dataclass(frozen=True)
class AnalysisStep:
    """How far an analysis has come: a share from 0 to 1, and a plane where one was finished with this step."""

    share: float
    result: PlaneResult | None = None


def analyse(
    maker: EvidenceMaker,
    image: ImageStack,
    planes: Sequence[int] | None = None,
    classes: Sequence[str] | None = None,
    mask_options: MaskOptions | None = None,
) -> Iterator[AnalysisStep]:
    """Classify planes and make their masks, a plane at a time: cancel between steps by leaving the loop.

    Parameters
    ----------
    maker : EvidenceMaker
        The model, made ready, with the kind of evidence.
    image : ImageStack
        What to look at.
    planes : sequence of int, optional
        Numbers of the planes; all by default.
    classes : sequence of str, optional
        Classes whose masks are made; all by default.
    mask_options : MaskOptions, optional
        How evidence becomes masks; no masks are made without.
    """
    told, wanted = 0, len(image.planes) if planes is None else len(set(planes))
    for step in maker.classifier.steps(image, planes):
        seen = step.done / step.total
        if step.part is None:
            yield AnalysisStep((seen + told / wanted) / 2)
            continue
        for result in plane_results(maker, image, step.part, classes, mask_options):
            told += 1
            yield AnalysisStep((seen + told / wanted) / 2, result)


def plane_results(
    maker: EvidenceMaker,
    image: ImageStack,
    prediction: Prediction,
    classes: Sequence[str] | None = None,
    mask_options: MaskOptions | None = None,
) -> Iterator[PlaneResult]:
    """Take a prediction of an image apart by planes, each with its masks."""
    names = tuple(classes or maker.model.classes)
    for row, at in enumerate(prediction.planes):
        one, plane, masks = prediction.only(row), image.planes.index(at), None
        if mask_options is not None:
            (evidence,) = maker.planes(image, one, names)
            thresholds = maker.model.card.thresholds_for(maker.options.kind)
            masks = segment_plane(evidence, one, names, mask_options, image.pixel_size, thresholds)
        yield PlaneResult(plane, one, masks)
