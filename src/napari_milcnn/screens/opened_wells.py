"""The wells of opened results: of a screen, or of a classification whose images are named by wells."""

from __future__ import annotations

from typing import Final

import numpy as np
import pandas as pd

from napari_milcnn.figures.plates import WellValue, well_values
from napari_milcnn.images.instruments import well_name
from napari_milcnn.results.opened import OpenedResults, wells_of
from napari_milcnn.schema import LAYOUT_COLUMNS, PLATE, WELL
from napari_milcnn.screens.outputs.quality import (
    BLURRED,
    EMPTY,
    FAILED,
    PROBLEMS,
    SATURATED,
    UNLIKE_TRAINING,
    problem_flags,
)
from napari_milcnn.screens.read import OpenedScreen
from napari_milcnn.screens.sources.fields import FIELD_ROW
from napari_milcnn.screens.wells import well_table

QUALITY: Final = "quality"
"""Column with the worst problem that a field of a well has."""
NO_PROBLEM: Final = "no problem"
_QUALITY_VALUE: Final = WellValue(
    "worst problem of a field", QUALITY, "class", (BLURRED, NO_PROBLEM, SATURATED, UNLIKE_TRAINING, EMPTY, FAILED),
    of_cells=False,
)  # fmt: skip
"""The order of its words decides their colours."""
WELL_WORDS: Final = ("treatment", "compound", "dose", "strain", "label", "fields", "cells")
"""Columns that are told of a well under the mouse."""


def places_of_rows(found: OpenedResults) -> pd.DataFrame:
    """Return plate and well of each row of opened results, as text; both are "" where no well is known."""
    table = found.table
    if WELL in table:
        wells = [well_name(str(text)) for text in table[WELL]]
    else:
        wells = ["" if well is None else well.name for well in wells_of(table)]
    plates = table[PLATE].fillna("").astype(str) if PLATE in table else pd.Series("", table.index)
    return pd.DataFrame({PLATE: plates.where(np.array(wells, object) != "", ""), WELL: wells}, table.index)


def wells_of_results(found: OpenedResults) -> pd.DataFrame:
    """Return one row a well of opened results, as of `well_table`, and `quality`: the worst problem of its fields.

    Wells of a screen are compared with their controls. The table is empty if no well is known.
    """
    if isinstance(found, OpenedScreen) and found.compared is not None:
        added = found.table.groupby([PLATE, WELL], sort=False)[[n for n in found.added if n not in found.compared]]
        return with_quality(found.compared.merge(added.first(), on=[PLATE, WELL], how="left"), found.table)
    places = places_of_rows(found)
    placed = found.table.assign(**{PLATE: places[PLATE], WELL: places[WELL]})
    table = placed[(places[WELL] != "").to_numpy()]
    if not len(table):
        return pd.DataFrame(columns=[PLATE, WELL])
    layout = dict.fromkeys([*LAYOUT_COLUMNS, *found.added, *(found.fields if isinstance(found, OpenedScreen) else ())])
    return with_quality(well_table(table, [name for name in layout if name not in FIELD_ROW]), table)


def with_quality(wells: pd.DataFrame, fields: pd.DataFrame) -> pd.DataFrame:
    """Add the worst problem that a field of each well has.

    Parameters
    ----------
    wells : DataFrame
        One row a well: plate, well.
    fields : DataFrame
        One row a field, or plane, as `problems_of_fields` takes it.
    """
    flags = problem_flags(fields)[list(PROBLEMS)].groupby([fields[PLATE], fields[WELL]], sort=False).any()
    worst = np.where(flags.any(axis=1), np.array(PROBLEMS, object)[flags.to_numpy().argmax(1)], NO_PROBLEM)
    quality = pd.DataFrame({QUALITY: worst}, flags.index)
    return wells.drop(columns=QUALITY, errors="ignore").merge(quality, on=[PLATE, WELL], how="left")


def values_of_wells(wells: pd.DataFrame, classes: tuple[str, ...]) -> list[WellValue]:
    """List what a plate can show of the wells of opened results, the most telling first."""
    found = well_values(wells, classes)
    return [*found, _QUALITY_VALUE] if QUALITY in wells else found
