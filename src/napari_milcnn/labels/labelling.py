"""Labels given by hand, one change after another: what the Train dock edits and the command line trains from.

labels.csv beside the images holds the labelled images, and other programs can read it. labels.json beside it holds what
that table cannot: classes with their colours and order, images without a label, and splits that are not complete yet.

Decisions:

- Every change is written at once. Each file is written under another name and moved into place. After a crash between
  the two moves the files may disagree: labels.csv then counts, and labels.json still counts for all other images.
- Columns that the user added to the table are kept, and the table as it was before the first change is kept as
  labels.csv.bak.
- A table that another program has changed meanwhile is not overwritten.
- A split is of whole groups: what is set for an image is set for its group. A split with which training would refuse
  labels.csv is left out of it, and a warning says why: not every labelled image has one, or a class has none in train.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from napari_milcnn.errors import LabelsError
from napari_milcnn.images.channels import plain_name
from napari_milcnn.images.open import AS_THEY_SAY, ImageReading
from napari_milcnn.images.paths import FILE_OF, as_on_disk, exists_on_disk, files_of
from napari_milcnn.labels.labelling_files import (
    LabelClass,
    NotedClass,
    Sheet,
    found_images,
    known_classes,
    known_images,
    merged_images,
    notes_path,
    read_notes,
    read_sheet,
    relative_name,
    table_path,
    with_cells,
    with_colours,
)
from napari_milcnn.labels.labelling_writer import LabelWriter
from napari_milcnn.labels.table import SPLITS, LabelledImage, LabelTable, plates_of, with_channel_columns
from napari_milcnn.untrusted import name_fault, short

FEW_IMAGES, UNBALANCED = 5, 5
"""A class with fewer images than this, or this many times fewer than the largest class, is mentioned."""
_STEPS = 1000
"""Number of changes that can be undone."""


@dataclass(frozen=True)
class _State:
    classes: tuple[LabelClass, ...]
    images: tuple[LabelledImage, ...]


class Labelling:
    """Images with their classes and labels, while they are being labelled; made by `open_labelling`.

    Every change is one step that can be undone, and is saved at once. A change that cannot be written raises
    `OutputError` and is kept in memory: the next change tries to write it again.

    Attributes
    ----------
    path : Path
        The table that holds the labels, such as labels.csv beside the images.
    reading : ImageReading
        Axes, channels and pixel size where the files do not say.
    unsaved : bool
        Whether the last change could not be written.
    """

    def __init__(self, path: Path, state: _State, reading: ImageReading, sheet: Sheet) -> None:
        self.path, self.reading, self.unsaved = path, reading, False
        self._now = state
        self._past: deque[_State] = deque(maxlen=_STEPS)
        self._future: list[_State] = []
        self._writer = LabelWriter(path, sheet, state.images)
        self._names = self._writer.names

    @property
    def classes(self) -> tuple[LabelClass, ...]:
        """The classes in the order of their number keys, those without an image among them, each with its colour."""
        return self._now.classes

    @property
    def images(self) -> tuple[LabelledImage, ...]:
        """Every image, labelled or not; the `rows` of all methods are places in this tuple."""
        return self._now.images

    @property
    def must_be_saved(self) -> bool:
        """Whether a training could not read these labels from disk: no file yet, or one with rows without a label."""
        return self.unsaved or not self.path.exists() or not all(image.labels for image in self._writer.sheet.images)

    @property
    def can_undo(self) -> bool:
        """Whether there is a change to undo."""
        return bool(self._past)

    @property
    def can_redo(self) -> bool:
        """Whether there is a change that was undone."""
        return bool(self._future)

    # Classes

    def add_class(self, name: str, colour: str | None = None) -> None:
        """Add a class with a colour, by default the first of the palette that no class has.

        Raises
        ------
        LabelsError
            If the name is empty or taken, or could not be read back from labels.csv.
        """
        name = _checked_class(name, [each.name for each in self.classes])
        self._change(classes=with_colours((*self._now.classes, LabelClass(name, colour or ""))))

    def rename_class(self, old: str, new: str) -> None:
        """Rename a class, and the label of its images with it.

        Raises
        ------
        LabelsError
            If there is no such class, or the new name is empty, taken, or could not be read back from labels.csv.
        """
        place = self._place(old)
        new = _checked_class(new, [each.name for each in self.classes if each.name != old])
        classes = list(self._now.classes)
        classes[place] = replace(classes[place], name=new)
        images = (replace(image, labels=tuple(new if label == old else label for label in image.labels))
                  if old in image.labels else image for image in self.images)  # fmt: skip
        self._change(tuple(classes), tuple(images))

    def recolour_class(self, name: str, colour: str) -> None:
        """Give a class another colour, #rrggbb."""
        place = self._place(name)
        classes = list(self._now.classes)
        classes[place] = replace(classes[place], colour=colour)
        self._change(tuple(classes))

    def move_class(self, name: str, place: int) -> None:
        """Move a class to another place, from 0, in the order of the classes, which is that of the number keys."""
        classes = list(self._now.classes)
        classes.insert(place, classes.pop(self._place(name)))
        self._change(tuple(classes))

    def remove_class(self, name: str) -> None:
        """Remove a class, and its label from every image."""
        place = self._place(name)
        classes = self._now.classes
        self._change(classes[:place] + classes[place + 1 :], tuple(_without_label(self.images, name)))

    # Images

    def label(self, rows: Sequence[int], name: str, add: bool = False) -> None:
        """Give some images a label: as their only label, or with `add` as a further one.

        Raises
        ------
        LabelsError
            If there is no such class, or a file is missing, empty, or has a name that labels.csv cannot hold.
        """
        self._place(name)
        for row in rows:
            _check_file(self.images[row].file, self._names[self.images[row].file])
        self._change_images(rows, lambda image: replace(
            image, labels=tuple(dict.fromkeys((*image.labels, name))) if add else (name,)))  # fmt: skip

    def unlabel(self, rows: Sequence[int], name: str | None = None) -> None:
        """Remove one label from some images, or all their labels."""
        self._change_images(rows, lambda image: replace(
            image, labels=tuple(label for label in image.labels if name not in (None, label))))  # fmt: skip

    def set_group(self, rows: Sequence[int], group: str) -> None:
        """Put some images into a group and its split; with an empty name each is in the group of its own file."""
        group, chosen = " ".join(group.split()), set(rows)
        splits = {image.group: image.split for row, image in enumerate(self.images) if row not in chosen}

        def moved(image: LabelledImage) -> LabelledImage:
            name = group or self._names[image.file]
            return replace(image, group=name, split=splits.setdefault(name, image.split))

        self._change_images(rows, moved)

    def set_split(self, rows: Sequence[int], split: str | None) -> None:
        """Put the groups of some images into train, validation or test; None leaves the choice to the training.

        Raises
        ------
        LabelsError
            If there is no such split.
        """
        if split not in (None, *SPLITS):
            raise LabelsError(f"the split {split!r} is none of {', '.join(SPLITS)}; choose one of them or none")
        groups = {self.images[row].group for row in rows}
        self._change_images(
            [row for row, image in enumerate(self.images) if image.group in groups],
            lambda image: replace(image, split=split),
        )

    def read_as(self, axes: str) -> None:
        """Set the axes, such as CYX, of files that do not name them; "" unsets them. This is not a step to undo."""
        self.reading = replace(self.reading, axes=axes.strip().upper() or None)
        self.save()

    # Steps

    def undo(self) -> None:
        """Undo the last change; nothing happens where there is none."""
        if self._past:
            self._future.append(self._now)
            self._now = self._past.pop()
            self.save()

    def redo(self) -> None:
        """Redo the change that was undone last; nothing happens where there is none."""
        if self._future:
            self._past.append(self._now)
            self._now = self._future.pop()
            self.save()

    def _change_images(self, rows: Sequence[int], change: Callable[[LabelledImage], LabelledImage]) -> None:
        images = list(self.images)
        for row in rows:
            images[row] = change(images[row])
        self._change(images=tuple(images))

    def _change(
        self, classes: tuple[LabelClass, ...] | None = None, images: tuple[LabelledImage, ...] | None = None
    ) -> None:
        after = _State(self._now.classes if classes is None else classes, self.images if images is None else images)
        if after != self._now:
            self._past.append(self._now)
            self._future.clear()
            self._now = after
        elif not self.unsaved:
            return
        self.save()

    # What there is

    def everything(self) -> LabelTable:
        """Return all images as a table, those without a label among them; its rows are places in `images`."""
        return LabelTable(self.images, self.reading, str(self.path), plates=plates_of(self.path, self.reading))

    def table(self) -> LabelTable:
        """Return the labelled images: the table to train from, equal to `read_labels(path)` after a save."""
        return LabelTable(
            _as_read(self.images, self.classes), self.reading, str(self.path), plates=plates_of(self.path, self.reading)
        )

    @property
    def has_split(self) -> bool:
        """Whether a training uses the split of the labelled images, and chooses none of its own."""
        labelled = [image for image in self.images if image.labels]
        return any(image.split for image in labelled) and not _split_problem(self.classes, labelled)

    def labelled(self) -> tuple[int, ...]:
        """Return the rows of images with a label, in the order of `table`."""
        return tuple(row for row, image in enumerate(self.images) if image.labels)

    def unlabelled(self) -> tuple[int, ...]:
        """Return the rows of images without a label."""
        return tuple(row for row, image in enumerate(self.images) if not image.labels)

    def file_name(self, row: int) -> str:
        """Return the name of an image's file as the table writes it; it is also the group of an image without one."""
        return self._names[self.images[row].file]

    def counts(self) -> dict[str, int]:
        """Return class -> number of images that show it, in the order of the classes."""
        found = Counter(label for image in self.images for label in image.labels)
        return {each.name: found[each.name] for each in self.classes}

    def warnings(self) -> tuple[str, ...]:
        """Return sentences, with counts, on what keeps the labels from being learned or validated well."""
        labelled = [image for image in self.images if image.labels]
        if not labelled:
            return ()
        counts = self.counts()
        problem = _split_problem(self.classes, labelled)
        return (*_on_counts(counts), *_on_groups(counts, labelled), *([problem] if problem else []))

    def _place(self, name: str) -> int:
        names = [each.name for each in self.classes]
        if name not in names:
            raise LabelsError(
                f"there is no class {name!r}; expected one of {', '.join(names) or 'none: add one first'}"
            )
        return names.index(name)

    # Files

    def save(self) -> None:
        """Write labels.csv and labels.json.

        Raises
        ------
        OutputError
            If they cannot be written, or another program changed labels.csv meanwhile.
        """
        self.unsaved = True
        counts = self.counts()
        classes = [NotedClass(name=each.name, colour=each.colour, images=counts[each.name]) for each in self.classes]
        self._writer.write(
            self.images, classes, _as_read(self.images, self.classes), self.reading.axes, has_split=self.has_split
        )
        self.unsaved = False


