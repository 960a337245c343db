"""Models exported for other programs: ONNX Runtime and OpenVINO give torch's answers, and say how to feed them."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

from conftest import lively_model
from napari_milcnn.cli.app import app
from napari_milcnn.errors import ModelError, OptionsError, OutputError
from napari_milcnn.model import export
from napari_milcnn.model.export import EXPORT_TOLERANCE, METADATA_KEY, export_model, input_contract
from napari_milcnn.model.openvino_import import import_openvino, openvino_version
from napari_milcnn.model.trained_model import TrainedModel

POOLINGS = ("noisy_and", "noisy_or", "lse", "max")


def answers(model: TrainedModel, images: np.ndarray) -> list[np.ndarray]:
    """Return scores, P and p as `classify` defines them."""
    with torch.inference_mode():
        found = model.network(torch.from_numpy(images))
    y = found.scores / model.card.temperature
    scores = y.softmax(1) if model.card.single_label else y.sigmoid()
    return [scores.numpy(), found.probabilities.numpy(), found.class_maps.sigmoid().numpy()]


@pytest.mark.slow
def test_onnx_runtime_gives_the_answers_of_torch(tmp_path: Path) -> None:
    """Any number of images of any size; the metadata hold the contract, and no folder of this computer."""
    pytest.importorskip("onnxscript", reason="the extra 'onnx' is not installed")
    onnxruntime = pytest.importorskip("onnxruntime", reason="the extra 'onnx' is not installed")
    model = lively_model().with_card(temperature=2.5, single_label=False)
    odd_name = tmp_path / os.fsdecode(b"mod\xffel.onnx")  # which ONNX Runtime cannot open
    path = export_model(model, odd_name, format="onnx").rename(tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(1)
    for shape in ((1, 2, 67, 67), (2, 2, 67, 190), (5, 2, 131, 98)):
        images = rng.normal(size=shape).astype(np.float32)
        found = session.run(["scores", "probabilities", "class_maps"], {"image": images})
        for ours, theirs in zip(answers(model, images), found, strict=True):
            np.testing.assert_allclose(theirs, ours, atol=EXPORT_TOLERANCE)
    metadata = session.get_modelmeta().custom_metadata_map
    assert json.loads(metadata[METADATA_KEY]) == input_contract(model)
    assert [size if isinstance(size, int) else str(size) for size in session.get_inputs()[0].shape] == [
        "batch", 2, "Y", "X",
    ]  # fmt: skip
    assert str(Path(export.__file__).parent).encode() not in path.read_bytes()
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]


@pytest.mark.parametrize("pooling", POOLINGS)
def test_openvino_gives_the_answers_of_torch(pooling: str, tmp_path: Path) -> None:
    """For every pooling, some of which count the places of the map, whatever the size of the image."""
    if openvino_version() is None:
        pytest.skip("the extra 'openvino' is not installed")
    openvino = import_openvino()
    model = lively_model(pooling=pooling, normalise="image").with_card(temperature=2.5)
    path = export_model(model, tmp_path / "model.xml", format="openvino")
    read = openvino.Core().read_model(path)
    assert json.loads(read.get_rt_info([METADATA_KEY]).astype(str)) == input_contract(model)
    assert input_contract(model)["mean"] is None, "the model does not scale by its training images"
    run = openvino.compile_model(read, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    images = np.random.default_rng(2).normal(size=(4, 2, 75, 160)).astype(np.float32)
    found = run(images)
    for name, ours in zip(export.OUTPUTS, answers(model, images), strict=True):
        np.testing.assert_allclose(found[name], ours, atol=EXPORT_TOLERANCE)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["model.bin", "model.xml"]


class _CountsOnce(nn.Module):
    """A pooling whose number of places is a number of Python, which an export takes for that of its example."""

    def forward(self, logits: Tensor) -> Tensor:
        return logits.sigmoid().sum((2, 3)) / float(math.prod(logits.shape[2:]))


def test_a_file_that_gives_other_answers_is_not_written(tmp_path: Path) -> None:
    if openvino_version() is None:
        pytest.skip("the extra 'openvino' is not installed")
    model = lively_model()
    model.network.pooling = _CountsOnce()
    (tmp_path / "model.xml").write_text("before")
    with pytest.raises(ModelError, match=r"other \w+ than torch on 1 image of .* px: the largest difference is [.\d]+"):
        export_model(model, tmp_path / "model.xml", format="openvino")
    assert [file.name for file in tmp_path.iterdir()] == ["model.xml"]
    assert (tmp_path / "model.xml").read_text() == "before"


@pytest.mark.parametrize(
    ("name", "file_format", "message"),
    [
        ("model.zip", "onnx", r"ends in \.onnx, found 'model.zip'; name it model\.onnx"),
        ("model.onnx", "openvino", r"ends in \.xml"),
        ("model.pt", "torchscript", "format is 'torchscript'; expected one of onnx, openvino"),
    ],
)
def test_names_and_formats(name: str, file_format: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(OptionsError, match=message):
        export_model(lively_model(), tmp_path / name, format=file_format)  # type: ignore[arg-type]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), RuntimeError("basic_ios: iostream error")])
def test_a_full_disk_is_said_with_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def full(*_: object, **__: object) -> None:
        raise error

    pytest.importorskip("openvino", reason="the extra 'openvino' is not installed")
    monkeypatch.setattr(import_openvino(), "save_model", full)
    with pytest.raises(OutputError, match=rf"{tmp_path}/m.xml cannot be written: .*; free some space"):
        export_model(lively_model(), tmp_path / "m.xml", format="openvino")
    assert not list(tmp_path.iterdir())


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "openvino", None)
    with pytest.raises(OptionsError, match=r"needs the package openvino.*pip install 'napari-milcnn\[openvino\]'"):
        export_model(lively_model(), tmp_path / "model.xml", format="openvino")


def test_the_command(tmp_path: Path) -> None:
    """It takes a shipped model, and says in its JSON what the input must be."""
    if openvino_version() is None:
        pytest.skip("the extra 'openvino' is not installed")
    out = tmp_path / "yeast.xml"
    run = CliRunner().invoke(app, ["export", "yeast-sim", "--format", "openvino", "--out", str(out), "--json"])
    assert run.exit_code == 0, run.output
    facts = json.loads(run.stdout)
    assert (facts["out"], facts["channels"]) == (str(out), ["GFP", "RFP"])
    assert out.exists()
    assert out.with_suffix(".bin").exists()
    refused = CliRunner().invoke(app, ["export", "yeast-sim", "--format", "onnx", "--out", str(out)])
    assert refused.exit_code == 2
