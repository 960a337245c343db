"""Images that a model of nuclear phenotypes cannot know, kind by kind, each with the words that should be said of it.

Built from shared data and from simulation. 'Words' are alternatives, one of which should stand in the reason; a kind
without words may have any reason, because it differs in many ways. A kind that shows nothing should get no class.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import tifffile

from benchmarks.accuracy.cluttered_mnist import cluttered
from benchmarks.acquisition.changes import Image, blur, camera, gain, size
from napari_milcnn.simulation.microscope import simulate_field

SIDE = 512
OTHER_CLASSES = {"ADCCM": "Apoptosis", "Anaphase": "Binuclear", "Folded": "Elongated", "Grape": "Hole",
                 "Large": "Metaphase", "OutOfFocus": "Polylobed", "SmallIrregular": "Prometaphase"}  # fmt: skip
"""MitoCheck's other classes, and the class in whose place `compose_fields.py` composes fields of each."""


@dataclass(frozen=True)
class Sources:
    """What images are built from.

    Attributes
    ----------
    fields : list of Path
        Composed fields of unseen plates.
    other_stain : list of Path
        Fields of U2OS cells, GFP in the cytoplasm (BBBC016).
    digits, numbers : ndarray
        MNIST digits (digits, 28, 28) and what they are.
    """

    fields: list[Path]
    other_stain: list[Path]
    digits: np.ndarray
    numbers: np.ndarray

    @staticmethod
    def of(data: Path, fields: list[Path]) -> Sources:
        """Open the shared data."""
        with np.load(data / "mnist" / "digits.npz") as found:
            digits, numbers = found["x_validation"], found["y_validation"]
        return Sources(fields, sorted((data / "bbbc016" / "images").glob("*.tif")), digits, numbers)

    def field(self, rng: np.random.Generator) -> Image:
        """Read one of the composed fields, (Y, X) uint8."""
        return np.asarray(tifffile.imread(self.fields[int(rng.integers(len(self.fields)))]))


Maker = Callable[[Sources, np.random.Generator], Image]


@dataclass(frozen=True)
class Kind:
    """One kind of image.

    Attributes
    ----------
    make : callable
        Makes an image (Y, X) from the sources and random numbers.
    words : tuple of str
        One of them should stand in the reason; any reason will do if there are none.
    shows_nothing : bool
        Whether there is nothing to classify in it.
    """

    make: Maker
    words: tuple[str, ...] = ()
    shows_nothing: bool = False

    def is_named(self, reason: str) -> bool:
        """Whether a reason is given, and is the right one."""
        return bool(reason) and (not self.words or any(word in reason for word in self.words))


def flat(_sources: Sources, _rng: np.random.Generator, value: int) -> Image:
    """Return an image of one grey level."""
    return np.full((SIDE, SIDE), value, np.uint8)


def uniform_noise(_sources: Sources, rng: np.random.Generator) -> Image:
    """Return noise of every grey level."""
    return rng.integers(0, 256, (SIDE, SIDE), np.uint8)


def empty(_sources: Sources, rng: np.random.Generator, corners: float = 1.0) -> Image:
    """Return a field without cells: background, camera noise, and light that falls off to `corners`."""
    y, x = np.mgrid[-1 : 1 : SIDE * 1j, -1 : 1 : SIDE * 1j]
    light = 1 - (1 - corners) * (y**2 + x**2) / 2
    return camera(rng.uniform(8, 40) * light + rng.normal(0, 2, (SIDE, SIDE)))


def other_stain(sources: Sources, rng: np.random.Generator) -> Image:
    """Read a field of other cells with another stain."""
    return np.asarray(tifffile.imread(sources.other_stain[int(rng.integers(len(sources.other_stain)))]))


def other_cell(_sources: Sources, rng: np.random.Generator) -> Image:
    """Simulate budding yeast, the cytosol, over the grey levels of 8 bits."""
    counts = simulate_field(["cytoplasm"], rng=rng).image[1].astype(np.float32)
    low, high = np.percentile(counts, (1, 99.9))
    return camera((counts - low) / (high - low) * 200 + 8)


def digits(sources: Sources, rng: np.random.Generator) -> Image:
    """Return a hundred handwritten digits."""
    zeros, others = sources.digits[sources.numbers == 0], sources.digits[sources.numbers > 0]
    return cluttered(zeros, others, 30, rng)


def stripes(_sources: Sources, rng: np.random.Generator) -> Image:
    """Return stripes of a period of 12 to 40 px, with camera noise."""
    y, x = np.mgrid[:SIDE, :SIDE]
    angle, period = rng.uniform(0, np.pi), rng.uniform(12, 40)
    wave = np.sin(2 * np.pi * (y * np.sin(angle) + x * np.cos(angle)) / period)
    return camera(80 + 60 * wave + rng.normal(0, 2, (SIDE, SIDE)))


def inverted(sources: Sources, rng: np.random.Generator) -> Image:
    """Return a field with dark nuclei on a bright background."""
    return 255 - sources.field(rng)


def of_field(
    sources: Sources, rng: np.random.Generator, change: Callable[[Image, np.random.Generator], Image]
) -> Image:
    """Change a composed field."""
    return change(sources.field(rng), rng)


NOTHING = ("nothing to classify",)
TECHNICAL: dict[str, Kind] = {
    "black": Kind(partial(flat, value=0), NOTHING, True),
    "white": Kind(partial(flat, value=255), NOTHING, True),
    "uniform noise": Kind(uniform_noise, NOTHING, True),
    "empty field, camera noise": Kind(empty, NOTHING, True),
    "empty field, uneven light": Kind(partial(empty, corners=0.5), NOTHING, True),
    "another stain and cell (BBBC016)": Kind(other_stain),
    "another cell (yeast)": Kind(other_cell),
    "digits": Kind(digits),
    "stripes": Kind(stripes),
    "defocused, sigma 6 px": Kind(partial(of_field, change=partial(blur, sigma=6.0)), ("blurred",)),
    "inverted": Kind(inverted, ("bright",)),
    "saturated, gain x8": Kind(partial(of_field, change=partial(gain, factor=8.0)), ("saturated",)),
    "half size": Kind(partial(of_field, change=partial(size, factor=0.5)), ("smaller",)),
    "double size": Kind(partial(of_field, change=partial(size, factor=2.0)), ("larger",)),
}  # fmt: skip
"""Kinds in which the image itself, not the biology, is unlike the training images."""


def make(kind: str, sources: Sources, number: int) -> Image:
    """Make the image of a number of a technical kind; the number seeds its random numbers."""
    return TECHNICAL[kind].make(sources, np.random.default_rng([number, list(TECHNICAL).index(kind)]))
