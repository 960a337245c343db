"""What was found: scores of the plane in view, a table of planes, a table of objects."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from qtpy.QtCore import QAbstractTableModel, QModelIndex, QRectF, QSortFilterProxyModel, Qt, Signal
from qtpy.QtGui import QColor, QGuiApplication, QKeySequence, QPainter
from qtpy.QtWidgets import (
    QAbstractItemView,
    QFileDialog,
    QHeaderView,
    QLineEdit,
    QPushButton,
    QStyledItemDelegate,
    QStyleOptionViewItem,
    QTableView,
    QTabWidget,
    QVBoxLayout,
    QWidget,
)

from napari_milcnn.figures.palette import class_colours
from napari_milcnn.plugin.qt.forms import Note, heading, row, swatch

if TYPE_CHECKING:
    from napari_milcnn.inference.predict import Prediction
    from napari_milcnn.plugin.classify.image_state import ImageState

SORTED = Qt.ItemDataRole.UserRole
BAR = Qt.ItemDataRole.UserRole + 1
_BAR_HEIGHT, _SHOWN = 16, 8


class ScoreBars(QWidget):
    """The score of each class for the plane in view: longest bar first, in the colours of the classes."""

    def __init__(self) -> None:
        super().__init__()
        self._scores: list[tuple[str, float, str]] = []
        self.setAccessibleName("Scores of the plane in view")

    def show_prediction(self, prediction: Prediction | None) -> None:
        """Show one plane's scores; nothing for None."""
        rows: list[tuple[str, float, str]] = []
        if prediction is not None:
            colours = class_colours(prediction.classes)
            pairs = zip(prediction.classes, prediction.scores[0].tolist(), strict=True)
            rows = [(name, score, colours[name]) for name, score in sorted(pairs, key=lambda pair: -pair[1])]
        self._scores = rows[:_SHOWN]
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
            painter.fillRect(QRectF(names + 36, top + 3, room, _BAR_HEIGHT - 6), QColor("#262930"))
            painter.fillRect(QRectF(names + 36, top + 3, room * score, _BAR_HEIGHT - 6), QColor(colour))
        painter.end()


_LEFT = Qt.AlignmentFlag.AlignVCenter | Qt.AlignmentFlag.AlignLeft


class BarDelegate(QStyledItemDelegate):
    """A number from 0 to 1 with a bar of its class's colour under it."""

    def paint(self, painter: QPainter, option: QStyleOptionViewItem, index: QModelIndex) -> None:
        """Draw the bar, then the number."""
        super().paint(painter, option, index)
        bar = index.data(BAR)
        if bar is not None:
            share, colour = bar
            box = option.rect
            painter.fillRect(QRectF(box.left() + 2, box.bottom() - 3, (box.width() - 4) * share, 2), QColor(colour))


