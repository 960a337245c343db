"""The card of a model: all facts about it beside its weights."""

from __future__ import annotations

import base64
import math
from typing import Annotated, Any

import numpy as np
from pydantic import (
    AfterValidator,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from napari_milcnn.options import (
    FORMER_FOREGROUND,
    EvidenceKind,
    ForegroundOptions,
    NetworkOptions,
    NetworkScale,
    Normalise,
    Options,
    make_options,
)
from napari_milcnn.untrusted import is_hidden, name_fault, short, visible

_LONGEST_TEXT = 20_000
"""Most letters of a text on a card."""


def _checked_name(name: str) -> str:
    fault = name_fault(name)
    if fault is not None:
        raise ValueError(f"'{short(name, 60)}' cannot be a name: {fault}")
    return name


def _checked_text(text: str) -> str:
    if len(text) > _LONGEST_TEXT:
        raise ValueError(f"a text of {len(text)} letters is on the card; expected at most {_LONGEST_TEXT}")
    hidden = next((one for one in text if is_hidden(one) and one not in "\n\t"), None)
    if hidden is not None:
        raise ValueError(f"a text holds the character {visible(hidden)}, which cannot be shown; remove it")
    return text


ShownName = Annotated[str, AfterValidator(_checked_name)]
"""Name of a class or a channel: one line of plain text."""
ShownText = Annotated[str, AfterValidator(_checked_text)]
"""Text on a card that is only shown."""
ObjectSize = Annotated[float, Field(gt=0, allow_inf_nan=False)]
"""Diameter in px."""
_ADDED_LATER = frozenset({"normalise", "scale"})
"""Fields of the card that version 0.1.0 did not have. Where they have their defaults they are not written."""


class _AsRead(Options):
    """A record that is written back as it was read, because the digest of a model covers it.

    Facts that an older version did not know are not added, and facts that this version does not know are kept.
    """

    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=True, ser_json_inf_nan="strings")

    @model_serializer(mode="wrap")
    def _only_given(self, write: SerializerFunctionWrapHandler) -> dict[str, object]:
        return {name: value for name, value in write(self).items() if name in self.model_fields_set}


class EpochRecord(_AsRead):
    """Figures of one epoch: a point of the training curve."""

    epoch: int = Field(description="Number of the epoch, from 1.")
    loss: float = Field(description="Joint loss, averaged over the images of the epoch: the sum of the next two.")
    pooled_loss: float = Field(description="Binary cross-entropy of the pooled probability P.")
    last_loss: float = Field(description="Cross-entropy of the last layer's y.")
    validation_accuracy: float | None = Field(None, description="None where there were no validation images.")
    validation_loss: float | None = Field(None, description="None where there were no validation images.")
    validation_mean_average_precision: float | None = Field(None, description="None where it could not be measured.")
    validation_brier: float | None = Field(None, description="Brier score; None where it was not measured.")
    validation_brier_error: float | None = Field(None, description="Standard error of it, over the images.")
    is_best: bool = Field(False, description="Whether the model was the best so far.")
    learned_b: tuple[float, ...] | None = Field(None, description="Noisy-AND's thresholds, one for each class.")


