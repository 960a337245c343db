"""Classify each cell of a label image by itself, and check label images against their image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import torch

from napari_milcnn.errors import ImageError, LabelsError
from napari_milcnn.images.lazy_array import in_memory
from napari_milcnn.images.open import open_image
from napari_milcnn.images.stack import ImageStack
from napari_milcnn.inference.model_input import ModelInput
from napari_milcnn.inference.predict import Classifier, ImageSource
from napari_milcnn.model.trained_model import TrainedModel
from napari_milcnn.schema import instance_column

_CELLS_AT_ONCE = 64
LARGEST_LABEL = 2**24
"""Largest number in a label image: some arrays need one place for every number up to the largest."""


def classify_cells(
    model: TrainedModel, image: ImageSource | ModelInput, labels: np.ndarray, **options: object
) -> pd.DataFrame:
    """Classify each object of a label image by itself (the paper's single-cell mode, section 3.3).

    The network looks at one receptive field centred on the object, so its class map has a single instance.

    Parameters
    ----------
    model : TrainedModel
        The model to apply.
    image : path, array or ImageStack
        Anything `open_image` takes.
    labels : ndarray of int
        Objects, (planes, Y, X) or, for one plane, (Y, X); 0 is background.
    **options
        Fields of `ComputeOptions`.

    Returns
    -------
    DataFrame
        One row per object: plane, label, y, x (centroid, px), area_px, top class, and p of each class.

    Raises
    ------
    ImageError
        If the image cannot be read or does not have the model's channels.
    OptionsError
        If an option is unknown or has an impossible value.
    LabelsError
        If the label image does not fit the image.
    """
    classifier = Classifier(model, **options)
    model_input = classifier.model_input(image)
    rows = _centroids_and_areas(checked_labels(labels, model_input.image))
    parts = [_cells_of_plane(classifier, model_input, part) for _, part in rows.groupby("plane")]
    p = np.concatenate(parts) if parts else np.empty((0, len(model.classes)), np.float32)  # (objects, classes)
    table = rows.assign(top=pd.Series([model.classes[i] for i in p.argmax(1)], dtype="str"))
    return table.join(pd.DataFrame(p, columns=[instance_column(name) for name in model.classes]))


def checked_labels(labels: np.ndarray, image: ImageStack) -> np.ndarray:
    """Check that a label image fits an image.

    Parameters
    ----------
    labels : ndarray of int
        Label image, (planes, Y, X) or, for one plane, (Y, X).
    image : ImageStack
        The image.

    Returns
    -------
    ndarray
        The labels, int32 (planes, Y, X).

    Raises
    ------
    LabelsError
        If the shape, the type or the numbers do not fit.
    """
    labels = in_memory(labels)
    labels = labels[None] if labels.ndim == 2 else labels
    wanted = (len(image.planes), *image.plane_shape)
    if labels.shape != wanted:
        raise LabelsError(
            f"the labels are {_size_in_words(labels.shape)}, but the image is {_size_in_words(wanted)}; choose "
            "labels that were made from this image"
        )
    if not np.issubdtype(labels.dtype, np.integer):
        raise LabelsError(f"the labels have the type {labels.dtype}; expected whole numbers, 0 for background")
    if labels.min(initial=0) < 0 or labels.max(initial=0) > LARGEST_LABEL:
        raise LabelsError(
            f"the labels have numbers from {labels.min()} to {labels.max()}; expected 0 for background and "
            f"objects from 1 to at most {LARGEST_LABEL}; renumber them, for example with skimage's relabel_sequential"
        )
    return labels.astype(np.int32)


def _size_in_words(shape: tuple[int, ...]) -> str:
    if len(shape) != 3:
        return f"an array of the shape {shape}"
    planes, height, width = shape
    return f"{height} x {width} px" if planes == 1 else f"{planes} planes of {height} x {width} px"


def read_labels_of(path: Path, image: ImageStack) -> np.ndarray:
    """Read the label image of an image.

    A file that does not name its axes has those of the image. From a file with several channels, such as a label image
    that `classify` wrote, the channel `objects` is read.

    Parameters
    ----------
    path : Path
        File of the label image.
    image : ImageStack
        The image.

    Returns
    -------
    ndarray
        The labels, int32 (planes, Y, X).

    Raises
    ------
    ImageError
        If the file cannot be read.
    LabelsError
        If the file is not a label image, or does not fit this image.
    """
    with _open_labels(path, image.axes.replace("C", "")) as labels:
        if len(labels.channels) > 1 and labels.channels[0] != "objects":
            raise LabelsError(f"{path} has {len(labels.channels)} channels; expected a label image with one channel")
        return checked_labels(np.stack([labels.plane(i, (0,))[0] for i in range(len(labels.planes))]), image)


def _open_labels(path: Path, axes: str) -> ImageStack:
    try:
        return open_image(path)
    except ImageError:
        return open_image(path, axes=axes)


def _centroids_and_areas(labels: np.ndarray) -> pd.DataFrame:
    """List the objects of a label image (planes, Y, X): plane, label, y and x of the centroid, area_px."""
    from skimage.measure import regionprops_table

    tables = [
        pd.DataFrame(regionprops_table(plane, properties=("label", "centroid", "area"))).assign(plane=i)
        for i, plane in enumerate(labels)
    ]
    rows = pd.concat(tables, ignore_index=True).rename(
        columns={"centroid-0": "y", "centroid-1": "x", "area": "area_px"}
    )
    return rows[["plane", "label", "y", "x", "area_px"]]


def _cells_of_plane(classifier: Classifier, model_input: ModelInput, rows: pd.DataFrame) -> np.ndarray:
    """Return p of each class for the objects of one plane, float32 (objects, classes)."""
    field = classifier.model.network.placement.receptive_field
    pixels = model_input.read(int(rows["plane"].iloc[0]))  # scaled by the whole plane, not by single cells
    padded = np.pad(pixels, ((0, 0), *[(field // 2, field // 2)] * 2), "reflect")
    scaled = (rows[["y", "x"]].to_numpy() + 0.5) * model_input.zoom - 0.5  # centroids in px of the model
    centres = (scaled + np.asarray(model_input.margin)).round().astype(int)
    corners = np.clip(centres, 0, np.asarray(model_input.shape) - 1)
    parts = []
    for start in range(0, len(corners), _CELLS_AT_ONCE):
        crops = [padded[:, y : y + field, x : x + field] for y, x in corners[start : start + _CELLS_AT_ONCE]]
        parts.append(classifier.inference.instances(np.stack(crops)))  # (objects, classes)
    return torch.from_numpy(np.concatenate(parts)).sigmoid().numpy()
