"""Results on disk: tables, label images, class maps, the overview and the run record."""

from __future__ import annotations

import json
import shutil

import imageio.v3 as imageio
import numpy as np
import pandas as pd
import pytest
import tifffile
from pyarrow import parquet

import napari_milcnn as mil
from napari_milcnn.errors import OptionsError, OutputError
from napari_milcnn.images.open import ImageReading
from napari_milcnn.results import findings
from napari_milcnn.results.folder import classify_files
from napari_milcnn.results.write import write_tables

CPU = {"device": "cpu", "precision": "float32"}


def field(seed=0, shape=(160, 176)):
    """Make a dark image with four bright discs of radius 9."""
    rng = np.random.default_rng(seed)
    image = rng.normal(100, 4, shape)
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    for y, x in ((40, 40), (40, 120), (110, 50), (120, 130)):
        image[np.hypot(rows - y, columns - x) <= 9] += 400
    return image.clip(0).astype(np.uint16)


def write_stack(path):
    """Write a T 2, Z 3, C 1 OME-TIFF with 0.5 µm pixels."""
    stack = np.stack([field(i) for i in range(6)]).reshape(2, 3, 1, 160, 176)
    facts = {"axes": "TZCYX", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5, "Channel": {"Name": ["DNA"]}}
    tifffile.imwrite(path, stack, ome=True, metadata=facts)
    return path


@pytest.fixture
def model():
    """Make an untrained model that sees the images at their own scale."""
    model = mil.new_model(["round", "long"], ["DNA"], pixel_size=0.5, widths=(4, 4, 4, 8, 8, 8))
    return model.with_card(mean=(120.0,), std=(60.0,))


def run(model, sources, out, **options):
    """Run a screen to its end and return the results."""
    return [step.result for step in classify_files(model, sources, out, **CPU, **options) if step.result]


def test_every_file_of_the_design_is_there(model, tmp_path):
    """One stack gives tables, labels, maps, overview and record, and they agree with Python's results."""
    path = write_stack(tmp_path / "stack.ome.tif")
    (result,) = run(model, [path], tmp_path / "out", mask_options={"threshold": 0.0, "present": 0.0})
    names = {p.name for p in (tmp_path / "out").iterdir()}
    assert names == {
        "predictions.csv", "objects.csv", "run.json",
        "stack_labels.ome.tif", "stack_maps.ome.tif", "stack_overview.png",
    }  # fmt: skip
    prediction = mil.classify(model, path, **CPU)
    table = pd.read_csv(tmp_path / "out" / "predictions.csv")
    assert list(table[["t", "z"]].itertuples(index=False, name=None)) == [(t, z) for t in (0, 1) for z in (0, 1, 2)]
    np.testing.assert_allclose(table["P round"], prediction.probabilities[:, 0], rtol=1e-4)
    assert list(table["top"]) == list(prediction.top)
    assert result.objects == 6 * 4 == len(pd.read_csv(tmp_path / "out" / "objects.csv"))


def test_labels_carry_size_names_and_objects(model, tmp_path):
    """The label image reads back with axes, pixel size, class names, and the objects that objects.csv lists."""
    path = write_stack(tmp_path / "stack.ome.tif")
    run(model, [path], tmp_path / "out", mask_options={"threshold": 0.0, "present": 0.0})
    with mil.open_image(tmp_path / "out" / "stack_labels.ome.tif") as labels:
        assert (labels.axes, labels.shape) == ("TZCYX", (2, 3, 2, 160, 176))
        assert labels.pixel_size == pytest.approx(0.5)
        assert labels.channels == ("objects", "classes")
        found, classes = labels.plane(4)
    objects = pd.read_csv(tmp_path / "out" / "objects.csv").query("t == 1 and z == 1")
    assert sorted(objects["label"]) == sorted(set(np.unique(found)) - {0})
    for row in objects.itertuples():
        inside = found == row.label
        assert inside.sum() == row.area_px
        assert row.area_um2 == pytest.approx(row.area_px * 0.25)
        assert set(classes[inside]) == {1 + ["round", "long"].index(objects.loc[row.Index, "class"])}
    with tifffile.TiffFile(tmp_path / "out" / "stack_labels.ome.tif") as tiff:
        xml = tiff.ome_metadata
    assert "class_1" in xml
    assert "round" in xml


