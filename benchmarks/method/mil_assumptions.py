"""Three synthetic tests of the assumptions of multiple instance learning (Raff and Holt 2023, arXiv 2310.17867).

    python -m benchmarks.method.mil_assumptions [--seeds 3] [--record]
    python -m benchmarks.method.mil_assumptions --cost --data FOLDER [--record]

A bag is positive because of what it holds, never because of what it lacks. Each test has a short cut in the training
bags that turns against a model in the test bags (algorithms 1 to 3 of the paper, with the numbers of its authors' code:
16 features, 1,000 bags for training and 1,000 for the test, features scaled by the training bags):

* one concept: positive bags hold 1 to 3 instances of a wide distribution. In training every negative bag holds a
  "poison" instance, in the test every positive bag does. A model that takes bags without poison for positive ends at a
  test AUC near 0.
* two concepts: positive bags hold instances of both A and B, negative bags at most one of them; poison as above.
* false frequency: positive bags hold one A and one B, negative bags one of them. In the test, negative bags hold 35 to
  40 instances of one of them. A model that counts instances instead of kinds ends at a test AUC near 0.

Our layers from the map layer on, and our loss, run on a small encoder of single instances. P of the positive class and
the last layer's y (of the positive class less the negative class, which is what the softmax ranks by) are scored apart.
"monotone" is a model whose last layer has one positive weight for each class and nothing else, with the classes scored
apart (sigmoids): y then rises with P of its own class alone. A test is failed if the AUC of the test bags is below .5,
where the short cut decides. It is passed if the AUC is .9 or more in training and test.

With `--cost`, the price of such a last layer elsewhere: on fields composed of real nuclei, the last layer of the
shipped model is fitted anew to P of training fields, once in full and once with one positive weight for each class, and
scored on fields of other plates. FOLDER holds `compose_fields.py` and `mitocheck/`.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, get_args

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

import napari_milcnn as mil
from benchmarks import record
from benchmarks.accuracy.nuclei_fields import RANGES, compose
from napari_milcnn.inference.predict import Classifier
from napari_milcnn.labels.table import LabelTable
from napari_milcnn.model.trained_model import TrainedModel
from napari_milcnn.network.mil_network import MilNetwork, NetworkOutput
from napari_milcnn.options import PoolingName, TrainOptions, preset_options
from napari_milcnn.training.losses import image_losses

FEATURES, BAGS, EPOCHS, BATCH = 16, 1000, 20, 32
FAILED, PASSED = 0.5, 0.9
WIDTHS = (32, 32, 32, 32, 32, 32)
Bag = np.ndarray
"""Instances of a bag, (instances, features)."""


class Task(NamedTuple):
    """Bags (instances, features) and their labels, 1 for positive."""

    bags: list[Bag]
    labels: np.ndarray


def _drawn(rng: np.random.Generator, count: int, mean: float, spread: float) -> Bag:
    return rng.normal(mean, spread, (count, FEATURES))


def one_concept(rng: np.random.Generator, positive: bool, test: bool) -> Bag:
    """Draw a bag of the single-concept test (algorithm 1)."""
    parts = [_drawn(rng, 1, -10, 0.1)] if positive == test else []
    parts += [_drawn(rng, rng.integers(1, 4), 0, 3)] if positive else []
    return np.concatenate([*parts, _drawn(rng, rng.integers(1, 5 if positive else 10), 0, 1)])


def two_concepts(rng: np.random.Generator, positive: bool, test: bool) -> Bag:
    """Draw a bag of the two-concept test (algorithm 2)."""
    poisoned = positive if test else not positive or rng.integers(10) == 0
    parts = [_drawn(rng, 1, -10, 0.1)] if poisoned else []
    if positive:
        parts += [_drawn(rng, rng.integers(1, 5), mean, 0.1) for mean in (2, 3)]
    else:
        parts += [_drawn(rng, 1, rng.choice((2, 3)), 0.1)]
    return np.concatenate([*parts, _drawn(rng, rng.integers(1, 5), 0, 1)])


def false_frequency(rng: np.random.Generator, positive: bool, test: bool) -> Bag:
    """Draw a bag of the false-frequency test (algorithm 3)."""
    count = rng.integers(35, 40) if test and not positive else 1
    means = (-2, 2) if positive else (rng.choice((-2, 2)),)
    return np.concatenate([*(_drawn(rng, count, mean, 0.1) for mean in means), _drawn(rng, rng.integers(1, 10), 0, 1)])


TESTS: dict[str, Callable[[np.random.Generator, bool, bool], Bag]] = {
    "one concept": one_concept, "two concepts": two_concepts, "false frequency": false_frequency,
}  # fmt: skip


def task(draw: Callable[[np.random.Generator, bool, bool], Bag], rng: np.random.Generator, test: bool) -> Task:
    """Draw as many negative bags as positive ones."""
    labels = np.arange(BAGS) % 2
    return Task([draw(rng, bool(label), test) for label in labels], labels)


def scaled(train: Task, test: Task) -> tuple[Task, Task]:
    """Scale every feature by its mean and standard deviation over all training instances."""
    whole = np.concatenate(train.bags)
    mean, spread = whole.mean(0), whole.std(0)
    first, second = (part._replace(bags=[(bag - mean) / spread for bag in part.bags]) for part in (train, test))
    return first, second


class MonotoneLayer(nn.Module):
    """One positive weight and a bias for each class: y_i rises with P_i and with nothing else."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.logarithm = nn.Parameter(torch.full((classes,), 4.0).log())
        self.bias = nn.Parameter(torch.full((classes,), -2.0))

    def forward(self, probabilities: Tensor) -> Tensor:  # noqa: D102
        return probabilities * self.logarithm.exp() + self.bias


