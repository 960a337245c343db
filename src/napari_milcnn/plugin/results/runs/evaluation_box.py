"""The form "Evaluate a model" of the Results dock: a model, a table of labels, and the options of evaluation."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from qtpy.QtWidgets import (
    QSpinBox,
    QWidget,
)

from napari_milcnn.options import (
    DEVICES,
    EvaluateOptions,
    ForegroundOptions,
    TrainOptions,
)
from napari_milcnn.plugin.current_model import current
from napari_milcnn.plugin.qt.forms import (
    NarrowComboBox,
    Note,
    Section,
    heading,
    row,
    vertical_layout,
)
from napari_milcnn.plugin.qt.option_forms import OptionsForm
from napari_milcnn.plugin.results.runs.evaluation_session import EvaluationChoices, EvaluationSession
from napari_milcnn.plugin.results.runs.run_box import COMPUTE_FIELDS, EVIDENCE_FIELDS, OPTION_CHOICES, PathField, RunBox

_EVALUATE_FIELDS = ("split", "bag", "faithfulness")
_INTERVAL_FIELDS = ("draws", "seed")
_LABELS_HELP = (
    "A CSV with the columns file and label and, if known, group and split; or a folder with one folder of images for "
    "each class. The images should be ones that the model has not seen."
)
_CALIBRATE_HELP = (
    "Calibrating makes the scores of the model mean what they say: of the images with a score of .8, eight in ten are "
    "then right. It needs images of every class that the model did not train on, in the proportions in which you meet "
    "them. Maps and masks stay as they are."
)
_FOLDS_HELP = (
    "Cross-validation: train a new model, from a random start, for each fold of whole groups, and measure it on the "
    "images of the fold that was held out; 0 measures the model as it is"
)


class EvaluationBox(RunBox[EvaluationSession]):
    """Draws an `EvaluationSession`, and tells it what the user chose."""

    def __init__(self, session: EvaluationSession) -> None:
        text = "The current model is the one that the Classify dock uses; it stays the current one"
        super().__init__(session, "Evaluate a model", "Model to evaluate", text)

    def _make_parts(self) -> None:
        self.task = NarrowComboBox()
        self.task.addItems(["measure how good it is", "calibrate its scores"])
        self.task.setAccessibleName("What to do with the model")
        self.task.setToolTip("Measure a model on images whose labels are known, or calibrate its scores on them")
        self.labels = PathField("Table of labels", _LABELS_HELP, kinds="Tables (*.csv *.tsv *.txt)")
        self.out = PathField("Results", "A new folder for the report and its tables", folder=True)
        self.model_out = PathField("Model to write", "The .zip of the calibrated model", saved="Models (*.zip)")
        self.truth = PathField(
            "Truth images", "Folder of truth images: 0 background, 1 another cell, 2 a cell of the image's phenotype; "
                            "measures whether the right cells are found", folder=True
        )  # fmt: skip
        self.layout_table = PathField(
            "Layout", "For an OME-Zarr plate in place of a table: a table of its wells with the columns well and label",
            kinds="Tables (*.csv *.tsv *.txt)",
        )  # fmt: skip
        self.card_out = PathField(
            "Model with its card", "With faithfulness: write the model with these figures on its card to this .zip",
            saved="Models (*.zip)",
        )  # fmt: skip
        self.folds = QSpinBox()
        self.folds.setRange(0, 50)
        self.folds.setSpecialValueText("no cross-validation")
        self.folds.setAccessibleName("Folds")
        self.folds.setToolTip(_FOLDS_HELP)
        self.forms = {
            names: OptionsForm(EvaluateOptions, names, OPTION_CHOICES)
            for names in (_EVALUATE_FIELDS, COMPUTE_FIELDS, _INTERVAL_FIELDS, EVIDENCE_FIELDS)
        }
        self.foreground = OptionsForm(ForegroundOptions, ForegroundOptions.model_fields)
        self.training = OptionsForm(TrainOptions, TrainOptions.model_fields, {"device": DEVICES})
        self.explanation = Note()
        self.stop_button.setText("Stop")
        self.stop_button.setToolTip("Stop at the next image; nothing is written")
        self.last_button.setText("Use the calibrated model")
        self.last_button.setToolTip("Make it the current model of all docks")

    def _lay_out(self) -> None:
        self.only_evaluation = QWidget()
        layout = self.lines
        layout.addWidget(self.task)
        layout.addWidget(self.explanation)
        layout.addLayout(row("model", self.model, self.model_button, stretch=1))
        layout.addLayout(row("labels", self.labels, stretch=1))
        layout.addLayout(row("results", self.out, self.model_out, stretch=1))
        only = vertical_layout(self.only_evaluation)
        only.addWidget(self.forms[_EVALUATE_FIELDS])
        only.addWidget(_section("Are the right cells found", self._truth_page()))
        only.addWidget(_section("Cross-validation", self._folds_page()))
        only.addWidget(_section("Intervals and card", self._intervals_page()))
        layout.addWidget(self.only_evaluation)
        layout.addWidget(_section("How the images are opened", self._reading_page()))
        layout.addWidget(_section("Computing", self.forms[COMPUTE_FIELDS]))
        layout.addWidget(self.problem)
        layout.addWidget(self.start_button)

    def _truth_page(self) -> QWidget:
        page = QWidget()
        layout = vertical_layout(page)
        layout.addLayout(row("truth", self.truth, stretch=1))
        layout.addWidget(self.forms[EVIDENCE_FIELDS])
        layout.addWidget(heading("How objects are found"))
        layout.addWidget(self.foreground)
        return page

    def _folds_page(self) -> QWidget:
        page = QWidget()
        layout = vertical_layout(page)
        layout.addLayout(row("folds", self.folds, stretch=1))
        self.training_section = _section("Training of each fold", self.training)
        layout.addWidget(self.training_section)
        return page

    def _intervals_page(self) -> QWidget:
        page = QWidget()
        layout = vertical_layout(page)
        layout.addWidget(self.forms[_INTERVAL_FIELDS])
        layout.addLayout(row("card", self.card_out, stretch=1))
        return page

    def _reading_page(self) -> QWidget:
        page = QWidget()
        layout = vertical_layout(page)
        layout.addWidget(self.reading)
        layout.addLayout(row("layout", self.layout_table, stretch=1))
        return page

    def _fields(self) -> Iterable[Any]:
        for path in (self.labels, self.out, self.model_out, self.truth, self.layout_table, self.card_out):
            yield path.changed
        for form in (*self.forms.values(), self.foreground, self.training):
            yield form.changed
        yield from (self.folds.valueChanged, self.task.currentIndexChanged)

    def choices(self) -> EvaluationChoices:
        """Return what the form says."""
        calibrate = self.task.currentIndex() == 1
        folds = self.folds.value() or None
        options: dict[str, Any] = {"device": self.forms[COMPUTE_FIELDS].values()["device"]}
        for form in () if calibrate else self.forms.values():
            options |= form.values()
        out = self.model_out if calibrate else self.out
        training = {} if calibrate or folds is None else self.training.given()
        only: dict[str, Any] = {} if calibrate else {
            "truth": self.truth.path(), "folds": folds, "card_out": self.card_out.path(),
            "foreground": self.foreground.given(),
        }  # fmt: skip
        return EvaluationChoices(
            calibrate=calibrate, model=self.model.currentData(), labels=self.labels.path(),
            layout=self.layout_table.path(), out=out.path(), options=options, training=training,
            reading=self.reading.values(), **only,
        )  # fmt: skip

    def _on_last(self) -> None:
        if self.session.calibrated is not None:
            current.set(self.session.calibrated.model)

    def _draw(self) -> None:
        session, calibrate = self.session, self.session.choices.calibrate
        self.explanation.say(_CALIBRATE_HELP if calibrate else "")
        self.only_evaluation.setVisible(not calibrate)
        self.out.setVisible(not calibrate)
        self.model_out.setVisible(calibrate)
        if not session.is_busy:
            for path in (self.out, self.model_out):
                path.suggest(session.out)
        self.training_section.setEnabled(session.choices.folds is not None)
        for field in self.forms[COMPUTE_FIELDS]:
            field.visible = not calibrate or field.name == "device"
        self.start_button.setText("Calibrate" if calibrate else "Evaluate")
        self.last_button.setVisible(session.calibrated is not None)


def _section(title: str, inside: QWidget) -> Section:
    return Section(title, inside, is_open=False)
