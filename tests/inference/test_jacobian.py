"""Jacobian maps: against captum and by hand, in parts, back on the image; the network is left unchanged."""

from __future__ import annotations

import copy
import itertools
import warnings
from collections.abc import Sequence
from typing import Any

import captum.attr
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from conftest import blob, delta_model, lively_model, noise
from napari_milcnn.errors import ComputeError
from napari_milcnn.images.open import open_image
from napari_milcnn.images.stack import ImageStack
from napari_milcnn.inference.devices import DeviceChoice
from napari_milcnn.inference.evidence import EvidenceMaker, evidence
from napari_milcnn.inference.jacobian import jacobian_maps as maps_of_run
from napari_milcnn.inference.predict import classify
from napari_milcnn.inference.tiling import TiledInference, bytes_per_pixel
from napari_milcnn.model.trained_model import TrainedModel
from napari_milcnn.network.inference_copy import inference_copy
from napari_milcnn.network.mil_network import MilNetwork
from napari_milcnn.network.way_back import Trace, trace

EXACT: dict[str, Any] = {"device": "cpu", "precision": "float32"}
CHANNELS = ["GFP", "RFP"]


def stack(*shape: int, axes: str = "CYX", **more: Any) -> ImageStack:
    """Open noise of the channels GFP and RFP."""
    return open_image(noise(*shape), axes=axes, channels=CHANNELS, **more)


def pixels_of(model: TrainedModel, image: ImageStack) -> Tensor:
    """Read the first plane, normalised, float32 (1, channels, Y, X)."""
    return torch.from_numpy(model.fixed_intensity.apply(image.plane(0)))[None]


class Weighted(nn.Module):
    """For each class the sum of z_ij over the map, weighted by P_i p_ij taken as a constant: (batch, classes).

    The network is in the paper's order: each ReLU before its max pool.
    """

    def __init__(self, network: MilNetwork) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).eval()
        layers = list(self.network.encoder)
        for i, (layer, following) in enumerate(itertools.pairwise(layers)):
            if isinstance(layer, nn.MaxPool2d) and isinstance(following, nn.ReLU):
                layers[i], layers[i + 1] = following, layer
        self.network.encoder = nn.Sequential(*layers)

    def forward(self, images: Tensor) -> Tensor:
        """Images (batch, channels, Y, X) -> (batch, classes)."""
        logits = self.network.class_maps(images)
        start = self.network.read_maps(logits).probabilities[..., None, None] * logits.sigmoid()
        return (logits * start.detach()).sum((2, 3))


