"""Where the pixels of a class map are on the image: stride, receptive field, offset."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import nn


class Placement(NamedTuple):
    """Position of a class map on the image: the centre of map pixel j is at offset + stride * j, px."""

    receptive_field: int
    """Side of the square of image pixels that one map pixel sees."""
    stride: int
    """Image pixels from one map pixel to the next."""
    offset: float
    """Image coordinate (px, pixel centres are whole numbers) of the centre of map pixel 0."""

    @classmethod
    def of_layers(cls, layers: nn.Module) -> Placement:
        """Compute the placement from the convolutions and pools of a sequential, unpadded module."""
        field, stride = 1, 1
        for layer in layers.modules():
            if isinstance(layer, nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d):
                field += (side_of(layer.kernel_size) - 1) * stride
                stride *= side_of(layer.stride)
        return cls(field, stride, (field - 1) / 2)

    def map_size(self, pixels: int) -> int:
        """Return the side of the class map of an image side of `pixels`; 0 for less than a receptive field."""
        return max(0, (pixels - self.receptive_field) // self.stride + 1)


def side_of(size: Any) -> int:
    """Return the side of a square kernel or stride, which torch gives as one number or two."""
    return int(size[0] if isinstance(size, tuple) else size)
