"""The tables of speed in one run, interleaved: python -m benchmarks.speed.inference [--quick] [--record].

First a matrix product in float32 and bfloat16, for what bfloat16 itself brings on this processor. Then the network
alone, for both presets: the naive loop (eager float32, channels first, batch norm and ReLU as they stand), ours with
torch and with OpenVINO, OpenVINO alone, ONNX Runtime alone, torch.compile. Then end to end, preset compact:
`mil.classify`, all files without and with masks, the same by the command line. Variants run in turn, image by image, on
the same 2-channel 1000 x 1200 px image with the same number of threads. The ratios are medians over turns, so that a
busy computer does not decide; milliseconds are medians, too, and mean something on a quiet one only.

--quick takes fewer turns and leaves out torch.compile, which needs a compiler. --plot FILE.png draws the ratios. What
is not installed, or fails, is a line with the reason.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import matplotlib as mpl
import numpy as np
import tifffile
import torch

import napari_milcnn as mil
from benchmarks.record import report, table
from napari_milcnn.inference.devices import choose_device, cpu_threads, keep_freed_memory
from napari_milcnn.inference.model_input import model_input
from napari_milcnn.inference.predict import Classifier
from napari_milcnn.model.openvino_import import import_openvino, openvino_version
from napari_milcnn.results.folder import classify_files

SHAPE = (2, 1000, 1200)
CHANNELS = ["a", "b"]
IMAGES = 24
"""Enough that the start and the last image, whose files nothing overlaps with, weigh little."""
Variants = dict[str, Callable[[], object]]
Seconds = dict[str, list[float]]


def main() -> None:
    """Time all of it, print the tables and, where asked for, keep and draw them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer turns, without torch.compile")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="threads of every variant")
    parser.add_argument("--plot", type=Path, help="draw the ratios to this .png")
    parser.add_argument("--record", action="store_true", help="keep in RESULTS.md")
    args = parser.parse_args()
    keep_freed_memory()
    turns = 4 if args.quick else 15
    tables: dict[str, Seconds] = {}
    failed: list[str] = []
    with cpu_threads(args.threads), tempfile.TemporaryDirectory() as name:
        tables["matrix product of 2048 x 2048, what bfloat16 brings"] = in_turn(products(), turns)
        for preset in ("compact", "paper"):
            variants = network_variants(preset, args.threads, args.quick, Path(name), failed)
            tables[f"network, {preset}"] = in_turn(variants, turns)
        tables["end to end, compact"] = in_turn(end_to_end(Path(name), args.threads), max(2, turns // 3))
    lines = [f"{args.threads} threads for every variant.", "", *ceilings(tables), ""]
    for title, seconds in tables.items():
        lines += [f"{title}:", "", *ratios(seconds), ""]
    report("Speed", [*lines, *dict.fromkeys(failed)], keep=args.record)
    if args.plot is not None:
        draw(tables, args.plot)


def in_turn(variants: Variants, turns: int) -> Seconds:
    """Run variants in turn, once to warm up: name -> seconds of each turn."""
    seconds: Seconds = {name: [] for name in variants}
    for turn in range(turns + 1):
        for name, run in variants.items():
            began = time.perf_counter()
            run()
            if turn:
                seconds[name].append(time.perf_counter() - began)
    return seconds


def times_first(seconds: Seconds) -> dict[str, float]:
    """Name -> how many times as fast as the first variant: the median over turns."""
    first = next(iter(seconds.values()))
    return {name: statistics.median(a / b for a, b in zip(first, own, strict=True)) for name, own in seconds.items()}


def ceilings(tables: dict[str, Seconds]) -> list[str]:
    """Say how fast bfloat16 can make the network at most: as much faster than our float32 as a matrix product is."""
    first, *networks = tables.items()
    gain = times_first(first[1])["bfloat16"]
    has_amx = Path("/proc/cpuinfo").exists() and "amx_bf16" in Path("/proc/cpuinfo").read_text(encoding="utf-8")
    found = [
        f"{title.removeprefix('network, ')} {gain * speed['ours, torch float32']:.1f}"
        for title, seconds in networks
        if "ours, torch float32" in (speed := times_first(seconds))
    ]
    return [
        f"This processor has {'' if has_amx else 'no '}AMX. bfloat16 makes a matrix product {gain:.1f} times as fast "
        f"as float32, and so the network at most so many times as fast as the naive loop: "
        f"{', '.join(found)}. 7 (compact) and 6 (paper) were aimed at, for processors with AMX."
    ]


def ratios(seconds: Seconds) -> list[str]:
    """Lines of a table: each variant's median time, and its speed against the first."""
    speed = times_first(seconds)
    rows = [[name, f"{statistics.median(own) * 1e3:.0f}", f"{speed[name]:.2f}", f"{1 / speed[name]:.2f}"]
            for name, own in seconds.items()]  # fmt: skip
    return table(["variant", "ms", "times as fast as the first", "times as long as the first"], rows)


def products() -> Variants:
    """Matrix products, of which the network is made, in both precisions."""
    exact = torch.randn(2048, 2048)
    rounded = exact.bfloat16()
    return {"float32": lambda: exact @ exact, "bfloat16": lambda: rounded @ rounded}


def network_variants(preset: str, threads: int, quick: bool, folder: Path, failed: list[str]) -> Variants:
    """Everything that computes the class maps of one image that is in memory; what fails adds its reason."""
    model = mil.new_model([f"class {i}" for i in range(8)], CHANNELS, preset)
    image = mil.open_image(np.random.default_rng(0).normal(size=SHAPE).astype(np.float32), axes="CYX",
                           channels=CHANNELS)  # fmt: skip
    pixels = model_input(model, image).read(0)[None]
    variants: Variants = {"naive, eager float32": lambda: naive(model, pixels)}
    for engine in ("torch", "openvino"):
        for precision in ("float32", "auto"):
            with noted(f"ours, {engine}", failed):
                inference = Classifier(model, engine=engine, precision=precision, device="cpu").inference
                inference.class_maps(pixels)
                shown = str(inference.choice.precision).removeprefix("torch.")
                variants[f"ours, {engine} {shown}"] = lambda one=inference: one.class_maps(pixels)
    with noted("OpenVINO alone", failed):
        variants[f"OpenVINO {openvino_version()} alone"] = openvino_alone(
            model, pixels, folder / f"{preset}.xml", threads
        )
    with noted("ONNX Runtime alone", failed):
        variants["ONNX Runtime float32 alone"] = onnx_alone(model, pixels, folder / f"{preset}.onnx", threads)
    if not quick:
        with noted("torch.compile", failed):
            variants["torch.compile, bfloat16 where ours is"] = compiled(model, pixels)
    return variants


@contextlib.contextmanager
def noted(name: str, failed: list[str]) -> Iterator[None]:
    """Go on without a variant that fails, and note why: others may be missing here."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except Exception as error:  # noqa: BLE001 - compilers and runtimes fail in their own ways
        failed.append(f"{name}: left out, {type(error).__name__}: {(str(error).splitlines() or [''])[0][:150]}")


def naive(model: mil.TrainedModel, pixels: np.ndarray) -> object:
    """Run the loop that a first script would hold."""
    with torch.no_grad():
        return model.network(torch.from_numpy(pixels))


def openvino_alone(model: mil.TrainedModel, pixels: np.ndarray, path: Path, threads: int) -> Callable[[], object]:
    """Compile the exported model for OpenVINO, in the precision that ours takes, for this shape only."""
    openvino = import_openvino()
    read = openvino.Core().read_model(mil.export_model(model, path, format="openvino"))
    read.reshape(list(pixels.shape))
    precision = "bf16" if choose_device("cpu").precision == torch.bfloat16 else "f32"
    run = openvino.compile_model(read, "CPU", {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY",
                                               "INFERENCE_NUM_THREADS": threads})  # fmt: skip
    return lambda: run(pixels, share_inputs=True, share_outputs=True)


def onnx_alone(model: mil.TrainedModel, pixels: np.ndarray, path: Path, threads: int) -> Callable[[], object]:
    """Load the exported model into ONNX Runtime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    written = str(mil.export_model(model, path, format="onnx"))
    session = onnxruntime.InferenceSession(written, options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {"image": pixels})


def compiled(model: mil.TrainedModel, pixels: np.ndarray) -> Callable[[], object]:
    """Compile the network by torch.compile, frozen, in the precision that ours takes."""
    import torch._inductor.config as inductor

    inductor.freezing = True
    network, choice = torch.compile(model.network), choose_device("cpu")

    def run() -> object:
        with torch.no_grad(), choice.autocast():
            return network(torch.from_numpy(pixels).to(memory_format=torch.channels_last))

    run()
    return run


def end_to_end(folder: Path, threads: int) -> Variants:
    """From a TIFF on disk to all files on disk, with a model that finds cells in a simulated field."""
    model = mil.load_model("yeast-sim")
    model.save(folder / "model.zip")
    one = np.tile(tifffile.imread(next(iter(sorted(mil.sample_folder().glob("*.ome.tif"))))), (1, 3, 3))
    names = list(model.channels)
    files = [folder / f"image{number}.ome.tif" for number in range(IMAGES)]
    for number, file in enumerate(files):
        pixels = np.ascontiguousarray(np.roll(one, 40 * number, 2)[:, : SHAPE[1], : SHAPE[2]])
        tifffile.imwrite(file, pixels, ome=True, metadata={"axes": "CYX", "Channel": {"Name": names}})
    classifier = Classifier(model)

    def by_command() -> None:
        subprocess.run([sys.executable, "-m", "napari_milcnn", "classify", *map(str, files), "--model", str(folder /
                        "model.zip"), "--out", tempfile.mkdtemp(dir=folder)], check=True, capture_output=True,
                       env={**os.environ, "OMP_NUM_THREADS": str(threads)})  # fmt: skip

    def by_python(masks: bool) -> None:
        for _ in classify_files(model, files, Path(tempfile.mkdtemp(dir=folder)), masks=masks):
            pass

    return {
        f"mil.classify, {IMAGES} images": lambda: [classifier.classify(file) for file in files],
        "all files of them, without masks": lambda: by_python(False),
        "all files of them, with masks": lambda: by_python(True),
        "the same by the command line, start included": by_command,
    }


def draw(tables: dict[str, Seconds], path: Path) -> None:
    """Draw how many times as fast as the first of its table each variant is."""
    mpl.use("agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(len(tables), 1, figsize=(7, 2.2 * len(tables)), layout="constrained")
    for axis, (title, seconds) in zip(np.atleast_1d(axes), tables.items(), strict=True):
        speed = times_first(seconds)
        bars = axis.barh(list(speed), list(speed.values()), color="#3b6ea5")
        axis.bar_label(bars, fmt="%.2f", padding=3)
        axis.set(title=title, xlabel="times as fast as the first")
        axis.invert_yaxis()
        axis.margins(x=0.12)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
