"""The records of the classifications in a folder: each run.json holds all that is needed to run one of them again.

Images that were classified in the same way share one record. Images that were classified in another way, or that are
not files and so cannot be classified again, get another record: run-NAME.json, with the name of the first of them.
"""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import chain, count
from pathlib import Path
from typing import Self
from uuid import uuid4

from pydantic import BaseModel, ConfigDict, InstanceOf, ValidationError, model_validator

from napari_milcnn.errors import OutputError
from napari_milcnn.images.intensity import PlateScale
from napari_milcnn.images.open import AS_THEY_SAY, ImageReading
from napari_milcnn.images.paths import output_names
from napari_milcnn.inference.evidence import EvidenceMaker
from napari_milcnn.inference.predict import Prediction
from napari_milcnn.model.openvino_import import openvino_version
from napari_milcnn.options import Engine, MaskOptions, MasksAs
from napari_milcnn.results.write import read_json, write_json

RECORD_FORMAT = 2
"""Format of run.json; it is raised by one when an older program would read the new record and run something else."""
KIND_OF_SCREENS = "screen"
"""The `kind` of the record of a screen, which that of a classification does not have."""
_PACKAGES = ("napari-milcnn", "torch", "numpy", "scikit-image", "tifffile", "zarr")


class ClassificationRecord(BaseModel):
    """A record in a folder, checked as far as images are added to it or removed from it; the rest stays as it is.

    Records of early versions have no id, no time at which the run began, and do not say whether it finished.
    """

    model_config = ConfigDict(extra="allow")

    format: int
    id: str = ""
    began: str = ""
    written: str = ""
    finished: bool | None = None
    command: list[InstanceOf[str]] = []
    model: dict[str, object]
    options: dict[str, object]
    versions: dict[str, str]
    device: str = ""
    files: list[InstanceOf[str] | None]  # InstanceOf: names of files need not be valid Unicode
    names: list[InstanceOf[str]]
    planes: list[list[int] | None]
    images: list[dict[str, object]] | None = None
    unfinished: list[InstanceOf[str]] | None = None

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, found: dict[str, object]) -> dict[str, object]:
        """Add names and planes, which records of format 1 do not have."""
        files = found.get("files")
        if not isinstance(files, list):
            return found
        names = found.get("names") or output_names([Path(str(file or "image")) for file in files])
        return {**found, "names": names, "planes": found.get("planes") or [None] * len(files)}

    @model_validator(mode="after")
    def _one_entry_per_image(self) -> Self:
        if not len(self.files) == len(self.names) == len(self.planes):
            raise ValueError("its lists of files, names and planes have different lengths")
        return self


def classification_record(
    maker: EvidenceMaker,
    files: Sequence[Path | None],
    *,
    classes: Sequence[str],
    objects: Path | None = None,
    reading: ImageReading = AS_THEY_SAY,
    mask_options: MaskOptions | None = None,
    masks_as: MasksAs | None = "tiff",
    save_evidence: bool = False,
    planes: Sequence[Sequence[int] | None] | None = None,
    names: Sequence[str] | None = None,
    command: Sequence[str] = (),
) -> dict[str, object]:
    """Return all that `replay` needs to classify the same images again with the same numbers.

    Parameters
    ----------
    maker : EvidenceMaker
        What classified the images: its model, its options, and the precision and engine that it chose.
    files : sequence of Path or None
        The images; None for an image that is not a file. A record with such an image cannot be run again.
    classes : sequence of str
        Classes whose masks were made.
    objects : Path, optional
        The user's own label images: one file, or a folder of files.
    reading : ImageReading
        How the files were opened.
    mask_options : MaskOptions, optional
        How masks were made; None if no masks were made.
    masks_as : str, optional
        Format of the label images: tiff or zarr.
    save_evidence : bool
        Whether evidence was written.
    planes : sequence, optional
        For each image, the numbers of the planes that were classified; None if all were.
    names : sequence of str, optional
        For each image, the beginning of the names of its files; by default as `output_names` gives it.
    command : sequence of str
        The command line, if one was typed.
    """
    model, choice = maker.model, maker.classifier.inference.choice
    options = {
        "evidence": maker.options.model_dump() | chosen_for_all(maker),
        "masks": None if mask_options is None else mask_options.model_dump(),
        "masks_as": None if mask_options is None else masks_as,
        "save_evidence": save_evidence,
        "classes": list(classes),
        "objects": _absolute(objects),
        "reading": _reading_facts(reading),
    }
    return {
        "format": RECORD_FORMAT,
        "id": uuid4().hex,
        "began": _now(),
        "command": list(command),
        "model": {"path": _absolute(model.path), "name": model.card.name, "sha256": model.digest},
        "options": options,
        "versions": versions(choice.engine),
        "device": str(choice),
        "files": [_absolute(file) for file in files],
        "names": output_names([file or Path("image") for file in files]) if names is None else list(names),
        "planes": [None if chosen is None else list(chosen) for chosen in planes or [None] * len(files)],
    }


