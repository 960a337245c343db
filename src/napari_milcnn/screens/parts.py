"""A part of a screen: one well, classified and written whole or not at all.

A part is the folder parts/PLATE/WELL of the screen's folder:

predictions.parquet
    A row for each plane of each field, or for a field that failed: its place, its scores, its error.
cells.parquet
    A row for each object, where cells are looked for and found.
well.parquet
    One row: score and P of all instances of the well in one bag, and the encoder's features (`screens.features`).
NAME_labels.ome.zarr
    The masks of a field, unless they are written into the OME-Zarr plate.
part.json
    Of what the part was made: `key`, which stands for the model, the options and the files of the well; and for each
    field its hash, and the size and time of its files.

Whoever classifies a well holds its lock meanwhile: a worker of a run that was killed may still be at it when the next
run begins, which then waits for it and finds the well done.
"""

from __future__ import annotations

import json
import math
import os
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Final

import pandas as pd
from pydantic import BaseModel, TypeAdapter, ValidationError

from napari_milcnn.atomic_write import replacing_folder, sha256
from napari_milcnn.errors import ModelError
from napari_milcnn.images.intensity import Plate, PlateScale, with_plate_scale
from napari_milcnn.images.open import ImageReading
from napari_milcnn.images.paths import pixel_files
from napari_milcnn.images.stack import ImageStack
from napari_milcnn.inference.evidence import EvidenceMaker
from napari_milcnn.inference.pipeline import ImageEnd, ImageOpened, ImageRequest, PlaneResult, analyse
from napari_milcnn.inference.predict import Bags
from napari_milcnn.model.package_read import load_model
from napari_milcnn.options import MaskOptions, MasksGo
from napari_milcnn.output_lock import locked
from napari_milcnn.progress import Progress, Steps
from napari_milcnn.results.findings import FindingsOfImage
from napari_milcnn.results.unfinished import fingerprint
from napari_milcnn.results.write import read_json, write_json
from napari_milcnn.schema import FIELD_COLUMNS
from napari_milcnn.screens.features import WELL_PART, well_row
from napari_milcnn.screens.outputs.masks import FieldMasks
from napari_milcnn.screens.outputs.quality import quality_columns
from napari_milcnn.screens.sources.fields import file_name

PARTS: Final = "parts"
"""Folder of the parts in the folder of a screen."""
PREDICTIONS_PART, CELLS_PART, FACTS = "predictions.parquet", "cells.parquet", "part.json"
_FOREVER: Final = -1.0
_FIELDS_OF_A_TASK, _TASKS_OF_A_WORKER = 32, 20
"""Fields of a task, at most; and tasks for each worker, at least, so that all of them end at about the same time."""


@dataclass(frozen=True)
class FieldOfWell:
    """One field to classify, as its row in the table of fields says: place, file, and number in its file."""

    site: str
    t: str
    z: str
    file: str
    series: str
    name: str

    def open(self, reading: ImageReading) -> ImageStack:
        """Open the image.

        Raises
        ------
        ImageError
            As `open_image` does.
        """
        return (replace(reading, series=int(self.series)) if self.series else reading).open(Path(self.file))


@dataclass(frozen=True)
class ScaledBy:
    """The fields by which the intensities of a plate are scaled: its negative controls, or all where there are none."""

    plate: str
    fields: tuple[FieldOfWell, ...]
    controls: bool
    of: int

    @cached_property
    def digest(self) -> str:
        """What stands for the fields."""
        return sha256(json.dumps([asdict(one) for one in self.fields]).encode("utf-8", "surrogateescape"))


@dataclass(frozen=True)
class WellTask:
    """One well to classify."""

    plate: str
    well: str
    fields: tuple[FieldOfWell, ...]
    scaled_by: ScaledBy | None = None

    def key(self, way: str) -> str:
        """Return what stands for this well, its files, and the way in which it is classified."""
        scaled = None if self.scaled_by is None else self.scaled_by.digest
        facts = [way, self.plate, self.well, [asdict(one) for one in self.fields], scaled]
        return sha256(json.dumps(facts).encode("utf-8", "surrogateescape"))


