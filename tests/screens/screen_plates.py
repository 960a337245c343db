"""A small plate in every form that a screen can have."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import zarr

from conftest import noise

WELLS = ("A01", "A02", "B01", "B02")
SITES = 2
CHANNELS = ("GFP", "RFP")
LAYOUT = {"A01": ("", "", "negative"), "A02": ("drug", "0.5", ""), "B01": ("drug", "2", ""), "B02": ("", "", "empty")}


def plate_pixels(side: int = 90) -> dict[tuple[str, int], np.ndarray]:
    """Draw the fields of a plate: (well, site) -> uint16 (channels, Y, X)."""
    places = [(well, site) for well in WELLS for site in range(1, SITES + 1)]
    return {place: noise(2, side, side, seed=i) + 40 * (i // 2) for i, place in enumerate(places)}


def write_layout(path: Path) -> Path:
    """Write the layout of the plate."""
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["Well", "Compound", "Concentration", "control"])
        rows.writerows([well, *facts] for well, facts in LAYOUT.items())
    return path


def write_named(folder: Path, pixels: Mapping[tuple[str, int], np.ndarray], form: str) -> Path:
    """Write a file for each channel, named by a form such as {plate}_{well}_s{site}_w{channel}.tif."""
    for (well, site), field in pixels.items():
        row, column = ord(well[0]) - 64, int(well[1:])
        for channel, plane in enumerate(field, start=1):
            name = form.format(well=well, site=site, channel=channel, row=row, column=column, letter=well[0])
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            tifffile.imwrite(folder / name, plane)
    return folder


def write_zarr_plate(path: Path, pixels: Mapping[tuple[str, int], np.ndarray], version: str) -> Path:
    """Write an OME-Zarr plate of version 0.4, 0.5 or 0.6; names of fields are the sites."""
    zarr_format: Any = 2 if version == "0.4" else 3

    def describe(inside: str, ome: dict[str, Any]) -> None:
        group = zarr.open_group(path / inside, mode="a", zarr_format=zarr_format)
        group.attrs.update(ome if version == "0.4" else {"ome": {"version": version, **ome}})

    wells = sorted({well for well, _ in pixels})
    paths = {well: f"{well[0]}/{well[1:]}" for well in wells}
    listed = [{"path": paths[well], "rowIndex": ord(well[0]) - 65, "columnIndex": int(well[1:]) - 1} for well in wells]
    plate = {"wells": listed, "rows": [{"name": name} for name in sorted({well[0] for well in wells})],
             "columns": [{"name": name} for name in sorted({well[1:] for well in wells})]}  # fmt: skip
    describe("", {"plate": plate | ({"version": "0.4"} if version == "0.4" else {})})
    for well in wells:
        sites = [site for name, site in pixels if name == well]
        describe(paths[well], {"well": {"images": [{"path": str(site)} for site in sites]}})
        for site in sites:
            inside = f"{paths[well]}/{site}"
            describe(inside, {"multiscales": [_multiscale(version)],
                              "omero": {"channels": [{"label": name} for name in CHANNELS]}})  # fmt: skip
            zarr.create_array(path / inside / "0", data=pixels[well, site], zarr_format=zarr_format)
    return path


def _multiscale(version: str) -> dict[str, Any]:
    axes = [{"name": "c", "type": "channel"}, *({"name": name, "type": "space"} for name in "yx")]
    if version != "0.6":
        return {"axes": axes, "datasets": [{"path": "0", "coordinateTransformations": [
            {"type": "scale", "scale": [1.0, 1.0, 1.0]}]}]}  # fmt: skip
    step = {"type": "scale", "scale": [1.0, 1.0, 1.0], "input": "0", "output": "physical"}
    return {"coordinateSystems": [{"name": "physical", "axes": axes}],
            "datasets": [{"path": "0", "coordinateTransformations": [step]}]}  # fmt: skip


def write_series(path: Path, pixels: Mapping[tuple[str, int], np.ndarray]) -> Path:
    """Write an OME-TIFF with one series a field, whose names say well and site."""
    with tifffile.TiffWriter(path, ome=True) as tif:
        for (well, site), field in pixels.items():
            facts = {"axes": "CYX", "Name": f"{well}_s{site}", "Channel": {"Name": list(CHANNELS)}}
            tif.write(field, photometric="minisblack", metadata=facts)
    return path


def write_image_table(path: Path, folder: Path, form: str) -> Path:
    """Write a table of images as CellProfiler, and so BBBC021, does, of files that `write_named` wrote."""
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        header = [f"Image_{what}_{name}" for name in CHANNELS for what in ("FileName", "PathName")]
        rows.writerow([*header, "Image_Metadata_Plate_GFP", "Image_Metadata_Well_GFP", "Site", "Replicate"])
        for well in WELLS:
            for site in range(1, SITES + 1):
                files = [form.format(well=well, site=site, channel=channel) for channel in (1, 2)]
                cells = [cell for name in files for cell in (name, str(folder.relative_to(path.parent)))]
                rows.writerow([*cells, "plate", well, site, 1])
    return path
