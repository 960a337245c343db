"""Results read back: predictions of a run or of an evaluation, joined with a layout of labels, wells and doses.

What a folder says itself is taken as it stands: the confusion, the figures and the reliability of an evaluation are
those that it wrote. What it does not say is computed by the same functions that an evaluation uses, from the mean score
of each image over its planes.

Images are found where the run says; else beside the tables, since folders of images and results are moved together.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from napari_milcnn.errors import ResultsError
from napari_milcnn.evaluation.report import EvaluationReport
from napari_milcnn.images.stack import AS_THEY_SAY, ImageReading, PlaneIndex
from napari_milcnn.images.wells import Well, parse_well, wells_in
from napari_milcnn.results.write import image_files, printable

TABLE, RECORD, METRICS = "predictions.csv", "run.json", "metrics.json"
_WRITTEN = (TABLE, RECORD, METRICS, "objects.csv", "confusion.csv", "groups.csv", "mislabels.csv", "report.html")
_TEXTS = ("file", "name", "label", "group", "well", "plate", "compound", "top", "warnings", "error")
MEASURED = ("position", "t", "z", "planes", "fold", "margin", "objects")
"""Columns of numbers that a run writes besides scores."""
_LISTED = 5
_ABSOLUTE = re.compile(r"[\\/]|[A-Za-z]:")
_TAILS = (3, 2, 1)
"""How many of the last parts of a path are looked for elsewhere."""


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
        return [f"score {name}" for name in self.classes]

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
        written = image_files(self.path.parent, name, masks=True)
        assert written.labels is not None
        maps, labels = (path if path.exists() else None for path in (written.maps, written.labels))
        return maps, labels

    def plane_of(self, row: int) -> PlaneIndex | None:
        """Position, time and z of a row; None for an image as a whole."""
        if self.unit == "images" or self.table["error"].iat[row]:
            return None
        return PlaneIndex(*(int(self.table[name].to_numpy()[row]) for name in PlaneIndex._fields))


@cache
def label_set(text: str) -> frozenset[str]:
    """Return the labels that stand in a cell, separated by bars."""
    return frozenset(name.strip() for name in text.split("|") if name.strip())


# Reading


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
    return joined_by_itself(_located(found, _recorded(record)))


def _table_path(path: Path) -> Path:
    if not path.exists():
        raise ResultsError(f"{path} does not exist; expected a folder of results, or its {TABLE}")
    if path.is_file() and path.name in _WRITTEN:
        path = path.parent
    if path.is_file():
        return path
    if not (path / TABLE).exists():
        written = next((name for name in _WRITTEN if (path / name).exists()), None)
        why = f"it has {written}, so that its run was stopped early or exported no tables" if written else "it is none"
        raise ResultsError(f"{path} has no {TABLE} ({why}); expected a folder written by classify, screen or evaluate")
    return path / TABLE


def _read_csv(path: Path, texts: Iterable[str] = _TEXTS, **options: Any) -> pd.DataFrame:
    """Read a CSV whose texts are taken literally: a class may be called NA."""
    try:
        found: pd.DataFrame = pd.read_csv(
            path, dtype=dict.fromkeys(texts, str), keep_default_na=False, encoding="utf-8-sig", **options
        )
    except pd.errors.EmptyDataError as error:
        raise ResultsError(f"{path} is empty; write the results again") from error
    except UnicodeDecodeError as error:
        raise ResultsError(f"{path} is no text in UTF-8 ({error.reason}); expected a CSV") from error
    except (pd.errors.ParserError, ValueError) as error:
        raise ResultsError(
            f"{path} cannot be read as a CSV: {str(error).strip()}; it is damaged, or half-written"
        ) from error
    except OSError as error:
        raise ResultsError(f"{path} cannot be read: {error.strerror or error}") from error
    return found.rename(columns=str)


def _read_predictions(path: Path) -> tuple[pd.DataFrame, tuple[str, ...]]:
    header = [str(name) for name in _read_csv(path, nrows=0)]
    scores = [name for name in header if name.startswith("score ")]
    lacking = [name for name in ("file", "error") if name not in header]
    if not lacking and not scores:
        raise ResultsError(_all_failed(path))
    if lacking or "top" not in header:
        raise ResultsError(
            f"{path.name} lacks the column {' and '.join(lacking or ['top'])}; found {', '.join(header[:8])}; expected "
            "predictions.csv as classify, screen or evaluate write it"
        )
    texts = [name for name in header if name in _TEXTS]
    numbers = [name for name in header if name.startswith(("score ", "P ")) or name in MEASURED]
    table = _read_csv(path, texts, na_values={name: [""] for name in numbers})
    if table.empty:
        raise ResultsError(f"{path} has columns and no rows: nothing was classified, or it is half-written")
    table[texts] = table[texts].fillna("")
    others = [name for name in header if name not in (*texts, *numbers)]
    table[others] = table[others].apply(_numbers)
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
    classes = tuple(name.removeprefix("score ") for name in scores)
    unknown = set(table["top"]) - {"", *classes}
    if unknown:
        raise ResultsError(f"{path}: the top class {min(unknown)} has no column of scores; the file is damaged")
    return _with_name(_with_margin(table, scores)), classes


def _first_word(column: pd.Series) -> str:
    return str(column[pd.to_numeric(column, errors="coerce").isna() & column.notna()].iat[0])


def _all_failed(path: Path) -> str:
    errors = _read_csv(path, usecols=["error"])["error"].fillna("")
    if not len(errors):
        return f"{path} has no rows: nothing was classified"
    return f"all {len(errors)} images of {path} failed; the first: {errors.iat[0]}"


def _with_margin(table: pd.DataFrame, scores: list[str]) -> pd.DataFrame:
    if "margin" in table:
        return table
    values = np.sort(table[scores].to_numpy(float), 1)
    margin = values[:, -1] - values[:, -2] if len(scores) > 1 else np.where(np.isnan(values[:, 0]), np.nan, 1.0)
    table.insert(list(table).index("top") + 1, "margin", margin)
    return table


def _with_name(table: pd.DataFrame) -> pd.DataFrame:
    if "name" not in table:
        table.insert(1, "name", [_parts(file)[-1] for file in table["file"]])
    return table


def _parts(file: str) -> list[str]:
    """Split a path of any system."""
    return [part for part in re.split(r"[\\/]+", file) if part] or [""]


def _single_label(table: pd.DataFrame, classes: Sequence[str], metrics: dict[str, Any] | None) -> bool:
    """Whether the scores of an image sum to one, as those of a softmax do, where nothing says so."""
    if metrics is not None and "single_label" in metrics:
        return bool(metrics["single_label"])
    sums = table[[f"score {name}" for name in classes]].sum(axis=1, skipna=False).dropna()
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
    objects = _read_csv(path, ("file", "class"))
    lacking = [name for name in ("file", "position", "t", "z", "label", "class") if name not in objects]
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
            found.setdefault(_parts(file)[-1], []).append(str(file))
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
    table = _read_csv(path, ("label", "class"))
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


def results_of(report: EvaluationReport) -> OpenedResults:
    """Turn a report that was just made into what opening its saved folder gives."""
    table = report.predictions
    columns = [f"score {name}" for name in report.model.classes]
    files: dict[str, Path | None] = {printable(o.image.file): o.image.file for o in report.outcomes}
    found = OpenedResults(
        None, _with_name(_with_margin(table, columns)), report.model.classes, report.model.card.single_label, files,
        metrics=report.document(), written_confusion=report.confusion, reading=report.table.reading,
        warnings=report.warnings,
    )  # fmt: skip
    return joined_by_itself(found)


# Where the images lie


class _Folders:
    """What folders hold, each listed once: to ask for files one by one takes minutes on a network."""

    def __init__(self) -> None:
        self._names: dict[str, set[str]] = {}

    def have(self, path: str) -> bool:
        """Whether a file is there."""
        folder, name = os.path.split(path)
        if folder not in self._names:
            try:
                self._names[folder] = set(os.listdir(folder))
            except OSError:
                self._names[folder] = set()
        return name in self._names[folder]


def _located(found: OpenedResults, recorded: dict[str, list[str]], root: Path | None = None) -> OpenedResults:
    assert found.path is not None
    folders, folder = _Folders(), found.path.parent
    bases = tuple(map(str, (folder, folder.parent)))
    files = {}
    for file in dict.fromkeys(found.table["file"]):
        places = _places(file, recorded, bases, None if root is None else str(root))
        place = next(filter(folders.have, places), None)
        files[file] = None if place is None else Path(place)
    return replace(found, files=files)


def _places(file: str, recorded: dict[str, list[str]], bases: tuple[str, ...], root: str | None) -> Iterator[str]:
    """Yield where an image may lie, the likeliest place first."""
    parts = _parts(file)
    if root is not None:
        yield from (os.path.join(root, *parts[-n:]) for n in _TAILS)
    yield from (path for path in recorded.get(parts[-1], ()) if _parts(path)[-len(parts) :] == parts)
    absolute = _ABSOLUTE.match(file)
    if absolute:
        yield file
    else:
        yield from (os.path.join(base, *parts) for base in (*bases, os.getcwd()))
    yield from (os.path.join(base, *parts[-n:]) for base in bases for n in (_TAILS if absolute else (1,)))


def with_images(found: OpenedResults, folder: Path) -> OpenedResults:
    """Look for the images in a folder, and in its folders as the table names them.

    Raises
    ------
    ResultsError
        If none of them is there.
    """
    if found.path is None:
        return found
    before = {_parts(file)[-1]: [str(path)] for file, path in found.files.items() if path is not None}
    moved = _located(found, before, folder)
    if not any(moved.files.values()):
        raise ResultsError(f"{folder} holds none of the {len(moved.files)} images, such as {missing_text(moved, 1)}")
    return joined_by_itself(moved) if moved.layout is None else moved


def missing_text(found: OpenedResults, count: int = _LISTED) -> str:
    """Name the images that were not found."""
    names = found.missing
    more = f" and {len(names) - count} more" if len(names) > count else ""
    return ", ".join(names[:count]) + more


# Layout tables


def joined_by_itself(found: OpenedResults) -> OpenedResults:
    """Join the labels.csv that lies beside the images or above them, if there is one that fits."""
    for path in _layouts_near(found):
        try:
            return with_layout(found, path)
        except ResultsError:  # a table of other images is no layout of these
            continue
    return found


def _layouts_near(found: OpenedResults) -> list[Path]:
    folders = dict.fromkeys(path.parent for path in found.files.values() if path is not None)
    near = [folder for one in list(folders)[:_LISTED] for folder in (one, one.parent)]
    near += [found.path.parent, found.path.parent.parent] if found.path is not None else []
    return [folder / "labels.csv" for folder in dict.fromkeys(near) if (folder / "labels.csv").is_file()]


def with_layout(found: OpenedResults, path: str | Path) -> OpenedResults:
    """Join a table of labels, groups, wells, doses, compounds, or whatever else is known of the images.

    Parameters
    ----------
    found : OpenedResults
        Results; what another layout added is replaced.
    path : path
        A CSV (comma, semicolon or tab) with the column `file`, relative to it, or `well`. Columns that the results have
        themselves stay as they are.

    Raises
    ------
    ResultsError
        If it cannot be read, has neither column, or fits none of the images.
    """
    path = Path(path)
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
                           f"of the results is {table['file'].iat[0]!r}")  # fmt: skip
    added = [str(name) for name in layout if name not in table and name not in (key, "file", "split")]
    if not added:
        raise ResultsError(f"{path} adds nothing: the results have {', '.join(map(str, layout))} themselves")
    extra = layout[added].iloc[rows.clip(0)].reset_index(drop=True)
    for name in added:
        extra.loc[rows < 0, name] = "" if extra[name].dtype.kind not in "iuf" else np.nan
    at = list(table).index("name") + 1
    joined = pd.concat([table.iloc[:, :at].reset_index(drop=True), extra, table.iloc[:, at:].reset_index(drop=True)],
                       axis=1)  # fmt: skip
    said = tuple(text for text in found.warnings if text not in _layout_warnings(found))
    done = replace(bare, table=joined, layout=path, added=tuple(added), warnings=said)
    return replace(done, warnings=(*said, *_layout_warnings(done)))


def is_layout(path: Path) -> bool:
    """Whether a file is a table that is none of the results."""
    if path.suffix.lower() not in (".csv", ".tsv", ".txt") or path.name in _WRITTEN:
        return False
    with path.open(encoding="utf-8-sig", errors="replace") as lines:
        return not {"top", "error"} <= set(lines.readline().strip().split(","))


def _layout_warnings(found: OpenedResults) -> list[str]:
    if "label" not in found.added:
        return []
    unknown = Counter(name for text in found.images["label"] for name in label_set(text) - set(found.classes))
    left = len(found.images) - len(found.labelled)
    if not left:
        return []
    names = f" (not of the model: {', '.join(sorted(unknown)[:_LISTED])})" if unknown else ""
    return [f"{left} of {len(found.images)} images have no label that can be compared{names}"]


def _read_layout(path: Path) -> pd.DataFrame:
    if not path.is_file():
        raise ResultsError(f"{path} does not exist; expected a CSV with the column file or well")
    try:
        with path.open(encoding="utf-8-sig") as lines:
            first = lines.readline()
    except (OSError, UnicodeDecodeError) as error:
        raise ResultsError(f"{path} cannot be read as a CSV; save it as 'CSV UTF-8'") from error
    layout = _read_csv(path, sep=max((",", ";", "\t"), key=first.count), texts=(), skipinitialspace=True)
    layout.columns = pd.Index([str(name).strip().lower() for name in layout])
    if not {"file", "well"} & set(layout):
        raise ResultsError(
            f"{path} has neither the column file nor well; found {', '.join(map(str, layout.columns[:8]))}"
        )
    if not len(layout):
        raise ResultsError(f"{path} has no rows; expected one for each image or well")
    return layout.assign(**{
        str(name): layout[name].astype(str).str.strip() if name in (*_TEXTS, "split") else _numbers(layout[name])
        for name in layout
    })  # fmt: skip


def _numbers(column: pd.Series) -> pd.Series:
    """Return a column as numbers if it holds nothing else, apart from gaps."""
    if column.dtype.kind in "iuf":
        return column.astype(float)
    text = column.astype(str).str.strip()
    numbers = pd.to_numeric(text, errors="coerce")
    return numbers if (numbers.notna() | (text == "")).all() and numbers.notna().any() else text


def _rows_by_file(found: OpenedResults, layout: pd.DataFrame, path: Path) -> np.ndarray:
    """Return the row of the layout for each row of the results, -1 for none: by path, else by the end of it."""
    own = [[str(path.parent.absolute()), *_parts(file)] for file in layout["file"]]
    theirs = {file: _parts(str((where or Path(file)).absolute())) for file, where in found.files.items()}
    by_tail: list[dict[str, int]] = []
    for length in (None, 3, 2, 1):
        keys = ["/".join(_parts("/".join(parts)) if length is None else parts[-length:]) for parts in own]
        counts = Counter(keys)
        by_tail.append({key: row for row, key in enumerate(keys) if counts[key] == 1})
    rows = {}
    for file, parts in theirs.items():
        tails = ("/".join(parts if n is None else parts[-n:]) for n in (None, 3, 2, 1))
        rows[file] = next((known[tail] for known, tail in zip(by_tail, tails, strict=True) if tail in known), -1)
    return found.table["file"].map(rows).to_numpy(int)


def _rows_by_well(found: OpenedResults, layout: pd.DataFrame) -> np.ndarray:
    keys = [parse_well(text) for text in layout["well"]]
    twice = [well for well, count in Counter(filter(None, keys)).items() if count > 1]
    if twice:
        raise ResultsError(
            f"the layout lists the well {twice[0].name} more than once; wells of several plates need the column file"
        )
    known = {well: row for row, well in enumerate(keys) if well is not None}
    return np.array([known.get(well, -1) if well is not None else -1 for well in wells_of(found.table)])


def wells_of(table: pd.DataFrame) -> list[Well | None]:
    """Return the well of each row: from the column `well`, else from group, name or path; None where nothing says."""
    if "well" in table:
        return [parse_well(str(text)) for text in table["well"]]
    if "group" in table:
        known = {str(text): parse_well(str(text)) for text in table["group"].unique()}
        if all(known.values()):
            return [known[str(text)] for text in table["group"]]
    found = wells_in(table["name"].tolist())
    return found if any(found) else wells_in(["/".join(_parts(file)[-4:]) for file in table["file"]])