class PlanesModel(QAbstractTableModel):
    """One row for each plane that was classified, and one for each image that waits or failed."""

    HEADER = ("image", "plane", "top class", "score", "margin")

    def __init__(self, parent: QWidget) -> None:
        super().__init__(parent)
        self.rows: list[tuple[ImageState, int | None]] = []

    def put(self, entry: ImageState, plane: int | None) -> None:
        """Add a row, or say that it is another now; a plane takes the place of its image's waiting row."""
        for found in ((entry, plane), (entry, None)):
            if found in self.rows:
                at = self.rows.index(found)
                self.rows[at] = (entry, plane)
                self.dataChanged.emit(self.index(at, 0), self.index(at, len(self.HEADER) - 1))
                return
        self.beginInsertRows(QModelIndex(), len(self.rows), len(self.rows))
        self.rows.append((entry, plane))
        self.endInsertRows()

    def forget(self, entry: ImageState) -> None:
        """Remove the rows of an image."""
        self.beginResetModel()
        self.rows = [kept for kept in self.rows if kept[0] is not entry]
        self.endResetModel()

    def changed(self, entry: ImageState) -> None:
        """Say that the state of an image is another."""
        for at, kept in enumerate(self.rows):
            if kept[0] is entry:
                self.dataChanged.emit(self.index(at, 0), self.index(at, len(self.HEADER) - 1))

    def rowCount(self, _parent: QModelIndex | None = None) -> int:
        """Count the rows."""
        return len(self.rows)

    def columnCount(self, _parent: QModelIndex | None = None) -> int:
        """Count the columns."""
        return len(self.HEADER)

    def headerData(self, section: int, orientation: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """Return the title of a column."""
        if role == Qt.ItemDataRole.DisplayRole and orientation == Qt.Orientation.Horizontal:
            return self.HEADER[section]
        return None

    def data(self, index: QModelIndex, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """Return text, sort value, tool tip, colour of a cell."""
        entry, plane = self.rows[index.row()]
        column = index.column()
        if plane is None:
            text = (entry.name, "", entry.error or entry.state, "", "")[column]
            return text if role in (Qt.ItemDataRole.DisplayRole, SORTED, Qt.ItemDataRole.ToolTipRole) else None
        prediction = entry.predictions[plane]
        top, score, margin = prediction.top[0], float(prediction.scores.max()), float(prediction.margin[0])
        name = entry.plane_name(plane)
        if role == Qt.ItemDataRole.DisplayRole:
            return (entry.name, name, top, f"{score:.3f}", f"{margin:.3f}")[column]
        if role == SORTED:
            return (entry.name, plane, top, score, margin)[column]
        if role == Qt.ItemDataRole.ToolTipRole:
            return f"{entry.name} {name}: {top} {score:.3f}, {margin:.3f} ahead of the next" + _mark(entry)
        colour = class_colours(prediction.classes)[top]
        if role == Qt.ItemDataRole.DecorationRole and column == 2:
            return swatch(colour)
        return (min(score, 1.0), colour) if role == BAR and column == 3 else None


def _mark(entry: ImageState) -> str:
    return "" if entry.state in ("done", "running") else f" ({entry.state}: not all planes were classified)"


class FrameModel(QAbstractTableModel):
    """A data frame, with a square of the class's colour beside the class."""

    def __init__(self, parent: QWidget) -> None:
        super().__init__(parent)
        self.frame = pd.DataFrame()
        self._colours: dict[str, str] = {}

    def show_frame(self, frame: pd.DataFrame, colours: dict[str, str]) -> None:
        """Show another table."""
        self.beginResetModel()
        self.frame, self._colours = frame, colours
        self.endResetModel()

    def rowCount(self, _parent: QModelIndex | None = None) -> int:
        """Count the rows."""
        return len(self.frame)

    def columnCount(self, _parent: QModelIndex | None = None) -> int:
        """Count the columns."""
        return len(self.frame.columns)

    def headerData(self, section: int, orientation: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """Return the title of a column."""
        if role == Qt.ItemDataRole.DisplayRole and orientation == Qt.Orientation.Horizontal:
            return str(self.frame.columns[section])
        return None

    def data(self, index: QModelIndex, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """Return text, sort value and colour of a cell."""
        value: Any = self.frame.iat[index.row(), index.column()]
        if role == Qt.ItemDataRole.DisplayRole:
            return f"{value:.4g}" if isinstance(value, float) else str(value)
        if role == SORTED:
            return value.item() if hasattr(value, "item") else value
        is_class = self.frame.columns[index.column()] == "class"
        return swatch(self._colours[value]) if role == Qt.ItemDataRole.DecorationRole and is_class else None


class SortedTable(QTableView):
    """A table that is sorted by its header, filtered by a text, and copied with Ctrl+C."""

    def __init__(self, model: QAbstractTableModel) -> None:
        super().__init__()
        self.proxy = QSortFilterProxyModel(self)
        self.proxy.setSourceModel(model)
        self.proxy.setSortRole(SORTED)
        self.proxy.setFilterKeyColumn(-1)
        self.proxy.setFilterCaseSensitivity(Qt.CaseSensitivity.CaseInsensitive)
        self.setModel(self.proxy)
        self.setSortingEnabled(True)
        self.sortByColumn(-1, Qt.SortOrder.AscendingOrder)
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.verticalHeader().hide()
        self.verticalHeader().setDefaultSectionSize(20)
        self.horizontalHeader().setSectionResizeMode(QHeaderView.ResizeMode.Interactive)
        self.horizontalHeader().setStretchLastSection(True)
        self.setWordWrap(False)
        self.setMinimumHeight(120)

    def keyPressEvent(self, event: Any) -> None:
        """Copy the selected rows."""
        if event.matches(QKeySequence.StandardKey.Copy):
            QGuiApplication.clipboard().setText(self.text())
        else:
            super().keyPressEvent(event)

    def text(self) -> str:
        """Return the selected rows, or all, as text with tabs, as spreadsheets take it."""
        rows = sorted({index.row() for index in self.selectedIndexes()}) or range(self.proxy.rowCount())
        columns = range(self.proxy.columnCount())
        header = [str(self.proxy.headerData(c, Qt.Orientation.Horizontal)) for c in columns]
        lines = [[str(self.proxy.index(r, c).data()) for c in columns] for r in rows]
        return "\n".join("\t".join(line) for line in (header, *lines))

    def source_row(self, index: QModelIndex) -> int:
        """Return the row of the unsorted table."""
        return int(self.proxy.mapToSource(index).row())

    def select_source_row(self, row: int) -> None:
        """Select and show a row of the unsorted table."""
        index = self.proxy.mapFromSource(self.proxy.sourceModel().index(row, 0))
        self.selectRow(index.row())
        self.scrollTo(index)


class ResultsBox(QWidget):
    """Bars, planes, objects.

    Signals
    -------
    plane_picked : ImageState, int
        A row of the table of planes; -1 for an image without a plane yet.
    object_picked : int
        The `index` of a row of the table of objects.
    saved : str
        What was written, or why not.
    """

    plane_picked = Signal(object, int)
    object_picked = Signal(int)
    save_asked = Signal(str)

    def __init__(self) -> None:
        super().__init__()
        self.bars = ScoreBars()
        self.empty = Note()
        self.planes = PlanesModel(self)
        self.plane_table = SortedTable(self.planes)
        self.plane_table.setItemDelegateForColumn(3, BarDelegate(self.plane_table))
        self.objects = FrameModel(self)
        self.object_table = SortedTable(self.objects)
        self.filter = QLineEdit()
        self.filter.setPlaceholderText("filter")
        self.filter.setClearButtonEnabled(True)
        self.copy_button, self.save_button = QPushButton("Copy"), QPushButton("Save CSV…")
        self.tabs = QTabWidget()
        self._lay_out()
        self.filter.textChanged.connect(self._on_filter)
        self.copy_button.clicked.connect(lambda: QGuiApplication.clipboard().setText(self._table().text()))
        self.save_button.clicked.connect(self._on_save)
        self.plane_table.clicked.connect(self._on_plane)
        self.plane_table.activated.connect(self._on_plane)
        self.object_table.clicked.connect(self._on_object)
        self.object_table.activated.connect(self._on_object)

    def _lay_out(self) -> None:
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(heading("Result"))
        layout.addWidget(self.empty)
        layout.addWidget(self.bars)
        self.tabs.addTab(self.plane_table, "Planes")
        self.tabs.addTab(self.object_table, "Objects")
        for column, width in enumerate((64, 40, 88, 46)):
            self.plane_table.setColumnWidth(column, width)
        self.object_table.horizontalHeader().setDefaultSectionSize(70)
        layout.addWidget(self.tabs)
        layout.addLayout(row(self.filter, self.copy_button, self.save_button, stretch=0))

    def show_objects(self, table: pd.DataFrame, classes: tuple[str, ...]) -> None:
        """Show the objects of the image in view."""
        first = [name for name in ("class", "plane", "label") if name in table]
        self.objects.show_frame(table[[*first, *table.columns.difference(first, sort=False)]], class_colours(classes))
        self.tabs.setTabText(1, f"Objects ({len(table)})" if len(table) else "Objects")

    def select_object(self, number: int) -> None:
        """Select the row of an object picked in the picture."""
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
        row_number = self.object_table.source_row(index)
        self.object_picked.emit(int(self.objects.frame["index"].to_numpy()[row_number]))

    def _on_save(self) -> None:
        name = "predictions.csv" if self._table() is self.plane_table else "objects.csv"
        path, _ = QFileDialog.getSaveFileName(self, "Save table", name, "Tables (*.csv)")
        if path:
            self.save_asked.emit(path)
