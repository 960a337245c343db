"""Every parameter, defined once: Python keywords, command-line options, forms and run records all read these models.

The default of an option, its limits and the sentence that explains it are here and nowhere else.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from napari_milcnn.errors import OptionsError

EvidenceKind = Literal["object", "class_map", "jacobian"]
Device = Annotated[str, Field(pattern=r"^(auto|cpu|mps|xpu|cuda(:\d+)?)$")]
Precision = Literal["auto", "float32", "bfloat16"]
Engine = Literal["torch", "openvino"]
EXPORTED = ("masks", "maps", "tables", "picture")
"""What can be written of one image."""
PoolingName = Literal["noisy_and", "noisy_or", "isr", "generalised_mean", "lse", "max", "average"]
Fraction = Annotated[float, Field(gt=0, lt=1)]
Schedule = Literal["one_cycle", "cosine", "constant"]
Width = Annotated[int, Field(ge=1, le=2048)]


class Options(BaseModel):
    """A frozen set of options; unknown names and impossible values, NaN and infinity among them, are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


AnyOptions = TypeVar("AnyOptions", bound=Options)


def make_options(kind: type[AnyOptions], values: dict[str, Any]) -> AnyOptions:
    """Build options from keywords.

    Raises
    ------
    OptionsError
        Naming each option that is unknown or has an impossible value, and what was expected.
    """
    try:
        return kind(**values)
    except ValidationError as error:
        raise OptionsError("; ".join(_error_sentence(kind, dict(e)) for e in error.errors())) from error


def _error_sentence(kind: type[Options], error: dict[str, Any]) -> str:
    name = ".".join(str(part) for part in error["loc"] if part not in {"float", "str"}) or kind.__name__
    if error["type"] == "missing":
        return f"option {name!r} is missing"
    if error["type"] == "extra_forbidden":
        expected = "" if len(error["loc"]) > 1 else f"; expected one of {', '.join(kind.model_fields)}"
        return f"there is no option {name!r}{expected}"
    return f"option {name!r} is {error['input']!r}: {error['msg'].removeprefix('Value error, ')}"


def flag_name(name: str) -> str:
    """Return the command-line option of a field, such as --batch-size."""
    return f"--{name.replace('_', '-')}"


def flag_words(name: str, value: Any) -> list[str]:
    """Write the value of a field as words of a command line; none for None, which leaves the option out."""
    flag = flag_name(name)
    if value is None:
        return []
    if isinstance(value, bool):
        return [flag if value else flag_name(f"no_{name}")]
    text = ",".join(map(str, value)) if isinstance(value, tuple | list) else str(value)
    return [f"{flag}={text}"] if text.startswith("-") else [flag, text]


