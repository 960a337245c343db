"""Treatments that score higher than the negative controls, at a false-discovery rate.

Decisions:

- What is tested is a treatment: wells that agree in treatment, dose and strain. Where a layout says nothing of a well,
  the well itself is tested. Controls and empty wells are not tested.
- Its wells on one plate share the errors of its controls: their median counts, with a p-value of its own. One outlier
  among three does not make a hit. Plates have controls of their own: their p-values are combined by Stouffer's method.
- The false-discovery rate is that of Benjamini & Hochberg 1995, for each class over all treatments of the screen. Wells
  of a plate share their controls and so depend on each other positively, which that method allows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd
from scipy import stats

from napari_milcnn.schema import (
    CONTROL,
    DOSE,
    PLATE,
    TREATMENT_COLUMNS,
    WELL,
    hit_column,
    q_value_column,
    z_column,
)
from napari_milcnn.screens.statistics.controls import p_values
from napari_milcnn.screens.statistics.scores import ssmd_of_treatment

WELLS_OF_TREATMENT, WELL_NAMES = "wells", "in wells"
HIT_DOSES = "hit at doses"
CLASS, Z, SSMD, P_VALUE, Q_VALUE, HIT = "class", "z", "SSMD", "p value", "q value", "hit"
_SMALLEST_P = 1e-100
"""Smaller p-values are clipped, so that several of them can be combined."""


def treatment_keys(wells: pd.DataFrame) -> pd.Series:
    """Return what stands for the treatment of each well; empty for controls, empty wells and wells without values.

    Wells with the same text are replicates.
    """
    known = [name for name in TREATMENT_COLUMNS if name in wells]
    texts = wells[known].astype(object).where(wells[known].notna(), "").astype(str) if known else None
    alone = wells[PLATE].astype(str) + " " + wells[WELL].astype(str)
    if texts is None:
        keys = alone
    else:
        joined = texts.agg("\t".join, axis=1)
        names = [name for name in known if name != "dose"]
        told = (texts[names] != "").any(axis=1) if names else pd.Series(False, wells.index)
        keys = joined.where(told, alone)
    controls = wells[CONTROL].fillna("") != "" if CONTROL in wells else pd.Series(False, wells.index)
    return keys.where(~controls, "")


def treatment_table(
    wells: pd.DataFrame, classes: list[str], rate: float, controls: Mapping[tuple[str, str], tuple[int, float]]
) -> pd.DataFrame:
    """Test each treatment for each class against the negative controls.

    Parameters
    ----------
    wells : DataFrame
        One row per well, with `z CLASS`.
    classes : list of str
        Classes to test.
    rate : float
        False-discovery rate below which a treatment is a hit.
    controls : mapping
        Plate and class -> number of negative controls by which z was measured, and their tail.

    Returns
    -------
    DataFrame
        One row per treatment and class: treatment, dose and strain as the layout has them, class, wells (their number),
        in wells (their names), z (median over wells), SSMD, p value, q value, hit. Sorted by q value; the index is what
        stands for the treatment in `treatment_keys`. A treatment whose wells have no z has gaps and is no hit.
    """
    keys = treatment_keys(wells)
    tested = wells[keys != ""]
    groups = list(tested.groupby(keys[keys != ""], sort=False))
    rows = [_row(group, name, controls) for _, group in groups for name in classes]
    of_row = [key for key, _ in groups for _ in classes]
    found = pd.DataFrame(rows, columns=[*(name for name in TREATMENT_COLUMNS if name in wells), CLASS,
                                        WELLS_OF_TREATMENT, WELL_NAMES, Z, SSMD, P_VALUE])  # fmt: skip
    found[Q_VALUE] = np.nan
    for _, rows_of_class in found.groupby(CLASS):
        known = rows_of_class.index[rows_of_class[P_VALUE].notna()]
        found.loc[known, Q_VALUE] = adjusted(found.loc[known, P_VALUE].to_numpy(float))
    found[HIT] = found[Q_VALUE] <= rate
    return found.set_axis(pd.Index(of_row, dtype=object)).sort_values([Q_VALUE, P_VALUE], kind="stable")


def doses_together(hits: pd.DataFrame) -> pd.DataFrame:
    """Return one row for each treatment, strain and class of a table of hits: that of its surest dose.

    `hit at doses` says at how many doses it is a hit, and from which to which. A table without doses stays as it is.
    """
    names = [name for name in TREATMENT_COLUMNS if name != DOSE and name in hits]
    if not names or DOSE not in hits or not hits[DOSE].notna().any():
        return hits
    texts = hits[names].astype(object).where(hits[names].notna(), "").astype(str)
    alone = pd.Series([str(row) for row in range(len(hits))], hits.index)
    keys = texts.agg("\t".join, axis=1).where((texts != "").any(axis=1), alone) + "\t" + hits[CLASS].astype(str)
    doses = hits.groupby(keys.to_numpy(), sort=False)[DOSE].agg(_doses_in_words)
    first = ~keys.duplicated().to_numpy()
    found = hits[first].drop(columns=DOSE)
    found.insert(list(found).index(CLASS) + 1, HIT_DOSES, doses.loc[keys[first]].to_numpy())
    return found


def _doses_in_words(doses: pd.Series) -> str:
    """Write "3: 0.1 to 10" for three doses, and "10" for one."""
    known = sorted(set(pd.to_numeric(doses, errors="coerce").dropna()))
    if len(known) < 2:
        return "".join(f"{dose:.3g}" for dose in known)
    return f"{len(known)}: {known[0]:.3g} to {known[-1]:.3g}"


def adjusted(p: np.ndarray) -> np.ndarray:
    """Return p-values (tests,) adjusted to the false-discovery rate; none may be NaN."""
    return np.asarray(stats.false_discovery_control(p, method="bh"), float) if len(p) else p


def combined(p: np.ndarray) -> float:
    """Return one p-value from those of several wells (wells,), by Stouffer's method; NaN is left out."""
    known = np.asarray(p, float)
    known = known[np.isfinite(known)].clip(_SMALLEST_P, 1 - 1e-16)
    if not len(known):
        return float("nan")
    return float(known[0]) if len(known) == 1 else float(stats.combine_pvalues(known, method="stouffer").pvalue)


