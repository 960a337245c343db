"""An image as a model sees it: the model's channels, at the model's pixel size, at least one receptive field large.

This is the one pure step between what a user has and what a network takes; classification, evidence and training all
read images through it.

Why resampling is written out rather than taken from `skimage.transform.resize`: a window of the resampled plane must
be the same numbers as that window cut from the whole resampled plane, or tiles would not be exact. So each output
pixel's place in the source is computed from its own index, over a Gaussian of finite support.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from napari_milcnn.errors import ImageError
from napari_milcnn.images.channels import match_channels
from napari_milcnn.images.stack import ImageStack, Window
from napari_milcnn.inference.class_maps import MapPlacement
from napari_milcnn.model.trained_model import TrainedModel

TOLERATED_PIXEL_SIZE = 0.10
"""Share by which pixel sizes may differ before an image is resampled."""
LARGEST_ZOOM = 20
"""Pixel sizes further apart than this are taken for a mistake in the file."""


@dataclass(frozen=True)
class ModelInput:
    """One image through one model's eyes.

    Attributes
    ----------
    model, image
        What is looked through, and at.
    channels : tuple of int
        The image's channel for each channel of the model.
    zoom : float
        Model pixels per image pixel; 1 where nothing is resampled.
    margin : tuple of int
        Reflected rows above and columns left of the image, where it is smaller than the receptive field.
    shape : tuple of int
        (Y, X) in model pixels, margins included.
    warnings : tuple of str
        What was done to the image, in sentences.
    """

    model: TrainedModel
    image: ImageStack
    channels: tuple[int, ...]
    zoom: float
    margin: tuple[int, int]
    shape: tuple[int, int]
    warnings: tuple[str, ...]

    @property
    def scaled_shape(self) -> tuple[int, int]:
        """(Y, X) in model pixels, without margins."""
        return _scaled(self.image.plane_shape, self.zoom)

    @property
    def map_shape(self) -> tuple[int, int]:
        """(Y, X) of the class maps of one plane."""
        placement = self.model.network.placement
        return placement.map_size(self.shape[0]), placement.map_size(self.shape[1])

    @property
    def placement(self) -> MapPlacement:
        """Where the class maps lie on the image, in image pixels."""
        field = self.model.network.placement
        y, x = ((field.offset - margin + 0.5) / self.zoom - 0.5 for margin in self.margin)
        return MapPlacement(field.stride / self.zoom, y, x)

    def read(self, plane: int, window: Window | None = None) -> np.ndarray:
        """Normalised intensities, float32 (channels, Y, X), of a window in model pixels; of the plane by default."""
        normalised = self.model.normalise(self.read_raw(plane, window))
        if not np.isfinite(normalised).all():
            raise ImageError(f"{self.image.name} holds values too large for 32-bit numbers; rescale its intensities")
        return normalised

    def read_raw(self, plane: int, window: Window | None = None) -> np.ndarray:
        """Raw intensities, (channels, Y, X), of a window in model pixels; of the whole plane by default."""
        window = window or Window(0, self.shape[0], 0, self.shape[1])
        if self.margin == (0, 0) and self.shape == self.scaled_shape:
            return self._scaled_window(plane, window)
        whole = self._scaled_window(plane, Window(0, self.scaled_shape[0], 0, self.scaled_shape[1]))
        before = ((0, 0), *((m, n - s - m) for m, n, s in zip(self.margin, self.shape, self.scaled_shape, strict=True)))
        padded = np.pad(whole, before, mode="symmetric")
        return padded[:, window.y0 : window.y1, window.x0 : window.x1]

    def _scaled_window(self, plane: int, window: Window) -> np.ndarray:
        if self.zoom == 1:
            return self.image.plane(plane, self.channels, window)
        height, width = self.image.plane_shape
        rows, columns = (
            _source(window.y0, window.y1, self.zoom, height),
            _source(window.x0, window.x1, self.zoom, width),
        )
        raw = self.image.plane(plane, self.channels, Window(*rows, *columns))
        return np.stack([_resample(c.astype(np.float32), window, (rows[0], columns[0]), self.zoom) for c in raw])


def model_input(model: TrainedModel, image: ImageStack, *, match_pixel_size: bool = True) -> ModelInput:
    """Look at an image through a model.

    Raises
    ------
    ImageError
        If the image has not the channels that the model needs, or a pixel size out of all proportion.
    """
    channels, said = match_channels(model.channels, image)
    warnings = [*image.warnings, *([said] if said else [])]
    zoom = _zoom(model, image) if match_pixel_size else 1.0
    if zoom != 1:
        warnings.append(
            f"resampled from {image.pixel_size:.4g} to the model's {model.pixel_size:.4g} µm per pixel; "
            "match_pixel_size=False (--no-match-pixel-size) leaves it as it is"
        )
    scaled = _scaled(image.plane_shape, zoom)
    field = model.network.placement.receptive_field
    shape = (max(scaled[0], field), max(scaled[1], field))
    if shape != scaled:
        warnings.append(
            f"the image, {scaled[0]} x {scaled[1]} px, is smaller than the network's receptive field of {field} px; "
            "it was reflected outwards to reach it"
        )
    margin = ((shape[0] - scaled[0]) // 2, (shape[1] - scaled[1]) // 2)
    return ModelInput(model, image, channels, zoom, margin, shape, tuple(warnings))


def _zoom(model: TrainedModel, image: ImageStack) -> float:
    if model.pixel_size is None or image.pixel_size is None:
        return 1.0
    zoom = image.pixel_size / model.pixel_size
    if not 1 / LARGEST_ZOOM <= zoom <= LARGEST_ZOOM:
        raise ImageError(
            f"{image.name} has {image.pixel_size:.4g} µm per pixel and the model {model.pixel_size:.4g}; expected them "
            f"within a factor of {LARGEST_ZOOM}; give the true pixel size by pixel_size= (--pixel-size)"
        )
    return 1.0 if abs(zoom - 1) <= TOLERATED_PIXEL_SIZE + 1e-9 else zoom


def _scaled(shape: Sequence[int], zoom: float) -> tuple[int, int]:
    return max(1, round(shape[0] * zoom)), max(1, round(shape[1] * zoom))


def _sigma(zoom: float) -> float:
    """Blur, in image px, that keeps finer detail than the model's pixels from aliasing."""
    return max(0.0, (1 / zoom - 1) / 2)


def _source(start: int, stop: int, zoom: float, size: int) -> tuple[int, int]:
    """Image rows needed for model rows start to stop, blur included."""
    margin = math.ceil(4 * _sigma(zoom)) + 2
    low = math.floor((start + 0.5) / zoom - 0.5) - margin
    high = math.ceil((stop - 0.5) / zoom - 0.5) + margin + 1
    return min(max(0, low), size - 1), min(size, max(high, 1))


def _resample(channel: np.ndarray, window: Window, start: tuple[int, int], zoom: float) -> np.ndarray:
    if _sigma(zoom) > 0:
        channel = ndimage.gaussian_filter(channel, _sigma(zoom), mode="nearest", truncate=4)
    firsts = (window.y0, window.x0)
    offset = [(first + 0.5) / zoom - 0.5 - begin for first, begin in zip(firsts, start, strict=True)]
    size = (window.y1 - window.y0, window.x1 - window.x0)
    return np.asarray(
        ndimage.affine_transform(channel, [1 / zoom] * 2, offset, size, order=1, mode="nearest"), np.float32
    )
