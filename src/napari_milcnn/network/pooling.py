"""The pooling functions of multiple instance learning: a map of instances becomes one probability per class.

Kraus, Ba & Frey 2016, section 2.2 (Noisy-AND, and the rivals it is compared with). Every module takes the class-map
*logits* z, float (batch, classes, Y, X), with instance probabilities p = sigmoid(z), and returns the image-level
probability P, float32 (batch, classes).

Each function works in two steps: a map is summarised by one number for each class, and the summary is read as P.
Summaries of several maps can be joined, so the instances of all fields of a well are pooled together exactly, however
many there are and however the fields differ in size, while only one number a field and class is kept.

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
_MAP = (2, 3)
"""Axes of the map, over which instances are pooled."""


def _instances(logits: Tensor) -> Tensor:
    """Clamp class-map logits (batch, classes, Y, X) to finite float32 of the same shape.

    They are not flattened to (batch, classes, instances): the mean over that last axis, followed by arithmetic with one
    number per class, is wrong in OpenVINO 2026.4 for batches larger than the number of classes.
    """
    return logits.float().clamp(-_LARGEST_LOGIT, _LARGEST_LOGIT)


def _log_count(instances: Tensor) -> Tensor:
    """Logarithm of the number of instances of (batch, classes, Y, X), as a tensor: an export writes numbers down."""
    return torch.ones_like(instances[0, 0]).sum().log()


def _probability(rounded: Tensor) -> Tensor:
    """Clamp to [0, 1] what rounding moved out of it."""
    return rounded.clamp(0, 1)


class MilPooling(nn.Module):
    """A pooling function: `forward` takes class-map logits (batch, classes, Y, X) and returns P (batch, classes)."""

    def summary(self, logits: Tensor) -> Tensor:
        """Summarise class-map logits (batch, classes, Y, X) by one number a class, float32 (batch, classes)."""
        raise NotImplementedError

    def join(self, summaries: Tensor, instances: Tensor) -> Tensor:
        """Return the summary of all instances of several maps together.

        Parameters
        ----------
        summaries : Tensor
            Summary of each map, (maps, classes).
        instances : Tensor
            Number of instances of each map, (maps,).

        Returns
        -------
        Tensor
            float32 (classes,).
        """
        raise NotImplementedError

    def probability(self, summary: Tensor) -> Tensor:
        """Return P, float32, of summaries (..., classes)."""
        raise NotImplementedError

    def forward(self, logits: Tensor) -> Tensor:  # noqa: D102
        return self.probability(self.summary(logits))


class _PoolingOfMean(MilPooling):
    """A function of the mean instance probability."""

    def summary(self, logits: Tensor) -> Tensor:
        return torch.sigmoid(_instances(logits)).mean(_MAP)

    def join(self, summaries: Tensor, instances: Tensor) -> Tensor:
        weights = instances.double() / instances.sum()
        return (weights @ summaries.double()).float()


class _PoolingOfLogMean(MilPooling):
    """A function of log(mean exp(t)), with t from each instance."""

    def _terms(self, logits: Tensor) -> Tensor:
        """Return t of each instance, float32, of class-map logits, both (batch, classes, Y, X)."""
        raise NotImplementedError

    def summary(self, logits: Tensor) -> Tensor:
        terms = self._terms(logits)
        return torch.logsumexp(terms, _MAP) - _log_count(terms)

    def join(self, summaries: Tensor, instances: Tensor) -> Tensor:
        weights = instances.double() / instances.sum()
        return torch.logsumexp(summaries.double() + weights.log()[:, None], 0).float()


class NoisyAnd(_PoolingOfMean):
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

    def probability(self, summary: Tensor) -> Tensor:  # noqa: D102
        low = torch.sigmoid(-self.a * self.b)
        high = torch.sigmoid(self.a * (1 - self.b))
        return _probability((torch.sigmoid(self.a * (summary - self.b)) - low) / (high - low))


class NoisyOr(MilPooling):
    """P = 1 - prod(1 - p): one instance is enough. log(1 - P) = -sum softplus(z)."""

    def summary(self, logits: Tensor) -> Tensor:  # noqa: D102
        return F.softplus(_instances(logits)).sum(_MAP)

    def join(self, summaries: Tensor, instances: Tensor) -> Tensor:  # noqa: D102
        return summaries.double().sum(0).float()

    def probability(self, summary: Tensor) -> Tensor:  # noqa: D102
        return -torch.expm1(-summary)


class IntegratedSegmentationRecognition(MilPooling):
    """P = V / (1 + V) with V = sum p / (1 - p) (ISR; Keeler et al. 1991). P = sigmoid(logsumexp z)."""

    def summary(self, logits: Tensor) -> Tensor:  # noqa: D102
        return torch.logsumexp(_instances(logits), _MAP)

    def join(self, summaries: Tensor, instances: Tensor) -> Tensor:  # noqa: D102
        return torch.logsumexp(summaries.double(), 0).float()

    def probability(self, summary: Tensor) -> Tensor:  # noqa: D102
        return torch.sigmoid(summary)


class GeneralisedMean(_PoolingOfLogMean):
    """P = (mean p^r)^(1/r); r = 1 is the average. log P = (logsumexp(r logsigmoid z) - log N) / r."""

    def __init__(self, r: float = 2.5) -> None:
        super().__init__()
        self.r = r

    def _terms(self, logits: Tensor) -> Tensor:
        return self.r * F.logsigmoid(_instances(logits))

    def probability(self, summary: Tensor) -> Tensor:  # noqa: D102
        return _probability(torch.exp(summary / self.r))


class LogSumExp(_PoolingOfLogMean):
    """P = log(mean exp(r p)) / r (LSE; Ramon & De Raedt 2000), on probabilities, not on logits."""

    def __init__(self, r: float = 2.5) -> None:
        super().__init__()
        self.r = r

    def _terms(self, logits: Tensor) -> Tensor:
        return self.r * torch.sigmoid(_instances(logits))

    def probability(self, summary: Tensor) -> Tensor:  # noqa: D102
        return _probability(summary / self.r)


class MaxPooling(MilPooling):
    """P = max p: the single strongest instance decides."""

    def summary(self, logits: Tensor) -> Tensor:  # noqa: D102
        return _instances(logits).amax(_MAP)

    def join(self, summaries: Tensor, instances: Tensor) -> Tensor:  # noqa: D102
        return summaries.amax(0)

    def probability(self, summary: Tensor) -> Tensor:  # noqa: D102
        return torch.sigmoid(summary)


class AveragePooling(_PoolingOfMean):
    """P = mean p."""

    def probability(self, summary: Tensor) -> Tensor:  # noqa: D102
        return _probability(summary)


def make_pooling(name: PoolingName, classes: int, *, a: float = 10.0, r: float = 2.5, b: float = 0.5) -> MilPooling:
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
