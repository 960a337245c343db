"""The section of the Train dock for the classes: colour, key, name and number of images of each."""

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
    QWidget,
)

from napari_milcnn.plugin.qt.forms import WARNING, Note, heading, plain_text, row, there, vertical_layout
from napari_milcnn.plugin.qt.icons import swatch
from napari_milcnn.plugin.train.label_session import KEYS

if TYPE_CHECKING:
    from napari_milcnn.labels.labelling_files import LabelClass

_MOST_ROWS_IN_VIEW = 6
_ROW_HEIGHT = 26


class _ClassName(QLabel):
    """The name of a class; a double click, F2 or Enter starts to rename it."""

    rename_requested = Signal()

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name
        self.setTextFormat(Qt.TextFormat.PlainText)
        self.setToolTip(plain_text(f"{name}: double-click to rename"))
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
        """Start to rename the class."""
        self.rename_requested.emit()

    def keyPressEvent(self, event: Any) -> None:
        """Start to rename the class."""
        if event.key() in (Qt.Key.Key_F2, Qt.Key.Key_Return, Qt.Key.Key_Enter):
            self.rename_requested.emit()
        else:
            super().keyPressEvent(event)


class ClassBox(QWidget):
    """A row for each class, and a field for a new one.

    Signals
    -------
    clicked : str
        Label the selected images with this class.
    added : str
        Add a class of this name.
    renamed, recoloured : str, str
        Give this class this name, or this colour.
    moved : str, int
        Move this class to this place.
    removed : str
        Remove this class.
    """

    clicked = Signal(str)
    added = Signal(str)
    renamed = Signal(str, str)
    recoloured = Signal(str, str)
    moved = Signal(str, int)
    removed = Signal(str)

    def __init__(self) -> None:
        super().__init__()
        self.classes: tuple[LabelClass, ...] = ()
        self.buttons: dict[str, QPushButton] = {}
        self.swatches: dict[str, QPushButton] = {}
        self.names: dict[str, _ClassName] = {}
        self.counts: dict[str, QLabel] = {}
        self.lifters: dict[str, QPushButton] = {}
        self.removers: dict[str, QPushButton] = {}
        self.renaming: QLineEdit | None = None
        self._to_remove = ""
        self.new = QLineEdit()
        self.new.setPlaceholderText("new class: type its name, press Enter")
        self.new.setAccessibleName("New class")
        self.new.setToolTip("Name of a phenotype that images show, such as nucleus; press Enter to add it")
        self.question, self.warnings = Note(), Note()
        self.remove, self.keep = QPushButton("Remove"), QPushButton("Keep")
        self.remove.setToolTip("Remove the class, and its label from every image; Undo brings both back")
        self.keep.setToolTip("Keep the class and its labels")
        self._lay_out()
        self.new.returnPressed.connect(self._on_add)
        self.remove.clicked.connect(self._on_removal)
        self.keep.clicked.connect(lambda: self._ask(""))
        self._ask("")

    def _lay_out(self) -> None:
        layout = vertical_layout(self, 4)
        layout.addWidget(heading("Classes"))
        self._area = QScrollArea()
        self._area.setWidgetResizable(True)
        self._area.setFrameShape(QFrame.Shape.NoFrame)
        self._area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        layout.addWidget(self._area)
        layout.addWidget(self.new)
        layout.addWidget(self.question)
        self._answers = QWidget()
        vertical_layout(self._answers).addLayout(row(self.remove, self.keep))
        layout.addWidget(self._answers)
        layout.addWidget(self.warnings)

    def show_classes(self, classes: Sequence[LabelClass], counts: Mapping[str, int], warnings: Sequence[str]) -> None:
        """Show the classes, how many images each has, and warnings about them."""
        if tuple(classes) != self.classes or not self.buttons:
            self.classes = tuple(classes)
            self._make_rows()
        for name, count in counts.items():
            self.counts[name].setText(str(count))
        self.warnings.say(" ".join(warnings), WARNING)
        if self._to_remove and not counts.get(self._to_remove):
            self._ask("")

    def _make_rows(self) -> None:
        for parts in (self.buttons, self.swatches, self.names, self.counts, self.lifters, self.removers):
            parts.clear()
        self.renaming = None
        before = self._area.takeWidget()
        if before is not None:
            before.deleteLater()  # it may hold the button that was clicked just now
        inside = QWidget()
        grid = QGridLayout(inside)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setSpacing(4)
        grid.setColumnStretch(2, 1)
        for i, each in enumerate(self.classes):
            for column, part in enumerate(self._row_of(i, each)):
                grid.addWidget(part, i, column)
        self._area.setWidget(inside)
        self._area.setFixedHeight((_ROW_HEIGHT + 4) * min(len(self.classes), _MOST_ROWS_IN_VIEW))
        self._area.setVisible(bool(self.classes))

    def _row_of(self, place: int, each: LabelClass) -> tuple[QWidget, ...]:
        name, key = each.name, str(place + 1) if place < KEYS else "+"
        colour, button, count = QPushButton(), QPushButton(key), QLabel("0")
        lifter, remover = QPushButton("↑"), QPushButton("×")
        colour.setIcon(swatch(each.colour))
        keys = f" (key {key}; Shift+{key} adds it as a further label)" if place < KEYS else ""
        for part, width, tip, spoken in (
            (colour, 26, f"Change the colour of {name}", f"colour of {name}"),
            (button, 30, f"Label the selected images as {name}{keys}", f"label {name}"),
            (lifter, 26, f"Move {name} up by one, to the number key before", f"move {name} up"),
            (remover, 26, f"Remove the class {name}", f"remove {name}"),
        ):
            part.setFixedSize(width, _ROW_HEIGHT)
            part.setToolTip(plain_text(tip))
            part.setAccessibleName(spoken)
        title = _ClassName(name)
        title.setFixedHeight(_ROW_HEIGHT)
        count.setAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        count.setToolTip(plain_text(f"Images labelled as {name}"))
        colour.clicked.connect(lambda: self._on_colour(each))
        button.clicked.connect(lambda: self.clicked.emit(name))
        lifter.setEnabled(place > 0)
        lifter.clicked.connect(lambda: self.moved.emit(name, place - 1))
        remover.clicked.connect(lambda: self._on_remove(name))
        title.rename_requested.connect(lambda: self._on_rename(name))
        self.swatches[name], self.buttons[name], self.names[name] = colour, button, title
        self.counts[name], self.lifters[name], self.removers[name] = count, lifter, remover
        return colour, button, title, count, lifter, remover

    # Adding, renaming, removing

    def _on_add(self) -> None:
        text = self.new.text().strip()
        if text:
            self.added.emit(text)

    def _on_colour(self, each: LabelClass) -> None:
        chosen = QColorDialog.getColor(QColor(each.colour), self, f"Colour of {each.name}")
        if chosen.isValid():
            self.recoloured.emit(each.name, chosen.name())

    def _on_rename(self, name: str) -> None:
        """Replace the name by a field; Enter or leaving the field renames the class, Escape does not."""
        field, title = _NameField(name), self.names[name]
        grid = there(there(self._area.widget()).layout())
        grid.replaceWidget(title, field)
        title.hide()
        self.renaming = field
        field.setFocus()
        field.selectAll()
        field.finished.connect(lambda text: self._renamed(name, text))

    def _renamed(self, name: str, text: str) -> None:
        self._restore_names()
        if text.strip() and text.strip() != name:
            self.renamed.emit(name, text)

    def _restore_names(self) -> None:
        """Show names instead of a field again."""
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
        self._to_remove = name
        self._answers.setVisible(bool(name))
        images = "1 image has" if count == 1 else f"{count} images have"
        self.question.say(f"{images} the label {name}. Remove the class and this label?" if name else "")

    def _on_removal(self) -> None:
        name = self._to_remove
        self._ask("")
        if name:
            self.removed.emit(name)


class _NameField(QLineEdit):
    """A name being edited.

    Signals
    -------
    finished : str
        The name that was typed; after Escape, the name from before.
    """

    finished = Signal(str)

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._before, self._done = name, False
        self.setFixedHeight(_ROW_HEIGHT)
        self.editingFinished.connect(lambda: self._finish(self.text()))

    def keyPressEvent(self, event: Any) -> None:
        """Leave with Escape."""
        if event.key() == Qt.Key.Key_Escape:
            self._finish(self._before)
        else:
            super().keyPressEvent(event)

    def _finish(self, text: str) -> None:
        if not self._done:
            self._done = True
            self.finished.emit(text)
