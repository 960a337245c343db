"""Engines: the same answers, one engine for a folder, and `auto` decides once."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch

from conftest import lively_model
from napari_milcnn.errors import OptionsError
from napari_milcnn.images.open import open_image
from napari_milcnn.inference.devices import choose_device
from napari_milcnn.inference.engines import choice
from napari_milcnn.inference.predict import Classifier, classify
from napari_milcnn.model.openvino_import import openvino_version
from napari_milcnn.model.trained_model import TrainedModel
from napari_milcnn.options import Precision
from napari_milcnn.results.folder import classify_files
from napari_milcnn.results.replay import replay

TWO = (("float32", 1e-4), ("bfloat16", 0.05))
"""Precision -> largest difference of class-map logits between engines at 0; a quarter of it more for each unit above 0:
what bfloat16 rounds grows with the number, and OpenVINO takes float32 on processors without bfloat16."""


@pytest.fixture(scope="module")
def openvino() -> None:
    """Leave a test out where OpenVINO is not installed."""
    if openvino_version() is None:
        pytest.skip("the extra 'openvino' is not installed")


@pytest.fixture(scope="module")
def model() -> TrainedModel:
    """Make a model that all tests of this file share: OpenVINO then compiles it once."""
    return lively_model()


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Remember timings in a folder of the test."""
    monkeypatch.setattr(choice, "_DECIDED", {})
    monkeypatch.setattr(choice, "_timings_file", lambda: tmp_path / "cache" / "engines.json")
    return tmp_path / "cache" / "engines.json"


def logits(prediction: object) -> np.ndarray:
    return np.asarray(torch.logit(torch.from_numpy(prediction.class_maps).double()))  # type: ignore[attr-defined]


@pytest.mark.usefixtures("openvino")
@pytest.mark.parametrize(("precision", "tolerance"), TWO)
def test_engines_agree(precision: str, tolerance: float, model: TrainedModel) -> None:
    """On planes of two shapes and in tiles, with what is measured of the features; memory is used again."""
    rng = np.random.default_rng(0)
    classifiers = [Classifier(model, engine=name, precision=precision, batch_size=2) for name in ("torch", "openvino")]
    found = []
    for shape in ((3, 2, 150, 131), (1, 2, 90, 200), (3, 2, 150, 131)):
        image = rng.normal(size=shape).astype(np.float32)
        opened = open_image(image, axes="TCYX", channels=["GFP", "RFP"])
        ours, theirs = (one.classify(opened) for one in classifiers)
        np.testing.assert_allclose(logits(theirs), logits(ours), atol=tolerance, rtol=tolerance / 4)
        np.testing.assert_allclose(theirs.scores, ours.scores, atol=tolerance)
        np.testing.assert_allclose(theirs.probabilities, ours.probabilities, atol=tolerance)
        found.append(theirs)
    assert not np.shares_memory(found[0].class_maps, found[2].class_maps)
    assert found[0].device == str(choose_device("cpu", precision).with_engine("openvino"))
    moments = [one.inference.maps_and_moments(image[:2])[1] for one in classifiers]
    np.testing.assert_allclose(moments[1], moments[0], rtol=tolerance, atol=tolerance * moments[0].max())


