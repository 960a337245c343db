"""Pages of the docks: the mouse wheel scrolls them, and changes only a field that has the focus."""

from __future__ import annotations

import pytest

pytest.importorskip("napari")
from qtpy.QtCore import QPoint, QPointF, Qt
from qtpy.QtGui import QTextDocument, QWheelEvent
from qtpy.QtWidgets import QApplication, QComboBox, QLabel, QSlider, QSpinBox, QVBoxLayout, QWidget
from superqt import QLabeledSlider

from napari_milcnn.plugin.qt.forms import (
    Band,
    JobProgress,
    NarrowComboBox,
    Note,
    NoticesBox,
    chip,
    heading,
    plain_text,
    row,
    scrolled,
)
from napari_milcnn.plugin.qt.notices import Notice


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


HOSTILE = '<b>x</b><img src="x.png">'


def shown(label: QLabel) -> str:
    """Return the text of a label as the user sees it."""
    if label.textFormat() == Qt.TextFormat.PlainText:
        return label.text()
    document = QTextDocument()
    document.setHtml(label.text())
    return document.toPlainText()


def test_names_are_shown_as_they_are(qtbot):
    """A class, a group or a file may have a name that looks like HTML."""
    note, band, box = Note(), Band(), NoticesBox()
    layout = row(HOSTILE, QWidget())
    holder = QWidget()
    holder.setLayout(layout)
    for widget in (note, band, box, holder):
        qtbot.addWidget(widget)
    note.say(HOSTILE)
    band.show_on(HOSTILE, "#000000")
    box.show_notices((Notice("run", HOSTILE),))
    labels = [note, band, *box.findChildren(QLabel), *holder.findChildren(QLabel), heading(HOSTILE)]
    assert [shown(label) for label in labels] == [HOSTILE] * 5
    assert {label.textFormat() for label in labels} == {Qt.TextFormat.PlainText}


def test_a_note_that_was_rich_shows_the_next_text_as_it_is(qtbot):
    note = Note()
    qtbot.addWidget(note)
    note.say_rich(chip("#ff0000", HOSTILE))
    assert HOSTILE in shown(note).replace("\xa0", " ")
    note.say(HOSTILE)
    assert shown(note) == HOSTILE


def test_a_tooltip_shows_names_as_they_are():
    document = QTextDocument()
    document.setHtml(plain_text(f"{HOSTILE}\nsecond line"))
    assert document.toPlainText().replace("\u2028", "\n") == f"{HOSTILE}\nsecond line"
    assert plain_text("a > b & c") == "a > b & c"


def test_a_long_entry_of_a_combo_box_gives_way_in_its_middle(qtbot):
    box = NarrowComboBox()
    qtbot.addWidget(box)
    box.addItem("nuclei of HeLa cells in 384 wells, second training")
    box.resize(150, 24)
    first, last = box.shown_text().split("…")
    assert box.currentText().startswith(first)
    assert box.currentText().endswith(last)
    assert box.fontMetrics().horizontalAdvance(box.shown_text()) < 150
    box.grab()
    box.resize(900, 24)
    assert box.shown_text() == box.currentText()


def test_progress_is_drawn_with_what_else_is_drawn_and_not_by_itself(qtbot):
    class Counting(JobProgress):
        drawn = 0

        def paintEvent(self, event):
            self.drawn += 1
            super().paintEvent(event)

    bar = Counting()
    qtbot.addWidget(bar)
    with qtbot.waitExposed(bar):
        bar.show()
    qtbot.waitUntil(lambda: bar.drawn > 0)
    before = bar.drawn
    for share in (0.25, 0.5, 0.75):
        bar.say(share, "working")
    assert (bar.value(), bar.text(), bar.drawn) == (750, "working", before)
    qtbot.waitUntil(lambda: bar.drawn > before)
