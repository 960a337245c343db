"""The form "Evaluate a model" of the Results dock: a model, a table of labels, and the options of evaluation."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

from qtpy.QtCore import Signal
from qtpy.QtWidgets import (
    QDoubleSpinBox,
    QFileDialog,
    QFormLayout,
    QLineEdit,
    QPushButton,
    QSpinBox,
    QWidget,
)

from napari_milcnn.model.shipped import shipped_models
from napari_milcnn.options import (
    DETAILS,
    DEVICES,
    EVIDENCE_NAMES,
    EvaluateOptions,
    ForegroundOptions,
    TrainOptions,
    ZReading,
)
from napari_milcnn.plugin.current_model import current
from napari_milcnn.plugin.qt.forms import (
    JobProgress,
    NarrowComboBox,
    Note,
    NoticesBox,
    Section,
    browse_button,
    connect_while_alive,
    form_values,
    heading,
    options_form,
    plain_text,
    row,
    vertical_layout,
)
from napari_milcnn.plugin.results.evaluation import EvaluationChoices, EvaluationSession, EvaluationState
from napari_milcnn.plugin.user_settings import recent_models, remember_model

_DEFAULT = "default"
_EVALUATE_FIELDS = ("split", "bag", "faithfulness")
COMPUTE_FIELDS = ("device", "precision", "engine", "batch_size", "tile", "match_pixel_size")
_INTERVAL_FIELDS = ("draws", "seed")
_EVIDENCE_FIELDS = ("kind", "detail", "rule")
OPTION_CHOICES: dict[str, list[Any]] = {
    "device": list(DEVICES),
    "split": [("all images", None), *((f"only {name}", name) for name in ("train", "validation", "test"))],
    "kind": [(_DEFAULT, None), *((text, name) for name, text in EVIDENCE_NAMES.items())],
    "detail": [(_DEFAULT, None), *((str(one), one) for one in DETAILS)],
}
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


class PathField(QWidget):
    """A line for a path, with a button that opens a dialog; a path can be dropped on it.

    Signals
    -------
    changed
        Another path was entered.
    """

    changed = Signal()

    def __init__(self, name: str, tooltip: str, *, folder: bool = False, saved: str = "", kinds: str = "") -> None:
        super().__init__()
        self._name, self._folder, self._saved, self._kinds, self._suggested = name, folder, saved, kinds, ""
        self.line, self.button = _PathLine(), browse_button(f"Choose: {name}")
        self.line.setAccessibleName(name)
        self.line.setToolTip(tooltip)
        self.button.setToolTip(tooltip)
        layout = vertical_layout(self)
        layout.addLayout(row(self.line, self.button, stretch=0))
        self.line.textChanged.connect(self.changed)
        self.button.clicked.connect(self._on_browse)

    def path(self) -> Path | None:
        """Return the path; None for an empty line."""
        text = self.line.text().strip()
        return Path(text).expanduser() if text else None

    def suggest(self, path: Path | None) -> None:
        """Show what is taken where the line is empty."""
        self._suggested = "" if path is None else str(path)
        self.line.setPlaceholderText("" if path is None else f"{path.name} (new)")

    def _on_browse(self) -> None:
        start = self.line.text() or self._suggested
        if self._folder:
            found = QFileDialog.getExistingDirectory(self, self._name, start)
        elif self._saved:
            found, _ = QFileDialog.getSaveFileName(self, self._name, start, self._saved)
        else:
            found, _ = QFileDialog.getOpenFileName(self, self._name, start, self._kinds)
        if found:
            self.line.setText(found)


class _PathLine(QLineEdit):
    """A line that takes the path of what is dropped on it."""

    def dropEvent(self, event: Any) -> None:
        """Take the path of a dropped file or folder."""
        paths = [url.toLocalFile() for url in event.mimeData().urls() if url.isLocalFile()]
        if paths:
            event.acceptProposedAction()
            self.setText(paths[0])
        else:
            super().dropEvent(event)


class ReadingForm(QWidget):
    """How images are opened that do not say it themselves: the fields of `ImageReading`.

    Signals
    -------
    changed
        Another value was entered.
    """

    changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.axes, self.channels, self.z = QLineEdit(), QLineEdit(), NarrowComboBox()
        self.pixel_size, self.series = QDoubleSpinBox(), QSpinBox()
        self.pixel_size.setDecimals(4)
        self.pixel_size.setRange(0, 1000)
        self.series.setRange(-1, 9999)
        self.series.setValue(-1)
        self.z.addItem("each plane", "planes")
        self.z.addItem("maximum projection", "maximum")
        assert {self.z.itemData(i) for i in range(self.z.count())} == set(get_args(ZReading))
        self.plates = PathField("Table of plates", "For models that scale intensities by plate: a table with the "
                                "columns file, plate and control", kinds="Tables (*.csv)")  # fmt: skip
        layout = QFormLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        for name, widget, tip in (
            ("axes", self.axes, "Axes of files that do not say them, such as TCYX"),
            ("channels", self.channels, "Channel names in the order of the files, such as GFP,RFP"),
            ("pixel size (µm)", self.pixel_size, "Pixel size of files that do not say it"),
            ("series", self.series, "Number of the series to open, from 0, in files that hold several"),
            ("Z stacks", self.z, "Use each plane of a Z stack, or its maximum projection"),
        ):
            widget.setToolTip(tip)
            widget.setAccessibleName(name)
            layout.addRow(name, widget)
        layout.addRow("plates", self.plates)
        for box in (self.pixel_size, self.series):
            box.setSpecialValueText("as the files say")
            box.valueChanged.connect(self.changed)
        for line in (self.axes, self.channels):
            line.setPlaceholderText("as the files say")
            line.textChanged.connect(self.changed)
        self.z.currentIndexChanged.connect(self.changed)
        self.plates.changed.connect(self.changed)

    def values(self) -> dict[str, Any]:
        """Return the fields that were entered."""
        channels = tuple(name.strip() for name in self.channels.text().split(","))
        found = {
            "axes": self.axes.text().strip(), "channels": channels if any(channels) else None,
            "pixel_size": self.pixel_size.value(), "series": None if self.series.value() < 0 else self.series.value(),
            "z": self.z.currentData(), "plates": self.plates.path(),
        }  # fmt: skip
        return {name: value for name, value in found.items() if value is not None and value != "" and value != 0.0}


class EvaluationBox(QWidget):
    """Draws an `EvaluationSession`, and tells it what the user chose."""

    def __init__(self, session: EvaluationSession) -> None:
        super().__init__()
        self.session = session
        self._make_parts()
        self._lay_out()
        self._connect()
        fill_models(self.model)
        session.use(current.model)
        self._on_choice()

    def _make_parts(self) -> None:
        self.task, self.model = NarrowComboBox(), NarrowComboBox()
        self.task.addItems(["measure how good it is", "calibrate its scores"])
        self.task.setAccessibleName("What to do with the model")
        self.task.setToolTip("Measure a model on images whose labels are known, or calibrate its scores on them")
        self.model.setAccessibleName("Model to evaluate")
        self.model.setToolTip("The current model is the one that the Classify dock uses; it stays the current one")
        self.model_button = browse_button("Open the file of a model")
        self.model_button.setToolTip("Open a model .zip")
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
            names: options_form(EvaluateOptions, names, OPTION_CHOICES)
            for names in (_EVALUATE_FIELDS, COMPUTE_FIELDS, _INTERVAL_FIELDS, _EVIDENCE_FIELDS)
        }
        self.foreground = options_form(ForegroundOptions, tuple(ForegroundOptions.model_fields), {})
        self.training = options_form(TrainOptions, tuple(TrainOptions.model_fields), {"device": DEVICES})
        self.reading = ReadingForm()
        self.explanation, self.problem, self.doing, self.message = Note(), Note(), Note(), NoticesBox()
        self.start_button, self.stop_button = QPushButton("Evaluate"), QPushButton("Stop")
        self.stop_button.setToolTip("Stop at the next image; nothing is written")
        self.use_button = QPushButton("Use the calibrated model")
        self.use_button.setToolTip("Make it the current model of all docks")
        self.progress = JobProgress()

    def _lay_out(self) -> None:
        self.inside, self.only_evaluation = QWidget(), QWidget()
        layout = vertical_layout(self.inside)
        layout.addWidget(self.task)
        layout.addWidget(self.explanation)
        layout.addLayout(row("model", self.model, self.model_button, stretch=1))
        layout.addLayout(row("labels", self.labels, stretch=1))
        layout.addLayout(row("results", self.out, self.model_out, stretch=1))
        only = vertical_layout(self.only_evaluation)
        only.addWidget(self.forms[_EVALUATE_FIELDS].native)
        only.addWidget(_section("Are the right cells found", self._truth_page()))
        only.addWidget(_section("Cross-validation", self._folds_page()))
        only.addWidget(_section("Intervals and card", self._intervals_page()))
        layout.addWidget(self.only_evaluation)
        layout.addWidget(_section("How the images are opened", self._reading_page()))
        layout.addWidget(_section("Computing", self.forms[COMPUTE_FIELDS].native))
        layout.addWidget(self.problem)
        layout.addWidget(self.start_button)
        self.section = _section("Evaluate a model", self.inside)
        own = vertical_layout(self)
        own.addWidget(self.section)
        own.addWidget(self.progress)
        for part in (self.doing, self.stop_button, self.message):
            own.addWidget(part)
        own.addWidget(self.use_button)

    def _truth_page(self) -> QWidget:
        page = QWidget()
        layout = vertical_layout(page)
        layout.addLayout(row("truth", self.truth, stretch=1))
        layout.addWidget(self.forms[_EVIDENCE_FIELDS].native)
        layout.addWidget(heading("How objects are found"))
        layout.addWidget(self.foreground.native)
        return page

    def _folds_page(self) -> QWidget:
        page = QWidget()
        layout = vertical_layout(page)
        layout.addLayout(row("folds", self.folds, stretch=1))
        self.training_section = _section("Training of each fold", self.training.native)
        layout.addWidget(self.training_section)
        return page

    def _intervals_page(self) -> QWidget:
        page = QWidget()
        layout = vertical_layout(page)
        layout.addWidget(self.forms[_INTERVAL_FIELDS].native)
        layout.addLayout(row("card", self.card_out, stretch=1))
        return page

    def _reading_page(self) -> QWidget:
        page = QWidget()
        layout = vertical_layout(page)
        layout.addWidget(self.reading)
        layout.addLayout(row("layout", self.layout_table, stretch=1))
        return page

    def _connect(self) -> None:
        for path in (self.labels, self.out, self.model_out, self.truth, self.layout_table, self.card_out):
            path.changed.connect(self._on_choice)
        for form in (*self.forms.values(), self.foreground, self.training):
            form.changed.connect(lambda _value: self._on_choice())
        self.reading.changed.connect(self._on_choice)
        self.folds.valueChanged.connect(self._on_choice)
        self.task.currentIndexChanged.connect(self._on_choice)
        self.model.activated.connect(self._on_choice)
        self.model_button.clicked.connect(self._on_open_model)
        self.start_button.clicked.connect(self.session.start)
        self.stop_button.clicked.connect(self.session.stop)
        self.use_button.clicked.connect(self._on_use)
        self.session.changed.connect(self._on_change)
        connect_while_alive(current.changed, self._on_current, self)

    def choices(self) -> EvaluationChoices:
        """Return what the form says."""
        calibrate = self.task.currentIndex() == 1
        folds = self.folds.value() or None
        options: dict[str, Any] = {"device": self.forms[COMPUTE_FIELDS]["device"].value}
        for form in () if calibrate else self.forms.values():
            options |= form_values(form, EvaluateOptions)
        out = self.model_out if calibrate else self.out
        training = {} if calibrate or folds is None else _given(self.training, TrainOptions)
        return EvaluationChoices(
            calibrate, self.model.currentData(), self.labels.path(), self.layout_table.path(), out.path(),
            None if calibrate else self.truth.path(), None if calibrate else folds,
            None if calibrate else self.card_out.path(), options,
            {} if calibrate else _given(self.foreground, ForegroundOptions), training, self.reading.values(),
        )  # fmt: skip

    def _on_choice(self, _value: Any = None) -> None:
        self.session.choose(self.choices())
        self._on_change()

    def _on_current(self, model: Any) -> None:
        chosen = self.model.currentData()
        fill_models(self.model)
        self.model.setCurrentIndex(max(0, self.model.findData(chosen)) if chosen is not None else 0)
        self.session.use(model)

    def _on_open_model(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self, "Open a model", "", "Models (*.zip rdf.yaml)")
        if path:
            self.add_model(Path(path))

    def add_model(self, path: Path) -> None:
        """Offer a model file, and choose it."""
        remember_model(path)
        self.model.addItem(path.stem, path)
        self.model.setCurrentIndex(self.model.count() - 1)
        self._on_choice()

    def _on_use(self) -> None:
        if self.session.calibrated is not None:
            current.set(self.session.calibrated.model)

    def _on_change(self) -> None:
        session = self.session
        calibrate, runs = session.choices.calibrate, session.state is not EvaluationState.READY
        self.explanation.say(_CALIBRATE_HELP if calibrate else "")
        self.only_evaluation.setVisible(not calibrate)
        self.out.setVisible(not calibrate)
        self.model_out.setVisible(calibrate)
        problem = "" if runs else session.problem  # which looks at files
        if not runs:
            for path in (self.out, self.model_out):
                path.suggest(session.out)
        self.training_section.setEnabled(session.choices.folds is not None)
        for field in self.forms[COMPUTE_FIELDS]:
            field.visible = not calibrate or field.name == "device"
        self.start_button.setText("Calibrate" if calibrate else "Evaluate")
        self.start_button.setEnabled(not runs and not problem)
        self.start_button.setToolTip(plain_text(problem) or "Start; the window stays free meanwhile")
        self.problem.say(problem)
        self.inside.setEnabled(not runs)
        self.progress.setVisible(runs)
        self.progress.show_share(session.share, session.seconds_left)
        self.doing.say(session.doing)
        self.stop_button.setVisible(runs)
        self.stop_button.setEnabled(session.state is EvaluationState.RUNNING)
        self.message.show_notices(session.notices)
        self.use_button.setVisible(session.calibrated is not None)


def fill_models(box: NarrowComboBox) -> None:
    """List the current, the shipped and the recent models."""
    box.clear()
    name = "none is loaded" if current.model is None else current.model.card.name
    box.addItem(f"current model ({name})", None)
    for title, path in {**shipped_models(), **{path.stem: path for path in recent_models()}}.items():
        box.addItem(title, path)


def _section(title: str, inside: QWidget) -> Section:
    return Section(title, inside, is_open=False)


def _given(form: Any, kind: Any) -> dict[str, Any]:
    """Return the values of a form that differ from the defaults of its option model."""
    usual = {name: one.default for name, one in kind.model_fields.items()}
    return {name: value for name, value in form_values(form, kind).items() if value != usual[name]}
