"""A screen read back from its folder, finished or still running, as results that can be looked at.

Decisions:

- A finished screen is read from its tables. One that is not finished is read from its parts, the wells that are done,
  and says how many of how many these are; tables that `--summarise` wrote meanwhile may be older, and are not read.
- Until all wells are there, a well is compared with those controls of its plate that are done, and there are no hits.
- A row belongs to a field, whatever its file: series of one OME-TIFF are images of their own here.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, get_args

import numpy as np
import pandas as pd

from napari_milcnn.errors import OutputError, ResultsError
from napari_milcnn.figures.plates import Blank
from napari_milcnn.images.paths import as_on_disk
from napari_milcnn.images.stack import ImageStack, PlaneIndex
from napari_milcnn.options import MasksAs
from napari_milcnn.output_lock import holder_of, holder_of_file
from napari_milcnn.results.moved_images import located
from napari_milcnn.results.opened import PREDICTIONS, WRITTEN_FILES, OpenedResults, read_parquet
from napari_milcnn.results.read import check_predictions, has_one_label, read_results, with_margin, with_name
from napari_milcnn.results.write import image_files
from napari_milcnn.schema import FIELD_COLUMNS, PLATE, WELL, class_of, is_score
from napari_milcnn.screens.features import FEATURES, features_of_wells, read_part_table
from napari_milcnn.screens.outputs.masks import LABELS_IN_PLATE
from napari_milcnn.screens.parts import CELLS_PART, PARTS, part_folder
from napari_milcnn.screens.record import FIELDS, read_fields, read_missing, reading_of_record, recorded_screen
from napari_milcnn.screens.run import SHARDS
from napari_milcnn.screens.summary import compared_so_far, layout_of_wells, read_tables, statistics_options
from napari_milcnn.untrusted import short

_WELLS: Final = "wells.parquet"
_PLACE_OF_WELL: Final = [PLATE, WELL]


@dataclass(frozen=True)
class Growth:
    """How far a screen is.

    Attributes
    ----------
    done, total : int
        Wells whose part is on disk, and all wells.
    finished : bool
        Whether its tables are those of all wells.
    holder : str
        Who writes to its folder now; empty if nobody does.
    """

    done: int
    total: int
    finished: bool
    holder: str

    @property
    def words(self) -> str:
        """Say how far it is."""
        return f"{self.done:,} of {self.total:,} wells so far"


class PartReader:
    """Reads the Parquet files of parts, each once for as long as it does not change."""

    def __init__(self) -> None:
        self._known: dict[Path, tuple[int, pd.DataFrame]] = {}

    def __call__(self, path: Path) -> pd.DataFrame:
        """Read a file."""
        try:
            stamp = path.stat().st_mtime_ns
            known = self._known.get(path)
            if known is None or known[0] != stamp:
                known = self._known[path] = (stamp, read_part_table(path))
        except OSError as error:
            raise ResultsError(f"{path} cannot be read ({error}); open the screen again") from error
        return known[1]


@dataclass(frozen=True, eq=False)
class OpenedScreen(OpenedResults):
    """A screen read back from its folder.

    Attributes
    ----------
    fields : DataFrame
        Every field of the screen, done or not, as `Screen.fields`.
    compared : DataFrame or None
        The wells compared with their controls, as wells.parquet has them; while the screen is not finished, the wells
        and controls that are done, without hits. None if no tables say anything of wells.
    features : DataFrame or None
        The features of the wells, as of `features_of_wells`; None if no well has any.
    missing_wells : DataFrame
        Plate and well of wells that have no image.
    growth : Growth
        How far it was when it was read.
    masks_inside : bool
        Whether its masks lie in the OME-Zarr plate.
    reader : PartReader
        What has read the parts, and reads only new ones when the screen is read again.
    """

    fields: pd.DataFrame = field(default_factory=pd.DataFrame)
    compared: pd.DataFrame | None = None
    features: pd.DataFrame | None = None
    missing_wells: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=_PLACE_OF_WELL))
    growth: Growth = Growth(0, 0, True, "")
    masks_inside: bool = False
    reader: PartReader = field(default_factory=PartReader)

    @property
    def folder(self) -> Path:
        """The folder of the screen."""
        assert self.path is not None
        return self.path.parent

    @property
    def absent(self) -> dict[Blank, pd.DataFrame]:
        """Why wells of the screen have no row -> plate and well of these."""
        waiting = {} if self.growth.finished else {Blank.PENDING: self.fields[_PLACE_OF_WELL].drop_duplicates()}
        return {Blank.MISSING: self.missing_wells} | waiting

    def recorded_path(self, file: str) -> str:
        """Return the path of the file of a field."""
        return self._file_of_key.get(file, file)

    @property
    def _file_of_key(self) -> dict[str, str]:
        several = self.fields[self.fields["series"] != ""]
        return dict(zip(_keys_of(several), several["file"], strict=True))

    def _field(self, row: int) -> pd.Series:
        found: pd.Series = self.fields[self.fields["name"] == self.table["name"].iat[row]].iloc[0]
        return found

    def _opened(self, row: int, path: Path) -> ImageStack:
        series = str(self._field(row)["series"])
        return (replace(self.reading, series=int(series)) if series else self.reading).open(path)

    def names_of(self, row: int) -> tuple[Path | None, Path | None]:
        """Return None, since a screen writes no class maps, and the file of the masks; None if there is none."""
        one = self._field(row)
        if self.masks_inside:
            path = self.files[str(self.table["file"].iat[row])]
            written = [] if path is None else [path / "labels" / LABELS_IN_PLATE]
        else:
            part = part_folder(self.folder, str(one[PLATE]), str(one[WELL]))
            files = [image_files(part, str(one["name"]), kind).labels for kind in get_args(MasksAs)]
            written = [file for file in files if file is not None]
        return None, next((file for file in written if file.exists()), None)

    def objects_of(self, row: int) -> pd.DataFrame | None:
        """Return the objects in the masks of the field of a row; None where there are none."""
        one = self._field(row)
        path = part_folder(self.folder, str(one[PLATE]), str(one[WELL])) / CELLS_PART
        if not path.is_file() or self._planes_are_mixed(row):
            return None
        cells = read_part_table(path)
        own = cells[(cells["site"] == one["site"]) & (cells["file"] == one["file"]) & cells["shown"].astype(bool)]
        said = {name: int(one[name]) for name in ("t", "z") if one[name].isdecimal() and name in own}
        for name, number in said.items():  # series of one file may be its times
            own = own[own[name] == number]
        found: pd.DataFrame = own.assign(**{name: 0 for name in ("t", "z") if one[name]})
        return found

    def plane_of(self, row: int) -> PlaneIndex | None:
        """Return position, time and z of a row in its image; None for a field that failed.

        A time or a Z plane that the name of the file says stands in the table, and is plane 0 of the file.
        """
        if self.table["error"].iat[row]:
            return None
        one = self._field(row)
        place = {name: int(self.table[name].to_numpy()[row]) for name in PlaneIndex._fields}
        place |= {name: 0 for name in ("t", "z") if one[name]}
        if self._planes_are_mixed(row):
            names = self.table["name"].to_numpy()
            place["t" if one["t"] else "z"] = int((names[:row] == names[row]).sum())
        return PlaneIndex(**place)

    def _planes_are_mixed(self, row: int) -> bool:
        """Whether several planes of a field have one place in the table, which the name of its file says."""
        one = self._field(row)
        own = self.table[(self.table["name"] == one["name"]) & (self.table["error"] == "")]
        return bool(one["t"] or one["z"]) and bool(own.duplicated(list(PlaneIndex._fields)).any())


def open_results(path: str | Path) -> OpenedResults:
    """Read the results of a screen, finished or not, of a classification, or of an evaluation.

    Parameters
    ----------
    path : path
        The folder, or one of its tables.

    Raises
    ------
    ResultsError
        As `read_screen` and `read_results` do.
    """
    path = as_on_disk(Path(path))
    folder = path.parent if os.path.isfile(path) and path.name in WRITTEN_FILES else path
    return read_screen(folder) if os.path.isfile(folder / FIELDS) else read_results(path)


def read_screen(folder: str | Path, before: OpenedScreen | None = None) -> OpenedScreen:
    """Read the folder of a screen, finished or still running.

    Parameters
    ----------
    folder : path
        The folder.
    before : OpenedScreen, optional
        The same screen as it was read before: wells that were done then are not read again.

    Raises
    ------
    ResultsError
        If it holds no screen, or no field is classified yet.
    """
    folder = as_on_disk(Path(folder))
    growth, record = growth_of(folder), _record_of(folder)
    reader = PartReader() if before is None else before.reader
    if growth.finished:
        fields = read_fields(folder)
        table = _read_table(folder / "predictions.parquet", (*FIELD_COLUMNS, "file", "name", "error"))
        compared, features = (_read_table(folder / name, _PLACE_OF_WELL) if (folder / name).is_file() else None
                              for name in (_WELLS, FEATURES))  # fmt: skip
    else:
        found = read_tables(folder, reader)
        fields, table = found.fields, found.predictions
        sphere = statistics_options(folder, {}).sphere_features
        features = features_of_wells(found.wells, layout_of_wells(fields), sphere=sphere) if len(found.wells) else None
    scores = [str(name) for name in table if is_score(name)]
    if not scores:
        raise ResultsError(_nothing_yet(folder, growth, table))
    table = _completed(folder, table, fields)
    if not growth.finished:
        compared = compared_so_far(replace(found, predictions=table), folder)
    table = with_name(with_margin(table, scores))
    run = record.get("run")
    missing = read_missing(folder)
    inside = isinstance(run, Mapping) and run.get("masks") == "inside"
    classes = tuple(map(class_of, scores))
    opened = OpenedScreen(
        folder / PREDICTIONS, table, classes, has_one_label(table, classes), {}, reading=reading_of_record(record),
        warnings=tuple(_screen_warnings(growth, table)), fields=fields, compared=compared, features=features,
        missing_wells=missing.loc[missing["site"] == "", _PLACE_OF_WELL], growth=growth, masks_inside=inside,
        reader=reader,
    )  # fmt: skip
    placed: OpenedScreen = located(opened, {})  # type: ignore[assignment]  # it replaces `files` alone
    return placed


def growth_of(folder: Path) -> Growth:
    """Say how far a screen is, from the names of its parts alone.

    Raises
    ------
    ResultsError
        If the folder holds no screen.
    """
    record, total = _record_of(folder), 0
    wells = record.get("wells")
    total = wells if isinstance(wells, int) else 0
    plates = [one for one in (folder / PARTS).glob("*") if one.is_dir()] if (folder / PARTS).is_dir() else []
    done = sum(1 for plate in plates for well in plate.iterdir() if not well.name.startswith("."))
    finished = record.get("finished") is True and (folder / "predictions.parquet").is_file()
    shards = (holder_of_file(path) for path in sorted((folder / SHARDS).glob("*-of-*")))
    holder = "" if finished else holder_of(folder) or next(filter(None, shards), "")
    return Growth(total if finished else min(done, total), total, finished, holder)


def _record_of(folder: Path) -> Mapping[str, object]:
    try:
        found = recorded_screen(folder)
    except OutputError as error:
        raise ResultsError(str(error)) from error
    if found is None or not (folder / FIELDS).is_file():
        raise ResultsError(f"{folder} holds no screen: there is no {FIELDS}; expected a folder that `screen` wrote")
    return found


def _read_table(path: Path, needed: Sequence[str]) -> pd.DataFrame:
    advice = f"write the tables again: napari-milcnn screen --summarise --out {path.parent}"
    return read_parquet(path, needed, advice)


def _nothing_yet(folder: Path, growth: Growth, table: pd.DataFrame) -> str:
    if len(table):
        return f"all {len(table)} fields of {folder} that were tried failed; the first: {table['error'].iat[0]}"
    return f"no well of {folder} is classified yet ({growth.words}); open it again when the first one is done"


def _completed(folder: Path, table: pd.DataFrame, fields: pd.DataFrame) -> pd.DataFrame:
    """Return predictions without gaps in texts, all numbers in one precision, and a file of its own for each field.

    Raises
    ------
    ResultsError
        If a number is none, a plane has no place, or a field is not one of the screen.
    """
    table = check_predictions(folder / PREDICTIONS, table.reset_index(drop=True))
    unknown = table.loc[~table["name"].isin(fields["name"]), "name"]
    if len(unknown):
        odd = short(str(unknown.iloc[0]), 60)
        raise ResultsError(f"{folder}: the field {odd!r} has results, but is not in {FIELDS}; classify the screen anew")
    table = table.astype(dict.fromkeys(table.columns[table.dtypes == np.float32], float))
    for name in table.columns[[dtype.kind not in "biufM" for dtype in table.dtypes]]:
        table[name] = table[name].fillna("").astype(object)
    several = fields[fields["series"] != ""]
    keys = dict(zip(several["name"], _keys_of(several), strict=True))
    table["file"] = [keys.get(name, file) for name, file in zip(table["name"], table["file"], strict=True)]
    return table


def _keys_of(fields: pd.DataFrame) -> list[str]:
    """Tell the fields of one file apart by the number of their series."""
    return [f"{file} series {number}" for file, number in zip(fields["file"], fields["series"], strict=True)]


def _screen_warnings(growth: Growth, table: pd.DataFrame) -> list[str]:
    found = []
    if not growth.finished:
        nobody = "nobody is at work on the others (Resume screen, or screen --resume, goes on)"
        who = f"{growth.holder} is at work" if growth.holder else nobody
        found.append(f"{growth.words}; {who}. z compares with the controls that are done; hits come with the last well")
    failed = table.loc[table["error"] != "", "name"].nunique()
    if failed:
        found.append(f"{failed:,} of {table['name'].nunique():,} fields failed; the column error says why")
    return found
