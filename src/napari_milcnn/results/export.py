"""The results of one image written to a folder, under the names and in the formats of a screen of one image.

Several images go to one folder one after another: the tables keep the rows of the others, and where all were made in
the same way one record names all of them. An image that was made in another way has its own record, run-NAME.json, and
one whose name or file is that of another image there has a folder of its own inside.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from itertools import chain, count
from pathlib import Path
from typing import Any

import pandas as pd

from napari_milcnn.errors import OutputError
from napari_milcnn.figures.overview import shown_plane, shown_planes, write_overview
from napari_milcnn.images.paths import output_names
from napari_milcnn.images.stack import ImageStack
from napari_milcnn.inference.masks import PlaneMasks
from napari_milcnn.inference.model_input import model_input
from napari_milcnn.inference.predict import Prediction
from napari_milcnn.model.trained_model import TrainedModel
from napari_milcnn.options import EXPORTED
from napari_milcnn.results.write import (
    OBJECT_COLUMNS,
    every_plane,
    image_files,
    no_masks,
    object_rows,
    prediction_rows,
    read_table,
    write_beside,
    write_json,
    write_labels,
    write_maps,
)


def export_image(
    out: Path,
    name: str,
    image: ImageStack,
    model: TrainedModel,
    prediction: Prediction,
    masks: Mapping[int, PlaneMasks],
    parts: Collection[str] = EXPORTED,
) -> Iterator[Path]:
    """Write what was found in an image; planes that were not looked at are empty, rows of other images are kept.

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
        every = (masks.get(plane, no_masks(image)) for plane in range(len(image.planes)))
        write_labels(files.labels, image, model.classes, every)
        yield files.labels
    if "maps" in parts:
        write_maps(files.maps, every_plane(prediction, image), image.pixel_size)
        yield files.maps
    if "tables" in parts:
        tables = [one.objects.assign(plane=plane) for plane, one in sorted(masks.items()) if len(one.objects)]
        objects = pd.DataFrame(columns=OBJECT_COLUMNS)
        if tables:
            objects = object_rows(file, pd.concat(tables, ignore_index=True), image.planes)
        yield from _write_tables(out, name, prediction_rows(file, name, prediction), objects)
    if "picture" in parts:
        channels = model_input(model, image).channels
        shown = []
        for row in shown_planes(len(prediction.planes)):
            plane = image.planes.index(prediction.planes[row])
            shown.append(replace(shown_plane(image, channels, plane, masks.get(plane)), index=row))
        write_overview(files.overview, prediction, shown, image.pixel_size)
        yield files.overview


def _write_tables(out: Path, name: str, rows: pd.DataFrame, objects: pd.DataFrame) -> Iterator[Path]:
    """Write the rows of an image in place of those that it had."""
    before = read_table(out / "predictions.csv", "name")
    own = before["name"] == name
    files = {*before["file"][own], *rows["file"]}
    there = read_table(out / "objects.csv", "class")
    write_beside(out / "predictions.csv", before[~own], rows)
    yield out / "predictions.csv"
    write_beside(out / "objects.csv", there[~there["file"].isin(files)], objects)
    yield out / "objects.csv"


def room_for(out: Path, record: Mapping[str, Any]) -> Path:
    """Return the folder where the results of one image, whose record this is, overwrite those of no other.

    Parameters
    ----------
    out : Path
        The folder that was asked for; returned unless the image's name, or its file, is that of another image in it.
    record : mapping
        Of this image alone, as `screen_record` makes it.
    """
    (file,), (name,) = record["files"], record["names"]
    inside = (out / (name if number == 1 else f"{name}_{number}") for number in count(1))
    return next(place for place in chain([out], inside) if not _clashes(place, file, name))


def _clashes(out: Path, file: str | None, name: str) -> bool:
    for path in [*out.glob("run.json"), *out.glob("run-*.json")]:
        record = _read_record(path)
        for other, called in zip(record["files"], record["names"], strict=True):
            if (called == name) != (other == file) and (called == name or file is not None):
                return True
    return False


def write_record(out: Path, record: dict[str, Any]) -> Path:
    """Write the record of one image beside those of others, and return its path.

    It is named in run.json with all images that were made in the same way; where the images there were made in another
    way, or it or one of them is no file, its record is run-NAME.json.
    """
    (name,) = record["names"]
    shared, own = out / "run.json", out / f"run-{name}.json"
    there = _read_record(shared) if shared.exists() else None
    others = None if there is None else _without(there, name)
    if others is None or not others["files"]:
        write_json(shared, record)
    elif _agree(others, record):
        write_json(shared, others | {key: [*others[key], *record[key]] for key in _LISTS})
    else:
        if others != there:
            write_json(shared, others)
        write_json(own, record)
        return own
    own.unlink(missing_ok=True)
    return shared


_LISTS = ("files", "names", "planes")
"""What a record says image by image."""
_SAME = ("format", "model", "options", "versions")
"""What images have in common that one record names."""


def _read_record(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        files = found["files"]
        names = found.get("names") or output_names([Path(file or "image") for file in files])
        record = {**found, "names": names, "planes": found.get("planes") or [None] * len(files)}
        if not len(files) == len(record["names"]) == len(record["planes"]):
            raise ValueError("it does not say the same of each image")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise OutputError(
            f"{path} is no record of a classification ({type(error).__name__}: {error}); choose another folder"
        ) from error
    return record


def _without(record: dict[str, Any], name: str) -> dict[str, Any]:
    """Return a record without one of its images."""
    kept = [i for i, called in enumerate(record["names"]) if called != name]
    gone = {file for file, called in zip(record["files"], record["names"], strict=True) if called == name}
    summaries = {"images": [one for one in record["images"] if one["file"] not in gone]} if "images" in record else {}
    return record | summaries | {key: [record[key][i] for i in kept] for key in _LISTS}


def _agree(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether images were made in the same way, from files, so that one record can name them all."""
    plain = json.loads(json.dumps(other, default=str))
    return None not in [*one["files"], *other["files"]] and all(one[key] == plain[key] for key in _SAME)
