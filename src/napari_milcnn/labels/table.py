"""Tables of image-level labels, and their splits.

Labels come in one of three forms:

- labels.csv with the columns `file` (relative to the table; or a column for each channel, such as `file GFP` and
  `file RFP`) and `label` (several separated by `|`), and optional `plane` (such as "P0 T3"), `group` (well, plate,
  strain: never on both sides of a split) and `split` (train, validation or test), and for models that scale intensities
  by plate `plate` and `control` (`images.intensity.Plates`);
- a folder with one folder of images per class; a folder between class and image is the group of the image;
- an OME-Zarr plate and its layout, a CSV with the columns `well` and `label`, and optional `group` and `split`.

Decisions:

- A row without a group is in the group of its file, so that planes of one file stay on one side of a split.
- A field of a plate is a row with its own file, PLATE/B/03/0, not a plane of the plate: fields may differ in size, and
  opening one must not open them all.
- Labels that look alike are refused, not joined: whether "0" and "0.0", "1" and "01" or "WT" and "wt" mean one class is
  known to the person who wrote them. Accents that are composed in one row and decomposed in another are one label.
"""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from functools import cached_property
from itertools import combinations
from pathlib import Path, PureWindowsPath

import numpy as np

from napari_milcnn.delimited import read_delimited, split_labels, table_of
from napari_milcnn.errors import ImageError, LabelsError
from napari_milcnn.images.channels import plain_name
from napari_milcnn.images.instruments import well_name
from napari_milcnn.images.intensity import Plate, Plates, table_with_plates
from napari_milcnn.images.ome_zarr import plate_wells
from napari_milcnn.images.open import AS_THEY_SAY, ImageReading
from napari_milcnn.images.paths import (
    as_on_disk,
    composed,
    exists_on_disk,
    files_of,
    images_in,
    is_plain_folder,
    shown_name,
    with_file_column,
)
from napari_milcnn.images.stack import ImageStack, PlaneChoice, only_planes
from napari_milcnn.labels.image_checks import CheckedRow, OnImage, Problems, check_rows
from napari_milcnn.labels.splits import grouped_folds, held_out
from napari_milcnn.untrusted import is_hidden, name_fault, short

SPLITS = ("train", "validation", "test")
TABLE_COLUMNS = ("file", "label", "plane", "group", "split")
"""Columns of labels.csv; only file and label must be there."""
_LAYOUT_COLUMNS = ("well", "label", "group", "split")
_NUMBER = re.compile(r"[+-]?(\d+([.,]\d*)?|[.,]\d+)(e[+-]?\d{1,4})?", re.IGNORECASE | re.ASCII)
"""A label that is a number, with a decimal point or comma."""
_ONE_NUMBER = "labels that are one number in several spellings; write it in one way, or give the classes names"
_FEW = 3
"""A class with fewer groups than this in validation is mentioned."""


@dataclass(frozen=True)
class LabelledImage:
    """One row of a table of labels.

    Attributes
    ----------
    file : Path
        The image.
    labels : tuple of str
        The classes that the image shows.
    group : str
        The well, plate or strain of the image: never on both sides of a split.
    split : str or None
        One of `SPLITS`; None where the table does not say.
    line : int or None
        Number of its line in the table, for messages.
    plane : str
        The planes of the file that are meant, such as "P0 T3"; all planes where it is empty.
    """

    file: Path
    labels: tuple[str, ...]
    group: str
    split: str | None = None
    line: int | None = None
    plane: str = ""

    @property
    def name(self) -> str:
        """The name in messages: the file, or its path from the zarr on that it lies in, and its planes."""
        return f"{shown_name(self.file)} {self.plane}".rstrip()


