"""The options of every step, each defined once.

Python keywords, command-line options, forms and the run record all read these models. The default of an option, its
limits and the sentence that explains it are defined here and nowhere else.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from reprlib import Repr
from typing import Annotated, Literal, TypeAlias, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)

from napari_milcnn.errors import OptionsError
from napari_milcnn.untrusted import short

EvidenceKind = Literal["object", "class_map", "class_map_image", "jacobian"]
EVIDENCE_NAMES: dict[EvidenceKind, str] = {
    "object": "cells", "class_map": "class map", "class_map_image": "class map × image", "jacobian": "Jacobian map",
}  # fmt: skip
"""The kinds of evidence as users read them."""
DETAILS = (1, 2, 4)
"""Values of `EvidenceOptions.detail`."""
ACCELERATORS = ("cuda", "xpu", "mps")
"""Devices other than the CPU, the one to be preferred first."""
DEVICES = ("auto", "cpu", *ACCELERATORS)
DEVICE_HELP = f"Device to compute on: {', '.join(DEVICES[:-1])} or {DEVICES[-1]}; cuda:1 for the second GPU."
MOST_SMOOTH, MOST_SPLIT, MOST_AREA = 200.0, 1000.0, 10**9
"""Largest sigma and distance, in px, and area, in px: the time for a plane grows with the first two."""


def _of_form(pattern: str, expected: str) -> AfterValidator:
    def checked(text: str) -> str:
        if re.fullmatch(pattern, text) is None:
            raise ValueError(f"expected {expected}")
        return text

    return AfterValidator(checked)


Device = Annotated[
    str, _of_form(rf"{'|'.join(DEVICES)}|cuda:\d{{1,3}}", f"{', '.join(DEVICES)}, or cuda:1 for the second GPU")
]
Precision = Literal["auto", "float32", "bfloat16"]
RunningEngine = Literal["torch", "openvino"]
Engine = Literal["torch", "openvino", "auto"]
MasksAs = Literal["tiff", "zarr"]
"""Formats of label images."""
ExportFormat = Literal["onnx", "openvino"]
"""Formats of models for other programs."""
EXPORTED = ("masks", "maps", "tables", "picture")
"""Parts of the results of one image that can be exported."""
PoolingName = Literal["noisy_and", "noisy_or", "isr", "generalised_mean", "lse", "max", "average"]
POOLINGS: dict[PoolingName, str] = {
    "noisy_and": "For classes that many cells of an image show, but not all: the image shows the class once a share of "
                 "it does, and training learns that share.",
    "noisy_or": "For rare events in small images: one sure place is enough, and many unsure places add up to a yes.",
    "isr": "For rare events: like noisy_or, but a single sure place counts for more than many unsure ones.",
    "generalised_mean": "For shares that differ widely between images: between the average and the strongest place, "
                        "as r says.",
    "lse": "Like generalised_mean, but closer to the average at the same r.",
    "max": "For one clear cell in an image: the strongest place alone decides, and it alone learns from each image.",
    "average": "For what covers the whole image, such as tissue, lawns and textures: P is the mean over the image.",
}  # fmt: skip
"""When to take each pooling function, in a sentence."""
ZReading = Literal["planes", "maximum"]
Normalise = Literal["training", "image", "group"]
Bag = Literal["image", "group"]
Schedule = Literal["one_cycle", "cosine", "constant"]
LARGEST_NETWORK = 64_000_000
"""Most weights of a network's convolutions, which are then 256 MB; the preset `paper` has about half a million."""
KERNELS = (3, 3, 5, 3, 3, 1)
"""Side of the kernel of each of the six convolutions."""
SMALLEST_SCALE = 0.005
"""Objects of 5000 px are then as large as those that networks see best."""
LayerWidth = Annotated[int, Field(ge=1, le=2048)]
"""Number of channels after a convolution."""


