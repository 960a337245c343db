"""Learning from image-level labels.

The joint loss (paper, section 2.4): binary cross-entropy of the pooled probabilities P_i, summed over classes, plus
cross-entropy of the last layer's y (softmax for one label per image, sigmoids for several), with equal weights,
averaged over the batch. P is a probability: fed to a with-logits loss, as some reimplementations do, a negative could
never cost less than 0.693.

Ours: Noisy-AND's thresholds and the last layer learn at ten times the rate of the rest. They are a handful of numbers
that every image's gradient passes through, and at one rate for all they hold the encoder back for many epochs.

Why every epoch seeds itself from (seed, epoch), and every patch from (seed, epoch, place in the epoch): an epoch is
then the same whether or not the ones before it ran in this process, whichever thread reads a patch, and however many
processes share the batches.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from napari_milcnn.atomic_write import sha256
from napari_milcnn.errors import ComputeError, LabelsError, OptionsError
from napari_milcnn.inference.devices import DeviceChoice, choose_device, cpu_threads, is_out_of_memory
from napari_milcnn.labels.image_checks import OnImage
from napari_milcnn.labels.table import LabelTable, check_images
from napari_milcnn.model.card import EpochRecord, ModelCard, TrainingRecord
from napari_milcnn.model.trained_model import TrainedModel, rebuilt
from napari_milcnn.network.dropout import seed_dropout
from napari_milcnn.network.mil_network import MilNetwork
from napari_milcnn.options import TrainOptions, make_options
from napari_milcnn.training.augment import amplified, turned
from napari_milcnn.training.checkpoint import Checkpoint, load_checkpoint, option_facts, save_checkpoint
from napari_milcnn.training.distributed import Processes
from napari_milcnn.training.losses import image_losses, image_weights
from napari_milcnn.training.patch_dataset import PatchReader, intensity_statistics, read_ahead
from napari_milcnn.training.validation import (
    Validation,
    is_better,
    known_precision,
    outputs,
    validation_of,
    validation_temperature,
    with_confusion,
    with_metrics,
)

OnBatch = Callable[[int, int], bool]
"""Called after each batch with the batches done and in all; training stops when it returns False."""
_AHEAD = 2
"""Batches read ahead of the one that is computed."""
_MEASURED = 64
"""Images that the share of foreground is measured on, at most."""
_HOW = ("device", "num_workers", "cache", "max_minutes", "threads")
"""Options that say where, how fast and how long a training runs: with others it may go on from its checkpoint."""


@dataclass(frozen=True)
class EpochReport:
    """One epoch of training.

    Attributes
    ----------
    epoch, epochs : int
        This one, from 1, and how many there will be at most.
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
    last : TrainedModel
        This epoch's model. `last.card.training.curve` holds the figures of every epoch up to it.
    learned_b : list of float or None
        Noisy-AND's thresholds, one per class.
    device : str
        Where it was computed, and why.
    seconds : float
        Time taken, validation included.
    waiting : float
        Share of the time of the batches that the device waited for images to be read.
    """

    epoch: int
    epochs: int
    loss: float
    pooled_loss: float
    last_loss: float
    validation: Validation | None
    best: TrainedModel
    is_best: bool
    last: TrainedModel
    learned_b: list[float] | None
    device: str
    seconds: float
    waiting: float


def train(
    model: TrainedModel,
    labels: LabelTable,
    *,
    checkpoint: str | Path | None = None,
    resume: bool = False,
    on_warning: Callable[[str], None] | None = None,
    on_image: OnImage | None = None,
    on_batch: OnBatch | None = None,
    **options: Any,
) -> Iterator[EpochReport]:
    """Train a model on image-level labels, an epoch at a time.

    Parameters
    ----------
    model : TrainedModel
        Where to start from; it is not changed. An untrained model takes its normalisation from the training images,
        and b and its last layer from the share of them that shows cells (`MilNetwork.start_at`). To fine-tune a model
        to other classes, give `model.with_classes(labels.classes)`.
    labels : LabelTable
        Images and their labels; without a split column whole groups are put aside for validation.
    checkpoint : path, optional
        File that the state of the run is kept in, written when the next report is asked for.
    resume : bool
        Go on from the checkpoint; from the start where there is none yet. The reports that follow, and the model, are
        those of a run that was never stopped.
    on_warning : callable, optional
        Called before the first epoch with each sentence that should be known of the images and their split.
    on_image : callable, optional
        Called with (images done, images in all) while all images are opened and, for a new model, again while the
        training images are measured; return False to stop.
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
        If the table has labels that the model has not, nothing to train on, or images that cannot be trained on.
    OptionsError
        If an option is unknown or impossible, or the checkpoint is that of another run.
    """
    chosen = make_options(TrainOptions, options)
    table = labels.with_split(chosen.validation, chosen.seed)
    _check(model, table, chosen)
    if resume and checkpoint is None:
        raise OptionsError("resume needs the checkpoint to go on from; name its file")
    counting = _Counting(on_image)
    for said in check_images(table, counting):
        if on_warning is not None:
            on_warning(said)
    if counting.stopped:
        return
    kept = None if checkpoint is None else Path(checkpoint)
    with cpu_threads(chosen.threads):
        trainer = _Trainer(model, table, chosen, on_batch)
        state = load_checkpoint(kept, trainer.run) if kept is not None and resume else None
        if state is not None:
            trainer.restore(state)
        elif not trainer.prepare(counting):
            return
        yield from trainer.epochs(kept)


@dataclass(frozen=True)
class TrainingEstimate:
    """What a training will take, from a few batches of it.

    Attributes
    ----------
    seconds : float
        Of one epoch, validation included.
    memory : int
        Bytes at once on the device, about: network, optimiser, and a batch with all that is kept of it for learning.
    batches, images, validation_images : int
        Of one epoch.
    device : str
        Where, and why.
    """

    seconds: float
    memory: int
    batches: int
    images: int
    validation_images: int
    device: str


def estimate(model: TrainedModel, labels: LabelTable, **options: Any) -> TrainingEstimate:
    """Try two batches and one validation image of a training, to say what an epoch of it will take.

    Parameters
    ----------
    model, labels, **options
        As of `train`; nothing of them is changed, no file is written.

    Raises
    ------
    MilcnnError
        As `train`.
    """
    chosen = make_options(TrainOptions, options)
    table = labels.with_split(chosen.validation, chosen.seed)
    _check(model, table, chosen)
    with cpu_threads(chosen.threads):
        return _Trainer(model, table, chosen, None).estimate()


def _check(model: TrainedModel, table: LabelTable, options: TrainOptions) -> None:
    unknown = sorted(set(table.classes) - set(model.classes))
    if unknown:
        raise LabelsError(
            f"the table has the label {', '.join(unknown)}, which the model has not; its classes: "
            f"{', '.join(model.classes)}; keep its encoder by "
            "model.with_classes(labels.classes), start from a new model, or mend the table"
        )
    if table.single_label and len(model.classes) == 1:
        raise LabelsError(
            f"there is one class, {model.classes[0]}, and every image shows it, so there is nothing to tell apart; "
            "add images that do not show it, under a label of their own such as 'none'"
        )
    if model.card.training.has_learned_encoder and model.card.single_label and not table.single_label:
        raise LabelsError(
            "the table has images with several labels, and the model was trained for one label per image; "
            "start from a new model, or keep one label in each row"
        )
    counts = table.part("train").counts()
    absent = [name for name in model.classes if name not in counts]
    if absent:
        raise LabelsError(
            f"no training image shows {', '.join(absent)}; each class needs at least one image, in a group that is not "
            "kept for validation: label more images, or keep none for validation (option validation: 0)"
        )
    _check_sizes(model, options)


def _check_sizes(model: TrainedModel, options: TrainOptions) -> None:
    field = model.network.placement.receptive_field
    if 0 < options.patch < field:
        raise OptionsError(f"option 'patch' is {options.patch}; expected 0 or at least the receptive field, {field} px")


class _Counting:
    """Passes the images counted on, and remembers whether it was told to stop."""

    def __init__(self, on_image: OnImage | None) -> None:
        self.on_image = on_image
        self.stopped = False

    def __call__(self, done: int, total: int) -> bool:
        self.stopped = self.on_image is not None and not self.on_image(done, total)
        return not self.stopped


class _Trainer:
    """The state of one training run."""

    def __init__(self, model: TrainedModel, table: LabelTable, options: TrainOptions, on_batch: OnBatch | None) -> None:
        self.options = options
        self.on_batch = on_batch or (lambda _done, _total: True)
        self.table = table
        self.processes = Processes()
        self.choice = _device(options, self.processes)
        self.reader = PatchReader(model, table.part("train"), options.cache)
        self.targets = self.reader.table.targets(model.classes)
        self.run = _run(model, table, options)
        self.started_from = model.digest if model.card.training.has_learned_encoder else None
        self.curve: tuple[EpochRecord, ...] = ()
        self.began = time.monotonic()
        single = model.card.single_label if model.card.training.has_learned_encoder else table.single_label
        self.best = self.model = model.with_card(single_label=single, metrics={}, thresholds={}, temperature=1.0)
        self.network = copy.deepcopy(model.network).to(self.choice.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.network.encoder.requires_grad_(options.encoder_rate > 0)
        self.steps = _batches(len(self.targets), options.batch_size)
        smallest, count = len(self.targets) // self.steps, self.processes.count
        if smallest < count:
            raise OptionsError(
                f"a batch of {smallest} cannot be shared by {count} processes; make batch_size larger, or start fewer"
            )
        self.optimiser = _optimiser(self.network, options)
        self.schedule = _schedule(self.optimiser, options, self.steps * options.epochs)
        self.learner: torch.nn.Module = self.network

    def prepare(self, on_image: OnImage) -> bool:
        """Measure the training images for a model that has not learned yet; False if it was stopped."""
        if not self.model.card.training.has_learned_encoder:
            measured = intensity_statistics(self.reader, self.options.num_workers, on_image)
            if measured is None:
                return False
            self.model = self.model.with_card(mean=measured.mean, std=measured.std)
        if not self.model.card.training.has_learned and self.model.card.network.b is None:
            self._start()
        self.best = self.model
        return True

    def _start(self) -> None:
        """Set b and the last layer for the share of the training images that shows cells."""
        step = math.ceil(len(self.targets) / _MEASURED)
        share = np.median([self.reader.foreground(i, 0).share for i in range(0, len(self.targets), step)])
        placement = self.network.placement
        shape = self.reader.shape(0) if self.options.patch == 0 else (self.options.patch, self.options.patch)
        self.network.start_at(float(share), placement.map_size(shape[0]) * placement.map_size(shape[1]))

    def restore(self, state: Checkpoint) -> None:
        """Go back to where a run was after an epoch."""
        self.network.load_state_dict(state.network)
        self.optimiser.load_state_dict(state.optimiser)
        self.schedule.load_state_dict(state.schedule)
        self.model = rebuilt(ModelCard.model_validate_json(state.card), state.network)
        self.best = rebuilt(ModelCard.model_validate_json(state.best_card), state.best)
        self.curve = self.model.card.training.curve

    def epochs(self, kept: Path | None) -> Iterator[EpochReport]:
        """Run what is left of the epochs, keeping the state after each."""
        self.learner = self.processes.distribute(self.network)
        try:
            while len(self.curve) < self.options.epochs and not self._has_settled():
                report = self._reported(len(self.curve) + 1)
                if report is None:
                    return
                yield report
                if kept is not None and self.processes.rank == 0:
                    save_checkpoint(kept, self._state())
                if self._is_late():
                    return
        except Exception:
            self.processes.abandon()
            raise

    def estimate(self) -> TrainingEstimate:
        """Take two steps, the first of them to warm up, and classify one validation image."""
        held = self.table.part("validation")
        size = math.ceil(len(self.targets) / self.steps)
        order = np.arange(len(self.targets))
        self.learner = self.network
        seed_dropout(self.network, 0, self.choice.device)
        self._to_train()
        reading, step = 0.0, 0.0
        with _activations(self.network) as kept:
            for at in range(min(2, self.steps)):
                places = [place % len(order) for place in range(at * size, (at + 1) * size)]
                asked = time.perf_counter()
                images = self._batch(order, places, 1)
                read = time.perf_counter()
                kept.clear()
                self._step(images, order[places], size)
                reading, step = read - asked, time.perf_counter() - read
        asked = time.perf_counter()
        outputs(self.best, replace(held, images=held.images[:1]), self.choice, self.processes)
        validation = (time.perf_counter() - asked) * len(held.images)
        weights = sum(p.numel() * p.element_size() for p in self.network.parameters())
        return TrainingEstimate(
            self.steps * max(step, reading / self.options.num_workers) + validation, 4 * weights + 2 * sum(kept),
            self.steps, len(self.targets), len(held.images), str(self.choice),
        )  # fmt: skip

    def _has_settled(self) -> bool:
        since = next((i for i, row in enumerate(reversed(self.curve)) if row.is_best), 0)
        return self.options.patience is not None and since >= self.options.patience

    def _is_late(self) -> bool:
        """Whether the time is up by the clock of the first process, to which all keep."""
        late = self.options.max_minutes is not None and time.monotonic() - self.began > 60 * self.options.max_minutes
        return self.processes.sum([float(late and self.processes.rank == 0)])[0] > 0

    def _reported(self, epoch: int) -> EpochReport | None:
        """Run one epoch; None if it was stopped."""
        began = time.perf_counter()
        done = self._epoch(epoch)
        if done is None:
            return None
        pooled, last, waiting = done
        self.processes.align_buffers(self.network)
        candidate = self._snapshot(epoch)
        logits = outputs(candidate, self.table.part("validation"), self.choice, self.processes)
        validation = None if logits is None else validation_of(logits, self.model.card.single_label)
        is_best = is_better(validation, self._best_validation(), self.model.card.single_label)
        b = candidate.network.learned_b
        row = EpochRecord(
            epoch=epoch, loss=pooled + last, pooled_loss=pooled, last_loss=last,
            validation_accuracy=None if validation is None else validation.accuracy,
            validation_loss=None if validation is None else validation.loss,
            validation_mean_average_precision=known_precision(validation),
            is_best=is_best, learned_b=None if b is None else tuple(b),
        )  # fmt: skip
        self.curve = (*self.curve, row)
        latest = candidate.with_card(training=candidate.card.training.model_copy(update={"curve": self.curve}))
        latest = with_metrics(latest, validation)
        if logits is not None:
            latest = with_confusion(latest, logits)
            latest = latest.with_card(temperature=validation_temperature(logits, latest.card.single_label))
        self.model = self.model.with_card(training=latest.card.training)
        self.best = latest if is_best else self.best
        return EpochReport(
            epoch, self.options.epochs, pooled + last, pooled, last, validation, self.best, is_best, latest,
            candidate.network.learned_b, str(self.choice), time.perf_counter() - began, waiting,
        )  # fmt: skip

    def _best_validation(self) -> Validation | None:
        """Look up the validation of the best epoch so far."""
        best = next((row for row in reversed(self.curve) if row.is_best), None)
        if best is None or best.validation_accuracy is None or best.validation_loss is None:
            return None
        return Validation(best.validation_accuracy, best.validation_loss)

    def _epoch(self, epoch: int) -> tuple[float, float, float] | None:
        """Run the batches of one epoch: both losses and the share of time spent waiting; None if it was stopped."""
        rng = np.random.default_rng([self.options.seed, epoch])
        order = self._order(rng)
        sums, waited, began = np.zeros(2), 0.0, time.perf_counter()
        batches = [part.tolist() for part in np.array_split(np.arange(len(order)), self.steps)]
        seed_dropout(self.network, int(rng.integers(2**31)), self.choice.device)
        self._to_train()

        def read(places: list[int]) -> tuple[np.ndarray, np.ndarray, int]:
            mine = self.processes.share(places)
            return self._batch(order, mine, epoch), order[mine], len(places)

        with closing(read_ahead(read, batches, self.options.num_workers, _AHEAD)) as ahead:
            for step in range(1, self.steps + 1):
                asked = time.perf_counter()
                images, chosen, size = next(ahead)
                waited += time.perf_counter() - asked
                *losses, stopped = self.processes.sum([*self._step(images, chosen, size),
                                                       float(not self.on_batch(step, self.steps))])  # fmt: skip
                if stopped:
                    return None
                sums += losses
        pooled, last = sums / len(order)
        return float(pooled), float(last), waited / (time.perf_counter() - began)

    def _order(self, rng: np.random.Generator) -> np.ndarray:
        """Order the images of an epoch; balanced sampling draws them by their weights."""
        images = len(self.targets)
        if self.options.balance == "sampling":
            return rng.choice(images, images, p=image_weights(self.targets) / images)
        return rng.permutation(images)

    def _to_train(self) -> None:
        self.learner.train()
        if self.options.encoder_rate == 0:
            self.network.encoder.eval()  # frozen, its batch statistics too

    def _step(self, images: np.ndarray, chosen: np.ndarray, size: int) -> tuple[float, float]:
        """Learn from this process's share of a batch of `size`; sums of both losses over the share."""
        pixels = torch.from_numpy(images).to(self.choice.device, memory_format=torch.channels_last)
        targets = torch.from_numpy(self.targets[chosen]).to(self.choice.device)
        try:
            with self.choice.autocast():
                output = self.learner(pixels)
            losses = image_losses(output, targets, self.model.card.single_label)
            if self.options.balance == "weights":
                weights = torch.from_numpy(image_weights(self.targets)[chosen]).to(self.choice.device)
                losses = losses[0] * weights, losses[1] * weights
            pooled, last = losses[0].sum(), losses[1].sum()
            if not bool(torch.isfinite(pooled + last)):
                raise ComputeError("the training diverged (the loss is no number any more); make learning_rate smaller")
            self.optimiser.zero_grad()
            loss: Tensor = (pooled + last) * (self.processes.count / size)
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimiser.step()
            self.schedule.step()
        except RuntimeError as error:
            raise _translated(error, tuple(pixels.shape), self.choice) from error
        except ValueError as error:  # batch norm, where one patch gives a map of one instance
            raise OptionsError(
                f"a batch of {tuple(pixels.shape)} is too small for batch norm; make batch_size or patch larger"
            ) from error
        return float(pooled.detach()), float(last.detach())

    def _batch(self, order: np.ndarray, places: Sequence[int], epoch: int) -> np.ndarray:
        """Normalised, turned and mirrored patches, float32 (batch, channels, Y, X), of some places in the order."""
        rngs = [np.random.default_rng([self.options.seed, epoch, place + 1]) for place in places]
        patches = [self.reader.patch(int(order[place]), self.options.patch, rng)
                   for place, rng in zip(places, rngs, strict=True)]  # fmt: skip
        if len({patch.shape for patch in patches}) > 1:
            raise OptionsError("the training images differ in size, so they cannot be taken whole; give 'patch' a size")
        step = 1 if patches[0].shape[1] == patches[0].shape[2] else 2  # a quarter turn would change an oblong's shape
        if self.options.flip_rotate:
            patches = [turned(patch, int(rng.integers(0, 8)) // step * step)
                       for patch, rng in zip(patches, rngs, strict=True)]  # fmt: skip
        patches = [
            amplified(patch, self.options.intensity_jitter, rng) for patch, rng in zip(patches, rngs, strict=True)
        ]
        return np.stack([self.model.normalise(patch) for patch in patches])

    def _snapshot(self, epoch: int) -> TrainedModel:
        record = TrainingRecord(
            epoch=epoch, options=self.options.model_dump(), device=str(self.choice), started_from=self.started_from,
            images=self.reader.table.counts(), validation_images=self.table.part("validation").counts(),
        )  # fmt: skip
        return rebuilt(self.model.with_card(training=record).card, self.network.state_dict())

    def _state(self) -> Checkpoint:
        return Checkpoint(
            run=self.run, network=self.network.state_dict(),
            optimiser=self.optimiser.state_dict(), schedule=self.schedule.state_dict(),
            card=self.model.card.model_dump_json(), best=self.best.network.state_dict(),
            best_card=self.best.card.model_dump_json(),
        )  # fmt: skip


@contextmanager
def _activations(network: MilNetwork) -> Iterator[list[int]]:
    """Note the bytes of what each layer puts out; learning keeps it, and its gradient is as large."""
    sizes: list[int] = []

    def note(_layer: Any, _inputs: Any, output: Any) -> None:
        sizes.extend(part.numel() * part.element_size() for part in (output,) if isinstance(part, Tensor))

    leaves = [layer for layer in network.modules() if not any(True for _ in layer.children())]
    handles = [layer.register_forward_hook(note) for layer in leaves]
    try:
        yield sizes
    finally:
        for handle in handles:
            handle.remove()


def _device(options: TrainOptions, processes: Processes) -> DeviceChoice:
    """Choose the device; under `accelerate launch` each process has been given its own."""
    device = options.device if processes.device is None else str(processes.device)
    choice = choose_device(device, options.precision)
    if processes.count > 1:
        choice = replace(choice, reason=f"{processes.count} processes")
    return choice


def _run(model: TrainedModel, table: LabelTable, options: TrainOptions) -> dict[str, Any]:
    """Say in plain values what makes a run what it is: a checkpoint of another run is refused."""
    images = "\n".join(f"{row.name} {'|'.join(row.labels)} {row.split}" for row in table.images)
    chosen = option_facts(options.model_dump(exclude=set(_HOW)))
    return {"the model it starts from": model.digest[:12], "the table": sha256(images.encode())[:12], **chosen}


def _batches(images: int, size: int) -> int:
    """Count the batches of nearly equal size: none is left with a single image, which batch norm cannot use."""
    return max(1, math.ceil(images / size))


def _optimiser(network: MilNetwork, options: TrainOptions) -> torch.optim.Adam:
    deciding = [*network.pooling.parameters(), *network.head.parameters()]
    groups = [
        {"params": list(network.encoder.parameters()), "lr": options.learning_rate * options.encoder_rate},
        {"params": list(network.maps.parameters()), "lr": options.learning_rate},
        {"params": deciding, "lr": options.learning_rate * options.head_rate},
    ]
    return torch.optim.Adam([group for group in groups if group["lr"]])


def _schedule(optimiser: torch.optim.Adam, options: TrainOptions, steps: int) -> torch.optim.lr_scheduler.LRScheduler:
    if options.schedule == "one_cycle":
        return torch.optim.lr_scheduler.OneCycleLR(optimiser, [group["lr"] for group in optimiser.param_groups], steps)
    if options.schedule == "cosine":
        return torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    return torch.optim.lr_scheduler.LambdaLR(optimiser, lambda _step: 1.0)


def _translated(error: RuntimeError, shape: tuple[int, ...], choice: DeviceChoice) -> ComputeError:
    if is_out_of_memory(error):
        return ComputeError(f"a training batch of {shape} does not fit into the memory of {choice.device}; "
                            "make batch_size or patch smaller")  # fmt: skip
    return ComputeError(f"{choice} failed on a training batch of {shape}: {error}")
