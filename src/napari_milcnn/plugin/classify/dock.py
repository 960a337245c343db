"""The Classify dock: choose a model and an image, run, look, adjust, export. It draws a session, and knows no more."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from weakref import WeakKeyDictionary

import pandas as pd
from napari.layers import Image, Labels
from napari.viewer import Viewer
from qtpy.QtCore import QObject, QSignalBlocker, Qt, QTimer, Signal
from qtpy.QtGui import QKeySequence, QShortcut
from qtpy.QtWidgets import QCheckBox, QPushButton, QVBoxLayout, QWidget

from napari_milcnn.errors import ImageError, MilcnnError, OutputError
from napari_milcnn.options import EvidenceOptions, make_options
from napari_milcnn.plugin.classify.adds_box import AddsBox, OptionsBox
from napari_milcnn.plugin.classify.image_box import ImageBox
from napari_milcnn.plugin.classify.jobs import CellsRequest, ClassifiedCells, ImageToShow
from napari_milcnn.plugin.classify.mask_box import MaskBox
from napari_milcnn.plugin.classify.model_box import ModelBox
from napari_milcnn.plugin.classify.own_cells import CellsBox, OwnCells
from napari_milcnn.plugin.classify.records import Cause, prediction_table
from napari_milcnn.plugin.classify.results_box import ExportBox, ResultsBox
from napari_milcnn.plugin.classify.segmenters import CellSearch, Segmenter
from napari_milcnn.plugin.classify.session import Classify, ClassifySession, viewer_plates
from napari_milcnn.plugin.current_model import current
from napari_milcnn.plugin.layer_writer import LayerWriter
from napari_milcnn.plugin.layers_to_image import image_name_of
from napari_milcnn.plugin.preferences import preferences
from napari_milcnn.plugin.qt.forms import (
    DeletedWhenClosed,
    JobProgress,
    NoticesBox,
    Section,
    connect_layers,
    connect_while_alive,
    dropped_paths,
    page_layout,
    row,
    scrolled,
    there,
)
from napari_milcnn.plugin.qt.job import Ending, Job
from napari_milcnn.plugin.qt.notices import Level
from napari_milcnn.plugin.results_to_layers import OURS, cell_features, cells_layer, select, show_or_hide

if TYPE_CHECKING:
    from napari_milcnn.inference.predict import Prediction
    from napari_milcnn.model.trained_model import TrainedModel
    from napari_milcnn.options import ZReading
    from napari_milcnn.plugin.layers_to_image import LayerImage

_REDRAW = 500
"""Milliseconds between two drawings of masks while a run goes on; more where drawing takes long."""
_SETTLED = 120
"""Milliseconds a plane has to be in view before its evidence is prepared."""
_OUTLINE = 2
"""Width of outlines, in px."""
_GATHER = 250
"""Milliseconds in which layers that open together are taken for one image."""
_SESSIONS: WeakKeyDictionary[Viewer, tuple[ClassifySession, LayerWriter]] = WeakKeyDictionary()
"""What each viewer's dock knows, so that a dock that was closed and opened again shows the results that were there."""


def session_of(viewer: Viewer) -> tuple[ClassifySession, LayerWriter]:
    """Return the session of a viewer, and what shows its results there."""
    viewer = getattr(viewer, "__wrapped__", viewer)
    if viewer not in _SESSIONS:
        _SESSIONS[viewer] = ClassifySession(), LayerWriter(viewer)
    return _SESSIONS[viewer]


