"""The Results dock: open the results of a run or an evaluation as tables and figures, and open their images.

The dock draws a `ResultsSession` and tells it what the user did; it knows nothing itself.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari.viewer import Viewer
from qtpy.QtCore import QUrl
from qtpy.QtGui import QDesktopServices, QGuiApplication
from qtpy.QtWidgets import QButtonGroup, QFileDialog, QGridLayout, QPushButton, QWidget

from napari_milcnn.plugin.docks import TrainPage, open_page
from napari_milcnn.plugin.qt.figure import figure_style
from napari_milcnn.plugin.qt.forms import (
    DeletedWhenClosed,
    Note,
    NoticesBox,
    PageStack,
    connect_while_alive,
    dropped_paths,
    heading,
    page_layout,
    row,
    scrolled,
    there,
    vertical_layout,
)
from napari_milcnn.plugin.qt.job import SessionJobs
from napari_milcnn.plugin.qt.notices import Level, Notice
from napari_milcnn.plugin.qt.unlike_band import UnlikeBand
from napari_milcnn.plugin.results.gallery import GallerySession
from napari_milcnn.plugin.results.gallery_box import GalleryView
from napari_milcnn.plugin.results.plot_box import (
    CalibrationView,
    ConfusionView,
    DoseView,
    HistogramView,
    View,
)
from napari_milcnn.plugin.results.rows_box import RowsBox
from napari_milcnn.plugin.results.runs.evaluation_box import EvaluationBox
from napari_milcnn.plugin.results.runs.evaluation_session import EvaluationSession
from napari_milcnn.plugin.results.runs.screen_box import ScreenBox
from napari_milcnn.plugin.results.runs.screen_session import ScreenSession
from napari_milcnn.plugin.results.session import Chosen, ResultsSession
from napari_milcnn.plugin.results.wells.chosen_box import ChosenWellsBox
from napari_milcnn.plugin.results.wells.labels_session import WellLabelsSession
from napari_milcnn.plugin.results.wells.likeness_box import LikenessView
from napari_milcnn.plugin.results.wells.likeness_session import LikenessSession
from napari_milcnn.plugin.results.wells.plate_box import PlateView
from napari_milcnn.plugin.results.wells.running_box import RunningBox
from napari_milcnn.plugin.results.wells.running_session import RunningSession
from napari_milcnn.plugin.results.wells.wells_session import WellsSession

if TYPE_CHECKING:
    from napari_milcnn.plugin.results.reading import ReadResults
    from napari_milcnn.results.opened import OpenedResults

_HOW_TO_OPEN = (
    "Open a results folder, written by napari-milcnn classify or evaluate or exported from the Classify dock, or the "
    "folder of a screen, which may still be running. You can also drop the folder, or its predictions.csv, here."
)
_RESUME_HELP = "Classify the images that the run did not come to, with its own model and options"
_STOP_HELP = "Stop the run: the image under way is left out, those that are done are kept"
_PICTURE_HELP = "Save the figure in view as PNG or SVG, on white in every theme"
_BUTTONS_PER_ROW = 4


class ResultsDock(QWidget):
    """Show results as a table, as figures and as a plate, and open their images.

    Parameters
    ----------
    napari_viewer : Viewer
        Given by napari.
    """

    def __init__(self, napari_viewer: Viewer) -> None:
        super().__init__()
        self.viewer = napari_viewer
        self.session, self.gallery_session = ResultsSession(napari_viewer), GallerySession()
        self.evaluation, self.screen_session = EvaluationSession(), ScreenSession()
        self.wells_session, self.running = WellsSession(self.session), RunningSession(self.session)
        self.likeness = LikenessSession(self.wells_session)
        self.well_labels = WellLabelsSession(self.wells_session)
        DeletedWhenClosed(self)
        self._make_parts()
        self._lay_out()
        self._connect()
        self._on_results()
        self._on_change()

    def _make_parts(self) -> None:
        self.rows, self.gallery = RowsBox(self.session), GalleryView(self.gallery_session)
        self.histogram, self.confusion, self.calibration = HistogramView(), ConfusionView(), CalibrationView()
        self.dose, self.plate = DoseView(), PlateView(self.wells_session)
        self.alike, self.chosen_box = LikenessView(self.likeness), ChosenWellsBox(self.likeness, self.well_labels)
        self.views: tuple[View, ...] = (
            self.rows, self.histogram, self.confusion, self.calibration, self.gallery, self.plate, self.dose,
            self.alike,
        )  # fmt: skip
        self.folder_button = _button("Open folder…", "Open the folder of a classification or an evaluation")
        self.file_button = _button("Open CSV…", "Open a table of results, such as one that Save CSV… wrote")
        self.folder_button.setDefault(True)
        self.layout_button = _button(
            "Layout…", "Add columns such as label, group, well, dose or compound from a table with the column file or "
                       "well"
        )  # fmt: skip
        self.images_button = _button("Images…", "Choose the folder that the images were moved to")
        self.resume_button = _button("Resume", _RESUME_HELP)
        self.report_button = _button("Report", "Open report.html of this evaluation in your browser")
        self.place_button = _button("Folder", "Show the folder of these results in the file manager")
        self.facts, self.warnings, self.message, self.unlike = Note(), NoticesBox(), NoticesBox(), UnlikeBand()
        self.view_buttons = [_button(view.title, f"Show the view {view.title}") for view in self.views]
        self.evaluation_box, self.screen_box = EvaluationBox(self.evaluation), ScreenBox(self.screen_session)
        self.running_box = RunningBox(self.running)
        self._group, self.stack = QButtonGroup(self), PageStack()
        for number, (view, button) in enumerate(zip(self.views, self.view_buttons, strict=True)):
            button.setCheckable(True)
            self._group.addButton(button, number)
            self.stack.addWidget(view)
        self.view_buttons[0].setChecked(True)
        self.picture_button = _button("Save picture…", _PICTURE_HELP)
        self.save_button = _button("Save CSV…", "Save the rows that the table lists, in their order, with all columns")
        self.setAcceptDrops(True)

    def _lay_out(self) -> None:
        inside, self._after = QWidget(), QWidget()
        grid = QGridLayout()
        grid.setSpacing(4)
        for number, button in enumerate(self.view_buttons):
            grid.addWidget(button, number // _BUTTONS_PER_ROW, number % _BUTTONS_PER_ROW)
        after = vertical_layout(self._after)
        after.addLayout(row(self.layout_button, self.images_button, self.report_button, self.place_button))
        after.addLayout(grid)
        after.addWidget(self.unlike)
        after.addWidget(self.stack, 1)
        after.addWidget(self.chosen_box)
        after.addLayout(row(self.picture_button, self.save_button))
        layout = page_layout(inside)
        layout.addWidget(heading("Results"))
        layout.addLayout(row(self.folder_button, self.file_button))
        layout.addWidget(self.evaluation_box)
        layout.addWidget(self.screen_box)
        for part in (self.facts, self.running_box, self.warnings, self.message, self.resume_button):
            layout.addWidget(part)
        layout.addWidget(self._after, 1)
        layout.addStretch()
        vertical_layout(self).addWidget(scrolled(inside))
        self.setMinimumWidth(310)

    def _connect(self) -> None:
        session = self.session
        self.jobs, self.gallery_jobs = SessionJobs(session, self), SessionJobs(self.gallery_session, self)
        self.evaluation_jobs = SessionJobs(self.evaluation, self)
        self.screen_jobs = SessionJobs(self.screen_session, self)
        self.wells_jobs = SessionJobs(self.wells_session, self)
        self.running_jobs = SessionJobs(self.running, self)
        self.likeness_jobs = SessionJobs(self.likeness, self)
        self.label_jobs = SessionJobs(self.well_labels, self)
        self.chosen_box.train_asked.connect(self._on_train)
        self.likeness.list_asked.connect(lambda: self.show_view(self.views.index(self.alike)))
        self.running.changed.connect(self._on_growth)
        self.evaluation.written.connect(self._on_evaluated)
        self.screen_session.written.connect(self._on_screened)
        session.results_changed.connect(self._on_results)
        session.row_changed.connect(self._on_row)
        session.changed.connect(self._on_change)
        session.copied.connect(lambda text: there(QGuiApplication.clipboard()).setText(text))
        self.folder_button.clicked.connect(self._on_folder)
        self.file_button.clicked.connect(self._on_file)
        self.layout_button.clicked.connect(self._on_layout)
        self.images_button.clicked.connect(self._on_images)
        self.resume_button.clicked.connect(session.resume)
        self.report_button.clicked.connect(self._on_report)
        self.place_button.clicked.connect(self._on_place)
        self._group.idClicked.connect(self.show_view)
        self.picture_button.clicked.connect(self._on_save_picture)
        self.save_button.clicked.connect(self._on_save)
        for view in self.views:
            view.row_picked.connect(session.open_image)
            view.images_picked.connect(self._on_images_picked)
        connect_while_alive(self.viewer.events.theme, self._draw, self)
        connect_while_alive(self.viewer.dims.events.current_step, self._on_moved, self)
        connect_while_alive(self.viewer.layers.events.removed, self._on_removed, self)

    @property
    def found(self) -> OpenedResults | None:
        """The results that are open."""
        return self.session.found

    @property
    def busy(self) -> bool:
        """Whether results or an image are being read, or pictures are being made."""
        sessions = (
            self.session,
            self.gallery_session,
            self.evaluation,
            self.screen_session,
            self.wells_session,
            self.running,
            self.likeness,
            self.well_labels,
        )
        return any(one.is_busy for one in sessions) or self.view().is_busy

    # Drawing

    def view(self) -> View:
        """Return the view that is shown."""
        shown: View = self.views[self.stack.currentIndex()]
        return shown

    def show_view(self, number: int) -> None:
        """Show a view by its number in `views`."""
        self.view_buttons[number].setChecked(True)
        self.stack.setCurrentIndex(number)
        self._draw()

    def _on_results(self) -> None:
        """Show the opened results, or how to open some."""
        opened = self.session.opened
        self._after.setVisible(opened is not None)
        self.facts.say(_HOW_TO_OPEN if opened is None else opened.facts)
        texts = () if opened is None else opened.warnings
        self.warnings.show_notices(tuple(Notice("results", text, Level.WARNING) for text in texts))
        if opened is not None:
            self.images_button.setVisible(bool(opened.found.missing))
            self.report_button.setVisible(opened.report is not None)
            self.place_button.setVisible(opened.found.path is not None)
        self._on_change()
        self._draw()

    def _on_evaluated(self, results: ReadResults) -> None:
        """Open what an evaluation wrote, and show its confusion."""
        self.session.show_results(results)
        self.show_view(self.views.index(self.confusion))

    def _on_screened(self, results: ReadResults) -> None:
        """Open what a screen wrote, as a table."""
        self.session.show_results(results)
        self.show_view(self.views.index(self.rows))

    def _on_growth(self) -> None:
        """Read on where a plate is in view, on which nothing is lost by that."""
        if self.running.has_news and self.view() is self.plate:
            self.session.refresh()

    def _on_row(self) -> None:
        """Say whether the image of the row that is looked at is like the training images."""
        if self.found is not None:
            self.unlike.show_row(self.found.table, self.session.row)

    def _on_change(self) -> None:
        message = self.session.message
        self.message.show_notices((message,) if message.text else ())
        resuming, found = self.session.is_resuming, self.found
        self.resume_button.setVisible(resuming or (found is not None and found.unfinished > 0))
        self.resume_button.setText("Stop" if resuming else "Resume")
        self.resume_button.setToolTip(_STOP_HELP if resuming else _RESUME_HELP)

    def _draw(self, _event: Any = None) -> None:
        """Draw the view in front, also in another theme."""
        opened = self.session.opened
        if opened is None:
            return
        self.view().show_results(opened, figure_style(self.viewer))
        is_table = self.view() is self.rows
        self.picture_button.setEnabled(not is_table)
        self.picture_button.setToolTip("Click Save CSV… to save the table" if is_table else _PICTURE_HELP)

    # What the user does

    def _on_folder(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, "Open results")
        if folder:
            self.session.open(folder)

    def _on_file(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self, "Open results", "", "Tables (*.csv)")
        if path:
            self.session.open(path)

    def _on_layout(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self, "Open a layout table", "", "Tables (*.csv *.tsv *.txt)")
        if path:
            self.session.open(path)

    def _on_images(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, "Choose the folder of the images")
        if folder:
            self.session.find_images(folder)

    def dragEnterEvent(self, event: Any) -> None:
        """Accept files."""
        if event.mimeData().hasUrls():
            event.acceptProposedAction()

    def dropEvent(self, event: Any) -> None:
        """Open the dropped results and layout tables."""
        paths = dropped_paths(event)
        if paths:
            self.session.open(*paths)

    def _on_report(self) -> None:
        opened = self.session.opened
        if opened is not None and opened.report is not None:
            QDesktopServices.openUrl(QUrl.fromLocalFile(str(opened.report)))

    def _on_place(self) -> None:
        if self.found is not None and self.found.path is not None:
            QDesktopServices.openUrl(QUrl.fromLocalFile(str(self.found.path.parent)))

    def _on_moved(self, _event: Any = None) -> None:
        self.session.move_sliders()

    def _on_removed(self, _event: Any = None) -> None:
        self.session.remove_layers()

    def _on_train(self, table: Path) -> None:
        open_page(self.viewer, TrainPage).when_open(lambda dock: dock.open_labels(table))

    def _on_images_picked(self, files: list[str], words: str) -> None:
        self.show_view(0)
        self.session.choose(Chosen(tuple(files), words))

    def _on_save_picture(self) -> None:
        name = f"{self.view().title.lower()}.png"
        path, _ = QFileDialog.getSaveFileName(self, "Save picture", name, "PNG (*.png);;SVG (*.svg)")
        if path:
            self.save_picture(path)

    def save_picture(self, path: str | Path) -> None:
        """Save the figure in view as PNG or SVG."""
        if self.view().can_save:
            self.session.save(self.view().save, path)
        else:
            self.session.miss("There is no picture to save yet.")

    def _on_save(self) -> None:
        path, _ = QFileDialog.getSaveFileName(self, "Save table", "results.csv", "Tables (*.csv)")
        if path:
            self.session.save(self.rows.write, path)


def _button(text: str, tooltip: str) -> QPushButton:
    button = QPushButton(text)
    button.setToolTip(tooltip)
    return button
