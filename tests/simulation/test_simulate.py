"""Simulated fields: the same for the same seed, true to their truth, and each localisation where it should be."""

from __future__ import annotations

import errno
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
from pydantic import ValidationError
from scipy.ndimage import distance_transform_edt

from napari_milcnn.errors import OptionsError, OutputError
from napari_milcnn.simulation.cell import CHANNELS, PIXEL_SIZE
from napari_milcnn.simulation.localisations import LOCALISATIONS
from napari_milcnn.simulation.microscope import SimulatedField, simulate_field
from napari_milcnn.simulation.options import PLATES_ALIKE, SimulationOptions, square_field
from napari_milcnn.simulation.screen import simulate_screen
from napari_milcnn.simulation.timelapse import simulate_timelapse

SMALL = SimulationOptions(size=(224, 256), cells=(10, 14))
ALL_SHOW = SMALL.model_copy(update={"penetrance": (1.0, 1.0), "strain_spread": 0.0, "brightness": 250.0})
TINY = SimulationOptions(size=(96, 96), cells=(2, 3))
ALIKE = TINY.model_copy(update=PLATES_ALIKE)


def pixels_of_cells(field: SimulatedField) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """GFP and RFP over the background, and depth below the cell's edge (0 to 1), of every cell that is mostly seen."""
    gfp, rfp = (channel - np.median(channel[field.cells == 0]) for channel in field.image.astype(float))
    found = []
    for label in field.cell_classes:
        inside = field.cells == label
        depth = distance_transform_edt(inside)[inside]
        if inside.sum() > 400:
            found.append((gfp[inside], rfp[inside], depth / depth.max()))
    return found


@pytest.fixture(scope="module")
def measured() -> dict[str, pd.Series]:
    """Medians over the cells of a field in which all cells show the localisation, for every localisation."""
    table = {}
    for name in LOCALISATIONS:
        rows = []
        for gfp, rfp, depth in pixels_of_cells(simulate_field([name], ALL_SHOW, 5)):
            light = gfp.clip(0)
            rows.append(
                {
                    "depth": np.average(depth, weights=light**2),
                    "peak": np.percentile(light, 99.5) / light.mean(),
                    "area": (light > 0.5 * np.percentile(light, 99)).mean(),
                    "rfp": np.corrcoef(gfp, rfp)[0, 1],
                }
            )
        table[name] = pd.DataFrame(rows).median()
    return table


