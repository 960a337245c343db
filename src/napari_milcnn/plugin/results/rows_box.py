"""The table of the Results dock: sorts and filters a hundred thousand rows at once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QIdentityProxyModel, QItemSelectionModel, QModelIndex, Qt, Signal
from qtpy.QtWidgets import QPushButton, QWidget

from napari_milcnn.figures.palette import class_colours
from napari_milcnn.plugin.qt.forms import Note, plain_text, row, there, vertical_layout
from napari_milcnn.plugin.qt.icons import swatch
from napari_milcnn.plugin.qt.tables import BAR_ROLE, BarDelegate, FrameModel, SortedTable, filter_field
from napari_milcnn.plugin.results.plot_box import View
from napari_milcnn.schema import UNLIKE, UNLIKE_REASON, class_of, is_score

if TYPE_CHECKING:
    from napari_milcnn.figures.plots import FigureStyle
    from napari_milcnn.plugin.results.reading import ReadResults
    from napari_milcnn.plugin.results.session import ResultsSession

_CLASSES = ("top", "label")
_TITLE_HELP = {
    "image": "Name of the image",
    "plane": "Position, time point and Z of the plane",
    "top": "The class with the highest score",
    "score": "The score of the top class, from 0 to 1",
    "margin": "The difference between the two highest scores; near 0 the model could hardly decide",
    UNLIKE: "How unlike the training images this image is; above 1 its class may be wrong, however high the score",
    UNLIKE_REASON: "In what this image is unlike the training images",
    "label": "What you say the image shows",
    "fold": "The fold of the cross-validation in which the image was held out",
    "planes": "Number of planes whose scores were averaged",
    "error": "Why the image could not be classified",
}
"""What the titles of columns mean; those of others explain themselves."""
_WIDTHS = {"image": 104, "plane": 44, "top": 84, "label": 84, "score": 60, "margin": 62}
_DEFAULT_WIDTH = 66
"""Widths of columns, in px."""


class RowsModel(FrameModel):
    """A data frame that sorts and filters its rows itself, because Qt's own sorting asks for every cell."""

    def __init__(self, parent: QWidget) -> None:
        super().__init__(parent)
        self.opened: ReadResults | None = None
        self.order = np.arange(0)
        self._only: np.ndarray | None = None
        self._text, self._sorted = "", (-1, Qt.SortOrder.AscendingOrder)

    def show_results(self, opened: ReadResults) -> None:
        """Show other results; they are sorted as before where they have that column."""
        column, order = self._sorted
        name = self.frame.columns[column] if 0 <= column < len(self.frame.columns) else None
        names = list(opened.frame.columns)
        self.beginResetModel()
        self.opened, self.frame, self._colours = opened, opened.frame, class_colours(opened.found.classes)
        self._only = None
        self._sorted = (names.index(name), order) if name in names else (-1, Qt.SortOrder.AscendingOrder)
        self.order = self._arranged()
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

    @property
    def sorted_by(self) -> tuple[int, Qt.SortOrder]:
        """The column by which the rows are sorted, -1 for none, and the direction."""
        return self._sorted

    def _arrange(self) -> None:
        self.beginResetModel()
        self.order = self._arranged()
        self.endResetModel()

    def _arranged(self) -> np.ndarray:
        """Return the rows that are shown, in their order."""
        shown = np.ones(len(self.frame), bool) if self._only is None else self._only.copy()
        if self._text and self.opened is not None:
            shown &= self.opened.texts.str.contains(self._text.lower(), regex=False).to_numpy(bool)
        column, order = self._sorted
        rows = np.arange(len(self.frame))
        if 0 <= column < len(self.frame.columns):
            values = self.frame.iloc[:, column].reset_index(drop=True)
            up = order == Qt.SortOrder.AscendingOrder
            rows = values.sort_values(ascending=up, kind="stable").index.to_numpy()
        return np.asarray(rows[shown[rows]])

    def headerData(self, section: int, orientation: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """Return the title of a column, and what it means."""
        if role == Qt.ItemDataRole.ToolTipRole and orientation == Qt.Orientation.Horizontal:
            name = self.titles()[section]
            if is_score(name):
                return plain_text(f"Score of {class_of(name)}, from 0 to 1")
            return plain_text(_TITLE_HELP.get(name, name))
        return super().headerData(section, orientation, role)

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
            return plain_text(str(self.frame["error"].iat[at] or self.frame["file"].iat[at]))
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
    """A table like the others, for a model that sorts itself.

    Signals
    -------
    copy_requested : DataFrame
        Copy these rows: the selected ones, or all rows in view if none is selected.
    """

    copy_requested = Signal(object)

    def __init__(self, model: RowsModel) -> None:
        super().__init__(model)
        self.proxy: Any = QIdentityProxyModel(self)
        self.proxy.setSourceModel(model)
        self.setModel(self.proxy)
        self._model = model
        # the header has a selection of its own: to draw it, Qt would ask each row whether it is selected
        there(self.horizontalHeader()).setSelectionModel(QItemSelectionModel(self.proxy, self))

    def copy(self) -> None:
        """Have rows copied, which takes a second for a hundred thousand of them."""
        chosen = np.zeros(len(self._model.order), bool)
        selection: Any = there(self.selectionModel()).selection()
        for part in selection:  # a range of rows; asking for each row takes half a minute
            chosen[part.top() : part.bottom() + 1] = True
        rows = chosen if chosen.any() else slice(None)
        self.copy_requested.emit(self._model.frame.iloc[self._model.order[rows]])


class RowsBox(View):
    """The table of all rows; a click opens the image of a row."""

    title = "Table"

    def __init__(self, session: ResultsSession) -> None:
        super().__init__()
        self.session = session
        self.rows = RowsModel(self)
        self.table = RowsTable(self.rows)
        self.table.setAccessibleName("Table of results")
        self.table.setToolTip("Click a row, or press Enter on it, to open its image with its masks")
        self._bars = BarDelegate(self.table)
        self.chosen, self.all_button = Note(), QPushButton("Show all")
        self.all_button.setToolTip("List all rows again")
        self.filter = filter_field()
        self.filter.setAccessibleName("Filter the table")
        self.filter.setToolTip("List only rows that contain this word, such as a class, a well or part of a name")
        self.copy_button = QPushButton("Copy")
        self.copy_button.setToolTip("Copy the selected rows, or all rows in view, for a spreadsheet")
        layout = vertical_layout(self)
        layout.addLayout(row(self.filter, self.copy_button, stretch=0))
        layout.addLayout(row(self.chosen, self.all_button, stretch=0))
        layout.addWidget(self.table, 1)
        self.table.setMinimumHeight(220)
        self.table.setTextElideMode(Qt.TextElideMode.ElideMiddle)  # names of one screen begin alike
        self.all_button.hide()
        self.filter.textChanged.connect(self._on_filter)
        self.copy_button.clicked.connect(self.table.copy)
        self.all_button.clicked.connect(lambda: session.choose(None))
        self.table.clicked.connect(self._on_row)
        self.table.activated.connect(self._on_row)
        self.table.copy_requested.connect(session.copy)
        self.rows.modelReset.connect(self._on_row_changed)
        session.chosen_changed.connect(self._on_chosen)
        session.row_changed.connect(self._on_row_changed)

    def show_results(self, opened: ReadResults, _style: FigureStyle) -> None:
        """Show all rows of other results, filtered and sorted as before where the same columns are there."""
        before = self.rows.opened
        if opened is before:
            return
        if before is not None and before.found.path != opened.found.path:
            self.filter.clear()
        bar = there(self.table.verticalScrollBar())
        place = bar.value() if before is not None and before.found.path == opened.found.path else 0
        self.rows.show_results(opened)
        there(self.table.horizontalHeader()).setSortIndicator(*self.rows.sorted_by)
        for number, name in enumerate(self.rows.frame):
            self.table.setColumnWidth(number, _WIDTHS.get(str(name), _DEFAULT_WIDTH))
            self.table.setItemDelegateForColumn(number, self._bars if name == "score" else None)
        self._on_chosen()
        bar.setValue(place)

    def _on_chosen(self) -> None:
        """List all rows, or those that were picked in a figure."""
        chosen, found = self.session.chosen, self.session.found
        if found is not None and self.rows.opened is self.session.opened:
            self.rows.show_only(None if chosen is None else found.table["file"].isin(chosen.files).to_numpy())
        self.all_button.setVisible(chosen is not None)
        self._say_rows()

    def _on_filter(self, text: str) -> None:
        self.rows.filter(text)
        self._say_rows()

    def _say_rows(self) -> None:
        """Say which rows are listed where it is not all of them."""
        chosen, shown, total = self.session.chosen, len(self.rows.order), len(self.rows.frame)
        count = f"{shown:,} of {total:,} rows contain “{self.filter.text()}”" if self.filter.text() else ""
        self.chosen.say(" · ".join(filter(None, [chosen.words if chosen is not None else "", count])))

    def _on_row_changed(self) -> None:
        """Select the row that is looked at, if it is in view."""
        place = np.flatnonzero(self.rows.order == self.session.row)
        if place.size and self.rows.opened is self.session.opened:
            self.table.select_source_row(int(place[0]))

    def write(self, path: Path) -> None:
        """Write the rows in view, in their order, with all columns of the results."""
        from napari_milcnn.results.write import write_table

        assert self.rows.opened is not None
        write_table(path, self.rows.opened.found.table.iloc[self.rows.order])

    def _on_row(self, index: QModelIndex) -> None:
        self.row_picked.emit(int(self.rows.order[index.row()]))
