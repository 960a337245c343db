"""The section of the Classify dock that exports results to a folder, in the files that the command line writes."""

from __future__ import annotations

from pathlib import Path

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QCheckBox, QFileDialog, QLineEdit, QPushButton, QWidget

from napari_milcnn.options import EXPORTED
from napari_milcnn.plugin.qt.forms import browse_button, heading, row, vertical_layout


class ExportBox(QWidget):
    """Choose a folder and what to write there.

    Signals
    -------
    export_requested : Path, list of str
        Write these parts to this folder.
    """

    export_requested = Signal(object, object)

    def __init__(self) -> None:
        super().__init__()
        self.folder = QLineEdit()
        self.folder.setPlaceholderText("folder")
        self.browse = browse_button("Choose the folder")
        self.parts = {name: QCheckBox(name) for name in EXPORTED}
        self.button = QPushButton("Export")
        self.button.setToolTip("Also writes run.json, from which the command line can repeat this run")
        layout = vertical_layout(self)
        layout.addWidget(heading("Export"))
        layout.addLayout(row(self.folder, self.browse, self.button, stretch=0))
        layout.addLayout(row(*self.parts.values()))
        for box in self.parts.values():
            box.setChecked(True)
        self.browse.clicked.connect(self._on_browse)
        self.button.clicked.connect(self._on_export)
        self.folder.returnPressed.connect(self._on_export)

    def _on_browse(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, "Choose a folder to export to", self.folder.text())
        if folder:
            self.folder.setText(folder)

    def _on_export(self) -> None:
        if not self.folder.text().strip():
            self._on_browse()
        if self.folder.text().strip():
            chosen = [name for name, box in self.parts.items() if box.isChecked()]
            self.export_requested.emit(Path(self.folder.text().strip()).expanduser(), chosen)
