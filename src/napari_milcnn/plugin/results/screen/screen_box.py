"""The form "Whole screen" of the Results dock: a source, a layout, a model, a folder, and the options of a screen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qtpy.QtCore import QUrl
from qtpy.QtGui import QDesktopServices
from qtpy.QtWidgets import QCheckBox, QFileDialog, QPushButton, QWidget

from napari_milcnn.options import EvidenceOptions, ScreenOptions
from napari_milcnn.plugin.current_model import current
from napari_milcnn.plugin.qt.forms import (
    JobProgress,
    NarrowComboBox,
    Note,
    NoticesBox,
    Section,
    browse_button,
    connect_while_alive,
    form_values,
    options_form,
    plain_text,
    row,
    vertical_layout,
)
from napari_milcnn.plugin.results.evaluation_box import (
    COMPUTE_FIELDS,
    OPTION_CHOICES,
    PathField,
    ReadingForm,
    fill_models,
)
from napari_milcnn.plugin.results.screen.screen_session import ScreenChoices, ScreenSession
from napari_milcnn.plugin.user_settings import remember_model

_SCREEN_TABLES = "Tables (*.csv *.tsv *.txt *.parquet)"


class ScreenBox(QWidget):
    """Draws a `ScreenSession`, and tells it what the user chose."""

    def __init__(self, session: ScreenSession) -> None:
        super().__init__()
        self.session = session
        self._make_parts()
        self._lay_out()
        self._connect()
        fill_models(self.model)
        session.use(current.model)
        self._on_choice()

    def _make_parts(self) -> None:
        self.source = PathField("Images of the screen", "A folder of images named by their wells, or an OME-Zarr "
                                "plate; a table or an OME-TIFF can be dropped here, too", folder=True)  # fmt: skip
        self.table_button = QPushButton("Table of images…")
        self.table_button.setToolTip("Choose a table of images, or an OME-TIFF with one series for each field")
        self.layout_table = PathField("Layout of the wells", "What each well was given: a table with the column well "
                                      "and such as compound, dose, control, label", kinds=_SCREEN_TABLES)  # fmt: skip
        self.model = NarrowComboBox()
        self.model.setAccessibleName("Model for the screen")
        self.model.setToolTip("The current model is the one that the Classify dock uses")
        self.model_button = browse_button("Open the file of a model for the screen")
        self.model_button.setToolTip("Open a model .zip")
        self.out = PathField("Folder of the screen", "A new folder for the results, or that of a screen to go on with",
                             folder=True)  # fmt: skip
        self.options = options_form(ScreenOptions, tuple(ScreenOptions.model_fields), {})
        self.computing = options_form(EvidenceOptions, COMPUTE_FIELDS, OPTION_CHOICES)
        self.reading = ReadingForm()
        self.redo, self.retry = QCheckBox("wells that changed, again"), QCheckBox("wells that failed, again")
        self.redo.setToolTip("Classify wells again whose images, model or options are others now")
        self.retry.setToolTip("Classify wells again in which a field failed")
        for box in (self.redo, self.retry):
            box.setAccessibleName(box.text())
        self.problem, self.doing, self.message = Note(), Note(), NoticesBox()
        self.start_button, self.stop_button = QPushButton("Start screen"), QPushButton("Cancel screen")
        self.stop_button.setToolTip("Stop at the next step; the wells that are done are kept")
        self.report_button = QPushButton("Report of the screen")
        self.report_button.setToolTip("Open report.html of this screen in your browser")
        self.progress = JobProgress()

    def _lay_out(self) -> None:
        self.inside = QWidget()
        layout = vertical_layout(self.inside)
        layout.addLayout(row("images", self.source, stretch=1))
        layout.addWidget(self.table_button)
        layout.addLayout(row("layout", self.layout_table, stretch=1))
        layout.addLayout(row("model", self.model, self.model_button, stretch=1))
        layout.addLayout(row("results", self.out, stretch=1))
        layout.addWidget(self.redo)
        layout.addWidget(self.retry)
        layout.addWidget(Section("Wells, cells and workers", self.options.native, is_open=False))
        layout.addWidget(Section("How the fields are opened", self.reading, is_open=False))
        layout.addWidget(Section("Computing the screen", self.computing.native, is_open=False))
        layout.addWidget(self.problem)
        layout.addWidget(self.start_button)
        self.section = Section("Whole screen", self.inside, is_open=False)
        own = vertical_layout(self)
        for part in (self.section, self.progress, self.doing, self.stop_button, self.message, self.report_button):
            own.addWidget(part)

    def _connect(self) -> None:
        for path in (self.source, self.layout_table, self.out):
            path.changed.connect(self._on_choice)
        for form in (self.options, self.computing):
            form.changed.connect(lambda _value: self._on_choice())
        self.reading.changed.connect(self._on_choice)
        for box in (self.redo, self.retry):
            box.toggled.connect(self._on_choice)
        self.model.activated.connect(self._on_choice)
        self.model_button.clicked.connect(self._on_open_model)
        self.table_button.clicked.connect(self._on_table)
        self.start_button.clicked.connect(self.session.start)
        self.stop_button.clicked.connect(self.session.stop)
        self.report_button.clicked.connect(self._on_report)
        self.session.changed.connect(self._on_change)
        connect_while_alive(current.changed, self._on_current, self)

    def choices(self) -> ScreenChoices:
        """Return what the form says."""
        return ScreenChoices(
            self.source.path(), self.layout_table.path(), self.model.currentData(), self.out.path(),
            self.redo.isChecked(), self.retry.isChecked(), form_values(self.options, ScreenOptions),
            form_values(self.computing, EvidenceOptions), self.reading.values(),
        )  # fmt: skip

    def _on_choice(self, _value: Any = None) -> None:
        self.session.choose(self.choices())
        self._on_change()

    def _on_current(self, model: Any) -> None:
        chosen = self.model.currentData()
        fill_models(self.model)
        self.model.setCurrentIndex(max(0, self.model.findData(chosen)) if chosen is not None else 0)
        self.session.use(model)

    def _on_open_model(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self, "Open a model", "", "Models (*.zip rdf.yaml)")
        if path:
            remember_model(path)
            self.model.addItem(Path(path).stem, Path(path))
            self.model.setCurrentIndex(self.model.count() - 1)
            self._on_choice()

    def _on_table(self) -> None:
        kinds = f"{_SCREEN_TABLES};;OME-TIFF (*.tif *.tiff)"
        path, _ = QFileDialog.getOpenFileName(self, "Table of images", self.source.line.text(), kinds)
        if path:
            self.source.line.setText(path)

    def _on_report(self) -> None:
        if self.session.report is not None:
            QDesktopServices.openUrl(QUrl.fromLocalFile(str(self.session.report)))

    def _on_change(self) -> None:
        session = self.session
        runs = session.is_busy
        problem = "" if runs else session.problem  # which looks at files
        if not runs:
            self.out.suggest(session.out)
            resumes = session.resumes
            self.redo.setVisible(resumes)
            self.retry.setVisible(resumes)
            self.start_button.setText("Resume screen" if resumes else "Start screen")
        self.start_button.setEnabled(not runs and not problem)
        self.start_button.setToolTip(plain_text(problem) or "Start; the window stays free meanwhile")
        self.problem.say(problem)
        self.inside.setEnabled(not runs)
        self.progress.setVisible(runs)
        self.progress.show_share(session.share, session.seconds_left)
        self.doing.say(session.doing)
        self.stop_button.setVisible(runs)
        self.stop_button.setEnabled(not session.is_stopping)
        self.message.show_notices(session.notices)
        self.report_button.setVisible(session.report is not None)
