"""Learning from image-level labels.

The joint loss (paper, section 2.4): binary cross-entropy of the pooled probabilities P_i, summed over classes, plus
cross-entropy of the last layer's y (softmax for one label per image, sigmoids for several), with equal weights,
averaged over the batch. P is a probability: fed to a with-logits loss, as some reimplementations do, a negative could
never cost less than 0.693.

Ours: Noisy-AND's thresholds and the last layer learn at ten times the rate of the rest. They are a handful of numbers
that every image's gradient passes through, and at one rate for all they hold the encoder back for many epochs.

Why every epoch seeds itself from (seed, epoch): an epoch is then the same whether or not the ones before it ran in this
process.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from napari_milcnn.core.classify import Classifier
from napari_milcnn.core.dataset import LabelTable
from napari_milcnn.core.devices import DeviceChoice, choose_device, is_out_of_memory
from napari_milcnn.core.errors import ComputeError, LabelsError, OptionsError
from napari_milcnn.core.model import TrainedModel
from napari_milcnn.core.network import MilNetwork, NetworkOutput
from napari_milcnn.core.options import TrainOptions, make_options
from napari_milcnn.core.patches import PatchReader, intensity_statistics

OnBatch = Callable[[int, int], bool]
"""Called after each batch with the batches done and in all; training stops when it returns False."""


@dataclass(frozen=True)
class Validation:
    """How a model does on images kept aside.

    Attributes
    ----------
    accuracy : float
        Share of images whose top class is right; with several labels per image, share of right yes-or-no answers.
    loss : float
        Joint loss, averaged over images.
    """

    accuracy: float
    loss: float


@dataclass(frozen=True)
class EpochReport:
    """One epoch of training.

    Attributes
    ----------
    epoch, epochs : int
        This one, from 1, and how many there will be.
    loss : float
        Joint loss, averaged over the epoch's images: the sum of the two below.
    pooled_loss, last_loss : float
        Binary cross-entropy of P, and cross-entropy of y.
    validation : Validation or None
        None where no image was kept aside; never a made-up zero.
    best : TrainedModel
        The best model so far by validation, or the latest where there is none.
    is_best : bool
        Whether this epoch's model is it.
    learned_b : list of float or None
        Noisy-AND's thresholds, one per class.
    device : str
        Where it was computed, and why.
    seconds : float
        Time taken.
    """

    epoch: int
    epochs: int
    loss: float
    pooled_loss: float
    last_loss: float
    validation: Validation | None
    best: TrainedModel
    is_best: bool
    learned_b: list[float] | None
    device: str
    seconds: float


def train(
    model: TrainedModel, labels: LabelTable, *, on_batch: OnBatch | None = None, **options: Any
) -> Iterator[EpochReport]:
    """Train a model on image-level labels, an epoch at a time.

    Parameters
    ----------
    model : TrainedModel
        Where to start from; it is not changed. An untrained model takes its normalisation from the training images.
    labels : LabelTable
        Images and their labels; without a split column whole groups are put aside for validation.
    on_batch : callable, optional
        Called with (batches done, batches in all) of the epoch; return False to stop. The epoch under way is dropped,
        what was reported before is kept.
    **options
        Fields of `TrainOptions`.

    Yields
    ------
    EpochReport
        After each epoch; `report.best` is the model to keep.

    Raises
    ------
    LabelsError
        If the table has labels that the model has not, or nothing to train on.
    OptionsError
        If an option is unknown or impossible.
    """
    chosen = make_options(TrainOptions, options)
    table = labels.with_split(chosen.validation, chosen.seed)
    _check(model, table, chosen)
    yield from _Trainer(model, table, chosen, on_batch).epochs()


def joint_loss(output: NetworkOutput, targets: Tensor, single_label: bool) -> tuple[Tensor, Tensor]:
    """Both parts of the loss for targets (batch, classes): of the pooled P, and of the last layer's y."""
    pooled = F.binary_cross_entropy(output.probabilities, targets, reduction="none").sum(1).mean()
    if single_label:
        return pooled, F.cross_entropy(output.scores, targets)
    return pooled, F.binary_cross_entropy_with_logits(output.scores, targets, reduction="none").sum(1).mean()


