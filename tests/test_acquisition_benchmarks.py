"""The benchmarks of other microscopes: what each change does to an image, by numbers worked out by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile

from napari_milcnn.labels.table import LabelledImage


@pytest.fixture
def image() -> np.ndarray:
    """Return a ramp of 64 x 64 px from 0 to 200."""
    return np.linspace(0, 200, 4096).reshape(64, 64).astype(np.uint8)


def test_changes_of_intensity_clip_as_a_camera_does(image):
    """Half, double and saturated above 127, shifted, and the same pixels in other types."""
    from benchmarks.acquisition.changes import changed

    assert changed(image, "none", 0) is image
    np.testing.assert_array_equal(changed(image, "gain x2", 0), np.minimum(2 * image.astype(int), 255))
    np.testing.assert_array_equal(changed(image, "+20 grey levels", 0), image + 20)
    np.testing.assert_array_equal(changed(image, "darker background, -6 grey levels", 0), image.clip(6) - 6)
    sixteen, twelve, unit = (changed(image, name, 0) for name in ("16 bit (x257)", "12 bit", "float 0-1"))
    assert (sixteen.dtype, twelve.dtype, unit.dtype) == (np.uint16, np.uint16, np.float32)
    assert (sixteen[-1, -1], twelve[-1, -1], unit[-1, -1]) == (51400, 3212, np.float32(200 / 255))
    both = changed(image, "+20 grey levels, then 16 bit", 0)
    np.testing.assert_array_equal(both, (image.astype(np.uint16) + 20) * 257)


def test_changes_of_noise_size_and_light(image):
    """Noise of its sigma, the same for the same field; sizes of .8 and 1.25; .6 of the light in the corner."""
    from benchmarks.acquisition.changes import CHANGES, changed

    flat = np.full((64, 64), 100, np.uint8)
    noisy = changed(flat, "noise, sigma 10", 1)
    assert noisy.std() == pytest.approx(10, rel=0.1)
    np.testing.assert_array_equal(noisy, changed(flat, "noise, sigma 10", 1))
    assert (noisy != changed(flat, "noise, sigma 10", 2)).any()
    assert changed(image, "size x0.8", 0).shape == (51, 51)
    assert changed(image, "size x1.25", 0).shape == (80, 80)
    sides = [changed(image, f"size x{factor}", 0).shape[0] for factor in ("0.5", "0.65", "1.5", "2")]
    assert sides == [32, 42, 96, 128]
    uneven = changed(flat, "light falls to 0.6 in the corners", 0)
    assert (uneven[0, 0], uneven[32, 32]) == (60, 100)
    assert changed(image, "blur, sigma 1 px", 0)[0, 0] > image[0, 0]
    assert all(changed(image, name, 0).ndim == 2 for name in CHANGES)


def test_standardised_takes_off_gain_and_offset(image):
    """A field and the same field at half the gain look alike to the standardised peer."""
    from benchmarks.acquisition.shifts import standardised

    np.testing.assert_allclose(standardised(image), standardised(image.astype(np.float32) * 0.5 + 7), atol=1e-5)
    assert np.median(standardised(image)) == 0
    assert not standardised(np.full((8, 8), 9, np.uint8)).any()


def test_every_technical_kind_can_be_made(tmp_path):
    """Fourteen kinds of images of two axes, the same for the same number; what shows nothing has no field in it."""
    from benchmarks.acquisition.kinds import TECHNICAL, Sources, make

    tifffile.imwrite(tmp_path / "field.tif", np.arange(64 * 64, dtype=np.uint16).reshape(64, 64).astype(np.uint8))
    digits = np.zeros((20, 28, 28), np.uint8)
    sources = Sources([tmp_path / "field.tif"], [tmp_path / "field.tif"], digits, np.arange(20) % 10)
    assert len(TECHNICAL) == 14
    for kind in TECHNICAL.keys() - {"another cell (yeast)"}:
        image = make(kind, sources, 1)
        assert image.ndim == 2
        np.testing.assert_array_equal(image, make(kind, sources, 1))
    assert make("half size", sources, 0).shape == (32, 32)
    assert (make("inverted", sources, 0)[0, :3] == [255, 254, 253]).all()
    assert sum(kind.shows_nothing for kind in TECHNICAL.values()) == 5


def test_a_reason_is_right_if_it_has_one_of_the_words():
    """No reason is wrong, another word is wrong, any reason will do for a kind without words."""
    from benchmarks.acquisition.kinds import TECHNICAL

    blurred, digits = TECHNICAL["defocused, sigma 6 px"], TECHNICAL["digits"]
    assert blurred.is_named("too dark; blurred: less fine detail")
    assert not blurred.is_named("too dark")
    assert digits.is_named("too dark")
    assert not digits.is_named("")


def test_wells_separate_better_than_fields():
    """Of known -1, 1 and new 0, 2 three of four pairs are right; wells of two, 0 and 1, are told apart."""
    from benchmarks.acquisition.unlike import Answer, auroc, grouped

    known, new = ([Answer(float(np.exp(value)), False, "", "a") for value in values] for values in ((-1, 1), (0, 2)))
    assert auroc(grouped(known, 1), grouped(new, 1)) == 0.75
    assert grouped(known, 2) == pytest.approx([0])
    assert auroc(grouped(known, 2), grouped(new, 2)) == 1
    assert np.isnan(auroc(grouped(known, 4), grouped(new, 4)))


def test_single_cells_betray_an_unseen_phenotype():
    """New are cells taken for class b that look otherwise, and fields of b and c at once; known fields have one."""
    from benchmarks.acquisition.phenotypes import Cells, Known, aurocs

    rng = np.random.default_rng(0)

    def fields(kinds: dict[str, list[int]], shift: float) -> Cells:
        own = [(name, classes) for name, classes in kinds.items() for _ in range(8)]
        shown = np.array([[*rng.choice(classes, 20), *[0] * 20] for _, classes in own])
        measured = rng.normal(shown[..., None] * [3.0, -2, 0, 0, 0, 0, 0], 1)
        measured[shown == 1] += shift * np.array([0, 0, 0, 1, 0, 0, 0])
        logits = 6.0 * np.eye(3)[shown.ravel()] + rng.normal(0, 0.5, (shown.size, 3))
        return Cells(measured.reshape(-1, 7), logits, np.repeat(np.arange(len(own)), 40), np.array([n for n, _ in own]))

    known = {"a": [0], "b": [1], "c": [2]}
    look = Known("abc", "a", fields(known, 0.0))
    old, others, mixed = (look.ways(one) for one in (
        fields(known, 0.0), fields({"new": [1]}, 2.0), fields({"new": [1, 2]}, 0.0)))  # fmt: skip
    labels = np.repeat([*known], 8)
    rows = [aurocs(old, labels, new, np.full(8, "new"), np.full(8, True)) for new in (others, mixed)]
    _, _, cells, cells_wells, _, _, both, _ = rows[0]
    assert (cells, cells_wells) == (1, 1)
    assert both == 1
    assert rows[1][4:6] == [1, 1]  # mixture


def test_objects_are_measured_in_any_orientation_alike():
    """A bright disc and an ellipse differ in eccentricity; the ellipse turned by 90 degrees has the same numbers."""
    from benchmarks.acquisition.phenotypes import MEASURED, measurements

    y, x = np.mgrid[:60, :60]
    objects = np.where((y - 15) ** 2 + (x - 15) ** 2 < 64, 1, 0) + np.where(
        (y - 42) ** 2 / 4 + (x - 40) ** 2 < 36, 2, 0
    )
    pixels = np.where(objects > 0, 5.0, 0.0).astype(np.float32) + 0.01 * np.cos(y + 0.0).astype(np.float32)
    found, turned = measurements(pixels, objects), measurements(np.rot90(pixels).copy(), np.rot90(objects).copy())
    eccentricity = MEASURED.index("eccentricity")
    assert found.shape == (2, len(MEASURED))
    assert found[0, eccentricity] < 0.1 < 0.8 < found[1, eccentricity]
    assert turned == pytest.approx(found, rel=1e-3, abs=1e-3)


def test_tenfold_exposure_stays_within_its_range():
    """Exposures of both channels, each from 0.316 to 3.16, with a median near 1."""
    from benchmarks.acquisition.yeast_brightness import exposure

    drawn = [exposure(np.random.default_rng(i)) for i in range(200)]
    both = np.array([(one.gfp_exposure, one.rfp_exposure) for one in drawn])
    assert both.min() > 10**-0.5
    assert both.max() < 10**0.5
    assert np.median(both) == pytest.approx(1, rel=0.2)
    assert abs(np.corrcoef(np.log(both).T)[0, 1]) < 0.2


def test_lights_are_compared():
    """All four fields right in uniform light, half of them in the other: .5 less."""
    from benchmarks.acquisition.yeast_brightness import lines

    rows = pd.DataFrame({
        "light": ["uniform"] * 4 + ["tenfold"] * 4, "seed": 0, "file": list("abcd") * 2, "group": list("abcd") * 2,
        "label": ["ER", "ER", "vacuole", "vacuole"] * 2, "hand-made": ["ER"] * 8,
        "ER": [0.9, 0.8, 0.1, 0.2, 0.9, 0.4, 0.6, 0.2], "vacuole": [0.1, 0.2, 0.9, 0.8, 0.1, 0.6, 0.4, 0.8],
    })  # fmt: skip
    found = lines(rows)
    assert found[0].startswith("4 test fields")
    assert found[-1].startswith("| tenfold less uniform | -0.500 | -0.500 |")


def test_small_tables_choose_their_fields():
    """20 Interphase and 2 of each other; two classes of 17; 40 and 7 held; 5 of each."""
    from benchmarks.accuracy.small_tables import chosen, lines

    names = ["Apoptosis", "Binuclear", "Elongated", "Hole", "Interphase", "Metaphase", "Polylobed", "Prometaphase"]
    images = tuple(LabelledImage(Path(f"{name}{i}.tif"), (name,), "") for i in range(20) for name in names)
    counts = {case: len(chosen(case, images)) for case in ("uneven", "two", "few", "seeds")}
    assert counts == {"uneven": 34, "two": 34, "few": 47, "seeds": 40}
    splits = [row.split for row in chosen("few", images)]
    assert (splits.count("train"), splits.count("validation")) == (40, 7)
    rows = pd.DataFrame({"case": "few", "seed": [0, 1], "images": 47, "epochs": 3, "kept": [0.8, 0.9],
                         "last": [0.9, 0.85], "hand-made": 0.5})  # fmt: skip
    assert lines(rows)[-1] == "| few | 47 | 2 | 0.850 | 0.875 | 0.500 | 0.800 | 0.100 |"


def test_counts_are_compared_with_the_truth():
    """Twice as many objects as cells; shares that follow the truth; none affected in the background class."""
    from benchmarks.accuracy.counts import joined, lines

    truth = pd.DataFrame({"file": [f"images/{i}.tif" for i in range(4)], "label": ["Hole"] * 3 + ["Interphase"],
                          "n_cells": 10, "n_target": [2, 4, 6, 10]})  # fmt: skip
    found = pd.DataFrame({"file": [f"/a/{i}.tif" for i in range(4)], "cells": [20, 10, 10, 10],
                          "share Hole": [0.3, 0.5, 0.7, 0.1], "share Interphase": [0.7, 0.5, 0.3, 0.9]})  # fmt: skip
    text = lines(joined(truth, found))
    assert text[2] == "| Hole | 3 | 1.333 | 2.000 | 0.400 | 0.500 | 1.000 |"
    assert text[3] == "| Interphase | 1 | 1.000 | 1.000 | 0.000 | 0.100 | nan |"
