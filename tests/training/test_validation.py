"""Which epoch is kept: never one of the first because a few validation images happened to be right."""

from __future__ import annotations

import math

import pytest
import torch

from napari_milcnn.model.card import EpochRecord
from napari_milcnn.training.validation import ImageOutputs, has_settled, is_better, validation_of


def row(brier, error=0.1, accuracy=0.5):
    """Make an epoch of a curve."""
    return EpochRecord(epoch=1, loss=1, pooled_loss=0.5, last_loss=0.5, validation_accuracy=accuracy,
                       validation_loss=1, validation_brier=brier, validation_brier_error=error)  # fmt: skip


def kept(curve):
    """Return the number of the epoch, from 1, that is kept of a whole curve."""
    return max(end for end in range(1, len(curve) + 1) if is_better(curve[:end]))


def outputs(scores, right):
    """Make outputs whose softmax is `scores`, and targets of which `right` is the class of each image."""
    logits = torch.tensor(scores).clamp(min=1e-6).log()
    targets = torch.nn.functional.one_hot(torch.tensor(right), logits.shape[1]).float()
    return ImageOutputs(logits, torch.tensor(scores), targets)


def test_the_brier_score_by_hand():
    """Two classes: .5 and .5 costs .5, a right answer nothing, a wrong one 2; with a wrong image added, the error."""
    found = validation_of(outputs([[0.5, 0.5], [1.0, 0.0], [0.0, 1.0]], [0, 0, 0]), single_label=True)
    assert found.brier == pytest.approx((0.5 + 0 + 2) / 3, abs=1e-4)
    values = (0.5, 0, 2, 2)
    variance = sum((value - sum(values) / 4) ** 2 for value in values) / 4
    assert found.brier_error == pytest.approx(math.sqrt(variance / 4), abs=1e-4)


def test_an_untrained_network_that_is_lucky_on_seven_images_is_not_kept():
    """Seven of seven right by scores of .51, and a trained network that is certainly wrong on one: the latter stays."""
    lucky = validation_of(outputs([[0.51, 0.49]] * 7, [0] * 7), single_label=True)
    trained = validation_of(outputs([[0.98, 0.02]] * 6 + [[0.0, 1.0]], [0] * 7), single_label=True)
    assert (lucky.accuracy, trained.accuracy) == (1, pytest.approx(6 / 7))
    assert trained.loss > lucky.loss
    curve = [row(one.brier, one.brier_error, one.accuracy) for one in (lucky, *[trained] * 5)]
    assert kept(curve) == len(curve)


def test_a_network_that_became_worse_is_not_kept():
    """Within a standard error of the lowest the latest is taken; beyond it an earlier one stays."""
    assert kept([row(b) for b in (0.9, 0.5, 0.2, 0.2, 0.2, 0.25, 0.28)]) == 7
    assert kept([row(b) for b in (0.9, 0.5, 0.2, 0.2, 0.2, 0.8, 0.9, 0.9)]) == 5
    assert kept([row(b, error=0.02) for b in (0.9, 0.5, 0.2, 0.2, 0.2, 0.25, 0.28)]) == 6


def test_one_bad_epoch_does_not_decide():
    """The epochs around it are averaged with it."""
    assert kept([row(b) for b in (0.5, 0.3, 0.2, 0.9, 0.2, 0.2, 0.2)]) == 7


def test_without_validation_the_latest_is_kept():
    plain = EpochRecord(epoch=1, loss=1, pooled_loss=0.5, last_loss=0.5)
    assert is_better([plain, plain])
    assert not has_settled([plain] * 9, 2)


def test_patience_counts_from_the_lowest():
    """Two epochs without a lower smoothed score end it, also where the latest is still kept."""
    curve = [row(b) for b in (0.9, 0.3, 0.3, 0.3, 0.35, 0.35)]
    assert [has_settled(curve[:end], 2) for end in range(1, 7)] == [False, False, False, False, False, True]
    assert kept(curve) == 6
    assert not has_settled(curve, None)
    assert not has_settled([], 2)
