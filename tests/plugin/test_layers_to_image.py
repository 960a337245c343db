"""Layers, as napari opens and holds them, are read as images; planes and points lead back to the layers."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dask.array as da
import dask.callbacks
import imageio.v3 as iio
import npe2
import numpy as np
import pytest
import tifffile
import zarr
from napari.components import ViewerModel
from napari.layers import Image

from napari_milcnn.errors import ImageError
from napari_milcnn.images.open import open_image
from napari_milcnn.plugin.layers_to_image import SourceReading, file_behind, group_layers, open_layers, suggest
from napari_milcnn.plugin.results_to_layers import image_layers

GUESS = "are guessed: neither the layer nor a file names them"
OTHER_PIXELS = "The pixels of the layer differ from those of its file"


@pytest.fixture(autouse=True)
def _quiet(caplog):
    caplog.set_level(logging.CRITICAL, logger="tifffile")


@pytest.fixture
def napari_opens(npe2pm):
    """Return a function that opens a file with napari's own reader and returns its layers."""
    npe2pm.register(npe2.PluginManifest.from_distribution("napari"))

    def opened(path: Path) -> list[Image]:
        return ViewerModel().open(path, plugin="napari")

    return opened


def numbers(*shape: int, dtype: Any = np.uint16) -> np.ndarray:
    """Count up, so that no two pixels are equal (within the range of the type)."""
    return np.arange(np.prod(shape)).reshape(shape).astype(dtype)


def write_ome(path: Path, array: np.ndarray, axes: str, **metadata: Any) -> Path:
    """Write an OME-TIFF."""
    photometric = "rgb" if axes.endswith("S") else "minisblack"
    tifffile.imwrite(path, array, ome=True, photometric=photometric, metadata={"axes": axes, **metadata})
    return path


def read_all(layers: list[Image]) -> tuple[SourceReading, np.ndarray]:
    """Return the reading of layers, and all their planes (planes, channels, Y, X)."""
    reading = suggest(layers)
    image = open_layers(layers, reading).image
    return reading, np.stack([image.plane(i) for i in range(len(image.planes))])


def read_file(path: Path, **options: Any) -> np.ndarray:
    """Return all planes of a file (planes, channels, Y, X)."""
    with open_image(path, **options) as image:
        return np.stack([image.plane(i) for i in range(len(image.planes))])


def layer_of(array: Any, **facts: Any) -> Image:
    """Make a layer without a viewer."""
    return Image(array, **{"contrast_limits": (0, 1), **facts})


# What is opened by napari is read as the file itself


@pytest.mark.parametrize(
    ("axes", "shape", "read_as"),
    [
        ("YX", (40, 50), "YX"),
        ("TZCYX", (2, 3, 4, 40, 50), "TZCYX"),
        ("CZYX", (2, 3, 40, 50), "CZYX"),
        ("ZCYX", (3, 2, 40, 50), "ZCYX"),
        ("TCYX", (1, 2, 40, 50), "CYX"),  # tifffile, and so napari, leaves out axes of length 1
        ("TCYX", (3, 1, 40, 50), "TYX"),
        ("YXS", (40, 50, 3), "YXS"),
        ("YXS", (20, 25, 3), "YXS"),  # napari takes an image this small for planes, not for colours
        ("CZYXS", (2, 3, 40, 50, 3), "CZYXS"),
    ],
)
def test_ome_tiff(napari_opens, tmp_path, axes, shape, read_as):
    """Axes come from the file, and the planes of the layer are the planes of the file."""
    path = write_ome(tmp_path / "a.ome.tif", numbers(*shape, dtype=np.uint8 if "S" in axes else np.uint16), axes)
    reading, planes = read_all(napari_opens(path))
    assert (reading.axes, reading.notes) == (read_as, ())
    np.testing.assert_array_equal(planes, read_file(path))


