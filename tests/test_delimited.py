"""Tables that people write, with any separator, mark and line end."""

from __future__ import annotations

from pathlib import Path

import pytest

from napari_milcnn.delimited import DelimitedTable, column_names, parse_delimited, read_delimited, split_labels


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_every_form_gives_the_same_table(tmp_path: Path, separator: str, line_end: str, encoding: str) -> None:
    """Lines without text are left out and still counted; short rows are filled; quotes hold a separator."""
    text = 'File;LABEL;\n\n a.tif ;ü;\n;;\n"b;c.tif"\n'.replace(";", separator).replace("\n", line_end)
    path = tmp_path / "a.csv"
    path.write_bytes(text.encode(encoding))
    assert read_delimited(path) == DelimitedTable(
        columns=("File", "LABEL", ""),
        rows=(("a.tif", "ü", ""), (f"b{separator}c.tif", "", "")),
        lines=(3, 5),
        separator=separator,
        encoding=encoding,
    )
    assert column_names(path) == ("File", "LABEL", "")


def test_a_separator_in_quotes_does_not_count() -> None:
    """Two cells by the comma, not three by the semicolon."""
    assert parse_delimited(b'"a;b;c",d\n1,2\n').columns == ("a;b;c", "d")


@pytest.mark.parametrize("separator", [",", ";", "\t", "|", "~"])
def test_a_first_line_names_the_separator(tmp_path: Path, separator: str) -> None:
    """The names of the columns stand in the second line; lines count from the first."""
    path = tmp_path / "a.csv"
    path.write_bytes(f"\ufeffsep={separator}\r\nfile{separator}label\r\n\r\na.tif{separator}x\r\n".encode())
    table = read_delimited(path)
    assert (table.columns, table.rows, table.lines) == (("file", "label"), (("a.tif", "x"),), (4,))
    assert (table.separator, table.names_separator) == (separator, True)
    assert column_names(path) == ("file", "label")
    with pytest.raises(ValueError, match="line 3 has more cells"):
        parse_delimited(f"sep={separator}\na\n1{separator}2\n".encode())


def test_a_table_has_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is too large or no file is refused before it is read; it has no columns."""
    with pytest.raises(OSError, match="it is a folder, expected a file"):
        read_delimited(tmp_path)
    with pytest.raises(OSError, match="it is a pipe or a device, expected a file"):
        read_delimited(Path("/dev/zero"))
    assert column_names(Path("/dev/zero")) == ()
    monkeypatch.setattr("napari_milcnn.delimited._LARGEST", 2**20)
    (tmp_path / "large.csv").write_bytes(b"a\n" * 2**20)
    with pytest.raises(OSError, match="it has 2097152 bytes, expected at most 1048576"):
        read_delimited(tmp_path / "large.csv")


def test_one_column_has_no_separator() -> None:
    """A list of names is a table too."""
    assert parse_delimited(b"well\nB03\n").rows == (("B03",),)


@pytest.mark.parametrize(("content", "said"), [
    (b"PK\x03\x04", "it is a spreadsheet; save it as 'CSV UTF-8'"),
    (b"\xd0\xcf\x11\xe0", "it is a spreadsheet"),
    ("a,b\n".encode("utf-16"), "it is UTF-16 text; save it"),
    (b"a,b\n\xe9,1\n", r"it is not UTF-8 text \(invalid continuation byte at byte 4\); save it as 'CSV UTF-8'"),
    (b"", "it is empty; expected a first line with the names of the columns"),
    (b"\n,,\n", "it is empty"),
    (b'a,b\n"1,2\n', "unexpected end of data in line 2; check the quotes there"),
    (b"a,b\n1,2,\n1,2,3\n", "line 3 has more cells than the 2 columns; a cell with a ',' in it needs quotes"),
])  # fmt: skip
def test_what_is_no_table_is_said(content: bytes, said: str) -> None:
    """Each with what to do."""
    with pytest.raises(ValueError, match=said):
        parse_delimited(content)


def test_any_file_has_a_first_line(tmp_path: Path) -> None:
    """Foreign bytes and an empty file are no error where only the names of columns are asked for."""
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xff\xfe\0a;b\n")
    assert len(column_names(path)) == 2
    path.write_bytes(b"")
    assert column_names(path) == ()


def test_labels_stand_between_bars() -> None:
    """Spaces, empty parts and repeats are dropped; the order stays."""
    assert split_labels(" b|a||b |") == ("b", "a")
    assert split_labels("") == ()
    assert split_labels("\u00e9|e\u0301") == ("\u00e9",)
