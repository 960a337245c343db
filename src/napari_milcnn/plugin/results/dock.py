"""The Results dock: open what a run or an evaluation wrote, look at it, and go to the images behind it."""

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
    QVBoxLayout,
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
    heading,
    row,
    scrolled,
)
from napari_milcnn.plugin.qt.job import Ending, Job
from napari_milcnn.plugin.results.gallery_box import GalleryView
from napari_milcnn.plugin.results.opened_layers import OpenedPicture, OpenStep, opening
from napari_milcnn.plugin.results.plot_box import (
    CalibrationView,
    ConfusionView,
    DoseView,
    HistogramView,
    PlateView,
    View,
)
from napari_milcnn.plugin.results.rows_box import RowsBox

if TYPE_CHECKING:
    from napari_milcnn.evaluation.report import EvaluationReport
    from napari_milcnn.results.opened import OpenedResults

_EMPTY = (
    "Open a folder that napari-milcnn classify, screen or evaluate wrote, or that the Classify dock exported to. Or "
    "drop it here, or its predictions.csv."
)
_COLUMNS = 4
"""Buttons of views in a row."""


class ResultsDock(QWidget):
    """Look at results as a table, as pictures and as a plate, and open the images behind them.

    Parameters
    ----------
    napari_viewer : Viewer
        Given by napari.
    """

    def __init__(self, napari_viewer: Viewer) -> None:
        super().__init__()
        self.viewer = napari_viewer
        self.found: OpenedResults | None = None
        self._facts = _EMPTY
        self._job: Job | None = None
        self._opening: Job | None = None
        self.picture = OpenedPicture(napari_viewer)
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
        self.layout_button.setToolTip("Join a table with the column file or well: label, group, well, dose, compound")
        self.images_button.setToolTip("Choose the folder where the images are now")
        self.facts, self.message = Note(), Note()
        self.view_buttons = [QPushButton(view.title) for view in self.views]
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
            grid.addWidget(button, number // _COLUMNS, number % _COLUMNS)
        after = QVBoxLayout(self._after)
        after.setContentsMargins(0, 0, 0, 0)
        after.addLayout(row(self.layout_button, self.images_button))
        after.addLayout(grid)
        after.addWidget(self.stack, 1)
        after.addLayout(row(self.picture_button, self.save_button))
        layout = QVBoxLayout(inside)
        layout.setContentsMargins(8, 4, 8, 8)
        layout.setSpacing(5)
        layout.addWidget(heading("Results"))
        layout.addLayout(row(self.folder_button, self.file_button))
        layout.addWidget(self.facts)
        layout.addWidget(self.message)
        layout.addWidget(self._after, 1)
        layout.addStretch()
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        outer.addWidget(scrolled(inside))
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

    # State

    @property
    def busy(self) -> bool:
        """Whether results or an image are being read, or thumbnails made."""
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
        """Show what was opened, or how to open something."""
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
        self.picture_button.setToolTip("The table is saved as CSV" if is_table else "As PNG or SVG, on white")

    def _say(self, text: str, colour: str = "") -> None:
        self.message.say(text, colour)

    # Opening

    def open(self, *paths: str | Path) -> None:
        """Open a folder of results or its predictions.csv; layout tables are joined to it, or to what is open."""

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
        """Show an evaluation that was just made."""

        def steps() -> Iterator[OpenedResults]:
            from napari_milcnn.evaluation.report import results_of

            yield results_of(report)

        self._work(steps, "reading the report…")

    def _work(self, steps: Callable[[], Iterator[OpenedResults]], words: str) -> None:
        """Read something beside the window; what was being read before is forgotten."""
        forget(self._job)
        self._say(words)

        def told() -> Iterator[tuple[OpenedResults, str]]:
            for found in steps():
                _ = found.wells  # kept by what is opened, and slow for a hundred thousand names
                yield found, facts_of(found)

        self._job = Job(told, self, self._on_found, self._on_end)

    def _on_found(self, told: tuple[OpenedResults, str]) -> None:
        self.found, self._facts = told
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
        path, _ = QFileDialog.getOpenFileName(self, "Join a layout table", "", "Tables (*.csv *.tsv *.txt)")
        if path:
            self.open(path)

    def _on_images(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, "Where are the images?")
        if folder:
            self.find_images(folder)

    def find_images(self, folder: str | Path) -> None:
        """Look for the images of what is open in a folder."""
        found = self.found

        def steps() -> Iterator[OpenedResults]:
            from napari_milcnn.results.moved_images import with_images

            assert found is not None
            yield with_images(found, Path(folder))

        if found is not None:
            self._work(steps, f"looking into {Path(folder).name}…")

    def dragEnterEvent(self, event: Any) -> None:
        """Take files."""
        if event.mimeData().hasUrls():
            event.acceptProposedAction()

    def dropEvent(self, event: Any) -> None:
        """Open what was dropped."""
        paths = [Path(url.toLocalFile()) for url in event.mimeData().urls() if url.isLocalFile()]
        event.acceptProposedAction()
        if paths:
            self.open(*paths)

    # Images

    def open_image(self, number: int) -> None:
        """Show the image of a row in the viewer, with its masks; it takes the place of the one opened before."""
        found = self.found
        assert found is not None
        self.rows.select(number)
        path, at = found.files[str(found.table["file"].iat[number])], found.plane_of(number)
        if path is not None and self.picture.shows(path) and at in (None, *self.picture.planes()):
            if at is not None:
                self.picture.go_to(self.picture.planes().index(at))
            return
        forget(self._opening)
        self._opening = Job(lambda: opening(found, number), self, self._on_opened, self._on_opening_end)

    def _on_opened(self, step: OpenStep) -> None:
        assert self.found is not None
        self.picture.take(step, self.found.classes)

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
        """Save the picture that is shown as PNG or SVG."""
        if self.view().can_save:
            self._save(self.view().save, Path(path))
        else:
            self._say("There is no picture to save yet.", WARNING)

    def _on_save(self) -> None:
        path, _ = QFileDialog.getSaveFileName(self, "Save table", "results.csv", "Tables (*.csv)")
        if path:
            self.save_table(path)

    def save_table(self, path: str | Path) -> None:
        """Save the rows of the table that are shown, with all columns, as CSV."""
        self._save(self.rows.write, Path(path))

    def _save(self, write: Callable[[Path], None], path: Path) -> None:
        try:
            write(path)
        except MilcnnError as error:
            self._say(str(error), ERROR)
            return
        self._say(f"saved {path}")


def forget(job: Job | None) -> None:
    """Stop a job whose result nobody waits for any more."""
    if job is not None:
        job.stop()
        job.stepped.disconnect()
        job.ended.disconnect()


def facts_of(found: OpenedResults) -> str:
    """Say what was opened, how much it is and how good."""
    from napari_milcnn.results.tables import accuracy

    images = len(found.files)
    count = f"{images:,} image{'s'[: images != 1]}"
    if found.unit == "planes" and len(found.table) > images:
        count += f" · {len(found.table):,} planes"
    lines = [f"{count} · {len(found.classes)} classes"]
    said = accuracy(found)
    if said is not None and not np.isnan(said[0]):
        ends = f" ({said[1][0]:.3f} to {said[1][1]:.3f})" if said[1] else ""
        lines.append(f"accuracy {said[0]:.3f}{ends}" + ("" if found.single_label else " of yes and no"))
    if found.layout is not None and found.added:
        lines.append(f"{found.layout.name}: {', '.join(found.added)}")
    where = [] if found.path is None else [found.path.parent.name]
    return "\n".join([*where, *lines])


def warnings_of(found: OpenedResults) -> list[str]:
    """Return what a reader should know, in sentences without their stop."""
    from napari_milcnn.results.moved_images import missing_text

    said = [text.rstrip(".") for text in found.warnings if text]
    if found.missing:
        said.append(
            f"{len(found.missing):,} of {len(found.files):,} images were not found, such as {missing_text(found, 1)}: "
            "choose where they are (Images…)"
        )
    return said
