"""Names of wells, alone and in the names of files."""

from __future__ import annotations

import pytest

from napari_milcnn.images.wells import Well, parse_well, plate_shape, well_name, wells_in


@pytest.mark.parametrize(("text", "well"), [
    ("B03", (1, 2)),
    ("B3", (1, 2)),
    ("b-03", (1, 2)),
    ("b3", (1, 2)),
    (" B03 ", (1, 2)),
    ("r02c03", (1, 2)),
    ("R2C3", (1, 2)),
    ("B/3", (1, 2)),
    ("B/03", (1, 2)),
    ("P24", (15, 23)),
    ("AA01", (26, 0)),
    ("AF48", (31, 47)),
    ("AA/1", (26, 0)),
    ("T01", (19, 0)),
    ("B00", None),
    ("B99", None),
    ("r33c01", None),
    ("AG01", None),
    ("xB03", None),
    ("B", None),
    ("", None),
])  # fmt: skip
def test_a_text_and_a_name_of_a_file_give_the_same_well(text: str, well: tuple[int, int] | None) -> None:
    """Both read the same ways of writing, and refuse what no plate has."""
    expected = well and Well(*well)
    assert parse_well(text) == expected
    assert wells_in([text]) == [expected]
    if expected is not None:
        assert well_name(text) == expected.name == well_name(expected.name)


@pytest.mark.parametrize(("text", "well"), [("B 03", (1, 2)), ("b_3", (1, 2)), ("t1", (19, 0)), ("aa1", (26, 0))])
def test_a_cell_of_a_table_may_be_written_more_freely_than_a_name(text: str, well: tuple[int, int]) -> None:
    """Who types a well into a column means a well; t1.tif is a time, and "b_3" may be the third of b."""
    assert parse_well(text) == Well(*well)
    assert wells_in([text]) == [None]


@pytest.mark.parametrize(("texts", "wells"), [
    (["plate1_B03_s1", "plate1_H12_s1"], [(1, 2), (7, 11)]),
    (["r02c03f01p01", "R10C24f02"], [(1, 2), (9, 23)]),
    (["p.zarr/B/3", "p.zarr/C/11"], [(1, 2), (2, 10)]),
    (["B3.tif", "C4.tif"], [(1, 2), (2, 3)]),
    (["b03", "c04"], [(1, 2), (2, 3)]),
    (["B03", "C04", "scan D05"], [(1, 2), (2, 3), (3, 4)]),
    (["AF48_x", "Z02_x"], [(31, 47), (25, 1)]),
    (["nucleus-01_1", "image"], [None, None]),
    (["t01", "t02", "z01"], [None, None, None]),
    (["B99.tif", "C00.tif"], [None, None]),
    ([], []),
])  # fmt: skip
def test_wells_in_names(texts: list[str], wells: list[tuple[int, int] | None]) -> None:
    """The first way of writing that most names follow; none where they are named by something else."""
    assert wells_in(texts) == [well and Well(*well) for well in wells]


def test_a_name_may_go_on_after_its_well() -> None:
    """In the name of a file text follows a well; a cell of a table with such a text names no well."""
    assert parse_well("B03x") is None
    assert wells_in(["B03x"]) == [Well(1, 2)]


def test_what_is_no_well_keeps_its_name() -> None:
    """Rows and columns of other plates stay as they are written."""
    assert [well_name(text) for text in ("control", "BA/117", "")] == ["control", "BA/117", ""]


def test_plates() -> None:
    """The smallest plate that has the wells."""
    assert Well(31, 0).name == "AF01"
    assert plate_shape([Well(3, 5)]) == (4, 6)
    assert plate_shape([Well(3, 6)]) == (8, 12)
    assert plate_shape([Well(14, 1)]) == (16, 24)
    assert plate_shape([Well(16, 1)]) == (32, 48)
