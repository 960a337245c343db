"""Reads image layers of napari as one lazy image, and puts results back where the layers lie.

napari's own reader loads a TIFF without its metadata. The path of the layer leads back to the file, which stores the
axes, the channels and the pixel size. What the layer itself states takes precedence over its file, because the user may
have changed the layer; the file counts only while the layer has its shape. What neither of them states is guessed. A
note tells the user that it is a guess, and the user can correct it.

A result may not vary along an axis of the layer (channels inside the layer, a projected Z). The result then has length
1 along this axis, with a scale that stretches this one step over the whole image, so that napari shows the result at
every position of the slider.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, combinations, product, takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_milcnn.errors import ImageError
from napari_milcnn.images.channels import GREY, ChannelMatch, find_channels
from napari_milcnn.images.lazy_array import in_memory
from napari_milcnn.images.open import ImageReading, maximum_projection, open_image
from napari_milcnn.images.paths import exists_on_disk, image_name
from napari_milcnn.images.stack import ImageStack, Window
from napari_milcnn.images.units import is_possible_size, micrometres_per
from napari_milcnn.options import ZReading

if TYPE_CHECKING:
    import dask.array as da
    from napari.layers import Image

PATH = "napari_milcnn_path"
"""Key of the file's path in the metadata of layers that the plugin opened itself."""
_WORDS = {"t": "T", "time": "T", "z": "Z", "c": "C", "channel": "C", "ch": "C", "y": "Y", "x": "X", "p": "P",
          "position": "P", "s": "P", "m": "P"}  # fmt: skip
