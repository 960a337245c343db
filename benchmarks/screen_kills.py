"""Screens that are killed at random moments: python -m benchmarks.screen_kills [--kills 10] [client worker scheduler].

A screen of wells with three fields each, three of them damaged, runs once undisturbed. Then it runs again and again
in new folders, and one of its processes is killed with SIGKILL at random moments between the first well and the end:

client: the command itself, with two workers of its own; it is started again with --resume.
worker: one of the two workers of a command, which goes on by itself.
scheduler: the dask scheduler of two dask workers; a new one is started, and the command again with --resume.

The tables must then equal those of the undisturbed screen, byte by byte, and no well that was on disk may have been
written again: a watcher notes when each part was written, and counts those that were written twice.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import psutil
import tifffile

from benchmarks.record import report, table
from napari_milcnn.model.trained_model import new_model

SITES, SIZE = 3, 192
TABLES = ("predictions.csv", "cells.csv", "features.parquet")
QUIET = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}


def prepare(folder: Path, wells: int) -> list[str]:
    """Write the images of a plate, three of them damaged, and a model; return the words of the command."""
    rng = np.random.default_rng(0)
    for well in range(wells):
        for site in range(SITES):
            pixels = rng.normal(100, 5, (SIZE, SIZE))
            for y, x in rng.integers(20, SIZE - 20, (well % 12, 2)):
                pixels[y - 4 : y + 5, x - 4 : x + 5] += 80
            name = folder / "plate" / f"{'ABCDE'[well // 12]}{well % 12 + 1:02}_s{site + 1}.tif"
            name.parent.mkdir(exist_ok=True)
            tifffile.imwrite(name, pixels.astype(np.uint16))
    for damaged in ("A03_s1", "A07_s2", "A12_s3"):
        (folder / "plate" / f"{damaged}.tif").write_bytes(b"II*\0 no image")
    model = new_model(["none", "spots"], ["c"], widths=(16, 16, 32, 32, 64, 64), normalise="training", seed=0)
    saved = model.with_card(mean=(100.0,), std=(20.0,)).save(folder / "m.zip")
    cpu = ["--device", "cpu", "--precision", "float32", "--channels", "c"]
    return ["screen", str(folder / "plate"), "-m", str(saved), "--present", "0", *cpu]


class Watch:
    """Notes when each part of a screen was written, from another thread."""

    def __init__(self, out: Path) -> None:
        self.out, self.written = out, defaultdict(set)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Watch:
        """Begin."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End, after a last look."""
        self._stop.set()
        self._thread.join()
        self._note()

    def _look(self) -> None:
        while not self._stop.wait(0.05):
            self._note()

    def _note(self) -> None:
        for path in self.out.glob("parts/*/*/part.json"):
            try:
                self.written[path].add(path.stat().st_mtime_ns)
            except FileNotFoundError:
                continue

    def count(self) -> int:
        """Return the number of parts that are there."""
        return len(self.written)

    def twice(self) -> int:
        """Return the number of parts that were written more than once."""
        return sum(len(times) > 1 for times in self.written.values())


