"""The section of the Classify dock for results: scores of the plane in view, a table of planes, one of objects."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from qtpy.QtCore import QModelIndex, QRectF, Qt, Signal
from qtpy.QtGui import QColor, QPainter
from qtpy.QtWidgets import QFileDialog, QPushButton, QTabWidget, QWidget

from napari_milcnn.figures.palette import class_colours
from napari_milcnn.plugin.qt.forms import Note, heading, row, vertical_layout
from napari_milcnn.plugin.qt.icons import DARK_GROUND, swatch
from napari_milcnn.plugin.qt.tables import (
    BAR_ROLE,
    SORT_ROLE,
    BarDelegate,
    FrameModel,
    HeaderModel,
    SortedTable,
    filter_field,
)
from napari_milcnn.plugin.qt.unlike_band import UnlikeBand
from napari_milcnn.schema import CELLS, NOTHING, cells_column, counted_classes, share_column

if TYPE_CHECKING:
    from napari_milcnn.inference.predict import Prediction
    from napari_milcnn.plugin.classify.image_state import ImageState

_BAR_HEIGHT, _MOST_BARS = 16, 8
_OBJECT_WIDTHS = (92, 48, 42, 42)
"""Widths of the columns class, shown, plane and label, in px."""
_MOST_COUNTED = 3
"""Classes in the line of cells; its tool tip has all of them."""
COUNTED = "Cells of the plane in view, those that are not shown in the masks too"
_LEFT = Qt.AlignmentFlag.AlignVCenter | Qt.AlignmentFlag.AlignLeft


class ScoreBars(QWidget):
    """The scores of the classes in the plane in view as bars in the colours of the classes, highest score first."""

    def __init__(self) -> None:
        super().__init__()
        self._scores: list[tuple[str, float, str]] = []
        self.setAccessibleName("Scores of the plane in view")

    def show_prediction(self, prediction: Prediction | None) -> None:
        """Show the scores of one plane, or nothing for None."""
        rows: list[tuple[str, float, str]] = []
        if prediction is not None:
            colours = class_colours(prediction.classes)
            pairs = zip(prediction.classes, prediction.scores[0].tolist(), strict=True)
            rows = [(name, score, colours[name]) for name, score in sorted(pairs, key=lambda pair: -pair[1])]
        self._scores = rows[:_MOST_BARS]
        self.setToolTip("\n".join(f"{name} {score:.3f}" for name, score, _ in rows))
        self.setFixedHeight(_BAR_HEIGHT * len(self._scores))
        self.update()

    def paintEvent(self, _event: Any) -> None:
        """Draw the bars."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        text, names = self.palette().color(self.foregroundRole()), round(self.width() * 0.42)
        for i, (name, score, colour) in enumerate(self._scores):
            top, room = i * _BAR_HEIGHT, self.width() - names - 40
            painter.setPen(text)
            shown = self.fontMetrics().elidedText(name, Qt.TextElideMode.ElideRight, names - 6)
            painter.drawText(QRectF(0, top, names - 6, _BAR_HEIGHT), _LEFT, shown)
            painter.drawText(QRectF(names, top, 34, _BAR_HEIGHT), _LEFT, f"{score:.2f}"[1:] if score < 0.995 else "1.0")
            painter.fillRect(QRectF(names + 36, top + 3, room, _BAR_HEIGHT - 6), QColor(DARK_GROUND))
            painter.fillRect(QRectF(names + 36, top + 3, room * score, _BAR_HEIGHT - 6), QColor(colour))
        painter.end()


