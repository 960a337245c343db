"""Simulated fields of a yeast GFP-fusion localisation screen, with the truth for every cell.

The model is the yeast GFP collection (Huh et al. 2003, "Global analysis of protein localization in budding yeast",
Nature 425:686) as imaged on a high-content microscope with a cytosolic RFP in every strain (Chong et al. 2015, "Yeast
proteome dynamics from single cell imaging and automated analysis", Cell 161:1413). It serves tests, the demo and the
shipped model; nothing measured on it says how well a model does on a real screen.

What decides how it looks, and why:

- A cell is an ellipsoid, a bud a second one at its pole; an organelle is a solid, a shell, or a cloud of points in it.
  A picture is the chord through each, mostly within the focal depth and partly out of it: a diffuse protein is
  brightest in the middle, a membrane is a ring with a faint face.
- A mother and its bud are ONE instance in the label image: they share one cytoplasm, and one protein, until they part.
- Every cell carries a seed, and each organelle is drawn from that seed alone. A cell of a time-lapse thus keeps its
  mitochondria from frame to frame, and one cell seen as two localisations has the same nucleus in both.
- The image-level label is weak on purpose: only a share of the cells (the penetrance) shows it, the others hold a
  weak diffuse protein.
- All lengths are µm in the frame of the cell: u along the mother's long axis, v across it, from its centre.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, Final

import numpy as np
import pandas as pd
import tifffile
from numpy.typing import NDArray
from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from scipy.ndimage import gaussian_filter

from napari_milcnn.atomic_write import replacing
from napari_milcnn.errors import OptionsError, OutputError

__all__ = [
    "CHANNELS",
    "LOCALISATIONS",
    "PIXEL_SIZE",
    "SimulatedField",
    "SimulationOptions",
    "simulate_field",
    "simulate_screen",
    "simulate_timelapse",
]

LOCALISATIONS: Final[tuple[str, ...]] = (
    "nucleus",
    "nucleolus",
    "cytoplasm",
    "cell periphery",
    "ER",
    "mitochondria",
    "vacuole",
    "punctate",
)
"""The localisations that can be simulated, named as in Huh et al. 2003 where they have the term."""
CHANNELS: Final[tuple[str, str]] = ("GFP", "RFP")
"""The channels, in order: the fusion protein, and the cytosolic marker that shows every cell."""
PIXEL_SIZE: Final = 0.16
"""Edge of a pixel in µm: a mother cell of 5 µm is about 32 pixels across."""

_FINE = PIXEL_SIZE / 2  # cells are drawn on a grid twice as fine, then binned
_PAD = 64  # pixels around the field, so that cells at its border need no special case; more than a bud reaches out
_DEPTH = 0.8  # µm, half the depth that is in focus
_PSF = 0.13  # µm, standard deviation of the point spread function in focus
_MARGIN = 0.9  # µm around a cell, room for the blur
_FOOTPRINT = 20.0  # µm², area of a cell with its bud, averaged over the draws below

Floats = NDArray[np.floating]  # float32 throughout: speed


def _ordered(pair: tuple[float, float]) -> tuple[float, float]:
    if pair[0] > pair[1]:
        raise ValueError(f"found {pair[0]} before {pair[1]}, expected the smaller first: write ({pair[1]}, {pair[0]})")
    return pair


_Side = Annotated[int, Field(ge=64, le=16384)]
_Share = Annotated[float, Field(ge=0, le=1)]
_Count = Annotated[int, Field(ge=1, le=65535)]  # labels are uint16


class SimulationOptions(BaseModel):
    """How simulated fields look. Lengths in µm, light in photons a pixel."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: tuple[_Side, _Side] = Field((512, 512), description="Size of a field in pixels (Y, X) of 0.16 µm.")
    cells: Annotated[tuple[_Count, _Count], AfterValidator(_ordered)] = Field(
        (45, 75), description="Fewest and most cells of a field; a mother with its bud is one cell."
    )
    penetrance: Annotated[tuple[_Share, _Share], AfterValidator(_ordered)] = Field(
        (0.4, 0.9), description="Lowest and highest share of cells that show the localisation of their field."
    )
    multi_label: _Share = Field(0.15, description="Share of the strains of a screen that have two localisations.")
    budding: _Share = Field(0.6, description="Share of cells that carry a bud.")
    clumping: _Share = Field(0.65, description="Share of cells that lie against another one.")
    brightness: float = Field(110.0, gt=0, description="Photons of GFP in a median strain, at the middle of a cell.")
    strain_spread: float = Field(0.45, ge=0, description="Spread of expression between strains (sd of its logarithm).")
    cell_spread: float = Field(0.3, ge=0, description="Spread of expression between cells (sd of its logarithm).")
    weak: Annotated[tuple[_Share, _Share], AfterValidator(_ordered)] = Field(
        (0.12, 0.3), description="Diffuse protein in cells without the localisation, as a share of the expression."
    )
    rfp: float = Field(180.0, gt=0, description="Photons of RFP at the middle of a cell.")
    autofluorescence: float = Field(9.0, ge=0, description="Photons of a cell without GFP, at its middle.")
    background: float = Field(10.0, ge=0, description="Photons of the medium between the cells.")
    haze: _Share = Field(0.24, description="Share of the light that comes from out of focus.")
    defocus: float = Field(0.09, ge=0, description="Median blur of a cell beside the focal plane, sd in µm.")
    vignetting: _Share = Field(0.25, description="Loss of illumination from the centre to the corners.")
    gain: float = Field(3.5, gt=0, description="Camera counts a photon.")
    offset: float = Field(120.0, ge=0, description="Camera counts in the dark.")
    read_noise: float = Field(5.0, ge=0, description="Read noise in camera counts (sd).")