@dataclass(frozen=True)
class ScreenJob:
    """What all wells of a run share; it travels to each worker with each task.

    Attributes
    ----------
    out : Path
        The folder of the screen.
    model, digest : Path, str
        The model's file, and its digest.
    way : str
        Stands for the model and all options that change numbers.
    reading : ImageReading
        How images are opened.
    evidence : mapping
        Fields of `EvidenceOptions`.
    masks : mapping or None
        Fields of `MaskOptions`; None where no cells are looked for.
    classes : tuple of str
        Classes that get masks.
    masks_go : str
        Where masks are written, as `ScreenOptions.masks` says.
    """

    out: Path
    model: Path
    digest: str
    way: str
    reading: ImageReading
    evidence: Mapping[str, object] = field(default_factory=dict)
    masks: Mapping[str, object] | None = None
    classes: tuple[str, ...] = ()
    masks_go: MasksGo = "beside"

    def part(self, well: WellTask) -> Path:
        """Return the folder of the part of a well."""
        return part_folder(self.out, well.plate, well.well)


def part_folder(out: Path, plate: str, well: str) -> Path:
    """Return the folder of the part of a well in the folder of a screen."""
    return out / PARTS / _safe_name(plate) / _safe_name(well)


def _safe_name(text: str) -> str:
    plain = file_name(text)
    return plain if plain == text else f"{plain}-{sha256(text.encode('utf-8', 'surrogateescape'))[:6]}"


class FieldFacts(BaseModel, frozen=True):
    """What a part says of a field: its name, its file, its hash, size and time of its files, and why it failed."""

    name: str
    file: str
    sha256: str
    stamp: str
    error: str = ""


class PartFacts(BaseModel, frozen=True):
    """The file part.json of a part."""

    key: str
    way: str = ""
    plate: str
    well: str
    fields: tuple[FieldFacts, ...]
    seconds: float
    device: str
    computer: str
    when: str


@dataclass(frozen=True)
class WellDone:
    """A well of which the part is on disk.

    Attributes
    ----------
    plate, well : str
        Which well.
    fields : int
        Number of its fields.
    failures : tuple of str
        Why fields failed, one sentence each.
    before : bool
        Whether it was done already, by an earlier run.
    """

    plate: str
    well: str
    fields: int
    failures: tuple[str, ...] = ()
    before: bool = False


def read_part(folder: Path) -> PartFacts | None:
    """Read what a part says of itself; None where there is none, or one that is damaged."""
    if not (folder / PREDICTIONS_PART).is_file():
        return None
    try:
        return PartFacts.model_validate(read_json(folder / FACTS))
    except (OSError, ValueError, ValidationError):
        return None


@lru_cache(maxsize=8)
def _hash_of(file: str, stamp: str) -> str:
    """Return the hash of an image, once for all series of a file."""
    return fingerprint(Path(file))


def stamp_of(file: str) -> str:
    """Return a hash of the names, sizes and times of the files of an image; "" without files.

    Of all of them: the file of one channel can be replaced by one that is as large and older than the others.
    """
    try:
        found = [(one.name, one.stat()) for one in pixel_files(Path(file))]
    except OSError:
        return ""
    return sha256(repr([(os.fsencode(name), one.st_size, one.st_mtime_ns) for name, one in found]).encode())


