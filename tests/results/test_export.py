"""What a dock exports: the files of one image, beside those of others in the tables and records of a folder."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile

import napari_milcnn as mil
from conftest import noise
from napari_milcnn.errors import OutputError
from napari_milcnn.inference.evidence import EvidenceMaker
from napari_milcnn.inference.pipeline import ImageRequest, PlaneResult, analyse
from napari_milcnn.options import MaskOptions
from napari_milcnn.results.export import export_image
from napari_milcnn.results.findings import FindingsOfImage
from napari_milcnn.results.folder import classify_files
from napari_milcnn.results.record import classification_record, room_for, write_record
from napari_milcnn.results.replay import replay

ALL = MaskOptions(present=0)


@pytest.fixture
def stack():
    """Five time points of noise, T C Y X."""
    return mil.open_image(noise(5, 2, 96, 120), axes="TCYX", channels=["GFP", "RFP"], pixel_size=0.5)


def findings(maker, image, name, planes=None, options=ALL):
    """Find masks in some planes of an image that is open."""
    found = FindingsOfImage(image, str(image.path or image.name), name)
    for step in analyse(maker, [ImageRequest(name, lambda: image, planes, options, keep_open=True)]):
        if isinstance(step.result, PlaneResult):
            found.take(step.result)
    return found.findings()


def test_exported_files_equal_those_of_a_run(compact, stack, tmp_path):
    path = tmp_path / "image.ome.tif"
    tifffile.imwrite(path, np.asarray(stack.data), metadata={"axes": "TCYX", "Channel": {"Name": ["GFP", "RFP"]}})
    list(classify_files(compact, [path], tmp_path / "run", mask_options={"present": 0}))
    with mil.open_image(path) as image:
        maker = EvidenceMaker(compact)
        record = classification_record(maker, [path], classes=compact.classes, mask_options=ALL)
        written = list(export_image(tmp_path / "export", findings(maker, image, "image"), record))
    assert [one.name for one in written] == [
        "image_labels.ome.tif", "image_maps.ome.tif", "image_overview.png", "predictions.csv", "objects.csv",
        "run.json",
    ]  # fmt: skip
    assert {one.name for one in written} == {one.name for one in (tmp_path / "export").iterdir()}
    told, known = (json.loads((tmp_path / folder / "run.json").read_text()) for folder in ("export", "run"))
    image_facts, known_facts = told["images"][0], known["images"][0]
    assert image_facts.keys() == known_facts.keys()
    assert all(image_facts[key] == known_facts[key] for key in ("file", "name", "sha256", "top", "objects", "unlike"))
    assert (told["finished"], told["unfinished"]) == (known["finished"], known["unfinished"]) == (True, [])
    for name in ("image_labels.ome.tif", "image_maps.ome.tif"):
        np.testing.assert_array_equal(*(tifffile.imread(tmp_path / folder / name) for folder in ("run", "export")))
    for name in ("predictions.csv", "objects.csv"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "export" / name).read_bytes()


def test_planes_not_looked_at_are_exported_empty(compact, stack, tmp_path):
    found = findings(EvidenceMaker(compact), stack, "part", [2])
    record = classification_record(EvidenceMaker(compact), [None], classes=compact.classes, names=["part"])
    labels, maps, *_ = export_image(tmp_path, found, record)
    written = tifffile.imread(labels)
    assert written.shape[0] == 5
    assert not written[[0, 1, 3, 4]].any()
    np.testing.assert_array_equal(written[2, 0], found.masks[2].labels)
    assert np.isnan(tifffile.imread(maps)).any((1, 2, 3)).tolist() == [True, True, False, True, True]


@pytest.mark.parametrize("room", [True, False])
def test_class_maps_of_many_planes_wait_on_disk(compact, stack, tmp_path, monkeypatch, room):
    """What a plane adds to memory has no class maps; where the temporary folder has no room they stay in memory."""
    usual = findings(EvidenceMaker(compact), stack, "a", [0, 1, 3])

    def no_room(*_):
        raise OutputError("no room")

    monkeypatch.setattr("napari_milcnn.results.findings._IN_MEMORY", 0)
    monkeypatch.setattr("napari_milcnn.results.findings._JOINED", 2)
    if not room:
        monkeypatch.setattr("napari_milcnn.results.findings.scratch_array", no_room)
    collected = FindingsOfImage(stack, "a", "a")
    for step in analyse(EvidenceMaker(compact), [ImageRequest("a", lambda: stack, [0, 1, 3], ALL, keep_open=True)]):
        if isinstance(step.result, PlaneResult):
            collected.take(step.result)
    assert [one.class_maps.size for one in collected._predictions] == [0]
    found = collected.findings()
    objects = usual.objects() if room else usual.objects()[:0]
    assert (
        found.objects().drop(columns="file").to_csv() == objects.drop(columns="file")[[*found.objects()][1:]].to_csv()
    )
    assert isinstance(found.prediction.class_maps.base, np.memmap) == room
    for name in ("class_maps", "scores", "planes"):
        np.testing.assert_array_equal(getattr(found.prediction, name), getattr(usual.prediction, name))
    np.testing.assert_array_equal(found.prediction.bags.features, usual.prediction.bags.features)


@pytest.fixture
def export(compact, tmp_path):
    """Return a function that writes a file, finds the masks of some of its planes and exports them, with the record."""
    model = mil.load_model(compact.save(tmp_path / "m.zip"))

    def one(name, seed=0, planes=None, folder="out", where=".", named=None, **mask_options):
        path = tmp_path / where / f"{name}.ome.tif"
        path.parent.mkdir(exist_ok=True)
        facts = {"axes": "TCYX", "Channel": {"Name": ["GFP", "RFP"]}}
        tifffile.imwrite(path, noise(3, 2, 96, 120, seed=seed), metadata=facts)
        maker, options = EvidenceMaker(model, device="cpu"), MaskOptions(**{"present": 0, **mask_options})
        record = classification_record(maker, [path], classes=model.classes, mask_options=options, planes=[planes],
                               names=[named or name])  # fmt: skip
        place = room_for(tmp_path / folder, record)
        with mil.open_image(path) as image:
            found = findings(maker, image, named or name, planes, options)
            *_, home = export_image(place, found, record, ("tables", "masks"))
        return home

    return one


def rows_of(folder, table="predictions.csv"):
    """Return a table's text cells, sorted."""
    return sorted(map(tuple, pd.read_csv(folder / table, dtype=str, keep_default_na=False).to_numpy().tolist()))