class Options(BaseModel):
    """A frozen set of options that refuses unknown names and impossible values, including NaN and infinity."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


AnyOptions = TypeVar("AnyOptions", bound=Options)


def make_options(
    kind: type[AnyOptions], values: Mapping[str, object], called: Callable[[str], str] = "option '{}'".format
) -> AnyOptions:
    """Build options from keywords.

    Parameters
    ----------
    kind : type
        The option model to build.
    values : mapping
        Name of an option -> its value; options that are left out have their defaults.
    called : callable
        Function of the name of an option that returns what messages call it, such as its flag.

    Raises
    ------
    OptionsError
        If an option is unknown, missing or has an impossible value. The message names each of them and says what was
        expected.
    """
    try:
        return kind.model_validate(dict(values))
    except ValidationError as error:
        mistakes = [_mistake(kind, e["loc"], e["type"], e["input"], e["msg"], called) for e in error.errors()]
        raise OptionsError("; ".join(mistakes)) from error


_BRIEF = Repr()
"""Writes values of strangers in brief: they may be long, or nested so deeply that writing them is an error."""
_BRIEF.maxstring = _BRIEF.maxother = _BRIEF.maxlong = 200
_BRIEF.maxlist = _BRIEF.maxtuple = _BRIEF.maxdict = 20


def _mistake(
    kind: type[Options], place: Sequence[int | str], error_type: str, found: object, expected: str,
    called: Callable[[str], str],
) -> str:  # fmt: skip
    """Say what is wrong with one option, in pydantic's words where those help; of several the model itself says it."""
    name = short(".".join(str(part) for part in place if part not in {"float", "str"}))
    expected = expected.removeprefix("Value error, ")
    if not name:
        return expected
    if error_type == "missing":
        return f"{called(name)} is missing"
    if error_type == "extra_forbidden":
        known = "" if len(place) > 1 else f"; expected one of {', '.join(kind.model_fields)}"
        return f"there is no option '{name}'{known}"
    return f"{called(name)} is {_BRIEF.repr(found)}: {expected}"


def flag_name(name: str) -> str:
    """Return the command-line option of a field, such as --batch-size."""
    return f"--{name.replace('_', '-')}"


class NetworkOptions(Options):
    """The architecture of a network."""

    channels: int = Field(ge=1, le=256, description="Number of image channels that the network reads.")
    classes: int = Field(ge=1, le=2048, description="Number of classes that the network tells apart.")
    pooling: PoolingName = Field(
        "noisy_and", description="Pooling function that turns a class map into the image's probability."
    )
    a: float = Field(10.0, gt=0, le=10_000, description="Slope of Noisy-AND.")
    r: float = Field(
        2.5, gt=0, le=1000, description="Sharpness of the generalised mean and of LSE; 1 is close to the average."
    )
    b: float | None = Field(
        None, gt=0, lt=1, description="Start of Noisy-AND's thresholds and of every instance probability: about half "
                                      "the share of the map that the phenotype covers; default: measured on the "
                                      "training images."
    )  # fmt: skip
    first_pool: bool = Field(
        True, description="Average-pool (3 x 3, stride 2) before the first convolution, as the paper's network does."
    )
    batch_norm: bool = Field(False, description="Use batch normalisation after each convolution.")
    widths: tuple[LayerWidth, LayerWidth, LayerWidth, LayerWidth, LayerWidth, LayerWidth] = Field(
        (32, 64, 64, 128, 128, 1000),
        description="Number of channels after each of the six convolutions, such as 16,32,48,96,128,256.",
    )
    dropout: float = Field(0.2, ge=0, lt=1, description="Dropout rate after each max pool.")
    dropout_last: float = Field(0.5, ge=0, lt=1, description="Dropout rate before the map layer.")

    @property
    def weight_count(self) -> int:
        """Number of weights of the six convolutions, of the map layer and of the last layer, without biases."""
        inputs = (self.channels, *self.widths[:-1])
        encoder = sum(n * m * side**2 for n, m, side in zip(inputs, self.widths, KERNELS, strict=True))
        return encoder + self.widths[-1] * self.classes + self.classes**2

    @model_validator(mode="after")
    def _of_a_size_that_fits(self) -> NetworkOptions:
        if self.weight_count > LARGEST_NETWORK:
            raise ValueError(f"the network has {self.weight_count:,} weights, expected at most {LARGEST_NETWORK:,}")
        return self

    @field_validator("widths", mode="before")
    @classmethod
    def _read_list(cls, value: object) -> object:
        return value.split(",") if isinstance(value, str) else value


