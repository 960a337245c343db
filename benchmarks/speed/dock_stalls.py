"""Whether napari's window answers while the Train dock trains: python -m benchmarks.speed.dock_stalls [--record].

Needs a screen, or one that is not seen (see train_dock.py). Opens napari and the dock as the menu does, drops a folder
on it, and clicks.

Someone scrolls the time-lapse that the plugin ships, a frame every 50 ms, while the dock trains on simulated fields
with its default options; in between nothing is trained, for comparison, and the two take turns. A timer of 5 ms ticks
in the window's thread: what lies between two ticks is how long the window did not answer. Everything from Start to the
figures of the third tab is counted; so is, once, the opening of the dock, which loads what a training needs. As short
gaps are many, their 99th percentile alone would hide a rare long one: the share of the time that passed in gaps over
200 ms, and the longest gap, stand beside it. `--quick` shows in under a minute that it runs.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import Any

import napari
import numpy as np
import tifffile
from qtpy.QtCore import QTimer

from benchmarks.record import report, table
from benchmarks.speed.ticks import LONG, Ticks
from benchmarks.train_dock import choose, drop, open_dock, open_viewer, read_arguments, settle, shot, wait
from napari_milcnn import sample_folder
from napari_milcnn.model.package_read import load_model
from napari_milcnn.plugin.current_model import current
from napari_milcnn.simulation.microscope import simulate_field
from napari_milcnn.simulation.options import SimulationOptions

CLASSES = ("nucleus", "cell periphery", "mitochondria")
SCROLL = 50
"""Milliseconds between two frames."""


def main() -> None:
    """Scroll and train, and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="trainings, and rests between them")
    parser.add_argument("--slider", action="store_true", help="move the threshold of the Classify dock")
    args = read_arguments(parser)
    if args.slider:
        report("Classify dock, a slider moved", slide(args), keep=args.record and not args.quick)
        return
    report("Train dock, stalls of the window", stall(args), keep=args.record and not args.quick)


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


def slide(args: argparse.Namespace) -> list[str]:
    """Move the threshold slider over planes of several sizes; rows of times."""
    viewer, ticks, rows = open_viewer(), Ticks(), []
    current.set(load_model("yeast-sim"))
    dock = open_dock(viewer, "Classify")
    session = dock.session
    field = tifffile.imread(next((sample_folder() / "training" / "images").glob("nucleus-*.tif")))
    for side in (1024,) if args.quick else (1024, 2048, 4096):
        for kind in ("object", "class_map_image"):
            times = -(-side // min(field.shape[-2:]))
            viewer.layers.clear()
            dock.adds_box.choose(kind)
            pixels = np.tile(field, (1, times, times))[:, :side, :side]
            viewer.add_image(pixels, channel_axis=0, name=["GFP", "RFP"])
            viewer.layers.selection = set(viewer.layers)
            wait(lambda: dock.run_button.isEnabled())
            dock.run_button.click()
            wait(lambda: not (session.busy or session.preview.busy) and session.preview.held is not None)
            took = [wait_for_masks(dock, 0.3 + 0.02 * number, ticks) for number in range(3 if args.quick else 20)]
            gaps = [max(gaps) for _, gaps in took]
            times_ms = [ms for ms, _ in took]
            rows.append([f"{side}²", kind, len(session.in_view.masks[0].shown), f"{min(times_ms):.0f}",
                         f"{np.median(times_ms):.0f}", f"{np.median(gaps):.0f}", f"{max(gaps):.0f}"])  # fmt: skip
    viewer.close()
    header = ["plane, px", "masks from", "objects", "slider to layer, shortest, ms", "median, ms",
              "longest gap of the window, median, ms", "longest, ms"]  # fmt: skip
    return table(header, rows)


def wait_for_masks(dock: Any, value: float, ticks: Ticks) -> tuple[float, np.ndarray]:
    """Move the slider and let it go; return the ms until its masks are in their layer, and the gaps meanwhile."""
    session, ended = dock.session, []
    record, began = session.in_view, [0.0]

    def note(_event: Any = None) -> None:
        ended.append(1000 * (time.perf_counter() - began[0]))

    def move() -> None:
        began[0] = time.perf_counter()
        dock.mask_box.threshold.setValue(value * dock.mask_box.threshold.maximum())
        wait(lambda: bool(ended) and not session.preview.busy)
        wait(lambda: False, 0.3)  # napari draws

    layer = dock.writer.masks_of(record)
    layer.events.set_data.connect(note)
    gaps = ticks.during(move)
    layer.events.set_data.disconnect(note)
    return ended[-1], gaps


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


if __name__ == "__main__":
    main()
