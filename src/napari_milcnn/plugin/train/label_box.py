"""The first tab of the Train dock: open images, define classes, and label each image."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari.layers import Image
from napari.viewer import Viewer
from qtpy.QtCore import QModelIndex, QSignalBlocker, Qt, Signal
from qtpy.QtGui import QKeySequence
from qtpy.QtWidgets import (
    QApplication,
    QCheckBox,
    QFileDialog,
    QLabel,
    QLineEdit,
    QListWidget,
    QListWidgetItem,
    QMainWindow,
    QMenu,
    QProgressBar,
    QPushButton,
    QShortcut,
    QSizePolicy,
    QWidget,
)

from napari_milcnn.delimited import TABLE_SUFFIXES
from napari_milcnn.errors import MilcnnError
from napari_milcnn.images.paths import image_name, is_zarr
from napari_milcnn.plugin.current_model import current
from napari_milcnn.plugin.layers_to_image import (
    LayerImage,
    file_behind,
    group_layers,
    open_layers,
    suggest,
)
from napari_milcnn.plugin.qt.forms import (
    ERROR,
    WARNING,
    NarrowComboBox,
    Note,
    connect_while_alive,
    dropped_paths,
    heading,
    page_layout,
    row,
    vertical_layout,
)
from napari_milcnn.plugin.qt.job import Ending, Job
from napari_milcnn.plugin.qt.tables import filter_field
from napari_milcnn.plugin.results_to_layers import OURS, limits_of
from napari_milcnn.plugin.train.class_box import KEYS, ClassBox
from napari_milcnn.plugin.train.image_layers import ImageLayers, Limits
from napari_milcnn.plugin.train.label_table import ALL, GROUP, ImagesModel, ImageTable, filter_choices

if TYPE_CHECKING:
    from napari_milcnn.images.stack import ImageStack
    from napari_milcnn.labels.checks import Finding
    from napari_milcnn.labels.labelling import Labelling
    from napari_milcnn.labels.ranking import Ranking
    from napari_milcnn.progress import Progress, Steps

_TABLES = "Tables (*.csv *.tsv *.txt)"
_NOTHING_OPEN = (
    "Open images to label, or drop them here: a folder of images, a folder with one folder per class, a labels.csv, or "
    "an OME-Zarr plate. You can also select image layers and click From layers."
)
_NO_CLASS = "Add a class for each phenotype: type its name under Classes and press Enter."
_NO_LABEL = (
    "Select an image and press the number of its class (1 to 9). Press 0 to clear the label; Shift+number adds a "
    "second label."
)
_NO_MODEL = "What next needs a model. Label a few images of each class, train a first model, then try again."


class LabelBox(QWidget):
    """Open images, label them with number keys, and find out which to label next.

    Parameters
    ----------
    viewer : Viewer
        Shows the image of the current row.

    Signals
    -------
    changed
        A labelling was opened or changed.
    """

    changed = Signal()

    def __init__(self, viewer: Viewer) -> None:
        super().__init__()
        self.viewer = viewer
        self.labelling: Labelling | None = None
        self.image_layers = ImageLayers(viewer)
        self.findings: tuple[Finding, ...] = ()
        self._job: Job | None = None
        self._view_job: Job | None = None
        self._training = self._quiet = False
        self._keys: list[QShortcut] = []
        self._make_parts()
        self._lay_out()
        self._connect()
        self._refresh()

    def _make_parts(self) -> None:
        self.open_button, self.layers_button = QPushButton("Open folder or table"), QPushButton("From layers")
        menu = QMenu(self.open_button)
        self.open_actions = {
            text: menu.addAction(text) for text in ("Folder…", "Table…", "Images…", "Plate with layout table…")
        }
        self.open_button.setMenu(menu)
        self.layers_button.setToolTip(
            "Label the selected image layers. Layers of one file are the channels of one image; every other layer is "
            "an image of its own. Layers without a file are saved to a folder first"
        )
        self.planes = QCheckBox("label each plane")
        self.planes.setToolTip(
            "Give each time point, z slice and position of a stack its own label; set this before you open the images"
        )
        self.axes = QLineEdit()
        self.axes.setPlaceholderText("axes")
        self.axes.setMaxLength(8)
        self.axes.setToolTip(
            "For files that do not state their axes: type one letter for each axis, such as CYX or TZYX, then Enter"
        )
        self.hint, self.message, self.check_result = Note(), Note(), Note()
        self.class_box = ClassBox()
        self.images = ImagesModel(self)
        self.table = ImageTable(self.images)
        self.filter, self.shown = filter_field(), NarrowComboBox()
        self.shown.setAccessibleName("Images to show")
        self.undo_button, self.redo_button = QPushButton("Undo"), QPushButton("Redo")
        self.undo_button.setToolTip("Undo the last change (Ctrl+Z)")
        self.redo_button.setToolTip("Redo the change (Ctrl+Shift+Z)")
        self.count = QLabel()
        self.open_next = QCheckBox("go to next image")
        self.open_next.setChecked(True)
        self.open_next.setToolTip("After an image is labelled, show the next one without a label")
        self.next_button, self.check_button = QPushButton("What next"), QPushButton("Check")
        self.next_button.setToolTip("Sort the images: those whose labels would help the model most come first")
        self.check_button.setToolTip(
            "Look for wrong labels, identical images with different labels, and groups that distort the validation"
        )
        self.cancel_button = QPushButton("Cancel")
        self.progress = QProgressBar()
        self.progress.setRange(0, 1000)
        self.list = QListWidget()
        self.list.setWordWrap(True)
        self.list.setAccessibleName("What the check found")
        self.list.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.list.setMaximumHeight(150)
        self.list.setSizeAdjustPolicy(QListWidget.SizeAdjustPolicy.AdjustToContents)
        self.list.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Maximum)
        self.setAcceptDrops(True)

    def _lay_out(self) -> None:
        layout = page_layout(self)
        layout.addWidget(heading("Images"))
        layout.addLayout(row(self.open_button, self.layers_button, stretch=0))
        layout.addLayout(row(self.planes, self.axes, stretch=1))
        layout.addWidget(self.hint)
        self._after = QWidget()
        after = vertical_layout(self._after, 5)
        after.addWidget(self.class_box)
        after.addWidget(heading("Labels"))
        after.addLayout(row(self.filter, self.shown, stretch=1))
        after.addWidget(self.table, 1)
        after.addLayout(row(self.count, self.open_next, stretch=0))
        after.addLayout(row(self.undo_button, self.redo_button, self.next_button, self.check_button))
        layout.addWidget(self._after, 1)
        self._running = QWidget()
        vertical_layout(self._running).addLayout(row(self.progress, self.cancel_button, stretch=0))
        layout.addWidget(self._running)
        layout.addWidget(self.message)
        layout.addWidget(self.check_result)
        layout.addWidget(self.list)
        layout.addStretch()
        self.setMinimumWidth(310)

    def _connect(self) -> None:
        for text, then in zip(self.open_actions, (self._on_folder, self._on_table, self._on_images, self._on_plate),
                              strict=True):  # fmt: skip
            self.open_actions[text].triggered.connect(then)
        self.axes.returnPressed.connect(self._on_axes)
        self.layers_button.clicked.connect(self._on_layers)
        self.class_box.clicked.connect(self.label_selected)
        self.class_box.added.connect(self._on_added)
        self.class_box.renamed.connect(
            lambda old, new: self._change(lambda labelling: labelling.rename_class(old, new))
        )
        self.class_box.recoloured.connect(
            lambda name, colour: self._change(lambda labelling: labelling.recolour_class(name, colour))
        )
        self.class_box.removed.connect(lambda name: self._change(lambda labelling: labelling.remove_class(name)))
        self.images.edited.connect(self._on_edited)
        self.table.row_shown.connect(self._on_row)
        self.filter.textChanged.connect(self.table.proxy.setFilterFixedString)
        self.shown.activated.connect(self._on_shown)
        self.undo_button.clicked.connect(self.undo)
        self.redo_button.clicked.connect(self.redo)
        self.next_button.clicked.connect(self.rank)
        self.check_button.clicked.connect(self.check)
        self.cancel_button.clicked.connect(self.cancel)
        self.list.itemClicked.connect(self._on_finding)
        self.list.itemActivated.connect(self._on_finding)
        self._bind(self)
        QApplication.instance().focusChanged.connect(self._on_focus)
        connect_while_alive(current.changed, self._on_model, self)

    # State

    @property
    def busy(self) -> bool:
        """Whether images are being opened, ranked, checked or shown."""
        return self._job is not None or self._view_job is not None

    def set_enabled_while_training(self, training: bool) -> None:
        """Lock the labels while a training runs; images can still be shown."""
        self._training = training
        self._refresh()

    def _say(self, text: str, colour: str = "") -> None:
        self.message.say(text, colour)

    def _on_model(self, _model: Any = None) -> None:
        self._refresh()

    def _refresh(self) -> None:
        """Show the labelling, and enable the controls that can be used now."""
        labelling, free = self.labelling, self._job is None and not self._training
        self._after.setVisible(labelling is not None)
        self._running.setVisible(self._job is not None)
        self.list.setVisible(bool(self.findings))
        self.hint.say(self._hint())
        for part in (self.open_button, self.layers_button, self.planes, self.axes, self.next_button, self.check_button):
            part.setEnabled(free)
        self.class_box.setEnabled(not self._training)
        self.images.editable = not self._training
        self.undo_button.setEnabled(labelling is not None and labelling.can_undo and not self._training)
        self.redo_button.setEnabled(labelling is not None and labelling.can_redo and not self._training)
        if labelling is not None:
            self.class_box.show_classes(labelling.classes, labelling.counts(), labelling.warnings())
            self.count.setText(f"{len(labelling.labelled())} of {len(labelling.images)} labelled")
            self._fill_choices(labelling)

    def _hint(self) -> str:
        if self.labelling is None:
            return "" if self._job is not None else _NOTHING_OPEN
        if not self.labelling.classes:
            return _NO_CLASS
        return "" if self.labelling.labelled() else _NO_LABEL

    def _fill_choices(self, labelling: Labelling) -> None:
        """Offer the classes to filter by; the choice stays if it still exists."""
        wanted, before = filter_choices(labelling.counts()), self.shown.currentData()
        if [(self.shown.itemText(i), self.shown.itemData(i)) for i in range(self.shown.count())] == wanted:
            return
        with QSignalBlocker(self.shown):
            self.shown.clear()
            for text, data in wanted:
                self.shown.addItem(text, data)
            self.shown.setCurrentIndex(max(0, self.shown.findData(before)))
        self._on_shown()

    def _on_shown(self, _index: int = 0) -> None:
        self.table.show_only(self.shown.currentData() or ALL)

    # Open

    def open(self, paths: Sequence[Path], layout: Path | None = None) -> None:
        """Open a folder, a table, a plate or images beside the window; `changed` is emitted when they are open."""
        planes, axes = self.planes.isChecked(), self.axes.text().strip().upper() or None

        def steps() -> Iterator[Labelling]:
            from napari_milcnn.images.open import ImageReading
            from napari_milcnn.labels.labelling import open_labelling

            yield open_labelling(list(paths), ImageReading(axes), layout, planes)

        self._work(steps, self._opened, self._end, "opening…")

    def _opened(self, labelling: Labelling) -> None:
        self.labelling, self.findings = labelling, ()
        self.list.clear()
        self.check_result.say("")
        self.filter.clear()
        self.shown.setCurrentIndex(0)
        self.axes.setText(labelling.reading.axes or "")
        self._quietly(lambda: self.images.open(labelling))
        self._refresh()
        self._say(f"Labels are saved in {labelling.path} after every change.")
        first = next(iter(labelling.unlabelled()), 0)
        self.table.select([first])
        if labelling.classes:
            self.table.setFocus()
        else:
            self.class_box.new.setFocus()
        self.changed.emit()

    def _on_axes(self) -> None:
        """Read the open images again, with the typed axes."""
        labelling, rows = self.labelling, self.table.rows()
        if labelling is not None and self._change(lambda labelling: labelling.read_as(self.axes.text())):
            self._quietly(lambda: self.images.open(labelling))
            self.table.select(rows)

    def _on_folder(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, "Open a folder of images")
        if folder:
            self.open([Path(folder)])

    def _on_table(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self, "Open a table of labels", "", _TABLES)
        if path:
            self.open([Path(path)])

    def _on_images(self) -> None:
        paths, _ = QFileDialog.getOpenFileNames(self, "Open images")
        if paths:
            self.open([Path(path) for path in paths])

    def _on_plate(self) -> None:
        plate = QFileDialog.getExistingDirectory(self, "Open an OME-Zarr plate")
        if not plate:
            return
        layout, _ = QFileDialog.getOpenFileName(self, "Open the layout table: wells and labels", "", _TABLES)
        if layout:
            self.open([Path(plate)], Path(layout))

    def dragEnterEvent(self, event: Any) -> None:
        """Accept files."""
        if event.mimeData().hasUrls() and self.open_button.isEnabled():
            event.acceptProposedAction()

    def dropEvent(self, event: Any) -> None:
        """Open the dropped files; a table dropped with a plate is its layout."""
        paths = dropped_paths(event)
        tables = [path for path in paths if path.suffix.lower() in TABLE_SUFFIXES]
        plates = [path for path in paths if is_zarr(path)]
        if len(tables) == len(plates) == 1 and len(paths) == 2:
            self.open(plates, tables[0])
        elif paths:
            self.open(paths)

    def _on_layers(self) -> None:
        """Open the files behind the selected layers; layers without a file are saved first."""
        selected = [layer for layer in self.viewer.layers if layer in self.viewer.layers.selection]
        layers = [layer for layer in selected if isinstance(layer, Image) and OURS not in layer.metadata]
        if not layers:
            self._say("Select one or more image layers in the layer list first.", WARNING)
            return
        try:
            sources = [open_layers(group, suggest(group)) for group in group_layers(layers)]
            files = [_file_of_layers(source) for source in sources]
        except MilcnnError as error:
            self._say(str(error), ERROR)
            return
        folder = ""
        if None in files:
            folder = QFileDialog.getExistingDirectory(self, "Choose a folder in which to save layers without a file")
            if not folder:
                return
        self._open_layers(sources, files, Path(folder))

    def _open_layers(self, sources: Sequence[LayerImage], files: Sequence[Path | None], folder: Path) -> None:
        planes = self.planes.isChecked()

        def steps() -> Iterator[Labelling | float]:
            from napari_milcnn.labels.labelling import open_labelling
            from napari_milcnn.results.write import write_plane

            paths = [file for file in files if file is not None]
            written = [source.image for source, file in zip(sources, files, strict=True) if file is None]
            total, done = sum(len(image.planes) for image in written), 0
            for image in written:
                for plane in range(len(image.planes)):
                    name = f"{image_name(Path(image.name))} {image.plane_name(plane)}".strip().replace("/", "-")
                    paths.append(folder / f"{name.replace(' ', '_')}.ome.tif")
                    write_plane(paths[-1], image, plane)
                    done += 1
                    yield done / total
            yield open_labelling(paths, planes=planes)

        def on_step(step: Any) -> None:
            if isinstance(step, float):
                self._show_share(step, "saving layers")
            else:
                self._opened(step)

        self._work(steps, on_step, self._end, "opening…")

    # Label

    def label_selected(self, name: str, add: bool = False) -> None:
        """Label the selected images, then show the next image without a label.

        With `add` the label is added to those that the images have, or removed again if all of them have it.
        """
        rows = self.table.rows()
        if not rows:
            self._say("Select an image in the table first.", WARNING)
            return
        following = self.table.next_unlabelled(rows) if self.open_next.isChecked() and not add else None
        all_have_label = self.labelling is not None and all(name in self.labelling.images[one].labels for one in rows)
        if add and all_have_label:
            done = self._change(lambda labelling: labelling.unlabel(rows, name))
        else:
            done = self._change(lambda labelling: labelling.label(rows, name, add))
        if done and following is not None:
            self.table.select([following])
        elif done and self.open_next.isChecked() and not add:
            self._say("Every image in the table has a label.")

    def press(self, number: int, add: bool = False) -> None:
        """Label the selected images with the class of a number key; 0 clears their labels."""
        rows = self.table.rows()
        if self.labelling is None:
            return
        if number == 0:
            if rows:
                self._change(lambda labelling: labelling.unlabel(rows))
        elif number <= len(self.labelling.classes):
            self.label_selected(self.labelling.classes[number - 1].name, add)
        else:
            self._say(f"There is no class {number} yet.", WARNING)

    def undo(self) -> None:
        """Undo the last change."""
        self._change(lambda labelling: labelling.undo())

    def redo(self) -> None:
        """Redo the change that was undone last."""
        self._change(lambda labelling: labelling.redo())

    def _on_added(self, name: str) -> None:
        if self._change(lambda labelling: labelling.add_class(name)):
            self.class_box.new.clear()

    def _on_edited(self, edited: int, column: int, text: str) -> None:
        """Set a group or a split, in all selected rows if the edited row is one of them."""
        rows = self.table.rows()
        rows = rows if edited in rows else [edited]
        if column == GROUP:
            self._change(lambda labelling: labelling.set_group(rows, text))
        else:
            self._change(lambda labelling: labelling.set_split(rows, text or None))

    def _change(self, change: Callable[[Labelling], None]) -> bool:
        """Change the labelling and show the change; show why it was refused or could not be saved."""
        labelling = self.labelling
        if labelling is None or self._training:
            if self._training:
                self._say("Labels cannot be changed while a training runs.", WARNING)
            return False
        failed = ""
        try:
            change(labelling)
        except MilcnnError as error:
            failed = str(error)
        self._say(failed, ERROR)
        self._quietly(lambda: self.images.refresh(labelling))
        self._refresh()
        self.changed.emit()
        return not failed

    def _quietly(self, change: Callable[[], None]) -> None:
        """Change rows without opening the image that becomes current; the selection stays, or is cleared."""
        rows, before = self.table.rows(), self.table.current_row()
        self._quiet = True
        change()
        if self.table.current_row() != before or self.table.rows() != rows:
            self.table.clearSelection()
            self.table.setCurrentIndex(QModelIndex())
        self._quiet = False

    # Keys

    def _bind(self, widget: QWidget) -> list[QShortcut]:
        """Bind the number keys, undo and redo while a widget has the focus."""
        pairs: list[tuple[str, Callable[[], None]]] = [("Ctrl+Z", self.undo), ("Ctrl+Shift+Z", self.redo)]
        for number in range(KEYS + 1):
            pairs.append((str(number), partial(self.press, number)))
            pairs.append((f"Shift+{number}", partial(self.press, number, True)))
        made = []
        for keys, then in pairs:
            shortcut = QShortcut(QKeySequence(keys), widget)
            shortcut.setContext(Qt.ShortcutContext.WidgetWithChildrenShortcut)
            shortcut.activated.connect(then)
            made.append(shortcut)
        return made

    def _on_focus(self, _before: QWidget | None, now: QWidget | None) -> None:
        """Bind the keys in the canvas as well, from the first use of this tab until another dock is used."""
        canvas = self._canvas()
        if now is None or canvas is None or canvas.isAncestorOf(now):
            return
        if self.isAncestorOf(now):
            self._keys = self._keys or self._bind(canvas)
        else:
            self._release_keys()

    def _canvas(self) -> QWidget | None:
        """Return the central widget of the viewer's window, which holds the canvas and no dock."""
        window: QWidget | None = self
        while window is not None and not isinstance(window, QMainWindow):
            window = window.parentWidget()
        return window.centralWidget() if window is not None else None

    def _release_keys(self) -> None:
        for shortcut in self._keys:
            shortcut.setEnabled(False)
            shortcut.deleteLater()
        self._keys = []

    def hideEvent(self, event: Any) -> None:
        """Release the keys when the tab or the dock is hidden."""
        self._release_keys()
        super().hideEvent(event)

    # Showing images

    def _on_row(self, shown: int) -> None:
        if shown >= 0 and not self._quiet:
            self._show_current()

    def _show_current(self) -> None:
        """Open the image of the current row beside the window; of several requests only the last is served."""
        labelling, at = self.labelling, self.table.current_row()
        if labelling is None or at < 0 or self._view_job is not None:
            return
        table, wanted = labelling.everything(), labelling.images[at]

        def steps() -> Iterator[tuple[ImageStack, Limits]]:
            image = table.open(wanted)
            yield image, limits_of(image)

        def on_step(step: tuple[ImageStack, Limits]) -> None:
            if self.labelling is labelling and self.table.current_row() == at:
                self.image_layers.show(step[0], wanted.plane, step[1])

        def on_end(ending: Ending) -> None:
            self._view_job = None
            if ending.error:
                self.image_layers.clear()
                self._say(ending.error, ERROR)
            if self.labelling is not labelling or self.table.current_row() != at:
                self._show_current()

        self._view_job = Job(steps, self, on_step, on_end)

    # Suggestions and checks

    def _work(
        self, steps: Callable[[], Iterator[Any]], on_step: Callable[[Any], None], on_end: Callable[[Ending], None],
        what: str,
    ) -> None:  # fmt: skip
        if self._job is not None:
            return
        self._say("")
        self.progress.setValue(0)
        self.progress.setFormat(what)
        self.cancel_button.setEnabled(True)
        self._job = Job(steps, self, on_step, on_end)
        self._refresh()

    def _show_share(self, share: float, what: str) -> None:
        self.progress.setValue(round(1000 * share))
        self.progress.setFormat(f"{what} {share:.0%}")

    def _end(self, ending: Ending) -> None:
        self._job = None
        if ending.error:
            self._say(ending.error, ERROR)
        elif ending.stopped:
            self._say("Stopped.", WARNING)
        self._refresh()

    def cancel(self) -> None:
        """Stop the job that runs."""
        if self._job is not None:
            self._job.stop()
            self.cancel_button.setEnabled(False)

    def rank(self) -> None:
        """Sort the images without a label by how much the current model would learn from them."""
        labelling, model = self.labelling, current.model
        if labelling is None or self._job is not None:
            return
        if model is None:
            self._say(_NO_MODEL, WARNING)
            return
        if not labelling.unlabelled():
            self._say("Every image has a label.")
            return
        table, rows, known = labelling.everything(), labelling.unlabelled(), labelling.labelled()

        def steps() -> Steps[Ranking]:
            from napari_milcnn.labels.ranking import rank_images

            yield from rank_images(model, table, rows, known=known)

        def on_step(step: Progress[Ranking]) -> None:
            self._show_share(step.fraction, "ranking images")
            if step.result is not None and self.labelling is labelling:
                self._show_order(step.result.order, step.result.errors)

        self._work(steps, on_step, self._end, "preparing…")

    def _show_order(self, order: Sequence[int], errors: Any) -> None:
        self.filter.clear()
        self.shown.setCurrentIndex(0)
        self._on_shown()
        self.table.show_ranks(order)
        self.table.select(order[:1])
        self.table.setFocus()
        unread = f" {len(errors)} could not be read and come last: {next(iter(errors.values()))}" if errors else ""
        self._say(f"Images are sorted: label those at the top next.{unread}", WARNING if errors else "")

    def check(self) -> None:
        """Look for labels that may be wrong."""
        labelling, model = self.labelling, current.model
        if labelling is None or self._job is not None:
            return
        table = labelling.everything()

        def steps() -> Steps[tuple[Finding, ...]]:
            from napari_milcnn.labels.checks import check_labels

            yield from check_labels(table, model)

        def on_step(step: Progress[tuple[Finding, ...]]) -> None:
            self._show_share(step.fraction, "checking")
            if step.result is not None and self.labelling is labelling:
                self._show_findings(step.result, bool(model))

        self._work(steps, on_step, self._end, "checking…")

    def _show_findings(self, findings: tuple[Finding, ...], with_model: bool) -> None:
        self.findings = findings
        self.list.clear()
        for finding in findings:
            self.list.addItem(QListWidgetItem(f"{finding.sentence}."))
        possible = f"{len(findings)} possible problem{'s'[: len(findings) != 1]}"
        count = f"{possible}; click one to select its images." if findings else "No problems found."
        limits = "" if with_model else " Without a model, only identical images and groups were checked."
        self.check_result.say(count + limits)

    def _on_finding(self, item: QListWidgetItem) -> None:
        """Select the images of a finding."""
        self.filter.clear()
        self.shown.setCurrentIndex(0)
        self._on_shown()
        self.table.select(self.findings[self.list.row(item)].rows)


def _file_of_layers(source: LayerImage) -> Path | None:
    """Return the file that holds the same image as layers and states its own axes; None if there is none."""
    path, reading = file_behind(source, "planes")
    return path if reading.axes is None and reading.series is None else None
