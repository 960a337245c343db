"""Lengths in µm, whatever a file writes them in."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from typing import Any, Final

MICROMETRES: Final = {  # keys after NFKC and lower(): the micro sign is then the Greek letter
    **dict.fromkeys(("m", "meter", "metre"), 1e6),
    **dict.fromkeys(("cm", "centimeter", "centimetre"), 1e4),
    **dict.fromkeys(("mm", "millimeter", "millimetre"), 1e3),
    **dict.fromkeys(("μm", "um", "μ", "micron", "microns", "micrometer", "micrometre"), 1.0),
    **dict.fromkeys(("nm", "nanometer", "nanometre"), 1e-3),
    **dict.fromkeys(("å", "angstrom"), 1e-4),
    **dict.fromkeys(("pm", "picometer", "picometre"), 1e-6),
    **dict.fromkeys(("in", "inch", "inches", '"'), 25400.0),
}


def micrometres_per(unit: str) -> float | None:
    """Return the length of a unit in µm, None for one that is no length."""
    text = unit.replace("\\u00B5", "µ").replace("\\u00b5", "µ")
    return MICROMETRES.get(unicodedata.normalize("NFKC", text).strip().lower())


def number_or_none(text: Any) -> float | None:
    """Read a number; None where the text is none."""
    try:
        return float(text)
    except (TypeError, ValueError):
        return None


def pixel_size_from_sides(sides: Sequence[float | None], units: Sequence[str]) -> tuple[float | None, str | None]:
    """Return the side of a pixel in µm from its sides along Y and X, and a note where they differ."""
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
