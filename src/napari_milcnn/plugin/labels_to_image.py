"""Reads a labels layer as the label image of an image: pixel by pixel where both lie in one place, else resampled.

Decisions:

- The place of a layer in napari's world, with its scale, translation, rotation, shear, affine and units, says which of
  its pixels lies on which pixel of the image.
- Labels of other pixels, or of a part of the image, are resampled to its pixels; a sentence says so, and how much of
  the image they cover. Labels of equal pixels and shape that lie elsewhere are those of another image, and are refused.
- Many plugins drop the place of what they make, and napari opens TIFFs without one. Where the image or the labels have
  no place of their own, and the other one has only a scale, labels of the image's shape are read pixel by pixel, and a
  sentence says so. Those of another shape are resampled only if both cover the same part of the world.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from napari_milcnn.errors import LabelsError
from napari_milcnn.images.lazy_array import in_memory
from napari_milcnn.images.stack import ImageStack
from napari_milcnn.images.units import micrometres_per
from napari_milcnn.plugin.layers_to_image import LayerImage

_QUARTER = 0.25
"""Distance, in px of the image, up to which two places are the same."""


@dataclass(frozen=True, eq=False)
class LabelsOnImage:
    """A labels layer on an image; made in the window's thread, and read in another.

    Attributes
    ----------
    name : str
        The name of the layer.
    image : LayerImage
        The layers of the image.
    data : array
        The pixels of the labels layer at full resolution.
    matrix : ndarray or None
        Where a pixel of the image lies in the labels: (y, x) = matrix[:, :2] @ (y, x) + matrix[:, 2]; None where the
        pixels of both are the same.
    warnings : tuple of str
        Sentences about the place of the labels.
    refusal : str
        Why the labels cannot be those of the image; empty if they can.
    """

    name: str
    image: LayerImage
    data: Any
    matrix: np.ndarray | None = None
    warnings: tuple[str, ...] = ()
    refusal: str = ""

    def read(self, image: ImageStack) -> Any:
        """Return the `LabelImage` of the image; other threads may call this.

        Raises
        ------
        LabelsError
            If the labels lie elsewhere, or are no label image of the image.
        """
        from napari_milcnn.inference.cells import as_label_image

        try:
            if self.refusal:
                raise LabelsError(self.refusal)
            planes = self.image.to_planes(in_memory(self.data))
            notes = self.warnings
            if self.matrix is not None:
                planes, covered = _resampled(planes, self.matrix, image.plane_shape)
                notes = (*notes, *self._covered_in_words(covered))
            found = as_label_image(planes, image)
        except LabelsError as error:
            raise LabelsError(f"the layer {self.name} cannot be the cells of {image.name}: {error}") from error
        return replace(found, warnings=(*notes, *found.warnings))

    def _covered_in_words(self, covered: float) -> tuple[str, ...]:
        if covered == 0:
            raise LabelsError("it does not overlap with the image; choose the labels of this image, or move the layer")
        part = "" if covered > 0.995 else f"; it covers {covered:.0%} of the image, and the rest has no cells"
        return (f"the layer {self.name} has other pixels than the image and was resampled to them{part}",)


def labels_on(image: LayerImage, layer: Any) -> LabelsOnImage:
    """Find out where a labels layer lies on an image."""
    found = LabelsOnImage(str(layer.name), image, layer.data[0] if layer.multiscale else layer.data)
    own = [image.axes.index(axis) for axis in "YX"]
    other = own if layer.ndim == len(image.axes) else [layer.ndim - 2, layer.ndim - 1]
    here, there = _plane_matrix(image.layer, own), _plane_matrix(layer, other)
    relative = np.linalg.solve(np.vstack([there, [0, 0, 1]]), np.vstack([here, [0, 0, 1]]))[:2]
    shape, wanted = tuple(int(found.data.shape[axis]) for axis in other), image.image.plane_shape
    same_pixels = np.allclose(relative[:, :2], np.eye(2), atol=_QUARTER / max(*wanted))
    if same_pixels and np.abs(relative[:, 2]).max() <= _QUARTER and shape == wanted:
        return replace(found, refusal=_along_others(image, layer))
    placeless = [np.allclose(matrix, np.eye(2, 3)) for matrix in (here, there)]
    if shape == wanted and any(placeless) and _is_scale(here) and _is_scale(there):
        name = f"the layer {layer.name}" if placeless[1] else "the image"
        note = f"{name} has no place of its own (scale 1); the layer {layer.name} was read pixel by pixel"
        return replace(found, warnings=(note,), refusal=_along_others(image, layer))
    if shape == wanted and (any(placeless) or same_pixels):
        return replace(found, refusal=(
            f"it ({place_in_words(layer)}) lies elsewhere than the image ({place_in_words(image.place)}); choose the "
            "labels of this image, or give the layer the same place"
        ))  # fmt: skip
    if any(placeless) and not _same_extent(relative, wanted, shape):
        return found  # refused for its shape: there is no place by which to resample it
    return replace(found, matrix=relative, refusal=_along_others(image, layer))


def _is_scale(matrix: np.ndarray) -> bool:
    """Whether a layer begins at the origin of the world and is neither rotated nor sheared."""
    return bool(np.allclose(matrix[:, 2], 0) and np.allclose(matrix[:, :2], np.diag(np.diag(matrix))))


def _same_extent(relative: np.ndarray, image: tuple[int, ...], labels: tuple[int, ...]) -> bool:
    """Whether both planes (Y, X) cover the same part of the world, to a pixel of the labels."""
    first, last = (relative[:, :2] @ np.array(corner) + relative[:, 2]
                   for corner in ((-0.5, -0.5), np.array(image) - 0.5))  # fmt: skip
    return bool(np.allclose(first, -0.5, atol=1) and np.allclose(last, np.array(labels) - 0.5, atol=1))


def place_in_words(layer: Any) -> str:
    """Say where a layer lies along its last two axes, for messages."""
    numbers = ((f"{value:.4g}" for value in values[-2:]) for values in (layer.scale, layer.translate))
    scale, translate = (", ".join(pair) for pair in numbers)
    turned = "; rotated" if not np.allclose(layer.rotate, np.eye(len(layer.rotate))) else ""
    return f"scale {scale}; translate {translate}{turned}"


def _plane_matrix(layer: Any, axes: Sequence[int]) -> np.ndarray:
    """Return where the pixels (y, x) of a layer lie in the world, in µm where its units are lengths: (2, 3)."""
    factors = [micrometres_per(str(layer.units[axis])) or 1.0 for axis in axes]
    points = [_world(layer, axes, corner) for corner in ((0, 0), (1, 0), (0, 1))]
    origin, down, right = (np.array([point[axis] for axis in axes]) * factors for point in points)
    return np.stack([down - origin, right - origin, origin], 1)


def _world(layer: Any, axes: Sequence[int], place: Sequence[int]) -> np.ndarray:
    """Return where a pixel of a layer lies in the world; it is the first one along all other axes."""
    inside = np.zeros(layer.ndim)
    inside[list(axes)] = place
    return np.asarray(layer.data_to_world(inside), float)


def _along_others(image: LayerImage, layer: Any) -> str:
    """Say in what the layers differ along P, T and Z; empty where they agree or the labels have no such axis."""
    if layer.ndim != len(image.axes):
        return ""
    for at, axis in enumerate(image.axes):
        if axis not in "PTZ" or axis not in image.image.axes:
            continue
        last = image.place.shape[at] - 1
        here, there = ([_world(one, [at], [n])[at] for n in (0, max(last, 1))] for one in (image.layer, layer))
        if not np.allclose(here, there, rtol=0, atol=abs(here[1] - here[0]) / max(last, 1) / 4):
            return (
                f"it lies elsewhere along {axis} (from {there[0]:.4g} to {there[1]:.4g}) than the image (from "
                f"{here[0]:.4g} to {here[1]:.4g}); choose the labels of this image, or give the layer the same place"
            )
    return ""


def _resampled(labels: np.ndarray, matrix: np.ndarray, shape: tuple[int, int]) -> tuple[np.ndarray, float]:
    """Take the nearest label at each pixel of an image, 0 outside; and the share of the image that the labels cover.

    Parameters
    ----------
    labels : ndarray
        (planes, Y, X) or (Y, X).
    matrix : ndarray
        Where a pixel of the image lies in the labels.
    shape : tuple of int
        (Y, X) of the image.
    """
    planes = labels[np.newaxis] if labels.ndim == 2 else labels
    rows, columns = (  # (Y, X) each: where a pixel of the image lies in the labels
        np.rint(axis[0] * np.arange(shape[0])[:, np.newaxis] + axis[1] * np.arange(shape[1]) + axis[2]).astype(int)
        for axis in matrix
    )
    height, width = planes.shape[-2:]
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    taken = planes[:, rows.clip(0, height - 1), columns.clip(0, width - 1)]
    return np.where(inside, taken, 0), float(inside.mean())
