"""The pooling functions of multiple instance learning: a map of instances becomes one probability per class.

Kraus, Ba & Frey 2016, section 2.2 (Noisy-AND, and the rivals it is compared with). Every module takes the class-map
*logits* z, float (batch, classes, Y, X), with instance probabilities p = sigmoid(z), and returns the image-level
probability P, float32 (batch, classes).

Logits, because products and powers over up to a million instances are stable only as logarithms, which are lost once p
is rounded to 0 or 1. Float32 for every input, because in bfloat16 a P of .998 becomes 1.

Logits are clamped to +-80: beyond 80 no p changes in float32, and an infinite logit would turn the gradient of a
log-sum-exp into NaN.

P is clamped to [0, 1]: a mean or a logarithm in float32 is rounded to 1.0000002 where every p is 1, which the
cross-entropy of the loss refuses.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_milcnn.options import PoolingName

_LARGEST_LOGIT = 80.0


def _instances(logits: Tensor) -> Tensor:
    """Flatten class-map logits (batch, classes, Y, X) to finite float32 (batch, classes, instances)."""
    return logits.float().flatten(2).clamp(-_LARGEST_LOGIT, _LARGEST_LOGIT)


def _probability(rounded: Tensor) -> Tensor:
    """Clamp to [0, 1] what rounding moved out of it."""
    return rounded.clamp(0, 1)


class NoisyAnd(nn.Module):
    """P rises steeply once the mean instance probability passes a learned threshold b (paper, equation 8).

    P = [s(a(m - b)) - s(-ab)] / [s(a(1 - b)) - s(-ab)], with s the logistic function and m the mean of p over the map.

    Parameters
    ----------
    classes : int
        Number of classes; each learns its own b.
    a : float
        Slope, fixed; the paper tries 5, 7.5 and 10.
    start : float
        Where every b starts, between 0 and 1: about the share of the map that the phenotype is expected to cover.

    Notes
    -----
    Ours: b = sigmoid(beta) with beta the parameter, so that b cannot leave (0, 1).
    """

    def __init__(self, classes: int, a: float = 10.0, start: float = 0.5) -> None:
        super().__init__()
        self.a = a
        self.beta = nn.Parameter(torch.full((classes,), math.log(start / (1 - start))))

    @property
    def b(self) -> Tensor:
        """The learned thresholds, float32 (classes,)."""
        return torch.sigmoid(self.beta.float())

    def forward(self, logits: Tensor) -> Tensor:  # noqa: D102
        mean = torch.sigmoid(_instances(logits)).mean(-1)  # (batch, classes)
        low = torch.sigmoid(-self.a * self.b)
        high = torch.sigmoid(self.a * (1 - self.b))
        return _probability((torch.sigmoid(self.a * (mean - self.b)) - low) / (high - low))


class NoisyOr(nn.Module):
    """P = 1 - prod(1 - p): one instance is enough. log(1 - P) = -sum softplus(z)."""

    def forward(self, logits: Tensor) -> Tensor:  # noqa: D102
        return -torch.expm1(-F.softplus(_instances(logits)).sum(-1))


class IntegratedSegmentationRecognition(nn.Module):
    """P = V / (1 + V) with V = sum p / (1 - p) (ISR; Keeler et al. 1991). P = sigmoid(logsumexp z)."""

    def forward(self, logits: Tensor) -> Tensor:  # noqa: D102
        return torch.sigmoid(torch.logsumexp(_instances(logits), -1))


class GeneralisedMean(nn.Module):
    """P = (mean p^r)^(1/r); r = 1 is the average. log P = (logsumexp(r logsigmoid z) - log N) / r."""

    def __init__(self, r: float = 2.5) -> None:
        super().__init__()
        self.r = r

    def forward(self, logits: Tensor) -> Tensor:  # noqa: D102
        log_p = F.logsigmoid(_instances(logits))
        return _probability(torch.exp((torch.logsumexp(self.r * log_p, -1) - math.log(log_p.shape[-1])) / self.r))


class LogSumExp(nn.Module):
    """P = log(mean exp(r p)) / r (LSE; Ramon & De Raedt 2000), on probabilities, not on logits."""

    def __init__(self, r: float = 2.5) -> None:
        super().__init__()
        self.r = r

    def forward(self, logits: Tensor) -> Tensor:  # noqa: D102
        p = torch.sigmoid(_instances(logits))
        return _probability((torch.logsumexp(self.r * p, -1) - math.log(p.shape[-1])) / self.r)


class MaxPooling(nn.Module):
    """P = max p: the single strongest instance decides."""

    def forward(self, logits: Tensor) -> Tensor:  # noqa: D102
        return torch.sigmoid(_instances(logits).amax(-1))


class AveragePooling(nn.Module):
    """P = mean p."""

    def forward(self, logits: Tensor) -> Tensor:  # noqa: D102
        return _probability(torch.sigmoid(_instances(logits)).mean(-1))


def make_pooling(name: PoolingName, classes: int, *, a: float = 10.0, r: float = 2.5, b: float = 0.5) -> nn.Module:
    """Build the pooling module of a name: `a` and `b` serve Noisy-AND, `r` the generalised mean and LSE."""
    match name:
        case "noisy_and":
            return NoisyAnd(classes, a, b)
        case "noisy_or":
            return NoisyOr()
        case "isr":
            return IntegratedSegmentationRecognition()
        case "generalised_mean":
            return GeneralisedMean(r)
        case "lse":
            return LogSumExp(r)
        case "max":
            return MaxPooling()
        case "average":
            return AveragePooling()
