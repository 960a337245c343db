"""The network, top to bottom: a fully convolutional encoder, one map per class, MIL pooling, one linear layer.

Kraus, Ba & Frey 2016, section 2.3 and figure 2. The preset `paper` is the paper's network. The preset `compact` is
ours, for cells of about 64 px and small training sets: without the first average pool, and with batch norm in place of
dropout.

Stated departures from the paper
--------------------------------
* The paper has no table of kernel sizes; these are the ones that its figure and an independent reimplementation agree
  on (484,476 parameters for 3 channels and 12 classes).
* The bias of the map layer starts at logit(b): every p then starts at b, where Noisy-AND is steepest. If the two start
  apart (b = 0.1, p = 0.5), the pooling saturates at .976 and learns slowly. b itself starts at half the share of the
  map that shows cells, measured on the training images (`MilNetwork.start_at`).
* The linear layer starts at a multiple of the identity rather than at random: P_i then counts for class i from the
  first step. The multiple is measured together with b; it is 4 where b is given.

No layer is padded, so a value of a class map depends on its own receptive field only: an image computed in tiles gives
exactly the maps of the whole image, and a crop of one receptive field classifies a single cell. Receptive field, stride
and offset are computed from the layers (`Placement.of_layers`), never typed in.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from napari_milcnn.network.dropout import SeededDropout
from napari_milcnn.network.geometry import Placement
from napari_milcnn.network.onednn_layout import blocked_pays, encode_blocked
from napari_milcnn.network.pooling import NoisyAnd, make_pooling
from napari_milcnn.options import KERNELS, NetworkOptions, make_options

_ONE_INSTANCE_DECIDES = ("noisy_or", "isr")
"""Poolings that one positive instance decides. There p starts at one in the number of instances: started at b, a few
hundred instances would already give P = 1, whose gradient is zero."""
_PAPER_MAP = 576
"""Instances of the paper's 24 x 24 class map."""
_DEFAULT_B = 0.1
"""Where b starts until it is measured on the training images."""


class NetworkOutput(NamedTuple):
    """Output of the network for a batch of images."""

    class_maps: Tensor
    """Class-map logits z, float32 (batch, classes, Y, X); p = sigmoid(z) are the instance probabilities."""
    probabilities: Tensor
    """P, the image-level probability of each class by MIL pooling, float32 (batch, classes)."""
    scores: Tensor
    """y, logits of the linear layer after the pooling, float32 (batch, classes)."""


class MilNetwork(nn.Module):
    """The multiple instance learning network: `encoder` -> `maps` -> `pooling` -> `head`.

    Takes normalised images, float (batch, channels, Y, X), and returns a `NetworkOutput`.

    Parameters
    ----------
    options : NetworkOptions
        Size and kind of its layers.
    seed : int
        Random seed of the convolutions' weights. torch's global generator is neither used nor changed: a training in
        another thread may draw from it.
    """

    def __init__(self, options: NetworkOptions, seed: int = 0) -> None:
        super().__init__()
        self.options = options
        self.encoder = nn.Sequential(*_encoder_layers(options))
        # On the device meta no weights are drawn, which torch would take from its global generator.
        self.maps = nn.Conv2d(options.widths[-1], options.classes, 1, device="meta").to_empty(device="cpu")
        b = options.b or _DEFAULT_B
        self.pooling = make_pooling(options.pooling, options.classes, a=options.a, r=options.r, b=b)
        self.head = nn.Linear(options.classes, options.classes, device="meta").to_empty(device="cpu")
        _draw_convolutions(self, torch.Generator().manual_seed(seed))
        self._start(b, _PAPER_MAP, torch.full((options.classes,), 4.0), 0.0)

    def start_at(self, share: float, instances: int) -> None:
        """Set b, the map layer's bias and the linear layer for images in which cells cover a share of the area.

        Noisy-AND's b starts at half that share, but between .02 and .5: an image all of whose cells show a class is
        then above b, and one without such cells below it. Every p starts at b. The linear layer starts as the multiple
        of the identity for which y is 2 where that share of the map shows a class and -2 where none does. From the
        first step, for sparse and dense images and for every pooling, P_i then counts for class i.

        Parameters
        ----------
        share : float
            Share of the class map's instances that lie on cells.
        instances : int
            Instances of the class map of a training patch.
        """
        b = min(max(share / 2, 0.02), 0.5)
        positive = max(1, round(2 * b * instances))
        places = torch.arange(instances, device=self.head.weight.device)
        full = torch.where(places < positive, 20.0, -20.0).expand(1, self.options.classes, 1, -1)
        with torch.no_grad():
            if isinstance(self.pooling, NoisyAnd):
                self.pooling.beta.fill_(math.log(b / (1 - b)))
            self._start(b, instances, 4 / self.pooling(full)[0].clamp(min=0.04), -2.0)

    def _start(self, b: float, instances: int, weights: Tensor, bias: float) -> None:
        p = 1 / instances if self.options.pooling in _ONE_INSTANCE_DECIDES else b
        with torch.no_grad():
            self.maps.bias.fill_(math.log(p / (1 - p)))  # type: ignore[union-attr]
            self.head.weight.copy_(torch.diag(weights))
            self.head.bias.fill_(bias)

    @property
    def placement(self) -> Placement:
        """Receptive field, stride and offset of the class maps."""
        return Placement.of_layers(self.encoder)

    @property
    def learned_b(self) -> list[float] | None:
        """Noisy-AND's thresholds, one per class; None for any other pooling."""
        return self.pooling.b.tolist() if isinstance(self.pooling, NoisyAnd) else None

    def features(self, images: Tensor) -> Tensor:
        """Images (batch, channels, Y, X) -> features of the encoder, float32 (batch, features, Y, X).

        The encoder runs in the caller's autocast precision.
        """
        blocked = self.encoder.training and blocked_pays(images)
        # (batch, features, Y / stride, X / stride)
        return (encode_blocked(self.encoder, images) if blocked else self.encoder(images)).float()

    def maps_of(self, features: Tensor) -> Tensor:
        """Features (batch, features, Y, X) -> class-map logits (batch, classes, Y, X), always in float32."""
        with torch.autocast(features.device.type, enabled=False):
            return self.maps(features)  # type: ignore[no-any-return]

    def class_maps(self, images: Tensor) -> Tensor:
        """Images (batch, channels, Y, X) -> class-map logits, float32 (batch, classes, Y, X)."""
        return self.maps_of(self.features(images))

    def read_maps(self, class_maps: Tensor) -> NetworkOutput:
        """Pool class-map logits (batch, classes, Y, X) and apply the linear layer, in float32."""
        with torch.autocast(class_maps.device.type, enabled=False):
            return NetworkOutput(class_maps, *self.read_summaries(self.pooling.summary(class_maps)))

    def read_summaries(self, summaries: Tensor) -> tuple[Tensor, Tensor]:
        """Return P and y, float32 (bags, classes), of summaries of the pooling (bags, classes); see `MilPooling`."""
        probabilities = self.pooling.probability(summaries)
        return probabilities, self.head(probabilities)

    def forward(self, images: Tensor, fields: int = 1) -> NetworkOutput:
        """Compute maps, P and y of images (batch * fields, channels, Y, X).

        Where `fields` is above 1, so many images that follow each other are one bag: their class maps are put together
        along Y, (batch, classes, fields * Y, X), since a pooling asks for no place.
        """
        maps = self.class_maps(images)
        if fields > 1:
            maps = maps.reshape(-1, fields, *maps.shape[1:]).transpose(1, 2).flatten(2, 3)
        return self.read_maps(maps)


