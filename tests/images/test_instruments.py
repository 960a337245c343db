"""Names of wells; one file per channel: which files are one image, what it is called, and when one is missing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile

from napari_milcnn.errors import ImageError, OptionsError
from napari_milcnn.images.instruments import Well, join_fields, parse_well, plate_shape, well_name, wells_in
from napari_milcnn.images.open import open_image
from napari_milcnn.images.paths import files_of, find_images, image_name, images_in, joined_path

GUIDS = ("1A2B3C4D-0000-1111-2222-333344445555", "9F8E7D6C-0000-1111-2222-333344445555")


@pytest.mark.parametrize(
    ("names", "called", "channels"),
    [
        (["plate_B03_s1_w1.tif", "plate_B03_s1_w2.tif"], "plate_B03_s1", ("w1", "w2")),
        ([f"W1_150607_B02_s1_w{i + 1}{guid}.tif" for i, guid in enumerate(GUIDS)], "W1_150607_B02_s1", ("w1", "w2")),
        (["t_w1DAPI_s1_t1.TIF", "t_w2GFP_s1_t1.TIF"], "t_s1_t1", ("DAPI", "GFP")),
        (["r01c02f01p01-ch1sk1fk1fl1.tiff", "r01c02f01p01-ch2sk1fk1fl1.tiff"], "r01c02f01p01sk1fk1fl1", ("ch1", "ch2")),
        (["MFGTMP_A03f00d0.TIF", "MFGTMP_A03f00d1.TIF"], "MFGTMP_A03f00", ("d0", "d1")),
        (["P_B03_T0001F001L01A01Z01C01.tif", "P_B03_T0001F001L01A02Z01C02.tif"], "P_B03_T0001F001L01Z01",
         ("C01", "C02")),
        (["A - 01(fld 01 wv DAPI - DAPI).tif", "A - 01(fld 01 wv FITC - FITC).tif"], "A - 01(fld 01)",
         ("DAPI", "FITC")),
        (["A1--W00001--P00001--Z00000--T00000--C00.tif", "A1--W00001--P00001--Z00000--T00000--C01.tif"],
         "A1--W00001--P00001--Z00000--T00000", ("C00", "C01")),
        (["img_channel000_position000_time000000000_z000.tif", "img_channel001_position000_time000000000_z000.tif"],
         "img_position000_time000000000_z000", ("channel000", "channel001")),
        (["img_000000000_DAPI_000.tif", "img_000000000_GFP_000.tif"], "img_000000000_000", ("DAPI", "GFP")),
        (["a_ch00.tif", "a_ch01.tif"], "a", ("ch00", "ch01")),
        ([f"p_B03_s1_w{i}.tif" for i in (9, 10)], "p_B03_s1", ("w9", "w10")),
        (["x_Green_B2_1_2020y01m01d_00h00m.tif", "x_Phase_B2_1_2020y01m01d_00h00m.tif"],
         "x_B2_1_2020y01m01d_00h00m", ("Green", "Phase")),
        (["Image_XY01_CH1.tif", "Image_XY01_CH2.tif"], "Image_XY01", ("CH1", "CH2")),
        (["e_b0s1c0x0-100y0-100.tif", "e_b0s1c1x0-100y0-100.tif"], "e_b0s1x0-100y0-100", ("c0", "c1")),
        ([f"P1_C16_w{i + 1}_[{guid}].tif" for i, guid in enumerate(GUIDS)], "P1_C16", ("w1", "w2")),
        ([f"P_1_C01_w{i + 1}_{guid}.tif" for i, guid in enumerate(GUIDS)], "P_1_C01", ("w1", "w2")),
        (["Channel 1-01-A-01-00.tif", "Channel 2-01-A-01-00.tif"], "Channel-01-A-01-00", ("1", "2")),
        (["--W00001--P00001--Z00000--T00000--DAPI.tif", "--W00001--P00001--Z00000--T00000--GFP.tif"],
         "W00001--P00001--Z00000--T00000", ("DAPI", "GFP")),
    ],
)  # fmt: skip
def test_the_files_of_a_field_are_one_image(tmp_path, names, called, channels):
    """As instruments name them; numbers are shown but are no names."""
    for i, name in enumerate(names):
        tifffile.imwrite(tmp_path / name, np.full((4, 5), i, np.uint8))
    said: list[str] = []
    (path,) = find_images([tmp_path], on_note=said.append)
    assert [file.name for file in files_of(path)] == names
    assert image_name(path) == called
    assert "are one image of 2 channels" in said[0]
    with open_image(path) as image:
        assert (image.axes, image.channels, image.path) == ("CYX", channels, path)
        assert image.channels_named == (channels[0][-1] not in "0123456789")
        np.testing.assert_array_equal(image.plane(0, (1, 0))[:, 0, 0], [1, 0])
    assert find_images([tmp_path], "off") == [tmp_path / name for name in sorted(names)]


@pytest.mark.parametrize(
    "names",
    [
        ("mouse_w1.tif", "mouse_w2.tif"),
        ("VID12_B2_1_00d00h00m.tif", "VID13_B2_1_00d00h00m.tif"),
        ("abc1.tif", "abc2.tif"),
        ("plate_C01.tif", "plate_C02.tif"),
        ("B03.tif", "B04.tif"),
        ("plate_B03_s1_w1.tif", "plate_B03_s2_w1.tif"),
        ("a_t1.tif", "a_t2.tif"),
        ("a-1.tif", "a-2.tif"),
    ],
)
def test_other_files_stay_images_of_their_own(names):
    paths = [Path("x") / name for name in names]
    assert join_fields(paths) == ([(path,) for path in paths], [])


def test_planes_and_sites_of_an_instrument_stay_apart():
    names = [f"P_B03_T0001F00{f}L01A0{c}Z0{z}C0{c}.tif" for f in (1, 2) for z in (1, 2) for c in (1, 2)]
    fields, _ = join_fields([Path(name) for name in names])
    assert [len(field) for field in fields] == [2] * 4
    assert len({image_name(joined_path(field)) for field in fields}) == 4


def test_a_missing_channel_is_said_for_its_field_alone(tmp_path):
    for name in ("p_B03_s1_w1.tif", "p_B03_s1_w2.tif", "p_B03_s2_w2.tif"):
        tifffile.imwrite(tmp_path / name, np.zeros((4, 5), np.uint8))
    whole, broken = images_in(tmp_path)
    assert open_image(whole).channels == ("w1", "w2")
    with pytest.raises(ImageError, match=r"p_B03_s2_w1\.tif is missing; expected one file for each of 2 channels"):
        open_image(broken)


def test_a_pattern_of_the_user(tmp_path):
    for folder in ("gfp", "rfp"):
        (tmp_path / folder).mkdir()
        for name in ("B02 1.tif", "B02 2.tif"):
            tifffile.imwrite(tmp_path / folder / name, np.zeros((4, 5), np.uint8))
    paths = sorted(tmp_path.glob("*/*.tif"))
    fields, said = join_fields(paths, "{channel}/{well} {site}.tif")
    assert [[file.parent.name for file in field] for field in fields] == [["gfp", "rfp"]] * 2
    assert image_name(joined_path(fields[0])) == "B02 1"
    assert open_image(joined_path(fields[1])).channels == ("gfp", "rfp")
    _, said = join_fields([Path("B02_DAPI.tif"), Path("B02_GFP.tif"), Path("notes.tif")], "{well}_{channel}")
    assert "left out (1), such as notes.tif" in said[-1]
    for wrong in ("{well}.tif", "{channel}_{channel}.tif"):
        with pytest.raises(OptionsError, match=r"with \{channel\} once"):
            join_fields(paths, wrong)
    for wrong in ("{well_{channel}.tif", "{well}}_{channel}.tif", "*a" * 40 + "{channel}.tif"):
        with pytest.raises(OptionsError, match="expected at most 10 names in braces or stars, and no other braces"):
            join_fields(paths, wrong)
    with pytest.raises(OptionsError, match="no file has a name of the form"):
        join_fields([Path("a" * 200)], "*" * 40 + "{channel}z")
    with pytest.raises(OptionsError, match="no file has a name of the form"):
        join_fields(paths, "{well}_w{channel}.tif")
    with pytest.raises(ImageError, match="hold the same channel of one field"):
        join_fields([Path(f"p_B02_s1_w1{guid}.tif") for guid in GUIDS])


def test_files_are_opened_as_one_image_in_python(tmp_path):
    files = [tmp_path / "one.tif", tmp_path / "two.tif"]
    for i, file in enumerate(files):
        tifffile.imwrite(
            file, np.full((2, 4, 5), i, np.uint8 if i else np.uint16), metadata={"axes": "TYX"}, imagej=True
        )
    image = open_image(files, channels=["GFP", "RFP"])
    assert (image.axes, image.shape, image.channels, image.dtype) == ("TCYX", (2, 2, 4, 5), ("GFP", "RFP"), np.uint16)
    assert image.path == tmp_path / "{one,two}.tif"
    np.testing.assert_array_equal(image.plane(1)[:, 0, 0], [0, 1])
    image.close()
    with pytest.raises(ImageError, match="closed"):
        image.plane(0)
    assert open_image(image.path).channels == ("one", "two")


@pytest.mark.parametrize(
    ("pixels", "said"),
    [
        (np.zeros((4, 6), np.uint8), "the files of the channels differ"),
        (np.zeros((4, 5, 3), np.uint8), "is a colour picture; expected one channel in each file"),
    ],
)
def test_files_that_are_no_channels_of_one_image_are_refused(tmp_path, pixels, said):
    tifffile.imwrite(tmp_path / "a_ch00.tif", np.zeros((4, 5), np.uint8))
    tifffile.imwrite(tmp_path / "a_ch01.tif", pixels, photometric="rgb" if pixels.ndim == 3 else "minisblack")
    with pytest.raises(ImageError, match=said):
        open_image(images_in(tmp_path)[0])


def test_names_in_the_files_count_first(tmp_path):
    for i, name in enumerate(("DAPI", "GFP")):
        tifffile.imwrite(
            tmp_path / f"a_ch0{i}.ome.tif", np.zeros((4, 5)), metadata={"axes": "YX", "Channel": {"Name": name}}
        )
    image = open_image(images_in(tmp_path)[0])
    assert (image.channels, image.channels_named) == (("DAPI", "GFP"), True)


def test_thumbnails_and_label_images_are_left_out_of_a_folder_and_said(tmp_path):
    names = ["p_B03_s1_w1.tif", "p_B03_s1_w1_thumb.tif", f"p_B03_s1_w1_thumb{GUIDS[0]}.tif", "a.tif",
             "a_cp_masks.png", "A_MASKS.TIF", "a_Object Identities.tif", "a_Simple Segmentation.tif",
             "b_labels.tif", "MFG.mdb", "Index.idx.xml",
             "DC_DCAM#1_CAM3.tif", "SC_BP525-50_20x v2_M01_CH02.tif", "q_C04_T0001F001L01A01Z01C01.tif"]  # fmt: skip
    for name in names:
        (tmp_path / name).touch()
    said: list[str] = []
    found = find_images([tmp_path], on_note=said.append)
    assert {path.name for path in found} == {"a.tif", "b_labels.tif", "p_B03_s1_w1.tif", names[-1]}
    assert said[0].startswith(f"thumbnails in {tmp_path} are left out (2)")
    assert "label images in" in said[1]
    assert said[2].startswith(f"pictures of dark current and shading in {tmp_path} are left out (2)")
    (tmp_path / names[-1]).unlink()  # without a file of CellVoyager such names are a user's own
    assert {"DC_DCAM#1_CAM3.tif", "SC_BP525-50_20x v2_M01_CH02.tif"} <= {one.name for one in find_images([tmp_path])}


@pytest.mark.parametrize(("text", "well"), [
    ("B03", (1, 2)),
    ("B3", (1, 2)),
    ("b-03", (1, 2)),
    ("b3", (1, 2)),
    (" B03 ", (1, 2)),
    ("r02c03", (1, 2)),
    ("R2C3", (1, 2)),
    ("B/3", (1, 2)),
    ("B/03", (1, 2)),
    ("P24", (15, 23)),
    ("AA01", (26, 0)),
    ("AF48", (31, 47)),
    ("AA/1", (26, 0)),
    ("T01", (19, 0)),
    ("B00", None),
    ("B99", None),
    ("r33c01", None),
    ("AG01", None),
    ("xB03", None),
    ("B", None),
    ("", None),
])  # fmt: skip
def test_a_text_and_a_name_of_a_file_give_the_same_well(text: str, well: tuple[int, int] | None) -> None:
    """Both read the same ways of writing, and refuse what no plate has."""
    expected = well and Well(*well)
    assert parse_well(text) == expected
    assert wells_in([text]) == [expected]
    if expected is not None:
        assert well_name(text) == expected.name == well_name(expected.name)


@pytest.mark.parametrize(("text", "well"), [("B 03", (1, 2)), ("b_3", (1, 2)), ("t1", (19, 0)), ("aa1", (26, 0))])
def test_a_cell_of_a_table_may_be_written_more_freely_than_a_name(text: str, well: tuple[int, int]) -> None:
    """Who types a well into a column means a well; t1.tif is a time, and "b_3" may be the third of b."""
    assert parse_well(text) == Well(*well)
    assert wells_in([text]) == [None]


@pytest.mark.parametrize(("texts", "wells"), [
    (["plate1_B03_s1", "plate1_H12_s1"], [(1, 2), (7, 11)]),
    (["r02c03f01p01", "R10C24f02"], [(1, 2), (9, 23)]),
    (["p.zarr/B/3", "p.zarr/C/11"], [(1, 2), (2, 10)]),
    (["B3.tif", "C4.tif"], [(1, 2), (2, 3)]),
    (["b03", "c04"], [(1, 2), (2, 3)]),
    (["B03", "C04", "scan D05"], [(1, 2), (2, 3), (3, 4)]),
    (["AF48_x", "Z02_x"], [(31, 47), (25, 1)]),
    (["nucleus-01_1", "image"], [None, None]),
    (["t01", "t02", "z01"], [None, None, None]),
    (["B99.tif", "C00.tif"], [None, None]),
    ([], []),
])  # fmt: skip
def test_wells_in_names(texts: list[str], wells: list[tuple[int, int] | None]) -> None:
    """The first way of writing that most names follow; none where they are named by something else."""
    assert wells_in(texts) == [well and Well(*well) for well in wells]


def test_a_name_may_go_on_after_its_well() -> None:
    """In the name of a file text follows a well; a cell of a table with such a text names no well."""
    assert parse_well("B03x") is None
    assert wells_in(["B03x"]) == [Well(1, 2)]


def test_what_is_no_well_keeps_its_name() -> None:
    """Rows and columns of other plates stay as they are written."""
    assert [well_name(text) for text in ("control", "BA/117", "")] == ["control", "BA/117", ""]


def test_plates() -> None:
    """The smallest plate that has the wells."""
    assert Well(31, 0).name == "AF01"
    assert plate_shape([Well(3, 5)]) == (4, 6)
    assert plate_shape([Well(3, 6)]) == (8, 12)
    assert plate_shape([Well(14, 1)]) == (16, 24)
    assert plate_shape([Well(16, 1)]) == (32, 48)
