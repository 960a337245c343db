"""Cluttered MNIST: error of each pooling function against how much of an image shows its class.

    python -m benchmarks.accuracy.cluttered_mnist --data FOLDER [--work FOLDER] [--record]

Protocol (Kraus, Ba & Frey 2016, section 4.1; sizes are not stated there and are ours). An image is 100 digits on a
jittered 10 x 10 grid, 280 px a side: zeros, and among them in k of the 100 places digits of one class, 1 to 9, which is
the image's label. k is varied within the training set over 1, 2, 3, 5, 10, 20, 30, 50, 75 and 100, or held at one value
with `--fixed-k`. All seven poolings, three seeds each; the error is measured for each k on images of digits that no
training image holds. FOLDER holds `digits.npz` with x_train, y_train, x_validation and y_validation; the last quarter
of x_train makes the images that choose the checkpoint, x_validation those that are reported.

Departures: digits have a top and a bottom, so images are not rotated or reflected in training. A seed draws the
network's start and the order of the images; the images are the same. The receptive field is 67 px, so an instance sees
a few digits. One set of options for all poolings, chosen on the selection images alone.

Budget: 21 runs take about a quarter of an hour on two cores (`--workers 2`, one thread each). What is finished is kept
in --work, and the same call goes on from there. `--quick` shows in under a minute that everything runs. `--large` is
the same with ten times the images, the preset's own widths and more epochs, for a GPU.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
import tifffile
from matplotlib.figure import Figure

import napari_milcnn as mil
from benchmarks.record import report, table
from benchmarks.runs import Finished, run_all
from napari_milcnn.inference.predict import Classifier
from napari_milcnn.network.pooling import PoolingName

FIGURE = Path(__file__).parents[2] / "docs" / "images" / "cluttered_mnist.png"
COUNTS = (1, 2, 3, 5, 10, 20, 30, 50, 75, 100)
GRID, DIGIT, JITTER = 10, 28, 3
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#000000", "#56b4e9")
"""Of Okabe & Ito, told apart by the colour-blind, on white."""
KEPT = 4
"""One in so many digits of x_train is kept for choosing the checkpoint."""


@dataclass(frozen=True)
class Plan:
    """Sizes of a run.

    Attributes
    ----------
    train, select, test : int
        Images for each class and k.
    seeds, epochs, batch_size : int
        Of each pooling.
    learning_rate : float
        Of the training.
    widths : tuple of int or None
        Of the network; None for the preset's own.
    poolings : tuple of str
        Which are compared.
    counts : tuple of int
        Values of k in the test images.
    train_counts : tuple of int
        Values of k in the training and the selection images.
    """

    train: int = 5
    select: int = 1
    test: int = 3
    seeds: int = 3
    epochs: int = 4
    batch_size: int = 8
    learning_rate: float = 5e-3
    widths: tuple[int, ...] | None = (8, 8, 16, 32, 32, 64)
    poolings: tuple[str, ...] = get_args(PoolingName)
    counts: tuple[int, ...] = COUNTS
    train_counts: tuple[int, ...] = COUNTS


PLANS = {
    "small": Plan(),
    "quick": Plan(train=1, test=1, seeds=1, epochs=1, poolings=("noisy_and", "max"), counts=(10, 100),
                  train_counts=(10, 100)),
    "large": Plan(train=50, select=5, test=20, seeds=5, epochs=40, batch_size=16, learning_rate=2e-3, widths=None),
}  # fmt: skip


def main() -> None:
    """Make the images, do the runs that are not done, print, draw and record."""
    args = arguments()
    plan = planned(args)
    work = args.work / ("quick" if args.quick else "large" if args.large else "small") / f"k-{args.fixed_k or 'varied'}"
    finished = Finished(work, asdict(plan))
    make_images(args.data / "digits.npz", work, plan)
    poolings = [args.pooling] if args.pooling else plan.poolings
    wanted = [{"pooling": name, "seed": seed} for seed in range(args.seeds or plan.seeds) for name in poolings]
    rows = run_all(finished, wanted, one_run, args.workers, folder=work, plan=plan, device=args.device)
    if args.record and not (args.quick or args.fixed_k or args.pooling):
        draw(rows, plan, FIGURE)
    report(title(args), lines(rows, plan), keep=args.record)


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with digits.npz")
    parser.add_argument("--work", type=Path, default=Path("build/cluttered_mnist"), help="for images and finished runs")
    parser.add_argument("--fixed-k", type=int, choices=range(1, 101), metavar="K", help="train at one k, 1 to 100")
    parser.add_argument("--pooling", choices=get_args(PoolingName), help="this one only")
    parser.add_argument("--seeds", type=int, help="how many, instead of the plan's")
    parser.add_argument("--workers", type=int, default=2, help="processes, of one thread each")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--quick", action="store_true", help="under a minute, to see that it runs")
    parser.add_argument("--large", action="store_true", help="ten times the images, for a GPU")
    parser.add_argument("--record", action="store_true", help="keep in RESULTS.md")
    return parser.parse_args()


def planned(args: argparse.Namespace) -> Plan:
    """Sizes that the command line asks for."""
    plan = PLANS["quick" if args.quick else "large" if args.large else "small"]
    changes: dict[str, Any] = {}
    if args.fixed_k:
        changes = {"train_counts": (args.fixed_k,), "train": plan.train * len(plan.train_counts),
                   "select": plan.select * len(plan.train_counts)}  # fmt: skip
    return replace(plan, **changes)


def title(args: argparse.Namespace) -> str:
    """Heading of the block in RESULTS.md."""
    return f"Cluttered MNIST, trained at k = {args.fixed_k}" if args.fixed_k else "Cluttered MNIST, k varied"


def make_images(digits: Path, work: Path, plan: Plan) -> None:
    """Write images and tables of all three parts, once: labels.csv (training and selection) and test.csv."""
    if (work / "test.csv").exists():
        return
    with np.load(digits) as data:
        images, numbers = data["x_train"], data["y_train"]
        tested = data["x_validation"], data["y_validation"]
    cut = len(images) - len(images) // KEPT
    parts = {
        "train": (images[:cut], numbers[:cut], plan.train, plan.train_counts),
        "validation": (images[cut:], numbers[cut:], plan.select, plan.train_counts),
        "test": (*tested, plan.test, plan.counts),
    }
    rows = {name: list(part_images(work, name, *part)) for name, part in parts.items()}
    pd.DataFrame(rows["train"] + rows["validation"]).to_csv(work / "labels.csv", index=False)
    pd.DataFrame(rows["test"]).to_csv(work / "test.csv", index=False)


def part_images(work: Path, part: str, digits: np.ndarray, numbers: np.ndarray, each: int, counts: tuple[int, ...]):
    """Write the images of one part, `each` for every class and k, and yield their rows."""
    rng = np.random.default_rng(("train", "validation", "test").index(part))
    (work / part).mkdir(exist_ok=True)
    by_class = [digits[numbers == number] for number in range(10)]
    for number in range(1, 10):
        for k in counts:
            for i in range(each):
                file = f"{part}/{number}_{k:03d}_{i:02d}.tif"
                tifffile.imwrite(work / file, cluttered(by_class[0], by_class[number], k, rng))
                yield {"file": file, "label": str(number), "split": part, "k": k}


def cluttered(zeros: np.ndarray, others: np.ndarray, k: int, rng: np.random.Generator) -> np.ndarray:
    """Lay 100 digits (28, 28) on a jittered grid, k of them drawn from `others`: uint8 (280, 280)."""
    places = GRID * GRID
    drawn = zeros[rng.choice(len(zeros), places, replace=len(zeros) < places)]
    shown = rng.permutation(places)[:k]
    drawn[shown] = others[rng.choice(len(others), k, replace=len(others) < k)]
    canvas = np.zeros((GRID * DIGIT + 2 * JITTER,) * 2, drawn.dtype)
    for place, digit in enumerate(drawn):
        y, x = (DIGIT * at + int(shift) for at, shift in zip(divmod(place, GRID), rng.integers(0, 2 * JITTER + 1, 2),
                                                             strict=True))  # fmt: skip
        window = canvas[y : y + DIGIT, x : x + DIGIT]
        np.maximum(window, digit, out=window)
    return canvas[JITTER:-JITTER, JITTER:-JITTER]


def one_run(pooling: str, seed: int, folder: Path, plan: Plan, device: str) -> list[dict[str, Any]]:
    """Train one network and count its errors on the test images: one row for each k."""
    began = time.perf_counter()
    labels = mil.read_labels(folder / "labels.csv")
    network = {} if plan.widths is None else {"widths": plan.widths}
    model = mil.new_model(labels.classes, ["digits"], pooling=pooling, seed=seed, normalise="training", **network)
    options = {"epochs": plan.epochs, "batch_size": plan.batch_size, "learning_rate": plan.learning_rate, "patch": 0,
               "flip_rotate": False, "epoch_steps": 1, "average": 0, "balance": "none", "vary_share": 0}  # fmt: skip
    reports = list(mil.train(model, labels, **options, device=device, seed=seed))
    chosen = [one for one in reports if one.is_best][-1]
    for one in reports:
        sys.stderr.write(f"{pooling} {seed}: epoch {one.epoch}, loss {one.loss:.3f}, "
                         f"selection accuracy {one.validation.accuracy:.3f}, {one.seconds:.0f} s\n")  # fmt: skip
    facts = {"epoch": chosen.epoch, "selection": chosen.validation.accuracy, "device": chosen.device}
    rows = errors(chosen.best, folder / "test.csv", device)
    seconds = round(time.perf_counter() - began, 1)
    return [{"k": k, "images": images, "errors": wrong, "seconds": seconds, **facts} for k, images, wrong in rows]


def errors(model: mil.TrainedModel, test: Path, device: str) -> list[tuple[int, int, int]]:
    """Count test images and wrong ones: (k, images, errors) for each k."""
    classifier = Classifier(model, device=device)
    tested = pd.read_csv(test, dtype={"label": str})
    tops = [classifier.classify(test.parent / file).top[0] for file in tested["file"]]
    tested["wrong"] = tested["label"] != tops
    found = tested.groupby("k")["wrong"].agg(["size", "sum"])
    return [(int(k), int(images), int(wrong)) for k, images, wrong in found.itertuples()]


def spread(rows: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """Mean, least and greatest over the seeds of the share of wrong images, for each pooling and what else is named."""
    counted = rows.groupby([*by, "seed"])[["errors", "images"]].sum()
    return (counted["errors"] / counted["images"]).groupby(by).agg(["mean", "min", "max"])


def lines(rows: pd.DataFrame, plan: Plan) -> list[str]:
    """Rows of Markdown: the error of each pooling at each k, and over all."""
    over_all, at_k = spread(rows, ["pooling"]), spread(rows, ["pooling", "k"])["mean"]
    order = over_all["mean"].sort_values().index
    head = (
        f"Share of wrong test images, mean over seeds ({rows['seed'].nunique()}); for each class "
        f"{plan.train * len(plan.train_counts)} training images, and {plan.test} test images for each k; "
        f"{plan.epochs} epochs\n"
    )
    body = [
        [name, *(f"{at_k[name, k]:.2f}" for k in plan.counts), over_all["mean"][name],
         f"{over_all['min'][name]:.3f} to {over_all['max'][name]:.3f}"]
        for name in order
    ]  # fmt: skip
    return [head, *table(["pooling", *(f"k {k}" for k in plan.counts), "all", "seeds"], body)]


def draw(rows: pd.DataFrame, plan: Plan, file: Path) -> None:
    """Draw the error against k: a line for each pooling, a band from the best to the worst seed."""
    at_k, names = spread(rows, ["pooling", "k"]), sorted(rows["pooling"].unique())
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.subplots()
    for name, marker, colour in zip(names, "osD^vPX", COLOURS, strict=False):
        one = at_k.loc[name]
        axes.plot(one.index, one["mean"], marker=marker, markersize=4, color=colour,
                  label=name.replace("_", " "))  # fmt: skip
        axes.fill_between(one.index, one["min"], one["max"], color=colour, alpha=0.15, linewidth=0)
    axes.axhline(8 / 9, color="0.6", linewidth=0.8, linestyle=":")
    axes.set(xscale="log", xlabel="digits of the class, of 100", ylabel="error on test images", ylim=(0, 1),
             xticks=plan.counts, xticklabels=plan.counts)  # fmt: skip
    axes.minorticks_off()
    axes.legend(frameon=False, fontsize="small")
    figure.savefig(file, dpi=150)


if __name__ == "__main__":
    main()