def classify_wells(job: ScreenJob, wells: Sequence[WellTask], maker: EvidenceMaker | None = None) -> Steps[WellDone]:
    """Classify wells and write their parts; a well whose part is there already is left as it is.

    Parameters
    ----------
    job : ScreenJob
        What all wells share.
    wells : sequence of WellTask
        The wells, in the order of the screen.
    maker : EvidenceMaker, optional
        The model that is ready on a device; by default it is loaded, once a process.

    Yields
    ------
    Progress
        After every step of every field; the result is a `WellDone` where the step finished a well.

    Raises
    ------
    ModelError
        If the file of the model is not the model of the run.
    OutputError
        If a part cannot be written.
    """
    with ExitStack() as every:
        to_do: dict[WellTask, ExitStack] = {}
        for well in wells:
            lock = every.enter_context(ExitStack())
            lock.enter_context(locked(job.part(well), patience=_FOREVER))
            facts = read_part(job.part(well))
            if facts is not None and facts.key == well.key(job.way):
                lock.close()
                yield Progress(0, 1, well.well, 0.0, well_done(facts, before=True))
            else:
                to_do[well] = lock
        if to_do:
            with _ONE_AT_A_TIME:
                maker = maker or _loaded_maker(job.model, job.digest, json.dumps(job.evidence))
                yield from _classify(job, to_do, maker)


_ONE_AT_A_TIME: Final = threading.Lock()
"""A worker with several threads classifies one task at a time: the network uses all cores that it may use."""


@lru_cache(maxsize=1)
def _loaded_maker(path: Path, digest: str, evidence: str) -> EvidenceMaker:
    """Load a model on this worker, once for all tasks."""
    model = load_model(path)
    if model.digest != digest:
        raise ModelError(f"{path} has changed since the run began; put the model back, or start the screen again")
    return EvidenceMaker(model, **json.loads(evidence))


def well_done(facts: PartFacts, *, before: bool) -> WellDone:
    """Return a well as its part describes it."""
    failures = tuple(one.error for one in facts.fields if one.error)
    return WellDone(facts.plate, facts.well, len(facts.fields), failures, before)


class _FieldResult:
    """The tables and facts of one field, while its planes come in."""

    def __init__(self, well: WellTask, one: FieldOfWell) -> None:
        self.well, self.one = well, one
        self.sha256 = self.stamp = ""
        self.channels: Sequence[str] = ()
        self.found: FindingsOfImage | None = None
        self.rows, self.cells = pd.DataFrame(), pd.DataFrame()
        self.bags: Bags | None = None
        self.masks: FieldMasks | None = None
        self.facts: FieldFacts | None = None

    def open(self, job: ScreenJob, channels: Sequence[str]) -> ImageStack:
        """Open the image; size, time and hash of its files are taken before its pixels are read."""
        self.channels = channels
        self.take_hash()
        scale = None if self.well.scaled_by is None else plate_scale(job, self.well.scaled_by, channels)
        return with_plate_scale(self.one.open(job.reading), scale)

    def take_hash(self) -> None:
        """Take size, time and hash of the files."""
        self.stamp = stamp_of(self.one.file)
        self.sha256 = _hash_of(self.one.file, self.stamp)

    def end(self, failure: str, *, masks: bool = False) -> None:
        """Make the tables of the field; its masks are kept until its part is written, if they are wanted."""
        findings = None if self.found is None else self.found.findings()
        error = "; ".join([*(() if self.found is None else self.found.problems), *([failure] if failure else [])])
        if findings is not None:
            quality = quality_columns(findings.prediction, self.channels)
            self.rows, self.cells = self._placed(findings.rows().join(quality)), self._placed(findings.objects())
            self.bags = findings.prediction.bags
            if masks and findings.masks:
                self.masks = FieldMasks(findings.image, findings.prediction.classes, findings.masks)
        if error:
            failed = self._placed(pd.DataFrame([{"file": self.one.file, "name": self.one.name, "error": error}]))
            self.rows = pd.concat([self.rows, failed], ignore_index=True) if len(self.rows) else failed
        self.facts = FieldFacts(
            name=self.one.name, file=self.one.file, sha256=self.sha256, stamp=self.stamp, error=error
        )
        self.found = None

    def _placed(self, table: pd.DataFrame) -> pd.DataFrame:
        """Put the place of the field before its rows; a time and a Z plane that its name says are those of its rows."""
        said = {name: int(text) for name, text in (("t", self.one.t), ("z", self.one.z)) if text.isdecimal()}
        table = table.assign(**{name: number for name, number in said.items() if name in table})
        place = dict(zip(FIELD_COLUMNS, (self.well.plate, self.well.well, self.one.site), strict=True))
        return table.assign(**place)[[*place, *table]]


