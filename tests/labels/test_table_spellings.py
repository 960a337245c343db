"""Tables whose names, labels and files are written in several ways, and what is given in place of a table."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import tifffile

from napari_milcnn import read_labels
from napari_milcnn.errors import ImageError, LabelsError
from napari_milcnn.images.open import open_image
from napari_milcnn.labels.checks import same_content
from napari_milcnn.labels.image_checks import CheckedRow
from napari_milcnn.labels.labelling import open_labelling
from napari_milcnn.labels.table import check_images

FORMS = [("NFC", "NFD"), ("NFD", "NFC")]


def written(path: Path, rows: str, *images: str, dtype: type = np.uint8) -> Path:
    """Write a table, and an 8 x 8 image of its own content under each name."""
    for i, name in enumerate(images):
        (path.parent / name).parent.mkdir(exist_ok=True, parents=True)
        tifffile.imwrite(path.parent / name, np.full((8, 8), i, dtype))
    path.write_text(rows, encoding="utf-8")
    return path


def in_form(form: str, text: str) -> str:
    return unicodedata.normalize(form, text)  # type: ignore[arg-type]


@pytest.mark.parametrize(("in_table", "on_disk"), FORMS)
def test_accents_of_a_mac_are_those_of_the_table(tmp_path: Path, in_table: str, on_disk: str) -> None:
    """Files, folders, tables, labels and groups: what looks the same is the same."""
    rows = in_form(in_table, "file,label,group\nGröße/é.tif,mutée,é\nb.tif,wild,w\n") + in_form(
        on_disk, "c.tif,mutée,é\n"
    )
    files = [in_form(on_disk, name) for name in ("Größe/é.tif", "b.tif", "c.tif")]
    path = written(tmp_path / in_form(on_disk, "übersicht.csv"), rows, *files)
    table = read_labels(path.with_name(in_form(in_table, path.name)))
    assert [image.file for image in table.images] == [tmp_path / name for name in files]
    assert table.classes == ("mutée", "wild")
    assert len({image.group for image in table.images}) == 2
    assert open_image(tmp_path / in_form(in_table, "Größe/é.tif")).shape == (8, 8)
    twice = written(tmp_path / "twice.csv", rows + in_form(on_disk, "Größe/é.tif,wild,w\n"))
    with pytest.raises(LabelsError, match="images listed again with other labels"):
        read_labels(twice)


@pytest.mark.parametrize(("in_table", "on_disk"), FORMS)
def test_accents_in_the_names_of_single_channels(tmp_path: Path, in_table: str, on_disk: str) -> None:
    """Each file of a field is found; a field that is listed twice is said."""
    files = [in_form(on_disk, f"ö/é{i}_{channel}.tif") for i in (1, 2) for channel in ("w1", "w2")]
    lines = [f"{one};{other};{label}" for one, other, label in zip(files[::2], files[1::2], ("ä", "b"), strict=True)]
    rows = in_form(in_table, "\n".join(["file GFP;file RFP;label", *lines, ""]))
    table = read_labels(written(tmp_path / "l.csv", rows, *files))
    assert [table.open(image).channels for image in table.images] == [("GFP", "RFP")] * 2
    with pytest.raises(LabelsError, match="images listed again with other labels"):
        read_labels(written(tmp_path / "l.csv", rows + in_form(on_disk, lines[0].replace("ä", "b")) + "\n"))


def test_of_two_files_that_look_alike_the_one_as_written_is_meant(tmp_path: Path) -> None:
    """Both forms may lie on a Linux disk."""
    rows = in_form("NFC", "file,label\né.tif,a\n") + in_form("NFD", "é.tif,b\n")
    table = read_labels(written(tmp_path / "t.csv", rows, in_form("NFC", "é.tif"), in_form("NFD", "é.tif")))
    assert [open_image(image.file).plane(0).max() for image in table.images] == [0, 1]


@pytest.mark.parametrize(("one", "other", "said"), [
    ("0", "0.0", "one number in several spellings"), ("1", "01", "one number in several spellings"),
    ("0,5", "0.50", "one number in several spellings"), ("1e3", "1000", "one number in several spellings"),
    ("WT", "wt", "differ only in case"), ("wild type", "wild-type", "differ only in case"),
    ("a", "a\u200b", "differ only in case"),
])  # fmt: skip
def test_labels_that_look_alike_are_said(tmp_path: Path, one: str, other: str, said: str) -> None:
    """In a table, and as folders of classes."""
    path = written(tmp_path / "t" / "l.csv", f"file;label\na.tif;{one}\nb.tif;{other}\n", "a.tif", "b.tif")
    with pytest.raises(LabelsError, match=f"{said}.*\\(1\\) and .* line [23]"):
        read_labels(path)
    for label in (one, other):
        written(tmp_path / "f" / "l.csv", "", f"{label}/{label}.tif")
    with pytest.raises(LabelsError, match=f"{said}.*\\(1\\) and .* '.*tif'"):
        read_labels(tmp_path / "f")


@pytest.mark.parametrize(("one", "other"), [("1", "-1"), ("0", "0.1"), ("1", "10"), ("+", "-"), ("1", "1a")])
def test_labels_that_differ_are_classes(tmp_path: Path, one: str, other: str) -> None:
    """A sign is no dash between words."""
    path = written(tmp_path / "l.csv", f"file,label\na.tif,{one}\nb.tif,{other}\n", "a.tif", "b.tif")
    assert set(read_labels(path).classes) == {one, other}


def test_a_column_twice_is_refused(tmp_path: Path) -> None:
    """Which of the two holds the labels is not known."""
    with pytest.raises(LabelsError, match='has 2 columns "label"; give each column its own name'):
        read_labels(written(tmp_path / "l.csv", "file,label,Label\na.tif,x,y\n", "a.tif"))


@pytest.mark.parametrize("first", ["sep=;", "SEP=;", '"sep=;"', "sep=;;", "sep="])
def test_the_line_of_excel_that_names_the_separator(tmp_path: Path, first: str) -> None:
    """It is no row of names; the labelling keeps it."""
    path = written(tmp_path / "labels.csv", f"{first}\nfile;label\na.tif;0,5\nb.tif;x\n", "a.tif", "b.tif")
    table = read_labels(path)
    assert table.classes == ("0,5", "x")
    assert [image.line for image in table.images] == [3, 4]
    labelling = open_labelling(path)
    labelling.label([1], "0,5")
    labelling.save()
    assert path.read_text("utf-8").startswith("sep=;\nfile;label\n")
    assert read_labels(path).classes == ("0,5",)


def test_pipes_and_devices_are_refused_at_once(tmp_path: Path) -> None:
    """As a table, as an image, and as an image in a table; nothing waits for their end."""
    pipe = tmp_path / "pipe.tif"
    os.mkfifo(pipe)
    for path in (pipe, Path("/dev/zero")):
        with pytest.raises(LabelsError, match=r"cannot be read \(it is a pipe or a device, expected a file\)"):
            read_labels(path)
        with pytest.raises(ImageError, match="cannot be opened: it is a pipe or a device, expected a file"):
            open_image(path)
    with pytest.raises(LabelsError, match=r"pipes or devices in place of images: line 2 'pipe.tif'"):
        read_labels(written(tmp_path / "l.csv", "file,label\npipe.tif,x\n"))


def test_names_that_no_disk_can_hold_are_said(tmp_path: Path) -> None:
    """A name of 300 characters and a circle of links: one sentence, no error of the system."""
    (tmp_path / "circle.tif").symlink_to(tmp_path / "circle.tif")
    rows = f"file,label\n{'é' * 300}.tif,x\ncircle.tif,y\na.tif,{'b' * 300}\n"
    with pytest.raises(LabelsError, match=r"files that are not in .*line 2 .*line 3 'circle.tif'"):
        read_labels(written(tmp_path / "l.csv", rows))


def test_a_file_without_permission_is_not_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether two files are copies is asked only of those that can be read."""
    written(tmp_path / "l.csv", "", "a.tif", "b.tif")
    rows = [CheckedRow(None, tmp_path / name, ("x",), "", name) for name in ("a.tif", "b.tif")]
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert list(same_content(rows)) == []


