"""Whether the objects of a result are cells: how many there are for each true cell, and the share that is affected.

    python -m benchmarks.accuracy.counts --data FOLDER [--model nuclei] [--per-class 8] [--record]

FOLDER holds `compose_fields.py` and `mitocheck/`. Fields are composed of real nuclei of validation plates, 10-80 % of
the cells affected, and classified on the command line, as a user does. From `predictions.csv`:

* objects per true cell: the column `cells`, over the number of cells that were placed; the mean over the fields of each
  class, and how far single fields are off
* share of affected cells: the column `share NAME` of the field's own class, against the share of the placed cells that
  show it: Pearson correlation over the fields of the class, mean difference, and the same over all fields. For the
  background class the share of cells of any other class stands instead, which should be 0

The placed cells are those of the composition; a few of them overlap, so that 1.00 cannot quite be reached.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

import napari_milcnn as mil
from benchmarks import record
from benchmarks.accuracy.nuclei_fields import BACKGROUND, compose
from napari_milcnn.schema import CELLS, share_column

AFFECTED = (0.1, 0.8)


def main() -> None:
    """Compose the fields, classify them, compare the counts with the truth, print and record."""
    args = arguments()
    model = mil.load_model(args.model)
    out = args.work / f"validation-{args.per_class}"
    if not (out / "labels.csv").exists():
        compose(args.data, out, args.per_class, AFFECTED)
    rows = joined(pd.read_csv(out / "labels.csv"), predictions(args.model, out / "images"))
    head = f"Model {model.card.name}, sha256 {model.digest[:12]}; {len(rows)} fields, 10-80 % of cells affected\n"
    record.report("Cells and shares", [head, *lines(rows)], keep=args.record)


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", default="nuclei")
    parser.add_argument("--per-class", type=int, default=8, help="fields a class")
    parser.add_argument("--work", type=Path, default=Path("build/counts"), help="composed fields are kept here")
    parser.add_argument("--record", action="store_true", help="keep in RESULTS.md")
    return parser.parse_args()


def predictions(model: str, images: Path) -> pd.DataFrame:
    """Classify a folder on the command line and read its predictions.csv."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            [sys.executable, "-m", "napari_milcnn", "classify", str(images), "--model", model, "--out", folder],
            check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        return pd.read_csv(Path(folder) / "predictions.csv")


def joined(truth: pd.DataFrame, found: pd.DataFrame) -> pd.DataFrame:
    """Join truth and predictions by the names of their files: label, ratio, placed and found share of each field."""
    truth, found = (table.set_index(table["file"].map(lambda file: Path(str(file)).name)) for table in (truth, found))
    rows = truth[["label", "n_cells", "n_target"]].join(found.drop(columns="label", errors="ignore"), how="inner")
    own = [row[share_column(row["label"])] for _, row in rows.iterrows()]
    background = rows["label"] == BACKGROUND
    return pd.DataFrame({
        "label": rows["label"],
        "ratio": rows[CELLS] / rows["n_cells"],
        "placed": np.where(background, 0.0, rows["n_target"] / rows["n_cells"]),
        "found": np.where(background, 1 - np.array(own), own),
    })  # fmt: skip


def lines(rows: pd.DataFrame) -> list[str]:
    """Rows of Markdown: each class, then all."""
    parts = [*rows.groupby("label"), ("all", rows)]
    body: list[list[object]] = [[name, len(own), *figures(own)] for name, own in parts]
    return record.table(["class", "fields", "objects per true cell", "farthest field", "affected, placed",
                         "affected, found", "correlation"], body)  # fmt: skip


def figures(own: pd.DataFrame) -> list[float]:
    """Ratio, the ratio farthest from 1, mean shares, and the correlation of the shares (not a number: all alike)."""
    farthest = float(own["ratio"].iloc[int((own["ratio"] - 1).abs().argmax())])
    known = own.dropna()
    varies = len(known) > 2 and known["placed"].std() > 0 and known["found"].std() > 0
    correlation = float(np.corrcoef(known["placed"], known["found"])[0, 1]) if varies else float("nan")
    return [float(own["ratio"].mean()), farthest, float(own["placed"].mean()), float(own["found"].mean()), correlation]


if __name__ == "__main__":
    main()
