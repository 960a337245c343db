"""Labels given by hand: every change on disk at once, nothing lost, and a table that the command line trains from."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from napari_milcnn.errors import LabelsError, OutputError
from napari_milcnn.figures.palette import class_colours
from napari_milcnn.images.open import open_image
from napari_milcnn.labels import labelling as module
from napari_milcnn.labels.labelling import open_labelling
from napari_milcnn.labels.labelling_files import LabelClass
from napari_milcnn.labels.table import read_labels
from napari_milcnn.results.write import write_plane


def images(folder: Path, *names: str) -> None:
    """Write small images."""
    for i, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(path, np.full((8, 8), i, np.uint16))


@pytest.fixture
def flat(tmp_path):
    """Return a folder of six unlabelled images, opened with the classes a and b."""
    images(tmp_path, *(f"{i}.tif" for i in range(6)))
    labelling = open_labelling(tmp_path)
    labelling.add_class("a")
    labelling.add_class("b")
    return labelling


def lines(labelling) -> list[str]:
    """Return labels.csv line by line."""
    return labelling.path.read_text(encoding="utf-8").splitlines()


def same(one, other) -> bool:
    """Whether two labellings hold the same."""
    return (one.classes, one.images) == (other.classes, other.images)


def test_a_flat_folder_is_unlabelled_and_nothing_is_written_before_a_change(tmp_path):
    images(tmp_path, "b.tif", "a.tif")
    labelling = open_labelling(tmp_path)
    assert [image.file.name for image in labelling.images] == ["a.tif", "b.tif"]
    assert labelling.unlabelled() == (0, 1)
    assert sorted(os.listdir(tmp_path)) == ["a.tif", "b.tif"]


def test_a_label_stands_in_the_table_at_once_and_the_table_is_what_read_labels_gives(flat):
    flat.label([4, 0], "b")
    flat.label([2], "a")
    assert lines(flat) == ["file,label,group,split", "0.tif,b,,", "2.tif,a,,", "4.tif,b,,"]
    assert read_labels(flat.path) == flat.table()
    assert flat.counts() == {"a": 1, "b": 2}
    assert flat.labelled() == (0, 2, 4)


def test_opened_again_everything_is_there(flat):
    flat.add_class("empty", "#123456")
    flat.label([1, 3], "b")
    flat.label([3], "a", add=True)
    flat.set_group([3, 5], "well 1")
    flat.recolour_class("a", "#ff0000")
    again = open_labelling(flat.path.parent)
    assert same(again, flat)
    assert again.classes[2] == LabelClass("empty", "#123456")
    assert again.images[3].labels == ("b", "a")
    assert again.images[5].group == "well 1"
    assert same(open_labelling(flat.path), flat)


def test_a_folder_per_class_is_labelled_by_its_folders(tmp_path):
    images(tmp_path, "a/1.tif", "a/2.tif", "b/well/3.tif", "b/4.tif")
    labelling = open_labelling(tmp_path)
    assert labelling.table().images == tuple(
        module.replace(image, line=i) for i, image in enumerate(read_labels(tmp_path).images, start=2)
    )
    labelling.label([0], "b")
    assert read_labels(labelling.path) == labelling.table()
    assert lines(labelling)[1:] == ["a/1.tif,b,a/1.tif,", "a/2.tif,a,a/2.tif,", "b/4.tif,b,b/4.tif,",
                                    "b/well/3.tif,b,well,"]  # fmt: skip
    images(tmp_path, "a/new.tif")
    again = open_labelling(tmp_path)
    assert [image.file.name for image in again.images if not image.labels] == ["new.tif"]


def test_a_folder_of_any_images_that_can_be_opened_is_labelled_and_a_document_in_it_is_passed_over(tmp_path):
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "a.bmp")
    Image.fromarray(np.ones((8, 8), np.uint8)).save(tmp_path / "b.gif")
    (tmp_path / "protocol.docx").write_bytes(b"PK")
    labelling = open_labelling(tmp_path)
    assert [image.file.name for image in labelling.images] == ["a.bmp", "b.gif"]


def test_files_anywhere_are_named_from_the_folder_that_they_share(tmp_path):
    images(tmp_path, "x/1.tif", "y/deep/2.tif", "y/other.tif")
    labelling = open_labelling([tmp_path / "x" / "1.tif", tmp_path / "y" / "deep" / "2.tif"])
    labelling.add_class("a")
    labelling.label([0, 1], "a")
    assert labelling.path == tmp_path / "labels.csv"
    assert lines(labelling)[1:] == ["x/1.tif,a,,", "y/deep/2.tif,a,,"]
    assert read_labels(labelling.path) == labelling.table()


def test_columns_and_form_of_the_users_own_table_are_kept_and_the_table_itself_once(tmp_path):
    images(tmp_path, "1.tif", "2.tif", "3.tif")
    text = "﻿File;dose;label\r\n1.tif;0,5;a\r\n2.tif;7;b\r\n"
    (tmp_path / "labels.csv").write_bytes(text.encode())
    labelling = open_labelling(tmp_path / "labels.csv")
    labelling.label([1], "a")
    labelling.unlabel([0])
    labelling.set_group([0, 1], "w")
    assert labelling.path.read_bytes().decode() == "﻿File;dose;label;group\n2.tif;7;a;w\n"
    assert (tmp_path / "labels.csv.bak").read_bytes() == text.encode()
    again = open_labelling(tmp_path)  # the folder: an image that the table does not name is there, too
    assert [image.file.name for image in again.images] == ["1.tif", "2.tif", "3.tif"]
    again.label([0], "b")
    assert again.path.read_bytes().decode().splitlines()[1:] == ["1.tif;0,5;b;w", "2.tif;7;a;w"]
    assert (tmp_path / "labels.csv.bak").read_bytes() == text.encode()


def test_every_change_is_one_step_back_and_forth(flat):
    states = [(flat.classes, flat.images)]
    for change in (
        lambda: flat.label([0, 1, 2], "a"), lambda: flat.label([1], "b", add=True), lambda: flat.unlabel([1], "a"),
        lambda: flat.rename_class("b", "c"), lambda: flat.set_split([0, 1], "train"), lambda: flat.set_group([2], "g"),
        lambda: flat.recolour_class("c", "#000000"), lambda: flat.remove_class("a"), lambda: flat.unlabel([1]),
    ):  # fmt: skip
        change()
        states.append((flat.classes, flat.images))
    assert len({repr(state) for state in states}) == len(states)
    for state in reversed(states[:-1]):
        flat.undo()
        assert (flat.classes, flat.images) == state
        assert same(open_labelling(flat.path.parent), flat)
    for state in states[1:]:
        flat.redo()
        assert (flat.classes, flat.images) == state
    assert (flat.can_undo, flat.can_redo) == (True, False)


def test_a_change_that_changes_nothing_is_no_step(flat):
    flat.label([0], "a")
    flat.label([0], "a")
    flat.undo()
    assert flat.images[0].labels == ()


def test_rename_and_remove_change_the_labels_of_their_images(flat):
    flat.label([0, 1], "a")
    flat.label([1], "b", add=True)
    flat.rename_class("a", "z")
    assert [image.labels for image in flat.images[:2]] == [("z",), ("z", "b")]
    flat.remove_class("z")
    assert [image.labels for image in flat.images[:2]] == [(), ("b",)]
    assert [each.name for each in flat.classes] == ["b"]
    flat.undo()
    assert [image.labels for image in flat.images[:2]] == [("z",), ("z", "b")]


def test_when_the_last_label_goes_the_table_keeps_its_columns_and_opens(flat):
    flat.label([0], "a")
    flat.unlabel([0])
    assert lines(flat) == ["file,label,group,split"]
    assert same(open_labelling(flat.path.parent), flat)
    with pytest.raises(LabelsError, match="it has no rows"):
        read_labels(flat.path)


@pytest.mark.parametrize(
    ("name", "said"),
    [(" ", "expected some text"), ("a|b", "without the sign |"), ("a", "is there already"), (" A ", "only in case"),
     ("b, a", "would be read as the classes b and a"), ("x\x00y", "cannot name a class")],
)  # fmt: skip
def test_names_that_the_table_would_not_give_back_are_refused(flat, name, said):
    with pytest.raises(LabelsError, match=said):
        flat.add_class(name)
    assert [each.name for each in flat.classes] == ["a", "b"]


@pytest.mark.parametrize("name", ["=cmd|' /C calc'!A0".replace("|", "!"), "-b+c", "@a", "'=x"])
def test_no_cell_is_a_formula_and_names_come_back_as_they_were(flat, name):
    flat.add_class(name)
    flat.label([0], name)
    assert f"'{name}" in flat.path.read_text()
    assert [each.labels for each in read_labels(flat.path).images] == [(name,)]
    assert [each.name for each in open_labelling([flat.path]).classes] == ["a", "b", name]


@pytest.mark.parametrize("name", ["x\x1b[2J", "\u202ex", "x" * 201])
def test_a_table_with_labels_that_cannot_be_shown_is_refused(flat, name):
    flat.label([0], "a")
    flat.path.write_text(flat.path.read_text().replace(",a", f",{name}"), encoding="utf-8")
    with pytest.raises(LabelsError, match="labels or groups that cannot be names: line 2") as caught:
        read_labels(flat.path)
    assert str(caught.value).replace("\n", "").isprintable()


def test_a_class_may_change_the_case_of_its_own_name_and_unknown_ones_are_named(flat):
    flat.rename_class("a", "A")
    assert flat.classes[0].name == "A"
    for refused in (lambda: flat.label([0], "x"), lambda: flat.remove_class("x"), lambda: flat.rename_class("x", "y")):
        with pytest.raises(LabelsError, match="there is no class 'x'; expected one of A, b"):
            refused()


def colours(labelling):
    """Return class -> colour."""
    return {each.name: each.colour for each in labelling.classes}


def test_a_class_keeps_its_colour_whatever_is_added_renamed_or_removed(flat):
    before = colours(flat)
    assert before == class_colours(["a", "b"])
    flat.add_class("Aa")
    assert colours(flat) == before | {"Aa": class_colours("abc")["c"]}
    flat.recolour_class("b", "#123456")
    flat.remove_class("a")
    flat.add_class("z")
    assert colours(flat) == {"b": "#123456", "Aa": class_colours("abc")["c"], "z": before["a"]}
    assert colours(open_labelling(flat.path.parent)) == colours(flat)


def test_classes_are_moved_and_the_order_is_kept_and_undone(flat):
    flat.add_class("c")
    flat.move_class("c", 0)
    assert [each.name for each in flat.classes] == ["c", "a", "b"]
    assert colours(open_labelling(flat.path.parent)) == colours(flat)
    assert [each.name for each in open_labelling(flat.path.parent).classes] == ["c", "a", "b"]
    flat.undo()
    assert [each.name for each in flat.classes] == ["a", "b", "c"]


def test_a_table_with_rows_without_a_label_opens_for_labelling_and_not_for_training(flat):
    """What such a row holds in columns of the user is there again when it gets a label."""
    (flat.path.parent / "labels.json").unlink()
    text = "file,label,dose\n0.tif,a,1\n1.tif,,2\n2.tif,b,3\n"
    flat.path.write_text(text, encoding="utf-8")
    opened = open_labelling(flat.path)
    assert [image.labels for image in opened.images] == [("a",), (), ("b",)]
    assert opened.must_be_saved
    with pytest.raises(LabelsError, match="rows without a label: line 3"):
        read_labels(flat.path)
    opened.save()
    assert not opened.must_be_saved
    assert len(read_labels(flat.path).images) == 2
    assert (flat.path.parent / "labels.csv.bak").read_text(encoding="utf-8") == text
    open_labelling(flat.path.parent).label([1], "b")
    assert "1.tif,b,2" in flat.path.read_text(encoding="utf-8")


def test_a_split_without_an_image_to_train_on_is_left_out_and_a_warning_says_why(flat):
    flat.label([0], "a")
    flat.label([1], "b")
    flat.set_split([0, 1], "test")
    assert any("No image of a and b is in the split train" in said for said in flat.warnings())
    assert {image.split for image in flat.table().images} == {None}


def test_a_split_is_of_whole_groups_and_used_once_it_is_whole(flat):
    flat.label([0, 1], "a")
    flat.label([2, 3], "b")
    flat.set_group([0, 2], "w")
    flat.set_split([0], "validation")
    assert [flat.images[row].split for row in range(4)] == ["validation", None, "validation", None]
    assert any("split is set for 2 of 4 labelled images" in said for said in flat.warnings())
    assert read_labels(flat.path) == flat.table()
    assert {image.split for image in flat.table().images} == {None}
    assert same(open_labelling(flat.path.parent), flat)
    flat.set_split([1], "train")
    flat.set_split([3], "test")
    assert any("No image of b is in the split train" in said for said in flat.warnings())
    assert read_labels(flat.path) == flat.table()
    flat.set_split([3], "train")
    assert read_labels(flat.path) == flat.table()
    assert [image.split for image in flat.table().images] == ["validation", "train", "validation", "train"]
    flat.set_group([1], "w")
    assert flat.images[1].split == "validation"
    with pytest.raises(LabelsError, match="none of train, validation, test"):
        flat.set_split([0], "other")


def test_warnings_say_with_counts_what_is_missing(tmp_path):
    images(tmp_path, *(f"{i:02}.tif" for i in range(40)))
    labelling = open_labelling(tmp_path)
    assert labelling.warnings() == ()
    labelling.add_class("a")
    labelling.label(range(31), "a")
    assert labelling.warnings() == ("Only a has labelled images; label images of another class too.",)
    labelling.add_class("b")
    labelling.add_class("c")
    labelling.label(range(31, 36), "b")
    labelling.set_group(range(31, 36), "w")
    assert labelling.warnings() == (
        "Fewer than 5 images: c (0); label more of them.",
        "Unbalanced: a has 31 images and b 5; label more of b.",
        "All 5 images of b are of one group, 'w': how well it is recognised cannot be validated.",
    )


def test_each_plane_an_image_of_the_group_of_its_file(tmp_path):
    tifffile.imwrite(tmp_path / "movie.ome.tif", np.zeros((3, 8, 8), np.uint16), metadata={"axes": "TYX"})
    images(tmp_path, "one.tif")
    labelling = open_labelling(tmp_path, planes=True)
    assert [(image.file.name, image.plane) for image in labelling.images] == [
        ("movie.ome.tif", "T0"), ("movie.ome.tif", "T1"), ("movie.ome.tif", "T2"), ("one.tif", ""),
    ]  # fmt: skip
    labelling.add_class("a")
    labelling.label([2], "a")
    assert lines(labelling) == ["file,label,group,split,plane", "movie.ome.tif,a,movie.ome.tif,,T2"]
    assert read_labels(labelling.path) == labelling.table()
    assert same(open_labelling(tmp_path), labelling)
    assert same(open_labelling(tmp_path, planes=True), labelling)
    with labelling.table().open(labelling.images[2]) as image:
        assert [image.plane_name(i) for i in range(len(image.planes))] == ["T2"]


def test_a_table_with_problems_is_refused_and_stays_as_it_is(tmp_path):
    images(tmp_path, "1.tif")
    (tmp_path / "labels.csv").write_text("file,label\n1.tif,a\nnot-there.tif,b\n", encoding="utf-8")
    before = (tmp_path / "labels.csv").read_bytes()
    for source in (tmp_path, tmp_path / "labels.csv", [tmp_path / "1.tif"]):
        with pytest.raises(LabelsError, match=r"files that are not in .* line 3 'not-there.tif'"):
            open_labelling(source)
    assert (tmp_path / "labels.csv").read_bytes() == before


def test_a_damaged_or_foreign_labels_json_is_refused_and_stays_as_it_is(flat):
    for text in ('{"a": 1}', '{"milcnn_labelling": 1, "cla'):
        (flat.path.parent / "labels.json").write_text(text, encoding="utf-8")
        with pytest.raises(LabelsError, match="is not what labelling writes there"):
            open_labelling(flat.path.parent)


def test_what_cannot_be_opened_is_said(tmp_path):
    with pytest.raises(LabelsError, match=r"holds no image, no labels\.csv and no folder of images"):
        open_labelling(tmp_path)
    with pytest.raises(LabelsError, match="nothing was given"):
        open_labelling([])
    with pytest.raises(LabelsError, match="open it alone"):
        open_labelling([tmp_path / "a.csv", tmp_path / "b.tif"])
    with pytest.raises(LabelsError, match="does not exist"):
        open_labelling(tmp_path / "a.csv")


def test_a_change_that_cannot_be_written_stays_and_the_next_one_tries_again(flat, monkeypatch):
    def full(_path):
        raise OutputError("no space")

    flat.label([0], "a")
    with monkeypatch.context() as patch:
        patch.setattr("napari_milcnn.labels.labelling_files.replacing", full)
        with pytest.raises(OutputError, match="no space"):
            flat.label([1], "b")
    assert (flat.unsaved, flat.counts()) == (True, {"a": 1, "b": 1})
    assert len(lines(flat)) == 2
    flat.label([1], "b")  # changes nothing, but writes
    assert (flat.unsaved, len(lines(flat))) == (False, 3)


def test_a_table_changed_by_another_program_is_not_overwritten(flat):
    flat.label([0], "a")
    flat.path.write_text("file,label\n0.tif,b\n", encoding="utf-8")
    with pytest.raises(OutputError, match="changed by another program"):
        flat.label([1], "a")
    assert lines(flat) == ["file,label", "0.tif,b"]
    assert open_labelling(flat.path.parent).images[0].labels == ("b",)


def test_files_that_the_table_could_not_name_are_refused(tmp_path):
    images(tmp_path, " 1.tif", "2.tif", "3.tif")
    (tmp_path / "2.tif").write_bytes(b"")
    labelling = open_labelling(tmp_path)
    labelling.add_class("a")
    (tmp_path / "3.tif").unlink()
    for row, said in enumerate(("rename the file", "is empty", "does not exist any more")):
        with pytest.raises(LabelsError, match=said):
            labelling.label([row], "a")
    assert labelling.labelled() == ()


@pytest.mark.parametrize("change", ["label", "unlabel", "rename", "remove", "group", "split"])
def test_after_a_crash_between_the_two_files_the_table_wins_and_nothing_is_lost(flat, monkeypatch, change):
    flat.label([0, 1], "a")
    flat.label([2, 3], "b")
    notes = flat.path.with_suffix(".json")
    before = notes.read_bytes()
    {"label": lambda: flat.label([5], "b"), "unlabel": lambda: flat.unlabel([0]), "remove": lambda: flat.remove_class(
        "b"), "rename": lambda: flat.rename_class("b", "new"), "group": lambda: flat.set_group([1, 2], "w"),
     "split": lambda: flat.set_split(range(6), "train")}[change]()  # fmt: skip
    notes.write_bytes(before)
    again = open_labelling(flat.path.parent)
    assert [image.labels for image in again.images] == [image.labels for image in flat.images]
    assert again.table() == flat.table()
    assert set(flat.classes) <= set(again.classes)
    assert len(again.classes) == 2


def test_a_killed_process_loses_no_change(tmp_path):
    images(tmp_path, *(f"{i:03}.tif" for i in range(60)))
    code = """
