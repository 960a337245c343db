"""What may be wrong with labels: each finding is put there by hand."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest
import tifffile
import torch

from conftest import delta_model
from napari_milcnn.errors import OptionsError
from napari_milcnn.images.open import ImageReading
from napari_milcnn.labels.checks import check_labels
from napari_milcnn.labels.table import LabelledImage, LabelTable


def findings(table, model=None, **options):
    *_, last = check_labels(table, model, **options)
    return last.result


@pytest.fixture
def discs(tmp_path):
    """Eight images of 80 px with a disc in channel c0 (even numbers) or c1 (odd ones), labelled so, each its group.

    Image 3 shows c1 a little more than the others, and image 2 shows c1 a little less.
    """
    images = []
    for i in range(8):
        pixels = np.zeros((2, 80, 80), np.float32)
        pixels[i % 2, 30:50, 30:50] = 3.1 if i == 3 else 3
        pixels[1 - i % 2, 30:50, 30:50] = 0 if i == 2 else 0.1
        pixels[:, 0, 0] = 0.01 * i  # no two files are the same
        tifffile.imwrite(tmp_path / f"{i}.tif", pixels)
        images.append(LabelledImage(tmp_path / f"{i}.tif", (f"c{i % 2}",), f"well {i}"))
    return LabelTable(tuple(images), ImageReading(axes="CYX", channels=("c0", "c1")))


def changed(table, row, **changes):
    images = list(table.images)
    images[row] = replace(images[row], **changes)
    return replace(table, images=tuple(images))


def test_nothing_is_found_where_nothing_is_wrong(discs):
    *steps, last = check_labels(discs, delta_model(2), precision="float32")
    assert [(step.number, step.result) for step in steps] == [(i, None) for i in range(9)]
    assert (last.number, last.total, last.result) == (8, 8, ())
    assert findings(replace(discs, images=())) == ()


def test_a_label_that_the_model_contradicts(discs):
    """Image 3 shows c1 and is labelled c0; two that cannot be judged stand before it, and it is still found."""
    images = (replace(discs.images[0], labels=()), replace(discs.images[1], labels=("other",)), *discs.images)
    table = changed(replace(discs, images=images), 5, labels=("c0",))
    found = [one for one in findings(table, delta_model(2), precision="float32") if one.kind == "mislabel"]
    assert [one.rows for one in found] == [(5,)]
    assert found[0].sentence.startswith("3.tif is labelled c0, but the model says c1 (score 0.9")
    assert found[0].sentence.endswith(
        "against 0.02 for its label); look at the image and correct the label if it is wrong"
    )


def test_a_finding_says_that_the_model_was_trained_with_the_label(discs):
    """The record's split of this table, and its counts, say that the wrong image was learned from; other counts not."""
    table = changed(discs, 3, labels=("c0",))
    options = {"validation": 0.0, "seed": 0}
    for counts, trained in (({"c0": 5, "c1": 3}, True), ({"c0": 4, "c1": 3}, False)):
        model = delta_model(2).with_card(training={"options": options, "images": counts})
        (found,) = findings(table, model, precision="float32")
        assert ("although it was trained with this label" in found.sentence) == trained


def test_several_labels(discs):
    """Image 2 shows c0 alone and is labelled both: the model misses c1."""
    table = changed(discs, 2, labels=("c0", "c1"))
    model = delta_model(2)
    assert findings(table, model) == ()  # it gives one class per image, so two labels cannot be compared
    with torch.no_grad():
        model.network.head.bias.fill_(-2.0)  # an absent class then scores .12, not one half
    (found,) = findings(table, model.with_card(single_label=False), precision="float32")
    assert found.rows == (2,)
    assert "2.tif is labelled c0|c1, but the model says not c1 (score 0." in found.sentence


def test_an_image_that_cannot_be_read_is_named(discs):
    """The others are compared with the model all the same."""
    discs.images[1].file.write_bytes(b"no image")
    table = changed(discs, 3, labels=("c0",))
    found = findings(table, delta_model(2), precision="float32")
    assert [(one.kind, one.rows) for one in found] == [("mislabel", (3,)), ("unread", (1,))]
    assert found[1].sentence.startswith("1.tif was not compared with the model: ")


def test_the_same_image_under_two_names(discs):
    """A copy with the other label, one with the same and one without: the first needs its label put right."""
    for row, source in ((1, 0), (4, 2), (5, 2)):
        shutil.copy(discs.images[source].file, discs.images[row].file)
    found = findings(changed(discs, 5, labels=()))
    assert {(one.kind, one.rows) for one in found} == {("duplicate", (0, 1)), ("duplicate", (2, 4)),
                                                       ("duplicate", (2, 5))}  # fmt: skip
    sentences = {one.rows: one.sentence for one in found}
    assert sentences[0, 1].startswith(
        "0.tif and 1.tif are the same image, labelled c0 and c1; correct the wrong label, "
    )
    for rows in ((2, 4), (2, 5)):
        assert sentences[rows].endswith("are the same image, so it counts twice; remove one of them")


def test_a_group_on_both_sides(discs):
    """Images 0 and 1 of plate 1 train, image 4 of it validates; an unlabelled one is on no side."""
    table = discs
    for row, split in ((0, "train"), (1, "train"), (4, "validation"), (6, "test")):
        table = changed(table, row, group="plate 1", split=split, **({"labels": ()} if row == 6 else {}))
    (found,) = findings(table)
    assert (found.kind, found.rows) == ("group", (0, 1, 4))
    assert found.sentence.startswith("group plate 1 is in train (2 images) and validation (1 image): images of one")


def test_a_class_of_one_group(discs):
    table = discs
    for row in (1, 3, 5, 7):
        table = changed(table, row, group="plate 1")
    (found,) = findings(table)
    assert (found.kind, found.rows) == ("group", (1, 3, 5, 7))
    assert found.sentence.startswith("all 4 images of c1 come from one group, plate 1: a model may learn the group")


def test_checks_can_be_left_and_options_are_checked(discs):
    steps = check_labels(discs, delta_model(2))
    assert [next(steps).number for _ in range(3)] == [0, 1, 2]
    steps.close()
    with pytest.raises(OptionsError, match="there is no option 'kind'"):
        findings(discs, delta_model(2), kind="jacobian")
