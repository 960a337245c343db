"""Choose the device and the precision of a computation, with the reason in words, and measure free memory.

Why the processor's own instructions decide whether bfloat16 is used: without them it is slower than float32, with them
faster. A timing would not do: it depends on what else the computer does, and two sessions on one computer, one in each
precision, count different numbers of objects in an image. Only the convolutions run in bfloat16 (`torch.autocast`);
pooling and all later steps use float32.
"""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import cache
from threading import Lock

import psutil
import torch

from napari_milcnn.errors import OptionsError
from napari_milcnn.options import ACCELERATORS, RunningEngine

_OUT_OF_MEMORY = ("can't allocate memory", "not enough memory", "out of memory", "bad_alloc", "bad allocation")
"""Words in torch's messages on Linux, on Windows, and on a GPU that raises a plain RuntimeError; then OpenVINO's."""

_CPU_BFLOAT16 = ("avx512_bf16", "amx_bf16")
"""Instructions of processors for bfloat16, as torch names them; oneDNN computes convolutions with them."""


@dataclass(frozen=True)
class DeviceChoice:
    """A device and the precision of its convolutions.

    Attributes
    ----------
    device : torch.device
        The device.
    precision : torch.dtype
        float32 or bfloat16.
    reason : str
        Why this device was chosen.
    engine : str
        torch, or openvino.
    """

    device: torch.device
    precision: torch.dtype
    reason: str
    engine: RunningEngine = "torch"

    def with_engine(self, engine: RunningEngine) -> DeviceChoice:
        """Return the same device with another engine: OpenVINO takes float32 where the processor has no bfloat16."""
        if engine == "openvino" and self.precision == torch.bfloat16 and not _has_bfloat16("cpu"):
            reason = f"{self.reason}, but this processor has no bfloat16"
            return replace(self, engine=engine, precision=torch.float32, reason=reason)
        return replace(self, engine=engine)

    @contextmanager
    def autocast(self) -> Iterator[None]:
        """Run the encoder in this precision inside the block; float32 on a GPU is float32, not the shorter TF32."""
        enabled = self.precision != torch.float32
        exact = _without_tf32() if self.device.type == "cuda" else nullcontext()
        with exact, torch.autocast(self.device.type, self.precision, enabled=enabled):
            yield

    def __str__(self) -> str:
        engine = "" if self.engine == "torch" else f", {self.engine}"
        return f"{self.device}, {str(self.precision).removeprefix('torch.')}{engine} ({self.reason})"


_TF32_LOCK = Lock()
_TF32: dict[str, int] = {"blocks": 0, "before": 0}
"""Blocks of all threads that are open now, and what the setting, which all of them share, was before the first."""


@contextmanager
def _without_tf32() -> Iterator[None]:
    """Keep convolutions of an NVIDIA GPU in float32 until the last of the blocks that are open at a time has ended."""
    cudnn = torch.backends.cudnn
    with _TF32_LOCK:
        if _TF32["blocks"] == 0:
            _TF32["before"] = cudnn.allow_tf32
            cudnn.allow_tf32 = False
        _TF32["blocks"] += 1
    try:
        yield
    finally:
        with _TF32_LOCK:
            _TF32["blocks"] -= 1
            if _TF32["blocks"] == 0:
                cudnn.allow_tf32 = bool(_TF32["before"])


def choose_device(device: str = "auto", precision: str = "auto") -> DeviceChoice:
    """Choose a device and a precision.

    Parameters
    ----------
    device : str
        auto (the first accelerator of this computer, otherwise the CPU), cpu, cuda, cuda:1, mps or xpu.
    precision : str
        float32, bfloat16, or auto, which takes bfloat16 where the processor has instructions for it. The same computer
        and the same torch always give the same.

    Raises
    ------
    OptionsError
        If this computer does not have the device.
    """
    found = [name for name in ACCELERATORS if _is_available(name)]
    if device == "auto":
        chosen = torch.device(found[0] if found else "cpu")
        reason = name_of(chosen) if found else "no GPU found"
    else:
        chosen = _requested_device(device, found)
        reason = "as requested"
    return DeviceChoice(chosen, _dtype(chosen, precision), reason)


def _requested_device(name: str, found: list[str]) -> torch.device:
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or (device.type != "cpu" and not (device.type in found and _has_index(device))):
        raise OptionsError(
            f"this computer has no device {name!r}; it has {', '.join(['cpu', *found])}; choose one of these, or 'auto'"
        )
    return device


def name_of(device: torch.device) -> str:
    """Return the name of a device in words."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return {"mps": "Apple GPU", "xpu": "Intel GPU"}.get(device.type, platform.processor() or "CPU")


@contextmanager
def cpu_threads(count: int | None) -> Iterator[None]:
    """Compute with this number of CPU threads inside the block; None leaves the number unchanged."""
    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def free_memory(device: torch.device) -> int:
    """Return the free memory of a device, in bytes; on the CPU not more than this process may use (`limit_memory`)."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    available = int(psutil.virtual_memory().available)
    limit = _MEMORY_LIMIT[0]
    return available if limit is None else max(0, min(available, limit - int(psutil.Process().memory_info().rss)))


_MEMORY_LIMIT: list[int | None] = [None]


def limit_memory(limit: int | None) -> None:
    """Let this process, one of several on this computer, use this many bytes of memory; None for all that is free."""
    _MEMORY_LIMIT[0] = limit


def is_out_of_memory(error: RuntimeError) -> bool:
    """Return whether torch or OpenVINO raised a RuntimeError because memory ran out."""
    message = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError) or any(words in message for words in _OUT_OF_MEMORY)


def keep_freed_memory() -> bool:
    """Tell glibc to keep freed memory instead of returning it after every layer: 1.5 times faster on a CPU.

    Call it in processes of our own (command line, workers), never inside a host program such as napari, and before
    threads begin: all threads then share one arena, because the arenas of other threads hold no layer of an image and
    would give its memory back. Returns whether glibc accepted the settings.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL("libc.so.6")
    trim_threshold, top_pad, mmap_threshold, most_arenas = -1, -2, -3, -8
    settings = ((mmap_threshold, 1 << 30), (trim_threshold, (1 << 31) - 1), (top_pad, 1 << 28), (most_arenas, 1))
    return all(libc.mallopt(name, value) == 1 for name, value in settings)


def _is_available(name: str) -> bool:
    backend = torch.backends.mps if name == "mps" else getattr(torch, name)
    return bool(backend.is_available())


def _has_index(device: torch.device) -> bool:
    count = getattr(torch, device.type).device_count()
    return (device.index or 0) < int(count)


def _dtype(device: torch.device, precision: str) -> torch.dtype:
    if precision == "auto":
        return torch.bfloat16 if _has_bfloat16(device.type) else torch.float32
    return torch.bfloat16 if precision == "bfloat16" else torch.float32


@cache
def _has_bfloat16(device_type: str) -> bool:
    """Tell whether a kind of device has instructions for bfloat16; no where torch is too old to know."""
    if device_type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device_type == "xpu":
        return hasattr(torch.xpu, "is_bf16_supported") and bool(torch.xpu.is_bf16_supported(including_emulation=False))
    if device_type == "cpu" and hasattr(torch.cpu, "get_capabilities"):
        found = torch.cpu.get_capabilities()
        return any(bool(found.get(name)) for name in _CPU_BFLOAT16)
    return False
