"""Many images through one model, to one folder of results."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from napari_milcnn.errors import ImageError, LabelsError, MilcnnError, OptionsError, OutputError
from napari_milcnn.figures.overview import ShownPlane, shown_plane, shown_planes, write_overview
from napari_milcnn.images.open import AS_THEY_SAY, ImageReading, open_image
from napari_milcnn.images.paths import find_images, is_zarr, output_names, printable
from napari_milcnn.images.stack import ImageStack
from napari_milcnn.inference.cells import checked_labels
from napari_milcnn.inference.evidence import EvidenceMaker, class_indices
from napari_milcnn.inference.masks import PlaneMasks, checked_mask_options, segment_plane
from napari_milcnn.inference.predict import Prediction
from napari_milcnn.model.trained_model import TrainedModel
from napari_milcnn.results.record import classification_record
from napari_milcnn.results.write import (
    OBJECT_COLUMNS,
    every_plane,
    image_files,
    no_masks,
    object_rows,
    prediction_rows,
    write_json,
    write_labels,
    write_maps,
    write_table,
)

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
        Without its class maps, which are on disk; None where it failed.
    objects : int
        Number of objects in its masks.
    files : tuple of Path
        What was written for it.
    warnings : tuple of str
        What was done to it, in sentences.
    error : str
        Why it failed, or nothing.
    """

    file: Path
    name: str
    prediction: Prediction | None
    objects: int = 0
    files: tuple[Path, ...] = ()
    warnings: tuple[str, ...] = ()
    error: str = ""


@dataclass(frozen=True)
class ScreenStep:
    """How far a screen has come: `done` of `total` images, and the result of the one just ended, if one was.

    `share` is how much of the image under way is done, from 0 to 1.
    """

    done: int
    total: int
    file: Path
    share: float
    result: ImageResult | None = None


@dataclass
class _Tables:
    predictions: list[pd.DataFrame] = field(default_factory=list)
    objects: list[pd.DataFrame] = field(default_factory=list)
    due: float = field(default_factory=lambda: time.monotonic() + _SAVE_EVERY)


def _open_labels(path: Path, axes: str) -> ImageStack:
    """Open a label image by its own axes, or by the image's where it does not say."""
    try:
        return open_image(path)
    except ImageError:
        return open_image(path, axes=axes)


def screen(
    model: TrainedModel,
    sources: Sequence[Path],
    out: Path,
    *,
    classes: Sequence[str] | None = None,
    masks: bool = True,
    objects: Path | None = None,
    reading: ImageReading = AS_THEY_SAY,
    mask_options: dict[str, Any] | None = None,
    planes: Mapping[Path, Sequence[int]] | None = None,
    command: Sequence[str] = (),
    **options: Any,
) -> Iterator[ScreenStep]:
    """Classify images one after another and write the results.

    An image that fails has its row and its error, and the others go on. Leaving the loop early keeps every result
    that is complete.

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
    ScreenStep
        After every step of every image.
    """
    files = find_images(sources)
    run = _Screen(model, files, out, classes, masks, objects, reading, mask_options or {}, planes or {}, options)
    yield from run.steps(command)


