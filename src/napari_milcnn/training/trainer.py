"""Learning from image-level labels.

The joint loss (paper, section 2.4): binary cross-entropy of the pooled probabilities P_i, summed over classes, plus
cross-entropy of the last layer's y (softmax for one label per image, sigmoids for several), with equal weights,
averaged over the batch. P is a probability: fed to a with-logits loss, as some reimplementations do, a negative could
never cost less than 0.693.

Every epoch takes its random numbers from (seed, epoch), and every patch from (seed, epoch, place in the epoch). An
epoch is then the same whether or not the epochs before it ran in this process, whichever thread reads a patch, and
however many processes share the batches.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch import Tensor, nn

from napari_milcnn.atomic_write import sha256
from napari_milcnn.errors import LabelsError, OptionsError
from napari_milcnn.images.intensity import plates_in_words
from napari_milcnn.images.paths import composed
from napari_milcnn.inference.devices import DeviceChoice, choose_device, cpu_threads, is_out_of_memory
from napari_milcnn.inference.evidence import suited_evidence
from napari_milcnn.inference.foreground import is_known, measure_foreground
from napari_milcnn.labels.groups import check_groups
from napari_milcnn.labels.image_checks import OnImage
from napari_milcnn.labels.table import LabelTable, check_images
from napari_milcnn.model.card import EpochRecord, ModelCard, OwnEvidence, TrainingRecord
from napari_milcnn.model.trained_model import TrainedModel, rebuilt
from napari_milcnn.network.mil_network import MilNetwork
from napari_milcnn.options import TrainOptions, make_options
from napari_milcnn.training.checkpoint import (
    Checkpoint,
    load_checkpoint,
    not_a_checkpoint,
    option_facts,
    save_checkpoint,
)
from napari_milcnn.training.distributed import Processes
from napari_milcnn.training.learner import Learner, LearnerState
from napari_milcnn.training.patch_dataset import (
    PatchReader,
    TrainingBatches,
    intensity_statistics,
    measure_planes,
    measured_scale,
)
from napari_milcnn.training.validation import (
    ImageOutputs,
    Validation,
    count_structureless,
    has_settled,
    image_outputs,
    is_better,
    known_precision,
    validation_of,
    validation_temperature,
    with_confusion,
    with_look,
    with_metrics,
)

OnBatch = Callable[[int, int], bool]
"""Called after each batch with the batches done and in all; training stops when it returns False."""
_MOST_SEGMENTED = 16
"""Most images on which the size of objects, and the method that finds them, is measured."""
_MOST_MEASURED = 64
"""Most images on which the foreground is measured."""
_NOT_LEARNING = ("device", "num_workers", "cache", "max_minutes", "threads")
"""Options that say where, how fast and how long a training runs: with others it may go on from its checkpoint."""


@dataclass(frozen=True)
class EpochReport:
    """One epoch of training.

    Attributes
    ----------
    epoch, epochs : int
        Number of this epoch, from 1, and of all epochs at most.
    loss : float
        Joint loss, averaged over the epoch's images: the sum of the next two.
    pooled_loss, last_loss : float
        Binary cross-entropy of P, and cross-entropy of y.
    validation : Validation or None
        Result on the validation images; None where there are none.
    best : TrainedModel
        The best model so far by validation, or the latest where there are no validation images.
    is_best : bool
        Whether this epoch's model is the best (`is_better`).
    last : TrainedModel
        This epoch's model. `last.card.training.curve` has the figures of every epoch up to this one.
    learned_b : list of float or None
        Noisy-AND's thresholds, one for each class; None for other poolings.
    device : str
        Device that computed it, and why it was chosen.
    seconds : float
        Time taken, validation included.
    waiting : float
        Share of that time, without validation, in which the device waited for images.
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
    **options: object,
) -> Iterator[EpochReport]:
    """Train a model on image-level labels, an epoch at a time.

    Parameters
    ----------
    model : TrainedModel
        Model to start from; it is not changed. For an untrained model the normalisation is measured on the training
        images, and b and the last layer start from the share of them that shows cells (`MilNetwork.start_at`). To
        fine-tune a model to other classes, pass `model.with_classes(labels.classes)`.
    labels : LabelTable
        Images and their labels. Without a split column whole groups are put aside for validation.
    checkpoint : path, optional
        File for the state of the training. It is written when the next report is asked for.
    resume : bool
        Go on from the checkpoint, or from the start where there is none yet. The reports that follow, and the model,
        are those of a training that was never stopped.
    on_warning : callable, optional
        Called before the first epoch with each warning about the images and their split.
    on_image : callable, optional
        Called with (images done, images in all) while all images are opened and, for a new model, again while the
        training images are measured; return False to stop.
    on_batch : callable, optional
        Called with (batches done, batches in all) of the epoch; return False to stop. The unfinished epoch is dropped,
        earlier reports stay valid.
    **options
        Fields of `TrainOptions`.

    Yields
    ------
    EpochReport
        After each epoch; `report.best` is the model to keep.

    Raises
    ------
    LabelsError
        If the table has labels that the model does not know, no training images of a class, or unusable images.
    OptionsError
        If an option is unknown or impossible, or the checkpoint belongs to another training.
    """
    chosen = make_options(TrainOptions, options)
    table = labels.with_split(chosen.validation, chosen.seed)
    _check_table(model, table)
    _check_patch(model, chosen)
    if chosen.bag == "group":
        check_groups(table)
    if resume and checkpoint is None:
        raise OptionsError("resume needs the checkpoint to go on from; name its file")
    counter = _ImageCounter(on_image)
    for warning in (*_about_plates(model, table, chosen), *check_images(table, counter, pixel_size=model.pixel_size)):
        if on_warning is not None:
            on_warning(warning)
    if counter.stopped:
        return
    file = None if checkpoint is None else Path(checkpoint)
    with cpu_threads(chosen.threads):
        trainer = _Trainer(model, table, chosen, on_batch)
        state = load_checkpoint(file, trainer.run) if file is not None and resume else None
        if file is not None and state is not None:
            try:
                trainer.restore(state)
            except Exception as error:  # of a checkpoint that was made to deceive, or is damaged
                if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and is_out_of_memory(error)):
                    raise  # nothing is wrong with the checkpoint
                raise not_a_checkpoint(file, f"{type(error).__name__}: {error}") from error
        elif not trainer.prepare(counter):
            return
        yield from trainer.epochs(file)


