"""Whole images through a model: tiles, stacks, devices that run out of memory, single cells."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from conftest import blob, delta_model, lively_model, no_bags, noise
from napari_milcnn.errors import ComputeError, ImageError, LabelsError, ModelError, OptionsError
from napari_milcnn.images.intensity import IntensityScale
from napari_milcnn.images.open import open_image
from napari_milcnn.images.stack import ImageStack, PlaneIndex
from napari_milcnn.inference.cells import LARGEST_LABEL, classify_cells
from napari_milcnn.inference.class_maps import MapPlacement
from napari_milcnn.inference.devices import DeviceChoice
from napari_milcnn.inference.engines.openvino_encoder import Encoder
from napari_milcnn.inference.predict import (
    Classifier,
    Prediction,
    classify,
    classify_group,
    joined,
)
from napari_milcnn.model.openvino_import import openvino_version
from napari_milcnn.model.trained_model import TrainedModel
from napari_milcnn.network.inference_copy import inference_copy
from napari_milcnn.options import POOLINGS, PoolingName

EXACT = {"device": "cpu", "precision": "float32"}


def stack(*shape: int, axes: str = "CYX", seed: int = 0, **more: Any) -> ImageStack:
    """Open noise of the channels GFP and RFP."""
    return open_image(noise(*shape, seed=seed), axes=axes, channels=["GFP", "RFP"], **more)


def assert_same(one: Prediction, other: Prediction, tolerance: float = 1e-5) -> None:
    """Compare class maps, P and scores."""
    for name in ("class_maps", "probabilities", "scores"):
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), atol=tolerance, rtol=0, err_msg=name)


def reference(model: TrainedModel, image: ImageStack, plane: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Class maps p, P and softmax scores of one plane, straight from the network."""
    network = copy.deepcopy(model.network).eval()
    with torch.no_grad():
        output = network(torch.from_numpy(model.fixed_intensity.apply(image.plane(plane)))[None])
    return output.class_maps.sigmoid().numpy()[0], output.probabilities.numpy()[0], output.scores.softmax(1).numpy()[0]


@pytest.mark.parametrize(
    ("layer", "value", "what"),
    [("encoder.0.weight", 3e38, "class maps"), ("maps.weight", 3e38, "class maps"), ("head.weight", 3e38, "scores"),
     ("temperature", 1e-45, "scores")],
)  # fmt: skip
def test_an_answer_that_is_no_number_is_an_error(layer: str, value: float, what: str) -> None:
    """Weights so large that the network overflows: no class is named, neither of an image nor of a cell."""
    model = lively_model("paper", first_pool=False)
    if layer == "temperature":
        model = model.with_card(temperature=value)
    else:
        with torch.no_grad():
            model.network.state_dict()[layer].mul_(value)
    with pytest.raises(ModelError, match=f"gives {what} that are NaN or infinite"):
        classify(model, stack(2, 160, 170), **EXACT)
    if what == "class maps":
        with pytest.raises(ModelError, match="gives class maps that are NaN or infinite"):
            classify_cells(model, stack(2, 160, 170), np.eye(160, 170, dtype=int), **EXACT)


# Tiles


@pytest.mark.parametrize(("preset", "shape"), [("compact", (203, 261)), ("paper", (300, 397))])
@pytest.mark.parametrize("tiles", [0, 1, 16, 33, 50, 1000])
def test_tiles_equal_one_piece(preset: str, shape: tuple[int, int], tiles: int, request: Any) -> None:
    """Tiles of any side from the receptive field up give the class map of the plane in one piece."""
    model = request.getfixturevalue(preset)
    image = stack(2, *shape)
    placement = model.network.placement
    maps, pooled, scores = reference(model, image)
    assert maps.shape == (3, placement.map_size(shape[0]), placement.map_size(shape[1]))
    prediction = classify(model, image, tile=placement.receptive_field + tiles, **EXACT)
    np.testing.assert_allclose(prediction.class_maps[0], maps, atol=1e-5, rtol=0)
    np.testing.assert_allclose(prediction.probabilities[0], pooled, atol=1e-5, rtol=0)
    np.testing.assert_allclose(prediction.scores[0], scores, atol=1e-5, rtol=0)
    assert maps.std() > 0.05


@pytest.mark.parametrize("size", [0.4, 1.7])
def test_tiles_equal_one_piece_when_resampled(size: float) -> None:
    """Tiles are resampled window by window and still give the class map of the plane in one piece."""
    model = lively_model(pixel_size=1.0)
    image = stack(2, 301, 287, pixel_size=size)
    assert_same(classify(model, image, tile=90, **EXACT), classify(model, image, **EXACT), 1e-4)


