"""The parts of a simulated cell: its outline, its nuclei and its vacuoles.

Decisions:

- A cell is an ellipsoid, and its bud a second ellipsoid at its pole.
- A mother and its bud are ONE instance in the label image: they share one cytoplasm and one protein until they part.
- Every cell carries a seed, and each organelle is drawn from that seed alone. A cell of a time-lapse thus keeps its
  mitochondria from frame to frame, and a cell seen as two localisations has the same nucleus in both.
- All lengths are in µm in the frame of the cell: u along the long axis of the mother and v across it, from its centre.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

CHANNELS: Final[tuple[str, str]] = ("GFP", "RFP")
"""The channels, in order: the fusion protein, and the cytosolic marker that shows every cell."""
PIXEL_SIZE: Final = 0.16
"""Edge of a pixel in µm: a mother cell of 5 µm is about 32 pixels across."""
FINE = PIXEL_SIZE / 2
"""Step in µm of the grid that cells are drawn on, before it is binned to pixels."""
PAD = 64
"""Pixels around the field, more than a bud reaches out, so that cells at its border need no special case."""
DEPTH = 0.8
"""Half the depth that is in focus, in µm."""
PSF = 0.13
"""Standard deviation of the point spread function in focus, in µm."""
MARGIN = 0.9
"""Room for the blur around a cell, in µm."""
FOOTPRINT = 20.0
"""Area of a cell with its bud in µm², averaged over the draws below."""
Floats = NDArray[np.floating]
"""Pixels or grid points; float32 throughout, for speed."""


@dataclass(frozen=True)
class Solid:
    """An ellipsoid with its centre (u, v) on the focal plane, half axes along, across and up, turned by `angle`."""

    u: float
    v: float
    along: float
    across: float
    height: float
    angle: float = 0.0

    def half(self, u: Floats, v: Floats, shrink: float = 0.0) -> Floats:
        """Return half the thickness in µm at each place, 0 outside, with `shrink` µm removed all around."""
        cos, sin = math.cos(self.angle), math.sin(self.angle)
        du, dv = u - self.u, v - self.v
        p = (du * cos + dv * sin) / max(self.along - shrink, 1e-3)
        q = (dv * cos - du * sin) / max(self.across - shrink, 1e-3)
        dome: Floats = max(self.height - shrink, 0) * np.sqrt(np.maximum(1 - p * p - q * q, 0))
        return dome

    def place(self, sphere: NDArray[np.float64], shrink: float = 0.0) -> NDArray[np.float64]:
        """Map points of the unit ball (N, 3) into this solid: (N, 3), with the columns u, v and height above focus."""
        p, q, z = (sphere * (np.array([self.along, self.across, self.height]) - shrink).clip(0.05)).T
        cos, sin = math.cos(self.angle), math.sin(self.angle)
        return np.stack([self.u + p * cos - q * sin, self.v + p * sin + q * cos, z], axis=1)


@dataclass(frozen=True)
class Cell:
    """What is drawn at random once for a cell: its place (pixels), its shape (µm) and its brightness (relative)."""

    y: float
    x: float
    angle: float  # of the mother's long axis, radians
    along: float  # half axes of the mother
    across: float
    bud: float  # radius of the bud as a share of the mother's; 0 where there is no bud
    bud_angle: float  # from the long axis, radians
    warp: tuple[float, float, float, float]  # strength and phase of two ripples of the outline
    gfp: float
    rfp: float
    defocus: float
    seed: int

    def rng(self, part: int) -> np.random.Generator:
        """Return the random numbers of one part of this cell; they are the same at every call."""
        return np.random.default_rng([self.seed, part])

    @property
    def bud_radius(self) -> float:
        """Radius of the full-grown bud in µm."""
        return self.bud * math.sqrt(self.along * self.across)

    def solids(self, growth: float) -> tuple[Solid, ...]:
        """Return the mother and, where there is one, the bud, grown to `growth` (0 to 1) of its radius."""
        mother = Solid(0.0, 0.0, self.along, self.across, 0.95 * self.across)
        if not self.bud:
            return (mother,)
        cos, sin = math.cos(self.bud_angle), math.sin(self.bud_angle)
        reach = 1 / math.hypot(cos / self.along, sin / self.across)
        radius = self.bud_radius * growth
        at = reach + 0.83 * radius
        return mother, Solid(at * cos, at * sin, 1.08 * radius, 0.94 * radius, 0.94 * radius, self.bud_angle)


@dataclass(frozen=True)
class Body:
    """A cell laid on a grid: u and v of every grid point, and the solids of its parts."""

    cell: Cell
    window: tuple[slice, slice]  # of the padded field, in pixels
    step: float  # µm between grid points
    u: Floats
    v: Floats
    solids: tuple[Solid, ...]

    @cached_property
    def nuclei(self) -> tuple[Solid, ...]:
        """The nuclei of mother and bud."""
        return _nuclei(self)

    @cached_property
    def vacuoles(self) -> tuple[Solid, ...]:
        """The vacuoles of mother and bud."""
        return _vacuoles(self)

    @cached_property
    def cytosol(self) -> Floats:
        """Light of a protein that is everywhere in the cell except the vacuole; about 1 in the middle."""
        return (focused_light(self.whole()) - 0.85 * focused_light(self.union(self.vacuoles))).clip(0) / 1.1

    def whole(self, shrink: float = 0.0) -> Floats:
        """Return half the thickness of mother and bud in µm, with `shrink` µm removed all around."""
        return self.union(self.solids, shrink)

    def union(self, solids: Sequence[Solid], shrink: float = 0.0) -> Floats:
        """Return half the thickness in µm of several solids together."""
        thick = np.zeros_like(self.u)
        for solid in solids:
            np.maximum(thick, solid.half(self.u, self.v, shrink), out=thick)
        return thick

    def shell(self, solids: Sequence[Solid], depth: float, thickness: float) -> Floats:
        """Return the light of a membrane `depth` µm under the surface of some solids."""
        return focused_light(self.union(solids, depth)) - focused_light(self.union(solids, depth + thickness))


def focused_light(half: Floats) -> Floats:
    """Return the light of a column that glows `half` µm up and down; most of it comes from the depth in focus."""
    return 0.75 * np.minimum(half, DEPTH) + 0.25 * half


def body_on_grid(cell: Cell, step: float = FINE, growth: float = 1.0) -> Body:
    """Lay a cell on a grid of `step` µm; its window stays the same as the bud grows."""
    lean, radius = cell.angle + cell.bud_angle, cell.bud_radius
    middle = (cell.y + math.sin(lean) * radius / PIXEL_SIZE, cell.x + math.cos(lean) * radius / PIXEL_SIZE)
    reach = math.ceil((1.05 * cell.along + 1.1 * radius + MARGIN) / PIXEL_SIZE)
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
    window = slice(top + PAD, top + PAD + count), slice(left + PAD, left + PAD + count)
    return Body(cell, window, step, u * stretch, v * stretch, cell.solids(growth))


def _nuclei(body: Body) -> tuple[Solid, ...]:
    """Place the nucleus: off-centre; before mitosis at the bud neck; during it in mother and bud, or in the neck.

    About 7 % of the cell's volume (Jorgensen et al. 2007, Mol Biol Cell 18:3523).
    """
    cell, rng = body.cell, body.cell.rng(0)
    radius, squeeze = rng.uniform(0.36, 0.43) * cell.across, rng.uniform(0.9, 1.0)
    side, off, fate = rng.uniform(-np.pi, np.pi), rng.uniform(0.25, 0.45), rng.uniform()
    if cell.bud < 0.35:  # interphase; the nucleus already lies on the side of a small bud
        if cell.bud:
            off, side = 0.45, cell.bud_angle + 0.5 * side / math.pi
        u, v = off * cell.along * math.cos(side), off * cell.across * math.sin(side)
        return (Solid(u, v, radius, squeeze * radius, radius, side),)
    bud, cos, sin = body.solids[1], math.cos(cell.bud_angle), math.sin(cell.bud_angle)
    neck = math.hypot(bud.u, bud.v) - bud.along
    if cell.bud < 0.55 or fate < 0.25:  # at the neck
        at = neck - 0.9 * radius
        return (Solid(at * cos, at * sin, 1.05 * radius, 0.95 * radius, radius, cell.bud_angle),)
    if fate < 0.45:  # through the neck
        lobes, shape = (neck - 0.62 * radius, neck + 0.72 * radius), (0.95 * radius, 0.72 * radius, 0.75 * radius)
        return tuple(Solid(at * cos, at * sin, *shape, cell.bud_angle) for at in lobes)
    at, small = -0.8 * off * cell.along, min(0.84 * radius, 0.6 * bud.across)
    mother = Solid(at * cos, at * sin, 0.84 * radius, 0.8 * radius, 0.8 * radius, side)
    return mother, Solid(bud.u + 0.15 * small, bud.v, small, 0.95 * small, small, side)


def _vacuoles(body: Body) -> tuple[Solid, ...]:
    """Place one large or up to three smaller vacuoles beside the nucleus, and often one in a larger bud."""
    cell, rng = body.cell, body.cell.rng(1)
    count = int(rng.choice([1, 2, 3], p=[0.55, 0.28, 0.17]))
    sizes = rng.uniform(0.48, 0.64, 1) if count == 1 else rng.uniform(0.3, 0.46, count)
    found: list[Solid] = []
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
        found.append(Solid(bud.u + du, bud.v + dv, radius, radius, radius))
    return tuple(found)


def _first_free(tries: NDArray[np.float64], radius: float, cell: Cell, taken: Sequence[Solid]) -> Solid | None:
    """Return the first ball among `tries` (N, 2) that lies in the mother and beside the solids that are there."""
    room = np.array([cell.along, cell.across]) - radius - 0.08
    free = ((tries / room.clip(1e-3)) ** 2).sum(axis=1) < 1
    for solid in taken:
        free &= np.hypot(tries[:, 0] - solid.u, tries[:, 1] - solid.v) > 0.8 * radius + 0.75 * solid.along
    if not free.any():
        return None
    u, v = tries[int(np.argmax(free))]
    return Solid(float(u), float(v), radius, radius, 0.95 * radius)


def points_of_light(body: Body, points: NDArray[np.float64], light: NDArray[np.float64], width: float) -> Floats:
    """Draw points (N, 3) of some light (µm² at brightness 1) as blobs of sd `width` µm, wider out of focus."""
    cell, (rows, cols) = body.cell, body.window
    cos, sin = np.cos(cell.angle), np.sin(cell.angle)
    y = cell.y + (points[:, 0] * sin + points[:, 1] * cos) / PIXEL_SIZE - (rows.start - PAD)
    x = cell.x + (points[:, 0] * cos - points[:, 1] * sin) / PIXEL_SIZE - (cols.start - PAD)
    scale, shape = PIXEL_SIZE / body.step, body.u.shape
    row, col = (np.floor((c + 0.5) * scale).astype(np.intp) for c in (y, x))
    inside = (row >= 0) & (row < shape[0]) & (col >= 0) & (col < shape[1])
    flat = row[inside] * shape[1] + col[inside]
    sharp = np.exp(-0.5 * (points[inside, 2] / DEPTH) ** 2)
    drawn = np.zeros(shape, np.float32)
    for part, blur in ((sharp, width), (0.6 * (1 - sharp), width + 0.3)):
        layer = np.bincount(flat, light[inside] * part / body.step**2, minlength=drawn.size).reshape(shape)
        drawn += gaussian_filter(layer.astype(np.float32), blur / body.step)
    return drawn


def random_patches(body: Body, rng: np.random.Generator, shortest: float, longest: float) -> Floats:
    """Return a smooth random field of mean 0 and sd 1 over the cell, of waves between two lengths in µm."""
    waves = (2 * np.pi / rng.uniform(shortest, longest, 10)).tolist()
    turns, phases = rng.uniform(0, np.pi, 10).tolist(), rng.uniform(0, 2 * np.pi, 10).tolist()
    total = np.zeros_like(body.u)
    for wave, turn, phase in zip(waves, turns, phases, strict=True):
        total += np.cos(body.u * (wave * math.cos(turn)) + body.v * (wave * math.sin(turn)) + phase)
    return total / math.sqrt(5)


def binned(fine: NDArray[np.generic]) -> Floats:
    """Return the mean of each block of 2 x 2 grid points: from the fine grid to pixels."""
    rows, cols = fine.shape
    return np.asarray(fine.reshape(rows // 2, 2, cols // 2, 2).mean(axis=(1, 3), dtype=np.float32))
