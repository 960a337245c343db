"""The layers that the docks make in the viewer, and keep up to date: a re-run changes them, it adds none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from napari.layers import Image, Labels, Layer

from napari_milcnn.figures.palette import class_colours
from napari_milcnn.images.lazy_array import scratch_array
from napari_milcnn.plugin.classify.image_state import ImageState
from napari_milcnn.plugin.layers_to_image import SourceReading, open_layers
from napari_milcnn.plugin.results_to_layers import (
    OURS,
    add_layer,
    class_map_layer,
    evidence_layer,
    image_layers,
    label_numbers,
    layer_name,
    mask_layer,
    show_plane,
)
from napari_milcnn.schema import OBJECT_COLUMNS

if TYPE_CHECKING:
    from napari.viewer import Viewer

    from napari_milcnn.images.stack import ImageStack
    from napari_milcnn.inference.masks import PlaneMasks
    from napari_milcnn.plugin.results_to_layers import LayerData

_TABLE_COLUMNS = ["index", "plane", *OBJECT_COLUMNS]
_KINDS = {"image": Image, "labels": Labels}


class LayerWriter:
    """What the viewer shows of the entries.

    Parameters
    ----------
    viewer : Viewer
        Touched in its own thread only.
    """

    def __init__(self, viewer: Viewer) -> None:
        self.viewer = viewer
        self._made: dict[tuple[Any, str], Layer] = {}
        self._evidence: dict[tuple[ImageState, str], Any] = {}

    def open(self, entry: ImageState, image: ImageStack, limits: Any) -> SourceReading:
        """Add the image of a dropped file as layers, one a channel, and say how they are read."""
        added = [self.add(data) for data in image_layers(image, limits)]
        entry.layers = tuple(added)
        axes = image.axes.replace("C", "")
        reading = SourceReading(axes, tuple(image.channels), image.pixel_size, ())
        entry.source = open_layers(entry.layers, reading)
        return reading

    def write(self, entry: ImageState, plane: int, masks: PlaneMasks | None) -> None:
        """Write the masks of one plane, empty where they are hidden; `refresh_masks` shows them."""
        if masks is None or entry.source is None:
            return
        if entry.labels is None:
            shape = (len(entry.source.image.planes), *entry.source.image.plane_shape)
            entry.labels = scratch_array(shape, np.int32)
        numbers = np.zeros(int(masks.labels.max(initial=0)) + 1, entry.labels.dtype)
        start = entry.start_of(plane, len(numbers) - 1)
        own = _numbers(entry, masks, start)
        numbers[masks.shown["label"]] = own
        entry.labels[plane] = 0 if entry.hides_masks(plane) else numbers[masks.labels]
        index = np.zeros(len(masks.objects), numbers.dtype)
        index[masks.objects["shown"].to_numpy(bool)] = own
        entry.tables[plane] = masks.objects.assign(plane=plane, index=index)[_TABLE_COLUMNS]
        entry.joined = None

    def refresh_masks(self, entry: ImageState) -> None:
        """Show what was written, with its colours and features."""
        assert entry.source is not None
        assert entry.model is not None
        assert entry.labels is not None
        objects = objects_of(entry)
        shown = objects[objects["index"] > 0]
        self.put(entry, mask_layer(entry.source, entry.labels, shown, entry.model.classes))

    def put_class_map(self, entry: ImageState, name: str) -> Layer:
        """Show the class map of a class over all planes; NaN where nothing was classified."""
        assert entry.source is not None
        assert entry.model is not None
        number = entry.model.classes.index(name)
        first = next(iter(entry.predictions.values()))
        maps = np.full((len(entry.source.image.planes), *first.class_maps.shape[-2:]), np.nan, np.float32)
        for plane, prediction in entry.predictions.items():
            maps[plane] = prediction.class_maps[0, number]
        colour = class_colours(entry.model.classes)[name]
        return self.put(entry, class_map_layer(entry.source, maps, name, colour, first.placement))

    def put_evidence(self, entry: ImageState, name: str, kind: str, plane: int, evidence: np.ndarray) -> Layer:
        """Show the evidence (Y, X) for a class in one plane; what other planes show stays."""
        assert entry.source is not None
        assert entry.model is not None
        colour = class_colours(entry.model.classes)[name]
        maps = np.zeros((len(entry.source.image.planes), *evidence.shape), np.float32)
        highest = max(float(evidence.max()), 1e-9)
        data = evidence_layer(entry.source, maps, name, colour, kind, highest)
        before, key = self._find(entry, data), (entry, data[1]["name"])
        known = self._evidence.get(key) is entry.model
        self._evidence[key] = entry.model
        if known and before is not None and _same_place(before, data[0], data[1]):
            before.data[entry.source.plane_key(plane)] = evidence
            before.contrast_limits = (0, max(before.contrast_limits[1], highest))
            before.refresh()
            return before
        data[0][entry.source.plane_key(plane)] = evidence
        return self.put(entry, data)

    def go_to(self, entry: ImageState, plane: int, place: tuple[float, float] | None = None) -> None:
        """Show a plane of an entry, and centre the view on a place (y, x) in image pixels."""
        assert entry.source is not None
        show_plane(self.viewer, entry.source, plane, place)

    def put(self, owner: Any, data: LayerData) -> Any:
        """Change the owner's layer of this name (an entry's, or of a user's own layer), or add one.

        It is replaced if it lies at another place now, or shows other classes.
        """
        array, facts, _kind = data
        layer = self._find(owner, data)
        if layer is not None and not (_same_place(layer, array, facts) and layer.metadata == facts["metadata"]):
            self.viewer.layers.remove(layer)
            layer = None
        if layer is None:
            layer = self.add(data)
        else:
            if layer.data.shape != array.shape or not np.may_share_memory(layer.data, array):
                layer.data = array
            if "features" in facts:
                layer.features = facts["features"]
            layer.refresh()
        self._made[owner, facts["name"]] = layer
        return layer

    def masks_of(self, entry: ImageState) -> Any:
        """Return the mask layer of an entry; None where there is none, or no longer."""
        if entry.source is None:
            return None
        layer = self._made.get((entry, layer_name(entry.source, "masks")))
        return layer if layer is not None and layer in self.viewer.layers else None

    def let_go(self, owner: Any) -> None:
        """Leave the layers of an owner to whoever comes next with an image of this name."""
        self._made = {key: layer for key, layer in self._made.items() if key[0] is not owner}
        self._evidence = {key: model for key, model in self._evidence.items() if key[0] is not owner}

    def _find(self, owner: Any, data: LayerData) -> Any:
        """Return the owner's layer; else one of this name that was made here and that no other owner has."""
        name, kind = data[1]["name"], data[2]
        self._made = {key: layer for key, layer in self._made.items() if layer in self.viewer.layers}
        made = self._made.get((owner, name))
        if made is not None or name not in self.viewer.layers:
            return made
        layer = self.viewer.layers[name]
        layer = getattr(layer, "__wrapped__", layer)
        free = OURS in layer.metadata and layer not in self._made.values() and isinstance(layer, _KINDS[kind])
        return layer if free else None

    def add(self, data: LayerData) -> Layer:
        """Add a layer, and leave the user's own selected."""
        return add_layer(self.viewer, data)


def _same_place(layer: Any, array: np.ndarray, facts: dict[str, Any]) -> bool:
    if layer.ndim != array.ndim:
        return False
    pairs = [(getattr(layer, name), facts[name]) for name in ("scale", "translate", "rotate", "shear")]
    return all(np.allclose(a, b) for a, b in [*pairs, (layer.affine.affine_matrix, facts["affine"])])


def _numbers(entry: ImageState, masks: PlaneMasks, start: int) -> np.ndarray:
    assert entry.model is not None
    return label_numbers(masks.shown["label"].to_numpy(), list(masks.shown["class"]), entry.model.classes, start)


def objects_of(entry: ImageState) -> pd.DataFrame:
    """Put the tables of objects of all planes together: `index` is the number in the mask layer, 0 if not shown."""
    if entry.joined is None:
        tables = [table for _, table in sorted(entry.tables.items()) if len(table)]
        entry.joined = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=_TABLE_COLUMNS)
    return entry.joined