def _classify(job: ScreenJob, wells: Mapping[WellTask, ExitStack], maker: EvidenceMaker) -> Steps[WellDone]:
    """Classify wells, and let go of the lock of each when its part is written."""
    fields = [_FieldResult(well, one) for well in wells for one in well.fields]
    masks = None if job.masks is None else MaskOptions.model_validate(job.masks)
    requests = [
        ImageRequest(each.one.file, partial(each.open, job, maker.model.channels), masks=masks, classes=job.classes)
        for each in fields
    ]
    began = datetime.now(UTC)
    for step in analyse(maker, requests):
        each, event, done = fields[step.number], step.result, None
        if isinstance(event, ImageOpened):
            each.found = FindingsOfImage(event.image, each.one.file, each.one.name)
        elif isinstance(event, PlaneResult) and each.found is not None:
            each.found.take(event)
        elif isinstance(event, ImageEnd):
            each.end(event.failure, masks=job.masks is not None and job.masks_go != "nowhere")
            if each.one is each.well.fields[-1]:
                of_well = [one for one in fields if one.well is each.well]
                done = _write_part(job, each.well, of_well, began, maker)
                wells[each.well].close()
                began = datetime.now(UTC)
        yield Progress(step.number, step.total, f"{each.well.plate} {each.well.well}", step.share, done)


def _write_part(
    job: ScreenJob, well: WellTask, fields: Sequence[_FieldResult], began: datetime, maker: EvidenceMaker | None
) -> WellDone:
    now = datetime.now(UTC)
    facts = PartFacts(
        key=well.key(job.way), way=job.way, plate=well.plate, well=well.well, computer=socket.gethostname(),
        device="" if maker is None else str(maker.classifier.inference.choice),
        fields=tuple(one.facts for one in fields if one.facts is not None), when=now.isoformat(timespec="seconds"),
        seconds=round((now - began).total_seconds(), 3),
    )  # fmt: skip
    cells = [one.cells for one in fields if len(one.cells)]
    bags = [one.bags for one in fields if one.bags is not None]
    with replacing_folder(job.part(well)) as draft:
        for one in fields:
            if one.masks is not None:
                one.masks.write(job.masks_go, draft, Path(one.one.file), one.one.name)
        pd.concat([one.rows for one in fields], ignore_index=True).to_parquet(draft / PREDICTIONS_PART, index=False)
        if cells:
            pd.concat(cells, ignore_index=True).to_parquet(draft / CELLS_PART, index=False)
        if bags and maker is not None:
            row = well_row(maker.model, well.plate, well.well, Bags.joined(bags))
            row.to_parquet(draft / WELL_PART, index=False)
        write_json(draft / FACTS, facts.model_dump())
    for one in fields:
        one.rows = one.cells = pd.DataFrame()
        one.bags = one.masks = None
    return well_done(facts, before=False)


def fail_well(job: ScreenJob, well: WellTask, reason: str) -> WellDone:
    """Write the part of a well that cannot be classified: a row with the reason for each of its fields."""
    fields = [_FieldResult(well, one) for one in well.fields]
    for each in fields:
        each.take_hash()
        each.end(reason)
    return _write_part(job, well, fields, datetime.now(UTC), None)


_SCALE: Final = TypeAdapter(PlateScale)
_SCALED_OF: Final = TypeAdapter(list[tuple[str, str]])
"""Of the images by which a plate was scaled: `stamp_of` and hash."""


