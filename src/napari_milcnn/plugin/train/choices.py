"""What the user chose for a training, as it stands in the form; the plan that this gives; and what is still missing."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_milcnn.errors import MilcnnError
from napari_milcnn.options import (
    INPUT_PRESETS,
    TRAIN_PRESETS,
    ForegroundOptions,
    InputOptions,
    TrainOptions,
    make_options,
    preset_options,
)

if TYPE_CHECKING:
    from napari_milcnn.images.open import ImageReading
    from napari_milcnn.labels.labelling import Labelling
    from napari_milcnn.training.plan import TrainingPlan


@dataclass(frozen=True)
class Choices:
    """What the user chose for a training, as it stands in the form.

    Attributes
    ----------
    init : str or None
        Model to start from; None for a new network.
    preset : str
        Preset of a new network.
    network, seen, foreground, options : dict
        Values of the fields of `NetworkOptions`, `InputOptions`, `ForegroundOptions` and `TrainOptions`. Those of the
        network and its input do not count where a training starts from a model.
    out : str
        Model file, relative to the folder of the labels; "" for model.zip, or the first of model-2.zip and so on that
        is free.
    reference : str
        Class whose images show no other class; "" for none.
    plates : str
        Table of plates; "" for none.
    facts : dict
        Facts for the model's card.
    """

    init: str | None = None
    preset: str = "compact"
    network: dict[str, Any] = field(default_factory=dict)
    seen: dict[str, Any] = field(default_factory=dict)
    foreground: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    out: str = ""
    reference: str = ""
    plates: str = ""
    facts: dict[str, Any] = field(default_factory=dict)

    def plan(self, labels: Path, reading: ImageReading) -> TrainingPlan:
        """Return the plan of a training on a table of labels.

        Raises
        ------
        OptionsError
            If an option is impossible, or the model file is not a .zip or is the model to start from.
        """
        from napari_milcnn.training.plan import TrainingPlan

        usual = preset_options(self.preset, 1, 1)
        network = make_options(type(usual), {**usual.model_dump(), **self.network})
        own = () if self.init else (
            (network, usual),
            (make_options(InputOptions, {**INPUT_PRESETS[self.preset], **self.seen}),
             make_options(InputOptions, INPUT_PRESETS[self.preset])),
        )  # fmt: skip
        plan = TrainingPlan(
            labels, self._out_path(labels), init=self.init,
            preset=self.preset if not self.init and self.preset != "compact" else None,
            network=_changed(*own[0]) if own else {}, seen=_changed(*own[1]) if own else {},
            foreground=_changed(make_options(ForegroundOptions, self.foreground), ForegroundOptions()),
            options=self._changed_options(), facts=self._all_facts(),
            reading=replace(reading, plates=Path(self.plates)) if self.plates else reading,
        )  # fmt: skip
        plan.train_options()
        plan.check_out()
        return plan

    def _changed_options(self) -> dict[str, Any]:
        usual = make_options(TrainOptions, TRAIN_PRESETS["compact" if self.init else self.preset])
        return _changed(make_options(TrainOptions, {**usual.model_dump(), **self.options}), usual)

    def _all_facts(self) -> dict[str, Any]:
        return {**self.facts, **({"reference": self.reference} if self.reference else {})}

    def _out_path(self, labels: Path) -> Path:
        text = self.out.strip()
        return labels.parent / Path(text).expanduser() if text else usual_path(labels.parent)

    @classmethod
    def of(cls, plan: TrainingPlan) -> Choices:
        """Return the choices that gave a plan."""
        preset, beside = plan.preset or "compact", plan.out.parent == plan.labels.parent
        facts = {name: value for name, value in plan.facts.items() if name != "reference" and value}
        usual = beside and plan.out.name == "model.zip" and not plan.init
        return cls(
            plan.init, preset, {**preset_options(preset, 1, 1).model_dump(), **plan.network},
            {**make_options(InputOptions, INPUT_PRESETS[preset]).model_dump(), **plan.seen}, plan.foreground,
            plan.train_options().model_dump(), "" if usual else plan.out.name if beside else str(plan.out),
            str(plan.facts.get("reference") or ""), str(plan.reading.plates or ""), facts,
        )  # fmt: skip


def usual_path(folder: Path) -> Path:
    """Return model.zip of a folder, or model-2.zip and so on: an existing model is never overwritten."""
    names = (f"model-{number}.zip" if number > 1 else "model.zip" for number in count(1))
    return folder / next(name for name in names if not (folder / name).exists())


def _changed(values: Any, usual: Any) -> dict[str, Any]:
    """Return the fields of an option model that differ from the usual ones."""
    return {name: value for name, value in values if value != getattr(usual, name)}


def missing_labels(labelling: Labelling | None, validation: float) -> str:
    """Say what keeps labels from being trained on; "" if nothing does.

    Some images are held out for validation, whole groups of them, and every class must have an image left to learn
    from. This needs one group all of whose classes have another group.
    """
    if labelling is None:
        return "Open images in the Label tab first."
    shown = [name for name, number in labelling.counts().items() if number]
    if not shown:
        return "Label a few images of each class first."
    if len(shown) == 1:
        return f"All labelled images have the label {shown[0]}. Also label images of another class."
    images = [labelling.images[row] for row in labelling.labelled()]
    if validation == 0 or labelling.has_split:
        return ""
    classes: dict[str, set[str]] = {}
    groups: dict[str, set[str]] = {}
    for image in images:
        classes.setdefault(image.group, set()).update(image.labels)
        for label in image.labels:
            groups.setdefault(label, set()).add(image.group)
    if any(all(len(groups[label]) > 1 for label in labels) for labels in classes.values()):
        return ""
    many = f"{len(images)} labelled images are too few" if len(groups) == len(images) else "There are too few images"
    return (f"{many} to keep one for validation: label more images of a class, in another group than those it has, or "
            "set 'kept for validation' to 0.")  # fmt: skip


def missing_for_training(labelling: Labelling | None, choices: Choices) -> str:
    """Say what is missing before labels can be trained on as chosen; "" if nothing is."""
    missing = missing_labels(labelling, choices.options.get("validation", TrainOptions().validation))
    if missing or labelling is None:
        return missing
    try:
        choices.plan(labelling.path, labelling.reading)
    except MilcnnError as error:
        return str(error)
    return ""
