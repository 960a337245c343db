"""The results of one image written to a folder, under the names and in the formats of a screen of one image."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from napari_milcnn.core.classify import Prediction
from napari_milcnn.core.images import ImageStack
from napari_milcnn.core.masks import COLUMNS, PlaneMasks
from napari_milcnn.core.model import TrainedModel
from napari_milcnn.core.options import EXPORTED
from napari_milcnn.core.overview import shown_plane, shown_planes, write_overview
from napari_milcnn.core.results import (
    image_files,
    object_rows,
    prediction_rows,
    write_labels,
    write_maps,
    write_table,
)
from napari_milcnn.core.view import view


def export_image(
    out: Path,
    name: str,
    image: ImageStack,
    model: TrainedModel,
    prediction: Prediction,
    masks: Mapping[int, PlaneMasks],
    parts: Collection[str] = EXPORTED,
) -> Iterator[Path]:
    """Write what was found in an image; planes that were not looked at are empty.

    Parameters
    ----------
    out : Path
        Folder.
    name : str
        What the files are called.
    image, model, prediction
        What was looked at, by what, and what it said.
    masks : mapping
        Number of a plane -> its masks.
    parts : collection of str
        Out of `EXPORTED`.

    Yields
    ------
    Path
        Each file that was written.
    """
    files = image_files(out, name, True)
    file = str(image.path or image.name)
    if "masks" in parts and files.labels is not None:
        every = (masks.get(plane, _nothing(image, plane)) for plane in range(len(image.planes)))
        write_labels(files.labels, image, model.classes, every)
        yield files.labels
    if "maps" in parts:
        write_maps(files.maps, _every_plane(prediction, image), image.pixel_size)
        yield files.maps
    if "tables" in parts:
        write_table(out / "predictions.csv", prediction_rows(file, name, prediction))
        yield out / "predictions.csv"
        tables = [one.objects.assign(plane=plane) for plane, one in sorted(masks.items()) if len(one.objects)]
        if tables:
            objects = pd.concat(tables, ignore_index=True)
            write_table(out / "objects.csv", object_rows(file, objects, image.planes))
            yield out / "objects.csv"
    if "picture" in parts:
        channels = view(model, image).channels
        shown = []
        for row in shown_planes(len(prediction.planes)):
            plane = image.planes.index(prediction.planes[row])
            shown.append(replace(shown_plane(image, channels, plane, masks.get(plane)), index=row))
        write_overview(files.overview, prediction, shown, image.pixel_size)
        yield files.overview


def _nothing(image: ImageStack, plane: int) -> PlaneMasks:
    return PlaneMasks(np.zeros(image.plane_shape, np.int32), pd.DataFrame(columns=[*COLUMNS]).assign(plane=plane), {})


def _every_plane(prediction: Prediction, image: ImageStack) -> Prediction:
    """Spread class maps over all planes of the image, NaN where there are none."""
    maps = np.full((len(image.planes), *prediction.class_maps.shape[1:]), np.nan, np.float32)
    maps[[image.planes.index(plane) for plane in prediction.planes]] = prediction.class_maps
    return replace(prediction, class_maps=maps, planes=image.planes)