def by_captum(network: MilNetwork, images: Tensor, index: int, rule: str) -> np.ndarray:
    """Compute the same evidence by captum: (batch, Y, X)."""
    images = images.clone().requires_grad_(True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # captum says that it hooks ReLUs
        if rule == "guided":
            found = captum.attr.GuidedBackprop(Weighted(network)).attribute(images, target=index).relu()
        else:
            found = captum.attr.Saliency(Weighted(network)).attribute(images, target=index, abs=False)
    return found.sum(1).detach().numpy()


CPU = DeviceChoice(torch.device("cpu"), torch.float32, "as requested")


def jacobian_maps(
    network: MilNetwork, images: Tensor, classes: Sequence[int], rule: str = "guided", choice: DeviceChoice = CPU
) -> np.ndarray:
    """Make the maps (batch, classes, Y, X) of images from one forward run, with their own P."""
    fast = inference_copy(network)
    with torch.inference_mode(), choice.autocast():
        run = trace(fast, images)
        pooled = fast.read_maps(run.logits).probabilities
    return maps_of_run(run, classes, rule, choice, pooled)


# The Jacobian against captum and by hand


@pytest.mark.parametrize("rule", ["guided", "plain"])
@pytest.mark.parametrize(("preset", "size"), [("compact", 150), ("paper", 230)])
def test_jacobian_equals_captum(preset: str, size: int, rule: str, request: Any, monkeypatch: Any) -> None:
    """Every class of a batch of two, from one forward run, as of the network in the paper's order, to 1e-9 of the peak.

    Both are computed in double precision: float32 alone rounds either by up to 1e-5 of the peak. The paper's order
    matters for the guided rule: each of its maps differs from that of our order by several per cent.
    """
    network = copy.deepcopy(request.getfixturevalue(preset).network).double()
    monkeypatch.setattr(Tensor, "float", Tensor.double)
    images = torch.randn(2, 2, size, size + 37, generator=torch.Generator().manual_seed(1)).double()
    maps = jacobian_maps(network, images, [2, 0, 1], rule)
    assert maps.dtype == np.float64
    assert maps.shape == (2, 3, size, size + 37)
    for place, index in enumerate([2, 0, 1]):
        expected = by_captum(network, images, index, rule)
        assert expected.dtype == np.float64
        assert np.count_nonzero(expected) > 1000
        np.testing.assert_allclose(maps[:, place], expected, rtol=0, atol=1e-9 * abs(expected).max())


def test_all_classes_come_from_one_forward_run(compact: TrainedModel, monkeypatch: Any) -> None:
    """The class maps are computed once, for any number of classes."""
    runs = []
    whole = MilNetwork.maps_of
    monkeypatch.setattr(MilNetwork, "maps_of", lambda self, features: (runs.append(1), whole(self, features))[1])
    jacobian_maps(compact.network, torch.zeros(1, 2, 100, 100), [0, 1, 2])
    assert len(runs) == 1


@pytest.mark.parametrize("preset", ["compact", "paper"])
def test_guided_is_never_negative_and_plain_is(preset: str, request: Any) -> None:
    """Guided evidence lies at or above 0 at every pixel; the plain gradient does not."""
    model = request.getfixturevalue(preset)
    images = pixels_of(model, stack(2, 180, 190))
    guided, plain = (jacobian_maps(model.network, images, [0, 1, 2], rule) for rule in ("guided", "plain"))
    assert guided.min() == 0
    assert guided.max() > 0
    assert plain.min() < 0 < plain.max()


def test_jacobian_by_hand() -> None:
    """One instance, one bright pixel: z = 4 * 2 - 6 = 2, p = P = .8808, so a 4 P p = 3.103 at that pixel alone."""
    image = np.zeros((1, 1, 67, 67), np.float32)
    image[0, 0, 30, 41] = 2
    for rule in ("guided", "plain"):
        maps = jacobian_maps(delta_model().network, torch.from_numpy(image), [0], rule)
        assert maps[0, 0, 30, 41] == pytest.approx(4 * 0.880797**2, rel=1e-5)
        assert np.count_nonzero(maps) == 1


def test_jacobian_by_hand_of_two_rules() -> None:
    """Logit 4 (c0 - c1) - 6, c0 = 3 and c1 = 1 at two pixels: 4 P p and -4 P p plain; guided keeps the first alone."""
    model = delta_model(channels=2)
    model.network.maps.weight.data[0, 1] = -4
    image = np.zeros((1, 2, 67, 67), np.float32)
    image[0, 0, 30, 30], image[0, 1, 36, 40] = 3, 1
    plain, guided = (
        jacobian_maps(model.network, torch.from_numpy(image), [0], rule)[0, 0] for rule in ("plain", "guided")
    )
    assert plain[30, 30] == pytest.approx(4 * 0.880797**2, rel=1e-5)
    assert plain[36, 40] == pytest.approx(-4 * 0.880797**2, rel=1e-5)
    assert guided[30, 30] == plain[30, 30]
    assert np.count_nonzero(guided) == 1


@pytest.mark.parametrize(("rule", "alike"), [("guided", 0.95), ("plain", 0.7)])
def test_randomised_last_layers_change_the_map(compact: TrainedModel, rule: str, alike: float) -> None:
    """The sanity check of Adebayo et al. 2018: other last layers, another map; the guided rule changes less."""
    images = pixels_of(compact, stack(2, 200, 220))
    before = jacobian_maps(compact.network, images, [0, 1], rule)[0]
    network = copy.deepcopy(compact.network)
    generator = torch.Generator().manual_seed(5)
    last = [layer for layer in network.encoder if isinstance(layer, nn.Conv2d)][-1]
    for layer in (last, network.maps):
        spread = float(layer.weight.detach().std())
        layer.weight.data.normal_(0, spread, generator=generator)
    after = jacobian_maps(network, images, [0, 1], rule)[0]
    for one, other in zip(before, after, strict=True):
        assert np.corrcoef(one.ravel(), other.ravel())[0, 1] < alike


def test_the_map_depends_on_the_class(compact: TrainedModel) -> None:
    """The maps of two classes are not the same picture."""
    maps = jacobian_maps(compact.network, pixels_of(compact, stack(2, 200, 220)), [0, 1, 2])[0]
    assert np.corrcoef(maps[0].ravel(), maps[1].ravel())[0, 1] < 0.9


@pytest.mark.parametrize("rule", ["guided", "plain"])
def test_a_shift_by_one_stride_shifts_the_map(compact: TrainedModel, rule: str) -> None:
    """16 px cut off above and left: the same map 16 px on, up to P, from 67 - 16 = 51 px inside."""
    images = pixels_of(compact, stack(2, 211, 243))
    with torch.no_grad():
        pooled, of_crop = (compact.network(x).probabilities[0].numpy() for x in (images, images[..., 16:, 16:]))
    whole = jacobian_maps(compact.network, images, [0, 1, 2], rule)[0] / pooled[:, None, None]
    crop = jacobian_maps(compact.network, images[..., 16:, 16:], [0, 1, 2], rule)[0] / of_crop[:, None, None]
    np.testing.assert_allclose(crop[:, 51:, 51:], whole[:, 67:, 67:], rtol=0, atol=1e-5 * abs(whole).max())
    assert abs(crop[:, 40:51] - whole[:, 56:67, 16:]).max() > 1e-3 * abs(whole).max()  # one px further out it differs


# The network is left as it was found


def state_of(network: MilNetwork) -> dict[str, Any]:
    """Return everything that `jacobian_maps` could leave changed."""
    modules = list(network.modules())
    return {
        "training": [module.training for module in modules],
        "needed": [p.requires_grad for p in network.parameters()],
        "devices": [str(p.device) for p in network.parameters()],
        "gradients": [p.grad is None for p in network.parameters()],
        "hooks": [
            len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks) + len(m._backward_pre_hooks)
            for m in modules
        ],
        "weights": {name: value.clone() for name, value in network.state_dict().items()},
    }


