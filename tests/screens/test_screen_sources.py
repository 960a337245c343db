"""The fields of a screen: from folders, tables, plates and files of many series, and what layouts add to them."""

from __future__ import annotations

import json
import os
import shutil

import numpy as np
import pandas as pd
import pytest
import tifffile
from screen_plates import (
    CHANNELS,
    LAYOUT,
    SITES,
    WELLS,
    plate_pixels,
    write_image_table,
    write_layout,
    write_named,
    write_series,
    write_zarr_plate,
)

from napari_milcnn.errors import ImageError, LabelsError, OptionsError
from napari_milcnn.images.open import ImageReading
from napari_milcnn.images.paths import files_of
from napari_milcnn.schema import is_count, is_pooled
from napari_milcnn.screens.parts import part_folder
from napari_milcnn.screens.sources.fields import file_name
from napari_milcnn.screens.sources.open import open_screen

PIXELS = plate_pixels(8)
FORMS = {
    "ImageXpress": "TimePoint_1/run_{well}_s{site}_w{channel}.tif",
    "Operetta": "Images/r{row:02}c{column:02}f{site:02}p01-ch{channel}sk1fk1fl1.tiff",
    "CellVoyager": "AssayPlate_Greiner_{well}_T0001F{site:03}L01A0{channel}Z01C0{channel}.tif",
    "IN Cell": "{letter} - {column}(fld {site} wv {channel}).tif",
    "ScanR": "{well}--W0000{row}--P0000{site}--Z00000--T00000--C0{channel}.tif",
    "Cellomics": "MFGTMP_{well}f0{site}d{channel}.TIF",
    "folder of each well": "{well}/img_s{site}_w{channel}GFP.tif",
}


def places(screen) -> list[tuple[str, str, int]]:
    return [
        (plate, well, int(site)) for plate, well, site in screen.fields[["plate", "well", "site"]].itertuples(False)
    ]


def everywhere(plate: str) -> list[tuple[str, str, int]]:
    return [(plate, well, site) for well in WELLS for site in range(1, SITES + 1)]


@pytest.mark.parametrize("instrument", FORMS)
def test_files_named_by_instruments_have_plate_well_site_and_their_channels_together(tmp_path, instrument):
    for plate in ("p1", "p2"):
        write_named(tmp_path / "screen" / plate, PIXELS, FORMS[instrument])
    found = open_screen(tmp_path / "screen")
    assert places(found) == everywhere("p1") + everywhere("p2")
    assert all(len(files_of(tmp_path.__class__(file))) == 2 for file in found.fields["file"])
    assert found.fields["name"].is_unique
    assert found.missing.empty
    assert "of 2 channels" in "".join(found.notes)
    one = open_screen(tmp_path / "screen" / "p2")
    assert places(one) == everywhere("p2")


@pytest.mark.parametrize(
    ("well", "end", "site"),
    [("F01", "_s2", "2"), ("F01", "_F03", "03"), ("F01", "", ""), ("S12", "_s2", "2"), ("B03", "-field 4", "4")],
)
def test_a_well_of_row_f_is_no_field_and_one_of_row_s_no_site(tmp_path, well, end, site):
    for name in (well, "G05"):
        tifffile.imwrite(tmp_path / f"{name}{end}.tif", np.zeros((4, 4), np.uint8))
    found = open_screen(tmp_path).fields.set_index("well")["site"]
    assert dict(found) == {well: site, "G05": site}


def test_a_projection_beside_its_planes_is_said(tmp_path):
    """ImageXpress writes it beside the folders of the planes; the scores of its well would be of both."""
    for folder in (".", "ZStep_1", "ZStep_2"):
        (tmp_path / folder).mkdir(exist_ok=True)
        for well in ("B01", "B02") if folder != "." else ("B01",):
            tifffile.imwrite(tmp_path / folder / f"run_{well}_s1_w1.tif", np.zeros((4, 4), np.uint8))
    found = open_screen(tmp_path)
    assert len(found.fields) == 5
    assert any(note.startswith("1 site has planes of a Z stack and an image without") for note in found.notes)


