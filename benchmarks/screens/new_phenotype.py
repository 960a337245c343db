"""Whether wells of a phenotype that a model does not know lead the list "like nothing known", and bags against medians.

    python -m benchmarks.screens.new_phenotype --data FOLDER [--model nuclei] [--wells 48] [--record]

    python -m benchmarks.screens.new_phenotype --data FOLDER --left-out Hole=without_hole.zip ... [--record]

FOLDER holds `compose_fields.py` and `mitocheck/`. A screen of wells of four fields is composed of real nuclei of unseen
plates (30-80 % of the cells affected): as many wells of each class of the model, and 3 % of them beside these of one of
MitoCheck's other phenotypes, which the model has never seen. Half of the wells of the reference class are negative
controls. Reported for each phenotype: precision at 10 of the list (`unexplained_wells`), how many of its wells are in
the first cluster and how much of that cluster they are, and, to compare, precision at 10 by the distance of the well's
features from those of the training images (`unlike`). Then the same for plates on which most wells show nothing: 46
wells of the reference class, a few of each other class, and a few planted ones; reported is the share of the planted
wells among as many first ranks, as a mean over the phenotypes and for the one that is found least.

Beside it, each field and well of known classes: accuracy of single fields, of the median over the fields of a well, and
of all their instances in one bag; the same for wells in which 5-30 % of the cells are affected with --rare.

Only few cells of some phenotypes come from unseen plates (Grape 3, Folded 10), so that their fields repeat them. All
wells are of one simulated plate. Nothing is trained here. With --left-out, wells of each class that a model was trained
without, 3 % of all, are planted among the wells of its own classes; classified wells are kept in --work.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import binomtest

import napari_milcnn as mil
from benchmarks import record
from benchmarks.acquisition.kinds import OTHER_CLASSES
from benchmarks.acquisition.shifts import AFFECTED, composed
from benchmarks.acquisition.unlike import FIELDS_OF_A_WELL, RARE, other_classes
from napari_milcnn.inference.predict import Bags, Classifier, pool_bags
from napari_milcnn.labels.table import LabelTable
from napari_milcnn.model.trained_model import TrainedModel
from napari_milcnn.screens.features import feature_names, standardised, well_row
from napari_milcnn.screens.likeness import CLUSTER, UNEXPLAINED, unexplained_wells

PLANTED = 0.03
FEW, FEW_PLANTED, INACTIVE = (2, 4, 8), (3, 6), 46
"""Wells of each class, planted wells, and wells of the reference class, of plates on which most wells show nothing."""


def main() -> None:
    """Compose the wells, classify them, list them, print and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", default="nuclei")
    parser.add_argument("--wells", type=int, default=48, help="wells of each known class")
    parser.add_argument("--rare", action="store_true", help="bags against medians where 5-30 %% of the cells differ")
    parser.add_argument("--work", type=Path, default=Path("build/unlike"), help="composed fields are kept here")
    parser.add_argument("--record", action="store_true", help="keep in RESULTS.md")
    parser.add_argument("--left-out", nargs="+", default=[], type=lambda text: tuple(text.split("=", 1)),
                        metavar="NAME=MODEL", help="classes, each with a model trained without it")  # fmt: skip
    args = parser.parse_args()
    if args.left_out:
        table = composed(args.data, args.work, "validation", args.wells * FIELDS_OF_A_WELL, AFFECTED)
        lines = left_out(table, args.left_out, args.work)
        record.report("New phenotypes in a screen: classes left out of training", lines, keep=args.record)
        return
    model = mil.load_model(args.model)
    affected = RARE if args.rare else AFFECTED
    table = composed(args.data, args.work, "validation", args.wells * FIELDS_OF_A_WELL, affected)
    known = wells_of(model, table, {})
    lines = [f"Model {model.card.name}, sha256 {model.digest[:12]}; {len(known)} wells of known classes\n"]
    if not args.rare:
        count = planted_among(known)
        places = {place: name for name, place in OTHER_CLASSES.items()}
        other = other_classes(args.data, args.work, count * FIELDS_OF_A_WELL)
        planted_wells = wells_of(model, other, places)
        lines += [*planted(model, known, planted_wells), "", *among_few(model, known, planted_wells), ""]
    lines += bags_and_medians(model, known)
    record.report("New phenotypes in a screen; wells as bags", lines, keep=args.record)


