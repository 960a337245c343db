"""Cells of a label image, each classified by itself; and label images checked against their image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from napari_milcnn.errors import ImageError, LabelsError
from napari_milcnn.images.open import open_image
from napari_milcnn.images.stack import ImageStack
from napari_milcnn.inference.model_input import ModelInput
from napari_milcnn.inference.predict import Classifier
from napari_milcnn.model.trained_model import TrainedModel
from napari_milcnn.schema import instance_column

_CELLS_AT_ONCE = 64
LARGEST_LABEL = 2**24
"""Tables with one place for each number up to the largest are made of a label image."""


def classify_cells(model: TrainedModel, image: Any, labels: np.ndarray, **options: Any) -> pd.DataFrame:
    """Classify each object of a label image by itself (the paper's single-cell mode, section 3.3).

    The network looks at one receptive field centred on the object, which gives it a class map of a single instance.

    Parameters
    ----------
    model : TrainedModel
        What to apply.
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
    LabelsError
        If the label image does not fit the image.
    """
    classifier = Classifier(model, **options)
    seen = classifier.model_input(image)
    rows = _objects(checked_labels(labels, seen.image))
    found = np.concatenate([_cells_of_plane(classifier, seen, plane, part) for plane, part in rows.groupby("plane")]) \
        if len(rows) else np.empty((0, len(model.classes)), np.float32)  # fmt: skip
    table = rows.assign(top=pd.Series([model.classes[i] for i in found.argmax(1)], dtype="str"))
    return table.join(pd.DataFrame(found, columns=[instance_column(name) for name in model.classes]))


def checked_labels(labels: np.ndarray, image: ImageStack) -> np.ndarray:
    """Check a label image against an image -> int32 (planes, Y, X).

    Raises
    ------
    LabelsError
        If its shape or type does not fit.
    """
    labels = np.asarray(labels)
    labels = labels[None] if labels.ndim == 2 else labels
    wanted = (len(image.planes), *image.plane_shape)
    if labels.shape != wanted:
        raise LabelsError(f"the label image is {labels.shape}; expected (planes, Y, X) = {wanted}, as the image has")
    if not np.issubdtype(labels.dtype, np.integer):
        raise LabelsError(f"the label image holds {labels.dtype}; expected whole numbers, 0 for background")
    if labels.min(initial=0) < 0 or labels.max(initial=0) > LARGEST_LABEL:
        raise LabelsError(
            f"the label image holds numbers from {labels.min()} to {labels.max()}; expected 0 for background and "
            f"objects from 1 to at most {LARGEST_LABEL}: renumber them, for example with skimage's relabel_sequential"
        )
    return labels.astype(np.int32)


def read_labels_of(path: Path, image: ImageStack) -> np.ndarray:
    """Read the label image of an image, int32 (planes, Y, X): by its own axes, or by the image's where it has none.

    Of a file with several channels, such as a label image that `classify` wrote, the channel `objects` is read.

    Raises
    ------
    ImageError
        If the file cannot be read.
    LabelsError
        If it is no label image, or not one of this image.
    """
    with _open_labels(path, image.axes.replace("C", "")) as labels:
        if len(labels.channels) > 1 and labels.channels[0] != "objects":
            raise LabelsError(f"{path} has {len(labels.channels)} channels; expected a label image, with one")
        return checked_labels(np.stack([labels.plane(i, (0,))[0] for i in range(len(labels.planes))]), image)


def _open_labels(path: Path, axes: str) -> ImageStack:
    try:
        return open_image(path)
    except ImageError:
        return open_image(path, axes=axes)


def _objects(labels: np.ndarray) -> pd.DataFrame:
    from skimage.measure import regionprops_table

    tables = [
        pd.DataFrame(regionprops_table(plane, properties=("label", "centroid", "area"))).assign(plane=i)
        for i, plane in enumerate(labels)
    ]
    rows = pd.concat(tables, ignore_index=True).rename(
        columns={"centroid-0": "y", "centroid-1": "x", "area": "area_px"}
    )
    return rows[["plane", "label", "y", "x", "area_px"]]


def _cells_of_plane(classifier: Classifier, seen: ModelInput, plane: Any, rows: pd.DataFrame) -> np.ndarray:
    """P of each class for each object of one plane, float32 (objects, classes)."""
    field = classifier.model.network.placement.receptive_field
    around = seen.model.normalise(
        np.pad(seen.read_raw(int(plane)), ((0, 0), *[(field // 2, field // 2)] * 2), "reflect")
    )
    centres = ((rows[["y", "x"]].to_numpy() + 0.5) * seen.zoom - 0.5 + np.asarray(seen.margin)).round().astype(int)
    corners = np.clip(centres, 0, np.asarray(seen.shape) - 1)
    parts = []
    for start in range(0, len(corners), _CELLS_AT_ONCE):
        crops = [around[:, y : y + field, x : x + field] for y, x in corners[start : start + _CELLS_AT_ONCE]]
        parts.append(classifier.runner.instances(np.stack(crops)))  # (objects, classes)
    return torch.from_numpy(np.concatenate(parts)).sigmoid().numpy()
