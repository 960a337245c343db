"""Turns results into napari layer tuples with name, place, colours and features.

The last functions touch a viewer: they add, select, show, hide and remove layers, and show a plane.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pandas as pd

from napari_milcnn.figures.palette import class_colours
from napari_milcnn.images.stack import ImageStack, translated
from napari_milcnn.inference.strips.levels import Levels, as_dask, has_levels
from napari_milcnn.plugin.layers_to_image import PATH, LayerImage

if TYPE_CHECKING:
    import dask.array as da
    from napari.components import LayerList, ViewerModel
    from napari.layers import Layer
    from napari.utils.colormaps import CyclicLabelColormap

    from napari_milcnn.inference.class_maps import MapPlacement

LayerData: TypeAlias = tuple[Any, dict[str, Any], str]
Limits: TypeAlias = tuple[tuple[float, float], ...]
"""Intensities (low, high) that each channel is shown between."""
OURS = "napari_milcnn"
"""Key in the metadata of layers that this plugin makes for results."""
CHANNEL_COLOURMAPS = ("green", "magenta", "cyan", "yellow", "red", "blue")
_OPACITY = 0.6

_PIXELS_FOR_LIMITS = 512
"""Pixels along the longer side of a plane that its limits are read from, about."""
LIMITS = (0.1, 99.9)
"""Percentiles of the first plane that an image is shown between."""


def layer_name(source: LayerImage, what: str) -> str:
    """Name the layer of one kind of result; the same image gives the same name, so that a re-run finds the layer."""
    return f"{source.image.name} {what}"


def image_layers(
    image: ImageStack, limits: Sequence[tuple[float, float]] | None = None, levels: Levels | None = None
) -> list[LayerData]:
    """Show an image lazily, one layer for each channel; `limits` are contrast limits (low, high) of each.

    With `levels`, the layers have several sizes, of which napari reads what is in view.
    """
    if levels is None:
        chunks = tuple(1 if axis not in "YX" else n for axis, n in zip(image.axes, image.shape, strict=True))
        sizes = [as_dask(image.data, chunks)]
    else:
        sizes = levels.arrays()
    channels = [[_of_channel(one, image.axes, i) for one in sizes] for i in range(len(image.channels))]
    axes = image.axes.replace("C", "")
    size = image.pixel_size
    facts = {
        "scale": [size if size and axis in "YX" else 1.0 for axis in axes],
        "units": ["um" if size and axis in "YX" else "pixel" for axis in axes],
        "axis_labels": [axis.lower() for axis in axes],
        "metadata": {PATH: str(image.path)} if image.path else {},
    }
    several = len(image.channels) > 1
    return [
        (
            data if levels is not None else data[0],
            facts | {
                "multiscale": levels is not None,
                "name": f"{image.name} {channel}" if several else image.name,
                "blending": "additive" if several else "translucent",
                "colormap": CHANNEL_COLOURMAPS[i % len(CHANNEL_COLOURMAPS)] if several else "gray",
                **({"contrast_limits": limits[i]} if limits else {}),
            },
            "image",
        )
        for i, (channel, data) in enumerate(zip(image.channels, channels, strict=True))
    ]  # fmt: skip


def _of_channel(pixels: da.Array, axes: str, channel: int) -> da.Array:
    """Return one channel of an array with some axes."""
    import dask.array as da

    return da.take(pixels, channel, axes.index("C")) if "C" in axes else pixels


def class_map_layer(
    source: LayerImage, maps: np.ndarray, class_name: str, colour: str, placement: MapPlacement
) -> LayerData:
    """Show the class map of one class over the image: (planes, Y, X), one value per instance, NaN for none."""
    facts = source.transform(placement.stride, (placement.y, placement.x))
    name = layer_name(source, f"class map {class_name}")
    return source.to_layer(maps), facts | _overlay(name, colour, (0.0, 1.0)), "image"


def evidence_layer(
    source: LayerImage, maps: np.ndarray | list[da.Array], class_name: str, colour: str, kind: str, highest: float
) -> LayerData:
    """Show the evidence for one class, (planes, Y, X) in the size of the image, from 0 to `highest`.

    `maps` are those of large planes in several sizes, the full one first.
    """
    name = layer_name(source, f"evidence {class_name} ({kind})")
    data, facts = _to_layer(source, maps)
    return data, source.transform() | facts | _overlay(name, colour, (0.0, highest)), "image"


def _to_layer(source: LayerImage, planes: np.ndarray | list[da.Array]) -> tuple[Any, dict[str, Any]]:
    """Arrange planes, or planes in several sizes, as the layer of an image, and say which of both they are."""
    if isinstance(planes, list):
        return [source.to_layer(one) for one in planes], {"multiscale": True}
    return source.to_layer(planes), {"multiscale": False}


def _overlay(name: str, colour: str, limits: tuple[float, float]) -> dict[str, Any]:
    from napari.utils.colormaps import Colormap

    ramp = Colormap(["#000000", colour], name=f"black to {colour}")
    return {"name": name, "colormap": ramp, "contrast_limits": limits, "blending": "additive",
            "interpolation2d": "linear", "metadata": {OURS: {"what": name, "colour": colour}}}  # fmt: skip


def mask_layer(
    source: LayerImage, labels: np.ndarray | list[da.Array], objects: pd.DataFrame, classes: Sequence[str]
) -> LayerData:
    """Show masks: labels (planes, Y, X), each object in the colour of its class, with its features in the status bar.

    `labels` are those of large planes in several sizes, the full one first. `objects` has the column `index`: the
    number of each object in `labels`, as `label_numbers` returns it.
    """
    data, facts = _to_layer(source, labels)
    return data, {
        **facts,
        **source.transform(), "name": layer_name(source, "masks"), "opacity": _OPACITY,
        "features": features(objects), "colormap": class_colormap(classes),
        "metadata": {OURS: {"classes": list(classes), "image": source.image.name}},
    }, "labels"  # fmt: skip


def features(objects: pd.DataFrame) -> pd.DataFrame:
    """Round the features that napari shows for the object under the pointer, which it finds by the column `index`."""
    shown = objects.drop(columns=["y", "x"], errors="ignore").copy()
    for column in shown.select_dtypes("float"):
        shown[column] = shown[column].astype(float).round(3)
    return shown.reset_index(drop=True)


def label_numbers(labels: np.ndarray, names: Sequence[str], classes: Sequence[str], start: int = 0) -> np.ndarray:
    """Return object numbers that encode the class: classes × (start + label − 1) + index of the class + 1.

    Parameters
    ----------
    labels : ndarray of int
        Numbers of the objects in their plane, from 1.
    names : sequence of str
        The class of each object.
    classes : sequence of str
        The classes of the model.
    start : int
        Number of objects that are reserved for the planes before.
    """
    place = {name: i for i, name in enumerate(classes)}
    own = np.array([place[name] for name in names], np.int64)
    return len(classes) * (start + np.asarray(labels, np.int64) - 1) + own + 1


def class_colormap(classes: Sequence[str]) -> CyclicLabelColormap:
    """Return a colormap that gives every number from `label_numbers` the colour of its class."""
    from napari.utils.colormaps import CyclicLabelColormap

    colours = [(0.0, 0.0, 0.0, 0.0), *map(_hex_to_rgba, class_colours(classes).values())]
    return CyclicLabelColormap(colors=np.array(colours, np.float32))


def _hex_to_rgba(colour: str) -> tuple[float, float, float, float]:
    red, green, blue = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    return red, green, blue, 1.0


def cells_layer(
    source: LayerImage, labels: np.ndarray, table: pd.DataFrame, classes: Sequence[str], name: str
) -> LayerData:
    """Show a copy of a user's cells, labels (planes, Y, X), in the colours of their classes.

    `table` comes from `classify_cells`. The cells of the copy have new numbers, plane by plane; the column `label`
    holds the number in the user's layer.
    """
    rows = table.rename(columns={"top": "class"})
    room = int(labels.max(initial=0))
    rows.insert(
        0, "index", label_numbers((rows["label"] + room * rows["plane"]).to_numpy(), list(rows["class"]), classes)
    )
    copied = np.zeros(labels.shape, np.int64)
    for plane, own in enumerate(labels):
        part, numbers = rows[rows["plane"] == plane], np.zeros(room + 1, np.int64)
        numbers[part["label"]] = part["index"]
        copied[plane] = numbers[own]
    data, facts, kind = mask_layer(source, copied, rows, classes)
    return data, facts | {"name": name}, kind


def cell_features(table: pd.DataFrame) -> pd.DataFrame:
    """Return features for a user's labels layer: the result of each number in the first plane that contains it."""
    rows = table.rename(columns={"top": "class", "label": "index"}).drop_duplicates("index")
    return features(rows[["index", *(name for name in rows if name != "index")]])


