"""Device and precision are chosen with a reason in words, with and without a GPU."""

from __future__ import annotations

import ctypes
import platform
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from napari_milcnn.errors import OptionsError
from napari_milcnn.inference import devices
from napari_milcnn.inference.devices import (
    choose_device,
    cpu_threads,
    free_memory,
    is_out_of_memory,
    keep_freed_memory,
    limit_memory,
    name_of,
)

CPU = torch.device("cpu")


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide every accelerator."""
    monkeypatch.setattr(devices, "_is_available", lambda name: False)


@pytest.fixture
def two_cuda_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretend that there are two CUDA GPUs, and nothing else."""
    monkeypatch.setattr(devices, "_is_available", lambda name: name == "cuda")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"Test GPU {device.index or 0}")


def test_the_cpu_is_taken_where_there_is_no_gpu(no_gpu: None) -> None:
    """The reason says that no GPU was found."""
    choice = choose_device("auto", "float32")
    assert (choice.device, choice.precision) == (CPU, torch.float32)
    assert str(choice) == "cpu, float32 (no GPU found)"


def test_the_cpu_can_be_requested(two_cuda_gpus: None) -> None:
    """Also on a machine with a GPU."""
    assert str(choose_device("cpu", "float32")) == "cpu, float32 (as requested)"


def test_the_gpu_is_taken_where_there_is_one(two_cuda_gpus: None) -> None:
    """The first GPU is the default; a second one is chosen by its number."""
    assert str(choose_device("auto", "bfloat16")) == "cuda, bfloat16 (Test GPU 0)"
    assert str(choose_device("cuda:1", "float32")) == "cuda:1, float32 (as requested)"
    assert name_of(torch.device("cuda", 1)) == "Test GPU 1"


@pytest.mark.parametrize("device", ["cuda", "cuda:0", "mps", "xpu", "meta", "cuda:99999999999", "gpu", ""])
def test_a_device_that_is_not_there_is_refused(no_gpu: None, device: str) -> None:
    """The message has the devices that were found, whether or not torch knows the name."""
    with pytest.raises(OptionsError, match=rf"has no device '{device}'; it has cpu; choose one of these, or 'auto'"):
        choose_device(device)


def test_a_third_of_two_gpus_is_refused(two_cuda_gpus: None) -> None:
    """Numbers start at 0."""
    with pytest.raises(OptionsError, match="has no device 'cuda:2'; it has cpu, cuda;"):
        choose_device("cuda:2")


@pytest.fixture
def instructions(monkeypatch: pytest.MonkeyPatch) -> dict[str, bool]:
    """Pretend that the processor has these instructions."""
    found: dict[str, bool] = {}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found, raising=False)
    devices._has_bfloat16.cache_clear()
    yield found
    devices._has_bfloat16.cache_clear()


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ({"avx512_bf16": True, "amx_bf16": False}, torch.bfloat16),
        ({"amx_bf16": True}, torch.bfloat16),
        ({"avx2": True, "avx512_bf16": False}, torch.float32),
        ({}, torch.float32),
    ],
)
def test_the_instructions_of_the_processor_decide_the_precision(
    instructions: dict[str, bool], found: dict[str, bool], expected: torch.dtype
) -> None:
    """However busy the computer is, unless a precision is requested."""
    instructions.update(found)
    assert choose_device("cpu", "auto").precision == expected
    assert choose_device("cpu", "bfloat16").precision == torch.bfloat16
    assert choose_device("cpu", "float32").precision == torch.float32