def chosen_for_all(maker: EvidenceMaker) -> dict[str, str]:
    """Return the precision and the engine that were chosen: "auto" may choose others the next time, or elsewhere."""
    choice = maker.classifier.inference.choice
    return {"precision": str(choice.precision).removeprefix("torch."), "engine": choice.engine}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _reading_facts(reading: ImageReading) -> dict[str, object]:
    """Return how files were opened; without plates and pattern as records of early versions have it."""
    facts = vars(reading) | {"plates": _absolute(reading.plates)}
    return {name: value for name, value in facts.items() if name not in ("plates", "pattern") or value is not None}


def image_facts(
    file: Path, name: str, prediction: Prediction | None, objects: int, written: Sequence[Path], error: str = ""
) -> dict[str, object]:
    """Return the entry of an image in a record: how it was classified, and what was written for it.

    Parameters
    ----------
    file, name : Path, str
        The image, and the beginning of the names of its files.
    prediction : Prediction or None
        Scores of its planes; None if no plane was classified.
    objects : int
        Number of objects in its masks.
    written : sequence of Path
        Its files, which all lie in the folder of the record.
    error : str
        Why it failed, or why a part of its results is missing; empty if all went well.
    """
    facts: dict[str, object] = {"file": str(file), "name": name, "when": _now()}
    if prediction is not None:
        facts |= {
            "top": prediction.top,
            "unlike": [None if math.isnan(value) else round(value, 3) for value in prediction.unlike.tolist()],
            "unlike_reasons": prediction.unlike_reasons,
            "seconds": round(prediction.seconds, 3),
            "objects": objects,
            "files": [path.name for path in written],
            "warnings": prediction.notes,
            **plate_facts(prediction.plate),
        }
    return facts | ({"error": error} if error else {})


def plate_facts(plate: PlateScale | None) -> dict[str, object]:
    """Return what the intensities of an image were scaled by, for its row in the record; empty without a plate."""
    return {} if plate is None else {"plate": asdict(plate)}


def _absolute(path: Path | None) -> str | None:
    return None if path is None else str(path.absolute())


def versions(engine: Engine = "torch") -> dict[str, str]:
    """Return the version of Python and of each package that the numbers depend on, the engine's among them."""
    found = {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}}
    ours = openvino_version() if engine == "openvino" else None
    return found | ({} if ours is None else {"openvino": ours})


def check_room(out: Path, files: Mapping[str, Path]) -> None:
    """Refuse to write over the results of other images.

    Parameters
    ----------
    out : Path
        The folder.
    files : mapping
        Name with which the files of an image begin -> the image.

    Raises
    ------
    OutputError
        If the folder has results of another image under one of these names, or of one of these images under another
        name; or if it has a file run.json that is not the record of a classification.
    """
    names = {str(file.absolute()): name for name, file in files.items()}
    for old_file, old_name in _recorded_images(out):
        new_file = files.get(old_name)
        if new_file is not None and str(new_file.absolute()) != old_file:
            raise OutputError(
                f"{out} holds results of {old_file or 'a layer'} under the name {old_name}, which the results of "
                f"{new_file} would also get; choose another folder"
            )
        if old_file is not None and names.get(old_file, old_name) != old_name:
            raise OutputError(
                f"{out} holds results of {old_file} under the name {old_name}, but its new results would get the name "
                f"{names[old_file]}; choose another folder"
            )


