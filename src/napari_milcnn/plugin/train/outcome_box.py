"""The last tab of the Train dock: results with their metrics, the model's card, and where the model can be used."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QSignalBlocker, Signal
from qtpy.QtGui import QGuiApplication
from qtpy.QtWidgets import QLineEdit, QPushButton, QWidget

from napari_milcnn.figures.plots import FigureStyle, confusion_figure, reliability_figure
from napari_milcnn.model.faithfulness_words import EXPLANATION, HEADING, faithfulness_sentences, score_text
from napari_milcnn.options import EVIDENCE_NAMES
from napari_milcnn.plugin.qt.figure import FigureBox
from napari_milcnn.plugin.qt.forms import (
    WARNING,
    JobProgress,
    NarrowComboBox,
    Note,
    heading,
    row,
    there,
    vertical_layout,
)
from napari_milcnn.plugin.qt.notices import as_sentence
from napari_milcnn.plugin.user_settings import user_settings

if TYPE_CHECKING:
    from napari_milcnn.evaluation.report import EvaluationReport
    from napari_milcnn.model.card import MaskFaithfulness
    from napari_milcnn.model.trained_model import TrainedModel
    from napari_milcnn.plugin.train.session import TrainResult

NO_VALIDATION = "No validation: no images were held out, so the accuracy of the model is unknown."
_PLACEHOLDERS = {"name": "name of the model", "authors": "names, separated by commas",
                 "license": "for example CC-BY-4.0", "description": "one sentence"}  # fmt: skip
_REMEMBERED = ("authors", "license")
"""Fields of the card that the next session starts with."""
_CARD_TIPS = {
    "name": "Name of the model, as the docks list it", "authors": "Who made the model; several names with commas",
    "license": "Under which others may use the model, such as CC-BY-4.0",
    "description": "What the model recognises, in one sentence",
}  # fmt: skip
_ABOUT_METRICS = (
    "Balanced accuracy: the mean over the classes, so that a rare class counts as much as a common one. Mean average "
    "precision: 1 if, for every class, the images that show it have the highest scores. Group accuracy: share of "
    "wells, plates or strains that are right when their images vote."
)
_HEADLINE_METRICS = ("accuracy", "balanced accuracy", "mean average precision", "group accuracy")
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
        self.sentences, self.table, self.explanation = Note(), Note(), Note()
        self.measure_button, self.stop_button = QPushButton("Measure"), QPushButton("Stop")
        self.measure_button.setToolTip("Classify validation images with and without the pixels of their masks")
        self.stop_button.setToolTip("Stop measuring; the card stays as it is")
        self.progress = JobProgress("Progress of measuring")
        layout = vertical_layout(self)
        layout.addWidget(heading(HEADING))
        layout.addWidget(self.sentences)
        layout.addWidget(self.table)
        layout.addWidget(self.explanation)
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
    chosen : object
        Show this `TrainResult`.
    """

    use_requested = Signal()
    save_requested = Signal()
    results_requested = Signal()
    chosen = Signal(object)

    def __init__(self) -> None:
        super().__init__()
        self._shown: tuple[Any, ...] = ()
        self.choice = NarrowComboBox()
        self.choice.setAccessibleName("Result to show")
        self.choice.setToolTip("Trained models and cross-validations since napari was opened")
        self.choice.activated.connect(lambda place: self.chosen.emit(self.choice.itemData(place)))
        self.figures = Note()
        self.notes, self.message = Note(), Note()
        self.confusion = FigureBox("Confusion matrix", 290)
        self.calibration = FigureBox("Calibration", 300)
        self.fields = {name: QLineEdit() for name in _PLACEHOLDERS}
        self.use_button, self.save_button = QPushButton("Use model"), QPushButton("Save card")
        self.results_button, self.copy_button = QPushButton("Open in Results"), QPushButton("Copy command")
        self.use_button.setToolTip("Open the Classify dock with this model")
        self.save_button.setToolTip("Write name, authors, licence and description into the model file")
        self.results_button.setToolTip("Show every image of this evaluation in the Results dock")
        self.copy_button.setToolTip("Copy the terminal command that repeats this training")
        self.faithfulness = FaithfulnessBox()
        self.command = ""
        self._lay_out()
        self.use_button.clicked.connect(self.use_requested)
        self.save_button.clicked.connect(self.save_requested)
        self.results_button.clicked.connect(self.results_requested)
        self.copy_button.clicked.connect(lambda: there(QGuiApplication.clipboard()).setText(self.command))

    def _lay_out(self) -> None:
        layout = vertical_layout(self)
        layout.addWidget(self.choice)
        layout.addWidget(heading("Performance"))
        layout.addWidget(self.figures)
        layout.addWidget(self.notes)
        self.card = QWidget()
        card = vertical_layout(self.card)
        card.addWidget(heading("Model card"))
        for name, field in self.fields.items():
            field.setPlaceholderText(_PLACEHOLDERS[name])
            field.setAccessibleName(name)
            field.setToolTip(_CARD_TIPS[name])
            field.setText(str(user_settings().value(f"card_{name}") or "") if name in _REMEMBERED else "")
            card.addLayout(row(name, field, stretch=1))
        card.addLayout(row(self.use_button, self.save_button, self.copy_button))
        layout.addWidget(self.card)
        layout.addWidget(self.message)
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

    def show_result(self, result: TrainResult | None, every: Sequence[TrainResult], style: FigureStyle) -> None:
        """Show a result, and offer the others; the card is shown if there is a model."""
        with QSignalBlocker(self.choice):
            self.choice.clear()
            for one in every:
                self.choice.addItem(one.name, one)
            self.choice.setCurrentIndex(next((i for i, one in enumerate(every) if one is result), -1))
        self.choice.setVisible(len(every) > 1)
        if result is None or (result, style) == self._shown:
            return
        self._shown = (result, style)
        report, model = result.report, result.model
        self.command = result.command
        if model is not None:
            self.fields["name"].setText(model.card.name)
        self.results_button.setVisible(report is not None)
        self.card.setVisible(model is not None)
        self.faithfulness.show_model(model, can_measure=report is not None and report.folds is None)
        if report is None:
            self.figures.say(result.why or NO_VALIDATION, WARNING)
            self.notes.say("")
            self.confusion.show_figure(None)
            self.calibration.show_figure(None)
        else:
            self._show_report(report, style)

    def _show_report(self, report: EvaluationReport, style: FigureStyle) -> None:
        single = report.model.card.single_label
        self.figures.say_rich(f"{_in_a_sentence(report)}{_metrics_table(report)}")
        ranges = ["Ranges are 95 % intervals."] if report.intervals else []
        empty = report.model.card.training.structureless_sentence
        warnings = [as_sentence(text) for text in (*report.warnings, empty) if text]
        self.notes.say(" ".join((_images_sentence(report), *ranges, *warnings, _ABOUT_METRICS)))
        self.confusion.show_figure(lambda: confusion_figure(report.confusion, style))
        self.calibration.show_figure(lambda: reliability_figure(report.reliability, single, style))


def _in_a_sentence(report: EvaluationReport) -> str:
    """Say in plain words how many images were right; "" where an image may show several classes."""
    if not report.model.card.single_label:
        return ""
    images = len(report.outcomes) - len(report.failed)
    return (
        f"<b>Right on {round(report.figures['accuracy'] * images)} of {images} images that it did not learn from.</b>"
    )


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