def _row(group: pd.DataFrame, name: str, controls: Mapping[tuple[str, str], tuple[int, float]]) -> dict[str, object]:
    z = group[z_column(name)].to_numpy(float)
    p = [_p_of_plate(z[rows], *controls[str(plate), name])
         for plate, rows in group.groupby(PLATE, sort=False, dropna=False).indices.items()]  # fmt: skip
    known = z[np.isfinite(z)]
    first = {column: group[column].iloc[0] for column in TREATMENT_COLUMNS if column in group}
    places = group[PLATE].astype(str).str.cat(group[WELL].astype(str), sep=" ").str.strip()
    return {
        **first, CLASS: name, WELLS_OF_TREATMENT: len(group), WELL_NAMES: ", ".join(places),
        Z: float(np.median(known)) if len(known) else np.nan, SSMD: ssmd_of_treatment(z),
        P_VALUE: combined(np.array(p)),
    }  # fmt: skip


def _p_of_plate(z: np.ndarray, controls: int, tail: float) -> float:
    """Return the p-value of the wells of a treatment on one plate from their z (wells,); NaN without any."""
    known = z[np.isfinite(z)]
    return float(p_values(np.array([np.median(known)]), controls, len(known), tail)[0]) if len(known) else math.nan


def with_hits(wells: pd.DataFrame, treatments: pd.DataFrame, classes: list[str]) -> pd.DataFrame:
    """Return wells with `q value CLASS` and `hit CLASS` of their treatment; gaps and False for wells not tested."""
    keys = treatment_keys(wells)
    found = wells.copy()
    for name in classes:
        own = treatments[treatments[CLASS] == name]
        found[q_value_column(name)] = keys.map(own[Q_VALUE]).astype(float)
        found[hit_column(name)] = keys.isin(own.index[own[HIT].to_numpy(bool)])
    return found
