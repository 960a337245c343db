"""Planes of any size, with masks: python -m benchmarks.speed.any_size [--sides 2000 4000 8000 12000] [--record].

A shipped field is repeated to planes of the given sides, 2 channels of uint16 in a tiled file. Each is classified with
masks, their evidence is written too, and all files on disk, in a process of its own. Reported: the time, processor
seconds per million pixels, which a busy computer changes little, the highest memory of the process, and how much that
is above what it had after the small field. From it
`inference/evidence.py` estimates whether masks fit (`_WORK_MEMORY`). Planes of more pixels than its `LARGEST_AT_ONCE`
are cut in strips; `--strips` cuts all of them, and `--check` compares the tables and label images of the smallest plane
in strips with those in one piece.

--exact SIDE does nothing but compare P, scores and class maps of one plane, in the tiles that the program takes, with
those of the plain network run on blocks of whole rows: --exact 20000 takes about ten minutes on two cores.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import tifffile
import torch

import napari_milcnn as mil
from benchmarks.record import report, table
from napari_milcnn.images.stack import Window
from napari_milcnn.inference import evidence
from napari_milcnn.inference.model_input import model_input
from napari_milcnn.inference.predict import scores_from_logits

FIELD = mil.sample_folder() / "yeast-two-labels.ome.tif"
MODEL = "yeast-sim"
TILE = 512
ROWS = 32
KINDS = ("object", "class_map", "class_map_image", "jacobian")
TWO = ("cytoplasm", "nucleus")
"""Classes that get masks of evidence other than objects, whether the plane shows them or not."""
HEADER = ["plane", "masks from", "as", "s", "s per Mpx", "processor s per Mpx", "highest GB", "GB above the start",
          "objects"]  # fmt: skip


def main() -> None:
    """Classify each size in a process of its own, and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sides", type=int, nargs="+", default=[2000, 4000, 8000, 12000], help="sides, in px")
    parser.add_argument("--masks-as", choices=("tiff", "zarr"), default="zarr", help="format of the label images")
    parser.add_argument("--kind", choices=KINDS, default="object", help="what masks are made from")
    parser.add_argument("--strips", action="store_true", help="cut every plane in strips, however small")
    parser.add_argument("--check", action="store_true", help="compare strips with one piece on the smallest plane")
    parser.add_argument("--exact", type=int, metavar="SIDE", help="compare tiles of a plane with blocks of rows")
    parser.add_argument("--one", type=int, metavar="SIDE", help="measure in this process and print JSON")
    parser.add_argument("--record", action="store_true", help="keep in RESULTS.md")
    args = parser.parse_args()
    if args.one:
        sys.stdout.write(json.dumps(measured(args.one, args.kind, args.masks_as, strips=args.strips)))
        return
    if args.exact:
        report("Tiles against blocks of rows", [exact(args.exact)], keep=args.record)
        return
    rows: list[list[object]] = []
    for side in args.sides:
        call = [sys.executable, "-m", "benchmarks.speed.any_size", "--one", str(side)]
        call += ["--kind", args.kind, "--masks-as", args.masks_as, *(["--strips"] if args.strips else [])]
        found = json.loads(subprocess.run(call, stdout=subprocess.PIPE, text=True, check=True).stdout)
        rows.append([f"{side}²", args.kind, args.masks_as, *found])
        sys.stderr.write(f"{rows[-1]}\n")
    lines = [*table(HEADER, rows), "", at_50000(rows)]
    lines += ["", checked(min(args.sides), args.kind, args.masks_as)] if args.check else []
    report(f"Planes of any size, masks from {args.kind}", lines, keep=args.record)


def at_50000(rows: list[list[object]]) -> str:
    """Say what a plane of 50,000 px a side takes, by a line through time against area and by the largest rate."""
    areas, seconds = np.array([(float(str(row[0])[:-1]) ** 2 / 1e6, float(str(row[3]))) for row in rows]).T
    slope = float(np.polyfit(areas, seconds, 1)[0]) if len(rows) > 1 else float(seconds[0] / areas[0])
    return (
        f"At {slope:.2f} s for each further million pixels, 50000² takes {slope * 2500 / 60:.0f} min (--sides 50000)."
    )


