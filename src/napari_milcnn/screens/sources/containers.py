"""Files that hold many fields: OME-Zarr plates, and OME-TIFFs with one series a field."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final
from xml.etree import ElementTree

from napari_milcnn.errors import ImageError
from napari_milcnn.images.instruments import places_of, well_name, well_of_place
from napari_milcnn.images.ome_zarr import well_fields, well_paths
from napari_milcnn.images.paths import TIFF_SUFFIXES, image_name
from napari_milcnn.images.stack import translated
from napari_milcnn.screens.sources.fields import FoundFields
from napari_milcnn.untrusted import short

_WELL: Final = "{*}"
"""Any version of the OME schema."""


def fields_in_plate(plate: Path) -> FoundFields | None:
    """List the fields of an OME-Zarr plate; None where it is none. Wells that cannot be read are missing.

    Raises
    ------
    ImageError
        If the plate cannot be read, or none of its wells can.
    """
    wells = well_paths(plate)
    if wells is None:
        return None
    found, name = FoundFields(), image_name(plate)
    for path in wells:
        place = {"plate": name, "well": well_name(path)}
        try:
            fields = well_fields(plate / path)
        except ImageError as error:
            found.missing.append({**place, "site": "", "reason": str(error)})
            continue
        found.rows += [{**place, "site": field.name, "file": str(field)} for field in fields]
    if not found.rows:
        raise ImageError(f"{plate} is an OME-Zarr plate of {len(wells)} wells, and none of them can be read"
                         f"{': ' + found.missing[0]['reason'] if found.missing else ''}")  # fmt: skip
    return found


def fields_in_series(path: Path) -> FoundFields | None:
    """List the series of an OME-TIFF as fields; None for another file.

    Wells and sites are those of the plate that the OME metadata describes; else they are looked for in the names of the
    series.

    Raises
    ------
    ImageError
        If the file cannot be read, or neither its metadata nor the names of its series say the wells.
    """
    from tifffile import TiffFile

    if not path.name.lower().endswith(TIFF_SUFFIXES):
        return None
    with translated(f"{path} cannot be opened as an image", "copy or export it again"), TiffFile(path) as tif:
        if not tif.is_ome or tif.ome_metadata is None:
            return None
        names, document = [series.name for series in tif.series], tif.ome_metadata
    rows: list[dict[str, object]] = _described_fields(path, document, len(names)) or _named_fields(path, names)
    plate = image_name(path)
    left = len(names) - len(rows)
    notes = [f"{left} of the {len(names)} images in {path} belong to no well and are left out"] if left > 0 else []
    return FoundFields([{"plate": plate, **row, "file": str(path)} for row in rows], notes=notes)


def _described_fields(path: Path, document: str, count: int) -> list[dict[str, object]]:
    """Return plate, well, site and series of the fields that OME metadata describes.

    Raises
    ------
    ImageError
        If it states a well that no plate has.
    """
    try:
        root = ElementTree.fromstring(document)
    except ElementTree.ParseError:
        return []
    series = {image.get("ID"): number for number, image in enumerate(root.findall(f"{_WELL}Image"))}
    rows: list[dict[str, object]] = []
    for plate in root.findall(f"{_WELL}Plate"):
        name = {"plate": plate.get("Name")} if plate.get("Name") else {}
        for well in plate.findall(f"{_WELL}Well"):
            place = well_of_place(well.get("Row", 0), well.get("Column", 0))
            if place is None:
                at = f"row {short(well.get('Row', ''), 20)!r} and column {short(well.get('Column', ''), 20)!r}"
                raise ImageError(f"{path}: its metadata has a well in {at}, which no plate has; give a table with the "
                                 "columns file, series, plate, well and site")  # fmt: skip
            for number, sample in enumerate(well.findall(f"{_WELL}WellSample")):
                image = sample.find(f"{_WELL}ImageRef")
                found = None if image is None else series.get(image.get("ID"))
                if found is not None and found < count:
                    rows.append({**name, "well": place.name, "site": str(number), "series": str(found)})
    return rows


def _named_fields(path: Path, names: Sequence[str]) -> list[dict[str, object]]:
    places = places_of([Path(re.sub(r"[/\\]", "-", name)) for name in names])
    if len(names) == 1:
        places = places_of([path])
    without = [name for name, place in zip(names, places, strict=True) if not place.well]
    if without:
        raise ImageError(
            f"{path} holds {len(names)} images, and neither its metadata nor the name {without[0]!r} says a well; give "
            "a table with the columns file, series, plate, well and site"
        )
    one = len(names) == 1
    return [{"well": place.well, "site": place.site, "series": "" if one else str(number)}
            for number, place in enumerate(places)]  # fmt: skip
