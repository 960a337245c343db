"""How much the order of ReLU and max pool matters for guided Jacobian maps.

    python -m benchmarks.method.jacobian_order --data FOLDER [--model nuclei] [--record]

FOLDER holds `compose_fields.py` and `mitocheck/`. On fields of plates that the model never saw, the guided map of each
field's own class is compared between the paper's order (ReLU, then pool: `jacobian_maps`) and the order in which our
network computes (pool, then ReLU, with the rule applied behind each ReLU, as earlier versions did): the sum of the
absolute differences as a share of the map's sum, and the Dice coefficient of the two masks that Otsu's threshold gives.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from unittest import mock

import numpy as np
from torch import nn

import napari_milcnn as mil
from benchmarks import record
from benchmarks.accuracy.nuclei_fields import BACKGROUND, compose
from napari_milcnn.evaluation.localisation import dice
from napari_milcnn.model.trained_model import TrainedModel
from napari_milcnn.network import way_back


def main() -> None:
    """Compose the fields, compare, print and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", default="nuclei")
    parser.add_argument("--per-class", type=int, default=3, help="fields a class")
    parser.add_argument("--record", action="store_true")
    args = parser.parse_args()
    model = mil.load_model(args.model)
    with tempfile.TemporaryDirectory() as folder:
        table = compose(args.data, Path(folder) / "fields", args.per_class, (0.3, 0.8))
        rows = [row for row in table.images if row.labels != (BACKGROUND,)]
        found = np.array([differences(model, row.file, row.labels) for row in rows])
    lines = record.table(
        ["", "mean", "lowest", "highest"],
        [[name, float(column.mean()), float(column.min()), float(column.max())]
         for name, column in zip(("L1 difference", "Dice of the masks"), found.T, strict=True)],
    )  # fmt: skip
    head = f"Model {model.card.name}, sha256 {model.digest[:12]}; {len(rows)} fields, guided rule\n"
    record.report("Jacobian maps: the paper's order against ours", [head, *lines], keep=args.record)


def differences(model: TrainedModel, file: Path, labels: Sequence[str]) -> tuple[float, float]:
    """Return the share by which the guided maps of the two orders differ, and the Dice of their masks."""
    options = {"kind": "jacobian", "device": "cpu", "precision": "float32"}
    paper = mil.evidence(model, file, list(labels), **options)
    with mock.patch.object(way_back, "places_below_relus", behind_relus):
        other = mil.evidence(model, file, list(labels), prediction=paper.prediction, **options)
    masks = [mil.segment(one, threshold="otsu", present=0.0).labels[0] > 0 for one in (paper, other)]
    return float(np.abs(paper.maps - other.maps).sum() / paper.maps.sum()), dice(*masks)


def behind_relus(layers: Sequence[nn.Module]) -> set[int]:
    """Find the ReLUs, whether or not a pool stands before them."""
    return {place for place, layer in enumerate(layers) if isinstance(layer, nn.ReLU)}


if __name__ == "__main__":
    main()
