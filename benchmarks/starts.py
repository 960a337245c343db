"""Does it matter where learning starts? python benchmarks/starts.py --data FOLDER [--work FOLDER] [--record].

The start that is measured on the images (`MilNetwork.start_at`) against two fixed ones, b = .1 and b = .5 with the last
layer at 4 x identity, on cluttered MNIST images (see cluttered_mnist.py) that show the class in 5 to 20 of 100 places
(sparse) and in 50 to 100 (dense). Noisy-AND, two epochs, two seeds: accuracy on the selection images after each epoch.
FOLDER holds `digits.npz`.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import record
from cluttered_mnist import PLANS, make_images
from runs import Finished, run_all

import napari_milcnn as mil

STARTS = {"measured": None, "b = .1": 0.1, "b = .5": 0.5}
SHARES = {"sparse": (5, 10, 20), "dense": (50, 75, 100)}
PLAN = replace(PLANS["small"], epochs=2, train=15, select=3, test=1)


def main() -> None:
    """Train from each start and print what was learned after each epoch."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("build/starts"), help="for images and finished runs")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--record", action="store_true", help="append to RESULTS.md")
    args = parser.parse_args()
    for name, counts in SHARES.items():
        folder = args.work / name
        folder.mkdir(parents=True, exist_ok=True)
        make_images(args.data / "digits.npz", folder, replace(PLAN, train_counts=counts, counts=counts))
    wanted = [{"share": share, "start": start, "seed": seed} for share in SHARES for start in STARTS for seed in (0, 1)]
    rows = run_all(Finished(args.work, asdict(PLAN)), wanted, one_run, args.workers, folder=args.work)
    means = rows.groupby(["share", "start", "epoch"], sort=False)["accuracy"].mean()
    lines = record.table(
        ["images", "start", *(f"accuracy after epoch {epoch}" for epoch in range(1, PLAN.epochs + 1))],
        [[share, start, *(float(means[share, start, epoch]) for epoch in range(1, PLAN.epochs + 1))]
         for share in SHARES for start in STARTS],
    )  # fmt: skip
    record.report("Starts, measured and fixed", lines, keep=args.record)


def one_run(share: str, start: str, seed: int, folder: Path) -> list[dict[str, Any]]:
    """Train from one start: a row for each epoch."""
    labels = mil.read_labels(folder / share / "labels.csv")
    model = mil.new_model(labels.classes, ["digits"], seed=seed, b=STARTS[start], widths=PLAN.widths)
    options = {"epochs": PLAN.epochs, "batch_size": PLAN.batch_size, "learning_rate": PLAN.learning_rate,
               "patch": 0, "turns": False, "schedule": "constant", "seed": seed}  # fmt: skip
    return [{"epoch": told.epoch, "accuracy": told.validation.accuracy} for told in mil.train(model, labels, **options)]


if __name__ == "__main__":
    main()
