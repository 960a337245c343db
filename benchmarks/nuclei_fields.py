"""The shipped nuclei model on fields composed of real nuclei from plates that it never saw.

    python benchmarks/nuclei_fields.py --data FOLDER [--model nuclei] [--record]

FOLDER holds `compose_fields.py` and `mitocheck/`. The cells are real (MitoCheck, CC BY 4.0), their arrangement is not.
Nothing is chosen here: thresholds and foreground are those of the model's card. Prints accuracy and, for each kind of
evidence, pixel AP, cell AP and Dice (see localisation.py), and how much each kind changes when the last two layers of
the network are randomised: Spearman's rank correlation over the pixels where either map is above zero, over the pixels
of the cells, and over the mean in each cell. `--record` appends the rows to RESULTS.md.
"""

from __future__ import annotations

import argparse
import copy
import platform
import subprocess
import sys
import tempfile
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import tifffile
import torch
from localisation import accuracy, score_kind
from scipy import ndimage
from scipy.stats import spearmanr
from skimage.measure import label as components

import napari_milcnn as mil
from napari_milcnn.core.classify import Classifier
from napari_milcnn.core.dataset import LabelTable
from napari_milcnn.core.model import TrainedModel

RANGES = {"30-80 % of cells": (0.3, 0.8), "10-20 % of cells": (0.1, 0.2)}
KINDS = {"object": {}, "class_map": {}, "jacobian, guided": {"kind": "jacobian"},
         "jacobian, guided, smoothed 3 px": {"kind": "jacobian", "smooth": 3.0},
         "jacobian, plain": {"kind": "jacobian", "rule": "plain"}}  # fmt: skip
BACKGROUND = "Interphase"


def main() -> None:
    """Compose the fields, score the model, print and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", default="nuclei")
    parser.add_argument("--per-class", type=int, default=15)
    parser.add_argument("--record", action="store_true")
    args = parser.parse_args()
    model = mil.load_model(args.model)
    lines = [f"\n## Nuclei fields, {date.today()}\n", f"`python {' '.join(sys.argv)}` on {platform.machine()}, CPU, "
             f"torch {torch.__version__}; model {model.card.name}, sha256 {model.digest[:12]}\n"]  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        for name, fraction in RANGES.items():
            table = compose(args.data, Path(folder) / name[:2], args.per_class, fraction)
            lines += report(model, name, table)
        lines += sanity(model, table)
    sys.stdout.write("\n".join(lines) + "\n")
    if args.record:
        with (Path(__file__).parent / "RESULTS.md").open("a", encoding="utf-8") as file:
            file.write("\n".join(lines) + "\n")


def compose(data: Path, out: Path, per_class: int, fraction: tuple[float, float]) -> LabelTable:
    """Compose validation fields and read their table."""
    subprocess.run(
        [sys.executable, str(data / "compose_fields.py"), str(data / "mitocheck"), str(out), "--split", "validation",
         "--per-class", str(per_class), "--fraction", *map(str, fraction)],
        check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    return mil.read_labels(out / "labels.csv")


def report(model: TrainedModel, name: str, table: LabelTable) -> list[str]:
    """Rows of Markdown for one range of affected cells."""
    lines = [f"**{name}**, {len(table.images)} fields: accuracy {accuracy(model, table):.3f}; "
             f"single cells, given their outlines: accuracy {cell_accuracy(model, table):.3f}\n",
             "| evidence | pixel AP | cell AP | Dice | Dice at best threshold |", "|---|---|---|---|---|"]  # fmt: skip
    for label, options in KINDS.items():
        scores = score_kind(model, table, BACKGROUND, **{"kind": label, **options})
        lines.append(f"| {label} | {scores.pixel_ap:.3f} | {scores.cell_ap:.3f} | {scores.dice:.3f} | "
                     f"{scores.best_dice:.3f} |")  # fmt: skip
    return [*lines, ""]


def cell_accuracy(model: TrainedModel, table: LabelTable, fields: int = 3) -> float:
    """Share of cells that `classify_cells` gets right on true outlines, balanced over target and background cells."""
    right: dict[bool, list[bool]] = {True: [], False: []}
    for row in table.images[:: max(1, len(table.images) // (8 * fields))]:
        truth = tifffile.imread(row.file.parent.parent / "truth" / row.file.name)
        cells = components(truth > 0)
        found = mil.classify_cells(model, row.file, cells)
        shows = ndimage.maximum(truth, cells, found["label"].to_numpy(int)) == 2
        for top, target in zip(found["top"], shows, strict=True):
            right[bool(target)].append(top == (row.labels[0] if target else BACKGROUND))
    return float(np.mean([np.mean(values) for values in right.values()]))


def sanity(model: TrainedModel, table: LabelTable) -> list[str]:
    """Rows of Markdown: rank correlation of each kind of evidence with that of a network of random last layers."""
    other = replace(model, network=randomised(model))
    fields = [row for row in table.images if row.labels != (BACKGROUND,)][::5]
    lines = ["Last two layers randomised: rank correlation with the trained model's evidence, mean over "
             f"{len(fields)} fields\n", "| evidence | pixels above zero | pixels of cells | cells |",
             "|---|---|---|---|"]  # fmt: skip
    for label, options in KINDS.items():
        if "smooth" in options:
            continue
        rows = [correlations(model, other, row, **{"kind": label, **options}) for row in fields]
        lines.append(f"| {label} | " + " | ".join(f"{value:.2f}" for value in np.nanmean(rows, 0)) + " |")
    return [*lines, ""]


def randomised(model: TrainedModel) -> torch.nn.Module:
    """Copy the network with the last convolution of the encoder and the map layer drawn anew."""
    network = copy.deepcopy(model.network)
    last = [layer for layer in network.encoder if isinstance(layer, torch.nn.Conv2d)][-1]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        last.reset_parameters()
        network.maps.reset_parameters()
    return network


def correlations(model: TrainedModel, other: TrainedModel, row, **options) -> tuple[float, float, float]:
    """Spearman correlation of two models' evidence for the field's own class."""
    first, second = (
        mil.evidence(one, row.file, list(row.labels), prediction=Classifier(one).classify(row.file), **options).maps[
            0, 0
        ]
        for one in (model, other)
    )
    truth = tifffile.imread(row.file.parent.parent / "truth" / row.file.name)
    cells = components(truth > 0)
    above = (
        (first > 0) | (second > 0) if options["kind"] != "jacobian" or options.get("rule") != "plain" else truth >= 0
    )
    means = [ndimage.mean(one, cells, np.arange(1, cells.max() + 1)) for one in (first, second)]
    pairs = ((first[above], second[above]), (first[truth > 0], second[truth > 0]), means)
    return tuple(float(spearmanr(*pair).statistic) for pair in pairs)


if __name__ == "__main__":
    main()