def test_names_and_pixel_size_come_from_the_file(napari_opens, tmp_path):
    """The OME-TIFF names its channels and states 650 nm per pixel."""
    facts = {"PhysicalSizeX": 650, "PhysicalSizeXUnit": "nm", "PhysicalSizeY": 650, "PhysicalSizeYUnit": "nm"}
    path = write_ome(tmp_path / "a.ome.tif", numbers(2, 40, 50), "CYX", Channel={"Name": ["GFP", "RFP"]}, **facts)
    reading, _ = read_all(napari_opens(path))
    assert (reading.channels, reading.pixel_size) == (("GFP", "RFP"), pytest.approx(0.65))


def test_imagej_tiff(napari_opens, tmp_path):
    """ImageJ writes TZCYX; 2 pixels per µm are 0.5 µm per pixel."""
    path, facts = tmp_path / "a.tif", {"axes": "TZCYX", "unit": "um"}
    tifffile.imwrite(path, numbers(2, 3, 2, 40, 50), imagej=True, resolution=(2, 2), metadata=facts)
    reading, planes = read_all(napari_opens(path))
    assert (reading.axes, reading.pixel_size, reading.notes) == ("TZCYX", 0.5, ())
    np.testing.assert_array_equal(planes, read_file(path))


@pytest.mark.parametrize("second", [(2, 40, 50), (2, 30, 50)])
def test_of_several_images_napari_shows_the_first(napari_opens, tmp_path, second):
    """The layer has the axes of the first image, whether the images are alike or not."""
    path = tmp_path / "a.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as file:
        for shape in ((2, 40, 50), second):
            file.write(numbers(*shape), photometric="minisblack", metadata={"axes": "CYX"})
    layers = napari_opens(path)
    reading, planes = read_all(layers)
    assert (reading.axes, reading.notes) == ("CYX", ())
    np.testing.assert_array_equal(planes, read_file(path, series=0))
    found, how = file_behind(open_layers(layers, reading), "planes")
    assert (found, how.series) == (path, 0)


@pytest.mark.parametrize(("units", "axes"), [
    (("um", "um", "um"), "ZYX"), (("s", "um", "um"), "TYX"), (("um", "s", "um", "um"), "ZTYX"),
    (("min", "um", "um", "um"), "TZYX"),
])  # fmt: skip
def test_an_axis_whose_unit_is_one_of_time_is_guessed_to_be_time(units, axes):
    layer = Image(np.zeros((3,) * (len(units) - 2) + (8, 8), np.uint8), units=units)
    found = suggest([layer])
    assert found.axes == axes
    assert GUESS in " ".join(found.notes)


def test_the_axes_of_plain_pages_are_guessed(napari_opens, tmp_path):
    """The file does not state the axis of its three pages."""
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, numbers(3, 40, 50), photometric="minisblack", metadata=None)
    reading, planes = read_all(napari_opens(path))
    assert (reading.axes, planes.shape) == ("ZYX", (3, 1, 40, 50))
    assert GUESS in reading.notes[0]


@pytest.mark.parametrize(("samples", "channels"), [(3, 3), (4, 3), (2, 2)])
def test_png(napari_opens, tmp_path, samples, channels):
    """RGB and RGBA have three channels; napari does not treat grey with alpha as colours, so it has two channels."""
    pixels = numbers(40, 50, samples, dtype=np.uint8)
    iio.imwrite(tmp_path / "a.png", pixels)
    reading, planes = read_all(napari_opens(tmp_path / "a.png"))
    assert (reading.axes, reading.notes) == ("YXS", ())
    np.testing.assert_array_equal(planes[0], np.moveaxis(pixels[..., :channels], -1, 0))


