"""Read results back: predictions of a classification or of an evaluation, joined with labels, wells and doses.

If an evaluation wrote its confusion, figures and reliability, they are read as they stand. Otherwise the same functions
as in an evaluation compute them from the mean score of each image over its planes.

Images are searched where the record says, and then beside the tables, because folders of images and results are often
moved together.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from pydantic import BaseModel, InstanceOf, ValidationError

from napari_milcnn.errors import OptionsError, OutputError, ResultsError
from napari_milcnn.images.open import AS_THEY_SAY, ImageReading
from napari_milcnn.images.paths import as_on_disk, composed
from napari_milcnn.output_lock import holder_of
from napari_milcnn.results.layout import joined_by_itself
from napari_milcnn.results.moved_images import located
from napari_milcnn.results.opened import (
    MEASURED,
    METRICS,
    PREDICTIONS,
    RECORD,
    TEXT_COLUMNS,
    WRITTEN_FILES,
    Metrics,
    OpenedResults,
    numbers_where_possible,
    path_parts,
    read_csv,
)
from napari_milcnn.results.record import record_paths
from napari_milcnn.results.unfinished import JOURNAL, read_journal
from napari_milcnn.results.write import read_json
from napari_milcnn.schema import (
    NO_CLASS,
    PLANE_COLUMNS,
    UNLIKE_REASON,
    class_of,
    is_count,
    is_pooled,
    is_score,
    score_columns,
)
from napari_milcnn.untrusted import short


class _Opening(BaseModel, frozen=True):
    """The options in run.json that say how images were opened."""

    reading: ImageReading | None = None


class _RecordedModel(BaseModel, frozen=True):
    """The model in run.json."""

    name: str = ""
    sha256: str = ""


class _RunSummary(BaseModel, frozen=True):
    """The part of a record that is read here: its images, those that are not done, their model and how they opened."""

    id: str = ""
    model: _RecordedModel = _RecordedModel()
    files: list[InstanceOf[str] | None] | None = None  # InstanceOf: names of files need not be valid Unicode
    names: list[InstanceOf[str]] | None = None
    unfinished: list[InstanceOf[str]] | None = None
    options: _Opening | None = None

    def done(self) -> set[str]:
        """Return the names of the images that are done; of early records, which have no names, their files."""
        files = [str(file) for file in self.files or ()]
        names = self.names or files
        return {name for file, name in zip(files, names, strict=False) if file not in (self.unfinished or ())}


def read_results(path: str | Path) -> OpenedResults:
    """Read the results of a classification or of an evaluation.

    Parameters
    ----------
    path : path
        The folder, its predictions.csv, or another file of the results in it.

    Raises
    ------
    ResultsError
        If it is not a folder of results, or if a file in it has missing columns or is half-written.
    """
    table_path = _table_path(as_on_disk(Path(path)))
    table, classes = _read_predictions(table_path)
    folder = table_path.parent
    record = _read_run_summary(folder / RECORD) if "t" in table else None
    metrics = _read_metrics(folder / METRICS) if "fold" in table else None
    growing = (folder / JOURNAL).exists()
    found = OpenedResults(
        table_path, table, classes, has_one_label(table, classes, metrics), {},
        objects=_read_objects(folder / "objects.csv", growing) if "t" in table else None,
        reading=_reading(record),
    )  # fmt: skip
    found = _with_evaluation(found, metrics, folder) if "fold" in table else found
    runs = _recorded_runs(folder) if "t" in table else []
    unfinished = 0 if holder_of(folder) else _left(runs)
    found = replace(found, warnings=(*found.warnings, *_run_warnings(found, folder, runs)), unfinished=unfinished)
    return joined_by_itself(located(found, _recorded_paths(record)))


def _table_path(path: Path) -> Path:
    if not os.path.exists(path):  # also of a name that is too long
        raise ResultsError(f"{path} does not exist; expected a folder of results or its {PREDICTIONS}")
    if path.is_file() and path.name in WRITTEN_FILES:
        path = path.parent
    if path.is_file():
        return path
    if not (path / PREDICTIONS).exists():
        written = next((name for name in WRITTEN_FILES if (path / name).exists()), None)
        why = f"it has {written}, so the run was stopped early or exported no tables" if written else \
            "it is not a results folder"  # fmt: skip
        raise ResultsError(
            f"{path} has no {PREDICTIONS} ({why}); expected the folder of a classification or evaluation"
        )
    return path / PREDICTIONS


def _read_predictions(path: Path) -> tuple[pd.DataFrame, tuple[str, ...]]:
    header = [str(name) for name in read_csv(path, rows=0)]
    scores = [name for name in header if is_score(name)]
    missing = [name for name in ("file", "error") if name not in header]
    if not missing and not scores:
        raise ResultsError(_all_failed(path))
    missing += [name for name in PLANE_COLUMNS if "t" in header and name not in header]
    if missing or "top" not in header:
        raise ResultsError(
            f"{path.name} has {_no_columns(missing or ['top'])}; found {short(', '.join(header))}; expected the "
            "predictions.csv of a classification or evaluation"
        )
    texts = [name for name in header if name in TEXT_COLUMNS]
    numbers = [name for name in header if is_score(name) or is_pooled(name) or is_count(name) or name in MEASURED]
    table = read_csv(path, texts, numbers=numbers, growing=(path.parent / JOURNAL).exists())
    if table.empty:
        raise ResultsError(f"{path} has columns but no rows: nothing was classified, or the file is half-written")
    table[texts] = table[texts].fillna("")
    others = [name for name in header if name not in (*texts, *numbers)]
    table[others] = table[others].apply(numbers_where_possible)
    not_numbers = [name for name in numbers if table[name].dtype.kind not in "biuf"]
    if not_numbers:
        text = _first_text(table[not_numbers[0]])
        raise ResultsError(f"{path}: the column {not_numbers[0]} holds {text!r}; expected numbers")
    cut_off = (table["error"] == "") & (table[scores].isna().any(axis=1) | _is_cut_off(table))
    if cut_off.any():
        line = int(cut_off.to_numpy().argmax()) + 2
        if len({run.model.sha256 for run in _recorded_runs(path.parent)}) > 1:
            raise ResultsError(
                f"{path} holds results of several models whose classes differ; classify into one folder for each model"
            )
        raise ResultsError(
            f"{path}: line {line} ends early: scores are missing and there is no error; the file is half-written"
        )
    _check_planes(path, table)
    if (table["error"] != "").all():
        raise ResultsError(_all_failed(path))
    classes = tuple(map(class_of, scores))
    unknown = set(table["top"]) - {"", *classes}
    if unknown:
        raise ResultsError(f"{path}: the top class {min(unknown)} has no column of scores; the file is damaged")
    return with_name(with_margin(table, scores)), classes


def check_predictions(path: Path, table: pd.DataFrame) -> pd.DataFrame:
    """Return the table of predictions of a screen with its numbers as numbers.

    Raises
    ------
    ResultsError
        If a column is missing, a number is none, or a plane that was classified has no place.
    """
    missing = [name for name in ("top", *PLANE_COLUMNS) if name not in table]
    if missing:
        raise ResultsError(f"{path} has {_no_columns(missing)}; write the tables of the screen again")
    table = table.copy()
    for name in table:
        is_number = is_score(name) or is_pooled(name) or is_count(name) or name in MEASURED
        if is_number and table[name].dtype.kind not in "biuf":  # a column of gaps alone has no type
            cells = table[name].fillna("").astype(str)
            table[name] = pd.to_numeric(cells, errors="coerce").astype(float)
            texts = cells[(cells != "") & table[name].isna()]
            if len(texts):
                raise ResultsError(
                    f"{path}: the column {name} holds {short(str(texts.iat[0]), 60)!r}; expected numbers"
                )
    _check_planes(path, table.assign(error=table["error"].fillna("")))
    return table


def _check_planes(path: Path, table: pd.DataFrame) -> None:
    """Check that each plane that was classified has whole numbers for its place."""
    places = table.loc[table["error"] == "", [name for name in PLANE_COLUMNS if name in table]].astype(float)
    wrong = ~((places >= 0) & (places < 2**31) & (places % 1 == 0)).all(axis=1)
    if wrong.any():
        line = int(places.index.to_numpy()[wrong.to_numpy()][0]) + 2
        raise ResultsError(f"{path}: line {line} does not say position, t and z of its plane; the file is damaged")


def _is_cut_off(table: pd.DataFrame) -> pd.Series:
    """Tell where the top class is missing although the plane shows something to classify."""
    said = table[UNLIKE_REASON] != "" if UNLIKE_REASON in table else False
    return (table["top"] == NO_CLASS) & ~(pd.Series(said, index=table.index))


def _no_columns(names: Sequence[str]) -> str:
    """Say that columns are missing, as in: no columns 'file' and 'error'."""
    return f"no column{'s'[: len(names) > 1]} {' and '.join(map(repr, names))}"


def _first_text(column: pd.Series) -> str:
    """Return the first cell that is not a number."""
    return str(column[pd.to_numeric(column, errors="coerce").isna() & column.notna()].iat[0])


def _all_failed(path: Path) -> str:
    errors = read_csv(path, columns=["error"])["error"].fillna("")
    if not len(errors):
        return f"{path} has no rows: nothing was classified"
    return f"all {len(errors)} images of {path} failed; the first: {errors.iat[0]}"


def with_margin(table: pd.DataFrame, scores: list[str]) -> pd.DataFrame:
    """Add the column margin if it is missing."""
    if "margin" in table:
        return table
    values = np.sort(table[scores].to_numpy(float), 1)
    margin = values[:, -1] - values[:, -2] if len(scores) > 1 else np.where(np.isnan(values[:, 0]), np.nan, 1.0)
    table.insert(list(table).index("top") + 1, "margin", margin)
    return table


def with_name(table: pd.DataFrame) -> pd.DataFrame:
    """Add the column name if it is missing."""
    if "name" not in table:
        table.insert(1, "name", [path_parts(file)[-1] for file in table["file"]])
    return table


def has_one_label(table: pd.DataFrame, classes: Sequence[str], metrics: Metrics | None = None) -> bool:
    """Whether images have one class: as metrics.json says, else whether their scores sum to one, as a softmax does."""
    if metrics is not None and metrics.single_label is not None:
        return metrics.single_label
    sums = table[score_columns(classes)].sum(axis=1, skipna=False).dropna()
    return len(classes) > 1 and bool(np.allclose(sums, 1, atol=1e-3))


def _read_run_summary(path: Path) -> _RunSummary | None:
    found = _read_json(path)
    try:
        return None if found is None else _RunSummary.model_validate(found)
    except (ValidationError, OptionsError) as error:
        raise ResultsError(
            f"{path} is not the record of a classification: {_first_mistake(error)}; write the results again"
        ) from error


def _read_metrics(path: Path) -> Metrics | None:
    found = _read_json(path)
    missing = [] if found is None else [name for name in ("figures", "intervals", "reliability") if name not in found]
    if missing:
        raise ResultsError(f"{path} has no {' and no '.join(missing)}; evaluate again")
    try:
        return None if found is None else Metrics.model_validate(found)
    except ValidationError as error:
        raise ResultsError(f"{path} is damaged: {_first_mistake(error)}; evaluate again") from error


def _read_json(path: Path) -> dict[str, object] | None:
    if not path.exists():
        return None
    try:
        return read_json(path)
    except (OSError, ValueError) as error:
        raise ResultsError(f"{path} cannot be read as JSON: {error}; it is damaged, write the results again") from error


def _first_mistake(error: ValidationError | OptionsError) -> str:
    if isinstance(error, OptionsError):
        return str(error)
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"


def _read_objects(path: Path, growing: bool) -> pd.DataFrame | None:
    if not path.exists():
        return None
    objects = read_csv(path, ("file", "class"), growing=growing)
    missing = [name for name in ("file", *PLANE_COLUMNS, "label", "class") if name not in objects]
    if missing:
        raise ResultsError(f"{path} has {_no_columns(missing)}; write the results again")
    if "shown" not in objects:  # early versions listed the objects of the masks only
        return objects.assign(shown=True)
    shown = objects["shown"].astype(str).str.lower().isin(("", "nan", "true"))  # empty: written by an early version
    return objects.assign(**{"class": objects["class"].fillna("")}, shown=shown)


def _reading(record: _RunSummary | None) -> ImageReading:
    options = record.options if record else None
    return (options.reading if options else None) or AS_THEY_SAY


def _recorded_paths(record: _RunSummary | None) -> dict[str, list[str]]:
    """Return the paths of the images in a record, by the last part of the path with composed accents."""
    found: dict[str, list[str]] = {}
    for file in (record.files if record else None) or ():
        if file:
            found.setdefault(composed(path_parts(file)[-1]), []).append(file)
    return found


def _with_evaluation(found: OpenedResults, metrics: Metrics | None, folder: Path) -> OpenedResults:
    """Add the metrics and the confusion of an evaluation if they are those of the same images."""
    count = int((found.table["error"] == "").sum())
    if metrics is None:
        warning = f"{METRICS} is missing: figures are computed from {PREDICTIONS}, without intervals"
        return replace(found, warnings=(warning,))
    if metrics.images != count:
        warning = (
            f"{METRICS} is of {metrics.images} images, but {PREDICTIONS} is of {count}: they belong to two "
            f"evaluations, and figures are computed from {PREDICTIONS}"
        )
        return replace(found, warnings=(warning,))
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


def _recorded_runs(folder: Path) -> list[_RunSummary]:
    """Read the records of a folder; that of a run that is going on or was killed comes last, as it is by now."""
    runs = [run for path in record_paths(folder) if (run := _read_run_summary(path)) is not None]
    try:
        journal = read_journal(folder)
    except OutputError as error:
        raise ResultsError(str(error)) from error
    now = None if journal is None else _RunSummary.model_validate(journal.finished_record())
    others = [run for run in runs if now is None or run.id != now.id]
    return [*others, *([] if now is None else [now])]


def _run_warnings(found: OpenedResults, folder: Path, runs: Sequence[_RunSummary]) -> Iterator[str]:
    failed = found.table.loc[found.table["error"] != "", "file"].nunique()
    if failed:
        yield f"{failed} of {found.table['file'].nunique()} images failed; the column error says why"
    if found.unit == "images":
        return
    if not runs:
        yield f"{RECORD} is missing: the run was stopped or is still going on; these are the results so far"
        return
    left, holder = _left(runs), holder_of(folder)
    if holder:
        yield f"{holder} is writing to this folder: {left} of its images are not classified yet; open it again later"
    elif (folder / JOURNAL).exists():
        yield f"the run was killed before {left} of its images were classified; classify with --resume to go on"
    elif left:
        yield f"the run was stopped before {left} of its images were classified; classify with --resume to go on"
    if any(folder.glob("*.earlier.csv")):
        yield "rows of earlier results that this run classifies again are in the tables *.earlier.csv meanwhile"
    yield from _mixture(found, runs)


def _left(runs: Sequence[_RunSummary]) -> int:
    """Return how many images of runs are not classified."""
    return len({file for run in runs for file in run.unfinished or ()})


def _mixture(found: OpenedResults, runs: Sequence[_RunSummary]) -> Iterator[str]:
    """Say that the images of a table were classified with several models, or in several ways."""
    run_of = {name: run for run in runs for name in run.done()}
    images = Counter(id(run_of[name]) for name in set(found.table["name"]) if name in run_of)
    counts: Counter[str] = Counter()
    for run in runs:
        counts[run.model.sha256] += images[id(run)]
    names = {run.model.sha256: run.model.name for run in runs}
    which = [f"{names[digest]} ({count} image{'s'[: count != 1]})" for digest, count in counts.items() if count]
    if len(which) > 1:
        yield (f"this folder holds results of {len(which)} models, {' and '.join(which)}: do not compare images of one "
               "with those of another")  # fmt: skip
    elif len(images) > 1:
        yield "the images were classified with different options; each run*.json lists the images of one way"
