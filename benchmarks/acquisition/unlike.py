"""Whether a model says of images that it cannot know that they are unlike its training images, and why.

    python -m benchmarks.acquisition.unlike --data FOLDER [--model nuclei] [--record]

FOLDER holds `compose_fields.py`, `mitocheck/`, `bbbc016/` and `mnist/`. Reported:

* technical cases: 14 kinds (`kinds.py`), three images of each: how many are said to be unlike, with the right reason,
  and how many still get a class; black, white and noise images should get none
* false alarms: the share of fields of unseen plates, of the model's own classes, that are said to be unlike
* unseen phenotypes: fields in which 30-80 % of the cells show one of MitoCheck's seven other classes, among Interphase
  cells of unseen plates. AUROC of `unlike` against fields of known classes of the same plates, for single fields and
  for wells of four fields (mean of the logarithm of `unlike`), and the share that is said to be unlike. `phenotypes.py`
  has known classes and models that were trained without them

Nothing is chosen here. Only few cells of some phenotypes come from unseen plates (Grape 3, Folded 10), so that their
fields repeat them; the known classes have 16 and more.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

import napari_milcnn as mil
from benchmarks import record
from benchmarks.accuracy.nuclei_fields import compose
from benchmarks.acquisition.kinds import OTHER_CLASSES, TECHNICAL, Sources, make
from benchmarks.acquisition.shifts import AFFECTED, composed
from napari_milcnn.inference.devices import keep_freed_memory
from napari_milcnn.inference.predict import Classifier, ImageSource
from napari_milcnn.labels.table import LabelTable
from napari_milcnn.model.trained_model import TrainedModel

RARE = (0.05, 0.3)
FIELDS_OF_A_WELL = 4
SPLIT = "validation"


@dataclass(frozen=True)
class Answer:
    """What a model says of one image of one plane."""

    unlike: float
    is_unlike: bool
    reason: str
    top: str


def main() -> None:
    """Build the images, ask the model, print and record."""
    args = arguments()
    keep_freed_memory()
    known = composed(args.data, args.work, SPLIT, args.per_class)
    model = asked(args.model)
    sources = Sources.of(args.data, [row.file for row in known.images])
    found = by_class(model, known)
    lines = [f"Model {model.card.name}, sha256 {model.digest[:12]}\n", *technical(model, sources, args.images), "",
             *false_alarms(model, found, composed(args.data, args.work, SPLIT, args.per_class, RARE)), "",
             *unseen(model, found, other_classes(args.data, args.work, args.per_class))]  # fmt: skip
    record.report("Unlike the training images", lines, keep=args.record)


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", default="nuclei")
    parser.add_argument("--per-class", type=int, default=16, help="fields a class and phenotype, four a well")
    parser.add_argument("--images", type=int, default=3, help="images of each technical kind")
    parser.add_argument("--work", type=Path, default=Path("build/unlike"), help="composed fields are kept here")
    parser.add_argument("--record", action="store_true", help="keep in RESULTS.md")
    return parser.parse_args()


def asked(name: str) -> TrainedModel:
    """Load a model that knows what its training images look like."""
    model = mil.load_model(name)
    if model.card.training.look is None:
        sys.exit(f"{name} does not know what its training images look like; train it anew, or calibrate it")
    return model


def answers(model: TrainedModel, images: Iterable[ImageSource]) -> list[Answer]:
    """Classify images of one plane each."""
    classifier = Classifier(model)
    found = (classifier.classify(image) for image in images)
    return [Answer(float(one.unlike[0]), bool(one.is_unlike[0]), one.unlike_reasons[0], one.top[0]) for one in found]


def by_class(model: TrainedModel, table: LabelTable) -> dict[str, list[Answer]]:
    """Answers for the fields of each class."""
    files: dict[str, list[Path]] = {}
    for row in table.images:
        files.setdefault(row.labels[0], []).append(row.file)
    return {name: answers(model, own) for name, own in files.items()}


def technical(model: TrainedModel, sources: Sources, images: int) -> list[str]:
    """Rows of Markdown: for each technical kind how often it is found and named."""
    rows: list[list[object]] = []
    totals = np.zeros(3, int)
    for name, kind in TECHNICAL.items():
        made = (mil.open_image(make(name, sources, number), axes="YX") for number in range(images))
        found = answers(model, made)
        unlike = [one for one in found if one.is_unlike]
        counts = [len(unlike), sum(kind.is_named(one.reason) for one in unlike), sum(one.top != "" for one in found)]
        totals += counts
        said = max(found, key=lambda one: one.unlike if np.isfinite(one.unlike) else 0).reason
        rows.append([name, *counts, "yes" if kind.shows_nothing else "no", said])
    rows.append([f"all {images * len(TECHNICAL)}", *totals, "", ""])
    header = ["technical case", "said to be unlike", "with the right reason", "given a class", "shows nothing", "said"]
    return record.table(header, rows)


def false_alarms(model: TrainedModel, known: dict[str, list[Answer]], rare: LabelTable) -> list[str]:
    """Rows of Markdown: the share of fields of unseen plates that are said to be unlike."""
    rows: list[list[object]] = []
    for name, found in (("30-80 %", known), ("5-30 %", by_class(model, rare))):
        every = [one for own in found.values() for one in own]
        reasons = pd.Series([one.reason for one in every if one.is_unlike], dtype=str).value_counts()
        rows.append([name, len(every), float(np.mean([one.is_unlike for one in every])),
                     "; ".join(f"{reason} ({count})" for reason, count in reasons.items())])  # fmt: skip
    return record.table(["unseen plates, cells affected", "fields", "false alarms", "said"], rows)


def other_classes(data: Path, work: Path, per_class: int) -> LabelTable:
    """Compose fields of MitoCheck's other classes, once; their labels are the classes in whose place they stand."""
    cells, out = work / "other_cells", work / f"other-{per_class}"
    if (out / "labels.csv").exists():
        return mil.read_labels(out / "labels.csv")
    cells.mkdir(parents=True, exist_ok=True)
    table = pd.read_csv(data / "mitocheck" / "labels.csv")
    label = table["label"]
    table["label"] = label.map({**OTHER_CLASSES, "Interphase": "Interphase"}).fillna("known class")
    table.to_csv(cells / "labels.csv", index=False)
    (cells / "cells.npz").write_bytes((data / "mitocheck" / "cells.npz").read_bytes())
    return compose(data, out, per_class, AFFECTED, SPLIT, cells)