def test_same_seed_same_arrays() -> None:
    """The seed and the options decide every pixel."""
    one, two, other = (simulate_field(["ER"], SMALL, seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(one.image, two.image)
    np.testing.assert_array_equal(one.cells, two.cells)
    assert one.cell_classes == two.cell_classes
    assert not np.array_equal(one.image, other.image)


@pytest.mark.parametrize("name", LOCALISATIONS)
def test_shapes_and_range(name: str) -> None:
    """Axes, types, counts within the range of the camera, and a class for each cell."""
    field = simulate_field([name], SMALL, 1)
    assert field.image.shape == (2, 224, 256)
    assert field.image.dtype == field.cells.dtype == np.uint16
    assert field.cells.shape == (224, 256)
    assert field.labels == (name,)
    assert SMALL.offset - 40 < field.image.min()
    assert 300 < field.image.max() < 65535
    labels = np.unique(field.cells[field.cells > 0])
    assert list(labels) == list(field.cell_classes)
    assert 10 <= len(labels) <= 14
    assert set(field.cell_classes.values()) <= {(), (name,)}


def test_cells_are_of_yeast_size_and_stand_in_rfp() -> None:
    """Cells measure what yeast measures, and RFP shows each."""
    field = simulate_field(["nucleus"], SMALL, 2)
    area = np.bincount(field.cells.ravel())[1:] * PIXEL_SIZE**2
    assert 12 < np.median(area) < 30  # µm²: 4 to 6 µm across, with a bud
    rfp = field.image[1]
    assert np.median(rfp[field.cells > 0]) > 2 * np.median(rfp[field.cells == 0])


def test_membrane_lies_outside_and_nucleus_inside(measured: dict[str, pd.Series]) -> None:
    """Light lies at the depth below the edge where the organelle is."""
    assert measured["cell periphery"]["depth"] < measured["ER"]["depth"] < measured["nucleus"]["depth"]
    assert measured["cell periphery"]["depth"] < measured["cytoplasm"]["depth"]
    assert measured["mitochondria"]["depth"] < measured["vacuole"]["depth"]


def test_spots_and_nuclei_are_peaked_and_cytoplasm_is_not(measured: dict[str, pd.Series]) -> None:
    """The smaller the organelle, the sharper its light."""
    assert measured["punctate"]["peak"] > 2 * measured["cytoplasm"]["peak"]
    assert measured["nucleus"]["peak"] > 1.5 * measured["cytoplasm"]["peak"]
    assert measured["nucleolus"]["area"] < 0.7 * measured["nucleus"]["area"] < 0.3 * measured["cytoplasm"]["area"]
    assert measured["mitochondria"]["peak"] > measured["ER"]["peak"]


def test_rfp_is_in_the_cytosol_and_not_in_the_vacuole(measured: dict[str, pd.Series]) -> None:
    """RFP follows a cytoplasmic protein and avoids a vacuolar one."""
    assert measured["cytoplasm"]["rfp"] > 0.6
    assert measured["vacuole"]["rfp"] < 0


def test_truth_tells_cells_that_show_from_those_that_do_not() -> None:
    """Cells that the truth says show the nucleus have one."""
    options = SMALL.model_copy(update={"penetrance": (0.5, 0.5), "brightness": 250.0})
    field = simulate_field(["nucleus"], options, 8)
    peak = {
        label: np.percentile(gfp := field.image[0][field.cells == label] - 150.0, 98) / np.median(gfp)
        for label in field.cell_classes
    }
    shown = [peak[label] for label, classes in field.cell_classes.items() if classes]
    hidden = [peak[label] for label, classes in field.cell_classes.items() if not classes]
    assert np.median(shown) > 2 * np.median(hidden)


@pytest.mark.parametrize(("share", "seed"), [(0.0, 0), (0.25, 1), (0.5, 2), (1.0, 3)])
def test_penetrance_is_respected(share: float, seed: int) -> None:
    """The share of showing cells is the one asked for, rounded up."""
    field = simulate_field(["punctate"], SMALL.model_copy(update={"penetrance": (share, share)}), seed)
    shown = sum(bool(classes) for classes in field.cell_classes.values())
    assert shown == np.ceil(share * len(field.cell_classes))


def test_two_localisations_are_both_in_the_field() -> None:
    """A cell of a two-label field shows both, one or none."""
    field = simulate_field(["nucleus", "cell periphery"], SMALL, 6)
    shown = set(field.cell_classes.values())
    assert ("nucleus", "cell periphery") in shown
    assert shown <= {(), ("nucleus",), ("cell periphery",), ("nucleus", "cell periphery")}


@pytest.mark.parametrize(
    ("labels", "words"),
    [(["golgi"], "'golgi'; expected one of nucleus, nucleolus"), ([], "at least one"), (["ER", "ER"], "each once")],
)
def test_wrong_labels_are_refused(labels: list[str], words: str) -> None:
    """A wrong label is named beside those allowed."""
    with pytest.raises(OptionsError, match=words):
        simulate_field(labels, SMALL)


def test_cells_that_cannot_fit_are_refused() -> None:
    """Too many cells are refused, whether obvious at once or found by trying."""
    for cells in ((60, 60), (400, 500)):
        with pytest.raises(OptionsError, match=rf"no room for {cells[0]} cells .* 128 x 128 .* ask for fewer"):
            simulate_field(["ER"], SimulationOptions(size=(128, 128), cells=cells))


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"size": (63, 512)}, "expected a side of 64 to 16384 px"),
        ({"penetrance": (0.9, 0.4)}, r"write \(0.4, 0.9\)"),
        ({"penetrance": (0.4, 1.4)}, "less than or equal to 1"),
        ({"cells": (9, 3)}, "expected the smaller first"),
        ({"colour": 1}, "Extra inputs"),
    ],
)
def test_wrong_options_are_refused(wrong: dict[str, object], words: str) -> None:
    """Options out of range or order are refused where they are made."""
    with pytest.raises(ValidationError, match=words):
        SimulationOptions.model_validate(wrong)


def test_wrong_options_of_a_square_field_are_one_sentence() -> None:
    """What was found, and what was expected."""
    with pytest.raises(OptionsError) as error:
        square_field(20000, multi_label=2)
    assert str(error.value) == (
        "option 'size' is (20000, 20000): expected a side of 64 to 16384 px; "
        "option 'multi_label' is 2: Input should be less than or equal to 1"
    )