@pytest.mark.parametrize("name", [r"C:\data\a.tif", r"\\server\data\a.tif", "D:/a.tif", "C:a.tif"])
def test_a_table_with_files_of_a_windows_computer_says_so(tmp_path, name):
    (tmp_path / "t.csv").write_text(f"file,well\n{name},B01\n", encoding="utf-8")
    with pytest.raises(LabelsError, match=r"row 1 names .*, a file of another computer; expected names relative to"):
        open_screen(tmp_path / "t.csv")


def test_a_guid_that_an_instrument_appends_tells_neither_well_nor_site(tmp_path):
    """It is made of letters and numbers, "F7" and "B12" among them; without channels, the site stands before it."""
    ids = [f"{end}-A10F-B12C-F7F7-0123456789AB" for end in ("1E94C24B", "DCFD1526", "17654C10", "F7012345")]
    names = [f"E07_s1{ids[0]}", f"E07_s2{ids[1]}", f"E08_s1{ids[2]}", f"E08_s2_[{ids[3]}]"]
    for name in names:
        tifffile.imwrite(tmp_path / f"run_{name}.tif", np.zeros((4, 4), np.uint8))
    found = open_screen(tmp_path).fields
    assert list(zip(found["well"], found["site"], strict=True)) == [
        ("E07", "1"), ("E07", "2"), ("E08", "1"), ("E08", "2")
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "name"),
    [("B03", "B03"), ("a/b:c?", "a_b_c_"), ("CON", "CON_"), ("nul.2", "nul.2_"), ("com", "com"), ("LPT1", "LPT1_"),
     (" end. ", "end"), (f"{'n' * 99}. x", "n" * 99), ("..", "_")],
)  # fmt: skip
def test_names_of_parts_are_allowed_under_windows_too(text, name):
    assert file_name(text) == name


def test_fields_of_plates_with_long_names_have_names_that_differ_and_say_the_well(tmp_path):
    for plate in ("A" * 120 + "1", "A" * 120 + "2"):
        write_named(tmp_path / "screen" / plate, PIXELS, FORMS["CellVoyager"])
    names = open_screen(tmp_path / "screen").fields["name"]
    assert len({name.lower() for name in names}) == len(names) == 2 * SITES * len(WELLS)
    assert all(len(name) < 110 and WELLS[i // SITES % len(WELLS)] in name for i, name in enumerate(names))


def test_a_pattern_names_plate_well_and_site_with_channels_or_without(tmp_path):
    write_named(tmp_path, PIXELS, "A/{well}-{site}-c{channel}.tif")
    found = open_screen(tmp_path, reading=ImageReading(pattern="{plate}/{well}-{site}-c{channel}.tif"))
    assert places(found) == everywhere("A")
    single = open_screen(tmp_path, reading=ImageReading(pattern="{plate}/{well}-{site}-c1.tif"))
    assert places(single) == everywhere("A")
    assert "left out (8)" in "".join(single.notes)
    with pytest.raises(OptionsError, match=r"no file has a name of the form .* the first is A/A01-1-c1.tif"):
        open_screen(tmp_path, reading=ImageReading(pattern="{plate}_{well}.tif"))


def test_a_pattern_that_fits_by_chance_is_said(tmp_path):
    folder = write_named(tmp_path / "p", PIXELS, "plate-1_{well}_s{site}_w{channel}.tif")
    found = open_screen(folder, reading=ImageReading(pattern="{plate}/{well}-{site}.tif"))
    assert any("no well is named such as B03" in note and "well 'plate'" in note for note in found.notes)


def test_names_without_a_well_are_said_with_an_example(tmp_path):
    for name in ("drug1.tif", "drug2.tif"):
        tifffile.imwrite(tmp_path / name, np.zeros((4, 4), np.uint8))
    with pytest.raises(ImageError, match=r"the 2 images in .* no well .* such as drug1\.tif; .*\{plate\}/\{well\}_"):
        open_screen(tmp_path)


def test_a_link_to_a_folder_around_it_is_not_followed(tmp_path):
    folder = write_named(tmp_path / "screen" / "p", PIXELS, FORMS["ImageXpress"])
    (folder / "again").symlink_to(folder)
    (folder / "all").symlink_to(tmp_path / "screen")
    assert places(open_screen(tmp_path / "screen")) == everywhere("p")


def write_table_of_places(path, *found):
    rows = [f"plate/x_{number}.tif,{plate},{well},{site}\n" for number, (plate, well, site) in enumerate(found)]
    path.write_text("file,plate,well,site\n" + "".join(rows))
    return path


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ([("P1", "A01", "1"), ("p1", "A02", "1")], "the plates 'P1' and 'p1' differ in capital letters only"),
        ([("P1", "dmso", "1"), ("P1", "DMSO", "2")], "the wells 'dmso' and 'DMSO' differ in capital letters only"),
        ([("a", "A01", "1" * 5000)], "cannot be the name of a site: it has 5000 letters"),
        (
            [("caf\u00e9", "A01", "1"), ("cafe\u0301", "A01", "1")],
            r"x_0\.tif and .*x_1\.tif are both plate café well A01",
        ),
    ],
)
def test_names_of_places_that_cannot_be_told_apart_or_shown_are_refused(tmp_path, found, said):
    with pytest.raises(ImageError, match=said):
        open_screen(write_table_of_places(tmp_path / "t.csv", *found))