def open_labelling(
    source: str | Path | Sequence[Path],
    reading: ImageReading = AS_THEY_SAY,
    layout: str | Path | None = None,
    planes: bool = False,
) -> Labelling:
    """Open images to label, with every label that they have already; nothing is written before the first change.

    Parameters
    ----------
    source : path, or sequence of paths
        A folder of images, a folder with one folder of images per class, a table such as labels.csv, an OME-Zarr plate,
        or images. Labels that were given there before are there again.
    reading : ImageReading
        Axes, channels and pixel size where the files do not say.
    layout : path, optional
        For a plate: its table of wells and labels.
    planes : bool
        Whether each plane of an image is an image to label.

    Raises
    ------
    LabelsError, ImageError
        If there is nothing to label, or a table that is there already has problems: they are listed.
    """
    sources = [source] if isinstance(source, str | Path) else source
    paths = [as_on_disk(Path(each).absolute()) for each in sources]
    path = table_path(paths, None if layout is None else Path(layout).absolute())
    sheet = Sheet() if paths != [path] and not path.exists() else read_sheet(path, reading)
    notes = read_notes(notes_path(path))
    reading = with_channel_columns(path, reading)
    reading = reading if reading.axes is not None else replace(reading, axes=notes.axes)
    known = known_images(path, sheet, notes)
    found = found_images(paths, path, known, reading, layout)
    images = merged_images(known, found, reading if planes else None)
    if not images:
        raise LabelsError(f"{paths[0]} holds no image, no labels.csv and no folder of images for each class; expected "
                          "one of them")  # fmt: skip
    classes = with_colours(known_classes(notes, sheet, images))
    return Labelling(path, _State(classes, images), reading, with_cells(sheet, notes))


