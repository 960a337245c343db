"""Tables of image-level labels, and splits by group."""

from __future__ import annotations

import contextlib
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from conftest import write_plate
from napari_milcnn import read_labels
from napari_milcnn.errors import ImageError, LabelsError
from napari_milcnn.images.open import ImageReading
from napari_milcnn.labels.table import LabelledImage, LabelTable, check_images

WELLS = ("B/02", "B/03", "C/11")


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
        "rows without a label: line 3 'b.tif'", "files that are not in", "line 4 'missing.tif'",
        "splits other than train, validation, test: line 4 'missing.tif' 'trian'",
        "groups on both sides of the split: 'w' in train (line 2) and validation (line 3)",
        "images listed again with other labels; expected one row with A|B: 'a.tif' line 2 (x) and line 5 (y)",
    ):  # fmt: skip
        assert said in text


def test_many_problems_are_counted_not_spelled_out(tmp_path):
    """Five of a kind are spelled out; the other twenty are counted."""
    rows = [{"file": f"missing{i}.tif", "label": "x"} for i in range(25)]
    with pytest.raises(LabelsError, match=r"25 problems(?s:.*)and 20 more") as error:
        read_labels(write_table(tmp_path, rows))
    assert str(error.value).count("line ") == 5


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "cannot be read as a CSV"),
        ("name,label\na,b\n", 'has no column "file"; found name, label'),
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
    with pytest.raises(LabelsError, match=r"all 2 images are of one group, 'w'.*\(option validation: 0\)"):
        table_of(["w", "w"], ["a", "b"]).with_split(0.2, 0)
    assert table_of(["w", "w"], ["a", "b"]).with_split(0, 0).part("train").counts() == {"a": 1, "b": 1}


def test_one_file_by_two_names_is_one_file(tmp_path):
    """a.tif and ./a.tif are the same image; spaces around a group do not make two groups."""
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((8, 8), np.uint8))
    (tmp_path / "labels.csv").write_text("file,label\na.tif,x\n./a.tif,y\n")
    with pytest.raises(LabelsError, match="listed again with other labels"):
        read_labels(tmp_path / "labels.csv")
    (tmp_path / "labels.csv").write_text("file,label,group\na.tif , x,P1 \n")
    assert read_labels(tmp_path / "labels.csv").images[0].group == "P1"


def test_two_groups_split_one_and_one():
    """However large a share is asked for, each side keeps a group."""
    table = table_of(["v", "v", "w", "w"], ["a", "b", "a", "b"]).with_split(0.95, 0)
    assert {image.split for image in table.images} == {"train", "validation"}


MISTAKES = """file;Label;group;split
good.tif;drug;w1;train
fine.tif;control;w2;train
missing.tif;drug;w3;train
;drug;w4;train
folder;drug;w5;train
empty.tif;drug;w6;train
words.tif;drug;w7;train
cut.tif;drug;w8;train
none.tif;;w9;train
twice.tif;drug;w10;train
twice.tif;drug;w10;train
other.tif;drug;w11;train
./other.tif;control;w11;train
case.tif;Drug;w12;train
comma.tif;drug,control;w13;train
bars.tif;drug||control;w14;train
word.tif;drug;w15;trian
nosplit.tif;drug;w16;
nogroup.tif;drug;;train
side.tif;control;w1;validation
control;swapped.tif;w17;train
C:\\screen\\theirs.tif;drug;w18;train
copy.tif;control;w19;train
two.tif;drug;w20;train
held.tif;rare;w21;validation
"""
KINDS = (
    "files that are not in", "rows without a file: line 5", "folders in place of images: line 6 'folder'",
    "empty files: line 7", "line 8 'words.tif': ", "line 9 'cut.tif': ", "rows without a label: line 10",
    "images listed twice: 'twice.tif' line 11 (drug) and line 12 (drug)",
    "images listed again with other labels; expected one row with A|B: 'other.tif' line 13 (drug) and line 14",
    "labels that differ only in case, spaces or dashes: 'Drug' (1) and 'drug' (",
    "labels joined by , or ; expected A|B: line 16 'drug,control'",
    "labels with nothing between two bars: line 17 'bars.tif' 'drug||control'",
    "splits other than train, validation, test: line 18 'word.tif' 'trian'",
    "the column split is filled for 24 of 25 rows", "the column group is filled for 24 of 25 rows",
    "groups on both sides of the split: 'w1' in train (line 2) and validation (line 21)",
    "file and label in each other's column: line 22 'control' 'swapped.tif'",
    "files of another computer; expected names relative to the table: line 23",
    "one image under two names, with other labels: line 2 'good.tif' (drug) and line 24 'copy.tif' (control)",
    "images with another number of channels than the usual 1: line 25 'two.tif' has 2",
    "labels without an image in training: 'rare'",
)  # fmt: skip