class SessionLayers(QObject):
    """Shows the results of a session in the layers of the viewer, and finds the way from a row to its layers.

    Signals
    -------
    file_shown : tuple of Image, SourceReading
        A file has layers now, and how they are read is known.
    image_wanted : tuple of Image
        The user wants to see the image of these layers.
    """

    file_shown = Signal(object, object)
    image_wanted = Signal(object)

    def __init__(self, parent: QWidget, session: ClassifySession, writer: LayerWriter) -> None:
        super().__init__(parent)
        self.session, self.writer = session, writer
        self._draw_soon = QTimer(self)
        self._draw_soon.setSingleShot(True)
        self._draw_soon.setInterval(_REDRAW)
        self._draw_soon.timeout.connect(self.draw)
        connect_while_alive(session.images.changed, self._on_image, self)
        connect_while_alive(session.images.plane_changed, self._on_plane, self)
        connect_while_alive(session.image_opened, self.show_file, self)
        connect_while_alive(session.job.changed, self._on_job, self)
        connect_layers(writer.viewer.layers, ("renamed",), self._on_renamed, self)

    def _on_image(self, key: int) -> None:
        if key not in self.session.images.records:
            self.writer.remove(key)

    def _on_renamed(self, _event: Any = None) -> None:
        """Call images as their layers are called now."""
        for key, one in list(self.session.images.records.items()):
            name = image_name_of(one.layers) if one.layers and one.path is None else one.name
            if name != one.name and one.source is not None:
                image = replace(one.source.image, name=name)
                self.session.images.change(key, name=name, source=replace(one.source, image=image))

    def _on_job(self, _event: Any = None) -> None:
        """Show what is left to be shown once a job is over."""
        if not self.session.busy:
            self.draw()

    def _on_plane(self, changed: tuple[int, int]) -> None:
        """Write the masks of a plane, and show them: at once in view, else after others, or now and then in a job."""
        key, plane = changed
        try:
            kept = self.writer.write(self.session.images.records[key], plane)
        except OutputError as error:
            self.session.notices.say(Cause.IMAGE, f"The masks cannot be shown: {error}", Level.ERROR, about=key)
            return
        if kept:
            text = f"The masks that you edited by hand stay in the layer {kept}."
            self.session.notices.say(Cause.IMAGE, text, about=key)
        if not self.session.busy and self.session.plane in (plane, None):
            self.draw()
        elif not self._draw_soon.isActive():
            self._draw_soon.start(self._draw_soon.interval() if self.session.busy else 0)

    def draw(self) -> None:
        """Show the masks that were written since the last time, and of each image those of one model alone."""
        began = time.monotonic()
        self._draw_soon.stop()
        self.writer.refresh(self.session.images.records)
        shown = self.session.in_view
        others = self.session.images.of_layers(shown.layers) if shown is not None else []
        if len(others) > 1:
            masks = [(self.writer.masks_of(one), one is shown) for one in others]
            show_or_hide({layer: is_shown for layer, is_shown in masks if layer is not None})
        self._draw_soon.setInterval(max(_REDRAW, round(10_000 * (time.monotonic() - began))))
        self.session.changed.emit()

    def show_file(self, opened: tuple[int, ImageToShow]) -> None:
        """Show a file that was opened."""
        key, to_show = opened
        layers, reading, source = self.writer.open(to_show.image, to_show.limits, to_show.levels)
        self.file_shown.emit(layers, reading)
        try:
            self.session.shown(key, layers, source)
        except MilcnnError as error:
            self.session.notices.say(Cause.IMAGE, str(error), Level.ERROR, key)
        self._show_alone(key)
        self.image_wanted.emit(layers)

    def _show_alone(self, key: int) -> None:
        images = self.session.images.records
        if key in images:
            self.writer.show_alone(images[key], images.values())

    def go_to_plane(self, key: int, plane: int) -> None:
        """Show a plane of an image, and open its file if it has no layers; below 0 the image alone."""
        image = self.session.images.records[key]
        if image.source is None:
            if not image.can_open:
                text = f"{image.name} was removed from the viewer and is in no file; its scores are kept."
                self.session.notices.say(Cause.IMAGE, text, Level.WARNING, key)
                return
            try:
                self.show_file((key, ImageToShow.of(image.open())))
            except MilcnnError as error:
                self.session.notices.say(Cause.IMAGE, str(error), Level.ERROR, key)
                return
        image = self.session.images.records[key]
        self._show_alone(key)
        self.image_wanted.emit(image.layers)
        self.session.choose(image.layers, self.session.cells, key)
        self.draw()
        if plane >= 0:
            self.writer.go_to(image, plane)

    def step_image(self, step: int) -> None:
        """Show another image of the list: the next for 1, the one before for -1."""
        keys = [key for key, one in self.session.images.records.items() if one.can_open]
        shown = self.session.in_view
        if keys:
            at = keys.index(shown.key) + step if shown is not None and shown.key in keys else 0
            self.go_to_plane(keys[at % len(keys)], -1)

    def toggle_masks(self) -> None:
        """Hide the masks of the image in view, or show them again."""
        layer = self.writer.masks_of(self.session.in_view) if self.session.in_view is not None else None
        if layer is not None:
            layer.visible = not layer.visible

    def toggle_outlines(self) -> None:
        """Show the masks of the image in view as outlines, or filled again."""
        layer = self.writer.masks_of(self.session.in_view) if self.session.in_view is not None else None
        if layer is not None:
            layer.contour = 0 if layer.contour else _OUTLINE

    def go_to_object(self, found: Any) -> None:
        """Show an object of the image in view, a row of its table, and pick it in the mask layer."""
        image = self.session.in_view
        if image is None:
            return
        self.writer.go_to(image, int(found["plane"]), (float(found["y"]), float(found["x"])))
        layer = self.writer.masks_of(image)
        if layer is not None and found["index"] > 0:
            layer.selected_label = int(found["index"])

    def put_class_maps(self, names_of: Callable[[list[Prediction]], list[str]], keys: Sequence[int] = ()) -> None:
        """Show class maps of images, else of the one in view; `names_of` says which for the predictions of an image."""
        shown = self.session.in_view
        for image in [self.session.images.records[key] for key in keys] if keys else [shown]:
            if image is not None and image.source is not None and image.planes:
                for name in names_of([found.prediction for found in image.planes.values()]):
                    self.writer.put_class_map(image, name)

    def put_evidence(self, name: str) -> None:
        """Show the evidence for a class in the plane in view, once it is made."""
        preview, image = self.session.preview, self.session.in_view
        preview.class_name = name
        held = preview.evidence_of_class()
        if held is None or image is None:
            preview.prepare(then=lambda: self.put_evidence(name))
            return
        kind = str(self.session.settings.evidence["kind"])
        try:
            number = held.names.index(name)
            self.writer.put_evidence(image, name, kind, held.plane, held.evidence.maps[number], held.highest[number])
        except OutputError as error:
            text = f"The evidence cannot be shown: {error}"
            self.session.notices.say(Cause.IMAGE, text, Level.ERROR, about=image.key)


