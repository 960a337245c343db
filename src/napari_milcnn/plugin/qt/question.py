"""A question before something is lost, as it stands in a dock."""

from __future__ import annotations

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QPushButton, QWidget

from napari_milcnn.plugin.qt.forms import WARNING, Note, plain_text, row, vertical_layout
from napari_milcnn.plugin.qt.notices import Question


class QuestionBox(QWidget):
    """A question before something is lost, with a button for each answer; hidden while there is none.

    Signals
    -------
    answered : bool
        The user answered yes or no.
    """

    answered = Signal(bool)

    def __init__(self) -> None:
        super().__init__()
        self.text, self.yes, self.no = Note(), QPushButton("Yes"), QPushButton("No")
        self.yes.setToolTip("Go on")
        self.no.setToolTip("Leave everything as it is")
        layout = vertical_layout(self)
        layout.addWidget(self.text)
        layout.addLayout(row(self.yes, self.no))
        self.yes.clicked.connect(lambda: self.answered.emit(True))
        self.no.clicked.connect(lambda: self.answered.emit(False))
        self.hide()

    def ask(self, question: Question | None) -> None:
        """Ask a question, or none."""
        self.setVisible(question is not None)
        if question is not None:
            self.text.say(question.text, WARNING)
            for button, text in ((self.yes, question.yes), (self.no, question.no)):
                button.setText(text)
                button.setToolTip(plain_text(f"{text}: {question.text}"))
