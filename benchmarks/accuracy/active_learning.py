"""Does "what next" save labels? python -m benchmarks.accuracy.active_learning yeast|nuclei [--data FOLDER] [--record].

Both arms start from the same two labelled images of each class and are given labels by rounds, from `rank_images` or in
random order. After each round a model learns from all labels so far, always anew, from the same start and over as many
images; its accuracy on the test images, as many of each class, decides nothing. The start is a model of other classes
from the same microscope: its encoder is kept, its head is new. Three seeds, each with a pool of its own.

The pools are as a screen is: half of the images show one class, few show the rarest, and many images are alike. `yeast`
is simulated: bright strains of five localisations, five fields of few cells each, which share protein and expression.
`nuclei` is composed of real nuclei (MitoCheck, CC BY 4.0; FOLDER holds `compose_fields.py` and `mitocheck/`): of each
field three windows that overlap, as frames of a film or neighbouring positions do; test fields are of other plates.

Prints the labels at which each arm first reaches .9, the accuracy after each round, and the paired difference of the
mean over the rounds; a curve is put beside the finished runs, with --record into docs/images. A run that is there in
`--work` is not done again.
"""

from __future__ import annotations

import argparse
import math
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from runpy import run_path
from typing import Any

import numpy as np
import pandas as pd
import tifffile
from matplotlib.figure import Figure
from scipy import stats

import napari_milcnn as mil
from benchmarks.record import report, table
from benchmarks.runs import Finished, run_all, scores
from napari_milcnn.labels.ranking import rank_images
from napari_milcnn.labels.table import LabelTable
from napari_milcnn.model.trained_model import TrainedModel
from napari_milcnn.simulation.options import PLATES_ALIKE, SimulationOptions
from napari_milcnn.simulation.screen import simulate_screen

