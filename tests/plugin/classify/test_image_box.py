"""The image section of the Classify dock: narrow enough for every image, and clear about what it guesses."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("napari")
from napari.components import ViewerModel

from napari_milcnn.errors import ImageError
from napari_milcnn.plugin.classify.image_box import GREY_CHOICE, ImageBox
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


def shown(box):
    """Return what the box says, and the channel that is chosen for each channel of the model."""
    return box.message.text(), [combo.currentText() for combo in box._combos()]


def choose(combo, text):
    combo.setCurrentIndex(combo.findText(text))
    combo.activated.emit(combo.currentIndex())


def test_channels_that_no_name_tells_are_asked_for_before_a_run(box):
    viewer = box._viewer
    viewer.layers.clear()
    layers = [viewer.add_image(np.zeros((64, 64), np.uint8), name=f"cells {i}") for i in (1, 0)]
    viewer.layers.selection = set(layers)
    said, chosen = shown(box)
    assert chosen == ["choose…", "choose…"]
    assert "which of them is GFP or RFP is not known" in said
    assert box.problem == said
    assert "2 layers as one image" in box.facts.text()
    for combo, name in zip(box._combos(), ("cells 0", "cells 1"), strict=True):
        with pytest.raises(ImageError, match="is not known"):
            box.reading()
        choose(combo, name)
    assert box.problem == ""
    assert box.source().image.channels == ("RFP", "GFP")


def test_a_stack_without_names_is_asked_for_and_its_answer_kept_for_this_image(box):
    box.axes.setText("ZCYX")
    box.axes.editingFinished.emit()
    assert shown(box)[1] == ["choose…", "choose…"]
    for combo, name in zip(box._combos(), ("channel 1", "channel 0"), strict=True):
        choose(combo, name)
    box.set_channels(("GFP", "RFP"))
    assert box.reading().channels == ("RFP", "GFP")
    box._viewer.add_image(np.zeros((3, 2, 64, 64), np.uint16), name="another", axis_labels=("z", "c", "y", "x"))
    assert shown(box)[1] == ["choose…", "choose…"]


@pytest.mark.parametrize(("choice", "channels"), [("blue", ("red", "green", "DNA")), (GREY_CHOICE, ("DNA",))])
def test_a_colour_picture_is_said_to_be_one_and_its_colour_is_chosen(box, choice, channels):
    box.set_channels(("DNA",))
    picture = np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8)
    box._viewer.add_image(picture, rgb=True)
    assert "is a colour picture" in box.problem
    choose(box._combos()[0], choice)
    assert box.problem == ""
    image = box.source().image
    assert image.channels == channels
    wanted = picture[..., 2] if choice == "blue" else np.rint(picture.mean(2))
    np.testing.assert_array_equal(image.plane(0, (channels.index("DNA"),))[0], wanted)


def test_an_unknown_pixel_size_is_asked_for_where_the_model_knows_its_own(box):
    box.set_channels(("DNA",), 0.65)
    box._viewer.add_image(np.zeros((64, 64), np.uint8), name="one")
    assert "pixel size of the image is unknown, and the model has 0.65 µm" in box.message.text()
    assert box.pixel_size.text() == "unknown"
    assert box.problem == ""
    box.pixel_size.setValue(0.3)
    box.pixel_size.editingFinished.emit()
    assert box.message.text() == ""