def room_for(out: Path, record: Mapping[str, object]) -> Path:
    """Return a folder in which the results of one image do not overwrite those of another.

    Parameters
    ----------
    out : Path
        The folder that was chosen. It is returned unless it has results of another image with the same name, or of the
        same file under another name; then a folder inside it is returned.
    record : mapping
        The record of this image alone, from `classification_record`.
    """
    found = checked_record(record)
    (file,), (name,) = found.files, found.names
    inside = (out / (name if number == 1 else f"{name}_{number}") for number in count(1))
    return next(folder for folder in chain([out], inside) if not _holds_another(folder, file, name))


def _holds_another(out: Path, file: str | None, name: str) -> bool:
    """Whether a folder has results of another image under this name, or of this file under another name."""
    return any(
        (old_name == name) != (old_file == file) and (old_name == name or file is not None)
        for old_file, old_name in _recorded_images(out)
    )


def _recorded_images(out: Path) -> Iterator[tuple[str | None, str]]:
    """Yield file and name of every image in the records of a folder."""
    for _, record in recorded_runs(out):
        yield from zip(record.files, record.names, strict=True)


def recorded_runs(out: Path) -> Iterator[tuple[Path, ClassificationRecord]]:
    """Yield every record of a folder, run.json first.

    Raises
    ------
    OutputError
        If the folder has a file run.json or run-NAME.json that is not the record of a classification.
    """
    for path in record_paths(out):
        yield path, _read_record(path)


def checked_record(record: Mapping[str, object]) -> ClassificationRecord:
    """Return a record that was made here as it will be read back."""
    return ClassificationRecord.model_validate(json.loads(json.dumps(record, default=str)))


def with_engine_of(out: Path, options: Mapping[str, object]) -> dict[str, object]:
    """Return options in which the engine `auto` is that of the results in a folder, if all have the same one.

    So the results of one folder come from one engine, also where the faster one is another by now.

    Raises
    ------
    OutputError
        If the folder has a file run.json or run-NAME.json that is not the record of a classification.
    """
    if options.get("engine") != "auto":
        return dict(options)
    recorded = [dict(flat_options(run.options)).get("evidence engine") for _, run in recorded_runs(out)]
    return {**options, "engine": recorded[0]} if len(set(recorded)) == 1 and recorded[0] else dict(options)


def record_paths(out: Path) -> list[Path]:
    """Return the paths of the records in a folder, run.json first."""
    return [*out.glob("run.json"), *sorted(out.glob("run-*.json"))]


def write_record(
    out: Path, record: Mapping[str, object], *, done: Mapping[str, bool] | None = None, merge: bool = False
) -> Path:
    """Write the record of a run to a folder that may hold records of other runs, and return its path.

    Parameters
    ----------
    out : Path
        The folder, whose lock the caller holds.
    record : mapping
        From `classification_record`; it replaces an earlier state of the same record.
    done : mapping, optional
        Name of each image that the run is done with -> whether any of its planes was classified. Records of other runs
        no longer list an image that was, or that failed in both runs.
    merge : bool
        Whether the images are added to the record of a run that classified its images in the same way, if there is one.

    Raises
    ------
    OutputError
        If the folder has a file run.json or run-NAME.json that is not the record of a classification.
    """
    new = checked_record({**record, "written": _now()})
    runs = dict(recorded_runs(out))
    own = next((path for path, old in runs.items() if new.id and old.id == new.id), None)
    others = {path: old for path, old in runs.items() if path != own}
    alike = next((path for path, old in others.items() if merge and _same_way(old, new)), None)
    if alike is not None:
        new = _merged(_without(others.pop(alike), new.names), new)
    left = {path: _without(old, _replaced(old, done or {})) for path, old in others.items()}
    home = _free_place(out, new, {path for path in left if left[path].files}, alike or own)
    _write(home, new)
    for path in runs.keys() - {home}:
        if path not in left or not left[path].files:
            path.unlink()
        elif left[path].names != others[path].names:
            _write(path, left[path])
    return home


def _replaced(old: ClassificationRecord, done: Mapping[str, bool]) -> set[str]:
    """Return the names of the images whose results in an earlier run were replaced by those of another."""
    failed_twice = {str(image.get("name")) for image in old.images or () if "top" not in image and "error" in image}
    return {name for name, classified in done.items() if classified or name in failed_twice}


