"""Tables that all docks share: a data frame as a model, a sorted view of it, bars below numbers, a filter field."""

from __future__ import annotations

from typing import Any

import pandas as pd
from qtpy.QtCore import QAbstractItemModel, QAbstractTableModel, QModelIndex, QRectF, QSortFilterProxyModel, Qt
from qtpy.QtGui import QColor, QGuiApplication, QKeySequence
from qtpy.QtWidgets import (
    QAbstractItemView,
    QHeaderView,
    QLineEdit,
    QStyledItemDelegate,
    QStyleOptionViewItem,
    QTableView,
    QWidget,
)

from napari_milcnn.plugin.qt.forms import there
from napari_milcnn.plugin.qt.icons import swatch

SORT_ROLE = Qt.ItemDataRole.UserRole
"""Role of the value that a cell is sorted by."""
BAR_ROLE = Qt.ItemDataRole.UserRole + 1
"""Role of the bar below a number: (share from 0 to 1, colour)."""


class BarDelegate(QStyledItemDelegate):
    """Draws a number from 0 to 1 with a bar in its class's colour below it."""

    def paint(self, painter: Any, option: QStyleOptionViewItem, index: QModelIndex) -> None:
        """Draw the number, then the bar."""
        super().paint(painter, option, index)
        bar = index.data(BAR_ROLE)
        if bar is not None:
            share, colour = bar
            box = option.rect
            painter.fillRect(QRectF(box.left() + 2, box.bottom() - 3, (box.width() - 4) * share, 2), QColor(colour))


class HeaderModel(QAbstractTableModel):
    """A table model that has one title for each column."""

    def titles(self) -> tuple[str, ...]:
        """Return the titles of the columns."""
        raise NotImplementedError

    def columnCount(self, _parent: QModelIndex | None = None) -> int:
        """Count the columns."""
        return len(self.titles())

    def headerData(self, section: int, orientation: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """Return the title of a column."""
        if role == Qt.ItemDataRole.DisplayRole and orientation == Qt.Orientation.Horizontal:
            return self.titles()[section]
        return None


class FrameModel(HeaderModel):
    """A data frame; its column `class` has a square in the class's colour."""

    def __init__(self, parent: QWidget) -> None:
        super().__init__(parent)
        self.frame = pd.DataFrame()
        self._colours: dict[str, str] = {}

    def show_frame(self, frame: pd.DataFrame, colours: dict[str, str]) -> None:
        """Show another table; `colours` are those of the classes."""
        self.beginResetModel()
        self.frame, self._colours = frame, colours
        self.endResetModel()

    def titles(self) -> tuple[str, ...]:
        """Return the names of the frame's columns."""
        return tuple(map(str, self.frame.columns))

    def rowCount(self, _parent: QModelIndex | None = None) -> int:
        """Count the rows."""
        return len(self.frame)

    def data(self, index: QModelIndex, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """Return text, sort value and colour of a cell."""
        value: Any = self.frame.iat[index.row(), index.column()]
        if role == Qt.ItemDataRole.DisplayRole:
            return f"{value:.4g}" if isinstance(value, float) else str(value)
        if role == SORT_ROLE:
            return value.item() if hasattr(value, "item") else value
        is_class = self.frame.columns[index.column()] == "class" and value in self._colours
        return swatch(self._colours[value]) if role == Qt.ItemDataRole.DecorationRole and is_class else None


class SortedTable(QTableView):
    """A table that its header sorts, a text filters, and Ctrl+C copies."""

    def __init__(self, model: QAbstractItemModel) -> None:
        super().__init__()
        self.proxy = QSortFilterProxyModel(self)
        self.proxy.setSourceModel(model)
        self.proxy.setSortRole(SORT_ROLE)
        self.proxy.setFilterKeyColumn(-1)
        self.proxy.setFilterCaseSensitivity(Qt.CaseSensitivity.CaseInsensitive)
        self.setModel(self.proxy)
        self.setSortingEnabled(True)
        self.sortByColumn(-1, Qt.SortOrder.AscendingOrder)
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        there(self.verticalHeader()).hide()
        there(self.verticalHeader()).setDefaultSectionSize(20)
        there(self.horizontalHeader()).setSectionResizeMode(QHeaderView.ResizeMode.Interactive)
        there(self.horizontalHeader()).setStretchLastSection(True)
        self.setWordWrap(False)
        self.setMinimumHeight(120)

    def keyPressEvent(self, event: Any) -> None:
        """Copy the selected rows with Ctrl+C."""
        if event.matches(QKeySequence.StandardKey.Copy):
            self.copy()
        else:
            super().keyPressEvent(event)

    def copy(self) -> None:
        """Copy the selected rows, or all rows if none is selected, to the clipboard."""
        there(QGuiApplication.clipboard()).setText(self.text())

    def text(self) -> str:
        """Return the selected rows, or all rows if none is selected, as tab-separated text for spreadsheets."""
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
        index = self.proxy.mapFromSource(there(self.proxy.sourceModel()).index(row, 0))
        self.selectRow(index.row())
        self.scrollTo(index)


def filter_field() -> QLineEdit:
    """Make the field above a table whose text the table is filtered by."""
    field = QLineEdit()
    field.setPlaceholderText("filter")
    field.setClearButtonEnabled(True)
    return field