@dataclass(frozen=True)
class LabelTable:
    """Images with their image-level labels.

    Attributes
    ----------
    images : tuple of LabelledImage
        The rows.
    reading : ImageReading
        Axes, channels and pixel size where the files do not say.
    source : str
        The table, folder or layout that the rows come from, for messages.
    warnings : tuple of str
        Sentences on what may be meant but should be known.
    plates : Plates
        Which images share a plate or batch, for models that scale intensities by it (`plates_of`).
    """

    images: tuple[LabelledImage, ...]
    reading: ImageReading = AS_THEY_SAY
    source: str = "the table"
    warnings: tuple[str, ...] = ()
    plates: Plates = field(default_factory=Plates, repr=False, compare=False)

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """Every label, sorted."""
        return tuple(sorted({label for image in self.images for label in image.labels}))

    @property
    def single_label(self) -> bool:
        """Whether every image has exactly one label."""
        return all(len(image.labels) == 1 for image in self.images)

    def open(self, image: LabelledImage) -> ImageStack:
        """Open the file of a row, with the planes that the row means.

        Raises
        ------
        ImageError
            If the file cannot be opened, or has no such planes.
        """
        opened = replace(self.reading.open(image.file), plates=self.plates)
        try:
            return only_planes(opened, image.plane)
        except ImageError:
            opened.close()
            raise

    def part(self, split: str) -> LabelTable:
        """Return the images of one split."""
        return replace(self, images=tuple(image for image in self.images if image.split == split))

    def counts(self) -> dict[str, int]:
        """Return class -> number of images that show it."""
        return dict(Counter(label for image in self.images for label in image.labels))

    def classes_of_plates(self) -> dict[Plate, set[str]]:
        """Return plate -> the classes that its images show.

        Raises
        ------
        ImageError
            If the plate of an image is not known.
        LabelsError
            If the table of plates has mistakes.
        """
        shown: dict[Plate, set[str]] = defaultdict(set)
        for image in self.images:
            shown[self.plates.plate_of(image.file)].update(image.labels)
        return dict(shown)

    def targets(self, classes: Sequence[str]) -> np.ndarray:
        """Return 1 where an image shows a class, else 0: float32 (images, classes)."""
        place = {name: i for i, name in enumerate(classes)}
        targets = np.zeros((len(self.images), len(classes)), np.float32)
        for row, image in zip(targets, self.images, strict=True):
            row[[place[name] for name in image.labels if name in place]] = 1
        return targets

    def with_split(self, validation: float, seed: int) -> LabelTable:
        """Keep the split of the table where it has one; else put whole groups aside for validation.

        Both sides get a group of each class that has two groups or more, where the other classes allow it.

        Raises
        ------
        LabelsError
            If there is only one group to split.
        """
        if any(image.split for image in self.images):
            return self
        if validation == 0:
            return self._split(np.zeros(len(self.images), bool))
        groups = self._groups(2, "cannot be split; add groups, a split column, or keep no group for "
                                 "validation (option validation: 0)")  # fmt: skip
        return self._split(held_out(groups, self.targets(self.classes), validation, seed))

    def folds(self, k: int, seed: int) -> tuple[LabelTable, ...]:
        """Split into k folds by whole groups: k tables, each with one fold for validation and the rest for training.

        Raises
        ------
        LabelsError
            If there are fewer groups than folds.
        """
        groups = self._groups(k, f"are too few for {k} folds; ask for fewer folds")
        return tuple(self._split(held) for held in grouped_folds(groups, self.targets(self.classes), k, seed))

    def split_warnings(self) -> tuple[str, ...]:
        """Say, with numbers, which classes have too few groups to be validated."""
        groups: dict[str, dict[str | None, set[str]]] = defaultdict(lambda: defaultdict(set))
        for image in self.images:
            for label in image.labels:
                groups[label][image.split].add(image.group)
        if not any(image.split == "validation" for image in self.images):
            return ()
        sentences = []
        for name in self.classes:
            train, held = len(groups[name]["train"]), len(groups[name]["validation"])
            if held == 0:
                sentences.append(f"{name} has {train} group{'s'[: train != 1]} and none of them in validation: "
                                 "how well it is recognised cannot be measured")  # fmt: skip
            elif held < _FEW:
                sentences.append(f"{name} is validated on only {held} group{'s'[: held > 1]}: its figures say little")
        return tuple(sentences)

    def _split(self, held: np.ndarray) -> LabelTable:
        images = (replace(image, split=SPLITS[int(out)]) for image, out in zip(self.images, held, strict=True))
        return replace(self, images=tuple(images))

    def _groups(self, least: int, otherwise: str) -> list[str]:
        groups = [image.group for image in self.images]
        count = len(set(groups))
        if count < least:
            what = f"of one group, {groups[0]!r}, which" if count == 1 else f"of {count} groups, which"
            raise LabelsError(f"all {len(groups)} images are {what} {otherwise}")
        return groups


