"""Zarr arrays, OME-Zarr images and plates.

Decisions:

- OME-Zarr metadata is read as plain JSON, so that a file that breaks a rule of the specification elsewhere still opens.
- Of a pyramid the full size is opened.
- A missing chunk of a zarr array reads as its fill value: the specification of zarr says so, and nothing tells such a
  chunk from one that was lost.
- A scale without a unit is not a pixel size; a warning names it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from napari_milcnn.errors import ImageError
from napari_milcnn.images.lazy_array import ArrayLike
from napari_milcnn.images.paths import ZARR_METADATA, has_zarr_metadata
from napari_milcnn.images.stack import FoundImage, translated
from napari_milcnn.images.units import pixel_size_from_sides

if TYPE_CHECKING:
    import zarr

Attributes: TypeAlias = Mapping[str, Any]
"""Metadata as plain JSON."""


def found_array(array: ArrayLike, series: int | None) -> FoundImage:
    """Take a numpy, dask or zarr array as an image."""
    if not all(hasattr(array, need) for need in ("shape", "ndim", "dtype", "__getitem__")):
        raise ImageError(f"an image is a path or a numpy, dask or zarr array; found {type(array).__name__}")
    if series is not None:
        raise ImageError(f"series={series} was asked for, but an array is one image; leave series= out")
    axes = zarr_axes(array)
    return FoundImage((array,), axes or axes_of_single_plane(array.shape), alpha=None)


def axes_of_single_plane(shape: Sequence[int]) -> str | None:
    """Return the axes of an array that holds a single plane; None for any other array."""
    return "-" * (len(shape) - 2) + "YX" if len(shape) >= 2 and all(n == 1 for n in shape[:-2]) else None


def open_zarr(path: Path, series: int | None) -> FoundImage:
    """Open a zarr array or an OME-Zarr image; `series` is the number of one image where the folder holds several."""
    if not has_zarr_metadata(path):
        raise ImageError(
            f"{path} is a folder, but not an OME-Zarr or zarr image: it holds none of {', '.join(ZARR_METADATA)}; give "
            "one image, or on the command line the folder to napari-milcnn classify"
        )
    import zarr

    node = zarr.open(str(path), mode="r")
    if isinstance(node, zarr.Array):
        if series is not None:
            raise ImageError(f"{path}: series={series} was asked for, but this is a single array; leave series= out")
        return found_array(node, None)
    ome = _ome_attributes(node)
    if "multiscales" in ome:
        if series not in (None, 0):
            raise ImageError(f"{path}: series={series} was asked for, but this is a single image; leave series= out")
        return _ome_zarr(path, node, ome)
    if "bioformats2raw.layout" in ome:
        return open_zarr(path / _only_image(path, node, series), None)
    raise ImageError(f"{path} is {_what_group(path, node, ome)}")


def _only_image(path: Path, node: zarr.Group, series: int | None) -> str:
    images = sorted((key for key in node.group_keys() if key.isdigit()), key=int)
    wanted = str(series) if series is not None else images[0] if len(images) == 1 else ""
    if wanted not in images:
        raise ImageError(f"{path} holds {len(images)} images; choose one by series=0, ... out of {', '.join(images)}")
    return wanted


def _what_group(path: Path, node: zarr.Group, ome: Attributes) -> str:
    """Say what a group without an image is, and what to open in its place."""
    if "plate" in ome:
        wells = ome["plate"].get("wells", [])
        example = f", for example {path / wells[0]['path'] / '0'}" if wells else ""
        return f"an OME-Zarr plate of {len(wells)} wells; open one field{example}"
    if "well" in ome:
        fields = [str(each.get("path")) for each in ome["well"].get("images", [])]
        return f"a well of an OME-Zarr plate; open one of its fields: {', '.join(fields)}"
    if "labels" in ome:
        return f"the group of labels of an OME-Zarr image; open the image {path.parent}, or one of {ome['labels']}"
    inside = ", ".join(sorted(node.keys())) or "nothing"
    return f"a zarr group without the metadata of an OME-Zarr image; open an array in it (it holds {inside})"


def plate_wells(path: Path) -> dict[str, tuple[Path, ...]] | None:
    """List the fields of an OME-Zarr plate.

    Parameters
    ----------
    path
        Any file or folder.

    Returns
    -------
    dict or None
        Path of a well in the plate, such as "B/03" -> the folders of its fields, each an image to open. None where
        `path` is not a plate.

    Raises
    ------
    ImageError
        A well that the plate names cannot be read.
    """
    if not has_zarr_metadata(path):
        return None
    plate = _read_ome_attributes(path).get("plate")
    if plate is None:
        return None
    with translated(f"{path} cannot be read as an OME-Zarr plate"):
        names = [str(well["path"]) for well in plate["wells"]]
    return {name: _fields(path / name) for name in names}


def _fields(well: Path) -> tuple[Path, ...]:
    with translated(f"{well} cannot be read as a well of an OME-Zarr plate"):
        return tuple(well / str(each["path"]) for each in _read_ome_attributes(well)["well"]["images"])


def _read_ome_attributes(path: Path) -> Attributes:
    import zarr

    with translated(f"{path} cannot be read as OME-Zarr"):
        return _ome_attributes(zarr.open(str(path), mode="r"))


def _ome_attributes(node: zarr.Group | zarr.Array[Any]) -> Attributes:
    """Return the OME metadata: under "ome" in version 0.5 and later, among the other attributes in 0.4 and before."""
    attributes = dict(node.attrs)
    found = attributes.get("ome", attributes)
    return found if isinstance(found, Mapping) else {}


def _ome_zarr(path: Path, node: zarr.Group, ome: Attributes) -> FoundImage:
    import zarr

    scales = ome["multiscales"][0]
    level = scales["datasets"][0]
    array = node[level["path"]]
    if not isinstance(array, zarr.Array):
        raise ImageError(
            f"{path}: the metadata names {level['path']} as the image, but that is not an array; export it again"
        )
    axes = [each if isinstance(each, dict) else {"name": each} for each in scales.get("axes", [])]
    if not axes and array.ndim == 5:  # versions before 0.3 know no other order
        axes = [{"name": name} for name in "tczyx"]
    letters = "".join(_axis_letter(each) for each in axes) if len(axes) == array.ndim else None
    labels = [str(each.get("label") or "") for each in (ome.get("omero") or {}).get("channels") or []]
    size, note = _zarr_pixel_size(axes, [level, scales])
    notes = [note] if note else []
    if "image-label" in ome:
        notes.append("This is a label image: its values are numbers of objects, not intensities.")
    return FoundImage((array,), letters, channels=tuple(labels), pixel_size=size, warnings=tuple(notes))


def _axis_letter(axis: Attributes) -> str:
    name = str(axis.get("name", "?")).upper()
    return name if len(name) == 1 else {"channel": "C", "time": "T"}.get(str(axis.get("type")), "?")


def _zarr_pixel_size(axes: Sequence[Attributes], levels: Sequence[Attributes]) -> tuple[float | None, str | None]:
    """Multiply the scales of the level and of the whole image; without a unit no size is known."""
    scale = np.ones(len(axes))
    transforms = [each for one in levels for each in one.get("coordinateTransformations") or []]
    for each in transforms:
        if each.get("type") == "scale" and len(each.get("scale", [])) == len(axes):
            scale *= np.asarray(each["scale"], dtype=float)
    sides, units = [], []
    for axis, side in zip(axes, scale, strict=True):
        if _axis_letter(axis) in "YX" and transforms:
            sides.append(float(side))
            units.append(str(axis.get("unit") or ""))
    if sides and not any(units) and sides != [1.0, 1.0]:
        return None, f"The scale {sides[-1]:g} has no unit; if it is in µm, give pixel_size={sides[-1]:g}."
    return pixel_size_from_sides(sides, units)


def zarr_axes(array: ArrayLike) -> str | None:
    """Return the axes that a zarr array names (zarr 3: `dimension_names`; xarray: an attribute), else None."""
    metadata = getattr(array, "metadata", None)
    names = getattr(metadata, "dimension_names", None)
    if names is None and metadata is not None:
        names = dict(getattr(array, "attrs", {})).get("_ARRAY_DIMENSIONS")
    if not names or len(names) != array.ndim or None in names:
        return None
    return "".join(_axis_letter({"name": name, "type": str(name).lower()}) for name in names)
