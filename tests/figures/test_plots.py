"""Plots: what is drawn where, in every style, and saved as PNG and SVG."""

from __future__ import annotations

from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from imageio.v3 import imread
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex

from napari_milcnn.errors import OutputError
from napari_milcnn.figures.palette import class_colours
from napari_milcnn.figures.plots import (
    DARK,
    LIGHT,
    PAPER,
    confusion_figure,
    dose_figure,
    gallery_figure,
    histogram_figure,
    map_figure,
    reliability_figure,
    save_figure,
    svg,
)
from napari_milcnn.metrics.calibration import reliability_curve

CLASSES = ("cell periphery", "b$x$", "nucleus")
CONFUSION = pd.DataFrame([[8, 2, 0], [0, 1, 0], [1, 0, 0]], CLASSES, CLASSES)
POINTS = pd.DataFrame({"compound": "", "dose": [0.0, 0, 1, 100], "group": list("abcd"), "value": [0.1, 0.3, 0.5, 0.9]})
CURVE = pd.DataFrame({"compound": "", "dose": [0.0, 1, 100], "mean": [0.2, 0.5, 0.9], "spread": [0.14, np.nan, np.nan]})
POINTS_OF_WELLS = np.array([[0.0, 1], [2, 3], [4, -1]])
STYLES = pytest.mark.parametrize("style", [PAPER, LIGHT, DARK])


def every_figure(style=PAPER, size=None):
    """One figure of each kind."""
    curve = reliability_curve(np.array([0.1, 0.9, 0.95]), np.array([0.0, 1, 1]))
    return [
        histogram_figure({"cell periphery": 3, "b$x$": 0, "nucleus": 5}, {"nucleus": 8, "b$x$": 0, "cell periphery": 0},
                         style=style, size=size),
        confusion_figure(CONFUSION, style, size),
        confusion_figure(CONFUSION.set_axis(["rightly yes", "wrongly yes", "rightly no"], axis=1), style, size),
        reliability_figure(curve, True, style, size),
        dose_figure(POINTS, CURVE, "dose", "score of b$x$", style, size),
        map_figure(POINTS_OF_WELLS, pd.Series(["nucleus", "b$x$", ""], name="top class"), CLASSES, None, style, size),
        map_figure(POINTS_OF_WELLS, pd.Series([0.1, 100, np.nan], name="dose"), (), np.array([True, False, False]),
                   style, size),
        gallery_figure([np.zeros((9, 12, 3), np.uint8)] * 5, ["a$b\n.97"] * 5, style),
    ]  # fmt: skip


@STYLES
def test_every_figure_fits_the_width_of_a_dock_in_every_style(style):
    """It has the background of the style, no text leaves the figure, and matplotlib's settings are unchanged."""
    before = dict(mpl.rcParams)
    for figure in every_figure(style, (3.1, 3.3)):
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        assert to_hex(np.asarray(canvas.buffer_rgba())[0, 0] / 255) == style.ground
        box, room = figure.get_tightbbox(canvas.get_renderer()), figure.get_size_inches()
        assert box.x0 > -0.05
        assert box.y0 > -0.05
        assert box.x1 < room[0] + 0.05
        assert box.y1 < room[1] + 0.05
    assert dict(mpl.rcParams) == before


def test_bars_of_the_histogram_show_answers_and_lines_show_labels():
    figure = histogram_figure({"a": 3, "b": 5}, {"a": 8, "b": 0})
    axes = figure.axes[0]
    assert [bar.get_width() for bar in axes.patches] == [3, 5]
    assert [to_hex(bar.get_facecolor()) for bar in axes.patches] == list(class_colours(["a", "b"]).values())
    assert [path.vertices[0, 0] for path in axes.collections[0].get_paths()] == [8, 0]


def test_counts_of_the_confusion_are_in_their_cells():
    axes = confusion_figure(CONFUSION).axes[0]
    counts = {tuple(map(int, text.get_position()[::-1])): text.get_text() for text in axes.texts}
    assert counts == {(0, 0): "8", (0, 1): "2", (1, 1): "1", (2, 0): "1"}
    assert to_hex(axes.texts[1].get_color()) == PAPER.wrong
    assert to_hex(axes.texts[0].get_color()) == PAPER.on_accent


def test_dose_zero_is_drawn_left_of_the_others():
    axes = dose_figure(POINTS, CURVE, "dose", "score").axes[0]
    dots, line = axes.lines[:2]
    assert list(dots.get_xdata()) == [0.1, 0.1, 1, 100]
    assert list(line.get_ydata()) == [0.2, 0.5, 0.9]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0", "1", "10", "100"]


def test_compounds_have_curves_of_their_own():
    points, curve = (pd.concat([one.assign(compound=name) for name in ("x", "y$z$")]) for one in (POINTS, CURVE))
    figure = dose_figure(points, curve, "dose", "score")
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["x", r"y\$z\$"]
    assert "<!-- y$z$ -->" in svg(figure).decode()  # as text: in a formula the dollar signs would be gone


def test_wells_of_a_map_have_the_colours_of_their_classes_and_grey_is_what_is_not_known():
    top = pd.Series(["nucleus", "b$x$", ""], name="top class")
    axes = (figure := map_figure(POINTS_OF_WELLS, top, CLASSES, np.array([False, True, False]))).axes[0]
    wells, rings = axes.collections
    colours = class_colours(CLASSES)
    assert [to_hex(one) for one in wells.get_facecolors()] == [colours["nucleus"], colours["b$x$"], "#a3abb5"]
    np.testing.assert_array_equal(rings.get_offsets(), POINTS_OF_WELLS[1:2])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [r"b\$x\$", "nucleus", "not known"]
    doses = map_figure(POINTS_OF_WELLS, pd.Series([0.1, 100, np.nan], name="dose")).axes[0].collections[0]
    assert [to_hex(one) for one in doses.get_facecolors()] == ["#440154", "#fde725", "#a3abb5"]
    with_none = map_figure(POINTS_OF_WELLS, pd.Series([0.0, 0.01, 100], name="dose")).axes[0].collections[0]
    assert [to_hex(one) for one in with_none.get_facecolors()] == ["#440154", "#440154", "#fde725"]  # on a logarithm
    plates = map_figure(POINTS_OF_WELLS, pd.Series(["P2", "P1", "P2"], name="plate")).axes[0].collections[0]
    assert [to_hex(one) for one in plates.get_facecolors()] == [
        class_colours(["P1", "P2"])[name] for name in ("P2", "P1", "P2")
    ]


def test_saved_pictures_are_read_back(tmp_path):
    for number, figure in enumerate(every_figure()):
        save_figure(figure, tmp_path / f"{number}.png")
        assert imread(tmp_path / f"{number}.png").std() > 1
        save_figure(figure, tmp_path / f"{number}.svg")
        assert ElementTree.parse(tmp_path / f"{number}.svg").getroot().tag.endswith("svg")
    with pytest.raises(OutputError, match=r"x\.pdf ends in \.pdf; expected a name that ends in \.png or \.svg"):
        save_figure(figure, tmp_path / "x.pdf")


def test_equal_figures_give_the_same_svg():
    first, second = (svg(confusion_figure(CONFUSION)) for _ in range(2))
    assert first == second
