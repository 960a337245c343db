"""The records of the classifications in a folder: run.json, enough to run them again.

Images that were made in the same way stand in one record. Images that were made in another way, or that are no files
and cannot be run again, have a record of their own: run-NAME.json, named after the first of them.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import chain, count
from pathlib import Path
from typing import Any

from napari_milcnn.errors import OutputError
from napari_milcnn.images.open import AS_THEY_SAY, ImageReading
from napari_milcnn.images.paths import output_names
from napari_milcnn.inference.evidence import EvidenceMaker
from napari_milcnn.options import MaskOptions, MasksAs
from napari_milcnn.results.write import write_json

RECORD_FORMAT = 2
"""Of run.json; raised by one when a program that reads the old one would run something else."""
_PACKAGES = ("napari-milcnn", "torch", "numpy", "scikit-image", "tifffile", "zarr")
_LISTS = ("files", "names", "planes")
"""What a record says image by image."""
_SAME = ("format", "model", "options", "versions")
"""What images have in common that one record names."""


def classification_record(
    maker: EvidenceMaker,
    files: Sequence[Path | None],
    *,
    classes: Sequence[str],
    objects: Path | None = None,
    reading: ImageReading = AS_THEY_SAY,
    mask_options: MaskOptions | None = None,
    masks_as: MasksAs | None = "tiff",
    planes: Sequence[Sequence[int] | None] | None = None,
    names: Sequence[str] | None = None,
    command: Sequence[str] = (),
) -> dict[str, Any]:
    """Return all that `replay` needs to classify the same images again with the same numbers.

    Parameters
    ----------
    maker : EvidenceMaker
        What classified: its model, its options, and the precision that it came to.
    files : sequence of Path or None
        The images; None for one that was no file, which makes a record that cannot be run again.
    classes : sequence of str
        Classes whose masks were made.
    objects : Path, optional
        Label images of the user's own: one file, or a folder of them.
    reading : ImageReading
        How the files were opened.
    mask_options : MaskOptions, optional
        How masks were made; None where none were.
    masks_as : str, optional
        Format of the label images: tiff or zarr.
    planes : sequence, optional
        For each image the numbers of its planes that were classified, None where all were.
    names : sequence of str, optional
        What the files of each image are called; as `output_names` has it by default.
    command : sequence of str
        What was typed, if anything was.
    """
    model, choice = maker.model, maker.classifier.inference.choice
    precision = str(choice.precision).removeprefix("torch.")  # "auto" may come to another one the next time
    options = {
        "evidence": maker.options.model_dump() | {"precision": precision},
        "masks": None if mask_options is None else mask_options.model_dump(),
        "masks_as": None if mask_options is None else masks_as,
        "classes": list(classes),
        "objects": _absolute(objects),
        "reading": vars(reading),
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
        "planes": [None if some is None else list(some) for some in planes or [None] * len(files)],
    }


def _absolute(path: Path | None) -> str | None:
    return None if path is None else str(path.absolute())


def versions() -> dict[str, str]:
    """Version of Python and of each package that a result depends on."""
    return {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}}


def check_room(out: Path, files: Mapping[str, Path]) -> None:
    """Refuse to write over the results of other images.

    Parameters
    ----------
    out : Path
        The folder.
    files : mapping
        What the files of each image are called -> the image.

    Raises
    ------
    OutputError
        If the folder has results of another image of one of these names, or of one of these images by another name.
    """
    names = {str(file.absolute()): name for name, file in files.items()}
    for other, called in _recorded_images(out):
        wanted = files.get(called)
        if wanted is not None and str(wanted.absolute()) != other:
            raise OutputError(
                f"{out} holds results of {other or 'a layer'}, whose files are called {called} as those of {wanted} "
                "would be; choose another folder"
            )
        if other is not None and names.get(other, called) != called:
            raise OutputError(
                f"{out} holds results of {other} under the name {called}, and they would now be called {names[other]}; "
                "choose another folder"
            )


def room_for(out: Path, record: Mapping[str, Any]) -> Path:
    """Return the folder where the results of one image, whose record this is, overwrite those of no other.

    Parameters
    ----------
    out : Path
        The folder that was asked for; returned unless the image's name, or its file, is that of another image in it.
    record : mapping
        Of this image alone, as `classification_record` makes it.
    """
    (file,), (name,) = record["files"], record["names"]
    inside = (out / (name if number == 1 else f"{name}_{number}") for number in count(1))
    return next(place for place in chain([out], inside) if not _clashes(place, file, name))


def _clashes(out: Path, file: str | None, name: str) -> bool:
    return any(
        (called == name) != (other == file) and (called == name or file is not None)
        for other, called in _recorded_images(out)
    )


def _recorded_images(out: Path) -> Iterator[tuple[str | None, str]]:
    """File and name of every image that the records of a folder name."""
    for path in _record_paths(out):
        record = _read_record(path)
        yield from zip(record["files"], record["names"], strict=True)


def _record_paths(out: Path) -> list[Path]:
    return [*out.glob("run.json"), *sorted(out.glob("run-*.json"))]


def write_record(out: Path, record: dict[str, Any]) -> Path:
    """Write the record of some images beside those of others, and return its path.

    The images are taken out of the records that name them already. A record of images that were made in the same way
    takes them in.
    """
    home: Path | None = None
    for path in _record_paths(out):
        there = _read_record(path)
        others = _without(there, record["names"])
        if home is None and others["files"] and _agree(others, record):
            home, record = path, _together(others, record)
        elif not others["files"]:
            path.unlink()
        elif others["names"] != there["names"]:
            write_json(path, others)
    if home is None:
        own = out / "run.json"
        home = own if not own.exists() else out / f"run-{record['names'][0]}.json"
    write_json(home, record)
    return home


def _read_record(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        files = found["files"]
        names = found.get("names") or output_names([Path(file or "image") for file in files])
        record = {**found, "names": names, "planes": found.get("planes") or [None] * len(files)}
        if not len(files) == len(record["names"]) == len(record["planes"]):
            raise ValueError("it does not say the same of each image")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise OutputError(
            f"{path} is no record of a classification ({type(error).__name__}: {error}); choose another folder"
        ) from error
    return record


def _without(record: dict[str, Any], names: Collection[str]) -> dict[str, Any]:
    """Return a record without some of its images."""
    kept = [i for i, called in enumerate(record["names"]) if called not in names]
    gone = {file for file, called in zip(record["files"], record["names"], strict=True) if called in names}
    left = {key: [record[key][i] for i in kept] for key in _LISTS}
    if "images" in record:
        left["images"] = [one for one in record["images"] if one["file"] not in gone]
    if "unfinished" in record:
        left["unfinished"] = [file for file in record["unfinished"] if file not in gone]
    return record | left


def _together(others: dict[str, Any], record: dict[str, Any]) -> dict[str, Any]:
    """Put two records of images that were made in the same way into one."""
    lists = {key: [*others[key], *record[key]] for key in _LISTS}
    for key in ("images", "unfinished"):
        if key in others or key in record:
            lists[key] = [*others.get(key, ()), *record.get(key, ())]
    return others | record | lists


def _agree(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether images were made in the same way, from files, so that one record can name them all."""
    plain = json.loads(json.dumps(other, default=str))
    one = {**one, "options": {"masks_as": "tiff" if one["options"].get("masks") else None, **one["options"]}}
    return None not in [*one["files"], *other["files"]] and all(one[key] == plain[key] for key in _SAME)
