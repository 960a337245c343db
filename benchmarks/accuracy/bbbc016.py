"""BBBC016: transfluor fields, classified with whole wells left out, and the dose response that follows.

    python -m benchmarks.accuracy.bbbc016 --data FOLDER [--work FOLDER] [--record]

FOLDER holds 24 wells of three fields of U2OS cells with beta-arrestin GFP (Broad Bioimage Benchmark Collection,
BBBC016v1, CC BY 3.0), and `labels.csv` with the columns file, label (basal, mid, stimulated), group (the well) and
dose. A haze in the cytoplasm (basal, doses up to 1) turns into bright spots (stimulated, doses of 10 and more).

Protocol. Five folds: each leaves one of the five stimulated wells out, and every fifth of the basal wells. A network
trains on the other basal and stimulated wells; its checkpoint is the last epoch, so that nothing is chosen on the wells
left out. Every field is scored by the network that never saw its well; the two wells of the dose between, 3, are in no
training set and get the mean over the five. Reported: balanced accuracy of fields and of wells (a well's score is the
mean of its fields), and the mean score against dose with its standard error over wells, with a Hill curve of four
parameters fitted to the wells as a screen does it (`screens.statistics.doses`), and the 95 % interval of EC50 over
wells. Beside it: the share of cells that are stimulated (`share stimulated` of predictions.csv), with a curve of its
own. The peer: texture features made by hand and logistic regression, on the same folds.

What it cannot say: the labels change between the doses 1 and 10, so the score is made to rise there; only the height
at dose 3, which no network was told of, is news, and it alone places the EC50 between the two.

Departures from the paper, which does not treat this set: the preset `compact`, narrower, and patches of 256 px, for a
budget of about ten minutes on two cores (`--workers 2`, one thread each). What is finished is kept in --work, and
the same call goes on from there. `--quick` shows in under a minute that everything runs.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import ndimage
from skimage.feature import graycomatrix, graycoprops
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import napari_milcnn as mil
from benchmarks.record import report, table
from benchmarks.runs import Finished, run_all
from napari_milcnn.schema import CELLS, share_column
from napari_milcnn.screens.statistics.doses import STEEPEST, DoseCurve, fit_doses

FIGURE = Path(__file__).parents[2] / "docs" / "images" / "bbbc016_dose.png"
CLASSES = ("basal", "stimulated")


@dataclass(frozen=True)
class Plan:
    """How every fold is trained: options of the network and of the training, the same for all."""

    epochs: int = 24
    patch: int = 256
    batch_size: int = 8
    learning_rate: float = 2e-3
    widths: tuple[int, ...] = (16, 32, 32, 64, 64, 128)
    folds: tuple[int, ...] = (0, 1, 2, 3, 4)


QUICK = Plan(epochs=1, patch=96, widths=(8, 8, 8, 16, 16, 16), folds=(0,))


def main() -> None:
    """Train the folds that are not done, compare with the peer, fit, draw and record."""
    args = arguments()
    plan = QUICK if args.quick else Plan()
    finished = Finished(args.work / ("quick" if args.quick else "full"), asdict(plan))
    wells = read_wells(args.data)
    wanted = [{"fold": fold} for fold in plan.folds]
    rows = run_all(finished, wanted, one_fold, args.workers, data=args.data, plan=plan, device=args.device)
    methods = {"network": fields(rows), "texture and logistic regression": fields(peer(args.data, wells, plan.folds))}
    if args.record and not args.quick:
        draw(methods, FIGURE)
    report("BBBC016, wells left out", lines(methods, len(plan.folds)), keep=args.record)


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with labels.csv and images/")
    parser.add_argument("--work", type=Path, default=Path("build/bbbc016"), help="for finished folds")
    parser.add_argument("--workers", type=int, default=2, help="processes, of one thread each")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--quick", action="store_true", help="under a minute, to see that it runs")
    parser.add_argument("--record", action="store_true", help="keep in RESULTS.md and draw the figure")
    return parser.parse_args()


def read_wells(data: Path) -> pd.DataFrame:
    """Fields with label, well (group) and dose, as the table has them, and the fold that leaves each out."""
    wells = pd.read_csv(data / "labels.csv", dtype={"group": str})
    return wells.assign(fold=wells["group"].map(left_out_in(wells)).fillna(-1).astype(int))


def left_out_in(wells: pd.DataFrame) -> dict[str, int]:
    """Well -> fold that leaves it out; each class is dealt out in turn, by dose, so that every fold has each."""
    dealt: dict[str, int] = {}
    for name in CLASSES:
        names = wells[wells["label"] == name].sort_values(["dose", "group"])["group"].unique()
        dealt |= {well: i % 5 for i, well in enumerate(names)}
    return dealt


def part(wells: pd.DataFrame, fold: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Fields that a fold trains on, and those that it scores: its own wells and those of no class."""
    trained = wells[(wells["fold"] >= 0) & (wells["fold"] != fold)]
    return trained, wells[(wells["fold"] == fold) | (wells["fold"] < 0)]


