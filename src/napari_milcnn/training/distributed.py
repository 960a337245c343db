"""The processes of one training run: one by default, several under `accelerate launch`.

Each process takes its share of every batch. What is computed is what one process computes with the whole batch, up to
rounding: gradients are averaged (DistributedDataParallel), and batch norm takes its statistics over the shares of all.
"""

from __future__ import annotations

from typing import Any, TypeVar

import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor, nn

Row = TypeVar("Row")


class Processes:
    """The processes of a run, and which of them is ours.

    Attributes
    ----------
    rank, count : int
        Which one this is, from 0, and of how many.
    """

    def __init__(self) -> None:
        self._accelerator = Accelerator(device_placement=False)
        self.rank: int = self._accelerator.process_index
        self.count: int = self._accelerator.num_processes
        own = self._accelerator.device
        self.device = (torch.device("cpu") if own.type == "cpu" else own) if self.count > 1 else None

    def share(self, rows: Any) -> Any:
        """Take this process's share of the rows of a sequence or an array."""
        return rows[self.rank :: self.count]

    def joined(self, network: nn.Module) -> nn.Module:
        """Make a network learn from the gradients and batch statistics of all processes; itself where there is one."""
        if self.count == 1:
            return network
        for parent in list(network.modules()):
            for name, layer in parent.named_children():
                if isinstance(layer, nn.BatchNorm2d):
                    setattr(parent, name, _JointBatchNorm.of(layer))
        joined: nn.Module = self._accelerator.prepare(network)
        return joined

    def sum(self, numbers: list[float]) -> list[float]:
        """Add up numbers over all processes."""
        if self.count == 1:
            return numbers
        total = torch.tensor(numbers, device=self.device)
        dist.all_reduce(total)
        return total.tolist()

    def gather(self, rows: list[Row]) -> list[Row]:
        """Gather the rows that `share` dealt out, from all processes, in the order they had."""
        if self.count == 1:
            return rows
        dealt = gather_object([rows])
        longest = max(map(len, dealt))
        return [part[i] for i in range(longest) for part in dealt if i < len(part)]


class _SumOverProcesses(torch.autograd.Function):
    """Sum of a tensor over all processes; its gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone()
        dist.all_reduce(total)
        return total


class _JointBatchNorm(nn.BatchNorm2d):
    """Batch norm over the batches of all processes; torch's own SyncBatchNorm knows GPUs only."""

    @classmethod
    def of(cls, layer: nn.BatchNorm2d) -> _JointBatchNorm:
        """Make one that shares parameters and statistics with a layer."""
        joint = cls(layer.num_features, layer.eps, layer.momentum)
        joint._parameters, joint._buffers = layer._parameters, layer._buffers
        return joint.train(layer.training)

    def forward(self, images: Tensor) -> Tensor:
        if not self.training:
            return super().forward(images)
        values = images.float()
        mine = torch.tensor(float(values.numel() // values.shape[1]), device=values.device)
        dist.all_reduce(mine)
        mean = _total(values.sum((0, 2, 3)) / mine)
        centred = values - mean[:, None, None]
        variance = _total((centred**2).sum((0, 2, 3)) / mine)
        with torch.no_grad():
            self.num_batches_tracked.add_(1)  # type: ignore[union-attr]
            self.running_mean.lerp_(mean, self.momentum)  # type: ignore[union-attr, arg-type]
            self.running_var.lerp_(variance * mine / (mine - 1), self.momentum)  # type: ignore[union-attr, arg-type]
        scale = self.weight / torch.sqrt(variance + self.eps)
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(images.dtype)


def _total(values: Tensor) -> Tensor:
    return _SumOverProcesses.apply(values)  # type: ignore[no-any-return, no-untyped-call]
