"""The input of a model: an image with the model's channels and pixel size, at least one receptive field large.

This is the one pure step from a user's image to the input of a network. Classification, evidence and training all read
images through it.

Why we do not use `skimage.transform.resize`: for tiles to be exact, a window of the resampled plane must have the same
numbers as that window cut from the whole resampled plane. The place of each output pixel in the image is therefore
computed from its own index, after a Gaussian filter of finite support.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from scipy import ndimage

from napari_milcnn.errors import ImageError
from napari_milcnn.images.channels import match_channels
from napari_milcnn.images.intensity import (
    IntensityScale,
    Plate,
    PlateScale,
    intensity_scale,
    sample_plane,
    with_plate_scale,
)
from napari_milcnn.images.stack import ImageStack, Window
from napari_milcnn.inference.class_maps import MapPlacement
from napari_milcnn.model.trained_model import TrainedModel

TOLERATED_PIXEL_SIZE = 0.10
"""Relative difference of pixel sizes up to which an image is not resampled."""
LARGEST_ZOOM = 20
"""A larger factor between two pixel sizes is treated as a mistake in the file."""


@dataclass(frozen=True)
class ModelInput:
    """One image as the input of one model.

    Attributes
    ----------
    model : TrainedModel
        The model.
    image : ImageStack
        The image.
    channels : tuple of int
        For each channel of the model, the index of the image's channel.
    zoom : float
        Model pixels per image pixel; 1 if the image is not resampled. It is the scale on the model's card, times the
        ratio of the pixel sizes where these are known and differ, or divided by the relative size that was given.
    margin : tuple of int
        Number of reflected rows above the image and of reflected columns left of it; 0 unless the image is smaller than
        the receptive field.
    shape : tuple of int
        (Y, X) in model pixels, with margins.
    warnings : tuple of str
        Sentences about what was done to the image.
    """

    model: TrainedModel
    image: ImageStack
    channels: tuple[int, ...]
    zoom: float
    margin: tuple[int, int]
    shape: tuple[int, int]
    warnings: tuple[str, ...]
    _measured: dict[int, IntensityScale] = field(default_factory=dict, repr=False, compare=False)

    def intensity(self, plane: int) -> IntensityScale:
        """Return what the intensities of a plane are scaled by: as the model has it, by its plate, or by the plane.

        It is measured once, on whole planes in the images' own pixels, whatever window is read, and before resampling.

        Raises
        ------
        ImageError
            If the plane, or the images of the plate, cannot be read, or the plate is not known.
        """
        fixed = self.model.fixed_intensity
        if fixed is not None:
            return fixed
        plate = self.plate_scale
        if plate is not None:
            return plate.scale
        if plane not in self._measured:
            self._measured[plane] = intensity_scale([sample_plane(self.image, plane, self.channels)])
        return self._measured[plane]

    @property
    def plate_scale(self) -> PlateScale | None:
        """The scale of the image's plate or batch, where the model scales intensities by it, as it is measured once."""
        plate = self._plate()
        return None if plate is None else plate.scale(self.model.channels)

    def measuring_plate(self) -> Iterator[None]:
        """Measure the scale of the image's plate, where it is needed and not known; yields after each of its images."""
        plate = self._plate()
        if plate is not None:
            yield from plate.measuring(self.model.channels)

    def scaled_as(self, known: PlateScale | None) -> ModelInput:
        """Return the same input with a scale of the plate that was measured before; None changes nothing."""
        return replace(self, image=with_plate_scale(self.image, known))

    def _plate(self) -> Plate | None:
        if self.model.card.normalise != "group":
            return None
        if self.image.plates is None:
            raise ImageError(
                f"the model scales intensities by plate, and it is not known which images share that of "
                f"{self.image.name}; open the image with Plates(...).open"
            )
        return self.image.plates.plate_of(self.image.path)

    @property
    def scaled_shape(self) -> tuple[int, int]:
        """Shape (Y, X) in model pixels, without margins."""
        return _scaled(self.image.plane_shape, self.zoom)

    @property
    def relative_size(self) -> float:
        """Size of the image's pixels, relative to those of the training images, as it was taken to be."""
        return self.model.card.network_scale / self.zoom

    @property
    def map_shape(self) -> tuple[int, int]:
        """Shape (Y, X) of the class maps of one plane."""
        placement = self.model.network.placement
        return placement.map_size(self.shape[0]), placement.map_size(self.shape[1])

    @property
    def placement(self) -> MapPlacement:
        """The place of the class maps on the image, in image pixels."""
        field = self.model.network.placement
        y, x = ((field.offset - margin + 0.5) / self.zoom - 0.5 for margin in self.margin)
        return MapPlacement(field.stride / self.zoom, y, x)

    def read(self, plane: int, window: Window | None = None) -> np.ndarray:
        """Read the normalised intensities of a window in model pixels, by default of the whole plane.

        Returns
        -------
        ndarray
            float32 (channels, Y, X).

        Raises
        ------
        ImageError
            If the plane cannot be read, or has values that float32 cannot hold.
        """
        normalised = self.intensity(plane).apply(self.read_raw(plane, window))
        if not np.isfinite(normalised).all():
            raise ImageError(f"{self.image.name} has values too large for 32-bit numbers; rescale its intensities")
        return normalised

    def read_raw(self, plane: int, window: Window | None = None) -> np.ndarray:
        """Read the raw intensities (channels, Y, X) of a window in model pixels, by default of the whole plane."""
        window = window or Window(0, self.shape[0], 0, self.shape[1])
        if self.margin == (0, 0) and self.shape == self.scaled_shape:
            return self._scaled_window(plane, window)
        whole = self._scaled_window(plane, Window(0, self.scaled_shape[0], 0, self.scaled_shape[1]))
        sides = ((m, n - s - m) for m, n, s in zip(self.margin, self.shape, self.scaled_shape, strict=True))
        padded = np.pad(whole, ((0, 0), *sides), mode="symmetric")
        return padded[:, window.y0 : window.y1, window.x0 : window.x1]

    def _scaled_window(self, plane: int, window: Window) -> np.ndarray:
        if self.zoom == 1:
            return self.image.plane(plane, self.channels, window)
        height, width = self.image.plane_shape
        rows, columns = (
            _image_range(window.y0, window.y1, self.zoom, height),
            _image_range(window.x0, window.x1, self.zoom, width),
        )
        raw = self.image.plane(plane, self.channels, Window(*rows, *columns))
        return np.stack([_resample(c.astype(np.float32), window, (rows[0], columns[0]), self.zoom) for c in raw])


