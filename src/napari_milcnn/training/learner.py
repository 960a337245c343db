"""A network that learns batch by batch: the step of the optimiser, its learning rates, and its state on disk.

Noisy-AND's thresholds and the last layer learn at ten times the rate of the rest (`head_rate`). They are a handful of
numbers that every image's gradient passes through; at one rate for all they hold the encoder back for many epochs.

What is validated and kept is not the network after its last step but an exponential average over its last steps, of
parameters and of batch norm's running statistics (`average`). The network itself jumps from step to step at a high
learning rate, and its running statistics are those of the last ten small batches.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from napari_milcnn.errors import ComputeError, OptionsError
from napari_milcnn.inference.devices import DeviceChoice, is_out_of_memory
from napari_milcnn.network.dropout import seed_dropout
from napari_milcnn.network.mil_network import MilNetwork
from napari_milcnn.options import TrainOptions
from napari_milcnn.training.distributed import Processes
from napari_milcnn.training.losses import image_losses
from napari_milcnn.training.patch_dataset import Batch


class LearnerState(NamedTuple):
    """State dicts of a network and of what trains it."""

    network: dict[str, Tensor]
    averaged: dict[str, Tensor]
    optimiser: dict[str, object]
    schedule: dict[str, object]


class Learner:
    """A network, its optimiser and its learning-rate schedule.

    Parameters
    ----------
    network : MilNetwork
        Where learning starts; it is copied.
    options : TrainOptions
        Learning rates, schedule and number of epochs.
    choice : DeviceChoice
        Device and precision.
    steps : int
        Batches of one epoch.
    single_label : bool
        Whether each image shows exactly one class.
    """

    def __init__(
        self, network: MilNetwork, options: TrainOptions, choice: DeviceChoice, steps: int, single_label: bool
    ) -> None:
        self.network = copy.deepcopy(network).to(choice.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.network.encoder.requires_grad_(options.encoder_rate > 0)
        self._choice = choice
        self._single_label = single_label
        self._frozen_encoder = options.encoder_rate == 0
        self._optimiser = _make_optimiser(self.network, options)
        self._schedule = _make_schedule(self._optimiser, options, steps * options.epochs)
        self._module: nn.Module = self.network
        self._average = AveragedModel(self.network, multi_avg_fn=_moving_average(options.average), use_buffers=True)

    @property
    def averaged(self) -> MilNetwork:
        """The average of the network over its last steps; as it was at the start until the first step."""
        return cast("MilNetwork", self._average.module)

    def distribute(self, processes: Processes) -> None:
        """Learn from the gradients of all processes from now on."""
        self._module = processes.distribute(self.network)

    def begin_epoch(self, seed: int) -> None:
        """Get ready to learn; the seed is that of dropout."""
        seed_dropout(self.network, seed, self._choice.device)
        self._module.train()
        if self._frozen_encoder:
            self.network.encoder.eval()  # its batch statistics are frozen too

    def step(self, batch: Batch, processes: int) -> tuple[float, float]:
        """Learn from a batch, or from this process's share of it.

        Parameters
        ----------
        batch : Batch
            Patches, targets and weights.
        processes : int
            Number of processes that share the batch: the gradients of all are averaged.

        Returns
        -------
        tuple of float
            Sums over the images of both parts of the loss: of the pooled P, and of y.

        Raises
        ------
        ComputeError
            If the loss is no number any more, or the device fails.
        OptionsError
            If the batch is too small for batch norm.
        """
        pixels = torch.from_numpy(batch.images).to(self._choice.device, memory_format=torch.channels_last)
        try:
            pooled, last = self._losses(pixels, batch)
            if not bool(torch.isfinite(pooled + last)):
                raise ComputeError("the training diverged (the loss is no number any more); make learning_rate smaller")
            self._optimiser.zero_grad()
            loss: Tensor = (pooled + last) * (processes / batch.size)
            loss.backward()  # type: ignore[no-untyped-call]
            self._optimiser.step()
            self._schedule.step()
            self._average.update_parameters(self.network)
        except RuntimeError as error:
            raise _compute_error(error, tuple(pixels.shape), self._choice) from error
        except ValueError as error:  # batch norm, where one patch gives a map of one instance
            raise OptionsError(
                f"a batch of {tuple(pixels.shape)} is too small for batch norm; make batch_size or patch larger"
            ) from error
        return float(pooled.detach()), float(last.detach())

    def _losses(self, pixels: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return sums over the images of both parts of the loss."""
        with self._choice.autocast():
            output = self._module(pixels, batch.fields)
        pooled, last = image_losses(output, torch.from_numpy(batch.targets).to(pixels.device), self._single_label)
        if batch.weights is not None:
            factors = torch.from_numpy(batch.weights).to(pixels.device)
            pooled, last = pooled * factors, last * factors
        return pooled.sum(), last.sum()

    def state(self) -> LearnerState:
        """Return what `restore` needs to go on from here."""
        return LearnerState(
            self.network.state_dict(), self._average.state_dict(), self._optimiser.state_dict(),
            self._schedule.state_dict(),
        )  # fmt: skip

    def restore(self, state: LearnerState) -> None:
        """Go back to a state."""
        self.network.load_state_dict(state.network)
        self._average.load_state_dict(state.averaged)
        self._optimiser.load_state_dict(state.optimiser)
        self._schedule.load_state_dict(state.schedule)


def _moving_average(decay: float) -> Callable[[Sequence[Tensor], Sequence[Tensor], Tensor | int], None]:
    """Return how an average goes on by a step: it forgets faster at first, so that the random start is soon gone."""

    def go_on(averaged: Sequence[Tensor], latest: Sequence[Tensor], steps: Tensor | int) -> None:
        done = int(steps)
        weight = 1 - min(decay, (1 + done) / (10 + done))
        for average, value in zip(averaged, latest, strict=True):
            if average.is_floating_point():
                average.lerp_(value, weight)
            else:  # batch norm's number of batches
                average.copy_(value)

    return go_on


def _make_optimiser(network: MilNetwork, options: TrainOptions) -> torch.optim.Adam:
    deciding = [*network.pooling.parameters(), *network.head.parameters()]
    groups = [
        {"params": list(network.encoder.parameters()), "lr": options.learning_rate * options.encoder_rate},
        {"params": list(network.maps.parameters()), "lr": options.learning_rate},
        {"params": deciding, "lr": options.learning_rate * options.head_rate},
    ]
    return torch.optim.Adam([group for group in groups if group["lr"]])


def _make_schedule(
    optimiser: torch.optim.Adam, options: TrainOptions, steps: int
) -> torch.optim.lr_scheduler.LRScheduler:
    if options.schedule == "one_cycle":
        return torch.optim.lr_scheduler.OneCycleLR(optimiser, [group["lr"] for group in optimiser.param_groups], steps)
    if options.schedule == "cosine":
        return torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    return torch.optim.lr_scheduler.LambdaLR(optimiser, lambda _step: 1.0)


def _compute_error(error: RuntimeError, shape: tuple[int, ...], choice: DeviceChoice) -> ComputeError:
    if is_out_of_memory(error):
        return ComputeError(
            f"a training batch of {shape} does not fit into the memory of {choice.device}; "
            "make batch_size or patch smaller"
        )
    return ComputeError(f"{choice} failed on a training batch of {shape}: {error}")
