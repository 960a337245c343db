"""What a GPU makes of the whole job, in one run of two to three minutes: python -m benchmarks.speed.gpu [--record].

It needs no network and no data but the package's own samples. Each block is printed as soon as it is measured, so a
run that is cut short still says something; a block that fails says why, and the next one follows. Variants take turns,
and the median of each is given. `--device cpu --quick` tries the script where there is no GPU.

The roofline: the peak is that of a large bf16 matrix product, measured here. FLOPs are those of the convolutions and
linear layers, counted; what a layer moves is not counted, so thin first layers cannot come near the peak.
"""

from __future__ import annotations

import argparse
import cProfile
import io
import pstats
import statistics
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

import napari_milcnn as mil
from benchmarks import record
from napari_milcnn.images.stack import PlaneIndex
from napari_milcnn.images.write import write_ome_tiff
from napari_milcnn.inference.devices import DeviceChoice, choose_device, keep_freed_memory, name_of
from napari_milcnn.inference.evidence import EvidenceMaker
from napari_milcnn.inference.jacobian import jacobian_maps
from napari_milcnn.inference.predict import Classifier
from napari_milcnn.network.inference_copy import inference_copy
from napari_milcnn.network.mil_network import MilNetwork
from napari_milcnn.network.way_back import trace
from napari_milcnn.options import TrainOptions, preset_options
from napari_milcnn.training.learner import Learner
from napari_milcnn.training.patch_dataset import Batch

CLASSES = 17
PRESETS = ("compact", "paper")


@dataclass(frozen=True)
class Bench:
    """What all blocks share: the device, its peak in FLOP/s, how large images are, and how long a block may take."""

    device: torch.device
    peak: float
    shape: tuple[int, int]
    batch: int
    images: int
    seconds: float

    def timed(self, variants: dict[str, Callable[[], object]]) -> dict[str, float]:
        """Let variants take turns for a while and return the median seconds of each; the first two do not count."""
        taken: dict[str, list[float]] = {name: [] for name in variants}
        began = time.perf_counter()
        while len(taken[next(iter(taken))]) < 5 or time.perf_counter() - began < self.seconds:
            for name, run in variants.items():
                started = time.perf_counter()
                run()
                self.wait()
                taken[name].append(time.perf_counter() - started)
        return {name: statistics.median(values[2:]) for name, values in taken.items()}

    def wait(self) -> None:
        """Wait until the device has done all it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def main() -> None:
    """Run every block; a block that fails does not stop the next."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto", help="device, as everywhere else")
    parser.add_argument("--quick", action="store_true", help="small images and few rounds")
    parser.add_argument("--minutes", type=float, default=2.5, help="about how long the run may take")
    parser.add_argument("--only", nargs="*", choices=[*BLOCKS], default=[*BLOCKS], help="blocks to run")
    parser.add_argument("--record", action="store_true", help="keep in RESULTS.md")
    args = parser.parse_args()
    keep_freed_memory()
    device = choose_device(args.device).device
    peak = matmul_peak(device, 1024 if args.quick else 8192)
    size = (
        {"shape": (300, 400), "batch": 2, "images": 3}
        if args.quick
        else {"shape": (1000, 1200), "batch": 8, "images": 32}
    )
    bench = Bench(device, peak, seconds=0.0 if args.quick else args.minutes * 60 / 40, **size)
    lines = [f"{name_of(device)}; bf16 matrix product {peak / 1e12:.1f} TFLOP/s; images 2 x {size['shape']} px uint16"]
    say(lines[0])
    began = time.perf_counter()
    for name in args.only:
        block = [f"\n### {name}\n"]
        try:
            for line in BLOCKS[name](bench):
                block.append(line)
                say(line)
        except Exception:  # noqa: BLE001 - the other blocks still say something
            block.append("failed: " + traceback.format_exc(limit=-3))
            say(block[-1])
        lines += block
        say(f"[{name}: {time.perf_counter() - began:.0f} s since the start]\n")
    title = "GPU" if device.type == "cuda" else "The script for GPUs, tried on a CPU"
    record.report(title, lines, keep=args.record)


