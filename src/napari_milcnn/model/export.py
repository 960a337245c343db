"""A model as a file for other programs: ONNX, or OpenVINO's intermediate representation.

The file holds the whole network from normalised pixels to scores, for images of any size and any number of them. It
does not hold the way from a file to normalised pixels: the input contract, in its metadata, says it in words
and numbers.

A file is kept only if it gives the answers of torch on images of several sizes that are drawn at random.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor, nn

from napari_milcnn.atomic_write import cannot_write, folder_beside, replacing
from napari_milcnn.errors import ModelError, OptionsError, OutputError
from napari_milcnn.model.openvino_import import import_openvino
from napari_milcnn.model.trained_model import TrainedModel
from napari_milcnn.options import ExportFormat
from napari_milcnn.output_lock import locked

EXPORT_TOLERANCE = 1e-4
"""Largest difference from torch, both in float32, of any score or probability of an exported model."""
OUTPUTS = ("scores", "probabilities", "class_maps")
METADATA_KEY = "napari_milcnn"
"""Name under which the metadata of a file hold the input contract."""
_SUFFIXES: dict[ExportFormat, str] = {"onnx": ".onnx", "openvino": ".xml"}
_NEEDED: dict[ExportFormat, tuple[str, ...]] = {
    "onnx": ("onnx", "onnxscript", "onnxruntime"), "openvino": ("openvino",),
}  # fmt: skip
_LARGEST_SIDE_CHECKED = 300
"""Rows and columns beyond the receptive field, at most, of the images on which a file is checked."""
_LARGEST_BATCH_CHECKED = 33
"""Images in the largest batch on which a file is checked."""

_ExportRunner = Callable[[np.ndarray], list[np.ndarray]]


class _FromPixelsToScores(nn.Module):
    """Normalised images (batch, channels, Y, X) -> scores and P (batch, classes), and p (batch, classes, Y, X)."""

    def __init__(self, model: TrainedModel) -> None:
        super().__init__()
        network = model.network
        self.encoder, self.maps, self.pooling, self.head = network.encoder, network.maps, network.pooling, network.head
        self.temperature, self.single_label = model.card.temperature, model.card.single_label

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        logits = self.maps(self.encoder(images))
        probabilities = self.pooling(logits)
        y = self.head(probabilities) / self.temperature
        return (y.softmax(1) if self.single_label else y.sigmoid()), probabilities, logits.sigmoid()


def export_model(model: TrainedModel, path: str | Path, *, format: ExportFormat = "onnx", seed: int = 0) -> Path:
    """Write a model for other programs, and check what was written against torch.

    The one input, `image`, is float32 (batch, channels, Y, X), normalised, with any number of images and any size from
    one receptive field on. The outputs are `scores` and `probabilities`, float32 (batch, classes), and `class_maps`,
    the instance probabilities, float32 (batch, classes, Y, X). `input_contract` stands in the metadata of the file
    under `napari_milcnn`.

    Parameters
    ----------
    model : TrainedModel
        The model.
    path : path
        The file: .onnx, or .xml for OpenVINO, which gets a second file with the weights, .bin, beside it.
    format : str
        onnx or openvino.
    seed : int
        Random seed of the images on which the file is checked.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    OptionsError
        If the format is unknown, the name of the file has another ending, or a package is missing.
    ModelError
        If the file does not give the answers of torch. Nothing is written then.
    OutputError
        If the file cannot be written, or if another run writes it.
    """
    path = Path(path)
    _check_request(path, format)
    write, reader = {"onnx": (_write_onnx, _onnx_runner), "openvino": (_write_openvino, _openvino_runner)}[format]
    module, contract = _FromPixelsToScores(model).eval(), json.dumps(input_contract(model))
    with locked(path), folder_beside(path) as folder:
        draft = folder / path.name
        with _quiet_exporter(), _said_to_be_of(path):
            write(module, example_images(model), contract, draft)
        _check_answers(model, module, reader(draft), format, seed)
        for written in sorted(folder.iterdir()):  # the weights, .bin, before the .xml that names them
            with replacing(path.with_name(written.name)) as place:
                written.replace(place)
    return path


def input_contract(model: TrainedModel) -> dict[str, object]:
    """Return what a program must know to make the input of an exported model and to read its outputs, as plain data."""
    card, placement = model.card, model.network.placement
    fixed = card.normalise == "training"
    return {
        "format": 1,
        "model": card.name,
        "sha256": model.digest,
        "input": "image: float32 (batch, channels, Y, X), normalised; any batch, any Y and X from one receptive field",
        "outputs": {
            "scores": "score of each class, (batch, classes); the class of an image is the highest",
            "probabilities": "P, pooled from the class maps, (batch, classes)",
            "class_maps": "instance probabilities p, (batch, classes, Y, X); value i lies at i * stride + offset px",
        },
        "classes": list(card.classes),
        "one_class_per_image": card.single_label,
        "channels": list(card.channels),
        "pixel_size_um": card.network_pixel_size,
        "scale": card.network_scale,
        "normalise": card.normalise,
        "normalisation": _normalisation(model),
        "mean": list(card.mean) if fixed else None,
        "std": list(card.std) if fixed else None,
        "receptive_field": placement.receptive_field,
        "stride": placement.stride,
        "offset": placement.offset,
        "licence": card.license,
        "credit": card.credit,
    }


def _normalisation(model: TrainedModel) -> str:
    if model.card.normalise == "training":
        return "subtract `mean` from each channel and divide by `std`"
    whose = "the plane itself" if model.card.normalise == "image" else "the control images of its plate, or of all"
    return (
        "subtract the background from each channel and divide by the spread, both measured on whole planes of "
        f"{whose}, in their own pixels, before resampling; napari_milcnn.images.intensity.intensity_scale measures them"
    )


def example_images(model: TrainedModel) -> Tensor:
    """Return images (batch, channels, Y, X) from which a network is traced: no side is 1, or equal to another."""
    field = model.network.placement.receptive_field
    return torch.zeros(2, len(model.channels), field + 61, field + 93)


def optional_package(name: str, wanted_by: str, extra: str) -> ModuleType:
    """Import a package of one of our extras.

    Parameters
    ----------
    name : str
        The package.
    wanted_by : str
        The option that needs it, as the message names it.
    extra : str
        The extra that installs it.

    Raises
    ------
    OptionsError
        If it is not installed.
    """
    try:
        return import_openvino() if name == "openvino" else import_module(name)
    except ImportError as error:
        raise OptionsError(
            f"{wanted_by} needs the package {name}, which is not installed: pip install 'napari-milcnn[{extra}]'"
        ) from error


def _check_request(path: Path, format: ExportFormat) -> None:
    if format not in get_args(ExportFormat):
        raise OptionsError(f"format is {format!r}; expected one of {', '.join(get_args(ExportFormat))}")
    if path.suffix.lower() != _SUFFIXES[format]:
        raise OptionsError(f"a model of the format {format} is written to a file that ends in {_SUFFIXES[format]}, "
                           f"found {path.name!r}; name it {path.stem}{_SUFFIXES[format]}")  # fmt: skip
    for name in _NEEDED[format]:
        optional_package(name, f"format {format!r}", format)


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Keep back what exporters say about their own future, and about packages that no model of ours uses."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)


@contextmanager
def _said_to_be_of(path: Path) -> Iterator[None]:
    """Name the file that was asked for in errors of the disk, for which OpenVINO has no class of its own."""
    try:
        yield
    except OSError as error:
        raise cannot_write(path, error) from error
    except RuntimeError as error:
        if "iostream" not in str(error) and "write" not in str(error):
            raise
        raise OutputError(f"{path} cannot be written: {error}; free some space or choose another folder") from error


def _write_onnx(module: nn.Module, example: Tensor, contract: str, path: Path) -> None:
    import onnx

    free = torch.export.Dim.DYNAMIC
    program = torch.onnx.export(
        module, (example,), dynamo=True, verbose=False, input_names=["image"], output_names=list(OUTPUTS),
        dynamic_shapes=({0: free, 2: free, 3: free},),
    )  # fmt: skip
    assert program is not None  # it is None only where torch writes the file itself
    written = program.model_proto
    del written.graph.value_info[:]  # sizes between the layers, which each program works out for itself
    names = {"image": ("batch", None, "Y", "X"), "scores": ("batch", None), "probabilities": ("batch", None),
             "class_maps": ("batch", None, "map_Y", "map_X")}  # fmt: skip
    for value in (*written.graph.input, *written.graph.output):
        for size, name in zip(value.type.tensor_type.shape.dim, names[value.name], strict=True):
            if name is not None:
                size.dim_param = name
    for node in written.graph.node:
        del node.metadata_props[:]  # lines of our code, with the folders of this computer
    onnx.helper.set_model_props(written, {METADATA_KEY: contract})
    onnx.checker.check_model(written)
    path.write_bytes(written.SerializeToString())


def _onnx_runner(path: Path) -> _ExportRunner:
    import onnxruntime

    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    return lambda images: list(session.run(list(OUTPUTS), {"image": images}))


def _write_openvino(module: nn.Module, example: Tensor, contract: str, path: Path) -> None:
    openvino = import_openvino()
    converted = openvino.convert_model(module, example_input=example, input=[-1, example.shape[1], -1, -1])
    converted.inputs[0].get_tensor().set_names({"image"})
    for output, name in zip(converted.outputs, OUTPUTS, strict=True):
        output.get_tensor().set_names({name})
    converted.set_rt_info(contract, [METADATA_KEY])
    openvino.save_model(converted, path, compress_to_fp16=False)


def _openvino_runner(path: Path) -> _ExportRunner:
    openvino = import_openvino()
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def run(images: np.ndarray) -> list[np.ndarray]:
        found: Any = compiled(images)
        return [np.array(found[name]) for name in OUTPUTS]

    return run


def _check_answers(model: TrainedModel, module: nn.Module, run: _ExportRunner, name: str, seed: int) -> None:
    """Compare a file with torch on one receptive field, on larger images, and on more images than there are classes.

    Raises
    ------
    ModelError
        If they differ by more than EXPORT_TOLERANCE, or the file cannot be run on images of that size.
    """
    rng, field = np.random.default_rng(seed), model.network.placement.receptive_field
    sizes = [
        (1, field, field),
        (_LARGEST_BATCH_CHECKED, field, field),
        *((n, *(field + rng.integers(1, _LARGEST_SIDE_CHECKED, 2)).tolist()) for n in (1, 3)),
    ]
    for batch, height, width in sizes:
        images = rng.normal(size=(batch, len(model.channels), height, width)).astype(np.float32)
        with torch.inference_mode():
            expected = [answer.numpy() for answer in module(torch.from_numpy(images))]
        shown = f"{batch} image{'s'[: batch > 1]} of {height} x {width} px"
        try:
            found = run(images)
        except Exception as error:  # those of ONNX Runtime have no other base
            raise ModelError(
                f"the exported {name} model fails on {shown}, so it was not written: {error}; report this with the "
                "model"
            ) from error
        for output, theirs, ours in zip(OUTPUTS, found, expected, strict=True):
            _check_equal(f"the exported {name} model gives other {output} than torch on {shown}", theirs, ours)


def _check_equal(what: str, found: np.ndarray, expected: np.ndarray) -> None:
    if found.shape != expected.shape:
        raise ModelError(f"{what}: found the shape {found.shape}, expected {expected.shape}; it was not written")
    difference = float(np.abs(found - expected).max())
    if not difference <= EXPORT_TOLERANCE:
        raise ModelError(f"{what}: the largest difference is {difference:.2g}, expected at most {EXPORT_TOLERANCE:g}; "
                         "it was not written, and the model itself is as it was")  # fmt: skip