def build_network(**options: Any) -> MilNetwork:
    """Build the network from plain keyword arguments: the entry point that model files name.

    Raises
    ------
    OptionsError
        If an option is unknown or impossible.
    """
    return MilNetwork(make_options(NetworkOptions, options))


def _encoder_layers(options: NetworkOptions) -> list[nn.Module]:
    """List the layers of the encoder; on the right, their sizes for a 900 x 900 image and the preset `paper`."""
    w = options.widths
    layers: list[nn.Module] = [nn.AvgPool2d(3, 2)] if options.first_pool else []  # 449
    layers += _convolution(options.channels, w[0], KERNELS[0], options)  # 447
    layers += _convolution(w[0], w[1], KERNELS[1], options, pool=True)  # 445, 222
    layers += _convolution(w[1], w[2], KERNELS[2], options, pool=True)  # 218, 108
    layers += _convolution(w[2], w[3], KERNELS[3], options, pool=True)  # 106, 52
    layers += _convolution(w[3], w[4], KERNELS[4], options, pool=True)  # 50, 24
    layers += _convolution(w[4], w[5], KERNELS[5], options)  # 24
    return [*layers, SeededDropout(options.dropout_last)]


def _convolution(
    inputs: int, outputs: int, kernel: int, options: NetworkOptions, *, pool: bool = False
) -> list[nn.Module]:
    """List a convolution, its ReLU and, if wanted, batch norm, max pool and dropout.

    The ReLU comes after the max pool: both orders give the same numbers, and this one is a quarter of the work. It must
    not work in place, because the Jacobian maps hook it; they see to it that the order does not matter backward.
    """
    convolution = nn.Conv2d(inputs, outputs, kernel, bias=not options.batch_norm, device="meta")
    layers: list[nn.Module] = [convolution.to_empty(device="cpu")]
    layers += [nn.BatchNorm2d(outputs)] if options.batch_norm else []
    layers += [nn.MaxPool2d(3, 2)] if pool else []
    layers.append(nn.ReLU())
    return [*layers, SeededDropout(options.dropout)] if pool and options.dropout else layers


def _draw_convolutions(network: nn.Module, generator: torch.Generator) -> None:
    """Draw the weights of convolutions that were built without any, as torch's own `Conv2d` draws them."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_uniform_(layer.weight, a=math.sqrt(5), generator=generator)
            if layer.bias is not None:
                bound = 1 / math.sqrt(layer.weight[0].numel())
                nn.init.uniform_(layer.bias, -bound, bound, generator=generator)
