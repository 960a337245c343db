"""Accuracy of a model of nuclear phenotypes on fields that another microscope might have taken.

    python -m benchmarks.acquisition.shifts --data FOLDER [--model nuclei] [--per-class 8] [--record]
    python -m benchmarks.acquisition.shifts --data FOLDER --split select    to choose by
    python -m benchmarks.acquisition.shifts --data FOLDER --card M.zip      writes the table on the card of M.zip

FOLDER holds `compose_fields.py` and `mitocheck/`. Fields are composed of real nuclei (30-80 % of cells affected) and
changed in memory, one change or two at a time (`changes.py`); nothing is said to the model about the change, and the
fields have no pixel size. Reported for each change: accuracy, and the mean of the highest score over the fields that
are classified wrongly ('score when wrong': a model that does not know should not be sure).

For the changes of size also: the relative size of the objects, measured over all fields together (`mil.relative_size`),
the accuracy when it is given (`relative_size`) where it is more than 10 % off, and in how many fields the program
itself says that it should be.

Beside it the peer (hand-made features and a random forest, `benchmarks/peers.py`), trained on unchanged fields of
training plates: on intensities as they are, and on images that are each standardised by their median and their 99.5th
percentile. Its features take most of the time; `--no-peer` leaves it out.

`--split select` takes the plates that were held back when the shipped model was trained (`tools/make_samples.py`): what
is chosen is chosen on them, and `validation`, the default, is for the report. Composed fields are kept in --work.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import tifffile
import torch

import napari_milcnn as mil
from benchmarks import record
from benchmarks.accuracy.nuclei_fields import compose
from benchmarks.acquisition.changes import CHANGES, SIZES, Image, changed
from benchmarks.peers import forest, image_features
from napari_milcnn.inference.devices import keep_freed_memory
from napari_milcnn.inference.model_input import TOLERATED_PIXEL_SIZE
from napari_milcnn.inference.predict import Classifier
from napari_milcnn.labels.table import LabelTable
from napari_milcnn.model.trained_model import TrainedModel
from tools.make_samples import hold_plates

AFFECTED = (0.3, 0.8)
SIZED = ("none", "size x0.8", "size x1.25", *SIZES)
"""Changes under which the relative size is measured."""
PEER_FIELDS = 40
"""Training fields a class of the peer."""
PLATES = {"validation": "validation plates", "select": "held training plates", "train": "training plates"}


def main() -> None:
    """Compose the fields, change them, classify them, print and record."""
    args = arguments()
    keep_freed_memory()
    model = mil.load_model(args.card or args.model)
    table = composed(args.data, args.work, args.split, args.per_class, tuple(args.affected))
    columns: dict[str, list[object]] = {"change": [*args.changes]}
    found = [scored(model, table, name) for name in args.changes]
    columns["accuracy"] = [accuracy for accuracy, _, _ in found]
    columns["score when wrong"] = [score for _, score, _ in found]
    columns |= at_measured_sizes(model, table, args.changes, [share for _, _, share in found])
    if args.peer:
        columns |= peers(args.data, args.work, table, args.changes, args.workers)
    head = (f"Model {model.card.name}, sha256 {model.digest[:12]}; {len(table.images)} fields of "
            f"{PLATES[args.split]}, {args.affected[0]:.0%} to {args.affected[1]:.0%} of cells affected\n")  # fmt: skip
    rows = [list(row) for row in zip(*columns.values(), strict=True)]
    title = "Other microscopes" if args.split == "validation" else f"Other microscopes: {PLATES[args.split]}"
    record.report(title, [head, *record.table([*columns], rows)], keep=args.record)
    if args.card:
        figures = {f"accuracy, {name}, {PLATES[args.split]}": accuracy
                   for name, (accuracy, _, _) in zip(args.changes, found, strict=True)}  # fmt: skip
        model.with_card(metrics=model.card.metrics | figures).save(args.card)


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", default="nuclei")
    parser.add_argument("--per-class", type=int, default=8, help="fields a class")
    parser.add_argument("--affected", type=float, nargs=2, default=AFFECTED, help="share of cells affected")
    parser.add_argument("--split", choices=PLATES, default="validation")
    parser.add_argument("--changes", nargs="+", choices=CHANGES, default=[*CHANGES], metavar="CHANGE",
                        help="some of the changes; all by default")  # fmt: skip
    parser.add_argument("--peer", action=argparse.BooleanOptionalAction, default=True, help="hand-made features beside")
    parser.add_argument("--workers", type=int, default=2, help="processes for the features of the peer")
    parser.add_argument("--work", type=Path, default=Path("build/shifts"), help="composed fields are kept here")
    parser.add_argument("--record", action="store_true", help="keep in RESULTS.md")
    parser.add_argument("--card", type=Path, metavar="M.zip", help="score this model file, and write it on its card")
    return parser.parse_args()


def composed(
    data: Path, work: Path, split: str, per_class: int, affected: tuple[float, float] = AFFECTED
) -> LabelTable:
    """Compose fields, once, and read their table; `select` are the plates held back in training the shipped model."""
    cells = data / "mitocheck"
    if split == "select":
        cells = work / "cells"
        hold_plates(data / "mitocheck", cells)
    out = work / f"{split}-{per_class}-{affected[0]:g}-{affected[1]:g}"
    if (out / "labels.csv").exists():
        return mil.read_labels(out / "labels.csv")
    return compose(data, out, per_class, affected, split, cells)


def at_measured_sizes(
    model: TrainedModel, table: LabelTable, names: list[str], proposed: list[float]
) -> dict[str, list[object]]:
    """Relative size, accuracy at it, and share of fields where it is proposed: column -> a value for each change."""
    rows = []
    for name, share in zip(names, proposed, strict=True):
        if name not in SIZED:
            rows.append(["", "", ""])
            continue
        fields = (mil.open_image(pixels, axes="YX") for pixels in changed_fields(table, name))
        size = mil.relative_size(model, fields)
        given = size if abs(size - 1) > TOLERATED_PIXEL_SIZE else None
        rows.append([size, scored(model, table, name, given)[0], share])
    titles = ("relative size, measured", "accuracy at it", "fields where it is proposed")
    return {title: list(values) for title, values in zip(titles, zip(*rows, strict=True), strict=True)}


def changed_fields(table: LabelTable, name: str) -> Iterator[Image]:
    """Yield the fields of a table under a change."""
    return (changed(tifffile.imread(row.file), name, number) for number, row in enumerate(table.images))


def scored(
    model: TrainedModel, table: LabelTable, name: str, relative_size: float | None = None
) -> tuple[float, float, float]:
    """Accuracy under a change, the mean of the highest score where it is wrong, and how often a size is proposed.

    The score is not a number where it is never wrong.
    """
    classifier = Classifier(model, relative_size=relative_size)
    right, scores, proposed = [], [], []
    for row, pixels in zip(table.images, changed_fields(table, name), strict=True):
        found = classifier.classify(mil.open_image(pixels, axes="YX"))
        right.append(found.top[0] in row.labels)
        scores.append(float(found.scores.max()))
        proposed.append(any("give relative_size" in note for note in found.notes))
    wrong = np.array(scores)[~np.array(right)]
    return float(np.mean(right)), float(wrong.mean()) if len(wrong) else float("nan"), float(np.mean(proposed))


def peers(data: Path, work: Path, table: LabelTable, names: list[str], workers: int) -> dict[str, list[object]]:
    """Accuracy of both peers under each change: column -> one value for each change."""
    train = composed(data, work, "train", PEER_FIELDS)
    files, labels = [row.file for row in table.images], np.array([row.labels[0] for row in table.images])
    learned = [row.labels[0] for row in train.images]
    jobs = [(row.file, "none", number) for number, row in enumerate(train.images)]
    jobs += [(file, name, number) for name in names for number, file in enumerate(files)]
    with ProcessPoolExecutor(workers, get_context("spawn"), torch.set_num_threads, (1,)) as pool:
        both = np.array(list(pool.map(both_features, jobs, chunksize=8)))  # (images, 2, features)
    columns: dict[str, list[object]] = {}
    for kind, title in enumerate(("hand-made features", "hand-made, standardised")):
        peer = forest(both[: len(learned), kind], learned)
        tops = peer.predict(both[len(learned) :, kind]).reshape(len(names), len(files))
        columns[title] = [float(share) for share in (tops == labels).mean(1)]
    return columns


def both_features(job: tuple[Path, str, int]) -> np.ndarray:
    """Hand-made features of a changed field, as it is and standardised, (2, features)."""
    file, name, number = job
    image = changed(tifffile.imread(file), name, number)
    return np.stack([image_features(image), image_features(standardised(image))])


def standardised(image: Image) -> np.ndarray:
    """Take off the image's median, and divide by what its 99.5th percentile lies above it: float32 (Y, X)."""
    low, high = np.percentile(image, (50, 99.5))
    return (image.astype(np.float32) - np.float32(low)) / np.float32(max(high - low, 1e-6))


if __name__ == "__main__":
    main()
