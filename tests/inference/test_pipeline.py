"""One image, plane after plane: parts, chosen planes, what is left after a stop, and the files of one image."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile

import napari_milcnn as mil
from conftest import noise
from napari_milcnn.errors import ImageError, OutputError
from napari_milcnn.inference.evidence import EvidenceMaker
from napari_milcnn.inference.pipeline import analyse
from napari_milcnn.inference.predict import Classifier, joined
from napari_milcnn.options import MaskOptions
from napari_milcnn.results.export import export_image, room_for, write_record
from napari_milcnn.results.folder import screen
from napari_milcnn.results.record import classification_record
from napari_milcnn.results.replay import replay


@pytest.fixture
def stack():
    """Five time points of noise, T C Y X."""
    return mil.open_image(noise(5, 2, 96, 120), axes="TCYX", channels=["GFP", "RFP"], pixel_size=0.5)


def test_each_plane_is_told_once_and_the_parts_are_the_whole(compact, stack):
    steps = list(Classifier(compact, batch_size=2).steps(stack))
    parts = [step.part for step in steps if step.part is not None]
    assert [len(part.planes) for part in parts] == [2, 2, 1]
    whole = steps[-1].prediction
    assert [step.prediction for step in steps[:-1]] == [None] * (len(steps) - 1)
    assert whole.planes == stack.planes
    np.testing.assert_array_equal(np.concatenate([part.scores for part in parts]), whole.scores)
    np.testing.assert_array_equal(joined(parts[::-1]).class_maps, whole.class_maps)


def test_chosen_planes_are_those_of_the_whole_run(compact, stack):
    whole, some = mil.classify(compact, stack), mil.classify(compact, stack, planes=[3, 1])
    assert some.planes == (stack.planes[1], stack.planes[3])
    np.testing.assert_allclose(some.scores, whole.scores[[1, 3]], atol=1e-6)
    evidence = mil.evidence(compact, stack, prediction=some)
    np.testing.assert_allclose(evidence.maps, mil.evidence(compact, stack).maps[[1, 3]], atol=1e-6)


@pytest.mark.parametrize("planes", [[], [5], [-1]])
def test_planes_that_are_not_there_are_refused(compact, stack, planes):
    with pytest.raises(ImageError, match="the 5 planes of image count from 0"):
        mil.classify(compact, stack, planes=planes)


def test_a_stopped_analysis_keeps_what_it_told(compact, stack):
    maker, found = EvidenceMaker(compact, batch_size=1), {}
    for step in analyse(maker, stack, mask_options=MaskOptions(present=0)):
        if step.result is not None:
            found[step.result.plane] = step.result
        if step.share >= 0.4:
            break
    assert sorted(found) == [0, 1]
    whole = mil.segment(mil.evidence(compact, stack), present=0)
    for plane, result in found.items():
        np.testing.assert_array_equal(result.masks.labels, whole.labels[plane])


def test_exported_files_equal_those_of_a_screen(compact, stack, tmp_path):
    path = tmp_path / "image.ome.tif"
    tifffile.imwrite(path, np.asarray(stack.data), metadata={"axes": "TCYX", "Channel": {"Name": ["GFP", "RFP"]}})
    list(screen(compact, [path], tmp_path / "screen", mask_options={"present": 0}))
    with mil.open_image(path) as image:
        results = [step.result for step in analyse(EvidenceMaker(compact), image, mask_options=MaskOptions(present=0))]
        done = [result for result in results if result is not None]
        prediction = joined([result.prediction for result in done])
        masks = {result.plane: result.masks for result in done}
        written = list(export_image(tmp_path / "export", "image", image, compact, prediction, masks))
    assert [one.name for one in written] == [
        "image_labels.ome.tif", "image_maps.ome.tif", "predictions.csv", "objects.csv", "image_overview.png",
    ]  # fmt: skip
    for name in ("image_labels.ome.tif", "image_maps.ome.tif"):
        np.testing.assert_array_equal(*(tifffile.imread(tmp_path / folder / name) for folder in ("screen", "export")))
    for name in ("predictions.csv", "objects.csv"):
        pd.testing.assert_frame_equal(*(pd.read_csv(tmp_path / folder / name) for folder in ("screen", "export")))


def test_planes_not_looked_at_are_exported_empty(compact, stack, tmp_path):
    maker = EvidenceMaker(compact)
    (step,) = [s for s in analyse(maker, stack, [2], mask_options=MaskOptions(present=0)) if s.result is not None]
    masks = {2: step.result.masks}
    labels, maps, *_ = export_image(tmp_path, "part", stack, compact, step.result.prediction, masks)
    written = tifffile.imread(labels)
    assert written.shape[0] == 5
    assert not written[[0, 1, 3, 4]].any()
    np.testing.assert_array_equal(written[2, 0], step.result.masks.labels)
    assert np.isnan(tifffile.imread(maps)).any((1, 2, 3)).tolist() == [True, True, False, True, True]


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
            done = [step.result for step in analyse(maker, image, planes, mask_options=options) if step.result]
            prediction, masks = joined([r.prediction for r in done]), {r.plane: r.masks for r in done}
            list(export_image(place, named or name, image, model, prediction, masks, ("tables", "masks")))
        return write_record(place, record)

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
    assert rows_of(tmp_path / "out") == both[0]
    assert {Path(row[0]).name for row in rows_of(tmp_path / "out", "objects.csv")} == {"b.ome.tif"}
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
    list(screen(model, files, tmp_path / "out", mask_options={"present": 0}, device="cpu"))
    before = rows_of(tmp_path / "out"), rows_of(tmp_path / "out", "objects.csv")
    assert export("b", seed=1) == tmp_path / "out" / "run.json"
    assert (rows_of(tmp_path / "out"), rows_of(tmp_path / "out", "objects.csv")) == before
    assert export("c", seed=2) == tmp_path / "out" / "run.json"
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert record["names"] == ["a", "b", "c"]
    assert [Path(one["file"]).name for one in record["images"]] == ["a.ome.tif"]


def test_files_of_others_are_not_overwritten(export, tmp_path):
    """A table or a record that is not a classification's is left, and the message says what to do."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "predictions.csv").write_text("file,label\na.tif,x\n")
    with pytest.raises(OutputError, match=r"predictions\.csv lacks the column file or name: .*choose another folder"):
        export("a")
    (tmp_path / "out" / "predictions.csv").unlink()
    (tmp_path / "out" / "run.json").write_text("[]")
    with pytest.raises(OutputError, match=r"run\.json is no record of a classification .*choose another folder"):
        export("a")
    assert (tmp_path / "out" / "run.json").read_text() == "[]"


def test_images_that_are_no_files_have_records_of_their_own(export, compact, tmp_path):
    """They cannot be run again, and would keep the others of their record from it."""
    export("a")
    record = classification_record(EvidenceMaker(compact), [None], classes=compact.classes, names=["layer"])
    assert write_record(tmp_path / "out", record) == tmp_path / "out" / "run-layer.json"
    assert room_for(tmp_path / "out", record) == tmp_path / "out"
    list(replay(tmp_path / "out" / "run.json", tmp_path / "again"))
