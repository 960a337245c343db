"""Masks of a screen: beside the tables of their well, or inside the OME-Zarr plate."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from screen_plates import CHANNELS, plate_pixels, write_named, write_zarr_plate

from conftest import lively_model
from napari_milcnn.errors import OptionsError
from napari_milcnn.images.open import ImageReading, open_image
from napari_milcnn.screens.parts import part_folder
from napari_milcnn.screens.run import screen

PIXELS = {place: field for place, field in plate_pixels(72).items() if place[0] in ("A01", "A02")}
CPU = {"device": "cpu", "precision": "float32"}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "m.zip"
    trained = lively_model()
    trained.save(path)
    return trained


def run(model, source, out, **more):
    return [step.result for step in screen(model, source, out, **{**CPU, **more}) if step.result is not None]


def numbers_in(path):
    with open_image(path) as labels:
        return set(np.unique(labels.plane(0)[0]).tolist()) - {0}


def listed(out, well, site):
    cells = pd.read_parquet(out / "cells.parquet")
    own = cells[(cells["well"] == well) & (cells["site"] == str(site)) & cells["shown"]]
    return set(own["label"].tolist())


def test_masks_lie_beside_the_tables_of_their_well(tmp_path, model):
    source = write_named(tmp_path / "P1", PIXELS, "plate_{well}_s{site}_w{channel}.tif")
    out = tmp_path / "out"
    run(model, source, out, reading=ImageReading(channels=CHANNELS))
    fields = pd.read_parquet(out / "fields.parquet")
    for row in fields.to_dict("records"):
        path = part_folder(out, row["plate"], row["well"]) / f"{row['name']}_labels.ome.zarr"
        found = numbers_in(path) if path.exists() else set()
        assert found >= listed(out, row["well"], row["site"])
    assert any(part_folder(out, row["plate"], row["well"]).glob("*_labels.ome.zarr"))
    with pytest.raises(OptionsError, match="cannot be written into"):
        run(model, source, tmp_path / "other", reading=ImageReading(channels=CHANNELS), masks="inside")
    run(model, source, tmp_path / "none", reading=ImageReading(channels=CHANNELS), masks="nowhere")
    assert not list((tmp_path / "none").rglob("*_labels.ome.zarr"))


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_masks_inside_a_plate_do_not_make_its_images_other_ones(tmp_path, model, version):
    source = write_zarr_plate(tmp_path / "plate.ome.zarr", PIXELS, version)
    out = tmp_path / "out"
    run(model, source, out, masks="inside")
    labels = sorted(source.rglob("labels/milcnn"))
    assert [str(one.relative_to(source).parent.parent) for one in labels] == ["A/01/1", "A/01/2", "A/02/1", "A/02/2"]
    for path, (well, site) in zip(labels, PIXELS, strict=True):
        assert numbers_in(path) >= listed(out, well, site)
    assert not list(out.rglob("*_labels.ome.zarr"))
    assert all(one.before for one in run(model, source, out, masks="inside", resume=True))
    with open_image(source / "A" / "01" / "1") as image:
        np.testing.assert_array_equal(image.plane(0), PIXELS["A01", 1])


def test_masks_are_not_written_into_plates_of_other_versions(tmp_path, model):
    source = write_zarr_plate(tmp_path / "plate.ome.zarr", PIXELS, "0.6")
    with pytest.raises(OptionsError, match=r"version 0\.4 or 0\.5"):
        run(model, source, tmp_path / "out", masks="inside")
    assert not (tmp_path / "out" / "parts").exists()