def _free_place(out: Path, record: ClassificationRecord, taken: Collection[Path], own: Path | None) -> Path:
    """Return where a record goes: run.json where no other one needs it, else where it was or under its first name."""
    first = out / "run.json"
    if first not in taken:
        return first
    ends = chain([""], (f"_{number}" for number in count(2)))
    free = (out / f"run-{record.names[0]}{end}.json" for end in ends)
    return own or next(path for path in free if path not in taken)


def _read_record(path: Path) -> ClassificationRecord:
    try:
        found = read_json(path)
        if found.get("kind") == KIND_OF_SCREENS:
            raise ValueError("it is that of a screen")
        return ClassificationRecord.model_validate(found)
    except ValidationError as error:
        first = error.errors()[0]
        reason = f"{'.'.join(map(str, first['loc'])) or path.name}: {first['msg']}"
        raise _not_a_record(path, reason) from error
    except (OSError, ValueError) as error:
        raise _not_a_record(path, str(error)) from error


def _not_a_record(path: Path, reason: str) -> OutputError:
    return OutputError(f"{path} is not the record of a classification ({reason}); choose another folder")


def _write(path: Path, record: ClassificationRecord) -> None:
    write_json(path, record.model_dump(exclude_unset=True))


def _without(record: ClassificationRecord, names: Collection[str]) -> ClassificationRecord:
    """Return a record without the images of some names."""
    rows = list(zip(record.files, record.names, record.planes, strict=True))
    left = [row for row in rows if row[1] not in names]
    gone = {file for file, name, _ in rows if name in names} - {file for file, _, _ in left}
    changes: dict[str, object] = {
        "files": [file for file, _, _ in left], "names": [name for _, name, _ in left],
        "planes": [planes for _, _, planes in left],
    }  # fmt: skip
    if record.images is not None:
        changes["images"] = [image for image in record.images
                             if image.get("file") not in gone and image.get("name") not in names]  # fmt: skip
    if record.unfinished is not None:
        changes["unfinished"] = [file for file in record.unfinished if file not in gone]
        changes["finished"] = not changes["unfinished"]
    return record.model_copy(update=changes)


def _merged(old: ClassificationRecord, new: ClassificationRecord) -> ClassificationRecord:
    """Return the new record with the images of an old one before its own."""
    changes: dict[str, object] = {
        "files": old.files + new.files, "names": old.names + new.names, "planes": old.planes + new.planes,
    }  # fmt: skip
    if old.images is not None or new.images is not None:
        changes["images"] = [*(old.images or ()), *(new.images or ())]
    if old.unfinished is not None or new.unfinished is not None:
        changes["unfinished"] = [*(old.unfinished or ()), *(new.unfinished or ())]
        changes["finished"] = not changes["unfinished"]
    return new.model_copy(update=changes)


def _same_way(old: ClassificationRecord, new: ClassificationRecord) -> bool:
    """Whether the images of two records are files that were classified in the same way, so one record can list all."""
    same = (old.format, old.model, old.versions) == (new.format, new.model, new.versions)
    return same and not differences(old, new) and None not in [*old.files, *new.files]


def differences(old: ClassificationRecord, new: ClassificationRecord) -> list[str]:
    """Say in what the model and the options of two runs differ; empty if both give the same numbers."""
    found = [] if old.model.get("sha256") == new.model.get("sha256") else [
        f"model (was {old.model.get('name')}, is {new.model.get('name')}"
        f"{', changed since' if old.model.get('name') == new.model.get('name') else ''})"
    ]  # fmt: skip
    was, now = (dict(flat_options(run.options)) for run in (old, new))
    was.setdefault("masks_as", "tiff" if old.options.get("masks") else None)  # early versions do not name the format
    was.setdefault("save_evidence", False)
    names = [name for name in {**was, **now} if was.get(name) != now.get(name)]
    return found + [f"{name} (was {was.get(name)}, is {now.get(name)})" for name in names]


def flat_options(options: Mapping[str, object], above: str = "") -> Iterator[tuple[str, object]]:
    """Yield the name and the value of each option, of groups of options one by one."""
    for name, value in options.items():
        if isinstance(value, dict):
            yield from flat_options(value, f"{above}{name} ")
        else:
            yield f"{above}{name}", value
