"""A copy of a network that computes the same numbers faster, and cannot learn."""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from napari_milcnn.network.mil_network import MilNetwork


def inference_copy(network: MilNetwork) -> MilNetwork:
    """Copy a network for inference: batch norm is folded into the convolutions, and ReLU works in place."""
    fast = copy.deepcopy(network).eval().requires_grad_(False)
    layers: list[nn.Module] = []
    for layer in fast.encoder:
        match layer:
            case nn.BatchNorm2d():
                layers[-1] = fuse_conv_bn_eval(layers[-1], layer)  # type: ignore[type-var]
            case nn.ReLU():
                layers.append(nn.ReLU(inplace=True))
            case nn.Dropout():
                pass
            case _:
                layers.append(layer)
    fast.encoder = nn.Sequential(*layers)
    return fast.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]
