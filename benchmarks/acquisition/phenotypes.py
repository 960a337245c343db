"""Whether single cells betray a phenotype that a model does not know, where whole images do not.

    python -m benchmarks.acquisition.phenotypes --data FOLDER [--model nuclei] [--record]
    python -m benchmarks.acquisition.phenotypes --data FOLDER --left-out Hole=without_hole.zip Metaphase=without_m.zip

FOLDER holds `compose_fields.py` and `mitocheck/`. Every object of a field is measured (`MEASURED`) and classified by
itself. A field of known classes is a mixture of cells of the reference class and of one other; three ways to say how
far a field is from that, each learned from fields of training plates:

* `mean`: Mahalanobis distance of the mean over its cells (Ledoit and Wolf's covariance)
* `cells`: for the cells that are taken for a class, how far their mean is from that of the class. The difference is
  measured in the main directions of the spread within classes, against 1 / n + `_ALIKE`, since n cells of one field are
  not n independent cells; the sum over the classes without the reference class
* `mixture`: how unlikely the shares of the classes are (twice the logarithm of the likelihood ratio) for the mixture of
  the reference and one class that fits best

`both` is the logarithm of `cells` and half of that of `mixture`. Reported on unseen plates (30-80 % of cells affected):
AUROC for fields and for wells of four, and how many fields of a phenotype are found where 3 % of known ones are
flagged. MitoCheck's seven other classes, and each known class in turn as if it were not known: its training fields are
left out and no cell is taken for it. The network has learned it. With `--left-out NAME=MODEL` it has not: for each
class a model that was trained without it, and a row of how its fields differ from those of the classes that the model
knows, by `unlike` of whole images too. Directions, weights and measurements were chosen on training plates, where
MitoCheck's other classes were looked at too.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from scipy import ndimage
from skimage.measure import regionprops
from skimage.measure._regionprops import RegionProperties
from sklearn.covariance import LedoitWolf, ledoit_wolf

import napari_milcnn as mil
from benchmarks import record
from benchmarks.acquisition.kinds import OTHER_CLASSES
from benchmarks.acquisition.shifts import composed
from benchmarks.acquisition.unlike import FIELDS_OF_A_WELL, auroc, other_classes
from napari_milcnn.inference.cells import classify_cells
from napari_milcnn.inference.evidence import EvidenceMaker
from napari_milcnn.labels.table import LabelTable
from napari_milcnn.schema import instance_column

MEASURED = ("area", "eccentricity", "length", "width", "thickness", "mean", "spread", "skewness", "kurtosis", "ring",
            "contrast", "grain 0.7", "grain 1.4", "grain 2.8", "grain 5.6", "gradient", "relative gradient", "rim",
            "middle", "core", "shift")  # fmt: skip
"""Measurements of an object: size and shape, intensities, structure at four scales, where its brightness lies."""
WAYS = ("mean", "cells", "mixture", "both")
FALSE_ALARMS = 0.03
_SCALES = (0.7, 1.4, 2.8, 5.6)
_ALIKE = 0.03
"""Share of the variance that the cells of one field have in common."""
_DIRECTIONS = 6
_SOFTNESS = 4.0
"""Divisor of the logits before they become shares of classes: a network is surer than it is right."""
_FAR = 6.0
_TINY = 1e-6


@dataclass(frozen=True)
class Cells:
    """The cells of many fields.

    Attributes
    ----------
    measured : ndarray
        `MEASURED` of each cell, (cells, values).
    logits : ndarray
        Of each class for each cell, (cells, classes).
    field : ndarray
        Number of each cell's field, (cells,).
    labels : ndarray of str
        Phenotype of each field, (fields,).
    """

    measured: np.ndarray
    logits: np.ndarray
    field: np.ndarray
    labels: np.ndarray

    def sums(self, values: np.ndarray, chosen: np.ndarray | None = None) -> np.ndarray:
        """Add up values (cells, ...) over the cells of each field, (fields, ...)."""
        total = np.zeros((len(self.labels), *values.shape[1:]))
        some = slice(None) if chosen is None else chosen
        np.add.at(total, self.field[some], values[some])
        return total


def main() -> None:
    """Measure the cells, compare the fields, print and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", default="nuclei")
    parser.add_argument("--per-class", type=int, default=8, help="fields a class and phenotype, four a well")
    parser.add_argument("--work", type=Path, default=Path("build/unlike"), help="composed fields are kept here")
    parser.add_argument("--record", action="store_true", help="keep in RESULTS.md")
    parser.add_argument("--left-out", nargs="+", default=[], type=lambda text: tuple(text.split("=", 1)),
                        metavar="NAME=MODEL", help="classes, each with a model trained without it")  # fmt: skip
    args = parser.parse_args()
    tables = [composed(args.data, args.work, split, args.per_class) for split in ("train", "validation")]
    if args.left_out:
        rows = [left_out(name, file, *tables) for name, file in args.left_out]
        rows.append(["mean", *(float(value) for value in np.mean([row[1:] for row in rows], 0))])
        lines = record.table(["class left out", "unlike, fields", "unlike, wells", *COLUMNS], rows)
        record.report("Unseen phenotypes: classes left out of training", lines, keep=args.record)
        return
    maker = ready(args.model)
    learned, known = (measure(maker, table, {}) for table in tables)
    places = {place: name for name, place in OTHER_CLASSES.items()}
    others = measure(maker, other_classes(args.data, args.work, args.per_class), places)
    card = maker.model.card
    others = only(others, others.labels != card.reference)
    lines = [f"Model {card.name}, sha256 {maker.model.digest[:12]}\n",
             *unseen(card.classes, card.reference, learned, known, others), "",
             *hidden(card.classes, card.reference, learned, known)]  # fmt: skip
    record.report("Unseen phenotypes by single cells", lines, keep=args.record)


