"""Results read back: predictions of a run or of an evaluation, joined with a layout of labels, wells and doses.

What a folder says itself is taken as it stands: the confusion, the figures and the reliability of an evaluation are
those that it wrote. What it does not say is computed by the same functions that an evaluation uses, from the mean score
of each image over its planes.

Images are found where the run says; else beside the tables, since folders of images and results are moved together.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from napari_milcnn.errors import ResultsError
from napari_milcnn.images.open import ImageReading
from napari_milcnn.results.layout import joined_by_itself
from napari_milcnn.results.moved_images import located
from napari_milcnn.results.opened import (
    MEASURED,
    METRICS,
    RECORD,
    TABLE,
    TEXT_COLUMNS,
    WRITTEN_COLUMNS,
    OpenedResults,
    numbers_where_possible,
    path_parts,
    read_csv,
)
from napari_milcnn.schema import PLANE_COLUMNS, class_of, is_pooled, is_score, score_columns


def read_results(path: str | Path) -> OpenedResults:
    """Read what `classify`, `screen` or `evaluate` wrote.

    Parameters
    ----------
    path : path
        The folder, its predictions.csv, or another file that was written with it.

    Raises
    ------
    ResultsError
        If it is none of ours, lacks columns, or is half-written.
    """
    table_path = _table_path(Path(path))
    table, classes = _read_predictions(table_path)
    folder = table_path.parent
    record = _read_json(folder / RECORD) if "t" in table else None
    metrics = _read_json(folder / METRICS) if "fold" in table else None
    found = OpenedResults(
        table_path, table, classes, _single_label(table, classes, metrics), {},
        objects=_read_objects(folder / "objects.csv") if "t" in table else None,
        reading=_reading(record),
    )  # fmt: skip
    found = _with_evaluation(found, metrics, folder) if "fold" in table else found
    found = replace(found, warnings=(*found.warnings, *_run_warnings(found, record)))
    return joined_by_itself(located(found, _recorded(record)))


def _table_path(path: Path) -> Path:
    if not path.exists():
        raise ResultsError(f"{path} does not exist; expected a folder of results, or its {TABLE}")
    if path.is_file() and path.name in WRITTEN_COLUMNS:
        path = path.parent
    if path.is_file():
        return path
    if not (path / TABLE).exists():
        written = next((name for name in WRITTEN_COLUMNS if (path / name).exists()), None)
        why = f"it has {written}, so that its run was stopped early or exported no tables" if written else "it is none"
        raise ResultsError(f"{path} has no {TABLE} ({why}); expected a folder written by classify, screen or evaluate")
    return path / TABLE


def _read_predictions(path: Path) -> tuple[pd.DataFrame, tuple[str, ...]]:
    header = [str(name) for name in read_csv(path, nrows=0)]
    scores = [name for name in header if is_score(name)]
    lacking = [name for name in ("file", "error") if name not in header]
    if not lacking and not scores:
        raise ResultsError(_all_failed(path))
    if lacking or "top" not in header:
        raise ResultsError(
            f"{path.name} lacks the column {' and '.join(lacking or ['top'])}; found {', '.join(header[:8])}; expected "
            "predictions.csv as classify, screen or evaluate write it"
        )
    texts = [name for name in header if name in TEXT_COLUMNS]
    numbers = [name for name in header if is_score(name) or is_pooled(name) or name in MEASURED]
    table = read_csv(path, texts, na_values={name: [""] for name in numbers})
    if table.empty:
        raise ResultsError(f"{path} has columns and no rows: nothing was classified, or it is half-written")
    table[texts] = table[texts].fillna("")
    others = [name for name in header if name not in (*texts, *numbers)]
    table[others] = table[others].apply(numbers_where_possible)
    words = [name for name in numbers if table[name].dtype.kind not in "biuf"]
    if words:
        raise ResultsError(f"{path}: the column {words[0]} holds {_first_word(table[words[0]])!r}; expected numbers")
    cut = (table["error"] == "") & (table[scores].isna().any(axis=1) | (table["top"] == ""))
    if cut.any():
        line = int(cut.to_numpy().argmax()) + 2
        raise ResultsError(
            f"{path}: line {line} ends early, with scores missing and no error; the file is half-written"
        )
    if (table["error"] != "").all():
        raise ResultsError(_all_failed(path))
    classes = tuple(map(class_of, scores))
    unknown = set(table["top"]) - {"", *classes}
    if unknown:
        raise ResultsError(f"{path}: the top class {min(unknown)} has no column of scores; the file is damaged")
    return with_name(with_margin(table, scores)), classes


def _first_word(column: pd.Series) -> str:
    return str(column[pd.to_numeric(column, errors="coerce").isna() & column.notna()].iat[0])


def _all_failed(path: Path) -> str:
    errors = read_csv(path, usecols=["error"])["error"].fillna("")
    if not len(errors):
        return f"{path} has no rows: nothing was classified"
    return f"all {len(errors)} images of {path} failed; the first: {errors.iat[0]}"


def with_margin(table: pd.DataFrame, scores: list[str]) -> pd.DataFrame:
    """Add the column margin, where it is missing."""
    if "margin" in table:
        return table
    values = np.sort(table[scores].to_numpy(float), 1)
    margin = values[:, -1] - values[:, -2] if len(scores) > 1 else np.where(np.isnan(values[:, 0]), np.nan, 1.0)
    table.insert(list(table).index("top") + 1, "margin", margin)
    return table


def with_name(table: pd.DataFrame) -> pd.DataFrame:
    """Add the column name, where it is missing."""
    if "name" not in table:
        table.insert(1, "name", [path_parts(file)[-1] for file in table["file"]])
    return table


def _single_label(table: pd.DataFrame, classes: Sequence[str], metrics: dict[str, Any] | None) -> bool:
    """Whether the scores of an image sum to one, as those of a softmax do, where nothing says so."""
    if metrics is not None and "single_label" in metrics:
        return bool(metrics["single_label"])
    sums = table[score_columns(classes)].sum(axis=1, skipna=False).dropna()
    return len(classes) > 1 and bool(np.allclose(sums, 1, atol=1e-3))


def _read_json(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ResultsError(f"{path} cannot be read as JSON: {error}; it is damaged, write the results again") from error
    if not isinstance(found, dict):
        raise ResultsError(f"{path} holds no record; expected that of a run or an evaluation")
    return found


def _read_objects(path: Path) -> pd.DataFrame | None:
    if not path.exists():
        return None
    objects = read_csv(path, ("file", "class"))
    lacking = [name for name in ("file", *PLANE_COLUMNS, "label", "class") if name not in objects]
    if lacking:
        raise ResultsError(f"{path} lacks the column {' and '.join(lacking)}; write the results again")
    return objects


def _reading(record: dict[str, Any] | None) -> ImageReading:
    said = ((record or {}).get("options") or {}).get("reading") or {}
    known = {name.name for name in fields(ImageReading)}
    said = {name: tuple(value) if isinstance(value, list) else value for name, value in said.items()}
    values: dict[str, Any] = {name: value for name, value in said.items() if name in known}
    return ImageReading(**values)


def _recorded(record: dict[str, Any] | None) -> dict[str, list[str]]:
    """Return the last part of a file's path -> absolute paths that the record of the run names."""
    found: dict[str, list[str]] = {}
    for file in (record or {}).get("files") or ():
        if file:
            found.setdefault(path_parts(file)[-1], []).append(str(file))
    return found


