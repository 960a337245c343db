"""The description of a screen's folder for archives and other programs: ro-crate-metadata.json (RO-Crate 1.2).

It says in JSON-LD what each file is, and which program made them of which images with which model, as a Process Run
Crate does. Decisions:

- Images and model lie elsewhere, so they are named by their last part and their hash, and not by paths of one computer;
  the command line, which has such paths, stays in run.json.
- A licence of the results is what only their owner can choose: the crate says that none was chosen yet.
- The licence of the model is that on its card.

Sources: https://w3id.org/ro/crate/1.2 and https://w3id.org/ro/wfrun/process/0.5.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from napari_milcnn.model.trained_model import TrainedModel
from napari_milcnn.results.write import write_json

CRATE: Final = "ro-crate-metadata.json"
_SPECIFICATION: Final = "https://w3id.org/ro/crate/1.2"
_PROFILE: Final = "https://w3id.org/ro/wfrun/process/0.5"
_CONTEXT: Final = [f"{_SPECIFICATION}/context", "https://w3id.org/ro/terms/workflow-run/context"]
_SOFTWARE, _MODEL, _SOURCE, _RUN, _NO_LICENCE = "#napari-milcnn", "#model", "#images", "#run", "#licence-not-stated"
_FORMATS: Final = {
    ".csv": "text/csv", ".parquet": "application/vnd.apache.parquet", ".json": "application/json",
    ".html": "text/html", ".zip": "application/zip", ".tif": "image/tiff", ".png": "image/png",
}  # fmt: skip
FILES_OF_SCREEN: Final = {
    "predictions": "A row for each plane that was classified, and for each field that failed: scores, cells, quality",
    "wells": "A row for each well: scores of its fields together, cells, comparison with the controls",
    "cells": "A row for each object: its class, size, place and evidence",
    "quality": "Fields that failed, are empty, out of focus, saturated or unlike the training images, with the reason",
    "features": "Features of each well, standardised by the negative controls",
    "fields": "Every field of the screen: plate, well, site, file and layout",
    "missing": "Wells and fields that are named but have no image",
    "likeness": "Wells by how little the classes of the model explain them",
    "treatments": "Each treatment compared with the negative controls",
    "hits": "Treatments that differ from the negative controls",
    "doses": "Dose response of each treatment",
    "controls": "How well the controls of each plate differ",
    "plates": "Controls, edge effects and quality of each plate",
    "report": "Page for readers: plates, quality control, hits, galleries",
    "run": "Record of the run: model, options, versions, source",
    "model": "The model that was applied",
}
"""Stem of a file -> what it holds."""
_FOLDERS: Final = {
    "parts": "A folder for each well, from which the tables are made",
    "masks": "Masks of the cells, as OME-Zarr label images",
}


def write_crate(folder: Path, record: Mapping[str, object], model: TrainedModel | None) -> None:
    """Describe the files that are in a screen's folder.

    Parameters
    ----------
    folder : Path
        The folder.
    record : mapping
        The content of run.json.
    model : TrainedModel or None
        The model; None if its file is not there any more.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    write_json(folder / CRATE, crate(folder, record, model))


def crate(folder: Path, record: Mapping[str, object], model: TrainedModel | None) -> dict[str, object]:
    """Return the description as plain data: JSON-LD with all entities in one list."""
    files = [*_files_of_folder(folder)]
    return {"@context": _CONTEXT, "@graph": [*_root(record, files), *files, *_origins(record, model, files)]}


def _to(*names: str) -> list[dict[str, str]]:
    """Return links to entities."""
    return [{"@id": name} for name in names]