@dataclass(frozen=True)
class SimulatedField:
    """One simulated field of view and what is true of it.

    Attributes
    ----------
    image : ndarray
        (C, Y, X) uint16, channels as in `CHANNELS`, pixels of `PIXEL_SIZE` µm, values in camera counts.
    cells : ndarray
        (Y, X) uint16, 0 is background; a mother and its bud carry one label.
    cell_classes : dict
        Label of each cell to the localisations that it shows, in the order of `labels`; () where it shows none.
    labels : tuple of str
        Image-level labels: the localisations of the protein.
    """

    image: NDArray[np.uint16]
    cells: NDArray[np.uint16]
    cell_classes: dict[int, tuple[str, ...]]
    labels: tuple[str, ...]


# The parts of a cell


@dataclass(frozen=True)
class _Solid:
    """An ellipsoid centred on the focal plane: centre (u, v), half axes along, across and up, turned by `angle`."""

    u: float
    v: float
    along: float
    across: float
    height: float
    angle: float = 0.0

    def half(self, u: Floats, v: Floats, shrink: float = 0.0) -> Floats:
        """Half the thickness in µm at each place; 0 outside. `shrink` µm are peeled off all around."""
        cos, sin = math.cos(self.angle), math.sin(self.angle)
        du, dv = u - self.u, v - self.v
        p = (du * cos + dv * sin) / max(self.along - shrink, 1e-3)
        q = (dv * cos - du * sin) / max(self.across - shrink, 1e-3)
        dome: Floats = max(self.height - shrink, 0) * np.sqrt(np.maximum(1 - p * p - q * q, 0))
        return dome

    def place(self, sphere: NDArray[np.float64], shrink: float = 0.0) -> NDArray[np.float64]:
        """Put points of the unit ball (N, 3) into this solid: (N, 3), columns u, v and height above the focus."""
        p, q, z = (sphere * (np.array([self.along, self.across, self.height]) - shrink).clip(0.05)).T
        cos, sin = math.cos(self.angle), math.sin(self.angle)
        return np.stack([self.u + p * cos - q * sin, self.v + p * sin + q * cos, z], axis=1)


@dataclass(frozen=True)
class _Cell:
    """What is drawn once for a cell: its place (pixels), its shape (µm) and its brightness (relative)."""

    y: float
    x: float
    angle: float  # of the mother's long axis, radians
    along: float  # half axes of the mother
    across: float
    bud: float  # radius of the bud over the mother's, 0 for none
    bud_angle: float  # from the long axis, radians
    warp: tuple[float, float, float, float]  # strength and phase of two ripples of the outline
    gfp: float
    rfp: float
    defocus: float
    seed: int

    def rng(self, part: int) -> np.random.Generator:
        """Return the random numbers of one part of this cell, always the same."""
        return np.random.default_rng([self.seed, part])

    @property
    def bud_radius(self) -> float:
        """Radius of the full-grown bud in µm."""
        return self.bud * math.sqrt(self.along * self.across)

    def solids(self, growth: float) -> tuple[_Solid, ...]:
        """Return the mother and, where there is one, the bud, grown to `growth` (0 to 1) of its radius."""
        mother = _Solid(0.0, 0.0, self.along, self.across, 0.95 * self.across)
        if not self.bud:
            return (mother,)
        cos, sin = math.cos(self.bud_angle), math.sin(self.bud_angle)
        reach = 1 / math.hypot(cos / self.along, sin / self.across)
        radius = self.bud_radius * growth
        at = reach + 0.83 * radius
        return mother, _Solid(at * cos, at * sin, 1.08 * radius, 0.94 * radius, 0.94 * radius, self.bud_angle)


@dataclass(frozen=True)
class _Body:
    """A cell laid on a grid: u and v of every grid point, and the solids of its parts."""

    cell: _Cell
    window: tuple[slice, slice]  # of the padded field, in pixels
    step: float  # µm between grid points
    u: Floats
    v: Floats
    solids: tuple[_Solid, ...]

    @cached_property
    def nuclei(self) -> tuple[_Solid, ...]:
        return _nuclei(self)

    @cached_property
    def vacuoles(self) -> tuple[_Solid, ...]:
        return _vacuoles(self)

    @cached_property
    def cytosol(self) -> Floats:
        """Light of a protein everywhere in the cell but in the vacuole; about 1 in the middle."""
        return (_focus(self.whole()) - 0.85 * _focus(self.union(self.vacuoles))).clip(0) / 1.1

    def whole(self, shrink: float = 0.0) -> Floats:
        """Half the thickness of mother and bud in µm, with `shrink` µm peeled off."""
        return self.union(self.solids, shrink)

    def union(self, solids: Sequence[_Solid], shrink: float = 0.0) -> Floats:
        """Half the thickness of several solids in µm."""
        thick = np.zeros_like(self.u)
        for solid in solids:
            np.maximum(thick, solid.half(self.u, self.v, shrink), out=thick)
        return thick

    def shell(self, solids: Sequence[_Solid], depth: float, thickness: float) -> Floats:
        """Light of a membrane `depth` µm under the surface of some solids."""
        return _focus(self.union(solids, depth)) - _focus(self.union(solids, depth + thickness))


def _focus(half: Floats) -> Floats:
    """Light from a column of glowing matter `half` µm up and down: mostly from the depth in focus."""
    return 0.75 * np.minimum(half, _DEPTH) + 0.25 * half