def test_twenty_kinds_of_mistakes_are_one_list(tmp_path):
    """A table as real ones come: everything wrong with it, and with its images, in one message with line numbers."""
    rng = np.random.default_rng(0)
    for line in MISTAKES.splitlines()[1:]:
        name = line.split(";")[0]
        if name.endswith(".tif") and not name.startswith(("missing", "C:")):
            tifffile.imwrite(tmp_path / name, rng.integers(0, 99, (8, 8)).astype(np.uint8))
    tifffile.imwrite(tmp_path / "swapped.tif", rng.integers(0, 99, (8, 8)).astype(np.uint8))
    tifffile.imwrite(tmp_path / "two.tif", rng.integers(0, 99, (2, 8, 8)).astype(np.uint8), metadata={"axes": "CYX"})
    (tmp_path / "folder").mkdir()
    (tmp_path / "empty.tif").write_bytes(b"")
    (tmp_path / "words.tif").write_text("these are words")
    (tmp_path / "cut.tif").write_bytes((tmp_path / "good.tif").read_bytes()[:60])
    (tmp_path / "copy.tif").write_bytes((tmp_path / "good.tif").read_bytes())
    (tmp_path / "labels.csv").write_text(MISTAKES, encoding="utf-8-sig")
    with pytest.raises(LabelsError) as error:
        read_labels(tmp_path / "labels.csv")
    text = str(error.value)
    assert [kind for kind in KINDS if kind not in text] == []
    assert len(text.splitlines()) <= len(KINDS) + 1