def test_tiles_are_no_larger_than_asked_for(compact: TrainedModel) -> None:
    """With tile=100 the network never sees more than 100 x 100 px."""
    classifier = Classifier(compact, tile=100, **EXACT)
    shapes = []
    whole = classifier.inference._encode
    classifier.inference._encode = lambda images: (shapes.append(tuple(images.shape)), whole(images))[1]
    classifier.classify(stack(2, 203, 261))
    assert max(max(shape[-2:]) for shape in shapes) == 99  # (99 - 67) / 16 + 1 = 3 instances a side
    assert len(shapes) == 3 * 5  # 9 x 13 instances


def test_a_tile_below_the_receptive_field_is_refused(compact: TrainedModel) -> None:
    """66 px are too small for an instance; the message says what is needed."""
    with pytest.raises(OptionsError, match=r"'tile' is 66; expected at least the receptive field, 67 px"):
        classify(compact, stack(2, 100, 100), tile=66, **EXACT)


# Stacks


@pytest.mark.parametrize("batch_size", [1, 2, 5, 40])
def test_planes_are_batched_as_they_are_singly(compact: TrainedModel, batch_size: int) -> None:
    """A stack of positions, times and depths gives, in order, what each plane gives by itself."""
    pixels = noise(2, 2, 3, 2, 80, 99)
    image = open_image(pixels, axes="PTZCYX", channels=["GFP", "RFP"])
    prediction = classify(compact, image, batch_size=batch_size, **EXACT)
    assert prediction.planes == tuple(PlaneIndex(p, t, z) for p in (0, 1) for t in (0, 1) for z in (0, 1, 2))
    assert prediction.class_maps.shape == (12, 3, 1, 3)
    for i, (p, t, z) in enumerate(prediction.planes):
        single = open_image(pixels[p, t, z], axes="CYX", channels=["GFP", "RFP"])
        np.testing.assert_allclose(prediction.class_maps[i], reference(compact, single)[0], atol=1e-5, rtol=0)
    assert np.ptp(prediction.class_maps[:, 0, 0, 0]) > 0.05


def test_planes_in_tiles(compact: TrainedModel) -> None:
    """Tiles of several planes in one batch find their own plane and place."""
    image = stack(3, 2, 130, 150, axes="TCYX")
    whole = classify(compact, image, **EXACT)
    assert_same(whole, classify(compact, image, tile=85, batch_size=2, **EXACT))
    assert_same(whole, classify(compact, image, tile=85, batch_size=1, **EXACT))


@dataclass
class Counting:
    """An array that notes how much is read of it at a time."""

    pixels: np.ndarray
    read: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.shape, self.ndim, self.dtype = self.pixels.shape, self.pixels.ndim, self.pixels.dtype

    def __getitem__(self, key: Any) -> np.ndarray:
        block = self.pixels[key]
        self.read.append(block.size)
        return block


def test_one_plane_is_read_at_a_time(compact: TrainedModel) -> None:
    """Opening reads nothing; each step reads one plane alone, and only the model's channels.

    The plane is read for the network, for what it looks like to the network, and for whether it shows anything.
    """
    counting = Counting(noise(4, 3, 67, 83))
    image = open_image(counting, axes="TCYX", channels=["GFP", "DAPI", "RFP"])
    steps = Classifier(compact, batch_size=1, **EXACT).steps(image)
    assert counting.read == []
    next(steps)
    assert sum(counting.read) == 3 * 2 * 67 * 83
    list(steps)
    assert sum(counting.read) == 4 * 3 * 2 * 67 * 83
    assert max(counting.read) <= 2 * 67 * 83


def test_uint16_is_not_wrapped(compact: TrainedModel) -> None:
    """Intensities below the mean become negative numbers, in uint16 as in float64."""
    pixels = noise(2, 90, 90)
    assert pixels.min() < 50
    images = [open_image(p, axes="CYX", channels=["GFP", "RFP"]) for p in (pixels, pixels.astype(float))]
    assert_same(*(classify(compact, image, **EXACT) for image in images), 1e-7)


def test_nan_in_an_image_is_refused(compact: TrainedModel) -> None:
    """NaN never reaches the network."""
    pixels = noise(2, 83, 83).astype(np.float32)
    pixels[1, 40, 41] = np.nan
    with pytest.raises(ImageError, match="1 of 13778 values are NaN or infinite"):
        classify(compact, open_image(pixels, axes="CYX", channels=["GFP", "RFP"]), **EXACT)