@pytest.mark.parametrize(
    ("side", "cells"), [(64, (1, 1)), (512, (45, 75)), (1024, (180, 300)), (16384, (46080, 65535))]
)
def test_a_square_field_has_cells_for_its_area(side: int, cells: tuple[int, int]) -> None:
    """45 to 75 in 512 x 512 px; labels of 16 bits allow no more than 65535."""
    options = square_field(side, budding=0.1)
    assert (options.size, options.cells, options.budding) == ((side, side), cells, 0.1)


def test_every_option_is_described() -> None:
    """The form and the command line have a text for each option."""
    assert all(info.description for info in SimulationOptions.model_fields.values())


def test_timelapse_relocates_in_place() -> None:
    """The protein moves while the cells stay and their buds grow."""
    options = ALL_SHOW.model_copy(update={"size": (160, 160), "cells": (4, 6)})
    image, cells, table = simulate_timelapse("cytoplasm", "nucleus", 5, options, 2)
    assert image.shape == (5, 2, 160, 160)
    assert cells.shape == (5, 160, 160)
    assert image.dtype == cells.dtype == np.uint16
    count = int(cells[0].max())
    assert len(table) == 5 * count
    first, last = table[table["frame"] == 0], table[table["frame"] == 4]
    assert set(first["classes"]) == {"cytoplasm"}
    assert set(last["classes"]) == {"nucleus"}
    assert (last["moved"].to_numpy() > first["moved"].to_numpy()).all()
    for label in range(1, count + 1):
        start, end = cells[0] == label, cells[-1] == label
        assert end.sum() >= start.sum()  # buds grow
        assert (start & end).sum() > 0.9 * start.sum()  # and the cell stays
    spread = [np.percentile(image[t, 0][cells[t] > 0], 99) / np.median(image[t, 0][cells[t] > 0]) for t in (0, 4)]
    assert spread[1] > 1.5 * spread[0]


def test_timelapse_without_penetrance_stays() -> None:
    """A cell that does not respond keeps its protein where it was."""
    options = TINY.model_copy(update={"penetrance": (0.0, 0.0)})
    table = simulate_timelapse("nucleus", "ER", 2, options)[2]
    assert set(table["classes"]) == {"nucleus"}


def test_timelapse_refuses_what_it_cannot_do() -> None:
    """A time-lapse needs two frames and two localisations."""
    with pytest.raises(OptionsError, match="at least 2"):
        simulate_timelapse("nucleus", "ER", 1, TINY)
    with pytest.raises(OptionsError, match="each once"):
        simulate_timelapse("nucleus", "nucleus", 3, TINY)


def listed(out: Path) -> pd.DataFrame:
    """Return labels.csv, after a check that it and the folder list the same complete fields."""
    table = pd.read_csv(out / "labels.csv")
    assert list(table.columns) == ["file", "label", "group", "split", "plate"]
    assert set(pd.read_csv(out / "truth" / "plates.csv")["plate"]) == set(table["plate"])
    assert sorted(table["file"]) == sorted(f"images/{path.name}" for path in (out / "images").iterdir())
    cells = pd.read_csv(out / "truth" / "cells.csv", keep_default_na=False)
    assert list(cells.columns) == ["file", "label", "classes"]
    assert set(cells["file"]) == set(table["file"])
    for file, rows in cells.groupby("file"):
        truth = tifffile.imread(out / "truth" / Path(str(file)).name.replace(".ome.tif", ".tif"))
        assert list(np.unique(truth[truth > 0])) == list(rows["label"])
    assert not list(out.rglob("*.part"))
    return table


def test_screen_writes_images_truth_and_tables(tmp_path: Path) -> None:
    """Every field stands in both tables, and a strain on one side of the split."""
    options = TINY.model_copy(update={"multi_label": 0.5})
    names = ["nucleus", "ER", "punctate"]
    written = list(simulate_screen(tmp_path, localisations=names, fields_per_class=6, seed=1, options=options))
    table = listed(tmp_path)
    assert [f"images/{path.name}" for path in written] == list(table["file"])
    assert len(table) == 18
    assert (table.groupby("group").size() == 2).all()
    assert (table.groupby("group")[["split", "label"]].nunique() == 1).all().all()
    assert table.groupby("split").size().to_dict() == {"train": 12, "validation": 6}
    assert table["label"].str.contains("|", regex=False).any()
    assert set("|".join(table["label"]).split("|")) == set(names)


