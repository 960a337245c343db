"""Everything that the scores of the wells of a screen say: against controls, plate by plate, and over treatments.

`analyse_wells` is one function from a table of wells to tables; it reads and writes no files. What could not be
computed, and why, stands in the column `note` of the table of plates and in `notes`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from napari_milcnn.errors import OptionsError
from napari_milcnn.images.instruments import parse_well, plate_shape
from napari_milcnn.options import StatisticsOptions
from napari_milcnn.results.opened import label_set
from napari_milcnn.schema import (
    CONTROL,
    DOSE,
    PLATE,
    TREATMENT_COLUMNS,
    WELL,
    bag_score_column,
    mean_column,
    p_value_column,
    score_column,
    z_column,
)
from napari_milcnn.screens.features import FEWEST_TO_SPHERE
from napari_milcnn.screens.statistics.controls import (
    ControlScale,
    control_scale,
    log_odds,
    p_values,
    robust_z,
)
from napari_milcnn.screens.statistics.doses import FEWEST_DOSES, NO_RESPONSE, DoseCurve, fit_doses
from napari_milcnn.screens.statistics.hits import (
    CLASS,
    Q_VALUE,
    adjusted,
    treatment_keys,
    treatment_table,
    with_hits,
)
from napari_milcnn.screens.statistics.plate_effects import place_effects, polished_effects
from napari_milcnn.screens.statistics.replicates import TREATMENT_KEY, replicate_table
from napari_milcnn.screens.statistics.scores import ssmd, z_prime
from napari_milcnn.screens.wells import classes_of_wells, well_scores

NOTE, FITTED, TAIL = "note", "fitted", "tail of negative controls"
_EDGE_LEVEL = 0.01
_LEAST_CHANGE = 0.05
"""Change of the score of wells, from 0 to 1, below which a dose response means nothing, however sure it is."""


@dataclass(frozen=True)
class ScreenStatistics:
    """What the scores of wells say.

    Attributes
    ----------
    wells : DataFrame
        The wells with `z CLASS`, `p value CLASS`, `q value CLASS` and `hit CLASS`.
    plates : DataFrame
        A row for each plate and class: numbers of negative and positive controls with a value, Z' and SSMD of
        their log-odds, effects of edge, rows and columns on log-odds with their p-values, and why there is no z.
    treatments : DataFrame
        A row for each treatment and class, the surest hits first, as of `treatment_table`; with the agreement of
        replicates, where there are three classes or more.
    doses : DataFrame
        A row for each treatment or strain with several doses and each class: the curve, its intervals, or why there is
        none.
    notes : tuple of str
        Sentences on what could not be computed.
    """

    wells: pd.DataFrame
    plates: pd.DataFrame
    treatments: pd.DataFrame
    doses: pd.DataFrame
    notes: tuple[str, ...]


def analyse_wells(wells: pd.DataFrame, options: StatisticsOptions) -> ScreenStatistics:
    """Compare the wells of a screen with their controls.

    Parameters
    ----------
    wells : DataFrame
        One row per well, as of `well_table`, with the columns of the layout; `bag score CLASS` where bags are asked
        for.
    options : StatisticsOptions
        How.

    Raises
    ------
    OptionsError
        If the wells have no scores of the kind that the options ask for.
    """
    wells = wells.reset_index(drop=True)
    classes = classes_of_wells(wells)
    found, plates = against_controls(wells, options)
    treatments = treatment_table(found, classes, options.false_discovery_rate, control_counts(plates))
    found = with_hits(found, treatments, classes)
    treatments = _with_replicates(found, treatments, classes, _kinds(wells))
    notes = (*_notes(plates), *_notes_on_doses(wells, options), *_note_on_sphering(wells, options))
    return ScreenStatistics(found, plates, treatments, dose_table(wells, classes, options), notes)


def against_controls(wells: pd.DataFrame, options: StatisticsOptions) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Compare wells with the negative controls of their plate, as many as there are yet.

    Parameters
    ----------
    wells, options
        As of `analyse_wells`.

    Returns
    -------
    wells : DataFrame
        The wells with `z CLASS` and `p value CLASS`.
    plates : DataFrame
        As of `ScreenStatistics`.

    Raises
    ------
    OptionsError
        As `analyse_wells` does.
    """
    found, rows, kinds = wells.reset_index(drop=True), [], _kinds(wells.reset_index(drop=True))
    places = found.groupby(PLATE, sort=False, dropna=False).indices
    for name in classes_of_wells(wells):
        values = log_odds(well_scores(wells, _value_column(wells, name, options.well_score)))
        z, p = np.full(len(wells), np.nan), np.full(len(wells), np.nan)
        for plate, index in places.items():
            row, z[index], p[index] = _of_plate(values[index], found.iloc[index], kinds.iloc[index], name, options)
            rows.append({PLATE: plate, CLASS: name, **row})
        found = found.assign(**{z_column(name): z, p_value_column(name): p})
    return found, pd.DataFrame(rows)


