"""Names that people and microscopes write: of wells (B03, B3, r02c03, B/3), and of files with one channel each.

Decisions on files:

- A file holds one channel of a field if its whole name has the form that an instrument writes (`CHANNEL_FILES`), or
  that the user gives as a pattern such as "{plate}_{well}_{site}_w{channel}.tif". Files whose names differ in the
  channel alone are one field.
- Files of one form in one folder have the same channels: a field without the file of one of them is incomplete.
- "w1" and "ch2" number a channel and do not name it; "DAPI" in the place of a number names it.

Decisions on wells:

- One list of ways to write a well serves two questions: which well a cell of a table names, and which well the name of
  a file has in it.
- A text that is nothing but a well may be in lower case, and may have a space or an underscore after its row.
- In the name of a file, rows Q to Z are tried last and need two digits, since T01, S01 and Z01 mostly number something
  else: a time, a site, a plane.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Final, NamedTuple

from napari_milcnn.errors import ImageError, OptionsError
from napari_milcnn.untrusted import short

PLATES = {24: (4, 6), 96: (8, 12), 384: (16, 24), 1536: (32, 48)}
"""Number of wells of a plate -> its rows and columns."""
_WAYS = (
    r"[rR](?P<row>\d{1,2})[cC](?P<column>\d{1,2})",  # r02c03
    r"(?P<row>[A-P])-?(?P<column>\d\d)",  # B03, B-03
    r"(?P<row>[A-P]|A[A-F])/(?P<column>\d{1,2})(?=/|$|_)",  # B/3, as in a path
    r"(?P<row>[A-P])-?(?P<column>\d)",  # B3
    r"(?P<row>[A-Z]|A[A-F])-?(?P<column>\d\d)",  # T01 and AA01, of plates of 1536 wells
)
"""Ways to write a well, in the order in which they are tried."""
_WHOLE_TEXT = tuple(map(re.compile, (*_WAYS, r"(?P<row>[A-Z]|A[A-F])[-/]?(?P<column>\d{1,2})")))
"""The ways for a text that is nothing but a well; the last one, such as T1, says too little inside a name."""
_IN_NAME = tuple(re.compile(rf"(?<![A-Za-z0-9]){way}(?!\d)") for way in _WAYS)
"""The ways inside the name of a file."""
_SAMPLE_SIZE = 500
"""Texts, evenly spread, by which the way of writing is chosen."""


class Well(NamedTuple):
    """A well by its row and column, from 0."""

    row: int
    column: int

    @property
    def name(self) -> str:
        """The name of the well, such as B03."""
        letters = chr(65 + self.row) if self.row < 26 else f"A{chr(65 + self.row - 26)}"
        return f"{letters}{self.column + 1:02}"


def well_of_place(row: object, column: object) -> Well | None:
    """Return the well of a row and a column, from 0, as a file states them; None where no plate has such a well."""
    try:
        well = Well(int(str(row)), int(str(column)))
    except ValueError:
        return None
    rows, columns = PLATES[1536]
    return well if 0 <= well.row < rows and 0 <= well.column < columns else None


def parse_well(text: str) -> Well | None:
    """Read a text that is the name of a well and nothing else; None where it is not."""
    plain = re.sub(r"[\s_]", "-", text.strip().upper())
    return next((well for way in _WHOLE_TEXT if (found := way.fullmatch(plain)) and (well := _well(found))), None)


def well_name(text: str) -> str:
    """Return "B03" for "B03", "b3", "B/03" or "r02c03"; a text that is not a well stays as it is."""
    well = parse_well(text)
    return text if well is None else well.name


def wells_in(texts: Sequence[str]) -> list[Well | None]:
    """Find the well in each of some names of files; all are None where the files are not named by wells.

    The first way to write a well that more than half of the names follow is taken for all of them.
    """
    sample = texts[:: -(-len(texts) // _SAMPLE_SIZE)] if texts else []
    for way in range(len(_WAYS)):
        if sum(_inside(way, text) is not None for text in sample) > len(sample) / 2:
            return [_inside(way, text) for text in texts]
    return [None] * len(texts)


def _inside(way: int, text: str) -> Well | None:
    """Find the first well that is written in one way in a text, or the well that the whole text is."""
    found = next((well for match in _IN_NAME[way].finditer(text) if (well := _well(match))), None)
    if found is not None or way == len(_WAYS) - 1:
        return found
    whole = _WHOLE_TEXT[way].fullmatch(text.strip().upper())
    return None if whole is None else _well(whole)


def _well(found: re.Match[str]) -> Well | None:
    """Make a well of its row, as letters or a number from 1, and its column; None where no plate has such a well."""
    row, column = found["row"], int(found["column"])
    place = int(row) - 1 if row.isdigit() else ord(row[-1]) - 65 + 26 * (len(row) - 1)
    return well_of_place(place, column - 1)


def plate_shape(wells: Sequence[Well]) -> tuple[int, int]:
    """Return rows and columns of the smallest plate that has all of these wells."""
    shapes = (shape for shape in PLATES.values() if all(w.row < shape[0] and w.column < shape[1] for w in wells))
    return next(shapes)


_GUID = r"[ _]?\[?[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}\]?"
"""The number of a file that ImageXpress appends, which says nothing about the image."""
_END = r"(?:\.ome)?\.[A-Za-z]\w+"
CHANNEL_FILES: Final = {
    "ImageXpress": r"(?:(?P<plate>.*)_)?(?P<well>[A-Pa-p]\d{2})(?:_s(?P<site>\d+))?(?:_t(?P<t>\d+))?"
                   rf"_w(?P<channel>\d{{1,2}})(?P<id>{_GUID})?{_END}",
    "MetaMorph": rf".+_w(?P<channel>\d{{1,2}}(?:[A-Za-z][^_.]*)?)(?:_s\d+_t\d+|_s\d+|_t\d+){_END}"
                 rf"|.+_s\d+_w(?P<late>\d{{1,2}}){_END}|.+_w(?P<named>\d{{1,2}}[A-Za-z][^_.-]*){_END}",
    "Operetta or Opera Phenix": r"(?P<well>r\d+c\d+)f(?P<site>\d+)p(?P<z>\d+)-ch(?P<channel>\d+)"
                                rf"(?:sk(?P<t>\d+))?(?:fk\d+)?(?:fl\d+)?{_END}",
    "Cellomics": r"(?P<plate>.*)_(?P<well>[A-P]\d{2})f(?P<site>\d+)d(?P<channel>\d+)\.\w+",
    "CellVoyager": r"(?P<plate>.*)_(?P<well>[A-P]\d{2})_T(?P<t>\d+)F(?P<site>\d+)L\d+A(?P<id>\d+)Z(?P<z>\d+)"
                   rf"C(?P<channel>\d+){_END}",
    "IN Cell": r"(?P<well>[A-P] ?- ?\d+) ?\(fld (?P<site>\d+) wv (?P<channel>[^()]+?)(?: z (?P<z>\d+))?"
               rf"(?: time (?P<t>\d+)[^()]*)?\){_END}",
    "ScanR": rf"(?P<plate>.*)--(?P<well>W\d+)--P(?P<site>\d+)--Z(?P<z>\d+)--T(?P<t>\d+)--(?P<channel>[^.]+?){_END}",
    "Micro-Manager": rf"img_channel(?P<channel>\d+)_position\d+_time\d+_z\d+{_END}"
                     rf"|img_\d{{9}}_(?P<named>[^.]+)_\d{{3}}{_END}",
    "CellProfiler": rf"Channel ?(?P<channel>\d+)-\d+-(?P<well>[A-P]-\d+)(?:-(?P<site>\d+))?{_END}",
    "Leica": rf".+_ch(?P<channel>\d{{2}}){_END}",
    "Nikon": rf".*xy(?P<site>\d+)c(?P<channel>\d+){_END}",
    "Incucyte": r"(?:(?P<plate>.*)_)?(?P<channel>(?i:phase|brightfield|bf|hd|green|red|orange|blue|nir|p|g|r|o|c\d))_"
                r"(?P<well>[A-P]\d{1,2})_(?P<site>\d+)_(?P<t>(?:\d{4}y\d\dm)?\d\dd_?\d\dh\d\dm)" + _END,
    "Keyence": rf".+_CH(?P<channel>\d){_END}",
    "ZEN": rf".+_(?:[a-z]\d+)+c(?P<channel>\d+)(?:x\d+-\d+y\d+-\d+)?(?:_ORG)?{_END}",
}  # fmt: skip
"""Instrument or program -> the form of the names of its files with one channel each; `id` differs between channels.