def _not_tiny(scale: float) -> float:
    if 0 < scale < SMALLEST_SCALE:
        raise ValueError(f"expected 0, or {SMALLEST_SCALE} to 1")
    return scale


NetworkScale = Annotated[float, AfterValidator(_not_tiny)]
"""Factor by which images are resized for a network; 0 until it is measured."""


class InputOptions(Options):
    """How an image becomes the input of a network."""

    normalise: Normalise = Field(
        "image", description="How intensities are scaled. image: each plane and channel by its own background and "
                             "spread, where brightness changes with lamp, exposure, camera or staining; group: by that "
                             "of the control images of its plate or batch, or of all its images where none is marked "
                             "as a control, where brightness itself is what is to be learned, such as the dose of a "
                             "reporter, and changes between plates, too; training: all by mean and standard deviation "
                             "of the training images, where brightness is what is to be learned and the microscope "
                             "stays the same."
    )  # fmt: skip
    scale: NetworkScale = Field(
        1.0, ge=0, le=1, description="Factor by which images are resized before the network sees them, relative to the "
                                     "training images: .5 shows it twice as much around each place in a quarter of the "
                                     "time. 0: measured when training begins, so that objects of the foreground "
                                     "channel are about 25 px across; 1 where they are smaller or cannot be measured."
    )  # fmt: skip


PRESETS: dict[str, dict[str, object]] = {
    "paper": {},
    "compact": {"first_pool": False, "batch_norm": True, "widths": (16, 32, 48, 96, 128, 256), "dropout": 0.0,
                "dropout_last": 0.0},
}  # fmt: skip
"""Network options by the name of a preset.

`paper` has a receptive field of 135 px and a stride of 32 px. `compact` has 67 px and 16 px, for cells of about 64 px.
"""


INPUT_PRESETS: dict[str, dict[str, object]] = {"paper": {"normalise": "training"}, "compact": {}}
"""Input options by the name of the network's preset: `paper` as published."""


def preset_options(preset: str, channels: int, classes: int, **changes: object) -> NetworkOptions:
    """Return the network options of a preset.

    Parameters
    ----------
    preset : str
        A name in `PRESETS`.
    channels, classes : int
        Number of image channels and of classes.
    **changes
        Fields of `NetworkOptions` that differ from the preset.

    Raises
    ------
    OptionsError
        If there is no such preset, or an option is unknown or has an impossible value.
    """
    if preset not in PRESETS:
        raise OptionsError(f"there is no preset {preset!r}; expected one of {', '.join(PRESETS)}")
    return make_options(NetworkOptions, {"channels": channels, "classes": classes, **PRESETS[preset], **changes})


class ComputeOptions(Options):
    """Where and how a network runs over an image; every choice gives the same result up to rounding."""

    device: Device = Field("auto", description=DEVICE_HELP)
    precision: Precision = Field(
        "auto", description="Precision of the convolutions: float32, bfloat16, or auto, which takes bfloat16 where the "
                            "processor has instructions for it."
    )  # fmt: skip
    engine: Engine = Field(
        "torch", description="Engine that runs the network: torch; openvino (CPU only; needs the extra 'openvino'); or "
                             "auto, which takes openvino where it is installed and was measured to be faster on this "
                             "computer. All images of one folder come from one engine. Jacobian maps always come from "
                             "torch."
    )  # fmt: skip
    batch_size: int = Field(4, ge=1, le=4096, description="Number of planes in one batch.")
    tile: int | None = Field(
        None, ge=1, le=65_536, description="Side, in px, of the tiles in which a plane is read and computed; default: "
                                           "whole planes where they fit into memory."
    )  # fmt: skip
    match_pixel_size: bool = Field(
        True, description="Resample an image whose pixel size differs from the model's by more than 10 %."
    )
    relative_size: float | None = Field(
        None, ge=0.05, le=20, description="Size of the objects in the images, relative to the training images, where "
                                          "the magnification is another and pixel sizes are unknown or not matched; "
                                          "the images are resampled by its inverse. Default: the same size."
    )  # fmt: skip


