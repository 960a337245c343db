"""BBBC016 in the Train dock: python -m benchmarks.accuracy.bbbc016_dock --data FOLDER [--work FOLDER] [--record].

Needs a screen, or one that is not seen (see train_dock.py). Opens napari and the dock as the menu does, drops a folder
on it, and clicks.

The folder of `bbbc016.py`, with its labels.csv, is copied and dropped on the dock; the class mid is removed by its
button; then Cross-validate: five folds of whole wells, 24 epochs, patches of 256 px. Reported is what the dock shows.
It differs from `bbbc016.py` in what the dock does by default: the preset `compact` at its full width, the folds drawn
by a seed, and the best epoch chosen on a fifth of the training wells. `--quick` shows in under a minute that it runs.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
from qtpy.QtWidgets import QApplication

from benchmarks.record import report, table
from benchmarks.train_dock import choose, drop, open_dock, open_viewer, read_arguments, settle, shot, wait


def main() -> None:
    """Cross-validate, and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of BBBC016, with labels.csv and images/")
    args = read_arguments(parser)
    report("BBBC016 in the Train dock", bbbc016(args), keep=args.record and not args.quick)


def bbbc016(args: argparse.Namespace) -> list[str]:
    """Cross-validate in the dock; rows of what it shows."""
    viewer = open_viewer()
    dock = open_dock(viewer)
    began = time.perf_counter()
    drop(dock, copied(args.data, args.work / ("bbbc016-quick" if args.quick else "bbbc016"), quick=args.quick))
    classes = dock.label_box.class_box
    classes.removers["mid"].click()
    classes.remove.click()
    settle(dock)
    dock.tabs.setCurrentIndex(1)
    choose(dock, **({"epochs": 1, "patch": 96} if args.quick else {"epochs": 24, "patch": 256}))
    dock.plan_box.folds.setValue(2 if args.quick else 5)
    dock.estimate_button.click()
    settle(dock)
    sys.stderr.write(f"{dock.estimate.text()}\n")
    dock.validate_button.click()
    wait(lambda: dock.progress.value() > 0 or not dock.busy)
    shot(viewer, args.work / "bbbc016_running.png")
    settle(dock)
    shown = dock.session.results.shown
    if shown is None:
        raise SystemExit(f"the cross-validation did not come to its end: {dock.message.text()}")
    shot(viewer, args.work / "bbbc016_outcome.png")
    lines = lines_of_report(shown.report, time.perf_counter() - began)
    dock.outcome_box.results_button.click()
    wait(lambda: results_dock() is not None and results_dock().found is not None, 60)
    shot(viewer, args.work / "bbbc016_results.png")
    viewer.close()
    return lines


def copied(data: Path, folder: Path, *, quick: bool) -> Path:
    """Copy the set, beside which the dock writes its labels; for a quick run one field of each well."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "images").mkdir(parents=True)
    rows = pd.read_csv(data / "labels.csv", dtype={"group": str})
    rows = rows.groupby("group").head(1) if quick else rows
    for file in rows["file"]:
        shutil.copyfile(data / file, folder / file)
    rows.to_csv(folder / "labels.csv", index=False)
    return folder


def results_dock() -> Any:
    """Return the Results dock, or None where none is open."""
    return next((one for one in QApplication.allWidgets() if type(one).__name__ == "ResultsDock"), None)


def lines_of_report(found: Any, seconds: float) -> list[str]:
    """Rows of Markdown: balanced accuracy of fields and wells, and the same for each class."""
    wells = found.groups
    of_wells = wells.groupby("label")["right"].mean()
    low, high = found.intervals["balanced accuracy"]
    counts = ", ".join(f"{name} {count}" for name, count in found.table.counts().items())
    head = (f"{len(found.folds)} folds, {len(found.outcomes)} fields of {len(wells)} wells ({counts}); "
            f"{seconds / 60:.0f} min\n")  # fmt: skip
    fields = found.figures["balanced accuracy"]
    rows = [["balanced accuracy", fields, f"{low:.2f} to {high:.2f}", float(of_wells.mean())]]
    rows += [
        [name, found.classes.set_index("class")["recall"][name], "", float(of_wells[name])] for name in of_wells.index
    ]
    return [head, *table(["right", "fields", "95 %", "wells"], rows)]


if __name__ == "__main__":
    main()
