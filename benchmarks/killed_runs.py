"""Runs that are killed at random moments and gone on with: python -m benchmarks.killed_runs [--kills 20] [COMMAND ...].

Each command runs once undisturbed. Then it is started again and again in new folders, killed with SIGKILL at random
moments between its first sign of life and its end, and run to its end with --resume (evaluate, which has nothing to go
on from, from the start). What is on disk must then equal that of the undisturbed run: tables byte by byte, images pixel
by pixel, models by their digest. Every second folder of `classify` holds results of another model to begin with. At
last, two runs are started at once into one folder: one of them must be refused.

The commands are forked from a process that has loaded what they import, which would take most of their time.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import tifffile

from benchmarks.record import report, table
from napari_milcnn.model.package_read import load_model
from napari_milcnn.model.trained_model import new_model

if TYPE_CHECKING:
    from multiprocessing.context import ForkServerProcess

IMAGES, SIZE = 16, 128
FORKED = multiprocessing.get_context("forkserver")
LOADED = ["napari_milcnn.cli.app", "napari_milcnn.results.folder", "napari_milcnn.training.trainer",
          "napari_milcnn.evaluation.report", "matplotlib.pyplot", "skimage.measure"]  # fmt: skip
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

    def start(self, folder: Path, *, resume: bool = True) -> ForkServerProcess:
        """Start it with its output in a folder; its messages go into a file beside the folder."""
        words = [*self.words, "--out", str(folder / self.out), *(self.resume if resume else ())]
        process = FORKED.Process(target=type_in, args=(words, messages_of(folder)))
        process.start()
        return process

    def finish(self, folder: Path) -> None:
        """Run it to its end: with --resume or, where that is refused because it had not begun, without."""
        for resume in (True, False):
            process = self.start(folder, resume=resume)
            process.join()
            message = messages_of(folder).read_text(encoding="utf-8")
            if process.exitcode in (0, 1):
                return
            if "is the record of another run" not in message:
                break
        sys.exit(f"{self.words[0]} ended with status {process.exitcode}: {message}")


def messages_of(folder: Path, number: int = 0) -> Path:
    """Return the file with what a command in a folder said last."""
    return folder.with_name(f"{folder.name} messages {number}.txt")


def type_in(words: list[str], messages: Path) -> None:
    """Run a command line in this process, with its messages in a file."""
    from napari_milcnn.cli.app import main as command_line

    with messages.open("w", encoding="utf-8") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.argv = ["napari-milcnn", *words]
    command_line()


def prepare(folder: Path) -> dict[str, Command]:
    """Write images, one of them broken, labels and two models; return the commands."""
    rng, rows = np.random.default_rng(0), ["file,label,group,split"]
    for i in range(IMAGES):
        pixels = rng.normal(100, 5, (SIZE, SIZE))
        for y, x in rng.integers(20, SIZE - 20, (6 * (i % 2), 2)):
            pixels[y - 4 : y + 5, x - 4 : x + 5] += 80
        tifffile.imwrite(folder / f"{i:02}.tif", pixels.astype(np.uint16))
        rows.append(f"{i:02}.tif,{('none', 'spots')[i % 2]},well{i},{'train' if i < 12 else 'validation'}")
    (folder / "labels.csv").write_text("\n".join(rows))
    (folder / "broken.tif").write_bytes(b"II*\0 no image")
    models = []
    for seed in (0, 1):
        model = new_model(["none", "spots"], ["c"], widths=(8, 8, 8, 16, 16, 16), normalise="training", seed=seed)
        models.append(str(model.with_card(mean=(100.0,), std=(20.0,)).save(folder / f"m{seed}.zip")))
    images = [str(path) for path in sorted(folder.glob("*.tif"))]
    labels = str(folder / "labels.csv")
    fast = ("--epochs", "8", "--epoch-steps", "1", "--batch-size", "4", "--patch", "80", "--patience", "8", *CPU)
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
    process = command.start(folder)
    while process.is_alive():
        first = first or (time.monotonic() - began if any(folder.iterdir()) else 0.0)
        time.sleep(0.02)
    return first, time.monotonic() - began


def kill(command: Command, folder: Path, seconds: float, *, resume: bool) -> bool:
    """Start a command and kill it; tell whether it was still running."""
    process = command.start(folder, resume=resume)
    process.join(seconds)
    running = process.is_alive()
    process.kill()
    process.join()
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
            was_running = kill(command, folder, rng.uniform(first, end), resume=resume)
            hits += was_running
            end = end if was_running else max(first, 0.8 * end)  # the computer may have been busy before
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
    words = [*command.words, "--out", str(folder / command.out)]
    both = [FORKED.Process(target=type_in, args=(words, messages_of(folder, number))) for number in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join()
    said = [messages_of(folder, number).read_text(encoding="utf-8") for number in range(2)]
    (first, _), (second, text) = sorted(zip([process.exitcode for process in both], said, strict=True))
    told = text.strip().splitlines()[-1].replace(str(folder), "").replace(os.uname().nodename, "COMPUTER")
    return f"Two at once: exit states {first} and {second}; the second was told: {told}"


def main() -> None:
    """Kill, go on, compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("commands", nargs="*", default=["classify", "train", "evaluate"])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--record", action="store_true")
    options = parser.parse_args()
    FORKED.set_forkserver_preload(LOADED)
    (loading := FORKED.Process(target=int)).start()
    loading.join()
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
