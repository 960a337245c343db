"""A training from plan to model file, as the command line and the Train dock both run it.

A plan says everything in plain values: which table, from what the network starts, how it learns, where the model goes.
After every epoch the best model so far is on disk as M.zip, and the state that a stopped or killed run goes on from as
M.checkpoint; where the last epoch's model is not the best it is kept as M-last.zip. M.training.json holds the plan and
the command that repeats it.

Several devices train in processes of their own: `follow_training` starts the command line under `accelerate launch` and
reads the epochs that it prints.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from napari_milcnn.atomic_write import check_writable
from napari_milcnn.errors import ImageError, OptionsError
from napari_milcnn.images.open import AS_THEY_SAY, ImageReading
from napari_milcnn.labels.table import LabelTable, check_images, read_labels
from napari_milcnn.model.package_read import load_model
from napari_milcnn.model.package_write import check_description
from napari_milcnn.model.trained_model import TrainedModel, new_model
from napari_milcnn.options import (
    TRAIN_PRESETS,
    ForegroundOptions,
    NetworkOptions,
    TrainOptions,
    flag_words,
    make_options,
    option_words,
)


@dataclass(frozen=True)
class Start:
    """What a training starts from: the model, and what of it is kept, in words."""

    model: TrainedModel
    kept: str


@dataclass(frozen=True)
class TrainingPlan:
    """What is trained, from what, how, and where it goes.

    Attributes
    ----------
    labels : Path
        The table, folder of one folder per class, or plate.
    out : Path
        Model .zip to write.
    layout : Path or None
        Which well of a plate shows what.
    init : str or None
        Model to start from; None for a new network.
    preset : str or None
        Network of a fresh model and how it learns; None for compact.
    network, foreground, options : dict
        Fields of `NetworkOptions`, `ForegroundOptions` and `TrainOptions` that are not left at their defaults.
    facts : dict
        For the card: name, description, trained_on, credit, authors, license, reference.
    reading : ImageReading
        Axes, channels and pixel size where the images do not say.
    """

    labels: Path
    out: Path
    layout: Path | None = None
    init: str | None = None
    preset: str | None = None
    network: dict[str, Any] = field(default_factory=dict)
    foreground: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    facts: dict[str, str | tuple[str, ...] | None] = field(default_factory=dict)
    reading: ImageReading = AS_THEY_SAY

    @property
    def checkpoint(self) -> Path:
        """Where the state of the run is kept."""
        return self.out.with_suffix(".checkpoint")

    @property
    def record(self) -> Path:
        """Where the plan itself is kept, with the command that repeats it and how far it came."""
        return self.out.with_suffix(".training.json")

    @property
    def last(self) -> Path:
        """Where the last epoch's model goes if it is not the best."""
        return self.out.with_name(f"{self.out.stem}-last.zip")

    def train_options(self) -> TrainOptions:
        """Return how it learns: what the preset says, and what was given beside it.

        Raises
        ------
        OptionsError
            If an option is unknown or impossible.
        """
        return make_options(TrainOptions, {**TRAIN_PRESETS.get(self.preset or "compact", {}), **self.options})

    def table(self) -> LabelTable:
        """Read the table of labels."""
        return read_labels(self.labels, self.reading, self.layout)

    def start(self, table: LabelTable) -> Start:
        """Make or load the model to start from, with its card filled in, and check that it can be saved.

        Raises
        ------
        MilcnnError
            If the plan cannot be carried out, before anything is trained.
        """
        begun = self.beginning(table)
        check_writable(self.out)
        check_description(begun.model.network, begun.model.card)
        return begun

    def beginning(self, table: LabelTable) -> Start:
        """Make or load the model to start from, with its card filled in; nothing is written."""
        if self.out.suffix.lower() != ".zip" or self.out.is_dir():
            raise OptionsError(f"a model is saved as one .zip file, found {self.out}; name it {self.out.stem}.zip")
        if self.init and self.out.exists() and self.out.resolve() == Path(self.init).resolve():
            raise OptionsError(f"{self.out} is the model to start from and would be overwritten; give the new model "
                               "another name")  # fmt: skip
        begun = _initial(self.init, table) if self.init else self._fresh(table)
        counts = ", ".join(f"{name} {count}" for name, count in table.counts().items())
        usual = {"trained_on": f"{len(table.images)} labelled images: {counts}", "name": self.out.stem}
        model = begun.model.with_card(**{**usual, **{name: value for name, value in self.facts.items() if value}})
        told = {**model.card.foreground.model_dump(), **self.foreground}
        model = model.with_card(foreground=make_options(ForegroundOptions, told))
        return Start(model, begun.kept)

    def _fresh(self, table: LabelTable) -> Start:
        """Make a new model with the classes of a table and the channels and pixel size of its first image."""
        try:
            with table.open(table.images[0]) as image:
                channels, pixel_size = image.channels, image.pixel_size
        except ImageError:
            check_images(table)  # names every such image at once
            raise
        foreground = make_options(ForegroundOptions, self.foreground)
        if foreground.channel is not None and foreground.channel not in channels:
            raise OptionsError(f"foreground channel {foreground.channel!r} is not in the images: {', '.join(channels)}")
        preset = self.preset or "compact"
        model = new_model(table.classes, channels, preset, pixel_size=pixel_size, foreground=foreground, **self.network)
        return Start(model, f"a new network ({preset}): {_classes(len(table.classes))}, {', '.join(channels)}")

    def command(self, *, resume: bool = False) -> list[str]:
        """Return the words of the command that trains the same model: napari-milcnn and these."""
        usual = make_options(TrainOptions, TRAIN_PRESETS.get(self.preset or "compact", {})).model_dump()
        chosen = self.train_options().model_dump()
        words = ["train", str(self.labels), "--out", str(self.out)]
        for name, value in {"layout": self.layout, "init": self.init, "preset": self.preset}.items():
            words += flag_words(name, value)
        words += option_words(NetworkOptions, self.network)
        words += option_words(TrainOptions, {name: value for name, value in chosen.items() if value != usual[name]})
        words += option_words(ForegroundOptions, self.foreground, "foreground_")
        return [*words, *self._card_words(), *self._reading_words(), *(["--resume"] if resume else [])]

    def _card_words(self) -> list[str]:
        """Write the facts for the card as options; several authors are several options."""
        facts = {name: value for name, value in self.facts.items() if value}
        authors = facts.pop("authors", ())
        words = [word for name, value in facts.items() for word in flag_words(name, value)]
        return [*words, *(word for author in authors or () for word in flag_words("author", author))]

    def _reading_words(self) -> list[str]:
        values = {one.name: getattr(self.reading, one.name) for one in fields(self.reading)}
        return [word for name, value in values.items() if value != getattr(AS_THEY_SAY, name)
                for word in flag_words(name, value)]  # fmt: skip


def _initial(init: str, table: LabelTable) -> Start:
    """Load the model to start from; where its classes are not the table's only the encoder is kept."""
    model = load_model(init)
    if set(table.classes) == set(model.classes):
        return Start(model, f"the whole network of {model.card.name}: {_classes(len(model.classes))}")
    fresh = model.with_classes(table.classes, single_label=table.single_label)
    what = f"{_classes(len(table.classes))} ({', '.join(table.classes)}) in place of {', '.join(model.classes)}"
    return Start(fresh, f"the encoder of {model.card.name}; the head starts from scratch: {what}")


def _classes(count: int) -> str:
    return f"{count} class{'es'[: 2 * (count != 1)]}"
