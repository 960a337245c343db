"""The form of a `TrainingPlan`: what a training starts from, how it learns and where its model goes."""

from __future__ import annotations

from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
from qtpy.QtCore import QSignalBlocker, Signal
from qtpy.QtWidgets import QFileDialog, QLineEdit, QPushButton, QSpinBox, QVBoxLayout, QWidget
from superqt import QCollapsible

from napari_milcnn.model.shipped import shipped_models
from napari_milcnn.options import (
    DEVICES,
    INPUT_PRESETS,
    POOLINGS,
    PRESETS,
    TRAIN_PRESETS,
    InputOptions,
    NetworkOptions,
    TrainOptions,
    make_options,
)
from napari_milcnn.plugin.current_model import current
from napari_milcnn.plugin.qt.forms import (
    NarrowComboBox,
    Note,
    connect_while_alive,
    form_values,
    heading,
    options_form,
    row,
    vertical_layout,
)
from napari_milcnn.plugin.user_settings import recent_models

if TYPE_CHECKING:
    from napari_milcnn.images.open import ImageReading
    from napari_milcnn.training.plan import TrainingPlan

IN_SIGHT = ("epochs", "max_minutes", "patch", "encoder_rate", "validation")
_ENCODER_RATES = (("whole network", 1.0), ("encoder slowly", 0.1), ("encoder frozen", 0.0))
_FIELD_LABELS = {"max_minutes": "minutes at most", "patch": "patch, px", "encoder_rate": "train",
           "validation": "kept for validation"}  # fmt: skip
_INPUT_LABELS = {"normalise": "intensities by", "scale": "resized by"}
_NEW = "new network"
_FILE = "file"
_USUAL_POOLING = str(NetworkOptions.model_fields["pooling"].default)


