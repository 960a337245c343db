"""From image layers of napari to one lazy image, and from its planes back to the layers' place.

napari's own reader loads a TIFF without its metadata: the layer's path leads back to the file, which says the axes, the
channels and the pixel size. What no one says is guessed, said to be a guess, and may be corrected.

An axis along which a result does not vary (channels inside the layer, a projected Z) has length 1 in the result, with a
scale that makes this one step as long as the image: napari then shows it at every position of that slider.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_milcnn.core.errors import ImageError
from napari_milcnn.core.images import ImageReading, ImageStack, ZReading, maximum_projection, open_image

if TYPE_CHECKING:
    from napari.layers import Image

PATH = "napari_milcnn_path"
"""Key in the metadata of layers that the plugin opened itself: the file."""
_WORDS = {"t": "T", "time": "T", "z": "Z", "c": "C", "channel": "C", "ch": "C", "y": "Y", "x": "X", "p": "P",
          "position": "P", "s": "P", "m": "P"}  # fmt: skip
_BY_COUNT = {2: "YX", 3: "ZYX", 4: "TZYX", 5: "TZCYX", 6: "PTZCYX"}
_LENGTHS = {"micrometer": 1.0, "um": 1.0, "µm": 1.0, "nanometer": 1e-3, "nm": 1e-3, "millimeter": 1e3, "meter": 1e6}
_TIFF = (".tif", ".tiff", ".btf", ".tf8")


@dataclass(frozen=True)
class SourceReading:
    """How layers are read as an image.

    Attributes
    ----------
    axes : str
        One letter for each axis of the layer's data, out of P T Z C Y X, and S for colour samples.
    channels : tuple of str
        One name for each channel of the image, all layers together.
    pixel_size : float or None
        µm per pixel.
    said : tuple of str
        What is a guess, in sentences.
    """

    axes: str
    channels: tuple[str, ...]
    pixel_size: float | None
    said: tuple[str, ...] = ()


@dataclass(frozen=True)
class LayerPlace:
    """Where a layer lies in the world: scale, translate and the rest of its transform, axis by axis."""

    name: str
    scale: tuple[float, ...]
    translate: tuple[float, ...]
    rotate: np.ndarray
    shear: np.ndarray
    affine: np.ndarray
    units: Any
    axis_labels: Any
    shape: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class LayerImage:
    """Layers as one image.

    Attributes
    ----------
    image : ImageStack
        Lazily over the layers' data.
    axes : str
        Of the layers, colour samples left out.
    place : LayerPlace
        Of the first layer.
    _to_world
        The layer's own transform of a point.
    """

    image: ImageStack
    axes: str
    place: LayerPlace
    _layer: Any

    def plane_at(self, point: Sequence[float]) -> int | None:
        """Return the number of the image's plane at a world point, such as `viewer.dims.point`; None outside."""
        if len(point) < len(self.axes):  # the viewer shows other layers only
            return None
        inside = np.asarray(self._layer.world_to_data(tuple(point)[-len(self.axes) :]), float)
        at = dict(zip(self.axes, np.round(inside).astype(int).tolist(), strict=True))
        sizes = self.image.sizes
        wanted = [at[axis] if axis in sizes else 0 for axis in "PTZ"]
        if not all(0 <= number < sizes.get(axis, 1) for axis, number in zip("PTZ", wanted, strict=True)):
            return None
        return int(np.ravel_multi_index(wanted, [sizes.get(axis, 1) for axis in "PTZ"]))

    def point_of(self, plane: int, y: float | None = None, x: float | None = None) -> tuple[float, ...]:
        """Return the world point of a plane, and of a pixel in it."""
        height, width = self.image.plane_shape
        middle = {"Y": height / 2 if y is None else y, "X": width / 2 if x is None else x}
        at = {**dict(zip("PTZ", self.image.planes[plane], strict=True)), **middle}
        inside = [at[axis] if axis in self.image.axes and axis in at else 0 for axis in self.axes]
        return tuple(float(value) for value in self._layer.data_to_world(inside))

    def to_layer(self, planes: np.ndarray) -> np.ndarray:
        """Arrange planes (planes, Y, X) as the layer's axes stand; those it does not vary along have length 1.

        A view: writing to the planes writes to the layer.
        """
        lengths = [self.image.sizes.get(axis, 1) for axis in "PTZ"]
        spread = planes.reshape(*lengths, 1, *planes.shape[-2:])  # P T Z C Y X
        missing = [i for i, axis in enumerate("PTZCYX") if axis not in self.axes]
        squeezed = spread.reshape([n for i, n in enumerate(spread.shape) if i not in missing])
        kept = [axis for axis in "PTZCYX" if axis in self.axes]
        return squeezed.transpose([kept.index(axis) for axis in self.axes])

    def plane_key(self, plane: int) -> tuple[Any, ...]:
        """Return the index of a plane (Y, X) in an array made by `to_layer`."""
        at = dict(zip("PTZ", self.image.planes[plane], strict=True))
        return tuple(slice(None) if axis in "YX" else at.get(axis, 0) for axis in self.axes)

    def transform(self, stride: float = 1, offset: tuple[float, float] = (0.0, 0.0)) -> dict[str, Any]:
        """Return the place of a layer whose pixel (i, j) lies at offset + stride * (i, j), in pixels of the image."""
        scale, translate = list(self.place.scale), list(self.place.translate)
        matrix = _linear(self.place)
        moved = np.zeros(len(self.axes))
        for i, axis in enumerate(self.axes):
            if axis in "YX":
                moved[i] = offset["YX".index(axis)]
                scale[i] *= stride
            elif axis not in self.image.axes or axis == "C":
                moved[i] = (self.place.shape[i] - 1) / 2
                scale[i] *= self.place.shape[i]
        translate = list(np.asarray(translate) + matrix @ moved)
        place = self.place
        return {"scale": scale, "translate": translate, "rotate": place.rotate, "shear": place.shear,
                "affine": place.affine, "units": place.units, "axis_labels": place.axis_labels}  # fmt: skip