# Steps


def test_steps_report_how_far_they_came(compact: TrainedModel) -> None:
    """The number rises to the total, which stays; a step that finishes planes carries their prediction."""
    image = stack(3, 2, 100, 100, axes="TCYX")
    steps = list(Classifier(compact, tile=67, batch_size=2, **EXACT).steps(image))
    assert [step.number for step in steps] == [2, 4, 6, 8, 10, 12, 14, 16, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27]
    assert {step.total for step in steps} == {27}  # 3 planes of 3 x 3 instances
    parts = [step.result for step in steps if step.result is not None]
    assert [i for i, step in enumerate(steps) if step.result is not None] == [8, 17]
    assert_same(joined(parts), classify(compact, image, **EXACT))


def test_a_single_step_is_the_last(compact: TrainedModel) -> None:
    """One plane in one piece: one step, 1 of 1."""
    (step,) = Classifier(compact, **EXACT).steps(stack(2, 80, 80))
    assert (step.number, step.total) == (1, 1)
    assert step.result is not None


def test_steps_may_be_left_early(compact: TrainedModel) -> None:
    """Leaving the loop runs nothing more, and the classifier goes on with the next image."""
    classifier = Classifier(compact, tile=67, batch_size=1, **EXACT)
    runs = []
    whole = classifier.inference._encode
    classifier.inference._encode = lambda images: (runs.append(1), whole(images))[1]
    image = stack(2, 100, 100)
    for step in classifier.steps(image):
        if step.number == 2:
            break
    assert len(runs) == 2
    assert_same(classifier.classify(image), classify(compact, image, **EXACT))


# The network as it is run


