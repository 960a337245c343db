"""docs/actions.md: the functions, commands and options that it names exist, and no button of a dock is left out."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.main import get_command

import napari_milcnn as mil
from napari_milcnn.cli.app import app
from napari_milcnn.figures import plates, plots
from napari_milcnn.results import tables
from qt_actions import open_dock

pytest.importorskip("napari")
from qtpy.QtWidgets import QPushButton

ACTIONS = (Path(__file__).parents[2] / "docs" / "actions.md").read_text(encoding="utf-8")
CHOOSES_A_PATH = "…"
"""Text of buttons that open a dialog for the field beside them."""


def sections() -> dict[str, list[list[str]]]:
    """Return the title of each section -> its rows, as texts of cells, without the head."""
    found: dict[str, list[list[str]]] = {}
    for part in ACTIONS.split("\n## ")[1:]:
        lines = [line for line in part.splitlines() if line.startswith("|")]
        found[part.splitlines()[0]] = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]
    return found


ROWS = [(title, row) for title, rows in sections().items() for row in rows]


def test_each_row_says_how_it_is_done_without_a_window():
    assert ROWS
    assert [row for _, row in ROWS if len(row) != 3 or not all(row)] == []


@pytest.mark.parametrize("place", [("mil", mil), ("tables", tables), ("plots", plots), ("plates", plates)])
def test_the_functions_exist(place):
    name, module = place
    named = {found for _, row in ROWS for found in re.findall(rf"\b{name}\.(\w+)", row[1])}
    assert [one for one in sorted(named) if not hasattr(module, one)] == []


def test_the_commands_have_these_options():
    commands = get_command(app).commands
    for _, row in ROWS:
        for words in re.findall(r"`([^`]+)`", row[2]):
            first, flags = words.split()[0], re.findall(r"--[\w-]+", words)
            if not flags or first not in commands:
                continue
            known = {flag for one in commands[first].params for flag in (*one.opts, *one.secondary_opts)}
            assert set(flags) <= known, words


@pytest.mark.parametrize("dock", ["Classify", "Results", "Train"])
def test_no_button_is_left_out(make_napari_viewer, dock):
    _, widget = open_dock(make_napari_viewer(), dock)
    said = " ".join(row[0] for row in sections()[f"{dock} dock"])
    buttons = widget.findChildren(QPushButton)
    texts = {re.sub("^Continue with .*", "Continue with", one.text()) for one in buttons}  # then follows a folder
    assert sorted(text for text in texts - {CHOOSES_A_PATH} if text not in said) == []
