"""Zarr arrays, OME-Zarr images and plates: versions 0.1 to 0.6, as folders and as one zip file (.ozx, RFC 9).

Decisions:

- OME-Zarr metadata is read as plain JSON, so that a file that breaks a rule of the specification elsewhere still opens.
- Of a pyramid the largest level is opened, wherever it is listed. A level that is named and not there is an error if
  it may be the largest one.
- The pixel size is taken from scales, translations, identities and sequences of them; all of these are multiplied. Of
  any other transformation no size is taken, and a warning names it. Up to version 0.5 the transformations of the whole
  image are applied after those of the level. In version 0.6 the level's own transformation leads to the coordinate
  system in which the image is meant to be seen, and counts; a further one counts only where that system has no unit,
  or only says that a pixel is 1 µm.
- A version that is not known is said. Its pixels are read, but no pixel size is taken: what its scales mean is a guess.
- A scale without a unit is not a pixel size; a warning names it.
- A missing chunk of a zarr array reads as its fill value: the specification of zarr says so, and nothing tells such a
  chunk from one that was lost; of an image that is no label image a warning counts them. A chunk that is empty, cut
  short, a folder, a pipe or a broken link is an error where it is read.
- A chunk above 2 GiB, and planes that no microscope makes, are refused when the image is opened.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from math import prod
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from napari_milcnn.errors import ImageError
from napari_milcnn.images.lazy_array import ArrayLike
from napari_milcnn.images.paths import has_zarr_metadata, is_zipped_zarr
from napari_milcnn.images.stack import FoundImage, translated
from napari_milcnn.images.zarr_parts.files import LARGEST_CHUNK, ZarrFiles
from napari_milcnn.images.zarr_parts.scales import (
    Attributes,
    LevelSpace,
    axis_letter,
    json_objects,
    pixel_size_of,
    product_of,
)
from napari_milcnn.untrusted import short

if TYPE_CHECKING:
    import zarr

_KNOWN_VERSION: Final = re.compile(r"0\.[1-6](\.\d+)?([-.]?(dev|rc|a|b|alpha|beta)[-.]?\d*)?")
"""Versions of OME-Zarr that are read; drafts of a version, such as 0.6rc0, are read as this version."""
_LARGEST_PLANE: Final = 1 << 38
"""Pixels of the largest plane; the largest slides have a third of it."""
_LONGEST_LIST: Final = 10_000
"""Wells of a plate, or fields of a well, at most."""
_COUNTED_CHUNKS: Final = 20_000
"""Of an image with more chunks than this, missing ones are not counted: it would take too long on a network."""


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
    """Open a zarr array or an OME-Zarr image, a folder or a zip file.

    `series` is the number of one image where it holds several.
    """
    return _opened(ZarrFiles.at(path), str(path), series)


def _opened(files: ZarrFiles, name: str, series: int | None) -> FoundImage:
    """Open an image; `name` is its path in messages."""
    import zarr

    node = files.node()
    if isinstance(node, zarr.Array):
        if series is not None:
            raise ImageError(f"{name}: series={series} was asked for, but this is a single array; leave series= out")
        return _opened_array(files, name)
    ome = _ome_attributes(node)
    if "multiscales" in ome:
        return _ome_zarr(files, name, ome, series)
    if "plate" not in ome and "bioformats2raw.layout" in ome:
        image = _image_of_series(files, name, series)
        return _opened(files.child(image), f"{name}/{image}", None)
    raise ImageError(f"{name} is {_what_group(files, name, ome)}")


def _opened_array(files: ZarrFiles, name: str) -> FoundImage:
    """Open an array; one that is a level of an OME-Zarr image has the axes and the pixel size of this level."""
    above = files.path.parent
    if files.sizes is None and has_zarr_metadata(above):
        try:
            ome = _ome_attributes(ZarrFiles(above).node())
        except ImageError:
            ome = {}
        if isinstance(ome.get("multiscales"), list):
            levels = [each for scales in ome["multiscales"] for each in _levels_of(scales)]
            if any(each.get("path") == files.path.name for each in levels):
                return _ome_zarr(ZarrFiles(above), name, ome, None, files.path.name)
    array = _checked_array(files, "", name)
    return FoundImage(
        (array,), zarr_axes(array) or axes_of_single_plane(array.shape), alpha=None,
        warnings=_on_chunks(files, "", array), close=_closing(files, array),
    )  # fmt: skip


def _closing(files: ZarrFiles, array: zarr.Array[Any]) -> Callable[[], None] | None:
    return None if files.sizes is None else array.store.close


def _checked_array(files: ZarrFiles, key: str, name: str) -> zarr.Array[Any]:
    """Open an array that has a size that an image can have."""
    with translated(f"{name}: {f'the level {key!r} of the image' if key else 'the array'} cannot be opened"):
        try:
            array = files.array(key)
        except FileNotFoundError:
            raise ValueError("there is no such array; copy or export the image again") from None
    chunk = prod(array.chunks) * np.dtype(array.dtype).itemsize
    plane = prod(sorted(array.shape)[-2:])
    if chunk < 1 or chunk > LARGEST_CHUNK or plane > _LARGEST_PLANE:
        raise ImageError(
            f"{name}: the array {key} states the shape {array.shape} in chunks of {array.chunks}; no image is as "
            f"large: expected at most {_LARGEST_PLANE} px a plane and {LARGEST_CHUNK >> 30} GiB a chunk"
        )
    return array


def _on_chunks(files: ZarrFiles, key: str, array: zarr.Array[Any]) -> tuple[str, ...]:
    """Say how many chunks are missing: copies that were broken off lack some, but so do images that are 0 there."""
    stored = getattr(array, "shards", None) or array.chunks
    expected = prod(-(-length // side) for length, side in zip(array.shape, stored, strict=True))
    if not expected:
        return ()
    there = files.count_chunks(key, expected if expected <= _COUNTED_CHUNKS else 1)
    if not there:
        none = "No chunk" if expected == 1 else f"None of the {expected} chunks"
        return (f"{none} of the image is stored: all pixels read as {array.fill_value}.",)
    if expected > _COUNTED_CHUNKS or there >= expected:
        return ()
    return (f"{expected - there} of the {expected} chunks of the image are not stored and read as {array.fill_value}; "
            "copy the image again if it was not copied whole.",)  # fmt: skip


def _image_of_series(files: ZarrFiles, name: str, series: int | None) -> str:
    """Return the path of one image among several, as bioformats2raw writes them."""
    images = _listed_series(files) or sorted((key for key in files.children() if key.isdecimal()), key=int)
    if not images:
        raise ImageError(f"{name} is a collection of images, but none of them is there; copy or export it again")
    if series is None and len(images) == 1:
        return images[0]
    if series is None or not 0 <= series < len(images):
        known = ", ".join(key if key == str(i) else f"{i}: {key!r}" for i, key in enumerate(images))
        raise ImageError(f"{name} holds {len(images)} images; choose one by series=0, ... out of {known}")
    return images[series]


def _listed_series(files: ZarrFiles) -> list[str]:
    """Return the paths of the images that the group OME lists; none where it lists none."""
    if "OME" not in files.children():
        return []
    listed = _ome_attributes(files.child("OME").node()).get("series")
    return [str(each) for each in listed] if isinstance(listed, list) else []


def _what_group(files: ZarrFiles, name: str, ome: Attributes) -> str:
    """Say what a group without an image is, and what to open in its place."""
    if files.sizes is not None and {"plate", "well", "scene"} & set(ome):
        return (
            f"an OME-Zarr {min({'plate', 'well', 'scene'} & set(ome))} in one zip file; unpack it, and open the folder"
        )
    if "plate" in ome:
        wells = [str(each.get("path")) for each in json_objects(ome["plate"], "wells")]
        example = f", for example {name}/{wells[0]}/0" if wells else ""
        return f"an OME-Zarr plate of {len(wells)} wells; open one field{example}, or label its wells by a layout"
    if "well" in ome:
        fields = [str(each.get("path")) for each in json_objects(ome["well"], "images")]
        return f"a well of an OME-Zarr plate; open one of its fields: {short(', '.join(fields))}"
    if "labels" in ome:
        labels = ome["labels"] if isinstance(ome["labels"], list) else []
        one = f", or one of its label images: {short(', '.join(map(str, labels)))}" if labels else ""
        return f"the group of labels of an OME-Zarr image; open the image {files.path.parent}{one}"
    children = files.children()
    images = [key for key in children if "multiscales" in _attributes_or_none(files.child(key))]
    if images:
        what = "a scene of several OME-Zarr images" if "scene" in ome else "a group of OME-Zarr images"
        return f"{what}; open one of them: {short(', '.join(images))}"
    if any("well" in _attributes_or_none(files.child(key)) for key in children):
        return f"a row of an OME-Zarr plate; open one field, for example {name}/{children[0]}/0"
    inside = ", ".join(children) or "nothing"
    return f"a zarr group without the metadata of an OME-Zarr image; open an array in it (it holds {short(inside)})"


def _attributes_or_none(files: ZarrFiles) -> Attributes:
    """Return the OME metadata of a group; none where it cannot be read."""
    try:
        return _ome_attributes(files.node())
    except ImageError:
        return {}


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
        A well that the plate names cannot be read, or the plate is a zip file.
    """
    names = well_paths(path)
    return None if names is None else {name: well_fields(path / name) for name in names}