def ready(file: str) -> EvidenceMaker:
    """Load a model that has a reference class."""
    model = mil.load_model(file)
    if model.card.reference is None:
        sys.exit(f"{file} has no reference class; expected a model of classes beside a reference")
    return EvidenceMaker(model, kind="object")


def measure(maker: EvidenceMaker, table: LabelTable, names: dict[str, str]) -> Cells:
    """Measure and classify every object of the fields of a table; `names` gives their labels other names."""
    measured, logits, field = [], [], []
    for number, row in enumerate(table.images):
        with mil.open_image(row.file) as image:
            model_input = maker.classifier.model_input(image)
            objects, pixels = maker.foreground(model_input, 0), model_input.intensity(0).apply(image.plane(0))[0]
            p = classify_cells(maker.model, model_input, objects)
        rows = p[[instance_column(name) for name in maker.model.classes]].to_numpy(float).clip(1e-7, 1 - 1e-7)
        measured.append(measurements(pixels, objects))
        logits.append(np.log(rows / (1 - rows)))
        field.append(np.full(len(rows), number))
    labels = np.array([names.get(row.labels[0], row.labels[0]) for row in table.images])
    return Cells(np.concatenate(measured), np.concatenate(logits), np.concatenate(field), labels)


def measurements(pixels: np.ndarray, objects: np.ndarray) -> np.ndarray:
    """Measure each object of a label image (Y, X) on scaled intensities (Y, X): (objects, `MEASURED`)."""
    blurred = [pixels, *(ndimage.gaussian_filter(pixels, sigma) for sigma in _SCALES)]
    bands = [fine - coarse for fine, coarse in pairwise(blurred)]
    planes = np.stack([pixels, *bands, np.hypot(*np.gradient(blurred[1]))])
    return np.array([_measurements(planes, objects, one) for one in regionprops(objects)])


def _measurements(planes: np.ndarray, objects: np.ndarray, one: RegionProperties) -> list[float]:
    """Measure one object of `regionprops` on intensities, bands and gradient (planes, Y, X)."""
    y0, x0, y1, x1 = one.bbox
    window = (slice(max(0, y0 - 5), y1 + 5), slice(max(0, x0 - 5), x1 + 5))
    mask = objects[window] == one.label
    near = planes[(slice(None), *window)]
    depth = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    ring = ndimage.binary_dilation(mask, iterations=4) & ~ndimage.binary_dilation(mask)
    around = float(near[0][ring].mean()) if ring.any() else 0.0
    values, root = near[0][mask], float(np.sqrt(mask.sum()))
    mean, spread = float(values.mean()), float(values.std()) + _TINY
    z, share = (values - mean) / spread, depth[mask] / depth.max()
    zones = [z[(share > low) & (share <= high)] for low, high in ((0, 1 / 3), (1 / 3, 2 / 3), (2 / 3, 1))]
    weight = np.where(mask, np.maximum(near[0] - around, 0) + _TINY, 0)
    centre, bright = (np.array(ndimage.center_of_mass(of)) for of in (mask, weight))
    gradient = float(near[5][mask].mean())
    return [
        2 * np.log(root), one.eccentricity, np.log1p(one.axis_major_length),
        np.log1p(one.axis_minor_length), depth.max() / root, mean, np.log(spread),
        float((z**3).mean()), float((z**4).mean()), around, spread / (mean - around + 0.5),
        *(np.log(band[mask].std() / spread + 1e-3) for band in near[1:5]), np.log(gradient + 1e-3),
        np.log(gradient / spread + 1e-3), *(float(zone.mean()) if len(zone) else 0.0 for zone in zones),
        float(np.hypot(*(centre - bright))) / root,
    ]  # fmt: skip


