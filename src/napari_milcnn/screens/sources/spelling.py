"""Names of plates, wells or treatments that only one of two tables has, and those that differ in spelling alone."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from napari_milcnn.images.paths import printable

_MOST_SAID: Final = 4
"""Most names that a sentence lists."""


def names_of_one_side(path: Path, what: str, only_named: list[str], only_there: list[str]) -> list[str]:
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
    more = ["\N{HORIZONTAL ELLIPSIS}"] if len(names) > _MOST_SAID else []
    listed = ", ".join([*map(printable, names[:_MOST_SAID]), *more])
    return f"{len(names)} {what}{'s'[: len(names) != 1]} ({listed})"


def _plain_spelling(name: str) -> str:
    """Return what spellings of one plate, or well, have in common: "1" for plate_1, Plate01, P1 and week/plate-1."""
    words = re.findall(r"[^\W\d_]+|\d+", name.casefold().rsplit("/", 1)[-1])
    return " ".join(word.lstrip("0") or "0" for word in words if word not in ("plate", "platte", "p", "pl"))