def _linear(place: LayerPlace) -> np.ndarray:
    """Rotation, shear and scale of a layer as one matrix, as napari composes them."""
    from napari.utils.transforms import Affine

    return np.asarray(Affine(scale=place.scale, rotate=place.rotate, shear=place.shear).linear_matrix)


def suggest(layers: Sequence[Image]) -> SourceReading:
    """Find out how layers are to be read: from the file behind them, their own labels, or by a guess.

    Raises
    ------
    ImageError
        If the layers cannot be one image.
    """
    _check_alike(layers)
    first = layers[0]
    path = _path(first)
    if path is not None:
        found = _from_file(path, layers)
        if found is not None:
            return found
    shape = _shape(first)
    axes, said = _axes_of(first, shape)
    names = _names(layers, axes, shape)
    size = _size_of(first, axes)
    return SourceReading(axes, names, size, said)


def open_layers(layers: Sequence[Image], reading: SourceReading, *, z: str = "planes") -> LayerImage:
    """Open layers as one image; nothing is read before a plane is.

    Parameters
    ----------
    layers : sequence of Image
        One layer, or one for each channel, all alike.
    reading : SourceReading
        How they are read.
    z : str
        planes, or maximum for the maximum projection.

    Raises
    ------
    ImageError
        If the layers are not alike, or are not what the reading says.
    """
    _check_alike(layers)
    first = layers[0]
    axes = reading.axes.upper()
    if len(layers) > 1 and "C" in axes:
        raise ImageError("the layers have channels of their own; choose one of them, or axes without C")
    data = _data(first) if len(layers) == 1 else _Channels([_data(layer) for layer in layers])
    whole = axes if len(layers) == 1 else f"C{axes}"
    image = open_image(data, axes=whole, channels=reading.channels, pixel_size=reading.pixel_size)
    path = _path(first)
    image = replace(image, name=path_stem(path) if path else str(first.name), path=path)
    stack = maximum_projection(image) if z == "maximum" else image
    return LayerImage(stack, axes.replace("S", ""), _place(first), first)


def file_behind(source: LayerImage, z: ZReading) -> tuple[Path | None, ImageReading]:
    """Return the file that holds the same image, and how it is opened to be read alike; None where no file does."""
    image = source.image
    reading = ImageReading(channels=image.channels, pixel_size=image.pixel_size, z=z)
    if image.path is None:
        return None, reading
    for axes in (None, source.axes):
        try:
            with replace(reading, axes=axes).open(image.path) as found:
                if (found.axes, found.shape) == (image.axes, image.shape):
                    return image.path, replace(reading, axes=axes)
        except ImageError:
            continue
    return None, reading


class _Channels:
    """Arrays of one shape as channels, (channels, ...), read where they are sliced."""

    def __init__(self, arrays: Sequence[Any]) -> None:
        self._arrays = arrays
        self.shape = (len(arrays), *arrays[0].shape)
        self.dtype = np.dtype(arrays[0].dtype)
        self.ndim = len(self.shape)

    def __getitem__(self, key: Any) -> np.ndarray:
        which, *rest = key if isinstance(key, tuple) else (key,)
        if isinstance(which, slice):
            return np.stack([np.asarray(array[tuple(rest)]) for array in self._arrays[which]])
        return np.asarray(self._arrays[which][tuple(rest)])


def path_stem(path: Path) -> str:
    """Name of a file without .ome.tif, .ome.zarr or its one suffix."""
    return path.stem.removesuffix(".ome")


