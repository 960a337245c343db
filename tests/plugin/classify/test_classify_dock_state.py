"""The Classify dock knows nothing itself: what there is to know stands in its session."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

pytest.importorskip("napari")
from magicgui.widgets import Container
from napari.viewer import Viewer
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QWidget

from napari_milcnn.plugin.classify import dock as dock_module
from napari_milcnn.plugin.classify.dock import DockForms, SessionLayers, session_of
from napari_milcnn.plugin.classify.session import ClassifySession
from napari_milcnn.plugin.layer_writer import LayerWriter
from qt_actions import open_dock, own_attributes

MOST_METHODS = 30
ALLOWED = (QWidget, Container, QTimer, ClassifySession, LayerWriter, SessionLayers, DockForms, Viewer)


def test_a_dock_holds_widgets_timers_the_session_and_the_writer(make_napari_viewer):
    viewer = make_napari_viewer()
    _, dock = open_dock(viewer, "Classify")
    held = {**own_attributes(dock), **own_attributes(dock.layers), **own_attributes(dock.forms)}
    assert {name: type(one) for name, one in held.items() if not isinstance(one, ALLOWED)} == {}
    assert (dock.session, dock.writer) == session_of(viewer)


def test_a_dock_that_is_opened_again_has_the_session_of_its_viewer_and_no_other(make_napari_viewer):
    viewer, other = make_napari_viewer(), make_napari_viewer()
    holder, dock = open_dock(viewer, "Classify")
    session = dock.session
    holder.destroyOnClose()
    _, again = open_dock(viewer, "Classify")
    assert again is not dock
    assert again.session is session
    assert session_of(other)[0] is not session


def test_no_class_has_more_methods_than_one_can_read():
    found = {}
    for path in Path(dock_module.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                found[node.name] = sum(isinstance(one, ast.FunctionDef) for one in node.body)
    assert len(found) > 20
    assert {name: count for name, count in found.items() if count > MOST_METHODS} == {}
