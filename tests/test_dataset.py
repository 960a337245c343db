"""Tables of image-level labels, and splits by group."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import tifffile

from napari_milcnn import read_labels
from napari_milcnn.core.dataset import LabelledImage, LabelTable
from napari_milcnn.core.errors import LabelsError


def write_table(folder, rows):
    """Write labels.csv and an 8 x 8 image for each file that does not begin with 'missing'."""
    for row in rows:
        if not row["file"].startswith("missing"):
            tifffile.imwrite(folder / row["file"], np.zeros((8, 8), np.uint8))
    pd.DataFrame(rows).to_csv(folder / "labels.csv", index=False)
    return folder / "labels.csv"


def table_of(groups, labels):
    """Build a table without files."""
    return LabelTable(tuple(
        LabelledImage(f"{i}.tif", (label,), group) for i, (group, label) in enumerate(zip(groups, labels, strict=True))
    ))  # fmt: skip


def test_read_labels(tmp_path):
    """Files are relative to the table, several labels stand between bars, groups default to the file."""
    path = write_table(tmp_path, [{"file": "a.tif", "label": "x| y"}, {"file": "b.tif", "label": "x"}])
    table = read_labels(path)
    assert table.classes == ("x", "y")
    assert [image.file for image in table.images] == [tmp_path / "a.tif", tmp_path / "b.tif"]
    assert [image.group for image in table.images] == ["a.tif", "b.tif"]
    assert not table.single_label
    assert table.counts() == {"x": 2, "y": 1}
    np.testing.assert_array_equal(table.targets(("y", "x")), [[1, 1], [0, 1]])


def test_read_labels_lists_every_problem_at_once(tmp_path):
    """Missing file, empty label, unknown split, doubled file and a group on both sides are one message."""
    rows = [
        {"file": "a.tif", "label": "x", "group": "w", "split": "train"},
        {"file": "b.tif", "label": "", "group": "w", "split": "validation"},
        {"file": "missing.tif", "label": "x", "group": "v", "split": "trian"},
        {"file": "a.tif", "label": "y", "group": "w", "split": "train"},
    ]
    with pytest.raises(LabelsError) as error:
        read_labels(write_table(tmp_path, rows))
    text = str(error.value)
    for said in (
        "5 problems", "line 3: 'b.tif' has no label", "line 4: the file 'missing.tif' is not in",
        "split is 'trian', expected train, validation, test", "group 'w' stands in train and validation",
        "'a.tif' is listed 2 times, with x / y",
    ):  # fmt: skip
        assert said in text


def test_many_problems_are_counted_not_spelled_out(tmp_path):
    """Twenty problems are listed; the other five are counted."""
    rows = [{"file": f"missing{i}.tif", "label": "x"} for i in range(25)]
    with pytest.raises(LabelsError, match=r"25 problems(?s:.*)and 5 more") as error:
        read_labels(write_table(tmp_path, rows))
    assert str(error.value).count("line ") == 20


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "cannot be read as a CSV"),
        ("name,label\na,b\n", "lacks the column file; found name, label"),
        ("file,label\n", "it has no rows"),
        ('file,label\n"a,b\n', "cannot be read as a CSV"),
    ],
)
def test_tables_that_are_none(tmp_path, text, said):
    """What is not a table of labels is refused with what was expected."""
    (tmp_path / "labels.csv").write_text(text)
    with pytest.raises(LabelsError, match=said):
        read_labels(tmp_path / "labels.csv")


def test_missing_table(tmp_path):
    """A table that is not there is named."""
    with pytest.raises(LabelsError, match=r"nowhere\.csv does not exist"):
        read_labels(tmp_path / "nowhere.csv")


def test_groups_stay_on_one_side_and_every_class_on_both():
    """Twelve wells of two images, three classes: no well is split, each class is validated."""
    groups = [f"well{i // 2}" for i in range(24)]
    labels = ["abc"[i // 2 % 3] for i in range(24)]
    for seed in range(5):
        table = table_of(groups, labels).with_split(0.25, seed)
        sides = {name: {i.split for i in table.images if i.group == name} for name in groups}
        assert all(len(side) == 1 for side in sides.values())
        assert set(table.part("validation").classes) == set(table.part("train").classes) == {"a", "b", "c"}
        assert len(table.part("validation").images) == 6


def test_one_group_cannot_be_split():
    """The message names the group and two ways out."""
    with pytest.raises(LabelsError, match=r"all 2 images are of one group, 'w'.*--validation 0"):
        table_of(["w", "w"], ["a", "b"]).with_split(0.2, 0)
    assert table_of(["w", "w"], ["a", "b"]).with_split(0, 0).part("train").counts() == {"a": 1, "b": 1}


def test_one_file_by_two_names_is_one_file(tmp_path):
    """a.tif and ./a.tif are the same image; spaces around a group do not make two groups."""
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((8, 8), np.uint8))
    (tmp_path / "labels.csv").write_text("file,label\na.tif,x\n./a.tif,y\n")
    with pytest.raises(LabelsError, match="listed 2 times"):
        read_labels(tmp_path / "labels.csv")
    (tmp_path / "labels.csv").write_text("file,label,group\na.tif , x,P1 \n")
    assert read_labels(tmp_path / "labels.csv").images[0].group == "P1"


def test_two_groups_split_one_and_one():
    """However large a share is asked for, each side keeps a group."""
    table = table_of(["v", "v", "w", "w"], ["a", "b", "a", "b"]).with_split(0.95, 0)
    assert {image.split for image in table.images} == {"train", "validation"}
