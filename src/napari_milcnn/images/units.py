"""Lengths in µm, whatever unit a file writes them in.

Decisions:

- A length whose unit is not known is no length: nothing is assumed to be in µm.
- A pixel has one size. Where its sides along Y and X differ, their mean is used and a sentence says so.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from typing import Final

MICROMETRES: Final = {  # keys after NFKC and lower(), which turn the micro sign into the Greek letter mu
    **dict.fromkeys(("m", "meter", "metre"), 1e6),
    **dict.fromkeys(("cm", "centimeter", "centimetre"), 1e4),
    **dict.fromkeys(("mm", "millimeter", "millimetre"), 1e3),
    **dict.fromkeys(("μm", "um", "μ", "micron", "microns", "micrometer", "micrometre"), 1.0),
    **dict.fromkeys(("nm", "nanometer", "nanometre"), 1e-3),
    **dict.fromkeys(("å", "angstrom"), 1e-4),
    **dict.fromkeys(("pm", "picometer", "picometre"), 1e-6),
    **dict.fromkeys(("in", "inch", "inches", '"'), 25400.0),
}
"""Unit of length -> its length in µm."""


def micrometres_per(unit: str) -> float | None:
    """Return the length of a unit in µm; None for a unit that is not a length."""
    text = unit.replace("\\u00B5", "µ").replace("\\u00b5", "µ")
    return MICROMETRES.get(unicodedata.normalize("NFKC", text).strip().lower())


def number_or_none(text: str | None) -> float | None:
    """Read a number; None where the text is not a number."""
    try:
        return None if text is None else float(text)
    except ValueError:
        return None


def pixel_size_from_sides(sides: Sequence[float | None], units: Sequence[str]) -> tuple[float | None, str | None]:
    """Return one size of a pixel in µm, and a sentence where its sides differ.

    Parameters
    ----------
    sides
        Sides of a pixel along Y and X; None where a side is not known.
    units
        The unit of each side.

    Returns
    -------
    size
        The size in µm; None where no side is known.
    note
        A sentence if the sides differ by more than 1 %, else None.
    """
    known = []
    for side, unit in zip(sides, units, strict=True):
        micrometres = micrometres_per(unit)
        if side is not None and micrometres is not None and 0 < side < math.inf:
            known.append(side * micrometres)
    if not known:
        return None, None
    mean = sum(known) / len(known)
    if max(known) - min(known) > 0.01 * mean:
        y, x = known
        return mean, f"The pixels are not square (Y {y:g} µm, X {x:g} µm); the mean, {mean:g} µm, is used."
    return (known[-1] if len(known) == 2 else mean), None
