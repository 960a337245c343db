"""Run a recorded classification again, with the same numbers.

The images, the way they are opened and every option are read from the record (`run.json`), and the model must have the
digest in the record. Precision and engine are those that the first run chose. Another device may be chosen; it gives
the same numbers up to rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from pydantic import ConfigDict

from napari_milcnn.errors import ImageError, MilcnnError, ModelError, OptionsError, ResumeError
from napari_milcnn.images.intensity import Plates, PlateScale
from napari_milcnn.images.open import ImageReading
from napari_milcnn.images.paths import as_on_disk
from napari_milcnn.model.package_read import load_model
from napari_milcnn.model.trained_model import TrainedModel
from napari_milcnn.options import EvidenceOptions, MaskOptions, MasksAs, Options, make_options
from napari_milcnn.output_lock import locked_folder
from napari_milcnn.progress import Steps
from napari_milcnn.results.folder import ImageResult, classify_files
from napari_milcnn.results.record import KIND_OF_SCREENS, RECORD_FORMAT, recorded_runs, versions
from napari_milcnn.results.unfinished import settle
from napari_milcnn.results.write import read_json

_EXPECTED = "expected the run.json that a classification wrote"


class _Model(Options):
    path: Path | None
    name: str
    sha256: str


class _Chosen(Options):
    evidence: EvidenceOptions
    masks: MaskOptions | None
    masks_as: MasksAs | None = "tiff"
    save_evidence: bool = False
    classes: tuple[str, ...]
    objects: Path | None
    reading: ImageReading


class _Image(Options):
    """What the record of an image says of its plate, where the model scales intensities by it."""

    model_config = ConfigDict(extra="ignore")

    file: Path
    plate: PlateScale | None = None


class _Record(Options):
    """The part of a record that is needed to run it again, as `results.record` writes it."""

    model_config = ConfigDict(extra="ignore")

    format: int
    model: _Model
    options: _Chosen
    files: tuple[Path | None, ...]
    planes: tuple[tuple[int, ...] | None, ...] = ()
    images: tuple[_Image, ...] = ()
    versions: dict[str, str]


def replay(
    record: Path,
    out: Path,
    model: TrainedModel | None = None,
    device: str | None = None,
    *,
    resume: bool = False,
    command: Sequence[str] = (),
    on_warning: Callable[[str], None] | None = None,
) -> Steps[ImageResult]:
    """Run a recorded classification again.

    Parameters
    ----------
    record : Path
        The run.json of a classification.
    out : Path
        Folder for the results.
    model : TrainedModel, optional
        The model; needed if its file has moved since.
    device : str, optional
        Device to compute on; by default the one in the record.
    resume : bool
        Go on with the run in `out`, as `classify_files` does.
    command : sequence of str
        The command line that was typed, for the new record.
    on_warning : callable, optional
        Called with a sentence if the installed versions differ from those in the record.

    Yields
    ------
    Progress
        After every step of every image, as `classify_files` does.

    Raises
    ------
    OptionsError
        If the file is not a record, or was written by a newer version.
    ModelError
        If the model is not found, or is not the one in the record.
    ImageError
        If an image of the record is not a file.
    """
    found = _replayable(record)
    model = recorded_model(record) if model is None else model
    _check_model(record, found, model)
    changed = _changed_versions(found)
    if changed and on_warning is not None:
        on_warning(f"{record} was written with {changed}; numbers may differ in their last digits")
    chosen = found.options
    evidence = chosen.evidence.model_dump() | ({} if device is None else {"device": device})
    if evidence["device"] not in ("auto", "cpu"):
        evidence["engine"] = "torch"  # the only one that runs there
    files = _image_files(record, found)
    planes = {file: numbers for file, numbers in zip(files, found.planes, strict=False) if numbers is not None}
    scales = {image.file.absolute(): image.plate for image in found.images if image.plate is not None}
    plates = Plates(chosen.reading.plates, chosen.reading, known=scales)
    yield from classify_files(
        model, files, out, classes=chosen.classes, masks=chosen.masks is not None, masks_as=chosen.masks_as or "tiff",
        save_evidence=chosen.save_evidence, objects=chosen.objects, reading=chosen.reading, planes=planes,
        plates=plates, resume=resume, command=command,
        mask_options=None if chosen.masks is None else chosen.masks.model_dump(), **evidence,
    )  # fmt: skip


def resume_run(folder: Path, on_warning: Callable[[str], None] | None = None) -> Steps[ImageResult]:
    """Go on with the run of a folder that was stopped or killed: its model, images and options are in its record.

    Parameters
    ----------
    folder : Path
        The folder of results.
    on_warning : callable, optional
        As for `classify_files`.

    Yields
    ------
    Progress
        As `classify_files` does; images that are done are left as they are.

    Raises
    ------
    ResumeError
        If no run of the folder is unfinished, or if an image has changed since.
    OutputError
        If another run writes to the folder, or a record in it is damaged.
    OptionsError, ModelError, ImageError
        As for `replay`, if none of several unfinished runs can go on.
    """
    with locked_folder(folder):
        settle(folder)
        unfinished = [path for path, run in recorded_runs(folder) if run.unfinished]
    if not unfinished:
        raise ResumeError(f"no run in {folder} is unfinished: all of its images are classified")
    failures: list[MilcnnError] = []
    for record in reversed(unfinished):
        steps = replay(record, folder, resume=True, command=["resume"], on_warning=on_warning)
        try:
            first = next(steps, None)
        except MilcnnError as error:
            failures.append(error)
            continue
        if on_warning is not None:
            for failure in failures:
                on_warning(f"another run of {folder} does not go on: {failure}")
        if first is not None:
            yield first
        yield from steps
        return
    raise failures[0]


def recorded_model(record: Path) -> TrainedModel:
    """Load the model of a record from its recorded path; if it is not there, load the shipped model of its name.

    Raises
    ------
    OptionsError
        If the file is not a record, or was written by a newer version.
    ModelError
        If the model is not found.
    """
    model = _replayable(record).model
    if model.path is not None and model.path.exists():
        return load_model(model.path)
    try:
        return load_model(model.name)
    except ModelError as error:
        which = "a model that was never saved" if model.path is None else f"the model {model.path}, which is missing"
        raise ModelError(f"{record} needs {which}; give its file by model= (command line: --model)") from error


def _replayable(path: Path) -> _Record:
    """Read a record and check that it can be run again."""
    try:
        found = read_json(path)
    except OSError as error:
        raise OptionsError(f"{path} cannot be read ({error.strerror}); {_EXPECTED}") from error
    except ValueError as error:
        raise OptionsError(f"{path} is not a JSON record ({error}); {_EXPECTED}") from error
    if found.get("kind") == KIND_OF_SCREENS:
        raise OptionsError(
            f"{path} is the record of a screen, which is not replayed: run its command again into another folder"
        )
    record_format = found.get("format")
    if not isinstance(record_format, int):
        raise OptionsError(f"{path} has no format number; {_EXPECTED}")
    if record_format > RECORD_FORMAT:
        raise OptionsError(
            f"{path} is a record of format {record_format}, but this version reads formats up to {RECORD_FORMAT}; "
            "update napari-milcnn to run it again"
        )
    record = _checked(path, found)
    if record.planes and len(record.planes) != len(record.files):
        raise OptionsError(
            f"{path} lists planes for {len(record.planes)} images but has {len(record.files)} images; {_EXPECTED}, "
            "unchanged"
        )
    return record


def _checked(path: Path, found: dict[str, object]) -> _Record:
    try:
        return make_options(_Record, found)
    except OptionsError as error:
        raise OptionsError(f"{path} cannot be run again: {error}; {_EXPECTED}, unchanged") from error


def _check_model(path: Path, record: _Record, model: TrainedModel) -> None:
    if model.digest != record.model.sha256:
        raise ModelError(
            f"{model.path or 'the given model'} has the digest {model.digest}, but {path} was written with a model "
            f"that has the digest {record.model.sha256}; give the "
            "file of that model by model= (command line: --model)"
        )


def _image_files(path: Path, record: _Record) -> list[Path]:
    files = [as_on_disk(file) for file in record.files if file is not None]
    if len(files) < len(record.files):
        raise ImageError(
            f"{path} cannot be run again: an image in it was a layer in memory, not a file; save the image and "
            "classify the file"
        )
    return files


def _changed_versions(record: _Record) -> str:
    here = versions(record.options.evidence.engine)
    changed = {name: old for name, old in record.versions.items() if here.get(name) != old}
    return ", ".join(f"{name} {old} (here {here.get(name, 'not installed')})" for name, old in changed.items())
