"""Open a screen: a folder tree, a table, OME-Zarr plates or an OME-TIFF with one series a field, and its layout."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Final

import pandas as pd

from napari_milcnn.delimited import TABLE_SUFFIXES
from napari_milcnn.errors import ImageError
from napari_milcnn.images.instruments import parse_well
from napari_milcnn.images.open import AS_THEY_SAY, ImageReading, existing_path
from napari_milcnn.images.paths import as_on_disk, files_of, is_plain_folder, is_zarr, is_zipped_zarr
from napari_milcnn.results.layout import PARQUET_SUFFIXES
from napari_milcnn.screens.sources.containers import fields_in_plate, fields_in_series
from napari_milcnn.screens.sources.fields import MISSING_ROW, FoundFields, Screen, missing_sites, table_of_fields
from napari_milcnn.screens.sources.folders import EXAMPLE, fields_in_folder, fields_in_table
from napari_milcnn.screens.sources.layout import with_known_columns, with_layout_of_wells

_SITE_AND_TIME: Final = ["plate", "well", "site", "t"]


def open_screen(
    source: str | os.PathLike[str], *, layout: str | os.PathLike[str] | None = None, reading: ImageReading = AS_THEY_SAY
) -> Screen:
    """Find the images of a screen without opening them.

    Parameters
    ----------
    source : path
        A folder with image files, in folders or not, or with OME-Zarr plates; a table (CSV or Parquet) with a row for
        each field; an OME-Zarr plate; or an OME-TIFF in which each series is a field.
    layout : path, optional
        A table with a row for each well: well, plate (where it differs between plates), treatment, dose, strain,
        control (negative, positive, empty), label, and whatever else; or, where the table of images says what each well
        was given, a table with a row for each treatment, and dose.
    reading : ImageReading
        How the files are opened; its pattern says the form of their names.

    Raises
    ------
    ImageError
        If there is no such source, it holds no image, or no name says a well.
    LabelsError
        If a table cannot be used.
    OptionsError
        If the pattern is not understood.
    """
    path = existing_path(source).absolute()  # workers run in folders of their own
    found = _found(path, reading)
    if found.channels and reading.channels is None:
        reading = replace(reading, channels=found.channels)
    fields = with_known_columns(table_of_fields(str(path), found.rows), path)
    missing = [*found.missing, *missing_sites(fields)]
    notes = [*found.notes, *_on_wells(fields), *_on_sites(found, fields), *_on_projections(fields)]
    if layout is not None:
        fields, more, said = with_layout_of_wells(fields, as_on_disk(Path(layout)))
        missing, notes = missing + more, notes + said
    return Screen(str(path), fields, pd.DataFrame(missing, columns=list(MISSING_ROW)), reading, tuple(notes))


def _on_wells(fields: pd.DataFrame) -> list[str]:
    """Say how the first name was read, where no well looks like one: a pattern may fit names by chance."""
    if fields["well"].map(parse_well).notna().any():
        return []
    first = fields.iloc[0]
    parts = ", ".join(f"{name} {first[name]!r}" for name in ("plate", "well", "site"))
    return [f"no well is named such as B03: of {first['file']} were read {parts}; if that is wrong, correct "
            "the pattern"]  # fmt: skip


def _on_sites(found: FoundFields, fields: pd.DataFrame) -> list[str]:
    """Say that files of a well were numbered, since their names do not tell them apart: they may be its channels."""
    without = (str(row["file"]) for row in found.rows if not row.get("site"))
    first = next((file for file in without if len(files_of(Path(file))) == 1), None)
    if first is None or not fields.loc[fields["file"] == first, "site"].ne("").any():
        return []
    return [f"the names say no site, such as {Path(first).name}, so the images of each well are numbered; if they are "
            f"its channels, say so by the option pattern, such as {EXAMPLE}"]  # fmt: skip


def _on_projections(fields: pd.DataFrame) -> list[str]:
    """Say that a site has an image without a Z number beside its planes: it may be their projection."""
    planes = fields[fields["z"] != ""].set_index(_SITE_AND_TIME).index
    beside = fields[(fields["z"] == "") & fields.set_index(_SITE_AND_TIME).index.isin(planes)]
    if beside.empty:
        return []
    sites = "1 site has" if len(beside) == 1 else f"{len(beside)} sites have"
    return [f"{sites} planes of a Z stack and an image without a Z number, such as "
            f"{Path(beside['file'].iloc[0]).name}, and all are fields; if it is the projection of the planes, put one "
            "of the two into another folder"]  # fmt: skip


def _found(path: Path, reading: ImageReading) -> FoundFields:
    if path.is_file():
        return _in_file(path)
    if not path.is_dir():
        raise ImageError(f"{path} is a pipe or a device; expected the images of a screen")
    if is_plain_folder(path):
        plates = sorted(child for child in path.iterdir() if is_zarr(child))
        parts = [found for plate in plates if (found := fields_in_plate(plate)) is not None]
        if parts and len(parts) == len(plates):
            return _together(parts)
        series = _files_of_series(path)
        return _together(series) if series else fields_in_folder(path, reading.pattern)
    found = fields_in_plate(path)
    if found is None:
        raise ImageError(f"{path} is a single image or a group of images, no plate; expected an OME-Zarr plate, a "
                         "folder of images, or a table of them")  # fmt: skip
    return found


def _in_file(path: Path) -> FoundFields:
    if path.suffix.lower() in (*TABLE_SUFFIXES, *PARQUET_SUFFIXES):
        return fields_in_table(path)
    found = fields_in_plate(path) if is_zipped_zarr(path) else fields_in_series(path)
    if found is None:
        raise ImageError(f"{path} is neither a table nor an OME-TIFF of several fields; expected a folder of images "
                         f"with names such as {EXAMPLE}, a table of them, or an OME-Zarr plate")  # fmt: skip
    return found


def _files_of_series(folder: Path) -> list[FoundFields]:
    """Return the fields of a folder in which every file is an OME-TIFF that describes the wells of a plate."""
    files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    if not files or not all(path.name.lower().endswith((".ome.tif", ".ome.tiff", ".ome.btf")) for path in files):
        return []
    try:
        first = fields_in_series(files[0])
    except ImageError:  # said where the file is opened, if its name says its well
        return []
    if first is None or len(first.rows) < 2:
        return []
    return [first, *(found for file in files[1:] if (found := fields_in_series(file)) is not None)]


def _together(parts: list[FoundFields]) -> FoundFields:
    every = FoundFields()
    for part in parts:
        every.rows += part.rows
        every.missing += part.missing
        every.notes += part.notes
    return every
