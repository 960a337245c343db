"""What the Results dock knows: the results that are open, the row that is looked at, and the image that it opened.

A session knows neither Qt nor a widget. It is told what the user did, in methods with these words, and says by signals
what changed. What takes long it asks for as a frozen request: whoever runs the session works the request off, in a
thread or at once, and hands what came of it to `take` and `end`. What comes of a request that is no longer wanted is
ignored, so that a slow reading never overwrites what the user opened after it.

A message says what came of the last thing that the user did, and goes when the user does the next. What is true of the
results as long as they are open (images that are missing, a run that was stopped) is a warning of the results, and no
message.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

from psygnal import Signal

from napari_milcnn.errors import MilcnnError
from napari_milcnn.plugin.qt.notices import Level, Notice
from napari_milcnn.plugin.results.opened_layers import OpenedLayers, OpenStep, open_row
from napari_milcnn.plugin.results.reading import (
    CopyRequest,
    FindImagesRequest,
    ReadRequest,
    ReadResults,
    RefreshRequest,
    ReportRequest,
    ResumeRequest,
)
from napari_milcnn.progress import Progress
from napari_milcnn.screens.read import OpenedScreen

if TYPE_CHECKING:
    import pandas as pd
    from napari.components import ViewerModel

    from napari_milcnn.evaluation.report import EvaluationReport
    from napari_milcnn.images.stack import PlaneIndex
    from napari_milcnn.results.opened import OpenedResults


class ResultsState(Enum):
    """Whether results are open; while others are read, those that are open stay."""

    EMPTY = "no results are open"
    READING = "results are being read"
    OPEN = "results are open"


NOTHING_TO_SAY = Notice("", "")
_RUN_STOPPED = Notice("reading", "The run that went on was stopped; what it finished is kept.", Level.WARNING)


@dataclass(frozen=True, eq=False)
class RowRequest:
    """Open the image of a row, and read its masks."""

    run: object
    found: OpenedResults
    row: int

    def steps(self) -> Iterator[OpenStep]:
        """Yield the image, then its masks."""
        yield from open_row(self.found, self.row)


@dataclass(frozen=True, eq=False)
class ImageInView:
    """The image that was opened from the results.

    Attributes
    ----------
    run : object
        The reading of the results from which it was opened: the same image of another run has other masks.
    file : str
        What the table calls it.
    rows : dict
        Its planes -> rows of the results; the key is None where a row stands for the whole image.
    """

    run: object
    file: str
    rows: dict[PlaneIndex | None, int]


@dataclass(frozen=True)
class Chosen:
    """Images that the user picked in a figure, or those of chosen wells, and what they have in common, in words."""

    files: tuple[str, ...]
    words: str
    wells: tuple[tuple[str, str], ...] = ()


ReadingRequest = ReadRequest | FindImagesRequest | ReportRequest | ResumeRequest | RefreshRequest


class ResultsSession:
    """The results that are open in a viewer, and what the user looks at in them.

    Parameters
    ----------
    viewer : ViewerModel
        Where images are opened.

    Attributes
    ----------
    results_changed, chosen_changed, row_changed, changed : Signal
        Other results are open; other rows are listed; another row is looked at; the state or the message changed.
    copied : Signal
        This text is to be put on the clipboard.
    requested, withdrawn : Signal
        A request is to be worked off; nobody waits for it any more.
    stop_requested : Signal
        End this request at its next step.
    """

    results_changed = Signal()
    chosen_changed = Signal()
    row_changed = Signal()
    changed = Signal()
    copied = Signal(str)
    requested = Signal(object)
    withdrawn = Signal(object)
    stop_requested = Signal(object)

    def __init__(self, viewer: ViewerModel) -> None:
        self.opened: ReadResults | None = None
        self.row: int | None = None
        self.chosen: Chosen | None = None
        self._layers = OpenedLayers(viewer)
        self._image: ImageInView | None = None
        self._run = object()
        self._reading: ReadingRequest | None = None
        self._opening: RowRequest | None = None
        self._copying: CopyRequest | None = None
        self._message = NOTHING_TO_SAY
        self._progress = ""

    @property
    def state(self) -> ResultsState:
        """Whether results are open or being read."""
        if self._reading is not None:
            return ResultsState.READING
        return ResultsState.EMPTY if self.opened is None else ResultsState.OPEN

    @property
    def found(self) -> OpenedResults | None:
        """The results that are open."""
        return None if self.opened is None else self.opened.found

    @property
    def is_busy(self) -> bool:
        """Whether results or an image are being read, or rows are being copied."""
        return any(one is not None for one in (self._reading, self._opening, self._copying))

    @property
    def message(self) -> Notice:
        """What is being done, else what came of the last thing that the user did."""
        if self._reading is None or isinstance(self._reading, RefreshRequest):
            return self._message
        return Notice("reading", self._reading.doing + self._progress)

    @property
    def is_resuming(self) -> bool:
        """Whether a run that was stopped goes on."""
        return isinstance(self._reading, ResumeRequest)

    # What the user does

    def open(self, *paths: str | Path) -> None:
        """Open a folder or a table of results; layout tables are joined to it, or to the results that are open."""
        self._read(ReadRequest(tuple(map(Path, paths)), self.found))

    def show_report(self, report: EvaluationReport) -> None:
        """Open the report of an evaluation that is in memory."""
        self._read(ReportRequest(report))

    def find_images(self, folder: str | Path) -> None:
        """Look for the images of the open results in a folder."""
        if self.found is not None:
            self._read(FindImagesRequest(self.found, Path(folder)))

    def resume(self) -> None:
        """Go on with the run of the open folder that was stopped or killed; once more ends it at its next step."""
        found = self.found
        if self.is_resuming:
            self.stop_requested.emit(self._reading)
        elif found is not None and found.path is not None and found.unfinished:
            self._read(ResumeRequest(found.path.parent))

    def refresh(self) -> None:
        """Read the open screen, which is still running, once more; what the user looks at stays."""
        found = self.found
        if isinstance(found, OpenedScreen) and self._reading is None:
            self._reading = RefreshRequest(found)
            self.requested.emit(self._reading)

    def open_image(self, row: int) -> None:
        """Look at a row, and open its image in place of the one opened before."""
        found = self.found
        if found is None:
            return
        self._begin()
        self._look_at(row)
        self._withdraw_opening()
        file, plane = str(found.table["file"].iat[row]), found.plane_of(row)
        shown = self._image is not None and (self._image.run, self._image.file) == (self._run, file)
        if shown and self._layers.are_whole and plane in (None, *self._layers.planes):
            if plane is not None:
                self._layers.go_to(plane)
            return
        self._opening = RowRequest(self._run, found, row)
        self.requested.emit(self._opening)

    def move_sliders(self) -> None:
        """Look at the row of the plane to which the sliders were moved, of the image that was opened last."""
        image, plane = self._image, self._layers.plane_in_view()
        if self._opening is None and image is not None and image.run is self._run and plane in image.rows:
            self._look_at(image.rows[plane])

    def remove_layers(self) -> None:
        """Notice that layers were removed from the viewer; a message about an image that is gone goes, too."""
        if self._message.cause == "image" and self._opening is None and not self._layers.are_whole:
            self._say(NOTHING_TO_SAY)

    def choose(self, chosen: Chosen | None) -> None:
        """List only some images in the table, such as those of a cell of the confusion; None lists all again."""
        self._begin()
        self.chosen = chosen
        self.chosen_changed.emit()

    def copy(self, rows: pd.DataFrame) -> None:
        """Copy rows of the table for a spreadsheet."""
        self._begin()
        self._copying = CopyRequest(rows)
        self.requested.emit(self._copying)

    def save(self, write: Callable[[Path], None], path: str | Path) -> None:
        """Write a table or a picture to a file."""
        self._begin()
        try:
            write(Path(path))
        except MilcnnError as error:
            self._say(Notice("saving", str(error), Level.ERROR))
        else:
            self._say(Notice("saving", f"Saved {path}"))

    def miss(self, text: str) -> None:
        """Say why what the user asked for is not possible now."""
        self._say(Notice("saving", text, Level.WARNING))

    def show_results(self, opened: ReadResults) -> None:
        """Show results that were read elsewhere, such as those of an evaluation that just ended."""
        stops_run = self._withdraw_reading()
        self._begin()
        if stops_run:
            self._say(_RUN_STOPPED)
        self._run = object()
        self._set_opened(opened)

    # What came of requests

    def take(self, request: object, step: ReadResults | OpenStep | Progress[object] | str) -> None:
        """Take what a request yielded."""
        if request is self._reading and isinstance(step, Progress):
            self._progress = f" Image {min(step.number + 1, step.total)} of {step.total}."
            self.changed.emit()
        elif request is self._reading and isinstance(request, RefreshRequest) and isinstance(step, ReadResults):
            self._take_refreshed(step)
        elif request is self._reading and isinstance(step, ReadResults):
            if not _are_of_one_reading(self.found, step.found):
                self._run = object()
            self._set_opened(step)
        elif request is self._opening and isinstance(request, RowRequest) and isinstance(step, OpenStep):
            self._take_image(request, step)
        elif request is self._copying and isinstance(request, CopyRequest) and isinstance(step, str):
            self.copied.emit(step)
            self._say(Notice("copying", f"Copied {len(request.rows):,} row{'s'[: len(request.rows) != 1]}"))

    def end(self, request: object, error: str = "", *, stopped: bool = False) -> None:
        """Notice that a request has ended; `error` says why it failed."""
        if request is self._opening:
            self._opening, cause = None, "image"
        elif request is self._reading:
            self._reading, cause = None, "reading"
        elif request is self._copying:
            self._copying, cause = None, "copying"
        else:
            return
        if (stopped or error) and isinstance(request, ResumeRequest):
            self._read(ReadRequest((request.folder,), None))
        if error:
            self._message = Notice(cause, error, Level.ERROR)
        self.changed.emit()

    # Changes

    def _read(self, request: ReadingRequest) -> None:
        stops_run = self._withdraw_reading()
        self._begin()
        if stops_run:
            self._say(_RUN_STOPPED)
        self._reading, self._progress = request, ""
        self.changed.emit()
        self.requested.emit(request)

    def _begin(self) -> None:
        """Begin something that the user did: what was said of the thing before is over."""
        self._say(NOTHING_TO_SAY)

    def _say(self, message: Notice) -> None:
        if message != self._message:
            self._message = message
            self.changed.emit()

    def _withdraw_reading(self) -> bool:
        """Wait no longer for what is being read; return whether that stops a run that went on."""
        before, self._reading = self._reading, None
        if before is not None:
            self.withdrawn.emit(before)
        return isinstance(before, ResumeRequest)

    def _withdraw_opening(self) -> None:
        if self._opening is not None:
            before, self._opening = self._opening, None
            self.withdrawn.emit(before)

    def _take_refreshed(self, opened: ReadResults) -> None:
        """Show more of the same results: rows have moved, but what is listed and looked at stays."""
        before, after, image = self.found, opened.found, self._image
        assert before is not None
        self.opened = opened
        self.row = None if self.row is None else _moved_row(before, after, self.row)
        if image is not None and image.run is self._run:
            row = _moved_row(before, after, next(iter(image.rows.values())))
            self._image = None if row is None else replace(image, rows=after.rows_of_image(row))
        self.results_changed.emit()
        self.chosen_changed.emit()
        self.row_changed.emit()

    def _set_opened(self, opened: ReadResults) -> None:
        self._withdraw_opening()
        self.opened, self.row, self.chosen = opened, None, None
        self.results_changed.emit()
        self.row_changed.emit()

    def _look_at(self, row: int) -> None:
        self.row = row
        self.row_changed.emit()

    def _take_image(self, request: RowRequest, step: OpenStep) -> None:
        if step.image is not None:
            stays = self._layers.leave()
            if stays:
                self._say(Notice("layers", f"You edited the layer {stays}, so it stays in the viewer with its image."))
            self._image = _image_in_view(request, self.found)
            self._layers.show_image(step.image, step.limits, step.levels, step.plane)
        if step.labels is not None and step.objects is not None and self._layers.are_whole:
            self._layers.show_masks(step.labels, step.objects, request.found.classes)


def _image_in_view(request: RowRequest, now: OpenedResults | None) -> ImageInView:
    """Return the image of a request, with its rows in the results of now: those of a screen may have moved."""
    found, row = request.found, request.row
    if isinstance(now, OpenedScreen) and now is not found:
        moved = _moved_row(found, now, row)
        rows = {} if moved is None else now.rows_of_image(moved)
    else:
        rows = found.rows_of_image(row)
    return ImageInView(request.run, str(found.table["file"].iat[row]), rows)


def _moved_row(before: OpenedResults, after: OpenedResults, row: int) -> int | None:
    """Return the row of the same plane in results that were read again; None if it is gone."""
    files = before.table["file"].to_numpy()
    own = (after.table["file"] == files[row]).to_numpy().nonzero()[0]
    number = int((files[:row] == files[row]).sum())
    return int(own[number]) if number < len(own) else None


def _are_of_one_reading(before: OpenedResults | None, after: OpenedResults) -> bool:
    """Whether results are those of before with a layout or images added: the folder was not read anew."""
    return before is not None and before.path == after.path and before.objects is after.objects
