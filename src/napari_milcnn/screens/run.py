"""A whole screen classified with one model, on one process or many, into one folder.

The folder holds run.json (the record), fields.parquet (every field with its layout), missing.csv, parts/ (a folder for
each well that is done) and, at the end, the tables. A run that was stopped or killed anywhere is gone on with: a well
whose part is there is not classified again.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pandas as pd

from napari_milcnn.atomic_write import cannot_write, sweep_drafts
from napari_milcnn.errors import OptionsError, OutputError, ResumeError
from napari_milcnn.images.open import AS_THEY_SAY, ImageReading
from napari_milcnn.inference.evidence import EvidenceMaker, class_indices
from napari_milcnn.inference.masks import checked_mask_options
from napari_milcnn.model.trained_model import TrainedModel
from napari_milcnn.options import EvidenceOptions, ForegroundOptions, ScreenOptions, make_options
from napari_milcnn.output_lock import OutputLock, holder_of_file, locked, locked_folder
from napari_milcnn.progress import Progress, Steps
from napari_milcnn.results.opened import RECORD
from napari_milcnn.results.record import chosen_for_all, with_engine_of
from napari_milcnn.results.unfinished import fingerprint
from napari_milcnn.results.write import write_json
from napari_milcnn.screens.check import check_fields
from napari_milcnn.screens.outputs.masks import check_takes_masks
from napari_milcnn.screens.parts import (
    FACTS,
    FieldOfWell,
    ScreenJob,
    WellDone,
    WellTask,
    classify_wells,
    read_part,
    scale_has_changed,
    scale_members,
    scale_path,
    stamp_of,
    tasks_of,
    well_done,
)
from napari_milcnn.screens.record import (
    check_same_way,
    recorded_screen,
    screen_record,
    write_screen,
)
from napari_milcnn.screens.sources.fields import Screen
from napari_milcnn.screens.sources.open import open_screen
from napari_milcnn.screens.summary import summarise

SHARDS = "shards"
_STARTING = 1800.0
"""Seconds for which the jobs of an array, of which there may be hundreds, wait for each other at both ends."""


def screen(
    model: TrainedModel,
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    layout: str | os.PathLike[str] | None = None,
    reading: ImageReading = AS_THEY_SAY,
    classes: Sequence[str] | None = None,
    mask_options: Mapping[str, object] | None = None,
    resume: bool = False,
    redo_changed: bool = False,
    retry_failed: bool = False,
    command: Sequence[str] = (),
    on_warning: Callable[[str], None] | None = None,
    **options: object,
) -> Steps[WellDone]:
    """Classify a screen well by well, and write one table of all.

    A field that fails gets a row with its error. If the loop is left early, or the process is killed, all finished
    wells are kept; `resume` goes on from there. A script that uses several workers needs the usual
    ``if __name__ == "__main__":`` around its own work, since each worker imports it.

    Parameters
    ----------
    model : TrainedModel
        The model to apply.
    source : path
        The images, as for `open_screen`: a folder, a table, an OME-Zarr plate or an OME-TIFF with one series a field.
    out : path
        Folder for the results.
    layout : path, optional
        What each well was given, as for `open_screen`.
    reading : ImageReading
        How the images are opened.
    classes : sequence of str, optional
        Classes whose cells are looked for; all by default.
    mask_options : mapping, optional
        Fields of `MaskOptions`.
    resume : bool
        Go on with the screen in the folder: wells that are done are left as they are. From the start if there is none.
        A shard always does.
    redo_changed : bool
        With `resume`: classify wells again that were classified with another model or other options, or whose images
        have changed since; otherwise they are refused.
    retry_failed : bool
        With `resume`: classify wells again in which a field failed; otherwise only if its file has changed.
    command : sequence of str
        The command line that was typed, for the record.
    on_warning : callable, optional
        Called with sentences about what was found, what is missing, and what `resume` leaves as it is.
    **options
        Fields of `ScreenOptions` and `EvidenceOptions`.

    Yields
    ------
    Progress
        Its number counts fields, and its result is a `WellDone` where the step finished a well.

    Raises
    ------
    ImageError, LabelsError
        If the source or the layout cannot be used, or no field can be classified with the model and the options.
    OptionsError
        If an option is unknown or has an impossible value.
    ResumeError
        If the folder holds a screen and nothing is said of it, or one of another model, other options or other images.
    OutputError
        If the folder cannot be written, holds other results, or another run writes to it.
    ComputeError
        If the scheduler or all workers are gone.
    """
    if (redo_changed or retry_failed) and not (resume or options.get("shard")):
        raise OptionsError("redo_changed and retry_failed say what resume does; give resume, too")
    if reading.plates is not None:
        raise OptionsError("option 'plates' is set, but a screen has the plates of its images, and its controls are "
                           "those of the layout; leave it out, and name controls in the layout")  # fmt: skip
    say = on_warning or (lambda _: None)
    shared, evidence = _divided(options)
    found = open_screen(source, layout=layout, reading=reading)
    for sentence in (found.summary, *found.notes, *_on_missing(found)):
        say(sentence)
    run = _ScreenRun(model, found, Path(out), shared, evidence, classes, mask_options,
               None if layout is None else Path(layout), command)  # fmt: skip
    check_fields(run.maker, [field for well in run.wells for field in well.fields], found.reading, cells=shared.cells,
                 say=say)  # fmt: skip
    with run.held() as lock:
        done = run.begin(resume or shared.shard is not None, redo_changed, retry_failed, say)
        yield from run.steps(lock, done, say)


def _divided(options: Mapping[str, object]) -> tuple[ScreenOptions, dict[str, object]]:
    """Divide keywords into those of the run and those of the evidence."""
    own = {name: value for name, value in options.items() if name in ScreenOptions.model_fields}
    rest = {name: value for name, value in options.items() if name not in own}
    make_options(EvidenceOptions, rest)
    return make_options(ScreenOptions, own), rest


def _on_missing(found: Screen) -> Iterator[str]:
    if len(found.missing):
        first = found.missing.iloc[0]
        place = " ".join(text for text in (first["plate"], first["well"], first["site"]) if text)
        yield f"{len(found.missing)} wells or fields are missing, such as {place}: {first['reason']}"


class _ScreenRun:
    """One call of `screen`."""

    def __init__(
        self, model: TrainedModel, found: Screen, out: Path, shared: ScreenOptions, evidence: Mapping[str, object],
        classes: Sequence[str] | None, mask_options: Mapping[str, object] | None, layout: Path | None,
        command: Sequence[str],
    ) -> None:  # fmt: skip
        self.model, self.found, self.out, self.shared = model, found, out.absolute(), shared
        foreground = make_options(EvidenceOptions, evidence).foreground or ForegroundOptions()
        evidence = with_engine_of(out, {**evidence, "foreground": foreground.over(model.card.foreground)})
        self.maker = EvidenceMaker(model, **evidence)
        evidence |= chosen_for_all(self.maker)  # on every worker the same, whatever its processor
        self.classes = tuple(classes) if classes else model.classes
        class_indices(model, self.classes)
        masks = checked_mask_options(mask_options or {}, model.classes) if shared.cells else None
        self.record = screen_record(self.maker, found, classes=self.classes, masks=masks, layout=layout,
                                    shared=shared.model_dump(), command=command)  # fmt: skip
        file = model.path if model.path is not None else self.out / "model.zip"
        self.job = ScreenJob(
            out=self.out, model=file.absolute(), digest=model.digest, way=str(self.record["way"]),
            reading=found.reading, evidence=json.loads(json.dumps(evidence, default=_plain)), classes=self.classes,
            masks=None if masks is None else masks.model_dump(), masks_go=shared.masks,
        )  # fmt: skip
        if masks is not None and shared.masks == "inside":
            check_takes_masks(found.fields["file"].drop_duplicates().tolist())
        self.wells = _wells_of(found, by_plate=model.card.normalise == "group")

    @contextmanager
    def held(self) -> Iterator[OutputLock]:
        """Hold the folder, or the shard, so that no other run works on it."""
        if self.shared.shard is None:
            with locked_folder(self.out) as lock:
                for path in (self.out / SHARDS).glob("*-of-*"):
                    if holder_of_file(path):
                        raise OutputError(f"{self.out} is being written by shard {path.name.replace('-of-', ' of ')}; "
                                          "wait until the shards end, or stop them")  # fmt: skip
                yield lock
            return
        mark = self.out / SHARDS / self.shared.shard.replace("/", "-of-")
        with locked(mark) as lock:
            yield lock

    def begin(self, resume: bool, redo: bool, retry: bool, say: Callable[[str], None]) -> dict[str, WellDone]:
        """Write the record and the fields, and return the wells that are done and stay, by their key."""
        with ExitStack() as stack:
            if self.shared.shard is not None:
                stack.enter_context(locked_folder(self.out, patience=_STARTING))
                (self.out / SHARDS / self.shared.shard.replace("/", "-of-")).touch()
            old = recorded_screen(self.out)
            if old is None and any(self.out.glob("predictions.csv")):
                raise OutputError(f"{self.out} holds other results than those of a screen; choose another folder")
            if old is not None and not resume:
                raise ResumeError(
                    f"{self.out} holds a screen; go on with it with resume (command line: --resume), or choose another "
                    "folder"
                )
            if old is not None and not redo:
                check_same_way(self.out, old, self.record)
            done = self._parts_to_keep(redo, retry)
            if self.model.path is None:
                self.model.save(self.job.model)
            write_screen(self.out, self.record, self.found)
        if old is not None:
            say(f"{len(done)} of {len(self.my_wells())} wells are done already and are left as they are")
        return done

    def _parts_to_keep(self, redo: bool, retry: bool) -> dict[str, WellDone]:
        """Read the parts that are there, refuse changes or remove the parts that they concern."""
        keep: dict[str, WellDone] = {}
        changed: list[str] = []
        remove: list[Path] = []
        wells = self.my_wells()
        for folder in dict.fromkeys(self.job.part(well).parent for well in wells):
            sweep_drafts(folder)
        scales = {well.plate: well.scaled_by for well in wells if well.scaled_by is not None}
        rescaled = {plate: by for plate, by in scales.items() if scale_has_changed(self.job, by)}
        for well in wells:
            facts = read_part(self.job.part(well))
            if facts is None:
                continue
            key = well.key(self.job.way)
            fresh = [one for one, here in zip(facts.fields, well.fields, strict=False)
                     if _has_changed(here.file, one.stamp, one.sha256)]  # fmt: skip
            if facts.key != key or well.plate in rescaled or any(not one.error for one in fresh):
                changed.append(f"{well.plate} {well.well}")
                remove.append(self.job.part(well))
            elif fresh or (retry and any(one.error for one in facts.fields)):
                remove.append(self.job.part(well))
            else:
                keep[key] = well_done(facts, before=True)
        if changed and not redo:
            raise ResumeError(
                f"{len(changed)} well{'s have' if len(changed) > 1 else ' has'} other images now than when "
                f"{'they were' if len(changed) > 1 else 'it was'} classified, such as {changed[0]}; classify them "
                "again with redo_changed (command line: --redo-changed), or choose another folder"
            )
        for by in rescaled.values():
            scale_path(self.job, by).unlink(missing_ok=True)
        for path in remove:
            _remove_part(path)
        return keep

    def my_wells(self) -> list[WellTask]:
        """Return the wells of this run: all of them, or those of its shard."""
        number, count = (int(text) for text in (self.shared.shard or "1/1").split("/"))
        ends = [len(self.wells) * each // count for each in (number - 1, number)]
        return self.wells[ends[0] : ends[1]]

    def steps(self, lock: OutputLock, done: Mapping[str, WellDone], say: Callable[[str], None]) -> Steps[WellDone]:
        """Classify the wells that are left, then write the tables."""
        wells = self.my_wells()
        total, number = sum(len(well.fields) for well in wells), 0
        to_do = []
        for well in wells:
            found = done.get(well.key(self.job.way))
            if found is None:
                to_do.append(well)
                continue
            number += len(well.fields)
            yield Progress(number, total, well.well, 0.0, found)
        one_process = self.shared.workers == 1 and self.shared.scheduler is None
        began = time.monotonic()
        for fields, share, what, result in self._here(to_do) if one_process else self._on_workers(to_do, say):
            lock.check()
            rate = fields / max(time.monotonic() - began, 1e-3)
            yield Progress(number + fields, total, f"{what}, {rate:.3g}/s" if fields else what, share, result)
        self._end(lock)

    def _here(self, wells: list[WellTask]) -> Iterator[tuple[int, float, str, WellDone | None]]:
        """Classify wells; yields the number of fields that are done, the share of the next, where it is, and a well."""
        before = 0
        for task in tasks_of(wells, 1):
            skipped = 0
            for step in classify_wells(self.job, task, self.maker):
                done = step.result
                if done is None:
                    yield before + skipped + step.number, step.share, step.doing, None
                    continue
                if done.before:  # by another run, meanwhile
                    skipped += done.fields
                yield before + skipped + step.number + (not done.before), 0.0, step.doing, done
            before += sum(len(well.fields) for well in task)

    def _on_workers(
        self, wells: list[WellTask], say: Callable[[str], None]
    ) -> Iterator[tuple[int, float, str, WellDone | None]]:
        """Classify wells on several processes or computers; yields what `_here` does."""
        from napari_milcnn.screens.cluster import on_workers

        finished = 0
        for done in on_workers(self.job, wells, self.shared, say) if wells else ():
            finished += done.fields if isinstance(done, WellDone) else 0
            what = done if isinstance(done, str) else f"{done.plate} {done.well}"
            yield finished, 0.0, what, done if isinstance(done, WellDone) else None

    def _is_done(self, well: WellTask) -> bool:
        """Whether a well was classified, with this model and these options."""
        facts = read_part(self.job.part(well))
        return facts is not None and facts.key == well.key(self.job.way)

    def _end(self, lock: OutputLock) -> None:
        """Write the tables, if every well of the screen is done."""
        with ExitStack() as stack:
            if self.shared.shard is not None:
                stack.enter_context(locked_folder(self.out, patience=_STARTING))
            lock.check()
            left = [well for well in self.wells if not self._is_done(well)]
            if left and self.shared.shard is None:
                raise OutputError(f"results of {len(left)} wells, such as {left[0].plate} {left[0].well}, are not in "
                                  f"{self.out} any more: they were deleted or moved meanwhile; go on with resume "
                                  "(command line: --resume)")  # fmt: skip
            if not left:
                summarise(self.out)
                write_json(self.out / RECORD, self.record | {"finished": True})


def _remove_part(path: Path) -> None:
    """Remove a part: what says that it is whole goes first, whenever the process is killed."""
    try:
        (path / FACTS).unlink(missing_ok=True)
        shutil.rmtree(path)
    except OSError as error:
        raise cannot_write(path, error) from error


def _has_changed(file: str, stamp: str, digest: str) -> bool:
    """Whether the file of a field is another one than when it was classified."""
    return stamp_of(file) != stamp and fingerprint(Path(file)) != digest


def _wells_of(found: Screen, *, by_plate: bool) -> list[WellTask]:
    wells = []
    table = found.fields
    names = list(FieldOfWell.__dataclass_fields__)
    for plate, of_plate in table.groupby("plate", sort=False):
        refs = [FieldOfWell(*row) for row in of_plate[names].itertuples(index=False, name=None)]
        controls = (of_plate["control"] == "negative").tolist() if "control" in of_plate else [False] * len(refs)
        scaled = scale_members(str(plate), refs, controls) if by_plate else None
        groups = pd.Series(range(len(refs))).groupby(of_plate["well"].to_numpy(), sort=False)
        wells += [WellTask(str(plate), str(well), tuple(refs[i] for i in places), scaled) for well, places in groups]
    return wells


def _plain(value: object) -> object:
    dump = getattr(value, "model_dump", None)
    return dump() if dump is not None else str(value)
