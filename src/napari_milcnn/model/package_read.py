"""Read a model zip that may be damaged, foreign or hostile: no code in it is run, and a refusal says why."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import yaml
from pydantic import ValidationError
from pydantic_core import to_jsonable_python

from napari_milcnn.errors import ImageError, ModelError
from napari_milcnn.images.paths import as_on_disk
from napari_milcnn.model.card import ModelCard
from napari_milcnn.model.package_files import DESCRIPTIONS, ModelFiles, model_files
from napari_milcnn.model.shipped import shipped_models
from napari_milcnn.model.tensor_files import read_tensors
from napari_milcnn.model.trained_model import TrainedModel, rebuilt
from napari_milcnn.options import NetworkOptions
from napari_milcnn.untrusted import short

LARGEST_DESCRIPTION = 4 << 20
"""Bytes of a description. That of a large model, with a curve of 1000 epochs, has about half a megabyte."""
MOST_ITEMS = 400_000
"""Words, and beginnings and ends of lists and dictionaries, in a description: at most some four seconds of reading."""
DEEPEST_DESCRIPTION = 64
_ROOM_BESIDE_WEIGHTS = 8 << 20
"""Bytes of a file of weights beside its convolutions."""
_ARCHITECTURES = tuple(
    (module, "build_network") for module in ("napari_milcnn.network.mil_network", "napari_milcnn.core.network")
)
"""Names of our network in model files: that of today, and that of files written by version 0.1.0."""
_LEFT_OUT = to_jsonable_python(
    {name: field.default for name, field in NetworkOptions.model_fields.items() if not field.is_required()}
)
"""What other programs take for options of a network that a file leaves out."""
_PlainLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""The reader in C, which is ten times as fast, where PyYAML was built with it."""


class _Yaml(_PlainLoader):  # type: ignore[misc]
    """YAML 1.2, which bioimageio.spec writes: there `no` and `12:30` are words, and 1e-05 is a number."""

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        """Build a dictionary, whose keys must be words: numbers can be chosen so that a dictionary becomes slow."""
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if key.tag != "tag:yaml.org,2002:str":
                raise yaml.constructor.ConstructorError(
                    None, None, f"keywords must be strings, found {short(str(key.value), 60)}", key.start_mark
                )
        return super().construct_mapping(node, deep)


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
    """Load a model.

    Parameters
    ----------
    path : path
        A model zip; the folder that one was unpacked into, or the rdf.yaml in it; or the name of a shipped model,
        'yeast-sim' or 'nuclei'.

    Raises
    ------
    ModelError
        If the file is missing, damaged, foreign or unsafe; the message says which.
    """
    try:
        path = _find(as_on_disk(Path(path)))
        with model_files(path) as files:
            description = _read_description(files)
            card = _read_card(path, description)
            _check_hashes(files, description)
            weights = _read_weights(files, description, card)
    except (OSError, ValueError) as error:  # ValueError: no path can hold a NUL
        reason = getattr(error, "strerror", None) or error
        raise ModelError(f"{short(str(path))} cannot be opened: {reason}") from error
    return replace(_build(path, card, weights), path=path)


def _find(path: Path) -> Path:
    if path.is_file() or path.is_dir():
        return path.absolute().parent if path.name in DESCRIPTIONS else path
    try:
        shipped = shipped_models()
    except ImageError:
        shipped = {}
    if path.parent == Path() and path.name.removesuffix(".zip") in shipped and not path.exists():
        return shipped[path.name.removesuffix(".zip")]
    what = "is a pipe or a device" if path.exists() else "does not exist"
    raise ModelError(f"{path} {what}; expected a model .zip, or a shipped model: {', '.join(shipped) or 'none here'}")


def _read_description(files: ModelFiles) -> dict[str, object]:
    path = files.path
    text = files.read(
        next(name for name in DESCRIPTIONS if name in files.sizes), LARGEST_DESCRIPTION, "its description"
    )
    try:
        for problem in _runaway(text):
            raise ModelError(f"{path} is refused: its description {problem}")
        description = yaml.load(text, _Yaml)  # noqa: S506 -- derived from the safe loader
    except (yaml.YAMLError, RecursionError, ValueError, LookupError, AttributeError, TypeError) as error:
        reason = short(" ".join(str(error).split()), 400)
        raise ModelError(f"{path}: its rdf.yaml cannot be read as YAML ({reason})") from error
    if not isinstance(description, dict) or description.get("type") != "model":
        raise ModelError(f"{path}: its rdf.yaml describes no model")
    return description


