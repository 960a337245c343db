"""Tables of image-level labels, and their splits.

labels.csv: `file` (relative to the table), `label` (several separated by `|`), optional `group` (well, plate, strain:
never on both sides of a split) and `split` (train, validation or test). Or a folder with one folder of images per
class; a folder between class and image is the image's group.
"""

from __future__ import annotations

import csv
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path, PureWindowsPath

import numpy as np

from napari_milcnn.core.errors import LabelsError
from napari_milcnn.core.image_checks import OnImage, Row, check_rows
from napari_milcnn.core.images import AS_THEY_SAY, ImageReading
from napari_milcnn.core.problems import Problems
from napari_milcnn.core.splits import grouped_folds, held_out

SPLITS = ("train", "validation", "test")
_COLUMNS = ("file", "label", "group", "split")
_NO_IMAGES = (".txt", ".csv", ".md", ".json", ".xml", ".xlsx", ".pdf", ".db", ".ini", ".zip", ".py", ".log")
_FEW = 3
"""A class with fewer groups than this on one side is mentioned."""


@dataclass(frozen=True)
class LabelledImage:
    """One row of a table of labels."""

    file: Path
    labels: tuple[str, ...]
    group: str
    split: str | None = None
    line: int | None = None


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
        Where the rows come from, for messages.
    """

    images: tuple[LabelledImage, ...]
    reading: ImageReading = AS_THEY_SAY
    source: str = "the table"

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """Every label, sorted."""
        return tuple(sorted({label for image in self.images for label in image.labels}))

    @property
    def single_label(self) -> bool:
        """Whether every image has exactly one label."""
        return all(len(image.labels) == 1 for image in self.images)

    def part(self, split: str) -> LabelTable:
        """Return the images of one split."""
        return replace(self, images=tuple(image for image in self.images if image.split == split))

    def counts(self) -> dict[str, int]:
        """Class -> number of images that show it."""
        return dict(Counter(label for image in self.images for label in image.labels))

    def targets(self, classes: Sequence[str]) -> np.ndarray:
        """Multi-hot float32 (images, classes)."""
        place = {name: i for i, name in enumerate(classes)}
        targets = np.zeros((len(self.images), len(classes)), np.float32)
        for row, image in zip(targets, self.images, strict=True):
            row[[place[name] for name in image.labels if name in place]] = 1
        return targets

    def with_split(self, validation: float, seed: int) -> LabelTable:
        """Keep the table's own split where it has one, else put whole groups aside for validation.

        Of a class with two groups or more both sides get one, where the other classes let them.

        Raises
        ------
        LabelsError
            If there is only one group to split.
        """
        if any(image.split for image in self.images):
            return self
        if validation == 0:
            return self._split(np.zeros(len(self.images), bool))
        groups = self._groups(2, "cannot be split; add groups, a split column, or train with validation=0 "
                                 "(--validation 0)")  # fmt: skip
        return self._split(held_out(groups, self.targets(self.classes), validation, seed))

    def folds(self, k: int, seed: int) -> tuple[LabelTable, ...]:
        """Split into k folds by whole groups: k tables, each with one fold as validation and the rest to train on.

        Raises
        ------
        LabelsError
            If there are fewer groups than folds.
        """
        groups = self._groups(k, f"are too few for {k} folds; ask for fewer folds")
        return tuple(self._split(held) for held in grouped_folds(groups, self.targets(self.classes), k, seed))

    def split_warnings(self) -> tuple[str, ...]:
        """Say in sentences, with numbers, which classes have too few groups to be validated."""
        groups: dict[str, dict[str | None, set[str]]] = defaultdict(lambda: defaultdict(set))
        for image in self.images:
            for label in image.labels:
                groups[label][image.split].add(image.group)
        if not any(image.split == "validation" for image in self.images):
            return ()
        said = []
        for name in self.classes:
            train, held = len(groups[name]["train"]), len(groups[name]["validation"])
            if held == 0:
                said.append(f"{name} has {train} group{'s'[: train != 1]} and none of them in validation: "
                            "how well it is told cannot be measured")  # fmt: skip
            elif held < _FEW:
                said.append(f"{name} is validated on {held} group{'s'[: held > 1]} only: its figures say little")
        return tuple(said)

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


def check_images(table: LabelTable, on_image: OnImage | None = None) -> tuple[str, ...]:
    """Open every image of a table and compare them, before anything is trained.

    Parameters
    ----------
    table : LabelTable
        Its images for training and validation are opened; their headers are read.
    on_image : callable, optional
        Called with (images opened, images in all); return False to stop.

    Returns
    -------
    tuple of str
        What may be meant but should be known: other pixel sizes, other channel names, copies.

    Raises
    ------
    LabelsError
        Listing every image that cannot be read, has another number of channels, or is listed twice under two names with
        other labels.
    """
    errors = Problems()
    rows = [Row(image.line, image.file, image.labels) for image in table.images if image.split != "test"]
    warnings = check_rows(rows, table.reading, errors, on_image)
    if errors:
        raise LabelsError(errors.message(table.source))
    return (*warnings.sentences(), *table.split_warnings())


def read_labels(path: str | Path, reading: ImageReading = AS_THEY_SAY) -> LabelTable:
    """Read a table of image-level labels, or a folder with one folder of images per class.

    Parameters
    ----------
    path : path
        labels.csv (separated by comma, semicolon or tab), or the folder.
    reading : ImageReading
        How to open files that do not say axes, channels or pixel size themselves.

    Raises
    ------
    LabelsError
        Listing everything that is wrong with the table and, then, with its images at once.
    """
    path = Path(path)
    problems = Problems()
    images = _folder_images(path) if path.is_dir() else _table_images(path, problems)
    if not images:
        problems.add("it has no rows" if path.is_file() else "it has no folder with images; expected one per class")
    if problems:
        rows = [Row(image.line, image.file, image.labels) for image in images if image.file.exists()]
        rows = [row for row in rows if not _is_plain_folder(row.file) and _size(row.file)]
        check_rows(rows, reading, problems)
        raise LabelsError(problems.message(str(path)))
    return LabelTable(tuple(images), reading, str(path))


def _folder_images(folder: Path) -> list[LabelledImage]:
    """List the images of FOLDER/class/image and FOLDER/class/group/image."""
    images = []
    for label in sorted(child for child in folder.iterdir() if _is_plain_folder(child) and child.name[0] != "."):
        for file in sorted(_image_files(label)):
            inside = file.relative_to(label)
            group = inside.parts[0] if len(inside.parts) > 1 else f"{label.name}/{inside.name}"
            images.append(LabelledImage(file, (label.name,), group))
    return images


def _image_files(folder: Path) -> list[Path]:
    files = []
    for child in folder.iterdir():
        if child.name.startswith("."):
            continue
        if _is_plain_folder(child):
            files += _image_files(child)
        elif child.suffix.lower() not in _NO_IMAGES:
            files.append(child)
    return files


def _is_plain_folder(path: Path) -> bool:
    return path.is_dir() and path.suffix.lower() not in {".zarr", ".ngff"}


def _size(file: Path) -> int:
    return 1 if file.is_dir() else file.stat().st_size


def _table_images(path: Path, problems: Problems) -> list[LabelledImage]:
    """Read the rows of labels.csv, collecting what is wrong with them."""
    rows = _rows(path)
    images = []
    for line, row in rows:
        name, labels = row["file"], row["label"]
        images.append(LabelledImage(path.parent / name.replace("\\", "/") if name else path.parent, _names(labels),
                                    row["group"] or name, row["split"].lower() or None, line))  # fmt: skip
        _check_row(line, row, images[-1], problems)
    _check_columns(rows, problems)
    _check_labels(rows, images, problems)
    _check_repeats(images, problems)
    _check_groups(images, problems)
    return images


def _rows(path: Path) -> list[tuple[int, dict[str, str]]]:
    """Read the cells of a CSV: (line number, column -> text) for every row that is not empty."""
    text = _text(path)
    first = text.split("\n", 1)[0]
    separator = max((";", "\t", ","), key=first.count)
    try:
        reader = csv.reader(text.splitlines(keepends=True), delimiter=separator, strict=True)
        lines = [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader]
    except csv.Error as error:
        raise LabelsError(f"{path} cannot be read as a CSV ({error}); expected the columns file and label") from error
    lines = [(number, cells) for number, cells in lines if any(cells)]
    if not lines:
        raise LabelsError(f"{path} cannot be read as a CSV (it is empty); expected the columns file and label")
    header = [cell.lower() for cell in lines[0][1]]
    missing = [name for name in _COLUMNS[:2] if name not in header]
    if missing:
        raise LabelsError(f"{path} lacks the column {' and '.join(missing)}; found {', '.join(lines[0][1])}")
    long = [number for number, cells in lines if any(cells[len(header) :])]
    if long:
        raise LabelsError(f"{path}: line {long[0]} has more cells than the {len(header)} columns; names with a "
                          f"{separator!r} in them need quotes")  # fmt: skip
    place = {name: header.index(name) for name in _COLUMNS if name in header}
    return [(number, {name: (cells[place[name]] if name in place and place[name] < len(cells) else "")
                      for name in _COLUMNS}) for number, cells in lines[1:]]  # fmt: skip


def _text(path: Path) -> str:
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise LabelsError(f"{path} does not exist; expected a CSV with the columns file and label") from error
    except OSError as error:
        raise LabelsError(f"{path} cannot be read ({error.strerror}); expected a CSV") from error
    for begin, kind in ((b"PK", "a spreadsheet"), (b"\xff\xfe", "UTF-16 text"), (b"\xfe\xff", "UTF-16 text"),
                        (b"\xd0\xcf\x11\xe0", "a spreadsheet")):  # fmt: skip
        if content.startswith(begin):
            raise LabelsError(f"{path} cannot be read as a CSV: it is {kind}; save it as 'CSV UTF-8'")
    try:
        return content.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n").replace("\0", "")
    except UnicodeDecodeError as error:
        raise LabelsError(f"{path} cannot be read as a CSV ({error.reason} at byte {error.start}); save it as "
                          "'CSV UTF-8'") from error  # fmt: skip


def _check_row(line: int, row: dict[str, str], image: LabelledImage, problems: Problems) -> None:
    name, label = row["file"], row["label"]
    said = f"line {line} {name!r}"
    if not name:
        problems.add("rows without a file", f"line {line}")
    elif not image.file.exists():
        if PureWindowsPath(name).drive or (Path(name).is_absolute() and not Path(name).parent.exists()):
            problems.add("files of another computer, expected names relative to the table", said)
        elif label and (image.file.parent / label).is_file():
            problems.add("file and label in each other's column", f"{said} {label!r}")
        else:
            problems.add(f"files that are not in {image.file.parent}", said)
    elif _is_plain_folder(image.file):
        problems.add("folders in place of images", said)
    elif not _size(image.file):
        problems.add("empty files", said)
    if not image.labels:
        problems.add("rows without a label", said)
    elif len([part for part in label.split("|") if part.strip()]) < label.count("|") + 1:
        problems.add("labels with nothing between two bars", f"{said} {label!r}")
    if image.split not in {None, *SPLITS}:
        problems.add(f"splits that are none of {', '.join(SPLITS)}", f"{said} {row['split']!r}")


def _check_columns(rows: list[tuple[int, dict[str, str]]], problems: Problems) -> None:
    for name in ("group", "split"):
        without = [line for line, row in rows if not row[name]]
        if 0 < len(without) < len(rows):
            problems.add(f"the column {name} is filled for {len(rows) - len(without)} of {len(rows)} rows; fill all or "
                         f"none, the first without is line {without[0]}")  # fmt: skip


def _check_labels(rows: list[tuple[int, dict[str, str]]], images: list[LabelledImage], problems: Problems) -> None:
    """Find labels that were probably meant to be others."""
    used = Counter(label for image in images for label in image.labels)
    spellings: dict[str, list[str]] = defaultdict(list)
    for label in used:
        spellings["".join(label.casefold().split()).replace("_", "").replace("-", "")].append(label)
    for alike in spellings.values():
        if len(alike) > 1:
            counts = " and ".join(f"{name!r} ({used[name]})" for name in sorted(alike))
            first = next(image.line for image in images if alike[-1] in image.labels)
            problems.add("labels that differ only in case, spaces or dashes", f"{counts}, line {first}")
    for line, row in rows:
        parts = [part.strip() for part in re.split("[,;]", row["label"])]
        if len(parts) > 1 and all(part in used for part in parts):
            problems.add("labels joined by , or ; expected A|B", f"line {line} {row['label']!r}")


def _check_repeats(images: list[LabelledImage], problems: Problems) -> None:
    repeats: dict[Path, list[LabelledImage]] = defaultdict(list)
    for image in images:
        repeats[image.file.resolve()].append(image)
    for alike in repeats.values():
        if len(alike) > 1 and alike[0].file.is_file():
            lines = " and ".join(f"line {image.line} ({'|'.join(image.labels)})" for image in alike)
            other = len({frozenset(image.labels) for image in alike}) > 1
            how = "again with other labels, expected one row with A|B" if other else "twice"
            problems.add(f"images listed {how}", f"{alike[0].file.name!r} {lines}")


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


def _names(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name.strip() for name in text.split("|") if name.strip()))
