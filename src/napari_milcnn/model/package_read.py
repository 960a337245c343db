"""Read a model zip that may be damaged, foreign or hostile: no code in it is run, and a refusal says why."""

from __future__ import annotations

import io
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import torch
import yaml
from pydantic import ValidationError

from napari_milcnn.atomic_write import sha256
from napari_milcnn.errors import ImageError, ModelError
from napari_milcnn.model.card import ModelCard
from napari_milcnn.model.shipped import shipped_models
from napari_milcnn.model.trained_model import TrainedModel, rebuilt

LARGEST_FILE = 2 << 30
"""Bytes; a larger file inside a model zip is refused."""
LARGEST_DESCRIPTION = 4 << 20
DEEPEST_DESCRIPTION = 64
_ARCHITECTURES = tuple(
    (module, "build_network") for module in ("napari_milcnn.network.mil_network", "napari_milcnn.core.network")
)
"""Names of our network in model files: that of today, and that of files written by version 0.1.0."""

_PACKED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_DAMAGED_ZIP = (
    zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, ValueError, LookupError, OverflowError,
    RuntimeError,
)  # fmt: skip
"""What `zipfile` raises where bytes are wrong."""


class _Yaml(yaml.SafeLoader):
    """YAML 1.2, which bioimageio.spec writes: there `no` and `12:30` are words, and 1e-05 is a number."""


_Yaml.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?(0|[1-9][0-9]*)", "-+0123456789"),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+.0123456789",
    ),
):
    _Yaml.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), list(_first))


def load_model(path: str | Path) -> TrainedModel:
    """Load a model zip, or a shipped model by its name ('yeast-sim', 'nuclei').

    Raises
    ------
    ModelError
        If the file is missing, damaged, foreign or unsafe; the message says which.
    """
    try:
        path = _find(Path(path))
    except OSError as error:
        raise ModelError(f"{path} cannot be opened: {error.strerror}") from error
    files = _unpack(path)
    description = _read_description(path, files)
    _check_hashes(path, description, files)
    card = _read_card(path, description)
    return replace(_build(path, card, _read_weights(path, description, files)), path=path)


def _find(path: Path) -> Path:
    if path.is_file():
        return path
    try:
        shipped = shipped_models()
    except ImageError:
        shipped = {}
    if path.parent == Path() and path.name.removesuffix(".zip") in shipped and not path.exists():
        return shipped[path.name.removesuffix(".zip")]
    what = "is a folder" if path.is_dir() else "does not exist"
    raise ModelError(f"{path} {what}; expected a model .zip, or a shipped model: {', '.join(shipped) or 'none here'}")


