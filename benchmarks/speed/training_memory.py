"""How much memory a training on many large images takes.

    python -m benchmarks.speed.training_memory [--images 300] [--record]

Writes images of 10 MB (2240 x 2240 px, 16 bit) to a scratch folder, trains one epoch on them with the options that a
user gets, and prints the largest resident size of the process beside that of a training on a tenth of them. It grows
with the cache (`cache`, 1 GiB by default) and not with the number of images.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import tifffile

import napari_milcnn as mil
from benchmarks import record
from napari_milcnn.inference.devices import keep_freed_memory

SIDE = 2240


def main() -> None:
    """Write the images, train in processes of their own, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--record", action="store_true", help="keep in RESULTS.md")
    parser.add_argument("--be", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.be:
        train(args.be)
        return
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        write_images(Path(folder), args.images)
        for count in (args.images // 10, args.images):
            table = write_table(Path(folder), count)
            done = subprocess.run(
                [sys.executable, "-m", __spec__.name, "--be", table], check=True, capture_output=True, text=True
            )
            size, waiting = done.stdout.split()
            rows.append([count, f"{count * SIDE**2 * 2 / 1e9:.1f}", float(size), float(waiting)])
    header = ["images", "GB on disk", "GB of memory, at most", "share of time waiting for images"]
    record.report("Memory of a training", record.table(header, rows), keep=args.record)


def write_images(folder: Path, count: int) -> None:
    """Write noisy images with bright squares."""
    rng = np.random.default_rng(0)
    ground = rng.normal(200, 20, (SIDE, SIDE))
    for i in range(count):
        image = np.roll(ground, i, axis=1)
        for y, x in rng.integers(0, SIDE - 40, (400, 2)):
            image[y : y + 20 + 20 * (i % 2), x : x + 20] += 300
        tifffile.imwrite(folder / f"{i}.tif", image.astype(np.uint16))


def write_table(folder: Path, count: int) -> Path:
    """Write the table of the first images."""
    table = folder / f"labels{count}.csv"
    table.write_text("file,label\n" + "".join(f"{i}.tif,{('square', 'long')[i % 2]}\n" for i in range(count)))
    return table


def train(table: Path) -> None:
    """Train one epoch and print the largest resident size, in GB, and the share of time waited."""
    keep_freed_memory()
    labels = mil.read_labels(table)
    (report,) = mil.train(mil.new_model(labels.classes, ["c"]), labels, epochs=1, epoch_steps=1, validation=0)
    sys.stdout.write(f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9} {report.waiting}\n")


if __name__ == "__main__":
    main()
