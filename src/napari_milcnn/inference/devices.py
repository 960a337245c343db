"""Which device computes, in which precision, with how much memory; each choice with its reason in words.

Why bfloat16 is chosen by a timing: whether it pays depends on the processor and on the torch build, and on some it is
slower than float32. The convolutions alone run in it (`torch.autocast`); pooling and everything after stay float32.
"""

from __future__ import annotations

import ctypes
import platform
import statistics
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cache

import psutil
import torch
from torch import nn

from napari_milcnn.errors import OptionsError
from napari_milcnn.options import ACCELERATORS

_OUT_OF_MEMORY = ("can't allocate memory", "not enough memory", "out of memory")
"""What torch says on Linux, on Windows, and on a GPU that raises a plain RuntimeError."""


@dataclass(frozen=True)
class DeviceChoice:
    """A device, the precision of its convolutions, and why."""

    device: torch.device
    precision: torch.dtype
    reason: str

    def autocast(self) -> AbstractContextManager[None]:
        """Return the context in which the encoder runs."""
        return torch.autocast(self.device.type, self.precision, enabled=self.precision != torch.float32)

    def __str__(self) -> str:
        return f"{self.device}, {str(self.precision).removeprefix('torch.')} ({self.reason})"


def choose_device(device: str = "auto", precision: str = "auto") -> DeviceChoice:
    """Choose a device and a precision.

    Parameters
    ----------
    device : str
        auto (the first accelerator that is there, else the CPU), cpu, cuda, cuda:1, mps or xpu.
    precision : str
        float32, bfloat16, or auto: bfloat16 where it is faster.

    Raises
    ------
    OptionsError
        If the device asked for is not there.
    """
    found = [name for name in ACCELERATORS if _is_there(name)]
    if device == "auto":
        chosen = torch.device(found[0] if found else "cpu")
        reason = f"{name_of(chosen)}" if found else "no GPU found"
    else:
        chosen = _asked(device, found)
        reason = "as asked"
    return DeviceChoice(chosen, _dtype(chosen, precision), reason)


def _asked(device: str, found: list[str]) -> torch.device:
    try:
        asked = torch.device(device)
    except RuntimeError:
        asked = None
    if asked is None or (asked.type != "cpu" and not (asked.type in found and _has(asked))):
        raise OptionsError(f"device {device!r} is not there; found: {', '.join(['cpu', *found])}; leave it to 'auto'")
    return asked


def name_of(device: torch.device) -> str:
    """Name of a device in words."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return {"mps": "Apple GPU", "xpu": "Intel GPU"}.get(device.type, platform.processor() or "CPU")


@contextmanager
def cpu_threads(count: int | None) -> Iterator[None]:
    """Compute with so many threads of the CPU inside; None leaves it as it is."""
    usual = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(usual)


def free_memory(device: torch.device) -> int:
    """Bytes free on a device."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether a RuntimeError of torch says that memory ran out."""
    said = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError) or any(words in said for words in _OUT_OF_MEMORY)


def keep_freed_memory() -> bool:
    """Ask glibc to keep freed memory rather than give it back after every layer: 1.5 times faster on a CPU.

    For processes of our own (command line, workers), not for a host program. Returns whether it was done.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL("libc.so.6")
    trim_threshold, top_pad, mmap_threshold = -1, -2, -3
    settings = ((mmap_threshold, 1 << 30), (trim_threshold, (1 << 31) - 1), (top_pad, 1 << 28))
    return all(libc.mallopt(name, value) == 1 for name, value in settings)


def _is_there(name: str) -> bool:
    backend = torch.backends.mps if name == "mps" else getattr(torch, name)
    return bool(backend.is_available())


def _has(device: torch.device) -> bool:
    count = getattr(torch, device.type).device_count()
    return (device.index or 0) < int(count)


def _dtype(device: torch.device, precision: str) -> torch.dtype:
    if precision == "auto":
        return torch.bfloat16 if _bfloat16_pays(device.type) else torch.float32
    return torch.bfloat16 if precision == "bfloat16" else torch.float32


@cache
def _bfloat16_pays(device_type: str) -> bool:
    """Time a middle layer of our networks both ways, interleaved, once a process."""
    if device_type == "mps":
        return False
    if device_type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    layer = nn.Conv2d(32, 64, 3).to(device_type).eval()
    image = torch.rand(1, 32, 192, 192, device=device_type).to(memory_format=torch.channels_last)
    seconds: dict[bool, list[float]] = {False: [], True: []}
    with torch.inference_mode():
        for _ in range(6):
            for enabled in seconds:
                start = time.perf_counter()
                with torch.autocast(device_type, torch.bfloat16, enabled=enabled):
                    float(layer(image).sum())
                seconds[enabled].append(time.perf_counter() - start)
    return bool(statistics.median(seconds[True]) < 0.9 * statistics.median(seconds[False]))
