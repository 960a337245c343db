"""The card of a model: everything that is said of it beside its weights."""

from __future__ import annotations

import math
from typing import Any

from pydantic import ConfigDict, Field, model_validator

from napari_milcnn.options import ForegroundOptions, NetworkOptions, Options


class ModelCard(Options):
    """Our own facts about a model, as they stand in `config.milcnn` of its file."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=True, ser_json_inf_nan="strings")
    """A figure that could not be measured is NaN, which JSON lacks: it is written as a word and read back."""

    format: int = Field(1, description="Version of this block.")
    name: str = Field("MIL-CNN", description="What the model is called.")
    description: str = Field("", description="One or two sentences.")
    authors: tuple[str, ...] = ("unknown",)
    license: str = Field("", description="SPDX identifier, such as CC-BY-4.0; empty where none was given.")
    credit: str = Field("", description="Whose data it was trained on, and under which licence.")
    trained_on: str = Field("", description="What it was trained on and the range it is good for.")
    classes: tuple[str, ...]
    channels: tuple[str, ...]
    pixel_size: float | None = Field(
        None, gt=0, allow_inf_nan=False, description="µm per pixel of the images it was trained on."
    )
    single_label: bool = Field(True, description="Whether each image shows exactly one class.")
    mean: tuple[float, ...] = Field(description="Of the training set, per channel, on raw intensities.")
    std: tuple[float, ...] = Field(description="Of the training set, per channel, on raw intensities.")
    network: NetworkOptions
    foreground: ForegroundOptions = ForegroundOptions()
    reference: str | None = Field(
        None, description="Class whose images show no other class (control, wild type, basal): object evidence for the "
                          "others is read against it."
    )  # fmt: skip
    thresholds: dict[str, dict[str, float]] = Field({}, description="Kind of evidence -> class -> threshold.")
    temperature: float = Field(
        1.0, gt=0, allow_inf_nan=False, description="The last layer's y is divided by it before scores are read, so "
                                                    "that they are as sure as they are right."
    )  # fmt: skip
    training: dict[str, Any] = Field({}, description="Options and course of the training.")
    metrics: dict[str, float] = Field({}, description="What was measured, and by which name.")

    def thresholds_for(self, kind: str) -> dict[str, float]:
        """Class -> threshold for one kind of evidence.

        Those stated; for evidence read against a reference class one half is a start, where both are as likely.
        """
        against = kind == "object" and self.reference is not None
        halves = {name: 0.5 for name in self.classes if against and name != self.reference}
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
                raise ValueError(f"the {name} repeat a name: {', '.join(named)}")
        if self.reference is not None and self.reference not in self.classes:
            raise ValueError(
                f"the reference class {self.reference!r} is not among the classes: {', '.join(self.classes)}"
            )
        if not len(self.mean) == len(self.std) == len(self.channels):
            raise ValueError(f"mean and std need one number for each of {len(self.channels)} channels")
        if not all(map(math.isfinite, self.mean)) or not all(math.isfinite(s) and s > 0 for s in self.std):
            raise ValueError("mean and std must be finite, std above zero")
        return self
