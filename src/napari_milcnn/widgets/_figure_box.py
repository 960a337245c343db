"""A figure of matplotlib's in a dock."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtWidgets import QSizePolicy, QVBoxLayout, QWidget

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class FigureBox(QWidget):
    """Shows one figure at a time, as wide as the dock and of a given height in px."""

    def __init__(self, name: str, height: int) -> None:
        super().__init__()
        self.canvas: Any = None
        self._name, self._height = name, height
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        self.hide()

    def show_figure(self, figure: Figure | None) -> None:
        """Show a figure in place of the one before, or none."""
        if self.canvas is not None:
            self.layout().removeWidget(self.canvas)
            self.canvas.hide()
            self.canvas.deleteLater()
            self.canvas = None
        self.setVisible(figure is not None)
        if figure is not None:
            from matplotlib.backends.backend_qtagg import FigureCanvasQTAgg  # the binding that qtpy has loaded

            make: Any = FigureCanvasQTAgg
            self.canvas = make(figure)
            self.canvas.setFixedHeight(self._height)
            self.canvas.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
            self.canvas.setAccessibleName(self._name)
            self.layout().addWidget(self.canvas)