def assert_unchanged(network: MilNetwork, before: dict[str, Any]) -> None:
    """Compare with an earlier `state_of`."""
    after = state_of(network)
    weights, earlier = after.pop("weights"), before["weights"]
    assert after == {name: value for name, value in before.items() if name != "weights"}
    assert all(torch.equal(weights[name], earlier[name]) for name in earlier)


@pytest.fixture
def odd_model() -> TrainedModel:
    """Return a model in an odd state: partly training, one parameter frozen, a hook of somebody else's."""
    model = lively_model(dropout=0.3)
    model.network.train()
    model.network.encoder[4].eval()
    model.network.maps.weight.requires_grad_(False)
    model.network.encoder[0].register_forward_hook(lambda *_: None)
    return model


@pytest.mark.parametrize("rule", ["guided", "plain"])
def test_the_network_is_left_as_found(odd_model: TrainedModel, rule: str) -> None:
    """Mode of every module, requires_grad, hooks and batch norm's statistics are as they were, as is the input."""
    before = state_of(odd_model.network)
    images = torch.randn(1, 2, 100, 120, generator=torch.Generator().manual_seed(0))
    maps = jacobian_maps(odd_model.network, images, [0, 1], rule)
    assert_unchanged(odd_model.network, before)
    assert maps.dtype == np.float32
    assert not images.requires_grad
    assert images.grad is None
    expected = copy.deepcopy(odd_model.network).eval()
    np.testing.assert_allclose(maps[:, 0], by_captum(expected, images, 0, rule), atol=1e-5)


