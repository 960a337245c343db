"""The network: the paper's sizes, what a map pixel sees, where training starts, and what is never rounded."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from napari_milcnn.errors import OptionsError
from napari_milcnn.network.dropout import SeededDropout, seed_dropout
from napari_milcnn.network.geometry import Placement
from napari_milcnn.network.mil_network import MilNetwork, build_network
from napari_milcnn.options import preset_options

THIN = {"widths": (2, 2, 2, 2, 2, 2)}
"""What a map pixel sees does not depend on the widths."""
SEEN = {"paper": (135, 32), "compact": (67, 16)}
"""Preset -> receptive field and stride, px."""


def make(preset: str, channels: int = 2, classes: int = 3, **changes: object) -> MilNetwork:
    """Make a network of a preset, the same at every call, in eval mode."""
    return MilNetwork(preset_options(preset, channels, classes, **changes)).eval()


def rising(preset: str) -> MilNetwork:
    """Make a network whose every layer rises with its input, so that no pixel can hide behind a negative weight."""
    network = make(preset, 1, 1, **THIN)
    with torch.no_grad():
        for layer in network.modules():
            if isinstance(layer, nn.Conv2d):
                layer.weight.fill_(1 / layer.weight[0].numel())
                if layer.bias is not None:
                    layer.bias.zero_()
    return network


def pixels(*shape: int, seed: int = 1) -> Tensor:
    """Random normalised images, float32."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_weights_are_drawn_as_torch_draws_them_but_not_from_its_generator() -> None:
    """A layer of torch's own, built after the same seed, has the weights of the first convolution."""
    state = torch.get_rng_state()
    network = MilNetwork(preset_options("paper", 2, 3), seed=7)
    assert torch.equal(torch.get_rng_state(), state)
    with torch.random.fork_rng():
        torch.manual_seed(7)
        layer = nn.Conv2d(2, 32, 3)
    assert torch.equal(network.encoder[1].weight, layer.weight)
    assert torch.equal(network.encoder[1].bias, layer.bias)


def test_seeded_dropout_drops_what_torch_drops_after_the_same_seed() -> None:
    """Without touching torch's own generator; with a seed of its own a second layer goes on where the first stopped."""
    images = pixels(2, 8, 30, 31).to(memory_format=torch.channels_last)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        wanted = [nn.functional.dropout(images, 0.2), nn.functional.dropout(images, 0.5)]
    state = torch.get_rng_state()
    layers = nn.Sequential(SeededDropout(0.2), SeededDropout(0.5))
    seed_dropout(layers, 3, torch.device("cpu"))
    assert all(torch.equal(layer(images), expected) for layer, expected in zip(layers, wanted, strict=True))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(layers.eval()(images), images)


@pytest.mark.parametrize(("channels", "classes", "count"), [(3, 12, 484_476), (2, 17, 489_348)])
def test_parameters_of_the_papers_network(channels: int, classes: int, count: int) -> None:
    """As the method states for BBBC021 and for yeast."""
    assert sum(p.numel() for p in make("paper", channels, classes).parameters()) == count


@pytest.mark.parametrize(
    ("size", "map_size"), [((900, 900), (24, 24)), ((1000, 1200), (28, 34)), ((1000, 1300), (28, 37))]
)
def test_map_sizes_of_the_papers_images(size: tuple[int, int], map_size: tuple[int, int]) -> None:
    """By arithmetic, and by torch, which works the shapes out without the numbers on the device `meta`."""
    network = make("paper", 3, 12, **THIN)
    assert tuple(network.placement.map_size(side) for side in size) == map_size
    features = network.to("meta").encoder(torch.empty(1, 3, *size, device="meta"))
    assert tuple(features.shape[2:]) == map_size


