"""Learning on a CPU in the memory layout that oneDNN computes in.

oneDNN, torch's library for CPUs, keeps eight or sixteen channels of a pixel together ("blocked"). Channels first it
reorders every layer's images to that and back; channels last, on a CPU without AVX-512, the gradient of a convolution's
weights and the backward pass of batch norm are slow. An image that stays blocked from the first layer to the last pays
for neither. The numbers are those of any other layout up to rounding; what it is worth is measured by
benchmarks/speed/training.py.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

_PROCESSORS = ("AVX2", "AVX512")
"""What torch calls the processors that oneDNN has kernels of this layout for; on others it may fall back to loops."""
_LAYERS = (nn.Conv2d, nn.BatchNorm2d, nn.AvgPool2d, nn.MaxPool2d, nn.ReLU)
"""The kinds of layers that oneDNN has; not their subclasses, which may do anything."""


def blocked_pays(images: Tensor) -> bool:
    """Whether to learn from these images in blocked layout: in float32, on a CPU that has kernels for it."""
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
