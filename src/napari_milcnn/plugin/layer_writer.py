"""The layers that the Classify dock makes in the viewer, and keeps up to date: a re-run changes them, it adds none.

A mask layer that the user edited by hand is never changed again: it stays as the user's own, and masks that are made
later get another layer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast
from weakref import WeakSet, ref

import numpy as np
import pandas as pd
from napari.layers import Image, Layer
from numpy.typing import DTypeLike
from psygnal import Signal

from napari_milcnn.figures.palette import class_colours
from napari_milcnn.images.lazy_array import in_memory, scratch_array
from napari_milcnn.inference.strips.levels import empty_sizes, has_levels, sizes_of, stacked_sizes
from napari_milcnn.inference.strips.rows import LookedUp, RowPlane, copy_rows
from napari_milcnn.plugin.layers_to_image import PATH, LayerImage, SourceReading, open_layers
from napari_milcnn.plugin.results_to_layers import (
    OURS,
    add_layer,
    class_map_layer,
    evidence_layer,
    image_layers,
    label_numbers,
    mask_layer,
    remove,
    show_or_hide,
    show_plane,
)
from napari_milcnn.schema import OBJECT_COLUMNS

if TYPE_CHECKING:
    import dask.array as da
    from napari.components import ViewerModel

    from napari_milcnn.images.stack import ImageStack
    from napari_milcnn.inference.masks import PlaneMasks
    from napari_milcnn.inference.strips.levels import Levels
    from napari_milcnn.plugin.classify.records import ImageRecord, PackedLabels
    from napari_milcnn.plugin.results_to_layers import LayerData, Limits

_TABLE_COLUMNS = ["index", "plane", *OBJECT_COLUMNS]
EDITED = "edited by hand"


class ShownArray:
    """One size of what a layer shows in several: an array of the same shape can take its place.

    napari 0.6.6 takes no other data for labels in several sizes, and newer ones show the coarsest size first.

    Attributes
    ----------
    array : dask array
        What it shows now.
    shape, dtype, ndim, size
        As of an array.
    """

    def __init__(self, array: da.Array) -> None:
        self.array = array
        self.shape, self.dtype, self.ndim, self.size = array.shape, array.dtype, array.ndim, array.size

    def __getitem__(self, key: Any) -> np.ndarray:
        return in_memory(self.array[key])

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(in_memory(self.array), dtype)


class DrawnPlanes:
    """Planes (Y, X) of an image as a layer shows them; large ones are read from where they lie, in several sizes.

    Parameters
    ----------
    shape : tuple of int
        Shape (planes, Y, X).
    dtype : type
        Type of a pixel.
    """

    def __init__(self, shape: tuple[int, ...], dtype: type[np.generic]) -> None:
        self.shape, self._dtype = shape, dtype
        self._whole = None if has_levels(shape) else scratch_array(shape, dtype)
        self._sizes: dict[int, list[da.Array]] = {}

    def draw(self, plane: int, found: np.ndarray | RowPlane | None) -> None:
        """Draw a plane, or nothing in it."""
        if self._whole is None:
            self._sizes.pop(plane, None)
            if isinstance(found, RowPlane):
                self._sizes[plane] = sizes_of(found)
        elif found is None:
            self._whole[plane] = 0
        else:
            copy_rows(found, self._whole[plane])

    def data(self) -> np.ndarray | list[da.Array]:
        """Return all planes (planes, Y, X), large ones in several sizes."""
        if self._whole is not None:
            return self._whole
        nothing = empty_sizes(self.shape[-2:], self._dtype)
        return stacked_sizes([self._sizes.get(plane, nothing) for plane in range(self.shape[0])])


@dataclass(eq=False)
class DrawnMasks:
    """The masks of an image as they are drawn.

    Attributes
    ----------
    labels : DrawnPlanes
        The mask layer, int32 (planes, Y, X).
    tables : dict
        By number of the plane, the objects as they are numbered there.
    starts : dict
        By number of the plane, the first of the numbers that its objects have to themselves in the mask layer, and how
        many there are.
    joined : DataFrame or None
        All of `tables` as one; None after a change, until the table is needed.
    """

    labels: DrawnPlanes
    tables: dict[int, pd.DataFrame] = field(default_factory=dict)
    starts: dict[int, tuple[int, int]] = field(default_factory=dict)
    joined: pd.DataFrame | None = None

    def start_of(self, plane: int, count: int) -> int:
        """Return where the numbers of a plane start; it moves behind all others where it needs more than it had."""
        start, room = self.starts.get(plane, (0, -1))
        if count > room:
            start = max((first + many for first, many in self.starts.values()), default=0)
            self.starts[plane] = (start, count + count // 2)
        return start

    def objects(self) -> pd.DataFrame:
        """Put the tables of all planes together: `index` is the number in the mask layer, 0 if not shown."""
        if self.joined is None:
            tables = [table for _, table in sorted(self.tables.items()) if len(table)]
            self.joined = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=_TABLE_COLUMNS)
        return self.joined


class LayerWriter:
    """What the viewer shows of the images of a session.

    Parameters
    ----------
    viewer : ViewerModel
        Touched in its own thread only; the writer does not keep it alive.

    Attributes
    ----------
    label_picked : Signal
        The user picked an object in a mask layer: (key of its image, number of the object).
    """

    label_picked = Signal(tuple)

    def __init__(self, viewer: ViewerModel) -> None:
        self._viewer = ref(viewer)
        viewer.layers.events.removed.connect(self._on_removed)
        self._made: dict[tuple[Any, str], Layer] = {}
        self._masks: dict[int, DrawnMasks] = {}
        self._maps: dict[tuple[Any, str], DrawnPlanes] = {}
        self._edited: WeakSet[Layer] = WeakSet()
        self._stale: set[int] = set()

    @property
    def viewer(self) -> ViewerModel:
        """The viewer."""
        viewer = self._viewer()
        assert viewer is not None
        return viewer

    def open(
        self, image: ImageStack, limits: Limits | None, levels: Levels | None
    ) -> tuple[tuple[Image, ...], SourceReading, LayerImage]:
        """Add the image of a file as layers, one a channel, and say how they are read."""
        added = tuple(cast("Image", self.add(data)) for data in image_layers(image, limits, levels))
        reading = SourceReading(
            image.axes.replace("C", ""), tuple(image.channels), image.pixel_size, named=image.channels_named
        )
        return added, reading, open_layers(added, reading)

    def write(self, image: ImageRecord, plane: int) -> str:
        """Write the masks of one plane, empty where they are hidden or gone; `refresh_masks` shows them.

        Returns
        -------
        str
            The name of the layer in which masks stay that the user edited by hand; empty if there are none.
        """
        if image.source is None or image.model is None:
            return ""
        kept = self._keep_edited(image)
        drawn = self._masks.get(image.key)
        shape = (len(image.source.image.planes), *image.source.image.plane_shape)
        self._stale.add(image.key)
        if drawn is None or drawn.labels.shape != shape:
            drawn = self._masks[image.key] = DrawnMasks(DrawnPlanes(shape, np.int32))
            for other in image.planes:
                self._draw(drawn, image, other)
        else:
            self._draw(drawn, image, plane)
        return kept

    def _draw(self, drawn: DrawnMasks, image: ImageRecord, plane: int) -> None:
        masks = image.planes[plane].masks if plane in image.planes else None
        drawn.joined = None
        if masks is None:
            drawn.labels.draw(plane, None)
            drawn.tables.pop(plane, None)
            return
        labels = cast("PackedLabels | LookedUp", masks.labels)
        numbers = np.zeros(labels.largest + 1, np.int32)
        own = _numbers(image, masks, drawn.start_of(plane, len(numbers) - 1))
        numbers[masks.shown["label"]] = own
        drawn.labels.draw(plane, None if image.hides_masks(plane) else _drawable(labels.mapped(numbers)))
        index = np.zeros(len(masks.objects), numbers.dtype)
        index[masks.objects["shown"].to_numpy(bool)] = own
        drawn.tables[plane] = masks.objects.assign(plane=plane, index=index)[_TABLE_COLUMNS]

    def _keep_edited(self, image: ImageRecord) -> str:
        """Leave a mask layer to the user who edited it, under another name; return the name, or nothing."""
        layer = self.masks_of(image)
        if layer is None or layer not in self._edited:
            return ""
        self._edited.discard(layer)
        self._made = {key: one for key, one in self._made.items() if one is not layer}
        self._masks.pop(image.key, None)
        layer.name = f"{layer.name} ({EDITED})"
        layer.metadata = {**layer.metadata, OURS: {**layer.metadata[OURS], "edited": True}}
        return str(layer.name)

    def refresh(self, images: Mapping[int, ImageRecord]) -> None:
        """Show what was written since the last time."""
        stale, self._stale = self._stale, set()
        for key in stale & images.keys():
            self.refresh_masks(images[key])

    def refresh_masks(self, image: ImageRecord) -> None:
        """Show the masks that were written of an image, with their colours and features."""
        drawn = self._masks.get(image.key)
        if drawn is None or image.source is None or image.model is None:
            return
        if not image.masks and self.masks_of(image) is None:
            return
        shown = drawn.objects()
        shown = shown[shown["index"] > 0]
        before = self.masks_of(image)
        layer = self.put(image.key, "masks", mask_layer(image.source, drawn.labels.data(), shown, image.model.classes))
        if layer is not before:
            layer.events.paint.connect(self._on_paint)
            layer.events.selected_label.connect(self._on_label)

    def _on_paint(self, event: Any) -> None:
        self._edited |= {layer for layer in self._made.values() if layer == event.source}  # napari gives proxies

    def _on_label(self, event: Any) -> None:
        for (owner, what), layer in self._made.items():
            if what == "masks" and layer == event.source:
                self.label_picked.emit((owner, int(event.source.selected_label)))

    def objects_of(self, image: ImageRecord) -> pd.DataFrame:
        """Return the table of the objects of all planes, as they are numbered in the mask layer."""
        drawn = self._masks.get(image.key)
        return drawn.objects() if drawn is not None else pd.DataFrame(columns=_TABLE_COLUMNS)

    def put_class_map(self, image: ImageRecord, name: str) -> Any:
        """Show the class map of a class over all planes; NaN where nothing was classified."""
        assert image.source is not None
        assert image.model is not None
        number = image.model.classes.index(name)
        first = next(iter(image.planes.values())).prediction
        maps = np.full((len(image.source.image.planes), *first.class_maps.shape[-2:]), np.nan, np.float32)
        for plane, found in image.planes.items():
            maps[plane] = found.prediction.class_maps[0, number]
        colour = class_colours(image.model.classes)[name]
        data = class_map_layer(image.source, maps, name, colour, first.placement)
        return self.put(image.key, f"class map {name}", data)

    def put_evidence(
        self, image: ImageRecord, name: str, kind: str, plane: int, evidence: np.ndarray | RowPlane, highest: float
    ) -> Any:
        """Show the evidence (Y, X) for a class in one plane, up to its highest value; what other planes show stays."""
        assert image.source is not None
        assert image.model is not None
        what, highest = f"evidence {name} ({kind})", max(highest, 1e-9)
        maps, before = self._maps.get((image.key, what)), self._layer(image.key, what)
        if maps is None or before is None:
            maps = DrawnPlanes((len(image.source.image.planes), *evidence.shape), np.float32)
        else:
            highest = max(highest, float(before.contrast_limits[1]))
        maps.draw(plane, evidence)
        colour = class_colours(image.model.classes)[name]
        layer = self.put(image.key, what, evidence_layer(image.source, maps.data(), name, colour, kind, highest))
        self._maps[image.key, what] = maps
        layer.contrast_limits = (0, highest)
        return layer

    def go_to(self, image: ImageRecord, plane: int, place: tuple[float, float] | None = None) -> None:
        """Show a plane of an image, and centre the view on a place (y, x) in image pixels."""
        if image.source is not None:
            show_plane(self.viewer, image.source, plane, place)

    def put(self, owner: Any, what: str, data: LayerData) -> Any:
        """Change the layer that shows something of an owner (the key of an image, or a user's own layer), or add it.

        It is told by identity, whatever the user calls it, and replaced if it lies at another place now, or shows other
        classes.
        """
        array, facts, kind = data
        layer = self._layer(owner, what)
        if layer is not None and not (_same_place(layer, array, facts) and layer.metadata == facts["metadata"]):
            self.viewer.layers.remove(layer)
            layer = None
        if layer is None:
            layer = self.add(([ShownArray(one) for one in array], facts, kind) if isinstance(array, list) else data)
        else:
            if isinstance(array, list):
                for shown, one in zip(layer.data, array, strict=True):
                    shown.array = one
            elif layer.data.shape != array.shape or not np.may_share_memory(layer.data, array):
                layer.data = array
            if "features" in facts:
                layer.features = facts["features"]
            layer.refresh()
        self._made[owner, what] = layer
        return layer

    def masks_of(self, image: ImageRecord) -> Any:
        """Return the mask layer of an image; None where there is none, or no longer."""
        return self._layer(image.key, "masks")

    def show_alone(self, image: ImageRecord, others: Iterable[ImageRecord]) -> None:
        """Hide the other images that docks opened, with what was made of them; show this one, if it was hidden so.

        Images that the user opened stay as they are.
        """
        own, was_hidden = set(image.layers), not any(layer.visible for layer in image.layers)
        wanted: dict[Layer, bool] = {
            layer: False for layer in self.viewer.layers if PATH in layer.metadata and layer not in own
        }
        for other in others:
            if other.layers and own.isdisjoint(other.layers) and all(PATH in one.metadata for one in other.layers):
                wanted |= dict.fromkeys(self._made_of(other.key), False)
        if was_hidden:
            wanted |= dict.fromkeys([*image.layers, *self._made_of(image.key)], True)
        show_or_hide(wanted)

    def _made_of(self, owner: Any) -> list[Layer]:
        return [layer for (key, _), layer in self._made.items() if key == owner]

    def remove(self, owner: Any) -> None:
        """Remove the layers of an owner whose results were removed, but not those that the user edited by hand."""
        remove(self.viewer.layers, [layer for layer in self._made_of(owner) if layer not in self._edited])
        self._made = {key: layer for key, layer in self._made.items() if key[0] != owner}
        self._masks.pop(owner, None)
        self._maps = {key: maps for key, maps in self._maps.items() if key[0] != owner}

    def _on_removed(self, event: Any) -> None:
        """Let go of a layer that the user removed, and of what it showed."""
        for key in [key for key, layer in self._made.items() if layer == event.value]:
            del self._made[key]
            self._maps.pop(key, None)

    def _layer(self, owner: Any, what: str) -> Any:
        layer = self._made.get((owner, what))
        return layer if layer is not None and layer in self.viewer.layers else None

    def add(self, data: LayerData) -> Layer:
        """Add a layer, and leave the user's own selected."""
        return add_layer(self.viewer, data)


def _same_place(layer: Any, array: Any, facts: dict[str, Any]) -> bool:
    several = isinstance(array, list)
    if layer.multiscale != several or layer.ndim != (array[0] if several else array).ndim:
        return False
    if several and [one.shape for one in layer.data] != [one.shape for one in array]:
        return False
    pairs = [(getattr(layer, name), facts[name]) for name in ("scale", "translate", "rotate", "shear")]
    return all(np.allclose(a, b) for a, b in [*pairs, (layer.affine.affine_matrix, facts["affine"])])


def _drawable(labels: PackedLabels | LookedUp) -> np.ndarray | RowPlane | None:
    """Return labels as they are drawn; packed ones of a large plane show nothing."""
    if isinstance(labels, LookedUp):
        return labels
    return None if has_levels(labels.shape) else np.asarray(labels)


def _numbers(image: ImageRecord, masks: PlaneMasks, start: int) -> np.ndarray:
    assert image.model is not None
    return label_numbers(masks.shown["label"].to_numpy(), list(masks.shown["class"]), image.model.classes, start)
