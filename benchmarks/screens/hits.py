"""Hits of simulated plates with batch effects at a false-discovery rate, with and without control normalisation.

    python -m benchmarks.screens.hits [--work FOLDER] [--plates 3] [--wells 96] [--side 256] [--seeds 0 1] [--record]

Plates of one reporter strain treated with compounds at several doses (`simulation.plate`): half of the compounds move
the protein in a share of the cells that rises with the dose. Plates differ in exposure, background, noise, focus, size,
vignetting and storage; wells at the edge are dimmer, hazier and less sharp. The shipped model yeast-sim classifies all
fields; nothing is trained or chosen on them.

Compared at 5 %: scores against the negative controls of all plates together (no control normalisation), against those
of the plate (robust z), and that with row and column effects removed; each with the median and the mean over the fields
of a well, and with the well as one bag. A treatment is a compound at a dose, with one well on each plate.

What counts. A treatment is active if at least `ACTIVE` of its cells respond, and inactive if at most `IDLE` do; what
lies between is left out. Power: share of active treatments that are a hit of their own class. False:
share of inactive treatments among all hits of any class, which is to be at most 5 %, with Wilson's 95 % interval. Other
class: share of active treatments that are a hit of another class, too.

With --normalise group, the same model scales intensities by the negative controls of the plate, without having been
trained so.

What it cannot say: simulated cells are simpler than real ones, and the model's input is scaled plane by plane, so that
exposure and background hardly reach it; what a model gains that was trained with intensities scaled by group is not
measured.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import binomtest

import napari_milcnn as mil
from benchmarks.record import report, table
from napari_milcnn.images.open import ImageReading
from napari_milcnn.options import StatisticsOptions, make_options
from napari_milcnn.schema import PLATE
from napari_milcnn.screens.summary import ScreenTables, read_tables, statistics_of
from napari_milcnn.simulation.options import PlateOptions, square_field
from napari_milcnn.simulation.plate import LAYOUT, TRUTH, simulate_plates

ACTIVE, IDLE = 0.15, 0.02
"""Share of responding cells from which a treatment is active, and up to which it is inactive."""
RATE = 0.05
SITES = PlateOptions().sites
TREATMENT = ["treatment", "dose"]


def main() -> None:
    """Simulate, classify, compare and record."""
    args = arguments()
    found = [tables_and_truth(args, seed) for seed in args.seeds]
    active, idle = (sum(int(chosen(truth["share"]).sum()) for _, truth in found)
                    for chosen in (lambda share: share >= ACTIVE, lambda share: share <= IDLE))  # fmt: skip
    seeds = ", ".join(map(str, args.seeds))
    head = (f"Seeds {seeds}, each {args.plates} plates of {args.wells} wells, {SITES} fields of {args.side} px a well, "
            f"{args.doses} doses a compound; {active} active, {idle} inactive treatments\n")  # fmt: skip
    scaled = ", intensities scaled by plate" if args.normalise == "group" else ""
    report(f"Hits of simulated plates{scaled}", [head, *lines(found)], keep=args.record)


def tables_and_truth(args: argparse.Namespace, seed: int) -> tuple[ScreenTables, pd.DataFrame]:
    """Simulate and classify the plates of a seed, once, and return the tables and what is true of each treatment."""
    plate = make_options(PlateOptions, {"wells": args.wells, "plates": args.plates, "doses": args.doses})
    folder = args.work / f"{args.plates}x{args.wells}-{args.side}px-{args.doses}doses-seed{seed}"
    images, out = folder / "plates", folder / ("results" if args.normalise == "image" else "results by plate")
    if not (images / LAYOUT).exists():
        options = square_field(args.side)
        for number, _ in enumerate(simulate_plates(images, plate=plate, seed=seed, options=options), start=1):
            if number % 50 == 0:
                sys.stderr.write(f"{number} of {plate.plates * plate.wells * plate.sites} fields simulated\n")
    model = mil.load_model("yeast-sim").with_card(normalise=args.normalise)
    steps = mil.screen(model, images, out, layout=images / LAYOUT, cells=False, resume=True,
                       reading=ImageReading(channels=("GFP", "RFP")), device=args.device)  # fmt: skip
    for step in steps:
        if step.number % 50 == 0:
            sys.stderr.write(f"{step.number} of {step.total} fields classified\n")
    return read_tables(out), treatments_of(pd.read_csv(images / TRUTH))


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("build/screen_hits"), help="for plates and results")
    parser.add_argument("--plates", type=int, default=3)
    parser.add_argument("--wells", type=int, default=96)
    parser.add_argument("--doses", type=int, default=6)
    parser.add_argument("--side", type=int, default=256, help="of a field, in px")
    parser.add_argument("--seeds", type=int, nargs="+", default=(0,))
    parser.add_argument("--normalise", choices=("image", "group"), default="image", help="how intensities are scaled")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--record", action="store_true", help="keep in RESULTS.md")
    return parser.parse_args()


def treatments_of(truth: pd.DataFrame) -> pd.DataFrame:
    """One row for each treatment: target and share of cells that respond; 0 where the compound does nothing."""
    tested = truth[truth["control"].isna()]
    return tested.assign(share=tested["share"].where(tested["most"].notna(), 0.0)).drop_duplicates(TREATMENT)[
        [*TREATMENT, "target", "share"]].set_index(TREATMENT)  # fmt: skip


def hits_of(tables: ScreenTables, *, by_plate: bool, score: str, polish: bool) -> pd.DataFrame:
    """Rows of treatments and classes, with `hit`; without `by_plate`, all plates are compared as one."""
    if not by_plate:
        tables = as_one_plate(tables)
    options = StatisticsOptions(false_discovery_rate=RATE, well_score=score, remove_plate_effects=polish)
    found = statistics_of(tables, options)
    if found is None:
        sys.exit("no field was classified; see results/predictions.csv for the reasons")
    return found.treatments


def as_one_plate(tables: ScreenTables) -> ScreenTables:
    """Give all wells one plate: their names then hold the plate."""
    changed = [one.assign(well=one[PLATE] + " " + one["well"], plate="all")
               for one in (tables.fields, tables.predictions, tables.wells)]  # fmt: skip
    return ScreenTables(changed[0], changed[1], tables.cells, changed[2])


def figures(found: pd.DataFrame, truth: pd.DataFrame) -> list[object]:
    """Hits, power, false and other class, as the head of this file says."""
    joined = found.assign(dose=found["dose"].astype(float)).join(truth.rename_axis(TREATMENT), on=TREATMENT)
    hits = joined[joined["hit"]]
    active, idle = joined["share"] >= ACTIVE, joined["share"] <= IDLE
    own = joined[active & (joined["class"] == joined["target"])]
    counted = hits[(hits["share"] >= ACTIVE) | (hits["share"] <= IDLE)].drop_duplicates(TREATMENT)
    other = hits[(hits["share"] >= ACTIVE) & (hits["class"] != hits["target"])].drop_duplicates(TREATMENT)
    false = float((counted["share"] <= IDLE).mean()) if len(counted) else 0.0
    own_false = hits[idle[hits.index]]
    return [len(counted), float(own["hit"].mean()), false, len(own_false), len(other) / max(1, len(own))]


def lines(found: list[tuple[ScreenTables, pd.DataFrame]]) -> list[str]:
    """Rows of Markdown: each way of comparing, for each score of a well, over all seeds."""
    ways = {"all plates as one": (False, False), "by plate": (True, False), "by plate, polished": (True, True)}
    rows = [[name, score, *over_seeds([figures(hits_of(tables, by_plate=by_plate, score=score, polish=polish), truth)
                                       for tables, truth in found])]
            for name, (by_plate, polish) in ways.items() for score in ("median", "mean", "bag")]  # fmt: skip
    head = ["negative controls", "score of a well", "treatments hit", "power", "false", "95 % interval of false",
            "false hits", "other class"]  # fmt: skip
    return table(head, rows)


def over_seeds(rows: list[list[object]]) -> list[object]:
    """Sum up what is counted; shares are those of all treatments hit (false), and means over seeds."""
    hit, power, false, false_hits, other = np.array(rows, float).T
    total, wrong = int(hit.sum()), int(np.rint(false * hit).sum())
    bounds = binomtest(wrong, total).proportion_ci(method="wilson") if total else (np.nan, np.nan)
    return [total, float(power.mean()), wrong / max(total, 1), "{:.3f} to {:.3f}".format(*bounds),
            int(false_hits.sum()), float(other.mean())]  # fmt: skip


if __name__ == "__main__":
    main()
