"""The classes that images are labelled with: colour, key, name, count; added, renamed, recoloured, removed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt, Signal
from qtpy.QtGui import QColor, QPainter
from qtpy.QtWidgets import (
    QColorDialog,
    QFrame,
    QGridLayout,
    QLabel,
    QLineEdit,
    QPushButton,
    QScrollArea,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)

from napari_milcnn.plugin.qt.forms import WARNING, Note, heading, row, swatch

if TYPE_CHECKING:
    from napari_milcnn.labels.labelling_files import LabelClass

KEYS = 9
_IN_SIGHT = 6
_ROW = 26


class _Name(QLabel):
    """The name of a class; a double click, F2 or Enter asks for another."""

    asked = Signal()

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name
        self.setTextFormat(Qt.TextFormat.PlainText)
        self.setToolTip(f"{name}: double click to rename")
        self.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.setAccessibleName(f"class {name}")

    def paintEvent(self, _event: Any) -> None:
        painter = QPainter(self)
        painter.setPen(self.palette().color(self.foregroundRole()))
        text = self.fontMetrics().elidedText(self._name, Qt.TextElideMode.ElideRight, self.width() - 2)
        painter.drawText(self.rect(), Qt.AlignmentFlag.AlignVCenter | Qt.AlignmentFlag.AlignLeft, text)
        if self.hasFocus():
            painter.drawLine(0, self.height() - 2, self.width(), self.height() - 2)
        painter.end()

    def mouseDoubleClickEvent(self, _event: Any) -> None:
        """Ask for another name."""
        self.asked.emit()

    def keyPressEvent(self, event: Any) -> None:
        """Ask for another name."""
        if event.key() in (Qt.Key.Key_F2, Qt.Key.Key_Return, Qt.Key.Key_Enter):
            self.asked.emit()
        else:
            super().keyPressEvent(event)


class ClassBox(QWidget):
    """A row for each class, and a field for a new one.

    Signals
    -------
    given : str
        The class was clicked: label with it.
    added : str
    renamed, recoloured : str, str
        The class, and its new name or colour.
    removed : str
    """

    given = Signal(str)
    added = Signal(str)
    renamed = Signal(str, str)
    recoloured = Signal(str, str)
    removed = Signal(str)

    def __init__(self) -> None:
        super().__init__()
        self.classes: tuple[LabelClass, ...] = ()
        self.buttons: dict[str, QPushButton] = {}
        self.swatches: dict[str, QPushButton] = {}
        self.names: dict[str, _Name] = {}
        self.counts: dict[str, QLabel] = {}
        self.removers: dict[str, QPushButton] = {}
        self.renaming: QLineEdit | None = None
        self._asked = ""
        self.new = QLineEdit()
        self.new.setPlaceholderText("new class, then Enter")
        self.question, self.warnings = Note(), Note()
        self.remove, self.keep = QPushButton("Remove"), QPushButton("Keep")
        self._lay_out()
        self.new.returnPressed.connect(self._on_add)
        self.remove.clicked.connect(self._on_removal)
        self.keep.clicked.connect(lambda: self._ask(""))
        self._ask("")

    def _lay_out(self) -> None:
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        layout.addWidget(heading("Classes"))
        self._area = QScrollArea()
        self._area.setWidgetResizable(True)
        self._area.setFrameShape(QFrame.Shape.NoFrame)
        self._area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        layout.addWidget(self._area)
        layout.addWidget(self.new)
        layout.addWidget(self.question)
        self._answers = QWidget()
        answers = QVBoxLayout(self._answers)
        answers.setContentsMargins(0, 0, 0, 0)
        answers.addLayout(row(self.remove, self.keep))
        layout.addWidget(self._answers)
        layout.addWidget(self.warnings)

    def show_classes(self, classes: Sequence[LabelClass], counts: Mapping[str, int], warnings: Sequence[str]) -> None:
        """Show the classes as they are now; the rows are made anew where they are others."""
        if tuple(classes) != self.classes or not self.buttons:
            self.classes = tuple(classes)
            self._make_rows()
        for name, count in counts.items():
            self.counts[name].setText(str(count))
        self.warnings.say(" ".join(warnings), WARNING)
        if self._asked and not counts.get(self._asked):
            self._ask("")

    def _make_rows(self) -> None:
        for parts in (self.buttons, self.swatches, self.names, self.counts, self.removers):
            parts.clear()
        self.renaming = None
        before = self._area.takeWidget()
        if before is not None:
            before.deleteLater()  # what was clicked may be in it
        inside = QWidget()
        grid = QGridLayout(inside)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setSpacing(4)
        grid.setColumnStretch(2, 1)
        for i, each in enumerate(self.classes):
            for column, part in enumerate(self._row_of(i, each)):
                grid.addWidget(part, i, column)
        self._area.setWidget(inside)
        self._area.setFixedHeight((_ROW + 4) * min(len(self.classes), _IN_SIGHT))
        self._area.setVisible(bool(self.classes))

    def _row_of(self, place: int, each: LabelClass) -> tuple[QWidget, ...]:
        name, key = each.name, str(place + 1) if place < KEYS else "+"
        colour, button, count, remover = QPushButton(), QPushButton(key), QLabel("0"), QPushButton("×")
        colour.setIcon(swatch(each.colour))
        told = f" (key {key}; with Shift in addition)" if place < KEYS else ""
        for part, width, tip, said in (
            (colour, 26, f"Choose another colour for {name}", f"colour of {name}"),
            (button, 30, f"Label the selected images {name}{told}", f"label {name}"),
            (remover, 26, f"Remove the class {name}", f"remove {name}"),
        ):
            part.setFixedSize(width, _ROW)
            part.setToolTip(tip)
            part.setAccessibleName(said)
        title = _Name(name)
        title.setFixedHeight(_ROW)
        count.setAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        count.setToolTip(f"images labelled {name}")
        colour.clicked.connect(lambda: self._on_colour(each))
        button.clicked.connect(lambda: self.given.emit(name))
        remover.clicked.connect(lambda: self._on_remove(name))
        title.asked.connect(lambda: self._on_rename(name))
        self.swatches[name], self.buttons[name], self.names[name] = colour, button, title
        self.counts[name], self.removers[name] = count, remover
        return colour, button, title, count, remover

    # What is asked for

    def _on_add(self) -> None:
        text = self.new.text().strip()
        if text:
            self.added.emit(text)

    def _on_colour(self, each: LabelClass) -> None:
        chosen = QColorDialog.getColor(QColor(each.colour), self, f"Colour of {each.name}")
        if chosen.isValid():
            self.recoloured.emit(each.name, chosen.name())

    def _on_rename(self, name: str) -> None:
        """Put a field in place of the name; Enter or leaving it renames, Escape does not."""
        field, title = _Field(name), self.names[name]
        grid = self._area.widget().layout()
        grid.replaceWidget(title, field)
        title.hide()
        self.renaming = field
        field.setFocus()
        field.selectAll()
        field.left.connect(lambda text: self._renamed(name, text))

    def _renamed(self, name: str, text: str) -> None:
        self._make_later()
        if text.strip() and text.strip() != name:
            self.renamed.emit(name, text)

    def _make_later(self) -> None:
        """Give the rows their names back."""
        counts = {name: label.text() for name, label in self.counts.items()}
        self._make_rows()
        for name, text in counts.items():
            self.counts[name].setText(text)

    def _on_remove(self, name: str) -> None:
        count = int(self.counts[name].text())
        if count:
            self._ask(name, count)
        else:
            self.removed.emit(name)

    def _ask(self, name: str, count: int = 0) -> None:
        self._asked = name
        self._answers.setVisible(bool(name))
        images = "1 image carries" if count == 1 else f"{count} images carry"
        self.question.say(f"{images} the label {name}, which goes too. Remove the class?" if name else "")

    def _on_removal(self) -> None:
        name = self._asked
        self._ask("")
        if name:
            self.removed.emit(name)


class _Field(QLineEdit):
    """A name being edited.

    Signals
    -------
    left : str
        What was typed; the name from before after Escape.
    """

    left = Signal(str)

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._before, self._done = name, False
        self.setFixedHeight(_ROW)
        self.editingFinished.connect(lambda: self._leave(self.text()))

    def keyPressEvent(self, event: Any) -> None:
        """Leave with Escape."""
        if event.key() == Qt.Key.Key_Escape:
            self._leave(self._before)
        else:
            super().keyPressEvent(event)

    def _leave(self, text: str) -> None:
        if not self._done:
            self._done = True
            self.left.emit(text)
