"""Options: defaults are valid, and a wrong value is refused with what was found and what was expected."""

from __future__ import annotations

import math
import re
from typing import Any, get_args

import pytest
from pydantic import ValidationError
from torch import nn

from napari_milcnn.errors import MilcnnError, OptionsError
from napari_milcnn.network.mil_network import MilNetwork
from napari_milcnn.options import (
    PRESETS,
    ComputeOptions,
    EvaluateOptions,
    EvidenceOptions,
    ForegroundOptions,
    InputOptions,
    MaskOptions,
    NetworkOptions,
    Options,
    PoolingName,
    TrainOptions,
    current_names,
    make_options,
    preset_options,
)
from napari_milcnn.simulation.options import SimulationOptions

WITH_DEFAULTS = (ComputeOptions, ForegroundOptions, EvidenceOptions, MaskOptions, TrainOptions)


@pytest.mark.parametrize("kind", WITH_DEFAULTS)
def test_every_option_has_a_valid_default_and_a_description(kind: type[Options]) -> None:
    """The defaults pass their own check, from Python and through JSON, as the run record keeps them."""
    options = make_options(kind, {})
    assert make_options(kind, options.model_dump()) == options
    assert kind.model_validate_json(options.model_dump_json()) == options
    assert all(field.description and field.description[-1] == "." for field in kind.model_fields.values())


@pytest.mark.parametrize("kind", [*WITH_DEFAULTS, NetworkOptions])
def test_an_unknown_option_is_refused_and_the_known_ones_are_listed(kind: type[Options]) -> None:
    """A misspelt keyword is an error."""
    needed = {"channels": 1, "classes": 2} if kind is NetworkOptions else {}
    known = ", ".join(kind.model_fields)
    with pytest.raises(OptionsError) as caught:
        make_options(kind, {**needed, "colour": "red"})
    assert str(caught.value) == f"there is no option 'colour'; expected one of {known}"
    assert isinstance(caught.value, MilcnnError)


def _numbers(kind: type[Options]) -> list[str]:
    fields = kind.model_fields.items()
    found = [name for name, field in fields if {int, float} & {field.annotation, *get_args(field.annotation)}]
    return [name for name in found if name not in {"threshold", "b"}]


@pytest.mark.parametrize("kind", [*WITH_DEFAULTS, NetworkOptions, EvaluateOptions, SimulationOptions])
def test_every_number_has_an_upper_limit(kind: type[Options]) -> None:
    """A slip of the finger, or a record of a stranger, does not fill the memory or compute for days."""
    needed = {"channels": 1, "classes": 2} if kind is NetworkOptions else {}
    for name in _numbers(kind):
        for value in (10**12, 10**30):
            with pytest.raises(OptionsError, match=f"'{name}' is {value}"):
                make_options(kind, {**needed, name: value})


def test_a_value_of_a_stranger_is_shown_in_brief() -> None:
    """Nested deeply, or long: the message is short, and made without an error of its own."""
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    for value in (deep, "x" * 100_000, {str(i): i for i in range(1000)}):
        with pytest.raises(OptionsError) as caught:
            make_options(MaskOptions, {"present": value, "y\x1b" * 1000: 1})
        assert len(str(caught.value)) < 2000
        assert str(caught.value).isprintable()


def test_a_network_is_not_shown_a_thousandth_of_an_image() -> None:
    """The scale is 0 until it is measured, and then no tiny number: an image would be blurred for ever."""
    assert [make_options(InputOptions, {"scale": scale}).scale for scale in (0, 0.005, 1)] == [0, 0.005, 1]
    with pytest.raises(OptionsError, match=r"'scale' is 1e-300: expected 0, or 0\.005 to 1"):
        make_options(InputOptions, {"scale": 1e-300})