class Cloud(_AsRead):
    """The vectors of many images as an ellipsoid: their mean, and how far they spread in which direction.

    Arrays stand as base64 text: a vector of 512 values and its main directions are then some ten kilobytes.
    """

    centre: str = Field(description="Mean of each value, float32 (values,).")
    scale: str = Field(description="Divisor of each value, float32 (values,), all above zero.")
    axes: str = Field(description="Directions of unit length, float16 (axes, values), of the divided values.")
    variances: tuple[float, ...] = Field(description="Variance along each of them.")
    rest: float = Field(gt=0, allow_inf_nan=False, description="Variance along every other direction.")
    limit: float = Field(gt=0, allow_inf_nan=False, description="Largest distance within the range of known images.")

    @staticmethod
    def of_arrays(
        centre: np.ndarray, scale: np.ndarray, axes: np.ndarray, variances: np.ndarray, rest: float, limit: float
    ) -> Cloud:
        """Pack centre (values,), scale (values,) and axes (axes, values)."""
        texts = (_packed(centre, "<f4"), _packed(scale, "<f4"), _packed(axes, "<f2"))
        return Cloud(centre=texts[0], scale=texts[1], axes=texts[2], variances=tuple(variances.tolist()), rest=rest,
                     limit=limit)  # fmt: skip

    @property
    def middle(self) -> np.ndarray:
        """Mean of each value, float64 (values,)."""
        return _unpacked(self.centre, "<f4")

    def standardised(self, vectors: np.ndarray) -> np.ndarray:
        """Return how far each value of vectors (images, values) is from the centre, in its own scale."""
        return np.asarray((vectors - self.middle) / _unpacked(self.scale, "<f4"))

    def distances(self, vectors: np.ndarray) -> np.ndarray:
        """Return the Mahalanobis distance of vectors (images, values) from the centre, over the limit: (images,)."""
        x = self.standardised(vectors)
        along = x @ _unpacked(self.axes, "<f2").reshape(-1, len(self.middle)).T
        beside = np.maximum((x**2).sum(1) - (along**2).sum(1), 0)
        return np.asarray(np.sqrt((along**2 / np.array(self.variances)).sum(1) + beside / self.rest) / self.limit)

    @model_validator(mode="after")
    def _arrays_agree(self) -> Cloud:
        centre, scale, axes = _unpacked(self.centre, "<f4"), _unpacked(self.scale, "<f4"), _unpacked(self.axes, "<f2")
        if not len(centre) or len(scale) != len(centre) or len(axes) != len(centre) * len(self.variances):
            raise ValueError("centre, scale, axes and variances need to have sizes that agree")
        known = all(np.isfinite(array).all() for array in (centre, scale, axes, np.array(self.variances)))
        if not known or not (scale > 0).all() or not all(variance > 0 for variance in self.variances):
            raise ValueError("centre, scale, axes and variances must be finite, scale and variances above zero")
        return self


def _packed(array: np.ndarray, kind: str) -> str:
    return base64.b64encode(np.ascontiguousarray(array, kind).tobytes()).decode()


def _unpacked(text: str, kind: str) -> np.ndarray:
    """Unpack an array of one axis, float64; pydantic turns the ValueError for other text into one of its own."""
    return np.frombuffer(base64.b64decode(text, validate=True), kind).astype(float)


class TrainingLook(_AsRead):
    """What the training images look like, to tell whether another image resembles them (`inference.unlike`)."""

    images: int = Field(description="Training images that it was measured on.")
    held: int = Field(
        description="Images, kept out of the training, that the limits were measured on; 0 where there were none: each "
                    "half of the training images then served for the other."
    )  # fmt: skip
    features: Cloud = Field(description="Mean, then standard deviation, over the map, of the encoder's features.")
    statistics: Cloud = Field(description="Plain statistics of each channel (`inference.unlike.STATISTICS`).")
    object_sizes: tuple[ObjectSize, ObjectSize, ObjectSize] | None = Field(
        None, description="Smallest, median and largest size of the objects of an image, in px of the network's input "
                          "(`inference.foreground.object_size`); None where unknown."
    )  # fmt: skip


