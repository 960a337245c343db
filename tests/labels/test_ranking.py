"""What to label next: the order is worked out by hand, scores agree with classification."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import tifffile
import torch

from conftest import delta_model, noise
from napari_milcnn.errors import OptionsError
from napari_milcnn.images.open import ImageReading, open_image
from napari_milcnn.inference.predict import classify
from napari_milcnn.labels.ranking import Embedded, Embedder, rank_images, spread_out, uncertainty
from napari_milcnn.labels.table import LabelledImage, LabelTable

NONE = np.zeros((0, 1))


def test_uncertainty_by_hand():
    """One label: 1 less the margin. Several: 1 where a class is at one half, 0.4 where the nearest is at .2 or .8."""
    scores = np.array([[0.5, 0.5, 0.0], [0.7, 0.2, 0.1], [0.0, 1.0, 0.0]])
    assert uncertainty(scores, single_label=True) == pytest.approx([1, 0.5, 0])
    assert uncertainty(scores[:, :1], single_label=True) == pytest.approx([0.5, 0.3, 1])
    assert uncertainty(np.array([[0.5, 1.0], [0.2, 0.9], [1.0, 0.0]]), single_label=False) == pytest.approx([1, 0.4, 0])


def test_alike_images_do_not_follow_each_other():
    """Places 0, .1, .2, 1 and 5, equally unsure: from 0 on the farthest, 5, then 1, then .2, then .1."""
    places, ones = np.array([[0.0], [0.1], [0.2], [1.0], [5.0]]), np.ones(5)
    assert spread_out(places, ones, NONE).tolist() == [0, 4, 3, 2, 1]
    assert spread_out(places, ones, np.array([[5.0]])).tolist()[0] == 0


def test_known_images_are_not_offered_again():
    """With 5 known, a copy of it comes last, however unsure; 0 is 5 away and half as unsure: 12.5 against 2 * 2."""
    places, unsure = np.array([[5.0], [3.0], [0.0]]), np.array([1.0, 1.0, 0.5])
    assert spread_out(places, unsure, np.array([[5.0]])).tolist() == [2, 1, 0]


def test_the_unsure_come_first_among_equally_far_ones():
    """Where nothing is known yet the most unsure is first; sure images count .01, so the far one of them leads."""
    corners = np.eye(3)
    assert spread_out(corners, np.array([0.2, 0.9, 0.5]), NONE).tolist() == [1, 2, 0]
    assert spread_out(np.array([[1.0], [2.0]]), np.zeros(2), np.zeros((1, 1))).tolist() == [1, 0]


def test_behind_the_spread_ones_the_rest_follows(monkeypatch):
    """Two are spread out, 0 and 9; of 1, 4 and 8 the farthest from those is 4; 1 and 8 stay in their order."""
    monkeypatch.setattr("napari_milcnn.labels.ranking._SPREAD", 2)
    places = np.array([[0.0], [1.0], [4.0], [8.0], [9.0]])
    assert spread_out(places, np.ones(5), NONE).tolist() == [0, 4, 2, 1, 3]


@pytest.mark.parametrize("tile", [None, 90])
def test_scores_agree_with_classification(compact, tile):
    """Scores are those of classification, the embedding is the mean of the encoder's maps; tiles change neither."""
    pixels = noise(2, 2, 120, 140, seed=3)
    image = open_image(pixels, axes="TCYX", channels=["GFP", "RFP"])
    *waiting, (share, found) = Embedder(compact, tile=tile, precision="float32").steps(image)
    assert len(waiting) == (2 if tile is None else 12)
    assert share == 1
    assert isinstance(found, Embedded)
    expected = classify(compact, image, precision="float32").scores.mean(0)
    np.testing.assert_allclose(found.scores, expected, rtol=1e-4, atol=1e-6)
    normalised = torch.from_numpy(np.stack([compact.fixed_intensity.apply(plane) for plane in pixels]))
    with torch.inference_mode():
        features = compact.network.encoder(normalised).mean((0, 2, 3)).numpy()
    np.testing.assert_allclose(found.embedding, features, rtol=1e-3, atol=1e-4)


@pytest.fixture
def discs(tmp_path):
    """Six images of 80 px: a bright disc in channel 0 (images 0 to 2) or 1 (3), none (4), and one that is no image."""
    for i, (first, second) in enumerate([(9, 0), (9, 0), (3, 0), (0, 9), (0, 0)]):
        image = np.zeros((2, 80, 80), np.float32)
        image[0, 38:42, 38:42], image[1, 38:42, 38:42] = first, second
        tifffile.imwrite(tmp_path / f"{i}.tif", image)
    (tmp_path / "5.tif").write_bytes(b"no image")
    images = tuple(LabelledImage(tmp_path / f"{i}.tif", (), str(i)) for i in range(6))
    return LabelTable(images, ImageReading(axes="CYX", channels=("c0", "c1")))


def test_images_are_ranked(discs):
    """With image 0 known its copy comes behind all that differ; what cannot be read is last, with its reason."""
    *steps, last = rank_images(delta_model(2), discs, [1, 2, 3, 4, 5], known=[0], precision="float32")
    assert [step.result for step in steps] == [None] * len(steps)
    assert (steps[-1].fraction, last.number, last.total) == (1, 6, 6)
    assert [step.number for step in steps] == sorted(step.number for step in steps)
    assert last.result is not None
    assert set(last.result.order[:3]) == {2, 3, 4}
    assert last.result.order[3:] == (1, 5)
    assert last.result.errors.keys() == {5}
    assert "5.tif" in last.result.errors[5]
    assert np.isnan(last.result.scores[-1]).all()
    assert np.isnan(last.result.uncertainty[-1])
    top = classify(delta_model(2), discs.reading.open(discs.images[3].file), precision="float32").scores[0]
    np.testing.assert_allclose(last.result.scores[last.result.order.index(3)], top, rtol=1e-4)


def test_a_ranking_can_be_left(discs):
    """Left after its first image, it has looked at no other; with nothing to rank the order is empty."""
    steps = rank_images(delta_model(2), discs, [0, 1, 2])
    first = next(step for step in steps if step.number == 1)
    assert (first.number, first.share) == (1, 0)
    steps.close()
    *_, last = rank_images(delta_model(2), discs, [])
    assert last.result.order == ()


def test_only_unreadable_images(discs):
    """None can be looked at: they stand in their order, each with its reason."""
    lost = replace(
        discs, images=(*discs.images, replace(discs.images[5], file=discs.images[5].file.with_name("6.tif")))
    )
    *_, last = rank_images(delta_model(2), lost, [6, 5])
    assert last.result.order == (6, 5)
    assert last.result.errors.keys() == {5, 6}


def test_a_wrong_option_is_refused(discs):
    with pytest.raises(OptionsError, match="there is no option 'tiles'"):
        next(rank_images(delta_model(2), discs, [0], tiles=3))