@contextmanager
def running(*words: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a module of Python beside the block; what is left of it is killed at the end, its children, too."""
    with subprocess.Popen([sys.executable, "-m", *words], **QUIET) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                for child in psutil.Process(process.pid).children(recursive=True):
                    child.kill()
                process.kill()


@contextmanager
def cluster(work: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Start a scheduler and two workers; yields its address and its process."""
    about = work / f"scheduler {time.monotonic_ns()}.json"
    with ExitStack() as stack:
        words = ("distributed.cli.dask_scheduler", "--port", "0", "--host", "127.0.0.1", "--no-dashboard")
        scheduler = stack.enter_context(running(*words, "--scheduler-file", str(about)))
        while not about.exists() or not about.read_text():
            time.sleep(0.1)
        address = json.loads(about.read_text())["address"]
        for _ in range(2):
            more = ("--nthreads", "1", "--no-dashboard", "--death-timeout", "120", "--local-directory", str(work))
            stack.enter_context(running("distributed.cli.dask_worker", address, *more))
        yield address, scheduler


def wait_for_first(watch: Watch, process: subprocess.Popen[bytes], more: int) -> None:
    """Wait until a command has finished wells that it had not finished before."""
    while process.poll() is None and watch.count() <= more:
        time.sleep(0.02)


def kill_client(words: list[str], out: Path, work: Path, watch: Watch, seconds: float) -> bool:
    """Kill a command with two workers, once; tell whether it was still running."""
    with running("napari_milcnn", *words, "--out", str(out), "--resume", "--workers", "2") as process:
        wait_for_first(watch, process, watch.count())
        time.sleep(seconds)
        was_running = process.poll() is None
        process.send_signal(signal.SIGKILL)
    return was_running


def kill_worker(words: list[str], out: Path, work: Path, watch: Watch, seconds: float) -> bool:
    """Kill one of the two workers of a command, which goes on; tell whether it was still running."""
    with running("napari_milcnn", *words, "--out", str(out), "--resume", "--workers", "2") as process:
        wait_for_first(watch, process, watch.count())
        time.sleep(seconds)
        children = [] if process.poll() is not None else psutil.Process(process.pid).children(recursive=True)
        workers = [one for one in children if "spawn_main" in " ".join(one.cmdline())]
        if workers:
            random.Random(seconds).choice(workers).kill()
        process.wait()
    return bool(workers)


def kill_scheduler(words: list[str], out: Path, work: Path, watch: Watch, seconds: float) -> bool:
    """Kill the scheduler of a command, which must then end by itself; tell whether it was still running."""
    with (
        cluster(work) as (address, scheduler),
        running("napari_milcnn", *words, "--out", str(out), "--resume", "--scheduler", address) as process,
    ):
        wait_for_first(watch, process, watch.count())
        time.sleep(seconds)
        was_running = process.poll() is None
        scheduler.send_signal(signal.SIGKILL)
        process.wait(timeout=120)
    return was_running


KILLS = {"client": kill_client, "worker": kill_worker, "scheduler": kill_scheduler}


def finish(words: list[str], out: Path) -> None:
    """Run a screen to its end, in one process."""
    call = [sys.executable, "-m", "napari_milcnn", *words, "--out", str(out), "--resume"]
    done = subprocess.run(call, capture_output=True, text=True, check=False)
    if done.returncode != 1:  # three fields are damaged
        sys.exit(f"the screen ended with status {done.returncode}: {done.stderr[-2000:]}")


def killed(what: str, words: list[str], work: Path, whole: Path, kills: int, seconds: float) -> list[object]:
    """Kill a process of screens until it was killed often enough -> a row of the table."""
    rng, hits, rounds, equal, twice = random.Random(what), 0, 0, 0, 0
    while hits < kills:
        out = work / f"{what} {rounds}"
        with Watch(out) as watch:
            for _ in range(2):
                hits += KILLS[what](words, out, work, watch, rng.uniform(0, seconds))
            finish(words, out)
        same = all((out / name).read_bytes() == (whole / name).read_bytes() for name in TABLES)
        equal, twice, rounds = equal + same, twice + watch.twice(), rounds + 1
        if not same:
            sys.stderr.write(f"{out} differs\n")
    return [what, hits, rounds, equal, twice]


def main() -> None:
    """Kill, go on, compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", nargs="*", default=list(KILLS))
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--wells", type=int, default=60)
    parser.add_argument("--record", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        words = prepare(work, options.wells)
        with Watch(work / "whole") as watch:
            first = threading.Thread(target=finish, args=(words, work / "whole"))
            first.start()
            while first.is_alive() and not watch.count():
                time.sleep(0.02)
            began = time.monotonic()
            first.join()
            seconds = 0.6 * (time.monotonic() - began)  # two workers, and half of the screen a kill
        rows = []
        for what in options.what:
            rows.append(killed(what, words, work, work / "whole", options.kills, seconds))
            sys.stderr.write(f"{rows[-1]}\n")
    header = ["killed", "kills", "screens", "equal to the undisturbed screen", "wells written twice"]
    lines = [f"{options.wells} wells of {SITES} fields, three of them damaged.", "", *table(header, rows)]
    report(f"Killed screens: {', '.join(options.what)}", lines, keep=options.record)


if __name__ == "__main__":
    main()