@pytest.mark.parametrize("levels", [1, 2])
def test_ome_zarr(napari_opens, tmp_path, levels):
    """The axes CZYX and 0.5 µm come from the metadata; of a pyramid the finest level is read."""
    group = zarr.open_group(tmp_path / "a.ome.zarr", mode="w", zarr_format=2)
    axes = [{"name": "c", "type": "channel"}, *({"name": n, "type": "space", "unit": "micrometer"} for n in "zyx")]
    pixels = numbers(2, 3, 64, 64)
    for level in range(levels):
        group.create_array(str(level), data=pixels[..., :: 2**level, :: 2**level])
    scales = [[{"type": "scale", "scale": [1, 1, 0.5 * 2**n, 0.5 * 2**n]}] for n in range(levels)]
    sets = [{"path": str(n), "coordinateTransformations": scale} for n, scale in enumerate(scales)]
    group.attrs["multiscales"] = [{"version": "0.4", "axes": axes, "datasets": sets}]
    layers = napari_opens(tmp_path / "a.ome.zarr")
    assert layers[0].multiscale == (levels > 1)
    reading, planes = read_all(layers)
    assert (reading.axes, reading.pixel_size, reading.notes) == ("CZYX", 0.5, ())
    np.testing.assert_array_equal(planes, pixels.swapaxes(0, 1))


# Layers that were changed


@pytest.fixture
def tcyx(napari_opens, tmp_path) -> Image:
    """Return the layer of an OME-TIFF of 2 times and 2 channels."""
    return napari_opens(write_ome(tmp_path / "a.ome.tif", numbers(2, 2, 40, 50), "TCYX", PhysicalSizeX=0.5))[0]


def test_cropped_layer_is_not_read_by_its_file(tcyx):
    """A layer of another shape than its file gets guessed axes, and not the pixel size of the file."""
    tcyx.data = tcyx.data[:, :, :30]
    reading = suggest([tcyx])
    assert (reading.axes, reading.pixel_size) == ("TZYX", None)
    assert GUESS in reading.notes[0]
    assert file_behind(open_layers([tcyx], reading), "planes")[0] is None


@pytest.mark.parametrize("edit", [lambda data: data.swapaxes(0, 1), lambda data: data.max(0), lambda data: data + 1])
def test_an_edited_layer_gets_a_note(tcyx, edit):
    """A layer with the shape of its file but other pixels gets the axes of the file, which may be wrong."""
    tcyx.data = np.ascontiguousarray(edit(tcyx.data))
    reading = suggest([tcyx])
    assert OTHER_PIXELS in reading.notes[0]
    assert file_behind(open_layers([tcyx], reading), "planes")[0] is None


def test_one_channel_of_a_file(tcyx):
    """The second channel alone is TYX, without a note."""
    tcyx.data = tcyx.data[:, 1]
    reading = suggest([tcyx])
    assert (reading.axes, reading.notes, len(reading.channels)) == ("TYX", (), 1)


def test_layers_in_another_order_keep_their_names(tmp_path):
    """If the user sorts the layers of a file, the channels are named after the layers and not by their order."""
    path = write_ome(tmp_path / "a.ome.tif", numbers(2, 40, 50), "CYX", Channel={"Name": ["GFP", "RFP"]})
    green, red = (layer_of(data, **facts) for data, facts, _ in image_layers(open_image(path), [(0, 1)] * 2))
    assert suggest([green, red]).channels == ("GFP", "RFP")
    reading, planes = read_all([red, green])
    assert reading.channels == ("RFP", "GFP")
    np.testing.assert_array_equal(planes[0], numbers(2, 40, 50)[::-1])
    assert file_behind(open_layers([green, red], suggest([green, red])), "planes")[0] == path
    assert file_behind(open_layers([red, green], reading), "planes")[0] is None


def test_layers_of_one_image_are_read_without_the_callbacks_of_other_threads():
    """Napari slices dask arrays with a cache, which must not record what a job reads of them at the same time."""
    layers = [layer_of(da.from_array(numbers(20, 30), chunks=(10, 30)), name=name) for name in ("GFP", "RFP")]
    started: list[Any] = []
    with dask.callbacks.Callback(start=started.append):
        _, pixels = read_all(layers)
    assert pixels.shape[-3:] == (2, 20, 30)
    assert not started


