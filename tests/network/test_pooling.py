"""The MIL pooling functions against the paper's formulas in float64, and at the values where a formula breaks."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_milcnn.network.pooling import NoisyAnd, make_pooling
from napari_milcnn.options import PoolingName

NAMES: tuple[PoolingName, ...] = ("noisy_and", "noisy_or", "isr", "generalised_mean", "lse", "max", "average")
SHARPNESS = (1.0, 2.5, 5.0)
VARIANTS = [
    *((name, {}) for name in ("noisy_or", "isr", "max", "average")),
    *((name, {"r": r}) for name in ("generalised_mean", "lse") for r in SHARPNESS),
    *(("noisy_and", {"a": a, "b": b}) for a in (5.0, 7.5, 10.0) for b in (0.1, 0.5)),
]
TABLE = {
    0.1: (0.1486, 0.3161, 0.7506, 0.9756, 0.9981),
    0.25: (0.0469, 0.1154, 0.4592, 0.9185, 0.9934),
    0.5: (0.0044, 0.0114, 0.0701, 0.5000, 0.9299),
    0.75: (0.0004, 0.0010, 0.0066, 0.0815, 0.5408),
}
"""Noisy-AND, a = 10: b -> P at m = .05, .1, .25, .5, .75."""
MEANS = (0.05, 0.1, 0.25, 0.5, 0.75)


def by_formula(name: str, p: np.ndarray, *, a: float = 10.0, b: float = 0.5, r: float = 2.5) -> np.ndarray:
    """P (batch, classes) of instance probabilities p (batch, classes, instances), float64, as the paper writes it."""

    def logistic(x: float | np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-np.asarray(x)))

    match name:
        case "noisy_and":
            low = logistic(-a * b)
            return (logistic(a * (p.mean(-1) - b)) - low) / (logistic(a * (1 - b)) - low)
        case "noisy_or":
            return 1 - np.prod(1 - p, -1)
        case "isr":
            odds = (p / (1 - p)).sum(-1)
            return odds / (1 + odds)
        case "generalised_mean":
            return np.mean(p**r, -1) ** (1 / r)
        case "lse":
            return np.log(np.mean(np.exp(r * p), -1)) / r
        case "max":
            return p.max(-1)
    return p.mean(-1)


def logits_of(p: np.ndarray) -> torch.Tensor:
    """Class-map logits, float32 (batch, classes, Y, 1), of probabilities (batch, classes, instances)."""
    return torch.from_numpy(np.log(p / (1 - p))).float()[..., None]


def pool(name: PoolingName, p: float | np.ndarray, **parameters: float) -> float:
    """P of one class for a map of probabilities."""
    return make_pooling(name, 1, **parameters)(logits_of(np.atleast_1d(p)[None, None])).item()


@pytest.mark.parametrize(("b", "m"), [(b, m) for b in TABLE for m in MEANS])
def test_noisy_and_gives_the_numbers_of_the_table(b: float, m: float) -> None:
    """To four decimals; only the mean counts, so half the map a fifth above it and half below give the same."""
    wanted = pytest.approx(TABLE[b][MEANS.index(m)], abs=5.1e-5)
    assert pool("noisy_and", np.full(16, m), b=b) == wanted
    assert pool("noisy_and", np.array([0.8 * m, 1.2 * m] * 8), b=b) == wanted


@pytest.mark.parametrize("b", [0.02, 0.1, 0.5, 0.9, 0.98])
def test_noisy_and_is_nought_for_an_empty_map_and_one_for_a_full_one(b: float) -> None:
    """P(m = 0) = 0 and P(m = 1) = 1 whatever the threshold."""
    logits = torch.tensor([-1e4, 1e4]).view(2, 1, 1, 1).expand(2, 1, 4, 5)
    assert make_pooling("noisy_and", 1, b=b)(logits).flatten().tolist() == pytest.approx([0, 1], abs=1e-6)


def test_noisy_and_learns_a_threshold_for_every_class() -> None:
    """Two classes, one map: b moved for the second alone moves its P alone."""
    module = NoisyAnd(2, start=0.25)
    assert module.b.tolist() == pytest.approx([0.25, 0.25])
    with torch.no_grad():
        module.beta[1] = math.log(3)
    assert module.b.tolist() == pytest.approx([0.25, 0.75])
    found = module(logits_of(np.full((1, 2, 9), 0.5)))[0].tolist()
    assert found == pytest.approx([0.9185, 0.0815], abs=5.1e-5)


@pytest.mark.parametrize(("b", "slope"), [(0.5, 2.5), (0.1, 3.4)])
def test_noisy_and_is_steepest_where_p_starts(b: float, slope: float) -> None:
    """The slopes dP/dm at m = b that the method states: why every p starts at b."""
    step = 1e-3
    rise = pool("noisy_and", b + step, b=b) - pool("noisy_and", b - step, b=b)
    assert rise / (2 * step) == pytest.approx(slope, abs=0.05)


@pytest.mark.parametrize(("name", "parameters"), VARIANTS)
def test_every_function_is_the_papers_formula(name: PoolingName, parameters: dict[str, float]) -> None:
    """On random p of three images and four classes."""
    p = np.random.default_rng(3).uniform(0.001, 0.4, (3, 4, 30))
    found = make_pooling(name, 4, **parameters)(logits_of(p))
    assert found.shape == (3, 4)
    np.testing.assert_allclose(found.detach().numpy(), by_formula(name, p, **parameters), atol=3e-6)


def test_many_weak_instances_fool_the_rivals_and_not_noisy_and() -> None:
    """576 locations at p = .02, and one outlier among them."""
    weak = np.full(576, 0.02)
    assert pool("noisy_or", weak) == pytest.approx(0.99999, abs=5e-6)
    assert pool("isr", weak) == pytest.approx(0.92, abs=0.005)
    assert pool("noisy_and", weak) < 0.002
    outlier = weak.copy()
    outlier[100] = 0.99
    assert pool("max", weak) == pytest.approx(0.02)
    assert pool("max", outlier) == pytest.approx(0.99)
    assert pool("noisy_and", outlier) - pool("noisy_and", weak) < 2e-4


@pytest.mark.parametrize("name", NAMES)
def test_a_million_instances(name: PoolingName) -> None:
    """Sums over 10^6 instances stay exact: a quarter of the map at p = .2, the rest at 1e-7."""
    p = np.full((1, 1, 10**6), 1e-7)
    p[..., ::4] = 0.2
    found = make_pooling(name, 1)(logits_of(p)).item()
    assert found == pytest.approx(by_formula(name, p).item(), rel=1e-4)


@pytest.mark.parametrize("extreme", [math.inf, 1e4, 80.0])
@pytest.mark.parametrize(("name", "parameters"), VARIANTS)
def test_certain_instances_give_finite_values_and_gradients(
    name: PoolingName, parameters: dict[str, float], extreme: float
) -> None:
    """P at exactly 0 and 1: an empty map gives 0, a full one 1, a mixed one what the formula gives."""
    module = make_pooling(name, 1, **parameters)
    maps = [[-extreme] * 4, [extreme] * 4, [-extreme, extreme, -extreme, -extreme]]
    logits = torch.tensor(maps).view(3, 1, 2, 2).requires_grad_()
    found = module(logits)
    found.sum().backward()
    empty, full, mixed = found.flatten().tolist()
    assert (empty, full) == pytest.approx((0, 1), abs=1e-6)
    wanted = {"noisy_or": 1.0, "isr": 1.0}.get(name)
    if wanted is None:
        wanted = by_formula(name, np.array([0.0, 1.0, 0.0, 0.0]), **parameters)
    assert mixed == pytest.approx(wanted, abs=2e-6)
    assert torch.isfinite(logits.grad).all()
    assert all(torch.isfinite(p.grad).all() for p in module.parameters())


@pytest.mark.parametrize("instances", [1, 3, 7, 12, 576, 1036, 100_003])
@pytest.mark.parametrize(("name", "parameters"), VARIANTS)
def test_rounding_never_leaves_nought_to_one(name: PoolingName, parameters: dict[str, float], instances: int) -> None:
    """The cross-entropy of the loss refuses 1.0000002, which a float32 logarithm gives where every p is 1."""
    logits = torch.tensor([-1e4, 10.0, 17.0, 1e4]).view(4, 1, 1, 1).expand(4, 1, instances, 1)
    found = make_pooling(name, 1, **parameters)(logits)
    assert 0 <= found.min() <= found.max() <= 1
    torch.nn.functional.binary_cross_entropy(found, torch.ones_like(found))


@pytest.mark.parametrize("name", NAMES)
def test_bfloat16_goes_in_and_float32_comes_out(name: PoolingName) -> None:
    """The pooling itself never runs in bfloat16, in which .998 reads 1, not even under autocast."""
    logits = torch.linspace(-3, 1, 40, dtype=torch.bfloat16).view(1, 2, 4, 5)
    module = make_pooling(name, 2)
    with torch.autocast("cpu", torch.bfloat16):
        found = module(logits)
    assert found.dtype == torch.float32
    assert torch.equal(found, module(logits.float()))


@pytest.mark.parametrize("name", ["generalised_mean", "lse"])
def test_sharpness_runs_from_average_to_max(name: PoolingName) -> None:
    """R = 1 of the generalised mean is the average; a very large r comes near the maximum."""
    p = np.array([0.1, 0.2, 0.6])
    assert pool("generalised_mean", p, r=1.0) == pytest.approx(0.3, abs=1e-6)
    assert pool(name, p, r=1.0) < pool(name, p, r=5.0) < pool(name, p, r=200.0) < 0.6
    assert pool(name, p, r=200.0) == pytest.approx(0.6, abs=0.006)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_the_order_of_the_instances_does_not_matter(name: PoolingName, data: st.DataObject) -> None:
    """A map shuffled in space gives the same P."""
    values = data.draw(st.lists(st.floats(-8, 8, width=32), min_size=2, max_size=30))
    shuffled = data.draw(st.permutations(values))
    module = make_pooling(name, 1)
    first, second = (module(torch.tensor(v).view(1, 1, -1, 1)).item() for v in (values, shuffled))
    assert first == pytest.approx(second, abs=2e-6)


@pytest.mark.parametrize(("name", "parameters"), VARIANTS)
@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_summaries_joined_over_fields_are_those_of_all_instances(
    name: PoolingName, parameters: dict[str, float], data: st.DataObject
) -> None:
    """Fields of different sizes, pooled from one number each, give the P of their instances in one map."""
    sizes = data.draw(st.lists(st.integers(1, 40), min_size=1, max_size=6))
    seed, low = data.draw(st.integers(0, 2**31)), data.draw(st.floats(-12, 2))
    rng = np.random.default_rng(seed)
    maps = [torch.from_numpy(rng.normal(low, 3, (1, 2, 1, size))).float() for size in sizes]
    module = make_pooling(name, 2, **parameters)
    summaries = torch.cat([module.summary(one) for one in maps])
    joined = module.join(summaries, torch.tensor(sizes))
    assert joined.shape == (2,)
    torch.testing.assert_close(module.probability(joined), module(torch.cat(maps, -1))[0], atol=2e-6, rtol=1e-5)
    nested = module.join(torch.stack([joined, summaries[0]]), torch.tensor([sum(sizes), sizes[0]]))
    again = module(torch.cat([*maps, maps[0]], -1))[0]
    torch.testing.assert_close(module.probability(nested), again, atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize(("name", "parameters"), VARIANTS)
def test_certain_fields_are_joined_to_finite_summaries(name: PoolingName, parameters: dict[str, float]) -> None:
    """A field that is all 0, and one that is all 1, in one bag: as one map of both."""
    module = make_pooling(name, 1, **parameters)
    empty, full = (torch.full((1, 1, 2, 3), value) for value in (-math.inf, math.inf))
    summaries = torch.cat([module.summary(empty), module.summary(full)])
    joined = module.probability(module.join(summaries, torch.tensor([6, 6])))
    torch.testing.assert_close(joined, module(torch.cat([empty, full], 2))[0], atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize(("name", "parameters"), VARIANTS)
def test_more_evidence_never_lowers_the_probability(name: PoolingName, parameters: dict[str, float]) -> None:
    """No instance has a negative gradient, and one raised instance raises P."""
    logits = torch.linspace(-3, 0.5, 12).view(1, 1, 3, 4).requires_grad_()
    module = make_pooling(name, 1, **parameters)
    before = module(logits)
    before.sum().backward()
    assert (logits.grad >= 0).all()
    assert logits.grad.max() > 0
    raised = logits.detach().clone()
    raised[0, 0, 2, 3] += 1
    assert module(raised).item() > before.item()
