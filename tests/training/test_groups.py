"""Training on bags that are groups of images, such as the fields of a well."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import tifffile
import torch

from conftest import lively_model, noise
from napari_milcnn import classify_group, new_model, read_labels, train
from napari_milcnn.errors import LabelsError, OptionsError
from napari_milcnn.labels.groups import check_groups, images_of_bags, targets_of_bags
from napari_milcnn.options import TrainOptions
from napari_milcnn.training.distributed import Processes
from napari_milcnn.training.patch_dataset import PatchReader, TrainingBatches
from napari_milcnn.training.trainer import estimate

FAST = {"epochs": 1, "epoch_steps": 1, "batch_size": 6, "patch": 0, "bag": "group", "bag_fields": 3, "device": "cpu",
        "precision": "float32", "vary_share": 0}  # fmt: skip


@pytest.fixture
def wells(tmp_path):
    """Sixteen wells of three 96 px fields; in wells of the class 'some' one of the fields has five bright discs."""
    rng = np.random.default_rng(0)
    rows = ["file,label,group,split"]
    for well in range(16):
        for field in range(3):
            image = rng.normal(100, 5, (96, 96))
            if well % 2 and field == (well // 2) % 3:
                for y, x in rng.integers(20, 76, (5, 2)):
                    image[y - 4 : y + 5, x - 4 : x + 5] += 80
            tifffile.imwrite(tmp_path / f"{well}_{field}.tif", image.astype(np.uint16))
            split = "train" if well < 12 else "validation"
            rows.append(f"{well}_{field}.tif,{('none', 'some')[well % 2]},well{well},{split}")
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    return read_labels(tmp_path / "labels.csv")


def batches_of(table, **options) -> TrainingBatches:
    """Make the batches of a training on a narrow network."""
    model = new_model(table.classes, ["c"], widths=(8, 8, 8, 16, 16, 16), normalise="image")
    reader = PatchReader(model, table.part("train"))
    return TrainingBatches(reader, TrainOptions(**(FAST | options)), Processes())


@pytest.mark.slow
def test_a_group_tells_what_single_fields_cannot(wells):
    """Two in three fields of a well of 'some' show nothing: no rule is right for more than 2 in 3 fields.

    All wells that were kept out of the training are right as one bag, and the model's own figures are of wells.
    """
    model = new_model(wells.classes, ["c"], widths=(8, 8, 8, 16, 16, 16), b=0.15)
    reports = list(train(model, wells, **FAST | {"epochs": 20, "learning_rate": 5e-3, "epoch_steps": 4}))
    best = reports[-1].best
    assert reports[-1].loss < 0.5 * reports[0].loss
    groups: dict[str, list] = {}
    for image in wells.part("validation").images:
        groups.setdefault(image.group, []).append(image)
    answers = [classify_group(best, [one.file for one in own], device="cpu").top in own[0].labels
               for own in groups.values()]  # fmt: skip
    assert np.mean(answers) == best.card.metrics["validation accuracy"] == 1.0
    assert sum(map(sum, best.card.training.confusion)) == len(groups) == 4


def test_patches_of_a_bag_are_different_fields_of_one_group(wells):
    """Bags of three fields show each field of their well once, and those of five one or two times."""
    assert batches_of(wells).targets.tolist() == [[1, 0], [0, 1]] * 6
    for fields in (3, 5):
        batches = batches_of(wells, bag_fields=fields, batch_size=2 * fields)
        batches.reader.patch = lambda index, _side, _rng: np.full((1, 96, 96), index, np.float32)
        batch = batches.read(np.arange(12), [4, 7], 1)
        assert batches.count == 6
        assert (batch.images.shape, batch.size, batch.fields) == ((2 * fields, 1, 96, 96), 2, fields)
        for well, bag in zip((4, 7), batch.images[:, 0, 0, 0].reshape(2, fields), strict=True):
            assert {int(image) // 3 for image in bag} == {well}
            assert len(set(bag[:3])) == 3


def test_the_maps_of_a_bag_are_pooled_together():
    """P and y of three fields in one bag are those of one map that holds all of their instances."""
    network = copy.deepcopy(lively_model().network).eval()
    images = torch.from_numpy(noise(6, 2, 100, 120).astype(np.float32)) / 100
    with torch.no_grad():
        alone, together = network(images), network(images, 3)
    assert together.probabilities.shape == (2, len(alone.probabilities[0]))
    for bag in range(2):
        maps = torch.cat([alone.class_maps[3 * bag + field] for field in range(3)], 1)
        whole = network.read_maps(maps[None])
        torch.testing.assert_close(together.probabilities[bag], whole.probabilities[0])
        torch.testing.assert_close(together.scores[bag], whole.scores[0])


def test_groups_that_are_no_bags_are_refused(wells, tmp_path):
    """A group of images with different labels, groups of single images; several labels are joined."""
    options = FAST | {"epochs": 1}
    model = new_model(wells.classes, ["c"], widths=(8, 8, 8, 16, 16, 16))
    text = (tmp_path / "labels.csv").read_text()
    for name, changed, message in (
        ("mixed", text.replace("well3,", "well2,"), "group well2 has images with the labels none and some"),
        ("single", text.replace(",group,", ",other,"), "each of the 48 groups of .* has one image"),
    ):
        (tmp_path / f"{name}.csv").write_text(changed)
        with pytest.raises(LabelsError, match=message):
            list(train(model, read_labels(tmp_path / f"{name}.csv"), **options))
    (tmp_path / "several.csv").write_text(text.replace("4_0.tif,none", "4_0.tif,none|some"))
    several = read_labels(tmp_path / "several.csv")
    check_groups(several)
    bags = images_of_bags(several, "group")
    assert bags[4] == [12, 13, 14]
    assert targets_of_bags(several, bags, several.classes)[4].tolist() == [1, 1]


def test_a_checkpoint_of_other_groups_is_refused(wells, tmp_path):
    """With bags of groups, which images share a group is part of what a run is."""
    model = new_model(wells.classes, ["c"], widths=(8, 8, 8, 16, 16, 16))
    file = tmp_path / "run.checkpoint"
    list(train(model, wells, checkpoint=file, **FAST))
    text = (tmp_path / "labels.csv").read_text().replace("well2,", "well0,")
    (tmp_path / "other.csv").write_text(text)
    with pytest.raises(OptionsError, match="the table"):
        next(train(model, read_labels(tmp_path / "other.csv"), checkpoint=file, resume=True, **FAST | {"epochs": 2}))


def test_an_epoch_of_groups_can_be_estimated(wells):
    """The images of the estimate are bags, as an epoch goes through them."""
    model = new_model(wells.classes, ["c"], widths=(8, 8, 8, 16, 16, 16))
    assert estimate(model, wells, **FAST).images == 12