def test_layers_opened_here_are_read_by_their_labels(tmp_path):
    """The file has ZTYX, the plugin's layers TZYX; T and Z have the same length, so only the labels differ."""
    path = write_ome(tmp_path / "a.ome.tif", numbers(2, 2, 40, 50), "ZTYX")
    data, facts, _ = image_layers(open_image(path), [(0, 1)])[0]
    reading, planes = read_all([layer_of(data, **facts)])
    assert (reading.axes, reading.notes) == ("TZYX", ())
    np.testing.assert_array_equal(planes, read_file(path))


# Layers without a file


@pytest.mark.parametrize(
    ("labels", "axes"),
    [(("t", "c", "y", "x"), "TCYX"), (("Time", "channel", "Y", "X"), "TCYX"), (("c", "z", "x", "y"), "CZXY")],
)
def test_axis_labels(labels, axes):
    """Labels that name all axes are used, in any order."""
    reading = suggest([layer_of(numbers(2, 3, 4, 5), axis_labels=labels)])
    assert (reading.axes, reading.notes) == (axes, ())


@pytest.mark.parametrize("labels", [None, ("q", "y", "x"), ("y", "y", "x"), ("t", "z", "x")])
def test_labels_that_do_not_name_all_axes_are_ignored(labels):
    """The axes are then guessed."""
    reading = suggest([layer_of(numbers(2, 4, 5), axis_labels=labels)])
    assert reading.axes == "ZYX"
    assert GUESS in reading.notes[0]


@pytest.mark.parametrize(
    ("scale", "unit", "size"),
    [(0.65, "um", 0.65), (650, "nm", 0.65), (1, "pixel", None), (0.65, "pixel", None), (-0.65, "micron", 0.65)],
)
def test_pixel_size_from_scale_and_unit(scale, unit, size):
    """A scale is a pixel size if its unit is a length; a flipped layer has the same pixel size."""
    reading = suggest([layer_of(numbers(4, 5), scale=(scale, scale), units=(unit, unit))])
    assert reading.pixel_size == (None if size is None else pytest.approx(size))
    assert (f"The scale {scale:g} has no unit" in " ".join(reading.notes)) == (unit == "pixel" and scale != 1)


@pytest.mark.parametrize("place", [{"scale": (1e30, 1e30)}, {"affine": np.diag([0, 0.3, 1])}, {"scale": (np.nan, 1)}])
def test_a_size_that_no_microscope_has_is_not_taken(place):
    reading = suggest([layer_of(numbers(4, 5), units=("um", "um"), **place)])
    assert reading.pixel_size is None
    assert "which no microscope has. Enter the pixel size" in " ".join(reading.notes)


@pytest.mark.parametrize(
    ("place", "size"),
    [
        ({"affine": np.diag([0.16, 0.16, 1])}, 0.16),
        ({"affine": np.diag([0.5, 0.5, 1]), "scale": (0.32, 0.32)}, 0.16),
        ({"affine": np.diag([1e-3, 1e-3, 1]), "scale": (160, 160), "rotate": 30.0}, 0.16),
        ({"affine": np.array([[0, -0.16, 3], [0.16, 0, 9], [0, 0, 1]])}, 0.16),
        ({"scale": (0.16, 0.16), "rotate": 45.0, "translate": (4, 5)}, 0.16),
    ],
)
def test_pixel_size_from_scale_rotation_and_affine_together(place, size):
    reading = suggest([layer_of(numbers(4, 5), units=("um", "um"), **place)])
    assert (reading.pixel_size, reading.notes) == (pytest.approx(size), ())


def test_units_of_other_axes_do_not_matter_and_each_unit_counts():
    reading = suggest([layer_of(numbers(2, 4, 5), scale=(1, 500, 0.5), units=("pixel", "nm", "um"))])
    assert reading.pixel_size == 0.5
    affine = np.diag([1, 0.2, 0.2, 1])
    assert suggest([layer_of(numbers(2, 4, 5), affine=affine, units=("s", "um", "um"))]).pixel_size == 0.2


