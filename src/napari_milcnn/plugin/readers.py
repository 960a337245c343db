"""Napari's reader of model files: a dropped M.zip becomes the current model, and no layer is added."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import TypeAlias

from napari_milcnn.errors import ModelError
from napari_milcnn.plugin.current_model import current

Paths: TypeAlias = str | Sequence[str]
NoLayer: TypeAlias = list[tuple[None]]
"""`[(None,)]`: what a reader returns that was successful and adds no layer."""

_DESCRIPTIONS = {"rdf.yaml", "bioimageio.yaml"}
_ZIP_MAGIC = b"PK\x03\x04"


def get_reader(path: Paths) -> Callable[[Paths], NoLayer] | None:
    """Return the reader of models, or None for a zip that is clearly not a model, which other plugins may read.

    A damaged zip is accepted: no other plugin could read it either, and loading it tells the user what is wrong.
    """
    paths = _listed(path)
    return read_model if paths and all(_may_be_model(Path(one)) for one in paths) else None


def read_model(path: Paths) -> NoLayer:
    """Load a model and make it the current one.

    Raises
    ------
    ModelError
        If there are several models, or if the model is damaged, from another tool or unsafe.
    """
    from napari.utils.notifications import show_info

    from napari_milcnn.model.package_read import load_model

    paths = _listed(path)
    if len(paths) > 1:
        raise ModelError(
            f"{len(paths)} models were opened as one stack; expected one: open only the model to work with"
        )
    model = load_model(paths[0])
    current.set(model)
    show_info(f"{model.card.name} is now the current model. Its classes: {', '.join(model.classes)}.")
    return [(None,)]


def _listed(path: Paths) -> list[str]:
    return [path] if isinstance(path, str) else list(path)


def _may_be_model(path: Path) -> bool:
    """Whether a file is a zip with the description of a model, or a truncated, damaged or hostile zip."""
    if not path.is_file():
        return False
    try:
        with path.open("rb") as file:
            starts_as_zip = file.read(4) == _ZIP_MAGIC
    except OSError:
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            return not _DESCRIPTIONS.isdisjoint(PurePosixPath(name).name for name in archive.namelist())
    except Exception:  # noqa: BLE001 -- bytes made to deceive draw many errors out of zipfile; loading says what is wrong
        return starts_as_zip
