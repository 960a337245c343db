"""One row for each well, from the rows of its fields.

Decisions:

- A field counts once: of a field with several planes the mean of the scores counts, and the highest `unlike`.
- `score CLASS` and `P CLASS` of a well are medians over its fields, as the paper's score of a treatment is, and one bad
  field does not decide; `mean score CLASS` and `mean P CLASS` stand beside them.
- A field that failed has no values, but it is counted. A well whose fields all failed keeps its row, with gaps.
- A field is empty if no plane of it shows anything to classify. A well of empty fields has no top class; its scores are
  there, but they are scores of nothing.
- Cells of a class are looked for where a plane shows the class, unless its threshold is known beforehand
  (`PlaneMasks.counts`). 0 means that they were looked for and none was found. Where they were looked for in no field,
  there is no number, and `not looked for` says so: "round (4 of 4 fields)".
- A share is that of all cells of the fields in which the class was looked for, together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from napari_milcnn.schema import (
    CELLS,
    EMPTY_FIELDS,
    ERROR_COLUMN,
    FAILED_FIELDS,
    FIELDS_OF_WELL,
    LAYOUT_COLUMNS,
    NO_CLASS,
    NOT_LOOKED_FOR,
    PLATE,
    TOP,
    UNLIKE,
    UNLIKE_FIELDS,
    UNLIKE_REASON,
    WELL,
    cells_column,
    class_of,
    counted_classes,
    is_count,
    is_pooled,
    is_score,
    mean_column,
    share_column,
)

_KEYS = [PLATE, WELL]


def well_table(fields: pd.DataFrame, layout: Sequence[str] = LAYOUT_COLUMNS) -> pd.DataFrame:
    """Return one row per well of a screen.

    Parameters
    ----------
    fields : DataFrame
        One row per plane that was classified and per field that failed: plate, well, site or file, error, the columns
        of predictions.csv, and those of the layout.
    layout : sequence of str
        Names of the columns of the layout; those that are not there are left out.

    Returns
    -------
    DataFrame
        plate, well, the columns of the layout, top, `score CLASS` and `P CLASS` (median over fields), `mean score
        CLASS` and `mean P CLASS`, cells, `cells CLASS` and `share CLASS` of all cells of the well, not looked for,
        unlike (median over fields), its reason, fields, failed fields, empty fields and unlike fields. Of the layout
        the first value in each well counts. Rows are in the order in which wells first appear.
    """
    table = fields.reset_index(drop=True)
    keys = [*_KEYS, *(name for name in ("site", "file") if name in table)]
    grouped = table.groupby(keys, sort=False, dropna=False)
    averaged = [str(name) for name in table if is_score(name) or is_pooled(name)]
    counts = [str(name) for name in table if is_count(name) and not str(name).startswith("share ")]
    each = grouped[averaged].mean().join(grouped[counts].sum(min_count=1))
    failed = table[ERROR_COLUMN].fillna("") != "" if ERROR_COLUMN in table else pd.Series(False, table.index)
    of_field = [table[name] for name in keys]
    each["_failed"] = failed.groupby(of_field, sort=False, dropna=False).any().to_numpy()
    shows = (table[TOP].fillna("") != NO_CLASS) if TOP in table else pd.Series(True, table.index)
    each["_empty"] = ~(failed | shows).groupby(of_field, sort=False, dropna=False).any().to_numpy()
    if UNLIKE in table:
        each[UNLIKE] = grouped[UNLIKE].max()
    wells = each.groupby(_KEYS, sort=False, dropna=False)
    found = wells[averaged].median().join(wells[averaged].mean().rename(columns=mean_column))
    found.insert(0, TOP, _tops(found))
    found = found.join(wells[counts].sum(min_count=1)).join(_class_shares(table, of_field)).join(_unlike(table, wells))
    found[FIELDS_OF_WELL] = wells.size()
    found[FAILED_FIELDS], found[EMPTY_FIELDS] = (wells[name].sum().astype(int) for name in ("_failed", "_empty"))
    shows_nothing = (found[EMPTY_FIELDS] > 0) & (found[EMPTY_FIELDS] + found[FAILED_FIELDS] == found[FIELDS_OF_WELL])
    found.loc[shows_nothing, TOP] = NO_CLASS
    return _layout(table, layout).join(found).reset_index()


def _tops(found: pd.DataFrame) -> list[str]:
    scores = [str(name) for name in found if is_score(name)]
    classes = [class_of(name) for name in scores]
    return [classes[int(np.nanargmax(row))] if np.isfinite(row).any() else NO_CLASS
            for row in found[scores].to_numpy(float)] if scores else [NO_CLASS] * len(found)  # fmt: skip


def _class_shares(table: pd.DataFrame, of_field: list[pd.Series]) -> pd.DataFrame:
    """Return the share of each class in the cells of each well, and in which fields its cells were not looked for."""
    classes = counted_classes(table)
    own = table[[cells_column(name) for name in classes]]  # a class may be called cells, or well
    of_all = table[[CELLS] * len(classes)].set_axis(own.columns, axis=1).where(own.notna())
    of_well = [table[name] for name in _KEYS]
    count, total = (one.groupby(of_well, sort=False, dropna=False).sum() for one in (own, of_all))
    found = (count / total.where(total > 0)).set_axis([share_column(name) for name in classes], axis=1)
    if not classes:
        return found
    seen = of_all.assign(**{CELLS: table[CELLS]}).notna().groupby(of_field, sort=False, dropna=False).any()
    fields = seen.groupby(_KEYS, sort=False, dropna=False).sum()
    texts = [[f"{name} ({row[CELLS] - row[column]} of {row[CELLS]} fields)"
              for name, column in zip(classes, own, strict=True) if row[column] < row[CELLS]]
             for row in fields.to_dict("records")]  # fmt: skip
    return found.assign(**{NOT_LOOKED_FOR: [", ".join(one) for one in texts]})


def _unlike(table: pd.DataFrame, wells: Any) -> pd.DataFrame:
    """Return how unlike the training images each well is, why, and how many of its fields are."""
    if UNLIKE not in table:
        return pd.DataFrame(index=wells.size().index)
    above = (wells.obj[UNLIKE] > 1).groupby(_KEYS, sort=False, dropna=False).sum().astype(int)
    found = pd.DataFrame({UNLIKE: wells[UNLIKE].median(), UNLIKE_FIELDS: above})
    if UNLIKE_REASON in table:
        given = table[(table[UNLIKE] > 1) & (table[UNLIKE_REASON].fillna("") != "")]
        counts = given.groupby([*_KEYS, UNLIKE_REASON], dropna=False).size().rename("count").reset_index()
        first = counts.sort_values(["count", UNLIKE_REASON], ascending=[False, True]).drop_duplicates(_KEYS)
        reasons = first.set_index(_KEYS)[UNLIKE_REASON]
        found.insert(1, UNLIKE_REASON, reasons.reindex(found.index).fillna(""))
    return found


def _layout(table: pd.DataFrame, layout: Sequence[str]) -> pd.DataFrame:
    """Return the columns of the layout, one row per well."""
    names = [name for name in layout if name in table and name not in _KEYS]
    first = table.drop_duplicates(_KEYS).set_index(_KEYS)
    return first[names]


def classes_of_wells(wells: pd.DataFrame) -> list[str]:
    """Return the classes whose scores a table of wells has."""
    return [class_of(str(name)) for name in wells if is_score(name)]


def well_scores(wells: pd.DataFrame, column: str) -> np.ndarray:
    """Return the values of a column of wells as numbers, float64 (wells,); NaN where there are none."""
    return pd.to_numeric(wells[column], errors="coerce").to_numpy(float, na_value=np.nan)