def limits_of(image: ImageStack) -> Limits:
    """Intensities (low, high) of each channel that the first plane is shown between."""
    plane = image.plane(0)
    step = max(1, max(image.plane_shape) // _PIXELS_FOR_LIMITS)
    return _limits_of_channels(plane[:, ::step, ::step])


def ready_to_show(image: ImageStack, plane: int = 0) -> tuple[Limits, Levels | None]:
    """Read what is needed to show an image: the limits of each channel and, of a large one, its levels.

    The levels of one plane are made; those of others when they are first shown. It takes as long as reading the plane.

    Raises
    ------
    ImageError
        If the pixels cannot be read.
    """
    if not has_levels(image.plane_shape):
        return limits_of(image), None
    levels, has_channels = Levels(image.data), "C" in image.axes
    at = tuple(number for axis, number in zip("PTZ", image.planes[plane], strict=True) if axis in image.axes)
    with translated(f"{image.path or image.name}: the pixels cannot be read"):
        smallest = [levels.coarse((*at, i) if has_channels else at)[-1] for i in range(len(image.channels))]
    return _limits_of_channels(np.stack(smallest)), levels


def _limits_of_channels(plane: np.ndarray) -> Limits:
    low, high = np.percentile(plane.reshape(len(plane), -1), LIMITS, axis=1)
    return tuple((float(a), float(max(b, a + 1e-6))) for a, b in zip(low, high, strict=True))


def add_layer(viewer: ViewerModel, data: LayerData) -> Layer:
    """Add a layer, and leave the layers selected that the user selected; where none was, the new one is."""
    from napari.layers import Layer

    selection = viewer.layers.selection
    selected, layer = set(selection), Layer.create(*data)
    # for each change of the selection in between, napari would make new controls of the selected layers
    with selection.events.blocker_all() if selected else nullcontext():
        viewer.add_layer(layer)  # it returns napari's wrapper of the layer, which is not what events come from
        select(viewer.layers, selected or {layer})
    return layer


def select(layers: LayerList, wanted: set[Layer]) -> None:
    """Select these layers by one event; napari's own setter gives two, and one also where nothing changes."""
    change = set(layers.selection) ^ wanted
    if change:
        layers.selection.symmetric_difference_update(change)


def show_or_hide(wanted: Mapping[Layer, bool]) -> None:
    """Show some layers and hide others; napari would draw all layers also for one that stays as it is."""
    for layer, visible in wanted.items():
        if layer.visible is not visible:
            layer.visible = visible


def remove(layers: LayerList, gone: Iterable[Layer]) -> None:
    """Remove those of some layers that are there; from 0.9 on, napari draws and collects garbage once for all."""
    there = [layer for layer in gone if layer in layers]
    with getattr(layers, "batched_update", nullcontext)() if there else nullcontext():
        for layer in there:
            layers.remove(layer)


def show_plane(viewer: ViewerModel, source: LayerImage, plane: int, place: tuple[float, float] | None = None) -> None:
    """Move the sliders to a plane of an image, and centre the view on a place (y, x) in pixels of the image."""
    dims = viewer.dims
    y, x = place or (None, None)
    point = source.point_of(plane, y, x, getattr(dims, "units", None))
    axes = dict(enumerate(source.axes, start=dims.ndim - len(point)))
    world = dict(zip(axes, point, strict=True))
    for axis, letter in axes.items():
        if letter in "PTZ" and letter in source.image.axes and axis not in dims.displayed:
            dims.set_point(axis, world[axis])
    if place is not None and set(dims.displayed[-2:]) <= set(world):
        camera = getattr(viewer, "scene", viewer).camera  # napari 0.9 moved it
        camera.center = (*camera.center[:-2], *(world[axis] for axis in dims.displayed[-2:]))