class PlanesModel(HeaderModel):
    """One row for each classified plane, and one for each image that waits or failed."""

    def __init__(self, parent: QWidget) -> None:
        super().__init__(parent)
        self.rows: list[tuple[ImageState, int | None]] = []

    def put(self, entry: ImageState, plane: int | None) -> None:
        """Add or update a row; the first plane of an image replaces the row of the waiting image."""
        for found in ((entry, plane), (entry, None)):
            if found in self.rows:
                at = self.rows.index(found)
                self.rows[at] = (entry, plane)
                self.dataChanged.emit(self.index(at, 0), self.index(at, self.columnCount() - 1))
                return
        self.beginInsertRows(QModelIndex(), len(self.rows), len(self.rows))
        self.rows.append((entry, plane))
        self.endInsertRows()

    def forget(self, entry: ImageState) -> None:
        """Remove the rows of an image."""
        self.beginResetModel()
        self.rows = [one for one in self.rows if one[0] is not entry]
        self.endResetModel()

    def changed(self, entry: ImageState) -> None:
        """Update the rows of an image whose state changed."""
        for at, (image, _plane) in enumerate(self.rows):
            if image is entry:
                self.dataChanged.emit(self.index(at, 0), self.index(at, self.columnCount() - 1))

    def titles(self) -> tuple[str, ...]:
        """Return the titles of the columns."""
        return "image", "plane", "top class", "score", "unlike", "margin"

    def rowCount(self, _parent: QModelIndex | None = None) -> int:
        """Count the rows."""
        return len(self.rows)

    def data(self, index: QModelIndex, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """Return text, sort value, tool tip, colour of a cell."""
        entry, plane = self.rows[index.row()]
        column = index.column()
        if plane is None:
            text = (entry.name, "", entry.error or entry.state, "", "", "")[column]
            return text if role in (Qt.ItemDataRole.DisplayRole, SORT_ROLE, Qt.ItemDataRole.ToolTipRole) else None
        prediction = entry.predictions[plane]
        top, score, margin = prediction.top[0], float(prediction.scores.max()), float(prediction.margin[0])
        unlike = float(prediction.unlike[0])
        name = entry.plane_name(plane)
        if role == Qt.ItemDataRole.DisplayRole:
            return (entry.name, name, top or NOTHING, f"{score:.3f}", _unlike_text(unlike), f"{margin:.3f}")[column]
        if role == SORT_ROLE:
            return (entry.name, plane, top, score, unlike, margin)[column]
        if role == Qt.ItemDataRole.ToolTipRole:
            said = "; ".join(prediction.unlike_sentences())
            if said:
                return f"{entry.name} {name}: {said}{_state_text(entry)}"
            return f"{entry.name} {name}: {top} {score:.3f}, {margin:.3f} above the second class{_state_text(entry)}"
        if not top:
            return None
        colour = class_colours(prediction.classes)[top]
        if role == Qt.ItemDataRole.DecorationRole and column == 2:
            return swatch(colour)
        return (min(score, 1.0), colour) if role == BAR_ROLE and column == 3 else None


def _unlike_text(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.2f}"


def _state_text(entry: ImageState) -> str:
    return "" if entry.state in ("done", "running") else f" ({entry.state}: not all planes were classified)"


def _counts_line(counts: Mapping[str, float], most: int | None = _MOST_COUNTED) -> str:
    """Say how many cells a plane has, and how many of each class, at `most` so many of them; empty without cells."""
    if not counts:
        return ""
    total = int(counts[CELLS])
    each = {name: counts[cells_column(name)] for name in counted_classes(counts)}
    found = sorted((name for name, count in each.items() if count > 0), key=lambda name: -each[name])
    parts = [f"{int(each[name])} {name} ({counts[share_column(name)]:.0%})" for name in found]
    more = [f"{len(parts) - most} more classes"] if most is not None and len(parts) > most else []
    return ", ".join([f"{total} cell{'' if total == 1 else 's'}", *parts[:most], *more])


class ResultsBox(QWidget):
    """Shows scores as bars, a table of planes and a table of objects.

    Signals
    -------
    plane_picked : ImageState, int
        A row of the table of planes was clicked; -1 if no plane of the image is classified yet.
    object_picked : int
        A row of the table of objects was clicked; the number of the row in `objects.frame`.
    save_requested : str
        Save the table in view as CSV under this path.
    masks_requested
        Draw the masks of planes that are unlike the training images too.
    """

    plane_picked = Signal(object, int)
    object_picked = Signal(int)
    save_requested = Signal(str)
    masks_requested = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.title, self.bars, self.counts = heading("Result"), ScoreBars(), Note()
        self.unlike = UnlikeBand()
        self.masks_button = QPushButton("Show its masks anyway")
        self.masks_button.hide()
        self.empty = Note()
        self.planes = PlanesModel(self)
        self.plane_table = SortedTable(self.planes)
        self.plane_table.setItemDelegateForColumn(3, BarDelegate(self.plane_table))
        self.objects = FrameModel(self)
        self.object_table = SortedTable(self.objects)
        self.filter = filter_field()
        self.copy_button, self.save_button = QPushButton("Copy"), QPushButton("Save CSV…")
        self.tabs = QTabWidget()
        self._lay_out()
        self.masks_button.clicked.connect(self.masks_requested)
        self.filter.textChanged.connect(self._on_filter)
        self.copy_button.clicked.connect(lambda: self._table().copy())
        self.save_button.clicked.connect(self._on_save)
        self.plane_table.clicked.connect(self._on_plane)
        self.plane_table.activated.connect(self._on_plane)
        self.object_table.clicked.connect(self._on_object)
        self.object_table.activated.connect(self._on_object)

    def _lay_out(self) -> None:
        layout = vertical_layout(self)
        layout.addWidget(self.title)
        layout.addWidget(self.empty)
        layout.addWidget(self.unlike)
        layout.addWidget(self.masks_button)
        layout.addWidget(self.bars)
        layout.addWidget(self.counts)
        self.tabs.addTab(self.plane_table, "Planes")
        self.tabs.addTab(self.object_table, "Objects")
        for column, width in enumerate((60, 38, 88, 44, 44)):
            self.plane_table.setColumnWidth(column, width)
        self.object_table.horizontalHeader().setDefaultSectionSize(70)
        layout.addWidget(self.tabs)
        layout.addLayout(row(self.filter, self.copy_button, self.save_button, stretch=0))

    def show_prediction(self, prediction: Prediction | None, *, hides_masks: bool, counts: Mapping[str, float]) -> None:
        """Show the scores of one plane, whether it resembles the training images, its cells; nothing for None."""
        self.bars.show_prediction(prediction)
        self.counts.say(_counts_line(counts), "")
        self.counts.setToolTip(f"{COUNTED}: {_counts_line(counts, None)}")
        self.unlike.show_prediction(prediction)
        self.masks_button.setVisible(hides_masks)

    def show_objects(self, table: pd.DataFrame, classes: tuple[str, ...]) -> None:
        """Show the objects of the image in view."""
        first = [name for name in ("class", "shown", "plane", "label") if name in table]
        self.objects.show_frame(table[[*first, *table.columns.difference(first, sort=False)]], class_colours(classes))
        for column, width in enumerate(_OBJECT_WIDTHS):
            self.object_table.setColumnWidth(column, width)
        self.tabs.setTabText(1, f"Objects ({len(table)})" if len(table) else "Objects")

    def select_object(self, number: int) -> None:
        """Select the row of an object that was picked in the viewer."""
        frame = self.objects.frame
        found = np.flatnonzero(frame["index"] == number) if len(frame) else np.array([], int)
        if found.size:
            self.object_table.select_source_row(int(found[0]))

    def _table(self) -> SortedTable:
        table = self.tabs.currentWidget()
        assert isinstance(table, SortedTable)
        return table

    def _on_filter(self, text: str) -> None:
        for table in (self.plane_table, self.object_table):
            table.proxy.setFilterFixedString(text)

    def _on_plane(self, index: QModelIndex) -> None:
        entry, plane = self.planes.rows[self.plane_table.source_row(index)]
        self.plane_picked.emit(entry, -1 if plane is None else plane)

    def _on_object(self, index: QModelIndex) -> None:
        self.object_picked.emit(self.object_table.source_row(index))

    def _on_save(self) -> None:
        name = "predictions.csv" if self._table() is self.plane_table else "objects.csv"
        path, _ = QFileDialog.getSaveFileName(self, "Save table", name, "Tables (*.csv)")
        if path:
            self.save_requested.emit(path)
