"""Quality control of a screen: which fields failed, are empty, blurred, saturated, or unlike the training images.

All of it comes from what a classification measures anyway (`Prediction.looks`, `unlike`); no image is read again.

How a blurred field is found: its fine detail (`PlaneLook.fine_detail`) depends on the cells, their stain and the lens,
so that no limit holds for all screens. A field is told if it lies far below the other fields of its plate, in every
channel whose detail it has less of: more than `_BLURRED` robust standard deviations of the logarithm, and less than
half of the median. Plates with fewer than `_FEWEST_FIELDS` fields are compared with the whole screen.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import pandas as pd

from napari_milcnn.inference.predict import Prediction
from napari_milcnn.inference.unlike import LEAST_SATURATED
from napari_milcnn.schema import (
    CELLS,
    NO_CLASS,
    PLATE,
    UNLIKE,
    UNLIKE_REASON,
    WELL,
    focus_column,
    measured_channels,
    saturated_column,
)

FAILED, EMPTY, BLURRED, SATURATED, UNLIKE_TRAINING = "failed", "empty", "out of focus", "saturated", "unlike"
PROBLEMS: Final = (FAILED, EMPTY, BLURRED, SATURATED, UNLIKE_TRAINING)
"""What may be wrong with a field, the worst first; a field is counted for each of them."""
_BLURRED: Final = 4.0
"""Robust standard deviations below the median from which a field is out of focus."""
_BLURRED_SHARE: Final = 0.5
"""Share of the median that its fine detail must be below, too: plates may be very even."""
_FEWEST_FIELDS: Final = 8
_LEAST_DETAIL: Final = 1e-5
"""Added to shares of fine detail before their logarithm."""


def quality_columns(prediction: Prediction, channels: Sequence[str]) -> pd.DataFrame:
    """Return one row per plane: `focus CHANNEL` and `saturated CHANNEL`, for the table of fields of a screen.

    Parameters
    ----------
    prediction : Prediction
        Of one image.
    channels : sequence of str
        The channels of the model.
    """
    columns = {}
    for number, channel in enumerate(channels):
        columns[focus_column(channel)] = [look.fine_detail[number] for look in prediction.looks]
        columns[saturated_column(channel)] = [look.saturated[number] for look in prediction.looks]
    return pd.DataFrame(columns, np.arange(len(prediction.looks)), dtype=np.float32)


def problems_of_fields(fields: pd.DataFrame) -> pd.DataFrame:
    """Say what is wrong with each field.

    Parameters
    ----------
    fields : DataFrame
        One row per field, or plane: plate, well, error, top, unlike; `cells` and the columns of `quality_columns` where
        they were measured.

    Returns
    -------
    DataFrame
        One row per row of `fields`, with the same index and a column, bool, for each of `PROBLEMS`; and `reason`: what
        is wrong, in words, or "".
    """
    found = problem_flags(fields)
    found["reason"] = _reasons(fields, found)
    return found


def problem_flags(fields: pd.DataFrame) -> pd.DataFrame:
    """Say which problems each field has, as `problems_of_fields` does, without the reasons."""
    failed = text_column(fields, "error") != ""
    structureless = ~failed & (text_column(fields, "top") == NO_CLASS)
    cells = pd.to_numeric(fields[CELLS], errors="coerce") if CELLS in fields else pd.Series(np.nan, fields.index)
    empty = structureless | (~failed & (cells == 0))
    shown = ~failed & ~structureless
    return pd.DataFrame({
        FAILED: failed, EMPTY: empty, BLURRED: _out_of_focus(fields, shown & ~empty),
        SATURATED: shown & (_saturated(fields) >= LEAST_SATURATED),
        UNLIKE_TRAINING: shown & (_largest_of(fields, [UNLIKE] if UNLIKE in fields else []) > 1),
    })  # fmt: skip


def _saturated(fields: pd.DataFrame) -> pd.Series:
    """Return the largest share of pixels at the maximum over the channels."""
    names = map(saturated_column, measured_channels(fields))
    return _largest_of(fields, [name for name in names if name in fields])


def text_column(table: pd.DataFrame, name: str) -> pd.Series:
    """Return a column as text; a column that is not there is empty."""
    if name not in table:
        return pd.Series("", table.index)
    return table[name].fillna("").astype(str)


def _largest_of(table: pd.DataFrame, names: Sequence[str]) -> pd.Series:
    """Return the largest value of each row in some columns; NaN without any."""
    if not names:
        return pd.Series(np.nan, table.index)
    largest: pd.Series = table[list(names)].apply(pd.to_numeric, errors="coerce").max(axis=1)
    return largest


def _out_of_focus(fields: pd.DataFrame, shown: pd.Series) -> pd.Series:
    """Whether a field has far less fine detail than the other fields of its plate."""
    found = pd.Series(False, fields.index)
    plates = text_column(fields, PLATE)
    for channel in measured_channels(fields):
        detail = pd.to_numeric(fields[focus_column(channel)], errors="coerce").where(shown)
        logs = np.log(detail + _LEAST_DETAIL)
        for _, own in logs.groupby(plates):
            others = own if own.notna().sum() >= _FEWEST_FIELDS else logs
            if others.notna().sum() >= _FEWEST_FIELDS:
                middle = float(others.median())
                spread = max(1.4826 * float((others - middle).abs().median()), 1e-9)
                low = (own < middle - _BLURRED * spread) & (own < middle + np.log(_BLURRED_SHARE))
                found[own.index] |= low
    return found


def _reasons(fields: pd.DataFrame, found: pd.DataFrame) -> pd.Series:
    """Say in words what is wrong with each field; only those with a problem are looked at one by one."""
    reasons, saturated = pd.Series("", fields.index), _saturated(fields)
    errors, unlike = text_column(fields, "error"), text_column(fields, UNLIKE_REASON)
    for row in found.index[found[list(PROBLEMS)].any(axis=1)]:
        known = found.loc[row]
        words = [
            errors[row] if known[FAILED] else "",
            "no cells found" if known[EMPTY] and not unlike[row] else "",
            "much less fine detail than the other fields of its plate" if known[BLURRED] else "",
            f"{100 * saturated[row]:.2g} % of its pixels are at the maximum" if known[SATURATED] else "",
            unlike[row],
        ]
        reasons[row] = "; ".join(word for word in words if word)
    return reasons


def quality_of_plates(fields: pd.DataFrame, missing: pd.DataFrame | None = None) -> pd.DataFrame:
    """Count fields and problems on each plate.

    Parameters
    ----------
    fields : DataFrame
        As `problems_of_fields` takes it.
    missing : DataFrame, optional
        Fields and wells that are named but are not there: plate, well.

    Returns
    -------
    DataFrame
        One row per plate: plate, wells, fields, missing, and a column for each of `PROBLEMS`: the number of fields.
    """
    keys = text_column(fields, PLATE)
    of_field = keys.index.to_series() if "name" not in fields else text_column(fields, "name")
    each = problems_of_fields(fields)[list(PROBLEMS)].groupby([keys, of_field], sort=False).any()
    counts = each.groupby(level=0, sort=False).sum().astype(int)
    counts.insert(0, "wells", text_column(fields, WELL).groupby(keys, sort=False).nunique())
    counts.insert(1, "fields", each.groupby(level=0, sort=False).size())
    gone = text_column(missing, PLATE).value_counts() if missing is not None else pd.Series(dtype=int)
    counts = counts.reindex([*counts.index, *(name for name in gone.index if name not in counts.index)], fill_value=0)
    counts.insert(2, "missing", gone.reindex(counts.index, fill_value=0).astype(int))
    return counts.rename_axis(PLATE).reset_index()
