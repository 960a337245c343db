"""A label image is written without napari; tests/plugin/test_writers.py looks at every fact in the files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import zarr

from napari_milcnn.errors import LabelsError, OutputError
from napari_milcnn.images.open import open_image
from napari_milcnn.images.write import (
    LabelsAxis,
    LabelsImage,
    number_ranges,
    write_labels_into,
    write_labels_ome_tiff,
    write_labels_ome_zarr,
)

LABELS = np.zeros((2, 6, 8), np.int64)
LABELS[0, 1:3, 1:4], LABELS[1, 4:, 5:] = 1, 2
BOTH = pytest.mark.parametrize(
    ("write", "ending"), [(write_labels_ome_tiff, ".ome.tif"), (write_labels_ome_zarr, ".ome.zarr")]
)


def two_cells(data: np.ndarray = LABELS) -> LabelsImage:
    """Return masks of two time points with one cell each, of the classes a and b."""
    side = LabelsAxis(6, 0.5, unit="micrometer"), LabelsAxis(8, 0.5, unit="micrometer")
    return LabelsImage(
        name="masks",
        data=data,
        axes={"T": LabelsAxis(2, 30.0, unit="second"), "Y": side[0], "X": side[1]},
        classes={"a": (230, 159, 0, 255), "b": (86, 180, 233, 255)},
        features=pd.DataFrame({"index": [1, 2], "class": ["a", "b"]}),
        model={"name": "small"},
    )


@BOTH
def test_a_label_image_reads_back(tmp_path: Path, write, ending: str) -> None:
    """Numbers, axes and pixel size."""
    path = tmp_path / f"m{ending}"
    write(path, two_cells())
    with open_image(path) as image:
        assert (image.axes, image.pixel_size, image.dtype) == ("TYX", 0.5, np.uint32)
        np.testing.assert_array_equal(np.asarray(image.data), LABELS)


def test_colours_of_classes_are_those_of_their_objects_in_ome_zarr(tmp_path: Path) -> None:
    """Where objects have no colours of their own."""
    write_labels_ome_zarr(tmp_path / "m.ome.zarr", two_cells())
    attributes = json.loads((tmp_path / "m.ome.zarr" / "zarr.json").read_text())["attributes"]
    assert attributes["ome"]["image-label"]["colors"] == [
        {"label-value": 1, "rgba": [230, 159, 0, 255]}, {"label-value": 2, "rgba": [86, 180, 233, 255]}
    ]  # fmt: skip
    assert attributes["napari-milcnn"] == {"classes": ["a", "b"], "model": {"name": "small"}}


@BOTH
def test_planes_are_read_one_at_a_time(tmp_path: Path, write, ending: str) -> None:
    """A label image may be larger than memory."""
    keys = []

    class Lazy:
        shape, ndim, dtype = LABELS.shape, LABELS.ndim, LABELS.dtype

        def __getitem__(self, key):
            keys.append(key)
            return LABELS[key]

    write(tmp_path / f"m{ending}", two_cells(Lazy()))
    assert keys == [(t, slice(0, 6), slice(None)) for t in range(2)]


@BOTH
def test_bare_numbers_need_axes_and_a_name_alone(tmp_path: Path, write, ending: str) -> None:
    """Classes, table, colours and model may be left out."""
    axes = {"Y": LabelsAxis(6), "X": LabelsAxis(8)}
    write(tmp_path / f"m{ending}", LabelsImage("bare", LABELS[0], axes))
    with open_image(tmp_path / f"m{ending}") as image:
        assert image.pixel_size is None
        np.testing.assert_array_equal(image.plane(0)[0], LABELS[0])


@BOTH
def test_values_that_are_no_label_numbers_are_refused(tmp_path: Path, write, ending: str) -> None:
    """Fractions and negative numbers; nothing is left on the disk."""
    with pytest.raises(LabelsError, match="masks holds float64 values; label numbers are whole numbers"):
        write(tmp_path / f"m{ending}", two_cells(LABELS / 2))
    with pytest.raises(LabelsError, match="masks holds the label -1; expected 0 to 4294967295"):
        write(tmp_path / f"m{ending}", two_cells(-LABELS))
    assert list(tmp_path.iterdir()) == []


def test_ome_zarr_has_no_positions_and_replaces_label_images_only(tmp_path: Path) -> None:
    """Both are said before anything is written."""
    axes = {"P": LabelsAxis(2), "Y": LabelsAxis(6), "X": LabelsAxis(8)}
    with pytest.raises(LabelsError, match="masks has 2 positions, which OME-Zarr has no axis for"):
        write_labels_ome_zarr(tmp_path / "m.zarr", LabelsImage("masks", LABELS, axes))
    (tmp_path / "m.zarr").mkdir()
    with pytest.raises(OutputError, match=r"m\.zarr exists already and is not a label image"):
        write_labels_ome_zarr(tmp_path / "m.zarr", two_cells())


def test_number_ranges() -> None:
    """Runs of numbers in short."""
    assert number_ranges([3, 1, 2, 7, 9, 8, 5]) == "1-3 5 7-9"
    assert number_ranges([]) == ""


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_labels_inside_an_image_have_its_version_and_leave_other_labels(tmp_path, version):
    image = tmp_path / "plate.ome.zarr" / "A" / "1" / "0"
    kind = 2 if version == "0.4" else 3
    scales = {"multiscales": [{"axes": [], "datasets": []}]}
    own = scales if version == "0.4" else {"ome": {"version": version, **scales}}
    zarr.create_group(str(image), zarr_format=kind, attributes=own)
    listed = {"labels": ["nuclei"]}
    other = listed if version == "0.4" else {"ome": {"version": version, **listed}}
    zarr.create_group(str(image / "labels"), zarr_format=kind, attributes=other)
    zarr.create_group(str(image / "labels" / "nuclei"), zarr_format=kind)
    numbers = np.zeros((40, 50), np.int32)
    numbers[3:9, 4:12], numbers[20:30, 20:40] = 1, 2
    axes = {"Y": LabelsAxis(40, 0.5, unit="micrometer"), "X": LabelsAxis(50, 0.5, unit="micrometer")}
    features = pd.DataFrame({"index": [1, 2], "class": ["a", "b"], "area_px": [48, 200]})
    labels = LabelsImage("milcnn", numbers, axes, {"a": (1, 2, 3, 255), "b": (4, 5, 6, 255)}, features)
    for _ in range(2):  # what this program wrote is replaced
        path = write_labels_into(image, labels)
    assert path == image / "labels" / "milcnn"
    group = zarr.open_group(str(image / "labels"), mode="r")
    assert group.metadata.zarr_format == zarr.open_group(str(path), mode="r").metadata.zarr_format == kind
    found, said = dict(group.attrs), dict(zarr.open_group(str(path), mode="r").attrs)
    assert (found if version == "0.4" else found["ome"])["labels"] == ["nuclei", "milcnn"]
    ome = said if version == "0.4" else said["ome"]
    assert (ome["multiscales"][0] if version == "0.4" else ome)["version"] == version
    assert ome["image-label"]["colors"][1] == {"label-value": 2, "rgba": [4, 5, 6, 255]}
    assert ome["image-label"]["properties"][0] == {"label-value": 1, "class": "a", "area_px": 48}
    with open_image(path) as read:
        np.testing.assert_array_equal(read.plane(0)[0], numbers)
        assert read.pixel_size == 0.5
    with pytest.raises(OutputError, match="labels of another program"):
        write_labels_into(image, LabelsImage("nuclei", numbers, axes))


def test_images_that_take_no_labels_are_refused(tmp_path):
    labels = LabelsImage("x", np.zeros((4, 4), np.int32), {"Y": LabelsAxis(4), "X": LabelsAxis(4)})
    newer = tmp_path / "newer.ome.zarr"
    zarr.create_group(str(newer), zarr_format=3, attributes={"ome": {"version": "0.6", "multiscales": []}})
    (tmp_path / "field.tif").touch()
    for image in (newer, tmp_path / "field.tif", tmp_path / "gone"):
        with pytest.raises(OutputError, match=r"version 0\.4 or 0\.5"):
            write_labels_into(image, labels)
