"""What is an image, what is a zarr, and what an image is called: one rule for all rooms.

Decisions:

- A file is an image if its suffix is one that `open_image` can open; a folder is an image if it is a zarr. Everything
  else in a folder of images is passed over, and so are hidden files and the files that this program writes.
- Files that hold one channel of a field each are one image (`images.instruments`). Its path is that of the first file,
  in which braces hold what differs: plate_B03_s1_{w1,w2}.tif. It stands in tables and records like any other path, and
  `files_of` returns its files.
- Thumbnails, and label images beside their images, are passed over in a folder, and a sentence says so.
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
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import count, takewhile
from pathlib import Path
from typing import Final

from napari_milcnn.atomic_write import shortened
from napari_milcnn.delimited import DelimitedTable
from napari_milcnn.errors import ImageError
from napari_milcnn.images.instruments import THUMBNAIL, corrections, field_in, join_fields

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


LABEL_ENDS: Final = (
    "", "_labels", "_label", "-labels", "-label", ".labels", "_masks", "_mask", "-masks", "-mask", "_cp_masks", "_seg",
    "_segmentation", "_objects", "_cells", "_nuclei", "_stardist", "_instances", "_object identities",
    "_object predictions", "_simple segmentation",
)  # fmt: skip
"""What follows the name of an image in the names of its label images, in lower case."""
LABELS_BESIDE: Final = tuple(end for end in LABEL_ENDS if re.search("label|mask|seg|object ", end))
"""Ends of names that are passed over in a folder which holds the image itself; other ends may name a channel."""
_BRACES = re.compile(r"(.*)\{([^{}]*,[^{}]*)\}(.*)", re.DOTALL)
_CHANNEL_NUMBER = re.compile(r"(?:channel|ch|w|d|c)\d*$", re.IGNORECASE)
"""The number of a channel at the end of a text."""


FILE_OF: Final = "file "
"""Beginning of the names of columns that hold the file of one channel each, such as "file GFP"."""


def as_on_disk(path: Path) -> Path:
    """Return the path under which a file or folder lies on the disk, if only the form of its accents differs.

    A path that exists as it is written stays as it is, and so does one that is not found in either form.
    """
    if str(path).isascii() or os.path.lexists(path):
        return path
    files = files_of(path)
    if len(files) > 1:
        there = [as_on_disk(file) for file in files]
        return path if there == list(files) else joined_path(there)
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


def images_in(folder: Path, pattern: str | None = None) -> list[Path]:
    """List the images that lie in a folder itself, sorted; folders in it are not searched.

    Raises
    ------
    OptionsError, ImageError
        As `join_fields` does.
    """
    return joined_fields(_shown_in(folder)[0], pattern)[0]


def images_below(folder: Path) -> tuple[list[Path], list[str]]:
    """List the images in a folder and in all folders in it, files of single channels one by one, and what is left out.

    Hidden folders, links to a folder around them, and folders that are images themselves, are not searched.
    """
    found, sentences = _shown_in(folder)
    home = folder.resolve()
    for child in sorted(folder.iterdir()):
        in_a_circle = child.is_symlink() and home.is_relative_to(child.resolve())
        if not child.name.startswith(".") and is_plain_folder(child) and not in_a_circle:
            inside, notes = images_below(child)
            found, sentences = found + inside, sentences + notes
    return found, sentences


def joined_fields(paths: Sequence[Path], pattern: str | None = None) -> tuple[list[Path], list[str]]:
    """Return the paths of the images that some files are, the files of one field as one, and what has to be said."""
    joined = [path for path in paths if len(files_of(path)) > 1]
    known = set(joined)
    single = [path for path in paths if path not in known]
    fields, sentences = join_fields(single, pattern) if single else ([], [])
    return [*joined, *map(joined_path, fields)], sentences


def _shown_in(folder: Path) -> tuple[list[Path], list[str]]:
    """List the files of a folder that are images, and say which are passed over: thumbnails, labels, corrections."""
    found = sorted(path for path in folder.iterdir() if is_image(path))
    stems = {_without_suffix(path.name).casefold() for path in found}
    thumbs = [path for path in found if THUMBNAIL.fullmatch(path.name)]
    pictures = corrections(found)
    labels = [
        path for path in found
        for stem in [_without_suffix(path.name).casefold()]
        if any(stem.endswith(end) and _is_there(stem.removesuffix(end), stems) for end in LABELS_BESIDE)
    ]  # fmt: skip
    sentences = [
        f"{what} in {folder} are left out ({len(some)}), such as {some[0].name}"
        for what, some in (
            ("thumbnails", thumbs), ("label images", labels), ("pictures of dark current and shading", pictures),
        ) if some
    ]  # fmt: skip
    passed = {*thumbs, *labels, *pictures}
    return [path for path in found if path not in passed], sentences


def _is_there(stem: str, stems: Collection[str]) -> bool:
    return bool(stem) and stem in stems


def pixel_files(path: Path) -> list[Path]:
    """Return the files that hold the pixels of an image: of a folder, such as an OME-Zarr, all but its labels.

    Raises
    ------
    OSError
        If a folder cannot be read.
    """
    if not path.is_dir():
        return list(files_of(path))
    return sorted(one for one in path.rglob("*") if one.is_file() and "labels" not in one.relative_to(path).parts[:-1])


def files_of(path: Path) -> tuple[Path, ...]:
    """Return the files of an image: several for a field with one file per channel, else the path itself."""
    found = _BRACES.fullmatch(str(path))
    if found is None or os.path.lexists(path):
        return (path,)
    return tuple(Path(f"{found[1]}{part}{found[3]}") for part in found[2].split(","))


def what_differs(files: Sequence[Path]) -> tuple[str, ...]:
    """Return what differs in the paths of the files of a field, in one folder; numbered where folders differ."""
    found = _BRACES.fullmatch(str(joined_path(files)))
    parts = found[2].split(",") if found is not None else []
    numbered = not parts or any("/" in part or os.sep in part for part in parts)
    return tuple(f"channel {i}" for i in range(len(files))) if numbered else tuple(parts)


def with_file_column(table: DelimitedTable) -> tuple[DelimitedTable, tuple[str, ...]]:
    """Return a table whose columns such as "file GFP" and "file RFP" are one column "file", and the names of channels.

    A table that has a column "file", or no such columns, stays as it is and has no names.
    """
    lower = [name.lower() for name in table.columns]
    places = [i for i, name in enumerate(lower) if name.startswith(FILE_OF) and name.strip() != FILE_OF.strip()]
    if "file" in lower or not places:
        return table, ()
    names = tuple(table.columns[i][len(FILE_OF) :].strip() for i in places)
    rest = [i for i in range(len(lower)) if i not in places]
    rows = tuple((_joined_cells([row[i] for i in places], names), *(row[i] for i in rest)) for row in table.rows)
    return replace(table, columns=("file", *(table.columns[i] for i in rest)), rows=rows), names


def _joined_cells(cells: Sequence[str], channels: Sequence[str]) -> str:
    """Join the names of the files of one row; an empty cell becomes a file that is not there."""
    if not any(cells):
        return ""
    named = [cell or f"(no file for {channel})" for cell, channel in zip(cells, channels, strict=True)]
    return str(joined_path([Path(cell.replace("\\", "/")) for cell in named]))


def _shared_start(texts: Sequence[str]) -> str:
    """Return what all texts begin with."""
    same = takewhile(lambda letters: len(set(letters)) == 1, zip(*texts, strict=False))
    return "".join(letters[0] for letters in same)


def exists_on_disk(path: Path) -> bool:
    """Whether all files of an image are there."""
    return all(map(os.path.exists, files_of(path)))


def joined_path(files: Sequence[Path]) -> Path:
    """Return one path for the files of a field, with braces around what differs; a single file keeps its path.

    Raises
    ------
    ImageError
        The names hold a comma or braces where they differ.
    """
    texts = [str(file) for file in files]
    if len(texts) == 1:
        return Path(texts[0])
    before = re.sub(r"[0-9A-Za-z]*$", "", _shared_start(texts))
    rests = [text[len(before) :][::-1] for text in texts]
    after = re.sub(r"[0-9A-Za-z]*$", "", _shared_start(rests))[::-1]
    parts = [rest[::-1].removesuffix(after) for rest in rests]
    if len(set(parts)) < len(parts) or re.search(r"[{}]", before + after) or re.search(r"[,{}]", "".join(parts)):
        raise ImageError(
            f"{', '.join(texts)} cannot be the channels of one image: expected different files, and neither comma nor "
            "braces where their names differ; rename them"
        )
    return Path(f"{before}{{{','.join(parts)}}}{after}")


def find_images(
    sources: Sequence[Path], pattern: str | None = None, on_note: Callable[[str], None] | None = None
) -> list[Path]:
    """Replace each folder among the sources by the images in it, sorted; a zarr is an image itself.

    Parameters
    ----------
    sources
        Files and folders; files of one field may be named one by one.
    pattern
        As in `join_fields`.
    on_note
        Called with each sentence about files that were put together or left out.

    Raises
    ------
    ImageError
        A folder holds no image, or no source was given.
    OptionsError
        As `join_fields` does.
    """
    found: list[Path] = []
    sentences: list[str] = []
    for source in map(as_on_disk, sources):
        inside, notes = _shown_in(source) if is_plain_folder(source) else ([source], [])
        sentences += notes
        if not inside:
            raise ImageError(
                f"the folder {source} holds no image; expected OME-Zarr folders, or files that end in one of "
                f"{', '.join(IMAGE_SUFFIXES)}"
            )
        found += inside
    if not found:
        raise ImageError("no image was named; expected at least one file or folder")
    images, notes = joined_fields(found, pattern)
    if on_note is not None:
        for sentence in (*sentences, *notes):
            on_note(sentence)
    return images


def image_name(path: Path | None) -> str:
    """Return the name of an image: "a" for a.ome.tif, "plate_B_03_0" for plate.zarr/B/03/0, "image" for an array."""
    if path is None:
        return "image"
    if len(files_of(path)) > 1:
        return _field_name(path)
    outer = zarr_around(path)
    if outer is None:
        return _without_suffix(path.name)
    return "_".join([_without_suffix(outer.name), *path.relative_to(outer).parts])


def shown_name(path: Path) -> str:
    """Return what messages call an image: the last part of its path; with its plate, "plate.zarr/B/03/0", for a field.

    A part of an OME-Zarr is called so, since fields of all wells have the same last parts.
    """
    outer = zarr_around(path) or path
    while has_zarr_metadata(outer.parent):  # a plate whose name does not say what it is
        outer = outer.parent
    return path.relative_to(outer.parent).as_posix()


def _field_name(path: Path) -> str:
    """Return what the names of the files of a field share, without what numbers the channel: "plate_B03_s1"."""
    found, first = _BRACES.fullmatch(str(path)), files_of(path)[0].name
    assert found is not None
    parts = found[2].split(",")
    if any("/" in part or os.sep in part for part in (*parts, found[3])):
        return _without_suffix(first)
    shared = _shared_start(parts)
    shared = _CHANNEL_NUMBER.sub("", shared) if re.search(r"\d", shared) else ""
    before = Path(f"{found[1]}x").name[:-1]
    name = field_in(first) or f"{before}{shared}".rstrip(" _-.") + found[3]
    return _without_suffix(f"x{name}")[1:].strip(" _-.") or _without_suffix(first)


def output_names(paths: Sequence[Path]) -> list[str]:
    """Return one name for the files of each image.

    It is the name of the image. The name of its folder comes first where two images have the same name, and a number
    follows where that is not enough. Names that differ in capital letters or in the form of their accents alone are the
    same, as they are on the disks of Windows and macOS.
    """
    stems = [shortened(printable(image_name(path)), _LONGEST_NAME) for path in paths]
    doubled = {key for key, count in Counter(map(_same_on_disk, stems)).items() if count > 1}
    names: dict[str, str] = {}
    for path, stem in zip(paths, stems, strict=True):
        folder = (zarr_around(path) or files_of(path)[0]).parent.name
        wanted = f"{folder}_{stem}".lstrip("_") if _same_on_disk(stem) in doubled else stem
        ends = ("" if number == 1 else f"_{number}" for number in count(1))
        tries = (shortened(wanted, _LONGEST_NAME - len(end)) + end for end in ends)
        name = next(name for name in tries if _same_on_disk(name) not in names)
        names[_same_on_disk(name)] = name
    return list(names.values())


def _same_on_disk(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _without_suffix(name: str) -> str:
    """Return the name of a file without its one suffix and without ".ome"; other dots are part of the name."""
    path = Path(name)
    stem = Path(path.stem).stem if path.name.lower().endswith(".zarr.zip") else path.stem
    return re.sub(r"\.ome$", "", stem, flags=re.IGNORECASE)


def printable(text: object) -> str:
    """Return a text in which bytes that are no characters, as in file names of other systems, are written out."""
    return str(text).encode("utf-8", "backslashreplace").decode("utf-8").replace("\\udc", "_")