def decide(seconds: dict[str, float], monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let the next timings be these, and count them."""
    asked: list[int] = []
    monkeypatch.setattr(choice, "timings", lambda *_: asked.append(1) or seconds)
    return asked


@pytest.mark.usefixtures("openvino")
def test_auto_decides_once(own_cache: Path, monkeypatch: pytest.MonkeyPatch, model: TrainedModel) -> None:
    """The faster engine, remembered for the processor, the threads, the precision and the network."""

    def chosen(precision: Precision) -> str:
        return Classifier(model, engine="auto", device="cpu", precision=precision).inference.choice.engine

    asked = decide({"torch": 1.0, "openvino": 0.5}, monkeypatch)
    assert chosen("bfloat16") == "openvino"
    monkeypatch.setattr(choice, "_DECIDED", {})  # another process
    decide({"torch": 0.5, "openvino": 1.0}, monkeypatch)
    assert chosen("bfloat16") == "openvino"
    assert asked == [1]
    assert chosen("float32") == "torch"
    own_cache.write_text('{"damaged": [')
    monkeypatch.setattr(choice, "_DECIDED", {})
    assert chosen("bfloat16") == "torch"
    assert len(json.loads(own_cache.read_text())) == 1


@pytest.mark.usefixtures("openvino")
def test_auto_times_both_engines(model: TrainedModel) -> None:
    found = choice.timings(model.network, Classifier(model, device="cpu").inference.choice)
    assert found.keys() == {"torch", "openvino"}
    assert all(seconds > 0 for seconds in found.values())


def test_auto_without_openvino_is_torch(monkeypatch: pytest.MonkeyPatch, model: TrainedModel) -> None:
    monkeypatch.setattr(choice, "openvino_version", lambda: None)
    monkeypatch.setattr("napari_milcnn.inference.engines.openvino_encoder.openvino_version", lambda: None)
    assert Classifier(model, engine="auto").inference.choice.engine == "torch"
    with pytest.raises(OptionsError, match=r"needs OpenVINO: pip install 'napari-milcnn\[openvino\]'"):
        Classifier(model, engine="openvino")


def test_openvino_that_cannot_be_loaded_is_not_taken(monkeypatch: pytest.MonkeyPatch, model: TrainedModel) -> None:
    """Its files are there, but a library is missing: `auto` is torch, and whoever asks for it is told."""

    def broken() -> None:
        raise ImportError("libtbb.so.12: cannot open shared object file")

    encoder = "napari_milcnn.inference.engines.openvino_encoder"
    monkeypatch.setattr(f"{encoder}.import_openvino", broken)
    monkeypatch.setattr(f"{encoder}._COMPILED", {})
    for where in ("napari_milcnn.inference.engines.choice", encoder):
        monkeypatch.setattr(f"{where}.openvino_version", lambda: "2026.0")
    assert Classifier(model, engine="auto", device="cpu").inference.choice.engine == "torch"
    with pytest.raises(OptionsError, match=r"cannot be loaded \(libtbb.*; use engine 'torch'"):
        Classifier(model, engine="openvino", device="cpu")


def test_openvino_on_a_gpu_is_refused(model: TrainedModel) -> None:
    with pytest.raises(OptionsError, match="engine 'openvino' runs on the CPU, but option 'device' is 'cuda'"):
        classify(model, np.zeros((2, 90, 90)), engine="openvino", device="cuda")


@pytest.mark.usefixtures("openvino")
def test_a_folder_has_one_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: TrainedModel) -> None:
    """A record names engine and version; a second run, one that goes on, and a replay keep to it."""
    rng, files, out = np.random.default_rng(0), [], tmp_path / "out"
    for name in "ab":
        files.append(tmp_path / f"{name}.ome.tif")
        tifffile.imwrite(files[-1], rng.integers(0, 999, (2, 90, 90)).astype(np.uint16), ome=True,
                         metadata={"axes": "CYX", "Channel": {"Name": ["GFP", "RFP"]}})  # fmt: skip
    options = {"engine": "auto", "device": "cpu", "masks": False}
    decide({"torch": 1.0, "openvino": 0.5}, monkeypatch)
    list(classify_files(model, files[:1], out, **options))
    decide({"torch": 0.5, "openvino": 1.0}, monkeypatch)
    for resume in (False, True):
        choice._DECIDED.clear()
        (tmp_path / "cache" / "engines.json").unlink(missing_ok=True)
        list(classify_files(model, files, out, resume=resume, **options))
        record = json.loads((out / "run.json").read_text())
        assert record["options"]["evidence"]["engine"] == "openvino"
        assert record["versions"]["openvino"]
        assert ", openvino" in record["device"]
        assert len(list(out.glob("run*.json"))) == 1
    list(replay(out / "run.json", tmp_path / "again", model))
    assert json.loads((tmp_path / "again" / "run.json").read_text())["options"]["evidence"]["engine"] == "openvino"
    list(classify_files(model, files, tmp_path / "new", **options))
    assert json.loads((tmp_path / "new" / "run.json").read_text())["options"]["evidence"]["engine"] == "torch"