def _kinds(wells: pd.DataFrame) -> pd.Series:
    return wells[CONTROL].fillna("") if CONTROL in wells else pd.Series("", wells.index)


def _notes_on_doses(wells: pd.DataFrame, options: StatisticsOptions) -> Iterator[str]:
    """Say which doses are not fitted, and what the curves do not take into account."""
    if DOSE not in wells:
        return
    doses = pd.to_numeric(wells[DOSE], errors="coerce")
    below = int((doses < 0).sum())
    if below:
        yield (f"{below} wells have a dose below 0 and are in no dose response; give concentrations, not their "
               "logarithms")  # fmt: skip
    if options.remove_plate_effects:
        yield "Dose responses are fitted to scores from which the effects of rows and columns are not removed."


def _note_on_sphering(wells: pd.DataFrame, options: StatisticsOptions) -> Iterator[str]:
    controls = int((_kinds(wells) == "negative").sum())
    if options.sphere_features and controls < FEWEST_TO_SPHERE:
        yield (f"The features of wells are not sphered: the screen has {controls} negative controls; expected at least "
               f"{FEWEST_TO_SPHERE}.")  # fmt: skip


def control_counts(plates: pd.DataFrame) -> dict[tuple[str, str], tuple[int, float]]:
    """Return number and tail (`ControlScale.tail`) of the negative controls of each plate and class."""
    return {(str(row[PLATE]), row[CLASS]): (int(row["negative controls"]), float(row[TAIL]))
            for row in plates.to_dict("records")}  # fmt: skip


def _value_column(wells: pd.DataFrame, name: str, which: str) -> str:
    column = {"median": score_column(name), "mean": mean_column(score_column(name)), "bag": bag_score_column(name)}
    if column[which] not in wells:
        raise OptionsError(f"well_score is {which!r}, but the wells have no column {column[which]!r}; choose another")
    return column[which]


def _of_plate(
    values: np.ndarray, wells: pd.DataFrame, kinds: pd.Series, name: str, options: StatisticsOptions
) -> tuple[dict[str, object], np.ndarray, np.ndarray]:
    """Return the row of a plate and class, and z and p of its wells."""
    negative, positive = (kinds == "negative").to_numpy(), _positive_controls(wells, kinds, name)
    places = [parse_well(str(well)) for well in wells[WELL]]
    facts: dict[str, object] = {}
    if all(place is not None for place in places) and len(places):
        at = np.array(places)
        grid = np.full(plate_shape([place for place in places if place is not None]), np.nan)
        measured = (kinds == "").to_numpy()
        grid[at[measured, 0], at[measured, 1]] = values[measured]
        facts = dict(zip(("edge effect", "edge p value", "row spread", "row p value", "column spread",
                          "column p value"), place_effects(grid), strict=True))  # fmt: skip
        if options.remove_plate_effects:
            values = values - polished_effects(grid)[at[:, 0], at[:, 1]]
    scale = control_scale(values[negative])
    row = _controls(values, negative, positive, scale) | facts | {NOTE: scale.problem}
    z = robust_z(values, scale)
    return row, z, p_values(z, scale.count, tail=scale.tail)


def _positive_controls(wells: pd.DataFrame, kinds: pd.Series, name: str) -> np.ndarray:
    """Return the positive controls of a class: those with its label, or all of them where none has a label."""
    positive = (kinds == "positive").to_numpy()
    if "label" not in wells:
        return positive
    labels = wells["label"].fillna("").astype(str)
    if not (labels[positive] != "").any():
        return positive
    labelled = np.array([name in label_set(text) for text in labels], bool)
    return np.asarray(positive & labelled)


def _controls(
    values: np.ndarray, negative: np.ndarray, positive: np.ndarray, scale: ControlScale
) -> dict[str, object]:  # fmt: skip
    return {
        "negative controls": scale.count, TAIL: math.nan if scale.problem else scale.tail,
        "positive controls": int(np.isfinite(values[positive]).sum()),
        "Z'": z_prime(values[positive], values[negative]), "SSMD": ssmd(values[positive], values[negative]),
    }  # fmt: skip


