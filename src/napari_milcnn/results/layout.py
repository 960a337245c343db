"""Join a layout to results: a table of files or wells with labels, doses and the like."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from napari_milcnn.delimited import TABLE_SUFFIXES, column_names, table_of
from napari_milcnn.errors import MilcnnError, ResultsError
from napari_milcnn.images.instruments import parse_well
from napari_milcnn.images.paths import as_on_disk, composed
from napari_milcnn.results.opened import (
    LISTED,
    TEXT_COLUMNS,
    WRITTEN_FILES,
    OpenedResults,
    label_set,
    numbers_where_possible,
    path_parts,
    read_parquet,
    wells_of,
)
from napari_milcnn.untrusted import short

PARQUET_SUFFIXES = (".parquet", ".pq")
_DECIMAL_COMMA = re.compile(r"[+-]?\d*(,\d+)?(e[+-]?\d+)?", re.IGNORECASE | re.ASCII)


def joined_by_itself(found: OpenedResults) -> OpenedResults:
    """Join the labels.csv that lies beside the images or one folder above them, if one is there and fits."""
    for path in _layouts_near(found):
        try:
            return with_layout(found, path)
        except ResultsError:  # a table of other images is not a layout of these
            continue
    return found


def _layouts_near(found: OpenedResults) -> list[Path]:
    folders = dict.fromkeys(path.parent for path in found.files.values() if path is not None)
    near = [folder for one in list(folders)[:LISTED] for folder in (one, one.parent)]
    near += [found.path.parent, found.path.parent.parent] if found.path is not None else []
    return [folder / "labels.csv" for folder in dict.fromkeys(near) if (folder / "labels.csv").is_file()]


def with_layout(found: OpenedResults, path: str | Path) -> OpenedResults:
    """Join a table of labels, groups, wells, doses, compounds or other facts about the images.

    Parameters
    ----------
    found : OpenedResults
        Results; columns that another layout added are removed.
    path : path
        A CSV (comma, semicolon or tab) or Parquet with the column `file`, relative to its folder, or with the column
        `well`. Columns that the results already have stay as they are.

    Raises
    ------
    ResultsError
        If the table cannot be read, has neither column, or fits none of the images.
    """
    path = as_on_disk(Path(path))
    layout = _read_layout(path)
    table = found.table.drop(columns=list(found.added))
    bare = replace(found, table=table, added=(), layout=None)
    key, rows = "file", np.full(len(table), -1)
    if "file" in layout:
        rows = _rows_by_file(bare, layout, path)
    if "well" in layout and (rows < 0).all():
        key, rows = "well", _rows_by_well(bare, layout)
    if (rows < 0).all():
        raise ResultsError(f"{path} fits none of the images: its first {key} is {layout[key].iat[0]!r}, and the first "
                           f"file of the results is {table['file'].iat[0]!r}")  # fmt: skip
    added = [str(name) for name in layout if name not in table and name not in (key, "file", "split")]
    if not added:
        raise ResultsError(f"{path} adds nothing: the results already have the columns {', '.join(map(str, layout))}")
    extra = layout[added].iloc[rows.clip(0)].reset_index(drop=True)
    for name in added:
        extra.loc[rows < 0, name] = "" if extra[name].dtype.kind not in "iuf" else np.nan
    at = list(table).index("name") + 1
    joined = pd.concat([table.iloc[:, :at].reset_index(drop=True), extra, table.iloc[:, at:].reset_index(drop=True)],
                       axis=1)  # fmt: skip
    warnings = tuple(text for text in found.warnings if text not in _layout_warnings(found))
    done = replace(bare, table=joined, layout=path, added=tuple(added), warnings=warnings)
    return replace(done, warnings=(*warnings, *_layout_warnings(done)))


def is_layout(path: Path) -> bool:
    """Whether a file is a table, but not one that a classification or an evaluation wrote."""
    if path.suffix.lower() not in TABLE_SUFFIXES or path.name in WRITTEN_FILES:
        return False
    return not {"top", "error"} <= set(column_names(path))


def _layout_warnings(found: OpenedResults) -> list[str]:
    if "label" not in found.added:
        return []
    unknown = Counter(name for text in found.images["label"] for name in label_set(text) - set(found.classes))
    unlabelled = len(found.images) - len(found.labelled)
    if not unlabelled:
        return []
    names = f" (not in the model: {', '.join(sorted(unknown)[:LISTED])})" if unknown else ""
    return [f"{unlabelled} of {len(found.images)} images have no label that can be compared{names}"]


def text_table(path: Path, expected: str, error: type[MilcnnError]) -> pd.DataFrame:
    """Read a CSV or Parquet with all cells as text, "" for gaps.

    Parameters
    ----------
    path : Path
        The table.
    expected : str
        What it should be, such as "a table with the column well".
    error : type
        The kind of error that is raised if it cannot be read, or two of its columns have one name.
    """
    if path.suffix.lower() in PARQUET_SUFFIXES:
        try:
            return read_parquet(path).map(_text_of_value)
        except ResultsError as found:
            raise error(f"{found}; expected {expected}") from found
    table = table_of(path, expected, error)
    twice = [name for name, count in Counter(table.columns).items() if name and count > 1]
    if twice:
        raise error(f"{path} has the column {twice[0]!r} twice; give each column its own name")
    return pd.DataFrame(list(table.rows), columns=list(table.columns), dtype=object)


def _text_of_value(value: object) -> str:
    if value is None or value != value:
        return ""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _read_layout(path: Path) -> pd.DataFrame:
    table = text_table(path, "a table with the column file or well", ResultsError)
    names = [str(name).lower() for name in table]
    if not {"file", "well"} & set(names):
        raise ResultsError(f'{path} has neither a column "file" nor a column "well"; found {short(", ".join(names))}')
    repeated = [name for name, count in Counter(names).items() if name and count > 1]
    if repeated:
        raise ResultsError(
            f'{path} has {names.count(repeated[0])} columns "{repeated[0]}"; give each column its own name'
        )
    if not len(table):
        raise ResultsError(f"{path} has no rows; expected one for each image or well")
    columns = zip(names, table.to_numpy(object).T, strict=True)
    return pd.DataFrame({name: _as_text_or_numbers(name, cells.tolist()) for name, cells in columns if name})


def _as_text_or_numbers(name: str, cells: Sequence[str]) -> pd.Series:
    """Return the cells of a column as numbers, float64, where they are all numbers or gaps; else as text.

    A comma is a decimal comma, as in tables that a spreadsheet separates by semicolons.
    """
    column = pd.Series(cells, dtype=object)
    if name in (*TEXT_COLUMNS, "split"):
        return column
    numbers = numbers_where_possible(column)
    if numbers.dtype.kind not in "iuf" and all(_DECIMAL_COMMA.fullmatch(cell) for cell in cells if cell):
        numbers = numbers_where_possible(column.str.replace(",", "."))
    return numbers.astype(float) if numbers.dtype.kind in "iuf" else numbers


def _rows_by_file(found: OpenedResults, layout: pd.DataFrame, path: Path) -> np.ndarray:
    """Return the row of the layout for each row of the results, by path or by its last parts; -1 for none."""
    layout_parts = [
        [composed(part) for part in (str(path.parent.absolute()), *path_parts(file))] for file in layout["file"]
    ]
    file_parts = {
        file: path_parts(composed(str((place or Path(file)).absolute()))) for file, place in found.files.items()
    }
    by_tail: list[dict[str, int]] = []
    for length in (None, 3, 2, 1):
        keys = ["/".join(path_parts("/".join(parts)) if length is None else parts[-length:]) for parts in layout_parts]
        counts = Counter(keys)
        by_tail.append({key: row for row, key in enumerate(keys) if counts[key] == 1})
    rows = {}
    for file, parts in file_parts.items():
        tails = ("/".join(parts if n is None else parts[-n:]) for n in (None, 3, 2, 1))
        rows[file] = next((known[tail] for known, tail in zip(by_tail, tails, strict=True) if tail in known), -1)
    return found.table["file"].map(rows).to_numpy(int)


def _rows_by_well(found: OpenedResults, layout: pd.DataFrame) -> np.ndarray:
    keys = [parse_well(text) for text in layout["well"]]
    repeated = [well for well, count in Counter(filter(None, keys)).items() if count > 1]
    if repeated:
        raise ResultsError(
            f"the layout lists the well {repeated[0].name} more than once; wells of several plates need the column file"
        )
    known = {well: row for row, well in enumerate(keys) if well is not None}
    return np.array([known.get(well, -1) if well is not None else -1 for well in wells_of(found.table)])
