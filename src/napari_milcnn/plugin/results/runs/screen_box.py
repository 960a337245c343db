"""The form "Whole screen" of the Results dock: a source, a layout, a model, a folder, and the options of a screen."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from qtpy.QtCore import QUrl
from qtpy.QtGui import QDesktopServices
from qtpy.QtWidgets import QCheckBox, QFileDialog, QLineEdit, QPushButton, QWidget

from napari_milcnn.options import EvidenceOptions, ForegroundOptions, MaskOptions, ScreenOptions
from napari_milcnn.plugin.qt.forms import (
    Section,
    heading,
    row,
    vertical_layout,
)
from napari_milcnn.plugin.qt.option_forms import OptionsForm
from napari_milcnn.plugin.results.runs.run_box import COMPUTE_FIELDS, EVIDENCE_FIELDS, OPTION_CHOICES, PathField, RunBox
from napari_milcnn.plugin.results.runs.screen_session import ScreenChoices, ScreenSession

_SCREEN_TABLES = "Tables (*.csv *.tsv *.txt *.parquet)"


class ScreenBox(RunBox[ScreenSession]):
    """Draws a `ScreenSession`, and tells it what the user chose."""

    has_plates = False  # they are those of its images

    def __init__(self, session: ScreenSession) -> None:
        text = "The current model is the one that the Classify dock uses"
        super().__init__(session, "Whole screen", "Model for the screen", text)

    def _make_parts(self) -> None:
        self.source = PathField("Images of the screen", "A folder of images named by their wells, or an OME-Zarr "
                                "plate; a table or an OME-TIFF can be dropped here, too", folder=True)  # fmt: skip
        self.table_button = QPushButton("Table of images…")
        self.table_button.setToolTip("Choose a table of images, or an OME-TIFF with one series for each field")
        self.layout_table = PathField("Layout of the wells", "What each well was given: a table with the column well "
                                      "and such as compound, dose, control, label", kinds=_SCREEN_TABLES)  # fmt: skip
        self.out = PathField("Folder of the screen", "A new folder for the results, or that of a screen to go on with",
                             folder=True)  # fmt: skip
        self.options = OptionsForm(ScreenOptions, ScreenOptions.model_fields)
        self.classes = QLineEdit()
        self.classes.setAccessibleName("Classes")
        self.classes.setPlaceholderText("all classes")
        self.classes.setToolTip("Classes whose cells are looked for, such as nucleus|actin")
        self.evidence = OptionsForm(EvidenceOptions, EVIDENCE_FIELDS, OPTION_CHOICES)
        self.foreground = OptionsForm(ForegroundOptions, ForegroundOptions.model_fields)
        self.masks = OptionsForm(MaskOptions, MaskOptions.model_fields, labels={"present": "lowest score"})
        self.computing = OptionsForm(EvidenceOptions, COMPUTE_FIELDS, OPTION_CHOICES)
        self.redo, self.retry = QCheckBox("wells that changed, again"), QCheckBox("wells that failed, again")
        self.redo.setToolTip("Classify wells again whose images, model or options are others now")
        self.retry.setToolTip("Classify wells again in which a field failed")
        for box in (self.redo, self.retry):
            box.setAccessibleName(box.text())
        self.stop_button.setText("Cancel screen")
        self.stop_button.setToolTip("Stop at the next step; the wells that are done are kept")
        self.last_button.setText("Report of the screen")
        self.last_button.setToolTip("Open report.html of this screen in your browser")
        self.table_button.clicked.connect(self._on_table)

    def _lay_out(self) -> None:
        layout = self.lines
        layout.addLayout(row("images", self.source, stretch=1))
        layout.addWidget(self.table_button)
        layout.addLayout(row("layout", self.layout_table, stretch=1))
        layout.addLayout(row("model", self.model, self.model_button, stretch=1))
        layout.addLayout(row("results", self.out, stretch=1))
        layout.addWidget(self.redo)
        layout.addWidget(self.retry)
        layout.addWidget(Section("Wells, cells and workers", self.options, is_open=False))
        layout.addWidget(Section("Evidence, cells and masks", self._cells_page(), is_open=False))
        layout.addWidget(Section("How the fields are opened", self.reading, is_open=False))
        layout.addWidget(Section("Computing the screen", self.computing, is_open=False))
        layout.addWidget(self.problem)
        layout.addWidget(self.start_button)

    def _cells_page(self) -> QWidget:
        page = QWidget()
        layout = vertical_layout(page)
        layout.addLayout(row("classes", self.classes, stretch=1))
        layout.addWidget(self.evidence)
        layout.addWidget(heading("How objects are found"))
        layout.addWidget(self.foreground)
        layout.addWidget(heading("Masks"))
        layout.addWidget(self.masks)
        return page

    def _fields(self) -> Iterable[Any]:
        for part in (self.source, self.layout_table, self.out, self.options, self.computing, self.evidence,
                     self.foreground, self.masks):  # fmt: skip
            yield part.changed
        yield self.classes.textChanged
        for box in (self.redo, self.retry):
            yield box.toggled

    def choices(self) -> ScreenChoices:
        """Return what the form says."""
        evidence = self.computing.values() | self.evidence.values()
        foreground = self.foreground.given()
        return ScreenChoices(
            source=self.source.path(), layout=self.layout_table.path(), model=self.model.currentData(),
            out=self.out.path(), redo_changed=self.redo.isChecked(), retry_failed=self.retry.isChecked(),
            classes=tuple(name.strip() for name in self.classes.text().split("|") if name.strip()),
            options=self.options.values(), evidence={**evidence, "foreground": foreground or None},
            masks=self.masks.values(), reading=self.reading.values(),
        )  # fmt: skip

    def _on_table(self) -> None:
        kinds = f"{_SCREEN_TABLES};;OME-TIFF (*.tif *.tiff)"
        path, _ = QFileDialog.getOpenFileName(self, "Table of images", self.source.line.text(), kinds)
        if path:
            self.source.line.setText(path)

    def _on_last(self) -> None:
        if self.session.report is not None:
            QDesktopServices.openUrl(QUrl.fromLocalFile(str(self.session.report)))

    def _draw(self) -> None:
        session = self.session
        if not session.is_busy:
            self.out.suggest(session.out)
            resumes = session.resumes
            self.redo.setVisible(resumes)
            self.retry.setVisible(resumes)
            self.start_button.setText("Resume screen" if resumes else "Start screen")
        self.last_button.setVisible(session.report is not None)
