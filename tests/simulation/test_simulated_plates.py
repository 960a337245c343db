"""Simulated plates: controls, doses, truth; the same pixels in every form; the edge is dimmer."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from napari_milcnn.errors import OptionsError, OutputError
from napari_milcnn.options import make_options
from napari_milcnn.screens.sources.open import open_screen
from napari_milcnn.simulation.options import PLATES_ALIKE, PlateOptions, SimulationOptions
from napari_milcnn.simulation.plate import simulate_plates

TINY = SimulationOptions(size=(64, 64), cells=(1, 2), **PLATES_ALIKE)
SMALL = {"wells": 24, "doses": 6, "sites": 1}


def simulated(out, **changes):
    plate = make_options(PlateOptions, {**SMALL, **changes})
    wells = list(simulate_plates(out, plate=plate, seed=3, options=TINY))
    return wells, pd.read_csv(out / "layout.csv"), pd.read_csv(out / "truth" / "wells.csv")


@pytest.mark.parametrize("form", ["0.4", "0.5", "0.6"])
def test_the_same_pixels_in_every_form(tmp_path, form):
    """A plate of TIFFs and one of OME-Zarr are opened as the same screen, with the same layout."""
    found = []
    for name in ("tiff", form):
        out = tmp_path / name
        wells, _, _ = simulated(out, form=name)
        assert len(wells) == 24
        source = out / "plate-1" if name == "tiff" else out / "plate-1.ome.zarr"
        found.append(open_screen(source, layout=out / "layout.csv"))
    first, second = (one.fields.sort_values("well").reset_index(drop=True) for one in found)
    assert list(first["well"]) == list(second["well"])
    assert list(first["control"]) == list(second["control"])
    assert not len(found[0].missing)
    assert not len(found[1].missing)


def test_a_plate_has_controls_doses_and_truth(tmp_path):
    """Of 24 wells 2 are positive, 12 hold two compounds of 6 doses, and the rest is negative; shares rise with dose."""
    _, layout, truth = simulated(tmp_path, active=1.0)
    assert layout["control"].fillna("").value_counts().to_dict() == {"": 18, "negative": 4, "positive": 2}
    assert layout["dose"].nunique() == 6
    assert list(layout["label"][layout["control"] == "positive"].unique()) == ["nucleus"]
    for _, own in truth[truth["control"].isna()].groupby("treatment"):
        assert own.sort_values("dose")["share"].is_monotonic_increasing
    assert (truth["share"][truth["control"] == "negative"] == 0).all()


def test_plates_are_replicates_at_other_places(tmp_path):
    _, layout, truth = simulated(tmp_path, plates=2)
    names = layout.groupby("plate")["treatment"].agg(lambda one: sorted(one.dropna()))
    assert names.iloc[0] == names.iloc[1]
    places = layout.pivot(index="well", columns="plate", values="treatment").fillna("")
    assert (places["plate-1"] != places["plate-2"]).any()
    assert truth.groupby(["treatment", "dose"])["share"].nunique().eq(1).all()


def test_wells_at_the_edge_are_dimmer(tmp_path):
    """Row A is at the edge, row B is not: with an edge of 1 half of the light of GFP over the dark is left."""
    import tifffile

    light = {}
    for edge in (0.0, 1.0):
        simulated(tmp_path / str(edge), edge=edge)
        files = (tmp_path / str(edge) / "plate-1").glob("*_w1.tif")
        light[edge] = {path.name.split("_")[1]: tifffile.imread(path).max() - 120.0 for path in files}
    ratio = {well: light[1.0][well] / light[0.0][well] for well in light[0.0]}
    inner = {f"{row}{column:02}" for row in "BC" for column in range(2, 6)}
    assert all(ratio[well] == 1 for well in inner)
    assert np.median([ratio[well] for well in ratio if well not in inner]) < 0.75


def test_what_does_not_fit_is_refused(tmp_path):
    with pytest.raises(OptionsError, match="'wells' is 25: expected 24, 96 or 384"):
        make_options(PlateOptions, {"wells": 25})
    with pytest.raises(OptionsError, match="'doses' is 20: expected at most 18 on a plate of 24 wells"):
        make_options(PlateOptions, {"wells": 24, "doses": 20})
    (tmp_path / "layout.csv").touch()
    with pytest.raises(OutputError, match="already holds plates"):
        simulate_plates(tmp_path, options=TINY)