def test_the_network_is_left_as_found_on_failure(odd_model: TrainedModel, monkeypatch: Any) -> None:
    """The network is also unchanged after a failed forward run."""
    before = state_of(odd_model.network)

    def broken(*_: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(MilNetwork, "maps_of", broken)
    with pytest.raises(ZeroDivisionError):
        jacobian_maps(odd_model.network, torch.zeros(1, 2, 100, 100), [0])
    assert_unchanged(odd_model.network, before)


@pytest.mark.parametrize(
    ("failure", "sentence", "cause"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), "a single receptive field does not fit into memory", False),
        (
            RuntimeError("cuDNN error"),
            r"cpu, float32 \(as requested\) failed while propagating evidence: cuDNN error",
            True,
        ),
    ],
)
def test_failures_going_back_are_translated(
    odd_model: TrainedModel, failure: RuntimeError, sentence: str, cause: bool, monkeypatch: Any
) -> None:
    """Out of memory is an error when no part is small enough; any other failure says its text, and has it as its cause.

    The network is left as found.
    """
    before = state_of(odd_model.network)
    prediction = classify(odd_model, stack(2, 100, 110), **EXACT)

    def broken(*_: Any, **__: Any) -> None:
        raise failure

    monkeypatch.setattr(Trace, "back", broken)
    with pytest.raises(ComputeError, match=sentence) as info:
        evidence(odd_model, stack(2, 100, 110), kind="jacobian", prediction=prediction, **EXACT)
    assert (info.value.__cause__ is failure) == cause
    assert_unchanged(odd_model.network, before)


def test_evidence_inside_no_grad(compact: TrainedModel) -> None:
    """A caller who has switched gradients off gets the same map, and finds them switched off afterwards."""
    image = stack(2, 100, 120)
    expected = evidence(compact, image, kind="jacobian", **EXACT).maps
    with torch.no_grad():
        maps = evidence(compact, image, kind="jacobian", **EXACT).maps
        assert not torch.is_grad_enabled()
    assert (maps == expected).all()


def test_jacobian_evidence_is_the_networks(compact: TrainedModel) -> None:
    """Through `evidence` an image at the model's own pixels gives the very maps of `jacobian_maps`."""
    image = stack(2, 2, 99, 115, axes="TCYX")  # receptive fields cover every pixel
    found = evidence(compact, image, kind="jacobian", rule="plain", **EXACT)
    assert found.maps.shape == (2, 3, 99, 115)
    assert found.maps.dtype == np.float32
    assert (found.classes, found.kind, found.objects) == (("a", "b", "c"), "jacobian", None)
    for plane in (0, 1):
        pixels = torch.from_numpy(compact.fixed_intensity.apply(image.plane(plane)))[None]
        assert (found.maps[plane] == jacobian_maps(compact.network, pixels, [0, 1, 2], "plain")[0]).all()


# The classification's forward run


def test_a_plane_is_run_once_for_its_scores_and_its_jacobian(compact: TrainedModel, monkeypatch: Any) -> None:
    """The way back goes on from the run of the classification, plane by plane, and gives the same maps."""
    image = stack(3, 2, 120, 130, axes="TCYX")
    runs: list[tuple[int, ...]] = []
    features = MilNetwork.features
    monkeypatch.setattr(MilNetwork, "features", lambda self, one: (runs.append(one.shape), features(self, one))[1])
    monkeypatch.setattr(
        "napari_milcnn.inference.tiling.trace", lambda network, one: (runs.append(one.shape), trace(network, one))[1]
    )
    shared = evidence(compact, image, ["b"], kind="jacobian", **EXACT)
    assert len(runs) == 3
    alone = evidence(compact, image, ["b"], kind="jacobian", prediction=shared.prediction, **EXACT)
    assert len(runs) == 6
    assert (alone.maps == shared.maps).all()
    apart = classify(compact, image, **EXACT)
    np.testing.assert_array_equal(shared.prediction.scores, apart.scores)
    np.testing.assert_array_equal(shared.prediction.bags.features, apart.bags.features)


