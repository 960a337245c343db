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
    table = table[(table[[name for name in keys if name != "dose"]] != "").any(axis=1)]
    table = table[added].assign(_treatment=_treatments_of(table, keys)).drop_duplicates()
    twice = table.loc[table["_treatment"].duplicated(), "_treatment"]
    if len(twice):
        raise LabelsError(f"{path} says two different things of {_name(twice.iloc[0])}; expected one row for "
                          f"each {' and '.join(keys)}")  # fmt: skip
    joined = fields.drop(columns=[name for name in added if name in fields])
    joined = joined.assign(_treatment=_treatments_of(fields, keys))
    joined = joined.merge(table, on="_treatment", how="left", indicator="_known")
    known = joined.pop("_known") == "both"
    named, there = (list(dict.fromkeys(map(_name, one["_treatment"]))) for one in (table, joined))
    joined = joined.drop(columns="_treatment")
    notes = names_of_one_side(path, "treatment", [one for one in named if one not in there],
                              [one for one in there if one and one not in named])  # fmt: skip
    if not known.any():
        raise LabelsError(f"{path} names no {' and '.join(keys)} of the screen: {'; '.join(notes)}")
    texts = [name for name in added if joined[name].dtype.kind not in "fiu"]
    joined[texts] = joined[texts].fillna("")
    return joined, notes


def _treatments_of(table: pd.DataFrame, keys: list[str]) -> list[str]:
    """Return what stands for the treatment of each row.

    Doses that agree in six digits are one: 10/3 is written as 3.33333, and longer.
    """
    rows = table[keys].astype(object).where(table[keys].notna(), "").itertuples(index=False, name=None)
    return ["\t".join(f"{value:g}" if isinstance(value, float) else str(value) for value in row) for row in rows]


def _name(treatment: str) -> str:
    return " ".join(filter(None, treatment.split("\t")))
