"""A matplotlib figure in a dock, drawn beside the window because drawing takes longer than one frame."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.utils.theme import get_theme
from qtpy.QtCore import QPointF, QTimer
from qtpy.QtWidgets import QLabel, QSizePolicy, QWidget

from napari_milcnn.plugin.qt.forms import vertical_layout
from napari_milcnn.plugin.qt.icons import array_pixmap
from napari_milcnn.plugin.qt.job import Ending, Job

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from napari.viewer import Viewer

    from napari_milcnn.figures.plots import FigureStyle

_DPI = 100
_MINIMUM_WIDTH = 200
"""Width of the narrowest picture, in px."""
_REDRAW_DELAY = 150
"""Time for which the width has to stay the same before the figure is drawn again, in ms."""


def figure_style(viewer: Viewer) -> FigureStyle:
    """Return the colours of figures that fit napari's theme; its background decides between light and dark."""
    from napari_milcnn.figures.plots import DARK, LIGHT

    ground = get_theme(viewer.theme).background.as_hex()
    ground = ground if len(ground) > 4 else "#" + "".join(2 * digit for digit in ground[1:])
    light = sum(int(ground[i : i + 2], 16) for i in (1, 3, 5)) > 3 * 128
    return replace(LIGHT if light else DARK, ground=ground)


class FigureBox(QWidget):
    """Shows one figure at a time, as wide as the dock and with a fixed height in px.

    Attributes
    ----------
    figure : Figure or None
        The figure that is in view, once it is drawn.
    """

    def __init__(self, name: str, height: int) -> None:
        super().__init__()
        self.picture = QLabel()
        self.picture.setFixedHeight(height)
        self.picture.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.picture.setAccessibleName(name)
        self.figure: Figure | None = None
        self._make: Callable[[], Figure] | None = None
        self._drawn: tuple[Callable[[], Figure], int, int] | None = None
        self._job: Job | None = None
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(_REDRAW_DELAY)
        self._timer.timeout.connect(self._draw)
        vertical_layout(self).addWidget(self.picture)
        self.hide()

    @property
    def busy(self) -> bool:
        """Whether a figure is being drawn or waits to be drawn."""
        return self._job is not None or self._timer.isActive()

    def show_figure(self, make: Callable[[], Figure] | None) -> None:
        """Show the figure that `make` returns; None shows no figure."""
        self._make, self.figure = make, None
        self.setVisible(make is not None)
        if make is None:
            self.picture.clear()
        else:
            self._timer.start()

    def set_height(self, height: int) -> None:
        """Change the height of the figure, in px."""
        if height != self.picture.height():
            self.picture.setFixedHeight(height)
            if self._make is not None:
                self._timer.start()

    def data_at(self, place: QPointF) -> tuple[float, float] | None:
        """Return the data coordinates (x, y) of the first axes at a place in the picture; None outside the axes."""
        if self.figure is None or not self.figure.axes:
            return None
        axes, ratio = self.figure.axes[0], float(self.devicePixelRatioF())
        at = place.x() * ratio, self.figure.bbox.height - place.y() * ratio
        if not axes.bbox.contains(*at):
            return None
        x, y = axes.transData.inverted().transform(at)
        return float(x), float(y)

    def resizeEvent(self, event: Any) -> None:
        """Draw the figure again for its new width."""
        super().resizeEvent(event)
        if self._make is not None:
            self._timer.start()

    def _draw(self) -> None:
        make, width = self._make, max(self.width(), _MINIMUM_WIDTH)
        if make is None or self._job is not None or self._drawn == (make, width, self.picture.height()):
            return
        figure = make()  # in the window's thread: matplotlib's settings are shared by all threads
        size, ratio = (width, self.picture.height()), float(self.devicePixelRatioF())

        def on_step(pixels: np.ndarray) -> None:
            if self._make is make:
                self._drawn, self.figure = (make, *size), figure
                self.picture.setPixmap(array_pixmap(pixels, ratio))

        def on_end(_ending: Ending) -> None:
            self._job = None
            if (self._make, max(self.width(), _MINIMUM_WIDTH), self.picture.height()) != (make, *size):
                self._draw()

        self._job = Job(lambda: _rendered(figure, size, ratio), self, on_step, on_end)


def _rendered(figure: Figure, size: tuple[int, int], ratio: float) -> Iterator[np.ndarray]:
    """Yield the figure drawn with this (width, height) in px, as uint8 (Y, X, 4)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure.set_dpi(_DPI * ratio)
    figure.set_size_inches(size[0] / _DPI, size[1] / _DPI)
    make: Any = FigureCanvasAgg
    canvas = make(figure)
    canvas.draw()
    yield np.array(canvas.buffer_rgba())