def wells_of(model: TrainedModel, table: LabelTable, names: dict[str, str]) -> pd.DataFrame:
    """Classify the fields of a table, and make wells of four fields of one class; `names` gives labels other names.

    A row a well: label, the columns of `well_row`, and for each class the score of each field, as a list.
    """
    rows = []
    classifier = Classifier(model)
    labels = np.array([image.labels[0] for image in table.images])
    for label in np.unique(labels):
        numbers = np.flatnonzero(labels == label)
        for first in range(0, len(numbers) // FIELDS_OF_A_WELL * FIELDS_OF_A_WELL, FIELDS_OF_A_WELL):
            own = numbers[first : first + FIELDS_OF_A_WELL]
            found = [classifier.classify(table.images[i].file) for i in own]
            name = names.get(label, label)
            bags = Bags.joined([one.bags for one in found])
            assert pool_bags(model, bags).planes == FIELDS_OF_A_WELL
            row = well_row(model, "plate", f"{name} {first}", bags)
            rows.append(row.assign(label=name, fields=[[one.scores[0] for one in found]]))
    return pd.concat(rows, ignore_index=True)


def planted(model: TrainedModel, known: pd.DataFrame, other: pd.DataFrame) -> list[str]:
    """Rows of Markdown: each phenotype planted into the known wells."""
    rows: list[list[object]] = []
    for name in other.loc[~other["label"].isin(model.classes), "label"].unique():
        both, listed = list_of(model, known, other[other["label"] == name])
        first = listed["label"][listed[CLUSTER] == 1]
        is_new = listed["label"] == name
        known_best = listed.loc[~is_new, UNEXPLAINED].max()
        shares = [float(is_new.head(10).mean()), float(by_training_images(model, both, name)),
                  f"{(first == name).sum()} of {is_new.sum()}", float((first == name).mean()) if len(first) else 0.0,
                  float((listed.loc[is_new, UNEXPLAINED] > known_best).mean())]  # fmt: skip
        rows.append([name, *shares])
    rows.append(["mean", *(float(np.mean([row[i] for row in rows])) for i in (1, 2)), "", "", ""])
    header = ["planted phenotype", "precision at 10", "by unlike of the well", "its wells in cluster 1",
              "share of cluster 1", "above every known well"]  # fmt: skip
    return record.table(header, rows)


def planted_among(known: pd.DataFrame) -> int:
    """Return how many wells are 3 % of all, beside these known ones."""
    return round(PLANTED * len(known) / (1 - PLANTED))


def kept_wells(model: TrainedModel, table: LabelTable, work: Path) -> pd.DataFrame:
    """Return what `wells_of` does, classified once for each model; `work` has to be emptied when features change."""
    file = work / f"wells-{model.digest[:12]}-{len(table.images)}.parquet"
    if not file.exists():
        wells_of(model, table, {}).drop(columns="fields").to_parquet(file)
    return pd.read_parquet(file)


def left_out(table: LabelTable, models: Sequence[tuple[str, str]], work: Path) -> list[str]:
    """Rows of Markdown: classes that models were trained without, planted into the wells of the other classes."""
    rows: list[list[object]] = []
    for name, file in models:
        model = mil.load_model(file)
        wells = kept_wells(model, table, work)
        known = wells[wells["label"] != name]
        new = wells[wells["label"] == name].head(planted_among(known))
        listed = list_of(model, known, new)[1]
        is_new = listed["label"] == name
        known_best = listed.loc[~is_new, UNEXPLAINED].max()
        classes = np.array(model.classes)
        tops = classes[new[[f"bag score {one}" for one in classes]].to_numpy().argmax(1)]
        taken = pd.Series(tops).value_counts().index[0]
        rows.append([name, len(known), len(new), taken, float(is_new.head(10).mean()),
                     float((listed.loc[is_new, UNEXPLAINED] > known_best).mean())])  # fmt: skip
    rows.append(["mean", "", "", "", *(float(np.mean([row[i] for row in rows])) for i in (4, 5))])
    header = ["left out", "known wells", "planted wells", "taken for", "precision at 10", "above every known well"]
    return record.table(header, rows)


def list_of(model: TrainedModel, known: pd.DataFrame, new: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Put wells on one plate, half of those of the reference class as negative controls; return them, and the list."""
    both = pd.concat([known, new], ignore_index=True).drop(columns="fields", errors="ignore")
    reference = both["label"] == model.card.reference
    both["control"] = np.where(reference & (np.arange(len(both)) % 2 == 0), "negative", "")
    return both, unexplained_wells(standardised(both))


def among_few(model: TrainedModel, known: pd.DataFrame, other: pd.DataFrame) -> list[str]:
    """Rows of Markdown: phenotypes planted into plates with few wells of each known class."""
    rows: list[list[object]] = []
    names = other.loc[~other["label"].isin(model.classes), "label"].unique()
    number = known.groupby("label").cumcount()
    for few in FEW:
        there = known[number < np.where(known["label"] == model.card.reference, INACTIVE, few)]
        for count in FEW_PLANTED:
            found = {name: float((list_of(model, there, other[other["label"] == name].head(count))[1]["label"]
                                  .head(count) == name).mean()) for name in names}  # fmt: skip
            least = min(found, key=lambda name: found[name])
            rows.append([few, count, float(np.mean(list(found.values()))), f"{found[least]:.2f} ({least})"])
    return record.table(["wells of each class", "planted wells", "of the first ranks", "least"], rows)


def by_training_images(model: TrainedModel, wells: pd.DataFrame, name: str) -> float:
    """Precision at 10 by the distance of the features of wells from the training images."""
    look = model.card.training.look
    if look is None:
        return float("nan")
    far = look.features.distances(wells[feature_names(wells)].to_numpy(float))
    return float((wells["label"].to_numpy()[np.argsort(-far)[:10]] == name).mean())


def bags_and_medians(model: TrainedModel, known: pd.DataFrame) -> list[str]:
    """Rows of Markdown: accuracy of fields, of medians and of bags, and how often bag and median alone are right."""
    classes = np.array(model.classes)
    labels = known["label"].to_numpy()
    scores = np.array(known["fields"].tolist())  # (wells, fields, classes)
    bag = known[[f"bag score {name}" for name in model.classes]].to_numpy()
    answers = {"single fields": scores.argmax(2), "median of fields": np.median(scores, 1).argmax(1)[:, None],
               "one bag": bag.argmax(1)[:, None]}  # fmt: skip
    right = {way: classes[found] == labels[:, None] for way, found in answers.items()}
    own = np.array([model.classes.index(name) for name in labels])
    values = {"single fields": np.nan, "median of fields": np.median(scores, 1)[np.arange(len(own)), own].mean(),
              "one bag": bag[np.arange(len(own)), own].mean()}  # fmt: skip
    rows = [[way, float(one.mean()), float(values[way])] for way, one in right.items()]
    median, pooled = right["median of fields"][:, 0], right["one bag"][:, 0]
    only = int((pooled & ~median).sum()), int((median & ~pooled).sum())
    p = binomtest(only[0], sum(only)).pvalue if sum(only) else 1.0
    header = ["answer from", "accuracy", "mean score of the right class"]
    sentence = f"Only the bag is right in {only[0]} wells, only the median in {only[1]} (sign test: p = {p:.2f})."
    return [*record.table(header, rows), "", sentence]


if __name__ == "__main__":
    main()