def test_classes_of_different_bit_depth_are_mentioned(tmp_path: Path) -> None:
    """Where the type tells the classes apart, and where single images differ."""
    names = [f"{i}.tif" for i in range(6)]
    rows = "".join(f"{name},{'drug' if i < 3 else 'control'}\n" for i, name in enumerate(names))
    path = written(tmp_path / "l.csv", f"file,label\n{rows}", *names[:3])
    written(path, f"file,label\n{rows}", *names[3:], dtype=np.uint16)
    found = [text for text in check_images(read_labels(path)) if "type" in text]
    assert len(found) == 1
    assert "so a model may learn it" in found[0]
    assert found[0].endswith("control is uint16, 3 images; drug is uint8, 3 images")
    tifffile.imwrite(tmp_path / "0.tif", np.full((8, 8), 9, np.uint16))
    found = [text for text in check_images(read_labels(path)) if "pixels" in text]
    assert found == ["images whose pixels are not uint16 (2): line 3 '1.tif' has uint8; line 4 '2.tif' has uint8"]


@pytest.mark.parametrize(("what", "first", "other", "said"), [
    ("the pixel size", {"resolution": (2, 2)}, {"resolution": (4, 4)}, "control is 0.25 µm, 3 images; drug is 0.5 µm"),
    ("the size of the images", {"shape": (9, 8)}, {"shape": (12, 8)}, "control is 12 x 8 px, 3 images; drug is 9 x 8"),
])  # fmt: skip
def test_classes_that_the_microscope_tells_apart_are_mentioned(tmp_path, what, first, other, said):
    """As with 8 and 16 bit; not if one image of a class differs from the others of its class."""
    for i in range(6):
        how = {"shape": (8, 8), "resolution": (2, 2)} | (first if i < 3 else other)
        pixels = np.random.default_rng(i).integers(0, 99, how["shape"]).astype(np.uint8)
        tifffile.imwrite(
            tmp_path / f"{i}.tif", pixels, imagej=True, resolution=how["resolution"], metadata={"unit": "um"}
        )
    rows = [f"{i}.tif,{'drug' if i < 3 else 'control'}" for i in range(6)]
    (tmp_path / "l.csv").write_text("\n".join(["file,label", *rows]))
    (found,) = [text for text in check_images(read_labels(tmp_path / "l.csv")) if "apart" in text]
    assert found.startswith(f"{what} tells the classes apart")
    assert said in found
    (tmp_path / "l.csv").write_text("\n".join(["file,label", *rows[:-1], rows[-1].replace("control", "drug")]))
    assert not any("apart" in text for text in check_images(read_labels(tmp_path / "l.csv")))
