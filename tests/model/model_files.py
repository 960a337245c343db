"""Model files for the tests: a small model with a full card, and zips that are spoiled on purpose."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from napari_milcnn.atomic_write import sha256
from napari_milcnn.errors import ModelError
from napari_milcnn.model.package_read import load_model
from napari_milcnn.model.trained_model import TrainedModel, new_model

Files = dict[str, bytes]
THIN = {"widths": (2, 2, 2, 2, 2, 2)}
CARD = {
    "name": "Round or long",
    "description": "Two shapes: a test.",
    "authors": ("A. Tester", "Ω. Ωmega"),
    "credit": "Nobody",
    "mean": (100.5, 1e-7),
    "std": (12.25, 3e-5),
    "thresholds": {"object": {"round": 0.25}},
    "training": {
        "epoch": 2,
        "options": {"learning_rate": 1e-5, "seed": 0, "patience": None},
        "from the future": [[1, 0.5], 1e20],
        "curve": [{"epoch": 1, "loss": 1e20, "pooled_loss": 0.5, "last_loss": 1e-7}],
    },
    "metrics": {"accuracy": 0.75},
}


def lively(classes: tuple[str, ...] = ("round", "long"), **options: Any) -> TrainedModel:
    """Make a small model in which no parameter and no buffer keeps its starting value."""
    model = new_model(classes, ("GFP", "RFP"), pixel_size=0.65, seed=4, **{"normalise": "training", **THIN, **options})
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, value in model.network.state_dict().items():
            random = torch.randn(value.shape, generator=generator)
            value.copy_(random.abs() + 0.1 if "var" in name else random if value.is_floating_point() else value + 3)
    return model


def read(path: Path) -> Files:
    """Read every file of a zip."""
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def write(path: Path, files: Files, packing: int = zipfile.ZIP_DEFLATED) -> Path:
    """Pack files as they are."""
    with zipfile.ZipFile(path, "w", packing) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def described(files: Files, change: Callable[[dict[str, Any]], Any]) -> Files:
    """Change the description."""
    description = yaml.safe_load(files["rdf.yaml"])
    change(description)
    return {**files, "rdf.yaml": yaml.safe_dump(description).encode()}


def with_weights(files: Files, weights: bytes) -> Files:
    """Put other weights in, with the hash that the description states made right: only the reader is left to refuse."""
    stated = sha256(files["weights.pt"]).encode()
    assert stated in files["rdf.yaml"]
    description = files["rdf.yaml"].replace(stated, sha256(weights).encode())
    return {**files, "weights.pt": weights, "rdf.yaml": description}


def torch_bytes(thing: Any, **options: Any) -> bytes:
    """Return what torch.save writes."""
    buffer = io.BytesIO()
    torch.save(thing, buffer, **options)
    return buffer.getvalue()


def refused(path: Path, match: str) -> str:
    """Load a file that must be refused in one sentence that names it; return the sentence."""
    with pytest.raises(ModelError, match=match) as caught:
        load_model(path)
    said = str(caught.value)
    assert "\n" not in said
    assert path.name in said
    return said


class Payload:
    """Unpickled, it makes a folder: proof that something in the file was run."""

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.folder,)
