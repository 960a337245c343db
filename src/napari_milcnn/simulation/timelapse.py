"""A simulated protein that moves from one place to another."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from napari_milcnn.errors import OptionsError
from napari_milcnn.simulation.acquisition import NEUTRAL, taken
from napari_milcnn.simulation.cell import body_on_grid
from napari_milcnn.simulation.microscope import (
    checked_localisations,
    draw_protein,
    field_light,
    illumination_of,
    label_image,
    place_cells,
)
from napari_milcnn.simulation.options import SimulationOptions


def simulate_timelapse(
    label_from: str,
    label_to: str,
    frames: int = 12,
    options: SimulationOptions | None = None,
    rng: np.random.Generator | int = 0,
) -> tuple[NDArray[np.uint16], NDArray[np.uint16], pd.DataFrame]:
    """Simulate a protein that moves to another localisation, in each responding cell at a time of its own.

    Cells stay in place and keep their organelles, and buds grow. The penetrance is the share of cells that respond; in
    the others the protein stays where it was.

    Parameters
    ----------
    label_from, label_to : str
        Localisation before and after, out of `LOCALISATIONS`.
    frames : int, optional
        Number of frames, at least 2.
    options, rng : optional
        As in `simulate_field`.

    Returns
    -------
    image : ndarray
        (T, C, Y, X) uint16 in camera counts, channels as in `CHANNELS`.
    cells : ndarray
        (T, Y, X) uint16, 0 is background; a cell keeps its label over time.
    table : DataFrame
        One row per cell and frame: frame, label, moved (share of the protein that has moved) and classes (the
        localisation with the larger share).

    Raises
    ------
    OptionsError
        If a label is unknown, both are the same, there are fewer than 2 frames, or the cells do not fit.
    """
    options = options or SimulationOptions()
    labels, rng = checked_localisations((label_from, label_to)), np.random.default_rng(rng)
    if frames < 2:
        raise OptionsError(f"frames is {frames}; a time-lapse needs at least 2")
    protein, cells = draw_protein(labels, options, rng), place_cells(options, rng)
    moved = _relocation(len(cells), frames, options, rng)
    illumination = illumination_of(options, rng)
    pictures, outlines = [], []
    for frame in range(frames):
        bodies = [body_on_grid(cell, growth=0.6 + 0.4 * frame / (frames - 1)) for cell in cells]
        mixes = [_relocating_mix(label_from, label_to, share, protein.leak) for share in moved[frame].tolist()]
        light = field_light(bodies, mixes, protein, options)
        pictures.append(taken(light, illumination, NEUTRAL, options, rng).astype(np.uint16, copy=False))
        outlines.append(label_image(bodies, options))
    return np.stack(pictures), np.stack(outlines), _truth_table(moved, label_from, label_to)


def _truth_table(moved: NDArray[np.float64], label_from: str, label_to: str) -> pd.DataFrame:
    """Return one row per cell and frame of `moved` (frames, cells)."""
    frame_of, cell_of = np.indices(moved.shape)
    table = pd.DataFrame({"frame": frame_of.ravel(), "label": cell_of.ravel() + 1, "moved": moved.ravel()})
    return table.assign(classes=np.where(table["moved"] > 0.5, label_to, label_from))


def _relocation(count: int, frames: int, options: SimulationOptions, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return the share of the protein that has moved (frames, cells): within a few frames, at a time of each cell."""
    responding = rng.permutation(count) < round(rng.uniform(*options.penetrance) * count)
    start = rng.uniform(0.2, 0.75, count) * (frames - 1)
    pace = max(0.06 * frames, 0.3)
    moved: NDArray[np.float64] = 1 / (1 + np.exp(-(np.arange(frames)[:, None] - start) / pace))
    return np.where(responding, moved, 0.0)


def _relocating_mix(label_from: str, label_to: str, share: float, leak: float) -> dict[str, float]:
    """Return the share of the expression at each localisation when `share` of the protein has moved."""
    mix = {label_from: 1 - share, label_to: share}
    return mix | {"cytoplasm": max(mix.get("cytoplasm", 0.0), leak)}