def test_maps_carry_their_place(model, tmp_path):
    """Class maps are written at their own size, a stride of 16 px of 0.5 µm being 8 µm."""
    path = write_stack(tmp_path / "stack.ome.tif")
    run(model, [path], tmp_path / "out", masks=False)
    with mil.open_image(tmp_path / "out" / "stack_maps.ome.tif") as maps:
        assert maps.channels == ("round", "long")
        assert maps.pixel_size == pytest.approx(8.0)
        np.testing.assert_allclose(maps.plane(3), mil.classify(model, path, **CPU).class_maps[3], rtol=1e-5)
    assert not (tmp_path / "out" / "stack_labels.ome.tif").exists()
    assert not (tmp_path / "out" / "objects.csv").exists()


def test_overview_is_a_picture(model, tmp_path):
    """The overview is a PNG wide enough to read, neither blank nor one colour."""
    run(model, [write_stack(tmp_path / "stack.ome.tif")], tmp_path / "out")
    picture = imageio.imread(tmp_path / "out" / "stack_overview.png")
    assert picture.shape[1] > 1000
    assert len(np.unique(picture.reshape(-1, picture.shape[-1]), axis=0)) > 500


def test_record_says_how_to_do_it_again(model, tmp_path):
    """run.json holds model hash, options, versions, device and what was written."""
    path = write_stack(tmp_path / "stack.ome.tif")
    run(model, [path], tmp_path / "out", kind="class_map", mask_options={"min_size": 7})
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert record["model"]["sha256"] == model.digest
    assert record["options"]["evidence"]["kind"] == "class_map"
    assert record["options"]["masks"]["min_size"] == 7
    assert record["versions"]["torch"][0].isdigit()
    assert record["images"][0]["file"] == str(path)
    assert record["unfinished"] == []


def test_a_bad_image_has_its_row_and_the_others_go_on(model, tmp_path):
    """Of three files the broken one in the middle gives an error row; exit without raising."""
    for name in ("a.tif", "c.tif"):
        tifffile.imwrite(tmp_path / name, field())
    (tmp_path / "b.tif").write_bytes(b"II*\0 this is no image")
    results = run(model, [tmp_path / name for name in ("a.tif", "b.tif", "c.tif")], tmp_path / "out")
    assert [bool(result.error) for result in results] == [False, True, False]
    table = pd.read_csv(tmp_path / "out" / "predictions.csv")
    assert len(table) == 3
    assert "b.tif" in table.loc[1, "error"]
    assert np.isnan(table.loc[1, "P round"])
    assert table.loc[[0, 2], "error"].isna().all()


def test_leaving_early_keeps_what_is_finished(model, tmp_path):
    """After the first of three images the loop is left: its row and its files are whole, the rest is named."""
    files = [tmp_path / f"{i}.tif" for i in range(3)]
    for file in files:
        tifffile.imwrite(file, field())
    steps = classify_files(model, files, tmp_path / "out", **CPU)
    for step in steps:
        if step.result:
            break
    steps.close()
    assert len(pd.read_csv(tmp_path / "out" / "predictions.csv")) == 1
    assert json.loads((tmp_path / "out" / "run.json").read_text())["unfinished"] == [str(f) for f in files[1:]]
    assert not [p for p in (tmp_path / "out").iterdir() if p.name.startswith(".")]


def test_an_output_folder_that_is_deleted_meanwhile_ends_the_run(model, tmp_path):
    """What was written is gone: the run must not end as though all were well, nor make half a folder."""
    for name in "abc":
        tifffile.imwrite(tmp_path / f"{name}.tif", field())
    steps = classify_files(model, [tmp_path / f"{name}.tif" for name in "abc"], tmp_path / "out", masks=False, **CPU)
    next(step for step in steps if step.result)
    shutil.rmtree(tmp_path / "out")
    with pytest.raises(OutputError, match=r"out was deleted or moved while it was written.*run again"):
        list(steps)
    assert not (tmp_path / "out").exists()