def open_table(
    table: Path, images: Iterable[LabelledImage], reading: ImageReading = AS_THEY_SAY
) -> tuple[Labelling, tuple[int, ...]]:
    """Open a table of labels, which may not exist yet, with some images beside its own; nothing is written at first.

    Parameters
    ----------
    table : Path
        The table. In a new one, images of one file a channel get a column for each channel, where these have names.
    images : iterable of LabelledImage
        Images without labels; those that the table has already stay as they are there.
    reading : ImageReading
        Axes and names of the channels where the files do not say.

    Returns
    -------
    labelling : Labelling
        The table.
    rows : tuple of int
        The rows of these images in it.

    Raises
    ------
    LabelsError
        If the table has problems, or has labels of some planes of one of the images and is to have one of another.
    """
    table, given = as_on_disk(table.absolute()), list(images)
    names = reading.channels or ()
    by_channel = bool(names) and all(len(files_of(one.file)) == len(names) > 1 for one in given)
    new = Sheet(columns=(*(f"{FILE_OF}{name}" for name in names), "label", "group", "split")) if by_channel else Sheet()
    sheet = read_sheet(table, reading) if table.exists() else new
    notes = read_notes(notes_path(table))
    known = known_images(table, sheet, notes)
    added = [replace(one, file=table.parent / relative_name(one.file, table.parent)) for one in given]
    _check_planes_apart(table, known, added)
    place = {_files_and_plane(one): row for row, one in reversed(list(enumerate(known)))}
    every = list(known)
    for one in added:
        if place.setdefault(_files_and_plane(one), len(every)) == len(every):
            every.append(one)
    classes = with_colours(known_classes(notes, sheet, every))
    reading = with_channel_columns(table, replace(reading, axes=reading.axes or notes.axes))
    labelling = Labelling(table, _State(classes, tuple(every)), reading, with_cells(sheet, notes))
    return labelling, tuple(place[_files_and_plane(one)] for one in added)


