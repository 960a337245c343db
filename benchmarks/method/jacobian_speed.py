"""How long Jacobian maps take beside captum: python -m benchmarks.method.jacobian_speed [--record] [--classes 17].

On one thread, guided maps of a 2-channel image are made for one class and for all: by captum in float32 and in bf16,
whose every class is a forward and a backward run of autograd, and by ours in each precision. All of ours go back from
one forward run, which is that of the classification, too. The unit of one class is the forward run of a classification
without Jacobian; the last column is what one class adds to it. Variants take turns, one class at a time for captum, and
CPU time is counted.
"""

from __future__ import annotations

import argparse
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
from napari_milcnn.network.way_back import trace
from napari_milcnn.options import preset_options


class Weighted(nn.Module):
    """For each class the sum of z_ij over the map, weighted by P_i p_ij taken as a constant, as captum wants it."""

    def __init__(self, network: MilNetwork) -> None:
        super().__init__()
        self.network = network

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
    rows = [row(preset, precision, args) for preset in ("compact", "paper") for precision in ("float32", "bfloat16")]
    many = f"{args.classes} classes"
    heads = ["preset", "precision", f"{many} / forward", f"captum float32, {many} / ours",
             f"captum in this precision, {many} / ours", "scores and 1 class / forward",
             "1 class added / forward"]  # fmt: skip
    head = f"2 x {args.shape[0]} x {args.shape[1]} px, one thread, CPU time\n"
    record.report("Jacobian maps, speed", [head, *record.table(heads, rows)], keep=args.record)


def row(preset: str, precision: str, args: argparse.Namespace) -> list[str]:
    """Time one preset in one precision, all variants in turn."""
    network = MilNetwork(preset_options(preset, 2, args.classes)).eval().requires_grad_(False)
    choice, fast = choose_device("cpu", precision), inference_copy(network)
    pixels = torch.from_numpy(np.random.default_rng(0).standard_normal((1, 2, *args.shape), np.float32))
    exact = choose_device("cpu", "float32")
    found = cpu_seconds(args.rounds, {
        "forward": lambda: forward(fast, pixels, choice),
        "all": lambda: ours(fast, pixels, range(args.classes), choice),
        "one": lambda: ours(fast, pixels, [0], choice),
        "captum float32": lambda: by_captum(network, pixels, exact),
        "captum": lambda: by_captum(network, pixels, choice),
    })  # fmt: skip
    theirs = [args.classes * found[name] / found["all"] for name in ("captum float32", "captum")]
    units = [found["one"] / found["forward"], found["one"] / found["forward"] - 1]
    return [preset, precision, *(f"{value:.2f}" for value in (found["all"] / found["forward"], *theirs, *units))]


def forward(fast: MilNetwork, pixels: Tensor, choice: DeviceChoice) -> Tensor:
    """Run the network as inference does."""
    with torch.inference_mode(), choice.autocast():
        return fast.class_maps(pixels)


def ours(fast: MilNetwork, pixels: Tensor, classes: Sequence[int], choice: DeviceChoice) -> np.ndarray:
    """Make the maps of some classes, and the scores."""
    with torch.inference_mode(), choice.autocast():
        run = trace(fast, pixels)
    return jacobian_maps(run, classes, "guided", choice, fast.read_maps(run.logits).probabilities)


def by_captum(network: MilNetwork, pixels: Tensor, choice: DeviceChoice) -> Tensor:
    """Make the map of one class by captum."""
    with choice.autocast():
        return GuidedBackprop(Weighted(network)).attribute(pixels, target=0).relu().sum(1)


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
