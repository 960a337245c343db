"""The processes of one training: one by default, several under `accelerate launch`.

Each process takes its share of every batch, and gradients are averaged over all processes (DistributedDataParallel).
The result is what one process would learn from the whole batch, up to rounding, with one exception: batch norm. On
GPUs its statistics are taken over the shares of all processes (torch's SyncBatchNorm, which exists for GPUs only). On
CPUs every process normalises by the statistics of its own share, so there a network with batch norm learns as if from
smaller batches.

The process group is opened once and closed when the program ends. It cannot be closed after each training, because a
program may train several models one after another: a group that is opened a second time under the same launcher may
find the addresses of the first one. It must not be left open either. A thread of gloo that frees the tensors of the
last operation needs the interpreter's lock; if the interpreter is ending by then, the process aborts ("terminate called
without an active exception"). Closing the group waits for these threads, provided that nothing else holds the group.
"""

from __future__ import annotations

import atexit
import gc
from collections.abc import Sequence
from typing import TypeVar

import torch
import torch.distributed as dist
import torch.distributed.nn  # imported now, since its functions hold a group that is open on import
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import nn

Dealt = TypeVar("Dealt")


class Processes:
    """The processes that share a training, and which of them this one is.

    Attributes
    ----------
    rank, count : int
        Number of this process, from 0, and number of processes.
    device : torch.device or None
        Device that the launcher gave to this process; None where there is only one process.
    """

    def __init__(self) -> None:
        already_open = dist.is_available() and dist.is_initialized()
        self._accelerator = Accelerator(device_placement=False)
        self.rank: int = self._accelerator.process_index
        self.count: int = self._accelerator.num_processes
        if self.count > 1 and not already_open:
            atexit.register(_close_process_group)
        own = self._accelerator.device
        self.device = (torch.device("cpu") if own.type == "cpu" else own) if self.count > 1 else None

    def share(self, items: Sequence[Dealt]) -> Sequence[Dealt]:
        """Return the items that this process works on: every n-th of n processes."""
        return items[self.rank :: self.count]

    def distribute(self, network: nn.Module) -> nn.Module:
        """Wrap a network so that it learns from the gradients of all processes; a single process gets it unchanged."""
        if self.count == 1:
            return network
        if self.device is not None and self.device.type != "cpu":
            network = nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
        wrapped: nn.Module = self._accelerator.prepare(network)
        return wrapped

    def abandon(self) -> None:
        """Leave the group open after a failure: closing it would wait for processes that wait for this one."""
        atexit.unregister(_close_process_group)

    def align_buffers(self, network: nn.Module) -> None:
        """Give every process the running statistics of the first: on CPUs each has measured its own shares."""
        if self.count > 1:
            for buffer in network.buffers():
                dist.broadcast(buffer, 0)

    def sum(self, numbers: list[float]) -> list[float]:
        """Add up numbers over all processes."""
        if self.count == 1:
            return numbers
        total = torch.tensor(numbers, device=self.device)
        dist.all_reduce(total)
        return total.tolist()

    def gather(self, items: list[Dealt]) -> list[Dealt]:
        """Gather what all processes made of the items that `share` gave them, in the order of the items."""
        if self.count == 1:
            return items
        parts = gather_object([items])
        longest = max(map(len, parts))
        return [part[i] for i in range(longest) for part in parts if i < len(part)]


def _close_process_group() -> None:
    gc.collect()  # networks wrapped for a training hold the group
    if dist.is_initialized():
        dist.destroy_process_group()
