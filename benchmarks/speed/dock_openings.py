"""Whether napari's window answers while a dock opens: python -m benchmarks.speed.dock_openings [--rounds 3] [--record].

Needs a screen, or one that is not seen: `xvfb-run -a -s "-screen 0 1600x1000x24 +extension GLX" python -m ...`.

Each dock is opened by napari's own function for its menu, in a process of its own: the first time, when nothing of what
the dock needs has been imported, and, after it was closed, a second time. A timer of 5 ms ticks in the window's thread;
what lies between two ticks is how long the window did not answer. Ticks are counted from the call until a second after
the dock is there. Also said is whether torch was imported by the time that the form of the dock was shown, which says
what the dock waits for. --starts measures how long importing the package and `--help` take instead.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np

from benchmarks.speed.ticks import LONG, Ticks

DOCKS = ("Classify", "Train", "Results")


def main() -> None:
    """Open every dock in new processes, and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="processes for each dock")
    parser.add_argument("--dock", choices=DOCKS, help="open this dock in this process and print its gaps as JSON")
    parser.add_argument("--starts", action="store_true", help="measure the import of the package and --help")
    parser.add_argument("--record", action="store_true", help="keep in RESULTS.md")
    args = parser.parse_args()
    if args.dock:
        sys.stdout.write(json.dumps(openings(args.dock)))
    else:
        from benchmarks.record import report  # imports torch, which the dock is to be seen doing

        if args.starts:
            report("Import of the package, and --help", starts(args.rounds), keep=args.record)
        else:
            report("Docks, stalls of the window while they open", lines(args.rounds), keep=args.record)


def starts(rounds: int) -> list[str]:
    """Return rows of what starting takes, the median over so many processes."""
    from benchmarks.record import table

    calls = {"Python alone": ["-c", "pass"], "import of the package": ["-c", "import napari_milcnn"],
             "napari-milcnn --help": ["-m", "napari_milcnn", "--help"]}  # fmt: skip
    rows: list[list[object]] = []
    for what, call in calls.items():
        taken = []
        for _ in range(rounds + 1):  # the first reads the files from disk
            began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
            subprocess.run([sys.executable, *call], stdout=subprocess.DEVNULL, check=True)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            taken.append((time.perf_counter() - began, spent))
        rows.append([what, *(f"{value:.2f}" for value in np.median(taken[1:], 0))])
    return table(["what", "s", "processor s"], rows)


def lines(rounds: int) -> list[str]:
    """Return rows of gaps, all processes of a dock together."""
    from benchmarks.record import table

    found: dict[tuple[str, int], list[list[float]]] = {}
    with_torch: dict[str, int] = dict.fromkeys(DOCKS, 0)
    for _ in range(rounds):
        for dock in DOCKS:
            call = [sys.executable, "-m", "benchmarks.speed.dock_openings", "--dock", dock]
            ran = subprocess.run(call, stdout=subprocess.PIPE, text=True, check=True)
            opened = json.loads(ran.stdout.splitlines()[-1])
            with_torch[dock] += opened["torch"]
            for i, gaps in enumerate(opened["gaps"]):
                found.setdefault((dock, i), []).append(gaps)
    rows = []
    for (dock, i), runs in found.items():
        gaps = np.concatenate([np.array(run) for run in runs])
        rows.append([dock, ("first", "second")[i], f"{gaps.sum() / len(runs) / 1000 - 1:.1f}", len(gaps),
                     *(f"{value:.0f}" for value in (*np.percentile(gaps, (50, 99)), gaps.max())),
                     f"{np.sum(gaps > LONG) / len(runs):.1f}", with_torch[dock] if i == 0 else ""])  # fmt: skip
    header = ["dock", "time", "s until it is there", "gaps", "median, ms", "99th percentile, ms", "longest, ms",
              f"gaps over {LONG} ms an opening", "times torch was imported when its form was shown"]  # fmt: skip
    return table(header, rows)


def openings(name: str) -> dict[str, object]:
    """Open a dock twice; the gaps in ms of each time, and whether torch was imported when its form was shown."""
    import napari
    from qtpy.QtCore import QEventLoop, QTimer

    viewer, ticks = napari.Viewer(), Ticks()
    has_torch: list[bool] = []

    def live(seconds: float, done: Callable[[], bool] = lambda: False) -> None:
        loop, watch, end = QEventLoop(), QTimer(), time.monotonic() + seconds
        watch.timeout.connect(lambda: loop.quit() if done() or time.monotonic() > end else None)
        watch.start(20)
        loop.exec()

    def opened() -> None:
        _, page = viewer.window.add_plugin_dock_widget("napari-milcnn", name)
        has_torch.append("torch" in sys.modules)
        live(120, lambda: page.dock is not None)
        live(1)

    if "torch" in sys.modules:
        raise SystemExit("torch was imported before the dock was opened: this would not be the first time")
    live(2)
    gaps = []
    for _ in range(2):
        gaps.append(ticks.during(opened).tolist())
        for holder in list(viewer.window._wrapped_dock_widgets.values()):
            viewer.window.remove_dock_widget(holder)
        live(1)
    viewer.close()
    return {"gaps": gaps, "torch": has_torch[0]}


if __name__ == "__main__":
    main()