class ForegroundOptions(Options):
    """How the cells, or the bright structures, of an image are found for object evidence.

    What is left out is measured on the training images when a model is new, and stands on its card.
    """

    channel: str | None = Field(
        None, description="Channel in which objects are found; default: the one that the model names."
    )
    method: Literal["otsu", "local", "half_maximum"] | None = Field(
        None, description="Method that finds objects. otsu: one threshold for each plane; local: comparison with the "
                          "neighbourhood, for spots and uneven light; half_maximum: like otsu, then the edge of each "
                          "object is put at half its own height. Default: the one whose objects agree best with each "
                          "other."
    )  # fmt: skip
    size: float | None = Field(
        None,
        gt=0,
        le=4000,
        description="Diameter of a typical object, in px of the model; default: measured on the training images.",
    )
    smooth: float | None = Field(
        None,
        ge=0,
        le=MOST_SMOOTH,
        description="Gaussian sigma, in px of the model, applied before the threshold; default: a twentieth of `size`, "
        "for half_maximum a fortieth.",
    )
    split: float | None = Field(
        None,
        ge=0,
        le=MOST_SPLIT,
        description="Split touching objects whose centres are at least this far apart, in px of the model; "
        "0 splits none. Default: objects are split at the scale of `size`, and parts of one "
        "object stay together.",
    )
    min_size: int | None = Field(
        None,
        ge=0,
        le=MOST_AREA,
        description="Area of the smallest object that is kept, in px of the model; default: 6 % of a disc of `size`.",
    )

    def over(self, base: ForegroundOptions) -> ForegroundOptions:
        """Return options in which what was left out is taken from `base`; another size brings its own lengths."""
        dropped = () if self.size is None else ("smooth", "split", "min_size")
        usual = {name: value for name, value in base if name not in dropped}
        given = {name: value for name, value in self if value is not None}
        return make_options(ForegroundOptions, {**usual, **given})

    @model_serializer(mode="wrap")
    def _as_before(self, write: SerializerFunctionWrapHandler) -> dict[str, object]:
        """Leave out a size that is not known: the digest of a model covers its card, and old cards have no size."""
        return {name: value for name, value in write(self).items() if name != "size" or value is not None}


FORMER_FOREGROUND: dict[str, object] = {"method": "otsu", "smooth": 1.5, "split": 6.0, "min_size": 20}
"""Foreground options that hold where nothing was measured, as on the cards of early versions."""


class EvidenceOptions(ComputeOptions):
    """How the evidence is made that shows where in an image a class is found."""

    kind: EvidenceKind | None = Field(
        None, description="Kind of evidence. object: each foreground object gets the mean of the class map inside it; "
                          "class_map: the class map is laid over the image; class_map_image: the class map times the "
                          "brightness of the image; jacobian: the evidence is propagated back to the pixels; default: "
                          "the kind on the model's card."
    )  # fmt: skip
    detail: int | None = Field(
        None, description="For class_map and class_map_image: map pixels along each axis in place of one, 1, 2 or 4; "
                          "the network then runs 1, 4 or 16 times; default: as on the model's card for the card's own "
                          "kind, otherwise 1."
    )  # fmt: skip
    rule: Literal["guided", "plain"] = Field(
        "guided", description="Rule for Jacobian maps: guided keeps only positive evidence at every layer; plain is "
                              "the gradient."
    )  # fmt: skip
    foreground: ForegroundOptions | None = Field(
        None, description="How objects are found for object evidence; what is left out is as the model's card says."
    )

    @field_validator("detail")
    @classmethod
    def _known_detail(cls, value: int | None) -> int | None:
        if value is not None and value not in DETAILS:
            raise ValueError("expected 1, 2 or 4")
        return value


