"""One colour for each class: the same in pictures, layers, tables and plots, and told apart by colour-blind eyes."""

from __future__ import annotations

from collections.abc import Sequence

_OKABE_ITO = ("#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7", "#ffffff")
"""Okabe & Ito 2008, with white in place of black, which no dark image shows."""
_MORE = ("#44aa99", "#882255", "#ddcc77", "#88ccee", "#aa4499", "#117733", "#999933", "#cc6677", "#6699cc", "#332288")
"""Tol 2021, 'muted', for further classes."""


def class_colours(classes: Sequence[str]) -> dict[str, str]:
    """Class -> colour as #rrggbb, by the place of the class in the model; repeats after eighteen."""
    colours = _OKABE_ITO + _MORE
    return {name: colours[i % len(colours)] for i, name in enumerate(classes)}
