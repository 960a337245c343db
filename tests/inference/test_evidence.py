"""Evidence: Jacobian maps against captum and by hand, class maps, objects; the network is left unchanged."""

from __future__ import annotations

import copy
import itertools
import warnings
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import captum.attr
import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor, nn

from conftest import blob, centroid, delta_model, lively_model, noise
from napari_milcnn.errors import ComputeError, ImageError, LabelsError, OptionsError
from napari_milcnn.images.open import open_image
from napari_milcnn.images.stack import ImageStack
from napari_milcnn.inference.class_maps import lay_over, relative_to_reference
from napari_milcnn.inference.devices import DeviceChoice
from napari_milcnn.inference.evidence import _WORK_MEMORY, EvidenceMaker, evidence, suited_evidence
from napari_milcnn.inference.jacobian import jacobian_maps as maps_of_run
from napari_milcnn.inference.predict import Classifier, classify
from napari_milcnn.inference.tiling import TiledInference, bytes_per_pixel
from napari_milcnn.model.card import OwnEvidence
from napari_milcnn.model.trained_model import TrainedModel, card_text
from napari_milcnn.network.inference_copy import inference_copy
from napari_milcnn.network.mil_network import MilNetwork
from napari_milcnn.network.way_back import Trace, trace
from napari_milcnn.options import ForegroundOptions

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
def test_jacobian_equals_captum(preset: str, size: int, rule: str, request: Any) -> None:
    """Every class of a batch of two, from one forward run, as of the network in the paper's order, to 1e-5 of the peak.

    The paper's order matters for the guided rule: each of its maps differs from that of our order by several per cent.
    """
    network = request.getfixturevalue(preset).network
    images = torch.randn(2, 2, size, size + 37, generator=torch.Generator().manual_seed(1))
    maps = jacobian_maps(network, images, [2, 0, 1], rule)
    assert maps.dtype == np.float32
    assert maps.shape == (2, 3, size, size + 37)
    for place, index in enumerate([2, 0, 1]):
        expected = by_captum(network, images, index, rule)
        assert np.count_nonzero(expected) > 1000
        np.testing.assert_allclose(maps[:, place], expected, rtol=0, atol=1e-5 * abs(expected).max())


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


# The public function


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


@pytest.mark.parametrize("kind", ["object", "class_map", "class_map_image", "jacobian"])
def test_classes_are_chosen_by_name(compact: TrainedModel, kind: Any) -> None:
    """Evidence for c and a has these classes in this order."""
    image = stack(2, 100, 120)
    every = evidence(compact, image, kind=kind, **EXACT)
    some = evidence(compact, image, ["c", "a"], kind=kind, **EXACT)
    assert some.classes == ("c", "a")
    np.testing.assert_array_equal(some.maps, every.maps[:, [2, 0]])


@pytest.mark.parametrize(
    ("classes", "sentence"),
    [
        (["a", "d"], "the model does not know the class d; its classes: a, b, c"),
        ("a", r"classes is 'a'; expected a list of names, such as \['a'\]"),
        ([], r"classes is \[\]; expected one or more different names out of: a, b, c"),
        (["a", "b", "a"], r"classes is \['a', 'b', 'a'\]; expected one or more different names"),
    ],
)
def test_wrong_classes_are_refused(compact: TrainedModel, classes: Any, sentence: str) -> None:
    """Unknown names, a bare string, no names and repeated names are refused, each with its message."""
    with pytest.raises(OptionsError, match=sentence):
        evidence(compact, stack(2, 100, 120), classes, **EXACT)


def test_class_map_evidence_is_the_map_laid_over(compact: TrainedModel) -> None:
    """Each class's p, laid over the image where the prediction places it."""
    model = lively_model(pixel_size=1.0)
    image = stack(2, 2, 203, 261, axes="ZCYX", pixel_size=0.6)
    found = evidence(model, image, kind="class_map", **EXACT)
    prediction = classify(model, image, **EXACT)
    assert found.pixel_size == 0.6
    assert found.maps.shape == (2, 3, 203, 261)
    np.testing.assert_allclose(found.maps, lay_over(prediction.class_maps, prediction.placement, (203, 261)), atol=1e-6)


