"""Tables of image-level labels, and random patches of the images they name.

labels.csv: `file` (relative to the table), `label` (several separated by `|`), optional `group` (well, plate, strain:
never on both sides of a split) and `split` (train or validation).

Planes are read when they are needed; a cache of a given size keeps the last ones.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.model_selection import GroupShuffleSplit

from napari_milcnn.core.errors import ImageError, LabelsError
from napari_milcnn.core.images import AS_THEY_SAY, ImageReading
from napari_milcnn.core.model import TrainedModel
from napari_milcnn.core.view import view

SPLITS = ("train", "validation", "test")
_LISTED = 20
"""Problems of a table that are spelled out; the rest is counted."""


@dataclass(frozen=True)
class LabelledImage:
    """One row of a table of labels."""

    file: Path
    labels: tuple[str, ...]
    group: str
    split: str | None = None


@dataclass(frozen=True)
class LabelTable:
    """Images with their image-level labels.

    Attributes
    ----------
    images : tuple of LabelledImage
        The rows.
    reading : ImageReading
        Axes, channels and pixel size where the files do not say.
    """

    images: tuple[LabelledImage, ...]
    reading: ImageReading = AS_THEY_SAY

    @property
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
        return np.array([[name in image.labels for name in classes] for image in self.images], np.float32)

    def with_split(self, validation: float, seed: int) -> LabelTable:
        """Keep the table's own split where it has one, else put whole groups aside for validation.

        Raises
        ------
        LabelsError
            If there is only one group to split.
        """
        if any(image.split for image in self.images):
            return self
        if validation == 0:
            return replace(self, images=tuple(replace(image, split="train") for image in self.images))
        groups = [image.group for image in self.images]
        if len(set(groups)) < 2:
            raise LabelsError(
                f"all {len(groups)} images are of one group, {groups[0]!r}, which cannot be split; "
                "add groups, a split column, or train with validation=0 (--validation 0)"
            )
        count = len(set(groups))
        held_groups = min(max(1, round(validation * count)), count - 1)
        splitter = GroupShuffleSplit(64, test_size=held_groups, random_state=seed)
        candidates = [held for _, held in splitter.split(groups, groups=groups)]
        held = set(min(candidates, key=self._imbalance).tolist())
        split = (replace(image, split=SPLITS[i in held]) for i, image in enumerate(self.images))
        return replace(self, images=tuple(split))

    def _imbalance(self, held: np.ndarray) -> float:
        """How unevenly a choice of validation images covers the classes; a class left out on a side weighs most."""
        targets = self.targets(self.classes)
        total, kept = targets.sum(0), targets[held].sum(0)
        return float(100 * (kept == total).sum() + 10 * (kept == 0).sum() + np.std(kept / total))


def read_labels(path: str | Path, reading: ImageReading = AS_THEY_SAY) -> LabelTable:
    """Read a table of image-level labels; `reading` says how to open files that do not say it themselves.

    Raises
    ------
    LabelsError
        Listing everything that is wrong with the table at once.
    """
    path = Path(path)
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except FileNotFoundError as error:
        raise LabelsError(f"{path} does not exist; expected a CSV with the columns file and label") from error
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError, OSError) as error:
        raise LabelsError(f"{path} cannot be read as a CSV ({error}); expected the columns file and label") from error
    missing = {"file", "label"} - set(table.columns)
    if missing:
        raise LabelsError(f"{path} lacks the column {' and '.join(sorted(missing))}; found {', '.join(table.columns)}")
    table = table.apply(lambda column: column.str.strip())
    problems = list(_problems(table, path.parent))
    if problems:
        more = [f"and {len(problems) - _LISTED} more"] if len(problems) > _LISTED else []
        listed = "\n- ".join([*problems[:_LISTED], *more])
        raise LabelsError(f"{path} has {len(problems)} problem{'s'[: len(problems) > 1]}:\n- {listed}")
    return LabelTable(tuple(_image(row, path.parent) for row in table.to_dict("records")), reading)


def _problems(table: pd.DataFrame, folder: Path) -> Iterator[str]:
    if table.empty:
        yield "it has no rows"
    for number, row in enumerate(table.to_dict("records"), start=2):
        if not row["file"] or not (folder / row["file"]).exists():
            yield f"line {number}: the file {row['file']!r} is not in {folder}"
        if not _names(row["label"]):
            yield f"line {number}: {row['file']!r} has no label"
        if row.get("split", "") not in {"", *SPLITS}:
            yield f"line {number}: split is {row['split']!r}, expected {', '.join(SPLITS)}"
    if "split" in table and 0 < (table["split"] == "").sum() < len(table):
        yield "the split column is filled for some rows only"
    if {"split", "group"} <= set(table.columns):
        for group, rows in table[table["group"] != ""].groupby("group"):
            if rows["split"].nunique() > 1:
                yield f"group {group!r} stands in {' and '.join(sorted(rows['split'].unique()))}"
    for _, rows in table.groupby(table["file"].map(lambda name: (folder / name).resolve())):
        file = rows["file"].iloc[0]
        if len(rows) > 1:
            found = " / ".join(rows["label"].unique())
            yield f"{file!r} is listed {len(rows)} times, with {found}; write several labels as A|B in one row"


def _names(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name.strip() for name in text.split("|") if name.strip()))


def _image(row: dict[Any, str], folder: Path) -> LabelledImage:
    return LabelledImage(
        file=folder / row["file"],
        labels=_names(row["label"]),
        group=row.get("group") or row["file"],
        split=row.get("split") or None,
    )


class PatchReader:
    """Reads patches of the images of a table through a model's eyes.

    Parameters
    ----------
    model : TrainedModel
        Gives channels and pixel size.
    table : LabelTable
        Which images. Every plane of an image carries the image's labels.
    cache : float
        GiB of images kept in memory once read.
    """

    def __init__(self, model: TrainedModel, table: LabelTable, cache: float = 1.0) -> None:
        self.model = model
        self.table = table
        self._room = int(cache * 2**30)
        self._kept: OrderedDict[tuple[int, int], np.ndarray] = OrderedDict()
        self._planes: dict[int, int] = {}

    def plane(self, index: int, plane: int) -> np.ndarray:
        """Raw intensities of one plane, (channels, Y, X), as the model sees them."""
        if (index, plane) not in self._kept:
            with self.table.reading.open(self.table.images[index].file) as image:
                self._keep((index, plane), view(self.model, image).read_raw(plane))
        self._kept.move_to_end((index, plane))
        return self._kept[index, plane]

    def planes(self, index: int) -> int:
        """Count the planes of an image."""
        if index not in self._planes:
            with self.table.reading.open(self.table.images[index].file) as image:
                self._planes[index] = len(image.planes)
        return self._planes[index]

    def patch(self, index: int, side: int, rng: np.random.Generator) -> np.ndarray:
        """Raw intensities of a random patch, (channels, side, side), of a random plane; whole for side 0.

        An image smaller than the patch is reflected outwards to its size.
        """
        raw = self.plane(index, int(rng.integers(self.planes(index))))
        if side == 0:
            return raw
        short = [max(0, side - size) for size in raw.shape[1:]]
        if any(short):
            raw = np.pad(raw, ((0, 0), *((s // 2, s - s // 2) for s in short)), mode="symmetric")
        y, x = (int(rng.integers(size - side + 1)) for size in raw.shape[1:])
        return raw[:, y : y + side, x : x + side]

    def _keep(self, key: tuple[int, int], raw: np.ndarray) -> None:
        self._kept[key] = raw
        while len(self._kept) > 1 and sum(kept.nbytes for kept in self._kept.values()) > self._room:
            self._kept.popitem(last=False)


def intensity_statistics(reader: PatchReader) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of raw intensities over a table's images, one number per channel.

    On raw intensities and over the whole set (paper, section 3.1): scaling each image by itself would remove the
    signal of a dose.

    Raises
    ------
    ImageError
        If a channel has one value throughout.
    """
    count, total, squares = 0, 0.0, 0.0
    for index in range(len(reader.table.images)):
        for plane in range(reader.planes(index)):
            raw = reader.plane(index, plane).astype(np.float64)
            count += raw[0].size
            total = total + raw.sum((1, 2))
            squares = squares + (raw**2).sum((1, 2))
    mean = np.asarray(total / count)
    std = np.sqrt(np.maximum(squares / count - mean**2, 0))
    flat = [name for name, s in zip(reader.model.channels, std, strict=True) if s == 0]
    if flat:
        raise ImageError(f"channel {', '.join(flat)} has one value in all training images; check the files")
    return tuple(mean.tolist()), tuple(std.tolist())