def check_images(
    table: LabelTable, on_image: OnImage | None = None, *, pixel_size: float | None = None
) -> tuple[str, ...]:
    """Open every image of a table and compare them, before anything is trained.

    Parameters
    ----------
    table : LabelTable
        The images for training and validation are opened, and their headers are read.
    on_image : callable, optional
        Called with (images opened, images in all); return False to stop.
    pixel_size : float, optional
        That of the model in µm; by default that of most images.

    Returns
    -------
    tuple of str
        Sentences on what may be meant but should be known: other pixel sizes, other channel names, copies.

    Raises
    ------
    LabelsError
        Listing every image that cannot be read, has another number of channels, or is listed under two names with
        different labels.
    """
    errors = Problems()
    rows = [_checked_row(image) for image in table.images if image.split != "test"]
    warnings = check_rows(rows, table.reading, errors, on_image, pixel_size)
    if errors:
        raise LabelsError(errors.message(table.source))
    return (*table.warnings, *warnings.sentences(), *table.split_warnings())


def _checked_row(image: LabelledImage) -> CheckedRow:
    return CheckedRow(image.line, image.file, image.labels, image.plane, image.name)


def read_labels(
    path: str | Path,
    reading: ImageReading = AS_THEY_SAY,
    layout: str | Path | None = None,
    *,
    unlabelled: bool = False,
) -> LabelTable:
    """Read a table of image-level labels, a folder with one folder of images per class, or an OME-Zarr plate.

    Parameters
    ----------
    path : path
        labels.csv (separated by comma, semicolon or tab), the folder, or the plate.
    reading : ImageReading
        How to open files that do not say axes, channels or pixel size themselves.
    layout : path, optional
        For a plate: a CSV with the columns well ("B03", "B3" or "B/3") and label, and optional group and split. Each
        field of a well with a label is a row; its group is its well where the layout gives no other.
    unlabelled : bool
        Whether rows of a table may have no label yet, as where images are still to be labelled.

    Raises
    ------
    LabelsError
        Listing everything that is wrong with the table and, if anything is, with its images too.
    """
    path = as_on_disk(Path(path))
    wells = plate_wells(path)
    if (wells is None) != (layout is None):
        raise LabelsError(
            f"{path} is not an OME-Zarr plate and has no layout; leave the layout out (option layout)"
            if wells is None
            else f"{path} is an OME-Zarr plate of {len(wells)} wells; give its layout, a CSV with the columns well and "
            "label (option layout)"
        )
    source = path if layout is None else as_on_disk(Path(layout))
    problems, warnings = Problems(), Problems()
    if wells is not None:
        images = _plate_images(source, wells, problems, warnings)
    else:
        a_folder = os.path.isdir(path)
        reading = reading if a_folder else with_channel_columns(path, reading)
        images = (
            _folder_images(path, reading.pattern, problems, warnings)
            if a_folder
            else _table_images(path, problems, warnings, unlabelled)
        )
    if not images:
        problems.add(
            "it has no rows" if os.path.isfile(source) else "it has no folder with images; expected one per class"
        )
    if problems:
        known = [image for image in images if exists_on_disk(image.file) and not is_plain_folder(image.file)]
        check_rows([_checked_row(image) for image in known if _size(image.file)], reading, problems)
        raise LabelsError(problems.message(str(source)))
    return LabelTable(tuple(images), reading, str(source), tuple(warnings.sentences()), plates_of(source, reading))


def plates_of(labels: Path, reading: ImageReading) -> Plates:
    """Return what is known of the plates of labelled images: from `reading.plates`, from the table, or by folders."""
    return Plates(reading.plates or table_with_plates(labels), reading)


