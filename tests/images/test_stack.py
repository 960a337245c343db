"""One plane, window or channel at a time, some of the planes, and how long a file stays open."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from image_files import TCYX, Watched, every_plane, write_tiff
from napari_milcnn.errors import ImageError
from napari_milcnn.images.open import maximum_projection, open_image
from napari_milcnn.images.stack import only_planes


def test_plane_is_a_copy_in_native_order() -> None:
    """Whoever changes a plane does not change the image."""
    source = TCYX[0].astype(">u2")
    image = open_image(source, axes="CYX")
    assert image.dtype.isnative
    plane = image.plane(0)
    assert plane.dtype.isnative
    plane[:] = 0
    np.testing.assert_array_equal(source, TCYX[0])


def test_planes_windows_and_channels_that_do_not_exist() -> None:
    """What does not exist is refused with what does."""
    image = open_image(TCYX, axes="TCYX")
    with pytest.raises(ImageError, match="plane 3 was asked for, but its 3 planes count from 0"):
        image.plane(3)
    for channels in ([2], [-1], []):
        with pytest.raises(ImageError, match=r"channels .* were asked for, but its 2 channels count from 0"):
            image.plane(0, channels)
    for window in ((0, 41, 0, 5), (-1, 5, 0, 5), (5, 5, 0, 5), (0, 5, 9, 8)):
        with pytest.raises(ImageError, match="is not inside the plane of 40 rows and 50 columns"):
            image.plane(0, window=window)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite(bad: float) -> None:
    """NaN and infinity are refused where they are read, with their number and plane."""
    array = np.ones((2, 8, 8), np.float32)
    array[1, 2, 3:6] = bad
    image = open_image(array, axes="ZYX")
    assert image.plane(0).all()
    assert image.plane(1, window=(4, 8, 0, 8)).all()
    with pytest.raises(ImageError, match=r"image, Z1: 3 of 64 values are NaN or infinite, .* numpy\.nan_to_num"):
        image.plane(1)


def test_closed_image_says_so(tmp_path: Path) -> None:
    """Closing twice is fine; reading afterwards is an error."""
    path = write_tiff(tmp_path / "a.tif", TCYX, "TCYX", compression="zlib")
    image = open_image(path)
    image.close()
    image.close()
    with pytest.raises(ImageError, match=r"T0: the pixels cannot be read: it has been closed; open the image again"):
        image.plane(0)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="open files are listed by Linux")
def test_file_lives_as_long_as_its_data(tmp_path: Path) -> None:
    """The file is open while its data is used, and closed after it, also on errors."""

    def is_open() -> bool:
        return any(os.path.realpath(each) == str(path) for each in Path("/proc/self/fd").iterdir())

    path = (write_tiff(tmp_path / "a.tif", TCYX, "TCYX", compression="zlib")).resolve()
    data = open_image(path).data
    gc.collect()
    np.testing.assert_array_equal(data[0], TCYX[0])
    assert is_open()
    del data
    gc.collect()
    assert not is_open()
    write_tiff(path, TCYX, "HCYX", compression="zlib")
    with pytest.raises(ImageError, match="does not tell"):
        open_image(path)
    assert not is_open()


def test_threads_read_at_once(tmp_path: Path) -> None:
    """Four threads read the same image."""
    path = write_tiff(tmp_path / "a.ome.tif", TCYX, "TCYX", ome=True, tile=(16, 16), compression="zlib")
    wrong: list[int] = []
    with open_image(path) as image:

        def read(start: int) -> None:
            for i in range(start, start + 12):
                if not np.array_equal(image.plane(i % 3), TCYX[i % 3]):
                    wrong.append(i)

        threads = [threading.Thread(target=read, args=(start,)) for start in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not wrong


def test_import_is_light() -> None:
    """Importing the file imports none of the readers."""
    code = (
        "import sys, napari_milcnn.images.stack; "
        "print([m for m in ('torch', 'napari', 'zarr', 'imageio', 'dask', 'tifffile') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(("name", "planes"), [
    ("P1", [(1, 0, 0), (1, 0, 1), (1, 1, 0), (1, 1, 1)]),
    ("T1 P0", [(0, 1, 0), (0, 1, 1)]),
    ("p1 t0 z1", [(1, 0, 1)]),
    ("Z1", [(0, 0, 1), (0, 1, 1), (1, 0, 1), (1, 1, 1)]),
    ("", [(p, t, z) for p in range(2) for t in range(2) for z in range(2)]),
])  # fmt: skip
def test_a_name_picks_planes(name: str, planes: list[tuple[int, int, int]]) -> None:
    """Those at the numbers that it names, with the numbers and names that they have in the whole image."""
    pixels = np.arange(8).reshape(2, 2, 2, 1, 1) * np.ones((5, 6), int)
    image = only_planes(open_image(pixels, axes="PTZYX", channels=["GFP"], pixel_size=0.5), name)
    assert list(image.planes) == planes
    np.testing.assert_array_equal(every_plane(image)[:, 0, 0, 0], [4 * p + 2 * t + z for p, t, z in planes])
    assert [image.plane_name(i) for i in range(len(planes))] == [f"P{p} T{t} Z{z}" for p, t, z in planes]
    assert (image.channels, image.pixel_size, image.position_names) == (("GFP",), 0.5, ("position 0", "position 1"))


def test_picked_planes_are_picked_from_again_and_projected() -> None:
    """A position, then its second time point; its projection is that of the whole Z stack."""
    pixels = np.arange(8).reshape(2, 2, 2, 1, 1) * np.ones((5, 6), int)
    image = only_planes(only_planes(open_image(pixels, axes="PTZYX"), "P1"), "T1")
    assert image.planes == ((1, 1, 0), (1, 1, 1))
    assert maximum_projection(image).plane(0)[0, 0, 0] == 7
    assert maximum_projection(only_planes(image, "Z0")).plane(0)[0, 0, 0] == 7
    with pytest.raises(ImageError, match="has no plane P0; there are P1, T1, Z0 to Z1"):
        only_planes(image, "P0 Z1")


def test_picking_planes_reads_nothing_and_closing_closes_the_file(tmp_path: Path) -> None:
    """A plane is read when it is asked for; an error names it as the whole file would."""
    watched = Watched()
    image = only_planes(open_image(watched, axes="TZYX"), "T1 Z2")
    assert watched.keys == []
    image.plane(0)
    assert watched.keys == [(1, 2, slice(0, 8), slice(0, 8))]
    whole = open_image(write_tiff(tmp_path / "a.tif", TCYX[:, 0], "ZYX", imagej=True, compression="zlib"))
    only_planes(whole, "Z1").close()
    with pytest.raises(ImageError, match=r"a\.tif, Z0: the pixels cannot be read: it has been closed"):
        whole.plane(0)


@pytest.mark.parametrize(("axes", "name", "said"), [
    ("TYX", "T3", "image has no plane T3; there are T0 to T2"),
    ("TYX", "T0 Z1", "image has no plane Z1; there are T0 to T2"),
    ("CYX", "P0", "image has no plane P0; it is a single plane: name none"),
    ("TYX", "3", "the plane '3' is not understood; expected a name such as P0, T3 or P0 T3 Z1"),
    ("TYX", "T1 T2", "is not understood"),
    ("TYX", "T-1", "is not understood"),
    ("TYX", "Y1", "is not understood"),
])  # fmt: skip
def test_planes_that_are_not_there(axes: str, name: str, said: str) -> None:
    """The message says which there are."""
    with pytest.raises(ImageError, match=said):
        only_planes(open_image(TCYX[:, 0], axes=axes), name)


def test_memory_that_runs_out_is_not_called_a_damaged_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program beside it may have taken the memory; the file is as good as it was."""

    def full(*_: object, **__: object) -> None:
        raise MemoryError

    image = open_image(write_tiff(tmp_path / "a.tif", TCYX[:, 0], "ZYX", imagej=True, compression="zlib"))
    monkeypatch.setattr("tifffile.TiffPage.decode", property(lambda _: full))
    with pytest.raises(ImageError, match=r"too little memory for it; close other programs") as caught:
        image.plane(0)
    assert "again" not in str(caught.value)
