"""Names of the columns of all tables that the program writes and reads; each name is written down only here."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

PLANE_COLUMNS: Final = ("position", "t", "z")
"""Columns that give the place of a plane in its image."""
OBJECT_COLUMNS: Final = ("label", "class", "shown", "area_px", "area_um2", "y", "x", "mean_evidence", "score")
"""Columns about an object, besides those of its image and plane, and before those with its evidence for each class.
`shown` is True for the objects in the masks."""
CELLS: Final = "cells"
"""Column with the number of cells, the foreground objects, of a plane."""

PLATE: Final = "plate"
WELL: Final = "well"
"""Columns that say where in a screen an image was taken: on which plate, and in which well."""
CONTROL: Final = "control"
"""Column that says what a well controls: negative, positive or empty; without text, nothing."""

UNLIKE: Final = "unlike"
UNLIKE_REASON: Final = "unlike reason"
"""Columns that say whether a plane is unlike the training images (above 1), and in what."""
NO_CLASS: Final = ""
"""The top class of a plane that shows nothing to classify."""
NOTHING: Final = "nothing to classify"
"""What is said in its place."""
INSTANCES: Final = "instances"
"""Column with the number of instances of a plane: places of its class maps."""

FIELD_COLUMNS: Final = ("plate", "well", "site")
"""Columns that give the place of a field in a screen."""
LAYOUT_COLUMNS: Final = ("treatment", "dose", "strain", "control", "label")
"""Columns that a layout table of a screen may have about a well; further ones keep their names."""

BAG_ANSWER: Final = "bag answer"
BAG_RIGHT: Final = "bag right"
"""Columns with the answer that all images of a group give as one bag, and whether it is right."""

_SCORE, _POOLED, _INSTANCE, _EVIDENCE, _CELLS, _SHARE = "score ", "P ", "p ", "evidence ", "cells ", "share "
_BAG = "bag "
_FOCUS, _SATURATED = "focus ", "saturated "
_MEAN, _Z, _P_VALUE, _Q_VALUE, _HIT = "mean ", "z ", "p value ", "q value ", "hit "

FIELDS_OF_WELL: Final = "fields"
FAILED_FIELDS: Final = "failed fields"
EMPTY_FIELDS: Final = "empty fields"
UNLIKE_FIELDS: Final = "unlike fields"
"""Columns of a well with the number of its fields, of those that failed, of those that show nothing to classify, and of
those unlike the training images."""
NOT_LOOKED_FOR: Final = "not looked for"
"""Column of a well with the classes whose cells were not looked for in all of its fields, and in how many not."""
TOP: Final = "top"
"""Column with the class of the highest score."""
ERROR_COLUMN: Final = "error"
"""Column with the reason why an image or one of its planes failed; without text, it did not."""
TREATMENT_COLUMNS: Final = ("treatment", "dose", "strain")
"""Columns of a layout that say what a well was given: wells that agree in all of them are replicates."""
DOSE: Final = "dose"


def unlike_sentence(value: float, reason: str, has_structure: bool) -> str:
    """Say in what a plane is unlike the training images, or that it shows nothing.

    Parameters
    ----------
    value, reason : float, str
        What the columns `unlike` and `unlike reason` hold.
    has_structure : bool
        Whether the plane shows something to classify.
    """
    what = f"unlike the training images ({value:.1f}): " if has_structure else ""
    return f"{what}{reason}" if what or reason else NOTHING


def score_column(name: str) -> str:
    """Return the name of the column with the score of a class."""
    return _SCORE + name


def pooled_column(name: str) -> str:
    """Return the name of the column with P of a class, the pooled probability of the image."""
    return _POOLED + name


def bag_score_column(name: str) -> str:
    """Return the name of the column with the score of a class for all instances of a group in one bag."""
    return _BAG + _SCORE + name


def bag_pooled_column(name: str) -> str:
    """Return the name of the column with P of a class for all instances of a group in one bag."""
    return _BAG + _POOLED + name


def mean_column(column: str) -> str:
    """Return the name of the column with the mean over the fields of a well, where `column` has their median."""
    return _MEAN + column


def z_column(name: str) -> str:
    """Return the name of the column with the robust z of a class against the negative controls of the plate."""
    return _Z + name


def p_value_column(name: str) -> str:
    """Return the name of the column with the one-sided p-value of a class against the negative controls."""
    return _P_VALUE + name


def q_value_column(name: str) -> str:
    """Return the name of the column with the p-value of a class adjusted to the false-discovery rate."""
    return _Q_VALUE + name


def hit_column(name: str) -> str:
    """Return the name of the column that says whether a well or treatment is a hit of a class."""
    return _HIT + name


def instance_column(name: str) -> str:
    """Return the name of the column with p of a class, the probability of one instance."""
    return _INSTANCE + name


def evidence_column(name: str) -> str:
    """Return the name of the column with an object's evidence for a class: against the reference, if there is one."""
    return _EVIDENCE + name


def cells_column(name: str) -> str:
    """Return the name of the column with the number of cells of a class in a plane."""
    return _CELLS + name


def share_column(name: str) -> str:
    """Return the name of the column with the share of a class in the cells of a plane, 0 to 1."""
    return _SHARE + name


def focus_column(channel: str) -> str:
    """Return the name of the column with the share of fine detail in a channel, 0 to 1; see `PlaneLook.fine_detail`."""
    return _FOCUS + channel


def saturated_column(channel: str) -> str:
    """Return the name of the column with the share of pixels of a channel at the maximum, 0 to 1."""
    return _SATURATED + channel


def measured_channels(columns: Iterable[object]) -> list[str]:
    """Return the channels whose focus was measured, from the names of columns."""
    return [str(name).removeprefix(_FOCUS) for name in columns if str(name).startswith(_FOCUS)]


def score_columns(classes: Iterable[str]) -> list[str]:
    """Return the names of the columns with the scores of some classes."""
    return [score_column(name) for name in classes]


def is_score(column: object) -> bool:
    """Whether a column holds the score of a class."""
    return str(column).startswith(_SCORE)


def is_bag(column: object) -> bool:
    """Whether a column holds the score or P of a class for a group in one bag."""
    return str(column).startswith((_BAG + _SCORE, _BAG + _POOLED))


def is_bag_score(column: object) -> bool:
    """Whether a column holds the score of a class for a group in one bag."""
    return str(column).startswith(_BAG + _SCORE)


def is_pooled(column: object) -> bool:
    """Whether a column holds P of a class."""
    return str(column).startswith(_POOLED)


def is_evidence(column: object) -> bool:
    """Whether a column holds the evidence of objects for a class."""
    return str(column).startswith(_EVIDENCE)


def is_count(column: object) -> bool:
    """Whether a column holds the number of cells of a plane, or the number or share of those of a class."""
    return column == CELLS or str(column).startswith((_CELLS, _SHARE))


def counted_classes(columns: Iterable[object]) -> list[str]:
    """Return the classes whose numbers of cells are among some columns."""
    return [str(name).removeprefix(_CELLS) for name in columns if str(name).startswith(_CELLS)]


def class_of(column: str) -> str:
    """Return the class whose score a column holds."""
    return column.removeprefix(_SCORE)
