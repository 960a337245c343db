"""The figures of the Results dock: histogram, confusion matrix, calibration and dose response."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from qtpy.QtCore import QEvent, QPointF, Qt, Signal
from qtpy.QtGui import QCursor
from qtpy.QtWidgets import QSizePolicy, QToolTip, QWidget

from napari_milcnn.errors import MilcnnError
from napari_milcnn.plugin.qt.figure import FigureBox
from napari_milcnn.plugin.qt.forms import NarrowComboBox, Note, plain_text, row, vertical_layout
from napari_milcnn.schema import counted_classes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from napari_milcnn.figures.plots import FigureStyle, Size
    from napari_milcnn.plugin.results.reading import ReadResults
    from napari_milcnn.results.opened import OpenedResults

_LOWEST = 200
"""Smallest height of a figure, in px."""
_NEEDS_DOSES = "Needs doses. Click Layout… to open a table with the columns file (or well) and dose."
_NEEDS_LABELS = "Needs labels. Click Layout… to open a table with the columns file and label."
_CONFUSION_HELP = "Click a cell to list its images in the table."
_CALIBRATION_HELP = (
    "How often answers with a given score are right. On the diagonal, a score of .8 is right in 8 of 10 images; below "
    "it the model is too sure of itself."
)


class View(QWidget):
    """One way to show results.

    Signals
    -------
    images_picked : list of str, str
        Show these images in the table, with this description.
    row_picked : int
        Open the image of this row of the results.
    """

    images_picked = Signal(object, str)
    row_picked = Signal(int)
    title = ""
    help = ""

    def __init__(self) -> None:
        super().__init__()
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)  # no view widens the dock

    def show_results(self, opened: ReadResults, style: FigureStyle) -> None:
        """Show other results, or the same results in another style."""
        raise NotImplementedError

    def save(self, path: Path) -> None:
        """Save what is shown as a picture."""
        raise NotImplementedError

    @property
    def can_save(self) -> bool:
        """Whether there is a picture to save."""
        return False

    @property
    def is_busy(self) -> bool:
        """Whether a picture is being drawn."""
        return False


class PlotView(View):
    """A view with one figure and controls above it."""

    def __init__(self) -> None:
        super().__init__()
        self.opened: ReadResults | None = None
        self.note, self.hint = Note(), Note()
        self.box = FigureBox(self.title, _LOWEST)
        self.box.picture.setMouseTracking(True)
        self.box.picture.installEventFilter(self)
        self._style: FigureStyle | None = None
        self._layout = vertical_layout(self)
        self._add_controls()
        for part in (self.note, self.box, self.hint):
            self._layout.addWidget(part)
        self._layout.addStretch()

    def _add_controls(self) -> None:
        """Add controls above the figure; by default none."""

    def _prepare(self, opened: ReadResults) -> None:
        """Fill the controls for other results; by default there are none."""

    def _needs(self, opened: ReadResults) -> str:
        """Return what is missing for the figure; empty if nothing is."""
        raise NotImplementedError

    def _draw(self, opened: ReadResults, style: FigureStyle, size: Size | None) -> Figure:
        raise NotImplementedError

    def _height(self, opened: ReadResults, width: int) -> int:
        """Return the height of the figure for a width, both in px."""
        raise NotImplementedError

    @property
    def figure(self) -> Figure | None:
        """The figure that is in view."""
        return self.box.figure

    @property
    def is_busy(self) -> bool:
        """Whether the figure is being drawn."""
        return self.box.busy

    def show_results(self, opened: ReadResults, style: FigureStyle) -> None:
        """Draw the figure, or say what is missing for it."""
        if opened is not self.opened:
            self._prepare(opened)
        elif style == self._style:
            return
        self.opened, self._style = opened, style
        self.redraw()

    def redraw(self) -> None:
        """Draw the figure again."""
        opened, style = self.opened, self._style
        if opened is None or style is None:
            return
        problem, figure = self._needs(opened), None
        try:
            figure = None if problem else self._draw(opened, style, None)
        except MilcnnError as error:
            problem = str(error)
        self.note.say(problem)
        self.hint.say("" if problem else self.help)
        self._fit()
        self.box.show_figure(None if figure is None else lambda: figure)

    def resizeEvent(self, event: Any) -> None:
        """Fit the figure to the new size."""
        super().resizeEvent(event)
        self._fit()

    def _fit(self) -> None:
        if self.opened is not None and not self._needs(self.opened):
            self.box.set_height(max(_LOWEST, self._height(self.opened, self.width())))

    def eventFilter(self, watched: Any, event: Any) -> bool:
        """Notice clicks and movements of the pointer on the figure."""
        if event.type() == QEvent.Type.MouseButtonPress:
            at = self.box.data_at(event.position())
            if at is not None:
                self.pick(*at)
        elif event.type() == QEvent.Type.MouseMove:
            self._point_at(event.position())
        return bool(super().eventFilter(watched, event))

    def _point_at(self, place: QPointF) -> None:
        at = self.box.data_at(place)
        text = "" if at is None else self.text_at(*at)
        QToolTip.showText(QCursor.pos(), plain_text(text), self.box.picture)
        pointing = Qt.CursorShape.PointingHandCursor if text else Qt.CursorShape.ArrowCursor
        self.box.picture.setCursor(pointing)

    def pick(self, _x: float, _y: float) -> None:
        """Handle a click at a position of the first axes; by default do nothing."""

    def text_at(self, _x: float, _y: float) -> str:
        """Return the tooltip for a position of the first axes."""
        return ""

    @property
    def can_save(self) -> bool:
        """Whether there is a figure to save."""
        return self.figure is not None

    def save(self, path: Path) -> None:
        """Save the figure in the size in which it is shown, on white ground in every theme."""
        from napari_milcnn.figures.plots import PAPER, save_figure

        assert self.opened is not None
        assert self.figure is not None
        width, height = self.figure.get_size_inches()
        save_figure(self._draw(self.opened, PAPER, (float(width), float(height))), path)


class HistogramView(PlotView):
    """How often each class is predicted."""

    title = "Classes"
    help = "How often each class is the answer; a line across a bar shows how often it is the label."

    def _needs(self, _opened: ReadResults) -> str:
        return ""

    def _height(self, opened: ReadResults, _width: int) -> int:
        return 90 + 26 * len(opened.found.classes)

    def _draw(self, opened: ReadResults, style: FigureStyle, size: Size | None) -> Figure:
        from napari_milcnn.figures.plots import histogram_figure

        found = opened.found
        unit = found.unit if len(found.table) > len(found.files) else "images"
        return histogram_figure(opened.predicted, opened.labelled, unit, style, size)


class ConfusionView(PlotView):
    """Label against predicted class; a click shows the images of a cell."""

    title = "Confusion"
    help = _CONFUSION_HELP

    def _add_controls(self) -> None:
        self.cells = NarrowComboBox()
        self.cells.setAccessibleName("Images of a cell")
        self.cells.setToolTip("List the images of one cell in the table; mistakes come first, the most frequent on top")
        self.cells.activated.connect(self._on_cell)
        self._layout.addWidget(self.cells)

    def _needs(self, opened: ReadResults) -> str:
        return _NEEDS_LABELS if opened.confusion is None else ""

    def _prepare(self, opened: ReadResults) -> None:
        self.cells.clear()
        self.cells.setVisible(opened.confusion is not None)
        if opened.confusion is None:
            return
        self.cells.addItem("list the images of a cell…")
        for names, count in _ranked_cells(opened.confusion, opened.found):
            self.cells.addItem(_cell_words(*names, count, opened.found), names)

    def _on_cell(self, number: int) -> None:
        names = self.cells.itemData(number)
        if names is not None:
            self._list_images(*names)

    def _height(self, opened: ReadResults, width: int) -> int:
        found = opened.found
        return min(width, 160 + 40 * len(found.classes)) if found.single_label else 130 + 28 * len(found.classes)

    def _draw(self, opened: ReadResults, style: FigureStyle, size: Size | None) -> Figure:
        from napari_milcnn.figures.plots import confusion_figure

        assert opened.confusion is not None
        return confusion_figure(opened.confusion, style, size)

    def _cell(self, x: float, y: float) -> tuple[str, str]:
        assert self.opened is not None
        table = self.opened.confusion
        assert table is not None
        r, c = (int(np.clip(round(at), 0, n - 1)) for at, n in zip((y, x), table.shape, strict=True))
        return str(table.index[r]), str(table.columns[c])

    def _count(self, row_name: str, column_name: str) -> int:
        assert self.opened is not None
        assert self.opened.confusion is not None
        table = self.opened.confusion
        return int(table.to_numpy()[table.index.get_loc(row_name), table.columns.get_loc(column_name)])

    def text_at(self, x: float, y: float) -> str:
        """Return the number of images in a cell."""
        assert self.opened is not None
        names = self._cell(x, y)
        return _cell_words(*names, self._count(*names), self.opened.found)

    def pick(self, x: float, y: float) -> None:
        """Show the images of a cell in the table."""
        self._list_images(*self._cell(x, y))

    def _list_images(self, row_name: str, column_name: str) -> None:
        from napari_milcnn.results.tables import confused

        assert self.opened is not None
        count = self._count(row_name, column_name)
        if count:
            images = confused(self.opened.found, row_name, column_name)
            self.images_picked.emit(images, _cell_words(row_name, column_name, count, self.opened.found))


def _ranked_cells(table: pd.DataFrame, found: OpenedResults) -> list[tuple[tuple[str, str], int]]:
    """Return the cells with images, (row, column) and count: mistakes first, each kind with the largest count first."""
    numbers = table.to_numpy()
    cells = [
        ((str(r), str(c)), int(numbers[i, j])) for i, r in enumerate(table.index) for j, c in enumerate(table.columns)
    ]

    def is_right(names: tuple[str, str]) -> bool:
        return names[0] == names[1] if found.single_label else names[1].startswith("rightly")

    return sorted(((names, n) for names, n in cells if n), key=lambda one: (is_right(one[0]), -one[1]))


def _cell_words(row_name: str, column_name: str, count: int, found: OpenedResults) -> str:
    images = f"{count:,} image{'s'[: count != 1]}"
    if found.single_label:
        return f"{images}: label {row_name}, predicted {column_name}"
    return f"{images}: {row_name}, {column_name}"


class CalibrationView(PlotView):
    """How often predictions with a given confidence are right."""

    title = "Calibration"
    help = _CALIBRATION_HELP

    def _needs(self, opened: ReadResults) -> str:
        return _NEEDS_LABELS if opened.reliability is None else ""

    def _height(self, _opened: ReadResults, width: int) -> int:
        return min(width, 500)

    def _draw(self, opened: ReadResults, style: FigureStyle, size: Size | None) -> Figure:
        from napari_milcnn.figures.plots import reliability_figure

        assert opened.reliability is not None
        return reliability_figure(opened.reliability, opened.found.single_label, style, size)


class DoseView(PlotView):
    """The score of a class, or its share of the objects, against dose."""

    title = "Dose"
    help = (
        "Each group of images (well) is a faint point; the curve shows the mean and standard deviation of the groups."
    )

    def _add_controls(self) -> None:
        self.dose, self.what, self.classes = NarrowComboBox(), NarrowComboBox(), NarrowComboBox()
        for box, name, tip in (
            (self.dose, "Column of doses", "The column of the table that holds the doses"),
            (self.what, "Value", "The mean score of the images, or the share of a class among the objects found"),
            (self.classes, "Class", "The class whose value is drawn"),
        ):
            box.setAccessibleName(name)
            box.setToolTip(tip)
            box.activated.connect(self.redraw)
        self.bar = QWidget()
        lines = vertical_layout(self.bar)
        lines.addLayout(row(self.what, "of", self.classes, stretch=2))
        lines.addLayout(row("against", self.dose, stretch=1))
        self._layout.addWidget(self.bar)

    def _prepare(self, opened: ReadResults) -> None:
        from napari_milcnn.results.tables import SCORE, SHARE

        found = opened.found
        fill_choices(self.dose, opened.doses)
        fill_choices(self.classes, found.classes, last=True)
        shares = found.objects is not None or bool(counted_classes(found.table))
        fill_choices(self.what, [SCORE, SHARE] if shares else [SCORE])
        self.what.setVisible(shares)
        self.bar.setVisible(bool(opened.doses))

    def _needs(self, opened: ReadResults) -> str:
        return "" if opened.doses else _NEEDS_DOSES

    def _height(self, _opened: ReadResults, width: int) -> int:
        return min(round(0.85 * width), 460)

    def _draw(self, opened: ReadResults, style: FigureStyle, size: Size | None) -> Figure:
        from napari_milcnn.figures.plots import dose_figure
        from napari_milcnn.results.tables import SCORE, dose_curve, dose_points

        dose, name, what = self.dose.currentText(), self.classes.currentText(), self.what.currentText()
        points = dose_points(opened.found, dose, name, what)
        value = f"score of {name}" if what == SCORE else f"share of {name} among cells"
        return dose_figure(points, dose_curve(points), dose, value, style, size)


def fill_choices(box: NarrowComboBox, names: Any, *, last: bool = False) -> None:
    """Offer other choices; the chosen one stays chosen if it is among them, else the first or the last is."""
    chosen = box.currentText() if box.count() else None
    box.clear()
    box.addItems(list(names))
    found = -1 if chosen is None else box.findText(chosen)
    box.setCurrentIndex(found if found >= 0 else box.count() - 1 if last else 0)