def model_input(
    model: TrainedModel, image: ImageStack, *, match_pixel_size: bool = True, relative_size: float | None = None
) -> ModelInput:
    """Prepare an image as the input of a model.

    Parameters
    ----------
    model : TrainedModel
        The model.
    image : ImageStack
        The image.
    match_pixel_size : bool
        Whether to resample an image whose pixel size differs from the model's.
    relative_size : float, optional
        Size of the objects in the image, relative to the training images; by default the same. It is not used where
        pixel sizes are matched.

    Raises
    ------
    ImageError
        If the image does not have the model's channels, or its pixel size differs from the model's too much to be true.
    """
    channels, channel_warning = match_channels(model.channels, image)
    warnings = [*image.warnings, *([channel_warning] if channel_warning else [])]
    is_matched = match_pixel_size and has_both_pixel_sizes(model, image)
    if model.pixel_size is not None and image.pixel_size is None and relative_size is None:
        warnings.append(
            f"the image does not say its pixel size and was taken to have the model's, {model.pixel_size:.4g} µm; "
            "objects of another size are not recognised, so give the pixel size if it differs"
        )
    ratio = _pixel_size_ratio(model, image) if is_matched else 1 / (relative_size or 1.0)
    if is_matched and ratio != 1:
        warnings.append(
            f"the image was resampled from {image.pixel_size:.4g} to the model's {model.pixel_size:.4g} µm per pixel; "
            "to use the image's own pixels, switch off match_pixel_size"
        )
    if relative_size is not None and relative_size != 1:
        warnings.append(_on_relative_size(relative_size, is_matched))
    zoom = ratio * model.card.network_scale
    scaled = _scaled(image.plane_shape, zoom)
    field = model.network.placement.receptive_field
    shape = (max(scaled[0], field), max(scaled[1], field))
    if shape != scaled:
        warnings.append(
            f"the image, {scaled[0]} x {scaled[1]} px, is smaller than the network's receptive field of {field} px; "
            "it was extended by reflection"
        )
    margin = ((shape[0] - scaled[0]) // 2, (shape[1] - scaled[1]) // 2)
    return ModelInput(model, image, channels, zoom, margin, shape, tuple(warnings))


def _on_relative_size(relative_size: float, is_matched: bool) -> str:
    if is_matched:
        return (
            f"relative_size {relative_size:.4g} was not used, because the pixel sizes of the image and the model are "
            "known and were matched; to use it, switch off match_pixel_size"
        )
    return (
        f"the image was resampled by {1 / relative_size:.3g}, because relative_size says that its objects are "
        f"{relative_size:.4g} times as large as in the training images"
    )


def has_both_pixel_sizes(model: TrainedModel, image: ImageStack) -> bool:
    """Whether the pixel sizes of a model and an image are both known."""
    return model.pixel_size is not None and image.pixel_size is not None


def _pixel_size_ratio(model: TrainedModel, image: ImageStack) -> float:
    assert model.pixel_size is not None
    assert image.pixel_size is not None
    ratio = image.pixel_size / model.pixel_size
    if not 1 / LARGEST_ZOOM <= ratio <= LARGEST_ZOOM:
        raise ImageError(
            f"{image.name} has {image.pixel_size:.4g} µm per pixel and the model has {model.pixel_size:.4g}; expected "
            f"them to differ by at most a factor of {LARGEST_ZOOM}; give the true pixel size of the image"
        )
    return 1.0 if abs(ratio - 1) <= TOLERATED_PIXEL_SIZE + 1e-9 else ratio


def _scaled(shape: Sequence[int], zoom: float) -> tuple[int, int]:
    return max(1, round(shape[0] * zoom)), max(1, round(shape[1] * zoom))


def _sigma(zoom: float) -> float:
    """Return the sigma, in image px, of the blur that prevents aliasing of detail finer than the model's pixels."""
    return max(0.0, (1 / zoom - 1) / 2)


def _image_range(start: int, stop: int, zoom: float, size: int) -> tuple[int, int]:
    """Return the range of image rows that model rows from start to stop need, blur included."""
    margin = math.ceil(4 * _sigma(zoom)) + 2
    low = math.floor((start + 0.5) / zoom - 0.5) - margin
    high = math.ceil((stop - 0.5) / zoom - 0.5) + margin + 1
    return min(max(0, low), size - 1), min(size, max(high, 1))


def _resample(channel: np.ndarray, window: Window, start: tuple[int, int], zoom: float) -> np.ndarray:
    """Resample part of a channel (Y, X), whose first pixel is `start` in the image, to a window in model pixels."""
    if _sigma(zoom) > 0:
        channel = ndimage.gaussian_filter(channel, _sigma(zoom), mode="nearest", truncate=4)
    firsts = (window.y0, window.x0)
    offset = [(first + 0.5) / zoom - 0.5 - origin for first, origin in zip(firsts, start, strict=True)]
    size = (window.y1 - window.y0, window.x1 - window.x0)
    return np.asarray(
        ndimage.affine_transform(channel, [1 / zoom] * 2, offset, size, order=1, mode="nearest"), np.float32
    )
