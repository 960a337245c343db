"""The page of a screen, report.html: what was run, plates, quality control, hits, doses, galleries, confusion.

The page is written from the tables of a screen, so that it can be made again at any time, also while a screen runs.
Decisions:

- One file without scripts, as the page of an evaluation (`evaluation.page`).
- It has a limit: so many wells are drawn, so many rows are listed; what is left out is said, and which table has it.
- What was not measured is not shown as if nothing was found: without controls there are no hits, and the page says why.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import pandas as pd

from napari_milcnn.atomic_write import replacing
from napari_milcnn.evaluation.page import PageTable, page_table, png_uri, rendered, svg_uri
from napari_milcnn.figures.plates import Blank, colour_scale, legend_svg, plate_maps, plate_svg, well_values
from napari_milcnn.figures.plots import confusion_figure
from napari_milcnn.metrics.classification import confusion_table
from napari_milcnn.model.trained_model import TrainedModel, card_text
from napari_milcnn.results.opened import label_set
from napari_milcnn.schema import (
    CELLS,
    CONTROL,
    PLATE,
    TREATMENT_COLUMNS,
    WELL,
    cells_column,
    class_of,
    is_score,
    score_column,
)
from napari_milcnn.screens.likeness import CLUSTER, UNEXPLAINED
from napari_milcnn.screens.outputs.galleries import KINDS, ShownCell
from napari_milcnn.screens.outputs.quality import (
    FAILED,
    PROBLEMS,
    problems_of_fields,
    quality_of_plates,
    text_column,
)
from napari_milcnn.screens.statistics.hits import doses_together

_MOST_BOXES: Final = 20_000
"""Wells that are drawn on a page, over all plates and values: a browser stays quick."""
_MOST_CLASSES: Final = 8
"""Classes of which a page draws plates."""
_MOST_LISTED: Final = 25
"""Rows of a long table on the page."""
_MOST_UNEXPLAINED: Final = 10
"""Rows of the wells that no class explains."""


@dataclass(frozen=True, eq=False)
class ScreenReport:
    """What the page of a screen tells.

    Attributes
    ----------
    record : mapping
        The content of run.json.
    predictions : DataFrame
        A row for each plane, and for each field that failed.
    wells : DataFrame
        A row for each well.
    missing : DataFrame
        Wells and fields that are named but not there: plate, well, site, reason.
    hits : DataFrame or None
        Wells that differ from the negative controls; None where they were not looked for.
    dose_curves : sequence of tuple
        Heading and picture (a data URI) of each dose response.
    dose_notes : sequence of str
        Sentences on the responses that are not drawn, and on treatments without any.
    notes : sequence of str
        Sentences on what could not be compared with the controls.
    likeness : DataFrame
        Wells by how little the classes explain them, as likeness.csv has them; no row of too few wells.
    edge_effects : sequence of str
        Sentences on plates whose edge differs from their middle.
    cells : sequence of ShownCell
        Cells, or fields, of the galleries.
    model : TrainedModel or None
        The model; None if its file is not there any more.
    planned : DataFrame
        Plate and well of every well of the screen, also of those that are not done yet.
    """

    record: Mapping[str, object]
    predictions: pd.DataFrame
    wells: pd.DataFrame
    missing: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=[PLATE, WELL, "site", "reason"]))
    hits: pd.DataFrame | None = None
    dose_curves: Sequence[tuple[str, str]] = ()
    dose_notes: Sequence[str] = ()
    notes: Sequence[str] = ()
    likeness: pd.DataFrame = field(default_factory=pd.DataFrame)
    edge_effects: Sequence[str] = ()
    cells: Sequence[ShownCell] = ()
    model: TrainedModel | None = None
    planned: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=[PLATE, WELL]))

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes of the model."""
        return tuple(class_of(str(name)) for name in self.predictions if is_score(name))

    @property
    def single_label(self) -> bool:
        """Whether each image shows one class; if the model is gone, whether the scores of each image add up to 1."""
        if self.model is not None:
            return self.model.card.single_label
        scores = self.predictions[[score_column(name) for name in self.classes]].dropna().to_numpy(float)
        return bool(len(scores)) and bool(np.allclose(scores.sum(1), 1, atol=0.01))

    @property
    def images(self) -> pd.DataFrame:
        """One row per field: the mean of the scores of its planes."""
        columns = [score_column(name) for name in self.classes]
        if not columns:  # every field failed
            return pd.DataFrame()
        done = self.predictions[text_column(self.predictions, "error") == ""]
        return done.groupby("name", sort=False).agg(
            {**dict.fromkeys(columns, "mean"), **({"label": "first"} if "label" in done else {})}
        )


