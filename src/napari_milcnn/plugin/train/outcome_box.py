"""What came of a training: figures with their intervals, calibration, the card, and where the model goes next."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QSettings, Signal
from qtpy.QtGui import QGuiApplication
from qtpy.QtWidgets import QLineEdit, QPushButton, QVBoxLayout, QWidget

from napari_milcnn.figures.plots import FigureStyle, confusion_figure, reliability_figure
from napari_milcnn.plugin.qt.figure import FigureBox
from napari_milcnn.plugin.qt.forms import WARNING, Note, heading, row

if TYPE_CHECKING:
    from napari_milcnn.evaluation.report import EvaluationReport

_FIELDS = {"name": "what it is called", "authors": "who made it; several with commas",
           "license": "such as CC-BY-4.0", "description": "what it tells apart, in a sentence"}  # fmt: skip
_NO_VALIDATION = "No validation: no image was kept aside, so how good it is cannot be said."
_SHOWN = ("accuracy", "balanced accuracy", "mean average precision", "group accuracy")


class OutcomeBox(QWidget):
    """Figures of a trained model, its card, and what to do with it.

    Signals
    -------
    use_asked, save_asked, results_asked
        Hand the model to the Classify dock; write the card into the model's file; open the Results dock.
    """

    use_asked = Signal()
    save_asked = Signal()
    results_asked = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.figures = Note()
        self.notes = Note()
        self.confusion = FigureBox("Confusion", 290)
        self.calibration = FigureBox("Calibration", 300)
        self.fields = {name: QLineEdit() for name in _FIELDS}
        self.use_button, self.save_button = QPushButton("Use it now"), QPushButton("Save card")
        self.results_button, self.copy_button = QPushButton("Open in Results"), QPushButton("Copy command")
        self.use_button.setToolTip("Make it the model of the Classify dock")
        self.save_button.setToolTip("Write name, authors and licence into the model's file")
        self.copy_button.setToolTip("The command line that repeats this training without a window")
        self.command = ""
        self._lay_out()
        self.use_button.clicked.connect(self.use_asked)
        self.save_button.clicked.connect(self.save_asked)
        self.results_button.clicked.connect(self.results_asked)
        self.copy_button.clicked.connect(lambda: QGuiApplication.clipboard().setText(self.command))

    def _lay_out(self) -> None:
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(heading("How good it is"))
        layout.addWidget(self.figures)
        layout.addWidget(self.notes)
        self.card = QWidget()
        card = QVBoxLayout(self.card)
        card.setContentsMargins(0, 0, 0, 0)
        card.addWidget(heading("Card"))
        stored = QSettings("napari-milcnn", "napari-milcnn")
        for name, field in self.fields.items():
            field.setPlaceholderText(_FIELDS[name])
            field.setAccessibleName(name)
            field.setText(str(stored.value(f"card_{name}") or "") if name in ("authors", "license") else "")
            card.addLayout(row(name, field, stretch=1))
        card.addLayout(row(self.use_button, self.save_button, self.copy_button))
        layout.addWidget(self.card)
        layout.addWidget(self.results_button)
        layout.addWidget(self.confusion)
        layout.addWidget(self.calibration)

    def facts(self) -> dict[str, Any]:
        """Return what stands on the card, as keywords of a `ModelCard`, and remember who made it."""
        texts = {name: field.text().strip() for name, field in self.fields.items()}
        stored = QSettings("napari-milcnn", "napari-milcnn")
        for name in ("authors", "license"):
            stored.setValue(f"card_{name}", texts[name])
        authors = tuple(one.strip() for one in texts["authors"].split(",") if one.strip())
        return {name: value for name, value in {**texts, "authors": authors}.items() if value}

    def show_report(
        self, report: EvaluationReport | None, style: FigureStyle, *, model: bool = True, why: str = ""
    ) -> None:
        """Show figures of images kept aside, or say why there are none; with the card where there is a model."""
        self.results_button.setVisible(report is not None)
        self.card.setVisible(model)
        if report is None:
            self.figures.say(why or _NO_VALIDATION, WARNING)
            self.notes.say("")
            self.confusion.show_figure(None)
            self.calibration.show_figure(None)
            return
        self.figures.say(_table(report))
        warned = [f"{text.rstrip('.')}." for text in report.warnings]
        self.notes.say(" ".join((_held(report, folds=report.folds is not None), *warned)))
        self.confusion.show_figure(lambda: confusion_figure(report.confusion, style))
        single = report.model.card.single_label
        self.calibration.show_figure(lambda: reliability_figure(report.reliability, single, style))


def _table(report: EvaluationReport) -> str:
    """Return the headline figures as rich text, each with its 95 % interval."""
    rows = []
    for name in _SHOWN:
        value, ends = report.figures[name], report.intervals.get(name)
        if not math.isnan(value):
            between = f"{ends[0]:.2f} to {ends[1]:.2f}" if ends else ""
            rows.append(f"<tr><td>{name} &nbsp;</td><td><b>{value:.3f}</b> &nbsp;</td><td>{between}</td></tr>")
    return f"<table>{''.join(rows)}</table>"


def _held(report: EvaluationReport, *, folds: bool) -> str:
    images, groups = len(report.outcomes) - len(report.failed), len(report.groups)
    of = f"{images} images of {groups} group{'s'[: groups != 1]}"
    if folds:
        return f"Each of {of} was told by a network that never saw its group."
    if report.options.split == "test":
        return f"On {of} marked test, which no training saw."
    return f"On {of} kept for validation. The best epoch was chosen on them too, which flatters it a little."
