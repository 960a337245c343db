"""Folders of image files, and tables that list them.

The plate of a file is what the pattern says; else the folders between the source and the file, without those that every
plate has, such as Images or TimePoint_1, and without that of the well; else what stands before the well in the name, if
one folder holds files of several such names; else the name of the source.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path, PureWindowsPath
from typing import Final

import pandas as pd

from napari_milcnn.errors import ImageError, LabelsError, OptionsError
from napari_milcnn.images.instruments import OFF, FieldPlace, fits_pattern, parse_well, places_of
from napari_milcnn.images.paths import (
    FILE_OF,
    IMAGE_SUFFIXES,
    as_on_disk,
    files_of,
    image_name,
    images_below,
    joined_fields,
    joined_path,
)
from napari_milcnn.screens.sources.fields import FoundFields
from napari_milcnn.screens.sources.layout import read_table, with_known_columns
from napari_milcnn.untrusted import short

_OF_EVERY_PLATE: Final = re.compile(
    r"(?i)images?|data|raw|tiffs?|time[ _-]?point[ _-]?\d+|zstep[ _-]?\d+|measurement[ _-]?\d+|projections?"
)
"""Names of folders that lie in the folder of every plate."""
_CELLPROFILER: Final = re.compile(r"(?i)(?:image_)?(?P<what>filename|pathname|metadata)_(?P<name>.+)")
"""Columns as CellProfiler, and so the published tables of BBBC021, name them."""
EXAMPLE: Final = "{plate}/{well}_{site}_w{channel}.tif"


def fields_in_folder(folder: Path, pattern: str | None) -> FoundFields:
    """Find the fields in a folder and in all folders in it.

    Raises
    ------
    ImageError
        If there is no image, or no name says a well.
    OptionsError
        If the pattern is not understood, or no file has its form.
    """
    paths, notes = images_below(folder)
    if not paths:
        raise ImageError(f"the folder {folder} holds no image; expected OME-Zarr folders, or files that end in one of "
                         f"{', '.join(IMAGE_SUFFIXES)}")  # fmt: skip
    if pattern in (None, OFF) or "{channel}" in str(pattern):
        images, said = joined_fields(paths, pattern)
    else:
        images = [path for path in paths if fits_pattern(path, str(pattern))]
        said = [] if len(images) == len(paths) else [
            f"files whose names are not of the form {pattern!r} are left out ({len(paths) - len(images)})"
        ]  # fmt: skip
        if not images:
            raise OptionsError(f"no file has a name of the form {pattern!r}; the first is "
                               f"{paths[0].relative_to(folder)}; correct the option pattern")  # fmt: skip
    places = places_of([files_of(image)[0] for image in images], pattern)
    _check_wells(folder, images, places, pattern)
    plates = _plates(folder, images, places)
    rows: list[dict[str, object]] = [
        {**place._asdict(), "plate": plate, "file": str(image)}
        for image, place, plate in zip(images, places, plates, strict=True)
    ]
    return FoundFields(rows, notes=[*notes[:3], *said])


def _check_wells(folder: Path, images: Sequence[Path], places: Sequence[FieldPlace], pattern: str | None) -> None:
    without = [image for image, place in zip(images, places, strict=True) if not place.well]
    if without:
        where = f"of {len(images)} images in {folder}, {len(without)} have" if len(without) < len(images) else (
            f"the {len(images)} images in {folder} have")  # fmt: skip
        raise ImageError(
            f"{where} no well in their names that is understood, such as {without[0].relative_to(folder)}; give the "
            f"form of the names by the option pattern, such as {EXAMPLE}"
            f"{f' (it is {pattern})' if pattern else ''}, or a table with the columns file, plate, well and site"
        )


def _plates(folder: Path, images: Sequence[Path], places: Sequence[FieldPlace]) -> list[str]:
    prefixes: dict[Path, set[str]] = defaultdict(set)
    homes = [files_of(image)[0].parent for image in images]
    for home, place in zip(homes, places, strict=True):
        prefixes[home].add(place.plate)
    return [_plate(folder, home, place, len(prefixes[home]) > 1) for home, place in zip(homes, places, strict=True)]


def _plate(folder: Path, home: Path, place: FieldPlace, several: bool) -> str:
    if place.plate and several:
        return place.plate
    inside = [part for part in home.relative_to(folder).parts if not _OF_EVERY_PLATE.fullmatch(part)]
    kept = [part for part in inside if (well := parse_well(part)) is None or well.name != place.well]
    return "/".join(kept) or image_name(folder)


def fields_in_table(path: Path) -> FoundFields:
    """Read the fields that a table lists: file (or a column for each channel), plate, well, site, and others.

    Columns of CellProfiler are known, too: Image_FileName_DAPI, Image_PathName_DAPI, Image_Metadata_Plate_DAPI.

    Raises
    ------
    LabelsError
        If the table cannot be read, has no file or no well, or names files with a drive, such as C:, that is not here.
    """
    table = with_known_columns(_plain_columns(read_table(path)), path)
    table = table[[name for name in table if table[name].astype(str).ne("").any()]]
    channels = [str(name) for name in table if str(name).lower().startswith(FILE_OF)]
    if not channels and "file" not in table:
        raise LabelsError(f"{path} has the columns {short(', '.join(map(str, table)))}; expected file, or a file for "
                          "each channel such as 'file DAPI' or Image_FileName_DAPI")  # fmt: skip
    if "well" not in table:
        raise LabelsError(f"{path} has the columns {short(', '.join(map(str, table)))}; expected well, such as B03")
    others = [str(name) for name in table if name not in channels]
    rows: list[dict[str, object]] = []
    for number, row in enumerate(table.to_dict("records")):
        names = [str(row[name]) for name in channels or ["file"]]
        if not all(names) or not row["well"]:
            raise LabelsError(f"{path}: row {number + 1} has an empty file or well; fill it, or remove the row")
        foreign = next(
            (name for name in names if PureWindowsPath(name).drive and not (path.parent / name).exists()), ""
        )
        if foreign and os.name != "nt":
            raise LabelsError(f"{path}: row {number + 1} names {short(foreign)}, a file of another computer; expected "
                              "names relative to the table")  # fmt: skip
        files = [_file_of_table(path, name) for name in names]
        rows.append({"plate": path.stem, **{name: row[name] for name in others}, "file": str(joined_path(files))})
    return FoundFields(rows, channels=tuple(name[len(FILE_OF) :].strip() for name in channels))


def _file_of_table(table: Path, name: str) -> Path:
    return as_on_disk(table.parent / (name if PureWindowsPath(name).drive else name.replace("\\", "/")))


def _plain_columns(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table of CellProfiler with a column "file DAPI" for each channel and Metadata columns by their names."""
    found = {name: match for name in table if (match := _CELLPROFILER.fullmatch(str(name)))}
    files = {match["name"]: name for name, match in found.items() if match["what"].lower() == "filename"}
    folders = {match["name"]: name for name, match in found.items() if match["what"].lower() == "pathname"}
    facts: dict[str, str] = {}
    for name, match in found.items():
        if match["what"].lower() == "metadata":
            ends = [end for end in files if match["name"].endswith(f"_{end}")]
            facts.setdefault(match["name"].removesuffix(f"_{ends[0]}") if ends else match["name"], str(name))
    plain = table.drop(columns=list(found))
    for channel, name in files.items():
        folder = table[folders[channel]] + "/" if channel in folders else ""
        plain[f"{FILE_OF}{channel}"] = folder + table[name]
    for fact, name in facts.items():
        plain[fact] = table[name]
    return plain