def test_places_may_have_long_names_of_other_scripts_and_odd_numbers(tmp_path):
    plates = [f"{'漢' * 90}{end}" for end in "ab"]
    places = [*((plate, "A01", "²") for plate in plates), ("x\x1b[2J", "A\u202e1", "")]
    found = open_screen(write_table_of_places(tmp_path / "t.csv", *places))
    assert found.fields["plate"].tolist() == [r"x\x1b[2J", *plates]
    assert found.fields["well"][0] == r"A\u202e1"
    folders = {part_folder(tmp_path, plate, "A01") for plate in plates}
    assert len(folders) == 2
    assert max(len(name.encode()) for folder in folders for name in (*folder.parts, *found.fields["name"])) < 150


def test_files_whose_names_are_no_text_are_refused(tmp_path):
    write_named(tmp_path / os.fsdecode(b"pl\xffate"), PIXELS, FORMS["ImageXpress"])
    with pytest.raises(ImageError, match=r"pl_ffate.* holds bytes that are no characters of UTF-8; rename it"):
        open_screen(tmp_path)


def test_two_images_of_one_place_are_refused(tmp_path):
    write_named(tmp_path, PIXELS, "x_{well}_s{site}_copy{channel}.tif")
    with pytest.raises(ImageError, match=r"A01_s1_copy1\.tif and .*A01_s1_copy2\.tif are both .* well A01 site 1"):
        open_screen(tmp_path)


def test_images_of_a_well_without_a_site_are_numbered_and_it_is_said(tmp_path):
    for name in ("B03 a.tif", "B03 b.tif", "B04 a.tif"):
        tifffile.imwrite(tmp_path / name, np.zeros((4, 4), np.uint8))
    found = open_screen(tmp_path)
    assert list(found.fields["site"]) == ["1", "2", ""]
    assert found.notes[-1].startswith(
        "the names say no site, such as B03 a.tif, so the images of each well are numbered"
    )
    (tmp_path / "B03 a.tif").unlink()
    assert not any("numbered" in note for note in open_screen(tmp_path).notes)


