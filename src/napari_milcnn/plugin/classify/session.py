"""What the Classify dock knows and does, without a window.

The dock draws the session, and tells it what the user did. Jobs get frozen requests (`jobs`) and yield what they find.
Records (`records`) are replaced, never changed, so that what was there before can be put back.

Results belong to the model that made them. Another model, or none, leaves them where they are. They go when the user
removes them, and `undo` brings them back.

A notice belongs to its cause, a `Cause`, and goes when the cause is done again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from psygnal import Signal

from napari_milcnn.errors import MilcnnError, OptionsError
from napari_milcnn.options import EvidenceOptions, MaskOptions, make_options
from napari_milcnn.plugin.classify.jobs import (
    CellsRequest,
    ClassifiedCells,
    ExportRequest,
    ImageToRun,
    ImageToShow,
    MasksRequest,
    OneJob,
    RunRequest,
    StartJob,
    check_planes,
)
from napari_milcnn.plugin.classify.preview import MaskPreview
from napari_milcnn.plugin.classify.records import (
    Cause,
    ImageList,
    ImageRecord,
    ImageState,
    MadeWith,
    ModelFacts,
    PlaneFound,
    Settings,
    cells_reader,
)
from napari_milcnn.plugin.qt.notices import Level, Notices, as_sentence
from napari_milcnn.progress import Progress, duration

if TYPE_CHECKING:
    import numpy as np
    from napari.layers import Image, Layer

    from napari_milcnn.images.intensity import Plates
    from napari_milcnn.images.stack import ImageStack
    from napari_milcnn.inference.pipeline import ImageEvent
    from napari_milcnn.inference.predict import Prediction
    from napari_milcnn.model.trained_model import TrainedModel
    from napari_milcnn.options import ZReading
    from napari_milcnn.plugin.classify.own_cells import OwnCells
    from napari_milcnn.plugin.classify.segmenters import CellSearch
    from napari_milcnn.plugin.layers_to_image import LayerImage
    from napari_milcnn.plugin.qt.job import Ending


_MOST_LINES = 4
"""Notices of one kind that a run leaves; the rest are counted."""


OtherImages = Callable[[Sequence["Image"]], Sequence[Callable[[], "ImageStack"]]]
"""Given some layers, functions that open the images of the viewer that have none of them."""


@dataclass(frozen=True)
class Classify:
    """What to classify: layers read as an image, which of its planes (None for all), and the user's own cells in it."""

    layers: tuple[Image, ...]
    source: LayerImage
    z: ZReading = "planes"
    planes: tuple[int, ...] | None = None
    cells: OwnCells | None = None


@dataclass(frozen=True)
class _Waiting:
    """An image that waits for a run."""

    key: int
    planes: tuple[int, ...] | None = None
    cells: OwnCells | None = None


