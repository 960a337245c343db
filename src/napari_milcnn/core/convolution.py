"""A convolution that learns faster on a CPU.

Channels last is the faster memory format for every part of our networks but one: the gradient of a convolution's
weights, which without AVX-512 takes about twice as long in it. `Convolution` computes that one gradient channels first.
The numbers are those of `nn.Conv2d` up to rounding; what it is worth is measured by benchmarks/training_speed.py.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class Convolution(nn.Conv2d):
    """An unpadded convolution of stride 1; on a CPU in float32 its weights' gradient is computed channels first."""

    def forward(self, images: Tensor) -> Tensor:  # noqa: D102
        here = images.device.type == "cpu" and images.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
        if self.training and here and torch.is_grad_enabled():
            return _Convolution.apply(images, self.weight, self.bias)  # type: ignore[no-any-return, no-untyped-call]
        return super().forward(images)


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(images, weight)
        return F.conv2d(images, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        images, weight = ctx.saved_tensors
        back, learn, shift = ctx.needs_input_grad
        onwards = _gradients(gradient, images, weight, (True, False))[0] if back else None
        learned = None
        if learn:
            first = torch.contiguous_format
            learned = _gradients(gradient.contiguous(memory_format=first), images.contiguous(memory_format=first),
                                 weight.contiguous(memory_format=first), (False, True))[1]  # fmt: skip
        return onwards, learned, gradient.sum((0, 2, 3)) if shift else None


def _gradients(gradient: Tensor, images: Tensor, weight: Tensor, wanted: tuple[bool, bool]) -> tuple[Tensor, Tensor]:
    one, none = [1, 1], [0, 0]
    back, learn, _ = torch.ops.aten.convolution_backward(
        gradient, images, weight, None, one, none, one, False, none, 1, [*wanted, False]
    )
    return back, learn
