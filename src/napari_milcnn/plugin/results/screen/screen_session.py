"""What the form "Whole screen" knows: what is chosen, what runs, and what came of it.

The job is that of the command `screen`, with the same options and the same results.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psygnal import Signal

from napari_milcnn.errors import MilcnnError
from napari_milcnn.options import EvidenceOptions, ScreenOptions, make_options
from napari_milcnn.plugin.qt.notices import Level, Notice
from napari_milcnn.plugin.results.evaluation import free_path, holds_results
from napari_milcnn.plugin.results.reading import ReadResults, shown_results
from napari_milcnn.plugin.results.session import NOTHING_TO_SAY
from napari_milcnn.progress import Progress, TimeLeft

if TYPE_CHECKING:
    from napari_milcnn.model.trained_model import TrainedModel


@dataclass(frozen=True)
class ScreenChoices:
    """What the user chose in the form; None and an empty mapping leave everything to the defaults.

    Attributes
    ----------
    source : Path or None
        The images: a folder, a table, an OME-Zarr plate or an OME-TIFF with one series a field.
    layout : Path or None
        What each well was given.
    model : Path or None
        The file of the model; None for the current one.
    out : Path or None
        The folder for the results; None for a new one beside the source.
    redo_changed, retry_failed : bool
        As of `screen`; they count only where the folder holds a screen.
    options, evidence : mapping
        Fields of `ScreenOptions` and `EvidenceOptions`.
    reading : mapping
        Fields of `ImageReading`.
    """

    source: Path | None = None
    layout: Path | None = None
    model: Path | None = None
    out: Path | None = None
    redo_changed: bool = False
    retry_failed: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)
    evidence: Mapping[str, Any] = field(default_factory=dict)
    reading: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Screened:
    """What a screen wrote: its tables read back, or None while other shards are at work, and what it says of itself."""

    results: ReadResults | None
    words: str


@dataclass(frozen=True, eq=False)
class ScreenRequest:
    """Classify a screen, or go on with the one in the folder `out`, as the command `screen` does."""

    model: TrainedModel | Path
    source: Path
    out: Path
    resume: bool
    choices: ScreenChoices

    def steps(self) -> Iterator[Progress[Any] | str | Screened]:
        """Yield sentences about the source, the progress with each `WellDone`, and at last what was written."""
        from napari_milcnn.images.open import ImageReading
        from napari_milcnn.model.package_read import load_model
        from napari_milcnn.screens.read import open_results
        from napari_milcnn.screens.record import recorded_screen
        from napari_milcnn.screens.run import screen

        chosen = self.choices
        model = load_model(self.model) if isinstance(self.model, Path) else self.model
        said: list[str] = []
        wells = fields = failed = 0
        for step in screen(
            model, self.source, self.out, layout=chosen.layout, reading=ImageReading(**chosen.reading),
            resume=self.resume, redo_changed=self.resume and chosen.redo_changed,
            retry_failed=self.resume and chosen.retry_failed, on_warning=said.append,
            **chosen.options, **chosen.evidence,
        ):  # fmt: skip
            yield from said
            said.clear()
            if step.result is not None:
                wells, fields = wells + 1, fields + step.result.fields
                failed += len(step.result.failures)
            yield step
        yield from said
        words = f"{wells} wells, {fields} fields, {failed} of them failed. The results are in {self.out}."
        if (recorded_screen(self.out) or {}).get("finished"):
            yield Screened(shown_results(open_results(self.out)), words)
        else:
            yield Screened(None, f"{words} The tables are written when the last shard ends.")


class ScreenSession:
    """The form "Whole screen": what is chosen, what runs, and what came of it.

    Attributes
    ----------
    choices : ScreenChoices
        What the user chose.
    share : float
        How much is done, from 0 to 1.
    doing : str
        What is being done, and how fast, in words.
    notes, failures : tuple of str
        What was found in the source; fields that failed so far, each with its reason.
    message : Notice
        What came of the last run.
    report : Path or None
        The page of the screen that ended last.
    is_stopping : bool
        Whether the run ends at its next step.
    changed, screened : Signal
        Anything of these changed; these results were written.
    requested, withdrawn, stop_requested : Signal
        As of `EvaluationSession`.
    """

    changed = Signal()
    screened = Signal(object)
    requested = Signal(object)
    withdrawn = Signal(object)
    stop_requested = Signal(object)

    def __init__(self) -> None:
        self.choices = ScreenChoices()
        self.share, self.doing = 0.0, ""
        self.notes: tuple[str, ...] = ()
        self.failures: tuple[str, ...] = ()
        self.message = NOTHING_TO_SAY
        self.report: Path | None = None
        self.is_stopping = False
        self._current: TrainedModel | None = None
        self._running: ScreenRequest | None = None
        self._time = TimeLeft()

    @property
    def is_busy(self) -> bool:
        """Whether a screen runs."""
        return self._running is not None

    @property
    def seconds_left(self) -> float | None:
        """How long the rest will take; None while too little is done to tell."""
        return None if self._running is None else self._time.left(self.share)

    @property
    def notices(self) -> tuple[Notice, ...]:
        """What came of the last run, what was found in the source, and the fields that failed so far."""
        many, first = len(self.failures), self.failures[:1]
        failed = f"{many} field{'s'[: many != 1]} failed, such as: {first[0]}" if first else ""
        found = tuple(Notice("source", text) for text in self.notes)
        return tuple(one for one in (self.message, *found, Notice("run", failed, Level.WARNING)) if one.text)

    @property
    def out(self) -> Path | None:
        """Where the results go: where the user said, or to a name beside the source that is free."""
        source = self.choices.source
        if self.choices.out is not None or source is None:
            return self.choices.out
        return free_path(source.parent, f"{source.stem} screen", "")

    @property
    def resumes(self) -> bool:
        """Whether the folder for the results holds a screen, which is gone on with."""
        return self.choices.out is not None and _holds_screen(self.choices.out)

    @property
    def problem(self) -> str:
        """Why it cannot start, as a sentence that says what to do; empty if it can."""
        chosen, source, out = self.choices, self.choices.source, self.out
        if chosen.model is None and self._current is None:
            return "Choose a model."
        if source is None or out is None:
            return "Choose the images of the screen: a folder, a table, or an OME-Zarr plate."
        if not source.exists():
            return f"{source} does not exist; choose the images of the screen."
        if chosen.layout is not None and not chosen.layout.is_file():
            return f"{chosen.layout} is not a file; choose the table of the layout."
        if out.is_file():
            return f"{out} is a file; choose a folder for the results."
        try:
            if not self.resumes and holds_results(out):
                return f"{out} holds other results than those of a screen; choose another folder."
            _check_options(chosen)
        except MilcnnError as error:
            return f"{error}."
        return ""

    def choose(self, choices: ScreenChoices) -> None:
        """Choose what is classified, and how."""
        if choices != self.choices:
            self.choices = choices
            self.changed.emit()

    def use(self, model: TrainedModel | None) -> None:
        """Notice which model all docks share now."""
        self._current = model
        self.changed.emit()

    def start(self) -> None:
        """Classify the screen as chosen, or go on with it."""
        source, out, model = self.choices.source, self.out, self.choices.model or self._current
        if self._running is not None or self.problem or source is None or out is None or model is None:
            return
        self.share, self.doing, self.notes, self.failures = 0.0, "reading the source", (), ()
        self.message, self.report, self.is_stopping = NOTHING_TO_SAY, None, False
        self._time = TimeLeft()
        self._running = ScreenRequest(model, source, out, self.resumes, self.choices)
        self.changed.emit()
        self.requested.emit(self._running)

    def stop(self) -> None:
        """End the run at its next step; the wells that are done are kept."""
        if self._running is not None and not self.is_stopping:
            self.is_stopping = True
            self.stop_requested.emit(self._running)
            self.changed.emit()

    def take(self, request: object, step: Progress[Any] | str | Screened) -> None:
        """Take a sentence, the progress, or what was written."""
        if request is not self._running or self._running is None:
            return
        if isinstance(step, str):
            self.notes = (*self.notes, step)
        elif isinstance(step, Screened):
            self.share, self.message = 1.0, Notice("run", step.words)
            page = self._running.out / "report.html"
            self.report = page if step.results is not None and page.is_file() else None
            if step.results is not None:
                self.screened.emit(step.results)
        else:
            self.share = max(self.share, step.fraction)  # a well that begins does not take back the one before
            self.doing = f"{min(step.number, step.total)} of {step.total} · {step.doing}"
            if step.result is not None:
                self.failures = (*self.failures, *step.result.failures)
                if step.result.before:
                    self._time = TimeLeft(self.share)
        self.changed.emit()

    def end(self, request: object, error: str = "", *, stopped: bool = False) -> None:
        """Notice that a request has ended."""
        if request is not self._running or self._running is None:
            return
        out = self._running.out
        if error:
            self.message = Notice("run", error, Level.ERROR)
        elif stopped and not self.message.text:
            words = f"Stopped at {self.doing}. Wells that are done are kept in {out}; choose it as the folder to go on."
            self.message = Notice("run", words, Level.WARNING)
        self._running, self.is_stopping, self.doing = None, False, ""
        self.changed.emit()


def _holds_screen(folder: Path) -> bool:
    from napari_milcnn.screens.record import recorded_screen

    try:
        return recorded_screen(folder) is not None
    except MilcnnError:
        return False


def _check_options(chosen: ScreenChoices) -> None:
    from napari_milcnn.images.open import ImageReading

    make_options(ScreenOptions, chosen.options)
    make_options(EvidenceOptions, chosen.evidence)
    ImageReading(**chosen.reading)
