"""How good a model is: metrics that a person can work out, groups, intervals, mislabels, whole runs."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
from sklearn.metrics import average_precision_score, roc_auc_score

from napari_milcnn import classify_group, evaluate, new_model, read_labels
from napari_milcnn.errors import LabelsError, OptionsError
from napari_milcnn.evaluation.evaluate import evaluation_steps, measure
from napari_milcnn.evaluation.report import ImageOutcome, html
from napari_milcnn.labels.table import LabelledImage, LabelTable
from napari_milcnn.metrics.classification import ranking_figures, weighted_figures
from napari_milcnn.options import EvaluateOptions

CPU = {"device": "cpu", "precision": "float32"}
NARROW = {"widths": (8, 8, 8, 16, 16, 16)}
TRAIN = {"epochs": 1, "epoch_steps": 1, "batch_size": 4, "patch": 0, "device": "cpu", "precision": "float32"}


def measured(rows, classes=("a", "b"), single=True, **options):
    """Measure made-up scores; a row is labels, group, scores of the classes."""
    model = new_model(classes, ["c"], **NARROW).with_card(single_label=single)
    images = [LabelledImage(Path(f"{i}.tif"), tuple(row[0].split("|")), row[1]) for i, row in enumerate(rows)]
    outcomes = [ImageOutcome(im, 1, np.array(row[2], float)) for im, row in zip(images, rows, strict=True)]
    return measure(model, LabelTable(tuple(images)), outcomes, EvaluateOptions(**options))


@pytest.fixture
def table(tmp_path):
    """Twelve noisy 96 px images in six groups of two; in class 'spots' with bright squares."""
    rng = np.random.default_rng(0)
    rows = ["file,label,group"]
    for i in range(12):
        image = rng.normal(100, 5, (96, 96))
        if i % 4 < 2:
            image[20:29, 20:29] += 80
            image[60:69, 50:59] += 80
        tifffile.imwrite(tmp_path / f"{i}.tif", image.astype(np.uint16))
        rows.append(f"{i}.tif,{'spots' if i % 4 < 2 else 'none'},well{i // 2}")
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    return read_labels(tmp_path / "labels.csv")


def test_figures_by_hand():
    """Four a, of which three are right; two b, of which one: 4 of 6; balanced (3/4 + 1/2) / 2."""
    report = measured([("a", "1", (0.9, 0.1)), ("a", "2", (0.8, 0.2)), ("a", "3", (0.7, 0.3)), ("a", "4", (0.4, 0.6)),
                       ("b", "5", (0.2, 0.8)), ("b", "6", (0.6, 0.4))])  # fmt: skip
    assert report.accuracy == pytest.approx(4 / 6)
    assert report.figures["balanced accuracy"] == pytest.approx(0.625)
    assert report.figures["mean F1"] == pytest.approx((6 / 8 + 2 / 4) / 2)
    assert report.confusion.to_numpy().tolist() == [[3, 1], [1, 1]]
    assert report.confusion.index.tolist() == report.confusion.columns.tolist() == ["a", "b"]
    first = report.classes.set_index("class").loc["a"]
    assert (first["images"], first["said"], first["precision"], first["recall"]) == (4, 4, 0.75, 0.75)
    assert first["average precision"] == pytest.approx((1 + 1 + 1 + 4 / 5) / 4)
    assert first["ROC AUC"] == pytest.approx(7 / 8)


def test_several_labels_by_hand():
    """Accuracy counts yes-or-no answers, 5 of 6; the top class of the images with one label is right in 1 of 2."""
    report = measured([("a|b", "1", (0.9, 0.8)), ("a", "2", (0.7, 0.1)), ("b", "3", (0.45, 0.3))], single=False)
    assert report.accuracy == pytest.approx(5 / 6)
    assert report.figures["single-location accuracy"] == 0.5
    assert report.confusion.loc["b"].tolist() == [1, 0, 1, 1]
    assert report.groups["right"].tolist() == [0, 1, 1]
    assert report.groups["answer"].tolist() == ["", "a", "a|b"]


def test_what_cannot_be_measured_is_nan_with_a_warning():
    """A class that no image shows has no recall and no AP, and means leave it out."""
    report = measured([("a", "1", (0.9, 0.1, 0)), ("b", "2", (0.2, 0.8, 0))], classes=("a", "b", "c"))
    assert report.classes.loc[2, ["recall", "F1", "average precision", "ROC AUC", "precision"]].isna().all()
    assert report.mean_average_precision == report.figures["balanced accuracy"] == 1
    assert any("no image shows c" in text for text in report.warnings)
    alone = measured([("a", "1", (0.9, 0.1))])
    assert math.isnan(alone.mean_average_precision)
    assert math.isnan(alone.figures["mean ROC AUC"])


def test_ranking_agrees_with_scikit_learn():
    """Also for equal scores, and for images drawn twice or not at all."""
    rng = np.random.default_rng(1)
    scores, targets = rng.integers(0, 6, 30) / 6, rng.integers(0, 2, 30).astype(float)
    weights = rng.integers(0, 3, (4, 30)).astype(float)
    ap, auc = ranking_figures(weights, scores, targets)
    for draw, one_ap, one_auc in zip(weights, ap, auc, strict=True):
        assert one_ap == pytest.approx(average_precision_score(targets, scores, sample_weight=draw))
        assert one_auc == pytest.approx(roc_auc_score(targets, scores, sample_weight=draw))


def test_a_weight_is_a_copy():
    """An image of weight 2 counts as if it stood there twice."""
    scores = np.array([[0.9, 0.1], [0.4, 0.6], [0.3, 0.7]])
    targets = np.array([[1.0, 0], [1, 0], [0, 1]])
    twice = weighted_figures(np.array([[1.0, 2, 1]]), scores, targets, True)
    copied = weighted_figures(np.ones((1, 4)), scores[[0, 1, 1, 2]], targets[[0, 1, 1, 2]], True)
    assert {name: value[0] for name, value in twice.items()} == {
        name: pytest.approx(v[0]) for name, v in copied.items()
    }


def test_group_takes_the_median():
    """Two images of three are wrong by little, the third is right by much: the median is wrong, the mean is not."""
    rows = [("a", "w", (0.45, 0.55)), ("a", "w", (0.4, 0.6)), ("a", "w", (0.99, 0.01)), ("b", "v", (0.1, 0.9))]
    report = measured(rows)
    worst = report.groups.iloc[0]
    assert (worst["group"], worst["answer"], worst["right"], worst["images"]) == ("w", "b", 0, 3)
    assert worst["own score"] == pytest.approx(0.45)
    assert worst["image accuracy"] == pytest.approx(1 / 3)
    assert report.figures["group accuracy"] == 0.5


def test_a_group_as_one_bag_stands_beside_its_median(table, tmp_path):
    """Both answers of each group, with intervals; the bag is that of `classify_group`, and leaves out what failed."""
    (tmp_path / "3.tif").write_bytes(b"no image")
    model = new_model(table.classes, ["c"], **NARROW)
    report = evaluate(model, table, bag="group", draws=50, **CPU)
    groups = report.groups.set_index("group")
    for name, files in (("well0", ["0.tif", "1.tif"]), ("well1", ["2.tif"])):
        pooled = classify_group(model, [tmp_path / file for file in files], **CPU)
        assert groups.loc[name, "bag answer"] == model.classes[int(pooled.scores.argmax())]
        scores = [groups.loc[name, f"bag score {label}"] for label in model.classes]
        np.testing.assert_allclose(scores, pooled.scores, atol=1e-6)
    right = (groups["bag answer"] == groups["label"]).to_numpy(float)
    assert groups["bag right"].tolist() == right.tolist()
    assert report.figures["bag accuracy"] == right.mean()
    assert "bag accuracy" in report.intervals
    assert "With all its images as one bag" in html(report)
    plain = evaluate(model, table, draws=0, **CPU)
    assert "bag accuracy" not in plain.figures
    assert "bag answer" not in plain.groups
    assert "one bag" not in html(plain)


def test_group_of_different_labels_has_no_answer():
    """A group with several classes cannot be right or wrong, and a warning says so."""
    report = measured([("a", "plate", (0.9, 0.1)), ("b", "plate", (0.1, 0.9)), ("a", "w", (0.9, 0.1))])
    assert report.figures["group accuracy"] == 1
    assert any("1 of 2 groups have images with different labels" in text for text in report.warnings)


def test_intervals_draw_whole_groups():
    """Copies of an image in one group add no certainty; the interval is that of the groups and holds the figure."""
    rows = [(("a", "b")[i % 2], str(i), (0.9, 0.1) if i % 2 == 0 or i % 3 == 0 else (0.2, 0.8)) for i in range(12)]
    single, copied = measured(rows, draws=300), measured([row for row in rows for _ in range(10)], draws=300)
    low, high = single.intervals["accuracy"]
    assert low < single.accuracy < high
    assert copied.intervals["accuracy"] == pytest.approx((low, high))
    assert single.intervals == measured(rows, draws=300).intervals
    assert measured(rows, draws=0).intervals == {}


def test_no_intervals_of_few_groups():
    """Four groups give no intervals, and a warning says so."""
    report = measured([("a", str(i), (0.9, 0.1)) for i in range(4)])
    assert report.intervals == {}
    assert "there are no intervals: the images have 4 groups, but intervals need at least 5" in report.warnings


def test_suspected_mislabels():
    """Contradicted at .95, more than b scores where it is labelled (.9); a contradiction at .6 is no suspicion."""
    rows = [("b", "1", (0.1, 0.9)), ("b", "2", (0.1, 0.9)), ("a", "3", (0.9, 0.1)), ("a", "4", (0.05, 0.95)),
            ("a", "5", (0.4, 0.6))]  # fmt: skip
    report = measured(rows)
    assert report.mislabels[["file", "label", "model says"]].to_numpy().tolist() == [["3.tif", "a", "b"]]
    assert report.mislabels.loc[0, "gap"] == pytest.approx(0.9)
    assert report.uncertain["file"].tolist()[0] == "4.tif"
    several = measured([("a|b", "1", (0.9, 0.02)), ("a|b", "2", (0.8, 0.9)), ("a", "3", (0.9, 0.1)),
                        ("b", "4", (0.95, 0.9))], single=False)  # fmt: skip
    assert several.mislabels["model says"].tolist() == ["not b", "a"]


def test_images_through_a_model(table):
    """Each step is one image; a broken image is listed and left out of the metrics."""
    model = new_model(["none", "spots"], ["c"], **NARROW).with_card(
        normalise="training", mean=(100.0,), std=(20.0,), training={"structureless": 1}
    )
    table.images[3].file.write_bytes(b"no image")
    steps = list(evaluation_steps(model, table, draws=50, **CPU))
    assert [step.number for step in steps] == [*range(1, 13), 12]
    report = steps[-1].result
    assert [outcome.image.file.name for outcome in report.failed] == ["3.tif"]
    assert "the results leave out 1 of 12 images, which failed" in report.warnings
    kept = report.predictions[report.predictions["error"] == ""]
    assert report.accuracy == pytest.approx((kept["top"] == kept["label"]).mean())
    assert len(kept) == 11


def test_score_is_the_mean_over_planes(table, tmp_path):
    """Two planes of an image: its score is the mean of theirs."""
    from napari_milcnn import classify

    model = new_model(["none", "spots"], ["c"], **NARROW).with_card(normalise="training", mean=(100.0,), std=(20.0,))
    stack = np.stack([tifffile.imread(image.file) for image in table.images[:3:2]])
    tifffile.imwrite(tmp_path / "stack.tif", stack, imagej=True, metadata={"axes": "TYX"})
    (tmp_path / "one.csv").write_text("file,label\nstack.tif,spots\n")
    report = evaluate(model, read_labels(tmp_path / "one.csv"), **CPU)
    wanted = classify(model, tmp_path / "stack.tif", **CPU).scores.mean(0)
    np.testing.assert_allclose(report.outcomes[0].scores, wanted, rtol=1e-5)


def test_folds_predict_every_image_out_of_fold(table):
    """Every image is predicted once, by a fold that holds its whole group; the model given is not changed."""
    model = new_model(["none", "spots"], ["c"], **NARROW)
    before = model.digest
    steps = list(evaluation_steps(model, table, folds=2, train_options=TRAIN, **CPU))
    report = steps[-1].result
    assert model.digest == before
    assert sorted(o.image.file for o in report.outcomes) == sorted(image.file for image in table.images)
    assert report.predictions.groupby("group")["fold"].nunique().tolist() == [1] * 6
    assert report.folds["images"].sum() == 12
    assert [step.number for step in steps[:-1]] == list(range(1, 2 + 12 + 1))
    assert steps[0].doing == "fold 1 of 2, epoch 1"
    assert report.classes["learned b"].isna().all()


def test_held_images_take_no_part_in_training(table, monkeypatch):
    """Training gets only groups of the other folds, without a split, and takes its validation images from them."""
    from napari_milcnn.evaluation import evaluate as evaluation

    tables = []

    def spy(model, labels, **options):
        tables.append(labels)
        return iter(())

    monkeypatch.setattr(evaluation, "train", spy)
    report = evaluate(new_model(["none", "spots"], ["c"], **NARROW), table, folds=3, train_options=TRAIN, **CPU)
    assert len(tables) == 3
    for number, labels in enumerate(tables, start=1):
        held = {outcome.image.group for outcome in report.outcomes if outcome.fold == number}
        assert held
        assert not held & {image.group for image in labels.images}
        assert {image.split for image in labels.images} == {None}


def test_calls_that_are_wrong(table, tmp_path):
    """Each message says what was found and what to do."""
    model = new_model(["none", "spots"], ["c"], **NARROW)
    with pytest.raises(LabelsError, match="the table has the label none, spots, which the model does not know"):
        evaluate(new_model(["x", "y"], ["c"], **NARROW), table)
    with pytest.raises(LabelsError, match="no image of the table has the split test"):
        evaluate(model, table, split="test")
    with pytest.raises(OptionsError, match="used in cross-validation only; give a number of folds"):
        evaluate(model, table, train_options={"epochs": 2})
    with pytest.raises(OptionsError, match="is not a folder"):
        evaluate(model, table, truth=tmp_path / "nowhere")
    with pytest.raises(OptionsError, match="there is no option 'colour'"):
        evaluate(model, table, colour=1)
    (tmp_path / "two.csv").write_text("file,label\n0.tif,none|spots\n")
    two = read_labels(tmp_path / "two.csv")
    with pytest.raises(LabelsError, match=r"several labels, the first of them 0\.tif \(none\|spots\)"):
        evaluate(model, two)
    (tmp_path / "bad.csv").write_text("file,label\nwords.tif,none\n")
    (tmp_path / "words.tif").write_bytes(b"no image")
    bad = read_labels(tmp_path / "bad.csv")
    with pytest.raises(LabelsError, match="none of the 1 images could be classified"):
        evaluate(model, bad, **CPU)


def test_training_images_give_a_warning(tmp_path, table):
    """Results on training images are too good, and a warning says so."""
    rows = [f"{i}.tif,{'spots' if i % 4 < 2 else 'none'},{'train' if i < 8 else 'test'}" for i in range(12)]
    (tmp_path / "split.csv").write_text("\n".join(["file,label,split", *rows]))
    model, split = new_model(["none", "spots"], ["c"], **NARROW), read_labels(tmp_path / "split.csv")
    assert any("8 of 12 images have the split train" in text for text in evaluate(model, split, **CPU).warnings)
    tested = evaluate(model, split, split="test", **CPU)
    assert len(tested.outcomes) == 4
    assert not any("split train" in text for text in tested.warnings)


def test_truth_gives_localisation(table, tmp_path):
    """Evidence for images with a truth image is scored, for each class and for all images."""
    truth = np.zeros((96, 96), np.uint8)
    truth[20:29, 20:29] = truth[60:69, 50:59] = 2
    truth[5:10, 80:90] = 1
    (tmp_path / "truth").mkdir()
    for i in (0, 1):
        tifffile.imwrite(tmp_path / "truth" / f"{i}.tif", truth)
    model = new_model(["none", "spots"], ["c"], **NARROW).with_card(normalise="training", mean=(100.0,), std=(20.0,))
    report = evaluate(model, table, truth=tmp_path / "truth", kind="class_map", **CPU)
    assert report.localisation[["class", "images"]].to_numpy().tolist() == [["spots", 2], ["all", 2]]
    assert report.localisation["pixel AP"].between(0, 1).all()
    assert any("2 of 12 images, which have a truth image" in text for text in report.warnings)


def test_planes_of_one_file_are_measured_as_files_are(table, tmp_path):
    """The twelve images as time points of one stack score the same, each in its row with its plane and its truth."""
    stack = np.stack([tifffile.imread(image.file) for image in table.images])
    tifffile.imwrite(tmp_path / "all.ome.tif", stack, ome=True, metadata={"axes": "TYX"})
    (tmp_path / "truth").mkdir()
    truth = (stack > 130) * np.arange(1, 13)[:, None, None] // 6
    tifffile.imwrite(tmp_path / "truth" / "all.tif", truth.astype(np.uint8), metadata={"axes": "TYX"})
    for i, plane in enumerate(truth):
        tifffile.imwrite(tmp_path / "truth" / f"{i}.tif", plane.astype(np.uint8))
    images = [replace(image, file=tmp_path / "all.ome.tif", plane=f"T{i}") for i, image in enumerate(table.images)]
    model = new_model(["none", "spots"], ["c"], **NARROW).with_card(normalise="training", mean=(100.0,), std=(20.0,))
    files, planes = (
        evaluate(model, one, truth=tmp_path / "truth", **CPU) for one in (table, replace(table, images=tuple(images)))
    )
    assert planes.figures == pytest.approx(files.figures, nan_ok=True)
    assert planes.predictions["plane"].tolist() == [f"T{i}" for i in range(12)]
    assert planes.predictions.columns.tolist()[:3] == ["file", "plane", "label"]
    assert planes.uncertain["plane"].tolist() == [f"T{Path(file).stem}" for file in files.uncertain["file"]]
    assert planes.localisation.equals(files.localisation)
    assert not any("plane" in one for one in (files.predictions, files.uncertain, files.mislabels))
    assert "all.ome.tif T3" in html(planes)