def _plate_images(
    layout: Path, wells: dict[str, tuple[Path, ...]], problems: Problems, warnings: Problems
) -> list[LabelledImage]:
    """List the fields of the wells that a layout names and labels; collect what is wrong with the layout."""
    rows = _rows(layout, _LAYOUT_COLUMNS, 2)
    there = {well_name(name): fields for name, fields in wells.items()}
    lines: dict[str, list[int]] = defaultdict(list)
    images: list[LabelledImage] = []
    for line, row in rows:
        well, labels, split = well_name(row["well"]), split_labels(row["label"]), row["split"].lower() or None
        lines[well].append(line)
        if well not in there:
            problems.add("wells that are not on the plate", f"line {line} {row['well']!r}")
        elif not labels:
            warnings.add("wells without a label, which are left out", f"line {line} {row['well']!r}")
        else:
            _check_words(line, row, row["well"], problems)
            group = row["group"] or well
            images += [LabelledImage(field, labels, group, split, line) for field in there[well]]
    for well, several in lines.items():
        if len(several) > 1:
            problems.add("wells listed twice", f"{well!r} {' and '.join(f'line {line}' for line in several)}")
    for well in sorted(set(there) - set(lines)):
        warnings.add("wells of the plate that the layout does not name, which are left out", well)
    _check_columns(rows, problems)
    _check_labels(rows, images, problems)
    _check_groups(images, problems)
    return images


def with_channel_columns(table: Path, reading: ImageReading) -> ImageReading:
    """Return the reading in which channels are called after the columns of a table, such as "file GFP"."""
    try:
        _, names = with_file_column(read_delimited(table))
    except (OSError, ValueError):
        return reading  # said where the rows are read
    return replace(reading, channels=names) if names and reading.channels is None else reading


def _folder_images(folder: Path, pattern: str | None, problems: Problems, warnings: Problems) -> list[LabelledImage]:
    """List the images of FOLDER/class/image and FOLDER/class/group/image; a folder without images is mentioned."""
    images = []
    for label in _folders_in(folder):
        files = sorted(_images_below(label, pattern))
        if not files:
            warnings.add("folders without an image, which are left out", repr(label.name))
        for file in files:
            inside = file.relative_to(label)
            group = inside.parts[0] if len(inside.parts) > 1 else f"{label.name}/{inside.name}"
            images.append(LabelledImage(file, (composed(label.name),), group))
    _check_labels([], images, problems)
    return images


def _folders_in(folder: Path) -> list[Path]:
    """List the folders in a folder that are not hidden and not images themselves, sorted."""
    return sorted(child for child in folder.iterdir() if is_plain_folder(child) and not child.name.startswith("."))


def _images_below(folder: Path, pattern: str | None) -> list[Path]:
    """List the images in a folder and in all folders in it."""
    below = (file for child in _folders_in(folder) for file in _images_below(child, pattern))
    return [*images_in(folder, pattern), *below]


def _size(file: Path) -> int:
    """Return the number of bytes of an image, of the smallest of its files where there are several."""
    return 1 if os.path.isdir(file) else min(one.stat().st_size for one in files_of(file))


def _table_images(path: Path, problems: Problems, warnings: Problems, unlabelled: bool) -> list[LabelledImage]:
    """Read the rows of labels.csv; collect what is wrong with them."""
    rows = _rows(path, TABLE_COLUMNS, 2)
    images = []
    names: dict[Path, str] = {}
    for line, row in rows:
        name, labels = row["file"], row["label"]
        file = as_on_disk(path.parent / name.replace("\\", "/")) if name else path.parent
        group = row["group"] or names.setdefault(_real(file), name)
        plane = _plane(line, row["plane"], problems)
        images.append(LabelledImage(file, split_labels(labels), group, row["split"].lower() or None, line, plane))
        _check_row(line, row, images[-1], problems)
        if not labels and not unlabelled:
            problems.add("rows without a label", f"line {line} {name!r}")
    _check_columns(rows, problems)
    _check_labels(rows, images, problems)
    _check_repeats(images, problems, warnings)
    _check_groups(images, problems)
    return images


def _real(file: Path) -> Path:
    """Follow links, as `Path.resolve` does, also where they lead round in a circle."""
    return Path(os.path.realpath(file))


def _plane(line: int, name: str, problems: Problems) -> str:
    try:
        return PlaneChoice.read(name).name
    except ImageError:
        problems.add("planes that are not understood; expected names such as P0 or P0 T3 Z1", f"line {line} {name!r}")
        return ""


