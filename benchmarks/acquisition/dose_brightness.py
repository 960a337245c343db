"""Brightness as the label, on plates that were lit differently: the three ways to scale intensities.

    python -m benchmarks.acquisition.dose_brightness [--work FOLDER] [--record]

Simulated yeast with a nuclear reporter that is expressed in three doses, 1, 1.6 and 2.5, four fields of 192 px a dose
and plate. The exposure of each of six plates is drawn between 1 / sqrt(10) and sqrt(10) of the usual one,
evenly in its logarithm. Four plates are learned from, one of them for validation; the two others, the brightest and the
darkest, are tested. One network a choice of `normalise`: training, image, and group by the fields of the lowest dose as
controls and by all fields. Chance is .333.

Patches are not varied in intensity or offset, since brightness is what is to be learned.

Budget: four minutes on one core.
"""

from __future__ import annotations

import argparse
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

import napari_milcnn as mil
from benchmarks.record import report, table
from napari_milcnn.images.stack import PlaneIndex
from napari_milcnn.images.write import write_ome_tiff
from napari_milcnn.simulation.acquisition import Acquisition
from napari_milcnn.simulation.cell import CHANNELS, PIXEL_SIZE
from napari_milcnn.simulation.microscope import draw_field, draw_protein
from napari_milcnn.simulation.options import SimulationOptions

DOSES = {"low": 1.0, "middle": 1.6, "high": 2.5}
EXPOSURES = tuple(10 ** np.linspace(-0.5, 0.5, 6))
"""Of the plates, the darkest first."""
TESTED, VALIDATED = (0, 5), 2
FIELDS = 4
OPTIONS = {"epochs": 5, "epoch_steps": 20, "patch": 0, "batch_size": 8, "vary_intensity": 0, "vary_offset": 0,
           "threads": 1}  # fmt: skip
CHOICES = {"training": "training", "image": "image", "group, controls": "group", "group, all fields": "group"}


def main() -> None:
    """Simulate, train a network for each choice, judge and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("build/dose_brightness"), help="for the screen")
    parser.add_argument("--record", action="store_true", help="append to RESULTS.md")
    args = parser.parse_args()
    simulate(args.work)
    rows = [[choice, *accuracies(choice, args.work)] for choice in CHOICES]
    header = ["normalise", "validation plate", "darkest plate", "brightest plate"]
    fields = f"{FIELDS * len(DOSES)} fields a plate, one seed\n"
    report("Brightness as the label, plates lit differently", [fields, *table(header, rows)], keep=args.record)


def simulate(folder: Path) -> None:
    """Write the plates, and a table of them with and without controls."""
    shutil.rmtree(folder, ignore_errors=True)
    rows = []
    for plate, exposure in enumerate(EXPOSURES):
        for dose, light in DOSES.items():
            for number in range(FIELDS):
                rng = np.random.default_rng([plate, number, round(10 * light)])
                options = SimulationOptions(size=(192, 192), cells=(6, 12))
                drawn = replace(draw_protein(("nucleus",), options, np.random.default_rng(0)), expression=light)
                acquisition = Acquisition(gfp_exposure=exposure, rfp_exposure=exposure)
                image = draw_field(drawn, options, rng, acquisition).image
                file = f"plate-{plate}/{dose}-{number}.ome.tif"
                write_ome_tiff(folder / file, [PlaneIndex(0, 0, 0)], image[np.newaxis], CHANNELS, PIXEL_SIZE, {})
                split = "test" if plate in TESTED else "validation" if plate == VALIDATED else "train"
                control = "yes" if dose == "low" else ""
                rows.append({"file": file, "label": dose, "group": f"plate-{plate}", "plate": plate, "split": split,
                             "control": control})  # fmt: skip
    every = pd.DataFrame(rows)
    every.to_csv(folder / "controls.csv", index=False)
    every.assign(control="").to_csv(folder / "all.csv", index=False)


def accuracies(choice: str, folder: Path) -> list[float]:
    """Train a network by one choice; return its accuracy on the validation plate and on each test plate."""
    labels = mil.read_labels(folder / ("controls.csv" if choice == "group, controls" else "all.csv"))
    model = mil.new_model(labels.classes, CHANNELS, pixel_size=PIXEL_SIZE, normalise=CHOICES[choice],
                          widths=(16, 16, 32, 64, 64, 128))  # fmt: skip
    *_, last = mil.train(model, labels, **OPTIONS)
    right: dict[str, list[bool]] = {}
    for row in labels.images:
        with labels.open(row) as image:
            right.setdefault(row.group, []).append(mil.classify(last.best, image).top == row.labels)
    return [float(np.mean(right[f"plate-{plate}"])) for plate in (VALIDATED, *TESTED)]


if __name__ == "__main__":
    main()