@pytest.mark.parametrize(
    ("preset", "sides"), [("paper", (134, 135, 166, 167, 200)), ("compact", (66, 67, 82, 83, 131))]
)
def test_map_size_counts_what_the_network_gives(preset: str, sides: tuple[int, ...]) -> None:
    """Around one and two map pixels; below a receptive field the size is 0 and the network has nothing to say."""
    network = make(preset, 1, 1, **THIN)
    assert [network.placement.map_size(side) for side in sides[:4]] == [0, 1, 1, 2]
    for side in sides[1:]:
        found = network.class_maps(pixels(1, 1, side, sides[1])).shape[2:]
        assert tuple(found) == (network.placement.map_size(side), 1)


@pytest.mark.parametrize("preset", SEEN)
def test_one_receptive_field_is_one_instance(preset: str) -> None:
    """A crop of one receptive field classifies a single cell: a 1 x 1 map, and P of every class."""
    network = make(preset)
    side = network.placement.receptive_field
    output = network(pixels(2, 2, side, side))
    assert output.class_maps.shape == (2, 3, 1, 1)
    assert output.probabilities.shape == output.scores.shape == (2, 3)


@pytest.mark.parametrize("preset", SEEN)
def test_a_map_pixel_sees_its_receptive_field_and_no_more(preset: str) -> None:
    """One bright pixel at a time: the second map pixel changes exactly for those within half a field of its centre."""
    network = rising(preset)
    field, stride = SEEN[preset]
    assert network.placement == Placement(field, stride, (field - 1) / 2)
    centre = int(network.placement.offset) + stride
    first, last = centre - (field - 1) // 2, centre + (field - 1) // 2
    size = field + 2 * stride
    dark = torch.zeros(1, 1, size, size)
    inside = [(centre, x) for x in (first, first + 1, centre, last - 1, last)] + [(first, first), (last, last)]
    inside += [(y, centre) for y in (first, last)] + [(first, last), (last, first)]
    outside = [(first - 1, centre), (last + 1, centre), (centre, first - 1), (centre, last + 1)]
    outside += [(first - 1, first - 1), (last + 1, last + 1), (0, 0), (size - 1, size - 1)]
    lit = dark.repeat(len(inside) + len(outside), 1, 1, 1)
    for image, (y, x) in zip(lit, inside + outside, strict=True):
        image[0, y, x] = 1e6
    changes = (network.class_maps(lit) - network.class_maps(dark))[:, 0, 1, 1]
    assert (changes[: len(inside)] > 1e-4).all()
    assert (changes[len(inside) :] == 0).all()


@pytest.mark.parametrize("preset", SEEN)
def test_the_gradient_of_a_map_pixel_stays_in_its_receptive_field(preset: str) -> None:
    """With the max pools taken for average pools every pixel of the field has its share, and none beyond."""
    network = rising(preset)
    network.encoder = nn.Sequential(
        *(nn.AvgPool2d(3, 2) if isinstance(m, nn.MaxPool2d) else m for m in network.encoder)
    )
    field, stride = SEEN[preset]
    image = torch.ones(1, 1, field + 2 * stride, field + stride, requires_grad=True)
    network.class_maps(image)[0, 0, 2, 1].backward()
    expected = torch.zeros(image.shape[2:], dtype=torch.bool)
    expected[2 * stride : 2 * stride + field, stride : stride + field] = True
    assert torch.equal(image.grad[0, 0] > 0, expected)
    assert torch.equal(image.grad[0, 0] != 0, expected)


@pytest.mark.parametrize("b", [0.1, 0.5])
def test_every_instance_starts_at_b(b: float) -> None:
    """With nothing in the features p is b exactly; the random start keeps its average there."""
    network = make("compact", b=b)
    logits = network.class_maps(pixels(4, 2, 131, 131))
    assert logits.sigmoid().mean().item() == pytest.approx(b, abs=0.1)
    assert network.learned_b == pytest.approx([b] * 3)
    nn.init.zeros_(network.maps.weight)
    output = network(pixels(1, 2, 131, 131))
    torch.testing.assert_close(output.class_maps.sigmoid(), torch.full_like(output.class_maps, b))
    expected = {0.1: 0.3161, 0.5: 0.5}[b]
    assert output.probabilities[0].tolist() == pytest.approx([expected] * 3, abs=5.1e-5)
    assert output.scores[0].tolist() == pytest.approx([4 * expected] * 3, abs=3e-4)


