"""Evidence propagated back from the class maps to the pixels (paper, section 2.5).

The paper's network has each ReLU before its max pool, and its rule f applies at every hidden pre-activation z(l), which
is the ReLU's input. Our network has the ReLU behind the pool: that gives the same numbers forward, with a quarter of
the work. Backward the order matters, because windows of the pool overlap: f applies to the sum of what all windows send
back to a pixel, not to the share of each window. So f is applied to the gradient at the pool's input, and the ReLU
behind a pool stays plain. Where a window has no positive value, the ReLU behind it sends back nothing, as the one
before it would. The maps are therefore those of the network in the paper's order.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from napari_milcnn.inference.devices import DeviceChoice
from napari_milcnn.network.inference_copy import inference_copy
from napari_milcnn.network.mil_network import MilNetwork
from napari_milcnn.network.way_back import Trace, trace


def jacobian_maps(
    network: MilNetwork,
    images: Tensor,
    classes: Sequence[int],
    rule: str = "guided",
    choice: DeviceChoice | None = None,
    pooled: Tensor | None = None,
) -> np.ndarray:
    """Propagate evidence for some classes back to the pixels, all from one forward run.

    Parameters
    ----------
    network : MilNetwork
        The network. It is copied and never changed.
    images : Tensor
        Normalised images, float32 (batch, channels, Y, X).
    classes : sequence of int
        Indices of the classes.
    rule : str
        guided, which keeps only positive evidence, or plain, which is the gradient.
    choice : DeviceChoice, optional
        Device and precision; by default the network's device, in float32.
    pooled : Tensor, optional
        P of whole images of which `images` are parts, float32 (batch, all classes); by default that of `images`.

    Returns
    -------
    ndarray
        Evidence summed over the input channels, float32 (batch, classes, Y, X).
    """
    choice = choice or DeviceChoice(next(network.parameters()).device, torch.float32, "the network's")
    with torch.inference_mode(), choice.autocast():
        run = trace(inference_copy(network).to(choice.device), images.to(choice.device))
    return maps_of_trace(run, classes, rule, choice, pooled)


def maps_of_trace(
    run: Trace, classes: Sequence[int], rule: str, choice: DeviceChoice, pooled: Tensor | None = None
) -> np.ndarray:
    """Propagate evidence back through a forward run that was made with `choice`; see `jacobian_maps`."""
    with torch.inference_mode(), choice.autocast():
        pooled = run.pooled if pooled is None else pooled.to(choice.device)
        maps = [
            run.back(index, pooled[:, index, None, None] * run.logits[:, index].sigmoid(), guided=rule == "guided")
            for index in classes
        ]
        return torch.stack(maps, 1).cpu().numpy()
