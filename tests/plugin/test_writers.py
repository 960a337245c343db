"""A labels layer written as OME-TIFF or OME-Zarr reads back with its numbers, pixel size, classes and table."""

from __future__ import annotations

import io
import json
from pathlib import Path
from xml.etree import ElementTree

import dask.array as da
import npe2
import numpy as np
import pandas as pd
import pytest
import tifffile
import zarr
from napari.components import ViewerModel
from napari.layers import Labels
from napari.utils.colormaps import DirectLabelColormap

import napari_milcnn as mil
from napari_milcnn.atomic_write import replacing_folder
from napari_milcnn.errors import LabelsError, OutputError
from napari_milcnn.plugin.writers import save_ome_tiff, save_ome_zarr

BOTH = pytest.mark.parametrize(("write", "ending"), [(save_ome_tiff, ".ome.tif"), (save_ome_zarr, ".ome.zarr")])


def numbers(*shape: int) -> np.ndarray:
    """Label images whose every plane differs; the last pixel is the largest number of 32 bits."""
    image = np.arange(np.prod(shape), dtype=np.uint32).reshape(shape)
    image.flat[-1] = 2**32 - 1
    return image


def masks_layer(**changes) -> Labels:
    """Return masks as this plugin's docks make them: two objects of class b, one of class a, over T, C, Z, Y, X."""
    data = np.zeros((2, 1, 1, 6, 8), np.uint32)
    data[0, 0, 0, 1:3, 1:4], data[0, 0, 0, 4:, 5:], data[1, 0, 0, 0, 0] = 1, 2, 3
    table = pd.DataFrame({
        "index": [1, 2, 3], "plane": [0, 0, 1], "label": [1, 2, 1], "class": ["b", "b", "a"], "area_px": [6, 6, 1],
        "score": [0.5, np.nan, 0.25],
    })  # fmt: skip
    colours = {None: "transparent", 0: "transparent", 1: "red", 2: "red", 3: "#0000ff"}
    options = {
        "name": "cells of ß", "axis_labels": "TCZYX", "scale": (5, 2, 30, 0.5, 0.5), "features": table,
        "units": ("s", "pixel", "um", "um", "um"), "colormap": DirectLabelColormap(color_dict=colours),
        "metadata": {"napari_milcnn": {"classes": ["a", "b", "c"], "model": {"name": "small", "sha256": "0f"}}},
    }  # fmt: skip
    return Labels(data, **{**options, **changes})


def written(write, path: Path, layer: Labels) -> str:
    """Write a layer as napari does and return the one path written."""
    data, meta, kind = layer.as_layer_data_tuple()
    assert kind == "labels"
    (path,) = write(str(path), data, meta)
    return path


def annotations(path: str) -> dict[str, object]:
    """Return the annotations of an OME-TIFF: namespace -> pairs, or text."""
    with tifffile.TiffFile(path) as tiff:
        root = ElementTree.fromstring(tiff.ome_metadata)
    found: dict[str, object] = {
        one.get("Namespace"): {pair.get("K"): pair.text for pair in one.findall(".//{*}M")}
        for one in root.findall(".//{*}MapAnnotation")
    }
    return found | {one.get("Namespace"): one.find("{*}Value").text for one in root.findall(".//{*}CommentAnnotation")}


def attributes(path: str) -> dict[str, object]:
    """Return the attributes of a zarr group."""
    return json.loads((Path(path) / "zarr.json").read_text())["attributes"]


@BOTH
def test_masks_read_back(tmp_path, write, ending):
    """Numbers and pixel size; the channel axis of length 1 is gone."""
    layer = masks_layer()
    with mil.open_image(written(write, tmp_path / f"m{ending}", layer)) as image:
        assert image.pixel_size == 0.5
        assert image.sizes["T"] == 2
        assert image.channels == (("labels",) if write is save_ome_tiff else ("channel 0",))
        for t in range(2):
            np.testing.assert_array_equal(image.plane(t)[0], layer.data[t, 0, 0])


