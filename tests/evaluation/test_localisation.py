"""Evidence against known cells: scores that a person can work out, and truth images that are refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
import tifffile

from conftest import delta_model
from napari_milcnn import open_image
from napari_milcnn.errors import LabelsError
from napari_milcnn.evaluation.localisation import (
    LocalisationScores,
    dice,
    mean_scores,
    read_truth,
    score_field,
    score_plane,
    truth_file,
)
from napari_milcnn.inference.evidence import EvidenceMaker
from napari_milcnn.inference.pipeline import ImageRequest, PlaneResult, analyse
from napari_milcnn.options import MaskOptions


def field():
    """Two own cells (2 x 2 px each) and one other, on 10 x 10 px."""
    truth = np.zeros((10, 10), np.uint8)
    truth[1:3, 1:3] = truth[1:3, 7:9] = 2
    truth[7:9, 4:6] = 1
    return truth


def test_perfect_evidence():
    """Evidence that is the truth scores 1 everywhere."""
    truth = field()
    own = truth == 2
    assert score_field(own.astype(np.float32), own, truth) == LocalisationScores(1, 1, 1, 1, 1)


def test_half_of_it_by_hand():
    """One own cell at 1, the other cell at .5, the second own cell at 0: 4 of 8 own pixels come first.

    Pixels: precision 1 for the first half, then 8 own of 100. Cells: own, other, own, so (1 + 2/3) / 2.
    Dice of the mask (4 px of 8): 2 * 4 / (4 + 8).
    """
    truth = field()
    evidence = np.zeros((10, 10), np.float32)
    evidence[1:3, 1:3], evidence[7:9, 4:6] = 1, 0.5
    scores = score_field(evidence, evidence == 1, truth)
    assert scores.pixel_ap == pytest.approx(0.5 + 0.5 * 8 / 100)
    assert scores.cell_ap == pytest.approx((1 + 2 / 3) / 2)
    assert scores.dice == scores.best_dice == pytest.approx(2 / 3)
    assert scores.pointing == 1


def test_pointing_at_another_cell():
    """The strongest pixel in another cell is a miss."""
    truth = field()
    assert score_field((truth == 1).astype(np.float32), truth == 1, truth).pointing == 0


def test_what_cannot_be_measured_is_nan():
    """No own cell: no average precision; only own cells: no ranking of cells; empty masks agree."""
    nothing = score_field(np.zeros((4, 4)), np.zeros((4, 4), bool), np.ones((4, 4), np.uint8))
    assert math.isnan(nothing.pixel_ap)
    assert math.isnan(nothing.pointing)
    assert nothing.dice == 1
    only = np.where(field() == 2, 2, 0)
    assert math.isnan(score_field(only.astype(float), only == 2, only).cell_ap)
    assert dice(np.zeros((2, 2), bool), np.ones((2, 2), bool)) == 0


def test_means_leave_out_nan():
    """A score that is NaN for one image is averaged over the others."""
    both = mean_scores([LocalisationScores(1, math.nan, 1, 1, 0), LocalisationScores(0, 0.5, 0, 0, 1)])
    assert both == LocalisationScores(0.5, 0.5, 0.5, 0.5, 0.5)
    assert math.isnan(mean_scores([]).dice)


def test_a_model_finds_a_bright_square():
    """A model made by hand that sees brightness points at the bright cell."""
    pixels = np.zeros((1, 120, 120), np.float32)
    pixels[0, 54:66, 54:66], pixels[0, 10:20, 10:20] = 3, 2
    truth = np.zeros((1, 120, 120), np.int32)
    truth[0, 54:66, 54:66], truth[0, 10:20, 10:20] = 2, 1
    maker = EvidenceMaker(delta_model(), kind="object", device="cpu", precision="float32")
    with open_image(pixels, axes="CYX", channels=["c0"]) as image:
        request = ImageRequest("image", lambda: image, masks=MaskOptions(present=0.0), classes=("c0",))
        (result,) = [step.result for step in analyse(maker, [request]) if isinstance(step.result, PlaneResult)]
        scores = score_plane(result, truth)
    assert scores.cell_ap == 1
    assert scores.pointing > 0.7  # the foreground is smoothed, so the object is a little larger than the cell
    assert 0 < scores.dice <= scores.best_dice <= 1


def test_truth_is_found_and_checked(tmp_path):
    """`a.ome.tif` has its truth in `a.tif`; other numbers, other sizes are refused; no file is no truth."""
    image = open_image(np.zeros((10, 10), np.uint8), axes="YX")
    assert truth_file(tmp_path, tmp_path / "a.ome.tif") is None
    tifffile.imwrite(tmp_path / "a.tif", field())
    assert truth_file(tmp_path, tmp_path / "a.ome.tif") == tmp_path / "a.tif"
    np.testing.assert_array_equal(read_truth(tmp_path / "a.tif", image), field()[None])
    tifffile.imwrite(tmp_path / "b.tif", np.full((10, 10), 7, np.uint8))
    with pytest.raises(LabelsError, match=r"b\.tif has the numbers 7; expected a truth image with 0 for background"):
        read_truth(tmp_path / "b.tif", image)
    tifffile.imwrite(tmp_path / "c.tif", field()[:5])
    with pytest.raises(LabelsError, match=r"the labels of c\.tif are 5 x 10 px, but the image is 10 x 10 px"):
        read_truth(tmp_path / "c.tif", image)
