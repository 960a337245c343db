"""The fields of a screen as a table: a row for each image, in the order of plates, wells and sites.

Decisions:

- What tells two fields apart is their plate, well, site, time and Z plane. Two images of one place are an error: the
  names then mean something that was not understood, or a folder holds a copy.
- Where no name tells the site, the images of a well are numbered from 1 in the order of their names.
- A site that more than half of the wells of a plate have is expected in each of them; where it is not there, it is
  listed as missing.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Final

import pandas as pd

from napari_milcnn.atomic_write import shortened
from napari_milcnn.errors import ImageError
from napari_milcnn.images.instruments import natural_order, parse_well
from napari_milcnn.images.open import ImageReading
from napari_milcnn.images.paths import composed, printable
from napari_milcnn.schema import FIELD_COLUMNS
from napari_milcnn.untrusted import is_hidden, name_fault, short, visible

PLACE: Final = (*FIELD_COLUMNS, "t", "z")
"""Columns that tell two fields of a screen apart."""
FIELD_ROW: Final = (*PLACE, "file", "series", "name")
"""Columns of the table of fields, before those of a layout."""
MISSING_ROW: Final = (*FIELD_COLUMNS, "reason")
"""Columns of the table of what is missing."""
_LONGEST_PART: Final = 100
"""Bytes in the name of a part or of the files of a field."""
_SHORTEST_PLATE: Final = 8
"""Bytes of the name of a plate that stay in the name of a field."""
_KEPT_BY_WINDOWS: Final = re.compile(r"(?i)(?:con|prn|aux|nul|(?:com|lpt)[0-9¹²³])(?: *\..*)?")
"""Names of devices, which no file can have under Windows, whatever stands behind a dot."""


@dataclass(frozen=True)
class Screen:
    """The images of a screen.

    Attributes
    ----------
    source : str
        Where they were found, for messages.
    fields : DataFrame
        A row for each field: plate, well (such as B03), site, t and z (as the name of the file has them, else ""), file
        (a path for `open_image`), series (number of the image in its file, else ""), name (with which its own files
        begin), then the columns of the layout.
    missing : DataFrame
        Wells and fields that are named but not there: plate, well, site, reason.
    reading : ImageReading
        How the files are opened.
    notes : tuple of str
        What was put together and what was left out.
    """

    source: str
    fields: pd.DataFrame
    missing: pd.DataFrame
    reading: ImageReading
    notes: tuple[str, ...] = ()

    @property
    def summary(self) -> str:
        """The number of plates, wells and fields, and of treatments where they are known, in a sentence."""
        plates, wells = self.fields["plate"].nunique(), len(self.fields[["plate", "well"]].drop_duplicates())
        counted = f"{len(self.fields)} fields in {wells} wells on {plates} plate{'s'[: plates != 1]}"
        names = set(self.fields["treatment"]) - {""} if "treatment" in self.fields else ()
        return f"{counted}, of {len(names)} treatment{'s'[: len(names) != 1]}" if names else counted


@dataclass
class FoundFields:
    """What a source holds, before it is put in order.

    Attributes
    ----------
    rows : list of dict
        For each field plate, well, site, t, z, file, series, as far as they are known, and columns of its own.
    missing : list of dict
        As the rows of `Screen.missing`.
    notes : list of str
        As `Screen.notes`.
    channels : tuple of str
        Names of the channels, where the source names them.
    """

    rows: list[dict[str, object]] = field(default_factory=list)
    missing: list[dict[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    channels: tuple[str, ...] = ()


def table_of_fields(source: str, rows: Sequence[Mapping[str, object]]) -> pd.DataFrame:
    """Put fields in order, number their sites where these are not known, and name them.

    Raises
    ------
    ImageError
        If two of them have the same place, or a place or a file has a name that it cannot have.
    """
    odd = next((file for row in rows if (file := str(row["file"])) != printable(file)), None)
    if odd is not None:
        raise ImageError(f"{printable(odd)}: its name holds bytes that are no characters of UTF-8; rename it")
    table = pd.DataFrame([dict(row) for row in rows])
    for name in FIELD_ROW:
        table[name] = table[name].fillna("").astype(str) if name in table else ""
    for name in PLACE:
        table[name] = [place_name(text) for text in table[name]]
    _check_names(source, table)
    table["site"] = _numbered_sites(table)
    keys = [
        (*map(_key, (plate,)), _well_key(well), *map(_key, (site, t, z)), file, _key(series))
        for plate, well, site, t, z, file, series in table[[*PLACE, "file", "series"]].itertuples(index=False)
    ]
    table = table.iloc[sorted(range(len(keys)), key=keys.__getitem__)].reset_index(drop=True)
    _check_places(source, table)
    table["name"] = _names(table)
    return table[[*FIELD_ROW, *(name for name in table if name not in FIELD_ROW)]]


def place_name(text: str) -> str:
    """Return the name of a plate, well or site as it is compared and shown: what is hidden in it becomes escapes."""
    return visible(composed(text).strip())


def _check_names(source: str, table: pd.DataFrame) -> None:
    for column in PLACE:
        names = table[column].unique()
        for name in filter(None, names):
            fault = name_fault(name)
            if fault is not None:
                raise ImageError(f"{source}: '{short(name, 60)}' cannot be the name of a {column}: {fault}; rename it")
    for column in ("plate", "well"):
        twin: dict[str, str] = {}
        for name in table[column].unique():
            other = twin.setdefault(name.lower(), name)
            if other != name:
                raise ImageError(
                    f"{source}: the {column}s {other!r} and {name!r} differ in capital letters only, and their results "
                    "would lie in one folder on some disks; give them one name, or rename one of them"
                )


def _key(text: str) -> tuple[list[tuple[int, str]], str]:
    return natural_order(text), text


def _well_key(text: str) -> tuple[int, int, str]:
    well = parse_well(text)
    return (99, 99, text) if well is None else (well.row, well.column, text)


def _numbered_sites(table: pd.DataFrame) -> pd.Series:
    """Return the sites; those of a well that has several images without a site count them."""
    sites = table["site"]
    without = table[sites == ""]
    places = without.groupby(["plate", "well", "t", "z"], sort=False)["file"]
    several = places.transform("size") > 1
    numbers = (places.cumcount() + 1)[several].astype(str)
    joined: pd.Series = pd.concat([sites.drop(numbers.index), numbers])
    return joined.reindex(table.index)


def _check_places(source: str, table: pd.DataFrame) -> None:
    twice = table[table.duplicated(list(PLACE), keep=False)]
    if len(twice):
        one, other = twice["file"].iloc[:2]
        place = " ".join(f"{name} {twice[name].iloc[0]}" for name in PLACE if twice[name].iloc[0])
        raise ImageError(
            f"{source}: {one} and {other} are both {place or 'without plate, well and site'}; say what else tells them "
            "apart by a pattern, such as {plate}/{well}_{site}_w{channel}.tif (option pattern), or remove one of them"
        )


def _names(table: pd.DataFrame) -> list[str]:
    """Name each field by its place, such as plate1_B03_s2; the names are names of files and differ.

    Where such a name is too long, the plate is cut.
    """
    names: list[str] = []
    taken: set[str] = set()
    for plate, well, site, t, z in table[list(PLACE)].itertuples(index=False):
        marks = (("s", site), ("t", t), ("z", z))
        words = [well, *(f"{mark if text[:1].isdigit() else ''}{text}" for mark, text in marks if text)]
        rest = "_".join(filter(None, words))
        start = shortened(plate, max(_LONGEST_PART - len(rest.encode()) - 1, _SHORTEST_PLATE))
        wanted = file_name("_".join(filter(None, (start, rest))))
        tries = (wanted if number == 1 else f"{wanted}_{number}" for number in count(1))
        names.append(next(name for name in tries if name.lower() not in taken))
        taken.add(names[-1].lower())
    return names


def file_name(text: str) -> str:
    """Return a text as a name of a file or folder that every system allows: other signs become underscores."""
    plain = "".join("_" if sign in '/\\:*?"<>|' or is_hidden(sign) else sign for sign in text).strip(" .")
    name = shortened(plain, _LONGEST_PART).rstrip(" .")
    return f"{name}_" if not name or _KEPT_BY_WINDOWS.fullmatch(name) else name


def missing_sites(table: pd.DataFrame) -> list[dict[str, str]]:
    """List the sites that most wells of a plate have and others lack."""
    found = []
    for plate, rows in table.groupby("plate", sort=False):
        there: dict[str, set[str]] = defaultdict(set)
        for well, site in zip(rows["well"], rows["site"], strict=True):
            there[well].add(site)
        counts = Counter(site for sites in there.values() for site in sites)
        usual = [site for site, number in counts.items() if number > len(there) / 2]
        found += [{"plate": str(plate), "well": well, "site": site, "reason": "the image is not there"}
                  for well, sites in there.items() for site in usual if site not in sites]  # fmt: skip
    return found