Where the form says it, `plate`, `well`, `site`, `t` and `z` are the place of the image on its plate.
"""
_FORMS = {name: re.compile(form) for name, form in CHANNEL_FILES.items()}
THUMBNAIL: Final = re.compile(rf".*_thumb(?:{_GUID})?\.\w+", re.IGNORECASE)
"""Names of thumbnails that instruments write beside the images."""
_CORRECTION = re.compile(r"DC_.*_CAM\d+\.tif|SC_.*_M\d+_CH\d+\.tif", re.IGNORECASE)
_MOST_PLACES: Final = 10
"""Places for any text in a pattern: with each of them, a name that does not fit takes many times longer to refuse."""
OFF: Final = "off"
"""The pattern that takes each file for an image of its own."""


def corrections(paths: Sequence[Path]) -> list[Path]:
    """List the pictures of dark current and of shading that CellVoyager writes beside the images of a folder."""
    named = [path for path in paths if _CORRECTION.fullmatch(path.name)]
    return named if named and any(_FORMS["CellVoyager"].fullmatch(path.name) for path in paths) else []


_CHANNEL_MARK = re.compile(r"A\*|[ _-]*(?:wv ?|w|channel|ch|d|c)?\*+", re.IGNORECASE)
"""What numbers the channel in the name of a field, where "*" stands for the number."""


class _ChannelFile(NamedTuple):
    """A file with one channel.

    Attributes
    ----------
    form
        The instrument whose form its name has.
    home
        The folder in which files of this form have the same channels.
    field
        What all channels of its field share.
    channel
        The channel.
    start, end
        Where the channel stands, counted from the end of the path.
    """

    form: str
    home: Path
    field: str
    channel: str
    start: int
    end: int


def channel_in(name: str) -> str:
    """Return the channel in the name of a file of an instrument, such as "w1" or "DAPI"; empty without one."""
    for form, regex in _FORMS.items():
        found = regex.fullmatch(name)
        if found is not None:
            start, end = _span(found)
            number = re.match(r"\d*", name[start:end])
            named = name[start + len(number[0]) : end] if number is not None else ""
            if form == "IN Cell":
                parts = set(named.split(" - "))
                return parts.pop() if len(parts) == 1 else named
            letters = re.search(r"[A-Za-z]*$", name[:start])
            return named or f"{letters[0] if letters else ''}{name[start:end]}"
    return ""


def field_in(name: str) -> str:
    """Return the name of a file of an instrument without its channel; empty for another file."""
    found = _parsed(Path(name), _FORMS, None)
    if found is None:
        return ""
    return _CHANNEL_MARK.sub("", found.field.rpartition("/")[2])


class FieldPlace(NamedTuple):
    """Where an image lies on a plate, as far as its name says.

    Attributes
    ----------
    plate, well, site
        As they are written, the well as in B03; "" where the name does not say.
    t, z
        Numbers of its time and its Z plane; "" where the name does not say.
    """

    plate: str = ""
    well: str = ""
    site: str = ""
    t: str = ""
    z: str = ""


_STEP_FOLDER: Final = re.compile(r"(?i)(?:(?P<t>time)[ _-]?point|(?P<z>z)[ _-]?step)[ _-]?(?P<number>\d+)")
"""Folders of ImageXpress that hold one time or one Z plane each."""
_SITE: Final = re.compile(
    r"(?<![A-Za-z])(?:site|field|fld|pos(?:ition)?|xy|s|f)[ _-]?(?P<site>\d+)(?![A-Za-z\d])", re.IGNORECASE
)
"""The number of a site in names of no known form."""


def places_of(paths: Sequence[Path], pattern: str | None = None) -> list[FieldPlace]:
    """Find where images lie on their plates, by their names and those of their folders.

    Parameters
    ----------
    paths
        One file of each image.
    pattern
        The form of the names, such as "{plate}/{well}_{site}.tif"; by default those of instruments. Where the form says
        no well, it is looked for in the names of the files, then in those of their folders.
    """
    forms = _FORMS if pattern in (None, OFF) else {"pattern": _from_pattern(str(pattern), channel=False)}
    places = [_within_step(_place_of(path, forms, pattern), path) for path in paths]
    without = [i for i, place in enumerate(places) if not place.well]
    for depth in range(1, 4):
        names = [paths[i].parts[-depth] if len(paths[i].parts) >= depth else "" for i in without]
        names = [_plain_name(name) for name in names] if depth == 1 else names
        for i, well in zip(list(without), wells_in(names), strict=True):
            if well is not None:
                places[i] = places[i]._replace(well=well.name)
                without.remove(i)
    if pattern not in (None, OFF):
        return places
    return [place if place.site else place._replace(site=_site_in(_plain_name(path.name), place.well))
            for path, place in zip(paths, places, strict=True)]  # fmt: skip


def _plain_name(name: str) -> str:
    """Return the name of a file without its ending and the GUID before it, in which "F7" and "B12" are no places."""
    return re.sub(rf"(?:{_GUID})?{_END}$", "", name)


def _place_of(path: Path, forms: dict[str, re.Pattern[str]], pattern: str | None) -> FieldPlace:
    tail = "/".join(path.parts[-1 - (pattern or "").count("/") :])
    for form, regex in forms.items():
        found = regex.fullmatch(tail)
        if found is not None:
            said = {name: text or "" for name, text in found.groupdict().items() if name in FieldPlace._fields}
            if form == "ScanR" and parse_well(said["plate"]) is not None:  # it numbers wells, and names them before
                said |= {"well": said["plate"], "plate": ""}
            return FieldPlace(**(said | {"well": well_name(re.sub(r"\s", "", said.get("well", "")))}))
    return FieldPlace()


def _within_step(place: FieldPlace, path: Path) -> FieldPlace:
    """Return a place with the time and the Z plane that the folders of a file say, where its name does not."""
    for found in filter(None, map(_STEP_FOLDER.fullmatch, path.parts[:-1])):
        axis = "t" if found["t"] else "z"
        if not getattr(place, axis):
            place = place._replace(**{axis: found["number"]})
    return place


def _site_in(name: str, well: str) -> str:
    """Return the number of the site in the name of a file of no known form; F01, where it is the well, is none."""
    found = list(_SITE.finditer(name))
    if found and well_name(found[0][0]) == well:
        found = found[1:]
    return found[0]["site"] if found else ""


def fits_pattern(path: Path, pattern: str) -> bool:
    """Whether the end of a path has the form of a pattern, with {channel} or without."""
    tail = "/".join(path.parts[-1 - pattern.count("/") :])
    return _from_pattern(pattern, channel=False).fullmatch(tail) is not None


def join_fields(paths: Sequence[Path], pattern: str | None = None) -> tuple[list[tuple[Path, ...]], list[str]]:
    """Put the files of one field together: those that hold one channel each, by their names.

    Parameters
    ----------
    paths
        Files, in any order.
    pattern
        The form of the names, such as "{plate}_{well}_{site}_w{channel}.tif", or "off"; by default those of
        instruments.

    Returns
    -------
    fields
        The files of each image, in the order of their first file. A file that is missing is listed, too.
    sentences
        What was put together, and which files do not have the form that was given.

    Raises
    ------
    OptionsError
        The pattern is not understood, or no file has its form.
    ImageError
        Two files hold the same channel of a field.
    """
    if pattern == OFF:
        return [(path,) for path in paths], []
    forms = _FORMS if pattern is None else {"pattern": _from_pattern(pattern)}
    found = {path: one for path in paths if (one := _parsed(path, forms, pattern)) is not None}
    if pattern is not None and not found:
        raise OptionsError(f"no file has a name of the form {pattern!r}; the first is {paths[0].name!r}; correct the "
                           "option pattern")  # fmt: skip
    left = () if pattern is None else [path for path in paths if path not in found]
    channels: dict[tuple[str, Path], set[str]] = defaultdict(set)
    fields: dict[tuple[str, str], dict[str, Path]] = defaultdict(dict)
    for path, one in found.items():
        channels[one.form, one.home].add(one.channel)
        twin = fields[one.form, one.field].setdefault(one.channel, path)
        if twin != path:
            raise ImageError(f"{twin} and {path.name} hold the same channel of one field; remove one of them")
    images: list[tuple[Path, ...]] = []
    joined: set[tuple[str, str]] = set()
    for path in paths:
        if pattern is not None and path not in found:
            continue
        each = found.get(path)
        every = sorted(channels[each.form, each.home], key=natural_order) if each is not None else []
        if each is None or len(every) < 2:
            images.append((path,))
            continue
        if (each.form, each.field) in joined:
            continue
        joined.add((each.form, each.field))
        own = fields[each.form, each.field]
        images.append(tuple(own.get(name) or _renamed_file(path, each, name) for name in every))
    return images, _joined_in_words(images, channels, left, pattern)


def _joined_in_words(
    images: Sequence[tuple[Path, ...]], channels: dict[tuple[str, Path], set[str]], left: Sequence[Path],
    pattern: str | None,
) -> list[str]:  # fmt: skip
    fields = [files for files in images if len(files) > 1]
    sentences = []
    if fields:
        forms = ", ".join(sorted({form for (form, _), names in channels.items() if len(names) > 1}))
        count = " or ".join(map(str, sorted({len(files) for files in fields})))
        images_in_words = "one image" if len(fields) == 1 else f"{len(fields)} images"
        sentences.append(
            f"one file per channel ({forms}): files such as {' and '.join(file.name for file in fields[0][:2])} are "
            f"{images_in_words} of {count} channels; with the option pattern=off each file is an image"
        )
    if left:
        sentences.append(
            f"files whose names are not of the form {pattern!r} are left out ({len(left)}), such as {left[0].name}"
        )
    return sentences


def _parsed(path: Path, forms: dict[str, re.Pattern[str]], pattern: str | None) -> _ChannelFile | None:
    """Find the channel in the name of a file, or in the end of its path where the pattern has folders."""
    parts = 1 + (pattern or "").count("/")
    tail = "/".join(path.parts[-parts:])
    for form, regex in forms.items():
        found = regex.fullmatch(tail)
        if found is not None:
            start, end = _span(found)
            field = tail
            for name in sorted(("channel", "late", "named", "id"), key=lambda one: -_at(found, one)):
                if _at(found, name) >= 0:
                    field = field[: found.start(name)] + "*" + field[found.end(name) :]
            home = Path(*path.parts[:-parts])
            return _ChannelFile(form, home, f"{home}/{field}", tail[start:end], start - len(tail), end - len(tail))
    return None


def _at(found: re.Match[str], name: str) -> int:
    return found.start(name) if name in found.re.groupindex else -1


def _span(found: re.Match[str]) -> tuple[int, int]:
    """Return where the channel stands in a name."""
    name = next(name for name in ("channel", "late", "named") if _at(found, name) >= 0)
    return found.span(name)


def _renamed_file(path: Path, one: _ChannelFile, channel: str) -> Path:
    """Return the path that the file of another channel of a field would have."""
    text = str(path)
    end = len(text) + one.end
    return Path(re.sub(_GUID, "", text[: len(text) + one.start] + channel + text[end:]))


def natural_order(text: str) -> list[tuple[int, str]]:
    """Return what sorts "2" before "10"."""
    return [(int(part), "") if part.isdecimal() else (0, part) for part in re.split(r"(\d+)", text)]


@lru_cache(maxsize=16)
def _from_pattern(pattern: str, *, channel: bool = True) -> re.Pattern[str]:
    """Return the form that a pattern of the user describes: {name} stands for any text, * for any rest.

    `channel` says whether it must have {channel}.

    Raises
    ------
    OptionsError
        It does not have {channel} once, is not understood, or has too many places for any text.
    """
    if channel and len(re.findall(r"\{channel\}", pattern)) != 1:
        raise OptionsError(
            f"pattern is {pattern!r}; expected the names of the files with {{channel}} once, such as "
            "{plate}_{well}_{site}_w{channel}.tif, or off"
        )
    parts = re.split(r"(\{\w+\}|\*+)", pattern)
    if len(parts) // 2 > _MOST_PLACES or re.search(r"[{}]", "".join(parts[::2])):
        raise OptionsError(f"pattern is {short(pattern)!r}; expected at most {_MOST_PLACES} names in braces or stars, "
                           "and no other braces, such as {plate}_{well}_{site}_w{channel}.tif")  # fmt: skip
    form, seen = "", set()
    for part in parts:
        name = part[1:-1] if part.startswith("{") else ""
        if part.startswith("*"):
            form += "[^/]*?"
        elif name and name.isidentifier():
            form += f"(?P={name})" if name in seen else f"(?P<{name}>[^/]+?)"
            seen.add(name)
        else:
            form += re.escape(part)
    return re.compile(form if "." in pattern.rsplit("/", 1)[-1] else form + _END)