def test_what_spreadsheets_write(tmp_path):
    """A mark of UTF-8, semicolons, tabs, backslashes, capital headers, blank lines and more columns are all read."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        tifffile.imwrite(tmp_path / name / "1.tif", np.full((8, 8), ord(name), np.uint8))
    for separator in ";\t,":
        text = "File;LABEL;Dose\n\na\\1.tif;x;3\n;;\nb/1.tif;y;\n".replace(";", separator)
        (tmp_path / "labels.csv").write_text(text, encoding="utf-8-sig", newline="\r\n")
        table = read_labels(tmp_path / "labels.csv")
        assert [(image.file, image.labels, image.line) for image in table.images] == [
            (tmp_path / "a" / "1.tif", ("x",), 3), (tmp_path / "b" / "1.tif", ("y",), 5)
        ]  # fmt: skip


@pytest.mark.parametrize(("content", "said"), [
    (b"PK\x03\x04", "it is a spreadsheet; save it as 'CSV UTF-8'"),
    ("file,label\n".encode("utf-16"), "it is UTF-16 text"),
    (b"file,label\n\xe9.tif,x\n", "save it as 'CSV UTF-8'"),
    (b"file,label\na.tif,x,y\n", "line 2 has more cells than the 2 columns"),
])  # fmt: skip
def test_what_is_no_csv_says_how_to_make_one(tmp_path, content, said):
    """Spreadsheets and foreign encodings are told from tables."""
    (tmp_path / "labels.csv").write_bytes(content)
    with pytest.raises(LabelsError, match=re.escape(said)):
        read_labels(tmp_path / "labels.csv")


@given(st.binary(max_size=200))
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_are_a_table_or_a_sentence(tmp_path, content):
    """Nothing but LabelsError comes out of the reader."""
    (tmp_path / "labels.csv").write_bytes(b"file,label,group,split\n" + content)
    with contextlib.suppress(LabelsError):
        read_labels(tmp_path / "labels.csv")


def test_a_folder_of_folders(tmp_path):
    """class/image is a group of its own, class/group/image names it; what is no image is passed over."""
    for name in ("control/a.tif", "control/well/b.tif", "control/well/c.tif", "drug/a.tif", "drug/.hidden.tif"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(tmp_path / name, np.zeros((8, 8), np.uint8))
    (tmp_path / "drug" / "notes.txt").write_text("nothing")
    (tmp_path / "drug" / "Thumbs.db").write_text("nothing")
    table = read_labels(tmp_path)
    assert [(image.file.relative_to(tmp_path).as_posix(), image.labels[0], image.group) for image in table.images] == [
        ("control/a.tif", "control", "control/a.tif"), ("control/well/b.tif", "control", "well"),
        ("control/well/c.tif", "control", "well"), ("drug/a.tif", "drug", "drug/a.tif"),
    ]  # fmt: skip
    assert table.warnings == ()
    with pytest.raises(LabelsError, match="it has no folder with images; expected one per class"):
        read_labels(tmp_path / "control" / "well")


def test_a_document_in_the_folder_of_a_class_stops_no_training(tmp_path):
    """What no reader opens is passed over, and so are our own outputs; a folder without an image is named."""
    for name in ("control/a.bmp", "control/b.bmp", "drug/c.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8), ord(name[-5]), np.uint8)).save(tmp_path / name)
    for name in ("control/protocol.docx", "drug/slides.pptx", "drug/c_overview.png", "papers/a.docx"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"PK")
    table = read_labels(tmp_path)
    assert [image.name for image in table.images] == ["a.bmp", "b.bmp", "c.png"]
    assert check_images(table) == ("folders without an image, which are left out: 'papers'",)


def test_images_are_compared_before_training(tmp_path):
    """Another pixel size and a copy are warnings with line numbers; every image is counted."""
    for name, size in (("a", 1.0), ("b", 1.0), ("c", 2.0)):
        pixels = np.full((8, 8), ord(name), np.uint8)
        tifffile.imwrite(tmp_path / f"{name}.ome.tif", pixels, ome=True,
                         metadata={"axes": "YX", "PhysicalSizeX": size, "PhysicalSizeY": size})  # fmt: skip
    (tmp_path / "d.ome.tif").write_bytes((tmp_path / "a.ome.tif").read_bytes())
    (tmp_path / "labels.csv").write_text("file,label\n" + "".join(f"{n}.ome.tif,x\n" for n in "abcd"))
    counted = []
    said = check_images(read_labels(tmp_path / "labels.csv"), lambda *done: counted.append(done) or True)
    assert counted == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert said == (
        "images of another pixel size than 1 µm, which are rescaled: line 4 'c.ome.tif' has 2 µm",
        "one image under two names: line 2 'a.ome.tif' (x) and line 5 'd.ome.tif' (x)",
    )


def test_images_are_compared_with_the_pixel_size_of_a_model(tmp_path):
    """No image says its size, so that none is rescaled; or all have another one than the model."""
    for name in "ab":
        tifffile.imwrite(tmp_path / f"{name}.tif", np.full((8, 8), ord(name), np.uint8))
    (tmp_path / "labels.csv").write_text("file,label\na.tif,x\nb.tif,x\n")
    table = read_labels(tmp_path / "labels.csv")
    assert check_images(table) == ()
    (said,) = check_images(table, pixel_size=0.65)
    assert said.startswith("images that do not say their pixel size, which are not rescaled (2): line 2 'a.tif'")
    (said,) = check_images(replace(table, reading=ImageReading(pixel_size=1.3)), pixel_size=0.65)
    assert said.startswith(
        "images of another pixel size than 0.65 µm, which are rescaled (2): line 2 'a.tif' has 1.3 µm"
    )


def test_split_warnings_give_numbers():
    """A class without a validated group, and one with a single group."""
    rows = [("a", "g1", "train"), ("a", "g2", "validation"), ("b", "g3", "train")]
    table = LabelTable(tuple(LabelledImage(f"{i}.tif", (label,), group, split)
                             for i, (label, group, split) in enumerate(rows)))  # fmt: skip
    assert table.split_warnings() == (
        "a is validated on only 1 group: its figures say little",
        "b has 1 group and none of them in validation: how well it is recognised cannot be measured",
    )


@given(st.lists(st.tuples(st.integers(0, 9), st.sampled_from("abc")), min_size=2, max_size=40), st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_no_group_is_ever_split(rows, seed):
    """Whatever the table: whole groups, something on both sides, the same for the same seed."""
    table = table_of([f"g{group}" for group, _ in rows], [label for _, label in rows])
    if len({image.group for image in table.images}) < 2:
        return
    split = table.with_split(0.2, seed)
    sides = {image.group: set() for image in split.images}
    for image in split.images:
        sides[image.group].add(image.split)
    assert all(len(side) == 1 for side in sides.values())
    assert {image.split for image in split.images} == {"train", "validation"}
    assert table.with_split(0.2, seed) == split


def test_a_class_of_two_groups_is_on_both_sides():
    """Nine groups of one class and two of another, a fifth held out: the rare class is trained and validated."""
    for seed in range(5):
        table = table_of([f"g{i}" for i in range(11)], ["a"] * 9 + ["b"] * 2).with_split(0.2, seed)
        assert table.part("train").counts()["b"] == table.part("validation").counts()["b"] == 1


def test_folds_hold_every_image_out_once():
    """Three folds of six groups: each image in one validation part, no group in two."""
    table = table_of([f"g{i // 2}" for i in range(12)], ["a", "b"] * 6)
    folds = table.folds(3, 0)
    held = [image.file for fold in folds for image in fold.part("validation").images]
    assert sorted(held) == sorted(image.file for image in table.images)
    groups = [{image.group for image in fold.part("validation").images} for fold in folds]
    assert not groups[0] & groups[1]
    assert folds == table.folds(3, 0)
    with pytest.raises(LabelsError, match="all 12 images are of 6 groups, which are too few for 7 folds"):
        table.folds(7, 0)


def write_stack(path, shape=(2, 3, 2), axes="PTZ"):
    """Write an image whose pixels say where their plane stands: 100 P + 10 T + Z."""
    places = np.stack(np.indices(shape), -1) @ [10 ** (2 - "PTZ".index(axis)) for axis in axes]
    pixels = (places[..., None, None] * np.ones((8, 8))).astype(np.uint16)
    if axes[0] != "P":
        tifffile.imwrite(path, pixels, ome=True, metadata={"axes": f"{axes}YX"})
        return
    with tifffile.TiffWriter(path, ome=True) as tiff:
        for position in pixels:
            tiff.write(position, metadata={"axes": f"{axes[1:]}YX"})


def test_planes_of_one_file_are_images_of_their_own(tmp_path):
    """A name picks the planes that it names, in any order and case; the file is the group of all of them."""
    write_stack(tmp_path / "a.ome.tif")
    (tmp_path / "labels.csv").write_text(
        "file,plane,label\na.ome.tif,P0,x\na.ome.tif,t1 P1,y\n./a.ome.tif,P1 T2 Z0,y\n"
    )
    table = read_labels(tmp_path / "labels.csv")
    assert [(image.plane, image.group) for image in table.images] == [
        ("P0", "a.ome.tif"), ("P1 T1", "a.ome.tif"), ("P1 T2 Z0", "a.ome.tif")
    ]  # fmt: skip
    found = []
    for image in table.images:
        with table.open(image) as opened:
            found.append([int(opened.plane(i)[0, 0, 0]) for i in range(len(opened.planes))])
    assert found == [[0, 1, 10, 11, 20, 21], [110, 111], [120]]
    assert table.warnings == ()
    assert table.images[1].name == "a.ome.tif P1 T1"
    assert check_images(table) == ()


def test_planes_that_repeat_each_other(tmp_path):
    """The same plane twice is an error, as is a plane within another row of other labels; of the same it is said."""
    for name in ("a.ome.tif", "b.ome.tif", "c.ome.tif"):
        write_stack(tmp_path / name)
    rows = ["file,plane,label", "a.ome.tif,P0,x", "a.ome.tif,P0 T1,x", "a.ome.tif,P1,y", "b.ome.tif,,x"]
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    assert read_labels(tmp_path / "labels.csv").warnings == (
        "planes that two rows have in common: 'a.ome.tif' line 2 (P0: x) and line 3 (P0 T1: x)",
    )
    rows += ["b.ome.tif,Z1,y", "c.ome.tif,T1 P0,x", "c.ome.tif,P0 T1,x", "c.ome.tif,Z0,x", "c.ome.tif,Q1,x"]
    (tmp_path / "labels.csv").write_text("\n".join([*rows, "c.ome.tif,P5,x"]))
    with pytest.raises(LabelsError) as error:
        read_labels(tmp_path / "labels.csv")
    for said in (
        "planes that two rows with other labels have in common: 'b.ome.tif' line 5 (every plane: x) and line 6 (Z1: y)",
        "images listed twice: 'c.ome.tif P0 T1' line 7 (x) and line 8 (x)",
        "planes that are not understood; expected names such as P0 or P0 T3 Z1: line 10 'Q1'",
        "images that cannot be read: line 11 'c.ome.tif P5': ",
        "has no plane P5; there are P0 to P1, T0 to T2, Z0 to Z1",
    ):  # fmt: skip
        assert said in str(error.value)


def test_planes_of_copies_are_compared_with_each_other(tmp_path):
    """A plane with another label in a copy of its file is an error; other planes of a copy are not."""
    for name in ("a.ome.tif", "b.ome.tif"):
        write_stack(tmp_path / name)
    (tmp_path / "b.ome.tif").write_bytes((tmp_path / "a.ome.tif").read_bytes())
    text = "file,plane,label\na.ome.tif,P0,x\nb.ome.tif,P1,y\n"
    (tmp_path / "labels.csv").write_text(text)
    assert check_images(read_labels(tmp_path / "labels.csv")) == (
        "one image under two names: line 2 'a.ome.tif P0' (x) and line 3 'b.ome.tif P1' (y)",
    )
    (tmp_path / "labels.csv").write_text(f"{text}a.ome.tif,P1,x\n")
    with pytest.raises(LabelsError, match=r"with other labels: line 4 'a.ome.tif P1' \(x\) and line 3 'b.ome.tif P1'"):
        check_images(read_labels(tmp_path / "labels.csv"))


def test_planes_of_a_projection_have_no_z(tmp_path):
    """What is opened as a projection is picked from by P and T alone."""
    write_stack(tmp_path / "a.ome.tif", (3, 2), "TZ")
    table = LabelTable((LabelledImage(tmp_path / "a.ome.tif", ("x",), "g", plane="T2"),), ImageReading(z="maximum"))
    with table.open(table.images[0]) as opened:
        assert [int(opened.plane(i)[0, 0, 0]) for i in range(len(opened.planes))] == [21]
    with pytest.raises(ImageError, match="has no plane Z1; there are T0 to T2"):
        table.open(LabelledImage(tmp_path / "a.ome.tif", ("x",), "g", plane="T2 Z1"))


@pytest.fixture
def plate(tmp_path):
    """Write an OME-Zarr plate of three wells with two fields of 8 x 8 px each: 10 * well + field in each pixel."""
    wells = {well: np.full((2, 8, 8), 10 * n) + np.arange(2)[:, None, None] for n, well in enumerate(WELLS)}
    return write_plate(tmp_path / "p.ome.zarr", {well: fields.astype(np.uint16) for well, fields in wells.items()})


def test_a_plate_and_its_layout(tmp_path, plate):
    """Wells are named in any usual way; each field is a row in the group of its well; what is left out is said."""
    (tmp_path / "layout.csv").write_text("Well;label;dose\nB3;drug|dead;1\nc/11;control;\n")
    table = read_labels(plate, layout=tmp_path / "layout.csv")
    assert [(image.file, image.labels, image.group, image.line) for image in table.images] == [
        (plate / "B" / "03" / "0", ("drug", "dead"), "B03", 2), (plate / "B" / "03" / "1", ("drug", "dead"), "B03", 2),
        (plate / "C" / "11" / "0", ("control",), "C11", 3), (plate / "C" / "11" / "1", ("control",), "C11", 3),
    ]  # fmt: skip
    assert table.images[0].name == "p.ome.zarr/B/03/0"
    assert table.warnings == ("wells of the plate that the layout does not name, which are left out: B02",)
    with table.open(table.images[3]) as opened:
        assert opened.plane(0)[0, 0, 0] == 21
    assert check_images(table)[0] == table.warnings[0]


def test_the_fields_of_a_plate_may_be_named_one_by_one(tmp_path, plate):
    """A labels.csv names them as files; the folder of a well is no image."""
    (tmp_path / "labels.csv").write_text(f"file,label\n{plate.name}/B/03/1,x\n{plate.name}/B/02/0,y\n")
    assert [image.name for image in read_labels(tmp_path / "labels.csv").images] == [
        "p.ome.zarr/B/03/1", "p.ome.zarr/B/02/0"
    ]  # fmt: skip


def test_what_is_wrong_with_a_layout(tmp_path, plate):
    """A plate needs one, only a plate has one; wells that it lacks and the usual mistakes are one list."""
    with pytest.raises(
        LabelsError, match=r"is an OME-Zarr plate of 3 wells; give its layout, a CSV .* \(option layout\)"
    ):
        read_labels(plate)
    with pytest.raises(LabelsError, match="is not an OME-Zarr plate and has no layout"):
        read_labels(tmp_path, layout=tmp_path / "layout.csv")
    (tmp_path / "layout.csv").write_text("well,dose\nB3,1\n")
    with pytest.raises(LabelsError, match='has no column "label"; found well, dose'):
        read_labels(plate, layout=tmp_path / "layout.csv")
    rows = ["well,label,split", "B3,drug,train", "B/03,drug,train", "H12,drug,train", "b2,Drug,trian", "C11,,train"]
    (tmp_path / "layout.csv").write_text("\n".join(rows))
    with pytest.raises(LabelsError) as error:
        read_labels(plate, layout=tmp_path / "layout.csv")
    for said in (
        "layout.csv has ", "wells that are not on the plate: line 4 'H12'",
        "wells listed twice: 'B03' line 2 and line 3",
        "splits other than train, validation, test: line 5 'b2' 'trian'",
        "labels that differ only in case, spaces or dashes: 'Drug' (2) and 'drug' (4)",
    ):  # fmt: skip
        assert said in str(error.value)


def test_a_column_for_each_channel(tmp_path):
    """A row is one image of several files, whose channels are called after the columns."""
    for name in ("a1", "a2", "b1", "b2"):
        tifffile.imwrite(tmp_path / f"{name}.tif", np.zeros((4, 5), np.uint8))
    (tmp_path / "labels.csv").write_text(
        "file GFP,File RFP,label,plate\na1.tif,a2.tif,x,p\nb1.tif,b2.tif,y,p\n", encoding="utf-8"
    )
    table = read_labels(tmp_path / "labels.csv")
    assert [image.file.name for image in table.images] == ["{a1,a2}.tif", "{b1,b2}.tif"]
    assert table.open(table.images[0]).channels == ("GFP", "RFP")
    assert table.plates.plate_of(table.images[1].file).name == "plate p"
    assert check_images(table) is not None
    (tmp_path / "labels.csv").write_text("file GFP,file RFP,label\na1.tif,c2.tif,x\nb1.tif,,y\n", encoding="utf-8")
    with pytest.raises(LabelsError, match=r"\{a1,c2\}.*no file for RFP"):
        read_labels(tmp_path / "labels.csv")


def test_a_folder_per_class_with_a_file_per_channel(tmp_path):
    for label in ("x", "y"):
        (tmp_path / label).mkdir()
        for channel in (1, 2):
            tifffile.imwrite(tmp_path / label / f"p_B03_s1_w{channel}.tif", np.zeros((4, 5), np.uint8))
    images = read_labels(tmp_path).images
    assert [(image.file.name, image.labels) for image in images] == [
        ("p_B03_s1_{w1,w2}.tif", ("x",)), ("p_B03_s1_{w1,w2}.tif", ("y",))
    ]  # fmt: skip
    assert len(read_labels(tmp_path, ImageReading(pattern="off")).images) == 4
