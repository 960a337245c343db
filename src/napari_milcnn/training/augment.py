"""Changes of training patches that leave their label as it is."""

from __future__ import annotations

import numpy as np


def turned(image: np.ndarray, which: int) -> np.ndarray:
    """One of the eight exact rotations and reflections of an image (channels, Y, X)."""
    rotated = np.rot90(image, which % 4, axes=(1, 2))
    return np.ascontiguousarray(rotated[:, :, ::-1] if which >= 4 else rotated)


def amplified(image: np.ndarray, gain: float, rng: np.random.Generator) -> np.ndarray:
    """Multiply what lies above the darkest pixel of each channel (channels, Y, X) by exp(normal(0, gain))."""
    if gain == 0:
        return image
    factors = np.exp(rng.normal(0, gain, len(image))).astype(np.float32)[:, None, None]
    darkest = image.min((1, 2), keepdims=True).astype(np.float32)
    return np.asarray(darkest + (image - darkest) * factors)