def network_of(pooling: PoolingName, monotone: bool, seed: int) -> MilNetwork:
    """Build our network with an encoder of single instances; a bag is an image of one row."""
    torch.manual_seed(seed)
    network = MilNetwork(preset_options("compact", FEATURES, 2, pooling=pooling, widths=WIDTHS), seed)
    network.encoder = nn.Sequential(
        nn.Conv2d(FEATURES, 64, 1), nn.ReLU(), nn.Conv2d(64, 64, 1), nn.ReLU(), nn.Conv2d(64, WIDTHS[-1], 1), nn.ReLU()
    )
    network.start_at(1.0, 6)
    if monotone:
        network.head = MonotoneLayer(2)
    return network


def batches(part: Task, rng: np.random.Generator) -> Iterator[tuple[Tensor, np.ndarray]]:
    """Yield bags of one size at a time, (bags, features, 1, instances), and their numbers."""
    of_size = defaultdict(list)
    for number in rng.permutation(len(part.bags)):
        of_size[len(part.bags[number])].append(number)
    groups = [numbers[i : i + BATCH] for numbers in of_size.values() for i in range(0, len(numbers), BATCH)]
    for group in (groups[i] for i in rng.permutation(len(groups))):
        bags = np.stack([part.bags[number] for number in group])
        yield torch.from_numpy(bags).float().transpose(1, 2)[:, :, None], np.array(group)


def aucs(network: MilNetwork, part: Task, monotone: bool) -> tuple[float, float]:
    """AUC of P of the positive class, and of y."""
    pooled, last = np.empty(len(part.bags)), np.empty(len(part.bags))
    with torch.inference_mode():
        for images, numbers in batches(part, np.random.default_rng(0)):
            output: NetworkOutput = network.eval()(images)
            pooled[numbers] = output.probabilities[:, 1]
            last[numbers] = output.scores[:, 1] - (0 if monotone else output.scores[:, 0])
    return tuple(float(roc_auc_score(part.labels, values)) for values in (pooled, last))  # type: ignore[return-value]


def learn(network: MilNetwork, part: Task, monotone: bool, seed: int) -> None:
    """Train on bags, with our joint loss of P and y and our learning rates."""
    usual = TrainOptions()
    slow = [*network.encoder.parameters(), *network.maps.parameters()]
    fast = [*network.pooling.parameters(), *network.head.parameters()]
    optimiser = torch.optim.Adam([
        {"params": slow, "lr": usual.learning_rate},
        {"params": fast, "lr": usual.learning_rate * usual.head_rate},
    ])  # fmt: skip
    rng = np.random.default_rng(seed)
    for _ in range(EPOCHS):
        for images, numbers in batches(part, rng):
            targets = torch.eye(2)[torch.from_numpy(part.labels[numbers])]
            optimiser.zero_grad()
            pooled, last = image_losses(network.train()(images), targets, single_label=not monotone)
            (pooled + last).mean().backward()
            optimiser.step()


def verdict(train: float, test: float) -> str:
    """Say in a word whether the assumption is respected."""
    if test < FAILED:
        return "fails"
    return "passes" if min(train, test) >= PASSED else "neither"


