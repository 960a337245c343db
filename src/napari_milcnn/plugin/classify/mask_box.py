"""The mask bench: which evidence, where to cut it; what comes of it shows at once."""

from __future__ import annotations

from typing import get_args

from qtpy.QtCore import QSignalBlocker, Qt, Signal
from qtpy.QtWidgets import QCheckBox, QFormLayout, QLabel, QPushButton, QVBoxLayout, QWidget
from superqt import QLabeledDoubleSlider, QLabeledSlider

from napari_milcnn.figures.palette import class_colours
from napari_milcnn.options import EvidenceKind, MaskOptions
from napari_milcnn.plugin.qt.forms import NarrowComboBox, heading, row, swatch

KIND_NAMES = {"object": "cells", "class_map": "class map", "jacobian": "Jacobian map"}
KIND_TIPS = {
    "object": "Each cell, found in the image itself, with the mean of the class map inside it",
    "class_map": "The network's own map of the class, laid over the image: coarse",
    "jacobian": "The evidence propagated back to the pixels, as in the paper",
}


class MaskBox(QWidget):
    """Kind of evidence, threshold of each class, smoothing, smallest object.

    Signals
    -------
    changed
        The mask of the plane in view is another now.
    kind_changed
        Other evidence is needed.
    apply_asked
        All planes are to be cut like this.
    map_asked, evidence_asked : str
        A class whose class map, or evidence, is to be shown as a layer.
    """

    changed = Signal()
    kind_changed = Signal()
    apply_asked = Signal()
    map_asked = Signal(str)
    evidence_asked = Signal(str)

    def __init__(self) -> None:
        super().__init__()
        self.thresholds: dict[str, float] = {}
        self.classes = NarrowComboBox()
        self.classes.setObjectName("mask class")
        self.kind = NarrowComboBox()
        for kind in get_args(EvidenceKind):
            self.kind.addItem(KIND_NAMES[kind], kind)
            self.kind.setItemData(self.kind.count() - 1, KIND_TIPS[kind], Qt.ItemDataRole.ToolTipRole)
        self.threshold = QLabeledDoubleSlider(Qt.Orientation.Horizontal)
        self.threshold.setDecimals(3)
        self.threshold.setRange(0, 1)
        self.auto = QPushButton("auto")
        self.auto.setFixedWidth(44)
        self.auto.setToolTip("Back to the model's own threshold of this class, else Otsu's")
        self.smooth, self.min_size = (QLabeledSlider(Qt.Orientation.Horizontal) for _ in range(2))
        self.smooth.setRange(0, 12)
        self.min_size.setRange(0, 500)
        self.min_size.setValue(MaskOptions.model_fields["min_size"].default)
        self.faint = QCheckBox("also classes the image hardly shows")
        self.faint.setToolTip(str(MaskOptions.model_fields["present"].description))
        self.count = QLabel()
        self.apply = QPushButton("Apply to all planes")
        self.show_map, self.show_evidence = QPushButton("class map"), QPushButton("evidence")
        self.show_map.setToolTip("Add the class map as an image layer: one value for each place the network saw")
        self.show_evidence.setToolTip("Add what the mask is cut from, in the plane in view, as an image layer")
        self._lay_out()
        self._connect()
        self._on_kind()

    def _lay_out(self) -> None:
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(heading("Mask"))
        form = QFormLayout()
        form.setContentsMargins(0, 0, 0, 0)
        form.addRow("class", self.classes)
        form.addRow("evidence", self.kind)
        form.addRow("threshold", _beside(self.threshold, self.auto))
        form.addRow("smooth px", self.smooth)
        form.addRow("min. px", self.min_size)
        form.addRow("show", _beside(self.show_map, self.show_evidence))
        layout.addLayout(form)
        layout.addWidget(self.faint)
        layout.addWidget(self.count)
        layout.addWidget(self.apply)

    def _connect(self) -> None:
        self.threshold.valueChanged.connect(self._on_threshold)
        self.auto.clicked.connect(self._on_auto)
        self.smooth.valueChanged.connect(lambda _value: self.changed.emit())
        self.min_size.valueChanged.connect(lambda _value: self.changed.emit())
        self.faint.toggled.connect(lambda _on: self.changed.emit())
        self.classes.currentIndexChanged.connect(lambda _index: self.kind_changed.emit())
        self.kind.currentIndexChanged.connect(self._on_kind)
        self.apply.clicked.connect(lambda: self.apply_asked.emit())
        self.show_map.clicked.connect(lambda: self.map_asked.emit(self.class_name))
        self.show_evidence.clicked.connect(lambda: self.evidence_asked.emit(self.class_name))

    @property
    def class_name(self) -> str:
        """The class whose threshold is moved."""
        return str(self.classes.currentText())

    def set_classes(self, names: tuple[str, ...]) -> None:
        """Offer the classes of a model; thresholds of another model are forgotten."""
        with QSignalBlocker(self.classes):
            self.classes.clear()
            for name, colour in class_colours(names).items():
                self.classes.addItem(swatch(colour), name)
        self.thresholds = {}

    def choose_class(self, name: str) -> None:
        """Choose a class without saying so."""
        with QSignalBlocker(self.classes):
            self.classes.setCurrentText(name)

    def options(self) -> dict[str, object]:
        """Return fields of `MaskOptions` as they stand here."""
        return {
            "class_thresholds": dict(self.thresholds), "smooth": float(self.smooth.value()),
            "min_size": self.min_size.value(), "present": 0.0 if self.faint.isChecked() else
            MaskOptions.model_fields["present"].default,
        }  # fmt: skip

    def show_threshold(self, used: float | None, highest: float) -> None:
        """Show the threshold in use, on a scale that ends at the highest evidence of the plane."""
        with QSignalBlocker(self.threshold):
            top = max(highest, used or 0.0, 1e-6)
            self.threshold.setRange(0, 1 if self.kind.currentData() == "object" else top)
            self.threshold.setDecimals(3 if top > 0.02 else 6)
            if used is not None:
                self.threshold.setValue(used)

    def say_count(self, objects: int, area: float, unit: str) -> None:
        """Say how many objects there are and how much they cover."""
        self.count.setText(f"{objects} object{'' if objects == 1 else 's'} · {area:,.0f} {unit}".replace(",", " "))

    def _on_threshold(self, value: float) -> None:
        self.thresholds[self.class_name] = float(value)
        self.changed.emit()

    def _on_auto(self) -> None:
        self.thresholds.pop(self.class_name, None)
        self.changed.emit()

    def _on_kind(self, _index: int = 0) -> None:
        cells = self.kind.currentData() == "object"
        for slider in (self.smooth, self.min_size):
            slider.setEnabled(not cells)
            slider.setToolTip("Cells keep the outline they were found with" if cells else "")
        self.thresholds = {}
        self.kind_changed.emit()


def _beside(*parts: QWidget) -> QWidget:
    whole = QWidget()
    whole.setLayout(row(*parts, stretch=0))
    return whole
