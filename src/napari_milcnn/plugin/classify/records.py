"""What the Classify dock knows of an image: frozen records, so that window and worker share nothing that changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum, StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import DTypeLike
from psygnal import Signal

from napari_milcnn.errors import ImageError
from napari_milcnn.images.open import AS_THEY_SAY, ImageReading
from napari_milcnn.inference.strips.levels import has_levels, make_sizes

if TYPE_CHECKING:
    import pandas as pd
    from napari.layers import Image

    from napari_milcnn.images.stack import ImageStack
    from napari_milcnn.inference.masks import PlaneMasks
    from napari_milcnn.inference.pipeline import PlaneResult
    from napari_milcnn.inference.predict import Prediction
    from napari_milcnn.inference.strips.rows import LookedUp
    from napari_milcnn.model.card import ModelCard
    from napari_milcnn.model.trained_model import TrainedModel
    from napari_milcnn.plugin.classify.own_cells import CellsReader, OwnCells
    from napari_milcnn.plugin.layers_to_image import LayerImage

_MOST_UNDO = 20
"""Actions that can be undone. Each keeps what it replaced: packed masks and tables, no images."""


class Cause(StrEnum):
    """What a notice comes from."""

    IMAGE = "image"
    RUN = "run"
    MASKS = "masks"
    CELLS = "cells"
    EXPORT = "export"
    TABLE = "table"


class ImageState(Enum):
    """Where an image stands."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    STOPPED = "stopped"
    FAILED = "failed"


@dataclass(frozen=True)
class ModelFacts:
    """Which model made a result, without its network: unloading a model frees its memory, and its results stay."""

    name: str
    digest: str
    card: ModelCard
    path: Path | None

    @staticmethod
    def of(model: TrainedModel) -> ModelFacts:
        """Return the facts of a model."""
        name = model.path.stem if model.path is not None else model.card.name
        return ModelFacts(name, model.digest, model.card, model.path)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the model."""
        return self.card.classes


@dataclass(frozen=True)
class Settings:
    """Options of a run: fields of `EvidenceOptions` and of `MaskOptions`, as the forms have them."""

    evidence: Mapping[str, object] = field(default_factory=dict)
    masks: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class MadeWith:
    """What the masks of a plane were made with: the settings, and the user's own cells."""

    settings: Settings
    cells: OwnCells | None = None

    def has_evidence(self, evidence: Mapping[str, object], cells: OwnCells | None) -> bool:
        """Whether the masks were made from the same evidence; where the network runs makes no difference."""
        return cells == self.cells and evidence_only(evidence) == evidence_only(self.settings.evidence)


def evidence_only(evidence: Mapping[str, object]) -> dict[str, object]:
    """Return the options that decide what the evidence is, without those of the device."""
    names = ("kind", "detail", "rule", "foreground", "match_pixel_size", "relative_size")
    return {name: evidence.get(name) for name in names}


