"""Which channels of an image are a model's."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
from PIL import Image

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


def test_only_an_array_without_names_has_the_order_of_the_model(tmp_path) -> None:
    """An array cannot have names; the mapping is shown. The only channel of an image needs no name."""
    numbers, warning = match_channels(["GFP", "RFP"], open_image(TCYX, axes="TCYX"))
    assert numbers == (0, 1)
    assert warning == (
        "image: the channels are taken by their order, as they have no names (model = image: GFP = channel 0, RFP = "
        "channel 1); name the channels if this is wrong"
    )
    assert match_channels(["GFP"], open_image(TCYX[0, 0])) == ((0,), None)
    tifffile.imwrite(tmp_path / "a.ome.tif", TCYX, metadata={"axes": "TCYX"})
    with pytest.raises(ImageError, match=r"the channels have no names; which of them is GFP or RFP is not known; name"):
        match_channels(["GFP", "RFP"], open_image(tmp_path / "a.ome.tif"))
    tifffile.imwrite(tmp_path / "b.ome.tif", TCYX[0, 0], metadata={"axes": "YX"})
    assert match_channels(["GFP"], open_image(tmp_path / "b.ome.tif")) == ((0,), None)
    assert match_channels(["channel 0", "channel 1"], open_image(tmp_path / "a.ome.tif")) == ((0, 1), None)


@pytest.mark.parametrize(
    ("wanted", "there", "numbers", "note"),
    [
        (["DNA"], ["Phase", "GFP", "DAPI"], (2,), "DAPI was taken for DNA"),
        (["DNA", "GFP"], ["HOECHST 33342", "EGFP"], (0, 1), "33342 was taken for DNA and EGFP was taken for GFP"),
        (["DAPI"], ["DAPI", "DNA"], (0,), ""),
        (["Phase contrast", "DAPI"], ["Phase", "Hoechst"], (0, 1), "Phase was taken for Phase contrast"),
    ],
)
def test_two_names_of_one_stain_stand_for_each_other_and_are_said(wanted, there, numbers, note) -> None:
    found, warning = match_channels(wanted, named(*there))
    assert found == numbers
    assert note in (warning or "")
    assert (warning is None) == (note == "")


@pytest.mark.parametrize(
    ("wanted", "there", "unknown"),
    [
        (["GFP", "RFP"], ["EGFP", "mCherry"], "RFP"),
        (["GFP"], ["RFP"], "GFP"),
        (["DNA"], ["DAPI", "Hoechst"], "DNA"),
        (["DNA", "GFP"], ["Phase", "GFP"], "DNA"),
        (["GFP", "GFP"], ["GFP", "mCherry"], "GFP or GFP"),
        (["DNA"], ["Phase"], "DNA"),
    ],
)
def test_what_names_do_not_say_is_asked_for(wanted, there, unknown) -> None:
    with pytest.raises(ImageError, match=f"which of them is {unknown} is not known; .*option channels"):
        match_channels(wanted, named(*there))


def test_channels_are_named_one_by_one() -> None:
    """Such as DNA=Phase: the channel Phase is called DNA, and the others keep their names."""
    image = named("Phase", "GFP", "DNA")
    assert open_image(image, channels=["DNA=phase"]).channels == ("DNA", "GFP", "DNA (other)")
    assert match_channels(["GFP", "RFP"], open_image(image, channels=["RFP=DNA", "GFP=Phase"]))[0] == (0, 2)
    for names in (["DNA=Cy5"], ["DNA=GFP", "RFP=gfp"]):
        with pytest.raises(ImageError, match="image has the channels Phase, GFP, DNA; name one of them, each once"):
            open_image(image, channels=names)


def test_a_colour_picture_is_said_to_be_one_and_its_colour_is_asked_for(tmp_path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (6, 8, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    tifffile.imwrite(tmp_path / "b.tif", pixels, photometric="rgb")
    for name in ("a.png", "b.tif"):
        with pytest.raises(ImageError, match=r"is a colour picture .* red, green and blue, or grey .* DNA=grey"):
            match_channels(["DNA"], open_image(tmp_path / name))
        blue = open_image(tmp_path / name, channels=["DNA=blue"])
        assert match_channels(["DNA"], blue)[0] == (2,)
        grey = open_image(tmp_path / name, channels=["DNA=grey"])
        assert (grey.axes, grey.channels, grey.dtype) == ("YX", ("DNA",), np.uint8)
        np.testing.assert_array_equal(grey.plane(0)[0], np.rint(pixels.mean(2)))
        np.testing.assert_array_equal(grey.plane(0, window=(1, 3, 2, 5))[0], np.rint(pixels.mean(2))[1:3, 2:5])


def test_channels_that_do_not_match() -> None:
    """Other counts, or names at other places, are refused with both lists."""
    with pytest.raises(ImageError, match=r"image has the channels GFP, RFP, DAPI, but the model needs GFP, Cy5; which"):
        match_channels(["GFP", "Cy5"], named("GFP", "RFP", "DAPI"))
    with pytest.raises(ImageError, match=r"has the channels RFP, Cy5, but the model needs GFP, RFP"):
        match_channels(["GFP", "RFP"], named("RFP", "Cy5"))
    with pytest.raises(ImageError, match="GFP, RFP are missing; open the file that has all channels, or give one"):
        match_channels(["GFP", "RFP"], open_image(TCYX[0, 0]))