def test_own_objects(model, tmp_path):
    """A label image of one's own decides the objects: by file, or by name in a folder."""
    tifffile.imwrite(tmp_path / "a.tif", field())
    own = np.zeros((160, 176), np.uint16)
    own[30:50, 30:50] = 5
    (tmp_path / "cells").mkdir()
    tifffile.imwrite(tmp_path / "cells" / "a.tif", own)
    for objects in (tmp_path / "cells", tmp_path / "cells" / "a.tif"):
        (result,) = run(model, [tmp_path / "a.tif"], tmp_path / "out", objects=objects, mask_options={"threshold": 0.0})
        assert result.objects == 1
        assert pd.read_csv(tmp_path / "out" / "objects.csv")["area_px"].tolist() == [400]
    (tmp_path / "cells" / "a.tif").unlink()
    (result,) = run(model, [tmp_path / "a.tif"], tmp_path / "out", objects=tmp_path / "cells")
    assert "has no label image of a; expected a file such as a.tif, a_labels.tif" in result.error


def test_own_objects_keep_their_numbers_and_axes(model, tmp_path):
    """Labels 300 and 70 stay 300 and 70, small ones too, and a ZTYX label image is read by its own axes."""
    path = write_stack(tmp_path / "stack.ome.tif")
    own = np.zeros((3, 2, 160, 176), np.uint16)
    own[0, 1, 30:50, 30:50], own[0, 1, 100:103, 100:103] = 300, 70
    tifffile.imwrite(tmp_path / "own.ome.tif", own, ome=True, metadata={"axes": "ZTYX"})
    run(model, [path], tmp_path / "out", objects=tmp_path / "own.ome.tif", mask_options={"threshold": 0, "present": 0})
    table = pd.read_csv(tmp_path / "out" / "objects.csv")
    assert sorted(zip(table["t"], table["z"], table["label"], table["area_px"], strict=True)) == [
        (1, 0, 70, 9), (1, 0, 300, 400)
    ]  # fmt: skip
    with pytest.raises(OptionsError, match="is one label image and there are 2 images"):
        run(model, [path, path], tmp_path / "out", objects=tmp_path / "own.ome.tif")


def test_foreground_follows_the_pixel_size(tmp_path):
    """The same discs at half the pixel size give the same objects: options are in pixels of the model."""
    model = mil.load_model("nuclei").with_card(pixel_size=1.0, foreground=mil.ForegroundOptions(split=12, min_size=100))
    fine = np.kron(field(), np.ones((2, 2))).astype(np.uint16)
    counts = [
        mil.evidence(model, mil.open_image(image, pixel_size=size), device="cpu").objects.max()
        for image, size in ((field(), 1.0), (fine, 0.5))
    ]
    assert counts == [4, 4]


def test_reading_options_reach_the_files(model, tmp_path):
    """Axes, channel names and pixel size given by hand are used: two channels, the second being DNA."""
    tifffile.imwrite(tmp_path / "a.tif", np.stack([field() * 0 + np.arange(176, dtype=np.uint16), field()]))
    reading = ImageReading(axes="CYX", channels=("other", "DNA"), pixel_size=0.5)
    (result,) = run(model, [tmp_path / "a.tif"], tmp_path / "out", reading=reading)
    alone = mil.classify(model, mil.open_image(field(), channels=["DNA"], pixel_size=0.5), **CPU)
    np.testing.assert_allclose(result.prediction.probabilities, alone.probabilities, rtol=1e-5)