class PlanBox(QWidget):
    """Choose the start of a training, its settings and the file of its model.

    Signals
    -------
    changed
        Another model to start from was chosen.
    """

    changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.start = NarrowComboBox()
        self.start.setAccessibleName("Start from")
        self.start.setToolTip("A model that knows such images needs fewer labels; a new network starts from scratch.")
        self.kept = Note()
        self.pooling = NarrowComboBox()
        self.pooling.setAccessibleName("Pooling")
        self.pooling.setToolTip(str(NetworkOptions.model_fields["pooling"].description))
        self.pooling.addItems(list(POOLINGS))
        self.when = Note()
        self.seen = options_form(InputOptions, tuple(InputOptions.model_fields), {})
        for name, label in _INPUT_LABELS.items():
            self.seen[name].label = label
        self.options = options_form(TrainOptions, IN_SIGHT, {"encoder_rate": _ENCODER_RATES})
        for name, label in _FIELD_LABELS.items():
            self.options[name].label = label
        folded = [name for name in TrainOptions.model_fields if name not in IN_SIGHT]
        self.more = options_form(TrainOptions, folded, {"device": DEVICES})
        self.out = QLineEdit()
        self.out.setPlaceholderText("model.zip")
        self.out.setToolTip("The best model so far is saved here after each epoch, with what Resume needs beside it")
        self.browse = QPushButton("…")
        self.browse.setFixedWidth(32)
        self.browse.setAccessibleName("Choose the model file")
        self.folds = QSpinBox()
        self.folds.setRange(2, 50)
        self.folds.setValue(5)
        self.folds.setAccessibleName("folds")
        self.facts: dict[str, Any] = {}
        self.more["threads"].value = _spare_threads()
        self._lay_out()
        self._fill()
        self._show_pooling()
        self.start.activated.connect(self._on_start)
        self.pooling.currentIndexChanged.connect(self._show_pooling)
        self.browse.clicked.connect(self._on_browse)
        connect_while_alive(current.changed, self._on_model, self)

    def _lay_out(self) -> None:
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(heading("Start from"))
        layout.addWidget(self.start)
        layout.addWidget(self.kept)
        self._pooling_part = QWidget()
        vertical_layout(self._pooling_part).addLayout(row("pooling", self.pooling, stretch=1))
        self._pooling_part.layout().addWidget(self.when)
        layout.addWidget(self._pooling_part)
        layout.addWidget(self.seen.native)
        layout.addWidget(heading("Settings"))
        layout.addWidget(self.options.native)
        more = QCollapsible("More options")
        more.addWidget(self.more.native)
        layout.addWidget(more)
        layout.addLayout(row("Model", self.out, self.browse, stretch=1))

    # The start

    def _fill(self, chosen: Any = None) -> None:
        """Offer new networks, the current model, shipped ones and those used last."""
        chosen = chosen or self.start.currentData() or (_NEW, "compact")
        with QSignalBlocker(self.start):
            self.start.clear()
            for preset in PRESETS:
                self.start.addItem(f"{_NEW}, {preset}", (_NEW, preset))
            model = current.model
            files = {model.card.name: model.path} if model is not None and model.path is not None else {}
            files |= {name: path for name, path in shipped_models().items() if path not in files.values()}
            files |= {path.stem: path for path in recent_models() if path not in files.values()}
            if chosen[0] == _FILE and Path(chosen[1]) not in files.values():
                files[Path(chosen[1]).stem] = Path(chosen[1])
            for name, path in files.items():
                here = " (current)" if model is not None and path == model.path else ""
                self.start.addItem(f"{name}{here}", (_FILE, str(path)))
            self.start.addItem("open a model…", None)
            places = [self.start.itemData(i) for i in range(self.start.count())]
            self.start.setCurrentIndex(places.index(tuple(chosen)) if tuple(chosen) in places else 0)
        self.seen.native.setEnabled(self.start.currentData()[0] == _NEW)  # a trained model keeps its own

    def _show_pooling(self, _index: int = 0) -> None:
        """Say when to take the chosen pooling; a model to start from has its own."""
        self._pooling_part.setVisible(self.start.currentData()[0] == _NEW)
        self.when.say(POOLINGS[self.pooling.currentText()])

    def _on_model(self, _model: Any = None) -> None:
        self._fill()

    def _on_start(self, index: int) -> None:
        chosen = self.start.itemData(index)
        if chosen is None:
            path, _ = QFileDialog.getOpenFileName(self, "Start from a model", "", "Models (*.zip rdf.yaml)")
            chosen = (_FILE, path) if path else None
        self._fill(chosen)
        kind, what = self.start.currentData()
        if kind == _NEW:
            self.show_options(TRAIN_PRESETS[what])
            self._show_seen(INPUT_PRESETS[what])
        self._show_pooling()
        self.changed.emit()

    # The form

    def show_options(self, options: dict[str, Any]) -> None:
        """Show these options, and the defaults of all others."""
        values = make_options(TrainOptions, options).model_dump()
        for form in (self.options, self.more):
            for widget in form:
                widget.value = values[widget.name] or (_spare_threads() if widget.name == "threads" else 0)

    def _show_seen(self, values: dict[str, Any]) -> None:
        """Show these options of the network's input, and the defaults of all others."""
        for name, value in make_options(InputOptions, values):
            self.seen[name].value = value

    def values(self) -> dict[str, Any]:
        """Return every option as it stands in the form."""
        return form_values(self.options, TrainOptions) | form_values(self.more, TrainOptions)

    def plan(self, labels: Path, reading: ImageReading) -> TrainingPlan:
        """Make the plan that stands in the form, of a table of labels.

        Raises
        ------
        OptionsError
            If an option is impossible.
        """
        from napari_milcnn.training.plan import TrainingPlan

        kind, what = self.start.currentData()
        preset = what if kind == _NEW else None
        usual = make_options(TrainOptions, TRAIN_PRESETS[preset or "compact"]).model_dump()
        options = {name: value for name, value in self.values().items() if value != usual[name]}
        pooling = self.pooling.currentText() if kind == _NEW else _USUAL_POOLING
        seen = {
            name: value
            for name, value in form_values(self.seen, InputOptions).items()
            if preset is not None and value != getattr(make_options(InputOptions, INPUT_PRESETS[preset]), name)
        }
        plan = TrainingPlan(
            labels, self.out_path(labels), init=what if kind == _FILE else None,
            preset=preset if preset != "compact" else None, seen=seen,
            network={} if pooling == _USUAL_POOLING else {"pooling": pooling}, options=options, facts=self.facts,
            reading=reading,
        )  # fmt: skip
        plan.train_options()
        return plan

    def out_path(self, labels: Path) -> Path:
        """Return where the model goes: by default beside the labels."""
        text = self.out.text().strip()
        path = labels.parent / Path(text).expanduser()
        return path if text else self._usual_path(labels.parent)

    def _usual_path(self, folder: Path) -> Path:
        """Return model.zip of a folder, or model-2.zip and so on: an existing model is never overwritten."""
        names = (f"model-{number}.zip" if number > 1 else "model.zip" for number in count(1))
        path = folder / next(name for name in names if not (folder / name).exists())
        self.out.setPlaceholderText(path.name)
        return path

    def show_plan(self, plan: TrainingPlan) -> None:
        """Show a plan, as it was started before."""
        self._fill((_FILE, plan.init) if plan.init else (_NEW, plan.preset or "compact"))
        self.show_options(plan.train_options().model_dump())
        self.pooling.setCurrentText(str(plan.network.get("pooling", _USUAL_POOLING)))
        self._show_pooling()
        self._show_seen({**INPUT_PRESETS.get(plan.preset or "compact", {}), **plan.seen})
        self.show_out(plan)
        self.facts = plan.facts

    def show_out(self, plan: TrainingPlan | None) -> None:
        """Show where the model of a plan goes; the usual place for None."""
        here = plan is not None and plan.out.parent == plan.labels.parent
        usual = plan is None or (here and plan.out.name == "model.zip" and not plan.init)
        self.out.setText("" if plan is None or usual else plan.out.name if here else str(plan.out))

    def _on_browse(self) -> None:
        path, _ = QFileDialog.getSaveFileName(
            self, "Save the model as", self.out.text() or "model.zip", "Models (*.zip)"
        )
        if path:
            self.out.setText(path if path.endswith(".zip") else f"{path}.zip")


def _spare_threads() -> int:
    """Return the number of cores less one, which keeps the window responsive."""
    return max(1, (psutil.cpu_count(logical=False) or 1) - 1)
