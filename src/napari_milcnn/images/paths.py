"""What is an image, what is a zarr, and what an image is called: one rule for all rooms.

Decisions:

- A file is an image if its suffix is one that `open_image` can open; a folder is an image if it is a zarr. Everything
  else in a folder of images is passed over, and so are hidden files and the files that this program writes.
- A file that is named itself is never passed over: `open_image` then says what is wrong with it.
- A folder is a zarr if its name ends in .zarr or .ngff, or if it holds the metadata of a zarr group or array.
- A folder with the file NDTiff.index is one image: an acquisition of Micro-Manager, in one or several TIFFs.
- An OME-Zarr in one zip file is an image if its name ends in .ozx (RFC 9 of OME-Zarr) or in .zarr.zip.
- An image is called by its file name without suffix and without ".ome". An image inside a zarr is called by the zarr
  and the path in it: "plate_B_03_0".
- A name with an accent can be written in two ways that look the same: composed (NFC: "ö" is one character), and
  decomposed (NFD: an "o" and two dots), as macOS writes it. A file whose name is written in the other way than asked
  for is found, where it is the only one (`as_on_disk`).
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import count
from pathlib import Path
from typing import Final

from napari_milcnn.atomic_write import shortened
from napari_milcnn.errors import ImageError

TIFF_SUFFIXES: Final = (".tif", ".tiff", ".btf", ".tf8")
RASTER_SUFFIXES: Final = (".png", ".jpg", ".jpeg", ".bmp", ".gif")
TIFF_INSIDE: Final = (".flex", ".lsm", ".ndpi", ".qptiff", ".scn", ".stk", ".svs")
"""Formats of microscopes and slide scanners whose content is TIFF."""
BIOIO_READERS: Final = {
    ".czi": "bioio-czi", ".dv": "bioio-dv", ".ims": "bioio-bioformats", ".lif": "bioio-lif", ".nd2": "bioio-nd2",
    ".oib": "bioio-bioformats", ".oif": "bioio-bioformats", ".r3d": "bioio-dv", ".sld": "bioio-bioformats",
    ".sldy": "bioio-sldy", ".vsi": "bioio-bioformats", ".zvi": "bioio-bioformats",
}  # fmt: skip
"""Formats of microscopes that open where a reader of bioio is installed -> the package of this reader."""
IMAGE_SUFFIXES: Final = (*TIFF_SUFFIXES, *RASTER_SUFFIXES, *TIFF_INSIDE, *BIOIO_READERS)
ZARR_SUFFIXES: Final = (".zarr", ".ngff")
ZIPPED_ZARR_ENDS: Final = (".ozx", ".zarr.zip")
"""Ends of the names of OME-Zarr images, each in one zip file."""
ZARR_METADATA: Final = ("zarr.json", ".zgroup", ".zarray")
"""Files of which a zarr group or array holds one."""
NDTIFF_INDEX: Final = "NDTiff.index"
"""File in the folder of an acquisition of Micro-Manager."""
OUTPUT_ENDS: Final = ("_labels.ome.tif", "_labels.ome.zarr", "_maps.ome.tif", "_overview.png")
"""Ends of the names of files that this program writes for an image."""
_LONGEST_NAME = 150
"""Bytes of the name of an image, in UTF-8, that its files keep; file systems allow 255 bytes with our suffixes."""


def as_on_disk(path: Path) -> Path:
    """Return the path under which a file or folder lies on the disk, if only the form of its accents differs.

    A path that exists as it is written stays as it is, and so does one that is not found in either form.
    """
    if str(path).isascii() or os.path.lexists(path):
        return path
    found = Path(path.anchor)
    for part in path.parts[bool(path.anchor) :]:
        if not os.path.lexists(found / part):
            try:
                alike = _forms_in(found, found.stat().st_mtime_ns).get(composed(part), [])
            except (OSError, ValueError):
                return path
            if len(alike) != 1:
                return path
            part = alike[0]
        found /= part
    return found


@lru_cache(maxsize=64)
def _forms_in(folder: Path, changed: int) -> dict[str, list[str]]:
    """Return `names_by_form` of a folder; it is read anew where the time of its last change is another one."""
    return names_by_form(os.listdir(folder))


def names_by_form(names: Iterable[str]) -> dict[str, list[str]]:
    """Return the composed form of each name -> the names with this form."""
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(composed(name), []).append(name)
    return found


def composed(name: str) -> str:
    """Return a name with composed accents (NFC), for comparison."""
    return unicodedata.normalize("NFC", name)


def is_zarr(path: Path) -> bool:
    """Whether a path is a folder that is, or claims to be, a zarr group or array."""
    return os.path.isdir(path) and (path.suffix.lower() in ZARR_SUFFIXES or has_zarr_metadata(path))


def is_ndtiff(path: Path) -> bool:
    """Whether a path is the folder of an acquisition of Micro-Manager in the format NDTiff."""
    return os.path.isfile(path / NDTIFF_INDEX)


def is_zipped_zarr(path: Path) -> bool:
    """Whether the name of a file says that it is an OME-Zarr image in one zip file."""
    return path.name.lower().endswith(ZIPPED_ZARR_ENDS)


def has_zarr_metadata(folder: Path) -> bool:
    """Whether a folder holds the metadata of a zarr group or array."""
    return any(os.path.isfile(folder / name) for name in ZARR_METADATA)


def zarr_around(path: Path) -> Path | None:
    """Return the innermost folder named .zarr or .ngff that a path is or lies in; the disk is not looked at."""
    return next((folder for folder in (path, *path.parents) if folder.suffix.lower() in ZARR_SUFFIXES), None)


def is_plain_folder(path: Path) -> bool:
    """Whether a path is a folder of files, neither a zarr nor an acquisition of Micro-Manager."""
    return os.path.isdir(path) and not is_zarr(path) and not is_ndtiff(path)


def is_image(path: Path) -> bool:
    """Whether a file or folder found in a folder of images is an image: by its suffix, or because it is a zarr."""
    if path.name.startswith(".") or path.name.endswith(OUTPUT_ENDS):
        return False
    if os.path.isdir(path):
        return is_zarr(path) or is_ndtiff(path)
    return path.suffix.lower() in IMAGE_SUFFIXES or is_zipped_zarr(path)


def images_in(folder: Path) -> list[Path]:
    """List the images that lie in a folder itself, sorted; folders in it are not searched."""
    return sorted(path for path in folder.iterdir() if is_image(path))


def find_images(sources: Sequence[Path]) -> list[Path]:
    """Replace each folder among the sources by the images in it, sorted; a zarr is an image itself.

    Raises
    ------
    ImageError
        A folder holds no image, or no source was given.
    """
    found: list[Path] = []
    for source in map(as_on_disk, sources):
        inside = images_in(source) if is_plain_folder(source) else [source]
        if not inside:
            raise ImageError(
                f"the folder {source} holds no image; expected OME-Zarr folders, or files that end in one of "
                f"{', '.join(IMAGE_SUFFIXES)}"
            )
        found += inside
    if not found:
        raise ImageError("no image was named; expected at least one file or folder")
    return found


def image_name(path: Path | None) -> str:
    """Return the name of an image: "a" for a.ome.tif, "plate_B_03_0" for plate.zarr/B/03/0, "image" for an array."""
    if path is None:
        return "image"
    outer = zarr_around(path)
    if outer is None:
        return _without_suffix(path.name)
    return "_".join([_without_suffix(outer.name), *path.relative_to(outer).parts])


def output_names(paths: Sequence[Path]) -> list[str]:
    """Return one name for the files of each image.

    It is the name of the image. The name of its folder comes first where two images have the same name, and a number
    follows where that is not enough.
    """
    stems = [shortened(printable(image_name(path)), _LONGEST_NAME) for path in paths]
    doubled = {stem for stem, count in Counter(stems).items() if count > 1}
    names: dict[str, None] = {}
    for path, stem in zip(paths, stems, strict=True):
        folder = (zarr_around(path) or path).parent.name
        wanted = f"{folder}_{stem}".lstrip("_") if stem in doubled else stem
        ends = ("" if number == 1 else f"_{number}" for number in count(1))
        tries = (shortened(wanted, _LONGEST_NAME - len(end)) + end for end in ends)
        names[next(name for name in tries if name not in names)] = None
    return list(names)


def _without_suffix(name: str) -> str:
    """Return the name of a file without its one suffix and without ".ome"; other dots are part of the name."""
    path = Path(name)
    stem = Path(path.stem).stem if path.name.lower().endswith(".zarr.zip") else path.stem
    return re.sub(r"\.ome$", "", stem, flags=re.IGNORECASE)


def printable(text: object) -> str:
    """Return a text in which bytes that are no characters, as in file names of other systems, are written out."""
    return str(text).encode("utf-8", "backslashreplace").decode("utf-8").replace("\\udc", "_")