def one_fold(fold: int, data: Path, plan: Plan, device: str) -> list[dict[str, Any]]:
    """Train without a fold's wells and score them: one row for each field."""
    trained, scored = part(read_wells(data), fold)
    whole = mil.read_labels(data / "labels.csv")
    files = {data / file for file in trained["file"]}
    labels = replace(whole, images=tuple(image for image in whole.images if image.file in files))
    model = mil.new_model(CLASSES, ["GFP"], reference="basal", seed=fold, widths=plan.widths)
    options = {"epochs": plan.epochs, "patch": plan.patch, "batch_size": plan.batch_size,
               "learning_rate": plan.learning_rate}  # fmt: skip
    for told in mil.train(model, labels, **options, validation=0, seed=fold, device=device):
        sys.stderr.write(f"fold {fold}: epoch {told.epoch}, loss {told.loss:.3f}, {told.seconds:.0f} s\n")
    found = [mil.evidence(told.best, data / file, device=device) for file in scored["file"]]
    scores = [float(one.prediction.scores[0, CLASSES.index("stimulated")]) for one in found]
    counts = [mil.segment(one).counts[0] for one in found]
    shares, cells = ([one[name] for one in counts] for name in (share_column("stimulated"), CELLS))
    return scored.assign(score=scores, share=shares, cells=cells).drop(columns="fold").to_dict("records")


def peer(data: Path, wells: pd.DataFrame, folds: tuple[int, ...]) -> pd.DataFrame:
    """Score the fields by hand-made features on the same folds: rows as of `one_fold`."""
    found = np.array([texture(mil.open_image(data / file).plane(0, (0,))[0]) for file in wells["file"]])
    rows = []
    for fold in folds:
        trained, scored = part(wells, fold)
        model = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=1000))
        model.fit(found[trained.index], trained["label"] == "stimulated")
        rows.append(scored.assign(score=model.predict_proba(found[scored.index])[:, 1], fold=fold))
    return pd.concat(rows, ignore_index=True)