def _check(model: TrainedModel, table: LabelTable, options: TrainOptions) -> None:
    unknown = sorted(set(table.classes) - set(model.classes))
    if unknown:
        raise LabelsError(
            f"the table has the label {', '.join(unknown)}, which the model has not; its classes: "
            f"{', '.join(model.classes)}; start from a new model, or mend the table"
        )
    if table.single_label and len(model.classes) == 1:
        raise LabelsError(
            f"there is one class, {model.classes[0]}, and every image shows it, so there is nothing to tell apart; "
            "add images that do not show it, under a label of their own such as 'none'"
        )
    if model.card.training and model.card.single_label and not table.single_label:
        raise LabelsError(
            "the table has images with several labels, and the model was trained for one label per image; "
            "start from a new model, or keep one label in each row"
        )
    counts = table.part("train").counts()
    absent = [name for name in model.classes if name not in counts]
    if absent:
        raise LabelsError(
            f"no training image shows {', '.join(absent)}; each class needs at least one image, in a group that is not "
            "kept for validation"
        )
    field = model.network.placement.receptive_field
    if 0 < options.patch < field:
        raise OptionsError(f"option 'patch' is {options.patch}; expected 0 or at least the receptive field, {field} px")


class _Trainer:
    """The state of one training run."""

    def __init__(self, model: TrainedModel, table: LabelTable, options: TrainOptions, on_batch: OnBatch | None) -> None:
        self.options = options
        self.on_batch = on_batch or (lambda _done, _total: True)
        self.table = table
        self.choice = choose_device(options.device, options.precision)
        self.reader = PatchReader(model, table.part("train"), options.cache)
        self.model = self._prepared(model)
        self.started_from = model.digest if model.card.training else None
        self.network = copy.deepcopy(model.network).to(self.choice.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.steps = _batches(len(self.reader.table.images), options.batch_size)
        self.optimiser = _optimiser(self.network, options)
        rates = [group["lr"] for group in self.optimiser.param_groups]
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(self.optimiser, rates, self.steps * options.epochs)
        self.targets = self.reader.table.targets(model.classes)

    def _prepared(self, model: TrainedModel) -> TrainedModel:
        single = self.table.single_label
        if model.card.training:
            return model.with_card(metrics={}, thresholds={})
        mean, std = intensity_statistics(self.reader)
        return model.with_card(single_label=single, mean=mean, std=std)

    def epochs(self) -> Iterator[EpochReport]:
        best, best_validation = self.model, None
        for epoch in range(1, self.options.epochs + 1):
            began = time.perf_counter()
            losses = self._epoch(epoch)
            if losses is None:
                return
            candidate = self._snapshot(epoch)
            validation = validate(candidate, self.table.part("validation"), self.choice)
            is_best = _is_better(validation, best_validation, self.model.card.single_label)
            if is_best:
                best, best_validation = _with_metrics(candidate, validation), validation
            yield EpochReport(
                epoch, self.options.epochs, sum(losses), *losses, validation, best, is_best,
                candidate.network.learned_b, str(self.choice), time.perf_counter() - began,
            )  # fmt: skip

    def _epoch(self, epoch: int) -> tuple[float, float] | None:
        """Run one epoch; None if it was stopped."""
        rng = np.random.default_rng([self.options.seed, epoch])
        order = rng.permutation(len(self.targets))
        sums = np.zeros(2)
        with torch.random.fork_rng(devices=[self.choice.device] if self.choice.device.type == "cuda" else []):
            torch.manual_seed(int(rng.integers(2**31)))
            self.network.train()
            for step, chosen in enumerate(np.array_split(order, self.steps)):
                sums += np.array(self._step(chosen, rng)) * len(chosen)
                if not self.on_batch(step + 1, self.steps):
                    return None
        pooled, last = sums / len(order)
        return float(pooled), float(last)

    def _step(self, chosen: np.ndarray, rng: np.random.Generator) -> tuple[float, float]:
        images = torch.from_numpy(self._batch(chosen, rng)).to(self.choice.device, memory_format=torch.channels_last)
        targets = torch.from_numpy(self.targets[chosen]).to(self.choice.device)
        try:
            with self.choice.autocast():
                class_maps = self.network.class_maps(images)
            losses = joint_loss(self.network.read_maps(class_maps), targets, self.model.card.single_label)
            if not all(bool(torch.isfinite(loss)) for loss in losses):
                raise ComputeError("the training diverged (the loss is no number any more); make learning_rate smaller")
            self.optimiser.zero_grad()
            sum(losses).backward()  # type: ignore[union-attr]
            self.optimiser.step()
            self.schedule.step()
        except RuntimeError as error:
            raise _translated(error, tuple(images.shape), self.choice) from error
        except ValueError as error:  # batch norm, where one patch gives a map of one instance
            raise OptionsError(
                f"a batch of {tuple(images.shape)} is too small for batch norm; make batch_size or patch larger"
            ) from error
        return float(losses[0].detach()), float(losses[1].detach())

    def _batch(self, chosen: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Normalised, turned and mirrored patches, float32 (batch, channels, Y, X)."""
        patches = [self.reader.patch(int(i), self.options.patch, rng) for i in chosen]
        if len({patch.shape for patch in patches}) > 1:
            raise OptionsError("the training images differ in size, so they cannot be taken whole; give 'patch' a size")
        step = 1 if patches[0].shape[1] == patches[0].shape[2] else 2  # a quarter turn would change an oblong's shape
        patches = [turned(patch, int(rng.integers(0, 8, dtype=int)) // step * step) for patch in patches]
        return np.stack([self.model.normalise(patch) for patch in patches])

    def _snapshot(self, epoch: int) -> TrainedModel:
        network = copy.deepcopy(self.network).cpu().to(memory_format=torch.contiguous_format).eval()
        record = {
            "epoch": epoch,
            "options": self.options.model_dump(),
            "device": str(self.choice),
            "started_from": self.started_from,
            "images": self.reader.table.counts(),
            "validation_images": self.table.part("validation").counts(),
        }
        return TrainedModel(network, self.model.with_card(training=record).card)


def _batches(images: int, size: int) -> int:
    """Count the batches of nearly equal size: none is left with a single image, which batch norm cannot use."""
    return max(1, math.ceil(images / size))


def turned(image: np.ndarray, which: int) -> np.ndarray:
    """One of the eight exact rotations and reflections of an image (channels, Y, X)."""
    rotated = np.rot90(image, which % 4, axes=(1, 2))
    return np.ascontiguousarray(rotated[:, :, ::-1] if which >= 4 else rotated)


def _optimiser(network: MilNetwork, options: TrainOptions) -> torch.optim.Adam:
    deciding = [*network.pooling.parameters(), *network.head.parameters()]
    encoder = [*network.encoder.parameters(), *network.maps.parameters()]
    return torch.optim.Adam([
        {"params": encoder, "lr": options.learning_rate},
        {"params": deciding, "lr": options.learning_rate * options.head_rate},
    ])  # fmt: skip


def validate(model: TrainedModel, table: LabelTable, choice: DeviceChoice) -> Validation | None:
    """Classify whole images of a table and compare; None for an empty table."""
    if not table.images:
        return None
    precision = str(choice.precision).removeprefix("torch.")
    classifier = Classifier(model, device=str(choice.device), precision=precision)
    single = model.card.single_label
    right, losses = [], []
    for image, target in zip(table.images, torch.from_numpy(table.targets(model.classes)), strict=True):
        with table.reading.open(image.file) as opened:
            prediction = classifier.classify(opened)
        shown = torch.from_numpy(prediction.scores).clamp(1e-7, 1 - 1e-7)
        probabilities = torch.from_numpy(prediction.probabilities)
        targets = target.expand(len(shown), -1)
        scores = shown.log() if single else shown.logit()
        losses.append(sum(map(float, joint_loss(NetworkOutput(shown, probabilities, scores), targets, single))))
        hits = (shown.argmax(1) == targets.argmax(1)) if single else (shown > 0.5) == (targets > 0.5)
        right.append(float(hits.float().mean()))
    return Validation(float(np.mean(right)), float(np.mean(losses)))


def _is_better(new: Validation | None, best: Validation | None, single_label: bool) -> bool:
    """Higher accuracy, then lower loss; with several labels lower loss, since "no" to every class is mostly right.

    Without validation the latest is the best.
    """
    if new is None or best is None:
        return True
    if not single_label:
        return new.loss < best.loss
    return (new.accuracy, -new.loss) > (best.accuracy, -best.loss)


def _with_metrics(model: TrainedModel, validation: Validation | None) -> TrainedModel:
    if validation is None:
        return model
    name = "validation accuracy" if model.card.single_label else "validation accuracy, yes or no for each class"
    return model.with_card(metrics={name: validation.accuracy, "validation loss": validation.loss})


def _translated(error: RuntimeError, shape: tuple[int, ...], choice: DeviceChoice) -> ComputeError:
    if is_out_of_memory(error):
        return ComputeError(f"a training batch of {shape} does not fit into the memory of {choice.device}; "
                            "make batch_size or patch smaller")  # fmt: skip
    return ComputeError(f"{choice} failed on a training batch of {shape}: {error}")
