"""A field of simulated cells, as a microscope takes it.

The microscope is a high-content one with a cytosolic RFP in every strain: Chong et al. 2015, "Yeast proteome dynamics
from single cell imaging and automated analysis", Cell 161:1413.

Decisions:

- The image-level label is weak on purpose: only a share of the cells (the penetrance) shows it, and the others hold a
  weak diffuse protein.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from napari_milcnn.errors import OptionsError
from napari_milcnn.simulation.acquisition import (
    NEUTRAL,
    Acquisition,
    drawn_at_usual_size,
    resized_labels,
    taken,
)
from napari_milcnn.simulation.cell import (
    CHANNELS,
    FOOTPRINT,
    PAD,
    PIXEL_SIZE,
    PSF,
    Body,
    Cell,
    Floats,
    binned,
    body_on_grid,
)
from napari_milcnn.simulation.localisations import LOCALISATIONS, PAINTERS, Protein
from napari_milcnn.simulation.options import SimulationOptions


@dataclass(frozen=True)
class SimulatedField:
    """One simulated field of view and the truth for its cells.

    Attributes
    ----------
    image : ndarray
        (C, Y, X), channels as in `CHANNELS`; uint16 camera counts and pixels of `PIXEL_SIZE` µm, unless the
        acquisition says otherwise.
    cells : ndarray
        (Y, X) uint16, 0 is background; a mother and its bud have one label.
    cell_classes : dict
        Label of each cell -> the localisations that it shows, in the order of `labels`; () where it shows none.
    labels : tuple of str
        Image-level labels: the localisations of the protein.
    """

    image: NDArray[np.uint8 | np.uint16]
    cells: NDArray[np.uint16]
    cell_classes: dict[int, tuple[str, ...]]
    labels: tuple[str, ...]


def simulate_field(
    labels: Sequence[str], options: SimulationOptions | None = None, rng: np.random.Generator | int = 0
) -> SimulatedField:
    """Simulate one field of one strain.

    Parameters
    ----------
    labels : sequence of str
        Localisations of the protein, out of `LOCALISATIONS`. With two, a cell that shows the protein shows one or both.
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
    names, rng = checked_localisations(labels), np.random.default_rng(rng)
    return draw_field(draw_protein(names, options, rng), options, rng)


def checked_localisations(labels: Sequence[str]) -> tuple[str, ...]:
    """Return the names of localisations after a check that each is known and given once.

    Raises
    ------
    OptionsError
        If a name is unknown or given twice, or there is none.
    """
    names = (labels,) if isinstance(labels, str) else tuple(labels)
    allowed = ", ".join(LOCALISATIONS)
    unknown = [name for name in names if name not in LOCALISATIONS]
    if unknown:
        raise OptionsError(f"there is no localisation {unknown[0]!r}; expected one of {allowed}")
    if not names or len(set(names)) < len(names):
        raise OptionsError(f"the localisations are {list(names)}; give at least one, each once, out of {allowed}")
    return names


def draw_protein(labels: tuple[str, ...], options: SimulationOptions, rng: np.random.Generator) -> Protein:
    """Draw what all cells of a strain have in common."""
    return Protein(
        labels=labels,
        expression=float(np.clip(rng.lognormal(0, options.strain_spread), 0.35, 3.5)),
        leak=rng.uniform(0.05, 0.16),
        rim=float(rng.choice([0.0, 0.25, 0.5])),
        spots=rng.uniform(4, 9),
    )


def draw_field(
    protein: Protein, options: SimulationOptions, rng: np.random.Generator, acquisition: Acquisition = NEUTRAL
) -> SimulatedField:
    """Draw one field of a strain: its cells, what each shows, and the picture as its plate was taken."""
    drawn = drawn_at_usual_size(options, acquisition)
    cells = place_cells(drawn, rng)
    shown = _draw_shown(len(cells), protein.labels, options, rng)
    mixes = [_mix(classes, protein, options, rng) for classes in shown]
    image, labels = picture_of(cells, mixes, protein, options, acquisition, rng)
    return SimulatedField(image, labels, dict(enumerate(shown, start=1)), protein.labels)