@dataclass(frozen=True)
class TrainingEstimate:
    """What a training will take, from a few batches of it.

    Attributes
    ----------
    seconds : float
        Time of one epoch, validation included.
    memory : int
        Bytes in use at once on the device, about: network, optimiser, and a batch with all that learning keeps of it.
    batches, images, validation_images : int
        Number of each in one epoch.
    passes : int
        Number of times that an epoch goes through the images.
    device : str
        Device, and why it was chosen.
    """

    seconds: float
    memory: int
    batches: int
    images: int
    validation_images: int
    passes: int
    device: str


def estimate(model: TrainedModel, labels: LabelTable, **options: object) -> TrainingEstimate:
    """Try two batches and one validation image of a training, to tell how long an epoch of it will take.

    Parameters
    ----------
    model, labels, **options
        As of `train`; none of them is changed, and no file is written.

    Raises
    ------
    MilcnnError
        As `train`.
    """
    chosen = make_options(TrainOptions, options)
    table = labels.with_split(chosen.validation, chosen.seed)
    _check_table(model, table)
    _check_patch(model, chosen)
    if chosen.bag == "group":
        check_groups(table)
    with cpu_threads(chosen.threads):
        return _measure(_Trainer(model, table, chosen, None))


def _check_table(model: TrainedModel, table: LabelTable) -> None:
    unknown = sorted(set(table.classes) - set(model.classes))
    if unknown:
        raise LabelsError(
            f"the table has the label {', '.join(unknown)}, which the model does not know; its classes: "
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


def _about_plates(model: TrainedModel, table: LabelTable, options: TrainOptions) -> tuple[str, ...]:
    """Say by which images intensities are scaled, where they are scaled by plate, and whether brightness is varied.

    Raises
    ------
    LabelsError
        If each plate shows a single class: the scale would hide how classes differ in brightness.
    """
    if model.card.normalise != "group":
        return ()
    shown = table.classes_of_plates()
    if len(table.classes) > 1 and all(len(classes) == 1 for classes in shown.values()):
        name = next(iter(shown)).name
        raise LabelsError(
            f"intensities are to be scaled by plate (normalise: group), but each of the {len(shown)} plates of "
            f"{table.source} shows a single class, {name} for example; this would hide how classes differ in "
            "brightness. Say which images share a plate: in a column plate, or in a table of plates (option plates)"
        )
    varied = (
        "brightness is kept between the images of a plate, and varied in patches (vary_intensity "
        f"{options.vary_intensity:g}); set vary_intensity to 0 if brightness is what is to be learned"
    )
    return (*plates_in_words(shown), *([varied] if options.vary_intensity and options.vary_share else []))


def _check_patch(model: TrainedModel, options: TrainOptions) -> None:
    field = model.network.placement.receptive_field
    if 0 < options.patch < field:
        raise OptionsError(f"option 'patch' is {options.patch}; expected 0 or at least the receptive field, {field} px")


class _ImageCounter:
    """Passes the count of images on, and remembers whether it was asked to stop."""

    def __init__(self, on_image: OnImage | None) -> None:
        self._on_image = on_image
        self.stopped = False

    def __call__(self, done: int, total: int) -> bool:
        self.stopped = self._on_image is not None and not self._on_image(done, total)
        return not self.stopped


class _EpochLosses(NamedTuple):
    """Both parts of the loss, averaged over the images of an epoch, and the share of time spent waiting for images."""

    pooled: float
    last: float
    waiting: float


class _Trainer:
    """One training: what it has learned so far, and how it learns the next epoch."""

    def __init__(self, model: TrainedModel, table: LabelTable, options: TrainOptions, on_batch: OnBatch | None) -> None:
        fresh = not model.card.training.has_learned_encoder
        started = model
        if fresh and model.card.scale == 0:
            model = model.with_card(scale=measured_scale(model, table.part("train")))
        self.options = options
        self.on_batch = on_batch or (lambda _done, _total: True)
        self.table = table
        self.processes = Processes()
        self.choice = _choose_device(options, self.processes)
        self.reader = PatchReader(model, table.part("train"), options.cache)
        self.batches = TrainingBatches(self.reader, options, self.processes)
        self.run = _run_facts(started, table, options)
        self.started_from = None if fresh else model.digest
        self.structureless: int | None = None
        self.curve: tuple[EpochRecord, ...] = ()
        self.began = time.monotonic()
        single = table.single_label if fresh else model.card.single_label
        unmeasured = {"metrics": {}, "faithfulness": (), "thresholds": {}, "temperature": 1.0}
        self.best = self.model = model.with_card(single_label=single, **unmeasured)
        self.learner = Learner(model.network, options, self.choice, self.batches.count, single)

    def prepare(self, on_image: OnImage) -> bool:
        """Measure the training images for a model that has not learned yet; False if it was stopped."""
        if not self.model.card.training.has_learned_encoder and not self._measure_intensities(on_image):
            return False
        if not self.model.card.training.has_learned and not is_known(self.model.card.foreground):
            self._measure_foreground()
        if not self.model.card.training.has_learned and self.model.card.network.b is None:
            self._start_at_foreground()
        self.structureless = count_structureless(self.model, self.reader.table, self.processes)
        self.best = self.model = self.model.with_card(evidence=self._suited_evidence())
        return True

    def _suited_evidence(self) -> OwnEvidence:
        """Choose the kind of evidence by the validation images, or by the training images where there are none."""
        table = self.table.part("validation")
        images = table.images or self.reader.table.images
        chosen = images[:: math.ceil(len(images) / _MOST_MEASURED)]
        return suited_evidence(self.model, [partial(self.table.open, image) for image in chosen])

    def _measure_intensities(self, on_image: OnImage) -> bool:
        """Measure how intensities are scaled, on the training images; False if it was stopped."""
        if self.model.fixed_intensity is None:
            return measure_planes(self.reader, self.options.num_workers, on_image)
        measured = intensity_statistics(self.reader, self.options.num_workers, on_image)
        if measured is None:
            return False
        self.model = self.reader.model = self.model.with_card(mean=measured.mean, std=measured.std)
        return True

    def _measure_foreground(self) -> None:
        """Measure how objects are found, where the plan leaves it open."""
        images = len(self.reader.table.images)
        sample = [self.reader.object_channel(i) for i in range(0, images, math.ceil(images / _MOST_SEGMENTED))]
        self.model = self.model.with_card(foreground=measure_foreground(sample, self.model.card.foreground))

    def _start_at_foreground(self) -> None:
        """Set b and the last layer for the share of the training images that shows cells."""
        images = len(self.reader.table.images)
        measured = range(0, images, math.ceil(images / _MOST_MEASURED))
        share = np.median([self.reader.foreground(i, 0).share for i in measured])
        network, patch = self.learner.network, self.options.patch
        shape = self.reader.shape(0) if patch == 0 else (patch, patch)
        instances = network.placement.map_size(shape[0]) * network.placement.map_size(shape[1])
        network.start_at(float(share), instances * self.options.patches_of_bag)

    def restore(self, state: Checkpoint) -> None:
        """Go back to where a run was after an epoch."""
        self.learner.restore(LearnerState(state.network, state.averaged, state.optimiser, state.schedule))
        self.model = self.reader.model = rebuilt(ModelCard.model_validate_json(state.card), state.network)
        self.best = rebuilt(ModelCard.model_validate_json(state.best_card), state.best)
        self.curve = self.model.card.training.curve
        self.structureless = self.model.card.training.structureless

    def _checkpoint(self) -> Checkpoint:
        return Checkpoint(
            run=self.run, **self.learner.state()._asdict(), card=self.model.card.model_dump_json(),
            best=self.best.network.state_dict(), best_card=self.best.card.model_dump_json(),
        )  # fmt: skip

    def epochs(self, checkpoint: Path | None) -> Iterator[EpochReport]:
        """Train the epochs that are left, and write the state to a file after each."""
        self.learner.distribute(self.processes)
        try:
            while not self._is_done():
                report = self._train_epoch(len(self.curve) + 1)
                if report is None:
                    return
                late = self._is_late()
                if late or self._is_done():
                    report = self._with_look(report)
                yield report
                if checkpoint is not None and self.processes.rank == 0:
                    save_checkpoint(checkpoint, self._checkpoint())
                if late:
                    return
        except Exception:
            self.processes.abandon()
            raise

    def _is_done(self) -> bool:
        return len(self.curve) >= self.options.epochs or has_settled(self.curve, self.options.patience)

    def _with_look(self, report: EpochReport) -> EpochReport:
        """Let the best model know, at the end, what its training images look like."""
        parts = (self.table.part("train"), self.table.part("validation"))
        self.best = with_look(report.best, *parts, self.choice, self.processes)
        return replace(report, best=self.best, last=self.best if report.is_best else report.last)

    def _is_late(self) -> bool:
        """Whether the time is up by the clock of the first process, which counts for all."""
        minutes = self.options.max_minutes
        late = minutes is not None and time.monotonic() - self.began > 60 * minutes
        return self.processes.sum([float(late and self.processes.rank == 0)])[0] > 0

    def _train_epoch(self, epoch: int) -> EpochReport | None:
        """Learn for one epoch and validate; None if it was stopped."""
        began = time.perf_counter()
        losses = self._learn(epoch)
        if losses is None:
            return None
        self.processes.align_buffers(self.learner.network)
        self.processes.align_buffers(self.learner.averaged)
        candidate = self._candidate(epoch)
        held = self.table.part("validation")
        found = image_outputs(candidate, held, self.choice, self.processes, self.options.bag)
        validation = None if found is None else validation_of(found, candidate.card.single_label)
        learned_b = candidate.network.learned_b
        record = _epoch_record(epoch, losses, validation, learned_b)
        is_best = is_better((*self.curve, record))
        self.curve = (*self.curve, record.model_copy(update={"is_best": is_best}))
        latest = self._with_results(candidate, validation, found)
        self.model = self.model.with_card(training=latest.card.training)
        self.best = latest if is_best else self.best
        return EpochReport(
            epoch, self.options.epochs, losses.pooled + losses.last, losses.pooled, losses.last, validation, self.best,
            is_best, latest, learned_b, str(self.choice), time.perf_counter() - began, losses.waiting,
        )  # fmt: skip

    def _candidate(self, epoch: int) -> TrainedModel:
        """Copy the averaged network as it is after an epoch."""
        record = TrainingRecord(
            epoch=epoch, options=self.options.model_dump(), device=str(self.choice), started_from=self.started_from,
            images=self.reader.table.counts(), validation_images=self.table.part("validation").counts(),
            structureless=self.structureless,
        )  # fmt: skip
        return rebuilt(self.model.with_card(training=record).card, self.learner.averaged.state_dict())

    def _with_results(
        self, model: TrainedModel, validation: Validation | None, found: ImageOutputs | None
    ) -> TrainedModel:
        """Note the curve, and what validation found, on the card of a model."""
        model = model.with_card(training=model.card.training.model_copy(update={"curve": self.curve}))
        model = with_metrics(model, validation)
        if found is None:
            return model
        model = with_confusion(model, found)
        return model.with_card(temperature=validation_temperature(found, model.card.single_label))

    def _learn(self, epoch: int) -> _EpochLosses | None:
        """Learn from the batches of one epoch; None if it was stopped."""
        rng = np.random.default_rng([self.options.seed, epoch])
        order = self.batches.order(rng)
        sums, waited, began = np.zeros(2), 0.0, time.perf_counter()
        self.learner.begin_epoch(int(rng.integers(2**31)))
        with closing(self.batches.of_epoch(order, epoch)) as batches:
            for step in range(1, self.batches.count + 1):
                asked = time.perf_counter()
                batch = next(batches)
                waited += time.perf_counter() - asked
                losses = self.learner.step(batch, self.processes.count)
                stop = not self.on_batch(step, self.batches.count)
                *losses_of_all, stops = self.processes.sum([*losses, float(stop)])
                if stops:
                    return None
                sums += losses_of_all
        pooled, last = sums / len(order)
        return _EpochLosses(float(pooled), float(last), waited / (time.perf_counter() - began))


def _measure(trainer: _Trainer) -> TrainingEstimate:
    """Take two steps, the first of them to warm up, and classify one validation image."""
    batches, network, held = trainer.batches, trainer.learner.network, trainer.table.part("validation")
    images = len(batches.targets)
    size = math.ceil(images * batches.passes / batches.count)
    reading, step = 0.0, 0.0
    trainer.learner.begin_epoch(0)
    with _activation_sizes(network) as sizes:
        for number in range(min(2, batches.count)):
            places = [place % images for place in range(number * size, (number + 1) * size)]
            asked = time.perf_counter()
            batch = batches.read(np.arange(images), places, 1)
            read = time.perf_counter()
            sizes.clear()
            trainer.learner.step(batch, trainer.processes.count)
            reading, step = read - asked, time.perf_counter() - read
    asked = time.perf_counter()
    image_outputs(trainer.best, replace(held, images=held.images[:1]), trainer.choice, trainer.processes)
    validation = (time.perf_counter() - asked) * len(held.images)
    weights = sum(p.numel() * p.element_size() for p in network.parameters())
    return TrainingEstimate(
        seconds=batches.count * max(step, reading / trainer.options.num_workers) + validation,
        memory=4 * weights + 2 * sum(sizes), batches=batches.count, images=images,
        validation_images=len(held.images), passes=batches.passes, device=str(trainer.choice),
    )  # fmt: skip


def _epoch_record(
    epoch: int, losses: _EpochLosses, validation: Validation | None, learned_b: list[float] | None
) -> EpochRecord:
    found = {} if validation is None else {
        "validation_accuracy": validation.accuracy, "validation_loss": validation.loss,
        "validation_mean_average_precision": known_precision(validation),
        "validation_brier": validation.brier, "validation_brier_error": validation.brier_error,
    }  # fmt: skip
    return EpochRecord(
        epoch=epoch, loss=losses.pooled + losses.last, pooled_loss=losses.pooled, last_loss=losses.last,
        learned_b=None if learned_b is None else tuple(learned_b), **found,
    )  # fmt: skip


@contextmanager
def _activation_sizes(network: MilNetwork) -> Iterator[list[int]]:
    """List the bytes of what each layer puts out; learning keeps it, and its gradient is as large."""
    sizes: list[int] = []

    def note(_layer: nn.Module, _inputs: object, output: object) -> None:
        if isinstance(output, Tensor):
            sizes.append(output.numel() * output.element_size())

    leaves = [layer for layer in network.modules() if not any(True for _ in layer.children())]
    handles = [layer.register_forward_hook(note) for layer in leaves]
    try:
        yield sizes
    finally:
        for handle in handles:
            handle.remove()


def _choose_device(options: TrainOptions, processes: Processes) -> DeviceChoice:
    """Choose the device; a launcher of several processes has given each its own."""
    device = options.device if processes.device is None else str(processes.device)
    choice = choose_device(device, options.precision)
    if processes.count > 1:
        choice = replace(choice, reason=f"{processes.count} processes")
    return choice


def _run_facts(model: TrainedModel, table: LabelTable, options: TrainOptions) -> dict[str, object]:
    """Return in plain values what makes a run what it is: a checkpoint of another run is refused."""
    groups = [f" {row.group}" if options.bag == "group" else "" for row in table.images]
    rows = (f"{row.name} {'|'.join(row.labels)} {row.split}{of}" for row, of in zip(table.images, groups, strict=True))
    images = composed("\n".join(rows))
    chosen = option_facts(options.model_dump(exclude=set(_NOT_LEARNING)))
    return {"the model it starts from": model.digest[:12], "the table": sha256(images.encode())[:12], **chosen}