def test_a_prediction_is_not_made_twice(compact: TrainedModel, monkeypatch: Any) -> None:
    """With prediction= the network is not run forward again, and the evidence carries that prediction."""
    image = stack(2, 100, 120)
    prediction = classify(compact, image, **EXACT)
    expected = evidence(compact, image, kind="class_map", **EXACT).maps

    def never(*_: Any) -> None:
        raise AssertionError("run again")

    monkeypatch.setattr(TiledInference, "encode", never)
    found = evidence(compact, image, kind="class_map", prediction=prediction, **EXACT)
    assert found.prediction is prediction
    assert (found.maps == expected).all()
    with pytest.raises(AssertionError, match="run again"):
        evidence(compact, image, kind="class_map", **EXACT)


def test_thresholds_come_from_the_card(compact: TrainedModel) -> None:
    """The thresholds are those of the kind of evidence, if the card has any."""
    model = compact.with_card(thresholds={"object": {"a": 0.3}, "jacobian": {"b": 7.0}})
    for kind, expected in (("object", {"a": 0.3}), ("jacobian", {"b": 7.0}), ("class_map", {})):
        assert evidence(model, stack(2, 80, 80), kind=kind, **EXACT).thresholds == expected


def test_unknown_options_are_refused(compact: TrainedModel) -> None:
    """A misspelt option and an unknown kind are refused."""
    with pytest.raises(OptionsError, match="no option 'thresh'"):
        evidence(compact, stack(2, 80, 80), thresh=1)
    with pytest.raises(OptionsError, match="option 'kind' is 'gradcam'"):
        evidence(compact, stack(2, 80, 80), kind="gradcam")


# Class maps at a finer step, and times the image