def test_folders_of_times_and_planes_are_times_and_planes(tmp_path):
    pixels = {("A01", 1): PIXELS["A01", 1]}
    for time in (1, 2):
        for step in (1, 2):
            write_named(
                tmp_path / "p" / f"TimePoint_{time}" / f"ZStep_{step}", pixels, "run_{well}_s{site}_w{channel}.tif"
            )
    found = open_screen(tmp_path / "p").fields
    assert found[["plate", "well", "site"]].drop_duplicates().to_numpy().tolist() == [["p", "A01", "1"]]
    assert found[["t", "z"]].to_numpy().tolist() == [["1", "1"], ["1", "2"], ["2", "1"], ["2", "2"]]


@pytest.mark.parametrize("version", ["0.4", "0.5", "0.6"])
def test_plates_of_ome_zarr(tmp_path, version):
    plate = write_zarr_plate(tmp_path / "many" / "p1.ome.zarr", PIXELS, version)
    write_zarr_plate(tmp_path / "many" / "p2.ome.zarr", PIXELS, version)
    assert places(open_screen(plate)) == everywhere("p1")
    assert places(open_screen(tmp_path / "many")) == everywhere("p1") + everywhere("p2")
    (plate / "A" / "01" / ("zarr.json" if version != "0.4" else ".zattrs")).write_text("{")
    found = open_screen(plate)
    assert places(found) == everywhere("p1")[SITES:]
    assert found.missing[["plate", "well"]].to_numpy().tolist() == [["p1", "A01"]]


@pytest.mark.parametrize(
    ("inside", "change", "said"),
    [
        ("", {"plate": {"wells": None}}, "has no list of wells that is understood"),
        ("", {"plate": {"wells": ["A/01"]}}, "has no list of wells that is understood"),
        ("", {"plate": {"wells": [{"path": "A/01"}, {"path": "../../secret"}]}}, "secret', which is not inside it"),
        ("", {"plate": {"wells": [{"path": "/etc"}]}}, "names '/etc', which is not inside it"),
        ("", {"plate": {"wells": [{"path": "A/01"}] * 2}}, "names 'A/01' twice"),
        ("", {"plate": {"wells": [{"path": "A/01"}] * 10_001}}, "lists 10001 wells; expected at most 10000"),
        ("A/01", {"well": {"images": [{"path": "../02/1"}]}}, "names '../02/1', which is not inside it"),
        ("A/01", {"well": {"images": [{"path": None}]}}, "has no list of images that is understood"),
    ],
)
def test_lists_of_a_plate_that_are_not_understood(tmp_path, inside, change, said):
    plate = write_zarr_plate(tmp_path / "p.zarr", {key: PIXELS[key] for key in [("A01", 1), ("A02", 1)]}, "0.5")
    document = json.loads((plate / inside / "zarr.json").read_text())
    document["attributes"]["ome"] |= change
    (plate / inside / "zarr.json").write_text(json.dumps(document))
    if inside:
        assert said in open_screen(plate).missing["reason"].iloc[0]
    else:
        with pytest.raises(ImageError, match=said):
            open_screen(plate)


def test_a_well_that_is_not_there_is_missing_and_a_zipped_plate_is_to_be_unpacked(tmp_path):
    plate = write_zarr_plate(tmp_path / "p.zarr", PIXELS, "0.5")
    shutil.rmtree(plate / "A" / "01")
    assert places(open_screen(plate)) == everywhere("p")[SITES:]
    shutil.make_archive(str(plate), "zip", plate)
    with pytest.raises(ImageError, match=r"p\.zarr\.zip is an OME-Zarr plate in one zip file; unpack it"):
        open_screen(tmp_path / "p.zarr.zip")


