"""The convolution that learns faster gives the numbers of torch's own."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from napari_milcnn.core.convolution import Convolution


@pytest.mark.parametrize("memory_format", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("bias", [True, False])
def test_output_and_gradients_are_those_of_conv2d(bias, memory_format):
    """Output, and gradients of images, weights and bias, in training as in evaluation."""
    generator = torch.Generator().manual_seed(0)
    ours, theirs = Convolution(3, 5, 3, bias=bias), nn.Conv2d(3, 5, 3, bias=bias)
    theirs.load_state_dict(ours.state_dict())
    pixels = torch.randn(2, 3, 12, 14, generator=generator).to(memory_format=memory_format)
    out = []
    for layer in (ours, theirs):
        images = pixels.clone().requires_grad_()
        result = layer.to(memory_format=memory_format)(images)
        (result**2).sum().backward()
        out.append([result.detach(), images.grad, *(p.grad for p in layer.parameters())])
    for mine, reference in zip(*out, strict=True):
        torch.testing.assert_close(mine, reference, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(ours.eval()(pixels), theirs.eval()(pixels))