def _body(cell: _Cell, step: float = _FINE, growth: float = 1.0) -> _Body:
    """Lay a cell on a grid of `step` µm; the window does not change as the bud grows."""
    lean, radius = cell.angle + cell.bud_angle, cell.bud_radius
    middle = (cell.y + math.sin(lean) * radius / PIXEL_SIZE, cell.x + math.cos(lean) * radius / PIXEL_SIZE)
    reach = math.ceil((1.05 * cell.along + 1.1 * radius + _MARGIN) / PIXEL_SIZE)
    top, left = (math.floor(at) - reach for at in middle)
    count, per_pixel = 2 * reach + 1, round(PIXEL_SIZE / step)
    offsets = (np.arange(count * per_pixel) + 0.5) / per_pixel - 0.5
    dy = ((top + offsets - cell.y) * PIXEL_SIZE).astype(np.float32)[:, None]
    dx = ((left + offsets - cell.x) * PIXEL_SIZE).astype(np.float32)[None, :]
    cos, sin = math.cos(cell.angle), math.sin(cell.angle)
    u, v = dx * cos + dy * sin, dy * cos - dx * sin
    around = np.arctan2(v, u)
    ripple2, phase2, ripple3, phase3 = cell.warp
    stretch = 1 + ripple2 * np.cos(2 * around + phase2) + ripple3 * np.cos(3 * around + phase3)
    window = slice(top + _PAD, top + _PAD + count), slice(left + _PAD, left + _PAD + count)
    return _Body(cell, window, step, u * stretch, v * stretch, cell.solids(growth))


def _nuclei(body: _Body) -> tuple[_Solid, ...]:
    """Place the nucleus: off-centre, at the bud neck before mitosis, in mother and bud (or the neck) during it.

    About 7 % of the cell's volume (Jorgensen et al. 2007, Mol Biol Cell 18:3523).
    """
    cell, rng = body.cell, body.cell.rng(0)
    radius, squeeze = rng.uniform(0.36, 0.43) * cell.across, rng.uniform(0.9, 1.0)
    side, off, fate = rng.uniform(-np.pi, np.pi), rng.uniform(0.25, 0.45), rng.uniform()
    if cell.bud < 0.35:  # interphase; the side of a small bud is sought already
        if cell.bud:
            off, side = 0.45, cell.bud_angle + 0.5 * side / math.pi
        u, v = off * cell.along * math.cos(side), off * cell.across * math.sin(side)
        return (_Solid(u, v, radius, squeeze * radius, radius, side),)
    bud, cos, sin = body.solids[1], math.cos(cell.bud_angle), math.sin(cell.bud_angle)
    neck = math.hypot(bud.u, bud.v) - bud.along
    if cell.bud < 0.55 or fate < 0.25:  # at the neck
        at = neck - 0.9 * radius
        return (_Solid(at * cos, at * sin, 1.05 * radius, 0.95 * radius, radius, cell.bud_angle),)
    if fate < 0.45:  # through the neck
        lobes, shape = (neck - 0.62 * radius, neck + 0.72 * radius), (0.95 * radius, 0.72 * radius, 0.75 * radius)
        return tuple(_Solid(at * cos, at * sin, *shape, cell.bud_angle) for at in lobes)
    at, small = -0.8 * off * cell.along, min(0.84 * radius, 0.6 * bud.across)
    mother = _Solid(at * cos, at * sin, 0.84 * radius, 0.8 * radius, 0.8 * radius, side)
    return mother, _Solid(bud.u + 0.15 * small, bud.v, small, 0.95 * small, small, side)


def _vacuoles(body: _Body) -> tuple[_Solid, ...]:
    """Place one large or up to three smaller vacuoles beside the nucleus, and often one in a larger bud."""
    cell, rng = body.cell, body.cell.rng(1)
    count = int(rng.choice([1, 2, 3], p=[0.55, 0.28, 0.17]))
    sizes = rng.uniform(0.48, 0.64, 1) if count == 1 else rng.uniform(0.3, 0.46, count)
    found: list[_Solid] = []
    for radius in (sizes * cell.across).tolist():
        tries = rng.uniform(-1, 1, (60, 2)) * (cell.along, cell.across)
        for shrink in (1.0, 0.85, 0.7, 0.55):
            solid = _first_free(tries, shrink * radius, cell, (*body.nuclei, *found))
            if solid is not None:
                found.append(solid)
                break
    if cell.bud > 0.4 and rng.uniform() < 0.6:
        bud, radius = body.solids[1], 0.38 * body.solids[1].across
        du, dv = (0.3 * bud.across * rng.uniform(-1, 1, 2)).tolist()
        found.append(_Solid(bud.u + du, bud.v + dv, radius, radius, radius))
    return tuple(found)


def _first_free(tries: NDArray[np.float64], radius: float, cell: _Cell, taken: Sequence[_Solid]) -> _Solid | None:
    """Return the first ball among `tries` (N, 2) that lies in the mother and beside the solids already there."""
    room = np.array([cell.along, cell.across]) - radius - 0.08
    free = ((tries / room.clip(1e-3)) ** 2).sum(axis=1) < 1
    for solid in taken:
        free &= np.hypot(tries[:, 0] - solid.u, tries[:, 1] - solid.v) > 0.8 * radius + 0.75 * solid.along
    if not free.any():
        return None
    u, v = tries[int(np.argmax(free))]
    return _Solid(float(u), float(v), radius, radius, 0.95 * radius)


def _splat(body: _Body, points: NDArray[np.float64], light: NDArray[np.float64], width: float) -> Floats:
    """Draw points (N, 3) of given light (µm² at brightness 1) as blobs of sd `width` µm, wider out of focus."""
    cell, (rows, cols) = body.cell, body.window
    cos, sin = np.cos(cell.angle), np.sin(cell.angle)
    y = cell.y + (points[:, 0] * sin + points[:, 1] * cos) / PIXEL_SIZE - (rows.start - _PAD)
    x = cell.x + (points[:, 0] * cos - points[:, 1] * sin) / PIXEL_SIZE - (cols.start - _PAD)
    scale, shape = PIXEL_SIZE / body.step, body.u.shape
    row, col = (np.floor((c + 0.5) * scale).astype(np.intp) for c in (y, x))
    inside = (row >= 0) & (row < shape[0]) & (col >= 0) & (col < shape[1])
    flat = row[inside] * shape[1] + col[inside]
    sharp = np.exp(-0.5 * (points[inside, 2] / _DEPTH) ** 2)
    drawn = np.zeros(shape, np.float32)
    for part, blur in ((sharp, width), (0.6 * (1 - sharp), width + 0.3)):
        layer = np.bincount(flat, light[inside] * part / body.step**2, minlength=drawn.size).reshape(shape)
        drawn += gaussian_filter(layer.astype(np.float32), blur / body.step)
    return drawn


