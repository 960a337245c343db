"""Draw small pictures of images, optionally with the class map and the objects that a run wrote."""

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
from napari_milcnn.figures.overview import (
    CHANNEL_COLOURS,
    composite,
    lay_over_reduced,
    overlay_opacity,
    reducing_step,
)
from napari_milcnn.images.open import open_image
from napari_milcnn.images.stack import ImageStack, PlaneIndex
from napari_milcnn.inference.class_maps import MapPlacement

THUMBNAIL_SIDE = 160
"""Longest side of a thumbnail, in px."""


def thumbnail(
    image: ImageStack, plane: int, channels: Sequence[int] | None = None, side: int = THUMBNAIL_SIDE
) -> np.ndarray:
    """Read a plane as a small picture.

    Parameters
    ----------
    image : ImageStack
        The image.
    plane : int
        Index of the plane.
    channels : sequence of int, optional
        Indices of the channels to show; by default all. At most as many as there are channel colours are shown.
    side : int
        Largest height and width of the thumbnail, in px.

    Returns
    -------
    ndarray
        RGB, uint8 (Y, X, 3).
    """
    step = reducing_step(image.plane_shape, side)
    shown = tuple(range(len(image.channels)) if channels is None else channels)[: len(CHANNEL_COLOURS)]
    raw = image.plane(plane, shown)[:, ::step, ::step].astype(np.float32)
    return np.asarray((255 * composite(raw)).round().astype(np.uint8))


@dataclass(frozen=True)
class Overlay:
    """The files that a run wrote for an image, to be drawn on its thumbnails.

    Attributes
    ----------
    maps, labels : Path or None
        `NAME_maps.ome.tif` and `NAME_labels.ome.tif`; None where the run wrote none.
    class_name : str
        The class whose map is laid over the image.
    """

    maps: Path | None
    labels: Path | None
    class_name: str

    def over(self, picture: np.ndarray, image: ImageStack, plane: int) -> np.ndarray:
        """Lay the class map over a thumbnail, and draw the edges of the objects white.

        Parameters
        ----------
        picture : ndarray
            The thumbnail that `thumbnail` made of the plane with the default side, uint8 (Y, X, 3).
        image : ImageStack
            The image.
        plane : int
            Index of the plane.

        Returns
        -------
        ndarray
            RGB, uint8 (Y, X, 3).

        Raises
        ------
        ImageError
            If a file cannot be read, or does not have the class or the plane.
        """
        grey = picture.astype(np.float32).mean(2, keepdims=True).repeat(3, 2)
        place, step = image.planes[plane], reducing_step(image.plane_shape, THUMBNAIL_SIDE)
        blended = grey
        if self.maps is not None:
            probability = _read_class_map(self.maps, self.class_name, place, step, picture.shape[:2])
            opacity = overlay_opacity(probability)[..., None]
            blended = grey * (1 - opacity) + 255 * colormaps["inferno"](probability)[..., :3] * opacity
        if self.labels is not None:
            with open_image(self.labels) as labels:
                objects = labels.plane(_index_of_plane(labels, place, self.labels), (0,))[0, ::step, ::step]
            if objects.shape == picture.shape[:2]:
                blended[find_boundaries(objects, mode="inner")] = 255
        return np.asarray(blended.round().clip(0, 255).astype(np.uint8))


def _read_class_map(path: Path, name: str, place: PlaneIndex, step: int, shape: tuple[int, ...]) -> np.ndarray:
    """Read the map of a class and lay it over a picture (Y, X) of this shape, which shows each `step`-th pixel."""
    placement = map_placement(path)
    with open_image(path) as maps:
        if name not in maps.channels:
            raise ImageError(f"{path.name} has no map of the class {name}; it has maps of {', '.join(maps.channels)}")
        class_map = maps.plane(_index_of_plane(maps, place, path), (maps.channels.index(name),))[0]
    return lay_over_reduced(class_map, placement, step, shape)


def _index_of_plane(image: ImageStack, place: PlaneIndex, path: Path) -> int:
    if place not in image.planes:
        raise ImageError(f"{path.name} has no plane {' '.join(map(str, place))}; it belongs to another image")
    return image.planes.index(place)


def map_placement(path: Path) -> MapPlacement:
    """Read the place of class maps on their image from the annotations of `NAME_maps.ome.tif`.

    Raises
    ------
    ImageError
        If the file cannot be read or does not give the place of the maps.
    """
    try:
        with tifffile.TiffFile(path) as tiff:
            root = ElementTree.fromstring(tiff.ome_metadata or "<OME/>")
        facts = {node.get("K"): node.text for node in root.iter() if node.tag.endswith("}M")}
        stride, y, x = (float(facts[key] or "") for key in ("stride_px", "first_y_px", "first_x_px"))
    except (KeyError, ValueError, ElementTree.ParseError, tifffile.TiffFileError) as error:
        raise ImageError(
            f"{path.name} does not give the place of its maps on the image; expected maps written by napari-milcnn"
        ) from error
    return MapPlacement(stride, y, x)
