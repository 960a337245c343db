"""The localisations: each paints the light of a protein in one cell, about 1 where a median protein is bright.

The model is the yeast GFP collection: Huh et al. 2003, "Global analysis of protein localization in budding yeast",
Nature 425:686.

Decisions:

- An organelle is a solid, a shell, or a cloud of points in the cell. Its picture is the chord through it, mostly within
  the focal depth and partly out of it: a diffuse protein is brightest in the middle, and a membrane is a ring with a
  faint face.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from napari_milcnn.simulation.cell import Body, Floats, Solid, focused_light, points_of_light, random_patches

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


@dataclass(frozen=True)
class Protein:
    """What all cells of a strain have in common."""

    labels: tuple[str, ...]
    expression: float  # relative to the median strain
    leak: float  # share that is diffuse, beside the localisation
    rim: float  # vacuole: share in the membrane rather than in the lumen
    spots: float  # punctate: mean number of spots in a cell


def _paint_nucleus(body: Body, protein: Protein) -> Floats:
    rest: Floats = focused_light(body.union(body.nuclei)) - 0.5 * _caps(body)
    return 1.75 * np.maximum(rest, 0)


def _caps(body: Body) -> Floats:
    """Return the light of the nucleolus: the crescent of the nucleus on the side away from the spindle pole body.

    Yang et al. 1989, Chromosoma 98:123. In a budding cell the spindle pole body faces the bud.
    """
    rng = body.cell.rng(2)
    total = np.zeros_like(body.u)
    for nucleus in body.nuclei:
        away = body.cell.bud_angle + np.pi + rng.normal(0, 0.7 if body.cell.bud else 3.0)
        du, dv, aslant = nucleus.across * math.cos(away), nucleus.across * math.sin(away), rng.uniform() < 0.3
        if aslant:  # the crescent lies above or below the focus, and is seen as a blot
            size = 0.55 * nucleus.across
            blot = Solid(nucleus.u + 0.4 * du, nucleus.v + 0.4 * dv, 1.2 * size, size, size, away + math.pi / 2)
            total += 0.9 * blot.half(body.u, body.v)
            continue
        shift, axes = rng.uniform(0.5, 0.75), (nucleus.along, 1.05 * nucleus.across, 1.1 * nucleus.height)
        rest = Solid(nucleus.u - shift * du, nucleus.v - shift * dv, *axes, nucleus.angle)
        total += (nucleus.half(body.u, body.v) - rest.half(body.u, body.v)).clip(0)
    return total


def _paint_nucleolus(body: Body, protein: Protein) -> Floats:
    return 3.0 * _caps(body)


def _paint_cytoplasm(body: Body, protein: Protein) -> Floats:
    grain = 1 + 0.05 * random_patches(body, body.cell.rng(3), 0.5, 1.2)
    light: Floats = grain * np.maximum(body.cytosol - 0.45 * focused_light(body.union(body.nuclei)), 0)
    return light


def _paint_periphery(body: Body, protein: Protein) -> Floats:
    patches: Floats = np.maximum(1 + 0.24 * random_patches(body, body.cell.rng(4), 0.6, 2.0), 0.3)
    light: Floats = 2.7 * body.shell(body.solids, 0.03, 0.14) * patches + 0.1 * body.cytosol
    return light


def _paint_er(body: Body, protein: Protein) -> Floats:
    """Draw the nuclear envelope, patches at the cell cortex and strands between (Preuss et al. 1991, Yeast 7:891)."""
    rng = body.cell.rng(5)
    envelope = body.shell(body.nuclei, 0.0, 0.2)
    patches = (0.55 + 0.75 * random_patches(body, rng, 1.0, 2.6)).clip(0.05, 1.5)
    cortex = body.shell(body.solids, 0.16, 0.16) * patches
    light: Floats = 2.3 * envelope + 2.0 * cortex + 0.16 * _strands(body, rng) + 0.15 * body.cytosol
    return light


def _strands(body: Body, rng: np.random.Generator) -> Floats:
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
    return points_of_light(body, points, np.full(len(path), 0.03 * 0.5), 0.09)


def _paint_mitochondria(body: Body, protein: Protein) -> Floats:
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
    drawn = points_of_light(body, points, np.concatenate(light), 0.07)
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


def _paint_vacuole(body: Body, protein: Protein) -> Floats:
    lumen = focused_light(body.union(body.vacuoles)) * (1 + 0.1 * random_patches(body, body.cell.rng(8), 0.6, 1.6))
    membrane = body.shell(body.vacuoles, 0.0, 0.14)
    return (1 - protein.rim) * 1.7 * lumen + protein.rim * 3.2 * membrane


def _paint_punctate(body: Body, protein: Protein) -> Floats:
    """Draw spots no larger than the point spread function, like endosomes, peroxisomes or P-bodies."""
    rng = body.cell.rng(7)
    count = int(np.clip(rng.poisson(protein.spots), 3, 12))
    ball = rng.normal(size=(count, 3))
    ball *= (rng.uniform(0.15, 1, (count, 1)) ** (1 / 3)) / np.linalg.norm(ball, axis=1, keepdims=True)
    mother, points = body.solids[0], []
    for index, point in enumerate(ball):
        in_bud = len(body.solids) > 1 and index % 4 == 3
        points.append((body.solids[1] if in_bud else mother).place(point[None], 0.3))
    light = 0.25 * rng.lognormal(0, 0.6, count)
    return points_of_light(body, np.concatenate(points), light, 0.07)


PAINTERS: Final[Mapping[str, Callable[[Body, Protein], Floats]]] = {
    "nucleus": _paint_nucleus,
    "nucleolus": _paint_nucleolus,
    "cytoplasm": _paint_cytoplasm,
    "cell periphery": _paint_periphery,
    "ER": _paint_er,
    "mitochondria": _paint_mitochondria,
    "vacuole": _paint_vacuole,
    "punctate": _paint_punctate,
}
