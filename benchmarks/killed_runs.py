"""Runs that are killed at random moments and gone on with: python -m benchmarks.killed_runs [--kills 20] [COMMAND ...].

Each command runs once undisturbed. Then it is started again and again in new folders, killed with SIGKILL at random
moments between its first sign of life and its end, and run to its end with --resume (evaluate, which has nothing to go
on from, from the start). What is on disk must then equal that of the undisturbed run: tables byte by byte, images pixel
by pixel, models by their digest. Every second folder of `classify` holds results of another model to begin with. At
last, two runs are started at once into one folder: one of them must be refused.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile

from benchmarks.record import report, table
from napari_milcnn.model.package_read import load_model
from napari_milcnn.model.trained_model import new_model

IMAGES, SIZE = 24, 128
CPU = ("--device", "cpu", "--precision", "float32")


@dataclass(frozen=True)
class Command:
    """A command to kill.

    Attributes
    ----------
    words : tuple of str
        The command without its output.
    resume : tuple of str
        What goes on from where it was killed.
    out : str
        Name of its output: a folder, or a model.
    """

    words: tuple[str, ...]
    resume: tuple[str, ...] = ("--resume",)
    out: str = "out"

    def start(self, folder: Path, *, resume: bool = True) -> subprocess.Popen[str]:
        """Start it with its output in a folder."""
        words = [*self.words, "--out", str(folder / self.out), *(self.resume if resume else ())]
        call = [sys.executable, "-m", "napari_milcnn", *words]
        return subprocess.Popen(call, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

    def finish(self, folder: Path) -> None:
        """Run it to its end: with --resume or, where that is refused because it had not begun, without."""
        for resume in (True, False):
            with self.start(folder, resume=resume) as process:
                message = process.communicate()[1]
            if process.returncode in (0, 1):
                return
            if "is the record of another run" not in message:
                break
        sys.exit(f"{self.words[0]} ended with status {process.returncode}: {message}")


def prepare(folder: Path) -> dict[str, Command]:
    """Write images, one of them broken, labels and two models; return the commands."""
    rng, rows = np.random.default_rng(0), ["file,label,group,split"]
    for i in range(IMAGES):
        pixels = rng.normal(100, 5, (SIZE, SIZE))
        for y, x in rng.integers(20, SIZE - 20, (6 * (i % 2), 2)):
            pixels[y - 4 : y + 5, x - 4 : x + 5] += 80
        tifffile.imwrite(folder / f"{i:02}.tif", pixels.astype(np.uint16))
        rows.append(f"{i:02}.tif,{('none', 'spots')[i % 2]},well{i},{'train' if i < 18 else 'validation'}")
    (folder / "labels.csv").write_text("\n".join(rows))
    (folder / "broken.tif").write_bytes(b"II*\0 no image")
    models = []
    for seed in (0, 1):
        model = new_model(["none", "spots"], ["c"], widths=(8, 8, 8, 16, 16, 16), normalise="training", seed=seed)
        models.append(str(model.with_card(mean=(100.0,), std=(20.0,)).save(folder / f"m{seed}.zip")))
    images = [str(path) for path in sorted(folder.glob("*.tif"))]
    labels = str(folder / "labels.csv")
    fast = ("--epochs", "12", "--epoch-steps", "2", "--batch-size", "4", "--patch", "80", "--patience", "12", *CPU)
    return {
        "classify": Command(("classify", *images, "-m", models[0], "--present", "0", *CPU)),
        "another model": Command(("classify", *images, "-m", models[1], "--present", "0", *CPU), resume=()),
        "train": Command(("train", labels, *fast), out="m.zip"),
        "evaluate": Command(("evaluate", labels, "-m", models[0], *CPU), resume=()),
    }


def contents(folder: Path) -> dict[str, object]:
    """Return what a command wrote, without what tells the time."""
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.suffix == ".zip":
            found[name] = load_model(path).digest
        elif path.suffix == ".tif":
            found[name] = tifffile.imread(path).tobytes()
        elif path.suffix in {".csv", ".png"}:
            found[name] = path.read_bytes()
        elif path.is_file():
            found[name] = None
    return found


def times(command: Command, folder: Path) -> tuple[float, float]:
    """Run a command undisturbed -> seconds until its first sign of life, and until its end."""
    began, first = time.monotonic(), 0.0
    with command.start(folder) as process:
        while process.poll() is None:
            first = first or (time.monotonic() - began if any(folder.iterdir()) else 0.0)
            time.sleep(0.02)
    return first, time.monotonic() - began


def kill(command: Command, folder: Path, seconds: float, *, resume: bool) -> bool:
    """Start a command and kill it; tell whether it was still running."""
    with command.start(folder, resume=resume) as process:
        time.sleep(seconds)
        running = process.poll() is None
        process.send_signal(signal.SIGKILL)
    return running


def killed(name: str, commands: dict[str, Command], work: Path, kills: int) -> list[object]:
    """Kill a command until it was killed often enough -> a row of the table."""
    command, rng = commands[name], random.Random(name)
    whole = work / f"{name} whole"
    whole.mkdir()
    first, end = times(command, whole)
    wanted, hits, rounds, equal = contents(whole), 0, 0, 0
    while hits < kills:
        folder = work / f"{name} {rounds}"
        folder.mkdir()
        if name == "classify" and rounds % 2:
            commands["another model"].finish(folder)
        for resume in (rounds % 2 == 0, True):
            hits += kill(command, folder, rng.uniform(first, end), resume=resume)
        command.finish(folder)
        different = {one for one, found in contents(folder).items() if wanted.get(one, "") != found}
        different |= wanted.keys() - contents(folder).keys()
        equal += not different
        rounds += 1
        if different:
            sys.stderr.write(f"{folder}: {', '.join(sorted(different))} differ\n")
    return [name, hits, rounds, equal]


def two_at_once(command: Command, work: Path) -> str:
    """Start two runs into one folder -> their exit states and what the second was told."""
    folder = work / "two at once"
    folder.mkdir()
    with command.start(folder) as one, command.start(folder) as other:
        said = [process.communicate()[1] for process in (one, other)]
    states = sorted((process.returncode, text) for process, text in zip((one, other), said, strict=True))
    told = states[-1][1].strip().splitlines()[-1].replace(str(folder), "").replace(os.uname().nodename, "COMPUTER")
    return f"Two at once: exit states {states[0][0]} and {states[1][0]}; the second was told: {told}"


def main() -> None:
    """Kill, go on, compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("commands", nargs="*", default=["classify", "train", "evaluate"])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--record", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        (work / "images").mkdir()
        commands = prepare(work / "images")
        rows = [killed(one, commands, work, options.kills) for one in options.commands]
        header = ["command", "kills", "runs", "equal to the undisturbed run"]
        lines = [*table(header, rows), "", two_at_once(commands["classify"], work)]
    report(f"Killed runs: {', '.join(options.commands)}", lines, keep=options.record)


if __name__ == "__main__":
    main()
