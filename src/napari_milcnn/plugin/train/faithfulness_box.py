"""The section of the Use tab that says how much of a model's scores hangs on its masks, and measures it."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QProgressBar, QPushButton, QWidget

from napari_milcnn.model.faithfulness_words import EXPLANATION, HEADING, faithfulness_sentences, score_text
from napari_milcnn.options import EVIDENCE_NAMES
from napari_milcnn.plugin.qt.forms import Note, heading, row, vertical_layout

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_milcnn.model.card import MaskFaithfulness
    from napari_milcnn.model.trained_model import TrainedModel

_NOT_MEASURED = (
    "Not measured yet. Up to eight validation images of each class are classified with and without the pixels of their "
    "masks, for each kind of evidence; the result is written on the card."
)
_BRACKETS = "In brackets: the same for as many pixels elsewhere."
_HEAD = "<tr><th align=left>{}</th><th align=right>lost</th><th align=right>stays</th></tr>"
_ROW = "<tr><td>{}</td><td align=right>{}&nbsp;({})</td><td align=right>{}&nbsp;({})</td></tr>"


class FaithfulnessBox(QWidget):
    """Shows the faithfulness on a model's card as sentences and as a table, and offers to measure it.

    Signals
    -------
    measure_requested
        Measure it on the validation images.
    stop_requested
        Stop measuring.
    """

    measure_requested = Signal()
    stop_requested = Signal()

    def __init__(self) -> None:
        super().__init__()
        self._can_measure = False
        self.sentences, self.table, self.explanation, self.message = Note(), Note(), Note(), Note()
        self.measure_button, self.stop_button = QPushButton("Measure"), QPushButton("Stop")
        self.progress = QProgressBar()
        self.progress.setRange(0, 1000)
        layout = vertical_layout(self)
        layout.addWidget(heading(HEADING))
        layout.addWidget(self.sentences)
        layout.addWidget(self.table)
        layout.addWidget(self.explanation)
        layout.addWidget(self.message)
        layout.addLayout(row(self.measure_button, self.stop_button))
        layout.addWidget(self.progress)
        self.measure_button.clicked.connect(self.measure_requested)
        self.stop_button.clicked.connect(self.stop_requested)
        self.show_measuring(False)

    def show_model(self, model: TrainedModel | None, *, can_measure: bool) -> None:
        """Show what stands on a model's card; it can be measured where images were held out."""
        found = () if model is None else model.card.faithfulness
        self.setVisible(bool(found) or can_measure)
        self._can_measure = can_measure and not found
        self.sentences.say("\n\n".join(faithfulness_sentences(found)) if found else _NOT_MEASURED)
        self.table.say_rich(_lost_and_kept(found))
        self.explanation.say(f"{_BRACKETS} {EXPLANATION}" if found else "")
        self.show_measuring(False)

    def show_measuring(self, measuring: bool) -> None:
        """Show the progress and Stop in place of Measure, or the other way round."""
        self.measure_button.setVisible(self._can_measure and not measuring)
        self.stop_button.setVisible(measuring)
        self.progress.setVisible(measuring)

    def show_progress(self, value: int, text: str) -> None:
        """Show how far the measuring has come, in thousandths, and in words."""
        self.progress.setValue(value)
        self.progress.setFormat(text)


def _lost_and_kept(found: Sequence[MaskFaithfulness]) -> str:
    """Return rich text: for each class and kind of evidence what is lost and what stays, elsewhere in brackets."""
    parts = []
    for name in dict.fromkeys(one.class_name for one in found if one.class_name is not None):
        rows = []
        for one in (one for one in found if one.class_name == name):
            values = one.lost, one.lost_elsewhere, one.mask_alone, one.elsewhere_alone
            rows.append(_ROW.format(EVIDENCE_NAMES[one.evidence], *map(score_text, values)))
        parts.append(_HEAD.format(escape(name)) + "".join(rows))
    return f"<table cellpadding=2>{''.join(parts)}</table>" if parts else ""