def test_a_run_is_kept_for_its_own_pixels_alone(compact: TrainedModel) -> None:
    """Evidence of another image that was classified before is made from a run on its own pixels."""
    maker = EvidenceMaker(compact, kind="jacobian", **EXACT)
    images = [open_image(noise(2, 100, 110, seed=seed), axes="CYX", channels=CHANNELS) for seed in (1, 2)]
    predictions = [maker.classifier.classify(image) for image in images]
    for image, prediction in zip(images, predictions, strict=True):
        (found,) = maker.planes(image, prediction)
        np.testing.assert_array_equal(found.maps, evidence(compact, image, kind="jacobian", **EXACT).maps[0])


def test_a_kept_run_makes_no_room_for_a_larger_image(compact: TrainedModel, monkeypatch: Any) -> None:
    """A plane whose run is kept needs no more memory; another one still has to fit."""
    maker = EvidenceMaker(compact, kind="jacobian", **EXACT)
    maker.classifier.classify(stack(2, 100, 110))
    monkeypatch.setattr("napari_milcnn.inference.tiling.free_memory", lambda _: 0)
    inference = maker.classifier.inference
    assert inference.traced_side((100, 110)) == 110
    assert inference.traced_side((400, 500)) == compact.network.placement.stride
    inference.trace(noise(1, 2, 100, 110).astype(np.float32))
    assert inference.traced_side((100, 110)) == compact.network.placement.stride


def test_no_run_is_kept_where_memory_is_short(compact: TrainedModel, monkeypatch: Any) -> None:
    """A classification needs a quarter of the memory of a run that is kept, and then goes on without keeping it."""
    free = 3 * bytes_per_pixel(compact.network) * 100 * 110
    monkeypatch.setattr("napari_milcnn.inference.tiling.free_memory", lambda _: free)
    maker = EvidenceMaker(compact, kind="jacobian", **EXACT)
    monkeypatch.setattr("napari_milcnn.inference.tiling.trace", None)
    maker.classifier.classify(stack(2, 100, 110))
    assert maker.classifier.inference.warnings == []


# Memory


@pytest.mark.parametrize("rule", ["guided", "plain"])
def test_a_jacobian_too_large_is_made_in_parts(compact: TrainedModel, rule: Any, monkeypatch: Any) -> None:
    """With memory for 184 x 184 px, a plane is made in parts of 50 px that see 67 px around: the same map."""
    image = stack(2, 230, 190)
    prediction = classify(compact, image, **EXACT)
    options: dict[str, Any] = {"kind": "jacobian", "rule": rule, "prediction": prediction, **EXACT}
    whole = evidence(compact, image, ["b"], **options).maps
    free = 4 * bytes_per_pixel(compact.network) * 184 * 184
    monkeypatch.setattr("napari_milcnn.inference.tiling.free_memory", lambda _: free)
    parts, run = [], TiledInference.trace
    monkeypatch.setattr(TiledInference, "trace", lambda self, one: (parts.append(one.shape[2:]), run(self, one))[1])
    found = evidence(compact, image, ["b"], **options).maps
    assert len(parts) == 5 * 4
    assert max(max(part) for part in parts) <= 50 + 2 * 67
    np.testing.assert_allclose(found, whole, rtol=0, atol=1e-5 * abs(whole).max())


