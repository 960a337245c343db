"""The first tab of the Train dock: it draws a `LabelSession`, and tells it what the user did."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari.layers import Layer
from napari.viewer import Viewer
from qtpy.QtCore import QSignalBlocker, Qt, Signal
from qtpy.QtGui import QKeySequence
from qtpy.QtWidgets import (
    QCheckBox,
    QLabel,
    QListWidget,
    QListWidgetItem,
    QMainWindow,
    QPushButton,
    QShortcut,
    QSizePolicy,
    QWidget,
)

from napari_milcnn.plugin.current_model import current
from napari_milcnn.plugin.qt.forms import (
    ERROR,
    WARNING,
    JobProgress,
    NarrowComboBox,
    Note,
    dropped_paths,
    heading,
    page_layout,
    row,
    there,
    vertical_layout,
)
from napari_milcnn.plugin.qt.job import SessionJobs
from napari_milcnn.plugin.qt.question import QuestionBox
from napari_milcnn.plugin.qt.tables import filter_field
from napari_milcnn.plugin.results_to_layers import Limits, add_layer, image_layers, remove
from napari_milcnn.plugin.train.class_box import ClassBox
from napari_milcnn.plugin.train.label_session import KEYS, LabelSession
from napari_milcnn.plugin.train.label_table import ALL, GROUP, ImagesModel, ImageTable, filter_choices
from napari_milcnn.plugin.train.open_box import OpenBox

if TYPE_CHECKING:
    from napari_milcnn.images.stack import ImageStack
    from napari_milcnn.labels.labelling import Labelling
    from napari_milcnn.plugin.results_to_layers import LayerData

_KEYS_OFF, _KEYS_ON = "Label with keys in the image", "Keys in the image label: on"
_ABOUT_KEYS = (
    "Let the number keys, Ctrl+Z and Ctrl+Shift+Z change labels while the image has the focus, too. While this is off, "
    "they do so only on this tab, and in the image they do what napari has them do"
)


class KeysButton(QPushButton):
    """Lets the number keys, undo and redo change labels in the image as well, for as long as it is on.

    Parameters
    ----------
    press : callable
        Labels the chosen images with the class of a number key; with True as a further label.
    undo, redo : callable
        Undo and redo a change.
    """

    def __init__(self, press: Callable[[int, bool], None], undo: Callable[[], None], redo: Callable[[], None]) -> None:
        super().__init__(_KEYS_OFF)
        self._press, self._undo, self._redo = press, undo, redo
        self._in_image: list[QShortcut] = []
        self.setCheckable(True)
        self.setToolTip(_ABOUT_KEYS)
        self.toggled.connect(self._on_toggled)

    def bind(self, widget: QWidget) -> list[QShortcut]:
        """Bind the keys while a widget, or what it holds, has the focus."""
        pairs: list[tuple[str, Callable[[], None]]] = [("Ctrl+Z", self._undo), ("Ctrl+Shift+Z", self._redo)]
        for number in range(KEYS + 1):
            pairs.append((str(number), partial(self._press, number, False)))
            pairs.append((f"Shift+{number}", partial(self._press, number, True)))
        made = []
        for text, then in pairs:
            shortcut = QShortcut(QKeySequence(text), widget)
            shortcut.setContext(Qt.ShortcutContext.WidgetWithChildrenShortcut)
            shortcut.activated.connect(then)
            made.append(shortcut)
        return made

    def _on_toggled(self, on: bool) -> None:
        for shortcut in self._in_image:
            shortcut.setEnabled(False)
            shortcut.deleteLater()
        canvas = self._canvas()
        self._in_image = self.bind(canvas) if on and canvas is not None else []
        self.setText(_KEYS_ON if on else _KEYS_OFF)
        self.setStyleSheet(f"background: {WARNING}; color: white;" if on else "")

    def _canvas(self) -> QWidget | None:
        """Return the central widget of the viewer's window, which holds the canvas and no dock."""
        window: QWidget | None = self
        while window is not None and not isinstance(window, QMainWindow):
            window = window.parentWidget()
        return window.centralWidget() if window is not None else None


