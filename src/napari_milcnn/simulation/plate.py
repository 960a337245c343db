"""Simulated plates of wells with doses, controls and effects of the place, with the truth for every well.

One reporter strain, whose protein is in the cytoplasm, is treated with compounds. An active compound moves the protein
to another localisation, in a share of the cells that rises with the dose. Decisions:

- Places are drawn at random on each plate, as is good practice: neither a compound nor a control is always at the edge.
- Every plate holds the same compounds and doses, so that plates are replicates. A plate differs from others in how it
  was taken (`Acquisition`), and wells at its edge are dimmer, hazier and less sharp.
- The pixels do not depend on the form in which they are written.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from napari_milcnn.atomic_write import replacing
from napari_milcnn.errors import OptionsError, OutputError
from napari_milcnn.images.instruments import PLATES, Well
from napari_milcnn.output_lock import locked_folder
from napari_milcnn.simulation.acquisition import Acquisition, draw_acquisition, drawn_at_usual_size
from napari_milcnn.simulation.localisations import LOCALISATIONS, Protein
from napari_milcnn.simulation.microscope import draw_protein, picture_of, place_cells
from napari_milcnn.simulation.options import PlateOptions, SimulationOptions
from napari_milcnn.simulation.plate_files import PlateWriter, SimulatedSite

REFERENCE, POSITIVE = "cytoplasm", "nucleus"
"""Localisation in untreated cells, and in the positive controls."""
LAYOUT, TRUTH = "layout.csv", "truth/wells.csv"
_LEAST_DOSE, _LARGEST_DOSE = 0.01, 100.0
_POSITIVE_SHARE = 0.9


@dataclass(frozen=True)
class _Compound:
    """A compound: what it does to the protein, at which dose, and in how many cells."""

    name: str
    target: str
    ec50: float
    slope: float
    most: float

    def share(self, dose: float) -> float:
        """Return the share of cells that respond."""
        return float(self.most / (1 + (self.ec50 / dose) ** self.slope))


@dataclass(frozen=True)
class _PlannedWell:
    """A well of a plate: what it holds and what is true of it."""

    plate: str
    well: Well
    treatment: str
    dose: float
    control: str
    target: str
    share: float

    def layout(self) -> dict[str, object]:
        """Return its row of layout.csv."""
        label = self.target if self.control == "positive" else REFERENCE if self.control == "negative" else ""
        dose = "" if np.isnan(self.dose) else f"{self.dose:.6g}"
        return {"plate": self.plate, "well": self.well.name, "treatment": self.treatment, "dose": dose,
                "control": self.control, "label": label}  # fmt: skip


def simulate_plates(
    out: Path, *, plate: PlateOptions | None = None, seed: int = 0, options: SimulationOptions | None = None
) -> Generator[str, None, None]:
    """Simulate plates into a folder, one field at a step.

    The folder then holds the images, as `plate.form` says, layout.csv (plate, well, treatment, dose, control, label),
    truth/wells.csv (the same, with target and share, the share of cells that respond, and what the compound does) and
    truth/plates.csv (how each plate was taken). Channels are GFP and RFP.

    Parameters
    ----------
    out : Path
        The folder; it is made if it is missing, and must not hold a layout.csv yet.
    plate : PlateOptions, optional
        How large the plates are and what is on them.
    seed : int
        The same seed and options give the same arrays.
    options : SimulationOptions, optional
        How the fields look, and how differently the plates were taken.

    Yields
    ------
    str
        The plate and well of the field that has just been written.

    Raises
    ------
    OptionsError
        If an option is out of range, or the cells do not fit into a field.
    OutputError
        If the folder holds plates already or cannot be written.
    """
    plate, options, out = plate or PlateOptions(), options or SimulationOptions(), Path(out)
    if seed < 0:
        raise OptionsError(f"seed is {seed}; expected 0 or more")
    if (out / LAYOUT).exists():
        raise OutputError(f"{out} already holds plates ({LAYOUT}); choose another folder, or empty this one")
    compounds = _compounds(plate, np.random.default_rng([seed, *b"compounds"]))
    return _write_plates(out, plate, compounds, seed, options)


def _compounds(plate: PlateOptions, rng: np.random.Generator) -> list[_Compound]:
    targets = [name for name in LOCALISATIONS if name != REFERENCE]
    count = plate.compounds
    active = rng.permutation(count) < round(plate.active * count)
    low, high = np.log10(10 * _LEAST_DOSE), np.log10(_LARGEST_DOSE / 10)
    return [
        _Compound(
            f"compound-{i + 1:02}", str(rng.choice(targets)), float(10 ** rng.uniform(low, high)),
            rng.uniform(1, 3), rng.uniform(0.5, 0.95) * active[i],
        )
        for i in range(count)
    ]  # fmt: skip


def _plan_plate(
    name: str, plate: PlateOptions, compounds: list[_Compound], rng: np.random.Generator
) -> list[_PlannedWell]:
    """Place the controls and the doses of all compounds on a plate at random."""
    rows, columns = PLATES[plate.wells]
    places = [Well(row, column) for row in range(rows) for column in range(columns)]
    order = iter([places[i] for i in rng.permutation(len(places))])
    doses = np.geomspace(_LEAST_DOSE, _LARGEST_DOSE, plate.doses)
    wells = [
        _PlannedWell(name, next(order), one.name, float(dose), "", one.target if one.most else REFERENCE,
                     one.share(float(dose)))
        for one in compounds for dose in doses
    ]  # fmt: skip
    wells += [_PlannedWell(name, next(order), "", np.nan, "positive", POSITIVE, _POSITIVE_SHARE)
              for _ in range(plate.positive)]  # fmt: skip
    wells += [_PlannedWell(name, place, "", np.nan, "negative", REFERENCE, 0.0) for place in order]
    return sorted(wells, key=lambda one: one.well)


def _write_plates(
    out: Path, plate: PlateOptions, compounds: list[_Compound], seed: int, options: SimulationOptions
) -> Generator[str, None, None]:
    names = [f"plate-{number + 1}" for number in range(plate.plates)]
    protein = replace(draw_protein((REFERENCE,), options, np.random.default_rng([seed, *b"strain"])), expression=1.0)
    with locked_folder(out) as lock:
        planned: list[_PlannedWell] = []
        taken: list[dict[str, object]] = []
        for number, name in enumerate(names):
            acquisition = draw_acquisition(options, np.random.default_rng([seed, number, *b"plate"]))
            wells = _plan_plate(name, plate, compounds, np.random.default_rng([seed, number, *b"layout"]))
            writer = PlateWriter(out, name, [one.well for one in wells], plate.sites, plate.form)
            for one in wells:
                own = _at_edge(acquisition, one.well, plate)
                for site in range(1, plate.sites + 1):
                    rng = np.random.default_rng([seed, number, one.well.row, one.well.column, site])
                    image = _draw_well(one, protein, options, own, rng)
                    lock.check()
                    writer.write(SimulatedSite(one.well, site, image, own.pixel_size))
                    yield f"{name} {one.well.name}"
            planned += wells
            taken.append({"plate": name, **acquisition.row()})
        _write_tables(out, planned, taken, compounds)


def _at_edge(acquisition: Acquisition, well: Well, plate: PlateOptions) -> Acquisition:
    """Return how a well was taken: at the edge dimmer, hazier and less sharp."""
    rows, columns = PLATES[plate.wells]
    if 0 < well.row < rows - 1 and 0 < well.column < columns - 1:
        return acquisition
    return replace(
        acquisition, gfp_exposure=acquisition.gfp_exposure * (1 - plate.edge / 2),
        background=acquisition.background * (1 + plate.edge), defocus=acquisition.defocus + 0.3 * plate.edge,
    )  # fmt: skip


def _draw_well(
    well: _PlannedWell, protein: Protein, options: SimulationOptions, acquisition: Acquisition, rng: np.random.Generator
) -> np.ndarray:
    """Draw a field in which a share of the cells responds, (C, Y, X)."""
    drawn = drawn_at_usual_size(options, acquisition)
    cells = place_cells(drawn, rng)
    responding = rng.permutation(len(cells)) < round(well.share * len(cells))
    moved, usual = {REFERENCE: protein.leak, well.target: 1.0}, {REFERENCE: 1.0}
    mixes = [moved if one else usual for one in responding]
    return picture_of(cells, mixes, protein, options, acquisition, rng)[0]


def _write_tables(
    out: Path, planned: list[_PlannedWell], taken: list[dict[str, object]], compounds: list[_Compound]
) -> None:
    """Write the tables, layout.csv last: all that it lists is then complete."""
    known = {one.name: one for one in compounds}
    for name, rows in ((TRUTH, list(_truth(planned, known))), ("truth/plates.csv", taken),
                       (LAYOUT, [one.layout() for one in planned])):  # fmt: skip
        with replacing(out / name) as part:
            pd.DataFrame(rows).to_csv(part, index=False)


def _truth(planned: list[_PlannedWell], known: dict[str, _Compound]) -> Iterator[dict[str, object]]:
    for one in planned:
        compound = known.get(one.treatment)
        facts = {"ec50": np.nan, "slope": np.nan, "most": np.nan} if compound is None or not compound.most else {
            "ec50": compound.ec50, "slope": compound.slope, "most": compound.most}  # fmt: skip
        yield {**one.layout(), "target": one.target, "share": one.share, **facts}