def _patches(body: _Body, rng: np.random.Generator, shortest: float, longest: float) -> Floats:
    """Return a smooth random field of mean 0 and sd 1 over the cell, of waves between two lengths in µm."""
    waves = (2 * np.pi / rng.uniform(shortest, longest, 10)).tolist()
    turns, phases = rng.uniform(0, np.pi, 10).tolist(), rng.uniform(0, 2 * np.pi, 10).tolist()
    total = np.zeros_like(body.u)
    for wave, turn, phase in zip(waves, turns, phases, strict=True):
        total += np.cos(body.u * (wave * math.cos(turn)) + body.v * (wave * math.sin(turn)) + phase)
    return total / math.sqrt(5)


# The localisations: each paints the light of a protein in one cell, about 1 where a median protein is bright


@dataclass(frozen=True)
class _Protein:
    """What all cells of a strain have in common."""

    labels: tuple[str, ...]
    expression: float  # relative to the median strain
    leak: float  # diffuse share beside the localisation
    rim: float  # vacuole: share of the membrane over the lumen
    spots: float  # punctate: mean number of spots in a cell


def _paint_nucleus(body: _Body, protein: _Protein) -> Floats:
    rest: Floats = _focus(body.union(body.nuclei)) - 0.5 * _caps(body)
    return 1.75 * np.maximum(rest, 0)


def _caps(body: _Body) -> Floats:
    """Light of the nucleolus: the crescent of the nucleus on the side away from the spindle pole body.

    Yang et al. 1989, Chromosoma 98:123. In a budding cell the spindle pole body faces the bud.
    """
    rng = body.cell.rng(2)
    total = np.zeros_like(body.u)
    for nucleus in body.nuclei:
        away = body.cell.bud_angle + np.pi + rng.normal(0, 0.7 if body.cell.bud else 3.0)
        du, dv, aslant = nucleus.across * math.cos(away), nucleus.across * math.sin(away), rng.uniform() < 0.3
        if aslant:  # the crescent lies above or below, and is seen as a blot
            size = 0.55 * nucleus.across
            blot = _Solid(nucleus.u + 0.4 * du, nucleus.v + 0.4 * dv, 1.2 * size, size, size, away + math.pi / 2)
            total += 0.9 * blot.half(body.u, body.v)
            continue
        shift, axes = rng.uniform(0.5, 0.75), (nucleus.along, 1.05 * nucleus.across, 1.1 * nucleus.height)
        rest = _Solid(nucleus.u - shift * du, nucleus.v - shift * dv, *axes, nucleus.angle)
        total += (nucleus.half(body.u, body.v) - rest.half(body.u, body.v)).clip(0)
    return total


def _paint_nucleolus(body: _Body, protein: _Protein) -> Floats:
    return 3.0 * _caps(body)


def _paint_cytoplasm(body: _Body, protein: _Protein) -> Floats:
    grain = 1 + 0.05 * _patches(body, body.cell.rng(3), 0.5, 1.2)
    light: Floats = grain * np.maximum(body.cytosol - 0.45 * _focus(body.union(body.nuclei)), 0)
    return light


def _paint_periphery(body: _Body, protein: _Protein) -> Floats:
    patches: Floats = np.maximum(1 + 0.24 * _patches(body, body.cell.rng(4), 0.6, 2.0), 0.3)
    light: Floats = 2.7 * body.shell(body.solids, 0.03, 0.14) * patches + 0.1 * body.cytosol
    return light


def _paint_er(body: _Body, protein: _Protein) -> Floats:
    """Nuclear envelope, patches under the plasma membrane, a few strands between (Preuss et al. 1991, Yeast 7:891)."""
    rng = body.cell.rng(5)
    envelope = body.shell(body.nuclei, 0.0, 0.2)
    patches = (0.55 + 0.75 * _patches(body, rng, 1.0, 2.6)).clip(0.05, 1.5)
    cortex = body.shell(body.solids, 0.16, 0.16) * patches
    light: Floats = 2.3 * envelope + 2.0 * cortex + 0.16 * _strands(body, rng) + 0.15 * body.cytosol
    return light


def _strands(body: _Body, rng: np.random.Generator) -> Floats:
    """Draw curved strands from the nucleus to the cortex."""
    nucleus, mother = body.nuclei[0], body.solids[0]
    count = int(rng.integers(1, 4))
    turns = rng.uniform(0, 2 * np.pi, count)
    start = np.stack([nucleus.u + nucleus.along * np.cos(turns), nucleus.v + nucleus.across * np.sin(turns)], axis=1)
    bend = turns[:, None] + rng.uniform(-0.9, 0.9, (count, 2))
    outer = np.array([mother.along, mother.across]) - 0.2
    middle = 0.6 * outer * np.stack([np.cos(bend[:, 0]), np.sin(bend[:, 0])], axis=1)
    end = outer * np.stack([np.cos(bend[:, 1]), np.sin(bend[:, 1])], axis=1)
    s = np.linspace(0, 1, 60)[:, None, None]
    path = ((1 - s) ** 2 * start + 2 * s * (1 - s) * middle + s**2 * end).reshape(-1, 2)
    points = np.column_stack([path, np.zeros(len(path))])
    return _splat(body, points, np.full(len(path), 0.03 * 0.5), 0.09)


