"""The section of the Classify dock for cells that another program segmented: each cell is classified by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QSignalBlocker, Signal
from qtpy.QtWidgets import QPushButton, QWidget

from napari_milcnn.plugin.classify.own_cells import own_labels
from napari_milcnn.plugin.qt.forms import NarrowComboBox, Note, connect_while_alive, heading, row, vertical_layout

if TYPE_CHECKING:
    from napari.layers import Labels
    from napari.viewer import Viewer


class CellsBox(QWidget):
    """Choose a labels layer of cells and classify the cells.

    Signals
    -------
    classify_requested : Labels
        Classify the cells of this layer.
    """

    classify_requested = Signal(object)

    def __init__(self, viewer: Viewer) -> None:
        super().__init__()
        self._viewer = viewer
        self._layers: list[Labels] = []
        self.layers = NarrowComboBox()
        self.layers.setObjectName("cells layer")
        self.button = QPushButton("Classify cells")
        self.message = Note()
        layout = vertical_layout(self)
        layout.addWidget(heading("Classify your own segmentation"))
        layout.addLayout(row(self.layers, self.button, stretch=0))
        layout.addWidget(self.message)
        self.button.clicked.connect(lambda: self.classify_requested.emit(self._layers[self.layers.currentIndex()]))
        for event in ("inserted", "removed"):
            connect_while_alive(getattr(viewer.layers.events, event), self.refresh, self)
        self.refresh()

    def refresh(self, _event: Any = None) -> None:
        """List the labels layers that this plugin did not make."""
        found = own_labels(self._viewer)
        with QSignalBlocker(self.layers):
            chosen = self.layers.currentText()
            self._layers = found
            self.layers.clear()
            self.layers.addItems([layer.name for layer in found])
            self.layers.setCurrentIndex(max(0, self.layers.findText(chosen)))
        self.button.setEnabled(bool(found))
        self.message.say("" if found else "Open or create a labels layer of cells with any segmentation plugin.")
