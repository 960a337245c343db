"""Find the images of results again after they were moved."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from itertools import takewhile
from pathlib import Path

from napari_milcnn.errors import ResultsError
from napari_milcnn.images.paths import as_on_disk, composed, files_of, joined_path, names_by_form
from napari_milcnn.results.layout import joined_by_itself
from napari_milcnn.results.opened import ABSOLUTE_PATH, LISTED, TAILS, OpenedResults, path_parts

_NamesByForm = dict[str, list[str]]
"""Composed form of each name in a folder -> the names with this form."""


class _Folders:
    """Names of the files in folders; each folder is listed once, because single look-ups take minutes on a network.

    Nothing is looked for below a folder that is not there.
    """

    def __init__(self) -> None:
        self._names: dict[str, tuple[Path, _NamesByForm] | None] = {}
        self._missing: set[str] = set()

    def find(self, path: str) -> Path | None:
        """Return the path of a file as it lies on the disk, whatever the form of its accents; None if it is not there.

        Of two files whose names look the same, the one that is written as in `path` is taken.
        """
        files = files_of(Path(path)) if "{" in path else ()
        if len(files) > 1:
            parts = [self.find(str(file)) for file in files]
            there = [part for part in parts if part is not None]
            return joined_path(there) if len(there) == len(files) else None
        folder, name = os.path.split(path)
        if folder not in self._names:
            self._names[folder] = self._listed(folder)
        listed = self._names[folder]
        if listed is None:
            return None
        home, names = listed
        alike = names.get(composed(name), [])
        found = name if name in alike else alike[0] if len(alike) == 1 else None
        return None if found is None else home / found

    def _listed(self, folder: str) -> tuple[Path, _NamesByForm] | None:
        """Return a folder as it lies on the disk with its files; None if it cannot be listed."""
        parent, name = os.path.split(folder)
        known = self._names.get(parent)
        if known is not None and composed(name) not in known[1]:
            return None
        above = list(_with_those_above(folder))
        if not self._missing.isdisjoint(above):
            return None
        home = as_on_disk(Path(folder))
        try:
            return home, names_by_form(os.listdir(home))
        except FileNotFoundError:
            if folder.isascii():  # else a folder may be there in another form
                self._missing.update(takewhile(lambda one: not os.path.lexists(one), above))
            return None
        except (OSError, ValueError):
            return None


def _with_those_above(folder: str) -> Iterator[str]:
    """Yield a folder and the folders that it lies in, the nearest first."""
    while folder:
        yield folder
        above = os.path.dirname(folder)
        folder = "" if above == folder else above


def located(found: OpenedResults, recorded: dict[str, list[str]], root: Path | None = None) -> OpenedResults:
    """Find each image in the folder `root` if one is given, where the record says, or beside the tables."""
    assert found.path is not None
    folders, folder = _Folders(), found.path.parent
    bases = tuple(map(str, (folder, folder.parent)))
    files = {}
    for file in dict.fromkeys(found.table["file"]):
        places = _places(found.recorded_path(file), recorded, bases, None if root is None else str(root))
        files[file] = next(filter(None, map(folders.find, places)), None)
    return replace(found, files=files)


def _places(file: str, recorded: dict[str, list[str]], bases: tuple[str, ...], root: str | None) -> Iterator[str]:
    """Yield the paths where an image may be, the likeliest first."""
    parts = path_parts(file)
    if root is not None:
        yield from (os.path.join(root, *parts[-n:]) for n in TAILS)
    same = [composed(part) for part in parts]
    yield from (
        path
        for path in recorded.get(same[-1], ())
        if [composed(part) for part in path_parts(path)[-len(parts) :]] == same
    )
    absolute = ABSOLUTE_PATH.match(file)
    if absolute:
        yield file
    else:
        yield from (os.path.join(base, *parts) for base in (*bases, os.getcwd()))
    yield from (os.path.join(base, *parts[-n:]) for base in bases for n in (TAILS if absolute else (1,)))


def with_images(found: OpenedResults, folder: Path) -> OpenedResults:
    """Search the images in a folder and in those of its folders that their paths name.

    Raises
    ------
    ResultsError
        If none of the images is there.
    """
    if found.path is None:
        return found
    old_paths = {composed(path_parts(found.recorded_path(file))[-1]): [str(path)]
                 for file, path in found.files.items() if path is not None}  # fmt: skip
    moved = located(found, old_paths, folder)
    if not any(moved.files.values()):
        raise ResultsError(f"{folder} holds none of the {len(moved.files)} images, such as {missing_text(moved, 1)}")
    return joined_by_itself(moved) if moved.layout is None else moved


def missing_text(found: OpenedResults, count: int = LISTED) -> str:
    """List the images that were not found."""
    names = found.missing
    more = f" and {len(names) - count} more" if len(names) > count else ""
    return ", ".join(names[:count]) + more
