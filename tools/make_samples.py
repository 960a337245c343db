"""Make everything in sample_data/: simulated images, the small training set, and both shipped models.

    python tools/make_samples.py images
    python tools/make_samples.py yeast
    python tools/make_samples.py nuclei --data FOLDER
    python tools/make_samples.py balance --data FOLDER

FOLDER holds `compose_fields.py` and `mitocheck/` (cells.npz, labels.csv): single HeLa H2B-GFP nuclei of the MitoCheck
screen (Neumann et al. 2010, CC BY 4.0). Everything goes through the command line that users have. `balance` is the
last step of `nuclei`: temperature and class balance, fitted on fields of held training plates.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import tifffile

from napari_milcnn.simulation.cell import CHANNELS, PIXEL_SIZE
from napari_milcnn.simulation.microscope import simulate_field
from napari_milcnn.simulation.options import PLATES_ALIKE, SimulationOptions
from napari_milcnn.simulation.screen import simulate_screen
from napari_milcnn.simulation.timelapse import simulate_timelapse

SAMPLES = Path(__file__).parent.parent / "sample_data"
FIELDS = {"yeast-nucleus": ("nucleus",), "yeast-mitochondria": ("mitochondria",), "yeast-er": ("ER",),
          "yeast-two-labels": ("vacuole", "cell periphery")}  # fmt: skip
AUTHOR = "The napari-milcnn developers"
TRAINING = ("nucleus", "cell periphery", "mitochondria")
NUCLEI = ("Apoptosis", "Binuclear", "Elongated", "Hole", "Interphase", "Metaphase", "Polylobed", "Prometaphase")
HELD_FRACTIONS = ((0.1, 0.2), (0.2, 0.3), (0.3, 0.8))
"""Shares of affected cells in the held fields; rarer ones among them would win at the cost of the others."""
HELD_PLATES = 0.2
"""Share of the training plates whose cells serve to choose the checkpoint, never to train."""


def main() -> None:
    """Read the arguments and make what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("images", "yeast", "nuclei", "balance"))
    parser.add_argument("--data", type=Path, help="folder with compose_fields.py and mitocheck/")
    parser.add_argument("--work", type=Path, default=Path("data/samples"), help="scratch folder")
    args = parser.parse_args()
    if args.what == "images":
        images()
    elif args.what == "yeast":
        yeast(args.work)
    elif args.data is None:
        parser.error(f"{args.what} needs --data")
    else:
        (nuclei if args.what == "nuclei" else balance)(args.data, args.work)


def images() -> None:
    """Simulate the fields, the time-lapse and the training set."""
    for seed, (name, labels) in enumerate(FIELDS.items(), start=101):
        write_ome(SAMPLES / f"{name}.ome.tif", simulate_field(labels, rng=seed).image, "CYX")
    small = SimulationOptions(size=(256, 256), cells=(11, 19))
    movie, _, _ = simulate_timelapse("cytoplasm", "nucleus", 8, small, 105)
    write_ome(SAMPLES / "yeast-timelapse.ome.tif", movie, "TCYX")
    chosen = small.model_copy(update={"multi_label": 0.0, **PLATES_ALIKE})
    list(simulate_screen(SAMPLES / "training", localisations=TRAINING, fields_per_class=10, seed=7, options=chosen))


def write_ome(path: Path, image: np.ndarray, axes: str) -> None:
    """Write an image as OME-TIFF with channel names and pixel size."""
    facts = {
        "axes": axes,
        "Channel": {"Name": list(CHANNELS)},
        "PhysicalSizeX": PIXEL_SIZE,
        "PhysicalSizeY": PIXEL_SIZE,
    }
    tifffile.imwrite(path, image, ome=True, photometric="minisblack", compression="zlib", metadata=facts)


def yeast(work: Path) -> None:
    """Simulate a screen of its own and train yeast-sim on it."""
    run("simulate", work / "yeast", "--fields", 48, "--seed", 1)
    run(
        "train", work / "yeast" / "labels.csv", "--out", SAMPLES / "models" / "yeast-sim.zip",
        "--foreground-channel", "RFP", "--name", "yeast-sim",
        "--description", "Localisation of a GFP-tagged protein in budding yeast; simulated images.",
        "--trained-on", "288 simulated fields of 512 x 512 px, 45-75 cells each, of which 40-90 % show the "
                        "localisation; "
                        "about one in seven fields shows two; plates differ in exposure, background, noise, focus and "
                        "size. Not real images: a model to try the program with.",
        "--credit", "Images simulated by napari-milcnn.", "--author", AUTHOR, "--license", "CC-BY-4.0",
    )  # fmt: skip


