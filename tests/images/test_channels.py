"""Which channels of an image are a model's."""

from __future__ import annotations

import numpy as np
import pytest

from image_files import TCYX
from napari_milcnn.errors import ImageError
from napari_milcnn.images.channels import match_channels
from napari_milcnn.images.open import open_image
from napari_milcnn.images.stack import ImageStack


def named(*channels: str) -> ImageStack:
    """Return an image with these channels."""
    return open_image(np.zeros((len(channels), 4, 4), np.uint8), axes="CYX", channels=channels)


def test_channels_match_by_name() -> None:
    """Case, spaces, hyphens and underscores do not count; other channels are left."""
    assert match_channels(["GFP", "nuclear marker"], named("Nuclear_Marker", "BF", "gfp")) == ((2, 0), None)
    assert match_channels(["gfp"], named("G-F-P")) == ((0,), None)


def test_channels_match_by_order_with_a_warning() -> None:
    """Equal counts match by order, and the mapping is shown."""
    numbers, warning = match_channels(["GFP", "RFP"], named("EGFP", "mCherry"))
    assert numbers == (0, 1)
    assert warning == (
        "image: the channels are taken by their order, not by name (model = image: GFP = EGFP, RFP = mCherry); "
        "name the channels (option channels) if this is wrong."
    )
    unnamed = open_image(TCYX, axes="TCYX")
    assert match_channels(["GFP", "RFP"], unnamed)[1] is not None
    assert match_channels(["GFP"], open_image(TCYX[0, 0])) == ((0,), None)
    assert match_channels(["GFP"], named("RFP"))[1] is not None
    assert match_channels(["GFP", "RFP"], named("GFP", "mCherry"))[0] == (0, 1)
    assert match_channels(["GFP", "GFP"], named("GFP", "mCherry"))[0] == (0, 1)


def test_channels_that_do_not_match() -> None:
    """Other counts, or names at other places, are refused with both lists."""
    with pytest.raises(ImageError, match=r"image has the channels GFP, RFP, DAPI, but the model needs GFP, Cy5; name"):
        match_channels(["GFP", "Cy5"], named("GFP", "RFP", "DAPI"))
    with pytest.raises(ImageError, match=r"has the channels RFP, Cy5, but the model needs GFP, RFP"):
        match_channels(["GFP", "RFP"], named("RFP", "Cy5"))
    with pytest.raises(ImageError, match="option channels"):
        match_channels(["GFP", "RFP"], open_image(TCYX[0, 0]))
