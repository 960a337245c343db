"""The figures of the Results dock: histogram, confusion matrix, calibration, dose response and plate."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from qtpy.QtCore import QSize, Qt, Signal
from qtpy.QtGui import QCursor
from qtpy.QtWidgets import QSizePolicy, QToolTip, QWidget

from napari_milcnn.errors import MilcnnError
from napari_milcnn.figures.plots import (
    PAPER,
    FigureStyle,
    Size,
    confusion_figure,
    dose_figure,
    histogram_figure,
    plate_figure,
    reliability_figure,
    save_figure,
)
from napari_milcnn.images.wells import Well, plate_shape
from napari_milcnn.plugin.qt.forms import NarrowComboBox, Note, row, vertical_layout
from napari_milcnn.results.tables import (
    SCORE,
    SHARE,
    confused,
    confusion,
    dose_columns,
    dose_curve,
    dose_points,
    histogram,
    plate_table,
    reliability,
)
from napari_milcnn.schema import score_column

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from napari_milcnn.results.opened import OpenedResults

_MINIMUM_SIZE = QSize(220, 200)
_NEEDS_DOSES = "Needs doses. Click Layout… to open a table with the columns file (or well) and dose."
_NEEDS_LABELS = "Needs labels. Click Layout… to open a table with the columns file and label."


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

    def __init__(self) -> None:
        super().__init__()
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)  # no view widens the dock

    def show_results(self, found: OpenedResults, style: FigureStyle) -> None:
        """Show other results, or the same results in another style."""
        raise NotImplementedError

    def save(self, path: Path) -> None:
        """Save what is shown as a picture."""
        raise NotImplementedError

    @property
    def can_save(self) -> bool:
        """Whether there is a picture to save."""
        return False


class PlotView(View):
    """A view with one matplotlib figure and controls above it."""

    def __init__(self) -> None:
        super().__init__()
        self.found: OpenedResults | None = None
        self.note = Note()
        self.canvas: Any = None
        self._style = PAPER
        self._layout = vertical_layout(self)
        self._add_controls()
        self._layout.addWidget(self.note)
        self._layout.addStretch()

    def _add_controls(self) -> None:
        """Add controls above the figure; by default none."""

    def _prepare(self, found: OpenedResults) -> str:
        """Fill the controls for other results; return what is missing for the figure, or an empty text."""
        raise NotImplementedError

    def _draw(self, found: OpenedResults, style: FigureStyle, size: Size | None) -> Figure:
        raise NotImplementedError

    def _height(self, found: OpenedResults, width: int) -> int:
        """Return the height of the figure for a width, both in px."""
        raise NotImplementedError

    def show_results(self, found: OpenedResults, style: FigureStyle) -> None:
        """Draw the figure, or say what is missing for it."""
        changed, self.found, self._style = found is not self.found, found, style
        if changed:
            self._needs = self._prepare(found)
        self.redraw()

    def redraw(self) -> None:
        """Draw the figure again."""
        if self.canvas is not None:
            self._layout.removeWidget(self.canvas)
            self.canvas.hide()
            self.canvas.deleteLater()
            self.canvas = None
        self.note.say(self._needs)
        if self.found is None or self._needs:
            return
        try:
            self._show(self._draw(self.found, self._style, None))
        except MilcnnError as error:
            self.note.say(str(error))

    def _show(self, figure: Figure) -> None:
        from matplotlib.backends.backend_qtagg import FigureCanvasQTAgg  # the binding that qtpy has loaded

        assert self.found is not None
        make: Any = FigureCanvasQTAgg
        self.canvas = make(figure)
        self.canvas.setMinimumSize(_MINIMUM_SIZE)
        self.canvas.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.canvas.setAccessibleName(self.title)
        self.canvas.mpl_connect("button_press_event", lambda event: self._at(event, self.pick))
        self.canvas.mpl_connect("motion_notify_event", self._on_move)
        self._layout.insertWidget(self._layout.count() - 1, self.canvas)
        self._fit()

    def resizeEvent(self, event: Any) -> None:
        """Fit the figure to the new size."""
        super().resizeEvent(event)
        self._fit()

    def _fit(self) -> None:
        if self.canvas is not None and self.found is not None:
            self.canvas.setFixedHeight(max(_MINIMUM_SIZE.height(), self._height(self.found, self.width())))

    def _on_move(self, event: Any) -> None:
        text = self._at(event, self.text_at) or ""
        QToolTip.showText(QCursor.pos(), text, self.canvas)
        pointing = Qt.CursorShape.PointingHandCursor if text else Qt.CursorShape.ArrowCursor
        self.canvas.setCursor(pointing)

    def _at(self, event: Any, then: Callable[[float, float], Any]) -> Any:
        inside = event.inaxes is not None and event.inaxes is event.canvas.figure.axes[0]
        return then(float(event.xdata), float(event.ydata)) if inside else None

    def pick(self, _x: float, _y: float) -> None:
        """Handle a click at a position of the first axes; by default do nothing."""

    def text_at(self, _x: float, _y: float) -> str:
        """Return the tooltip for a position of the first axes."""
        return ""

    @property
    def can_save(self) -> bool:
        """Whether there is a figure to save."""
        return self.canvas is not None

    def save(self, path: Path) -> None:
        """Save the figure in the size in which it is shown, on white ground in every theme."""
        assert self.found is not None
        width, height = self.canvas.figure.get_size_inches()
        save_figure(self._draw(self.found, PAPER, (float(width), float(height))), path)


class HistogramView(PlotView):
    """How often each class is predicted."""

    title = "Classes"

    def _prepare(self, _found: OpenedResults) -> str:
        return ""

    def _height(self, found: OpenedResults, _width: int) -> int:
        return 90 + 26 * len(found.classes)

    def _draw(self, found: OpenedResults, style: FigureStyle, size: Size | None) -> Figure:
        predicted, labelled = histogram(found)
        unit = found.unit if len(found.table) > len(found.files) else "images"
        return histogram_figure(predicted, labelled, unit, style, size)


class ConfusionView(PlotView):
    """Label against predicted class; a click shows the images of a cell."""

    title = "Confusion"

    def _prepare(self, found: OpenedResults) -> str:
        self._table = confusion(found)
        return _NEEDS_LABELS if self._table is None else ""

    def _height(self, found: OpenedResults, width: int) -> int:
        return min(width, 160 + 40 * len(found.classes)) if found.single_label else 130 + 28 * len(found.classes)

    def _draw(self, _found: OpenedResults, style: FigureStyle, size: Size | None) -> Figure:
        assert self._table is not None
        return confusion_figure(self._table, style, size)

    def _cell(self, x: float, y: float) -> tuple[str, str, int]:
        assert self._table is not None
        r, c = (int(np.clip(round(at), 0, n - 1)) for at, n in zip((y, x), self._table.shape, strict=True))
        return str(self._table.index[r]), str(self._table.columns[c]), int(self._table.to_numpy()[r, c])

    def text_at(self, x: float, y: float) -> str:
        """Return the number of images in a cell."""
        return self._cell_text(*self._cell(x, y))

    def pick(self, x: float, y: float) -> None:
        """Show the images of a cell in the table."""
        assert self.found is not None
        row_name, column_name, count = self._cell(x, y)
        if count:
            images = confused(self.found, row_name, column_name)
            self.images_picked.emit(images, self._cell_text(row_name, column_name, count))

    def _cell_text(self, row_name: str, column_name: str, count: int) -> str:
        assert self.found is not None
        images = f"{count:,} image{'s'[: count != 1]}"
        if self.found.single_label:
            return f"{images}: label {row_name}, predicted {column_name}"
        return f"{images}: {row_name}, {column_name}"


class CalibrationView(PlotView):
    """How often predictions with a given confidence are right."""

    title = "Calibration"

    def _prepare(self, found: OpenedResults) -> str:
        self._curve = reliability(found)
        return _NEEDS_LABELS if self._curve is None else ""

    def _height(self, _found: OpenedResults, width: int) -> int:
        return min(width, 500)

    def _draw(self, found: OpenedResults, style: FigureStyle, size: Size | None) -> Figure:
        assert self._curve is not None
        return reliability_figure(self._curve, found.single_label, style, size)


class DoseView(PlotView):
    """The score of a class, or its share of the objects, against dose."""

    title = "Dose"

    def _add_controls(self) -> None:
        self.dose, self.what, self.classes = NarrowComboBox(), NarrowComboBox(), NarrowComboBox()
        for box, name in ((self.dose, "Column of doses"), (self.what, "Value"), (self.classes, "Class")):
            box.setAccessibleName(name)
            box.activated.connect(self.redraw)
        self.bar = QWidget()
        lines = vertical_layout(self.bar)
        lines.addLayout(row(self.what, "of", self.classes, stretch=2))
        lines.addLayout(row("against", self.dose, stretch=1))
        self.what.addItems([SCORE, SHARE])
        self._layout.addWidget(self.bar)

    def _prepare(self, found: OpenedResults) -> str:
        names = dose_columns(found)
        _fill(self.dose, names)
        _fill(self.classes, found.classes)
        self.classes.setCurrentIndex(len(found.classes) - 1)
        self.what.setVisible(found.objects is not None)
        if found.objects is None:
            self.what.setCurrentIndex(0)
        self.bar.setVisible(bool(names))
        return "" if names else _NEEDS_DOSES

    def _height(self, _found: OpenedResults, width: int) -> int:
        return min(round(0.85 * width), 460)

    def _draw(self, found: OpenedResults, style: FigureStyle, size: Size | None) -> Figure:
        dose, name, what = self.dose.currentText(), self.classes.currentText(), self.what.currentText()
        points = dose_points(found, dose, name, what)
        value = f"score of {name}" if what == SCORE else f"share of {name} among cells"
        return dose_figure(points, dose_curve(points), dose, value, style, size)


class PlateView(PlotView):
    """Wells in the colour of their top class or by the score of a class; a click opens the image of a well."""

    title = "Plate"

    def _add_controls(self) -> None:
        self.shown, self.plates = NarrowComboBox(), NarrowComboBox()
        for box, name in ((self.shown, "Colour of the wells"), (self.plates, "Plate")):
            box.setAccessibleName(name)
            box.activated.connect(self.redraw)
        self.plates.hide()
        self.bar = QWidget()
        self.bar.setLayout(row("colour by", self.shown, self.plates, stretch=1))
        self._layout.addWidget(self.bar)

    def _prepare(self, found: OpenedResults) -> str:
        self._every = plate_table(found)
        _fill(self.plates, sorted(self._every["plate"].astype(str).unique()))
        self.plates.setVisible(self.plates.count() > 1)
        _fill(self.shown, ["top class", *(f"score of {name}" for name in found.classes)])
        self.bar.setVisible(len(self._every) > 0)
        if len(self._every):
            return ""
        return (
            "Needs wells. Image names must contain the well, such as B03, r02c03 or B/3, or click Layout… to open a "
            "table with the column well."
        )

    def _height(self, _found: OpenedResults, width: int) -> int:
        rows, columns = self._shape()
        return round((width - 30) * rows / columns) + 110

    def wells(self) -> pd.DataFrame:
        """Return the wells of the plate in view."""
        shown: pd.DataFrame = self._every[self._every["plate"].astype(str) == self.plates.currentText()]
        return shown

    def _draw(self, found: OpenedResults, style: FigureStyle, size: Size | None) -> Figure:
        wells = self.wells()
        number = self.shown.currentIndex()
        return plate_figure(
            wells, self._shape(), found.classes, found.classes[number - 1] if number else None, style, size
        )

    def _shape(self) -> tuple[int, int]:
        return plate_shape([Well(r, c) for r, c in zip(self._every["row"], self._every["column"], strict=True)])

    def _well(self, x: float, y: float) -> Any:
        wells = self.wells()
        at = wells[(wells["row"] == round(y)) & (wells["column"] == round(x))]
        return at.iloc[0] if len(at) else None

    def text_at(self, x: float, y: float) -> str:
        """Return name, highest scores and number of images of a well."""
        well = self._well(x, y)
        if well is None or self.found is None:
            return ""
        scores = sorted(((well[score_column(name)], name) for name in self.found.classes), reverse=True)[:3]
        count = int(well["images"])
        images = f"{count} image{'s'[: count != 1]}"
        return f"{well['well']}: {', '.join(f'{name} {score:.2f}' for score, name in scores)} · {images}"

    def pick(self, x: float, y: float) -> None:
        """Open the first image of a well."""
        well = self._well(x, y)
        if well is not None and self.found is not None:
            first = int((self.found.table["file"] == well["file"]).to_numpy().argmax())
            self.row_picked.emit(first)


def _fill(box: NarrowComboBox, names: Any) -> None:
    """Offer other choices; the chosen one stays chosen if it is among them."""
    before = box.currentText()
    box.clear()
    box.addItems(list(names))
    box.setCurrentIndex(max(0, box.findText(before)))