def test_the_count_of_weights_is_that_of_the_network() -> None:
    """It is known before the network is built."""
    options = preset_options("paper", 2, 3)
    layers = [layer for layer in MilNetwork(options).modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    assert options.weight_count == sum(layer.weight.numel() for layer in layers)


def test_former_names_of_training_options_are_read() -> None:
    """Old records have them; beside the present name a former one is a mistake."""
    old = {"turns": False, "gain": 0.3, "readers": 5, "minutes": 2.5, "epochs": 3}
    new = {"flip_rotate": False, "vary_intensity": 0.3, "num_workers": 5, "max_minutes": 2.5, "epochs": 3}
    assert current_names(old) == new
    assert make_options(TrainOptions, old) == make_options(TrainOptions, new)
    with pytest.raises(OptionsError, match=r"there is no option 'turns'; expected one of .*flip_rotate"):
        make_options(TrainOptions, {"turns": False, "flip_rotate": False})


@pytest.mark.parametrize(
    ("kind", "values", "sentence"),
    [
        (ComputeOptions, {"batch_size": 0}, "option 'batch_size' is 0: Input should be greater than or equal to 1"),
        (ComputeOptions, {"tile": 0}, "option 'tile' is 0: Input should be greater than or equal to 1"),
        (ComputeOptions, {"tile": 1.5}, "option 'tile' is 1.5: .* valid integer"),
        (ComputeOptions, {"precision": "half"}, "option 'precision' is 'half': .*'auto', 'float32' or 'bfloat16'"),
        (ComputeOptions, {"engine": "onnx"}, "option 'engine' is 'onnx': .*'torch', 'openvino' or 'auto'"),
        (
            EvidenceOptions,
            {"kind": "heat"},
            "option 'kind' is 'heat': .*'object', 'class_map', 'class_map_image' or 'jacobian'",
        ),
        (
            EvidenceOptions,
            {"foreground": {"smooth": -1}},
            r"option 'foreground\.smooth' is -1: .*greater than or equal",
        ),
        (EvidenceOptions, {"foreground": {"chanel": "x"}}, r"there is no option 'foreground\.chanel'$"),
        (NetworkOptions, {"channels": 1}, "^option 'classes' is missing$"),
        (NetworkOptions, {"channels": 1, "classes": 2, "b": 0}, "option 'b' is 0: .*greater than 0"),
        (NetworkOptions, {"channels": 1, "classes": 2, "b": 1}, "option 'b' is 1: .*less than 1"),
        (NetworkOptions, {"channels": 1, "classes": 2, "a": 0}, "option 'a' is 0: .*greater than 0"),
        (NetworkOptions, {"channels": 1, "classes": 2, "dropout": 1}, "option 'dropout' is 1: .*less than 1"),
        (NetworkOptions, {"channels": 1, "classes": 2, "widths": (1, 2)}, r"option 'widths\.5' is missing"),
        (
            NetworkOptions,
            {"channels": 1, "classes": 2, "widths": (1, 1, 1, 1, 1, 2049)},
            r"'widths\.5' is 2049: .*2048",
        ),
        (NetworkOptions, {"channels": 1, "classes": 2, "pooling": "mean"}, "option 'pooling' is 'mean': .*'average'"),
        (TrainOptions, {"epochs": 0}, "option 'epochs' is 0: .*greater than or equal to 1"),
        (TrainOptions, {"validation": 1}, "option 'validation' is 1: .*less than 1"),
        (TrainOptions, {"learning_rate": 0}, "option 'learning_rate' is 0: .*greater than 0"),
        (TrainOptions, {"seed": -1}, "option 'seed' is -1: .*greater than or equal to 0"),
        (MaskOptions, {"present": 1.01}, r"option 'present' is 1\.01: .*less than or equal to 1"),
    ],
)
def test_an_impossible_value_is_refused(kind: type[Options], values: dict[str, Any], sentence: str) -> None:
    """The message names the option, its value, and the values that are possible."""
    with pytest.raises(OptionsError, match=sentence):
        make_options(kind, values)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (MaskOptions, "threshold"),
        (MaskOptions, "smooth"),
        (MaskOptions, "present"),
        (ForegroundOptions, "split"),
        (TrainOptions, "learning_rate"),
        (NetworkOptions, "a"),
        (NetworkOptions, "b"),
    ],
)
def test_no_option_is_infinite(kind: type[Options], name: str, value: float) -> None:
    """NaN and infinity are refused; they pass most comparisons and spoil every result."""
    needed = {"channels": 1, "classes": 2} if kind is NetworkOptions else {}
    with pytest.raises(OptionsError, match=f"'{name}' is {value}"):
        make_options(kind, {**needed, name: value})