def well_paths(path: Path) -> list[str] | None:
    """Return the paths of the wells that an OME-Zarr plate names, such as "B/03"; None where it is no plate.

    Raises
    ------
    ImageError
        It cannot be read, or is a zip file.
    """
    zipped = is_zipped_zarr(path) and os.path.isfile(path)
    if not zipped and not has_zarr_metadata(path):
        return None
    plate = _ome_attributes(ZarrFiles.at(path).node()).get("plate")
    if plate is None:
        return None
    if zipped:
        raise ImageError(f"{path} is an OME-Zarr plate in one zip file; unpack it, and give the folder")
    return _paths_inside(path, plate, "wells")


def well_fields(well: Path) -> tuple[Path, ...]:
    """Return the folders of the fields of one well of an OME-Zarr plate.

    Raises
    ------
    ImageError
        The well cannot be read.
    """
    with translated(f"{well} cannot be read as a well of an OME-Zarr plate"):
        found = _ome_attributes(ZarrFiles.at(well).node()).get("well")
    return tuple(well / inside for inside in _paths_inside(well, found, "images"))


def _paths_inside(owner: Path, holder: object, key: str) -> list[str]:
    """Return the paths that a list in the metadata of a folder names.

    Raises
    ------
    ImageError
        There is no such list, it names a path twice or one that is not inside the folder, or is longer than any plate.
    """
    listed = holder.get(key) if isinstance(holder, Mapping) else None
    if not isinstance(listed, list) or not all(
        isinstance(each, Mapping) and isinstance(each.get("path"), str | int) for each in listed
    ):
        raise ImageError(f"{owner}: its metadata has no list of {key} that is understood; expected one with the path "
                         "of each; export the plate again")  # fmt: skip
    if len(listed) > _LONGEST_LIST:
        raise ImageError(f"{owner}: its metadata lists {len(listed)} {key}; expected at most {_LONGEST_LIST}")
    paths = [str(each["path"]) for each in listed]
    odd = next((one for one in paths if not set(PurePosixPath(one).parts).isdisjoint(("..", "/")) or not one), None)
    twice = next((one for one, count in Counter(paths).items() if count > 1), None)
    if odd is not None or twice is not None:
        what = f"names {short(str(twice))!r} twice" if odd is None else f"names {short(odd)!r}, which is not inside it"
        raise ImageError(f"{owner}: its list of {key} {what}; export the plate again")
    return paths