def test_a_jacobian_that_runs_out_of_memory_goes_on_in_smaller_parts(compact: TrainedModel, monkeypatch: Any) -> None:
    """Parts are halved until they fit, and it is said; where not even a stride fits, the CPU has to give up."""
    image = stack(2, 120, 150)
    maker = EvidenceMaker(compact, kind="jacobian", **EXACT)
    prediction = maker.classifier.classify(image)
    (whole,) = maker.planes(image, prediction, ["b"])
    most = 130 * 130

    run = TiledInference.trace

    def small(self: TiledInference, images: np.ndarray) -> Trace:
        if images.shape[2] * images.shape[3] > most:
            raise RuntimeError("not enough memory: you tried to allocate")
        return run(self, images)

    monkeypatch.setattr(TiledInference, "trace", small)
    (found,) = maker.planes(image, prediction, ["b"])
    np.testing.assert_allclose(found.maps, whole.maps, rtol=0, atol=1e-5 * whole.maps.max())
    assert maker.classifier.inference.warnings == ["out of memory on cpu: Jacobian maps were made in smaller parts"]
    most = 0
    with pytest.raises(ComputeError, match="not fit into memory"):
        list(maker.planes(image, prediction, ["b"]))


# Back on the image


def peak(image: np.ndarray) -> tuple[int, ...]:
    """Find the place of the largest value."""
    return tuple(int(i) for i in np.unravel_index(image.argmax(), image.shape))


def test_the_jacobian_of_a_resampled_image_lies_at_its_pixels() -> None:
    """At a third of the size the middle of model pixel m is image pixel 3 m + 1: a spot at (151, 202) stays."""
    image = open_image(2 * blob((303, 360), (151, 202), 12)[None], axes="CYX", channels=["c0"], pixel_size=1 / 3)
    found = evidence(delta_model(pixel_size=1.0), image, kind="jacobian", **EXACT)
    assert found.maps.shape == (1, 1, 303, 360)
    assert peak(found.maps[0, 0]) == (151, 202)


def test_the_jacobian_of_an_enlarged_image_has_the_images_shape() -> None:
    """Three model pixels per image pixel: model pixel 3 i + 1 is the middle of image pixel i."""
    image = open_image(2 * blob((50, 60), (25, 35), 4)[None], axes="CYX", channels=["c0"], pixel_size=3.0)
    found = evidence(delta_model(pixel_size=1.0), image, kind="jacobian", **EXACT)
    assert found.maps.shape == (1, 1, 50, 60)
    assert peak(found.maps[0, 0]) == (25, 35)


@pytest.mark.parametrize(("shape", "spot"), [((40, 200), (12, 120)), ((200, 41), (120, 30)), ((30, 40), (18, 14))])
def test_margins_are_taken_off_the_jacobian(shape: tuple[int, int], spot: tuple[int, int]) -> None:
    """An image smaller than the field gets its evidence at its own pixels, in its own shape."""
    pixels = np.zeros((1, *shape), np.float32)
    pixels[0, spot[0], spot[1]] = 2
    found = evidence(delta_model(), open_image(pixels, axes="CYX", channels=["c0"]), kind="jacobian", **EXACT)
    assert found.maps.shape == (1, 1, *shape)
    assert peak(found.maps[0, 0]) == spot


def test_margins_and_resampling_together() -> None:
    """A third of the size and smaller than the field: 93 x 120 px become 31 x 40 and then 67 x 67."""
    image = open_image(2 * blob((93, 120), (43, 61), 12)[None], axes="CYX", channels=["c0"], pixel_size=1 / 3)
    found = evidence(delta_model(pixel_size=1.0), image, kind="jacobian", **EXACT)
    assert found.maps.shape == (1, 1, 93, 120)
    assert peak(found.maps[0, 0]) == (43, 61)


def test_evidence_in_bfloat16_is_close(compact: TrainedModel) -> None:
    """With convolutions in bfloat16 the guided map is almost the same."""
    images = pixels_of(compact, stack(2, 150, 160))
    high = jacobian_maps(compact.network, images, [0])
    low = jacobian_maps(
        compact.network, images, [0], choice=DeviceChoice(torch.device("cpu"), torch.bfloat16, "as requested")
    )
    assert low.dtype == np.float32
    assert np.corrcoef(high.ravel(), low.ravel())[0, 1] > 0.9
