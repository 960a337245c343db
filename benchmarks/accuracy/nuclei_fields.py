"""Nuclear phenotypes on fields composed of real nuclei from plates that the model never saw.

    python -m benchmarks.accuracy.nuclei_fields --data FOLDER [--model nuclei] [--record]
    python -m benchmarks.accuracy.nuclei_fields --data FOLDER --learn [--fields 40 20 10 5] [--record]

FOLDER holds `compose_fields.py` and `mitocheck/`. The cells are real (MitoCheck, CC BY 4.0), their arrangement is not.

Without `--learn` a model is scored; nothing is chosen here: thresholds and foreground are those of its card. Prints
accuracy for four ranges of affected cells beside the peer's (hand-made features and a random forest, `peers.py`,
trained on as many fields of the same range as the shipped model), for two of them pixel AP, cell AP, Dice and pointing
game of each kind of evidence (`napari_milcnn.evaluation.localisation`), and how much each kind changes when the last
two layers of the network are randomised: Spearman's rank correlation over the pixels where either map is above zero,
over the pixels of the cells, and over the mean in each cell.

With `--learn` models are trained anew on 40, 20, 10 and 5 fields a class of training plates (30-80 % of cells
affected), all of them on as many patches, by the options that stand below, and scored at their last epoch. Models that
are there in `--work` are not trained again. `--record` keeps the rows in RESULTS.md.
"""

from __future__ import annotations

import argparse
import copy
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import tifffile
import torch
from scipy import ndimage
from scipy.stats import spearmanr
from skimage.measure import label as components

import napari_milcnn as mil
from benchmarks import record
from benchmarks.peers import forest, table_features
from napari_milcnn.evaluation.localisation import LocalisationScores, mean_scores, score_field
from napari_milcnn.inference.devices import keep_freed_memory
from napari_milcnn.inference.predict import Classifier
from napari_milcnn.labels.table import LabelTable
from napari_milcnn.model.trained_model import TrainedModel

RANGES = {"30-80 %": (0.3, 0.8), "20-30 %": (0.2, 0.3), "10-20 %": (0.1, 0.2), "5-10 %": (0.05, 0.1)}
LOCALISED = ("30-80 %", "10-20 %")
KINDS = {"object": {}, "class_map": {}, "jacobian, guided": {"kind": "jacobian"},
         "jacobian, guided, smoothed 3 px": {"kind": "jacobian", "smooth": 3.0},
         "jacobian, plain": {"kind": "jacobian", "rule": "plain"}}  # fmt: skip
BACKGROUND = "Interphase"
PER_CLASS = (40, 20, 10, 5)
LEARNING = {"epochs": 16, "validation": 0}
"""Options of --learn for 40 fields a class; with fewer fields there are as many more epochs."""


def main() -> None:
    """Compose the fields, train or score, print and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", default="nuclei")
    parser.add_argument("--learn", action="store_true")
    parser.add_argument("--fields", type=int, nargs="+", default=PER_CLASS, help="training fields a class of --learn")
    parser.add_argument("--per-class", type=int, default=15, help="validation fields a class")
    parser.add_argument("--work", type=Path, default=Path("data/nuclei_fields"), help="models of --learn")
    parser.add_argument("--record", action="store_true")
    parser.add_argument("--accuracy", action="store_true", help="accuracy alone, without the peer and the evidence")
    parser.add_argument("--no-peer", dest="peer", action="store_false", help="leave out the peer, which takes minutes")
    parser.add_argument(
        "--card", type=Path, metavar="M.zip", help="write the accuracies on the card of this model file"
    )
    args = parser.parse_args()
    keep_freed_memory()
    with tempfile.TemporaryDirectory() as folder:
        if args.learn:
            lines = learn(args.data, Path(folder), args.work, args.per_class, args.fields)
            record.report(
                f"Nuclei fields learned from {', '.join(map(str, args.fields))} fields a class", lines, keep=args.record
            )
        else:
            model = mil.load_model(args.card or args.model)
            tables = {name: compose(args.data, Path(folder) / name[:2], args.per_class, share)
                      for name, share in RANGES.items()}  # fmt: skip
            found = (
                accuracies(model, tables) if args.accuracy or not args.peer else beside_peer(model, args.data, tables)
            )
            found += [] if args.accuracy else evidence_scores(model, tables)
            lines = [f"Model {model.card.name}, sha256 {model.digest[:12]}\n", *found]
            if args.card:
                figures = {f"accuracy, {name} of cells affected": accuracy(model, tables[name]) for name in RANGES}
                model.with_card(metrics=figures).save(args.card)
            record.report("Nuclei fields", lines, keep=args.record)


def learn(data: Path, folder: Path, work: Path, per_class: int, counts: Sequence[int]) -> list[str]:
    """Rows of Markdown: accuracy of ours and of the peer against the number of training fields a class."""
    held = compose(data, folder / "held", per_class, RANGES["30-80 %"])
    held_features, truth = table_features(held), [row.labels[0] for row in held.images]
    rows: list[list[object]] = []
    for fields in counts:
        table = compose(data, folder / f"train{fields}", fields, RANGES["30-80 %"], split="train")
        peer = forest(table_features(table), [row.labels[0] for row in table.images])
        model = trained(table, work / f"fields{fields}.zip", LEARNING["epochs"] * PER_CLASS[0] // fields)
        rows.append([fields, accuracy(model, held), float(np.mean(peer.predict(held_features) == truth))])
        sys.stderr.write(f"{rows[-1]}\n")
    return record.table(["fields a class", "ours", "hand-made features"], rows)


def trained(table: LabelTable, path: Path, epochs: int) -> TrainedModel:
    """Train a model to its last epoch, or load it where it is there."""
    if path.exists():
        return mil.load_model(path)
    table = replace(table, images=tuple(replace(row, split=None) for row in table.images))
    model = mil.new_model(table.classes, ["DNA"])
    options = {**LEARNING, "epochs": epochs}
    for report in mil.train(model, table, checkpoint=path.with_suffix(".checkpoint"), resume=True, **options):
        sys.stderr.write(f"{path.stem} epoch {report.epoch}/{epochs} loss {report.loss:.3f} {report.seconds:.0f} s\n")
        model = report.last
    model.save(path)
    return model


def accuracies(model: TrainedModel, tables: dict[str, LabelTable]) -> list[str]:
    """Rows of Markdown: accuracy for each range."""
    rows: list[list[object]] = [[name, len(table.images), accuracy(model, table)] for name, table in tables.items()]
    return record.table(["cells affected", "fields", "accuracy"], rows)


def beside_peer(model: TrainedModel, data: Path, tables: dict[str, LabelTable]) -> list[str]:
    """Rows of Markdown: accuracy for each range beside the peer's."""
    with tempfile.TemporaryDirectory() as folder:
        mixed = compose(data, Path(folder) / "peer", 140, (0.05, 0.8), split="train")
        features = table_features(mixed)
    peer = forest(features, [row.labels[0] for row in mixed.images])
    rows: list[list[object]] = []
    for name, table in tables.items():
        right = peer.predict(table_features(table)) == [row.labels[0] for row in table.images]
        rows.append([name, len(table.images), accuracy(model, table), float(np.mean(right))])
    return record.table(["cells affected", "fields", "accuracy", "hand-made features"], rows)