class ClassifyRun:
    """A run that is going on: its images, what its masks are made with, and what it has found so far."""

    def __init__(self, session: ClassifySession, waiting: tuple[_Waiting, ...]) -> None:
        self._session, self._images, self._settings = session, session.images, session.settings
        self._waiting = waiting
        self.keys = tuple(one.key for one in waiting)
        self.planes: dict[int, int] = {}
        self.problems: list[str] = []

    def request(self, model: TrainedModel) -> RunRequest:
        """Return what the job gets."""
        images = tuple(self._to_run(one) for one in self._waiting)
        return RunRequest(model, images, self._settings, viewer_plates(self._session))

    def _to_run(self, one: _Waiting) -> ImageToRun:
        record = self._images.records[one.key]
        read_cells = cells_reader(record, one.cells)
        return ImageToRun(
            one.key, str(record.path or record.name), record.open, one.planes, record.source is not None, read_cells
        )

    def step(self, step: Progress[ImageEvent | ImageToShow]) -> None:
        """Take what the job found, unless the user removed the image meanwhile."""
        from napari_milcnn.inference.pipeline import ImageEnd, PlaneResult

        self._session.job.progressed.emit(step.fraction)
        place, event = min(step.number, len(self.keys) - 1), step.result
        key = self.keys[place]
        if key not in self._images.records:
            return
        if isinstance(event, ImageToShow) and self._images.records[key].source is None:
            self._session.image_opened.emit((key, event))
        if isinstance(event, PlaneResult):
            self.planes[key] = self.planes.get(key, 0) + 1
            made_with = MadeWith(self._settings, self._waiting[place].cells)
            self._images.put_plane(key, event.plane, PlaneFound.of(event, made_with))
            self._say_problem(key, event.problem)
        if isinstance(event, ImageEnd):
            state = ImageState.FAILED if event.failure else ImageState.DONE
            self._images.change(key, state=state, error=event.failure)
            self._say_problem(key, event.failure)

    def _say_problem(self, key: int, problem: str) -> None:
        if problem and problem not in self.problems:
            self.problems.append(problem)
            if len(self.problems) <= _MOST_LINES:
                self._session.notices.say(Cause.RUN, problem, Level.ERROR, key)

    def end(self, ending: Ending) -> None:
        """Say how the run ended, and let the session go on."""
        state = ImageState.FAILED if ending.error else ImageState.STOPPED
        for key in self.keys:
            if key in self._images.records and self._images.records[key].state is ImageState.RUNNING:
                self._images.change(key, state=state, error=ending.error)
        known = {key: self._images.records[key] for key in self.keys if key in self._images.records}
        self._session.notices.say(Cause.RUN, *self._summary(known, ending))
        hidden = len(self.problems) - _MOST_LINES
        if hidden > 0:
            more = f"{hidden} more images have problems; the table of planes says which."
            self._session.notices.say(Cause.RUN, more, Level.ERROR)
        for sentence in _done_to([known[key] for key in self.planes if key in known]):
            self._session.notices.say(Cause.RUN, *sentence)
        self._session.run_is_over(tuple(known), stopped=ending.stopped)

    def _summary(self, known: Mapping[int, ImageRecord], ending: Ending) -> tuple[str, Level, int | None]:
        names = [known[key].name for key in self.planes if key in known]
        about = next(iter(known)) if len(known) == 1 else None
        count = sum(self.planes[key] for key in self.planes if key in known)
        planes = f"{count} plane{'s'[: count != 1]} of {_few(names)} classified"
        if ending.error:
            return ending.error, Level.ERROR, about
        if ending.stopped:
            return f"Stopped. {planes}; finished planes are kept." if names else "Stopped.", Level.WARNING, about
        seconds = duration(self._session.job.seconds).replace(" ", "\u00a0")
        return f"{planes}, {seconds}." if names else "", Level.NOTE, about


