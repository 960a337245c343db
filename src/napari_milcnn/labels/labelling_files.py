"""The files of a labelling: labels.csv as it was found, and labels.json beside it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from pydantic import ConfigDict, ValidationError

from napari_milcnn.atomic_write import replacing
from napari_milcnn.delimited import TABLE_SUFFIXES, parse_delimited, read_delimited
from napari_milcnn.errors import LabelsError, OutputError
from napari_milcnn.figures.palette import PALETTE_SIZE, class_colours
from napari_milcnn.images.instruments import well_name
from napari_milcnn.images.ome_zarr import plate_wells
from napari_milcnn.images.open import ImageReading
from napari_milcnn.images.paths import as_on_disk, find_images, images_in, is_plain_folder
from napari_milcnn.labels.table import LabelledImage, read_labels
from napari_milcnn.options import Options
from napari_milcnn.untrusted import LARGEST_JSON, read_regular

_NEW_TABLE = ("file", "label", "group", "split")
"""Columns of a table that labelling makes."""


@dataclass(frozen=True)
class LabelClass:
    """A class of a labelling and its colour as #rrggbb; files of early versions may have no colour."""

    name: str
    colour: str


@dataclass(frozen=True)
class Sheet:
    """labels.csv as it stands on disk.

    Attributes
    ----------
    content : bytes or None
        The whole file; None where there is none yet.
    columns : tuple of str
        Names of the columns, as they are written.
    separator, encoding, names_separator
        The form of the file, as in `DelimitedTable`.
    images : tuple of LabelledImage
        Its rows, with files named as the table names them.
    cells : mapping
        File and plane of an image -> all cells of its row, those of the columns of the user among them.
    """

    content: bytes | None = None
    columns: tuple[str, ...] = _NEW_TABLE
    separator: str = ","
    encoding: str = "utf-8"
    images: tuple[LabelledImage, ...] = ()
    cells: Mapping[tuple[str, str], tuple[str, ...]] = field(default_factory=dict)
    names_separator: bool = False


class NotedClass(Options):
    """A class in labels.json, with the number of its images."""

    name: str
    colour: str
    images: int


class NotedImage(Options):
    """An image in labels.json; `cells` holds the columns of the user while the image has no label."""

    file: str
    plane: str = ""
    group: str = ""
    split: Literal["train", "validation", "test"] | None = None
    cells: dict[str, str] = {}  # noqa: RUF012 - a field of pydantic, copied for each


class Notes(Options):
    """labels.json: all that is known of each image but its labels, which stand in labels.csv."""

    model_config = ConfigDict(extra="ignore")

    milcnn_labelling: Literal[1]
    axes: str | None = None
    split_in_table: bool = False
    classes: tuple[NotedClass, ...] = ()
    images: tuple[NotedImage, ...] = ()


def table_path(paths: Sequence[Path], layout: Path | None) -> Path:
    """Return the path of the table that holds the labels of what is opened.

    Raises
    ------
    LabelsError
        Nothing was given, a table was given with other files, or the images lie on several drives.
    """
    if not paths:
        raise LabelsError("nothing was given to open; expected a folder, a table or images")
    tables = [path for path in paths if path.suffix.lower() in TABLE_SUFFIXES]
    if tables and len(paths) > 1:
        raise LabelsError(f"{tables[0].name} is a table and was opened together with other files; open it alone")
    if tables:
        return tables[0]
    try:
        folder = Path(os.path.commonpath([path if is_plain_folder(path) else path.parent for path in paths]))
    except ValueError as error:
        raise LabelsError("the images lie on several drives; open those of one drive at a time") from error
    path = folder / "labels.csv"
    return path if path != layout else folder / f"{paths[0].stem}_labels.csv"


