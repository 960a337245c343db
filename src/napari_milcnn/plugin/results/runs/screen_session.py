"""What the form "Whole screen" knows: what is chosen, what runs, and what came of it.

The job is that of the command `screen`, with the same options and the same results.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_milcnn.errors import MilcnnError
from napari_milcnn.options import EvidenceOptions, MaskOptions, ScreenOptions, make_options
from napari_milcnn.plugin.qt.notices import Notice
from napari_milcnn.plugin.results.reading import shown_results
from napari_milcnn.plugin.results.runs.run_session import RunChoices, RunSession, Written, free_path, holds_results
from napari_milcnn.progress import Progress, TimeLeft

if TYPE_CHECKING:
    from napari_milcnn.model.trained_model import TrainedModel
    from napari_milcnn.screens.parts import WellDone


@dataclass(frozen=True, kw_only=True)
class ScreenChoices(RunChoices):
    """What the user chose in the form.

    Attributes
    ----------
    source : Path or None
        The images: a folder, a table, an OME-Zarr plate or an OME-TIFF with one series a field.
    layout : Path or None
        What each well was given.
    redo_changed, retry_failed : bool
        As of `screen`; they count only where the folder holds a screen.
    classes : tuple of str
        Classes whose cells are looked for; none for all.
    options, evidence, masks : mapping
        Fields of `ScreenOptions`, `EvidenceOptions` and `MaskOptions`.
    """

    source: Path | None = None
    layout: Path | None = None
    redo_changed: bool = False
    retry_failed: bool = False
    classes: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    evidence: Mapping[str, Any] = field(default_factory=dict)
    masks: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class ScreenRequest:
    """Classify a screen, or go on with the one in the folder `out`, as the command `screen` does."""

    model: TrainedModel | Path
    source: Path
    out: Path
    resume: bool
    choices: ScreenChoices

    def steps(self) -> Iterator[Progress[Any] | str | Written]:
        """Yield sentences about the source, the progress with each `WellDone`, and at last what was written."""
        from napari_milcnn.model.package_read import load_model
        from napari_milcnn.screens.read import open_results
        from napari_milcnn.screens.record import recorded_screen
        from napari_milcnn.screens.run import screen

        chosen = self.choices
        model = load_model(self.model) if isinstance(self.model, Path) else self.model
        said: list[str] = []
        wells = fields = failed = 0
        steps = screen(
            model, self.source, self.out, layout=chosen.layout, reading=chosen.image_reading(),
            classes=chosen.classes, mask_options=chosen.masks, resume=self.resume,
            redo_changed=self.resume and chosen.redo_changed, retry_failed=self.resume and chosen.retry_failed,
            on_warning=said.append, **chosen.options, **chosen.evidence,
        )  # fmt: skip
        try:
            for step in steps:
                yield from said
                said.clear()
                if step.result is not None:
                    wells, fields = wells + 1, fields + step.result.fields
                    failed += len(step.result.failures)
                yield step
        except MilcnnError:
            yield from said  # what was found in the source may be why
            raise
        yield from said
        words = f"{wells} wells, {fields} fields, {failed} of them failed. The results are in {self.out}."
        if (recorded_screen(self.out) or {}).get("finished"):
            page = self.out / "report.html"
            yield Written(shown_results(open_results(self.out)), words, page if page.is_file() else None)
        else:
            yield Written(None, f"{words} The tables are written when the last shard ends.")


class ScreenSession(RunSession[ScreenChoices]):
    """The form "Whole screen".

    Attributes
    ----------
    notes : tuple of str
        What was found in the source.
    """

    first_words, one_of_many = "reading the source", "field"

    def __init__(self) -> None:
        super().__init__(ScreenChoices())
        self.notes: tuple[str, ...] = ()

    @property
    def notices(self) -> tuple[Notice, ...]:
        """What came of the last run, the fields that failed so far, and what was found in the source."""
        return *super().notices, *(Notice("source", text) for text in self.notes)

    @property
    def out(self) -> Path | None:
        """Where the results go: where the user said, or to a name beside the source that is free."""
        source = self.choices.source
        if self.choices.out is not None or source is None:
            return self.choices.out
        return free_path(source.parent, f"{source.stem} screen")

    @property
    def resumes(self) -> bool:
        """Whether the folder for the results holds a screen, which is gone on with."""
        return self.choices.out is not None and _holds_screen(self.choices.out)

    def _problem(self) -> str:
        chosen, source, out = self.choices, self.choices.source, self.out
        if source is None or out is None:
            return "Choose the images of the screen: a folder, a table, or an OME-Zarr plate."
        if not source.exists():
            return f"{source} does not exist; choose the images of the screen."
        if chosen.layout is not None and not chosen.layout.is_file():
            return f"{chosen.layout} is not a file; choose the table of the layout."
        if out.is_file():
            return f"{out} is a file; choose a folder for the results."
        if not self.resumes and holds_results(out):
            return f"{out} holds other results than those of a screen; choose another folder."
        make_options(ScreenOptions, chosen.options)
        make_options(EvidenceOptions, chosen.evidence)
        make_options(MaskOptions, chosen.masks)
        chosen.image_reading()
        return ""

    def _request(self, model: TrainedModel | Path) -> ScreenRequest:
        source, out = self.choices.source, self.out
        assert source is not None
        assert out is not None
        self.notes = ()
        return ScreenRequest(model, source, out, self.resumes, self.choices)

    def _kept(self, request: ScreenRequest) -> str:
        if not _holds_screen(request.out):
            return "Nothing was written."
        return f"Wells that are done are kept in {request.out}; choose it as the folder to go on."

    def _take_result(self, result: WellDone) -> None:
        self.failures = (*self.failures, *result.failures)
        if result.before:
            self._time = TimeLeft(self.share)

    def _take_other(self, step: str) -> None:
        self.notes = (*self.notes, step)


def _holds_screen(folder: Path) -> bool:
    from napari_milcnn.screens.record import recorded_screen

    try:
        return recorded_screen(folder) is not None
    except MilcnnError:
        return False
