"""The tables of a screen, made from its parts.

They can be made at any time, also while a screen is running: fields that are not done yet are left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd

from napari_milcnn.errors import ResultsError
from napari_milcnn.options import StatisticsOptions, make_options
from napari_milcnn.results.write import Pieces, write_tables
from napari_milcnn.schema import FIELD_COLUMNS, PLATE, WELL
from napari_milcnn.screens.features import Reader, bags_of_wells, read_part_table, read_well_rows, write_features
from napari_milcnn.screens.likeness import write_likeness
from napari_milcnn.screens.outputs.write import write_outputs
from napari_milcnn.screens.parts import CELLS_PART, PREDICTIONS_PART, part_folder, read_part
from napari_milcnn.screens.record import FIELDS, read_fields, recorded_screen
from napari_milcnn.screens.sources.fields import FIELD_ROW
from napari_milcnn.screens.statistics.analyse import ScreenStatistics, against_controls, analyse_wells
from napari_milcnn.screens.statistics.hits import HIT
from napari_milcnn.screens.wells import well_table


@dataclass(frozen=True)
class ScreenTables:
    """The tables of a screen as far as it is done.

    Attributes
    ----------
    fields : DataFrame
        A row for each field of the screen, done or not: plate, well, site, t, z, file, series, name, layout columns.
    predictions : DataFrame
        A row for each plane that was classified and each field that failed: plate, well, site, layout columns, then
        those of predictions.csv of a classification.
    cells : callable
        Function that gives the table of cells well by well, since it may be larger than the memory. It has a row for
        each object: plate, well, site, layout columns, then those of objects.csv of a classification.
    wells : DataFrame
        A row for each well of which a field was classified: plate, well, score and P of all its instances in one bag,
        and its features, as they are.
    """

    fields: pd.DataFrame
    predictions: pd.DataFrame
    cells: Pieces
    wells: pd.DataFrame


def summarise(folder: str | Path, **options: object) -> ScreenTables:
    """Write the tables of a screen from the parts that are there, each as Parquet and as CSV, and what is made of them.

    The tables are predictions, cells, wells, and, against the controls, plates, treatments, hits and doses.

    Parameters
    ----------
    folder : path
        The folder of a screen, finished or not.
    **options
        Fields of `StatisticsOptions`, in place of those of the run.

    Raises
    ------
    ResultsError
        If it holds no screen, or one that is damaged.
    OptionsError
        If an option is unknown or has an impossible value.
    OutputError
        If a table cannot be written.
    """
    folder = Path(folder)
    tables = read_tables(folder)
    chosen = statistics_options(folder, options)
    found = statistics_of(tables, chosen)
    write_tables(folder / "predictions", tables.predictions)
    write_tables(folder / "cells", tables.cells)
    likeness = pd.DataFrame()
    if len(tables.wells):
        layout = layout_of_wells(tables.fields)
        features = write_features(folder, tables.wells, layout, sphere=chosen.sphere_features)
        likeness = write_likeness(folder, features)
    if found is not None:
        _write_statistics(folder, found)
    write_outputs(folder, tables.fields, tables.predictions, tables.cells, found, likeness)
    return tables


def statistics_of(tables: ScreenTables, options: StatisticsOptions) -> ScreenStatistics | None:
    """Compare the wells of a screen with its controls; None as long as no field was classified.

    Raises
    ------
    OptionsError
        If the screen has no scores of the kind that the options ask for.
    """
    wells = _wells_of_tables(tables)
    return None if wells is None else analyse_wells(wells, options)


def compared_so_far(tables: ScreenTables, folder: Path) -> pd.DataFrame | None:
    """Compare the wells that are done with the controls that are done; None as long as no field was classified."""
    wells = _wells_of_tables(tables)
    return None if wells is None else against_controls(wells, statistics_options(folder, {}))[0]


def _wells_of_tables(tables: ScreenTables) -> pd.DataFrame | None:
    if not len(tables.predictions) or not len(tables.wells):
        return None
    layout = [str(name) for name in layout_of_wells(tables.fields)]
    wells = well_table(tables.predictions, list(dict.fromkeys([*layout, *(f"{name} of layout" for name in layout)])))
    return wells.merge(bags_of_wells(tables.wells), on=[PLATE, WELL], how="left")


def statistics_options(folder: Path, changed: Mapping[str, object]) -> StatisticsOptions:
    """Return the options of the record of a screen, with changes."""
    run = (recorded_screen(folder) or {}).get("run")
    recorded = run if isinstance(run, Mapping) else {}
    known = {name: recorded[name] for name in StatisticsOptions.model_fields if name in recorded}
    return make_options(StatisticsOptions, {**known, **changed})


def _write_statistics(folder: Path, found: ScreenStatistics) -> None:
    """Write the tables of wells, plates, treatments, hits and doses; a table without rows is not written."""
    treatments = found.treatments
    named = {"wells": found.wells, "plates": found.plates, "treatments": treatments,
             "hits": treatments[treatments[HIT]], "doses": found.doses}  # fmt: skip
    for name, table in named.items():
        if len(table):
            write_tables(folder / name, table)
        else:
            for kind in ("csv", "parquet"):
                (folder / f"{name}.{kind}").unlink(missing_ok=True)


def layout_of_wells(fields: pd.DataFrame) -> pd.DataFrame:
    """Return a row for each well of a table of fields: plate, well, and what the layout says of its first field."""
    columns = ["plate", "well", *(name for name in fields if name not in FIELD_ROW)]
    return fields[columns].drop_duplicates(["plate", "well"])


def read_tables(folder: str | Path, read: Reader = read_part_table) -> ScreenTables:
    """Read the tables of a screen from the parts that are there.

    Parameters
    ----------
    folder : path
        The folder of the screen.
    read : callable
        Reads a Parquet file: of a screen that is read again and again, one that remembers files.

    Raises
    ------
    ResultsError
        If the folder holds no screen, or one that is damaged.
    """
    folder = Path(folder)
    if not (folder / FIELDS).is_file():
        raise ResultsError(f"{folder} holds no screen: there is no {FIELDS}; expected a folder that `screen` wrote")
    fields = read_fields(folder)
    wells = fields[["plate", "well"]].drop_duplicates().itertuples(index=False)
    parts = _parts_of_record(folder, [part_folder(folder, str(plate), str(well)) for plate, well in wells])
    layout = fields[["name", *(name for name in fields if name not in FIELD_ROW)]]
    names = fields[[*FIELD_COLUMNS, "name"]]
    predictions = _read_all((part / PREDICTIONS_PART for part in parts), read)
    if len(predictions):
        predictions = _with_layout_columns(predictions[predictions["name"].isin(names["name"])], layout)
    return ScreenTables(
        fields, predictions, partial(_cells_of_wells, parts, names, layout), read_well_rows(parts, read)
    )


def _parts_of_record(folder: Path, parts: Sequence[Path]) -> list[Path]:
    """Leave out parts that were made with another model or other options than those of the record."""
    way = (recorded_screen(folder) or {}).get("way")
    known = [(part, facts) for part in parts if (facts := read_part(part)) is not None]
    return [part for part, facts in known if not (way and facts.way) or facts.way == way]


def _cells_of_wells(parts: Sequence[Path], names: pd.DataFrame, layout: pd.DataFrame) -> Iterator[pd.DataFrame]:
    """Give the cells of each well; first an empty table, so that a screen without cells has a table of cells, too."""
    yield pd.DataFrame(columns=list(FIELD_COLUMNS))
    one_each = names.drop_duplicates(list(FIELD_COLUMNS))
    for part in parts:
        cells = _read_all([part / CELLS_PART])
        if len(cells):
            of_fields = cells.merge(one_each, on=list(FIELD_COLUMNS), how="inner")
            yield _with_layout_columns(of_fields, layout).drop(columns="name")


def _read_all(paths: Iterable[Path], read: Reader = read_part_table) -> pd.DataFrame:
    tables = [read(path) for path in paths if path.is_file()]
    if not tables:
        return pd.DataFrame(columns=list(FIELD_COLUMNS))
    every = pd.concat(tables, ignore_index=True)
    for name in every.columns[[dtype.kind == "O" or str(dtype) == "str" for dtype in every.dtypes]]:
        every[name] = every[name].fillna("")
    return every


def _with_layout_columns(table: pd.DataFrame, layout: pd.DataFrame) -> pd.DataFrame:
    """Put the columns of the layout behind plate, well and site; a column of results keeps its name."""
    layout = layout.rename(columns={name: f"{name} of layout" for name in layout if name in table and name != "name"})
    own = [name for name in table if name not in FIELD_COLUMNS]
    joined = table.merge(layout, on="name", how="left")
    return joined[[*FIELD_COLUMNS, *(name for name in layout if name != "name"), *own]]