def test_a_torch_that_cannot_tell_computes_in_float32(
    instructions: dict[str, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Releases before 2.10 do not name the instructions of the processor."""
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert choose_device("cpu", "auto").precision == torch.float32


def test_a_gpu_of_apple_runs_in_float32() -> None:
    """Whatever its processor has."""
    assert devices._has_bfloat16("mps") is False


@pytest.mark.parametrize(("precision", "dtype"), [("float32", torch.float32), ("bfloat16", torch.bfloat16)])
def test_the_encoder_runs_in_the_precision_chosen(precision: str, dtype: torch.dtype) -> None:
    """Inside the autocast of the choice a convolution gives that type, even inside another autocast."""
    layer, image = torch.nn.Conv2d(1, 1, 3), torch.ones(1, 1, 5, 5)
    choice = choose_device("cpu", precision)
    with choice.autocast():
        assert layer(image).dtype == dtype
    with torch.autocast("cpu", torch.bfloat16), choice.autocast():
        assert layer(image).dtype == dtype
    assert layer(image).dtype == torch.float32


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), True),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes. Error code 12"),
            True,
        ),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes."), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 5.00 GB)"), True),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied (2x3 and 2x3)"), False),
    ],
)
def test_out_of_memory_is_distinguished_from_other_failures(error: RuntimeError, expected: bool) -> None:
    """In the words of torch on Linux, Windows, CUDA and Apple."""
    assert is_out_of_memory(error) is expected


def test_out_of_memory_is_recognised_as_this_torch_says_it() -> None:
    """A pebibyte is more than any machine has."""
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 50)
    assert is_out_of_memory(caught.value)


def test_free_memory_is_what_the_system_and_the_gpu_say(monkeypatch: pytest.MonkeyPatch) -> None:
    """In bytes."""
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=12345))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (678, 999))
    assert free_memory(CPU) == 12345
    assert free_memory(torch.device("mps")) == 12345
    assert free_memory(torch.device("cuda")) == 678


def test_a_worker_may_use_no_more_memory_than_its_share(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices.psutil, "virtual_memory", lambda: SimpleNamespace(available=10**12))
    try:
        limit_memory(devices.psutil.Process().memory_info().rss + 10**9)
        assert 0 < free_memory(CPU) < 2 * 10**9
        limit_memory(1)
        assert free_memory(CPU) == 0
    finally:
        limit_memory(None)
    assert free_memory(CPU) == 10**12


def test_every_device_has_a_name_in_words() -> None:
    """Never empty, though Python knows no name for many processors."""
    assert name_of(CPU)
    assert name_of(torch.device("mps")) == "Apple GPU"
    assert name_of(torch.device("xpu")) == "Intel GPU"


@pytest.mark.parametrize("answer", [1, 0])
def test_glibc_is_told_to_keep_freed_memory(monkeypatch: pytest.MonkeyPatch, answer: int) -> None:
    """There are four settings with the numbers of glibc's malloc.h; the result says whether all were accepted."""
    settings: dict[int, int] = {}

    def mallopt(name: int, value: int) -> int:
        settings[name] = value
        return answer

    monkeypatch.setattr(platform, "libc_ver", lambda: ("glibc", "2.36"))
    monkeypatch.setattr(ctypes, "CDLL", lambda name: SimpleNamespace(mallopt=mallopt))
    assert keep_freed_memory() is bool(answer)
    assert answer == 0 or sorted(settings) == [-8, -3, -2, -1]
    assert all(0 < value < 1 << 31 for value in settings.values())


_FAULTS = """
import resource, threading
from napari_milcnn.inference.devices import keep_freed_memory

keep_freed_memory()
found = []
def layers():
    for _ in range(10):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        kept = [bytearray(megabytes << 20) for megabytes in (80, 40, 20)]
        del kept
        found.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
thread = threading.Thread(target=layers)
thread.start()
thread.join()
print(sorted(found[3:])[3])
"""


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told to keep memory")
def test_memory_is_kept_in_every_thread() -> None:
    """Of 140 MB that a thread uses again, few pages are new: the network runs in a thread of its own.

    The memory is not aligned, as a tensor's is: glibc before 2.38 finds a freed place for aligned memory by luck.
    """
    run = subprocess.run([sys.executable, "-c", _FAULTS], check=True, capture_output=True, text=True)
    assert int(run.stdout) < 140 * 256 / 4


@pytest.mark.parametrize("libc", ["", "musl"])
def test_without_glibc_memory_is_left_alone(monkeypatch: pytest.MonkeyPatch, libc: str) -> None:
    """On macOS, Windows and Alpine nothing is loaded."""
    monkeypatch.setattr(platform, "libc_ver", lambda: (libc, ""))
    monkeypatch.setattr(ctypes, "CDLL", lambda name: pytest.fail("no library must be loaded"))
    assert keep_freed_memory() is False


def test_threads_are_lent_and_given_back():
    usual = torch.get_num_threads()
    with cpu_threads(1):
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == usual
    with cpu_threads(None):
        assert torch.get_num_threads() == usual


@pytest.mark.filterwarnings("ignore:.*CUDA is not available")
def test_float32_on_a_gpu_is_not_shortened() -> None:
    """Convolutions of an NVIDIA GPU would otherwise be rounded to TF32; outside the block it may again."""
    before = torch.backends.cudnn.allow_tf32
    with devices.DeviceChoice(torch.device("cuda"), torch.float32, "").autocast():
        assert not torch.backends.cudnn.allow_tf32
        assert torch.backends.cudnn.enabled
    assert torch.backends.cudnn.allow_tf32 == before


def test_float32_stays_exact_until_the_last_of_two_threads_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """The setting is that of the whole process: the first that ends must not put it back under the other."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    first, second = devices._without_tf32(), devices._without_tf32()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert not torch.backends.cudnn.allow_tf32
    second.__exit__(None, None, None)
    assert torch.backends.cudnn.allow_tf32


@pytest.mark.parametrize("has", [True, False])
def test_openvino_in_bfloat16_is_said_to_be_float32_where_the_processor_has_none(has, monkeypatch):
    monkeypatch.setattr(devices, "_has_bfloat16", lambda _: has)
    taken = devices.choose_device("cpu", "bfloat16").with_engine("openvino")
    assert str(taken) == (
        "cpu, bfloat16, openvino (as requested)" if has
        else "cpu, float32, openvino (as requested, but this processor has no bfloat16)"
    )  # fmt: skip