def _with_evaluation(found: OpenedResults, metrics: dict[str, Any] | None, folder: Path) -> OpenedResults:
    """Take what the evaluation wrote beside its predictions, where it belongs to them."""
    done = int((found.table["error"] == "").sum())
    if metrics is None:
        return replace(found, warnings=(f"{METRICS} is missing: figures are computed from {TABLE}, without intervals",))
    lacking = [name for name in ("figures", "intervals", "reliability") if name not in metrics]
    if lacking:
        raise ResultsError(f"{folder / METRICS} lacks {' and '.join(lacking)}; evaluate again")
    if metrics.get("images") != done:
        said = (
            f"{METRICS} is of {metrics.get('images')} images and {TABLE} of {done}: they are of two evaluations, and "
            f"figures are computed from {TABLE}"
        )
        return replace(found, warnings=(said,))
    return replace(found, metrics=metrics, written_confusion=_read_confusion(folder, found.classes))


def _read_confusion(folder: Path, classes: Sequence[str]) -> pd.DataFrame | None:
    path = folder / "confusion.csv"
    if not path.exists():
        return None
    table = read_csv(path, ("label", "class"))
    counts = table.set_index(table.columns[0])
    if list(counts.index) != list(classes) or any(kind.kind not in "iu" for kind in counts.dtypes):
        raise ResultsError(f"{path} does not hold the counts of {', '.join(classes)}; evaluate again")
    return counts


def _run_warnings(found: OpenedResults, record: dict[str, Any] | None) -> Iterator[str]:
    failed = found.table.loc[found.table["error"] != "", "file"].nunique()
    if failed:
        yield f"{failed} of {found.table['file'].nunique()} images failed; the column error says why"
    if found.unit == "images":
        return
    if record is None:
        yield f"{RECORD} is missing: the run was stopped, or goes on still; this is what it had written"
    elif record.get("unfinished"):
        yield f"the run was stopped: {len(record['unfinished'])} images were not reached"
