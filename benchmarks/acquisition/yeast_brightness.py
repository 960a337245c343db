"""Yeast whose brightness differs tenfold between fields, against the same yeast in uniform light.

    python -m benchmarks.acquisition.yeast_brightness [--work FOLDER] [--options JSON] [--record]

Two screens of the same cells are simulated, three fields of 256 px for each of 96 proteins, eight localisations. In one
all fields have the same exposure, in the other the exposure of each channel of each field is drawn between 1 / sqrt(10)
and sqrt(10) of it, evenly in its logarithm, and the shot noise with it. A network learns on each screen, in the
division by proteins of `benchmarks/accuracy/yeast.py`, with the same options and seeds, and is judged on test fields of
its own screen: accuracy of fields and proteins with one localisation, mean average precision. The peer is hand-made
features of objects of each channel (`benchmarks/peers.py`) and a random forest.

`--options` goes to `train`, in place of the epochs, patch and batch size of the plan: '{"epochs": 30}'. `--model` goes
to `new_model`, beside the widths.

Budget: ten minutes on two cores (`--workers 2`, one thread each). Screens and finished runs are kept in --work, and the
same call goes on from there. `--quick` shows in under a minute that everything runs.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import napari_milcnn as mil
from benchmarks.accuracy.yeast import by_protein, divided, precisions, single_accuracy
from benchmarks.peers import forest, image_features
from benchmarks.record import report, table
from benchmarks.runs import Finished, run_all, scores
from napari_milcnn.images.stack import PlaneIndex
from napari_milcnn.images.write import write_ome_tiff
from napari_milcnn.simulation.acquisition import NEUTRAL, Acquisition
from napari_milcnn.simulation.cell import CHANNELS, PIXEL_SIZE
from napari_milcnn.simulation.localisations import LOCALISATIONS
from napari_milcnn.simulation.microscope import draw_field, draw_protein
from napari_milcnn.simulation.options import SimulationOptions

LIGHTS = ("uniform", "tenfold")
FIELD = SimulationOptions(size=(256, 256), cells=(11, 19))


@dataclass(frozen=True)
class Plan:
    """The screens and the training."""

    proteins: int = 12
    fields: int = 3
    classes: tuple[str, ...] = LOCALISATIONS
    seeds: tuple[int, ...] = (0,)
    options: tuple[tuple[str, Any], ...] = (("epochs", 30), ("patch", 256), ("batch_size", 8))
    model: tuple[tuple[str, Any], ...] = ()
    widths: tuple[int, ...] = (16, 16, 32, 64, 64, 128)


QUICK = Plan(proteins=5, fields=1, classes=("nucleus", "cell periphery", "punctate"), widths=(8, 8, 8, 16, 16, 32),
             options=(("epochs", 1), ("patch", 256), ("batch_size", 8)))  # fmt: skip


def main() -> None:
    """Simulate what is missing, train what is not done, judge and record."""
    args = arguments()
    plan = QUICK if args.quick else Plan()
    options = tuple({**dict(plan.options), **args.options}.items())
    plan = replace(plan, options=options, model=tuple(args.model.items()))
    work = args.work / ("quick" if args.quick else "full")
    finished = Finished(work, asdict(plan))
    for light in LIGHTS:
        simulated(work / light, light, plan)
    wanted = [{"light": light, "seed": seed} for light in LIGHTS for seed in plan.seeds]
    rows = run_all(finished, wanted, one_run, args.workers, folder=work, plan=plan, device=args.device)
    report("Yeast, brightness differing tenfold between fields", lines(rows), keep=args.record)


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("build/yeast_brightness"), help="for finished runs")
    parser.add_argument("--options", type=json.loads, default={}, metavar="JSON", help="further options of train")
    parser.add_argument("--model", type=json.loads, default={}, metavar="JSON", help="further options of new_model")
    parser.add_argument("--workers", type=int, default=2, help="processes, of one thread each")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--quick", action="store_true", help="under a minute, to see that it runs")
    parser.add_argument("--record", action="store_true", help="keep in RESULTS.md")
    return parser.parse_args()


def simulated(screen: Path, light: str, plan: Plan) -> None:
    """Simulate a screen in one light, once, and divide it by proteins (`divided.csv`)."""
    if (screen / "divided.csv").exists():
        return
    shutil.rmtree(screen, ignore_errors=True)
    rows = []
    for place, name in enumerate(plan.classes):
        for protein in range(plan.proteins):
            drawn = draw_protein((name,), FIELD, np.random.default_rng([place, protein, 0]))
            for number in range(1, plan.fields + 1):
                rng = np.random.default_rng([place, protein, number])
                acquisition = (
                    exposure(np.random.default_rng([place, protein, number, 1])) if light != "uniform" else NEUTRAL
                )
                image = draw_field(drawn, FIELD, rng, acquisition).image
                file = f"images/{name.replace(' ', '-')}-{protein}_{number}.ome.tif"
                write_ome_tiff(screen / file, [PlaneIndex(0, 0, 0)], image[np.newaxis], CHANNELS, PIXEL_SIZE, {})
                rows.append({"file": file, "label": name, "group": f"{name}-{protein}"})
    pd.DataFrame(rows).to_csv(screen / "labels.csv", index=False)
    divided(screen / "labels.csv", screen)


def exposure(rng: np.random.Generator) -> Acquisition:
    """Draw the exposure of both channels of a field from a tenfold range."""
    gfp, rfp = 10 ** rng.uniform(-0.5, 0.5, 2)
    return Acquisition(gfp_exposure=float(gfp), rfp_exposure=float(rfp))


def one_run(light: str, seed: int, folder: Path, plan: Plan, device: str) -> list[dict[str, Any]]:
    """Train a network on one screen and score its test fields: a row for each, with a column for each class."""
    whole = mil.read_labels(folder / light / "divided.csv")
    chosen = {"widths": plan.widths, **dict(plan.model)}
    model = mil.new_model(whole.classes, CHANNELS, pixel_size=PIXEL_SIZE, seed=seed, **chosen)
    for told in mil.train(model, whole, **dict(plan.options), seed=seed, device=device):
        sys.stderr.write(f"{light}, seed {seed}: epoch {told.epoch}, loss {told.loss:.3f}, {told.seconds:.0f} s\n")
    tested, learned = whole.part("test").images, whole.part("train").images
    facts = pd.DataFrame({"file": [row.file.name for row in tested], "group": [row.group for row in tested],
                          "label": [row.labels[0] for row in tested]})  # fmt: skip
    peer = forest(np.array([features(row.file) for row in learned]), [row.labels[0] for row in learned])
    facts["hand-made"] = peer.predict(np.array([features(row.file) for row in tested]))
    return facts.join(scores(told.best, [row.file for row in tested], device)).to_dict("records")


def features(file: Path) -> np.ndarray:
    """Hand-made features of both channels, (features,)."""
    with mil.open_image(file) as image:
        return np.concatenate([image_features(channel) for channel in image.plane(0, (0, 1))])


def lines(rows: pd.DataFrame) -> list[str]:
    """Rows of Markdown: figures of fields and proteins in each light, and how far the lights are apart."""
    body: list[list[object]] = []
    for light in LIGHTS:
        own = rows[rows["light"] == light].drop(columns="light")
        judged = own.drop(columns="hand-made")
        found = [[single_accuracy(one), single_accuracy(by_protein(one)), float(precisions(one).mean())]
                 for _, one in judged.groupby("seed")]  # fmt: skip
        peer = float((own["hand-made"] == own["label"]).mean())
        body.append([light, *map(float, np.mean(found, 0)), peer])
    body.append(
        ["tenfold less uniform", *(second - first for first, second in zip(body[0][1:], body[1][1:], strict=True))]
    )
    header = ["light", "accuracy, fields", "accuracy, proteins", "mean average precision, fields",
              "hand-made features, fields"]  # fmt: skip
    count = rows.groupby("seed")["file"].nunique().iloc[0]
    return [f"{count} test fields; mean over seeds ({rows['seed'].nunique()})\n", *table(header, body)]


if __name__ == "__main__":
    main()