def _root(record: Mapping[str, object], files: list[dict[str, object]]) -> Iterator[dict[str, object]]:
    yield {"@id": CRATE, "@type": "CreativeWork", "conformsTo": _to(_SPECIFICATION)[0], "about": {"@id": "./"}}
    source = _last_part(record.get("source"))
    yield {
        "@id": "./", "@type": "Dataset", "name": f"Classification of the screen {source}",
        "description": f"{record.get('fields')} fields in {record.get('wells')} wells of the screen {source}, "
                       f"classified with the model {_model_facts(record).get('name')}.",
        "datePublished": datetime.now(UTC).date().isoformat(), "license": {"@id": _NO_LICENCE},
        "conformsTo": _to(_PROFILE), "hasPart": _to(*(str(one["@id"]) for one in files)), "mentions": _to(_RUN),
    }  # fmt: skip
    yield {"@id": _NO_LICENCE, "@type": "CreativeWork", "name": "No licence was chosen",
           "description": "No licence was chosen for these results; choose one before you publish them."}  # fmt: skip
    yield {"@id": _PROFILE, "@type": "CreativeWork", "name": "Process Run Crate", "version": "0.5"}


def _files_of_folder(folder: Path) -> Iterator[dict[str, object]]:
    """Describe the files and folders that are there, but for drafts and locks."""
    for path in sorted(folder.iterdir()):
        what = FILES_OF_SCREEN.get(path.name.split(".")[0])
        if path.is_file() and what is not None and path.suffix in _FORMATS and path.name != CRATE:
            yield {"@id": path.name, "@type": "File", "name": path.name, "description": what,
                   "encodingFormat": _FORMATS[path.suffix], "contentSize": str(path.stat().st_size)}  # fmt: skip
        elif path.is_dir() and path.name in _FOLDERS:
            yield {"@id": f"{path.name}/", "@type": "Dataset", "name": path.name, "description": _FOLDERS[path.name]}


def _origins(
    record: Mapping[str, object], model: TrainedModel | None, files: list[dict[str, object]]
) -> Iterator[dict[str, object]]:
    """Describe the program, the images and the model, and the run that joins them."""
    versions = record.get("versions")
    known = versions if isinstance(versions, Mapping) else {}
    yield {
        "@id": _SOFTWARE, "@type": "SoftwareApplication", "name": "napari-milcnn",
        "version": str(known.get("napari-milcnn", "unknown")), "license": "https://spdx.org/licenses/BSD-3-Clause",
        "softwareRequirements": ", ".join(f"{name} {number}" for name, number in known.items()),
    }  # fmt: skip
    yield {
        "@id": _SOURCE, "@type": "CreativeWork", "name": _last_part(record.get("source")),
        "description": f"The images: {record.get('fields')} fields. The hash is that of their list, fields.parquet.",
        "sha256": str(record.get("fields_sha256", "")),
    }  # fmt: skip
    yield from _model_entities(record, model)
    yield {
        "@id": _RUN, "@type": "CreateAction", "name": "Classification of the screen",
        "instrument": {"@id": _SOFTWARE}, "object": _to(_SOURCE, _MODEL),
        "result": _to(*(str(one["@id"]) for one in files if one["@id"] not in ("model.zip", "run.json"))),
        **({"startTime": record["began"]} if record.get("began") else {}),
    }  # fmt: skip


def _model_entities(record: Mapping[str, object], model: TrainedModel | None) -> Iterator[dict[str, object]]:
    facts = _model_facts(record)
    found: dict[str, object] = {
        "@id": _MODEL, "@type": "CreativeWork", "name": str(facts.get("name") or "model"),
        "sha256": str(facts.get("sha256", "")),
    }  # fmt: skip
    if model is not None:
        card = model.card
        texts = {"description": card.description, "creditText": card.credit, "abstract": card.trained_on}
        found |= {name: text for name, text in texts.items() if text}
        found["author"] = [{"@id": f"#author-{number}"} for number, _ in enumerate(card.authors)]
        for number, name in enumerate(card.authors):
            yield {"@id": f"#author-{number}", "@type": "Person", "name": name}
        if card.license:
            page = f"https://spdx.org/licenses/{card.license}"
            found["license"] = {"@id": page}
            yield {"@id": page, "@type": "CreativeWork", "name": card.license,
                   "description": "Licence of the model"}  # fmt: skip
    yield found


def _model_facts(record: Mapping[str, object]) -> Mapping[str, object]:
    facts = record.get("model")
    return facts if isinstance(facts, Mapping) else {}


def _last_part(source: object) -> str:
    """Return the last part of a path or an address."""
    return str(source or "unknown").replace("\\", "/").rstrip("/").rsplit("/", 1)[-1] or "unknown"
