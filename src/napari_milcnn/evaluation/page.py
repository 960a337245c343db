"""What the pages of evaluations and of screens share: one file, style, tables, numbers, and pictures inside the file.

A page has no scripts and no links to other files, so that it can be mailed, printed, and opened years later. The
templates escape everything that a user typed (names of files, classes, groups), and show what is hidden in it.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from typing import NamedTuple

import jinja2
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from napari_milcnn.figures.plots import svg
from napari_milcnn.untrusted import visible


def rendered(package: str, template: str, context: Mapping[str, object]) -> str:
    """Return a page.

    Parameters
    ----------
    package : str
        The package in whose folder `templates` the template is. It may extend page.html, and import table.html.
    template : str
        Name of the template.
    context : mapping
        Its variables.
    """
    here = jinja2.PackageLoader("napari_milcnn.evaluation", "templates")
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader([jinja2.PackageLoader(package, "templates"), here]),
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        finalize=_visible,
    )  # fmt: skip
    environment.filters |= {"number": number_text, "percent": _percent_text}
    return environment.get_template(template).render(context)


def _visible(value: object) -> object:
    """Write hidden characters as escapes in whatever a page shows; the HTML of a page stays HTML."""
    return type(value)(visible(value, kept="\n")) if isinstance(value, str) else value


def number_text(value: object) -> str:
    """Write a number as the page shows it, with an en dash for one that could not be measured."""
    if not isinstance(value, float | np.floating):
        return str(value)
    return "–" if math.isnan(value) else f"{value:.3f}"


def _percent_text(value: float) -> str:
    return "–" if math.isnan(value) else f"{100 * value:.1f} %"


class PageTable(NamedTuple):
    """A table as the page shows it."""

    head: list[str]
    rows: list[list[object]]


def page_table(table: pd.DataFrame) -> PageTable:
    """Return head and rows of a table; columns in which every cell is NaN are left out."""
    kept = [str(name) for name in table if table[name].notna().any()]
    return PageTable(kept, [[row[name] for name in kept] for row in table[kept].to_dict("records")])


def png_uri(picture: np.ndarray) -> str:
    """Return a picture, uint8 (Y, X, 3), as a data URI."""
    from imageio.v3 import imwrite

    return _data_uri("png", imwrite("<bytes>", picture, extension=".png"))


def svg_uri(figure: Figure) -> str:
    """Return a figure as a data URI."""
    return _data_uri("svg+xml", svg(figure))


def _data_uri(kind: str, data: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
