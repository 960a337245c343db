"""Lengths in µm, whatever unit a file writes them in, and in whatever language.

Decisions:

- A length whose unit is not known is no length: nothing is assumed to be in µm, and a sentence says what was found.
- A pixel has one size. Where its sides along Y and X differ, their mean is used and a sentence says so.
- A comma in a number is a decimal comma.
- A resolution in inches or centimetres that is usual for printing says nothing about the size of a cell: 300 dpi is the
  default of a program. One that no microscope has is not used either, and a sentence says so.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterator, Sequence
from itertools import product
from numbers import Real
from typing import Final

from napari_milcnn.untrusted import short

_METRE: Final = (
    *("m", "meter", "meters", "metern", "metre", "metres", "metro", "metros", "metri", "metr", "metry", "metru"),
    *("metrow", "metra", "metrai", "metras"),
)
_PREFIXES: Final = (
    (("",), 1e6), (("d", "deci", "dezi"), 1e5), (("c", "centi", "zenti", "senti"), 1e4), (("m", "milli", "mili"), 1e3),
    (("u", "μ", "mc", "mk", "micro", "mikro"), 1.0), (("n", "nano"), 1e-3), (("p", "pico", "piko"), 1e-6),
)  # fmt: skip
_OTHERS: Final = {
    ("μ", "micron", "microns", "micro", "micros", "micra", "micras", "micrones", "micrón", "micron(s)"): 1.0,
    ("mikron", "mikrons", "mikronen", "mikrony", "mikronow", "mikroni", "micrometer(s)"): 1.0,
    ("micrómetro(s)", "mikrometer(n)", "мкм", "микрон", "микрона", "микроны", "микронов", "микрометр"): 1.0,
    ("микрометра", "микрометры", "микрометров", "微米", "マイクロメートル", "ミクロン", "마이크로미터"): 1.0,
    ("нм", "нанометр", "нанометра", "нанометры", "нанометров", "纳米", "奈米", "ナノメートル", "나노미터"): 1e-3,
    ("мм", "миллиметр", "миллиметра", "миллиметры", "миллиметров", "毫米", "ミリメートル", "밀리미터"): 1e3,
    ("см", "сантиметр", "сантиметра", "сантиметры", "сантиметров", "厘米", "センチメートル", "센티미터"): 1e4,
    ("å", "angstrom", "angstroms", "ångström", "ångstrom"): 1e-4,
    ("in", "inch", "inches", '"', "zoll", "pouce", "pouces", "pulgada", "pulgadas", "pollice", "дюйм"): 25400.0,
    ("thou", "mil"): 25.4,
}  # fmt: skip


def _units() -> Iterator[tuple[str, float]]:
    """Yield each spelling, after NFKC and lower(), and its length in µm."""
    for (prefixes, length), stem in product(_PREFIXES, _METRE):
        yield from ((prefix + stem, length) for prefix in prefixes if len(prefix) > 2 or len(stem) < 2 or not prefix)
    for names, length in _OTHERS.items():
        yield from ((name, length) for name in names)


MICROMETRES: Final = dict(_units())
"""Unit of length -> its length in µm. The keys are in lower case, after NFKC, which turns the micro sign into mu."""
NO_UNIT: Final = frozenset({
    "", "pixel", "pixels", "pixel(s)", "px", "pix", "píxel", "píxeles", "pixeln", "пиксель", "пиксели", "像素",
    "ピクセル", "픽셀", "reference frame", "none", "null", "unknown", "uncalibrated", "no unit", "na", "n/a",
})  # fmt: skip
"""What programs write for a unit where nobody calibrated the image."""


PRINTING_DPI: Final = (72, 75, 90, 96, 100, 120, 144, 150, 180, 200, 240, 300, 350, 360, 400, 600, 720, 800, 1200, 1440)
"""Resolutions for printing, in pixels per inch; some programs write them in pixels per centimetre."""
PLAUSIBLE: Final = (0.001, 50.0)
"""Sizes of a pixel in µm that a resolution in inches or centimetres may mean."""
_PRINTING_UNIT: Final = 1e4
"""Length in µm from which on a unit is one of resolutions for printing: centimetre, inch and metre."""


POSSIBLE: Final = (1e-5, 1e5)
"""Sizes of a pixel in µm that are taken at all: those of electron microscopes, and of cameras that see a bench."""


def is_possible_size(size: object) -> bool:
    """Whether a value is a size of a pixel in µm that is taken."""
    return isinstance(size, Real) and not isinstance(size, bool) and POSSIBLE[0] <= float(size) <= POSSIBLE[1]


def unit_spelling(unit: str) -> str:
    """Return a unit in the spelling of the keys of `MICROMETRES`: escapes, brackets and "per pixel" are taken away."""
    text = re.sub(r"\\u([0-9a-fA-F]{4})", lambda found: chr(int(found[1], 16)), unit)
    text = text.replace("Âµ", "µ").replace("Î¼", "μ")  # UTF-8 that was read as Latin-1
    text = unicodedata.normalize("NFKC", text).strip(" \t\r\n\0").lower()
    text = re.sub(r"\s*(?:/|\bper\b)\s*(?:px|pix|pixels?)$", "", text)
    bare = text.strip("[]<>. ")
    return bare[1:-1].strip() if bare.startswith("(") and bare.endswith(")") else bare


def micrometres_per(unit: str) -> float | None:
    """Return the length of a unit in µm; None for a unit that is not a length."""
    if unit.strip() in ("Mm", "Pm"):  # megametre and petametre, which lower() would make small
        return None
    name = unit_spelling(unit)
    plain = "".join(each for each in unicodedata.normalize("NFD", name) if not unicodedata.combining(each))
    return MICROMETRES.get(name, MICROMETRES.get(plain))


def is_no_unit(unit: str) -> bool:
    """Whether a unit is what programs write for images that nobody calibrated."""
    return unit_spelling(unit) in NO_UNIT


def number_or_none(value: object) -> float | None:
    """Read a number, with a decimal point or comma; None where the value is not a finite number."""
    text = str(value).strip()
    if text.count(",") == 1 and "." not in text:
        text = text.replace(",", ".")
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _shown(text: object, number: float | None = None) -> str:
    """Return a number, or else a text out of a file that is fit for a sentence."""
    return f"{number:g}" if number is not None else short(str(text).strip(" \0\r\n"), 40)


def pixel_size_from_sides(sides: Sequence[object], units: Sequence[str]) -> tuple[float | None, str | None]:
    """Return one size of a pixel in µm, and a sentence where the sides differ or are not understood.

    Parameters
    ----------
    sides
        Sides of a pixel along Y and X, numbers or texts; None, "" or 0 where a side is not known.
    units
        The unit of each side.

    Returns
    -------
    size
        The size in µm; None where no side is known, or one is not understood.
    note
        A sentence if the sides differ by more than 1 %, or if a side or unit is not understood; else None.
    """
    stated = ((side, number_or_none(side), unit) for side, unit in zip(sides, units, strict=True))
    given = [each for each in stated if each[0] not in (None, "") and each[1] != 0]
    if all(is_no_unit(unit) and number == 1 for _, number, unit in given):
        return None, None
    lengths = [
        None if number is None or number < 0 or length is None else number * length
        for _, number, unit in given
        for length in [micrometres_per(unit)]
    ]
    known = [length for length in lengths if length is not None]
    if len(known) < len(lengths):
        texts = dict.fromkeys(f"{_shown(side, number)} {_shown(unit) or '(no unit)'}" for side, number, unit in given)
        return None, (
            f"The file gives the size of a pixel as {' x '.join(texts)}, which is not understood as a length; "
            "if you know the size, give it in µm."
        )
    mean = sum(known) / len(known)
    if not all(map(is_possible_size, known)):
        shown = " x ".join(f"{length:g}" for length in known)
        return None, (f"The file gives the size of a pixel as {shown} µm, which no microscope has; if you know "
                      "the size, give it in µm.")  # fmt: skip
    if max(known) - min(known) > 0.01 * mean:
        y, x = known
        return mean, f"The pixels are not square (Y {y:g} µm, X {x:g} µm); the mean, {mean:g} µm, is used."
    return (known[-1] if len(known) == 2 else mean), None


def pixel_size_from_resolution(per_unit: Sequence[float | None], unit: str) -> tuple[float | None, str | None]:
    """Return the size of a pixel in µm that pixels per unit of length along Y and X give, and a sentence if need be.

    The size is None where they say nothing about it (`says_nothing`).
    """
    if says_nothing(per_unit, unit):
        return None, None
    strange = strange_resolution(per_unit, unit)
    return (None, strange) if strange else pixel_size_from_sides([each and 1 / each for each in per_unit], [unit, unit])


def says_nothing(per_unit: Sequence[float | None], unit: str) -> bool:
    """Whether pixels per unit are missing, or are a resolution in inches or centimetres that is only for printing."""
    length, known = micrometres_per(unit) or 0, [each for each in per_unit if each]
    if length < _PRINTING_UNIT or not known:
        return not known
    return is_default_resolution(known) or is_default_resolution([25400 * each / length for each in known])


def strange_resolution(per_unit: Sequence[float | None], unit: str) -> str | None:
    """Return a sentence on pixels per inch, centimetre or metre that no microscope has; None for any other."""
    length, known = micrometres_per(unit) or 0, [each for each in per_unit if each]
    if length < _PRINTING_UNIT or all(PLAUSIBLE[0] < length / each < PLAUSIBLE[1] for each in known):
        return None
    texts = (" x ".join(dict.fromkeys(f"{value:.5g}" for value in values))
             for values in (known, [length / each for each in known]))  # fmt: skip
    return (f"The file gives a resolution of {next(texts)} pixels per {_shown(unit)}, so a pixel of {next(texts)} µm, "
            "which no microscope has; it is not used. If you know the pixel size, give it in µm.")  # fmt: skip


def is_default_resolution(resolutions: Sequence[float]) -> bool:
    """Whether all are what programs write by themselves: 1, or a usual resolution for printing or screens."""
    return all(any(abs(each / usual - 1) < 1e-3 for usual in (1, *PRINTING_DPI)) for each in resolutions)
