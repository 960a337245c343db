"""The records of the classifications in a folder: each run.json holds all that is needed to run one of them again.

Images that were classified in the same way share one record. Images that were classified in another way, or that are
not files and so cannot be classified again, get another record: run-NAME.json, with the name of the first of them.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import chain, count
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, InstanceOf, ValidationError, model_validator

from napari_milcnn.errors import OutputError
from napari_milcnn.images.intensity import PlateScale
from napari_milcnn.images.open import AS_THEY_SAY, ImageReading
from napari_milcnn.images.paths import output_names
from napari_milcnn.inference.evidence import EvidenceMaker
from napari_milcnn.options import MaskOptions, MasksAs
from napari_milcnn.results.write import read_json, write_json

RECORD_FORMAT = 2
"""Format of run.json; it is raised by one when an older program would read the new record and run something else."""
_PACKAGES = ("napari-milcnn", "torch", "numpy", "scikit-image", "tifffile", "zarr")


class _RunRecord(BaseModel):
    """A record in a folder, checked as far as images are added to it or removed from it; the rest stays as it is."""

    model_config = ConfigDict(extra="allow")

    format: int
    written: str = ""
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
        What classified the images: its model, its options and the precision that it chose.
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
    precision = str(choice.precision).removeprefix("torch.")  # "auto" may choose another one the next time
    options = {
        "evidence": maker.options.model_dump() | {"precision": precision},
        "masks": None if mask_options is None else mask_options.model_dump(),
        "masks_as": None if mask_options is None else masks_as,
        "save_evidence": save_evidence,
        "classes": list(classes),
        "objects": _absolute(objects),
        "reading": _reading_facts(reading),
    }
    return {
        "format": RECORD_FORMAT,
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": list(command),
        "model": {"path": _absolute(model.path), "name": model.card.name, "sha256": model.digest},
        "options": options,
        "versions": versions(),
        "device": str(choice),
        "files": [_absolute(file) for file in files],
        "names": output_names([file or Path("image") for file in files]) if names is None else list(names),
        "planes": [None if chosen is None else list(chosen) for chosen in planes or [None] * len(files)],
    }


def _reading_facts(reading: ImageReading) -> dict[str, object]:
    """Return how files were opened; without a table of plates as records of early versions have it."""
    facts = vars(reading) | {"plates": _absolute(reading.plates)}
    return {name: value for name, value in facts.items() if name != "plates" or value is not None}


def plate_facts(plate: PlateScale | None) -> dict[str, object]:
    """Return what the intensities of an image were scaled by, for its row in the record; empty without a plate."""
    return {} if plate is None else {"plate": asdict(plate)}


def _absolute(path: Path | None) -> str | None:
    return None if path is None else str(path.absolute())


def versions() -> dict[str, str]:
    """Return the version of Python and of each package that the numbers depend on."""
    return {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}}


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
    found = _RunRecord.model_validate(json.loads(json.dumps(record, default=str)))
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
    for path in _record_paths(out):
        record = _read_record(path)
        yield from zip(record.files, record.names, strict=True)


def _record_paths(out: Path) -> list[Path]:
    return [*out.glob("run.json"), *sorted(out.glob("run-*.json"))]


def write_record(out: Path, record: Mapping[str, object]) -> Path:
    """Write the record of some images to a folder that may hold records of other images, and return its path.

    Earlier records in the folder no longer list these images. If an earlier record lists images that were classified in
    the same way, these images are added to it.

    Raises
    ------
    OutputError
        If the folder has a file run.json or run-NAME.json that is not the record of a classification.
    """
    new = _RunRecord.model_validate(json.loads(json.dumps(record, default=str)))
    home: Path | None = None
    for path in _record_paths(out):
        old = _read_record(path)
        others = _without(old, new.names)
        if home is None and others.files and _same_way(others, new):
            home, new = path, _merged(others, new)
        elif not others.files:
            path.unlink()
        elif others.names != old.names:
            _write(path, others)
    if home is None:
        first = out / "run.json"
        home = first if not first.exists() else out / f"run-{new.names[0]}.json"
    _write(home, new)
    return home


def _read_record(path: Path) -> _RunRecord:
    try:
        return _RunRecord.model_validate(read_json(path))
    except ValidationError as error:
        first = error.errors()[0]
        reason = f"{'.'.join(map(str, first['loc'])) or path.name}: {first['msg']}"
        raise _not_a_record(path, reason) from error
    except (OSError, ValueError) as error:
        raise _not_a_record(path, str(error)) from error


def _not_a_record(path: Path, reason: str) -> OutputError:
    return OutputError(f"{path} is not the record of a classification ({reason}); choose another folder")


def _write(path: Path, record: _RunRecord) -> None:
    write_json(path, record.model_dump(exclude_unset=True))


def _without(record: _RunRecord, names: Collection[str]) -> _RunRecord:
    """Return a record without the images of some names."""
    rows = list(zip(record.files, record.names, record.planes, strict=True))
    left = [row for row in rows if row[1] not in names]
    gone = {file for file, name, _ in rows if name in names}
    changes: dict[str, object] = {
        "files": [file for file, _, _ in left], "names": [name for _, name, _ in left],
        "planes": [planes for _, _, planes in left],
    }  # fmt: skip
    if record.images is not None:
        changes["images"] = [image for image in record.images if image.get("file") not in gone]
    if record.unfinished is not None:
        changes["unfinished"] = [file for file in record.unfinished if file not in gone]
    return record.model_copy(update=changes)


def _merged(old: _RunRecord, new: _RunRecord) -> _RunRecord:
    """Return the new record with the images of an old one before its own."""
    changes: dict[str, object] = {
        "files": old.files + new.files, "names": old.names + new.names, "planes": old.planes + new.planes,
    }  # fmt: skip
    if old.images is not None or new.images is not None:
        changes["images"] = [*(old.images or ()), *(new.images or ())]
    if old.unfinished is not None or new.unfinished is not None:
        changes["unfinished"] = [*(old.unfinished or ()), *(new.unfinished or ())]
    return new.model_copy(update=changes)


def _same_way(old: _RunRecord, new: _RunRecord) -> bool:
    """Whether the images of two records are files that were classified in the same way, so one record can list all."""
    masks_as = "tiff" if old.options.get("masks") else None  # records of earlier versions do not name the format
    old_options = {"masks_as": masks_as, **old.options}
    same = (old.format, old.model, old_options, old.versions) == (new.format, new.model, new.options, new.versions)
    return same and None not in [*old.files, *new.files]