class ClassifySession:
    """The images of a viewer, what models found in them, and the one job that runs.

    Attributes
    ----------
    images : ImageList
        The images, and what was found in them.
    settings : Settings
        Options of the next run.
    notices : Notices
        What there is to say.
    preview : MaskPreview
        The masks of the plane in view, which follow the settings at once.
    model : TrainedModel or None
        The current model.
    layers, plane, cells
        The layers of the image in view, the number of the plane in view, and the user's own cells in that image.
    other_images : callable
        Returns functions that open the images of the viewer, without those of some layers: a model that scales
        intensities by plate goes by them, too.
    arrived : tuple of Image
        Layers that opened just now, which are to be classified.
    job : OneJob
        The job that runs.
    changed : Signal
        What can be done, or what is in view, changed.
    settings_changed : Signal
        `settings` are those of the masks in view, after an undo.
    image_opened : Signal
        A file was opened, (key, `ImageToShow`): the viewer should show it, and call `shown`.
    run_ended : Signal
        A run over some images (keys) ended.
    """

    changed = Signal()
    settings_changed = Signal()
    image_opened = Signal(tuple)
    run_ended = Signal(object)

    def __init__(self) -> None:
        self.images = ImageList()
        self.settings = Settings()
        self.notices = Notices()
        self.preview = MaskPreview(self)
        self.model: TrainedModel | None = None
        self.layers: tuple[Image, ...] = ()
        self.plane: int | None = None
        self.cells: OwnCells | None = None
        self.other_images: OtherImages = lambda but: ()
        self.arrived: tuple[Image, ...] = ()
        self.job = OneJob()
        self._facts: ModelFacts | None = None
        self._picked: int | None = None
        self._queue: tuple[_Waiting, ...] = ()

    # What is in view

    @property
    def busy(self) -> bool:
        """Whether a job runs."""
        return self.job.busy

    @property
    def in_view(self) -> ImageRecord | None:
        """The image that is chosen, with the results of the current model, else with those of the last other one."""
        found = self.images.of_layers(self.layers)
        picked = [one for one in found if one.key == self._picked]
        own = [one for one in found if self.is_current(one)]
        return next(iter([*picked, *own, *reversed(found)]), None)

    def is_current(self, image: ImageRecord) -> bool:
        """Whether results are those of the current model; also if there are none yet."""
        return image.model is None or (self._facts is not None and image.model.digest == self._facts.digest)

    def use_model(self, model: TrainedModel | None) -> None:
        """Make another model the current one, or none: a run with the model before ends, and all results stay."""
        if model is self.model:
            return
        self.job.stop()
        self.preview.drop()
        self.model, self._facts = model, ModelFacts.of(model) if model is not None else None
        self._picked = None
        self.notices.clear(Cause.IMAGE)
        self._start_queue()
        self.changed.emit()

    def choose(self, layers: Sequence[Image], cells: OwnCells | None = None, key: int | None = None) -> None:
        """Look at other layers as the image, with the user's own cells; `key` names the results of one model."""
        if tuple(layers) != self.layers:
            self.notices.clear(Cause.IMAGE, Cause.EXPORT)
        self.layers, self.cells = tuple(layers), cells
        known = {one.key for one in self.images.of_layers(layers)}
        self._picked = next((one for one in (key, self._picked) if one in known), None)
        self.changed.emit()

    def look_at(self, plane: int | None) -> None:
        """Look at another plane of the image."""
        if plane != self.plane:
            self.plane = plane
            self.changed.emit()

    def set_options(self, evidence: Mapping[str, object], masks: Mapping[str, object]) -> bool:
        """Change the options of evidence and masks, and return whether they are possible; what is wrong is said."""
        wanted = Settings(dict(evidence), dict(masks))
        self.notices.clear(Cause.MASKS)
        try:
            make_options(EvidenceOptions, evidence)
            make_options(MaskOptions, masks)
        except OptionsError as error:
            self.notices.say(Cause.MASKS, str(error), Level.ERROR)
            return False
        self.settings = wanted
        return True

    # Runs

    def classify(self, wanted: Sequence[Classify]) -> None:
        """Classify images that the viewer shows, now or after what runs."""
        if self.model is None:
            self.notices.say(Cause.IMAGE, "Choose a model first.", Level.WARNING)
            return
        before = dict(self.images.records)
        self._queue += tuple(self._waiting(one) for one in wanted)
        keys = {one.key for one in self._queue} | (before.keys() - self.images.records.keys())
        if any(before[key].planes for key in keys & before.keys()):
            names = _few([self.images.records[one.key].name for one in self._queue])
            self.images.remember(f"the classification of {names}", {key: before.get(key) for key in keys})
        self._start_queue()
        self.changed.emit()

    def open_files(self, paths: Sequence[Path]) -> None:
        """Classify images and folders of images one after another, now or as soon as there is a model."""
        from napari_milcnn.images.paths import find_images, image_name

        self.notices.clear(Cause.IMAGE)
        try:
            found = find_images(list(paths), on_note=lambda sentence: self.notices.say(Cause.IMAGE, sentence))
        except MilcnnError as error:
            self.notices.say(Cause.IMAGE, str(error), Level.ERROR)
            return
        self._queue += tuple(_Waiting(self.images.add(image_name(path), path=path).key) for path in found)
        if self.model is None:
            self.notices.say(Cause.IMAGE, "Choose a model first, or train one; the images wait.", Level.WARNING)
        self._start_queue()
        self.changed.emit()

    def cancel(self) -> None:
        """Stop what runs, and let nothing wait; what is finished is kept."""
        waiting, self._queue = self._queue, ()
        for one in waiting:
            self.images.change(one.key, state=ImageState.STOPPED)
        self.job.stop()
        self.changed.emit()

    def attach(self, starter: StartJob, other_images: OtherImages) -> None:
        """Let a dock start the jobs, and say which images the viewer has."""
        self.release(self.job.starter)
        self.job.starter, self.other_images = starter, other_images

    def release(self, starter: StartJob | None) -> None:
        """Go on without the dock that started the jobs: it was closed, and its job ends with it."""
        if self.job.starter is not starter:
            return
        self.job.starter, self.other_images, self._queue = None, lambda but: (), ()
        self.job.finish()
        self.preview.drop()
        for one in list(self.images.records.values()):
            if one.state in (ImageState.RUNNING, ImageState.WAITING):
                self.images.change(one.key, state=ImageState.STOPPED)

    def shown(self, key: int, layers: Sequence[Image], source: LayerImage) -> None:
        """Take the layers in which the viewer shows the image of a file now, and make the masks that it lacks.

        Raises
        ------
        ImageError
            If its planes are not those that were classified.
        """
        if key in self.images.records:
            check_planes(self.images.records[key], source.image)
            self.images.change(key, layers=tuple(layers), source=source)
            for plane in self.images.records[key].planes:
                self.images.plane_changed.emit((key, plane))
            self.choose(layers, key=key)
            self._complete_masks()

    def layers_removed(self, present: Iterable[Layer]) -> None:
        """Learn which layers are left in the viewer: what was found in the others stays, without layers."""
        left = {id(layer) for layer in present}
        for one in list(self.images.records.values()):
            if one.layers and not all(id(layer) in left for layer in one.layers):
                self.preview.leave(one.key)
                self._queue = tuple(waiting for waiting in self._queue if waiting.key != one.key or one.path)
                if one.planes or one.path is not None:
                    self.images.put(one.without_layers())
                else:
                    self._forget(one.key)
        running = [self.images.records[key] for key in self.job.keys if key in self.images.records]
        if self.job.keys and not any(one.can_open for one in running):
            self.job.stop()
        self.changed.emit()

    # Results

    def remove(self, keys: Iterable[int]) -> None:
        """Remove images and what was found in them from the list, but none that a job works on; `undo` returns them."""
        gone = {key: self.images.records[key] for key in keys
                if key in self.images.records and key not in self.job.keys}  # fmt: skip
        if gone:
            names = [one.name for one in gone.values()]
            self.images.remember(f"the removal of {_few(names)}", gone)
            for key in gone:
                self._forget(key)
            self.changed.emit()
        elif self.busy:
            text = "This image is being worked on; cancel that first, then remove it."
            self.notices.say(Cause.IMAGE, text, Level.WARNING)

    def undo(self, *, again: bool = False) -> None:
        """Put images back as they were before the last action, with the settings of their masks; not during a job.

        With `again`, do what was undone last again, unless something else was done meanwhile.
        """
        if self.busy:
            return
        for key in self.images.redo() if again else self.images.undo():
            self.preview.leave(key)
        self.notices.clear(Cause.RUN, Cause.MASKS)
        image = self.in_view
        found = image.planes.get(self.plane) if image is not None and self.plane is not None else None
        if found is not None and found.masks is not None:
            made = found.made_with.settings
            evidence = {name: made.evidence[name] for name in ("kind", "detail") if name in made.evidence}
            self.settings = Settings({**self.settings.evidence, **evidence}, made.masks)
            self.settings_changed.emit()
        self.changed.emit()

    def show_unlike(self) -> None:
        """Draw the masks of planes of the image in view that are unlike the training images, too."""
        image = self.in_view
        if image is not None:
            self.images.remember(f"showing the masks of {image.name}", {image.key: image})
            self.images.change(image.key, shows_unlike=True)
            for plane in image.planes:
                self.images.plane_changed.emit((image.key, plane))
            self.changed.emit()

    def take_masks(self, key: int, plane: int, found: PlaneFound) -> None:
        """Keep masks of a plane that were made again, if the plane still has the result that they were made for."""
        record = self.images.records.get(key)
        known = record.planes.get(plane) if record is not None else None
        if record is not None and known is not None and known.prediction is found.prediction:
            if known.masks is not None:
                action = f"the masks of {record.name} {record.plane_name(plane)}".rstrip()
                self.images.remember(action, {key: record}, goes_on=True)
            self.images.put_plane(key, plane, found)
            self.changed.emit()

    def make_all_masks(self) -> None:
        """Make the masks of all planes of the image in view again, with the settings of now."""
        record = self.in_view
        if record is not None and record.planes and not self.busy:
            action = f"the masks of all planes of {record.name}"
            self._make_masks(record, tuple(record.planes), "The masks of all planes were updated.", action)

    def classify_cells(self, request: CellsRequest, take: Callable[[ClassifiedCells], None]) -> None:
        """Classify each cell of a label image by itself; `take` shows what was found."""

        def on_step(found: ClassifiedCells) -> None:
            take(found)
            for sentence in found.warnings:
                self.notices.say(Cause.CELLS, as_sentence(sentence), Level.WARNING)

        self.notices.clear(Cause.CELLS)
        self.job.start(request, on_step, partial(self.end_job, Cause.CELLS, "Cells classified."))

    def find_cells(self, search: CellSearch, add: Callable[[], str]) -> None:
        """Find the cells of an image with another program; `add` shows what was found, and names its layer."""

        def on_step(step: Progress[tuple[int, np.ndarray]]) -> None:
            self.job.progressed.emit(step.fraction)
            search.take(step)

        def on_end(ending: Ending) -> None:
            name = add() if search.has_cells else ""
            self.job.finish()
            self.notices.say(Cause.CELLS, *search.said(name, ending))
            self._start_queue()
            self.changed.emit()

        self.notices.clear(Cause.CELLS)
        self.job.start(search.steps, on_step, on_end)

    def export(self, folder: Path, parts: Sequence[str]) -> None:
        """Write what was found in the image in view, and the record of the run."""
        one = self.in_view
        if one is None or self.busy or not one.planes:
            return
        first = next(iter(one.planes.values())).made_with
        model = self.model if self.is_current(one) else None
        request = ExportRequest(one, model, folder, tuple(parts), cells_reader(one, first.cells))
        mixed = any(found.made_with != first for found in one.planes.values())
        note = " The planes have masks of different options; the record holds those of the first plane." * mixed
        written: list[Path] = []

        def on_end(ending: Ending) -> None:
            place = written[-1].parent if written else folder
            self.end_job(Cause.EXPORT, f"{one.name}: {len(written)} files in {place}.{note}", ending, one.key)

        self.notices.clear(Cause.EXPORT)
        self.job.start(request, written.append, on_end, (one.key,))

    def end_job(self, cause: str, done: str, ending: Ending, about: int | None = None) -> None:
        """Note that the job is over, say how it ended, and go on with the images that wait."""
        self.job.finish()
        if ending.error:
            self.notices.say(cause, ending.error, Level.ERROR, about)
        elif ending.stopped:
            self.notices.say(cause, "Stopped. What was finished is kept.", Level.WARNING, about)
        elif not any(one.cause == cause and one.level is Level.ERROR for one in self.notices.all):
            self.notices.say(cause, done, about=about)
        self._start_queue()
        self.changed.emit()

    def _forget(self, key: int) -> None:
        self.preview.leave(key)
        self._queue = tuple(one for one in self._queue if one.key != key)
        self.images.remove(key)
        self.notices.forget(key)

    def _waiting(self, wanted: Classify) -> _Waiting:
        """Put an image on the list, unless the current model knows it as it is read now."""
        found = [one for one in self.images.of_layers(wanted.layers) if self.is_current(one)]
        alike = [one for one in found if one.reading.z == wanted.z and _read_alike(one.source, wanted.source)]
        path = next((one.path for one in self.images.of_layers(wanted.layers)), None)
        for one in found:
            if one not in alike[:1]:
                self._forget(one.key)
        if alike:  # the layer may have been moved meanwhile
            self.images.change(alike[0].key, source=wanted.source)
            return _Waiting(alike[0].key, wanted.planes, wanted.cells)
        image = self.images.add(wanted.source.image.name, path=path, layers=wanted.layers, source=wanted.source)
        self.images.change(image.key, reading=replace(image.reading, z=wanted.z))
        return _Waiting(image.key, wanted.planes, wanted.cells)

    def _start_queue(self) -> None:
        """Run over the images that wait, if there is a model and nothing runs."""
        if not self._queue or self.model is None or self.busy or self.job.starter is None:
            return
        waiting, self._queue = self._queue, ()
        for one in waiting:
            self.images.change(one.key, state=ImageState.RUNNING, error="", model=self._facts)
        run = ClassifyRun(self, waiting)
        self.preview.drop()
        self.notices.clear(Cause.RUN, Cause.MASKS)
        self.job.start(run.request(self.model), run.step, run.end, run.keys)

    def run_is_over(self, keys: tuple[int, ...], *, stopped: bool) -> None:
        """Go on with what waits, once a run is over; `run_ended` tells the dock."""
        self.job.finish()
        self.run_ended.emit(keys)
        self._start_queue()
        if not stopped:
            self._complete_masks()
        self.changed.emit()

    def _complete_masks(self) -> None:
        """Make the masks that the image in view lacks, because it had no layers when it was classified."""
        record = self.in_view
        if record is not None and record.lacks_masks and record.source is not None:
            planes = tuple(plane for plane, found in record.planes.items() if found.masks is None)
            self._make_masks(record, planes, "")

    def _make_masks(self, record: ImageRecord, planes: tuple[int, ...], done: str, action: str = "") -> None:
        """Have the masks of planes made; with an action, they can be undone once there are some."""
        from napari_milcnn.inference.pipeline import ImageEnd, PlaneResult
        from napari_milcnn.inference.predict import joined

        if self.model is None or not self.is_current(record) or record.source is None or self.busy:
            return
        self.preview.drop()
        made_with, undoes = MadeWith(self.settings, self.cells), [action] if action else []
        request = MasksRequest(
            self.model, str(record.path or record.name), record.source.image,
            joined([record.planes[plane].prediction for plane in sorted(planes)]), self.settings,
            cells_reader(record, self.cells),
        )  # fmt: skip

        def on_step(step: Progress[ImageEvent]) -> None:
            self.job.progressed.emit(step.fraction)
            result = step.result
            if isinstance(result, PlaneResult):
                if undoes:
                    self.images.remember(undoes.pop(), {record.key: record})
                self.images.put_plane(record.key, result.plane, PlaneFound.of(result, made_with))
            problem = result.problem if isinstance(result, PlaneResult) else ""
            problem = result.failure if isinstance(result, ImageEnd) else problem
            if problem and record.key in self.images.records:
                self.notices.say(Cause.MASKS, problem, Level.ERROR, record.key)

        def on_end(ending: Ending) -> None:
            self.end_job(Cause.MASKS, done, ending, record.key)

        self.notices.clear(Cause.MASKS)
        self.job.start(request, on_step, on_end, (record.key,))