def picture_of(
    cells: Sequence[Cell], mixes: Sequence[Mapping[str, float]], protein: Protein, options: SimulationOptions,
    acquisition: Acquisition, rng: np.random.Generator,
) -> tuple[NDArray[np.uint8 | np.uint16], NDArray[np.uint16]]:  # fmt: skip
    """Draw placed cells, each with its share of the protein at each localisation, as their plate was taken.

    Returns
    -------
    image : ndarray
        (C, Y, X), as the plate is stored.
    labels : ndarray
        (Y, X) uint16, 0 is background; cell i has the label i + 1.
    """
    drawn = drawn_at_usual_size(options, acquisition)
    bodies = [body_on_grid(cell) for cell in cells]
    light = field_light(bodies, mixes, protein, drawn, acquisition)
    image = taken(light, illumination_of(drawn, rng, acquisition), acquisition, options, rng)
    return image, resized_labels(label_image(bodies, drawn), acquisition, options)


def _draw_shown(
    count: int, labels: tuple[str, ...], options: SimulationOptions, rng: np.random.Generator
) -> list[tuple[str, ...]]:
    """Draw what each cell shows: a field has one penetrance, and if it is not 0 every label is in at least one cell."""
    penetrance = rng.uniform(*options.penetrance)
    showing = rng.permutation(count)[: int(np.ceil(penetrance * count - 1e-9))]
    shown: list[tuple[str, ...]] = [()] * count
    for place, index in enumerate(showing):
        both = place == 0 or rng.uniform() < 0.5
        shown[index] = labels if both else (labels[int(rng.integers(len(labels)))],)
    return shown


def _mix(
    classes: tuple[str, ...], protein: Protein, options: SimulationOptions, rng: np.random.Generator
) -> dict[str, float]:
    """Return the share of the expression at each localisation in one cell; diffuse protein is cytoplasmic."""
    weak = rng.uniform(*options.weak)
    if not classes:
        return {"cytoplasm": weak}
    amount = 1.0 if len(classes) == 1 else 0.75
    return {"cytoplasm": protein.leak} | dict.fromkeys(classes, amount)