class LabelBox(QWidget):
    """Open images, label them with number keys, and find out which to label next.

    Parameters
    ----------
    viewer : Viewer
        Shows the image of the current row.
    session : LabelSession, optional
        What the tab draws; by default a new one.

    Signals
    -------
    changed
        Labels were opened or changed.
    """

    changed = Signal()

    def __init__(self, viewer: Viewer, session: LabelSession | None = None) -> None:
        super().__init__()
        self.viewer, self.session = viewer, session or LabelSession()
        self.jobs, self.image_jobs = SessionJobs(self.session, self), SessionJobs(self.session.image, self)
        self.image_layers = ImageLayers(viewer)
        self._quiet = False
        self._make_parts()
        self._lay_out()
        self._connect()
        self.keys_button.bind(self)
        self._draw()

    def _make_parts(self) -> None:
        self.open_box, self.class_box = OpenBox(self.viewer, self.session), ClassBox()
        self.hint, self.message, self.warning, self.check_result = Note(), Note(), Note(), Note()
        self.question = QuestionBox()
        self.images = ImagesModel(self)
        self.table = ImageTable(self.images)
        self.table.setAccessibleName("Images with their labels")
        self.table.setToolTip("Click an image to see it, then press the number of its class")
        self.filter, self.shown = filter_field(), NarrowComboBox()
        self.filter.setAccessibleName("Filter by text")
        self.filter.setToolTip("Show only images whose name, label, group or split contains this text")
        self.shown.setAccessibleName("Images to show")
        self.shown.setToolTip("Show all images, those without a label, or those of one class")
        self.undo_button, self.redo_button = QPushButton("Undo"), QPushButton("Redo")
        self.undo_button.setToolTip("Undo the last change of labels or classes (Ctrl+Z)")
        self.redo_button.setToolTip("Redo the change (Ctrl+Shift+Z)")
        self.count = QLabel()
        self.open_next = QCheckBox("go to next image")
        self.open_next.setChecked(True)
        self.open_next.setToolTip("After an image is labelled, show the next one without a label")
        self.keys_button = KeysButton(self.press, self.session.undo, self.session.redo)
        self.next_button, self.check_button = QPushButton("What next"), QPushButton("Check")
        self.next_button.setToolTip("Sort the images: those whose labels would help the model most come first")
        self.check_button.setToolTip(
            "Look for wrong labels, identical images with different labels, and groups that distort the validation"
        )
        self.cancel_button = QPushButton("Cancel")
        self.cancel_button.setToolTip("Stop what runs; labels stay as they are")
        self.progress = JobProgress()
        self.list = QListWidget()
        self.list.setWordWrap(True)
        self.list.setAccessibleName("What the check found")
        self.list.setToolTip("Click a problem to select its images")
        self.list.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.list.setMaximumHeight(150)
        self.list.setSizeAdjustPolicy(QListWidget.SizeAdjustPolicy.AdjustToContents)
        self.list.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Maximum)
        self.setAcceptDrops(True)

    def _lay_out(self) -> None:
        layout = page_layout(self)
        layout.addWidget(self.open_box)
        layout.addWidget(self.question)
        layout.addWidget(self.hint)
        self._after = QWidget()
        after = vertical_layout(self._after, 5)
        after.addWidget(self.class_box)
        after.addWidget(heading("Labels"))
        after.addLayout(row(self.filter, self.shown, stretch=1))
        after.addWidget(self.table, 1)
        after.addLayout(row(self.count, self.open_next, stretch=0))
        after.addWidget(self.keys_button)
        after.addLayout(row(self.undo_button, self.redo_button, self.next_button, self.check_button))
        layout.addWidget(self._after, 1)
        self._running = QWidget()
        vertical_layout(self._running).addLayout(row(self.progress, self.cancel_button, stretch=0))
        for part in (self._running, self.warning, self.message, self.check_result, self.list):
            layout.addWidget(part)
        layout.addStretch()
        self.setMinimumWidth(310)

    def _connect(self) -> None:
        session, classes = self.session, self.class_box
        for signal, slot in (
            (session.changed, self._draw), (session.opened, self._on_opened), (session.labels_changed, self._on_labels),
            (session.progressed, self._show_progress), (session.ranked, self._on_ranked),
            (session.requested, self._on_requested), (session.image.ready, self._show_image),
        ):  # fmt: skip
            signal.connect(slot)
        classes.clicked.connect(lambda name: session.label(name, following=self._following()))
        classes.added.connect(self._on_added)
        classes.renamed.connect(lambda old, new: session.change_classes(lambda it: it.rename_class(old, new)))
        classes.recoloured.connect(lambda name, to: session.change_classes(lambda it: it.recolour_class(name, to)))
        classes.moved.connect(lambda name, place: session.change_classes(lambda it: it.move_class(name, place)))
        classes.removed.connect(lambda name: session.change_classes(lambda it: it.remove_class(name)))
        self.question.answered.connect(session.answer)
        self.images.edited.connect(self._on_edited)
        self.table.chosen.connect(self._on_chosen)
        self.filter.textChanged.connect(self.table.proxy.setFilterFixedString)
        self.shown.activated.connect(self._on_shown)
        self.undo_button.clicked.connect(session.undo)
        self.redo_button.clicked.connect(session.redo)
        self.open_next.toggled.connect(partial(setattr, session, "go_on"))
        self.next_button.clicked.connect(lambda: session.rank(current.model))
        self.check_button.clicked.connect(lambda: session.check(current.model))
        self.cancel_button.clicked.connect(session.cancel)
        self.list.itemClicked.connect(self._on_finding)
        self.list.itemActivated.connect(self._on_finding)

    # What there is

    @property
    def labelling(self) -> Labelling | None:
        """The labels that are open."""
        return self.session.labelling

    @property
    def busy(self) -> bool:
        """Whether images are being opened, ranked, checked or shown."""
        return bool(self.jobs.requests or self.image_jobs.requests)

    # Drawing

    def _draw(self) -> None:
        """Draw the session, and enable the controls that can be used now."""
        session, labelling = self.session, self.session.labelling
        free = not session.busy and not session.locked
        self._after.setVisible(labelling is not None)
        self._running.setVisible(session.busy)
        self.hint.say(session.hint)
        self.warning.say(session.warning, ERROR)
        self.message.show_notice(session.message)
        self.question.ask(session.question)
        self.check_result.say(session.check_result)
        self._draw_findings()
        self.open_box.practice_button.setVisible(labelling is None)
        for part in (self.open_box, self.next_button, self.check_button):
            part.setEnabled(free)
        self.class_box.setEnabled(not session.locked)
        self.images.editable = not session.locked
        self.undo_button.setEnabled(labelling is not None and labelling.can_undo and not session.locked)
        self.redo_button.setEnabled(labelling is not None and labelling.can_redo and not session.locked)
        if labelling is not None:
            self.class_box.show_classes(labelling.classes, labelling.counts(), labelling.warnings())
            self.count.setText(f"{len(labelling.labelled())} of {len(labelling.images)} labelled")
            self._fill_choices(labelling)
            self._draw_choice()

    def _draw_findings(self) -> None:
        found = [f"{finding.sentence}." for finding in self.session.findings]
        if found != [there(self.list.item(i)).text() for i in range(self.list.count())]:
            self.list.clear()
            for sentence in found:
                self.list.addItem(QListWidgetItem(sentence))
        self.list.setVisible(bool(found))

    def _draw_choice(self) -> None:
        """Show the rows that are chosen; those that a filter hides are not chosen any more."""
        rows = [row for row in self.session.rows if self.table.view_index(row).isValid()]
        if self._quiet:
            return
        if len(rows) < len(self.session.rows):
            self.session.select(rows)
        elif self.table.rows() != sorted(rows) or self.table.current_row() != self.session.current:
            self._quietly(lambda: self.table.select(rows))

    def _quietly(self, change: Callable[[], Any]) -> None:
        """Change the table without taking that for a choice of the user."""
        before, self._quiet = self._quiet, True
        change()
        self._quiet = before

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

    def _show_progress(self, share: float, doing: str) -> None:
        self.progress.say(share, f"{doing} {share:.0%}")

    # What the user does

    def open(self, paths: Sequence[Path], layout: Path | None = None) -> None:
        """Open a folder, a table, a plate or images beside the window; `changed` is emitted when they are open."""
        self.open_box.open(paths, layout)

    def press(self, number: int, add: bool = False) -> None:
        """Label the selected images with the class of a number key; 0 clears their labels."""
        self.session.press(number, add, self._following())

    def _following(self) -> int | None:
        """Return the next row without a label in the order of the table."""
        return self.table.next_unlabelled(self.session.rows)

    def dragEnterEvent(self, event: Any) -> None:
        """Accept files."""
        if event.mimeData().hasUrls() and self.open_box.isEnabled():
            event.acceptProposedAction()

    def dropEvent(self, event: Any) -> None:
        """Open the dropped files."""
        self.open_box.open_dropped(dropped_paths(event))

    def _on_added(self, name: str) -> None:
        if self.session.change_classes(lambda labelling: labelling.add_class(name)):
            self.class_box.new.clear()

    def _on_edited(self, edited: int, column: int, text: str) -> None:
        """Set a group or a split, in all selected rows if the edited row is one of them."""
        rows = self.session.rows if edited in self.session.rows else (edited,)
        if column == GROUP:
            self.session.set_group(rows, text)
        else:
            self.session.set_split(rows, text)

    def _on_chosen(self) -> None:
        if not self._quiet:
            self.session.select(self.table.rows(), self.table.current_row())

    def _on_shown(self, _index: int = 0) -> None:
        self._quietly(lambda: self.table.show_only(self.shown.currentData() or ALL))
        self._draw_choice()

    def _on_finding(self, item: QListWidgetItem) -> None:
        """Select the images of a finding."""
        self._show_all()
        self.session.select(self.session.findings[self.list.row(item)].rows)

    def _show_all(self) -> None:
        """Take the filters off."""
        self.filter.clear()
        self.shown.setCurrentIndex(0)
        self._on_shown()

    # What the session says

    def _on_requested(self, _request: Any) -> None:
        self.progress.say(0, "preparing…")

    def _on_opened(self) -> None:
        labelling = self.session.labelling
        if labelling is not None:
            self.open_box.axes.setText(labelling.reading.axes or "")
            self._quietly(self._show_all)
            self._quietly(lambda: self.images.open(labelling))
            (self.table if labelling.classes else self.class_box.new).setFocus()

    def _on_labels(self) -> None:
        labelling = self.session.labelling
        if labelling is not None and len(self.images.images) == len(labelling.images):
            self._quietly(lambda: self.images.refresh(labelling))
            self._draw_choice()
        self.changed.emit()

    def _on_ranked(self, order: Sequence[int]) -> None:
        self._show_all()
        self._quietly(lambda: self.table.show_ranks(order))
        self.table.setFocus()

    def _show_image(self, found: tuple[ImageStack, str, Limits] | None) -> None:
        if found is None:
            self.image_layers.clear()
        else:
            self.image_layers.show(*found)

    def hideEvent(self, event: Any) -> None:
        """Turn the keys in the image off when the tab or the dock is hidden: nobody would see that they are on."""
        self.keys_button.setChecked(False)
        super().hideEvent(event)


