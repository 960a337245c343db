"""Names of the columns of all tables that the program writes and reads; each name is written down only here."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

PLANE_COLUMNS: Final = ("position", "t", "z")
"""Columns that give the place of a plane in its image."""
OBJECT_COLUMNS: Final = ("label", "class", "area_px", "area_um2", "y", "x", "mean_evidence", "score")
"""Columns about an object of a mask, besides those of its image and plane."""

UNLIKE: Final = "unlike"
UNLIKE_REASON: Final = "unlike reason"
"""Columns that say whether a plane is unlike the training images (above 1), and in what."""
NO_CLASS: Final = ""
"""The top class of a plane that shows nothing to classify."""
NOTHING: Final = "nothing to classify"
"""What is said in its place."""

_SCORE, _POOLED, _INSTANCE = "score ", "P ", "p "


def score_column(name: str) -> str:
    """Return the name of the column with the score of a class."""
    return _SCORE + name


def pooled_column(name: str) -> str:
    """Return the name of the column with P of a class, the pooled probability of the image."""
    return _POOLED + name


def instance_column(name: str) -> str:
    """Return the name of the column with p of a class, the probability of one instance."""
    return _INSTANCE + name


def score_columns(classes: Iterable[str]) -> list[str]:
    """Return the names of the columns with the scores of some classes."""
    return [score_column(name) for name in classes]


def is_score(column: object) -> bool:
    """Whether a column holds the score of a class."""
    return str(column).startswith(_SCORE)


def is_pooled(column: object) -> bool:
    """Whether a column holds P of a class."""
    return str(column).startswith(_POOLED)


def class_of(column: str) -> str:
    """Return the class whose score a column holds."""
    return column.removeprefix(_SCORE)
