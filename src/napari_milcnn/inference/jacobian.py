"""Evidence propagated back from the class maps to the pixels (paper, section 2.5)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from napari_milcnn.inference.devices import DeviceChoice
from napari_milcnn.network.mil_network import MilNetwork


def jacobian_maps(
    network: MilNetwork,
    images: Tensor,
    classes: Sequence[int],
    rule: str = "guided",
    choice: DeviceChoice | None = None,
) -> np.ndarray:
    """Propagate evidence for some classes back to the pixels, all from one forward run.

    Parameters
    ----------
    network : MilNetwork
        Left as it was found: mode, device, hooks and gradients are put back, also on failure.
    images : Tensor
        Normalised, float32 (batch, channels, Y, X).
    classes : sequence of int
        Indices of classes.
    rule : str
        guided (non-negative) or plain.
    choice : DeviceChoice, optional
        Where to compute; by default where the network is, in float32.

    Returns
    -------
    ndarray
        float32 (batch, classes, Y, X), summed over input channels.
    """
    device = choice.device if choice else next(network.parameters()).device
    with torch.enable_grad(), _borrowed(network, device), _guided(network.encoder, rule):
        pixels = images.detach().to(device).requires_grad_(True)
        with choice.autocast() if choice else torch.autocast(device.type, enabled=False):
            logits = network.class_maps(pixels)
        output = network.read_maps(logits)
        start = (output.probabilities[..., None, None] * logits.sigmoid()).detach()
        maps = [_back(pixels, logits, start, index, rule) for index in classes]
    return torch.stack(maps, 1).cpu().numpy()


def _back(pixels: Tensor, logits: Tensor, start: Tensor, index: int, rule: str) -> Tensor:
    """Evidence of one class at the input, (batch, Y, X)."""
    signal = torch.zeros_like(logits)
    signal[:, index] = start[:, index]
    (gradient,) = torch.autograd.grad(logits, pixels, signal, retain_graph=True)
    return (gradient.relu() if rule == "guided" else gradient).sum(1).float()


@contextmanager
def _borrowed(network: MilNetwork, device: torch.device) -> Iterator[None]:
    """Eval mode, on a device, no gradients for parameters; all put back afterwards."""
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
    """Keep only positive evidence behind every ReLU, by hooks that are removed in every case."""
    relus = [layer for layer in layers.modules() if isinstance(layer, nn.ReLU)] if rule == "guided" else []
    hooks = [relu.register_full_backward_hook(_positive) for relu in relus]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _positive(_module: nn.Module, gradients: Any, _outputs: Any) -> tuple[Tensor]:
    """Keep the positive part of what a ReLU passes back."""
    return (gradients[0].relu(),)
