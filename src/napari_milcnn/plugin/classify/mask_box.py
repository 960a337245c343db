"""The section of the Classify dock for masks: the threshold and more, applied to the plane in view at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QSignalBlocker, Qt, Signal
from qtpy.QtWidgets import QFormLayout, QPushButton, QWidget
from superqt import QLabeledDoubleSlider, QLabeledSlider

from napari_milcnn.figures.palette import class_colours
from napari_milcnn.options import MaskOptions, make_options
from napari_milcnn.plugin.qt.forms import (
    NarrowComboBox,
    Section,
    plain_label,
    row,
    vertical_layout,
)
from napari_milcnn.plugin.qt.icons import swatch
from napari_milcnn.plugin.qt.option_forms import OptionsForm, shows_option

if TYPE_CHECKING:
    from napari_milcnn.plugin.classify.records import ImageRecord


_SLIDERS = ("class_thresholds", "smooth", "min_size")
"""Fields of `MaskOptions` that have widgets of their own; a form shows the others."""
_NOT_USED = "Not used with 'cells': outlines come from the segmentation"


class MaskBox(QWidget):
    """Choose the threshold of each class, the smoothing and the smallest object.

    Signals
    -------
    changed
        The settings changed: make the mask of the plane in view again.
    class_changed
        Another class is chosen, whose evidence may be needed.
    apply_requested
        Make the masks of all planes with these settings.
    map_requested, evidence_requested : str
        Show the class map of this class, or the evidence for it, as a layer.
    """

    changed = Signal()
    class_changed = Signal()
    apply_requested = Signal()
    map_requested = Signal(str)
    evidence_requested = Signal(str)

    def __init__(self) -> None:
        super().__init__()
        self.thresholds: dict[str, float] = {}
        self.classes = NarrowComboBox()
        self.classes.setObjectName("mask class")
        self.classes.setToolTip("The class whose threshold you set")
        self.threshold = QLabeledDoubleSlider(Qt.Orientation.Horizontal)
        self.threshold.setDecimals(3)
        self.threshold.setRange(0, 1)
        self.threshold.setToolTip("Evidence above this belongs to the class; the mask of the plane in view follows")
        self.auto = QPushButton("auto")
        self.auto.setFixedWidth(44)
        self.auto.setToolTip(
            "Back to the model's threshold for this class, or to Otsu's threshold if the model has none"
        )
        self.smooth, self.min_size = (
            QLabeledSlider(Qt.Orientation.Horizontal),
            QLabeledSlider(Qt.Orientation.Horizontal),
        )
        self.smooth.setRange(0, 12)
        self.min_size.setRange(0, 500)
        self.min_size.setValue(MaskOptions.model_fields["min_size"].default)
        rest = [name for name in MaskOptions.model_fields if name not in _SLIDERS]
        self.more = OptionsForm(MaskOptions, rest, labels={"present": "lowest score"})
        self.count = plain_label()
        self.apply = QPushButton("Apply to all planes")
        self.apply.setToolTip("Make the masks of all classified planes with these settings; Undo takes it back")
        self.show_map, self.show_evidence = QPushButton("class map"), QPushButton("evidence")
        self.show_map.setToolTip("Add the class map of this class as an image layer, at its own coarse resolution")
        self.show_evidence.setToolTip(
            "Add the evidence for this class in the plane in view as an image layer; its threshold gives the mask"
        )
        for widget, name in ((self.classes, "Class"), (self.threshold, "Threshold"), (self.smooth, "Smooth, px"),
                             (self.min_size, "Smallest object, px")):  # fmt: skip
            widget.setAccessibleName(name)
        self.hide_button, self.outline_button = QPushButton("hide"), QPushButton("outlines")
        self.hide_button.setToolTip("Hide the masks of this image, or show them again (Alt+M)")
        self.outline_button.setToolTip("Show the masks as outlines, or filled again (Alt+O)")
        for widget, name in zip((self.threshold, self.smooth, self.min_size), _SLIDERS, strict=True):
            shows_option(widget, MaskOptions, name)
        self._lay_out()
        self._connect()
        self.set_kind("object")

    def _lay_out(self) -> None:
        layout = vertical_layout(self)
        form = QFormLayout()
        form.setContentsMargins(0, 0, 0, 0)
        form.addRow("class", self.classes)
        form.addRow("threshold", _beside(self.threshold, self.auto))
        form.addRow("smooth, px", self.smooth)
        form.addRow("min. size, px", self.min_size)
        form.addRow("show", _beside(self.show_map, self.show_evidence))
        layout.addLayout(form)
        layout.addLayout(row(self.count, self.hide_button, self.outline_button, stretch=0))
        layout.addWidget(self.apply)
        layout.addWidget(Section("More about masks", self.more, is_open=False))

    def _connect(self) -> None:
        self.threshold.valueChanged.connect(self._on_threshold)
        self.auto.clicked.connect(self._on_auto)
        self.smooth.valueChanged.connect(lambda _value: self.changed.emit())
        self.min_size.valueChanged.connect(lambda _value: self.changed.emit())
        self.more.changed.connect(self.changed)
        self.classes.currentIndexChanged.connect(lambda _index: self.class_changed.emit())
        self.apply.clicked.connect(lambda: self.apply_requested.emit())
        self.show_map.clicked.connect(lambda: self.map_requested.emit(self.class_name))
        self.show_evidence.clicked.connect(lambda: self.evidence_requested.emit(self.class_name))

    @property
    def class_name(self) -> str:
        """The class whose threshold the slider shows."""
        return str(self.classes.currentText())

    def set_classes(self, names: tuple[str, ...]) -> None:
        """Offer the classes of a model, and drop the thresholds of the model before it."""
        with QSignalBlocker(self.classes):
            self.classes.clear()
            for name, colour in class_colours(names).items():
                self.classes.addItem(swatch(colour), name)
        self.thresholds = {}

    def choose_class(self, name: str) -> None:
        """Choose a class without emitting a signal."""
        with QSignalBlocker(self.classes):
            self.classes.setCurrentText(name)

    def options(self) -> dict[str, object]:
        """Return the settings as fields of `MaskOptions`."""
        sliders = {
            "class_thresholds": dict(self.thresholds), "smooth": float(self.smooth.value()),
            "min_size": self.min_size.value(),
        }  # fmt: skip
        return {**self.more.values(), **sliders}

    def show_options(self, options: Mapping[str, Any]) -> None:
        """Show settings without emitting a signal; fields of `MaskOptions` that are not given have their defaults."""
        shown = make_options(MaskOptions, options)
        self.thresholds = dict(shown.class_thresholds)
        for slider, value in ((self.smooth, shown.smooth), (self.min_size, shown.min_size)):
            with QSignalBlocker(slider):
                slider.setValue(int(value))
        self.more.show_values(shown.model_dump())

    def show_threshold(self, used: float | None, highest: float) -> None:
        """Show the threshold in use on a slider that ends at the highest evidence of the plane."""
        with QSignalBlocker(self.threshold):
            top = max(highest, used or 0.0, 1e-6)
            self.threshold.setRange(0, 1 if self._cells else top)
            self.threshold.setDecimals(3 if top > 0.02 else 6)
            if used is not None:
                self.threshold.setValue(used)

    def show_masks(self, image: ImageRecord | None, plane: int | None) -> None:
        """Say how many objects the plane in view has, and what area they cover."""
        masks = image.masks.get(plane) if image is not None and plane is not None else None
        if masks is None or image is None or image.source is None:
            self.count.setText("")
            return
        size, objects = image.source.image.pixel_size, len(masks.shown)
        area, unit = float(masks.shown["area_px"].sum()) * (size or 1) ** 2, "µm²" if size else "px"
        self.count.setText(f"{objects} object{'s'[: objects != 1]} · {area:,.0f} {unit}".replace(",", " "))

    def _on_threshold(self, value: float) -> None:
        self.thresholds[self.class_name] = float(value)
        self.changed.emit()

    def _on_auto(self) -> None:
        self.thresholds.pop(self.class_name, None)
        self.changed.emit()

    def set_kind(self, kind: str) -> None:
        """Adapt to another kind of evidence, and drop the thresholds of the one before."""
        self._cells = kind == "object"
        for slider, field in ((self.smooth, "smooth"), (self.min_size, "min_size")):
            slider.setEnabled(not self._cells)
            slider.setToolTip(_NOT_USED if self._cells else str(MaskOptions.model_fields[field].description))
        self.thresholds = {}


def _beside(*parts: QWidget) -> QWidget:
    whole = QWidget()
    whole.setLayout(row(*parts, stretch=0))
    return whole
