"""Results that were read back, as one record."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd

from napari_milcnn.delimited import ENCODING, split_labels
from napari_milcnn.errors import ResultsError
from napari_milcnn.images.open import AS_THEY_SAY, ImageReading
from napari_milcnn.images.stack import PlaneIndex
from napari_milcnn.images.wells import Well, parse_well, wells_in
from napari_milcnn.options import MasksAs
from napari_milcnn.results.write import image_files
from napari_milcnn.schema import PLANE_COLUMNS, score_columns

TABLE, RECORD, METRICS = "predictions.csv", "run.json", "metrics.json"
WRITTEN_COLUMNS = (TABLE, RECORD, METRICS, "objects.csv", "confusion.csv", "groups.csv", "mislabels.csv", "report.html")
TEXT_COLUMNS = ("file", "name", "label", "group", "well", "plate", "compound", "top", "warnings", "error")
MEASURED = (*PLANE_COLUMNS, "planes", "fold", "margin", "objects")
"""Columns of numbers that a run writes besides scores."""
LISTED = 5
ABSOLUTE_PATH = re.compile(r"[\\/]|[A-Za-z]:")
TAILS = (3, 2, 1)
"""How many of the last parts of a path are looked for elsewhere."""


def numbers_where_possible(column: pd.Series) -> pd.Series:
    """Return a column as numbers if it holds nothing else, apart from gaps."""
    if column.dtype.kind in "iuf":
        return column.astype(float)
    text = column.astype(str).str.strip()
    numbers = pd.to_numeric(text, errors="coerce")
    return numbers if (numbers.notna() | (text == "")).all() and numbers.notna().any() else text


def wells_of(table: pd.DataFrame) -> list[Well | None]:
    """Return the well of each row: from the column `well`, else from group, name or path; None where nothing says."""
    if "well" in table:
        return [parse_well(str(text)) for text in table["well"]]
    if "group" in table:
        known = {str(text): parse_well(str(text)) for text in table["group"].unique()}
        if all(known.values()):
            return [known[str(text)] for text in table["group"]]
    found = wells_in(table["name"].tolist())
    return found if any(found) else wells_in(["/".join(path_parts(file)[-4:]) for file in table["file"]])


@dataclass(frozen=True, eq=False)
class OpenedResults:
    """Results as they were opened.

    Attributes
    ----------
    path : Path or None
        The table that was read; None for a report that was not saved.
    table : DataFrame
        One row for each plane of a run, or each image of an evaluation: file, name, what the layout says, top, margin,
        `score NAME` of each class, error. The score of a failed image is NaN.
    classes : tuple of str
        In the model's order.
    single_label : bool
        Whether an image shows one class.
    files : dict
        `file` in the table -> where the image lies now; None where it was not found.
    objects : DataFrame or None
        objects.csv.
    metrics : dict or None
        metrics.json of an evaluation.
    written_confusion : DataFrame or None
        confusion.csv of an evaluation.
    reading : ImageReading
        How the images are opened.
    layout : Path or None
        The table that was joined.
    added : tuple of str
        Columns that came from it.
    warnings : tuple of str
        What a reader should know, in sentences.
    """

    path: Path | None
    table: pd.DataFrame
    classes: tuple[str, ...]
    single_label: bool
    files: dict[str, Path | None]
    objects: pd.DataFrame | None = None
    metrics: dict[str, Any] | None = None
    written_confusion: pd.DataFrame | None = None
    reading: ImageReading = AS_THEY_SAY
    layout: Path | None = None
    added: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def unit(self) -> str:
        """What a row of the table is: planes or images."""
        return "planes" if "t" in self.table else "images"

    @property
    def scores(self) -> np.ndarray:
        """Score of each class, float64 (rows, classes)."""
        return self.table[self.columns].to_numpy(float)

    @property
    def columns(self) -> list[str]:
        """Names of the columns of scores."""
        return score_columns(self.classes)

    @property
    def missing(self) -> list[str]:
        """Files of the table that were not found."""
        return [file for file, path in self.files.items() if path is None]

    @cached_property
    def images(self) -> pd.DataFrame:
        """One row per image that was classified: its scores are the mean over its planes, `top` is their highest."""
        rows = self.table[self.table["error"] == ""]
        kept = [name for name in rows if name not in (*self.columns, *MEASURED, "top")]
        grouped = rows.groupby("file", sort=False)
        found = grouped[kept].first().join(grouped[self.columns].mean()).reset_index(drop=True)
        tops = grouped["top"].first().to_numpy() if self.unit == "images" else self._tops(found)
        return found.assign(top=tops)

    @cached_property
    def wells(self) -> list[Well | None]:
        """The well of each row of `images`; None where nothing says."""
        return wells_of(self.images)

    def _tops(self, rows: pd.DataFrame) -> np.ndarray:
        return np.array([self.classes[i] for i in rows[self.columns].to_numpy(float).argmax(1)], object)

    @cached_property
    def labelled(self) -> pd.DataFrame:
        """Return the classified images whose labels are all known to the model."""
        if "label" not in self.table:
            return self.images.iloc[:0].assign(label="")
        known = [bool(names) and names <= set(self.classes) for names in map(label_set, self.images["label"])]
        rows = self.images[known]
        return rows[~rows["label"].str.contains("|", regex=False)] if self.single_label else rows

    def targets(self) -> np.ndarray:
        """Multi-hot float64 (labelled images, classes)."""
        sets = [label_set(text) for text in self.labelled["label"]]
        return np.array([[name in one for name in self.classes] for one in sets], float).reshape(-1, len(self.classes))

    def names_of(self, row: int) -> tuple[Path | None, Path | None]:
        """Return the maps and the labels that the run wrote for the image of a row; None where there are none."""
        name = str(self.table["name"].iat[row])
        if self.path is None or not name or self.unit == "images":
            return None, None
        written = [image_files(self.path.parent, name, kind) for kind in get_args(MasksAs)]
        maps = written[0].maps
        labels = (one.labels for one in written if one.labels is not None and one.labels.exists())
        return maps if maps.exists() else None, next(labels, None)

    def plane_of(self, row: int) -> PlaneIndex | None:
        """Position, time and z of a row; None for an image as a whole."""
        if self.unit == "images" or self.table["error"].iat[row]:
            return None
        return PlaneIndex(*(int(self.table[name].to_numpy()[row]) for name in PlaneIndex._fields))


@cache
def label_set(text: str) -> frozenset[str]:
    """Return the labels of one cell, which stand between bars."""
    return frozenset(split_labels(text))


def read_csv(path: Path, texts: Iterable[str] = TEXT_COLUMNS, **options: Any) -> pd.DataFrame:
    """Read a CSV that this program wrote, with commas; texts are taken literally, since a class may be called NA.

    Raises
    ------
    ResultsError
        The file cannot be read, is empty, damaged or half-written.
    """
    try:
        found: pd.DataFrame = pd.read_csv(
            path, dtype=dict.fromkeys(texts, str), keep_default_na=False, encoding=ENCODING, **options
        )
    except pd.errors.EmptyDataError as error:
        raise ResultsError(f"{path} is empty; write the results again") from error
    except UnicodeDecodeError as error:
        raise ResultsError(f"{path} is not UTF-8 text ({error.reason}); expected a CSV") from error
    except (pd.errors.ParserError, ValueError) as error:
        raise ResultsError(
            f"{path} cannot be read as a CSV: {str(error).strip()}; it is damaged, or half-written"
        ) from error
    except OSError as error:
        raise ResultsError(f"{path} cannot be read: {error.strerror or error}") from error
    return found.rename(columns=str)


def path_parts(file: str) -> list[str]:
    """Split a path of any system."""
    return [part for part in re.split(r"[\\/]+", file) if part] or [""]
