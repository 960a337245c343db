"""Learning in blocked layout gives the numbers of the layers as they stand."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from napari_milcnn.network import mil_network as network_module
from napari_milcnn.network.mil_network import MilNetwork
from napari_milcnn.network.onednn_layout import blocked_pays, encode_blocked
from napari_milcnn.options import preset_options

ONEDNN = torch.backends.mkldnn.is_available()
needs_onednn = pytest.mark.skipif(not ONEDNN, reason="this build of torch has no oneDNN")


def _learn(encoder, images, blocked):
    """Features, and the gradients of images and parameters, of a loss that weighs every feature differently."""
    images = images.clone().requires_grad_()
    features = encode_blocked(encoder, images) if blocked else encoder(images)
    weights = torch.linspace(-1, 1, features.numel(), dtype=features.dtype).reshape(features.shape)
    (features * weights).sum().backward()
    return [features.detach(), images.grad, *(p.grad for p in encoder.parameters())]


def _apart(values, truth):
    """Root mean square of the difference, as a share of that of the truth."""
    return float((values.double() - truth).norm() / truth.norm())


@needs_onednn
@pytest.mark.parametrize(("inputs", "outputs", "kernel"), [(1, 16, 3), (3, 10, 3), (16, 7, 5), (8, 24, 1)])
@pytest.mark.parametrize("norm", [True, False])
def test_block_of_layers_gives_the_numbers_of_float64(inputs, outputs, kernel, norm):
    """Convolution, batch norm, pool and ReLU: output, statistics and all gradients, for odd numbers of channels too."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(inputs, outputs, kernel, bias=not norm), *([nn.BatchNorm2d(outputs)] if norm else [])]
    exact = nn.Sequential(*layers, nn.MaxPool2d(3, 2), nn.ReLU()).double()
    ours = copy.deepcopy(exact).float().to(memory_format=torch.channels_last)
    images = torch.randn(3, inputs, 50, 43)
    for mine, truth in zip(
        _learn(ours, images, blocked=True), _learn(exact, images.double(), blocked=False), strict=True
    ):
        assert _apart(mine, truth) < 1e-4
    for mine, truth in zip(ours.buffers(), exact.buffers(), strict=True):
        torch.testing.assert_close(mine.double(), truth.double(), rtol=1e-5, atol=1e-5)


@needs_onednn
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("preset", ["compact", "paper"])
def test_whole_encoder(preset, channels):
    """Gradients less closely: a rounding anywhere may let another pixel win a pool, in the plain layers as well."""
    torch.manual_seed(0)
    exact = MilNetwork(preset_options(preset, channels, 4)).train().encoder.double()
    for layer in exact:
        if isinstance(layer, nn.Dropout):
            layer.p = 0.0
    ours = copy.deepcopy(exact).float()
    images = torch.randn(3, channels, 224, 208)
    features, *gradients = _learn(ours, images, blocked=True)
    expected, *truths = _learn(exact, images.double(), blocked=False)
    assert _apart(features, expected) < 1e-4
    assert max(map(_apart, gradients, truths)) < 0.02


@needs_onednn
def test_dropout_drops_its_share_and_scales_the_rest():
    """Dropout leaves the layout and comes back to it."""
    torch.manual_seed(0)
    dropped = encode_blocked(nn.Sequential(nn.ReLU(), nn.Dropout(0.25)), torch.ones(2, 8, 64, 64))
    assert float((dropped == 0).float().mean()) == pytest.approx(0.25, abs=0.02)
    assert float(dropped.max()) == pytest.approx(1 / 0.75)


@pytest.mark.parametrize(
    ("training", "grad", "dtype", "bfloat16"),
    [(False, True, torch.float32, False), (True, False, torch.float32, False), (True, True, torch.float64, False),
     (True, True, torch.float32, True)],
)  # fmt: skip
def test_layers_as_they_stand_wherever_nothing_is_learned_in_float32(training, grad, dtype, bfloat16, monkeypatch):
    """Evaluation, no gradients, other types and bfloat16 take the layers one after another."""
    monkeypatch.setattr(network_module, "encode_blocked", lambda *_: pytest.fail("blocked layout was used"))
    network = MilNetwork(preset_options("compact", 1, 2)).train(training)
    network.encoder.to(dtype)
    with torch.set_grad_enabled(grad), torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        network(torch.randn(2, 1, 160, 160, dtype=dtype))


def test_other_processors_take_the_layers_as_they_stand(monkeypatch):
    """Where torch knows neither AVX2 nor AVX-512 the layout is not used."""
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "DEFAULT")
    assert not blocked_pays(torch.zeros(1, 1, 8, 8))


@pytest.mark.skipif(
    not ONEDNN or torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512"),
    reason="this processor has neither AVX2 nor AVX-512",
)
def test_a_network_learns_in_it(monkeypatch):
    """A network in training takes it by itself; a frozen encoder does not."""
    called = []
    monkeypatch.setattr(network_module, "encode_blocked", lambda encoder, x: called.append(1) or encoder(x))
    network = MilNetwork(preset_options("compact", 1, 2)).train()
    network(torch.randn(2, 1, 160, 160))
    assert called == [1]
    network.encoder.eval()
    network(torch.randn(2, 1, 160, 160))
    assert called == [1]
