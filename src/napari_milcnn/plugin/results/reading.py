"""What the Results dock reads beside the window: results with all that is said of them and drawn from them."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from napari_milcnn.schema import NO_CLASS, NOTHING, UNLIKE, UNLIKE_REASON, is_pooled
from napari_milcnn.untrusted import guarded_cell

if TYPE_CHECKING:
    from napari_milcnn.evaluation.report import EvaluationReport
    from napari_milcnn.figures.plates import WellValue
    from napari_milcnn.metrics.calibration import Reliability
    from napari_milcnn.progress import Progress
    from napari_milcnn.results.opened import OpenedResults
    from napari_milcnn.screens.read import OpenedScreen

REPORT = "report.html"
_FIGURES = ("balanced accuracy", "mean average precision", "group accuracy")
"""Figures of an evaluation that are shown beside the accuracy."""


@dataclass(frozen=True, eq=False)
class ReadResults:
    """Results that were read, and what is shown of them; all of it is computed beside the window.

    Attributes
    ----------
    found : OpenedResults
        The results.
    facts : str
        Folder, counts, main figures and the columns of a layout, a line each.
    warnings : tuple of str
        What a reader of the results should know, as sentences.
    frame : DataFrame
        The table as it is shown.
    texts : Series of str
        The texts of each row of `frame` in small letters, to be searched.
    predicted, labelled : dict
        Class -> number of rows with this answer, and with this label; `labelled` is None without labels.
    confusion, reliability
        As `results.tables` returns them; None without labels.
    wells : DataFrame
        One row for each well, as of `wells_of_results`.
    places : DataFrame
        Plate and well of each row of the table.
    values : tuple of WellValue
        What plates can show.
    doses : tuple of str
        Columns that may hold doses.
    report : Path or None
        The page of the evaluation; None if there is none.
    """

    found: OpenedResults
    facts: str
    warnings: tuple[str, ...]
    frame: pd.DataFrame
    texts: pd.Series
    predicted: dict[str, int]
    labelled: dict[str, int] | None
    confusion: pd.DataFrame | None
    reliability: Reliability | None
    wells: pd.DataFrame
    places: pd.DataFrame
    values: tuple[WellValue, ...]
    doses: tuple[str, ...]
    report: Path | None

    def rows_of(self, wells: Collection[tuple[str, str]]) -> np.ndarray:
        """Return the rows of some wells, given by plate and name, in the order of the table."""
        return np.flatnonzero(pd.MultiIndex.from_frame(self.places).isin(list(wells)))


def shown_results(found: OpenedResults) -> ReadResults:
    """Compute what the dock shows of opened results."""
    from napari_milcnn.results.tables import confusion, dose_columns, histogram, reliability
    from napari_milcnn.screens.opened_wells import places_of_rows, values_of_wells, wells_of_results

    (predicted, labelled), frame, wells = histogram(found), shown_frame(found), wells_of_results(found)
    page = None if found.path is None else found.path.parent / REPORT
    return ReadResults(
        found, facts_of(found), tuple(f"{text}." for text in warnings_of(found)), frame, _texts_of(frame), predicted,
        labelled,
        confusion(found), reliability(found), wells, places_of_rows(found),
        tuple(values_of_wells(wells, found.classes)), tuple(dose_columns(found)),
        page if page is not None and "fold" in found.table and page.is_file() else None,
    )  # fmt: skip


@dataclass(frozen=True, eq=False)
class ReadRequest:
    """Read a folder or table of results; layout tables are joined to it, or to the results `onto`."""

    paths: tuple[Path, ...]
    onto: OpenedResults | None

    @property
    def doing(self) -> str:
        """What is done meanwhile, in words."""
        return f"Reading {', '.join(path.name for path in self.paths)}…"

    def steps(self) -> Iterator[ReadResults]:
        """Yield the results."""
        from napari_milcnn.results.layout import is_layout, with_layout
        from napari_milcnn.screens.read import open_results

        found = self.onto
        for path in sorted(self.paths, key=is_layout):
            found = with_layout(found, path) if found is not None and is_layout(path) else open_results(path)
        if found is not None:
            yield shown_results(found)


@dataclass(frozen=True, eq=False)
class FindImagesRequest:
    """Look for the images of results in a folder."""

    found: OpenedResults
    folder: Path

    @property
    def doing(self) -> str:
        """What is done meanwhile, in words."""
        return f"Searching for the images in {self.folder.name}…"

    def steps(self) -> Iterator[ReadResults]:
        """Yield the same results with the images that were found."""
        from napari_milcnn.results.moved_images import with_images

        yield shown_results(with_images(self.found, self.folder))


@dataclass(frozen=True, eq=False)
class ResumeRequest:
    """Go on with the run of a folder that was stopped or killed, then read its results again."""

    folder: Path

    @property
    def doing(self) -> str:
        """What is done meanwhile, in words."""
        return f"Classifying the rest of {self.folder.name}…"

    def steps(self) -> Iterator[Progress[Any] | ReadResults]:
        """Yield the progress, and last the results."""
        from napari_milcnn.results.read import read_results
        from napari_milcnn.results.replay import resume_run

        said: list[str] = []
        yield from resume_run(self.folder, said.append)
        found = read_results(self.folder)
        yield shown_results(replace(found, warnings=(*found.warnings, *said)))


@dataclass(frozen=True, eq=False)
class RefreshRequest:
    """Read a screen that is still running once more, with the wells that are done by now."""

    before: OpenedScreen
    doing: str = "Reading the wells that are done by now…"

    def steps(self) -> Iterator[ReadResults]:
        """Yield the results."""
        from napari_milcnn.results.layout import with_layout
        from napari_milcnn.screens.read import read_screen

        found: OpenedResults = read_screen(self.before.folder, self.before)
        yield shown_results(found if self.before.layout is None else with_layout(found, self.before.layout))


@dataclass(frozen=True, eq=False)
class ReportRequest:
    """Show the report of an evaluation that is in memory."""

    report: EvaluationReport
    doing: str = "Reading the report…"

    def steps(self) -> Iterator[ReadResults]:
        """Yield the report as results."""
        from napari_milcnn.evaluation.report import results_of

        yield shown_results(results_of(self.report))


def facts_of(found: OpenedResults) -> str:
    """Describe opened results: folder, counts, main figures and the columns of a layout."""
    from napari_milcnn.results.tables import accuracy
    from napari_milcnn.screens.read import OpenedScreen

    images = len(found.files)
    count = f"{images:,} image{'s'[: images != 1]}"
    if isinstance(found, OpenedScreen):
        wells = f"{found.growth.total:,} wells" if found.growth.finished else found.growth.words
        count = f"{wells} · {images:,} field{'s'[: images != 1]}"
    if found.unit == "planes" and len(found.table) > images:
        count += f" · {len(found.table):,} planes"
    lines = [f"{count} · {len(found.classes)} classes"]
    measured = accuracy(found)
    if measured is not None and not np.isnan(measured[0]):
        yes_no, ends = "" if found.single_label else "yes/no ", measured[1]
        interval = f" (95 % interval {ends[0]:.3f} to {ends[1]:.3f})" if ends else ""
        lines.append(f"{yes_no}accuracy {measured[0]:.3f}{interval}")
    if found.metrics is not None:
        figures = [(name, found.metrics.figures.get(name)) for name in _FIGURES]
        others = [f"{name} {value:.3f}" for name, value in figures if value is not None]
        lines += [" · ".join(others)] if others else []
    if found.layout is not None and found.added:
        lines.append(f"columns from {found.layout.name}: {', '.join(found.added)}")
    folder = [] if found.path is None else [found.path.parent.name]
    return "\n".join([*folder, *lines])


def warnings_of(found: OpenedResults) -> list[str]:
    """Return what a user of the results should know, as sentences without a full stop."""
    from napari_milcnn.results.moved_images import missing_text

    warnings = [text.rstrip(".") for text in found.warnings if text]
    if UNLIKE in found.table:
        shows_nothing = (found.table["top"] == NO_CLASS) & (found.table["error"] == "")
        empty, known = int(shows_nothing.sum()), int(found.table[UNLIKE].notna().sum())
        count = int(((found.table[UNLIKE] > 1) & ~shows_nothing).sum())
        if count:
            verb, whose = ("is", "its class") if count == 1 else ("are", "their classes")
            warnings.append(f"{count:,} of {known:,} {found.unit} {verb} unlike the training images, so {whose} "
                            "may be wrong; the column unlike reason says in what")  # fmt: skip
        if empty:
            warnings.append(
                f"1 {found.unit[:-1]} shows {NOTHING}" if empty == 1 else f"{empty:,} {found.unit} show {NOTHING}"
            )
    if found.missing:
        warnings.append(
            f"{len(found.missing):,} of {len(found.files):,} images were not found, such as {missing_text(found, 1)}; "
            "click Images… to choose their folder"
        )
    return warnings


def shown_frame(found: OpenedResults) -> pd.DataFrame:
    """Return the table for display: the most important columns come first, columns without content are left out."""
    from napari_milcnn.results.opened import MEASURED

    table = found.table
    front: dict[str, Any] = {"image": table["name"]}
    varying = [(letter, name) for letter, name in zip("PTZ", ("position", "t", "z"), strict=True)
               if name in table and table[name].nunique() > 1]  # fmt: skip
    if varying:
        parts = [letter + table[name].fillna(-1).astype(int).astype(str) for letter, name in varying]
        planes = parts[0]
        for part in parts[1:]:
            planes = planes + " " + part
        front["plane"] = planes.where(table["error"] == "", "")
    shown = table["top"].where((table["top"] != NO_CLASS) | (table["error"] != ""), NOTHING)
    front |= {"top": shown, "score": table[found.columns].max(axis=1), "margin": table["margin"]}
    if UNLIKE in table and table[UNLIKE].notna().any():
        front[UNLIKE] = table[UNLIKE]
    last = [*found.columns, "planes", "warnings", "error", "file"]
    measured = [name for name in table if is_pooled(name) or name in MEASURED]
    known = [name for name in table if name not in (*last, *measured, "name", "top")]
    frame = pd.DataFrame(front | {str(name): table[name] for name in (*known, *last) if name in table})
    empty = [
        name for name in ("label", "group", UNLIKE_REASON, "warnings") if name in frame and (frame[name] == "").all()
    ]
    return frame.drop(columns=empty)


def _texts_of(frame: pd.DataFrame) -> pd.Series:
    """Join the texts of each row, in small letters."""
    joined = pd.Series("", frame.index, object)
    for name in frame:
        if frame[name].dtype.kind not in "iuf":
            joined = joined + frame[name].astype(str) + "\n"
    return joined.str.lower().reset_index(drop=True)


@dataclass(frozen=True, eq=False)
class CopyRequest:
    """Write rows of a table as text for a spreadsheet."""

    rows: pd.DataFrame

    def steps(self) -> Iterator[str]:
        """Yield the text, with the columns separated by tabs; nothing in it is run as a formula."""
        from napari_milcnn.results.write import with_each_text

        yield with_each_text(self.rows, guarded_cell).to_csv(sep="\t", index=False).rstrip("\n")