def found_images(
    paths: Sequence[Path], path: Path, known: Sequence[LabelledImage], reading: ImageReading, layout: str | Path | None
) -> list[LabelledImage]:
    """List the images that are there; those of folders per class and of a layout come with their labels.

    Parameters
    ----------
    paths
        What is opened: a folder, a plate, a table or images.
    path
        The table that holds the labels.
    known
        Images that the table and labels.json name already; their folders are searched too.
    reading, layout
        As in `open_labelling`.
    """
    if paths == [path]:
        return []
    if len(paths) > 1 or not paths[0].is_dir():
        return [_unlabelled(file, path) for file in find_images(paths, reading.pattern)]
    wells = plate_wells(paths[0])
    if wells is not None or layout is not None:
        from_layout = list(read_labels(paths[0], reading, layout=layout).images) if layout is not None else []
        known_files = {image.file for image in from_layout}
        fields = [LabelledImage(field, (), well_name(name)) for name, each in (wells or {}).items()
                  for field in each if field not in known_files]  # fmt: skip
        return _as_in_table([*from_layout, *fields], path)
    if not is_plain_folder(paths[0]):
        return [_unlabelled(paths[0], path)]
    folders = dict.fromkeys([paths[0], *(image.file.parent for image in known if is_plain_folder(image.file.parent))])
    found = [_unlabelled(file, path) for folder in folders for file in images_in(folder, reading.pattern)]
    if found or known:
        return found
    if not any(map(is_plain_folder, paths[0].iterdir())):
        return []
    return _as_in_table(read_labels(paths[0], reading).images, path)


def _unlabelled(file: Path, path: Path) -> LabelledImage:
    name = relative_name(file, path.parent)
    return LabelledImage(path.parent / name, (), name)


def _as_in_table(images: Iterable[LabelledImage], path: Path) -> list[LabelledImage]:
    """Return images with files named as labels.csv will name them, and without the line numbers of another table."""
    return [replace(image, file=path.parent / relative_name(image.file, path.parent), line=None) for image in images]


def merged_images(
    known: Sequence[LabelledImage], found: Sequence[LabelledImage], reading: ImageReading | None
) -> tuple[LabelledImage, ...]:
    """Add the images that were found to those that are known.

    With a reading, each image without a label is replaced by its planes.
    """
    taken, files = {(image.file, image.plane) for image in known}, {image.file for image in known}
    new = [image for image in found if (image.file, image.plane) not in taken]
    if reading is None:
        return (*known, *(image for image in new if image.file not in files))
    images: dict[tuple[Path, str], LabelledImage] = {}
    for image in (*known, *new):
        whole = not image.labels and not image.plane
        for plane in _planes_of(image.file, reading) if whole else [image.plane]:
            images.setdefault((image.file, plane), replace(image, plane=plane))
    return tuple(images.values())


def _planes_of(file: Path, reading: ImageReading) -> list[str]:
    with reading.open(file) as opened:
        return [opened.plane_name(i) for i in range(len(opened.planes))]


def notes_path(path: Path) -> Path:
    """Name the labels.json of a table."""
    return path.with_suffix(".json")