def _unpack(path: Path) -> dict[str, bytes]:
    """Read every file of the zip into memory, names and sizes checked first."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = [entry for entry in archive.infolist() if not entry.is_dir()]
            for problem in _unsafe(entries):
                raise ModelError(f"{path} is refused: {problem}; get the model from its source again")
            return {entry.filename: _read_entry(archive, entry) for entry in entries}
    except _DAMAGED_ZIP as error:
        raise ModelError(f"{path} is not a whole zip file ({error}); copy or download it again") from error


def _read_entry(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    """Read no more than the size that was checked; `ZipFile.read` unpacks up to 2 GiB whatever size is stated."""
    with archive.open(entry) as file:
        return file.read(entry.file_size)


def _unsafe(entries: Sequence[zipfile.ZipInfo]) -> Iterator[str]:
    names = [entry.filename for entry in entries]
    for entry in entries:
        parts = PurePosixPath(entry.filename).parts
        if ".." in parts or entry.filename.startswith("/") or "\\" in entry.filename or ":" in entry.filename:
            yield f"the name {entry.filename!r} leads out of the zip"
        if entry.external_attr >> 16 & 0o170000 == 0o120000:
            yield f"{entry.filename!r} is a link"
        if entry.compress_type not in _PACKED:
            yield f"{entry.filename!r} is packed in a way that bioimage.io models are not"
    if len(set(names)) < len(names):
        yield "a name stands in it twice"
    size = sum(entry.file_size for entry in entries)
    if size > LARGEST_FILE:
        yield f"it unpacks to {size / 1e9:.1f} GB, more than {LARGEST_FILE / 1e9:.1f} GB"


def _read_description(path: Path, files: dict[str, bytes]) -> dict[str, object]:
    text = files.get("rdf.yaml", files.get("bioimageio.yaml"))
    if text is None:
        raise ModelError(f"{path} holds no rdf.yaml, so it is not a bioimage.io model; found {sorted(files)[:5]}")
    if len(text) > LARGEST_DESCRIPTION:
        raise ModelError(f"{path} is refused: its description has {len(text)} bytes, more than {LARGEST_DESCRIPTION}")
    try:
        for problem in _runaway(text):
            raise ModelError(f"{path} is refused: its description {problem}")
        description = yaml.load(text, _Yaml)
    except (yaml.YAMLError, RecursionError, ValueError, LookupError, AttributeError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise ModelError(f"{path}: its rdf.yaml cannot be read as YAML ({reason})") from error
    if not isinstance(description, dict) or description.get("type") != "model":
        raise ModelError(f"{path}: its rdf.yaml describes no model")
    return description


def _runaway(text: bytes) -> Iterator[str]:
    """Find what would make a short description grow or keep the reader busy, before anything is built from it."""
    depth = 0
    for event in yaml.parse(text, yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            yield "refers to itself by YAML aliases"
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST_DESCRIPTION:
            yield f"is nested more than {DEEPEST_DESCRIPTION} deep"


def _check_hashes(path: Path, description: dict[str, object], files: dict[str, bytes]) -> None:
    for source, expected in _stated_hashes(description):
        if source not in files:
            raise ModelError(f"{path} lacks the file {source!r} that its description names; copy or download it again")
        if sha256(files[source]) != expected:
            raise ModelError(f"{path} is refused: {source!r} has another SHA-256 than its description states")


def _stated_hashes(node: Any) -> Iterator[tuple[str, str]]:
    """Yield every (source, sha256) pair in a description."""
    if isinstance(node, dict):
        if isinstance(node.get("source"), str) and isinstance(node.get("sha256"), str):
            yield node["source"], node["sha256"]
        for child in node.values():
            yield from _stated_hashes(child)
    elif isinstance(node, list):
        for child in node:
            yield from _stated_hashes(child)


def _read_card(path: Path, description: dict[str, object]) -> ModelCard:
    config = description.get("config")
    facts = config.get("milcnn") if isinstance(config, dict) else None
    if not isinstance(facts, dict):
        raise ModelError(f"{path} is a bioimage.io model, but not one of napari-milcnn: it has no config.milcnn")
    try:
        return ModelCard(**facts)
    except (ValidationError, TypeError) as error:
        first = error.errors()[0] if isinstance(error, ValidationError) else {"loc": (), "msg": str(error)}
        where = ".".join(map(str, ("config.milcnn", *first["loc"])))
        reason = str(first["msg"]).removeprefix("Value error, ")
        raise ModelError(f"{path}: its {where} is wrong: {reason}; was it made by a newer version?") from error


def _read_weights(path: Path, description: dict[str, object], files: dict[str, bytes]) -> dict[str, torch.Tensor]:
    weights = description.get("weights")
    entry = weights.get("pytorch_state_dict") if isinstance(weights, dict) else None
    source, stated = (entry.get("source"), entry.get("sha256")) if isinstance(entry, dict) else (None, None)
    if not isinstance(entry, dict) or not isinstance(source, str) or not isinstance(stated, str):
        raise ModelError(f"{path} names no pytorch_state_dict weights with their SHA-256")
    architecture = entry.get("architecture")
    named = (architecture.get("import_from"), architecture.get("callable")) if isinstance(architecture, dict) else None
    if named not in _ARCHITECTURES:
        raise ModelError(
            f"{path} is refused: it asks for the network {named}, expected {_ARCHITECTURES[0]}; no code is run"
        )
    try:
        state = torch.load(io.BytesIO(files[source]), map_location="cpu", weights_only=True)
    except Exception as error:  # bytes made to deceive draw any error out of torch's reader
        raise ModelError(f"{path} is refused: its weights are not plain tensors (nothing of them was run)") from error
    if not isinstance(state, dict) or not all(isinstance(k, str) and torch.is_tensor(v) for k, v in state.items()):
        raise ModelError(f"{path} is refused: its weights are not a dictionary of named tensors")
    return dict(state)


def _build(path: Path, card: ModelCard, weights: dict[str, torch.Tensor]) -> TrainedModel:
    try:
        model = rebuilt(card, weights)
    except RuntimeError as error:
        raise ModelError(
            f"{path}: its weights do not fit its network ({str(error).splitlines()[-1].strip()})"
        ) from error
    broken = [name for name, value in weights.items() if not torch.isfinite(value).all()]
    if broken:
        raise ModelError(f"{path}: its weights hold NaN or infinity, in {broken[0]}; the model is unusable")
    return model
