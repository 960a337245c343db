"""A recorded classification run again, with the same numbers.

The record (`run.json`) decides alone: images, how they are opened, and every option are read from it, and the model
must be the very same by its digest. The precision is the one that the first run came to; the device is chosen anew,
which gives the same numbers up to rounding.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import ConfigDict

from napari_milcnn.errors import ImageError, ModelError, OptionsError
from napari_milcnn.images.open import ImageReading
from napari_milcnn.model.package_read import load_model
from napari_milcnn.model.trained_model import TrainedModel
from napari_milcnn.options import EvidenceOptions, MaskOptions, MasksAs, Options, make_options
from napari_milcnn.progress import Progress
from napari_milcnn.results.folder import ImageResult, classify_files
from napari_milcnn.results.record import RECORD_FORMAT, versions

_EXPECTED = "expected the run.json that a classification wrote"


class _Model(Options):
    path: Path | None
    name: str
    sha256: str


class _Chosen(Options):
    evidence: EvidenceOptions
    masks: MaskOptions | None
    masks_as: MasksAs | None = "tiff"
    classes: tuple[str, ...]
    objects: Path | None
    reading: ImageReading


class _Record(Options):
    """What of a record is read, as `results.screen_record` writes it."""

    model_config = ConfigDict(extra="ignore")

    format: int
    model: _Model
    options: _Chosen
    files: tuple[Path | None, ...]
    planes: tuple[tuple[int, ...] | None, ...] = ()
    versions: dict[str, str]


def replay(
    record: Path,
    out: Path,
    model: TrainedModel | None = None,
    device: str | None = None,
    *,
    command: Sequence[str] = (),
    on_warning: Callable[[str], None] | None = None,
) -> Iterator[Progress[ImageResult]]:
    """Run a recorded classification again.

    Parameters
    ----------
    record : Path
        The run.json of a classification.
    out : Path
        Folder for the results.
    model : TrainedModel, optional
        The model, where its file no longer lies where the record says.
    device : str, optional
        Where to compute; by default as the record says.
    command : sequence of str
        For the new record.
    on_warning : callable, optional
        Called with a sentence where versions are not those of the record.

    Yields
    ------
    Progress
        After every step of every image, as `classify_files` does.

    Raises
    ------
    OptionsError
        If the file is no record, or one of a newer version.
    ModelError
        If the model is not there, or is not the one of the record.
    ImageError
        If the record is that of an image that was no file.
    """
    found = _read(record)
    model = recorded_model(record) if model is None else model
    _check_model(record, found, model)
    changed = _changed_versions(found)
    if changed and on_warning is not None:
        on_warning(f"{record} was written by {changed}: figures may differ in their last digits")
    chosen = found.options
    evidence = chosen.evidence.model_dump() | ({} if device is None else {"device": device})
    files = _files(record, found)
    some = {file: planes for file, planes in zip(files, found.planes, strict=False) if planes is not None}
    yield from classify_files(
        model, files, out, classes=chosen.classes, masks=chosen.masks is not None, masks_as=chosen.masks_as or "tiff",
        objects=chosen.objects, reading=chosen.reading, planes=some, command=command,
        mask_options=None if chosen.masks is None else chosen.masks.model_dump(), **evidence,
    )  # fmt: skip


def recorded_model(record: Path) -> TrainedModel:
    """Load the model of a record: from where it lay, or else the shipped model of its name.

    Raises
    ------
    OptionsError
        If the file is no record, or one of a newer version.
    ModelError
        If the model is not there.
    """
    model = _read(record).model
    if model.path is not None and model.path.exists():
        return load_model(model.path)
    try:
        return load_model(model.name)
    except ModelError as error:
        lay = "that was never saved" if model.path is None else f"{model.path}, which is not there"
        raise ModelError(f"{record} needs the model {lay}; name its file by model= (command line: --model)") from error


def _read(path: Path) -> _Record:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise OptionsError(f"{path} cannot be read ({error.strerror}); {_EXPECTED}") from error
    except (ValueError, RecursionError) as error:
        raise OptionsError(f"{path} is not JSON ({error}); {_EXPECTED}") from error
    if not isinstance(found, dict) or not isinstance(found.get("format"), int):
        raise OptionsError(f"{path} names no format; {_EXPECTED}")
    if found["format"] > RECORD_FORMAT:
        raise OptionsError(
            f"{path} is a record of format {found['format']}, and this version reads {RECORD_FORMAT}; "
            "update napari-milcnn to run it again"
        )
    record = _checked(path, found)
    if record.planes and len(record.planes) != len(record.files):
        raise OptionsError(
            f"{path} names planes for {len(record.planes)} images and has {len(record.files)}; {_EXPECTED}, unchanged"
        )
    return record


def _checked(path: Path, found: dict[str, Any]) -> _Record:
    try:
        return make_options(_Record, found)
    except OptionsError as error:
        raise OptionsError(f"{path} cannot be run again: {error}; {_EXPECTED}, unchanged") from error


def _check_model(path: Path, record: _Record, model: TrainedModel) -> None:
    if model.digest != record.model.sha256:
        raise ModelError(
            f"{model.path or 'the model given'} has the digest {model.digest}, but {path} was made with a model of "
            f"{record.model.sha256}; if that one lies elsewhere, name its file by model= (command line: --model)"
        )


def _files(path: Path, record: _Record) -> list[Path]:
    files = [file for file in record.files if file is not None]
    if len(files) < len(record.files):
        raise ImageError(
            f"{path} cannot be run again: its image was no file, but a layer that lived in memory only; save the image "
            "and classify the file"
        )
    return files


def _changed_versions(record: _Record) -> str:
    here = versions()
    changed = {name: was for name, was in record.versions.items() if here.get(name) != was}
    return ", ".join(f"{name} {was} (here {here.get(name, 'not installed')})" for name, was in changed.items())
