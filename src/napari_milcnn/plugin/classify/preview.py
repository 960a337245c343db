"""The masks of the plane in view, which follow the settings at once: its evidence is kept, so a slider is quick."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from psygnal import Signal

from napari_milcnn.errors import MilcnnError
from napari_milcnn.options import MaskOptions, make_options
from napari_milcnn.plugin.classify.jobs import EvidenceRequest, RunningJob
from napari_milcnn.plugin.classify.records import Cause, ImageRecord, MadeWith, PlaneFound, cells_reader, evidence_only
from napari_milcnn.plugin.qt.notices import Level

if TYPE_CHECKING:
    from napari_milcnn.inference.evidence import PlaneEvidence
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
    """Evidence that was made."""

    evidence: PlaneEvidence


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
        self.class_name = ""
        self.held: HeldEvidence | None = None

    @property
    def busy(self) -> bool:
        """Whether evidence is being made."""
        return self._job is not None

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

        def keep(evidence: PlaneEvidence) -> None:
            if self._job is job and wanted.key in session.images.records:
                self.held = HeldEvidence(**vars(wanted), evidence=evidence)
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
        """Make the masks of the plane in view as the settings say."""
        from napari_milcnn.inference.masks import segment_plane

        found, session = self._found(), self._session
        if found is None:
            return
        record, plane = found
        if not self._fits(record, plane):
            self.prepare(then=self.apply)
            return
        assert self.held is not None
        assert record.source is not None
        assert record.model is not None
        own = record.model.card.thresholds_for(str(session.settings.evidence.get("kind")))
        known = record.planes[plane]
        try:
            masks = segment_plane(
                self.held.evidence, known.prediction, self.held.names,
                make_options(MaskOptions, session.settings.masks), record.source.image.pixel_size, own,
            )  # fmt: skip
        except MilcnnError as error:
            session.notices.say(Cause.MASKS, str(error), Level.ERROR, record.key)
            return
        made_with = MadeWith(session.settings, self.held.cells)
        session.take_masks(record.key, plane, replace(known, masks=masks, made_with=made_with, problem=""))
        self.ready.emit()

    @property
    def threshold(self) -> tuple[float | None, float] | None:
        """The threshold in use for the class, None without masks, and the highest evidence for it in the plane."""
        found = self._found()
        if found is None or self.held is None or self.class_name not in self.held.names or not self._fits(*found):
            return None
        masks = found[0].planes[found[1]].masks
        used = masks.thresholds if masks is not None else {}
        return used.get(self.class_name), float(np.asarray(self.held.evidence.maps[self._place]).max())

    def evidence_of_class(self) -> HeldEvidence | None:
        """Return the evidence that is held, if it has the class and is that of the plane in view."""
        return self.held if self.threshold is not None else None

    @property
    def _place(self) -> int:
        assert self.held is not None
        return self.held.names.index(self.class_name)

    def leave(self, key: int) -> None:
        """Forget the evidence of an image, which is gone or is read in another way."""
        if self.held is not None and self.held.key == key:
            self.held = None
        if self._wanted is not None and self._wanted.key == key:
            self.drop()

    def drop(self) -> None:
        """Forget all evidence, and what is being made."""
        if self._job is not None:
            self._job.stop()
        self._job, self._wanted, self.held, self._then = None, None, None, ()

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
