"""The table of the images to label: thumbnail, labels, group and split, quick with thousands of images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QItemSelectionModel, QModelIndex, QSize, QSortFilterProxyModel, Qt, Signal
from qtpy.QtGui import QIcon
from qtpy.QtWidgets import QAbstractItemView, QComboBox, QStyledItemDelegate, QStyleOptionViewItem, QWidget

from napari_milcnn.images.paths import image_name
from napari_milcnn.plugin.qt.forms import ERROR, plain_text, there
from napari_milcnn.plugin.qt.icons import placeholder_icon, swatch
from napari_milcnn.plugin.qt.tables import SORT_ROLE, HeaderModel, SortedTable
from napari_milcnn.plugin.qt.thumbnails import ICON_SIDE, Thumbnails

if TYPE_CHECKING:
    from napari_milcnn.labels.labelling import Labelling
    from napari_milcnn.labels.table import LabelledImage

IMAGE, LABEL, GROUP, SPLIT, NEXT = range(5)
"""The columns; `NEXT` is hidden and only sorted by."""
ALL, UNLABELLED = "", "\0"
"""What the table can be filtered by, besides the name of a class."""
_UNRANKED = 1 << 30
"""Sort value of images without a rank, which come last."""
_SPLITS = ("", "train", "validation", "test")


class ImagesModel(HeaderModel):
    """The images of a labelling, in its order.

    Signals
    -------
    edited : int, int, str
        This text was typed in this row and this column, which is the group or the split.
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
        self._swatches: dict[tuple[str, ...], QIcon] = {}
        self._no_picture = {False: placeholder_icon(ICON_SIDE), True: placeholder_icon(ICON_SIDE, "×", ERROR)}
        self.pictures.made.connect(self._on_made)

    def open(self, labelling: Labelling | None) -> None:
        """Show other images."""
        self.beginResetModel()
        self.images = labelling.images if labelling is not None else ()
        self._files = tuple(map(labelling.file_name, range(len(self.images)))) if labelling is not None else ()
        self._colours, self._ranks = _class_colours(labelling), {}
        self._swatches.clear()
        self.pictures.show_table(labelling.everything() if labelling is not None else None)
        self.endResetModel()

    def refresh(self, labelling: Labelling) -> None:
        """Show the same images after a change; only rows that changed are drawn again."""
        before, self.images = self.images, labelling.images
        colours, self._colours = self._colours, _class_colours(labelling)
        changed = [i for i, (old, new) in enumerate(zip(before, self.images, strict=True)) if old is not new]
        if colours != self._colours:
            self._swatches.clear()
            changed = list(range(len(self.images)))
        for first, last in _row_ranges(changed):
            self.dataChanged.emit(self.index(first, 0), self.index(last, NEXT))

    def rank(self, order: Sequence[int]) -> None:
        """Give rows their numbers in the order in which to label them next."""
        self._ranks = {row: place for place, row in enumerate(order, start=1)}
        if self.images:
            self.dataChanged.emit(self.index(0, NEXT), self.index(len(self.images) - 1, NEXT))

    def _on_made(self, row: int) -> None:
        if row < len(self.images):
            self.dataChanged.emit(self.index(row, IMAGE), self.index(row, IMAGE), [Qt.ItemDataRole.DecorationRole])

    def rowCount(self, _parent: QModelIndex | None = None) -> int:
        """Count the images."""
        return len(self.images)

    def titles(self) -> tuple[str, ...]:
        """Return the titles of the columns."""
        return "image", "label", "group", "split", "next"

    def flags(self, index: QModelIndex) -> Qt.ItemFlag:
        """Return what can be done with a cell; group and split can be edited."""
        flags = super().flags(index)
        return flags | Qt.ItemFlag.ItemIsEditable if self.editable and index.column() in (GROUP, SPLIT) else flags

    def data(self, index: QModelIndex, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """Return text, sort value, tooltip and thumbnail of a cell; a thumbnail is made when it is first needed."""
        row, column = index.row(), index.column()
        if role in (Qt.ItemDataRole.DisplayRole, Qt.ItemDataRole.EditRole):
            return self._text(row, column)
        if role == SORT_ROLE:
            return self._ranks.get(row, _UNRANKED + row) if column == NEXT else self._text(row, column)
        if role == Qt.ItemDataRole.ToolTipRole:
            name = self.pictures.errors.get(row) or self.images[row].name
            return plain_text(name if column == IMAGE else self._text(row, column))
        if role == Qt.ItemDataRole.DecorationRole and column == IMAGE:
            made = self.pictures.picture(row)
            return self._no_picture[row in self.pictures.errors] if made is None else made
        if role == Qt.ItemDataRole.DecorationRole and column == LABEL:
            return self._swatch(self.images[row].labels)
        return None

    def setData(self, index: QModelIndex, value: Any, role: int = Qt.ItemDataRole.EditRole) -> bool:
        """Emit `edited`; whoever listens changes the labelling."""
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

    def _swatch(self, labels: tuple[str, ...]) -> QIcon | None:
        """Return a square in the colour of each label."""
        if labels and labels not in self._swatches:
            self._swatches[labels] = swatch(*(self._colours.get(label, "#ffffff") for label in labels))
        return self._swatches.get(labels)


def _class_colours(labelling: Labelling | None) -> dict[str, str]:
    return {each.name: each.colour for each in labelling.classes} if labelling is not None else {}


def _row_ranges(rows: Sequence[int]) -> list[tuple[int, int]]:
    """Group rows into ranges (first, last); many rows give one range from the first to the last of them."""
    if len(rows) > 100:
        return [(rows[0], rows[-1])]
    return [(row, row) for row in rows]


class _LabelFilter(QSortFilterProxyModel):
    """Shows the images of one class, or those without a label."""

    wanted = ALL

    def __init__(self, images: ImagesModel) -> None:
        super().__init__()
        self.images = images
        self.setSourceModel(images)

    def filterAcceptsRow(self, row: int, _parent: QModelIndex) -> bool:
        labels = self.images.images[row].labels
        return self.wanted == ALL or (not labels if self.wanted == UNLABELLED else self.wanted in labels)


class _ElidedInMiddle(QStyledItemDelegate):
    """Shows both ends of a long name, because the names of one screen begin alike."""

    def initStyleOption(self, option: Any, index: QModelIndex) -> None:
        """Leave out the middle of the text."""
        super().initStyleOption(option, index)
        option.textElideMode = Qt.TextElideMode.ElideMiddle


class _SplitChoice(QStyledItemDelegate):
    """Edits a split with a combo box."""

    def createEditor(self, parent: QWidget | None, _option: QStyleOptionViewItem, _index: QModelIndex) -> QWidget:
        """Return a combo box that writes its choice at once."""
        combo = QComboBox(parent)
        combo.addItems(_SPLITS)
        combo.activated.connect(lambda _i: self.commitData.emit(combo))
        combo.activated.connect(lambda _i: self.closeEditor.emit(combo))
        return combo

    def setEditorData(self, editor: Any, index: QModelIndex) -> None:
        """Show the split of the cell."""
        editor.setCurrentText(index.data())
        editor.showPopup()

    def setModelData(self, editor: Any, model: Any, index: QModelIndex) -> None:
        """Write the choice to the cell."""
        model.setData(index, editor.currentText())


class ImageTable(SortedTable):
    """The table of images; a row is always a place in the labelling, however the table is sorted and filtered.

    Signals
    -------
    chosen
        Other rows are selected, or another row is the current one.
    """

    chosen = Signal()

    def __init__(self, images: ImagesModel) -> None:
        self.images = images
        self._label_filter = _LabelFilter(images)
        super().__init__(self._label_filter)
        self._label_filter.setParent(self)
        self.setEditTriggers(QAbstractItemView.EditTrigger.DoubleClicked | QAbstractItemView.EditTrigger.EditKeyPressed)
        self.setItemDelegateForColumn(SPLIT, _SplitChoice(self))
        self.setIconSize(QSize(ICON_SIDE, ICON_SIDE))
        there(self.verticalHeader()).setDefaultSectionSize(ICON_SIDE + 4)
        self.setVerticalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        self.setColumnHidden(NEXT, True)
        self.setItemDelegateForColumn(IMAGE, _ElidedInMiddle(self))
        for column, width in ((IMAGE, 124), (LABEL, 116), (GROUP, 48), (SPLIT, 40)):
            self.setColumnWidth(column, width)
        self.setMinimumHeight(3 * (ICON_SIDE + 4))
        self._chosen_rows = there(self.selectionModel())
        self._chosen_rows.currentRowChanged.connect(lambda *_: self.chosen.emit())
        self._chosen_rows.selectionChanged.connect(lambda *_: self.chosen.emit())

    def show_only(self, label: str) -> None:
        """Show the images of one class, those without a label (`UNLABELLED`), or all (`ALL`)."""
        self._label_filter.wanted = label
        self._label_filter.invalidate()

    def source_row(self, index: QModelIndex) -> int:
        """Return the row of the labelling."""
        return int(self._label_filter.mapToSource(self.proxy.mapToSource(index)).row())

    def view_index(self, row: int) -> QModelIndex:
        """Return the index of a row of the labelling in the table; an invalid one if the row is filtered out."""
        return self.proxy.mapFromSource(self._label_filter.mapFromSource(self.images.index(row, 0)))

    def rows(self) -> list[int]:
        """Return the selected rows."""
        return sorted({self.source_row(index) for index in self._chosen_rows.selectedRows()})

    def current_row(self) -> int:
        """Return the current row; -1 if there is none."""
        return self.source_row(self.currentIndex()) if self.currentIndex().isValid() else -1

    def select(self, rows: Sequence[int]) -> None:
        """Select those of the rows that the filters let through, and scroll to the first of them."""
        indices = [index for row in rows if (index := self.view_index(row)).isValid()]
        self.clearSelection()
        if not indices:
            self.setCurrentIndex(QModelIndex())
            return
        self.setCurrentIndex(indices[0])
        flags = QItemSelectionModel.SelectionFlag.Select | QItemSelectionModel.SelectionFlag.Rows
        for index in indices:
            self._chosen_rows.select(index, flags)
        self.scrollTo(indices[0])

    def next_unlabelled(self, rows: Sequence[int]) -> int | None:
        """Return the next row without a label after the current row, in the order of the table; none of `rows`."""
        count, start, passed = self.proxy.rowCount(), self.currentIndex().row() + 1, set(rows)
        for step in range(count):
            row = self.source_row(self.proxy.index((start + step) % count, 0))
            if row not in passed and not self.images.images[row].labels:
                return row
        return None

    def show_ranks(self, order: Sequence[int]) -> None:
        """Sort by the order in which to label images next."""
        self.images.rank(order)
        self.sortByColumn(NEXT, Qt.SortOrder.AscendingOrder)
        self.scrollToTop()


def filter_choices(counts: Mapping[str, int]) -> list[tuple[str, str]]:
    """Return the choices to filter by, as pairs of a text and a value for `show_only`."""
    return [("all images", ALL), ("without a label", UNLABELLED), *((name, name) for name in counts)]