def test_sheared_pixels_and_an_affine_without_a_unit_are_said():
    reading = suggest([layer_of(numbers(4, 5), shear=[0.5], scale=(0.4, 0.4), units=("um", "um"))])
    assert "sheared: their sides are at 63° to each other" in " ".join(reading.notes)
    affine = np.array([[0.2, 0.05, 0], [0, 0.2, 0], [0, 0, 1]])
    assert "sheared" in " ".join(suggest([layer_of(numbers(4, 5), affine=affine, units=("um", "um"))]).notes)
    assert "The scale 0.16 has no unit" in suggest([layer_of(numbers(4, 5), affine=np.diag([0.16, 0.16, 1]))]).notes[0]


def test_pixels_that_are_not_square():
    """The mean of 1 and 3 µm is 2 µm, and a note says so."""
    reading = suggest([layer_of(numbers(4, 5), scale=(1, 3), units=("um", "um"))])
    assert reading.pixel_size == 2
    assert "not square (Y 1 µm, X 3 µm); their mean, 2 µm, is used." in reading.notes[0]


def test_the_scale_of_a_layer_takes_precedence_over_its_file(tcyx):
    """A scale in µm that the user sets is the pixel size."""
    tcyx.scale, tcyx.units = (1, 1, 0.2, 0.2), ("pixel", "pixel", "um", "um")
    assert suggest([tcyx]).pixel_size == pytest.approx(0.2)


def test_layers_as_channels():
    """Three layers are three channels with the names of the layers, in a type that holds all of them."""
    layers = [layer_of(numbers(2, 4, 5).astype(kind) + 250, name=kind) for kind in ("uint8", "uint16", "int16")]
    reading, planes = read_all(layers)
    assert (reading.axes, reading.channels) == ("ZYX", ("uint8", "uint16", "int16"))
    np.testing.assert_array_equal(planes, np.stack([layer.data for layer in layers], 1))


class Counted:
    """An array that counts how often it is read."""

    def __init__(self, *shape: int) -> None:
        self.data, self.reads = numbers(*shape), 0
        self.shape, self.dtype, self.ndim = shape, self.data.dtype, len(shape)

    def __getitem__(self, key: Any) -> np.ndarray:
        self.reads += 1
        return self.data[key]


@pytest.mark.parametrize("count", [1, 2])
def test_pixels_are_read_only_with_their_plane(count):
    """Reading a plane reads one plane of each layer, once."""
    arrays = [Counted(3, 40, 50) for _ in range(count)]
    chunked = [da.from_array(array, (1, 40, 50), asarray=False, meta=np.empty((0, 0, 0))) for array in arrays]
    layers = [layer_of(array, name=f"c{i}") for i, array in enumerate(chunked)]
    for array in arrays:
        array.reads = 0  # napari shows the first plane
    image = open_layers(layers, suggest(layers)).image
    assert [array.reads for array in arrays] == [0] * count
    np.testing.assert_array_equal(image.plane(2)[0], numbers(3, 40, 50)[2])
    assert [array.reads for array in arrays] == [1] * count


@pytest.mark.parametrize("kind", ["dask", "zarr", "memmap", "multiscale"])
def test_arrays_of_every_kind(tmp_path, kind):
    """All kinds of arrays give the same planes."""
    pixels = numbers(3, 40, 50)
    if kind == "memmap":
        np.save(tmp_path / "a.npy", pixels)
    data = {
        "dask": lambda: da.from_array(pixels, (1, 40, 50)),
        "zarr": lambda: zarr.array(pixels, chunks=(1, 40, 50)),
        "memmap": lambda: np.load(tmp_path / "a.npy", mmap_mode="r"),
        "multiscale": lambda: [pixels, pixels[:, ::2, ::2]],
    }[kind]()
    _, planes = read_all([layer_of(data)])
    np.testing.assert_array_equal(planes[:, 0], pixels)


