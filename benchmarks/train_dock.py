"""The Train dock as its user has it: does the window answer while a network trains, and does BBBC016 come out right.

    python benchmarks/train_dock.py stall [--work FOLDER] [--record]
    python benchmarks/train_dock.py bbbc016 --data FOLDER [--work FOLDER] [--threads N] [--record]

Needs a screen, or one that is not seen: `xvfb-run -a -s "-screen 0 1600x1000x24 +extension GLX" python ...`. Both open
napari and the dock as the menu does, drop a folder on it, and click.

`stall`. Someone scrolls the time-lapse that the plugin ships, a frame every 50 ms, while the dock trains on simulated
fields with its default options; in between nothing is trained, for comparison, and the two take turns. A timer of 5 ms
ticks in the window's thread: what lies between two ticks is how long the window did not answer. Everything from Start
to the figures of the third tab is counted; so is, once, the opening of the dock, which loads what a training needs. As
short gaps are many, their 99th percentile alone would hide a rare long one: the share of the time that passed in gaps
over 200 ms, and the longest gap, stand beside it.

`bbbc016`. The folder of `bbbc016.py`, with its labels.csv, is copied and dropped on the dock; the class mid is removed
by its button; then Cross-validate: five folds of whole wells, 24 epochs, patches of 256 px. Reported is what the dock
shows. It differs from `bbbc016.py` in what the dock does by default: the preset `compact` at its full width, the folds
drawn by a seed, and the best epoch chosen on a fifth of the training wells.

`--quick` shows in under a minute that a part runs.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import napari
import numpy as np
import pandas as pd
import tifffile
import torch
from qtpy.QtCore import QElapsedTimer, QEventLoop, QMimeData, QPoint, QPointF, QSettings, Qt, QTimer, QUrl
from qtpy.QtGui import QDragEnterEvent, QDropEvent
from qtpy.QtWidgets import QApplication
from record import report, table

from napari_milcnn.simulation.microscope import simulate_field
from napari_milcnn.simulation.options import SimulationOptions

SIZE, DOCK_WIDTH = (1300, 860), 360
CLASSES = ("nucleus", "cell periphery", "mitochondria")
TICK, SCROLL, LONG = 5, 50, 200
"""Milliseconds between two ticks, between two frames, and what a user feels as a stall."""


def main() -> None:
    """Run one part, and record."""
    args = arguments()
    args.work.mkdir(parents=True, exist_ok=True)
    QSettings.setPath(QSettings.Format.NativeFormat, QSettings.Scope.UserScope, tempfile.mkdtemp())
    if args.threads:
        torch.set_num_threads(args.threads)
    parts = {"stall": ("Train dock, stalls of the window", stall), "bbbc016": ("BBBC016 in the Train dock", bbbc016)}
    title, run = parts[args.part]
    lines = run(args)
    report(title, lines, keep=args.record and not args.quick)


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("stall", "bbbc016"))
    parser.add_argument("--data", type=Path, help="folder of BBBC016, with labels.csv and images/; copied first")
    parser.add_argument("--work", type=Path, default=Path("build/train_dock"), help="for images and screenshots")
    parser.add_argument("--threads", type=int, help="of torch; default: as the dock has them")
    parser.add_argument("--rounds", type=int, default=3, help="of the stalls: trainings, and rests between them")
    parser.add_argument("--quick", action="store_true", help="under a minute, to see that it runs")
    parser.add_argument("--record", action="store_true", help="append to RESULTS.md")
    args = parser.parse_args()
    if args.part == "bbbc016" and args.data is None:
        parser.error("bbbc016 needs --data")
    return args


# A user of the dock


def open_viewer() -> napari.Viewer:
    """Open napari."""
    viewer = napari.Viewer()
    viewer.window._qt_window.resize(*SIZE)
    return viewer


def open_dock(viewer: napari.Viewer) -> Any:
    """Open the dock as the Plugins menu does, and wait until it has loaded what it needs."""
    window = viewer.window._qt_window
    holder, dock = viewer.window.add_plugin_dock_widget("napari-milcnn", "Train")
    window.resizeDocks([holder], [DOCK_WIDTH], Qt.Orientation.Horizontal)
    wait(lambda: bool(dock.device.text()))
    return dock


def wait(done: Callable[[], bool], seconds: float = 7200) -> None:
    """Let the window live until something is done."""
    loop, timer, clock = QEventLoop(), QTimer(), QElapsedTimer()
    timer.timeout.connect(lambda: loop.quit() if done() or clock.hasExpired(int(1000 * seconds)) else None)
    clock.start()
    timer.start(50)
    loop.exec()
    timer.stop()


def settle(dock: Any) -> None:
    """Wait until nothing runs any more in the dock."""
    box = dock.label_box
    wait(lambda: not (dock.busy or dock.waits or box.busy or box.images.pictures.busy))


def drop(dock: Any, folder: Path) -> None:
    """Drop a folder on the first tab, and wait until its images are there."""
    mime = QMimeData()
    mime.setUrls([QUrl.fromLocalFile(str(folder.resolve()))])
    how = (Qt.DropAction.CopyAction, mime, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        QApplication.sendEvent(dock.label_box, QDragEnterEvent(QPoint(5, 5), *how))
    QApplication.sendEvent(dock.label_box, QDropEvent(QPointF(5, 5), *how))
    wait(lambda: dock.label_box.labelling is not None)
    settle(dock)


def choose(dock: Any, **options: Any) -> None:
    """Set options in the form."""
    for name, value in options.items():
        dock.plan_box.options[name].value = value


def shot(viewer: napari.Viewer, path: Path) -> None:
    """Take a picture of the whole window."""
    wait(lambda: False, 1)
    viewer.window.screenshot(str(path), canvas_only=False, flash=False)


# Stalls


class Ticks:
    """Times, in s, at which a fast timer ticked in the window's thread."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self._timer = QTimer()
        self._timer.setTimerType(Qt.TimerType.PreciseTimer)
        self._timer.timeout.connect(lambda: self.times.append(time.perf_counter()))

    def during(self, work: Callable[[], None]) -> np.ndarray:
        """Return the gaps between two ticks, in ms, while something is done."""
        self.times = []
        self._timer.start(TICK)
        work()
        self._timer.stop()
        return 1000 * np.diff(self.times)


