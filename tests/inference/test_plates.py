"""Models that scale intensities by plate: training, every way to classify, and the record of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tifffile
from typer.testing import CliRunner

import napari_milcnn as mil
from conftest import SMALL, delta_model
from napari_milcnn.cli.app import app
from napari_milcnn.errors import ImageError, LabelsError
from napari_milcnn.images.open import ImageReading
from napari_milcnn.inference.model_input import model_input
from napari_milcnn.training.patch_dataset import PatchReader

EXACT = {"device": "cpu", "precision": "float32"}
GAINS = {"p1": 1, "p2": 3}
DOSES = (1, 1, 4, 4)


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    """Two plates of the same wells, whose classes differ in brightness alone; p2 has three times the light."""
    rows = ["file,label,group,plate,control"]
    for plate, gain in GAINS.items():
        (tmp_path / plate).mkdir()
        for well, dose in enumerate(DOSES):
            rng = np.random.default_rng(well)
            pixels = 100 + rng.normal(0, 1, (1, 80, 90))
            pixels[0, 20:60, 20:60] += 30 * dose
            name, label = f"{plate}/{well}.ome.tif", "low" if dose == 1 else "high"
            data = (gain * pixels).astype(np.uint16)
            tifffile.imwrite(tmp_path / name, data, ome=True, metadata={"axes": "CYX", "Channel": {"Name": ["c0"]}})
            rows.append(f"{name},{label},{plate}{well},{plate},{'yes' if dose == 1 else ''}")
    (tmp_path / "labels.csv").write_text("\n".join(rows) + "\n")
    return tmp_path / "labels.csv"


def by_plate(**card: Any) -> mil.TrainedModel:
    """Make a model that passes on the brightness at the middle of its receptive field, scaled by plate."""
    return delta_model().with_card(normalise="group", single_label=False, **card)


def files(labels: Path) -> list[Path]:
    return [labels.parent / f"{plate}/{well}.ome.tif" for plate in GAINS for well in range(len(DOSES))]


def test_training_sees_dose_and_no_plate(labels: Path) -> None:
    """Patches of the same well on both plates are equal, and four times the dose is four times as bright."""
    reader = PatchReader(by_plate(), mil.read_labels(labels))
    rng = np.random.default_rng(0)
    peaks = np.array([np.quantile(reader.patch(index, 0, rng), 0.9) for index in range(8)]).reshape(2, 4)
    np.testing.assert_allclose(peaks[0], peaks[1], atol=0.05)
    np.testing.assert_allclose(peaks[0], DOSES, rtol=0.1)


def test_a_trained_model_keeps_the_choice_and_says_how(labels: Path, tmp_path: Path) -> None:
    """A network of one epoch is told by which images it is scaled; the card and its file keep the choice."""
    table, said = mil.read_labels(labels), []
    model = mil.new_model(table.classes, ["c0"], normalise="group", **SMALL)
    (report,) = mil.train(model, table, epochs=1, epoch_steps=1, batch_size=4, patch=0, on_warning=said.append, **EXACT)
    assert [f"intensities are scaled by the 2 control images of plate {plate}" for plate in GAINS] == said[:2]
    assert said[2].endswith("set vary_intensity to 0 if brightness is what is to be learned")
    loaded = mil.load_model(report.best.save(tmp_path / "m.zip"))
    assert (loaded.card.normalise, loaded.card.mean, loaded.digest) == ("group", (0.0,), report.best.digest)


def test_plates_of_one_class_are_refused(labels: Path) -> None:
    """Folders of one class each are no plates."""
    labels.write_text("file,label\n" + "\n".join(f"{file},{file.parent.name}" for file in files(labels)))
    table = mil.read_labels(labels)
    model = mil.new_model(table.classes, ["c0"], normalise="group", **SMALL)
    with pytest.raises(LabelsError, match=r"each of the 2 plates of .*labels.csv shows a single class, the folder p1"):
        next(mil.train(model, table, epochs=1, **EXACT))


def scores_in(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "predictions.csv").sort_values("file").reset_index(drop=True)


def test_command_line_python_and_replay_agree(labels: Path, tmp_path: Path) -> None:
    """The same scores from all three; a replay goes by the recorded scales, whatever became of the plates."""
    path = by_plate().save(tmp_path / "m.zip")
    images = [str(file) for file in files(labels)]
    arguments = ["classify", *images, "--model", str(path), "--out", str(tmp_path / "cli"), "--plates", str(labels)]
    done = CliRunner().invoke(app, [*arguments, "--no-masks", "--device", "cpu"])
    assert done.exit_code == 0, done.output
    assert done.output.count("the 2 control images of plate p1") == 1
    model, plates = mil.load_model(path), mil.Plates(labels)
    expected = [mil.classify(model, plates.open(file), device="cpu").scores[0, 0] for file in files(labels)]
    found = scores_in(tmp_path / "cli")
    np.testing.assert_allclose(found["score c0"], expected, rtol=1e-5)
    assert found["score c0"][2] > found["score c0"][0]
    record = json.loads((tmp_path / "cli" / "run.json").read_text())
    assert (record["options"]["reading"]["plates"], record["images"][7]["plate"]["name"]) == (str(labels), "plate p2")
    labels.unlink()
    done = CliRunner().invoke(app, ["classify", "--replay", str(tmp_path / "cli" / "run.json")])
    assert done.exit_code == 0, done.output
    again = scores_in(tmp_path / "cli-replay")
    np.testing.assert_array_equal(again["score c0"], found["score c0"])


def test_without_a_table_the_folder_is_the_plate_everywhere(labels: Path, tmp_path: Path) -> None:
    """A folder of images scales each of them, and so does a path alone; an array has no plate and says so."""
    model, out = by_plate(), tmp_path / "out"
    results = [
        step.result for step in mil.classify_files(model, [labels.parent / "p1"], out, masks=False, device="cpu")
    ]
    done = [result for result in results if result is not None]
    assert [result.prediction.plate.name for result in done] == ["the folder p1"] * 4
    alone = mil.classify(model, files(labels)[3], **EXACT)
    assert alone.plate == done[3].prediction.plate
    evidence = mil.evidence(model, files(labels)[3], kind="jacobian", **EXACT)
    assert evidence.prediction.plate == alone.plate
    with pytest.raises(ImageError, match=r"the image is no file: it is not known which images share its plate"):
        mil.classify(model, mil.open_image(np.ones((1, 80, 80)), axes="CYX"), **EXACT)
    one = mil.Plates(plate=mil.Plate("today", [lambda: mil.open_image(np.eye(80)[None], axes="CYX")]))
    assert "only one image of today" in mil.classify(model, one.open(np.eye(80)), **EXACT).warnings[0]


def test_an_image_that_fails_for_want_of_its_plate_has_its_row(labels: Path, tmp_path: Path) -> None:
    """What the table of plates does not list fails with the reason; the others go on."""
    text = "\n".join(line for line in labels.read_text().splitlines() if not line.startswith("p1/0"))
    (tmp_path / "plates.csv").write_text(text)
    reading = ImageReading(plates=tmp_path / "plates.csv")
    list(mil.classify_files(by_plate(), [labels.parent / "p1"], tmp_path / "out", masks=False, reading=reading))
    table = scores_in(tmp_path / "out")
    assert table["error"].notna().tolist() == [True, False, False, False]
    assert "is not in" in table["error"][0]


def test_tables_of_labels_bring_their_plates(labels: Path) -> None:
    """`evaluate`, `rank_images`, `check_labels` and `calibrate` scale by the table's plates, and evaluation says so."""
    model, table = mil.new_model(["high", "low"], ["c0"], normalise="group", **SMALL), mil.read_labels(labels)
    report = mil.evaluate(model, table, draws=0, **EXACT)
    assert "4 images: intensities are scaled by the 2 control images of plate p1" in report.warnings
    *_, last = mil.rank_images(model, table, range(8), **EXACT)
    assert not last.result.errors
    assert mil.calibrate(model, table, device="cpu").card.normalise == "group"


def test_the_other_choices_need_no_plate(labels: Path) -> None:
    """Models that scale by image or training images have no scale of a plate, and open nothing but the image."""
    empty = labels.with_name("empty.csv")
    empty.touch()  # would be refused if it were read
    image = mil.Plates(empty).open(files(labels)[0])
    for normalise in ("image", "training"):
        model = by_plate().with_card(normalise=normalise)
        assert model_input(model, image).plate_scale is None
        assert mil.classify(model, image, **EXACT).plate is None
