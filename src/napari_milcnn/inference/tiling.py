"""Compute class maps of planes in batches and tiles, on a device that may run out of memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from napari_milcnn.errors import ComputeError, OptionsError
from napari_milcnn.images.stack import Window
from napari_milcnn.inference.devices import choose_device, free_memory, is_out_of_memory
from napari_milcnn.inference.engines.choice import choose_engine
from napari_milcnn.inference.engines.openvino_encoder import Encoder, openvino_encoder
from napari_milcnn.inference.model_input import ModelInput
from napari_milcnn.model.trained_model import TrainedModel, check_finite
from napari_milcnn.network.geometry import Placement
from napari_milcnn.network.inference_copy import inference_copy
from napari_milcnn.network.mil_network import MilNetwork
from napari_milcnn.network.way_back import Trace, trace
from napari_milcnn.options import ComputeOptions

_LARGEST_TILE, _LARGEST_ON_CPU = 4096, 2048
"""Side of the largest tile, px. On the CPU a larger one is no quicker, and one of 2048 px takes up to a gigabyte."""
_MEMORY_SHARE = 0.5
_TRACE_MEMORY = 4
"""A run back through every layer takes this multiple of the memory of a forward run."""


class Tile(NamedTuple):
    """A window of the class map of one plane, in map pixels.

    With a shift (Y, X), it is a window of the class map of the plane without its first rows and columns, in px.
    """

    plane: int
    window: Window
    shift: tuple[int, int] = (0, 0)


class TileMaps(NamedTuple):
    """What the network makes of one tile."""

    logits: np.ndarray
    """Class-map logits, float32 (classes, Y, X)."""
    moments: np.ndarray
    """Sum of each feature of the encoder over the map, then of its square, float64 (2, features)."""


class PooledMaps(NamedTuple):
    """What the pooling and the last layer make of class maps."""

    summaries: np.ndarray
    """Summary of each map by the pooling (`MilPooling.summary`), float32 (planes, classes)."""
    probabilities: np.ndarray
    """P, float32 (planes, classes)."""
    scores: Tensor
    """y, float32 (planes, classes)."""


class TiledInference:
    """Computes class-map logits. When memory runs out, it halves the batch, then the tile, then moves to the CPU.

    Parameters
    ----------
    model : TrainedModel
        The model. Its network is copied and never changed.
    options : ComputeOptions
        Device, precision, engine, tile and batch size.

    Attributes
    ----------
    choice : DeviceChoice
        The current device, precision and engine.
    warnings : list of str
        Sentences about what was done to fit into memory.
    keeps_run : bool
        Whether the last forward run on a whole plane is kept for `trace`, where torch runs the network and it fits into
        memory.

    Raises
    ------
    OptionsError
        If the computer does not have the device, the tile is smaller than the receptive field, or OpenVINO is asked for
        and not installed, or asked for on a GPU.
    """

    def __init__(self, model: TrainedModel, options: ComputeOptions) -> None:
        self.model = model
        self.options = options
        if options.engine == "openvino" and options.device not in ("auto", "cpu"):
            raise OptionsError(
                f"engine 'openvino' runs on the CPU, but option 'device' is {options.device!r}; leave one of them out"
            )
        device = "cpu" if options.engine == "openvino" else options.device
        choice = choose_device(device, options.precision)
        self.choice = choice.with_engine(choose_engine(options.engine, model.network, choice))
        self.batch_size = options.batch_size
        self.warnings: list[str] = []
        self.keeps_run = False
        self._run: Trace | None = None
        self._moved: list[str] = []  # a sentence that holds for every image from then on
        field = model.network.placement.receptive_field
        if options.tile is not None and options.tile < field:
            raise OptionsError(f"option 'tile' is {options.tile}; expected at least the receptive field, {field} px")
        self._prepare()

    def _prepare(self) -> None:
        self._network = inference_copy(self.model.network)
        self._encode: Encoder = self._torch_features
        if self.choice.engine == "openvino":
            self._encode = openvino_encoder(self._network, self.choice.precision)
        try:
            self._network.to(self.choice.device)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
        else:
            return
        self.move_to_cpu()  # here, where what was moved is free again

    def tile(self, shape: tuple[int, int]) -> int:
        """Return the side of the tiles, in px, for a plane of `shape` (Y, X)."""
        field = self.model.network.placement.receptive_field
        if self.options.tile is not None:
            return self.options.tile
        budget = free_memory(self.choice.device) * _MEMORY_SHARE
        largest = _LARGEST_ON_CPU if self.choice.device.type == "cpu" else _LARGEST_TILE
        if shape[0] * shape[1] * bytes_per_pixel(self.model.network) <= budget and max(shape) <= 2 * largest:
            return max(shape)
        return max(field, min(largest, int((budget / bytes_per_pixel(self.model.network)) ** 0.5)))

    def batch_that_fits(self, tile: int) -> int:
        """Return the number of planes in a batch of tiles of this side: the batch size, or less if memory is short.

        One where the run is kept: what comes back through it takes one plane at a time, too.
        """
        if self.keeps_run:
            return 1
        budget = free_memory(self.choice.device) * _MEMORY_SHARE
        return max(1, min(self.options.batch_size, int(budget / (bytes_per_pixel(self.model.network) * tile**2))))

    def read_maps(self, class_maps: np.ndarray) -> PooledMaps:
        """Pool whole class maps, logits (planes, classes, Y, X), and apply the last layer, both on the CPU."""
        network = self.model.network
        with torch.inference_mode():
            summaries = network.pooling.summary(torch.from_numpy(class_maps))
            probabilities, scores = network.read_summaries(summaries)
        check_finite(self.model.card.name, "scores", probabilities, scores)
        return PooledMaps(summaries.numpy(), probabilities.numpy(), scores)

    def run(self, model_input: ModelInput, tiles: Sequence[Tile]) -> list[np.ndarray]:
        """Compute the class-map logits, float32 (classes, Y, X), of each tile; see `encode`."""
        return [tile.logits for tile in self.encode(model_input, tiles)]

    def encode(self, model_input: ModelInput, tiles: Sequence[Tile]) -> list[TileMaps]:
        """Compute the class maps of each tile, and the moments of its features. All windows have the same size.

        Raises
        ------
        ComputeError
            If a single receptive field does not fit into the CPU's memory, or the device fails.
        """
        self._run = None
        keep = self.keeps_run and tiles[0].window == Window(0, model_input.map_shape[0], 0, model_input.map_shape[1])
        try:
            images = np.stack([model_input.read(tile.plane, image_window(tile, model_input)) for tile in tiles])
            return [TileMaps(*maps) for maps in zip(*self.maps_and_moments(images, keep=keep), strict=True)]
        except MemoryError:
            pass  # the next attempt begins below, where the memory of this one is free again
        return self._run_smaller(model_input, tiles)

    def instances(self, crops: np.ndarray) -> np.ndarray:
        """Compute the logits (crops, classes) of crops of one receptive field each.

        Parameters
        ----------
        crops : ndarray
            Normalised crops, float32 (crops, channels, Y, X).

        Raises
        ------
        ComputeError
            If a single crop does not fit into the CPU's memory, or the device fails.
        """
        try:
            return self.class_maps(crops)[:, :, 0, 0]
        except MemoryError:
            self.move_to_cpu()
        return self.instances(crops)

    def move_to_cpu(self) -> None:
        """Continue on the CPU.

        Raises
        ------
        ComputeError
            If the CPU is already in use.
        """
        if self.choice.device.type == "cpu":
            raise ComputeError("a single receptive field does not fit into memory; close other programs and try again")
        self._moved = [f"out of memory on {self.choice.device}: the computation continued on the CPU"]
        self.warn(*self._moved)
        self.choice = choose_device("cpu", self.options.precision)
        self._prepare()

    def trace(self, images: np.ndarray) -> Trace:
        """Run the network on normalised images (batch, channels, Y, X), and keep what the way back needs.

        The kept run is taken over, and no longer kept, where it was on the same images.

        Raises
        ------
        RuntimeError
            If memory runs out, or the device fails.
        """
        pixels, kept, self._run = torch.from_numpy(images), self._run, None
        if kept is not None and torch.equal(kept.images, pixels.to(kept.images.device)):
            return kept
        del kept  # its memory is free for the next one
        return self._trace(pixels)

    def _trace(self, images: Tensor) -> Trace:
        with torch.inference_mode(), self.choice.autocast():
            return trace(self._network, images.to(self.choice.device))

    def traced_side(self, shape: tuple[int, int]) -> int:
        """Return the side of the parts on which runs for `trace` fit into memory, for a plane of `shape` (Y, X).

        With option `tile`, the network sees no more than that side, but at least three receptive fields.
        """
        placement, each = self.model.network.placement, _TRACE_MEMORY * bytes_per_pixel(self.model.network)
        if self.options.tile is not None and self.options.tile < max(shape):
            return max(placement.receptive_field, self.options.tile - 2 * placement.receptive_field)
        free, kept = free_memory(self.choice.device), self._run
        seen = [(placement.map_size(side) - 1) * placement.stride + placement.receptive_field for side in shape]
        if (kept is not None and [*kept.images.shape[2:]] == seen) or each * shape[0] * shape[1] <= free:
            return max(shape)
        return max(placement.stride, int((free / each) ** 0.5) - 2 * placement.receptive_field)

    def class_maps(self, images: np.ndarray) -> np.ndarray:
        """Compute the class-map logits (batch, classes, Y, X) of normalised images (batch, channels, Y, X).

        Raises
        ------
        MemoryError, ComputeError
            As `maps_and_moments`.
        """
        return self.maps_and_moments(images)[0]

    def maps_and_moments(self, images: np.ndarray, *, keep: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """Compute class-map logits and the moments of the features of normalised images (batch, channels, Y, X).

        With `keep`, the run is kept for `trace`, where it fits into memory.

        Returns
        -------
        logits : ndarray
            float32 (batch, classes, Y, X).
        moments : ndarray
            Sum of each feature over the map, then of its square, float64 (batch, 2, features).

        Raises
        ------
        MemoryError
            If a single image does not fit into memory.
        ComputeError
            If the device fails.
        ModelError
            If the network's answer is not finite.
        """
        if len(images) > self.batch_size:
            parts = [self.maps_and_moments(part) for part in _chunks(images, self.batch_size)]
            return np.concatenate([maps for maps, _ in parts]), np.concatenate([moments for _, moments in parts])
        try:
            found = self._maps_and_features(torch.from_numpy(images), keep)
            check_finite(self.model.card.name, "class maps", *found)
            return found
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise ComputeError(f"{self.choice} failed on images {images.shape}: {error}") from error
        if len(images) == 1:
            raise MemoryError
        self.batch_size = len(images) // 2
        self.warn(f"out of memory on {self.choice.device}: smaller batches were used")
        return self.maps_and_moments(images)

    def _run_smaller(self, model_input: ModelInput, tiles: Sequence[Tile]) -> list[TileMaps]:
        """Compute tiles that do not fit into memory in quarters, or on the CPU if they are single instances."""
        window = tiles[0].window
        if max(window.y1 - window.y0, window.x1 - window.x0) > 1:
            self.warn(f"out of memory on {self.choice.device}: smaller tiles were used")
            return [self._run_quartered(model_input, tile) for tile in tiles]
        self.move_to_cpu()
        return self.encode(model_input, tiles)

    def _run_quartered(self, model_input: ModelInput, tile: Tile) -> TileMaps:
        """Compute a tile in four parts."""
        y0, y1, x0, x1 = tile.window
        moments = np.zeros((2, self.model.network.maps.in_channels))
        whole = np.empty((len(self.model.classes), y1 - y0, x1 - x0), np.float32)
        for part in windows((y1 - y0, x1 - x0), (max(1, (y1 - y0 + 1) // 2), max(1, (x1 - x0 + 1) // 2))):
            window = Window(part.y0 + y0, part.y1 + y0, part.x0 + x0, part.x1 + x0)
            found = self.encode(model_input, [tile._replace(window=window)])[0]
            whole[:, part.y0 : part.y1, part.x0 : part.x1] = found.logits
            moments += found.moments
        return TileMaps(whole, moments)

    def finer_maps(
        self, model_input: ModelInput, plane: int, coarse: np.ndarray, classes: Sequence[int], detail: int
    ) -> Iterator[np.ndarray]:
        """Compute the class maps of a plane at a finer step: the network runs on the plane shifted, interleaved.

        No layer is padded, so each value is exactly what the network says about the receptive field there.

        Parameters
        ----------
        model_input : ModelInput
            The image.
        plane : int
            Index of the plane.
        coarse : ndarray
            Instance probabilities p of some classes at the network's own step, (classes, Y, X); they are taken over.
        classes : sequence of int
            Indices of these classes.
        detail : int
            Map pixels along each axis in place of one; divides the stride.

        Yields
        ------
        ndarray
            Some rows of p at a step of stride / detail, float32 (classes, rows, X), from the first to the last; the
            first map pixel is where it was.

        Raises
        ------
        ComputeError
            If a single receptive field does not fit into the CPU's memory, or the device fails.
        """
        step = model_input.model.network.placement.stride // detail
        height, width = finer_shape(model_input, detail)
        side = max(1, self.model.network.placement.map_size(self.tile(model_input.shape)))
        for top in range(0, coarse.shape[1], side):
            own = coarse[:, top : top + side]
            last = top + side >= coarse.shape[1]
            fine = np.empty(
                (len(classes), (height if last else (top + side) * detail) - top * detail, width), np.float32
            )
            fine[:, ::detail, ::detail] = own
            for down, right in [(i, j) for i in range(detail) for j in range(detail) if i or j]:
                part, shift = fine[:, down::detail, right::detail], (down * step, right * step)
                for x in range(0, part.shape[2] if part.shape[1] else 0, side):
                    window = Window(top, top + part.shape[1], x, min(x + side, part.shape[2]))
                    logits = self.encode(model_input, [Tile(plane, window, shift)])[0].logits
                    part[:, :, window.x0 : window.x1] = torch.from_numpy(logits[classes]).sigmoid().numpy()
            yield fine

    def forget_warnings(self) -> None:
        """Forget what earlier images needed; that the computation continued on the CPU holds for later ones, too."""
        self.warnings[:] = self._moved

    def warn(self, text: str) -> None:
        """Note a sentence about what was done to fit into memory, once."""
        if text not in self.warnings:
            self.warnings.append(text)

    def _maps_and_features(self, images: Tensor, keep: bool) -> tuple[np.ndarray, np.ndarray]:
        height, width = images.shape[2:]
        if keep and self.choice.engine == "torch" and self.traced_side((height, width)) >= max(height, width):
            self._run = self._trace(images)
            return self._run.logits.cpu().numpy(), _moments(self._run.features)
        with torch.inference_mode(), self._encode(images) as features:
            return self._network.maps_of(features).cpu().numpy(), _moments(features)

    @contextmanager
    def _torch_features(self, images: Tensor) -> Iterator[Tensor]:
        with self.choice.autocast():
            yield self._network.features(images.to(self.choice.device))


def _moments(features: Tensor) -> np.ndarray:
    """Sum features (batch, features, Y, X) and their squares over the map, float64 (batch, 2, features).

    Float32 holds the mean and the variance of a map, but not the sum of its squares, which is made of both on the CPU.
    torch.var_mean takes twenty times as long.
    """
    mean = features.mean((2, 3), keepdim=True)
    variance = (features - mean).square_().mean((2, 3)).cpu().double()
    mean = mean[:, :, 0, 0].cpu().double()
    places = features.shape[2] * features.shape[3]
    return (places * torch.stack([mean, variance + mean**2], 1)).numpy()


def _chunks(images: np.ndarray, size: int) -> list[np.ndarray]:
    return [images[start : start + size] for start in range(0, len(images), size)]


def windows(shape: tuple[int, int], size: tuple[int, int]) -> list[Window]:
    """Cut a plane (Y, X) into windows of at most `size` (Y, X), row by row."""
    return [
        Window(y, min(y + size[0], shape[0]), x, min(x + size[1], shape[1]))
        for y in range(0, shape[0], size[0])
        for x in range(0, shape[1], size[1])
    ]


def map_windows(shape: tuple[int, int], tile: int, placement: Placement) -> list[Window]:
    """Cut a class map (Y, X) into windows whose image windows are at most `tile` px a side."""
    side = max(1, placement.map_size(tile))
    return windows(shape, (side, side))


def finer_shape(model_input: ModelInput, detail: int) -> tuple[int, int]:
    """Return the shape (Y, X) of class maps with `detail` pixels along each axis in place of one."""
    placement = model_input.model.network.placement
    step = placement.stride // detail
    height, width = ((side - placement.receptive_field) // step + 1 for side in model_input.shape)
    return height, width


def image_window(tile: Tile, model_input: ModelInput) -> Window:
    """Return the window of model pixels from which a tile of the class map is computed."""
    placement = model_input.model.network.placement
    reach = placement.receptive_field - placement.stride
    y0, y1, x0, x1 = (edge * placement.stride for edge in tile.window)
    down, right = tile.shift
    return Window(y0 + down, y1 + reach + down, x0 + right, x1 + reach + right)


def instances_of(part: Window, model_input: ModelInput) -> Window:
    """Return the window of the class map whose receptive fields meet a window of model pixels."""
    placement = model_input.model.network.placement
    edges = []
    for first, last, count in zip((part.y0, part.x0), (part.y1, part.x1), model_input.map_shape, strict=True):
        start = max(0, (first - placement.receptive_field) // placement.stride + 1)
        stop = min(count, (last - 1) // placement.stride + 1)
        edges += [min(start, count - 1), max(stop, 1)]
    return Window(*edges)


def bytes_per_pixel(network: MilNetwork) -> int:
    """Return the memory per image pixel at the widest point of the encoder, in bytes, times a safety factor of 3."""
    widest, area, channels = 0.0, 1.0, network.options.channels
    for layer in network.encoder:
        before = channels * area
        if isinstance(layer, nn.Conv2d):
            channels = layer.out_channels
        if isinstance(layer, nn.MaxPool2d | nn.AvgPool2d):
            area /= 4
        widest = max(widest, before + channels * area)
    return int(3 * 4 * widest)