class EvaluateOptions(EvidenceOptions):
    """How a model is measured; kind, rule and foreground apply to the evidence that is compared with truth images."""

    split: Literal["train", "validation", "test"] | None = Field(
        None, description="Use only images of this split of the table; default: all images."
    )
    draws: int = Field(
        1000, ge=0, le=100_000, description="Number of draws of whole groups for the 95 % intervals; 0 for no "
                                            "intervals."
    )  # fmt: skip
    seed: int = Field(0, ge=0, lt=2**32, description="Random seed for the draws and for the folds.")
    bag: Bag = Field(
        "image", description="What the answer of a group is read from. image: the median over its images; group: that, "
                             "and beside it all images of the group, such as the fields of a well, as one bag."
    )  # fmt: skip
    faithfulness: bool = Field(
        False, description="Measure, for each kind of evidence, how much of a class's score hangs on the pixels of its "
                           "mask; needs no truth images."
    )  # fmt: skip


MasksGo: TypeAlias = Literal["beside", "inside", "nowhere"]
"""Where the masks of a screen are written."""


class StatisticsOptions(Options):
    """How the wells of a screen are compared with controls; the tables can be made again with other options."""

    false_discovery_rate: float = Field(
        0.05, gt=0, lt=1, description="Share of hits that may be false: a treatment is a hit of a class if its "
                                      "adjusted p-value is at most this."
    )  # fmt: skip
    well_score: Literal["median", "mean", "bag"] = Field(
        "median", description="Score of a well that is compared with controls: median or mean over its fields, or bag, "
                              "the score of all instances of its fields pooled together."
    )  # fmt: skip
    remove_plate_effects: bool = Field(
        False, description="Remove effects of rows and columns from the scores of each plate, by median polish, before "
                           "they are compared with controls."
    )  # fmt: skip
    sphere_features: bool = Field(False, description="Whiten features of wells by the spread of the negative controls.")


class ScreenOptions(StatisticsOptions):
    """How a screen is classified and its wells are compared: on how many processes, and what is looked for."""

    workers: int = Field(
        1,
        ge=1,
        le=1024,
        description="Number of processes on this computer, one thread each; 1 works without the extra 'cluster'. Of "
        "GPUs, each process takes one.",
    )
    scheduler: str | None = Field(
        None, description="Address of a dask scheduler whose workers do the work, such as tcp://node1:8786."
    )
    shard: str | None = Field(
        None, description="Part i of n equal parts of the screen, such as 3/16, for job arrays: each job of the array "
                          "classifies its wells into the same folder; the last one to end writes the tables."
    )  # fmt: skip
    memory_limit: Annotated[str, _of_form(r"auto|\d+(\.\d+)? ?[KMGT]i?B", "auto, or an amount such as 4GB")] = Field(
        "auto", description="Memory that each worker may use; one that needs more is replaced. auto: an equal share of "
                            "the memory of this computer."
    )  # fmt: skip
    cells: bool = Field(True, description="Find the cells of each field, count them and list them in the table cells.")
    masks: MasksGo = Field(
        "beside", description="Where the masks of the cells are written, as OME-Zarr label images. beside: into the "
                              "folder of results, in parts/PLATE/WELL. inside: into the OME-Zarr plate itself, as the "
                              "labels 'milcnn' of each field. nowhere: not at all.",
    )  # fmt: skip

    @field_validator("shard")
    @classmethod
    def _one_of_several(cls, value: str | None) -> str | None:
        number, _, count = (value or "1/1").partition("/")
        if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
            raise ValueError("expected i/n with i from 1 to n, such as 3/16")
        return value

    @field_validator("scheduler")
    @classmethod
    def _an_address(cls, value: str | None, others: ValidationInfo) -> str | None:
        if value is not None and not re.fullmatch(r"(tcp|tls|ucx|ws|wss)://\S+", value):
            raise ValueError("expected an address such as tcp://node1:8786")
        if value is not None and others.data.get("workers", 1) > 1:
            raise ValueError("the workers of a scheduler do the work; leave out workers, or scheduler")
        return value


