"""A simulated screen in a folder: images, image-level labels, and the truth for every cell.

It serves tests, the demo and the shipped model; nothing measured on it says how well a model does on a real screen.

Decisions:

- A field is drawn from the seed, its strain and its number alone, so that it does not depend on how many others there
  are.
- Strains of one number, one of each class, are on one plate, so that every plate has all classes, a plate lies on one
  side of the split, and how a plate was taken says nothing about a class.
- The tables list complete fields only, whether the screen ends, fails or is stopped.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from numbers import Integral
from pathlib import Path

import numpy as np
import pandas as pd
import tifffile

from napari_milcnn.atomic_write import replacing
from napari_milcnn.errors import OptionsError, OutputError
from napari_milcnn.images.stack import PlaneIndex
from napari_milcnn.images.write import write_ome_tiff
from napari_milcnn.output_lock import locked_folder
from napari_milcnn.simulation.acquisition import Acquisition, draw_acquisition
from napari_milcnn.simulation.cell import CHANNELS
from napari_milcnn.simulation.localisations import LOCALISATIONS
from napari_milcnn.simulation.microscope import (
    SimulatedField,
    checked_localisations,
    draw_field,
    draw_protein,
)
from napari_milcnn.simulation.options import SimulationOptions


@dataclass(frozen=True)
class _Job:
    """One field to simulate.

    Attributes
    ----------
    name, group, plate, split, labels
        The name of its files, its strain, its plate, its side of the split, and its localisations.
    acquisition
        How its plate was taken.
    seeds
        Seeds of the random numbers of the strain.
    number
        Number of the field in its strain, from 1.
    """

    name: str
    group: str
    plate: str
    split: str
    labels: tuple[str, ...]
    acquisition: Acquisition
    seeds: tuple[int, ...]
    number: int


@dataclass
class _CompleteFields:
    """Rows of labels.csv, truth/cells.csv and truth/plates.csv, for the fields that are complete."""

    fields: list[dict[str, str]] = field(default_factory=list)
    cells: list[dict[str, str | int]] = field(default_factory=list)
    plates: dict[str, dict[str, float | str]] = field(default_factory=dict)


def simulate_screen(
    out: Path,
    *,
    localisations: Sequence[str] = LOCALISATIONS,
    fields_per_class: int = 10,
    fields_per_strain: int = 2,
    validation: float = 0.25,
    seed: int = 0,
    options: SimulationOptions | None = None,
) -> Generator[Path, None, None]:
    """Simulate a localisation screen into a folder, one field at a step.

    The folder then holds images/NAME.ome.tif (axes CYX, uint16 or uint8), truth/NAME.tif (label image YX, uint16),
    truth/cells.csv (file, label, classes: one row per cell), truth/plates.csv (plate and how it was taken, see
    `Acquisition`) and labels.csv (file, label, group, split, plate; several localisations are separated by `|`). The
    group is the strain: its fields share protein and expression, and are on one side of the split. A plate holds a
    strain of each class. The tables are written when the generator ends or is closed.

    Parameters
    ----------
    out : Path
        The folder; it is made if it is missing, and must not hold a labels.csv yet.
    localisations : sequence of str, optional
        Classes of the screen, of `LOCALISATIONS`.
    fields_per_class, fields_per_strain : int, optional
        Number of fields of each class and strain; a strain with two localisations counts for the first.
    validation : float, optional
        Share of the strains of each class that is set aside for validation; at least one strain of a class with two.
    seed : int, optional
        The same seed and options give the same arrays.
    options : SimulationOptions, optional
        How the fields look, and how differently the plates were taken.

    Yields
    ------
    Path
        The image that has just been written.

    Raises
    ------
    OptionsError
        If an option is out of range, or the cells do not fit into a field.
    OutputError
        If the folder holds a screen already or cannot be written.
    """
    names, options, out = checked_localisations(localisations), options or SimulationOptions(), Path(out)
    _check_numbers(fields_per_class, fields_per_strain, validation, seed)
    _check_free(out)
    jobs = _plan(names, fields_per_class, fields_per_strain, validation, seed, options)
    return _write_screen(out, list(jobs), options)


def _check_free(out: Path) -> None:
    if (out / "labels.csv").exists():
        raise OutputError(f"{out} already holds a screen (labels.csv); choose another folder, or empty this one")


def _check_numbers(fields_per_class: int, fields_per_strain: int, validation: float, seed: int) -> None:
    for name, value in (("fields_per_class", fields_per_class), ("fields_per_strain", fields_per_strain)):
        if not isinstance(value, Integral) or value < 1:
            raise OptionsError(f"{name} is {value}; expected a whole number of at least 1")
    if seed < 0 or not 0 <= validation < 1:
        raise OptionsError(
            f"seed is {seed} and validation is {validation}; expected a seed of 0 or more and a share from 0 to below 1"
        )


def _plan(
    names: tuple[str, ...], per_class: int, per_strain: int, validation: float, seed: int, options: SimulationOptions
) -> Iterator[_Job]:
    """List the fields with the classes taking turns, so that a screen that is cut short still holds all classes."""
    strains = -(-per_class // per_strain)
    kept_back = min(max(round(validation * strains), validation > 0), strains - 1)
    for strain in range(strains):
        acquisition = draw_acquisition(options, np.random.default_rng([seed, strain, *b"plate"]))
        for name in names:
            seeds = (seed, LOCALISATIONS.index(name), strain)
            rng = np.random.default_rng([*seeds, 0])
            others = [other for other in names if other != name]
            second = (str(rng.choice(others)),) if others and rng.uniform() < options.multi_label else ()
            group = f"{name.replace(' ', '-')}-{strain + 1:02d}"
            split = "validation" if strain >= strains - kept_back else "train"
            for number in range(min(per_strain, per_class - strain * per_strain)):
                yield _Job(
                    name=f"{group}_{number + 1}", group=group, plate=f"plate-{strain + 1:02d}", split=split,
                    labels=(name, *second), acquisition=acquisition, seeds=seeds, number=number + 1,
                )  # fmt: skip


def _write_screen(out: Path, jobs: Sequence[_Job], options: SimulationOptions) -> Generator[Path, None, None]:
    tables = _CompleteFields()
    with locked_folder(out) as lock:
        _check_free(out)
        try:
            for job in jobs:
                protein = draw_protein(job.labels, options, np.random.default_rng([*job.seeds, 0, 1]))
                rng = np.random.default_rng([*job.seeds, job.number])
                simulated = draw_field(protein, options, rng, job.acquisition)
                lock.check()
                yield _write_field(out, job, simulated, tables)
        finally:
            lock.check()
            if tables.fields:
                _write_truth_tables(out, tables)


def _write_truth_tables(out: Path, tables: _CompleteFields) -> None:
    """Write the tables, labels.csv last: all that it lists is then complete."""
    plates = [{"plate": name, **facts} for name, facts in tables.plates.items()]
    for name, rows in (("truth/cells.csv", tables.cells), ("truth/plates.csv", plates), ("labels.csv", tables.fields)):
        with replacing(out / name) as part:
            pd.DataFrame(rows).to_csv(part, index=False)


def _write_field(out: Path, job: _Job, simulated: SimulatedField, tables: _CompleteFields) -> Path:
    """Write one field and its truth, then add its rows to the tables."""
    image = out / "images" / f"{job.name}.ome.tif"
    with replacing(out / "truth" / f"{job.name}.tif") as part:
        tifffile.imwrite(part, simulated.cells, compression="zlib")
    write_ome_tiff(image, [PlaneIndex(0, 0, 0)], simulated.image[np.newaxis], CHANNELS, job.acquisition.pixel_size, {})
    file = f"images/{image.name}"
    tables.cells += [
        {"file": file, "label": label, "classes": "|".join(classes)}
        for label, classes in simulated.cell_classes.items()
    ]
    tables.plates[job.plate] = job.acquisition.row()
    tables.fields.append(
        {"file": file, "label": "|".join(job.labels), "group": job.group, "split": job.split, "plate": job.plate}
    )
    return image
