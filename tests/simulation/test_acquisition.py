"""How plates were taken: drawn within the options, the same for the same seed, and neutral where nothing varies."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile

from napari_milcnn.simulation.acquisition import NEUTRAL, Acquisition, draw_acquisition
from napari_milcnn.simulation.cell import PIXEL_SIZE
from napari_milcnn.simulation.microscope import SimulatedField, draw_field, draw_protein
from napari_milcnn.simulation.options import PLATES_ALIKE, SimulationOptions
from napari_milcnn.simulation.screen import simulate_screen

TINY = SimulationOptions(size=(96, 96), cells=(2, 3))


def field(acquisition: Acquisition = NEUTRAL, options: SimulationOptions = TINY) -> SimulatedField:
    """Draw the same field, taken in different ways."""
    rng = np.random.default_rng(3)
    return draw_field(draw_protein(("cytoplasm",), options, rng), options, rng, acquisition)


def light(acquisition: Acquisition) -> np.ndarray:
    """Median GFP and RFP of the medium over the dark counts, (channels,)."""
    taken = field(acquisition)
    return np.median(taken.image[:, taken.cells == 0], 1) - TINY.offset * acquisition.offset


def test_plates_alike_are_neutral() -> None:
    """With a spread of 0 in every option each plate is taken alike."""
    options = TINY.model_copy(update=PLATES_ALIKE)
    assert draw_acquisition(options, np.random.default_rng(0)) == NEUTRAL


def test_plates_are_drawn_within_the_options() -> None:
    """Of 400 plates a quarter is stored otherwise, and focus, size and vignetting stay within their limits."""
    plates = pd.DataFrame([draw_acquisition(TINY, np.random.default_rng(i)).row() for i in range(400)])
    assert plates["defocus"].between(0, 0.2).all()
    assert plates["magnification"].between(1 / 1.1, 1.1).all()
    assert plates["vignetting"].between(0.5, 1.5).all()
    assert (plates["storage"] != "counts").mean() == pytest.approx(0.25, abs=0.06)
    assert np.log(plates[["gfp_exposure", "rfp_exposure"]]).std().to_numpy() == pytest.approx([0.35] * 2, rel=0.15)
    assert abs(plates["gfp_exposure"].corr(plates["rfp_exposure"])) < 0.2  # channels have exposures of their own


def test_exposure_and_background_scale_the_light() -> None:
    """Twice the exposure of GFP doubles its light and leaves RFP; twice the medium adds to both."""
    usual = light(NEUTRAL)
    assert light(Acquisition(gfp_exposure=2.0)) / usual == pytest.approx([2, 1], rel=0.15)
    assert (light(Acquisition(background=2.0)) > 1.4 * usual).all()
    assert light(Acquisition(offset=2.0)) == pytest.approx(usual, rel=0.15)


def test_defocus_blurs_and_read_noise_adds() -> None:
    """The edges of cells lose their steepness; pixels of the medium spread more."""
    steepest = [np.abs(np.diff(field(one).image[1].astype(float), axis=1)).max()
                for one in (NEUTRAL, Acquisition(defocus=0.6))]  # fmt: skip
    assert steepest[1] < steepest[0]
    spread = [np.std(taken.image[0][taken.cells == 0].astype(float))
              for taken in (field(), field(Acquisition(read_noise=8.0)))]  # fmt: skip
    assert spread[1] > 1.5 * spread[0]


def test_magnified_cells_are_larger_in_an_image_of_the_same_size() -> None:
    """At 1.25 a cell covers about 1.56 times as many pixels, and a pixel is 0.128 um."""
    taken = field(replace(NEUTRAL, magnification=1.25))
    assert taken.image.shape == (2, 96, 96)
    assert taken.cells.shape == (96, 96)
    assert Acquisition(magnification=1.25).pixel_size == pytest.approx(PIXEL_SIZE / 1.25)
    whole = SimulationOptions(size=(224, 224), cells=(8, 8))
    areas = [np.median(np.bincount(field(one, whole).cells.ravel())[1:])
             for one in (NEUTRAL, Acquisition(magnification=1.25))]  # fmt: skip
    assert areas[1] / areas[0] == pytest.approx(1.56, rel=0.25)


def test_storage_keeps_the_counts_apart_from_rounding() -> None:
    """An eighth in 8 bits, saturated above 2047 counts, and 16 times as much in 16 bits."""
    counts, eighth, stretched = (field(Acquisition(storage=name)).image for name in ("counts", "eighth", "stretched"))
    assert (counts.dtype, eighth.dtype, stretched.dtype) == (np.uint16, np.uint8, np.uint16)
    assert np.abs(eighth - (counts / 8).clip(0, 255)).max() <= 0.6
    assert np.abs(stretched / 16 - counts.astype(float).clip(0, 65535 / 16)).max() <= 0.6


def test_a_screen_writes_how_its_plates_were_taken(tmp_path: Path) -> None:
    """Both classes are on each plate, plates differ, a plate is on one side, and the files hold its pixel size."""
    paths = list(simulate_screen(tmp_path, localisations=["ER", "nucleus"], fields_per_class=4, options=TINY))
    table, plates = pd.read_csv(tmp_path / "labels.csv"), pd.read_csv(tmp_path / "truth" / "plates.csv")
    assert table.groupby("plate")["label"].nunique().tolist() == [2, 2]
    assert (table.groupby("plate")["split"].nunique() == 1).all()
    assert plates["gfp_exposure"].nunique() == 2
    with tifffile.TiffFile(paths[0]) as file:
        facts = tifffile.xml2dict(file.ome_metadata or "")["OME"]["Image"]["Pixels"]
    assert facts["PhysicalSizeX"] == pytest.approx(plates["pixel_size"][0])