def draw_cell(options: SimulationOptions, rng: np.random.Generator) -> Cell:
    """Draw a cell without a place: a mother 4 to 6 µm long, and a bud of any size near a pole of the mother."""
    along = rng.uniform(2.1, 3.0)
    bud = rng.uniform(0.2, 0.75) if rng.uniform() < options.budding else 0.0
    return Cell(
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


def place_cells(options: SimulationOptions, rng: np.random.Generator) -> list[Cell]:
    """Draw cells and place them side by side; a cell may touch others but hardly covers them.

    Raises
    ------
    OptionsError
        If the fewest cells asked for do not fit.
    """
    height, width = options.size
    fewest, wanted = options.cells[0], int(rng.integers(options.cells[0], options.cells[1], endpoint=True))
    taken = np.zeros((height + 2 * PAD, width + 2 * PAD), bool)
    placed: list[Cell] = []
    roomy = fewest * FOOTPRINT < 0.8 * height * width * PIXEL_SIZE**2
    for _ in range(40 * wanted if roomy else 0):
        cell = _try_place(draw_cell(options, rng), placed, taken, options, rng)
        placed += [cell] if cell else []
        if len(placed) == wanted:
            break
    if len(placed) < fewest:
        fit = max(1, int(0.45 * height * width * PIXEL_SIZE**2 / FOOTPRINT))
        raise OptionsError(
            f"there is no room for {fewest} cells in a field of {height} x {width} pixels (Y, X), which holds about "
            f"{fit}; ask for fewer cells or for a larger size"
        )
    return placed


def _try_place(
    cell: Cell, placed: Sequence[Cell], taken: NDArray[np.bool_], options: SimulationOptions, rng: np.random.Generator
) -> Cell | None:
    """Try one place for a cell, alone or beside another one; if it is free, mark it in `taken` and return the cell."""
    height, width = options.size
    y, x = rng.uniform(0, height), rng.uniform(0, width)
    if placed and rng.uniform() < options.clumping:
        beside = placed[int(rng.integers(len(placed)))]
        turn, gap = rng.uniform(0, 2 * np.pi), (beside.along + cell.along) * rng.uniform(0.88, 1.08) / PIXEL_SIZE
        y, x = beside.y + gap * np.sin(turn), beside.x + gap * np.cos(turn)
    if not (0 <= y < height and 0 <= x < width):
        return None
    moved = Cell(**{**vars(cell), "y": y, "x": x})
    body = body_on_grid(moved, PIXEL_SIZE)
    inside = body.whole() > 0
    if (inside & taken[body.window]).sum() > 0.02 * inside.sum():
        return None
    taken[body.window] |= inside
    return moved


def label_image(bodies: Sequence[Body], options: SimulationOptions) -> NDArray[np.uint16]:
    """Return the label image (Y, X): cell i has the label i + 1; where two cells touch, the first keeps the pixel."""
    height, width = options.size
    labels = np.zeros((height + 2 * PAD, width + 2 * PAD), np.uint16)
    for value, body in enumerate(bodies, start=1):
        part = labels[body.window]
        part[(part == 0) & (binned(body.whole() > 0) >= 0.5)] = value
    return labels[PAD:-PAD, PAD:-PAD].copy()


def field_light(
    bodies: Sequence[Body],
    mixes: Sequence[Mapping[str, float]],
    protein: Protein,
    options: SimulationOptions,
    acquisition: Acquisition = NEUTRAL,
) -> Floats:
    """Return the photons (C, Y, X) of cells, each with its share of the protein at each localisation, and of medium."""
    height, width = options.size
    light = np.zeros((len(CHANNELS), height + 2 * PAD, width + 2 * PAD), np.float32)
    for body, mix in zip(bodies, mixes, strict=True):
        light[(slice(None), *body.window)] += _cell_light(body, mix, protein, options)
    haze = gaussian_filter(light, (0, 1.4 / PIXEL_SIZE, 1.4 / PIXEL_SIZE))
    medium = options.background * acquisition.background
    seen: Floats = (light + options.haze * (haze - light) + medium)[:, PAD:-PAD, PAD:-PAD]
    return seen


def _cell_light(body: Body, mix: Mapping[str, float], protein: Protein, options: SimulationOptions) -> Floats:
    """Return the blurred light of one cell (C, Y, X), in photons, on the pixels of its window."""
    gfp = np.zeros_like(body.u)
    for name, amount in mix.items():
        gfp += amount * PAINTERS[name](body, protein)
    gfp = options.brightness * protein.expression * body.cell.gfp * gfp + options.autofluorescence * body.cytosol
    light = np.stack([gfp, options.rfp * body.cell.rfp * body.cytosol])
    sigma = math.hypot(PSF, body.cell.defocus) / body.step
    blurred = gaussian_filter(light, (0, sigma, sigma), truncate=3.0)
    return np.stack([binned(channel) for channel in blurred])


def illumination_of(options: SimulationOptions, rng: np.random.Generator, acquisition: Acquisition = NEUTRAL) -> Floats:
    """Return the relative illumination (Y, X): 1 near the middle and less towards the corners."""
    height, width = options.size
    centre = 0.5 + rng.uniform(-0.12, 0.12, 2)
    y = (np.arange(height) / height - centre[0])[:, None]
    x = (np.arange(width) / width - centre[1])[None, :]
    loss = options.vignetting * acquisition.vignetting
    relative: Floats = (1 - loss * 2 * (y**2 + x**2)).clip(0.05).astype(np.float32)
    return relative
