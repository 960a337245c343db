"""A training carried out as its plan says: in this process, or in processes of its own.

Several devices train in processes of their own: `follow_training` starts the command line under `accelerate launch` and
reads the epochs that it prints.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from pydantic_core import to_json

from napari_milcnn.atomic_write import sweep_drafts
from napari_milcnn.errors import ComputeError
from napari_milcnn.labels.image_checks import OnImage
from napari_milcnn.labels.table import LabelTable
from napari_milcnn.model.trained_model import TrainedModel
from napari_milcnn.output_lock import OutputLock, locked
from napari_milcnn.training.plan import TrainingPlan
from napari_milcnn.training.record import TrainingState, save_record
from napari_milcnn.training.trainer import EpochReport, OnBatch, train
from napari_milcnn.training.validation import has_settled

_POLL_SECONDS = 0.2
"""Time between two looks at what a followed training printed."""
_LAST_LINES = 12


def is_leading_process() -> bool:
    """Whether this process prints and saves, of those that `accelerate launch` started."""
    return int(os.environ.get("RANK", 0)) == 0


def run_training(
    plan: TrainingPlan,
    table: LabelTable,
    model: TrainedModel,
    *,
    resume: bool = False,
    on_warning: Callable[[str], None] | None = None,
    on_image: OnImage | None = None,
    on_batch: OnBatch | None = None,
) -> Iterator[EpochReport]:
    """Train as a plan says, and save the best model so far after each epoch.

    Parameters
    ----------
    plan : TrainingPlan
        How to train, and where the model goes.
    table : LabelTable
        `plan.table()`.
    model : TrainedModel
        The model of `plan.start(table)`.
    resume : bool
        Go on from the plan's checkpoint, or from the start where there is none yet.
    on_warning, on_image, on_batch : callable, optional
        As of `train`.

    Yields
    ------
    EpochReport
        After each epoch, once its model is saved; leave the loop to stop.

    Raises
    ------
    MilcnnError
        As `train`, if a file cannot be written, or if another training writes the same model.
    """
    if not is_leading_process():
        yield from train(model, table, checkpoint=plan.checkpoint, resume=resume, on_warning=on_warning,
                         on_image=on_image, on_batch=on_batch, **plan.train_options().model_dump())  # fmt: skip
        return
    with locked(plan.out) as lock:  # of all files of the training
        sweep_drafts(plan.out.parent)
        yield from _leading(plan, table, model, lock, resume=resume, on_warning=on_warning, on_image=on_image,
                            on_batch=on_batch)  # fmt: skip


def _leading(
    plan: TrainingPlan, table: LabelTable, model: TrainedModel, lock: OutputLock, *, resume: bool,
    on_warning: Callable[[str], None] | None, on_image: OnImage | None, on_batch: OnBatch | None,
) -> Iterator[EpochReport]:  # fmt: skip
    """Train in the process that saves, as `run_training` says."""
    report: EpochReport | None = None
    options = plan.train_options()
    recorded = resume

    def batch(done: int, total: int) -> bool:
        nonlocal recorded
        if not recorded:  # until its first batch, a training leaves the record of an earlier one alone
            save_record(plan, 0, TrainingState.STOPPED)
            recorded = True
        return on_batch is None or on_batch(done, total)

    try:
        for report in train(model, table, checkpoint=plan.checkpoint, resume=resume, on_warning=on_warning,
                            on_image=on_image, on_batch=batch, **options.model_dump()):  # fmt: skip
            if report.is_best or report.best.card.training.look or not plan.out.exists():
                report.best.save(plan.out, lock=lock)
            save_record(plan, report.epoch, _state_after(report, options.patience))
            yield report
    finally:
        if report is not None:
            plan.last.unlink(missing_ok=True) if report.is_best else report.last.save(plan.last, lock=lock)


def _state_after(report: EpochReport, patience: int | None) -> TrainingState:
    """Tell whether an epoch is left; one that is left because the time is up can be trained later."""
    settled = has_settled(report.last.card.training.curve, patience)
    return TrainingState.ENDED if settled or report.epoch == report.epochs else TrainingState.STOPPED


def epoch_row(report: EpochReport) -> dict[str, object]:
    """Return the figures of an epoch as plain values: those of the card's curve, and time and device."""
    took = {"seconds": report.seconds, "waiting": report.waiting, "device": report.device}
    return {**report.last.card.training.curve[-1].model_dump(), **took}


def json_line(facts: Mapping[str, object]) -> str:
    """Write facts as one line of JSON, in which NaN and infinity become null."""
    return to_json(dict(facts), inf_nan_mode="null").decode()


def follow_training(plan: TrainingPlan, processes: int, *, resume: bool = False) -> Iterator[dict[str, object] | None]:
    """Train in processes of their own, one for each device, started by the command line.

    Parameters
    ----------
    plan : TrainingPlan
        As of `run_training`; its model is read from its file.
    processes : int
        Number of processes: 1 runs the command line itself, more run it under `accelerate launch`.
    resume : bool
        Go on from the plan's checkpoint.

    Yields
    ------
    dict or None
        The row of each epoch (`epoch_row`), and None a few times a second; leave the loop to end the processes.

    Raises
    ------
    ComputeError
        With the reason that the command line gave when it failed.
    """
    launcher = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", str(processes)]
    program = [*(launcher if processes > 1 else []), "-m", "napari_milcnn"]
    call = [sys.executable, *program, *plan.command(resume=resume), "--json"]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        messages = Path(folder) / "messages.txt"
        with (Path(folder) / "epochs.jsonl").open("w+b") as printed, messages.open("wb") as error_output:
            process = subprocess.Popen(call, stdout=printed, stderr=error_output)
            try:
                yield from _epochs_of(process, Path(printed.name))
            finally:
                process.terminate()
                process.wait()
        if process.returncode:
            raise ComputeError(f"the training ended without a reason; its last lines: {_last_lines(messages)}")


def _epochs_of(process: subprocess.Popen[bytes], printed: Path) -> Iterator[dict[str, object] | None]:
    """Yield the epochs that a process prints to a file of JSON Lines, as they come, until the process ends."""
    with printed.open("rb") as file:
        unfinished, running = b"", True
        while running:
            running = process.poll() is None
            *lines, unfinished = (unfinished + file.read()).split(b"\n")
            for line in lines:
                if not line.startswith(b"{"):
                    continue  # libraries may print lines of their own, such as NCCL its version
                facts = json.loads(line)
                if "error" in facts:
                    raise ComputeError(facts["error"])
                if "epoch" in facts:
                    yield facts
            if running:
                yield None
                time.sleep(_POLL_SECONDS)


def _last_lines(messages: Path) -> str:
    lines = messages.read_text("utf-8", errors="replace").splitlines()
    return " / ".join([line for line in lines if line.strip()][-_LAST_LINES:])
