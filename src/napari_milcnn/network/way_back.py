"""Run an encoder forward once, and go back through it as often as wanted, one gradient at a time.

torch's autograd would go back through batch norm and through hooks, and keep every layer's input. A `Trace` keeps only
what the way back needs: where each ReLU passed something on, and which pixel each max pool chose.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_milcnn.network.mil_network import MilNetwork

_BACK_BLOCK = (2, 4)
"""Pixels (Y, X) of an image that a CPU computes together on the way back through the first convolution."""
_FEW_CHANNELS = 4
"""An image with at most this number of channels is computed so: each pixel alone would leave most lanes empty."""


@dataclass(frozen=True)
class Passed:
    """A layer that was run, and what its way back needs.

    Attributes
    ----------
    layer : nn.Module
        The layer.
    shape : torch.Size
        Shape of its input.
    kept : Tensor or None
        Output of a ReLU; indices of a max pool.
    """

    layer: nn.Module
    shape: torch.Size
    kept: Tensor | None = None


@dataclass(frozen=True)
class Trace:
    """A forward run of a network, and what the way back needs of it.

    Attributes
    ----------
    images : Tensor
        Normalised images, float32 (batch, channels, Y, X), on the network's device.
    features : Tensor
        Features of the encoder, float32 (batch, features, Y, X).
    logits : Tensor
        Class-map logits, float32 (batch, classes, Y, X).
    passed : tuple of Passed
        The layers of the encoder, from the first to the last.
    """

    images: Tensor
    features: Tensor
    logits: Tensor
    passed: tuple[Passed, ...]
    _network: MilNetwork

    def back(self, index: int, signal: Tensor, *, guided: bool) -> Tensor:
        """Propagate a signal on the map of one class back to the pixels, in the caller's autocast precision.

        Parameters
        ----------
        index : int
            Index of the class.
        signal : Tensor
            The signal, float32 (batch, Y, X).
        guided : bool
            Whether only its positive part passes each pre-activation, and counts at the pixels.

        Returns
        -------
        Tensor
            Sum over the channels of what arrives, float32 (batch, Y, X).
        """
        weights = self._network.maps.weight[index]  # (features, 1, 1)
        gradient = (signal[:, None] * weights).to(self._dtype, memory_format=torch.channels_last)
        below = places_below_relus([one.layer for one in self.passed])
        for place, one in reversed([*enumerate(self.passed)]):
            gradient = back_through(one, gradient)
            if guided and place in below:
                gradient = gradient.relu_()
        return (gradient.relu() if guided else gradient).float().sum(1)

    @property
    def _dtype(self) -> torch.dtype:
        return next((one.kept.dtype for one in reversed(self.passed) if one.kept is not None), torch.float32)


def trace(network: MilNetwork, images: Tensor) -> Trace:
    """Run a network, in inference mode and the caller's autocast precision, and keep what the way back needs.

    Parameters
    ----------
    network : MilNetwork
        The network as `inference_copy` makes it: batch norm is folded into the convolutions.
    images : Tensor
        Normalised images, float32 (batch, channels, Y, X), on the network's device.
    """
    passed: list[Passed] = []
    last = images
    for layer in network.encoder:
        shape, kept = last.shape, None
        if isinstance(layer, nn.MaxPool2d):
            last, kept = functional.max_pool2d(last, layer.kernel_size, layer.stride, return_indices=True)
        else:
            last = layer(last)
            kept = last if isinstance(layer, nn.ReLU) else None
        passed.append(Passed(layer, shape, kept))
    features = last.float()
    return Trace(images, features, network.maps_of(features), tuple(passed), network)


def places_below_relus(layers: Sequence[nn.Module]) -> set[int]:
    """Find the layers whose input is a pre-activation: each ReLU, or the max pool that stands right before it."""
    relus = [place for place, layer in enumerate(layers) if isinstance(layer, nn.ReLU)]
    return {place - (place > 0 and isinstance(layers[place - 1], nn.MaxPool2d)) for place in relus}


def back_through(passed: Passed, gradient: Tensor) -> Tensor:
    """Take a gradient from the output of a layer to its input."""
    layer = passed.layer
    found: Tensor
    match layer:
        case nn.Conv2d():
            few = layer.in_channels <= _FEW_CHANNELS and gradient.device.type == "cpu"
            found = _back_in_blocks(layer, gradient) if few else functional.conv_transpose2d(gradient, layer.weight)
        case nn.ReLU():
            found = torch.ops.aten.threshold_backward(gradient, passed.kept, 0)
        case nn.MaxPool2d():
            found = torch.ops.aten.max_pool2d_with_indices_backward(
                gradient, _empty(passed, gradient), [layer.kernel_size], [layer.stride], [0], [1], False, passed.kept
            )
        case nn.AvgPool2d():
            gradient = gradient.float()  # twice as fast as in bfloat16
            found = torch.ops.aten.avg_pool2d_backward(
                gradient, _empty(passed, gradient), [layer.kernel_size], [layer.stride], [0], False, True, None
            )
        case nn.Dropout():
            found = gradient
        case _:
            raise TypeError(f"no way back through {type(layer).__name__}")
    return found


def _empty(passed: Passed, gradient: Tensor) -> Tensor:
    """Make what torch wants to see of a layer's input, of which it reads shape and layout alone."""
    layout = torch.contiguous_format if isinstance(passed.layer, nn.AvgPool2d) else torch.channels_last
    return torch.empty(passed.shape, dtype=gradient.dtype, device=gradient.device, memory_format=layout)


def _back_in_blocks(layer: nn.Conv2d, gradient: Tensor) -> Tensor:
    """Go back through an unpadded convolution of a few channels, a block of pixels as one pixel of many channels."""
    weight, (down, right) = layer.weight.flip(2, 3).transpose(0, 1), _BACK_BLOCK
    channels, _, high, wide = weight.shape
    blocks = weight.new_zeros(down, right, *weight.shape[:2], high + down - 1, wide + right - 1)
    for y in range(down):
        for x in range(right):
            blocks[y, x, :, :, y : y + high, x : x + wide] = weight
    height, width = gradient.shape[2] + high - 1, gradient.shape[3] + wide - 1
    padding = (high - 1 + down, wide - 1 + right)  # a block more on each side, so that none of the last is cut off
    rows, columns = -(-height // down), -(-width // right)
    found = functional.conv2d(gradient, blocks.flatten(0, 2), stride=_BACK_BLOCK, padding=padding)
    found = found[:, :, 1 : 1 + rows, 1 : 1 + columns]
    found = found.reshape(-1, down, right, channels, rows, columns).permute(0, 3, 4, 1, 5, 2)
    pixels = found.reshape(-1, channels, rows * down, columns * right)
    return pixels[:, :, :height, :width]
