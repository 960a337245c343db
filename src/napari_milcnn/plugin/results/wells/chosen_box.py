"""The strip below the views of the Results dock: which wells are at hand, what is like them, and what they show."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QFileDialog, QPushButton, QWidget

from napari_milcnn.plugin.qt.forms import (
    NarrowComboBox,
    Note,
    Section,
    browse_button,
    plain_text,
    row,
    there,
    vertical_layout,
)
from napari_milcnn.plugin.qt.question import QuestionBox
from napari_milcnn.plugin.results.plot_box import fill_choices
from napari_milcnn.plugin.results.wells.labels_session import WellLabelsSession
from napari_milcnn.plugin.results.wells.likeness_session import LikenessSession
from napari_milcnn.plugin.results.wells.wells_session import wells_in_words


class ChosenWellsBox(QWidget):
    """Shows the wells at hand; hidden where there are none.

    Signals
    -------
    train_asked : Path
        Open this table of labels to train from it.
    """

    train_asked = Signal(object)

    def __init__(self, likeness: LikenessSession, labels: WellLabelsSession) -> None:
        super().__init__()
        self.likeness, self.labels = likeness, labels
        self.like_button = QPushButton("Wells like this one")
        self.like_button.setToolTip("List the wells whose features are most like those of this well, in the view Wells")
        self.label, self.label_button = NarrowComboBox(), QPushButton("Label")
        self.label.setEditable(True)
        self.label.setAccessibleName("Label of the wells")
        self.label.setToolTip("What these wells show: one of the classes, or type a new one; A|B where it is both")
        there(self.label.lineEdit()).setPlaceholderText("what they show")
        self.label_button.setToolTip("Write this label for all images of these wells to the table of labels")
        self.table_button, self.table = browse_button("Table for the labels"), Note()
        self.table_button.setToolTip("Choose the table that labels go to, such as the one that the model learned from")
        self.train_button = QPushButton("Train on these labels")
        self.train_button.setToolTip("Open the table of labels in the Train dock")
        self.message, self.question = Note(), QuestionBox()
        self._lay_out()
        self.like_button.clicked.connect(likeness.list_like)
        self.label_button.clicked.connect(self._on_label)
        there(self.label.lineEdit()).returnPressed.connect(self._on_label)
        self.table_button.clicked.connect(self._on_table)
        self.train_button.clicked.connect(lambda: self.train_asked.emit(labels.table))
        self.question.answered.connect(labels.answer)
        labels.changed.connect(self._draw)
        self._draw()

    def _lay_out(self) -> None:
        inside = QWidget()
        layout = vertical_layout(inside)
        layout.addWidget(self.like_button)
        layout.addLayout(row(self.label, self.label_button, stretch=0))
        layout.addLayout(row(self.table, self.table_button, stretch=0))
        for part in (self.question, self.message, self.train_button):
            layout.addWidget(part)
        self.section = Section("Well", inside)
        vertical_layout(self).addWidget(self.section)

    def _draw(self) -> None:
        labels, wells = self.labels, self.labels.wells.at_hand
        self.setVisible(bool(wells))
        self.section.rename(f"Well {wells_in_words(wells)}" if len(wells) == 1 else wells_in_words(wells))
        self.like_button.setVisible(self.likeness.can_list)
        self.like_button.setEnabled(len(wells) == 1)
        typed = self.label.currentText()
        fill_choices(self.label, labels.classes)
        self.label.setEditText(typed)
        table = labels.table
        self.table.say("" if table is None else f"goes to {table.name} in {table.parent.name}")
        self.table.setToolTip("" if table is None else plain_text(str(table)))
        self.message.show_notice(labels.message)
        self.question.ask(labels.question)
        self.train_button.setVisible(labels.can_train)
        self.label_button.setEnabled(not labels.is_busy)

    def _on_label(self) -> None:
        self.labels.label(self.label.currentText())

    def _on_table(self) -> None:
        start = "" if self.labels.table is None else str(self.labels.table)
        options: Any = QFileDialog.Option.DontConfirmOverwrite  # rows are added to a table that is there
        path, _ = QFileDialog.getSaveFileName(self, "Table for the labels", start, "Tables (*.csv)", options=options)
        if path:
            self.labels.choose_table(Path(path))
