"""The record of a training, M.training.json: its plan, the epochs that are done, and the command that repeats it."""

from __future__ import annotations

import shlex
from dataclasses import replace
from enum import StrEnum
from pathlib import Path

from pydantic import ConfigDict, Field, ValidationError

from napari_milcnn.errors import OptionsError
from napari_milcnn.images.paths import as_on_disk
from napari_milcnn.options import Options
from napari_milcnn.results.record import versions
from napari_milcnn.results.write import write_json
from napari_milcnn.training.plan import TrainingPlan
from napari_milcnn.untrusted import LARGEST_JSON, read_regular


class TrainingState(StrEnum):
    """Whether a training can go on."""

    STOPPED = "stopped"
    """It runs, was stopped, or was killed."""
    ENDED = "ended"
    """No epoch is left."""


class RunRecord(Options):
    """What M.training.json says of a training. Facts that this version does not know are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    command: str = Field("", description="The command that repeats the training.")
    epochs_done: int = Field(ge=0, description="Whole epochs so far.")
    state: TrainingState = Field(description="Whether it can go on.")
    plan: TrainingPlan = Field(description="What is trained, from what, how, and where the model goes.")
    versions: dict[str, str] = Field({}, description="Versions of this program and of those that it builds on.")

    @property
    def can_go_on(self) -> bool:
        """Whether the training was stopped and its checkpoint is there; without a whole epoch it begins again."""
        stopped = self.state is TrainingState.STOPPED
        return stopped and (self.epochs_done == 0 or self.plan.checkpoint.exists())


def save_record(plan: TrainingPlan, epochs_done: int, state: TrainingState) -> None:
    """Write the record of a training beside its model.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    command = shlex.join(["napari-milcnn", *plan.command()])
    record = RunRecord(command=command, epochs_done=epochs_done, state=state, plan=plan, versions=versions())
    write_json(plan.record, record.model_dump(mode="json"))


def read_record(path: Path) -> RunRecord | None:
    """Read the record of a training; None for a file that is damaged or no such record.

    The folder may have been moved as a whole: the model, and the labels if they are not where they were, are looked for
    beside the record.
    """
    try:
        record = RunRecord.model_validate_json(read_regular(path, LARGEST_JSON))
    except (OSError, ValidationError, OptionsError):
        return None
    plan, folder = record.plan, path.parent
    recorded = as_on_disk(plan.labels)
    labels = recorded if recorded.exists() else as_on_disk(folder / plan.labels.name)
    return record.model_copy(update={"plan": replace(plan, labels=labels, out=folder / plan.out.name)})


def stopped_training(folder: Path) -> RunRecord | None:
    """Return the record of the training that last ran in a folder if it can go on, else None."""
    paths = sorted(folder.glob("*.training.json"), key=lambda path: path.stat().st_mtime, reverse=True)
    latest = next((record for record in map(read_record, paths) if record is not None), None)
    return latest if latest is not None and latest.can_go_on else None