class MaskOptions(Options):
    """How evidence becomes a mask and the mask becomes objects."""

    threshold: float | str = Field(
        "auto", description="Threshold of the evidence: auto (the model's own where its card has one, else otsu), otsu "
                            "(on the logarithm), a number, or a quantile of the plane's evidence such as q0.95."
    )  # fmt: skip
    class_thresholds: dict[str, float] = Field(
        {}, description="Class -> threshold of that class, used in place of `threshold`; as text, such as "
                        "nucleus=0.42|actin=0.3."
    )  # fmt: skip
    present: float = Field(
        0.5, ge=0, le=1, description="Lowest score at which a class gets masks; the top class always does. 0 makes "
                                     "masks of every class."
    )  # fmt: skip
    smooth: float = Field(
        0.0, ge=0, le=MOST_SMOOTH, description="Gaussian sigma, in px, applied to the evidence before the threshold; "
                                               "not used for object evidence."
    )  # fmt: skip
    min_size: int = Field(
        20, ge=0, le=MOST_AREA, description="Area of the smallest object that is kept, in px; not used for object "
                                            "evidence."
    )  # fmt: skip
    fill_holes: bool = Field(True, description="Fill holes inside objects; not used for object evidence.")
    split: float = Field(
        0.0,
        ge=0,
        le=MOST_SPLIT,
        description="Split touching objects whose centres are at least this far apart, in px; 0 splits "
        "none. Not used for object evidence, which keeps the outlines of its objects.",
    )

    @field_validator("class_thresholds", mode="before")
    @classmethod
    def _read_thresholds(cls, value: object) -> object:
        return class_thresholds_of(filter(str.strip, value.split("|"))) if isinstance(value, str) else value

    @field_validator("threshold")
    @classmethod
    def _known_threshold(cls, value: float | str) -> float | str:
        if isinstance(value, str) and value not in {"auto", "otsu"}:
            return _threshold_from_text(value)
        return value


def class_thresholds_of(texts: Iterable[str]) -> dict[str, float]:
    """Read texts such as 'nucleus=0.42', else raise ValueError; the name of a class may contain an =."""
    found: dict[str, float] = {}
    for text in texts:
        name, _, number = text.rpartition("=")
        try:
            found[name.strip()] = float(number if name.strip() else "")
        except ValueError:
            raise ValueError(f"found {text!r}, expected CLASS=NUMBER, such as nucleus=0.42") from None
    return found


def _threshold_from_text(text: str) -> float | str:
    """Return '0.4' as a number, and 'q0.95' as it is."""
    try:
        number = float(text.removeprefix("q"))
    except ValueError:
        raise ValueError("expected auto, otsu, a number such as 0.4, or a quantile such as q0.95") from None
    if not math.isfinite(number):
        raise ValueError("expected a finite number as the threshold")
    if not text.startswith("q"):
        return number
    if not 0 <= number <= 1:
        raise ValueError("expected a quantile between q0 and q1")
    return text


_FORMER_NAMES = {"turns": "flip_rotate", "gain": "vary_intensity", "intensity_jitter": "vary_intensity",
                 "readers": "num_workers", "minutes": "max_minutes"}  # fmt: skip
"""Names of training options in model files, records and checkpoints of early versions."""


def current_names(options: Mapping[str, object]) -> dict[str, object]:
    """Return training options under their present names: old records have former ones.

    A former name beside the present one is left as it is, so that it is refused as unknown.
    """
    present = {name: _FORMER_NAMES.get(name, name) for name in options}
    return {name if present[name] in options else present[name]: value for name, value in options.items()}


