"""How good a model is on images that it did not train on, and its calibration on such images."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from napari_milcnn.errors import LabelsError
from napari_milcnn.inference.devices import DeviceChoice, choose_device
from napari_milcnn.inference.model_input import model_input
from napari_milcnn.inference.predict import Bags, Classifier, pool_bags
from napari_milcnn.inference.unlike import FEWEST_LOOKS, PlaneLook, has_structure, plane_object_size, training_look
from napari_milcnn.labels.groups import images_of_bags, targets_of_bags
from napari_milcnn.labels.table import LabelledImage, LabelTable
from napari_milcnn.metrics.calibration import fit_offsets, fit_temperature, logits_of
from napari_milcnn.metrics.classification import confusion_table, mean_average_precision
from napari_milcnn.model.card import EpochRecord
from napari_milcnn.model.trained_model import TrainedModel
from napari_milcnn.network.mil_network import NetworkOutput
from napari_milcnn.options import Bag, TrainOptions, make_options
from napari_milcnn.progress import Progress, Steps
from napari_milcnn.training.augment import VARYING_OPTIONS, half_as_strong, varied_image
from napari_milcnn.training.distributed import Processes
from napari_milcnn.training.losses import image_losses

_SMOOTHED = 3
"""Epochs over which validation is smoothed."""
_MOST_LOOKED = 128
"""Most images, training or held, that are measured to know what they look like."""
_PLANES_LOOKED = 4
"""Most planes of each of them."""


@dataclass(frozen=True)
class Validation:
    """How good a model is on images that it did not train on.

    Attributes
    ----------
    accuracy : float
        Share of images whose top class is right; with several labels per image, share of yes-or-no answers that are.
    loss : float
        Joint loss, averaged over images.
    mean_average_precision : float
        Average precision, averaged over the classes that have images of both kinds; NaN where none has.
    brier : float
        Brier score: the squared error of the scores, summed over classes and averaged over images. 0 is perfect; a
        class scored 1 in place of another costs 2.
    brier_error : float
        Its standard error, from how much the images differ, with one image added that is wrong: a few images that are
        all right do not show how much others would differ.
    """

    accuracy: float
    loss: float
    mean_average_precision: float = math.nan
    brier: float = math.nan
    brier_error: float = math.nan


def calibrate(model: TrainedModel, labels: LabelTable, *, device: str = "auto") -> TrainedModel:
    """Set a trained model's temperature and the balance between its classes by images that it did not train on.

    Class maps, evidence and P stay as they are. y gets an offset for each class and is divided by the temperature. The
    figures on the card, which were measured before, are dropped. Use it where phenotypes are rarer than in the training
    images. A model that does not know what its training images look like takes these images for them, so that it can
    say which others are unlike (`inference.unlike`).

    Parameters
    ----------
    model : TrainedModel
        It is not changed.
    labels : LabelTable
        Images of every class, in about the proportions in which they will be met. They must not be images of the
        training, nor those on which the model is evaluated later.
    device : str
        auto, cpu, cuda, cuda:1, mps or xpu.

    Raises
    ------
    LabelsError
        If a class has no image.
    """
    *_, last = calibration_steps(model, labels, device=device)
    assert last.result is not None
    return last.result


def calibration_steps(model: TrainedModel, labels: LabelTable, *, device: str = "auto") -> Steps[TrainedModel]:
    """Calibrate a model, an image at a time; see `calibrate`. To cancel, leave the loop.

    Yields
    ------
    Progress
        Before each image. The result of the last step is the calibrated model.
    """
    absent = [name for name in model.classes if name not in labels.counts()]
    if absent:
        raise LabelsError(f"no image shows {', '.join(absent)}; calibration needs images of each class of the model")
    plain = model.with_card(temperature=1.0)
    choice, processes = choose_device(device), Processes()
    classifier, rows, total = _classifier(plain, choice), [], len(labels.images)
    for number, image in enumerate(processes.share(labels.images)):
        yield Progress(number, total, image.name)
        rows.append(_outputs_of(classifier, labels, image))
    found = _gathered(plain, labels.targets(plain.classes), rows, processes)
    temperature, offsets = fit_offsets(found.scores.numpy(), found.targets.numpy(), model.card.single_label)
    network = copy.deepcopy(model.network)
    with torch.no_grad():
        network.head.bias.add_(torch.from_numpy(offsets * temperature).float())
    yield Progress(total, total, "what the images look like")
    known = model if model.card.training.look else with_look(model, labels, None, choice, processes)
    if known.card.training.structureless is None:
        count = count_structureless(model, labels, processes)
        known = known.with_card(training=known.card.training.model_copy(update={"structureless": count}))
    done = known.with_card(temperature=temperature, metrics={}, faithfulness=())
    yield Progress(total, total, "calibrated", result=replace(done, network=network, path=None))


@dataclass(frozen=True)
class ImageOutputs:
    """Outputs of a model for whole images, or whole groups: y, P, and the targets, each float32 (bags, classes)."""

    scores: Tensor
    probabilities: Tensor
    targets: Tensor


def image_outputs(
    model: TrainedModel, table: LabelTable, choice: DeviceChoice, processes: Processes, bag: Bag = "image"
) -> ImageOutputs | None:
    """Classify whole images of a table, averaged over the planes of each, or whole groups, each of them one bag.

    None for an empty table.
    """
    if not table.images:
        return None
    classifier, bags = _classifier(model, choice), images_of_bags(table, bag)
    if bag == "image":
        rows = [_outputs_of(classifier, table, image) for image in processes.share(table.images)]
    else:
        rows = [_outputs_of_group(classifier, table, numbers) for numbers in processes.share(bags)]
    return _gathered(model, targets_of_bags(table, bags, model.classes), rows, processes)


def _outputs_of(classifier: Classifier, table: LabelTable, image: LabelledImage) -> tuple[list[float], list[float]]:
    """Return the scores and probabilities of an image, averaged over its planes."""
    with table.open(image) as opened:
        found = classifier.classify(opened)
    return found.scores.mean(0).tolist(), found.probabilities.mean(0).tolist()


def _outputs_of_group(
    classifier: Classifier, table: LabelTable, numbers: Sequence[int]
) -> tuple[list[float], list[float]]:
    """Return the scores and probabilities of the images of a group in one bag."""
    bags = []
    for number in numbers:
        with table.open(table.images[number]) as opened:
            bags.append(classifier.classify(opened).without_maps().bags)
    found = pool_bags(classifier.model, Bags.joined(bags))
    return found.scores.tolist(), found.probabilities.tolist()


def _gathered(
    model: TrainedModel, targets: np.ndarray, rows: list[tuple[list[float], list[float]]], processes: Processes
) -> ImageOutputs:
    """Put the outputs of the bags of all processes together."""
    scores, probabilities = map(np.array, zip(*processes.gather(rows), strict=True))
    logits = torch.from_numpy(logits_of(scores, model.card.single_label)).float()
    pooled = torch.from_numpy(probabilities).float().clamp(0, 1)
    return ImageOutputs(logits, pooled, torch.from_numpy(targets))


def _classifier(model: TrainedModel, choice: DeviceChoice) -> Classifier:
    return Classifier(model, device=str(choice.device), precision=str(choice.precision).removeprefix("torch."))


def with_look(
    model: TrainedModel, training: LabelTable, held: LabelTable | None, choice: DeviceChoice, processes: Processes
) -> TrainedModel:
    """Write on the card what the training images look like, with limits from images that were held out.

    Where the training varied the acquisition, each image counts twice, as it is and varied: what the network has
    learned to see through is not unlike. Varied half as strongly as in training, because Mahalanobis distances see only
    how far values spread: with the rare strongest changes among them, another cell or a doubled size lay within.
    A model whose training images are too few to tell is returned as it is.
    """
    classifier = _classifier(model, choice)
    known = _vectors(classifier, training, processes)
    if len(known) < FEWEST_LOOKS:
        return model
    others = [] if held is None or not held.images else _vectors(classifier, held, processes)
    parts = [(np.array([one for one, _ in rows]), [look for _, look in rows]) for rows in (known, others)]
    copies = 1 if _varying_options(model) is None else 2
    look = training_look(*parts[0], *parts[1], _sizes(classifier, training, processes))
    look = look.model_copy(update={"images": look.images // copies, "held": look.held // copies})
    return model.with_card(training=model.card.training.model_copy(update={"look": look}))


def count_structureless(model: TrainedModel, table: LabelTable, processes: Processes) -> int:
    """Count the images, of those spread evenly over the table, whose first plane shows nothing above its noise."""
    empty: list[bool] = []
    for image in processes.share(_spread(table)):
        with table.open(image) as opened:
            empty.append(not has_structure(model_input(model, opened), 0))
    return sum(processes.gather(empty))


def _spread(table: LabelTable) -> Sequence[LabelledImage]:
    return table.images[:: -(-len(table.images) // _MOST_LOOKED)]


def _vectors(classifier: Classifier, table: LabelTable, processes: Processes) -> list[tuple[np.ndarray, PlaneLook]]:
    """Measure features and look of planes of images that are spread evenly over the table."""
    rows: list[tuple[np.ndarray, PlaneLook]] = []
    model = classifier.model
    options = _varying_options(model)
    at_its_size = Classifier(model.with_card(scale=1.0), **classifier.options.model_dump())
    for number, image in processes.share(list(enumerate(_spread(table)))):
        with table.open(image) as opened:
            planes = range(0, len(opened.planes), -(-len(opened.planes) // _PLANES_LOOKED))
            seen = classifier.model_input(opened)
            rows += zip(*classifier.vectors(seen, planes), strict=True)
            if options is None:
                continue
            for plane in planes:
                rng = np.random.default_rng([options.seed, number, plane])
                varied = varied_image(seen, plane, options, rng)
                rows += zip(*at_its_size.vectors(varied, [0]), strict=True)
    return processes.gather(rows)


def _sizes(classifier: Classifier, table: LabelTable, processes: Processes) -> list[float]:
    """Measure the size of the objects of images that are spread evenly over the table, in their first planes."""
    sizes: list[float] = []
    for image in processes.share(_spread(table)):
        with table.open(image) as opened:
            size = plane_object_size(classifier.model_input(opened), 0)
        sizes += [] if size is None else [size]
    return processes.gather(sizes)


def _varying_options(model: TrainedModel) -> TrainOptions | None:
    """Return options that vary the acquisition half as strongly as the model's training did; None where it did not."""
    recorded = model.card.training.options
    if not recorded.get("vary_share"):
        return None
    varying = {name: recorded.get(name, 0) for name in ("seed", *VARYING_OPTIONS)}  # 0: not known to that training
    return half_as_strong(make_options(TrainOptions, varying))


