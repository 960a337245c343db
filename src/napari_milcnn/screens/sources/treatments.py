"""Tables of treatments: what is known of each compound, dose or strain, such as its mechanism, joined to its wells.

The mechanisms of BBBC021 are such a table: compound, concentration, moa. It names no wells; what was in each well is
known already, from the table of images.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from napari_milcnn.errors import LabelsError
from napari_milcnn.schema import TREATMENT_COLUMNS
from napari_milcnn.screens.sources.fields import FIELD_ROW
from napari_milcnn.screens.sources.spelling import names_of_one_side


def treatment_keys_of(table: pd.DataFrame, fields: pd.DataFrame) -> list[str]:
    """Return the columns by which a table of treatments is joined to fields; none if it is no such table."""
    keys = [name for name in TREATMENT_COLUMNS if name in table and name in fields]
    return keys if {"treatment", "strain"}.intersection(keys) else []


def with_table_of_treatments(
    fields: pd.DataFrame, table: pd.DataFrame, keys: list[str], path: Path
) -> tuple[pd.DataFrame, list[str]]:
    """Add the columns of a table of treatments to the fields of each treatment.

    Parameters
    ----------
    fields : DataFrame
        Fields with what their wells were given.
    table : DataFrame
        The table, with columns as `with_known_columns` names them. Rows that are equal count once.
    keys : list of str
        As of `treatment_keys_of`.
    path : Path
        Its file, for messages.

    Returns
    -------
    fields : DataFrame
        With the columns of the table, in place of columns of the same name.
    notes : list of str
        Sentences on treatments that only the table or only the images have.

    Raises
    ------
    LabelsError
        If a treatment has two rows that differ, or none of them is in the screen.
    """
    added = [str(name) for name in table if name not in (*keys, *FIELD_ROW)]
    table = table[[*keys, *added]].drop_duplicates()
    table = table[(table[[name for name in keys if name != "dose"]] != "").any(axis=1)]
    twice = table[table.duplicated(keys)]
    if len(twice):
        raise LabelsError(f"{path} says two different things of {_name(twice.iloc[0], keys)}; expected one row for "
                          f"each {' and '.join(keys)}")  # fmt: skip
    joined = fields.drop(columns=[name for name in added if name in fields]).merge(table, on=keys, how="left",
                                                                                   indicator="_known")  # fmt: skip
    known = joined.pop("_known") == "both"
    named, there = (list(dict.fromkeys(_name(row, keys) for _, row in one[keys].drop_duplicates().iterrows()))
                    for one in (table, fields))  # fmt: skip
    notes = names_of_one_side(path, "treatment", [one for one in named if one not in there],
                              [one for one in there if one and one not in named])  # fmt: skip
    if not known.any():
        raise LabelsError(f"{path} names no {' and '.join(keys)} of the screen: {'; '.join(notes)}")
    texts = [name for name in added if joined[name].dtype.kind not in "fiu"]
    joined[texts] = joined[texts].fillna("")
    return joined, notes


def _name(row: pd.Series, keys: list[str]) -> str:
    return " ".join(f"{value:g}" if isinstance(value, float) else str(value) for value in row[keys]
                    if value not in ("", None) and value == value)  # fmt: skip