@pytest.mark.parametrize(("detail", "tile"), [(2, None), (4, None), (4, 120)])
def test_detail_equals_the_network_run_at_every_step(compact: TrainedModel, detail: int, tile: int | None) -> None:
    """Each value of a map at stride / detail is what the network says about the 67 px there, tiled or not."""
    image = stack(2, 97, 131)
    classifier = Classifier(compact, tile=tile, **EXACT)
    chosen = classifier.model_input(image)
    coarse = classifier.classify(image).class_maps[0][[2, 0]]
    fine = classifier.inference.finer_maps(chosen, 0, coarse, [2, 0], detail)
    step, pixels = 16 // detail, chosen.read(0)
    assert fine.shape == (2, (97 - 67) // step + 1, (131 - 67) // step + 1)
    crops = np.lib.stride_tricks.sliding_window_view(pixels, (67, 67), (1, 2))[:, ::step, ::step]
    crops = crops.transpose(1, 2, 0, 3, 4).reshape(-1, 2, 67, 67)
    dense = torch.from_numpy(classifier.inference.instances(crops.copy())).sigmoid().numpy()
    np.testing.assert_allclose(fine, dense.T[[2, 0]].reshape(fine.shape), atol=1e-5)
    np.testing.assert_array_equal(fine[:, ::detail, ::detail], coarse)


def test_finer_class_maps_lie_at_their_pixels() -> None:
    """A spot in an image of half the pixel size: at a step of 4 px of the model the map is centred on it to 4 px."""
    image = open_image(2 * blob((400, 480), (200, 246), 12)[None], axes="CYX", channels=["c0"], pixel_size=0.5)
    maps = evidence(delta_model(pixel_size=1.0), image, kind="class_map", detail=4, **EXACT).maps[0, 0]
    y, x = centroid(maps > maps.max() / 2)
    assert (y, x) == (pytest.approx(200, abs=4), pytest.approx(246, abs=4))


def test_class_map_times_image_by_hand(compact: TrainedModel) -> None:
    """The class map times the mean brightness of the model's channels: 0 where both are dark, p where both shine."""
    pixels = np.full((3, 100, 110), 60, np.uint16)
    pixels[0, 10:60, 30:80], pixels[2, 40:90, 30:80] = 200, 900
    image = open_image(pixels, axes="CYX", channels=["RFP", "DAPI", "GFP"])
    plain = evidence(compact, image, kind="class_map", **EXACT).maps[0]
    found = evidence(compact, image, kind="class_map_image", **EXACT).maps[0]
    for row, share in ((5, 0), (20, 0.5), (50, 1), (80, 0.5)):
        np.testing.assert_allclose(found[:, row, 50], share * plain[:, row, 50], rtol=1e-5)
    flat = open_image(np.full((2, 100, 110), 60, np.uint16), axes="CYX", channels=CHANNELS)
    assert (evidence(compact, flat, kind="class_map_image", **EXACT).maps == 0).all()


def test_the_kind_is_the_models_own_where_none_is_asked_for(compact: TrainedModel) -> None:
    """Objects where the card says nothing; the card's detail goes with the card's kind only."""
    assert EvidenceMaker(compact).options.kind == "object"
    own = compact.with_card(evidence=OwnEvidence(kind="class_map_image", detail=4, reason="a lawn"))
    for given, expected in (
        ({}, ("class_map_image", 4)),
        ({"detail": 2}, ("class_map_image", 2)),
        ({"kind": "class_map"}, ("class_map", 1)),
    ):
        options = EvidenceMaker(own, **given).options
        assert (options.kind, options.detail) == expected
    assert "class_map_image: a lawn" in card_text(own)
    cells = np.ones((90, 100), int)
    assert evidence(own, stack(2, 90, 100), foreground=cells, **EXACT).kind == "object"
    assert compact.with_card(evidence=None).digest == compact.digest
    with pytest.raises(OptionsError, match="option 'detail' is 3: expected 1, 2 or 4"):
        EvidenceMaker(compact, detail=3)


def test_the_kind_that_suits_is_objects_where_these_are_alike(compact: TrainedModel) -> None:
    """Six discs of one size in most images: objects. Pieces of all sizes, or none: the class map at detail 4."""
    discs, rng = np.zeros((2, 160, 240), np.float32), np.random.default_rng(0)
    for number in range(6):
        discs += 100 * (blob((160, 240), (40 + 80 * (number // 3), 40 + 80 * (number % 3)), 6) > 0.3)
    texture = [100 * ndimage.gaussian_filter(rng.normal(0, 1, (160, 240)), 2) + 50 for _ in range(2)]

    def images(*pixels: Any) -> list[Any]:
        return [partial(open_image, np.asarray(one, np.float32), axes="CYX", channels=CHANNELS) for one in pixels]

    own = suited_evidence(compact, images(discs, discs, texture))
    assert (own.kind, own.reason) == ("object", "2 of 3 images have several objects of one size")
    own = suited_evidence(compact, images(discs, texture, np.zeros((2, 160, 240))))
    assert (own.kind, own.detail) == ("class_map_image", 4)
    assert own.reason == "only 1 of 3 images have several objects of one size"


# Objects


def test_objects_carry_the_mean_of_the_class_map(compact: TrainedModel) -> None:
    """Inside each object of one's own the mean of the class map, outside 0; numbers may have gaps, and be uint8."""
    image = stack(2, 150, 180)
    labels = np.zeros((150, 180), np.uint8)
    labels[10:30, 20:50], labels[100:140, 90:170] = 3, 255
    found = evidence(compact, image, kind="object", foreground=labels, **EXACT)
    laid = evidence(compact, image, kind="class_map", **EXACT).maps[0]
    for index in range(3):
        for number in (3, 255):
            inside = found.maps[0, index][labels == number]
            assert np.ptp(inside) == 0
            assert inside[0] == pytest.approx(laid[index][labels == number].mean(), abs=1e-5)
    assert (found.maps[0][:, labels == 0] == 0).all()
    assert found.objects is not None
    assert found.objects.dtype == np.int32
    assert (found.objects[0] == labels).all()


def test_objects_over_the_whole_plane_and_none_at_all(compact: TrainedModel) -> None:
    """One object everywhere carries the map's mean; a plane without objects carries 0."""
    image = stack(2, 2, 90, 100, axes="TCYX")
    labels = np.zeros((2, 90, 100), np.int64)
    labels[0] = 1
    found = evidence(compact, image, ["b"], foreground=labels, **EXACT)
    laid = evidence(compact, image, ["b"], kind="class_map", **EXACT).maps
    np.testing.assert_allclose(found.maps[0, 0], laid[0, 0].mean(), atol=1e-5)
    assert (found.maps[1] == 0).all()


@pytest.mark.parametrize(
    ("labels", "sentence"),
    [
        (
            np.ones((90, 101), int),
            "the labels are 90 x 101 px, but the image is 2 planes of 90 x 100 px; choose labels",
        ),
        (
            np.ones((90, 100), int),
            "the labels are 90 x 100 px, but the image is 2 planes of 90 x 100 px; choose labels",
        ),
        (np.full((2, 90, 100), 0.5), "18000 pixels with fractions, such as 0.5"),
    ],
)
def test_label_images_that_do_not_fit_are_refused(compact: TrainedModel, labels: np.ndarray, sentence: str) -> None:
    """Labels are checked before anything is computed."""
    with pytest.raises(LabelsError, match=sentence):
        evidence(compact, stack(2, 2, 90, 100, axes="TCYX"), foreground=labels, **EXACT)


def squares() -> ImageStack:
    """Draw one bright square per channel: RFP at rows 10 to 30, DAPI at 40 to 60, GFP at 70 to 90."""
    pixels = np.full((3, 100, 110), 60, np.uint16)
    for channel, row in enumerate((10, 40, 70)):
        pixels[channel, row : row + 20, 30:50] = 200
    return open_image(pixels, axes="CYX", channels=["RFP", "DAPI", "GFP"])


@pytest.mark.parametrize(("channel", "row"), [(None, 70), ("GFP", 70), ("RFP", 10), ("DAPI", 40)])
def test_the_foreground_is_found_in_the_channel_named(compact: TrainedModel, channel: str | None, row: int) -> None:
    """The channel has the model's name, else the image's; the default is the model's first channel."""
    options = ForegroundOptions(channel=channel, smooth=0)
    for found in (
        evidence(compact, squares(), foreground=options, **EXACT),
        evidence(compact.with_card(foreground=options), squares(), **EXACT),
    ):
        assert found.objects is not None
        expected = np.zeros((100, 110), int)
        expected[row : row + 20, 30:50] = 1
        assert (found.objects[0] == expected).all()
        assert (found.maps[0][:, expected == 1] > 0).all()
        assert (found.maps[0][:, expected == 0] == 0).all()


def test_the_models_name_of_a_channel_wins_where_channels_go_by_order(compact: TrainedModel) -> None:
    """Channels without names are taken by order and keep the model's: RFP is then the second channel of the array."""
    image = open_image(squares().data[:2], axes="CYX")
    for name in ("RFP", image.channels[1]):
        found = evidence(compact, image, foreground=ForegroundOptions(channel=name, smooth=0), **EXACT)
        assert found.objects is not None
        assert (np.flatnonzero(found.objects[0].any(1)) == range(40, 60)).all()


def test_an_unknown_foreground_channel_is_refused(compact: TrainedModel) -> None:
    """The message has the channels of the model and of the image."""
    sentence = r"'CFP' is neither in the model \(GFP, RFP\) nor in image \(RFP, DAPI, GFP\)"
    with pytest.raises(ImageError, match=sentence):
        evidence(compact, squares(), foreground=ForegroundOptions(channel="CFP"), **EXACT)


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


def test_evidence_too_large_for_memory_is_refused(compact: TrainedModel, monkeypatch: Any) -> None:
    """Three classes of 100 x 100 px need 3 * 4 * 3 * 10,000 = 360,000 bytes and room to work in; one class a third."""
    room = 10_000 * _WORK_MEMORY
    monkeypatch.setattr("napari_milcnn.inference.evidence.free_memory", lambda _: 359_999 + room)
    with pytest.raises(
        ComputeError, match=r"evidence for 3 classes in 1 plane\(s\) of 100 x 100 px needs .* fewer classes"
    ):
        evidence(compact, stack(2, 100, 100), kind="class_map", **EXACT)
    assert evidence(compact, stack(2, 100, 100), ["a"], kind="class_map", **EXACT).maps.shape == (1, 1, 100, 100)


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


# A plane at a time


def test_planes_come_one_at_a_time(compact: TrainedModel, monkeypatch: Any) -> None:
    """The maker reads a plane only when its generator yields the plane's evidence."""
    image = stack(3, 2, 80, 90, axes="TCYX")
    maker = EvidenceMaker(compact, kind="jacobian", **EXACT)
    prediction = maker.classifier.classify(image)
    read: list[int] = []
    plane = ImageStack.plane
    monkeypatch.setattr(ImageStack, "plane", lambda self, i, *more: (read.append(i), plane(self, i, *more))[1])
    planes: Iterator[Any] = maker.planes(image, prediction, ["b"])
    assert read == []
    first = next(planes)
    assert (first.plane, first.maps.shape, first.objects) == (0, (1, 80, 90), None)
    assert set(read) == {0}
    assert [one.plane for one in planes] == [1, 2]


def test_evidence_in_bfloat16_is_close(compact: TrainedModel) -> None:
    """With convolutions in bfloat16 the guided map is almost the same."""
    images = pixels_of(compact, stack(2, 150, 160))
    high = jacobian_maps(compact.network, images, [0])
    low = jacobian_maps(
        compact.network, images, [0], choice=DeviceChoice(torch.device("cpu"), torch.bfloat16, "as requested")
    )
    assert low.dtype == np.float32
    assert np.corrcoef(high.ravel(), low.ravel())[0, 1] > 0.9


def test_against_a_reference_by_hand() -> None:
    """Class p = .3 (odds 3/7) against a reference of p = .03 (odds 3/97): 97 / 104; the reference keeps its p."""
    maps = np.array([0.3, 0.03], np.float32)[:, None, None]
    np.testing.assert_allclose(relative_to_reference(maps, 1).ravel(), [97 / 104, 0.03], rtol=1e-5)
    extremes = relative_to_reference(np.array([1.0, 0.0, 0.0], np.float32)[:, None, None], 2)
    np.testing.assert_allclose(extremes.ravel(), [1.0, 0.5, 0.0], atol=1e-6)


def test_object_evidence_is_read_against_the_reference(compact: TrainedModel) -> None:
    """Only object evidence changes, one half is its threshold, and a threshold on the card wins."""
    image, cells = stack(2, 150, 150), np.zeros((150, 150), int)
    cells[60:90, 60:90] = 1
    model = compact.with_card(reference="b", thresholds={"object": {"c": 0.2}})
    plain, found = (evidence(one, image, foreground=cells, **EXACT) for one in (compact, model))
    laid = lay_over(relative_to_reference(plain.prediction.class_maps[0], 1), plain.prediction.placement, (150, 150))
    for i in (0, 2):
        assert found.maps[0, i, 75, 75] == pytest.approx(laid[i, 60:90, 60:90].mean(), rel=1e-5)
    np.testing.assert_array_equal(found.maps[:, 1], plain.maps[:, 1])
    assert found.thresholds == {"a": 0.5, "c": 0.2}
    raw = [evidence(one, image, kind="class_map", **EXACT).maps for one in (compact, model)]
    np.testing.assert_array_equal(*raw)


def test_a_reference_is_one_of_the_classes(compact: TrainedModel) -> None:
    """The message lists the classes of the model."""
    with pytest.raises(OptionsError, match="reference class 'control' is not among the classes: a, b, c"):
        compact.with_card(reference="control")
