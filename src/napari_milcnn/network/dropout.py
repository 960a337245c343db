"""Dropout whose random numbers are its own.

torch's dropout draws from the one generator that all threads of a program share. What it drops then depends on what
other threads draw meanwhile, and a training could not be repeated in a program that does anything else beside it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class SeededDropout(nn.Dropout):
    """Dropout that draws from `generator`, or like any other dropout while that is None."""

    generator: torch.Generator | None = None

    def forward(self, images: Tensor) -> Tensor:  # noqa: D102
        if self.generator is None or not self.training or self.p == 0:
            return super().forward(images)
        kept = torch.empty_like(images).bernoulli_(1 - self.p, generator=self.generator)
        return images * kept.div_(1 - self.p)


def seed_dropout(network: nn.Module, seed: int, device: torch.device) -> None:
    """Let all dropout layers of a network draw from one new generator on the device that the network runs on."""
    generator = torch.Generator(device).manual_seed(seed)
    for layer in network.modules():
        if isinstance(layer, SeededDropout):
            layer.generator = generator
