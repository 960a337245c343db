"""What the Label tab knows and does: the open labels, the rows that are chosen, and the image that is shown.

A session knows neither Qt nor napari. The tab tells it what the user did, draws what it holds whenever `changed` is
emitted, and carries out the frozen requests that it emits; their reports come back through `take` and `end`.

Decisions:

- A message answers the last thing that the user did, and goes with the next. What stays true, such as a change that
  could not be written, is worked out anew each time.
- Images are told apart by the request that opens them, not by name or row: what an earlier request opens is not shown.
- Every change of labels can be undone. Labels that could not be written are not left without a question.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psygnal import Signal

from napari_milcnn.errors import MilcnnError, OutputError
from napari_milcnn.images.paths import image_name
from napari_milcnn.plugin.qt.notices import Level, Notice, Question
from napari_milcnn.plugin.results_to_layers import Limits
from napari_milcnn.progress import Progress

if TYPE_CHECKING:
    from napari_milcnn.images.stack import ImageStack
    from napari_milcnn.labels.checks import Finding
    from napari_milcnn.labels.labelling import Labelling
    from napari_milcnn.labels.ranking import Ranking
    from napari_milcnn.labels.table import LabelledImage, LabelTable
    from napari_milcnn.model.trained_model import TrainedModel
    from napari_milcnn.plugin.layers_to_image import LayerImage

KEYS = 9
"""Classes that have a number key."""
NOTHING_OPEN = (
    "Open images to label, or drop them here: a folder of images, a folder with one folder per class, a labels.csv, or "
    "an OME-Zarr plate. You can also select image layers and click From layers. To try it first, click Practice images."
)
_ABOUT_PRACTICE = "Each of these files is named after what it shows: add a class for each, then label the images. "
_NO_CLASS = "Add a class for each phenotype: type its name under Classes and press Enter."
_NO_LABEL = (
    "Select an image and press the number of its class (1 to 9), or click the number. Press 0 to clear the label; "
    "Shift+number adds a second label."
)
_NO_MODEL = "What next needs a model. Label a few images of each class, train a first model, then try again."
_LOCKED = "Labels cannot be changed while a training runs."


class LabelState(Enum):
    """What the session works on; labels can be given in every state but EMPTY and OPENING."""

    EMPTY = "nothing is open"
    OPENING = "images are being opened"
    READY = "images are open"
    RANKING = "the images to label next are being looked for"
    CHECKING = "labels are being checked"


@dataclass(frozen=True, eq=False)
class OpenRequest:
    """Open a folder, a table, a plate or images; `planes` gives each plane a label of its own."""

    paths: tuple[Path, ...]
    layout: Path | None = None
    planes: bool = False
    axes: str | None = None

    def steps(self) -> Iterator[Labelling]:
        """Yield the labelling, which from then on belongs to the session."""
        from napari_milcnn.images.open import ImageReading
        from napari_milcnn.labels.labelling import open_labelling

        yield open_labelling(list(self.paths), ImageReading(self.axes), self.layout, self.planes)


@dataclass(frozen=True, eq=False)
class LayersRequest:
    """Open images that the viewer shows: from their files, or after saving those without one to a folder."""

    sources: tuple[LayerImage, ...]
    files: tuple[Path | None, ...]
    folder: Path
    planes: bool = False

    def steps(self) -> Iterator[float | Labelling]:
        """Yield the share of what is to be saved, then the labelling; no file that is there is overwritten."""
        from napari_milcnn.labels.labelling import open_labelling
        from napari_milcnn.results.write import write_plane

        paths = [file for file in self.files if file is not None]
        images = [source.image for source, file in zip(self.sources, self.files, strict=True) if file is None]
        total, done = sum(len(image.planes) for image in images), 0
        for image in images:
            for plane in range(len(image.planes)):
                name = f"{image_name(Path(image.name))} {image.plane_name(plane)}".strip().replace("/", "-")
                paths.append(_free_path(self.folder, name.replace(" ", "_")))
                write_plane(paths[-1], image, plane)
                done += 1
                yield done / total
        yield open_labelling(paths, planes=self.planes)


@dataclass(frozen=True, eq=False)
class PracticeRequest:
    """Copy the shipped images to practise with into a new folder inside one of the user's, and open the copies."""

    folder: Path

    def steps(self) -> Iterator[Labelling]:
        """Yield the labelling of the copies, beside which the labels are written."""
        from napari_milcnn.labels.labelling import open_labelling
        from napari_milcnn.model.shipped import sample_folder

        names = (f"practice{'' if number == 1 else f'-{number}'}" for number in count(1))
        own = next(self.folder / name for name in names if not (self.folder / name).exists())
        try:
            shutil.copytree(sample_folder() / "training" / "images", own)
        except OSError as error:
            raise OutputError(
                f"the practice images could not be copied to {own}: {error}; choose another folder"
            ) from error
        yield open_labelling([own])