class PackedLabels:
    """Labels (Y, X) as runs of one number along the rows: small beside an image where objects are some pixels wide.

    Attributes
    ----------
    shape, dtype, ndim
        As of an array.
    """

    ndim = 2

    def __init__(self, values: np.ndarray, lengths: np.ndarray, shape: tuple[int, ...]) -> None:
        self._values, self._lengths = values, lengths
        self.shape, self.dtype = shape, values.dtype

    @staticmethod
    def of(labels: np.ndarray) -> PackedLabels:
        """Pack labels."""
        if not any(labels.strides):  # of one number, however large
            return PackedLabels(
                labels[:1, 0], np.array([labels.size], np.int32 if labels.size < 2**31 else np.int64), labels.shape
            )
        flat = labels.ravel()
        starts = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1])
        return PackedLabels(flat[starts], np.diff(starts, append=flat.size).astype(np.int32), labels.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of memory."""
        return int(self._values.nbytes + self._lengths.nbytes)

    @property
    def largest(self) -> int:
        """The largest label."""
        return int(self._values.max())

    def mapped(self, numbers: np.ndarray) -> PackedLabels:
        """Return the labels, each replaced by that of `numbers` (old labels,)."""
        return PackedLabels(numbers[self._values], self._lengths, self.shape)

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(np.repeat(self._values, self._lengths).reshape(self.shape), dtype)


def packed(masks: PlaneMasks) -> PlaneMasks:
    """Return masks with their labels packed.

    Those of a plane that was cut in strips stay on disk. If it is shown in several sizes, these are made here, once for
    all masks of the same objects.
    """
    if not isinstance(masks.labels, np.ndarray):
        if has_levels(masks.labels.shape):
            make_sizes(cast("LookedUp", masks.labels))
        return masks
    return replace(masks, labels=cast("np.ndarray", PackedLabels.of(masks.labels)))


def unpacked(masks: PlaneMasks) -> PlaneMasks:
    """Return packed masks as they were."""
    return replace(masks, labels=np.asarray(masks.labels)) if isinstance(masks.labels, PackedLabels) else masks


@dataclass(frozen=True, eq=False)
class PlaneFound:
    """What was found in a plane.

    Attributes
    ----------
    prediction : Prediction
        Prediction of this plane alone.
    channels : tuple of int
        The image's channel for each channel of the model.
    made_with : MadeWith
        What the masks were made with.
    masks : PlaneMasks or None
        Objects of the plane, packed (`PackedLabels`), so that many planes and many actions to undo can be kept; None as
        long as nobody has asked for them, or if they could not be made.
    problem : str
        Why masks are missing that were asked for.
    """

    prediction: Prediction
    channels: tuple[int, ...]
    made_with: MadeWith
    masks: PlaneMasks | None = None
    problem: str = ""

    @staticmethod
    def of(result: PlaneResult, made_with: MadeWith) -> PlaneFound:
        """Keep the result of a plane, without its evidence."""
        return PlaneFound(result.prediction, result.channels, made_with, result.masks, result.problem)


@dataclass(frozen=True, eq=False)
class ImageRecord:
    """An image, and what one model found in it. A change makes another record with the same key.

    Attributes
    ----------
    key : int
        Number of the image in its session.
    name : str
        As shown.
    path : Path or None
        The file that it can be opened from; None if it exists in the viewer only.
    reading : ImageReading
        How to open the file.
    layers : tuple of Image
        Its layers in the viewer; none before a dropped file is looked at, and after they were removed.
    source : LayerImage or None
        These layers as one image.
    model : ModelFacts or None
        The model that made the results; None before the first.
    planes : mapping
        What was found, by number of the plane.
    shows_unlike : bool
        Whether masks of planes that are unlike the training images are drawn.
    state : ImageState
        Where the image stands.
    error : str
        Why it failed.
    """

    key: int
    name: str
    path: Path | None = None
    reading: ImageReading = AS_THEY_SAY
    layers: tuple[Image, ...] = ()
    source: LayerImage | None = None
    model: ModelFacts | None = None
    planes: Mapping[int, PlaneFound] = field(default_factory=dict)
    shows_unlike: bool = False
    state: ImageState = ImageState.WAITING
    error: str = ""

    def open(self) -> ImageStack:
        """Return the image: its layers' where it has any, else its file's.

        Raises
        ------
        ImageError
            If the file cannot be read.
        """
        if self.source is not None:
            return self.source.image
        assert self.path is not None
        return self.reading.open(self.path)

    @property
    def can_open(self) -> bool:
        """Whether the image can be shown: it has layers, or a file."""
        return self.source is not None or self.path is not None

    @property
    def prediction(self) -> Prediction | None:
        """The prediction of all planes that were classified, in their order."""
        from napari_milcnn.inference.predict import joined

        return joined([self.planes[plane].prediction for plane in sorted(self.planes)]) if self.planes else None

    @property
    def masks(self) -> dict[int, PlaneMasks]:
        """The masks, by number of the plane."""
        return {plane: found.masks for plane, found in self.planes.items() if found.masks is not None}

    @property
    def counts(self) -> list[dict[str, float]]:
        """The counts of cells in each plane of the prediction; empty for a plane without masks."""
        masks = self.masks
        return [masks[plane].counts if plane in masks else {} for plane in sorted(self.planes)]

    @property
    def lacks_masks(self) -> bool:
        """Whether masks were not asked for yet in some plane."""
        return any(found.masks is None and not found.problem for found in self.planes.values())

    def hides_masks(self, plane: int) -> bool:
        """Whether the masks of a plane are not drawn, because it is unlike the training images."""
        return not self.shows_unlike and plane in self.planes and bool(self.planes[plane].prediction.is_unlike[0])

    def with_plane(self, plane: int, found: PlaneFound) -> ImageRecord:
        """Return the record with something found in a plane."""
        return replace(self, planes={**self.planes, plane: found})

    def without_layers(self) -> ImageRecord:
        """Return the record after its layers were removed: results stay, and a file can be opened again."""
        if self.source is None or self.path is not None:
            return replace(self, layers=(), source=None)
        image = self.source.image
        if image.path is None:
            return replace(self, layers=(), source=None)
        return replace(self, layers=(), source=None, path=image.path, reading=self.file_reading)

    @property
    def file_reading(self) -> ImageReading:
        """How to open the file behind the layers, so that its channels and pixel size are those of the layers."""
        if self.source is None:
            return self.reading
        image = self.source.image
        return replace(self.reading, channels=image.channels, pixel_size=image.pixel_size)

    def plane_name(self, plane: int) -> str:
        """Name a plane by its place along P, T and Z; empty where it is the only one."""
        if self.source is not None:
            return self.source.image.plane_name(plane)
        at = {number: found.prediction.planes[0] for number, found in self.planes.items()}
        places = zip("PTZ", at[plane], zip(*at.values(), strict=True), strict=True)
        return " ".join(f"{axis}{own}" for axis, own, every in places if len(set(every)) > 1)


def cells_reader(image: ImageRecord, cells: OwnCells | None) -> CellsReader | None:
    """Return what reads the user's own cells of an image in another thread; made in the window's thread."""
    return cells.reader(image.source) if cells is not None and image.source is not None else None


def prediction_table(images: Sequence[ImageRecord]) -> pd.DataFrame:
    """Return the predictions of images, as predictions.csv has them; with the models, if there are several.

    Raises
    ------
    ImageError
        If nothing was classified yet.
    """
    import pandas as pd

    from napari_milcnn.results.write import prediction_rows

    if not images:
        raise ImageError("nothing was classified yet; click Classify first")
    rows = []
    for one in images:
        assert one.prediction is not None
        assert one.model is not None
        path = one.path or (one.source.image.path if one.source is not None else None)
        table = prediction_rows(str(path or one.name), one.name, one.prediction, one.counts)
        rows.append(table.assign(model=one.model.name, model_sha256=one.model.digest))
    whole = pd.concat(rows, ignore_index=True)
    return whole if whole["model_sha256"].nunique() > 1 else whole.drop(columns=["model", "model_sha256"])


@dataclass(frozen=True)
class _Before:
    """How images were before an action; None for one that was not there."""

    action: str
    images: Mapping[int, ImageRecord | None]


class ImageList:
    """The images of a session by their keys, in the order in which they came, and how they were before.

    Attributes
    ----------
    changed : Signal
        An image (key) was added, changed or removed, other than by `put_plane`.
    plane_changed : Signal
        What is known of a plane of an image changed: (key, plane).
    """

    changed = Signal(int)
    plane_changed = Signal(tuple)

    def __init__(self) -> None:
        self.records: dict[int, ImageRecord] = {}
        self._undo: tuple[_Before, ...] = ()
        self._redo: tuple[_Before, ...] = ()
        self._last_key = 0

    def add(self, name: str, **facts: Any) -> ImageRecord:
        """Add an image; `facts` are fields of `ImageRecord`."""
        self._last_key += 1
        return self.put(ImageRecord(self._last_key, name, **facts))

    def put(self, record: ImageRecord) -> ImageRecord:
        """Keep a record in place of the one of the same key, or as a further image."""
        self.records[record.key] = record
        self.changed.emit(record.key)
        return record

    def change(self, key: int, **facts: Any) -> None:
        """Change some fields of an image, if it is still there."""
        if key in self.records:
            self.put(replace(self.records[key], **facts))

    def put_plane(self, key: int, plane: int, found: PlaneFound) -> None:
        """Keep what was found in a plane of an image, if the image is still there."""
        if key in self.records:
            self.records[key] = self.records[key].with_plane(plane, found)
            self.plane_changed.emit((key, plane))

    def remove(self, key: int) -> None:
        """Remove an image."""
        if self.records.pop(key, None) is not None:
            self.changed.emit(key)

    def of_layers(self, layers: Sequence[Image]) -> list[ImageRecord]:
        """Return the records of the image that some layers are, one for each model; layers are told by identity."""
        wanted = {id(layer) for layer in layers}
        return [one for one in self.records.values() if wanted and {id(layer) for layer in one.layers} == wanted]

    def remember(self, action: str, before: Mapping[int, ImageRecord | None], *, goes_on: bool = False) -> None:
        """Keep how images were before an action, so that it can be undone; what `goes_on`, like a slider, is one."""
        if not (goes_on and self.last_action == action):
            self._undo = (*self._undo, _Before(action, dict(before)))[-_MOST_UNDO:]
        self._redo = ()

    @property
    def last_action(self) -> str:
        """What `undo` would undo; empty if there is nothing."""
        return self._undo[-1].action if self._undo else ""

    @property
    def undone_action(self) -> str:
        """What `redo` would do again; empty if there is nothing."""
        return self._redo[-1].action if self._redo else ""

    def undo(self) -> tuple[int, ...]:
        """Put images back as they were before the last action, in the layers of now; return their keys."""
        if not self._undo:
            return ()
        *rest, last = self._undo
        self._undo, self._redo = tuple(rest), (*self._redo, self._as_now(last))
        return self._put_back(last)

    def redo(self) -> tuple[int, ...]:
        """Put images back as they were before the last `undo`; return their keys."""
        if not self._redo:
            return ()
        *rest, last = self._redo
        self._redo, self._undo = tuple(rest), (*self._undo, self._as_now(last))
        return self._put_back(last)

    def _as_now(self, before: _Before) -> _Before:
        return _Before(before.action, {key: self.records.get(key) for key in before.images})

    def _put_back(self, before: _Before) -> tuple[int, ...]:
        for key, record in before.images.items():
            now = self.records.get(key)
            if record is None:
                self.remove(key)
                continue
            self.put(record if now is None else _in_place_of(record, now))
            for plane in {*record.planes, *(now.planes if now is not None else ())}:
                self.plane_changed.emit((key, plane))
        return tuple(before.images)


def _in_place_of(record: ImageRecord, now: ImageRecord) -> ImageRecord:
    """Return what was found before, of the layers or the file that the image has now."""
    return replace(record, layers=now.layers, source=now.source, path=now.path, reading=now.reading)