@pytest.mark.parametrize(
    ("others", "message"),
    [
        ([numbers(4, 6)], r"\(4, 5\) and other \(4, 6\) cannot be channels of one image; expected the same shape"),
        ([numbers(4, 5) > 3], "other holds bool; expected whole numbers or floats"),
    ],
)
def test_layers_that_cannot_be_channels_are_refused(others, message):
    """The message says what was found and what was expected."""
    layers = [layer_of(numbers(4, 5), name="first"), *(layer_of(other, name="other") for other in others)]
    with pytest.raises(ImageError, match=message):
        suggest(layers)


def test_complex_pixels_are_refused():
    """Napari 0.9 makes no layer of complex pixels; if it ever does, a message refuses them."""
    layer = SimpleNamespace(data=numbers(4, 5) * 1j, multiscale=False, name="waves")
    with pytest.raises(ImageError, match="the layer waves holds complex128; expected whole numbers or floats"):
        suggest([layer])


@pytest.mark.parametrize(
    "place", [{"scale": (2, 2)}, {"translate": (0, 9)}, {"rotate": 30}, {"affine": [[1, 0, 5], [0, 1, 0], [0, 0, 1]]}]
)
def test_layers_at_different_places_are_refused(place):
    """Layers that do not lie over each other cannot be channels of one image."""
    with pytest.raises(ImageError, match=r"lie at different places \(scale \(1, 1\) and"):
        suggest([layer_of(numbers(4, 5)), layer_of(numbers(4, 5), **place)])


def test_impossible_readings_are_refused():
    """There is no layer, there are too many axes, channels appear twice, colours are read as planes."""
    stack, colours = layer_of(numbers(2, 4, 5)), layer_of(numbers(40, 50, 3, dtype=np.uint8), rgb=True, name="photo")
    with pytest.raises(ImageError, match="no image layer was given"):
        suggest([])
    with pytest.raises(ImageError, match="has 7 axes; expected 2 to 6"):
        suggest([layer_of(numbers(1, 1, 1, 1, 1, 4, 5))])
    with pytest.raises(ImageError, match="each of the layers has channels of its own; select only one layer"):
        open_layers([stack, stack], SourceReading("CYX", ("a", "b"), None))
    with pytest.raises(ImageError, match="photo is a colour image; expected axes that end in S, such as YXS, not ZYX"):
        open_layers([colours], SourceReading("ZYX", ("a",), None))


# Places


PLACES = {
    "scale": {"scale": (3, 1, 2, 0.65, 0.65)},
    "translate": {"translate": (1, 2, 3, 4, 5)},
    "rotate": {
        "rotate": [[1, 0, 0, 0, 0], [0, 1, 0, 0, 0], [0, 0, 1, 0, 0], [0, 0, 0, 0.6, -0.8], [0, 0, 0, 0.8, 0.6]]
    },
    "affine": {"affine": np.diag([1, 1, 2, 3, 4, 1]) + np.eye(6, k=1) * [[0], [0], [0], [1], [7], [0]]},
}
"""Transforms of a layer with the axes T C Z Y X."""


def source_of(axes: str = "TCZYX", z: str = "planes", **place: Any):
    """Open a layer with 2 times, 3 channels and 4 depths of 5 × 6 px."""
    lengths = {"T": 2, "C": 3, "Z": 4, "Y": 5, "X": 6}
    layer = layer_of(numbers(*(lengths[axis] for axis in axes)), **place)
    channels = ("a", "b", "c") if "C" in axes else ("a",)
    return layer, open_layers([layer], SourceReading(axes, channels, None), z=z)