def validation_of(found: ImageOutputs, single_label: bool) -> Validation:
    """Measure how good the scores of classified images are."""
    output = NetworkOutput(found.scores, found.probabilities, found.scores)
    losses = image_losses(output, found.targets, single_label)
    if single_label:
        hits = found.scores.argmax(1) == found.targets.argmax(1)
    else:
        hits = (found.scores > 0) == (found.targets > 0.5)
    ranks = mean_average_precision(found.scores.numpy(), found.targets.numpy())
    scores = found.scores.softmax(1) if single_label else found.scores.sigmoid()
    squares = (scores - found.targets).square().sum(1).numpy().astype(np.float64)
    with_a_wrong_one = np.append(squares, 2.0)
    return Validation(
        float(hits.float().mean()), float((losses[0] + losses[1]).mean()), ranks, float(squares.mean()),
        float(with_a_wrong_one.std() / math.sqrt(len(with_a_wrong_one))),
    )  # fmt: skip


def known_precision(validation: Validation | None) -> float | None:
    """Return the mean average precision of a validation, or None where it could not be measured."""
    if validation is None or math.isnan(validation.mean_average_precision):
        return None
    return validation.mean_average_precision


def with_confusion(model: TrainedModel, found: ImageOutputs) -> TrainedModel:
    """Write the confusion of the validation images on the card, as `confusion_table` counts it."""
    single = model.card.single_label
    scores = (found.scores.softmax(1) if single else found.scores.sigmoid()).numpy()
    table = confusion_table(scores, found.targets.numpy(), model.classes, single)
    counts = tuple(map(tuple, table.to_numpy().tolist()))
    return model.with_card(training=model.card.training.model_copy(update={"confusion": counts}))


