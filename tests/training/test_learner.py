"""The average of a network over its steps, by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from conftest import SMALL
from napari_milcnn import new_model
from napari_milcnn.inference.devices import choose_device
from napari_milcnn.options import TrainOptions
from napari_milcnn.training.learner import Learner
from napari_milcnn.training.patch_dataset import Batch


def learner(average):
    """Make a learner of a small network."""
    model = new_model(["a", "b"], ["c"], **SMALL)
    return Learner(model.network, TrainOptions(average=average), choose_device("cpu", "float32"), 75, True)


def steps(one, count, seed=0):
    """Take some steps on random images, and return the network after each."""
    rng, states = np.random.default_rng(seed), []
    for _ in range(count):
        one.begin_epoch(0)
        one.step(Batch(rng.normal(0, 1, (2, 1, 80, 80)).astype(np.float32), np.eye(2, dtype=np.float32), None, 2), 1)
        states.append({name: value.clone() for name, value in one.network.state_dict().items()})
    return states


@pytest.mark.parametrize("average", [0.98, 0.1])
def test_the_average_by_hand(average):
    """It starts at the first step; the second counts 9 parts of 11, or as much as the option says, if that is more."""
    one = learner(average)
    first, second = steps(one, 2)
    weight = max(1 - average, 9 / 11)
    for name, value in one.averaged.state_dict().items():
        if value.is_floating_point():  # parameters, and the running statistics of batch norm
            torch.testing.assert_close(value, first[name] + weight * (second[name] - first[name]))
        else:
            assert torch.equal(value, second[name])


def test_no_average_is_the_network_itself():
    one = learner(0)
    latest = steps(one, 3)[-1]
    assert all(torch.equal(value, latest[name]) for name, value in one.averaged.state_dict().items())


def test_the_average_goes_on_from_its_state():
    """As one that was never stopped."""
    whole, begun, resumed = learner(0.9), learner(0.9), learner(0.9)
    steps(whole, 2), steps(begun, 2)
    resumed.restore(begun.state())
    steps(whole, 2, seed=1), steps(resumed, 2, seed=1)
    mine, theirs = resumed.averaged.state_dict(), whole.averaged.state_dict()
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)
