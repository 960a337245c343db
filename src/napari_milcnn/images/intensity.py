"""Background and spread of the channels of a plane, measured so that the number of its cells does not matter.

Both are taken from the image's own pixels, before any resampling, on an even grid of about a million of them; a large
plane is read strip by strip. Windows, tiles and whole planes of an image therefore share the same numbers.

- The noise is that of differences between neighbouring pixels (their median, so that edges do not count), and at least
  half of the smallest step between two intensities.
- The background is the commonest intensity: the median of the densest window of intensities as wide as the noise. The
  median of a plane would follow the number of cells.
- The spread is the median distance from the background of what stands out of the noise and reaches half of that
  distance: the brightness of the typical cell, whether there is one cell or a hundred, and whether a speck is ten times
  brighter. A percentile of all pixels would need cells on a known share of the plane.
- The spread is never less than `LEAST_CONTRAST` times the noise. A plane of pure noise is not blown up to the contrast
  of cells, and a plane of one value stays blank. Noise that was smoothed looks like structure and is scaled as such.

Multiplying all intensities, or adding the same to all of them, changes background and spread alike, so the normalised
image stays what it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from napari_milcnn.images.stack import ImageStack, Window

LEAST_CONTRAST = 5.0
"""Pixels whose distance from the background is at least this many times the noise stand out of it."""
_LEAST_PIXELS = 16
"""Fewer pixels of a sample that stand out are dust or hot pixels."""
_GRID_PIXELS = 2**20
_STRIP_PIXELS = 2**24
"""Pixels of a plane that are read at a time."""
_TO_SIGMA = 1 / (0.6745 * 2**0.5)
"""Standard deviation of Gaussian noise, for a median absolute difference of two pixels of 1."""
_ROUNDS = 4
_QUANTILES = 2**14
"""Quantiles among which the commonest intensity is looked for."""


@dataclass(frozen=True)
class IntensityScale:
    """What is subtracted from raw intensities, and what they are divided by; one number for each channel.

    A spread of 0 means one value throughout; such a channel is not divided.
    """

    background: tuple[float, ...]
    spread: tuple[float, ...]

    def apply(self, raw: np.ndarray) -> np.ndarray:
        """Return (raw - background) / spread of intensities (channels, Y, X), float32.

        Values that float32 cannot hold become infinite or NaN.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            background, divisor = self._for_channels()
            return np.asarray((raw.astype(np.float32) - background) / divisor)

    def undo(self, scaled: np.ndarray) -> np.ndarray:
        """Return the raw intensities of scaled ones (channels, Y, X), float32."""
        background, divisor = self._for_channels()
        return np.asarray(scaled * divisor + background)

    def _for_channels(self) -> tuple[np.ndarray, np.ndarray]:
        """Return background and divisor, float32 (channels, 1, 1)."""
        background, spread = (np.asarray(v, np.float32)[:, None, None] for v in (self.background, self.spread))
        return background, np.where(spread > 0, spread, np.float32(1))


class IntensitySample(NamedTuple):
    """Pixels of a plane.

    Attributes
    ----------
    values : ndarray
        Intensities, float64 (channels, pixels).
    steps : ndarray
        Absolute difference of each of them from its neighbour along X, float64 (channels, pixels).
    """

    values: np.ndarray
    steps: np.ndarray


def sample_plane(image: ImageStack, plane: int, channels: Sequence[int], pixels: int = _GRID_PIXELS) -> IntensitySample:
    """Read about `pixels` pixels of a plane on an even grid, strip by strip.

    Raises
    ------
    ImageError
        If the plane cannot be read.
    """
    height, width = image.plane_shape
    step = max(1, round((height * width / pixels) ** 0.5))
    rows = max(1, _STRIP_PIXELS // width // step) * step
    values, steps = [], []
    for top in range(0, height, rows):
        strip = image.plane(plane, channels, Window(top, min(top + rows, height), 0, width))[:, ::step]
        at = np.arange(0, width, step)
        beside = np.where(at + 1 < width, at + 1, np.maximum(at - 1, 0))
        one, other = (strip[:, :, places].astype(np.float64).reshape(len(strip), -1) for places in (at, beside))
        values.append(one)
        steps.append(np.abs(one - other))
    return IntensitySample(np.concatenate(values, 1), np.concatenate(steps, 1))


def intensity_scale(samples: Sequence[IntensitySample]) -> IntensityScale:
    """Measure background and spread of each channel over the pixels of one plane, or of several together."""
    values, steps = (np.concatenate(parts, 1) for parts in zip(*samples, strict=True))
    measured = [_scale_of_channel(np.sort(v), s) for v, s in zip(values, steps, strict=True)]
    background, spread = zip(*measured, strict=True)
    return IntensityScale(background, spread)


def _scale_of_channel(ordered: np.ndarray, steps: np.ndarray) -> tuple[float, float]:
    """Measure background and spread of sorted intensities (pixels,)."""
    if ordered[0] == ordered[-1]:
        return float(ordered[0]), 0.0
    noise = _noise_level(ordered, steps)
    background = _commonest(ordered, noise)
    distance = np.abs(ordered - background)
    least = LEAST_CONTRAST * noise
    spread = least
    for _ in range(_ROUNDS):
        standing_out = distance[distance > max(least, spread / 2)]
        if standing_out.size < _LEAST_PIXELS:
            break
        spread = float(np.median(standing_out))
    return background, max(spread, least)


def _noise_level(ordered: np.ndarray, steps: np.ndarray) -> float:
    """Estimate the standard deviation of the noise, at least half of the smallest step of the intensities."""
    jumps = np.diff(ordered)
    return max(float(np.median(steps)) * _TO_SIGMA, float(jumps[jumps > 0].min()) / 2)


def _commonest(ordered: np.ndarray, noise: float) -> float:
    """Return the median of the densest window of sorted intensities that is four standard deviations wide."""
    ordered = ordered[:: max(1, len(ordered) // _QUANTILES)]
    low, high = ordered[len(ordered) // 100], ordered[-1 - len(ordered) // 100]
    ends = np.searchsorted(ordered, ordered + max(4 * noise, (high - low) / 32), side="right")
    first = int((ends - np.arange(len(ordered))).argmax())
    return float(np.median(ordered[first : ends[first]]))
