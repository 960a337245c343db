"""Pages of the docks: the mouse wheel scrolls them, and changes only a field that has the focus."""

from __future__ import annotations

import pytest

pytest.importorskip("napari")
from qtpy.QtCore import QPoint, QPointF, Qt
from qtpy.QtGui import QWheelEvent
from qtpy.QtWidgets import QApplication, QComboBox, QSlider, QSpinBox, QVBoxLayout, QWidget
from superqt import QLabeledSlider

from napari_milcnn.options import ComputeOptions
from napari_milcnn.plugin.qt.forms import options_form, scrolled


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
def test_the_wheel_over_a_field_scrolls_the_page(page, qtbot, monkeypatch, make):
    """Also over a field that is added after the page was built; with the focus, the wheel changes the field.

    Which window has the focus is up to the screen, so the field is told whether it has it.
    """
    field = make()
    page.widget().layout().addWidget(field)
    qtbot.waitUntil(field.isVisible)
    inner = field.findChild(QSlider) or field
    value = field.currentIndex if make is combo_box else field.value
    bar = page.verticalScrollBar()
    monkeypatch.setattr(inner, "hasFocus", lambda: False)
    turn_wheel(inner)
    assert value() == 5
    assert bar.value() > 0
    bar.setValue(0)
    monkeypatch.setattr(inner, "hasFocus", lambda: True)
    turn_wheel(inner)
    assert value() != 5
    assert bar.value() == 0


def test_the_wheel_gives_no_focus(page):
    """Fields get the focus by a click or the tab key; otherwise turning the wheel would first take it."""
    field = spin_box()
    assert field.focusPolicy() == Qt.FocusPolicy.WheelFocus
    page.widget().layout().addWidget(field)
    QApplication.processEvents()
    assert field.focusPolicy() == Qt.FocusPolicy.StrongFocus


def test_fields_of_a_form_have_names_for_screen_readers(qtbot):
    form = options_form(ComputeOptions, ("batch_size", "precision", "tile"), {})
    qtbot.addWidget(form.native)
    assert [field.native.accessibleName() for field in form] == ["batch size", "precision", "tile"]
