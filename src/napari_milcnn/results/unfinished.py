"""A classification that is going on in a folder: what it has done is on disk after each image, and survives a kill.

Beside the results, a folder holds while a run is going on, or after it was killed:

unfinished.jsonl
    The journal: the record of the run, then one line for each image that is done. An image counts as done once its line
    is whole, which is written after its files and its rows.
predictions.earlier.csv, objects.earlier.csv
    The tables as they were before, if they had rows of images that are classified again. Such rows leave the tables
    when the run begins, so that no table mixes two models. They come back for images that are not done at the end.

`settle` brings all of it to an end, whether the run finished, was stopped, or was killed some time ago. Each of its
steps can be repeated, so a kill in the middle of it does no harm.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Final

import pandas as pd
from pydantic import BaseModel, ValidationError

from napari_milcnn.atomic_write import replacing
from napari_milcnn.errors import OutputError, ResumeError
from napari_milcnn.images.paths import pixel_files
from napari_milcnn.results.record import ClassificationRecord, checked_record, differences, recorded_runs, write_record
from napari_milcnn.results.write import (
    OBJECT_ROW,
    GrowingTable,
    append_text,
    joined_rows,
    read_rows,
    whole_rows,
    write_table,
)
from napari_milcnn.untrusted import LARGEST_JSON, check_regular, parse_json, read_regular

JOURNAL: Final = "unfinished.jsonl"
_PREDICTIONS, _OBJECTS = "predictions.csv", "objects.csv"
_PREDICTION_ROW: Final = ("file", "name", "error")
_LARGEST_JOURNAL: Final = 2 * LARGEST_JSON
"""Bytes; a larger journal is refused."""
_LARGE: Final = 1 << 30
"""Bytes of an image above which only its beginning, its size and its time are compared, not all that it holds."""
_BLOCK: Final = 1 << 20


class DoneImage(BaseModel, frozen=True):
    """A line of the journal.

    Attributes
    ----------
    name, file : str
        As they stand in the tables.
    rows, objects : int
        Number of its rows in predictions.csv and objects.csv.
    classified : bool
        Whether any of its planes was classified; if not, its earlier rows stay.
    image : dict
        Its entry in the record.
    """

    name: str
    file: str
    rows: int
    objects: int
    classified: bool
    image: dict[str, object]


class _Journal(BaseModel, frozen=True):
    """A journal as it is read back."""

    record: dict[str, object]
    files: tuple[str, ...]
    masks: bool
    done: tuple[DoneImage, ...] = ()
    settled: bool = False

    @cached_property
    def run(self) -> ClassificationRecord:
        """The record, checked."""
        return ClassificationRecord.model_validate(self.record)

    @cached_property
    def names(self) -> dict[str, str]:
        """Name -> file, as they stand in the tables, of all images of the run."""
        return dict(zip(self.run.names, self.files, strict=True))

    @cached_property
    def before(self) -> dict[str, str]:
        """Name -> file of the images that were done before this run and are not done again."""
        return {name: self.names[name] for name in (str(image["name"]) for image in self.run.images or ())}

    @cached_property
    def to_do(self) -> dict[str, str]:
        """Name -> file of the other images."""
        return {name: file for name, file in self.names.items() if name not in self.before}

    def finished_record(self) -> dict[str, object]:
        """Return the record with the images that are done by now."""
        run = self.run
        done = {str(image["name"]): image for image in (*(run.images or ()), *(one.image for one in self.done))}
        left = [str(file or name) for file, name in zip(run.files, run.names, strict=True) if name not in done]
        images = [done[name] for name in run.names if name in done]
        return {**self.record, "images": images, "unfinished": left, "finished": not left}


class RunInProgress:
    """A run that writes its record first, and after each image what is needed to go on from there.

    Parameters
    ----------
    out : Path
        The folder, whose lock the caller holds, in which an earlier run was settled and tables were checked.
    record : mapping
        The record of the run, with the entries of the images that need not be done again.
    files : sequence of str
        The images of the record, as they stand in the tables.
    masks : bool
        Whether there are objects to write; if not, objects.csv is left as it is.

    Raises
    ------
    OutputError
        If the folder cannot be written.
    """

    def __init__(self, out: Path, record: Mapping[str, object], files: Sequence[str], *, masks: bool) -> None:
        facts = json.loads(json.dumps({"record": dict(record), "files": list(files), "masks": masks}, default=str))
        journal = _Journal.model_validate(facts)
        self._out, before = out, list(journal.before)
        self._is_in_order = before == journal.run.names[: len(before)]
        write_record(out, journal.finished_record(), merge=bool(before))
        self._set_aside = _set_aside(out, journal.to_do, masks)
        self._predictions = GrowingTable(out / _PREDICTIONS, _PREDICTION_ROW)
        self._objects = GrowingTable(out / _OBJECTS, OBJECT_ROW) if masks else None
        with replacing(out / JOURNAL) as draft:
            draft.write_text(_line(facts), encoding="utf-8")

    def add(self, done: DoneImage, rows: pd.DataFrame, objects: pd.DataFrame) -> None:
        """Add the rows of an image whose files are written; then it is done."""
        if self._objects is not None:
            self._objects.append(objects)
        self._predictions.append(rows)
        append_text(self._out / JOURNAL, _line(done.model_dump()))

    def end(self, *, failed: bool = False, **facts: object) -> Path:
        """Complete the tables and the record, with some facts for the record, and return the path of the record.

        `failed` says that the run ended while it wrote the results of an image.
        """
        if self._is_in_order and not self._set_aside and not failed:
            append_text(self._out / JOURNAL, _line({"settled": True}))
        home = settle(self._out, **facts)
        assert home is not None
        return home


def check_tables(out: Path) -> None:
    """Refuse a folder with tables of other programs, to which no rows can be added.

    Raises
    ------
    OutputError
        If there is such a table.
    """
    read_rows(out / _PREDICTIONS, ("file", "name"), rows=0)
    read_rows(out / _OBJECTS, ("file", "class"), rows=0)


def settle(out: Path, **facts: object) -> Path | None:
    """Complete tables and record of a run that ended or was killed, and return the path of the record.

    Nothing happens where there is no such run.

    Parameters
    ----------
    out : Path
        The folder, whose lock the caller holds.
    **facts
        Facts for the record.

    Raises
    ------
    OutputError
        If the folder cannot be written, or its journal is damaged.
    """
    journal = read_journal(out)
    earlier = [out / _earlier(name) for name in (_PREDICTIONS, _OBJECTS)]
    if journal is None:  # killed before it began: the tables of before are the tables
        for path, name in zip(earlier, (_PREDICTIONS, _OBJECTS), strict=True):
            if path.exists():
                path.replace(out / name)
        return None
    if not journal.settled:
        _tidy(out, journal)
        with replacing(out / JOURNAL) as draft:
            content = (out / JOURNAL).read_bytes()
            draft.write_bytes(content[: content.rfind(b"\n") + 1] + _line({"settled": True}).encode())
    done = {one.name: one.classified for one in journal.done}
    home = write_record(out, journal.finished_record() | facts, done=done, merge=True)
    for path in (*earlier, out / JOURNAL):
        path.unlink(missing_ok=True)
    return home


def read_journal(out: Path) -> _Journal | None:
    """Read the journal of a folder, without a last line that was cut; None if no run is going on or was killed.

    Raises
    ------
    OutputError
        If it is damaged.
    """
    path = out / JOURNAL
    try:
        documents = [parse_json(line) for line in read_regular(path, _LARGEST_JOURNAL).split(b"\n")[:-1]]
        first, *lines = [one for one in documents if isinstance(one, dict)]
        settled = {"settled": True} in lines
        done = [line for line in lines if line != {"settled": True}]
        return _Journal.model_validate({**first, "done": done, "settled": settled})
    except FileNotFoundError:
        return None
    except (OSError, ValueError, ValidationError, TypeError) as error:
        raise OutputError(
            f"{path} is not the journal of a classification ({type(error).__name__}); remove it if no run is going on"
        ) from error


def _line(facts: Mapping[str, object]) -> str:
    return json.dumps(facts, default=str) + "\n"


def _earlier(name: str) -> str:
    return name.replace(".csv", ".earlier.csv")


def _set_aside(out: Path, to_do: Mapping[str, str], masks: bool) -> bool:
    """Take the rows of images that are classified again out of the tables, after a copy of these was made."""
    table = read_rows(out / _PREDICTIONS, ("file", "name"))
    again = table["name"].isin(to_do)
    if not again.any():
        return False
    names = [name for name in (_PREDICTIONS, _OBJECTS)[: 1 + masks] if (out / name).exists()]
    for name in names:
        with replacing(out / _earlier(name)) as draft:
            shutil.copyfile(out / name, draft)
    _write_rest(out / _PREDICTIONS, table[~again], _PREDICTION_ROW)
    if _OBJECTS in names:
        objects = read_rows(out / _OBJECTS, ("file",))
        files = {*to_do.values(), *table["file"][again]}
        _write_rest(out / _OBJECTS, objects[~objects["file"].isin(files)], OBJECT_ROW)
    return True


def _write_rest(path: Path, rest: pd.DataFrame, columns: Sequence[str]) -> None:
    write_table(path, rest if len(rest) else pd.DataFrame(columns=list(columns)))


def _tidy(out: Path, journal: _Journal) -> None:
    """Complete the tables: rows of images that are done, in the order of the run, after all other rows."""
    for name in (_PREDICTIONS, _OBJECTS)[: 1 + journal.masks]:
        path = out / name
        if path.exists() and (content := path.read_bytes()) != (whole := whole_rows(content)):
            with replacing(path) as draft:
                draft.write_bytes(whole)
    earlier = out / _earlier(_PREDICTIONS)
    before = read_rows(earlier, ("file", "name")) if earlier.exists() else None
    write_table(out / _PREDICTIONS, _tidy_predictions(read_rows(out / _PREDICTIONS, ("file", "name")), before, journal))
    if journal.masks:
        write_table(out / _OBJECTS, _tidy_objects(out, before, journal))


def _tidy_predictions(table: pd.DataFrame, before: pd.DataFrame | None, journal: _Journal) -> pd.DataFrame:
    classified = {one.name for one in journal.done if one.classified}
    counts = {one.name: one.rows for one in journal.done}
    error = table["error"] != "" if "error" in table else pd.Series(False, index=table.index)
    new = table[table["name"].isin(classified) | (table["name"].isin(counts) & error)]
    new = new[new.groupby("name").cumcount() < new["name"].map(counts).astype(int)]
    if before is None:
        others = table[~table["name"].isin(journal.to_do)]
    else:
        failed_again = before["name"].isin(counts)
        failed_again &= before["error"] != "" if "error" in before else False
        others = before[~before["name"].isin(classified) & ~failed_again]
    return _in_order(others, new, "name", list(journal.names), journal.before)


def _tidy_objects(out: Path, before: pd.DataFrame | None, journal: _Journal) -> pd.DataFrame:
    table, to_do = read_rows(out / _OBJECTS, ("file",)), journal.to_do
    counts: Counter[str] = Counter()
    for one in journal.done:
        counts[one.file] += one.objects
    new = table[table["file"].isin(counts)]
    new = new[new.groupby("file").cumcount() < new["file"].map(counts).astype(int)]
    earlier = out / _earlier(_OBJECTS)
    if before is None or not earlier.exists():
        others = table[~table["file"].isin(set(to_do.values()))]
    else:
        others = read_rows(earlier, ("file",))
        classified = {one.name: one.file for one in journal.done if one.classified}
        replaced = {*classified.values(), *before["file"][before["name"].isin(classified)]}
        others = others[~others["file"].isin(replaced)]
    return _in_order(others, new, "file", list(journal.files), journal.before.values())


def _in_order(
    others: pd.DataFrame, new: pd.DataFrame, key: str, order: Sequence[str], before: Collection[str]
) -> pd.DataFrame:
    """Return other rows, then those of the run: of images that are done now and of those that were done before it."""
    place = {one: number for number, one in reversed(list(enumerate(order)))}
    of_run = others[others[key].isin(before)]
    rows = joined_rows(others[~others[key].isin(before)], pd.concat([of_run, new], ignore_index=True))
    is_new = pd.Series(range(len(rows))) >= len(others) - len(of_run)
    places = rows[key].map(place).where(is_new, -1).fillna(-1)
    return rows.iloc[places.argsort(kind="stable").to_numpy()]


# Going on from what is done


def _name_inside(file: Path, image: Path) -> str:
    return str(file.relative_to(image)) if file.is_relative_to(image) else file.name


def fingerprint(path: Path) -> str:
    """Return the SHA-256 of an image, by which a later run finds out whether it has changed; "" if it cannot be read.

    Of an image larger than 1 GiB it is that of its first MiB, and of the size and the time of each of its files.
    """
    try:
        files = pixel_files(path)
        facts = [one.stat() for one in files]
        large = sum(fact.st_size for fact in facts) > _LARGE
        found, left = hashlib.sha256(), _BLOCK if large else math.inf
        for file, fact in zip(files, facts, strict=True):
            found.update(f"{_name_inside(file, path)} {fact.st_size} {fact.st_mtime_ns if large else ''}\n".encode(
                "utf-8", "surrogateescape"))  # fmt: skip
            check_regular(file)
            if left <= 0:
                continue
            with file.open("rb") as content:
                while left > 0 and (block := content.read(_BLOCK)):
                    found.update(block)
                    left -= len(block)
        return found.hexdigest()
    except OSError:
        return ""


def done_before(out: Path, record: Mapping[str, object], *, redo_changed: bool) -> list[dict[str, object]]:
    """Return the entries of the images that an earlier run of the same model and options has done.

    An image counts if its rows and its files are there, it did not fail, and its file is what it was.

    Parameters
    ----------
    out : Path
        The folder.
    record : mapping
        The record of the new run.
    redo_changed : bool
        Whether images whose files have changed are classified again; if not, they are refused.

    Raises
    ------
    ResumeError
        If the images were classified with another model or other options, or if files of images have changed.
    """
    new = checked_record(record)
    runs = list(recorded_runs(out))
    same = [run for _, run in runs if not differences(run, new)]
    _check_way(new, [(path, run) for path, run in runs if differences(run, new)], same)
    rows = set(read_rows(out / _PREDICTIONS, ("file", "name"))["name"])
    entries = {str(image.get("name")): image for run in same for image in _whole_entries(out, run, new)}
    entries = {name: image for name, image in entries.items() if name in rows}
    files = dict(zip(new.names, new.files, strict=True))
    changed = [name for name, image in entries.items() if fingerprint(Path(str(files[name]))) != image["sha256"]]
    if changed and not redo_changed:
        count = len(changed)
        raise ResumeError(
            f"{count} image{'s have' if count > 1 else ' has'} changed since {'they were' if count > 1 else 'it was'} "
            f"classified, such as {files[changed[0]]}; classify them again with redo_changed (command line: "
            "--redo-changed), or all images without resume"
        )
    left = {files[name] for name in new.names if name not in entries or name in changed}
    return [entries[name] for name in new.names if name in entries and name not in changed and files[name] not in left]


def _whole_entries(out: Path, run: ClassificationRecord, new: ClassificationRecord) -> Iterator[dict[str, object]]:
    """Yield the entries of images that both runs list with the same planes, that did not fail and whose files exist."""
    wanted = {name: (file, planes) for file, name, planes in zip(new.files, new.names, new.planes, strict=True)}
    listed = {name: (file, planes) for file, name, planes in zip(run.files, run.names, run.planes, strict=True)}
    for image in run.images or ():
        name, written = image.get("name"), image.get("files")
        same = name in listed and wanted.get(str(name)) == listed[str(name)]
        if same and image.get("sha256") and not image.get("error") and isinstance(written, list):
            if all((out / Path(str(path)).name).exists() for path in written):
                yield image


def _check_way(
    new: ClassificationRecord,
    others: Collection[tuple[Path, ClassificationRecord]],
    same: Collection[ClassificationRecord],
) -> None:
    """Refuse to go on from a run of another model or of other options."""
    known = set(chain.from_iterable(run.names for run in same))
    for path, run in others:
        if (set(run.names) - known) & set(new.names):
            raise ResumeError(
                f"{path} is the record of another run, which differs in {'; '.join(differences(run, new))}; go on with "
                "the model and the options of that run, or classify all images again without resume"
            )
