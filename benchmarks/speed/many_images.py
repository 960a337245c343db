"""Memory over many images and planes: python -m benchmarks.speed.many_images [--images 300] [--planes 300].

A small field is classified again and again with masks and all files on disk, as so many images, and then as one image
of so many planes, each in a process of its own. After every tenth the memory that the process holds is read, once
garbage was collected and freed memory was given back to the system. Reported: that memory after the first 50 and at the
end, and the growth from a line fitted to what lies between.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import psutil
import tifffile

import napari_milcnn as mil
from benchmarks.record import report, table

FIELD = mil.sample_folder() / "yeast-two-labels.ome.tif"
SIDE, FIRST, EVERY = 200, 50, 10
HEADER = ["many", "number", f"MB after {FIRST}", "MB at the end", "growth, %", "kB each"]


def main() -> None:
    """Measure images and planes in processes of their own, and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=300, help="number of images")
    parser.add_argument("--planes", type=int, default=300, help="number of planes of one image")
    parser.add_argument("--one", choices=("images", "planes"), help="measure in this process and print JSON")
    parser.add_argument("--record", action="store_true", help="keep in RESULTS.md")
    args = parser.parse_args()
    if min(args.images, args.planes) < 2 * FIRST:
        parser.error(f"expected at least {2 * FIRST} images and planes")
    numbers = {"images": args.images, "planes": args.planes}
    if args.one:
        sys.stdout.write(json.dumps(measured(args.one, numbers[args.one])))
        return
    rows: list[list[object]] = []
    for kind, number in numbers.items():
        call = [sys.executable, "-m", "benchmarks.speed.many_images", "--one", kind, f"--{kind}", str(number)]
        held = json.loads(subprocess.run(call, stdout=subprocess.PIPE, text=True, check=True).stdout)
        rows.append([kind, str(number), *grown(held)])
    report("Memory over many images", table(HEADER, rows), keep=args.record)


def grown(held: list[float]) -> list[str]:
    """Return the memory after the first ones and at the end in MB, its growth in percent, and in kB each."""
    later = np.array(held[FIRST // EVERY :]) / 1e6
    slope = float(np.polyfit(EVERY * np.arange(len(later)), later, 1)[0])
    first, last = np.median(later[:5]), np.median(later[-5:])
    return [f"{first:.0f}", f"{last:.0f}", f"{100 * (last / first - 1):.1f}", f"{1000 * slope:.0f}"]


def measured(kind: str, number: int) -> list[float]:
    """Classify images or planes; the memory that the process holds after every tenth of them, in bytes."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        held: list[float] = []
        model, done = mil.load_model("yeast-sim"), 0
        for step in mil.classify_files(model, images(folder / "images", kind, number), folder / "out"):
            if (step.result is not None) if kind == "images" else (step.share * number * 2 >= done + 1):
                done += 1
                if done % EVERY == 0:
                    held.append(memory())
            if step.result is not None and step.result.error:
                raise SystemExit(step.result.error)
        return held


def images(folder: Path, kind: str, number: int) -> list[Path]:
    """Write so many images, or one of so many planes."""
    folder.mkdir()
    field = tifffile.imread(FIELD)[:, :SIDE, :SIDE]
    facts = {"PhysicalSizeX": 0.16, "PhysicalSizeXUnit": "µm", "Channel": {"Name": ["GFP", "RFP"]}}
    first = folder / "0000.ome.tif"
    if kind == "planes":
        planes = np.broadcast_to(field, (number, *field.shape))
        tifffile.imwrite(first, planes, photometric="minisblack", metadata={"axes": "TCYX", **facts})
        return [first]
    tifffile.imwrite(first, field, photometric="minisblack", metadata={"axes": "CYX", **facts})
    return [first, *(Path(shutil.copy(first, folder / f"{i:04}.ome.tif")) for i in range(1, number))]


def memory() -> float:
    """Return the memory that this process holds, in bytes; parts of files that are mapped into it do not count."""
    gc.collect()
    if sys.platform == "linux":
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    found = psutil.Process().memory_info()
    return float(found.rss - getattr(found, "shared", 0))


if __name__ == "__main__":
    main()