def test_evidence_is_written_and_replaced(model, tmp_path):
    """NAME_evidence.ome.tif has the evidence of the classes that got masks; a run without it removes the old file."""
    tifffile.imwrite(tmp_path / "a.tif", field())
    out, options = tmp_path / "out", {"kind": "class_map", "detail": 2}
    run(model, [tmp_path / "a.tif"], out, save_evidence=True, **options)
    path = out / "a_evidence.ome.tif"
    found = mil.open_image(path)
    record = json.loads((out / "run.json").read_text())
    assert record["options"]["save_evidence"]
    expected = mil.evidence(model, tmp_path / "a.tif", list(found.channels), **options, **CPU)
    assert set(found.channels) <= {"round", "long"}
    np.testing.assert_allclose(found.plane(0), expected.maps[0], rtol=1e-6)
    with tifffile.TiffFile(path) as file:
        assert "class_map" in file.ome_metadata
    run(model, [tmp_path / "a.tif"], out, **options)
    assert not path.exists()
    with pytest.raises(OptionsError, match="evidence is to be saved, but no masks are made"):
        run(model, [tmp_path / "a.tif"], out, save_evidence=True, masks=False)


def test_calls_that_are_wrong(model, tmp_path):
    """A class unknown, an output folder that is a file."""
    tifffile.imwrite(tmp_path / "a.tif", field())
    with pytest.raises(OptionsError, match="the model does not know the class flat; its classes: round, long"):
        run(model, [tmp_path / "a.tif"], tmp_path / "out", classes=["flat"])
    with pytest.raises(OutputError, match="is a file; expected a folder"):
        run(model, [tmp_path / "a.tif"], tmp_path / "a.tif")