def texture(field: np.ndarray) -> np.ndarray:
    """Describe a field, uint8 (Y, X), by its brightness, by spots of several sizes and by its co-occurrence matrix."""
    raw = field.astype(np.float32)
    values = [raw.mean(), raw.std(), *np.quantile(raw, (0.05, 0.25, 0.5, 0.75, 0.95, 0.99))]
    for sigma in (1, 2, 4, 8):
        spots = -ndimage.gaussian_laplace(raw, sigma)
        values += [spots.std(), *np.quantile(spots, (0.95, 0.99, 0.999))]
    matrix = graycomatrix(field // 8, [1, 3, 6], [0, np.pi / 2], levels=32, symmetric=True, normed=True)
    names = ("contrast", "homogeneity", "energy", "correlation")
    return np.array([*values, *np.concatenate([graycoprops(matrix, name).mean(1) for name in names])])


def fields(rows: pd.DataFrame) -> pd.DataFrame:
    """One row for each field: those that several folds scored get the mean."""
    return rows.groupby(["file", "label", "group", "dose"], as_index=False)[measured(rows)].mean()


def measured(rows: pd.DataFrame) -> list[str]:
    """Columns of values: the score, and for the network the share of stimulated cells and the number of cells."""
    return [name for name in ("score", "share", "cells") if name in rows]


def wells_of(scored: pd.DataFrame) -> pd.DataFrame:
    """One row for each well: label, dose and the mean values of its fields."""
    return scored.groupby(["group", "label", "dose"], as_index=False)[measured(scored)].mean()


def balanced_accuracy(rows: pd.DataFrame) -> float:
    """Mean over basal and stimulated of the share on the right side of one half."""
    known = rows[rows["label"].isin(CLASSES)]
    return float(balanced_accuracy_score(known["label"] == "stimulated", known["score"] > 0.5))


def dose_response(wells: pd.DataFrame, value: str = "score") -> pd.DataFrame:
    """Dose, mean of a value, its standard error over the wells (NaN for a single well) and the number of wells."""
    return wells.groupby("dose")[value].agg(["mean", "sem", "size"]).reset_index()


def share_lines(wells: pd.DataFrame) -> list[str]:
    """Rows of Markdown: cells of a field, share of stimulated ones with its range over wells, and its curve."""
    grouped = wells.groupby("dose")
    found = grouped["share"].agg(["mean", "min", "max", "size"]).reset_index()
    cells = grouped["cells"].mean()
    rows: list[list[object]] = []
    for row, count in zip(found.itertuples(), cells, strict=True):
        reach = f"{row.min:.2f} to {row.max:.2f}" if row.size > 1 else "one well"
        rows.append([f"{row.dose:g}", f"{count:.0f}", row.mean, reach])
    lines = table(["dose", "cells a field", "share stimulated", "range of its wells"], rows)
    if wells["dose"].nunique() <= 4:
        return lines
    ec50, slope = curve_cells(fitted(wells, "share"))
    return [*lines, "", f"EC50 of the share, with its 95 % interval over wells: {ec50}; Hill slope {slope}."]


def fitted(wells: pd.DataFrame, value: str = "score") -> DoseCurve:
    """Fit a dose response to a value of the wells."""
    return fit_doses(wells["dose"].to_numpy(float), wells[value].to_numpy(float), limits=(0, 1))


def curve_cells(curve: DoseCurve) -> list[str]:
    """EC50 with its 95 % interval over wells, and slope; or why there is no curve."""
    if not curve.has_response:
        return [curve.problem, ""]
    low, high = curve.ec50_interval
    steep = curve.slope > STEEPEST - 0.01
    return [f"{curve.ec50:.2g} ({low:.2g} to {high:.2g})", f"{STEEPEST:.0f} or more" if steep else f"{curve.slope:.1f}"]


def lines(methods: dict[str, pd.DataFrame], folds: int) -> list[str]:
    """Rows of Markdown: both methods' accuracies and curves, then the score at each dose."""
    rows, doses = [], {}
    for name, scored in methods.items():
        wells = wells_of(scored)
        doses[name] = dose_response(wells).set_index("dose")
        curve = ["", ""]
        if wells["dose"].nunique() > 4:
            curve = curve_cells(fitted(wells))
        rows.append([name, balanced_accuracy(scored), balanced_accuracy(wells), *curve])
    head = f"{folds} of 5 folds, {len(scored)} fields of {len(wells)} wells; score: P(stimulated), mean over wells\n"
    texts = [[dose, int(doses[name]["size"][dose]), *(doses[one]["mean"][dose] for one in methods)]
             for dose in doses[name].index]  # fmt: skip
    return [
        head, *table(["method", "balanced accuracy, fields", "wells", "EC50 (95 %, wells)", "Hill slope"], rows), "",
        *table(["dose", "wells", *(f"score, {name}" for name in methods)], [[f"{t[0]:g}", *t[1:]] for t in texts]), "",
        *share_lines(wells_of(methods["network"])),
    ]  # fmt: skip


def draw(methods: dict[str, pd.DataFrame], file: Path) -> None:
    """Draw the network's share of stimulated cells, and each method's mean score, against dose."""
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    draw_shares(left, wells_of(methods["network"]))
    for (name, scored), colour, marker in zip(methods.items(), ("#0072b2", "#d55e00"), "os", strict=True):
        wells = wells_of(scored)
        found = dose_response(wells)
        least = found["dose"][found["dose"] > 0].min()
        right.errorbar(places(found["dose"]), found["mean"], found["sem"].fillna(0), fmt=marker, color=colour,
                       capsize=3, markersize=5, label=name)  # fmt: skip
        doses = np.geomspace(least, found["dose"].max(), 200)
        curve = fitted(wells)
        if curve.has_response:
            right.plot(doses, curve.at(doses), color=colour, linewidth=1)
    right.set(ylabel="P(stimulated), wells left out")
    right.legend(frameon=False)
    for axes in (left, right):
        axes.set_xscale("log")
        ticks = [least / 4, *(10.0**power for power in range(-3, 3))]
        axes.set_xticks(ticks, ["0", *(f"{tick:g}" for tick in ticks[1:])])
        axes.set(xlabel="dose", ylim=(-0.03, 1.03))
        axes.minorticks_off()
    figure.savefig(file, dpi=150)


def draw_shares(axes: Axes, wells: pd.DataFrame) -> None:
    """Draw the share of stimulated cells of each well, the curve, and EC50 with its 95 % interval over wells."""
    axes.plot(places(wells["dose"]), wells["share"], "o", color="#0072b2", markersize=4, label="one well")
    curve = fitted(wells, "share")
    if curve.has_response:
        positive = wells["dose"][wells["dose"] > 0]
        doses = np.geomspace(positive.min(), positive.max(), 200)
        axes.plot(doses, curve.at(doses), color="#0072b2", linewidth=1, label="fitted curve")
        middle = (curve.bottom + curve.top) / 2
        axes.plot(curve.ec50_interval, [middle, middle], color="#d55e00", linewidth=3, label="EC50, 95 % over wells")
    axes.set(ylabel="share of cells that are stimulated")
    axes.legend(frameon=False)


def places(dose: pd.Series) -> pd.Series:
    """Doses on a logarithmic axis: the dose 0 stands at a quarter of the least other dose."""
    return dose.where(dose > 0, dose[dose > 0].min() / 4)


if __name__ == "__main__":
    main()