def _files_and_plane(image: LabelledImage) -> tuple[tuple[Path, ...], str]:
    """Return what an image is, however its name is written."""
    return tuple(Path(os.path.realpath(file)) for file in files_of(image.file)), image.plane


def _check_planes_apart(table: Path, known: Iterable[LabelledImage], added: Iterable[LabelledImage]) -> None:
    """Refuse to add a whole image beside a plane of it, or a plane beside the whole."""
    planes: dict[tuple[Path, ...], set[str]] = defaultdict(set)
    for one in known:
        if one.labels:
            planes[_files_and_plane(one)[0]].add(one.plane)
    for one in added:
        there = planes[_files_and_plane(one)[0]] - {one.plane}
        if there and "" in (one.plane, *there):
            names = ", ".join(name or "all" for name in sorted(there))
            raise LabelsError(
                f"{table} has labels of {one.file} with other planes ({names}); label it there, or choose another table"
            )


def _as_read(images: Sequence[LabelledImage], classes: Sequence[LabelClass]) -> tuple[LabelledImage, ...]:
    """Return the images with a label as the table is read, with the split if it can be used."""
    labelled = [image for image in images if image.labels]
    split = bool(labelled) and not _split_problem(classes, labelled)
    return tuple(
        replace(image, split=image.split if split else None, line=line) for line, image in enumerate(labelled, start=2)
    )