class TrainOptions(Options):
    """How a model learns from image-level labels."""

    epochs: int = Field(
        16,
        ge=1,
        le=100_000,
        description="Number of epochs. Each goes through the training images, several times if they are few "
        "(epoch_steps), and then through the validation images.",
    )
    epoch_steps: int = Field(
        75,
        ge=1,
        le=1_000_000,
        description="Batches in an epoch, at least: a small table is gone through several times. 1 goes "
        "through every table once.",
    )
    batch_size: int = Field(8, ge=1, le=4096, description="Patches in one batch, over all processes.")
    bag: Bag = Field(
        "image", description="What a label belongs to. image: each image by itself; group: all images of a group, such "
                             "as the fields of a well (column group), where only some of them may show the label. "
                             "Patches of several of its images are then one bag."
    )  # fmt: skip
    bag_fields: int = Field(
        4,
        ge=1,
        le=256,
        description="Images of a group whose patches are one bag; they count for batch_size. Not used for bags of "
        "images.",
    )
    patch: int = Field(
        320,
        ge=0,
        le=16_384,
        description="Side, in px, of the random patch that is cut from an image; 0 takes whole images. A "
        "patch must be large enough to hold cells that show the label: the rarer, the larger.",
    )
    learning_rate: float = Field(2e-3, gt=0, le=1, description="Highest learning rate of the Adam optimiser.")
    schedule: Schedule = Field(
        "one_cycle", description="Learning-rate schedule: one_cycle rises and falls, cosine falls, constant stays."
    )
    head_rate: float = Field(
        10.0,
        gt=0,
        le=1000,
        description="Multiplier on the learning rate for Noisy-AND's thresholds and the last layer.",
    )
    encoder_rate: float = Field(
        1.0,
        ge=0,
        le=1000,
        description="Multiplier on the learning rate for the encoder; below 1 fine-tunes it slowly, 0 freezes it.",
    )
    balance: Literal["auto", "none", "weights", "sampling"] = Field(
        "auto", description="Rare classes: weights lets their images count more, sampling draws them more often; auto "
                            "is sampling where a class has more than 1.5 times the images of another."
    )  # fmt: skip
    average: float = Field(
        0.98, ge=0, le=0.999, description="The model is the average of the network over the last steps, each of which "
                                         "counts this many times the next; 0 takes the network as it is."
    )  # fmt: skip
    flip_rotate: bool = Field(
        True, description="Flip and rotate patches at random; turn off where up and down mean something."
    )
    vary_intensity: float = Field(
        0.35, ge=0, le=2, description="Exposure and staining: the intensities above the background are multiplied by a "
                                      "random factor, whose natural logarithm has this standard deviation; 0 where "
                                      "brightness is what is to be learned."
    )  # fmt: skip
    vary_offset: float = Field(
        0.2, ge=0, le=2, description="Background: raised or lowered by at most this share of the image's spread of "
                                     "intensities."
    )  # fmt: skip
    vary_noise: float = Field(
        0.15, ge=0, le=1, description="Camera noise, shot and read: standard deviation of at most this share of the "
                                      "image's spread of intensities."
    )  # fmt: skip
    vary_saturation: float = Field(
        0.5, ge=0, lt=1, description="Saturation: intensities are cut off at a level that lies at most this share of "
                                     "the way from the brightest down to the background."
    )  # fmt: skip
    vary_blur: float = Field(1.5, ge=0, le=20, description="Focus: blurred by a Gaussian of at most this sigma, in px.")
    vary_size: float = Field(
        1.33, ge=1, le=4, description="Magnification: shown at most this many times larger or smaller; 1 where size is "
                                      "what is to be learned."
    )  # fmt: skip
    vary_share: float = Field(
        0.5, ge=0, le=1, description="Share of the patches to which each of these changes is applied; 0 changes none."
    )
    patience: int | None = Field(
        None, ge=1, le=100_000, description="Stop after this many epochs without a better validation; default: never."
    )
    max_minutes: float | None = Field(
        None,
        gt=0,
        le=1_000_000,
        description="Begin no further epoch after this many minutes; the learning-rate schedule still "
        "counts all epochs. Default: no limit.",
    )
    precision: Precision = Field("auto", description="Precision of the convolutions while training.")
    device: Device = Field("auto", description=DEVICE_HELP)
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

    @property
    def patches_of_bag(self) -> int:
        """Number of patches whose instances are pooled together."""
        return self.bag_fields if self.bag == "group" else 1

    @model_validator(mode="before")
    @classmethod
    def _read_former_names(cls, values: object) -> object:
        return current_names(values) if isinstance(values, dict) else values


TRAIN_PRESETS: dict[str, dict[str, object]] = {
    "paper": {"epochs": 100, "batch_size": 16, "patch": 900, "learning_rate": 1e-3, "schedule": "constant",
              "head_rate": 1.0, "epoch_steps": 1, "average": 0.0, "balance": "none", "vary_share": 0.0},
    "compact": {},
}  # fmt: skip
"""Training options by the name of the network's preset.

`paper` is as published: Adam 1e-3, patches of 900 px, images rotated and reflected but not changed, no averaging.
"""
