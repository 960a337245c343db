"""Say whether two versions of the program compute the same numbers on this machine.

    python benchmarks/same_numbers.py record before.json      # with the one version
    python benchmarks/same_numbers.py compare before.json     # with the other

Classifies the samples of `demo`, then runs a training of 2 epochs in float32 with a fixed seed, and an evaluation, all
on the shipped samples. Tables are compared to the last digit, label images, class maps and weights bit by bit. Only
public names are used, so that the script runs with either version.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tifffile
import torch

import napari_milcnn as mil

TIMES = ("seconds",)
"""Columns that say how long something took."""


def digest(data: bytes) -> str:
    """Return a short SHA-256."""
    return hashlib.sha256(data).hexdigest()[:16]


def tables(folder: Path) -> dict[str, list[str]]:
    """Rows of every table in a folder as text, without paths; times are left out."""
    found = {}
    for path in sorted(folder.glob("*.csv")):
        table = pd.read_csv(path, dtype=str, keep_default_na=False).drop(columns=list(TIMES), errors="ignore")
        for name in ("file", "folder"):
            if name in table:
                table[name] = [Path(text).name for text in table[name]]
        found[path.name] = [",".join(row) for row in [list(table), *table.to_numpy().tolist()]]
    return found


def images(folder: Path) -> dict[str, str]:
    """Digest of the pixels of every TIFF in a folder."""
    return {path.name: digest(tifffile.imread(path).tobytes()) for path in sorted(folder.glob("*.tif"))}


def demonstration(folder: Path) -> dict[str, Any]:
    """Tables and pixels of what `napari-milcnn demo` does, in float32: what `auto` comes to is decided by a timing."""
    samples = map(str, sorted(mil.sample_folder().glob("*.ome.tif")))
    command = [
        sys.executable,
        "-m",
        "napari_milcnn",
        "classify",
        *samples,
        "--model",
        "yeast-sim",
        "--out",
        str(folder),
    ]
    command += ["--precision", "float32"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return {"tables": tables(folder), "images": images(folder)}


def training() -> tuple[dict[str, Any], mil.TrainedModel, mil.LabelTable]:
    """Weights, losses and validation of two epochs."""
    labels = mil.read_labels(mil.sample_folder() / "training" / "labels.csv")
    foreground = mil.ForegroundOptions(channel="RFP")
    model = mil.new_model(labels.classes, ["GFP", "RFP"], pixel_size=0.16, foreground=foreground, normalise="training")
    options = {"epochs": 2, "patch": 256, "seed": 0, "precision": "float32", "device": "cpu"}
    reports = list(mil.train(model, labels, **options))
    weights = {name: digest(value.numpy().tobytes()) for name, value in reports[-1].last.network.state_dict().items()}
    losses = [[repr(report.loss), repr(report.validation)] for report in reports]
    return {"weights": weights, "epochs": losses}, reports[-1].last, labels


def evaluation(model: mil.TrainedModel, labels: mil.LabelTable, folder: Path) -> dict[str, Any]:
    """Figures and tables of an evaluation; every second cell of the samples is said to be of the image's own class."""
    truth = folder / "truth"
    truth.mkdir(parents=True)
    for path in sorted((mil.sample_folder() / "training" / "truth").glob("*.tif")):
        cells = tifffile.imread(path)
        tifffile.imwrite(truth / path.name, np.where(cells > 0, 1 + cells % 2, 0).astype(np.uint8))
    report = mil.evaluate(model, labels, truth=truth, precision="float32", device="cpu")
    report.save(folder)
    return {"figures": {name: repr(value) for name, value in report.figures.items()}, "tables": tables(folder)}


def numbers() -> dict[str, Any]:
    """All that is compared."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shown = demonstration(folder / "demo")
        trained, model, labels = training()
        return {
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
            "demo": shown,
            "training": trained,
            "evaluation": evaluation(model, labels, folder / "evaluation"),
        }


def differences(before: Any, after: Any, place: str = "") -> list[str]:
    """Name every place where two nested documents differ."""
    if isinstance(before, dict) and isinstance(after, dict):
        names = [*before, *(name for name in after if name not in before)]
        return [one for name in names for one in differences(before.get(name), after.get(name), f"{place}/{name}")]
    return [] if before == after else [f"{place}: {before} -> {after}"]


def main() -> None:
    """Record the numbers of this version, or compare them with recorded ones; exit status 1 where they differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("record", "compare"))
    parser.add_argument("file", type=Path)
    arguments = parser.parse_args()
    found = json.loads(json.dumps(numbers()))
    if arguments.what == "record":
        arguments.file.write_text(json.dumps(found, indent=1))
        return
    different = differences(json.loads(arguments.file.read_text()), found)
    sys.exit("\n".join(different) if different else 0)


if __name__ == "__main__":
    main()