def _split_problem(classes: Sequence[LabelClass], labelled: Sequence[LabelledImage]) -> str:
    """Say why the splits of the labelled images cannot be used; return "" if they can, or if no image has one."""
    given = sum(image.split is not None for image in labelled)
    if 0 < given < len(labelled):
        return (f"The split is set for {given} of {len(labelled)} labelled images, and is used once it is set for "
                "all. Set it for the others, or for none.")  # fmt: skip
    trained = {label for image in labelled if image.split == "train" for label in image.labels}
    left = [each.name for each in classes if given and each.name not in trained
            and any(each.name in image.labels for image in labelled)]  # fmt: skip
    if left:
        return (f"No image of {' and '.join(left)} is in the split train; the split is used once each class has an "
                "image there.")  # fmt: skip
    return ""


def _checked_class(name: str, others: Sequence[str]) -> str:
    """Return the name of a class as labels.csv will give it back; refuse a name that it would not.

    `others` are the names of the other classes.
    """
    name = " ".join(name.split())
    if "|" in name or name_fault(name) is not None:
        why = name_fault(name) or "the sign | separates two labels"
        raise LabelsError(f"'{short(name)}' cannot name a class; expected some text without the sign | ({why})")
    alike = next((other for other in others if plain_name(other) == plain_name(name)), None)
    if alike is not None:
        how = "is there already" if alike == name else f"differs from {alike!r} only in case, spaces or dashes"
        raise LabelsError(f"the class {name!r} {how}; choose another name")
    for joined in (*others, name):
        parts = [part.strip() for part in joined.replace(";", ",").split(",")]
        if len(parts) > 1 and set(parts) <= {*others, name}:
            raise LabelsError(f"{joined!r} would be read as the classes {' and '.join(parts)}; give it another name")
    return name


def _without_label(images: Iterable[LabelledImage], name: str) -> Iterator[LabelledImage]:
    for image in images:
        left = tuple(label for label in image.labels if label != name)
        yield image if left == image.labels else replace(image, labels=left)


def _check_file(file: Path, name: str) -> None:
    """Refuse to label a file that is missing or empty, or whose name the table cannot hold."""
    if name != name.strip() or "\\" in name or not name.isprintable():
        raise LabelsError(f"labels.csv cannot hold the name {name!r}; rename the file without spaces at the ends, "
                          "backslashes and control characters")  # fmt: skip
    if not exists_on_disk(file):
        raise LabelsError(f"{file} does not exist any more; put it back before you label it")
    if file.is_file() and not file.stat().st_size:
        raise LabelsError(f"{file} is empty; remove it, or copy it again")


def _on_counts(counts: Mapping[str, int]) -> list[str]:
    sentences = []
    shown = {name: count for name, count in counts.items() if count}
    if len(shown) == 1:
        sentences.append(f"Only {next(iter(shown))} has labelled images; label images of another class too.")
    few = [f"{name} ({count})" for name, count in counts.items() if count < FEW_IMAGES]
    if few:
        sentences.append(f"Fewer than {FEW_IMAGES} images: {', '.join(few)}; label more of them.")
    largest, rarest = (pick(shown, key=lambda name: shown[name]) for pick in (max, min))
    if shown[largest] > UNBALANCED * shown[rarest]:
        sentences.append(f"Unbalanced: {largest} has {shown[largest]} images and {rarest} {shown[rarest]}; label more "
                         f"of {rarest}.")  # fmt: skip
    return sentences


def _on_groups(counts: Mapping[str, int], labelled: Iterable[LabelledImage]) -> list[str]:
    groups: dict[str, set[str]] = defaultdict(set)
    for image in labelled:
        for label in image.labels:
            groups[label].add(image.group)
    alone = [name for name in counts if counts[name] > 1 and len(groups[name]) == 1]
    return [f"All {counts[name]} images of {name} are of one group, {min(groups[name])!r}: how well it is recognised "
            "cannot be validated." for name in alone]  # fmt: skip
