"""The encoder of a network, run by OpenVINO on the CPU.

OpenVINO computes the features only. The map layer, pooling and the last layer stay with torch in float32, as they do
beside torch's own encoder, so that both engines differ by the rounding of the same convolutions: in float32 class-map
logits agree to 1e-4, in bfloat16 as well as each of them agrees with float32 (about 1e-3 of the largest logit).

OpenVINO keeps the memory of the layers between calls. In a host program, which returns freed memory to the system,
torch pays for that memory anew in every layer; OpenVINO does not.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from threading import Lock
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from napari_milcnn.atomic_write import sha256
from napari_milcnn.errors import OptionsError
from napari_milcnn.model.openvino_import import import_openvino, openvino_version
from napari_milcnn.network.mil_network import MilNetwork

Encoder: TypeAlias = Callable[[Tensor], AbstractContextManager[Tensor]]
"""Takes images (batch, channels, Y, X); a context whose value are their features, float32 (batch, features, Y, X)."""
_MOST_KEPT = 2
"""Encoders that stay compiled, which takes a second or two, with their memory: for two models used in turn."""
_COMPILED: dict[tuple[str, torch.dtype, int], Encoder] = {}
_COMPILING = Lock()


def openvino_encoder(network: MilNetwork, precision: torch.dtype) -> Encoder:
    """Compile the encoder of a network for OpenVINO on the CPU, for images of any size, or return it from before.

    Parameters
    ----------
    network : MilNetwork
        The network on the CPU, in eval mode.
    precision : torch.dtype
        float32 or bfloat16.

    Returns
    -------
    callable
        Takes images (batch, channels, Y, X), and is a context whose value are their features. They are valid inside
        the block only, because the next call writes to the same memory; a second thread waits for it.

    Raises
    ------
    OptionsError
        If OpenVINO is not installed, or cannot be loaded on this computer.
    """
    if openvino_version() is None:
        raise OptionsError("engine 'openvino' needs OpenVINO: pip install 'napari-milcnn[openvino]'")
    weights = b"".join(value.numpy().tobytes() for value in network.state_dict().values())
    key = (sha256(weights + network.options.model_dump_json().encode()), precision, torch.get_num_threads())
    with _COMPILING:
        found = _COMPILED.pop(key, None) or _compiled(network, precision)
        _COMPILED[key] = found  # the one used last is the last to go
        while len(_COMPILED) > _MOST_KEPT:
            del _COMPILED[next(iter(_COMPILED))]
    return found


def _compiled(network: MilNetwork, precision: torch.dtype) -> Encoder:
    try:
        openvino = import_openvino()
    except (ImportError, OSError) as error:
        raise OptionsError(f"engine 'openvino' cannot be loaded ({error}); use engine 'torch'") from error
    channels = network.options.channels
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's about the future of the way in which OpenVINO reads a network
        converted = openvino.convert_model(
            network.encoder, example_input=torch.zeros(1, channels, 320, 320), input=[-1, channels, -1, -1]
        )
    compiled = openvino.compile_model(converted, "CPU", {
        "INFERENCE_PRECISION_HINT": "bf16" if precision == torch.bfloat16 else "f32",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(), "PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": "1",
    })  # fmt: skip
    request, alone = compiled.create_infer_request(), Lock()

    @contextmanager
    def encode(images: Tensor) -> Iterator[Tensor]:
        with alone:
            pixels = np.ascontiguousarray(images.numpy())
            yield torch.from_numpy(request.infer(pixels, share_inputs=True, share_outputs=True)[0])

    return encode
