"""An image of the Classify dock, and what was found in it so far."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_milcnn.plugin.results_to_layers import limits_of
from napari_milcnn.progress import Progress, Steps

if TYPE_CHECKING:
    import pandas as pd
    from napari.layers import Image

    from napari_milcnn.images.intensity import Plates
    from napari_milcnn.images.open import ZReading
    from napari_milcnn.images.stack import ImageStack
    from napari_milcnn.inference.masks import PlaneMasks
    from napari_milcnn.inference.pipeline import ImageEvent, PlaneResult
    from napari_milcnn.inference.predict import Prediction
    from napari_milcnn.model.trained_model import TrainedModel
    from napari_milcnn.options import MaskOptions
    from napari_milcnn.plugin.classify.own_cells import CellsReader, OwnCells
    from napari_milcnn.plugin.layers_to_image import LayerImage


@dataclass(frozen=True)
class MadeWith:
    """What the masks of a plane were made with: options of the evidence and of the masks, and the user's own cells."""

    evidence: dict[str, Any]
    masks: dict[str, Any]
    cells: OwnCells | None = None


@dataclass(eq=False)
class ImageState:
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
    channels : tuple of int
        The image's channel for each channel of the model, once a plane was classified.
    made_with : dict
        By number of the plane, what its mask was made with.
    cells : OwnCells or None
        The user's own cells, of the run that is going on or was the last.
    read_cells : callable or None
        Reads them.
    labels : ndarray or None
        The mask layer, int32 (planes, Y, X).
    tables : dict
        By number of the plane, the objects as they are numbered there.
    joined : DataFrame or None
        All of `tables` as one; None after a change, until the table is needed.
    starts : dict
        By number of the plane, the first of the numbers that its objects have to themselves in the mask layer, and how
        many there are.
    shows_unlike : bool
        Whether masks of planes that are unlike the training images are drawn.
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
    channels: tuple[int, ...] = ()
    made_with: dict[int, MadeWith] = field(default_factory=dict)
    cells: OwnCells | None = None
    read_cells: CellsReader | None = None
    labels: np.ndarray | None = None
    tables: dict[int, pd.DataFrame] = field(default_factory=dict)
    joined: pd.DataFrame | None = None
    starts: dict[int, tuple[int, int]] = field(default_factory=dict)
    shows_unlike: bool = False
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
        """The prediction of all planes that were classified."""
        from napari_milcnn.inference.predict import joined

        return joined(list(self.predictions.values())) if self.predictions else None

    @property
    def counts(self) -> list[dict[str, float]]:
        """The counts of cells in each plane of the prediction; empty for a plane without masks."""
        return [self.masks[plane].counts if plane in self.masks else {} for plane in sorted(self.predictions)]

    def use_cells(self, cells: OwnCells | None) -> None:
        """Have the next run use the user's own cells; None for those that the program finds."""
        self.cells = cells if self.source is not None else None
        self.read_cells = cells.reader(self.source) if cells is not None and self.source is not None else None

    def take(self, result: PlaneResult) -> None:
        """Keep what was found in a plane."""
        self.predictions[result.plane], self.channels = result.prediction, result.channels
        if result.masks is not None:
            self.masks[result.plane] = result.masks

    def hides_masks(self, plane: int) -> bool:
        """Whether the masks of a plane are not drawn, because it is unlike the training images."""
        return not self.shows_unlike and plane in self.predictions and bool(self.predictions[plane].is_unlike[0])

    def close(self) -> None:
        """Go back to a file without layers: masks and layers are gone, scores stay."""
        self.layers, self.source, self.labels = (), None, None
        self.masks, self.made_with, self.tables, self.starts, self.joined = {}, {}, {}, {}, None

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


@dataclass(frozen=True)
class DroppedImage:
    """A dropped image that was opened, with the intensities (low, high) to show each channel between."""

    image: ImageStack
    limits: tuple[tuple[float, float], ...]


def _open_on(plates: Plates, image: ImageState) -> ImageStack:
    return plates.open(image.open())


def run(
    model: TrainedModel, images: Sequence[ImageState], evidence: dict[str, Any], masks: MaskOptions, plates: Plates
) -> Steps[ImageEvent | DroppedImage]:
    """Classify images in turn, and mask those that have layers; the number of each step is the place in `images`.

    Intensities are scaled by `plates`, where the model scales them by plate.

    Yields
    ------
    Progress
        As `analyse`; a dropped image is followed by its `DroppedImage`.
    """
    from napari_milcnn.inference.evidence import EvidenceMaker
    from napari_milcnn.inference.pipeline import ImageOpened, ImageRequest, analyse, failures_of

    requests = [
        ImageRequest(str(one.path or one.name), partial(_open_on, plates, one), one.wanted,
                     masks if one.source is not None else None, objects=one.read_cells, keep_open=True)
        for one in images
    ]  # fmt: skip
    dropped = [one.source is None for one in images]
    for step in analyse(EvidenceMaker(model, **evidence), requests):
        yield step
        if isinstance(step.result, ImageOpened) and dropped[step.number]:
            image = step.result.image
            with failures_of(step.doing) as unread:
                limits = limits_of(image)
            if not unread:
                yield Progress(step.number, step.total, step.doing, step.share, DroppedImage(image, limits))