def _runaway(text: bytes) -> Iterator[str]:
    """Find what would make a short description grow or keep the reader busy, before anything is built from it."""
    depth = 0
    for items, event in enumerate(yaml.parse(text, _PlainLoader)):
        if items > MOST_ITEMS:
            yield f"has more than {MOST_ITEMS} items"
        if isinstance(event, yaml.AliasEvent):
            yield "refers to itself by YAML aliases"
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST_DESCRIPTION:
            yield f"is nested more than {DEEPEST_DESCRIPTION} deep"


def _check_hashes(files: ModelFiles, description: dict[str, object]) -> None:
    for source, expected in _stated_hashes(description):
        if source not in files.sizes:
            raise ModelError(
                f"{files.path} lacks the file '{short(source)}' that its description names; copy or download it again"
            )
        if files.sha256(source) != expected:
            raise ModelError(
                f"{files.path} is refused: '{short(source)}' has another SHA-256 than its description states"
            )


def _stated_hashes(description: Any) -> set[tuple[str, str]]:
    """Return every (source, sha256) pair in a description, each once: a file is read only once."""
    found: set[tuple[str, str]] = set()
    nodes = [description]
    while nodes:
        node = nodes.pop()
        if isinstance(node, dict):
            if isinstance(node.get("source"), str) and isinstance(node.get("sha256"), str):
                found.add((node["source"], node["sha256"]))
            nodes.extend(node.values())
        elif isinstance(node, list):
            nodes.extend(node)
    return found


def _read_card(path: Path, description: dict[str, object]) -> ModelCard:
    config = description.get("config")
    facts = config.get("milcnn") if isinstance(config, dict) else None
    if not isinstance(facts, dict):
        raise ModelError(f"{path} is a bioimage.io model, but not one of napari-milcnn: it has no config.milcnn")
    try:
        return ModelCard(**facts)
    except (ValidationError, TypeError) as error:
        first = error.errors()[0] if isinstance(error, ValidationError) else {"loc": (), "msg": str(error)}
        where = short(".".join(map(str, ("config.milcnn", *first["loc"]))))
        reason = short(str(first["msg"]).removeprefix("Value error, "), 400)
        raise ModelError(f"{path}: its {where} is wrong: {reason}; was it made by a newer version?") from error


def _read_weights(files: ModelFiles, description: dict[str, object], card: ModelCard) -> dict[str, torch.Tensor]:
    path, weights = files.path, description.get("weights")
    entry = weights.get("pytorch_state_dict") if isinstance(weights, dict) else None
    source, stated = (entry.get("source"), entry.get("sha256")) if isinstance(entry, dict) else (None, None)
    if not isinstance(entry, dict) or not isinstance(source, str) or not isinstance(stated, str):
        raise ModelError(f"{path} names no pytorch_state_dict weights with their SHA-256")
    stated_network = entry.get("architecture")
    architecture = stated_network if isinstance(stated_network, dict) else {}
    named = (architecture.get("import_from"), architecture.get("callable"))
    if named not in _ARCHITECTURES:
        raise ModelError(
            f"{path} is refused: it asks for the network {short(str(named))}, expected {_ARCHITECTURES[0]}; no code is "
            "run"
        )
    size = 4 * card.network.weight_count
    content = files.read(source, 2 * size + _ROOM_BESIDE_WEIGHTS, "the file of its weights")
    try:
        state = read_tensors(content, len(content))
    except ValueError as error:
        raise ModelError(f"{path} is refused: its weights are not plain tensors (nothing of them was run)") from error
    if not isinstance(state, dict) or not all(isinstance(k, str) and torch.is_tensor(v) for k, v in state.items()):
        raise ModelError(f"{path} is refused: its weights are not a dictionary of named tensors")
    if len(content) < size:
        raise ModelError(f"{path}: its weights do not fit its network ({len(content)} bytes, expected {size} or more)")
    _check_network(path, architecture.get("kwargs"), card)
    return dict(state)


def _check_network(path: Path, stated: object, card: ModelCard) -> None:
    """Refuse a file that states another network for other programs than for us: nobody can say which was trained."""
    if not isinstance(stated, dict | None):
        raise ModelError(f"{path}: the kwargs of its architecture are {short(repr(stated))}, expected a dictionary")
    own = card.network.model_dump(mode="json")
    for name, value in ({**_LEFT_OUT, **stated} if stated else {}).items():
        if name not in own or own[name] != value:
            expected = f"{own[name]!r}" if name in own else "nothing of that name"
            raise ModelError(
                f"{path}: its network is stated twice, and differently: {short(name)} is {short(repr(value))} in the "
                f"kwargs of its architecture, and {expected} in config.milcnn; get the model from its source again"
            )


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
