"""Files of a simulated plate: one TIFF per channel with the names of ImageXpress, or an OME-Zarr plate."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from napari_milcnn.atomic_write import replacing
from napari_milcnn.images.instruments import Well
from napari_milcnn.simulation.cell import CHANNELS
from napari_milcnn.simulation.options import PlateForm


@dataclass(frozen=True, eq=False)
class SimulatedSite:
    """One field of a well: its pixels (C, Y, X), and the side of a pixel in µm."""

    well: Well
    site: int
    image: np.ndarray
    pixel_size: float


class PlateWriter:
    """Writes the fields of one plate.

    Parameters
    ----------
    out : Path
        Folder of all plates. TIFFs are written to PLATE/PLATE_A01_s1_w1.tif, where w1 is GFP and w2 is RFP; an OME-Zarr
        plate to PLATE.ome.zarr.
    name : str
        Name of the plate.
    wells : list of Well
        Its wells.
    sites : int
        Number of fields of each well.
    form : str
        tiff, or the version of OME-Zarr.
    """

    def __init__(self, out: Path, name: str, wells: list[Well], sites: int, form: PlateForm) -> None:
        self._name, self._form = name, form
        self._path = out / name if form == "tiff" else out / f"{name}.ome.zarr"
        if form != "tiff":
            self._describe("", {"plate": _plate_facts(name, wells, sites, form)})
            for well in wells:
                images = {"images": [{"path": str(site)} for site in range(sites)]}
                version = {"version": form} if form == "0.4" else {}
                self._describe(_place(well), {"well": images | version})

    def write(self, field: SimulatedSite) -> None:
        """Write one field."""
        if self._form == "tiff":
            for channel, pixels in enumerate(field.image, start=1):
                name = f"{self._name}_{field.well.name}_s{field.site}_w{channel}.tif"
                with replacing(self._path / name) as part:
                    per_cm = 1e4 / field.pixel_size
                    tifffile.imwrite(part, pixels, compression="zlib", resolution=(per_cm, per_cm),
                                     resolutionunit="CENTIMETER")  # fmt: skip
            return
        import zarr

        inside = f"{_place(field.well)}/{field.site - 1}"
        self._describe(inside, {
            "multiscales": [_multiscale(self._form, field.pixel_size)],
            "omero": {"channels": [{"label": name} for name in CHANNELS]},
        })  # fmt: skip
        zarr.create_array(self._path / inside / "0", data=field.image, zarr_format=self._zarr, overwrite=True)

    @property
    def _zarr(self) -> Any:
        return 2 if self._form == "0.4" else 3

    def _describe(self, inside: str, ome: dict[str, Any]) -> None:
        import zarr

        group = zarr.open_group(self._path / inside, mode="a", zarr_format=self._zarr)
        group.attrs.update(ome if self._form == "0.4" else {"ome": {"version": self._form, **ome}})


def _place(well: Well) -> str:
    return f"{well.name[:-2]}/{well.name[-2:]}"


def _plate_facts(name: str, wells: list[Well], sites: int, form: PlateForm) -> dict[str, Any]:
    rows = list(dict.fromkeys(well.name[:-2] for well in sorted(wells)))
    columns = sorted({well.name[-2:] for well in wells})
    listed = [
        {"path": _place(well), "rowIndex": rows.index(well.name[:-2]), "columnIndex": columns.index(well.name[-2:])}
        for well in wells
    ]
    named = {"rows": [{"name": one} for one in rows], "columns": [{"name": one} for one in columns]}
    version = {"version": form} if form == "0.4" else {}
    return {"name": name, "field_count": sites, **named, "wells": listed, **version}


def _multiscale(form: PlateForm, pixel_size: float) -> dict[str, Any]:
    space = ({"name": name, "type": "space", "unit": "micrometer"} for name in "yx")
    axes = [{"name": "c", "type": "channel"}, *space]
    step: dict[str, Any] = {"type": "scale", "scale": [1.0, pixel_size, pixel_size]}
    if form == "0.6":
        step |= {"input": "0", "output": "physical"}
        return {"coordinateSystems": [{"name": "physical", "axes": axes}],
                "datasets": [{"path": "0", "coordinateTransformations": [step]}]}  # fmt: skip
    version = {"version": form} if form == "0.4" else {}
    return {"axes": axes, "datasets": [{"path": "0", "coordinateTransformations": [step]}]} | version
