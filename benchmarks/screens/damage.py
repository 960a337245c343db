"""Screens with damaged images, and on a file system that is full: what is lost, and what is said.

    python -m benchmarks.screens.damage [--small FOLDER] [--record]

A plate of 96 wells with 200 fields, of which twenty are damaged in five ways, is classified by the command line.
Expected are 180 results, twenty rows with a reason, and exit status 1.

FOLDER lies on a file system of at most 1 GB, such as `mount -t tmpfs -o size=64m tmpfs FOLDER` makes. The same screen
runs there while a file leaves room for `ROOM` of what the results need, time after time, and at last with the room that
it needs. Each time it must stop with a sentence and no traceback, and keep what is done; at the end the tables must
equal those of the first screen, byte by byte.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import tifffile

from benchmarks.record import report, table
from napari_milcnn.model.trained_model import new_model

SITES, SIDE, DAMAGED = 2, 96, 20
TABLES = ("predictions.csv", "cells.csv", "wells.csv", "features.parquet")
ROOM = (0.05, 0.3, 0.6, 0.9)
"""Shares of the size of the whole results that there is room for."""
LARGEST = 1 << 30


def main() -> None:
    """Classify, compare and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", type=Path, help="a folder on a small file system")
    parser.add_argument("--record", action="store_true", help="keep in RESULTS.md")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        words = prepare(work)
        whole = work / "whole"
        status, _ = screen(words, whole)
        found = pd.read_csv(whole / "predictions.csv")
        reasons = found["error"].fillna("")
        results, refused = int((reasons == "").sum()), int((reasons != "").sum())
        lines = [f"{len(found)} fields, {DAMAGED} of them damaged in {len(WAYS)} ways: {results} results, {refused} "
                 f"rows with a reason, exit status {status}."]  # fmt: skip
        if args.small is not None:
            lines += ["", *table(["room, MB", "exit status", "error", "wells kept"], full(words, whole, args.small))]
            same = [one for one in TABLES if (args.small / "out" / one).read_bytes() == (whole / one).read_bytes()]
            lines += ["", f"Equal to the undisturbed screen, byte by byte: {len(same)} of {len(TABLES)} tables."]
    report("Screens with damaged images, and on a full disk", lines, keep=args.record)


def damaged_ways(whole: bytes) -> tuple[bytes, ...]:
    """Return what a damaged file may hold: nothing, text, half of the file, its head alone, pixels that are none."""
    return b"", b"no image", whole[: len(whole) // 2], whole[:8], whole[:200] + bytes(300) + whole[500:]


WAYS = damaged_ways(b"")


def prepare(folder: Path) -> list[str]:
    """Write the images and a model, and return the words of the command."""
    rng = np.random.default_rng(0)
    files = []
    for well in range(100):
        for site in range(SITES):
            pixels = rng.normal(100, 5, (SIDE, SIDE))
            for y, x in rng.integers(12, SIDE - 12, (well % 8, 2)):
                pixels[y - 4 : y + 5, x - 4 : x + 5] += 80
            name = f"{'ABCDEFGH'[well // 12 % 8]}{well % 12 + 1:02}_s{site + 1 + 2 * (well // 96)}.tif"
            files.append(folder / "plate" / name)
            files[-1].parent.mkdir(exist_ok=True)
            tifffile.imwrite(files[-1], pixels.astype(np.uint16), compression="zlib")
    for number, file in enumerate(rng.choice(np.array(files, object), DAMAGED, replace=False)):
        file.write_bytes(damaged_ways(file.read_bytes())[number % len(WAYS)])
    model = new_model(["none", "spots"], ["c"], widths=(16, 16, 32, 32, 64, 64), normalise="training", seed=0)
    saved = model.with_card(mean=(100.0,), std=(20.0,)).save(folder / "m.zip")
    cpu = ["--device", "cpu", "--precision", "float32", "--channels", "c"]
    return ["screen", str(folder / "plate"), "-m", str(saved), "--present", "0", "--resume", *cpu]


def screen(words: list[str], out: Path) -> tuple[int, str]:
    """Run the command, and return its exit status and what it printed to stderr."""
    done = subprocess.run([sys.executable, "-m", "napari_milcnn", *words, "--out", str(out)],
                          capture_output=True, text=True, check=False)  # fmt: skip
    return done.returncode, done.stderr


def full(words: list[str], whole: Path, small: Path) -> list[list[object]]:
    """Run the screen on the small file system with more and more room -> rows of a table."""
    if shutil.disk_usage(small).total > LARGEST:
        sys.exit(f"the file system of {small} holds more than 1 GB; expected a small one")
    needed = sum(file.stat().st_size for file in whole.rglob("*") if file.is_file())
    out, ballast = small / "out", small / "ballast"
    shutil.rmtree(out, ignore_errors=True)
    rows: list[list[object]] = []
    for share in (*ROOM, None):
        ballast.unlink(missing_ok=True)
        used = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
        room = shutil.disk_usage(small).free if share is None else max(0, int(share * needed) - used)
        with ballast.open("wb") as file:
            file.write(bytes(shutil.disk_usage(small).free - room))
        status, said = screen(words, out)
        if "Traceback" in said:
            sys.exit(f"the screen ended with a traceback: {said[-3000:]}")
        last = said.strip().splitlines()[-1].replace(f"{small}/", "") if status == 2 else ""
        rows.append([room / 1e6, status, last, len(list(out.glob("parts/*/*/part.json")))])
    return rows


if __name__ == "__main__":
    main()
