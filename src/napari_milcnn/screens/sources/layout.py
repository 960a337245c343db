"""Layout tables: what each well of a screen was given, joined to its images by plate and well.

A layout is a CSV or Parquet with the column `well` and, where it holds for some plates only, `plate`. Its other columns
are added to the fields. The usual names of treatments and doses become `treatment` and `dose`; `control` is negative,
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
from napari_milcnn.images.paths import as_on_disk, printable
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
_MOST_SAID, _MORE = 4, "\N{HORIZONTAL ELLIPSIS}"
"""Most names that a sentence lists, and what stands for further ones."""
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
        The layout.

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
        If the layout cannot be read, has no column well, lists a well twice, or names no well of the screen.
    """
    read = read_table(path)
    table = with_known_columns(read, path)
    if "well" not in table:
        raise LabelsError(f"{path} has the columns {', '.join(map(str, read))}; expected well and, for layouts of "
                          "several plates, plate")  # fmt: skip
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
    return _on_names(path, "plate", [one for one in named if one not in there],
                     [one for one in there if one not in named])  # fmt: skip


def _on_wells_of_plates(path: Path, table: pd.DataFrame, fields: pd.DataFrame, unknown: pd.DataFrame) -> list[str]:
    """Say the same of the wells of plates that both have."""
    common = set(fields["plate"]) & set(table["plate"]) if "plate" in table else set(fields["plate"])
    without_row = unknown[unknown["plate"].isin(common)].itertuples(index=False, name=None)
    without_image = ((row["plate"], row["well"]) for row in _wells_without_images(table, fields))
    several = fields["plate"].nunique() > 1
    names = [[f"{plate} {well}" if several else well for plate, well in one if plate in common]
             for one in (without_image, without_row)]  # fmt: skip
    return _on_names(path, "well", *names)


def _on_names(path: Path, what: str, only_named: list[str], only_there: list[str]) -> list[str]:
    """Say which names only the layout and only the images have; and which of them differ in spelling alone."""
    parts = [
        *([f"{path.name} names {_counted(only_named, what)} without an image"] if only_named else []),
        *([f"{_counted(only_there, what)} of the images {'has' if len(only_there) == 1 else 'have'} no row in "
           f"{path.name}"] if only_there else []),
    ]  # fmt: skip
    spelled = {_plain_spelling(name): name for name in only_named}
    alike = [(spelled[plain], name) for name in only_there if (plain := _plain_spelling(name)) in spelled]
    if alike:
        parts.append(f"perhaps {alike[0][0]!r} in the layout is {alike[0][1]!r} of the images: give both one spelling")
    return ["; ".join(parts)] if parts else []


def _counted(names: list[str], what: str) -> str:
    listed = ", ".join([*map(printable, names[:_MOST_SAID]), *([_MORE] if len(names) > _MOST_SAID else [])])
    return f"{len(names)} {what}{'s'[: len(names) != 1]} ({listed})"


def _plain_spelling(name: str) -> str:
    """Return what spellings of one plate, or well, have in common: "1" for plate_1, Plate01, P1 and week/plate-1."""
    words = re.findall(r"[^\W\d_]+|\d+", name.casefold().rsplit("/", 1)[-1])
    return " ".join(word.lstrip("0") or "0" for word in words if word not in ("plate", "platte", "p", "pl"))


def _wells_without_images(table: pd.DataFrame, fields: pd.DataFrame) -> list[dict[str, str]]:
    there = set(fields[["plate", "well"]].itertuples(index=False, name=None))
    plates = list(dict.fromkeys(fields["plate"]))
    named = [(plate, row["well"]) for row in table.to_dict("records")
             for plate in ([row["plate"]] if "plate" in table else plates)]  # fmt: skip
    reason = "the layout names the well, and it has no image"
    of_plate = "the layout names the plate, and none of the images is of a plate of this name"
    return [{"plate": plate, "well": well, "site": "", "reason": reason if plate in plates else of_plate}
            for plate, well in named if (plate, well) not in there]  # fmt: skip
