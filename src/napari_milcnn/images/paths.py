"""What is an image, what is a folder of images, and what an image is called."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Final

from napari_milcnn.errors import ImageError

TIFF_SUFFIXES: Final = (".tif", ".tiff", ".btf", ".tf8")


RASTER_SUFFIXES: Final = (".png", ".jpg", ".jpeg", ".bmp", ".gif")
_LONGEST_NAME = 150
"""Characters of an image's name that its files keep; file systems end at 255 with our suffixes."""
OUTPUTS = ("_labels.ome.tif", "_maps.ome.tif", "_overview.png")
"""Ends of the names of our own files, passed over in folders of images."""
_SUFFIXES = (".tif", ".tiff", ".png", ".jpg", ".jpeg", ".zarr", ".czi", ".nd2", ".lif")


def image_name(path: Path | None) -> str:
    """Return the stem of a file, without ".ome" too; an image inside a zarr is named after both."""
    if path is None:
        return "image"
    inside: list[str] = []
    outer = path
    while outer.is_dir() and outer.suffix not in (".zarr", ".ngff") and outer.parent != outer:
        inside.insert(0, outer.name)
        outer = outer.parent
    if outer.suffix not in (".zarr", ".ngff"):
        outer, inside = path, []
    return "_".join([outer.stem.removesuffix(".ome"), *inside])


def output_names(paths: Sequence[Path]) -> list[str]:
    """One name for each path: its own, with the folder's before it where two are alike, and a number if need be."""
    stems = [_stem(path) for path in paths]
    doubled = {stem for stem, count in Counter(stems).items() if count > 1}
    names: dict[str, None] = {}
    for path, stem in zip(paths, stems, strict=True):
        wanted = f"{path.parent.name}_{stem}".lstrip("_") if stem in doubled else stem
        tries = (wanted if number == 1 else f"{wanted}_{number}" for number in count(1))
        names[next(name for name in tries if name not in names)] = None
    return list(names)


def _stem(path: Path) -> str:
    """Name of a file without .ome.tif, .ome.zarr or its one suffix: dots before that are part of the name."""
    return printable(re.sub(r"\.ome$", "", path.stem, flags=re.IGNORECASE))[:_LONGEST_NAME]


def printable(text: object) -> str:
    """Return text whose undecodable bytes, as in file names of other systems, are written out."""
    return str(text).encode("utf-8", "backslashreplace").decode("utf-8").replace("\\udc", "_")


def find_images(sources: Sequence[Path]) -> list[Path]:
    """Replace each folder among the sources by the images in it, sorted; an OME-Zarr folder is an image itself.

    Raises
    ------
    ImageError
        If a folder holds no image, or no source was given.
    """
    found: list[Path] = []
    for source in sources:
        if source.is_dir() and not is_zarr(source):
            inside = sorted(p for p in source.iterdir() if _is_input(p))
            if not inside:
                raise ImageError(f"the folder {source} holds no image; expected files ending in {', '.join(_SUFFIXES)}")
            found += inside
        else:
            found.append(source)
    if not found:
        raise ImageError("no image was named; expected at least one file or folder")
    return found


def _is_input(path: Path) -> bool:
    known = path.suffix.lower() in _SUFFIXES and not path.name.startswith(".")
    return known and not path.name.endswith(OUTPUTS)


def is_zarr(path: Path) -> bool:
    """Whether a folder is a zarr array or group."""
    return any((path / name).exists() for name in (".zattrs", ".zgroup", ".zarray", "zarr.json"))