@pytest.mark.parametrize("preset", ["compact", "paper"])
def test_the_inference_copy_is_the_network(preset: str, request: Any) -> None:
    """With batch norm folded away the class maps are those of the network in eval mode."""
    network = request.getfixturevalue(preset).network
    images = torch.randn(2, 2, 180, 200, generator=torch.Generator().manual_seed(3))
    fast = inference_copy(network)
    kinds = {type(layer).__name__ for layer in fast.modules()}
    assert not kinds & {"BatchNorm2d", "Dropout"}
    with torch.no_grad():
        torch.testing.assert_close(fast.class_maps(images), network.class_maps(images), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("training", [True, False])
def test_the_model_is_left_as_it_was(training: bool) -> None:
    """Weights, buffers, mode and requires_grad are untouched; a model in training mode classifies as in eval mode."""
    model = lively_model(dropout=0.4, dropout_last=0.4)
    image = stack(2, 100, 130)
    expected = reference(model, image)[0]
    model.network.train(training)
    model.network.maps.eval()
    model.network.head.bias.requires_grad_(False)
    before = copy.deepcopy(model.network.state_dict())
    modes = [module.training for module in model.network.modules()]
    layers = str(model.network)
    prediction = classify(model, image, **EXACT)
    np.testing.assert_allclose(prediction.class_maps[0], expected, atol=1e-5, rtol=0)
    after = model.network.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert [module.training for module in model.network.modules()] == modes
    assert str(model.network) == layers
    assert [name for name, p in model.network.named_parameters() if not p.requires_grad] == ["head.bias"]
    assert all(p.grad is None for p in model.network.parameters())


def test_bfloat16_is_close(compact: TrainedModel) -> None:
    """Convolutions in bfloat16 change p by some hundredths at most and P by less than one; the device is named."""
    image = stack(2, 203, 261)
    low = classify(compact, image, device="cpu", precision="bfloat16")
    high = classify(compact, image, **EXACT)
    assert low.class_maps.dtype == low.probabilities.dtype == low.scores.dtype == np.float32
    assert 0 < abs(low.class_maps - high.class_maps).max() < 0.05
    assert abs(low.probabilities - high.probabilities).max() < 0.01
    assert low.device == "cpu, bfloat16 (as requested)"
    assert high.device == "cpu, float32 (as requested)"


# A prediction and its table


def hand_made(scores: list[list[float]], classes: tuple[str, ...] = ("a", "b", "c")) -> Prediction:
    """Make a prediction of one instance per plane with these scores."""
    values = np.array(scores, np.float32)
    planes = tuple(PlaneIndex(0, t, 0) for t in range(len(values)))
    maps = np.zeros((*values.shape, 1, 1), np.float32)
    return Prediction(classes, values / 2, values, maps, planes, MapPlacement(16, 33, 33), "image", (), "cpu", 0.0,
                      np.zeros(len(planes), np.float32), ("",) * len(planes), np.ones(len(planes), bool),
                      no_bags(*values.shape))  # fmt: skip


def test_top_margin_and_table() -> None:
    """Scores .2 .7 .1 have the top class b by a margin of .5; the table has them per plane, then score and P.

    Between them is how unlike the training images a plane is.
    """
    prediction = hand_made([[0.2, 0.7, 0.1], [0.5, 0.1, 0.4]])
    assert prediction.top == ("b", "a")
    np.testing.assert_allclose(prediction.margin, [0.5, 0.1], atol=1e-6)
    table = prediction.table()
    assert list(table) == [
        "position", "t", "z", "top", "margin", "unlike", "unlike reason", "score a", "score b", "score c", "P a", "P b",
        "P c",
    ]  # fmt: skip
    assert table["t"].tolist() == [0, 1]
    assert table["top"].tolist() == ["b", "a"]
    np.testing.assert_allclose(table.loc[1, ["score a", "P a", "P c"]].tolist(), [0.5, 0.25, 0.2], atol=1e-6)


def test_a_single_class_has_the_margin_one() -> None:
    """With one class there is no next one."""
    prediction = hand_made([[0.3], [0.9]], ("only",))
    assert prediction.margin.tolist() == [1.0, 1.0]
    assert prediction.top == ("only", "only")


def test_a_one_class_model_classifies() -> None:
    """One class: maps, P and table of one column each."""
    model = lively_model(classes=("only",)).with_card(single_label=False)
    prediction = classify(model, stack(2, 2, 80, 100, axes="TCYX"), tile=70, **EXACT)
    assert prediction.class_maps.shape == (2, 1, 1, 3)
    assert prediction.table()["score only"].between(0.01, 0.99).all()


def test_scores_of_one_and_of_several_labels() -> None:
    """By hand: P = sigmoid(4 * 2 - 6) = .881 and sigmoid(-6) = .002, y = 4 P; softmax for one label, else sigmoids."""
    pixels = np.stack([blob((67, 67), (33, 33), 3) * 2, np.zeros((67, 67))])
    model = delta_model(channels=2)
    image = open_image(pixels, axes="CYX", channels=["c0", "c1"])
    p = 1 / (1 + np.exp(-np.array([2.0, -6.0])))
    single = classify(model, image, **EXACT)
    np.testing.assert_allclose(single.class_maps[0, :, 0, 0], p, atol=1e-5)
    np.testing.assert_allclose(single.probabilities[0], p, atol=1e-5)
    np.testing.assert_allclose(single.scores[0], np.exp(4 * p) / np.exp(4 * p).sum(), atol=1e-5)
    several = classify(model.with_card(single_label=False), image, **EXACT)
    np.testing.assert_allclose(several.scores[0], 1 / (1 + np.exp(-4 * p)), atol=1e-5)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"tiles": 100}, r"no option 'tiles'; expected one of device, precision, engine, batch_size, tile"),
        ({"batch_size": 0}, r"option 'batch_size' is 0"),
        ({"device": "gpu"}, r"option 'device' is 'gpu'"),
        ({"device": "cuda:99"}, r"this computer has no device 'cuda:99'; it has cpu"),
        ({"precision": "float16"}, r"option 'precision' is 'float16'"),
    ],
)
def test_wrong_options_are_refused(compact: TrainedModel, options: dict[str, Any], sentence: str) -> None:
    """Each message names the option, its value and what was expected."""
    with pytest.raises(OptionsError, match=sentence):
        classify(compact, stack(2, 70, 70), **options)


# Out of memory


def limited(encode: Encoder, fits: Callable[[tuple[int, ...]], bool], error: RuntimeError | None = None) -> Encoder:
    """Wrap an encoder so that it runs out of memory on images (batch, channels, Y, X) of shapes that do not fit."""

    def run(images: torch.Tensor) -> AbstractContextManager[torch.Tensor]:
        if not fits(tuple(images.shape)):
            raise error or torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return encode(images)

    return run


def out_of_memory_on_the_cpu() -> RuntimeError:
    """Provoke what torch raises where the CPU's memory is out."""
    try:
        torch.empty(1 << 50)
    except RuntimeError as error:
        return RuntimeError(str(error))
    raise AssertionError("a machine with a petabyte of memory")


