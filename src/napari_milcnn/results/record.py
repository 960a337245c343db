"""The record of a classification, run.json: enough to run it again."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from napari_milcnn.images.open import AS_THEY_SAY, ImageReading
from napari_milcnn.images.paths import output_names
from napari_milcnn.inference.evidence import EvidenceMaker
from napari_milcnn.options import MaskOptions

RECORD_FORMAT = 2
"""Of run.json; raised by one when a program that reads the old one would run something else."""
_PACKAGES = ("napari-milcnn", "torch", "numpy", "scikit-image", "tifffile", "zarr")


def classification_record(
    maker: EvidenceMaker,
    files: Sequence[Path | None],
    *,
    classes: Sequence[str],
    objects: Path | None = None,
    reading: ImageReading = AS_THEY_SAY,
    mask_options: MaskOptions | None = None,
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
    planes : sequence, optional
        For each image the numbers of its planes that were classified, None where all were.
    names : sequence of str, optional
        What the files of each image are called; as `output_names` has it by default.
    command : sequence of str
        What was typed, if anything was.
    """
    model, choice = maker.model, maker.classifier.runner.choice
    precision = str(choice.precision).removeprefix("torch.")  # "auto" may come to another one the next time
    options = {
        "evidence": maker.options.model_dump() | {"precision": precision},
        "masks": None if mask_options is None else mask_options.model_dump(),
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
