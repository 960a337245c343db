"""Plots of results, for report.html, for the docks and for the files that the Results dock saves.

Each function draws one figure in the colours of a style and leaves matplotlib's settings as they were. Names of classes
that a user typed are shown literally: a dollar sign in them does not start a formula.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import RLock

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, LogNorm, Normalize, to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from napari_milcnn.atomic_write import replacing
from napari_milcnn.errors import OutputError
from napari_milcnn.figures.palette import CHOSEN, NO_VALUE, class_colours
from napari_milcnn.images.paths import printable
from napari_milcnn.metrics.calibration import Reliability

PICTURE_SUFFIXES = (".png", ".svg")
"""Suffixes of the files to which a figure can be saved."""
_FONT_SIZE = 9
_LOG_GAP = 10
"""The dose 0 is drawn at the smallest other dose divided by this."""
_MOST_NAMES = 18
"""With more texts than this, the legend of a map is left out: colours repeat."""
_MOST_COMPOUNDS = 8
"""With more compounds than this, the legend is left out."""
_SETTINGS = RLock()
"""Held while matplotlib's settings are changed, which all threads share."""

Size = tuple[float, float]
"""Width and height of a figure, in inches."""


@dataclass(frozen=True)
class FigureStyle:
    """Colours of a figure, as #rrggbb.

    Attributes
    ----------
    text, ground : str
        Text, and the background.
    faint, empty : str
        Guide lines, and empty cells.
    accent, on_accent : str
        Curves and full cells, and text on them.
    wrong : str
        Counts of wrong answers.
    soft : str
        Bars that show counts.
    """

    text: str = "#1c2128"
    ground: str = "#ffffff"
    faint: str = "#b4bac4"
    empty: str = "#e5e8ec"
    accent: str = "#0072b2"
    on_accent: str = "#ffffff"
    wrong: str = "#d55e00"
    soft: str = "#9db7cc"


PAPER = FigureStyle()
"""For report.html and saved figures."""
LIGHT = FigureStyle(ground="#efebe9", faint="#a7a5a4", empty="#d6d0ce")
"""For napari's light theme."""
DARK = FigureStyle(text="#f0f1f2", ground="#262930", faint="#6a7380", empty="#414851", accent="#56b4e9",
                   on_accent="#101216", wrong="#f0a04b", soft="#5d7f99")  # fmt: skip
"""For napari's dark theme."""


@contextmanager
def _styled_figure(style: FigureStyle, size: Size) -> Iterator[Figure]:
    """Yield an empty figure; everything drawn into it inside the block has the colours of the style."""
    with _SETTINGS, rc_context({
        "font.size": _FONT_SIZE, "text.color": style.text, "axes.labelcolor": style.text, "xtick.color": style.text,
        "ytick.color": style.text, "axes.edgecolor": style.faint, "axes.facecolor": "none",
    }):  # fmt: skip
        figure = Figure(figsize=size, facecolor=style.ground, layout="constrained")
        yield figure
        for axes in figure.axes:
            axes.tick_params(which="both", colors=style.text)  # also for ticks that are made when the figure is drawn


def _short(name: object, length: int = 24) -> str:
    """Shorten a name to `length` characters, and escape dollar signs."""
    text = printable(name)
    return (text if len(text) <= length else f"{text[: length - 1]}…").replace("$", r"\$")


def _open_frame(*axes: Axes) -> None:
    """Hide the upper and right edges of the axes."""
    for one in axes:
        one.spines[["top", "right"]].set_visible(False)