def evidence_scores(model: TrainedModel, tables: dict[str, LabelTable]) -> list[str]:
    """Rows of Markdown: scores of the evidence, and of the randomised network."""
    lines: list[str] = []
    for name in LOCALISED:
        lines += ["", *report(model, name, tables[name])]
    return [*lines, "", *sanity(model, tables["10-20 %"])]


def compose(
    data: Path, out: Path, per_class: int, fraction: tuple[float, float], split: str = "validation",
    cells: Path | None = None, seed: int = 0,
) -> LabelTable:  # fmt: skip
    """Compose fields and read their table; `cells` is a folder of other cells than those of the data."""
    subprocess.run(
        [sys.executable, str(data / "compose_fields.py"), str(cells or data / "mitocheck"), str(out), "--split", split,
         "--per-class", str(per_class), "--fraction", *map(str, fraction), "--seed", str(seed)],
        check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    if split == "select":  # plates held back in training the shipped model, which a table of labels calls validation
        pd.read_csv(out / "labels.csv").assign(split="validation").to_csv(out / "labels.csv", index=False)
    return mil.read_labels(out / "labels.csv")


def report(model: TrainedModel, name: str, table: LabelTable) -> list[str]:
    """Rows of Markdown for one range of affected cells."""
    rows: list[list[object]] = []
    for label, options in KINDS.items():
        found = localised(model, table, **{"kind": label, **options})
        rows.append([label, found.pixel_ap, found.cell_ap, found.dice, found.best_dice, found.pointing])
    return [f"**{name} of cells affected**; single cells, given their outlines: accuracy "
            f"{cell_accuracy(model, table):.3f}\n",
            *record.table(["evidence", "pixel AP", "cell AP", "Dice", "best Dice", "pointing"], rows)]  # fmt: skip


def accuracy(model: TrainedModel, table: LabelTable) -> float:
    """Share of fields whose top class is their label."""
    classifier = Classifier(model)
    return float(np.mean([classifier.classify(row.file).top[0] in row.labels for row in table.images]))


def localised(
    model: TrainedModel, table: LabelTable, kind: str, smooth: float = 0.0, **options: str
) -> LocalisationScores:
    """Scores of one kind of evidence, averaged over the fields that show anything but the background class."""
    scores = []
    for row in table.images:
        if row.labels != (BACKGROUND,):
            truth = tifffile.imread(row.file.parent.parent / "truth" / row.file.name)
            found = mil.evidence(model, row.file, list(row.labels), kind=kind, **options)
            mask = mil.segment(found, smooth=smooth, present=0.0).labels[0] > 0
            scores.append(score_field(ndimage.gaussian_filter(found.maps[0, 0], smooth), mask, truth))
    return mean_scores(scores)


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
    rows: list[list[object]] = []
    for label, options in KINDS.items():
        if "smooth" not in options:
            found = [correlations(model, other, row, **{"kind": label, **options}) for row in fields]
            rows.append([label, *(float(value) for value in np.nanmean(found, 0))])
    header = ["evidence", "pixels above zero", "pixels of cells", "cells"]
    return ["Last two layers randomised: rank correlation with the trained model's evidence, mean over "
            f"{len(fields)} fields\n", *record.table(header, rows)]  # fmt: skip


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