def test_all_mistakes_are_reported_at_once() -> None:
    """Each mistake has a sentence, so that one more call is enough."""
    with pytest.raises(OptionsError) as caught:
        make_options(ComputeOptions, {"batch_size": 0, "tiles": 512, "device": "gpu"})
    sentences = str(caught.value).split("; ")
    assert any(part.startswith("option 'batch_size' is 0") for part in sentences)
    assert any(part.startswith("option 'device' is 'gpu'") for part in sentences)
    assert any(part.startswith("there is no option 'tiles'") for part in sentences)
    assert isinstance(caught.value.__cause__, ValidationError)


@pytest.mark.parametrize("device", ["auto", "cpu", "cuda", "cuda:0", "cuda:12", "mps", "xpu"])
def test_valid_device_names(device: str) -> None:
    """Every kind of device can be named; whether it is present is checked where it is used."""
    assert make_options(ComputeOptions, {"device": device}).device == device


@pytest.mark.parametrize("device", ["gpu", "cuda:", "cuda:x", "cuda:-1", "CPU", "cpu:0", " cuda", "cuda\n", "", "meta"])
def test_invalid_device_names_are_refused(device: str) -> None:
    """The message says what was expected."""
    with pytest.raises(OptionsError, match="expected auto, cpu, cuda, xpu, mps, or cuda:1"):
        make_options(ComputeOptions, {"device": device})


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("auto", "auto"),
        ("otsu", "otsu"),
        ("q0.95", "q0.95"),
        ("q0", "q0"),
        ("q1", "q1"),
        ("0.4", 0.4),
        ("-2", -2.0),
        ("1e-3", 0.001),
        (0.4, 0.4),
        (1, 1.0),
    ],
)
def test_valid_thresholds(given: str | float, kept: str | float) -> None:
    """Words and quantiles stay text; a number, also one typed as text on the command line, becomes a float."""
    threshold = make_options(MaskOptions, {"threshold": given}).threshold
    assert threshold == kept
    assert type(threshold) is type(kept)


@pytest.mark.parametrize(
    ("threshold", "match"),
    [
        ("high", "'threshold' is 'high': expected auto, otsu, a number such as 0.4, or a quantile such as q0.95"),
        ("", "expected auto, otsu"),
        ("q", "expected auto, otsu"),
        ("qq0.5", "expected auto, otsu"),
        ("Otsu", "expected auto, otsu"),
        ("95%", "expected auto, otsu"),
        ("q1.5", "expected a quantile between q0 and q1"),
        ("q95", "expected a quantile between q0 and q1"),
        ("q-0.1", "expected a quantile between q0 and q1"),
        ("nan", "expected a finite number as the threshold"),
        ("qnan", "expected a finite number as the threshold"),
        ("inf", "expected a finite number as the threshold"),
        (None, "'threshold' is None"),
    ],
)
def test_invalid_thresholds_are_refused(threshold: str | None, match: str) -> None:
    """The message says which thresholds are possible."""
    with pytest.raises(OptionsError, match=re.escape(match)):
        make_options(MaskOptions, {"threshold": threshold})


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("pooling", get_args(PoolingName))
def test_options_of_a_preset_can_be_changed(preset: str, pooling: str) -> None:
    """The changed option has its new value, and the others are those of the preset."""
    options = preset_options(preset, 3, 12, pooling=pooling)
    assert (options.channels, options.classes, options.pooling) == (3, 12, pooling)
    assert options.first_pool is (preset == "paper")
    assert options.batch_norm is (preset == "compact")
    assert options.widths[-1] == {"paper": 1000, "compact": 256}[preset]


def test_an_unknown_preset_is_refused() -> None:
    """The message lists the presets."""
    with pytest.raises(OptionsError, match="there is no preset 'tiny'; expected one of paper, compact"):
        preset_options("tiny", 1, 2)
    with pytest.raises(OptionsError, match="there is no option 'depth'"):
        preset_options("paper", 1, 2, depth=9)


def test_options_are_frozen() -> None:
    """The options of a run cannot change while it goes on."""
    options = make_options(MaskOptions, {})
    with pytest.raises(ValidationError, match="frozen"):
        options.present = 0.1
    assert options.present == 0.5
