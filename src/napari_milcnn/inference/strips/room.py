"""The room that a large plane needs in temporary files, estimated before the work.

How far a plane can be compressed depends on the image: noise cannot, and specks have many labels. What lies on the disk
is therefore made in a few windows of the plane, and compressed.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import numpy as np

from napari_milcnn.images.stack import Window
from napari_milcnn.inference.strips.rows import Scratch

_WINDOW, _ALONG = 256, 3
"""Side of a window, in px, and number of windows along each axis: they are spread evenly over the plane."""
_MARGIN_OF_ROOM = 1.15
"""How many times what the windows say is expected: the rest of the plane may be harder to compress."""
LABEL_BYTES = 0.15
"""Bytes a pixel, about, of a plane of labels, or of a mask, that is cut of maps of classes."""
COARSE_BYTES = 4 / 12
"""Bytes a pixel of the coarse levels of a plane of labels or evidence: large ones are files that are not compressed."""


def bytes_a_pixel(samples: Sequence[Sequence[np.ndarray]]) -> float:
    """Estimate the bytes that planes of float32 take for each of their pixels in temporary files, all together.

    `samples` has for each of some windows what lies there of each plane, (Y, X).
    """
    scratch, pixels = Scratch(0), sum(planes[0].size for planes in samples if planes)
    for one in chain.from_iterable(samples):
        scratch.plane((one.shape[0], one.shape[1]), np.float32).write(0, one)
    return expected_bytes(scratch, pixels)


def expected_bytes(scratch: Scratch, pixels: int) -> float:
    """Estimate the bytes for each pixel of a plane from what lies in a `Scratch` for a number of its pixels."""
    return _MARGIN_OF_ROOM * scratch.used / pixels if pixels else 0.0


def sample_windows(shape: Sequence[int]) -> list[Window]:
    """Return windows that are spread evenly over a plane (Y, X); a small plane is one window."""
    (tops, height), (lefts, width) = (_windows_along(length) for length in shape)
    return [Window(top, top + height, left, left + width) for top in tops for left in lefts]


def _windows_along(length: int) -> tuple[list[int], int]:
    """Return the first pixel of each window along an axis, and their length."""
    side = min(_WINDOW, length)
    return sorted({int((length - side) * (i + 0.5) / _ALONG) for i in range(_ALONG)}), side
