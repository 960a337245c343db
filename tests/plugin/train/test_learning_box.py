"""What is seen of a training while it runs."""

from __future__ import annotations

import pytest

pytest.importorskip("napari")
from qtpy.QtCore import QPoint, QPointF, Qt
from qtpy.QtGui import QWheelEvent
from qtpy.QtWidgets import QApplication

from napari_milcnn.plugin.train.learning_box import CurvesBox

ROWS = [
    {"epoch": number, "loss": 1 / number, "pooled_loss": 0.5, "last_loss": 0.5, "validation_loss": 0.6,
     "validation_accuracy": 0.5, "validation_mean_average_precision": 0.5, "learned_b": [0.1, 0.2]}
    for number in (1, 2, 3)
]  # fmt: skip


def test_the_wheel_over_a_curve_is_left_to_the_page_and_every_curve_is_explained(qtbot):
    box = CurvesBox()
    qtbot.addWidget(box)
    box.show_rows(ROWS, ("a", "b"))
    for plot, word in ((box.loss, "lower is better"), (box.validation, "mean average"), (box.thresholds, "share")):
        before = plot.plot.viewRange()
        wheel = QWheelEvent(
            QPointF(5, 5), QPointF(5, 5), QPoint(), QPoint(0, -120), Qt.MouseButton.NoButton,
            Qt.KeyboardModifier.NoModifier, Qt.ScrollPhase.NoScrollPhase, False,
        )  # fmt: skip
        QApplication.sendEvent(plot.plot.viewport(), wheel)
        assert not wheel.isAccepted()
        assert plot.plot.viewRange() == before
        assert word in plot.about.text()
