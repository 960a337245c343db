"""The part of the Label tab that opens images: files, folders, tables, plates and the layers of the viewer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari.layers import Image
from qtpy.QtWidgets import QCheckBox, QFileDialog, QLineEdit, QMenu, QPushButton, QWidget

from napari_milcnn.delimited import TABLE_SUFFIXES
from napari_milcnn.errors import MilcnnError
from napari_milcnn.images.paths import is_zarr
from napari_milcnn.plugin.layers_to_image import LayerImage, file_behind, group_layers, open_layers, suggest
from napari_milcnn.plugin.qt.forms import heading, row, there, vertical_layout
from napari_milcnn.plugin.results_to_layers import OURS
from napari_milcnn.plugin.train.label_session import LabelSession, LayersRequest, OpenRequest, PracticeRequest

if TYPE_CHECKING:
    from napari.viewer import Viewer

_TABLES = "Tables (*.csv *.tsv *.txt)"


class OpenBox(QWidget):
    """Buttons that open images, and how to open them.

    Parameters
    ----------
    viewer : Viewer
        Its selected layers can be labelled.
    session : LabelSession
        What opens them.
    """

    def __init__(self, viewer: Viewer, session: LabelSession) -> None:
        super().__init__()
        self.viewer, self.session = viewer, session
        self.open_button, self.layers_button = QPushButton("Open folder or table"), QPushButton("From layers")
        menu = QMenu(self.open_button)
        actions = (self._on_folder, self._on_table, self._on_images, self._on_plate)
        self.open_actions = {
            text: menu.addAction(text) for text in ("Folder…", "Table…", "Images…", "Plate with layout table…")
        }
        for action, then in zip(self.open_actions.values(), actions, strict=True):
            there(action).triggered.connect(then)
        self.open_button.setMenu(menu)
        self.open_button.setToolTip("Choose the images to label; you can also drop them on this tab")
        self.layers_button.setToolTip(
            "Label the selected image layers. Layers of one file are the channels of one image; every other layer is "
            "an image of its own. Layers without a file are saved to a folder first"
        )
        self.practice_button = QPushButton("Practice images")
        self.practice_button.setToolTip(
            "Copy simulated images of yeast to a new folder, inside one that you choose, and open them to label"
        )
        self.planes = QCheckBox("label each plane")
        self.planes.setToolTip(
            "Give each time point, z slice and position of a stack its own label; set this before you open the images"
        )
        self.axes = QLineEdit()
        self.axes.setPlaceholderText("axes, such as TCYX")
        self.axes.setAccessibleName("Axes of the files")
        self.axes.setMaxLength(8)
        self.axes.setToolTip(
            "For files that do not state their axes: type one letter for each axis, such as CYX or TZYX, then Enter"
        )
        layout = vertical_layout(self, 5)
        layout.addWidget(heading("Images"))
        layout.addLayout(row(self.open_button, self.layers_button, stretch=0))
        layout.addLayout(row(self.planes, self.axes, stretch=1))
        layout.addWidget(self.practice_button)
        self.axes.returnPressed.connect(lambda: self.session.read_as(self.axes.text()))
        self.layers_button.clicked.connect(self._on_layers)
        self.practice_button.clicked.connect(self._on_practice)

    def open(self, paths: Sequence[Path], layout: Path | None = None) -> None:
        """Open a folder, a table, a plate or images as the two fields say."""
        axes = self.axes.text().strip().upper() or None
        self.session.open(OpenRequest(tuple(paths), layout, self.planes.isChecked(), axes))

    def open_dropped(self, paths: Sequence[Path]) -> None:
        """Open what was dropped; a table dropped with a plate is its layout."""
        tables = [path for path in paths if path.suffix.lower() in TABLE_SUFFIXES]
        plates = [path for path in paths if is_zarr(path)]
        if len(tables) == len(plates) == 1 and len(paths) == 2:
            self.open(plates, tables[0])
        elif paths:
            self.open(paths)

    def _on_folder(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, "Open a folder of images")
        if folder:
            self.open([Path(folder)])

    def _on_table(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self, "Open a table of labels", "", _TABLES)
        if path:
            self.open([Path(path)])

    def _on_images(self) -> None:
        paths, _ = QFileDialog.getOpenFileNames(self, "Open images")
        if paths:
            self.open([Path(path) for path in paths])

    def _on_plate(self) -> None:
        plate = QFileDialog.getExistingDirectory(self, "Open an OME-Zarr plate")
        if not plate:
            return
        layout, _ = QFileDialog.getOpenFileName(self, "Open the layout table: wells and labels", "", _TABLES)
        if layout:
            self.open([Path(plate)], Path(layout))

    def _on_practice(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, "Choose where the folder of practice images goes")
        if folder:
            self.session.open(PracticeRequest(Path(folder)))

    def _on_layers(self, _checked: Any = None) -> None:
        """Open the files behind the selected layers; layers without a file are saved first."""
        selected = [layer for layer in self.viewer.layers if layer in self.viewer.layers.selection]
        layers = [layer for layer in selected if isinstance(layer, Image) and OURS not in layer.metadata]
        if not layers:
            self.session.refuse("Select one or more image layers in the layer list first.")
            return
        try:
            sources = [open_layers(group, suggest(group)) for group in group_layers(layers)]
            files = [_file_of_layers(source) for source in sources]
        except MilcnnError as error:
            self.session.refuse(str(error))
            return
        folder = ""
        if None in files:
            folder = QFileDialog.getExistingDirectory(self, "Choose a folder in which to save layers without a file")
            if not folder:
                return
        self.session.open(LayersRequest(tuple(sources), tuple(files), Path(folder), self.planes.isChecked()))


def _file_of_layers(source: LayerImage) -> Path | None:
    """Return the file that holds the same image as layers and states its own axes; None if there is none."""
    path, reading = file_behind(source, "planes")
    return path if reading.axes is None and reading.series is None else None