def with_plate(path, *wells):
    """Describe a plate in an OME-TIFF: row and column of the well of each image."""
    listed = "".join(
        f'<Well ID="Well:{n}" Row="{row}" Column="{column}"><WellSample ID="WellSample:{n}" Index="0">'
        f'<ImageRef ID="Image:{n}"/></WellSample></Well>' for n, (row, column) in enumerate(wells)
    )  # fmt: skip
    document = tifffile.tiffcomment(write_series(path, PIXELS))
    tifffile.tiffcomment(path, document.replace("</OME>", f'<Plate ID="Plate:0">{listed}</Plate></OME>').encode())
    return path


def test_series_that_belong_to_no_well_are_said(tmp_path):
    found = open_screen(with_plate(tmp_path / "p.ome.tif", (0, 2), (31, 47)))
    assert places(found) == [("p", "A03", 0), ("p", "AF48", 0)]
    assert "6 of the 8 images in" in found.notes[0]


@pytest.mark.parametrize("place", [("abc", 0), ("", 0), (-1, 0), (32, 0), (10**9, 0), (0, 48), ("1" * 5000, 0)])
def test_a_well_that_no_plate_has_is_refused(tmp_path, place):
    with pytest.raises(ImageError, match=r"its metadata has a well in row .* which no plate has"):
        open_screen(with_plate(tmp_path / "p.ome.tif", place))


def test_series_of_an_ome_tiff_are_fields(tmp_path):
    found = open_screen(write_series(tmp_path / "p1.ome.tif", PIXELS))
    assert places(found) == everywhere("p1")
    assert list(found.fields["series"]) == [str(i) for i in range(len(PIXELS))]
    write_series(tmp_path / "p2.ome.tif", PIXELS)
    assert places(open_screen(tmp_path)) == everywhere("p1") + everywhere("p2")


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_table_of_images_as_cellprofiler_writes_it(tmp_path, kind):
    folder = write_named(tmp_path / "week1" / "p", PIXELS, "{well}_s{site}_w{channel}.tif")
    table = write_image_table(tmp_path / "images.csv", folder, "{well}_s{site}_w{channel}.tif")
    if kind == "parquet":
        pd.read_csv(table).to_parquet(tmp_path / "images.parquet")
    found = open_screen(tmp_path / f"images.{kind}")
    assert places(found) == everywhere("plate")
    assert found.reading.channels == CHANNELS
    assert set(found.fields["replicate" if "replicate" in found.fields else "Replicate"]) == {"1"}
    assert all(file.is_file() for name in found.fields["file"] for file in files_of(tmp_path.__class__(name)))


BBBC021_IMAGES = """\
"TableNumber","ImageNumber","Image_FileName_DAPI","Image_PathName_DAPI","Image_FileName_Tubulin",\
"Image_PathName_Tubulin","Image_FileName_Actin","Image_PathName_Actin","Image_Metadata_Plate_DAPI",\
"Image_Metadata_Well_DAPI","Replicate","Image_Metadata_Compound","Image_Metadata_Concentration"
"""


def bbbc021_tables(folder):
    """Write rows in the format of the published tables BBBC021_v1_image.csv, _moa.csv and _compound.csv."""
    wells = [("Week1_22123", "B02", "DMSO", "0"), ("Week1_22123", "B03", "taxol", "0.3"),
             ("Week1_22141", "B03", "taxol", "0.3"), ("Week4_27481", "G10", "5-fluorouracil", "0.003"),
             ("Week4_27481", "G11", "taxol", "1.0")]  # fmt: skip
    rows = []
    for number, (plate, well, compound, dose) in enumerate(wells):
        for site in (1, 2):
            files = [f"{well}_s{site}_w{channel}{number:04X}-{site}{channel}.tif" for channel in (1, 2, 4)]
            path = f"{plate.split('_')[0]}/{plate}"
            cells = [cell for file in files for cell in (file, path)]
            rows.append([str(4), str(2 * number + site), *cells, plate, well, "1", compound, dose])
    (folder / "BBBC021_v1_image.csv").write_text(BBBC021_IMAGES + "\n".join(",".join(row) for row in rows) + "\n")
    (folder / "BBBC021_v1_moa.csv").write_text(
        "compound,concentration,moa\nDMSO,0.0,DMSO\ntaxol,0.3,Microtubule stabilizers\n"
        "taxol,1.0,Microtubule stabilizers\ntaxol,1.0,Microtubule stabilizers\nALLN,3.0,Protein degradation\n"
    )
    (folder / "BBBC021_v1_compound.csv").write_text("compound,smiles\n5-fluorouracil,C1=C(C(=O)NC(=O)N1)F\ntaxol,CC1\n")
    return folder / "BBBC021_v1_image.csv"