def nuclei(data: Path, work: Path) -> None:
    """Compose fields of real nuclei with sparse and with frequent phenotypes and train nuclei on them."""
    cells = work / "cells"
    hold_plates(data / "mitocheck", cells)
    fields = [(f"sparse{i}", "train", 10, (0.05, 0.25), 10 + i) for i in range(8)]
    fields += [(f"frequent{i}", "train", 10, (0.25, 0.8), 30 + i) for i in range(6)]
    with ThreadPoolExecutor() as pool:
        parts = list(pool.map(lambda one: compose(data, cells, work / one[0], *one[1:]), fields))
    pd.concat([*parts, held_fields(data, work)]).to_csv(work / "labels.csv", index=False)
    run(
        "train", work / "labels.csv", "--out", SAMPLES / "models" / "nuclei.zip", "--epochs", 10,
        "--epoch-steps", 420, "--vary-size", 1.45, "--channels", "DNA", "--reference", "Interphase",
        "--foreground-method", "half_maximum", "--name", "nuclei",
        "--description", "Eight nuclear phenotypes of HeLa H2B-GFP cells.",
        "--trained-on", "1120 fields of 512 x 512 px composed of single real nuclei (64 px crops), 55-85 cells each, "
                        "of which 5-80 % show the field's phenotype among interphase cells, shown in many other ways: "
                        "exposure, background, noise, focus and size were varied. The cells are real, their "
                        "arrangement is not.",
        "--credit", "Cells: MitoCheck (Neumann et al., Nature 2010; IDR idr0013), by way of "
                    "WayScience/phenotypic_profiling, provided by Thomas Walter, CC BY 4.0.",
        "--author", AUTHOR, "--license", "CC-BY-4.0",
    )  # fmt: skip
    balance(data, work)


def balance(data: Path, work: Path) -> None:
    """Fit the temperature and the class balance of nuclei on fields of held plates, from rare to frequent."""
    hold_plates(data / "mitocheck", work / "cells")
    held_fields(data, work).to_csv(work / "held.csv", index=False)
    model = SAMPLES / "models" / "nuclei.zip"
    run("calibrate", work / "held.csv", "--model", model, "--out", model)


def held_fields(data: Path, work: Path) -> pd.DataFrame:
    """Compose twelve fields a class of held plates for each of three shares of affected cells."""
    return pd.concat([
        compose(data, work / "cells", work / f"held{i}", "select", 12, fraction, i).assign(split="validation")
        for i, fraction in enumerate(HELD_FRACTIONS)
    ])  # fmt: skip


def hold_plates(source: Path, target: Path) -> None:
    """Copy the cells with some whole training plates marked 'select', every class represented."""
    table = pd.read_csv(source / "labels.csv")
    train = table["suggested_split"] == "train"
    label = table["label"].replace({"MetaphaseAlignment": "Metaphase"})[train]
    counts = pd.crosstab(table["plate"][train], label)[list(NUCLEI)]
    plates = np.array(sorted(counts.index))
    draws = [np.random.default_rng(seed).choice(plates, int(len(plates) * HELD_PLATES), False) for seed in range(3000)]
    shares = [counts.loc[some].sum() / counts.sum() for some in draws]
    held = draws[int(np.argmax([share.min() - abs(share.mean() - HELD_PLATES) for share in shares]))]
    table.loc[train & table["plate"].isin(held), "suggested_split"] = "select"
    target.mkdir(parents=True, exist_ok=True)
    table.to_csv(target / "labels.csv", index=False)
    (target / "cells.npz").write_bytes((source / "cells.npz").read_bytes())


def compose(
    data: Path, cells: Path, out: Path, split: str, per_class: int, fraction: tuple[float, float], seed: int
) -> pd.DataFrame:
    """Compose fields and return their table, with files and groups named from the folder above."""
    subprocess.run(
        [sys.executable, str(data / "compose_fields.py"), str(cells), str(out), "--split", split, "--per-class",
         str(per_class), "--fraction", *map(str, fraction), "--seed", str(seed)],
        check=True,
    )  # fmt: skip
    table = pd.read_csv(out / "labels.csv")
    return table.assign(file=out.name + "/" + table["file"], group=out.name + "-" + table["group"])


def run(*arguments: object) -> None:
    """Run our own command line."""
    subprocess.run(
        [sys.executable, "-c", "from napari_milcnn.cli.app import main; main()", *map(str, arguments)], check=True
    )


if __name__ == "__main__":
    main()
