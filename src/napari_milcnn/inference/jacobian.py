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
from napari_milcnn.network.way_back import Trace


def jacobian_maps(run: Trace, classes: Sequence[int], rule: str, choice: DeviceChoice, pooled: Tensor) -> np.ndarray:
    """Propagate evidence for some classes back to the pixels, all from one forward run.

    Parameters
    ----------
    run : Trace
        Forward run on images (batch, channels, Y, X).
    classes : sequence of int
        Indices of the classes.
    rule : str
        guided, which keeps only positive evidence, or plain, which is the gradient.
    choice : DeviceChoice
        Device and precision in which the run was made.
    pooled : Tensor
        P of the whole images, of which those of the run may be parts, float32 (batch, all classes).

    Returns
    -------
    ndarray
        Evidence summed over the input channels, float32 (batch, classes, Y, X).
    """
    with torch.inference_mode(), choice.autocast():
        pooled = pooled.to(choice.device)
        maps = [
            run.back(index, pooled[:, index, None, None] * run.logits[:, index].sigmoid(), guided=rule == "guided")
            for index in classes
        ]
        return torch.stack(maps, 1).cpu().numpy()
