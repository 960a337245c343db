"""Random changes of training patches: rotation and reflection, and what another microscope would have done to them.

A patch is changed as an image is made: its size (magnification), its blur (focus), the intensity of each channel
(staining, exposure, lamp), its background, the noise of the camera, and the level at which the camera saturates. Each
change is applied to a share of the patches, `vary_share`, independently of the others. Focus and magnification are
those of the whole image; staining, exposure, background, noise and saturation are drawn for each channel.

Patches are normalised before they are changed: 1 is the spread of intensities, in which offset and noise are given.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage

from napari_milcnn.images.intensity import with_plate_scale
from napari_milcnn.images.open import open_image
from napari_milcnn.images.stack import ImageStack, Window
from napari_milcnn.inference.model_input import ModelInput
from napari_milcnn.options import TrainOptions

VARYING_OPTIONS = tuple(name for name in TrainOptions.model_fields if name.startswith("vary_"))
"""Names of the options that say how the acquisition is varied."""
_DARKEST = 0.01
"""Quantile of a channel that is its background."""
_VARIED_SIDE = 1024
"""Side, px, of the middle of a plane that is varied."""
_STEP = 4
"""Every fourth pixel each way tells the background."""


def half_as_strong(options: TrainOptions) -> TrainOptions:
    """Return options that vary the acquisition half as strongly, as often as before."""
    halved = {name: getattr(options, name) / 2 for name in VARYING_OPTIONS if name != "vary_share"}
    return options.model_copy(update={**halved, "vary_size": math.sqrt(options.vary_size)})


def draw_zoom(options: TrainOptions, rng: np.random.Generator) -> float:
    """Draw the magnification of a patch, evenly on a logarithmic scale; 1 for a patch that keeps its size."""
    if not _is_drawn(options.vary_size - 1, options, rng):
        return 1.0
    return float(options.vary_size ** rng.uniform(-1, 1))


def resized(patch: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Resize a patch, float32 (channels, Y, X), to another shape (Y, X), smoothed before it is made smaller."""
    if patch.shape[1:] == shape:
        return patch
    pixels = torch.from_numpy(np.ascontiguousarray(patch, np.float32))[None]
    return np.asarray(F.interpolate(pixels, shape, mode="bilinear", antialias=True)[0])


def flip_rotate(image: np.ndarray, which: int) -> np.ndarray:
    """Return one of the eight exact rotations and reflections of an image (channels, Y, X), 0 to 7; 0 is itself."""
    rotated = np.rot90(image, which % 4, axes=(1, 2))
    return np.ascontiguousarray(rotated[:, :, ::-1] if which >= 4 else rotated)


def vary_acquisition(patch: np.ndarray, options: TrainOptions, rng: np.random.Generator) -> np.ndarray:
    """Change all but the size of a normalised patch, float32 (channels, Y, X), at random."""
    if _is_drawn(options.vary_blur, options, rng):
        sigma = rng.uniform(0, options.vary_blur)
        patch = ndimage.gaussian_filter(patch, (0, sigma, sigma), mode="reflect", truncate=3)
    return np.stack([_vary_channel(channel, options, rng) for channel in patch])


def _vary_channel(channel: np.ndarray, options: TrainOptions, rng: np.random.Generator) -> np.ndarray:
    """Change intensity, background, noise and saturation of one channel (Y, X)."""
    background = np.quantile(channel[::_STEP, ::_STEP], _DARKEST).astype(np.float32)
    signal = channel - background
    if _is_drawn(options.vary_intensity, options, rng):
        signal *= np.float32(np.exp(rng.normal(0, options.vary_intensity)))
    if _is_drawn(options.vary_offset, options, rng):
        background += np.float32(rng.uniform(-options.vary_offset, options.vary_offset))
    if _is_drawn(options.vary_noise, options, rng):
        signal += _camera_noise(signal, rng.uniform(0, options.vary_noise), rng)
    if _is_drawn(options.vary_saturation, options, rng):
        signal = np.minimum(signal, signal.max() * np.float32(1 - rng.uniform(0, options.vary_saturation)))
    return np.asarray(signal + background)


def _camera_noise(signal: np.ndarray, sigma: float, rng: np.random.Generator) -> np.ndarray:
    """Draw noise (Y, X), a random part of it shot noise, whose variance grows with the signal; sigma is at signal 1."""
    shot = np.float32(rng.uniform())
    variance = (1 - shot) + shot * np.maximum(signal, 0)
    return np.asarray(np.float32(sigma) * np.sqrt(variance) * rng.standard_normal(signal.shape, np.float32))


def _is_drawn(strength: float, options: TrainOptions, rng: np.random.Generator) -> bool:
    """Draw whether a change of this strength is applied; a strength of 0 draws nothing."""
    return strength > 0 and bool(rng.random() < options.vary_share)


def varied_image(seen: ModelInput, plane: int, options: TrainOptions, rng: np.random.Generator) -> ImageStack:
    """Change the middle of a plane as training patches are changed; the new image has the pixels of the network."""
    places = [max(0, (size - _VARIED_SIDE) // 2) for size in seen.shape]
    (y, x), (height, width) = places, (min(size, _VARIED_SIDE) for size in seen.shape)
    scale = seen.intensity(plane)
    patch = scale.apply(seen.read_raw(plane, Window(y, y + height, x, x + width)))
    zoom = draw_zoom(options, rng)
    patch = resized(patch, (round(zoom * height), round(zoom * width)))
    raw = scale.undo(vary_acquisition(patch, options, rng))
    return with_plate_scale(open_image(raw, axes="CYX", channels=seen.model.channels), seen.plate_scale)
