"""A training carried out as its plan says: here, or in processes of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from napari_milcnn.errors import ComputeError
from napari_milcnn.labels.image_checks import OnImage
from napari_milcnn.labels.table import LabelTable
from napari_milcnn.model.trained_model import TrainedModel
from napari_milcnn.training.plan import TrainingPlan
from napari_milcnn.training.trainer import EpochReport, OnBatch, train

_LOOK = 0.2
"""Seconds between two looks at what a followed training printed."""
_LAST_LINES = 12


def leads() -> bool:
    """Whether this is the process that prints and saves, of those that `accelerate launch` started."""
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
    """Train as a plan says, saving the best model so far after each epoch.

    Parameters
    ----------
    plan : TrainingPlan
        What, how and where to.
    table, model
        `plan.table()`, and the model of `plan.start(table)`.
    resume : bool
        Go on from the plan's checkpoint; from the start where there is none yet.
    on_warning, on_image, on_batch : callable, optional
        As of `train`.

    Yields
    ------
    EpochReport
        After each epoch, its model saved; leave the loop to stop.

    Raises
    ------
    MilcnnError
        As `train`; or if a file cannot be written.
    """
    report: EpochReport | None = None
    options = plan.train_options()
    recorded = resume or not leads()

    def batch(done: int, total: int) -> bool:
        nonlocal recorded
        if not recorded:  # the record of a training before this one is left until this one has begun
            plan.save(0, ended=False)
            recorded = True
        return on_batch is None or on_batch(done, total)

    try:
        for report in train(model, table, checkpoint=plan.checkpoint, resume=resume, on_warning=on_warning,
                            on_image=on_image, on_batch=batch, **options.model_dump()):  # fmt: skip
            if leads():
                if report.is_best or not plan.out.exists():
                    report.best.save(plan.out)
                plan.save(report.epoch, ended=_is_complete(report, options.patience))
            yield report
    finally:
        if report is not None and leads():
            plan.last.unlink(missing_ok=True) if report.is_best else report.last.save(plan.last)


def _is_complete(report: EpochReport, patience: int | None) -> bool:
    """Whether no epoch follows, but for a time that is up."""
    settled = patience is not None and report.epoch - report.best.card.training["epoch"] >= patience
    return settled or report.epoch == report.epochs


def epoch_row(report: EpochReport) -> dict[str, Any]:
    """Return the figures of an epoch as plain values: what the card's curve has of it, and what it took."""
    took = {"seconds": report.seconds, "waiting": report.waiting, "device": report.device}
    return {**report.last.card.training["curve"][-1], **took}


class EpochPrinter:
    """Prints a training as one JSON document, a line an epoch as they come, so that it can be followed."""

    def __init__(self, write: Callable[[str], Any]) -> None:
        self._write = write
        self._rows = 0

    def epoch(self, row: dict[str, Any]) -> None:
        """Print one epoch."""
        self._write(('{"epochs": [\n' if self._rows == 0 else ",\n") + json.dumps(row, default=str))
        self._rows += 1

    def end(self, **facts: Any) -> None:
        """Print what is known at the end, and close the document."""
        begin = '{"epochs": [' if self._rows == 0 else "\n"
        self._write(begin + "], " + json.dumps(facts, default=str)[1:] + "\n")


def follow_training(plan: TrainingPlan, processes: int, *, resume: bool = False) -> Iterator[dict[str, Any] | None]:
    """Train in processes of their own, started by the command line, one a device.

    Parameters
    ----------
    plan : TrainingPlan
        As of `run_training`; the models are read from its files.
    processes : int
        How many: 1 runs the command line itself, more run it under `accelerate launch`.
    resume : bool
        Go on from the plan's checkpoint.

    Yields
    ------
    dict or None
        The row of each epoch (`epoch_row`), and None a few times a second; leave the loop to end the processes.

    Raises
    ------
    ComputeError
        What the command line said when it failed.
    """
    launch = ["-m", "accelerate.commands.launch", "--num_processes", str(processes)]
    launch += ["--multi_gpu"] if processes > 1 else []
    call = [sys.executable, *(launch if processes > 1 else []), "-m", "napari_milcnn", *plan.command(resume=resume)]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        said, errors = Path(folder) / "said", Path(folder) / "errors"
        with said.open("wb") as out, errors.open("wb") as error_out:
            process = subprocess.Popen([*call, "--json"], stdout=out, stderr=error_out)
        try:
            yield from _rows_of(process, said)
            if process.returncode:
                raise ComputeError(_failure(errors))
        finally:
            process.terminate()
            process.wait()


def _rows_of(process: subprocess.Popen[bytes], said: Path) -> Iterator[dict[str, Any] | None]:
    """Yield the epochs that a process prints to a file, as they come, until it ends."""
    done, runs = 0, True
    while runs:
        runs = process.poll() is None
        rows = _printed_rows(said.read_bytes())
        yield from rows[done:]
        done = len(rows)
        if runs:
            yield None
            time.sleep(_LOOK)


def _printed_rows(document: bytes) -> list[dict[str, Any]]:
    """Read the epochs of a document of `EpochPrinter` that may not be whole yet: its whole lines."""
    lines = [line.rstrip(b",") for line in document.split(b"\n")[1:] if line.startswith(b"{")]
    return [json.loads(line) for line in lines if line.endswith(b"}")]


def _failure(errors: Path) -> str:
    lines = [line for line in errors.read_text("utf-8", errors="replace").splitlines() if line.strip()]
    told = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return (
        told[-1] if told else "the training ended without a word; its last lines: " + " / ".join(lines[-_LAST_LINES:])
    )
