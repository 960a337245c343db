"""A trained model: network, classes, channels, normalisation and pixel size; one zip on disk.

The zip is a valid bioimage.io 0.5 model, written and checked with `bioimageio.spec`. What only we know (the classes'
names as typed, normalisation, foreground, thresholds, training record, figures) stands in its `config.milcnn`.

Loading runs nothing from the file: the zip's names and sizes are checked before anything is unpacked, every hash that
the description states is checked before anything is read, the description is plain YAML without aliases, the weights
are read with `weights_only=True` into the network that *our* code builds, whose size `NetworkOptions` limits.
"""

from __future__ import annotations

import io
import json
import re
import struct
import tempfile
import threading
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
import yaml
from pydantic import ValidationError

from napari_milcnn.atomic_write import replacing, sha256
from napari_milcnn.errors import ImageError, ModelError, OptionsError
from napari_milcnn.model.card import ModelCard
from napari_milcnn.model.package_write import write_package
from napari_milcnn.model.shipped import shipped_models
from napari_milcnn.network.mil_network import MilNetwork
from napari_milcnn.options import ForegroundOptions, make_options, preset_options

_ALONE = threading.Lock()
LARGEST_FILE = 2 << 30
"""Bytes; a larger file inside a model zip is refused."""
LARGEST_DESCRIPTION = 4 << 20
DEEPEST_DESCRIPTION = 64
_ARCHITECTURES = tuple(
    (module, "build_network") for module in ("napari_milcnn.network.mil_network", "napari_milcnn.core.network")
)
"""Of models written now, and of those that version 0.1.0 wrote."""
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


@dataclass(frozen=True, eq=False)
class TrainedModel:
    """A network with everything needed to apply it to an image.

    Attributes
    ----------
    network : MilNetwork
        The network, in eval mode, on the CPU.
    card : ModelCard
        Classes, channels, pixel size, normalisation and everything else said of it.
    """

    network: MilNetwork
    card: ModelCard
    path: Path | None = None

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the network's maps."""
        return self.card.classes

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the image channels, in the order of the network's input."""
        return self.card.channels

    @property
    def pixel_size(self) -> float | None:
        """µm per pixel of the images it was trained on; None where unknown."""
        return self.card.pixel_size

    @property
    def digest(self) -> str:
        """SHA-256 over weights and card: the same for the same model, whatever file it lies in."""
        weights = b"".join(v.detach().cpu().numpy().tobytes() for v in self.network.state_dict().values())
        return sha256(weights + self.card.model_dump_json().encode())

    def with_card(self, **changes: Any) -> TrainedModel:
        """Return the same model with some facts on its card changed."""
        return replace(self, card=make_options(ModelCard, {**self.card.model_dump(), **changes}))

    def with_classes(self, classes: Sequence[str], *, single_label: bool = True, seed: int = 0) -> TrainedModel:
        """Return a model of other classes to fine-tune: the encoder and the normalisation are kept, the rest is new.

        Parameters
        ----------
        classes : sequence of str
            What the new model tells apart.
        single_label : bool
            Whether each image will show exactly one of them.
        seed : int
            Of the new layers' random start.
        """
        network = self.card.network.model_copy(update={"classes": len(classes)})
        with _drawing(seed):
            built = MilNetwork(network).eval()
        built.encoder.load_state_dict(self.network.encoder.state_dict())
        reference = self.card.reference if self.card.reference in classes else None
        facts = {
            "classes": tuple(classes), "network": network.model_dump(), "single_label": single_label, "metrics": {},
            "thresholds": {}, "temperature": 1.0, "reference": reference, "training": {"encoder_of": self.digest},
        }  # fmt: skip
        return TrainedModel(built, make_options(ModelCard, {**self.card.model_dump(), **facts}))

    def normalise(self, raw: np.ndarray) -> np.ndarray:
        """Raw intensities (channels, Y, X) -> float32, by the training set's mean and standard deviation."""
        mean = np.asarray(self.card.mean, np.float32)[:, None, None]
        std = np.asarray(self.card.std, np.float32)[:, None, None]
        with np.errstate(over="ignore"):  # values beyond float32 become infinite, which readers refuse in words
            return np.asarray((raw.astype(np.float32) - mean) / std)

    def save(self, path: str | Path) -> Path:
        """Write the model as one bioimage.io 0.5 zip.

        Raises
        ------
        ModelError
            If the description does not pass bioimageio.spec's checks.
        OutputError
            If the file cannot be written.
        """
        path = Path(path)
        if path.suffix.lower() != ".zip":
            raise ModelError(f"a model is saved as one .zip, found {path.name!r}; name it {path.stem}.zip")
        with replacing(path) as draft, tempfile.TemporaryDirectory() as folder:
            write_package(self.network, self.card, Path(folder), draft)
        return path