def assumptions(seeds: int) -> list[str]:
    """Rows of Markdown: for each test, pooling and last layer the mean AUC over the seeds, training and test."""
    rows: list[list[object]] = []
    for name, draw in TESTS.items():
        tasks = []
        for seed in range(seeds):
            rng = np.random.default_rng(seed)
            tasks.append(scaled(task(draw, rng, test=False), task(draw, rng, test=True)))
        for pooling in get_args(PoolingName):
            rows.append([name, pooling, *_read(pooling, False, tasks), _read(pooling, True, tasks)[1]])
            sys.stderr.write(f"{rows[-1]}\n")
    return record.table(["test", "pooling", "P", "y", "y, monotone"], rows)


def _read(pooling: PoolingName, monotone: bool, tasks: Sequence[tuple[Task, Task]]) -> tuple[str, str]:
    """Train once a seed -> what P and y come to: AUC of training and test, and the verdict."""
    found = []
    for seed, (train, test) in enumerate(tasks):
        network = network_of(pooling, monotone, seed)
        learn(network, train, monotone, seed)
        found.append([aucs(network, train, monotone), aucs(network, test, monotone)])
    means = np.mean(found, 0)  # (training or test, P or y)
    of_p, of_y = (f"{a:.2f} → {b:.2f} {verdict(a, b)}" for a, b in means.T)
    return of_p, of_y


def cost(data: Path, per_class: int) -> list[str]:
    """Rows of Markdown: accuracy of the shipped model with its last layer fitted anew, in full and monotone."""
    model = mil.load_model("nuclei")
    with tempfile.TemporaryDirectory() as folder:
        train = compose(data, Path(folder) / "train", per_class, (0.05, 0.8), split="train")
        fitted = {name: fit(layer, *pooled(model, train), single)
                  for name, (layer, single) in _layers(len(model.classes)).items()}  # fmt: skip
        rows: list[list[object]] = []
        for name, share in RANGES.items():
            values, truth = pooled(model, compose(data, Path(folder) / name[:2], per_class, share))
            rows.append([name, len(truth), *(float((layer(values).argmax(1) == truth).float().mean())
                                            for layer in fitted.values())])  # fmt: skip
    return record.table(["cells affected", "fields", *fitted], rows)


def _layers(classes: int) -> dict[str, tuple[nn.Module, bool]]:
    """List the last layers to compare, and whether they are fitted with a softmax."""
    torch.manual_seed(0)
    return {
        "full": (nn.Linear(classes, classes), True),
        "monotone, softmax": (MonotoneLayer(classes), True),
        "monotone, sigmoids": (MonotoneLayer(classes), False),
    }


def pooled(model: TrainedModel, table: LabelTable) -> tuple[Tensor, Tensor]:
    """P of every field, (fields, classes), and the index of its class."""
    classifier = Classifier(model)
    values = np.concatenate([classifier.classify(row.file).probabilities for row in table.images])
    return torch.from_numpy(values), torch.tensor([model.classes.index(row.labels[0]) for row in table.images])


def fit(layer: nn.Module, values: Tensor, truth: Tensor, single: bool) -> nn.Module:
    """Fit a last layer to P (fields, classes) with our loss of y."""
    optimiser = torch.optim.Adam(layer.parameters(), 0.05, weight_decay=1e-4)
    targets = torch.eye(values.shape[1])[truth]
    for _ in range(1500):
        optimiser.zero_grad()
        image_losses(NetworkOutput(values, values, layer(values)), targets, single)[1].mean().backward()
        optimiser.step()
    return layer.requires_grad_(False)


def main() -> None:
    """Run the tests, or fit the last layers; print and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--cost", action="store_true", help="accuracy of last layers on fields of real nuclei")
    parser.add_argument("--data", type=Path, help="needed by --cost")
    parser.add_argument("--per-class", type=int, default=15, help="fields a class of --cost")
    parser.add_argument("--record", action="store_true")
    args = parser.parse_args()
    if args.cost:
        record.report("A monotone last layer on nuclei fields", cost(args.data, args.per_class), keep=args.record)
    else:
        head = f"AUC on training bags → on test bags, mean of {args.seeds} seeds\n"
        record.report("Assumptions of MIL", [head, *assumptions(args.seeds)], keep=args.record)


if __name__ == "__main__":
    main()