def test_the_published_tables_of_bbbc021_open_and_their_mechanisms_are_joined(tmp_path):
    """The images say what was in each well; the mechanisms are of compounds and concentrations, and name no wells."""
    images = bbbc021_tables(tmp_path)
    found = open_screen(images, layout=tmp_path / "BBBC021_v1_moa.csv")
    assert found.summary == "10 fields in 5 wells on 3 plates, of 3 treatments"
    assert found.reading.channels == ("DAPI", "Tubulin", "Actin")
    wells = found.fields.drop_duplicates(["plate", "well"])
    assert list(wells["moa"]) == ["DMSO", "Microtubule stabilizers", "Microtubule stabilizers", "",
                                  "Microtubule stabilizers"]  # fmt: skip
    assert list(wells["dose"]) == [0, 0.3, 0.3, 0.003, 1]
    assert set(found.fields["site"]) == {"1", "2"}
    assert "Week1/Week1_22123/B02_s1_{w10000-11,w20000-12,w40000-14}.tif" in found.fields["file"].iloc[0]
    assert found.missing.empty
    (sentence,) = found.notes
    assert sentence == ("BBBC021_v1_moa.csv names 1 treatment (ALLN 3) without an image; 1 treatment (5-fluorouracil "
                        "0.003) of the images has no row in BBBC021_v1_moa.csv")  # fmt: skip
    structures = open_screen(images, layout=tmp_path / "BBBC021_v1_compound.csv")
    assert structures.fields.groupby("treatment")["smiles"].first().to_dict()["taxol"] == "CC1"


@pytest.mark.parametrize("written", ["csv", "parquet"])
def test_doses_of_a_table_of_treatments_may_have_fewer_or_more_digits(tmp_path, written):
    """Another program writes .3 of the images as 0.30000001, and a Parquet may hold it in single precision."""
    images, table = bbbc021_tables(tmp_path), tmp_path / f"moa.{written}"
    known = pd.DataFrame({"compound": ["taxol"] * 3, "concentration": [0.30000001, 1.0, 1.0000001],
                          "moa": ["a", "b", "b"]})  # fmt: skip
    if written == "csv":
        known.to_csv(table, index=False)
    else:
        known.astype({"concentration": np.float32}).to_parquet(table)
    found = open_screen(images, layout=table)
    wells = found.fields.drop_duplicates(["plate", "well"])
    assert list(wells["moa"]) == ["", "a", "a", "", "b"]
    assert list(wells["dose"]) == [0, 0.3, 0.3, 0.003, 1]


def test_tables_of_treatments_that_cannot_be_joined_are_refused(tmp_path):
    images, table = bbbc021_tables(tmp_path), tmp_path / "moa.csv"
    spelled = "names no treatment of the screen: .*perhaps 'Taxol-' in the layout is 'taxol' of the images"
    twice = "says two different things of taxol 1"
    for text, said in (("compound,concentration,moa\ntaxol,1,a\ntaxol,1.0,b\n", twice),
                       ("compound,moa\nTaxol-,a\n", spelled)):  # fmt: skip
        table.write_text(text)
        with pytest.raises(LabelsError, match=said):
            open_screen(images, layout=table)
    folder = write_named(tmp_path / "p", PIXELS, FORMS["ImageXpress"])
    with pytest.raises(LabelsError, match=r"expected well .* or a treatment or strain that the table of images has"):
        open_screen(folder, layout=tmp_path / "BBBC021_v1_moa.csv")


