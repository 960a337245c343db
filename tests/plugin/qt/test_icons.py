"""Pixmaps and icons show the colours that they are made from."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("napari")
from qtpy.QtGui import QColor, QIcon

from napari_milcnn.plugin.qt.icons import DARK_GROUND, array_pixmap, swatch


@pytest.mark.parametrize("samples", [3, 4])
def test_an_array_and_its_pixmap_have_the_same_pixels(qapp, samples):
    """Rows of 5 RGB pixels are 15 bytes long, which is not a multiple of the 4 bytes that Qt aligns to."""
    pixels = np.arange(7 * 5 * samples, dtype=np.uint8).reshape(7, 5, samples)
    if samples == 4:
        pixels[..., 3] = 255
    image = array_pixmap(pixels).toImage()
    shown = [[QColor(image.pixel(x, y)).getRgb()[:3] for x in range(5)] for y in range(7)]
    np.testing.assert_array_equal(shown, pixels[..., :3])


def test_a_swatch_has_a_square_for_each_colour_also_when_selected(qapp):
    """Squares of 8 px lie side by side with 2 px of dark ground around them."""
    icon = swatch("#ff0000", "#00ff00")
    for mode in (QIcon.Mode.Normal, QIcon.Mode.Selected):
        image = icon.pixmap(22, 12, mode).toImage()
        assert (image.width(), image.height()) == (22, 12)
        names = [QColor(image.pixel(x, 6)).name() for x in (0, 5, 15)]
        assert names == [DARK_GROUND, "#ff0000", "#00ff00"]