_BY_COUNT = {2: "YX", 3: "ZYX", 4: "TZYX", 5: "TZCYX", 6: "PTZCYX"}
_COMPARED_SIDE = 64
"""Side of the window in which the pixels of a layer are compared with those of its file, in px."""
_RIGHT_ANGLE = 1.0
"""Degrees by which the sides of a pixel may differ from a right angle without a note."""
_SECOND_COPY = re.compile(r" \[\d+\]$")
"""End of a layer's name when napari holds another layer of that name already."""


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
    notes : tuple of str
        Sentences that tell the user which values are guessed or doubtful.
    named : bool
        Whether the channels have names of their own, from the file or from a layer for each of them.
    """

    axes: str
    channels: tuple[str, ...]
    pixel_size: float | None
    notes: tuple[str, ...] = ()
    named: bool = False

    @property
    def is_picture(self) -> bool:
        """Whether the image is a colour picture."""
        return "S" in self.axes

    def match(self, wanted: Sequence[str]) -> ChannelMatch:
        """Find the channels of a model among those of the image."""
        return find_channels(wanted, self.channels, named=self.named, picture=self.is_picture)

    def with_choice(self, wanted: Sequence[str], chosen: Sequence[int]) -> SourceReading:
        """Return the reading in which the chosen channels have the names that the model knows.

        Parameters
        ----------
        wanted : sequence of str
            Names of the channels of the model.
        chosen : sequence of int
            For each of them, the number of the channel; the number after the last one is the grey of a colour picture.

        Raises
        ------
        ImageError
            If one channel is chosen twice, or grey beside another channel.
        """
        if len(set(chosen)) < len(chosen):
            raise ImageError(
                "two channels of the model use the same channel of the image; choose a different one for each"
            )
        if len(self.channels) in chosen:
            if len(chosen) > 1:
                raise ImageError("grey is the mean of red, green and blue; choose it for a model of one channel only")
            return replace(self, channels=(f"{wanted[0]}={GREY[0]}",), named=True)
        names = list(self.channels)
        for name, index in zip(wanted, chosen, strict=True):
            names = [f"{one} (other)" if one == name and i != index else one for i, one in enumerate(names)]
            names[index] = name
        return replace(self, channels=tuple(names), named=True)


@dataclass(frozen=True)
class LayerPlace:
    """Where a layer lies in napari's world: its shape, and its transform axis by axis."""

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
        One letter for each axis of the layers as napari counts them: without the samples of a colour layer.
    place : LayerPlace
        The place of the first layer.
    layer : Image
        The first layer.
    """

    image: ImageStack
    axes: str
    place: LayerPlace
    layer: Any = field(repr=False)

    def plane_at(self, point: Sequence[float], units: Sequence[Any] | None = None) -> int | None:
        """Return the number of the image's plane at a world point; None where the layer shows nothing.

        Parameters
        ----------
        point : sequence of float
            Such as `viewer.dims.point`.
        units : sequence or None
            Units of the point, such as `viewer.dims.units` (napari 0.9); by default those of the layer. They differ if
            another layer in the viewer has smaller units.
        """
        last = (*[0.0] * len(self.axes), *point)[-len(self.axes) :]  # axes are counted from the last, as in napari
        own = np.asarray(last) * self._in_own_units(units)
        inside = np.asarray(self.layer.world_to_data(own), float)
        at = dict(zip(self.axes, np.round(inside).astype(int).tolist(), strict=True))
        layer = dict(zip(self.axes, self.place.shape, strict=True))
        if not all(0 <= at[axis] < layer[axis] for axis in self.axes if axis not in "YX"):
            return None
        wanted = [at[axis] if axis in self.image.axes else 0 for axis in "PTZ"]
        return int(np.ravel_multi_index(wanted, self._lengths))

    def point_of(
        self, plane: int, y: float | None = None, x: float | None = None, units: Sequence[Any] | None = None
    ) -> tuple[float, ...]:
        """Return the world point of a pixel of a plane, by default of its middle; `units` are as in `plane_at`."""
        height, width = self.image.plane_shape
        middle = {"Y": (height - 1) / 2 if y is None else y, "X": (width - 1) / 2 if x is None else x}
        at = {**dict(zip("PTZ", self.image.planes[plane], strict=True)), **middle}
        inside = [at[axis] if axis in self.image.axes and axis in at else 0 for axis in self.axes]
        own = np.asarray(self.layer.data_to_world(inside), float)
        return tuple((own / self._in_own_units(units)).tolist())

    def _in_own_units(self, units: Sequence[Any] | None) -> np.ndarray:
        """Return the length of the viewer's units in units of the layer, axis by axis."""
        if units is None or len(units) < len(self.axes):
            return np.ones(len(self.axes))
        from pint import Quantity

        pairs = zip(tuple(units)[-len(self.axes) :], self.place.units, strict=True)
        return np.array([float(Quantity(1.0, str(one)).to(str(own)).magnitude) for one, own in pairs])

    def to_layer(self, planes: np.ndarray | da.Array) -> Any:
        """Arrange planes (planes, Y, X) along the axes of the layer; axes along which they do not vary have length 1.

        The result is a view: writing to it writes to the planes.
        """
        lengths = dict(zip("PTZCSYX", (*self._lengths, 1, 1, *planes.shape[-2:]), strict=True))
        present = [axis for axis in lengths if axis in self.axes]
        spread = planes.reshape([lengths[axis] for axis in present])
        return spread.transpose([present.index(axis) for axis in self.axes])

    @property
    def _lengths(self) -> list[int]:
        """Lengths of the image along P, T and Z; 1 for an axis that it does not have."""
        return [self.image.sizes.get(axis, 1) for axis in "PTZ"]

    def to_planes(self, array: np.ndarray) -> np.ndarray:
        """Arrange an array with the axes of the layer, such as labels drawn on it, as planes (planes, Y, X).

        Along axes that the image does not have, the largest value is taken, because cells may be drawn on any channel.
        An array with another number of axes is returned unchanged.
        """
        if array.ndim != len(self.axes):
            return array
        wanted = [axis for axis in "PTZYX" if axis in self.image.axes]
        flat = np.max(array, tuple(i for i, axis in enumerate(self.axes) if axis not in wanted))
        left = [axis for axis in self.axes if axis in wanted]
        moved: np.ndarray = flat.transpose([left.index(axis) for axis in wanted])
        return moved.reshape(-1, *moved.shape[-2:])

    def plane_key(self, plane: int) -> tuple[Any, ...]:
        """Return the index of a plane (Y, X) in an array made by `to_layer`."""
        at = dict(zip("PTZ", self.image.planes[plane], strict=True))
        return tuple(slice(None) if axis in "YX" else at.get(axis, 0) for axis in self.axes)

    def transform(self, stride: float = 1, offset: tuple[float, float] = (0.0, 0.0)) -> dict[str, Any]:
        """Return the transform of a layer whose pixel (i, j) lies at offset + stride * (i, j) in image pixels."""
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
    """Find out how to read layers: from the file behind them, from their axis labels, or by a guess.

    Raises
    ------
    ImageError
        If the layers cannot be one image.
    """
    _check_alike(layers)
    first, path = layers[0], _path(layers[0])
    found = _from_file(path, layers) if path is not None else None
    if found is None:
        axes = _labelled(first)
        axes, notes = (axes, ()) if axes else _guessed(first)
        names, named = _channel_names(layers, axes), _are_named(layers, axes)
        found = SourceReading(axes, names, _size_in(path, axes, layers), notes, named)
    size, size_notes = _size_of(first, found.axes)
    if size is None and found.pixel_size is not None:
        return found
    return replace(found, pixel_size=size, notes=(*found.notes, *size_notes))


