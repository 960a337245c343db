"""Yeast localisation: fields that show one or two localisations, judged by field and by protein.

    python -m benchmarks.accuracy.yeast [--work FOLDER] [--record]
    python -m benchmarks.accuracy.yeast --labels TABLE.csv [--work FOLDER] [--record]

Protocol, after the paper's yeast GFP collection (Kraus, Ba & Frey 2016, section 4.3), which is too large to come along.
A screen of 240 proteins is simulated: 30 for each of eight localisations, every seventh or so with a second one, three
fields of 256 px each. In two fifths of the proteins a network learns, one fifth chooses the checkpoint, and two fifths
are reported; the fields of a protein never part. Reported, mean over two seeds:

* mean average precision: over the classes, of fields, and of proteins with the median of each score over their fields
* accuracy of proteins and fields with a single localisation: whether the highest score is the right one
* agreement of all proteins: whether the highest median score is among the labels, and whether the classes with a median
  above one half are exactly the labels

`--labels` takes a table of real fields the same way: `file`, `label` (several separated by `|`), `group` (the protein)
and, where the division shall be its own, `split` with train, validation and test.

Departures: eight localisations for the paper's 17, simulated images, the preset `compact`, narrower. Figures of
simulated images say that the protocol runs and what changed between two versions, not how well a real screen is read.

Budget: ten minutes on two cores (`--workers 2`, one thread each). The screen and what is finished are kept in --work,
and the same call goes on from there. `--quick` shows in under a minute that everything runs.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import average_precision_score

import napari_milcnn as mil
from benchmarks.record import report, table
from benchmarks.runs import Finished, run_all, scores
from napari_milcnn.simulation.localisations import LOCALISATIONS
from napari_milcnn.simulation.options import SimulationOptions
from napari_milcnn.simulation.screen import simulate_screen

DEALT = ("train", "test", "train", "validation", "test")
"""Where the proteins of one set of labels go, in turn."""
FACTS = ("seed", "file", "label", "group")


@dataclass(frozen=True)
class Plan:
    """The screen and the training."""

    proteins: int = 30
    fields: int = 3
    classes: tuple[str, ...] = LOCALISATIONS
    seeds: tuple[int, ...] = (0, 1)
    epochs: int = 14
    patch: int = 256
    batch_size: int = 8
    learning_rate: float = 4e-3
    widths: tuple[int, ...] = (16, 16, 32, 64, 64, 128)


QUICK = Plan(proteins=5, fields=1, classes=("nucleus", "cell periphery", "punctate"), seeds=(0,), epochs=2,
             widths=(8, 8, 8, 16, 16, 32))  # fmt: skip


def main() -> None:
    """Simulate what is missing, train what is not done, judge and record."""
    args = arguments()
    plan = QUICK if args.quick else Plan()
    work = args.work / ("quick" if args.quick else "full" if args.labels is None else args.labels.stem)
    finished = Finished(work, {**asdict(plan), "labels": str(args.labels)})
    labels = divided(args.labels or simulated(work, plan), work)
    wanted = [{"seed": seed} for seed in plan.seeds]
    rows = run_all(finished, wanted, one_run, args.workers, labels=labels, plan=plan, device=args.device)
    kind = "simulated screen" if args.labels is None else str(args.labels)
    report(f"Yeast localisation, {kind}", lines(rows), keep=args.record)


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labels", type=Path, help="table of real fields; default: a simulated screen")
    parser.add_argument("--work", type=Path, default=Path("build/yeast"), help="for the screen and finished runs")
    parser.add_argument("--workers", type=int, default=2, help="processes, of one thread each")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--quick", action="store_true", help="under a minute, to see that it runs")
    parser.add_argument("--record", action="store_true", help="keep in RESULTS.md")
    return parser.parse_args()


def simulated(work: Path, plan: Plan) -> Path:
    """Simulate the screen, once, and return its table."""
    screen, draft = work / "screen", work / "screen.part"
    if not screen.exists():
        shutil.rmtree(draft, ignore_errors=True)
        options = SimulationOptions(size=(256, 256), cells=(11, 19))
        steps = simulate_screen(draft, localisations=plan.classes, fields_per_class=plan.proteins * plan.fields,
                                fields_per_strain=plan.fields, validation=0, options=options)  # fmt: skip
        count = sum(1 for _ in steps)
        sys.stderr.write(f"{count} fields simulated\n")
        draft.rename(screen)
    labels = pd.read_csv(screen / "labels.csv")
    labels.drop(columns="split").to_csv(screen / "proteins.csv", index=False)
    return screen / "proteins.csv"


def divided(labels: Path, work: Path) -> Path:
    """Write the table with every protein in one part: its own split where it has one, else dealt out by its labels."""
    rows = pd.read_csv(labels, dtype=str)
    if "split" in rows:
        if "test" not in set(rows["split"]):
            sys.exit(f"{labels} has a split without test rows; add them, or leave the column out")
    else:
        rows["split"] = rows["group"].map(dealt(rows))
    rows["file"] = [str((labels.parent / file).resolve()) for file in rows["file"]]
    rows.to_csv(work / "divided.csv", index=False)
    return work / "divided.csv"


def dealt(rows: pd.DataFrame) -> dict[str, str]:
    """Protein -> part: those with one label class by class, then those with several, so that each part has its share.

    The rows need the columns label and group.
    """
    proteins = rows.drop_duplicates("group").sort_values("group")
    several = proteins["label"].str.contains("|", regex=False)
    parts: dict[str, str] = {}
    for _, members in proteins.groupby(proteins["label"].mask(several, "several")):
        parts |= {group: DEALT[i % len(DEALT)] for i, group in enumerate(members["group"])}
    return parts


def one_run(seed: int, labels: Path, plan: Plan, device: str) -> list[dict[str, Any]]:
    """Train one network and score the test fields: a row for each, with a column for each class."""
    whole = mil.read_labels(labels)
    with mil.open_image(whole.images[0].file) as first:
        channels, pixel_size = first.channels, first.pixel_size
    model = mil.new_model(whole.classes, channels, pixel_size=pixel_size, seed=seed, widths=plan.widths)
    options = {"epochs": plan.epochs, "patch": plan.patch, "batch_size": plan.batch_size,
               "learning_rate": plan.learning_rate}  # fmt: skip
    for told in mil.train(model, whole, **options, seed=seed, device=device):
        sys.stderr.write(f"seed {seed}: epoch {told.epoch}, loss {told.loss:.3f}, "
                         f"selection loss {told.validation.loss:.3f}, {told.seconds:.0f} s\n")  # fmt: skip
    tested = whole.part("test").images
    facts = pd.DataFrame({"file": [image.file.name for image in tested],
                          "label": ["|".join(image.labels) for image in tested],
                          "group": [image.group for image in tested]})  # fmt: skip
    return facts.join(scores(told.best, [image.file for image in tested], device)).to_dict("records")


def by_protein(rows: pd.DataFrame) -> pd.DataFrame:
    """One row for each protein of each seed, with the median of each score over its fields."""
    return rows.drop(columns="file").groupby(["seed", "group", "label"], as_index=False).median()


def truth(rows: pd.DataFrame) -> pd.DataFrame:
    """Whether each row's label names each class, bool, columns as the classes."""
    named = [set(label.split("|")) for label in rows["label"]]
    return pd.DataFrame({name: [name in labels for labels in named] for name in classes(rows)}, index=rows.index)


