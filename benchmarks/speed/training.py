"""How much faster a training step is than the naive loop's: python -m benchmarks.speed.training [--record].

The naive loop is what a first script holds: the same network and batch in float32, channels first, ReLU straight
behind each convolution, memory handled as the system does it. Ours is the step of `train`. Each runs in a process of
its own and the two take turns, step by step; the ratio of the medians is given. Batch: 8 patches of 320 px, 8 classes.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import torch
from torch import nn

from benchmarks import record
from napari_milcnn.inference.devices import keep_freed_memory
from napari_milcnn.network.mil_network import MilNetwork
from napari_milcnn.options import preset_options
from napari_milcnn.training.losses import image_losses

ROUNDS = 42
PRESETS = ("compact", "paper")


def main() -> None:
    """Time both presets, or be one of the two processes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", action="store_true", help="keep in RESULTS.md")
    parser.add_argument("--be", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.be:
        serve(*args.be)
        return
    rows = []
    for preset in PRESETS:
        seconds = interleaved(preset)
        rows.append([preset, 1, f"{statistics.median(seconds['naive']) / statistics.median(seconds['ours']):.2f}"])
    record.report("Training step, times as fast as the naive loop", record.table(["preset", "naive", "ours"], rows),
                  keep=args.record)  # fmt: skip


def interleaved(preset: str) -> dict[str, list[float]]:
    """Seconds of each step of both processes, which take turns; the first two of each do not count."""
    call = [sys.executable, "-m", __spec__.name, "--be"]
    running = {name: subprocess.Popen([*call, name, preset], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
               for name in ("naive", "ours")}  # fmt: skip
    seconds: dict[str, list[float]] = {name: [] for name in running}
    for _ in range(ROUNDS):
        for name, process in running.items():
            process.stdin.write("step\n")
            process.stdin.flush()
            seconds[name].append(float(process.stdout.readline()))
    for process in running.values():
        process.communicate()
    return {name: values[2:] for name, values in seconds.items()}


def serve(name: str, preset: str) -> None:
    """Do a step for every line that comes in and print its seconds."""
    step = (ours if name == "ours" else naive)(preset)
    for _ in sys.stdin:
        began = time.perf_counter()
        step()
        sys.stdout.write(f"{time.perf_counter() - began}\n")
        sys.stdout.flush()


def ours(preset: str) -> Callable[[], None]:
    """Build the step that `train` takes."""
    keep_freed_memory()
    return step_of(MilNetwork(preset_options(preset, 1, 8)), torch.channels_last)


def naive(preset: str) -> Callable[[], None]:
    """Build the same step with each ReLU behind its convolution, channels first."""
    network = Naive(preset_options(preset, 1, 8))
    layers = list(network.encoder)
    for i in range(1, len(layers)):
        if isinstance(layers[i], nn.ReLU) and isinstance(layers[i - 1], nn.MaxPool2d):
            layers[i - 1], layers[i] = layers[i], layers[i - 1]
    network.encoder = nn.Sequential(*layers)
    return step_of(network, torch.contiguous_format)


class Naive(MilNetwork):
    """The network whose layers run one after another, in whatever layout the images come."""

    def class_maps(self, images: torch.Tensor) -> torch.Tensor:
        """Images (batch, channels, Y, X) -> class-map logits (batch, classes, Y, X)."""
        return self.maps(self.encoder(images))


def step_of(network: MilNetwork, memory_format: torch.memory_format) -> Callable[[], None]:
    """Build one step of Adam on a fixed batch."""
    network = network.to(memory_format=memory_format).train()
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-4)
    images = torch.randn(8, 1, 320, 320, generator=torch.Generator().manual_seed(0)).to(memory_format=memory_format)

    def step() -> None:
        pooled, last = image_losses(network(images), torch.eye(8), single_label=True)
        optimiser.zero_grad()
        (pooled + last).mean().backward()
        optimiser.step()

    return step


if __name__ == "__main__":
    main()