def _path(layer: Image) -> Path | None:
    path = layer.metadata.get(PATH) or layer.source.path
    return Path(path) if path and Path(path).exists() else None


def _data(layer: Image) -> Any:
    return layer.data[0] if layer.multiscale else layer.data


def _shape(layer: Image) -> tuple[int, ...]:
    return tuple(int(n) for n in _data(layer).shape)


def _place(layer: Image) -> LayerPlace:
    shape = _shape(layer)
    return LayerPlace(
        layer.name, tuple(layer.scale), tuple(layer.translate), np.asarray(layer.rotate), np.asarray(layer.shear),
        np.asarray(layer.affine.affine_matrix), layer.units, layer.axis_labels, shape[:-1] if layer.rgb else shape,
    )  # fmt: skip


def _check_alike(layers: Sequence[Image]) -> None:
    if not layers:
        raise ImageError("no image layer was given; expected one, or one for each channel")
    first = layers[0]
    if _data(first).dtype.kind not in "uif":
        raise ImageError(f"the layer {first.name} holds {_data(first).dtype}; expected whole numbers or floats")
    for other in layers[1:]:
        if _shape(other) != _shape(first) or other.rgb or first.rgb:
            raise ImageError(
                f"the layers {first.name} {_shape(first)} and {other.name} {_shape(other)} cannot be channels of one "
                "image; expected the same shape, and no colour images"
            )
        if not np.allclose(other.scale, first.scale) or not np.allclose(other.translate, first.translate):
            raise ImageError(
                f"the layers {first.name} and {other.name} lie at different places (scale {tuple(first.scale)} and "
                f"{tuple(other.scale)}); expected the same, as channels of one image have"
            )


def _from_file(path: Path, layers: Sequence[Image]) -> SourceReading | None:
    """Read axes, channels and pixel size in the file, where its shape is the layer's."""
    try:
        with open_image(path) as image:
            sizes, channels, size = image.sizes, image.channels, image.pixel_size
            axes = _axes_on_disk(path) or image.axes
    except ImageError:
        return None
    first, shape = layers[0], _shape(layers[0])
    lengths = sizes | {"S": shape[-1] if first.rgb else 1}
    if "S" in axes and not first.rgb:
        return None
    if len(layers) > 1 or ("C" in axes and len(shape) == len(axes) - 1):
        axes = axes.replace("C", "")
    if len(axes) != len(shape):
        axes = "".join(axis for axis in axes if lengths.get(axis, 1) > 1 or axis in "YX")
    expected = tuple(lengths.get(axis) for axis in axes)
    if expected != shape:
        return None
    names = channels if len(channels) == _count(axes, shape) * len(layers) else _names(layers, axes, shape)
    return SourceReading(axes, tuple(names), size)


def _axes_on_disk(path: Path) -> str | None:
    if path.suffix.lower() not in _TIFF:
        return None
    from tifffile import TiffFile

    with TiffFile(path) as tiff:
        axes = tiff.series[0].axes
    return axes if set(axes) <= set("PTZCYXS") else None


def _axes_of(layer: Image, shape: tuple[int, ...]) -> tuple[str, tuple[str, ...]]:
    count = len(shape) - layer.rgb
    tail = "S" if layer.rgb else ""
    words = [_WORDS.get(str(label).lower(), "") for label in layer.axis_labels]
    if all(words) and len(set(words)) == count and words[-2:] == ["Y", "X"]:
        return "".join(words) + tail, ()
    axes = _BY_COUNT.get(count)
    if axes is None:
        raise ImageError(f"the layer {layer.name} has {count} axes; expected 2 to 6: Y and X, and some of P, T, Z, C")
    if count == 2:
        return axes + tail, ()
    return axes + tail, (f"The axes {axes} are a guess: nothing says what they are. Correct them if they are others.",)


def _count(axes: str, shape: Sequence[int]) -> int:
    sizes = dict(zip(axes, shape, strict=True))
    return int(sizes.get("C", 1) * min(sizes.get("S", 1), 3))


def _names(layers: Sequence[Image], axes: str, shape: Sequence[int]) -> tuple[str, ...]:
    if len(layers) > 1:
        return tuple(layer.name for layer in layers)
    count = _count(axes, shape)
    if "S" in axes and count == 3:
        return ("red", "green", "blue")
    return (layers[0].name,) if count == 1 else tuple(f"channel {i}" for i in range(count))


def _size_of(layer: Image, axes: str) -> float | None:
    """Pixel size out of the layer's scale, where its unit is a length."""
    at = axes.replace("S", "").index("X")
    unit, scale = str(layer.units[at]), float(layer.scale[at])
    factor = _LENGTHS.get(unit)
    return scale * factor if factor is not None and 0 < scale < math.inf else None