def _ome_attributes(node: zarr.Group | zarr.Array[Any]) -> Attributes:
    """Return the OME metadata: under "ome" in version 0.5 and later, among the other attributes in 0.4 and before."""
    attributes = dict(node.attrs)
    found = attributes.get("ome", attributes)
    return found if isinstance(found, Mapping) else {}


def _ome_zarr(files: ZarrFiles, name: str, ome: Attributes, series: int | None, only: str | None = None) -> FoundImage:
    """Open an OME-Zarr image: its largest level, or the level `only`."""
    scales, notes = _chosen_scales(name, ome, series, only)
    level, array, more = _largest_level(files, name, scales, only)
    space = LevelSpace.of(scales, level)
    axes = space.axes
    if not axes and array.ndim == 5:  # versions before 0.3 know no other order
        axes = tuple({"name": letter} for letter in "tczyx")
    letters = "".join(axis_letter(each) for each in axes) if len(axes) == array.ndim else None
    if axes and letters is None:
        more.append(f"The metadata names {len(axes)} axes, but the image has {array.ndim}; no pixel size is taken.")
    size: float | None = None
    version = str(ome.get("version", scales.get("version", "")))
    if version and not _KNOWN_VERSION.fullmatch(version):
        more.append(f"This OME-Zarr is of the version {version!r}, which is not known here (0.1 to 0.6 are): its "
                    "pixels are read, and no pixel size is taken; give pixel_size if you know it.")  # fmt: skip
    elif letters is not None:
        size, said = pixel_size_of(axes, letters, space)
        more += said
    if "image-label" in ome:
        more.append("This is a label image: its values are numbers of objects, not intensities.")
    else:
        more += _on_chunks(files, str(level["path"]), array)
    labels = [str(each.get("label") or "") for each in json_objects(ome.get("omero"), "channels")]
    return FoundImage((array,), letters, channels=tuple(labels), pixel_size=size, warnings=(*notes, *more),
                      close=_closing(files, array))  # fmt: skip