def test_a_table_without_wells_or_files_is_refused(tmp_path):
    (tmp_path / "a.csv").write_text("file,plate\na.tif,1\n")
    with pytest.raises(LabelsError, match="file, plate; expected well"):
        open_screen(tmp_path / "a.csv")
    (tmp_path / "b.csv").write_text("well,plate\nA01,1\n")
    with pytest.raises(LabelsError, match="expected file, or a file for each channel"):
        open_screen(tmp_path / "b.csv")


def test_a_table_of_images_may_have_doses(tmp_path):
    """They are numbers once the table was read, and stay so."""
    folder = write_named(tmp_path / "p", PIXELS, FORMS["ImageXpress"])
    files = sorted(folder.rglob("*_w1*.tif")) or sorted(folder.rglob("*.tif"))[:2]
    rows = "".join(f"{file},p,A0{number},0.{number}\n" for number, file in enumerate(files[:2], 1))
    (tmp_path / "images.csv").write_text(f"file,plate,well,Concentration\n{rows}")
    assert open_screen(tmp_path / "images.csv").fields["dose"].tolist() == [0.1, 0.2]


def test_columns_of_a_layout_are_not_taken_for_results(tmp_path):
    """Neither their names nor the word none, which says that a well is no control."""
    folder = write_named(tmp_path / "p", PIXELS, FORMS["ImageXpress"])
    (tmp_path / "layout.csv").write_text("well,control,cells seeded,P value,fields\nA01,none,20 k,x,2\n")
    found = open_screen(folder, layout=tmp_path / "layout.csv").fields
    added = {"control", "layout cells seeded", "layout P value", "layout fields"}
    assert added <= set(found)
    assert set(found["control"]) == {""}
    assert not {name for name in found if is_count(name) or is_pooled(name)}


def test_a_layout_is_joined_by_well_and_says_which_wells_have_no_image(tmp_path):
    folder = write_named(tmp_path / "p", PIXELS, FORMS["ImageXpress"])
    layout = write_layout(tmp_path / "layout.csv")
    with layout.open("a") as file:
        file.write("h12,drug,4,positive\n")
    found = open_screen(folder, layout=layout)
    of_well = found.fields.drop_duplicates("well").set_index("well")
    assert of_well["control"].to_dict() == {well: facts[2] for well, facts in LAYOUT.items()}
    assert of_well["treatment"].to_dict() == {well: facts[0] for well, facts in LAYOUT.items()}
    assert of_well["dose"].dropna().to_dict() == {"A02": 0.5, "B01": 2.0}
    assert found.missing[["plate", "well"]].to_numpy().tolist() == [["p", "H12"]]
    assert "layout.csv names 1 well (H12) without an image" in found.notes