def test_ome_tiff_keeps_classes_objects_and_table(tmp_path):
    """Each class with its colour in the layer or its own and its objects; the table as it was; T and Z."""
    layer = masks_layer()
    path = written(save_ome_tiff, tmp_path / "m.ome.tif", layer)
    found = annotations(path)
    notes = found["napari-milcnn"]
    assert [notes[f"class_{i}"] for i in (1, 2, 3)] == ["a", "b", "c"]
    assert [notes[f"class_{i}_colour"] for i in (1, 2, 3)] == ["#0000ff", "#ff0000", "#009e73"]
    assert [notes[f"class_{i}_objects"] for i in (1, 2, 3)] == ["3", "1-2", None]
    assert json.loads(notes["model"]) == {"name": "small", "sha256": "0f"}
    table = pd.read_csv(io.StringIO(found["napari-milcnn/features"]))
    pd.testing.assert_frame_equal(table, layer.features, check_dtype=False)
    with tifffile.TiffFile(path) as tiff:
        pixels = ElementTree.fromstring(tiff.ome_metadata).find("{*}Image/{*}Pixels")
    assert {key: pixels.get(key) for key in ("SizeT", "SizeZ", "SizeC", "TimeIncrement", "PhysicalSizeZ")} == {
        "SizeT": "2", "SizeZ": "1", "SizeC": "1", "TimeIncrement": "5.0", "PhysicalSizeZ": "30.0"
    }  # fmt: skip
    assert [one.name for one in tmp_path.iterdir()] == ["m.ome.tif"]


def test_ome_zarr_keeps_colours_and_properties(tmp_path):
    """As `image-label` of OME-Zarr 0.5; classes and model beside it; a number that is missing is null."""
    found = attributes(written(save_ome_zarr, tmp_path / "m.ome.zarr", masks_layer(translate=(0, 0, 0, 1, 2))))
    assert found["ome"]["version"] == "0.5"
    label = found["ome"]["image-label"]
    assert {one["label-value"]: one["rgba"] for one in label["colors"]} == {
        0: [0, 0, 0, 0], 1: [255, 0, 0, 255], 2: [255, 0, 0, 255], 3: [0, 0, 255, 255]
    }  # fmt: skip
    assert label["properties"][1] == {
        "label-value": 2, "plane": 0, "label": 2, "class": "b", "area_px": 6, "score": None
    }  # fmt: skip
    assert found["napari-milcnn"] == {"classes": ["a", "b", "c"], "model": {"name": "small", "sha256": "0f"}}
    (scales,) = found["ome"]["multiscales"]
    assert scales["axes"] == [
        {"name": "t", "type": "time", "unit": "second"},
        *({"name": name, "type": "space", "unit": "micrometer"} for name in "zyx"),
    ]
    assert scales["datasets"] == [{"path": "0", "coordinateTransformations": [
        {"type": "scale", "scale": [5.0, 30.0, 0.5, 0.5]}, {"type": "translation", "translation": [0.0, 0.0, 1.0, 2.0]}
    ]}]  # fmt: skip


def test_pyramid_takes_every_second_pixel(tmp_path):
    """1100 px need 550 and 275: each level holds label numbers of the one above, never a mixture of two."""
    image = numbers(1100, 40)
    path = written(save_ome_zarr, tmp_path / "m.ome.zarr", Labels(image, scale=(2, 2), units="nm"))
    (scales,) = attributes(path)["ome"]["multiscales"]
    group = zarr.open_group(path, mode="r")
    for i, (factor, level) in enumerate(zip((1, 2, 4), scales["datasets"], strict=True)):
        np.testing.assert_array_equal(group[level["path"]][...], image[::factor, ::factor])
        (transform,) = level["coordinateTransformations"]
        assert transform["scale"] == pytest.approx([0.002 * factor] * 2), i