def option_words(kind: type[Options], values: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Write values of an option model as words of a command line whose options are the fields of that model."""
    return [word for name in kind.model_fields for word in flag_words(prefix + name, values.get(name))]


class NetworkOptions(Options):
    """What a network is built from."""

    channels: int = Field(ge=1, le=256, description="Number of image channels.")
    classes: int = Field(ge=1, le=2048, description="Number of classes.")
    pooling: PoolingName = Field(
        "noisy_and", description="Pooling function that turns a class map into the probability of the image."
    )
    a: float = Field(10.0, gt=0, description="Slope of Noisy-AND.")
    r: float = Field(2.5, gt=0, description="Sharpness of the generalised mean and of LSE; 1 is close to the average.")
    b: Fraction | None = Field(
        None, description="Start value of Noisy-AND's thresholds and of all instance probabilities: about half the "
                          "share of an image that the phenotype covers; default: measured on the training images."
    )  # fmt: skip
    first_pool: bool = Field(
        True, description="Average pool of 3 px with stride 2 before the first convolution, as in the paper."
    )
    batch_norm: bool = Field(False, description="Batch norm after each convolution.")
    widths: tuple[Width, Width, Width, Width, Width, Width] = Field(
        (32, 64, 64, 128, 128, 1000),
        description="Channels after each of the six convolutions, such as 16,32,48,96,128,256.",
    )
    dropout: float = Field(0.2, ge=0, lt=1, description="Dropout rate after each max pool.")
    dropout_last: float = Field(0.5, ge=0, lt=1, description="Dropout rate before the map layer.")

    @field_validator("widths", mode="before")
    @classmethod
    def _read_list(cls, value: Any) -> Any:
        return value.split(",") if isinstance(value, str) else value


PRESETS: dict[str, dict[str, Any]] = {
    "paper": {},
    "compact": {"first_pool": False, "batch_norm": True, "widths": (16, 32, 48, 96, 128, 256), "dropout": 0.0,
                "dropout_last": 0.0},
}  # fmt: skip
"""`paper`: receptive field 135 px, stride 32. `compact`: 67 px, stride 16, for cells of about 64 px."""


def preset_options(preset: str, channels: int, classes: int, **changes: Any) -> NetworkOptions:
    """Return the network options of a preset, with any of them changed.

    Raises
    ------
    OptionsError
        If there is no such preset, or an option is impossible.
    """
    if preset not in PRESETS:
        raise OptionsError(f"there is no preset {preset!r}; expected one of {', '.join(PRESETS)}")
    return make_options(NetworkOptions, {"channels": channels, "classes": classes, **PRESETS[preset], **changes})


class ComputeOptions(Options):
    """Where and how a network runs over an image; every choice gives the same result up to rounding."""

    device: Device = Field("auto", description="auto, cpu, cuda, cuda:1, mps or xpu.")
    precision: Precision = Field(
        "auto", description="Of the convolutions: float32, bfloat16, or auto, which takes bfloat16 where it is faster."
    )
    engine: Engine = Field("torch", description="torch, or openvino (CPU; needs the extra 'openvino').")
    batch_size: int = Field(4, ge=1, description="Planes in one batch.")
    tile: int | None = Field(
        None, ge=1, description="Side, in px, of the tiles a plane is read and run in; default: whole planes where "
                                "they fit into memory."
    )  # fmt: skip
    match_pixel_size: bool = Field(
        True, description="Resample an image whose pixel size differs from the model's by more than 10 %."
    )


class ForegroundOptions(Options):
    """How the cells, or the bright structures, of an image are found for object evidence."""

    channel: str | None = Field(None, description="Channel to look at; default: the one that the model names.")
    method: Literal["otsu", "local", "half_maximum"] = Field(
        "otsu", description="otsu: one threshold a plane; local: against the neighbourhood, for spots and uneven "
                            "light; half_maximum: otsu, then each object's edge at half its own height."
    )  # fmt: skip
    smooth: float = Field(1.5, ge=0, description="Gaussian sigma, in px of the model, before the threshold.")
    split: float = Field(
        6.0,
        ge=0,
        description="Split touching objects whose centres lie this far apart, in px of the model; 0 splits none.",
    )
    min_size: int = Field(20, ge=0, description="Smallest object, in px of the model.")


class EvidenceOptions(ComputeOptions):
    """What is laid over the image to show where a class was seen."""

    kind: EvidenceKind = Field(
        "object", description="object: each foreground object with the mean of the class map inside it; class_map: "
                              "the class map laid over the image; jacobian: the evidence propagated back to the pixels."
    )  # fmt: skip
    rule: Literal["guided", "plain"] = Field(
        "guided", description="Jacobian: guided keeps positive evidence only at every layer; plain is the gradient."
    )
    foreground: ForegroundOptions | None = Field(
        None, description="Object evidence: how objects are found; default: as the model's card says."
    )


class EvaluateOptions(EvidenceOptions):
    """How a model is measured; kind, rule and foreground are those of the evidence scored against truth images."""

    split: Literal["train", "validation", "test"] | None = Field(
        None, description="Only the images of this split of the table; default: all."
    )
    draws: int = Field(1000, ge=0, le=100_000, description="Draws of whole groups for the 95 % intervals; 0 for none.")
    seed: int = Field(0, ge=0, lt=2**32, description="Of those draws and of the folds.")


class MaskOptions(Options):
    """How evidence becomes a mask and the mask becomes objects."""

    threshold: float | str = Field(
        "auto", description="auto (the model's own where its card has one, else otsu), otsu (on the logarithm), a "
                            "number, or a quantile of the plane's evidence such as q0.95."
    )  # fmt: skip
    class_thresholds: dict[str, float] = Field(
        {}, description="Class -> threshold; wins over `threshold` for that class."
    )
    present: float = Field(
        0.5, ge=0, le=1, description="Only classes whose score for the image reaches this, and the top class, "
                                     "give masks; 0 lets all."
    )  # fmt: skip
    smooth: float = Field(0.0, ge=0, description="Gaussian sigma, in px, over the evidence before the threshold.")
    min_size: int = Field(20, ge=0, description="Smallest object kept, in px; not for object evidence.")
    fill_holes: bool = Field(True, description="Fill holes inside objects.")
    split: float = Field(
        0.0, ge=0, description="Split touching objects whose centres lie this far apart, in px; 0 leaves them joined. "
                               "Object evidence keeps the objects it was read through."
    )  # fmt: skip

    @field_validator("threshold")
    @classmethod
    def _known_threshold(cls, value: float | str) -> float | str:
        if isinstance(value, str) and value not in {"auto", "otsu"}:
            return _threshold_text(value)
        return value


def _threshold_text(text: str) -> float | str:
    """Check 'q0.95', or read '0.4' as a number."""
    try:
        number = float(text.removeprefix("q"))
    except ValueError:
        raise ValueError("expected auto, otsu, a number such as 0.4, or a quantile such as q0.95") from None
    if not math.isfinite(number):
        raise ValueError("a threshold is a finite number")
    if not text.startswith("q"):
        return number
    if not 0 <= number <= 1:
        raise ValueError("a quantile lies between q0 and q1")
    return text


_FORMER_NAMES = {"turns": "flip_rotate", "gain": "intensity_jitter", "readers": "num_workers", "minutes": "max_minutes"}
"""Names of training options in model files, records and checkpoints of early versions."""


def current_names(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return training options under their present names: old records have former ones.

    A former name beside the present one is left as it is, so that it is refused as unknown.
    """
    present = {name: _FORMER_NAMES.get(name, name) for name in options}
    return {name if present[name] in options else present[name]: value for name, value in options.items()}


class TrainOptions(Options):
    """How a model learns from image-level labels."""

    epochs: int = Field(16, ge=1, description="Number of times that each training image is seen.")
    batch_size: int = Field(8, ge=1, description="Patches in one batch, over all processes.")
    patch: int = Field(
        320, ge=0, description="Side, in px, of the random patch that is cut from an image; 0 takes whole images. A "
                               "patch must be large enough to hold cells that show the label: the rarer, the larger."
    )  # fmt: skip
    learning_rate: float = Field(2e-3, gt=0, le=1, description="Highest learning rate of the Adam optimiser.")
    schedule: Schedule = Field(
        "one_cycle", description="Learning-rate schedule: one_cycle rises and falls, cosine falls, constant stays."
    )
    head_rate: float = Field(
        10.0, gt=0, description="Multiplier on the learning rate for Noisy-AND's thresholds and the last layer."
    )
    encoder_rate: float = Field(
        1.0, ge=0, description="Multiplier on the learning rate for the encoder; below 1 fine-tunes it slowly, 0 "
                               "freezes it."
    )  # fmt: skip
    balance: Literal["none", "weights", "sampling"] = Field(
        "none", description="Rare classes: weights lets their images count more, sampling draws them more often."
    )
    flip_rotate: bool = Field(
        True, description="Flip and rotate patches at random; turn off where up and down mean something."
    )
    intensity_jitter: float = Field(
        0.0, ge=0, le=1, description="Spread of the random factor that the intensities of a patch are multiplied by, "
                                     "for stainings that vary; 0 where brightness is what is to be learned."
    )  # fmt: skip
    patience: int | None = Field(
        None, ge=1, description="Stop after this many epochs without a better validation; default: never."
    )
    max_minutes: float | None = Field(
        None, gt=0, description="Begin no further epoch after this many minutes; the learning-rate schedule still "
                                "counts all epochs. Default: no limit."
    )  # fmt: skip
    precision: Precision = Field("auto", description="Precision of the convolutions while training.")
    device: Device = Field("auto", description="Device to train on: auto, cpu, cuda, cuda:1, mps or xpu.")
    validation: float = Field(
        0.2, ge=0, lt=1, description="Share of the groups kept for validation where the table has no split column."
    )
    seed: int = Field(
        0, ge=0, lt=2**32, description="Random seed: the same seed, machine and number of threads give the same model."
    )
    threads: int | None = Field(
        None, ge=1, le=1024, description="CPU threads that compute; default: all. One less keeps the computer "
                                         "responsive while it trains."
    )  # fmt: skip
    cache: float = Field(1.0, ge=0, le=4096, description="Memory, in GiB, for images that were already read.")
    num_workers: int = Field(2, ge=1, le=64, description="Threads that read images ahead of the device.")

    @model_validator(mode="before")
    @classmethod
    def _read_former_names(cls, values: Any) -> Any:
        return current_names(values) if isinstance(values, dict) else values


TRAIN_PRESETS: dict[str, dict[str, Any]] = {
    "paper": {"epochs": 100, "batch_size": 16, "patch": 900, "learning_rate": 1e-3, "schedule": "constant",
              "head_rate": 1.0},
    "compact": {},
}  # fmt: skip
"""Training options by the name of the network's preset: `paper` as published (Adam 1e-3, patches of 900 px)."""
