"""Tables of image-level labels, and their splits.

labels.csv: `file` (relative to the table), `label` (several separated by `|`), optional `group` (well, plate, strain:
never on both sides of a split) and `split` (train or validation).
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.model_selection import GroupShuffleSplit, StratifiedGroupKFold

from napari_milcnn.core.errors import LabelsError
from napari_milcnn.core.images import AS_THEY_SAY, ImageReading

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

    def folds(self, k: int, seed: int = 0) -> list[LabelTable]:
        """Split into k folds by whole groups: k tables, each with one fold as validation and the rest as train.

        Raises
        ------
        LabelsError
            If there are fewer groups than folds.
        """
        groups = [image.group for image in self.images]
        if not 2 <= k <= len(set(groups)):
            raise LabelsError(f"{k} folds of {len(set(groups))} groups; expected at least 2 folds and as many groups")
        splitter = StratifiedGroupKFold(k, shuffle=True, random_state=seed)
        strata = [image.labels[0] for image in self.images]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # a class with fewer images than folds
            held = [set(fold.tolist()) for _, fold in splitter.split(groups, strata, groups)]
        return [
            replace(self, images=tuple(replace(image, split=SPLITS[i in fold]) for i, image in enumerate(self.images)))
            for fold in held
        ]

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