@pytest.mark.parametrize("error", [None, out_of_memory_on_the_cpu()], ids=["gpu", "cpu"])
def test_batches_are_made_smaller(compact: TrainedModel, error: RuntimeError | None) -> None:
    """If 8 planes do not fit but 3 do, batches of 2 give the same result, with a warning."""
    image = stack(9, 2, 80, 90, axes="TCYX")
    classifier = Classifier(compact, batch_size=8, **EXACT)
    classifier.inference._encode = limited(classifier.inference._encode, lambda shape: shape[0] <= 3, error)
    prediction = classifier.classify(image)
    assert_same(prediction, classify(compact, image, **EXACT))
    assert prediction.warnings == ("out of memory on cpu: smaller batches were used",)
    assert classifier.inference.batch_size == 2


@pytest.mark.parametrize("side", [67, 100, 150])
def test_planes_are_run_in_smaller_tiles(compact: TrainedModel, side: int) -> None:
    """A plane that does not fit is quartered until its parts fit, with the same result and a warning."""
    image = stack(2, 2, 203, 261, axes="TCYX")
    classifier = Classifier(compact, batch_size=1, **EXACT)
    classifier.inference._encode = limited(
        classifier.inference._encode, lambda shape: shape[2] * shape[3] <= side * side
    )
    prediction = classifier.classify(image)
    assert_same(prediction, classify(compact, image, **EXACT))
    assert prediction.warnings == ("out of memory on cpu: smaller tiles were used",)


def test_reading_that_runs_out_of_memory_is_quartered_too(compact: TrainedModel, monkeypatch: Any) -> None:
    """A MemoryError of numpy while a window is read and normalised is handled like one of the device.

    What the plane looks like is measured in windows, here of a size that fits.
    """
    image = stack(2, 203, 261)
    expected = classify(compact, image, **EXACT)
    apply = IntensityScale.apply

    def short(self: IntensityScale, raw: np.ndarray) -> np.ndarray:
        if raw.size > 2 * 150 * 150:
            raise MemoryError
        return apply(self, raw)

    monkeypatch.setattr(IntensityScale, "apply", short)
    monkeypatch.setattr("napari_milcnn.inference.unlike._SIDE", 128)
    prediction = classify(compact, image, **EXACT)
    assert_same(prediction, expected)
    assert prediction.warnings == ("out of memory on cpu: smaller tiles were used",)


def without_memory(model: TrainedModel, **options: Any) -> Classifier:
    """Make a classifier on a pretended mps device on which nothing ever fits."""
    classifier = Classifier(model, **EXACT, **options)
    classifier.inference.choice = DeviceChoice(torch.device("mps"), torch.float32, "made up")
    classifier.inference._encode = limited(classifier.inference._encode, lambda _: False)
    return classifier


def test_the_cpu_takes_over(compact: TrainedModel) -> None:
    """If not even one receptive field fits on the device, the CPU is used; every step gives a warning."""
    image = stack(3, 2, 110, 120, axes="TCYX")
    prediction = without_memory(compact).classify(image)
    assert_same(prediction, classify(compact, image, **EXACT))
    assert prediction.warnings == (
        "out of memory on mps: smaller batches were used",
        "out of memory on mps: smaller tiles were used",
        "out of memory on mps: the computation continued on the CPU",
    )
    assert prediction.device.startswith("cpu, float32")


def test_out_of_memory_on_the_cpu_is_an_error_in_words(compact: TrainedModel) -> None:
    """If no smaller step is left, the error says what to do."""
    classifier = Classifier(compact, **EXACT)
    classifier.inference._encode = limited(classifier.inference._encode, lambda _: False)
    with pytest.raises(ComputeError, match="a single receptive field does not fit into memory; close other programs"):
        classifier.classify(stack(2, 110, 120))


def test_other_failures_of_the_device_are_translated(compact: TrainedModel) -> None:
    """Any other RuntimeError of torch becomes a ComputeError with its text, at once."""
    classifier = Classifier(compact, **EXACT)
    failure = RuntimeError("CUDA error: an illegal memory access was encountered")
    classifier.inference._encode = limited(classifier.inference._encode, lambda _: False, failure)
    with pytest.raises(
        ComputeError, match=r"cpu, float32 \(as requested\) failed on images .*illegal memory access"
    ) as info:
        classifier.classify(stack(2, 110, 120))
    assert info.value.__cause__ is failure


