"""Patches of the images of a table, and their statistics."""

from __future__ import annotations

import contextlib
import time

import numpy as np
import pytest
import tifffile

from napari_milcnn import new_model, read_labels
from napari_milcnn.errors import ImageError
from napari_milcnn.inference.model_input import model_input
from napari_milcnn.training.patch_dataset import (
    IntensityStatistics,
    PatchReader,
    intensity_statistics,
    measure_planes,
    measured_scale,
    read_ahead,
    typical_diameter,
)


@pytest.fixture
def two_images(tmp_path):
    """Two images of one channel: 80 x 100 counting up, and 2 planes of 30 x 30 that hold 7 and 9."""
    tifffile.imwrite(tmp_path / "a.tif", np.arange(8000, dtype=np.uint16).reshape(80, 100))
    stack = np.stack([np.full((30, 30), 7, np.uint16), np.full((30, 30), 9, np.uint16)])
    tifffile.imwrite(tmp_path / "b.ome.tif", stack, metadata={"axes": "TYX"}, ome=True)
    (tmp_path / "labels.csv").write_text("file,label\na.tif,x\nb.ome.tif,y\n")
    return read_labels(tmp_path / "labels.csv")


def test_patches_are_parts_of_the_image(two_images):
    """A patch is a window of its plane; a time-lapse gives patches of every time."""
    reader = PatchReader(new_model(["x", "y"], ["c"], normalise="training"), two_images)
    rng = np.random.default_rng(0)
    patch = reader.patch(0, 20, rng)
    assert patch.shape == (1, 20, 20)
    y, x = divmod(int(patch[0, 0, 0]), 100)
    np.testing.assert_array_equal(patch[0], np.arange(8000).reshape(80, 100)[y : y + 20, x : x + 20])
    assert {int(reader.patch(1, 20, rng).max()) for _ in range(20)} == {7, 9}


def test_small_images_are_reflected_to_the_patch(two_images):
    """A 30 px image fills a 48 px patch with nothing but its own values."""
    reader = PatchReader(new_model(["x", "y"], ["c"], normalise="training"), two_images)
    patch = reader.patch(1, 48, np.random.default_rng(0))
    assert patch.shape == (1, 48, 48)
    assert len(np.unique(patch)) == 1


def test_cache_holds_no_more_than_its_room(two_images):
    """With no room, only the image last read stays."""
    reader = PatchReader(new_model(["x", "y"], ["c"], normalise="training"), two_images, cache=0)
    for index in (1, 0, 1):
        reader.patch(index, 0, np.random.default_rng(0))
    assert len(reader._cached) == 1


def test_intensity_statistics(tmp_path):
    """Mean and deviation of 0 and 4 in equal parts are 2 and 2."""
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((8, 8), np.uint16))
    tifffile.imwrite(tmp_path / "b.tif", np.full((8, 8), 4, np.uint16))
    (tmp_path / "labels.csv").write_text("file,label\na.tif,x\nb.tif,y\n")
    reader = PatchReader(new_model(["x", "y"], ["c"], normalise="training"), read_labels(tmp_path / "labels.csv"))
    assert intensity_statistics(reader) == IntensityStatistics((2.0,), (2.0,))


def test_flat_channel_is_refused(tmp_path):
    """A channel of one value cannot be normalised."""
    (tmp_path / "labels.csv").write_text("file,label\na.tif,x\n")
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((8, 8), np.uint16))
    reader = PatchReader(new_model(["x"], ["DNA"], normalise="training"), read_labels(tmp_path / "labels.csv"))
    with pytest.raises(ImageError, match="channel DNA has one value"):
        intensity_statistics(reader)


def test_a_patch_without_cells_is_drawn_again(tmp_path):
    """Cells in one corner only: half of the patches hold some, where chance alone would give one in six."""
    image = np.full((300, 300), 10, np.uint16)
    image[:100, :100] = 500
    tifffile.imwrite(tmp_path / "a.tif", image)
    (tmp_path / "labels.csv").write_text("file,label\na.tif,x\n")
    reader = PatchReader(new_model(["x"], ["c"], normalise="training"), read_labels(tmp_path / "labels.csv"))
    assert reader.foreground(0, 0).share == pytest.approx(1 / 9, abs=0.01)
    rng = np.random.default_rng(0)
    filled = [(reader.patch(0, 100, rng) > 100).mean() >= 1 / 18 for _ in range(100)]
    assert np.mean(filled) > 0.4