@contextmanager
def _drawing(seed: int) -> Iterator[None]:
    """Draw torch's random numbers from a seed; one at a time, since all threads share one generator."""
    with _ALONE, torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def new_model(
    classes: Sequence[str],
    channels: Sequence[str],
    preset: str = "compact",
    *,
    pixel_size: float | None = None,
    foreground: ForegroundOptions | None = None,
    reference: str | None = None,
    seed: int = 0,
    **network: Any,
) -> TrainedModel:
    """Make an untrained model.

    Parameters
    ----------
    classes, channels : sequence of str
        Names, in order.
    preset : str
        compact (receptive field 67 px, for cells of about 64 px) or paper (135 px).
    pixel_size : float, optional
        µm per pixel.
    foreground : ForegroundOptions, optional
        How the cells are found for object evidence.
    reference : str, optional
        The class whose images show no other class (control, wild type): evidence for the others is read against it.
    seed : int
        Of the random start.
    **network
        Any field of `NetworkOptions`, such as pooling="max".

    Raises
    ------
    OptionsError
        If the names repeat or an option is impossible.
    """
    for kind, names in (("classes", classes), ("channels", channels)):
        if isinstance(names, str) or not names or len(set(names)) < len(names):
            raise OptionsError(f"{kind} must be a list of different names, found {names!r}")
    options = preset_options(preset, len(channels), len(classes), **network)
    with _drawing(seed):
        built = MilNetwork(options).eval()
    facts = {
        "classes": tuple(classes), "channels": tuple(channels), "pixel_size": pixel_size, "network": options,
        "mean": (0.0,) * len(channels), "std": (1.0,) * len(channels), "foreground": foreground or ForegroundOptions(),
        "reference": reference,
    }  # fmt: skip
    return TrainedModel(built, make_options(ModelCard, facts))


def rebuilt(card: ModelCard, weights: dict[str, torch.Tensor]) -> TrainedModel:
    """Build a model from its card and a state dict, whose tensors are copied."""
    with _drawing(0):  # a random start that the weights replace
        network = MilNetwork(card.network)
    network.load_state_dict(weights)
    return TrainedModel(network.eval(), card)


def load_model(path: str | Path) -> TrainedModel:
    """Load a model zip, or a shipped model by its name ('yeast-sim', 'nuclei').

    Raises
    ------
    ModelError
        If the file is missing, damaged, foreign or unsafe; the sentence says which.
    """
    try:
        path = _find(Path(path))
    except OSError as error:
        raise ModelError(f"{path} cannot be opened: {error.strerror}") from error
    files = _unpack(path)
    description = _description(path, files)
    _check_hashes(path, description, files)
    card = _card(path, description)
    return replace(_built(path, card, _weights(path, description, files)), path=path)


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
            return {entry.filename: _read(archive, entry) for entry in entries}
    except _DAMAGED_ZIP as error:
        raise ModelError(f"{path} is not a whole zip file ({error}); copy or download it again") from error