@pytest.mark.parametrize("z", ["planes", "maximum"])
@pytest.mark.parametrize("place", PLACES)
def test_plane_at_is_the_inverse_of_point_of(place, z):
    """Every plane is found again, wherever the layer lies, also in a viewer with more axes."""
    _, source = source_of(z=z, **PLACES[place])
    assert len(source.image.planes) == (8 if z == "planes" else 2)
    for plane in range(len(source.image.planes)):
        assert source.plane_at(source.point_of(plane)) == plane
        assert source.plane_at((99.0, *source.point_of(plane, 4, 0))) == plane


def test_point_of_by_hand():
    """Plane 5 of 2 times and 4 depths is T1 Z1; the middle of 5 × 6 px is (2, 2.5)."""
    _, source = source_of(scale=(10, 1, 3, 0.5, 0.5), translate=(0, 0, 100, 0, 7))
    assert source.point_of(5) == (10, 0, 103, 1, 8.25)
    assert source.point_of(5, y=4, x=0) == (10, 0, 103, 2, 7)
    assert source.plane_at((10, 2, 103, 0, 0)) == 5  # any channel
    assert source.plane_at((20, 0, 100, 0, 0)) is None
    assert source.plane_at((0, 0, 96, 0, 0)) is None
    assert source.plane_at((10, 3, 103, 0, 0)) is None  # the layer has three channels
    assert source.plane_at((10, -1, 103, 0, 0)) is None


def test_plane_at_outside_of_a_projection():
    """Each of the four depths belongs to the plane; outside of them the layer shows nothing."""
    _, source = source_of(z="maximum")
    assert [source.plane_at((1, 0, z, 0, 0)) for z in (-1, 0, 3, 4)] == [None, 1, 1, None]