def measured(side: int, kind: str, masks_as: str, *, strips: bool) -> list[str]:
    """Classify a plane with masks; seconds, the same and processor seconds per Mpx, memory in GB, number of objects."""
    if strips:
        evidence.LARGEST_AT_ONCE = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        classify(FIELD, folder / "small", kind, masks_as)
        image, base = repeated(folder / "large.ome.tif", side), highest_memory()
        began, processor = time.perf_counter(), time.process_time()
        objects = classify(image, folder / "large", kind, masks_as)
        seconds, processor = time.perf_counter() - began, time.process_time() - processor
        highest, each = highest_memory(), 1e6 / side**2
        return [f"{seconds:.0f}", f"{seconds * each:.2f}", f"{processor * each:.2f}", f"{highest / 1e9:.2f}",
                f"{(highest - base) / 1e9:.2f}", str(objects)]  # fmt: skip


def checked(side: int, kind: str, masks_as: str) -> str:
    """Compare the tables and the label image of a plane in strips with those in one piece, and say how they differ."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        image = repeated(folder / "large.ome.tif", side)
        for out, most in (("whole", side**2), ("strips", 0)):
            evidence.LARGEST_AT_ONCE = most
            classify(image, folder / out, kind, masks_as)
        ending = f"large_labels.ome.{'tif' if masks_as == 'tiff' else 'zarr'}"
        with mil.open_image(folder / "whole" / ending) as one, mil.open_image(folder / "strips" / ending) as other:
            pixels = int((one.plane(0) != other.plane(0)).sum())
        for part in ("predictions.csv", "objects.csv"):
            one, other = (pd.read_csv(folder / out / part) for out in ("whole", "strips"))
            pd.testing.assert_frame_equal(other, one, rtol=1e-5)
        return f"{side}² in strips against one piece: {pixels} pixels differ in the label images, 0 rows in the tables."


def exact(side: int) -> str:
    """Say how what the network says of a plane in tiles differs from what it says of blocks of rows."""
    model = mil.load_model(MODEL)
    with tempfile.TemporaryDirectory() as name, mil.open_image(repeated(Path(name) / "large.ome.tif", side)) as image:
        tiled = mil.classify(model, image, device="cpu", precision="float32")
        given, network = model_input(model, image), model.network
        placement, maps = network.placement, []
        with torch.inference_mode():
            for top in range(0, given.map_shape[0], ROWS):
                last = min(top + ROWS, given.map_shape[0]) - 1
                window = Window(top * placement.stride, last * placement.stride + placement.receptive_field,
                                0, given.shape[1])  # fmt: skip
                maps.append(network.class_maps(torch.from_numpy(given.read(0, window))[None]))
            whole = network.read_maps(torch.cat(maps, 2))
            scores = scores_from_logits(model, whole.scores)
    parts = {"P": (tiled.probabilities, whole.probabilities), "scores": (tiled.scores, scores),
             "class maps": (tiled.class_maps, whole.class_maps.sigmoid())}  # fmt: skip
    found = [f"{key} {float(abs(a - b.numpy()).max() / b.max()):.1e}" for key, (a, b) in parts.items()]
    return f"{side}² in tiles against blocks of {ROWS} rows of the class map, of the largest: {', '.join(found)}."


def repeated(path: Path, side: int) -> Path:
    """Write a plane of a given side that repeats the shipped field; it is made tile by tile and never in memory."""
    field = tifffile.imread(FIELD)
    times = -(-TILE // field.shape[-1]) + 1
    wide = np.tile(field, (1, times, times))

    def tiles() -> Iterator[np.ndarray]:
        for channel in wide:
            for y in range(0, side, TILE):
                for x in range(0, side, TILE):
                    top, left = y % field.shape[-2], x % field.shape[-1]
                    yield np.ascontiguousarray(channel[top : top + TILE, left : left + TILE])

    facts = {"axes": "CYX", "PhysicalSizeX": 0.16, "PhysicalSizeXUnit": "µm", "Channel": {"Name": ["GFP", "RFP"]}}
    tifffile.imwrite(path, tiles(), shape=(2, side, side), dtype=field.dtype, photometric="minisblack", bigtiff=True,
                     tile=(TILE, TILE), compression="zlib", metadata=facts)  # fmt: skip
    return path


def classify(image: Path, out: Path, kind: str, masks_as: str) -> int:
    """Write all files of an image, and return the number of its objects."""
    of_objects = kind == "object"
    steps = mil.classify_files(mil.load_model(MODEL), [image], out, kind=kind, masks_as=masks_as, save_evidence=True,
                               classes=None if of_objects else TWO,
                               mask_options={} if of_objects else {"present": 0})  # fmt: skip
    (result,) = [step.result for step in steps if step.result is not None]
    if result.error:
        raise SystemExit(result.error)
    return int(result.objects or 0)


def highest_memory() -> int:
    """Return the highest memory that this process has had, in bytes."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    main()
