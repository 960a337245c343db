"""Arrays and files opened: axes, names, sizes, projections, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dask.array
import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image

from conftest import SHARED
from image_files import RGB, TCYX, Watched, every_plane, write_tiff
from napari_milcnn.errors import ImageError, OptionsError
from napari_milcnn.images.open import ImageReading, maximum_projection, open_image
from napari_milcnn.images.stack import PlaneIndex

REAL = SHARED / "data" / "bbbc016" / "images"


def test_missing_empty_and_foreign_files(tmp_path: Path) -> None:
    """Each kind of bad file has its sentence."""
    with pytest.raises(ImageError, match=r"none\.tif: there is no such file or folder"):
        open_image(tmp_path / "none.tif")
    (tmp_path / "empty.tif").touch()
    with pytest.raises(ImageError, match=r"empty\.tif is empty \(0 bytes\); expected an image"):
        open_image(tmp_path / "empty.tif")
    (tmp_path / "text.tif").write_text("no image at all")
    with pytest.raises(ImageError, match=r"text\.tif is not an image: its name ends in \.tif, but its content is not"):
        open_image(tmp_path / "text.tif")
    (tmp_path / "short.tif").write_bytes(b"II*\0")
    with pytest.raises(ImageError, match=r"short\.tif cannot be opened as an image: "):
        open_image(tmp_path / "short.tif")


def test_content_counts_more_than_the_name(tmp_path: Path) -> None:
    """A PNG named .tif opens."""
    Image.fromarray(RGB).save(tmp_path / "a.png")
    np.testing.assert_array_equal(
        open_image((tmp_path / "a.png").rename(tmp_path / "a.tif")).plane(0), np.moveaxis(RGB, -1, 0)
    )


@pytest.mark.parametrize("source", ["https://host/a.tif", "s3://bucket/a.zarr", Path("https://host/a.tif")])
def test_remote_address_is_refused(source: str | Path) -> None:
    """Addresses are refused before anything is looked up."""
    with pytest.raises(ImageError, match="is a remote address; only local files are opened: download it first"):
        open_image(source)


@pytest.mark.parametrize("make", [np.asarray, dask.array.from_array, zarr.array], ids=["numpy", "dask", "zarr"])
def test_arrays(make: Any) -> None:
    """Arrays are taken as they are, or moved without reading them."""
    source = make(TCYX)
    image = open_image(source, axes="TCYX", channels=["GFP", "RFP"], pixel_size=0.65)
    assert image.data is source
    assert (image.name, image.path, image.channels, image.pixel_size) == ("image", None, ("GFP", "RFP"), 0.65)
    np.testing.assert_array_equal(every_plane(image), TCYX)
    moved = open_image(source, axes="YTXC")
    assert (moved.axes, moved.shape) == ("TCYX", (2, 50, 3, 40))
    np.testing.assert_array_equal(every_plane(moved), TCYX.transpose(1, 3, 0, 2))
    np.testing.assert_array_equal(np.asarray(moved.data), TCYX.transpose(1, 3, 0, 2))
    for each in (image, moved):
        each.close()
        each.plane(0)


def test_axes_of_arrays() -> None:
    """Two axes are Y and X; more are asked for, with examples that fit."""
    assert open_image(TCYX[0, 0]).axes == "YX"
    assert open_image(TCYX[:1, :1]).axes == "YX"
    assert open_image(TCYX[0, 0]).plane_name(0) == ""
    with pytest.raises(ImageError, match=r'the array: shape \(2, 40, 50\) does not tell .*axes="CYX" or axes="TYX"'):
        open_image(TCYX[0])
    with pytest.raises(ImageError, match=r'for example axes="YXS" or axes="CYX"'):
        open_image(RGB)
    with pytest.raises(ImageError, match=r'for example axes="TZCYX" or axes="PTCYX"'):
        open_image(TCYX[None])
    with pytest.raises(ImageError, match=r'axes="CYX" names 3 axes, but there are 4, of shape \(3, 2, 40, 50\)'):
        open_image(TCYX, axes="CYX")
    for wrong in ("TCYY", "TCYQ", "TCZX"):
        with pytest.raises(ImageError, match=f'axes="{wrong}" is not understood; give one letter per axis'):
            open_image(TCYX, axes=wrong)
    with pytest.raises(ImageError, match=r"shape \(40,\) is not an image"):
        open_image(TCYX[0, 0, :, 0])
    with pytest.raises(ImageError, match="holds no pixels"):
        open_image(TCYX[:0], axes="TCYX")


def test_sources_and_parameters_that_are_wrong() -> None:
    """Each wrong parameter has its sentence."""
    with pytest.raises(ImageError, match="an image is a path or a numpy, dask or zarr array; found list"):
        open_image([[1, 2]])
    with pytest.raises(ImageError, match="the pixels are of type complex128"):
        open_image(np.ones((4, 4), complex))
    with pytest.raises(ImageError, match="series=0 was asked for, but an array is one image"):
        open_image(TCYX, axes="TCYX", series=0)
    with pytest.raises(ImageError, match="has 2 channels, but channels= names 1: GFP"):
        open_image(TCYX, axes="TCYX", channels=["GFP"])
    for size in (0, -1, float("nan"), float("inf"), 1e300, 1e-300, "0.5", True):
        with pytest.raises(ImageError, match="give the side of a pixel in µm"):
            open_image(TCYX, axes="TCYX", pixel_size=size)


def test_samples_in_arrays() -> None:
    """Four samples are taken as colours and alpha, unless all four are named."""
    rgba = np.dstack([RGB, RGB[..., 0]])
    for array, axes in ((rgba, "YXS"), (np.moveaxis(rgba, -1, 0), "SYX")):
        image = open_image(array, axes=axes)
        assert (image.channels, image.warnings) == (("red", "green", "blue"), ("The alpha sample is left out.",))
        np.testing.assert_array_equal(image.plane(0), np.moveaxis(RGB, -1, 0))
        assert open_image(array, axes=axes, channels=list("abcd")).shape == (4, 20, 30)
    image = open_image(np.zeros((3, 20, 4)), axes="SYX")
    assert (image.channels, image.plane_shape) == (("red", "green", "blue"), (20, 4))
    assert open_image(RGB, axes="YXC").channels == ("channel 0", "channel 1", "channel 2")


def test_positions_in_an_array() -> None:
    """An axis P gives numbered positions."""
    image = open_image(TCYX, axes="PCYX")
    assert image.position_names == ("position 0", "position 1", "position 2")
    assert image.planes[2] == PlaneIndex(2, 0, 0)
    assert image.plane_name(2) == "P2"


def test_opened_image_is_returned() -> None:
    """An opened image passes through; names and pixel size can be replaced."""
    image = open_image(TCYX[0], axes="CYX")
    assert open_image(image) is image
    named = open_image(image, channels=["GFP", "RFP"], pixel_size=0.5)
    assert (named.channels, named.channels_named, named.pixel_size) == (("GFP", "RFP"), True, 0.5)
    assert image.channels == ("channel 0", "channel 1")
    with pytest.raises(ImageError, match="is already opened"):
        open_image(image, axes="ZYX")


@pytest.mark.skipif(not REAL.is_dir(), reason="the BBBC016 images are not on this machine")
def test_real_images() -> None:
    """The first images of BBBC016."""
    for path in sorted(REAL.glob("*.tif"))[:6]:
        with open_image(path) as image:
            assert (image.axes, image.shape, image.dtype) == ("YX", (512, 512), np.uint8)
            assert image.pixel_size is None
            np.testing.assert_array_equal(image.plane(0)[0], tifffile.imread(path))


def test_the_projection_is_numpys_maximum_along_z(tmp_path: Path) -> None:
    """Whole planes, windows and chosen channels of a T Z C Y X file; all that is known of it stays."""
    pixels = np.random.default_rng(2).integers(0, 60000, (2, 3, 2, 40, 50), dtype=np.uint16)
    names = {"Channel": {"Name": ["GFP", "RFP"]}}
    path = write_tiff(tmp_path / "a.ome.tif", pixels, "TZCYX", ome=True, compression="zlib", metadata=names)
    with open_image(path, pixel_size=0.5) as image, maximum_projection(image) as flat:
        assert (flat.axes, flat.shape, flat.planes) == ("TCYX", (2, 2, 40, 50), ((0, 0, 0), (0, 1, 0)))
        assert (flat.name, flat.path, flat.channels, flat.pixel_size) == ("a", path, ("GFP", "RFP"), 0.5)
        assert (flat.dtype, flat.plane_name(1)) == (np.uint16, "T1")
        np.testing.assert_array_equal(every_plane(flat), pixels.max(1))
        np.testing.assert_array_equal(flat.plane(1, [1], (3, 9, 4, 8)), pixels.max(1)[1, 1:, 3:9, 4:8])
        np.testing.assert_array_equal(np.asarray(flat.data[..., 7]), pixels.max(1)[..., 7])
    with pytest.raises(ImageError, match="closed"):
        image.plane(0)


@pytest.mark.parametrize("make", [np.asarray, dask.array.from_array, zarr.array])
def test_arrays_are_projected(make: Any) -> None:
    """A bare Z stack becomes one plane, whatever holds it; dropping the projection leaves the array open."""
    pixels = np.random.default_rng(3).random((4, 20, 30))
    image = open_image(make(pixels), axes="ZYX")
    np.testing.assert_array_equal(every_plane(maximum_projection(image))[0, 0], pixels.max(0))
    np.testing.assert_array_equal(image.plane(2)[0], pixels[2])


def test_a_projected_plane_reads_its_own_stack_one_z_at_a_time() -> None:
    """The second time point of three Z: three reads of one window each, none before."""
    watched = Watched()
    flat = maximum_projection(open_image(watched, axes="TZYX"))
    assert watched.keys == []
    flat.plane(1, window=(2, 4, 0, 8))
    assert watched.keys == [(slice(1, 2, 1), z, slice(2, 4, 1), slice(0, 8, 1)) for z in range(3)]


def test_without_z_nothing_is_projected() -> None:
    """The image is returned as it is."""
    image = open_image(TCYX, axes="TCYX")
    assert maximum_projection(image) is image


def test_nan_in_a_stack_is_not_projected_away() -> None:
    """The plane is refused as one with NaN is."""
    pixels = np.zeros((2, 5, 5))
    pixels[0, 2, 2] = np.nan
    with pytest.raises(ImageError, match="1 of 25 values are NaN or infinite"):
        maximum_projection(open_image(pixels, axes="ZYX")).plane(0)


def test_reading_says_what_becomes_of_z(tmp_path: Path) -> None:
    """By default each plane stands alone; with maximum a stack is one; anything else is refused."""
    path = write_tiff(tmp_path / "a.tif", TCYX[:, 0], "ZYX", imagej=True)
    with ImageReading().open(path) as planes, ImageReading(z="maximum").open(path) as one:
        assert (len(planes.planes), len(one.planes)) == (3, 1)
        np.testing.assert_array_equal(one.plane(0)[0], TCYX[:, 0].max(0))
    with pytest.raises(OptionsError, match="z is 'mean'; expected one of planes, maximum"):
        ImageReading(z="mean")


@pytest.mark.parametrize(("axis", "kind"), [("t", "planes"), ("c", "channels")])
def test_more_planes_or_channels_than_could_be_listed_are_refused(tmp_path: Path, axis: str, kind: str) -> None:
    """Metadata can say any number; a list of two thousand million names would fill the memory."""
    store = zarr.open_group(tmp_path / "huge.zarr", mode="w", zarr_format=3)
    store.create_array("0", shape=(2**31 - 1, 8, 8), chunks=(1, 8, 8), dtype="uint16")
    scale = [{"type": "scale", "scale": [1, 1, 1]}]
    axes = [{"name": axis}, {"name": "y", "type": "space"}, {"name": "x", "type": "space"}]
    levels = [{"path": "0", "coordinateTransformations": scale}]
    store.attrs["ome"] = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": levels}]}
    with pytest.raises(ImageError, match=rf"2,147,483,647 {kind}, expected at most"):
        open_image(tmp_path / "huge.zarr")
