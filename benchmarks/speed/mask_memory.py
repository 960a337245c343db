"""Memory of masks of a large plane: python -m benchmarks.speed.mask_memory [--sides 4000 6000] [--record].

A shipped field is repeated to planes of the given sides, which are classified with masks and all files on disk, each in
a process of its own. Reported: the highest memory of the process above what it had after the small field, in bytes a
pixel. `inference/evidence.py` estimates from it (`_WORK_MEMORY`) whether masks fit, before they are made.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import tifffile

import napari_milcnn as mil
from benchmarks.record import report, table

FIELD = mil.sample_folder() / "yeast-two-labels.ome.tif"
KINDS = ("object", "class_map")


def main() -> None:
    """Classify each size in a process of its own, and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sides", type=int, nargs="+", default=[4000, 6000], help="sides of the planes, in px")
    parser.add_argument("--one", nargs=2, metavar=("SIDE", "KIND"), help="measure in this process and print JSON")
    parser.add_argument("--record", action="store_true", help="append to RESULTS.md")
    args = parser.parse_args()
    if args.one:
        sys.stdout.write(json.dumps(measured(int(args.one[0]), args.one[1])))
        return
    rows = []
    for side in args.sides:
        for kind in KINDS:
            call = [sys.executable, "-m", "benchmarks.speed.mask_memory", "--one", str(side), kind]
            found = json.loads(subprocess.run(call, stdout=subprocess.PIPE, text=True, check=True).stdout)
            rows.append([f"{side}²", kind, *found])
    header = ["plane", "masks from", "GB above the start", "bytes a pixel", "s"]
    report("Memory of masks of large planes", table(header, rows), keep=args.record)


def measured(side: int, kind: str) -> list[str]:
    """Classify a plane with masks; memory above the start in GB, in bytes a pixel, and seconds."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        classify(FIELD, folder / "small", kind)
        base, began = highest_memory(), time.perf_counter()
        classify(repeated(folder / "large.ome.tif", side), folder / "large", kind)
        more = highest_memory() - base
        return [f"{more / 1e9:.2f}", f"{more / side**2:.0f}", f"{time.perf_counter() - began:.0f}"]


def repeated(path: Path, side: int) -> Path:
    """Write a plane of a given side that repeats the shipped field."""
    field = tifffile.imread(FIELD)
    times = -(-side // field.shape[-1])
    facts = {"axes": "CYX", "PhysicalSizeX": 0.16, "PhysicalSizeXUnit": "µm", "Channel": {"Name": ["GFP", "RFP"]}}
    plane = np.tile(field, (1, times, times))[:, :side, :side]
    tifffile.imwrite(path, plane, photometric="minisblack", tile=(512, 512), metadata=facts)
    return path


def classify(image: Path, out: Path, kind: str) -> None:
    """Write all files of an image."""
    for step in mil.classify_files(mil.load_model("yeast-sim"), [image], out, kind=kind):
        if step.result is not None and step.result.error:
            raise SystemExit(step.result.error)


def highest_memory() -> int:
    """Return the highest memory that this process has had, in bytes."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    main()