def histogram_figure(
    answers: Mapping[str, int],
    known: Mapping[str, int] | None = None,
    unit: str = "images",
    style: FigureStyle = PAPER,
    size: Size | None = None,
) -> Figure:
    """Draw how often each class is the answer.

    Parameters
    ----------
    answers : mapping
        Class -> number of images, or planes, to which the model gives it.
    known : mapping, optional
        Class -> number of images with this label, drawn as a line across the bar of the class.
    unit : str
        What is counted: images or planes.
    style, size
        Colours, and width and height in inches.
    """
    names, colours = list(answers), class_colours(list(answers))
    with _styled_figure(style, size or (4.6, 0.9 + 0.3 * len(names))) as figure:
        axes = figure.subplots()
        heights = np.arange(len(names))[::-1]
        bars = axes.barh(heights, list(answers.values()), 0.7, color=[colours[name] for name in names],
                         edgecolor=style.faint, linewidth=0.6)  # fmt: skip
        axes.bar_label(bars, [f"{count:,}" for count in answers.values()], padding=4)
        axes.margins(x=0.16)
        if known is not None:
            axes.vlines([known[name] for name in names], heights - 0.42, heights + 0.42, color=style.text, linewidth=2)
            handles = [Line2D([], [], color=style.text, linewidth=2, label="label")]
            figure.legend(handles=handles, loc="outside upper right", frameon=False)
        axes.set_yticks(heights, [_short(name) for name in names])
        axes.set_xlim(left=0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set(xlabel=unit)
        axes.tick_params(axis="y", length=0)
        _open_frame(axes)
    return figure


def confusion_figure(table: pd.DataFrame, style: FigureStyle = PAPER, size: Size | None = None) -> Figure:
    """Draw a confusion table; the colour of a cell is its share of the row.

    Parameters
    ----------
    table : DataFrame
        Counts. With the same names in rows and columns: labels against answers. Otherwise one row per class, with the
        columns rightly yes, wrongly yes, wrongly no and rightly no.
    style, size
        Colours, and width and height in inches.
    """
    counts, square = table.to_numpy(), list(table.index) == list(table.columns)
    rows, columns = ([_short(name) for name in names] for names in (table.index, table.columns))
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    side = min(9.0, max(3.2, 0.46 * len(rows) + 1.9))
    with _styled_figure(style, size or (side, side * 0.92)) as figure:
        axes = figure.subplots()
        ramp = LinearSegmentedColormap.from_list("shares", [style.ground, style.accent])
        axes.imshow(shares, cmap=ramp, vmin=0, vmax=1.15, aspect="equal" if square else "auto")
        room = figure.get_figwidth() / (len(columns) + 4)
        for (row, column), count in np.ndenumerate(counts):
            right = row == column if square else not columns[column].startswith("wrongly")
            usual = style.text if right else style.wrong
            colour = style.on_accent if shares[row, column] > 0.6 else usual
            if count:
                axes.text(column, row, f"{count:,}", ha="center", va="center", color=colour,
                          fontsize=_FONT_SIZE if room > 0.3 else 6)  # fmt: skip
        axes.set_xticks(range(len(columns)), columns, rotation=40, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(len(rows)), rows)
        axes.set(**({"xlabel": "predicted", "ylabel": "label"} if square else {}))
        axes.tick_params(length=0)
        axes.set_xticks(np.arange(len(columns) + 1) - 0.5, minor=True)
        axes.set_yticks(np.arange(len(rows) + 1) - 0.5, minor=True)
        axes.grid(which="minor", color=style.empty, linewidth=0.8)
        axes.tick_params(which="minor", length=0)
    return figure


def reliability_figure(
    curve: Reliability, single_label: bool, style: FigureStyle = PAPER, size: Size | None = None
) -> Figure:
    """Draw how often answers are right against their confidence, and below it the number of answers.

    Parameters
    ----------
    curve : Reliability
        Confidence, share of right answers and number of answers in each bin.
    single_label : bool
        Whether each image has one label, so that an answer is the top class of an image.
    style, size
        Colours, and width and height in inches.
    """
    filled = curve.count > 0
    centres = (np.arange(len(curve.count)) + 0.5) / len(curve.count)
    with _styled_figure(style, size or (3.8, 3.9)) as figure:
        upper, lower = figure.subplots(2, 1, height_ratios=(3.2, 1), sharex=True)
        upper.plot([0, 1], [0, 1], color=style.faint, linestyle="--", linewidth=1)
        upper.plot(curve.confidence[filled], curve.observed[filled], "o-", color=style.accent, markersize=5,
                   linewidth=1.5)  # fmt: skip
        upper.set(
            xlim=(0, 1), ylim=(-0.02, 1.02), ylabel="share of right answers" if single_label else "share with the class"
        )
        lower.bar(centres, curve.count, width=0.9 / len(curve.count), color=style.soft)
        lower.set(xlabel="score of the top class" if single_label else "score of a class",
                  ylabel="images" if single_label else "answers")  # fmt: skip
        _open_frame(upper, lower)
    return figure


def dose_figure(
    points: pd.DataFrame,
    curve: pd.DataFrame,
    dose: str,
    value: str,
    style: FigureStyle = PAPER,
    size: Size | None = None,
    fitted: Callable[[np.ndarray], np.ndarray] | None = None,
) -> Figure:
    """Draw a value against dose on a logarithmic axis.

    Parameters
    ----------
    points : DataFrame
        One row per group of images, drawn as a faint point: compound, dose, value.
    curve : DataFrame
        One row per compound and dose: compound, dose, mean, spread (standard deviation; NaN for a single group).
    dose, value : str
        Labels of the axes.
    style, size
        Colours, and width and height in inches.
    fitted
        Function that gives the value of a fitted curve at some doses; without it, the means are joined by lines.

    Notes
    -----
    The dose 0 has no logarithm; it is drawn left of the others.
    """
    positive = curve["dose"][curve["dose"] > 0]
    smallest = float(positive.min()) if len(positive) else 1.0
    compounds = list(dict.fromkeys(curve["compound"]))
    colours = {compounds[0]: style.accent} if len(compounds) == 1 else class_colours(compounds)
    with _styled_figure(style, size or (4.6, 3.4)) as figure:
        axes = figure.subplots()
        for name, means in curve.groupby("compound", sort=False):
            own = points[points["compound"] == name]
            axes.plot(_dose_position(own["dose"], smallest), own["value"], ".", color=colours[str(name)], alpha=0.45,
                      markersize=6)  # fmt: skip
            axes.errorbar(_dose_position(means["dose"], smallest), means["mean"], means["spread"].fillna(0),
                          fmt="o-" if fitted is None else "o",
                          color=colours[str(name)], capsize=3, linewidth=1.2, label=_short(name))  # fmt: skip
        if fitted is not None:
            doses = np.geomspace(smallest, max(float(curve["dose"].max()), smallest), 200)
            axes.plot(doses, fitted(doses), color=style.accent, linewidth=1.4)
        axes.set_xscale("log")
        _set_dose_ticks(axes, curve["dose"], smallest)
        axes.set(xlabel=_short(dose), ylabel=_short(value, 44), ylim=(-0.03, 1.03))
        _open_frame(axes)
        if 1 < len(compounds) <= _MOST_COMPOUNDS:
            figure.legend(loc="outside lower center", ncols=2, frameon=False)
    return figure


def _dose_position(dose: pd.Series, smallest: float) -> pd.Series:
    """Return where doses are drawn on the logarithmic axis; `smallest` is the smallest dose above 0."""
    return dose.where(dose > 0, smallest / _LOG_GAP)


def _set_dose_ticks(axes: Axes, doses: pd.Series, smallest: float) -> None:
    """Set about six ticks at powers of ten, and one for the dose 0 if there is one."""
    highest = max(float(doses.max()), smallest)
    powers = np.arange(np.floor(np.log10(smallest)), np.ceil(np.log10(highest)) + 1)
    powers = powers[:: max(1, len(powers) // 6)]
    ticks = [tick for tick in 10.0**powers if smallest / 1.5 <= tick <= highest * 1.5] or [smallest]
    zero = [smallest / _LOG_GAP] if (doses <= 0).any() else []
    axes.set_xticks([*zero, *ticks], [*("0" for _ in zero), *(f"{tick:g}" for tick in ticks)])
    axes.minorticks_off()


def map_figure(
    points: np.ndarray,
    values: pd.Series,
    classes: Sequence[str] = (),
    chosen: np.ndarray | None = None,
    style: FigureStyle = PAPER,
    size: Size | None = None,
) -> Figure:
    """Draw wells as points of a map, coloured by something that is known of them.

    Parameters
    ----------
    points : ndarray
        Their places, float (wells, 2).
    values : Series
        What they are coloured by, named in the legend: numbers, or text; a well without one is grey.
    classes : sequence of str
        The classes of the model, if the texts are classes, so that each has its own colour.
    chosen : ndarray, optional
        Whether a well has a ring, bool (wells,).
    style, size
        Colours, and width and height in inches.
    """
    if values.dtype.kind in "iuf":
        scale = _number_scale(values)
        shades = scale.to_rgba(np.clip(values.fillna(1.0).to_numpy(float), *scale.get_clim()))
        colours = [to_hex(one) if known else NO_VALUE for one, known in zip(shades, values.notna(), strict=True)]
        names: dict[str, str] = {}
    else:
        texts, scale = values.astype(object).where(values.notna(), ""), None
        names = class_colours(list(classes) or sorted({str(name) for name in texts} - {""}))
        names = {name: colour for name, colour in names.items() if (texts == name).any()}
        colours = [names.get(str(text), NO_VALUE) for text in texts]
    names |= {"not known": NO_VALUE} if NO_VALUE in colours else {}
    dot = float(np.clip(600 / max(len(points), 1), 5, 28))
    with _styled_figure(style, size or (4.6, 4.2)) as figure:
        axes = figure.subplots()
        axes.scatter(points[:, 0], points[:, 1], s=dot, c=colours, edgecolors=style.faint, linewidths=0.4)
        if chosen is not None and chosen.any():
            axes.scatter(points[chosen, 0], points[chosen, 1], s=dot + 50, facecolors="none", edgecolors=CHOSEN,
                         linewidths=1.4)  # fmt: skip
        axes.set(xticks=[], yticks=[], xlabel="main direction 1", ylabel="main direction 2")
        if scale is not None:
            bar = figure.colorbar(scale, ax=axes, location="bottom", fraction=0.05, aspect=30)
            bar.set_label(_short(values.name))
        if len(names) <= _MOST_NAMES:
            _point_legend(figure, names, style)
        _open_frame(axes)
    return figure


def _number_scale(values: pd.Series) -> ScalarMappable:
    """Return the colours of numbers: logarithmic where they span two decades or more, as doses do.

    0 then has the first colour, that of the smallest number above it.
    """
    low, high = float(np.nan_to_num(values.min())), float(np.nan_to_num(values.max()))
    least = float(np.nan_to_num(values[values > 0].min()))
    if low >= 0 and 0 < least <= high / 100:
        return ScalarMappable(LogNorm(least, high, clip=True), "viridis")
    return ScalarMappable(Normalize(low, high if high > low else low + 1), "viridis")


def _point_legend(figure: Figure, names: Mapping[str, str], style: FigureStyle) -> None:
    handles = [Line2D([], [], marker="o", linestyle="", markersize=6, markerfacecolor=colour, label=_short(name),
                      markeredgecolor=style.faint) for name, colour in names.items()]  # fmt: skip
    if handles:
        figure.legend(handles=handles, loc="outside lower center", ncols=2, frameon=False)


def gallery_figure(
    pictures: Sequence[np.ndarray], titles: Sequence[str], style: FigureStyle = PAPER, columns: int = 4
) -> Figure:
    """Draw thumbnails in rows, with a title under each.

    Parameters
    ----------
    pictures : sequence of ndarray
        Thumbnails, uint8 (Y, X, 3) each.
    titles : sequence of str
        One for each thumbnail; may have several lines.
    style : FigureStyle
        Colours.
    columns : int
        Thumbnails in a row.
    """
    rows = -(-len(pictures) // columns)
    with _styled_figure(style, (1.7 * columns, 1.95 * rows)) as figure:
        grid = figure.subplots(rows, columns, squeeze=False).ravel()
        for axes in grid:
            axes.axis("off")
        for axes, picture, title in zip(grid, pictures, titles, strict=False):
            axes.imshow(picture)
            axes.set_title("\n".join(_short(line) for line in title.split("\n")), fontsize=7, y=-0.02, va="top")
    return figure


def svg(figure: Figure) -> bytes:
    """Return a figure as SVG with a transparent background; equal figures give the same bytes."""
    buffer = io.BytesIO()
    with _SETTINGS, rc_context({"svg.hashsalt": "napari-milcnn"}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return buffer.getvalue()


def picture_kind(path: Path) -> str:
    """Return the suffix of a file that a picture is saved to, .png or .svg.

    Raises
    ------
    OutputError
        If it has another one.
    """
    kind = path.suffix.lower()
    if kind not in PICTURE_SUFFIXES:
        raise OutputError(f"{path.name} ends in {kind or 'nothing'}; expected a name that ends in .png or .svg")
    return kind


def save_figure(figure: Figure, path: Path) -> None:
    """Save a figure as PNG or SVG, as the suffix of the file says.

    Raises
    ------
    OutputError
        If the suffix is another one, or the file cannot be written.
    """
    kind = picture_kind(path)
    with replacing(path) as draft, _SETTINGS, rc_context({"svg.hashsalt": "napari-milcnn"}):
        if kind == ".svg":
            figure.savefig(draft, format="svg", facecolor=figure.get_facecolor(), metadata={"Date": None})
        else:
            figure.savefig(draft, format="png", facecolor=figure.get_facecolor(), dpi=200)
