"""Results of one image, collected plane by plane, and its files: label image, evidence, class maps, picture."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

import numpy as np
import pandas as pd

from napari_milcnn.errors import OutputError
from napari_milcnn.figures.overview import ShownPlane, shown_plane, shown_planes, write_overview
from napari_milcnn.images.lazy_array import let_go, scratch_array
from napari_milcnn.images.paths import printable
from napari_milcnn.images.stack import ImageStack
from napari_milcnn.inference.evidence import PlaneEvidence
from napari_milcnn.inference.masks import PlaneMasks
from napari_milcnn.inference.pipeline import PlaneResult
from napari_milcnn.inference.predict import Prediction, joined
from napari_milcnn.inference.strips.rows import LookedUp
from napari_milcnn.options import EXPORTED, MasksAs
from napari_milcnn.results.write import (
    OBJECT_ROW,
    image_files,
    object_rows,
    prediction_rows,
    write_evidence,
    write_labels,
    write_labels_zarr,
    write_maps,
)

_IN_MEMORY = 2**24
"""Bytes up to which label images or class maps of all planes of an image, or evidence of one class, are in memory."""
_JOINED = 32
"""Planes whose scores and tables are joined: each alone takes several times the memory."""


@dataclass(frozen=True)
class Findings:
    """Results of one image.

    Attributes
    ----------
    file : str
        The path of the image as it stands in tables.
    name : str
        The beginning of the names of its files.
    image : ImageStack
        The open image.
    channels : tuple of int
        For each channel of the model, the number of the image's channel.
    prediction : Prediction
        Scores and class maps of the planes that were classified.
    masks : mapping
        Masks by number of the plane.
    evidence : mapping
        Evidence by class, in the order of the classes, float32 (planes, Y, X), NaN in planes without it; empty unless
        it is to be written.
    evidence_notes : mapping
        How the evidence was made: its kind, and what else it depends on.
    """

    file: str
    name: str
    image: ImageStack
    channels: tuple[int, ...]
    prediction: Prediction
    masks: Mapping[int, PlaneMasks]
    evidence: Mapping[str, np.ndarray] = field(default_factory=dict)
    evidence_notes: Mapping[str, str] = field(default_factory=dict)

    def rows(self) -> pd.DataFrame:
        """Return the rows of predictions.csv: one for each plane that was classified."""
        planes = [self.image.planes.index(place) for place in self.prediction.planes]
        counts = [self.masks[plane].counts if plane in self.masks else {} for plane in planes]
        return prediction_rows(self.file, self.name, self.prediction, counts)

    def objects(self) -> pd.DataFrame:
        """Return the rows of objects.csv: one for each object, shown in the masks or not, sorted by plane."""
        tables = [one.objects.assign(plane=plane) for plane, one in sorted(self.masks.items()) if len(one.objects)]
        if not tables:
            return pd.DataFrame(columns=OBJECT_ROW)
        return object_rows(self.file, pd.concat(tables, ignore_index=True), self.image.planes)

    def write(self, out: Path, parts: Collection[str] = EXPORTED, masks_as: MasksAs = "tiff") -> Iterator[Path]:
        """Write the files of the image; in them, planes that were not classified are empty.

        Parameters
        ----------
        out : Path
            Folder.
        parts : collection of str
            Parts from `EXPORTED`, and evidence, which is written where it was kept; tables are not written here.
        masks_as : str
            Format of the label image: tiff or zarr.

        Yields
        ------
        Path
            Each file that was written.
        """
        files = image_files(out, self.name, masks_as if "masks" in parts else None)
        if files.labels is not None:
            write = write_labels if masks_as == "tiff" else write_labels_zarr
            write(files.labels, self.image, self.prediction.classes, self.masks)
            yield files.labels
        if "evidence" in parts and self.evidence:
            write_evidence(files.evidence, self.image, self.evidence, self.evidence_notes)
            yield files.evidence
        if "maps" in parts:
            write_maps(files.maps, self.image, self.prediction)
            yield files.maps
        if "picture" in parts:
            shown = [self._shown(row) for row in shown_planes(len(self.prediction.planes))]
            write_overview(files.overview, self.prediction, shown, self.image.pixel_size)
            yield files.overview

    def _shown(self, row: int) -> ShownPlane:
        plane = self.image.planes.index(self.prediction.planes[row])
        return replace(shown_plane(self.image, self.channels, plane, self.masks.get(plane)), index=row)


class _OnDisk(dict[int, LookedUp]):
    """Evidence of one class, by number of the plane, that is computed where it is sliced; NaN for other planes."""

    def __init__(self, shape: tuple[int, int]) -> None:
        super().__init__()
        self.nothing = np.broadcast_to(np.float32(np.nan), shape)

    def __missing__(self, plane: int) -> np.ndarray:
        return self.nothing


class FindingsOfImage:
    """Collects the results of the planes of one image, which come in the order of its planes.

    All label images together, and all class maps, may be larger than the memory.

    Parameters
    ----------
    image : ImageStack
        The open image.
    file, name : str
        As in `Findings`.
    evidence_notes : mapping, optional
        As in `Findings`; evidence is kept only where they are given.
    """

    def __init__(
        self, image: ImageStack, file: str, name: str, evidence_notes: Mapping[str, str] | None = None
    ) -> None:
        self._image, self._file, self._name, self._notes = image, file, name, evidence_notes
        self._evidence: dict[str, np.ndarray] = {}
        self._predictions: list[Prediction] = []
        self._count = 0
        self._maps: np.ndarray | None = None
        self._masks: dict[int, PlaneMasks] = {}
        self._apart: list[int] = []  # planes whose tables are not joined yet
        self._labels: np.ndarray | None = None
        self._channels: tuple[int, ...] = ()
        self.problems: dict[str, None] = {}
        """Reasons why planes have no masks, each of them once."""

    def take(self, result: PlaneResult) -> None:
        """Add the results of a plane; scores are kept where the temporary folder has no room for its masks."""
        maps = result.prediction.class_maps
        self._take_maps(self._count, maps[0])
        self._count += 1
        self._predictions.append(replace(result.prediction, class_maps=maps[:, :, :0, :0].copy()))
        if len(self._predictions) > _JOINED:
            self._predictions = [joined(self._predictions)]
        self._channels = result.channels
        if result.problem:
            self.problems[result.problem] = None
        try:
            if result.masks is not None:
                self._take_masks(result.plane, result.masks)
            if result.evidence is not None and self._notes is not None:
                self._take_evidence(result.plane, result.evidence)
        except OutputError as error:
            self._masks.pop(result.plane, None)
            self.problems[f"masks are missing: {error}"] = None

    def _take_maps(self, row: int, maps: np.ndarray) -> None:
        if self._maps is None:
            shape = (len(self._image.planes), *maps.shape)
            try:
                self._maps = scratch_array(shape, np.float32, _IN_MEMORY)
            except OutputError:  # they are a tenth of the image
                self._maps = np.zeros(shape, np.float32)
        self._maps[row] = maps
        let_go(self._maps)

    def _take_masks(self, plane: int, masks: PlaneMasks) -> None:
        if isinstance(masks.labels, np.ndarray):  # else they are on disk already
            if self._labels is None:
                self._labels = self._scratch(np.int32)
            self._labels[plane] = masks.labels
            let_go(self._labels)
            masks = replace(masks, labels=self._labels[plane])
        self._masks[plane] = masks
        self._apart.append(plane)
        if len(self._apart) == _JOINED:
            self._join_tables()

    def _join_tables(self) -> None:
        """Make one table of those of the latest planes, and give each plane its rows of it."""
        planes = [plane for plane in self._apart if plane in self._masks]
        tables = [self._masks[plane].objects for plane in planes]
        table = pd.concat(tables, ignore_index=True)
        ends = np.cumsum([len(one) for one in tables]).tolist()
        for plane, first, last in zip(planes, [0, *ends], ends, strict=False):
            self._masks[plane] = replace(self._masks[plane], objects=table[first:last])
        self._apart = []

    def _take_evidence(self, plane: int, found: PlaneEvidence) -> None:
        for name, evidence in zip(found.classes, found.maps, strict=True):
            if isinstance(evidence, np.ndarray):
                self._evidence_of(name)[plane] = evidence
                let_go(self._evidence_of(name))
            else:
                planes = self._evidence.setdefault(name, cast("np.ndarray", _OnDisk(evidence.shape)))
                planes[plane] = evidence

    def _scratch(self, dtype: type[np.generic]) -> np.ndarray:
        """Make an array (planes, Y, X) to write into, whose memory does not grow with the number of planes."""
        return scratch_array((len(self._image.planes), *self._image.plane_shape), dtype, _IN_MEMORY)

    def _evidence_of(self, name: str) -> np.ndarray:
        """Return the evidence of a class, (planes, Y, X), to write into."""
        if name not in self._evidence:
            self._evidence[name] = self._scratch(np.float32)
            for plane in self._evidence[name]:
                plane[:] = np.nan
                let_go(self._evidence[name])
        return self._evidence[name]

    def findings(self) -> Findings | None:
        """Return the results so far; None if no plane was classified."""
        if self._maps is None:
            return None
        prediction = replace(joined(self._predictions), class_maps=self._maps[: self._count])
        evidence = {name: self._evidence[name] for name in prediction.classes if name in self._evidence}
        return Findings(printable(self._file), self._name, self._image, self._channels, prediction, self._masks,
                        evidence, self._notes or {})  # fmt: skip