def say(text: str) -> None:
    """Print at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def matmul_peak(device: torch.device, side: int) -> float:
    """Measure FLOP/s of a bf16 matrix product of random numbers."""
    a, b = (torch.randn(side, side, device=device).bfloat16() for _ in range(2))
    found = Bench(device, 1, (0, 0), 0, 0, 0.5).timed({"": lambda: a @ b})[""]
    return 2 * side**3 / found


def network_of(preset: str) -> MilNetwork:
    """Build a network of two channels."""
    return MilNetwork(preset_options(preset, 2, CLASSES)).eval()


def flops_of(network: MilNetwork, shape: tuple[int, ...]) -> int:
    """Count the FLOPs of one image (channels, Y, X)."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        layers = torch.nn.Sequential(network.encoder, network.maps).to("meta")
        layers(torch.empty(1, *shape, device="meta"))
    return int(counter.get_total_flops())


def pixels_of(bench: Bench, planes: int, seed: int = 0) -> np.ndarray:
    """Draw normalised images, float32 (planes, 2, Y, X)."""
    return np.random.default_rng(seed).standard_normal((planes, 2, *bench.shape), np.float32)


def samples(bench: Bench, count: int) -> list[np.ndarray]:
    """Lay the shipped samples side by side until they fill images (2, Y, X), each rolled by another step."""
    paths = sorted(mil.sample_folder().glob("yeast-[emn]*.ome.tif"))
    found = []
    for number in range(count):
        with mil.open_image(paths[number % len(paths)]) as image:
            raw = image.plane(0, (0, 1))
        tiles = [-(-wanted // size) for wanted, size in zip(bench.shape, raw.shape[1:], strict=True)]
        laid = np.tile(raw, (1, *tiles))[:, : bench.shape[0], : bench.shape[1]]
        found.append(np.ascontiguousarray(np.roll(laid, 17 * number, 2)))
    return found


def correctness(bench: Bench) -> Iterator[str]:
    """Compare the device with the CPU in float32: P, class maps, Jacobian; tolerance of float32 1e-4, of bf16 .03."""
    yield from record.table(["model", "precision", "P", "scores", "class maps", "Jacobian / largest", "within"], [])
    yeast, image = mil.load_model("yeast-sim"), samples(bench, 1)[0]
    for model in (yeast, mil.new_model([str(i) for i in range(CLASSES)], yeast.channels, "paper")):
        opened = mil.open_image(image, axes="CYX", channels=yeast.channels)
        found = {}
        for name, device, precision in (("cpu", "cpu", "float32"), ("float32", bench.device, "float32"),
                                        ("auto", bench.device, "auto")):  # fmt: skip
            classifier = Classifier(model, device=str(device), precision=precision)
            pixels = classifier.model_input(opened).read(0)[None]
            prediction, run = classifier.classify(opened), classifier.inference.trace(pixels)
            pooled = torch.from_numpy(prediction.probabilities)
            found[name] = (prediction, jacobian_maps(run, [0, 1], "guided", classifier.inference.choice, pooled))
        exact, exact_maps = found.pop("cpu")
        for name, (one, maps) in found.items():
            differences = [float(abs(getattr(one, part) - getattr(exact, part)).max())
                           for part in ("probabilities", "scores", "class_maps")]  # fmt: skip
            differences.append(float(abs(maps - exact_maps).max() / abs(exact_maps).max()))
            allowed = 1e-4 if name == "float32" else 0.03
            row = [f"{value:.1e}" for value in differences]
            yield from record.table(["x"], [[model.card.name, name, *row, max(differences[:3]) < allowed]])[2:]


def inference(bench: Bench) -> Iterator[str]:
    """Time the network alone: naive, bf16, ours from memory to memory, CUDA graph, compiled, TensorRT."""
    yield from record.table(["preset", "variant", "ms an image", "times naive", "share of peak"], [])
    for preset in PRESETS:
        network = network_of(preset)
        flops = flops_of(network_of(preset), (2, *bench.shape))
        medians = bench.timed(inference_variants(bench, network))
        for name, seconds in medians.items():
            each = seconds / bench.batch
            yield from record.table(["x"], [[preset, name, each * 1e3, f"{medians['naive float32'] / seconds:.2f}",
                                             flops / each / bench.peak]])[2:]  # fmt: skip


def inference_variants(bench: Bench, network: MilNetwork) -> dict[str, Callable[[], object]]:
    """Build what takes turns on one batch."""
    raw = pixels_of(bench, bench.batch)
    on_device = torch.from_numpy(raw).to(bench.device)
    last, plain, fast = (on_device.to(memory_format=torch.channels_last), network.to(bench.device),
                         inference_copy(network).to(bench.device))  # fmt: skip

    def with_bfloat16(images: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode(), torch.autocast(bench.device.type, torch.bfloat16):
            return fast.class_maps(images)

    def naive() -> torch.Tensor:
        with torch.no_grad():
            return plain.class_maps(on_device)

    variants: dict[str, Callable[[], object]] = {
        "naive float32": naive,
        "bf16, channels last": lambda: with_bfloat16(last),
    }
    ours = Classifier(model_of(network), device=str(bench.device), batch_size=bench.batch).inference
    variants["ours, memory to memory"] = lambda: ours.maps_and_moments(raw)
    if bench.device.type == "cuda":
        variants["CUDA graph"] = captured(lambda: with_bfloat16(last))
        builders = {"torch.compile": compiled, "TensorRT": tensorrt} if not network.options.first_pool else {}
        for name, build in builders.items():  # once: compiling takes long
            try:
                variants[name] = build(fast, last)
            except Exception as error:  # noqa: BLE001 - what is not there is said
                say(f"{name}: {type(error).__name__}: {str(error)[:120]}")
    return variants


def model_of(network: MilNetwork) -> mil.TrainedModel:
    """Make a model of a network."""
    preset = "paper" if network.options.first_pool else "compact"
    model = mil.new_model([str(i) for i in range(CLASSES)], ["a", "b"], preset)
    model.network.load_state_dict(network.state_dict())
    return model


def captured(run: Callable[[], object]) -> Callable[[], object]:
    """Capture a run in a CUDA graph."""
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for _ in range(3):
            run()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        run()
    return graph.replay


def compiled(network: MilNetwork, images: torch.Tensor) -> Callable[[], object]:
    """Compile a network for images of one shape."""
    began = time.perf_counter()
    quick = torch.compile(network.class_maps, mode="reduce-overhead")

    def run() -> object:
        with torch.inference_mode(), torch.autocast(images.device.type, torch.bfloat16):
            return quick(images)

    run()
    run()
    torch.cuda.synchronize()
    say(f"torch.compile took {time.perf_counter() - began:.0f} s")
    return run


def tensorrt(network: MilNetwork, images: torch.Tensor) -> Callable[[], object]:
    """Compile a network with TensorRT, where it is installed."""
    import torch_tensorrt

    layers = torch.nn.Sequential(network.encoder, network.maps).half()
    quick = torch_tensorrt.compile(layers, inputs=[images.half()], enabled_precisions={torch.half})
    return lambda: quick(images.half())


def end_to_end(bench: Bench) -> Iterator[str]:
    """Count images a second: from arrays in memory, and from TIFFs to all files, with and without masks."""
    model, images = mil.load_model("yeast-sim"), samples(bench, bench.images)
    classifier = Classifier(model, device=str(bench.device))
    opened = [mil.open_image(raw, axes="CYX", channels=model.channels) for raw in images]
    classifier.classify(opened[0])
    yield f"- from memory, image by image: {rate(len(images), lambda: [classifier.classify(x) for x in opened])}"
    many = mil.open_image(np.stack(images)[:, None], axes="TZCYX", channels=model.channels)
    yield f"- as one stack of {len(images)} planes: {rate(len(images), lambda: classifier.classify(many))}"
    with tempfile.TemporaryDirectory() as folder:
        files = on_disk(Path(folder), images, model.channels)
        for masks in (False, True):
            out = Path(folder) / f"out{masks}"
            yield (f"- from TIFFs to all files {'with' if masks else 'without'} masks: "
                   f"{rate(len(images), lambda o=out, m=masks: run_files(bench, files, o, m))}")  # fmt: skip


def on_disk(folder: Path, images: list[np.ndarray], channels: tuple[str, ...]) -> list[Path]:
    """Write images as OME-TIFFs."""
    files = [folder / f"field{number:03d}.ome.tif" for number in range(len(images))]
    for file, raw in zip(files, images, strict=True):
        write_ome_tiff(file, [PlaneIndex(0, 0, 0)], raw[np.newaxis], channels, None, {})
    return files


def run_files(bench: Bench, files: list[Path], out: Path, masks: bool) -> None:
    """Do what the command `classify` does."""
    model = mil.load_model("yeast-sim")
    failed = [step.result.error for step in mil.classify_files(model, files, out, masks=masks, device=str(bench.device))
              if step.result is not None and step.result.error]  # fmt: skip
    if failed:
        raise RuntimeError(failed[0])


def rate(count: int, run: Callable[[], object]) -> str:
    """Time one run over a number of images."""
    began = time.perf_counter()
    run()
    seconds = time.perf_counter() - began
    return f"{count / seconds:.1f} images/s ({seconds / count * 1e3:.1f} ms an image)"


def jacobian(bench: Bench) -> Iterator[str]:
    """Time Jacobian maps of one and of 17 classes in units of one forward run."""
    yield from record.table(
        ["preset", "forward, ms", "1 class / forward", "17 classes / forward", "captum, 17 / ours"], []
    )
    for preset in PRESETS:
        network, choice = network_of(preset).to(bench.device), choose_device(str(bench.device))
        pixels = torch.from_numpy(pixels_of(bench, 1))
        fast = inference_copy(network)

        def forward(fast: MilNetwork = fast, pixels: torch.Tensor = pixels, choice: DeviceChoice = choice) -> object:
            with torch.inference_mode(), choice.autocast():
                return fast.class_maps(pixels.to(bench.device)).cpu()

        def ours(classes: int, given: tuple = (fast, pixels, choice)) -> object:
            fast, pixels, choice = given
            with torch.inference_mode(), choice.autocast():
                run = trace(fast, pixels.to(bench.device))
                pooled = fast.read_maps(run.logits).probabilities
            return jacobian_maps(run, range(classes), "guided", choice, pooled)

        variants = {"forward": forward, "1": lambda f=ours: f(1), "17": lambda f=ours: f(CLASSES)}
        found = bench.timed(variants)
        theirs = captum_seconds(bench, network, pixels)
        yield from record.table(["x"], [[preset, found["forward"] * 1e3, found["1"] / found["forward"],
                                         found["17"] / found["forward"],
                                         "not installed" if theirs is None else theirs / found["17"]]])[2:]  # fmt: skip


def captum_seconds(bench: Bench, network: MilNetwork, pixels: torch.Tensor) -> float | None:
    """Seconds that captum takes for all classes; None where it is not installed."""
    try:
        from captum.attr import GuidedBackprop
    except ImportError:
        return None
    pixels = pixels.to(bench.device)
    guided = GuidedBackprop(Pooled(network))
    warnings.simplefilter("ignore", UserWarning)  # it says what it does to the network
    return bench.timed({"": lambda: [guided.attribute(pixels, target=i) for i in range(CLASSES)]})[""]


class Pooled(torch.nn.Module):
    """The pooled probabilities of a network alone, as captum wants them."""

    def __init__(self, network: MilNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images (batch, channels, Y, X) -> P (batch, classes)."""
        return self.network(images).probabilities


def training(bench: Bench) -> Iterator[str]:
    """Time the step of learning on a fixed batch, and epochs of a training with the time that it waits for patches."""
    yield from record.table(["preset", "batch", "float32, ms", "auto, ms", "times", "share of peak"], [])
    side = 320 if bench.seconds else 192
    for preset in PRESETS:
        for size in (8, 64) if bench.seconds else (2,):
            rng = np.random.default_rng(0)
            targets = np.eye(CLASSES, dtype=np.float32)[np.arange(size) % CLASSES]
            batch = Batch(rng.standard_normal((size, 2, side, side), np.float32), targets, None, size)
            found = bench.timed({name: step_of(bench, preset, name, batch) for name in ("float32", "auto")})
            flops = 3 * size * flops_of(network_of(preset), (2, side, side))
            row = [preset, size, *(found[name] * 1e3 for name in ("float32", "auto"))]
            share = flops / found["auto"] / bench.peak
            yield from record.table(["x"], [[*row, found["float32"] / found["auto"], share]])[2:]
    table = mil.read_labels(mil.sample_folder() / "training" / "labels.csv")
    model = mil.new_model(table.classes, mil.load_model("yeast-sim").channels)
    few = {"epoch_steps": 2, "patch": 96, "batch_size": 4} if bench.seconds == 0 else {}
    for report in mil.train(model, table, epochs=2, device=str(bench.device), **few):
        yield f"- epoch {report.epoch}: {report.seconds:.2f} s, {100 * report.waiting:.1f} % of it waiting for patches"


def step_of(bench: Bench, preset: str, precision: str, batch: Batch) -> Callable[[], object]:
    """Build the step of learning on a fixed batch."""
    learner = Learner(network_of(preset), TrainOptions(), choose_device(str(bench.device), precision), 1000, True)
    return lambda: learner.step(batch, 1)


def out_of_memory(bench: Bench) -> Iterator[str]:
    """Take nearly all memory away: the answer stays, and what was done is said."""
    model = mil.load_model("yeast-sim")
    large = Bench(bench.device, 1, tuple(3 * side for side in bench.shape), 0, 0, 0)
    stack = np.stack(samples(large, 2))[:, None]
    exact = mil.classify(model, stack_of(model, stack), device=str(bench.device))
    maps = mil.evidence(model, stack_of(model, stack[:1]), kind="jacobian", device=str(bench.device)).maps
    if bench.device.type != "cuda":
        yield "- no GPU, no drill"
        return
    total = torch.cuda.get_device_properties(bench.device).total_memory
    for room in (2**30, 2**28, 2**24):
        torch.cuda.empty_cache()
        torch.cuda.set_per_process_memory_fraction(min(1.0, room / total), bench.device)
        try:
            found = mil.classify(model, stack_of(model, stack), device=str(bench.device))
            said = [note for note in found.notes if "memory" in note]
            yield f"- {room / 2**20:.0f} MiB: scores differ by {abs(found.scores - exact.scores).max():.1e}; {said}"
            maker = EvidenceMaker(model, kind="jacobian", device=str(bench.device))
            image = stack_of(model, stack[:1])
            (made,) = maker.planes(image, maker.classifier.classify(image))
            difference = abs(made.maps - maps[0]).max() / abs(maps).max()
            yield f"  Jacobian maps differ by {difference:.1e} of the largest; {maker.classifier.inference.warnings}"
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0, bench.device)


def stack_of(model: mil.TrainedModel, raw: np.ndarray) -> mil.ImageStack:
    """Open an array (T, Z, channels, Y, X)."""
    return mil.open_image(raw, axes="TZCYX", channels=model.channels)


def profiled(bench: Bench) -> Iterator[str]:
    """Say in which kernels the device spends its time, and in which functions the host does, from files to files."""
    model, images = mil.load_model("yeast-sim"), samples(bench, min(8, bench.images))
    classifier = Classifier(model, device=str(bench.device))
    opened = [mil.open_image(raw, axes="CYX", channels=model.channels) for raw in images]
    classifier.classify(opened[0])
    kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if bench.device.type == "cuda" else [])]
    with profile(activities=kinds) as seen:
        for image in opened:
            classifier.classify(image)
        bench.wait()
    by = "self_cuda_time_total" if bench.device.type == "cuda" else "self_cpu_time_total"
    yield "```\n" + seen.key_averages().table(sort_by=by, row_limit=18, max_name_column_width=60) + "\n```"
    with tempfile.TemporaryDirectory() as folder:
        files, watched = on_disk(Path(folder), images, model.channels), cProfile.Profile()
        watched.runcall(run_files, bench, files, Path(folder) / "out", True)
    text = io.StringIO()
    pstats.Stats(watched, stream=text).sort_stats("tottime").print_stats(18)
    yield "```\n" + "\n".join(line[:140] for line in text.getvalue().splitlines()[4:]) + "\n```"


BLOCKS: dict[str, Callable[[Bench], Iterator[str]]] = {
    "correctness": correctness, "inference": inference, "end to end": end_to_end, "jacobian": jacobian,
    "training": training, "out of memory": out_of_memory, "profile": profiled,
}  # fmt: skip


if __name__ == "__main__":
    main()
