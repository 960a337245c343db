"""Layout tables: what each well of a screen was given, joined to its images by plate and well.

A layout is a CSV or Parquet with the column `well` and, where it holds for some plates only, `plate`; or a table of
treatments, where the table of images says what each well was given (`sources.treatments`). Its other columns are added
to the fields. The usual names of treatments and doses become `treatment` and `dose`; `control` is negative,
positive, empty, or nothing. The last words that laboratories use for these are known.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Final

import pandas as pd

from napari_milcnn.errors import LabelsError
from napari_milcnn.images.instruments import parse_well, well_name
from napari_milcnn.images.paths import as_on_disk
from napari_milcnn.results.layout import text_table
from napari_milcnn.schema import (
    EMPTY_FIELDS,
    FAILED_FIELDS,
    FIELDS_OF_WELL,
    NOT_LOOKED_FOR,
    TOP,
    UNLIKE,
    UNLIKE_FIELDS,
    is_bag,
    is_count,
    is_pooled,
    is_score,
)
from napari_milcnn.screens.sources.fields import FIELD_ROW, place_name
from napari_milcnn.screens.sources.spelling import names_of_one_side
from napari_milcnn.screens.sources.treatments import treatment_keys_of, with_table_of_treatments
from napari_milcnn.untrusted import short

ALIASES: Final = {
    "compound": "treatment", "drug": "treatment", "sirna": "treatment", "perturbation": "treatment",
    "concentration": "dose", "conc": "dose", "gene": "strain", "mutant": "strain",
    "plate_id": "plate", "barcode": "plate", "well_id": "well", "well_name": "well", "class": "label",
}  # fmt: skip
"""Name of a column in lower case -> what it is called here, where there is no column of that name."""
_CONTROL_WORDS: Final = {
    "negative": ("negative", "neg", "n", "yes", "true", "1", "x", "dmso", "vehicle", "mock", "untreated", "wt",
                 "negative control", "neg control", "negcon", "low"),
    "positive": ("positive", "pos", "p", "positive control", "pos control", "poscon", "high"),
    "empty": ("empty", "blank", "no cells"),
    "": ("", "no", "none", "false", "0", "sample", "compound", "test", "trt"),
}  # fmt: skip
_RESULTS: Final = {
    TOP, UNLIKE, UNLIKE_FIELDS, FIELDS_OF_WELL, FAILED_FIELDS, EMPTY_FIELDS, NOT_LOOKED_FOR,
}  # fmt: skip
_CONTROL: Final = {word: kind for kind, words in _CONTROL_WORDS.items() for word in words}


def read_table(path: Path) -> pd.DataFrame:
    """Read a CSV or Parquet with all cells as text.

    Raises
    ------
    LabelsError
        If it cannot be read.
    """
    return text_table(as_on_disk(path), "a table, CSV or Parquet", LabelsError)


def with_known_columns(table: pd.DataFrame, source: object) -> pd.DataFrame:
    """Return a table whose columns have their names here, with wells such as B03, kinds of controls and doses.

    Raises
    ------
    LabelsError
        If a control or a dose is not understood.
    """
    lower = {name: str(name).strip().lower() for name in table}
    lower = {name: ALIASES[low] if low in ALIASES and ALIASES[low] not in lower.values() else low
             for name, low in lower.items()}  # fmt: skip
    known = {"plate", "well", "site", "file", "series", "treatment", "dose", "strain", "control", "label"}
    named = table.rename(columns={
        name: low if low in known else f"layout {name}" if _is_of_results(str(name).strip()) else name
        for name, low in lower.items()
    })  # fmt: skip
    twice = named.columns[named.columns.duplicated()]
    if len(twice):
        meant = ", ".join(str(name) for name, low in lower.items() if low == twice[0])
        raise LabelsError(f"{source} has several columns that mean {twice[0]!r}: {meant}; keep one of them")
    for name in known.intersection(named) & {"plate", "well", "treatment", "strain", "label"}:
        named[name] = [place_name(str(text)) for text in named[name]]
    if "well" in named:
        named["well"] = named["well"].map(well_name)
    if "control" in named:
        named["control"] = [_control(value, source) for value in named["control"]]
    if "dose" in named:
        named["dose"] = [_dose(value, source) for value in named["dose"]]
    return named


def _is_of_results(name: str) -> bool:
    """Whether a column would be taken for one of the results of a screen, such as `cells` or a score."""
    measured = is_score(name) or is_pooled(name) or is_count(name) or is_bag(name)
    low = name.lower()
    return measured or low in _RESULTS or low.startswith(("mean ", "z ", "hit ", "p value ", "q value ", "feature_"))


def _control(text: str, source: object) -> str:
    if text.strip().lower() not in _CONTROL:
        raise LabelsError(
            f"{source}: {text!r} in the column control is not understood; expected negative, positive, empty, or "
            "nothing for other wells"
        )
    return _CONTROL[text.strip().lower()]


def _dose(text: str | float, source: object) -> float:
    if isinstance(text, float):
        return text
    if re.fullmatch(r"[1-9]\d{0,2}(,\d{3})+", text.strip()):
        raise LabelsError(f"{source}: {text!r} in the column dose may be thousands or a decimal comma; write it with a "
                          "point, or without")  # fmt: skip
    try:
        dose = float(text.replace(",", ".")) if text.strip() else math.nan
    except ValueError:
        dose = math.inf
    if math.isinf(dose):
        raise LabelsError(f"{source}: {text!r} in the column dose is not a number; write units in the name of a column "
                          "of its own")  # fmt: skip
    return dose


def with_layout_of_wells(fields: pd.DataFrame, path: Path) -> tuple[pd.DataFrame, list[dict[str, str]], list[str]]:
    """Add the columns of a layout to fields.

    Parameters
    ----------
    fields : DataFrame
        Fields with plate and well.
    path : Path
        The layout: of wells, or a table of treatments that names no wells.

    Returns
    -------
    fields : DataFrame
        With the columns of the layout, in place of columns of the same name.
    missing : list of dict
        Wells that the layout names and that have no image.
    notes : list of str
        Sentences on plates and wells that only the layout or only the images have.

    Raises
    ------
    LabelsError
        If the layout cannot be read, names neither wells nor treatments, lists one twice, or names none of the screen.
    """
    read = read_table(path)
    table = with_known_columns(read, path)
    if "well" not in table:
        keys = treatment_keys_of(table, fields)
        if not keys:
            raise LabelsError(
                f"{path} has the columns {short(', '.join(map(str, read)))}; expected well and, for layouts of several "
                "plates, plate; or a treatment or strain that the table of images has, too"
            )
        joined, notes = with_table_of_treatments(fields, table, keys, path)
        return joined, [], notes
    table = table[table["well"] != ""]
    if table.empty:
        raise LabelsError(f"{path} has no row with a well; expected one row for each well")
    wrong = [well for well in table["well"].unique() if parse_well(well) is None and well not in set(fields["well"])]
    if wrong:
        raise LabelsError(f"{path}: {wrong[0]!r} in the column well is not a well; expected names such as B03")
    keys = [name for name in ("plate", "well") if name in table]
    twice = table[table.duplicated(keys)]
    if len(twice):
        raise LabelsError(f"{path} lists {' '.join(twice.iloc[0][keys])} twice; expected one row for each well")
    added = [str(name) for name in table if name not in (*keys, *FIELD_ROW)]
    joined = fields.drop(columns=[name for name in added if name in fields]).merge(
        table[[*keys, *added]], on=keys, how="left", indicator="_known")  # fmt: skip
    unknown = joined[joined.pop("_known") == "left_only"][["plate", "well"]].drop_duplicates()
    notes = [*_on_plates(path, table, fields), *_on_wells_of_plates(path, table, fields, unknown)]
    if len(unknown) == len(fields[["plate", "well"]].drop_duplicates()):
        raise LabelsError(_no_common_well(path, table, fields, keys, notes))
    texts = [name for name in added if joined[name].dtype.kind not in "fiu"]
    joined[texts] = joined[texts].fillna("")
    return joined, _wells_without_images(table, fields), notes


def _no_common_well(path: Path, table: pd.DataFrame, fields: pd.DataFrame, keys: list[str], notes: list[str]) -> str:
    first, found = (" ".join(map(str, rows.iloc[0][keys])) for rows in (table, fields))
    return (
        f"{path} names no {' and '.join(keys)} of the screen: the first row is {first}, the first image {found}; "
        f"correct its names, or leave out the column plate where it holds for every plate"
        f"{''.join(f'. {note}' for note in notes)}"
    )


def _on_plates(path: Path, table: pd.DataFrame, fields: pd.DataFrame) -> list[str]:
    """Say which plates only the layout or only the images have, and which of them may be the same."""
    if "plate" not in table:
        return []
    named, there = (list(dict.fromkeys(map(str, one["plate"]))) for one in (table, fields))
    return names_of_one_side(path, "plate", [one for one in named if one not in there],
                     [one for one in there if one not in named])  # fmt: skip


def _on_wells_of_plates(path: Path, table: pd.DataFrame, fields: pd.DataFrame, unknown: pd.DataFrame) -> list[str]:
    """Say the same of the wells of plates that both have."""
    common = set(fields["plate"]) & set(table["plate"]) if "plate" in table else set(fields["plate"])
    without_row = unknown[unknown["plate"].isin(common)].itertuples(index=False, name=None)
    without_image = ((row["plate"], row["well"]) for row in _wells_without_images(table, fields))
    several = fields["plate"].nunique() > 1
    names = [[f"{plate} {well}" if several else well for plate, well in one if plate in common]
             for one in (without_image, without_row)]  # fmt: skip
    return names_of_one_side(path, "well", *names)


def _wells_without_images(table: pd.DataFrame, fields: pd.DataFrame) -> list[dict[str, str]]:
    there = set(fields[["plate", "well"]].itertuples(index=False, name=None))
    plates = list(dict.fromkeys(fields["plate"]))
    named = [(plate, row["well"]) for row in table.to_dict("records")
             for plate in ([row["plate"]] if "plate" in table else plates)]  # fmt: skip
    reason = "the layout names the well, and it has no image"
    of_plate = "the layout names the plate, and none of the images is of a plate of this name"
    return [{"plate": plate, "well": well, "site": "", "reason": reason if plate in plates else of_plate}
            for plate, well in named if (plate, well) not in there]  # fmt: skip