def _rows(path: Path, columns: tuple[str, ...], needed: int) -> list[tuple[int, dict[str, str]]]:
    """Read a CSV: (number of the line, column -> text) for every row that is not empty.

    The first `needed` columns must be there; the others may be missing, and are then empty.
    """
    expected = " and ".join(columns[:needed])
    table, _ = with_file_column(table_of(path, f"a CSV with the columns {expected}", LabelsError))
    header = [name.lower() for name in table.columns]
    missing = [name for name in columns[:needed] if name not in header]
    if missing:
        names = " and ".join(f'"{name}"' for name in missing)
        found = short(", ".join(table.columns))
        raise LabelsError(f"{path} has no column{'s'[: len(missing) > 1]} {names}; found {found}")
    twice = [name for name in columns if header.count(name) > 1]
    if twice:
        raise LabelsError(f'{path} has {header.count(twice[0])} columns "{twice[0]}"; give each column its own name')
    place = {name: header.index(name) for name in columns if name in header}
    return [(line, {name: _cell(name, cells[place[name]]) if name in place else "" for name in columns})
            for line, cells in zip(table.lines, table.rows, strict=True)]  # fmt: skip


def _cell(column: str, text: str) -> str:
    """Return the text of a cell with composed accents; names of files stay as they are (`as_on_disk`)."""
    return text if column == "file" else composed(text)


def _check_row(line: int, row: dict[str, str], image: LabelledImage, problems: Problems) -> None:
    name, label = row["file"], row["label"]
    place = f"line {line} {name!r}"
    if not name:
        problems.add("rows without a file", f"line {line}")
    elif not exists_on_disk(image.file):
        if PureWindowsPath(name).drive or (Path(name).is_absolute() and not os.path.exists(Path(name).parent)):
            problems.add("files of another computer; expected names relative to the table", place)
        elif label and os.path.isfile(image.file.parent / label):
            problems.add("file and label in each other's column", f"{place} {label!r}")
        else:
            problems.add(f"files that are not in {image.file.parent}", place)
    elif is_plain_folder(image.file):
        problems.add("folders in place of images", place)
    elif not all(map(os.path.isfile, files_of(image.file))) and not os.path.isdir(image.file):
        problems.add("pipes or devices in place of images", place)
    elif not _size(image.file):
        problems.add("empty files", place)
    _check_words(line, row, name, problems)


def _check_words(line: int, row: dict[str, str], name: str, problems: Problems) -> None:
    """Find mistakes in the label and the split of a row of a file or a well."""
    label, place = row["label"], f"line {line} {name!r}"
    if split_labels(label) and len([part for part in label.split("|") if part.strip()]) < label.count("|") + 1:
        problems.add("labels with nothing between two bars", f"{place} {label!r}")
    for word in (*split_labels(label), *filter(None, (row.get("group"),))):
        fault = name_fault(word)
        if fault is not None:
            problems.add("labels or groups that cannot be names", f"{place} '{short(word, 60)}': {fault}")
    if row["split"].lower() not in {"", *SPLITS}:
        problems.add(f"splits other than {', '.join(SPLITS)}", f"{place} {row['split']!r}")


def _check_columns(rows: list[tuple[int, dict[str, str]]], problems: Problems) -> None:
    for name in ("group", "split"):
        without = [line for line, row in rows if not row[name]]
        if 0 < len(without) < len(rows):
            problems.add(f"the column {name} is filled for {len(rows) - len(without)} of {len(rows)} rows, and line "
                         f"{without[0]} is the first without; fill all rows or none")  # fmt: skip