def _paint_mitochondria(body: _Body, protein: _Protein) -> Floats:
    """Draw one branching network of tubules under the cortex, into the bud (Hoffmann & Avers 1973, Science 181:749)."""
    rng = body.cell.rng(6)
    spread = 2 * np.pi * (np.arange(4) + rng.uniform(0, 0.8, 4)) / 4
    trunks = _walks(rng, rng.uniform(-0.9, 0.9, 4), spread, int(rng.integers(60, 110)))
    knots = trunks.reshape(-1, 3)[rng.integers(0, trunks.shape[0] * trunks.shape[1], 5)]
    twigs = _walks(rng, knots[:, 2], np.arctan2(knots[:, 1], knots[:, 0]), int(rng.integers(15, 40)))
    runners = _walks(rng, rng.uniform(-0.9, 0.9, 2), np.pi + rng.uniform(-0.8, 0.8, 2), 45)
    network = np.concatenate([trunks.reshape(-1, 3), twigs.reshape(-1, 3)])
    placed = [body.solids[0].place(network, 0.35)]
    if len(body.solids) > 1:
        placed.append(body.solids[1].place(runners.reshape(-1, 3), min(0.3, 0.3 * body.cell.bud_radius)))
    light = [np.full(len(points), 0.007 * solid.across) for points, solid in zip(placed, body.solids, strict=True)]
    points = np.concatenate(placed) * (1, 1, 0.5)  # flattened: the face of the network is seen too
    drawn = _splat(body, points, np.concatenate(light), 0.07)
    crossed: Floats = 1.7 * np.tanh(drawn / 1.7)  # tubules that cross do not add up
    return crossed


def _walks(
    rng: np.random.Generator, height: NDArray[np.float64], around: NDArray[np.float64], steps: int
) -> NDArray[np.float64]:
    """Walk smoothly just under the unit sphere, from given heights and angles: (walks, steps, 3), steps of 1/40."""
    count = len(height)
    turning = rng.normal(0, 0.18, (count, steps)).cumsum(axis=1) + rng.uniform(0, 2 * np.pi, (count, 1))
    lift = height[:, None] + 0.025 * np.sin(turning).cumsum(axis=1)
    lift = 0.92 * np.arcsin(np.sin(lift * np.pi / 2)) * 2 / np.pi  # fold back before the poles
    dip = 1 - 0.12 * (1 + np.sin(turning * 1.3 + 1))
    ring = np.sqrt(1 - lift**2)
    angle = around[:, None] + (0.025 * np.cos(turning) / ring).cumsum(axis=1)
    return np.stack([dip * ring * np.cos(angle), dip * ring * np.sin(angle), lift], axis=2)


def _paint_vacuole(body: _Body, protein: _Protein) -> Floats:
    lumen = _focus(body.union(body.vacuoles)) * (1 + 0.1 * _patches(body, body.cell.rng(8), 0.6, 1.6))
    membrane = body.shell(body.vacuoles, 0.0, 0.14)
    return (1 - protein.rim) * 1.7 * lumen + protein.rim * 3.2 * membrane


def _paint_punctate(body: _Body, protein: _Protein) -> Floats:
    """Spots no larger than the point spread function, as of endosomes, peroxisomes or P-bodies."""
    rng = body.cell.rng(7)
    count = int(np.clip(rng.poisson(protein.spots), 3, 12))
    ball = rng.normal(size=(count, 3))
    ball *= (rng.uniform(0.15, 1, (count, 1)) ** (1 / 3)) / np.linalg.norm(ball, axis=1, keepdims=True)
    mother, points = body.solids[0], []
    for index, point in enumerate(ball):
        in_bud = len(body.solids) > 1 and index % 4 == 3
        points.append((body.solids[1] if in_bud else mother).place(point[None], 0.3))
    light = 0.25 * rng.lognormal(0, 0.6, count)
    return _splat(body, np.concatenate(points), light, 0.07)


_PAINTERS: Final[Mapping[str, Callable[[_Body, _Protein], Floats]]] = {
    "nucleus": _paint_nucleus,
    "nucleolus": _paint_nucleolus,
    "cytoplasm": _paint_cytoplasm,
    "cell periphery": _paint_periphery,
    "ER": _paint_er,
    "mitochondria": _paint_mitochondria,
    "vacuole": _paint_vacuole,
    "punctate": _paint_punctate,
}


# A field


def simulate_field(
    labels: Sequence[str], options: SimulationOptions | None = None, rng: np.random.Generator | int = 0
) -> SimulatedField:
    """Simulate one field of one strain.

    Parameters
    ----------
    labels : sequence of str
        Localisations of the protein, of `LOCALISATIONS`. Of two, a cell that shows the protein shows both or one.
    options : SimulationOptions, optional
        How the field looks.
    rng : numpy.random.Generator or int, optional
        Random numbers, or a seed; the same seed and options give the same arrays.

    Returns
    -------
    SimulatedField
        Image (C, Y, X), label image (Y, X) and the localisations of every cell.

    Raises
    ------
    OptionsError
        If a label is unknown or given twice, if there is none, or if the cells do not fit into the field.
    """
    options = options or SimulationOptions()
    names, rng = _checked_labels(labels), np.random.default_rng(rng)
    return _simulate(_draw_protein(names, options, rng), options, rng)


def _checked_labels(labels: Sequence[str]) -> tuple[str, ...]:
    names = (labels,) if isinstance(labels, str) else tuple(labels)
    allowed = ", ".join(LOCALISATIONS)
    unknown = [name for name in names if name not in LOCALISATIONS]
    if unknown:
        raise OptionsError(f"Unknown localisation {unknown[0]!r}: expected one of {allowed}.")
    if not names or len(set(names)) < len(names):
        raise OptionsError(f"Found the localisations {list(names)}: give at least one, each once, of {allowed}.")
    return names


def _draw_protein(labels: tuple[str, ...], options: SimulationOptions, rng: np.random.Generator) -> _Protein:
    return _Protein(
        labels=labels,
        expression=float(np.clip(rng.lognormal(0, options.strain_spread), 0.35, 3.5)),
        leak=rng.uniform(0.05, 0.16),
        rim=float(rng.choice([0.0, 0.25, 0.5])),
        spots=rng.uniform(4, 9),
    )


