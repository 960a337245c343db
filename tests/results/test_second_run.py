"""A second classification into a folder adds to what is there, or refuses: rows never vanish."""

from __future__ import annotations

import json

import pandas as pd
import pytest
import tifffile

from conftest import lively_model, noise
from napari_milcnn.errors import OutputError
from napari_milcnn.images.open import ImageReading
from napari_milcnn.results.folder import classify_files
from napari_milcnn.results.read import read_results


@pytest.fixture
def model(tmp_path):
    """Return a model that has a file."""
    from napari_milcnn import load_model

    return load_model(lively_model().save(tmp_path / "model.zip"))


@pytest.fixture
def classify(model, tmp_path):
    """Return a function that writes images of some names and classifies them into the folder `out`."""

    def run(*names, where="images", seed=0, **options):
        files = [tmp_path / where / f"{name}.ome.tif" for name in names]
        for i, file in enumerate(files):
            file.parent.mkdir(exist_ok=True)
            facts = {"axes": "CYX", "Channel": {"Name": ["GFP", "RFP"]}}
            tifffile.imwrite(file, noise(2, 96, 120, seed=seed + i), metadata=facts)
        steps = classify_files(model, files, tmp_path / "out", **{"mask_options": {"present": 0}, **options})
        return [step.result for step in steps if step.result]

    return run


def table(tmp_path, name="predictions.csv"):
    """Read a table as text."""
    return pd.read_csv(tmp_path / "out" / name, dtype=str, keep_default_na=False)


def record(tmp_path, name="run.json"):
    """Read a record."""
    return json.loads((tmp_path / "out" / name).read_text())


def test_other_images_are_added(classify, tmp_path):
    """Rows of both runs, objects of both, and one record that names all."""
    classify("a", "b")
    before, objects = table(tmp_path), table(tmp_path, "objects.csv")
    classify("c", seed=7)
    after = table(tmp_path)
    assert after["name"].tolist() == ["a", "b", "c"]
    pd.testing.assert_frame_equal(after.iloc[:2], before)
    pd.testing.assert_frame_equal(table(tmp_path, "objects.csv").iloc[: len(objects)], objects)
    assert len(table(tmp_path, "objects.csv")) > len(objects)
    assert record(tmp_path)["names"] == ["a", "b", "c"]
    assert len(record(tmp_path)["images"]) == 3


def test_an_image_classified_again_replaces_its_own_rows(classify, tmp_path):
    classify("a", "b")
    before = table(tmp_path), table(tmp_path, "objects.csv")
    classify("a", seed=5)
    after, objects = table(tmp_path), table(tmp_path, "objects.csv")
    assert sorted(after["name"]) == ["a", "b"]
    assert after[after["name"] == "b"].to_numpy().tolist() == before[0][before[0]["name"] == "b"].to_numpy().tolist()
    of_b = objects["file"].str.endswith("b.ome.tif")
    assert of_b.sum() == before[1]["file"].str.endswith("b.ome.tif").sum()
    assert after[after["name"] == "a"]["score a"].item() != before[0][before[0]["name"] == "a"]["score a"].item()


def test_other_options_have_a_record_of_their_own(classify, tmp_path):
    """Each record can be run again alone; an image stands in one of them."""
    classify("a", "b")
    classify("b", "c", mask_options={"present": 0, "threshold": 0.5})
    assert record(tmp_path)["names"] == ["a"]
    assert record(tmp_path, "run-b.json")["names"] == ["b", "c"]
    assert table(tmp_path)["name"].tolist() == ["a", "b", "c"]


def test_a_failed_second_try_takes_nothing_away(classify, tmp_path):
    """The row of the failure stands beside the row of before, whose files stay; a third try replaces both."""
    classify("a")
    before = table(tmp_path)
    labels = (tmp_path / "out" / "a_labels.ome.tif").read_bytes()
    (result,) = classify("a", reading=ImageReading(axes="ZTCYX"))
    assert result.error
    after = table(tmp_path)
    assert after["error"].tolist() == ["", result.error]
    assert after.iloc[0].drop("error").tolist() == before.iloc[0].drop("error").tolist()
    assert (tmp_path / "out" / "a_labels.ome.tif").read_bytes() == labels
    classify("a")
    pd.testing.assert_frame_equal(table(tmp_path), before)


def test_another_image_of_the_same_name_is_refused(classify, tmp_path):
    """Nothing is written; the message says whose results are there, and what to do."""
    classify("a")
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    with pytest.raises(
        OutputError,
        match=r"out holds results of .*images.a\.ome\.tif under the name a, which the results of .*other.a",
    ):
        classify("a", where="other")
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


def test_tables_of_others_are_refused_before_anything_runs(classify, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "predictions.csv").write_text("compound,dose\nx,1\n")
    with pytest.raises(
        OutputError, match=r"predictions\.csv has no column 'file' and no column 'name': it is another table"
    ):
        classify("a")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["predictions.csv"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"files": ["b.tif"], "names": ["b"]}', "format: Field required"),
        ('{"files": 3}', "format: Field required"),
        ("[" * 100_000, "it is nested too deeply"),
        ('{"format": 2, "model": {}, "options": {}, "versions": {}, "files": ["b.tif"], "names": ["b", "c"]}',
         "files, names and planes have different lengths"),
        ('{"format": 2, "model": {}, "options": {}, "versions": {}, "files": [3], "names": ["b"]}', "files.0"),
    ],
)  # fmt: skip
def test_damaged_records_are_refused_before_anything_runs(classify, tmp_path, text, reason):
    """A record to which the new images could not be added would leave the results without a record."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "run.json").write_text(text)
    with pytest.raises(OutputError, match=rf"run\.json is not the record of a classification \(.*{reason}"):
        classify("a")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["run.json"]


def test_what_a_record_says_beside_its_images_is_kept(classify, tmp_path):
    """Entries of run.json that this version does not know stay, and those of images are changed."""
    classify("a", "b")
    written = record(tmp_path)
    (tmp_path / "out" / "run.json").write_text(json.dumps(written | {"note": "plate 3"}))
    classify("b", mask_options={"present": 0, "threshold": 0.5})
    assert record(tmp_path) == written | {
        "note": "plate 3", "files": written["files"][:1], "names": ["a"], "planes": [None],
        "images": written["images"][:1],
    }  # fmt: skip


@pytest.mark.parametrize("names", [("=cmd|' /C calc'!A0", "@a", "-b+c"), ("+1+1", "'=x", "[/]")])
def test_no_cell_is_a_formula_and_texts_come_back_as_they_were(tmp_path, names):
    """Classes and files of any name; of two runs, so that rows are read, and written again."""
    model = lively_model(classes=names)
    for run in range(2):
        file = tmp_path / f"=1+{run}.ome.tif"
        tifffile.imwrite(
            file, noise(2, 96, 120, seed=run), metadata={"axes": "CYX", "Channel": {"Name": ["GFP", "RFP"]}}
        )
        list(classify_files(model, [file], tmp_path / "out", mask_options={"present": 0}))
    for name in ("predictions.csv", "objects.csv"):
        cells = table(tmp_path, name)
        texts = [cell for row in [list(cells), *cells.to_numpy().tolist()] for cell in row]
        assert not [text for text in texts if text[:1] in "=+@\t" and text]
        assert not [text for text in texts if text.startswith("-") and not text[1:].replace(".", "").isdigit()]
    found = read_results(tmp_path / "out")
    assert found.classes == names
    assert set(found.table["top"]) <= set(names)
    assert found.table["name"].tolist() == ["=1+0", "=1+1"]
    assert set(found.objects["class"]) <= set(names)