def content_of(path: Path) -> bytes | None:
    """Return the bytes of a file; None where there is no file.

    Raises
    ------
    OutputError
        The file is there and cannot be read.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise OutputError(f"{path} cannot be read ({error.strerror}); the change is kept until it can be") from error


def write_bytes(path: Path, content: bytes) -> None:
    """Write a whole file, or nothing.

    Raises
    ------
    OutputError
        The file cannot be written; what was there before stays.
    """
    with replacing(path) as draft:
        draft.write_bytes(content)


def relative_name(file: Path, folder: Path) -> str:
    """Return the name of a file as labels.csv writes it: relative to the folder, with forward slashes."""
    try:
        return Path(os.path.relpath(file, folder)).as_posix()
    except ValueError:  # another drive
        return file.as_posix()


def key_of(image: LabelledImage, path: Path) -> tuple[str, str]:
    """Return the file, as the table names it, and the plane of an image: what tells its row from others."""
    return relative_name(image.file, path.parent), image.plane


def read_sheet(path: Path, reading: ImageReading) -> Sheet:
    """Read the table that is there; it may have no rows, as after every label was removed, or rows without a label.

    Raises
    ------
    LabelsError
        The table has problems; they are listed.
    """
    try:
        images = read_labels(path, reading, unlabelled=True).images
    except LabelsError:
        if not _has_no_rows(path):
            raise
        images = ()
    content = path.read_bytes()
    table = parse_delimited(content)
    named = _as_in_table(images, path)
    cells = {key_of(image, path): row for image, row in zip(named, table.rows, strict=True)}
    return Sheet(
        content, table.columns, table.separator, table.encoding, tuple(named), cells, table.names_separator
    )  # fmt: skip


def _has_no_rows(path: Path) -> bool:
    """Whether a file is a table of labels with the names of its columns and no rows."""
    try:
        table = read_delimited(path)
    except (OSError, ValueError):
        return False
    return not table.rows and {"file", "label"} <= {name.lower() for name in table.columns}


def read_notes(path: Path) -> Notes:
    """Read labels.json; return empty notes where there is no such file.

    Raises
    ------
    LabelsError
        The file is damaged, or is not a labels.json.
    """
    if not path.exists():
        return Notes(milcnn_labelling=1)
    try:
        return Notes.model_validate_json(read_regular(path, LARGEST_JSON))
    except (OSError, ValidationError) as error:
        raise LabelsError(f"{path} is not what labelling writes there (colours of classes, images without a label); "
                          "rename or mend it, and open the images again") from error  # fmt: skip


def known_images(path: Path, sheet: Sheet, notes: Notes) -> list[LabelledImage]:
    """Return the images that both files name, in the order of labels.json; where the two disagree the table counts."""
    table = {key_of(image, path): image for image in sheet.images}
    splits = any(image.split for image in sheet.images) or notes.split_in_table
    images = []
    for note in notes.images:
        file = as_on_disk(path.parent / note.file)
        image = table.pop((relative_name(file, path.parent), note.plane), None)
        if image is not None:
            images.append(image if splits else replace(image, split=note.split))
        elif file.exists():
            images.append(LabelledImage(file, (), note.group or note.file, note.split, plane=note.plane))
    return [*images, *table.values()]


def known_classes(notes: Notes, sheet: Sheet, images: Iterable[LabelledImage]) -> tuple[LabelClass, ...]:
    """Return the classes of labels.json, then those of other labels in the table.

    Where one class has lost all its images and one label is new, the class was renamed in the table.
    """
    used = {label for image in images for label in image.labels}
    classes = [LabelClass(each.name, each.colour) for each in notes.classes]
    missing = sorted(used - {each.name for each in classes})
    emptied = [i for i, each in enumerate(notes.classes) if each.images and each.name not in used]
    if len(emptied) == len(missing) == 1 and sheet.images:
        classes[emptied[0]] = replace(classes[emptied[0]], name=missing.pop())
    for name in missing:
        classes.append(LabelClass(name, ""))
    return tuple(classes)


def with_colours(classes: Sequence[LabelClass]) -> tuple[LabelClass, ...]:
    """Give each class without a colour one of its own; the other classes keep theirs.

    It gets the colour that a model of these classes gives it, or the first one of the palette that is free.
    """
    palette = list(class_colours(list(map(str, range(PALETTE_SIZE)))).values())
    usual = class_colours(sorted(each.name for each in classes))
    used = {each.colour for each in classes}
    given = []
    for each in classes:
        free = [colour for colour in (usual[each.name], *palette) if colour not in used]
        given.append(each if each.colour else replace(each, colour=free[0] if free else usual[each.name]))
        used.add(given[-1].colour)
    return tuple(given)


def with_cells(sheet: Sheet, notes: Notes) -> Sheet:
    """Add the cells in columns of the user that labels.json keeps for images without a label."""
    from_notes = {
        (note.file, note.plane): tuple(note.cells.get(column, "") for column in sheet.columns)
        for note in notes.images
        if note.cells
    }
    return replace(sheet, cells={**from_notes, **sheet.cells})
