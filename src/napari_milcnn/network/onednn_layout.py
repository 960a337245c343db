"""Training on a CPU in the memory layout that oneDNN computes in.

oneDNN, torch's library for CPUs, stores eight or sixteen channels of a pixel together ("blocked"). It reorders images
that have channels first into that layout and back at every layer. With channels last, on a CPU without AVX-512, the
gradient of a convolution's weights and the backward pass of batch norm are slow. Images that stay blocked from the
first layer to the last avoid both. The numbers are those of any other layout up to rounding; the gain is measured by
benchmarks/speed/training.py.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

_PROCESSORS = ("AVX2", "AVX512")
"""Processors, as torch names them, for which oneDNN has kernels of this layout; on others it may be slower."""
_LAYERS = (nn.Conv2d, nn.BatchNorm2d, nn.AvgPool2d, nn.MaxPool2d, nn.ReLU)
"""Layers that oneDNN can train in this layout; not their subclasses, which may compute something else."""


def blocked_pays(images: Tensor) -> bool:
    """Tell whether to train on these images in blocked layout: in float32, on a CPU that has kernels for it."""
    plain = images.device.type == "cpu" and images.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    onednn = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    known = onednn and torch.backends.cpu.get_cpu_capability() in _PROCESSORS
    return plain and known and torch.is_grad_enabled()


def encode_blocked(encoder: nn.Sequential, images: Tensor) -> Tensor:
    """Encode images (batch, channels, Y, X), float32 on the CPU, as `encoder(images)` does; gradients flow back.

    Layers that oneDNN cannot learn through, such as dropout and batch norm in evaluation, leave the layout and come
    back.
    """
    features = images.to_mkldnn()
    for layer in encoder:
        stays = type(layer) in _LAYERS and layer.training
        features = layer(features) if stays else layer(features.to_dense()).to_mkldnn()
    return features.to_dense()
