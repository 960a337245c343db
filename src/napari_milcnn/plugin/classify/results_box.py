"""The sections of the Classify dock for results: scores of the plane in view, tables of planes and objects; export."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from qtpy.QtCore import QModelIndex, QRectF, Qt, Signal
from qtpy.QtGui import QColor, QPainter
from qtpy.QtWidgets import QCheckBox, QFileDialog, QLineEdit, QPushButton, QTabWidget, QWidget

from napari_milcnn.figures.palette import class_colours
from napari_milcnn.options import EXPORTED
from napari_milcnn.plugin.classify.records import ImageRecord, ImageState
from napari_milcnn.plugin.qt.forms import (
    WARNING,
    Note,
    browse_button,
    plain_text,
    row,
    there,
    vertical_layout,
)
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

_BAR_HEIGHT, _MOST_BARS = 16, 5
_OBJECT_WIDTHS = (92, 66, 98, 48, 48, 42, 42)
"""Widths of the columns class, area, mean_evidence, score, shown, plane and label, in px."""
_MOST_COUNTED = 3
"""Classes in the line of cells; its tool tip has all of them."""
COUNTED = "Cells of the plane in view, those that are not shown in the masks too"
_PLANES_TIP = (
    "One row for each classified plane; click a row to go to it. score: of the top class, from 0 to 1, all classes "
    "together 1. unlike: up to 1 the plane is like the training images, above 1 it is not. margin: how far the score "
    "is above that of the second class; small margins are doubtful."
)
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
        self.setToolTip(plain_text("\n".join(f"{name} {score:.3f}" for name, score, _ in rows)))
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
    """One row for each classified plane, and one for each image that waits or failed.

    Parameters
    ----------
    records : mapping
        The images by their keys; it is read whenever a cell is drawn.
    """

    def __init__(self, parent: QWidget, records: Mapping[int, ImageRecord]) -> None:
        super().__init__(parent)
        self._records = records
        self.rows: list[tuple[int, int | None]] = []

    def put(self, key: int, plane: int) -> None:
        """Add or update the row of a plane; the first plane of an image replaces the row of the waiting image."""
        for found in ((key, plane), (key, None)):
            if found in self.rows:
                at = self.rows.index(found)
                self.rows[at] = (key, plane)
                self.dataChanged.emit(self.index(at, 0), self.index(at, self.columnCount() - 1))
                return
        self.beginInsertRows(QModelIndex(), len(self.rows), len(self.rows))
        self.rows.append((key, plane))
        self.endInsertRows()

    def update(self, key: int) -> None:
        """Show what is known of an image now; an image that is gone has no rows."""
        record = self._records.get(key)
        there = [plane for one, plane in self.rows if one == key]
        planes = sorted(record.planes) if record is not None else []
        wanted: list[int | None] = [*planes] or ([None] if record is not None else [])
        if set(there) == set(wanted):
            self.dataChanged.emit(self.index(0, 0), self.index(len(self.rows) - 1, self.columnCount() - 1))
            return
        place = next((at for at, (one, _) in enumerate(self.rows) if one == key), len(self.rows))
        self.beginResetModel()
        self.rows = [one for one in self.rows if one[0] != key]
        self.rows[place:place] = [(key, plane) for plane in wanted]
        self.endResetModel()

    def titles(self) -> tuple[str, ...]:
        """Return the titles of the columns."""
        return "image", "plane", "top class", "score", "unlike", "margin", "model"

    def rowCount(self, _parent: QModelIndex | None = None) -> int:
        """Count the rows."""
        return len(self.rows)

    def data(self, index: QModelIndex, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """Return text, sort value, tool tip, colour of a cell."""
        key, plane = self.rows[index.row()]
        image, column = self._records[key], index.column()
        model = image.model.name if image.model is not None else ""
        if plane is None:
            text = (image.name, "", image.state.value, "", "", "", model)[column]
            if role == Qt.ItemDataRole.ToolTipRole:
                return plain_text(image.error or f"{image.name}: {image.state.value}")
            return text if role in (Qt.ItemDataRole.DisplayRole, SORT_ROLE) else None
        prediction, name = image.planes[plane].prediction, image.plane_name(plane)
        top, score, margin = prediction.top[0], float(prediction.scores.max()), float(prediction.margin[0])
        unlike = float(prediction.unlike[0])
        if role == Qt.ItemDataRole.DisplayRole:
            texts = (image.name, name, top or NOTHING, f"{score:.3f}", _unlike_text(unlike), f"{margin:.3f}", model)
            return texts[column]
        if role == SORT_ROLE:
            return (image.name, plane, top, score, unlike, margin, model)[column]
        if role == Qt.ItemDataRole.ToolTipRole:
            return plain_text(_plane_tip(image, plane))
        if not top:
            return None
        colour = class_colours(prediction.classes)[top]
        if role == Qt.ItemDataRole.DecorationRole and column == 2:
            return swatch(colour)
        return (min(score, 1.0), colour) if role == BAR_ROLE and column == 3 else None


def _plane_tip(image: ImageRecord, plane: int) -> str:
    prediction, name = image.planes[plane].prediction, f"{image.name} {image.plane_name(plane)}".rstrip()
    whole = image.state in (ImageState.DONE, ImageState.RUNNING)
    state = "" if whole else f" ({image.state.value}: not all planes were classified)"
    model = f", found by {image.model.name} ({image.model.digest[:8]})" if image.model is not None else ""
    said = "; ".join(prediction.unlike_sentences())
    if said:
        return f"{name}: {said}{state}"
    score, margin = float(prediction.scores.max()), float(prediction.margin[0])
    return f"{name}: {prediction.top[0]} {score:.3f}, {margin:.3f} above the second class{model}{state}"


def _unlike_text(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.2f}"


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


def _why_empty(image: ImageRecord | None, plane: int | None) -> str:
    if image is None or not image.planes:
        return "This image is not classified yet."
    return f"The plane in view{'' if plane is None else ' ' + image.plane_name(plane)} is not classified yet."


class ResultsBox(QWidget):
    """Shows scores as bars, a table of planes and a table of objects.

    Signals
    -------
    plane_picked : int, int
        A row of the table of planes was clicked: the key of its image, and its plane; -1 before it is classified.
    object_picked : int
        A row of the table of objects was clicked; the number of the row in `objects.frame`.
    save_requested : str
        Save the table in view as CSV under this path.
    masks_requested
        Draw the masks of planes that are unlike the training images too.
    remove_requested : set of int
        Remove the images (keys) whose rows are selected.
    """

    plane_picked = Signal(int, int)
    object_picked = Signal(int)
    save_requested = Signal(str)
    masks_requested = Signal()
    remove_requested = Signal(object)

    def __init__(self, records: Mapping[int, ImageRecord]) -> None:
        super().__init__()
        self.bars, self.counts = ScoreBars(), Note()
        self.unlike = UnlikeBand()
        self.masks_button = QPushButton("Show its masks anyway")
        self.masks_button.setToolTip(
            "They are hidden because the plane is unlike the training images, and may be wrong"
        )
        self.masks_button.hide()
        self.empty, self.model = Note(), Note()
        self.planes = PlanesModel(self, records)
        self.plane_table = SortedTable(self.planes)
        self.plane_table.setItemDelegateForColumn(3, BarDelegate(self.plane_table))
        self.objects = FrameModel(self)
        self._shown: pd.DataFrame | None = None
        self.object_table = SortedTable(self.objects)
        self.filter = filter_field()
        self.copy_button, self.save_button = QPushButton("Copy"), QPushButton("Save CSV…")
        self.remove_button, self.undo_button = QPushButton("Remove"), QPushButton("Undo")
        self.previous_button, self.next_button = QPushButton("‹ image"), QPushButton("image ›")
        self.previous_button.setToolTip("Show the image before (Alt+Left)")
        self.next_button.setToolTip("Show the next image (Alt+Right)")
        self.copy_button.setToolTip("Copy the selected rows, or all of them, for a spreadsheet")
        self.save_button.setToolTip("Save the table in view as CSV")
        self.filter.setToolTip("Show only rows that have this text")
        self.filter.setAccessibleName("Filter")
        self.plane_table.setToolTip(_PLANES_TIP)
        self.plane_table.setTextElideMode(Qt.TextElideMode.ElideMiddle)  # names of images differ at their ends
        self.plane_table.setAccessibleName("Planes")
        self.object_table.setToolTip("One row for each cell; click a row to go to the cell")
        self.object_table.setAccessibleName("Objects")
        self.remove_button.setToolTip("Remove what was found in the images of the selected rows; Undo brings it back")
        self.tabs = QTabWidget()
        self._lay_out()
        self.masks_button.clicked.connect(self.masks_requested)
        self.filter.textChanged.connect(self._on_filter)
        self.copy_button.clicked.connect(lambda: self._table().copy())
        self.remove_button.clicked.connect(self._on_remove)
        self.save_button.clicked.connect(self._on_save)
        self.plane_table.clicked.connect(self._on_plane)
        self.plane_table.activated.connect(self._on_plane)
        self.object_table.clicked.connect(self._on_object)
        self.object_table.activated.connect(self._on_object)

    def _lay_out(self) -> None:
        layout = vertical_layout(self)
        layout.addWidget(self.empty)
        layout.addWidget(self.model)
        layout.addWidget(self.unlike)
        layout.addWidget(self.masks_button)
        layout.addWidget(self.bars)
        layout.addWidget(self.counts)
        self.tabs.addTab(self.plane_table, "Planes")
        self.tabs.addTab(self.object_table, "Objects")
        for column, width in enumerate((60, 38, 88, 44, 44)):
            self.plane_table.setColumnWidth(column, width)
        there(self.object_table.horizontalHeader()).setDefaultSectionSize(70)
        layout.addWidget(self.tabs)
        layout.addLayout(row(self.filter, self.copy_button, self.save_button, stretch=0))
        layout.addLayout(row(self.previous_button, self.next_button, self.remove_button, self.undo_button))

    def show_image(self, image: ImageRecord | None, plane: int | None, *, is_current: bool) -> None:
        """Show what was found in a plane of an image: scores, whether it resembles the training images, its cells."""
        found = image.planes.get(plane) if image is not None and plane is not None else None
        masks = found.masks if found is not None else None
        counts = masks.counts if masks is not None else {}
        self.bars.show_prediction(found.prediction if found is not None else None)
        self.counts.say(_counts_line(counts), "")
        self.counts.setToolTip(plain_text(f"{COUNTED}: {_counts_line(counts, None)}"))
        self.unlike.show_prediction(found.prediction if found is not None else None)
        hides = image is not None and plane is not None and image.hides_masks(plane)
        self.masks_button.setVisible(hides and masks is not None and not masks.shown.empty)
        self.empty.say(_why_empty(image, plane) if found is None else "")
        model = image.model.name if image is not None and image.model is not None else ""
        self.model.say("" if is_current else f"Found by {model}, which is not the current model.", WARNING)

    def show_objects(self, table: pd.DataFrame, classes: tuple[str, ...]) -> None:
        """Show the objects of the image in view."""
        if table is self._shown:
            return
        self._shown = table
        area = "area_um2" if "area_um2" in table and table["area_um2"].notna().any() else "area_px"
        first = [name for name in ("class", area, "mean_evidence", "score", "shown", "plane", "label") if name in table]
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

    def show_undo(self, action: str, undone: str) -> None:
        """Offer to undo the last action, and say how to do again what was undone; empty for none."""
        self.undo_button.setEnabled(bool(action))
        undo = f"Undo {action} (Ctrl+Z)" if action else "Nothing to undo (Ctrl+Z)"
        redo = f"; Ctrl+Shift+Z does {undone} again" if undone else ""
        self.undo_button.setToolTip(plain_text(undo + redo))

    def _on_remove(self) -> None:
        rows = {self.plane_table.source_row(index) for index in self.plane_table.selectedIndexes()}
        self.remove_requested.emit({self.planes.rows[number][0] for number in rows})

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


_PART_TIPS = {
    "masks": "Label image of the objects, NAME_labels.ome.tif",
    "maps": "Class maps, NAME_maps.ome.tif: where in the image the network sees each class",
    "tables": "predictions.csv with a row for each plane, objects.csv with a row for each object",
    "picture": "Overview picture, NAME_overview.png",
}


class ExportBox(QWidget):
    """Choose a folder and what to write there.

    Signals
    -------
    export_requested : Path, list of str
        Write these parts to this folder.
    """

    export_requested = Signal(object, object)

    def __init__(self) -> None:
        super().__init__()
        self.folder = QLineEdit()
        self.folder.setPlaceholderText("folder")
        self.folder.setToolTip("The folder that the files go to; other images may be exported to it, too")
        self.folder.setAccessibleName("Folder")
        self.browse = browse_button("Choose the folder")
        self.browse.setToolTip("Choose the folder")
        self.parts = {name: QCheckBox(name) for name in EXPORTED}
        self.button = QPushButton("Export")
        self.button.setToolTip("Also writes run.json, from which the command line can repeat this run")
        layout = vertical_layout(self)
        layout.addLayout(row(self.folder, self.browse, self.button, stretch=0))
        layout.addLayout(row(*self.parts.values()))
        for name, box in self.parts.items():
            box.setChecked(True)
            box.setToolTip(_PART_TIPS[name])
        self.browse.clicked.connect(self._on_browse)
        self.button.clicked.connect(self._on_export)
        self.folder.returnPressed.connect(self._on_export)

    def _on_browse(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, "Choose a folder to export to", self.folder.text())
        if folder:
            self.folder.setText(folder)

    def _on_export(self) -> None:
        if not self.folder.text().strip():
            self._on_browse()
        if self.folder.text().strip():
            chosen = [name for name, box in self.parts.items() if box.isChecked()]
            self.export_requested.emit(Path(self.folder.text().strip()).expanduser(), chosen)