def stall(args: argparse.Namespace) -> list[str]:
    """Scroll with and without a training in turn; rows of gaps."""
    fields, epochs, rest, rounds = (6, 1, 3, 1) if args.quick else (12, 3, 10, args.rounds)
    viewer = open_viewer()
    viewer.open_sample("napari-milcnn", "yeast-timelapse")
    ticks, gaps, loads = Ticks(), {"the dock opens": [], "nothing trains": [], "a network trains": []}, []
    scrolling = QTimer()
    scrolling.timeout.connect(lambda: scroll(viewer))
    scrolling.start(SCROLL)
    wait(lambda: False, 2)
    opened: list[Any] = []
    gaps["the dock opens"].append(ticks.during(lambda: opened.append(open_dock(viewer))))
    (dock,) = opened
    drop(dock, simulated(args.work / f"fields{fields}", fields))
    dock.tabs.setCurrentIndex(1)
    choose(dock, epochs=epochs)
    wait(lambda: False, 2)
    for _ in range(rounds):
        loads.append(os.getloadavg()[0])
        gaps["nothing trains"].append(ticks.during(lambda: wait(lambda: False, rest)))
        gaps["a network trains"].append(ticks.during(lambda: train(dock)))
        dock.tabs.setCurrentIndex(1)
    scrolling.stop()
    shot(viewer, args.work / "stall.png")
    viewer.close()
    np.savez(args.work / "gaps.npz", **{name: np.concatenate(found) for name, found in gaps.items()})
    return lines_of_gaps({name: np.concatenate(found) for name, found in gaps.items()}, rounds, loads)


def simulated(folder: Path, count: int) -> Path:
    """Write fields of three localisations and their labels.csv."""
    folder.mkdir(parents=True, exist_ok=True)
    facts = {"axes": "CYX", "PhysicalSizeX": 0.16, "PhysicalSizeXUnit": "µm", "Channel": {"Name": ["GFP", "RFP"]}}
    rows = ["file,label"]
    for i in range(count):
        shown = CLASSES[i % len(CLASSES)]
        tifffile.imwrite(folder / f"{i}.ome.tif", simulate_field([shown], SimulationOptions(), i).image, metadata=facts)
        rows.append(f"{i}.ome.tif,{shown}")
    (folder / "labels.csv").write_text("\n".join(rows))
    return folder


def scroll(viewer: napari.Viewer) -> None:
    """Go to the next frame."""
    frame, frames = viewer.dims.current_step[0], viewer.dims.nsteps[0]
    viewer.dims.set_current_step(0, (frame + 1) % frames)


def train(dock: Any) -> None:
    """Click Start, and wait for the end."""
    dock.start_button.click()
    settle(dock)
    if dock.message.text() != "Done.":
        raise SystemExit(f"the training did not come to its end: {dock.message.text()}")


def lines_of_gaps(gaps: dict[str, np.ndarray], rounds: int, loads: list[float]) -> list[str]:
    """Rows of Markdown: gaps in ms."""
    head = (f"{rounds} rounds; load of the machine before each: {', '.join(f'{load:.1f}' for load in loads)}; "
            f"{os.cpu_count()} cores\n")  # fmt: skip
    rows = []
    for name, found in gaps.items():
        middle, high = np.percentile(found, (50, 99))
        late = 100 * found[found > LONG].sum() / found.sum()
        rows.append([name, f"{found.sum() / 1000:.0f}", len(found), *(f"{v:.0f}" for v in (middle, high, found.max())),
                     f"{late:.1f} %"])  # fmt: skip
    header = ["while scrolling", "s", "gaps", "median, ms", "99th percentile, ms", "longest, ms",
              f"time in gaps over {LONG} ms"]  # fmt: skip
    return [head, *table(header, rows)]


# BBBC016


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
    if dock.report is None:
        raise SystemExit(f"the cross-validation did not come to its end: {dock.message.text()}")
    shot(viewer, args.work / "bbbc016_outcome.png")
    lines = lines_of_report(dock.report, time.perf_counter() - began)
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
