"""A trained model: network, classes, channels, normalisation and pixel size; one zip on disk.

The zip is a valid bioimage.io 0.5 model, written and checked with `bioimageio.spec`. Facts that the format does not
know (names of classes as typed, normalisation, foreground, thresholds, training record, figures) are in its
`config.milcnn`.

Loading runs no code from the file. Names and sizes in the zip are checked before anything is unpacked, and every hash
that the description states before anything is read. The description is plain YAML without aliases. The weights are read
with `weights_only=True` into the network that *our* code builds, whose size `NetworkOptions` limits.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from napari_milcnn.atomic_write import folder_beside, replacing, sha256
from napari_milcnn.errors import ModelError, OptionsError
from napari_milcnn.images.intensity import IntensityScale
from napari_milcnn.model.card import ModelCard
from napari_milcnn.model.faithfulness_words import faithfulness_sentences
from napari_milcnn.model.package_write import write_package
from napari_milcnn.network.mil_network import MilNetwork
from napari_milcnn.options import (
    INPUT_PRESETS,
    ForegroundOptions,
    InputOptions,
    Normalise,
    make_options,
    preset_options,
)
from napari_milcnn.output_lock import OutputLock, locked
from napari_milcnn.untrusted import short

_FEW_LOOKS = 20
"""Training images below which it is only roughly known what they look like."""


@dataclass(frozen=True, eq=False)
class TrainedModel:
    """A network with everything needed to apply it to an image.

    Attributes
    ----------
    network : MilNetwork
        The network, in eval mode, on the CPU.
    card : ModelCard
        Classes, channels, pixel size, normalisation and all other facts.
    path : Path or None
        File that it was loaded from, if it was.
    """

    network: MilNetwork
    card: ModelCard
    path: Path | None = None

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the network's maps."""
        return self.card.classes

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the image channels, in the order of the network's input."""
        return self.card.channels

    @property
    def pixel_size(self) -> float | None:
        """µm per pixel of the images it was trained on; None where unknown."""
        return self.card.pixel_size

    @property
    def digest(self) -> str:
        """SHA-256 over weights and card: the same for the same model, whichever file it was loaded from."""
        weights = b"".join(v.detach().cpu().numpy().tobytes() for v in self.network.state_dict().values())
        return sha256(weights + self.card.model_dump_json().encode())

    @property
    def fixed_intensity(self) -> IntensityScale | None:
        """What the intensities of every image are scaled by; None where it differs between images or plates."""
        return IntensityScale(self.card.mean, self.card.std) if self.card.normalise == "training" else None

    def with_card(self, **changes: object) -> TrainedModel:
        """Return the same model with some facts on its card changed."""
        return replace(self, card=make_options(ModelCard, {**self.card.model_dump(), **changes}))

    def with_classes(self, classes: Sequence[str], *, single_label: bool = True, seed: int = 0) -> TrainedModel:
        """Return a model of other classes to fine-tune: with this encoder and normalisation, and a new head.

        Parameters
        ----------
        classes : sequence of str
            Classes of the new model.
        single_label : bool
            Whether each image will show exactly one of them.
        seed : int
            Random seed for the weights of the new layers.
        """
        network = self.card.network.model_copy(update={"classes": len(classes)})
        built = MilNetwork(network, seed).eval()
        built.encoder.load_state_dict(self.network.encoder.state_dict())
        reference = self.card.reference if self.card.reference in classes else None
        facts = {
            "classes": tuple(classes), "network": network.model_dump(), "single_label": single_label, "metrics": {},
            "faithfulness": (),
            "thresholds": {}, "temperature": 1.0, "reference": reference, "evidence": None,
            "training": {"encoder_of": self.digest},
        }  # fmt: skip
        return TrainedModel(built, make_options(ModelCard, {**self.card.model_dump(), **facts}))

    def save(self, path: str | Path, *, lock: OutputLock | None = None) -> Path:
        """Write the model as one bioimage.io 0.5 zip.

        Parameters
        ----------
        path : path
            The .zip.
        lock : OutputLock, optional
            The lock of the file, where the caller holds it already, as a training does.

        Raises
        ------
        ModelError
            If the description does not pass bioimageio.spec's checks.
        OutputError
            If the file cannot be written, or if another run writes it.
        """
        path = Path(path)
        if path.suffix.lower() != ".zip":
            raise ModelError(f"a model is saved as one .zip, found {path.name!r}; name it {path.stem}.zip")
        alone = locked(path) if lock is None else nullcontext()
        with alone, replacing(path) as draft, folder_beside(path) as folder:
            write_package(self.network, self.card, folder, draft)
        return path