FIGURES = Path(__file__).parents[2] / "docs" / "images"
ARMS = ("what next", "random")
GOAL = 0.9
ALIKE = {"yeast": 5, "nuclei": 3}
"""Images of one strain, or windows of one field."""
SHIFT = 32
WINDOWS = ((0, 0), (0, SHIFT), (SHIFT, SHIFT // 2))
"""Corners (y, x), px, of the windows of a field of nuclei."""
SHOWN = (0.03, 0.06)
"""Of the 55 to 84 cells to be placed until the field is full, those of the phenotype first: 3 to 5 of them."""
TEST_SEED, START_SEED = 1000, 2000


@dataclass(frozen=True)
class Plan:
    """What all runs share. `pool` is class -> strains or fields, `others` those of the start, `test` images a class."""

    pool: dict[str, int]
    others: dict[str, int]
    side: int
    test: int = 40
    start: int = 2
    labels: int = 15
    rounds: int = 6
    visits: int = 960
    start_visits: int = 4800
    widths: tuple[int, ...] = (8, 16, 24, 48, 64, 128)


PLANS = {
    "yeast": Plan(
        pool={"cytoplasm": 24, "nucleus": 12, "mitochondria": 6, "cell periphery": 3, "vacuole": 3},
        others=dict.fromkeys(("ER", "nucleolus", "punctate"), 12),
        side=112,
    ),
    "nuclei": Plan(
        pool={"Interphase": 40, "Metaphase": 20, "Apoptosis": 10, "Polylobed": 5},
        others=dict.fromkeys(("Binuclear", "Elongated", "Hole", "Prometaphase"), 16),
        side=144,
    ),
}


def main() -> None:
    """Make the pools, run both arms, print, draw and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pool", choices=PLANS)
    parser.add_argument("--data", type=Path, help="for nuclei")
    parser.add_argument(
        "--work", type=Path, default=Path("data/active"), help="for images, finished runs and the curve"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=(0, 1, 2))
    parser.add_argument("--workers", type=int, default=1, help="processes, of one thread each")
    parser.add_argument("--record", action="store_true", help="keep in RESULTS.md")
    args = parser.parse_args()
    plan, work = PLANS[args.pool], args.work / args.pool
    make = partial(MAKERS[args.pool], plan, args.data)
    finished = Finished(work, asdict(plan))
    for seed in (*args.seeds, TEST_SEED):
        once(make, work / f"images{seed}", seed)
    once(partial(MAKERS[args.pool], replace(plan, pool=plan.others), args.data), work / "others", START_SEED)
    begin(work, plan)
    wanted = [{"seed": seed, "arm": arm} for seed in args.seeds for arm in ARMS]
    rows = run_all(finished, wanted, one_run, args.workers, folder=work, plan=plan)
    rows = rows[rows["seed"].isin(args.seeds)]
    draw(rows, FIGURES / f"active_learning_{args.pool}.png" if args.record else work / "curve.png")
    report(f"Active learning: {args.pool}", [*described(args.pool, plan), "", *lines(rows)], keep=args.record)


def once(make: Callable[[Path, int], pd.DataFrame], folder: Path, seed: int) -> None:
    """Make the images of a seed and their labels.csv, unless they are there."""
    if not folder.exists():
        draft = folder.with_suffix(".part")
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        rows = make(draft, seed)
        rows[["file", "label", "group"]].to_csv(draft / "labels.csv", index=False)
        draft.rename(folder)


def yeast(plan: Plan, _data: Path | None, folder: Path, seed: int) -> pd.DataFrame:
    """Simulate the strains of each class; of the test seed as many of each, one field a strain."""
    options = SimulationOptions(size=(plan.side, plan.side), cells=(3, 5), penetrance=(0.7, 1.0), brightness=200,
                                strain_spread=0.25, multi_label=0).model_copy(update=PLATES_ALIKE)  # fmt: skip
    alike = 1 if seed == TEST_SEED else ALIKE["yeast"]
    tables = []
    for name, strains in plan.pool.items():
        count = plan.test if seed == TEST_SEED else strains * alike
        for _ in simulate_screen(folder / name, localisations=(name,), fields_per_class=count, fields_per_strain=alike,
                                 validation=0, seed=seed, options=options):  # fmt: skip
            pass
        rows = pd.read_csv(folder / name / "labels.csv")
        tables.append(rows.assign(file=f"{name}/" + rows["file"]))
    return pd.concat(tables)


def nuclei(plan: Plan, data: Path | None, folder: Path, seed: int) -> pd.DataFrame:
    """Compose fields of training plates and cut each into windows; of the test seed, one window of other plates."""
    if data is None:
        sys.exit("nuclei needs the folder of compose_fields.py and mitocheck: name it with --data")
    test = seed == TEST_SEED
    composer = run_path(str(data / "compose_fields.py"))
    cells = np.load(data / "mitocheck" / "cells.npz")["images"]
    known = pd.read_csv(data / "mitocheck" / "labels.csv").replace({"label": composer["MERGE"]})
    known = known[known["suggested_split"] == ("validation" if test else "train")]
    pools = {name: known.index[known["label"] == name].to_numpy() for name in composer["CLASSES"]}
    rng, rows = np.random.default_rng(seed), []
    for name, fields in plan.pool.items():
        for number in range(plan.test if test else fields):
            image, *_ = composer["compose"](cells, pools, name, plan.side + SHIFT, SHOWN, rng)
            group = f"{name}_{number:03d}"
            for i, (y, x) in enumerate(WINDOWS[: 1 if test else ALIKE["nuclei"]]):
                tifffile.imwrite(folder / f"{group}_{i}.tif", image[y : y + plan.side, x : x + plan.side])
                rows.append({"file": f"{group}_{i}.tif", "label": name, "group": group})
    return pd.DataFrame(rows)


MAKERS = {"yeast": yeast, "nuclei": nuclei}


def begin(work: Path, plan: Plan) -> None:
    """Train the model that every round starts from, unless it is there."""
    path = work / "start.zip"
    if not path.exists():
        others = mil.read_labels(work / "others" / "labels.csv")
        with mil.open_image(others.images[0].file) as first:
            model = mil.new_model(others.classes, first.channels, pixel_size=first.pixel_size, widths=plan.widths)
        learned(model, others, plan.start_visits, 0).save(path)


def one_run(seed: int, arm: str, folder: Path, plan: Plan) -> list[dict[str, Any]]:
    """Label round by round: a row for each, with the accuracy on the test images."""
    pool, test = (mil.read_labels(folder / f"images{one}" / "labels.csv") for one in (seed, TEST_SEED))
    rng = np.random.default_rng([seed, 1])
    known = started(pool, plan.start, rng)
    start = mil.load_model(folder / "start.zip").with_classes(pool.classes, seed=seed)
    shuffled = rng.permutation(len(pool.images)).tolist()
    rows = []
    for _ in range(plan.rounds + 1):
        part = replace(pool, images=tuple(pool.images[row] for row in known))
        model = learned(start, part, plan.visits, seed)
        labels = [pool.images[row].labels[0] for row in known]
        found = scores(model, [image.file for image in test.images], "cpu")
        right = found.idxmax(axis=1) == [image.labels[0] for image in test.images]
        rows.append({"labels": len(known), "accuracy": float(right.mean()),
                     "fewest": min(map(labels.count, pool.classes))})  # fmt: skip
        sys.stderr.write(f"seed {seed}, {arm}: {rows[-1]}\n")
        left = [row for row in shuffled if row not in set(known)]
        if rows[-1]["labels"] < plan.start * len(plan.pool) + plan.labels * plan.rounds:
            known += (left if arm == "random" else ranked(model, pool, left, known))[: plan.labels]
    return rows


def started(pool: LabelTable, count: int, rng: np.random.Generator) -> list[int]:
    """Choose some images of each class, each of a group of its own."""
    groups = {name: sorted({image.group for image in pool.images if name in image.labels}) for name in pool.classes}
    chosen = {group for names in groups.values() for group in rng.choice(names, count, replace=False)}
    first = {image.group: row for row, image in reversed(list(enumerate(pool.images)))}
    return sorted(first[group] for group in chosen)


def learned(model: TrainedModel, table: LabelTable, visits: int, seed: int) -> TrainedModel:
    """Train to the last epoch, on so many images."""
    options = {"patch": 0, "validation": 0, "balance": "sampling", "device": "cpu",
               "epoch_steps": 1, "average": 0, "vary_share": 0}  # fmt: skip
    *_, last = mil.train(model, table, epochs=math.ceil(visits / len(table.images)), seed=seed, **options)
    return last.last


def ranked(model: TrainedModel, pool: LabelTable, left: Sequence[int], known: Sequence[int]) -> list[int]:
    """Rows in the order of "what next", which is shown no label."""
    unlabelled = replace(pool, images=tuple(replace(image, labels=()) for image in pool.images))
    *_, last = rank_images(model, unlabelled, left, known=known, device="cpu")
    return list(last.result.order)


def described(name: str, plan: Plan) -> list[str]:
    """Say in words what the pool is."""
    images = {label: count * ALIKE[name] for label, count in plan.pool.items()}
    shown = ", ".join(f"{label} {count}" for label, count in images.items())
    alike = f"{ALIKE[name]} {'fields of each strain' if name == 'yeast' else 'overlapping windows of each field'}"
    return [f"Pool of {sum(images.values())} images of {plan.side} px ({shown}; {alike}), test {plan.test} of each "
            f"class. Two labelled images of each class, {plan.labels} more a round; each round trains over "
            f"{plan.visits} images, from the encoder of a model of {', '.join(plan.others)}."]  # fmt: skip


def reached(rows: pd.DataFrame) -> int | None:
    """Fewest labels at which the accuracy reached the goal; None where it never did."""
    good = rows[rows["accuracy"] >= GOAL]
    return int(good["labels"].min()) if len(good) else None


def lines(rows: pd.DataFrame) -> list[str]:
    """Rows of Markdown: labels to the goal, then accuracy after each round, then the paired difference."""
    seeds = sorted(rows["seed"].unique())
    most = rows["labels"].max()
    goal = []
    for arm in ARMS:
        each = [reached(rows[(rows["arm"] == arm) & (rows["seed"] == seed)]) for seed in seeds]
        goal.append([f"{arm}, labels to {GOAL}", *(f"> {most}" if n is None else n for n in each)])
    means = rows.pivot_table(index="arm", columns="seed", values="accuracy")
    goal += [[f"{arm}, mean accuracy over the rounds", *map(float, means.loc[arm])] for arm in ARMS]
    curve = rows.pivot_table(index="labels", columns="arm", values=["accuracy", "fewest"])
    header = ["labels", *(f"accuracy, {arm}" for arm in ARMS), *(f"labels of the rarest class, {arm}" for arm in ARMS)]
    body = [[int(n), *(float(row["accuracy", arm]) for arm in ARMS), *(f"{row['fewest', arm]:.1f}" for arm in ARMS)]
            for n, row in curve.iterrows()]  # fmt: skip
    return [*table(["", *(f"seed {seed}" for seed in seeds)], goal), "", compared(means), "", *table(header, body)]


def compared(means: pd.DataFrame) -> str:
    """Paired difference over the seeds with its 95 % interval by Student's t; `means` is (arm, seed)."""
    gain = (means.loc["what next"] - means.loc["random"]).to_numpy()
    half = stats.t.ppf(0.975, len(gain) - 1) * stats.sem(gain) if len(gain) > 1 else math.nan
    return (f"Mean accuracy over the rounds, \"what next\" less random: {gain.mean():+.3f} "
            f"({gain.mean() - half:+.3f} to {gain.mean() + half:+.3f}, {len(gain)} seeds).")  # fmt: skip


def draw(rows: pd.DataFrame, path: Path) -> None:
    """Draw accuracy against labels: each seed thin, the mean thick."""
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.subplots()
    for arm, colour in zip(ARMS, ("#0072b2", "#d55e00"), strict=True):
        curves = rows[rows["arm"] == arm].pivot_table(index="labels", columns="seed", values="accuracy")
        axes.plot(curves, color=colour, linewidth=0.8, alpha=0.5)
        axes.plot(curves.mean(axis=1), color=colour, linewidth=2.2, label=arm)
    axes.axhline(GOAL, color="#888888", linewidth=0.8, linestyle="--")
    axes.set(xlabel="labelled images", ylabel="accuracy on the test images", ylim=(0, 1))
    axes.legend(frameon=False, loc="lower right")
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    main()
