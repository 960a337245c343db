"""How much faster an image is classified than by the naive loop: python -m benchmarks.speed.inference [--record].

The naive loop is the same network in eager float32, channels first, batch norm and ReLU as they stand. Variants run
interleaved, image by image, on the same 2-channel 1000 x 1200 px image; the median of each is given as a ratio.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch

import napari_milcnn as mil
from benchmarks.record import report
from napari_milcnn.inference.devices import keep_freed_memory
from napari_milcnn.inference.model_input import model_input
from napari_milcnn.inference.predict import Classifier

ROUNDS = 9


def main() -> None:
    """Time both presets and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", action="store_true", help="append to RESULTS.md")
    args = parser.parse_args()
    keep_freed_memory()
    lines = ["| preset | naive | ours, float32 | ours, auto |", "|---|---|---|---|"]
    report("Speed", lines + [row(preset) for preset in ("compact", "paper")], keep=args.record)


def row(preset: str) -> str:
    """Time one preset, each variant in turn."""
    model = mil.new_model([f"class {i}" for i in range(8)], ["a", "b"], preset)
    image = mil.open_image(np.random.default_rng(0).normal(size=(2, 1000, 1200)).astype(np.float32), axes="CYX",
                           channels=["a", "b"])  # fmt: skip
    variants = {"naive": naive(model, image)}
    for precision in ("float32", "auto"):
        classifier = Classifier(model, precision=precision)
        variants[precision] = lambda classifier=classifier: classifier.classify(image)
    seconds = {name: [] for name in variants}
    for _ in range(ROUNDS):
        for name, run in variants.items():
            began = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - began)
    medians = {name: statistics.median(values[1:]) for name, values in seconds.items()}
    ratios = [f"{medians['naive'] / medians[name]:.2f} x as fast" for name in ("float32", "auto")]
    return f"| {preset} | 1 | " + " | ".join(ratios) + " |"


def naive(model: mil.TrainedModel, image: mil.ImageStack) -> Callable[[], object]:
    """Build the loop that a first script would hold."""

    def run() -> object:
        with torch.no_grad():
            return model.network(torch.from_numpy(model_input(model, image).read(0))[None])

    return run


if __name__ == "__main__":
    main()
