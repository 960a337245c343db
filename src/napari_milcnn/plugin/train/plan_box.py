"""The form of `Choices`: what a training starts from, how it learns and where its model goes.

All fields come from the option models. One that is new in a model appears by itself, in the last section.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
from qtpy.QtCore import QSignalBlocker, Signal
from qtpy.QtWidgets import QFileDialog, QLineEdit, QSpinBox, QWidget

from napari_milcnn.model.shipped import shipped_models
from napari_milcnn.options import (
    DEVICES,
    INPUT_PRESETS,
    POOLINGS,
    PRESETS,
    TRAIN_PRESETS,
    ForegroundOptions,
    InputOptions,
    NetworkOptions,
    TrainOptions,
    make_options,
    preset_options,
)
from napari_milcnn.plugin.current_model import current
from napari_milcnn.plugin.qt.forms import (
    NarrowComboBox,
    Note,
    Section,
    browse_button,
    connect_while_alive,
    heading,
    row,
    vertical_layout,
)
from napari_milcnn.plugin.qt.option_forms import OptionsForm, shows_option
from napari_milcnn.plugin.train.choices import Choices
from napari_milcnn.plugin.user_settings import recent_models

IN_SIGHT = ("epochs", "max_minutes", "patch", "encoder_rate", "validation")
_ENCODER_RATES = (("whole network", 1.0), ("encoder slowly", 0.1), ("encoder frozen", 0.0))
_FIELD_LABELS = {"max_minutes": "minutes at most", "patch": "patch, px", "encoder_rate": "train",
           "validation": "kept for validation"}  # fmt: skip
_INPUT_LABELS = {"normalise": "intensities by", "scale": "resized by"}
_BY_IMAGES = ("channels", "classes", "pooling")
"""Fields of the network that its images give, or that have a place of their own."""
_NEW, _FILE = "new network", "file"
_NO_REFERENCE = "none"
_REFERENCE = (
    "Class whose images show no other class, such as control or wild type. Evidence for other classes is then what "
    "lies above that of this class"
)
_PLATES = (
    "For 'intensities by group': a table with the columns file, plate and control (yes for control images). Without "
    "it, the columns plate and control of the labels count, otherwise images of one folder share a plate"
)
_OUT = "The best model so far is saved here after each epoch, with what Resume needs beside it"


class PlanBox(QWidget):
    """Choose the start of a training, its settings and the file of its model.

    Signals
    -------
    changed
        The user chose something else.
    """

    changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self._facts: dict[str, Any] = {}
        self._quiet = False
        self._place: tuple[str, str] = (_NEW, "compact")
        self._make_parts()
        self._make_forms()
        self._lay_out()
        self._fill()
        self.show_choices(Choices())
        self._connect()

    def _make_parts(self) -> None:
        self.start = NarrowComboBox()
        self.start.setAccessibleName("Start from")
        self.start.setToolTip("A model that knows such images needs fewer labels; a new network starts from scratch")
        self.kept, self.when = Note(), Note()
        self.pooling = NarrowComboBox()
        self.pooling.setAccessibleName("Pooling")
        self.pooling.setToolTip(str(NetworkOptions.model_fields["pooling"].description))
        for name in POOLINGS:
            self.pooling.addItem(name, name)
        shows_option(self.pooling, NetworkOptions, "pooling")
        self.reference = NarrowComboBox()
        self.reference.setAccessibleName("Reference class")
        self.reference.setToolTip(_REFERENCE)
        self.reference.addItem(_NO_REFERENCE)
        self.plates, self.out = QLineEdit(), QLineEdit()
        self.plates.setPlaceholderText("table of plates")
        self.plates.setAccessibleName("Table of plates")
        self.plates.setToolTip(_PLATES)
        self.out.setPlaceholderText("model.zip")
        self.out.setAccessibleName("Model file")
        self.out.setToolTip(_OUT)
        self.browse, self.browse_plates = (
            browse_button(f"Choose the {what}") for what in ("model file", "plate table")
        )
        self.browse.setToolTip("Choose where the model is saved")
        self.browse_plates.setToolTip("Choose the table of plates")
        self.folds = QSpinBox()
        self.folds.setRange(2, 50)
        self.folds.setValue(5)
        self.folds.setAccessibleName("folds")
        self.folds.setToolTip("Number of parts into which cross-validation divides the groups; each is tested once")

    def _make_forms(self) -> None:
        varied = [name for name in TrainOptions.model_fields if name.startswith("vary_") or name == "flip_rotate"]
        others = [name for name in TrainOptions.model_fields if name not in (*IN_SIGHT, *varied)]
        network = [name for name in NetworkOptions.model_fields if name not in _BY_IMAGES]
        self.options = OptionsForm(TrainOptions, IN_SIGHT, {"encoder_rate": _ENCODER_RATES}, _FIELD_LABELS)
        self.options.make()
        self.network = OptionsForm(NetworkOptions, network)
        self.seen = OptionsForm(InputOptions, InputOptions.model_fields, labels=_INPUT_LABELS)
        self.foreground = OptionsForm(ForegroundOptions, ForegroundOptions.model_fields)
        self.varied = OptionsForm(TrainOptions, varied)
        self.more = OptionsForm(TrainOptions, others, {"device": DEVICES})

    def _lay_out(self) -> None:
        layout = vertical_layout(self)
        layout.addWidget(heading("Start from"))
        layout.addWidget(self.start)
        layout.addWidget(self.kept)
        self._pooling_part, plates = QWidget(), QWidget()
        pooling = vertical_layout(self._pooling_part)
        pooling.addLayout(row("pooling", self.pooling, stretch=1))
        pooling.addWidget(self.when)
        layout.addWidget(self._pooling_part)
        layout.addWidget(self.options)
        layout.addLayout(row("reference class", self.reference, stretch=1))
        layout.addLayout(row("model", self.out, self.browse, stretch=1))
        of_plates = vertical_layout(plates)
        of_plates.addWidget(self.seen)
        of_plates.addLayout(row("plates", self.plates, self.browse_plates, stretch=1))
        self._network_section = Section("More options: the network", self.network, is_open=False)
        for section in (
            self._network_section,
            Section("More options: how images are read", plates, is_open=False),
            Section("More options: how cells are found", self.foreground, is_open=False),
            Section("More options: varying the images", self.varied, is_open=False),
            Section("More options: learning, computing", self.more, is_open=False),
        ):
            layout.addWidget(section)

    def _connect(self) -> None:
        self.start.activated.connect(self._on_start)
        self.pooling.currentIndexChanged.connect(self._on_changed)
        self.reference.activated.connect(self._on_changed)
        self.plates.textChanged.connect(self._on_changed)
        self.out.textChanged.connect(self._on_changed)
        for form in (self.options, self.network, self.seen, self.foreground, self.varied, self.more):
            form.changed.connect(self._on_changed)
        self.browse.clicked.connect(self._on_browse)
        self.browse_plates.clicked.connect(self._on_browse_plates)
        connect_while_alive(current.changed, self._on_model, self)

    # The start

    def _fill(self, chosen: Any = None) -> None:
        """Offer new networks, the current model, shipped ones and those used last; files are told apart by path."""
        kind, what = chosen or self._place
        model = current.model
        files: dict[Path, str] = {}
        if model is not None and model.path is not None:
            files[model.path] = f"{model.card.name} (current)"
        for name, path in (*shipped_models().items(), *((path.stem, path) for path in recent_models())):
            files.setdefault(path, name)
        if kind == _FILE:
            files.setdefault(Path(what), Path(what).stem)
        places = [(_NEW, preset) for preset in PRESETS] + [(_FILE, str(path)) for path in files]
        with QSignalBlocker(self.start):
            self.start.clear()
            for place, text in zip(
                places, (*(f"{_NEW}, {preset}" for preset in PRESETS), *files.values()), strict=True
            ):
                self.start.addItem(text, place)
            self.start.addItem("open a model…", None)
            self.start.setCurrentIndex(places.index((kind, what)) if (kind, what) in places else 0)
        self._place = self.start.currentData()
        self._show_start()

    def _show_start(self) -> None:
        """Show only what holds for this start: a trained model keeps its network and how it reads images."""
        is_new = self.start.currentData()[0] == _NEW
        self._pooling_part.setVisible(is_new)
        self._network_section.setVisible(is_new)
        self.seen.setEnabled(is_new)
        self.when.say(POOLINGS[self.pooling.currentData()])

    def _on_model(self, _model: Any = None) -> None:
        self._fill()

    def _on_start(self, index: int) -> None:
        chosen = self.start.itemData(index)
        if chosen is None:
            path, _ = QFileDialog.getOpenFileName(self, "Start from a model", "", "Models (*.zip rdf.yaml)")
            chosen = (_FILE, path) if path else self._place
        before = self._place
        self._fill(chosen)
        kind, what = self._place
        if kind == _NEW and self._place != before:
            self._show_preset(what)
        self._on_changed()

    def _show_preset(self, preset: str) -> None:
        """Show the options of a preset."""
        self._show_options(make_options(TrainOptions, TRAIN_PRESETS[preset]).model_dump())
        network = preset_options(preset, 1, 1).model_dump()
        self.network.show_values(network)
        self.pooling.setCurrentText(network["pooling"])
        self.seen.show_values(make_options(InputOptions, INPUT_PRESETS[preset]).model_dump())

    def show_classes(self, names: Sequence[str]) -> None:
        """Offer these classes as the reference; the choice stays if it still exists."""
        wanted, chosen = [_NO_REFERENCE, *names], self.reference.currentText()
        if [self.reference.itemText(i) for i in range(self.reference.count())] != wanted:
            with QSignalBlocker(self.reference):
                self.reference.clear()
                self.reference.addItems(wanted)
                self.reference.setCurrentText(chosen if chosen in names else _NO_REFERENCE)

    # The form

    def choices(self) -> Choices:
        """Return what stands in the form."""
        kind, what = self.start.currentData()
        reference = self.reference.currentText() if self.reference.currentIndex() > 0 else ""
        return Choices(
            what if kind == _FILE else None, what if kind == _NEW else "compact",
            self.network.values() | {"pooling": self.pooling.currentData()},
            self.seen.values(), self.foreground.values(), self.values(),
            self.out.text().strip(), reference, self.plates.text().strip(), self._facts,
        )  # fmt: skip

    def values(self) -> dict[str, Any]:
        """Return every option of the training as it stands in the form."""
        return self.options.values() | self.varied.values() | self.more.values()

    def show_choices(self, choices: Choices) -> None:
        """Show other choices; what they leave open stands as in the preset."""
        self._quiet = True
        self._fill((_FILE, choices.init) if choices.init else (_NEW, choices.preset))
        self._show_preset(choices.preset)
        self._show_options(choices.options)
        self.network.show_values(choices.network)
        self.pooling.setCurrentText(choices.network.get("pooling", self.pooling.currentText()))
        self.seen.show_values(choices.seen)
        self.foreground.show_values({**dict.fromkeys(ForegroundOptions.model_fields), **choices.foreground})
        if choices.reference and self.reference.findText(choices.reference) < 0:
            self.reference.addItem(choices.reference)
        self.reference.setCurrentText(choices.reference or _NO_REFERENCE)
        self.plates.setText(choices.plates)
        self.out.setText(choices.out)
        self._facts = choices.facts
        self._quiet = False
        self._show_start()

    def _show_options(self, options: dict[str, Any]) -> None:
        """Show options of the training; without a number of threads, one core is left to the window."""
        values = {**options, "threads": options.get("threads") or _spare_threads()}
        for form in (self.options, self.varied, self.more):
            form.show_values(values)

    def _on_changed(self, _value: Any = None) -> None:
        if not self._quiet:
            self._show_start()
            self.changed.emit()

    def _on_browse(self) -> None:
        path, _ = QFileDialog.getSaveFileName(
            self, "Save the model as", self.out.text() or "model.zip", "Models (*.zip)"
        )
        if path:
            self.out.setText(path if path.endswith(".zip") else f"{path}.zip")

    def _on_browse_plates(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self, "Open a table of plates", "", "Tables (*.csv *.tsv *.txt)")
        if path:
            self.plates.setText(path)


def _spare_threads() -> int:
    """Return the number of cores less one, which keeps the window responsive."""
    return max(1, (psutil.cpu_count(logical=False) or 1) - 1)