class Known:
    """What the cells of known classes look like, learned from fields; some classes may be left out."""

    def __init__(self, classes: Sequence[str], reference: str, learned: Cells) -> None:
        every = tuple(classes)
        self.classes = [name for name in every if name in learned.labels]
        self.columns = [every.index(name) for name in self.classes]
        self.reference = self.classes.index(reference)
        self.middle = np.median(learned.measured, 0)
        self.scale = learned.measured.std(0) + _TINY
        z, taken = self._standardised(learned), self._taken(learned)
        self.means = np.stack([z[taken == c].mean(0) for c in range(len(self.classes))])
        within = np.mean([ledoit_wolf(z[taken == c] - self.means[c])[0] for c in range(len(self.classes))], 0)
        variances, axes = np.linalg.eigh(within)
        largest = np.argsort(-variances)[:_DIRECTIONS]
        self.axes = axes[:, largest] / np.sqrt(variances[largest] + 0.02 * variances.max())
        self.pure = self._pure(learned)
        self.cloud = LedoitWolf().fit(self._means(learned))

    def ways(self, cells: Cells) -> dict[str, np.ndarray]:
        """Return how far each field is from the known ones, in each of `WAYS`: logarithms, (fields,)."""
        mean = np.log(self.cloud.mahalanobis(self._means(cells)) + _TINY)
        own, mixture = np.log(self._difference(cells) + 0.1), np.log(self._unlikely(cells) + 1)
        return {"mean": mean, "cells": own, "mixture": mixture, "both": own + mixture / 2}

    def _standardised(self, cells: Cells) -> np.ndarray:
        return np.clip((cells.measured - self.middle) / self.scale, -_FAR, _FAR)

    def _taken(self, cells: Cells) -> np.ndarray:
        """Class that each cell is taken for, (cells,)."""
        return np.asarray(cells.logits[:, self.columns].argmax(1))

    def _means(self, cells: Cells) -> np.ndarray:
        return cells.sums(self._standardised(cells)) / cells.sums(np.ones(len(cells.field)))[:, None]

    def _difference(self, cells: Cells) -> np.ndarray:
        taken = self._taken(cells)
        z = (self._standardised(cells) - self.means[taken]) @ self.axes
        total = np.zeros(len(cells.labels))
        for c in range(len(self.classes)):
            if c != self.reference:
                count = cells.sums(np.ones(len(z)), taken == c)
                mean = cells.sums(z, taken == c) / np.maximum(count, 1)[:, None]
                total += np.where(count > 0, (mean**2).mean(1) / (1 / np.maximum(count, 1) + _ALIKE), 0)
        return total

    def _counts(self, cells: Cells) -> np.ndarray:
        """Soft counts of the classes in each field, (fields, classes)."""
        logits = cells.logits[:, self.columns] / _SOFTNESS
        shares = np.exp(logits - logits.max(1, keepdims=True))
        return cells.sums(shares / shares.sum(1, keepdims=True))

    def _pure(self, learned: Cells) -> np.ndarray:
        """Shares of the classes where every cell shows one class, (classes, classes).

        A field of a class has cells of the reference class too: as much of its shares is taken off as can be.
        """
        counts = self._counts(learned)
        mixed = np.stack([counts[learned.labels == name].sum(0) for name in self.classes])
        mixed /= mixed.sum(1, keepdims=True)
        reference = mixed[self.reference]
        rest = mixed - (mixed / reference).min(1, keepdims=True) * reference
        rest[self.reference] = reference
        return np.asarray(0.98 * rest / rest.sum(1, keepdims=True) + 0.02 / len(self.classes))

    def _unlikely(self, cells: Cells) -> np.ndarray:
        counts = np.maximum(self._counts(cells), _TINY)
        best = np.full(len(counts), np.inf)
        for own in self.pure:
            for share in np.linspace(0, 1, 26):
                expected = (1 - share) * self.pure[self.reference] + share * own
                ratio = counts / (expected * counts.sum(1, keepdims=True))
                best = np.minimum(best, 2 * (counts * np.log(ratio)).sum(1))
        return np.maximum(best, 0)