def test_the_pixel_size_of_a_file_that_does_not_state_its_axes(tmp_path, napari_opens):
    """20000 pixels per cm are 0.5 µm per pixel: the axes of plain pages are guessed, the pixel size is not."""
    path = tmp_path / "pages.tif"
    how = {"resolution": (20000, 20000), "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(path, numbers(3, 20, 30), photometric="minisblack", metadata=None, **how)
    reading = suggest(napari_opens(path))
    assert (len(reading.axes), reading.pixel_size) == (3, 0.5)
    assert GUESS in " ".join(reading.notes)


@pytest.mark.parametrize("axes", ["TCZYX", "CZTYX", "ZTYX", "YX", "ZXY"])
def test_to_layer_is_a_view_that_plane_key_agrees_with(axes):
    """Values written to a plane appear in the layer at the index that `plane_key` returns."""
    _, source = source_of(axes)
    planes = np.zeros((len(source.image.planes), 5, 6), int)
    laid = source.to_layer(planes)
    assert laid.shape == tuple({"T": 2, "C": 1, "Z": 4, "Y": 5, "X": 6}[axis] for axis in axes)
    for plane in range(len(planes)):
        planes[plane] = plane + 1
        assert (laid[source.plane_key(plane)] == plane + 1).all()
    assert np.unique(laid).tolist() == list(range(1, len(planes) + 1))


def test_to_layer_puts_planes_where_their_pixels_are():
    """The pixels of a layer, read as planes and put back, lie where they were."""
    layer, source = source_of("ZTYX")
    planes = np.stack([source.image.plane(i)[0] for i in range(8)])
    np.testing.assert_array_equal(source.to_layer(planes), layer.data)


@pytest.mark.parametrize("z", ["planes", "maximum"])
@pytest.mark.parametrize("axes", ["TCZYX", "ZTYX", "ZXY"])
def test_to_planes_is_the_inverse_of_to_layer(axes, z):
    """Labels as long as the layer along every axis, drawn on the last channel or depth, also give their planes."""
    _, source = source_of(axes, z)
    planes = numbers(len(source.image.planes), 5, 6)
    laid = source.to_layer(planes)
    np.testing.assert_array_equal(source.to_planes(laid), planes)
    drawn = np.zeros(source.place.shape, int)
    drawn[tuple(slice(-1, None) if n == 1 else slice(None) for n in laid.shape)] = laid
    np.testing.assert_array_equal(source.to_planes(drawn), planes)
    assert source.to_planes(drawn[0]).shape == drawn[0].shape


def test_samples_that_napari_takes_for_an_axis_have_length_1():
    """In an image too small for napari to recognise colours, the samples are an axis: results are Y X 1."""
    layer = layer_of(numbers(5, 6, 3))
    source = open_layers([layer], SourceReading("YXS", ("r", "g", "b"), None))
    assert source.to_layer(np.zeros((1, 5, 6))).shape == (5, 6, 1)
    assert source.plane_at(source.point_of(0)) == 0


def test_nan_pixels_give_no_note_about_the_axes(napari_opens, tmp_path):
    """A NaN is an error when its plane is read, but no reason to doubt the axes of the file."""
    pixels = np.full((2, 40, 50), np.nan, np.float32)
    (layer,) = napari_opens(write_ome(tmp_path / "a.ome.tif", pixels, "CYX"))
    reading = suggest([layer])
    assert (reading.axes, reading.notes) == ("CYX", ())
    with pytest.raises(ImageError, match="are NaN or infinite"):
        open_layers([layer], reading).image.plane(0)


def test_a_colour_layer_has_no_axis_for_its_samples():
    """The results of an RGB layer have the axes Y X."""
    source = open_layers([layer_of(numbers(5, 6, 3), rgb=True)], SourceReading("YXS", ("r", "g", "b"), None))
    assert (source.axes, source.to_layer(np.zeros((1, 5, 6))).shape) == ("YX", (5, 6))


def test_points_in_the_viewers_units():
    """With a second layer in nm, napari counts in nm: the point 500 is the second plane of 0.5 µm."""
    layer, source = source_of("ZYX", scale=(0.5, 0.3, 0.3), units=("um",) * 3)
    viewer = ViewerModel()
    viewer.add_layer(layer)
    viewer.add_image(layer.data, scale=(500, 300, 300), units=("nm",) * 3)
    units = getattr(viewer.dims, "units", None)
    for z in range(4):
        viewer.dims.current_step = (z, 0, 0)
        assert source.plane_at(viewer.dims.point, units) == layer._slice.image.raw[0, 0] / 30 == z
        assert source.plane_at(source.point_of(z, units=units), units) == z


# Groups


def test_channels_of_a_file_are_one_image_and_a_second_copy_is_another(tmp_path):
    """One file of two channels is opened twice, beside a layer without a file: three images."""
    path = write_ome(tmp_path / "a.ome.tif", numbers(2, 40, 50), "CYX", Channel={"Name": ["GFP", "RFP"]})
    viewer = ViewerModel()
    for _ in range(2):
        for data in image_layers(open_image(path), [(0, 1)] * 2):
            viewer.add_layer(Image.create(*data))
    viewer.add_image(numbers(40, 50), name="mine")
    groups = [[layer.name for layer in group] for group in group_layers(list(viewer.layers))]
    assert groups == [["a GFP", "a RFP"], ["a GFP [1]", "a RFP [1]"], ["mine"]]


# Names


@pytest.mark.parametrize(
    ("names", "image"),
    [
        (("plate1_B03.ome",), "plate1_B03"),
        (("B03 [1]",), "B03 [1]"),
        (("B03 GFP", "B03 RFP"), "B03"),
        (("B03 GFP [1]", "B03 RFP [1]"), "B03 [1]"),
        (("B03_w1.ome", "B03_w2.ome"), "B03"),
        (("B03", "B03 [1]"), "B03"),
        (("GFP", "GFP2"), "GFP"),
    ],
)
def test_images_are_named_after_their_layers(names, image):
    """Two files of one name, or two layers of one file chosen separately, are two images."""
    layers = [layer_of(numbers(5, 6), name=name) for name in names]
    assert open_layers(layers, suggest(layers)).image.name == image
