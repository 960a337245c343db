"""The section of the Train dock that shows what the network learns, and where it looks: curves, pictures, confusion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyqtgraph as pg
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QGridLayout, QLabel, QSizePolicy, QWidget

from napari_milcnn.figures.palette import class_colours
from napari_milcnn.figures.plots import FigureStyle, confusion_figure
from napari_milcnn.plugin.qt.figure import FigureBox
from napari_milcnn.plugin.qt.forms import Note, chip, heading, plain_text, vertical_layout
from napari_milcnn.plugin.qt.icons import array_pixmap
from napari_milcnn.plugin.train.outcome_box import NO_VALIDATION
from napari_milcnn.schema import NOTHING

if TYPE_CHECKING:
    from napari_milcnn.model.trained_model import TrainedModel
    from napari_milcnn.plugin.train.session import Learning
    from napari_milcnn.training.preview import PreviewImage

_AXIS = "#8a8f98"
"""Colour of the axes, legible on dark and on light ground."""
_HEIGHT = 120
_LOSS = {"loss": "#e69f00", "pooled_loss": "#56b4e9", "last_loss": "#009e73", "validation_loss": "#cc79a7"}
_VALIDATION = {"validation_accuracy": "#56b4e9", "validation_mean_average_precision": "#e69f00"}
_NAMES = {"loss": "training", "pooled_loss": "pooling (P)", "last_loss": "output (y)", "validation_loss": "validation",
          "validation_accuracy": "accuracy", "validation_mean_average_precision": "mAP"}  # fmt: skip
_ABOUT_LOSS = (
    "How wrong the network is; lower is better. Pooling (P) judges each class by itself, output (y) weighs the classes "
    "against each other."
)
_ABOUT_VALIDATION = (
    "On images that the network does not learn from. Accuracy: share of images that it gets right. mAP (mean average "
    "precision): 1 if, for every class, the images that show it have the highest scores."
)
_ABOUT_B = "The share of an image that must look like a class before the network says that the image shows it."
_YES_NO = ["rightly yes", "wrongly yes", "wrongly no", "rightly no"]
_MOST_PREVIEWS = 4
_PREVIEW_WIDTH = 124


class _PlotView(pg.PlotWidget):
    """A plot over which the mouse wheel scrolls the page."""

    def wheelEvent(self, event: Any) -> None:
        """Leave the wheel to the page."""
        event.ignore()


class _Plot(QWidget):
    """One plot over the epochs; its title, its legend and what it means are text above it."""

    def __init__(self, title: str, about: str, top: float | None = None) -> None:
        super().__init__()
        self._title = title
        self._lines: dict[str, Any] = {}
        self.legend, self.about = QLabel(title), Note()
        self.legend.setWordWrap(True)
        self.legend.setTextFormat(Qt.TextFormat.RichText)
        self.legend.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Minimum)
        self.about.say(about)
        self.plot = _PlotView(background=None)
        self.plot.setFixedHeight(_HEIGHT)
        self.plot.setMenuEnabled(False)
        self.plot.setMouseEnabled(False, False)
        self.plot.hideButtons()
        self.plot.setAccessibleName(f"{title} over the epochs")
        self.plot.setToolTip(about)
        self.plot.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        for side in ("left", "bottom"):
            self.plot.getAxis(side).setPen(_AXIS)
            self.plot.getAxis(side).setTextPen(_AXIS)
        self.plot.getAxis("left").setWidth(46)
        if top is not None:
            self.plot.setYRange(0, top)
        layout = vertical_layout(self, 2)
        for part in (self.legend, self.about, self.plot):
            layout.addWidget(part)

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
        self.legend.setText(f"<b>{self._title}</b> &nbsp; {legend}")


class CurvesBox(QWidget):
    """The curves of a training."""

    def __init__(self) -> None:
        super().__init__()
        self.loss = _Plot("Loss", _ABOUT_LOSS)
        self.validation = _Plot("Validation", _ABOUT_VALIDATION, top=1.0)
        self.thresholds = _Plot("Learned thresholds b", _ABOUT_B)
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


class PreviewBox(QWidget):
    """Thumbnails in two columns, each with its label, its score and, if the network is wrong, the predicted class."""

    def __init__(self) -> None:
        super().__init__()
        self.pictures = [QLabel() for _ in range(_MOST_PREVIEWS)]
        self.captions = [QLabel() for _ in range(_MOST_PREVIEWS)]
        grid = QGridLayout()
        grid.setContentsMargins(0, 0, 0, 0)
        for number, (picture, caption) in enumerate(zip(self.pictures, self.captions, strict=True)):
            caption.setWordWrap(True)
            caption.setTextFormat(Qt.TextFormat.RichText)
            grid.addWidget(picture, 2 * (number // 2), number % 2)
            caption.setMinimumWidth(_PREVIEW_WIDTH)
            caption.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Minimum)
            grid.addWidget(caption, 2 * (number // 2) + 1, number % 2)
        layout = vertical_layout(self)
        title, about = heading("Where the network looks"), Note()
        about.say("Coloured where the network sees the class of the image's label; the number is its score, 0 to 1.")
        for part in (title, about):
            layout.addWidget(part)
        layout.addLayout(grid)
        self.hide()

    def show_previews(self, previews: Sequence[PreviewImage], classes: Sequence[str]) -> None:
        """Show these previews in place of the last ones."""
        self.setVisible(bool(previews))
        colours = class_colours(tuple(classes))
        for number, (picture, caption) in enumerate(zip(self.pictures, self.captions, strict=True)):
            there = number < len(previews)
            picture.setVisible(there)
            caption.setVisible(there)
            if there:
                preview = previews[number]
                pixmap = array_pixmap(preview.rgb)
                picture.setPixmap(pixmap.scaledToWidth(_PREVIEW_WIDTH, Qt.TransformationMode.SmoothTransformation))
                picture.setToolTip(plain_text(str(preview.image.file)))
                picture.setAccessibleName(f"where the network sees {preview.label} in {preview.image.name}")
                wrong = "" if preview.top == preview.label else f", predicted {escape(preview.top) or NOTHING}"
                caption.setText(f"{chip(colours[preview.label], preview.label)} {preview.score:.2f}{wrong}")


class LearningBox(QWidget):
    """A training as it goes on: what it started from, where its network looks, its curves and its confusion matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.title, self.kept, self.warning = heading("What is learning"), Note(), Note()
        self.curves, self.previews = CurvesBox(), PreviewBox()
        self.confusion_title = heading("Confusion matrix of the best epoch")
        self.confusion = FigureBox("Confusion matrix of the best epoch", 290)
        layout = vertical_layout(self)
        parts = (self.title, self.kept, self.previews, self.curves, self.confusion_title, self.confusion, self.warning)
        for part in parts:
            layout.addWidget(part)
        self._drawn: tuple[Any, FigureStyle] | None = None
        self.show_learning(None, None)

    def show_learning(self, learning: Learning | None, style: FigureStyle | None) -> None:
        """Show a training, or nothing."""
        self.setVisible(learning is not None)
        classes = learning.best.classes if learning is not None and learning.best is not None else ()
        self.kept.say(learning.kept if learning is not None else "")
        self.curves.show_rows(learning.rows if learning is not None else (), classes)
        self.previews.show_previews(learning.previews if learning is not None else (), classes)
        self._show_confusion(learning.best if learning is not None else None, style)

    def _show_confusion(self, model: TrainedModel | None, style: FigureStyle | None) -> None:
        counts = model.card.training.confusion if model is not None else None
        self.confusion_title.setVisible(counts is not None)
        if counts is None or model is None or style is None:
            self._drawn = None
            self.confusion.show_figure(None)
        elif self._drawn != (counts, style):
            columns = list(model.classes) if model.card.single_label else _YES_NO
            table = pd.DataFrame(counts, index=list(model.classes), columns=columns)
            self._drawn = counts, style
            self.confusion.show_figure(lambda: confusion_figure(table, style))
