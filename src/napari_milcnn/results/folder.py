"""Many images through one model, to one folder of results."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd

from napari_milcnn.errors import LabelsError, OptionsError, OutputError
from napari_milcnn.images.open import AS_THEY_SAY, ImageReading
from napari_milcnn.images.paths import find_images, is_zarr, output_names, printable
from napari_milcnn.images.stack import ImageStack
from napari_milcnn.inference.cells import read_labels_of
from napari_milcnn.inference.evidence import EvidenceMaker, class_indices
from napari_milcnn.inference.masks import checked_mask_options
from napari_milcnn.inference.pipeline import ImageEnd, ImageOpened, ImageRequest, PlaneResult, analyse, failures_of
from napari_milcnn.inference.predict import Prediction
from napari_milcnn.model.trained_model import TrainedModel
from napari_milcnn.options import MasksAs
from napari_milcnn.progress import Progress
from napari_milcnn.results.findings import Findings, FindingsOfImage
from napari_milcnn.results.record import check_room, classification_record, write_record
from napari_milcnn.results.write import OBJECT_ROW, ResultTables, image_files

_SAVE_EVERY = 10.0
"""Seconds between two writings of the tables while images are still coming; more where writing takes long."""


@dataclass(frozen=True)
class ImageResult:
    """What came of one image.

    Attributes
    ----------
    file : Path
        The image.
    name : str
        What its files are called.
    prediction : Prediction or None
        Of the planes that were classified, without class maps, which are on disk; None where there are none.
    objects : int
        Number of objects in its masks.
    files : tuple of Path
        What was written for it.
    warnings : tuple of str
        What was done to it, in sentences.
    error : str
        Why it failed, or why a part of it is missing; or nothing.
    """

    file: Path
    name: str
    prediction: Prediction | None
    objects: int = 0
    files: tuple[Path, ...] = ()
    warnings: tuple[str, ...] = ()
    error: str = ""


def classify_files(
    model: TrainedModel,
    sources: Sequence[Path],
    out: Path,
    *,
    classes: Sequence[str] | None = None,
    masks: bool = True,
    masks_as: MasksAs = "tiff",
    objects: Path | None = None,
    reading: ImageReading = AS_THEY_SAY,
    mask_options: dict[str, Any] | None = None,
    planes: Mapping[Path, Sequence[int]] | None = None,
    command: Sequence[str] = (),
    **options: Any,
) -> Iterator[Progress[ImageResult]]:
    """Classify images one after another and write the results to a folder.

    An image that fails has its row and its error, what was finished of it is kept, and the others go on. Results of
    other images that are in the folder stay there. Leaving the loop early keeps every image that is finished.

    Parameters
    ----------
    model : TrainedModel
        What to apply.
    sources : sequence of Path
        Images, and folders of images.
    out : Path
        Folder for predictions.csv, objects.csv, run.json and the files of each image.
    classes : sequence of str, optional
        Classes whose masks are made; all by default.
    masks : bool
        Whether to make masks.
    masks_as : str
        Format of label images: tiff or zarr (OME-Zarr, whose images have one position).
    objects : Path, optional
        Label images of your own for object evidence: one file, or a folder with a file of the same name for each image.
    reading : ImageReading
        Axes, channels and pixel size where files do not say.
    mask_options : dict, optional
        Fields of `MaskOptions`.
    planes : mapping, optional
        Image -> numbers of the planes to classify, for images of which not all are.
    command : sequence of str
        For the record.
    **options
        Fields of `EvidenceOptions`.

    Yields
    ------
    Progress
        After every step of every image; its result is the `ImageResult` of the image that was finished with it.

    Raises
    ------
    ImageError
        If a folder holds no image, or no source was given.
    OptionsError
        If an option is unknown or impossible.
    OutputError
        If the folder cannot be written, or holds other results in the place of these.
    """
    files = find_images(sources)
    run = _Run(
        model,
        files,
        out,
        classes,
        masks_as if masks else None,
        objects,
        reading,
        mask_options or {},
        planes or {},
        options,
    )
    yield from run.steps(command)


class _Run:
    """One call of `classify_files`."""

    def __init__(
        self,
        model: TrainedModel,
        files: list[Path],
        out: Path,
        classes: Sequence[str] | None,
        masks_as: MasksAs | None,
        objects: Path | None,
        reading: ImageReading,
        mask_options: dict[str, Any],
        planes: Mapping[Path, Sequence[int]],
        options: dict[str, Any],
    ) -> None:
        self.model, self.files, self.out, self.some = model, files, out, planes
        self.classes = tuple(classes) if classes else model.classes
        self.masks_as, self.objects, self.reading = masks_as, objects, reading
        self.mask_options = checked_mask_options(mask_options, model.classes)
        self.maker = EvidenceMaker(model, **options)
        class_indices(model, self.classes)
        self._check_objects()
        self.names = output_names([file.absolute() for file in files])
        self._check_out()
        self.tables = ResultTables(out, masks_as is not None)
        self.finished: list[ImageResult] = []
        self.due = time.monotonic() + _SAVE_EVERY

    def _check_objects(self) -> None:
        if self.objects is not None and not self.objects.exists():
            raise OptionsError(f"{self.objects} does not exist; expected your label image, or a folder of them")
        several = len(self.files) > 1
        if self.objects is not None and several and (not self.objects.is_dir() or is_zarr(self.objects)):
            raise OptionsError(
                f"{self.objects} is one label image and there are {len(self.files)} images; give a folder of them"
            )

    def _check_out(self) -> None:
        if self.out.exists() and not self.out.is_dir():
            raise OutputError(f"{self.out} is a file; expected a folder for the results")
        planned = {path.resolve() for name in self.names for path in _possible_files(self.out, name)}
        overwritten = planned & {file.resolve() for file in self.files}
        if overwritten:
            raise OutputError(
                f"{min(overwritten)} is an image to classify and would be overwritten; choose another folder"
            )
        check_room(self.out, dict(zip(self.names, self.files, strict=True)))

    def steps(self, command: Sequence[str]) -> Iterator[Progress[ImageResult]]:
        began, found = time.perf_counter(), None
        try:
            for step in analyse(self.maker, [self._request(file) for file in self.files]):
                event = step.result
                file, name = self.files[step.number], self.names[step.number]
                if isinstance(event, ImageOpened):
                    found = FindingsOfImage(event.image, str(file), name)
                elif isinstance(event, PlaneResult) and found is not None:
                    found.take(event)
                result = self._finish(file, name, found, event) if isinstance(event, ImageEnd) else None
                found = found if result is None else None
                yield Progress(step.number, step.total, file.name, step.share, result)
        finally:
            self.tables.write()
            self._write_record(command, time.perf_counter() - began)

    def _request(self, file: Path) -> ImageRequest:
        return ImageRequest(
            str(file), partial(self.reading.open, file), self.some.get(file),
            masks=None if self.masks_as is None else self.mask_options, classes=self.classes,
            objects=None if self.objects is None else partial(self._own_objects, file),
        )  # fmt: skip

    def _finish(self, file: Path, name: str, found: FindingsOfImage | None, end: ImageEnd) -> ImageResult:
        """Write what was found in an image, and enter it into the tables."""
        findings = None if found is None else found.findings()
        errors = [*(() if found is None else found.problems), *([end.failure] if end.failure else [])]
        written: list[Path] = []
        rows, objects = pd.DataFrame(), pd.DataFrame(columns=OBJECT_ROW)
        if findings is not None:
            for part in (*(["masks"] if findings.masks else []), "maps", "picture"):
                with failures_of(str(file)) as reasons:
                    written += findings.write(self.out, {part}, self.masks_as or "tiff")
                errors += reasons
            rows, objects = findings.rows(), findings.objects()
            self._remove_old(name, written)
        error = "; ".join(errors)
        if error:
            failed = pd.DataFrame([{"file": printable(file), "name": name, "error": error}])
            rows = pd.concat([rows, failed], ignore_index=True) if len(rows) else failed
        result = _result(file, name, findings, len(objects), tuple(written), error)
        self.tables.put(printable(file), name, rows, objects)
        self.finished.append(result)
        self._save_now_and_then()
        return result

    def _remove_old(self, name: str, written: Sequence[Path]) -> None:
        """Remove files that an earlier run wrote of an image and this one did not: its row would belie them."""
        old = _possible_files(self.out, name) if self.masks_as is not None else image_files(self.out, name, None)[1:]
        for path in set(old) - set(written):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    def _own_objects(self, file: Path, image: ImageStack) -> np.ndarray:
        assert self.objects is not None
        path = self.objects / file.name if self.objects.is_dir() and not is_zarr(self.objects) else self.objects
        if not path.exists():
            raise LabelsError(f"{path} does not exist; expected the label image of {file.name}")
        return read_labels_of(path, image)

    def _save_now_and_then(self) -> None:
        began = time.monotonic()
        if began > self.due:
            self.tables.write()
            self.due = time.monotonic() + max(_SAVE_EVERY, 20 * (time.monotonic() - began))

    def _write_record(self, command: Sequence[str], seconds: float) -> None:
        files = dict(zip(self.names, self.files, strict=True))
        record = classification_record(
            self.maker, self.files, classes=self.classes, objects=self.objects, reading=self.reading,
            mask_options=None if self.masks_as is None else self.mask_options, masks_as=self.masks_as,
            names=self.names, command=command,
            planes=[self.some.get(file) for file in self.files],
        ) | {
            "seconds": round(seconds, 3),
            "images": [_summary(result) for result in self.finished],
            "unfinished": [str(file) for name, file in files.items() if name not in self.tables.names],
        }  # fmt: skip
        write_record(self.out, record)


def _possible_files(out: Path, name: str) -> set[Path]:
    """Name every file that an image may give, whatever is asked for."""
    return {path for kind in get_args(MasksAs) for path in image_files(out, name, kind) if path is not None}


def _result(
    file: Path, name: str, findings: Findings | None, objects: int, written: tuple[Path, ...], error: str
) -> ImageResult:
    if findings is None:
        return ImageResult(file, name, None, files=written, error=error)
    prediction = findings.prediction
    return ImageResult(file, name, prediction.without_maps(), objects, written, prediction.warnings, error)


def _summary(result: ImageResult) -> dict[str, Any]:
    failed = {"error": result.error} if result.error else {}
    if result.prediction is None:
        return {"file": str(result.file), **failed}
    return {
        "file": str(result.file),
        "top": result.prediction.top,
        "seconds": round(result.prediction.seconds, 3),
        "objects": result.objects,
        "files": [str(path) for path in result.files],
        "warnings": result.warnings,
        **failed,
    }
