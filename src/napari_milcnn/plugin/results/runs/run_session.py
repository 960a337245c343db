"""What a form that starts a long run knows: what is chosen, what runs, and what came of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from psygnal import Signal

from napari_milcnn.errors import MilcnnError
from napari_milcnn.plugin.qt.notices import Level, Notice
from napari_milcnn.plugin.results.session import NOTHING_TO_SAY
from napari_milcnn.progress import Progress, TimeLeft

if TYPE_CHECKING:
    from napari_milcnn.images.open import ImageReading
    from napari_milcnn.model.trained_model import TrainedModel
    from napari_milcnn.plugin.qt.job import JobRequest
    from napari_milcnn.plugin.results.reading import ReadResults


@dataclass(frozen=True, kw_only=True)
class RunChoices:
    """What the user chose in a form; None and an empty mapping leave everything to the defaults.

    Attributes
    ----------
    model : Path or None
        The file of the model; None for the current one.
    out : Path or None
        Where the results go; None for a new name beside what is read.
    reading : mapping
        Fields of `ImageReading`.
    """

    model: Path | None = None
    out: Path | None = None
    reading: Mapping[str, Any] = field(default_factory=dict)

    def image_reading(self) -> ImageReading:
        """Return how images are opened.

        Raises
        ------
        OptionsError
            If a field has an impossible value.
        """
        from napari_milcnn.images.open import ImageReading

        return ImageReading(**self.reading)


@dataclass(frozen=True)
class Written:
    """What a run wrote: its results read back, None where there are none yet, what it says of itself, and its page."""

    results: ReadResults | None
    words: str
    page: Path | None = None


AnyChoices = TypeVar("AnyChoices", bound=RunChoices)


class RunSession(ABC, Generic[AnyChoices]):
    """A form that starts a long run.

    Attributes
    ----------
    choices : RunChoices
        What the user chose.
    share : float
        How much is done, from 0 to 1.
    doing : str
        What is being done, in words.
    failures : tuple of str
        What failed so far, each with its reason.
    message : Notice
        What came of the last run.
    report : Path or None
        The page of the run that ended last, if it has one.
    is_stopping : bool
        Whether the run ends at its next step.
    changed, written : Signal
        Anything of these changed; these results were written.
    requested, withdrawn, stop_requested : Signal
        As of `ResultsSession`.
    """

    changed = Signal()
    written = Signal(object)
    requested = Signal(object)
    withdrawn = Signal(object)
    stop_requested = Signal(object)

    first_words: str
    """What a run does first."""
    one_of_many: str
    """What a run goes through, such as images."""

    def __init__(self, choices: AnyChoices) -> None:
        self.choices = choices
        self.share, self.doing = 0.0, ""
        self.failures: tuple[str, ...] = ()
        self.message = NOTHING_TO_SAY
        self.report: Path | None = None
        self.is_stopping = False
        self._current: TrainedModel | None = None
        self._running: JobRequest | None = None
        self._time = TimeLeft()

    @property
    def is_busy(self) -> bool:
        """Whether something runs."""
        return self._running is not None

    @property
    def seconds_left(self) -> float | None:
        """How long the rest will take; None while too little is done to tell."""
        return None if self._running is None else self._time.left(self.share)

    @property
    def notices(self) -> tuple[Notice, ...]:
        """What came of the last run, and what failed so far."""
        many, first = len(self.failures), self.failures[:1]
        failed = f"{many} {self.one_of_many}{'s'[: many != 1]} failed, such as: {first[0]}" if first else ""
        return tuple(one for one in (self.message, Notice("run", failed, Level.WARNING)) if one.text)

    @property
    @abstractmethod
    def out(self) -> Path | None:
        """Where the results go: where the user said, or to a name that is free; None as long as nothing is chosen."""

    @property
    def problem(self) -> str:
        """Why it cannot start, as a sentence that says what to do; empty if it can."""
        if self.choices.model is None and self._current is None:
            return "Choose a model."
        try:
            return self._problem()
        except MilcnnError as error:
            return f"{error}."

    @abstractmethod
    def _problem(self) -> str:
        """Say why it cannot start with a model; empty if it can."""

    @abstractmethod
    def _request(self, model: TrainedModel | Path) -> JobRequest:
        """Return what is to be run, and forget what came of the last run."""

    @abstractmethod
    def _kept(self, request: Any) -> str:
        """Say what is left of a run that was stopped."""

    def _take_result(self, result: Any) -> None:
        """Take the result of a step."""

    @abstractmethod
    def _take_other(self, step: Any) -> None:
        """Take what is no progress."""

    # What the user does

    def choose(self, choices: AnyChoices) -> None:
        """Choose what is run, and how."""
        if choices != self.choices:
            self.choices = choices
            self.changed.emit()

    def use(self, model: TrainedModel | None) -> None:
        """Notice which model all docks share now."""
        self._current = model
        self.changed.emit()

    def start(self) -> None:
        """Run as chosen."""
        model = self.choices.model or self._current
        if self._running is not None or self.problem or model is None:
            return
        self.share, self.doing, self.failures, self.message = 0.0, self.first_words, (), NOTHING_TO_SAY
        self.report, self._time = None, TimeLeft()
        self._running = self._request(model)
        self.changed.emit()
        self.requested.emit(self._running)

    def stop(self) -> None:
        """End what runs at its next step."""
        if self._running is not None and not self.is_stopping:
            self.is_stopping = True
            self.stop_requested.emit(self._running)
            self.changed.emit()

    # What came of it

    def take(self, request: object, step: Any) -> None:
        """Take the progress, or what else a run yields."""
        if request is not self._running:
            return
        if isinstance(step, Progress):
            self.share = max(self.share, step.fraction)  # what begins does not take back what was before
            self.doing = f"{min(step.number, step.total)} of {step.total} · {step.doing}"
            if step.result is not None:
                self._take_result(step.result)
        elif isinstance(step, Written):
            self.share, self.message, self.report = 1.0, Notice("run", step.words), step.page
            if step.results is not None:
                self.written.emit(step.results)
        else:
            self._take_other(step)
        self.changed.emit()

    def end(self, request: object, error: str = "", *, stopped: bool = False) -> None:
        """Notice that a request has ended."""
        if request is not self._running:
            return
        if error:
            self.message = Notice("run", error, Level.ERROR)
        elif stopped and not self.message.text:
            self.message = Notice("run", f"Stopped at {self.doing}. {self._kept(request)}", Level.WARNING)
        self._running, self.is_stopping, self.doing = None, False, ""
        self.changed.emit()


def free_path(folder: Path, name: str, suffix: str = "") -> Path:
    """Return a path in a folder that does not exist yet."""
    from napari_milcnn.screens.sources.fields import file_name

    plain = file_name(name)
    numbered = (f"{plain}{'' if n == 1 else f' {n}'}{suffix}" for n in range(1, 1000))
    return next((folder / one for one in numbered if not (folder / one).exists()), folder / f"{plain}{suffix}")


def holds_results(folder: Path) -> bool:
    """Whether a folder holds results of any kind."""
    from napari_milcnn.results.opened import WRITTEN_FILES

    return any((folder / name).exists() for name in WRITTEN_FILES)