def _check_labels(rows: list[tuple[int, dict[str, str]]], images: list[LabelledImage], problems: Problems) -> None:
    """Find labels that are probably misspelled, or joined by the wrong sign."""
    used = Counter(label for image in images for label in image.labels)
    spellings: dict[str | Decimal, list[str]] = defaultdict(list)
    for label in used:
        spellings[_plain_label(label)].append(label)
    for plain, alike in spellings.items():
        if len(alike) > 1:
            counts = " and ".join(f"{name!r} ({used[name]})" for name in sorted(alike))
            first = next(image for image in images if alike[-1] in image.labels)
            number = isinstance(plain, Decimal)
            differ = _ONE_NUMBER if number else "labels that differ only in case, spaces or dashes"
            problems.add(differ, f"{counts}, {repr(first.name) if first.line is None else f'line {first.line}'}")
    for line, row in rows:
        parts = [part.strip() for part in re.split("[,;]", row["label"])]
        if len(parts) > 1 and all(part in used for part in parts):
            problems.add("labels joined by , or ; expected A|B", f"line {line} {row['label']!r}")


def _plain_label(label: str) -> str | Decimal:
    """Return what two spellings of one label have in common: the number, or the text without case, spaces and dashes.

    Signs that are not seen, such as a space of no width, do not count.
    """
    seen = "".join(sign for sign in label if not is_hidden(sign))
    return Decimal(seen.replace(",", ".")) if _NUMBER.fullmatch(seen) else plain_name(seen) or seen


def _check_repeats(images: list[LabelledImage], problems: Problems, warnings: Problems) -> None:
    """Find files, or planes of files, that are listed twice, and planes that other rows of their file contain."""
    files: dict[Path, dict[str, list[LabelledImage]]] = defaultdict(lambda: defaultdict(list))
    for image in images:
        files[_real(image.file)][image.plane].append(image)
    for file, planes in files.items():
        if not exists_on_disk(file) or is_plain_folder(file):
            continue
        for alike in planes.values():
            if len(alike) > 1:
                other = len({frozenset(image.labels) for image in alike}) > 1
                how = "again with other labels; expected one row with A|B" if other else "twice"
                problems.add(f"images listed {how}", _lines(alike))
        for pair in _overlaps([alike[0] for alike in planes.values()]):
            if set(pair[0].labels) == set(pair[1].labels):
                warnings.add("planes that two rows have in common", _lines(pair))
            else:
                problems.add("planes that two rows with other labels have in common", _lines(pair))


def _lines(images: Sequence[LabelledImage]) -> str:
    """Name the lines of rows of one file: "'a.tif' line 2 (drug) and line 5 (drug)"."""
    one_plane = len({image.plane for image in images}) == 1
    name = images[0].name if one_plane else replace(images[0], plane="").name
    planes = ["" if one_plane else f"{image.plane or 'every plane'}: " for image in images]
    places = (
        f"line {image.line} ({plane}{'|'.join(image.labels)})" for image, plane in zip(images, planes, strict=True)
    )
    return f"{name!r} {' and '.join(places)}"


def _overlaps(images: Sequence[LabelledImage]) -> Iterator[tuple[LabelledImage, LabelledImage]]:
    """Find pairs of rows of one file that name different axes, and agree in the axes that both name."""
    kinds: dict[tuple[int, ...], list[tuple[PlaneChoice, LabelledImage]]] = defaultdict(list)
    for image in images:
        plane = PlaneChoice.read(image.plane)
        kinds[tuple(axis for axis, number in enumerate(plane) if number is not None)].append((plane, image))
    for one, other in combinations(kinds, 2):
        common = set(one) & set(other)
        there: dict[tuple[int | None, ...], list[LabelledImage]] = defaultdict(list)
        for plane, image in kinds[one]:
            there[tuple(plane[axis] for axis in common)].append(image)
        for plane, image in kinds[other]:
            yield from ((first, image) for first in there.get(tuple(plane[axis] for axis in common), ()))


def _check_groups(images: list[LabelledImage], problems: Problems) -> None:
    sides: dict[str, dict[str, int | None]] = defaultdict(dict)
    for image in images:
        if image.split in SPLITS:
            sides[image.group].setdefault(image.split, image.line)
    for group, lines in sides.items():
        if len(lines) > 1:
            stands = " and ".join(f"{split} (line {line})" for split, line in lines.items())
            problems.add("groups on both sides of the split", f"{group!r} in {stands}")
    trained = {label for image in images if image.split == "train" for label in image.labels}
    for label in sorted({label for image in images for label in image.labels} - trained if trained else ()):
        problems.add("labels without an image in training", repr(label))
