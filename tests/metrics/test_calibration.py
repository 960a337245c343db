"""Calibration: the temperature, the curve, the error, and what the model does with them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.special import expit, softmax

from conftest import lively_model, noise
from napari_milcnn import classify, load_model, open_image
from napari_milcnn.errors import OptionsError
from napari_milcnn.metrics.calibration import (
    answers,
    fit_offsets,
    fit_temperature,
    logits_of,
    reliability_curve,
)


def scores_of(logits, single_label, temperature=1.0):
    return softmax(logits / temperature, axis=1) if single_label else expit(logits / temperature)


def three_of_four(logit, images=40):
    """Two classes: the first is said of every image, `logit` above the other, and three of four images show it."""
    logits = np.tile([logit, 0.0], (images, 1))
    shows = np.arange(images) % 4 > 0
    return logits, np.stack([shows, ~shows], 1).astype(float)


def test_temperature_by_hand():
    """Right in three of four is a logit of ln 3: said with 3 ln 3, T is 3; said with ln 3 / 2, T is one half."""
    assert fit_temperature(*three_of_four(3 * math.log(3)), single_label=True) == pytest.approx(3, rel=1e-3)
    assert fit_temperature(*three_of_four(math.log(3) / 2), single_label=True) == pytest.approx(0.5, rel=1e-3)


def test_temperature_of_several_labels():
    """The same with sigmoids: a yes that is right in three of four."""
    logits, targets = three_of_four(3 * math.log(3))
    assert fit_temperature(logits[:, :1], targets[:, :1], single_label=False) == pytest.approx(3, rel=1e-3)


def test_no_temperature_from_too_little():
    """Fewer than 20 images, or no wrong answer to learn from: T stays 1."""
    assert fit_temperature(*three_of_four(9.0, images=19), single_label=True) == 1
    logits = np.tile([0.1, 0.0], (30, 1))
    assert fit_temperature(logits, np.tile([1.0, 0.0], (30, 1)), single_label=True) == 1


@pytest.mark.parametrize("single_label", [True, False])
def test_temperature_keeps_the_top_class(single_label):
    """Scores change, their order does not; logits and scores turn into each other."""
    logits = np.random.default_rng(0).normal(0, 3, (50, 4))
    scores = scores_of(logits, single_label)
    cooled = scores_of(logits_of(scores, single_label), single_label, 3.0)
    np.testing.assert_array_equal(cooled.argsort(1), scores.argsort(1))
    np.testing.assert_allclose(cooled, scores_of(logits, single_label, 3.0), atol=1e-6)
    assert cooled.max() < scores.max()


def test_calibration_error_by_hand():
    """Ten answers at .95 of which 5 are right, and ten at .55 of which 5: (.45 + .05) / 2."""
    scores = np.array([[0.95, 0.05]] * 10 + [[0.55, 0.45]] * 10)
    targets = np.array([[1, 0], [0, 1]] * 10)
    assert reliability_curve(*answers(scores, targets, single_label=True)).error == pytest.approx(0.25)
    assert math.isnan(reliability_curve(np.empty(0), np.empty(0)).error)


def test_reliability_curve_by_hand():
    """Two bins: .2 and .4 fall into the first, 1 into the last; an empty bin is NaN."""
    curve = reliability_curve(np.array([0.2, 0.4, 1.0]), np.array([0.0, 1.0, 1.0]), bins=2)
    np.testing.assert_allclose(curve.confidence, [0.3, 1.0])
    np.testing.assert_allclose(curve.observed, [0.5, 1.0])
    assert curve.count.tolist() == [2, 1]
    assert np.isnan(reliability_curve(np.array([0.9]), np.array([1.0]), bins=2).confidence[0])


def test_answers_of_one_label_and_of_several():
    """One label: the top class of each image; several: every image and class."""
    scores, targets = np.array([[0.7, 0.3], [0.2, 0.8]]), np.array([[1, 0], [1, 0]])
    assert [part.tolist() for part in answers(scores, targets, True)] == [[0.7, 0.8], [1, 0]]
    assert [part.tolist() for part in answers(scores, targets, False)] == [[0.7, 0.3, 0.2, 0.8], [1, 0, 1, 0]]


@pytest.mark.parametrize("single_label", [True, False])
def test_the_model_divides_by_its_temperature(tmp_path, single_label):
    """Scores are softmax(y / T) or sigmoid(y / T); P is untouched; T is saved with the model."""
    model = lively_model().with_card(single_label=single_label)
    image = noise(2, 100, 110)
    warm = load_model(model.with_card(temperature=4.0).save(tmp_path / "m.zip"))
    before, after = (classify(m, open_image(image, axes="CYX"), device="cpu") for m in (model, warm))
    wanted = scores_of(logits_of(before.scores, single_label), single_label, 4.0)
    np.testing.assert_allclose(after.scores, wanted, atol=1e-5)
    np.testing.assert_array_equal(after.probabilities, before.probabilities)
    assert after.top == before.top


def test_a_temperature_is_above_zero():
    """A card refuses a temperature that would turn or erase the scores."""
    with pytest.raises(OptionsError, match="temperature"):
        lively_model().with_card(temperature=0.0)


def test_offsets_mend_what_was_added_to_a_class():
    """Calibrated logits of which one class was robbed of 2: the offset found gives it back, and answers come right."""
    rng = np.random.default_rng(0)
    targets = np.eye(3)[rng.integers(0, 3, 600)]
    logits = 2 * targets + rng.normal(0, 1, (600, 3))
    robbed = logits - np.array([2.0, 0, 0])
    temperature, offsets = fit_offsets(robbed, targets, single_label=True)
    mended = robbed / temperature + offsets
    assert offsets[0] - offsets[1] == pytest.approx(2 / temperature, abs=0.3)
    right = [(found.argmax(1) == targets.argmax(1)).mean() for found in (robbed, mended, logits)]
    assert right[0] < right[1] - 0.1
    assert right[1] == pytest.approx(right[2], abs=0.02)
