"""How long Jacobian maps take beside captum: python -m benchmarks.method.jacobian_speed [--record] [--classes 17].

On one thread, guided maps of a 2-channel image are made for one class and for all: by captum in float32 and in bf16,
whose every class is a forward and a backward run of autograd, and by ours in each precision. All of ours go back from
one forward run, which is that of the classification, too. The unit of one class is the forward run of a classification
without Jacobian. Variants take turns, one class at a time for captum, and CPU time is counted. A first table says how
far the maps of the first class are from captum's in float32, as a share of the largest value, and how many times as
fast as captum ours could be if nothing but the convolutions of the way back took time: they run at the speed of a
matrix product.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import statistics
import time
import warnings
from collections.abc import Callable, Sequence

import numpy as np
import torch
from captum.attr import GuidedBackprop
from torch import Tensor, nn

from benchmarks import record
from napari_milcnn.inference.devices import DeviceChoice, choose_device, keep_freed_memory
from napari_milcnn.inference.jacobian import jacobian_maps
from napari_milcnn.network.inference_copy import inference_copy
from napari_milcnn.network.mil_network import MilNetwork
from napari_milcnn.network.way_back import Passed, Trace, back_through, trace
from napari_milcnn.options import preset_options


class Weighted(nn.Module):
    """For each class the sum of z_ij over the map, weighted by P_i p_ij taken as a constant, as captum wants it.

    The network is in the paper's order, each ReLU before its max pool: captum applies the rule in the ReLUs, and so
    makes other maps in our order.
    """

    def __init__(self, network: MilNetwork) -> None:
        super().__init__()
        self.network = copy.deepcopy(network)
        layers = list(self.network.encoder)
        for i, (layer, following) in enumerate(itertools.pairwise(layers)):
            if isinstance(layer, nn.MaxPool2d) and isinstance(following, nn.ReLU):
                layers[i], layers[i + 1] = following, layer
        self.network.encoder = nn.Sequential(*layers)

    def forward(self, images: Tensor) -> Tensor:
        """Images (batch, channels, Y, X) -> (batch, classes)."""
        output = self.network(images)
        start = output.probabilities[..., None, None] * output.class_maps.sigmoid()
        return (output.class_maps * start.detach()).sum((2, 3))


def main() -> None:
    """Time both presets in both precisions and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classes", type=int, default=17)
    parser.add_argument("--shape", type=int, nargs=2, default=(1000, 1200))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--record", action="store_true", help="keep in RESULTS.md")
    args = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", UserWarning)  # captum says what it does to the network
    rows, limits = zip(*(row(preset, precision, args) for preset in ("compact", "paper")
                         for precision in ("float32", "bfloat16")), strict=True)  # fmt: skip
    many = f"{args.classes} classes"
    heads = ["preset", "precision", f"{many} / forward", f"captum float32, {many} / ours",
             f"captum in this precision, {many} / ours", "scores and 1 class / forward",
             "1 class added / forward"]  # fmt: skip
    head = f"2 x {args.shape[0]} x {args.shape[1]} px, one thread, CPU time\n"
    bounds = ["preset", "precision", "maps differ from captum's float32 by, median", "99.9th percentile",
              "convolutions back / forward", f"captum float32, {many} / ours at most",
              "captum in this precision / ours at most"]  # fmt: skip
    found = [head, *record.table(bounds, [*limits]), "", *record.table(heads, [*rows])]
    record.report("Jacobian maps, speed", found, keep=args.record)


def row(preset: str, precision: str, args: argparse.Namespace) -> tuple[list[object], list[object]]:
    """Time one preset in one precision, all variants in turn: the row of the last table, and that of the first."""
    network = MilNetwork(preset_options(preset, 2, args.classes)).eval().requires_grad_(False)
    choice, fast = choose_device("cpu", precision), inference_copy(network)
    pixels = torch.from_numpy(np.random.default_rng(0).standard_normal((1, 2, *args.shape), np.float32))
    exact, weighted = choose_device("cpu", "float32"), Weighted(network)
    signals = signals_of(forward_trace(fast, pixels, choice), choice)
    found = cpu_seconds(args.rounds, {
        "forward": lambda: forward(fast, pixels, choice),
        "all": lambda: ours(fast, pixels, range(args.classes), choice),
        "one": lambda: ours(fast, pixels, [0], choice),
        "captum float32": lambda: by_captum(weighted, pixels, exact),
        "captum": lambda: by_captum(weighted, pixels, choice),
        "convolutions": lambda: convolutions_back(signals, choice),
    })  # fmt: skip
    theirs = [args.classes * found[name] / found["all"] for name in ("captum float32", "captum")]
    units = [found["one"] / found["forward"], found["one"] / found["forward"] - 1]
    least = found["forward"] + args.classes * found["convolutions"]
    most = [args.classes * found[name] / least for name in ("captum float32", "captum")]
    wanted = by_captum(weighted, pixels, exact).numpy()
    apart = abs(ours(fast, pixels, [0], choice)[:, 0] - wanted) / wanted.max()
    differ = [f"{value:.1e}" for value in np.quantile(apart, (0.5, 0.999))]
    limits = [f"{value:.2f}" for value in (found["convolutions"] / found["forward"], *most)]
    shown = [f"{value:.2f}" for value in (found["all"] / found["forward"], *theirs, *units)]
    return [preset, precision, *shown], [preset, precision, *differ, *limits]


def forward(fast: MilNetwork, pixels: Tensor, choice: DeviceChoice) -> Tensor:
    """Run the network as inference does."""
    with torch.inference_mode(), choice.autocast():
        return fast.class_maps(pixels)


def ours(fast: MilNetwork, pixels: Tensor, classes: Sequence[int], choice: DeviceChoice) -> np.ndarray:
    """Make the maps of some classes, and the scores."""
    run = forward_trace(fast, pixels, choice)
    return jacobian_maps(run, classes, "guided", choice, fast.read_maps(run.logits).probabilities)


def forward_trace(fast: MilNetwork, pixels: Tensor, choice: DeviceChoice) -> Trace:
    """Run the network and keep what the way back needs."""
    with torch.inference_mode(), choice.autocast():
        return trace(fast, pixels)


def signals_of(run: Trace, choice: DeviceChoice) -> list[tuple[Passed, Tensor]]:
    """Return each convolution of a run, and a signal of ones for its way back."""
    found = []
    for passed in run.passed:
        if isinstance(layer := passed.layer, nn.Conv2d):
            size = [side - kernel + 1 for side, kernel in zip(passed.shape[2:], layer.kernel_size, strict=True)]
            signal = torch.ones(1, layer.out_channels, *size, dtype=choice.precision)
            found.append((passed, signal.to(memory_format=torch.channels_last)))
    return found


def convolutions_back(signals: Sequence[tuple[Passed, Tensor]], choice: DeviceChoice) -> None:
    """Go back through each convolution alone."""
    with torch.inference_mode(), choice.autocast():
        for passed, signal in signals:
            back_through(passed, signal)


def by_captum(weighted: Weighted, pixels: Tensor, choice: DeviceChoice) -> Tensor:
    """Make the map of one class by captum."""
    with choice.autocast():
        return GuidedBackprop(weighted).attribute(pixels, target=0).relu().sum(1)


def cpu_seconds(rounds: int, variants: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Let variants take turns, and return the median CPU time of each; the first round does not count."""
    taken: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(rounds + 1):
        for name, run in variants.items():
            began = time.process_time()
            run()
            taken[name].append(time.process_time() - began)
    return {name: statistics.median(values[1:]) for name, values in taken.items()}


if __name__ == "__main__":
    main()
