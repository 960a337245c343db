"""The colour of each class: the same in pictures, layers, tables and plots, and safe for colour-blind readers."""

from __future__ import annotations

from collections.abc import Sequence

_OKABE_ITO = ("#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7", "#ffffff")
"""Okabe & Ito 2008. White replaces black, which cannot be seen on a dark image."""
_TOL_MUTED = (
    "#44aa99",
    "#882255",
    "#ddcc77",
    "#88ccee",
    "#aa4499",
    "#117733",
    "#999933",
    "#cc6677",
    "#6699cc",
    "#332288",
)
"""Tol 2021, the scheme 'muted', for further classes."""
PALETTE_SIZE = len(_OKABE_ITO + _TOL_MUTED)
"""Number of classes with different colours."""

CHOSEN = "#e6007e"
"""Colour around what the user chose, which no class and no scale has."""
NO_VALUE = "#a3abb5"
"""Colour of what has no value: a grey that no class and no scale has."""


def class_colours(classes: Sequence[str]) -> dict[str, str]:
    """Give each class a colour.

    Parameters
    ----------
    classes : sequence of str
        In the model's order, which decides the colours; after eighteen classes the colours repeat.

    Returns
    -------
    dict
        Class -> colour as #rrggbb.
    """
    colours = _OKABE_ITO + _TOL_MUTED
    return {name: colours[i % len(colours)] for i, name in enumerate(classes)}
