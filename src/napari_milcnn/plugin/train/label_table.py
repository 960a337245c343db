"""The images to label as a table: picture, labels, group, split; filtered, edited in place, quick with thousands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QAbstractTableModel, QModelIndex, QSize, QSortFilterProxyModel, Qt, Signal
from qtpy.QtGui import QColor, QIcon, QPainter, QPixmap
from qtpy.QtWidgets import QAbstractItemView, QComboBox, QStyledItemDelegate, QStyleOptionViewItem, QWidget

from napari_milcnn.images.paths import image_name
from napari_milcnn.plugin.classify.results_box import SORTED, SortedTable
from napari_milcnn.plugin.qt.thumbnails import SIDE, Thumbnails, plain_icon

if TYPE_CHECKING:
    from napari_milcnn.labels.labelling import Labelling
    from napari_milcnn.labels.table import LabelledImage

IMAGE, LABEL, GROUP, SPLIT, NEXT = range(5)
ALL, UNLABELLED = "", "\0"
"""What is filtered by, beside the name of a class."""
_HEADER = ("image", "label", "group", "split", "next")
_LAST = 1 << 30
_SPLITS = ("", "train", "validation", "test")


class ImagesModel(QAbstractTableModel):
    """The images of a labelling, in their own order.

    Signals
    -------
    edited : int, int, str
        A text was typed for a row, in the column of the group or the split.
    """

    edited = Signal(int, int, str)

    def __init__(self, parent: QWidget) -> None:
        super().__init__(parent)
        self.images: tuple[LabelledImage, ...] = ()
        self.editable = True
        self.pictures = Thumbnails(self)
        self._files: tuple[str, ...] = ()
        self._colours: dict[str, str] = {}
        self._ranks: dict[int, int] = {}
        self._squares: dict[tuple[str, ...], QIcon] = {}
        self.pictures.made.connect(self._on_made)

    def open(self, labelling: Labelling | None) -> None:
        """Show other images."""
        self.beginResetModel()
        self.images = labelling.images if labelling is not None else ()
        self._files = tuple(map(labelling.file_name, range(len(self.images)))) if labelling is not None else ()
        self._colours, self._ranks = _colours(labelling), {}
        self._squares.clear()
        self.pictures.show_table(labelling.everything() if labelling is not None else None)
        self.endResetModel()

    def refresh(self, labelling: Labelling) -> None:
        """Show the same images after a change; only rows that are others are drawn anew."""
        before, self.images = self.images, labelling.images
        colours, self._colours = self._colours, _colours(labelling)
        changed = [i for i, (old, new) in enumerate(zip(before, self.images, strict=True)) if old is not new]
        if colours != self._colours:
            self._squares.clear()
            changed = list(range(len(self.images)))
        for first, last in _runs(changed):
            self.dataChanged.emit(self.index(first, 0), self.index(last, len(_HEADER) - 1))

    def rank(self, order: Sequence[int]) -> None:
        """Give some rows numbers, in the order in which they are to be labelled next."""
        self._ranks = {row: place for place, row in enumerate(order, start=1)}
        if self.images:
            self.dataChanged.emit(self.index(0, NEXT), self.index(len(self.images) - 1, NEXT))

    def _on_made(self, row: int) -> None:
        if row < len(self.images):
            self.dataChanged.emit(self.index(row, IMAGE), self.index(row, IMAGE), [Qt.ItemDataRole.DecorationRole])

    def rowCount(self, _parent: QModelIndex | None = None) -> int:
        """Count the images."""
        return len(self.images)

    def columnCount(self, _parent: QModelIndex | None = None) -> int:
        """Count the columns."""
        return len(_HEADER)

    def headerData(self, section: int, orientation: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """Return the title of a column."""
        if role == Qt.ItemDataRole.DisplayRole and orientation == Qt.Orientation.Horizontal:
            return _HEADER[section]
        return None

    def flags(self, index: QModelIndex) -> Qt.ItemFlag:
        """Return what can be done with a cell: group and split can be edited."""
        flags = super().flags(index)
        return flags | Qt.ItemFlag.ItemIsEditable if self.editable and index.column() in (GROUP, SPLIT) else flags

    def data(self, index: QModelIndex, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """Return text, sort value, tool tip and picture of a cell; the picture is made once it is asked for."""
        row, column = index.row(), index.column()
        if role in (Qt.ItemDataRole.DisplayRole, Qt.ItemDataRole.EditRole):
            return self._text(row, column)
        if role == SORTED:
            return self._ranks.get(row, _LAST + row) if column == NEXT else self._text(row, column)
        if role == Qt.ItemDataRole.ToolTipRole:
            return (
                self.pictures.errors.get(row) or self.images[row].name if column == IMAGE else self._text(row, column)
            )
        if role == Qt.ItemDataRole.DecorationRole and column == IMAGE:
            made = self.pictures.picture(row)
            return self._blank(row) if made is None else made
        if role == Qt.ItemDataRole.DecorationRole and column == LABEL:
            return self._square(self.images[row].labels)
        return None

    def setData(self, index: QModelIndex, value: Any, role: int = Qt.ItemDataRole.EditRole) -> bool:
        """Ask for a change; the labelling makes it."""
        if role != Qt.ItemDataRole.EditRole or value == self._text(index.row(), index.column()):
            return False
        self.edited.emit(index.row(), index.column(), str(value))
        return True

    def _text(self, row: int, column: int) -> str:
        image = self.images[row]
        if column == NEXT:
            return str(self._ranks.get(row, ""))
        name = f"{image_name(image.file)} {image.plane}".rstrip()
        group = image.group if image.group != self._files[row] else ""
        return (name, ", ".join(image.labels), group, image.split or "")[column]

    def _blank(self, row: int) -> QIcon:
        """Hold the place of a picture that is not there yet, or say by a cross that there will be none."""
        failed = row in self.pictures.errors
        key = ("failed" if failed else "blank",)
        if key not in self._squares:
            pixmap = QPixmap(SIDE, SIDE)
            pixmap.fill(QColor("#262930"))
            if failed:
                painter = QPainter(pixmap)
                painter.setPen(QColor("#d55e00"))
                painter.drawText(pixmap.rect(), Qt.AlignmentFlag.AlignCenter, "×")
                painter.end()
            self._squares[key] = plain_icon(pixmap)
        return self._squares[key]

    def _square(self, labels: tuple[str, ...]) -> QIcon | None:
        """Draw a square for each label, on dark ground as `swatch` does."""
        if labels and labels not in self._squares:
            pixmap = QPixmap(10 * len(labels) + 2, 12)
            pixmap.fill(QColor("#262930"))
            painter = QPainter(pixmap)
            for i, label in enumerate(labels):
                painter.fillRect(10 * i + 2, 2, 8, 8, QColor(self._colours.get(label, "#ffffff")))
            painter.end()
            self._squares[labels] = plain_icon(pixmap)
        return self._squares.get(labels)


def _colours(labelling: Labelling | None) -> dict[str, str]:
    return {each.name: each.colour for each in labelling.classes} if labelling is not None else {}


def _runs(rows: Sequence[int]) -> list[tuple[int, int]]:
    """Group rows into runs (first, last); one run from end to end where there are many."""
    if len(rows) > 100:
        return [(rows[0], rows[-1])]
    return [(row, row) for row in rows]


class _ByLabel(QSortFilterProxyModel):
    """Shows the images of one class, or those without a label."""

    wanted = ALL

    def filterAcceptsRow(self, row: int, _parent: QModelIndex) -> bool:
        labels = self.sourceModel().images[row].labels
        return self.wanted == ALL or (not labels if self.wanted == UNLABELLED else self.wanted in labels)


class _Name(QStyledItemDelegate):
    """Shows both ends of a name: those of one screen begin alike."""

    def initStyleOption(self, option: QStyleOptionViewItem, index: QModelIndex) -> None:
        """Leave out the middle."""
        super().initStyleOption(option, index)
        option.textElideMode = Qt.TextElideMode.ElideMiddle


class _SplitChoice(QStyledItemDelegate):
    """Edits a split by choosing one."""

    def createEditor(self, parent: QWidget, _option: QStyleOptionViewItem, _index: QModelIndex) -> QWidget:
        """Return a combo box that writes at once what is chosen."""
        combo = QComboBox(parent)
        combo.addItems(_SPLITS)
        combo.activated.connect(lambda _i: (self.commitData.emit(combo), self.closeEditor.emit(combo)))
        return combo

    def setEditorData(self, editor: Any, index: QModelIndex) -> None:
        """Show the split that is set."""
        editor.setCurrentText(index.data())
        editor.showPopup()

    def setModelData(self, editor: Any, model: Any, index: QModelIndex) -> None:
        """Write the choice."""
        model.setData(index, editor.currentText())


class ImageTable(SortedTable):
    """The table in view; rows are always places in the labelling, however it is sorted and filtered.

    Signals
    -------
    row_shown : int
        Another row is the current one; -1 for none.
    """

    row_shown = Signal(int)

    def __init__(self, images: ImagesModel) -> None:
        self.images = images
        self.by_label = _ByLabel()
        self.by_label.setSourceModel(images)
        super().__init__(self.by_label)
        self.by_label.setParent(self)
        self.setEditTriggers(QAbstractItemView.EditTrigger.DoubleClicked | QAbstractItemView.EditTrigger.EditKeyPressed)
        self.setItemDelegateForColumn(SPLIT, _SplitChoice(self))
        self.setIconSize(QSize(SIDE, SIDE))
        self.verticalHeader().setDefaultSectionSize(SIDE + 4)
        self.setVerticalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        self.setColumnHidden(NEXT, True)
        self.setItemDelegateForColumn(IMAGE, _Name(self))
        for column, width in ((IMAGE, 124), (LABEL, 76), (GROUP, 48), (SPLIT, 36)):
            self.setColumnWidth(column, width)
        self.setMinimumHeight(3 * (SIDE + 4))
        self.selectionModel().currentRowChanged.connect(self._on_current)

    def show_only(self, label: str) -> None:
        """Show the images of one class, those without a label, or all."""
        self.by_label.wanted = label
        self.by_label.invalidate()

    def source_row(self, index: QModelIndex) -> int:
        """Return the row of the labelling."""
        return int(self.by_label.mapToSource(self.proxy.mapToSource(index)).row())

    def view_index(self, row: int) -> QModelIndex:
        """Return where a row of the labelling is in view; an invalid index where it is filtered out."""
        return self.proxy.mapFromSource(self.by_label.mapFromSource(self.images.index(row, 0)))

    def rows(self) -> list[int]:
        """Return the selected rows."""
        return sorted({self.source_row(index) for index in self.selectionModel().selectedRows()})

    def current_row(self) -> int:
        """Return the current row; -1 for none."""
        return self.source_row(self.currentIndex()) if self.currentIndex().isValid() else -1

    def select(self, rows: Sequence[int]) -> None:
        """Select rows, as far as they are in view, and go to the first."""
        indices = [index for row in rows if (index := self.view_index(row)).isValid()]
        self.clearSelection()
        if not indices:
            self.setCurrentIndex(QModelIndex())
            return
        self.setCurrentIndex(indices[0])
        flags = self.selectionModel().SelectionFlag.Select | self.selectionModel().SelectionFlag.Rows
        for index in indices:
            self.selectionModel().select(index, flags)
        self.scrollTo(indices[0])

    def next_unlabelled(self, rows: Sequence[int]) -> int | None:
        """Return the first image without a label below the current one, in the order in view, that is not in `rows`."""
        count, start, passed = self.proxy.rowCount(), self.currentIndex().row() + 1, set(rows)
        for step in range(count):
            row = self.source_row(self.proxy.index((start + step) % count, 0))
            if row not in passed and not self.images.images[row].labels:
                return row
        return None

    def show_ranks(self, order: Sequence[int]) -> None:
        """Sort by what to label next."""
        self.images.rank(order)
        self.sortByColumn(NEXT, Qt.SortOrder.AscendingOrder)
        self.scrollToTop()

    def _on_current(self, index: QModelIndex, _before: QModelIndex) -> None:
        self.row_shown.emit(self.source_row(index) if index.isValid() else -1)


def places(counts: Mapping[str, int]) -> list[tuple[str, str]]:
    """Return the choices to filter by: (text, what `show_only` takes)."""
    return [("all images", ALL), ("without a label", UNLABELLED), *((name, name) for name in counts)]