def unseen(model: TrainedModel, known: dict[str, list[Answer]], others: LabelTable) -> list[str]:
    """Rows of Markdown: how well fields and wells of unseen phenotypes are told from those of known classes."""
    found = by_class(model, others)
    named = {name: found[place] for name, place in OTHER_CLASSES.items()}
    rows = [[name, *separation(list(known.values()), [own])] for name, own in named.items()]
    rows.append(["all", *separation(list(known.values()), list(named.values()))])
    return record.table(["unseen phenotype", *SEPARATION], rows)


SEPARATION = ["AUROC, fields", "AUROC, wells of four", "said to be unlike"]


def separation(known: list[list[Answer]], new: list[list[Answer]]) -> list[float]:
    """AUROC of fields and of wells, and the share of new fields that is said to be unlike; one list a class."""
    found = [auroc(*(np.concatenate([grouped(own, size) for own in part]) for part in (known, new)))
             for size in (1, FIELDS_OF_A_WELL)]  # fmt: skip
    return [*found, float(np.mean([one.is_unlike for own in new for one in own]))]


def grouped(own: list[Answer], size: int) -> np.ndarray:
    """Mean logarithm of `unlike` over groups of fields of one class, (groups,); a last group that is not full is left.

    A well is four fields of one class: real wells are not in the data.
    """
    values = np.log(np.array([one.unlike for one in own]))
    whole = len(values) // size * size
    return values[:whole].reshape(-1, size).mean(1)


def auroc(known: np.ndarray, new: np.ndarray) -> float:
    """Area under the curve of telling new values from known ones; not a number without either."""
    if not len(known) or not len(new):
        return float("nan")
    return float(roc_auc_score([0] * len(known) + [1] * len(new), [*known, *new]))


if __name__ == "__main__":
    main()