import sys
from pathlib import Path
from napari_milcnn.labels.labelling import open_labelling
labelling = open_labelling(Path(sys.argv[1]))
labelling.add_class("a"); labelling.add_class("b")
for turn in range(1000):
    for row in range(60):
        labelling.label([row], "ab"[(row + turn) % 2])
        print(turn * 60 + row, flush=True)
"""
    process = subprocess.Popen([sys.executable, "-c", code, tmp_path], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    said = [process.stdout.readline() for _ in range(25)]
    time.sleep(0.03)
    os.kill(process.pid, signal.SIGKILL)
    said += process.stdout.read().splitlines()
    process.stdout.close()
    process.wait()
    last = int(said[-1])
    labelling = open_labelling(tmp_path)
    assert len(labelling.images) == 60
    wanted = {row % 60: "ab"[(row % 60 + row // 60) % 2] for row in range(last + 1)}
    kept = {row: image.labels[0] for row, image in enumerate(labelling.images) if image.labels}
    assert {row: kept[row] for row in wanted if row != (last + 1) % 60} == {
        row: name for row, name in wanted.items() if row != (last + 1) % 60
    }  # the change under way may be there or not
    assert [each.name for each in labelling.classes] == ["a", "b"]
    json.loads((tmp_path / "labels.json").read_text())


def test_planes_without_a_file_are_written_with_their_facts(tmp_path):
    image = open_image(
        np.arange(48, dtype=np.uint16).reshape(3, 1, 4, 4), axes="TCYX", channels=["GFP"], pixel_size=0.5
    )
    write_plane(tmp_path / "p.ome.tif", image, 2)
    with open_image(tmp_path / "p.ome.tif") as written:
        assert (written.channels, written.pixel_size, len(written.planes)) == (("GFP",), 0.5, 1)
        np.testing.assert_array_equal(written.plane(0), image.plane(2))


def test_a_plate_opens_with_its_layout_and_the_wells_without_a_label_too(tmp_path):
    import zarr

    plate = tmp_path / "plate.ome.zarr"
    root = zarr.open_group(plate, mode="w", zarr_format=2)
    wells = [("B", "02"), ("B", "03")]
    root.attrs["plate"] = {"wells": [{"path": "/".join(well)} for well in wells]}
    for well in wells:
        group = root.create_group("/".join(well))
        group.attrs["well"] = {"images": [{"path": "0"}]}
        field = group.create_group("0")
        axes = [{"name": name, "type": "space"} for name in "yx"]
        field.attrs["multiscales"] = [{"axes": axes, "datasets": [{"path": "0"}], "version": "0.4"}]
        field.create_array("0", shape=(8, 8), chunks=(8, 8), dtype="uint16")[:] = 1
    (tmp_path / "labels.csv").write_text("well,label\nB2,control\n", encoding="utf-8")
    labelling = open_labelling(plate, layout=tmp_path / "labels.csv")
    assert [(image.labels, image.group) for image in labelling.images] == [(("control",), "B02"), ((), "B03")]
    labelling.label([1], "control")
    assert labelling.path.name == "plate.ome_labels.csv"
    assert lines(labelling)[1:] == ["plate.ome.zarr/B/02/0,control,B02,", "plate.ome.zarr/B/03/0,control,B03,"]
    assert read_labels(labelling.path) == labelling.table()
    assert same(open_labelling(plate, layout=tmp_path / "labels.csv"), labelling)


def test_axes_that_the_files_do_not_say_are_kept(tmp_path):
    tifffile.imwrite(tmp_path / "plain.tif", np.zeros((3, 2, 8, 8), np.uint16))
    labelling = open_labelling(tmp_path)
    labelling.read_as("tcyx")
    again = open_labelling(tmp_path)
    assert again.reading.axes == "TCYX"
    with again.everything().open(again.images[0]) as image:
        assert (len(image.planes), len(image.channels)) == (3, 2)
    again.read_as("")
    assert open_labelling(tmp_path).reading.axes is None


def test_a_table_with_a_column_for_each_channel_keeps_them(tmp_path):
    """Images that are added get the file of each channel, too, and the channels keep the names of the columns."""
    images(tmp_path, "p_B01_s1_w1.tif", "p_B01_s1_w2.tif", "p_B02_s1_w1.tif", "p_B02_s1_w2.tif")
    text = "file GFP,file RFP,label,dose\np_B01_s1_w1.tif,p_B01_s1_w2.tif,a,5\n"
    (tmp_path / "labels.csv").write_text(text, encoding="utf-8")
    labelling = open_labelling(tmp_path)
    assert labelling.reading.channels == ("GFP", "RFP")
    assert [image.labels for image in labelling.images] == [("a",), ()]
    labelling.add_class("b")
    labelling.label([1], "b")
    assert lines(labelling) == [
        "file GFP,file RFP,label,dose", "p_B01_s1_w1.tif,p_B01_s1_w2.tif,a,5", "p_B02_s1_w1.tif,p_B02_s1_w2.tif,b,"
    ]  # fmt: skip
    assert [image.labels for image in read_labels(labelling.path).images] == [("a",), ("b",)]