def test_screen_image_is_ome_tiff(tmp_path: Path) -> None:
    """Axes, pixel size and channel names are read back by another library."""
    path = next(simulate_screen(tmp_path, fields_per_class=1, options=ALIKE))
    with tifffile.TiffFile(path) as file:
        assert file.is_ome
        assert file.series[0].axes == "CYX"
        assert file.series[0].shape == (2, 96, 96)
        assert file.series[0].dtype == np.uint16
        facts = tifffile.xml2dict(file.ome_metadata or "")["OME"]["Image"]["Pixels"]
    assert [channel["Name"] for channel in facts["Channel"]] == list(CHANNELS)
    assert facts["PhysicalSizeX"] == facts["PhysicalSizeY"] == PIXEL_SIZE
    assert facts["PhysicalSizeXUnit"] == "µm"


def test_screen_is_the_same_for_the_same_seed(tmp_path: Path) -> None:
    """A field is the same in a smaller and in a larger screen of one seed."""
    for name, count in (("one", 2), ("two", 4)):  # a field does not depend on how many there are
        list(simulate_screen(tmp_path / name, localisations=["ER"], fields_per_class=count, seed=7, options=TINY))
    for file in pd.read_csv(tmp_path / "one" / "labels.csv")["file"]:
        np.testing.assert_array_equal(
            tifffile.imread(tmp_path / "one" / file), tifffile.imread(tmp_path / "two" / file)
        )


def test_screen_closed_early_lists_what_is_complete(tmp_path: Path) -> None:
    """A screen that is cancelled leaves a folder that agrees with its tables."""
    screen = simulate_screen(tmp_path, fields_per_class=2, options=TINY)
    for _ in range(3):
        next(screen)
    assert not (tmp_path / "labels.csv").exists()
    screen.close()
    assert len(listed(tmp_path)) == 3


def test_screen_that_fails_midway_lists_what_is_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk leaves neither half a file nor a row for it."""
    screen = simulate_screen(tmp_path, fields_per_class=2, options=TINY)
    next(screen)

    def full(*_args: object, **_options: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tifffile.TiffWriter, "write", full)
    with pytest.raises(OutputError, match=r"No space left on device; free some space"):
        next(screen)
    assert len(listed(tmp_path)) == 1


def test_screen_does_not_mix_with_another(tmp_path: Path) -> None:
    """A folder that holds a screen is left alone."""
    list(simulate_screen(tmp_path, localisations=["ER"], fields_per_class=1, options=TINY))
    with pytest.raises(OutputError, match=r"already holds a screen \(labels.csv\)"):
        simulate_screen(tmp_path, options=TINY)


def test_screen_without_a_field_has_no_tables(tmp_path: Path) -> None:
    """A screen that fails at its first field leaves no empty table in the way of the next try."""
    crowded = ALIKE.model_copy(update={"cells": (500, 500)})
    with pytest.raises(OptionsError, match="no room for 500 cells"):
        next(simulate_screen(tmp_path, options=crowded))
    assert not list(tmp_path.rglob("*.csv"))
    assert next(simulate_screen(tmp_path, options=TINY)).exists()


def test_cells_at_the_border_are_cut_off() -> None:
    """Cells and their buds may reach out of the field on every side."""
    options = SimulationOptions(size=(64, 64), cells=(1, 2), budding=1.0, clumping=0.0)
    for seed in range(60):
        field = simulate_field(["punctate"], options, seed)
        assert set(np.unique(field.cells)) - {0} == set(field.cell_classes)


def test_screen_refuses_a_file_in_the_way(tmp_path: Path) -> None:
    """A file where the folder should be is reported, not overwritten."""
    (tmp_path / "out").write_text("a file")
    with pytest.raises(OutputError, match="out is a file; expected a folder"):
        next(simulate_screen(tmp_path / "out", options=TINY))


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"fields_per_class": 0}, "fields_per_class is 0"),
        ({"fields_per_strain": 0}, "fields_per_strain is 0"),
        ({"fields_per_class": 1.5}, "fields_per_class is 1.5; expected a whole number of at least 1"),
        ({"validation": 1.0}, "validation is 1.0"),
        ({"seed": -1}, "seed is -1"),
        ({"localisations": ["bud neck"]}, "'bud neck'"),
    ],
)
def test_screen_refuses_wrong_options(wrong: dict[str, object], words: str, tmp_path: Path) -> None:
    """Wrong options are refused before anything is written."""
    with pytest.raises(OptionsError, match=words):
        simulate_screen(tmp_path, options=TINY, **wrong)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())
