"""The section of the Train dock with the curves of a training: loss, validation metrics and learned thresholds b."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyqtgraph as pg
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QLabel, QWidget

from napari_milcnn.figures.palette import class_colours
from napari_milcnn.plugin.qt.forms import Note, chip, vertical_layout
from napari_milcnn.plugin.train.outcome_box import NO_VALIDATION

_AXIS = "#8a8f98"
"""Colour of the axes, legible on dark and on light ground."""
_HEIGHT = 120
_LOSS = {"loss": "#e69f00", "pooled_loss": "#56b4e9", "last_loss": "#009e73", "validation_loss": "#cc79a7"}
_VALIDATION = {"validation_accuracy": "#56b4e9", "validation_mean_average_precision": "#e69f00"}
_NAMES = {"loss": "training", "pooled_loss": "pooling (P)", "last_loss": "output (y)", "validation_loss": "validation",
          "validation_accuracy": "accuracy", "validation_mean_average_precision": "mAP"}  # fmt: skip


class _Plot(QWidget):
    """One plot over the epochs; its title and legend are a line of text above it."""

    def __init__(self, title: str, top: float | None = None) -> None:
        super().__init__()
        self._title = title
        self._lines: dict[str, Any] = {}
        self.legend = QLabel(title)
        self.legend.setWordWrap(True)
        self.legend.setTextFormat(Qt.TextFormat.RichText)
        self.plot = pg.PlotWidget(background=None)
        self.plot.setFixedHeight(_HEIGHT)
        self.plot.setMenuEnabled(False)
        self.plot.setMouseEnabled(False, False)
        self.plot.hideButtons()
        self.plot.setAccessibleName(title)
        for side in ("left", "bottom"):
            self.plot.getAxis(side).setPen(_AXIS)
            self.plot.getAxis(side).setTextPen(_AXIS)
        self.plot.getAxis("left").setWidth(46)
        if top is not None:
            self.plot.setYRange(0, top)
        layout = vertical_layout(self, 2)
        layout.addWidget(self.legend)
        layout.addWidget(self.plot)

    def show_lines(self, epochs: Sequence[int], lines: Mapping[str, Sequence[float | None]], colours: Any) -> None:
        """Draw lines by name over the epochs; None leaves a gap."""
        if list(self._lines) != list(lines):
            self.plot.clear()
            self._lines = {name: self.plot.plot(pen=pg.mkPen(colours[name], width=2)) for name in lines}
        symbol = "o" if len(epochs) < 40 else None
        for name, values in lines.items():
            numbers = [float("nan") if value is None else value for value in values]
            dots = {"symbol": symbol, "symbolSize": 4, "symbolBrush": colours[name], "symbolPen": None}
            self._lines[name].setData(list(epochs), numbers, connect="finite", **dots)
        legend = " &nbsp; ".join(chip(colours[name], _NAMES.get(name, name)) for name in lines)
        self.legend.setText(f"{self._title} &nbsp; {legend}")


class CurvesBox(QWidget):
    """The curves of a training."""

    def __init__(self) -> None:
        super().__init__()
        self.loss = _Plot("Loss")
        self.validation = _Plot("Validation", top=1.0)
        self.thresholds = _Plot("Learned thresholds b")
        self.thresholds.setToolTip(
            "Share of the class map that has to be positive before Noisy-AND pooling answers yes"
        )
        self.none = Note()
        layout = vertical_layout(self)
        for part in (self.loss, self.validation, self.none, self.thresholds):
            layout.addWidget(part)
        self.hide()

    def show_rows(self, rows: Sequence[dict[str, Any]], classes: Sequence[str]) -> None:
        """Draw all epochs so far; `rows` are those of the curve on the model card."""
        self.setVisible(bool(rows))
        if not rows:
            return
        epochs = [row["epoch"] for row in rows]
        held = rows[-1].get("validation_accuracy") is not None
        losses = [name for name in _LOSS if held or name != "validation_loss"]
        self.loss.show_lines(epochs, {name: [row.get(name) for row in rows] for name in losses}, _LOSS)
        self.validation.setVisible(held)
        self.none.say("" if held else NO_VALIDATION)
        known = {name: [row.get(name) for row in rows] for name in _VALIDATION}
        self.validation.show_lines(epochs, known, _VALIDATION)
        self._show_thresholds(epochs, rows, classes)

    def _show_thresholds(self, epochs: list[int], rows: Sequence[dict[str, Any]], classes: Sequence[str]) -> None:
        learned = [row.get("learned_b") for row in rows]
        self.thresholds.setVisible(learned[-1] is not None)
        if learned[-1] is not None:
            lines = {name: [b[i] if b else None for b in learned] for i, name in enumerate(classes)}
            self.thresholds.show_lines(epochs, lines, class_colours(tuple(classes)))