def _free_path(folder: Path, name: str) -> Path:
    """Name an image in a folder, with a number where the name is taken."""
    path, number = folder / f"{name}.ome.tif", 2
    while path.exists():
        path, number = folder / f"{name}-{number}.ome.tif", number + 1
    return path


@dataclass(frozen=True, eq=False)
class RankRequest:
    """Rank the images without a label by how much a model would learn from them."""

    model: TrainedModel
    table: LabelTable
    rows: tuple[int, ...]
    known: tuple[int, ...]

    def steps(self) -> Iterator[Progress[Ranking]]:
        """Yield progress, and last the ranking."""
        from napari_milcnn.labels.ranking import rank_images

        yield from rank_images(self.model, self.table, self.rows, known=self.known)


@dataclass(frozen=True, eq=False)
class CheckRequest:
    """Look for labels that may be wrong."""

    table: LabelTable
    model: TrainedModel | None

    def steps(self) -> Iterator[Progress[tuple[Finding, ...]]]:
        """Yield progress, and last the findings."""
        from napari_milcnn.labels.checks import check_labels

        yield from check_labels(self.table, self.model)


@dataclass(frozen=True, eq=False)
class ShowRequest:
    """Open the image of a row to show it."""

    table: LabelTable
    image: LabelledImage

    def steps(self) -> Iterator[tuple[ImageStack, Limits]]:
        """Yield the image, and the intensities that its channels are shown between."""
        from napari_milcnn.plugin.results_to_layers import limits_of

        image = self.table.open(self.image)
        yield image, limits_of(image)


class ShownImage:
    """The image that the user wants to see: of several requests only the last is served.

    Attributes
    ----------
    requested : Signal
        A request to be carried out; `take` and `end` get what comes of it.
    ready : Signal
        The image to show (`ImageStack`), the name of its plane and its `Limits`; None for no image.
    failed : Signal
        Why the image cannot be shown.
    """

    requested = Signal(object)
    ready = Signal(object)
    failed = Signal(str)

    def __init__(self) -> None:
        self._wanted: ShowRequest | None = None
        self._under_way: ShowRequest | None = None

    def want(self, request: ShowRequest | None) -> None:
        """Show another image, or none."""
        self._wanted = request
        if request is not None and self._under_way is None:
            self._request(request)

    def take(self, _request: object, found: tuple[ImageStack, Limits]) -> None:
        """Take the image of the request under way; it is shown if the user still wants to see it."""
        if self._under_way is not None and self._under_way is self._wanted:
            self.ready.emit((found[0], self._under_way.image.plane, found[1]))

    def end(self, _request: object, error: str = "", *, stopped: bool = False) -> None:
        """Learn that the request under way has ended; open the image that the user chose meanwhile."""
        ended, self._under_way = self._under_way, None
        if ended is not self._wanted and self._wanted is not None:
            self._request(self._wanted)
        elif error and ended is self._wanted:
            self.ready.emit(None)
            self.failed.emit(error)

    def _request(self, request: ShowRequest) -> None:
        self._under_way = request
        self.requested.emit(request)


