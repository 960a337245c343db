"""docs/actions.md has every action of the Classify dock's session."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

pytest.importorskip("psygnal")
from napari_milcnn.plugin.classify.session import ClassifySession

PAGE = Path(__file__).parents[3] / "docs" / "actions.md"
NOT_BY_THE_USER = {"attach", "release", "shown", "layers_removed", "run_is_over", "end_job", "is_current"}
"""Methods by which the dock tells the session about itself and the viewer."""


def test_every_action_of_the_session_is_in_the_table_of_its_dock():
    methods = {name for name, _ in inspect.getmembers(ClassifySession, inspect.isfunction) if not name.startswith("_")}
    section = PAGE.read_text(encoding="utf-8").partition("## Classify dock\n")[2].partition("\n## ")[0]
    first = [row.split("|")[1] for row in section.splitlines() if row.startswith("|")]
    assert {name for cell in first for name in re.findall(r"\(`(\w+)`\)", cell)} == methods - NOT_BY_THE_USER