# Cells


def two_colours() -> tuple[ImageStack, np.ndarray]:
    """Draw discs of radius 8: numbers 5 and 3 bright in c0, 9 in c1, 2 (cut by the corner) in c1, 12 dark."""
    pixels, labels = np.zeros((2, 180, 240), np.float32), np.zeros((180, 240), np.int32)
    y, x = np.indices(labels.shape)
    for number, centre, colour in ((5, (40, 60), 0), (9, (40, 160), 1), (2, (0, 0), 1), (3, (130, 239), 0)):
        disc = (y - centre[0]) ** 2 + (x - centre[1]) ** 2 <= 64
        labels[disc] = number
        pixels[colour][disc] = 2
    labels[120:130, 100:120] = 12
    return open_image(pixels, axes="CYX", channels=["c0", "c1"]), labels


def test_each_cell_gets_its_own_class() -> None:
    """By hand: p = sigmoid(4 * 2 - 6) = .881 where the cell is bright, sigmoid(-6) = .002 where not."""
    image, labels = two_colours()
    table = classify_cells(delta_model(channels=2), image, labels, **EXACT)
    assert list(table) == ["plane", "label", "y", "x", "area_px", "top", "p c0", "p c1"]
    assert table["label"].tolist() == [2, 3, 5, 9, 12]
    assert table["top"].tolist()[:4] == ["c1", "c0", "c0", "c1"]
    np.testing.assert_allclose(table["p c0"], [0.0025, 0.8808, 0.8808, 0.0025, 0.0025], atol=1e-4)
    np.testing.assert_allclose(table["p c1"], [0.8808, 0.0025, 0.0025, 0.8808, 0.0025], atol=1e-4)
    cell = table[table["label"] == 12].iloc[0]
    assert (cell["plane"], cell["y"], cell["x"], cell["area_px"]) == (0, 124.5, 109.5, 200)


def test_a_cell_is_its_own_crop(compact: TrainedModel) -> None:
    """P of a cell away from the border is the network's p of the 67 x 67 px around its centre."""
    image = stack(2, 200, 220)
    labels = np.zeros((200, 220), np.uint8)
    labels[90:93, 120:123], labels[140, 70] = 255, 7
    table = classify_cells(compact, image, labels, **EXACT).set_index("label")
    for number, y, x in ((255, 91, 121), (7, 140, 70)):
        crop = image.plane(0)[:, y - 33 : y + 34, x - 33 : x + 34]
        with torch.no_grad():
            p = (
                compact.network(torch.from_numpy(compact.fixed_intensity.apply(crop))[None])
                .class_maps.sigmoid()
                .flatten()
            )
        np.testing.assert_allclose(table.loc[number, ["p a", "p b", "p c"]].tolist(), p.numpy(), atol=1e-5)


@pytest.mark.parametrize("size", [0.5, 1.8])
def test_cells_are_found_in_a_resampled_image(size: float) -> None:
    """Centroids are in px of the image, whatever the network looks at."""
    pixels = np.stack([blob((300, 400), centre, 12 / size) * 2 for centre in ((60, 100), (230, 310))])
    image = open_image(pixels, axes="CYX", channels=["c0", "c1"], pixel_size=size)
    labels = np.zeros((300, 400), int)
    labels[58:63, 98:103], labels[228:233, 308:313] = 1, 2
    said: list[str] = []
    table = classify_cells(delta_model(channels=2, pixel_size=1.0), image, labels, on_warning=said.append, **EXACT)
    assert [f"resampled from {size:g} to the model's 1 µm" in text for text in said] == [True]
    assert table["top"].tolist() == ["c0", "c1"]
    assert table[["y", "x"]].to_numpy().tolist() == [[60, 100], [230, 310]]
    assert table["p c0"][0] > 0.8
    assert table["p c1"][1] > 0.8


def test_what_is_not_known_of_an_image_is_said_of_its_cells() -> None:
    """A pixel size that is missing is no agreement, for single cells as for whole images."""
    labels = np.zeros((160, 170), int)
    labels[58:63, 98:103] = 1
    said: list[str] = []
    model = delta_model(channels=2, pixel_size=1.0)
    image = open_image(noise(2, 160, 170), axes="CYX", channels=["c0", "c1"])
    classify_cells(model, image, labels, on_warning=said.append, **EXACT)
    assert ["does not say its pixel size" in text for text in said] == [True]
    assert any("does not say its pixel size" in text for text in classify(model, image, **EXACT).warnings)