def test_two_images_exported_to_one_folder_are_both_there_and_run_again(export, tmp_path):
    """One of them with a single plane: the tables have the rows of both, the record names both, and gives the same."""
    assert export("a") == export("b", seed=1, planes=[1]) == tmp_path / "out" / "run.json"
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert (record["names"], record["planes"]) == (["a", "b"], [None, [1]])
    table = pd.read_csv(tmp_path / "out" / "predictions.csv")
    assert list(zip(table["name"], table["t"], strict=True)) == [("a", 0), ("a", 1), ("a", 2), ("b", 1)]
    list(replay(tmp_path / "out" / "run.json", tmp_path / "again"))
    for name in ("predictions.csv", "objects.csv"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()
    for name in ("a", "b"):
        np.testing.assert_array_equal(
            *(tifffile.imread(tmp_path / folder / f"{name}_labels.ome.tif") for folder in ("out", "again"))
        )
    again = json.loads((tmp_path / "again" / "run.json").read_text())
    assert all(again[key] == record[key] for key in ("files", "names", "planes", "options"))


def test_an_image_exported_again_replaces_its_own_rows_alone(export, tmp_path):
    """In another way it has a record of its own, in the same way as the other one it is back in run.json."""
    export("a")
    export("b", seed=1)
    both = rows_of(tmp_path / "out"), rows_of(tmp_path / "out", "objects.csv")
    assert export("a", threshold=1.0) == tmp_path / "out" / "run-a.json"
    assert json.loads((tmp_path / "out" / "run.json").read_text())["names"] == ["b"]
    scores = slice(0, 13)  # before the counts of cells
    assert [row[scores] for row in rows_of(tmp_path / "out")] == [row[scores] for row in both[0]]
    objects = pd.read_csv(tmp_path / "out" / "objects.csv")
    assert {Path(file).name for file in objects["file"][objects["shown"]]} == {"b.ome.tif"}
    assert {Path(file).name for file in objects["file"]} == {"a.ome.tif", "b.ome.tif"}
    assert export("a") == tmp_path / "out" / "run.json"
    assert not (tmp_path / "out" / "run-a.json").exists()
    assert (rows_of(tmp_path / "out"), rows_of(tmp_path / "out", "objects.csv")) == both
    assert export("a", threshold=1.0, folder="alone") == export("a", folder="alone") == tmp_path / "alone" / "run.json"


def test_another_image_of_the_same_name_has_a_folder_of_its_own(export, tmp_path):
    """As has another image of the same file; each goes back to its folder when it is exported again."""
    export("a", where="plate1")
    assert export("a", seed=1, where="plate2") == tmp_path / "out" / "a" / "run.json"
    assert export("a", seed=2, where="plate3") == tmp_path / "out" / "a_2" / "run.json"
    assert export("a", where="plate1", named="GFP alone") == tmp_path / "out" / "GFP alone" / "run.json"
    for place, where in (("out", "plate1"), ("out/a", "plate2"), ("out/a_2", "plate3")):
        assert Path(rows_of(tmp_path / place)[0][0]) == tmp_path / where / "a.ome.tif"
    assert export("a", seed=1, where="plate2") == tmp_path / "out" / "a" / "run.json"


def test_results_of_a_screen_are_kept(export, compact, tmp_path):
    """An image exported to the folder of a screen stands beside the others in its tables, and in its record."""
    export("a", folder="other")
    export("b", seed=1, folder="other")
    model = mil.load_model(tmp_path / "m.zip")
    files = [tmp_path / f"{name}.ome.tif" for name in "ab"]
    list(classify_files(model, files, tmp_path / "out", mask_options={"present": 0}, device="cpu"))
    before = rows_of(tmp_path / "out"), rows_of(tmp_path / "out", "objects.csv")
    assert export("b", seed=1) == tmp_path / "out" / "run.json"
    assert (rows_of(tmp_path / "out"), rows_of(tmp_path / "out", "objects.csv")) == before
    assert export("c", seed=2) == tmp_path / "out" / "run.json"
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert record["names"] == ["a", "b", "c"]
    assert [Path(one["file"]).name for one in record["images"]] == [f"{name}.ome.tif" for name in "abc"]


def test_files_of_others_are_not_overwritten(export, tmp_path):
    """A table or a record that is not a classification's is left, and the message says what to do."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "predictions.csv").write_text("file,label\na.tif,x\n")
    with pytest.raises(OutputError, match=r"predictions\.csv has no column 'name': .*choose another folder"):
        export("a")
    (tmp_path / "out" / "predictions.csv").unlink()
    (tmp_path / "out" / "run.json").write_text("[]")
    with pytest.raises(OutputError, match=r"run\.json is not the record of a classification .*choose another folder"):
        export("a")
    assert (tmp_path / "out" / "run.json").read_text() == "[]"


def test_images_that_are_no_files_have_records_of_their_own(export, compact, tmp_path):
    """They cannot be run again, and would keep the others of their record from it."""
    export("a")
    record = classification_record(EvidenceMaker(compact), [None], classes=compact.classes, names=["layer"])
    assert write_record(tmp_path / "out", record) == tmp_path / "out" / "run-layer.json"
    assert room_for(tmp_path / "out", record) == tmp_path / "out"
    list(replay(tmp_path / "out" / "run.json", tmp_path / "again"))