@pytest.mark.parametrize(("spelled", "hint"), [
    ("Plate1", True), ("P01", True), ("plate 1", True), ("week/plate-1", True), ("plate_2x", False), ("other", False),
])  # fmt: skip
def test_plates_that_only_the_layout_or_only_the_images_have_are_said_with_the_likely_cause(tmp_path, spelled, hint):
    """In a note where others fit, in the error where none does; and in the table of what is missing."""
    for plate in ("plate_1", "plate_3"):
        write_named(tmp_path / "s" / plate, PIXELS, FORMS["ImageXpress"])
    layout = tmp_path / "layout.csv"
    layout.write_text(f"plate,well,label\n{spelled},A01,x\n{spelled},A02,x\nplate_3,A1,x\nplate_3,A2,x\n")
    found = open_screen(tmp_path / "s", layout=layout)
    sentence = next(note for note in found.notes if "1 plate (" in note)
    assert f"layout.csv names 1 plate ({spelled}) without an image" in sentence
    assert "1 plate (plate_1) of the images has no row in layout.csv" in sentence
    assert (f"perhaps {spelled!r} in the layout is 'plate_1' of the images: give both one spelling" in sentence) is hint
    assert any("2 wells (plate_3 B01, plate_3 B02) of the images have no row" in note for note in found.notes)
    assert set(found.missing["plate"]) == {spelled}
    assert found.missing["reason"].str.contains("none of the images is of a plate of this name").all()
    layout.write_text(f"plate,well,label\n{spelled},A01,x\n")
    with pytest.raises(LabelsError, match="names no plate and well of the screen") as caught:
        open_screen(tmp_path / "s", layout=layout)
    assert ("perhaps" in str(caught.value)) is hint


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name,label\nA01,x", "columns name, label; expected well"),
        ("position,drug\nA01,x", "columns position, drug; expected well"),
        ("well,compound,drug\nA01,x,y", "several columns that mean 'treatment': compound, drug; keep one"),
        ("well,Well\nA01,A01", "several columns that mean 'well': well, Well"),
        ('well,dose\nA01,"1,000"', "'1,000' in the column dose may be thousands"),
        ("well,label\nA01,x\nA1,y", "lists A01 twice"),
        ("well,label\nWell 7,y", "'Well 7' in the column well is not a well"),
        ("well,control\nA01,maybe", "'maybe' in the column control"),
        ("well,dose\nA01,much", "'much' in the column dose is not a number"),
        ("well,dose,label\nA01,1e400,x", "'1e400' in the column dose is not a number"),
        ("well,dose\n", "has no row with a well"),
        ("plate,well,label\nother,A01,x", "names no plate and well of the screen: the first row is other A01"),
    ],
)
def test_layouts_that_are_not_understood(tmp_path, text, said):
    folder = write_named(tmp_path / "p", PIXELS, FORMS["ImageXpress"])
    (tmp_path / "layout.csv").write_text(text)
    with pytest.raises(LabelsError, match=said):
        open_screen(folder, layout=tmp_path / "layout.csv")


def test_accents_and_what_cannot_be_seen_do_not_part_a_layout_from_its_images(tmp_path):
    folder = write_named(tmp_path / "cafe\u0301" / "p", PIXELS, FORMS["ImageXpress"])
    text = "plate,well,treatment\ncaf\u00e9/p,A01,DMSO\u200b\ncafe\u0301/p ,A02,e\u0301\n"
    (tmp_path / "layout.csv").write_text(text, encoding="utf-8")
    found = open_screen(folder.parent.parent, layout=tmp_path / "layout.csv").fields
    assert set(found["plate"]) == {"caf\u00e9/p"}
    assert found["treatment"].unique().tolist() == ["DMSO\\u200b", "\u00e9", ""]


@pytest.mark.parametrize("damage", [lambda whole: whole[: len(whole) // 2], lambda _: b"", lambda _: b"PAR1" * 9])
def test_a_damaged_parquet_table_is_refused(tmp_path, damage):
    table = tmp_path / "layout.parquet"
    pd.DataFrame({"well": ["A01"], "dose": [1.0]}).to_parquet(table)
    folder = write_named(tmp_path / "p", PIXELS, FORMS["ImageXpress"])
    assert open_screen(folder, layout=table).fields["dose"].max() == 1
    table.write_bytes(damage(table.read_bytes()))
    with pytest.raises(LabelsError, match=r"layout.parquet is damaged, or is not Parquet"):
        open_screen(folder, layout=table)


def test_missing_fields_are_named(tmp_path):
    folder = write_named(tmp_path / "p", PIXELS, "{well}_s{site}_w{channel}.tif")
    for channel in (1, 2):
        (folder / f"B01_s2_w{channel}.tif").unlink()
    found = open_screen(folder)
    assert found.missing[["plate", "well", "site"]].to_numpy().tolist() == [["p", "B01", "2"]]