def validation_temperature(found: ImageOutputs, single_label: bool) -> float:
    """Fit the temperature on the validation images, from which nothing was learned."""
    return fit_temperature(found.scores.numpy(), found.targets.numpy(), single_label)


def is_better(curve: Sequence[EpochRecord]) -> bool:
    """Tell whether the model of the latest epoch is kept in place of the one kept so far.

    It is, unless validation speaks against it: its Brier score, smoothed over three epochs, must be at most one
    standard error above the lowest so far. Without validation images the latest model is kept.

    Why the latest in doubt: weights are averaged, and the learning rate falls towards the end, so later models are
    rarely worse. What tells them apart on a few validation images is mostly luck. Accuracy first, as it was before,
    kept the untrained network of the first epoch that happened to have seven of seven images right. The one standard
    error is that of Breiman et al. (Classification and Regression Trees, 1984), who use it for the simplest model in
    place of the latest.

    Why the Brier score: the loss has no upper limit, so one image that is wrong with certainty outweighs all others,
    and an untrained network, certain of nothing, has less. The Brier score of an untrained network is far from good
    however many images it has right.
    """
    if not curve or curve[-1].validation_brier is None:
        return True
    smoothed = _smoothed_brier(curve)
    lowest = int(np.argmin(smoothed))
    return smoothed[-1] <= smoothed[lowest] + (curve[lowest].validation_brier_error or 0)


def has_settled(curve: Sequence[EpochRecord], patience: int | None) -> bool:
    """Tell whether the smoothed Brier score has not become lower for as many epochs as patience has."""
    if patience is None or not curve or curve[-1].validation_brier is None:
        return False
    return len(curve) - 1 - int(np.argmin(_smoothed_brier(curve))) >= patience


def _smoothed_brier(curve: Sequence[EpochRecord]) -> list[float]:
    """Average the Brier score of each epoch with those of the two epochs before it."""
    scores = [math.nan if row.validation_brier is None else row.validation_brier for row in curve]
    return [float(np.mean(scores[max(0, end - _SMOOTHED) : end])) for end in range(1, len(scores) + 1)]


def with_metrics(model: TrainedModel, validation: Validation | None) -> TrainedModel:
    """Write the figures of a validation on the card."""
    if validation is None:
        return model
    name = "validation accuracy" if model.card.single_label else "validation accuracy, yes or no for each class"
    return model.with_card(metrics={name: validation.accuracy, "validation loss": validation.loss})
