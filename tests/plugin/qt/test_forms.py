"""Pages of the docks: the mouse wheel scrolls them, and changes only a field that has the focus."""

from __future__ import annotations

import pytest

pytest.importorskip("napari")
from qtpy.QtCore import QPoint, QPointF, Qt
from qtpy.QtGui import QWheelEvent
from qtpy.QtWidgets import QApplication, QComboBox, QLineEdit, QSlider, QSpinBox, QVBoxLayout, QWidget
from superqt import QLabeledSlider

from conftest import PATIENCE
from napari_milcnn.plugin.qt.forms import scrolled


def turn_wheel(widget: QWidget) -> None:
    """Turn the wheel by one notch over a widget; what it ignores goes on to its parent, as from a real mouse."""
    middle = QPointF(widget.rect().center())
    event = QWheelEvent(
        middle, QPointF(widget.mapToGlobal(widget.rect().center())), QPoint(), QPoint(0, -120),
        Qt.MouseButton.NoButton, Qt.KeyboardModifier.NoModifier, Qt.ScrollPhase.NoScrollPhase, False,
    )  # fmt: skip
    QApplication.sendEvent(widget, event)
    while not event.isAccepted():
        widget = widget.parentWidget()
        event.accept()
        QApplication.sendEvent(widget, event)


@pytest.fixture
def page(qtbot):
    """Return a scroll area with a page that is twice as tall."""
    inside = QWidget()
    inside.setMinimumHeight(600)
    QVBoxLayout(inside)
    area = scrolled(inside)
    area.resize(200, 300)
    qtbot.addWidget(area)
    with qtbot.waitExposed(area):
        area.show()
    area.activateWindow()  # X gives the focus only to a window that it shows
    return area


def spin_box() -> QSpinBox:
    """Make a spin box that stands at 5."""
    field = QSpinBox()
    field.setValue(5)
    return field


def combo_box() -> QComboBox:
    """Make a list of nine entries that stands at the sixth."""
    field = QComboBox()
    field.addItems(list("abcdefghi"))
    field.setCurrentIndex(5)
    return field


def slider() -> QLabeledSlider:
    """Make a slider that stands at 5."""
    field = QLabeledSlider(Qt.Orientation.Horizontal)
    field.setValue(5)
    return field


@pytest.mark.parametrize("make", [spin_box, combo_box, slider])
def test_the_wheel_over_a_field_scrolls_the_page(page, qtbot, make):
    """Also over a field that is added after the page was built; with the focus, the wheel changes the field."""
    field, other = make(), QLineEdit()
    for one in (field, other):
        page.widget().layout().addWidget(one)
    other.setFocus()
    qtbot.waitUntil(lambda: field.isVisible() and other.hasFocus(), timeout=PATIENCE)
    inner = field.findChild(QSlider) or field
    value = field.currentIndex if make is combo_box else field.value
    bar = page.verticalScrollBar()
    turn_wheel(inner)
    assert value() == 5
    assert bar.value() > 0
    bar.setValue(0)
    inner.setFocus()
    qtbot.waitUntil(inner.hasFocus, timeout=PATIENCE)
    turn_wheel(inner)
    assert value() != 5
    assert bar.value() == 0