def _chosen_scales(
    name: str, ome: Attributes, series: int | None, only: str | None
) -> tuple[Attributes, tuple[str, ...]]:
    """Return the image among those that the metadata of one group describes, and a note where the choice was ours."""
    images = json_objects(ome, "multiscales")
    if not images:
        raise ImageError(f"{name}: the metadata lists no image (multiscales is empty); export it again")
    if only is not None:
        return next(each for each in images if any(level.get("path") == only for level in _levels_of(each))), ()
    if series is not None and not 0 <= series < len(images):
        held = "a single image; leave series= out" if len(images) == 1 else f"{len(images)} images; count from 0"
        raise ImageError(f"{name}: series={series} was asked for, but this is {held}")
    if series is not None or len(images) == 1:
        return images[series or 0], ()
    listed = ", ".join(f"{i}: {each.get('name', '')!r}" for i, each in enumerate(images))
    said = f"The metadata describes {len(images)} images ({listed}); the first is opened, choose another by series."
    return images[0], (said,)


def _levels_of(scales: object) -> list[Attributes]:
    return [each for each in json_objects(scales, "datasets") if isinstance(each.get("path"), str)]


def _largest_level(
    files: ZarrFiles, name: str, scales: Attributes, only: str | None
) -> tuple[Attributes, zarr.Array[Any], list[str]]:
    """Return the largest level of a pyramid, its array, and sentences on levels that cannot be opened.

    Raises
    ------
    ImageError
        There is no level, or one that cannot be opened may be the largest.
    """
    listed = [each for each in _levels_of(scales) if only in (None, each["path"])]
    if not listed:
        raise ImageError(f"{name}: the metadata lists no level of the image (datasets is empty); export it again")
    opened: list[tuple[Attributes, zarr.Array[Any]]] = []
    failed: list[tuple[Attributes, ImageError]] = []
    for level in listed:
        try:
            opened.append((level, _checked_array(files, level["path"], name)))
        except ImageError as error:
            failed.append((level, error))
    if not opened:
        raise failed[0][1]
    largest, array = max(opened, key=lambda each: prod(each[1].shape))
    notes = []
    for level, why in failed:
        if not _coarser(scales, level, largest):
            raise why
        notes.append(f"The smaller level {level['path']!r} of the image is not there; the full size is.")
    return largest, array, notes


def _coarser(scales: Attributes, level: Attributes, other: Attributes) -> bool:
    """Whether the pixels of a level are known to be larger than those of another."""
    spaces = (LevelSpace.of(scales, each) for each in (level, other))
    one, two = (product_of(space.steps, len(space.axes)) for space in spaces)
    return not isinstance(one, str) and not isinstance(two, str) and bool(one.prod() > two.prod())


def zarr_axes(array: ArrayLike) -> str | None:
    """Return the axes that a zarr array names (zarr 3: `dimension_names`; xarray: an attribute), else None."""
    metadata = getattr(array, "metadata", None)
    names = getattr(metadata, "dimension_names", None)
    if names is None and metadata is not None:
        names = dict(getattr(array, "attrs", {})).get("_ARRAY_DIMENSIONS")
    if not names or len(names) != array.ndim or None in names:
        return None
    return "".join(axis_letter({"name": name, "type": str(name).lower()}) for name in names)
