"""One simulated plate in every form that images of a screen have, and whether each gives the same tables.

    python -m benchmarks.screen_forms [--work FOLDER] [--wells 384] [--side 96] [--record]

A plate of 384 wells, with two sites, two channels, effects of the plate and of its edge, controls, and compounds at 12
doses, is simulated as OME-Zarr of the versions 0.5, 0.4 and 0.6, and as TIFFs named by ImageXpress, which are then also
named as Operetta names them. The pixels are the same. The shipped model yeast-sim classifies all of them, with
the layout, and the tables are compared with those of the first form: the same rows in the same order, equal texts, and
the largest difference of any number. Names of files are left out, and sites, times and Z planes are numbered from 0, as
instruments that have them in the names of their files count them from 1.

Small fields keep it short: it says nothing of how right the answers are (`screens.hits` does).
"""

from __future__ import annotations

import argparse
import os
import re
import time
from pathlib import Path
from typing import Final

import pandas as pd

import napari_milcnn as mil
from benchmarks.record import report, table
from napari_milcnn.images.instruments import parse_well
from napari_milcnn.images.open import ImageReading
from napari_milcnn.options import make_options
from napari_milcnn.simulation.options import PlateOptions, square_field
from napari_milcnn.simulation.plate import LAYOUT, simulate_plates

FORMS: Final = {"OME-Zarr 0.5": "0.5", "OME-Zarr 0.4": "0.4", "OME-Zarr 0.6": "0.6", "ImageXpress": "tiff"}
TABLES: Final = ("predictions", "cells", "wells", "plates", "treatments", "hits", "doses")
_NAMES: Final = ["file", "name", "warnings"]
_NUMBERED: Final = {"site", "t", "z"}
_IMAGEXPRESS: Final = re.compile(r".*_(?P<well>[A-Z]\d\d)_s(?P<site>\d+)_w(?P<channel>\d)\.tif")


def main() -> None:
    """Simulate, classify, compare and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("build/screen_forms"), help="plates and results stay here")
    parser.add_argument("--wells", type=int, default=384)
    parser.add_argument("--side", type=int, default=96, help="side of a field, in px")
    parser.add_argument("--record", action="store_true", help="append to RESULTS.md")
    args = parser.parse_args()
    folder = args.work / f"{args.wells}-{args.side}px"
    sources = {name: simulated(folder / name, args.wells, args.side, form) for name, form in FORMS.items()}
    sources["Operetta"] = named_by_operetta(folder / "Operetta", sources["ImageXpress"])
    layout = folder / next(iter(FORMS)) / LAYOUT
    found = {name: classified(source, layout, folder / f"results {name}") for name, source in sources.items()}
    first = next(iter(found.values()))
    counts = ", ".join(f"{len(first[name])} rows of {name}" for name in TABLES)
    rows = [[name, *compared(one, first)] for name, one in found.items()]
    lines = [f"{args.wells} wells of 2 fields of {args.side} px, classified in float32; {counts}\n",
             *table(["form", "tables that are equal", "largest difference of a number"], rows)]  # fmt: skip
    report("One plate in every form", lines, keep=args.record)


def simulated(folder: Path, wells: int, side: int, form: str) -> Path:
    """Simulate the plate in one form, once, and return its images."""
    if not (folder / LAYOUT).exists():
        plate = make_options(PlateOptions, {"wells": wells, "sites": 2, "doses": 12, "form": form})
        for _ in simulate_plates(folder, plate=plate, seed=1, options=square_field(side)):
            pass
    return folder / ("plate-1" if form == "tiff" else "plate-1.ome.zarr")


def named_by_operetta(folder: Path, source: Path) -> Path:
    """Link the files of ImageXpress under the names that Operetta would give them, and return their folder."""
    images = folder / "plate-1" / "Images"
    images.mkdir(parents=True, exist_ok=True)
    for file in source.iterdir():
        found = _IMAGEXPRESS.fullmatch(file.name)
        well = None if found is None else parse_well(found["well"])
        if found is None or well is None:
            continue
        name = f"r{well.row + 1:02}c{well.column + 1:02}f{int(found['site']):02}p01-ch{found['channel']}sk1fk1fl1.tiff"
        if not (images / name).exists():
            os.link(file, images / name)
    return images.parent


def classified(source: Path, layout: Path, out: Path) -> dict[str, pd.DataFrame]:
    """Classify the plate, and return its tables."""
    began = time.monotonic()
    for _ in mil.screen(mil.load_model("yeast-sim"), source, out, layout=layout, resume=True, masks="nowhere",
                        reading=ImageReading(channels=("GFP", "RFP")), device="cpu", precision="float32"):  # fmt: skip
        pass
    print(f"{out.name}: {time.monotonic() - began:.0f} s", flush=True)  # noqa: T201
    paths = {name: out / f"{name}.parquet" for name in TABLES}
    return {name: pd.read_parquet(path) if path.exists() else pd.DataFrame() for name, path in paths.items()}


def compared(found: dict[str, pd.DataFrame], first: dict[str, pd.DataFrame]) -> list[str]:
    """Say which tables equal the first ones, and the largest difference of any number."""
    equal, largest = [], 0.0
    for name in TABLES:
        own, known = (_comparable(one[name]) for one in (found, first))
        numbers = [column for column in known if known[column].dtype.kind == "f"]
        texts = [column for column in known if column not in numbers]
        same = list(own) == list(known) and own[texts].equals(known[texts])
        if same and numbers and own[numbers].isna().equals(known[numbers].isna()):
            difference = float((own[numbers] - known[numbers]).abs().max().max())
            largest = max(largest, 0.0 if pd.isna(difference) else difference)
        if same:
            equal.append(name)
    return [f"{len(equal)} of {len(TABLES)}" + ("" if len(equal) == len(TABLES) else f": {', '.join(equal)}"),
            f"{largest:.2g}"]  # fmt: skip


def _comparable(one: pd.DataFrame) -> pd.DataFrame:
    """Leave out what names files; sites, times and Z planes become whole numbers from 0."""
    kept = one.drop(columns=_NAMES, errors="ignore")
    for name in _NUMBERED.intersection(kept):
        kept[name] = kept[name].astype(int) - kept[name].astype(int).min()
    return kept


if __name__ == "__main__":
    main()