class _Screen:
    def __init__(
        self,
        model: TrainedModel,
        files: list[Path],
        out: Path,
        classes: Sequence[str] | None,
        masks: bool,
        objects: Path | None,
        reading: ImageReading,
        mask_options: dict[str, Any],
        planes: Mapping[Path, Sequence[int]],
        options: dict[str, Any],
    ) -> None:
        self.model, self.files, self.out, self.some = model, files, out, planes
        self.classes = tuple(classes) if classes else model.classes
        self.masks, self.objects, self.reading = masks, objects, reading
        self.mask_options = checked_mask_options(mask_options, model.classes)
        self.maker = EvidenceMaker(model, **options)
        class_indices(model, self.classes)
        if objects is not None and not objects.exists():
            raise OptionsError(f"{objects} does not exist; expected your label image, or a folder of them")
        if objects is not None and len(files) > 1 and (not objects.is_dir() or is_zarr(objects)):
            raise OptionsError(f"{objects} is one label image and there are {len(files)} images; give a folder of them")
        if out.exists() and not out.is_dir():
            raise OutputError(f"{out} is a file; expected a folder for the results")
        self.names = output_names([file.absolute() for file in files])
        planned = {path.resolve() for name in self.names for path in image_files(out, name, True) if path is not None}
        overwritten = planned & {file.resolve() for file in files}
        if overwritten:
            raise OutputError(
                f"{min(overwritten)} is an image to classify and would be overwritten; choose another folder"
            )
        self.tables = _Tables()

    def steps(self, command: Sequence[str]) -> Iterator[ScreenStep]:
        began, results = time.perf_counter(), []
        try:
            for number, (file, name) in enumerate(zip(self.files, self.names, strict=True)):
                for step in self._image(number, file, name):
                    if step.result is not None:
                        results.append(step.result)
                        self._keep(step.result)
                    yield step
        finally:
            self._write_tables()
            self._write_record(command, results, time.perf_counter() - began)

    def _image(self, number: int, file: Path, name: str) -> Iterator[ScreenStep]:
        total = len(self.files)
        yield ScreenStep(number, total, file, 0.0)
        try:
            with self.reading.open(file) as image:
                prediction: Prediction | None = None
                for step in self.maker.classifier.steps(image, self.some.get(file)):
                    prediction = step.prediction
                    yield ScreenStep(number, total, file, step.done / step.total * (0.6 if self.masks else 0.95))
                assert prediction is not None
                result = self._write(file, name, image, prediction)
        except (OutputError, OptionsError):
            raise
        except MilcnnError as error:
            result = ImageResult(file, name, None, error=str(error))
        except MemoryError:
            result = ImageResult(file, name, None, error=f"{file} does not fit into memory; crop it or close programs")
        except Exception as error:  # noqa: BLE001 - one image in thousands must not end the run: it has its row
            result = ImageResult(file, name, None, error=f"{printable(file)} failed: {type(error).__name__}: {error}")
        yield ScreenStep(number + 1, total, file, 1.0, result)

    def _write(self, file: Path, name: str, image: ImageStack, prediction: Prediction) -> ImageResult:
        files = image_files(self.out, name, self.masks)
        shown: list[ShownPlane] = []
        tables: list[pd.DataFrame] = []
        if files.labels is not None:
            planes = self._planes(file, image, prediction, shown)
            tables = write_labels(files.labels, image, self.model.classes, planes)
        else:
            shown += [self._shown(image, prediction, row, None) for row in shown_planes(len(prediction.planes))]
        write_maps(files.maps, every_plane(prediction, image), image.pixel_size)
        write_overview(files.overview, prediction, shown, image.pixel_size)
        objects = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()
        if len(objects):
            self.tables.objects.append(object_rows(printable(file), objects, prediction.planes))
        written = tuple(path for path in files if path is not None)
        return ImageResult(file, name, prediction.without_maps(), len(objects), written, prediction.warnings)

    def _planes(
        self, file: Path, image: ImageStack, prediction: Prediction, shown: list[ShownPlane]
    ) -> Iterator[PlaneMasks]:
        """Make the masks of every plane of an image, empty ones for planes that were not classified."""
        wanted = set(shown_planes(len(prediction.planes)))
        thresholds = self.model.card.thresholds_for(self.maker.options.kind)
        made = self.maker.planes(image, prediction, self.classes, self._own_objects(file, image))
        for at in image.planes:
            if at not in prediction.planes:
                yield no_masks(image)
                continue
            evidence = next(made)
            masks = segment_plane(evidence, prediction, self.classes, self.mask_options, image.pixel_size, thresholds)
            if evidence.plane in wanted:
                shown.append(self._shown(image, prediction, evidence.plane, masks))
            yield masks

    def _shown(self, image: ImageStack, prediction: Prediction, row: int, masks: PlaneMasks | None) -> ShownPlane:
        plane = image.planes.index(prediction.planes[row])
        return replace(shown_plane(image, self.maker.classifier.model_input(image).channels, plane, masks), index=row)

    def _own_objects(self, file: Path, image: ImageStack) -> np.ndarray | None:
        if self.objects is None:
            return None
        path = self.objects / file.name if self.objects.is_dir() and not is_zarr(self.objects) else self.objects
        if not path.exists():
            raise LabelsError(f"{path} does not exist; expected the label image of {file.name}")
        with _open_labels(path, image.axes.replace("C", "")) as labels:
            if len(labels.channels) > 1 and labels.channels[0] != "objects":
                raise LabelsError(f"{path} has {len(labels.channels)} channels; expected a label image, with one")
            return checked_labels(np.stack([labels.plane(i, (0,))[0] for i in range(len(labels.planes))]), image)

    def _keep(self, result: ImageResult) -> None:
        if result.prediction is None:
            row = pd.DataFrame([{"file": printable(result.file), "name": result.name, "error": result.error}])
        else:
            row = prediction_rows(printable(result.file), result.name, result.prediction)
        self.tables.predictions.append(row)
        if time.monotonic() > self.tables.due:
            began = time.monotonic()
            self._write_tables()
            self.tables.due = time.monotonic() + max(_SAVE_EVERY, 20 * (time.monotonic() - began))

    def _write_tables(self) -> None:
        predictions = self.tables.predictions or [pd.DataFrame(columns=["file", "name", "error"])]
        write_table(self.out / "predictions.csv", _joined(predictions))
        if self.masks:
            write_table(
                self.out / "objects.csv", _joined(self.tables.objects or [pd.DataFrame(columns=OBJECT_COLUMNS)])
            )

    def _write_record(self, command: Sequence[str], results: list[ImageResult], seconds: float) -> None:
        record = classification_record(
            self.maker, self.files, classes=self.classes, objects=self.objects, reading=self.reading,
            mask_options=self.mask_options if self.masks else None, names=self.names, command=command,
            planes=[self.some.get(file) for file in self.files],
        ) | {
            "seconds": round(seconds, 3),
            "images": [_summary(result) for result in results],
            "unfinished": [str(file) for file in self.files[len(results) :]],
        }  # fmt: skip
        write_json(self.out / "run.json", record)


def _joined(tables: list[pd.DataFrame]) -> pd.DataFrame:
    """One table with the columns of the widest; what a row lacks stays empty."""
    columns = max((list(table) for table in tables), key=len)
    return pd.DataFrame([row for table in tables for row in table.to_dict("records")], columns=columns)


def _summary(result: ImageResult) -> dict[str, Any]:
    if result.prediction is None:
        return {"file": str(result.file), "error": result.error}
    return {
        "file": str(result.file),
        "top": result.prediction.top,
        "seconds": round(result.prediction.seconds, 3),
        "objects": result.objects,
        "files": [str(path) for path in result.files],
        "warnings": result.warnings,
    }