def _simulate(protein: _Protein, options: SimulationOptions, rng: np.random.Generator) -> SimulatedField:
    cells = _place_cells(options, rng)
    shown = _draw_shown(len(cells), protein.labels, options, rng)
    mixes = [_mix(classes, protein, options, rng) for classes in shown]
    bodies = [_body(cell) for cell in cells]
    image = _expose(bodies, mixes, protein, _illumination(options, rng), options, rng)
    return SimulatedField(image, _label(bodies, options), dict(enumerate(shown, start=1)), protein.labels)


def _draw_shown(
    count: int, labels: tuple[str, ...], options: SimulationOptions, rng: np.random.Generator
) -> list[tuple[str, ...]]:
    """Draw what each cell shows: one penetrance a field, and every label in at least one cell if it is not 0."""
    penetrance = rng.uniform(*options.penetrance)
    showing = rng.permutation(count)[: int(np.ceil(penetrance * count - 1e-9))]
    shown: list[tuple[str, ...]] = [()] * count
    for place, index in enumerate(showing):
        both = place == 0 or rng.uniform() < 0.5
        shown[index] = labels if both else (labels[int(rng.integers(len(labels)))],)
    return shown


def _mix(
    classes: tuple[str, ...], protein: _Protein, options: SimulationOptions, rng: np.random.Generator
) -> dict[str, float]:
    """Share of the expression at each localisation in one cell; what is nowhere in particular is cytoplasmic."""
    weak = rng.uniform(*options.weak)
    if not classes:
        return {"cytoplasm": weak}
    amount = 1.0 if len(classes) == 1 else 0.75
    return {"cytoplasm": protein.leak} | dict.fromkeys(classes, amount)


def _draw_cell(options: SimulationOptions, rng: np.random.Generator) -> _Cell:
    """Draw a cell without a place: mothers 4 to 6 µm long, buds of all sizes near a pole of the mother."""
    along = rng.uniform(2.1, 3.0)
    bud = rng.uniform(0.2, 0.75) if rng.uniform() < options.budding else 0.0
    return _Cell(
        y=0.0,
        x=0.0,
        angle=rng.uniform(0, 2 * np.pi),
        along=along,
        across=along * rng.uniform(0.8, 0.96),
        bud=bud,
        bud_angle=rng.normal(0, 0.35),
        warp=(rng.uniform(0, 0.02), rng.uniform(0, 6.3), rng.uniform(0, 0.025), rng.uniform(0, 6.3)),
        gfp=rng.lognormal(0, options.cell_spread),
        rfp=rng.lognormal(0, 0.8 * options.cell_spread),
        defocus=float(min(options.defocus * rng.lognormal(0, 0.6), 0.45)),
        seed=int(rng.integers(2**32)),
    )


def _place_cells(options: SimulationOptions, rng: np.random.Generator) -> list[_Cell]:
    """Draw cells and lay them down side by side; a cell touches others but hardly covers them."""
    height, width = options.size
    fewest, wanted = options.cells[0], int(rng.integers(options.cells[0], options.cells[1], endpoint=True))
    taken = np.zeros((height + 2 * _PAD, width + 2 * _PAD), bool)
    placed: list[_Cell] = []
    roomy = fewest * _FOOTPRINT < 0.8 * height * width * PIXEL_SIZE**2
    for _ in range(40 * wanted if roomy else 0):
        cell = _try_place(_draw_cell(options, rng), placed, taken, options, rng)
        placed += [cell] if cell else []
        if len(placed) == wanted:
            break
    if len(placed) < fewest:
        fit = max(1, int(0.45 * height * width * PIXEL_SIZE**2 / _FOOTPRINT))
        raise OptionsError(
            f"Found no room for {fewest} cells in a field of {height} x {width} pixels (Y, X); about {fit} fit: "
            "ask for fewer cells or for a larger size."
        )
    return placed


def _try_place(
    cell: _Cell, placed: Sequence[_Cell], taken: NDArray[np.bool_], options: SimulationOptions, rng: np.random.Generator
) -> _Cell | None:
    """Try one place for a cell, alone or against another one; mark it in `taken` and return it if it is free."""
    height, width = options.size
    y, x = rng.uniform(0, height), rng.uniform(0, width)
    if placed and rng.uniform() < options.clumping:
        beside = placed[int(rng.integers(len(placed)))]
        turn, gap = rng.uniform(0, 2 * np.pi), (beside.along + cell.along) * rng.uniform(0.88, 1.08) / PIXEL_SIZE
        y, x = beside.y + gap * np.sin(turn), beside.x + gap * np.cos(turn)
    if not (0 <= y < height and 0 <= x < width):
        return None
    moved = _Cell(**{**vars(cell), "y": y, "x": x})
    body = _body(moved, PIXEL_SIZE)
    inside = body.whole() > 0
    if (inside & taken[body.window]).sum() > 0.02 * inside.sum():
        return None
    taken[body.window] |= inside
    return moved


def _label(bodies: Sequence[_Body], options: SimulationOptions) -> NDArray[np.uint16]:
    """Return the label image (Y, X): cell n is n + 1, and where two cells touch the first one keeps the pixel."""
    height, width = options.size
    labels = np.zeros((height + 2 * _PAD, width + 2 * _PAD), np.uint16)
    for value, body in enumerate(bodies, start=1):
        part = labels[body.window]
        part[(part == 0) & (_binned(body.whole() > 0) >= 0.5)] = value
    return labels[_PAD:-_PAD, _PAD:-_PAD].copy()