def new_model(
    classes: Sequence[str],
    channels: Sequence[str],
    preset: str = "compact",
    *,
    pixel_size: float | None = None,
    normalise: Normalise | None = None,
    scale: float | None = None,
    foreground: ForegroundOptions | None = None,
    reference: str | None = None,
    seed: int = 0,
    **network: object,
) -> TrainedModel:
    """Make an untrained model.

    Parameters
    ----------
    classes, channels : sequence of str
        Names, in order.
    preset : str
        compact (receptive field 67 px, for cells of about 64 px) or paper (135 px).
    pixel_size : float, optional
        µm per pixel of the training images.
    normalise, scale : optional
        Fields of `InputOptions`; by default as the preset has them.
    foreground : ForegroundOptions, optional
        How the cells are found for object evidence; what is left out is measured on the training images.
    reference : str, optional
        The class whose images show no other class (control, wild type); evidence for the others is relative to it.
    seed : int
        Random seed for the weights.
    **network
        Any field of `NetworkOptions`, such as pooling="max".

    Raises
    ------
    OptionsError
        If the names repeat or an option is impossible.
    """
    for kind, names in (("classes", classes), ("channels", channels)):
        if isinstance(names, str) or not names or len(set(names)) < len(names):
            raise OptionsError(f"{kind} must be a list of different names, found {names!r}")
    options = preset_options(preset, len(channels), len(classes), **network)
    given = {name: value for name, value in (("normalise", normalise), ("scale", scale)) if value is not None}
    seen = make_options(InputOptions, {**INPUT_PRESETS[preset], **given})
    built = MilNetwork(options, seed).eval()
    facts = {
        "classes": tuple(classes), "channels": tuple(channels), "pixel_size": pixel_size, "network": options,
        "normalise": seen.normalise, "scale": seen.scale, "mean": (0.0,) * len(channels), "std": (1.0,) * len(channels),
        "foreground": foreground or ForegroundOptions(), "reference": reference,
    }  # fmt: skip
    return TrainedModel(built, make_options(ModelCard, facts))


def check_finite(model_name: str, what: str, *values: torch.Tensor | np.ndarray) -> None:
    """Check the answers of a network: finite weights may still give NaN, which would be written as a class.

    Raises
    ------
    ModelError
        If a value is NaN or infinite.
    """
    if not all(bool(torch.isfinite(torch.as_tensor(value)).all()) for value in values):
        raise ModelError(
            f"the model {short(model_name)} gives {what} that are NaN or infinite, so there is no answer: its weights "
            "are broken, or do not fit images like this one; use another model, or train it again"
        )


def rebuilt(card: ModelCard, weights: dict[str, torch.Tensor]) -> TrainedModel:
    """Build a model from its card and a state dict, whose tensors are copied."""
    network = MilNetwork(card.network)  # its random start is replaced by the weights
    network.load_state_dict(weights)
    return TrainedModel(network.eval(), card)


def card_text(model: TrainedModel) -> str:
    """Return a model's card as plain text, one fact a line."""
    card, placement = model.card, model.network.placement
    size = "unknown" if card.pixel_size is None else f"{card.pixel_size:g} µm"
    rows = {
        "model": card.name, "what": card.description, "trained on": card.trained_on, "credit": card.credit,
        "licence": card.license, "authors": ", ".join(card.authors),
        "classes": ", ".join(card.classes) + (" (one per image)" if card.single_label else " (several per image)"),
        "channels": ", ".join(card.channels), "pixel size": size, "input": _input_sentence(card),
        "network": f"receptive field {placement.receptive_field} px, one instance every {placement.stride} px, "
                   f"{sum(p.numel() for p in model.network.parameters()):,} parameters, {card.network.pooling}",
        "foreground": _foreground_text(card),
        "reference": card.reference,
        "evidence": "" if card.evidence is None else f"{card.evidence.kind}: {card.evidence.reason}",
        "training images": _look_sentence(card),
        "empty images": card.training.structureless_sentence,
        "temperature": f"{card.temperature:.2f}" if card.temperature != 1 else "",
        **{name: f"{value:.3f}" for name, value in card.metrics.items()},
        "masks": " ".join(faithfulness_sentences(card.faithfulness)),
        "sha256": model.digest,
    }  # fmt: skip
    return "\n".join(f"{name:<{max(map(len, rows)) + 2}}{value}" for name, value in rows.items() if value)


def _input_sentence(card: ModelCard) -> str:
    """Say how an image becomes the input of the network."""
    ways = {
        "training": "intensities are scaled by mean and standard deviation of the training images",
        "image": "each plane is scaled by its own background and spread",
        "group": "each plane is scaled by background and spread of its plate or batch (control images, else all)",
    }
    resized = (
        "" if card.network_scale == 1 else f"; the network sees images at {card.scale:.3g} of the training images' size"
    )
    return ways[card.normalise] + resized


def _look_sentence(card: ModelCard) -> str:
    """Say whether the model knows what its training images look like, and from how many."""
    look = card.training.look
    if look is None:
        return ""
    limits = f"limits from {look.held} others" if look.held else "limits from halves of them, as no others were known"
    few = "; they are few, so images that are unlike them are found roughly" if look.images < _FEW_LOOKS else ""
    return f"known by the look of {look.images}, {limits}{few}"


def _foreground_text(card: ModelCard) -> str:
    options = card.foreground
    size = "" if options.size is None else f", objects of about {options.size:g} px"
    return f"{options.channel or card.channels[0]}, {options.method or 'measured at training'}{size}"


def card_json(model: TrainedModel) -> dict[str, object]:
    """Return a model's card as plain data, without the packed arrays of what its training images look like."""
    facts = json.loads(model.card.model_dump_json())
    look = facts["training"].pop("look", None)
    if look is not None:
        facts["training"]["look"] = {"images": look["images"], "held": look["held"]}
    return {**facts, "sha256": model.digest}