def open_layers(layers: Sequence[Image], reading: SourceReading, *, z: str = "planes") -> LayerImage:
    """Open layers as one image; pixels are read only when a plane is read.

    Parameters
    ----------
    layers : sequence of Image
        One layer, or one for each channel, all alike.
    reading : SourceReading
        How to read them.
    z : str
        `planes`, or `maximum` for the maximum projection.

    Raises
    ------
    ImageError
        If the layers differ from each other or do not fit the reading.
    """
    _check_alike(layers)
    first = layers[0]
    axes = reading.axes.upper()
    if len(layers) > 1 and "C" in axes:
        raise ImageError("each of the layers has channels of its own; select only one layer, or enter axes without C")
    if first.rgb and axes[-1:] != "S":
        raise ImageError(
            f"the layer {first.name} is a colour image; expected axes that end in S, such as YXS, not {axes}"
        )
    data = _data(first) if len(layers) == 1 else _Channels([_data(layer) for layer in layers])
    whole = axes if len(layers) == 1 else f"C{axes}"
    image = open_image(data, axes=whole, channels=reading.channels, pixel_size=reading.pixel_size)
    path = _path(first)
    image = replace(image, name=image_name_of(layers), path=path)
    stack = maximum_projection(image) if z == "maximum" else image
    return LayerImage(stack, axes[:-1] if first.rgb else axes, _layer_place(first), first)


def file_behind(source: LayerImage, z: ZReading) -> tuple[Path | None, ImageReading]:
    """Return the file that holds the same image, and how to open it so that it reads alike; None if no file does."""
    image = source.image
    is_grey = source.layer.rgb and "C" not in image.axes
    channels = (f"{image.channels[0]}={GREY[0]}",) if is_grey else image.channels
    reading = ImageReading(channels=channels, pixel_size=image.pixel_size, z=z)
    if image.path is None:
        return None, reading
    own = source.axes + ("S" if source.layer.rgb else "")
    for axes, series in product((None, own), (None, 0)):
        wanted = replace(reading, axes=axes, series=series)
        try:
            with wanted.open(image.path) as found:
                alike = (found.axes, found.shape) == (image.axes, image.shape)
                if alike and np.array_equal(_sample(found), _sample(image)):
                    return image.path, wanted
        except ImageError:
            continue
    return None, reading