COLUMNS = [title for way in WAYS for title in (f"{way}, fields", f"{way}, wells")]


def unseen(classes: Sequence[str], reference: str, learned: Cells, known: Cells, others: Cells) -> list[str]:
    """Rows of Markdown: each phenotype that the model does not know, then all."""
    look = Known(classes, reference, learned)
    old, new = look.ways(known), look.ways(others)
    names = [*np.unique(others.labels)]
    rows = [[name, *aurocs(old, known.labels, new, others.labels, others.labels == name)] for name in names]
    rows.append(["all", *aurocs(old, known.labels, new, others.labels, np.full(len(others.labels), True))])
    limits = {way: np.quantile(old[way], 1 - FALSE_ALARMS) for way in WAYS}
    shares = "; ".join(f"{way} {float(np.mean(new[way] > limits[way])):.2f}" for way in WAYS)
    flagged = f"Share of their fields found at {FALSE_ALARMS:.0%} false alarms: {shares}."
    return [*record.table(["unseen phenotype", *COLUMNS], rows), "", flagged]


def hidden(classes: Sequence[str], reference: str, learned: Cells, known: Cells) -> list[str]:
    """Rows of Markdown: each known class as if it were not known, then the mean."""
    rows: list[list[object]] = []
    for name in classes:
        if name == reference or name not in known.labels:
            continue
        look = Known(classes, reference, only(learned, learned.labels != name))
        found, new = look.ways(known), known.labels == name
        old = {way: values[~new] for way, values in found.items()}
        rows.append([name, *aurocs(old, known.labels[~new], found, known.labels, new)])
    rows.append(["mean", *(float(value) for value in np.mean([row[1:] for row in rows], 0))])
    return record.table(["known class, hidden", *COLUMNS], rows)


def left_out(name: str, file: str, train: LabelTable, validation: LabelTable) -> list[object]:
    """Row of AUROCs of a class that a model was trained without, by `unlike` and by its cells."""
    maker = ready(file)
    card = maker.model.card
    if name in card.classes:
        sys.exit(f"{file} has the class {name}; expected a model that was trained without it")
    learned, every = measure(maker, train, {}), measure(maker, validation, {})
    look = Known(card.classes, str(card.reference), only(learned, np.isin(learned.labels, card.classes)))
    unlike = [maker.classifier.classify(row.file).unlike[0] for row in validation.images]
    found, new = {"unlike": np.log(np.array(unlike)), **look.ways(every)}, every.labels == name
    known = {way: values[~new] for way, values in found.items()}
    return [name, *aurocs(known, every.labels[~new], found, every.labels, new)]


def only(cells: Cells, fields: np.ndarray) -> Cells:
    """Return the cells of some fields, bool (fields,)."""
    kept = fields[cells.field]
    numbers = np.cumsum(fields) - 1
    return Cells(cells.measured[kept], cells.logits[kept], numbers[cells.field[kept]], cells.labels[fields])


def aurocs(
    old: dict[str, np.ndarray], old_labels: np.ndarray, new: dict[str, np.ndarray], labels: np.ndarray,
    chosen: np.ndarray,
) -> list[float]:  # fmt: skip
    """AUROC of the chosen new fields against the old ones, for fields and wells, in each way."""
    return [auroc(wells(old[way], old_labels, size), wells(new[way][chosen], labels[chosen], size))
            for way in old for size in (1, FIELDS_OF_A_WELL)]  # fmt: skip


def wells(values: np.ndarray, labels: np.ndarray, size: int) -> np.ndarray:
    """Mean over groups of fields of one phenotype, (groups,); a last group that is not full is left."""
    parts = [values[labels == name] for name in np.unique(labels)]
    return np.concatenate([own[: len(own) // size * size].reshape(-1, size).mean(1) for own in parts])


if __name__ == "__main__":
    main()
