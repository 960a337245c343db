"""Many images classified with one model, and their results written to one folder."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import get_args

import pandas as pd

from napari_milcnn.errors import OptionsError, OutputError
from napari_milcnn.images.intensity import Plates
from napari_milcnn.images.open import AS_THEY_SAY, ImageReading
from napari_milcnn.images.paths import files_of, find_images, is_zarr, output_names, printable, shown_name
from napari_milcnn.images.stack import ImageStack
from napari_milcnn.inference.cells import read_label_image
from napari_milcnn.inference.evidence import EvidenceMaker, class_indices
from napari_milcnn.inference.masks import checked_mask_options
from napari_milcnn.inference.pipeline import ImageEnd, ImageOpened, ImageRequest, PlaneResult, analyse, failures_of
from napari_milcnn.inference.predict import Prediction
from napari_milcnn.model.trained_model import TrainedModel
from napari_milcnn.options import MasksAs
from napari_milcnn.output_lock import OutputLock, locked_folder
from napari_milcnn.progress import Progress, Steps
from napari_milcnn.results.findings import Findings, FindingsOfImage
from napari_milcnn.results.record import check_room, classification_record, image_facts, with_engine_of
from napari_milcnn.results.unfinished import DoneImage, RunInProgress, check_tables, done_before, fingerprint, settle
from napari_milcnn.results.write import OBJECT_ROW, image_files


@dataclass(frozen=True)
class ImageResult:
    """The result of one image.

    Attributes
    ----------
    file : Path
        The image.
    name : str
        The beginning of the names of its files.
    prediction : Prediction or None
        Scores of the planes that were classified, without class maps, which are on disk; None if no plane was
        classified.
    objects : int or None
        Number of objects in its masks; None where no masks were asked for.
    files : tuple of Path
        Files that were written for it.
    error : str
        Why it failed, or why a part of its results is missing; empty if all went well.
    """

    file: Path
    name: str
    prediction: Prediction | None
    objects: int | None = None
    files: tuple[Path, ...] = ()
    error: str = ""

    @property
    def warnings(self) -> tuple[str, ...]:
        """The warnings of its prediction."""
        return () if self.prediction is None else self.prediction.warnings


def classify_files(
    model: TrainedModel,
    sources: Sequence[Path],
    out: Path,
    *,
    classes: Sequence[str] | None = None,
    masks: bool = True,
    masks_as: MasksAs = "tiff",
    save_evidence: bool = False,
    objects: Path | None = None,
    reading: ImageReading = AS_THEY_SAY,
    mask_options: Mapping[str, object] | None = None,
    planes: Mapping[Path, Sequence[int]] | None = None,
    plates: Plates | None = None,
    resume: bool = False,
    redo_changed: bool = False,
    command: Sequence[str] = (),
    on_warning: Callable[[str], None] | None = None,
    **options: object,
) -> Steps[ImageResult]:
    """Classify images one after another and write the results to a folder.

    An image that fails gets a row with its error, its finished results are kept, and the run goes on with the next
    image. Results of other images in the folder stay there. If the loop is left early, all finished images are kept;
    if the process is killed, all but the one that it was busy with. `resume` goes on from there.

    Parameters
    ----------
    model : TrainedModel
        The model to apply.
    sources : sequence of Path
        Images and folders of images.
    out : Path
        Folder for predictions.csv, objects.csv, run.json and the files of each image.
    classes : sequence of str, optional
        Classes whose masks are made; all by default.
    masks : bool
        Whether to make masks.
    masks_as : str
        Format of label images: tiff, or zarr for OME-Zarr, which cannot hold images of several positions.
    save_evidence : bool
        Whether to write the evidence from which the masks are made, NAME_evidence.ome.tif.
    objects : Path, optional
        Your own label images for object evidence, which is then the default kind: one file, or a folder with one file
        per image, which has the image's name, alone or followed by an end such as _labels or _cp_masks.
    reading : ImageReading
        Axes, channels and pixel size of files that do not say them.
    mask_options : mapping, optional
        Fields of `MaskOptions`.
    planes : mapping, optional
        Image -> numbers of the planes to classify; of an image that is not listed, all planes are classified.
    plates : Plates, optional
        Which images share a plate or batch, for models that scale intensities by it; by default as the table
        `reading.plates` says, and without one the images of a folder. The record keeps the scales.
    resume : bool
        Go on with a run that was stopped or killed: images that it has done are left as they are, those that failed are
        tried again. From the start if there is none.
    redo_changed : bool
        With `resume`: classify images again whose files have changed since; otherwise they are refused.
    command : sequence of str
        The command line that was typed, for the record.
    on_warning : callable, optional
        Called with a sentence about what `resume` found, and about files that were put together or left out.
    **options
        Fields of `EvidenceOptions`.

    Yields
    ------
    Progress
        After every step of every image; if the step finished an image, its result is that image's `ImageResult`.

    Raises
    ------
    ImageError
        If a folder holds no image, or no source is given.
    OptionsError
        If an option is unknown or has an impossible value, or the table of plates is no file.
    ResumeError
        If the run to go on with had another model or other options, or if images have changed since.
    OutputError
        If the folder cannot be written, if another run writes to it, if it is deleted meanwhile, or if results in it
        would be overwritten by those of other images.
    """
    if redo_changed and not resume:
        raise OptionsError("redo_changed says what resume does with images that have changed; give resume, too")
    plates = plates or Plates(reading.plates, reading)
    files = find_images(sources, reading.pattern, on_warning)
    with locked_folder(out) as lock:
        settle(out)
        run = _Run(model, files, out, classes, masks_as if masks else None, save_evidence, objects, reading,
                   dict(mask_options or {}), planes or {}, plates, options)  # fmt: skip
        before = run.done_before(redo_changed) if resume else []
        if resume and on_warning is not None:
            on_warning(f"{len(before)} of {len(files)} images are done already and are left as they are")
        yield from run.steps(command, lock, before)


class _Run:
    """One call of `classify_files`."""

    def __init__(
        self,
        model: TrainedModel,
        files: list[Path],
        out: Path,
        classes: Sequence[str] | None,
        masks_as: MasksAs | None,
        save_evidence: bool,
        objects: Path | None,
        reading: ImageReading,
        mask_options: dict[str, object],
        planes: Mapping[Path, Sequence[int]],
        plates: Plates,
        options: Mapping[str, object],
    ) -> None:
        self.model, self.files, self.out, self.planes, self.plates = model, files, out, planes, plates
        self.classes = tuple(classes) if classes else model.classes
        self.masks_as, self.objects, self.reading = masks_as, objects, reading
        self.mask_options = checked_mask_options(mask_options, model.classes)
        own_kind = {"kind": "object"} if objects is not None and options.get("kind") is None else {}
        self.maker = EvidenceMaker(model, **with_engine_of(out, {**options, **own_kind}))
        class_indices(model, self.classes)
        self.evidence_notes = _evidence_notes(self.maker) if save_evidence else None
        if save_evidence and masks_as is None:
            raise OptionsError(
                "evidence is to be saved, but no masks are made: evidence is computed for the classes that get masks; "
                "make masks, or do not save evidence"
            )
        self._check_objects()
        self.names = output_names([file.absolute() for file in files])
        self._check_out()
        check_tables(out)
        self.hashes: dict[Path, str] = {}

    def _check_objects(self) -> None:
        if self.objects is not None and not self.objects.exists():
            raise OptionsError(f"{self.objects} does not exist; expected your label image or a folder of label images")
        is_one_image = self.objects is not None and (not self.objects.is_dir() or is_zarr(self.objects))
        if is_one_image and len(self.files) > 1:
            raise OptionsError(
                f"{self.objects} is one label image and there are {len(self.files)} images; give a folder with one "
                "label image per image"
            )

    def _check_out(self) -> None:
        planned = {path.resolve() for name in self.names for path in _possible_files(self.out, name)}
        overwritten = planned & {one.resolve() for file in self.files for one in files_of(file)}
        if overwritten:
            raise OutputError(
                f"{min(overwritten)} is an image to classify and would be overwritten; choose another folder"
            )
        check_room(self.out, dict(zip(self.names, self.files, strict=True)))

    def done_before(self, redo_changed: bool) -> list[dict[str, object]]:
        """Return the entries of the images that need not be classified again."""
        return done_before(self.out, self._record(()), redo_changed=redo_changed)

    def steps(
        self, command: Sequence[str], lock: OutputLock, before: Sequence[dict[str, object]] = ()
    ) -> Steps[ImageResult]:
        """Classify the images whose entries are not among `before`."""
        began, found = time.perf_counter(), None
        done = {image["name"] for image in before}
        to_do = [(file, name) for file, name in zip(self.files, self.names, strict=True) if name not in done]
        record = self._record(command) | {"images": before}
        files = [printable(file) for file in self.files]
        progress = RunInProgress(self.out, record, files, masks=self.masks_as is not None)
        busy = False
        try:
            for step in analyse(self.maker, [self._request(file) for file, _ in to_do]):
                event = step.result
                file, name = to_do[step.number]
                if isinstance(event, ImageOpened):
                    found = FindingsOfImage(event.image, str(file), name, self.evidence_notes)
                elif isinstance(event, PlaneResult) and found is not None:
                    found.take(event)
                lock.check()
                busy = isinstance(event, ImageEnd)
                result = self._finish(file, name, found, event, progress) if isinstance(event, ImageEnd) else None
                busy = False
                found = found if result is None else None
                yield Progress(step.number, step.total, shown_name(file), step.share, result)
        finally:
            lock.check()
            progress.end(failed=busy, seconds=round(time.perf_counter() - began, 3))

    def _open(self, file: Path) -> ImageStack:
        """Open an image; its hash is taken before its pixels are read, so that a later change is noticed."""
        self.hashes[file] = fingerprint(file)
        return self.plates.open(file)

    def _request(self, file: Path) -> ImageRequest:
        return ImageRequest(
            str(file), partial(self._open, file), self.planes.get(file),
            masks=None if self.masks_as is None else self.mask_options, classes=self.classes,
            objects=None if self.objects is None else partial(read_label_image, self.objects),
        )  # fmt: skip

    def _finish(
        self, file: Path, name: str, found: FindingsOfImage | None, end: ImageEnd, progress: RunInProgress
    ) -> ImageResult:
        """Write the results of an image and add it to the tables."""
        findings = None if found is None else found.findings()
        errors = [*(() if found is None else found.problems), *([end.failure] if end.failure else [])]
        written: list[Path] = []
        rows, objects = pd.DataFrame(), pd.DataFrame(columns=OBJECT_ROW)
        if findings is not None:
            for part in (*(["masks"] if findings.masks else []), "evidence", "maps", "picture"):
                with failures_of(str(file)) as reasons:
                    written += findings.write(self.out, {part}, self.masks_as or "tiff")
                errors += reasons
            rows, objects = findings.rows(), findings.objects()
            with failures_of(str(file)) as reasons:
                self._remove_old(name, written)
            errors += reasons
        error = "; ".join(errors)
        if error:
            failed = pd.DataFrame([{"file": printable(file), "name": name, "error": printable(error)}])
            rows = pd.concat([rows, failed], ignore_index=True) if len(rows) else failed
        count = None if self.masks_as is None else int(objects["shown"].sum())
        result = _result(file, name, findings, count, tuple(written), error)
        facts = image_facts(file.absolute(), name, result.prediction, count or 0, written, error)
        facts |= {"sha256": self.hashes.pop(file, "")}
        done = DoneImage(name=name, file=printable(file), rows=len(rows), objects=len(objects),
                         classified=findings is not None, image=facts)  # fmt: skip
        progress.add(done, rows, objects)
        return result

    def _remove_old(self, name: str, written: Sequence[Path]) -> None:
        """Remove files that an earlier run wrote for the image and this run did not: its new rows contradict them."""
        files = image_files(self.out, name, None)
        old = _possible_files(self.out, name) if self.masks_as is not None else (files.maps, files.overview)
        for path in set(old) - set(written):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    def _record(self, command: Sequence[str]) -> dict[str, object]:
        return classification_record(
            self.maker, self.files, classes=self.classes, objects=self.objects, reading=self.reading,
            mask_options=None if self.masks_as is None else self.mask_options, masks_as=self.masks_as,
            save_evidence=self.evidence_notes is not None, names=self.names, command=command,
            planes=[self.planes.get(file) for file in self.files],
        ) | {"knows_training_images": self.model.card.training.look is not None}  # fmt: skip


def _evidence_notes(maker: EvidenceMaker) -> dict[str, str]:
    """Say how evidence was made, for the annotations of its file."""
    options = maker.options
    more = {"jacobian": {"rule": options.rule}, "object": {}}.get(str(options.kind), {"detail": str(options.detail)})
    return {"evidence": str(options.kind), **more, "model": maker.model.card.name, "sha256": maker.model.digest}


def _possible_files(out: Path, name: str) -> set[Path]:
    """Return the paths of all files that may be written for an image, for any options."""
    return {path for kind in get_args(MasksAs) for path in image_files(out, name, kind) if path is not None}


def _result(
    file: Path, name: str, findings: Findings | None, objects: int | None, written: tuple[Path, ...], error: str
) -> ImageResult:
    if findings is None:
        return ImageResult(file, name, None, objects, written, error)
    prediction = findings.prediction
    return ImageResult(file, name, prediction.without_maps(), objects, written, error)
