"""Runs of a benchmark that takes long: each finished one is a row of a CSV, and none is done twice."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from napari_milcnn.atomic_write import replacing
from napari_milcnn.inference.predict import Classifier
from napari_milcnn.model.trained_model import TrainedModel


class Finished:
    """Rows of finished runs in `runs.csv` of a folder; a folder belongs to one set of settings.

    Parameters
    ----------
    folder : Path
        Where the rows are kept; made if it is missing.
    settings : dict
        What every run of the folder shares. A folder of other settings ends the program with a sentence.
    """

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        self.file = folder / "runs.csv"
        written, wanted = folder / "settings.json", json.loads(json.dumps(settings))
        folder.mkdir(parents=True, exist_ok=True)
        found = json.loads(written.read_text()) if written.exists() else wanted
        if found != wanted:
            changed = ", ".join(sorted(name for name in {*found, *wanted} if found.get(name) != wanted.get(name)))
            sys.exit(f"{folder} holds runs of other settings ({changed}); choose another folder with --work")
        written.write_text(json.dumps(wanted, indent=1))

    def rows(self) -> pd.DataFrame:
        """Every row so far; empty at first."""
        return pd.read_csv(self.file) if self.file.exists() else pd.DataFrame()

    def open_runs(self, wanted: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
        """List the runs among the wanted ones that have no row yet."""
        rows = self.rows()
        return [run for run in wanted if not len(rows) or not _of(rows, run).any()]

    def add(self, run: dict[str, Any], rows: list[dict[str, Any]]) -> None:
        """Add the rows of a run, all or none."""
        table = pd.concat([self.rows(), pd.DataFrame([{**run, **row} for row in rows])], ignore_index=True)
        with replacing(self.file) as part:
            table.to_csv(part, index=False)


def _of(rows: pd.DataFrame, run: dict[str, Any]) -> pd.Series:
    return pd.concat([rows[name] == value for name, value in run.items()], axis=1).all(axis=1)


def run_all(
    finished: Finished, wanted: list[dict[str, Any]], work: Callable[..., list[dict[str, Any]]], workers: int,
    **shared: Any,
) -> pd.DataFrame:  # fmt: skip
    """Do what has no row yet, `work(**run, **shared)` in processes of one thread each -> the rows of all runs.

    Says after each run how many are left and how long they will take.
    """
    left = finished.open_runs(wanted)
    began = time.perf_counter()
    with ProcessPoolExecutor(workers, get_context("spawn"), torch.set_num_threads, (1,)) as pool:
        futures: dict[Future[list[dict[str, Any]]], dict[str, Any]] = {
            pool.submit(work, **run, **shared): run for run in left
        }
        for done, future in enumerate(as_completed(futures), start=1):
            finished.add(futures[future], future.result())
            seconds = (time.perf_counter() - began) / done * (len(left) - done)
            name = ", ".join(f"{key} {value}" for key, value in futures[future].items())
            sys.stderr.write(f"{name} done; {len(left) - done} of {len(left)} runs left, {minutes(seconds)}\n")
    return finished.rows()


def minutes(seconds: float) -> str:
    """Write '12 min', or '40 s' where it is less than two minutes."""
    return f"{seconds / 60:.0f} min" if seconds >= 120 else f"{seconds:.0f} s"


def scores(model: TrainedModel, files: Iterable[Path], device: str) -> pd.DataFrame:
    """Classify images of one plane each: a row for each file, a column of scores for each class."""
    classifier = Classifier(model, device=device)
    found = [classifier.classify(file).scores[0] for file in files]
    return pd.DataFrame(found, columns=list(model.classes)).astype(float)