def plate_scale(job: ScreenJob, by: ScaledBy, channels: Sequence[str]) -> PlateScale:
    """Return the scale of a plate, which whoever needs it first measures and writes for all.

    Raises
    ------
    ImageError
        If none of the images can be read.
    """
    key = sha256(f"{job.way} {by.digest}".encode())
    return _measured_scale(scale_path(job, by), key, job, by, tuple(channels))


@lru_cache(maxsize=64)
def _scale_cache(path: Path, key: str) -> list[PlateScale]:
    return []


def _measured_scale(path: Path, key: str, job: ScreenJob, by: ScaledBy, channels: tuple[str, ...]) -> PlateScale:
    known = _scale_cache(path, f"{key} {[stamp_of(one.file) for one in by.fields]}")
    if known:
        return known[0]
    with locked(path, patience=_FOREVER):
        found = _written_scale(path, key)
        if found is None:
            members = [partial(one.open, job.reading) for one in by.fields]
            found = replace(Plate(f"plate {by.plate}", members, controls=by.controls).scale(channels), images=by.of)
            write_json(path, {"key": key, "scale": _SCALE.dump_python(found), "of": _stamps(by)})
    known.append(found)
    return found


def _stamps(by: ScaledBy) -> list[list[str]]:
    stamps = [(one.file, stamp_of(one.file)) for one in by.fields]
    return [[stamp, _hash_of(file, stamp) if stamp else ""] for file, stamp in stamps]


def scale_path(job: ScreenJob, by: ScaledBy) -> Path:
    """Return the file of the scale of a plate."""
    return job.out / PARTS / _safe_name(by.plate) / ".scale.json"


def scale_has_changed(job: ScreenJob, by: ScaledBy) -> bool:
    """Whether images by which a plate was scaled are others now; False where it was not scaled yet."""
    try:
        before = _SCALED_OF.validate_python(read_json(scale_path(job, by))["of"])
    except (OSError, ValueError, KeyError, ValidationError):
        return False
    stamps = [stamp_of(one.file) for one in by.fields]
    return len(before) != len(stamps) or any(
        stamp != old_stamp and _hash_of(one.file, stamp) != old_hash
        for one, stamp, (old_stamp, old_hash) in zip(by.fields, stamps, before, strict=True)
    )


def _written_scale(path: Path, key: str) -> PlateScale | None:
    try:
        found = read_json(path)
        return _SCALE.validate_python(found["scale"]) if found.get("key") == key else None
    except (OSError, ValueError, KeyError, ValidationError):
        return None


def scale_members(plate: str, fields: Sequence[FieldOfWell], controls: Sequence[bool]) -> ScaledBy:
    """Choose the fields by which a plate is scaled: of its negative controls, or of all, at most 256, evenly spaced."""
    marked = [one for one, is_control in zip(fields, controls, strict=True) if is_control]
    every = marked or list(fields)
    step = max(1, math.ceil(len(every) / 256))
    return ScaledBy(plate, tuple(every[::step]), bool(marked), len(every))


def wells_of_steps(steps: Iterator[Progress[WellDone]]) -> list[WellDone]:
    """Run steps to their end, and return the wells that they finished."""
    return [step.result for step in steps if step.result is not None]


def tasks_of(wells: Sequence[WellTask], workers: int) -> list[list[WellTask]]:
    """Divide wells into tasks of a well or a few, each long enough that handing it out costs nothing to speak of."""
    total = sum(len(well.fields) for well in wells)
    most = max(1, min(_FIELDS_OF_A_TASK, total // (workers * _TASKS_OF_A_WORKER)))
    tasks: list[list[WellTask]] = []
    count = most
    for well in wells:
        if count >= most:
            tasks.append([])
            count = 0
        tasks[-1].append(well)
        count += len(well.fields)
    return tasks
