"""Every control of every dock can be understood and reached: tooltip, name for screen readers, Tab key, plain text."""

import pytest
from qtpy.QtCore import QSize, Qt
from qtpy.QtGui import QResizeEvent
from qtpy.QtWidgets import (
    QAbstractButton,
    QAbstractItemView,
    QAbstractSlider,
    QAbstractSpinBox,
    QComboBox,
    QLineEdit,
    QScrollBar,
    QTabBar,
    QWidget,
)

from napari_milcnn.plugin.qt.focus_ring import FocusRing
from qt_actions import open_dock, unfold

CONTROLS = (QAbstractButton, QAbstractSlider, QAbstractSpinBox, QComboBox, QLineEdit, QAbstractItemView)
PARTS = (QScrollBar, QTabBar)
"""Parts of Qt's own widgets, which their owners explain."""


def controls(dock: QWidget) -> list[QWidget]:
    """Return what a user can use in a dock: no parts of other controls, and nothing that Qt makes for itself."""
    found = [one for one in dock.findChildren(QWidget) if isinstance(one, CONTROLS) and not isinstance(one, PARTS)]
    return [one for one in found if not is_part(one, dock)]


def is_part(widget: QWidget, dock: QWidget) -> bool:
    """Whether a widget belongs to another control."""
    above = widget.parentWidget()
    while above is not None and above is not dock:
        if isinstance(above, (*CONTROLS, *PARTS)) or type(above).__name__ == "QTabWidget":
            return isinstance(above, (*CONTROLS, *PARTS))
        above = above.parentWidget()
    return False


def name(widget: QWidget) -> str:
    """Return what a screen reader says of a control."""
    text = widget.text() if isinstance(widget, QAbstractButton) else ""
    return widget.accessibleName() or (text if any(letter.isalpha() for letter in text) else "")


def path(widget: QWidget, dock: QWidget) -> str:
    """Say where a control is, for the list of faults."""
    names = [f"{type(widget).__name__} {name(widget)!r} {widget.objectName()!r}"]
    while (widget := widget.parentWidget()) is not None and widget is not dock:
        if type(widget).__module__.startswith("napari_milcnn"):
            names.append(type(widget).__name__)
    return " in ".join(names)


@pytest.mark.parametrize("which", ["Classify", "Train", "Results"])
def test_every_control_is_explained_named_and_reached(make_napari_viewer, which):
    _, dock = open_dock(make_napari_viewer(), which)
    unfold(dock)
    faults = []
    for one in controls(dock):
        faults += [f"no tooltip: {path(one, dock)}"] if not one.toolTip() else []
        faults += [f"no name: {path(one, dock)}"] if not name(one) else []
        faults += [f"no Tab: {path(one, dock)}"] if not one.focusPolicy() & Qt.FocusPolicy.TabFocus else []
    assert not faults, "\n".join(faults)


def test_who_walks_with_the_tab_key_sees_where_the_focus_is(make_napari_viewer, qapp):
    """A control has a ring that follows its size while it has the focus; the next one gets it, and a dead one none."""
    _, dock = open_dock(make_napari_viewer(), "Classify")
    one, other = dock.model_box.train_button, dock.model_box.models
    dock.window().setAttribute(Qt.WidgetAttribute.WA_KeyboardFocusChange)
    qapp.focusChanged.emit(None, one)
    one.resize(one.width() + 40, one.height())
    qapp.sendEvent(one, QResizeEvent(one.size(), QSize()))
    (ring,) = one.findChildren(FocusRing)
    assert ring.size() == one.size()
    with_ring = one.grab().toImage()
    qapp.focusChanged.emit(one, other)
    assert ring.isHidden()
    assert one.grab().toImage() != with_ring
    assert other.findChildren(FocusRing)
    dock.window().setAttribute(Qt.WidgetAttribute.WA_KeyboardFocusChange, False)
    qapp.focusChanged.emit(other, one)
    assert all(ring.isHidden() for ring in dock.findChildren(FocusRing))