def _with_replicates(
    wells: pd.DataFrame, treatments: pd.DataFrame, classes: Sequence[str], kinds: pd.Series
) -> pd.DataFrame:
    profiles = wells[[z_column(name) for name in classes]].to_numpy(float)
    keys = treatment_keys(wells).to_numpy(object)
    table = replicate_table(profiles, keys, (kinds == "negative").to_numpy())
    if not len(table):
        return treatments.reset_index(drop=True)
    agreement = table.set_index(TREATMENT_KEY).drop(columns="replicates")
    return treatments.join(agreement).reset_index(drop=True)


def dose_table(wells: pd.DataFrame, classes: Sequence[str], options: StatisticsOptions) -> pd.DataFrame:
    """Fit a dose response to each treatment or strain that has several doses, for each class.

    The negative controls of its plates are its dose 0. Scores of wells are fitted as they are, from 0 to 1. The
    p-values of all curves together are adjusted to the false-discovery rate, above which there is no response.
    """
    names = [name for name in TREATMENT_COLUMNS if name != DOSE and name in wells]
    if DOSE not in wells or not names:
        return pd.DataFrame()
    kinds = _kinds(wells)
    doses = pd.to_numeric(wells[DOSE], errors="coerce")
    texts = wells[names].astype(object).where(wells[names].notna(), "")
    tested = (kinds == "") & (texts != "").any(axis=1) & (doses > 0)
    rows: list[dict[str, object]] = []
    curves: list[DoseCurve] = []
    for key, own in wells[tested].groupby([texts.loc[tested, name] for name in names], sort=False):
        if doses[own.index].nunique() < FEWEST_DOSES:
            continue
        zero = wells[(kinds == "negative") & wells[PLATE].isin(own[PLATE])]
        dose = np.concatenate([doses[own.index].to_numpy(float), np.zeros(len(zero))])
        for name in classes:
            column = _value_column(wells, name, options.well_score)
            value = np.concatenate([well_scores(own, column), well_scores(zero, column)])
            curves.append(fit_doses(dose, value, limits=(0.0, 1.0), least_change=_LEAST_CHANGE))
            rows.append(dict(zip(names, key, strict=True)) | {CLASS: name, FITTED: column})
    p = np.array([curve.p_value for curve in curves])
    q = np.full(len(p), np.nan)
    q[np.isfinite(p)] = adjusted(p[np.isfinite(p)])
    sure = [curve if not curve.has_response or of_all <= options.false_discovery_rate
            else curve.without_response(NO_RESPONSE) for curve, of_all in zip(curves, q, strict=True)]  # fmt: skip
    return pd.DataFrame([row | _curve_row(*found) for row, *found in zip(rows, sure, q.tolist(), strict=True)])


def _curve_row(curve: DoseCurve, q_value: float) -> dict[str, object]:
    return {
        "wells": curve.wells, "doses": curve.doses, "bottom": curve.bottom, "top": curve.top, "EC50": curve.ec50,
        "EC50 low": curve.ec50_interval[0], "EC50 high": curve.ec50_interval[1], "top low": curve.top_interval[0],
        "top high": curve.top_interval[1], "slope": curve.slope, "p value": curve.p_value, Q_VALUE: q_value,
        NOTE: curve.problem,
    }  # fmt: skip


def edge_sentences(plates: pd.DataFrame) -> list[str]:
    """Say on which plates, and for which classes, the outermost wells differ from the others."""
    if "edge p value" not in plates:
        return []
    tested = plates[plates["edge p value"].notna()]
    sure = tested[adjusted(tested["edge p value"].to_numpy(float)) < _EDGE_LEVEL]
    return [
        f"Plate {row[PLATE]}: wells at the edge score {'higher' if row['edge effect'] > 0 else 'lower'} for "
        f"{row[CLASS]} than the others, by {abs(row['edge effect']):.2g} in log-odds; the option remove_plate_effects "
        "removes such effects"
        for row in sure.to_dict("records")
    ]


def _notes(plates: pd.DataFrame) -> list[str]:
    """Say for which plates and classes there is no z, and why; each reason once."""
    if not len(plates):
        return []
    found = []
    for reason, rows in plates[plates[NOTE] != ""].groupby(NOTE, sort=False):
        names, count = list(rows[PLATE].unique()), plates[PLATE].nunique()
        where = "any plate" if len(names) == count else f"{len(names)} of {count} plates, such as {names[0]}"
        which = "" if rows[CLASS].nunique() == plates[CLASS].nunique() else f" for {', '.join(rows[CLASS].unique())}"
        found.append(f"There are no z scores, p-values or hits on {where}{which}: {reason}")
    return found
