"""The plan of a training, which the command line and the Train dock both carry out.

A plan holds in plain values which images are learned from, what the network starts from, how it learns, and where the
model goes. Files of a training, beside the model M.zip:

M.zip
    The best model so far, written after every epoch.
M-last.zip
    The model of the last epoch, where that is not the best one.
M.checkpoint
    The state from which a training that was stopped or killed goes on.
M.training.json
    The record: the plan, the epochs that are done, and the command that repeats the training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    InputOptions,
    NetworkOptions,
    Options,
    TrainOptions,
    flag_name,
    make_options,
)


@dataclass(frozen=True)
class Start:
    """What a training starts from.

    Attributes
    ----------
    model : TrainedModel
        The model before the first epoch, with its card filled in.
    summary : str
        One sentence: a new network, or which parts of which model are used.
    """

    model: TrainedModel
    summary: str


@dataclass(frozen=True)
class TrainingPlan:
    """What a training learns from, how it learns, and where its model goes.

    Attributes
    ----------
    labels : Path
        Table of labels, folder with one folder of images for each class, or OME-Zarr plate.
    out : Path
        Model .zip to write.
    layout : Path or None
        Table of the wells of a plate and their labels.
    init : str or None
        Model to start from; None for a new network.
    preset : str or None
        Preset of a new network and of how it learns; None for compact.
    network, seen, foreground, options : dict
        Fields of `NetworkOptions`, `InputOptions`, `ForegroundOptions` and `TrainOptions` that differ from the preset.
    facts : dict
        Facts for the card: name, description, trained_on, credit, authors, license, reference.
    reading : ImageReading
        Axes, channels and pixel size of images whose files do not say them.
    """

    labels: Path
    out: Path
    layout: Path | None = None
    init: str | None = None
    preset: str | None = None
    network: dict[str, Any] = field(default_factory=dict)
    seen: dict[str, Any] = field(default_factory=dict)
    foreground: dict[str, object] = field(default_factory=dict)
    options: dict[str, object] = field(default_factory=dict)
    facts: dict[str, str | tuple[str, ...] | None] = field(default_factory=dict)
    reading: ImageReading = AS_THEY_SAY

    @property
    def checkpoint(self) -> Path:
        """File of the state that a stopped training goes on from."""
        return self.out.with_suffix(".checkpoint")

    @property
    def record(self) -> Path:
        """File of the record: the plan, the epochs that are done, and the command that repeats the training."""
        return self.out.with_suffix(".training.json")

    @property
    def last(self) -> Path:
        """File of the last epoch's model, where that is not the best one."""
        return self.out.with_name(f"{self.out.stem}-last.zip")

    def train_options(self) -> TrainOptions:
        """Return the options of the training: those of the preset, changed by those of the plan.

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
        start = self.initial_model(table)
        check_writable(self.out)
        check_description(start.model.network, start.model.card)
        return start

    def initial_model(self, table: LabelTable) -> Start:
        """Make or load the model to start from, with its card filled in; nothing is written.

        Raises
        ------
        MilcnnError
            If the model to start from, the images or the options cannot be used.
        """
        self.check_out()
        start = self._start_from_model(self.init, table) if self.init else self._start_anew(table)
        counts = ", ".join(f"{name} {count}" for name, count in table.counts().items())
        usual = {"trained_on": f"{len(table.images)} labelled images: {counts}", "name": self.out.stem}
        model = start.model.with_card(**{**usual, **{name: value for name, value in self.facts.items() if value}})
        foreground = make_options(ForegroundOptions, self.foreground).over(model.card.foreground)
        model = model.with_card(foreground=foreground)
        return Start(model, start.summary)

    def check_out(self) -> None:
        """Check the name of the model file.

        Raises
        ------
        OptionsError
            If it is not a .zip, or is the model to start from.
        """
        if self.out.suffix.lower() != ".zip" or self.out.is_dir():
            raise OptionsError(f"a model is saved as one .zip file, found {self.out}; name it {self.out.stem}.zip")
        if self.init and self.out.exists() and self.out.resolve() == Path(self.init).resolve():
            raise OptionsError(f"{self.out} is the model to start from and would be overwritten; give the new model "
                               "another name")  # fmt: skip

    def _start_anew(self, table: LabelTable) -> Start:
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
        model = new_model(table.classes, channels, preset, pixel_size=pixel_size, foreground=foreground,
                          **self.seen, **self.network)  # fmt: skip
        return Start(model, f"a new network ({preset}): {_count_of_classes(table.classes)}, {', '.join(channels)}")

    def _start_from_model(self, init: str, table: LabelTable) -> Start:
        """Load the model to start from; where its classes are not those of the table, use its encoder only.

        Raises
        ------
        OptionsError
            If the plan asks for another input than that of the model, or says what a new network is like.
        """
        ignored = [*self.network, *(["preset"] if self.preset else [])]
        if ignored:
            raise OptionsError(f"option 'init' names a model, which has a network of its own; leave out "
                               f"{', '.join(f'option {name!r}' for name in ignored)}")  # fmt: skip
        model, classes = load_model(init), _count_of_classes(table.classes)
        for name, wanted in self.seen.items():
            found = getattr(model.card, name)
            if found != wanted:
                raise OptionsError(
                    f"option {name!r} is {wanted}, but {model.card.name}, from which the training starts, learned with "
                    f"{found}; leave the option out, or start from a new network"
                )
        if set(table.classes) == set(model.classes):
            return Start(model, f"the whole network of {model.card.name}, {classes}")
        other = model.with_classes(table.classes, single_label=table.single_label)
        names = f"{', '.join(table.classes)}; {model.card.name} has {', '.join(model.classes)}"
        return Start(other, f"the encoder of {model.card.name} and a new head: {classes} ({names})")

    def command(self, *, resume: bool = False) -> list[str]:
        """Return the words of the command that trains the same model: napari-milcnn and these."""
        usual = make_options(TrainOptions, TRAIN_PRESETS.get(self.preset or "compact", {})).model_dump()
        chosen = self.train_options().model_dump()
        words = ["train", str(self.labels), "--out", str(self.out)]
        for name, value in {"layout": self.layout, "init": self.init, "preset": self.preset}.items():
            words += flag_words(name, value)
        words += option_words(NetworkOptions, self.network) + option_words(InputOptions, self.seen)
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


def _count_of_classes(classes: Sequence[str]) -> str:
    return "1 class" if len(classes) == 1 else f"{len(classes)} classes"


def flag_words(name: str, value: object) -> list[str]:
    """Write the value of a field as words of a command line; none for None, which leaves the option out."""
    flag = flag_name(name)
    if value is None:
        return []
    if isinstance(value, bool):
        return [flag if value else flag_name(f"no_{name}")]
    text = ",".join(map(str, value)) if isinstance(value, tuple | list) else str(value)
    return [f"{flag}={text}"] if text.startswith("-") else [flag, text]


def option_words(kind: type[Options], values: Mapping[str, object], prefix: str = "") -> list[str]:
    """Write values of an option model as words of a command line whose options are the fields of that model."""
    return [word for name in kind.model_fields for word in flag_words(prefix + name, values.get(name))]