def viewer_plates(session: ClassifySession) -> Plates:
    """Let all images that are open be one plate: a model that scales intensities by plate goes by these."""
    from napari_milcnn.images.intensity import Plate, Plates

    known = [one for one in session.images.records.values() if one.can_open]
    others = session.other_images([layer for one in known for layer in one.layers])
    return Plates(plate=Plate("this viewer", [*(one.open for one in known), *others]))


def _read_alike(before: LayerImage | None, now: LayerImage) -> bool:
    """Whether two readings of the same layers give the same planes."""
    if before is None:
        return False
    facts = [
        (one.axes, one.image.axes, one.image.shape, one.image.channels, one.image.pixel_size) for one in (before, now)
    ]
    return facts[0] == facts[1]


def _few(names: Sequence[str]) -> str:
    """Name a few things, and count the rest."""
    more = len(names) - 2
    return ", ".join(names[:2]) + (f" and {more} more" if more > 0 else "")


def _done_to(images: Sequence[ImageRecord]) -> Iterator[tuple[str, Level, int | None]]:
    """Say what was done to images before they were classified, each sentence once."""
    of: dict[tuple[str, Level], list[ImageRecord]] = {}
    for one in images:
        for sentence in _facts_of(next(iter(one.planes.values())).prediction):
            of.setdefault(sentence, []).append(one)
    for (text, level), which in list(of.items())[:_MOST_LINES]:
        where = "" if len(images) == 1 else f" ({_few([one.name for one in which])})"
        yield as_sentence(text, where), level, which[0].key if len(which) == 1 else None


def _facts_of(first: Prediction) -> Iterator[tuple[str, Level]]:
    if first.plate is not None:
        yield first.plate.sentence, Level.NOTE
    for warning in first.notes:
        yield warning, Level.WARNING