def test_cells_of_every_plane_and_more_than_fit_at_once() -> None:
    """100 cells on each of two planes, none on the one between: 200 rows in order, bright ones apart from dark."""
    labels, pixels = np.zeros((3, 400, 400), np.int32), np.zeros((3, 1, 400, 400), np.float32)
    for i in range(100):
        y, x = 20 + 40 * (i // 10), 20 + 40 * (i % 10)
        labels[0, y, x] = labels[2, y, x] = i + 1
        pixels[2 if i % 2 else 0, 0, y, x] = 2
    image = open_image(pixels, axes="ZCYX", channels=["c0"])
    table = classify_cells(delta_model(), image, labels, batch_size=30, **EXACT)
    assert table["plane"].tolist() == [0] * 100 + [2] * 100
    assert pd.api.types.is_integer_dtype(table["plane"])
    assert table["label"].tolist() == [*range(1, 101)] * 2
    assert (table["p c0"] > 0.5).tolist() == [i % 2 == 0 for i in range(100)] + [i % 2 == 1 for i in range(100)]


@pytest.mark.parametrize("planes", [1, 2])
def test_no_cells_give_an_empty_table(compact: TrainedModel, planes: int) -> None:
    """Nothing labelled: no rows, all columns, of types that further tables can be joined to."""
    image = stack(planes, 2, 80, 90, axes="TCYX")
    table = classify_cells(compact, image, np.zeros((planes, 80, 90), np.uint16), **EXACT)
    assert list(table) == ["plane", "label", "y", "x", "area_px", "top", "p a", "p b", "p c"]
    assert len(table) == 0
    assert pd.api.types.is_float_dtype(table["p a"])
    assert pd.api.types.is_float_dtype(table["y"])
    assert not pd.api.types.is_float_dtype(table["top"])


@pytest.mark.parametrize(
    ("labels", "sentence"),
    [
        (np.zeros((80, 91), int), "the labels are 80 x 91 px, but the image is 80 x 90 px; choose labels"),
        (np.zeros((2, 80, 90), int), "the labels are 2 planes of 80 x 90 px, but the image is 80 x 90 px"),
        (np.zeros((1, 1, 80, 90), int), r"the labels are an array of the shape \(1, 1, 80, 90\), but"),
        (np.full((80, 90), 0.5), r"7200 pixels with fractions, such as 0.5"),
        (np.full((80, 90), -1), r"numbers from -1 to -1; expected 0 for background"),
        (np.full((80, 90), LARGEST_LABEL + 1, np.uint64), r"to 16777217; .* at most 16777216; renumber them"),
    ],
)
def test_label_images_that_do_not_fit_are_refused(compact: TrainedModel, labels: np.ndarray, sentence: str) -> None:
    """Shape, type and range are checked; each message says what was expected."""
    with pytest.raises(LabelsError, match=sentence):
        classify_cells(compact, stack(2, 80, 90), labels, **EXACT)


def test_cells_go_to_the_cpu_where_the_device_is_full(compact: TrainedModel, monkeypatch: Any) -> None:
    """Out of memory on a device, cells are classified on the CPU, as planes are; on the CPU it is an error in words."""
    image, labels = stack(2, 200, 220), np.zeros((200, 220), int)
    labels[90:93, 120:123], labels[140, 70] = 1, 2
    expected = classify_cells(compact, image, labels, **EXACT)
    full = without_memory(compact)
    monkeypatch.setattr("napari_milcnn.inference.cells.Classifier", lambda *_, **__: full)
    pd.testing.assert_frame_equal(classify_cells(compact, image, labels), expected, atol=1e-5)
    assert full.inference.warnings[-1] == "out of memory on mps: the computation continued on the CPU"
    full.inference._encode = limited(full.inference._encode, lambda _: False)
    with pytest.raises(ComputeError, match="a single receptive field does not fit"):
        classify_cells(compact, image, labels)


def test_planes_are_named_by_what_varies(compact: TrainedModel) -> None:
    """Two times of one z are 't 0' and 't 1'; a single plane needs no name."""
    stack = np.random.default_rng(0).random((2, 1, 2, 70, 70), np.float32)
    image = open_image(stack, axes="TZCYX", channels=list(compact.channels))
    prediction = classify(compact, image, device="cpu", precision="float32")
    assert [prediction.plane_name(i) for i in range(2)] == ["t 0", "t 1"]
    single = classify(compact, open_image(stack[0, 0], axes="CYX", channels=list(compact.channels)), device="cpu")
    assert single.plane_name(0) == ""


def test_openvino_gives_the_same_maps(compact: TrainedModel) -> None:
    """The other engine computes the same class maps in float32, also for tiles of another size."""
    if openvino_version() is None:
        pytest.skip("the extra 'openvino' is not installed")
    image = open_image(np.random.default_rng(0).random((2, 170, 150), np.float32), axes="CYX", channels=["GFP", "RFP"])
    ours = classify(compact, image, device="cpu", precision="float32")
    theirs = classify(compact, image, engine="openvino", precision="float32", tile=100)
    np.testing.assert_allclose(theirs.class_maps, ours.class_maps, atol=1e-5)
    assert theirs.device.startswith("cpu")


# Groups of images as one bag


@pytest.mark.parametrize("pooling", POOLINGS)
def test_a_group_is_pooled_as_the_instances_of_all_its_planes(pooling: PoolingName) -> None:
    """Fields of two sizes, one of them with two planes and read in tiles: P and scores of their maps put together."""
    model = lively_model(pooling=pooling).with_card(temperature=1.5)
    fields = [stack(2, 120, 131), stack(2, 2, 99, 150, axes="TCYX", seed=4)]
    found = classify_group(model, fields, tile=80, **EXACT)
    maps = [one.class_maps for one in (classify(model, field, **EXACT) for field in fields)]
    p = np.concatenate([part.transpose(1, 0, 2, 3).reshape(len(model.classes), -1) for part in maps], 1)
    logits = torch.from_numpy(np.log(p / (1 - p)))[None, :, None]
    with torch.no_grad():
        whole = model.network.read_maps(logits)
    assert (found.planes, found.instances) == (3, p.shape[1])
    np.testing.assert_allclose(found.probabilities, whole.probabilities[0], atol=1e-5)
    np.testing.assert_allclose(found.scores, (whole.scores[0] / 1.5).softmax(0), atol=1e-5)
    assert found.top == model.classes[int(found.scores.argmax())]
    np.testing.assert_allclose(found.median_scores, np.median([one.scores.mean(0) for one in found.images], 0))


def test_a_group_needs_an_image_and_one_that_shows_something(compact: TrainedModel) -> None:
    """No image is an error; a group of planes with nothing on them has no top class."""
    with pytest.raises(ImageError, match="the group has no images"):
        classify_group(compact, [])
    flat = open_image(np.full((2, 120, 120), 7, np.uint16), axes="CYX", channels=["GFP", "RFP"])
    assert classify_group(compact, [flat, flat], **EXACT).top == ""
    assert classify_group(compact, [flat, stack(2, 120, 120)], **EXACT).top in compact.classes


def test_thousands_of_predictions_keep_their_bags_and_no_features(compact: TrainedModel) -> None:
    """Without maps a prediction keeps what pools it with others, and drops what is large."""
    found = classify(compact, stack(2, 120, 131), **EXACT)
    assert found.bags.features.shape == (1, 2 * compact.network.maps.in_channels)
    kept = found.without_maps().bags
    assert kept.features.shape == (1, 0)
    np.testing.assert_array_equal(kept.summaries, found.bags.summaries)


def test_a_network_that_does_not_fit_on_the_device_runs_on_the_cpu(compact: TrainedModel, monkeypatch: Any) -> None:
    """Memory of a GPU that is full before the first image: the same answer from the CPU, said for every image."""
    gpu = DeviceChoice(torch.device("mps"), torch.float32, "as requested")
    choices = {"auto": gpu, "cpu": DeviceChoice(torch.device("cpu"), torch.float32, "as requested")}
    monkeypatch.setattr("napari_milcnn.inference.tiling.choose_device", lambda device, _: choices[device])

    def full(network: torch.nn.Module, *where: Any, **more: Any) -> torch.nn.Module:
        if where == (gpu.device,):
            raise torch.OutOfMemoryError("MPS backend out of memory")
        return move(network, *where, **more)

    move = torch.nn.Module.to
    monkeypatch.setattr(torch.nn.Module, "to", full)
    classifier, image = Classifier(compact, device="auto"), noise(2, 100, 110)
    opened = open_image(image, axes="CYX", channels=["GFP", "RFP"])
    expected = classify(compact, opened, device="cpu", precision="float32")
    for _ in range(2):
        found = classifier.classify(opened)
        assert "out of memory on mps: the computation continued on the CPU" in found.warnings
        np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-5)
