"""What the Results dock knows of a screen that is still running: how far it is by now, and what of it is shown."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from psygnal import Signal

from napari_milcnn.screens.read import Growth, OpenedScreen, growth_of

if TYPE_CHECKING:
    from napari_milcnn.plugin.results.session import ResultsSession


@dataclass(frozen=True, eq=False)
class LookRequest:
    """Count the wells that are done by now."""

    folder: Path

    def steps(self) -> Iterator[Growth]:
        """Yield how far the screen is."""
        yield growth_of(self.folder)


class RunningSession:
    """Whether the open results are those of a screen that is not finished, and what has been done since.

    Parameters
    ----------
    results : ResultsSession
        What is open.

    Attributes
    ----------
    changed : Signal
        The words changed.
    requested, withdrawn : Signal
        As of `ResultsSession`.
    """

    changed = Signal()
    requested = Signal(object)
    withdrawn = Signal(object)

    def __init__(self, results: ResultsSession) -> None:
        self.results = results
        self._now: Growth | None = None
        self._looking: LookRequest | None = None
        results.results_changed.connect(self._on_results)

    @property
    def is_busy(self) -> bool:
        """Whether wells are being counted."""
        return self._looking is not None

    @property
    def shown(self) -> Growth | None:
        """How far the screen was when it was read; None unless a screen is open that is not finished."""
        found = self.results.found
        return found.growth if isinstance(found, OpenedScreen) and not found.growth.finished else None

    @property
    def has_news(self) -> bool:
        """Whether wells are done, or all of it is finished, that are not shown yet."""
        shown, now = self.shown, self._now
        return shown is not None and now is not None and (now.done, now.finished) != (shown.done, shown.finished)

    @property
    def words(self) -> str:
        """Say how far the screen is by now; empty where the shown results are up to date."""
        shown, now = self.shown, self._now
        if shown is None or now is None or not self.has_news:
            return ""
        by_now = "the screen is finished now" if now.finished else f"{now.done:,} are done by now"
        return f"{shown.words} are shown; {by_now}."

    def look(self) -> None:
        """Count the wells that are done by now."""
        found = self.results.found
        if self.shown is not None and self._looking is None and isinstance(found, OpenedScreen):
            self._looking = LookRequest(found.folder)
            self.requested.emit(self._looking)

    def take(self, request: object, step: Growth) -> None:
        """Take how far the screen is."""
        if request is self._looking:
            self._now = step
            self.changed.emit()

    def end(self, request: object, error: str = "", *, stopped: bool = False) -> None:
        """Notice that a request has ended; a folder that cannot be read now is looked at again later."""
        if request is self._looking:
            self._looking = None

    def _on_results(self) -> None:
        self._now = None
        if self._looking is not None:
            before, self._looking = self._looking, None
            self.withdrawn.emit(before)
        self.changed.emit()