@pytest.mark.parametrize("cache", [1.0, 0.0])
def test_images_too_large_for_the_cache_are_read_by_windows(tmp_path, cache):
    """Patches and statistics are right with whole planes kept and with none."""
    image = np.random.default_rng(0).integers(0, 999, (2, 400, 500)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "a.ome.tif", image, tile=(64, 64), metadata={"axes": "TYX"}, ome=True)
    (tmp_path / "labels.csv").write_text("file,label\na.ome.tif,x\n")
    reader = PatchReader(new_model(["x"], ["c"], normalise="training"), read_labels(tmp_path / "labels.csv"), cache)
    patch = reader.patch(0, 80, np.random.default_rng(1))[0]
    found = [(t, y, x) for t in (0, 1) for y in range(321) for x in range(421) if image[t, y, x] == patch[0, 0]]
    assert any(np.array_equal(image[t, y : y + 80, x : x + 80], patch) for t, y, x in found)
    assert intensity_statistics(reader, threads=2).mean[0] == pytest.approx(image.mean())
    assert len(reader._cached) == (2 if cache else 0)


def disc_table(folder, diameters, spacing=2.0, noise=3.0):
    """Write an image of discs for each diameter, on a grid whose spacing is given in diameters."""
    rng = np.random.default_rng(0)
    for i, diameter in enumerate(diameters):
        step = spacing * diameter
        y, x = ((np.arange(300) % step) - step / 2 for _ in range(2))
        image = 20 + 100 * (np.hypot(y[:, None], x) < diameter / 2) + rng.normal(0, noise, (300, 300))
        tifffile.imwrite(folder / f"{i}.tif", image.clip(0).round().astype(np.uint8))
    (folder / "labels.csv").write_text("file,label\n" + "".join(f"{i}.tif,x\n" for i in range(len(diameters))))
    return read_labels(folder / "labels.csv")


def test_the_scale_is_measured_from_the_objects(tmp_path):
    """Discs of 46, 50 and 54 px are halved, far apart or near, whatever the network's normalisation.

    Small ones are left as they are: images are never enlarged, and not resized for next to nothing.
    """
    for normalise in ("image", "training"):
        model = new_model(["x"], ["c"], normalise=normalise, scale=0)
        for spacing in (1.25, 2.0):
            table = disc_table(tmp_path, (46, 50, 54), spacing)
            assert typical_diameter(model, table) == pytest.approx(50, rel=0.06)
            assert measured_scale(model, table) == pytest.approx(0.5, rel=0.06)
    assert measured_scale(model, disc_table(tmp_path, (20, 20))) == 1.0
    assert measured_scale(model, disc_table(tmp_path, (25, 25))) == 1.0


@pytest.mark.parametrize(
    ("diameters", "spacing", "noise"),
    [((20, 50, 90), 2.0, 3.0), ((50, 50, 50), 0.9, 3.0), ((50, 50, 50), 20.0, 30.0)],
    ids=["not alike", "no background between them", "noise"],
)
def test_objects_that_cannot_be_measured_leave_the_size(tmp_path, diameters, spacing, noise):
    """The network then sees the images as they are."""
    model = new_model(["x"], ["c"], scale=0)
    table = disc_table(tmp_path, diameters, spacing, noise)
    assert typical_diameter(model, table) is None
    assert measured_scale(model, table) == 1.0


def test_patches_are_scaled_by_their_plane(tmp_path):
    """With `image`, every patch of planes of other brightness has the numbers of its plane at the network's size."""
    table = disc_table(tmp_path, (50, 50))
    bright = tifffile.imread(tmp_path / "0.tif").astype(np.uint16) * 100 + 7
    tifffile.imwrite(tmp_path / "1.tif", bright)
    reader = PatchReader(new_model(["x"], ["c"], scale=0.5), table)
    assert reader.shape(0) == (150, 150)
    assert measure_planes(reader)
    one, two = (reader.patch(index, 80, np.random.default_rng(0)) for index in (0, 1))
    assert one.shape == (1, 80, 80)
    np.testing.assert_allclose(one, two, atol=1e-4)
    with table.open(table.images[0]) as image:
        whole = model_input(reader.model, image).read(0)
    np.testing.assert_allclose(reader.patch(0, 0, np.random.default_rng(0)), whole, atol=1e-6)


def test_a_channel_that_is_always_blank_is_refused(tmp_path):
    """With `image` too, where only all planes together say so."""
    (tmp_path / "labels.csv").write_text("file,label\na.tif,x\n")
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((8, 8), np.uint16))
    with pytest.raises(ImageError, match="channel DNA has one value"):
        measure_planes(PatchReader(new_model(["x"], ["DNA"]), read_labels(tmp_path / "labels.csv")))


def test_read_ahead_keeps_the_order_and_passes_errors_on():
    """Items come in turn whatever thread is quicker; an error comes out at its own place."""

    def make(item):
        time.sleep(0.02 if item % 2 else 0)
        return 10 / (5 - item)

    made = []
    with pytest.raises(ZeroDivisionError):
        made.extend(read_ahead(make, range(9), 3, 4))
    made = []
    with contextlib.suppress(ZeroDivisionError):
        for value in read_ahead(make, range(9), 3, 4):
            made.append(value)
    assert made == [2, 2.5, 10 / 3, 5, 10]