def test_the_head_starts_at_four_times_identity() -> None:
    """Score i speaks for P_i alone."""
    network = make("paper", **THIN)
    assert network.head.weight.tolist() == [[4, 0, 0], [0, 4, 0], [0, 0, 4]]
    assert network.head.bias.tolist() == [0, 0, 0]


def test_only_noisy_and_has_thresholds() -> None:
    """Another pooling has none to report, and no parameters of its own."""
    network = make("compact", pooling="max", **THIN)
    assert network.learned_b is None
    assert list(network.pooling.parameters()) == []


@pytest.mark.parametrize("preset", SEEN)
def test_tiles_give_the_maps_of_the_whole(preset: str) -> None:
    """No layer is padded: a crop that starts a whole number of strides in gives those very map pixels."""
    network = make(preset)
    field, stride = SEEN[preset]
    image = pixels(1, 2, field + 5 * stride + 7, field + 4 * stride)
    whole = network.class_maps(image)
    assert whole.shape[2:] == (6, 5)
    assert whole.std() > 1e-3
    tile = network.class_maps(image[..., 2 * stride : 4 * stride + field, stride : 2 * stride + field])
    torch.testing.assert_close(tile, whole[..., 2:5, 1:3], atol=1e-5, rtol=1e-5)
    shifted = network.class_maps(image[..., 2 * stride + 1 : 4 * stride + field + 1, stride : 2 * stride + field])
    assert not torch.allclose(shifted, whole[..., 2:5, 1:3], atol=1e-4)


@pytest.mark.parametrize("preset", SEEN)
def test_bfloat16_stops_at_the_encoder(preset: str) -> None:
    """Under autocast maps, P and y stay float32, and near the numbers of float32."""
    network = make(preset)
    image = pixels(1, 2, 199, 199)
    exact = network(image)
    with torch.autocast("cpu", torch.bfloat16):
        assert network.encoder(image).dtype == torch.bfloat16
        rounded = network(image)
        again = network.read_maps(exact.class_maps)
    assert [tensor.dtype for tensor in rounded] == [torch.float32] * 3
    for found, wanted in zip(rounded, exact, strict=True):
        torch.testing.assert_close(found, wanted, atol=0.05, rtol=0)
    assert torch.equal(again.scores, exact.scores)


def test_scores_are_read_from_the_maps() -> None:
    """Two classes whose maps are given: P is the pool of each, y = 4 P."""
    network = make("compact", classes=2, pooling="average", **THIN)
    output = network.read_maps(torch.tensor([[[[-100.0, 100.0]], [[0.0, 0.0]]]]))
    assert output.probabilities.tolist() == [[0.5, 0.5]]
    assert output.scores.tolist() == [[2, 2]]


def test_the_entry_point_of_model_files_checks_what_it_builds() -> None:
    """`build_network` takes what a model file says, and refuses what no network can have."""
    options = preset_options("compact", 2, 3, **THIN)
    assert build_network(**options.model_dump()).options == options
    with pytest.raises(OptionsError, match=r"'widths\.0' is 0"):
        build_network(**{**options.model_dump(), "widths": (0, 2, 2, 2, 2, 2)})


@pytest.mark.parametrize(("preset", "dropped", "norms"), [("paper", [0.2, 0.2, 0.2, 0.2, 0.5], 0), ("compact", [], 6)])
def test_dropout_only_where_the_preset_asks_for_it(preset: str, dropped: list[float], norms: int) -> None:
    """`paper` drops after each of four max pools and before the maps; `compact` has batch norm instead."""
    layers = list(make(preset).encoder)
    assert [layer.p for layer in layers if isinstance(layer, nn.Dropout) and layer.p > 0] == dropped
    assert sum(isinstance(layer, nn.BatchNorm2d) for layer in layers) == norms
