"""Results read back from disk, as one record."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from io import BytesIO
from pathlib import Path
from typing import get_args

import numpy as np
import pandas as pd
import pyarrow as pa
from pydantic import BaseModel

from napari_milcnn.delimited import ENCODING, split_labels
from napari_milcnn.errors import ResultsError
from napari_milcnn.images.instruments import Well, parse_well, wells_in
from napari_milcnn.images.open import AS_THEY_SAY, ImageReading
from napari_milcnn.images.stack import ImageStack, PlaneIndex
from napari_milcnn.options import MasksAs
from napari_milcnn.results.write import image_files, whole_rows, with_each_text
from napari_milcnn.schema import NO_CLASS, PLANE_COLUMNS, UNLIKE, UNLIKE_REASON, score_columns
from napari_milcnn.untrusted import check_regular, unguarded_cell

PREDICTIONS, RECORD, METRICS = "predictions.csv", "run.json", "metrics.json"
WRITTEN_FILES = (
    PREDICTIONS, RECORD, METRICS, "objects.csv", "confusion.csv", "groups.csv", "mislabels.csv", "report.html",
)  # fmt: skip
"""Files that a classification or an evaluation writes to its folder."""
TEXT_COLUMNS = (
    "file", "name", "label", "group", "well", "plate", "compound", "top", UNLIKE_REASON, "warnings", "error",
)  # fmt: skip
MEASURED = (*PLANE_COLUMNS, "planes", "fold", "margin", UNLIKE, "objects")
"""Columns of numbers, besides scores, that are written by a classification or an evaluation."""
LISTED = 5
"""Most names that one message lists."""
ABSOLUTE_PATH = re.compile(r"[\\/]|[A-Za-z]:")
_MOST_CELLS = 100_000_000
"""Rows times columns of the largest Parquet table that is read whole."""
_MOST_LETTERS = 2**30
"""Letters of all texts of such a table."""
TAILS = (3, 2, 1)
"""Numbers of last parts of a path by which an image is searched in another folder, in this order."""


def numbers_where_possible(column: pd.Series) -> pd.Series:
    """Return a column as numbers if it holds only numbers and gaps, else as text."""
    if column.dtype.kind in "iuf":
        return column.astype(float)
    text = column.astype(str).str.strip()
    numbers = pd.to_numeric(text, errors="coerce")
    return numbers if (numbers.notna() | (text == "")).all() and numbers.notna().any() else text


def wells_of(table: pd.DataFrame) -> list[Well | None]:
    """Return the well of each row from the column `well`, else from group, name or path; None if it is not known."""
    if "well" in table:
        return [parse_well(str(text)) for text in table["well"]]
    if "group" in table:
        known = {str(text): parse_well(str(text)) for text in table["group"].unique()}
        if all(known.values()):
            return [known[str(text)] for text in table["group"]]
    found = wells_in(table["name"].tolist())
    return found if any(found) else wells_in(["/".join(path_parts(file)[-4:]) for file in table["file"]])


class ReliabilityMetrics(BaseModel, frozen=True):
    """The reliability curve in metrics.json: one value per bin, None in an empty bin."""

    confidence: list[float | None]
    observed: list[float | None]
    count: list[int]


class Metrics(BaseModel, frozen=True):
    """The part of metrics.json that is read back: number of images, figures and their 95 % intervals."""

    images: int | None = None
    single_label: bool | None = None
    figures: dict[str, float | None]
    intervals: dict[str, tuple[float | None, float | None] | None]
    reliability: ReliabilityMetrics


@dataclass(frozen=True, eq=False)
class OpenedResults:
    """Results read back from a folder or taken from a report.

    Attributes
    ----------
    path : Path or None
        The predictions.csv that was read; None for a report that was not saved.
    table : DataFrame
        One row for each plane of a classification, or for each image of an evaluation: file, name, columns of the
        layout, top, margin, `score NAME` of each class, error. The score of a failed image is NaN.
    classes : tuple of str
        The classes in the model's order.
    single_label : bool
        Whether each image has one class.
    files : dict
        `file` in the table -> path of the image now; None if it was not found.
    objects : DataFrame or None
        The table objects.csv.
    metrics : Metrics or None
        The content of metrics.json; None if the results are not those of an evaluation, or if the file is missing.
    written_confusion : DataFrame or None
        The table confusion.csv of an evaluation.
    reading : ImageReading
        How the images are opened.
    layout : Path or None
        The table that was joined to `table`.
    added : tuple of str
        Columns that the layout added.
    warnings : tuple of str
        Sentences that a reader of the results should know.
    unfinished : int
        Images that a run of the folder has not classified because it was stopped or killed; 0 while one goes on.
    """

    path: Path | None
    table: pd.DataFrame
    classes: tuple[str, ...]
    single_label: bool
    files: dict[str, Path | None]
    objects: pd.DataFrame | None = None
    metrics: Metrics | None = None
    written_confusion: pd.DataFrame | None = None
    reading: ImageReading = AS_THEY_SAY
    layout: Path | None = None
    added: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    unfinished: int = 0

    @property
    def unit(self) -> str:
        """Whether the rows of the table are planes or images."""
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
        """One row per classified image: scores are means over its planes, `top` is the class of the highest mean.

        `unlike` is the largest of its planes; `top` is empty if all of them show nothing to classify.
        """
        rows = self.table[self.table["error"] == ""]
        others = [name for name in rows if name not in (*self.columns, *MEASURED, "top")]
        grouped = rows.groupby("file", sort=False)
        found = grouped[others].first().join(grouped[self.columns].mean())
        if UNLIKE in rows:
            found = found.join(grouped[UNLIKE].max())
        shown = (rows["top"] != NO_CLASS).groupby(rows["file"], sort=False).any().to_numpy()
        found = found.reset_index(drop=True)
        tops = grouped["top"].first().to_numpy() if self.unit == "images" else self._tops(found)
        return found.assign(top=np.where(shown, tops, NO_CLASS))

    @cached_property
    def wells(self) -> list[Well | None]:
        """The well of each row of `images`; None if it is not known."""
        return wells_of(self.images)

    def _tops(self, rows: pd.DataFrame) -> np.ndarray:
        return np.array([self.classes[i] for i in rows[self.columns].to_numpy(float).argmax(1)], object)

    @cached_property
    def labelled(self) -> pd.DataFrame:
        """Return the classified images that have labels, all of them classes of the model."""
        if "label" not in self.table:
            return self.images.iloc[:0].assign(label="")
        known = [bool(names) and names <= set(self.classes) for names in map(label_set, self.images["label"])]
        rows = self.images[known]
        return rows[~rows["label"].str.contains("|", regex=False)] if self.single_label else rows

    def targets(self) -> np.ndarray:
        """Return the labels as ones and zeros, float64 (labelled images, classes)."""
        sets = [label_set(text) for text in self.labelled["label"]]
        return np.array([[name in one for name in self.classes] for one in sets], float).reshape(-1, len(self.classes))

    def names_of(self, row: int) -> tuple[Path | None, Path | None]:
        """Return the files of class maps and of masks for the image of a row; None for a file that does not exist."""
        name = str(self.table["name"].iat[row])
        if self.path is None or not name or self.unit == "images":
            return None, None
        written = [image_files(self.path.parent, name, kind) for kind in get_args(MasksAs)]
        maps = written[0].maps
        labels = (one.labels for one in written if one.labels is not None and one.labels.exists())
        return maps if maps.exists() else None, next(labels, None)

    def recorded_path(self, file: str) -> str:
        """Return the path of an image as it was recorded: what the column `file` says of it."""
        return file

    def open(self, row: int) -> tuple[ImageStack, int]:
        """Open the image of a row, and return it with the number of the plane that the row is about.

        Raises
        ------
        ResultsError
            If the image was not found, or is not the image that was classified.
        ImageError
            If it cannot be read.
        """
        file, at = str(self.table["file"].iat[row]), self.plane_of(row)
        path = self.files[file]
        if path is None:
            raise ResultsError(f"{file} was not found; click Images… to choose the folder of the images")
        image = self._opened(row, path)
        if at is not None and at not in image.planes:
            image.close()
            raise ResultsError(f"{path} has no plane {' '.join(map(str, at))}; it is not the image that was classified")
        return image, len(image.planes) // 2 if at is None else image.planes.index(at)

    def _opened(self, _row: int, path: Path) -> ImageStack:
        return self.reading.open(path)

    def objects_of(self, row: int) -> pd.DataFrame | None:
        """Return the objects in the masks of the image of a row; None where the run lists none."""
        if self.objects is None:
            return None
        own = self.objects["file"] == self.table["file"].iat[row]
        return self.objects[own & self.objects["shown"]]

    def plane_of(self, row: int) -> PlaneIndex | None:
        """Return position, time and z of a row; None if the row is a whole image or an image that failed."""
        if self.unit == "images" or self.table["error"].iat[row]:
            return None
        return PlaneIndex(*(int(self.table[name].to_numpy()[row]) for name in PlaneIndex._fields))

    def rows_of_image(self, row: int) -> dict[PlaneIndex | None, int]:
        """Return the rows of the image of a row, by their planes as of `plane_of`."""
        files = self.table["file"].to_numpy()
        return {self.plane_of(one): one for one in np.flatnonzero(files == files[row]).tolist()}


@cache
def label_set(text: str) -> frozenset[str]:
    """Return the labels in one cell of a table, where bars separate them."""
    return frozenset(split_labels(text))


def read_csv(
    path: Path,
    texts: Iterable[str] = TEXT_COLUMNS,
    *,
    rows: int | None = None,
    columns: list[str] | None = None,
    numbers: Iterable[str] = (),
    growing: bool = False,
) -> pd.DataFrame:
    """Read a CSV with commas that this program wrote; a class may be called NA, so this text is not a gap.

    Parameters
    ----------
    path : Path
        The file.
    texts : iterable of str
        Columns to read as text.
    rows : int, optional
        Number of rows to read; by default all.
    columns : list of str, optional
        Columns to read; by default all.
    numbers : iterable of str
        Columns in which an empty cell is NaN.
    growing : bool
        Whether a run writes the table or was killed meanwhile: a last row that is not whole is then left out.

    Raises
    ------
    ResultsError
        If the file cannot be read, is empty, damaged or half-written.
    """
    try:
        check_regular(path)
        found: pd.DataFrame = pd.read_csv(
            BytesIO(whole_rows(path.read_bytes())) if growing else path, dtype=dict.fromkeys(texts, str),
            keep_default_na=False, encoding=ENCODING, nrows=rows, usecols=columns,
            na_values={name: [""] for name in numbers},
        )  # fmt: skip
    except pd.errors.EmptyDataError as error:
        raise ResultsError(f"{path} is empty; write the results again") from error
    except UnicodeDecodeError as error:
        raise ResultsError(f"{path} is not UTF-8 text ({error.reason}); expected a CSV") from error
    except (pd.errors.ParserError, ValueError) as error:
        raise ResultsError(
            f"{path} cannot be read as a CSV: {str(error).strip()}; it is damaged or half-written"
        ) from error
    except OSError as error:
        raise ResultsError(f"{path} cannot be read: {error.strerror or error}") from error
    return with_each_text(found, unguarded_cell)


def read_parquet(path: Path, needed: Sequence[str] = (), advice: str = "write it again") -> pd.DataFrame:
    """Read a Parquet table; what it says of pandas, such as an index, is passed over. `advice` ends each error.

    The columns of `needed` are texts.

    Raises
    ------
    ResultsError
        If the file cannot be read, is damaged, lacks a column of `needed`, or is larger than any table of results.
    """
    try:
        check_regular(path)
        table = _arrow_table(path)
        found: pd.DataFrame = table.to_pandas(ignore_metadata=True)
    except OSError as error:
        raise ResultsError(
            f"{path} cannot be read: {str(error.strerror or error).splitlines()[0]}; {advice}"
        ) from error
    except (ValueError, pa.ArrowException) as error:
        reason = str(error).strip().splitlines()[0].rstrip(".")
        raise ResultsError(f"{path} is damaged, or is not Parquet: {reason}; {advice}") from error
    missing = [repr(name) for name in needed if name not in found]
    if missing:
        raise ResultsError(
            f"{path} has no column {' and no column '.join(missing)}: another program wrote it; {advice}"
        )
    for name in needed:
        found[name] = found[name].fillna("").astype(str)
    return found


def _arrow_table(path: Path) -> pa.Table:
    """Read a Parquet table whose sizes are checked first: texts that repeat take no space in the file.

    Raises
    ------
    OSError, ValueError, ArrowException
        If it cannot be read, is too large, or has a column twice.
    """
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    with pq.ParquetFile(path, pre_buffer=False) as file:
        schema, rows = file.schema_arrow, file.metadata.num_rows
    names = schema.names
    nested = next((field.name for field in schema if pa.types.is_nested(field.type)), None)
    if nested is not None:
        raise ValueError(f"its column {nested!r} holds lists or records, expected texts and numbers")
    if len(set(names)) < len(names):
        raise ValueError(f"it has the column {next(name for name in names if names.count(name) > 1)!r} twice")
    if rows * len(names) > _MOST_CELLS:
        raise ValueError(f"it has {rows} rows of {len(names)} columns, expected at most {_MOST_CELLS} cells")
    with pq.ParquetFile(path, pre_buffer=False, read_dictionary=names) as file:
        table = file.read(use_threads=False)
    letters = 0
    for number, field in enumerate(table.schema):
        if pa.types.is_dictionary(field.type):
            if pa.types.is_binary(field.type.value_type) or pa.types.is_string(field.type.value_type):
                letters += sum(pc.sum(pc.binary_length(one.dictionary).take(one.indices)).as_py() or 0
                               for one in table.column(number).chunks)  # fmt: skip
            if letters > _MOST_LETTERS:
                raise ValueError(f"its texts have more than {_MOST_LETTERS} letters together")
            table = table.set_column(number, field.name, table.column(number).cast(field.type.value_type))
    return table


def path_parts(file: str) -> list[str]:
    """Split a path of any operating system into its parts."""
    return [part for part in re.split(r"[\\/]+", file) if part] or [""]
