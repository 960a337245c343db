"""Features of wells: of all instances together, standardised by controls, and written as a table that AnnData takes."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from screen_plates import CHANNELS, WELLS, plate_pixels, write_layout, write_named

from conftest import lively_model
from napari_milcnn.images.open import ImageReading, open_image
from napari_milcnn.inference.predict import Bags, classify, classify_group
from napari_milcnn.model.package_read import load_model
from napari_milcnn.screens.features import (
    BY_CONTROLS,
    BY_WELLS,
    SPHERED,
    feature_names,
    features_of_wells,
    joined_features,
    sphered,
    standardised,
)
from napari_milcnn.screens.parts import wells_of_steps
from napari_milcnn.screens.run import screen

CPU = {"device": "cpu", "precision": "float32"}


def wells_table(values: list[list[float]], plates: list[str], controls: list[str]) -> pd.DataFrame:
    """Make a table of wells with features."""
    rows = pd.DataFrame({"plate": plates, "well": [f"A{i:02}" for i in range(len(plates))], "control": controls})
    return rows.join(pd.DataFrame(values, columns=[f"feature_{i:03}" for i in range(len(values[0]))]))


def test_features_of_planes_are_joined_to_those_of_all_their_instances() -> None:
    """Mean and standard deviation over maps of three sizes, from the mean and standard deviation of each."""
    rng = np.random.default_rng(0)
    maps = [rng.normal(i, 1 + i, (3, size)) for i, size in enumerate((5, 80, 31))]
    vectors = np.stack([np.concatenate([one.mean(1), one.std(1)]) for one in maps])
    bags = Bags(np.array([5, 80, 31]), np.zeros((3, 1), np.float32), vectors.astype(np.float32))
    every = np.concatenate(maps, 1)
    np.testing.assert_allclose(joined_features(bags), np.concatenate([every.mean(1), every.std(1)]), rtol=1e-5)


def test_features_are_standardised_by_the_negative_controls_of_their_plate() -> None:
    """Plate 2 is 100 brighter; its well that is 6 above its controls, whose spread is 1.48, is as far as that of 1."""
    values = [[0.0], [1], [-1], [6], [100], [101], [99], [106]]
    plates, controls = ["1"] * 4 + ["2"] * 4, ["negative"] * 3 + [""] + ["negative"] * 3 + [""]
    found = standardised(wells_table(values, plates, controls))
    np.testing.assert_allclose(found["feature_000"], np.array([0, 1, -1, 6] * 2) / 1.4826, rtol=1e-5)
    assert set(found["standardised by"]) == {BY_CONTROLS}
    alone = standardised(wells_table(values, ["1"] * 4 + ["2"] * 4, controls[:4] + [""] * 4))
    assert alone["standardised by"].tolist() == [BY_CONTROLS] * 4 + [BY_WELLS] * 4
    np.testing.assert_allclose(alone["feature_000"][4:], np.array([-0.5, 0.5, -1.5, 5.5]) / 1.4826, rtol=1e-5)
    none = standardised(wells_table(values, plates, [""] * 8))
    assert set(none["standardised by"]) == {BY_WELLS}
    assert np.isfinite(none["feature_000"]).all()


def test_sphered_features_of_negative_controls_vary_as_much_in_each_direction() -> None:
    """Two features that go together in controls do not hide a well in which they go apart."""
    rng = np.random.default_rng(0)
    together = rng.normal(0, 3, (400, 1)) + rng.normal(0, 0.3, (400, 2))
    values = np.concatenate([together, [[2.0, -2.0], [6.0, 6.0]]]).tolist()
    table = standardised(wells_table(values, ["1"] * 402, ["negative"] * 400 + ["", ""]))
    found = sphered(table)
    before, after = (
        np.linalg.eigvalsh(np.cov(one.iloc[:400][["feature_000", "feature_001"]].T)) for one in (table, found)
    )
    assert before[1] > 100 * before[0]
    assert after[1] < 4 * after[0]  # shrunk, since controls may be few
    apart, along = np.linalg.norm(found[["feature_000", "feature_001"]].to_numpy()[400:], axis=1)
    assert apart > 2 * along
    assert set(found["standardised by"]) == {SPHERED}
    layout = table[["plate", "well", "control"]]
    rows = wells_table(values, ["1"] * 402, [""] * 402).drop(columns="control")
    pd.testing.assert_frame_equal(features_of_wells(rows, layout, sphere=True), found, check_like=True)
    few = standardised(wells_table(values[-12:], ["1"] * 12, ["negative"] * 9 + [""] * 3))
    assert sphered(few) is few


def test_a_feature_that_controls_do_not_have_is_not_blown_up() -> None:
    """A spread of nought is replaced by a tenth of that of the typical feature."""
    table = wells_table([[0.0, 5], [1, 5], [-1, 5], [0, 6]], ["1"] * 4, ["negative"] * 3 + [""])
    assert standardised(table)["feature_001"].iloc[3] == pytest.approx(1 / (0.1 * 1.4826), rel=1e-5)


def test_a_screen_writes_the_features_and_the_bag_of_each_well(tmp_path) -> None:
    """They are those of the fields of the well classified together, beside what the layout says; AnnData takes them."""
    pixels = plate_pixels(72)
    lively_model().save(tmp_path / "m.zip")
    model = load_model(tmp_path / "m.zip")
    source = write_named(tmp_path / "plate", pixels, "plate_{well}_s{site}_w{channel}.tif")
    layout = write_layout(tmp_path / "layout.csv")
    reading = ImageReading(channels=CHANNELS)
    wells_of_steps(screen(model, source, tmp_path / "out", layout=layout, reading=reading, cells=False, **CPU))
    table = pd.read_parquet(tmp_path / "out" / "features.parquet")
    assert table["well"].tolist() == list(WELLS)
    assert table["control"].tolist() == ["negative", "", "", "empty"]
    names = feature_names(table)
    assert len(names) == 2 * model.network.maps.in_channels
    fields = [open_image(pixels["A02", site], axes="CYX", channels=list(CHANNELS)) for site in (1, 2)]
    together = classify_group(model, fields, **CPU)
    row = table.iloc[1]
    assert row["instances"] == together.instances
    for number, name in enumerate(model.classes):
        assert row[f"bag score {name}"] == pytest.approx(float(together.scores[number]), abs=1e-5)
        assert row[f"bag P {name}"] == pytest.approx(float(together.probabilities[number]), abs=1e-5)
    assert sorted(pd.read_csv(tmp_path / "out" / "likeness.csv")["well"]) == sorted(WELLS)
    part = pd.read_parquet(tmp_path / "out" / "parts" / "plate" / "A02" / "well.parquet")
    bags = Bags.joined([classify(model, field, **CPU).bags for field in fields])
    np.testing.assert_allclose(part[names].iloc[0].to_numpy(float), joined_features(bags), atol=1e-5)
