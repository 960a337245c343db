"""Background and spread of a plane: the same for few and many cells, and for every way to record them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile

from conftest import write_plate
from napari_milcnn.errors import ImageError, LabelsError, OptionsError
from napari_milcnn.images import intensity
from napari_milcnn.images.intensity import IntensitySample, IntensityScale, Plates, intensity_scale, sample_plane
from napari_milcnn.images.open import open_image


def field(cells: int, *, noise: float = 3.0, background: float = 20.0, brightness: float = 60.0) -> np.ndarray:
    """Draw discs of 24 px across on a field of 320 x 320 px with read noise, uint8 (Y, X)."""
    rng = np.random.default_rng(cells)
    image = np.full((320, 320), background)
    y, x = np.mgrid[:320, :320]
    for place in rng.permutation(100)[:cells]:
        away = np.hypot(y - 16 - 32 * (place // 10), x - 16 - 32 * (place % 10))
        image += brightness * np.clip(12.5 - away, 0, 1)
    return np.clip(image + rng.normal(0, noise, image.shape), 0, 255).round().astype(np.uint8)


def scale_of(pixels: np.ndarray) -> IntensityScale:
    """Measure the one channel of (Y, X)."""
    return intensity_scale([sample_plane(open_image(pixels[None], axes="CYX"), 0, (0,))])


def scaled(pixels: np.ndarray) -> np.ndarray:
    """Scale (Y, X) by its own background and spread."""
    return scale_of(pixels).apply(pixels[None])[0]


@pytest.mark.parametrize("cells", [1, 5, 80, 99])
@pytest.mark.parametrize("noise", [1.0, 5.0])
def test_one_cell_and_a_full_field_have_the_same_scale(cells: int, noise: float) -> None:
    """Background 20 and cells 60 above it are found within 3 grey levels from 1 to 99 cells on places for 100."""
    found = scale_of(field(cells, noise=noise))
    assert found.background[0] == pytest.approx(20, abs=3)
    assert found.spread[0] == pytest.approx(60, abs=3)


def test_another_lamp_camera_and_format_change_nothing() -> None:
    """Gain, offset, 16 bit and float of the same pixels give the same normalised image."""
    pixels = field(20)
    expected = scaled(pixels)
    assert (expected.mean(), expected.max()) == (pytest.approx(0.09, abs=0.01), pytest.approx(1.2, abs=0.1))
    others = [0.5 * pixels, 2.0 * pixels, pixels + 20.0, pixels.astype(np.uint16) * 257, pixels / np.float32(255)]
    for other in others:
        np.testing.assert_allclose(scaled(other), expected, atol=1e-4)


def test_a_blank_plane_stays_blank() -> None:
    """One value throughout gives zeros, a single other pixel no more than a fifth of full contrast."""
    blank = np.full((70, 80), 7, np.uint8)
    assert scale_of(blank) == IntensityScale((7.0,), (0.0,))
    assert (scaled(blank) == 0).all()
    blank[3, 4] = 255
    assert scaled(blank).max() <= 0.4


def test_noise_is_not_blown_up() -> None:
    """Noise alone, fine or of single grey levels, is scaled to a fifth of the contrast of cells."""
    rng = np.random.default_rng(0)
    assert scaled(rng.normal(1000, 50, (200, 200))).std() == pytest.approx(0.2, abs=0.01)
    assert scaled(100 + (rng.random((200, 200)) < 0.02).astype(np.uint8)).max() <= 0.4


def test_a_hot_pixel_and_a_speck_change_next_to_nothing() -> None:
    """One pixel of the highest value, and a speck of 10 x 10 px ten times as bright as the cells."""
    pixels = field(10).astype(np.uint16)
    expected = scaled(pixels)
    for size in (1, 10):
        spoilt = pixels.copy()
        spoilt[310 : 310 + size, 310 : 310 + size] = 65_535 if size == 1 else 620
        rest = spoilt == pixels
        np.testing.assert_allclose(scaled(spoilt)[rest], expected[rest], atol=0.02)


def test_dark_cells_on_a_bright_background() -> None:
    """Brightfield: the background is the bright one, and cells are as far below it as fluorescent ones above."""
    found = scale_of(200 - field(20))
    assert (found.background[0], found.spread[0]) == (pytest.approx(180, abs=3), pytest.approx(60, abs=3))


def test_channels_are_measured_apart_and_planes_together() -> None:
    """Two channels keep their own scale; the samples of two planes count as one."""
    one, two = (IntensitySample(np.array(v, float), np.array(s, float)) for v, s in (
        ([[0] * 50 + [1] + [10] * 20, [5] * 71], [[0] * 71] * 2),
        ([[0] * 50 + [30] * 40, [5] * 90], [[0] * 90] * 2),
    ))  # fmt: skip
    assert intensity_scale([one]) == IntensityScale((0.0, 5.0), (10.0, 0.0))
    assert intensity_scale([one, two]) == IntensityScale((0.0, 5.0), (30.0, 0.0))


def test_a_large_plane_is_read_strip_by_strip(monkeypatch: pytest.MonkeyPatch) -> None:
    """Strips and a coarser grid give the numbers of the whole plane, and cover all of it."""
    pixels = field(30)
    image = open_image(pixels[None], axes="CYX")
    whole = sample_plane(image, 0, (0,))
    assert whole.values.shape == (1, 320 * 320)
    monkeypatch.setattr(intensity, "_STRIP_PIXELS", 320 * 7)
    np.testing.assert_array_equal(sample_plane(image, 0, (0,)).values, whole.values)
    thinned = sample_plane(image, 0, (0,), 320 * 320 // 9)
    np.testing.assert_array_equal(thinned.values[0], pixels[::3, ::3].ravel())
    np.testing.assert_allclose(intensity_scale([thinned]).spread, intensity_scale([whole]).spread, rtol=0.03)


# Plates


def write_plates(folder: Path, doses: tuple[float, ...] = (0.25, 0.5, 1.0)) -> Path:
    """Write two plates of the same wells, p2 three times brighter and on a higher background, and their table."""
    rows = ["file,plate,control"]
    for plate, gain in (("p1", 1), ("p2", 3)):
        for well, dose in enumerate((0.25, 0.25, *doses)):
            pixels = field(30, noise=0.5, background=5.0, brightness=40 * dose).astype(np.uint16) * gain + 10 * gain
            tifffile.imwrite(folder / f"{plate}_{well}.tif", pixels)
            rows.append(f"{plate}_{well}.tif,{plate},{'yes' if well < 2 else ''}")
    table = folder / "plates.csv"
    table.write_text("\n".join(rows) + "\n")
    return table


def plate_scaled(plates: Plates, path: Path) -> np.ndarray:
    """Scale the one channel of an image as its plate."""
    with plates.open(path) as image:
        return plates.plate_of(image.path).scale(("DNA",)).scale.apply(image.plane(0))[0]


def test_a_table_of_plates_that_is_not_there_is_refused_also_where_none_is_needed(tmp_path: Path) -> None:
    with pytest.raises(OptionsError, match="which is no file; expected a table"):
        Plates(tmp_path / "plates.csv")


def test_wells_of_two_plates_are_equal_and_doses_stay_apart(tmp_path: Path) -> None:
    """Three times the light gives the same pixels; four times the dose stays four times as bright."""
    plates = Plates(write_plates(tmp_path))
    for well in range(5):
        one, other = (plate_scaled(plates, tmp_path / f"p{plate}_{well}.tif") for plate in (1, 2))
        np.testing.assert_allclose(one, other, atol=1e-5)
    low, high = (np.quantile(plate_scaled(plates, tmp_path / f"p2_{well}.tif"), 0.98) for well in (0, 4))
    assert (low, high) == (pytest.approx(1, abs=0.15), pytest.approx(4, abs=0.5))


def test_controls_else_all_images_of_a_plate_and_it_is_said(tmp_path: Path) -> None:
    """The scale is that of the two control images; without marks that of the median image, and the sentence says so."""
    table = write_plates(tmp_path)
    marked = Plates(table).plate_of(tmp_path / "p1_4.tif").scale(("DNA",))
    assert (marked.name, marked.measured, marked.controls) == ("plate p1", 2, True)
    assert marked.sentence == "intensities are scaled by the 2 control images of plate p1"
    table.write_text(table.read_text().replace("yes", "no"))
    every = Plates(table).plate_of(tmp_path / "p1_4.tif").scale(("DNA",))
    assert every.sentence == (
        "intensities are scaled by the 5 images of plate p1, none of which is marked as a control"
    )
    assert every.scale.spread[0] == pytest.approx(marked.scale.spread[0], rel=0.1)  # three of five have that dose


def test_without_a_table_the_folder_is_the_plate(tmp_path: Path) -> None:
    """All images of the folder count, those of another do not; without the column plate controls are of the folder."""
    (tmp_path / "other").mkdir()
    write_plates(tmp_path)
    write_plates(tmp_path / "other")
    plate = Plates().plate_of(tmp_path / "p1_0.tif")
    assert (len(plate.members), plate.controls, plate.name) == (10, False, f"the folder {tmp_path.name}")
    (tmp_path / "controls.csv").write_text("file,control\np1_0.tif,x\np1_1.tif,\nother/p1_0.tif,\n")
    plates = Plates(tmp_path / "controls.csv")
    assert [len(plates.plate_of(tmp_path / name).members) for name in ("p1_1.tif", "other/p1_0.tif")] == [1, 1]
    assert [plates.plate_of(tmp_path / name).controls for name in ("p1_1.tif", "other/p1_0.tif")] == [True, False]


def test_the_fields_of_an_ome_zarr_plate_share_it(tmp_path: Path) -> None:
    """A field belongs to its plate, and so does the plate as one image."""
    plate = write_plate(
        tmp_path / "plate.ome.zarr", {"A/01": [np.ones((1, 70, 80))], "B/02": [np.ones((1, 70, 80))] * 2}
    )
    plates = Plates()
    found = {plates.plate_of(path) for path in (plate, plate / "A/01/0", plate / "B/02/1")}
    assert [(one.name, len(one.members)) for one in found] == [("the plate plate.ome.zarr", 3)]


def test_blank_broken_and_dazzling_images_do_not_move_the_scale(tmp_path: Path) -> None:
    """A black image, one of another size of numbers and one that cannot be read leave the scale as it was, nearly."""
    write_plates(tmp_path, doses=(0.25, 0.25, 0.25, 0.25, 0.25))
    for path in tmp_path.glob("p2*"):
        path.unlink()
    before = Plates().plate_of(tmp_path / "p1_0.tif").scale(("DNA",))
    tifffile.imwrite(tmp_path / "black.tif", np.zeros((320, 320), np.uint16))
    tifffile.imwrite(tmp_path / "dazzling.tif", field(30).astype(np.uint16) * 257)
    (tmp_path / "broken.tif").write_bytes(b"no image")
    after = Plates().plate_of(tmp_path / "p1_0.tif").scale(("DNA",))
    assert (after.measured, after.images) == (9, 10)
    assert after.sentence.startswith("intensities are scaled by 9 of the 10 images of the folder")
    assert after.scale.background[0] == pytest.approx(before.scale.background[0], abs=1)
    assert after.scale.spread[0] == pytest.approx(before.scale.spread[0], rel=0.05)


def test_empty_fields_do_not_lower_the_spread_and_dark_controls_are_doubted(tmp_path: Path) -> None:
    """Three empty fields beside two with cells leave their spread; where all are empty, the doubt names the channel."""
    for number, cells in enumerate((0, 30, 0, 30, 0)):
        tifffile.imwrite(tmp_path / f"{number}.tif", field(cells))
    found = Plates().plate_of(tmp_path / "0.tif").scale(("DNA",))
    assert (found.scale.spread[0], found.dark, found.doubt) == (pytest.approx(60, abs=3), (), "")
    for number in (1, 3):
        (tmp_path / f"{number}.tif").unlink()
    (tmp_path / "plates.csv").write_text("file,control\n0.tif,yes\n2.tif,yes\n4.tif,no\n")
    found = Plates(tmp_path / "plates.csv").plate_of(tmp_path / "4.tif").scale(("DNA",))
    assert found.doubt.startswith("nothing stands out of the noise in DNA on the control images of the folder")


def test_a_plate_of_one_image_is_doubted_and_one_that_cannot_be_read_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", field(9))
    assert "only one image of the folder" in Plates().plate_of(tmp_path / "a.tif").scale(("DNA",)).doubt
    (tmp_path / "a.tif").write_bytes(b"no image")
    with pytest.raises(ImageError, match=r"none of the 1 images by which the folder .* is scaled can be read: "):
        Plates().plate_of(tmp_path / "a.tif").scale(("DNA",))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,label\na.tif,x\n", r"has the columns file, label; a table of plates needs file and plate or control"),
        ("file,plate\na.tif,1\nb.tif,\n", r"plate is filled for 1 of 2 rows, and line 3 is the first without"),
        ("file,control\na.tif,perhaps\n", r"line 2 has 'perhaps' as control; expected yes or no"),
        ("file,plane,plate\na.tif,T0,1\na.tif,T1,2\n", r"puts a.tif on two plates, 1 and 2"),
        ("file,plate\n,1\n", r"line 2 names no file"),
    ],
)
def test_mistakes_in_a_table_of_plates_are_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "plates.csv").write_text(text)
    with pytest.raises(LabelsError, match=message):
        Plates(tmp_path / "plates.csv").plate_of(tmp_path / "a.tif")


def test_an_image_that_the_table_does_not_list_is_refused(tmp_path: Path) -> None:
    plates = Plates(write_plates(tmp_path))
    with pytest.raises(ImageError, match=r"new.tif is not in .*plates.csv, which lists the images of each plate; add"):
        plates.plate_of(tmp_path / "new.tif")
    with pytest.raises(ImageError, match=r"the image is no file: it is not known which images share its plate"):
        plates.plate_of(None)


@pytest.mark.parametrize("kind", ["uint8", "int8", "uint16", ">u2", "int16", "float32", "float64"])
def test_the_scale_is_that_of_the_numbers_whatever_their_kind(kind: str) -> None:
    """Whole numbers of 16 bits are sampled and sorted as such, all others as float64: the scale is the same."""
    pixels = np.random.default_rng(0).poisson(20, (1, 90, 100)) + 60 * (np.arange(100) % 20 < 4)
    image, exact = (open_image(pixels.astype(one), axes="CYX") for one in (kind, "float64"))
    found, wanted = (sample_plane(one, 0, (0,)) for one in (image, exact))
    np.testing.assert_array_equal(found.steps, wanted.steps)
    assert intensity_scale([found]) == intensity_scale([wanted])
    assert intensity_scale([found, wanted]) == intensity_scale([wanted, wanted])