def classes(rows: pd.DataFrame) -> list[str]:
    """Names of the columns of scores."""
    return [name for name in rows if name not in FACTS]


def precisions(rows: pd.DataFrame) -> pd.Series:
    """Average precision of each class that any row shows."""
    shown = truth(rows)
    return pd.Series({name: average_precision_score(shown[name], rows[name]) for name in shown if shown[name].any()})


def single_accuracy(rows: pd.DataFrame) -> float:
    """Share of the rows with one label whose highest score is it."""
    single = rows[~rows["label"].str.contains("|", regex=False)]
    return float((single[classes(rows)].idxmax(axis=1) == single["label"]).mean())


def agreement(rows: pd.DataFrame) -> tuple[float, float]:
    """Share of rows whose highest score is among the labels, and whose classes above one half are the labels."""
    shown, given = truth(rows), rows[classes(rows)]
    best = given.to_numpy().argmax(1)
    among = shown.to_numpy()[np.arange(len(rows)), best]
    return float(among.mean()), float(((given > 0.5) == shown).all(axis=1).mean())


def lines(rows: pd.DataFrame) -> list[str]:
    """Rows of Markdown: figures of fields and proteins, then the average precision of each class."""
    levels = {"fields": rows, "proteins": by_protein(rows)}
    single = ~levels["proteins"].drop_duplicates("group")["label"].str.contains("|", regex=False)
    head = (f"{rows['file'].nunique()} test fields of {len(single)} proteins, {single.sum()} of them with a single "
            f"localisation; mean over seeds ({rows['seed'].nunique()})\n")  # fmt: skip
    body = []
    for name, level in levels.items():
        seeds = [one for _, one in level.groupby("seed")]
        measured = [(precisions(one).mean(), single_accuracy(one), *agreement(one)) for one in seeds]
        body.append([name, *map(float, np.mean(measured, 0))])
    found = pd.concat([precisions(one) for _, one in levels["proteins"].groupby("seed")], axis=1).mean(axis=1)
    header = ["", "mean average precision", "accuracy, single localisation", "top class among the labels",
              "exactly the labels"]  # fmt: skip
    each = [[name, float(value)] for name, value in found.items()]
    return [head, *table(header, body), "", *table(["localisation", "average precision, proteins"], each)]


if __name__ == "__main__":
    main()
