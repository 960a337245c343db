"""Small models and images that the tests share; every one of them is cheap and the same on every machine."""

from __future__ import annotations

import gc
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
import zarr
from torch import nn

from napari_milcnn.inference.predict import Bags
from napari_milcnn.labels.table import read_labels
from napari_milcnn.model.package_read import load_model
from napari_milcnn.model.trained_model import TrainedModel, new_model

SHARED = Path(__file__).parents[2] / "shared"
"""Real images, beside the checkout; whoever clones the project has none of them."""
PATIENCE = 300_000
"""Milliseconds that a test waits for what a dock should do: long, so that a busy machine fails no test."""
SMALL = {"widths": (6, 8, 8, 12, 12, 24)}


_FROZEN: set[str] = set()
"""Modules whose objects the collector of garbage leaves out."""


def pytest_runtest_logfinish() -> None:
    """Leave what tests have imported out of later collections of garbage: napari collects twice for each viewer."""
    if len(sys.modules.keys() - _FROZEN) > 20:
        gc.collect()
        gc.freeze()
        _FROZEN.update(sys.modules)


def freeze_again() -> None:
    """Make up for a test that let the collector of garbage see everything: after it, modules are left out again."""
    _FROZEN.clear()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the figures that tests recorded, whichever process they ran in."""
    reports = [report for report in terminalreporter.getreports("passed") if report.when == "call"]
    for name, value in [figure for report in reports for figure in report.user_properties]:
        terminalreporter.write_line(f"{name}: {value}")


def lively_model(preset: str = "compact", **options: Any) -> TrainedModel:
    """Make a small untrained model of classes a, b, c and channels GFP, RFP; over noise its logits are 0 +- 1."""
    settings = {"classes": ("a", "b", "c"), "channels": ("GFP", "RFP"), "normalise": "training", **SMALL, **options}
    model = new_model(preset=preset, **settings)
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for layer in model.network.modules():
            if isinstance(layer, nn.Conv2d):
                layer.weight.normal_(0, (2 / layer.weight[0].numel()) ** 0.5, generator=generator)
            if isinstance(layer, nn.BatchNorm2d):
                layer.running_mean.normal_(0, 0.2, generator=generator)
                layer.running_var.uniform_(0.5, 2, generator=generator)
                layer.weight.uniform_(0.8, 1.6, generator=generator)
                layer.bias.normal_(0, 0.2, generator=generator)
        pixels = torch.from_numpy((noise(1, len(model.channels), 300, 300, seed=9) - 100.0) / 50).float()
        logits = model.network.eval().class_maps(pixels) - model.network.maps.bias[:, None, None]
        scale = 1 / logits.std((0, 2, 3))
        model.network.maps.weight *= scale[:, None, None, None]
        model.network.maps.bias.copy_(-scale * logits.mean((0, 2, 3)))
    count = len(model.channels)
    return model.with_card(mean=(100.0,) * count, std=(50.0,) * count)


@pytest.fixture(scope="session")
def saved_model(tmp_path_factory: pytest.TempPathFactory) -> TrainedModel:
    """Read a `lively_model` from its file, so that a job of another process can read it, too."""
    return load_model(lively_model().save(tmp_path_factory.mktemp("model") / "small.zip"))


def delta_model(channels: int = 1, **options: Any) -> TrainedModel:
    """Make a model by hand: class i's logit is 4 * (the largest value of channel i near the map pixel) - 6.

    Every convolution passes its channels through by its centre tap alone, so that only the pools look around. `near`
    is the 31 x 31 px in the middle of the receptive field of 67 px.
    """
    names = [f"c{i}" for i in range(channels)]
    settings = {"batch_norm": False, "widths": (channels,) * 6, "pooling": "max", "normalise": "training", **options}
    model = new_model(names, names, **settings)
    with torch.no_grad():
        for layer in model.network.encoder:
            if isinstance(layer, nn.Conv2d):
                nn.init.dirac_(layer.weight)
                layer.bias.zero_()
        model.network.maps.weight.copy_(4 * torch.eye(channels)[..., None, None])
        model.network.maps.bias.fill_(-6.0)
    return model


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    """Make uint16 noise around 100, somewhat smooth along X, of any shape."""
    raw = np.random.default_rng(seed).gamma(2.0, 50.0, shape)
    return (0.5 * (raw + np.roll(raw, 1, -1))).astype(np.uint16)


def blob(shape: tuple[int, int], centre: tuple[float, float], sigma: float) -> np.ndarray:
    """Draw a Gaussian of height 1, float32 (Y, X)."""
    y, x = np.ogrid[: shape[0], : shape[1]]
    square = (y - centre[0]) ** 2 + (x - centre[1]) ** 2
    return np.exp(-square / (2 * sigma**2)).astype(np.float32)


def no_bags(planes: int, classes: int) -> Bags:
    """Make the bags of planes whose class maps have one instance, of which nothing is known."""
    return Bags(np.ones(planes, int), np.zeros((planes, classes), np.float32), np.zeros((planes, 0), np.float32))


def centroid(weights: np.ndarray) -> tuple[float, float]:
    """Find the centre of mass (y, x) of what rises above the least of (Y, X)."""
    weights = weights.astype(float) - weights.min()
    y, x = np.indices(weights.shape)
    return float((y * weights).sum() / weights.sum()), float((x * weights).sum() / weights.sum())


def write_plate(path: Path, wells: Mapping[str, np.ndarray]) -> Path:
    """Write an OME-Zarr plate of wells, such as "B/03", with fields (fields, Y, X)."""

    def describe(inside: str, ome: dict[str, Any]) -> None:
        zarr.open_group(path / inside, mode="w").attrs.update({"ome": ome})

    describe("", {"plate": {"wells": [{"path": well} for well in wells]}})
    axes = [{"name": name, "type": "space"} for name in "yx"]
    for well, fields in wells.items():
        describe(well, {"well": {"images": [{"path": str(i)} for i in range(len(fields))]}})
        for i, field in enumerate(fields):
            describe(f"{well}/{i}", {"multiscales": [{"axes": axes, "datasets": [{"path": "0"}]}]})
            zarr.create_array(path / well / str(i) / "0", data=field)
    return path


@pytest.fixture(scope="session")
def compact() -> TrainedModel:
    """Return a small `compact` model (receptive field 67 px, stride 16) with batch norm; not to be changed."""
    return lively_model("compact")


@pytest.fixture(scope="session")
def paper() -> TrainedModel:
    """Return a small `paper` model (receptive field 135 px, stride 32) without batch norm; not to be changed."""
    return lively_model("paper")


@pytest.fixture
def table(tmp_path):
    """Sixteen 96 px images: in class 'spots' five bright discs, in class 'none' only noise."""
    rng = np.random.default_rng(0)
    rows = ["file,label,group,split"]
    for i in range(16):
        image = rng.normal(100, 5, (96, 96))
        if i % 2:
            for y, x in rng.integers(20, 76, (5, 2)):
                image[y - 4 : y + 5, x - 4 : x + 5] += 80
        tifffile.imwrite(tmp_path / f"{i}.tif", image.astype(np.uint16))
        rows.append(f"{i}.tif,{('none', 'spots')[i % 2]},well{i},{'train' if i < 12 else 'validation'}")
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    return read_labels(tmp_path / "labels.csv")
