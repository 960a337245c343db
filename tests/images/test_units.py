"""Units of length in the spellings of programs and languages, and one pixel size out of two sides."""

from __future__ import annotations

import pytest

from napari_milcnn.images.units import is_no_unit, micrometres_per, number_or_none, pixel_size_from_sides


@pytest.mark.parametrize(
    ("length", "names"),
    [
        (1.0, "um µm μm \\u00B5m micron Microns micrometer micrometers micrometre Mikrometer Mikrometern µ"),
        (1.0, "micromètre micromètres micrómetros micrômetro micrometri mikrometr mikrometri мкм микрометры 微米 mkm"),
        (1.0, "(µm) [um] µm/pixel um/px Âµm ㎛ ｕｍ um\0 mikron マイクロメートル"),
        (1e-3, "nm nanometer nanometers Nanometres nanómetro nanomètres нм ㎚"),
        (1e3, "mm millimeter millimetres Millimeter milímetro миллиметр MM"),
        (1e4, "cm centimeter Zentimeter centímetros"),
        (1e6, "m meter mètres metri"),
        (1e-4, "Å Angstrom Ångström"),
        (25400.0, "in inch inches Zoll pouces \""),
    ],
)  # fmt: skip
def test_spellings(length: float, names: str) -> None:
    """Every usual spelling is its length."""
    assert {name: micrometres_per(name) for name in names.split(" ")} == dict.fromkeys(names.split(" "), length)


@pytest.mark.parametrize("name", ["Mm", "Pm", "sec", "u", "", "pixel", "furlong", "volt", "µm²"])
def test_what_is_no_length(name: str) -> None:
    """A megametre is not taken for a millimetre, and nothing is assumed."""
    assert micrometres_per(name) is None
    assert is_no_unit(name) == (name in ("", "pixel"))


@pytest.mark.parametrize(
    ("text", "number"),
    [("0,325", 0.325), ("3.25e-7", 3.25e-7), (" 2 ", 2.0), (0.5, 0.5), ("1,234.5", None), ("nan", None), ("", None),
     ("inf", None), (None, None)],
)  # fmt: skip
def test_numbers(text: object, number: float | None) -> None:
    """A comma is a decimal comma; what is not a finite number is none."""
    assert number_or_none(text) == number


@pytest.mark.parametrize(
    ("sides", "units", "size", "word"),
    [
        ((0.3, 0.3), ("µm", "um"), 0.3, ""),
        (("0,65", "650"), ("µm", "nm"), 0.65, ""),
        ((0.6, 0.8), ("µm", "µm"), 0.7, "not square"),
        ((None, 0.5), ("µm", "µm"), 0.5, ""),
        ((0, 0), ("µm", "µm"), None, ""),
        ((1, 1), ("pixel", ""), None, ""),
        ((0.5, 0.5), ("pixel", "pixel"), None, "0.5 pixel, which is not understood"),
        ((0.5, 2), ("µm", "sec"), None, "0.5 µm x 2 sec, which is not understood"),
        (("abc", "abc"), ("µm", "µm"), None, "abc µm"),
        ((-1, -1), ("µm", "µm"), None, "-1 µm"),
        ((1e30, 1e30), ("µm", "µm"), None, "1e+30 x 1e+30 µm, which no microscope has"),
        ((1e-30, None), ("m", "m"), None, "1e-24 µm, which no microscope has"),
        ((float("nan"), 1), ("µm", "µm"), None, "nan µm x 1 µm"),
        ((2, 2), ("odd\n[/]" + "x" * 99, "")[:1] * 2, None, "2 odd\\x0a[/]xxx"),
    ],
)
def test_sides(sides: tuple[object, object], units: tuple[str, str], size: float | None, word: str) -> None:
    """A size or a sentence; nothing only where the file says nothing."""
    found, note = pixel_size_from_sides(sides, units)
    assert found == (size and pytest.approx(size))
    assert word in (note or "")
    assert bool(note) == bool(word)
    assert "\n" not in (note or "")
