"""An image that was asked for, and what is known of it so far."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_milcnn.errors import MilcnnError

if TYPE_CHECKING:
    import pandas as pd
    from napari.layers import Image

    from napari_milcnn.images.open import ZReading
    from napari_milcnn.images.stack import ImageStack
    from napari_milcnn.inference.evidence import EvidenceMaker
    from napari_milcnn.inference.masks import PlaneMasks
    from napari_milcnn.inference.pipeline import PlaneResult
    from napari_milcnn.inference.predict import Prediction
    from napari_milcnn.model.trained_model import TrainedModel
    from napari_milcnn.options import MaskOptions
    from napari_milcnn.plugin.layers_to_image import LayerImage

IN_MEMORY = 1 << 30
"""Bytes of a mask layer; a larger one lies in a temporary file."""
_SAMPLED = 512
"""Pixels along the longer side of a plane that its limits are read from, about."""
LIMITS = (0.1, 99.9)
"""Percentiles of the first plane that an image is shown between."""


@dataclass(eq=False)
class Entry:
    """An image in the dock's list.

    Attributes
    ----------
    name : str
        As shown.
    path : Path or None
        The file it is read from, where it was dropped on the dock.
    layers : tuple of Image
        Its layers in the viewer; none before a dropped file is looked at.
    source : LayerImage or None
        These layers as one image.
    wanted : tuple of int or None
        Numbers of the planes to classify; None for all.
    predictions, masks : dict
        What was found, by number of the plane.
    cuts : dict
        By number of the plane, the options of the evidence and of the masks that it was cut with.
    labels : ndarray or None
        The mask layer, int32 (planes, Y, X).
    tables : dict
        By number of the plane, the objects as they are numbered there.
    joined : DataFrame or None
        All of `tables` as one; None after a change, until it is asked for.
    starts : dict
        By number of the plane, the first of the numbers that its objects have to themselves in the mask layer, and how
        many there are.
    state : str
        waiting, running, done, stopped or failed.
    error : str
        Why it failed.
    """

    name: str
    path: Path | None = None
    layers: tuple[Image, ...] = ()
    source: LayerImage | None = None
    wanted: tuple[int, ...] | None = None
    model: TrainedModel | None = None
    z: ZReading = "planes"
    predictions: dict[int, Prediction] = field(default_factory=dict)
    masks: dict[int, PlaneMasks] = field(default_factory=dict)
    cuts: dict[int, tuple[dict[str, Any], dict[str, Any]]] = field(default_factory=dict)
    labels: np.ndarray | None = None
    tables: dict[int, pd.DataFrame] = field(default_factory=dict)
    joined: pd.DataFrame | None = None
    starts: dict[int, tuple[int, int]] = field(default_factory=dict)
    state: str = "waiting"
    error: str = ""

    def open(self) -> ImageStack:
        """Return the image: its layers' where it has any, else its file's."""
        from napari_milcnn.images.open import open_image

        if self.source is not None:
            return self.source.image
        assert self.path is not None
        return open_image(self.path)

    @property
    def prediction(self) -> Prediction | None:
        """What was said of all planes that were classified."""
        from napari_milcnn.inference.predict import joined

        return joined(list(self.predictions.values())) if self.predictions else None

    def take(self, result: PlaneResult) -> None:
        """Keep what was found in a plane."""
        self.predictions[result.plane] = result.prediction
        if result.masks is not None:
            self.masks[result.plane] = result.masks

    def close(self) -> None:
        """Go back to a file that is not looked at: its layers and masks are gone, what was said of it stays."""
        self.layers, self.source, self.labels = (), None, None
        self.masks, self.cuts, self.tables, self.starts, self.joined = {}, {}, {}, {}, None

    def start_of(self, plane: int, count: int) -> int:
        """Return where the numbers of a plane start; it moves behind all others where it needs more than it had."""
        start, room = self.starts.get(plane, (0, -1))
        if count > room:
            start = max((first + many for first, many in self.starts.values()), default=0)
            self.starts[plane] = (start, count + count // 2)
        return start

    def plane_name(self, plane: int) -> str:
        """Name a plane by its place along P, T and Z; empty where it is the only one."""
        if self.source is not None:
            return self.source.image.plane_name(plane)
        if len(self.predictions) == 1:
            return ""
        at = self.predictions[plane].planes[0]
        return " ".join(f"{axis}{number}" for axis, number in zip("PTZ", at, strict=True))


def empty_labels(planes: int, shape: tuple[int, int]) -> np.ndarray:
    """Make labels int32 (planes, Y, X) of zeros, in a temporary file where they are large."""
    size = (planes, *shape)
    if 4 * planes * shape[0] * shape[1] <= IN_MEMORY:
        return np.zeros(size, np.int32)
    return np.memmap(tempfile.TemporaryFile(), np.int32, "w+", shape=size)


@dataclass(frozen=True)
class RunStep:
    """How far a run over several images has come.

    Attributes
    ----------
    entry : Entry
        The image under way.
    share : float
        Of all images, from 0 to 1.
    image : ImageStack or None
        The image, once it was opened.
    limits : tuple or None
        Intensities (low, high) of each channel of a dropped image, to show it between.
    result : PlaneResult or None
        A plane that was finished.
    error : str
        Why the image failed.
    done : bool
        Whether the image is finished.
    """

    entry: Entry
    share: float
    image: ImageStack | None = None
    limits: tuple[tuple[float, float], ...] | None = None
    result: PlaneResult | None = None
    error: str = ""
    done: bool = False


def run(
    model: TrainedModel, entries: Sequence[Entry], evidence: dict[str, Any], masks: MaskOptions
) -> Iterator[RunStep]:
    """Classify images in turn; one that fails says why, and the others go on."""
    from napari_milcnn.inference.evidence import EvidenceMaker

    maker = EvidenceMaker(model, **evidence)
    for number, entry in enumerate(entries):
        try:
            for step in _run_one(maker, entry, masks):
                share = (number + step.share) / len(entries)
                yield RunStep(entry, share, step.image, step.limits, step.result, "", step.done)
        except MilcnnError as error:
            yield RunStep(entry, (number + 1) / len(entries), error=str(error), done=True)


def _run_one(maker: EvidenceMaker, entry: Entry, masks: MaskOptions) -> Iterator[RunStep]:
    from napari_milcnn.inference.pipeline import analyse

    image = entry.open()
    limits = None if entry.source is not None else limits_of(image)
    yield RunStep(entry, 0.0, image=image, limits=limits)
    shown = masks if entry.source is not None else None
    for step in analyse(maker, image, entry.wanted, mask_options=shown):
        yield RunStep(entry, step.share, result=step.result)
    yield RunStep(entry, 1.0, done=True)


def limits_of(image: ImageStack) -> tuple[tuple[float, float], ...]:
    """Intensities (low, high) of each channel that the first plane is shown between."""
    plane = image.plane(0)
    step = max(1, max(image.plane_shape) // _SAMPLED)
    low, high = np.percentile(plane[:, ::step, ::step].reshape(len(plane), -1), LIMITS, axis=1)
    return tuple((float(a), float(max(b, a + 1e-6))) for a, b in zip(low, high, strict=True))