def _binned(fine: NDArray[np.generic]) -> Floats:
    """Mean of each 2 x 2 block: from the fine grid to pixels."""
    rows, cols = fine.shape
    return np.asarray(fine.reshape(rows // 2, 2, cols // 2, 2).mean(axis=(1, 3), dtype=np.float32))


# The microscope


def _expose(
    bodies: Sequence[_Body],
    mixes: Sequence[Mapping[str, float]],
    protein: _Protein,
    illumination: Floats,
    options: SimulationOptions,
    rng: np.random.Generator,
) -> NDArray[np.uint16]:
    """Take one picture (C, Y, X) of cells, each with its share of the protein at each localisation."""
    height, width = options.size
    light = np.zeros((len(CHANNELS), height + 2 * _PAD, width + 2 * _PAD), np.float32)
    for body, mix in zip(bodies, mixes, strict=True):
        light[(slice(None), *body.window)] += _cell_light(body, mix, protein, options)
    haze = gaussian_filter(light, (0, 1.4 / PIXEL_SIZE, 1.4 / PIXEL_SIZE))
    seen = (light + options.haze * (haze - light) + options.background)[:, _PAD:-_PAD, _PAD:-_PAD]
    photons = rng.poisson(seen * illumination)
    counts = options.gain * photons + options.offset + rng.normal(0, options.read_noise, photons.shape)
    return counts.round().clip(0, np.iinfo(np.uint16).max).astype(np.uint16)


def _cell_light(body: _Body, mix: Mapping[str, float], protein: _Protein, options: SimulationOptions) -> Floats:
    """Light of one cell (C, Y, X) in photons, blurred, on the pixels of its window."""
    gfp = np.zeros_like(body.u)
    for name, amount in mix.items():
        gfp += amount * _PAINTERS[name](body, protein)
    gfp = options.brightness * protein.expression * body.cell.gfp * gfp + options.autofluorescence * body.cytosol
    light = np.stack([gfp, options.rfp * body.cell.rfp * body.cytosol])
    sigma = math.hypot(_PSF, body.cell.defocus) / body.step
    blurred = gaussian_filter(light, (0, sigma, sigma), truncate=3.0)
    return np.stack([_binned(channel) for channel in blurred])


def _illumination(options: SimulationOptions, rng: np.random.Generator) -> Floats:
    """Relative illumination (Y, X): 1 near the middle, less towards the corners."""
    height, width = options.size
    centre = 0.5 + rng.uniform(-0.12, 0.12, 2)
    y = (np.arange(height) / height - centre[0])[:, None]
    x = (np.arange(width) / width - centre[1])[None, :]
    relative: Floats = (1 - options.vignetting * 2 * (y**2 + x**2)).clip(0.05).astype(np.float32)
    return relative


# A time-lapse


def simulate_timelapse(
    label_from: str,
    label_to: str,
    frames: int = 12,
    options: SimulationOptions | None = None,
    rng: np.random.Generator | int = 0,
) -> tuple[NDArray[np.uint16], NDArray[np.uint16], pd.DataFrame]:
    """Simulate a protein that relocates, in each cell that responds at a time of its own.

    Cells stay in place and keep their organelles; buds grow. The penetrance is here the share of cells that respond;
    in the others the protein stays where it was.

    Parameters
    ----------
    label_from, label_to : str
        Localisation before and after, of `LOCALISATIONS`.
    frames : int, optional
        Number of frames, at least 2.
    options : SimulationOptions, optional
        How the fields look.
    rng : numpy.random.Generator or int, optional
        Random numbers, or a seed.

    Returns
    -------
    image : ndarray
        (T, C, Y, X) uint16 in camera counts, channels as in `CHANNELS`.
    cells : ndarray
        (T, Y, X) uint16, 0 is background; a cell keeps its label.
    table : DataFrame
        One row a cell and frame: frame, label, moved (share of the protein that has relocated, 0 to 1) and classes
        (the localisation with the larger share).

    Raises
    ------
    OptionsError
        If a label is unknown, both are the same, there are fewer than 2 frames, or the cells do not fit.
    """
    options = options or SimulationOptions()
    labels, rng = _checked_labels((label_from, label_to)), np.random.default_rng(rng)
    if frames < 2:
        raise OptionsError(f"Found {frames} frames: a time-lapse needs at least 2.")
    protein, cells = _draw_protein(labels, options, rng), _place_cells(options, rng)
    moved = _relocation(len(cells), frames, options, rng)
    illumination = _illumination(options, rng)
    pictures, outlines = [], []
    for frame in range(frames):
        bodies = [_body(cell, growth=0.6 + 0.4 * frame / (frames - 1)) for cell in cells]
        mixes = [_between(label_from, label_to, share, protein.leak) for share in moved[frame].tolist()]
        pictures.append(_expose(bodies, mixes, protein, illumination, options, rng))
        outlines.append(_label(bodies, options))
    frame_of, cell_of = np.indices(moved.shape)
    table = pd.DataFrame({"frame": frame_of.ravel(), "label": cell_of.ravel() + 1, "moved": moved.ravel()})
    table["classes"] = np.where(table["moved"] > 0.5, label_to, label_from)
    return np.stack(pictures), np.stack(outlines), table


def _relocation(count: int, frames: int, options: SimulationOptions, rng: np.random.Generator) -> NDArray[np.float64]:
    """Share of the protein that has moved (frames, cells): a step of a few frames, at a time of each cell's own."""
    responding = rng.permutation(count) < round(rng.uniform(*options.penetrance) * count)
    start = rng.uniform(0.2, 0.75, count) * (frames - 1)
    pace = max(0.06 * frames, 0.3)
    moved: NDArray[np.float64] = 1 / (1 + np.exp(-(np.arange(frames)[:, None] - start) / pace))
    return np.where(responding, moved, 0.0)


def _between(label_from: str, label_to: str, share: float, leak: float) -> dict[str, float]:
    """Share of the expression at each localisation when `share` of the protein has moved."""
    mix = {label_from: 1 - share, label_to: share}
    return mix | {"cytoplasm": max(mix.get("cytoplasm", 0.0), leak)}


# A screen


@dataclass(frozen=True)
class _Job:
    """One field to simulate: its name, strain, side of the split, and where its random numbers come from."""

    name: str
    group: str
    split: str
    labels: tuple[str, ...]
    seeds: tuple[int, ...]  # of the strain
    number: int  # of the field in its strain, from 1


@dataclass
class _Tables:
    """Rows of the fields that are complete."""

    fields: list[dict[str, str]] = field(default_factory=list)
    cells: list[dict[str, str | int]] = field(default_factory=list)


def simulate_screen(
    out: Path,
    *,
    localisations: Sequence[str] = LOCALISATIONS,
    fields_per_class: int = 10,
    fields_per_strain: int = 2,
    validation: float = 0.25,
    seed: int = 0,
    options: SimulationOptions | None = None,
) -> Generator[Path, None, None]:
    """Simulate a localisation screen into a folder, one field a step.

    Writes images/NAME.ome.tif (axes CYX, uint16), truth/NAME.tif (label image YX, uint16), truth/cells.csv (file,
    label, classes: one row a cell, `file` as in labels.csv) and labels.csv (file, label, group, split; several
    localisations are separated by `|`). The group is the strain: its fields share protein and expression and stand on
    one side of the split. The tables are written when the generator ends or is closed, and list complete fields only.

    Parameters
    ----------
    out : Path
        The folder, made if it is missing. It must not hold a labels.csv yet.
    localisations : sequence of str, optional
        Classes of the screen, of `LOCALISATIONS`.
    fields_per_class : int, optional
        Number of fields of each class; a strain with two localisations counts for the first.
    fields_per_strain : int, optional
        Number of fields of each strain.
    validation : float, optional
        Share of the strains of each class that is set aside for validation; at least one strain if a class has two.
    seed : int, optional
        The same seed and options give the same arrays; a field does not depend on the number of the others.
    options : SimulationOptions, optional
        How the fields look.

    Yields
    ------
    Path
        The image that has just been written.

    Raises
    ------
    OptionsError
        If an option is out of range, or the cells do not fit into a field.
    OutputError
        If the folder holds a screen already or cannot be written.
    """
    names, options, out = _checked_labels(localisations), options or SimulationOptions(), Path(out)
    for name, value in (("fields_per_class", fields_per_class), ("fields_per_strain", fields_per_strain)):
        if value < 1:
            raise OptionsError(f"Found {name} = {value}: expected at least 1.")
    if seed < 0 or not 0 <= validation < 1:
        raise OptionsError(
            f"Found seed = {seed} and validation = {validation}: expected seed >= 0 and 0 <= validation < 1."
        )
    if (out / "labels.csv").exists():
        raise OutputError(f"{out} already holds a screen (labels.csv): choose another folder, or empty this one.")
    jobs = _plan(names, fields_per_class, fields_per_strain, validation, seed, options.multi_label)
    return _write_screen(out, list(jobs), options)


def _plan(
    names: tuple[str, ...], per_class: int, per_strain: int, validation: float, seed: int, multi_label: float
) -> Iterator[_Job]:
    """List the fields, classes in turn, so that a screen that is cut short still holds all of them."""
    strains = -(-per_class // per_strain)
    kept_back = min(max(round(validation * strains), validation > 0), strains - 1)
    for strain in range(strains):
        for name in names:
            seeds = (seed, LOCALISATIONS.index(name), strain)
            rng = np.random.default_rng([*seeds, 0])
            others = [other for other in names if other != name]
            second = (str(rng.choice(others)),) if others and rng.uniform() < multi_label else ()
            group = f"{name.replace(' ', '-')}-{strain + 1:02d}"
            split = "validation" if strain >= strains - kept_back else "train"
            for number in range(min(per_strain, per_class - strain * per_strain)):
                yield _Job(f"{group}_{number + 1}", group, split, (name, *second), seeds, number + 1)


def _write_screen(out: Path, jobs: Sequence[_Job], options: SimulationOptions) -> Generator[Path, None, None]:
    tables = _Tables()
    try:
        for job in jobs:
            protein = _draw_protein(job.labels, options, np.random.default_rng([*job.seeds, 0, 1]))
            simulated = _simulate(protein, options, np.random.default_rng([*job.seeds, job.number]))
            yield _write_field(out, job, simulated, tables)
    finally:
        if tables.fields:
            _write_tables(out, tables)


def _write_tables(out: Path, tables: _Tables) -> None:
    """Write both tables, labels.csv last: where it stands, all that it lists is complete."""
    for name, rows in (("truth/cells.csv", tables.cells), ("labels.csv", tables.fields)):
        with replacing(out / name) as part:
            pd.DataFrame(rows).to_csv(part, index=False)


def _write_field(out: Path, job: _Job, simulated: SimulatedField, tables: _Tables) -> Path:
    """Write one field and its truth, then enter it into the tables."""
    image = out / "images" / f"{job.name}.ome.tif"
    with replacing(out / "truth" / f"{job.name}.tif") as part:
        tifffile.imwrite(part, simulated.cells, compression="zlib")
    with replacing(image) as part:
        _write_ome(part, simulated.image)
    file = f"images/{image.name}"
    tables.cells += [
        {"file": file, "label": label, "classes": "|".join(classes)}
        for label, classes in simulated.cell_classes.items()
    ]
    tables.fields.append({"file": file, "label": "|".join(job.labels), "group": job.group, "split": job.split})
    return image


def _write_ome(path: Path, image: NDArray[np.uint16]) -> None:
    """Write an image (C, Y, X) as OME-TIFF with pixel size and channel names."""
    facts = {
        "axes": "CYX",
        "PhysicalSizeX": PIXEL_SIZE,
        "PhysicalSizeXUnit": "µm",
        "PhysicalSizeY": PIXEL_SIZE,
        "PhysicalSizeYUnit": "µm",
        "Channel": {"Name": list(CHANNELS)},
    }
    tifffile.imwrite(path, image, ome=True, photometric="minisblack", compression="zlib", metadata=facts)