@BOTH
@pytest.mark.parametrize(
    ("shape", "labels", "axes"),
    [
        ((5, 6), None, "YX"),
        ((3, 5, 6), None, "ZYX"),
        ((2, 3, 5, 6), None, "TZYX"),
        ((2, 4, 3, 5, 6), None, "TZCYX"),
        ((2, 5, 6), ("time", "y", "x"), "TYX"),
        ((4, 5, 6), ("T", "-2", "-1"), "TYX"),
        ((5, 6, 4), ("y", "x", "t"), "TYX"),
        ((6, 3, 5), ("X", "Z", "Y"), "ZYX"),
        ((3, 2, 5, 6), ("Z", "T", "Y", "X"), "TZYX"),
        ((2, 3, 5, 6), ("Z", "Z", "Y", "X"), "TZYX"),
    ],
)
def test_axes(tmp_path, write, ending, shape, labels, axes):
    """Two to five axes in any order, named or not, stand in the file in the order of the format."""
    data = numbers(*shape)
    layer = Labels(data, axis_labels=labels)
    own = {"YXT": "yxt", "XZY": "xzy", "ZTYX": "ztyx"}.get("".join(labels or ()).upper())
    if own:
        data = np.einsum(f"{own}->{axes.lower()}", data)
    elif axes == "TZCYX":  # from T C Z
        data = data.swapaxes(1, 2)
    with mil.open_image(written(write, tmp_path / f"m{ending}", layer)) as image:
        assert image.axes == axes
        np.testing.assert_array_equal(np.asarray(image.data), data)


@BOTH
def test_lazy_layers_are_read_plane_by_plane(tmp_path, write, ending):
    """Dask, zarr, a memory map and a pyramid of napari give the same file; no read asks for more than a plane."""
    data, reads = numbers(2, 3, 40, 50), []

    def plane(block_info=None):
        reads.append(block_info[None]["chunk-location"])
        return data[tuple(slice(a, b) for a, b in block_info[None]["array-location"])]

    blocks = da.map_blocks(plane, chunks=((1, 1), (1, 1, 1), 40, 50), dtype=data.dtype, meta=data[:0])
    mapped = np.memmap(tmp_path / "m.raw", np.uint32, "w+", shape=data.shape)
    mapped[...] = data
    disk = zarr.create_array(str(tmp_path / "z.zarr"), data=data, chunks=(1, 1, 20, 25))
    for i, source in enumerate((blocks, disk, mapped, [blocks, blocks[..., ::2, ::2]])):
        layer = (source, {"multiscale": isinstance(source, list)}, "labels")
        (path,) = write(str(tmp_path / f"{i}{ending}"), *layer[:2])
        with mil.open_image(path) as image:
            np.testing.assert_array_equal(np.asarray(image.data), data)
    assert len(reads) == 2 * 6


@BOTH
@pytest.mark.parametrize("data", [np.ones((4, 5), bool), np.full((4, 5), 7, np.int64), np.ones((4, 5), np.uint8)])
def test_any_whole_numbers_without_metadata(tmp_path, write, ending, data):
    """A plain layer: no classes, no table, no pixel size."""
    (path,) = write(str(tmp_path / f"m{ending}"), data, {})
    with mil.open_image(path) as image:
        assert (image.axes, image.pixel_size, image.dtype) == ("YX", None, np.uint32)
        np.testing.assert_array_equal(image.plane(0)[0], data)
    if write is save_ome_tiff:
        assert set(annotations(path)["napari-milcnn"]) == {"kind"}
    else:
        assert attributes(path)["ome"]["image-label"] == {}


