"""The options of a simulated field: how many cells, how bright, how sharp."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import AfterValidator, Field, ValidationInfo, field_validator

from napari_milcnn.images.instruments import PLATES
from napari_milcnn.options import Options, make_options

SIDES = (64, 16384)
"""Smallest and largest side of a field, in px."""
MOST_CELLS = 65535
"""Cells of a field at most: labels are uint16."""


def _ordered(pair: tuple[float, float]) -> tuple[float, float]:
    if pair[0] > pair[1]:
        raise ValueError(f"found {pair[0]} before {pair[1]}, expected the smaller first: write ({pair[1]}, {pair[0]})")
    return pair


def _sides(pair: tuple[int, int]) -> tuple[int, int]:
    if not all(SIDES[0] <= side <= SIDES[1] for side in pair):
        raise ValueError(f"expected a side of {SIDES[0]} to {SIDES[1]} px")
    return pair


ShareOrAll = Annotated[float, Field(ge=0, le=1)]
_Count = Annotated[int, Field(ge=1, le=MOST_CELLS)]


class SimulationOptions(Options):
    """How simulated fields look. Lengths are in µm, light in photons a pixel.

    The options that begin with `plate_` say how differently the plates of a screen were taken; 0 in all of them: in the
    same way. They vary by default, so that nothing that is trained or measured on a screen depends on one microscope
    without anyone seeing it.
    """

    size: Annotated[tuple[int, int], AfterValidator(_sides)] = Field(
        (512, 512), description="Size of a field in pixels (Y, X) of 0.16 µm."
    )
    cells: Annotated[tuple[_Count, _Count], AfterValidator(_ordered)] = Field(
        (45, 75), description="Fewest and most cells of a field; a mother with its bud is one cell."
    )
    penetrance: Annotated[tuple[ShareOrAll, ShareOrAll], AfterValidator(_ordered)] = Field(
        (0.4, 0.9), description="Lowest and highest share of cells that show the localisation of their field."
    )
    multi_label: ShareOrAll = Field(0.15, description="Share of the strains of a screen that have two localisations.")
    budding: ShareOrAll = Field(0.6, description="Share of cells that carry a bud.")
    clumping: ShareOrAll = Field(0.65, description="Share of cells that lie against another one.")
    brightness: float = Field(
        110.0, gt=0, le=1e6, description="Photons of GFP in a median strain, at the middle of a cell."
    )
    strain_spread: float = Field(
        0.45, ge=0, le=5, description="Spread of expression between strains (sd of its logarithm)."
    )
    cell_spread: float = Field(0.3, ge=0, le=5, description="Spread of expression between cells (sd of its logarithm).")
    weak: Annotated[tuple[ShareOrAll, ShareOrAll], AfterValidator(_ordered)] = Field(
        (0.12, 0.3), description="Diffuse protein in cells without the localisation, as a share of the expression."
    )
    rfp: float = Field(180.0, gt=0, le=1e6, description="Photons of RFP at the middle of a cell.")
    autofluorescence: float = Field(9.0, ge=0, le=1e6, description="Photons of a cell without GFP, at its middle.")
    background: float = Field(10.0, ge=0, le=1e6, description="Photons of the medium between the cells.")
    haze: ShareOrAll = Field(0.24, description="Share of the light that comes from out of focus.")
    defocus: float = Field(0.09, ge=0, le=10, description="Median blur of a cell beside the focal plane, sd in µm.")
    vignetting: ShareOrAll = Field(0.25, description="Loss of illumination from the centre to the corners.")
    gain: float = Field(3.5, gt=0, le=1e4, description="Camera counts a photon.")
    offset: float = Field(120.0, ge=0, le=1e6, description="Camera counts in the dark.")
    read_noise: float = Field(5.0, ge=0, le=1e5, description="Read noise in camera counts (sd).")
    plate_exposure: float = Field(
        0.35,
        ge=0,
        le=5,
        description="Spread of the exposure of each channel between plates of a screen (sd of its logarithm).",
    )
    plate_background: float = Field(
        0.35, ge=0, le=5, description="Spread of the light of the medium between plates (sd of its logarithm)."
    )
    plate_noise: float = Field(
        0.35, ge=0, le=5, description="Spread of the read noise between plates (sd of its logarithm)."
    )
    plate_defocus: float = Field(
        0.2, ge=0, le=10, description="Largest blur of a plate beside the focal plane, sd in µm."
    )
    plate_size: float = Field(
        0.1, ge=0, le=1, description="Largest difference in magnification between a plate and the usual, as a share."
    )
    plate_vignetting: ShareOrAll = Field(
        0.5, description="Largest difference in vignetting between a plate and the usual, as a share of it."
    )
    plate_storage: ShareOrAll = Field(
        0.25, description="Share of the plates whose files store an eighth (8 bit) or 16 times the camera counts."
    )


_PLATE_SIZES = [size for size in PLATES if size <= 384]
PlateForm: TypeAlias = Literal["tiff", "0.4", "0.5", "0.6"]


class PlateOptions(Options):
    """What is on simulated plates of wells, and how they are written."""

    wells: int = Field(384, description="Wells of a plate: 24, 96 or 384.")
    plates: int = Field(1, ge=1, le=1000, description="Number of plates, each with the same compounds and doses.")
    sites: int = Field(2, ge=1, le=100, description="Fields of a well.")
    doses: int = Field(12, ge=1, le=100, description="Doses of each compound, each in one well of a plate.")
    active: ShareOrAll = Field(0.5, description="Share of the compounds that do something.")
    edge: ShareOrAll = Field(0.3, description="How much dimmer, hazier and less sharp wells at the edge are; 0: not.")
    form: PlateForm = Field(
        "tiff", description="How images are written: tiff, one file per channel with the names of ImageXpress, or the "
                            "version of OME-Zarr, 0.4, 0.5 or 0.6."
    )  # fmt: skip

    @property
    def positive(self) -> int:
        """Number of positive controls of a plate."""
        return _positive_wells(self.wells)

    @property
    def compounds(self) -> int:
        """Number of compounds: as many as fit beside the controls, of which a twelfth of the wells are negative."""
        return _free_wells(self.wells) // self.doses

    @field_validator("wells")
    @classmethod
    def _of_a_size(cls, value: int) -> int:
        if value not in _PLATE_SIZES:
            raise ValueError(f"expected {', '.join(map(str, _PLATE_SIZES[:-1]))} or {_PLATE_SIZES[-1]}")
        return value

    @field_validator("doses")
    @classmethod
    def _with_room(cls, value: int, others: ValidationInfo) -> int:
        wells = others.data.get("wells")  # not there if it is wrong itself
        if wells is not None and value > _free_wells(wells):
            raise ValueError(f"expected at most {_free_wells(wells)} on a plate of {wells} wells, beside the controls")
        return value


def _positive_wells(wells: int) -> int:
    return max(2, wells // 24)


def _free_wells(wells: int) -> int:
    return wells - _positive_wells(wells) - max(4, wells // 12)


PLATES_ALIKE = {name: 0.0 for name in SimulationOptions.model_fields if name.startswith("plate_")}
"""Changes to the options for a screen whose plates were all taken in the same way."""


def square_field(side: int, **changes: object) -> SimulationOptions:
    """Return the options of a square field with as many cells for its area as a field of the default size.

    Parameters
    ----------
    side
        Side of the field, in px.
    **changes
        Other fields of `SimulationOptions`.

    Raises
    ------
    OptionsError
        The side or another option is unknown or out of range.
    """
    usual = SimulationOptions()
    area = side**2 / (usual.size[0] * usual.size[1])
    cells = tuple(min(MOST_CELLS, max(1, round(count * area))) for count in usual.cells)
    return make_options(SimulationOptions, {"size": (side, side), "cells": cells, **changes})
