"""Small pictures of images, with what was seen in them if a run wrote it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import tifffile
from matplotlib import colormaps
from skimage.segmentation import find_boundaries

from napari_milcnn.errors import ImageError
from napari_milcnn.figures.overview import composite
from napari_milcnn.images.open import open_image
from napari_milcnn.images.stack import ImageStack, PlaneIndex
from napari_milcnn.inference.class_maps import MapPlacement, lay_over

SIDE = 160
"""Longest side in px."""
_CHANNELS = 4


def thumbnail(image: ImageStack, plane: int, channels: Sequence[int] | None = None, side: int = SIDE) -> np.ndarray:
    """Read a plane as a small picture: uint8 (Y, X, 3), at most `side` px high and wide."""
    step = _step(image, side)
    shown = tuple(range(len(image.channels)) if channels is None else channels)[:_CHANNELS]
    raw = image.plane(plane, shown)[:, ::step, ::step].astype(np.float32)
    return np.asarray((255 * composite(raw)).round().astype(np.uint8))


def _step(image: ImageStack, side: int = SIDE) -> int:
    return max(1, -(-max(image.plane_shape) // side))


@dataclass(frozen=True)
class Overlay:
    """What a run wrote of an image: where a class was seen, and the objects.

    Attributes
    ----------
    maps, labels : Path or None
        `NAME_maps.ome.tif` and `NAME_labels.ome.tif`; None where there is none.
    class_name : str
        Whose map is laid over the image.
    """

    maps: Path | None
    labels: Path | None
    class_name: str

    def over(self, picture: np.ndarray, image: ImageStack, plane: int) -> np.ndarray:
        """Lay the map over a thumbnail, and draw the edges of the objects white: uint8 (Y, X, 3)."""
        grey = picture.astype(np.float32).mean(2, keepdims=True).repeat(3, 2)
        at, step = image.planes[plane], _step(image)
        seen = grey
        if self.maps is not None:
            laid = _map_over(self.maps, self.class_name, at, step, picture.shape[:2])
            share = np.clip(0.15 + 0.5 * laid, 0, 1)[..., None]
            seen = grey * (1 - share) + 255 * colormaps["inferno"](laid)[..., :3] * share
        if self.labels is not None:
            with open_image(self.labels) as labels:
                objects = labels.plane(_plane_number(labels, at, self.labels), (0,))[0, ::step, ::step]
            if objects.shape == picture.shape[:2]:
                seen[find_boundaries(objects, mode="inner")] = 255
        return np.asarray(seen.round().clip(0, 255).astype(np.uint8))


def _map_over(path: Path, name: str, at: PlaneIndex, step: int, shape: tuple[int, ...]) -> np.ndarray:
    """Read the map of a class and lay it over a picture of this shape, made small by `step`."""
    placement = map_placement(path)
    with open_image(path) as maps:
        if name not in maps.channels:
            raise ImageError(f"{path.name} has no map of {name}; it has those of {', '.join(maps.channels)}")
        found = maps.plane(_plane_number(maps, at, path), (maps.channels.index(name),))[0]
    return lay_over(found, MapPlacement(placement.stride / step, placement.y / step, placement.x / step), shape)


def _plane_number(image: ImageStack, at: PlaneIndex, path: Path) -> int:
    if at not in image.planes:
        raise ImageError(f"{path.name} has no plane {' '.join(map(str, at))}; it belongs to another image")
    return image.planes.index(at)


def map_placement(path: Path) -> MapPlacement:
    """Read where the class maps of a run lie on their image.

    Raises
    ------
    ImageError
        If the file does not say.
    """
    try:
        with tifffile.TiffFile(path) as tiff:
            root = ElementTree.fromstring(tiff.ome_metadata or "<OME/>")
        facts = {node.get("K"): node.text for node in root.iter() if node.tag.endswith("}M")}
        stride, y, x = (float(facts[key] or "") for key in ("stride_px", "first_y_px", "first_x_px"))
    except (KeyError, ValueError, ElementTree.ParseError, tifffile.TiffFileError) as error:
        raise ImageError(
            f"{path.name} does not say where its maps lie; expected maps written by napari-milcnn"
        ) from error
    return MapPlacement(stride, y, x)
