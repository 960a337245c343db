"""The Results dock: open the results of a run or an evaluation as tables and figures, and open their images."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.viewer import Viewer
from qtpy.QtWidgets import (
    QButtonGroup,
    QFileDialog,
    QGridLayout,
    QPushButton,
    QStackedWidget,
    QWidget,
)

from napari_milcnn.errors import MilcnnError
from napari_milcnn.plugin.qt.figure import figure_style
from napari_milcnn.plugin.qt.forms import (
    ERROR,
    WARNING,
    DeletedWhenClosed,
    Note,
    connect_while_alive,
    dropped_paths,
    heading,
    page_layout,
    row,
    scrolled,
    vertical_layout,
)
from napari_milcnn.plugin.qt.job import Ending, Job
from napari_milcnn.plugin.qt.unlike_band import UnlikeBand
from napari_milcnn.plugin.results.gallery_box import GalleryView
from napari_milcnn.plugin.results.opened_layers import OpenedLayers, OpenStep, open_row
from napari_milcnn.plugin.results.plot_box import (
    CalibrationView,
    ConfusionView,
    DoseView,
    HistogramView,
    PlateView,
    View,
)
from napari_milcnn.plugin.results.rows_box import RowsBox
from napari_milcnn.schema import NO_CLASS, NOTHING, UNLIKE

if TYPE_CHECKING:
    from napari_milcnn.evaluation.report import EvaluationReport
    from napari_milcnn.images.stack import PlaneIndex
    from napari_milcnn.results.opened import OpenedResults

_HOW_TO_OPEN = (
    "Open a results folder, written by napari-milcnn classify or evaluate or exported from the Classify dock. You can "
    "also drop the folder, or its predictions.csv, here."
)
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
        self.found: OpenedResults | None = None
        self._facts = _HOW_TO_OPEN
        self._job: Job | None = None
        self._opening: Job | None = None
        self._rows_of_image: dict[PlaneIndex | None, int] = {}
        self.opened = OpenedLayers(napari_viewer)
        DeletedWhenClosed(self)
        self._make_parts()
        self._lay_out()
        self._connect()
        self._refresh()

    def _make_parts(self) -> None:
        self.rows, self.gallery = RowsBox(), GalleryView()
        self.histogram, self.confusion, self.calibration = HistogramView(), ConfusionView(), CalibrationView()
        self.dose, self.plate = DoseView(), PlateView()
        self.views: tuple[View, ...] = (
            self.rows, self.histogram, self.confusion, self.calibration, self.gallery, self.plate, self.dose,
        )  # fmt: skip
        self.folder_button, self.file_button = QPushButton("Open folder…"), QPushButton("Open CSV…")
        self.folder_button.setDefault(True)
        self.layout_button, self.images_button = QPushButton("Layout…"), QPushButton("Images…")
        self.layout_button.setToolTip(
            "Add columns such as label, group, well, dose or compound from a table with the column file or well"
        )
        self.images_button.setToolTip("Choose the folder that the images were moved to")
        self.facts, self.message = Note(), Note()
        self.view_buttons = [QPushButton(view.title) for view in self.views]
        self.unlike = UnlikeBand()
        self._group, self.stack = QButtonGroup(self), QStackedWidget()
        for number, (view, button) in enumerate(zip(self.views, self.view_buttons, strict=True)):
            button.setCheckable(True)
            self._group.addButton(button, number)
            self.stack.addWidget(view)
        self.view_buttons[0].setChecked(True)
        self.picture_button, self.save_button = QPushButton("Save picture…"), QPushButton("Save CSV…")
        self.setAcceptDrops(True)

    def _lay_out(self) -> None:
        inside, self._after = QWidget(), QWidget()
        grid = QGridLayout()
        grid.setSpacing(4)
        for number, button in enumerate(self.view_buttons):
            grid.addWidget(button, number // _BUTTONS_PER_ROW, number % _BUTTONS_PER_ROW)
        after = vertical_layout(self._after)
        after.addLayout(row(self.layout_button, self.images_button))
        after.addLayout(grid)
        after.addWidget(self.unlike)
        after.addWidget(self.stack, 1)
        after.addLayout(row(self.picture_button, self.save_button))
        layout = page_layout(inside)
        layout.addWidget(heading("Results"))
        layout.addLayout(row(self.folder_button, self.file_button))
        layout.addWidget(self.facts)
        layout.addWidget(self.message)
        layout.addWidget(self._after, 1)
        layout.addStretch()
        vertical_layout(self).addWidget(scrolled(inside))
        self.setMinimumWidth(310)

    def _connect(self) -> None:
        self.folder_button.clicked.connect(self._on_folder)
        self.file_button.clicked.connect(self._on_file)
        self.layout_button.clicked.connect(self._on_layout)
        self.images_button.clicked.connect(self._on_images)
        self._group.idClicked.connect(self.show_view)
        self.picture_button.clicked.connect(self._on_save_picture)
        self.save_button.clicked.connect(self._on_save)
        for view in self.views:
            view.row_picked.connect(self.open_image)
            view.images_picked.connect(self._on_images_picked)
        connect_while_alive(self.viewer.events.theme, self._on_theme, self)
        connect_while_alive(self.viewer.dims.events.current_step, self._on_moved, self)

    # State

    @property
    def busy(self) -> bool:
        """Whether results or an image are being read, or thumbnails are being made."""
        return self._job is not None or self._opening is not None or self.gallery.busy

    def view(self) -> View:
        """Return the view that is shown."""
        shown: View = self.views[self.stack.currentIndex()]
        return shown

    def show_view(self, number: int) -> None:
        """Show a view by its number in `views`."""
        self.view_buttons[number].setChecked(True)
        self.stack.setCurrentIndex(number)
        self._draw()

    def _on_theme(self, _event: Any = None) -> None:
        self._draw()

    def _refresh(self) -> None:
        """Show the opened results, or how to open some."""
        found = self.found
        self._after.setVisible(found is not None)
        self.facts.say(self._facts)
        if found is None:
            return
        self.images_button.setVisible(bool(found.missing))
        self._say(" ".join(f"{text}." for text in warnings_of(found)), WARNING)
        self._draw()

    def _draw(self) -> None:
        if self.found is None:
            return
        self.view().show_results(self.found, figure_style(self.viewer))
        is_table = self.view() is self.rows
        self.picture_button.setEnabled(not is_table)
        self.picture_button.setToolTip(
            "Click Save CSV… to save the table" if is_table else "Save as PNG or SVG on white ground"
        )

    def _say(self, text: str, colour: str = "") -> None:
        self.message.say(text, colour)

    # Opening

    def open(self, *paths: str | Path) -> None:
        """Open a results folder or its predictions.csv; layout tables are joined to it, or to the open results."""

        def steps() -> Iterator[OpenedResults]:
            from napari_milcnn.results.layout import is_layout, with_layout
            from napari_milcnn.results.read import read_results

            found = before
            for path in sorted(map(Path, paths), key=is_layout):
                found = with_layout(found, path) if found is not None and is_layout(path) else read_results(path)
            if found is not None:
                yield found

        before = self.found
        self._work(steps, f"reading {', '.join(Path(path).name for path in paths)}…")

    def show_report(self, report: EvaluationReport) -> None:
        """Show the report of an evaluation that is in memory."""

        def steps() -> Iterator[OpenedResults]:
            from napari_milcnn.evaluation.report import results_of

            yield results_of(report)

        self._work(steps, "reading the report…")

    def _work(self, steps: Callable[[], Iterator[OpenedResults]], words: str) -> None:
        """Read results beside the window, and abandon a reading that is under way."""
        if self._job is not None:
            self._job.abandon()
        self._say(words)

        def with_facts() -> Iterator[tuple[OpenedResults, str]]:
            for found in steps():
                _ = found.wells  # computed here because it is slow for a hundred thousand names, and then cached
                yield found, facts_of(found)

        self._job = Job(with_facts, self, self._on_found, self._on_end)

    def _on_found(self, found_and_facts: tuple[OpenedResults, str]) -> None:
        self.found, self._facts = found_and_facts
        self._rows_of_image = {}
        self.unlike.show_row(self.found.table, None)
        self._refresh()

    def _on_end(self, ending: Ending) -> None:
        self._job = None
        if ending.error:
            self._say(ending.error, ERROR)

    def _on_folder(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, "Open results")
        if folder:
            self.open(folder)

    def _on_file(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self, "Open results", "", "Tables (*.csv)")
        if path:
            self.open(path)

    def _on_layout(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self, "Open a layout table", "", "Tables (*.csv *.tsv *.txt)")
        if path:
            self.open(path)

    def _on_images(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, "Choose the folder of the images")
        if folder:
            self.find_images(folder)

    def find_images(self, folder: str | Path) -> None:
        """Look for the images of the open results in a folder."""
        found = self.found

        def steps() -> Iterator[OpenedResults]:
            from napari_milcnn.results.moved_images import with_images

            assert found is not None
            yield with_images(found, Path(folder))

        if found is not None:
            self._work(steps, f"searching {Path(folder).name}…")

    def dragEnterEvent(self, event: Any) -> None:
        """Accept files."""
        if event.mimeData().hasUrls():
            event.acceptProposedAction()

    def dropEvent(self, event: Any) -> None:
        """Open the dropped results and layout tables."""
        paths = dropped_paths(event)
        if paths:
            self.open(*paths)

    # Images

    def open_image(self, number: int) -> None:
        """Show the image of a row with its masks in the viewer, in place of the image opened before."""
        found = self.found
        assert found is not None
        self._look_at(number)
        self._rows_of_image = found.rows_of_image(number)
        path, at = found.files[str(found.table["file"].iat[number])], found.plane_of(number)
        if path is not None and self.opened.shows(path) and at in (None, *self.opened.planes()):
            if at is not None:
                self.opened.go_to(self.opened.planes().index(at))
            return
        if self._opening is not None:
            self._opening.abandon()
        self._opening = Job(lambda: open_row(found, number), self, self._on_opened, self._on_opening_end)

    def _look_at(self, number: int) -> None:
        """Select a row, and say whether its image is like the training images."""
        assert self.found is not None
        self.rows.select(number)
        self.unlike.show_row(self.found.table, number)

    def _on_moved(self, _event: Any = None) -> None:
        """Look at the row of the plane to which the sliders were moved, of the image that was opened last."""
        plane = self.opened.plane_in_view()
        if self._opening is None and plane is not None and plane in self._rows_of_image:
            self._look_at(self._rows_of_image[plane])

    def _on_opened(self, step: OpenStep) -> None:
        assert self.found is not None
        self.opened.take(step, self.found.classes)

    def _on_opening_end(self, ending: Ending) -> None:
        self._opening = None
        if ending.error:
            self._say(ending.error, ERROR)

    def _on_images_picked(self, files: list[str], words: str) -> None:
        assert self.found is not None
        self.show_view(0)
        self.rows.choose(files, words)

    # Saving

    def _on_save_picture(self) -> None:
        name = f"{self.view().title.lower()}.png"
        path, _ = QFileDialog.getSaveFileName(self, "Save picture", name, "PNG (*.png);;SVG (*.svg)")
        if path:
            self.save_picture(path)

    def save_picture(self, path: str | Path) -> None:
        """Save the figure in view as PNG or SVG."""
        if self.view().can_save:
            self._save(self.view().save, Path(path))
        else:
            self._say("There is no picture to save yet.", WARNING)

    def _on_save(self) -> None:
        path, _ = QFileDialog.getSaveFileName(self, "Save table", "results.csv", "Tables (*.csv)")
        if path:
            self.save_table(path)

    def save_table(self, path: str | Path) -> None:
        """Save the rows in view, with all columns, as CSV."""
        self._save(self.rows.write, Path(path))

    def _save(self, write: Callable[[Path], None], path: Path) -> None:
        try:
            write(path)
        except MilcnnError as error:
            self._say(str(error), ERROR)
            return
        self._say(f"Saved {path}")


def facts_of(found: OpenedResults) -> str:
    """Describe opened results: folder, counts, accuracy and the columns of a layout."""
    from napari_milcnn.results.tables import accuracy

    images = len(found.files)
    count = f"{images:,} image{'s'[: images != 1]}"
    if found.unit == "planes" and len(found.table) > images:
        count += f" · {len(found.table):,} planes"
    lines = [f"{count} · {len(found.classes)} classes"]
    measured = accuracy(found)
    if measured is not None and not np.isnan(measured[0]):
        value, ends = measured
        interval = f" (95 % interval {ends[0]:.3f} to {ends[1]:.3f})" if ends else ""
        lines.append(("" if found.single_label else "yes/no ") + f"accuracy {value:.3f}{interval}")
    if found.layout is not None and found.added:
        lines.append(f"columns from {found.layout.name}: {', '.join(found.added)}")
    folder = [] if found.path is None else [found.path.parent.name]
    return "\n".join([*folder, *lines])


def warnings_of(found: OpenedResults) -> list[str]:
    """Return what a user of the results should know, as sentences without a full stop."""
    from napari_milcnn.results.moved_images import missing_text

    warnings = [text.rstrip(".") for text in found.warnings if text]
    if UNLIKE in found.table:
        shows_nothing = (found.table["top"] == NO_CLASS) & (found.table["error"] == "")
        empty, known = int(shows_nothing.sum()), int(found.table[UNLIKE].notna().sum())
        count = int(((found.table[UNLIKE] > 1) & ~shows_nothing).sum())
        if count:
            verb, whose = ("is", "its class") if count == 1 else ("are", "their classes")
            warnings.append(f"{count:,} of {known:,} {found.unit} {verb} unlike the training images, so {whose} "
                            "may be wrong; the column unlike reason says in what")  # fmt: skip
        if empty:
            warnings.append(
                f"1 {found.unit[:-1]} shows {NOTHING}" if empty == 1 else f"{empty:,} {found.unit} show {NOTHING}"
            )
    if found.missing:
        warnings.append(
            f"{len(found.missing):,} of {len(found.files):,} images were not found, such as {missing_text(found, 1)}; "
            "click Images… to choose their folder"
        )
    return warnings
