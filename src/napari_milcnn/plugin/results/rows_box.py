"""The table of the Results dock: sorts and filters a hundred thousand rows at once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from qtpy.QtCore import QIdentityProxyModel, QModelIndex, Qt
from qtpy.QtWidgets import QPushButton, QWidget

from napari_milcnn.figures.palette import class_colours
from napari_milcnn.figures.plots import FigureStyle
from napari_milcnn.plugin.qt.forms import Note, row, vertical_layout
from napari_milcnn.plugin.qt.icons import swatch
from napari_milcnn.plugin.qt.tables import BAR_ROLE, BarDelegate, FrameModel, SortedTable, filter_field
from napari_milcnn.plugin.results.plot_box import View
from napari_milcnn.results.opened import MEASURED
from napari_milcnn.results.write import write_table
from napari_milcnn.schema import NO_CLASS, NOTHING, UNLIKE, UNLIKE_REASON, is_pooled, is_score

if TYPE_CHECKING:
    from napari_milcnn.results.opened import OpenedResults

_CLASSES = ("top", "label")
_WIDTHS = {"image": 104, "plane": 44, "top": 84, "label": 84, "score": 48, "margin": 56}
_DEFAULT_WIDTH = 66
"""Widths of columns, in px."""


class RowsModel(FrameModel):
    """A data frame that sorts and filters its rows itself, because Qt's own sorting asks for every cell."""

    def __init__(self, parent: QWidget) -> None:
        super().__init__(parent)
        self.order = np.arange(0)
        self._only: np.ndarray | None = None
        self._text, self._sorted = "", (-1, Qt.SortOrder.AscendingOrder)

    def show_frame(self, frame: pd.DataFrame, colours: dict[str, str]) -> None:
        """Show all rows of another table."""
        self._only, self._text, self._sorted = None, "", (-1, Qt.SortOrder.AscendingOrder)
        self.beginResetModel()
        self.frame, self._colours = frame, colours
        self.order = np.arange(len(frame))
        self.endResetModel()

    def show_only(self, rows: np.ndarray | None) -> None:
        """Show only some rows, bool (rows,); None shows all."""
        self._only = rows
        self._arrange()

    def filter(self, text: str) -> None:
        """Show the rows that contain a text in a column of texts."""
        self._text = text
        self._arrange()

    def sort(self, column: int, order: Qt.SortOrder = Qt.SortOrder.AscendingOrder) -> None:
        """Sort by a column; -1 restores the order of the file."""
        self._sorted = (column, order)
        self._arrange()

    def _arrange(self) -> None:
        self.beginResetModel()
        shown = np.ones(len(self.frame), bool) if self._only is None else self._only.copy()
        if self._text:
            texts = [self.frame[name].astype(str) for name in self.frame if self.frame[name].dtype.kind not in "iuf"]
            shown &= np.any([text.str.contains(self._text, case=False, regex=False) for text in texts], axis=0)
        column, order = self._sorted
        rows = np.arange(len(self.frame))
        if 0 <= column < len(self.frame.columns):
            values = self.frame.iloc[:, column].reset_index(drop=True)
            up = order == Qt.SortOrder.AscendingOrder
            rows = values.sort_values(ascending=up, kind="stable").index.to_numpy()
        self.order = rows[shown[rows]]
        self.endResetModel()

    def rowCount(self, _parent: QModelIndex | None = None) -> int:
        """Count the rows."""
        return len(self.order)

    def data(self, index: QModelIndex, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """Return text, tooltip, colour and bar of a cell."""
        at, name = int(self.order[index.row()]), str(self.frame.columns[index.column()])
        value: Any = self.frame.iat[at, index.column()]
        if role == Qt.ItemDataRole.DisplayRole:
            return _cell_text(value, 3 if name in ("score", "margin", UNLIKE) or is_score(name) else None)
        if role == Qt.ItemDataRole.ToolTipRole:
            return str(self.frame["error"].iat[at] or self.frame["file"].iat[at])
        if role == Qt.ItemDataRole.DecorationRole and name in _CLASSES and value in self._colours:
            return swatch(self._colours[value])
        if role == BAR_ROLE and name == "score" and not np.isnan(value):
            colour = self._colours.get(str(self.frame["top"].iat[at]))
            return None if colour is None else (min(float(value), 1.0), colour)
        return None


def _cell_text(value: Any, digits: int | None) -> str:
    if not isinstance(value, float):
        return str(value)
    if np.isnan(value):
        return ""
    return f"{value:.4g}" if digits is None else f"{value:.{digits}f}"


class RowsTable(SortedTable):
    """A table like the others, for a model that sorts itself."""

    def __init__(self, model: RowsModel) -> None:
        super().__init__(model)
        self.proxy: Any = QIdentityProxyModel(self)
        self.proxy.setSourceModel(model)
        self.setModel(self.proxy)
        self._model = model

    def text(self) -> str:
        """Return the selected rows, or all rows in view if none is selected, as tab-separated text."""
        rows = sorted({index.row() for index in self.selectionModel().selectedRows()}) or slice(None)
        return str(self._model.frame.iloc[self._model.order[rows]].to_csv(sep="\t", index=False)).rstrip("\n")


class RowsBox(View):
    """The table of all rows; a click opens the image of a row."""

    title = "Table"

    def __init__(self) -> None:
        super().__init__()
        self.found: OpenedResults | None = None
        self.rows = RowsModel(self)
        self.table = RowsTable(self.rows)
        self.table.setAccessibleName("Table of results")
        self._bars = BarDelegate(self.table)
        self.chosen, self.all_button = Note(), QPushButton("Show all")
        self.filter = filter_field()
        self.copy_button = QPushButton("Copy")
        layout = vertical_layout(self)
        layout.addLayout(row(self.filter, self.copy_button, stretch=0))
        layout.addLayout(row(self.chosen, self.all_button, stretch=0))
        layout.addWidget(self.table, 1)
        self.table.setMinimumHeight(220)
        self.all_button.hide()
        self.filter.textChanged.connect(self.rows.filter)
        self.copy_button.clicked.connect(self.table.copy)
        self.all_button.clicked.connect(lambda: self.choose(None, ""))
        self.table.clicked.connect(self._on_row)
        self.table.activated.connect(self._on_row)

    def show_results(self, found: OpenedResults, _style: FigureStyle) -> None:
        """Show all rows of other results."""
        if found is self.found:
            return
        self.found = found
        frame = shown_frame(found)
        self.filter.clear()
        self.rows.show_frame(frame, class_colours(found.classes))
        self.table.sortByColumn(-1, Qt.SortOrder.AscendingOrder)
        for number, name in enumerate(frame):
            self.table.setColumnWidth(number, _WIDTHS.get(str(name), _DEFAULT_WIDTH))
            self.table.setItemDelegateForColumn(number, self._bars if name == "score" else None)
        self.choose(None, "")

    def choose(self, files: list[str] | None, words: str) -> None:
        """Show the rows of some images, with a description of them; None shows all rows."""
        if self.found is not None:
            self.rows.show_only(None if files is None else self.found.table["file"].isin(files).to_numpy())
        self.chosen.say(words)
        self.all_button.setVisible(files is not None)

    def select(self, number: int) -> None:
        """Select a row of the results if it is in view."""
        place = np.flatnonzero(self.rows.order == number)
        if place.size:
            self.table.select_source_row(int(place[0]))

    def write(self, path: Path) -> None:
        """Write the rows in view, in their order, with all columns of the results."""
        assert self.found is not None
        write_table(path, self.found.table.iloc[self.rows.order])

    def _on_row(self, index: QModelIndex) -> None:
        self.row_picked.emit(int(self.rows.order[index.row()]))


def shown_frame(found: OpenedResults) -> pd.DataFrame:
    """Return the table for display: the most important columns come first, columns without content are left out."""
    table = found.table
    front: dict[str, Any] = {"image": table["name"]}
    varying = [(letter, name) for letter, name in zip("PTZ", ("position", "t", "z"), strict=True)
               if name in table and table[name].nunique() > 1]  # fmt: skip
    if varying:
        parts = [letter + table[name].fillna(-1).astype(int).astype(str) for letter, name in varying]
        planes = parts[0]
        for part in parts[1:]:
            planes = planes + " " + part
        front["plane"] = planes.where(table["error"] == "", "")
    shown = table["top"].where((table["top"] != NO_CLASS) | (table["error"] != ""), NOTHING)
    front |= {"top": shown, "score": table[found.columns].max(axis=1), "margin": table["margin"]}
    if UNLIKE in table and table[UNLIKE].notna().any():
        front[UNLIKE] = table[UNLIKE]
    last = [*found.columns, "planes", "warnings", "error", "file"]
    measured = [name for name in table if is_pooled(name) or name in MEASURED]
    known = [name for name in table if name not in (*last, *measured, "name", "top")]
    frame = pd.DataFrame(front | {str(name): table[name] for name in (*known, *last) if name in table})
    empty = [
        name for name in ("label", "group", UNLIKE_REASON, "warnings") if name in frame and (frame[name] == "").all()
    ]
    return frame.drop(columns=empty)