def _read(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    """Read no more than the size that was checked: `ZipFile.read` unpacks up to 2 GiB whatever size is stated."""
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


def _description(path: Path, files: dict[str, bytes]) -> dict[str, Any]:
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
        said = " ".join(str(error).split())
        raise ModelError(f"{path}: its rdf.yaml cannot be read as YAML ({said})") from error
    if not isinstance(description, dict) or description.get("type") != "model":
        raise ModelError(f"{path}: its rdf.yaml describes no model")
    return description


def _runaway(text: bytes) -> Iterator[str]:
    """Find what makes a short description grow or keep the reader busy, event by event, before anything is built."""
    depth = 0
    for event in yaml.parse(text, yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            yield "refers to itself by YAML aliases"
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST_DESCRIPTION:
            yield f"is nested more than {DEEPEST_DESCRIPTION} deep"


def _check_hashes(path: Path, description: dict[str, Any], files: dict[str, bytes]) -> None:
    for source, expected in _stated_hashes(description):
        if source not in files:
            raise ModelError(f"{path} lacks the file {source!r} that its description names; copy or download it again")
        if sha256(files[source]) != expected:
            raise ModelError(f"{path} is refused: {source!r} has another SHA-256 than its description states")


def _stated_hashes(node: Any) -> Iterator[tuple[str, str]]:
    """Every (source, sha256) pair in a description."""
    if isinstance(node, dict):
        if isinstance(node.get("source"), str) and isinstance(node.get("sha256"), str):
            yield node["source"], node["sha256"]
        for child in node.values():
            yield from _stated_hashes(child)
    elif isinstance(node, list):
        for child in node:
            yield from _stated_hashes(child)


def _card(path: Path, description: dict[str, Any]) -> ModelCard:
    config = description.get("config")
    facts = config.get("milcnn") if isinstance(config, dict) else None
    if not isinstance(facts, dict):
        raise ModelError(f"{path} is a bioimage.io model, but not one of napari-milcnn: it has no config.milcnn")
    try:
        return ModelCard(**facts)
    except (ValidationError, TypeError) as error:
        first = error.errors()[0] if isinstance(error, ValidationError) else {"loc": (), "msg": str(error)}
        where = ".".join(map(str, ("config.milcnn", *first["loc"])))
        said = str(first["msg"]).removeprefix("Value error, ")
        raise ModelError(f"{path}: its {where} is wrong: {said}; was it made by a newer version?") from error


def _weights(path: Path, description: dict[str, Any], files: dict[str, bytes]) -> dict[str, torch.Tensor]:
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


def _built(path: Path, card: ModelCard, weights: dict[str, torch.Tensor]) -> TrainedModel:
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


def card_text(model: TrainedModel) -> str:
    """Return a model's card as plain text, one fact a line."""
    card, placement = model.card, model.network.placement
    size = "unknown" if card.pixel_size is None else f"{card.pixel_size:g} µm"
    rows = {
        "model": card.name, "what": card.description, "trained on": card.trained_on, "credit": card.credit,
        "licence": card.license, "authors": ", ".join(card.authors),
        "classes": ", ".join(card.classes) + (" (one per image)" if card.single_label else " (several per image)"),
        "channels": ", ".join(card.channels), "pixel size": size,
        "network": f"receptive field {placement.receptive_field} px, one instance every {placement.stride} px, "
                   f"{sum(p.numel() for p in model.network.parameters()):,} parameters, {card.network.pooling}",
        "foreground": f"{card.foreground.channel or card.channels[0]}, {card.foreground.method}",
        "reference": card.reference,
        "temperature": f"{card.temperature:.2f}" if card.temperature != 1 else "",
        **{name: f"{value:.3f}" for name, value in card.metrics.items()},
        "sha256": model.digest,
    }  # fmt: skip
    return "\n".join(f"{name:<{max(map(len, rows)) + 2}}{value}" for name, value in rows.items() if value)


def card_json(model: TrainedModel) -> dict[str, Any]:
    """Return a model's card as plain data."""
    return {**json.loads(model.card.model_dump_json()), "sha256": model.digest}
