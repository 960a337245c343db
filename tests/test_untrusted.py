"""Names, cells and files of strangers."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_milcnn.untrusted import (
    check_regular,
    guarded_cell,
    name_fault,
    parse_json,
    read_regular,
    short,
    unguarded_cell,
    visible,
)


@given(st.text(alphabet="'=+-@\t\r1.e a", max_size=6) | st.text())
def test_a_cell_is_read_back_as_it_was(text: str) -> None:
    assert unguarded_cell(guarded_cell(text)) == text


@pytest.mark.parametrize("text", ["=cmd|' /C calc'!A0", "+1+cmd", "-1+cmd", "@SUM(1)", "\t=1", "'=1"])
def test_a_cell_that_a_spreadsheet_would_run_has_an_apostrophe(text: str) -> None:
    assert guarded_cell(text) == f"'{text}"


@pytest.mark.parametrize("text", ["-5", "+1e5", "a=b", "'tis", "", "1 - 2", "-inf"])
def test_other_cells_stay(text: str) -> None:
    assert guarded_cell(text) == text


@pytest.mark.parametrize("name", ["nucleus", "[/]", "<2 µm", "नि\u200dक", "細胞", "a" * 200, "x=y|z"])
def test_names(name: str) -> None:
    assert name_fault(name) is None


@pytest.mark.parametrize(
    "name",
    ["", "  ", "a\x1b[0m", "a\0", "a\nb", "\u202ex", "x\u2066", "\ud800", "\u2028", "\ufeffa", "a" * 201, "\x9b2J"],
)
def test_no_names(name: str) -> None:
    fault = name_fault(name)
    assert fault
    assert fault.isprintable()


def test_hidden_characters_are_shown_as_escapes() -> None:
    assert visible("a\x1b[0m\u202e\ud800\U000e0001é b") == "a\\x1b[0m\\u202e\\ud800\\U000e0001é b"
    assert visible("a\nb", kept="\n") == "a\nb"
    assert short("x" * 300, 10) == "x" * 9 + "…"


def test_files_without_an_end_are_not_read(tmp_path: Path) -> None:
    """A pipe, a device, a folder, and a file that is larger than its kind."""
    os.mkfifo(tmp_path / "pipe")
    for path, match in ((tmp_path / "pipe", "pipe or a device"), (Path("/dev/zero"), "device"), (tmp_path, "a folder")):
        with pytest.raises(OSError, match=match):
            read_regular(path, 10)
    (tmp_path / "file").write_bytes(b"x" * 10)
    assert read_regular(tmp_path / "file", 10) == b"x" * 10
    with pytest.raises(OSError, match="has 10 bytes, expected at most 9"):
        check_regular(tmp_path / "file", 9)
    with pytest.raises(OSError, match="has more than 5 bytes"):
        read_regular(Path("/proc/self/stat"), 5)


@pytest.mark.parametrize("content", [b"[" * 100_000, b"{", b"\xff", b'{"a": ' * 90_000, b"1" * 5000])
def test_json_made_to_hurt_is_a_value_error(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_json(content)
