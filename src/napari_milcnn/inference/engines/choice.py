"""Which engine runs a network: torch, OpenVINO, or the faster of the two on this computer.

Why torch is the default and `auto` is a choice: torch is always there, on every device, and gives the numbers of the
training. OpenVINO is faster on most processors of Intel, and on others it may be slower; what it rounds differs from
torch in the last digits, and an object at a threshold may be counted or not. Whoever wants the speed asks for it, and
all images of one folder then come from one engine.

Why `auto` measures once and remembers: two runs on one computer must not take different engines because it was busy
meanwhile. The timing is remembered for each processor, number of threads, precision, version and architecture of the
network, in the cache folder of the user; it is taken at one size of image, because a run takes one engine for all.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from threading import Lock

import torch

from napari_milcnn.atomic_write import replacing, sha256
from napari_milcnn.errors import OptionsError, OutputError
from napari_milcnn.inference.devices import DeviceChoice
from napari_milcnn.inference.engines.openvino_encoder import openvino_encoder
from napari_milcnn.model.openvino_import import openvino_version
from napari_milcnn.network.inference_copy import inference_copy
from napari_milcnn.network.mil_network import MilNetwork
from napari_milcnn.options import Engine, RunningEngine
from napari_milcnn.untrusted import parse_json, read_regular

TIMED_SIDE = 512
"""Side, in px, of the image on which engines are timed."""
_TIMED_ROUNDS = 5
_FASTER = 0.95
"""OpenVINO is taken if it needs less than this share of torch's time: what is equally fast stays with torch."""
_LARGEST_FILE = 1 << 20
_DECIDED: dict[str, dict[str, float]] = {}
"""What this process went by, so that it goes on by it where nothing can be remembered."""
_DECIDING = Lock()


def choose_engine(engine: Engine, network: MilNetwork, choice: DeviceChoice) -> RunningEngine:
    """Return the engine that runs a network.

    Parameters
    ----------
    engine : str
        torch, openvino, or auto: OpenVINO where the device is the CPU and it is installed, runs here, and is faster.
    network : MilNetwork
        The network.
    choice : DeviceChoice
        Device and precision.
    """
    if engine != "auto":
        return engine
    if choice.device.type != "cpu" or openvino_version() is None:
        return "torch"
    key = _timing_key(network, choice)
    with _DECIDING:
        known = _DECIDED.get(key) or remembered_timings().get(key)
        if known is None:
            try:
                known = timings(network, choice)
            except (OptionsError, ImportError, OSError, RuntimeError) as error:
                logging.getLogger(__name__).warning("OpenVINO does not run here, so torch is used: %s", error)
                return "torch"
            _remember(key, known)
        _DECIDED[key] = known
    return "openvino" if known["openvino"] < _FASTER * known["torch"] else "torch"


def timings(network: MilNetwork, choice: DeviceChoice) -> dict[str, float]:
    """Time both engines on an image of TIMED_SIDE, in turn: name of an engine -> shortest time, in s."""
    images = torch.zeros(1, network.options.channels, TIMED_SIDE, TIMED_SIDE)
    copied = inference_copy(network)
    encode = openvino_encoder(copied, choice.precision)

    def by_torch() -> None:
        with torch.inference_mode(), choice.autocast():
            copied.features(images)

    def by_openvino() -> None:
        with encode(images):
            pass

    runs: dict[str, Callable[[], None]] = {"torch": by_torch, "openvino": by_openvino}
    found: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(_TIMED_ROUNDS + 1):
        for name, run in runs.items():
            began = time.perf_counter()
            run()
            found[name].append(time.perf_counter() - began)
    return {name: min(seconds[1:]) for name, seconds in found.items()}  # the first call prepares


def remembered_timings() -> dict[str, dict[str, float]]:
    """Return the timings of this user on this computer; empty where none can be read."""
    try:
        found = parse_json(read_regular(_timings_file(), _LARGEST_FILE))
        found = dict(found)  # type: ignore[call-overload]
        return {str(key): {name: float(one[name]) for name in ("torch", "openvino")} for key, one in found.items()}
    except (OSError, ValueError, TypeError, KeyError):
        return {}  # it is a cache: what is damaged is measured again


def _remember(key: str, known: dict[str, float]) -> None:
    with suppress(OutputError), replacing(_timings_file()) as draft:  # without it, the next run measures again
        draft.write_text(json.dumps({**remembered_timings(), key: known}, indent=1), encoding="utf-8")


def _timing_key(network: MilNetwork, choice: DeviceChoice) -> str:
    """Name what a timing depends on."""
    versions = f"torch {torch.__version__}, openvino {openvino_version()}"
    architecture = sha256(network.options.model_dump_json().encode())[:12]
    precision = str(choice.precision).removeprefix("torch.")
    return f"{_processor()}, {torch.get_num_threads()} threads, {precision}, {versions}, network {architecture}"


@cache
def _processor() -> str:
    """Return the name of this computer and of its processor."""
    name = platform.processor() or platform.machine()
    with suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        name = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return f"{platform.node()}, {name}, {torch.backends.cpu.get_cpu_capability()}"


def _timings_file() -> Path:
    """Return where timings are remembered: the folder for caches of the user, as the system has it."""
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "napari-milcnn" / "engines.json"
