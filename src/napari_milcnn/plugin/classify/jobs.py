"""What the jobs of the Classify dock do: each is a frozen request, made in the window's thread, with its steps.

The steps run in another thread. They see nothing but their request, and yield what they find. So what is classified
and masked never depends on how fast the window is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from psygnal import Signal

from napari_milcnn.errors import ImageError, LabelsError, ModelError
from napari_milcnn.inference.strips.levels import Levels, has_levels, make_sizes
from napari_milcnn.options import MaskOptions, make_options
from napari_milcnn.plugin.classify.records import ImageRecord, ModelFacts, Settings, packed, unpacked
from napari_milcnn.plugin.results_to_layers import Limits, ready_to_show
from napari_milcnn.progress import Progress, Steps, TimeLeft

if TYPE_CHECKING:
    import pandas as pd

    from napari_milcnn.images.intensity import Plates
    from napari_milcnn.images.stack import ImageStack
    from napari_milcnn.inference.evidence import PlaneEvidence
    from napari_milcnn.inference.masks import PlaneMasks
    from napari_milcnn.inference.pipeline import ImageEvent
    from napari_milcnn.inference.predict import Prediction
    from napari_milcnn.model.trained_model import TrainedModel
    from napari_milcnn.plugin.classify.own_cells import CellsReader
    from napari_milcnn.plugin.layers_to_image import LayerImage
    from napari_milcnn.plugin.qt.job import Ending


class RunningJob(Protocol):
    """A job that was started."""

    def stop(self) -> None:
        """End the job at its next step."""


StartJob = Callable[[Callable[[], Iterator[Any]], Callable[[Any], None], Callable[["Ending"], None]], RunningJob]
"""Starts the steps of a job; calls the second function with each step and the third with the end, in this thread."""


class OneJob:
    """The one long job of a session.

    Attributes
    ----------
    starter : callable or None
        Starts a job; None as long as nobody can.
    keys : tuple of int
        The images that the job works on.
    progressed : Signal
        The share of the job that is done.
    changed : Signal
        A job began or ended.
    """

    progressed = Signal(float)
    changed = Signal()

    def __init__(self) -> None:
        self.starter: StartJob | None = None
        self.keys: tuple[int, ...] = ()
        self._time = TimeLeft()
        self._running: RunningJob | None = None

    @property
    def busy(self) -> bool:
        """Whether a job runs."""
        return self._running is not None

    @property
    def seconds(self) -> float:
        """How long the job has run."""
        return self._time.spent

    def seconds_left(self, share: float) -> float | None:
        """Return how long the rest will take, None where that is not known yet."""
        return self._time.left(share)

    def start(self, steps: Callable[[], Iterator[Any]], on_step: Callable[[Any], None],
              on_end: Callable[[Ending], None], keys: tuple[int, ...] = ()) -> None:  # fmt: skip
        """Start a job, if none runs and somebody can."""
        if self.starter is None or self.busy:
            return
        self._time, self.keys = TimeLeft(), keys
        job = self._running = self.starter(
            steps,
            lambda step: on_step(step) if self._running is job else None,
            lambda ending: on_end(ending) if self._running is job else None,
        )
        self.progressed.emit(0.0)
        self.changed.emit()

    def stop(self) -> None:
        """End the job at its next step."""
        if self._running is not None:
            self._running.stop()

    def finish(self) -> None:
        """Note that the job is over."""
        self._running, self.keys = None, ()
        self.changed.emit()


@dataclass(frozen=True)
class ImageToShow:
    """A file that was opened and has no layers yet.

    Attributes
    ----------
    image : ImageStack
        The image.
    limits : tuple or None
        Intensities (low, high) that each channel is shown between.
    levels : Levels or None
        The image in several sizes, if it is large.
    """

    image: ImageStack
    limits: Limits | None = None
    levels: Levels | None = None

    @staticmethod
    def of(image: ImageStack) -> ImageToShow:
        """Show an image of which nothing is read yet."""
        return ImageToShow(image, None, Levels(image.data) if has_levels(image.plane_shape) else None)


@dataclass(frozen=True)
class ImageToRun:
    """An image of a run.

    Attributes
    ----------
    key : int
        Number of the image in its session.
    name : str
        Name in messages.
    open : callable
        Opens the image.
    planes : tuple of int or None
        Numbers of the planes to classify; None for all.
    has_layers : bool
        Whether the viewer shows it: only then it gets masks.
    read_cells : callable or None
        Reads the user's own cells.
    """

    key: int
    name: str
    open: Callable[[], ImageStack]
    planes: tuple[int, ...] | None = None
    has_layers: bool = True
    read_cells: CellsReader | None = None


@dataclass(frozen=True)
class RunRequest:
    """Classify images in turn, and make masks of those that are shown.

    Of the files that have no layers yet, the first that can be opened is to be shown, and gets masks as well.

    Attributes
    ----------
    model : TrainedModel
        The model.
    images : tuple of ImageToRun
        The images.
    settings : Settings
        Options of evidence and masks.
    plates : Plates
        What intensities are scaled by, if the model scales them by plate.
    """

    model: TrainedModel
    images: tuple[ImageToRun, ...]
    settings: Settings
    plates: Plates

    def __call__(self) -> Steps[ImageEvent | ImageToShow]:
        """Run; the number of each step is the place in `images`.

        Yields
        ------
        Progress
            As `analyse`. The `ImageOpened` of a file that is to be shown is followed by an `ImageToShow`.
        """
        from napari_milcnn.inference.evidence import EvidenceMaker
        from napari_milcnn.inference.pipeline import ImageOpened, ImageRequest, analyse, failures_of

        maker = EvidenceMaker(self.model, **self.settings.evidence)
        options, total = make_options(MaskOptions, self.settings.masks), len(self.images)
        shows_next = True
        for number, one in enumerate(self.images):
            shown = one.has_layers or shows_next
            request = ImageRequest(
                one.name, self._opener(one), one.planes, options if shown else None, objects=one.read_cells,
                keep_open=shown,
            )  # fmt: skip
            for step in _with_packed_masks(analyse(maker, [request])):
                yield replace(step, number=min(number + step.number, total), total=total)
                if shown and not one.has_layers and isinstance(step.result, ImageOpened):
                    with failures_of(one.name) as unread:
                        ready = ready_to_show(step.result.image)
                    if not unread:
                        shows_next = False
                        yield Progress(number, total, one.name, step.share, ImageToShow(step.result.image, *ready))

    def _opener(self, one: ImageToRun) -> Callable[[], ImageStack]:
        return lambda: self.plates.open(one.open())


@dataclass(frozen=True)
class MasksRequest:
    """Make the masks of classified planes, without classifying them again."""

    model: TrainedModel
    name: str
    image: ImageStack
    prediction: Prediction
    settings: Settings
    read_cells: CellsReader | None = None

    def __call__(self) -> Steps[ImageEvent]:
        """Make the masks plane by plane, as `analyse` does."""
        from napari_milcnn.inference.evidence import EvidenceMaker
        from napari_milcnn.inference.pipeline import ImageRequest, analyse

        request = ImageRequest(
            self.name, lambda: self.image, masks=make_options(MaskOptions, self.settings.masks),
            objects=self.read_cells, prediction=self.prediction, keep_open=True,
        )  # fmt: skip
        yield from _with_packed_masks(analyse(EvidenceMaker(self.model, **self.settings.evidence), [request]))


def _with_packed_masks(steps: Steps[ImageEvent]) -> Steps[ImageEvent]:
    """Pack the masks of each plane that a run has finished."""
    from napari_milcnn.inference.pipeline import PlaneResult

    for step in steps:
        found = step.result
        if isinstance(found, PlaneResult) and found.masks is not None:
            step = replace(step, result=replace(found, masks=packed(found.masks)))
        yield step


@dataclass(frozen=True)
class EvidenceRequest:
    """Make the evidence of one plane for some classes."""

    model: TrainedModel
    image: ImageStack
    prediction: Prediction
    names: tuple[str, ...]
    settings: Settings
    read_cells: CellsReader | None = None

    def __call__(self) -> Iterator[tuple[PlaneEvidence, tuple[float, ...]]]:
        """Yield the evidence of the plane, and the highest value of each class."""
        from napari_milcnn.inference.evidence import EvidenceMaker

        cells = None if self.read_cells is None else self.read_cells(self.image).numbers
        maker = EvidenceMaker(self.model, **self.settings.evidence)
        smooth = make_options(MaskOptions, self.settings.masks).smooth
        for found in maker.planes(self.image, self.prediction, self.names, cells, smooth):
            of_objects = found.values  # those of a large plane are not laid over it
            if of_objects is not None:
                highest = [of_objects[self.prediction.classes.index(name)].max() for name in self.names]
            else:
                highest = [one.max() for one in found.maps]
            if not isinstance(found.maps, np.ndarray) and has_levels(found.maps.shape):
                for one in found.maps:
                    make_sizes(one)
            yield found, tuple(map(float, highest))


@dataclass(frozen=True)
class CutRequest:
    """Cut the masks of a plane from its evidence.

    Attributes
    ----------
    evidence, prediction
        Of the plane.
    options : MaskOptions
        How masks are made.
    pixel_size : float or None
        µm per pixel.
    thresholds : mapping
        Class -> threshold from the model's card.
    """

    evidence: PlaneEvidence
    prediction: Prediction
    options: MaskOptions
    pixel_size: float | None
    thresholds: Mapping[str, float]

    def __call__(self) -> Iterator[PlaneMasks]:
        """Yield the masks."""
        from napari_milcnn.inference.masks import segment_plane

        own = self.evidence
        yield packed(segment_plane(own, self.prediction, own.classes, self.options, self.pixel_size, self.thresholds))


@dataclass(frozen=True, eq=False)
class ClassifiedCells:
    """Cells of a label image, int32 (planes, Y, X), their table, and what has to be said about the label image."""

    numbers: np.ndarray
    table: pd.DataFrame
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class CellsRequest:
    """Classify each cell of a labels layer by itself.

    Attributes
    ----------
    source : LayerImage
        The image.
    read_cells : callable
        Reads the cells of the image.
    options : mapping
        Fields of `ComputeOptions`.
    """

    model: TrainedModel
    source: LayerImage
    read_cells: CellsReader
    plates: Plates
    options: dict[str, object] = field(default_factory=dict)

    def __call__(self) -> Iterator[ClassifiedCells]:
        """Yield the classified cells."""
        from napari_milcnn.inference.cells import classify_cells

        said: list[str] = []
        labels, image = self.read_cells(self.source.image), self.plates.open(self.source.image)
        table = classify_cells(self.model, image, labels, on_warning=said.append, **self.options)
        yield ClassifiedCells(labels.numbers, table, tuple(said))


@dataclass(frozen=True)
class ExportRequest:
    """Write what was found in an image to a folder, and the record of the run.

    Attributes
    ----------
    image : ImageRecord
        The image with its results.
    model : TrainedModel or None
        The model that made them; None where it is to be read from its file.
    folder : Path
        Where the files go.
    parts : tuple of str
        Out of `EXPORTED`.
    read_cells : callable or None
        Reads the user's own cells, from which the masks were made.
    """

    image: ImageRecord
    model: TrainedModel | None
    folder: Path
    parts: tuple[str, ...]
    read_cells: CellsReader | None = None

    def __call__(self) -> Iterator[Path]:
        """Write the files, and yield the path of each."""
        from napari_milcnn.results.export import export_image
        from napari_milcnn.results.findings import Findings
        from napari_milcnn.results.record import room_for

        one, prediction = self.image, self.image.prediction
        assert prediction is not None
        assert one.model is not None
        image, model = one.open(), self.model or same_model(one.model)
        place = room_for(self.folder, self._record(model, None))
        file, first = str(image.path or image.name), next(iter(one.planes.values()))
        own = first.made_with.cells.file if first.made_with.cells is not None else None
        if self.read_cells is not None and own is None:
            own = place / f"{one.name}_cells.ome.tif"
            export_cells(own, image, self.read_cells(image).numbers, one.masks)
            yield own
        masks = {plane: unpacked(found) for plane, found in one.masks.items()}
        found = Findings(file, one.name, image, first.channels, prediction, masks)
        yield from export_image(place, found, self._record(model, own), list(self.parts))

    def _record(self, model: TrainedModel, objects: Path | None) -> dict[str, object]:
        """Return the record that `napari-milcnn classify --replay` takes."""
        from napari_milcnn.inference.evidence import EvidenceMaker
        from napari_milcnn.plugin.layers_to_image import file_behind
        from napari_milcnn.results.record import classification_record

        one = self.image
        settings = next(iter(one.planes.values())).made_with.settings
        if one.source is not None:
            file, reading = file_behind(one.source, one.reading.z)
        else:
            file, reading = one.path, one.reading
        planes = sorted(one.planes)
        every = len(planes) == len(one.open().planes)
        return classification_record(
            EvidenceMaker(model, **settings.evidence), [file], classes=model.classes, reading=reading,
            mask_options=make_options(MaskOptions, settings.masks), planes=[None if every else planes],
            names=[one.name], objects=objects, command=["napari"],
        )  # fmt: skip


def same_model(facts: ModelFacts) -> TrainedModel:
    """Read the model that made some results again.

    Raises
    ------
    ModelError
        If it is in no file, or its file holds another model now.
    """
    from napari_milcnn.model.package_read import load_model

    if facts.path is None:
        raise ModelError(f"the model {facts.name} made these results and is in no file; classify again, then export")
    model = load_model(facts.path)
    if model.digest != facts.digest:
        raise ModelError(
            f"{facts.path} is no longer the model {facts.name} that made these results; classify again, then export"
        )
    return model


def check_planes(record: ImageRecord, image: ImageStack) -> None:
    """Refuse an image whose planes are not those that were classified.

    Raises
    ------
    ImageError
        If it has fewer planes, or planes of another size.
    """
    sizes = {masks.labels.shape for masks in record.masks.values()}
    if (record.planes and max(record.planes) >= len(image.planes)) or sizes - {image.plane_shape}:
        height, width = image.plane_shape
        raise ImageError(
            f"{record.path} has {len(image.planes)} planes of {height} × {width} px, which are not those that were "
            "classified; open it in napari and classify it again"
        )


def export_cells(path: Path, image: ImageStack, cells: np.ndarray, masks: Mapping[int, PlaneMasks]) -> None:
    """Write the cells of a layer, int32 (planes, Y, X), as OME-TIFF, so that a run can be repeated with them.

    Raises
    ------
    LabelsError
        If the masks were made from other cells: the layer was changed since.
    OutputError
        If the file cannot be written.
    """
    from napari_milcnn.images.write import write_ome_tiff

    for plane, made in masks.items():
        areas = np.bincount(cells[plane].ravel())
        areas[0] = 0
        numbers = np.flatnonzero(areas)
        known = made.objects.sort_values("label")
        if known["label"].tolist() != numbers.tolist() or known["area_px"].tolist() != areas[numbers].tolist():
            raise LabelsError("the cells were changed after the masks were made; classify again, then export")
    write_ome_tiff(path, image.planes, cells[:, np.newaxis].astype(np.uint32), ("objects",), image.pixel_size, {})
