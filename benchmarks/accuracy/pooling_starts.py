"""Whether it matters where learning starts.

    python -m benchmarks.accuracy.pooling_starts --data FOLDER [--work FOLDER] [--record]

The start that is measured on the images (`MilNetwork.start_at`) against fixed ones, on cluttered MNIST images (see
cluttered_mnist.py) that show the class in 5 to 20 of 100 places (sparse) and in 50 to 100 (dense). Noisy-AND with b and
every p at .1 and at .5, the last layer at 4 x identity; and Noisy-OR and ISR, which one instance decides, with every p
at .5. One seed, three epochs at a constant rate; accuracy on the selection images after each. FOLDER holds
`digits.npz`.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

import napari_milcnn as mil
from benchmarks import record
from benchmarks.accuracy.cluttered_mnist import PLANS, make_images
from benchmarks.runs import Finished, run_all

STARTS = {"measured": None, "b = p = .1": 0.1, "b = p = .5": 0.5, "p = .5": 0.5}
RUNS = [("noisy_and", "measured"), ("noisy_and", "b = p = .1"), ("noisy_and", "b = p = .5"), ("noisy_or", "measured"),
        ("noisy_or", "p = .5"), ("isr", "measured"), ("isr", "p = .5")]  # fmt: skip
SHARES = {"sparse": (5, 10, 20), "dense": (50, 75, 100)}
PLAN = replace(PLANS["small"], epochs=3, train=8, select=3, test=1)


def main() -> None:
    """Train from each start and print what was learned after each epoch."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("build/starts"), help="for images and finished runs")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--record", action="store_true", help="keep in RESULTS.md")
    args = parser.parse_args()
    for name, counts in SHARES.items():
        folder = args.work / name
        folder.mkdir(parents=True, exist_ok=True)
        make_images(args.data / "digits.npz", folder, replace(PLAN, train_counts=counts, counts=counts))
    wanted = [{"share": share, "pooling": name, "start": start} for share in SHARES for name, start in RUNS]
    rows = run_all(Finished(args.work, asdict(PLAN)), wanted, one_run, args.workers, folder=args.work)
    found = rows.set_index(["share", "pooling", "start", "epoch"])["accuracy"]
    epochs = range(1, PLAN.epochs + 1)
    lines = record.table(
        ["images", "pooling", "start", *(f"epoch {epoch}" for epoch in epochs)],
        [[run["share"], run["pooling"], run["start"], *(float(found[*run.values(), epoch]) for epoch in epochs)]
         for run in wanted],
    )  # fmt: skip
    record.report("Starts, measured and fixed", lines, keep=args.record)


def one_run(share: str, pooling: str, start: str, folder: Path) -> list[dict[str, Any]]:
    """Train from one start: a row for each epoch."""
    labels = mil.read_labels(folder / share / "labels.csv")
    model = mil.new_model(
        labels.classes, ["digits"], pooling=pooling, b=STARTS[start], normalise="training", widths=PLAN.widths
    )
    if start == "p = .5":
        torch.nn.init.zeros_(model.network.maps.bias)
    options = {"epochs": PLAN.epochs, "batch_size": PLAN.batch_size, "learning_rate": PLAN.learning_rate,
               "patch": 0, "flip_rotate": False, "schedule": "constant",
               "epoch_steps": 1, "average": 0, "balance": "none", "vary_share": 0}  # fmt: skip
    return [{"epoch": told.epoch, "accuracy": told.validation.accuracy} for told in mil.train(model, labels, **options)]


if __name__ == "__main__":
    main()
