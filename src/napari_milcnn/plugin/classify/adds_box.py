"""The sections of the Classify dock that say, before a run, what the run makes and how: its evidence and options."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QFormLayout, QWidget

from napari_milcnn.options import (
    DETAILS,
    DEVICES,
    EVIDENCE_NAMES,
    ComputeOptions,
    EvidenceKind,
    EvidenceOptions,
    ForegroundOptions,
    MaskOptions,
)
from napari_milcnn.plugin.classify.own_cells import OwnCells, OwnCellsCombo
from napari_milcnn.plugin.qt.forms import (
    NarrowComboBox,
    heading,
    vertical_layout,
)
from napari_milcnn.plugin.qt.option_forms import OptionsForm, shows_option

if TYPE_CHECKING:
    from napari.layers import Image
    from napari.viewer import Viewer

    from napari_milcnn.inference.predict import Prediction

_TIPS: dict[EvidenceKind, str] = {
    "object": "Cells found in the image itself; the evidence of a cell is the mean of the class map inside it",
    "class_map": "The network's own map of the class, enlarged to the size of the image; coarse",
    "class_map_image": "The class map times the brightness of the image: for tissue, lawns and other images without "
                       "single cells",
    "jacobian": "The evidence for the class, propagated back to the pixels as in the paper",
}  # fmt: skip
"""Explanations of the kinds of evidence."""
_SHOWN = ("kind", "detail", "foreground")
"""Fields of `EvidenceOptions` that have widgets of their own."""
_NONE, _TOP, _PRESENT = "none", "top class", "all present classes"
_DETAIL_NAMES = {1: "as the network", 2: "2 × finer", 4: "4 × finer"}


class AddsBox(QWidget):
    """Choose the class maps that become layers, and the evidence that the masks are made from.

    Signals
    -------
    kind_changed
        Other evidence is chosen.
    cells_changed
        Other cells are chosen for the image in view.
    """

    kind_changed = Signal()
    cells_changed = Signal()

    def __init__(self, viewer: Viewer) -> None:
        super().__init__()
        self.kind, self.detail, self.maps = NarrowComboBox(), NarrowComboBox(), NarrowComboBox()
        self.cells = OwnCellsCombo(viewer)
        self.kind.setToolTip("Evidence that the masks are made from; each kind has a tooltip of its own in the list")
        for box, name in ((self.kind, "Masks from"), (self.cells, "Cells"), (self.detail, "Detail"),
                          (self.maps, "Class maps")):  # fmt: skip
            box.setAccessibleName(name)
        shows_option(self.kind, EvidenceOptions, "kind")
        shows_option(self.detail, EvidenceOptions, "detail")
        for kind, tip in _TIPS.items():
            self.kind.addItem(EVIDENCE_NAMES[kind], kind)
            self.kind.setItemData(self.kind.count() - 1, tip, Qt.ItemDataRole.ToolTipRole)
        for number in DETAILS:
            self.detail.addItem(_DETAIL_NAMES[number], number)
        self.detail.setToolTip("The network runs 4 or 16 times on the shifted image, for a finer class map")
        self.maps.addItems([_NONE, _TOP, _PRESENT])
        self.maps.setToolTip("Class maps that a run adds as image layers, one value for each step of the network")
        layout = vertical_layout(self)
        form = QFormLayout()
        form.setContentsMargins(0, 0, 0, 0)
        form.addRow("masks from", self.kind)
        form.addRow("cells", self.cells)
        form.addRow("detail", self.detail)
        form.addRow("class maps", self.maps)
        layout.addLayout(form)
        self.kind.currentIndexChanged.connect(self._on_kind)
        self.detail.currentIndexChanged.connect(lambda _index: self.kind_changed.emit())
        self.cells.picked.connect(self.cells_changed)
        self._on_kind()

    @property
    def summary(self) -> str:
        """What is chosen, in a few words."""
        return f"masks from {self.kind.currentText()}"

    def choose(self, kind: EvidenceKind, detail: int = 1) -> None:
        """Choose a kind of evidence and its detail."""
        self.kind.setCurrentIndex(self.kind.findData(kind))
        self.detail.setCurrentIndex(self.detail.findData(detail))

    def options(self) -> dict[str, object]:
        """Return the evidence as fields of `EvidenceOptions`."""
        return {"kind": self.kind.currentData(), "detail": self.detail.currentData() if self._has_detail() else 1}

    def own_cells(self, layers: tuple[Image, ...]) -> OwnCells | None:
        """Return the user's own cells of an image, given by its layers; None without them, and for other evidence."""
        return self.cells.of(layers) if self.kind.currentData() == "object" else None

    def classes_of(self, predictions: Iterable[Prediction]) -> list[str]:
        """Return the classes whose maps are wanted for some planes, each prediction being of one plane."""
        if self.maps.currentText() == _NONE:
            return []
        least = float(MaskOptions.model_fields["present"].default) if self.maps.currentText() == _PRESENT else 2.0
        wanted: dict[str, None] = {}
        for prediction in predictions:
            shown = zip(prediction.classes, prediction.scores[0], strict=True)
            wanted |= dict.fromkeys([prediction.top[0], *(name for name, score in shown if score >= least)])
        return list(wanted)

    def _has_detail(self) -> bool:
        return self.kind.currentData() in ("class_map", "class_map_image")

    def _on_kind(self, _index: int = 0) -> None:
        self.detail.setEnabled(self._has_detail())
        self.cells.setEnabled(self.kind.currentData() == "object")
        self.kind_changed.emit()


class OptionsBox(QWidget):
    """The options that are rarely needed: how evidence is made and cells are found, and where the network runs.

    It shows every field of the option models that no other part of the dock shows.

    Signals
    -------
    evidence_changed
        Evidence is to be made in another way.
    """

    evidence_changed = Signal()

    def __init__(self, device: str, tile: int | None) -> None:
        super().__init__()
        own = [name for name in EvidenceOptions.model_fields if name not in {*ComputeOptions.model_fields, *_SHOWN}]
        self.evidence = OptionsForm(EvidenceOptions, own)
        self.foreground = OptionsForm(ForegroundOptions, ForegroundOptions.model_fields)
        self.set_channels(())
        self.compute = OptionsForm(ComputeOptions, ComputeOptions.model_fields, {"device": DEVICES})
        self.compute.show_values({"device": device, "tile": tile})
        layout = vertical_layout(self)
        for title, form in (("Jacobian maps", self.evidence), ("Finding cells", self.foreground),
                            ("Computing", self.compute)):  # fmt: skip
            layout.addWidget(heading(title))
            layout.addWidget(form)
        self.evidence.changed.connect(self.evidence_changed)
        self.foreground.changed.connect(self.evidence_changed)

    def set_channels(self, names: Sequence[str]) -> None:
        """Offer the channels of a model as those in which cells are found."""
        self.foreground.offer("channel", [("default", None), *((name, name) for name in names)])

    def options(self) -> dict[str, object]:
        """Return the settings as fields of `EvidenceOptions`."""
        found = self.foreground.given()
        return {**self.compute_options(), **self.evidence.values(), "foreground": found or None}

    def compute_options(self) -> dict[str, object]:
        """Return the settings as fields of `ComputeOptions`."""
        return self.compute.values()
