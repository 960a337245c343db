"""What a screen costs on two workers against one process: python -m benchmarks.speed.screen_workers [--rounds 3].

52 wells of four simulated yeast fields each (512 px, two channels) are classified with the shipped model yeast-sim, by
turns in one process on one core and by two workers on two cores, one thread each. The rate is that of the fields after
the first well, by the times at which the parts were written: it has the end of the run, where one worker has nothing
left to do, and leaves out how long Python and torch take to start. Efficiency is the rate of two workers over twice
that of one process; two plain processes without dask (`--shard 1/2` and `2/2`) say what the computer gives. Then the
costs are measured that benchmarks.speed.screen_schedule takes: seconds and bytes a field, of dask a task, and of the
tables a well.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.record import report, table
from napari_milcnn.model.shipped import sample_folder
from napari_milcnn.screens.parts import read_part
from napari_milcnn.screens.summary import read_tables

WELLS, SITES = 52, 4
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}


def prepare(folder: Path) -> Path:
    """Write the fields of a plate: the samples, again and again."""
    samples = sorted(sample_folder().glob("yeast-*.ome.tif"))
    plate = folder / "plate"
    plate.mkdir()
    for number in range(WELLS * SITES):
        well, site = divmod(number, SITES)
        name = f"{'ABCDEFGH'[well // 12]}{well % 12 + 1:02}_s{site + 1}.ome.tif"
        shutil.copy(samples[number % len(samples)], plate / name)
    return plate


def rate(plate: Path, out: Path, ways: list[list[str]], cores: set[int]) -> float:
    """Run a screen by one command or several at a time -> fields a second, after the first well."""
    words = ["screen", str(plate), "-m", "yeast-sim", "--out", str(out), "--device", "cpu"]
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)  # which the commands inherit
    try:
        running = [subprocess.Popen([sys.executable, "-m", "napari_milcnn", *words, *way], stdout=subprocess.DEVNULL,
                                    stderr=subprocess.PIPE, env=ONE_THREAD, text=True) for way in ways]  # fmt: skip
    finally:
        os.sched_setaffinity(0, before)
    for one in running:
        said = one.communicate()[1]
        if one.returncode:
            sys.exit(said[-2000:])
    times = np.sort([path.stat().st_mtime_ns / 1e9 for path in out.glob("parts/*/*/part.json")])
    return (len(times) - 1) * SITES / (times[-1] - times[0])


def dask_seconds(tasks: int = 2000) -> float:
    """Return the seconds that dask takes for a task that does nothing, on two workers, with paths to it and back."""
    from distributed import Client, LocalCluster

    paths = [f"/data/plate/B03_s{site}_w1.tif" for site in range(32)]
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster, Client(cluster) as client:
        client.gather([client.submit(len, paths, pure=False) for _ in range(50)])
        began = time.monotonic()
        client.gather([client.submit(len, paths, pure=False) for _ in range(tasks)])
        return (time.monotonic() - began) / tasks


def costs(plate: Path, out: Path) -> list[list[object]]:
    """Return what was measured of one run of one process, for the simulation of schedules."""
    parts = [path for path in out.glob("parts/*/*") if path.is_dir()]
    facts = [found for part in parts if (found := read_part(part)) is not None]
    fields = sum(len(one.fields) for one in facts)
    read = sum(path.stat().st_size for path in plate.iterdir()) / fields
    written = sum(path.stat().st_size for part in parts for path in part.iterdir()) / fields
    began = time.monotonic()
    read_tables(out)
    tables = time.monotonic() - began
    return [
        ["CPU seconds a field, one thread", float(np.sum([one.seconds for one in facts]) / fields)],
        ["its variation between wells (standard deviation over mean)", float(
            np.std([one.seconds for one in facts]) / np.mean([one.seconds for one in facts]))],
        ["MB read a field", read / 1e6],
        ["MB written a field", written / 1e6],
        ["seconds of dask a task", dask_seconds()],
        ["seconds of the tables a well", tables / len(parts)],
    ]  # fmt: skip


def main() -> None:
    """Measure by turns, then the costs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--record", action="store_true")
    options = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))[:2]
    rows = []
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        plate = prepare(work)
        for number in range(options.rounds):
            one = rate(plate, work / f"one {number}", [[]], {cores[0]})
            two = rate(plate, work / f"two {number}", [["--workers", "2"]], set(cores))
            plain = rate(plate, work / f"plain {number}", [["--shard", "1/2"], ["--shard", "2/2"]], set(cores))
            rows.append([number + 1, one, two, two / (2 * one), plain / (2 * one), two / plain])
        found = costs(plate, work / "one 0")
    rows.append(["median", *np.median([row[1:] for row in rows], 0).tolist()])
    header = ["round", "fields a second, one process", "two workers", "efficiency", "of two plain processes",
              "workers over plain processes"]  # fmt: skip
    lines = [f"{WELLS * SITES} fields.", "", *table(header, rows), "", *table(["cost", "measured"], found)]
    report("Workers of a screen", lines, keep=options.record)


if __name__ == "__main__":
    main()
