"""Features of wells: the encoder's, of all instances of a well together, standardised by controls, as a table.

They are what the network computes anyway while it classifies a field: mean and standard deviation of each feature of
the encoder over the class map. Those of a well are of all instances of all its fields, as if these were one image.

features.parquet has a row for each well that was classified: plate, well, the columns of the layout, `instances`, the
score and P of the well as one bag, `standardised by`, and feature_000, feature_001 ... (the first half are means, the
second half standard deviations). As AnnData::

    table = pd.read_parquet("features.parquet").set_index(["plate", "well"], drop=False)
    table.index = ["_".join(place) for place in table.index]
    features = table.filter(regex="^feature_")
    wells = anndata.AnnData(features, obs=table.drop(columns=features.columns))

Standardised means: less the median of the negative controls of the same plate, over their spread, which is the median
absolute deviation from these medians over the negative controls of all plates, since a plate may have few. A plate
without negative controls, in a screen that has some elsewhere, is compared with its own wells; so are all plates of a
screen without any. `standardised by` says which.

Sphering, which the user may ask for, makes the negative controls vary as much in each direction of the features, too,
so that what varies without a treatment weighs no more than the rest (typical variation normalisation: Ando, McLean and
Berndl 2017).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd

from napari_milcnn.atomic_write import replacing
from napari_milcnn.inference.predict import Bags, pool_bags
from napari_milcnn.model.trained_model import TrainedModel
from napari_milcnn.results.opened import read_parquet
from napari_milcnn.schema import (
    CONTROL,
    FIELD_COLUMNS,
    INSTANCES,
    PLATE,
    WELL,
    bag_pooled_column,
    bag_score_column,
    is_bag,
)

WELL_PART: Final = "well.parquet"
"""File of a part with the one row of its well."""
FEATURES: Final = "features.parquet"
STANDARDISED_BY: Final = "standardised by"
BY_CONTROLS, BY_WELLS = "negative controls of the plate", "all wells of the plate"
SPHERED = "negative controls of the plate, sphered"
_FEATURE = "feature_"
_OF_EVERY_PART: Final = {
    WELL_PART: (PLATE, WELL), "predictions.parquet": (*FIELD_COLUMNS, "file", "name", "error"),
}  # fmt: skip
"""File of a part -> columns that it has at least; other files have those of cells."""
SIGMA_OF_MAD = 1.4826
"""Standard deviation of Gaussian values whose median absolute deviation is 1."""
_LEAST_SPREAD = 0.1
"""Least spread of a feature, in that of the typical one: a feature that controls hardly have would outweigh others."""
_FEWEST_CONTROLS = 2
FEWEST_TO_SPHERE = 10
"""Fewest negative controls, of all plates, by which features are sphered."""
Reader = Callable[[Path], pd.DataFrame]
"""Reads a Parquet file."""


def feature_names(table: pd.DataFrame) -> list[str]:
    """Return the columns of features of a table, in order."""
    return [str(name) for name in table if str(name).startswith(_FEATURE)]


def joined_features(bags: Bags) -> np.ndarray:
    """Return mean, then standard deviation, of each feature over the instances of all planes, (2 * features,)."""
    share = bags.instances[:, None] / bags.instances.sum()
    mean, spread = np.split(bags.features.astype(float), 2, axis=1)
    middle = (share * mean).sum(0)
    return np.concatenate([middle, np.sqrt((share * (spread**2 + (mean - middle) ** 2)).sum(0))])


def well_row(model: TrainedModel, plate: str, well: str, bags: Bags) -> pd.DataFrame:
    """Return the row of a well: its instances, score and P of all of them in one bag, and its features.

    Parameters
    ----------
    model : TrainedModel
        The model by which the fields were classified.
    plate, well : str
        Which well.
    bags : Bags
        All planes of all its fields that were classified.
    """
    found = pool_bags(model, bags)
    row: dict[str, object] = {PLATE: plate, WELL: well, INSTANCES: found.instances}
    row |= {bag_score_column(name): float(one) for name, one in zip(found.classes, found.scores, strict=True)}
    row |= {bag_pooled_column(name): float(one) for name, one in zip(found.classes, found.probabilities, strict=True)}
    values = joined_features(bags).astype(np.float32)
    return pd.DataFrame([row | {f"{_FEATURE}{number:03}": one for number, one in enumerate(values)}])


def read_part_table(path: Path) -> pd.DataFrame:
    """Read a table of a part.

    Raises
    ------
    ResultsError
        If it is damaged.
    """
    needed = _OF_EVERY_PART.get(path.name, (*FIELD_COLUMNS, "file"))
    return read_parquet(path, needed, "remove the folder in which it lies, and go on with resume (command line: "
                                      "--resume)")  # fmt: skip


def read_well_rows(parts: Iterable[Path], read: Reader = read_part_table) -> pd.DataFrame:
    """Read the rows of the wells of some parts; wells of which no field was classified have none."""
    rows = [read(part / WELL_PART) for part in parts if (part / WELL_PART).is_file()]
    return pd.concat(rows, ignore_index=True) if rows else pd.DataFrame(columns=[PLATE, WELL])


def bags_of_wells(rows: pd.DataFrame) -> pd.DataFrame:
    """Return plate, well, and the score and P of each well as one bag."""
    return rows[[PLATE, WELL, *(name for name in rows if is_bag(name))]]


def standardised(table: pd.DataFrame) -> pd.DataFrame:
    """Standardise the features of wells as the head of this module says.

    Parameters
    ----------
    table : DataFrame
        A row a well: plate, features and, where known, control.

    Returns
    -------
    DataFrame
        The same with other features and the column `standardised by`.
    """
    names = feature_names(table)
    values = table[names].to_numpy(float)
    known = table[CONTROL] == "negative" if CONTROL in table else pd.Series(False, table.index)
    negative = known.to_numpy(bool)
    centred, by = values.copy(), np.full(len(table), BY_WELLS, object)
    chosen = np.ones(len(table), bool)
    plates = table[PLATE].to_numpy()
    for plate in table[PLATE].unique():
        rows = np.flatnonzero(plates == plate)
        own = rows[negative[rows]]
        has_controls = len(own) >= _FEWEST_CONTROLS
        centred[rows] -= np.median(values[own if has_controls else rows], 0)
        if has_controls:
            by[rows] = BY_CONTROLS
            chosen[rows] = negative[rows]
    if (by == BY_CONTROLS).any():
        chosen &= negative
    spread = SIGMA_OF_MAD * np.median(np.abs(centred[chosen]), 0) if chosen.any() else np.ones(len(names))
    least = _LEAST_SPREAD * np.median(spread[spread > 0]) if (spread > 0).any() else 1.0
    others = table.drop(columns=names).assign(**{STANDARDISED_BY: by})
    found = pd.DataFrame(centred / np.maximum(spread, least), table.index, names, np.float32)
    return pd.concat([others, found], axis=1)


def sphered(table: pd.DataFrame) -> pd.DataFrame:
    """Whiten standardised features by the covariance of the negative controls, shrunk after Ledoit and Wolf.

    Of all ways to whiten it is the one whose features stay nearest to those that they were (ZCA: Kessy, Lewin and
    Strimmer 2018), so that each keeps its name. Nothing is done where there are fewer negative controls than ten.

    Parameters
    ----------
    table : DataFrame
        As of `standardised`.
    """
    from sklearn.covariance import LedoitWolf

    names = feature_names(table)
    by_controls = (table[STANDARDISED_BY] == BY_CONTROLS).to_numpy()
    controls = table.loc[by_controls & (table[CONTROL] == "negative"), names] if by_controls.any() else table[:0]
    if len(controls) < FEWEST_TO_SPHERE:
        return table
    variances, directions = np.linalg.eigh(LedoitWolf(assume_centered=True).fit(controls.to_numpy(float)).covariance_)
    white = table[names].to_numpy(float) @ (directions / np.sqrt(variances)) @ directions.T
    by = np.where(by_controls, SPHERED, table[STANDARDISED_BY])
    return table.assign(**{STANDARDISED_BY: by}, **dict(zip(names, white.T.astype(np.float32), strict=True)))


def features_of_wells(rows: pd.DataFrame, layout: pd.DataFrame, *, sphere: bool) -> pd.DataFrame:
    """Return the standardised features of wells, as features.parquet has them.

    Parameters
    ----------
    rows : DataFrame
        As of `read_well_rows`.
    layout : DataFrame
        A row a well: plate, well, and what it was given.
    sphere : bool
        Whether they are sphered.
    """
    own = [name for name in rows if name not in (PLATE, WELL)]
    layout = layout.rename(columns={name: f"{name} of layout" for name in own if name in layout})
    table = rows.merge(layout, on=[PLATE, WELL], how="left")
    others = [name for name in layout if name not in (PLATE, WELL)]
    found = standardised(table[[PLATE, WELL, *others, *own]])
    return sphered(found) if sphere else found


def write_features(folder: Path, rows: pd.DataFrame, layout: pd.DataFrame, *, sphere: bool) -> pd.DataFrame:
    """Write what `features_of_wells` returns into the folder of a screen, and return it.

    Raises
    ------
    OutputError
        If the table cannot be written.
    """
    found = features_of_wells(rows, layout, sphere=sphere)
    with replacing(folder / FEATURES) as draft:
        found.to_parquet(draft, index=False)
    return found