def _sample(image: ImageStack) -> np.ndarray:
    """Read a window in the middle of the first plane: (channels, Y, X)."""
    (y0, y1), (x0, x1) = (
        (max(0, (n - _COMPARED_SIDE) // 2), min(n, (n + _COMPARED_SIDE) // 2)) for n in image.plane_shape
    )
    return image.plane(0, window=Window(y0, y1, x0, x1))


class _Channels:
    """Arrays of one shape as channels, (channels, ...); slicing reads only what it needs."""

    def __init__(self, arrays: Sequence[Any]) -> None:
        self._arrays = arrays
        self.shape = (len(arrays), *arrays[0].shape)
        self.dtype = np.result_type(*(array.dtype for array in arrays))
        self.ndim = len(self.shape)

    def __getitem__(self, key: Any) -> np.ndarray:
        which, *rest = key if isinstance(key, tuple) else (key,)
        if isinstance(which, slice):
            return np.stack([in_memory(array[tuple(rest)]) for array in self._arrays[which]])
        return in_memory(self._arrays[which][tuple(rest)])


def image_name_of(layers: Sequence[Image]) -> str:
    """Name an image after its only layer, after what the names of its layers share, or else after its file.

    The number that napari adds to a name that exists already stays: "B03 GFP [1]" and "B03 RFP [1]" give "B03 [1]".
    Two files with one name, or two layers of one file, thus get separate result layers.
    """
    names = [re.sub(r"\.ome\b", "", str(layer.name)) for layer in layers]
    if len(names) == 1:
        return names[0]
    parts = [re.split(r"( \[\d+\])$", name)[:2] for name in names]
    words = zip(*(re.split(r"([\W_]+)", base[0]) for base in parts), strict=False)
    common = "".join(each[0] for each in takewhile(lambda each: len(set(each)) == 1, words))
    counts = {"".join(part[1:]) for part in parts}
    stem = re.sub(r"[\W_]+$", "", common)
    path = _path(layers[0])
    return (stem or (image_name(path) if path else names[0])) + (counts.pop() if stem and len(counts) == 1 else "")


def group_layers(layers: Sequence[Image], opened: Sequence[tuple[Image, ...]] = ()) -> list[tuple[Image, ...]]:
    """Group layers into images: the channels of a file belong together, every other layer is an image of its own.

    Channels of a file have one path and one shape. If a file is opened a second time, napari adds the same number to
    the names of all its layers, which then form a group of their own.

    Parameters
    ----------
    layers : sequence of Image
        In the order of the layer list.
    opened : sequence of tuple of Image
        Groups that are known because the plugin opened their layers itself.
    """
    groups: dict[Any, list[Image]] = {}
    known = {layer: number for number, group in enumerate(opened) for layer in group}
    for layer in layers:
        path, copy = _stated_path(layer), _SECOND_COPY.search(layer.name)
        key = (path, data_shape(layer), layer.rgb, copy and copy.group()) if path else id(layer)
        groups.setdefault(known.get(layer, key), []).append(layer)
    return [tuple(group) for group in groups.values()]


def _stated_path(layer: Image) -> str | None:
    """Return the path of the file that a layer was opened from, even if the file is gone; None without a file."""
    path = layer.metadata.get(PATH) or layer.source.path
    return str(path) if path else None


def _path(layer: Image) -> Path | None:
    path = _stated_path(layer)
    return Path(path) if path and exists_on_disk(Path(path)) else None


def _data(layer: Image) -> Any:
    return layer.data[0] if layer.multiscale else layer.data


def data_shape(layer: Image) -> tuple[int, ...]:
    """Return the shape of a layer's data, of the finest level where it has several."""
    return tuple(int(n) for n in _data(layer).shape)


def _layer_place(layer: Image) -> LayerPlace:
    shape = data_shape(layer)
    return LayerPlace(
        layer.name, tuple(layer.scale), tuple(layer.translate), np.asarray(layer.rotate), np.asarray(layer.shear),
        np.asarray(layer.affine.affine_matrix), layer.units, layer.axis_labels, shape[:-1] if layer.rgb else shape,
    )  # fmt: skip


def _check_alike(layers: Sequence[Image]) -> None:
    if not layers:
        raise ImageError("no image layer was given; expected one, or one for each channel")
    for layer in layers:
        if _data(layer).dtype.kind not in "uif":
            raise ImageError(f"the layer {layer.name} holds {_data(layer).dtype}; expected whole numbers or floats")
    first = layers[0]
    for other in layers[1:]:
        if data_shape(other) != data_shape(first) or other.rgb or first.rgb:
            raise ImageError(
                f"the layers {first.name} {data_shape(first)} and {other.name} {data_shape(other)} cannot be channels "
                "of one image; expected the same shape, and no colour images"
            )
        if not _same_transform(_layer_place(first), _layer_place(other)):
            raise ImageError(
                f"the layers {first.name} and {other.name} lie at different places (scale {_tuple_text(first.scale)} "
                f"and {_tuple_text(other.scale)}, translate {_tuple_text(first.translate)} and "
                f"{_tuple_text(other.translate)}, or another rotation or shear); expected the same place for all "
                "channels of an image"
            )


def _same_transform(one: LayerPlace, other: LayerPlace) -> bool:
    matrices = np.allclose(_linear(one), _linear(other)) and np.allclose(one.affine, other.affine)
    return one.units == other.units and matrices and np.allclose(one.translate, other.translate)


def _tuple_text(values: Iterable[float]) -> str:
    return "(" + ", ".join(f"{value:g}" for value in values) + ")"


def _from_file(path: Path, layers: Sequence[Image]) -> SourceReading | None:
    """Read axes, channels and pixel size from the file if the layers have its shape; None if they do not.

    If a file holds several images, napari's own reader opens only the first.
    """
    for series in (None, 0):
        try:
            with open_image(path, series=series) as image:
                axes = _labelled(layers[0]) or _stored(image, layers)
                if axes and _fits(layers[0], axes, image):
                    names = _names_in(image, axes, layers)
                    named = image.channels_named if set(names) <= set(image.channels) else _are_named(layers, axes)
                    return _compared(layers, SourceReading(axes, names, image.pixel_size, named=named), image)
        except ImageError:
            continue
    return None


def _stored(image: ImageStack, layers: Sequence[Image]) -> str:
    """Return the axes of the layers in the order of the file; empty if none fit.

    The layers may lack some axes of the file: axes of length 1, channels that are separate layers, and the axis P of a
    file with several images.
    """
    assert image.stored is not None
    letters, lengths, images = image.stored
    known = [(axis, n) for axis, n in zip(letters, lengths, strict=True) if axis != "-"]
    if images > 1:
        known.insert(0, ("P", images))
    droppable = "PC" if images > 1 else "C"
    optional = [axis for axis, n in known if axis in droppable or (n == 1 and axis not in "YX")]
    shape = data_shape(layers[0])
    for dropped in chain.from_iterable(combinations(optional, n) for n in range(len(optional) + 1)):
        left = [(axis, n) for axis, n in known if axis not in dropped]
        if tuple(n for _, n in left) == shape and not (len(layers) > 1 and "C" in dict(left)):
            found = "".join(axis for axis, _ in left)
            return found if found[-1] == "S" or not layers[0].rgb else ""
    return ""


def _names_in(image: ImageStack, axes: str, layers: Sequence[Image]) -> tuple[str, ...]:
    """Name the channels as in the file if the layers hold all of them, else by the words in the names of the layers."""
    if len(layers) == 1 and len(image.channels) == channel_count(layers[0], axes):
        return image.channels
    if len(layers) > 1 or channel_count(layers[0], axes) == 1:
        found = [_channel_in(layer.name, image.channels) for layer in layers]
        if all(found) and len(set(found)) == len(found):
            return tuple(found)
    return _channel_names(layers, axes)


def _channel_in(name: str, channels: Sequence[str]) -> str:
    """Return the channel whose name stands as a word in the name of a layer; empty if none or several do."""
    found = [channel for channel in channels if channel and re.search(rf"(?<!\w){re.escape(channel)}(?!\w)", name)]
    longest = [channel for channel in found if all(len(channel) >= len(other) for other in found)]
    return longest[0] if len(longest) == 1 else ""


def _compared(layers: Sequence[Image], reading: SourceReading, image: ImageStack) -> SourceReading:
    """Add a note if the pixels of layers in memory differ from their file: the axes may differ as well."""
    if _labelled(layers[0]) or not isinstance(_data(layers[0]), np.ndarray):
        return reading
    if _same_pixels(open_layers(layers[:1], _alone(reading, layers)).image, image):
        return reading
    note = (
        f"The pixels of the layer differ from those of its file. The axes {reading.axes} are those of the file. "
        "Correct them if they are wrong."
    )
    return replace(reading, notes=(note,))


def _same_pixels(layer: ImageStack, file: ImageStack) -> bool:
    """Whether the middle of a layer is that of its file, or of one channel of the file.

    A damaged plane counts as the same: its error appears when it is read. An alpha sample is not compared, because
    possibly only one of the two has it.
    """
    try:
        here, there = _sample(layer), _sample(file)
    except ImageError:
        return True
    if len(here) == 1:
        return any(np.array_equal(here[0], channel) for channel in there)
    return np.array_equal(here[: len(there)], there[: len(here)])


def _alone(reading: SourceReading, layers: Sequence[Image]) -> SourceReading:
    """Return how to read the first of the layers without the others."""
    return reading if len(layers) == 1 else replace(reading, channels=reading.channels[:1])


def _fits(layer: Image, axes: str, image: ImageStack) -> bool:
    """Whether a layer is as long as an image along P, T, Z, Y and X."""
    lengths = zip(axes, data_shape(layer), strict=True)
    return all(axis in "CS" or image.sizes.get(axis, 1) == n for axis, n in lengths)


def _size_in(path: Path | None, axes: str, layers: Sequence[Image]) -> float | None:
    """Return the pixel size of a file without stated axes, if it has the shape of the layers with these axes."""
    if path is None:
        return None
    try:
        with open_image(path, axes=axes) as image:
            return image.pixel_size if _fits(layers[0], axes, image) else None
    except ImageError:
        return None


def _labelled(layer: Image) -> str:
    """Return the axes that the axis labels of a layer name; empty if they do not name all of them."""
    axes = [_WORDS.get(str(label).lower(), "") for label in layer.axis_labels]
    if not all(axes) or len(set(axes)) < len(axes) or not {"Y", "X"} <= set(axes):
        return ""
    return "".join(axes) + ("S" if layer.rgb else "")


def _guessed(layer: Image) -> tuple[str, tuple[str, ...]]:
    """Return axes that fit the number of axes, T where the unit is one of time, and a note that they are guessed."""
    tail = "S" if layer.rgb else ""
    axes = _BY_COUNT.get(layer.ndim)
    times = [i for i, unit in enumerate(layer.units[:-2]) if str(unit.dimensionality) == "[time]"]
    if axes is not None and len(times) == 1:
        letters = list(axes.replace("T", axes[times[0]]))
        letters[times[0]] = "T"
        axes = "".join(letters)
    if axes is None:
        raise ImageError(
            f"the layer {layer.name} has {layer.ndim} axes; expected 2 to 6: Y and X, and some of P, T, Z, C"
        )
    note = f"The axes {axes} are guessed: neither the layer nor a file names them. Correct them if they are wrong."
    return axes + tail, (note,) if layer.ndim > 2 else ()


def channel_count(layer: Image, axes: str) -> int:
    """Count the channels of a layer with these axes, without an alpha sample."""
    sizes = dict(zip(axes, data_shape(layer), strict=False))
    return int(sizes.get("C", 1) * min(sizes.get("S", 1), 3))


def _channel_names(layers: Sequence[Image], axes: str) -> tuple[str, ...]:
    if len(layers) > 1:
        return tuple(layer.name for layer in layers)
    count = channel_count(layers[0], axes)
    if "S" in axes and count == 3:
        return ("red", "green", "blue")
    return (layers[0].name,) if count == 1 else numbered_channels(count)


def _are_named(layers: Sequence[Image], axes: str) -> bool:
    """Whether channels that are called after their layers, or colours, have names of their own."""
    return len(layers) > 1 or "S" in axes


def numbered_channels(count: int) -> tuple[str, ...]:
    """Return names for channels that have none."""
    return tuple(f"channel {i}" for i in range(count))


def _size_of(layer: Image, axes: str) -> tuple[float | None, tuple[str, ...]]:
    """Return the pixel size in µm, from scale, rotation, shear, affine and units together, and notes about it."""
    place = _layer_place(layer)
    steps = (place.affine[:-1, :-1] @ _linear(place))[:, [axes.index(axis) for axis in "YX"]]  # (world axes, Y X)
    reached = np.flatnonzero(np.abs(steps).max(1) > 1e-9 * np.abs(steps).max())
    units = [micrometres_per(str(layer.units[axis])) for axis in reached]
    lengths = [unit for unit in units if unit is not None]
    if len(lengths) < len(units):
        sides = np.linalg.norm(steps, axis=0)
        if np.allclose(sides, 1):
            return None, ()
        return None, (f"The scale {sides[1]:.4g} has no unit of length. If it is in µm, enter it as the pixel size.",)
    in_micrometres = steps[reached] * np.array(lengths)[:, np.newaxis]
    y, x = np.linalg.norm(in_micrometres, axis=0).tolist()
    size = x if abs(y - x) <= 0.01 * x else (y + x) / 2
    if not (is_possible_size(x) and is_possible_size(y)):
        return None, (f"The layer gives a pixel of {y:g} x {x:g} µm, which no microscope has. Enter the pixel size.",)
    notes = []
    if size != x:
        notes.append(f"The pixels are not square (Y {y:g} µm, X {x:g} µm); their mean, {size:g} µm, is used.")
    angle = float(np.degrees(np.arccos(np.clip(in_micrometres[:, 0] @ in_micrometres[:, 1] / (x * y), -1, 1))))
    if abs(angle - 90) > _RIGHT_ANGLE:
        notes.append(
            f"The pixels are sheared: their sides are at {angle:.0f}° to each other. The image is read as it is "
            "stored, as if they were at right angles."
        )
    return float(f"{size:.9g}"), tuple(notes)