@BOTH
def test_scale_without_unit_is_no_pixel_size(tmp_path, write, ending):
    """0.3 of nothing said is kept as a scale, never taken for micrometres; units may be plain words."""
    bare = written(write, tmp_path / f"a{ending}", Labels(numbers(4, 5), scale=(0.3, 0.3)))
    with mil.open_image(bare) as image:
        assert image.pixel_size is None
    if write is save_ome_tiff:
        with tifffile.TiffFile(bare) as tiff:
            assert 'PhysicalSizeX="0.3" PhysicalSizeXUnit="pixel"' in tiff.ome_metadata
    (said,) = write(str(tmp_path / f"b{ending}"), numbers(4, 5), {"scale": (300, 300), "units": ("nm", "nanometer")})
    with mil.open_image(said) as image:
        assert image.pixel_size == pytest.approx(0.3)


@BOTH
def test_own_table_without_index_and_colours(tmp_path, write, ending):
    """Rows then belong to the labels 0, 1, 2; classes stand as they come, in their own colours."""
    layer = Labels(np.array([[0, 1], [2, 2]]), features={"class": [None, "y", "x"]})
    path = written(write, tmp_path / f"m{ending}", layer)
    if write is save_ome_tiff:
        notes = annotations(path)["napari-milcnn"]
        assert [notes["class_1"], notes["class_1_objects"], notes["class_1_colour"]] == ["y", "1", "#e69f00"]
        assert [notes["class_2"], notes["class_2_objects"], notes["class_2_colour"]] == ["x", "2", "#56b4e9"]
    else:
        label = attributes(path)["ome"]["image-label"]
        assert label["colors"] == [
            {"label-value": 1, "rgba": [0xE6, 0x9F, 0, 255]}, {"label-value": 2, "rgba": [0x56, 0xB4, 0xE9, 255]}
        ]  # fmt: skip
        assert [one["class"] for one in label["properties"]] == [None, "y", "x"]


def test_a_table_put_together_from_others(tmp_path):
    """Rows that all have the same pandas index, as after pd.concat, are still one object each."""
    table = pd.concat([pd.DataFrame({"index": [i], "class": [name]}) for i, name in ((1, "x"), (2, "y"))])
    colours = DirectLabelColormap(color_dict={None: "transparent", 0: "transparent", 1: "red", 2: "blue"})
    (path,) = save_ome_tiff(str(tmp_path / "m.ome.tif"), numbers(4, 5), {"features": table, "colormap": colours})
    notes = annotations(path)["napari-milcnn"]
    assert [notes[f"class_{i}_objects"] for i in (1, 2)] == ["1", "2"]
    assert [notes[f"class_{i}_colour"] for i in (1, 2)] == ["#ff0000", "#0000ff"]


def test_positions(tmp_path):
    """OME-TIFF has a series for each; OME-Zarr has no axis for them, which is said."""
    layer = Labels(numbers(2, 3, 4, 5), axis_labels="PZYX")
    with mil.open_image(written(save_ome_tiff, tmp_path / "m.ome.tif", layer)) as image:
        assert image.axes == "PZYX"
        np.testing.assert_array_equal(np.asarray(image.data), layer.data)
    with pytest.raises(LabelsError, match=r"has 2 positions, which OME-Zarr has no axis for; save it as \.ome\.tif"):
        written(save_ome_zarr, tmp_path / "m.ome.zarr", layer)


@BOTH
@pytest.mark.parametrize(
    ("data", "said"),
    [
        (np.array([[0, -1]]), "labels holds the label -1; expected 0 to 4294967295: number the objects anew"),
        (np.array([[0, 2**32]]), "holds the label 4294967296"),
        (np.ones((2, 2)), "labels holds float64 values; label numbers are whole numbers"),
        (np.ones((1, 2, 1, 2, 1, 2, 2), int), "labels has 7 axes; expected two to six"),
        (np.ones((0, 4), int), r"labels: shape \(0, 4\) holds no pixels"),
    ],
)
def test_what_cannot_be_written(tmp_path, write, ending, data, said):
    """Said in a sentence, and the file that was there before stays, nothing beside it."""
    (path,) = write(str(tmp_path / f"m{ending}"), numbers(4, 5), {})
    with pytest.raises(LabelsError, match=said):
        write(path, data, {})
    with mil.open_image(path) as image:
        np.testing.assert_array_equal(image.plane(0)[0], numbers(4, 5))
    assert [one.name for one in tmp_path.iterdir()] == [f"m{ending}"]


