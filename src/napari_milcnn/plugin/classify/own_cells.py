"""Which cells object evidence is averaged over: those that the program finds, or the user's own segmentation.

The choice belongs to one image. Images of one microscope often have the same size, so that the cells of one image would
pass for those of the next.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari.layers import Image, Labels
from qtpy.QtCore import QSignalBlocker, Qt, Signal
from qtpy.QtWidgets import QFileDialog, QPushButton, QWidget

from napari_milcnn.plugin.classify.segmenters import installed_segmenters
from napari_milcnn.plugin.labels_to_image import labels_on
from napari_milcnn.plugin.qt.forms import (
    NarrowComboBox,
    Note,
    connect_layers,
    plain_text,
    row,
    vertical_layout,
)
from napari_milcnn.plugin.results_to_layers import OURS

if TYPE_CHECKING:
    from napari.viewer import Viewer

    from napari_milcnn.images.stack import ImageStack
    from napari_milcnn.inference.cells import LabelImage
    from napari_milcnn.plugin.layers_to_image import LayerImage

CellsReader = Callable[["ImageStack"], "LabelImage"]
"""Reads the label image of an image."""
FOUND, FROM_FILE = "found by the program", "file…"


@dataclass(frozen=True)
class OwnCells:
    """A segmentation of the user's own: a labels layer, or a file. Exactly one of them is given."""

    layer: Labels | None = None
    file: Path | None = None

    @property
    def name(self) -> str:
        """The name of the layer or file."""
        return str(self.layer.name) if self.layer is not None else str(self.file and self.file.name)

    def reader(self, source: LayerImage) -> CellsReader:
        """Return a function for another thread, which reads the cells of an image and raises LabelsError if it cannot.

        Parameters
        ----------
        source : LayerImage
            The layers of that image.
        """
        if self.layer is not None:
            return labels_on(source, self.layer).read
        assert self.file is not None
        return partial(_read_file, self.file)


def _read_file(file: Path, image: ImageStack) -> LabelImage:
    from napari_milcnn.inference.cells import read_label_image

    return read_label_image(file, image)


def own_labels(viewer: Viewer) -> list[Labels]:
    """List the labels layers that this plugin did not make."""
    return [layer for layer in viewer.layers if isinstance(layer, Labels) and OURS not in layer.metadata]


class OwnCellsCombo(NarrowComboBox):
    """Choose the cells of the image in view.

    Signals
    -------
    picked
        Other cells are chosen for the image in view.
    search_requested : Segmenter
        Find the cells of the image in view with another program.
    """

    picked = Signal()
    search_requested = Signal(object)

    def __init__(self, viewer: Viewer) -> None:
        super().__init__()
        self.setObjectName("own cells")
        self.setToolTip("Cells in which evidence is averaged: found in the image by the program, or your own "
                        "segmentation of this image (Cellpose, StarDist, drawn by hand)")  # fmt: skip
        self._viewer = viewer
        self._image: tuple[Image, ...] = ()
        self._chosen: dict[tuple[Image, ...], OwnCells] = {}
        self._files: list[OwnCells] = []
        self._segmenters = installed_segmenters()
        self._offered: list[OwnCells | None] = []
        self.activated.connect(self._on_activated)
        connect_layers(viewer.layers, ("inserted", "removed", "renamed"), self.refresh, self)
        self.refresh()

    def of(self, layers: tuple[Image, ...]) -> OwnCells | None:
        """Return the user's own cells of an image, given by its layers; None for those that the program finds."""
        return self._chosen.get(layers)

    def show_image(self, layers: tuple[Image, ...]) -> None:
        """Show what is chosen for another image."""
        if layers != self._image:
            self._image = layers
            self.refresh()

    def choose(self, cells: OwnCells | None, image: tuple[Image, ...] | None = None) -> None:
        """Choose the cells of an image, given by its layers; by default of the image in view."""
        image = self._image if image is None else image
        if cells is None:
            self._chosen.pop(image, None)
        else:
            self._chosen[image] = cells
            self._files += [cells] if cells.file is not None and cells not in self._files else []
        self.refresh()
        self.picked.emit()

    def refresh(self, _event: Any = None) -> None:
        """List the layers and files again; the cells of a layer that was removed are no longer chosen."""
        layers, before = own_labels(self._viewer), self.of(self._image)
        self._chosen = {
            image: cells for image, cells in self._chosen.items()
            if all(one in self._viewer.layers for one in image) and (cells.file or cells.layer in layers)
        }  # fmt: skip
        self._offered = [None, *(OwnCells(layer) for layer in layers), *self._files]
        with QSignalBlocker(self):
            self.clear()
            self.addItems([FOUND if one is None else one.name for one in self._offered])
            for index, one in enumerate(self._offered):
                tip = str(one.file) if one is not None and one.file is not None else ""
                self.setItemData(index, plain_text(tip), Qt.ItemDataRole.ToolTipRole)
            self.addItem(FROM_FILE)
            for segmenter in self._segmenters:
                self.addItem(f"find with {segmenter.name}…")
                self.setItemData(self.count() - 1, segmenter.tip, Qt.ItemDataRole.ToolTipRole)
            self.setCurrentIndex(self._offered.index(self.of(self._image)))
        if self.of(self._image) != before:
            self.picked.emit()

    def _on_activated(self, index: int) -> None:
        if index < len(self._offered):
            self.choose(self._offered[index])
            return
        if index > len(self._offered):  # after the entry for a file
            self.refresh()
            self.search_requested.emit(self._segmenters[index - len(self._offered) - 1])
            return
        path, _ = QFileDialog.getOpenFileName(
            self, "Open a label image", "", "Label images (*.tif *.tiff *.png);;All files (*)"
        )
        if path:
            self.choose(OwnCells(file=Path(path)))
        else:
            self.refresh()


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
        self.layers.setAccessibleName("Labels layer of cells")
        self.layers.setToolTip("The labels layer whose cells are classified, each by itself and without its neighbours")
        self.button = QPushButton("Classify cells")
        self.button.setToolTip("Give each cell of this layer a class, and add a copy in the colours of the classes")
        self.message = Note()
        layout = vertical_layout(self)
        layout.addLayout(row(self.layers, self.button, stretch=0))
        layout.addWidget(self.message)
        self.button.clicked.connect(lambda: self.classify_requested.emit(self._layers[self.layers.currentIndex()]))
        connect_layers(viewer.layers, ("inserted", "removed", "renamed"), self.refresh, self)
        self.refresh()

    def refresh(self, _event: Any = None) -> None:
        """List the labels layers that this plugin did not make."""
        found = own_labels(self._viewer)
        with QSignalBlocker(self.layers):
            chosen = self._layers[self.layers.currentIndex()] if self._layers else None
            self._layers = found
            self.layers.clear()
            self.layers.addItems([layer.name for layer in found])
            self.layers.setCurrentIndex(found.index(chosen) if chosen in found else 0 if found else -1)
        self.button.setEnabled(bool(found))
        self.message.say("" if found else "Open or create a labels layer of cells with any segmentation plugin.")
