"""The Train dock knows nothing itself: what there is to know stands in its session, and none of its parts is large."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

pytest.importorskip("napari")
from napari.viewer import Viewer
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QLayout, QWidget

from conftest import PATIENCE
from napari_milcnn.plugin.qt.job import SessionJobs
from napari_milcnn.plugin.train import dock as dock_module
from napari_milcnn.plugin.train.session import TrainSession
from qt_actions import open_dock, own_attributes

MOST_METHODS = 30
ALLOWED = (QWidget, QLayout, QTimer, SessionJobs, TrainSession, Viewer)


def test_a_dock_holds_its_session_widgets_and_what_carries_out_requests(make_napari_viewer, qtbot):
    _, dock = open_dock(make_napari_viewer(), "Train")
    qtbot.waitUntil(lambda: not dock.waits, timeout=PATIENCE)
    assert {name: type(one) for name, one in own_attributes(dock).items() if not isinstance(one, ALLOWED)} == {}
    assert dock.label_box.session is dock.session.labels


def test_while_networks_learn_the_settings_are_folded_and_what_is_learned_comes_first(make_napari_viewer, qtbot):
    _, dock = open_dock(make_napari_viewer(), "Train")
    qtbot.waitUntil(lambda: not dock.waits, timeout=PATIENCE)
    content = dock.settings.parentWidget().layout()
    assert dock.settings.is_open
    dock._fold(True)
    assert not dock.settings.is_open
    assert content.indexOf(dock.learning_box) < content.indexOf(dock.settings)
    dock._fold(False)
    assert dock.settings.is_open
    assert content.indexOf(dock.learning_box) > content.indexOf(dock.settings)


def test_no_class_has_more_methods_than_one_can_read():
    found = {}
    for path in Path(dock_module.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                found[node.name] = sum(isinstance(one, ast.FunctionDef) for one in node.body)
    assert len(found) > 30
    assert {name: count for name, count in found.items() if count > MOST_METHODS} == {}
