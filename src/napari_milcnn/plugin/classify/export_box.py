"""What was found, written to a folder as the command line writes it."""

from __future__ import annotations

from pathlib import Path

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QCheckBox, QFileDialog, QLineEdit, QPushButton, QVBoxLayout, QWidget

from napari_milcnn.options import EXPORTED
from napari_milcnn.plugin.qt.forms import heading, row


class ExportBox(QWidget):
    """Choose a folder and what goes there.

    Signals
    -------
    asked : Path, list of str
        Write these parts to this folder.
    """

    asked = Signal(object, object)

    def __init__(self) -> None:
        super().__init__()
        self.folder = QLineEdit()
        self.folder.setPlaceholderText("folder")
        self.browse = QPushButton("…")
        self.browse.setFixedWidth(32)
        self.browse.setAccessibleName("Choose the folder")
        self.parts = {name: QCheckBox(name) for name in EXPORTED}
        self.button = QPushButton("Export")
        self.button.setToolTip("Also writes run.json: napari-milcnn classify --replay run.json gives the same numbers")
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(heading("Export"))
        layout.addLayout(row(self.folder, self.browse, self.button, stretch=0))
        layout.addLayout(row(*self.parts.values()))
        for box in self.parts.values():
            box.setChecked(True)
        self.browse.clicked.connect(self._on_browse)
        self.button.clicked.connect(self._on_export)
        self.folder.returnPressed.connect(self._on_export)

    def _on_browse(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, "Export to", self.folder.text())
        if folder:
            self.folder.setText(folder)

    def _on_export(self) -> None:
        if not self.folder.text().strip():
            self._on_browse()
        if self.folder.text().strip():
            chosen = [name for name, box in self.parts.items() if box.isChecked()]
            self.asked.emit(Path(self.folder.text().strip()).expanduser(), chosen)