class DockForms(QObject):
    """What the forms of the dock say: the options, and what is to be classified."""

    def __init__(self, dock: ClassifyDock) -> None:
        super().__init__(dock)
        self.viewer, self.session, self.writer = dock.viewer, dock.session, dock.writer
        self.image_box, self.adds_box, self.mask_box = dock.image_box, dock.adds_box, dock.mask_box
        self.cells_box, self.options_box = dock.cells_box, dock.options_box

    def wanted(self, source: LayerImage) -> Classify:
        """Return what is to be classified of the chosen layers."""
        layers = self.image_box.chosen()
        z: ZReading = self.image_box.z.currentData() if "Z" in source.axes else "planes"
        return Classify(layers, source, z, self.wanted_planes(source), self.adds_box.own_cells(layers))

    def wanted_planes(self, source: LayerImage) -> tuple[int, ...] | None:
        """Return the plane in view if only that one is wanted; None for all."""
        plane = plane_in_view(self.viewer, source)
        return (plane,) if self.image_box.this_plane.isChecked() and plane is not None else None

    def tell_options(self) -> bool:
        """Tell the session what the forms say; return whether it is possible."""
        evidence = {**self.options_box.options(), **self.adds_box.options()}
        return self.session.set_options(evidence, self.mask_box.options())

    def take_arrived(self) -> None:
        """Classify the images that just opened, the layers of one file together."""
        arrived, self.session.arrived = [one for one in self.session.arrived if one in self.viewer.layers], ()
        wanted: list[Classify] = []
        while arrived and current.model is not None:
            self.image_box.choose_with(arrived[0])
            arrived = [layer for layer in arrived if layer not in self.image_box.chosen()]
            try:
                wanted.append(self.wanted(self.image_box.source()))
            except ImageError as error:
                self.session.notices.say(Cause.IMAGE, str(error), Level.ERROR)
        if wanted and self.tell_options():
            self.session.classify(wanted)

    def _source_for_job(self) -> LayerImage | None:
        """Open the chosen image for a job with the current model; None, and the reason in the dock, if it cannot be."""
        if current.model is None or self.session.busy:
            why = "Another job is running." if self.session.busy else "Choose a model first."
            self.session.notices.say(Cause.IMAGE, why, Level.WARNING)
            return None
        try:
            return self.image_box.source() if self.tell_options() else None
        except MilcnnError as error:
            self.session.notices.say(Cause.IMAGE, str(error), Level.ERROR)
            return None

    def classify_cells(self, layer: Labels) -> None:
        """Classify the cells of a labels layer one by one."""
        model, source = current.model, self._source_for_job()
        if model is None or source is None:
            return

        def show(found: ClassifiedCells) -> None:
            layer.features = cell_features(found.table)
            data = cells_layer(source, found.numbers, found.table, model.classes, f"{layer.name} classified")
            self.writer.put(layer, "classified", data)
            counts = found.table["top"].value_counts()
            self.cells_box.message.say(", ".join(f"{name} {counts[name]}" for name in model.classes if name in counts))

        options = self.options_box.compute_options()
        request = CellsRequest(model, source, OwnCells(layer).reader(source), viewer_plates(self.session), options)
        self.session.classify_cells(request, show)

    def search_cells(self, segmenter: Segmenter) -> None:
        """Find the cells of the planes that a run would classify with another program, and choose them."""
        model, source, layers = current.model, self._source_for_job(), self.image_box.chosen()
        if model is None or source is None:
            return
        planes = self.wanted_planes(source) or range(len(source.image.planes))
        search = CellSearch(segmenter, layers, source, model, dict(self.session.settings.evidence), planes)

        def add() -> str:
            layer = cast("Labels", self.writer.add(search.layer()))
            layer.contour = _OUTLINE  # the masks in the colours of their classes stay in sight
            if search.is_complete:
                self.adds_box.cells.choose(OwnCells(layer), search.layers)
            return str(layer.name)

        self.session.find_cells(search, add)