class TrainingRecord(_AsRead):
    """How a model was trained. Empty for a model that was not."""

    epoch: int | None = Field(None, description="Epochs that the model was trained for.")
    options: dict[str, Any] = Field({}, description="Fields of `TrainOptions`, under the names of the version that "
                                                    "trained the model.")  # fmt: skip
    device: str | None = Field(None, description="Device that it was trained on, and why.")
    started_from: str | None = Field(None, description="Digest of the trained model that the training started from.")
    images: dict[str, int] = Field({}, description="Training images of each class.")
    validation_images: dict[str, int] = Field({}, description="Validation images of each class.")
    curve: tuple[EpochRecord, ...] = Field((), description="Figures of every epoch.")
    confusion: tuple[tuple[int, ...], ...] | None = Field(
        None, description="Counts of the validation images, as `confusion_table` has them."
    )
    encoder_of: str | None = Field(None, description="Digest of the model whose encoder was taken over.")
    structureless: int | None = Field(
        None, description="Training images that show nothing above their noise; if any, such images have a "
                          "class of their own. None where unknown."
    )  # fmt: skip
    look: TrainingLook | None = Field(None, description="What the training images look like; None where unknown.")

    @property
    def structureless_sentence(self) -> str:
        """Say that images that show nothing are given a class, because some were trained on; empty if they are not."""
        count = self.structureless or 0
        images = "1 training image shows" if count == 1 else f"{count} training images show"
        return f"{images} nothing above the noise, so the model gives empty images a class, too" if count else ""

    @property
    def has_learned(self) -> bool:
        """Whether the network was trained as a whole, so that all its layers are of use."""
        return self.epoch is not None

    @property
    def has_learned_encoder(self) -> bool:
        """Whether at least the encoder was trained, so that the normalisation is that of its training images."""
        return self.has_learned or self.encoder_of is not None


class OwnEvidence(_AsRead):
    """The kind of evidence that suits a model's images, and why."""

    kind: EvidenceKind = Field(description="Kind of evidence.")
    detail: int = Field(1, description="Fineness of its class map, as `EvidenceOptions.detail`.")
    reason: ShownText = Field("", description="Why this kind, in a sentence.")


class MaskFaithfulness(_AsRead):
    """How much of a class's score hangs on the pixels of its masks, of one kind of evidence; means over images.

    Measured by `evaluation.faithfulness`, on images that show the class.
    """

    class_name: str | None = Field(description="The class; None for the mean over the images of all classes.")
    evidence: EvidenceKind = Field(description="Kind of evidence from which the masks were made.")
    images: int = Field(description="Images in which there was a mask.")
    area: float = Field(description="Share of the plane in the mask.")
    score: float = Field(description="Score of the class in the whole image.")
    without_mask: float = Field(description="Score when the pixels of the mask are replaced by background.")
    without_elsewhere: float = Field(description="The same for the mask moved to a random place.")
    mask_alone: float = Field(description="Score when all other pixels are replaced by background.")
    elsewhere_alone: float = Field(description="The same for the mask moved to a random place.")

    @property
    def lost(self) -> float:
        """What is lost of the score without the pixels of the mask."""
        return self.score - self.without_mask

    @property
    def lost_elsewhere(self) -> float:
        """What is lost of the score without as many pixels elsewhere."""
        return self.score - self.without_elsewhere