def write_report(path: Path, report: ScreenReport) -> None:
    """Write the page.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    with replacing(path) as draft:
        draft.write_text(screen_html(report), encoding="utf-8")


def screen_html(report: ScreenReport) -> str:
    """Return the text of report.html."""
    return rendered("napari_milcnn.screens.outputs", "screen.html", _page_variables(report))


def _page_variables(report: ScreenReport) -> dict[str, object]:
    problems = problems_of_fields(report.predictions)
    model = report.record.get("model")
    recorded = str(model.get("name", "")) if isinstance(model, Mapping) else ""
    name = report.model.card.name if report.model else recorded
    maps, left_out = _plate_sets(report)
    return {
        "title": _screen_name(report), "model_name": name,
        "classes": report.classes,
        "tiles": _head_numbers(report, problems),
        "warnings": list(_first_to_know(report)),
        "sets": maps, "left_out": left_out, "not_looked_for": _on_classes_not_looked_for(report),
        "quality": page_table(_without_empty_columns(quality_of_plates(report.predictions, report.missing))),
        "plates": report.predictions[PLATE].nunique() if PLATE in report.predictions else 0,
        "problem_rows": _problem_rows(report.predictions, problems),
        "problem_count": int(problems[list(PROBLEMS)].any(axis=1).sum()),
        "missing_rows": page_table(report.missing.astype(str).head(_MOST_LISTED)), "missing_count": len(report.missing),
        "edge_effects": report.edge_effects,
        "hits": None if report.hits is None else _hit_lines(report.hits),
        "unexplained": _unexplained_lines(report.likeness), "unexplained_notes": list(_on_likeness(report)),
        "dose_curves": report.dose_curves, "dose_notes": report.dose_notes,
        "galleries": _galleries(report),
        "of_cells": any(cell.side for cell in report.cells),
        "confusion": _confusion(report),
        "run_lines": _run_lines(report.record),
        "card_lines": [] if report.model is None else [
            line.split("  ", 1) for line in card_text(report.model).splitlines()],
        "most_lines": _MOST_LISTED,
    }  # fmt: skip


def _screen_name(report: ScreenReport) -> str:
    source = str(report.record.get("source") or "")
    return "/".join(Path(source).parts[-2:]).lstrip("/") or "screen"


def _head_numbers(report: ScreenReport, problems: pd.DataFrame) -> list[tuple[str, str]]:
    """Return the numbers at the head of the page."""
    table = report.predictions
    fields = table["name"].nunique() if "name" in table else len(table)
    tiles = [("wells", len(report.wells)), ("fields", fields)]
    if PLATE in table and table[PLATE].nunique() > 1:
        tiles.insert(0, ("plates", table[PLATE].nunique()))
    if CELLS in table:
        tiles.append(("cells", int(pd.to_numeric(table[CELLS], errors="coerce").sum())))
    if report.hits is not None:
        tiles.append(("hits", len(doses_together(report.hits))))
    tiles += [("failed", int(problems[FAILED].sum())), ("missing", len(report.missing))]
    tiles.append(("unlike the training images", int(problems["unlike"].sum())))
    return [(name, f"{count:,}") for name, count in tiles]


def _first_to_know(report: ScreenReport) -> Iterator[str]:
    """Say what a reader should know before the rest."""
    planned = report.record.get("fields")
    done = report.predictions["name"].nunique() if "name" in report.predictions else 0
    if isinstance(planned, int) and done < planned:
        yield f"The screen is not finished: {done:,} of {planned:,} fields are done."
    if report.record.get("knows_training_images") is False:
        yield (
            "This model does not know what its training images look like, so it cannot say which fields are unlike "
            "them; calibrate gives it that knowledge."
        )
    if _has_controls(report):
        yield from report.notes
    else:
        yield (
            "No well is marked as a negative control, so scores are not compared with controls and there are no hits. "
            "A layout table with the columns well and control says which wells are controls."
        )


def _has_controls(report: ScreenReport) -> bool:
    return bool((text_column(report.wells, CONTROL) == "negative").any())


def _on_likeness(report: ScreenReport) -> Iterator[str]:
    """Say what the list of wells that no class explains means in this screen, or why there is none."""
    listed = report.likeness
    if listed.empty:
        yield "At least three classified wells are needed to compare wells with each other."
        return
    groups = listed.loc[listed[CLUSTER] > 0, CLUSTER]
    if groups.empty:
        yield "No group of wells stands out from those that the classes explain."
    else:
        sizes = ", ".join(map(str, groups.value_counts().sort_index()))
        yield f"Clusters are groups of wells that stand out and are alike. Number of wells in each cluster: {sizes}."
    if not _has_controls(report):
        yield "No well is marked as a negative control, so the wells of the commonest class stand for them."


def _unexplained_lines(listed: pd.DataFrame) -> PageTable:
    """Return the first wells that no class explains: place, what the layout says of them, how far they are, cluster."""
    told = [name for name in (*TREATMENT_COLUMNS, "label", CONTROL) if name in listed]
    names = [name for name in (PLATE, WELL, *told, UNEXPLAINED, CLUSTER) if name in listed]
    shown = listed[names].head(_MOST_UNEXPLAINED)
    filled = [name for name in names if (shown[name].notna() & (shown[name].astype(str) != "")).any()]
    return page_table(shown[filled].map(_three_digits))


class _PlateSet(NamedTuple):
    """One value on all plates, as the page shows it."""

    heading: str
    legend: str
    pictures: list[tuple[str, str]]


def _plate_sets(report: ScreenReport) -> tuple[list[_PlateSet], str]:
    """Draw plates, value after value, as far as there is room; and say what is left out."""
    wells, sets = report.wells, []
    others = {Blank.MISSING: report.missing, Blank.PENDING: report.planned}
    left = _MOST_BOXES
    most_plates, hidden = None, 0
    for value in well_values(wells, report.classes, _told_apart(report)[:_MOST_CLASSES]):
        maps = plate_maps(wells, value, words=("treatment", "dose", "strain", "label"), others=others)
        if not maps or not any(np.isfinite(plate.values).any() for plate in maps):
            continue
        boxes = maps[0].values.size
        if most_plates is None:
            most_plates = max(1, min(len(maps), left // boxes // 4))
        if left < boxes * min(most_plates, len(maps)):
            hidden += 1
            continue
        scale, shown = colour_scale(value, maps), maps[:most_plates]
        left -= boxes * len(shown)
        pictures = [(plate.name, plate_svg(plate, scale)) for plate in shown]
        sets.append(_PlateSet(value.label, legend_svg(scale, shown), pictures))
    parts = [f"the first {most_plates} of {wells[PLATE].nunique()} plates"] if (
        most_plates and PLATE in wells and most_plates < wells[PLATE].nunique()) else []  # fmt: skip
    parts += [f"{hidden} further values are not drawn"] if hidden else []
    return sets, ("Shown are " + "; ".join(parts) + ". wells.csv has all." if parts else "")


def _told_apart(report: ScreenReport) -> tuple[str, ...]:
    """Return the classes to draw: of two that exclude each other the one that is not the reference, or the second."""
    classes = report.classes
    if len(classes) != 2 or not report.single_label:
        return classes
    reference = None if report.model is None else report.model.card.reference
    return classes[:1] if reference == classes[1] else classes[1:]


def _on_classes_not_looked_for(report: ScreenReport) -> str:
    """Say in how many wells the cells of a class were looked for in no field; "" if there are none."""
    wells = report.wells
    counts = {name: int((wells[CELLS].gt(0) & wells[cells_column(name)].isna()).sum()) for name in report.classes
              if cells_column(name) in wells}  # fmt: skip
    named = [f"{name} in {count} of {len(wells)} wells" for name, count in counts.items() if count]
    return (
        "Cells of a class are looked for in fields that show the class, and a share is that in the cells of these "
        f"fields. In no field were looked for: {', '.join(named)}. With the option present at 0, all are looked "
        "for in all fields."
    ) if named else ""  # fmt: skip


def _without_empty_columns(quality: pd.DataFrame) -> pd.DataFrame:
    """Leave out counts that are 0 on every plate, but for the number that failed."""
    zero = [name for name in quality if name not in (PLATE, "wells", "fields", FAILED) and not quality[name].any()]
    named = quality.rename(columns={"unlike": "unlike training"}) if "unlike" not in zero else quality
    table = named.drop(columns=[name for name in zero if name in named])
    return table.drop(columns=PLATE) if list(table[PLATE]) == [""] else table


def _problem_rows(table: pd.DataFrame, problems: pd.DataFrame) -> list[dict[str, str]]:
    """Return place and reason of the first fields with a problem, the worst kind first."""
    worst = problems[list(PROBLEMS)].to_numpy().argmax(1)
    rows = np.flatnonzero(problems[list(PROBLEMS)].to_numpy().any(1))
    rows = rows[np.argsort(worst[rows], kind="stable")][:_MOST_LISTED]
    names = [name for name in (PLATE, WELL, "site") if name in table and (text_column(table, name) != "").any()]
    return [
        {
            "place": " ".join(text_column(table.iloc[[row]], name).iloc[0] for name in names),
            "problem": ", ".join(name for name in PROBLEMS if problems[name].iloc[row]),
            "reason": problems["reason"].iloc[row],
        }
        for row in rows.tolist()
    ]


class _Hits(NamedTuple):
    """The first hits, as the page shows them, one row for all doses of a treatment; and how many rows there are.

    `of` counts them with all doses of a treatment as one, `doses` each dose by itself.
    """

    lines: PageTable
    texts: int
    of: int
    doses: int


def _hit_lines(hits: pd.DataFrame) -> _Hits:
    """Put the columns of text before those of numbers, of which three digits are shown."""
    every = doses_together(hits)
    shown = every.head(_MOST_LISTED)
    numbers = [str(name) for name in shown if shown[name].dtype.kind in "iuf"]
    texts = [str(name) for name in shown if name not in numbers]
    return _Hits(page_table(shown[[*texts, *numbers]].map(_three_digits)), len(texts), len(every), len(hits))


def _three_digits(value: object) -> str:
    """Write a cell with three digits of a number, and an en dash for a gap."""
    if not isinstance(value, float):
        return str(value)
    return "–" if math.isnan(value) else f"{value:.3g}"


class _Gallery(NamedTuple):
    """The cells of one class, as the page shows them."""

    name: str
    kinds: list[tuple[str, list[tuple[str | None, str, float]]]]


def _galleries(report: ScreenReport) -> list[_Gallery]:
    """Return picture, place and value of the cells of each class."""
    plates = PLATE in report.predictions and report.predictions[PLATE].nunique() > 1

    def shown(name: str, kind: str) -> list[tuple[str | None, str, float]]:
        own = [cell for cell in report.cells if (cell.class_name, cell.kind) == (name, kind)]
        return [(None if one.picture is None else png_uri(one.picture), one.place(plates), one.value) for one in own]

    names = dict.fromkeys(cell.class_name for cell in report.cells)
    return [_Gallery(name, [(kind, shown(name, kind)) for kind in KINDS]) for name in names]


class _Confusion(NamedTuple):
    """Labels of the layout against answers."""

    picture: str | None
    rows: PageTable
    fields: int
    right: float


def _confusion(report: ScreenReport) -> _Confusion | None:
    """Compare the top class of each field with its label, where the layout gives labels that the model knows."""
    images, classes = report.images, report.classes
    if "label" not in images:
        return None
    known = images[[bool(label_set(str(text)) & set(classes)) for text in images["label"].fillna("")]]
    if known.empty:
        return None
    targets = np.array([[float(name in label_set(str(text))) for name in classes] for text in known["label"]])
    scores = known[[score_column(name) for name in classes]].to_numpy(float)
    table = confusion_table(scores, targets, classes, report.single_label)
    right = float(np.mean(targets[np.arange(len(scores)), scores.argmax(1)])) if report.single_label else math.nan
    picture = svg_uri(confusion_figure(table)) if report.single_label else None
    return _Confusion(picture, page_table(table.reset_index()), len(known), right)


def _run_lines(record: Mapping[str, object]) -> list[tuple[str, str]]:
    """Return what was run, as pairs of a name and a text."""
    command, versions = record.get("command"), record.get("versions")
    model = record.get("model")
    facts = {
        "source": record.get("source"),
        "layout": record.get("layout"),
        "began": record.get("began"),
        "device": record.get("device"),
        "model file": model.get("path") if isinstance(model, Mapping) else None,
        "command": " ".join(map(str, command)) if isinstance(command, list | tuple) else None,
        "versions": ", ".join(f"{name} {number}" for name, number in versions.items())
        if isinstance(versions, Mapping) else None,
    }  # fmt: skip
    return [(name, str(text)) for name, text in facts.items() if text]