class ImageLayers:
    """The layers of the image that is being labelled; all other layers belong to the user.

    Parameters
    ----------
    viewer : Viewer
        Used only in the window's thread.
    """

    def __init__(self, viewer: Viewer) -> None:
        self.viewer = viewer
        self.layers: tuple[Layer, ...] = ()

    def show(self, image: ImageStack, plane: str, limits: Limits) -> None:
        """Show another image, if possible in the layers of the image before, so that their display settings stay."""
        wanted = [_of_planes(data, image, plane) for data in image_layers(image, limits)]
        there = tuple(layer for layer in self.layers if layer in self.viewer.layers)
        if len(there) == len(wanted) and all(
            layer.ndim == each[0].ndim for layer, each in zip(there, wanted, strict=True)
        ):
            self.layers = there
            same = there[0].data.shape == wanted[0][0].shape
            for layer, each in zip(there, wanted, strict=True):
                _change(layer, *each[:2])
            if not same:
                self.viewer.reset_view()
        else:
            self.clear()
            self.layers = tuple(add_layer(self.viewer, each) for each in wanted)

    def clear(self) -> None:
        """Remove the layers."""
        remove(self.viewer.layers, self.layers)
        self.layers = ()


def _change(layer: Any, data: Any, facts: dict[str, Any]) -> None:
    layer.data = data
    for name in ("name", "scale", "units", "axis_labels", "metadata", "contrast_limits"):
        setattr(layer, name, facts[name])


def _of_planes(data: LayerData, image: ImageStack, plane: str) -> LayerData:
    """Leave out the axes along which a single plane is labelled, so that only what is labelled is shown."""
    array, facts, kind = data
    facts = {**facts, "name": f"{facts['name']} {plane}".rstrip()}
    axes = image.axes.replace("C", "")
    only = dict(zip("PTZ", image.only, strict=True))
    shown = [i for i, axis in enumerate(axes) if only.get(axis) is None]
    key = tuple(slice(None) if i in shown else only[axis] for i, axis in enumerate(axes))
    along = {name: [facts[name][i] for i in shown] for name in ("scale", "units", "axis_labels")}
    return array[key], facts | along, kind
