"""A model as a bioimage.io 0.5 package: the description that `bioimageio.spec` writes and checks."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
import threading
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from pydantic import ValidationError

from napari_milcnn.errors import ModelError
from napari_milcnn.model.card import ModelCard
from napari_milcnn.network.mil_network import MilNetwork

if TYPE_CHECKING:
    from bioimageio.spec.model.v0_5 import ModelDescr

_PAPER = "Kraus, Ba & Frey: Classifying and segmenting microscopy images with deep multiple instance learning (2016)"
_TENSORS = ("image", "class_maps", "probabilities", "scores")
_WRITING = threading.Lock()
"""Held while bioimageio.spec writes: it uses one YAML emitter for all threads."""


def write_package(network: MilNetwork, card: ModelCard, folder: Path, out: Path) -> None:
    """Write weights, test tensors and description into `folder` and pack them as the zip `out`.

    Raises
    ------
    ModelError
        If bioimageio.spec finds the description wrong.
    """
    from bioimageio.spec import ValidationContext, save_bioimageio_package_to_stream

    _write_from_memory(folder / "weights.pt", lambda content: torch.save(network.state_dict(), content))
    (folder / "README.md").write_text(_readme(card), encoding="utf-8")
    peaks = _write_test_tensors(network, card, folder)
    context = ValidationContext(root=folder, file_name="rdf.yaml", perform_io_checks=True)
    with _WRITING, warnings.catch_warnings(), context:
        warnings.simplefilter("ignore", ResourceWarning)  # bioimageio.spec leaves it to Python to close its files
        description = _describe(network, card, peaks)  # checks the files that it names as well
        try:
            with out.open("wb") as stream:
                save_bioimageio_package_to_stream(description, output_stream=stream)
        except ValueError as error:
            raise ModelError(f"the model cannot be written as a bioimage.io model: {error}") from error
        finally:
            _remove_pictures(description)


def _write_from_memory(path: Path, save: Callable[[BytesIO], object]) -> None:
    """Write a file as a whole: on a full disk, torch and numpy would not tell the reason of the system."""
    content = BytesIO()
    save(content)
    path.write_bytes(content.getbuffer())


def _remove_pictures(description: ModelDescr) -> None:
    """Remove the pictures of the test tensors that bioimageio.spec draws, does not pack, and leaves behind."""
    for picture in description.covers:
        folder = Path(str(picture.source)).parent
        if folder.parent == Path(tempfile.gettempdir()):
            shutil.rmtree(folder, ignore_errors=True)


def check_description(network: MilNetwork, card: ModelCard) -> None:
    """Find out whether a model can be saved, before time is spent on training it; nothing is written.

    Raises
    ------
    ModelError
        If a fact on the card, such as its licence, is one that bioimage.io models do not have.
    """
    from bioimageio.spec import ValidationContext

    with ValidationContext(file_name="rdf.yaml", perform_io_checks=False):
        _describe(network, card, dict.fromkeys(_TENSORS[1:], 1.0))


def _describe(network: MilNetwork, card: ModelCard, peaks: dict[str, float]) -> ModelDescr:
    """Describe a model, as bioimageio.spec checks it; `peaks` are the largest values of the test outputs."""
    from bioimageio.spec.model.v0_5 import ModelDescr

    try:
        return ModelDescr(**_description_facts(network, card, peaks))
    except ValidationError as error:
        first = error.errors()[0]
        found, expected = (f"{text!s:.120}" for text in (first["input"], first["msg"]))
        raise ModelError(
            f"the model cannot be described as a bioimage.io model: its {first['loc'][0]} is {found!r}; {expected}"
        ) from error


def _readme(card: ModelCard) -> str:
    facts = json.dumps(card.metrics, indent=1)
    about = f"# {card.name}\n\n{card.description}\n\n{card.trained_on}\n\n{card.credit}\n\n"
    return f"{about}{_input_notes(card)}## Validation\n\n{facts}\n"


def _test_size(network: MilNetwork) -> int:
    """Return the side of the test image, px: a multiple of the stride that gives a map of about 4 x 4."""
    placement = network.placement
    return placement.stride * (-(-placement.receptive_field // placement.stride) + 3)


def _write_test_tensors(network: MilNetwork, card: ModelCard, folder: Path) -> dict[str, float]:
    """Write a test image and its outputs; return the largest value of each output."""
    side = _test_size(network)
    noise = np.random.default_rng(0).normal(size=(1, len(card.channels), side, side))
    image = noise.astype(np.float32)
    normalised = torch.from_numpy(image)
    if card.normalise == "training":
        mean, std = (np.asarray(v).reshape(1, -1, 1, 1) for v in (card.mean, card.std))
        image = (mean + std * noise).astype(np.float32)
        normalised = torch.from_numpy(((image - mean) / (std + 1e-6)).astype(np.float32))
    was_training = network.training
    with torch.inference_mode():
        output = network.eval()(normalised)
    network.train(was_training)
    y = output.scores / card.temperature
    scores = y.softmax(1) if card.single_label else y.sigmoid()
    tensors = (torch.from_numpy(image), output.class_maps.sigmoid(), output.probabilities, scores)
    for name, tensor in zip(_TENSORS, tensors, strict=True):
        _write_from_memory(folder / f"{name}.npy", partial(np.save, arr=tensor.numpy()))
    return {name: float(tensor.max()) for name, tensor in zip(_TENSORS[1:], tensors[1:], strict=True)}


def _description_facts(network: MilNetwork, card: ModelCard, peaks: dict[str, float]) -> dict[str, object]:
    from bioimageio.spec.generic.v0_3 import Author, CiteEntry

    name = re.sub(r"[^A-Za-z0-9_+\- ()]", "-", card.name)
    return {
        "name": name if len(name) >= 5 else f"MIL-CNN {name}",
        "description": card.description or "Deep multiple instance learning: image-level labels, instances, evidence.",
        "authors": [Author(name=author.replace("/", "-")) for author in card.authors],
        "cite": [CiteEntry(text=_PAPER, doi="10.1093/bioinformatics/btw252")],
        "license": card.license or None,
        "documentation": {"source": "README.md"},
        "tags": ["napari", "multiple-instance-learning", "weak-supervision", "phenotyping"],
        "format_version": _format_version(),
        "type": "model",
        "inputs": [_input(network, card)],
        "outputs": _outputs(network, card),
        "weights": {"pytorch_state_dict": _weights_facts(network)},
        "config": {
            "milcnn": json.loads(card.model_dump_json()),
            "bioimageio": {"reproducibility_tolerance": [_tolerance(name, peak) for name, peak in peaks.items()]},
        },
    }  # fmt: skip


def _tolerance(name: str, peak: float) -> dict[str, object]:
    """Return the tolerance of an output: the format allows 1 % of its largest value, which may be small."""
    return {"output_ids": [name], "relative_tolerance": 1e-3, "absolute_tolerance": min(1e-3, 0.005 * peak)}


def _format_version() -> str:
    from bioimageio.spec.model.v0_5 import ModelDescr

    return ModelDescr.implemented_format_version


def _weights_facts(network: MilNetwork) -> dict[str, object]:
    return {
        "source": "weights.pt",
        "pytorch_version": torch.__version__.split("+")[0],
        "architecture": {
            "import_from": "napari_milcnn.network.mil_network",
            "callable": "build_network",
            "kwargs": json.loads(network.options.model_dump_json()),
        },
    }


def _input(network: MilNetwork, card: ModelCard) -> dict[str, object]:
    size = {"min": _test_size(network), "step": network.placement.stride}
    text, steps = _preprocessing(card)
    return {
        "id": "image",
        "description": text,
        "axes": [
            {"type": "batch"},
            {"type": "channel", "channel_names": _identifiers(card.channels)},
            *({"type": "space", "id": axis, "size": size, **_unit(card.network_pixel_size)} for axis in "yx"),
        ],
        "test_tensor": {"source": "image.npy"},
        "data": {"type": "float32"},
        "preprocessing": steps,
    }


def _preprocessing(card: ModelCard) -> tuple[str, list[dict[str, object]]]:
    """Describe the input in at most 128 letters, and the steps that programs other than ours have to carry out on it.

    The format has no step for background and spread as we measure them, so a model that needs them takes images that
    are scaled already, and its README says how.
    """
    resized = "" if card.network_scale == 1 else f", at {card.scale:.3g} of the size of the training images"
    if card.normalise == "training":
        along = {"axis": "channel", "mean": list(card.mean), "std": list(card.std)}
        step: dict[str, object] = {"id": "fixed_zero_mean_unit_variance", "kwargs": along}
        return f"Raw intensities{resized}; the normalisation is part of the model.", [step]
    return f"Intensities less background, over spread, as README.md says{resized}.", []


def _input_notes(card: ModelCard) -> str:
    """Say in words what programs other than ours have to do to an image; empty where the description says it all."""
    measured_on = {"group": "the control images of its plate or batch, or on all of them,"}
    scaled = (
        "Of each channel of each plane its background was subtracted, and the rest divided by its spread, both "
        f"measured on {measured_on.get(card.normalise, 'the whole plane')} as napari_milcnn.images.intensity does. The "
        "format has no such step: napari-milcnn does it by itself, other programs have to do it before."
    )
    resized = f"Images are resized to {card.scale:.3g} of the size of the training images."
    notes = [*([scaled] if card.normalise != "training" else []), *([resized] if card.network_scale != 1 else [])]
    return "\n\n".join(["## Input", *notes, ""]) + "\n" if notes else ""


def _unit(pixel_size: float | None) -> dict[str, object]:
    return {} if pixel_size is None else {"unit": "micrometer", "scale": pixel_size}


def _outputs(network: MilNetwork, card: ModelCard) -> list[dict[str, object]]:
    placement = network.placement
    scale = placement.stride * (card.network_pixel_size or 1.0)
    lost = 1 - -(-placement.receptive_field // placement.stride)
    unit = {} if card.pixel_size is None else {"unit": "micrometer"}
    channel = {"type": "channel", "channel_names": _identifiers(card.classes)}
    space = [
        {"type": "space", "id": axis, "scale": scale, **unit,
         "size": {"tensor_id": "image", "axis_id": axis, "offset": lost}}
        for axis in "yx"
    ]  # fmt: skip
    cooled = [] if card.temperature == 1 else [{"id": "scale_linear", "kwargs": {"gain": 1 / card.temperature}}]
    last = {"id": "softmax", "kwargs": {"axis": "channel"}} if card.single_label else {"id": "sigmoid"}
    rows: tuple[tuple[str, str, list[Any], list[Any]], ...] = (
        ("class_maps", "Instance probabilities, one map per class.", space, [{"id": "sigmoid"}]),
        ("probabilities", "Image-level probability of each class by MIL pooling.", [], []),
        ("scores", "Image-level probability of each class after the last layer.", [], [*cooled, last]),
    )
    return [
        {"id": name, "description": text, "axes": [{"type": "batch"}, channel, *more], "data": {"type": "float32"},
         "test_tensor": {"source": f"{name}.npy"}, "postprocessing": post}
        for name, text, more, post in rows
    ]  # fmt: skip


def _identifiers(names: Sequence[str]) -> list[str]:
    """Turn names into the identifiers that the format asks for; config.milcnn has the names as typed."""
    return [f"n{i}_" + re.sub(r"\W", "_", name.lower()) for i, name in enumerate(names)]
