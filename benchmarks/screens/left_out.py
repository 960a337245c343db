"""Whether wells of a class that was left out of the training lead the list "like nothing known" of a simulated screen.

    python -m benchmarks.screens.left_out [--classes ER punctate] [--seeds 1 2] [--work FOLDER] [--record]

Two models are trained on simulated yeast, each without three of the eight localisations (`WITHOUT`). For each of these
classes and each seed, the screen is a plate of 384 wells, as `napari-milcnn simulate --plate` makes them: 32 negative
and 16 positive controls (nucleus), and compounds at a dose that does nothing and at one that moves the protein in 50
to 95 % of the cells. The class stays in 3 % of the wells; other wells of it, and all wells of the two others that the
model has not seen, are taken away; a plate with fewer wells of the class is left out. The screen runs as users run it,
with its layout, and the first ten wells of its likeness.csv are read.

Reported: how well the model knows its own classes (accuracy of wells of these), precision at 10, how many of the
planted wells are among as many first ranks, how much of the first cluster they are, and precision at 10 where the
layout names four wells of each known class as positive controls. Models, plates and screens are kept in --work, and
the same call goes on from there.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd

import napari_milcnn as mil
from benchmarks.record import report, table
from napari_milcnn.images.open import ImageReading
from napari_milcnn.model.trained_model import TrainedModel
from napari_milcnn.options import make_options
from napari_milcnn.screens.features import FEATURES
from napari_milcnn.screens.likeness import CLUSTER, LIKENESS_TABLE, unexplained_wells
from napari_milcnn.simulation.options import PlateOptions, square_field
from napari_milcnn.simulation.plate import LAYOUT, REFERENCE, TRUTH, simulate_plates
from napari_milcnn.simulation.screen import simulate_screen

WITHOUT = (("ER", "punctate", "nucleolus"), ("cell periphery", "mitochondria", "vacuole"))
LEFT_OUT = tuple(name for names in WITHOUT for name in names)
PLATE = {"wells": 384, "doses": 2, "active": 0.75}
TRAINING = {"epochs": 6, "patch": 192, "batch_size": 8, "learning_rate": 4e-3}
WIDTHS = (8, 16, 16, 32, 32, 64)
PLANTED, MARKED = 12, 4
SIDE, FIELDS = 192, 30


def main() -> None:
    """Train, simulate, screen, read the lists and record."""
    args = arguments()
    rows: list[list[object]] = []
    for name in args.classes:
        unknown = next(names for names in WITHOUT if name in names)
        model = trained_without(unknown, args.work, args.seed, args.device)
        for seed in args.seeds:
            images, tag = plate(args.work, seed, args.sites), f"{seed}-{args.sites}"
            known = shows(pd.read_csv(images / TRUTH).set_index("well"))
            if (known == name).sum() >= PLANTED:
                rows.append([name, seed, *read(screened(model, name, images, known, args.work, tag), known, name)])
            sys.stderr.write(f"{rows[-1]}\n" if (known == name).sum() >= PLANTED else f"too few {name} on {seed}\n")
    rows.append(["mean", "", *(float(np.mean([row[i] for row in rows])) for i in range(2, 7))])
    header = ["left out", "seed of the plate", "accuracy of known wells", "precision at 10", "of the first ranks",
              "share of cluster 1", f"precision at 10 with {MARKED} positive controls of each class"]  # fmt: skip
    head = (f"{PLANTED} planted wells of 384, {args.sites} fields of {SIDE} px a well; model of seed {args.seed}, "
            f"{FIELDS} fields a class\n")  # fmt: skip
    report("A class left out of training, planted into simulated screens", [head, *table(header, rows)],
           keep=args.record)  # fmt: skip


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classes", nargs="+", choices=LEFT_OUT, default=LEFT_OUT)
    parser.add_argument("--seeds", nargs="+", type=int, default=(1, 2), help="of the plates")
    parser.add_argument("--sites", type=int, default=6, help="fields of a well, each of about eight cells")
    parser.add_argument("--seed", type=int, default=0, help="of the training images and of the training")
    parser.add_argument("--work", type=Path, default=Path("build/left_out"), help="for models, plates and screens")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--record", action="store_true", help="keep in RESULTS.md")
    return parser.parse_args()


def trained_without(names: tuple[str, ...], work: Path, seed: int, device: str) -> TrainedModel:
    """Train a model on all localisations but some, once."""
    folder, file = work / f"training-{seed}", work / f"without-{LEFT_OUT.index(names[0])}-{seed}.zip"
    if file.exists():
        return mil.load_model(file)
    if not (folder / "labels.csv").exists():
        shutil.rmtree(folder, ignore_errors=True)
        for _ in simulate_screen(folder, fields_per_class=FIELDS, seed=seed, options=square_field(SIDE, multi_label=0)):
            pass
    rows = pd.read_csv(folder / "labels.csv")
    known = folder / f"without-{LEFT_OUT.index(names[0])}.csv"
    rows[~rows["label"].isin(names)].to_csv(known, index=False)
    labels = mil.read_labels(known)
    with mil.open_image(labels.images[0].file) as first:
        model = mil.new_model(labels.classes, first.channels, pixel_size=first.pixel_size, seed=seed, widths=WIDTHS,
                              reference=REFERENCE)  # fmt: skip
    for step in mil.train(model, labels, **TRAINING, seed=seed, device=device):
        sys.stderr.write(f"without {names}: epoch {step.epoch}, loss {step.loss:.3f}, {step.seconds:.0f} s\n")
    step.best.save(file)
    return step.best


def plate(work: Path, seed: int, sites: int) -> Path:
    """Simulate a plate, once."""
    folder = work / f"plate-{seed}-{sites}"
    if not (folder / LAYOUT).exists():
        shutil.rmtree(folder, ignore_errors=True)
        on_plate = make_options(PlateOptions, {**PLATE, "sites": sites})
        steps = simulate_plates(folder, plate=on_plate, seed=seed, options=square_field(SIDE))
        for number, _ in enumerate(steps, start=1):
            if number % 200 == 0:
                sys.stderr.write(f"plate {seed}: {number} fields simulated\n")
    return folder


def shows(truth: pd.DataFrame) -> pd.Series:
    """Return what each well shows: its target where half of the cells respond, the reference where hardly any do."""
    strong, weak = truth["share"] > 0.3, truth["share"] < 0.05
    return truth["target"].where(strong, REFERENCE).where(strong | weak, "")


def screened(model: TrainedModel, name: str, images: Path, known: pd.Series, work: Path, tag: str) -> Path:
    """Run the screen without the wells that are taken away, and return its folder."""
    own = known.index[known == name]
    away = {*own[PLANTED:], *known.index[known.isin(LEFT_OUT) & ~known.isin([name, *model.classes])]}
    source, out = work / f"source-{name.replace(' ', '-')}-{tag}", work / f"screen-{name.replace(' ', '-')}-{tag}"
    for file in sorted(images.rglob("*.tif")):
        if file.name.split("_")[1] not in away:
            (source / file.relative_to(images)).parent.mkdir(parents=True, exist_ok=True)
            if not (source / file.relative_to(images)).exists():
                (source / file.relative_to(images)).hardlink_to(file)
    for _ in mil.screen(model, source, out, layout=images / LAYOUT, cells=False, resume=True,
                        reading=ImageReading(channels=("GFP", "RFP"))):  # fmt: skip
        pass
    return out


def read(out: Path, known: pd.Series, name: str) -> list[object]:
    """Accuracy of wells of known classes, precision at 10 and beside it, of the list of a screen."""
    listed = pd.read_csv(out / LIKENESS_TABLE)
    truth = known.reindex(listed["well"]).to_numpy()
    wells = pd.read_csv(out / "wells.csv")
    what = known.reindex(wells["well"]).to_numpy()
    judged = (what != name) & (what != "")
    first = truth[listed[CLUSTER] == 1]
    marked = unexplained_wells(with_controls(pd.read_parquet(out / FEATURES), known, name))["well"].head(10)
    return [float((wells["top"].to_numpy() == what)[judged].mean()), float((truth[:10] == name).mean()),
            float((truth[:PLANTED] == name).mean()), float((first == name).mean()) if len(first) else 0.0,
            float((known.reindex(marked) == name).mean())]  # fmt: skip


def with_controls(table: pd.DataFrame, known: pd.Series, name: str) -> pd.DataFrame:
    """Mark the first wells of each known class as positive controls."""
    truth = known.reindex(table["well"]).set_axis(table.index)
    is_marked = ~truth.isin([name, REFERENCE, ""]) & (truth.groupby(truth).cumcount() < MARKED)
    return table.assign(control=table["control"].mask(is_marked, "positive"), label=truth.where(is_marked, ""))


if __name__ == "__main__":
    main()
