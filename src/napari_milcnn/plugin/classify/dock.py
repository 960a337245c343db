"""The Classify dock: choose a model and an image, run, look, adjust, export."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from napari.layers import Image, Labels
from napari.viewer import Viewer
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QCheckBox, QProgressBar, QPushButton, QVBoxLayout, QWidget
from superqt import QCollapsible

from napari_milcnn.errors import ImageError, MilcnnError
from napari_milcnn.options import DEVICES, ComputeOptions, MaskOptions, make_options
from napari_milcnn.plugin.classify.adds_box import AddsBox
from napari_milcnn.plugin.classify.cells_box import CellsBox
from napari_milcnn.plugin.classify.export_box import ExportBox
from napari_milcnn.plugin.classify.image_box import ImageBox
from napari_milcnn.plugin.classify.image_state import DroppedImage, ImageState, MadeWith, run
from napari_milcnn.plugin.classify.layer_writer import LayerWriter, objects_of
from napari_milcnn.plugin.classify.mask_box import MaskBox
from napari_milcnn.plugin.classify.model_box import ModelBox
from napari_milcnn.plugin.classify.own_cells import OwnCells, export_cells
from napari_milcnn.plugin.classify.results_box import ResultsBox
from napari_milcnn.plugin.classify.segmenters import CellSearch, Segmenter
from napari_milcnn.plugin.current_model import current
from napari_milcnn.plugin.layers_to_image import LayerImage
from napari_milcnn.plugin.preferences import preferences
from napari_milcnn.plugin.qt.forms import (
    ERROR,
    WARNING,
    DeletedWhenClosed,
    Note,
    connect_while_alive,
    duration,
    form_values,
    options_form,
    row,
    scrolled,
)
from napari_milcnn.plugin.qt.job import Ending, Job
from napari_milcnn.plugin.results_to_layers import OURS, cell_features, cells_layer

if TYPE_CHECKING:
    from napari_milcnn.images.intensity import Plates
    from napari_milcnn.images.open import ZReading
    from napari_milcnn.inference.evidence import PlaneEvidence
    from napari_milcnn.inference.pipeline import ImageEvent, PlaneResult
    from napari_milcnn.model.trained_model import TrainedModel
    from napari_milcnn.plugin.classify.own_cells import CellsReader
    from napari_milcnn.progress import Progress, Steps

_REDRAW = 0.5
"""Seconds between two drawings of masks while a run goes on; more where drawing takes long."""
_SETTLED = 120
"""Milliseconds a plane has to be in view before its evidence is prepared."""
_OUTLINE = 2
"""Width of the outlines of cells that Cellpose or StarDist found, in px."""
_GATHER = 250
"""Milliseconds in which layers that open together are taken for one image."""


@dataclass(frozen=True)
class MaskPreview:
    """Evidence of the plane in view, kept so that a moved slider shows at once."""

    entry: ImageState
    plane: int
    how: dict[str, Any]
    cells: OwnCells | None
    names: tuple[str, ...]
    evidence: PlaneEvidence


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
        self.images: list[ImageState] = []
        self._queue: list[ImageState] = []
        self._arrived: list[Image] = []
        self._job: Job | None = None
        self._preview_job: Job | None = None
        self._preview: MaskPreview | None = None
        self._began, self._due = 0.0, 0.0
        self._run_options = MadeWith({}, {})
        self._watched_labels: Labels | None = None
        self._job_images: list[ImageState] = []
        self._preview_image: ImageState | None = None
        self.writer = LayerWriter(napari_viewer)
        DeletedWhenClosed(self)
        self._make_parts()
        self._lay_out()
        self._connect()
        self._on_model(current.model)

    def _make_parts(self) -> None:
        settings = preferences()
        self.model_box = ModelBox()
        self.image_box = ImageBox(self.viewer)
        self.results_box = ResultsBox()
        self.mask_box = MaskBox()
        self.adds_box = AddsBox(self.viewer)
        self.adds_box.choose(settings.kind)
        self.mask_box.set_kind(settings.kind)
        self.cells_box = CellsBox(self.viewer)
        self.export_box = ExportBox()
        self.run_button, self.cancel_button = QPushButton("Classify"), QPushButton("Cancel")
        self.run_button.setDefault(True)
        self.auto = QCheckBox("classify images as they open")
        self.auto.setChecked(settings.auto_classify)
        self.progress = QProgressBar()
        self.progress.setRange(0, 1000)
        self.progress.hide()
        self.message = Note()
        self.options = options_form(
            ComputeOptions,
            ("device", "precision", "tile", "batch_size", "match_pixel_size"),
            {"device": _devices(settings.device), "precision": ("auto", "float32", "bfloat16")},
        )
        self.options["device"].value = settings.device
        self.options["tile"].value = settings.tile or 0
        self.setAcceptDrops(True)

    def _lay_out(self) -> None:
        inside = QWidget()
        layout = QVBoxLayout(inside)
        layout.setContentsMargins(8, 4, 8, 8)
        layout.setSpacing(5)
        options = QCollapsible("Options")
        options.addWidget(self.options.native)
        self._after = QWidget()
        after = QVBoxLayout(self._after)
        after.setContentsMargins(0, 0, 0, 0)
        for part in (self.results_box, self.mask_box, self.export_box):
            after.addWidget(part)
        layout.addWidget(self.model_box)
        layout.addWidget(self.image_box)
        layout.addWidget(self.adds_box)
        layout.addWidget(options)
        layout.addLayout(row(self.run_button, self.cancel_button, stretch=0))
        layout.addWidget(self.auto)
        layout.addWidget(self.progress)
        layout.addWidget(self.message)
        layout.addWidget(self._after)
        layout.addWidget(self.cells_box)
        layout.addStretch()
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        self._area = scrolled(inside)
        outer.addWidget(self._area)
        self.setMinimumWidth(310)

    def _connect(self) -> None:
        self._settled, self._gather = QTimer(self), QTimer(self)
        for timer, wait, then in (
            (self._settled, _SETTLED, self._prepare_preview),
            (self._gather, _GATHER, self._take_arrived),
        ):
            timer.setSingleShot(True)
            timer.setInterval(wait)
            timer.timeout.connect(then)
        self.run_button.clicked.connect(self.classify)
        self.cancel_button.clicked.connect(self.cancel)
        self.image_box.changed.connect(self._on_image)
        self.results_box.plane_picked.connect(self._on_plane_picked)
        self.results_box.object_picked.connect(self._on_object_picked)
        self.results_box.save_requested.connect(self._on_save)
        self.results_box.masks_requested.connect(self._on_masks_requested)
        self.mask_box.changed.connect(self._make_masks)
        self.mask_box.class_changed.connect(self._prepare_preview)
        self.adds_box.kind_changed.connect(self._on_kind)
        self.adds_box.cells_changed.connect(self._prepare_preview)
        self.adds_box.cells.search_requested.connect(self._on_search)
        self.mask_box.apply_requested.connect(self._apply_to_all)
        self.mask_box.map_requested.connect(self._on_map)
        self.mask_box.evidence_requested.connect(self._on_evidence)
        self.cells_box.classify_requested.connect(self._on_cells)
        self.export_box.export_requested.connect(self._on_export)
        connect_while_alive(current.changed, self._on_model, self)
        connect_while_alive(self.viewer.dims.events.current_step, self._on_moved, self)
        connect_while_alive(self.viewer.layers.events.inserted, self._on_inserted, self)
        connect_while_alive(self.viewer.layers.events.removed, self._on_removed, self)

    # State

    @property
    def busy(self) -> bool:
        """Whether a job runs."""
        return self._job is not None

    def entry(self) -> ImageState | None:
        """Return what is known of the image that is chosen."""
        layers = self.image_box.chosen()
        return next((entry for entry in self.images if entry.layers == layers), None) if layers else None

    def plane(self) -> int | None:
        """Return the number of the plane in view, of the image that is chosen."""
        entry = self.entry()
        if entry is None or entry.source is None:
            return None
        return entry.source.plane_at(self.viewer.dims.point, getattr(self.viewer.dims, "units", None))

    def _say(self, text: str, colour: str = "") -> None:
        self.message.say(text, colour)

    def _on_model(self, model: TrainedModel | None) -> None:
        """Offer the channels and classes of another model; results of the model before are forgotten, images wait."""
        if self._job is not None:
            self._job.stop()
        for entry in [one for one in self.images if one not in self._queue or one.predictions]:
            self._forget(entry)
        self.image_box.set_channels(model.channels if model else ())
        self.mask_box.set_classes(model.classes if model else ())
        if model is not None and model.card.evidence is not None:
            self.adds_box.choose(model.card.evidence.kind, model.card.evidence.detail)
        self._refresh()
        self._start_queue()

    def _on_image(self) -> None:
        self._refresh()
        self._settled.start()

    def _refresh(self) -> None:
        """Enable what can be done, and show the results of the chosen image."""
        model, entry = current.model, self.entry()
        self.adds_box.cells.show_image(self.image_box.chosen())
        ready = model is not None and bool(self.image_box.chosen()) and not self.image_box.problem
        self.run_button.setEnabled(ready and not self.busy)
        self.cancel_button.setEnabled(self.busy)
        self.cells_box.button.setEnabled(ready and not self.busy and self.cells_box.layers.count() > 0)
        self._after.setVisible(bool(self.images))
        self.mask_box.setVisible(entry is not None and bool(entry.masks))
        self.mask_box.apply.setVisible(entry is not None and len(entry.predictions) > 1)
        self.mask_box.apply.setEnabled(not self.busy)
        self.export_box.setEnabled(entry is not None and bool(entry.predictions) and not self.busy)
        if entry is not None and entry.model is not None:
            self.results_box.show_objects(objects_of(entry), entry.model.classes)
        else:
            self.results_box.show_objects(pd.DataFrame(), ())
        self._show_plane()

    def _show_plane(self) -> None:
        entry, plane = self.entry(), self.plane()
        prediction = entry.predictions.get(plane) if entry is not None and plane is not None else None
        hidden, counts = False, {}
        if entry is not None and plane in entry.masks:
            hidden = entry.hides_masks(plane) and not entry.masks[plane].shown.empty
            counts = entry.masks[plane].counts
        self.results_box.show_prediction(prediction, hides_masks=hidden, counts=counts)
        self.results_box.empty.say("" if prediction or not self.images else "Not classified yet.")
        self._say_count()

    def _say_count(self) -> None:
        entry, plane = self.entry(), self.plane()
        masks = entry.masks.get(plane) if entry is not None and plane is not None else None
        if masks is None or entry is None or entry.source is None:
            self.mask_box.count.setText("")
            return
        size = entry.source.image.pixel_size
        area = float(masks.shown["area_px"].sum())
        self.mask_box.say_count(len(masks.shown), area * (size or 1) ** 2, "µm²" if size else "px")

    def _on_moved(self, _event: Any = None) -> None:
        self._show_plane()
        self._settled.start()

    # Run

    def classify(self) -> None:
        """Classify the chosen image: the plane in view, or all."""
        if current.model is None or self.busy:
            return
        try:
            entry = self._state_of_layers(self.image_box.source())
        except MilcnnError as error:
            self._say(str(error), ERROR)
            return
        self._start([entry])

    def cancel(self) -> None:
        """Stop what runs; what is finished is kept."""
        self._queue.clear()
        if self._job is not None:
            self._job.stop()
            self.cancel_button.setEnabled(False)
            self._say("stopping…")

    def _state_of_layers(self, source: LayerImage) -> ImageState:
        """Return the state of the chosen layers: the one that exists if it is read in the same way, else a new one."""
        layers, model = self.image_box.chosen(), current.model
        z: ZReading = self.image_box.z.currentData() if "Z" in source.axes else "planes"
        before = self.entry()
        same = before is not None and before.model is model and before.z == z and _alike(before.source, source)
        entry = (
            before if same and before is not None else ImageState(source.image.name, layers=layers, source=source, z=z)
        )
        if entry is not before:
            self._replace(before, entry)
        entry.model, entry.source = model, source  # the layer may have been moved meanwhile
        entry.wanted = self._wanted_planes(source)
        return entry

    def _wanted_planes(self, source: LayerImage) -> tuple[int, ...] | None:
        """Return the plane in view if only that one is wanted; None for all."""
        plane = source.plane_at(self.viewer.dims.point, getattr(self.viewer.dims, "units", None))
        return (plane,) if self.image_box.this_plane.isChecked() and plane is not None else None

    def _replace(self, before: ImageState | None, entry: ImageState) -> None:
        if before is not None:
            self._forget(before)
        self.images.append(entry)

    def _forget(self, entry: ImageState) -> None:
        """Remove an image from the list; results that a job still yields for it are ignored."""
        self.images.remove(entry)
        self._queue = [one for one in self._queue if one is not entry]
        self._leave(entry)
        self.results_box.planes.forget(entry)

    def _leave(self, entry: ImageState) -> None:
        self.writer.let_go(entry)
        if self._preview is not None and self._preview.entry is entry:
            self._preview = None
        if self._preview_job is not None and self._preview_image is entry:
            self._preview_job.stop()

    def _on_removed(self, _event: Any = None) -> None:
        """Forget the images whose layers were removed; the scores of a dropped file stay in the table."""
        for entry in list(self.images):
            if all(layer in self.viewer.layers for layer in entry.layers):
                continue
            if entry.path is None:
                self._forget(entry)
            else:
                self._leave(entry)
                entry.close()
        if self._job is not None and self._job_images and not any(entry in self.images for entry in self._job_images):
            self._job.stop()
        self._refresh()

    def _evidence_options(self) -> dict[str, Any]:
        return {**form_values(self.options, ComputeOptions), **self.adds_box.options()}

    def _start(self, images: list[ImageState]) -> None:
        """Run over some images, beside the window."""
        model = current.model
        try:
            masks = make_options(MaskOptions, self.mask_box.options())
        except MilcnnError as error:
            self._say(str(error), ERROR)
            return
        assert model is not None
        for entry in images:
            entry.model, entry.state, entry.error = model, "running", ""
            entry.use_cells(self.adds_box.own_cells(entry.layers))
            if not entry.predictions:
                self.results_box.planes.put(entry, None)
        options = self._evidence_options()
        self._run_options = MadeWith(options, self.mask_box.options())
        self._preview = None
        plates = self._plates()
        self._work(lambda: run(model, images, options, masks, plates), self._on_run_step, self._on_run_end, images)

    def _plates(self) -> Plates:
        """Let all images that are open be one plate: what a model that scales intensities by plate goes by here."""
        from napari_milcnn.images.intensity import Plate, Plates

        listed = [layer for entry in self.images for layer in entry.layers]
        return Plates(
            plate=Plate("this viewer", [*(one.open for one in self.images), *self.image_box.openers(but=listed)])
        )

    def _start_queue(self) -> None:
        """Run over the images that wait, where there is a model and nothing runs."""
        if self._queue and current.model is not None and not self.busy:
            queued, self._queue = self._queue, []
            self._start(queued)

    def _work(
        self,
        steps: Callable[[], Iterator[Any]],
        on_step: Callable[[Any], None],
        on_end: Any,
        of: Sequence[ImageState] = (),
    ) -> None:
        """Start the one long job, with its progress; it stops when none of the images it is `of` is left."""
        self._began, self._due = time.monotonic(), 0.0
        self.progress.setValue(0)
        self.progress.setFormat("starting…")
        self.progress.show()
        self._say("")
        self._job_images = list(of)
        self._job = Job(steps, self, on_step, on_end)
        self._refresh()

    def _on_run_step(self, step: Progress[ImageEvent | DroppedImage]) -> None:
        from napari_milcnn.inference.pipeline import ImageEnd, PlaneResult

        entry, event = self._job_images[step.number], step.result
        self._show_share(step.fraction)
        if entry not in self.images:
            return
        if isinstance(event, DroppedImage) and not any(one.layers for one in self._dropped(entry)):
            self._show_dropped(entry, event.image, event.limits)
        if isinstance(event, PlaneResult):
            self._take(entry, event, self._run_options)
            self.results_box.planes.put(entry, event.plane)
            if event.problem:
                self._say(event.problem, ERROR)
        if isinstance(event, ImageEnd):
            entry.state, entry.error = ("failed", event.failure) if event.failure else ("done", "")
            self.results_box.planes.changed(entry)
            if event.failure:
                self._say(event.failure, ERROR)

    def _take(self, entry: ImageState, result: PlaneResult, how: MadeWith) -> None:
        """Keep what was found in a plane, made with some options of evidence and masks, and show it now and then."""
        entry.take(result)
        entry.made_with[result.plane] = replace(how, cells=entry.cells)
        if entry.source is not None:
            self.writer.write(entry, result.plane, result.masks)
        self._draw_now_and_then(entry)

    def _dropped(self, entry: ImageState) -> list[ImageState]:
        """Return the images of a drop: the first of them is shown, the others when they are clicked."""
        return [one for one in self.images if one.path is not None] if entry.path is not None else [entry]

    def _draw_now_and_then(self, entry: ImageState) -> None:
        began = time.monotonic()
        if began > self._due:
            self._draw(entry)
            self._due = time.monotonic() + max(_REDRAW, 10 * (time.monotonic() - began))

    def _draw(self, entry: ImageState) -> None:
        if entry.labels is not None and entry.source is not None and entry in self.images:
            self.writer.refresh_masks(entry)
            self._watch(entry)
        self._refresh()

    def _show_share(self, share: float) -> None:
        spent = time.monotonic() - self._began
        left = spent / share - spent if share > 0.02 else None
        self.progress.setValue(round(share * 1000))
        self.progress.setFormat(f"{share:.0%}" + (f" · {duration(left)} left" if left is not None else ""))

    def _on_run_end(self, ending: Ending) -> None:
        running = [entry for entry in self.images if entry.state == "running"]
        for entry in running:
            entry.state = "failed" if ending.error else "stopped"
            entry.error = ending.error
            self.results_box.planes.changed(entry)
        finished = [entry for entry in self._job_images if entry in self.images]
        self._end(ending, self._run_summary())
        for entry in finished:
            self._add_class_maps(entry)
        shown = self.entry()
        if shown is not None:
            self._choose_top_class(shown)
            self._draw(shown)
            self._warn(shown)
            self._prepare_preview()
            QTimer.singleShot(0, self._scroll_to_result)  # once its parts have their sizes
        self._start_queue()
        if (
            not self.busy
            and shown is not None
            and set(shown.predictions) > set(shown.masks)
            and shown.source is not None
        ):
            self._make_all_masks(shown)

    def _end(self, ending: Ending, done: str) -> None:
        self._job, self._job_images = None, []
        self.progress.hide()
        if ending.error:
            self._say(ending.error, ERROR)
        elif ending.stopped:
            kept = any(entry.predictions for entry in self.images)
            self._say("Stopped. Finished planes are kept." if kept else "Stopped.", WARNING)
        elif self.message.styleSheet() != f"color: {ERROR};":
            self._say(done)
        self._refresh()

    def _run_summary(self) -> str:
        planes = sum(len(entry.predictions) for entry in self.images)
        seconds = time.monotonic() - self._began
        return f"{planes} plane{'s' if planes != 1 else ''} classified, {duration(seconds)}."

    def _warn(self, entry: ImageState) -> None:
        """Show what was done to the image."""
        if not entry.predictions or entry.state != "done":
            return
        first = next(iter(entry.predictions.values()))
        facts = ([] if first.plate is None else [first.plate.sentence]) + list(first.notes)
        if facts:
            self._say(" ".join((self.message.text(), *map(_fact_sentence, facts))), WARNING if first.notes else "")

    def _choose_top_class(self, entry: ImageState) -> None:
        plane = self.plane()
        if plane in entry.predictions and entry.predictions[plane].has_structure[0]:
            self.mask_box.choose_class(entry.predictions[plane].top[0])

    def _scroll_to_result(self) -> None:
        self._area.ensureWidgetVisible(self.results_box.plane_table)
        self._area.ensureWidgetVisible(self.results_box.title)

    def _on_masks_requested(self) -> None:
        """Draw the masks of planes that are unlike the training images too."""
        entry = self.entry()
        if entry is not None:
            entry.shows_unlike = True
            for plane, masks in entry.masks.items():
                self.writer.write(entry, plane, masks)
            self._draw(entry)

    # Drop, and images that open

    def dragEnterEvent(self, event: Any) -> None:
        """Take files."""
        if event.mimeData().hasUrls():
            event.acceptProposedAction()

    def dropEvent(self, event: Any) -> None:
        """Open what was dropped."""
        paths = [Path(url.toLocalFile()) for url in event.mimeData().urls() if url.isLocalFile()]
        event.acceptProposedAction()
        self.open_files(paths)

    def open_files(self, paths: list[Path]) -> None:
        """Take a model zip as the model; open images and folders of images lazily and classify them in turn."""
        from napari_milcnn.images.paths import find_images, image_name

        models = [path for path in paths if path.suffix.lower() == ".zip"]
        if models:
            self.model_box.load(models[0])
        images = [path for path in paths if path not in models]
        if not images:
            return
        try:
            found = find_images(images)
        except MilcnnError as error:
            self._say(str(error), ERROR)
            return
        dropped = [ImageState(image_name(path), path=path) for path in found]
        self.images += dropped
        for entry in dropped:
            self.results_box.planes.put(entry, None)
        self._later(dropped)

    def _later(self, images: list[ImageState]) -> None:
        """Run over some images now, or after what runs."""
        self._queue += images
        if current.model is None:
            self._say("Choose a model first; the images wait.", WARNING)
        self._start_queue()
        self._refresh()

    def _show_dropped(self, entry: ImageState, image: Any, limits: Any) -> None:
        reading = self.writer.open(entry, image, limits)
        self.image_box.remember(entry.layers, reading)
        self._choose(entry)

    def _choose(self, entry: ImageState) -> None:
        """Choose an image, and select its layers: the choice follows what is selected."""
        self.image_box.choose(entry.layers)
        self.viewer.layers.selection = set(entry.layers)

    def _on_inserted(self, event: Any) -> None:
        layer = event.value
        if self.auto.isChecked() and isinstance(layer, Image) and OURS not in layer.metadata and layer.source.path:
            self._arrived.append(layer)
            self._gather.start()

    def _take_arrived(self) -> None:
        """Classify the images that just opened, the layers of one file together."""
        arrived, self._arrived = [layer for layer in self._arrived if layer in self.viewer.layers], []
        images = []
        while arrived and current.model is not None:
            self.image_box.choose_with(arrived[0])
            group = self.image_box.chosen()
            arrived = [layer for layer in arrived if layer not in group]
            try:
                images.append(self._state_of_layers(self.image_box.source()))
            except ImageError as error:
                self._say(str(error), ERROR)
        if images:
            self._later(images)

    # Look

    def _on_plane_picked(self, entry: ImageState, plane: int) -> None:
        if entry.source is None:
            self._open_entry(entry)
        if entry.source is not None:
            self._choose(entry)
            if plane >= 0:
                self.writer.go_to(entry, plane)

    def _open_entry(self, entry: ImageState) -> None:
        """Open the layers of a dropped image that was not looked at yet, and make its masks."""
        try:
            self._show_dropped(entry, entry.open(), None)
        except MilcnnError as error:
            self._say(str(error), ERROR)
            return
        if entry.predictions and not self.busy:
            self._make_all_masks(entry)

    def _on_object_picked(self, row_number: int) -> None:
        entry = self.entry()
        if entry is None:
            return
        found = self.results_box.objects.frame
        picked, layer = found.iloc[row_number], self.writer.masks_of(entry)
        self.writer.go_to(entry, int(picked["plane"]), (float(picked["y"]), float(picked["x"])))
        if layer is not None and picked["index"] > 0:
            layer.selected_label = int(picked["index"])

    def _watch(self, entry: ImageState) -> None:
        """Follow the label that the user picks in the mask layer."""
        layer = self.writer.masks_of(entry)
        if layer is not None and layer != self._watched_labels:
            self._watched_labels = layer
            connect_while_alive(layer.events.selected_label, self._on_label, self)

    def _on_label(self, event: Any) -> None:
        entry = self.entry()
        if entry is not None and self.writer.masks_of(entry) == event.source:  # napari gives proxies
            self.results_box.select_object(int(event.source.selected_label))

    def _add_class_maps(self, entry: ImageState) -> None:
        """Show the class maps of the classes that were chosen before the run."""
        if entry.source is not None:
            for name in self.adds_box.classes_of(entry.predictions.values()):
                self.writer.put_class_map(entry, name)

    def _on_map(self, name: str) -> None:
        entry = self.entry()
        if entry is not None and entry.predictions:
            self.writer.put_class_map(entry, name)

    def _on_evidence(self, name: str) -> None:
        preview = self._preview
        if preview is None or name not in preview.names or not self._is_current(preview):
            self._prepare_preview(then=lambda: self._on_evidence(name))
            return
        evidence = preview.evidence.maps[preview.names.index(name)]
        self.writer.put_evidence(preview.entry, name, preview.how["kind"], preview.plane, evidence)

    def _on_kind(self) -> None:
        self.mask_box.set_kind(self.adds_box.kind.currentData())
        self._prepare_preview()

    # The mask preview

    def _prepare_preview(self, then: Callable[[], None] | None = None) -> None:
        """Have the evidence of the plane in view made, for the classes it shows and the one chosen."""
        entry, plane = self.entry(), self.plane()
        if entry is None or plane not in entry.predictions or entry.source is None or self.busy:
            return
        if not entry.predictions[plane].has_structure[0]:
            return
        names = self._preview_classes(entry, plane)
        if self._preview is not None and self._is_current(self._preview) and set(names) <= set(self._preview.names):
            self._show_threshold()
            return
        if self._preview_job is not None:
            self._preview_job.stop()
        model, options, image = entry.model, self._evidence_options(), entry.source.image
        prediction, how, cells = entry.predictions[plane], self.adds_box.options(), self._own_cells(entry)
        assert model is not None
        read_cells = cells.reader(entry.source) if cells is not None else None
        steps = _EvidenceSteps(model, options, image, prediction, names, read_cells)

        def keep(evidence: PlaneEvidence) -> None:
            if self._preview_job is not job or entry not in self.images:
                return
            self._preview = MaskPreview(entry, plane, how, cells, names, evidence)
            made = entry.made_with.get(plane)
            if made is not None and how.items() <= made.evidence.items() and cells == made.cells:
                self._show_threshold()
            else:
                self._make_masks()
            if then is not None:
                then()

        def end(ending: Ending) -> None:
            if self._preview_job is job:
                self._preview_job = None
            if ending.error:
                self._say(ending.error, ERROR)

        job = self._preview_job = Job(steps, self, keep, end)
        self._preview_image = entry

    def _preview_classes(self, entry: ImageState, plane: int) -> tuple[str, ...]:
        prediction, least = entry.predictions[plane], float(str(self.mask_box.options()["present"]))
        scores = prediction.scores[0]
        shown = {
            name for name, score in zip(prediction.classes, scores, strict=True) if score >= min(least, scores.max())
        }
        return tuple(name for name in prediction.classes if name in shown | {self.mask_box.class_name})

    def _is_current(self, preview: MaskPreview) -> bool:
        entry, cells = preview.entry, self._own_cells(preview.entry)
        now = (self.entry(), self.plane(), self.adds_box.options(), cells)
        return (entry, preview.plane, preview.how, preview.cells) == now

    def _own_cells(self, entry: ImageState) -> OwnCells | None:
        return self.adds_box.own_cells(entry.layers)

    def _make_masks(self) -> None:
        """Make the mask of the plane in view as the sliders say."""
        from napari_milcnn.inference.masks import segment_plane

        preview, entry = self._preview, self.entry()
        if entry is None or preview is None or not self._is_current(preview):
            self._prepare_preview(then=self._make_masks)
            return
        plane, model = preview.plane, entry.model
        assert model is not None
        assert entry.source is not None
        if not set(self._preview_classes(entry, plane)) <= set(preview.names):
            self._prepare_preview(then=self._make_masks)
            return
        options = make_options(MaskOptions, self.mask_box.options())
        size, own = entry.source.image.pixel_size, model.card.thresholds_for(preview.how["kind"])
        entry.masks[plane] = segment_plane(
            preview.evidence, entry.predictions[plane], preview.names, options, size, own
        )
        entry.made_with[plane] = MadeWith(self._evidence_options(), self.mask_box.options(), preview.cells)
        self.writer.write(entry, plane, entry.masks[plane])
        self._show_threshold()
        self._draw(entry)

    def _show_threshold(self) -> None:
        preview, entry, name = self._preview, self.entry(), self.mask_box.class_name
        if preview is None or entry is None or name not in preview.names or not self._is_current(preview):
            return
        used = entry.masks[preview.plane].thresholds if preview.plane in entry.masks else {}
        highest = float(preview.evidence.maps[preview.names.index(name)].max())
        self.mask_box.show_threshold(used.get(name), highest)

    def _apply_to_all(self) -> None:
        entry = self.entry()
        if entry is not None and entry.predictions and not self.busy:
            self._make_all_masks(entry)

    def _make_all_masks(self, entry: ImageState) -> None:
        """Make the masks of every classified plane again, as the sliders say."""
        options, how = self._evidence_options(), self.mask_box.options()
        masks = make_options(MaskOptions, how)
        model, source, predictions = entry.model, entry.source, dict(entry.predictions)
        entry.use_cells(self._own_cells(entry))
        self._preview, read_cells = None, entry.read_cells
        assert model is not None
        assert source is not None

        def steps() -> Steps[ImageEvent]:
            from napari_milcnn.inference.evidence import EvidenceMaker
            from napari_milcnn.inference.pipeline import ImageRequest, analyse
            from napari_milcnn.inference.predict import joined

            whole = joined(list(predictions.values()))
            name = str(entry.path or entry.name)
            request = ImageRequest(
                name, lambda: source.image, masks=masks, objects=read_cells, prediction=whole, keep_open=True
            )
            yield from analyse(EvidenceMaker(model, **options), [request])

        def on_step(step: Progress[ImageEvent]) -> None:
            from napari_milcnn.inference.pipeline import ImageEnd, PlaneResult

            self._show_share(step.fraction)
            if entry not in self.images:
                return
            if isinstance(step.result, PlaneResult):
                self._take(entry, step.result, MadeWith(options, how))
            problem = step.result.problem if isinstance(step.result, PlaneResult) else ""
            failure = step.result.failure if isinstance(step.result, ImageEnd) else ""
            if problem or failure:
                self._say(problem or failure, ERROR)

        def on_end(ending: Ending) -> None:
            self._end(ending, "The masks of all planes were updated.")
            self._draw(entry)
            self._prepare_preview()

        self._work(steps, on_step, on_end, [entry])

    # Cells, tables, export

    def _on_cells(self, layer: Labels) -> None:
        """Classify the cells of a labels layer one by one."""
        model, source = current.model, self._source_for_job()
        if model is None or source is None:
            return
        options, read = form_values(self.options, ComputeOptions), OwnCells(layer).reader(source)
        plates = self._plates()
        facts: list[str] = []

        def steps() -> Iterator[tuple[np.ndarray, pd.DataFrame]]:
            from napari_milcnn.inference.cells import classify_cells

            labels = read(source.image)
            image = plates.open(source.image)
            yield labels.numbers, classify_cells(model, image, labels, on_warning=facts.append, **options)

        def on_step(found: tuple[np.ndarray, pd.DataFrame]) -> None:
            labels, table = found
            self._show_cells(layer, source, labels, table, model.classes)

        def on_end(ending: Ending) -> None:
            self._end(ending, "Cells classified.")
            if facts and not ending.error:
                self._say(" ".join((self.message.text(), *map(_fact_sentence, facts))), WARNING)

        self._work(steps, on_step, on_end)

    def _source_for_job(self) -> LayerImage | None:
        """Open the chosen image for a job with the current model; None, and the reason in the dock, if it cannot be."""
        if current.model is None or self.busy:
            self._say("Another job is running." if self.busy else "Choose a model first.", WARNING)
            return None
        try:
            return self.image_box.source()
        except MilcnnError as error:
            self._say(str(error), ERROR)
            return None

    def _on_search(self, segmenter: Segmenter) -> None:
        """Find the cells of the planes that a run would classify with another program, and choose them."""
        model, source = current.model, self._source_for_job()
        if model is None or source is None:
            return
        planes = self._wanted_planes(source) or range(len(source.image.planes))
        search = CellSearch(segmenter, self.image_box.chosen(), source, model, self._evidence_options(), planes)

        def on_step(step: Progress[tuple[int, np.ndarray]]) -> None:
            self._show_share(step.fraction)
            search.take(step)

        def on_end(ending: Ending) -> None:
            layer = self.writer.add(search.layer()) if search.has_cells else None
            self._end(ending, "")
            if layer is not None:
                layer.contour = _OUTLINE  # the masks in the colours of their classes stay in sight
            if layer is not None and search.is_complete:
                self.adds_box.cells.choose(OwnCells(layer), search.layers)
            self._say(*search.said(layer.name if layer is not None else "", ending))

        self._work(search.steps, on_step, on_end)

    def _show_cells(
        self, layer: Labels, source: LayerImage, labels: np.ndarray, table: pd.DataFrame, classes: tuple[str, ...]
    ) -> None:
        data = cells_layer(source, labels, table, classes, f"{layer.name} classified")
        layer.features = cell_features(table)
        self.writer.put(layer, data)
        counts = table["top"].value_counts()
        self.cells_box.message.say(", ".join(f"{name} {counts[name]}" for name in classes if name in counts))

    def _on_save(self, path: str) -> None:
        from napari_milcnn.results.write import prediction_rows, write_table

        try:
            if path.endswith("objects.csv") or self.results_box.tabs.currentIndex() == 1:
                write_table(Path(path), self.results_box.objects.frame)
            else:
                found = [(entry, entry.prediction) for entry in self.images]
                rows = [prediction_rows(_file(one), one.name, each, one.counts) for one, each in found if each]
                if not rows:
                    raise ImageError("nothing was classified yet; click Classify first")
                write_table(Path(path), pd.concat(rows, ignore_index=True))
        except MilcnnError as error:
            self._say(str(error), ERROR)
            return
        self._say(f"saved {path}")

    def _on_export(self, folder: Path, parts: list[str]) -> None:
        """Write what was found in the chosen image, and the record of the run."""
        entry = self.entry()
        if entry is None or self.busy or entry.source is None or entry.model is None or not entry.made_with:
            return
        image, model, masks = entry.source.image, entry.model, dict(entry.masks)
        prediction, name, channels = entry.prediction, entry.name, entry.channels
        record = _RecordMaker(entry, model, next(iter(entry.made_with.values())))
        cells = record.made_with.cells
        read_cells = cells.reader(entry.source) if cells is not None else None
        assert prediction is not None

        def steps() -> Iterator[Path]:
            from napari_milcnn.results.export import export_image
            from napari_milcnn.results.findings import Findings
            from napari_milcnn.results.record import room_for, write_record

            place = room_for(folder, record())
            file = str(image.path or image.name)
            own = cells.file if cells is not None else None
            if read_cells is not None and own is None:
                own = place / f"{name}_cells.ome.tif"
                export_cells(own, image, read_cells(image).numbers, masks)
                yield own
            yield from export_image(place, Findings(file, name, image, channels, prediction, masks), parts)
            yield write_record(place, record(own))

        written: list[Path] = []
        note = " The planes have masks of different options; the record holds those of the first plane."
        note = note if any(how != record.made_with for how in entry.made_with.values()) else ""

        def on_end(ending: Ending) -> None:
            place = written[-1].parent if written else folder
            self._end(ending, f"{len(written)} files in {place}.{note}")

        self._work(steps, written.append, on_end)


@dataclass(frozen=True)
class _EvidenceSteps:
    """Makes the evidence of one plane, in a thread."""

    model: TrainedModel
    options: dict[str, Any]
    image: Any
    prediction: Any
    names: tuple[str, ...]
    read_cells: CellsReader | None

    def __call__(self) -> Iterator[PlaneEvidence]:
        from napari_milcnn.inference.evidence import EvidenceMaker

        cells = None if self.read_cells is None else self.read_cells(self.image).numbers
        yield from EvidenceMaker(self.model, **self.options).planes(self.image, self.prediction, self.names, cells)


@dataclass(frozen=True)
class _RecordMaker:
    """Makes the record that `napari-milcnn classify --replay` takes, in a thread."""

    entry: ImageState
    model: TrainedModel
    made_with: MadeWith

    def __call__(self, objects: Path | None = None) -> dict[str, Any]:
        from napari_milcnn.inference.evidence import EvidenceMaker
        from napari_milcnn.plugin.layers_to_image import file_behind
        from napari_milcnn.results.record import classification_record, plate_facts

        evidence, masks = self.made_with.evidence, self.made_with.masks
        assert self.entry.source is not None
        file, reading = file_behind(self.entry.source, self.entry.z)
        planes = sorted(self.entry.predictions)
        every = len(planes) == len(self.entry.source.image.planes)
        record = classification_record(
            EvidenceMaker(self.model, **evidence), [file], classes=self.model.classes, reading=reading,
            mask_options=make_options(MaskOptions, masks), planes=[None if every else planes], names=[self.entry.name],
            objects=objects, command=["napari"],
        )  # fmt: skip
        plate = plate_facts(self.entry.predictions[planes[-1]].plate)
        return record | ({"images": [{"file": str(file.absolute()), **plate}]} if plate and file is not None else {})


def _fact_sentence(fact: str) -> str:
    return f"{fact[0].upper()}{fact[1:].rstrip('.')}."


def _alike(before: LayerImage | None, now: LayerImage) -> bool:
    """Whether two readings of the same layers give the same planes."""
    if before is None:
        return False
    facts = [
        (one.axes, one.image.axes, one.image.shape, one.image.channels, one.image.pixel_size) for one in (before, now)
    ]
    return facts[0] == facts[1]


def _file(entry: ImageState) -> str:
    path = entry.path or (entry.source.image.path if entry.source else None)
    return str(path or entry.name)


def _devices(preferred: str) -> list[str]:
    return list(dict.fromkeys([*DEVICES, preferred]))