def test_full_disk_ends_the_run_with_a_sentence(model, tmp_path, monkeypatch):
    """No space while labels are written: OutputError, and no half file is left."""
    tifffile.imwrite(tmp_path / "a.tif", field())

    def full(*_args, **_options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("napari_milcnn.images.write.tifffile.TiffWriter.write", full)
    with pytest.raises(OutputError, match="No space left on device; free some space"):
        run(model, [tmp_path / "a.tif"], tmp_path / "out")
    assert not list((tmp_path / "out").glob("*.tif"))
    assert not list((tmp_path / "out").glob(".*"))


def test_mismatched_own_objects_fail_that_image_only(model, tmp_path):
    """A label image of another size is that image's error."""
    tifffile.imwrite(tmp_path / "a.tif", field())
    tifffile.imwrite(tmp_path / "own.tif", np.zeros((5, 5), np.uint16))
    (result,) = run(model, [tmp_path / "a.tif"], tmp_path / "out", objects=tmp_path / "own.tif")
    assert "the labels of own.tif are 5 x 5 px, but the image is 160 x 176 px" in result.error


def test_images_are_never_written_over(model, tmp_path):
    """An input that has the name of an output is refused before anything is written."""
    tifffile.imwrite(tmp_path / "a.tif", field())
    tifffile.imwrite(tmp_path / "a_maps.ome.tif", field())
    before = (tmp_path / "a_maps.ome.tif").read_bytes()
    with pytest.raises(OutputError, match=r"a_maps\.ome\.tif is an image to classify and would be overwritten"):
        run(model, [tmp_path / "a.tif", tmp_path / "a_maps.ome.tif"], tmp_path)
    assert (tmp_path / "a_maps.ome.tif").read_bytes() == before


def test_own_outputs_are_no_images(model, tmp_path):
    """Results written into the folder of the images are passed over the second time."""
    tifffile.imwrite(tmp_path / "a.tif", field())
    assert [len(run(model, [tmp_path], tmp_path)) for _ in range(2)] == [1, 1]


def test_an_unforeseen_failure_is_one_images_row(model, tmp_path, monkeypatch):
    """Whatever goes wrong in one image, the next is classified and the row says what it was."""
    for name in "ab":
        tifffile.imwrite(tmp_path / f"{name}.tif", field())
    real = findings.write_maps

    def fails_once(path, *rest):
        if path.name.startswith("a"):
            raise ZeroDivisionError("by chance")
        real(path, *rest)

    monkeypatch.setattr("napari_milcnn.results.findings.write_maps", fails_once)
    first, second = run(model, [tmp_path / "a.tif", tmp_path / "b.tif"], tmp_path / "out")
    assert "a.tif failed: ZeroDivisionError: by chance" in first.error
    assert not second.error


def test_an_old_file_that_cannot_be_removed_is_one_images_error(model, tmp_path, monkeypatch):
    """Masks of an earlier format, held open by another program: the new results are there, and the row says it."""
    for name in "ab":
        tifffile.imwrite(tmp_path / f"{name}.tif", field())
    files, options = [tmp_path / "a.tif", tmp_path / "b.tif"], {"mask_options": {"threshold": 0.0, "present": 0.0}}
    run(model, files, tmp_path / "out", masks_as="zarr", **options)

    def held(path):
        raise PermissionError(13, "held open", str(path))

    monkeypatch.setattr("napari_milcnn.results.folder.shutil.rmtree", held)
    results = run(model, files, tmp_path / "out", **options)
    assert [("PermissionError" in one.error, "a_labels.ome.zarr" in one.error) for one in results] == [
        (True, True), (True, False),
    ]  # fmt: skip
    assert all((tmp_path / "out" / f"{name}_labels.ome.tif").exists() for name in "ab")


def test_values_beyond_float32_are_one_images_error(model, tmp_path):
    """Finite in 64 bits, infinite in 32: refused with what to do."""
    tifffile.imwrite(tmp_path / "a.tif", np.full((100, 100), 1e300))
    (result,) = run(model, [tmp_path / "a.tif"], tmp_path / "out")
    assert "too large for 32-bit numbers; rescale" in result.error


def test_long_names_are_shortened(model, tmp_path):
    """A name of 240 characters gives files of names that the disk can hold."""
    tifffile.imwrite(tmp_path / ("m" * 240 + ".tif"), field())
    (result,) = run(model, [tmp_path / ("m" * 240 + ".tif")], tmp_path / "out")
    assert result.error == ""
    assert all(path.exists() for path in result.files)


def test_masks_as_ome_zarr(model, tmp_path):
    """The same numbers as in OME-TIFF, plane by plane, with the pixel size; the record says it, and runs again."""
    path = write_stack(tmp_path / "stack.ome.tif")
    options = {"mask_options": {"threshold": 0.0, "present": 0.0}}
    run(model, [path], tmp_path / "tiff", **options)
    (result,) = run(model, [path], tmp_path / "zarr", masks_as="zarr", **options)
    assert "stack_labels.ome.zarr" in {one.name for one in result.files}
    assert not (tmp_path / "zarr" / "stack_labels.ome.tif").exists()
    with (
        mil.open_image(tmp_path / "tiff" / "stack_labels.ome.tif") as tiff,
        mil.open_image(tmp_path / "zarr" / "stack_labels.ome.zarr") as zarr,
    ):
        assert (zarr.axes, zarr.pixel_size) == ("TZYX", pytest.approx(0.5))
        for plane in range(6):
            np.testing.assert_array_equal(zarr.plane(plane)[0], tiff.plane(plane)[0])
    assert json.loads((tmp_path / "zarr" / "run.json").read_text())["options"]["masks_as"] == "zarr"
    run(model, [path], tmp_path / "zarr", **options)  # as TIFF now: the other form of the same masks goes
    assert not (tmp_path / "zarr" / "stack_labels.ome.zarr").exists()
    assert (tmp_path / "zarr" / "stack_labels.ome.tif").exists()


def test_masks_of_one_plane_as_ome_zarr_have_their_table(model, tmp_path, monkeypatch):
    """Unless they are so many that a reader would take long to load it."""
    tifffile.imwrite(tmp_path / "a.tif", field())
    options = {"masks_as": "zarr", "mask_options": {"threshold": 0.0, "present": 0.0}}
    run(model, [tmp_path / "a.tif"], tmp_path / "out", **options)
    written = json.loads((tmp_path / "out" / "a_labels.ome.zarr" / "zarr.json").read_text())["attributes"]["ome"]
    monkeypatch.setattr("napari_milcnn.results.write._MOST_DESCRIBED", 1)
    run(model, [tmp_path / "a.tif"], tmp_path / "many", **options)
    many = json.loads((tmp_path / "many" / "a_labels.ome.zarr" / "zarr.json").read_text())["attributes"]["ome"]
    assert many["image-label"] == {}
    objects = pd.read_csv(tmp_path / "out" / "objects.csv")
    assert [one["label-value"] for one in written["image-label"]["properties"]] == objects["label"].tolist()
    assert [one["class"] for one in written["image-label"]["properties"]] == objects["class"].tolist()


def test_several_positions_do_not_fit_into_ome_zarr(model, tmp_path):
    """The classification is there, the masks are not, and the row says why."""
    with tifffile.TiffWriter(tmp_path / "a.ome.tif", ome=True) as tiff:
        for i in range(2):
            tiff.write(field(i), metadata={"axes": "YX"})
    (result,) = run(model, [tmp_path / "a.ome.tif"], tmp_path / "out", masks_as="zarr", mask_options={"present": 0.0})
    assert "masks of a cannot be written as OME-Zarr, which has no axis for its 2 positions; choose" in result.error
    assert len(result.prediction.planes) == 2
    assert (tmp_path / "out" / "a_maps.ome.tif").exists()


def pieces_of_a_screen():
    yield pd.DataFrame(
        {"file": ["a.tif", "=cmd()"], "cells": [3, 4], "site": [1, 2], "score a": np.float32([0.1, 0.9])}
    )
    yield pd.DataFrame({"file": ["b.tif"], "site": ["x"], "control": ["negative"], "dose": [None], "error": [""]})
    yield pd.DataFrame({"file": ["c.tif"], "cells": [5], "dose": [0.123456789], "warnings": [None], "is_hit": [True]})


def test_a_table_in_pieces_is_one_csv_and_one_parquet_that_keeps_types_gaps_and_digits(tmp_path):
    csv, parquet = write_tables(tmp_path / "out" / "predictions", pieces_of_a_screen)
    found = pd.read_parquet(parquet)
    assert found["file"].tolist() == ["a.tif", "=cmd()", "b.tif", "c.tif"]
    assert found["site"].tolist()[:3] == ["1", "2", "x"]  # numbers and text are text
    assert found["cells"].tolist()[::3] == [3, 5]
    assert pd.isna(found["cells"][2])
    assert found["dose"][3] == 0.123456789
    assert found["score a"].dtype == np.float32
    assert found["is_hit"][3] is np.True_ or found["is_hit"][3] is True
    assert list(found)[-2:] == ["warnings", "error"]
    text = csv.read_text()
    assert text.splitlines()[0] == ",".join(found)
    assert "'=cmd()" in text  # no spreadsheet runs it
    read = pd.read_csv(csv)
    assert read["dose"].tolist()[-1] == 0.123457
    assert len(read) == 4


def test_a_table_whose_pieces_fail_leaves_both_old_files(tmp_path):
    before = [path.read_bytes() for path in write_tables(tmp_path / "wells", pd.DataFrame({"well": ["A01"]}))]

    def failing():
        yield pd.DataFrame({"well": ["B02"]})
        if len(calls) > 0:
            raise OSError(28, "No space left on device")
        calls.append(1)

    calls = []
    with pytest.raises(OutputError, match="No space left"):
        write_tables(tmp_path / "wells", failing)
    assert [path.read_bytes() for path in (tmp_path / "wells.csv", tmp_path / "wells.parquet")] == before
    assert len(list(tmp_path.iterdir())) == 2


def test_small_pieces_share_a_row_group_and_an_empty_table_keeps_its_columns(tmp_path):
    _, path = write_tables(tmp_path / "cells", lambda: (pd.DataFrame({"y": [float(i)]}) for i in range(40)))
    assert parquet.ParquetFile(path).num_row_groups == 1
    assert pd.read_parquet(path)["y"].tolist() == list(range(40))
    csv, path = write_tables(tmp_path / "none", pd.DataFrame(columns=["file", "well"]))
    assert list(pd.read_parquet(path)) == ["file", "well"]
    assert csv.read_text() == "file,well\n"
