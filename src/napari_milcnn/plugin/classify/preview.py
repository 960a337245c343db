"""The masks of the plane in view, which follow the settings at once: its evidence is kept, so a slider is quick.

Evidence is made, and masks are cut, beside the window. While masks are cut, further changes of the settings do not
queue up: the masks under way are shown, and then those of the settings of that moment are cut.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from psygnal import Signal

from napari_milcnn.options import MaskOptions, make_options
from napari_milcnn.plugin.classify.jobs import CutRequest, EvidenceRequest, RunningJob
from napari_milcnn.plugin.classify.records import Cause, ImageRecord, MadeWith, PlaneFound, cells_reader, evidence_only
from napari_milcnn.plugin.qt.notices import Level

if TYPE_CHECKING:
    from napari_milcnn.inference.evidence import PlaneEvidence
    from napari_milcnn.inference.masks import PlaneMasks
    from napari_milcnn.plugin.classify.own_cells import OwnCells
    from napari_milcnn.plugin.classify.session import ClassifySession
    from napari_milcnn.plugin.qt.job import Ending


@dataclass(frozen=True)
class EvidenceWanted:
    """Which evidence: of which plane, for which classes, with which options and cells."""

    key: int
    plane: int
    names: tuple[str, ...]
    options: Mapping[str, object]
    cells: OwnCells | None


@dataclass(frozen=True, eq=False)
class HeldEvidence(EvidenceWanted):
    """Evidence that was made, and the highest value of each of its classes."""

    evidence: PlaneEvidence
    highest: tuple[float, ...]


class MaskPreview:
    """Evidence of the plane in view, and its masks as the settings say.

    Attributes
    ----------
    class_name : str
        The class whose threshold the user sets; its evidence is made even if the plane does not show the class.
    held : HeldEvidence or None
        The evidence.
    ready : Signal
        The threshold in use can be shown.
    """

    ready = Signal()

    def __init__(self, session: ClassifySession) -> None:
        self._session = session
        self._job: RunningJob | None = None
        self._wanted: EvidenceWanted | None = None
        self._then: tuple[Callable[[], None], ...] = ()
        self._cut: RunningJob | None = None
        self._cut_key: int | None = None
        self._cut_again = False
        self.class_name = ""
        self.held: HeldEvidence | None = None

    @property
    def busy(self) -> bool:
        """Whether evidence is being made, or masks are being cut."""
        return self._job is not None or self._cut is not None

    def prepare(self, then: Callable[[], None] | None = None) -> None:
        """Have the evidence of the plane in view made, and masks from it if they were made from other evidence."""
        session, found = self._session, self._found()
        if found is None or session.busy or session.job.starter is None:
            return
        record, plane = found
        if self._fits(record, plane):
            self._follow(record.planes[plane])
            return then() if then is not None else None
        wanted = EvidenceWanted(
            record.key, plane, self._names(record, plane), evidence_only(session.settings.evidence), session.cells
        )
        same_plane = self._wanted is not None and (self._wanted.key, self._wanted.plane) == (record.key, plane)
        self._then = (*(self._then if same_plane else ()), *([then] if then is not None else []))
        if self._job is None or wanted != self._wanted:
            self._start(record, wanted)

    def _start(self, record: ImageRecord, wanted: EvidenceWanted) -> None:
        """Have evidence made; what was being made before is no longer wanted."""
        session = self._session
        if self._job is not None:
            self._job.stop()
        assert session.model is not None
        assert session.job.starter is not None
        assert record.source is not None
        request = EvidenceRequest(
            session.model, record.source.image, record.planes[wanted.plane].prediction, wanted.names, session.settings,
            cells_reader(record, wanted.cells),
        )  # fmt: skip

        def keep(found: tuple[PlaneEvidence, tuple[float, ...]]) -> None:
            if self._job is job and wanted.key in session.images.records:
                self.held = HeldEvidence(**vars(wanted), evidence=found[0], highest=found[1])
                self._follow(session.images.records[wanted.key].planes[wanted.plane])
                waiting, self._then = self._then, ()
                for then in waiting:
                    then()

        def end(ending: Ending) -> None:
            if self._job is job:
                self._job, self._wanted, self._then = None, None, ()
                session.notices.say(Cause.MASKS, ending.error, Level.ERROR, wanted.key)
                session.changed.emit()

        self._wanted = wanted
        job = self._job = session.job.starter(request, keep, end)

    def apply(self) -> None:
        """Have the masks of the plane in view cut as the settings say; of several calls meanwhile the last counts."""
        found, session = self._found(), self._session
        if found is None or session.job.starter is None:
            return
        record, plane = found
        if not self._fits(record, plane):
            self.prepare(then=self.apply)
        elif self._cut is not None:
            self._cut_again = True
        else:
            self._start_cut(record, plane)

    def _start_cut(self, record: ImageRecord, plane: int) -> None:
        session, held, known = self._session, self.held, record.planes[plane]
        assert held is not None
        assert record.source is not None
        assert record.model is not None
        assert session.job.starter is not None
        request = CutRequest(
            held.evidence, known.prediction, make_options(MaskOptions, session.settings.masks),
            record.source.image.pixel_size,
            record.model.card.thresholds_for(str(session.settings.evidence.get("kind"))),
        )  # fmt: skip
        made_with = MadeWith(session.settings, held.cells)

        def take(masks: PlaneMasks) -> None:
            if self._cut is job:
                session.take_masks(record.key, plane, replace(known, masks=masks, made_with=made_with, problem=""))

        def end(ending: Ending) -> None:
            if self._cut is not job:
                return
            self._cut = self._cut_key = None
            session.notices.say(Cause.MASKS, ending.error, Level.ERROR, record.key)
            if self._cut_again:
                self._cut_again = False
                self.apply()
            else:
                self.ready.emit()

        self._cut_key = record.key
        job = self._cut = session.job.starter(request, take, end)

    @property
    def threshold(self) -> tuple[float | None, float] | None:
        """The threshold in use for the class, None without masks, and the highest evidence for it in the plane."""
        found = self._found()
        if found is None or self.held is None or self.class_name not in self.held.names or not self._fits(*found):
            return None
        masks = found[0].planes[found[1]].masks
        used = masks.thresholds if masks is not None else {}
        return used.get(self.class_name), self.held.highest[self.held.names.index(self.class_name)]

    def evidence_of_class(self) -> HeldEvidence | None:
        """Return the evidence that is held, if it has the class and is that of the plane in view."""
        return self.held if self.threshold is not None else None

    def leave(self, key: int) -> None:
        """Forget the evidence of an image, which is gone or is read in another way."""
        if self.held is not None and self.held.key == key:
            self.held = None
        if self._wanted is not None and self._wanted.key == key:
            self._drop_evidence()
        if self._cut_key == key:
            self._drop_cut()

    def drop(self) -> None:
        """Forget all evidence, and what is being made."""
        self.held = None
        self._drop_evidence()
        self._drop_cut()

    def _drop_evidence(self) -> None:
        if self._job is not None:
            self._job.stop()
        self._job, self._wanted, self._then = None, None, ()

    def _drop_cut(self) -> None:
        if self._cut is not None:
            self._cut.stop()
        self._cut, self._cut_key, self._cut_again = None, None, False

    def _follow(self, found: PlaneFound) -> None:
        """Make masks if those that are there were made from other evidence, else show their threshold."""
        if found.masks is not None and found.made_with.has_evidence(
            self._session.settings.evidence, self._session.cells
        ):
            self.ready.emit()
        else:
            self.apply()

    def _found(self) -> tuple[ImageRecord, int] | None:
        """Return the image and the plane in view, if masks of the plane can be made with the current model."""
        session = self._session
        record, plane = session.in_view, session.plane
        if record is None or plane is None or plane not in record.planes or record.source is None:
            return None
        able = session.model is not None and session.is_current(record)
        return (record, plane) if able and record.planes[plane].prediction.has_structure[0] else None

    def _names(self, record: ImageRecord, plane: int) -> tuple[str, ...]:
        """Return the classes that get masks in a plane, and the one whose threshold is set."""
        from napari_milcnn.inference.masks import present_classes

        prediction = record.planes[plane].prediction
        shown = present_classes(
            prediction, 0, prediction.classes, make_options(MaskOptions, self._session.settings.masks)
        )
        return tuple(name for name in prediction.classes if name in {*shown, self.class_name})

    def _fits(self, record: ImageRecord, plane: int) -> bool:
        """Whether the evidence that is held is that of a plane, for the settings of now."""
        held, session = self.held, self._session
        if held is None or (held.key, held.plane, held.cells) != (record.key, plane, session.cells):
            return False
        alike = held.options == evidence_only(session.settings.evidence)
        return alike and set(self._names(record, plane)) <= set(held.names)
