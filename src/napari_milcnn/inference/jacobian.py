"""Evidence propagated back from the class maps to the pixels (paper, section 2.5).

The paper's network has each ReLU before its max pool, and its rule f applies at every hidden pre-activation z(l), which
is the ReLU's input. Our network has the ReLU behind the pool: that gives the same numbers forward, with a quarter of
the work. Backward the order matters, because windows of the pool overlap: f applies to the sum of what all windows send
back to a pixel, not to the share of each window. So f is applied to the gradient at the pool's input, and the ReLU
behind a pool stays plain. Where a window has no positive value, the ReLU behind it sends back nothing, as the one
before it would. The maps are therefore those of the network in the paper's order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from napari_milcnn.inference.devices import DeviceChoice
from napari_milcnn.network.mil_network import MilNetwork

Gradients: TypeAlias = tuple[Tensor, ...] | Tensor
"""What torch hands to a backward hook."""


def jacobian_maps(
    network: MilNetwork,
    images: Tensor,
    classes: Sequence[int],
    rule: str = "guided",
    choice: DeviceChoice | None = None,
    pooled: Tensor | None = None,
) -> np.ndarray:
    """Propagate evidence for some classes back to the pixels, all from one forward run.

    Parameters
    ----------
    network : MilNetwork
        The network. Its mode, device, hooks and gradients are restored afterwards, also after a failure.
    images : Tensor
        Normalised images, float32 (batch, channels, Y, X).
    classes : sequence of int
        Indices of the classes.
    rule : str
        guided, which keeps only positive evidence, or plain, which is the gradient.
    choice : DeviceChoice, optional
        Device and precision; by default the network's device, in float32.
    pooled : Tensor, optional
        P of whole images of which `images` are parts, float32 (batch, all classes); by default that of `images`.

    Returns
    -------
    ndarray
        Evidence summed over the input channels, float32 (batch, classes, Y, X).
    """
    device = choice.device if choice else next(network.parameters()).device
    with torch.enable_grad(), _ready_for_gradients(network, device), _guided(network.encoder, rule):
        pixels = images.detach().to(device).requires_grad_(True)
        with choice.autocast() if choice else torch.autocast(device.type, enabled=False):
            logits = network.class_maps(pixels)
        pooled = network.read_maps(logits).probabilities if pooled is None else pooled.to(device)
        start = (pooled[..., None, None] * logits.sigmoid()).detach()
        maps = [_evidence_at_pixels(pixels, logits, start, index, rule) for index in classes]
    return torch.stack(maps, 1).cpu().numpy()


def _evidence_at_pixels(pixels: Tensor, logits: Tensor, start: Tensor, index: int, rule: str) -> Tensor:
    """Propagate the evidence of one class from its map to the pixels, (batch, Y, X)."""
    signal = torch.zeros_like(logits)
    signal[:, index] = start[:, index]
    (gradient,) = torch.autograd.grad(logits, pixels, signal, retain_graph=True)
    return (gradient.relu() if rule == "guided" else gradient).sum(1).float()


@contextmanager
def _ready_for_gradients(network: MilNetwork, device: torch.device) -> Iterator[None]:
    """Put a network on a device, in eval mode, without gradients for its parameters; restore all of it afterwards."""
    home = next(network.parameters()).device
    modes = [(module, module.training) for module in network.modules()]
    needed = [p.requires_grad for p in network.parameters()]
    try:
        network.eval().requires_grad_(False).to(device)
        yield
    finally:
        network.to(home)
        for module, mode in modes:
            module.training = mode
        for parameter, need in zip(network.parameters(), needed, strict=True):
            parameter.requires_grad_(need)


@contextmanager
def _guided(layers: nn.Module, rule: str) -> Iterator[None]:
    """Keep only positive evidence at every pre-activation, with hooks that are always removed afterwards."""
    places = _below_activations(list(layers.modules())) if rule == "guided" else []
    hooks = [layer.register_full_backward_hook(_positive) for layer in places]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _below_activations(layers: Sequence[nn.Module]) -> list[nn.Module]:
    """List the layers whose input is a pre-activation: each ReLU, or the max pool that stands right before it."""
    pairs = zip([None, *layers], layers, strict=False)
    return [
        before if isinstance(before, nn.MaxPool2d) else layer for before, layer in pairs if isinstance(layer, nn.ReLU)
    ]


def _positive(_module: nn.Module, gradients: Gradients, _outputs: Gradients) -> tuple[Tensor]:
    """Keep the positive part of the gradient that a layer passes back."""
    return (gradients[0].relu(),)