class ModelCard(Options):
    """Our own facts about a model, as they stand in `config.milcnn` of its file."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=True, ser_json_inf_nan="strings")
    """A figure that could not be measured is NaN, which JSON lacks: it is written as a word and read back."""

    format: int = Field(1, description="Version of this block.")
    name: ShownText = Field("MIL-CNN", description="What the model is called.")
    description: ShownText = Field("", description="One or two sentences.")
    authors: tuple[ShownText, ...] = ("unknown",)
    license: ShownText = Field("", description="SPDX identifier, such as CC-BY-4.0; empty where none was given.")
    credit: ShownText = Field("", description="Owner and licence of the data that it was trained on.")
    trained_on: ShownText = Field("", description="What it was trained on, and which images it is good for.")
    classes: tuple[ShownName, ...]
    channels: tuple[ShownName, ...]
    pixel_size: float | None = Field(
        None, gt=0, allow_inf_nan=False, description="µm per pixel of the images it was trained on."
    )
    single_label: bool = Field(True, description="Whether each image shows exactly one class.")
    normalise: Normalise = Field("training", description="How intensities are scaled, as `InputOptions` says.")
    scale: NetworkScale = Field(
        1.0,
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="Pixels of the network per pixel of the training images; 0 until the training measures it.",
    )
    mean: tuple[float, ...] = Field(
        description="Mean raw intensity of the training set, one for each channel; 0 where it is not used, because "
                    "images are scaled by their own intensities."
    )  # fmt: skip
    std: tuple[float, ...] = Field(
        description="Standard deviation of the same, one for each channel; 1 where it is not used."
    )
    network: NetworkOptions
    foreground: ForegroundOptions = make_options(ForegroundOptions, FORMER_FOREGROUND)
    reference: str | None = Field(
        None, description="Class whose images show no other class (control, wild type, basal); object evidence for the "
                          "others is relative to it."
    )  # fmt: skip
    thresholds: dict[str, dict[str, float]] = Field({}, description="Kind of evidence -> class -> threshold.")
    evidence: OwnEvidence | None = Field(
        None, exclude_if=lambda value: value is None,
        description="Kind of evidence that is made where none is asked for; objects where the card says nothing.",
    )  # fmt: skip
    temperature: float = Field(
        1.0, gt=0, allow_inf_nan=False, description="Divisor of the last layer's y, so that a score of .8 is right in "
                                                    "eight of ten images."
    )  # fmt: skip
    training: TrainingRecord = Field(TrainingRecord(), description="Options and course of the training.")
    metrics: dict[str, float] = Field({}, description="Name of a figure -> its value.")
    faithfulness: tuple[MaskFaithfulness, ...] = Field(
        (), exclude_if=lambda value: not value,
        description="How much of the scores hangs on the masks, for each kind of evidence and each class.",
    )  # fmt: skip

    @field_validator("thresholds")
    @classmethod
    def _finite_thresholds(cls, value: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
        wrong = [
            f"{name!r} ({kind})" for kind, found in value.items() for name, t in found.items() if not math.isfinite(t)
        ]
        if wrong:
            raise ValueError(f"the threshold of {short(wrong[0])} is no finite number")
        return value

    @property
    def network_scale(self) -> float:
        """Pixels of the network per pixel of the training images: `scale`, or 1 as long as that is not measured."""
        return self.scale or 1.0

    @property
    def network_pixel_size(self) -> float | None:
        """µm per pixel of the network's input: that of the training images, divided by their scale."""
        return None if self.pixel_size is None else self.pixel_size / self.network_scale

    @model_serializer(mode="wrap")
    def _without_later_defaults(self, write: SerializerFunctionWrapHandler) -> dict[str, object]:
        """Write the card of a model that uses nothing new as before, because the digest of a model covers it."""
        usual = {name: type(self).model_fields[name].default for name in _ADDED_LATER}
        return {name: value for name, value in write(self).items() if name not in usual or value != usual[name]}

    def thresholds_for(self, kind: str) -> dict[str, float]:
        """Return class -> threshold for one kind of evidence.

        Where the evidence is relative to a reference class, one half is the default: there both are equally likely.
        """
        is_relative = kind == "object" and self.reference is not None
        halves = {name: 0.5 for name in self.classes if is_relative and name != self.reference}
        return {**halves, **self.thresholds.get(kind, {})}

    @model_validator(mode="after")
    def _counts_agree(self) -> ModelCard:
        if self.format != 1:
            raise ValueError(f"this block has format {self.format}, this program knows format 1")
        for name, wanted in (("channels", self.network.channels), ("classes", self.network.classes)):
            named = getattr(self, name)
            if len(named) != wanted:
                raise ValueError(f"{len(named)} {name} are named, the network has {wanted}")
            if len(set(named)) < len(named):
                raise ValueError(f"the {name} repeat a name: {short(', '.join(named))}")
        if self.reference is not None and self.reference not in self.classes:
            raise ValueError(
                f"the reference class '{short(self.reference)}' is not among the classes: "
                f"{short(', '.join(self.classes))}"
            )
        look = self.training.look
        if look is not None and len(look.features.middle) != 2 * self.network.widths[-1]:
            raise ValueError("what the training images look like is that of a network with other features")
        if not len(self.mean) == len(self.std) == len(self.channels):
            raise ValueError(f"mean and std need one number for each of {len(self.channels)} channels")
        if not all(map(math.isfinite, self.mean)) or not all(math.isfinite(s) and s > 0 for s in self.std):
            raise ValueError("mean and std must be finite, std above zero")
        return self
