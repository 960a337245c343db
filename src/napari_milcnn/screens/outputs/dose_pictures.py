"""Pictures of dose responses: wells, means of doses, and the fitted curve, the clearest responses first."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from functools import partial

import numpy as np
import pandas as pd

from napari_milcnn.evaluation.page import svg_uri
from napari_milcnn.figures.plots import dose_figure
from napari_milcnn.schema import CONTROL, DOSE, PLATE, TREATMENT_COLUMNS
from napari_milcnn.screens.statistics.analyse import FITTED, NOTE
from napari_milcnn.screens.statistics.doses import NO_INTERVAL, hill
from napari_milcnn.screens.statistics.hits import CLASS

_MOST_CURVES, _MOST_WITHOUT = 12, 20
"""Most curves that are drawn, and most treatments that are named because they have none."""


def dose_pictures(wells: pd.DataFrame, doses: pd.DataFrame, most: int = _MOST_CURVES) -> Iterator[tuple[str, str]]:
    """Draw the dose responses with the largest change.

    Parameters
    ----------
    wells : DataFrame
        One row per well, with its scores and the columns of the layout.
    doses : DataFrame
        The curves, as of `statistics.analyse.dose_table`; those without a response are left out.
    most : int
        Number of pictures, at most.

    Yields
    ------
    tuple
        Heading, with EC50 and its interval, and picture (a data URI).
    """
    if not len(doses):
        return
    shown = doses[doses["EC50"].notna()]
    order = (shown["top"] - shown["bottom"]).abs().sort_values(ascending=False, kind="stable").index[:most]
    for row in shown.loc[order].to_dict("records"):
        yield _heading(row), _dose_picture(wells, row)


def doses_in_words(doses: pd.DataFrame) -> list[str]:
    """Say how many dose responses are not drawn, why some have no interval, and which treatments have no response.

    Parameters
    ----------
    doses : DataFrame
        The curves, as of `statistics.analyse.dose_table`.
    """
    if not len(doses):
        return []
    responds, said = doses["EC50"].notna(), []
    if responds.sum() > _MOST_CURVES:
        said.append(f"The {_MOST_CURVES} largest of {responds.sum()} responses are drawn.")
    reasons = doses.loc[responds, NOTE].str.extract(f"({NO_INTERVAL}: .*)")[0].value_counts()
    said += [f"{str(reason).capitalize()} ({count} responses)." for reason, count in reasons.items()]
    names = doses.apply(_treatment, axis=1)
    none = list(dict.fromkeys(names[~names.isin(names[responds])]))
    if none:
        listed = ", ".join([*none[:_MOST_WITHOUT], *(["\N{HORIZONTAL ELLIPSIS}"] if len(none) > _MOST_WITHOUT else [])])
        count = f"{len(none)} of {names.nunique()} treatments"
        said.append(f"No response for any class: {count} ({listed}). doses.csv says why.")
    return said


def _treatment(row: Mapping[Hashable, object]) -> str:
    return " ".join(str(row[name]) for name in TREATMENT_COLUMNS if row.get(name) not in ("", None))


def _heading(row: Mapping[Hashable, object]) -> str:
    low, high = (float(str(row[name])) for name in ("EC50 low", "EC50 high"))
    interval = f" ({_two_digits(low)} to {_two_digits(high)})" if np.isfinite(low) else ""
    note, without, _ = str(row[NOTE]).partition(NO_INTERVAL)  # why is said once for all
    note = f"; {note}{without}" if note or without else ""
    return f"{_treatment(row)}, {row[CLASS]}: EC50 {_two_digits(float(str(row['EC50'])))}{interval}{note}"


def _two_digits(value: float) -> str:
    return f"{float(f'{value:.2g}'):g}"


def _dose_picture(wells: pd.DataFrame, row: Mapping[Hashable, object]) -> str:
    kinds = wells[CONTROL].fillna("") if CONTROL in wells else pd.Series("", wells.index)
    own = (kinds == "") & (pd.to_numeric(wells[DOSE], errors="coerce") > 0)
    for name in TREATMENT_COLUMNS:
        if name in row:
            own &= wells[name] == row[name]
    zero = (kinds == "negative") & wells[PLATE].isin(wells.loc[own, PLATE])
    value = str(row[FITTED])
    points = pd.concat([wells[own], wells[zero].assign(dose=0.0)])[[DOSE, value]]
    points = points.rename(columns={value: "value"}).dropna().assign(compound="")
    means = points.groupby(["compound", DOSE])["value"].agg(mean="mean", spread="std").reset_index()
    bottom, top, ec50, slope = (float(str(row[name])) for name in ("bottom", "top", "EC50", "slope"))
    fitted = partial(hill, bottom=bottom, top=top, log_ec50=np.log10(ec50), slope=slope)
    return svg_uri(dose_figure(points, means, "dose", value, fitted=fitted))