@BOTH
def test_a_full_disk(tmp_path, monkeypatch, write, ending):
    """OutputError; the old file stays and no draft is left."""
    (path,) = write(str(tmp_path / f"m{ending}"), numbers(4, 5), {})

    def full(*_args, **_options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tifffile.TiffWriter, "write", full)
    monkeypatch.setattr(zarr.Array, "__setitem__", full)
    with pytest.raises(OutputError, match="No space left on device; free some space"):
        write(path, numbers(6, 7), {})
    with mil.open_image(path) as image:
        assert image.shape == (4, 5)
    assert [one.name for one in tmp_path.iterdir()] == [f"m{ending}"]


@BOTH
def test_an_older_file_is_replaced_whole(tmp_path, write, ending):
    """A label image of another shape takes its place."""
    for data in (numbers(3, 40, 50), numbers(4, 5)):
        (path,) = write(str(tmp_path / f"m{ending}"), data, {})
    with mil.open_image(path) as image:
        np.testing.assert_array_equal(np.asarray(image.data), numbers(4, 5))
    assert [one.name for one in tmp_path.iterdir()] == [f"m{ending}"]


def test_only_label_images_are_replaced(tmp_path):
    """The OME-Zarr of the image itself, a folder and a file of that name are left alone."""
    zarr.create_group(str(tmp_path / "image.ome.zarr"), zarr_format=3, attributes={"ome": {"multiscales": []}})
    (tmp_path / "folder.ome.zarr").mkdir()
    (tmp_path / "file.ome.zarr").write_text("x")
    for path in list(tmp_path.iterdir()):
        with pytest.raises(OutputError, match=f"{path.name} exists already and is not a label image; choose another"):
            save_ome_zarr(str(path), numbers(4, 5), {})
        assert path.exists()


def test_a_folder_that_cannot_be_moved_leaves_the_old_one(tmp_path, monkeypatch):
    """The second of two moves fails: the first is undone."""
    old, moved = tmp_path / "m.ome.zarr", Path.rename
    old.mkdir()
    (old / "a").write_text("old")

    def refuse(self, target):
        if target == old and not self.name.endswith(".old"):
            raise PermissionError(13, "Permission denied")
        return moved(self, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(OutputError, match="Permission denied"), replacing_folder(old) as draft:
        (draft / "a").write_text("new")
    assert (old / "a").read_text() == "old"
    assert [one.name for one in tmp_path.iterdir()] == ["m.ome.zarr"]


@BOTH
def test_a_missing_ending_is_added(tmp_path, write, ending):
    """Dots may be part of a name; a file that the user did not name is not replaced."""
    (path,) = write(str(tmp_path / "v1.2"), numbers(4, 5), {})
    assert path == str(tmp_path / f"v1.2{ending}")
    with pytest.raises(OutputError, match=f"v1.2{ending} exists already; give the whole name"):
        write(str(tmp_path / "v1.2"), numbers(4, 5), {})


def test_napari_chooses_these_writers(tmp_path, npe2pm):
    """By the ending, in a viewer, beside napari's own writers."""
    for name in ("napari", "napari-milcnn"):
        npe2pm.register(npe2.PluginManifest.from_distribution(name))
    viewer = ViewerModel()
    viewer.add_layer(masks_layer())
    for ending in (".ome.tif", ".ome.zarr"):
        (path,) = viewer.layers.save(str(tmp_path / f"m{ending}"))
        with mil.open_image(path) as image:
            assert image.pixel_size == 0.5
    assert npe2pm.get_writer("m.tif", ["labels"])[0].plugin_name == "napari"
