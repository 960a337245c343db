"""Write labels.csv and labels.json: see labelling.py for what they hold, and why."""

from __future__ import annotations

import csv
import io
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from napari_milcnn.atomic_write import replacing
from napari_milcnn.errors import OutputError
from napari_milcnn.images.paths import FILE_OF, files_of
from napari_milcnn.labels.labelling_files import (
    NotedClass,
    NotedImage,
    Notes,
    Sheet,
    content_of,
    notes_path,
    relative_name,
    write_bytes,
)
from napari_milcnn.labels.table import TABLE_COLUMNS, LabelledImage
from napari_milcnn.output_lock import locked
from napari_milcnn.untrusted import guarded_cell

_PATIENCE = 5.0
"""Seconds to wait for another window that writes the same labels at this moment."""


class LabelWriter:
    """The files of a labelling.

    Attributes
    ----------
    sheet : Sheet
        The table as it lies on disk.
    names : dict
        File of an image -> its name in the table.
    """

    def __init__(self, path: Path, sheet: Sheet, images: Sequence[LabelledImage]) -> None:
        self._path, self.sheet = path, sheet
        self.names = {image.file: relative_name(image.file, path.parent) for image in images}
        self._noted: tuple[tuple[LabelledImage, NotedImage], ...] = ()

    def write(
        self,
        images: Sequence[LabelledImage],
        classes: Sequence[NotedClass],
        rows: Sequence[LabelledImage],
        axes: str | None,
        *,
        has_split: bool,
    ) -> None:
        """Write both files.

        Parameters
        ----------
        images : sequence of LabelledImage
            All images; those with a label are the rows of the table.
        classes : sequence of NotedClass
            The classes.
        rows : sequence of LabelledImage
            What the table will be read as.
        axes : str or None
            Axes of files that do not name them.
        has_split : bool
            Whether the table has the split.

        Raises
        ------
        OutputError
            If they cannot be written, or another program changed labels.csv meanwhile.
        """
        notes = Notes(milcnn_labelling=1, axes=axes, split_in_table=has_split, classes=tuple(classes),
                      images=self._image_notes(images))  # fmt: skip
        with locked(self._path, patience=_PATIENCE):
            before = content_of(self._path)
            if before != self.sheet.content:
                raise OutputError(f"{self._path} was changed by another program meanwhile and is not overwritten; open "
                                  "it again to continue from there")  # fmt: skip
            content = self._table_text([image for image in images if image.labels], has_split).encode(
                self.sheet.encoding
            )
            if content != before and not (before is None and not rows):
                self._keep_original()
                write_bytes(self._path, content)
                self.sheet = replace(self.sheet, content=content, images=tuple(rows))
            write_bytes(notes_path(self._path), notes.model_dump_json(indent=1, exclude_defaults=True).encode())

    def _keep_original(self) -> None:
        """Keep a copy of a table that was there before any labelling."""
        copy = self._path.with_name(f"{self._path.name}.bak")
        if self._path.exists() and not copy.exists() and not notes_path(self._path).exists():
            with replacing(copy) as draft:
                shutil.copyfile(self._path, draft)

    def _table_text(self, labelled: Sequence[LabelledImage], splits: bool) -> str:
        planes = any(image.plane for image in labelled)
        groups = planes or any(image.group != self.names[image.file] for image in labelled)
        columns = list(self.sheet.columns)
        for name, wanted in (("plane", planes), ("group", groups), ("split", splits)):
            columns += [name] if wanted and name not in map(str.lower, columns) else []
        known = {name: i for i, name in reversed(list(enumerate(map(str.lower, columns))))}
        of_channels = [] if "file" in known else sorted(i for name, i in known.items() if name.startswith(FILE_OF))
        text = io.StringIO()
        if self.sheet.names_separator:
            text.write(f"sep={self.sheet.separator}\n")
        writer = csv.writer(text, delimiter=self.sheet.separator, lineterminator="\n")
        writer.writerow(map(guarded_cell, columns))
        for image in labelled:
            cells = [*self.sheet.cells.get(self._key(image), ()), *[""] * len(columns)][: len(columns)]
            own = {"file": self.names[image.file], "label": "|".join(image.labels), "plane": image.plane,
                   "group": image.group if groups else "", "split": (image.split or "") if splits else ""}  # fmt: skip
            for name in own.keys() & known.keys():
                cells[known[name]] = own[name]
            for place, file in zip(of_channels, files_of(Path(own["file"])), strict=False):
                cells[place] = file.as_posix()
            writer.writerow(map(guarded_cell, cells))
        return text.getvalue()

    def _image_notes(self, images: Sequence[LabelledImage]) -> tuple[NotedImage, ...]:
        """Return a note on each image; only those of images that changed are made anew, since a change touches few."""
        before = self._noted or ((None, None),) * len(images)
        self._noted = tuple(
            (image, note if image is old and note is not None else self._note(image))
            for image, (old, note) in zip(images, before, strict=True)
        )
        return tuple(note for _, note in self._noted)

    def _note(self, image: LabelledImage) -> NotedImage:
        name, cells = self.names[image.file], self.sheet.cells.get(self._key(image), ())
        others = {column: cell for column, cell in zip(self.sheet.columns, cells, strict=False)
                  if cell and column.lower() not in TABLE_COLUMNS}  # fmt: skip
        group = image.group if image.group != name else ""
        return NotedImage(file=name, plane=image.plane, group=group, split=image.split,
                           cells=others if not image.labels else {})  # fmt: skip

    def _key(self, image: LabelledImage) -> tuple[str, str]:
        return self.names[image.file], image.plane