class LabelSession:
    """The labels that are open, and what the user does with them.

    Attributes
    ----------
    labelling : Labelling or None
        The images with their labels; None before any were opened.
    rows, current : tuple of int, int
        The chosen rows of the labelling, and the one whose image is shown; -1 for none.
    findings : tuple of Finding
        What the last check found.
    locked : bool
        Whether a training runs, during which labels cannot be changed.
    go_on : bool
        Whether the next image without a label is chosen after one was labelled.
    question : Question or None
        What the user has to answer before something is lost.
    changed, opened : Signal
        Something of the above changed; other labels are open.
    labels_changed : Signal
        Labels, classes, groups or splits changed.
    progressed : Signal
        Share of the work that is done (0 to 1), and what is done, in words.
    ranked : Signal
        The rows in the order in which to label them next.
    image : ShownImage
        The image of the current row.
    requested : Signal
        A request to be carried out.
    stop_requested : Signal
        The job that runs has to stop.
    """

    changed = Signal()
    opened = Signal()
    labels_changed = Signal()
    progressed = Signal(float, str)
    ranked = Signal(object)
    requested = Signal(object)
    stop_requested = Signal(object)

    def __init__(self) -> None:
        self.labelling: Labelling | None = None
        self.state = LabelState.EMPTY
        self.rows: tuple[int, ...] = ()
        self.current = -1
        self.findings: tuple[Finding, ...] = ()
        self.check_result = ""
        self.message = Notice("labels", "")
        self.question: Question | None = None
        self.locked = False
        self.go_on = True
        self._unsaved = ""
        self._on_yes: Callable[[], None] | None = None
        self._without_model = False
        self._opens_practice = False
        self.image = ShownImage()
        self.image.failed.connect(self.refuse)

    # State

    @property
    def busy(self) -> bool:
        """Whether a job runs; labels can be given meanwhile, unless other images are being opened."""
        return self.state not in (LabelState.EMPTY, LabelState.READY)

    @property
    def hint(self) -> str:
        """What to do first; empty once the user has done it."""
        if self.labelling is None:
            return "" if self.busy else NOTHING_OPEN
        if not self.labelling.classes:
            return _NO_CLASS
        return "" if self.labelling.labelled() else _NO_LABEL

    @property
    def warning(self) -> str:
        """What is wrong until it is put right: why the last change could not be written."""
        return self._unsaved if self.labelling is not None and self.labelling.unsaved else ""

    def lock(self, training: bool) -> None:
        """Lock the labels while a training runs; images can still be shown."""
        self.locked = training
        self._say("")

    # Opening

    def open(self, request: OpenRequest | LayersRequest | PracticeRequest) -> None:
        """Open other images; asks first if the labels that are open could not be written."""
        if self.busy:
            return
        if self.labelling is not None and self.labelling.unsaved:
            self.question = Question(
                f"{self._unsaved.rstrip('.')}. If you open other images now, the changes that were not written are "
                "lost.", "Open, and lose the changes", "Stay here",
            )  # fmt: skip
            self._on_yes = lambda: self._begin(LabelState.OPENING, request)
            self.changed.emit()
        else:
            self._begin(LabelState.OPENING, request)

    def answer(self, yes: bool) -> None:
        """Answer the question."""
        then, self._on_yes, self.question = self._on_yes, None, None
        if yes and then is not None:
            then()
        self.changed.emit()

    def refuse(self, why: str) -> None:
        """Say why what the user wanted is not possible."""
        self._say(why, Level.ERROR)

    def read_as(self, axes: str) -> None:
        """Read the images with other axes, such as CYX, where the files do not name theirs."""
        labelling = self.labelling
        if labelling is not None and self._change(lambda: labelling.read_as(axes)):
            self.opened.emit()
            self._show()

    # Choosing rows

    def select(self, rows: Sequence[int], current: int | None = None) -> None:
        """Choose rows; the image of the current one, by default the first, is shown."""
        rows = tuple(rows)
        current = current if current is not None else rows[0] if rows else -1
        if (rows, current) == (self.rows, self.current):
            return
        shown, self.rows, self.current = self.current, rows, current
        self._say("")
        if current != shown:
            self._show()

    # Labels

    def press(self, number: int, add: bool = False, following: int | None = None) -> None:
        """Label the chosen images with the class of a number key; 0 clears their labels.

        With `add`, the label is added to those that the images have, or removed if all of them have it. Otherwise the
        row `following` is chosen next.
        """
        labelling = self.labelling
        if labelling is None:
            return
        if number == 0:
            self._change_rows(lambda: labelling.unlabel(self.rows))
        elif number <= len(labelling.classes):
            self.label(labelling.classes[number - 1].name, add, following)
        else:
            self._say(f"There is no class {number} yet.", Level.WARNING)

    def label(self, name: str, add: bool = False, following: int | None = None) -> None:
        """Label the chosen images, as `press` does."""
        labelling = self.labelling
        if labelling is None:
            return
        if add and self.rows and all(name in labelling.images[row].labels for row in self.rows):
            self._change_rows(lambda: labelling.unlabel(self.rows, name))
        elif self._change_rows(lambda: labelling.label(self.rows, name, add)) and self.go_on and not add:
            if following is not None:
                self.select([following])
            elif not labelling.unlabelled():
                self._say("Every image has a label.")

    def undo(self) -> None:
        """Undo the last change of labels or classes."""
        if self.labelling is not None:
            self._change(self.labelling.undo)

    def redo(self) -> None:
        """Redo the change that was undone last."""
        if self.labelling is not None:
            self._change(self.labelling.redo)

    def change_classes(self, change: Callable[[Labelling], None]) -> bool:
        """Add, rename, recolour, move or remove a class; return whether that was possible."""
        labelling = self.labelling
        return labelling is not None and self._change(lambda: change(labelling))

    def set_group(self, rows: Sequence[int], group: str) -> None:
        """Put images into a group: a well, plate or strain."""
        labelling = self.labelling
        if labelling is not None:
            self._change(lambda: labelling.set_group(rows, group))

    def set_split(self, rows: Sequence[int], split: str) -> None:
        """Put the groups of images into train, validation or test; "" leaves the choice to the training."""
        labelling = self.labelling
        if labelling is not None:
            self._change(lambda: labelling.set_split(rows, split or None))

    # What next, and what may be wrong

    def rank(self, model: TrainedModel | None) -> None:
        """Sort the images without a label by how much a model would learn from them."""
        labelling = self.labelling
        if labelling is None or self.busy:
            return
        if model is None:
            self._say(_NO_MODEL, Level.WARNING)
        elif not labelling.unlabelled():
            self._say("Every image has a label.")
        else:
            known = labelling.labelled()
            self._begin(LabelState.RANKING, RankRequest(model, labelling.everything(), labelling.unlabelled(), known))

    def check(self, model: TrainedModel | None) -> None:
        """Look for labels that may be wrong."""
        if self.labelling is not None and not self.busy:
            self._without_model = model is None
            self._begin(LabelState.CHECKING, CheckRequest(self.labelling.everything(), model))

    def cancel(self) -> None:
        """Stop the job that runs."""
        if self.busy:
            self.stop_requested.emit(self._job)

    # Jobs

    def take(self, _request: object, report: Any) -> None:
        """Take what the job that runs has to report."""
        if isinstance(report, float):
            self.progressed.emit(report, "saving layers")
        elif isinstance(report, Progress):
            ranking = self.state is LabelState.RANKING
            self.progressed.emit(report.fraction, "ranking images" if ranking else "checking")
            if report.result is not None and ranking:
                self._take_ranking(report.result)
            elif report.result is not None:
                self._take_findings(report.result)
        else:
            self._take_labelling(report)

    def end(self, _request: object, error: str = "", *, stopped: bool = False) -> None:
        """Learn that the job has ended, and why if it failed."""
        self.state = LabelState.EMPTY if self.labelling is None else LabelState.READY
        if error:
            self._say(error, Level.ERROR)
        elif stopped:
            self._say("Stopped.", Level.WARNING)
        self.changed.emit()

    # Inside

    def _begin(self, state: LabelState, request: Any) -> None:
        self.state, self._job, self._opens_practice = state, request, isinstance(request, PracticeRequest)
        self._say("")
        self.requested.emit(request)

    def _say(self, text: str, level: Level = Level.NOTE) -> None:
        self.message = Notice("labels", text, level)
        self.changed.emit()

    def _change_rows(self, change: Callable[[], None]) -> bool:
        if not self.rows:
            self._say("Select an image in the table first.", Level.WARNING)
            return False
        return self._change(change)

    def _change(self, change: Callable[[], None]) -> bool:
        """Change the labelling; say why it was refused, or could not be written."""
        if self.locked or self.labelling is None:
            self._say(_LOCKED if self.locked else "", Level.WARNING)
            return False
        try:
            change()
            self._unsaved, failed = "", ""
        except MilcnnError as error:
            failed = str(error)
            if isinstance(error, OutputError):  # kept in memory, but not written
                self._unsaved = failed
        self._say("" if failed == self._unsaved else failed, Level.ERROR)
        self.labels_changed.emit()
        return not failed

    def _show(self) -> None:
        """Show the image of the current row."""
        labelling, at = self.labelling, self.current
        if labelling is None or at < 0:
            self.image.want(None)
        else:
            self.image.want(ShowRequest(labelling.everything(), labelling.images[at]))

    def _take_labelling(self, labelling: Labelling) -> None:
        self.labelling, self.state = labelling, LabelState.READY
        self.findings, self.check_result, self._unsaved = (), "", ""
        self.rows, self.current = (), -1
        self.opened.emit()
        self.select([next(iter(labelling.unlabelled()), 0)])
        about = _ABOUT_PRACTICE if self._opens_practice else ""
        self._say(f"{about}Labels are saved in {labelling.path} after every change.")
        self.labels_changed.emit()

    def _take_ranking(self, ranking: Ranking) -> None:
        errors = ranking.errors
        self.ranked.emit(ranking.order)
        self.select(ranking.order[:1])
        unread = f" {len(errors)} could not be read and come last: {next(iter(errors.values()))}" if errors else ""
        self._say(f"Images are sorted: label those at the top next.{unread}", Level.WARNING if errors else Level.NOTE)

    def _take_findings(self, findings: tuple[Finding, ...]) -> None:
        self.findings = findings
        count = f"{len(findings)} possible problem{'s'[: len(findings) != 1]}; click one to select its images."
        limits = " Without a model, only identical images and groups were checked." if self._without_model else ""
        self.check_result = f"{count if findings else 'No problems found.'}{limits}"
        self.changed.emit()
