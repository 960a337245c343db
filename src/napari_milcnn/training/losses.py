"""The joint loss of a batch, and the weight of each image in it (paper, section 2.4)."""

from __future__ import annotations

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from napari_milcnn.network.mil_network import NetworkOutput


def image_losses(output: NetworkOutput, targets: Tensor, single_label: bool) -> tuple[Tensor, Tensor]:
    """Both parts of the loss of each image, (batch,), for targets (batch, classes): of the pooled P, and of y."""
    pooled = F.binary_cross_entropy(output.probabilities, targets, reduction="none").sum(1)
    if single_label:
        return pooled, F.cross_entropy(output.scores, targets, reduction="none")
    return pooled, F.binary_cross_entropy_with_logits(output.scores, targets, reduction="none").sum(1)


_UNEVEN = 1.5
"""Images of the largest class over those of the smallest, from which on classes are balanced."""


def balance_of(targets: np.ndarray) -> str:
    """Tell how classes are balanced where that is left open, for targets (images, classes): sampling, or none.

    Sampling rather than weights: with ten images of one class for each of another, weights leave a batch of eight only
    one or two images that count, and batch norm measures a mixture that the loss does not have.
    """
    shown = targets.sum(0)
    return "sampling" if shown.max() > _UNEVEN * shown.min() else "none"


def image_weights(targets: np.ndarray) -> np.ndarray:
    """Weight of each image, float32 with mean 1, for targets (images, classes): the rarer its classes, the more."""
    rarity = 1 / np.maximum(targets.sum(0), 1)
    weights = (targets * rarity).sum(1) / np.maximum(targets.sum(1), 1)
    return np.asarray(weights / weights.mean(), np.float32)
