"""The image section of the Classify dock: narrow enough for every image, and clear about what it guesses."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("napari")
from napari.components import ViewerModel

from napari_milcnn.plugin.classify.image_box import ImageBox
from napari_milcnn.plugin.qt.forms import WARNING

ROOM = 310 - 2 * 8 - 15
"""Width of the narrowest dock without its margins and its scroll bar, in px."""


@pytest.fixture
def box(qtbot):
    """Return the section for a stack of 3 z slices and 2 channels whose axes nobody states."""
    viewer = ViewerModel()
    box = ImageBox(viewer)
    qtbot.addWidget(box)
    box.set_channels(("GFP", "RFP"))
    viewer.add_image(np.zeros((3, 2, 64, 64), np.uint16), name="a stack with a rather long name")
    return box


def test_the_section_fits_into_the_narrowest_dock_also_with_z(box):
    box.axes.setText("ZCYX")
    box.axes.editingFinished.emit()
    assert not box._z_part.isHidden()
    assert box.minimumSizeHint().width() <= ROOM
    box.axes.setText("PTZCYX")
    box.resize(ROOM, 400)
    box.show()
    assert box.axes.fontMetrics().horizontalAdvance("PTZCYX") < box.axes.width() - 8


def test_guessed_axes_are_marked_until_they_are_corrected(box):
    """Without a model that needs two channels, the note about the guess is shown in the colour of warnings."""
    box.set_channels(())
    box._on_chosen()
    assert "The axes TZYX are guessed" in box.message.text()
    assert WARNING in box.message.styleSheet()
    box.axes.setText("ZCYX")
    box.axes.editingFinished.emit()
    assert box.message.text() == ""
    assert box.reading().axes == "ZCYX"
