"""Learning from few and uneven images: whether the default options depend on luck.

    python -m benchmarks.accuracy.small_tables --data FOLDER [--cases uneven two few seeds] [--work FOLDER] [--record]

FOLDER holds `compose_fields.py` and `mitocheck/`. Models learn with the default options from fields of training plates
(30-80 % of cells affected), and are scored on fields of validation plates, beside hand-made features and a random
forest that learn from the same fields. Cases:

* uneven: 20 fields of Interphase and 2 of each of the other seven classes, without validation images
* two: 17 fields of each of two classes, with the default validation share
* few: 5 fields of each of eight classes to learn from, and 7 validation images
* seeds: 5 fields of each of eight classes, without validation images, ten seeds; every seed draws fields of its own

Reported: accuracy of the model that was kept and of the last one, of the peer, and the worst over the seeds.

`--options` goes to `train`: '{"epochs": 40}' measures what another length does. Finished runs are kept in --work, and
the same call goes on from there; each run is a process of one thread.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import napari_milcnn as mil
from benchmarks.accuracy.nuclei_fields import BACKGROUND, RANGES, compose
from benchmarks.peers import forest, table_features
from benchmarks.record import report, table
from benchmarks.runs import Finished, run_all
from napari_milcnn.inference.predict import Classifier
from napari_milcnn.labels.table import LabelledImage, LabelTable
from napari_milcnn.model.trained_model import TrainedModel

CASES = ("uneven", "two", "few", "seeds")
SEEDS = {"uneven": 3, "two": 3, "few": 3, "seeds": 10}
"""Seeds of each case."""
COMPOSED = {"uneven": 20, "two": 17, "few": 6, "seeds": 5}
"""Fields a class that are composed for each case, of which some are taken."""
PAIR = ("Interphase", "Polylobed")
AFFECTED = RANGES["30-80 %"]
FEW_VALIDATION = 7


def main() -> None:
    """Compose what is missing, train what is not done, print and record."""
    args = arguments()
    finished = Finished(args.work, {"options": args.options, "per_class": args.per_class})
    held(args.data, args.work, args.per_class)
    wanted = [{"case": case, "seed": seed} for case in args.cases for seed in range(args.seeds or SEEDS[case])]
    rows = run_all(finished, wanted, one_run, args.workers, data=args.data, folder=args.work, per_class=args.per_class,
                   device=args.device, options=args.options)  # fmt: skip
    report("Small and uneven tables", lines(rows[rows["case"].isin(args.cases)]), keep=args.record)


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=CASES)
    parser.add_argument("--seeds", type=int, help="seeds of each case; by default 10 of 'seeds' and 3 of the others")
    parser.add_argument("--per-class", type=int, default=8, help="fields a class of validation plates")
    parser.add_argument("--options", type=json.loads, default={}, metavar="JSON", help="options of train")
    parser.add_argument("--work", type=Path, default=Path("build/small_tables"), help="for fields and finished runs")
    parser.add_argument("--workers", type=int, default=2, help="processes, of one thread each")
    parser.add_argument("--device", default="cpu", help="where models learn, such as cpu or cuda")
    parser.add_argument("--record", action="store_true", help="keep in RESULTS.md")
    return parser.parse_args()


def once(data: Path, out: Path, per_class: int, split: str, seed: int = 0) -> LabelTable:
    """Compose fields, once, and read their table."""
    if (out / "labels.csv").exists():
        return mil.read_labels(out / "labels.csv")
    return compose(data, out, per_class, AFFECTED, split, seed=seed)


def held(data: Path, work: Path, per_class: int) -> LabelTable:
    """Fields of validation plates, by which models are scored."""
    return once(data, work / f"held-{per_class}", per_class, "validation")


def chosen(case: str, images: tuple[LabelledImage, ...]) -> tuple[LabelledImage, ...]:
    """Choose the fields of a case, in the order of the table: all without a split, but for `few`."""
    classes = sorted({row.labels[0] for row in images})
    numbers = {name: [row for row in images if row.labels[0] == name] for name in classes}
    wanted = {"uneven": {name: 20 if name == BACKGROUND else 2 for name in classes},
              "two": dict.fromkeys(PAIR, 17)}.get(case, dict.fromkeys(classes, 5))  # fmt: skip
    rows = [replace(row, split=None) for name, count in wanted.items() for row in numbers[name][:count]]
    if case == "few":
        extra = [numbers[name][5] for name in classes[:FEW_VALIDATION]]
        rows = [replace(row, split="train") for row in rows] + [replace(row, split="validation") for row in extra]
    return tuple(rows)


def one_run(
    case: str,
    seed: int,
    data: Path,
    folder: Path,
    per_class: int,
    device: str,
    options: dict[str, Any],
) -> list[dict[str, Any]]:
    """Train a model and the peer: one row with the accuracy of the kept and the last model, and of the peer."""
    whole = once(data, folder / f"train-{case}-{seed}", COMPOSED[case], "train", seed=seed)
    images = chosen(case, whole.images)
    learned = replace(whole, images=images)
    model = mil.new_model(learned.classes, ["DNA"], seed=seed)
    validation = {} if case in ("two", "few") else {"validation": 0}
    for told in mil.train(model, learned, **validation, seed=seed, device=device, **options):
        sys.stderr.write(f"{case}, seed {seed}: epoch {told.epoch}/{told.epochs}, loss {told.loss:.3f}, "
                         f"{told.seconds:.0f} s\n")  # fmt: skip
    scored = [row for row in held(data, folder, per_class).images if row.labels[0] in learned.classes]
    truth = [row.labels[0] for row in scored]
    train_rows = [row for row in images if row.split != "validation"]
    peer = forest(table_features(replace(learned, images=tuple(train_rows))), [row.labels[0] for row in train_rows])
    right = peer.predict(table_features(replace(learned, images=tuple(scored)))) == truth
    return [{"images": len(images), "epochs": told.epoch, "kept": accuracy(told.best, scored),
             "last": accuracy(told.last, scored), "hand-made": float(np.mean(right))}]  # fmt: skip


def accuracy(model: TrainedModel, images: list[LabelledImage]) -> float:
    """Share of fields whose top class is their label."""
    classifier = Classifier(model)
    return float(np.mean([classifier.classify(row.file).top[0] in row.labels for row in images]))


def lines(rows: pd.DataFrame) -> list[str]:
    """Rows of Markdown: means over the seeds of each case, the worst seed, and the most that keeping lost."""
    body: list[list[object]] = []
    for case, own in rows.groupby("case", sort=False):
        lost = float((own["last"] - own["kept"]).max())
        means = [float(own[name].mean()) for name in ("kept", "last", "hand-made")]
        body.append([case, int(own["images"].iloc[0]), len(own), *means, float(own["kept"].min()), lost])
    return table(["case", "images", "seeds", "kept model", "last model", "hand-made features", "worst seed, kept",
                  "last less kept, at most"], body)  # fmt: skip


if __name__ == "__main__":
    main()
