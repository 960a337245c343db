"""The last tab of the Train dock: metrics of the trained model, its card, and where the model can be used."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Signal
from qtpy.QtGui import QGuiApplication
from qtpy.QtWidgets import QLineEdit, QPushButton, QWidget

from napari_milcnn.figures.plots import FigureStyle, confusion_figure, reliability_figure
from napari_milcnn.plugin.qt.figure import FigureBox
from napari_milcnn.plugin.qt.forms import WARNING, Note, heading, row, vertical_layout
from napari_milcnn.plugin.train.faithfulness_box import FaithfulnessBox
from napari_milcnn.plugin.user_settings import user_settings

if TYPE_CHECKING:
    from napari_milcnn.evaluation.report import EvaluationReport

NO_VALIDATION = "No validation: no images were held out, so the accuracy of the model is unknown."
_PLACEHOLDERS = {"name": "name of the model", "authors": "names, separated by commas",
                 "license": "for example CC-BY-4.0", "description": "one sentence"}  # fmt: skip
_REMEMBERED = ("authors", "license")
"""Fields of the card that the next session starts with."""
_HEADLINE_METRICS = ("accuracy", "balanced accuracy", "mean average precision", "group accuracy")


class OutcomeBox(QWidget):
    """Metrics of a trained model, its card, and what to do with the model.

    Signals
    -------
    use_requested
        Open the model in the Classify dock.
    save_requested
        Write the card into the model file.
    results_requested
        Open the report in the Results dock.
    """

    use_requested = Signal()
    save_requested = Signal()
    results_requested = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.figures = Note()
        self.notes, self.message = Note(), Note()
        self.confusion = FigureBox("Confusion matrix", 290)
        self.calibration = FigureBox("Calibration", 300)
        self.fields = {name: QLineEdit() for name in _PLACEHOLDERS}
        self.use_button, self.save_button = QPushButton("Use model"), QPushButton("Save card")
        self.results_button, self.copy_button = QPushButton("Open in Results"), QPushButton("Copy command")
        self.use_button.setToolTip("Open the Classify dock with this model")
        self.save_button.setToolTip("Write name, authors, licence and description into the model file")
        self.copy_button.setToolTip("Copy the terminal command that repeats this training")
        self.faithfulness = FaithfulnessBox()
        self.command = ""
        self._lay_out()
        self.use_button.clicked.connect(self.use_requested)
        self.save_button.clicked.connect(self.save_requested)
        self.results_button.clicked.connect(self.results_requested)
        self.copy_button.clicked.connect(lambda: QGuiApplication.clipboard().setText(self.command))

    def _lay_out(self) -> None:
        layout = vertical_layout(self)
        layout.addWidget(heading("Performance"))
        layout.addWidget(self.figures)
        layout.addWidget(self.notes)
        self.card = QWidget()
        card = vertical_layout(self.card)
        card.addWidget(heading("Model card"))
        for name, field in self.fields.items():
            field.setPlaceholderText(_PLACEHOLDERS[name])
            field.setAccessibleName(name)
            field.setText(str(user_settings().value(f"card_{name}") or "") if name in _REMEMBERED else "")
            card.addLayout(row(name, field, stretch=1))
        card.addLayout(row(self.use_button, self.save_button, self.copy_button))
        card.addWidget(self.message)
        layout.addWidget(self.card)
        layout.addWidget(self.results_button)
        layout.addWidget(self.confusion)
        layout.addWidget(self.calibration)
        layout.addWidget(self.faithfulness)

    def facts(self) -> dict[str, Any]:
        """Return the fields of the card as keywords of a `ModelCard`, and remember authors and licence."""
        texts = {name: field.text().strip() for name, field in self.fields.items()}
        for name in _REMEMBERED:
            user_settings().setValue(f"card_{name}", texts[name])
        authors = tuple(one.strip() for one in texts["authors"].split(",") if one.strip())
        return {name: value for name, value in {**texts, "authors": authors}.items() if value}

    def show_report(
        self, report: EvaluationReport | None, style: FigureStyle, *, model: bool = True, why: str = ""
    ) -> None:
        """Show the metrics of a report; without one, `why` there is none. The card is shown if there is a model."""
        self.message.say("")
        self.results_button.setVisible(report is not None)
        self.card.setVisible(model)
        if report is None:
            self.figures.say(why or NO_VALIDATION, WARNING)
            self.notes.say("")
            self.confusion.show_figure(None)
            self.calibration.show_figure(None)
            return
        self.figures.say_rich(_metrics_table(report))
        ranges = ["Ranges are 95 % intervals."] if report.intervals else []
        empty = report.model.card.training.structureless_sentence
        warnings = [f"{text[0].upper()}{text[1:].rstrip('.')}." for text in (*report.warnings, empty) if text]
        self.notes.say(" ".join((_images_sentence(report), *ranges, *warnings)))
        self.confusion.show_figure(lambda: confusion_figure(report.confusion, style))
        single = report.model.card.single_label
        self.calibration.show_figure(lambda: reliability_figure(report.reliability, single, style))


def _metrics_table(report: EvaluationReport) -> str:
    """Return the most important metrics as rich text, each with its 95 % interval."""
    rows = []
    for name in _HEADLINE_METRICS:
        value, ends = report.figures[name], report.intervals.get(name)
        if not math.isnan(value):
            between = f"{ends[0]:.2f} to {ends[1]:.2f}" if ends else ""
            rows.append(f"<tr><td>{name} &nbsp;</td><td><b>{value:.3f}</b> &nbsp;</td><td>{between}</td></tr>")
    return f"<table>{''.join(rows)}</table>"


def _images_sentence(report: EvaluationReport) -> str:
    """Say on which images the metrics were measured."""
    images, groups = len(report.outcomes) - len(report.failed), len(report.groups)
    count = f"{images} images from {groups} group{'s'[: groups != 1]}"
    if report.folds is not None:
        return f"Cross-validation on {count}: each image was predicted by a network that was not trained on its group."
    if report.options.split == "test":
        return f"Measured on {count} marked as test, which were not used in training."
    return (
        f"Measured on {count} held out for validation. The best epoch was chosen on the same images, so the values are "
        "slightly optimistic."
    )