class ClassifyDock(QWidget):
    """Classify the images in the viewer and show which cells carry which phenotype.

    Parameters
    ----------
    napari_viewer : Viewer
        Given by napari.
    """

    def __init__(self, napari_viewer: Viewer) -> None:
        super().__init__()
        self.viewer = napari_viewer
        self.session, self.writer = session_of(napari_viewer)
        self.layers = SessionLayers(self, self.session, self.writer)
        DeletedWhenClosed(self)
        self._make_parts()
        self._lay_out()
        self._connect()
        self._on_model(current.model)

    def _make_parts(self) -> None:
        settings = preferences()
        self.model_box = ModelBox(self.viewer)
        self.image_box = ImageBox(self.viewer)
        self.results_box = ResultsBox(self.session.images.records)
        self.mask_box = MaskBox()
        self.adds_box = AddsBox(self.viewer)
        self.adds_box.choose(settings.kind)
        self.mask_box.set_kind(settings.kind)
        self.cells_box = CellsBox(self.viewer)
        self.export_box = ExportBox()
        self.run_button, self.cancel_button = QPushButton("Classify"), QPushButton("Cancel")
        self.run_button.setDefault(True)
        self.run_button.setToolTip("Classify the image with this model")
        self.cancel_button.setToolTip("Stop what runs; planes that are finished are kept")
        self.auto = QCheckBox("as images open")
        self.auto.setToolTip("Classify each image that you open in napari, or drop on it, at once")
        self.auto.setChecked(settings.auto_classify)
        self.progress = JobProgress()
        self.notices = NoticesBox()
        self.options_box = OptionsBox(settings.device, settings.tile)
        self.forms = DockForms(self)
        self.setAcceptDrops(True)

    def _lay_out(self) -> None:
        inside = QWidget()
        layout = page_layout(inside)
        self.model_section = Section("Model", self.model_box)
        self.image_section = Section("Image", self.image_box)
        self.adds_section = Section("What a run makes", self.adds_box, is_open=False)
        self.options_section = Section("More options", self.options_box, is_open=False)
        self.result_section = Section("Result", self.results_box)
        self.mask_section = Section("Masks", self.mask_box)
        self.export_section = Section("Export", self.export_box, is_open=False)
        self.cells_section = Section("Classify your own segmentation", self.cells_box, is_open=False)
        for part in (self.model_section, self.image_section, self.adds_section, self.options_section):
            layout.addWidget(part)
        layout.addLayout(row(self.run_button, self.cancel_button, self.auto, stretch=0))
        for below in (self.progress, self.notices, self.result_section, self.mask_section, self.export_section,
                      self.cells_section):  # fmt: skip
            layout.addWidget(below)
        layout.addStretch()
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        self._area = scrolled(inside)
        outer.addWidget(self._area)
        self.setMinimumWidth(310)

    def _connect(self) -> None:
        self._settled, self._gather = QTimer(self), QTimer(self)
        for timer, wait, then in (
            (self._settled, _SETTLED, self._prepare),
            (self._gather, _GATHER, self.forms.take_arrived),
        ):
            timer.setSingleShot(True)
            timer.setInterval(wait)
            timer.timeout.connect(then)
        session, layers, results, masks = self.session, self.layers, self.results_box, self.mask_box
        self.run_button.clicked.connect(self.classify)
        self.cancel_button.clicked.connect(self.cancel)
        self.image_box.changed.connect(self._on_image)
        layers.file_shown.connect(self.image_box.remember)
        layers.image_wanted.connect(self._choose)
        results.plane_picked.connect(layers.go_to_plane)
        results.object_picked.connect(lambda number: layers.go_to_object(results.objects.frame.iloc[number]))
        results.save_requested.connect(self._on_save)
        results.masks_requested.connect(session.show_unlike)
        results.remove_requested.connect(session.remove)
        results.undo_button.clicked.connect(lambda: self.undo())
        masks.changed.connect(lambda: session.preview.apply() if self.forms.tell_options() else None)
        masks.class_changed.connect(self._prepare)
        masks.apply_requested.connect(lambda: session.make_all_masks() if self.forms.tell_options() else None)
        masks.map_requested.connect(lambda name: layers.put_class_maps(lambda _: [name]))
        masks.evidence_requested.connect(layers.put_evidence)
        self.adds_box.kind_changed.connect(self._on_kind)
        self.adds_box.cells_changed.connect(self._on_image)
        self.options_box.evidence_changed.connect(self._on_image)
        self.adds_box.cells.search_requested.connect(self.forms.search_cells)
        self.cells_box.classify_requested.connect(self.forms.classify_cells)
        self.export_box.export_requested.connect(session.export)
        for key, button, slot in (
            ("Alt+Left", results.previous_button, lambda: layers.step_image(-1)),
            ("Alt+Right", results.next_button, lambda: layers.step_image(1)),
            ("Alt+M", masks.hide_button, layers.toggle_masks),
            ("Alt+O", masks.outline_button, layers.toggle_outlines),
        ):
            QShortcut(QKeySequence(key), self).activated.connect(slot)  # napari and its layers leave these keys free
            button.clicked.connect(slot)
        for key, again in (("Ctrl+Z", False), ("Ctrl+Shift+Z", True)):
            shortcut = QShortcut(QKeySequence(key), self)
            shortcut.setContext(Qt.ShortcutContext.WidgetWithChildrenShortcut)  # in the image they are napari's
            shortcut.activated.connect(partial(self.undo, again=again))
        self._connect_session()

    def _connect_session(self) -> None:
        session, viewer, starter = self.session, self.viewer, self._start
        session.attach(starter, self.image_box.openers)
        self.destroyed.connect(lambda: session.release(starter))
        for emitter, slot in (
            (session.changed, self._refresh), (session.job.changed, self._refresh),
            (session.job.progressed, self._on_progress), (session.notices.changed, self._refresh),
            (session.images.changed, self._on_image_changed), (session.images.plane_changed, self._on_image_changed),
            (session.settings_changed, self._on_settings), (session.run_ended, self._on_run_ended),
            (session.preview.ready, self._show_threshold),
            (self.writer.label_picked, self._on_label), (current.changed, self._on_model),
            (viewer.dims.events.current_step, self._on_moved), (viewer.layers.events.inserted, self._on_inserted),
            (viewer.layers.events.removed, self._on_removed),
        ):  # fmt: skip
            connect_while_alive(emitter, slot, self)

    def _start(
        self, steps: Callable[[], Iterator[Any]], on_step: Callable[[Any], None], on_end: Callable[[Ending], None]
    ) -> Job:
        return Job(steps, self, on_step, on_end)

    # What is in view

    @property
    def busy(self) -> bool:
        """Whether a job runs."""
        return self.session.busy

    def _on_model(self, model: TrainedModel | None) -> None:
        """Offer the channels and classes of another model."""
        self.image_box.set_channels(model.channels if model else (), model.pixel_size if model else None)
        self.mask_box.set_classes(model.classes if model else ())
        self.options_box.set_channels(model.channels if model else ())
        if model is not None and model.card.evidence is not None:
            self.adds_box.choose(model.card.evidence.kind, model.card.evidence.detail)
        self.forms.tell_options()
        self.session.use_model(model)
        self._on_image()

    def _on_image(self) -> None:
        """Tell the session which image is chosen, and the cells in it."""
        chosen = self.image_box.chosen()
        self.adds_box.cells.show_image(chosen)
        self.session.choose(chosen, self.adds_box.own_cells(chosen))
        self._settled.start()

    def _on_moved(self, _event: Any = None) -> None:
        self._refresh()
        self._settled.start()

    def _refresh(self, _event: Any = None) -> None:
        """Enable what can be done, and show the results of the plane in view."""
        session, image = self.session, self.session.in_view
        session.look_at(
            plane_in_view(self.viewer, image.source) if image is not None and image.source is not None else None
        )
        busy, chosen = session.busy, bool(self.image_box.chosen())
        ready = current.model is not None and chosen and not self.image_box.problem and not busy
        problem = self.image_box.problem if chosen else "Open an image first."
        problem = problem if current.model is not None else "Choose a model first."
        self.run_button.setEnabled(ready)
        self.run_button.setToolTip("Classify the image with this model" if ready or busy else problem)
        if chosen and self.image_box.problem:
            self.image_section.fold(is_open=True)
        self.cancel_button.setEnabled(busy)
        self.cells_box.button.setEnabled(ready and self.cells_box.layers.count() > 0)
        self.progress.setVisible(busy)
        found = bool(session.images.records)
        self.result_section.setVisible(found)
        self.export_section.setVisible(found)
        self.model_section.summarise(self.model_box.models.currentText())
        self.image_section.summarise(self.image_box.summary)
        self.adds_section.summarise(self.adds_box.summary)
        able = image is not None and bool(image.masks) and session.is_current(image)
        self.mask_section.setVisible(able)
        self.mask_box.apply.setVisible(image is not None and len(image.planes) > 1)
        self.mask_box.apply.setEnabled(not busy)
        self.export_box.setEnabled(image is not None and bool(image.planes) and not busy)
        self.results_box.show_undo(*(("", "") if busy else (session.images.last_action, session.images.undone_action)))
        self.results_box.show_image(image, session.plane, is_current=image is None or session.is_current(image))
        objects = self.writer.objects_of(image) if image is not None else pd.DataFrame()
        self.results_box.show_objects(objects, image.model.classes if image is not None and image.model else ())
        self.mask_box.show_masks(image, session.plane)
        self.notices.show_notices(session.notices.all)

    def _on_progress(self, share: float) -> None:
        self.progress.show_share(share, self.session.job.seconds_left(share))

    def _on_image_changed(self, changed: int | tuple[int, int]) -> None:
        """Update the rows of an image, or of one of its planes."""
        if isinstance(changed, tuple):
            self.results_box.planes.put(*changed)
            if changed[1] == self.session.plane or len(self.session.images.records[changed[0]].planes) == 1:
                self._refresh()
        else:
            self.results_box.planes.update(changed)

    def _on_label(self, picked: tuple[int, int]) -> None:
        image = self.session.in_view
        if image is not None and image.key == picked[0]:
            self.results_box.select_object(picked[1])

    # Runs

    def classify(self) -> None:
        """Classify the chosen image: the plane in view, or all."""
        try:
            wanted = self.forms.wanted(self.image_box.source())
        except MilcnnError as error:
            self.session.notices.say(Cause.IMAGE, str(error), Level.ERROR)
            return
        if not self.busy and self.forms.tell_options():
            self.session.classify([wanted])

    def cancel(self) -> None:
        """Stop what runs; what is finished is kept."""
        self.session.cancel()
        self.cancel_button.setEnabled(False)

    def undo(self, *, again: bool = False) -> None:
        """Put back what the last action replaced or removed, or do again what was undone last."""
        self.session.undo(again=again)
        self.session.layers_removed(self.viewer.layers)
        self._settled.start()

    def _on_settings(self, _event: Any = None) -> None:
        settings = self.session.settings
        made = make_options(EvidenceOptions, settings.evidence)
        if made.kind is not None:
            with QSignalBlocker(self.adds_box):
                self.adds_box.choose(made.kind, made.detail or 1)
            self.mask_box.set_kind(made.kind)
        self.mask_box.show_options(settings.masks)
        self._show_threshold()

    def _on_run_ended(self, keys: tuple[int, ...]) -> None:
        """Show what was found, with the class maps that were chosen before the run."""
        self.layers.put_class_maps(self.adds_box.classes_of, keys)
        self.layers.draw()
        shown, plane = self.session.in_view, self.session.plane
        if shown is not None and plane is not None and plane in shown.planes:
            prediction = shown.planes[plane].prediction
            if prediction.has_structure[0]:
                self.mask_box.choose_class(prediction.top[0])
            self._prepare()
            self._make_room()

    def _make_room(self) -> None:
        """Fold what is settled, so that model, run and result are in sight together."""
        self.model_section.fold()
        if not self.image_box.message.text():
            self.image_section.fold()
        self.result_section.fold(is_open=True)
        QTimer.singleShot(0, lambda: there(self._area.verticalScrollBar()).setValue(0))

    def dragEnterEvent(self, event: Any) -> None:
        """Take files."""
        if event.mimeData().hasUrls():
            event.acceptProposedAction()

    def dropEvent(self, event: Any) -> None:
        """Open what was dropped."""
        self.open_files(dropped_paths(event))

    def open_files(self, paths: list[Path]) -> None:
        """Take a model zip as the model; open images and folders of images lazily and classify them in turn."""
        models = [path for path in paths if path.suffix.lower() == ".zip"]
        if models:
            self.model_box.load(models[0])
        images = [path for path in paths if path not in models]
        if images and self.forms.tell_options():
            self.session.open_files(images)

    def _choose(self, layers: tuple[Image, ...]) -> None:
        """Choose an image, and select its layers: the choice follows what is selected."""
        self.image_box.choose(layers)
        select(self.viewer.layers, set(layers))

    def _on_inserted(self, event: Any) -> None:
        layer = event.value
        if self.auto.isChecked() and isinstance(layer, Image) and OURS not in layer.metadata and layer.source.path:
            self.session.arrived = (*self.session.arrived, layer)
            self._gather.start()

    def _on_removed(self, _event: Any = None) -> None:
        self.session.layers_removed(self.viewer.layers)

    # Masks

    def _on_kind(self) -> None:
        self.mask_box.set_kind(self.adds_box.kind.currentData())
        self._on_image()

    def _prepare(self) -> None:
        """Have the evidence of the plane in view made, for the classes that it shows and the one chosen."""
        if self.forms.tell_options():
            self.session.preview.class_name = self.mask_box.class_name
            self.session.preview.prepare()

    def _show_threshold(self, _event: Any = None) -> None:
        self.session.preview.class_name = self.mask_box.class_name
        threshold = self.session.preview.threshold
        if threshold is not None:
            self.mask_box.show_threshold(*threshold)

    def _on_save(self, path: str) -> None:
        """Save the table in view."""
        from napari_milcnn.results.write import write_table

        self.session.notices.clear(Cause.TABLE)
        try:
            images = [one for one in self.session.images.records.values() if one.planes]
            objects = path.endswith("objects.csv") or self.results_box.tabs.currentIndex() == 1
            write_table(Path(path), self.results_box.objects.frame if objects else prediction_table(images))
        except MilcnnError as error:
            self.session.notices.say(Cause.TABLE, str(error), Level.ERROR)
            return
        self.session.notices.say(Cause.TABLE, f"Saved {path}.")


def plane_in_view(viewer: Viewer, source: LayerImage) -> int | None:
    """Return the number of the plane of an image at the sliders; None where it shows nothing."""
    return source.plane_at(viewer.dims.point, getattr(viewer.dims, "units", None))
